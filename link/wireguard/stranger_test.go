package wireguard

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// wire is a bare UDP socket: what a stranger sees of the server.
type wire struct {
	t *testing.T
	c *net.UDPConn
}

func newWire(t *testing.T) wire {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return wire{t, c}
}

// read returns the next datagram, or nil if none comes in d.
func (w wire) read(d time.Duration) []byte {
	w.t.Helper()
	if err := w.c.SetReadDeadline(time.Now().Add(d)); err != nil {
		w.t.Fatal(err)
	}
	b := make([]byte, maxDatagram)
	n, err := w.c.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return b[:n]
}

func (w wire) send(sw *Switch, d []byte) {
	w.t.Helper()
	if _, err := w.c.WriteToUDPAddrPort(d, sw.Addr()); err != nil {
		w.t.Fatal(err)
	}
}

// initiation returns the first datagram that a member with c sends.
func (w wire) initiation(c MemberConfig) []byte {
	w.t.Helper()
	c.Endpoint = w.c.LocalAddr().String()
	tun, err := Dial(context.Background(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	defer tun.Close()
	b := w.read(patience)
	if len(b) != device.MessageInitiationSize || b[0] != device.MessageInitiationType {
		w.t.Fatalf("the client sent %x", b)
	}
	return b
}

// Whoever does not hold a member's key learns nothing, not even that something
// listens: no answer to rubbish, to replays of shape, to a right mac1 from a key
// that nobody admitted, or to a packet for an index that does not exist. The
// member's own initiation, last, shows that the server was listening all along.
func TestStrangersGetNoAnswer(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop)
	w := newWire(t)

	member := w.initiation(v.config(laptop))
	stranger := v.config(laptop)
	stranger.PrivateKey = NewPrivateKey()
	unknownKey := w.initiation(stranger)
	elsewhere := v.config(laptop)
	elsewhere.ServerKey = NewPrivateKey().Public()
	otherServer := w.initiation(elsewhere)

	altered := bytes.Clone(member)
	altered[offsetMac1] ^= 1
	transport := make([]byte, 80)
	binary.LittleEndian.PutUint32(transport, device.MessageTransportType)
	for name, d := range map[string][]byte{
		"an unknown key":               unknownKey,
		"another server's key":         otherServer,
		"an altered mac1":              altered,
		"a short initiation":           member[:147],
		"a long initiation":            append(bytes.Clone(member), 0),
		"a response to nothing":        append([]byte{2, 0, 0, 0}, make([]byte, 88)...),
		"a cookie for nobody":          append([]byte{3, 0, 0, 0}, make([]byte, 60)...),
		"a packet for no index":        transport,
		"an unknown type":              append([]byte{9, 0, 0, 0}, make([]byte, 60)...),
		"one byte":                     {1},
		"a type with reserved bits":    append([]byte{1, 1, 0, 0}, member[4:]...),
		"nothing":                      {},
		"the largest datagram":         make([]byte, 65507),
		"an initiation's first half":   member[:74],
		"a transport packet too small": {4, 0, 0, 0, 1, 2, 3, 4},
	} {
		w.send(l.sw, d)
		if b := w.read(30 * time.Millisecond); b != nil {
			t.Errorf("%s was answered with %x", name, b)
		}
	}
	w.send(l.sw, member)
	if b := w.read(patience); len(b) != device.MessageResponseSize || b[0] != device.MessageResponseType {
		t.Fatalf("the member was answered with %x", b)
	}
	if b := w.read(100 * time.Millisecond); b != nil {
		t.Errorf("a late answer to a stranger: %x", b)
	}
}
