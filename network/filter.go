package network

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
)

// Flow is what the first packet from one machine to another says.
type Flow struct {
	Protocol         uint8 // IP's number: 1 ICMP, 6 TCP, 17 UDP
	From, To         netip.Addr
	FromPort, ToPort uint16 // 0 where the protocol has none
}

// Filter is the security groups of one network, made for looking a flow up. A
// group on a subnet and one on an interface must both let a flow pass, where it
// leaves and where it arrives. What answers a flow is not asked about again. It
// is never modified; nil lets everything pass.
type Filter struct {
	sides    Table[netip.Addr, *side] // by an interface's address; absent: no group
	inside   []netip.Prefix           // what VirtualNetwork stands for
	front    netip.Addr               // what AzureContainerRegistry stands for
	platform map[netip.Addr]tag       // the network's own services

	network string   // arm.ID.Key
	denials *denials // is told of what Admit denies; nil tells nobody
}

// side is what has a say about flows from and to one address.
type side struct{ out, in [][]rule }

// rule is one rule of a security group. The rules of a group are in the order
// of their priority.
type rule struct {
	group, name      string
	priority         int
	inbound, allow   bool
	protocol         uint8 // 0 is any
	from, to         places
	fromPort, toPort []portRange // none is any
}

type portRange struct{ first, last uint16 }

// places is what a rule says of one end.
type places struct {
	any      bool
	prefixes []netip.Prefix
	tags     []tag
}

// tag is a service tag: a name for addresses that the rule's writer need not
// know.
type tag string

// The tags that have addresses in a network.
const (
	tagNetwork  tag = "VirtualNetwork"
	tagInternet tag = "Internet"
	tagBalancer tag = "AzureLoadBalancer"
	tagRegistry tag = "AzureContainerRegistry"
	tagCloud    tag = "AzureCloud"
	tagDNS      tag = "AzurePlatformDNS"
	tagMetadata tag = "AzurePlatformIMDS"
)

// tags are those that a rule may name. The others of Azure's have no address in
// any network here, so a rule that names one matches nothing.
var tags = []tag{
	tagNetwork, tagInternet, tagBalancer, tagRegistry, tagCloud, tagDNS, tagMetadata,
	"AzureActiveDirectory", "AzureFrontDoor.FirstParty", "AzureKeyVault", "AzureMonitor",
	"AzureResourceManager", "GatewayManager", "MicrosoftContainerRegistry", "Sql", "Storage",
}

// Admit reports whether a machine may begin this flow. What it does not let
// pass is logged, in bounds.
func (f *Filter) Admit(w Flow) bool {
	r := f.denies(&w)
	if r == nil {
		return true
	}
	f.denials.note(f.network, r, w)
	return false
}

// Denies is the security rule that does not let a machine begin this flow, and
// its group; both are "" where it may.
func (f *Filter) Denies(w Flow) (group, name string) {
	if r := f.denies(&w); r != nil {
		return r.group, r.name
	}
	return "", ""
}

func (f *Filter) denies(w *Flow) *rule {
	if f == nil {
		return nil
	}
	if s, _ := f.sides.Get(w.From); s != nil {
		for _, group := range s.out {
			if r := f.decides(group, false, w); r != nil && !r.allow {
				return r
			}
		}
	}
	if s, _ := f.sides.Get(w.To); s != nil {
		for _, group := range s.in {
			if r := f.decides(group, true, w); r != nil && !r.allow {
				return r
			}
		}
	}
	return nil
}

// Watches reports whether any group has a say about what a sends or is sent.
func (f *Filter) Watches(a netip.Addr) bool {
	return f != nil && f.sides.Has(a)
}

// decides is the first rule of a group that is about this flow; nil where none
// is, which then lets it pass: the last rule of every group is about whatever
// is no service of the network's own.
func (f *Filter) decides(group []rule, inbound bool, w *Flow) *rule {
	// What the network itself answers at is no machine in it: groups have a
	// say about it only by the tag that is its own.
	service, named := f.platform[w.To]
	for i := range group {
		r := &group[i]
		if r.inbound != inbound || named && !slices.Contains(r.to.tags, service) {
			continue
		}
		if (r.protocol == 0 || r.protocol == w.Protocol) && inRanges(r.fromPort, w.FromPort) && inRanges(r.toPort, w.ToPort) &&
			f.within(&r.from, w.From) && f.within(&r.to, w.To) {
			return r
		}
	}
	return nil
}

func (f *Filter) within(p *places, a netip.Addr) bool {
	if p.any {
		return true
	}
	if within(p.prefixes, a) {
		return true
	}
	for _, t := range p.tags {
		if f.tagged(t, a) {
			return true
		}
	}
	return false
}

func (f *Filter) tagged(t tag, a netip.Addr) bool {
	own := within(f.inside, a)
	switch t {
	case tagNetwork:
		return own
	case tagInternet:
		_, platform := f.platform[a]
		return !own && !platform
	case tagRegistry, tagCloud:
		return a == f.front
	case tagBalancer: // what balancers would probe from
		return a == Resolver
	}
	return f.platform[a] == t && t != ""
}

func inRanges(list []portRange, port uint16) bool {
	if len(list) == 0 {
		return true
	}
	for _, r := range list {
		if r.first <= port && port <= r.last {
			return true
		}
	}
	return false
}

// Equal reports whether both let the same flows pass, as far as their rules
// are the same ones.
func (f *Filter) Equal(o *Filter) bool {
	if f == nil || o == nil || f == o {
		return f == o
	}
	for a := range Differences(f.sides, o.sides) {
		x, _ := f.sides.Get(a)
		y, _ := o.sides.Get(a)
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return f.network == o.network && f.front == o.front && slices.Equal(f.inside, o.inside) && maps.Equal(f.platform, o.platform)
}

// defaultRules are the ones that every group ends with (source: Azure's
// documentation of network security groups).
var defaultRules = []rule{
	{name: "AllowVnetInBound", priority: 65000, inbound: true, allow: true, from: places{tags: []tag{tagNetwork}}, to: places{tags: []tag{tagNetwork}}},
	{name: "AllowAzureLoadBalancerInBound", priority: 65001, inbound: true, allow: true, from: places{tags: []tag{tagBalancer}}, to: places{any: true}},
	{name: "DenyAllInBound", priority: 65500, inbound: true, from: places{any: true}, to: places{any: true}},
	{name: "AllowVnetOutBound", priority: 65000, allow: true, from: places{tags: []tag{tagNetwork}}, to: places{tags: []tag{tagNetwork}}},
	{name: "AllowInternetOutBound", priority: 65001, allow: true, from: places{any: true}, to: places{tags: []tag{tagInternet}}},
	{name: "DenyAllOutBound", priority: 65500, from: places{any: true}, to: places{any: true}},
}

// ordered are the rules of a group as a Filter looks at them.
func ordered(group string, rules []rule) []rule {
	all := slices.Concat(rules, defaultRules)
	for i := range all {
		all[i].group = group
	}
	slices.SortFunc(all, func(a, b rule) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.name, b.name))
	})
	return all
}
