package wireguard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// clock is a time that only the test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func (c *clock) pass(d time.Duration) { c.at = c.at.Add(d) }

// crossing is a router with networks that have no devices.
type crossing struct {
	*router
	clock *clock
	all   []*port
	keys  []PublicKey
}

func newCrossing(networks int) *crossing {
	c := &clock{time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)}
	x := &crossing{router: newRouter(c.now, new(drops)), clock: c}
	sw := &Switch{kick: make(chan struct{}, 1)}
	for range networks {
		key := NewPrivateKey().Public()
		p := newPort(sw, key, new(drops), newWindow())
		x.add(p)
		x.all, x.keys = append(x.all, p), append(x.keys, key)
	}
	return x
}

var (
	cafe   = netip.MustParseAddrPort("198.51.100.7:40000")
	office = netip.MustParseAddrPort("203.0.113.9:51820")
)

// initiationFor is a datagram of the right shape, with the right mac1.
func initiationFor(k PublicKey) []byte {
	d := make([]byte, device.MessageInitiationSize)
	d[0] = device.MessageInitiationType
	m := newMac1(k)
	m.hash.Write(d[:offsetMac1])
	copy(d[offsetMac1:], m.hash.Sum(nil))
	return d
}

func handshake(kind byte, index uint32) []byte {
	size := device.MessageInitiationSize
	if kind == device.MessageResponseType {
		size = device.MessageResponseSize
	}
	d := make([]byte, size)
	d[0] = kind
	binary.LittleEndian.PutUint32(d[4:], index)
	return d
}

func transport(index uint32) []byte {
	d := make([]byte, minDatagram)
	d[0] = device.MessageTransportType
	binary.LittleEndian.PutUint32(d[4:], index)
	return d
}

func TestRouteByKeyAndIndex(t *testing.T) {
	x := newCrossing(3)
	for i, key := range x.keys {
		if got := x.route(initiationFor(key), cafe); got != x.all[i] {
			t.Errorf("an initiation for network %d went elsewhere", i)
		}
	}
	if x.route(initiationFor(NewPrivateKey().Public()), cafe) != nil {
		t.Error("an initiation for nobody went somewhere")
	}
	if x.route(transport(77), cafe) != nil {
		t.Error("an index that nobody sent leads somewhere")
	}
	for i, kind := range []byte{device.MessageInitiationType, device.MessageResponseType} {
		index := uint32(77 + i)
		if err := x.sent(x.all[i], handshake(kind, index), cafe); err != nil {
			t.Fatal(err)
		}
		response := handshake(device.MessageResponseType, 0)
		binary.LittleEndian.PutUint32(response[8:], index)
		cookie := make([]byte, device.MessageCookieReplySize)
		cookie[0] = device.MessageCookieReplyType
		binary.LittleEndian.PutUint32(cookie[4:], index)
		for _, d := range [][]byte{transport(index), response, cookie} {
			if x.route(d, office) != x.all[i] {
				t.Errorf("type %d for index %d went elsewhere", d[0], index)
			}
		}
	}
}

// An index lives as long as keys made with it can, from when it was sent; what
// strangers send to it does not prolong it.
func TestIndexExpires(t *testing.T) {
	x := newCrossing(1)
	if err := x.sent(x.all[0], handshake(1, 77), cafe); err != nil {
		t.Fatal(err)
	}
	for range 9 {
		x.clock.pass(time.Minute)
		if x.route(transport(77), cafe) == nil {
			t.Fatalf("gone at %s, while keys may be in use", x.clock.at)
		}
	}
	x.clock.pass(2 * time.Minute)
	if err := x.sent(x.all[0], handshake(1, 78), cafe); err != nil {
		t.Fatal(err)
	}
	if x.route(transport(77), cafe) != nil || len(x.indices) != 1 {
		t.Errorf("%d indices are kept for ever", len(x.indices))
	}
}

// Two networks choose the same random index: the first keeps it, the second's
// handshake is not sent, and the number is free once it has expired.
func TestIndexCollision(t *testing.T) {
	x := newCrossing(2)
	first, other := x.all[0], x.all[1]
	if err := x.sent(first, handshake(2, 77), cafe); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []byte{1, 2} {
		if err := x.sent(other, handshake(kind, 77), office); !errors.Is(err, errIndexTaken) {
			t.Errorf("type %d: %v", kind, err)
		}
	}
	if err := x.sent(first, handshake(1, 77), cafe); err != nil {
		t.Errorf("the owner's own repetition: %v", err)
	}
	if x.route(transport(77), cafe) != first {
		t.Error("the owner lost its index")
	}
	if err := x.sent(other, transport(77), office); err != nil {
		t.Errorf("a packet that only carries another end's index: %v", err)
	}
	x.clock.pass(indexLife + time.Second)
	if err := x.sent(other, handshake(1, 77), office); err != nil || x.route(transport(77), office) != other {
		t.Errorf("the expired index is not free: %v", err)
	}
}

func TestRemovedNetworkLeavesNoRoute(t *testing.T) {
	x := newCrossing(2)
	gone := x.all[0]
	for i := range uint32(100) {
		if err := x.sent(gone, handshake(2, i), cafe); err != nil {
			t.Fatal(err)
		}
	}
	x.remove(gone)
	if err := x.sent(gone, handshake(2, 1000), cafe); err != nil {
		t.Fatal(err)
	}
	if x.route(transport(5), cafe) != nil || x.route(initiationFor(x.keys[0]), cafe) != nil || len(x.indices) != 0 || len(x.known) != 0 {
		t.Errorf("still known: %d indices, %d sources", len(x.indices), len(x.known))
	}
	if x.route(initiationFor(x.keys[1]), cafe) != x.all[1] {
		t.Error("the other network is gone as well")
	}
}

