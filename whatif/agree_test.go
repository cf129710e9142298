package whatif_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
	"cove.example/cove/whatif"
	"cove.example/cove/zone"
)

const (
	suffix  = "cr.cove.internal"
	private = "privatelink." + suffix
)

var (
	frontEnd = netip.MustParseAddr("100.100.100.100")
	public   = netip.MustParseAddr("203.0.113.200") // of registries
	now      = time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	owner    = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}
)

// world is a deployment without listeners, of random networks, zones, rules,
// roles and conditions.
type world struct {
	testing.TB
	rnd   *rand.Rand
	group string
	svc   *resource.Service
	asker *whatif.Asker
	guard *access.Guard
	views *zone.Views
	nets  *network.Map

	who     []somebody
	subnets []place
}

// somebody can prove who they are.
type somebody struct {
	access.Identity
	user, password string
}

// place is a subnet and the machines that are really in it.
type place struct {
	id   arm.ID
	kind string
}

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// put makes a resource; one that the rules of the control plane refuse is not
// made, and reports so.
func (w *world) put(id, body string) (resource.Object, bool) {
	w.Helper()
	o, err := resource.Decode([]byte(body))
	w.check(err)
	out, err := w.svc.Put(w.Context(), owner, arm.MustID(id), o, resource.Condition{})
	return out.Body, err == nil
}

// names are what zone asks of registries.
type names struct{ *registry.Directory }

func (n names) ByHost(ctx context.Context, host string) (*zone.Registry, error) {
	s, err := n.Directory.ByHost(ctx, host)
	if s == nil || err != nil {
		return nil, err
	}
	return &zone.Registry{Private: s.EverPrivate, Regions: []string{"local"}}, nil
}

func newWorld(t *testing.T, seed uint64) *world {
	t.Helper()
	w := &world{TB: t, rnd: rand.New(rand.NewPCG(seed, 1))}
	db := storetest.Open(t, storetest.SQLite(t))
	docs, ident := store.NewResources(db), store.NewIdentity(db)
	clock := func() time.Time { return now }
	box, err := seal.New(bytes.Repeat([]byte{3}, 32))
	w.check(err)
	quiet := slog.New(slog.DiscardHandler)
	admin, _, err := directory.Bootstrap(t.Context(), ident, now, func(context.Context, directory.Admin) error { return nil },
		func(context.Context, directory.Admin) error { return nil })
	w.check(err)
	w.group = "/subscriptions/" + admin.Subscription + "/resourceGroups/g"

	zones := zone.Config{Suffix: suffix}
	registries := registry.Config{Suffix: suffix, Sealer: box, Now: clock}
	networks := network.Config{
		Sealer: box, Registry: registries, FrontEnd: frontEnd, Now: clock,
		EndpointChanged: []func(context.Context, resource.Tx, resource.Doc) error{zones.EndpointChanged},
	}
	w.nets = network.NewMap(docs, networks, quiet)
	lookup := registry.NewDirectory(docs, registries)
	public, err := zone.NewPublic(zone.Names{Domain: "cove.internal", Suffix: suffix, Regions: []string{"local"}, Advertise: []netip.Addr{public}}, names{lookup})
	w.check(err)
	w.views = zone.NewViews(docs, public, quiet)
	dir, roles := directory.New(ident, clock), policy.NewRoles(docs)
	roles.Groups, roles.Now = dir.Groups, clock
	typeOf := func(context.Context, string) (string, error) { return "ServicePrincipal", nil }
	types := []resource.Type{registry.Type(registries), registry.ScopeMaps(), registry.Tokens(registries), policy.Assignments(typeOf), policy.Definitions()}
	w.svc, err = resource.New(resource.Config{
		Store: w.views.Obeyed(w.nets.Obeyed(docs)), Types: append(append(types, network.Types(networks)...), zone.Types(zones)...),
		Locations: []string{"local"}, Now: clock,
	})
	w.check(err)
	w.check(w.svc.Begin(t.Context(), resource.First{Tenant: admin.Tenant, Subscription: admin.Subscription}))
	keys, err := token.OpenKeys(t.Context(), store.NewKeys(db), box, clock)
	w.check(err)
	w.guard = &access.Guard{
		Registries: lookup, Networks: w.nets, Tokens: token.New(keys, func(string) string { return "https://login.cove.internal/t" }),
		Directory: dir, Roles: roles, Now: clock, Failures: quiet, Scoped: lookup,
	}
	w.asker = &whatif.Asker{
		Guard: w.guard, Networks: w.nets, Zones: w.views, Registries: lookup, Resources: w.svc, Store: docs, FrontEnd: frontEnd, Now: clock,
	}
	w.fill(t, ident, admin)
	// From memory, as in a server that has run for a moment.
	for _, run := range []func(context.Context) error{lookup.Run, roles.Run, dir.Run} {
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); _ = run(ctx) }()
		t.Cleanup(func() { stop(); <-done })
	}
	<-lookup.Live()
	return w
}

