package access

import (
	"net/netip"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/token"
)

// Facts are all that a decision considers.
type Facts struct {
	Ask      Ask
	Now      time.Time
	Registry *registry.Settings // nil: no registry has the name
	Endpoint *network.Endpoint  // of the address that was called; nil: none
	Subnet   string             // id of the subnet that a caller inside a network is in, if it is a member
	Proof    Proof
	Roles    []*policy.Assignment // of the proven principal, at the registry and above
	// Failed says that a fact could not be had. Nothing is allowed then.
	Failed bool
}

// Method is how a caller tried to prove who it is.
type Method string

// The methods.
const (
	ByNothing   Method = "nothing"
	ByPassword  Method = "password"
	ByToken     Method = "token"
	Anonymously Method = "anonymous" // asked for a token without a credential
)

// Proof is what became of a credential.
type Proof struct {
	Method   Method
	Identity Identity
	Failure  Reason // why it proves nothing; "" where it does
	// Claimed is who the caller said it was, where that is a name that can be
	// no secret: people paste passwords where the user name goes.
	Claimed string
	KeyID   string // of the secret, so that what is issued ends with it
	// Limit is what a token is good for at most, whatever its holder may; nil
	// is no limit of its own.
	Limit []token.Access
	Until time.Time // a token issued on this proof must not outlive it; zero is no bound
}

// Decide answers one request. It is pure: the order is network, then who it
// is, then what they may, and a stage that fails ends it, so that an address
// that may not speak learns nothing about the rest.
func Decide(f Facts) Verdict {
	v := begin(&f)
	if admit(&f, &v) {
		settle(&f, &v)
	}
	return v
}

func begin(f *Facts) Verdict {
	o := f.Ask.Origin
	v := Verdict{Ask: f.Ask, Time: f.Now, Registry: f.Registry}
	v.rec = record{
		From: o.Remote.Addr(), Network: o.Network, Host: f.Ask.Host,
		Operation: f.Ask.Operation, Want: f.Ask.Want, Subnet: f.Subnet,
	}
	v.rec.Ends[stageArrived] = arrivedPublic
	if o.Kind == link.Overlay {
		v.rec.At = o.Local.Addr()
		v.rec.Ends[stageArrived] = arrivedNetwork
	}
	if r := f.Registry; r != nil {
		v.rec.Registry, v.rec.Name = r.ID.String(), r.Name
		v.rec.PublicAccess, v.rec.DefaultAllow, v.rec.Rules = r.PublicAccess, r.DefaultAllow, len(r.IPRules)
	}
	return v
}

// admit is the network's part. An approved private endpoint passes it
// whatever the rules say (row 9); everybody else is a caller of the public
// side.
func admit(f *Facts, v *Verdict) bool {
	switch {
	case f.Failed:
		return refuse(v, Unavailable, CannotDecide, stageEndpoint, factMissing)
	case f.Registry == nil:
		return refuse(v, Network, RegistryUnknown, stageEndpoint, nameUnknown)
	}
	if e := f.Endpoint; e != nil && f.Ask.Origin.Kind == link.Overlay {
		v.Endpoint = e.ID.String()
		v.rec.Endpoint, v.rec.Connection, v.rec.State, v.rec.LeadsTo = v.Endpoint, e.Connection.String(), e.State, e.Registry.String()
		switch {
		case !e.Registry.Equal(f.Registry.ID):
			return refuse(v, Network, EndpointElsewhere, stageEndpoint, endpointElsewhere)
		case e.State != "Approved":
			return refuse(v, Network, EndpointNotOpen, stageEndpoint, endpointNotOpen)
		}
		v.rec.Ends[stageEndpoint] = endpointApproved
		v.rec.Ends[stagePublic], v.rec.Ends[stageRules] = notForEndpoints, notForEndpoints
		return true
	}
	v.rec.Ends[stageEndpoint] = endpointNone
	return admitPublic(f.Registry, v)
}

