package ociapi

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"cove.example/cove/audit"
)

func benchmark(b *testing.B, method, target string) {
	s := newSite(b, everybody)
	s.pushImage("team/app", "1.4", "x")
	if target == "" {
		target = "/v2/team/app/blobs/" + sha256Of("{}")
	}
	s.api.Guard = guardFunc(everybody)
	s.api.Log = forgetful{}
	r := httptest.NewRequest(method, target, nil)
	r.Host = loginServer
	b.ReportAllocs()
	for b.Loop() {
		w := &discard{h: http.Header{}}
		s.api.ServeHTTP(w, r)
		if w.status != http.StatusOK {
			b.Fatal(w.status)
		}
	}
}

func BenchmarkManifestByTag(b *testing.B) { benchmark(b, "GET", "/v2/team/app/manifests/1.4") }
func BenchmarkBlobHead(b *testing.B)      { benchmark(b, "HEAD", "") }

// discard is a ResponseWriter that costs nothing.
type discard struct {
	h      http.Header
	status int
}

func (d *discard) Header() http.Header         { return d.h }
func (d *discard) WriteHeader(s int)           { d.status = s }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }

type forgetful struct{ audit.Log }

func (forgetful) Record(audit.Event) {}
