package network

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// Map is what the data path knows of all networks. It implements Lookup from
// immutable snapshots, one for each network, which a resource.Mirror keeps as
// the store has them. What a change of one interface costs, or of the member or
// the private endpoint that has it, does not grow with how many there are; any
// other change makes the networks that it concerns anew. Lookups never wait.
type Map struct {
	mirror *resource.Mirror
	cfg    Config
	log    *slog.Logger

	table atomic.Pointer[map[string]*snapshot] // by arm.ID.Key of the network
	parts *parts                               // the mirror's

	overlay reconciler
	denials *denials
}

// NewMap returns a map of no networks; Load or Run fills it. Of cfg it needs
// Sealer and FrontEnd, and Now if that is not time.Now.
func NewMap(store resource.Store, cfg Config, log *slog.Logger) *Map {
	m := &Map{cfg: cfg, log: log, parts: newParts(), denials: &denials{log: log, now: cfg.now, said: map[denier]*denied{}}}
	m.overlay.init()
	m.table.Store(&map[string]*snapshot{})
	m.mirror = resource.NewMirror(store, resource.Mirrored{Name: "networks", Concerns: mapped, Read: m.read}, log)
	return m
}

// Endpoint implements Lookup.
func (m *Map) Endpoint(network string, local netip.Addr) *Endpoint {
	if x := m.slot(network, local); x != nil {
		return x.endpoint
	}
	return nil
}

// Member implements Lookup.
func (m *Map) Member(network string, remote netip.Addr) *Member {
	if x := m.slot(network, remote); x != nil {
		return x.member
	}
	return nil
}

func (m *Map) slot(network string, a netip.Addr) *slot {
	s := (*m.table.Load())[network]
	if s == nil {
		return nil
	}
	x, _ := s.slots.Get(a)
	return x
}

// Wanted is an overlay network as it should be now. It reports false where
// there is no network of that key.
func (m *Map) Wanted(key string) (Wanted, bool) {
	s := (*m.table.Load())[key]
	if s == nil {
		return Wanted{}, false
	}
	return s.wanted, true
}

// Networks are the keys of all networks, in order.
func (m *Map) Networks() []string { return slices.Sorted(maps.Keys(*m.table.Load())) }

// Load reads everything.
func (m *Map) Load(ctx context.Context) error { return m.mirror.Load(ctx) }

// Run follows the store until ctx ends.
func (m *Map) Run(ctx context.Context) error { return m.mirror.Run(ctx) }

// mapped is id where snapshots are built from documents of its type.
func mapped(id arm.ID) arm.ID {
	for _, t := range mappedTypes {
		if strings.EqualFold(id.Type(), t) {
			return id
		}
	}
	return arm.ID{}
}

var mappedTypes = []string{TypeVirtualNetwork, TypePeering, TypeSubnet, TypeInterface, TypeMember, TypeEndpoint, TypeGroup, TypeRule}

// read fetches the documents that changed, or all.
func (m *Map) read(ctx context.Context, r resource.Reader, ids map[string]arm.ID, all bool) (install func(), err error) {
	var out []part
	if all {
		for _, typ := range mappedTypes {
			docs, err := r.List(ctx, resource.Query{Type: typ})
			if err != nil {
				return nil, err
			}
			for _, d := range docs {
				out = append(out, m.decode(d))
			}
		}
		return func() { m.install(out, true) }, nil
	}
	for key, id := range ids {
		doc, err := r.Get(ctx, id)
		switch {
		case errors.Is(err, resource.ErrUnknown):
			out = append(out, part{key: key, typ: strings.ToLower(id.Type())})
		case err != nil:
			return nil, err
		default:
			out = append(out, m.decode(doc))
		}
	}
	return func() { m.install(out, false) }, nil
}

// install replaces the networks that changes concern.
func (m *Map) install(changes []part, all bool) {
	dirty, touched := map[string]bool{}, map[string]*holding{}
	if all {
		m.parts, touched = newParts(), nil
		for key := range *m.table.Load() {
			dirty[key] = true
		}
	}
	for _, p := range changes {
		m.parts.set(p, dirty, touched)
	}
	m.parts.spread(dirty)
	table := maps.Clone(*m.table.Load())
	for key := range dirty {
		if s := m.parts.build(key, m.cfg.frontEnd()); s != nil {
			s.finish(table[key], m.denials)
			table[key] = s
		} else {
			delete(table, key)
		}
	}
	for key, s := range m.parts.edit(touched, dirty, table) {
		s.finish(table[key], m.denials)
		table[key], dirty[key] = s, true
	}
	m.table.Store(&table)
	m.overlay.mark(dirty)
}

