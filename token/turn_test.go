package token_test

import (
	"crypto/rand"
	"slices"
	"testing"
	"time"

	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

// Keys turn by themselves every thirty days, on two nodes at once as on one:
// the next is published before it signs, and the one before verifies until its
// last token has ended. No token is refused on the way, and nothing is kept of
// keys that are long over.
func TestKeysTurn(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := &world{store: store.NewKeys(db), now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
		secret := make([]byte, 32)
		rand.Read(secret)
		box, err := seal.New(secret)
		must(t, err)
		w.box = box
		w.keys, err = token.OpenKeys(t.Context(), w.store, box, w.Now)
		must(t, err)
		w.Tokens = token.New(w.keys, issuer)
		other, err := token.OpenKeys(t.Context(), w.store, box, w.Now)
		must(t, err)
		turn := func() {
			t.Helper()
			done := make(chan error, 2)
			go func() { done <- w.keys.Turn(t.Context()) }()
			go func() { done <- other.Turn(t.Context()) }()
			must(t, <-done)
			must(t, <-done)
		}
		published := func() (ids []string) {
			for _, k := range w.keys.JWKS().Keys {
				ids = append(ids, k.KeyID)
			}
			return ids
		}
		access, registry := kinds[0], kinds[4]
		turn()
		first, firstRegistry := kid(t, mint(t, w, access)), kid(t, mint(t, w, registry))
		w.pass(29*24*time.Hour - time.Second)
		turn()
		if got := published(); len(got) != 1 || kid(t, mint(t, w, registry)) != firstRegistry {
			t.Fatalf("turned before its time: %v", got)
		}
		w.pass(24*time.Hour + time.Second)
		turn()
		if got := published(); len(got) != 2 || !slices.Contains(got, first) {
			t.Fatalf("published are %v", got)
		}
		if kid(t, mint(t, w, access)) != first || kid(t, mint(t, w, registry)) != firstRegistry {
			t.Error("a key signs at once when it is made")
		}
		// An hour of requests on the way over, on both nodes.
		there := token.New(other, issuer)
		type issued struct {
			kind
			raw string
			at  time.Time
		}
		var live []issued
		for range 13 {
			for _, k := range []kind{access, registry} {
				live = append(live, issued{k, mint(t, w, k), w.Now()})
			}
			w.pass(5 * time.Minute)
			turn()
			for _, each := range live {
				if w.Now().Sub(each.at) < token.AccessLife {
					if err := each.verify(w, each.raw); err != nil {
						t.Errorf("a token of %v was refused on the way, at %v: %v", each.at, w.Now(), err)
					}
				}
			}
		}
		last := mint(t, w, access)
		if kid(t, last) == first || kid(t, mint(t, w, registry)) == firstRegistry {
			t.Error("the old keys sign still")
		}
		if _, err := there.VerifyPrincipal(last, console); err != nil {
			t.Errorf("the other node: %v", err)
		}
		w.pass(3 * time.Hour)
		if got := published(); len(got) != 1 || got[0] == first {
			t.Errorf("published are %v after the last token of %s", got, first)
		}
		for range 5 {
			w.pass(token.KeyLife + 25*time.Hour)
			turn()
		}
		list, err := w.store.Keys(t.Context())
		if err != nil || len(list) > 4 {
			t.Errorf("%d keys are kept: %v", len(list), err)
		}
		open := 0
		for _, k := range list {
			if k.Retire.IsZero() {
				open++
			}
		}
		if open != 2 {
			t.Errorf("%d keys are open", open)
		}

		// A clock that was wrong for a while.
		w.pass(80 * 365 * 24 * time.Hour)
		turn()
		w.pass(-80 * 365 * 24 * time.Hour)
		turn()
		w.pass(2 * time.Hour)
		before := kid(t, mint(t, w, access))
		w.pass(token.KeyLife)
		turn()
		w.pass(2 * time.Hour)
		if kid(t, mint(t, w, access)) == before {
			t.Error("after a wrong clock the keys do not turn any more")
		}
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
