package network

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

func compareTables(m, fresh *Map) string {
	return cmp.Diff(*fresh.table.Load(), *m.table.Load(), cmp.AllowUnexported(snapshot{}, slot{}, side{}, rule{}, places{}, portRange{}),
		asMap[netip.Addr, *slot](), asMap[string, *Endpoint](), asMap[netip.Addr, int](), asMap[netip.Addr, *side](), asMap[netip.Addr, bool](), asMap[netip.Addr, [32]byte](),
		cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
		cmp.Comparer(func(a, b arm.ID) bool { return a == b }),
		cmp.Comparer(func(a, b PrivateKey) bool { return a == b }))
}

func asMap[K, V comparable]() cmp.Option {
	return cmp.Transformer("map", func(t Table[K, V]) map[K]V { return maps.Collect(t.All()) })
}

func (w *world) freshMap() *Map {
	w.Helper()
	m := NewMap(quiet{w.raw}, w.cfg, slog.New(slog.DiscardHandler))
	w.check(m.Load(w.Context()))
	return m
}

// quiet keeps the maps of a test from piling up in the store.
type quiet struct{ resource.Store }

func (quiet) OnCommit(func([]arm.ID)) {}

// Whatever callers do, in whatever order, the map that was told of each change
// is the map that reads everything anew, and so is one that only follows.
func TestMapEqualsARebuild(t *testing.T) {
	flag.Set("rapid.checks", "60")
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := newWorld(t, db)
		follower := follow(w)
		round, done := 0, map[string]int{}
		check := func(rt *rapid.T) {
			round++
			g := fmt.Sprintf("%s%d", group, round)
			w.put(g, `{"location":"local"}`)
			play(w, rt, g, done)
			if diff := compareTables(w.m, w.freshMap()); diff != "" {
				rt.Fatalf("the map (+) is not what a rebuild finds (-):\n%s", diff)
			}
			follower.until(w, func() bool { return compareTables(follower.m, w.m) == "" })
			w.delete(g)
		}
		never := func() (list []string) {
			for what, n := range done {
				if n == 0 {
					list = append(list, what)
				}
			}
			return list
		}
		rapid.Check(t, check)
		// What is rare may not have come; most often all has.
		for more := 0; more < 5 && !t.Failed() && never() != nil; more++ {
			rapid.Check(t, check)
		}
		if n := len(*w.m.table.Load()); n != 0 {
			t.Errorf("%d networks are left in the map", n)
		}
		t.Log("succeeded:", done)
		if list := never(); list != nil {
			t.Errorf("%v never succeeded: the test shows nothing of it", list)
		}
	})
}

