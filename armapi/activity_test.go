package armapi_test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const activityLog = sub + "/providers/Microsoft.Insights/eventtypes/management/values?api-version=2015-04-01"

// happened are the operations of an answer, the newest first.
func (a answer) happened() string {
	var out []string
	list, _ := a.body["value"].([]any)
	for _, item := range list {
		o, _ := item.(resource.Object)
		id, _ := o["resourceId"].(string)
		who, _ := o["caller"].(string)
		out = append(out, who+" "+resource.Lookup(o, "operationName.value").(string)+" "+id[strings.LastIndexByte(id, '/')+1:])
	}
	return strings.Join(out, ", ")
}

func TestActivityLog(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		for _, target := range []string{group, harbor, registries + "/quay1"} {
			s.do("owner", http.MethodPut, target+version, premium)
		}
		s.do("owner", http.MethodDelete, registries+"/quay1"+version, "")
		type row struct{ who, filter, want string }
		const registry = "Microsoft.ContainerRegistry/registries/"
		all := "oid-owner " + registry + "delete quay1, oid-owner " + registry + "write quay1, oid-owner " + registry + "write harbor, oid-owner Microsoft.Resources/subscriptions/resourceGroups/write docks"
		begun := all + ",  Microsoft.Resources/subscriptions/write s1" // by the server itself
		for _, c := range []row{
			{"owner", "", begun},
			{"owner", "eventTimestamp ge 2020-01-01T00:00:00.000001 and eventTimestamp le 2999-01-01T00:00:00", begun}, // as az writes it
			{"owner", "eventTimestamp ge '2020-01-01T00:00:00Z' and resourceGroupName eq 'DOCKS'", all},
			{"owner", "eventTimestamp ge 2999-01-01T00:00:00", ""},
			{"owner", "eventTimestamp le 2020-01-01T00:00:00", ""},
			{"owner", "resourceId eq '" + harbor + "'", "oid-owner " + registry + "write harbor"},
			{"owner", "resourceProvider eq 'microsoft.containerregistry' and caller eq 'oid-owner' and status eq 'Succeeded'", all[:strings.LastIndexByte(all, ',')]},
			// As az role assignment list-changelogs writes it.
			{"owner", "resourceProvider eq Microsoft.ContainerRegistry and eventTimestamp ge 2020-01-01T00:00:00Z and eventTimestamp le 2999-01-01T00:00:00Z", all[:strings.LastIndexByte(all, ',')]},
			{"owner", "resourceProvider eq Microsoft.Authorization and eventTimestamp ge 2020-01-01T00:00:00Z", ""},
			{"owner", "status eq 'Failed'", ""},
			{"owner", "correlationId eq 'x'", ""},
			{"stranger", "", ""},
			{"reader", "", ""},
		} {
			a := s.do(c.who, http.MethodGet, activityLog+"&$filter="+url.QueryEscape(c.filter), "")
			if got := a.happened(); a.StatusCode != http.StatusOK || got != c.want {
				t.Errorf("%s, %q: %d\n got %s\nwant %s", c.who, c.filter, a.StatusCode, got, c.want)
			}
		}
		// The id that the answer to a change carried leads to it.
		made := s.do("owner", http.MethodPut, registries+"/quay2"+version, premium)
		id := made.Header.Get("X-Ms-Correlation-Request-Id")
		found := s.do("owner", http.MethodGet, activityLog+"&$filter="+url.QueryEscape("correlationId eq '"+id+"'"), "")
		if got := found.happened(); id == "" || got != "oid-owner "+registry+"write quay2" {
			t.Errorf("the request %s did %s", id, got)
		}
		for _, bad := range []string{"x", "eventTimestamp ge yesterday", "eventTimestamp gt 2020-01-01T00:00:00", "resourceId eq harbor", "level eq 'Error'", "status eq 'x' or status eq 'y'"} {
			if a := s.do("owner", http.MethodGet, activityLog+"&$filter="+url.QueryEscape(bad), ""); a.StatusCode != http.StatusBadRequest {
				t.Errorf("%q: %d", bad, a.StatusCode)
			}
		}
		a := s.do("owner", http.MethodGet, activityLog+"&$select="+url.QueryEscape("caller , resourceId"), "")
		first := a.body["value"].([]any)[0].(resource.Object)
		if len(first) != 2 || first["caller"] != "oid-owner" {
			t.Errorf("$select gives %v", first)
		}
	})
}

