package zone

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Registry is what the public names of a registry depend on.
type Registry struct {
	Private bool // has or ever had a private endpoint
	// Regions that its global name may lead to, the first before the others.
	Regions []string
}

// Registries finds registries by name. cmd adapts registry.Lookup to it.
type Registries interface {
	// ByHost returns the registry whose login server, data host or regional
	// host this is (lower case, no final dot), or nil.
	ByHost(ctx context.Context, host string) (*Registry, error)
}

// Names is what the operator configured.
type Names struct {
	Domain string   // cove.internal
	Suffix string   // of registries: cr.cove.internal
	Hosts  []string // of the other edges, in full: management.cove.internal, …
	// Regions that this deployment serves; the first answers for registries
	// whose home is elsewhere.
	Regions []string
	// Down are regions that no registry's global name leads to, as long as
	// there is another. Names of a region itself do not ask.
	Down []string
	// Advertise are the addresses at which the public listener is reached.
	Advertise []netip.Addr
	// Aliases are further names of registries: host to login server.
	Aliases map[string]string
}

// Public is the names that everybody can see. It is never modified.
type Public struct {
	suffix     string
	apexes     map[string]apex   // names that we are the authority for
	static     map[string]*node  // names that do not depend on a registry
	fronts     map[string]string // region to front end
	first      string            // the front end for registries at home elsewhere
	down       map[string]bool   // regions
	registries Registries
}

// apex is where our authority begins.
type apex struct {
	soa *Record
	// alone: only this name is ours, what lies below it is not. A deployment
	// that answers for management.azure.com has no say in the rest.
	alone bool
}

// privateLabel stands before the registry suffix in the name that a private
// zone takes over.
const privateLabel = "privatelink"

