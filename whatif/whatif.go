// Package whatif answers questions about requests that nobody has made: may
// this identity, from there, do this now, at another time, or after a change?
//
// The way there is looked up in the network's own view of names, the decision
// is made by the guard that makes the others, and a change is tried in a
// transaction that is taken back. There is no second opinion anywhere.
package whatif

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/zone"
)

// Asker knows whom to ask.
type Asker struct {
	Guard      *access.Guard
	Networks   *network.Map
	Zones      *zone.Views
	Registries *registry.Directory
	Resources  *resource.Service
	Store      resource.Store
	Events     audit.Log
	FrontEnd   netip.Addr // of registries' public side inside networks
	Now        func() time.Time
}

// Question is what somebody wants to know.
type Question struct {
	ID       string // a correlation id of its own
	Registry arm.ID
	Who      access.Identity
	Want     []access.Scope
	From     From
	At       time.Time         // zero is now
	Change   []resource.Wanted // tried first; by whoever asks
	Caller   resource.Caller
}

// From is where the caller is: at a public address, or in a subnet.
type From struct {
	Address netip.Addr
	Subnet  arm.ID
	Kind    string // of the machine in the subnet; "" is vm
}

// The verdicts of an Explanation.
const (
	Allowed = "ALLOWED"
	Denied  = "DENIED"
	Unknown = "UNKNOWN"
)

// changed is what a change would make of what decides.
type changed struct {
	registries map[string]*registry.Settings
	roles      []*policy.Assignment
}

// May answers a question. It fails with a fault.Invalid for one that cannot be
// asked, and with what a PUT would fail with for a change that cannot be made.
func (a *Asker) May(ctx context.Context, q Question) (access.Explanation, error) {
	c, err := a.try(ctx, q.Caller, q.Change)
	if err != nil {
		return access.Explanation{}, err
	}
	return a.ask(ctx, q, c)
}

func (a *Asker) ask(ctx context.Context, q Question, c changed) (access.Explanation, error) {
	now, err := a.Registries.ByName(ctx, q.Registry.Name())
	if err != nil {
		return access.Explanation{}, err
	}
	if now == nil || !now.ID.Equal(q.Registry) {
		return access.Explanation{}, resource.ErrUnknown
	}
	s := access.Supposition{
		Ask: access.Ask{ID: q.ID, Host: now.Host, Want: q.Want, Operation: "WhatIf"},
		Who: q.Who, At: q.At, Registry: c.registries[now.ID.Key()], Roles: c.roles,
	}
	var way []access.Step
	if q.From.Subnet.IsZero() {
		s.Ask.Origin = link.Origin{Remote: netip.AddrPortFrom(q.From.Address, 0)}
	} else {
		var stop *access.Explanation
		if way, stop, err = a.inside(ctx, q.From, now, &s); err != nil || stop != nil {
			if stop != nil {
				stop.Registry, stop.Identity, stop.Time = now.ID.String(), q.Who, a.Now()
				return *stop, nil
			}
			return access.Explanation{}, err
		}
	}
	e := access.ExplainVerdict(a.Guard.Suppose(ctx, s))
	e.Steps = append(way, e.Steps...)
	return e, nil
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
	in := from.Subnet.Parent()
	view := a.Zones.Of(in.Key())
	if m.Service {
		view = view.Through(a.FrontEnd)
	}
	name := access.Step{Name: "name", Input: to.Host, Ref: in.String(), Outcome: access.Passed}
	answer := view.Answer(ctx, to.Host, zone.TypeA)
	at := address(answer)
	if !at.IsValid() {
		code := reason.NameUnknown
		if strings.Contains(answer.Why(), "linked zone") {
			code = reason.PrivateNoRecord
		}
		name.Outcome, name.Why = access.Failed, to.Host+" does not exist in "+in.Name()+": "+answer.Why()
		return nil, ended(name, Denied, code), nil
	}
	name.Why = fmt.Sprintf("%s leads to %s in %s: %s", to.Host, at, in.Name(), answer.Why())
	endpoint := a.Networks.Endpoint(in.Key(), at)
	if endpoint == nil && at != a.FrontEnd {
		if at != address(a.Zones.Of("").Answer(ctx, to.Host, zone.TypeA)) {
			name.Outcome, name.Why = access.Failed, name.Why+", and no private endpoint that this network reaches has that address"
			return nil, ended(name, Denied, reason.NameElsewhere), nil
		}
		if from.Address.IsValid() {
			s.Ask.Origin = link.Origin{Remote: netip.AddrPortFrom(from.Address, 0)}
			return []access.Step{name}, nil, nil
		}
		name.Outcome, name.Why = access.Unknown, name.Why+"; which address the caller has there is not known"
		return nil, ended(name, Unknown, reason.AddressOpen), nil
	}
	if w, ok := a.Networks.Wanted(in.Key()); ok {
		flow := network.Flow{Protocol: 6, From: m.Address, To: at, ToPort: 443}
		if !w.Filter.Admit(flow) {
			group := access.Step{
				Name: "security groups", Input: m.Address.String() + " → " + at.String() + ":443", Outcome: access.Failed, Reason: access.Reason(reason.GroupDenies),
				Why: "a network security group denies TCP port 443 from " + m.Address.String() + " to " + at.String(),
			}
			e := ended(group, Denied, reason.GroupDenies)
			e.Steps = append([]access.Step{name}, e.Steps...)
			return nil, e, nil
		}
	}
	s.Member = m
	s.Ask.Origin = link.Origin{Kind: link.Overlay, Network: in.Key(), Remote: netip.AddrPortFrom(m.Address, 0), Local: netip.AddrPortFrom(at, 443)}
	if endpoint != nil {
		s.Member = nil
	}
	return []access.Step{name}, nil, nil
}

