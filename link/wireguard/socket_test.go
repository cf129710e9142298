//go:build linux

package wireguard

import (
	"bytes"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// Whatever lengths a batch has, the datagrams arrive as they were, each on its
// own and in order: read by a plain socket, and by one that coalesces.
func TestSocketKeepsDatagramsApart(t *testing.T) {
	from, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer from.close()
	out := newOutbox(from)
	plain, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	joined, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer joined.close()
	in := joined.receiver()
	defer in.free()

	random := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		bufs := batchOf(random, round)
		out.put(bufs, &endpoint{dst: plain.LocalAddr().(*net.UDPAddr).AddrPort()})
		b := make([]byte, maxDatagram)
		_ = plain.SetReadDeadline(time.Now().Add(patience))
		for i, want := range bufs {
			n, err := plain.Read(b)
			if err != nil || !bytes.Equal(b[:n], want) {
				t.Fatalf("round %d, datagram %d: %d bytes, %v, want %d", round, i, n, err, len(want))
			}
		}

		out.put(bufs, &endpoint{dst: joined.addr()})
		_ = joined.conn.SetReadDeadline(time.Now().Add(patience))
		for got := 0; got < len(bufs); {
			n, err := in.receive()
			if err != nil {
				t.Fatal(err)
			}
			for i := range n {
				a := in.arrival(i)
				if a.from != from.addr() {
					t.Fatalf("from %s", a.from)
				}
				for d := range slices.Chunk(a.data, a.segment) {
					if !bytes.Equal(d, bufs[got]) {
						t.Fatalf("round %d, datagram %d: %d bytes, want %d", round, got, len(d), len(bufs[got]))
					}
					got++
				}
				if i == 0 { // as when it is handed over whole
					in.take(i).free()
				}
			}
		}
	}
}

// batchOf makes a batch in which runs of equal length end in all the ways they
// can: in a shorter one, a longer one, too many, too much.
func batchOf(random *rand.Rand, round int) [][]byte {
	var bufs [][]byte
	for len(bufs) < 1+round*2 {
		size := 1 + random.IntN(1452)
		for range 1 + random.IntN(80) {
			bufs = append(bufs, make([]byte, size))
		}
		bufs = append(bufs, make([]byte, 1+random.IntN(size)))
	}
	bufs = bufs[:1+round*2]
	for i, b := range bufs {
		for j := range b {
			b[j] = byte(random.Uint32())
		}
		b[0] = byte(i)
	}
	return bufs
}

// A server with several addresses answers from the one that was called:
// anything else is not an answer to a firewall on the way.
func TestAnswerComesFromTheAddressThatWasCalled(t *testing.T) {
	for _, at := range []string{"0.0.0.0:0", "[::]:0"} {
		l := newLab(t, at).open()
		v := l.network("contoso", laptop)
		d := newWire(t).initiation(v.config(laptop))
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), l.sw.Addr().Port())
		c, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to)) // connected: hears only whom it called
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(d); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(patience))
		b := make([]byte, maxDatagram)
		if n, err := c.Read(b); err != nil || n != device.MessageResponseSize {
			t.Errorf("%s: %d bytes, %v", at, n, err)
		}
	}
}

func TestListenAtTheAddressThatWasGiven(t *testing.T) {
	l := openLab(t)
	// The kernel gives the port at another address away only if it is free there.
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 5), Port: int(l.sw.Addr().Port())})
	if err != nil {
		t.Fatalf("told to listen at 127.0.0.1, it listens at 127.0.0.5 too: %v", err)
	}
	_ = c.Close()
}
