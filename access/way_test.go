package access

import (
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/audit"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/registry"
)

func byHost(local string) link.Origin {
	o := inside(local)
	o.Kind = link.Host
	return o
}

func byLink(id string) link.Origin {
	return link.Origin{
		Kind: link.Proxy, Link: id, Balancer: netip.MustParseAddr("192.0.2.1"),
		Remote: netip.MustParseAddrPort("203.0.113.9:40000"), Local: netip.MustParseAddrPort("10.9.0.4:443"),
	}
}

// An endpoint decides whichever way its address was called, and who comes by a
// private link that belongs to none is refused whatever the registry's rules
// say: the address in a balancer's header is one that a stranger has chosen.
// row:102
func TestDecideByWay(t *testing.T) {
	open := func(*registry.Settings) {}
	lets := rules("203.0.113.9/32")
	for _, c := range []struct {
		name string
		from link.Origin
		set  func(*registry.Settings)
		at   *network.Endpoint
		want string
	}{
		{"host, approved", byHost("10.0.0.7"), closed, endpoint("Approved", harborID), "allowed"},
		{"host, pending", byHost("10.0.0.7"), open, endpoint("Pending", harborID), "COVE-NET-005 endpoint: the connection c1 of the private endpoint pe is Pending, not Approved"},
		{"host, elsewhere", byHost("10.0.0.7"), open, endpoint("Approved", quayID), "COVE-NET-006 endpoint: the private endpoint pe leads to quay, and the name asked for is harbor.cr.cove.internal"},
		{"host, gone", byHost("10.0.0.7"), rules("10.0.0.20/32"), nil, "COVE-NET-023 rules: the default action is Deny, and the caller inside the virtual network has no service endpoint"},
		{"link, approved", byLink("azure:0x0000002a"), closed, endpoint("Approved", harborID), "allowed"},
		{"link, rejected", byLink("azure:0x0000002a"), open, endpoint("Rejected", harborID), "COVE-NET-005 endpoint: the connection c1 of the private endpoint pe is Rejected, not Approved"},
		{"link, elsewhere", byLink("aws:vpce-1"), open, endpoint("Approved", quayID), "COVE-NET-006 endpoint: the private endpoint pe leads to quay, and the name asked for is harbor.cr.cove.internal"},
		{"link, unknown", byLink("azure:0x0000002a"), open, nil, "COVE-NET-031 endpoint: no private endpoint belongs to Azure private link 0x0000002a"},
		{"link, unknown, and a rule for the address", byLink("aws:vpce-1"), lets, nil, "COVE-NET-031 endpoint: no private endpoint belongs to AWS endpoint vpce-1"},
		{"no link", byLink(""), lets, nil, "COVE-NET-032 endpoint: the balancer named no private link, and it leads to nothing else"},
	} {
		f := Facts{Ask: Ask{ID: id, Origin: c.from, Host: host, Want: []Scope{app}}, Registry: harbor(c.set)}
		f.Endpoint = c.at
		f.Proof = Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}
		if got := sentence(Decide(f)); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

// What an event has kept tells the way, and asking again asks by the same way.
func TestWayIsRemembered(t *testing.T) {
	for words, from := range map[string]link.Origin{
		"at this machine's address 10.0.0.7, which is one of the virtual network office": byHost("10.0.0.7"),
		"through the balancer 192.0.2.1, as Azure private link 0x0000002a":               byLink("azure:0x0000002a"),
		"through the balancer 192.0.2.1, which named no private link":                    byLink(""),
		"inside the virtual network office, at its address 10.0.0.7":                     inside("10.0.0.7"),
		"by the public door": outside("203.0.113.9"),
	} {
		f := Facts{Ask: Ask{ID: id, Origin: from, Host: host, Want: []Scope{app}}, Registry: harbor(closed)}
		v := Decide(f)
		e := audit.Event{ID: f.Ask.ID, Detail: detail(v)}
		x, err := Explain(e)
		if err != nil || !strings.Contains(x.Steps[0].Why, words) {
			t.Errorf("explained as %q, %v, want %q", x.Steps[0].Why, err, words)
		}
		again, ok := Recall(e)
		want := from
		want.Remote, want.Local = addrPort(from.Remote.Addr()), addrPort(from.Local.Addr())
		if from.Kind == link.Public {
			want.Local = netip.AddrPort{}
		}
		if !ok || again.Ask.Origin != want {
			t.Errorf("asked again as %+v, want %+v", again.Ask.Origin, want)
		}
	}
}

// Who guesses passwords by one private link uses up nobody else's guesses:
// addresses in clients' networks are the same ones everywhere.
func TestGuessesByLinksAreApart(t *testing.T) {
	seen := map[string]bool{}
	for _, o := range []link.Origin{byLink("azure:0x0000002a"), byLink("azure:0x0000002b"), outside("203.0.113.9")} {
		seen[source(o)] = true
	}
	if len(seen) != 3 {
		t.Errorf("sources: %v", seen)
	}
}