func (w *world) coin() bool { return w.rnd.IntN(2) == 0 }

func one[T any](w *world, of ...T) T { return of[w.rnd.IntN(len(of))] }

func (w *world) fill(t *testing.T, ident *store.Identity, admin directory.Admin) {
	w.put(w.group, `{"location":"local"}`)
	provider := w.group + "/providers/Microsoft.Network/"
	for i := range 3 {
		vnet := fmt.Sprintf("%svirtualNetworks/v%d", provider, i)
		services := ""
		if w.coin() {
			services = `,"serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}]`
		}
		w.put(vnet, fmt.Sprintf(`{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.%d.0.0/16"]},"subnets":[
			{"name":"a","properties":{"addressPrefix":"10.%d.1.0/24"%s}},{"name":"b","properties":{"addressPrefix":"10.%d.2.0/24"}}]}}`, i%2, i%2, services, i%2))
		for _, s := range []string{"a", "b"} {
			p := place{arm.MustID(vnet + "/subnets/" + s), one(w, "vm", "aks", "aci")}
			w.subnets = append(w.subnets, p)
			nic := fmt.Sprintf("%snetworkInterfaces/m%d%s", provider, i, s)
			w.put(nic, fmt.Sprintf(`{"location":"local","properties":{"ipConfigurations":[{"name":"c","properties":{"subnet":{"id":%q}}}]}}`, p.id))
			key := make([]byte, 32)
			for i := range key {
				key[i] = byte(w.rnd.Uint32())
			}
			if _, ok := w.put(nic+"/providers/Cove.Network/members/m", fmt.Sprintf(`{"properties":{"publicKey":%q,"kind":%q}}`, base64.StdEncoding.EncodeToString(key), p.kind)); !ok {
				t.Fatal("no member was made")
			}
		}
	}
	w.put(provider+"privateDnsZones/"+private, `{"location":"global"}`)
	for i := range 3 {
		if w.rnd.IntN(4) > 0 {
			w.put(fmt.Sprintf("%sprivateDnsZones/%s/virtualNetworkLinks/l%d", provider, private, i),
				fmt.Sprintf(`{"location":"global","properties":{"registrationEnabled":false,"virtualNetwork":{"id":"%svirtualNetworks/v%d"}}}`, provider, i))
		}
	}
	for i := range 3 {
		id := w.registry(i)
		rules := ""
		for _, r := range []string{"203.0.113.0/28", "198.51.100.7", "192.0.2.0/24"} {
			if w.rnd.IntN(3) == 0 {
				if rules != "" {
					rules += ","
				}
				rules += `{"action":"Allow","value":"` + r + `"}`
			}
		}
		w.put(id, fmt.Sprintf(`{"location":"local","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":%q,"adminUserEnabled":%v,"anonymousPullEnabled":%v,
			"roleAssignmentMode":%q,"networkRuleSet":{"defaultAction":%q,"ipRules":[%s]}}}`,
			one(w, "Enabled", "Enabled", "Disabled"), w.coin(), w.coin(), one(w, registry.LegacyMode, registry.AbacMode), one(w, "Allow", "Deny"), rules))
		for v := range 3 {
			if w.rnd.IntN(3) > 0 {
				continue
			}
			pe := fmt.Sprintf("%sprivateEndpoints/pe%d%d", provider, i, v)
			list := one(w, "privateLinkServiceConnections", "privateLinkServiceConnections", "manualPrivateLinkServiceConnections")
			if _, ok := w.put(pe, fmt.Sprintf(`{"location":"local","properties":{"subnet":{"id":"%svirtualNetworks/v%d/subnets/b"},%q:[{"name":"c","properties":{"privateLinkServiceId":%q,"groupIds":["registry"]}}]}}`, provider, v, list, id)); ok && w.coin() {
				w.put(pe+"/privateDnsZoneGroups/default", fmt.Sprintf(`{"properties":{"privateDnsZoneConfigs":[{"name":"z","properties":{"privateDnsZoneId":"%sprivateDnsZones/%s"}}]}}`, provider, private))
			}
		}
	}
	// Who there is: nobody, the admin users, and principals with roles.
	w.who = append(w.who, somebody{Identity: access.Identity{Kind: access.KindAnonymous}})
	for i := range 6 {
		secret, cred := directory.NewSecret("s", now.Add(-time.Hour), 24*time.Hour)
		c := directory.Client{
			Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: admin.Tenant, Kind: directory.ServicePrincipal, Name: fmt.Sprint("p", i), Disabled: i == 5},
			Credentials: []directory.Credential{cred},
		}
		w.check(ident.Create(t.Context(), c))
		w.who = append(w.who, somebody{access.Identity{Kind: access.KindServicePrincipal, ObjectID: c.ObjectID}, c.AppID, secret.Reveal()})
		for range w.rnd.IntN(3) {
			role := one(w, policy.Builtin[:]...)
			scope := one(w, w.group, w.registry(0), w.registry(1), w.registry(2))
			condition := ""
			if w.rnd.IntN(3) == 0 {
				condition = fmt.Sprintf(`,"conditionVersion":"2.0","condition":%q`, one(w,
					`((!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'})) OR (@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringEquals 'team/app'))`,
					`((!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'})) OR (@Environment[isPrivateLink] BoolEquals true))`,
					`@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringStartsWith 'ops/'`))
			}
			w.put(scope+"/providers/"+policy.TypeAssignments+"/"+directory.NewID(),
				fmt.Sprintf(`{"properties":{"roleDefinitionId":"/subscriptions/%s/providers/Microsoft.Authorization/roleDefinitions/%s","principalId":%q,"principalType":"ServicePrincipal"%s}}`, admin.Subscription, role.ID, c.ObjectID, condition))
		}
	}
}

