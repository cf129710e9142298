package armapi_test

import (
	"net/url"
	"strings"
	"testing"

	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"github.com/google/go-cmp/cmp"
)

// Tags are changed by themselves in each of ARM's ways, on a subscription, a
// group and a resource, and nothing else of it changes.
func TestTagsByThemselves(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		before := s.expect(200, "owner", "GET", harbor+version, "").body
		for _, on := range []string{sub, group, harbor} {
			at := on + "/providers/Microsoft.Resources/tags/default" + version
			for _, c := range []struct{ method, body, want string }{
				{"PUT", `{"properties":{"tags":{"Team":"pilots","pier":"3"}}}`, `{"Team":"pilots","pier":"3"}`},
				{"PATCH", `{"operation":"merge","properties":{"tags":{"team":"tugs","x":"y"}}}`, `{"Team":"tugs","pier":"3","x":"y"}`},
				{"PATCH", `{"operation":"Delete","properties":{"tags":{"PIER":"3","x":"other"}}}`, `{"Team":"tugs","x":"y"}`},
				{"GET", "", `{"Team":"tugs","x":"y"}`},
				{"PATCH", `{"operation":"Replace","properties":{"tags":{"a":"b"}}}`, `{"a":"b"}`},
			} {
				want, err := resource.Decode([]byte(c.want))
				if err != nil {
					t.Fatal(err)
				}
				a := s.expect(200, "owner", c.method, at, c.body)
				if d := cmp.Diff(any(want), resource.Lookup(a.body, "properties.tags")); d != "" || a.body["id"] != strings.TrimSuffix(at, version) {
					t.Errorf("%s %s: %s", on, c.body, a.text)
				}
			}
			if got := s.expect(200, "owner", "GET", on+version, ""); resource.Lookup(got.body, "tags.a") != "b" {
				t.Errorf("of the resource itself: %s", got.text)
			}
			s.expect(200, "owner", "DELETE", at, "")
			if got := s.expect(200, "owner", "GET", on+version, ""); got.body["tags"] != nil {
				t.Errorf("after they are deleted: %s", got.text)
			}
		}
		after := s.expect(200, "owner", "GET", harbor+version, "").body
		delete(before, "etag")
		delete(after, "etag")
		if d := cmp.Diff(before, after); d != "" {
			t.Error(d)
		}
		at := harbor + "/providers/Microsoft.Resources/tags/default" + version
		for _, body := range []string{``, `{}`, `{"operation":"Add","properties":{"tags":{}}}`, `{"operation":"Merge","properties":{"tags":{"a":7}}}`, `{"operation":"Merge","properties":{"tags":{"a":{}}}}`, `{"operation":"Merge","properties":{"tags":["a"]}}`, `{"operation":"Merge","properties":{"tags":{"a?":"b"}}}`} {
			s.expect(400, "owner", "PATCH", at, body)
		}
		s.expect(403, "reader", "PUT", at, `{"properties":{"tags":{}}}`)
		s.expect(403, "reader", "GET", at, "")
		s.expect(404, "owner", "GET", strings.Replace(at, "default", "other", 1), "")
		s.expect(404, "owner", "GET", registries+"/nothere/providers/Microsoft.Resources/tags/default"+version, "")
		s.expect(201, "owner", "PUT", harbor+locks+"/one"+version, keep)
		if a := s.expect(400, "owner", "PUT", harbor+locks+"/one/providers/Microsoft.Resources/tags/default"+version, `{"properties":{"tags":{}}}`); a.code() != "TagsNotSupported" {
			t.Errorf("the tags of a lock: %s", a.text)
		}
	})
}

