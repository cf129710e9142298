package resource_test

import (
	"errors"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// row:98 A subscription makes resources of the namespaces that it is
// registered for, each of its own, and stays registered while it has some.
func TestRegistration(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		ctx := t.Context()
		states := func(sub string) map[string]string {
			t.Helper()
			s, err := f.Registrations(ctx, resource.SubscriptionID(sub))
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		if s := states("s1"); s["test.sea"] != resource.Registered || s["microsoft.resources"] != resource.Registered {
			t.Errorf("a new subscription: %v", s)
		}
		if err := f.Begin(ctx, resource.First{Tenant: "t1", Subscription: "s2"}); err != nil {
			t.Fatal(err)
		}
		one, two := resource.SubscriptionID("s1"), resource.SubscriptionID("s2")
		if err := f.Register(ctx, owner, two, "test.SEA", false); err != nil {
			t.Fatal(err)
		}
		if s := states("s2"); s["test.sea"] != resource.Unregistered || s["test.law"] != resource.Registered {
			t.Errorf("after it was unregistered: %v", s)
		}
		f.put("/subscriptions/s2/resourceGroups/docks", `{"location":"eastus"}`)
		theirs := "/subscriptions/s2/resourceGroups/docks/providers/Test.Sea/ships/wanda"
		put := func(id string) error {
			_, err := f.Put(ctx, owner, arm.MustID(id), resource.Object{}, always)
			return err
		}
		if err := put(theirs); !errors.Is(err, resource.ErrNotRegistered) {
			t.Errorf("in a subscription that is not registered: %v", err)
		}
		if err := put(ships + "wanda"); err != nil {
			t.Errorf("the other subscription: %v", err)
		}
		if err := f.Register(ctx, owner, one, "Test.Sea", false); !errors.Is(err, resource.ErrNamespaceInUse) {
			t.Errorf("unregistered under its resources: %v", err)
		}
		if err := f.Register(ctx, owner, two, "Test.Sea", true); err != nil {
			t.Fatal(err)
		}
		if err := put(theirs); err != nil {
			t.Errorf("registered again: %v", err)
		}
		if err := f.Register(ctx, owner, one, "Test.Nowhere", true); !errors.Is(err, resource.ErrNamespaceUnknown) {
			t.Errorf("an unknown namespace: %v", err)
		}
		if err := f.Register(ctx, owner, resource.SubscriptionID("s3"), "Test.Sea", true); !errors.Is(err, resource.ErrSubscriptionUnknown) {
			t.Errorf("an unknown subscription: %v", err)
		}
		// Begin, at every start, gives nothing back that was taken away.
		if _, err := f.Delete(ctx, owner, arm.MustID(theirs), always); err != nil {
			t.Fatal(err)
		}
		if err := f.Register(ctx, owner, two, "Test.Sea", false); err != nil {
			t.Fatal(err)
		}
		if err := f.Begin(ctx, resource.First{Tenant: "t1", Subscription: "s2"}); err != nil {
			t.Fatal(err)
		}
		if s := states("s2"); s["test.sea"] != resource.Unregistered {
			t.Errorf("after a restart: %v", s)
		}
	})
}
