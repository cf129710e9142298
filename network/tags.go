package network

import "net/netip"

// ServiceTag is a tag that security rules may name, and the addresses that it
// stands for.
type ServiceTag struct {
	Name, Region, Service string // Region is "" for a tag of all of them
	Prefixes              []netip.Prefix
}

// ServiceTags are the tags whose addresses are the deployment's own: the ones
// of its public side, which firewalls outside need, and those inside networks.
// VirtualNetwork and Internet are not among them, since they stand for
// something else in each network.
func (cfg Config) ServiceTags(public ...netip.Addr) []ServiceTag {
	var front []netip.Prefix
	for _, a := range append(public, cfg.frontEnd()) {
		front = append(front, single(a.Unmap()))
	}
	out := []ServiceTag{
		{Name: string(tagCloud), Prefixes: front},
		{Name: string(tagRegistry), Service: string(tagRegistry), Prefixes: front},
	}
	// Every region of this deployment answers at the same addresses.
	for _, region := range cfg.regions() {
		out = append(out, ServiceTag{Name: string(tagRegistry) + "." + region, Region: region, Service: string(tagRegistry), Prefixes: front})
	}
	return append(
		out,
		ServiceTag{Name: string(tagBalancer), Prefixes: []netip.Prefix{single(Resolver)}},
		ServiceTag{Name: string(tagDNS), Service: string(tagDNS), Prefixes: []netip.Prefix{single(Resolver)}},
		ServiceTag{Name: string(tagMetadata), Service: string(tagMetadata), Prefixes: []netip.Prefix{single(Metadata)}},
	)
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
