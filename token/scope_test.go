package token_test

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"cove.example/cove/token"
)

func TestParseScope(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"repository:team/app:pull", "repository:team/app:pull"},
		{"repository:team/app:pull,push,pull", "repository:team/app:pull,push"},
		{"registry:catalog:*", "registry:catalog:*"},
		{"repository:*:metadata_read", "repository:*:metadata_read"},
		{"repository:host:5000/app:pull", "repository:host:5000/app:pull"},
		{"repository(plugin):app:pull", "repository(plugin):app:pull"},
		{"artifact-repository:chart:pull", "artifact-repository:chart:pull"},
		{"repository:app:", "the scope \"repository:app:\" names no action"},
		{"repository:app", "the scope \"repository:app\" is not of the form type:name:action"},
		{"repository::pull", "the scope \"repository::pull\" is not of the form type:name:action"},
		{"repository:a\"b:pull", "a scope has a character that no scope may have"},
		{"repository:" + strings.Repeat("a", 1100) + ":pull", "a scope is longer than 1024 characters"},
	} {
		got, err := token.ParseScope(c.in)
		text := got.String()
		if err != nil {
			text = strings.Split(err.Error(), ": the scope is not valid")[0]
		}
		if text != c.want {
			t.Errorf("%q is read as %q, not %q", c.in, text, c.want)
		}
	}
}

func TestParseScopes(t *testing.T) {
	got, err := token.ParseScopes([]string{"", "repository:a:pull repository:b:push", "registry:catalog:*"})
	if err != nil || len(got) != 3 {
		t.Fatal(got, err)
	}
	if _, err := token.ParseScopes(slices.Repeat([]string{"repository:a:pull"}, token.MaxScopes+1)); err == nil {
		t.Error("a request without a bound on its scopes was taken")
	}
}

func TestNarrow(t *testing.T) {
	pulls := func(_, name, action string) bool { return action == "pull" || name == "catalog" }
	for in, want := range map[string]string{
		"repository:a:pull,push":         "repository:a:pull",
		"repository:a:*":                 "repository:a:pull",
		"repository:*:pull":              "repository:*:pull",
		"repository:a:push":              "",
		"registry:catalog:*":             "registry:catalog:*",
		"registry:catalog:pull":          "",
		"registry:other:*":               "",
		"artifact-repository:chart:pull": "",
		"repository(plugin):a:pull":      "",
		"repository:a:fly":               "",
	} {
		s, err := token.ParseScope(in)
		if err != nil {
			t.Fatal(err)
		}
		var got string
		for _, a := range token.Narrow([]token.Scope{s}, pulls) {
			got += token.Scope(a).String()
		}
		if got != want {
			t.Errorf("%s is narrowed to %q, not %q", in, got, want)
		}
	}
}

// A wildcard is a name like any other to who decides: whoever may pull a, and
// not everything, gets nothing for *.
func TestAWildcardIsNotARight(t *testing.T) {
	got := token.Narrow([]token.Scope{{Type: "repository", Name: "*", Actions: []string{"pull"}}},
		func(_, name, _ string) bool { return name == "a" })
	if len(got) != 0 {
		t.Fatalf("granted %v", got)
	}
}

var (
	someNames   = []string{"a", "b", "team/app", "*", "catalog"}
	someTypes   = []string{"repository", "registry", "artifact-repository"}
	someActions = []string{"pull", "push", "delete", "metadata_read", "metadata_write", "*", "fly"}
)

func drawScopes(t *rapid.T, label string) []token.Scope {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) token.Scope {
		return token.Scope{
			Type:    rapid.SampledFrom(someTypes).Draw(t, "type"),
			Name:    rapid.SampledFrom(someNames).Draw(t, "name"),
			Actions: rapid.SliceOfNDistinct(rapid.SampledFrom(someActions), 1, 4, rapid.ID).Draw(t, "actions"),
		}
	}), 0, 5).Draw(t, label)
}

// What a request with fewer scopes or fewer actions is granted, the wider one
// is granted too; and nothing is granted that was not allowed, one by one.
func TestANarrowerScopeNeverGrantsMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		allowed := map[string]bool{}
		may := func(typ, name, action string) bool {
			k := typ + ":" + name + ":" + action
			if _, ok := allowed[k]; !ok {
				allowed[k] = rapid.Bool().Draw(t, k)
			}
			return allowed[k]
		}
		wide := drawScopes(t, "wide")
		var narrow []token.Scope
		for _, s := range wide {
			if rapid.Bool().Draw(t, "keep") {
				n := rapid.IntRange(1, len(s.Actions)).Draw(t, "actions kept")
				narrow = append(narrow, token.Scope{Type: s.Type, Name: s.Name, Actions: s.Actions[:n]})
			}
		}
		w, n := token.Narrow(wide, may), token.Narrow(narrow, may)
		for _, typ := range someTypes {
			for _, name := range someNames {
				for _, action := range someActions {
					if token.Covers(n, typ, name, action) && !token.Covers(w, typ, name, action) {
						t.Fatalf("%v grants %s:%s:%s, and %v does not", narrow, typ, name, action, wide)
					}
				}
			}
		}
		for _, a := range w {
			for _, action := range a.Actions {
				if !allowed[a.Type+":"+a.Name+":"+action] {
					t.Fatalf("granted %s of %s:%s, which is not allowed", action, a.Type, a.Name)
				}
			}
		}
	})
}

func FuzzScope(f *testing.F) {
	for _, s := range []string{"repository:a:pull", "registry:catalog:*", "repository:h:5000/a:pull,push", ":::", "repository:*:*", "a:b:c,,d", "\x00:\xff:\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := token.ParseScope(s)
		if err != nil {
			return
		}
		again, err := token.ParseScope(p.String())
		if err != nil || again.String() != p.String() {
			t.Fatalf("%q prints as %q, which reads as %q, %v", s, p, again, err)
		}
		if p.Type == "" || p.Name == "" || len(p.Actions) == 0 {
			t.Fatalf("%q reads as %#v", s, p)
		}
	})
}
