package wireguard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"cove.example/cove/fault"
)

// Interface is a member's tunnel as a network interface of this machine.
type Interface struct {
	name   string
	config MemberConfig
	device *device.Device
	stop   func() bool
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
	if c.carries(at.Addr()) {
		return nil, fault.Newf(fault.Invalid, "the server's endpoint %s lies inside AllowedIPs, so the tunnel would have to carry itself; give the server another --wireguard-endpoint or the member fewer AllowedIPs", at.Addr())
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
	i := &Interface{name: name, config: c}
	if i.device, err = c.start(t, at); err != nil {
		return nil, err
	}
	if err := configure(name, c.Address, c.AllowedIPs); err != nil {
		i.device.Close()
		return nil, fmt.Errorf("set up interface %s: %w", name, err)
	}
	i.stop = context.AfterFunc(ctx, i.device.Close)
	return i, nil
}

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
		if err := n.addRoute(link.Index, r, a); errors.Is(err, os.ErrExist) {
			return fault.Newf(fault.Conflict, "this machine already has a route to %s; leave it out of AllowedIPs or take that route away", r)
		} else if err != nil {
			return fmt.Errorf("route to %s: %w", r, err)
		}
	}
	return nil
}
