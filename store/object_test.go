package store_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const home = "11111111-1111-4111-8111-111111111111"

func object(kind, name string) directory.Object {
	return directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: home, Kind: kind, Name: name}}
}

func names(list []directory.Object) string {
	var out []string
	for _, o := range list {
		out = append(out, o.Name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestObjectsAreFoundByWhatTheyAreAskedBy(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s, ctx := store.NewIdentity(db), t.Context()
		alice, bob, app, sp := object(directory.User, "Alice"), object(directory.User, "bob"), object(directory.Application, "Ci"), object(directory.ServicePrincipal, "Ci")
		alice.UPN, bob.UPN = "Alice@cove.internal", "bob@cove.internal"
		alice.Properties = map[string]any{"city": "Bergen", "list": []any{"x"}}
		app.AppID = directory.NewID()
		sp.AppID = app.AppID
		stranger := object(directory.User, "Alina")
		stranger.Tenant = directory.NewID()
		for _, o := range []directory.Object{alice, bob, app, sp, stranger} {
			if err := s.Add(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		for _, c := range []struct {
			q    directory.Query
			want string
		}{
			{directory.Query{Kind: directory.User}, "Alice bob"},
			{directory.Query{Kind: directory.User, NamePrefix: "AL"}, "Alice"},
			{directory.Query{Kind: directory.User, Name: "BOB"}, "bob"},
			{directory.Query{Kind: directory.User, UPN: "alice@COVE.internal"}, "Alice"},
			{directory.Query{Kind: directory.Application, AppID: strings.ToUpper(app.AppID)}, "Ci"},
			{directory.Query{Kind: directory.Group}, ""},
			{directory.Query{Kind: directory.User, NamePrefix: "a%"}, ""},
		} {
			c.q.Tenant, c.q.Limit = home, 10
			if got, err := s.Objects(ctx, c.q); err != nil || names(got) != c.want {
				t.Errorf("%+v: %q %v", c.q, names(got), err)
			}
		}
		// Pages go on where they ended.
		q := directory.Query{Kind: directory.User, Tenant: home, Limit: 1}
		var all []directory.Object
		for {
			page, err := s.Objects(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			if len(page) == 0 {
				break
			}
			all = append(all, page...)
			q.After = page[0].ObjectID
		}
		if names(all) != "Alice bob" {
			t.Errorf("by pages: %s", names(all))
		}
		some, err := s.ObjectsByID(ctx, []string{strings.ToUpper(alice.ObjectID), directory.NewID(), sp.ObjectID})
		if err != nil || names(some) != "Alice Ci" {
			t.Errorf("by id: %s %v", names(some), err)
		}

		// A name for sign-in is one's own.
		twin := object(directory.User, "twin")
		twin.UPN = "ALICE@cove.internal"
		if err := s.Add(ctx, twin); !errors.Is(err, directory.ErrTaken) {
			t.Errorf("a second alice: %v", err)
		}
		if _, err := s.Change(ctx, bob.ObjectID, func(o *directory.Object) error { o.UPN = "alice@cove.internal"; return nil }); !errors.Is(err, directory.ErrTaken) {
			t.Errorf("bob became alice: %v", err)
		}
		changed, err := s.Change(ctx, alice.ObjectID, func(o *directory.Object) error {
			if fmt.Sprint(o.Properties) != "map[city:Bergen list:[x]]" {
				t.Errorf("kept as %v", o.Properties)
			}
			o.Name, o.Disabled, o.Properties = "Alicia", true, map[string]any{"city": "Oslo"}
			return nil
		})
		if err != nil || changed.Name != "Alicia" {
			t.Fatal(changed, err)
		}
		again, err := s.ObjectsByID(ctx, []string{alice.ObjectID})
		if err != nil || len(again) != 1 || again[0].Name != "Alicia" || !again[0].Disabled || again[0].Properties["city"] != "Oslo" || again[0].UPN != "alice@cove.internal" {
			t.Errorf("%+v %v", again, err)
		}
		if _, err := s.Change(ctx, directory.NewID(), func(*directory.Object) error { return nil }); !errors.Is(err, directory.ErrUnknown) {
			t.Error(err)
		}
	})
}

// A service principal signs in with the secrets of its application, and goes
// with it.
func TestAnApplicationAndItsServicePrincipal(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s, ctx := store.NewIdentity(db), t.Context()
		app, sp := object(directory.Application, "ci"), object(directory.ServicePrincipal, "ci")
		app.AppID = directory.NewID()
		sp.AppID = app.AppID
		second := sp
		second.ObjectID = directory.NewID()
		if err := errors.Join(s.Add(ctx, app), s.Add(ctx, sp)); err != nil {
			t.Fatal(err)
		}
		if err := s.Add(ctx, second); !errors.Is(err, directory.ErrTaken) {
			t.Errorf("two service principals of one application: %v", err)
		}
		_, of := directory.NewSecret("of the application", time.Now(), time.Hour)
		_, own := directory.NewSecret("its own", time.Now(), time.Hour)
		if err := errors.Join(s.AddCredential(ctx, app.ObjectID, of), s.AddCredential(ctx, sp.ObjectID, own)); err != nil {
			t.Fatal(err)
		}
		for name, get := range map[string]func() (directory.Client, error){
			"by client id": func() (directory.Client, error) { return s.ByApp(ctx, app.AppID) },
			"by object id": func() (directory.Client, error) { return s.ByObject(ctx, sp.ObjectID) },
		} {
			if c, err := get(); err != nil || c.ObjectID != sp.ObjectID || len(c.Credentials) != 2 {
				t.Errorf("%s: %+v %v", name, c, err)
			}
		}
		// What is shown of each is its own.
		if list, err := s.ObjectsByID(ctx, []string{app.ObjectID, sp.ObjectID}); err != nil || len(list) != 2 || len(list[0].Credentials) != 1 || len(list[1].Credentials) != 1 {
			t.Errorf("%+v %v", list, err)
		}
		for i := 1; ; i++ {
			_, more := directory.NewSecret("more", time.Now(), time.Hour)
			if err := s.AddCredential(ctx, app.ObjectID, more); err != nil {
				if i != directory.MaxCredentials || !errors.Is(err, directory.ErrCredentials) {
					t.Errorf("the %d. secret: %v", i+1, err)
				}
				break
			}
		}
		if err := s.Delete(ctx, app.ObjectID); err != nil {
			t.Fatal(err)
		}
		if _, err := s.ByObject(ctx, sp.ObjectID); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("the service principal has outlived its application: %v", err)
		}
	})
}

func TestGroups(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s, ctx := store.NewIdentity(db), t.Context()
		alice, app, foreign := object(directory.User, "alice"), object(directory.Application, "app"), object(directory.User, "foreign")
		foreign.Tenant = directory.NewID()
		g := []directory.Object{object(directory.Group, "inner"), object(directory.Group, "middle"), object(directory.Group, "outer")}
		for _, o := range append(slices.Clone(g), alice, app, foreign) {
			if err := s.Add(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		add := func(group, member directory.Object) error { return s.AddMember(ctx, group.ObjectID, member.ObjectID) }
		in := func(o directory.Object) string {
			ids, err := s.GroupsOf(ctx, o.ObjectID)
			if err != nil {
				t.Fatal(err)
			}
			list, err := s.ObjectsByID(ctx, ids)
			if err != nil {
				t.Fatal(err)
			}
			return names(list)
		}
		// outer holds middle holds inner holds alice, and inner holds outer.
		if err := errors.Join(add(g[0], alice), add(g[1], g[0]), add(g[2], g[1]), add(g[0], g[2])); err != nil {
			t.Fatal(err)
		}
		if got := in(alice); got != "inner middle outer" {
			t.Errorf("alice is in %q", got)
		}
		if list, err := s.Members(ctx, g[0].ObjectID, "", 10); err != nil || names(list) != "alice outer" {
			t.Errorf("inner holds %s %v", names(list), err)
		}
		for name, c := range map[string]struct{ err, want error }{
			"twice":          {add(g[0], alice), directory.ErrMember},
			"itself":         {add(g[0], g[0]), directory.ErrNoMember},
			"an application": {add(g[0], app), directory.ErrNoMember},
			"into a user":    {add(alice, g[0]), directory.ErrUnknown},
			"nobody":         {add(g[0], object(directory.User, "x")), directory.ErrUnknown},
			"of elsewhere":   {add(g[0], foreign), directory.ErrUnknown},
			"not in it":      {s.RemoveMember(ctx, g[1].ObjectID, alice.ObjectID), directory.ErrUnknown},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: %v", name, c.err)
			}
		}
		if err := s.RemoveMember(ctx, g[1].ObjectID, g[0].ObjectID); err != nil {
			t.Fatal(err)
		}
		if got := in(alice); got != "inner" {
			t.Errorf("alice is in %q", got)
		}
		if err := s.Delete(ctx, g[0].ObjectID); err != nil {
			t.Fatal(err)
		}
		if got := in(alice) + in(g[2]); got != "" {
			t.Errorf("a deleted group holds %q", got)
		}
	})
}

