package access

import (
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cove.example/cove/arm"
	"cove.example/cove/condition"
	"cove.example/cove/policy"
	"cove.example/cove/policytest"
	"cove.example/cove/registry"
)

// asks is a request for one of the reference's verbs.
func asks(verb, repository string) Scope {
	switch verb {
	case "list":
		return catalog
	case "delete_referrer":
		verb = "delete"
	}
	return Scope{"repository", repository, verb}
}

// askedBy is what a decision about the reference's request considers: it came
// over a private endpoint or from outside, and its caller is in a subnet or
// nobody knows.
func askedBy(p Proof, mode, verb string, q policytest.Request, roles ...*policy.Assignment) Facts {
	now, err := time.Parse(time.RFC3339Nano, q.Now)
	if err != nil {
		panic(err)
	}
	f := Facts{
		Ask: Ask{ID: id, Host: host, Want: []Scope{asks(verb, q.Repository)}, Origin: outside("203.0.113.9")}, Now: now, Subnet: q.Subnet,
		Registry: harbor(func(s *registry.Settings) { s.Mode, s.AnonymousPull = mode, true }), Proof: p, Roles: roles, Referrer: verb == "delete_referrer",
	}
	if q.PrivateLink {
		f.Ask.Origin, f.Endpoint = inside("10.0.0.7"), endpoint("Approved", harborID)
		f.Endpoint.ID = arm.MustID(q.PrivateEndpoint)
	}
	return f
}

// given is an assignment of the reference's as policy has it.
func given(a policytest.Assignment, i int) (*policy.Assignment, error) {
	p := a.Role.Permissions[0]
	out := &policy.Assignment{
		ID:    arm.MustID(fmt.Sprintf("%s/providers/%s/00000000-0000-4000-8000-%012d", a.Scope, policy.TypeAssignments, i)),
		Scope: arm.MustID(a.Scope), Role: policy.BuiltinByName(a.Role.Name),
	}
	if out.Role == nil {
		out.Role = &policy.Role{Name: a.Role.Name, Actions: p.Actions, NotActions: p.NotActions, DataActions: p.DataActions, NotDataActions: p.NotDataActions}
	}
	var err error
	if a.Condition != "" {
		out.Condition, err = condition.Parse(a.Condition)
	}
	return out, err
}

var modes = []string{registry.LegacyMode, registry.AbacMode}

// should is the reference's answer, with the code of a refusal: of an identity
// with roles, what the other mode would have allowed is told from what neither
// does.
func should(w policytest.World, mode, verb string, q policytest.Request) (bool, string) {
	allowed, lacks := policytest.May(w, verb, mode == registry.AbacMode, q)
	switch {
	case allowed:
		return true, ""
	case lacks == policytest.Condition:
		return false, "COVE-PERM-012"
	case len(w.Assignments) == 0:
		return false, "COVE-PERM-002"
	}
	// What was attached to another manifest is deleted as anything is there.
	verb, _, _ = strings.Cut(verb, "_referrer")
	if other, _ := policytest.May(w, verb, mode != registry.AbacMode, q); other {
		return false, "COVE-PERM-011"
	}
	return false, "COVE-PERM-001"
}

// customRoles are roles that somebody could make to get around the modes.
var customRoles = []policytest.RoleDefinition{
	custom("everything of registries", policytest.Permission{Actions: []string{"Microsoft.ContainerRegistry/*"}}),
	custom("everything but pushing", policytest.Permission{Actions: []string{"*"}, NotActions: []string{"microsoft.containerregistry/registries/PUSH/*"}}),
	custom("all data", policytest.Permission{DataActions: []string{"Microsoft.ContainerRegistry/registries/*"}}),
	custom("all data but deleting", policytest.Permission{DataActions: []string{"*"}, NotDataActions: []string{"*/repositories/*/delete"}}),
	custom("data actions as actions", policytest.Permission{Actions: policytest.DataActions}),
	custom("actions as data actions", policytest.Permission{DataActions: policytest.Actions}),
	custom("nothing in the end", policytest.Permission{Actions: []string{"*"}, NotActions: []string{"*"}, DataActions: []string{"*"}, NotDataActions: []string{"*"}}),
}

func custom(name string, p policytest.Permission) policytest.RoleDefinition {
	return policytest.RoleDefinition{Name: "a custom role: " + name, Permissions: []policytest.Permission{p}}
}

const named = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"