// One source that floods gets its ration; the next second it may try again, and
// nobody else is affected.
func TestFloodFromOneSource(t *testing.T) {
	x := newCrossing(1)
	d := initiationFor(x.keys[0])
	flood := func() (through int) {
		for range 10_000 {
			if x.route(d, cafe) != nil {
				through++
			}
		}
		return through
	}
	if n := flood(); n != sourceBurst {
		t.Errorf("%d got through, want %d", n, sourceBurst)
	}
	if x.route(d, office) == nil {
		t.Error("another source is shut out")
	}
	x.clock.pass(time.Second)
	if n := flood(); n != sourceRate {
		t.Errorf("%d got through in the second after, want %d", n, sourceRate)
	}
}

// A flood from invented addresses costs a bounded number of hashes, and those
// whom a network has answered before still get in.
func TestFloodFromInventedSources(t *testing.T) {
	const networks = 100
	x := newCrossing(networks)
	if err := x.sent(x.all[42], handshake(2, 77), office); err != nil { // it answered the office
		t.Fatal(err)
	}
	rubbish := initiationFor(NewPrivateKey().Public())
	random := rand.New(rand.NewPCG(1, 2))
	for range 4 * hashBurst / networks {
		a := netip.AddrFrom4([4]byte{11, byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
		x.route(rubbish, netip.AddrPortFrom(a, 1000))
	}
	if x.limit.unknown.spent > hashBurst {
		t.Errorf("%.0f hashes, the ration is %d", x.limit.unknown.spent, hashBurst)
	}
	if x.route(initiationFor(x.keys[7]), cafe) != nil {
		t.Error("a stranger got through: the flood did not spend the ration, and this test shows nothing")
	}
	if x.route(initiationFor(x.keys[42]), office) != x.all[42] {
		t.Error("a known source is locked out")
	}
	x.clock.pass(time.Second)
	if x.route(initiationFor(x.keys[7]), cafe) != x.all[7] {
		t.Error("a second later strangers are still locked out")
	}
}

func TestMemoryOfSourcesIsBounded(t *testing.T) {
	x := newCrossing(1)
	for i := range uint32(maxKnown + 10) {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 1)
		if err := x.sent(x.all[0], handshake(2, i), at); err != nil {
			t.Fatal(err)
		}
	}
	if len(x.known) > maxKnown {
		t.Errorf("%d sources are remembered", len(x.known))
	}
}

// Whatever comes in, the router survives it, and a datagram reaches a network
// only with that network's mac1 or an index that it has sent.
func FuzzRoute(f *testing.F) {
	x := newCrossing(3)
	const index = 0x01020304
	if err := x.sent(x.all[1], handshake(2, index), cafe); err != nil {
		f.Fatal(err)
	}
	for _, key := range x.keys {
		f.Add(initiationFor(key))
	}
	f.Add(transport(index))
	f.Add(transport(0))
	f.Add(handshake(2, index))
	f.Add([]byte{4, 0, 0, 0})
	f.Fuzz(func(t *testing.T, d []byte) {
		x.clock.pass(time.Second)
		got := x.route(d, cafe)
		if got == nil {
			return
		}
		if len(d) == device.MessageInitiationSize && d[0] == device.MessageInitiationType {
			if !got.mac.Load().fits(d) {
				t.Errorf("routed without a mac1: %x", d)
			}
			return
		}
		at := 4
		if d[0] == device.MessageResponseType {
			at = 8
		}
		if binary.LittleEndian.Uint32(d[at:]) != index || got != x.all[1] {
			t.Errorf("routed without an index: %x", d)
		}
	})
}

// What an initiation costs: from a source that is known, from a stranger to the
// last network tried, and to nobody.
func BenchmarkInitiation(b *testing.B) {
	for _, networks := range []int{1, 100, 1000} {
		x := newCrossing(networks)
		last := networks - 1
		if err := x.sent(x.all[last], handshake(2, 77), office); err != nil {
			b.Fatal(err)
		}
		for name, c := range map[string]struct {
			d    []byte
			from netip.AddrPort
		}{
			"known source": {initiationFor(x.keys[last]), office},
			"stranger":     {initiationFor(x.keys[last]), cafe},
			"rubbish":      {initiationFor(NewPrivateKey().Public()), cafe},
		} {
			b.Run(fmt.Sprintf("%s/networks=%d", name, networks), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					x.clock.pass(time.Second) // the ration is full: the whole cost
					x.route(c.d, c.from)
				}
			})
		}
		b.Run(fmt.Sprintf("rubbish in a flood/networks=%d", networks), func(b *testing.B) {
			d := initiationFor(NewPrivateKey().Public())
			for i := 0; b.Loop(); i++ {
				x.clock.pass(time.Microsecond) // a million a second
				a := netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})
				x.route(d, netip.AddrPortFrom(a, 1000))
			}
		})
	}
}

func BenchmarkTransport(b *testing.B) {
	x := newCrossing(1000)
	for i := range uint32(10_000) {
		if err := x.sent(x.all[i%1000], handshake(2, i), cafe); err != nil {
			b.Fatal(err)
		}
	}
	d := transport(4711)
	b.ReportAllocs()
	for b.Loop() {
		x.route(d, cafe)
	}
}
