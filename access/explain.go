package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
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
	Reason   Reason    `json:"reason,omitempty"`
	Cause    string    `json:"cause,omitempty"`
	Evidence []string  `json:"evidence,omitempty"`
	Next     string    `json:"next,omitempty"`
	Steps    []Step    `json:"steps"`
	Fixes    []Fix     `json:"fixes,omitempty"`
	// Today is what the same request would get now, in the words of Fix.After.
	Today string `json:"today,omitempty"`
	// Alike is how many requests of the last hour were refused for the same
	// reason by the same registry, this one included.
	Alike int `json:"alike,omitempty"`
}

// Fix is a command that would let the same request through.
type Fix struct {
	Command string `json:"command"`
	Opens   string `json:"opens"` // what else it lets in
	Needs   string `json:"needs"` // the action that whoever types it must hold, and where
	// After is what the same request would get when it has been typed, with
	// everything else as it is now: "ALLOWED", or "DENIED COVE-PERM-002" where
	// something else stands in the way too. "" is not known beforehand.
	After string `json:"after,omitempty"`

	try func(s *Supposition, now *registry.Settings)
}

// ErrNoDecision is the failure of Explain for an event without a decision.
var ErrNoDecision = fault.Coded(fault.NotFound, "DecisionNotKept", "the event was kept without the decision's steps")

