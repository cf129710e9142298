package armapi_test

import (
	"slices"
	"testing"

	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// Whoever holds a role on anything in a subscription sees the subscription, so
// that a client finds what the role is for; others do not, and nobody sees a
// group by it.
func TestSubscriptionsThatAreSeen(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		for who, want := range map[string]int{"owner": 1, "clerk": 1, "reader": 1, "puller": 1, "stranger": 0, "auditor": 0} {
			list := s.expect(200, who, "GET", "/subscriptions"+version, "").body["value"].([]any)
			if len(list) != want {
				t.Errorf("%s: %v", who, list)
			}
			status := map[int]int{0: 403, 1: 200}[want]
			if who == "clerk" {
				status = 403 // may read the subscription and its groups only
			}
			for _, what := range []string{"/locations", "/providers", "/providers/Microsoft.ContainerRegistry"} {
				s.expect(status, who, "GET", sub+what+version, "")
			}
			s.expect(map[int]int{0: 403, 1: 200}[want], who, "GET", sub+version, "")
		}
		s.expect(403, "reader", "GET", sub+"/resourceGroups"+version, "")
		s.expect(403, "reader", "GET", group+version, "")
		s.expect(403, "reader", "GET", "/subscriptions/other"+version, "")
		if got := s.expect(200, "reader", "GET", sub+"/resources"+version, "").names(); !slices.Equal(got, []string{"harbor"}) {
			t.Errorf("resources: %v", got)
		}
		// With a role for data alone nothing is there, and that is no refusal.
		for _, what := range []string{"", "&$filter=resourceType%20eq%20'Microsoft.ContainerRegistry/registries'"} {
			if a := s.expect(200, "puller", "GET", sub+"/resources"+version+what, ""); len(a.body["value"].([]any)) != 0 {
				t.Errorf("a puller's resources: %s", a.text)
			}
			s.expect(403, "stranger", "GET", sub+"/resources"+version+what, "")
		}
		s.expect(403, "puller", "GET", sub+"/providers/Microsoft.ContainerRegistry/registries"+version, "")
		s.expect(403, "puller", "GET", "/subscriptions/other/resources"+version, "")
		if a := s.expect(200, "reader", "GET", "/subscriptions"+version, ""); resource.Lookup(a.body["value"].([]any)[0].(resource.Object), "state") != "Enabled" {
			t.Errorf("the subscription: %s", a.text)
		}
	})
}
