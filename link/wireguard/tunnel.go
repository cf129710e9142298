package wireguard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"cove.example/cove/fault"
	"cove.example/cove/network"
)

// Tunnel is a member of a network inside this process: no root, no interface.
type Tunnel struct {
	config atomic.Pointer[MemberConfig]
	stack  *netStack
	device *device.Device
	mu     sync.Mutex // held by Refresh
}

// Dial starts a tunnel. It resolves the endpoint's name and sends the first
// handshake, but does not wait for the answer: WaitHandshake does.
func Dial(ctx context.Context, c MemberConfig) (*Tunnel, error) {
	if err := fault.Problems(c.check()); err != nil {
		return nil, err
	}
	at, err := c.resolveEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	n, err := newNetStack(c.mtu(), nil)
	if err != nil {
		return nil, err
	}
	if err := n.setRules(&rules{mtu: c.mtu(), ours: network.Table[netip.Addr, bool]{}.With(c.Address, true), anybody: true}); err != nil {
		_ = n.Close()
		return nil, err
	}
	d, err := c.start(n, at)
	if err != nil {
		return nil, err
	}
	t := &Tunnel{stack: n, device: d}
	t.config.Store(&c)
	return t, nil
}

// start makes a device on t that calls the server at once. It owns t.
func (c MemberConfig) start(t tun.Device, at netip.AddrPort) (*device.Device, error) {
	d := device.NewDevice(t, conn.NewDefaultBind(), device.NewLogger(device.LogLevelSilent, ""))
	if err := d.IpcSet("private_key=" + c.PrivateKey.hex() + "\n"); err != nil {
		d.Close()
		return nil, err
	}
	if err := d.Up(); err != nil {
		d.Close()
		return nil, fmt.Errorf("open a UDP socket: %w", err)
	}
	peer := "public_key=" + c.ServerKey.hex() + "\n"
	for _, p := range c.AllowedIPs {
		peer += "allowed_ip=" + p.String() + "\n"
	}
	if err := d.IpcSet(peer + call(at, c.ServerKey, int(c.Keepalive/time.Second))); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// resolveEndpoint asks the system's resolver, not the network's: the way to
// that one leads through the tunnel. An IPv4 address is preferred, because the
// server's port is IPv4 by default.
func (c MemberConfig) resolveEndpoint(ctx context.Context) (netip.AddrPort, error) {
	host, port, _ := net.SplitHostPort(c.Endpoint)
	n, _ := strconv.ParseUint(port, 10, 16) // check has seen both
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find the WireGuard server: %w", err)
	}
	best := addrs[0]
	for _, a := range addrs {
		if a.Unmap().Is4() {
			best = a
			break
		}
	}
	return netip.AddrPortFrom(best.Unmap(), uint16(n)), nil
}

// WaitHandshake returns when the server has answered, or with ctx's error.
// A server that does not know our key never answers.
func (t *Tunnel) WaitHandshake(ctx context.Context) error {
	return waitHandshake(ctx, t.device, t.config.Load().Endpoint)
}

func waitHandshake(ctx context.Context, d *device.Device, endpoint string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, p := range deviceStatus(d) {
			if !p.Handshake.IsZero() {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("no answer from the WireGuard server at %s: it is not there, UDP does not pass, or it does not know this member's key: %w", endpoint, ctx.Err())
		case <-d.Wait():
			return net.ErrClosed
		case <-tick.C:
		}
	}
}

// Carries reports whether a is reached through the tunnel.
func (t *Tunnel) Carries(a netip.Addr) bool { return t.config.Load().carries(a) }

// Status is how the tunnel does; the peer is the server.
func (t *Tunnel) Status() PeerStatus {
	s := deviceStatus(t.device)[0]
	s.Address = t.config.Load().Address
	return s
}

// DialContext connects to "host:port" inside the network. proto is tcp, tcp4,
// udp or udp4. A name is resolved by the network's own resolver; an address that
// the tunnel does not carry is ErrOutside.
func (t *Tunnel) DialContext(ctx context.Context, proto, address string) (net.Conn, error) {
	kind, ok := map[string]string{"tcp": "tcp", "tcp4": "tcp", "udp": "udp", "udp4": "udp"}[proto]
	if !ok {
		return nil, net.UnknownNetworkError(proto)
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, &net.AddrError{Err: "not a port number", Addr: port}
	}
	addrs, err := t.LookupNetIP(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		if !t.Carries(a) {
			err = ErrOutside.Detail("%s is not reached through this tunnel", a)
			continue
		}
		var c net.Conn
		if c, err = t.stack.dial(ctx, kind, netip.AddrPortFrom(a, uint16(n))); err == nil {
			return c, nil
		}
	}
	return nil, err
}

// ErrOutside says that a destination is not in the tunnel's AllowedIPs.
var ErrOutside = fault.New(fault.Denied, "the destination is not reached through this tunnel")

// Close ends the tunnel and every connection in it.
func (t *Tunnel) Close() error {
	t.device.Close()
	return nil
}
