package wireguard

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// cutter cuts one large TCP segment of the stack into packets that fit.
//
// Every packet of a stack with segmentation offload comes through here, also
// one that fits as it is: its checksum covers only the pseudo header and is
// finished by whoever cuts. A packet that went around would be dropped by the
// receiver, and TLS handshakes would hang.
type cutter struct {
	data [1 << 16]byte
	all  []byte // what is being cut, headers included; nil when done
	ip   int    // length of the IP header
	head int    // length of both headers
	mss  int
	sent int // payload bytes cut so far
}

func (c *cutter) pending() bool { return c.all != nil }

// load starts on pkt, which is IPv4 and TCP.
func (c *cutter) load(pkt *stack.PacketBuffer) {
	c.start(c.data[:flatten(c.data[:], pkt)], int(pkt.GSOOptions.MSS))
}

func (c *cutter) start(p []byte, mss int) {
	c.all, c.sent = p, 0
	c.ip = int(p[0]&15) * 4
	c.head = c.ip + int(p[c.ip+12]>>4)*4
	if c.mss = mss; mss == 0 {
		c.mss = len(p)
	}
}

// pieces is how many packets what has been loaded will be.
func (c *cutter) pieces() int { return max(1, (len(c.all)-c.head+c.mss-1)/c.mss) }

// next cuts as many packets as bufs holds and returns their number.
func (c *cutter) next(bufs [][]byte, sizes []int, offset int) int {
	payload := c.all[c.head:]
	n := 0
	for n < len(bufs) {
		part := payload[c.sent:min(c.sent+c.mss, len(payload))]
		sizes[n] = c.packet(bufs[n][offset:], part)
		n++
		if c.sent += len(part); c.sent == len(payload) {
			c.all = nil
			break
		}
	}
	return n
}

// packet writes one packet with part of the payload into dst.
func (c *cutter) packet(dst, part []byte) int {
	size := c.head + len(part)
	dst = dst[:size]
	copy(dst, c.all[:c.head])
	copy(dst[c.head:], part)

	ip := header.IPv4(dst)
	ip.SetTotalLength(uint16(size))
	ip.SetID(binary.BigEndian.Uint16(c.all[4:]) + uint16(c.sent/c.mss))
	ip.SetChecksum(0)
	ip.SetChecksum(^ip.CalculateChecksum())

	tcp := header.TCP(dst[c.ip:])
	tcp.SetSequenceNumber(header.TCP(c.all[c.ip:]).SequenceNumber() + uint32(c.sent))
	flags := tcp.Flags()
	if c.head+c.sent+len(part) < len(c.all) {
		flags &^= header.TCPFlagFin | header.TCPFlagPsh
	}
	if c.sent > 0 {
		flags &^= tcpFlagCwr
	}
	tcp.SetFlags(uint8(flags))
	tcp.SetChecksum(0)
	sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(size-c.ip))
	tcp.SetChecksum(^checksum.Checksum(dst[c.ip:], sum))
	return size
}

// tcpFlagCwr says that the sender slowed down: once, not once a piece.
const tcpFlagCwr = header.TCPFlags(0x80)
