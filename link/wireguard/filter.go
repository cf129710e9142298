package wireguard

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"sync"
	"time"

	"cove.example/cove/network"
)

// The flows between members that a network remembers, so that answers pass
// where a flow of their own would not.
const (
	// flowLife is Azure's: a flow that nothing has passed on for four minutes
	// is forgotten.
	flowLife = 4 * time.Minute
	// maxFlows are those that one member has begun. One that scans every port
	// of every neighbour fills its own share and nobody else's.
	maxFlows = 4096
)

// filter says which flows members may begin; a *network.Filter is one. Two are
// the same if they are equal.
type filter interface {
	Admit(w network.Flow) bool
	// Watches reports whether it has a say about flows from or to an address.
	Watches(a netip.Addr) bool
}

// flows are what members have begun and the security groups have let through.
type flows struct {
	mu   sync.Mutex
	of   filter // what was asked about those that are here
	seen map[netip.Addr]map[network.Flow]time.Time
}

// admit reports whether a packet of flow w may pass. between says that it goes
// from one member to another, where it may be an answer.
func (f *flows) admit(by filter, w network.Flow, between bool, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.of != by {
		f.reconsider(by)
	}
	if f.touch(w, now) || between && f.touch(network.Flow{Protocol: w.Protocol, From: w.To, To: w.From, FromPort: w.ToPort, ToPort: w.FromPort}, now) {
		return true
	}
	if !by.Admit(w) {
		return false
	}
	own := f.seen[w.From]
	if own == nil {
		own = map[network.Flow]time.Time{}
		f.seen[w.From] = own
	}
	if len(own) >= maxFlows {
		for k, last := range own {
			if now.Sub(last) >= flowLife {
				delete(own, k)
			}
		}
	}
	if len(own) >= maxFlows {
		return !between // its answer would find nothing
	}
	own[w] = now
	return true
}

func (f *flows) touch(w network.Flow, now time.Time) bool {
	last, ok := f.seen[w.From][w]
	if !ok || now.Sub(last) >= flowLife {
		return false
	}
	if now.Sub(last) >= time.Second {
		f.seen[w.From][w] = now
	}
	return true
}

// reconsider forgets what other rules would not have let through: the next
// packet of such a flow is dropped.
func (f *flows) reconsider(by filter) {
	for from, own := range f.seen {
		for w := range own {
			if !by.Admit(w) {
				delete(own, w)
			}
		}
		if len(own) == 0 {
			delete(f.seen, from)
		}
	}
	if f.seen == nil {
		f.seen = map[netip.Addr]map[network.Flow]time.Time{}
	}
	f.of = by
}

// forget ends the flows from and to an address that was a member's: the next
// one's begin anew.
func (f *flows) forget(a netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.seen, a)
	for _, own := range f.seen {
		maps.DeleteFunc(own, func(w network.Flow, _ time.Time) bool { return w.To == a })
	}
}

// Admit reports whether the security groups let a packet pass that judge has
// found well formed and a way for. A fragment does not say which port it is
// for, and one that does may be contradicted by the next: where a group has a
// say, fragments do not pass.
func (r *rules) Admit(p []byte, why verdict) bool {
	if r.filter == nil || why != toStack && why != toMember {
		return true
	}
	from, to := netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	if !r.filter.Watches(from) && !r.filter.Watches(to) {
		return true
	}
	const moreFragments, offset = 0x2000, 0x1fff
	if binary.BigEndian.Uint16(p[6:])&(moreFragments|offset) != 0 {
		return false
	}
	w := network.Flow{Protocol: p[9], From: from, To: to}
	if w.Protocol == protocolTCP || w.Protocol == protocolUDP {
		head := p[int(p[0]&15)*4:]
		if len(head) < 4 {
			return false
		}
		w.FromPort, w.ToPort = binary.BigEndian.Uint16(head), binary.BigEndian.Uint16(head[2:])
	}
	return r.flows.admit(r.filter, w, why == toMember, time.Now())
}

const (
	protocolTCP = 6
	protocolUDP = 17
)

// endRefused resets the connections that other rules end: those to a private endpoint
// that is no longer approved, and those that the security groups would not let
// begin now.
func (n *netStack) endRefused(have, want *rules, closes bool) {
	if !closes && (want.filter == nil || want.filter == have.filter) {
		return
	}
	n.abort(func(local, remote netip.AddrPort) bool {
		open, ours := want.ours.Get(local.Addr())
		if before, _ := have.ours.Get(local.Addr()); before && ours && !open {
			return true
		}
		return want.filter != nil && !want.filter.Admit(network.Flow{
			Protocol: protocolTCP, From: remote.Addr(), To: local.Addr(), FromPort: remote.Port(), ToPort: local.Port(),
		})
	})
}

// policy is what rules have of a network besides who is where.
type policy struct {
	filter filter // nil: no group has a say about anything
	flows  *flows
}

func policyOf(w network.Wanted, flows *flows) policy {
	p := policy{flows: flows}
	if w.Filter != nil {
		p.filter = w.Filter
	}
	return p
}
