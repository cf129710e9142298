package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

func client(t *testing.T) directory.Client {
	t.Helper()
	_, cred := directory.NewSecret("ci", time.Unix(1_800_000_000, 0), time.Hour)
	return directory.Client{
		Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.ServicePrincipal, Name: "ci"},
		Credentials: []directory.Credential{cred},
	}
}

func TestIdentityKeepsWhatItIsGiven(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s, ctx := store.NewIdentity(db), t.Context()
		c := client(t)
		if err := s.Create(ctx, c); err != nil {
			t.Fatal(err)
		}
		byApp, err1 := s.ByApp(ctx, c.AppID)
		byObject, err2 := s.ByObject(ctx, c.ObjectID)
		if err1 != nil || err2 != nil || fmt.Sprint(byApp) != fmt.Sprint(byObject) || byApp.Principal != c.Principal ||
			len(byApp.Credentials) != 1 || byApp.Credentials[0].Hash != c.Credentials[0].Hash || !byApp.Credentials[0].End.Equal(c.Credentials[0].End) {
			t.Fatalf("%+v, %+v: %v, %v", byApp, byObject, err1, err2)
		}

		// An id belongs to one.
		for _, taken := range []func(*directory.Client){
			func(o *directory.Client) { o.ObjectID = c.ObjectID },
			func(o *directory.Client) { o.AppID = c.AppID },
			func(o *directory.Client) { o.Credentials[0].KeyID = c.Credentials[0].KeyID },
		} {
			other := client(t)
			taken(&other)
			if err := s.Create(ctx, other); !fault.Is(err, fault.Conflict) {
				t.Errorf("an id was taken twice: %v", err)
			}
		}
		// Principals without a client id do not share one, nor are found by it.
		for range 2 {
			human := client(t)
			human.AppID, human.Kind = "", "user"
			if err := s.Create(ctx, human); err != nil {
				t.Error(err)
			}
		}
		for _, absent := range []string{"", directory.NewID()} {
			if _, err := s.ByApp(ctx, absent); !errors.Is(err, directory.ErrUnknown) {
				t.Errorf("%q is somebody: %v", absent, err)
			}
		}
		for name, err := range map[string]error{
			"AddCredential":         s.AddCredential(ctx, directory.NewID(), client(t).Credentials[0]),
			"RemoveCredential":      s.RemoveCredential(ctx, c.ObjectID, directory.NewID()),
			"of another":            s.RemoveCredential(ctx, directory.NewID(), c.Credentials[0].KeyID),
			"SetDisabled":           s.SetDisabled(ctx, directory.NewID(), true),
			"ByObject of no object": func() error { _, err := s.ByObject(ctx, ""); return err }(),
		} {
			if !errors.Is(err, directory.ErrUnknown) {
				t.Errorf("%s of what is absent: %v", name, err)
			}
		}
		if err := errors.Join(s.Delete(ctx, c.ObjectID), s.Delete(ctx, c.ObjectID)); err != nil {
			t.Error(err)
		}
		if _, err := s.ByApp(ctx, c.AppID); !errors.Is(err, directory.ErrUnknown) {
			t.Error(err)
		}
	})
}

// What is not in the outbox did not happen.
func TestEveryChangeOfIdentityIsInTheOutbox(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s, k, ctx := store.NewIdentity(db), store.NewKeys(db), t.Context()
		c, more := client(t), client(t).Credentials[0]
		key := token.Stored{ID: "k1", Use: token.Issuer, Algorithm: "RS256", Sealed: []byte{1}, Created: time.Unix(1, 0), Activate: time.Unix(2, 0)}
		next := key
		next.ID = "k2"
		before := 0
		for _, step := range []struct {
			name string
			do   func() error
		}{
			{"Found", func() error {
				_, err := s.Found(ctx, directory.Tenant{ID: c.Tenant}, directory.Subscription{ID: directory.NewID(), Tenant: c.Tenant}, c)
				return err
			}},
			{"Create", func() error { return s.Create(ctx, client(t)) }},
			{"SetDisabled", func() error { return s.SetDisabled(ctx, c.ObjectID, true) }},
			{"AddCredential", func() error { return s.AddCredential(ctx, c.ObjectID, more) }},
			{"RemoveCredential", func() error { return s.RemoveCredential(ctx, c.ObjectID, more.KeyID) }},
			{"Delete", func() error { return s.Delete(ctx, c.ObjectID) }},
			{"AddFirst", func() error { _, err := k.AddFirst(ctx, key); return err }},
			{"Rotate", func() error { return k.Rotate(ctx, next, time.Unix(9, 0)) }},
			{"Revoke", func() error { return k.Revoke(ctx, next.ID, time.Unix(8, 0)) }},
		} {
			if err := step.do(); err != nil {
				t.Fatalf("%s: %v", step.name, err)
			}
			list, err := db.Changes(ctx, 0, 100)
			if err != nil || len(list) != before+1 {
				t.Fatalf("after %s the outbox has %d rows, %v", step.name, len(list), err)
			}
			before = len(list)
		}
		if done, err := s.Found(ctx, directory.Tenant{ID: "again"}, directory.Subscription{ID: "again"}, client(t)); done || err != nil {
			t.Error("a second tenant was founded", err)
		}
	})
}

func TestSigningKeys(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s, ctx := store.NewKeys(db), t.Context()
		at := func(n int64) time.Time { return time.Unix(1_800_000_000+n, 0) }
		one := func(id string, use token.Use) token.Stored {
			return token.Stored{ID: id, Use: use, Algorithm: "X", Sealed: []byte{0, 1, 255}, Created: at(1), Activate: at(2)}
		}
		// Of nodes that start at once, one makes the key.
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for i := range 5 {
			wg.Go(func() {
				done, err := s.AddFirst(ctx, one(fmt.Sprint("first", i), token.Issuer))
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Error(err)
				}
				if done {
					made++
				}
			})
		}
		wg.Wait()
		if made != 1 {
			t.Fatalf("%d nodes made the first key", made)
		}
		if done, err := s.AddFirst(ctx, one("registry", token.Registry)); !done || err != nil {
			t.Fatal("the first key of another use was not taken", err)
		}
		if err := s.Rotate(ctx, one("second", token.Issuer), at(100)); err != nil {
			t.Fatal(err)
		}
		if err := s.Rotate(ctx, one("third", token.Issuer), at(200)); err != nil {
			t.Fatal(err)
		}
		list, err := s.Keys(ctx)
		if err != nil || len(list) != 4 {
			t.Fatal(list, err)
		}
		ends := map[time.Time]int{}
		for _, k := range list {
			if !k.Retire.IsZero() {
				ends[k.Retire.Local()]++
			}
			if !bytes.Equal(k.Sealed, []byte{0, 1, 255}) || !k.Activate.Equal(at(2)) || !k.Created.Equal(at(1)) {
				t.Errorf("%+v", k)
			}
			if (k.ID == "registry" || k.ID == "third") != k.Retire.IsZero() {
				t.Errorf("%s retires at %v", k.ID, k.Retire)
			}
		}
		if ends[at(100).Local()] != 1 || ends[at(200).Local()] != 1 {
			t.Errorf("a rotation has moved the end of a key that had one: %v", ends)
		}
	})
}
