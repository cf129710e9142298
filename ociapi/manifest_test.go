package ociapi

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"cove.example/cove/oci"
)

func TestManifestByTagAndDigest(t *testing.T) {
	s := newSite(t, everybody)
	body, d := s.pushImage("team/app", "1.4", "hello")
	if d != sha256Of(body) {
		t.Fatalf("the digest is %s", d)
	}
	for _, ref := range []string{"1.4", d} {
		for _, accept := range []string{"", "*/*", "text/html", "application/vnd.oci.image.index.v1+json"} {
			r := s.do("GET", "/v2/team/app/manifests/"+ref, nil, "Accept", accept)
			if r.StatusCode != 200 || r.body != body || r.Header.Get("Content-Type") != typeImage || r.Header.Get("Docker-Content-Digest") != d || r.Header.Get("Etag") != `"`+d+`"` {
				t.Errorf("GET %s with Accept %q: %d %v", ref, accept, r.StatusCode, r.Header)
			}
		}
		if r := s.do("HEAD", "/v2/team/app/manifests/"+ref, nil); r.StatusCode != 200 || r.ContentLength != int64(len(body)) || r.body != "" || r.Header.Get("Content-Type") != typeImage {
			t.Errorf("HEAD %s: %d %v", ref, r.StatusCode, r.Header)
		}
		if r := s.do("GET", "/v2/team/app/manifests/"+ref, nil, "If-None-Match", `"`+d+`"`); r.StatusCode != 304 || r.body != "" {
			t.Errorf("GET %s of what one has: %d", ref, r.StatusCode)
		}
	}
	if c := s.do("GET", "/v2/team/app/manifests/1.4", nil).Header.Get("Cache-Control"); c != "private, no-cache" {
		t.Errorf("a tag may be cached: %s", c)
	}
	s.must(202, "DELETE", "/v2/team/app/manifests/1.4", "")
	s.must(404, "GET", "/v2/team/app/manifests/1.4", "")
	s.must(200, "GET", "/v2/team/app/manifests/"+d, "")
	s.must(202, "DELETE", "/v2/team/app/manifests/"+d, "")
	s.must(404, "GET", "/v2/team/app/manifests/"+d, "")
}

func TestTagsBesideADigest(t *testing.T) {
	s := newSite(t, everybody)
	body := s.image("app", "x")
	d := sha256Of(body)
	query := "?tag=0"
	for i := range 10 {
		query += fmt.Sprintf("&tag=1.%d", i)
	}
	r := s.must(201, "PUT", "/v2/app/manifests/"+d+query, body, "Content-Type", typeImage)
	if got := strings.Join(r.Header["Oci-Tag"], ","); got != "0,1.0,1.1,1.2,1.3,1.4,1.5,1.6,1.7,1.8,1.9" || r.Header.Get("Location") != "/v2/app/manifests/"+d {
		t.Errorf("%v", r.Header)
	}
	s.must(200, "GET", "/v2/app/manifests/1.9", "")
	if r := s.must(201, "PUT", "/v2/app/manifests/solo", body, "Content-Type", typeImage); r.Header["Oci-Tag"] != nil {
		t.Errorf("put by tag: %v", r.Header)
	}
	other := s.image("app", "y")
	r = s.must(400, "PUT", "/v2/app/manifests/"+d, other, "Content-Type", typeImage)
	if !strings.Contains(r.body, "DIGEST_INVALID") {
		t.Errorf("under another's digest: %s", r.body)
	}
	s.must(404, "GET", "/v2/app/manifests/"+sha256Of(other), "")
}

// One event for each operation, under the id that the caller was given.
func TestEvents(t *testing.T) {
	s := newSite(t, everybody)
	body, d := s.pushImage("team/app", "1.4", "x")
	s.log.take()
	s.must(304, "GET", "/v2/team/app/manifests/1.4", "", "If-None-Match", `"`+d+`"`)
	if events := s.log.take(); len(events) != 0 {
		t.Errorf("what the caller had already was recorded: %+v", events)
	}
	for _, c := range []struct {
		method, target, body string
		operation            string // "" leaves none
		tag, digest          string
		status               int
	}{
		{"PUT", "/v2/team/app/manifests/1.5", body, "Push", "1.5", d, 201},
		{"GET", "/v2/team/app/manifests/1.5", "", "Pull", "1.5", d, 200},
		{"GET", "/v2/team/app/manifests/" + d, "", "Pull", "", d, 200},
		{"GET", "/v2/team/app/manifests/9", "", "Pull", "9", "", 404},
		{"HEAD", "/v2/team/app/manifests/1.5", "", "", "", "", 200},
		{"GET", "/v2/team/app/tags/list", "", "", "", "", 200},
		{"GET", "/v2/", "", "", "", "", 200},
		{"DELETE", "/v2/team/app/manifests/1.5", "", "Untag", "1.5", "", 202},
		{"DELETE", "/v2/team/app/manifests/" + d, "", "Delete", "", d, 202},
	} {
		r := s.do(c.method, c.target, strings.NewReader(c.body), "Content-Type", typeImage, "User-Agent", "test/1")
		events := s.log.take()
		if r.StatusCode != c.status || len(events) != map[bool]int{true: 1, false: 0}[c.operation != ""] {
			t.Errorf("%s %s: %d, recorded %+v", c.method, c.target, r.StatusCode, events)
			continue
		}
		for _, e := range events {
			if e.Table != "RepositoryEvents" || e.Operation != c.operation || e.Repository != "team/app" || e.Tag != c.tag || e.Digest != c.digest ||
				e.Status != c.status || e.ID != r.Header.Get("X-Ms-Correlation-Request-Id") || e.Identity != "ci-bot" || e.CallerIP != "127.0.0.1" ||
				e.UserAgent != "test/1" || e.Host != loginServer || e.Region != "local" || e.Time.IsZero() || e.Duration <= 0 {
				t.Errorf("%s %s recorded %+v", c.method, c.target, e)
			}
			if whole := e.MediaType == typeImage && e.Size == int64(len(body)); whole != (c.status < 300 && c.method != "DELETE") {
				t.Errorf("%s %s recorded %+v", c.method, c.target, e)
			}
		}
	}
}

