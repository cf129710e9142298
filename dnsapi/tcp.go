package dnsapi

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// idleTimeout is "a few seconds" (RFC 7766, 6.2.3).
	idleTimeout = 8 * time.Second
	// ioTimeout is for one message, from its first byte to its last.
	ioTimeout = 4 * time.Second
	// maxConns of one view, and of one source in it. Where there are as many,
	// the one that has been quiet for the longest makes room: connections
	// that do nothing cannot keep others out.
	maxConns          = 256
	maxConnsPerSource = 32
)

func (v *served) streams(ctx context.Context, l net.Listener) error {
	open := &conns{all: map[net.Conn]*conn{}}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer open.closeAll()
	for failures := 0; ; {
		c, err := l.Accept()
		if err != nil {
			failures++
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || failures == maxReadErrors {
				return err
			}
			// Out of descriptors, most often: that does not pass at once.
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		failures = 0
		open.add(c, v.Now())
		wg.Go(func() {
			defer open.remove(c)
			v.stream(ctx, c, open)
		})
	}
}

// stream answers the questions of one connection in their order.
func (v *served) stream(ctx context.Context, c net.Conn, open *conns) {
	buf := make([]byte, maxQuery)
	for ctx.Err() == nil {
		var head [2]byte
		if c.SetReadDeadline(time.Now().Add(idleTimeout)) != nil {
			return
		}
		if _, err := io.ReadFull(c, head[:1]); err != nil {
			return
		}
		if c.SetDeadline(time.Now().Add(ioTimeout)) != nil {
			return
		}
		if _, err := io.ReadFull(c, head[1:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		if n > len(buf) {
			return // no question is that long
		}
		if _, err := io.ReadFull(c, buf[:n]); err != nil {
			return
		}
		open.touch(c, v.Now())
		out := v.respond(ctx, buf[:n], addrOf(c.RemoteAddr()).Unmap(), false)
		if out == nil {
			return
		}
		if c.SetWriteDeadline(time.Now().Add(ioTimeout)) != nil {
			return
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(out)+2), uint16(len(out))), out...)); err != nil {
			return
		}
	}
}

// conns are the open connections of one listener.
type conns struct {
	mu  sync.Mutex // guards all and what it points to
	all map[net.Conn]*conn
}

type conn struct {
	from netip.Addr
	last time.Time // it came or asked
}

func (cs *conns) add(c net.Conn, now time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	from := addrOf(c.RemoteAddr()).Unmap()
	same := 0
	var quietest, quietestHere net.Conn
	for k, o := range cs.all {
		if quietest == nil || o.last.Before(cs.all[quietest].last) {
			quietest = k
		}
		if o.from == from {
			same++
			if quietestHere == nil || o.last.Before(cs.all[quietestHere].last) {
				quietestHere = k
			}
		}
	}
	switch {
	case same >= maxConnsPerSource:
		cs.drop(quietestHere)
	case len(cs.all) >= maxConns:
		cs.drop(quietest)
	}
	cs.all[c] = &conn{from: from, last: now}
}

// drop needs mu. The connection's own goroutine notices and ends.
func (cs *conns) drop(c net.Conn) {
	c.Close()
	delete(cs.all, c)
}

func (cs *conns) touch(c net.Conn, now time.Time) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if o := cs.all[c]; o != nil {
		o.last = now
	}
}

func (cs *conns) remove(c net.Conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.drop(c)
}

func (cs *conns) closeAll() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.all {
		cs.drop(c)
	}
}
