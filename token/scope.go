package token

import (
	"slices"
	"strings"

	"cove.example/cove/fault"
)

// Scope is what a client asks a registry token for:
// repository:team/app:pull,push.
type Scope struct {
	Type    string // repository, registry, …
	Name    string // a repository, * for all, or "catalog"
	Actions []string
}

// ErrScope is the failure of ParseScope.
var ErrScope = fault.New(fault.Invalid, "the scope is not valid")

// Bounds on what a stranger may ask for in one request.
const (
	MaxScopes = 100
	maxScope  = 1024
)

// ParseScope reads type:name:action,action (distribution, Token Scope
// Documentation). A name may hold colons, since some clients write a host and
// port into it. Types and actions that mean nothing here parse, and are never
// granted.
func ParseScope(s string) (Scope, error) {
	if len(s) > maxScope {
		return Scope{}, ErrScope.Detail("a scope is longer than %d characters", maxScope)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		return Scope{}, ErrScope.Detail("a scope has a character that no scope may have")
	}
	typ, rest, ok := strings.Cut(s, ":")
	at := strings.LastIndexByte(rest, ':')
	if !ok || at <= 0 || typ == "" {
		return Scope{}, ErrScope.Detail("the scope %q is not of the form type:name:action", s)
	}
	out := Scope{Type: typ, Name: rest[:at]}
	for a := range strings.SplitSeq(rest[at+1:], ",") {
		if a != "" && !slices.Contains(out.Actions, a) {
			out.Actions = append(out.Actions, a)
		}
	}
	if len(out.Actions) == 0 {
		return Scope{}, ErrScope.Detail("the scope %q names no action", s)
	}
	return out, nil
}

// ParseScopes reads the values of a request's scope parameters, each of which
// may hold several, separated by spaces. Empty ones are passed over: clients
// send them.
func ParseScopes(values []string) ([]Scope, error) {
	var out []Scope
	for _, v := range values {
		for s := range strings.FieldsSeq(v) {
			if len(out) == MaxScopes {
				return nil, ErrScope.Detail("more than %d scopes in one request", MaxScopes)
			}
			p, err := ParseScope(s)
			if err != nil {
				return nil, err
			}
			out = append(out, p)
		}
	}
	return out, nil
}

func (s Scope) String() string { return s.Type + ":" + s.Name + ":" + strings.Join(s.Actions, ",") }

// RepositoryActions are the actions on a repository; * asks for all of them.
var RepositoryActions = []string{"pull", "push", "delete", "metadata_read", "metadata_write"}

// Narrow returns what of the asked scopes may be had, in their order: each
// action for which may says yes. It asks may about single, known actions only,
// so that a wildcard or an unknown word is never itself a right.
func Narrow(asked []Scope, may func(typ, name, action string) bool) []Access {
	out := []Access{}
	for _, s := range asked {
		var granted []string
		for _, a := range expand(s) {
			if !slices.Contains(granted, a) && may(s.Type, s.Name, a) {
				granted = append(granted, a)
			}
		}
		if len(granted) > 0 {
			out = append(out, Access{Type: s.Type, Name: s.Name, Actions: granted})
		}
	}
	return out
}

func expand(s Scope) []string {
	switch {
	case s.Type == "registry" && s.Name == "catalog":
		if slices.Contains(s.Actions, "*") {
			return []string{"*"} // the only action that the catalog has
		}
	case s.Type == "repository":
		if slices.Contains(s.Actions, "*") {
			return RepositoryActions
		}
		var known []string
		for _, a := range s.Actions {
			if slices.Contains(RepositoryActions, a) {
				known = append(known, a)
			}
		}
		return known
	}
	return nil
}

// Covers reports whether a token's access list holds an action. A name of *
// covers every repository; nothing else is a pattern.
func Covers(list []Access, typ, name, action string) bool {
	for i := range list {
		a := &list[i]
		if a.Type == typ && (a.Name == name || a.Name == "*" && typ == "repository") && slices.Contains(a.Actions, action) {
			return true
		}
	}
	return false
}