// Explain makes words of what an event has kept of its decision.
func Explain(e audit.Event) (Explanation, error) {
	var r record
	if len(e.Detail) == 0 {
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
	if err != nil || out.Verdict == "ALLOWED" {
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
	out.Today = outlook(g.Suppose(ctx, s), s.Who)
	for i := range out.Fixes {
		if f := &out.Fixes[i]; f.try != nil {
			next := s
			f.try(&next, now)
			f.After = outlook(g.Suppose(ctx, next), s.Who)
		}
	}
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

const needsRegistryWrite = "Microsoft.ContainerRegistry/registries/write on "

// fixes are the commands that would let the same request through, the one
// that opens least first.
func (r *record) fixes() []Fix {
	if r.Registry == "" {
		return nil
	}
	needs := needsRegistryWrite + r.Registry
	switch r.Reason {
	case PublicAccessOff, NoRule:
		return append(r.endpointFix(), r.doorFix()...)
	case NoSubnetRule, NoServiceEndpoint:
		return append(r.subnetFix(), r.endpointFix()...)
	case KindNotServed:
		return r.endpointFix()
	case EndpointNotOpen:
		if r.State != "Pending" && r.State != "Rejected" {
			return nil // what was disconnected must be made again by its owner
		}
		return []Fix{{
			Command: fmt.Sprintf("cove private-endpoint approve %s --registry %s", last(r.Connection), r.Name),
			Opens:   "the registry, to everybody in the private endpoint's network",
			Needs:   "Microsoft.ContainerRegistry/registries/privateEndpointConnectionsApproval/action on " + r.Registry,
			try:     func(s *Supposition, _ *registry.Settings) { s.Approved = true },
		}}
	case AdminOff:
		return []Fix{{
			Command: "cove registry update " + r.Name + " --admin-enabled",
			Opens:   "everything in the registry, to whoever knows the admin user's password",
			Needs:   needs,
			try:     with(func(s *registry.Settings) { s.AdminUser = true }),
		}}
	case WrongCredential:
		if r.Claimed != r.Name {
			return nil
		}
		return []Fix{{
			Command: "cove registry credential show " + r.Name,
			Opens:   "nothing; it shows the password to log in with",
			Needs:   "Microsoft.ContainerRegistry/registries/listCredentials/action on " + r.Registry,
		}}
	case AnonymousOff:
		return []Fix{{
			Command: "cove registry update " + r.Name + " --anonymous-pull-enabled",
			Opens:   "everything in the registry for reading, to everybody whom the network rules admit",
			Needs:   needs,
			try:     with(func(s *registry.Settings) { s.AnonymousPull = true }),
		}}
	case NoRoleForAction, NoRoleHere, ModeIgnoresRole, ConditionNotMet:
		return r.roleFix()
	}
	return nil
}

// doorFix opens the public door to this address. Both settings are in it when
// both stand in the way; a command that leaves the request refused is no fix.
func (r *record) doorFix() []Fix {
	from := r.From.Unmap()
	rule := r.Rule == 0 && !r.DefaultAllow
	// Rules are for public IPv4 addresses: a caller inside a virtual network
	// or with another address can be let in by none.
	if r.At.IsValid() || rule && (!from.Is4() || from.IsPrivate() || from.IsLoopback() || from.IsLinkLocalUnicast()) {
		return nil
	}
	var commands []string
	opens := "the public door, to every address that the network rules admit"
	if r.Reason == PublicAccessOff {
		commands = append(commands, "cove registry update "+r.Name+" --public-network-enabled true")
		if r.DefaultAllow {
			opens = "the public door, to every address: the default action is Allow"
		}
	}
	if rule {
		commands = append(commands, "cove network-rule add "+r.Name+" "+from.String())
		if r.Reason == NoRule {
			opens = "the public door, to " + from.String() + " and whoever shares that address"
		}
	}
	return []Fix{{
		Command: strings.Join(commands, " && "), Opens: opens, Needs: needsRegistryWrite + r.Registry,
		try: with(func(s *registry.Settings) {
			s.PublicAccess = true
			if rule {
				s.IPRules = append(slices.Clip(s.IPRules), netip.PrefixFrom(from, from.BitLen()))
			}
		}),
	}}
}

// with tries a request under settings that change changes.
func with(change func(*registry.Settings)) func(*Supposition, *registry.Settings) {
	return func(s *Supposition, now *registry.Settings) {
		next := *now
		change(&next)
		s.Registry = &next
	}
}

// endpointFix gives a caller inside a network a private endpoint there.
func (r *record) endpointFix() []Fix {
	_, zone, ok := strings.Cut(r.Host, ".")
	if r.Subnet == "" || !ok {
		return nil
	}
	vnet := strings.Split(r.Subnet, "/")
	if len(vnet) < 3 {
		return nil
	}
	name := vnet[len(vnet)-3] + "/" + last(r.Subnet)
	return []Fix{{
		Command: fmt.Sprintf("cove private-endpoint create %s-%s --registry %s --subnet %s --zone privatelink.%s", r.Name, vnet[len(vnet)-3], r.Name, name, zone),
		Opens:   "the registry, to everybody in the network " + vnet[len(vnet)-3],
		Needs:   "Microsoft.Network/privateEndpoints/write, and Microsoft.ContainerRegistry/registries/privateEndpointConnectionsApproval/action on " + r.Registry,
	}}
}

func (r *record) roleFix() []Fix {
	if !r.Identity.holdsRoles() {
		return nil
	}
	role, opens := r.roleThatAllows()
	return []Fix{{
		Command: fmt.Sprintf("cove role assign %s %s --scope %s", r.Identity.ObjectID, quote(role), r.Registry),
		Opens:   opens + ", to " + r.Identity.Name,
		Needs:   "Microsoft.Authorization/roleAssignments/write on " + r.Registry,
		try: func(s *Supposition, now *registry.Settings) {
			if known := policy.BuiltinByName(role); known != nil {
				s.Roles = []*policy.Assignment{{Principal: s.Who.ObjectID, Scope: now.ID, RoleID: known.ID, Role: known}}
			}
		},
	}}
}

// roleThatAllows is the least role that gives what is lacking, and what else it
// opens.
func (r *record) roleThatAllows() (role, opens string) {
	lacks := "pull"
	if r.Lacks != nil {
		lacks = r.Lacks.Action
	}
	if r.Mode == registry.AbacMode {
		switch lacks {
		case "*":
			return "Container Registry Repository Catalog Lister", "the names of all repositories"
		case "push", "metadata_write":
			return "Container Registry Repository Writer", "all of the registry for reading and writing"
		case "delete":
			return "Container Registry Repository Contributor", "all of the registry for reading, writing and deleting"
		}
		return "Container Registry Repository Reader", "all of the registry for reading"
	}
	switch lacks {
	case "push":
		return "AcrPush", "all of the registry for reading and writing"
	case "delete":
		return "AcrDelete", "deleting, anywhere in the registry"
	case "metadata_write":
		return "Contributor", "the registry and its settings"
	}
	return "AcrPull", "all of the registry for reading"
}

// quote is a word for a shell: role names have spaces.
func quote(s string) string {
	if strings.ContainsRune(s, ' ') {
		return "'" + s + "'"
	}
	return s
}
