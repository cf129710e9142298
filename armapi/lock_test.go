package armapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const (
	locks    = "/providers/Microsoft.Authorization/locks"
	keep     = `{"properties":{"level":"CanNotDelete","notes":"ask the harbour master"}}`
	readOnly = `{"properties":{"level":"readonly"}}`
)

// A lock that forbids deletion leaves writes alone; one that allows reading
// only forbids writes and actions too. Each counts for what lies below its
// scope, and a group is not deleted around a lock in it.
func TestLocks(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		s.expect(200, "owner", "PATCH", harbor+version, `{"properties":{"adminUserEnabled":true}}`)
		for _, scope := range []string{sub, group, harbor} {
			made := s.expect(201, "owner", "PUT", scope+locks+"/one"+version, keep)
			if made.body["id"] != scope+locks+"/one" || made.body["type"] != "Microsoft.Authorization/locks" || resource.Lookup(made.body, "properties.notes") != "ask the harbour master" {
				t.Errorf("made: %s", made.text)
			}
			s.expect(200, "owner", "PATCH", harbor+version, `{"tags":{"a":"`+fmt.Sprint(len(scope))+`"}}`)
			s.expect(200, "owner", "POST", harbor+"/listCredentials"+version, "")
			for _, at := range []string{harbor, group} {
				a := s.expect(409, "owner", "DELETE", at+version, "")
				want := "The scope '" + at + "' cannot perform delete operation because following scope(s) are locked: '" + scope + "'. Please remove the lock and try again. Locks: one (CanNotDelete)."
				if a.code() != "ScopeLocked" || a.message() != want {
					t.Errorf("%s, locked at %s: %s", at, scope, a.text)
				}
			}
			if level := s.expect(200, "owner", "PUT", scope+locks+"/one"+version, readOnly); resource.Lookup(level.body, "properties.level") != "ReadOnly" {
				t.Errorf("the level: %s", level.text)
			}
			before := s.changes()
			for _, c := range [][3]string{
				{"PUT", harbor, premium},
				{"PATCH", harbor, `{"tags":{}}`},
				{"POST", harbor + "/listCredentials", ""},
				{"POST", harbor + "/importImage", importBody},
				{"DELETE", harbor, ""},
				{"PUT", harbor + "/providers/Microsoft.Authorization/roleAssignments/7b29b0b6-18a6-4a3a-9e7d-2a4a0d1a9c11", `{"properties":{"roleDefinitionId":"7f951dda-4ed3-4680-a7ca-43fe172d538d","principalId":"11111111-1111-4111-8111-111111111111"}}`},
				{"PATCH", harbor + "/providers/Microsoft.Resources/tags/default", `{"operation":"Merge","properties":{"tags":{"a":"b"}}}`},
			} {
				verb := "write"
				if c[0] == "DELETE" {
					verb = "delete"
				}
				if a := s.expect(409, "owner", c[0], c[1]+version, c[2]); a.code() != "ScopeLocked" || !strings.Contains(a.message(), "cannot perform "+verb+" operation") || !strings.Contains(a.message(), "one (ReadOnly)") {
					t.Errorf("%v: %s", c, a.text)
				}
			}
			if s.changes() != before {
				t.Error("something was stored")
			}
			s.expect(200, "owner", "GET", harbor+version, "")
			if scope != harbor {
				s.expect(409, "owner", "PUT", registries+"/other1"+version, premium)
			}
			// Locks are taken away by who may, whatever they are on.
			s.expect(200, "owner", "DELETE", scope+locks+"/one"+version, "")
		}
		s.expect(409, "owner", "POST", sub+"/providers/Microsoft.ContainerRegistry/unregister"+version, "") // it has resources
		s.expect(201, "owner", "PUT", sub+locks+"/one"+version, readOnly)
		if a := s.expect(409, "owner", "POST", sub+"/providers/Microsoft.ContainerRegistry/register"+version, ""); a.code() != "ScopeLocked" {
			t.Errorf("register: %s", a.text)
		}
		s.expect(200, "owner", "DELETE", sub+locks+"/one"+version, "")
		s.expect(200, "owner", "DELETE", group+version, "")
	})
}

// Two locks of one name at two scopes are two, and a lock of a neighbour whose
// name begins the same does not count.
func TestLocksAreOfTheirScope(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		s.expect(201, "owner", "PUT", harbor+"2"+version, premium)
		s.expect(201, "owner", "PUT", harbor+"2"+locks+"/one"+version, readOnly)
		s.expect(200, "owner", "PATCH", harbor+version, `{"tags":{"a":"b"}}`)
		s.expect(201, "owner", "PUT", harbor+locks+"/one"+version, keep)
		list := func(at, filter string) []string {
			var ids []string
			for _, v := range s.expect(200, "owner", "GET", at+locks+version+filter, "").body["value"].([]any) {
				id, _ := v.(resource.Object)["id"].(string)
				ids = append(ids, strings.TrimPrefix(id, registries))
			}
			return ids
		}
		both, one := []string{"/harbor" + locks + "/one", "/harbor2" + locks + "/one"}, []string{"/harbor" + locks + "/one"}
		for at, want := range map[string][]string{sub: both, group: both, harbor: one} {
			if got := list(at, ""); !slices.Equal(got, want) {
				t.Errorf("below %s: %v", at, got)
			}
		}
		if got := list(group, "&$filter=atScope()"); got != nil {
			t.Errorf("at the group: %v", got)
		}
		s.expect(201, "owner", "PUT", group+locks+"/two"+version, keep)
		if got := list(harbor, "&$filter=atScope()"); len(got) != 2 {
			t.Errorf("at the registry and above: %v", got)
		}
		s.expect(400, "owner", "GET", group+locks+version+"&$filter=level+eq+'x'", "")
		s.expect(404, "owner", "GET", registries+"/nothere"+locks+version, "")
		s.expect(403, "reader", "GET", harbor+locks+version, "")
		s.expect(403, "reader", "DELETE", harbor+locks+"/one"+version, "")
		s.expect(403, "reader", "PUT", harbor+locks+"/mine"+version, keep)
	})
}

func TestLocksThatAreNone(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		for body, path := range map[string]string{
			`{}`: "properties.level",
			`{"properties":{"level":"NotSpecified"}}`:                              "properties.level",
			`{"properties":{"level":"ReadOnly","notes":7}}`:                        "properties.notes",
			`{"properties":{"level":"ReadOnly","Level":"CanNotDelete"}}`:           "properties.level",
			`{"properties":{"level":"ReadOnly","owners":[{"applicationId":"a"}]}}`: "properties.owners",
		} {
			if a := s.expect(400, "owner", "PUT", harbor+locks+"/one"+version, body); resource.Lookup(a.body, "error.target") != path {
				t.Errorf("%s: %s", body, a.text)
			}
		}
		s.expect(404, "owner", "PUT", registries+"/nothere"+locks+"/one"+version, keep)
		s.expect(201, "owner", "PUT", harbor+locks+"/one"+version, keep)
		s.expect(400, "owner", "PUT", harbor+locks+"/one"+locks+"/two"+version, keep)
		for i := range 19 {
			s.expect(201, "owner", "PUT", fmt.Sprintf("%s%s/more%d%s", harbor, locks, i, version), keep)
		}
		if a := s.expect(409, "owner", "PUT", harbor+locks+"/last"+version, keep); a.code() != "LockCountExceeded" {
			t.Errorf("the 21st: %s", a.text)
		}
		s.expect(200, "owner", "PUT", harbor+locks+"/one"+version, readOnly)
	})
}