// play does random things in a group: some succeed, some are refused. It counts
// in done what succeeded.
func play(w *world, rt *rapid.T, g string, done map[string]int) {
	one := func(what string, n int) int { return rapid.IntRange(0, n-1).Draw(rt, what) }
	vnet := func() string {
		return fmt.Sprintf("%s/providers/Microsoft.Network/virtualNetworks/v%d", g, one("vnet", 2))
	}
	sub := func() string { return vnet() + fmt.Sprintf("/subnets/s%d", one("subnet", 2)) }
	nic := func() string {
		return fmt.Sprintf("%s/providers/Microsoft.Network/networkInterfaces/n%d", g, one("nic", 4))
	}
	pe := func() string {
		return fmt.Sprintf("%s/providers/Microsoft.Network/privateEndpoints/p%d", g, one("pe", 3))
	}
	reg := fmt.Sprintf("%s/providers/Microsoft.ContainerRegistry/registries/reg%d%s", g, one("registry", 2), strings.ReplaceAll(arm.MustID(g).Name(), "-", ""))
	keys := []string{newKey(), newKey(), newKey()}
	conn := func() string {
		var ids []string
		w.check(w.raw.View(w.Context(), func(r resource.Reader) error {
			docs, err := r.List(w.Context(), resource.Query{Type: TypeConnection, Under: arm.MustID(reg)})
			for _, d := range docs {
				ids = append(ids, d.ID.String())
			}
			return err
		}))
		if len(ids) == 0 {
			return reg + "/privateEndpointConnections/none"
		}
		return ids[one("connection", len(ids))]
	}
	const premium = `{"location":"local","sku":{"name":"Premium"},"properties":{}}`
	doing := func(what string, do func() error) func(*rapid.T) {
		done[what] += 0
		return func(*rapid.T) {
			if do() == nil {
				done[what]++
			}
		}
	}
	put := func(id, body string) error { _, err := w.try(owner, id, body); return err }
	network := func(id string, space int) error {
		own := 9 // v1's is another, so that the two can be peered
		if strings.HasSuffix(id, "1") {
			own = 8
		}
		return put(id, fmt.Sprintf(`{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.%d.0.0/16","10.%[2]d.0.0/16"]},
			"subnets":[{"name":"s0","properties":{"addressPrefix":"10.%[2]d.0.0/28"}},{"name":"s1","properties":{"addressPrefix":"10.%[2]d.1.0/28"}}]}}`, space, own))
	}
	w.put(reg, premium)
	w.check(network(vnet(), 0))
	secured := g + "/providers/Microsoft.Network/networkSecurityGroups/g"
	if one("grouped", 4) > 0 { // else what names it is refused until there is one
		w.put(secured, `{"location":"local"}`)
	}
	rt.Repeat(map[string]func(*rapid.T){
		"network":   doing("network", func() error { return network(vnet(), one("space", 3)) }),
		"interface": doing("interface", func() error { return put(nic(), nicBody(sub(), "")) }),
		"static": doing("static", func() error {
			return put(nic(), nicBody(sub(), fmt.Sprintf("10.9.0.%d", 4+one("host", 6))))
		}),
		"member": doing("member", func() error {
			body := memberBody(keys[one("key", 3)], kinds[one("kind", len(kinds))])
			if one("resolves", 2) == 0 {
				body = strings.Replace(body, `"publicKey"`, fmt.Sprintf(`"resolver":"192.0.2.%d","publicKey"`, one("resolver", 2)), 1)
			}
			return put(nic()+"/providers/Cove.Network/members/m", body)
		}),
		"walled": doing("walled", func() error {
			return put(nic(), strings.Replace(nicBody(sub(), ""), `"properties":{`, fmt.Sprintf(`"properties":{"networkSecurityGroup":{"id":%q},`, secured), 1))
		}),
		"endpoint": doing("endpoint", func() error {
			return put(pe(), peBody([]string{automatic, manual}[one("list", 2)], sub(), reg))
		}),
		"connection": doing("connection", func() error { return put(conn(), setState([]string{Approved, Rejected}[one("state", 2)])) }),
		"service": doing("service", func() error {
			return put(sub(), fmt.Sprintf(`{"properties":{"addressPrefix":"10.%d.%d.0/28","serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}],"privateEndpointNetworkPolicies":%q,"networkSecurityGroup":{"id":"%s"}}}`, 8+one("second", 2), one("third", 2), []string{"Enabled", "Disabled"}[one("policies", 2)], secured))
		}),
		"group": doing("group", func() error {
			return put(secured, `{"location":"local"}`)
		}),
		"rule": doing("rule", func() error {
			return put(secured+"/securityRules/r"+fmt.Sprint(one("rule", 2)), `{"properties":`+secRule("out "+fmt.Sprint(100+one("priority", 3))+" Deny Tcp */* > */443")+`}`)
		}),
		"peering": doing("peering", func() error {
			here := one("here", 2)
			id := func(n int) string { return fmt.Sprintf("%s/providers/Microsoft.Network/virtualNetworks/v%d", g, n) }
			return put(id(here)+"/virtualNetworkPeerings/p", fmt.Sprintf(`{"properties":{"remoteVirtualNetwork":{"id":%q}}}`, id(1-here)))
		}),
		"registry": doing("registry", func() error { return put(reg, premium) }),
		"delete": doing("delete", func() error {
			ids := []string{vnet(), sub(), nic(), nic() + "/providers/Cove.Network/members/m", pe(), conn(), reg}
			return w.tryDelete(ids[one("what", len(ids))])
		}),
	})
}

// follower is a map on another node: it has only what the store tells.
type follower struct {
	m      *Map
	change chan struct{}
}

func follow(w *world) *follower {
	f := &follower{m: NewMap(quiet{w.raw}, w.cfg, slog.New(slog.DiscardHandler)), change: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.m.Run(ctx) })
	wg.Go(func() { _ = f.m.Reconcile(ctx, f) })
	w.Cleanup(func() { cancel(); wg.Wait() })
	return f
}

// until waits for cond, which is asked whenever the follower has taken in a
// change.
func (f *follower) until(w *world, cond func() bool) {
	w.Helper()
	late := time.After(time.Minute)
	for !cond() {
		select {
		case <-f.change:
		case <-time.After(20 * time.Millisecond): // a change that is no matter of the overlay's
		case <-late:
			w.Fatal("the follower did not arrive in a minute")
		}
	}
}

func (f *follower) Apply(Wanted) error { f.ring(); return nil }

func (f *follower) Remove(string) error { f.ring(); return nil }

