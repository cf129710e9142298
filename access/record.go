package access

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"cove.example/cove/condition"
	"cove.example/cove/reason"
)

// stage is one of the six steps.
type stage int

const (
	stageArrived stage = iota
	stageEndpoint
	stagePublic
	stageRules
	stageSignIn
	stagePermission
	stages
)

var stageNames = [stages]string{"arrived", "endpoint", "public access", "rules", "sign-in", "permission"}

// finding is how a stage ended. Findings are stored, so their words keep their
// meaning; "" is a stage that was not reached.
type finding string

const (
	arrivedPublic     finding = "public"
	arrivedNetwork    finding = "network"
	endpointNone      finding = "none"
	endpointApproved  finding = "approved"
	endpointNotOpen   finding = "not-open"
	endpointElsewhere finding = "elsewhere"
	nameUnknown       finding = "name-unknown"
	notForEndpoints   finding = "not-for-endpoints"
	publicOn          finding = "on"
	publicOff         finding = "off"
	addressUnknown    finding = "no-address"
	ruleMatches       finding = "match"
	defaultAllows     finding = "default-allow"
	noRule            finding = "no-rule"
	signedIn          finding = "proved"
	signInNothing     finding = "nothing"
	signInFailed      finding = "failed"
	permitted         finding = "permitted"
	permissionFails   finding = "refused"
	permissionNone    finding = "no-role"
	overRate          finding = "over-rate"
	factMissing       finding = "fact-missing"
)

// record is one decision as values: what each stage considered and how it
// ended. It is what the event keeps; sentences are made from it and never
// stored. No credential is ever in it.
type record struct {
	From      netip.Addr `json:"from,omitzero"`
	At        netip.Addr `json:"at,omitzero"` // of ours that was called, inside a network
	Network   string     `json:"network,omitempty"`
	Link      string     `json:"link,omitempty"`    // the private link it came by
	Balancer  netip.Addr `json:"balancer,omitzero"` // that said so
	Subnet    string     `json:"subnet,omitempty"`
	Host      string     `json:"host,omitempty"`
	Registry  string     `json:"registry,omitempty"`
	Name      string     `json:"name,omitempty"`
	Operation string     `json:"operation,omitempty"`
	Want      []Scope    `json:"want,omitempty"`

	Endpoint   string `json:"endpoint,omitempty"`
	Connection string `json:"connection,omitempty"`
	State      string `json:"state,omitempty"`
	LeadsTo    string `json:"leadsTo,omitempty"`

	PublicAccess bool         `json:"publicAccess,omitempty"`
	DefaultAllow bool         `json:"defaultAllow,omitempty"`
	Rules        int          `json:"rules,omitempty"` // how many there were
	Rule         int          `json:"rule,omitempty"`  // the one that contains From, from 1
	Near         int          `json:"near,omitempty"`  // else the nearest
	Miss         uint32       `json:"miss,omitempty"`  // and by how many addresses it misses
	Prefix       netip.Prefix `json:"prefix,omitzero"` // of either

	Kind        string  `json:"kind,omitempty"`            // of the member that calls
	Service     bool    `json:"serviceEndpoint,omitempty"` // its subnet has one
	SubnetRules int     `json:"subnetRules,omitempty"`     // how many there were
	SubnetRule  int     `json:"subnetRule,omitempty"`      // the one that names the subnet, from 1
	Trusted     string  `json:"trusted,omitempty"`         // the service that the caller is
	Trust       finding `json:"trust,omitempty"`           // whether that helped

	Method   Method   `json:"method,omitempty"`
	Identity Identity `json:"identity,omitzero"`
	Claimed  string   `json:"claimed,omitempty"`
	Token    string   `json:"jti,omitempty"` // id of the token that was issued, else of the one presented; never a token

	Action     string `json:"action,omitempty"`
	Assignment string `json:"assignment,omitempty"`
	Role       string `json:"role,omitempty"`
	RoleScope  string `json:"roleScope,omitempty"`
	Condition  string `json:"condition,omitempty"` // of that assignment
	// Misses are why that condition is not true.
	Misses   []condition.Miss `json:"misses,omitempty"`
	Mode     string           `json:"mode,omitempty"` // the registry's permission mode
	ScopeMap string           `json:"scopeMap,omitempty"`
	SKU      string           `json:"sku,omitempty"` // where a rate limit decided
	Lacks    *Scope           `json:"lacks,omitempty"`

	Allow  bool            `json:"allow,omitempty"`
	Reason Reason          `json:"reason,omitempty"`
	Ends   [stages]finding `json:"ends"`
	// Took is how long each stage took, in nanoseconds; of the three that the
	// network decides, the first has it all.
	Took [stages]int64 `json:"took,omitzero"`
}

// date says when each step that was reached was done.
func (r *record) date(steps []Step, begun time.Time) {
	if r.Took == [stages]int64{} {
		return // kept before this was
	}
	for i := range steps {
		begun = begun.Add(time.Duration(r.Took[i]))
		if steps[i].Outcome != NotReached {
			at := begun.UTC()
			steps[i].At, steps[i].Micros = &at, r.Took[i]/1000
		}
	}
}

