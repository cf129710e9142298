package store_test

import (
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// What ends soon is found, the soonest first; what has no end, ends later or
// belongs to somebody who is disabled is not.
func TestCredentialsThatEndAreFound(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := store.NewIdentity(db)
		at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
		add := func(id, name string, ends time.Time, disabled bool) {
			t.Helper()
			err := s.Create(t.Context(), directory.Client{
				Principal:   directory.Principal{ObjectID: id, Tenant: "t", Kind: directory.ServicePrincipal, AppID: "a" + id[1:], Name: name, Disabled: disabled},
				Credentials: []directory.Credential{{KeyID: "k" + id[1:], Kind: directory.KindSecret, Name: "s", Start: at, End: ends}},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		add("0-second", "second", at.Add(48*time.Hour), false)
		add("1-first", "first", at.Add(-time.Hour), false)
		add("2-later", "later", at.Add(480*time.Hour), false)
		add("3-never", "never", time.Time{}, false)
		add("4-off", "off", at, true)
		got, err := s.Ending(t.Context(), at.Add(72*time.Hour), 10)
		if err != nil || len(got) != 2 || got[0].Holder != "first" || got[1].Holder != "second" || !got[0].Ends.Equal(at.Add(-time.Hour)) {
			t.Errorf("%v %+v", err, got)
		}
		if got, err := s.Ending(t.Context(), at.Add(72*time.Hour), 1); err != nil || len(got) != 1 {
			t.Errorf("%v %+v", err, got)
		}
	})
}
