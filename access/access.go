// Package access is the one decision: may this caller, who came this way, do
// this now? Enforcement, the login event, explain, the what-if and the health
// checks all ask here; none of them has a second opinion.
//
// Decide is pure. Guard gathers the facts for it: the registry, the private
// endpoint that the connection reached, who the credential proves. What was
// considered and how each stage ended is kept as values; sentences are made
// from them when somebody reads, from one catalogue.
package access

import (
	"context"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/link"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// Scope is what a call needs of a registry token: pull of a repository, *
// of the catalog.
type Scope struct {
	Type   string `json:"type"`   // "repository" or "registry"
	Name   string `json:"name"`   // the repository's name, or "catalog"
	Action string `json:"action"` // pull, push, delete, metadata_read, metadata_write, *
}

func (s Scope) String() string { return s.Type + ":" + s.Name + ":" + s.Action }

// Ask is one request, as an edge saw it.
type Ask struct {
	ID        string // the correlation id, a GUID; the edge makes it
	Origin    link.Origin
	Host      string // the name that TLS and the Host header agree on; lower case, no port
	Capitals  bool   // the Host header spelt that name with capitals
	Authority string `json:"-"` // the Authorization header as it came; never logged
	Link      string `json:"-"` // the query of a data host's URL, "?" and all: then it is the credential, and an Authority is refused
	Digest    string // of the blob that Link is for
	Want      []Scope
	Operation string // for the record: "ManifestGet", "Login", …
	UserAgent string
	// Referrer, of a request to delete one manifest of the registry with this
	// UID, reports whether that manifest says that it belongs to another one: a
	// signature, a list of contents. It is asked only about who may push and may
	// not delete. Nil is no.
	Referrer func(ctx context.Context, uid string) bool `json:"-"`
}

// String keeps the credential out of every log.
func (a Ask) String() string { return a.Operation + " " + a.Host + " " + a.ID }

// GoString keeps it out of %#v.
func (a Ask) GoString() string { return a.String() }

// Outcome is how a step ended.
type Outcome string

// The outcomes.
const (
	Passed     Outcome = "passed"
	Failed     Outcome = "failed"
	NotReached Outcome = "not reached"
	Unknown    Outcome = "unknown"
)

// Step is one stage of a decision, in words made from what was considered.
type Step struct {
	Name    string  `json:"name"`             // arrived, endpoint, public access, rules, sign-in, permission
	Input   string  `json:"input,omitempty"`  // what it looked at: "203.0.113.9"
	Rule    string  `json:"rule,omitempty"`   // what decided: "ipRules[2] 203.0.113.0/27", "privateEndpointConnections/c1"
	Ref     string  `json:"ref,omitempty"`    // the resource id of that rule
	Outcome Outcome `json:"outcome"`          //
	Why     string  `json:"why"`              // one sentence
	Reason  Reason  `json:"reason,omitempty"` // COVE-NET-003, on the step that decided
	// At is when the step was done, and Micros how many microseconds it took;
	// a step that was not reached has neither.
	At     *time.Time `json:"at,omitempty"`
	Micros int64      `json:"micros,omitempty"`
}

// Reason says why not: a code of the catalogue.
type Reason = reason.Code

func meaning(r Reason) reason.Meaning {
	m, _ := reason.Of(string(r))
	return m
}

// Refusal is what kind of no.
type Refusal uint8

// The refusals, in the order in which they are decided.
const (
	None            Refusal = iota
	Network                 // 403 DENIED, before anything about the caller is looked at
	Unauthenticated         // 401 with a challenge
	Permission              // 401 with a challenge that names the scope
	Unavailable             // 503: what the decision needs could not be read, so the answer is no
	Throttled               // 429: too many wrong passwords, or too many requests
)

// Identity is who a credential proved.
type Identity struct {
	ObjectID string `json:"objectId,omitempty"` // of the directory; "" for admin users and anonymous
	Name     string `json:"name,omitempty"`     // for people: the application id, the admin user's name; "" is anonymous
	Kind     string `json:"kind,omitempty"`     // KindServicePrincipal, KindUser, KindAdmin, KindAnonymous, KindToken
	Tenant   string `json:"tenant,omitempty"`
	Managed  bool   `json:"managed,omitempty"` // of a resource, rather than of an application
}

// The kinds of identity.
const (
	KindServicePrincipal = "servicePrincipal"
	KindUser             = "user"
	KindAdmin            = "admin"
	KindAnonymous        = "anonymous"
	KindToken            = "token" // a token of the registry, with a scope map
)

// holdsRoles reports whether what an identity may follows from its roles.
func (i Identity) holdsRoles() bool { return i.Kind == KindServicePrincipal || i.Kind == KindUser }

// Verdict is the answer, with the way to it.
type Verdict struct {
	Ask       Ask
	Time      time.Time
	Allow     bool
	Refusal   Refusal
	Reason    string        // closed list, COVE-…; "" when allowed
	Public    string        // the sentence for the caller
	Challenge string        // WWW-Authenticate of a 401
	Wait      time.Duration // how long to wait after a 429
	Identity  Identity
	Registry  *registry.Settings // nil: no registry has this name
	Endpoint  string             // id of the private endpoint it came through
	Took      time.Duration      // of the decision

	keyID string // of the secret behind the credential; Link passes it on
	rec   record
}

// Steps are the stages of the decision in order, each with a sentence. They
// are made when asked for; nobody reads those of most requests.
func (v *Verdict) Steps() []Step { return v.rec.steps() }

// String keeps the credential, which is in Ask, out of every log.
func (v Verdict) String() string {
	if v.Allow {
		return "allowed " + v.Ask.String()
	}
	return "refused " + v.Reason + " " + v.Ask.String()
}

// GoString keeps it out of %#v.
func (v Verdict) GoString() string { return v.String() }

// Refused is a Verdict's no as an error.
type Refused struct{ Verdict Verdict }

func (e *Refused) Error() string { return e.Verdict.Reason + ": " + e.Verdict.Public }

// Unwrap gives the failure its kind and public sentence.
func (e *Refused) Unwrap() error {
	kind := fault.Unauthenticated
	switch e.Verdict.Refusal {
	case Network:
		kind = fault.Denied
	case Unavailable:
		kind = fault.Unavailable
	case Throttled:
		kind = fault.Throttled
	}
	return fault.Newf(kind, "%s", e.Verdict.Public)
}

// Err is nil when the verdict allows, else a *Refused.
func (v Verdict) Err() error {
	if v.Allow {
		return nil
	}
	return &Refused{v}
}
