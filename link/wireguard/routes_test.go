package wireguard

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"

	"cove.example/cove/fault"
	"cove.example/cove/network"
)

// A member that is there when its network is joined with another routes that
// one's addresses as soon as it asks, and its tunnel and connections go on.
func TestRefreshRoutesWhatWasJoinedSince(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop)
	tun := v.join(laptop)
	peer := netip.MustParseAddr("10.9.0.7")
	v.Prefixes, v.Addresses = append(v.Prefixes, netip.MustParsePrefix("10.9.0.0/16")), v.Addresses.With(peer, true)
	v.apply()
	open, err := tun.DialContext(t.Context(), "tcp", "10.0.0.7:443")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := tun.DialContext(t.Context(), "tcp", "10.9.0.7:443"); !errors.Is(err, ErrOutside) || tun.Carries(peer) {
		t.Fatalf("before: %v", err)
	}
	shaken := tun.Status().Handshake
	for range 2 { // and nothing happens the second time
		if err := tun.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	c, err := tun.DialContext(t.Context(), "tcp", "10.9.0.7:443")
	if err != nil {
		t.Fatalf("after: %v", err)
	}
	_ = c.Close()
	if got := l.get(tun, "https://registry.cove.test/whoami"); got != "contoso 10.0.0.7:443 10.0.0.4" {
		t.Errorf("its own network answers %q", got)
	}
	if _, err := open.Write([]byte("x")); err != nil || tun.Status().Handshake != shaken {
		t.Errorf("the tunnel was disturbed: %v", err)
	}
}

// What the network says is routed; the single addresses that a member leads into
// the tunnel besides stay, and nothing that is no IPv4 prefix gets there.
func TestRoutingKeepsSingleAddresses(t *testing.T) {
	c := sample(t)
	resolver := netip.PrefixFrom(network.Resolver, 32)
	c.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), resolver}
	now, err := c.routing([]netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.1.0.0/16")})
	if want := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), resolver}; err != nil || !slices.Equal(now.AllowedIPs, want) {
		t.Errorf("%v, %v", now.AllowedIPs, err)
	}
	if !slices.Contains(c.AllowedIPs, netip.MustParsePrefix("10.0.0.0/16")) {
		t.Error("the configuration that it was made of has changed")
	}
	for _, bad := range []string{"fd00::/64", "10.0.0.1/16"} {
		if _, err := c.routing([]netip.Prefix{netip.MustParsePrefix(bad)}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := now.spares(netip.MustParseAddr("10.1.2.3")); !fault.Is(err, fault.Invalid) {
		t.Errorf("a network over the server's own address: %v", err)
	}
}

func FuzzSpaces(f *testing.F) {
	q := question(7, dnsmessage.MustNewName(network.RoutesName), dnsmessage.TypeTXT)
	f.Add(reply(f, q, nil, network.RoutesName+` TXT "10.0.0.0/16"`, network.RoutesName+` TXT "10.1" ".0.0/16"`))
	f.Add(reply(f, q, func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }))
	f.Fuzz(func(t *testing.T, answer []byte) {
		m, err := readMessage(q, answer)
		if err != nil {
			return
		}
		if got, err := readSpaces(m); err == nil && (len(got) == 0 || len(got) > maxSpaces) {
			t.Errorf("%d address spaces", len(got))
		}
	})
}
