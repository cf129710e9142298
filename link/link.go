// Package link says how a connection arrived. What it says is fixed when the
// connection is accepted and is never taken from a header: authority does not
// come from what the caller controls.
package link

import (
	"context"
	"io"
	"net"
	"net/netip"
)

// Kind is the door a connection came in by.
type Kind uint8

// The doors.
const (
	Public  Kind = iota // the listener that faces everybody
	Overlay             // an address inside a virtual network that is a tunnel's
	Host                // an address of this machine that is one of a virtual network's
	Proxy               // a cloud's private link, which a balancer in front of us tells
)

func (k Kind) String() string {
	switch k {
	case Overlay:
		return "virtual network"
	case Host:
		return "host address"
	case Proxy:
		return "private link"
	}
	return "public"
}

// Inside reports whether a connection by this door called an address that a
// virtual network has.
func (k Kind) Inside() bool { return k == Overlay || k == Host }

// Origin is where a connection came from and which way it took.
type Origin struct {
	Kind    Kind
	Remote  netip.AddrPort // the caller as the socket names it, unmapped
	Local   netip.AddrPort // the address of ours that was called
	Network string         // ARM id (arm.ID.Key form) of the virtual network; "" by the public door and by a private link

	// Of a private link: its id as the balancer gave it, "azure:0x0000002a" or
	// "aws:vpce-0a1b2c", "" where it gave none; and the balancer, on whose word
	// alone Link, Remote and Local rest.
	Link     string
	Balancer netip.Addr
}

// Listener is a net.Listener whose connections know their Origin.
type Listener struct {
	net.Listener
	Kind    Kind
	Network string
}

// Accept waits for the next connection. It does not read from it, so one
// silent caller holds up nobody.
func (l Listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &Conn{Conn: c, Origin: Origin{Kind: l.Kind, Network: l.Network, Remote: addr(c.RemoteAddr()), Local: addr(c.LocalAddr())}}, nil
}

// Conn is a connection and its Origin.
type Conn struct {
	net.Conn
	Origin Origin
}

// ReadFrom hands the copy to the connection below. Without it net/http would
// not see that a plain TCP connection can sendfile, at five times the CPU.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	if to, ok := c.Conn.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{c.Conn}, r)
}

func addr(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

type key struct{}

// With returns a context that carries o; http.Server.ConnContext calls it.
func With(ctx context.Context, o Origin) context.Context { return context.WithValue(ctx, key{}, o) }

// From returns the Origin of the connection that ctx belongs to. The zero
// Origin is a public caller with no address, which no rule admits.
func From(ctx context.Context) Origin {
	o, _ := ctx.Value(key{}).(Origin)
	return o
}
