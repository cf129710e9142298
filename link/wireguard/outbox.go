package wireguard

import "sync"

// outbox sends what a network's device hands over, in order. The device hands
// over a few packets at a time, because each that it may hold costs 64 KiB
// (see readBatch); the outbox joins those for one receiver while a send is under
// // way, so that the kernel is called as rarely as if it were many at a time. Its
// goroutine begins with the first datagram.
type outbox struct {
	socket *socket

	mu      sync.Mutex
	room    sync.Cond // in trains
	work    sync.Cond // in trains
	trains  []*train  // to send; the last may still grow
	started bool
	closed  bool
}

// train is datagrams for one receiver, each of length segment except the last:
// what the kernel sends in one call.
type train struct {
	to      *endpoint
	segment int
	size    int
	ended   bool // by one that is shorter
	data    [maxSuper]byte
	oob     [128]byte

	envelope envelope
}

var trains = sync.Pool{New: func() any { return new(train) }}

// maxTrains bounds what waits: a device that makes more is held up.
const maxTrains = 16

func newOutbox(s *socket) *outbox {
	o := &outbox{socket: s}
	o.room.L, o.work.L = &o.mu, &o.mu
	return o
}

// put copies the datagrams. An error of sending them is nobody's to mend: UDP
// loses datagrams, and WireGuard repeats what matters.
func (o *outbox) put(bufs [][]byte, to *endpoint) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.started && !o.closed {
		o.started = true
		go o.send()
	}
	for _, b := range bufs {
		for len(o.trains) >= maxTrains && !o.closed && !o.last().takes(b, to) {
			o.room.Wait()
		}
		if o.closed {
			return
		}
		t := o.last()
		if t == nil || !t.takes(b, to) {
			t = trains.Get().(*train)
			t.to, t.segment, t.size, t.ended = to, len(b), 0, false
			o.trains = append(o.trains, t)
			o.work.Signal()
		}
		t.size += copy(t.data[t.size:], b)
		t.ended = len(b) < t.segment
	}
}

func (o *outbox) last() *train {
	if len(o.trains) == 0 {
		return nil
	}
	return o.trains[len(o.trains)-1]
}

func (t *train) takes(b []byte, to *endpoint) bool {
	return t.to == to && !t.ended && len(b) <= t.segment && t.size+len(b) <= len(t.data) && t.size/t.segment < maxSegments
}

// send sends what comes, until close.
func (o *outbox) send() {
	for t := o.first(); t != nil; t = o.first() {
		o.socket.send(t)
		t.to = nil
		trains.Put(t)
	}
}

func (o *outbox) first() *train {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.trains) == 0 {
		if o.closed {
			return nil
		}
		o.work.Wait()
	}
	t := o.trains[0]
	o.trains[0] = nil
	o.trains = o.trains[1:]
	o.room.Signal()
	return t
}

// close forgets what waits.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed, o.trains = true, nil
	o.room.Broadcast()
	o.work.Broadcast()
}
