package policytest

import (
	"slices"
	"strings"

	"pgregory.net/rapid"
)

const subscription = "/subscriptions/5f0a1c52-0000-4000-8000-000000000001"

// Registries are what requests are about; two of their names begin alike.
var Registries = []string{
	subscription + "/resourceGroups/prod/providers/Microsoft.ContainerRegistry/registries/harbor",
	subscription + "/resourceGroups/prod/providers/Microsoft.ContainerRegistry/registries/harbor2",
	subscription + "/resourceGroups/prod2/providers/Microsoft.ContainerRegistry/registries/harbor",
}

// Scopes are where roles are assigned.
var Scopes = append([]string{
	subscription, subscription + "/resourceGroups/prod", subscription + "/resourceGroups/prod2",
	"/subscriptions/5f0a1c52-0000-4000-8000-000000000002",
}, Registries...)

// Actions are some of the management plane, with those that RBAC mode decides
// by.
var Actions = []string{
	prefix + "pull/read", prefix + "push/write", prefix + "artifacts/delete",
	prefix + "read", prefix + "write", prefix + "delete", prefix + "listCredentials/action", prefix + "importImage/action", prefix + "tokens/write",
	"Microsoft.Authorization/roleAssignments/write", "Microsoft.Network/privateEndpoints/write", "Microsoft.Resources/subscriptions/resourceGroups/read",
}

// DataActions are all there are on data.
var DataActions = append([]string{prefix + "catalog/read"}, ContentActions...)

// DrawPattern is an action as roles write it, or nearly one.
func DrawPattern(t *rapid.T, actions []string) string {
	action := pick(t, "of", actions...)
	segments := strings.Split(action, "/")
	n := rapid.IntRange(0, len(segments)-1).Draw(t, "segment")
	switch pick(t, "pattern", "exact", "exact", "case", "segment", "below", "last", "all", "part", "short") {
	case "case":
		return strings.ToUpper(action)
	case "segment":
		segments[n] = "*"
		return strings.Join(segments, "/")
	case "below":
		return strings.Join(append(segments[:n:n], "*"), "/")
	case "last":
		return "*/" + segments[len(segments)-1]
	case "all":
		return "*"
	case "part":
		return "*" + segments[n][:len(segments[n])/2] + "*"
	case "short":
		return action[:len(action)-1]
	}
	return action
}

// DrawRole is a built-in role or one that somebody has made up.
func DrawRole(t *rapid.T) RoleDefinition {
	if rapid.Bool().Draw(t, "built in") {
		return Builtin[pick(t, "role", BuiltinIDs()...)]
	}
	list := func(label string, actions []string, most int) []string {
		return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return DrawPattern(t, actions) }), 0, most).Draw(t, label)
	}
	return RoleDefinition{"custom", []Permission{{
		Actions: list("actions", Actions, 3), NotActions: list("not actions", Actions, 2),
		DataActions: list("data actions", DataActions, 3), NotDataActions: list("not data actions", DataActions, 2),
	}}}
}

// BuiltinIDs are those of Builtin, in order.
func BuiltinIDs() []string {
	var ids []string
	for id := range Builtin {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// DrawAssignment gives any role to one of the principals anywhere, its scope
// spelt as somebody else would.
func DrawAssignment(t *rapid.T, principals ...string) Assignment {
	a := Assignment{Principal: pick(t, "principal", principals...), Role: DrawRole(t), Scope: pick(t, "scope", Scopes...)}
	if rapid.Bool().Draw(t, "spelt otherwise") {
		a.Scope = strings.NewReplacer("/prod", "/PROD", "/harbor", "/Harbor").Replace(a.Scope)
	}
	if rapid.Bool().Draw(t, "conditional") {
		a.Condition = DrawCondition(t, 1)
	}
	return a
}

// DrawQuestion is about anything that can be done, from anywhere.
func DrawQuestion(t *rapid.T, principals ...string) Request {
	q := DrawRequest(t)
	q.Principal, q.Scope = pick(t, "who", principals...), pick(t, "at", Registries...)
	if rapid.Bool().Draw(t, "of the management plane") {
		q.Action, q.Data, q.Repository = pick(t, "action", Actions...), false, ""
	}
	return q
}
