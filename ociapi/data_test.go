package ociapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
	"cove.example/cove/registry"
)

// dataSite is a registry with dedicated data endpoints and the real guard.
func dataSite(t *testing.T) (s *loginSite, basic string) {
	s = newLoginSite(t)
	s.set(func(r *registry.Settings) { r.DataEndpoint = true })
	return s, header("harbor", adminPassword)
}

// set replaces the registry's settings, as a change of its document does.
func (s *loginSite) set(fn func(*registry.Settings)) {
	next := *s.registry.Settings
	fn(&next)
	s.registry.mu.Lock()
	defer s.registry.mu.Unlock()
	s.registry.Settings = &next
}

// at sends a request to where a Location leads.
func (s *loginSite) at(method, location string, headers ...string) reply {
	s.Helper()
	u, err := url.Parse(location)
	if err != nil {
		s.Fatal(err)
	}
	return s.do(method, u.RequestURI(), nil, append([]string{"Host", u.Host}, headers...)...)
}

// row:2 A blob's GET is answered with the address of the data host, which has
// its bytes; row:3 with the switch off the login server has them.
func TestBlobsComeFromTheDataHost(t *testing.T) {
	s, basic := dataSite(t)
	text := strings.Repeat("layer", 1000)
	d := oci.DigestOf(oci.SHA256, []byte(text)).String()
	blob := "/v2/team/app/blobs/" + d
	s.must(201, "POST", "/v2/team/app/blobs/uploads/?digest="+d, text, "Authorization", basic)

	for _, method := range []string{"GET", "HEAD"} {
		r := s.do(method, blob, nil, "Authorization", basic)
		where := r.Header.Get("Location")
		if r.StatusCode != http.StatusTemporaryRedirect || !strings.HasPrefix(where, "https://"+dataHost+blob+"?") || r.body != "" ||
			r.Header.Get("Docker-Content-Digest") != d || r.Header.Get("Cache-Control") != "no-store" {
			t.Fatalf("%s: %d %v %q", method, r.StatusCode, r.Header, r.body)
		}
		for _, secret := range []string{adminPassword, basic[6:], url.QueryEscape(basic[6:])} {
			if strings.Contains(where, secret) {
				t.Errorf("the link carries a credential: %s", where)
			}
		}
		for _, m := range []string{"GET", "HEAD"} { // one link is good for both
			r = s.at(m, where)
			if want := map[string]string{"GET": text}[m]; r.StatusCode != 200 || r.body != want || r.ContentLength != int64(len(text)) {
				t.Errorf("%s after %s: %d, %d bytes of %d", m, method, r.StatusCode, len(r.body), r.ContentLength)
			}
		}
		if r := s.at("GET", where, "Range", "bytes=5-9"); r.StatusCode != 206 || r.body != "layer" {
			t.Errorf("a range: %d %q", r.StatusCode, r.body)
		}
	}
	for what, target := range map[string]string{
		"that is nowhere":     "/v2/team/app/blobs/" + oci.DigestOf(oci.SHA256, []byte("other")).String(),
		"of another place":    "/v2/team/other/blobs/" + d,
		"without a digest":    "/v2/team/app/blobs/latest",
		"without a signature": "https://" + dataHost + blob,
	} {
		r := s.do("GET", strings.TrimPrefix(target, "https://"+dataHost), nil, "Authorization", basic)
		if strings.HasPrefix(target, "https:") {
			r = s.at("GET", target)
		}
		if r.StatusCode < 400 {
			t.Errorf("a blob %s: %d %v", what, r.StatusCode, r.Header)
		}
	}
	if r := s.do("GET", blob, nil); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a credential: %d", r.StatusCode)
	}
	s.set(func(r *registry.Settings) { r.DataEndpoint = false })
	if r := s.do("GET", blob, nil, "Authorization", basic); r.StatusCode != 200 || r.body != text {
		t.Errorf("with the switch off: %d", r.StatusCode)
	}
}

