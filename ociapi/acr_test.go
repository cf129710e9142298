package ociapi

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/access"
	"cove.example/cove/oci"
)

func TestParseACR(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for _, c := range []struct {
		method, target string
		kind           Kind
		err            bool
	}{
		{"GET", "/acr/v1/_catalog", RepositoryList, false},
		{"GET", "/acr/v1/team/app", RepositoryGet, false},
		{"GET", "/acr/v1/team%2Fapp", RepositoryGet, false},
		{"PATCH", "/acr/v1/team/app", RepositoryLock, false},
		{"DELETE", "/acr/v1/team/app", RepositoryDelete, false},
		{"GET", "/acr/v1/team/app/_tags?orderby=timedesc&n=3", TagInfoList, false},
		{"GET", "/acr/v1/team%2fapp/_tags/v1", TagInfoGet, false},
		{"PATCH", "/acr/v1/team/app/_tags/v1", TagLock, false},
		{"DELETE", "/acr/v1/team/app/_tags/v1", TagDelete, false},
		{"GET", "/acr/v1/team/app/_manifests", ManifestInfoList, false},
		{"GET", "/acr/v1/team/app/_manifests/" + d, ManifestInfoGet, false},
		{"GET", "/acr/v1/team/app/_manifests/" + strings.Replace(d, ":", "%3A", 1), ManifestInfoGet, false},
		{"PATCH", "/acr/v1/team/app/_manifests/" + d, ManifestLock, false},
		{"GET", "/acr/v1/", NoCall, true},
		{"GET", "/acr/v1/team//app", NoCall, true},
		{"GET", "/acr/v1/team/%2e%2e/app", NoCall, true},
		{"GET", "/acr/v1/team%252Fapp", NoCall, true},
		{"GET", "/acr/v1/_deleted/_catalog", NoCall, true},
		{"POST", "/acr/v1/_deleted/team/app/_manifests/" + d, NoCall, true},
		{"GET", "/acr/v1/team/app/_tags?orderby=size", NoCall, true},
		{"GET", "/acr/v1/team/app/_tags?orderby=timeasc&last=v1", NoCall, true},
		{"GET", "/acr/v1/team/app/_tags?last=..", NoCall, true},
		{"DELETE", "/acr/v1/team/app/_manifests/" + d, NoCall, true},
		{"GET", "/acr/v2/team/app", NoCall, true},
	} {
		got, err := ParseCall(c.method, c.target)
		if err != nil != c.err || err == nil && got.Kind != c.kind {
			t.Errorf("%s %s: %s, %v", c.method, c.target, got.Kind, err)
		}
	}
}

