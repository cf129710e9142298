package wireguard

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"cove.example/cove/network"
)

// wantPong reads the next packet from inside the network: the answer to an
// echo with a payload of size bytes. An answer to anything sent before it would
// come first.
func (h *hostile) wantPong(size int) {
	h.t.Helper()
	if p := h.packet(patience); !isPong(p, h.address) || len(p) != 28+size {
		h.t.Errorf("got a packet of %d bytes, want the answer to the echo of %d: %x", len(p), size, p[:min(len(p), 28)])
	}
}

// ping sends an echo through the session and reads its answer.
func (h *hostile) ping(size int) {
	h.t.Helper()
	h.write(h.transport(echo(h.address, registry, size)))
	h.wantPong(size)
}

// A handshake that was recorded is not answered again, nor is one whose time
// stamp is not later than the last (a member's clock that has jumped back): no
// session is made, and the one that is there goes on where it was. Once the
// clock is past where it had been, the member is answered again.
func TestRepeatedAndOldHandshakes(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	h := l.network("contoso", laptop).hostile(laptop)
	h.join()
	recorded := bytes.Clone(h.first)
	h.ping(1)

	thief := &hostile{t: t, sw: h.sw}
	thief.move("127.0.0.2")
	thief.write(recorded)
	h.ping(2)

	now, ours := h.clock, h.ours
	h.clock = now.Add(-time.Hour)
	old := h.initiation()
	h.ours = ours // the session stays the one from before
	h.write(old)
	h.ping(3)
	if d := thief.read(50 * time.Millisecond); d != nil {
		t.Errorf("the recorded handshake was answered: %x", d)
	}
	if d := h.read(50 * time.Millisecond); d != nil {
		t.Errorf("the handshake of an hour ago was answered: %x", d)
	}

	h.clock = now
	h.join()
	h.ping(4)
}

// A packet that is sent again is delivered once; one that was overtaken is
// delivered, one that is older than the window is not. From elsewhere, it does
// not move the member there.
func TestRepeatedPackets(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	h := l.network("contoso", laptop).hostile(laptop).join()
	one := h.transport(echo(laptop, registry, 1))
	h.write(one)
	h.wantPong(1)
	h.write(one)
	thief := &hostile{t: t, sw: h.sw}
	thief.move("127.0.0.2")
	thief.write(one)
	h.ping(2)

	late, later := h.transport(echo(laptop, registry, 3)), h.transport(echo(laptop, registry, 4))
	h.write(later)
	h.wantPong(4)
	h.write(late)
	h.wantPong(3)

	old := h.transport(echo(laptop, registry, 5))
	h.counter += 1 << 14 // twice the window
	h.ping(6)
	h.write(old)
	h.ping(7)
	if d := thief.read(50 * time.Millisecond); d != nil {
		t.Errorf("the member was moved to who repeated its packet: %x", d)
	}
}

// A session is replaced by the next and stays good beside it, so that what is
// on its way arrives; the one before that is forgotten.
func TestSessionsTakeTurns(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	h := l.network("contoso", laptop).hostile(laptop).join()
	first := h.transport(echo(laptop, registry, 1))
	tooLate := h.transport(echo(laptop, registry, 9))
	h.ping(2)
	h.join()
	h.ping(3)
	h.write(first) // of the session before
	h.wantPong(1)
	h.join()
	h.ping(4)
	h.write(tooLate) // of the one before that
	h.ping(5)
}

// A member that comes from elsewhere is answered there from its first packet
// on, without another handshake.
func TestMemberMoves(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop)
	h := v.hostile(laptop).join()
	h.ping(1)
	before := h.c
	h.move("127.0.0.3")
	h.ping(2)
	if at, want := v.status().Peers[0].Endpoint, h.c.LocalAddr().String(); at.String() != want {
		t.Errorf("the server sees the member at %s, it is at %s", at, want)
	}
	_ = before.SetReadDeadline(time.Now().Add(30 * time.Millisecond))
	if n, err := before.Read(make([]byte, 2048)); err == nil {
		t.Errorf("%d bytes went to where it was", n)
	}
}

// nat is a box between a member and the server that gives the member another
// address and port whenever it is told to, as they do after a pause, or when a
// laptop is carried from one network to another.
type nat struct {
	t      testing.TB
	inside *net.UDPConn
	server netip.AddrPort
	member atomic.Pointer[netip.AddrPort]
	out    atomic.Pointer[net.UDPConn]
	done   sync.WaitGroup
}

