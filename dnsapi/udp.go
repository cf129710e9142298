package dnsapi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// buffers hold questions. One byte more than is accepted tells a question
// that was cut off from one that fits.
var buffers = sync.Pool{New: func() any { return new([maxQuery + 1]byte) }}

// maxReadErrors in a row mean that the socket is of no use any more. Single
// ones happen: the kernel reports here that some earlier answer could not be
// delivered.
const maxReadErrors = 100

func (v *served) packets(ctx context.Context, pc net.PacketConn) error {
	pc = pinned(pc)
	var wg sync.WaitGroup
	defer wg.Wait()
	for failures := 0; ; {
		buf := buffers.Get().(*[maxQuery + 1]byte)
		n, from, err := pc.ReadFrom(buf[:])
		if err != nil {
			buffers.Put(buf)
			failures++
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || failures == maxReadErrors {
				return err
			}
			continue
		}
		failures = 0
		select {
		case v.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		wg.Go(func() {
			defer func() { <-v.slots; buffers.Put(buf) }()
			if out := v.packet(ctx, buf[:n], from); out != nil {
				// Nobody to tell: an answer that cannot be sent is one that
				// was lost.
				_, _ = pc.WriteTo(out, from)
			}
		})
	}
}

func (v *served) packet(ctx context.Context, wire []byte, from net.Addr) []byte {
	if !v.public() {
		return v.respond(ctx, wire, addrOf(from).Unmap(), true)
	}
	verdict := v.limit.take(addrOf(from), v.Now())
	if verdict != pass && v.proven(wire, addrOf(from)) {
		verdict = pass
	}
	switch verdict {
	case slip:
		v.Observe(v.label, "LIMITED")
		return truncated(wire)
	case drop:
		v.Observe(v.label, "LIMITED")
		return nil
	}
	out := v.respond(ctx, wire, addrOf(from).Unmap(), true)
	if verdict == lean && len(out) > 2*len(wire) {
		v.Observe(v.label, "LIMITED")
		return truncated(wire)
	}
	return out
}

// addrOf is the address of a socket's other end, or the zero address.
func addrOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	case session:
		return addrOf(a.RemoteAddr())
	case nil:
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// pinned makes a socket that is bound to every address answer from the one
// that was asked. The kernel would choose by its routes, and a resolver drops
// an answer from an address that it did not ask.
func pinned(pc net.PacketConn) net.PacketConn {
	c, ok := pc.(*net.UDPConn)
	if !ok || !addrOf(c.LocalAddr()).IsUnspecified() {
		return pc
	}
	err6 := ipv6.NewPacketConn(c).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
	err4 := ipv4.NewPacketConn(c).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
	if err4 != nil && err6 != nil {
		return pc
	}
	return pinnedConn{c}
}

type pinnedConn struct{ *net.UDPConn }

// session is an asker together with the address that it asked.
type session struct{ *dns.SessionUDP }

func (session) Network() string  { return "udp" }
func (s session) String() string { return s.RemoteAddr().String() }

func (c pinnedConn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, s, err := dns.ReadFromSessionUDP(c.UDPConn, b)
	if err != nil {
		return 0, nil, err
	}
	return n, session{s}, nil
}

func (c pinnedConn) WriteTo(b []byte, to net.Addr) (int, error) {
	s, ok := to.(session)
	if !ok {
		return c.UDPConn.WriteTo(b, to)
	}
	return dns.WriteToSessionUDP(c.UDPConn, b, s.SessionUDP)
}
