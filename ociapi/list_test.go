package ociapi

import (
	"encoding/json"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var nextLink = regexp.MustCompile(`^<(/v2/[^>]*)>; rel="next"$`)

// walk follows Link headers from target and returns all pages.
func walk[T any](s *site, target string) (pages []T) {
	s.Helper()
	for target != "" {
		r := s.must(200, "GET", target, "")
		var page T
		if err := json.Unmarshal([]byte(r.body), &page); err != nil {
			s.Fatal(err)
		}
		pages = append(pages, page)
		target = ""
		if l := r.Header.Get("Link"); l != "" {
			m := nextLink.FindStringSubmatch(l)
			if m == nil || len(pages) > 100 {
				s.Fatalf("Link: %s", l)
			}
			target = m[1]
		}
	}
	return pages
}

type tagPage struct {
	Name string
	Tags []string
}

type catalogPageBody struct{ Repositories []string }

type indexPage struct {
	SchemaVersion int
	MediaType     string
	Manifests     []struct {
		MediaType, Digest, ArtifactType string
		Size                            int64
		Annotations                     map[string]string
	}
}

func TestPaging(t *testing.T) {
	s := newSite(t, everybody)
	body := s.image("team/app", "x")
	d := sha256Of(body)
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("1.%d", i))
	}
	s.must(201, "PUT", "/v2/team/app/manifests/"+d+"?tag="+strings.Join(want, "&tag="), body, "Content-Type", typeImage)
	for n, sizes := range map[string]string{"": "[7]", "?n=7": "[7]", "?n=6": "[6 1]", "?n=3": "[3 3 1]", "?n=1000000": "[7]", "?last=1.4": "[2]", "?n=0": "[0]"} {
		var got []string
		var each []int
		for _, p := range walk[tagPage](s, "/v2/team/app/tags/list"+n) {
			if p.Name != "team/app" || p.Tags == nil {
				t.Errorf("%s: %+v", n, p)
			}
			got, each = append(got, p.Tags...), append(each, len(p.Tags))
		}
		if fmt.Sprint(each) != sizes || n != "?n=0" && !slices.Equal(got, want[7-len(got):]) {
			t.Errorf("%s: pages of %v: %v", n, each, got)
		}
	}
	for _, repo := range []string{"b", "team/app2", "zoo"} {
		s.pushImage(repo, "x", "y")
	}
	var repos []string
	for _, p := range walk[catalogPageBody](s, "/v2/_catalog?n=1") {
		repos = append(repos, p.Repositories...)
	}
	if !slices.Equal(repos, []string{"b", "team/app", "team/app2", "zoo"}) {
		t.Errorf("the catalog: %v", repos)
	}
	s.must(404, "GET", "/v2/nowhere/tags/list?n=0", "")
}

func TestReferrers(t *testing.T) {
	s := newSite(t, everybody)
	_, subject := s.pushImage("app", "1.4", "the subject")
	about := fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":1}`, typeImage, subject)
	var want []string
	for i := range 5 {
		kind := fmt.Sprintf("application/vnd.example.%d+json", i%2)
		r := s.must(201, "PUT", fmt.Sprintf("/v2/app/manifests/about-%d", i), s.image("app", fmt.Sprint(i), about, fmt.Sprintf(`,"artifactType":%q`, kind)), "Content-Type", typeImage)
		if got := r.Header.Get("Oci-Subject"); got != subject {
			t.Errorf("OCI-Subject: %q", got)
		}
		want = append(want, r.Header.Get("Docker-Content-Digest"))
	}
	slices.Sort(want)
	for query, sizes := range map[string]string{"": "[5]", "?n=2": "[2 2 1]", "?n=0": "[0]", "?artifactType=application/vnd.example.0%2Bjson": "[3]", "?n=2&artifactType=application/vnd.example.0%2Bjson": "[2 1]", "?artifactType=none/such": "[0]"} {
		var got []string
		var each []int
		for _, p := range walk[indexPage](s, "/v2/app/referrers/"+subject+query) {
			if p.SchemaVersion != 2 || p.MediaType != typeIndex || p.Manifests == nil {
				t.Errorf("%s: %+v", query, p)
			}
			each = append(each, len(p.Manifests))
			for _, m := range p.Manifests {
				got = append(got, m.Digest)
				if m.MediaType != typeImage || m.Size == 0 || m.Annotations["note"] == "" || !strings.HasPrefix(m.ArtifactType, "application/vnd.example.") {
					t.Errorf("%s: %+v", query, m)
				}
			}
		}
		if fmt.Sprint(each) != sizes || len(got) == 5 && !slices.Equal(got, want) {
			t.Errorf("%s: pages of %v: %v", query, each, got)
		}
		r := s.do("GET", "/v2/app/referrers/"+subject+query, nil)
		if filtered := r.Header.Get("Oci-Filters-Applied") == "artifactType"; filtered != strings.Contains(query, "artifactType") || r.Header.Get("Content-Type") != typeIndex {
			t.Errorf("%s: %v", query, r.Header)
		}
	}
	if r := s.do("GET", "/v2/nowhere/referrers/"+subject, nil); r.StatusCode != 200 || !strings.Contains(r.body, `"manifests":[]`) {
		t.Errorf("of a repository that does not exist: %d %s", r.StatusCode, r.body)
	}
}

// Annotations may be as large as a manifest. A page of them is bounded in
// bytes, and goes on where it ended.
func TestReferrersWithMuchToSay(t *testing.T) {
	s := newSite(t, everybody)
	subject := sha256Of("not there")
	about := fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":1}`, typeImage, subject)
	for i := range 4 {
		s.pushImage("app", "x", strings.Repeat(fmt.Sprint(i), 3<<20), about)
	}
	got := map[string]bool{}
	for _, p := range walk[indexPage](s, "/v2/app/referrers/"+subject) {
		size := 0
		for _, m := range p.Manifests {
			got[m.Digest] = true
			size += len(m.Annotations["note"])
		}
		if size > 4<<20 {
			t.Errorf("a page has %d bytes of annotations", size)
		}
	}
	if len(got) != 4 {
		t.Errorf("%d of 4 were listed", len(got))
	}
}

// Reliability row 2: a page's size is a number from the caller; it is refused
// or cut, and nothing is made of that size.
func TestPageSizes(t *testing.T) {
	s := newSite(t, everybody)
	_, d := s.pushImage("app", "1.4", "x")
	for _, list := range []string{"/v2/_catalog", "/v2/app/tags/list", "/v2/app/referrers/" + d} {
		for n, status := range map[string]int{
			"n=2147483647": 200, "n=9223372036854775807": 200, "n=99999999999999999999999": 200, "n=1001": 200, "n=0": 200, "n=00001": 200,
			"n=-1": 400, "n=1e30": 400, "n=": 400, "n": 400, "n=1&n=2": 400, "n=0x10": 400, "n=1.0": 400, "n=%201": 400, "n=1%00": 400, "n=%EF%BC%91": 400,
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			r := s.do("GET", list+"?"+n, nil)
			runtime.ReadMemStats(&after)
			if r.StatusCode != status || r.Header.Get("Link") != "" {
				t.Errorf("%s?%s: %d %s", list, n, r.StatusCode, r.body)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 8<<20 {
				t.Errorf("%s?%s: %d bytes were allocated", list, n, grown)
			}
		}
	}
}
