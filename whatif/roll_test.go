package whatif_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/whatif"
	"cove.example/cove/zone"
)

// past is a deployment whose clock is stepped.
type past struct {
	*testing.T
	db    *store.DB
	svc   *resource.Service
	ident *store.Identity
	asker *whatif.Asker
	admin directory.Admin
	group string
	now   time.Time
}

func newPast(t *testing.T, url string) *past {
	t.Helper()
	w := &past{T: t, now: now}
	clock := func() time.Time { return w.now }
	var err error
	w.db, err = store.Open(t.Context(), url, store.Options{Now: clock})
	w.check(err)
	t.Cleanup(func() { _ = w.db.Close() })
	docs := store.NewResources(w.db)
	w.ident = store.NewIdentity(w.db)
	box, err := seal.New(bytes.Repeat([]byte{3}, 32))
	w.check(err)
	w.admin, _, err = directory.Bootstrap(t.Context(), w.ident, now, func(context.Context, directory.Admin) error { return nil },
		func(context.Context, directory.Admin) error { return nil })
	w.check(err)
	w.group = "/subscriptions/" + w.admin.Subscription + "/resourceGroups/g"
	zones := zone.Config{Suffix: suffix}
	registries := registry.Config{Suffix: suffix, Sealer: box, Now: clock}
	networks := network.Config{
		Sealer: box, Registry: registries, FrontEnd: frontEnd, Now: clock,
		EndpointChanged: []func(context.Context, resource.Tx, resource.Doc) error{zones.EndpointChanged},
	}
	typeOf := func(context.Context, string) (string, error) { return "ServicePrincipal", nil }
	types := []resource.Type{registry.Type(registries), registry.ScopeMaps(), registry.Tokens(registries), policy.Assignments(typeOf), policy.Definitions()}
	w.svc, err = resource.New(resource.Config{Store: docs, Types: append(append(types, network.Types(networks)...), zone.Types(zones)...), Locations: []string{"local"}, Now: clock})
	w.check(err)
	w.check(w.svc.Begin(t.Context(), resource.First{Tenant: w.admin.Tenant, Subscription: w.admin.Subscription}))
	lookup := registry.NewDirectory(docs, registries)
	dir, roles := directory.New(w.ident, clock), policy.NewRoles(docs)
	roles.Groups, roles.Now = dir.Groups, clock
	w.asker = &whatif.Asker{
		Guard:      &access.Guard{Registries: lookup, Directory: dir, Roles: roles, Now: clock, Scoped: lookup, Failures: slog.New(slog.DiscardHandler)},
		Registries: lookup, Store: docs, People: w.ident, FrontEnd: frontEnd, Now: clock,
		Past: func(at time.Time) whatif.Moment { p := w.db.AsOf(at); return whatif.Moment{Documents: p, People: p} },
	}
	return w
}

func (w *past) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *past) put(id, body string) {
	w.Helper()
	o, err := resource.Decode([]byte(body))
	w.check(err)
	_, err = w.svc.Put(w.Context(), owner, arm.MustID(id), o, resource.Condition{})
	w.check(err)
}

func (w *past) registry() string {
	return w.group + "/providers/Microsoft.ContainerRegistry/registries/harbor"
}

func (w *past) set(public, mode, action, rules string, anonymous bool) {
	w.Helper()
	w.put(w.registry(), fmt.Sprintf(`{"location":"local","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":%q,"adminUserEnabled":true,
		"anonymousPullEnabled":%v,"roleAssignmentMode":%q,"networkRuleSet":{"defaultAction":%q,"ipRules":[%s]}}}`, public, anonymous, mode, action, rules))
}

func (w *past) principal(name string, kind string) directory.Principal {
	w.Helper()
	p := directory.Principal{ObjectID: directory.NewID(), Tenant: w.admin.Tenant, Kind: kind, Name: name}
	if kind == directory.ServicePrincipal {
		p.AppID = directory.NewID()
	}
	w.check(w.ident.Add(w.Context(), directory.Object{Principal: p}))
	return p
}