func (w *world) registry(i int) string {
	return fmt.Sprintf("%s/providers/Microsoft.ContainerRegistry/registries/harbor%d", w.group, i)
}

// enforce is what a client does: it looks the name up where it is, connects to
// the address that it gets, and shows its credential. ok is false where the
// client does not get as far as the registry.
func (w *world) enforce(s *registry.Settings, who somebody, want []access.Scope, from whatif.From) (v access.Verdict, ok bool) {
	origin := link.Origin{Remote: netip.AddrPortFrom(from.Address, 40000)}
	if !from.Subnet.IsZero() {
		var m *network.Member
		err := w.asker.Store.View(w.Context(), func(r resource.Reader) (err error) {
			m, err = w.nets.SupposedMember(w.Context(), r, from.Subnet, from.Kind)
			return err
		})
		w.check(err)
		view := w.views.Of(from.Subnet.Parent().Key())
		if m.Service {
			view = view.Through(frontEnd)
		}
		var at netip.Addr
		for _, r := range view.Answer(w.Context(), s.Host, zone.TypeA).Records {
			if r.Type == zone.TypeA {
				at = r.Addr
			}
		}
		in := from.Subnet.Parent().Key()
		switch {
		case !at.IsValid(), at == public && !from.Address.IsValid(), at != public && at != frontEnd && w.nets.Endpoint(in, at) == nil:
			return v, false // no address, one that leads out by an unknown way, or one where nothing answers
		case at != public:
			origin = link.Origin{
				Kind: link.Overlay, Network: from.Subnet.Parent().Key(),
				Remote: netip.AddrPortFrom(m.Address, 40000), Local: netip.AddrPortFrom(at, 443),
			}
		}
	}
	ask := access.Ask{ID: "11111111-2222-3333-4444-555555555555", Host: s.Host, Origin: origin, Want: want, Operation: "WhatIf"}
	switch {
	case who.user != "":
		ask.Authority = "Basic " + base64.StdEncoding.EncodeToString([]byte(who.user+":"+who.password))
	case who.Kind == access.KindAnonymous && s.AnonymousPull:
		// An anonymous client asks for a token first; what it may is asked here.
		return w.guard.Suppose(w.Context(), access.Supposition{Ask: ask, Who: who.Identity}), true
	}
	return w.guard.Check(w.Context(), ask), true
}

