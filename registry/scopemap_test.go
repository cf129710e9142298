package registry_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

func TestScopeMapRules(t *testing.T) {
	for _, c := range []struct {
		action, yes, no string
		wrong           string
	}{
		{action: "repositories/team/app/content/read", yes: "team/app", no: "team/app2 team team/app/x"},
		{action: "repositories/team/*/content/read", yes: "team/app team/a/b", no: "team teams/app x/team/app"},
		{action: "repositories/*/content/read", yes: "a a/b/c", no: ""},
		{action: "repositories/content/read/content/read", yes: "content/read", no: "content"},
		{action: "repositories/team*/content/read", wrong: "a * stands"},
		{action: "repositories/*/app/content/read", wrong: "a * stands"},
		{action: "repositories/team/*/app/*/content/read", wrong: "a * stands"},
		{action: "repositories/**/content/read", wrong: "a * stands"},
		{action: "repositories/*/*/content/read", wrong: "a * stands"},
		{action: "repositories/Team/content/read", wrong: `"Team" is not the name`},
		{action: "repositories/team//content/read", wrong: "is not the name"},
		{action: "repositories//content/read", wrong: "must be repositories/NAME/"},
		{action: "repositories/team/content/fly", wrong: "must be repositories/NAME/"},
		{action: "repositories/content/read", wrong: "must be repositories/NAME/"},
		{action: "registry/catalog/*", wrong: "must be repositories/NAME/"},
		{action: "gateway/edge/config/read", wrong: "connected registries are not in this version"},
		{action: "", wrong: "must be repositories/NAME/"},
	} {
		m, wrong := registry.ParseScopeMap("m", []string{c.action})
		if c.wrong != "" || wrong != nil {
			if len(wrong) != 1 || c.wrong == "" || !strings.Contains(wrong[0], c.wrong) {
				t.Errorf("%q is refused with %q, not %q", c.action, wrong, c.wrong)
			}
			if m.AllowsSome(registry.ContentRead) {
				t.Errorf("%q is refused and gives something", c.action)
			}
			continue
		}
		for _, repo := range strings.Fields(c.yes) {
			if !m.Allows(repo, registry.ContentRead) || m.Allows(repo, registry.ContentWrite) || m.Allows(repo, 0) {
				t.Errorf("%s on %s: read %t, write %t, nothing %t", c.action, repo, m.Allows(repo, registry.ContentRead), m.Allows(repo, registry.ContentWrite), m.Allows(repo, 0))
			}
		}
		for _, repo := range strings.Fields(c.no) {
			if m.Allows(repo, registry.ContentRead) {
				t.Errorf("%s reads %s", c.action, repo)
			}
		}
	}
}

var (
	mapRepos = []string{"a", "a/b", "a/b/c", "ab", "b", "content/read", "x/a"}
	mapWords = []string{"content/read", "content/write", "content/delete", "metadata/read", "metadata/write"}
	mapNames = []string{"a", "a/b", "a/*", "a/b/*", "*", "b", "content/read", "content/*"}
)

// naive decides as the documentation says it, entry by entry.
func naive(actions []string, repo, word string) bool {
	for _, a := range actions {
		name := strings.TrimSuffix(strings.TrimPrefix(a, "repositories/"), "/"+word)
		if name == strings.TrimPrefix(a, "repositories/") {
			continue // of another word
		}
		if name == "*" || name == repo || strings.HasSuffix(name, "/*") && strings.HasPrefix(repo, strings.TrimSuffix(name, "*")) {
			return true
		}
	}
	return false
}

// Fewer actions never give more, and what is given is what the rules say.
func TestANarrowerScopeMapNeverGrantsMore(t *testing.T) {
	words := map[string]registry.Right{
		"content/read": registry.ContentRead, "content/write": registry.ContentWrite, "content/delete": registry.ContentDelete,
		"metadata/read": registry.MetadataRead, "metadata/write": registry.MetadataWrite,
	}
	rapid.Check(t, func(t *rapid.T) {
		var wide, narrow []string
		for range rapid.IntRange(0, 8).Draw(t, "n") {
			a := "repositories/" + rapid.SampledFrom(mapNames).Draw(t, "name") + "/" + rapid.SampledFrom(mapWords).Draw(t, "word")
			wide = append(wide, a)
			if rapid.Bool().Draw(t, "kept") {
				narrow = append(narrow, a)
			}
		}
		w, wrong := registry.ParseScopeMap("w", wide)
		n, wrong2 := registry.ParseScopeMap("n", narrow)
		if wrong != nil || wrong2 != nil {
			t.Fatal(wrong, wrong2)
		}
		for word, right := range words {
			some := false
			for _, repo := range mapRepos {
				if got := w.Allows(repo, right); got != naive(wide, repo, word) {
					t.Fatalf("%v: %s of %s is %t", wide, word, repo, got)
				}
				if n.Allows(repo, right) && !w.Allows(repo, right) {
					t.Fatalf("%v grants %s of %s, and %v does not", narrow, word, repo, wide)
				}
				some = some || w.Allows(repo, right)
			}
			if some && !w.AllowsSome(right) {
				t.Fatalf("%v gives nobody %s", wide, word)
			}
		}
	})
}

