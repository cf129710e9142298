package network

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// Attached is how a network exists: AttachedOverlay, AttachedHost or
// AttachedProxy.
func (m *Map) Attached(vnet arm.ID) string {
	if m.cfg.Attached == nil {
		return AttachedOverlay
	}
	return m.cfg.Attached(vnet)
}

// Leading are the private endpoints that a network (arm.ID.Key) reaches and
// that lead to a registry, by an address of each: the approved ones first, then
// by their ids.
func (m *Map) Leading(network string, registry arm.ID) []*Endpoint {
	var out []*Endpoint
	if s := (*m.table.Load())[network]; s != nil {
		for _, e := range s.private.All() {
			if e.Registry.Equal(registry) {
				out = append(out, e)
			}
		}
	}
	slices.SortFunc(out, func(a, b *Endpoint) int {
		if (a.State == Approved) != (b.State == Approved) {
			return map[bool]int{true: -1, false: 1}[a.State == Approved]
		}
		return strings.Compare(a.ID.Key(), b.ID.Key())
	})
	return out
}

// SupposedMember is a machine of that kind in a subnet, as the data path would
// see it: the first that there is, else one that nobody has joined, at the
// subnet's last address. It fails with resource.ErrUnknown for a subnet that
// does not exist.
func (m *Map) SupposedMember(ctx context.Context, r resource.Reader, subnet arm.ID, kind string) (*Member, error) {
	doc, err := r.Get(ctx, subnet)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(kinds, kind) {
		return nil, fault.Newf(fault.Invalid, "%q is no kind of member", kind)
	}
	var first *Member
	if s := (*m.table.Load())[subnet.Parent().Key()]; s != nil {
		for x := range s.members() {
			if x.SubnetKey == subnet.Key() && x.Kind == kind && (first == nil || x.Address.Less(first.Address)) {
				first = x
			}
		}
	}
	if first != nil {
		return first, nil
	}
	return MachineIn(doc, kind), nil
}

// MachineIn is a machine that nobody has joined in the subnet that doc is, at
// its last address.
func MachineIn(doc resource.Doc, kind string) *Member {
	var none problems
	var at netip.Addr
	if p := subnetPrefixes(&none, "", objectAt(doc.Body, "properties")); len(p) > 0 {
		_, at = usable(p[0])
	}
	return &Member{
		Subnet: doc.ID, SubnetKey: doc.ID.Key(), Address: at, Kind: kind,
		Service: hasRegistryService(objectAt(doc.Body, "properties")), Served: slices.Contains(served, kind),
	}
}

// EndpointOf is the private endpoint that doc is as the data path sees it, but
// for its addresses, and the subnet that it is in.
func EndpointOf(doc resource.Doc) (e *Endpoint, subnet arm.ID) {
	var none problems
	ask := readAsked(&none, doc.Body)
	return &Endpoint{ID: doc.ID, Connection: idAt(doc.Body, "cove", "connection"), Registry: ask.target, State: readState(ask.body).Status},
		idAt(doc.Body, "properties", "subnet", "id")
}
