package ociapi

import (
	"context"
	"strings"
	"testing"

	"cove.example/cove/oci"
)

// row:94 A registry that is full takes no more, in the words of the service,
// and goes on to be read and emptied.
func TestAFullRegistry(t *testing.T) {
	s := newSite(t, everybody)
	s.pushImage("app", "1", "x")
	s.api.Room = func(_ context.Context, uid, _ string) error {
		if uid != harbor.UID {
			t.Errorf("asked about %s", uid)
		}
		return oci.ErrDisallowed
	}
	d := sha256Of("y")
	for _, c := range []struct{ method, target string }{
		{"POST", "/v2/app/blobs/uploads/"},
		{"POST", "/v2/app/blobs/uploads/?digest=" + d},
		{"POST", "/v2/other/blobs/uploads/?from=app&mount=" + sha256Of("{}")},
		{"PUT", "/v2/app/manifests/2"},
	} {
		r := s.do(c.method, c.target, strings.NewReader("y"))
		if r.StatusCode != 405 || !strings.Contains(r.body, `"code":"REGISTRY_DISALLOWED_OPERATION"`) ||
			!strings.Contains(r.body, "The operation is disallowed on this registry, repository or image.") {
			t.Errorf("%s %s: %d %s", c.method, c.target, r.StatusCode, r.body)
		}
	}
	s.must(200, "GET", "/v2/app/manifests/1", "")
	s.must(202, "DELETE", "/v2/app/manifests/1", "")
}