func (f *follower) ring() {
	select {
	case f.change <- struct{}{}:
	default:
	}
}

// tunnels is an overlay that remembers what it was told, and fails on demand.
type tunnels struct {
	mu      sync.Mutex
	have    map[string]Wanted
	applied int
	failing map[string]int // how often Apply is still to fail
}

func (o *tunnels) Apply(w Wanted) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.applied++
	if o.failing[w.Key] > 0 {
		o.failing[w.Key]--
		return errors.New("no tunnels today")
	}
	o.have[w.Key] = w
	return nil
}

func (o *tunnels) Remove(key string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.have, key)
	return nil
}

func (o *tunnels) get(key string) (Wanted, int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.have[key], o.applied
}

func (w *world) reconcile(o Overlay) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = w.m.Reconcile(ctx, o) }()
	w.Cleanup(func() { cancel(); <-done })
	for { // Reconcile marks every network when it begins to listen
		w.m.overlay.mu.Lock()
		running := w.m.overlay.running
		w.m.overlay.mu.Unlock()
		if running {
			return
		}
		runtime.Gosched()
	}
}

func TestOverlayFollowsEachChange(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		o := &tunnels{have: map[string]Wanted{}}
		w.reconcile(o)
		key := arm.MustID(vnetID).Key()

		// Each write is answered when the overlay has it.
		w.pe("pe")
		w.nic("vm", "")
		pub := newKey()
		w.put(memberID("vm", "m"), memberBody(pub, "vm"))
		got, n := o.get(key)
		want := []netip.Addr{netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("10.0.0.5"), DefaultFrontEnd, Resolver}
		if have := slices.SortedFunc(maps.Keys(maps.Collect(got.Addresses.All())), netip.Addr.Compare); !slices.Equal(have, want) {
			w.Errorf("addresses %v, want %v", have, want)
		}
		raw, err := decodeKey(pub)
		w.check(err)
		if have := maps.Collect(got.Peers.All()); !maps.Equal(have, map[netip.Addr][32]byte{netip.MustParseAddr("10.0.0.6"): raw}) {
			w.Errorf("peers %v", have)
		}
		if !slices.Equal(got.Prefixes, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}) {
			w.Errorf("prefixes %v", got.Prefixes)
		}
		// A change that is none of the overlay's is not told.
		w.put(subnetID, `{"properties":{"addressPrefix":"10.0.0.0/24","serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}]}}`)
		if _, again := o.get(key); again != n {
			w.Error("a change of a subnet disturbed the tunnels")
		}
		// A rejected endpoint still answers, to say so, and what came to it
		// before ends.
		w.put(w.connection(peID("pe")), setState(Rejected))
		now, _ := o.get(key)
		if closed := got.Addresses.With(want[0], false).With(want[1], false); !same(now.Addresses, closed) || !same(now.Peers, got.Peers) {
			w.Errorf("rejected: %+v", now)
		}
		w.put(w.connection(peID("pe")), setState(Approved))
		if now, _ := o.get(key); !now.equal(got) {
			w.Errorf("approved again: %+v", now)
		}
		w.delete(memberID("vm", "m"))
		if now, _ := o.get(key); now.Peers.Len() != 0 {
			w.Error("a deleted member has a tunnel still")
		}
		w.delete(peID("pe"))
		w.delete(nicID("vm"))
		w.delete(vnetID)
		if now, _ := o.get(key); now.Key != "" {
			w.Error("a deleted network has an overlay still")
		}
	})
}

// One network that cannot be made holds up neither the others nor a writer,
// and is made in the end.
func TestOverlayThatFailsIsTriedAgain(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	w := newWorld(t, db)
	const other = group + "/providers/Microsoft.Network/virtualNetworks/other"
	o := &tunnels{have: map[string]Wanted{}, failing: map[string]int{arm.MustID(vnetID).Key(): 3}}
	w.reconcile(o)
	w.vnet("10.0.0.0/16", "10.0.0.0/24")
	w.put(other, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]}}}`)
	if got, _ := o.get(arm.MustID(other).Key()); got.Key == "" {
		t.Error("a network waited for another's failure")
	}
	late := time.After(time.Minute)
	for {
		if got, _ := o.get(arm.MustID(vnetID).Key()); got.Key != "" {
			break
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-late:
			t.Fatal("it was not tried again")
		}
	}
	if !strings.Contains(w.log.String(), "no tunnels today") {
		t.Error("the failure was not logged")
	}
	if strings.Contains(w.log.String(), "PrivateKey") {
		t.Error("the log names a key")
	}
}

// A key that was copied from another network's row, or was sealed by another
// deployment, gives no tunnel, and the other networks go on.
func TestForeignKeyGivesNoTunnel(t *testing.T) {
	w := newWorld(t, storetest.Open(t, storetest.SQLite(t)))
	const other = group + "/providers/Microsoft.Network/virtualNetworks/other"
	w.vnet("10.0.0.0/16", "10.0.0.0/24")
	w.put(other, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]}}}`)
	w.update(func(ctx context.Context, tx resource.Tx) error {
		from, err := tx.Get(ctx, arm.MustID(vnetID))
		if err != nil {
			return err
		}
		to, err := tx.Get(ctx, arm.MustID(other))
		if err != nil {
			return err
		}
		to.Body["cove"] = from.Body["cove"]
		return tx.Put(ctx, &to)
	})
	if got := w.m.Networks(); !slices.Equal(got, []string{arm.MustID(vnetID).Key()}) {
		t.Errorf("the networks are %v", got)
	}
}

