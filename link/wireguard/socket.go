package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"

	"cove.example/cove/fault"
)

// ErrPortTaken says that another program listens at the wanted address.
var ErrPortTaken = fault.New(fault.Conflict, "the WireGuard port is taken by another program")

const (
	maxDatagram = 1<<16 - 1
	// maxSegments and maxSuper bound one segmented send: the kernel takes 64
	// datagrams (UDP_MAX_SEGMENTS before Linux 6.9) in one IPv4 packet.
	maxSegments = 64
	maxSuper    = 1<<16 - 1 - 20 - 8
	// Two seconds of a busy gigabit would not fit; a scheduling hiccup does.
	socketBuffer = 4 << 20
)

// socket is the one UDP socket of all networks. wireguard-go's own binds
// listen at every address of the host; an operator who names an address means
// it, so this one is ours. It speaks the kernel's segmentation offload both
// ways, which is what makes a userspace tunnel affordable.
type socket struct {
	conn    *net.UDPConn
	raw     syscall.RawConn
	six     bool        // of IPv6's
	sticky  bool        // bound to a wildcard: answers must leave from the address that was called
	segment atomic.Bool // UDP_SEGMENT works on the way out
}

func listen(address string) (*socket, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "the WireGuard address %q is not an IP address and a port, such as 0.0.0.0:51820", address)
	}
	at = netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
	network := "udp4"
	if at.Addr().Is6() {
		network = "udp"
	}
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(at))
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, ErrPortTaken.Detail("the WireGuard port, UDP %s, is taken by another program", at)
	}
	if err != nil {
		return nil, fmt.Errorf("open the WireGuard port: %w", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	s := &socket{conn: c, raw: raw, six: at.Addr().Is6(), sticky: at.Addr().IsUnspecified()}
	enlarge(c, socketBuffer)
	s.segment.Store(offload(c, s.sticky, s.six))
	return s, nil
}

// arrival is datagrams of one source, in one buffer: all of length segment
// except the last.
type arrival struct {
	data    []byte
	segment int
	from    netip.AddrPort
	at      source
}

// send writes the datagrams of a train, in one call if the kernel can.
func (s *socket) send(t *train) {
	oob := t.oob[:0]
	if !t.to.forgotten.Load() {
		oob = t.to.src.control(oob)
	}
	data := t.data[:t.size]
	if t.size > t.segment && s.segment.Load() {
		err := s.write(t, data, segmentControl(oob, t.segment))
		if err == nil {
			return
		}
		// EIO: the device below has no checksum offload, and never will.
		// Anything else may be this path's MTU: send these one by one.
		if errors.Is(err, syscall.EIO) {
			s.segment.Store(false)
		}
	}
	for d := range slices.Chunk(data, t.segment) {
		if err := s.write(t, d, oob); err != nil {
			return // there is no way now; the rest would not find one either
		}
	}
}

func (s *socket) addr() netip.AddrPort { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (s *socket) close() error { return s.conn.Close() }

// endpoint is where a peer was last heard, and at which of our addresses. It
// is shared between packets, so only forgotten ever changes.
type endpoint struct {
	dst       netip.AddrPort
	src       source
	forgotten atomic.Bool // src may be gone: let the kernel choose
}

var _ conn.Endpoint = (*endpoint)(nil)

func parseEndpoint(s string) (conn.Endpoint, error) {
	at, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return &endpoint{dst: at}, nil
}

func (e *endpoint) ClearSrc()           { e.forgotten.Store(true) }
func (e *endpoint) SrcIP() netip.Addr   { return e.src.addr }
func (e *endpoint) SrcToString() string { return e.src.addr.String() }
func (e *endpoint) DstIP() netip.Addr   { return e.dst.Addr() }
func (e *endpoint) DstToString() string { return e.dst.String() }
func (e *endpoint) DstToBytes() []byte {
	b, _ := e.dst.MarshalBinary() // never fails
	return b
}