func admitPublic(r *registry.Settings, v *Verdict) bool {
	from := v.rec.From.Unmap() // ::ffff:10.0.0.1 is 10.0.0.1 to the person who wrote the rule
	if !r.PublicAccess {
		v.rec.Rule = matching(r.IPRules, from) // for whoever asks what else stands in the way
		return refuse(v, Network, PublicAccessOff, stagePublic, publicOff)
	}
	v.rec.Ends[stagePublic] = publicOn
	if !from.IsValid() {
		return refuse(v, Network, AddressUnknown, stageRules, addressUnknown)
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
	return refuse(v, Network, NoRule, stageRules, noRule)
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

// settle decides what the network has let through.
func settle(f *Facts, v *Verdict) {
	if f.Failed {
		refuse(v, Unavailable, CannotDecide, stageSignIn, factMissing)
		return
	}
	p := &f.Proof
	v.rec.Method, v.rec.Claimed = p.Method, p.Claimed
	if p.Failure == "" {
		v.Identity, v.rec.Identity = p.Identity, p.Identity
	}
	switch {
	case p.Failure != "":
		refuse(v, Unauthenticated, p.Failure, stageSignIn, signInFailed)
		return
	case p.Method == "" || p.Method == ByNothing || p.Identity.Kind == "":
		refuse(v, Unauthenticated, NoCredential, stageSignIn, signInNothing)
		return
	}
	v.rec.Ends[stageSignIn], v.rec.Claimed = signedIn, ""
	if len(f.Ask.Want) == 0 {
		if why := f.belongs(v); why != "" {
			refuse(v, Permission, why, stagePermission, permissionNone)
			return
		}
	}
	for i := range f.Ask.Want {
		if why := f.permits(&f.Ask.Want[i], v); why != "" {
			v.rec.Lacks = &f.Ask.Want[i]
			refuse(v, Permission, why, stagePermission, permissionFails)
			return
		}
	}
	v.rec.Ends[stagePermission] = permitted
	v.Allow, v.rec.Allow = true, true
}

// contentActions are what scopes need in the RBAC permissions mode, whichever
// role carries them. Labels and locks are a registry's settings there: AcrPush
// cannot write them (source: the documentation of Azure Container Registry).
var contentActions = map[string]string{
	"pull":           policy.ActionPull,
	"metadata_read":  policy.ActionPull,
	"push":           policy.ActionPush,
	"metadata_write": policy.ActionRegistryWrite,
	"delete":         policy.ActionDelete,
}

// action is what a scope needs, "" for one that nobody can have.
func (s *Scope) action() string {
	switch {
	case s.Type == "repository":
		return contentActions[s.Action]
	case s.Type == "registry" && s.Name == "catalog" && s.Action == "*":
		return policy.ActionPull
	}
	return ""
}

// permits says why the caller may not have one scope, "" when it may. v, if
// it is not nil, is told which role decided.
//
// The token's limit comes last: clients ask for what they need and are issued
// what they may have, so a token that lacks an action mostly says that a role
// is lacking, and another token would lack it too.
func (f *Facts) permits(want *Scope, v *Verdict) Reason {
	action := want.action()
	if action == "" {
		return NoRoleForAction
	}
	if why := f.holds(action, v); why != "" {
		return why
	}
	if f.Proof.Limit != nil && !token.Covers(f.Proof.Limit, want.Type, want.Name, want.Action) {
		return TokenScopeTooSmall
	}
	return ""
}

// holds says why the identity may not do an action on this registry, whatever
// its token says; "" when it may.
func (f *Facts) holds(action string, v *Verdict) Reason {
	switch f.Proof.Identity.Kind {
	case KindAdmin:
		return ""
	case KindAnonymous:
		if action != policy.ActionPull {
			return AnonymousReadsOnly
		}
		return ""
	case KindServicePrincipal:
		if len(f.Roles) == 0 {
			return NoRoleHere
		}
		d := policy.Decide(f.Roles, action, f.Registry.ID)
		f.note(v, action, d.Assignment)
		if !d.Allowed {
			return NoRoleForAction
		}
		return ""
	}
	return NoRoleHere
}

// belongs says why a caller that asks for nothing in particular is refused:
// it holds nothing at all on this registry.
func (f *Facts) belongs(v *Verdict) Reason {
	switch f.Proof.Identity.Kind {
	case KindAdmin, KindAnonymous:
		return ""
	}
	for _, action := range []string{policy.ActionPull, policy.ActionRegistryRead, policy.ActionPush, policy.ActionDelete} {
		if d := policy.Decide(f.Roles, action, f.Registry.ID); d.Allowed {
			f.note(v, action, d.Assignment)
			return ""
		}
	}
	return NoRoleHere
}

func (f *Facts) note(v *Verdict, action string, a *policy.Assignment) {
	if v == nil {
		return
	}
	v.rec.Action = action
	if a != nil {
		v.rec.Assignment, v.rec.Role, v.rec.RoleScope = a.ID.String(), a.Role.Name, a.Scope.String()
	}
}

// refuse ends the decision at a stage.
func refuse(v *Verdict, kind Refusal, why Reason, at stage, how finding) bool {
	v.Allow, v.Refusal, v.Reason = false, kind, string(why)
	v.rec.Allow, v.rec.Reason = false, why
	v.rec.Ends[at] = how
	v.Public = public(v)
	if kind == Unauthenticated || kind == Permission {
		v.Challenge = challenge(v)
	}
	return false
}

// The sentences that clients receive. They are Azure Container Registry's own,
// because people search for them and programs compare them.
const (
	textRequired   = "authentication required, visit https://aka.ms/acr/authorization for more information."
	textSecret     = "Invalid clientid or client secret."
	textRegistered = "Application not registered with AAD."
)

func public(v *Verdict) string {
	id := " CorrelationId: " + v.Ask.ID
	switch v.Refusal {
	case Network:
		from := "unknown"
		if v.rec.From.IsValid() {
			from = v.rec.From.Unmap().String()
		}
		return "client with IP '" + from + "' is not allowed access. Refer https://aka.ms/acr/firewall to grant access." + id
	case Unavailable:
		return "the registry cannot decide about this request now, try again." + id
	}
	text := textRequired
	switch {
	case Reason(v.Reason) == NoCredential:
		return text // the start of every sign-in, and no failure yet
	case Reason(v.Reason) == NotRegistered:
		text = textRegistered
	case directory.IsID(v.rec.Claimed):
		text = textSecret
	}
	return text + id
}

// challenge is the WWW-Authenticate header of a 401. Parsers in the field
// want one space after the scheme, none after commas, and no = in the realm.
func challenge(v *Verdict) string {
	if v.rec.Method == ByPassword && v.Refusal == Unauthenticated {
		return `Basic realm="Azure Container Registry"`
	}
	host := v.Ask.Host
	if r := v.Registry; r != nil && host != r.Host && !isAlias(r, host) {
		host = r.Host // a data host has no token endpoint
	}
	out := `Bearer realm="https://` + host + `/oauth2/token",service="` + host + `"`
	if s := scopes(v.Ask.Want); s != "" {
		out += `,scope="` + s + `"`
	}
	if v.rec.Method == ByToken {
		out += `,error="invalid_token"`
	}
	return out
}

func isAlias(r *registry.Settings, host string) bool {
	for _, a := range r.Aliases {
		if a == host {
			return true
		}
	}
	return false
}

// scopes writes what a call wants as clients must ask for it: the actions on
// one name together, names apart.
func scopes(want []Scope) string {
	var b strings.Builder
	for i, s := range want {
		switch {
		case i == 0:
		case s.Type == want[i-1].Type && s.Name == want[i-1].Name:
			b.WriteString("," + s.Action)
			continue
		default:
			b.WriteByte(' ')
		}
		b.WriteString(s.String())
	}
	return b.String()
}
