package access_test

import (
	"context"
	"flag"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

const nameOf = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"

// template is a condition as the portal writes it, over the two that reading
// takes.
func template(test string) string {
	const under = "Microsoft.ContainerRegistry/registries/repositories/"
	return "((!(ActionMatches{'" + under + "content/read'}) AND !(ActionMatches{'" + under + "metadata/read'})) OR (" + test + "))"
}

// assign gives a role under a condition, "" for none, as the control plane
// stores it.
func (w *world) assign(t testing.TB, who directory.Client, role string, on arm.ID, text string) {
	t.Helper()
	p := resource.Object{"principalId": who.ObjectID, "principalType": "ServicePrincipal", "roleDefinitionId": policy.DefinitionID(w.admin.Subscription, policy.BuiltinByName(role).ID)}
	if text != "" {
		p["condition"], p["conditionVersion"] = text, "2.0"
	}
	name := arm.MustID(on.String() + "/providers/" + policy.TypeAssignments + "/" + directory.NewID())
	must(t, w.docs.Update(t.Context(), func(tx resource.Tx) error {
		return tx.Put(t.Context(), &resource.Doc{ID: name, Body: resource.Object{"properties": p}})
	}))
}

// follow has the roles answered from memory until the test ends.
func (w *world) follow(t testing.TB) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Roles.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	for !w.Roles.Live() {
		runtime.Gosched()
	}
}

func abac(s *registry.Settings) { s.Mode = registry.AbacMode }

func (w *world) mode(mode string) {
	w.change("harbor", func(s *registry.Settings) { s.Mode = mode })
}

// row:75 row:76 row:77 row:78 row:79: what each of the documented roles opens
// in each mode, by a password at a resource and by a token issued for it.
func TestModesOnTheDataPath(t *testing.T) {
	w := open(t)
	harbor := w.registryID("harbor")
	given := map[string]string{
		"AcrPull": "", "AcrPush": "", "AcrDelete": "", "Owner": "",
		"Container Registry Repository Reader":         template(nameOf + " StringStartsWith 'team/'"),
		"Container Registry Repository Writer":         "",
		"Container Registry Repository Contributor":    nameOf + " StringEquals 'team/api'",
		"Container Registry Repository Catalog Lister": "",
	}
	people := map[string][2]string{}
	for role, text := range given {
		c, secret := w.application(t, w.admin.Tenant)
		w.assign(t, c, role, harbor, text)
		people[role] = [2]string{c.AppID, secret}
	}
	catalog := access.Scope{Type: "registry", Name: "catalog", Action: "*"}
	asked := []access.Scope{
		repo("team/api", "pull"), repo("team/api", "push"), repo("team/api", "delete"), repo("team/api", "metadata_write"),
		repo("ops/x", "pull"), repo("ops/x", "push"), catalog,
	}
	for _, c := range []struct{ mode, role, opens string }{
		{registry.LegacyMode, "AcrPull", "team/api:pull ops/x:pull catalog:*"},
		{registry.LegacyMode, "AcrPush", "team/api:pull team/api:push ops/x:pull ops/x:push catalog:*"},
		{registry.LegacyMode, "AcrDelete", "team/api:delete"},
		{registry.LegacyMode, "Owner", "team/api:pull team/api:push team/api:delete team/api:metadata_write ops/x:pull ops/x:push catalog:*"},
		{registry.LegacyMode, "Container Registry Repository Reader", ""},
		{registry.LegacyMode, "Container Registry Repository Writer", ""},
		{registry.LegacyMode, "Container Registry Repository Contributor", ""},
		{registry.LegacyMode, "Container Registry Repository Catalog Lister", ""},
		{registry.AbacMode, "AcrPull", ""},
		{registry.AbacMode, "AcrPush", ""},
		{registry.AbacMode, "AcrDelete", ""},
		{registry.AbacMode, "Owner", ""},
		{registry.AbacMode, "Container Registry Repository Reader", "team/api:pull"},
		{registry.AbacMode, "Container Registry Repository Writer", "team/api:pull team/api:push team/api:metadata_write ops/x:pull ops/x:push"},
		{registry.AbacMode, "Container Registry Repository Contributor", "team/api:pull team/api:push team/api:delete team/api:metadata_write"},
		{registry.AbacMode, "Container Registry Repository Catalog Lister", "catalog:*"},
	} {
		w.mode(c.mode)
		who := people[c.role]
		for _, s := range asked {
			name := s.Name + ":" + s.Action
			want := slices.Contains(strings.Fields(c.opens), name)
			v := w.Check(t.Context(), ask(basic(who[0], who[1]), s))
			if v.Allow != want {
				t.Errorf("%s, %s asks %s: %s", c.mode, c.role, name, outcome(v))
			}
			bearer, _ := w.token(t, access.Grant{User: who[0], Pass: access.Secret(who[1]), HasUser: true, Scopes: []string{s.String()}}, "") // "" where the identity has nothing here
			if by := w.Check(t.Context(), ask("Bearer "+bearer, s)); bearer != "" && by.Allow != want || bearer == "" && want {
				t.Errorf("%s, %s with a token for %s: %s", c.mode, c.role, name, outcome(by))
			}
		}
	}
}

