package directory_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// What this process has changed is in force when the change returns, although
// the directory remembers: no answer of before it is given after it.
func TestOwnChangesAreObeyedAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		follow(t, w)
		c, _ := w.application(t)
		ctx := t.Context()
		group := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: tenant, Kind: directory.Group, Name: "g"}}
		must(t, w.Add(ctx, group))
		in := func() bool {
			t.Helper()
			groups, err := w.Groups(ctx, c.ObjectID)
			must(t, err)
			return slices.Contains(groups, group.ObjectID)
		}
		for i := range 10 {
			if in() {
				t.Fatalf("round %d: a member too early", i)
			}
			must(t, w.AddMember(ctx, group.ObjectID, c.ObjectID))
			if !in() {
				t.Fatalf("round %d: no member", i)
			}
			must(t, w.RemoveMember(ctx, group.ObjectID, c.ObjectID))

			secret, cred, err := w.AddSecret(ctx, c.ObjectID, "s", w.now, w.now.Add(time.Hour))
			must(t, err)
			if got := w.outcome(t, c.AppID, secret.Reveal()); got != "in" {
				t.Fatalf("round %d: a new secret is %s", i, got)
			}
			must(t, w.RemoveSecret(ctx, c.ObjectID, cred.KeyID))
			if got := w.outcome(t, c.AppID, secret.Reveal()); got != "wrong" {
				t.Fatalf("round %d: a removed secret is %s", i, got)
			}
			if _, err := w.Standing(ctx, c.ObjectID, cred.KeyID); !errors.Is(err, directory.ErrUnknown) {
				t.Fatalf("round %d: what it bought is good: %v", i, err)
			}
		}
		// Groups and applications hold roles or make principals; nobody is one.
		if _, err := w.Standing(ctx, group.ObjectID, ""); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("a group signs in: %v", err)
		}
		app := group
		app.ObjectID, app.Kind, app.AppID = directory.NewID(), directory.Application, directory.NewID()
		must(t, w.Add(ctx, app))
		if _, err := w.Principal(ctx, app.ObjectID); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("an application is granted roles: %v", err)
		}
		if p, err := w.Principal(ctx, group.ObjectID); err != nil || p.Kind != directory.Group {
			t.Error(p, err)
		}
		must(t, w.Remove(ctx, c.ObjectID))
		if _, err := w.Principal(ctx, c.ObjectID); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("a deleted principal: %v", err)
		}
	})
}
