package wireguard

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// source is the local address and interface that a datagram came in by, as
// IP_PKTINFO says it.
type source struct {
	addr  netip.Addr
	index uint32
}

// oobSize holds an IPV6_PKTINFO and a UDP_GRO message.
const oobSize = 128

// enlarge asks for room for a burst; root may pass the system's limit.
func enlarge(c *net.UDPConn, size int) {
	_ = c.SetReadBuffer(size)
	_ = c.SetWriteBuffer(size)
	control(c, func(fd int) error {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size)
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, size)
	})
}

// offload switches on coalesced receiving and, for a wildcard socket, packet
// information, and reports whether segmented sending exists.
func offload(c *net.UDPConn, sticky, six bool) (segment bool) {
	if sticky {
		control(c, func(fd int) error {
			if six {
				return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
			}
			return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		})
	}
	control(c, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1) })
	return control(c, func(fd int) error {
		_, err := unix.GetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT)
		return err
	})
}

// control reports whether f succeeded on c's descriptor.
func control(c *net.UDPConn, f func(fd int) error) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	var inner error
	err = raw.Control(func(fd uintptr) { inner = f(int(fd)) })
	return err == nil && inner == nil
}

// readControl finds the segment size (0 if not coalesced) and the address
// that was called. The kernel wrote oob, so a short message is only skipped.
func readControl(oob []byte) (segment int, at source) {
	for len(oob) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return segment, at
		}
		oob = rest
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			segment = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			// ifindex, spec_dst (ours), the header's destination
			at = source{netip.AddrFrom4([4]byte(data[4:8])), binary.NativeEndian.Uint32(data)}
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			at = source{netip.AddrFrom16([16]byte(data[:16])), binary.NativeEndian.Uint32(data[16:])}
		}
	}
	return segment, at
}

// control appends the message that makes a datagram leave from s.
func (s source) control(oob []byte) []byte {
	switch {
	case !s.addr.IsValid():
		return oob
	case s.addr.Is4():
		oob, data := appendControl(oob, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		binary.NativeEndian.PutUint32(data, s.index)
		copy(data[4:8], s.addr.AsSlice())
		return oob
	default:
		oob, data := appendControl(oob, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		a := s.addr.As16()
		copy(data, a[:])
		binary.NativeEndian.PutUint32(data[16:], s.index)
		return oob
	}
}

func segmentControl(oob []byte, size int) []byte {
	oob, data := appendControl(oob, unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	binary.NativeEndian.PutUint16(data, uint16(size))
	return oob
}

// appendControl appends an empty control message to oob, whose capacity must
// suffice, and returns its data.
func appendControl(oob []byte, level, kind int32, size int) (all, data []byte) {
	start := len(oob)
	all = oob[:start+unix.CmsgSpace(size)]
	clear(all[start:])
	n := unix.CmsgLen(size)
	if unix.SizeofCmsghdr == 16 {
		binary.NativeEndian.PutUint64(all[start:], uint64(n))
	} else {
		binary.NativeEndian.PutUint32(all[start:], uint32(n))
	}
	fields := all[start+unix.SizeofCmsghdr-8:]
	binary.NativeEndian.PutUint32(fields, uint32(level))
	binary.NativeEndian.PutUint32(fields[4:], uint32(kind))
	return all, all[start+unix.CmsgLen(0):][:size]
}
