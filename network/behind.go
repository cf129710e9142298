package network

import (
	"context"
	"net/netip"
	"slices"

	"cove.example/cove/resource"
)

// Behind is a member whose tunnel does not lead to all the private endpoints
// that its network reaches: it got its configuration before the network was
// joined with theirs, or before an address space was added, and has not asked
// since. Nothing can be sent to a machine that would change its routes.
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
		for e := range s.endpoints() {
			if p.Contains(e.Address) {
				used = append(used, p)
				break
			}
		}
	}
	for x := range s.members() {
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

// Tell returns the address spaces that lead into a network for the member that
// asks from an address in it, and keeps in store that it was told: of what it
// never asked, it would be Behind. It fails with resource.ErrUnknown where the
// address is no member's.
func (m *Map) Tell(ctx context.Context, store resource.Store, network string, at netip.Addr) ([]netip.Prefix, error) {
	s := (*m.table.Load())[network]
	x := m.Member(network, at)
	if s == nil || x == nil {
		return nil, resource.ErrUnknown
	}
	spaces := s.wanted.Prefixes
	if len(x.Routes) == len(spaces) && !slices.ContainsFunc(spaces, func(p netip.Prefix) bool { return !slices.Contains(x.Routes, p) }) {
		return spaces, nil // as a rule: who asks often must not write often
	}
	asks, _ := s.wanted.Peers.Get(at)
	err := store.Update(ctx, func(tx resource.Tx) error {
		doc, err := tx.Get(ctx, x.ID)
		if err != nil {
			return err
		}
		if !HasKey(doc, asks) {
			return resource.ErrUnknown // another machine is the member by now
		}
		setRoutes(doc.Body, spaces)
		return tx.Put(ctx, &doc)
	})
	if err != nil {
		return nil, err
	}
	return spaces, nil
}

// setRoutes keeps the address spaces that a member is told of.
func setRoutes(member resource.Object, spaces []netip.Prefix) {
	routes := make([]any, len(spaces))
	for i, p := range spaces {
		routes[i] = p.String()
	}
	set(member, routes, "cove", "routes")
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