func (w *past) assign(name, holder, role, condition string) string {
	w.Helper()
	var id string
	for _, r := range policy.Builtin {
		if r.Name == role {
			id = r.ID
		}
	}
	at := w.registry() + "/providers/Microsoft.Authorization/roleAssignments/" + name
	w.put(at, fmt.Sprintf(`{"properties":{"principalId":%q,"roleDefinitionId":"/subscriptions/%s/providers/Microsoft.Authorization/roleDefinitions/%s","condition":%q}}`,
		holder, w.admin.Subscription, id, condition))
	return at
}

func (w *past) roll(at time.Time) whatif.Roll {
	w.Helper()
	out, err := w.asker.Roll(w.Context(), w.question(at))
	w.check(err)
	return out
}

func (w *past) question(at time.Time) whatif.RollQuestion {
	return whatif.RollQuestion{ID: "q", Registry: arm.MustID(w.registry()), Want: access.Scope{Type: "repository", Name: "team/app", Action: "pull"}, At: at, Caller: owner}
}

func names110(r whatif.Roll) (who, ways []string) {
	for _, g := range r.Grants {
		name := g.Known
		if name == "" {
			name = g.Identity.Kind
		}
		if g.Identity.Kind == access.KindToken {
			name = "token " + g.Identity.Name
		}
		who = append(who, name)
	}
	for _, w := range r.Ways {
		ways = append(ways, w.Name)
	}
	slices.Sort(who)
	return who, ways
}

// TestHistoryOfAccess makes changes of every kind that decides about access,
// one an hour. After each it asks the documents of now who may pull and from
// where, and tells it from what the change is about; when all are made, it asks
// the history about each of those hours, and about the moment before the next
// change. row:110
func TestHistoryOfAccess(t *testing.T) {
	t.Run("sqlite", func(t *testing.T) { testHistory(t, newPast(t, storetest.SQLite(t))) })
	t.Run("postgres", func(t *testing.T) { testHistory(t, newPast(t, storetest.Postgres(t))) })
}

