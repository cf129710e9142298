package wireguard

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/curve25519"
	"golang.zx2c4.com/wireguard/device"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
)

// hostile is a member that holds its key and keeps no rule: it makes every
// message of the protocol by hand (WireGuard protocol, section 5.4), so that a
// test can repeat, hold back, alter and forge them, from any socket.
type hostile struct {
	t       testing.TB
	sw      *Switch
	key     PrivateKey
	server  PublicKey
	address netip.Addr
	clock   time.Time // what its handshakes say; each is later than the one before

	c      *net.UDPConn
	cookie []byte   // of the last cookie reply
	first  []byte   // the last initiation
	macs   [][]byte // of all initiations, the last one first: a reply may come late

	// of the handshake and the session
	hash, chain [32]byte
	ephemeral   [32]byte
	ours        uint32
	theirs      uint32
	send, open  [32]byte
	counter     uint64
}

// hostile makes one for the member at a, on a socket of its own.
func (v *vnet) hostile(a netip.Addr) *hostile {
	h := &hostile{
		t: v.lab.t, sw: v.lab.sw, key: v.members[a], server: PrivateKey(v.PrivateKey).Public(), address: a,
		clock: time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC),
	}
	h.move("127.0.0.1")
	return h
}

// move takes another socket, at another address.
func (h *hostile) move(address string) {
	h.t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0)))
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = c.Close() })
	h.c = c
}

func (h *hostile) write(d []byte) {
	h.t.Helper()
	if _, err := h.c.WriteToUDPAddrPort(d, h.sw.Addr()); err != nil {
		h.t.Fatal(err)
	}
}

// read returns the next datagram, or nil if none comes in d.
func (h *hostile) read(d time.Duration) []byte {
	h.t.Helper()
	_ = h.c.SetReadDeadline(time.Now().Add(d))
	b := make([]byte, 2048)
	n, err := h.c.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	if err != nil {
		h.t.Fatal(err)
	}
	return b[:n]
}

func mix(hash *[32]byte, data []byte) { *hash = blake2s.Sum256(append(hash[:], data...)) }

func hmac(key []byte, data ...[]byte) (out [32]byte) {
	var inner, outer [64]byte
	copy(inner[:], key)
	copy(outer[:], key)
	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}
	all := inner[:]
	for _, d := range data {
		all = append(all, d...)
	}
	sum := blake2s.Sum256(all)
	return blake2s.Sum256(append(outer[:], sum[:]...))
}

// derive is the protocol's KDF with three outputs.
func derive(key, data []byte) (one, two, three [32]byte) {
	secret := hmac(key, data)
	one = hmac(secret[:], []byte{1})
	two = hmac(secret[:], one[:], []byte{2})
	three = hmac(secret[:], two[:], []byte{3})
	return one, two, three
}

func seal(key [32]byte, counter uint64, plain, with []byte) []byte {
	aead, _ := chacha20poly1305.New(key[:]) // fails only for another length
	var nonce [12]byte
	binary.LittleEndian.PutUint64(nonce[4:], counter)
	return aead.Seal(nil, nonce[:], plain, with)
}

func unseal(key [32]byte, counter uint64, sealed, with []byte) ([]byte, error) {
	aead, _ := chacha20poly1305.New(key[:])
	var nonce [12]byte
	binary.LittleEndian.PutUint64(nonce[4:], counter)
	return aead.Open(nil, nonce[:], sealed, with)
}

