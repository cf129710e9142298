//go:build linux

package wireguard

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/fault"
	"cove.example/cove/linktest"
	"cove.example/cove/network"
)

// An interface gets the routes of what its network was joined with since, and
// whoever runs it is told of a route of this machine's own that is in the way.
func TestRootUpRefreshes(t *testing.T) {
	linktest.RequireRoot(t)
	s := newSite(t)
	v := s.network("contoso", laptop)
	v.Prefixes, v.Addresses = append(v.Prefixes, netip.MustParsePrefix("10.9.0.0/16")), v.Addresses.With(netip.MustParseAddr("10.9.0.7"), true)
	v.apply()
	n, c := s.machine(v, laptop)
	gone := netip.MustParsePrefix("10.8.0.0/16") // of a network that it is joined with no more
	c.AllowedIPs = append(c.AllowedIPs, gone)
	var i *Interface
	var err error
	n.Do(func() { i, err = Up(t.Context(), c, "cove0") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	waiting, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	if err := i.WaitHandshake(waiting); err != nil {
		t.Fatal(err)
	}
	refresh := func() (err error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		n.Do(func() { err = i.Refresh(ctx) })
		return err
	}
	n.Run("ip", "route", "add", "blackhole", "10.9.0.0/16")
	if err := refresh(); !fault.Is(err, fault.Conflict) {
		t.Errorf("a route that is there already: %v", err)
	}
	n.Run("ip", "route", "del", "blackhole", "10.9.0.0/16")
	for range 2 { // and nothing happens the second time
		if err := refresh(); err != nil {
			t.Fatal(err)
		}
	}
	routes := n.Run("ip", "route", "show", "dev", "cove0")
	if !strings.Contains(routes, "10.9.0.0/16") || strings.Contains(routes, gone.String()) || !strings.Contains(routes, network.Resolver.String()) {
		t.Errorf("the routes are\n%s", routes)
	}
	s.want(n, "contoso 10.9.0.7:443 10.0.0.4", "--resolve", "registry.cove.test:443:10.9.0.7", "https://registry.cove.test/whoami")
}