func newNAT(t testing.TB, server netip.AddrPort) *nat {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	enlarge(c, socketBuffer)
	n := &nat{t: t, inside: c, server: server}
	n.rebind("127.0.0.1")
	n.done.Go(func() {
		b := make([]byte, maxDatagram)
		for {
			k, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			n.member.Store(&from)
			_, _ = n.out.Load().WriteToUDPAddrPort(b[:k], server)
		}
	})
	t.Cleanup(func() {
		_ = c.Close()
		_ = n.out.Load().Close()
		n.done.Wait()
	})
	return n
}

// rebind forgets the member's address outside and takes another.
func (n *nat) rebind(address string) {
	n.t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0)))
	if err != nil {
		n.t.Fatal(err)
	}
	enlarge(c, socketBuffer)
	if old := n.out.Swap(c); old != nil {
		_ = old.Close()
	}
	n.done.Go(func() {
		b := make([]byte, maxDatagram)
		for {
			k, err := c.Read(b)
			if err != nil {
				return
			}
			if to := n.member.Load(); to != nil {
				_, _ = n.inside.WriteToUDPAddrPort(b[:k], *to)
			}
		}
	})
}

// A transfer goes on, unharmed, while the box in front of the member gives it
// another address and port again and again. The server follows with the first
// packet that the member sends, here another request's.
func TestTransferSurvivesRoaming(t *testing.T) {
	t.Parallel()
	const size, moves = 4 << 20, 4
	l := openLab(t)
	v := l.network("contoso", laptop)
	box := newNAT(t, l.sw.Addr())
	c := v.config(laptop)
	c.Endpoint = box.inside.LocalAddr().String()
	tun := dial(t, c)
	res, err := l.client(tun).Get(fmt.Sprintf("https://10.0.0.7/blob?n=%d", size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got bytes.Buffer
	for i := range moves {
		if _, err := io.CopyN(&got, res.Body, size/moves); err != nil {
			t.Fatalf("after %d moves: %v", i, err)
		}
		if i < moves-1 {
			box.rebind(fmt.Sprintf("127.0.0.%d", 2+i))
			l.get(tun, "https://10.0.0.7/whoami")
		}
	}
	if sha(got.Bytes()) != blobSum(size) {
		t.Error("what arrived is not what was sent")
	}
	s := v.status().Peers[0]
	if at := box.out.Load().LocalAddr().String(); s.Endpoint.String() != at {
		t.Errorf("the server sees the member at %s, it is at %s", s.Endpoint, at)
	}
}

// A member that is removed is cut with the change: its session opens nothing,
// a handshake of its is not answered, and the members that stay notice nothing.
func TestRemovalCutsTheSession(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	gone, stays := v.hostile(laptop).join(), v.hostile(builder).join()
	gone.ping(1)
	v.Peers = v.Peers.Without(laptop)
	v.apply()
	gone.write(gone.transport(echo(laptop, registry, 2)))
	gone.write(gone.initiation())
	stays.ping(3)
	if d := gone.read(100 * time.Millisecond); d != nil {
		t.Errorf("the removed member was answered: %x", d)
	}
}

// Of what a member sends, nothing passes that carries another's address, or is
// not what its headers say; what it sends in order afterwards does. Each is
// counted, under its cause.
func TestBadPacketsInsideATunnel(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	h, other := v.hostile(laptop).join(), v.hostile(builder).join()
	other.ping(1)
	h.ping(1)

	good := func() []byte { return echo(laptop, registry, 64) }
	edit := func(f func(p []byte)) []byte { p := good(); f(p); return headerSum(p) }
	six := make([]byte, 48)
	six[0], six[5], six[6] = 0x60, 8, 58
	copy(six[8:], netip.MustParseAddr("fe80::1").AsSlice())
	copy(six[24:], netip.MustParseAddr("ff02::2").AsSlice())
	before := v.status().Dropped
	for _, c := range []struct {
		name, cause string
		packet      []byte
	}{
		{"another member's address", "another's source address", echo(builder, registry, 8)},
		{"nobody's address", "another's source address", echo(netip.MustParseAddr("10.0.0.99"), registry, 8)},
		{"the endpoint's own address", "another's source address", echo(registry, registry, 8)},
		{"IPv6", "IPv6", six},
		{"another version", "malformed", edit(func(p []byte) { p[0] = 0x55 })},
		{"a length beyond the packet", "", edit(func(p []byte) { binary.BigEndian.PutUint16(p[2:], 2000) })},
		{"a length below the header", "", edit(func(p []byte) { binary.BigEndian.PutUint16(p[2:], 19) })},
		{"options beyond the packet", "malformed", edit(func(p []byte) { p[0] = 0x4f; binary.BigEndian.PutUint16(p[2:], 40) })},
		{"a header shorter than one", "malformed", edit(func(p []byte) { p[0] = 0x42 })},
		{"one byte", "", []byte{0x45}},
		{"outside", "outside the network", echo(laptop, netip.MustParseAddr("192.0.2.1"), 8)},
		{"to nobody", "no such member", echo(laptop, netip.MustParseAddr("10.0.0.77"), 8)},
	} {
		h.write(h.transport(c.packet))
		h.ping(16)
		after := v.status().Dropped
		if c.cause != "" && after[c.cause] != before[c.cause]+1 {
			t.Errorf("%s: not counted as %q: %v", c.name, c.cause, after)
		}
		before = after
	}

	cut := h.transport(good())
	for _, d := range [][]byte{cut[:len(cut)-1], cut[:40], append(bytes.Clone(cut), 0), append(bytes.Clone(cut), make([]byte, 60_000)...)} {
		h.write(d)
		h.ping(17)
	}
	forged := h.transport(good())
	forged[len(forged)-1] ^= 1
	h.write(forged)
	h.ping(18)
	if p := other.packet(30 * time.Millisecond); p != nil {
		t.Errorf("the other member was sent %x", p)
	}
}

// fragments cuts an IPv4 packet into pieces with size bytes of payload each.
func fragments(p []byte, size int) (all [][]byte) {
	for at := 20; at < len(p); at += size {
		part := p[at:min(at+size, len(p))]
		f := append(bytes.Clone(p[:20]), part...)
		binary.BigEndian.PutUint16(f[2:], uint16(len(f)))
		offset := uint16((at - 20) / 8)
		if at+len(part) < len(p) {
			offset |= 0x2000
		}
		binary.BigEndian.PutUint16(f[6:], offset)
		all = append(all, headerSum(f))
	}
	return all
}

// Packets that are larger than the tunnel's come in fragments, in any order, and
// are answered in fragments that fit. Fragments without the rest hold up nothing.
func TestFragments(t *testing.T) {
	t.Parallel()
	const size = 4000
	l := openLab(t)
	h := l.network("contoso", laptop).hostile(laptop).join()
	for i := range 200 { // first pieces of packets that never come
		p := echo(laptop, registry, size)
		binary.BigEndian.PutUint16(p[4:], uint16(1000+i))
		h.write(h.transport(fragments(headerSum(p), 1280)[0]))
	}
	p := echo(laptop, registry, size)
	p[5] = 7
	pieces := fragments(headerSum(p), 1280)
	slices.Reverse(pieces)
	for _, f := range pieces {
		h.write(h.transport(f))
	}
	got := make([]byte, 20+8+size)
	for have := 20; have < len(got); {
		f := h.packet(patience)
		if len(f) < 20 || len(f) > DefaultMTU {
			t.Fatalf("a packet of %d bytes", len(f))
		}
		at := 20 + int(binary.BigEndian.Uint16(f[6:])&0x1fff)*8
		copy(got[:20], f)
		have += copy(got[at:], f[20:])
	}
	if !isPong(got, laptop) || !bytes.Equal(got[28:], p[28:]) {
		t.Error("the answer is not what was asked")
	}
	h.ping(1)
}

// While a network is flooded with handshakes, an initiation is answered with a
// cookie: who cannot be reached at the address that it writes costs no key
// exchange. Who shows the cookie from there gets its session; from elsewhere it
// is worth nothing.
func TestCookiesUnderLoad(t *testing.T) {
	t.Parallel()
	l := openLab(t)
	v := l.network("contoso", laptop)
	stranger := v.hostile(laptop)
	stranger.key = NewPrivateKey()
	h := v.hostile(laptop)
	h.move("127.0.1.1")
	rubbish := stranger.initiation()
	for i := 0; h.cookie == nil; i++ {
		if i == 50 {
			t.Fatal("no flood was enough for a cookie")
		}
		stranger.move(fmt.Sprintf("127.0.2.%d", i+1))
		for range sourceBurst {
			stranger.write(rubbish)
		}
		h.write(h.initiation())
		for d := h.read(300 * time.Millisecond); d != nil; d = h.read(300 * time.Millisecond) {
			if d[0] == device.MessageCookieReplyType {
				h.eat(d)
				break
			}
		}
	}
	elsewhere := *h
	elsewhere.move("127.0.1.2")
	elsewhere.write(elsewhere.initiation())
	if d := elsewhere.read(patience); len(d) == 0 || d[0] != device.MessageCookieReplyType && d[0] != device.MessageResponseType {
		t.Errorf("the cookie from elsewhere: %x", d)
	} else if d[0] == device.MessageResponseType {
		t.Log("the load was over when the cookie was shown from elsewhere")
	}
	h.clock = elsewhere.clock
	h.join()
	h.ping(1)
	if l.sw.Totals().Cookies == 0 {
		t.Error("the cookies are not counted")
	}
}

// Floods of one network stop at its own queue: a transfer in another goes on,
// and nothing of the other's is dropped.
func TestFloodStaysInItsNetwork(t *testing.T) {
	t.Parallel()
	const size = 4 << 20
	l := openLab(t)
	flooded, quiet := l.network("contoso", laptop), l.network("fabrikam", laptop)
	h := flooded.hostile(laptop).join()
	tun := quiet.join(laptop)
	res, err := l.client(tun).Get(fmt.Sprintf("https://10.0.0.7/blob?n=%d", size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	stop := make(chan struct{})
	var flood sync.WaitGroup
	var sent uint64
	flood.Go(func() {
		rubbish := make([]byte, 1400) // for the session, and not of it: each costs a decryption
		rubbish[0] = device.MessageTransportType
		binary.LittleEndian.PutUint32(rubbish[4:], h.theirs)
		for {
			select {
			case <-stop:
				return
			default:
				h.write(rubbish)
				sent++
			}
		}
	})
	got := sum(t, res.Body)
	close(stop)
	flood.Wait()
	if got != blobSum(size) {
		t.Error("the transfer in the other network did not arrive whole")
	}
	if sent == 0 {
		t.Error("no flood, so this test shows nothing")
	}
	for cause, n := range quiet.status().Dropped {
		if n > 0 {
			t.Errorf("the flood of one network dropped %d packets of the other: %s", n, cause)
		}
	}
	for _, b := range []int{1, 2} { // the flooded one is there again
		h.ping(b)
	}
}

// An open transfer notices nothing of endpoints and members that come, close,
// open and go around it, however often.
func TestChangesAroundATransfer(t *testing.T) {
	t.Parallel()
	const size = 16 << 20
	l := openLab(t)
	v := l.network("contoso", laptop)
	tun := v.join(laptop)
	res, err := l.client(tun).Get(fmt.Sprintf("https://10.0.0.7/blob?n=%d", size))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	handshake := tun.Status().Handshake
	var changes int
	read := make(chan string, 1)
	go func() { read <- sum(t, res.Body) }()
	base := v.Wanted
	for done := ""; done == ""; {
		for _, change := range []func(w *network.Wanted){
			func(w *network.Wanted) { w.Addresses = w.Addresses.With(second, false) }, // pending
			func(w *network.Wanted) { w.Addresses = w.Addresses.With(second, true) },  // approved
			func(w *network.Wanted) { w.Addresses = w.Addresses.With(second, false) }, // rejected
			func(w *network.Wanted) {}, // removed
			func(w *network.Wanted) { w.Peers = w.Peers.With(builder, NewPrivateKey().Public()) },
		} {
			w := base
			change(&w)
			if err := l.sw.Apply(w); err != nil {
				t.Fatal(err)
			}
			changes++
		}
		select {
		case done = <-read:
			if done != blobSum(size) {
				t.Errorf("sha256 %s after %d changes", done, changes)
			}
		default:
		}
	}
	if after := tun.Status().Handshake; after != handshake {
		t.Error("a change took another handshake")
	}
	t.Logf("%d changes around %d MiB", changes, size>>20)
}