// part is one document as snapshots are built from it. All but the key and
// the type are nil of a document that is gone or cannot be used.
type part struct {
	key, typ string
	vnet     *vnetPart
	subnet   *subnetPart
	nic      *nicPart
	member   *memberPart
	pe       *pePart
	peering  *peeringPart
	group    *groupPart
	rule     *rulePart
}

type vnetPart struct {
	prefixes []netip.Prefix
	key      PrivateKey
}

type subnetPart struct {
	vnet    string // key
	service bool   // it has a service endpoint for registries
	group   string // key of its security group
	// policed says that the group has a say about private endpoints too.
	policed bool
}

type nicPart struct {
	id      arm.ID
	vnet    string // key
	pe      string // key; "" is a machine's
	group   string // key of its security group
	configs []nicConfig
}

type nicConfig struct {
	subnet  arm.ID
	key     string // of the subnet
	address netip.Addr
	member  string
	fqdns   []string
}

type memberPart struct {
	id  arm.ID
	nic string // key
	pub [32]byte
	// kind is one of kinds.
	kind string
	// resolver is where it asks for names, Resolver if it is zero.
	resolver netip.Addr
	routes   []netip.Prefix
}

type pePart struct {
	id, connection, registry arm.ID
	state                    string
}

func (m *Map) decode(d resource.Doc) part {
	p := part{key: d.ID.Key(), typ: strings.ToLower(d.ID.Type())}
	var none problems
	switch p.typ {
	case strings.ToLower(TypeVirtualNetwork):
		key, err := openKey(m.cfg.Sealer, d)
		if err != nil {
			// The other networks go on; this one has no tunnel without it.
			m.log.Error("the key of a virtual network cannot be opened", "network", d.ID, "err", err)
			break
		}
		p.vnet = &vnetPart{vnetPrefixes(&none, d.Body), key}
	case strings.ToLower(TypeSubnet):
		p.subnet = &subnetPart{d.ID.Parent().Key(), hasRegistryService(objectAt(d.Body, "properties")), groupOf(d), policed(d)}
	case strings.ToLower(TypePeering):
		p.peering = decodePeering(d)
	case strings.ToLower(TypeGroup):
		p.group = &groupPart{d.ID.Name()}
	case strings.ToLower(TypeRule):
		r := m.cfg.parseRule(&none, "", d.ID.Name(), objectAt(d.Body, "properties"))
		if len(none) > 0 {
			// A rule that cannot be read must not open what it may have closed.
			m.log.Error("a security rule cannot be read; it denies everything", "rule", d.ID, "problems", none)
			r = rule{name: d.ID.Name(), inbound: r.inbound, from: places{any: true}, to: places{any: true}}
		}
		p.rule = &rulePart{d.ID.Parent().Key(), r}
	case strings.ToLower(TypeInterface):
		n := &nicPart{id: d.ID, group: groupOf(d)}
		if pe := idAt(d.Body, "properties", "privateEndpoint", "id"); !pe.IsZero() {
			n.pe = pe.Key()
		}
		for _, c := range storedConfigs(d.Body) {
			n.vnet = c.subnet.Parent().Key()
			n.configs = append(n.configs, nicConfig{
				c.subnet, c.subnet.Key(), c.address,
				textAt(c.body, "properties", "privateLinkConnectionProperties", "requiredMemberName"), fqdns(c.body),
			})
		}
		p.nic = n
	case strings.ToLower(TypeMember):
		pub, err := decodeKey(textAt(d.Body, "properties", "publicKey"))
		if err != nil {
			m.log.Error("a member has no usable key", "member", d.ID, "err", err)
			break
		}
		p.member = &memberPart{d.ID, d.ID.Parent().Key(), pub, textAt(d.Body, "properties", "kind"), ownResolver(d.Body), routesOf(d.Body)}
	case strings.ToLower(TypeEndpoint):
		ask := readAsked(&none, d.Body)
		p.pe = &pePart{d.ID, idAt(d.Body, "cove", "connection"), ask.target, readState(ask.body).Status}
	}
	return p
}

