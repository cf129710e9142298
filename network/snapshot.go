package network

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// snapshot is one network as the data path sees it. It is never modified once
// it is in a Map's table.
type snapshot struct {
	slots     Table[netip.Addr, *slot]
	private   Table[string, *Endpoint] // by arm.ID.Key of the private endpoint: its first address
	resolvers Table[netip.Addr, int]   // besides Resolver, with how many members ask there
	sides     Table[netip.Addr, *side] // of the addresses that security groups have a say about
	front     netip.Addr
	wanted    Wanted
}

// slot is what has an address in a network.
type slot struct {
	nic      string    // key of the interface
	endpoint *Endpoint // nil: a machine's
	member   *Member   // nil: an endpoint's, or nobody has joined
}

// endpoints are the addresses of private endpoints, in no order.
func (s *snapshot) endpoints() iter.Seq[*Endpoint] {
	return func(yield func(*Endpoint) bool) {
		for _, x := range s.slots.All() {
			if x.endpoint != nil && !yield(x.endpoint) {
				return
			}
		}
	}
}

// members are the machines, in no order.
func (s *snapshot) members() iter.Seq[*Member] {
	return func(yield func(*Member) bool) {
		for _, x := range s.slots.All() {
			if x.member != nil && !yield(x.member) {
				return
			}
		}
	}
}

// holding is what one interface has in the networks that see it. What it is
// made of is of the interface and of what belongs to it alone, or of what makes
// whole networks anew when it changes: its subnets and their groups.
type holding struct {
	nic, network string     // keys
	private      string     // key of its private endpoint; "" is a machine's
	resolver     netip.Addr // where its member asks for names; zero is the usual one
	at           []held
}

// held is one address of an interface.
type held struct {
	address netip.Addr
	slot    *slot
	peer    [32]byte // the key of slot.member
	side    *side    // nil: no group has a say
}

// holding is nil where there is no such interface. An endpoint's addresses are
// held whatever its state: a connection to one that is not approved is refused
// in words, not with silence.
func (p *parts) holding(nicKey string) *holding {
	nic := p.nics[nicKey]
	if nic == nil {
		return nil
	}
	h := &holding{nic: nicKey, network: nic.vnet, private: nic.pe}
	pe := p.pes[nic.pe]
	for _, c := range nic.configs {
		x := held{address: c.address, slot: &slot{nic: nicKey}, side: p.sideOf(nic, c)}
		if pe != nil {
			x.slot.endpoint = &Endpoint{
				ID: pe.id, Connection: pe.connection, Registry: pe.registry, State: pe.state,
				Member: c.member, Address: c.address, FQDNs: c.fqdns,
			}
		}
		h.at = append(h.at, x)
	}
	if nic.pe != "" || len(h.at) == 0 {
		return h
	}
	for memberKey := range p.machines[nicKey] {
		m, first := p.members[memberKey], nic.configs[0]
		in := p.subnets[first.key]
		h.at[0].peer, h.resolver = m.pub, m.resolver
		h.at[0].slot.member = &Member{
			ID: m.id, NIC: nic.id, Subnet: first.subnet, Address: first.address, Kind: m.kind,
			SubnetKey: first.key, Service: in != nil && in.service, Served: slices.Contains(served, m.kind), Routes: m.routes,
		}
	}
	return h
}

// touch notes what an interface holds, before the first change of it.
func (p *parts) touch(touched map[string]*holding, nic string) {
	if _, noted := touched[nic]; !noted && touched != nil {
		touched[nic] = p.holding(nic)
	}
}

// edit returns the networks, but for the dirty ones, in which interfaces that
// were touched hold something else now, as they then are.
func (p *parts) edit(touched map[string]*holding, dirty map[string]bool, table map[string]*snapshot) map[string]*snapshot {
	edited := map[string]*snapshot{}
	each := func(h *holding, do func(s *snapshot, h *holding)) {
		if h == nil {
			return
		}
		seen := []string{h.network}
		if h.private != "" {
			seen = append(seen, p.peers(h.network)...)
		}
		for _, network := range seen {
			if dirty[network] || table[network] == nil {
				continue
			}
			if edited[network] == nil {
				s := *table[network]
				edited[network] = &s
			}
			do(edited[network], h)
		}
	}
	// First all that is gone: an address may have moved from one to another.
	for _, was := range touched {
		each(was, (*snapshot).take)
	}
	for nic := range touched {
		each(p.holding(nic), func(s *snapshot, h *holding) { s.put(h, false) })
	}
	return edited
}