func testHistory(t *testing.T, w *past) {
	w.put(w.group, `{"location":"local"}`)
	w.set("Enabled", registry.LegacyMode, "Allow", "", false)
	ci, dev, team := w.principal("ci", directory.ServicePrincipal), w.principal("dev", directory.ServicePrincipal), w.principal("team", directory.Group)
	w.check(w.ident.AddMember(t.Context(), team.ObjectID, dev.ObjectID))
	vnet := w.group + "/providers/Microsoft.Network/virtualNetworks/office"
	network := func(services string) {
		t.Helper()
		w.put(vnet, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[
			{"name":"a","properties":{"addressPrefix":"10.0.1.0/24","privateEndpointNetworkPolicies":"Disabled"}},
			{"name":"b","properties":{"addressPrefix":"10.0.2.0/24"`+services+`}}]}}`)
	}
	network("")
	const own = "66666666-6666-6666-6666-666666666666"
	ops := w.principal("ops", directory.ServicePrincipal)
	define := func(action string) {
		t.Helper()
		id, err := policy.RoleID(own)
		w.check(err)
		w.put(id.String(), fmt.Sprintf(`{"properties":{"roleName":"their own","permissions":[{"actions":[%q]}],"assignableScopes":["/subscriptions/%s"]}}`, action, w.admin.Subscription))
	}
	pe := w.group + "/providers/Microsoft.Network/privateEndpoints/door"
	connection := func(state string) {
		t.Helper()
		var list []resource.Doc
		w.check(w.asker.Store.View(t.Context(), func(r resource.Reader) (err error) {
			list, err = r.List(t.Context(), resource.Query{Type: registry.TypeConnection, Under: arm.MustID(w.registry())})
			return err
		}))
		w.put(list[0].ID.String(), fmt.Sprintf(`{"properties":{"privateLinkServiceConnectionState":{"status":%q}}}`, state))
	}
	const first, second = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
	const rule, office = `{"action":"Allow","value":"203.0.113.0/28"}`, "203.0.113.0/28"
	const anywhere, door = "any public address", "private endpoint door"
	var assigned string
	tokenID, mapID := w.registry()+"/tokens/robot", w.registry()+"/scopeMaps/team-apps"

	type step struct {
		what string
		do   func()
		who  string
		ways string
	}
	steps := []step{
		{"nothing yet", func() {}, "admin", anywhere},
		{"a role is assigned", func() { assigned = w.assign(first, ci.ObjectID, "AcrPull", "") }, "admin ci", anywhere},
		{"and to a group, of which one holds another besides", func() {
			w.assign(second, team.ObjectID, "AcrPull", "")
			w.assign("44444444-4444-4444-4444-444444444444", dev.ObjectID, "AcrDelete", "")
		}, "admin ci dev", anywhere},
		{"the mode is switched", func() { w.set("Enabled", registry.AbacMode, "Allow", "", false) }, "admin", anywhere},
		{"a role with a condition", func() {
			w.assign("33333333-3333-3333-3333-333333333333", ci.ObjectID, "Container Registry Repository Reader", policy.OnlyRepository("team/*"))
		}, "admin ci", anywhere},
		{"another condition", func() {
			w.assign("33333333-3333-3333-3333-333333333333", ci.ObjectID, "Container Registry Repository Reader", policy.OnlyRepository("other/*"))
		}, "admin", anywhere},
		{"back to roles", func() { w.set("Enabled", registry.LegacyMode, "Allow", "", false) }, "admin ci dev", anywhere},
		{"an address rule", func() { w.set("Enabled", registry.LegacyMode, "Deny", rule, false) }, "admin ci dev", office},
		{"a subnet rule", func() {
			network(`,"serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}]`)
			w.put(w.registry(), fmt.Sprintf(`{"location":"local","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":"Enabled","adminUserEnabled":true,
				"networkRuleSet":{"defaultAction":"Deny","ipRules":[%s],"virtualNetworkRules":[{"id":"%s/subnets/b"}]}}}`, rule, vnet))
		}, "admin ci dev", office + " subnet office/b"},
		{"the subnet loses its service endpoint", func() { network("") }, "admin ci dev", office},
		{"no subnet rule", func() { w.set("Enabled", registry.LegacyMode, "Deny", rule, false) }, "admin ci dev", office},
		{"a role of their own", func() {
			define("Microsoft.ContainerRegistry/registries/pull/read")
			w.put(w.registry()+"/providers/Microsoft.Authorization/roleAssignments/55555555-5555-5555-5555-555555555555",
				fmt.Sprintf(`{"properties":{"principalId":%q,"roleDefinitionId":"/subscriptions/%s/providers/Microsoft.Authorization/roleDefinitions/%s"}}`, ops.ObjectID, w.admin.Subscription, own))
		}, "admin ci dev ops", office},
		{"which gives less", func() { define("Microsoft.ContainerRegistry/registries/push/write") }, "admin ci dev", office},
		{"a private endpoint", func() {
			w.put(pe, fmt.Sprintf(`{"location":"local","properties":{"subnet":{"id":"%s/subnets/a"},"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":%q,"groupIds":["registry"]}}]}}`, vnet, w.registry()))
		}, "admin ci dev", office + " " + door},
		{"public access is off", func() { w.set("Disabled", registry.LegacyMode, "Deny", rule, false) }, "admin ci dev", door},
		{"the endpoint is rejected", func() { connection("Rejected") }, "", ""},
		{"anonymous pull, in public", func() { w.set("Enabled", registry.LegacyMode, "Deny", rule, true) }, "admin anonymous ci dev", office},
		{"a token", func() {
			w.put(mapID, `{"properties":{"actions":["repositories/team/app/content/read"]}}`)
			w.put(tokenID, fmt.Sprintf(`{"properties":{"scopeMapId":%q,"status":"enabled"}}`, mapID))
			_, err := w.svc.Act(t.Context(), owner, arm.MustID(w.registry()), "generateCredentials", resource.Object{"tokenId": tokenID})
			w.check(err)
		}, "admin anonymous ci dev token robot", office},
		{"the scope map is another", func() { w.put(mapID, `{"properties":{"actions":["repositories/other/content/read"]}}`) }, "admin anonymous ci dev", office},
		{"and back", func() { w.put(mapID, `{"properties":{"actions":["repositories/team/app/content/read"]}}`) }, "admin anonymous ci dev token robot", office},
		{"the token is disabled", func() { w.put(tokenID, fmt.Sprintf(`{"properties":{"scopeMapId":%q,"status":"disabled"}}`, mapID)) }, "admin anonymous ci dev", office},
		{"somebody is disabled", func() { w.check(w.ident.SetDisabled(t.Context(), ci.ObjectID, true)) }, "admin anonymous dev", office},
		{"and enabled", func() { w.check(w.ident.SetDisabled(t.Context(), ci.ObjectID, false)) }, "admin anonymous ci dev", office},
		{"a role is taken away", func() {
			_, err := w.svc.Delete(t.Context(), owner, arm.MustID(assigned), resource.Condition{})
			w.check(err)
		}, "admin anonymous dev", office},
		{"the group has no member", func() { w.check(w.ident.RemoveMember(t.Context(), team.ObjectID, dev.ObjectID)) }, "admin anonymous", office},
		{"it has again", func() { w.check(w.ident.AddMember(t.Context(), team.ObjectID, dev.ObjectID)) }, "admin anonymous dev", office},
		{"the group is gone", func() { w.check(w.ident.Delete(t.Context(), team.ObjectID)) }, "admin anonymous", office},
		{"the registry is gone", func() {
			for _, id := range []string{pe, w.registry()} {
				_, err := w.svc.Delete(t.Context(), owner, arm.MustID(id), resource.Condition{})
				w.check(err)
			}
		}, "-", ""},
	}
	type record struct {
		at     time.Time
		answer whatif.Roll
	}
	var records []record
	for _, s := range steps {
		w.now = w.now.Add(time.Hour)
		s.do()
		if s.who == "-" {
			records = append(records, record{at: w.now})
			continue
		}
		answer := w.roll(time.Time{})
		who, ways := names110(answer)
		if got := strings.Join(who, " "); got != s.who {
			t.Errorf("%s: %q may pull, want %q", s.what, got, s.who)
		}
		if got := strings.Join(ways, " "); got != s.ways {
			t.Errorf("%s: from %q, want %q", s.what, got, s.ways)
		}
		w.enforced(s.what, answer)
		records = append(records, record{w.now, answer})
	}
	w.now = w.now.Add(24 * time.Hour)
	for i, r := range records {
		for _, later := range []time.Duration{0, time.Hour - time.Microsecond} {
			if r.answer.Registry == "" {
				if _, err := w.asker.Roll(t.Context(), w.question(r.at.Add(later))); err == nil {
					t.Errorf("%s: there is an answer", steps[i].what)
				}
				continue
			}
			got := w.roll(r.at.Add(later))
			got.At = r.answer.At
			if a, b := text(t, got), text(t, r.answer); a != b {
				t.Errorf("%s, %s later: the history says\n%s\nand then it was\n%s", steps[i].what, later, a, b)
			}
		}
	}

	// What has not been, and what was before the history, is not answered.
	for _, at := range []time.Time{w.now.Add(time.Second), now.Add(-time.Second)} {
		_, err := w.asker.Roll(t.Context(), w.question(at))
		if kind, said := fault.Of(err); kind != fault.Invalid {
			t.Errorf("asked about %s: %v, %s", at, err, said)
		}
	}

	w.noSecrets()

	// Pruned in the middle, the rest stays as it was.
	middle := records[9]
	if w.trim(middle.at) == 0 {
		t.Error("nothing was pruned")
	}
	if _, err := w.asker.Roll(t.Context(), w.question(middle.at.Add(-time.Microsecond))); err == nil || !strings.Contains(err.Error(), "begins at "+middle.at.Format(time.RFC3339)) {
		t.Errorf("before what is kept: %v", err)
	}
	for i, r := range records[9:] {
		if r.answer.Registry == "" {
			continue
		}
		got := w.roll(r.at)
		got.At = r.answer.At
		if text(t, got) != text(t, r.answer) {
			t.Errorf("%s: pruning has changed the answer", steps[9+i].what)
		}
	}

	// Pruned to now, nothing is kept but what is.
	w.trim(w.now)
	var rows, keys, gone int
	w.check(w.db.View(t.Context(), func(tx *store.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT COUNT(*), COUNT(DISTINCT type || ' ' || key), COALESCE(SUM(gone), 0) FROM versions`).Scan(&rows, &keys, &gone)
	}))
	if rows != keys || gone != 0 || rows == 0 {
		t.Errorf("%d versions of %d things are left, %d of them deletions", rows, keys, gone)
	}
}

// trim prunes in batches of three, so that each order of a batch's end is met.
func (w *past) trim(before time.Time) (all int64) {
	w.Helper()
	for {
		n, err := w.db.TrimHistory(w.Context(), before, 3)
		w.check(err)
		if all += n; n == 0 {
			return all
		}
	}
}

// noSecrets looks for what is kept of passwords, of which the documents of now
// had some: sealed, and under cove.passwords.
func (w *past) noSecrets() {
	w.Helper()
	var versions, with int
	w.check(w.db.View(w.Context(), func(tx *store.Tx) error {
		if err := tx.QueryRow(w.Context(), `SELECT COUNT(*) FROM versions WHERE type LIKE 'microsoft.containerregistry/%'`).Scan(&versions); err != nil {
			return err
		}
		return tx.QueryRow(w.Context(), `SELECT COUNT(*) FROM versions WHERE body LIKE '%assword%' OR body LIKE '%"hash"%' OR body LIKE '%rivateKey%'`).Scan(&with)
	}))
	if versions < 10 || with != 0 {
		w.Errorf("of %d versions %d hold a secret, in some form", versions, with)
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// enforced compares an answer of now with what the server's own guard says of
// the public address of each.
func (w *past) enforced(what string, r whatif.Roll) {
	w.Helper()
	for _, from := range []string{"203.0.113.5", "198.51.100.7"} {
		for _, g := range r.Grants {
			open := slices.Contains(g.From, "any public address") || from == "203.0.113.5" && slices.Contains(g.From, "203.0.113.0/28")
			v := w.asker.Guard.Suppose(w.Context(), access.Supposition{
				Ask: access.Ask{ID: "q", Host: "harbor." + suffix, Want: []access.Scope{{Type: "repository", Name: "team/app", Action: "pull"}}, Origin: link.Origin{Remote: netip.AddrPortFrom(netip.MustParseAddr(from), 0)}},
				Who: g.Identity,
			})
			if v.Allow != open {
				w.Errorf("%s: the roll says %v of %s from %s, and the guard %v (%s)", what, open, g.Identity.Name, from, v.Allow, v.Reason)
			}
		}
	}
}

// TestHistoryBegins opens a database that an older version has written: what is
// there then is the beginning of its history, and nothing is known of before.
func TestHistoryBegins(t *testing.T) {
	for name, database := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		t.Run(name, func(t *testing.T) {
			url := database(t)
			w := newPast(t, url)
			w.put(w.group, `{"location":"local"}`)
			w.set("Enabled", registry.LegacyMode, "Allow", "", false)
			dev, team := w.principal("dev", directory.ServicePrincipal), w.principal("team", directory.Group)
			w.check(w.ident.AddMember(t.Context(), team.ObjectID, dev.ObjectID))
			w.assign("11111111-1111-1111-1111-111111111111", team.ObjectID, "AcrPull", "")
			want := w.roll(time.Time{})
			if who, _ := names110(want); !slices.Equal(who, []string{"admin", "dev"}) {
				t.Fatalf("now %q may pull", who)
			}
			w.check(w.db.Update(t.Context(), func(tx *store.Tx) error {
				if _, err := tx.Exec(t.Context(), `DELETE FROM versions`); err != nil {
					return err
				}
				_, err := tx.Exec(t.Context(), `UPDATE history SET began = 0`)
				return err
			}))
			w.check(w.db.Close())
			w.now = w.now.Add(time.Hour)
			for range 2 { // the second finds it begun
				var err error
				w.db, err = store.Open(t.Context(), url, store.Options{Now: func() time.Time { return w.now }})
				w.check(err)
				got := w.roll(now.Add(time.Hour))
				got.At = want.At
				if text(t, got) != text(t, want) {
					t.Errorf("the history says\n%s\nand it was\n%s", text(t, got), text(t, want))
				}
				if _, err := w.asker.Roll(t.Context(), w.question(now.Add(time.Minute))); err == nil || !strings.Contains(err.Error(), "begins at 2026-05-01T13:00:00Z") {
					t.Errorf("before the history: %v", err)
				}
				w.check(w.db.Close())
				w.now = w.now.Add(time.Hour)
			}
		})
	}
}
