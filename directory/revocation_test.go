package directory_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// What one node takes away is refused by another within ten seconds, for every
// kind of credential and for the principal itself: both have remembered it, and
// only the record of changes tells the second.
//
// Published failure 9.
func TestRevocationReachesTheOtherNode(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		here := directory.New(store.NewIdentity(db), nil)
		there := directory.New(store.NewIdentity(db), nil)
		ended := make(chan error, 1)
		go func() { ended <- there.Run(ctx) }()
		defer func() { stop(); <-ended }()
		until(t, "the other node follows", there.Live)

		now := time.Now()
		secret, cred := directory.NewSecret("ci", now, time.Hour)
		more, moreCred := directory.NewSecret("next", now, time.Hour)
		sp := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.ServicePrincipal}, Credentials: []directory.Credential{cred, moreCred}}
		federated, err := directory.NewFederation("main", directory.Federation{Issuer: "https://issuer.example", Subject: "s", Audiences: []string{"a"}})
		must(t, err)
		password, err := directory.NewPassword(ctx, "correct horse", now)
		must(t, err)
		alice := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: sp.Tenant, Kind: directory.User, UPN: "alice@cove.internal"}, Credentials: []directory.Credential{password}}
		must(t, errors.Join(here.Add(ctx, sp), here.Add(ctx, alice)))
		must(t, here.ChangeFederations(ctx, sp.ObjectID, func([]directory.Credential) ([]directory.Credential, error) {
			return []directory.Credential{federated}, nil
		}))

		bought, err := here.Verify(ctx, sp.AppID, func(*directory.Client) (directory.Credential, error) { return federated, nil })
		must(t, err)

		signIn := func() error { _, err := there.SignIn(ctx, sp.AppID, secret.Reveal()); return err }
		standing := func(id, key string) func() error {
			return func() error { _, err := there.Standing(ctx, id, key); return err }
		}
		person := func() error {
			_, err := there.SignInUser(ctx, "alice@cove.internal", "correct horse")
			return err
		}
		until(t, "all of it is good there", func() bool {
			return errors.Join(signIn(), standing(sp.ObjectID, cred.KeyID)(), standing(sp.ObjectID, moreCred.KeyID)(), standing(sp.ObjectID, bought.KeyID)(), person(), standing(alice.ObjectID, password.KeyID)()) == nil
		})
		for _, c := range []struct {
			name string
			take func() error
			ends []func() error
			lets []func() error
		}{
			{
				"a secret", func() error { return here.RemoveSecret(ctx, sp.ObjectID, cred.KeyID) },
				[]func() error{signIn, standing(sp.ObjectID, cred.KeyID)},
				[]func() error{standing(sp.ObjectID, moreCred.KeyID), standing(sp.ObjectID, bought.KeyID)},
			},
			{
				"a federated credential", func() error {
					return here.ChangeFederations(ctx, sp.ObjectID, func([]directory.Credential) ([]directory.Credential, error) { return nil, nil })
				},
				[]func() error{standing(sp.ObjectID, bought.KeyID)},
				[]func() error{standing(sp.ObjectID, moreCred.KeyID)},
			},
			{
				"a password", func() error { return here.SetPassword(ctx, alice.ObjectID, "battery staple") },
				[]func() error{person, standing(alice.ObjectID, password.KeyID)},
				[]func() error{standing(alice.ObjectID, "")},
			},
			{
				"a principal's being enabled", func() error {
					_, err := here.Change(ctx, sp.ObjectID, func(o *directory.Object) error { o.Disabled = true; return nil })
					return err
				},
				[]func() error{standing(sp.ObjectID, moreCred.KeyID), standing(sp.ObjectID, "")},
				nil,
			},
			{
				"a principal", func() error { return here.Remove(ctx, alice.ObjectID) },
				[]func() error{standing(alice.ObjectID, ""), person},
				nil,
			},
		} {
			must(t, c.take())
			begun := time.Now()
			until(t, "without "+c.name, func() bool {
				for _, ends := range c.ends {
					if ends() == nil {
						return false
					}
				}
				return true
			})
			for i, lets := range c.lets {
				if err := lets(); err != nil {
					t.Errorf("without %s, what is left (%d): %v", c.name, i, err)
				}
			}
			t.Logf("without %s after %v", c.name, time.Since(begun).Round(time.Millisecond))
		}
		if _, err := there.SignIn(ctx, sp.AppID, more.Reveal()); !errors.Is(err, directory.ErrDisabled) {
			t.Errorf("a disabled principal's good secret: %v", err)
		}
	})
}

