package directory_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const tenant = "11111111-1111-4111-8111-111111111111"

type world struct {
	*directory.Directory
	store *store.Identity
	now   time.Time
}

func open(t *testing.T, db *store.DB) *world {
	t.Helper()
	w := &world{store: store.NewIdentity(db), now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	w.Directory = directory.New(w.store, func() time.Time { return w.now })
	return w
}

// application makes one with a secret that is good for an hour.
func (w *world) application(t *testing.T) (directory.Client, directory.Secret) {
	t.Helper()
	secret, cred := directory.NewSecret("ci", w.now, time.Hour)
	c := directory.Client{
		Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: tenant, Kind: directory.ServicePrincipal, Name: "ci"},
		Credentials: []directory.Credential{cred},
	}
	if err := w.store.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return c, secret
}

func (w *world) outcome(t *testing.T, appID, secret string) string {
	t.Helper()
	_, err := w.SignIn(t.Context(), appID, secret)
	for text, is := range map[string]error{"wrong": directory.ErrSecret, "expired": directory.ErrExpired, "disabled": directory.ErrDisabled} {
		if errors.Is(err, is) {
			if err.Error() != "Invalid clientid or client secret." {
				t.Errorf("%s tells a stranger more: %v", text, err)
			}
			return text
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return "in"
}

// The sequence of a secret's life, remembered or not.
func TestSignIn(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		for _, remembers := range []bool{false, true} {
			t.Run(fmt.Sprintf("remembers %v", remembers), func(t *testing.T) {
				w := open(t, db)
				if remembers {
					follow(t, w)
				}
				c, secret := w.application(t)
				expect := func(want, app, secret string) {
					t.Helper()
					// A change of this node is obeyed within moments.
					deadline := time.Now().Add(time.Minute)
					for w.outcome(t, app, secret) != want {
						if time.Now().After(deadline) {
							t.Fatalf("not %s", want)
						}
						time.Sleep(time.Millisecond)
					}
				}
				expect("in", c.AppID, secret.Reveal())
				expect("in", strings.ToUpper(c.AppID), secret.Reveal())
				expect("wrong", c.AppID, secret.Reveal()+"x")
				expect("wrong", c.AppID, "")
				expect("wrong", directory.NewID(), secret.Reveal())
				expect("wrong", "", "")

				second, cred := directory.NewSecret("next", w.now, 2*time.Hour)
				must(t, w.store.AddCredential(t.Context(), c.ObjectID, cred))
				expect("in", c.AppID, second.Reveal())
				expect("in", c.AppID, secret.Reveal())
				w.now = w.now.Add(time.Hour)
				expect("expired", c.AppID, secret.Reveal())
				expect("in", c.AppID, second.Reveal())

				// Not before its time either.
				later, cred3 := directory.NewSecret("later", w.now.Add(time.Minute), time.Hour)
				must(t, w.store.AddCredential(t.Context(), c.ObjectID, cred3))
				expect("expired", c.AppID, later.Reveal())
				w.now = w.now.Add(time.Minute)
				expect("in", c.AppID, later.Reveal())

				must(t, w.store.SetDisabled(t.Context(), c.ObjectID, true))
				expect("disabled", c.AppID, second.Reveal())
				must(t, w.store.SetDisabled(t.Context(), c.ObjectID, false))
				expect("in", c.AppID, second.Reveal())
				must(t, w.store.RemoveCredential(t.Context(), c.ObjectID, cred.KeyID))
				expect("wrong", c.AppID, second.Reveal())
				must(t, w.store.Delete(t.Context(), c.ObjectID))
				expect("wrong", c.AppID, secret.Reveal())
			})
		}
	})
}

// What a token that was issued earlier is worth.
func TestStanding(t *testing.T) {
	w := open(t, storetest.Open(t, storetest.SQLite(t)))
	c, _ := w.application(t)
	key := c.Credentials[0].KeyID
	check := func(want error, object, key string) {
		t.Helper()
		if _, err := w.Standing(t.Context(), object, key); !errors.Is(err, want) {
			t.Errorf("%v, not %v", err, want)
		}
	}
	check(nil, c.ObjectID, key)
	check(nil, c.ObjectID, "")
	check(directory.ErrUnknown, c.ObjectID, directory.NewID())
	check(directory.ErrUnknown, directory.NewID(), key)
	w.now = w.now.Add(time.Hour)
	check(directory.ErrExpired, c.ObjectID, key)
	must(t, w.store.SetDisabled(t.Context(), c.ObjectID, true))
	check(directory.ErrDisabled, c.ObjectID, key)
	must(t, w.store.Delete(t.Context(), c.ObjectID))
	check(directory.ErrUnknown, c.ObjectID, key)
}

func TestBootstrapHappensOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		var saved, owned directory.Admin
		save := func(_ context.Context, a directory.Admin) error { saved = a; return nil }
		own := func(_ context.Context, a directory.Admin) error { owned = a; return nil }

		// A first start that cannot keep the secret must not happen: nobody
		// would ever know it.
		full := errors.New("disk full")
		_, created, err := directory.Bootstrap(t.Context(), w.store, w.now, func(context.Context, directory.Admin) error { return full }, own)
		if created || !errors.Is(err, full) || owned.ClientID != "" {
			t.Fatal(created, err)
		}
		a, created, err := directory.Bootstrap(t.Context(), w.store, w.now, save, own)
		if !created || err != nil || saved != a || owned != a {
			t.Fatal(created, err)
		}
		in, err := w.SignIn(t.Context(), a.ClientID, a.Secret.Reveal())
		if err != nil || in.ObjectID != a.ObjectID || in.Tenant != a.Tenant {
			t.Fatal(in, err)
		}
		sub, err := w.Subscription(t.Context(), strings.ToUpper(a.Subscription))
		if err != nil || sub.Tenant != a.Tenant {
			t.Fatal(sub, err)
		}
		saved = directory.Admin{}
		_, created, err = directory.Bootstrap(t.Context(), w.store, w.now, save, own)
		if created || err != nil || saved.ClientID != "" {
			t.Fatal("a second start made itself an administrator", err)
		}
		if ts, err := w.Tenants(t.Context()); err != nil || len(ts) != 1 {
			t.Fatal(ts, err)
		}
	})
}

