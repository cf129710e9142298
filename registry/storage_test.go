package registry_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"cove.example/cove/oci"
	"cove.example/cove/registry"
)

// row:94 A registry that has reached its SKU's storage takes no more; one that
// was far from it is not measured at each push.
func TestStorageLimit(t *testing.T) {
	now := time.Now()
	size, measured := map[string]int64{}, 0
	s := &registry.Storage{
		Size:   func(_ context.Context, uid string) (int64, error) { measured++; return size[uid], nil },
		Limits: map[string]int64{registry.Basic: 100, registry.Premium: 1000}, Now: func() time.Time { return now },
	}
	full := func(uid, sku string) bool {
		t.Helper()
		err := s.Room(t.Context(), uid, sku)
		if err != nil && !errors.Is(err, oci.ErrDisallowed) {
			t.Fatal(err)
		}
		return err != nil
	}
	size["a"], size["b"] = 50, 500
	if full("a", registry.Basic) || full("b", registry.Premium) || !full("b", registry.Basic) {
		t.Error("the limit is not the SKU's")
	}
	before := measured
	for range 100 {
		full("a", registry.Basic)
	}
	if measured != before {
		t.Errorf("measured %d times", measured-before)
	}
	size["a"] = 95
	now = now.Add(10 * time.Minute)
	if full("a", registry.Basic) {
		t.Error("refused with room left")
	}
	size["a"] = 100 // nearly full: it is looked at more often
	now = now.Add(10 * time.Second)
	if !full("a", registry.Basic) {
		t.Error("a full registry takes more")
	}
	size["a"] = 10 // somebody has deleted
	now = now.Add(10 * time.Second)
	if full("a", registry.Basic) {
		t.Error("refused when there is room again")
	}
	s.Size = func(context.Context, string) (int64, error) { return 0, errors.New("away") }
	if full("c", registry.Basic) {
		t.Error("refused for want of a measurement")
	}
}