// A registry that changes its mode takes no credential of the other.
func TestAModeEndsTheOthersTokens(t *testing.T) {
	w := open(t)
	c, secret := w.application(t, w.admin.Tenant)
	w.assign(t, c, "AcrPull", w.registryID("harbor"), "")
	w.assign(t, c, "Container Registry Repository Reader", w.registryID("harbor"), "")
	pull := repo("team/api", "pull")
	grant := access.Grant{User: c.AppID, Pass: access.Secret(secret), HasUser: true, Scopes: []string{pull.String()}}
	before, _ := w.token(t, grant, "")
	w.mode(registry.AbacMode)
	after, _ := w.token(t, grant, "")
	if v := w.Check(t.Context(), ask("Bearer "+before, pull)); v.Allow || v.Refusal != access.Unauthenticated {
		t.Errorf("a token of the mode before: %s", outcome(v))
	}
	if v := w.Check(t.Context(), ask("Bearer "+after, pull)); !v.Allow {
		t.Errorf("a token of the mode: %s", outcome(v))
	}
}

// A token for every repository opens what the condition allows: not everything,
// not nothing, and what it allows at the time of use.
func TestATokenForEveryRepositoryUnderACondition(t *testing.T) {
	w := open(t)
	w.change("harbor", abac)
	c, secret := w.application(t, w.admin.Tenant)
	w.assign(t, c, "Container Registry Repository Reader", w.registryID("harbor"), template(nameOf+" StringStartsWith 'team/'"))
	grant := access.Grant{User: c.AppID, Pass: access.Secret(secret), HasUser: true, Scopes: []string{"repository:*:pull,push registry:catalog:*"}}
	bearer, got := w.token(t, grant, "")
	if got != "allowed" {
		t.Fatal(got)
	}
	for _, s := range []struct {
		scope access.Scope
		want  string
	}{
		{repo("team/api", "pull"), "allowed"},
		{repo("team/new", "pull"), "allowed"},
		{repo("ops/x", "pull"), "COVE-PERM-012"},
		{repo("team/api", "push"), "COVE-PERM-001"},
		{access.Scope{Type: "registry", Name: "catalog", Action: "*"}, "COVE-PERM-001"},
		{repo("*", "pull"), "COVE-PERM-012"},
	} {
		if v := w.Check(t.Context(), ask("Bearer "+bearer, s.scope)); outcome(v) != s.want {
			t.Errorf("%s: %s, want %s", s.scope, outcome(v), s.want)
		}
	}
	as, err := w.Roles.At(t.Context(), c.ObjectID, w.registryID("harbor"))
	must(t, err)
	must(t, w.docs.Update(t.Context(), func(tx resource.Tx) error { return tx.Delete(t.Context(), as[0].ID) }))
	if v := w.Check(t.Context(), ask("Bearer "+bearer, repo("team/api", "pull"))); v.Allow {
		t.Error("the token still opens what its holder may no longer have")
	}
}

