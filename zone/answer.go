package zone

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
)

// Rcode is the outcome of a question (RFC 1035, 4.1.1).
type Rcode uint8

// The outcomes that a view has.
const (
	NoError  Rcode = 0
	ServFail Rcode = 2
	NXDomain Rcode = 3
)

// maxCNAMEs bounds a chain. Ours have two; what people write into private
// zones may be longer, or a circle.
const maxCNAMEs = 8

// Answer is what a view says to one question.
type Answer struct {
	Rcode         Rcode
	Records       []Record
	SOA           *Record // set when there is no record of the type asked for
	Authoritative bool    // the name first asked for is ours
	// Forward is the name that has to be asked elsewhere, "" for none. It is
	// the name asked for, or where the records that are here lead.
	Forward string

	reason reason
	zone   string
}

// reason is why an answer is as it is. It becomes words only when someone
// reads them.
type reason uint8

const (
	reasonForward reason = iota
	reasonPrivate
	reasonPublic
	reasonNoPrivate
	reasonNoPublic
	reasonNoType
	reasonLong
	reasonLookup
)

// Why is the reason in words, for logs and health checks.
func (a Answer) Why() string {
	switch a.reason {
	case reasonPrivate:
		return "answered by the linked zone " + a.zone
	case reasonPublic:
		return "answered by the public names of " + a.zone
	case reasonNoPrivate:
		return "the linked zone " + a.zone + " is authoritative and has no such name"
	case reasonNoPublic:
		return a.zone + " has no such name"
	case reasonNoType:
		return "the name exists in " + a.zone + " without a record of this type"
	case reasonLong:
		return "the chain of CNAME records is a circle or too long"
	case reasonLookup:
		return "the registry could not be looked up"
	}
	return "not a name of ours"
}

// View is what one network can see. It is never modified, so one pointer can
// be read by everybody. The zero View knows no name.
type View struct {
	public *Public
	front  netip.Addr      // what fronts lead to, where it is not their own address
	zones  map[string]link // by the zone's name; nil outside every network
}

// link is a zone as one network is linked to it.
type link struct {
	zone *records
	// redirect: a name that the zone does not have is looked for in public.
	redirect bool
}

// Answer answers a question for name (canonical or not, with or without final
// dot) and type. It does no I/O but for looking up registries, and it ends
// whatever the zones hold.
func (v *View) Answer(ctx context.Context, name string, qtype uint16) Answer {
	var a Answer
	owner, at := name, canonical(name)
	for range maxCNAMEs + 1 {
		s := v.step(ctx, at, qtype)
		if s.forward {
			a.Forward = cmp.Or(at, ".")
			return a
		}
		if owner == name {
			a.Authoritative = true
		}
		a.reason, a.zone = s.reason, s.zone
		if s.cname != nil && qtype != TypeCNAME && qtype != TypeANY {
			r := *s.cname
			r.Name = owner
			a.Records = append(a.Records, r)
			owner, at = r.Target, r.Target
			continue
		}
		a.Rcode, a.SOA = s.rcode, s.soa
		if s.cname != nil {
			r := *s.cname
			r.Name = owner
			a.Records = append(a.Records, r)
			return a
		}
		for _, r := range s.found {
			r.Name = owner
			a.Records = append(a.Records, r)
		}
		return a
	}
	return Answer{Rcode: ServFail, Authoritative: a.Authoritative, reason: reasonLong}
}

// step is what is known of one name of a chain.
type step struct {
	rcode   Rcode
	cname   *Record
	found   []Record
	soa     *Record
	forward bool
	reason  reason
	zone    string
}

func (v *View) step(ctx context.Context, name string, qtype uint16) step {
	// The longest zone decides, label by label from the left: the first match
	// is the longest.
	if len(v.zones) > 0 {
		for i := 0; i >= 0; i = next(name, i) {
			l, ok := v.zones[name[i:]]
			if !ok {
				continue
			}
			s := l.zone.step(name, qtype)
			// Azure falls back to public resolution for these three types.
			falls := qtype == TypeA || qtype == TypeAAAA || qtype == TypeCNAME
			if s.rcode == NXDomain && l.redirect && falls {
				break
			}
			return s
		}
	}
	if v.public == nil {
		return step{forward: true}
	}
	s := v.public.step(ctx, name, qtype)
	if v.front.IsValid() && v.public.isFront(name) && (qtype == TypeA || qtype == TypeAAAA) {
		// The public addresses are another way, and of no use inside.
		s.found, s.soa = nil, nil
		if qtype == TypeA {
			s.found = []Record{{Type: TypeA, TTL: ttlAddress, Addr: v.front}}
		} else {
			s.soa, s.reason = v.public.authority(name), reasonNoType
		}
	}
	return s
}