// Kept is what an event keeps of a verdict, for Explain: it marshals to its
// Detail. It holds no credential.
func Kept(v *Verdict) any {
	r := v.rec // not the verdict, which the log would hold on to
	return &r
}

// steps makes the sentences. They are written for the person on call.
func (r *record) steps() []Step {
	out := make([]Step, stages)
	for i := range out {
		s := stage(i)
		out[i] = r.step(s, r.Ends[s])
		out[i].Name = stageNames[s]
		if out[i].Outcome == Failed {
			out[i].Reason = r.Reason
		}
	}
	return out
}

func (r *record) step(s stage, f finding) Step {
	if f == "" {
		return Step{Outcome: NotReached, Why: r.unreached(s)}
	}
	if f == factMissing {
		return Step{Outcome: Unknown, Why: "what this step needs could not be read", Reason: r.Reason}
	}
	switch s {
	case stageArrived:
		return r.stepArrived(f)
	case stageEndpoint:
		return r.stepEndpoint(f)
	case stagePublic, stageRules:
		return r.stepPublic(s, f)
	case stageSignIn:
		return r.stepSignIn(f)
	}
	return r.stepPermission(f)
}

func (r *record) stepArrived(f finding) Step {
	out := Step{Input: address(r.From), Outcome: Passed, Why: "by the public door"}
	if f == arrivedService {
		out.Rule, out.Ref = "serviceEndpoints", r.Subnet
		out.Why = "inside the virtual network " + last(r.Network) + ", through the service endpoint of the subnet " + last(r.Subnet)
	}
	if f == arrivedNetwork {
		out.Ref = r.Network
		out.Why = "inside the virtual network " + last(r.Network) + ", at its address " + address(r.At)
	}
	return r.stepWay(out, f)
}

func (r *record) stepEndpoint(f finding) Step {
	out := Step{Input: address(r.At), Outcome: Passed}
	if r.Endpoint != "" {
		out.Rule, out.Ref = "privateEndpointConnections/"+last(r.Connection), r.Connection
	}
	switch f {
	case endpointApproved:
		out.Why = "the private endpoint " + last(r.Endpoint) + " leads here and is Approved"
	case endpointNotOpen:
		out.Outcome = Failed
		out.Why = "the connection " + last(r.Connection) + " of the private endpoint " + last(r.Endpoint) + " is " + r.State + ", not Approved"
	case endpointElsewhere:
		out.Outcome = Failed
		out.Why = "the private endpoint " + last(r.Endpoint) + " leads to " + last(r.LeadsTo) + ", and the name asked for is " + r.Host
	case nameUnknown:
		out.Outcome, out.Input = Failed, r.Host
		out.Why = "no registry is served as " + r.Host
	case linkUnknown, linkMissing:
		return r.stepWay(out, f)
	default:
		out.Why = "no private endpoint is involved"
		if r.At.IsValid() {
			out.Why = "no private endpoint has the address " + address(r.At) + "; the caller counts as one of the public side"
		}
	}
	return out
}

func (r *record) stepPublic(s stage, f finding) Step {
	out := Step{Ref: r.Registry, Outcome: Passed}
	if s == stageRules {
		out.Input = address(r.From)
	}
	switch f {
	case notForEndpoints:
		return Step{Outcome: NotReached, Why: "does not apply to private endpoints"}
	case publicOn:
		out.Rule, out.Why = "publicNetworkAccess", "public access is enabled"
	case publicOff:
		out.Outcome, out.Rule, out.Why = Failed, "publicNetworkAccess", "public access is disabled"
	case addressUnknown:
		out.Outcome, out.Why = Failed, "the connection has no address"
	case ruleMatches:
		out.Rule = fmt.Sprintf("ipRules[%d] %s", r.Rule-1, r.Prefix)
		out.Why = fmt.Sprintf("%s is within %s", address(r.From), r.Prefix)
	case defaultAllows:
		out.Rule, out.Why = "defaultAction", "the default action is Allow"
	case noRule:
		out.Outcome, out.Rule, out.Why = Failed, "defaultAction", r.noRule()
	default:
		out = r.stepInside(out, f)
	}
	if out.Outcome == Failed {
		out.Why += r.distrust()
	}
	return out
}

func (r *record) noRule() string {
	text := "the default action is Deny and there is no rule"
	if r.Rules > 0 {
		text = fmt.Sprintf("the default action is Deny; %s tried, none contains %s", count(r.Rules, "rule"), address(r.From))
	}
	if r.Near > 0 {
		text += fmt.Sprintf("; nearest is ipRules[%d] %s, which misses by %s", r.Near-1, r.Prefix, countBig(r.Miss))
	}
	return text
}