func TestEndpointChangedRunsInTheTransaction(t *testing.T) {
	w := newWorld(t, storetest.Open(t, storetest.SQLite(t)))
	w.vnet("10.0.0.0/16", "10.0.0.0/24")
	w.registry()
	var told []string
	cfg := w.cfg
	cfg.EndpointChanged = append(cfg.EndpointChanged, func(ctx context.Context, tx resource.Tx, pe resource.Doc) error {
		told = append(told, stateOf(pe.Body))
		if len(told) == 3 {
			return errors.New("no")
		}
		return nil
	})
	svc, err := resource.New(resource.Config{Store: w.store, Types: Types(cfg), Locations: []string{"local"}})
	w.check(err)
	w.svc = svc
	w.pe("pe")
	var conn string
	w.check(w.raw.View(t.Context(), func(r resource.Reader) error {
		d, err := r.Get(t.Context(), arm.MustID(peID("pe")))
		conn = textAt(d.Body, "cove", "connection")
		return err
	}))
	w.put(conn, setState(Rejected))
	if _, err := w.try(owner, conn, setState(Approved)); err == nil {
		t.Error("a hook that failed did not fail the change")
	}
	if fmt.Sprint(told) != "[Approved Rejected Approved]" {
		t.Errorf("the hook saw %v", told)
	}
	if s := stateOf(w.get(peID("pe"))); s != Rejected {
		t.Errorf("the refused change left the endpoint %s", s)
	}
}

// busy is a map of one network with 200 endpoints and 1,000 members.
func busy(testing.TB) (*Map, string) { return filled(200, 1200) }

// filled is a map of one network with interfaces, the first of them private
// endpoints', and the others members'.
func filled(endpoints, all int) (*Map, string) {
	key := arm.MustID(vnetID).Key()
	m := &Map{parts: newParts()}
	m.overlay.init()
	m.table.Store(&map[string]*snapshot{})
	subnet := arm.MustID(subnetID)
	changes := []part{{key: key, typ: strings.ToLower(TypeVirtualNetwork), vnet: &vnetPart{}}}
	next := netip.MustParseAddr("10.0.0.4")
	for i := range all {
		id := arm.MustID(nicID(fmt.Sprint("n", i)))
		n := &nicPart{id: id, vnet: key, configs: []nicConfig{{subnet: subnet, address: next, member: GroupID}}}
		next = next.Next()
		if i < endpoints {
			pe := arm.MustID(peID(fmt.Sprint("p", i)))
			n.pe = pe.Key()
			changes = append(changes, part{key: n.pe, typ: strings.ToLower(TypeEndpoint), pe: &pePart{id: pe, state: Approved}})
		} else {
			mem := id.Child("providers/"+TypeMember, "m")
			changes = append(changes, part{key: mem.Key(), typ: strings.ToLower(TypeMember), member: &memberPart{id: mem, nic: id.Key(), pub: [32]byte{1, byte(i), byte(i >> 8)}}})
		}
		changes = append(changes, part{key: id.Key(), typ: strings.ToLower(TypeInterface), nic: n})
	}
	m.install(changes, false)
	return m, key
}

func TestLookupsAllocateNothing(t *testing.T) {
	m, key := busy(t)
	pe, member, nothing := netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("10.0.1.100"), netip.MustParseAddr("10.9.9.9")
	if m.Endpoint(key, pe) == nil || m.Member(key, member) == nil || m.Member(key, pe) != nil || m.Endpoint("", pe) != nil || m.Endpoint(key, nothing) != nil {
		t.Fatal("the map does not answer as it was filled")
	}
	if n := testing.AllocsPerRun(100, func() {
		m.Endpoint(key, pe)
		m.Member(key, member)
		m.Member(key, nothing)
		m.Endpoint("elsewhere", pe)
	}); n != 0 {
		t.Errorf("four lookups allocate %v times", n)
	}
}

