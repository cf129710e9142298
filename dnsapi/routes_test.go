package dnsapi

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/network"
	"cove.example/cove/resource"
)

// A member finds its routes at the resolver's own name, in whatever case it
// asks and whatever zones are linked to its network; nobody outside, and no
// other type, finds anything there.
func TestRoutesAreTold(t *testing.T) {
	d := deploy(t)
	d.zone(t, "a", "resolver.arpa", vnet, map[string]string{"x": "10.0.0.7"})
	var asked string
	c := Config{Views: d.Of, RoutesName: network.RoutesName, Routes: func(_ context.Context, in string, from netip.Addr) ([]netip.Prefix, error) {
		asked = in + " " + from.String()
		return []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.1.0.0/16")}, nil
	}}
	inside, outside := serve(t, New(c), vnet), serve(t, New(c), "")
	const want = "NOERROR\n_RouteS.resolver.arpa. 0 IN TXT \"10.0.0.0/16\"\n_RouteS.resolver.arpa. 0 IN TXT \"10.1.0.0/16\""
	if got := dig(t, inside, "_RouteS.resolver.arpa", "TXT"); got != want || asked != vnet+" 127.0.0.1" {
		t.Errorf("%s is told\n%s", asked, got)
	}
	if got := dig(t, inside, "_routes.resolver.arpa", "A"); got != "NXDOMAIN" {
		t.Errorf("an address there: %s", got)
	}
	if got := dig(t, outside, "_routes.resolver.arpa", "TXT"); got != "REFUSED" {
		t.Errorf("outside: %s", got)
	}
	for err, want := range map[error]string{resource.ErrUnknown: "REFUSED", errors.New("no database today"): "SERVFAIL"} {
		c.Routes = func(context.Context, string, netip.Addr) ([]netip.Prefix, error) { return nil, err }
		if got := dig(t, serve(t, New(c), vnet), "_routes.resolver.arpa", "TXT"); !strings.HasPrefix(got, want) {
			t.Errorf("%v: %s", err, got)
		}
	}
}
