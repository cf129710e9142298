package wireguard

import (
	"encoding/binary"
	"errors"
	"net"
	"slices"

	"golang.zx2c4.com/wireguard/device"
)

// sorter gives each datagram that arrives to the network it is for. What one
// call has brought from one source to one network becomes one parcel: a burst
// then passes through the device, and to the stack, as a burst, and costs its
// wakeups once.
type sorter struct {
	router *router
	in     *receiver

	to      *port
	train   []int // arrivals gathered for to, all of one source and segment length
	size    int   // bytes in train
	segment int
	from    *endpoint
	last    *endpoint // saves making one for each arrival of the same source
}

// read takes datagrams from the socket until it is closed.
func (s *Switch) read(in *receiver) {
	defer in.free()
	t := &sorter{router: s.router, in: in, last: new(endpoint)}
	for {
		n, err := in.receive()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of some peer; the socket is fine
		}
		var size uint64
		for i := range n {
			size += uint64(t.sort(i))
		}
		s.totals.received.Add(size)
		t.deliver()
	}
}

// sort gathers an arrival, or hands on what is in it, and returns its length.
func (t *sorter) sort(i int) int {
	a := t.in.arrival(i)
	if len(a.data) == 0 {
		return 0
	}
	p, all := t.common(a)
	if !all {
		t.deliver()
		from := t.endpoint(a)
		for d := range slices.Chunk(a.data, a.segment) {
			if p := t.router.route(d, a.from); p != nil {
				buf := bufFor(len(d))
				p.inbox.put(parcel{buf, buf.data[:copy(buf.data, d)], len(d), from})
			}
		}
		return len(a.data)
	}
	if p == nil {
		return len(a.data)
	}
	from := t.endpoint(a)
	if len(t.train) > 0 && (p != t.to || from != t.from || a.segment != t.segment || t.size%t.segment != 0 || t.size+len(a.data) > maxDatagram) {
		t.deliver()
	}
	t.to, t.from, t.segment = p, from, a.segment
	t.train, t.size = append(t.train, i), t.size+len(a.data)
	return len(a.data)
}

func (t *sorter) endpoint(a arrival) *endpoint {
	if t.last.dst != a.from || t.last.src != a.at || t.last.forgotten.Load() {
		t.last = &endpoint{dst: a.from, src: a.at}
	}
	return t.last
}

// deliver hands over what has been gathered: as it is, if that is one buffer
// well filled, else copied together.
func (t *sorter) deliver() {
	switch {
	case len(t.train) == 0:
		return
	case len(t.train) == 1 && t.size > mediumParcel:
		i := t.train[0]
		buf := t.in.take(i)
		t.to.inbox.put(parcel{buf, buf.data[:t.size], t.segment, t.from})
	default:
		buf := bufFor(t.size)
		n := 0
		for _, i := range t.train {
			n += copy(buf.data[n:], t.in.arrival(i).data)
		}
		t.to.inbox.put(parcel{buf, buf.data[:n], t.segment, t.from})
	}
	t.to, t.train, t.size = nil, t.train[:0], 0
}

// common returns the network of all datagrams of an arrival, and whether they
// have one in common. Initiations are not tried twice: they are counted against
// their source.
func (t *sorter) common(a arrival) (*port, bool) {
	if a.segment == len(a.data) {
		return t.router.route(a.data, a.from), true
	}
	var p *port
	for i := 0; i < len(a.data); i += a.segment {
		d := a.data[i:min(i+a.segment, len(a.data))]
		if len(d) < minDatagram || binary.LittleEndian.Uint32(d) != device.MessageTransportType {
			return nil, false
		}
		q := t.router.transport(d, a.from)
		if q == nil || i > 0 && q != p {
			return nil, false
		}
		p = q
	}
	return p, true
}
