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
	Overlay             // an address inside a virtual network
)

func (k Kind) String() string {
	if k == Overlay {
		return "virtual network"
	}
	return "public"
}

// Origin is where a connection came from and which way it took.
type Origin struct {
	Kind    Kind
	Remote  netip.AddrPort // the caller as the socket names it, unmapped
	Local   netip.AddrPort // the address of ours that was called
	Network string         // ARM id (arm.ID.Key form) of the virtual network; "" by the public door
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