// What lets a caller into a data host is the link, whole, in its time, for
// what it was made for; and the refusal has the words of a storage service.
func TestDataHostRefuses(t *testing.T) {
	s, basic := dataSite(t)
	var digests []string
	for i := range 2 {
		text := fmt.Sprint("layer ", i)
		digests = append(digests, oci.DigestOf(oci.SHA256, []byte(text)).String())
		for _, repo := range []string{"team/app", "team/other"} {
			s.must(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+digests[i], text, "Authorization", basic)
		}
	}
	blob := "/v2/team/app/blobs/" + digests[0]
	where := s.do("GET", blob, nil, "Authorization", basic).Header.Get("Location")
	_, query, _ := strings.Cut(where, "?")
	at := "https://" + dataHost
	s.log.take()

	for what, c := range map[string]struct {
		method, location string
		headers          []string
		status           int
		code, reason     string
	}{
		"no link":               {"GET", at + blob, nil, 403, "AuthenticationFailed", "COVE-AUTH-021"},
		"an empty link":         {"GET", at + blob + "?link=", nil, 403, "AuthenticationFailed", "COVE-AUTH-021"},
		"a mangled link":        {"GET", where[:len(where)-1], nil, 403, "AuthenticationFailed", "COVE-AUTH-021"},
		"a second parameter":    {"GET", where + "&x=1", nil, 403, "AuthenticationFailed", "COVE-AUTH-021"},
		"another blob":          {"GET", at + "/v2/team/app/blobs/" + digests[1] + "?" + query, nil, 403, "AuthenticationFailed", "COVE-AUTH-021"},
		"another repository":    {"HEAD", at + "/v2/team/other/blobs/" + digests[0] + "?" + query, nil, 403, "", "COVE-AUTH-021"},
		"a registry credential": {"GET", where, []string{"Authorization", basic}, 400, "InvalidAuthenticationInfo", "COVE-AUTH-023"},
		"a token":               {"GET", where, []string{"Authorization", "Bearer x"}, 400, "InvalidAuthenticationInfo", "COVE-AUTH-023"},
		"any such header":       {"GET", where, []string{"Authorization", "\"\""}, 400, "InvalidAuthenticationInfo", "COVE-AUTH-023"},
		"only a credential":     {"GET", at + blob, []string{"Authorization", basic}, 400, "InvalidAuthenticationInfo", "COVE-AUTH-023"},
	} {
		r := s.at(c.method, c.location, c.headers...)
		if r.StatusCode != c.status || r.Header.Get("Www-Authenticate") != "" || r.Header.Get("Content-Type") != "application/xml" ||
			!strings.Contains(r.body, "<Code>"+c.code+"</Code>") && c.code != "" {
			t.Errorf("%s: %d %v %s", what, r.StatusCode, r.Header, r.body)
		}
		if c.status == 400 && !strings.Contains(r.body, "Authentication information is not given in the correct format. Check the value of Authorization header.") {
			t.Errorf("%s: %s", what, r.body)
		}
		events := s.log.take()
		if len(events) != 1 || events[0].Reason != c.reason || events[0].Status != c.status || events[0].Repository == "" {
			t.Errorf("%s: recorded as %+v", what, events)
		}
	}
	// Nothing else is answered there, with a link or without.
	for _, c := range []struct{ method, target string }{
		{"DELETE", blob + "?" + query},
		{"GET", "/v2/?" + query},
		{"GET", "/v2/team/app/manifests/latest?" + query},
		{"PUT", blob + "?" + query},
		{"POST", "/v2/team/app/blobs/uploads/?" + query},
		{"GET", "/v2/_catalog"},
		{"GET", "/acr/v1/_catalog"},
		{"GET", "/oauth2/token"},
	} {
		if r := s.at(c.method, at+c.target); r.StatusCode != 404 {
			t.Errorf("%s %s: %d %s", c.method, c.target, r.StatusCode, r.body)
		}
	}
	// A link is no credential at the login server.
	for _, target := range []string{blob + "?" + query, "/v2/?" + query} {
		if r := s.do("GET", target, nil); r.StatusCode != 401 {
			t.Errorf("at the login server: %d", r.StatusCode)
		}
	}
	if r := s.do("GET", blob, nil, "Authorization", "Bearer "+strings.TrimPrefix(query, "link=")); r.StatusCode != 401 {
		t.Errorf("as a token: %d", r.StatusCode)
	}
}