func FuzzScopeMap(f *testing.F) {
	for _, s := range []string{"repositories/a/content/read", "repositories/*/metadata/write", "repositories/a/*/content/delete", "gateway/x/config/read", "///", "repositories/*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, wrong := registry.ParseScopeMap("m", []string{s})
		all := registry.ContentRead | registry.ContentWrite | registry.ContentDelete | registry.MetadataRead | registry.MetadataWrite
		if m.AllowsSome(all) {
			t.Fatalf("%q gives everything", s)
		}
		if wrong != nil && m.Allows("a", registry.ContentRead) {
			t.Fatalf("%q is refused and gives something", s)
		}
		if m.Allows("nobody/has/named/this", registry.ContentRead) && s != "repositories/*/content/read" && !strings.Contains(s, "nobody") {
			t.Fatalf("%q reads everything", s)
		}
	})
}

// scoped is a world with a Premium registry and the types of its tokens.
func scoped(t *testing.T, db *store.DB) *world {
	t.Helper()
	w := open(t, db)
	var err error
	if w.Service, err = resource.New(resource.Config{
		Store: w.store, Locations: []string{"westeurope"},
		Types: []resource.Type{registry.Type(w.c), registry.ScopeMaps(), registry.Tokens(w.c), {Name: registry.TypeConnection}},
	}); err != nil {
		t.Fatal(err)
	}
	w.put(harbor, `{"location":"westeurope","sku":{"name":"Premium"}}`)
	return w
}

const harbor = registries + "harbor"

// refused is the code of a refusal, and its sentence.
func refused(err error) string {
	if err == nil {
		return "taken"
	}
	e := arm.Describe(err).Error
	return e.Code + ": " + e.Message
}

// The maps that every registry has can be read, listed and used, and not
// changed.
func TestSystemScopeMaps(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := scoped(t, db)
		mine := w.put(harbor+"/scopeMaps/mine-one", `{"properties":{"actions":["repositories/a/content/read"],"description":"x","type":"SystemDefined"}}`)
		if got := resource.Lookup(mine, "properties.type"); got != "UserDefined" {
			t.Errorf("a map of a user is %v", got)
		}
		page, err := w.List(t.Context(), resource.ListQuery{Scope: arm.MustID(harbor), Type: registry.TypeScopeMap})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, o := range page.Items {
			got += fmt.Sprintln(o["name"], resource.Lookup(o, "properties.type"), resource.Lookup(o, "properties.actions"), resource.Lookup(o, "properties.provisioningState"))
		}
		const all = "repositories/*/"
		want := "_repositories_admin SystemDefined [" + all + "content/delete " + all + "content/read " + all + "content/write " + all + "metadata/read " + all + "metadata/write] Succeeded\n" +
			"_repositories_pull SystemDefined [" + all + "content/read] Succeeded\n" +
			"_repositories_pull_metadata_read SystemDefined [" + all + "content/read " + all + "metadata/read] Succeeded\n" +
			"_repositories_push SystemDefined [" + all + "content/read " + all + "content/write] Succeeded\n" +
			"_repositories_push_metadata_write SystemDefined [" + all + "content/read " + all + "content/write " + all + "metadata/read " + all + "metadata/write] Succeeded\n" +
			"mine-one UserDefined [repositories/a/content/read] Succeeded\n"
		if got != want {
			t.Errorf("listed:\n%swant:\n%s", got, want)
		}
		pull := harbor + "/scopeMaps/_repositories_PULL"
		if r, err := w.Get(t.Context(), arm.MustID(pull)); err != nil || r.Body["name"] != "_repositories_pull" {
			t.Error(r.Body, err)
		}
		_, err = w.try(pull, `{"properties":{"actions":["repositories/a/content/read"]}}`)
		if !strings.Contains(refused(err), "is the system's own") {
			t.Error(err)
		}
		if _, err = w.Delete(t.Context(), owner, arm.MustID(pull), resource.Condition{}); !strings.Contains(refused(err), "is the system's own") {
			t.Error(err)
		}
		if _, err = w.try(harbor+"/scopeMaps/_repositories_mine", `{"properties":{"actions":["repositories/a/content/read"]}}`); !strings.Contains(refused(err), "must not begin with an underscore") {
			t.Error(err)
		}
		if _, err = w.Get(t.Context(), arm.MustID(registries+"absent/scopeMaps/_repositories_pull")); !errors.Is(err, resource.ErrUnknown) {
			t.Error(err)
		}
	})
}