// until fails unless something holds within the ten seconds that a revocation
// may take.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for begun := time.Now(); !holds(); {
		if time.Since(begun) > 10*time.Second {
			t.Fatalf("after ten seconds: not %s", what)
		}
	}
}

// An unknown client and a known one with a wrong secret, disabled or not, cost
// the same: a reading of the store. What is remembered of a client would tell
// strangers that it exists.
//
// Published failure 21.
func TestARefusalCostsTheSameForAll(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		counted := &counting{Store: store.NewIdentity(db)}
		d := directory.New(counted, nil)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		defer func() { stop(); <-ended }()
		until(t, "the store is followed", d.Live)
		secret, cred := directory.NewSecret("ci", time.Now(), time.Hour)
		known := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.ServicePrincipal}, Credentials: []directory.Credential{cred}}
		must(t, d.Add(ctx, known))
		until(t, "the client is remembered", func() bool {
			counted.reads = 0
			if _, err := d.SignIn(ctx, known.AppID, secret.Reveal()); err != nil {
				t.Fatal(err)
			}
			return counted.reads == 0
		})
		for name, app := range map[string]string{"known": known.AppID, "unknown": directory.NewID()} {
			counted.reads = 0
			if _, err := d.SignIn(ctx, app, "wrong"); !errors.Is(err, directory.ErrSecret) || counted.reads != 1 {
				t.Errorf("%s: %v, after %d readings", name, err, counted.reads)
			}
		}
		// And nobody is refused for what is remembered: a secret that another
		// node has just made is good here at once.
		fresh, freshCred := directory.NewSecret("next", time.Now(), time.Hour)
		must(t, store.NewIdentity(db).AddCredential(ctx, known.ObjectID, freshCred))
		if _, err := d.SignIn(ctx, known.AppID, fresh.Reveal()); err != nil {
			t.Error(err)
		}
	})
}

// The same of people, whose refusals cost a hash besides: as many as one, for
// one who is there and one who is not.
//
// Published failure 21.
func TestARefusalOfAPersonCostsTheSame(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		counted := &counting{Store: store.NewIdentity(db)}
		d := directory.New(counted, nil)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error, 1)
		go func() { ended <- d.Run(ctx) }()
		defer func() { stop(); <-ended }()
		until(t, "the store is followed", d.Live)
		password, err := directory.NewPassword(ctx, "correct horse", time.Now())
		must(t, err)
		alice := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.User, UPN: "alice@cove.internal"}, Credentials: []directory.Credential{password}}
		must(t, d.Add(ctx, alice))
		until(t, "alice is remembered", func() bool {
			counted.reads = 0
			if _, err := d.SignInUser(ctx, "Alice@cove.internal", "correct horse"); err != nil {
				t.Fatal(err)
			}
			return counted.reads == 0
		})
		for _, upn := range []string{"alice@cove.internal", "nobody@cove.internal"} {
			counted.reads = 0
			if _, err := d.SignInUser(ctx, upn, "wrong horse"); !errors.Is(err, directory.ErrSecret) || counted.reads != 1 {
				t.Errorf("%s: %v, after %d readings", upn, err, counted.reads)
			}
		}
		// A password that another node has just set is good here at once, and
		// the one before is not, once that is heard of.
		next, err := directory.NewPassword(ctx, "battery staple", time.Now())
		must(t, err)
		must(t, store.NewIdentity(db).ChangeCredentials(ctx, alice.ObjectID, directory.KindPassword, func([]directory.Credential) ([]directory.Credential, error) {
			return []directory.Credential{next}, nil
		}))
		if _, err := d.SignInUser(ctx, "alice@cove.internal", "battery staple"); err != nil {
			t.Error(err)
		}
		until(t, "without the password before", func() bool {
			_, err := d.SignInUser(ctx, "alice@cove.internal", "correct horse")
			return errors.Is(err, directory.ErrSecret)
		})
	})
}

// counting counts the readings of clients by their ids and names.
type counting struct {
	directory.Store
	reads int
}

func (c *counting) ByApp(ctx context.Context, id string) (directory.Client, error) {
	c.reads++
	return c.Store.ByApp(ctx, id)
}

func (c *counting) ByUPN(ctx context.Context, upn string) (directory.Client, error) {
	c.reads++
	return c.Store.ByUPN(ctx, upn)
}
