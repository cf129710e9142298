package whatif_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/policytest"
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
	// now is one of the moments that conditions compare with.
	now   = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	owner = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}
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
	local   map[string][]somebody // of a registry: its admin user and its tokens
	subnets []place
	clock   atomic.Int64 // nanoseconds after now
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
	clock := func() time.Time { return now.Add(time.Duration(w.clock.Load())) }
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
		Sealer: box, Registry: registries, FrontEnd: frontEnd, Now: clock, Attached: attached,
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
		Registries: lookup, Networks: w.nets, Links: cloud{w}, Tokens: token.New(keys, func(string) string { return "https://login.cove.internal/t" }),
		Directory: dir, Roles: roles, Now: clock, Failures: quiet, Scoped: lookup,
	}
	w.asker = &whatif.Asker{
		Guard: w.guard, Networks: w.nets, Zones: w.views, Registries: lookup, Resources: w.svc, Store: docs, FrontEnd: frontEnd, Now: clock,
		LinkTo:   cloud{w}.to,
		Referrer: func(_ context.Context, _, _, digest string) (bool, error) { return digest == signature, nil },
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

// attached is how a network exists: v3 as addresses of the machine, v4 as a
// cloud's.
func attached(vnet arm.ID) string {
	switch vnet.Name() {
	case "v3":
		return network.AttachedHost
	case "v4":
		return network.AttachedProxy
	}
	return network.AttachedOverlay
}

// cloud has a private link to each private endpoint of v4 but those of one
// registry; a link is called as the endpoint is.
type cloud struct{ w *world }

func (c cloud) to(pe arm.ID) string {
	if strings.HasPrefix(pe.Name(), "pe2") {
		return ""
	}
	return "azure:" + pe.Name()
}

func (c cloud) LinkEndpoint(id string) *network.Endpoint {
	name, ok := strings.CutPrefix(id, "azure:")
	if !ok {
		return nil
	}
	in := arm.MustID(c.w.group + "/providers/Microsoft.Network/virtualNetworks/v4").Key()
	return c.w.nets.Private(in, arm.MustID(c.w.group+"/providers/Microsoft.Network/privateEndpoints/"+name).Key())
}

func (w *world) coin() bool { return w.rnd.IntN(2) == 0 }

func one[T any](w *world, of ...T) T { return of[w.rnd.IntN(len(of))] }

func (w *world) fill(t *testing.T, ident *store.Identity, admin directory.Admin) {
	w.put(w.group, `{"location":"local"}`)
	provider := w.group + "/providers/Microsoft.Network/"
	for i := range 5 {
		vnet := fmt.Sprintf("%svirtualNetworks/v%d", provider, i)
		group := fmt.Sprintf("%snetworkSecurityGroups/g%d", provider, i)
		policed := func() string { return "" }
		if w.coin() {
			if _, ok := w.put(group, w.securityGroup()); !ok {
				t.Fatal("no security group was made")
			}
			policed = func() string { return one(w, "", fmt.Sprintf(`,"networkSecurityGroup":{"id":%q}`, group)) }
		}
		services := ""
		if w.coin() {
			services = `,"serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}]`
		}
		if _, ok := w.put(vnet, fmt.Sprintf(`{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.%d.0.0/16"]},"subnets":[
			{"name":"a","properties":{"addressPrefix":"10.%d.1.0/24"%s%s}},{"name":"b","properties":{"addressPrefix":"10.%d.2.0/24","privateEndpointNetworkPolicies":%q%s}}]}}`,
			i%2, i%2, services, policed(), i%2, one(w, "Enabled", "Disabled"), policed())); !ok {
			t.Fatal("no network was made")
		}
		for _, s := range []string{"a", "b"} {
			p := place{arm.MustID(vnet + "/subnets/" + s), one(w, "vm", "aks", "aci")}
			w.subnets = append(w.subnets, p)
			if attached(arm.MustID(vnet)) != network.AttachedOverlay {
				continue // nobody is a member
			}
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
	for i := range 4 {
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
		body := func(subnets string) string {
			return fmt.Sprintf(`{"location":"local","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":%q,"adminUserEnabled":true,"anonymousPullEnabled":%v,
				"networkRuleBypassOptions":%q,"roleAssignmentMode":%q,"networkRuleSet":{"defaultAction":%q,"ipRules":[%s]%s}}}`,
				one(w, "Enabled", "Enabled", "Disabled"), w.coin(), one(w, "AzureServices", "None"), one(w, registry.LegacyMode, registry.AbacMode), one(w, "Allow", "Deny"), rules, subnets)
		}
		named := ""
		for _, p := range w.subnets { // of those with a service endpoint
			if w.rnd.IntN(3) == 0 {
				named = fmt.Sprintf(`,"virtualNetworkRules":[{"id":%q}]`, p.id)
				if _, ok := w.put(id, body(named)); ok {
					break
				}
				named = ""
			}
		}
		if _, ok := w.put(id, body(named)); !ok {
			t.Fatal("no registry was made")
		}
		w.locals(id)
		for v := range 5 {
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
	w.states()
	w.misrecord(provider)
	// Who there is: nobody, and principals with roles, some of them by way of
	// a group that is in a group. Two are services that a registry may trust.
	w.who = append(w.who, somebody{Identity: access.Identity{Kind: access.KindAnonymous}})
	for i := range 6 {
		secret, cred := directory.NewSecret("s", now.Add(-time.Hour), 24*time.Hour)
		c := directory.Client{
			Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: admin.Tenant, Kind: directory.ServicePrincipal, Name: fmt.Sprint("p", i), Disabled: i == 5},
			Credentials: []directory.Credential{cred},
		}
		w.check(ident.Create(t.Context(), c))
		w.who = append(w.who, somebody{access.Identity{Kind: access.KindServicePrincipal, ObjectID: c.ObjectID}, c.AppID, secret.Reveal()})
		holder := c.ObjectID
		if i == 3 || i == 4 {
			holder = directory.NewID()
			w.check(ident.AddMember(t.Context(), w.in(ident, admin, holder), c.ObjectID))
		}
		for range w.rnd.IntN(3) {
			w.assign(admin, holder)
		}
	}
	trusted := fmt.Sprintf("services: [{name: defender, identities: [%s]}, {name: machinelearning, identities: [%s]}]", w.who[1].user, w.who[2].ObjectID)
	var err error
	w.guard.Trusted, err = access.ParseTrusted(strings.NewReader(trusted))
	w.check(err)
}

// in makes a group with that id, and one in it, which it returns.
func (w *world) in(ident *store.Identity, admin directory.Admin, id string) string {
	inner := directory.NewID()
	for _, g := range []string{id, inner} {
		w.check(ident.Add(w.Context(), directory.Object{Principal: directory.Principal{ObjectID: g, Tenant: admin.Tenant, Kind: directory.Group, Name: "group " + g}}))
	}
	w.check(ident.AddMember(w.Context(), id, inner))
	return inner
}

// assign gives somebody a built-in role, or one made for this, somewhere, and
// if the role takes one under any condition that the language has.
func (w *world) assign(admin directory.Admin, holder string) {
	role := one(w, policy.Builtin[:]...).ID
	if w.rnd.IntN(3) == 0 {
		role = policy.RoleRepoReader
	}
	if custom := rapid.Custom(policytest.DrawRole).Example(w.rnd.Int()); custom.Name == "custom" {
		id, err := policy.RoleID(directory.NewID())
		w.check(err)
		p := custom.Permissions[0]
		list := func(actions []string) string {
			text, err := json.Marshal(append([]string{}, actions...))
			w.check(err)
			return string(text)
		}
		if _, ok := w.put(id.String(), fmt.Sprintf(`{"properties":{"roleName":%q,"assignableScopes":["/subscriptions/%s"],"permissions":[{"actions":%s,"notActions":%s,"dataActions":%s,"notDataActions":%s}]}}`,
			"made up "+id.Name(), admin.Subscription, list(p.Actions), list(p.NotActions), list(p.DataActions), list(p.NotDataActions))); ok {
			role = id.Name()
		}
	}
	if w.rnd.IntN(6) == 0 {
		role = policy.RoleAcrPush // who may delete what belongs to another manifest
	}
	scope := one(w, w.group, w.registry(0), w.registry(1), w.registry(2))
	condition := ""
	if w.coin() {
		condition = fmt.Sprintf(`,"conditionVersion":"2.0","condition":%q`, one(w,
			`((!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'})) OR (@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringEquals 'team/app'))`,
			`((!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'})) OR (@Environment[isPrivateLink] BoolEquals true))`,
			`@Environment[UtcNow] DateTimeLessThanEquals '2026-05-01T12:00:00.0000000Z'`,
			fmt.Sprintf(`@Environment[Microsoft.Network/virtualNetworks/subnets] StringLikeIgnoreCase '*/%s/subnets/?'`, one(w, "v0", "v1")),
			rapid.Custom(func(t *rapid.T) string { return policytest.DrawCondition(t, 2) }).Example(w.rnd.Int())))
	}
	for _, text := range []string{condition, ""} { // not every role takes one, and not every pattern fits an action
		if _, ok := w.put(scope+"/providers/"+policy.TypeAssignments+"/"+directory.NewID(),
			fmt.Sprintf(`{"properties":{"roleDefinitionId":"/subscriptions/%s/providers/Microsoft.Authorization/roleDefinitions/%s","principalId":%q,"principalType":"ServicePrincipal"%s}}`, admin.Subscription, role, holder, text)); ok {
			return
		}
	}
}

// securityGroup is a group with a rule or two about registries or about all.
func (w *world) securityGroup() string {
	var rules []string
	for i := range 1 + w.rnd.IntN(2) {
		rules = append(rules, fmt.Sprintf(`{"name":"r%d","properties":{"priority":%d,"direction":%q,"access":%q,"protocol":%q,"sourcePortRange":"*","destinationPortRange":%q,"sourceAddressPrefix":%q,"destinationAddressPrefix":%q}}`,
			i, 100+i, one(w, "Inbound", "Outbound"), one(w, "Deny", "Deny", "Allow"), one(w, "*", "Tcp", "Udp"), one(w, "443", "*", "80", "400-500"),
			one(w, "*", "VirtualNetwork", "10.0.1.0/24", "8.8.8.8"), one(w, "*", "VirtualNetwork", "AzureContainerRegistry", "10.0.2.0/24", "10.1.2.0/24")))
	}
	return `{"location":"local","properties":{"securityRules":[` + strings.Join(rules, ",") + `]}}`
}

// locals are the admin user of a registry and a token of its own; afterwards
// either may be switched off.
func (w *world) locals(id string) {
	name := arm.MustID(id).Name()
	got, err := w.svc.Act(w.Context(), owner, arm.MustID(id), "listCredentials", nil)
	w.check(err)
	password := func(o resource.Object) string {
		return resource.Lookup(o, "passwords").([]any)[0].(resource.Object)["value"].(string)
	}
	admin := somebody{access.Identity{Kind: access.KindAdmin, Name: name}, name, password(got)}
	w.put(id+"/scopeMaps/robots", fmt.Sprintf(`{"properties":{"actions":[%s]}}`, one(w,
		`"repositories/team/app/content/read","repositories/ops/*/content/write"`, `"repositories/*/content/read","repositories/*/metadata/read"`, `"repositories/team/app/content/delete"`)))
	w.put(id+"/tokens/robot", fmt.Sprintf(`{"properties":{"scopeMapId":"%s/scopeMaps/robots","status":"enabled"}}`, id))
	got, err = w.svc.Act(w.Context(), owner, arm.MustID(id), "generateCredentials", resource.Object{"tokenId": id + "/tokens/robot"})
	w.check(err)
	robot := somebody{access.Identity{Kind: access.KindToken, Name: "robot"}, "robot", password(got)}
	if w.local == nil {
		w.local = map[string][]somebody{}
	}
	w.local[name] = []somebody{admin, robot}
	w.patch(id, fmt.Sprintf(`{"properties":{"adminUserEnabled":%v}}`, w.coin()))
	if w.coin() {
		w.put(id+"/tokens/robot", fmt.Sprintf(`{"properties":{"scopeMapId":"%s/scopeMaps/robots","status":%q}}`, id, one(w, "enabled", "disabled")))
	}
}

// states has the owners of registries approve some connections, reject some
// and take some away.
func (w *world) states() {
	var list []resource.Doc
	w.check(w.asker.Store.View(w.Context(), func(r resource.Reader) (err error) {
		list, err = r.List(w.Context(), resource.Query{Type: network.TypeConnection})
		return err
	}))
	for _, d := range list {
		switch to := one(w, "", "", network.Approved, network.Rejected, network.Disconnected); to {
		case "":
		case network.Disconnected:
			_, err := w.svc.Delete(w.Context(), owner, d.ID, resource.Condition{})
			w.check(err)
		default:
			w.put(d.ID.String(), fmt.Sprintf(`{"properties":{"privateLinkServiceConnectionState":{"status":%q}}}`, to))
		}
	}
}

// misrecord takes a registry's record out of the private zone, or has it lead
// elsewhere.
func (w *world) misrecord(provider string) {
	for i := range 3 {
		record := fmt.Sprintf("%sprivateDnsZones/%s/A/harbor%d", provider, private, i)
		switch w.rnd.IntN(5) {
		case 0:
			w.put(record, fmt.Sprintf(`{"properties":{"TTL":10,"aRecords":[{"ipv4Address":%q}]}}`, one(w, "10.0.2.250", "10.1.2.250", "192.0.2.1")))
		case 1:
			_, err := w.svc.Delete(w.Context(), owner, arm.MustID(record), resource.Condition{})
			w.check(err)
		}
	}
}

// patch changes a resource; what the control plane refuses stays as it is.
func (w *world) patch(id, body string) {
	w.Helper()
	o, err := resource.Decode([]byte(body))
	w.check(err)
	_, _ = w.svc.Patch(w.Context(), owner, arm.MustID(id), o, resource.Condition{})
}

func (w *world) registry(i int) string {
	return fmt.Sprintf("%s/providers/Microsoft.ContainerRegistry/registries/harbor%d", w.group, i)
}

// enforce is what a client does: it looks the name up where it is, connects to
// the address that it gets, and shows its credential. ok is false where the
// client does not get as far as the registry.
func (w *world) enforce(s *registry.Settings, who somebody, want []access.Scope, digest string, from whatif.From) (v access.Verdict, ok bool) {
	origin := link.Origin{Remote: netip.AddrPortFrom(from.Address, 40000)}
	switch {
	case from.Subnet.IsZero():
	case attached(from.Subnet.Parent()) == network.AttachedProxy:
		// The cloud's names lead to its private link, where it has one.
		pe := arm.MustID(fmt.Sprintf("%s/providers/Microsoft.Network/privateEndpoints/pe%s4", w.group, strings.TrimPrefix(s.Name, "harbor")))
		id := cloud{w}.to(pe)
		switch there := w.nets.Private(from.Subnet.Parent().Key(), pe.Key()); {
		case there == nil && !from.Address.IsValid(), there != nil && id == "":
			return v, false
		case there != nil:
			origin = link.Origin{Kind: link.Proxy, Link: id, Remote: origin.Remote, Local: netip.AddrPortFrom(there.Address, 443)}
		}
	default:
		var m *network.Member
		err := w.asker.Store.View(w.Context(), func(r resource.Reader) (err error) {
			m, err = w.nets.SupposedMember(w.Context(), r, from.Subnet, from.Kind)
			return err
		})
		w.check(err)
		view := w.views.Of(from.Subnet.Parent().Key())
		if m.Service && attached(from.Subnet.Parent()) == network.AttachedOverlay {
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
		case at != public && attached(from.Subnet.Parent()) == network.AttachedHost:
			origin = link.Origin{Kind: link.Host, Network: in, Remote: origin.Remote, Local: netip.AddrPortFrom(at, 443)}
		case at != public:
			origin = link.Origin{Kind: link.Overlay, Network: in, Remote: netip.AddrPortFrom(m.Address, 40000), Local: netip.AddrPortFrom(at, 443)}
		}
	}
	if origin.Kind != link.Public {
		// What a security group denies never arrives; where it has a say about
		// who calls, and that is not known, nobody can say.
		in, _ := w.nets.Wanted(from.Subnet.Parent().Key())
		flow := network.Flow{Protocol: 6, From: origin.Remote.Addr(), To: origin.Local.Addr(), ToPort: 443}
		if in.Filter.Watches(flow.To) && !flow.From.IsValid() || flow.From.IsValid() && !in.Filter.Admit(flow) {
			return v, false
		}
	}
	ask := access.Ask{ID: "11111111-2222-3333-4444-555555555555", Host: s.Host, Origin: origin, Want: want, Operation: "WhatIf"}
	if digest != "" {
		ask.Referrer = func(context.Context, string) bool { return digest == signature }
	}
	switch {
	case who.user != "":
		ask.Authority = "Basic " + base64.StdEncoding.EncodeToString([]byte(who.user+":"+who.password))
	case who.Kind == access.KindAnonymous && s.AnonymousPull:
		// An anonymous client asks for a token first; what it may is asked here.
		return w.guard.Suppose(w.Context(), access.Supposition{Ask: ask, Who: who.Identity}), true
	}
	return w.guard.Check(w.Context(), ask), true
}

// signature is the digest of a manifest that belongs to another.
const signature = "sha256:of-a-signature"

// agree asks as many random questions and reports how often each answer was
// given.
func (w *world) agree(t *testing.T, seed uint64, cases int) map[string]int {
	said := map[string]int{}
	for range cases {
		name := fmt.Sprintf("harbor%d", w.rnd.IntN(3))
		s, err := w.asker.Registries.ByName(t.Context(), name)
		w.check(err)
		who := one(w, append(w.local[name], w.who...)...)
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
		// Now, or a little before or after it.
		at := now.Add(one(w, 0, -100*time.Nanosecond, 100*time.Nanosecond, time.Hour))
		q := whatif.Question{At: at, ID: "11111111-2222-3333-4444-555555555555", Registry: s.ID, Who: who.Identity, Want: want, From: from, Caller: owner}
		if want[0].Action == "delete" {
			q.Digest = one(w, "", "sha256:of-an-image", signature)
		}
		can, err := w.asker.May(t.Context(), q)
		w.check(err)
		said[can.Verdict+" "+string(can.Reason)]++
		w.clock.Store(int64(at.Sub(now)))
		done, reached := w.enforce(s, who, want, q.Digest, from)
		asSigned, _ := w.enforce(s, who, want, signature, from)
		asImage, _ := w.enforce(s, who, want, "", from)
		w.clock.Store(0)
		if !reached {
			if can.Verdict == whatif.Allowed || can.Reason != "COVE-DNS-001" && can.Reason != "COVE-DNS-006" && can.Reason != "COVE-DNS-003" && can.Reason != "COVE-PATH-005" && can.Reason != "COVE-PATH-006" && can.Reason != "COVE-NET-031" {
				t.Fatalf("seed %d: the client does not reach the registry, and can says %s %s\n%+v", seed, can.Verdict, can.Reason, q)
			}
			continue
		}
		kept, err := json.Marshal(access.Kept(&done))
		w.check(err)
		was, err := access.Explain(audit.Event{Detail: kept})
		w.check(err)
		if allowed := can.Verdict == whatif.Allowed; allowed != done.Allow || string(can.Reason) != done.Reason || was.Verdict != can.Verdict || was.Reason != can.Reason {
			t.Fatalf("seed %d: can says %s %s, enforcement %v %s, explain %s %s\n%+v", seed, can.Verdict, can.Reason, done.Allow, done.Reason, was.Verdict, was.Reason, q)
		}
		// Where no manifest is named, a no to deleting says whether it is one to
		// everything.
		referrers := len(can.Steps) > 0 && can.Steps[len(can.Steps)-1].Name == whatif.OnlyReferrers
		if want[0].Action == "delete" && referrers != (q.Digest == "" && !done.Allow && asSigned.Allow) {
			t.Fatalf("seed %d: can says %s, only referrers: %v; a signature's deletion is allowed: %v\n%+v", seed, can.Verdict, referrers, asSigned.Allow, q)
		}
		if referrers {
			said["only referrers"]++
		}
		if q.Digest == signature && done.Allow && !asImage.Allow {
			said["a referrer's deletion"]++
		}
	}
	return said
}

// What `can` says beforehand, what enforcement does, and what explain says
// afterwards are one, over random networks, zones, rules, roles and
// conditions. COVE_CASES asks for more than the usual number. row:104
func TestCanEnforcementAndExplainAgree(t *testing.T) {
	cases, first := 100_000, uint64(20261121)
	if s := os.Getenv("COVE_CASES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		cases = n
	}
	const each = 5000
	verdicts := map[string]int{}
	var mu sync.Mutex
	t.Run("worlds", func(t *testing.T) {
		for seed := range uint64(max(1, cases/each)) {
			seed += first
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
				t.Parallel() // most of a world's time is waiting for the disk
				said := newWorld(t, seed).agree(t, seed, each)
				mu.Lock()
				defer mu.Unlock()
				for v, n := range said {
					verdicts[v] += n
				}
			})
		}
	})
	for _, must := range []string{
		"ALLOWED ", "DENIED COVE-NET-001", "DENIED COVE-NET-003", "DENIED COVE-NET-005", "DENIED COVE-PERM-001", "DENIED COVE-PERM-002", "DENIED COVE-PERM-011",
		"DENIED COVE-PERM-012", "DENIED COVE-DNS-006", "UNKNOWN COVE-PATH-006", "DENIED COVE-AUTH-008", "DENIED COVE-NET-031",
		"only referrers", "a referrer's deletion",
	} {
		if verdicts[must] == 0 && cases >= 100_000 {
			t.Errorf("no case ended with %q; what did: %v", must, verdicts)
		}
	}
	t.Logf("%d cases, from seed %d: %v", cases, first, verdicts)
}