func TestScopeMapsAreChecked(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := scoped(t, db)
		many := `"repositories/a/content/read"` + strings.Repeat(`,"repositories/a/content/read"`, 500)
		for body, want := range map[string]string{
			`{}`:                             "must be a list of at least one action",
			`{"properties":{"actions":[]}}`:  "must be a list of at least one action",
			`{"properties":{"actions":[7]}}`: "must be repositories/NAME/",
			`{"properties":{"actions":["repositories/a*/content/read","repositories/b/content/fly"]}}`: "(and 1 more)",
			`{"properties":{"actions":[` + many + `]}}`:                                                "has 501 actions; a scope map may have 500",
			`{"properties":{"actions":["repositories/a/content/read"],"description":7}}`:               "must be a string",
		} {
			if _, err := w.try(harbor+"/scopeMaps/some-map", body); !strings.Contains(refused(err), want) {
				t.Errorf("%.80s: %v, not %s", body, err, want)
			}
		}
		w.put(harbor+"/scopeMaps/some-map", `{"properties":{"Actions":["repositories/a/content/read"]}}`)
		token := w.put(harbor+"/tokens/robot", `{"properties":{"scopeMapId":"`+strings.ToUpper(harbor)+`/scopemaps/SOME-MAP"}}`)
		if got := resource.Lookup(token, "properties.scopeMapId"); got != harbor+"/scopeMaps/some-map" {
			t.Errorf("the token points at %v", got)
		}
		_, err := w.Delete(t.Context(), owner, arm.MustID(harbor+"/scopeMaps/some-map"), resource.Condition{})
		if got := refused(err); got != "ScopeMapInUse: The scope map some-map is used by the token robot. Point the token at another, or delete it." {
			t.Error(got)
		}
		w.patch(harbor+"/tokens/robot", `{"properties":{"scopeMapId":"`+harbor+`/scopeMaps/_repositories_pull"}}`)
		w.remove(harbor + "/scopeMaps/some-map")
		// A registry goes with all that it has, whatever points at what.
		w.put(harbor+"/scopeMaps/some-map", `{"properties":{"actions":["repositories/a/content/read"]}}`)
		w.patch(harbor+"/tokens/robot", `{"properties":{"scopeMapId":"`+harbor+`/scopeMaps/some-map"}}`)
		w.remove(harbor)
		if _, err := w.Get(t.Context(), arm.MustID(harbor+"/tokens/robot")); !fault.Is(err, fault.NotFound) {
			t.Error(err)
		}
	})
}

// How many there may be depends on the SKU, and a smaller one is refused to
// who has more.
func TestTokensAndScopeMapsPerSKU(t *testing.T) {
	w := scoped(t, storetest.Open(t, storetest.SQLite(t)))
	const body = `{"properties":{"actions":["repositories/a/content/read"]}}`
	for i := range 101 {
		w.put(fmt.Sprintf("%s/scopeMaps/map-%04d", harbor, i), body)
	}
	_, err := w.try(harbor, `{"location":"westeurope","sku":{"name":"Basic"}}`)
	if got := refused(err); got != "QuotaExceeded: The registry harbor has more than 100 scope maps, which is all that the SKU Basic allows." {
		t.Error(got)
	}
	w.remove(harbor + "/scopeMaps/map-0100")
	w.put(harbor, `{"location":"westeurope","sku":{"name":"Basic"}}`)
	_, err = w.try(harbor+"/scopeMaps/map-0101", body)
	if got := refused(err); got != "QuotaExceeded: The registry harbor has 100 scope maps, as many as the SKU Basic allows." {
		t.Error(got)
	}
	w.put(harbor+"/scopeMaps/map-0001", `{"properties":{"actions":["repositories/b/content/read"]}}`)
	usage, err := w.Compute(t.Context(), arm.MustID(harbor), "listUsages")
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(usage)
	if !strings.Contains(text, "map[currentValue:100 limit:100 name:ScopeMaps unit:Count]") || !strings.Contains(text, "map[currentValue:0 limit:100 name:Tokens unit:Count]") {
		t.Error(text)
	}
}
