// Package outbound is the one way by which the server speaks to others.
//
// What it fetches, callers have named: the source of an import, later a
// webhook or an issuer. So every request goes through a Dialer, which resolves
// the name, looks at every address of the answer, and dials an address that it
// has looked at. A name cannot mean one thing when it is checked and another
// when it is dialled.
//
// Whatever goes wrong before there is a connection is told in one sentence
// (ErrUnreachable): a caller must not learn from us which addresses exist in
// the network that we stand in.
//
// It knows no proxy: a proxy would do the resolving in our place.
package outbound

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Feature is what a request is made for. Each has its own allow-list.
type Feature string

// The features.
const (
	Import  Feature = "import"
	OIDC    Feature = "oidc"
	Webhook Feature = "webhook"
	Logs    Feature = "logs"
)

var features = []Feature{Import, OIDC, Webhook, Logs}

// Allow are the ranges, otherwise refused, that a feature may reach.
type Allow map[Feature][]netip.Prefix

// ParseAllow reads values of --outbound-allow: FEATURE=CIDR, such as
// import=10.1.0.0/16. It returns every problem.
func ParseAllow(values []string) (Allow, []error) {
	allow := Allow{}
	var problems []error
	for _, v := range values {
		name, text, _ := strings.Cut(v, "=")
		f := Feature(name)
		if !slices.Contains(features, f) {
			problems = append(problems, fmt.Errorf("%q: expected FEATURE=CIDR, where the feature is import, oidc, webhook or logs", v))
			continue
		}
		p, err := netip.ParsePrefix(text)
		switch {
		case err != nil || p.Addr().Is4In6():
			problems = append(problems, fmt.Errorf("%q: %q is not a range such as 10.1.0.0/16", v, text))
		case p != p.Masked():
			problems = append(problems, fmt.Errorf("%q: the range begins at %s", v, p.Masked()))
		default:
			allow[f] = append(allow[f], p)
		}
	}
	return allow, problems
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// never are addresses that no allow-list opens: those of the machine's own
// link, where clouds hand out the machine's credentials to whoever asks, and
// what is nobody's address.
var never = prefixes(
	"0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
	"168.63.129.16/32",   // Azure's host, and our resolver inside virtual networks
	"100.100.100.200/32", // Alibaba Cloud's metadata
	"::/96", "::ffff:0:0/96", "fe80::/10", "ff00::/8",
	"fd00:ec2::/32", // Amazon's metadata and resolver
)

// inner are addresses that are not the internet's (RFC 6890 and the registries
// of special-purpose addresses that followed it).
var inner = prefixes(
	"10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	// Below 2000::/3: IETF protocols with Teredo and ORCHID, documentation,
	// 6to4, whose addresses have an IPv4 address inside.
	"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
)

// global is all of IPv6 that has been given out. What lies outside it (NAT64,
// unique local, site local, discard, segment routing) is inner.
var global = netip.MustParsePrefix("2000::/3")

// httpsPort is where a feature may connect. An address that the operator has
// opened to a feature may be spoken to at any port: in-house services live at
// their own.
const httpsPort = 443

// Refusal says why an address may not be dialled; it is for the log.
type Refusal struct {
	To  netip.AddrPort
	Why string
}

func (r *Refusal) Error() string { return "not dialled: " + r.To.String() + " " + r.Why }

// Check decides about one address. own reports the server's own listeners.
func (a Allow) Check(f Feature, to netip.AddrPort, own func(netip.AddrPort) bool) error {
	refuse := func(why string) error { return &Refusal{to, why} }
	addr := to.Addr()
	within := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(addr) })
	}
	switch {
	case !addr.IsValid(), to.Port() == 0:
		return refuse("is no address")
	case addr.Zone() != "":
		return refuse("names an interface of this machine")
	case addr.Is4In6():
		// Two families of one address: what one filter lets pass as IPv6
		// the kernel dials as IPv4.
		return refuse("is an IPv4 address in IPv6 form")
	case within(never):
		return refuse("is never dialled")
	case own != nil && own(to):
		return refuse("is this server's own")
	case within(a[f]):
		return nil
	case within(inner), addr.Is6() && !global.Contains(addr):
		return refuse("is not an address of the internet; --outbound-allow " + string(f) + "=… would open it")
	case to.Port() != httpsPort:
		return refuse("has a port other than 443")
	}
	return nil
}
