package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// What a firewall is told: the hosts at port 443, the resolvers, the tunnel;
// each family by its own word, and nothing where there is nothing of it.
// row:108
func TestFirewallForms(t *testing.T) {
	w := way{
		of: "harbor.cr.test", names: []string{"harbor.cr.test", "harbor.eu.data.cr.test"},
		addresses: addrs("203.0.113.10", "2001:db8::10"), resolvers: addrs("192.0.2.53"), tunnel: netip.MustParseAddrPort("203.0.113.10:51820"),
	}
	if got, want := w.noProxy(), "harbor.cr.test,harbor.eu.data.cr.test\n"; got != want {
		t.Errorf("no-proxy: %q", got)
	}
	var rules []string
	for line := range strings.Lines(w.nftables()) {
		if strings.Contains(line, "daddr") {
			rules = append(rules, strings.TrimSpace(line))
		}
	}
	want := []string{
		"ip daddr { 203.0.113.10 } tcp dport 443 accept", "ip6 daddr { 2001:db8::10 } tcp dport 443 accept",
		"ip daddr { 192.0.2.53 } udp dport 53 accept", "ip daddr { 192.0.2.53 } tcp dport 53 accept",
		"ip daddr { 203.0.113.10 } udp dport 51820 accept",
	}
	if !slices.Equal(rules, want) || !strings.Contains(w.nftables(), "policy drop;") {
		t.Errorf("nftables:\n%s", w.nftables())
	}
	if w.resolvers = nil; !strings.Contains(w.nftables(), "# The resolver is this machine itself") {
		t.Errorf("without a resolver elsewhere:\n%s", w.nftables())
	}
	var policy struct {
		Kind string
		Spec struct {
			PolicyTypes []string `yaml:"policyTypes"`
			Egress      []struct {
				To []struct {
					IPBlock struct{ CIDR string } `yaml:"ipBlock"`
				}
				Ports []struct {
					Protocol string
					Port     int
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(w.networkPolicy()), &policy); err != nil {
		t.Fatalf("%v\n%s", err, w.networkPolicy())
	}
	to := policy.Spec.Egress[0]
	if policy.Kind != "NetworkPolicy" || !slices.Equal(policy.Spec.PolicyTypes, []string{"Egress"}) || len(policy.Spec.Egress) != 2 ||
		len(to.To) != 2 || to.To[0].IPBlock.CIDR != "203.0.113.10/32" || to.To[1].IPBlock.CIDR != "2001:db8::10/128" || len(to.Ports) != 1 || to.Ports[0].Port != 443 {
		t.Errorf("%+v\n%s", policy, w.networkPolicy())
	}
}

// The rules are loaded as root, so a server's answer becomes part of them only
// where it is a host's name.
func TestFirewallTakesHostNamesOnly(t *testing.T) {
	var w way
	for _, v := range []any{"Harbor.cr.test", "harbor.cr.test", "x\nflush ruleset", "a b", "x}", "#", nil, 7, ""} {
		w.add(v)
	}
	if !slices.Equal(w.names, []string{"harbor.cr.test"}) {
		t.Errorf("the names are %q", w.names)
	}
}