// address is the IPv4 address that an answer leads to.
func address(a zone.Answer) netip.Addr {
	for _, r := range a.Records {
		if r.Type == zone.TypeA {
			return r.Addr
		}
	}
	return netip.Addr{}
}

// ended is the explanation of a way that ends before the registry.
func ended(last access.Step, verdict string, code reason.Code) *access.Explanation {
	m, _ := reason.Of(string(code))
	last.Reason = access.Reason(code)
	return &access.Explanation{
		Verdict: verdict, Reason: access.Reason(code), Cause: m.Cause, Next: m.Next,
		Steps: []access.Step{last}, Evidence: []string{last.Why},
	}
}

// try makes a change, looks at what it makes of registries and roles, and takes
// it back.
func (a *Asker) try(ctx context.Context, by resource.Caller, change []resource.Wanted) (changed, error) {
	c := changed{registries: map[string]*registry.Settings{}}
	if len(change) == 0 {
		return c, nil
	}
	for _, w := range change {
		switch t := w.ID.Type(); {
		case !strings.EqualFold(t, registry.TypeName) && !strings.EqualFold(t, policy.TypeAssignments):
			return c, fault.Newf(fault.Invalid, "a change of %s cannot be tried: registries and role assignments can", t)
		case !by.May(t+"/write", w.ID):
			return c, fault.Newf(fault.Denied, "only who may make a change can try it: %s/write on %s", t, w.ID)
		}
	}
	made, err := a.Resources.Validate(ctx, by, change)
	if err != nil {
		return c, err
	}
	err = a.Store.View(ctx, func(r resource.Reader) error {
		for _, m := range made {
			doc := resource.Doc{ID: m.ID, Body: m.Body}
			if strings.EqualFold(m.ID.Type(), policy.TypeAssignments) {
				role, err := policy.FromDoc(doc)
				if err != nil {
					return err
				}
				if role.Role == nil {
					return fault.Newf(fault.Invalid, "an assignment of a custom role cannot be tried")
				}
				c.roles = append(c.roles, role)
				continue
			}
			// What is stored beside the properties, secrets among it, stays.
			stored, err := r.Get(ctx, m.ID)
			if err != nil {
				return err
			}
			for _, part := range []string{"properties", "sku", "identity", "location"} {
				if v, ok := m.Body[part]; ok {
					stored.Body[part] = v
				}
			}
			if c.registries[m.ID.Key()], err = a.Registries.Compile(stored); err != nil {
				return err
			}
		}
		return nil
	})
	return c, err
}

// Flip is a request of the recent past that a change would have decided
// otherwise.
type Flip struct {
	ID       string             `json:"correlationId"`
	Time     time.Time          `json:"time"`
	Registry string             `json:"registry"`
	Was      string             `json:"now"`   // what today's settings give it
	Becomes  string             `json:"after"` // and the changed ones
	Why      access.Explanation `json:"why"`   // of what it becomes
}

// Replay bounds.
const maxReplayed = 5000

// Flips are the requests since a time that the change would decide otherwise
// than today's settings do, the newest first, and how many were looked at. The
// same question from the same caller is told once.
func (a *Asker) Flips(ctx context.Context, by resource.Caller, change []resource.Wanted, since time.Time) (out []Flip, looked int, err error) {
	c, err := a.try(ctx, by, change)
	if err != nil {
		return nil, 0, err
	}
	if err := a.Events.Flush(ctx); err != nil {
		return nil, 0, err
	}
	told := map[string]bool{}
	for _, table := range []string{"LoginEvents", "RepositoryEvents"} {
		events, err := a.Events.Recent(ctx, table, "", since, maxReplayed)
		if err != nil {
			return nil, looked, err
		}
		for _, e := range events {
			id, err := arm.ParseID(e.Registry)
			if err != nil || !by.May("Microsoft.ContainerRegistry/registries/read", id) {
				continue
			}
			s, ok := access.Recall(e)
			if !ok {
				continue
			}
			looked++
			// Both are asked now: what the clock and the directory have
			// changed since is not the change's doing.
			s.At = time.Time{}
			before := a.Guard.Suppose(ctx, s)
			s.Registry, s.Roles = c.registries[id.Key()], c.roles
			after := a.Guard.Suppose(ctx, s)
			was, becomes := word(before, s.Who), word(after, s.Who)
			if was == becomes {
				continue
			}
			why := access.ExplainVerdict(after)
			key := fmt.Sprint(s.Who, s.Ask.Origin, s.Ask.Want, after.Reason)
			if told[key] {
				continue
			}
			told[key] = true
			out = append(out, Flip{e.ID, e.Time, e.Registry, was, becomes, why})
		}
	}
	return out, looked, nil
}

// word is a verdict. Of a caller whose credential was never looked at it is the
// network's part alone.
func word(v access.Verdict, who access.Identity) string {
	if v.Allow || who.Kind == "" && v.Refusal != access.Network && v.Refusal != access.Unavailable {
		return Allowed
	}
	return Denied
}
