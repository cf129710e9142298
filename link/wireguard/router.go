package wireguard

import (
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"hash"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.zx2c4.com/wireguard/device"
)

// indexLife is how long a receiver index leads to the network that sent it.
// A handshake is retried, with a new index each time, for REKEY_ATTEMPT_TIME
// (90 s) and its keys are refused after REJECT_AFTER_TIME (180 s), so three
// times the latter is more than any index can still be good for. It counts
// from when we sent the index, not from its last use: use is what strangers
// send, and they must not keep an entry alive.
const indexLife = 3*device.RejectAfterTime + 10*time.Second

// errIndexTaken makes wireguard-go try the handshake again.
var errIndexTaken = errors.New("the handshake's random index is in use by another network")

// router decides which network a datagram from a stranger belongs to.
//
//   - A handshake initiation names nobody. Its mac1 is keyed with the public
//     key of the network it is for, so each network's key is tried.
//   - Everything else carries an index that one of our networks has chosen and
//     sent in a handshake message. We see those go out.
//
// Indices are random 32-bit numbers, chosen by each network without knowledge
// of the others. The first to send one owns it; another network's handshake
// message with the same number is not sent, and wireguard-go repeats that
// handshake 5 s later with a new number. The owner's tunnel never notices, and
// the chance is the number of live indices in 2^32.
type router struct {
	now   func() time.Time
	limit *limiter
	drops *drops // of what is for no network

	mu      sync.RWMutex
	ports   []*port // never modified, replaced
	indices map[uint32]slot
	known   map[netip.Addr]slot // the network that last answered an address
	swept   time.Time
}

type slot struct {
	port  *port
	until time.Time
	from  *atomic.Pointer[netip.AddrPort] // who used the index last
}

// maxKnown bounds the memory of who talks to which network: it only saves
// hashing, so it may be forgotten.
const maxKnown = 1 << 16

func newRouter(now func() time.Time, d *drops) *router {
	return &router{now: now, limit: newLimiter(), drops: d, indices: map[uint32]slot{}, known: map[netip.Addr]slot{}, swept: now()}
}

// datagram types and lengths: WireGuard protocol, sections 5.4.2 to 5.4.7.
const (
	minDatagram = 32
	offsetMac1  = device.MessageInitiationSize - 2*blake2s.Size128
)

// route returns the network that d is for, or nil. Only the goroutine that
// reads the socket may call it: the networks' hash states are its own.
func (r *router) route(d []byte, from netip.AddrPort) *port {
	if len(d) < minDatagram {
		return r.nobody(dropStranger)
	}
	var p *port
	switch binary.LittleEndian.Uint32(d) {
	case device.MessageInitiationType:
		if len(d) == device.MessageInitiationSize {
			return r.initiation(d, from)
		}
	case device.MessageResponseType:
		if len(d) == device.MessageResponseSize {
			p = r.byIndex(binary.LittleEndian.Uint32(d[8:]), from)
		}
	case device.MessageCookieReplyType:
		if len(d) == device.MessageCookieReplySize {
			p = r.byIndex(binary.LittleEndian.Uint32(d[4:]), from)
		}
	case device.MessageTransportType:
		p = r.transport(d, from)
	}
	if p == nil {
		return r.nobody(dropStranger)
	}
	return p
}

// transport is route for a datagram that is known to be a transport packet; it
// counts nothing.
func (r *router) transport(d []byte, from netip.AddrPort) *port {
	return r.byIndex(binary.LittleEndian.Uint32(d[4:]), from)
}

func (r *router) nobody(why verdict) *port {
	r.drops.add(why)
	return nil
}

func (r *router) byIndex(i uint32, from netip.AddrPort) *port {
	r.mu.RLock()
	s, ok := r.indices[i]
	r.mu.RUnlock()
	if !ok {
		return nil
	}
	// A peer may have moved. WireGuard decides that, by authenticating the
	// packet; here it is only a reason to look.
	if last := s.from.Load(); last == nil || *last != from {
		here := from // so that only this branch allocates
		s.from.Store(&here)
		s.port.moved()
	}
	return s.port
}

