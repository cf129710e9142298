package policy_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cove.example/cove/arm"
	"cove.example/cove/condition"
	"cove.example/cove/policy"
)

const repo = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"

func parsed(t testing.TB, text string) *condition.Condition {
	t.Helper()
	c, err := condition.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const sub = "/subscriptions/5f0a1c52-0000-4000-8000-000000000001"

var (
	harbor   = arm.MustID(sub + "/resourceGroups/prod/providers/Microsoft.ContainerRegistry/registries/harbor")
	quay     = arm.MustID(sub + "/resourceGroups/prod/providers/Microsoft.ContainerRegistry/registries/quay")
	prod     = arm.MustID(sub + "/resourceGroups/prod")
	everyone = arm.MustID(sub)
)

func given(role string, scope arm.ID) *policy.Assignment {
	return &policy.Assignment{
		ID:    arm.MustID(scope.String() + "/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-000000000001"),
		Scope: scope, Role: policy.BuiltinByName(role),
	}
}

// asked is a question about an action.
func asked(action string, scope arm.ID) *policy.Question {
	return &policy.Question{Request: condition.Request{Action: action}, Scope: scope}
}

func TestDecide(t *testing.T) {
	conditional := given("Container Registry Data Importer and Data Reader", harbor)
	conditional.Condition = parsed(t, repo+" StringEquals 'team/api'")
	elsewhere := given("AcrPull", harbor)
	elsewhere.Condition = parsed(t, "!ActionMatches{'*/push/write'}")
	for _, c := range []struct {
		name   string
		has    []*policy.Assignment
		action string
		scope  arm.ID
		want   string
	}{
		{"nobody", nil, policy.ActionPull, harbor, "no: no role is assigned at " + harbor.String() + " or above it"},
		{"a puller", []*policy.Assignment{given("AcrPull", harbor)}, policy.ActionPull, harbor, "yes: AcrPull"},
		{"a puller who pushes", []*policy.Assignment{given("AcrPull", harbor)}, policy.ActionPush, harbor, "no: AcrPull at " + harbor.String() + " does not hold " + policy.ActionPush},
		{"a puller elsewhere", []*policy.Assignment{given("AcrPull", quay)}, policy.ActionPull, harbor, "no: no role is assigned at " + harbor.String() + " or above it"},
		{"a pusher of the group", []*policy.Assignment{given("AcrPush", prod)}, policy.ActionPush, harbor, "yes: AcrPush"},
		{"a pusher who deletes", []*policy.Assignment{given("AcrPush", prod)}, policy.ActionDelete, harbor, "no: AcrPush at " + prod.String() + " does not hold " + policy.ActionDelete},
		{"the owner of the subscription", []*policy.Assignment{given("Owner", everyone)}, policy.ActionDelete, harbor, "yes: Owner"},
		{"a contributor", []*policy.Assignment{given("Contributor", everyone)}, policy.ActionPush, harbor, "yes: Contributor"},
		{"a contributor who gives roles", []*policy.Assignment{given("Contributor", everyone)}, "Microsoft.Authorization/roleAssignments/write", harbor, "no: Contributor at " + everyone.String() + " does not hold Microsoft.Authorization/roleAssignments/write"},
		{"a contributor who also may", []*policy.Assignment{given("Contributor", everyone), given("Role Based Access Control Administrator", harbor)}, "Microsoft.Authorization/roleAssignments/write", harbor, "yes: Role Based Access Control Administrator"},
		{"a reader", []*policy.Assignment{given("Reader", prod)}, policy.ActionPull, harbor, "yes: Reader"},
		{"a reader who pushes", []*policy.Assignment{given("Reader", prod)}, policy.ActionPush, harbor, "no: Reader at " + prod.String() + " does not hold " + policy.ActionPush},
		{"a repository writer in this mode", []*policy.Assignment{given("Container Registry Repository Writer", harbor)}, policy.ActionPush, harbor, "no: Container Registry Repository Writer at " + harbor.String() + " does not hold " + policy.ActionPush},
		{"a registry's owner asks above", []*policy.Assignment{given("Owner", harbor)}, policy.ActionRegistryRead, prod, "no: no role is assigned at " + prod.String() + " or above it"},
		{"a registry with the same beginning", []*policy.Assignment{given("Owner", harbor)}, policy.ActionPull, arm.MustID(harbor.String() + "2"), "no: no role is assigned at " + harbor.String() + "2 or above it"},
		{"a condition about repositories", []*policy.Assignment{given("Reader", quay), conditional}, policy.ActionPull, harbor, "no: Container Registry Data Importer and Data Reader at " + harbor.String() + " has a condition that is not true: " + repo + " StringEquals 'team/api'"},
		{"a condition that is true of the action", []*policy.Assignment{elsewhere}, policy.ActionPull, harbor, "yes: AcrPull"},
	} {
		q := asked(c.action, c.scope)
		q.Repository = "team/api" // which no action is about
		d := policy.Decide(c.has, q)
		got := "no: " + d.Why(q)
		if d.Allowed {
			got = "yes: " + d.Assignment.Role.Name
		}
		if got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestBuiltinRolesAreWellFormed(t *testing.T) {
	seen := map[string]bool{}
	id := regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	action := regexp.MustCompile(`^(\*|[A-Za-z.]+)(/[A-Za-z.*]+)*$`)
	for _, r := range policy.Builtin {
		if !id.MatchString(r.ID) || seen[r.ID] || seen[r.Name] || r.Description == "" {
			t.Errorf("%s %s: not a role of its own", r.ID, r.Name)
		}
		seen[r.ID], seen[r.Name] = true, true
		if policy.BuiltinByID(strings.ToUpper(r.ID)) != r || policy.BuiltinByName(strings.ToLower(r.Name)) != r {
			t.Errorf("%s is not found", r.Name)
		}
		for _, a := range append(append(r.Actions, r.NotActions...), r.DataActions...) {
			if !action.MatchString(a) {
				t.Errorf("%s: %q is not an action", r.Name, a)
			}
		}
	}
}

// The matcher agrees with a regular expression made of the same pattern.
func TestPatternsMatchAsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		piece := rapid.SampledFrom([]string{"*", "a", "B", "/", "ab", "."})
		pattern := strings.Join(rapid.SliceOfN(piece, 1, 8).Draw(t, "pattern"), "")
		action := strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "A", "/", "."}), 0, 10).Draw(t, "action"), "")
		want := regexp.MustCompile(`(?is)^` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `$`).MatchString(action)
		if got := (&policy.Role{Actions: []string{pattern}}).Allows(action); got != want {
			t.Fatalf("%q against %q: %v", pattern, action, got)
		}
	})
}

