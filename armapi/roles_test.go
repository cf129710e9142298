package armapi_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/policy"
	"cove.example/cove/resource"
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

// TestCustomRolesAreDefined goes through what `az role definition` sends: a role
// is made at its first assignable scope, changed under the same GUID, found by
// name, refused deletion while it is assigned, and deleted.
func TestCustomRolesAreDefined(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.do("owner", "PUT", group+version, `{"location":"eastus"}`)
		s.do("owner", "PUT", harbor+version, premium)
		const at = "/providers/Microsoft.Authorization/roleDefinitions/"
		const name = "AAAAAAAA-0000-4000-8000-000000000001"
		body := func(roleName, scopes, permissions string) string {
			return `{"properties":{"roleName":"` + roleName + `","description":"d","type":"CustomRole","assignableScopes":[` + scopes + `],"permissions":[` + permissions + `]}}`
		}
		const lists = `{"actions":["*/read"],"notActions":null,"dataActions":["Microsoft.ContainerRegistry/registries/repositories/*/read"],"notDataActions":[]}`
		made := s.expect(http.StatusCreated, "owner", "PUT", group+at+name+version, body("Puller", `"`+group+`"`, lists))
		if made.body["id"] != sub+at+strings.ToLower(name) || made.body["name"] != strings.ToLower(name) || resource.Lookup(made.body, "properties.type") != "CustomRole" ||
			!strings.Contains(made.text, `"notActions":[]`) || strings.Contains(made.text, "tenant") {
			t.Errorf("made: %s", made.text)
		}
		// What was got is put: nothing changes.
		got := s.expect(http.StatusOK, "owner", "GET", sub+at+name+version, "")
		if again := s.expect(http.StatusCreated, "owner", "PUT", sub+at+name+version, got.text); again.text != got.text {
			t.Errorf("put what was got:\n%s\n%s", got.text, again.text)
		}
		s.expect(http.StatusCreated, "owner", "PUT", sub+at+name+version, body("Reader of repositories", `"`+sub+`"`, lists))
		list := func(scope, filter string) int {
			t.Helper()
			got := s.expect(http.StatusOK, "owner", "GET", scope+strings.TrimSuffix(at, "/")+version+"&$filter="+url.QueryEscape(filter), "")
			return len(got.names())
		}
		for _, c := range []struct {
			scope, filter string
			want          int
		}{
			{sub, "type eq 'CustomRole'", 1},
			{harbor, "type eq 'CustomRole' and atScope()", 1},
			{sub, "atScopeAndBelow()", len(policy.Builtin) + 1},
			{sub, "roleName eq 'reader of repositories'", 1},
			{sub, "roleName eq 'Puller'", 0},
			{sub, "type eq 'BuiltInRole'", len(policy.Builtin)},
			{"", "type eq 'CustomRole'", 1},
		} {
			if n := list(c.scope, c.filter); n != c.want {
				t.Errorf("%q with %q: %d roles, want %d", c.scope, c.filter, n, c.want)
			}
		}

		for _, c := range []struct {
			name   string
			status int
			id     string
			body   string
			says   string
		}{
			{"a name that is taken", 409, "bbbbbbbb-0000-4000-8000-000000000001", body("READER OF repositories", `"`+sub+`"`, lists), "RoleDefinitionWithSameNameExists"},
			{"a built-in role's name", 409, "bbbbbbbb-0000-4000-8000-000000000001", body("acrpull", `"`+sub+`"`, lists), "RoleDefinitionWithSameNameExists"},
			{"a built-in role", 403, policy.RoleAcrPull, body("X", `"`+sub+`"`, lists), "CannotModifyBuiltInRole"},
			{"another subscription", 403, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"`+sub+`","/subscriptions/s2"`, lists), "AuthorizationFailed"},
			{"the root", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"/"`, lists), "assignableScopes[0]"},
			{"a registry", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"`+harbor+`"`, lists), "assignableScopes[0]"},
			{"a group that is not there", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"`+sub+`/resourceGroups/none"`, lists), "there is no"},
			{"no scope", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", ``, lists), "assignableScopes"},
			{"no permission", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"`+sub+`"`, `{"actions":[]}`), "must name an action"},
			{"two sets", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"`+sub+`"`, lists+","+lists), "a list of one object"},
			{"a word", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"`+sub+`"`, `{"actions":["*","Pull"]}`), "permissions[0].actions[1]"},
			{"no action", 400, "bbbbbbbb-0000-4000-8000-000000000001", body("X", `"`+sub+`"`, `{"actions":["a b"],"dataActions":"*","notActions":[1]}`), "permissions[0].actions[0]"},
			{"no name, and no GUID", 400, "x", body("", `"`+sub+`"`, lists), "GUID"},
			{"nothing", 400, "bbbbbbbb-0000-4000-8000-000000000001", `{}`, "roleName"},
		} {
			got := s.do("owner", "PUT", sub+at+c.id+version, c.body)
			if got.StatusCode != c.status || !strings.Contains(got.text, c.says) {
				t.Errorf("%s: %d %s, want %d and %q", c.name, got.StatusCode, got.text, c.status, c.says)
			}
		}
		s.expect(http.StatusForbidden, "reader", "PUT", sub+at+name+version, body("Mine", `"`+sub+`"`, lists))
		s.expect(http.StatusForbidden, "owner", "PUT", at+name+version, body("Mine", `"`+sub+`"`, lists))
		s.expect(http.StatusMethodNotAllowed, "owner", "PATCH", sub+at+name+version, `{}`)
		s.expect(http.StatusNotFound, "stranger", "GET", at+name+version, "")

		// It is assigned, with a condition, by the subscription's id of it.
		const assignment = harbor + "/providers/Microsoft.Authorization/roleAssignments/cccccccc-0000-4000-8000-000000000001"
		const who = "11111111-1111-4111-8111-111111111111"
		give := `{"properties":{"principalId":"` + who + `","roleDefinitionId":"` + sub + at + name + `","condition":"@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringStartsWith 'team/'"}}`
		given := s.expect(http.StatusCreated, "owner", "PUT", assignment+version, give)
		if resource.Lookup(given.body, "properties.conditionVersion") != "2.0" {
			t.Errorf("assigned: %s", given.text)
		}
		for _, refused := range []answer{
			s.do("owner", "DELETE", sub+at+name+version, ""),
			s.do("owner", "PUT", sub+at+name+version, body("Reader of repositories", `"`+sub+`/resourceGroups/other"`, lists)),
		} {
			if refused.StatusCode == http.StatusOK || refused.StatusCode == http.StatusNoContent {
				t.Errorf("an assigned role was taken from under its assignment: %s", refused.text)
			}
		}
		if got := s.do("owner", "DELETE", sub+at+name+version, ""); got.StatusCode != http.StatusConflict || got.code() != "RoleDefinitionHasAssignments" {
			t.Errorf("deleted while assigned: %d %s", got.StatusCode, got.text)
		}
		s.expect(http.StatusOK, "owner", "DELETE", assignment+version, "")
		if gone := s.expect(http.StatusOK, "owner", "DELETE", sub+at+name+version, ""); gone.body["name"] != strings.ToLower(name) {
			t.Errorf("deleted: %s", gone.text)
		}
		s.expect(http.StatusNoContent, "owner", "DELETE", sub+at+name+version, "")
		s.expect(http.StatusForbidden, "owner", "DELETE", sub+at+policy.RoleOwner+version, "")
		if got := s.do("owner", "PUT", assignment+version, give); got.StatusCode != http.StatusBadRequest || !strings.Contains(got.text, "roleDefinitionId") {
			t.Errorf("assigned a role that is gone: %d %s", got.StatusCode, got.text)
		}
		s.expect(http.StatusCreated, "owner", "PUT", sub+at+name+version, body("Reader of repositories", `"`+sub+`"`, lists)) // its name is free again
	})
}

// row:77: conditions are stored and shown as they were given; one that is wrong
// or can say nothing is refused, with the column.
func TestConditionsOfAssignments(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.do("owner", "PUT", group+version, `{"location":"eastus"}`)
		s.do("owner", "PUT", harbor+version, premium)
		const at = harbor + "/providers/Microsoft.Authorization/roleAssignments/cccccccc-0000-4000-8000-000000000001"
		body := func(role, more string) string {
			return `{"properties":{"principalId":"11111111-1111-4111-8111-111111111111","roleDefinitionId":"` + sub + `/providers/Microsoft.Authorization/roleDefinitions/` + policy.BuiltinByName(role).ID + `"` + more + `}}`
		}
		const reader = "Container Registry Repository Reader"
		const name = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"
		condition := func(text string) string { return `,"condition":"` + text + `"` }
		for _, c := range []struct{ role, more, says string }{
			{reader, condition(name + " StringStart 'a'"), "column 68: there is no operator StringStart"},
			{reader, condition("(" + name + " StringEquals 'a'"), "column 85: expected AND, OR or the ) that closes the ( at column 1"},
			{reader, condition("!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/raed'}) OR " + name + " StringEquals 'a'"), "column 3: no action fits"},
			{reader, condition(name+" StringEquals 'a'") + `,"conditionVersion":"1.0"`, "must be 2.0"},
			{reader, `,"condition":1`, "must be a string"},
			{reader, condition(name+" StringEquals 'a'") + `,"Condition":"x"`, "given twice"},
			{"Container Registry Repository Catalog Lister", condition(name + " StringEquals 'a'"), "ABAC unsupported"},
			{"AcrPull", condition(name + " StringEquals 'a'"), "no data action on repositories"},
			{"Owner", condition(name + " StringEquals 'a'"), "no data action on repositories"},
		} {
			got := s.do("owner", "PUT", at+version, body(c.role, c.more))
			if got.StatusCode != http.StatusBadRequest || !strings.Contains(got.text, c.says) || !strings.Contains(got.text, `"target":"properties.`) {
				t.Errorf("%s%s: %d %s, want %q", c.role, c.more, got.StatusCode, got.text, c.says)
			}
		}
		text := name + " StringEqualsIgnoreCase 'team/api'"
		made := s.expect(http.StatusCreated, "owner", "PUT", at+version, body(reader, condition(text)+`,"conditionVersion":"2.0","description":"ours"`))
		shown := s.expect(http.StatusOK, "owner", "GET", at+version, "")
		for _, a := range []answer{made, shown} {
			if resource.Lookup(a.body, "properties.condition") != text || resource.Lookup(a.body, "properties.conditionVersion") != "2.0" || resource.Lookup(a.body, "properties.description") != "ours" {
				t.Errorf("shown: %s", a.text)
			}
		}
		// The condition is changed in place, and taken away.
		changed := s.expect(http.StatusOK, "owner", "PUT", at+version, body(reader, condition(text+" OR "+text)))
		if resource.Lookup(changed.body, "properties.condition") != text+" OR "+text {
			t.Errorf("changed: %s", changed.text)
		}
		for _, none := range []string{``, `,"condition":"","conditionVersion":"2.0"`, `,"condition":null,"conditionVersion":null`} {
			s.expect(http.StatusOK, "owner", "PUT", at+version, body(reader, condition(text)))
			without := s.expect(http.StatusOK, "owner", "PUT", at+version, body(reader, none))
			if resource.Lookup(without.body, "properties.condition") != nil || resource.Lookup(without.body, "properties.conditionVersion") != nil {
				t.Errorf("without: %s", without.text)
			}
		}
	})
}