// conditions look at everything that there is to look at.
var conditions = []string{
	"",
	named + " StringEquals 'team/api'",
	"!(" + named + " StringEquals 'team/api')",
	restricted("content/read", "metadata/read") + " OR (" + named + " StringStartsWithIgnoreCase 'TEAM/')",
	restricted("content/read", "content/write", "metadata/read", "metadata/write") + " OR (" + named + " StringLike 'team/a?i')",
	"@Environment[isPrivateLink] BoolEquals true",
	"Exists @Environment[Microsoft.Network/privateEndpoints] AND " + named + " ForAnyOfAnyValues:StringEquals {'ops/x', 'team/web'}",
	"@Environment[UtcNow] DateTimeLessThan '2026-05-01T12:00:00.0000000Z'",
	"NOT (@Environment[UtcNow] DateTimeGreaterThanEquals '2026-05-01T12:00:00.0000000Z' OR " + named + " StringStartsWith 'ops/')",
	"ActionMatches{'*/read'} AND @Environment[Microsoft.Network/virtualNetworks/subnets] StringLike '*'",
	"@Environment[Microsoft.Network/privateEndpoints] StringNotEquals 'x' || SubOperationMatches{'*'}",
	named + " ForAllOfAllValues:StringNotLikeIgnoreCase {'OPS/*', 'x'} && !(Exists @Environment[Microsoft.Network/virtualNetworks/subnets])",
}

func restricted(actions ...string) string {
	var out []string
	for _, a := range actions {
		out = append(out, "!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/"+a+"'})")
	}
	return "(" + strings.Join(out, " AND ") + ")"
}

// situations are ways and times that a request comes, without who it is from.
var situations = []policytest.Request{
	{Now: policytest.Moments[0]},
	{Now: policytest.Moments[1], PrivateLink: true, PrivateEndpoint: policytest.EndpointID},
	{Now: policytest.Moments[0], PrivateLink: true, PrivateEndpoint: policytest.EndpointID, Subnet: policytest.SubnetID},
	{Now: policytest.Moments[2]},
}

// row:76 row:77 row:78 row:79: identities × modes × roles × scopes × conditions
// × ways and times × actions × repositories, each as the reference decides that
// was written from the description alone. In the mode of repository permissions
// the roles of the Acr family count for nothing on content; in the other those
// of repositories do not.
//
// Published failure 11.
func TestEveryCellOfThePermissionMatrix(t *testing.T) {
	cells, allowed := 0, 0
	cell := func(f Facts, right bool, code string, about ...any) {
		t.Helper()
		got := Decide(f)
		if got.Allow != right || code != "" && got.Reason != code {
			t.Fatalf("%v: %v %s, the reference says %v %s", about, got.Allow, sentence(got), right, code)
		}
		cells++
		if right {
			allowed++
		}
	}
	people := []Proof{
		servicePrincipal(nil),
		{Method: ByPassword, Identity: Identity{ObjectID: ci, Name: "ann@example.org", Kind: KindUser}},
	}
	roles := slices.Clone(customRoles)
	for _, id := range policytest.BuiltinIDs() {
		roles = append(roles, policytest.Builtin[id])
	}
	for _, mode := range modes {
		for _, verb := range policytest.Verbs {
			repositories := []string{"team/api", "ops/x"}
			if verb == "list" {
				repositories = repositories[:1]
			}
			for _, repository := range repositories {
				for _, q := range situations {
					q.Principal, q.Scope, q.Repository = ci, harborID.String(), repository
					for _, p := range people {
						cell(askedBy(p, mode, verb, q), false, "COVE-PERM-002", mode, p.Identity.Kind, "without a role", verb)
					}
					admin := Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}
					cell(askedBy(admin, mode, verb, q), true, "", mode, "admin", verb)
					anybody := Proof{Method: ByToken, Identity: Identity{Kind: KindAnonymous}}
					reads := slices.Contains([]string{"pull", "metadata_read", "list"}, verb)
					cell(askedBy(anybody, mode, verb, q), reads, "", mode, "anonymous", verb)
					for i, role := range roles {
						for _, at := range []string{sub, sub + "/resourceGroups/prod", policytest.Registries[0], policytest.Registries[1]} {
							for _, text := range conditions {
								a := policytest.Assignment{Principal: ci, Role: role, Scope: at, Condition: text}
								has, err := given(a, 1)
								if err != nil {
									t.Fatal(err)
								}
								right, code := should(policytest.World{Assignments: []policytest.Assignment{a}}, mode, verb, q)
								cell(askedBy(people[i%2], mode, verb, q, has), right, code, mode, role.Name, "at", at, "under", text, "asks", verb, q)
							}
						}
					}
				}
			}
		}
	}
	if cells < 5000 || allowed < 500 {
		t.Errorf("%d cells, %d of them allowed: the matrix is too small", cells, allowed)
	}
	t.Logf("%d cells, %d allowed", cells, allowed)
}