// What `can` says beforehand, what enforcement does, and what explain says
// afterwards are one, over random networks, zones, rules, roles and
// conditions. COVE_CASES asks for more than the usual number. row:104
func TestCanEnforcementAndExplainAgree(t *testing.T) {
	cases, seed := 100_000, uint64(20261121)
	if s := os.Getenv("COVE_CASES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		cases = n
	}
	const each = 4000
	verdicts := map[string]int{}
	for i := range max(1, cases/each) {
		w := newWorld(t, seed+uint64(i))
		for range each {
			name := fmt.Sprintf("harbor%d", w.rnd.IntN(3))
			s, err := w.asker.Registries.ByName(t.Context(), name)
			w.check(err)
			who := one(w, w.who...)
			want := []access.Scope{one(w,
				access.Scope{Type: "repository", Name: one(w, "team/app", "ops/x", "opsx"), Action: one(w, "pull", "push", "delete", "metadata_read", "metadata_write")},
				access.Scope{Type: "registry", Name: "catalog", Action: "*"})}
			from := whatif.From{Address: one(w, netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("8.8.8.8"))}
			if w.coin() {
				p := one(w, w.subnets...)
				from.Subnet, from.Kind = p.id, p.kind
				if w.coin() {
					from.Address = netip.Addr{}
				}
			}
			q := whatif.Question{ID: "11111111-2222-3333-4444-555555555555", Registry: s.ID, Who: who.Identity, Want: want, From: from, Caller: owner}
			can, err := w.asker.May(t.Context(), q)
			w.check(err)
			verdicts[can.Verdict+" "+string(can.Reason)]++
			done, reached := w.enforce(s, who, want, from)
			if !reached {
				if can.Verdict == whatif.Allowed || can.Reason != "COVE-DNS-001" && can.Reason != "COVE-DNS-006" && can.Reason != "COVE-DNS-003" && can.Reason != "COVE-PATH-006" {
					t.Fatalf("seed %d: the client does not reach the registry, and can says %s %s\n%+v", seed+uint64(i), can.Verdict, can.Reason, q)
				}
				continue
			}
			was, err := access.Explain(audit.Event{Detail: access.Detail(done)})
			w.check(err)
			if allowed := can.Verdict == whatif.Allowed; allowed != done.Allow || string(can.Reason) != done.Reason || was.Verdict != can.Verdict || was.Reason != can.Reason {
				t.Fatalf("seed %d: can says %s %s, enforcement %v %s, explain %s %s\n%+v", seed+uint64(i), can.Verdict, can.Reason, done.Allow, done.Reason, was.Verdict, was.Reason, q)
			}
		}
	}
	for _, must := range []string{
		"ALLOWED ", "DENIED COVE-NET-001", "DENIED COVE-NET-003", "DENIED COVE-NET-005", "DENIED COVE-PERM-001", "DENIED COVE-PERM-002", "DENIED COVE-PERM-011",
		"DENIED COVE-PERM-012", "DENIED COVE-DNS-006", "UNKNOWN COVE-PATH-006", "DENIED COVE-AUTH-008",
	} {
		if verdicts[must] == 0 && cases >= 100_000 {
			t.Errorf("no case ended with %q; what did: %v", must, verdicts)
		}
	}
	t.Logf("%d cases, seed %d: %v", cases, seed, verdicts)
}