// build makes the snapshot of a network, nil where there is none.
func (p *parts) build(key string, front netip.Addr) *snapshot {
	vnet := p.vnets[key]
	if vnet == nil {
		return nil
	}
	s := &snapshot{front: front, wanted: Wanted{Key: key, PrivateKey: vnet.key, Prefixes: slices.Clone(vnet.prefixes)}}
	s.answer(Resolver, true)
	s.answer(front, true)
	for _, peer := range p.peers(key) {
		s.wanted.Prefixes = append(s.wanted.Prefixes, p.vnets[peer].prefixes...)
		for nic := range p.nicsOf[peer] {
			if p.nics[nic].pe != "" {
				s.put(p.holding(nic), true)
			}
		}
	}
	for nic := range p.nicsOf[key] {
		s.put(p.holding(nic), true)
	}
	return s
}

// put gives a network what an interface holds; own is Table.put's.
func (s *snapshot) put(h *holding, own bool) {
	for i, x := range h.at {
		s.drop(x.address)
		s.slots.put(x.address, x.slot, own)
		if x.slot.member != nil {
			s.wanted.Peers.put(x.address, x.peer, own)
		}
		if x.slot.endpoint != nil && i == 0 {
			s.private.put(h.private, x.slot.endpoint, own)
		}
		if x.side != nil {
			s.sides.put(x.address, x.side, own)
		}
		s.answer(x.address, own)
	}
	if s.mayResolve(h.resolver) {
		n, _ := s.resolvers.Get(h.resolver)
		s.resolvers.put(h.resolver, n+1, own)
		s.answer(h.resolver, own)
	}
}

// take takes from a network what an interface held, but for an address that
// another has by now: changes may be told of in another order than they came.
func (s *snapshot) take(h *holding) {
	for _, x := range h.at {
		if now, _ := s.slots.Get(x.address); now != nil && now.nic == h.nic {
			s.drop(x.address)
			s.answer(x.address, false)
		}
	}
	if s.mayResolve(h.resolver) {
		if n, _ := s.resolvers.Get(h.resolver); n > 1 {
			s.resolvers = s.resolvers.With(h.resolver, n-1)
		} else {
			s.resolvers = s.resolvers.Without(h.resolver)
		}
		s.answer(h.resolver, false)
	}
}

// mayResolve reports whether an address that a member has chosen for its
// resolver is nobody else's. When it was chosen it was not, but networks grow,
// and are joined with others: then it is a machine's, about which security
// groups have a say.
func (s *snapshot) mayResolve(a netip.Addr) bool {
	return a.IsValid() && a != s.front && !within(s.wanted.Prefixes, a)
}

// drop empties a slot.
func (s *snapshot) drop(a netip.Addr) {
	x, ok := s.slots.Get(a)
	if !ok {
		return
	}
	s.slots, s.wanted.Peers, s.sides = s.slots.Without(a), s.wanted.Peers.Without(a), s.sides.Without(a)
	if x.endpoint == nil {
		return
	}
	key := x.endpoint.ID.Key()
	if first, _ := s.private.Get(key); first != nil && first.Address == a {
		s.private = s.private.Without(key)
	}
}

// answer says of an address whether it is answered at, as what is there has it.
func (s *snapshot) answer(a netip.Addr, own bool) {
	x, _ := s.slots.Get(a)
	switch {
	case x != nil && x.endpoint != nil:
		s.wanted.Addresses.put(a, x.endpoint.State == Approved, own)
	case a == Resolver, a == s.front, s.resolvers.Has(a):
		s.wanted.Addresses.put(a, true, own)
	default:
		s.wanted.Addresses = s.wanted.Addresses.Without(a)
	}
}

// finish makes what of a snapshot is not by address. Where nothing of it
// has changed it stays what old has, which may be nil, so that whoever compares
// the two sees that at a glance.
func (s *snapshot) finish(old *snapshot, d *denials) {
	resolvers := slices.SortedFunc(maps.Keys(maps.Collect(s.resolvers.All())), netip.Addr.Compare)
	s.wanted.Resolvers = resolvers
	if s.wanted.Filter = nil; s.sides.Len() == 0 {
		return
	}
	if old != nil && old.wanted.Filter != nil && same(old.sides, s.sides) &&
		slices.Equal(old.wanted.Prefixes, s.wanted.Prefixes) && slices.Equal(old.wanted.Resolvers, resolvers) {
		s.wanted.Filter, s.sides = old.wanted.Filter, old.sides
		return
	}
	platform := map[netip.Addr]tag{Resolver: tagDNS, Metadata: tagMetadata}
	for _, a := range resolvers {
		platform[a] = tagDNS
	}
	s.wanted.Filter = &Filter{
		sides: s.sides, inside: s.wanted.Prefixes, front: s.front, platform: platform,
		network: s.wanted.Key, denials: d,
	}
}
