package wireguard

import (
	"net"
	"sync"
	"sync/atomic"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// port is one network's share of the socket: the conn.Bind of its WireGuard
// device.
type port struct {
	sw    *Switch
	mac   atomic.Pointer[mac1]
	inbox *inbox
	out   *outbox
	dirty atomic.Bool // a peer may have moved since the endpoints were saved
	open  atomic.Bool
}

var _ conn.Bind = (*port)(nil)

// newPort counts in d what does not fit the inbox. w is told of what leaves the
// device.
func newPort(sw *Switch, key PublicKey, d *drops, w *window) *port {
	p := &port{sw: sw, inbox: newInbox(d, w), out: newOutbox(sw.socket)}
	p.mac.Store(newMac1(key))
	return p
}

func (p *port) moved() {
	p.dirty.Store(true)
	p.sw.wake()
}

// Open is called once, when the device comes up. The number it returns is
// only shown; 1 is no port of anybody's.
func (p *port) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	if p.open.Swap(true) {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	return []conn.ReceiveFunc{p.inbox.receive}, 1, nil
}

// Close ends receiving for good. The device also calls it before Open.
func (p *port) Close() error {
	if p.open.Load() {
		p.inbox.close()
		p.out.close()
	}
	return nil
}

func (p *port) SetMark(uint32) error { return nil }

func (p *port) BatchSize() int { return readBatch }

func (p *port) ParseEndpoint(s string) (conn.Endpoint, error) { return parseEndpoint(s) }

func (p *port) Send(bufs [][]byte, ep conn.Endpoint) error {
	to, ok := ep.(*endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	size := 0
	for _, b := range bufs {
		if err := p.sw.router.sent(p, b, to.dst); err != nil {
			return err
		}
		size += len(b)
	}
	p.sw.totals.sent.Add(uint64(size))
	p.out.put(bufs, to)
	return nil
}

// inbox holds the datagrams that wait for one device. It is bounded in bytes
// of buffers, not datagrams, and what does not fit is dropped: a device that
// falls behind loses its own packets and holds up no other network.
type inbox struct {
	mu     sync.Mutex
	ready  sync.Cond
	queue  []parcel
	held   int // bytes of buffers in queue
	closed bool

	drops  *drops
	window *window

	cur parcel // what receive has begun to hand out; its caller is one goroutine
}

// maxHeld is what arrives while a busy machine gives the device no turn: at
// 4 MiB an upload was seen to lose packets there.
const maxHeld = 8 << 20

// parcel is datagrams of one source in one buffer, each of length segment
// except the last.
type parcel struct {
	buf     *parcelBuf
	data    []byte
	segment int
	from    *endpoint
}

func newInbox(d *drops, w *window) *inbox {
	b := &inbox{drops: d, window: w}
	b.ready.L = &b.mu
	return b
}

// put takes over p's buffer.
func (b *inbox) put(p parcel) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.held+len(p.buf.data) > maxHeld {
		b.drops.addN(dropBusy, uint64((len(p.data)+p.segment-1)/p.segment))
		p.buf.free()
		return
	}
	b.held += len(p.buf.data)
	b.queue = append(b.queue, p)
	if len(b.queue) == 1 {
		b.ready.Signal()
	}
}

// next waits for a parcel if wait is set.
func (b *inbox) next(wait bool) (parcel, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for wait && len(b.queue) == 0 && !b.closed {
		b.ready.Wait()
	}
	if b.closed || len(b.queue) == 0 {
		return parcel{}, false
	}
	p := b.queue[0]
	b.queue[0] = parcel{}
	b.queue = b.queue[1:]
	b.held -= len(p.buf.data)
	return p, true
}

func (b *inbox) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	b.window.wait()
	n, packets := 0, 0
	defer func() { b.window.enter(packets) }()
	for {
		if len(b.cur.data) == 0 {
			b.cur.buf.free()
			var ok bool
			if b.cur, ok = b.next(n == 0); !ok {
				if n == 0 {
					return 0, net.ErrClosed
				}
				return n, nil
			}
		}
		k := min(b.cur.segment, len(b.cur.data))
		sizes[n] = copy(bufs[n], b.cur.data[:k])
		eps[n] = b.cur.from
		if b.cur.data[0] == device.MessageTransportType && k > device.MessageKeepaliveSize {
			packets++
		}
		b.cur.data = b.cur.data[k:]
		if n++; n == len(bufs) {
			return n, nil
		}
	}
}

func (b *inbox) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for _, p := range b.queue {
		p.buf.free()
	}
	b.queue = nil
	b.ready.Broadcast()
}

// parcelBuf comes in three sizes, so that a few datagrams do not hold 64 KiB.
type parcelBuf struct {
	data []byte
	pool *sync.Pool
}

const (
	smallParcel  = 2 << 10
	mediumParcel = 16 << 10
)

var (
	smallBufs  = newBufPool(smallParcel)
	mediumBufs = newBufPool(mediumParcel)
	largeBufs  = newBufPool(maxDatagram)
)

func newBufPool(size int) *sync.Pool {
	p := &sync.Pool{}
	p.New = func() any { return &parcelBuf{data: make([]byte, size), pool: p} }
	return p
}

func bufFor(size int) *parcelBuf {
	pool := largeBufs
	switch {
	case size <= smallParcel:
		pool = smallBufs
	case size <= mediumParcel:
		pool = mediumBufs
	}
	return pool.Get().(*parcelBuf)
}

func (b *parcelBuf) free() {
	if b != nil {
		b.pool.Put(b)
	}
}