func (h *hostile) shared(private [32]byte, public []byte) []byte {
	h.t.Helper()
	s, err := curve25519.X25519(private[:], public)
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

func public(private [32]byte) []byte {
	p, _ := curve25519.X25519(private[:], curve25519.Basepoint)
	return p
}

// initiation makes a handshake initiation.
func (h *hostile) initiation() []byte {
	h.t.Helper()
	h.chain = blake2s.Sum256([]byte(device.NoiseConstruction))
	h.hash = h.chain
	mix(&h.hash, []byte(device.WGIdentifier))
	mix(&h.hash, h.server[:])
	_, _ = rand.Read(h.ephemeral[:]) // never fails
	h.ours = binary.LittleEndian.Uint32(h.ephemeral[:])
	h.clock = h.clock.Add(time.Second)

	d := make([]byte, device.MessageInitiationSize)
	d[0] = device.MessageInitiationType
	binary.LittleEndian.PutUint32(d[4:], h.ours)
	copy(d[8:], public(h.ephemeral))
	mix(&h.hash, d[8:40])
	h.chain, _, _ = derive(h.chain[:], d[8:40])

	var key [32]byte
	h.chain, key, _ = derive(h.chain[:], h.shared(h.ephemeral, h.server[:]))
	mine := h.key.Public()
	copy(d[40:], seal(key, 0, mine[:], h.hash[:]))
	mix(&h.hash, d[40:88])

	h.chain, key, _ = derive(h.chain[:], h.shared([32]byte(h.key), h.server[:]))
	var stamp [12]byte // TAI64N
	binary.BigEndian.PutUint64(stamp[:], uint64(h.clock.Unix())+1<<62+10)
	copy(d[88:], seal(key, 0, stamp[:], h.hash[:]))
	mix(&h.hash, d[88:116])
	h.first = h.mac(d)
	return h.first
}

// mac writes both macs of an initiation; the second only with a cookie.
func (h *hostile) mac(d []byte) []byte {
	one := blake2s.Sum256(append([]byte(device.WGLabelMAC1), h.server[:]...))
	m, _ := blake2s.New128(one[:])
	m.Write(d[:offsetMac1])
	copy(d[offsetMac1:], m.Sum(nil))
	h.macs = append([][]byte{d[offsetMac1 : offsetMac1+16]}, h.macs...)
	if h.cookie != nil {
		m, _ = blake2s.New128(h.cookie)
		m.Write(d[:offsetMac1+16])
		copy(d[offsetMac1+16:], m.Sum(nil))
	}
	return d
}

// eat takes the cookie out of a cookie reply to the last initiation.
func (h *hostile) eat(d []byte) {
	h.t.Helper()
	key := blake2s.Sum256(append([]byte(device.WGLabelCookie), h.server[:]...))
	aead, _ := chacha20poly1305.NewX(key[:])
	for _, mac := range h.macs {
		if cookie, err := aead.Open(nil, d[8:32], d[32:64], mac); err == nil {
			h.cookie = cookie
			return
		}
	}
	h.t.Fatal("a cookie that is not for us")
}

// finish makes the session of a response, and says whether it is one to the
// last initiation.
func (h *hostile) finish(d []byte) bool {
	if len(d) != device.MessageResponseSize || d[0] != device.MessageResponseType || binary.LittleEndian.Uint32(d[8:]) != h.ours {
		return false
	}
	h.theirs = binary.LittleEndian.Uint32(d[4:])
	e := d[12:44]
	mix(&h.hash, e)
	h.chain, _, _ = derive(h.chain[:], e)
	h.chain, _, _ = derive(h.chain[:], h.shared(h.ephemeral, e))
	h.chain, _, _ = derive(h.chain[:], h.shared([32]byte(h.key), e))
	var tau, key [32]byte
	h.chain, tau, key = derive(h.chain[:], make([]byte, 32)) // no preshared key
	mix(&h.hash, tau[:])
	if _, err := unseal(key, 0, d[44:60], h.hash[:]); err != nil {
		return false
	}
	h.send, h.open, _ = derive(h.chain[:], nil)
	h.counter = 0
	return true
}

// join shakes hands, until the server answers, and confirms the session.
func (h *hostile) join() *hostile {
	h.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); {
		h.write(h.initiation())
		for d := h.read(time.Second); d != nil; d = h.read(time.Second) {
			if d[0] == device.MessageCookieReplyType {
				h.eat(d)
				break
			}
			if h.finish(d) {
				h.write(h.transport(nil))
				return h
			}
		}
	}
	h.t.Fatalf("the server did not answer %s", h.address)
	return nil
}

// transport encrypts a packet.
func (h *hostile) transport(packet []byte) []byte {
	d := make([]byte, 16, 16+len(packet)+16+16)
	d[0] = device.MessageTransportType
	binary.LittleEndian.PutUint32(d[4:], h.theirs)
	binary.LittleEndian.PutUint64(d[8:], h.counter)
	padded := append(packet[:len(packet):len(packet)], make([]byte, -len(packet)&15)...)
	d = append(d, seal(h.send, h.counter, padded, nil)...)
	h.counter++
	return d
}

// packet returns the next packet from inside the network, or nil if none comes
// in d. Keepalives and handshake messages are no packets.
func (h *hostile) packet(d time.Duration) []byte {
	h.t.Helper()
	for end := time.Now().Add(d); ; {
		m := h.read(time.Until(end))
		if m == nil {
			return nil
		}
		if m[0] != device.MessageTransportType || binary.LittleEndian.Uint32(m[4:]) != h.ours {
			continue
		}
		p, err := unseal(h.open, binary.LittleEndian.Uint64(m[8:]), m[16:], nil)
		if err != nil {
			h.t.Errorf("a packet that cannot be read: %v", err)
		}
		if len(p) > 20 {
			return p[:min(len(p), int(binary.BigEndian.Uint16(p[2:])))]
		}
	}
}

// echo is an ICMP echo request with the source and destination given.
func echo(from, to netip.Addr, size int) []byte {
	p := make([]byte, 28+size)
	p[0], p[8], p[9] = 0x45, 64, 1
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], from.AsSlice())
	copy(p[16:], to.AsSlice())
	p[20] = 8
	for i := range size {
		p[28+i] = byte(i)
	}
	binary.BigEndian.PutUint16(p[22:], ^checksum.Checksum(p[20:], 0))
	return headerSum(p)
}

func headerSum(p []byte) []byte {
	p[10], p[11] = 0, 0
	binary.BigEndian.PutUint16(p[10:], ^checksum.Checksum(p[:20], 0))
	return p
}

func isPong(p []byte, to netip.Addr) bool {
	return len(p) >= 28 && p[9] == 1 && p[20] == 0 && [4]byte(p[12:16]) == registry.As4() && [4]byte(p[16:20]) == to.As4()
}
