package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"cove.example/cove/fault"
)

// Interface is a member's tunnel as a network interface of this machine.
type Interface struct {
	name   string
	server netip.Addr // where the tunnel's own packets go
	device *device.Device
	stop   func() bool

	mu     sync.Mutex // held by Refresh
	config MemberConfig
}

// Up makes the interface, its address and the routes for AllowedIPs in the
// network namespace of the calling thread. It needs CAP_NET_ADMIN. The
// interface is gone, with its address and routes, when ctx ends, when it is
// closed, or when the process dies.
func Up(ctx context.Context, c MemberConfig, name string) (*Interface, error) {
	if err := fault.Problems(c.check()); err != nil {
		return nil, err
	}
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return nil, fault.Newf(fault.Invalid, "%q is not an interface name: 1 to %d characters", name, unix.IFNAMSIZ-1)
	}
	at, err := c.resolveEndpoint(ctx)
	if err != nil {
		return nil, err
	}
	// The tunnel's own packets would go into the tunnel.
	if err := c.spares(at.Addr()); err != nil {
		return nil, err
	}
	// CreateTUN joins a TUN interface that is already there and lets two
	// programs fight over it.
	if _, err := net.InterfaceByName(name); err == nil {
		return nil, fault.Newf(fault.Conflict, "there is an interface %s already", name)
	}
	t, err := tun.CreateTUN(name, c.mtu())
	if err != nil {
		return nil, tunError(name, err)
	}
	i := &Interface{name: name, server: at.Addr(), config: c}
	if i.device, err = c.start(newSteady(t), at); err != nil {
		return nil, err
	}
	if err := configure(name, c.Address, c.AllowedIPs); err != nil {
		i.device.Close()
		return nil, fmt.Errorf("set up interface %s: %w", name, err)
	}
	i.stop = context.AfterFunc(ctx, i.device.Close)
	return i, nil
}

// steady is an interface whose going up and down is nothing to WireGuard's
// device. That would close its UDP socket and open it anew, by a thread of its
// own, which may be in another network namespace than the one that called Up;
// and the first that is reported of a new interface is that it is down.
type steady struct {
	tun.Device
	events chan tun.Event
}

func newSteady(t tun.Device) steady {
	s := steady{t, make(chan tun.Event)}
	go func() {
		defer close(s.events)
		for e := range t.Events() {
			if e &= tun.EventMTUUpdate; e != 0 {
				s.events <- e
			}
		}
	}()
	return s
}

func (s steady) Events() <-chan tun.Event { return s.events }

func tunError(name string, err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fault.Newf(fault.Denied, "making interface %s takes root (CAP_NET_ADMIN); cove join --userspace does without", name)
	}
	if _, missing := os.Stat("/dev/net/tun"); missing != nil {
		return fault.Newf(fault.Unsupported, "there is no /dev/net/tun here; cove join --userspace does without")
	}
	return fmt.Errorf("make interface %s: %w", name, err)
}

// Name is the interface's name.
func (i *Interface) Name() string { return i.name }

// WaitHandshake returns when the server has answered, or with ctx's error.
func (i *Interface) WaitHandshake(ctx context.Context) error {
	return waitHandshake(ctx, i.device, i.config.Endpoint)
}

// Done is closed when the interface is gone.
func (i *Interface) Done() <-chan struct{} { return i.device.Wait() }

// Close takes the interface away and returns when it is gone.
func (i *Interface) Close() error {
	i.stop()
	i.device.Close()
	<-i.device.Wait()
	return nil
}

// Refresh asks the network for its address spaces and routes them into the
// tunnel, as joining anew would. Connections stay as they are.
func (i *Interface) Refresh(ctx context.Context) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	at := netip.AddrPortFrom(i.config.Resolver, 53).String()
	list, err := spaces(ctx, func(ctx context.Context, proto string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, proto, at)
	})
	if err != nil {
		return err
	}
	c, err := i.config.routing(list)
	if err == nil {
		err = c.spares(i.server)
	}
	if err != nil {
		return err
	}
	if err := c.allow(i.device); err != nil {
		return err
	}
	c.AllowedIPs, err = reroute(i.name, c.Address, i.config.AllowedIPs, c.AllowedIPs)
	i.config = c // what could not be routed is tried again the next time
	return err
}

// reroute makes the interface's routes those that are wanted, and returns those
// that it has then.
func reroute(name string, a netip.Addr, have, want []netip.Prefix) ([]netip.Prefix, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return have, err
	}
	n, err := openNetlink()
	if err != nil {
		return have, err
	}
	defer n.close()
	var now []netip.Prefix
	var all []error
	for _, r := range have {
		if slices.Contains(want, r) {
			now = append(now, r)
		} else if err := n.removeRoute(link.Index, r, a); err != nil && !errors.Is(err, unix.ESRCH) {
			all = append(all, fmt.Errorf("route to %s: %w", r, err))
		}
	}
	for _, r := range want {
		if slices.Contains(have, r) {
			continue
		}
		if err := n.lead(link.Index, r, a); err != nil {
			all = append(all, err)
		} else {
			now = append(now, r)
		}
	}
	return now, errors.Join(all...)
}

// lead adds a route that must not be there.
func (n *netlink) lead(index int, to netip.Prefix, a netip.Addr) error {
	err := n.addRoute(index, to, a)
	switch {
	case errors.Is(err, os.ErrExist):
		return fault.Newf(fault.Conflict, "this machine already has a route to %s; leave it out of AllowedIPs or take that route away", to)
	case err != nil:
		return fmt.Errorf("route to %s: %w", to, err)
	}
	return nil
}

// configure gives the interface its address, brings it up and routes to it.
func configure(name string, a netip.Addr, routes []netip.Prefix) error {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	n, err := openNetlink()
	if err != nil {
		return err
	}
	defer n.close()
	if err := n.addAddress(link.Index, netip.PrefixFrom(a, 32)); err != nil {
		return fmt.Errorf("address %s: %w", a, err)
	}
	if err := n.linkUp(link.Index); err != nil {
		return fmt.Errorf("bring it up: %w", err)
	}
	for _, r := range routes {
		if err := n.lead(link.Index, r, a); err != nil {
			return err
		}
	}
	return nil
}
