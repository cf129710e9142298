package access

import (
	"net/netip"

	"cove.example/cove/link"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// admit is the network's part. An approved private endpoint passes it
// whatever the rules say (row 9); everybody else is a caller of the public
// side.
func admit(f *Facts, v *Verdict) bool {
	switch {
	case f.Failed:
		return refuse(v, Unavailable, reason.CannotDecide, stageEndpoint, factMissing)
	case f.Registry == nil:
		return refuse(v, Network, reason.RegistryUnknown, stageEndpoint, nameUnknown)
	}
	if e := f.Endpoint; e != nil && f.Ask.Origin.Kind != link.Public {
		v.Endpoint = e.ID.String()
		v.rec.Endpoint, v.rec.Connection, v.rec.State, v.rec.LeadsTo = v.Endpoint, e.Connection.String(), e.State, e.Registry.String()
		switch {
		case !e.Registry.Equal(f.Registry.ID):
			return refuse(v, Network, reason.EndpointElsewhere, stageEndpoint, endpointElsewhere)
		case e.State != "Approved":
			return refuse(v, Network, reason.EndpointNotOpen, stageEndpoint, endpointNotOpen)
		}
		v.rec.Ends[stageEndpoint] = endpointApproved
		v.rec.Ends[stagePublic], v.rec.Ends[stageRules] = notForEndpoints, notForEndpoints
		return true
	}
	if f.Ask.Origin.Kind == link.Proxy {
		return admitLink(f, v)
	}
	v.rec.Ends[stageEndpoint] = endpointNone
	if f.Ask.Origin.Kind.Inside() {
		return admitInside(f, v)
	}
	return admitPublic(f.Registry, v)
}

// admitInside is for a caller inside a virtual network that called the
// network's front end. Its subnet decides, never its address: whoever makes a
// network chooses the addresses in it, and one who chose 203.0.113.0/24 would
// pass the rule that somebody has for their office.
func admitInside(f *Facts, v *Verdict) bool {
	r, m := f.Registry, f.Member
	rule := 0
	if m != nil {
		v.rec.Kind, v.rec.Service = m.Kind, m.Service
		if m.Service {
			v.rec.Ends[stageArrived] = arrivedService
			rule = r.Subnets[m.SubnetKey]
		}
	}
	v.rec.SubnetRule, v.rec.SubnetRules = rule, len(r.Subnets)
	if !r.PublicAccess { // row 8: it is the public side that a service endpoint leads to
		return refuse(v, Network, reason.PublicAccessOff, stagePublic, publicOff)
	}
	v.rec.Ends[stagePublic] = publicOn
	switch {
	case !v.rec.From.IsValid():
		return refuse(v, Network, reason.AddressUnknown, stageRules, addressUnknown)
	case rule > 0 && m.Served:
		v.rec.Ends[stageRules] = subnetMatches
		return true
	case r.DefaultAllow:
		v.rec.Ends[stageRules] = defaultAllows
		return true
	case rule > 0:
		return refuse(v, Network, reason.KindNotServed, stageRules, kindNotServed)
	case m != nil && m.Service:
		return refuse(v, Network, reason.NoSubnetRule, stageRules, noSubnetRule)
	}
	return refuse(v, Network, reason.NoServiceEndpoint, stageRules, noServiceEndpoint)
}

func admitPublic(r *registry.Settings, v *Verdict) bool {
	from := v.rec.From.Unmap() // ::ffff:10.0.0.1 is 10.0.0.1 to the person who wrote the rule
	if !r.PublicAccess {
		v.rec.Rule = matching(r.IPRules, from) // for whoever asks what else stands in the way
		return refuse(v, Network, reason.PublicAccessOff, stagePublic, publicOff)
	}
	v.rec.Ends[stagePublic] = publicOn
	if !from.IsValid() {
		return refuse(v, Network, reason.AddressUnknown, stageRules, addressUnknown)
	}
	if i := matching(r.IPRules, from); i > 0 {
		v.rec.Rule, v.rec.Prefix = i, r.IPRules[i-1]
		v.rec.Ends[stageRules] = ruleMatches
		return true
	}
	if r.DefaultAllow {
		v.rec.Ends[stageRules] = defaultAllows
		return true
	}
	v.rec.Near, v.rec.Miss = nearest(r.IPRules, from)
	if v.rec.Near > 0 {
		v.rec.Prefix = r.IPRules[v.rec.Near-1]
	}
	return refuse(v, Network, reason.NoRule, stageRules, noRule)
}

// matching returns the number, counted from 1, of the first rule that
// contains the address; 0 is none.
func matching(rules []netip.Prefix, a netip.Addr) int {
	if !a.Is4() {
		return 0 // rules are IPv4 (source: the documentation of Azure Container Registry)
	}
	at := number(a)
	for i := range rules {
		// What Prefix.Contains does, at half its price: with 200 rules this
		// loop is most of what a decision costs.
		if p := &rules[i]; p.IsValid() && p.Addr().Is4() && (at^number(p.Addr()))>>(32-p.Bits()) == 0 {
			return i + 1
		}
	}
	return 0
}

// nearest returns the number of the rule whose edge is closest to the
// address, and how many addresses lie between them and one: 1 is the next
// address. Rules are IPv4, so an IPv6 caller has missed none of them.
func nearest(rules []netip.Prefix, a netip.Addr) (rule int, miss uint32) {
	if !a.Is4() {
		return 0, 0
	}
	at := number(a)
	for i, p := range rules {
		if !p.Addr().Is4() {
			continue
		}
		low := number(p.Masked().Addr())
		high := low | uint32(1<<(32-p.Bits())-1)
		d := low - at
		if at > high {
			d = at - high
		}
		if rule == 0 || d < miss {
			rule, miss = i+1, d
		}
	}
	return rule, miss
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}
