// Package policytest decides who may do what a second time, so that tests can
// ask two evaluators the same question. It was written from the protocol's
// description of roles, modes and conditions before its author had seen
// package policy or condition, it imports neither, and it is as plain as it
// can be: strings, loops and recursion, no tables prepared ahead.
//
// Where the two differ, the description says who is wrong. Where it is silent
// this package follows what cove promises to its users: an attribute that is
// absent makes neither a comparison true nor its opposite, case is that of
// ASCII, and only actions on repositories have a repository's name.
package policytest

import "strings"

// A Permission is one block of a role: what it grants less what it takes back.
type Permission struct {
	Actions, NotActions, DataActions, NotDataActions []string
}

// A RoleDefinition is a name and its blocks. Each block takes back from itself only.
type RoleDefinition struct {
	Name        string
	Permissions []Permission
}

// An Assignment gives a role to a principal, or to all in a group, over a scope
// and everything below it.
type Assignment struct {
	Name      string
	Principal string // of a user, an application or a group
	Role      RoleDefinition
	Scope     string
	Condition string // none if empty
}

// A World is all that a decision may consider beside the request.
type World struct {
	Assignments []Assignment
	Members     map[string][]string // of groups; members may be groups
}

// A Request is one thing that somebody wants to do.
type Request struct {
	Principal  string
	Scope      string
	Action     string
	Data       bool   // the action is one of DataActions
	Repository string // that it is about; absent if empty

	PrivateLink     bool
	PrivateEndpoint string // id; absent if empty
	Subnet          string // id; absent if empty
	Now             string // yyyy-mm-ddThh:mm:ss.mmmmmmmZ
}

const prefix = "Microsoft.ContainerRegistry/registries/"

// Verbs are what a registry's tokens can be asked for; "list" is the catalog's
// star, and "delete_referrer" to delete what was attached to another manifest.
var Verbs = []string{"pull", "push", "delete", "delete_referrer", "metadata_read", "metadata_write", "list"}

// May decides about a verb in one of the two modes.
func May(w World, verb string, abac bool, q Request) (allowed bool, lacks string) {
	if verb == "delete_referrer" {
		verb = "delete"
		// Of AcrPush: referrers can be deleted, images not.
		if ok, _ := May(w, "push", abac, q); ok && !abac {
			return true, ""
		}
	}
	q.Action, q.Data = needs(verb, abac)
	return Decide(w, q)
}

// needs is the action that a verb needs in the mode of repository permissions,
// which is one on data, or in the other, which is none.
//
// The description does not say which action locks need in the other mode, only
// that AcrPush has not got it: they are a registry's settings.
func needs(verb string, abac bool) (action string, data bool) {
	data = abac
	switch {
	case abac && verb == "pull":
		action = "repositories/content/read"
	case abac && verb == "push":
		action = "repositories/content/write"
	case abac && verb == "delete":
		action = "repositories/content/delete"
	case abac && verb == "metadata_read":
		action = "repositories/metadata/read"
	case abac && verb == "metadata_write":
		action = "repositories/metadata/write"
	case abac && verb == "list":
		action = "catalog/read"
	case verb == "pull", verb == "metadata_read", verb == "list":
		action = "pull/read"
	case verb == "push":
		action = "push/write"
	case verb == "delete":
		action = "artifacts/delete"
	case verb == "metadata_write":
		action = "write"
	default:
		panic("no verb " + verb)
	}
	return prefix + action, data
}

// What keeps an assignment from allowing, or all of them: the farthest first.
const (
	Nothing   = "nothing is assigned here"
	Role      = "no role grants it"
	Condition = "a condition does not hold"
)

// Decide says whether the request is allowed, and if not what the nearest
// assignment lacks.
func Decide(w World, q Request) (allowed bool, lacks string) {
	lacks = Nothing
	for _, a := range w.Assignments {
		if !w.Concerns(a.Principal, q.Principal) || !Covers(a.Scope, q.Scope) {
			continue
		}
		if !a.Role.grants(q.Action, q.Data) {
			if lacks == Nothing {
				lacks = Role
			}
			continue
		}
		if a.Condition != "" && !Holds(a.Condition, q) {
			lacks = Condition
			continue
		}
		return true, ""
	}
	return false, lacks
}

// Concerns reports whether an assignment to one is an assignment to the other:
// they are the same, or who is in that group, or in a group in it.
func (w World) Concerns(assigned, who string) bool { return w.concerns(assigned, who, 0) }

func (w World) concerns(assigned, who string, depth int) bool {
	if assigned == who {
		return true
	}
	if depth > 20 {
		return false // a ring of groups
	}
	for _, m := range w.Members[assigned] {
		if w.concerns(m, who, depth+1) {
			return true
		}
	}
	return false
}

// Covers reports whether a scope is the other or lies above it.
func Covers(scope, target string) bool {
	s := strings.Split(strings.Trim(strings.ToLower(scope), "/"), "/")
	t := strings.Split(strings.Trim(strings.ToLower(target), "/"), "/")
	if s[0] == "" {
		return true
	}
	if len(s) > len(t) {
		return false
	}
	for i := range s {
		if s[i] != t[i] {
			return false
		}
	}
	return true
}

func (r RoleDefinition) grants(action string, data bool) bool {
	for _, p := range r.Permissions {
		yes, no := p.Actions, p.NotActions
		if data {
			yes, no = p.DataActions, p.NotDataActions
		}
		if matches(yes, action) && !matches(no, action) {
			return true
		}
	}
	return false
}

func matches(patterns []string, action string) bool {
	for _, p := range patterns {
		if Wild(strings.ToLower(p), strings.ToLower(action)) {
			return true
		}
	}
	return false
}

// Wild reports whether text is the pattern with each star replaced by
// something, or by nothing.
func Wild(pattern, text string) bool {
	if pattern == "" {
		return text == ""
	}
	if pattern[0] == '*' {
		for i := 0; i <= len(text); i++ {
			if Wild(pattern[1:], text[i:]) {
				return true
			}
		}
		return false
	}
	return text != "" && text[0] == pattern[0] && Wild(pattern[1:], text[1:])
}