func (r *record) stepSignIn(f finding) Step {
	out := Step{Input: string(r.Method), Outcome: Passed}
	switch f {
	case signInNothing:
		out.Outcome, out.Why = Failed, "no credential was sent"
	case signInFailed:
		out.Outcome, out.Why = Failed, meaning(r.Reason).Title
		if r.Claimed != "" {
			out.Why += " (the caller said it was " + r.Claimed + ", which is not proved)"
		}
	default:
		out.Why = r.who() + ", proved by " + string(r.Method)
		if r.Method == Supposed {
			out.Why = r.who() + ", taken for given: no credential is looked at"
		}
		if r.Identity.Kind == KindAnonymous {
			out.Why = r.who()
		}
	}
	return out
}

func (r *record) stepPermission(f finding) Step {
	out := Step{Outcome: Passed, Ref: r.Assignment}
	if r.Role != "" {
		out.Rule = r.Role + " at " + r.RoleScope
	}
	var wanted []string
	for _, w := range r.Want {
		wanted = append(wanted, w.String())
	}
	out.Input = strings.Join(wanted, " ")
	switch f {
	case permissionNone:
		out.Outcome, out.Why = Failed, r.who()+" holds no role on "+r.Name
		if r.Reason != reason.NoRoleHere {
			out.Why += " that counts: " + r.lack()
		}
	case permissionFails:
		out.Outcome = Failed
		out.Why = r.who() + " may not " + r.Lacks.words() + ": " + r.lack()
	case overRate:
		out.Outcome, out.Why = Failed, r.who()+" may do this, and has done too much of it in the last minute"
	default:
		switch r.Identity.Kind {
		case KindAdmin:
			out.Why = "the admin user may do everything with content"
		case KindAnonymous:
			out.Why = "anonymous pull is on"
		case KindToken:
			out.Rule, out.Why = r.ScopeMap, "the scope map "+r.ScopeMap+" allows it"
		default:
			out.Why = r.Role + " allows it"
			if r.Condition != "" {
				out.Why += ", and its condition is true: " + r.Condition
			}
		}
	}
	return out
}

func (r *record) lack() string {
	switch r.Reason {
	case reason.TokenScopeTooSmall:
		return "the token was issued for less"
	case reason.AnonymousReadsOnly:
		return "anonymous callers may only read"
	case reason.ScopeMapTooSmall:
		return "the scope map " + r.ScopeMap + " does not allow it"
	case reason.NoRoleHere:
		return "it holds no role on " + r.Name
	case reason.ModeIgnoresRole:
		return r.Role + " does not count in the permission mode " + r.Mode + " of " + r.Name
	case reason.ConditionNotMet:
		return "the condition of its role " + r.Role + " (assignment " + last(r.Assignment) + ") is not true: " + r.missed()
	}
	if r.Role != "" {
		return r.Role + " does not allow it"
	}
	return "no role allows it"
}

// missed says what in a condition is not true, and by how much.
func (r *record) missed() string {
	if len(r.Misses) == 0 {
		return r.Condition
	}
	var out []string
	for _, m := range r.Misses {
		text := m.Part
		if m.True {
			text = "not " + text
		}
		switch {
		case m.By != "":
			text += ", and here it is " + m.Has + ", off by " + m.By
		case m.Has != "":
			text += ", and here it is " + m.Has
		default:
			text += ", and this request has none"
		}
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

// unreached says what a stage that was not reached would have found, where
// that is known.
func (r *record) unreached(s stage) string {
	if s == stageRules && r.Reason == reason.PublicAccessOff {
		switch {
		case r.Rule > 0:
			return fmt.Sprintf("would pass: ipRules[%d] contains the address", r.Rule-1)
		case r.DefaultAllow:
			return "would pass: the default action is Allow"
		case r.SubnetRule > 0:
			return fmt.Sprintf("virtualNetworkRules[%d] names the subnet", r.SubnetRule-1)
		case r.At.IsValid():
			return "would fail: no rule names the caller's subnet and the default action is Deny"
		}
		return "would fail: no rule contains the address and the default action is Deny"
	}
	return "decided before"
}

func (r *record) who() string {
	switch r.Identity.Kind {
	case KindAdmin:
		return "the admin user " + r.Identity.Name
	case KindAnonymous:
		return "nobody in particular"
	case KindToken:
		return "the token " + r.Identity.Name
	case KindServicePrincipal:
		return "the service principal " + r.Identity.Name
	case KindUser:
		return "the user " + r.Identity.Name
	}
	return "the caller"
}

// words is a scope as a person says it.
func (s *Scope) words() string {
	if s == nil {
		return "do this"
	}
	if s.Type == "registry" {
		return "list the repositories"
	}
	verb := map[string]string{
		"pull": "pull from", "push": "push to", "delete": "delete from",
		"metadata_read": "read about", "metadata_write": "change attributes of",
	}[s.Action]
	if verb == "" {
		verb = s.Action
	}
	return verb + " " + s.Name
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().String()
}

func last(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " was"
	}
	return fmt.Sprintf("%d %ss were", n, noun)
}

func countBig(n uint32) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}
