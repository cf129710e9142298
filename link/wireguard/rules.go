package wireguard

import (
	"encoding/binary"
	"net/netip"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"cove.example/cove/network"
)

// rules say what becomes of a packet that a member sent. They are never
// modified: a change makes new ones.
type rules struct {
	mtu      int
	ours     network.Table[netip.Addr, bool]     // addresses that we answer at; false is a private endpoint that is not approved
	members  network.Table[netip.Addr, [32]byte] // with their keys
	anybody  bool                                // packets for us are any sender's: these are a member's own, whose network has judged
	prefixes []netip.Prefix                      // the network's address space
	policy
}

// verdict is what becomes of a packet.
type verdict uint8

const (
	toStack verdict = iota
	toMember
	dropIPv6 // there is none inside networks
	dropMalformed
	dropSource  // an address that is not its sender's
	dropOutside // a destination that is neither ours nor in the network's prefixes
	dropNobody  // in the prefixes, and nobody has the address
	dropExpired // its TTL
	dropTooBig  // for the next tunnel
	dropQueueFull
	dropGroup   // a security group's rules
	dropChanged // let in by rules that have changed since
	dropBusy    // the network's queue is full
	// Of datagrams, before they are anybody's packets:
	dropHandshake // an unknown key, or a handshake that is not later than the last
	dropRation    // an initiation beyond what its source, or all, may cost
	dropStranger  // for no network of ours
	verdicts
)

var dropNames = [verdicts]string{
	dropIPv6: "IPv6", dropSource: "another's source address", dropMalformed: "malformed", dropOutside: "outside the network", dropNobody: "no such member",
	dropExpired: "TTL expired", dropTooBig: "too big", dropQueueFull: "queue full", dropGroup: "security group",
	dropChanged: "no longer allowed", dropBusy: "network busy", dropHandshake: "handshake refused", dropRation: "handshake ration",
	dropStranger: "no such network",
}

// judge decides about p. Nothing leads out of the network: a packet is for us,
// for another member of the same network, or for nobody.
func (r *rules) judge(p []byte) verdict {
	if len(p) == 0 || p[0]>>4 != 4 {
		return dropIPv6
	}
	if len(p) < 20 || int(p[0]&15)*4 < 20 || int(p[0]&15)*4 > len(p) || int(binary.BigEndian.Uint16(p[2:])) != len(p) {
		return dropMalformed
	}
	to := netip.AddrFrom4([4]byte(p[16:20]))
	switch {
	case r.ours.Has(to):
		return toStack
	case !r.inside(to):
		return dropOutside
	case !r.members.Has(to):
		return dropNobody
	case p[8] <= 1:
		return dropExpired
	case len(p) > r.mtu:
		return dropTooBig
	}
	return toMember
}

// still reports whether a packet for us that other rules have let in is let in
// by these. head is what joinable says of it.
func (r *rules) still(head []byte) bool {
	if !r.ours.Has(netip.AddrFrom4([4]byte(head[16:20]))) || !r.anybody && !r.members.Has(netip.AddrFrom4([4]byte(head[12:16]))) {
		return false
	}
	// Without its ports a packet cannot be asked about; who sent it sends another.
	return r.filter == nil || len(head) >= 40 && r.Admit(head, toStack)
}

func (r *rules) inside(a netip.Addr) bool {
	for _, p := range r.prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// lowerTTL takes one from the TTL of an IPv4 packet and corrects the header's
// checksum (RFC 1624, equation 3).
func lowerTTL(p []byte) {
	old := binary.BigEndian.Uint16(p[8:])
	p[8]--
	sum := uint32(^binary.BigEndian.Uint16(p[10:])) + uint32(^old) + uint32(binary.BigEndian.Uint16(p[8:]))
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
}

// fragmentationNeeded writes the ICMP answer to p, which judge found well
// formed, and returns its length. It comes from the address that p was for:
// the router between has none of its own.
func fragmentationNeeded(dst, p []byte, mtu int) int {
	quote := p[:min(len(p), int(p[0]&15)*4+8)]
	size := 20 + 8 + len(quote)
	d := dst[:size]
	clear(d[:28])
	d[0], d[8], d[9] = 0x45, 64, 1 // IPv4, TTL, ICMP
	binary.BigEndian.PutUint16(d[2:], uint16(size))
	copy(d[12:16], p[16:20])
	copy(d[16:20], p[12:16])
	binary.BigEndian.PutUint16(d[10:], ^checksum.Checksum(d[:20], 0))
	d[20], d[21] = 3, 4 // destination unreachable, fragmentation needed and DF set
	binary.BigEndian.PutUint16(d[26:], uint16(mtu))
	copy(d[28:], quote)
	binary.BigEndian.PutUint16(d[22:], ^checksum.Checksum(d[20:], 0))
	return size
}