// What is taken away ends the links that were made before: the network's
// permission, the identity, the lock, the blob, the registry.
func TestLinksEndWithWhatTheyStandOn(t *testing.T) {
	repo, err := oci.ParseRepo("team/app")
	if err != nil {
		t.Fatal(err)
	}
	key := content.Key{Registry: "uid-of-harbor", Repo: repo}
	for what, c := range map[string]struct {
		take   func(*loginSite, oci.Digest) error
		status int
		body   string
	}{
		"the network": {func(s *loginSite, _ oci.Digest) error {
			s.set(func(r *registry.Settings) { r.PublicAccess = false })
			return nil
		}, 403, `"code":"DENIED"`},
		"the admin user": {func(s *loginSite, _ oci.Digest) error {
			s.set(func(r *registry.Settings) { r.AdminUser = false })
			return nil
		}, 403, "<Code>AuthenticationFailed</Code>"},
		"the registry under that name": {func(s *loginSite, _ oci.Digest) error {
			s.set(func(r *registry.Settings) { r.UID = "uid-of-a-new-harbor" })
			return nil
		}, 403, "<Code>AuthenticationFailed</Code>"},
		"the permission mode that it was made in": {func(s *loginSite, _ oci.Digest) error {
			s.set(func(r *registry.Settings) { r.Mode = registry.AbacMode })
			return nil
		}, 403, "<Code>AuthenticationFailed</Code>"},
		"reading": {func(s *loginSite, _ oci.Digest) error {
			return s.api.Content.LockRepository(t.Context(), key, content.NoRead, 0)
		}, 405, "REGISTRY_DISALLOWED_OPERATION"},
		"the blob": {func(s *loginSite, d oci.Digest) error {
			return s.api.Content.DeleteBlob(t.Context(), key, d)
		}, 404, "BLOB_UNKNOWN"},
		"time": {func(s *loginSite, _ oci.Digest) error {
			s.later(25 * time.Minute)
			return nil
		}, 403, "<Code>AuthenticationFailed</Code>"},
		"nothing": {func(s *loginSite, _ oci.Digest) error {
			s.later(20 * time.Minute)
			return nil
		}, 200, "layer"},
	} {
		s, basic := dataSite(t)
		d := oci.DigestOf(oci.SHA256, []byte("layer"))
		s.must(201, "POST", "/v2/team/app/blobs/uploads/?digest="+d.String(), "layer", "Authorization", basic)
		s.must(201, "PUT", "/v2/team/app/manifests/1", `{"schemaVersion":2,"manifests":[]}`, "Authorization", basic, "Content-Type", "application/vnd.oci.image.index.v1+json")
		where := s.do("GET", "/v2/team/app/blobs/"+d.String(), nil, "Authorization", basic).Header.Get("Location")
		if r := s.at("GET", where); r.StatusCode != 200 {
			t.Fatalf("%d %s", r.StatusCode, r.body)
		}
		if err := c.take(s, d); err != nil {
			t.Fatal(err)
		}
		if r := s.at("GET", where); r.StatusCode != c.status || !strings.Contains(r.body, c.body) {
			t.Errorf("without %s: %d %s", what, r.StatusCode, r.body)
		}
	}
}

// row:4 A replicated registry has a data host in each region; the one of the
// region that was asked answers, for the global name the one that it is routed
// to.
func TestNearestDataHost(t *testing.T) {
	r := &registry.Settings{
		DataHosts:     []string{"harbor.local.data.cr.cove.internal", "harbor.eastus.data.cr.cove.internal"},
		RegionalHosts: []string{"harbor.local.geo.cr.cove.internal", "harbor.eastus.geo.cr.cove.internal"},
		Routed:        []string{"local", "eastus"},
	}
	for _, c := range []struct{ host, routed, want string }{
		{"harbor.cr.cove.internal", "local", r.DataHosts[0]},
		{"harbor.cr.cove.internal", "eastus", r.DataHosts[1]},
		{"harbor.cr.cove.internal", "", r.DataHosts[0]},
		{"harbor.local.geo.cr.cove.internal", "eastus", r.DataHosts[0]},
		{"harbor.eastus.geo.cr.cove.internal", "local", r.DataHosts[1]},
		{"harbor.elsewhere.geo.cr.cove.internal", "local", r.DataHosts[0]},
		{"mcr.microsoft.com", "eastus", r.DataHosts[1]},
	} {
		s := &Server{Route: func(regions []string) string {
			if !slices.Equal(regions, r.Routed) {
				t.Errorf("asked about %v", regions)
			}
			return c.routed
		}}
		if got := s.nearest(r, c.host); got != c.want {
			t.Errorf("for %s, routed to %q: %s", c.host, c.routed, got)
		}
	}
	if got := new(Server).nearest(r, "harbor.cr.cove.internal"); got != r.DataHosts[0] {
		t.Errorf("without routing: %s", got)
	}
}
