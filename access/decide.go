package access

import (
	"slices"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
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
	Member   *network.Member    // that caller; nil: none, or it called a private endpoint
	Trusted  *Trusted           // the services that may pass network rules; nil: none
	Proof    Proof
	Roles    []*policy.Assignment // of the proven principal, at the registry and above
	Assumed  []*policy.Assignment // held besides these, in a supposition
	Referrer bool                 // what is to be deleted belongs to another manifest, as its pusher has said
	Gathered time.Duration        // how long it took to have these, but for the proof and the roles
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
	TokenID string // of the token that was presented, if it is one of ours
	// Limit is what a token is good for at most, whatever its holder may; nil
	// is no limit of its own.
	Limit []token.Access
	// Map is what a token of the registry may do, nothing where it is nil.
	Map   *registry.ScopeMap
	Wait  time.Duration // of TooManyGuesses
	Until time.Time     // a token issued on this proof must not outlive it; zero is no bound
}

// Decide answers one request. It is pure: the order is network, then who it
// is, then what they may, and a stage that fails ends it, so that an address
// that may not speak learns nothing about the rest.
func Decide(f Facts) Verdict {
	v := begin(&f)
	if admit(&f, &v) || lift(&f, &v) {
		settle(&f, &v)
	}
	return v
}

func begin(f *Facts) Verdict {
	v := Verdict{Ask: f.Ask, Time: f.Now, Registry: f.Registry}
	v.rec = record{
		Host: f.Ask.Host, Operation: f.Ask.Operation, Want: f.Ask.Want, Subnet: f.Subnet,
	}
	v.rec.arrive(f.Ask.Origin)
	if r := f.Registry; r != nil {
		v.rec.Registry, v.rec.Name = r.ID.String(), r.Name
		v.rec.PublicAccess, v.rec.DefaultAllow, v.rec.Rules = r.PublicAccess, r.DefaultAllow, len(r.IPRules)
	}
	return v
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
	textNotQuite   = "aad access token with sp failed client id must be guid"
	textGuesses    = "Too many failed sign-ins. Try again later."
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
	case Throttled:
		return textGuesses + id
	}
	text := textRequired
	switch {
	case Reason(v.Reason) == reason.NoCredential:
		return text // the start of every sign-in, and no failure yet
	case Reason(v.Reason) == reason.NotRegistered:
		text = textRegistered
	case Reason(v.Reason) == reason.NotQuiteAnID:
		text = textNotQuite
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

// isAlias reports whether host is another login server of r: a configured
// name, or a region's.
func isAlias(r *registry.Settings, host string) bool {
	return slices.Contains(r.Aliases, host) || slices.Contains(r.RegionalHosts, host)
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
