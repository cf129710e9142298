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
// rules are those of Linux' receive offload, but for PSH, which gVisor does not
// look at: the pieces of a run differ in nothing but their sequence numbers. So
// a run means what its pieces meant, but for the number of acknowledgements.
//
// The device hands over a few packets at a time, because each that it may hold
// costs 64 KiB (see readBatch). What it hands over while the stack is busy is
// joined meanwhile. Its goroutine begins with the first packet and stays: the
// stack needs deep stacks of it, and growing one anew costs more than a packet.
type joiner struct {
	n *netStack

	mu      sync.Mutex
	room    sync.Cond // in runs
	work    sync.Cond // in runs
	runs    []*run    // that wait, in order; those of the last few may still grow
	started bool
	closed  bool

	passing sync.Mutex // held while the stack takes a run
}

// run is a packet, or several as one.
type run struct {
	rules  *rules // by which its packets were let in
	head   [20 + 60]byte
	length int  // of the part of head in use: both headers if it joins, else IP's first 20 bytes
	joins  bool // it is a TCP segment that others may join
	size   int  // bytes of payload
	next   uint32
	views  []*buffer.View // the payload
}

var runs = sync.Pool{New: func() any { return new(run) }}

const (
	// maxPacket is what the length field of an IPv4 header can say.
	maxPacket = 1<<16 - 1
	// maxRuns bounds what waits, at 64 KiB each: a device that brings more is
	// held up.
	maxRuns = 32
	// joinBack is among how many of the last runs a packet finds its own, so
	// that a few transfers at once do not end each other's.
	joinBack = 8
	// viewSize is what a run grows by: it holds a packet and is cleared at once.
	viewSize = 16 << 10
)

func newJoiner(n *netStack) *joiner {
	j := &joiner{n: n}
	j.room.L, j.work.L = &j.mu, &j.mu
	return j
}

// add takes a copy of a packet that r lets in.
func (j *joiner) add(p []byte, r *rules) {
	head, joins := joinable(p)
	j.mu.Lock()
	defer j.mu.Unlock()
	for !j.join(p, head, joins, r) {
		if j.closed {
			return
		}
		if len(j.runs) < maxRuns {
			j.runs = append(j.runs, newRun(p, head, joins, r))
			break
		}
		j.room.Wait()
	}
	if !j.started {
		j.started = true
		go j.hand()
	}
	j.work.Signal()
}

// join makes p a part of a run that waits, if it continues one. It never
// overtakes a packet of its own connection.
func (j *joiner) join(p []byte, head int, joins bool, r *rules) bool {
	if !joins {
		return false
	}
	for i := len(j.runs) - 1; i >= 0 && i >= len(j.runs)-joinBack; i-- {
		w := j.runs[i]
		if !w.joins || w.rules != r {
			return false
		}
		if !bytes.Equal(p[12:24], w.head[12:24]) { // addresses and ports
			continue
		}
		switch {
		case w.continues(p, head):
			w.append(p, head)
		case w.isReplaced(p, head):
			copy(w.head[:head], p)
		default:
			return false
		}
		return true
	}
	return false
}

func newRun(p []byte, head int, joins bool, r *rules) *run {
	w := runs.Get().(*run)
	w.rules, w.joins, w.length, w.size = r, joins, head, 0
	copy(w.head[:head], p)
	w.append(p, head)
	return w
}

func (w *run) append(p []byte, head int) {
	if w.joins {
		w.next = binary.BigEndian.Uint32(p[24:]) + uint32(len(p)-head)
		w.head[33] |= p[33] & tcpFlagPsh
	}
	p = p[head:]
	w.size += len(p)
	if n := len(w.views); n > 0 {
		tail := w.views[n-1]
		k, _ := tail.Write(p[:min(len(p), tail.AvailableSize())]) // writes what there is room for
		if p = p[k:]; len(p) > 0 {
			w.views = append(w.views, buffer.NewView(viewSize))
			_, _ = w.views[n].Write(p)
		}
	} else if len(p) > 0 {
		w.views = append(w.views, buffer.NewViewWithData(p))
	}
}

// release gives back what a run that was not passed on holds, and the run.
func (w *run) release() {
	for _, v := range w.views {
		v.Release()
	}
	w.free()
}