// The list of all resources has what they have in common, what $expand asks
// for, and those that the filter means.
func TestResourcesOfEveryType(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		ship := group + "/providers/Test.Sea/ships/Albatross"
		s.expect(201, "owner", "PUT", ship+version, `{"location":"eastus","tags":{"Flag":"NO"},"properties":{"masts":3}}`)
		s.expect(201, "owner", "PUT", ship+"/sails/main"+version, `{"location":"eastus"}`)
		all := s.expect(200, "owner", "GET", sub+"/resources"+version+"&$expand=createdTime,changedTime,provisioningState", "").body["value"].([]any)
		if len(all) != 2 {
			t.Fatalf("listed: %v", all)
		}
		last, _ := all[1].(resource.Object)
		for name, want := range map[string]any{"name": "Albatross", "type": "Test.Sea/ships", "location": "eastus", "provisioningState": "Succeeded", "properties": nil} {
			if last[name] != want {
				t.Errorf("%s is %v", name, last[name])
			}
		}
		if last["createdTime"] == nil || last["changedTime"] == nil {
			t.Errorf("no times in %v", last)
		}
		for want, names := range map[string]string{
			"name eq 'ALBATROSS'":                    "Albatross",
			"substringof('bat', name)":               "Albatross",
			"substringof('DOCK',resourceGroup)":      "harbor Albatross",
			"startswith(tagname, 'fl')":              "Albatross",
			"tagName eq 'flag' and tagValue eq 'NO'": "Albatross",
			"tagname eq 'flag' and tagvalue eq 'SE'": "",
			"startswith(tagName,'x')":                "",
			"resourceGroup eq 'docks' and substringof('harb', name) and resourceType eq 'Microsoft.ContainerRegistry/registries'": "harbor",
		} {
			a := s.expect(200, "owner", "GET", sub+"/resources"+version+"&$filter="+url.QueryEscape(want), "")
			if got := strings.Join(a.names(), " "); got != names {
				t.Errorf("%s: %s, want %s", want, got, names)
			}
		}
		for _, wrong := range []string{"startswith(name, 'x')", "substringof('a', tagName)", "substringof('a', name) or name eq 'b'", "startswith(tagname, 'x'", "endswith(name,'x')"} {
			if a := s.expect(400, "owner", "GET", sub+"/resources"+version+"&$filter="+url.QueryEscape(wrong), ""); a.code() != "InvalidFilterInQueryString" {
				t.Errorf("%s: %s", wrong, a.text)
			}
		}
		s.expect(400, "owner", "GET", sub+"/resources"+version+"&$expand=properties", "")
		s.expect(400, "owner", "GET", sub+"/resources"+version+"&$top=0", "")
		if a := s.expect(200, "owner", "GET", sub+"/resources"+version+"&$top=1", ""); len(a.names()) != 1 || a.body["nextLink"] == nil {
			t.Errorf("one: %s", a.text)
		}
		// The next page is what was asked for too: az asks for times and follows links.
		link, _ := s.expect(200, "owner", "GET", sub+"/resources"+version+"&$top=1&$expand=createdTime", "").body["nextLink"].(string)
		second := s.expect(200, "owner", "GET", strings.TrimPrefix(link, "https://management.cove.internal"), "").body["value"].([]any)
		if one, _ := second[0].(resource.Object); one["name"] != "Albatross" || one["createdTime"] == nil {
			t.Errorf("the second page: %v", second)
		}
	})
}

// The SDKs' generic operations leave an empty segment where a resource has no
// parent. It is taken there and nowhere else.
func TestTheEmptyParentOfGenericOperations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		generic := strings.Replace(harbor, "Microsoft.ContainerRegistry/", "Microsoft.ContainerRegistry//", 1)
		if a := s.expect(200, "owner", "GET", generic+version, ""); a.body["id"] != harbor {
			t.Errorf("got %s", a.text)
		}
		s.expect(201, "owner", "PUT", generic+locks+"/one"+version, keep)
		s.expect(403, "stranger", "GET", generic+version, "")
		for _, path := range []string{
			"/subscriptions//s1", sub + "//resourceGroups/docks", group + "//providers/Microsoft.ContainerRegistry/registries/harbor",
			strings.Replace(generic, "//", "///", 1), generic + "//x", strings.Replace(harbor, "registries/", "registries//", 1),
			group + "/providers/Microsoft.ContainerRegistry//registries",
		} {
			if a := s.expect(400, "owner", "GET", path+version, ""); a.code() != "InvalidRequestUri" {
				t.Errorf("%s: %s", path, a.text)
			}
		}
	})
}
