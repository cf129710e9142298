package access

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/reason"
)

// Explanation is one decision for the person who asks why. Only who may read
// the registry gets it; the control plane sees to that.
type Explanation struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Asked    string    `json:"asked"`   // "pull from team/app at myregistry.cr.cove.internal"
	Verdict  string    `json:"verdict"` // ALLOWED or DENIED
	Status   int       `json:"status"`
	Registry string    `json:"registry,omitempty"` // resource id
	Caller   string    `json:"caller"`             // address
	Identity Identity  `json:"identity,omitzero"`
	// Known is what the directory calls the identity today; "" is not known.
	Known    string   `json:"known,omitempty"`
	Reason   Reason   `json:"reason,omitempty"`
	Cause    string   `json:"cause,omitempty"`
	Evidence []string `json:"evidence,omitempty"`
	Next     string   `json:"next,omitempty"`
	Steps    []Step   `json:"steps"`
	Fixes    []Fix    `json:"fixes,omitempty"`
	// Today is what the same request would get now, in the words of Fix.After.
	Today string `json:"today,omitempty"`
	// Alike is how many requests of the last hour were refused for the same
	// reason by the same registry, this one included; 1000 is that many or more.
	Alike int `json:"alike,omitempty"`
}

// ErrNoDecision is the failure of Explain for an event without a decision.
var ErrNoDecision = fault.Coded(fault.NotFound, "DecisionNotKept", "the event was kept without the decision's steps")

// Explain makes words of what an event has kept of its decision.
func Explain(e audit.Event) (Explanation, error) {
	var r record
	if len(e.Detail) == 0 || e.Table == audit.AdministrativeEvents {
		return Explanation{}, ErrNoDecision
	}
	if err := json.Unmarshal(e.Detail, &r); err != nil {
		return Explanation{}, ErrNoDecision.Because(err)
	}
	return r.explain(e), nil
}

func (r *record) explain(e audit.Event) Explanation {
	out := Explanation{
		ID: e.ID, Time: e.Time, Asked: r.asked(e), Verdict: "ALLOWED", Status: e.Status,
		Registry: r.Registry, Caller: address(r.From), Identity: r.Identity, Steps: r.steps(),
	}
	r.date(out.Steps, e.Time)
	if e.Reason == string(reason.LockForbids) {
		r.locked(&out, e)
		return out
	}
	if r.Allow {
		return out
	}
	out.Verdict, out.Reason = "DENIED", r.Reason
	m := meaning(r.Reason)
	out.Cause, out.Next = m.Cause, m.Next
	for _, s := range out.Steps {
		if s.Outcome == Failed || s.Outcome == Unknown {
			out.Evidence = append(out.Evidence, s.Why)
		}
	}
	out.Fixes = r.fixes()
	return out
}

// Explain makes words of what an event has kept of its decision, for somebody
// who may read the registry, and says what the same request would get now and
// after each fix: both are decided by the guard, as requests are.
func (g *Guard) Explain(ctx context.Context, e audit.Event) (Explanation, error) {
	out, err := Explain(e)
	if err != nil || out.Verdict == "ALLOWED" || out.Reason == reason.LockForbids {
		return out, err
	}
	s, ok := Recall(e)
	if !ok {
		return out, nil
	}
	s.At = time.Time{} // now
	now, err := g.Registries.ByHost(ctx, s.Ask.Host)
	if err != nil || now == nil {
		return out, err
	}
	if out.Identity.holdsRoles() {
		if p, err := g.Directory.Principal(ctx, out.Identity.ObjectID); err == nil {
			out.Known = p.Name
		}
	}
	g.outlooks(ctx, s, now, &out)
	return out, nil
}

// outlook is a verdict in a few words. Of a caller whose credential was not
// looked at, because the network had refused it, no more is known than that the
// network would not.
func outlook(v Verdict, who Identity) string {
	switch {
	case v.Allow:
		return "ALLOWED"
	case who.Kind == "" && v.Refusal != Network && v.Refusal != Unavailable:
		return "ADMITTED by the network; who it is comes next"
	}
	return "DENIED " + v.Reason
}

// ExplainToSubject is Explain for the one whom the decision was about, who may
// not read the registry: what was refused, why, and what concerns the caller
// itself. The registry's rules, assignments and endpoints are not in it.
func ExplainToSubject(e audit.Event) (Explanation, error) {
	full, err := Explain(e)
	if err != nil {
		return Explanation{}, err
	}
	out := Explanation{
		ID: full.ID, Time: full.Time, Asked: full.Asked, Verdict: full.Verdict, Status: full.Status, Caller: full.Caller,
		Identity: full.Identity, Reason: full.Reason, Cause: full.Cause, Next: full.Next,
	}
	for _, s := range full.Steps {
		own := Step{Name: s.Name, Outcome: s.Outcome, Reason: s.Reason}
		switch s.Name {
		case stageNames[stageArrived], stageNames[stageSignIn]:
			own.Why = s.Why
		case stageNames[stagePermission]:
			own.Input = s.Input
		}
		out.Steps = append(out.Steps, own)
	}
	return out, nil
}

// SubjectOf is the object id of whom a decision was about, "" where nobody had
// proved to be somebody of the directory.
func SubjectOf(e audit.Event) string {
	var r record
	if len(e.Detail) == 0 || json.Unmarshal(e.Detail, &r) != nil || !r.Identity.holdsRoles() {
		return ""
	}
	return r.Identity.ObjectID
}

func (r *record) asked(e audit.Event) string {
	verb := strings.ToLower(e.Operation)
	var of []string
	for i := range r.Want {
		of = append(of, r.Want[i].words())
	}
	if len(of) > 0 {
		verb = strings.Join(of, ", ")
	}
	if verb == "" {
		verb = "request"
	}
	if e.Tag != "" {
		verb += ":" + e.Tag
	} else if e.Digest != "" {
		verb += "@" + e.Digest
	}
	return verb + " at " + r.Host
}
