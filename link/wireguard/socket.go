package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
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
	sticky  bool        // bound to a wildcard: answers must leave from the address that was called
	segment atomic.Bool // UDP_SEGMENT works on the way out
	bufs    sync.Pool   // of *outgoing
}

type outgoing struct {
	data [maxSuper]byte
	oob  [128]byte
}

func listen(address string) (*socket, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "the WireGuard address %q is not an IP address and a port, such as 0.0.0.0:51820", address)
	}
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
	s := &socket{conn: c, sticky: at.Addr().IsUnspecified()}
	s.bufs.New = func() any { return new(outgoing) }
	enlarge(c, socketBuffer)
	s.segment.Store(offload(c, s.sticky, at.Addr().Is6()))
	return s, nil
}

// arrival is what one receive call brought: datagrams of one source, all of
// length segment except the last.
type arrival struct {
	n       int
	segment int
	from    netip.AddrPort
	at      source
}

// receive waits for datagrams. It allocates nothing.
func (s *socket) receive(buf, oob []byte) (arrival, error) {
	n, nn, _, from, err := s.conn.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return arrival{}, err
	}
	a := arrival{n: n, segment: n, from: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	segment, at := readControl(oob[:nn])
	if segment > 0 && segment < n {
		a.segment = segment
	}
	if s.sticky {
		a.at = at
	}
	return a, nil
}

// send writes the datagrams in order, as few calls as the kernel allows.
func (s *socket) send(bufs [][]byte, to *endpoint) error {
	o := s.bufs.Get().(*outgoing)
	defer s.bufs.Put(o)
	oob := o.oob[:0]
	if !to.forgotten.Load() {
		oob = to.src.control(oob)
	}
	for len(bufs) > 0 {
		n := 1
		if s.segment.Load() {
			n = run(bufs)
		}
		if n > 1 {
			err := s.sendRun(bufs[:n], to.dst, o, oob)
			if err == nil {
				bufs = bufs[n:]
				continue
			}
			// EIO: the device below has no checksum offload, and never will.
			// Anything else may be this path's MTU: send these one by one.
			if errors.Is(err, syscall.EIO) {
				s.segment.Store(false)
			}
		}
		for _, b := range bufs[:n] {
			if _, _, err := s.conn.WriteMsgUDPAddrPort(b, oob, to.dst); err != nil {
				return err
			}
		}
		bufs = bufs[n:]
	}
	return nil
}

func (s *socket) sendRun(bufs [][]byte, to netip.AddrPort, o *outgoing, oob []byte) error {
	n := 0
	for _, b := range bufs {
		n += copy(o.data[n:], b)
	}
	_, _, err := s.conn.WriteMsgUDPAddrPort(o.data[:n], segmentControl(oob, len(bufs[0])), to)
	return err
}

// run counts how many leading datagrams can leave as one: equal lengths, the
// last may be shorter.
func run(bufs [][]byte) int {
	size := len(bufs[0])
	total := size
	for i := 1; i < len(bufs); i++ {
		total += len(bufs[i])
		if i == maxSegments || len(bufs[i]) > size || total > maxSuper {
			return i
		}
		if len(bufs[i]) < size {
			return i + 1
		}
	}
	return len(bufs)
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
