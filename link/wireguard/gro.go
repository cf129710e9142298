package wireguard

import (
	"bytes"
	"encoding/binary"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// joiner hands packets to the stack, TCP segments that continue each other as
// one: what the stack does, it does once a packet, whatever its length. The
// rules are those of Linux' receive offload: the pieces differ in nothing but
// their sequence numbers, and in PSH, which ends a run. So a run means exactly
// what its pieces meant, but for the number of acknowledgements.
//
// It belongs to one call of Write at a time.
type joiner struct {
	n     *netStack
	parts [][]byte // of the run: all its packets, in order
	head  int      // length of both headers
	size  int      // bytes of payload so far
	next  uint32   // the sequence number that would continue it
}

var joiners = sync.Pool{New: func() any { return new(joiner) }}

// maxPacket is what the length field of an IPv4 header can say.
const maxPacket = 1<<16 - 1

// add takes a packet that is for us; it stays in use until flush.
func (j *joiner) add(p []byte) {
	head, joins := joinable(p)
	if !joins {
		j.flush()
		j.n.inject(p[:20], p[20:])
		return
	}
	if len(p) == head {
		if !j.replaces(p, head) {
			j.flush()
		}
		j.parts, j.head, j.size = append(j.parts[:0], p), head, 0
		return
	}
	if !j.continues(p, head) {
		j.flush()
	}
	j.head = head
	j.parts = append(j.parts, p)
	j.size += len(p) - head
	j.next = binary.BigEndian.Uint32(p[24:]) + uint32(len(p)-head)
	if p[33]&tcpFlagPsh != 0 {
		j.flush()
	}
}

const (
	tcpFlagAck = 0x10
	tcpFlagPsh = 0x08
)

// joinable reports whether p is a TCP segment that says nothing that must be
// seen on its own, and how long its headers are. judge has found the IP header
// well formed.
func joinable(p []byte) (head int, ok bool) {
	const moreFragments, offset = 0x2000, 0x1fff
	if len(p) < 40 || p[0] != 0x45 || p[9] != protocolTCP || binary.BigEndian.Uint16(p[6:])&(moreFragments|offset) != 0 {
		return 0, false
	}
	head = 20 + int(p[32]>>4)*4
	return head, head >= 40 && head <= len(p) && p[33]&^tcpFlagPsh == tcpFlagAck
}

// continues reports whether p is the next piece of the run.
func (j *joiner) continues(p []byte, head int) bool {
	if j.size == 0 || head != j.head || j.head+j.size+len(p)-head > maxPacket || binary.BigEndian.Uint32(p[24:]) != j.next {
		return false
	}
	first := j.parts[0]
	return p[1] == first[1] && // type of service, with its congestion bits
		bytes.Equal(p[12:24], first[12:24]) && // addresses and ports
		bytes.Equal(p[28:32], first[28:32]) && // acknowledgement
		bytes.Equal(p[34:36], first[34:36]) && // window
		bytes.Equal(p[40:head], first[40:head]) // options
}

// replaces reports whether p is an acknowledgement that makes the one before it
// superfluous: it says more of the same. One that repeats it, or names gaps
// (RFC 2018), is news.
func (j *joiner) replaces(p []byte, head int) bool {
	if len(j.parts) != 1 || j.size != 0 || head != j.head || head != 40 && (head != 52 || !bytes.Equal(p[40:44], timestamps)) {
		return false
	}
	last := j.parts[0]
	return p[1] == last[1] && bytes.Equal(p[12:28], last[12:28]) && p[33] == last[33] && // as in continues, and the same place
		int32(binary.BigEndian.Uint32(p[28:])-binary.BigEndian.Uint32(last[28:])) > 0
}

// timestamps begin the options of most segments: two fillers, then RFC 7323's.
var timestamps = []byte{1, 1, 8, 10}

// flush hands the run to the stack.
func (j *joiner) flush() {
	if len(j.parts) == 0 {
		return
	}
	first, last := j.parts[0], j.parts[len(j.parts)-1]
	binary.BigEndian.PutUint16(first[2:], uint16(j.head+j.size))
	first[33] |= last[33] & tcpFlagPsh
	if len(j.parts) == 1 {
		j.n.inject(first[:j.head], first[j.head:])
	} else {
		data := buffer.NewView(j.size)
		for _, p := range j.parts {
			_, _ = data.Write(p[j.head:]) // grows where it must
		}
		j.n.injectView(first[:j.head], data)
	}
	clear(j.parts)
	j.parts, j.size = j.parts[:0], 0
}

// inject hands the stack one packet. Checksums are not looked at, see newNetStack.
func (n *netStack) inject(head, data []byte) {
	n.injectView(head, buffer.NewViewWithData(data))
}

// injectView gives headers a view of their own: the stack copies a shared view
// whole to look at a header in it.
func (n *netStack) injectView(head []byte, data *buffer.View) {
	b := buffer.MakeWithView(buffer.NewViewWithData(head))
	_ = b.Append(data) // fails only when b is in use elsewhere
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b})
	n.link.InjectInbound(ipv4.ProtocolNumber, pkt)
	pkt.DecRef()
}
