package whatif_test

import (
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/whatif"
)

// Who may not make a change may not try it: what a check of it says about other
// resources is for those who could have it said by making it. Nothing is looked
// at before.
func TestTryingAChangeTakesTheRightToMakeIt(t *testing.T) {
	harbor := arm.MustID("/subscriptions/s1/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/harbor")
	grant := arm.MustID(harbor.String() + "/providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-000000000001")
	reader := resource.Caller{ObjectID: "reader", May: func(action string, _ arm.ID) bool { return strings.HasSuffix(action, "/read") }}
	a := &whatif.Asker{}
	for _, id := range []arm.ID{harbor, grant} {
		change := []resource.Wanted{{ID: id, Body: resource.Object{}}}
		if _, err := a.May(t.Context(), whatif.Question{Registry: harbor, Change: change, Caller: reader}); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", id, err)
		}
		if _, _, err := a.Flips(t.Context(), reader, change, time.Time{}); !fault.Is(err, fault.Denied) {
			t.Errorf("flips of %s: %v", id, err)
		}
	}
}
