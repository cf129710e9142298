package dnsapi

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// DefaultPerSecond is what a prefix may get over UDP in a second. An office
// behind one address asks for a few names a second; whoever forges a victim's
// address to aim answers at it gets no more than this through, some 10 kB, and
// a tenth of it in answers of more than twice what they cost.
const DefaultPerSecond = 200

// verdict is what a limiter says to one packet.
type verdict uint8

const (
	pass verdict = iota
	// lean answers, but with more than twice the question only to who shows a
	// cookie; others get what slip gives. So the whole of a flood is never
	// worth twice what it cost.
	lean
	// slip answers with the question and the truncation bit: no longer than
	// what came, and a real asker comes back over TCP, which proves its
	// address.
	slip
	drop
)

// limiter counts answers by source prefix in a table of fixed size, so that a
// flood of forged sources costs no memory. Two prefixes may share a cell; the
// seed is secret, so that nobody can choose whom to share with.
type limiter struct {
	rate  int64 // per second, and the most that can be saved up
	seed  maphash.Seed
	cells [1 << 14]atomic.Uint64 // seconds in the upper half, answers in that second in the lower
}

func newLimiter(perSecond int) *limiter {
	return &limiter{rate: int64(perSecond), seed: maphash.MakeSeed()}
}

// take counts one answer to from.
func (l *limiter) take(from netip.Addr, now time.Time) verdict {
	from = from.Unmap()
	if from.IsLoopback() {
		return pass // nobody else's address, and a resolver on this machine asks for many
	}
	bits := 24
	if from.Is6() {
		bits = 56
	}
	prefix, err := from.WithZone("").Prefix(bits)
	if err != nil {
		return drop
	}
	key := prefix.Addr().As16()
	cell := &l.cells[maphash.Bytes(l.seed, key[:])%uint64(len(l.cells))]
	second := uint64(now.Unix()) & 0xffffffff
	for {
		old := cell.Load()
		n := old & 0xffffffff
		if old>>32 != second {
			n = 0
		}
		if n < 1<<31 {
			n++
		}
		if !cell.CompareAndSwap(old, second<<32|n) {
			continue
		}
		switch {
		case n <= uint64(l.rate+9)/10:
			return pass
		case n <= uint64(l.rate):
			return lean
		case n%2 == 0: // every other one, so that a real asker gets through
			return slip
		}
		return drop
	}
}

// truncated is the answer that slip means, or nil.
func truncated(wire []byte) []byte {
	end := questionEnd(wire)
	if end < 0 || wire[2]&0xf8 != 0 || binary.BigEndian.Uint16(wire[4:]) != 1 {
		return nil
	}
	out := make([]byte, end)
	copy(out, wire)
	// QR, AA, TC; RD as it came. An empty answer with neither AA nor RA is to
	// glibc a server that knows nothing of the name: it gives up ("Temporary
	// failure in name resolution") before it looks at TC.
	out[2] = 0x80 | 0x04 | 0x02 | wire[2]&0x01
	out[3] = 0
	clear(out[6:headerLen])
	return out
}