// row:76 row:77 row:78 row:79: random roles, assignments, conditions and
// requests are decided as by the reference.
func TestDecisionsAgreeWithTheReference(t *testing.T) {
	drawMany(t, "2000")
	seen := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		w, held := drawRoles(t)
		for range 5 {
			q, verb, mode := policytest.DrawRequest(t), rapid.SampledFrom(policytest.Verbs).Draw(t, "verb"), rapid.SampledFrom(modes).Draw(t, "mode")
			q.Principal, q.Scope, q.Repository = ci, harborID.String(), rapid.SampledFrom(policytest.Repositories).Draw(t, "repository")
			right, code := should(w, mode, verb, q)
			got := Decide(askedBy(servicePrincipal(nil), mode, verb, q, held...))
			if got.Allow != right || got.Reason != code {
				t.Fatalf("%s asks %s, %+v\nunder %+v\n%v %s, the reference says %v %s", mode, verb, q, w, got.Allow, sentence(got), right, code)
			}
			seen[code]++
		}
	})
	for _, code := range []string{"", "COVE-PERM-001", "COVE-PERM-002", "COVE-PERM-011", "COVE-PERM-012"} {
		if seen[code] < 100 {
			t.Errorf("only %d times %q in %v", seen[code], code, seen)
		}
	}
}

func drawMany(t *testing.T, checks string) {
	before := flag.Lookup("rapid.checks").Value.String()
	flag.Set("rapid.checks", checks)
	t.Cleanup(func() { flag.Set("rapid.checks", before) })
}

func drawRoles(t *rapid.T) (policytest.World, []*policy.Assignment) {
	one := rapid.Custom(func(t *rapid.T) policytest.Assignment { return policytest.DrawAssignment(t, ci) })
	w := policytest.World{Assignments: rapid.SliceOfN(one, 0, 4).Draw(t, "assignments")}
	var held []*policy.Assignment
	for i, a := range w.Assignments {
		real, err := given(a, i)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, real)
	}
	return w, held
}

// row:76 row:78: whatever else somebody holds, the roles that a mode ignores
// change nothing there, with a condition and without.
func TestAModeIgnoresTheOthersRoles(t *testing.T) {
	drawMany(t, "2000")
	ignored := map[string][]string{
		registry.AbacMode: {"AcrPull", "AcrPush", "AcrDelete"},
		registry.LegacyMode: {
			"Container Registry Repository Reader", "Container Registry Repository Writer",
			"Container Registry Repository Contributor", "Container Registry Repository Catalog Lister",
		},
	}
	allowed := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		_, held := drawRoles(t)
		mode := rapid.SampledFrom(modes).Draw(t, "mode")
		more := policytest.DrawAssignment(t, ci)
		more.Role.Name = rapid.SampledFrom(ignored[mode]).Draw(t, "ignored")
		also, err := given(more, len(held))
		if err != nil {
			t.Fatal(err)
		}
		q := policytest.DrawRequest(t)
		q.Repository = rapid.SampledFrom(policytest.Repositories).Draw(t, "repository")
		for _, verb := range policytest.Verbs {
			without := Decide(askedBy(servicePrincipal(nil), mode, verb, q, held...)).Allow
			with := Decide(askedBy(servicePrincipal(nil), mode, verb, q, append(held[:len(held):len(held)], also)...)).Allow
			if with != without {
				t.Fatalf("%s: %s is allowed %v, and with %s %v", mode, verb, without, more.Role.Name, with)
			}
			if with {
				allowed[mode]++
			}
		}
	})
	if min(allowed[modes[0]], allowed[modes[1]]) < 100 {
		t.Errorf("hardly anything is allowed: %v", allowed)
	}
}

