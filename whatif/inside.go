package whatif

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/zone"
)

// way is how a caller in a network gets to a registry, as far as it is known.
type way struct {
	*Asker
	in    arm.ID // the network
	from  From
	to    *registry.Settings
	s     *access.Supposition
	steps []access.Step
}

// end is the explanation of a way that ends before the registry.
func (w *way) end(last access.Step, verdict string, code reason.Code) *access.Explanation {
	e := ended(last, verdict, code)
	e.Steps = append(w.steps, e.Steps...)
	return e
}

// inside finds the way of a machine in a network: what the name leads to there,
// and whether its packets arrive. A way that ends is an explanation.
func (a *Asker) inside(ctx context.Context, from From, to *registry.Settings, s *access.Supposition) ([]access.Step, *access.Explanation, error) {
	kind := from.Kind
	if kind == "" {
		kind = "vm"
	}
	var m *network.Member
	err := a.Store.View(ctx, func(r resource.Reader) (err error) {
		m, err = a.Networks.SupposedMember(ctx, r, from.Subnet, kind)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	w := &way{Asker: a, in: from.Subnet.Parent(), from: from, to: to, s: s}
	// An address of the network's own is one machine's, which has rules of its own.
	if own := a.Networks.Member(w.in.Key(), from.Address); own != nil && own.SubnetKey == from.Subnet.Key() {
		m = own
	}
	var stop *access.Explanation
	switch a.Networks.Attached(w.in) {
	case network.AttachedHost:
		stop = w.host(ctx)
	case network.AttachedProxy:
		stop = w.proxy()
	default:
		stop = w.overlay(ctx, m)
	}
	return w.steps, stop, nil
}

// overlay is the way of a member, which its tunnel proves.
func (w *way) overlay(ctx context.Context, m *network.Member) *access.Explanation {
	view := w.Zones.Of(w.in.Key())
	if m.Service {
		view = view.Through(w.FrontEnd)
	}
	at, stop := w.name(ctx, view)
	if stop != nil || !at.IsValid() {
		return stop
	}
	if w.Networks.Endpoint(w.in.Key(), at) == nil {
		w.s.Member = m
	}
	return w.arrive(link.Origin{Kind: link.Overlay, Network: w.in.Key(), Remote: netip.AddrPortFrom(m.Address, 0), Local: netip.AddrPortFrom(at, 443)})
}

// host is the way of whoever can route to this machine's addresses.
func (w *way) host(ctx context.Context) *access.Explanation {
	var at netip.Addr
	var stop *access.Explanation
	if w.NamesElsewhere != nil && w.NamesElsewhere(w.in.Key()) {
		var e *network.Endpoint
		if e, stop = w.leading(); e != nil {
			at = e.Address
		}
	} else {
		at, stop = w.name(ctx, w.Zones.Of(w.in.Key()))
	}
	if stop != nil || !at.IsValid() {
		return stop
	}
	return w.arrive(link.Origin{Kind: link.Host, Network: w.in.Key(), Remote: netip.AddrPortFrom(w.from.Address, 0), Local: netip.AddrPortFrom(at, 443)})
}

// proxy is the way of a machine in a cloud, by the private link there.
func (w *way) proxy() *access.Explanation {
	e, stop := w.leading()
	if e == nil {
		return stop
	}
	id := ""
	if w.LinkTo != nil {
		id = w.LinkTo(e.ID)
	}
	if id == "" {
		return w.end(access.Step{
			Name: "private link", Input: e.ID.Name(), Ref: e.ID.String(), Outcome: access.Failed,
			Why: "--proxy-map leads no private link of the cloud to the private endpoint " + e.ID.Name(),
		}, Denied, reason.LinkUnknown)
	}
	return w.arrive(link.Origin{Kind: link.Proxy, Link: id, Remote: netip.AddrPortFrom(w.from.Address, 0), Local: netip.AddrPortFrom(e.Address, 443)})
}

// name looks the registry's name up in a view. at is invalid where it leads
// out of the network.
func (w *way) name(ctx context.Context, view *zone.View) (at netip.Addr, stop *access.Explanation) {
	name := access.Step{Name: "name", Input: w.to.Host, Ref: w.in.String(), Outcome: access.Passed}
	answer := view.Answer(ctx, w.to.Host, zone.TypeA)
	at = address(answer)
	if !at.IsValid() {
		code := reason.NameUnknown
		if strings.Contains(answer.Why(), "linked zone") {
			code = reason.PrivateNoRecord
		}
		name.Outcome, name.Why = access.Failed, w.to.Host+" does not exist in "+w.in.Name()+": "+answer.Why()
		return at, w.end(name, Denied, code)
	}
	name.Why = fmt.Sprintf("%s leads to %s in %s: %s", w.to.Host, at, w.in.Name(), answer.Why())
	if w.Networks.Endpoint(w.in.Key(), at) == nil && at != w.FrontEnd {
		if at != address(w.Zones.Of("").Answer(ctx, w.to.Host, zone.TypeA)) {
			name.Outcome, name.Why = access.Failed, name.Why+", and no private endpoint that this network reaches has that address"
			return netip.Addr{}, w.end(name, Denied, reason.NameElsewhere)
		}
		return netip.Addr{}, w.outside(name)
	}
	w.steps = append(w.steps, name)
	return at, nil
}

// leading is the private endpoint that machines reach who ask for names
// elsewhere: if those lead to one at all, then to one of this network's. It is
// nil where there is none, and the name leads out of the network.
func (w *way) leading() (*network.Endpoint, *access.Explanation) {
	name := access.Step{Name: "name", Input: w.to.Host, Ref: w.in.String(), Outcome: access.Passed}
	list := w.Networks.Leading(w.in.Key(), w.to.ID)
	if len(list) == 0 {
		name.Why = fmt.Sprintf("the machines of %s ask for names elsewhere, and no private endpoint in it leads to %s", w.in.Name(), w.to.Name)
		return nil, w.outside(name)
	}
	name.Why = fmt.Sprintf("the machines of %s ask for names elsewhere; taken for granted is that %s leads to the private endpoint %s there", w.in.Name(), w.to.Host, list[0].ID.Name())
	w.steps = append(w.steps, name)
	return list[0], nil
}

// outside takes the public way, for which the caller's address there is needed.
func (w *way) outside(name access.Step) *access.Explanation {
	if w.from.Address.IsValid() {
		w.s.Ask.Origin = link.Origin{Remote: netip.AddrPortFrom(w.from.Address, 0)}
		w.steps = append(w.steps, name)
		return nil
	}
	name.Outcome, name.Why = access.Unknown, name.Why+"; which address the caller has outside is not known"
	return w.end(name, Unknown, reason.AddressOpen)
}

// arrive asks the network's security groups, and leaves the rest to the
// registry.
func (w *way) arrive(o link.Origin) *access.Explanation {
	w.s.Ask.Origin = o
	wanted, ok := w.Networks.Wanted(w.in.Key())
	if !ok {
		return nil
	}
	from, to := o.Remote.Addr(), o.Local.Addr()
	step := access.Step{Name: "security groups", Input: from.String() + " → " + o.Local.String(), Ref: w.in.String()}
	if !from.IsValid() {
		if !wanted.Filter.Watches(to) {
			return nil
		}
		step.Input, step.Outcome = o.Local.String(), access.Unknown
		step.Why = "a network security group has a say about who calls " + to.String() + ", and which address the caller has is not known"
		return w.end(step, Unknown, reason.AddressOpen)
	}
	group, rule := wanted.Filter.Denies(network.Flow{Protocol: 6, From: from, To: to, ToPort: 443})
	if rule == "" {
		return nil
	}
	step.Rule, step.Outcome = group+"/"+rule, access.Failed
	step.Why = fmt.Sprintf("the rule %s of the network security group %s denies TCP port 443 from %s to %s", rule, group, from, to)
	return w.end(step, Denied, reason.GroupDenies)
}
