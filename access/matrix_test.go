package access

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/condition"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
)

// What follows says what is right in words of the documentation, role by role,
// and knows nothing of actions, patterns and how conditions are read. Every cell
// of the matrix is compared with it.

// byActions is what roles give where actions decide: in the mode of AcrPull.
var byActions = map[string]string{
	"AcrPull":     "pull list",
	"AcrPush":     "pull push list",
	"AcrDelete":   "delete",
	"Reader":      "pull list",
	"Owner":       "pull push delete lock list",
	"Contributor": "pull push delete lock list",
	"Container Registry Data Importer and Data Reader":                             "pull list",
	"Container Registry Contributor and Data Access Configuration Administrator":   "lock",
	"Container Registry Configuration Reader and Data Access Configuration Reader": "",
	"Role Based Access Control Administrator":                                      "pull list", // it reads everything
	"User Access Administrator":                                                    "pull list",
	"Container Registry Tasks Contributor":                                         "",
	"AcrImageSigner":                                                               "",
	"AcrQuarantineReader":                                                          "",
	"Container Registry Repository Reader":                                         "",
	"Container Registry Repository Writer":                                         "",
	"Container Registry Repository Contributor":                                    "",
	"Container Registry Repository Catalog Lister":                                 "",
	"Container Registry Transfer Pipeline Contributor":                             "",
	"a custom role: everything of registries":                                      "pull push delete lock list",
	"a custom role: everything but pushing":                                        "pull delete lock list",
	"a custom role: all data":                                                      "",
	"a custom role: all data but deleting":                                         "",
}

// byData is what roles give in the mode of repository permissions. inspect and
// lock are the attributes of repositories, tags and manifests.
var byData = map[string]string{
	"Container Registry Repository Reader":             "pull inspect",
	"Container Registry Repository Writer":             "pull inspect push lock",
	"Container Registry Repository Contributor":        "pull inspect push lock delete",
	"Container Registry Repository Catalog Lister":     "list",
	"Container Registry Data Importer and Data Reader": "pull inspect list",
	"a custom role: all data":                          "pull inspect push lock delete list",
	"a custom role: all data but deleting":             "pull inspect push lock list",
}

// verbs are the actions of scopes in those words; what the documentation calls
// them in conditions is beside.
var verbs = map[string]struct{ word, inConditions string }{
	"pull":           {"pull", "content/read"},
	"push":           {"push", "content/write"},
	"delete":         {"delete", "content/delete"},
	"metadata_read":  {"inspect", "metadata/read"},
	"metadata_write": {"lock", "metadata/write"},
	"*":              {"list", "catalog/read"},
}

const named = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"

// situation is what a condition may look at.
type situation struct {
	action  string // as conditions name it, "" for one that is no data action
	repo    string // "" is none
	private bool
	late    bool
}

// conditions with what they mean. What is not there makes nothing true, and
// nothing false that is turned round.
var conditions = []struct {
	text  string
	means func(s situation) bool
}{
	{"", func(situation) bool { return true }},
	{named + " StringEquals 'team/api'", func(s situation) bool { return s.repo == "team/api" }},
	{"!(" + named + " StringEquals 'team/api')", func(s situation) bool { return s.repo != "team/api" && s.repo != "" }},
	{restricted("content/read", "metadata/read") + " OR (" + named + " StringStartsWithIgnoreCase 'TEAM/')", func(s situation) bool {
		return s.action != "content/read" && s.action != "metadata/read" || strings.HasPrefix(s.repo, "team/")
	}},
	{restricted("content/read", "content/write", "metadata/read", "metadata/write") + " OR (" + named + " StringLike 'team/a?i')", func(s situation) bool {
		return !slices.Contains([]string{"content/read", "content/write", "metadata/read", "metadata/write"}, s.action) || s.repo == "team/api"
	}},
	{"@Environment[isPrivateLink] BoolEquals true", func(s situation) bool { return s.private }},
	{"Exists @Environment[Microsoft.Network/privateEndpoints] AND " + named + " ForAnyOfAnyValues:StringEquals {'ops/x', 'team/web'}", func(s situation) bool {
		return s.private && (s.repo == "ops/x" || s.repo == "team/web")
	}},
	{"@Environment[UtcNow] DateTimeLessThan '2026-12-01T00:00:00.0000000Z'", func(s situation) bool { return !s.late }},
	{"NOT (@Environment[UtcNow] DateTimeGreaterThanEquals '2026-12-01T00:00:00.0000000Z' OR " + named + " StringStartsWith 'ops/')", func(s situation) bool {
		return !s.late && s.repo != "" && !strings.HasPrefix(s.repo, "ops/")
	}},
	{"ActionMatches{'*/read'} AND @Environment[Microsoft.Network/virtualNetworks/subnets] StringLike '*'", func(situation) bool { return false }}, // nobody here comes from a subnet
}

func restricted(actions ...string) string {
	var out []string
	for _, a := range actions {
		out = append(out, "!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/"+a+"'})")
	}
	return "(" + strings.Join(out, " AND ") + ")"
}

func customRole(name string) *policy.Role {
	r := &policy.Role{ID: "00000000-0000-4000-8000-0000000000ff", Name: name, Assignable: []arm.ID{arm.MustID(sub)}}
	switch name {
	case "a custom role: everything of registries":
		r.Actions = []string{"Microsoft.ContainerRegistry/*"}
	case "a custom role: everything but pushing":
		r.Actions, r.NotActions = []string{"*"}, []string{"microsoft.containerregistry/registries/PUSH/*"}
	case "a custom role: all data":
		r.DataActions = []string{"Microsoft.ContainerRegistry/registries/*"}
	case "a custom role: all data but deleting":
		r.DataActions, r.NotDataActions = []string{"*"}, []string{"*/repositories/*/delete"}
	default:
		return nil
	}
	return r
}