// Scopes compare by whole names and without regard to case, as ids do.
func TestScopesAreComparedAsIds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		segment := rapid.SampledFrom([]string{"a", "A", "ab", "b"})
		draw := func(label string) arm.ID {
			text := "/subscriptions/" + segment.Draw(t, label)
			if rapid.Bool().Draw(t, label+" in a group") {
				text += "/resourceGroups/" + segment.Draw(t, label)
			}
			return arm.MustID(text)
		}
		scope, above := draw("scope"), draw("above")
		if got := policy.Decide([]*policy.Assignment{given("Owner", above)}, asked(policy.ActionPull, scope)).Allowed; got != scope.Within(above) {
			t.Fatalf("%s within %s: %v", scope, above, got)
		}
	})
}

// More assignments never allow less, and what is allowed is allowed by one of
// them alone.
func TestAssignmentsOnlyAdd(t *testing.T) {
	scopes := []arm.ID{harbor, quay, prod, everyone}
	never := parsed(t, "1 NumericEquals 2")
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOf(rapid.Custom(func(t *rapid.T) *policy.Assignment {
			a := given(rapid.SampledFrom(policy.Builtin).Draw(t, "role").Name, rapid.SampledFrom(scopes).Draw(t, "scope"))
			a.Condition = rapid.SampledFrom([]*condition.Condition{nil, never}).Draw(t, "condition")
			return a
		})).Draw(t, "assignments")
		action := rapid.SampledFrom([]string{policy.ActionPull, policy.ActionPush, policy.ActionDelete, policy.ActionRegistryWrite}).Draw(t, "action")
		scope := rapid.SampledFrom(scopes).Draw(t, "scope asked")
		alone := false
		for i, a := range all {
			one := policy.Decide(all[i:i+1], asked(action, scope)).Allowed
			if one && (a.Condition != nil || !scope.Within(a.Scope)) {
				t.Fatalf("%s at %s allows %s at %s", a.Role.Name, a.Scope, action, scope)
			}
			alone = alone || one
		}
		if got := policy.Decide(all, asked(action, scope)).Allowed; got != alone {
			t.Fatalf("together %v, alone %v", got, alone)
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	has := []*policy.Assignment{given("Reader", prod), given("AcrPush", harbor)}
	b.ReportAllocs()
	for b.Loop() {
		if !policy.Decide(has, asked(policy.ActionPush, harbor)).Allowed {
			b.Fatal("refused")
		}
	}
}
