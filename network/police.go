package network

import (
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
	clear(p.sides)
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

// sided is what decides which groups have a say about an address.
type sided struct {
	nic, subnet string // keys of groups, "" for none
	machine     bool   // it sends too
}

// sideOf is what has a say about one address of an interface, nil if nothing.
func (p *parts) sideOf(nic *nicPart, c nicConfig) *side {
	by := sided{nic: nic.group, machine: nic.pe == ""}
	if in := p.subnets[c.key]; in != nil && (by.machine || in.policed) {
		by.subnet = in.group
	}
	if made, ok := p.sides[by]; ok {
		return made
	}
	var s *side
	for _, group := range []string{by.nic, by.subnet} {
		if p.groups[group] == nil {
			continue
		}
		var list []rule
		for k := range p.rulesOf[group] {
			list = append(list, p.rules[k].rule)
		}
		list = ordered(p.groups[group].name, list)
		if s == nil {
			s = &side{}
		}
		s.in = append(s.in, list)
		if by.machine {
			s.out = append(s.out, list)
		}
	}
	p.sides[by] = s
	return s
}