// The nearest miss is told: what the mode ignores, what a condition kept back.
func TestRefusalsTellTheNearestMiss(t *testing.T) {
	abac := func(s *registry.Settings) { s.Mode = registry.AbacMode }
	with := func(role, text string) []*policy.Assignment {
		out := holding(role, harborID)
		if text != "" {
			c, err := condition.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			out[0].Condition = c
		}
		return out
	}
	reader := "Container Registry Repository Reader"
	ours := named + " StringStartsWith 'ops/'"
	for _, c := range []struct {
		name  string
		reg   *registry.Settings
		roles []*policy.Assignment
		want  []Scope
		says  string
	}{
		{"AcrPull in the other mode", harbor(abac), with("AcrPull", ""), []Scope{app}, "COVE-PERM-011 permission: the service principal " + ci + " may not pull from team/app: AcrPull does not count in the permission mode AbacRepositoryPermissions of harbor"},
		{"the same at login", harbor(abac), with("AcrPull", ""), nil, "COVE-PERM-011 permission: the service principal " + ci + " holds no role on harbor that counts: AcrPull does not count in the permission mode AbacRepositoryPermissions of harbor"},
		{"a Reader may log in there", harbor(abac), with("Reader", ""), nil, "allowed"},
		{"and pull nothing", harbor(abac), with("Reader", ""), []Scope{app}, "COVE-PERM-011 permission: the service principal " + ci + " may not pull from team/app: Reader does not count in the permission mode AbacRepositoryPermissions of harbor"},
		{"a repository's reader in the mode of AcrPull", harbor(), with(reader, ""), []Scope{app}, "COVE-PERM-011 permission: the service principal " + ci + " may not pull from team/app: " + reader + " does not count in the permission mode LegacyRegistryPermissions of harbor"},
		{"a condition", harbor(abac), with(reader, ours), []Scope{app}, "COVE-PERM-012 permission: the service principal " + ci + " may not pull from team/app: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: " + ours + ", and here it is team/app"},
		{"a condition that was true until a moment ago", harbor(abac), with(reader, "@Environment[UtcNow] DateTimeLessThan '2026-11-21T08:55:00.0Z'"), []Scope{app}, "COVE-PERM-012 permission: the service principal " + ci + " may not pull from team/app: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: @Environment[UtcNow] DateTimeLessThan '2026-11-21T08:55:00.0Z', and here it is 2026-11-21T09:00:00Z, off by 5m0s"},
		{"a condition on the way in", harbor(abac), with(reader, "@Environment[isPrivateLink] BoolEquals true"), []Scope{app}, "COVE-PERM-012 permission: the service principal " + ci + " may not pull from team/app: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: @Environment[isPrivateLink] BoolEquals true, and here it is false"},
		{"what the role does not hold either", harbor(abac), with(reader, ours), []Scope{appPush}, "COVE-PERM-001 permission: the service principal " + ci + " may not push to team/app: " + reader + " does not allow it"},
		{"a condition at login", harbor(abac), with(reader, "1 NumericEquals 2"), nil, "COVE-PERM-012 permission: the service principal " + ci + " holds no role on harbor that counts: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: 1 NumericEquals 2"},
		{"a condition that may be true of some repository, at login", harbor(abac), with(reader, ours), nil, "allowed"},
		{"nothing", harbor(abac), with("AcrDelete", ""), []Scope{app}, "COVE-PERM-001 permission: the service principal " + ci + " may not pull from team/app: AcrDelete does not allow it"},
		{"the catalog", harbor(abac), with(reader, ""), []Scope{catalog}, "COVE-PERM-001 permission: the service principal " + ci + " may not list the repositories: " + reader + " does not allow it"},
		{"all repositories at once, asked of a request", harbor(abac), with(reader, ours), []Scope{{"repository", "*", "pull"}}, "COVE-PERM-012 permission: the service principal " + ci + " may not pull from *: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: " + ours + ", and here it is every one"},
	} {
		v := Decide(Facts{Ask: Ask{ID: id, Host: host, Want: c.want, Origin: outside("203.0.113.9")}, Now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), Registry: c.reg, Proof: servicePrincipal(nil), Roles: c.roles})
		if got := sentence(v); got != c.says {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.says)
		}
		if !v.Allow && v.rec.Assignment != c.roles[0].ID.String() {
			t.Errorf("%s: the assignment is not in the record: %q", c.name, v.rec.Assignment)
		}
	}
	allowed := Decide(Facts{Ask: Ask{ID: id, Host: host, Want: []Scope{{"repository", "ops/x", "pull"}}, Origin: outside("203.0.113.9")}, Registry: harbor(abac), Proof: servicePrincipal(nil), Roles: with(reader, ours)})
	steps := allowed.Steps()
	if last := steps[len(steps)-1]; last.Why != reader+" allows it, and its condition is true: "+ours {
		t.Errorf("what allowed it: %q", last.Why)
	}
}

// What a decision costs with a condition.
func BenchmarkDecideConditional(b *testing.B) {
	c, err := condition.Parse(restricted("content/read", "metadata/read") + " OR (" + named + " StringStartsWithIgnoreCase 'team/')")
	if err != nil {
		b.Fatal(err)
	}
	roles := holding("Container Registry Repository Reader", harborID)
	roles[0].Condition = c
	f := Facts{
		Ask: Ask{ID: id, Host: host, Want: []Scope{app}, Origin: outside("203.0.113.9")}, Now: time.Now(),
		Registry: harbor(func(s *registry.Settings) { s.Mode = registry.AbacMode }), Proof: servicePrincipal(nil), Roles: roles,
	}
	b.ReportAllocs()
	for b.Loop() {
		if v := Decide(f); !v.Allow {
			b.Fatal(sentence(v))
		}
	}
}
