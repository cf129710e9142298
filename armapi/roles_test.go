package armapi_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/policy"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// TestRoleAssignmentsAreListedAtAScope lists what counts at a registry: what
// was made there, above and below, by each filter that clients send.
func TestRoleAssignmentsAreListedAtAScope(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.do("owner", "PUT", group+version, `{"location":"eastus"}`)
		s.do("owner", "PUT", harbor+version, premium)
		s.do("owner", "PUT", registries+"/other"+version, premium)
		const at = "/providers/Microsoft.Authorization/roleAssignments"
		const one, two = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
		give := func(scope, name, principal, role string) answer {
			t.Helper()
			return s.do("owner", "PUT", scope+at+"/"+name+"-0000-4000-8000-000000000000"+version,
				`{"properties":{"principalId":"`+principal+`","roleDefinitionId":"/x/roleDefinitions/`+role+`"}}`)
		}
		give(sub, "000000a0", one, policy.RoleReader)
		give(group, "000000a1", two, policy.RoleReader)
		give(harbor, "000000a2", one, policy.RoleAcrPull)
		give(registries+"/other", "000000a3", one, policy.RoleAcrPull)

		for _, c := range []struct{ who, scope, filter, want string }{
			{"owner", harbor, "", "a0 a1 a2"},
			{"owner", group, "", "a0 a1 a2 a3"},
			{"owner", group, "atScope()", "a0 a1"},
			{"owner", group, "principalId eq '" + one + "'", "a0 a2 a3"},
			{"owner", group, "assignedTo('" + strings.ToUpper(one) + "')", "a0 a2 a3"},
			{"owner", group, "atScope() and assignedTo('" + one + "')", "a0"},
			{"owner", sub, "", "a0 a1 a2 a3"},
			{"auditor", harbor, "", "a0 a1 a2"},
			{"auditor", group, "", "a2"},
		} {
			got := s.expect(http.StatusOK, c.who, "GET", c.scope+at+version+"&$filter="+url.QueryEscape(c.filter), "")
			names := []string{}
			for _, name := range got.names() {
				names = append(names, name[6:8])
			}
			slices.Sort(names)
			if strings.Join(names, " ") != c.want {
				t.Errorf("%s at %s with %q: %q, want %q", c.who, c.scope, c.filter, names, c.want)
			}
		}
		for _, c := range []struct {
			who, scope, filter string
			status             int
			code               string
		}{
			{"reader", harbor, "", http.StatusForbidden, "AuthorizationFailed"},
			{"reader", registries + "/none", "", http.StatusForbidden, "AuthorizationFailed"},
			{"owner", registries + "/none", "", http.StatusNotFound, "ResourceNotFound"},
			{"owner", harbor, "roleName eq 'x'", http.StatusBadRequest, "InvalidFilterInQueryString"},
			{"owner", harbor, "principalId eq ''", http.StatusBadRequest, "InvalidFilterInQueryString"},
			{"owner", harbor, "assignedTo('" + one + "'", http.StatusBadRequest, "InvalidFilterInQueryString"},
			{"owner", harbor, "atScope() and", http.StatusBadRequest, "InvalidFilterInQueryString"},
			{"owner", harbor, "principalId eq '" + one + "' and principalId eq '" + two + "'", http.StatusBadRequest, "InvalidFilterInQueryString"},
		} {
			if got := s.expect(c.status, c.who, "GET", c.scope+at+version+"&$filter="+url.QueryEscape(c.filter), ""); got.code() != c.code {
				t.Errorf("%s at %s with %q: %s, want %s", c.who, c.scope, c.filter, got.code(), c.code)
			}
		}
		// The same grant under another name is one too many.
		if got := give(harbor, "000000a9", one, policy.RoleAcrPull); got.StatusCode != http.StatusConflict || got.code() != "RoleAssignmentExists" {
			t.Errorf("a second assignment that says the same: %d %s", got.StatusCode, got.text)
		}
	})
}

// TestRoleDefinitionsAreRead finds roles by name and by id, at the root and in
// a subscription.
func TestRoleDefinitionsAreRead(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		const at = "/providers/Microsoft.Authorization/roleDefinitions"
		got := s.do("owner", "GET", sub+at+version+"&$filter="+url.QueryEscape("roleName eq 'acrpull'"), "")
		list, _ := got.body["value"].([]any)
		if len(list) != 1 {
			t.Fatalf("%d roles are named AcrPull: %s", len(list), got.text)
		}
		if want := `"id":"` + sub + at + "/" + policy.RoleAcrPull + `"`; !strings.Contains(got.text, want) || !strings.Contains(got.text, `"actions":["Microsoft.ContainerRegistry/registries/pull/read"]`) {
			t.Errorf("AcrPull is shown as %s", got.text)
		}
		for _, c := range []struct {
			who, path string
			count     int
		}{
			{"owner", sub + at + version + "&$filter=" + url.QueryEscape("type eq 'BuiltInRole'"), len(policy.Builtin)},
			{"stranger", at + version, len(policy.Builtin)}, // what the built-in roles are is no secret
			{"owner", sub + at + version + "&$filter=" + url.QueryEscape("roleName eq 'none'"), 0},
		} {
			got := s.do(c.who, "GET", c.path, "")
			if list, ok := got.body["value"].([]any); !ok || len(list) != c.count {
				t.Errorf("%s: %d roles, want %d", c.path, len(list), c.count)
			}
		}
		if got := s.do("owner", "GET", sub+at+"/"+strings.ToUpper(policy.RoleOwner)+version, ""); got.body["name"] != policy.RoleOwner {
			t.Errorf("Owner is shown as %s", got.text)
		}
		s.expect(http.StatusNotFound, "owner", "GET", sub+at+"/none"+version, "")
		s.expect(http.StatusForbidden, "stranger", "GET", sub+at+version, "")
		s.expect(http.StatusUnauthorized, "", "GET", at+version, "")
	})
}
