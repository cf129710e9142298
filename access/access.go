// Package access is the one decision: may this caller, who came this way, do
// this now? Enforcement, the login event, explain, the what-if and the health
// checks all ask here; none of them has a second opinion.
//
// Decide is pure. Guard gathers the facts for it: the registry, the private
// endpoint that the connection reached, who the credential proves.
package access

import (
	"time"

	"cove.example/cove/link"
	"cove.example/cove/registry"
)

// Scope is what a call needs of a registry token: pull of a repository, *
// of the catalog.
type Scope struct {
	Type   string // "repository" or "registry"
	Name   string // the repository's name, or "catalog"
	Action string // pull, push, delete, metadata_read, metadata_write, *
}

// Ask is one request, as an edge saw it.
type Ask struct {
	ID        string // the correlation id, a GUID; the edge makes it
	Origin    link.Origin
	Host      string // the name that TLS and the Host header agree on; lower case, no port
	Authority string // the Authorization header as it came; never logged
	Want      []Scope
	Operation string // for the record: "ManifestGet", "Login", …
	UserAgent string
}

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
	Name    string  `json:"name"`             // arrived, endpoint, public, rules, sign-in, permission
	Input   string  `json:"input,omitempty"`  // what it looked at: "203.0.113.9"
	Rule    string  `json:"rule,omitempty"`   // what decided: "ipRules[2] 203.0.113.0/27", "privateEndpointConnections/c1"
	Ref     string  `json:"ref,omitempty"`    // the resource id of that rule
	Outcome Outcome `json:"outcome"`          //
	Why     string  `json:"why"`              // one sentence
	Reason  string  `json:"reason,omitempty"` // COVE-NET-003, on the step that decided
}

// Refusal is what kind of no.
type Refusal uint8

// The refusals, in the order in which they are decided.
const (
	None            Refusal = iota
	Network                 // 403 DENIED, before anything about the caller is looked at
	Unauthenticated         // 401 with a challenge
	Permission              // 401 with a challenge that names the scope
)

// Identity is who a credential proved.
type Identity struct {
	ObjectID string // of the directory; "" for admin users and anonymous
	Name     string // for people: the application id, the admin user's name; "" is anonymous
	Kind     string // servicePrincipal, admin, anonymous
	Tenant   string
}

// Verdict is the answer, with the way to it.
type Verdict struct {
	Ask       Ask
	Time      time.Time
	Allow     bool
	Refusal   Refusal
	Reason    string // closed list, COVE-…; "" when allowed
	Public    string // the sentence for the caller; ends with the correlation id
	Challenge string // WWW-Authenticate of a 401
	Identity  Identity
	Registry  *registry.Settings // nil: no registry has this name
	Endpoint  string             // id of the private endpoint it came through
	Steps     []Step
}
