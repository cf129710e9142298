// Package policy says who may do what: role definitions, role assignments and
// the one function that decides over them.
//
// A role names actions; an assignment gives a role to a principal at a scope,
// and everything below that scope inherits it; a condition says when it counts.
// Decide is pure. Roles keeps the assignments of all principals compiled, so
// that what a decision costs depends on the caller's own assignments at and
// above the scope and on no others.
package policy

import (
	"fmt"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/condition"
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

// The data actions that decide about content in the ABAC permissions mode
// (same source).
const (
	DataContentRead    = "Microsoft.ContainerRegistry/registries/repositories/content/read"
	DataContentWrite   = "Microsoft.ContainerRegistry/registries/repositories/content/write"
	DataContentDelete  = "Microsoft.ContainerRegistry/registries/repositories/content/delete"
	DataMetadataRead   = "Microsoft.ContainerRegistry/registries/repositories/metadata/read"
	DataMetadataWrite  = "Microsoft.ContainerRegistry/registries/repositories/metadata/write"
	DataMetadataDelete = "Microsoft.ContainerRegistry/registries/repositories/metadata/delete"
	DataCatalogRead    = "Microsoft.ContainerRegistry/registries/catalog/read"
)

// repositoryData are the data actions that are about one repository: conditions
// can speak of them.
var repositoryData = []string{
	DataContentRead, DataContentWrite, DataContentDelete, DataMetadataRead, DataMetadataWrite, DataMetadataDelete,
}

// Role is a role definition. Actions are about the control plane, DataActions
// about content in repositories; * stands for any run of characters, and case
// does not matter. It is never modified.
type Role struct {
	ID             string // a GUID
	Name           string // "AcrPull"
	Description    string
	Actions        []string
	NotActions     []string // taken away from this role's own Actions, never from another role's
	DataActions    []string
	NotDataActions []string // the same of DataActions
	// Assignable are the scopes at and below which a custom role can be
	// assigned; nil is a built-in role, which can be everywhere.
	Assignable []arm.ID
}

// Allows reports whether the role's Actions, less its NotActions, hold action.
func (r *Role) Allows(action string) bool {
	return matchesAny(r.Actions, action) && !matchesAny(r.NotActions, action)
}

// AllowsData reports whether the role's DataActions, less its NotDataActions,
// hold action.
func (r *Role) AllowsData(action string) bool {
	return matchesAny(r.DataActions, action) && !matchesAny(r.NotDataActions, action)
}

// conditional reports whether a condition can say something about the role: it
// gives access to single repositories.
func (r *Role) conditional() bool {
	for _, a := range repositoryData {
		if r.AllowsData(a) {
			return true
		}
	}
	return false
}

// assignableAt reports whether the role can be assigned at a scope.
func (r *Role) assignableAt(scope arm.ID) bool {
	if r.Assignable == nil {
		return true
	}
	for _, above := range r.Assignable {
		if within(scope, above) {
			return true
		}
	}
	return false
}

// Assignment gives a role to a principal at a scope. It is never modified.
type Assignment struct {
	ID        arm.ID
	Principal string // object id
	Scope     arm.ID
	RoleID    string // the GUID of Role, lower case
	Role      *Role
	Condition *condition.Condition // nil: none
}

// Question is what is asked of assignments: may an action be done at a scope,
// by a request with these attributes?
type Question struct {
	condition.Request
	Scope arm.ID
	Data  bool // the action is a data action: DataActions decide, and conditions know the repository
	// Possible asks whether the action may be allowed for some repository,
	// where Repository is condition.Any. It is for tokens, whose every use is
	// decided again.
	Possible bool
}

// Miss says what kept the nearest assignment from allowing.
type Miss uint8

// The misses, the nearer the higher.
const (
	NothingAssigned Miss = iota // at the scope or above it
	NotInRole                   // the role does not hold the action
	ConditionFalse              // the role does, and its condition is not true
)

// Decision is the answer to one question.
type Decision struct {
	Allowed    bool
	Miss       Miss        // of a refusal
	Assignment *Assignment // what allowed it, or the nearest miss; may be nil
}

// Why is a refusal's reason in words.
func (d *Decision) Why(q *Question) string {
	switch d.Miss {
	case ConditionFalse:
		return fmt.Sprintf("%s at %s has a condition that is not true: %s", d.Assignment.Role.Name, d.Assignment.Scope, d.Assignment.Condition)
	case NotInRole:
		return fmt.Sprintf("%s at %s does not hold %s", d.Assignment.Role.Name, d.Assignment.Scope, q.Action)
	}
	return fmt.Sprintf("no role is assigned at %s or above it", q.Scope)
}

// Decide says whether one of the assignments, all of one principal and its
// groups, allows what is asked. Nothing else is considered: an assignment
// elsewhere, above a different registry or with a condition that is not true,
// counts for nothing.
func Decide(assignments []*Assignment, q *Question) Decision {
	request := q.Request
	if !q.Data {
		request.Repository = "" // actions are not about repositories
	}
	out := Decision{}
	for _, a := range assignments {
		if !within(q.Scope, a.Scope) {
			continue
		}
		allowed, miss := a.allows(q, &request)
		if allowed {
			return Decision{Allowed: true, Assignment: a}
		}
		if miss > out.Miss {
			out = Decision{Miss: miss, Assignment: a}
		}
	}
	return out
}

// allows asks one assignment, whatever its scope.
func (a *Assignment) allows(q *Question, r *condition.Request) (bool, Miss) {
	if q.Data && !a.Role.AllowsData(q.Action) || !q.Data && !a.Role.Allows(q.Action) {
		return false, NotInRole
	}
	if c := a.Condition; c != nil && !c.Holds(r) && !(q.Possible && c.Possible(r)) {
		return false, ConditionFalse
	}
	return true, 0
}

func matchesAny(patterns []string, action string) bool {
	for _, p := range patterns {
		if condition.MatchAction(p, action) {
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
