package access

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/directory"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// Supposition is a request that nobody has made: who would ask for what, from
// where, and when. What it would get is decided by the code that decides about
// requests; only the proof of who asks is taken for given.
type Supposition struct {
	Ask Ask // without a credential
	Who Identity
	At  time.Time // zero is now
	// Member is who asks from inside a network, where no member of that
	// address need exist.
	Member *network.Member
	// Registry takes the place of the settings of now; nil leaves them.
	Registry *registry.Settings
	// Roles are held besides those of now.
	Roles []*policy.Assignment
	// Approved takes the private endpoint's connection for approved.
	Approved bool
	// Endpoint is a private endpoint that the caller would reach, where there
	// is none.
	Endpoint *network.Endpoint
	// Service gives the caller's subnet a service endpoint.
	Service bool
}

// Supposed is the method of a proof that nobody has given.
const Supposed Method = "supposition"

// Suppose decides about a request that nobody has made.
func (g *Guard) Suppose(ctx context.Context, s Supposition) Verdict {
	f := g.facts(ctx, s.Ask)
	if s.Registry != nil && !f.Failed {
		f.Registry = s.Registry
	}
	if s.Member != nil {
		f.Member, f.Subnet = s.Member, s.Member.Subnet.String()
	}
	if !s.At.IsZero() {
		f.Now = s.At
	}
	if s.Service && f.Member != nil {
		m := *f.Member
		m.Service = true
		f.Member = &m
	}
	if s.Endpoint != nil {
		f.Endpoint = s.Endpoint
	}
	if s.Approved && f.Endpoint != nil {
		e := *f.Endpoint
		e.State = "Approved"
		f.Endpoint = &e
	}
	for _, a := range s.Roles {
		if f.Registry != nil && f.Registry.ID.Within(a.Scope) && a.Principal == s.Who.ObjectID {
			f.Assumed = append(f.Assumed, a)
		}
	}
	return g.judge(ctx, &f, func() Proof { return g.supposed(ctx, &f, s.Who) })
}

// supposed is the proof of an identity that had the right credential.
func (g *Guard) supposed(ctx context.Context, f *Facts, who Identity) Proof {
	p := Proof{Method: Supposed}
	switch who.Kind {
	case KindAdmin:
		if p.Identity = (Identity{Name: f.Registry.Name, Kind: KindAdmin}); !f.Registry.AdminUser {
			p.Failure = reason.AdminOff
		}
	case KindAnonymous:
		if p.Identity = (Identity{Kind: KindAnonymous}); !f.Registry.AnonymousPull {
			p.Failure = reason.NoCredential
		}
	case KindToken:
		if g.Scoped == nil {
			return Proof{Method: Supposed, Failure: reason.NotRegistered}
		}
		t, err := g.Scoped.Token(ctx, f.Registry, who.Name)
		switch {
		case err != nil:
			g.missing(f, "a token of the registry", err)
			p.Failure = reason.CannotDecide
		case t == nil:
			p.Failure = reason.NotRegistered
		case !t.Enabled:
			p.Failure = reason.IdentityGone
		default:
			p.Map, p.Identity = t.Map, Identity{ObjectID: t.UID, Name: t.Name, Kind: KindToken}
		}
	default:
		of, err := g.Directory.Principal(ctx, who.ObjectID)
		switch {
		case errors.Is(err, directory.ErrUnknown):
			p.Failure = reason.NotRegistered
		case err != nil:
			p.Failure = g.directoryReason(f, err)
		case of.Disabled:
			p.Failure = reason.IdentityGone
		default:
			return g.resident(ctx, f, p, of)
		}
	}
	return p
}

// ExplainSupposed decides about a request that nobody has made, and says what
// it would get after each fix.
func (g *Guard) ExplainSupposed(ctx context.Context, s Supposition) Explanation {
	v := g.Suppose(ctx, s)
	out := ExplainVerdict(v)
	if !v.Allow && v.Registry != nil {
		g.outlooks(ctx, s, v.Registry, &out)
		out.Today = "" // it is what was asked
	}
	return out
}

// ExplainVerdict is Explain of a decision that no event has kept.
func ExplainVerdict(v Verdict) Explanation {
	status := map[Refusal]int{None: 200, Network: 403, Unauthenticated: 401, Permission: 401, Throttled: 429, Unavailable: 503}[v.Refusal]
	return v.rec.explain(audit.Event{ID: v.Ask.ID, Time: v.Time, Operation: v.Ask.Operation, Status: status})
}

// Recall makes of a decision that an event has kept the supposition that the
// same were asked again. Who is empty where the caller's credential was not
// looked at. It reports false for an event without a decision about a registry.
func Recall(e audit.Event) (s Supposition, ok bool) {
	var r record
	if len(e.Detail) == 0 || json.Unmarshal(e.Detail, &r) != nil || r.Registry == "" {
		return s, false
	}
	s.Ask = Ask{ID: e.ID, Host: r.Host, Want: r.Want, Operation: r.Operation, UserAgent: e.UserAgent}
	s.Ask.Origin = r.origin()
	s.Who, s.At = r.Identity, e.Time
	return s, true
}