// A long log comes in pages, each event once.
func TestActivityLogHasPages(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)))
	s.do("owner", http.MethodPut, group+version, premium)
	for range 225 {
		s.do("owner", http.MethodPut, harbor+version, premium)
		s.do("owner", http.MethodDelete, harbor+version, "")
	}
	var ids []string
	for target := activityLog; target != ""; {
		a := s.do("owner", http.MethodGet, target, "")
		for _, item := range a.body["value"].([]any) {
			id, _ := item.(resource.Object)["eventDataId"].(string)
			ids = append(ids, id)
		}
		next, _ := a.body["nextLink"].(string)
		if target = strings.TrimPrefix(next, "https://management.cove.internal"); next != "" && target == next {
			t.Fatalf("the next page is at %s", next)
		}
	}
	n := len(ids)
	slices.Sort(ids)
	if ids = slices.Compact(ids); n != 452 || len(ids) != n {
		t.Errorf("%d events, %d different", n, len(ids))
	}
	if a := s.do("owner", http.MethodGet, activityLog+"&$skiptoken=x", ""); a.StatusCode != http.StatusBadRequest {
		t.Errorf("a token that is none: %d", a.StatusCode)
	}
}

// A change that was refused is in the log of whoever may read it, with who
// asked, from where, and what was lacking; neither reading nor strangers without
// a name write there. The id of the refusal leads to it.
func TestActivityLogHasRefusals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		const action = "Microsoft.ContainerRegistry/registries/write"
		s.do("owner", http.MethodPut, group+version, premium)
		s.do("owner", http.MethodPut, harbor+version, premium)
		refused := s.do("reader", http.MethodPut, harbor+version, premium)
		s.do("reader", http.MethodGet, group+version, "")
		s.do("", http.MethodPut, harbor+version, premium)
		s.do("nobody", http.MethodPut, harbor+version, premium)
		s.do("owner", http.MethodDelete, harbor+version, "")
		id := refused.Header.Get("X-Ms-Correlation-Request-Id")
		if refused.StatusCode != http.StatusForbidden || id == "" {
			t.Fatalf("%d %q", refused.StatusCode, id)
		}
		told := "oid-reader " + action + " harbor"
		all := "oid-owner Microsoft.ContainerRegistry/registries/delete harbor, " + told + ", oid-owner " + action + " harbor"
		for _, c := range []struct{ who, filter, want string }{
			{"owner", "resourceId eq '" + harbor + "'", all},
			{"owner", "status eq 'Failed'", told},
			{"owner", "caller eq 'oid-reader'", told},
			{"owner", "correlationId eq '" + id + "'", told},
			{"owner", "correlationId eq '" + id + "' and status eq 'Succeeded'", ""},
			{"owner", "resourceGroupName eq 'other' and status eq 'Failed'", ""},
			{"owner", "eventTimestamp ge 2999-01-01T00:00:00", ""},
			{"owner", "eventTimestamp le 2020-01-01T00:00:00", ""},
			{"reader", "status eq 'Failed'", ""}, // its own too: it may not read the log
		} {
			a := s.do(c.who, http.MethodGet, activityLog+"&$filter="+url.QueryEscape(c.filter), "")
			if got := a.happened(); a.StatusCode != http.StatusOK || got != c.want {
				t.Errorf("%s, %q: %d\n got %s\nwant %s", c.who, c.filter, a.StatusCode, got, c.want)
			}
		}
		a := s.do("owner", http.MethodGet, activityLog+"&$filter="+url.QueryEscape("status eq 'Failed'"), "")
		e := a.body["value"].([]any)[0].(resource.Object)
		for path, want := range map[string]string{
			"level": "Error", "status.value": "Failed", "subStatus.value": "Forbidden", "correlationId": id, "authorization.action": action,
			"properties.statusCode": "Forbidden", "properties.statusMessage": "AuthorizationFailed",
		} {
			if got := resource.Lookup(e, path); got != want {
				t.Errorf("%s is %v, want %s", path, got, want)
			}
		}
		if scope, _ := resource.Lookup(e, "authorization.scope").(string); !strings.EqualFold(scope, harbor) {
			t.Errorf("the scope is %s", scope)
		}
	})
}

// Refusals stand in the page of the changes that they happened among, each
// once, however many pages there are.
func TestRefusalsHavePages(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)))
	s.do("owner", http.MethodPut, group+version, premium)
	for range 225 {
		s.do("owner", http.MethodPut, harbor+version, premium)
		s.do("reader", http.MethodDelete, harbor+version, "")
		s.do("owner", http.MethodDelete, harbor+version, "")
	}
	var ids, last []string
	for target := activityLog; target != ""; {
		a := s.do("owner", http.MethodGet, target, "")
		for _, item := range a.body["value"].([]any) {
			o := item.(resource.Object)
			ids = append(ids, o["eventDataId"].(string))
			last = append(last, o["eventTimestamp"].(string))
		}
		next, _ := a.body["nextLink"].(string)
		target = strings.TrimPrefix(next, "https://management.cove.internal")
	}
	for i := range last[1:] {
		newer, err1 := time.Parse(time.RFC3339Nano, last[i])
		older, err2 := time.Parse(time.RFC3339Nano, last[i+1])
		if err1 != nil || err2 != nil || older.After(newer) {
			t.Fatalf("%s comes before %s", last[i], last[i+1])
		}
	}
	n := len(ids)
	slices.Sort(ids)
	if ids = slices.Compact(ids); n != 677 || len(ids) != n {
		t.Errorf("%d events, %d different", n, len(ids))
	}
}