func (w *run) free() {
	clear(w.views)
	w.rules, w.views = nil, w.views[:0]
	runs.Put(w)
}

const (
	tcpFlagAck = 0x10
	tcpFlagPsh = 0x08
)

// joinable reports whether p is a TCP segment that says nothing that must be
// seen on its own, and how long its headers are; of any other packet, the 20
// bytes that judge has seen.
func joinable(p []byte) (head int, ok bool) {
	const moreFragments, offset = 0x2000, 0x1fff
	if len(p) < 40 || p[0] != 0x45 || p[9] != protocolTCP || binary.BigEndian.Uint16(p[6:])&(moreFragments|offset) != 0 {
		return 20, false
	}
	head = 20 + int(p[32]>>4)*4
	if head < 40 || head > len(p) || p[33]&^tcpFlagPsh != tcpFlagAck {
		return 20, false
	}
	return head, true
}

// continues reports whether p is the next piece.
func (w *run) continues(p []byte, head int) bool {
	return w.size > 0 && len(p) > head && head == w.length && head+w.size+len(p)-head <= maxPacket &&
		binary.BigEndian.Uint32(p[24:]) == w.next &&
		p[1] == w.head[1] && // type of service, with its congestion bits
		bytes.Equal(p[28:32], w.head[28:32]) && // acknowledgement
		bytes.Equal(p[34:36], w.head[34:36]) && // window
		bytes.Equal(p[40:head], w.head[40:head]) // options
}

// isReplaced reports whether p is an acknowledgement that makes this one
// superfluous: it says more of the same. One that repeats it, or names gaps
// (RFC 2018), is news.
func (w *run) isReplaced(p []byte, head int) bool {
	if w.size > 0 || len(p) != head || head != w.length || head != 40 && (head != 52 || !bytes.Equal(p[40:44], timestamps)) {
		return false
	}
	return p[1] == w.head[1] && bytes.Equal(p[24:28], w.head[24:28]) && p[33] == w.head[33] && // as in continues, and the same place
		int32(binary.BigEndian.Uint32(p[28:])-binary.BigEndian.Uint32(w.head[28:])) > 0
}

// timestamps begin the options of most segments: two fillers, then RFC 7323's.
var timestamps = []byte{1, 1, 8, 10}

// hand gives the stack what comes, until close.
func (j *joiner) hand() {
	for w := j.first(); w != nil; w = j.first() {
		j.passing.Lock()
		if r := j.n.rules.Load(); r == w.rules || r.still(w.head[:w.length]) {
			w.pass(j.n)
		} else {
			j.n.count.add(dropChanged)
			w.release()
		}
		j.passing.Unlock()
	}
}

func (j *joiner) first() *run {
	j.mu.Lock()
	defer j.mu.Unlock()
	for len(j.runs) == 0 {
		if j.closed {
			return nil
		}
		j.work.Wait()
	}
	w := j.runs[0]
	j.runs[0] = nil
	j.runs = j.runs[1:]
	j.room.Signal()
	return w
}

// pass gives headers a view of their own: the stack copies a shared view whole
// to look at a header in it. Checksums are not looked at, see newNetStack.
func (w *run) pass(n *netStack) {
	binary.BigEndian.PutUint16(w.head[2:], uint16(w.length+w.size))
	b := buffer.MakeWithView(buffer.NewViewWithData(w.head[:w.length]))
	for _, v := range w.views {
		part := buffer.MakeWithView(v)
		b.Merge(&part)
	}
	w.free()
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: b})
	n.link.InjectInbound(ipv4.ProtocolNumber, pkt)
	pkt.DecRef()
}

// settle returns when no packet can reach the stack any more that rules from
// before would have let in and those of now would not.
func (j *joiner) settle() {
	j.passing.Lock()
	defer j.passing.Unlock()
}

// close forgets what waits, and returns when the stack is left alone.
func (j *joiner) close() {
	j.mu.Lock()
	j.closed = true
	for _, w := range j.runs {
		w.release()
	}
	j.runs = nil
	j.room.Broadcast()
	j.work.Broadcast()
	j.mu.Unlock()
	j.settle()
}
