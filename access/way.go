package access

import (
	"net/netip"
	"strings"

	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/reason"
)

// LinkLookup finds the private endpoint that a cloud's private link (the form
// of link.Origin's Link) leads to, by the operator's word; nil is none. It
// takes no time to speak of.
type LinkLookup interface {
	LinkEndpoint(id string) *network.Endpoint
}

// How the stages end for a caller who came by an address of the machine, or by
// a cloud's private link. Findings are stored, so their words keep their
// meaning.
const (
	arrivedHost finding = "host"
	arrivedLink finding = "link"
	linkUnknown finding = "link-unknown"
	linkMissing finding = "link-missing"
)

// arrive notes the way by which a caller came.
func (r *record) arrive(o link.Origin) {
	r.From, r.Network = o.Remote.Addr(), o.Network
	r.Ends[stageArrived] = arrivedPublic
	switch o.Kind {
	case link.Overlay:
		r.At, r.Ends[stageArrived] = o.Local.Addr(), arrivedNetwork
	case link.Host:
		r.At, r.Ends[stageArrived] = o.Local.Addr(), arrivedHost
	case link.Proxy:
		r.At, r.Ends[stageArrived] = o.Local.Addr(), arrivedLink
		r.Link, r.Balancer = o.Link, o.Balancer
	}
}

// origin is what arrive was told, as far as decisions consider it.
func (r *record) origin() link.Origin {
	o := link.Origin{Remote: addrPort(r.From), Network: r.Network}
	switch r.Ends[stageArrived] {
	case arrivedHost:
		o.Kind = link.Host
	case arrivedLink:
		o.Kind, o.Link, o.Balancer = link.Proxy, r.Link, r.Balancer
	default:
		if r.Network != "" {
			o.Kind = link.Overlay
		}
	}
	if o.Kind != link.Public {
		o.Local = addrPort(r.At)
	}
	return o
}

// admitLink refuses who came by a private link that no private endpoint of ours
// belongs to. The public side's rules are not asked: the address in a
// balancer's header is one in the caller's own network, which whoever made that
// network has chosen.
func admitLink(f *Facts, v *Verdict) bool {
	if f.Ask.Origin.Link == "" {
		return refuse(v, Network, reason.LinkMissing, stageEndpoint, linkMissing)
	}
	return refuse(v, Network, reason.LinkUnknown, stageEndpoint, linkUnknown)
}

// stepWay is how a caller arrived, in words.
func (r *record) stepWay(out Step, f finding) Step {
	switch f {
	case arrivedHost:
		out.Ref = r.Network
		out.Why = "at this machine's address " + address(r.At) + ", which is one of the virtual network " + last(r.Network)
	case arrivedLink:
		out.Input = address(r.From)
		by := "a balancer" // in a supposition nobody says which
		if r.Balancer.IsValid() {
			by = "the balancer " + address(r.Balancer)
		}
		out.Why = "through " + by + ", which named no private link"
		if r.Link != "" {
			out.Rule = r.Link
			out.Why = "through " + by + ", as " + linkWords(r.Link)
		}
	case linkUnknown:
		out.Outcome, out.Input = Failed, r.Link
		out.Why = "no private endpoint belongs to " + linkWords(r.Link)
	case linkMissing:
		out.Outcome, out.Input = Failed, address(r.Balancer)
		out.Why = "the balancer named no private link, and it leads to nothing else"
	}
	return out
}

// linkWords is a private link as a person says it.
func linkWords(id string) string {
	cloud, name, _ := strings.Cut(id, ":")
	switch cloud {
	case "azure":
		return "Azure private link " + name
	case "aws":
		return "AWS endpoint " + name
	}
	return "private link " + id
}

func addrPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }
