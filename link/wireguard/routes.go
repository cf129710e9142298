package wireguard

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
	"golang.zx2c4.com/wireguard/device"

	"cove.example/cove/fault"
	"cove.example/cove/network"
)

// resolver reaches the network's resolver: "udp" or "tcp".
type resolver func(ctx context.Context, proto string) (net.Conn, error)

// maxSpaces bounds what a network may have a member route: its own address
// spaces and those of the networks that are peered with it.
const maxSpaces = 4096

// spaces asks the network which address spaces lead into it now. The answer
// comes through the tunnel, from whoever holds the server's key.
func spaces(ctx context.Context, to resolver) ([]netip.Prefix, error) {
	q := question(uint16(rand.Uint32()), dnsmessage.MustNewName(network.RoutesName), dnsmessage.TypeTXT)
	ctx, cancel := context.WithTimeout(ctx, lookupTry)
	defer cancel()
	m, err := exchange(ctx, to, q)
	if err != nil {
		return nil, err
	}
	return readSpaces(m)
}

func readSpaces(m *dnsmessage.Message) (out []netip.Prefix, err error) {
	for _, r := range m.Answers {
		body, ok := r.Body.(*dnsmessage.TXTResource)
		if !ok || !strings.EqualFold(r.Header.Name.String(), network.RoutesName) {
			continue
		}
		p, err := netip.ParsePrefix(strings.Join(body.TXT, ""))
		if err != nil || len(out) == maxSpaces {
			return nil, fmt.Errorf("%d address spaces, and then %.40q", len(out), body.TXT)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, errNoSuchHost
	}
	return out, nil
}

// routing is the configuration with other address spaces. What else it leads
// into the tunnel are single addresses, such as the resolver's, and stays.
func (c MemberConfig) routing(spaces []netip.Prefix) (MemberConfig, error) {
	single := slices.DeleteFunc(slices.Clone(c.AllowedIPs), func(p netip.Prefix) bool { return !p.IsSingleIP() })
	c.AllowedIPs = append(slices.Clone(spaces), single...)
	slices.SortFunc(c.AllowedIPs, netip.Prefix.Compare)
	c.AllowedIPs = slices.Compact(c.AllowedIPs)
	return c, fault.Problems(c.check())
}

// spares refuses a configuration that would route the tunnel's own packets
// into it.
func (c MemberConfig) spares(server netip.Addr) error {
	if c.carries(server) {
		return fault.Newf(fault.Invalid, "the server's endpoint %s lies inside AllowedIPs, so the tunnel would have to carry itself; give the server another --wireguard-endpoint or the member fewer AllowedIPs", server)
	}
	return nil
}

// allow makes the device send to what the configuration has, and take from it.
func (c MemberConfig) allow(d *device.Device) error {
	var b strings.Builder
	fmt.Fprintf(&b, "public_key=%s\nupdate_only=true\nreplace_allowed_ips=true\n", c.ServerKey.hex())
	for _, p := range c.AllowedIPs {
		fmt.Fprintf(&b, "allowed_ip=%s\n", p)
	}
	return d.IpcSet(b.String())
}

// Refresh asks the network for its address spaces and routes them into the
// tunnel, as joining anew would. Connections stay as they are.
func (t *Tunnel) Refresh(ctx context.Context) error {
	list, err := spaces(ctx, t.resolver)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.config.Load().routing(list)
	if err != nil {
		return err
	}
	if err := c.allow(t.device); err != nil {
		return err
	}
	t.config.Store(&c)
	return nil
}