// row:76 row:77 row:78 row:79: identities × modes × roles × conditions ×
// actions. In the mode of repository permissions the roles of the Acr family
// count for nothing on content; in the other those of repositories do not.
func TestEveryCellOfThePermissionMatrix(t *testing.T) {
	cells, allowed := 0, 0
	for _, mode := range []string{registry.LegacyMode, registry.AbacMode} {
		for role := range byActions {
			def := policy.BuiltinByName(role)
			if def == nil {
				def = customRole(role)
			}
			if def == nil {
				t.Fatalf("there is no role %s", role)
			}
			for _, c := range conditions {
				for _, at := range []string{sub, sub + "/resourceGroups/prod", harborID.String(), quayID.String()} {
					for _, private := range []bool{false, true} {
						for _, late := range []bool{false, true} {
							n, yes := matrixOf(t, mode, role, def, c.text, c.means, arm.MustID(at), private, late)
							cells, allowed = cells+n, allowed+yes
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

func matrixOf(t *testing.T, mode, role string, def *policy.Role, text string, means func(situation) bool, at arm.ID, private, late bool) (cells, allowed int) {
	t.Helper()
	a := &policy.Assignment{ID: arm.MustID(at.String() + "/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-000000000001"), Scope: at, Role: def}
	if text != "" {
		var err error
		if a.Condition, err = condition.Parse(text); err != nil {
			t.Fatal(err)
		}
	}
	for verb, v := range verbs {
		repos := []string{"team/api", "team/web", "ops/x"}
		if verb == "*" {
			repos = []string{""}
		}
		for _, repo := range repos {
			for _, who := range []string{"holder", "nobody", "admin", "anonymous"} {
				want := Scope{"repository", repo, verb}
				if verb == "*" {
					want = catalog
				}
				f := Facts{
					Ask:      Ask{ID: id, Host: host, Want: []Scope{want}, Origin: outside("203.0.113.9")},
					Now:      time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC),
					Registry: harbor(func(s *registry.Settings) { s.Mode, s.AnonymousPull = mode, true }),
				}
				if private {
					f.Ask.Origin, f.Endpoint = inside("10.0.0.7"), endpoint("Approved", harborID)
				}
				if late {
					f.Now = f.Now.AddDate(0, 1, 0)
				}
				right := false
				switch who {
				case "holder":
					f.Proof, f.Roles = servicePrincipal(nil), []*policy.Assignment{a}
					right = gives(mode, role, v.word, v.inConditions, repo, means, private, late) && at.String() != quayID.String()
				case "nobody":
					f.Proof = servicePrincipal(nil)
				case "admin":
					f.Proof, right = Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}, true
				case "anonymous":
					f.Proof = Proof{Method: ByToken, Identity: Identity{Kind: KindAnonymous}}
					right = v.word == "pull" || v.word == "inspect" || v.word == "list"
				}
				got := Decide(f)
				if got.Allow != right {
					t.Fatalf("%s, %s with %q at %s under %q asks %s of %q (private %v, late %v): %v %s",
						mode, who, role, at, text, verb, repo, private, late, got.Allow, sentence(got))
				}
				cells++
				if right {
					allowed++
				}
			}
		}
	}
	return cells, allowed
}

// gives says whether a role at the registry gives something to its holder.
func gives(mode, role, word, inConditions, repo string, means func(situation) bool, private, late bool) bool {
	s := situation{repo: repo, private: private, late: late}
	has := byActions[role]
	switch {
	case mode == registry.AbacMode:
		has, s.action = byData[role], inConditions
	case word == "inspect":
		word = "pull" // reading attributes is part of it there
		s.repo = ""
	default:
		s.repo = "" // where actions decide, no repository is known to conditions
	}
	if !slices.Contains(strings.Fields(has), word) {
		return false
	}
	return means(s)
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
		{"a condition", harbor(abac), with(reader, ours), []Scope{app}, "COVE-PERM-012 permission: the service principal " + ci + " may not pull from team/app: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: " + ours},
		{"what the role does not hold either", harbor(abac), with(reader, ours), []Scope{appPush}, "COVE-PERM-001 permission: the service principal " + ci + " may not push to team/app: " + reader + " does not allow it"},
		{"a condition at login", harbor(abac), with(reader, "1 NumericEquals 2"), nil, "COVE-PERM-012 permission: the service principal " + ci + " holds no role on harbor that counts: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: 1 NumericEquals 2"},
		{"a condition that may be true of some repository, at login", harbor(abac), with(reader, ours), nil, "allowed"},
		{"nothing", harbor(abac), with("AcrDelete", ""), []Scope{app}, "COVE-PERM-001 permission: the service principal " + ci + " may not pull from team/app: AcrDelete does not allow it"},
		{"the catalog", harbor(abac), with(reader, ""), []Scope{catalog}, "COVE-PERM-001 permission: the service principal " + ci + " may not list the repositories: " + reader + " does not allow it"},
		{"all repositories at once, asked of a request", harbor(abac), with(reader, ours), []Scope{{"repository", "*", "pull"}}, "COVE-PERM-012 permission: the service principal " + ci + " may not pull from *: the condition of its role " + reader + " (assignment 00000000-0000-4000-8000-000000000001) is not true: " + ours},
	} {
		v := Decide(Facts{Ask: Ask{ID: id, Host: host, Want: c.want, Origin: outside("203.0.113.9")}, Registry: c.reg, Proof: servicePrincipal(nil), Roles: c.roles})
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
