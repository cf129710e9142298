package wireguard

import (
	"hash/maphash"
	"net/netip"
	"time"
)

const (
	// A source may start this many handshakes a second. A building behind one
	// address whose every machine comes back at once fits in a few seconds of
	// WireGuard's own retries.
	sourceRate, sourceBurst = 100, 400
	// Hashes for all sources together. One takes 0.5 to 0.9 microseconds, so a
	// flood costs a fifth of a core at most, however large it is. Sources that a network
	// has answered before have a ration of their own, out of a flood's reach.
	hashRate, hashBurst = 200_000, 200_000
)

// limiter rations what initiations may cost. Its size is fixed: sources share
// buckets by a hash that strangers cannot predict, so inventing addresses fills
// no memory.
type limiter struct {
	seed    maphash.Seed
	unknown bucket
	known   bucket
	sources [4096]bucket
}

func newLimiter() *limiter {
	return &limiter{seed: maphash.MakeSeed()}
}

// bucket is a token bucket; the zero one is full.
type bucket struct {
	spent float64
	last  time.Time
}

func (b *bucket) take(n, rate, burst float64, now time.Time) bool {
	if !b.last.IsZero() {
		b.spent = max(0, b.spent-max(0, now.Sub(b.last).Seconds())*rate)
	}
	b.last = now
	// More than a whole burst is allowed to an untouched bucket: with enough
	// networks one datagram costs that much, and must be affordable.
	if b.spent > 0 && b.spent+n > burst {
		return false
	}
	b.spent += n
	return true
}

func (l *limiter) source(a netip.Addr, now time.Time) bool {
	if a.Is6() { // a stranger has a /64 to choose from
		p, _ := a.Prefix(64) // valid for every IPv6 address
		a = p.Addr()
	}
	return l.sources[maphash.Comparable(l.seed, a)%uint64(len(l.sources))].take(1, sourceRate, sourceBurst, now)
}

func (l *limiter) strangers(n int, now time.Time) bool {
	return l.unknown.take(float64(n), hashRate, hashBurst, now)
}

func (l *limiter) again(now time.Time) bool {
	return l.known.take(1, hashRate, hashBurst, now)
}