// parts are all documents by their keys, and which belong together.
type parts struct {
	vnets   map[string]*vnetPart
	subnets map[string]*subnetPart
	nics    map[string]*nicPart
	members map[string]*memberPart
	pes     map[string]*pePart

	peerings map[string]*peeringPart
	groups   map[string]*groupPart
	rules    map[string]*rulePart

	nicsOf   index // network → interfaces
	nicsOfPE index // private endpoint → interfaces
	machines index // interface → members
	peersOf  index // network → its peerings, and those that lead to it
	rulesOf  index // security group → rules

	sides map[sided]*side // those that are in use, so that the same groups are one side
}

type index map[string]map[string]bool

func (x index) add(of, key string) {
	if x[of] == nil {
		x[of] = map[string]bool{}
	}
	x[of][key] = true
}

func (x index) remove(of, key string) {
	delete(x[of], key)
	if len(x[of]) == 0 {
		delete(x, of)
	}
}

func newParts() *parts {
	return &parts{
		map[string]*vnetPart{},
		map[string]*subnetPart{},
		map[string]*nicPart{},
		map[string]*memberPart{},
		map[string]*pePart{},
		map[string]*peeringPart{},
		map[string]*groupPart{},
		map[string]*rulePart{},
		index{},
		index{},
		index{},
		index{},
		index{},
		map[sided]*side{},
	}
}

// set takes in one part. It adds to touched the interfaces whose holding it
// changes, with what they held before, and to dirty the networks in which it
// changes more than that.
func (p *parts) set(c part, dirty map[string]bool, touched map[string]*holding) {
	switch c.typ {
	case strings.ToLower(TypeVirtualNetwork):
		replace(p.vnets, c.key, c.vnet)
		dirty[c.key] = true
	case strings.ToLower(TypeSubnet):
		for _, s := range []*subnetPart{p.subnets[c.key], c.subnet} {
			if s != nil {
				dirty[s.vnet] = true
			}
		}
		replace(p.subnets, c.key, c.subnet)
	case strings.ToLower(TypeInterface):
		p.touch(touched, c.key)
		if old := p.nics[c.key]; old != nil {
			p.nicsOf.remove(old.vnet, c.key)
			p.nicsOfPE.remove(old.pe, c.key)
		}
		replace(p.nics, c.key, c.nic)
		if c.nic != nil {
			p.nicsOf.add(c.nic.vnet, c.key)
			p.nicsOfPE.add(c.nic.pe, c.key)
		}
	case strings.ToLower(TypeMember):
		for _, m := range []*memberPart{p.members[c.key], c.member} {
			if m != nil {
				p.touch(touched, m.nic)
			}
		}
		if old := p.members[c.key]; old != nil {
			p.machines.remove(old.nic, c.key)
		}
		replace(p.members, c.key, c.member)
		if c.member != nil {
			p.machines.add(c.member.nic, c.key)
		}
	case strings.ToLower(TypePeering):
		p.setPeering(c, dirty)
	case strings.ToLower(TypeGroup), strings.ToLower(TypeRule):
		p.setGroup(c, dirty)
	case strings.ToLower(TypeEndpoint):
		for nic := range p.nicsOfPE[c.key] {
			p.touch(touched, nic)
		}
		replace(p.pes, c.key, c.pe)
	}
}

func replace[T any](m map[string]*T, key string, v *T) {
	if v == nil {
		delete(m, key)
	} else {
		m[key] = v
	}
}

// Obeyed is store, but an Update of it returns only when lookups see what it
// committed, and when the overlay has been told, if that is soon.
func (m *Map) Obeyed(store resource.Store) resource.Store { return obeyed{m.mirror.Obeyed(store), m} }

type obeyed struct {
	resource.Store
	m *Map
}

// overlayWait is how long the writer of a change waits for the overlay. The
// change is durable by then, and Reconcile goes on trying.
const overlayWait = time.Second

func (o obeyed) Update(ctx context.Context, fn func(resource.Tx) error) error {
	if err := o.Store.Update(ctx, fn); err != nil {
		return err
	}
	// The caller may have gone; the change has not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), overlayWait)
	defer cancel()
	o.m.overlay.settle(ctx)
	return nil
}