// NewPublic checks the names and returns the public view's content. The names
// below Domain and Suffix are ours alone; of a host outside them only itself.
func NewPublic(n Names, registries Registries) (*Public, error) {
	domain, suffix := canonical(n.Domain), canonical(n.Suffix)
	var errs []error
	names := append([]string{domain, suffix}, n.Hosts...)
	for _, r := range n.Regions {
		names = append(names, "fe."+r+"."+domain)
	}
	for host, login := range n.Aliases {
		names = append(names, host, login)
	}
	for _, name := range names {
		if err := checkName(canonical(name)); err != nil {
			errs = append(errs, fmt.Errorf("the name %q %w", name, err))
		}
	}
	if len(n.Regions) == 0 {
		errs = append(errs, errors.New("no region"))
	}
	for _, r := range n.Down {
		if !slices.ContainsFunc(n.Regions, func(s string) bool { return strings.EqualFold(r, s) }) {
			errs = append(errs, fmt.Errorf("%q is none of the regions", r))
		}
	}
	if len(n.Advertise) == 0 {
		errs = append(errs, errors.New("no address to advertise"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}

	p := &Public{
		suffix:     suffix,
		apexes:     map[string]apex{},
		static:     map[string]*node{},
		fronts:     map[string]string{},
		down:       map[string]bool{},
		registries: registries,
	}
	server := "ns." + domain
	begin := func(name string, alone bool) {
		if p.authority(name) == nil {
			p.apexes[name] = apex{&Record{Name: name, Type: TypeSOA, TTL: ttlNegative, Target: server}, alone}
		}
	}
	begin(domain, false)
	begin(suffix, false)

	here := addresses(n.Advertise)
	serve := func(name string, what node) {
		name = canonical(name)
		begin(name, true)
		p.exists(name)
		p.static[name] = &what
	}
	serve(server, here)
	for _, h := range n.Hosts {
		serve(h, here)
	}
	for _, r := range n.Regions {
		region := strings.ToLower(r)
		front := "fe." + region + "." + domain
		serve(front, here)
		p.fronts[region] = front
		if p.first == "" {
			p.first = front
		}
		// Names that have registries' names below them exist, whether or not
		// a registry does: a resolver that asks label by label (RFC 9156)
		// would stop at the first that did not.
		for _, kind := range []string{".data.", ".geo."} {
			p.exists(region + kind + suffix)
			p.exists(region + kind + privateLabel + "." + suffix)
		}
	}
	for _, r := range n.Down {
		p.down[strings.ToLower(r)] = true
	}
	for host, login := range n.Aliases {
		serve(host, node{cname: &Record{Type: TypeCNAME, TTL: ttlRoute, Target: canonical(login)}})
	}
	return p, nil
}

// isFront reports whether a name is a region's front end.
func (p *Public) isFront(name string) bool {
	for _, front := range p.fronts {
		if front == name {
			return true
		}
	}
	return false
}

func addresses(addrs []netip.Addr) node {
	var n node
	for _, a := range addrs {
		a = a.Unmap()
		if a.Is4() {
			n.a = append(n.a, Record{Type: TypeA, TTL: ttlAddress, Addr: a})
		} else {
			n.aaaa = append(n.aaaa, Record{Type: TypeAAAA, TTL: ttlAddress, Addr: a.WithZone("")})
		}
	}
	return n
}

// exists makes a name, and every name between it and its apex, exist.
func (p *Public) exists(name string) {
	soa := p.authority(name)
	for i := 0; i >= 0 && len(name)-i >= len(soa.Name); i = next(name, i) {
		if _, ok := p.static[name[i:]]; !ok {
			p.static[name[i:]] = &node{}
		}
	}
}

// authority is the SOA record of a name of ours, nil for any other. The
// shortest apex wins: a registry suffix inside the domain is no zone of its
// own.
func (p *Public) authority(name string) *Record {
	var soa *Record
	for i := 0; i >= 0; i = next(name, i) {
		if a, ok := p.apexes[name[i:]]; ok && (i == 0 || !a.alone) {
			soa = a.soa
		}
	}
	return soa
}

func (p *Public) step(ctx context.Context, name string, qtype uint16) step {
	soa := p.authority(name)
	if soa == nil {
		return step{forward: true}
	}
	s := step{reason: reasonPublic, zone: soa.Name}
	n, ok := p.static[name]
	if !ok {
		var err error
		n, err = p.registry(ctx, name)
		if err != nil {
			return step{rcode: ServFail, reason: reasonLookup}
		}
	}
	if n == nil {
		return step{rcode: NXDomain, soa: soa, reason: reasonNoPublic, zone: soa.Name}
	}
	if n.cname != nil {
		s.cname = n.cname
		return s
	}
	switch {
	case qtype == TypeA:
		s.found = n.a
	case qtype == TypeAAAA:
		s.found = n.aaaa
	case qtype == TypeSOA && name == soa.Name:
		s.found = []Record{*soa}
	case qtype == TypeNS && name == soa.Name:
		s.found = []Record{{Type: TypeNS, TTL: ttlLabel, Target: soa.Target}}
	case qtype == TypeANY:
		return s
	}
	if len(s.found) == 0 {
		s.soa, s.reason = soa, reasonNoType
	}
	return s
}

// registry is the node of a registry's name: nil when there is none. A
// registry with the private label has two names in its chain, so that a
// private zone can take over the second.
func (p *Public) registry(ctx context.Context, name string) (*node, error) {
	left, ok := below(name, p.suffix)
	if !ok || left == "" {
		return nil, nil
	}
	host, labelled := name, false
	if l, ok := below(left, privateLabel); ok {
		left, labelled = l, true
		host = l + "." + p.suffix
	}
	// <registry>, <registry>.<region>.data or <registry>.<region>.geo:
	// anything else is no name of a registry, and is not worth a look.
	labels := strings.Split(left, ".")
	region := ""
	switch {
	case len(labels) == 1:
	case len(labels) == 3 && (labels[2] == "data" || labels[2] == "geo"):
		region = labels[1]
	default:
		return nil, nil
	}
	if !plainLabel(labels[0]) {
		return nil, nil
	}
	r, err := p.registries.ByHost(ctx, host)
	if err != nil {
		return nil, err
	}
	switch {
	case r == nil, labelled && !r.Private:
		return nil, nil
	case r.Private && !labelled:
		target := left + "." + privateLabel + "." + p.suffix
		return &node{cname: &Record{Type: TypeCNAME, TTL: ttlLabel, Target: target}}, nil
	}
	front, ok := p.fronts[region]
	if !ok {
		front = p.route(r.Regions)
	}
	return &node{cname: &Record{Type: TypeCNAME, TTL: ttlRoute, Target: front}}, nil
}

// route is the front end that a registry's global name leads to.
func (p *Public) route(regions []string) string {
	return cmp.Or(p.fronts[p.Route(regions)], p.first)
}

// Route is the region that a registry's global name leads to, of those that it
// may lead to: the first that we have and that is not down. Where all of them
// are, it is the first that we have, since a name that leads nowhere helps
// nobody; "" where we have none.
func (p *Public) Route(regions []string) string {
	here := ""
	for _, r := range regions {
		region := strings.ToLower(r)
		if p.fronts[region] == "" {
			continue
		}
		if !p.down[region] {
			return region
		}
		here = cmp.Or(here, region)
	}
	return here
}