// Each change of an object is one row of the outbox that says who made it.
func TestChangesOfObjectsSayWhoMadeThem(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := store.NewIdentity(db)
		ctx := resource.As(t.Context(), resource.Caller{ObjectID: "the-admin"})
		g, m := object(directory.Group, "g"), object(directory.User, "m")
		if err := errors.Join(s.Add(ctx, g), s.Add(ctx, m)); err != nil {
			t.Fatal(err)
		}
		for i, do := range []func() error{
			func() error {
				_, err := s.Change(ctx, g.ObjectID, func(*directory.Object) error { return nil })
				return err
			},
			func() error { return s.AddMember(ctx, g.ObjectID, m.ObjectID) },
			func() error { return s.RemoveMember(ctx, g.ObjectID, m.ObjectID) },
			func() error { return s.Delete(ctx, g.ObjectID) },
		} {
			if err := do(); err != nil {
				t.Fatal(err)
			}
			list, err := db.Changes(t.Context(), 0, 100)
			if err != nil || len(list) != i+3 {
				t.Fatalf("after step %d there are %d changes, %v", i, len(list), err)
			}
			if last := list[len(list)-1]; last.Key != g.ObjectID || !strings.Contains(string(last.Detail), `"by":"the-admin"`) {
				t.Errorf("step %d is on record as %s %s", i, last.Key, last.Detail)
			}
		}
	})
}