// Has reports whether a name is decided here, whoever else may have an answer.
func (v *View) Has(name string) bool {
	name = canonical(name)
	for i := 0; i >= 0 && len(v.zones) > 0; i = next(name, i) {
		if _, ok := v.zones[name[i:]]; ok {
			return true
		}
	}
	return v.public != nil && v.public.authority(name) != nil
}

// Through is the view of who reaches the registries' public side at another
// address than everybody: a subnet with a service endpoint.
func (v *View) Through(front netip.Addr) *View {
	return &View{public: v.public, zones: v.zones, front: front}
}

// records is the content of one private zone. It answers as it is and is never
// changed while it does: a zone in which a name has changed is another one, see
// with.
type records struct {
	name  string
	soa   Record
	nodes map[string]*node // by full name; names that only have names below them are there too
	later map[string]*node // what has changed since nodes was made; nil is a name that is gone
}

type node struct {
	a, aaaa []Record
	cname   *Record
	rare    []Record // of every other type
	below   int      // names below this one that have records
}

func (n *node) empty() bool {
	return n == nil || len(n.a)+len(n.aaaa)+len(n.rare) == 0 && n.cname == nil
}

// newRecords is an empty zone. Its server is named after itself: the zone
// exists inside the networks only, and so should what it names.
func newRecords(name string) *records {
	return &records{
		name:  name,
		soa:   Record{Name: name, Type: TypeSOA, TTL: ttlNegative, Target: name},
		nodes: map[string]*node{name: {}},
	}
}

// maxLater is how many names of a zone are changed before it is made anew. To
// change one name must not cost as much as to read the zone, which may have
// 25,000.
const maxLater = 128

// with is the zone with n as what is at a full name.
func (z *records) with(name string, n *node) *records {
	next := *z
	if len(z.later) < maxLater {
		next.later = maps.Clone(z.later)
	} else {
		next.nodes, next.later = maps.Clone(z.nodes), nil
		for name, n := range z.later {
			if next.nodes[name] = n; n == nil {
				delete(next.nodes, name)
			}
		}
	}
	if next.later == nil {
		next.later = map[string]*node{}
	}
	next.put(name, n)
	return &next
}

// put makes n what is at a full name in the zone. Every name between it and the
// zone exists while there is something below it (RFC 8020: below a name that
// does not exist there is nothing).
func (z *records) put(name string, n *node) {
	old, change := z.node(name), 0
	if old != nil {
		n.below = old.below
	}
	if !old.empty() {
		change--
	}
	if !n.empty() {
		change++
	}
	z.set(name, n)
	if change == 0 {
		return
	}
	for i := next(name, 0); i >= 0 && len(name)-i > len(z.name); i = next(name, i) {
		between := node{}
		if held := z.node(name[i:]); held != nil {
			between = *held
		}
		between.below += change
		z.set(name[i:], &between)
	}
}

func (z *records) set(name string, n *node) {
	if n.empty() && n.below == 0 && name != z.name {
		n = nil
	}
	switch {
	case z.later != nil:
		z.later[name] = n
	case n == nil:
		delete(z.nodes, name)
	default:
		z.nodes[name] = n
	}
}

// node is what is at a full name, nil where the name does not exist.
func (z *records) node(name string) *node {
	if n, ok := z.later[name]; ok {
		return n
	}
	return z.nodes[name]
}

func (z *records) step(name string, qtype uint16) step {
	n := z.node(name)
	if n == nil {
		n = z.wildcard(name)
	}
	if n == nil {
		return step{rcode: NXDomain, soa: &z.soa, reason: reasonNoPrivate, zone: z.name}
	}
	s := step{reason: reasonPrivate, zone: z.name, cname: n.cname}
	if n.cname != nil {
		return s
	}
	switch {
	case qtype == TypeA:
		s.found = n.a
	case qtype == TypeAAAA:
		s.found = n.aaaa
	case qtype == TypeSOA && name == z.name:
		s.found = []Record{z.soa}
	case qtype == TypeNS && name == z.name:
		s.found = []Record{{Type: TypeNS, TTL: ttlLabel, Target: z.soa.Target}}
	case qtype == TypeTXT || qtype == TypeMX || qtype == TypeSRV || qtype == TypePTR:
		for _, r := range n.rare {
			if r.Type == qtype {
				s.found = append(s.found, r)
			}
		}
	case qtype == TypeANY:
		return s // it exists; RFC 8482 leaves the rest to the edge
	}
	if len(s.found) == 0 {
		s.soa, s.reason = &z.soa, reasonNoType
	}
	return s
}

// wildcard is the node "*" below the closest name that exists (RFC 4592).
func (z *records) wildcard(name string) *node {
	for i := next(name, 0); i >= 0; i = next(name, i) {
		if z.node(name[i:]) != nil {
			return z.node("*." + name[i:])
		}
	}
	return nil
}