func TestRegistryAPI(t *testing.T) {
	s := newSite(t, everybody)
	_, one := s.pushImage("team/app", "v1", "one")
	_, two := s.pushImage("team/app", "v2", "two")

	var repo struct {
		Registry, ImageName, CreatedTime, LastUpdateTime string
		ManifestCount, TagCount                          int
		ChangeableAttributes                             map[string]bool
	}
	read := func(r reply, into any) {
		t.Helper()
		if err := json.Unmarshal([]byte(r.body), into); err != nil {
			t.Fatalf("%v: %s", err, r.body)
		}
	}
	read(s.must(200, "GET", "/acr/v1/team%2Fapp", ""), &repo)
	sevenDigits := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z$`)
	if repo.ImageName != "team/app" || repo.ManifestCount != 2 || repo.TagCount != 2 || !sevenDigits.MatchString(repo.CreatedTime) ||
		!repo.ChangeableAttributes["deleteEnabled"] || len(repo.ChangeableAttributes) != 4 {
		t.Errorf("a repository: %+v", repo)
	}

	// az takes 405 for an answer, and asks three times more where it gets 400.
	for _, deleted := range []string{"_catalog", "team/app/_manifests", "team%2Fapp/_tags"} {
		if r := s.must(405, "GET", "/acr/v1/_deleted/"+deleted, ""); !strings.Contains(r.body, "soft delete") {
			t.Errorf("what is deleted: %s", r.body)
		}
	}

	type tags struct {
		Tags []struct {
			Name, Digest         string
			ChangeableAttributes map[string]bool
		}
	}
	// Paged in the order of time, by the links that the answers carry.
	var names []string
	for target := "/acr/v1/team/app/_tags?orderby=timedesc&n=1"; target != ""; {
		r := s.must(200, "GET", target, "")
		var page tags
		read(r, &page)
		for _, each := range page.Tags {
			names = append(names, each.Name)
		}
		link, _, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Link"), "<"), ">")
		target = link
	}
	if !slices.Equal(names, []string{"v2", "v1"}) {
		t.Errorf("by time: %v", names)
	}
	var on tags
	read(s.must(200, "GET", "/acr/v1/team/app/_tags?digest="+one, ""), &on)
	if len(on.Tags) != 1 || on.Tags[0].Name != "v1" || on.Tags[0].Digest != one {
		t.Errorf("tags on %s: %+v", one, on)
	}
	var manifest struct {
		Manifest struct {
			Digest, MediaType string
			Tags              []string
		}
	}
	read(s.must(200, "GET", "/acr/v1/team/app/_manifests/"+two, ""), &manifest)
	if m := manifest.Manifest; m.Digest != two || m.MediaType != oci.MediaTypeImage || !slices.Equal(m.Tags, []string{"v2"}) {
		t.Errorf("a manifest: %+v", m)
	}

	// A lock is set by its word, answered with all four, and obeyed.
	var locked struct {
		Tag struct{ ChangeableAttributes map[string]bool }
	}
	read(s.must(200, "PATCH", "/acr/v1/team/app/_tags/v1", `{"writeEnabled":false}`), &locked)
	if a := locked.Tag.ChangeableAttributes; a["writeEnabled"] || !a["readEnabled"] || len(a) != 4 {
		t.Errorf("a locked tag: %v", a)
	}
	for _, refused := range [][2]string{{"DELETE", "/acr/v1/team/app/_tags/v1"}, {"DELETE", "/v2/team/app/manifests/" + one}, {"DELETE", "/acr/v1/team/app"}} {
		if r := s.must(405, refused[0], refused[1], ""); !strings.Contains(r.body, "REGISTRY_DISALLOWED_OPERATION") {
			t.Errorf("%s %s: %s", refused[0], refused[1], r.body)
		}
	}
	s.must(200, "GET", "/v2/team/app/manifests/v1", "")
	s.must(200, "PATCH", "/acr/v1/team/app/_tags/v1", `{"writeEnabled":true}`)
	s.must(202, "DELETE", "/acr/v1/team/app/_tags/v1", "")
	if gone := s.must(404, "GET", "/acr/v1/team/app/_tags/v1", ""); !strings.Contains(gone.body, `"code":"TAG_UNKNOWN"`) {
		t.Errorf("a tag that is not there: %s", gone.body)
	}
	s.must(400, "PATCH", "/acr/v1/team/app", `{"writeEnabled":"no"}`)
	s.must(400, "PATCH", "/acr/v1/team/app", strings.Repeat(" ", maxAttributes+1))

	var gone struct{ ManifestsDeleted, TagsDeleted []string }
	read(s.must(202, "DELETE", "/acr/v1/team/app", ""), &gone)
	if len(gone.ManifestsDeleted) != 2 || !slices.Equal(gone.TagsDeleted, []string{"v2"}) {
		t.Errorf("deleted: %+v", gone)
	}
	if r := s.must(404, "GET", "/acr/v1/team/app", ""); !strings.Contains(r.body, "NAME_UNKNOWN") {
		t.Error(r.body)
	}
	s.must(404, "DELETE", "/acr/v1/team/app", "")
}

// Each call asks for the permission that clients ask a token for.
func TestRegistryAPIAsksForItsScopes(t *testing.T) {
	s := newSite(t, noOne)
	for target, want := range map[string]string{
		"GET /acr/v1/_catalog":            "registry:catalog:*",
		"GET /acr/v1/team/app":            "repository:team/app:metadata_read",
		"PATCH /acr/v1/team/app":          "repository:team/app:metadata_write repository:team/app:metadata_read",
		"DELETE /acr/v1/team/app":         "repository:team/app:delete",
		"GET /acr/v1/team/app/_tags":      "repository:team/app:metadata_read",
		"DELETE /acr/v1/team/app/_tags/a": "repository:team/app:delete",
	} {
		method, path, _ := strings.Cut(target, " ")
		s.asked.take()
		s.do(method, path, nil)
		var got []string
		for _, a := range s.asked.take() {
			for _, w := range a.Want {
				got = append(got, access.Scope(w).String())
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s asks for %v, want %s", target, got, want)
		}
	}
}
