package network

import (
	"net/netip"
	"slices"

	"cove.example/cove/resource"
)

// Behind is a member whose tunnel does not lead to all the private endpoints
// that its network reaches: it got its configuration before the network was
// joined with theirs, or before an address space was added. Nothing can be sent
// to a machine that would change its routes.
type Behind struct {
	*Member
	Lacks []netip.Prefix // address spaces with private endpoints in them
}

// Behind are the members of a network (arm.ID.Key) that are, by address.
func (m *Map) Behind(network string) (out []Behind) {
	s := (*m.table.Load())[network]
	if s == nil {
		return nil
	}
	var used []netip.Prefix
	for _, p := range s.wanted.Prefixes {
		for at := range s.endpoints {
			if p.Contains(at) {
				used = append(used, p)
				break
			}
		}
	}
	for _, x := range s.members {
		if x.Routes == nil {
			continue // written by a version that did not keep them
		}
		lacks := slices.DeleteFunc(slices.Clone(used), func(p netip.Prefix) bool {
			return slices.ContainsFunc(x.Routes, func(r netip.Prefix) bool { return r.Bits() <= p.Bits() && r.Contains(p.Addr()) })
		})
		if len(lacks) > 0 {
			out = append(out, Behind{x, lacks})
		}
	}
	slices.SortFunc(out, func(a, b Behind) int { return a.Address.Compare(b.Address) })
	return out
}

// routesOf are the address spaces that a member was last told of.
func routesOf(member resource.Object) (out []netip.Prefix) {
	for _, v := range listAt(member, "cove", "routes") {
		text, _ := v.(string)
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}