// Two nodes that start at once found one tenant.
func TestTwoNodesBootstrapOneTenant(t *testing.T) {
	url := storetest.Postgres(t)
	type result struct {
		created bool
		err     error
	}
	results := make(chan result)
	for range 4 {
		st := store.NewIdentity(storetest.Open(t, url))
		go func() {
			nothing := func(context.Context, directory.Admin) error { return nil }
			_, created, err := directory.Bootstrap(t.Context(), st, time.Now(), nothing, nothing)
			results <- result{created, err}
		}()
	}
	founders := 0
	for range 4 {
		r := <-results
		if r.err != nil {
			t.Error(r.err)
		}
		if r.created {
			founders++
		}
	}
	if founders != 1 {
		t.Errorf("%d nodes founded a tenant", founders)
	}
}

func TestSecretsArePrintedNowhere(t *testing.T) {
	secret, cred := directory.NewSecret("ci", time.Now(), time.Hour)
	var log strings.Builder
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", secret, "cred", cred)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", secret)
	text, err := json.Marshal(map[string]any{"s": secret, "c": cred})
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %q %v %#v", secret, secret, secret, secret, secret, cred, cred) + log.String() + string(text)
	if strings.Contains(all, secret.Reveal()[14:30]) {
		t.Errorf("a secret is in %s", all)
	}
	if !directory.Looks(secret.Reveal()) || directory.Looks(secret.Reveal()[:40]) || directory.Looks(strings.ToUpper(secret.Reveal())) {
		t.Error("a scanner could not tell a secret")
	}
	if other, _ := directory.NewSecret("ci", time.Now(), time.Hour); other.Reveal() == secret.Reveal() {
		t.Error("two secrets are the same")
	}
}

// A stolen database holds no credential that works.
func TestTheStoreHoldsNoSecret(t *testing.T) {
	w := open(t, storetest.Open(t, storetest.SQLite(t)))
	c, secret := w.application(t)
	got, err := w.store.ByApp(t.Context(), c.AppID)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%#v", got); strings.Contains(text, secret.Reveal()[14:]) {
		t.Error("the secret is in the store")
	}
	for _, part := range []string{got.Credentials[0].Hint, string(got.Credentials[0].Hash[:])} {
		if w.outcome(t, c.AppID, part) != "wrong" {
			t.Error("what is stored can be used to sign in")
		}
	}
}

func TestIsID(t *testing.T) {
	for s, want := range map[string]bool{
		directory.NewID():                       true,
		"0A0A0A0A-0000-0000-0000-00000000000F":  true,
		"":                                      false,
		"0a0a0a0a000000000000000000000000000f":  false,
		"0a0a0a0a-0000-0000-0000-00000000000g":  false,
		"0a0a0a0a-0000-0000-0000-0000000000000": false,
	} {
		if directory.IsID(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func follow(t *testing.T, w *world) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); !w.Live(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("following does not begin")
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An operator who has lost admin.json is let in again as one more principal;
// the first keeps its secret. Before there is a tenant there is nothing to be
// let into.
func TestAnOperatorIsLetInAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		var saved, owned directory.Admin
		save := func(_ context.Context, a directory.Admin) error { saved = a; return nil }
		own := func(_ context.Context, a directory.Admin) error { owned = a; return nil }
		if err := directory.Readmit(t.Context(), w.store, w.now, save, own); !errors.Is(err, directory.ErrUnknown) || saved.ClientID != "" {
			t.Fatal(err)
		}
		first, _, err := directory.Bootstrap(t.Context(), w.store, w.now, save, own)
		must(t, err)
		must(t, directory.Readmit(t.Context(), w.store, w.now, save, own))
		if saved == first || owned != saved || saved.Tenant != first.Tenant || saved.Subscription != first.Subscription {
			t.Fatalf("saved %+v, owner %+v", saved, owned)
		}
		for _, a := range []directory.Admin{first, saved} {
			if in, err := w.SignIn(t.Context(), a.ClientID, a.Secret.Reveal()); err != nil || in.ObjectID != a.ObjectID {
				t.Error(in, err)
			}
		}
	})
}

// A clock that was wrong at the first start and is set right afterwards does
// not keep the operator out until it has caught up.
func TestAClockSetBackKeepsNobodyOut(t *testing.T) {
	w := open(t, storetest.Open(t, storetest.SQLite(t)))
	nothing := func(context.Context, directory.Admin) error { return nil }
	a, _, err := directory.Bootstrap(t.Context(), w.store, w.now, nothing, nothing)
	must(t, err)
	w.now = w.now.Add(-12 * time.Hour)
	if _, err := w.SignIn(t.Context(), a.ClientID, a.Secret.Reveal()); err != nil {
		t.Error(err)
	}
}
