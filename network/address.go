package network

import (
	"context"
	"encoding/hex"
	"errors"
	"net/netip"
	"slices"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// Addresses that are taken are documents of their own, outside every
// subscription, so that nobody lists, changes or cascades over them: giving
// one costs the same in a subnet of ten and of ten thousand, and two
// transactions that want the same address write the same row.
//
//	/providers/Cove.Network/subnets/{subnet UID}                    the last one given
//	/providers/Cove.Network/subnets/{subnet UID}/addresses/{hex}    one that is taken
const typeAddress = "Cove.Network/subnets/addresses"

func poolID(subnetUID string) arm.ID {
	return arm.MustID("/providers/Cove.Network/subnets/" + subnetUID)
}

// addressID spells the address in hexadecimal, so that the order of the ids
// is the order of the addresses.
func addressID(subnetUID string, a netip.Addr) arm.ID {
	return poolID(subnetUID).Child("addresses", hex.EncodeToString(a.AsSlice()))
}

// usable is what of a subnet's prefix may be given: Azure keeps the network's
// own address, the three after it (gateway and name service) and the last.
func usable(p netip.Prefix) (first, last netip.Addr) {
	first = p.Addr()
	for range 4 {
		first = first.Next()
	}
	return first, lastOf(p).Prev()
}

// lastOf is the highest address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if host := p.Bits() - 8*i; host <= 0 {
			b[i] = 0xff
		} else if host < 8 {
			b[i] |= 0xff >> host
		}
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func reserved(p netip.Prefix, a netip.Addr) bool {
	first, last := usable(p)
	return p.Contains(a) && (a.Less(first) || last.Less(a))
}

// subnet is a subnet as addresses are taken from it.
type subnet struct {
	id       arm.ID
	uid      string
	prefixes []netip.Prefix
}

// loadSubnet reads the subnet that a body names.
func loadSubnet(ctx context.Context, r resource.Reader, id arm.ID) (subnet, error) {
	doc, err := r.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) {
		return subnet{}, ErrReference.Detail("The subnet '%s' was not found.", id)
	}
	if err != nil {
		return subnet{}, err
	}
	var none problems
	return subnet{doc.ID, doc.UID, subnetPrefixes(&none, "", objectAt(doc.Body, "properties"))}, nil
}

// take gives an address of the subnet to holder: the one that is wanted, or
// the next free one if want is the zero Addr. The next is looked for after the
// last one given, and from the beginning only once the end is reached: an
// address that was given back is not soon another's, while machines that knew
// its old holder still have connections to it.
func (s subnet) take(ctx context.Context, tx resource.Tx, want netip.Addr, holder arm.ID) (netip.Addr, error) {
	if want.IsValid() {
		if err := s.check(ctx, tx, want); err != nil {
			return netip.Addr{}, err
		}
		return want, s.hold(ctx, tx, want, holder)
	}
	pool := resource.Doc{ID: poolID(s.uid), Body: resource.Object{}}
	if d, err := tx.Get(ctx, pool.ID); err == nil {
		pool = d
	} else if !errors.Is(err, resource.ErrUnknown) {
		return netip.Addr{}, err
	}
	last, _ := netip.ParseAddr(textAt(pool.Body, "last"))
	got, err := s.next(ctx, tx, last)
	if err != nil {
		return netip.Addr{}, err
	}
	pool.Body["last"] = got.String()
	if err := tx.Put(ctx, &pool); err != nil {
		return netip.Addr{}, err
	}
	return got, s.hold(ctx, tx, got, holder)
}

func (s subnet) check(ctx context.Context, r resource.Reader, want netip.Addr) error {
	within := false
	for _, p := range s.prefixes {
		if reserved(p, want) {
			return ErrAddressReserved.Detail("Private static IP address %s falls within reserved IP range of subnet prefix %s.", want, p)
		}
		within = within || p.Contains(want)
	}
	if !within {
		return ErrAddressOutside.Detail("Private static IP address %s does not belong to the range of subnet '%s'.", want, s.id.Name())
	}
	switch _, err := r.Get(ctx, addressID(s.uid, want)); {
	case err == nil:
		return ErrAddressTaken.Detail("The private IP address %s is already allocated in subnet '%s'.", want, s.id.Name())
	case !errors.Is(err, resource.ErrUnknown):
		return err
	}
	return nil
}

func (s subnet) hold(ctx context.Context, tx resource.Tx, a netip.Addr, holder arm.ID) error {
	return tx.Put(ctx, &resource.Doc{ID: addressID(s.uid, a), Body: resource.Object{
		"address": a.String(), "holder": holder.String(),
	}})
}

// next is the lowest free address after last, or else the lowest of all.
func (s subnet) next(ctx context.Context, r resource.Reader, last netip.Addr) (netip.Addr, error) {
	type span struct{ from, to netip.Addr }
	var spans []span
	for _, p := range s.prefixes {
		from, to := usable(p)
		spans = append(spans, span{from, to})
	}
	at := slices.IndexFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(last) && !reserved(p, last) })
	if at >= 0 {
		here := spans[at]
		spans = slices.Concat(
			[]span{{last.Next(), here.to}}, spans[at+1:],
			spans[:at], []span{{here.from, last}},
		)
	}
	for _, sp := range spans {
		a, err := s.free(ctx, r, sp.from, sp.to)
		if err != nil || a.IsValid() {
			return a, err
		}
	}
	return netip.Addr{}, ErrSubnetFull.Detail("Subnet %s does not have enough capacity for 1 IP addresses.", s.id.Name())
}

// free is the lowest free address from first to last, or the zero Addr.
func (s subnet) free(ctx context.Context, r resource.Reader, first, last netip.Addr) (netip.Addr, error) {
	const page = 256
	for a := first; ; {
		taken, err := r.List(ctx, resource.Query{Type: typeAddress, Under: poolID(s.uid), After: addressID(s.uid, a.Prev()).Key(), Limit: page})
		if err != nil {
			return netip.Addr{}, err
		}
		for _, d := range taken {
			if !d.ID.Equal(addressID(s.uid, a)) {
				break
			}
			a = a.Next()
		}
		switch {
		case !a.IsValid() || last.Less(a):
			return netip.Addr{}, nil
		case len(taken) < page || !taken[page-1].ID.Equal(addressID(s.uid, a.Prev())):
			return a, nil
		}
	}
}

// give returns an address to its subnet.
func (s subnet) give(ctx context.Context, tx resource.Tx, a netip.Addr) error {
	return tx.Delete(ctx, addressID(s.uid, a))
}

// holders are the ids of the ip configurations that have an address of the
// subnet, up to limit (0 is all).
func holders(ctx context.Context, r resource.Reader, subnetUID string, limit int) ([]arm.ID, error) {
	docs, err := r.List(ctx, resource.Query{Type: typeAddress, Under: poolID(subnetUID), Limit: limit})
	if err != nil {
		return nil, err
	}
	ids := make([]arm.ID, 0, len(docs))
	for _, d := range docs {
		ids = append(ids, idAt(d.Body, "holder"))
	}
	return ids, nil
}
