package graphapi

import (
	"strings"
	"testing"
)

// A filter is understood whole or refused, and what is understood can be
// written again: FIELD, operation and value say all that it said.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{
		"", "appId eq 'x'", "startswith(displayName,'it''s')", "servicePrincipalNames/any(c:c eq 'x')", "accountEnabled eq true",
		"a eq 'x' and b eq 'y'", "a eq 'x' and", "a eq 'x' or b eq 'y'", "startswith(a,'x'", "a/any(x:y eq 'z')", "a eq truely", "a  eq  'x'", "'", "a eq ''",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseFilter(text)
		if err != nil {
			return
		}
		var terms []string
		for _, one := range got {
			value := "'" + strings.ReplaceAll(one.value, "'", "''") + "'"
			terms = append(terms, map[string]string{
				"eq": one.field + " eq " + value, "startswith": "startswith(" + one.field + "," + value + ")", "any": one.field + "/any(x:x eq " + value + ")",
			}[one.op])
		}
		again, err := parseFilter(strings.Join(terms, " and "))
		if err != nil || len(again) != len(got) {
			t.Fatalf("%q is read as %v, which is refused: %v", text, got, err)
		}
		for i := range got {
			if got[i] != again[i] {
				t.Errorf("%q: %v became %v", text, got[i], again[i])
			}
		}
	})
}

func TestFiltersCompareWithoutCase(t *testing.T) {
	o := map[string]any{"displayName": "Ci", "on": true, "names": []string{"A"}, "uris": []any{"https://X", 1}}
	for text, want := range map[string]bool{
		"displayName eq 'CI'": true, "displayName eq 'C'": false, "startswith(displayName,'c')": true, "startswith(displayName,'x')": false,
		"on eq true": true, "on eq false": false, "names/any(n:n eq 'a')": true, "uris/any(u:u eq 'https://x')": true, "uris/any(u:u eq '1')": false,
		"absent eq ''": false, "displayName eq 'ci' and on eq false": false,
	} {
		f, err := parseFilter(text)
		if err != nil || f.holds(o) != want {
			t.Errorf("%s: %v %v", text, f, err)
		}
	}
}
