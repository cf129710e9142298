// Package policy says who may do what: role definitions, role assignments and
// the one function that decides over them.
//
// A role names actions; an assignment gives a role to a principal at a scope,
// and everything below that scope inherits it. Decide is pure. Roles keeps
// the assignments of all principals compiled, so that what a decision costs
// depends on the caller's own assignments at and above the scope and on no
// others.
package policy

import (
	"fmt"
	"strings"

	"cove.example/cove/arm"
)

// The actions that decide about content in the RBAC permissions mode
// (source: the documentation of Azure Container Registry), and the one that every identity with any
// role on a registry has.
const (
	ActionRegistryRead  = "Microsoft.ContainerRegistry/registries/read"
	ActionRegistryWrite = "Microsoft.ContainerRegistry/registries/write"
	ActionPull          = "Microsoft.ContainerRegistry/registries/pull/read"
	ActionPush          = "Microsoft.ContainerRegistry/registries/push/write"
	ActionDelete        = "Microsoft.ContainerRegistry/registries/artifacts/delete"
)

// Role is a role definition. Actions are about the control plane, DataActions
// about content in repositories; * stands for any run of characters, and case
// does not matter.
type Role struct {
	ID          string // a GUID
	Name        string // "AcrPull"
	Description string
	Actions     []string
	NotActions  []string // taken away from this role's own Actions, never from another role's
	DataActions []string
}

// Allows reports whether the role's Actions, less its NotActions, hold action.
func (r *Role) Allows(action string) bool {
	return matchesAny(r.Actions, action) && !matchesAny(r.NotActions, action)
}

// Assignment gives a role to a principal at a scope. It is never modified.
type Assignment struct {
	ID        arm.ID
	Principal string // object id
	Scope     arm.ID
	Role      *Role
	// Condition is kept as it was written. This version cannot evaluate one,
	// so an assignment that has one grants nothing.
	Condition string
}

// Decision is the answer to one question, with the reason in words.
type Decision struct {
	Allowed    bool
	Why        string
	Assignment *Assignment // what allowed it, or the nearest miss; may be nil
}

// Decide says whether one of the assignments, all of one principal and its groups, allows
// action at scope. Nothing else is considered: an assignment elsewhere, above
// a different registry or with a condition, counts for nothing.
func Decide(assignments []*Assignment, action string, scope arm.ID) Decision {
	var conditional, near *Assignment
	for _, a := range assignments {
		if !within(scope, a.Scope) {
			continue
		}
		if !a.Role.Allows(action) {
			near = a
			continue
		}
		if a.Condition != "" {
			conditional = a
			continue
		}
		return Decision{Allowed: true, Assignment: a}
	}
	switch {
	case conditional != nil:
		return Decision{Assignment: conditional, Why: fmt.Sprintf("%s at %s has a condition, which this version does not evaluate", conditional.Role.Name, conditional.Scope)}
	case near != nil:
		return Decision{Assignment: near, Why: fmt.Sprintf("%s at %s does not hold %s", near.Role.Name, near.Scope, action)}
	}
	return Decision{Why: fmt.Sprintf("no role is assigned at %s or above it", scope)}
}

func matchesAny(patterns []string, action string) bool {
	for _, p := range patterns {
		if match(p, action) {
			return true
		}
	}
	return false
}

// within is scope.Within(above) for an assignment's scope, which always names
// something, without making new strings: this is on the path of every request.
func within(scope, above arm.ID) bool {
	s, a := scope.String(), above.String()
	if a == "" || len(s) < len(a) || len(s) > len(a) && s[len(a)] != '/' {
		return false
	}
	return s[:len(a)] == a || strings.EqualFold(s[:len(a)], a)
}

// match compares without regard to case; * in the pattern is any run of
// characters, the empty one and slashes included. It takes time proportional
// to the product of the lengths at worst and allocates nothing: a custom
// role's pattern is a stranger's text.
func match(pattern, s string) bool {
	if strings.IndexByte(pattern, '*') < 0 {
		return len(pattern) == len(s) && (pattern == s || strings.EqualFold(pattern, s))
	}
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && lower(pattern[p]) == lower(s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
