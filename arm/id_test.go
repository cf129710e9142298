package arm

import (
	"errors"
	"strings"
	"testing"

	"cove.example/cove/fault"
)

const (
	group  = "/subscriptions/S/resourceGroups/G"
	harbor = group + "/providers/Microsoft.ContainerRegistry/registries/harbor"
)

func TestParseIDReadsWhatAnIDSays(t *testing.T) {
	for _, c := range []struct{ id, text, name, typ, group, sub, parent string }{
		{harbor, harbor, "harbor", "Microsoft.ContainerRegistry/registries", "G", "S", group},
		{strings.ToUpper(harbor), "/subscriptions/S/resourceGroups/G/providers/MICROSOFT.CONTAINERREGISTRY/REGISTRIES/HARBOR", "HARBOR", "MICROSOFT.CONTAINERREGISTRY/REGISTRIES", "G", "S", group},
		{"/subscriptions/S/resourcegroups/G", group, "G", "Microsoft.Resources/resourceGroups", "G", "S", "/subscriptions/S"},
		{"/subscriptions/S", "/subscriptions/S", "S", "Microsoft.Resources/subscriptions", "", "S", ""},
		{harbor + "/privateEndpointConnections/c", harbor + "/privateEndpointConnections/c", "c", "Microsoft.ContainerRegistry/registries/privateEndpointConnections", "G", "S", harbor},
		{harbor + "/providers/Microsoft.Authorization/roleAssignments/r", harbor + "/providers/Microsoft.Authorization/roleAssignments/r", "r", "Microsoft.Authorization/roleAssignments", "G", "S", harbor},
		{"/subscriptions/S/providers/Microsoft.Authorization/roleDefinitions/r", "/subscriptions/S/providers/Microsoft.Authorization/roleDefinitions/r", "r", "Microsoft.Authorization/roleDefinitions", "", "S", "/subscriptions/S"},
		{"/providers/Microsoft.Authorization/roleDefinitions/r", "/providers/Microsoft.Authorization/roleDefinitions/r", "r", "Microsoft.Authorization/roleDefinitions", "", "", ""},
		// A type that is named like a scope is none.
		{"/providers/X/subscriptions/S", "/providers/X/subscriptions/S", "S", "X/subscriptions", "", "", ""},
		{"/providers/X/resourceGroups/G", "/providers/X/resourceGroups/G", "G", "X/resourceGroups", "", "", ""},
	} {
		id, err := ParseID(c.id)
		if err != nil {
			t.Errorf("%s: %v", c.id, err)
			continue
		}
		got := []string{id.String(), id.Name(), id.Type(), id.Group(), id.Subscription(), id.Parent().String()}
		want := []string{c.text, c.name, c.typ, c.group, c.sub, c.parent}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("%s: got %q, want %q", c.id, got, want)
				break
			}
		}
		if c.group == "" && !id.GroupID().IsZero() {
			t.Errorf("%s lies in no group, but GroupID is %s", c.id, id.GroupID())
		}
	}
}

func TestParseIDRefuses(t *testing.T) {
	for _, s := range []string{
		"", "/", "x", "//", "/subscriptions", "/subscriptions/", "/subscriptions//resourceGroups/G", "/subscriptions/S/",
		"/subscriptions/S/resourceGroups", "/resourceGroups/G", "/subscriptions/S/resourceGroups/G/",
		"/subscriptions/S/other/G", "/subscriptions/S/providers", "/subscriptions/S/providers/X", "/subscriptions/S/providers/X/t",
		group + "/providers/X/t/n/child", "/providers/A/providers/B/t/n", harbor + "/providers/X", harbor + "/providers/X/t",
		harbor + "/", harbor + "/../other", harbor + "/./x/y", harbor + "%2f", harbor + "?x=y", harbor + "#x", harbor + "\x00", harbor + " ",
		harbor + "\t", harbor + `\x`, harbor + ";x", harbor + "é", harbor + `"`, "https://management/" + harbor, strings.Repeat("/a", 1025),
	} {
		if id, err := ParseID(s); !errors.Is(err, ErrInvalidID) || !id.IsZero() {
			t.Errorf("ParseID(%q) = %s, %v; want a refusal", s, id, err)
		}
	}
}

func TestWithinStopsAtWholeSegments(t *testing.T) {
	scope := MustID(group)
	for text, want := range map[string]bool{
		group: true, harbor: true, strings.ToUpper(harbor): true,
		"/subscriptions/S":                                   false,
		"/subscriptions/S/resourceGroups/G2":                 false,
		"/subscriptions/S/resourceGroups/G2/providers/X/t/n": false,
	} {
		if got := MustID(text).Within(scope); got != want {
			t.Errorf("%s within %s: %v", text, scope, got)
		}
	}
	if !scope.Within(ID{}) {
		t.Error("everything is within no scope at all")
	}
}

// An id is printed as it is parsed, its key names the same resource, and
// walking up from it ends.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{harbor, strings.ToLower(harbor), group, "/providers/X/t/n", harbor + "/providers/X/t/n/c/m", "/subscriptions/S/providers/X/t/n", "/a/b", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			if !errors.Is(err, ErrInvalidID) || !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q: %v is not an invalid id", s, err)
			}
			return
		}
		if !strings.EqualFold(id.String(), s) {
			t.Fatalf("%q became %q", s, id)
		}
		again, err := ParseID(id.String())
		if err != nil || again != id {
			t.Fatalf("%q parses as %q, %v", id, again, err)
		}
		low, err := ParseID(id.Key())
		if err != nil || !low.Equal(id) || low.Key() != id.Key() {
			t.Fatalf("the key of %q parses as %q, %v", id, low, err)
		}
		if strings.ContainsAny(id.String(), "%?#\\ \x00") || strings.Contains(id.String(), "//") || strings.Contains(id.String()+"/", "/../") {
			t.Fatalf("%q has what no id may have", id)
		}
		if id.Type() == "" || id.Name() == "" {
			t.Fatalf("%q has no type or no name", id)
		}
		for steps := 0; !id.IsZero(); steps++ {
			up := id.Parent()
			if steps > len(s) || !id.Within(up) || up == id {
				t.Fatalf("the way up from %q does not end", s)
			}
			if !up.IsZero() {
				if p, err := ParseID(up.String()); err != nil || p != up {
					t.Fatalf("the parent %q of %q is no id: %v", up, id, err)
				}
			}
			id = up
		}
	})
}