// A narrower scope never grants more: whatever a token for less opens, one for
// more opens too, and neither opens what the roles do not.
func TestANarrowerScopeNeverGrantsMore(t *testing.T) {
	outer, w := t, open(t)
	texts := []string{
		"", template(nameOf + " StringStartsWith 'team/'"), nameOf + " StringEquals 'ops/x'",
		"!(" + nameOf + " StringLike 'team/*')", "@Environment[isPrivateLink] BoolEquals true", "ActionMatches{'*/content/*'}",
	}
	roles := []string{"Container Registry Repository Reader", "Container Registry Repository Writer", "Container Registry Repository Contributor", "AcrPush", "Container Registry Data Importer and Data Reader"}
	var people []directory.Client
	for i, text := range texts {
		for _, role := range roles {
			c, _ := w.application(t, w.admin.Tenant)
			w.assign(t, c, role, w.registryID("harbor"), text)
			w.assign(t, c, roles[i%len(roles)], w.registryID("harbor"), texts[(i+2)%len(texts)])
			people = append(people, c)
		}
	}
	names := []string{"team/api", "ops/x", "other"}
	actions := []string{"pull", "push", "delete", "metadata_read", "metadata_write"}
	w.follow(t)
	// Each costs five signatures.
	before := flag.Lookup("rapid.checks").Value.String()
	must(t, flag.Set("rapid.checks", "300"))
	t.Cleanup(func() { must(t, flag.Set("rapid.checks", before)) })
	opened := 0
	check := func(t *rapid.T) {
		w.mode(rapid.SampledFrom([]string{registry.LegacyMode, registry.AbacMode}).Draw(t, "mode"))
		who := rapid.SampledFrom(people).Draw(t, "who")
		refresh, v, err := w.Exchange(context.Background(), ask(""), host, "", access.Secret(w.entra(outer, who, management)))
		if err != nil {
			t.Fatal(err)
		}
		if !v.Allow {
			return // nothing that counts in this mode
		}
		less := rapid.SliceOfNDistinct(rapid.SampledFrom(actions), 1, 3, rapid.ID).Draw(t, "less")
		more := append(slices.Clone(less), rapid.SliceOf(rapid.SampledFrom(append(actions, "*"))).Draw(t, "more")...)
		name := rapid.SampledFrom(names).Draw(t, "name")
		token := func(name string, actions []string) string {
			issued, v, err := w.Token(t.Context(), ask(""), access.Grant{Refresh: refresh, Scopes: []string{fmt.Sprintf("repository:%s:%s", name, strings.Join(actions, ","))}})
			if err != nil {
				t.Fatal(err)
			}
			if !v.Allow {
				return ""
			}
			return string(issued.Token)
		}
		narrow, wide := token(name, less), token("*", more)
		n, a := rapid.SampledFrom(names).Draw(t, "asked of"), rapid.SampledFrom(actions).Draw(t, "asked")
		s := repo(n, a)
		may := w.Check(t.Context(), ask(basic(zero, string(refresh)), s)).Allow
		byNarrow := narrow != "" && w.Check(t.Context(), ask("Bearer "+narrow, s)).Allow
		byWide := wide != "" && w.Check(t.Context(), ask("Bearer "+wide, s)).Allow
		if byNarrow && !byWide || byWide && !may {
			t.Fatalf("%s: narrow %v, wide %v, by the roles %v", s, byNarrow, byWide, may)
		}
		if should := may && n == name && slices.Contains(less, a); byNarrow != should {
			t.Fatalf("%s: the token for it opens %v, want %v", s, byNarrow, should)
		}
		if byNarrow {
			opened++
		}
	}
	rapid.Check(t, check)
	for more := 0; more < 10 && !t.Failed() && opened == 0; more++ { // most often some are
		rapid.Check(t, check)
	}
	if opened == 0 {
		t.Error("nothing was opened")
	}
}

// row:73 row:74: who gives roles holds the role for that, or is an owner; and
// each role of the documentation manages what it is for.
func TestWhoMayGiveRolesAndManage(t *testing.T) {
	w := open(t)
	harbor := w.registryID("harbor")
	const give, define = policy.TypeAssignments + "/write", policy.TypeDefinitions + "/write"
	for role, can := range map[string]string{
		"Owner": give + " " + define + " " + policy.ActionRegistryWrite,
		"Role Based Access Control Administrator": give,
		"User Access Administrator":               give + " " + define,
		"Contributor":                             policy.ActionRegistryWrite,
		"Reader":                                  "",
		"AcrPush":                                 "",
		"Container Registry Contributor and Data Access Configuration Administrator": policy.ActionRegistryWrite,
		"Container Registry Repository Contributor":                                  "",
	} {
		c, _ := w.application(t, w.admin.Tenant)
		w.assign(t, c, role, harbor, "")
		caller, err := w.arm.Authenticate(t.Context(), "Bearer "+w.entra(t, c, management))
		must(t, err)
		for _, action := range []string{give, define, policy.ActionRegistryWrite} {
			if got, want := caller.May(action, harbor), slices.Contains(strings.Fields(can), action); got != want {
				t.Errorf("%s: %s %v", role, action, got)
			}
		}
	}
	// What the control plane asks on the data plane's behalf obeys conditions.
	c, _ := w.application(t, w.admin.Tenant)
	w.assign(t, c, "Container Registry Repository Reader", harbor, nameOf+" StringStartsWith 'team/'")
	caller, err := w.arm.Authenticate(t.Context(), "Bearer "+w.entra(t, c, management))
	must(t, err)
	for name, want := range map[string]bool{"team/api": true, "ops/x": false, "": false} {
		if got := caller.MayData(policy.DataContentRead, harbor, name); got != want {
			t.Errorf("data of %q: %v", name, got)
		}
	}
	if caller.MayData(policy.DataContentRead, w.registryID("quay"), "team/api") {
		t.Error("another registry's data")
	}
}