// initiation tries mac1 against each network. A stranger's datagram costs a
// hash for each network there is, so how many are tried is rationed: by source,
// and over all sources. The network that answered this address before costs one
// and is tried even when the ration of all is spent, so that a flood from
// invented addresses does not lock out those who were here already.
func (r *router) initiation(d []byte, from netip.AddrPort) *port {
	now := r.now()
	if !r.limit.source(from.Addr(), now) {
		return r.nobody(dropRation)
	}
	r.mu.RLock()
	ports, hint := r.ports, r.known[from.Addr()].port
	r.mu.RUnlock()
	if hint != nil && r.limit.again(now) && hint.mac.Load().fits(d) {
		return hint
	}
	if !r.limit.strangers(len(ports), now) {
		return r.nobody(dropRation)
	}
	for _, p := range ports {
		if p != hint && p.mac.Load().fits(d) {
			return p
		}
	}
	return r.nobody(dropStranger)
}

// sent learns from what a network sends. It returns an error if the datagram
// must not leave.
func (r *router) sent(p *port, d []byte, to netip.AddrPort) error {
	if len(d) < 8 {
		return nil
	}
	kind := binary.LittleEndian.Uint32(d)
	if kind != device.MessageInitiationType && kind != device.MessageResponseType {
		return nil
	}
	now := r.now()
	until := now.Add(indexLife)
	i := binary.LittleEndian.Uint32(d[4:])
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.ports, p) {
		return nil // removed while it was sending: nothing may lead to it any more
	}
	r.sweep(now)
	old, ok := r.indices[i]
	if ok && old.port != p && now.Before(old.until) {
		return errIndexTaken
	}
	r.indices[i] = slot{p, until, new(atomic.Pointer[netip.AddrPort])}
	if kind == device.MessageResponseType {
		if len(r.known) >= maxKnown {
			clear(r.known)
		}
		r.known[to.Addr()] = slot{port: p, until: until}
	}
	return nil
}

// sweep forgets what has expired, at most once a minute. r.mu is held.
func (r *router) sweep(now time.Time) {
	if now.Sub(r.swept) < time.Minute {
		return
	}
	r.swept = now
	for i, s := range r.indices {
		if !now.Before(s.until) {
			delete(r.indices, i)
		}
	}
	for a, s := range r.known {
		if !now.Before(s.until) {
			delete(r.known, a)
		}
	}
}

func (r *router) add(p *port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ports = append(slices.Clone(r.ports), p)
}

// remove forgets p and every index that leads to it.
func (r *router) remove(p *port) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ports = slices.DeleteFunc(slices.Clone(r.ports), func(q *port) bool { return q == p })
	for i, s := range r.indices {
		if s.port == p {
			delete(r.indices, i)
		}
	}
	for a, s := range r.known {
		if s.port == p {
			delete(r.known, a)
		}
	}
}

// mac1 recognises initiations for one public key. Its hash state is used by
// the goroutine that reads the socket and no other.
type mac1 struct {
	hash hash.Hash
	sum  [blake2s.Size128]byte
}

func newMac1(k PublicKey) *mac1 {
	key := blake2s.Sum256(append([]byte(device.WGLabelMAC1), k[:]...))
	h, err := blake2s.New128(key[:])
	if err != nil {
		panic(err) // only for keys longer than 32 bytes
	}
	return &mac1{hash: h}
}

func (m *mac1) fits(d []byte) bool {
	m.hash.Reset()
	m.hash.Write(d[:offsetMac1])
	return subtle.ConstantTimeCompare(m.hash.Sum(m.sum[:0]), d[offsetMac1:offsetMac1+blake2s.Size128]) == 1
}
