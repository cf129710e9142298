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
	"cove.example/cove/directory"
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
	People     directory.Store // of now, for Roll
	Events     audit.Log
	FrontEnd   netip.Addr // of registries' public side inside networks
	Now        func() time.Time

	// NamesElsewhere reports whether the machines of a network (arm.ID.Key) ask
	// for names where our view of it is not seen; nil is nowhere.
	NamesElsewhere func(network string) bool
	// Referrer reports whether a manifest of a registry, by its UID, says that it
	// belongs to another one, as a signature does. One that is not there does
	// not. It fails with a fault.Invalid for a digest or repository that is none.
	Referrer func(ctx context.Context, uid, repository, digest string) (bool, error)
	// LinkTo is the cloud's private link that leads to a private endpoint, ""
	// where none does; nil is no link at all.
	LinkTo func(endpoint arm.ID) string
	// Past is what decided about access at a time; its reads fail with
	// fault.Invalid where that is not known any more.
	Past func(at time.Time) Moment
}

// Question is what somebody wants to know.
type Question struct {
	ID       string // a correlation id of its own
	Registry arm.ID
	Who      access.Identity
	Want     []access.Scope
	Digest   string // of the one manifest that is to be deleted; "" is a tag, or the whole repository
	From     From
	At       time.Time         // zero is now
	Change   []resource.Wanted // tried first; by whoever asks
	Caller   resource.Caller
}

// From is where the caller is: at a public address, or in a subnet.
type From struct {
	// Address is, of a caller in a subnet, the one that it has outside or, in
	// a network without a tunnel, the one that it calls from; or the one inside
	// of a member that there is.
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

// OnlyReferrers is the name of a step after a no to deleting: nothing may be
// deleted but what is attached to another manifest.
const OnlyReferrers = "only referrers"

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
	deletes := len(q.Want) == 1 && q.Want[0].Type == "repository" && q.Want[0].Action == "delete"
	if q.Digest != "" {
		if !deletes {
			return access.Explanation{}, fault.Problems([]fault.Field{{Path: "digest", Message: "is for a question about deleting one manifest"}})
		}
		is, err := a.Referrer(ctx, now.UID, q.Want[0].Name, q.Digest)
		if err != nil {
			return access.Explanation{}, err
		}
		s.Ask.Referrer = func(context.Context, string) bool { return is }
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
	e := a.Guard.ExplainSupposed(ctx, s)
	e.Steps = append(way, e.Steps...)
	if deletes && q.Digest == "" && e.Verdict == Denied {
		s.Ask.Referrer = func(context.Context, string) bool { return true }
		if a.Guard.Suppose(ctx, s).Allow {
			e.Steps = append(e.Steps, access.Step{Name: OnlyReferrers, Outcome: access.Passed, Why: "what is attached to another manifest, such as a signature, may be deleted by its digest, and nothing else: name it as REPOSITORY@DIGEST to ask about it"})
		}
	}
	return e, nil
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
	last.Reason = code
	return &access.Explanation{
		Verdict: verdict, Reason: code, Cause: m.Cause, Next: m.Next,
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