// Reliability row 7: what two readers could take for two things is refused,
// and nothing of it is stored.
func TestAmbiguousManifests(t *testing.T) {
	s := newSite(t, everybody)
	good := s.image("app", "x")
	config := fmt.Sprintf(`{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2}`, sha256Of("{}"))
	const index = "application/vnd.oci.image.index.v1+json"
	for name, c := range map[string]struct{ contentType, body string }{
		"layers and manifests":       {typeImage, strings.Replace(good, `"layers":[]`, `"layers":[],"manifests":[]`, 1)},
		"another type outside":       {index, good},
		"another type inside":        {typeImage, strings.Replace(good, typeImage, index, 1)},
		"a key twice":                {typeImage, strings.Replace(good, `"layers":[]`, `"layers":[],"layers":[]`, 1)},
		"a key in two cases":         {typeImage, strings.Replace(good, `"layers":[]`, `"layers":[],"Layers":[]`, 1)},
		"something behind the end":   {typeImage, good + "{}"},
		"a byte order mark":          {typeImage, "\ufeff" + good},
		"not JSON":                   {typeImage, "<html>"},
		"nothing":                    {typeImage, ""},
		"a list":                     {typeImage, "[]"},
		"a bad digest":               {typeImage, strings.Replace(good, sha256Of("{}"), "sha256:../..", 1)},
		"an upper-case digest":       {typeImage, strings.Replace(good, sha256Of("{}"), strings.ToUpper(sha256Of("{}")), 1)},
		"a negative size":            {typeImage, strings.Replace(good, `"size":2`, `"size":-2`, 1)},
		"a bad subject":              {typeImage, strings.Replace(good, `"layers":[]`, `"layers":[],"subject":{"digest":"sha256:x"}`, 1)},
		"an unknown type":            {"text/html", good},
		"schema 1":                   {"application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`},
		"an index that has a config": {index, `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"config":` + config + `}`},
	} {
		r := s.do("PUT", "/v2/app/manifests/bad", strings.NewReader(c.body), "Content-Type", c.contentType)
		if r.StatusCode != 400 || !strings.Contains(r.body, "MANIFEST_INVALID") && !strings.Contains(r.body, "DIGEST_INVALID") {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
		s.must(404, "GET", "/v2/app/manifests/bad", "")
		s.must(404, "GET", "/v2/app/manifests/"+sha256Of(c.body), "")
	}
	missing := strings.Replace(good, sha256Of("{}"), sha256Of("not pushed"), 1)
	if r := s.do("PUT", "/v2/app/manifests/bad", strings.NewReader(missing), "Content-Type", typeImage); r.StatusCode != 404 || !strings.Contains(r.body, "MANIFEST_BLOB_UNKNOWN") {
		t.Errorf("a blob that is not there: %d %s", r.StatusCode, r.body)
	}
	s.must(201, "PUT", "/v2/app/manifests/good", good, "Content-Type", typeImage+"; charset=utf-8")
	if got := s.do("GET", "/v2/app/manifests/good", nil).Header.Get("Content-Type"); got != typeImage {
		t.Errorf("served as %s", got)
	}
}

// zeros has no end.
type zeros struct{ sent int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.sent > 1<<30 {
		return 0, io.EOF
	}
	clear(p)
	z.sent += int64(len(p))
	return len(p), nil
}

// Reliability row 1: a manifest over 4 MiB is 413, declared or not, before
// more than that has been read; a compressed body is refused.
func TestManifestsOverTheLimit(t *testing.T) {
	s := newSite(t, everybody)
	put := "PUT /v2/app/manifests/big HTTP/1.1\r\nHost: " + loginServer + "\r\nContent-Type: " + typeImage + "\r\n"
	status, answer := s.raw(put + fmt.Sprintf("Content-Length: %d\r\n\r\n", oci.MaxManifest+1))
	if status != 413 || !strings.Contains(answer, "SIZE_INVALID") || !strings.Contains(answer, "Connection: close") {
		t.Errorf("declared: %s", answer)
	}

	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	source := &zeros{}
	r := s.do("PUT", "/v2/app/manifests/big", source, "Content-Type", typeImage)
	runtime.ReadMemStats(&after)
	if r.StatusCode != 413 || !strings.Contains(r.body, "SIZE_INVALID") || source.sent > 64<<20 {
		t.Errorf("without a length: %d %s after %d bytes", r.StatusCode, r.body, source.sent)
	}
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 16<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}

	r = s.do("PUT", "/v2/app/manifests/big", strings.NewReader("\x1f\x8b"), "Content-Type", typeImage, "Content-Encoding", "gzip")
	if r.StatusCode != 400 || !strings.Contains(r.body, "SIZE_INVALID") {
		t.Errorf("compressed: %d %s", r.StatusCode, r.body)
	}
	s.must(404, "GET", "/v2/app/manifests/big", "")

	fill := func(n int) string { return s.image("app", strings.Repeat("x", n)) }
	exact := fill(oci.MaxManifest - len(fill(0)))
	s.must(201, "PUT", "/v2/app/manifests/exact", exact, "Content-Type", typeImage)
	s.must(413, "PUT", "/v2/app/manifests/over", exact+" ", "Content-Type", typeImage)
}
