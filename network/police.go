package network

import (
	"net/netip"
	"slices"
	"strings"

	"cove.example/cove/resource"
)

// groupPart is a security group; its rules are documents of their own.
type groupPart struct{ name string }

type rulePart struct {
	group string // key
	rule  rule
}

func groupOf(d resource.Doc) string {
	return idAt(d.Body, "properties", "networkSecurityGroup", "id").Key()
}

// policed says whether the security group of a subnet has a say about the
// private endpoints in it. Azure's default is that it has none, and the switch
// absent is that default (row 46).
func policed(subnet resource.Doc) bool {
	switch textAt(subnet.Body, "properties", "privateEndpointNetworkPolicies") {
	case "Enabled", "NetworkSecurityGroupEnabled":
		return true
	}
	return false
}

func (p *parts) setGroup(c part, dirty map[string]bool) {
	key := c.key
	if c.typ == strings.ToLower(TypeGroup) {
		replace(p.groups, c.key, c.group)
	} else {
		for _, r := range []*rulePart{p.rules[c.key], c.rule} {
			if r != nil {
				key = r.group
			}
		}
		if old := p.rules[c.key]; old != nil {
			p.rulesOf.remove(old.group, c.key)
		}
		replace(p.rules, c.key, c.rule)
		if c.rule != nil {
			p.rulesOf.add(c.rule.group, c.key)
		}
	}
	// Groups change seldom, and there are as many subnets as there are.
	for _, s := range p.subnets {
		if s.group == key {
			dirty[s.vnet] = true
		}
	}
	for _, n := range p.nics {
		if n.group == key {
			dirty[n.vnet] = true
		}
	}
}

// filter is what the security groups of a network say, nil where there are
// none.
func (p *parts) filter(key string, s *snapshot, frontEnd netip.Addr) *Filter {
	sides := map[netip.Addr]*side{}
	compiled := map[string][]rule{}
	rulesOf := func(group string) []rule {
		if r, ok := compiled[group]; ok {
			return r
		}
		var list []rule
		for k := range p.rulesOf[group] {
			list = append(list, p.rules[k].rule)
		}
		compiled[group] = ordered(p.groups[group].name, list)
		return compiled[group]
	}
	police := func(network string, endpointsOnly bool) {
		for nicKey := range p.nicsOf[network] {
			nic := p.nics[nicKey]
			if endpointsOnly && nic.pe == "" {
				continue
			}
			for _, c := range nic.configs {
				in := p.subnets[c.key]
				groups := []string{nic.group}
				if in != nil && (nic.pe == "" || in.policed) {
					groups = append(groups, in.group)
				}
				side := &side{}
				for _, g := range groups {
					if p.groups[g] == nil {
						continue
					}
					side.in = append(side.in, rulesOf(g))
					if nic.pe == "" {
						side.out = append(side.out, rulesOf(g))
					}
				}
				if len(side.in) > 0 {
					sides[c.address] = side
				}
			}
		}
	}
	police(key, false)
	for _, peer := range p.peers(key) {
		police(peer, true)
	}
	if len(sides) == 0 {
		return nil
	}
	platform := map[netip.Addr]tag{Resolver: tagDNS, Metadata: tagMetadata}
	for _, a := range s.wanted.Resolvers {
		platform[a] = tagDNS
	}
	return &Filter{sides: sides, inside: slices.Clone(s.wanted.Prefixes), front: frontEnd, platform: platform}
}
