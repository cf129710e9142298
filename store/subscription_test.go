package store_test

import (
	"testing"

	"cove.example/cove/directory"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// A further subscription is of a tenant that there is, has a name of its own
// there, comes after those that were there before, and is known to whoever
// follows the directory.
func TestFurtherSubscriptions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := store.NewIdentity(db)
		c := client(t)
		if _, err := s.Found(t.Context(), directory.Tenant{ID: c.Tenant}, directory.Subscription{ID: directory.NewID(), Tenant: c.Tenant, Name: "first"}, c); err != nil {
			t.Fatal(err)
		}
		before, err := db.Changes(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		second := directory.Subscription{ID: "00000000-0000-4000-8000-000000000001", Tenant: c.Tenant, Name: "second"}
		for _, step := range []struct {
			sub   directory.Subscription
			added bool
		}{
			{second, true},
			{directory.Subscription{ID: directory.NewID(), Tenant: c.Tenant, Name: "second"}, false},
			{directory.Subscription{ID: directory.NewID(), Tenant: directory.NewID(), Name: "elsewhere"}, false},
		} {
			if added, err := s.AddSubscription(t.Context(), step.sub); err != nil || added != step.added {
				t.Errorf("%v: %v, %v", step.sub, added, err)
			}
		}
		list, err := s.Subscriptions(t.Context())
		if err != nil || len(list) != 2 || list[0].Name != "first" || list[1] != second {
			t.Errorf("subscriptions: %v, %v", list, err)
		}
		after, err := db.Changes(t.Context(), 0, 1000)
		if err != nil || len(after) != len(before)+1 || after[len(after)-1].Kind != "directory" {
			t.Errorf("changes: %v, %v", after[len(before):], err)
		}
	})
}
