// Package proxy takes connections from a cloud's balancers, which say by the
// PROXY protocol who calls and through which private link.
//
// What a balancer says is worth as much as its address: whoever is not listed
// is cut off before a byte of theirs is read, and a listed balancer's
// connection without a good header is none. The header is read by a goroutine
// of the connection's own, and Accept returns it with its Origin fixed, so that
// a caller who says nothing holds up nobody.
package proxy

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"cove.example/cove/link"
)

const (
	// patience is how long a header may take. Balancers send it with their
	// first packet.
	patience = 5 * time.Second
	// waiting bounds the connections whose header is being read.
	waiting = 4096
	// acceptAgain is the pause after a failed accept: a process without free
	// descriptors cannot accept for a while, and that is no end.
	acceptAgain = 100 * time.Millisecond
)

// Refusal says why a connection was not taken.
type Refusal string

// The refusals, a closed list.
const (
	Unlisted  Refusal = "unlisted"  // its peer is no balancer of ours
	NoHeader  Refusal = "no header" // it does not begin with one
	Malformed Refusal = "malformed" // the header is not a good one
	Late      Refusal = "late"      // the header did not come in time, or not whole
	Crowded   Refusal = "crowded"   // too many are waited for
	Forbidden Refusal = "forbidden" // Admit said no
)

// Refusals is the closed list.
var Refusals = []Refusal{Unlisted, NoHeader, Malformed, Late, Crowded, Forbidden}

// Config is what a Listener is made of.
type Config struct {
	From []netip.Prefix // the balancers; nobody else is listened to
	// Admit says whether a connection is taken; nil takes all. It is called
	// once, when the header has been read, and must not wait.
	Admit func(link.Origin) bool
	// Refused is told of each connection that is not taken; nil is not. It
	// must not wait.
	Refused func(peer netip.AddrPort, why Refusal, err error)
	// Patience is how long a header may take; 0 is five seconds.
	Patience time.Duration
}

// Listener is a net.Listener of connections whose header was read.
type Listener struct {
	below net.Listener
	cfg   Config
	out   chan net.Conn
	slots chan struct{}
	open  link.Set
	once  sync.Once
	done  chan struct{}
}

// Listen takes connections from l, which is the Listener's from now on.
func Listen(l *net.TCPListener, c Config) *Listener {
	if c.Patience == 0 {
		c.Patience = patience
	}
	if c.Refused == nil {
		c.Refused = func(netip.AddrPort, Refusal, error) {}
	}
	p := &Listener{below: l, cfg: c, out: make(chan net.Conn), slots: make(chan struct{}, waiting), done: make(chan struct{})}
	go p.run(l)
	return p
}

func (p *Listener) run(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-p.done:
				return
			case <-time.After(acceptAgain):
			}
			continue
		}
		peer := c.RemoteAddr().(*net.TCPAddr).AddrPort()
		peer = netip.AddrPortFrom(peer.Addr().Unmap().WithZone(""), peer.Port())
		if !p.listed(peer.Addr()) {
			p.refuse(c, peer, Unlisted, nil)
			continue
		}
		select {
		case p.slots <- struct{}{}:
			go p.take(c, peer)
		default:
			p.refuse(c, peer, Crowded, nil)
		}
	}
}

func (p *Listener) listed(peer netip.Addr) bool {
	for _, from := range p.cfg.From {
		if from.Contains(peer) {
			return true
		}
	}
	return false
}

func (p *Listener) refuse(c *net.TCPConn, peer netip.AddrPort, why Refusal, err error) {
	link.Abort(c)
	p.cfg.Refused(peer, why, err)
}

// take reads a connection's header and hands it out.
func (p *Listener) take(c *net.TCPConn, peer netip.AddrPort) {
	defer func() { <-p.slots }()
	h, err := p.header(c)
	if err != nil {
		p.refuse(c, peer, because(err), err)
		return
	}
	o := link.Origin{
		Kind: link.Proxy, Link: string(h.Link), Balancer: peer.Addr(), Remote: h.Source, Local: h.Destination,
	}
	if h.Local {
		local := c.LocalAddr().(*net.TCPAddr).AddrPort()
		o.Remote, o.Local = peer, netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	}
	if p.cfg.Admit != nil && !p.cfg.Admit(o) {
		p.refuse(c, peer, Forbidden, nil)
		return
	}
	conn := p.open.Add(c, o)
	select {
	case p.out <- conn:
	case <-p.done:
		_ = conn.Close()
	}
}

func (p *Listener) header(c *net.TCPConn) (Header, error) {
	if err := c.SetReadDeadline(time.Now().Add(p.cfg.Patience)); err != nil {
		return Header{}, err
	}
	h, err := ReadHeader(c)
	if err != nil {
		return Header{}, err
	}
	return h, c.SetReadDeadline(time.Time{})
}

func because(err error) Refusal {
	switch {
	case errors.Is(err, ErrNoHeader):
		return NoHeader
	case errors.Is(err, ErrMalformed):
		return Malformed
	case errors.Is(err, os.ErrDeadlineExceeded):
		return Late
	}
	return Late // it was closed before the header was whole
}

// Accept returns the next connection, a *link.Conn.
func (p *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-p.out:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Reset ends the connections that have lost their way in, with what is under
// way on them.
func (p *Listener) Reset(lost func(link.Origin) bool) { p.open.Reset(lost) }

// Close ends the listener. What Accept has given out stays open; headers that
// are being read lead nowhere, and are given up when their time is over.
func (p *Listener) Close() error {
	err := net.ErrClosed
	p.once.Do(func() {
		close(p.done)
		err = p.below.Close()
	})
	return err
}

// Addr is where the balancers connect to.
func (p *Listener) Addr() net.Addr { return p.below.Addr() }
