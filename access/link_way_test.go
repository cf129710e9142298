package access_test

import (
	"net/netip"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

type mapped map[string]*network.Endpoint

func (m mapped) LinkEndpoint(id string) *network.Endpoint { return m[id] }

// A balancer's private link leads to the endpoint that it is mapped to, and the
// same id said by anybody else is worth nothing. row:102
func TestAPrivateLinkLeadsToItsEndpoint(t *testing.T) {
	w := open(t)
	w.Links = mapped{"azure:0x0000002a": {
		ID: arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/pe"), Registry: w.registryID("harbor"), State: "Approved",
	}}
	good := basic("harbor", "first-harbor")
	for _, c := range []struct {
		what string
		from link.Origin
		want string
	}{
		{"mapped", link.Origin{Kind: link.Proxy, Link: "azure:0x0000002a"}, ""},
		{"another", link.Origin{Kind: link.Proxy, Link: "azure:0x0000002b"}, "COVE-NET-031"},
		{"none", link.Origin{Kind: link.Proxy}, "COVE-NET-032"},
	} {
		a := ask(good, repo("a", "push"))
		a.Origin = c.from
		a.Origin.Remote = netip.MustParseAddrPort("10.0.0.20:1")
		v := w.Check(t.Context(), a)
		if v.Reason != c.want || v.Allow != (c.want == "") || v.Allow && v.Endpoint == "" {
			t.Errorf("%s: %s", c.what, outcome(v))
		}
	}
	w.Links = nil
	a := ask(good)
	a.Origin = link.Origin{Kind: link.Proxy, Link: "azure:0x0000002a", Remote: netip.MustParseAddrPort("10.0.0.20:1")}
	if v := w.Check(t.Context(), a); v.Reason != string(reason.LinkUnknown) {
		t.Error(outcome(v))
	}
}

// tenant is networks with one member at every address, and nothing else.
type tenant struct{ who *network.Member }

func (tenant) Endpoint(string, netip.Addr) *network.Endpoint { return nil }
func (o tenant) Member(string, netip.Addr) *network.Member   { return o.who }

// Who comes by an address of the machine is no member, whatever address it
// comes from: only a tunnel proves one.
func TestNoMemberByAnAddressOfTheMachine(t *testing.T) {
	w := open(t)
	at := netip.MustParseAddr("10.0.0.20")
	w.Networks = tenant{&network.Member{Subnet: arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/pier"), SubnetKey: "pier", Kind: "vm", Service: true, Served: true}}
	w.change("harbor", func(s *registry.Settings) { s.DefaultAllow, s.Subnets = false, map[string]int{"pier": 1} })
	for kind, want := range map[link.Kind]string{link.Overlay: "", link.Host: "COVE-NET-023"} {
		a := ask(basic("harbor", "first-harbor"))
		a.Origin = link.Origin{Kind: kind, Network: "n", Remote: netip.AddrPortFrom(at, 1), Local: netip.MustParseAddrPort("100.100.100.100:443")}
		if v := w.Check(t.Context(), a); v.Reason != want {
			t.Errorf("%s: %s", kind, outcome(v))
		}
	}
}