func BenchmarkLookup(b *testing.B) {
	m, key := busy(b)
	pe, member := netip.MustParseAddr("10.0.0.100"), netip.MustParseAddr("10.0.1.100")
	b.ReportAllocs()
	for b.Loop() {
		if m.Endpoint(key, pe) == nil || m.Member(key, member) == nil {
			b.Fatal("not found")
		}
	}
}

// comesAndGoes returns what takes an interface away among so many and adds it
// again, up to the overlay's being told.
func comesAndGoes(t testing.TB, size int) func() {
	m, key := filled(size/50+1, size)
	id := arm.MustID(nicID(fmt.Sprint("n", size-1)))
	n, typ := m.parts.nics[id.Key()], strings.ToLower(TypeInterface)
	overlay, applied := &tunnels{have: map[string]Wanted{}}, map[string]Wanted{}
	return func() {
		before := overlay.applied
		for _, now := range []*nicPart{nil, n} {
			m.install([]part{{key: id.Key(), typ: typ, nic: now}}, false)
			if err := m.reconcile(key, overlay, applied); err != nil {
				t.Fatal(err)
			}
		}
		if overlay.applied != before+2 {
			t.Fatal("the overlay was not told")
		}
	}
}

// A change of one interface takes about as much among ten thousand as among ten.
func TestOneChangeCostsTheSameAmongMany(t *testing.T) {
	cost := func(size int) float64 { return testing.AllocsPerRun(100, comesAndGoes(t, size)) }
	if few, many := cost(10), cost(10000); many > 2*few {
		t.Errorf("%.0f allocations among ten, %.0f among ten thousand", few, many)
	}
}

func BenchmarkOneChangeAmong(b *testing.B) {
	for _, size := range []int{10, 1000, 10000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			change := comesAndGoes(b, size)
			b.ReportAllocs()
			for b.Loop() {
				change()
			}
		})
	}
}

// Changes of two transactions may be told of in the other order: the address of
// an interface that went is another's by then, and stays it, with the groups
// that have a say about it.
func TestAnAddressThatMovedStaysWithItsNewHolder(t *testing.T) {
	m, key := filled(0, 3)
	walls := arm.MustID(group + "/providers/" + TypeGroup + "/walls").Key()
	m.install([]part{{key: walls, typ: strings.ToLower(TypeGroup), group: &groupPart{"walls"}}}, false)
	typ, at := strings.ToLower(TypeInterface), netip.MustParseAddr("10.0.0.5")
	old, heir := arm.MustID(nicID("n1")), arm.MustID(nicID("heir"))
	mem := heir.Child("providers/"+TypeMember, "m")
	config := m.parts.nics[old.Key()].configs
	m.install([]part{
		{key: heir.Key(), typ: typ, nic: &nicPart{id: heir, vnet: key, group: walls, configs: config}},
		{key: mem.Key(), typ: strings.ToLower(TypeMember), member: &memberPart{id: mem, nic: heir.Key(), pub: [32]byte{9}}},
	}, false)
	m.install([]part{{key: old.Key(), typ: typ}}, false)
	w, _ := m.Wanted(key)
	peer, _ := w.Peers.Get(at)
	if x := m.Member(key, at); x == nil || !x.NIC.Equal(heir) || peer != [32]byte{9} || !w.Filter.Watches(at) {
		t.Errorf("%s is %+v's, whose key is %x", at, x, peer)
	}
}

// A resolver answers as long as one member asks there.
func TestAResolverStaysWhileSomebodyAsksThere(t *testing.T) {
	m, key := filled(0, 2)
	at, typ := netip.MustParseAddr("192.0.2.1"), strings.ToLower(TypeMember)
	ask := func(nic string, where netip.Addr) {
		id := arm.MustID(nicID(nic)).Child("providers/"+TypeMember, "m")
		mem := *m.parts.members[id.Key()]
		mem.resolver = where
		m.install([]part{{key: id.Key(), typ: typ, member: &mem}}, false)
	}
	for _, step := range []struct {
		nic   string
		where netip.Addr
		want  bool
	}{{"n0", at, true}, {"n1", at, true}, {"n0", netip.Addr{}, true}, {"n1", netip.Addr{}, false}} {
		ask(step.nic, step.where)
		w, _ := m.Wanted(key)
		if w.Addresses.Has(at) != step.want || slices.Contains(w.Resolvers, at) != step.want {
			t.Errorf("after %s asks at %v: %v", step.nic, step.where, w.Resolvers)
		}
	}
}
