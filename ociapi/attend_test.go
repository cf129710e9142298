package ociapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/directory"
	"cove.example/cove/oci"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
)

// looked is a guard that counts, for each request that lasts, how often it was
// asked, and tells when the request's handler has returned.
type looked struct {
	*access.Guard
	mu    sync.Mutex
	looks map[string]int
	ended chan string
	no    []string // what was refused
}

func (l *looked) Check(ctx context.Context, a access.Ask) access.Verdict {
	if a.Operation == BlobGet.String() || a.Operation == UploadAppend.String() {
		l.mu.Lock()
		if l.looks[a.ID]++; l.looks[a.ID] == 1 {
			context.AfterFunc(ctx, func() { l.ended <- a.Operation + " " + a.Host + " " + a.ID })
		}
		l.mu.Unlock()
	}
	v := l.Guard.Check(ctx, a)
	if !v.Allow {
		l.mu.Lock()
		l.no = append(l.no, v.String())
		l.mu.Unlock()
	}
	return v
}

// least is how often the one of so many requests was asked about that was asked
// about least.
func (l *looked) least(of int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.looks) < of {
		return 0
	}
	return slices.Min(slices.Collect(maps.Values(l.looks)))
}

// slow is a client that stops in the middle until hold is closed.
type slow struct {
	*loginSite
	client *http.Client
	hold   chan struct{}
}

func (s *loginSite) slow(proto string, hold chan struct{}) slow {
	c := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: proto == "HTTP/2.0"}
	s.Cleanup(c.CloseIdleConnections)
	return slow{s, &http.Client{Transport: c}, hold}
}

func (s slow) request(method, target string, body io.Reader, host string, headers ...string) *http.Request {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.URL+target, body)
	if err != nil {
		s.Fatal(err)
	}
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// download begins one. Its result is whether all of it came.
func (s slow) download(target, host string, size int, headers ...string) <-chan bool {
	s.Helper()
	resp, err := s.client.Do(s.request(http.MethodGet, target, nil, host, headers...))
	if err != nil || resp.StatusCode != 200 {
		s.Fatal(resp, err)
	}
	whole := make(chan bool, 1)
	go func() {
		defer resp.Body.Close()
		<-s.hold
		n, err := io.Copy(io.Discard, resp.Body)
		whole <- err == nil && n == int64(size)
	}()
	return whole
}

// upload begins one. Its result is whether it was taken.
func (s slow) upload(headers ...string) <-chan bool {
	s.Helper()
	to := s.must(202, "POST", "/v2/team/app/blobs/uploads/", "", headers...).Header.Get("Location")
	body, feed := io.Pipe()
	req := s.request(http.MethodPatch, to, body, loginServer, append(headers, "Content-Type", "application/octet-stream")...)
	taken := make(chan bool, 1)
	go func() {
		resp, err := s.client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		taken <- err == nil && resp.StatusCode == 202
	}()
	go func() {
		_, _ = feed.Write([]byte("some")) // fails where the transfer has been cut
		<-s.hold
		feed.Close()
	}()
	return taken
}

// A revocation ends the transfers that are under way, downloads and uploads, at
// the login server and the data host, over either version of HTTP: of a
// principal, of its secret, of its role, of the network's permission. Time does
// not: a token that ends has let its transfer begin.
//
// Published failure 9.
func TestRevocationEndsTransfers(t *testing.T) {
	for name, take := range map[string]func(*loginSite){
		"the secret": func(s *loginSite) {
			if err := s.guard.Directory.RemoveSecret(s.Context(), s.client.ObjectID, s.client.Credentials[0].KeyID); err != nil {
				s.Fatal(err)
			}
		},
		"the principal": func(s *loginSite) {
			if _, err := s.guard.Directory.Change(s.Context(), s.client.ObjectID, func(o *directory.Object) error { o.Disabled = true; return nil }); err != nil {
				s.Fatal(err)
			}
		},
		"the permission mode": func(s *loginSite) { s.set(func(r *registry.Settings) { r.Mode = registry.AbacMode }) },
		"public access":       func(s *loginSite) { s.set(func(r *registry.Settings) { r.PublicAccess = false }) },
		"nothing but time":    nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newLoginSiteAs(t, policy.RoleAcrPush)
			s.api.Attend = 5 * time.Millisecond
			body := bytes.Repeat([]byte("layer"), 8<<20) // more than sockets hold
			digest := oci.DigestOf(oci.SHA256, body).String()
			admin := header("harbor", adminPassword)
			s.must(201, "POST", "/v2/team/app/blobs/uploads/?digest="+digest, string(body), "Authorization", admin)
			basic := header(s.client.AppID, s.secret)
			raw := s.do("GET", "/oauth2/token?scope="+url.QueryEscape("repository:team/app:pull,push"), nil, "Authorization", basic).field("access_token")
			s.set(func(r *registry.Settings) { r.DataEndpoint = true })
			where := s.do("GET", "/v2/team/app/blobs/"+digest, nil, "Authorization", basic).Header.Get("Location")
			s.set(func(r *registry.Settings) { r.DataEndpoint = false })

			u, err := url.Parse(where)
			if err != nil {
				t.Fatal(err)
			}
			guard := &looked{Guard: s.guard, looks: map[string]int{}, ended: make(chan string, 100)}
			s.api.Guard = guard
			hold := make(chan struct{})
			transfers := map[string]<-chan bool{}
			for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
				for what, credential := range map[string]string{"a secret": basic, "a token": "Bearer " + raw} {
					transfers["a download over "+proto+" by "+what] = s.slow(proto, hold).download("/v2/team/app/blobs/"+digest, loginServer, len(body), "Authorization", credential)
					transfers["an upload over "+proto+" by "+what] = s.slow(proto, hold).upload("Authorization", credential)
				}
				transfers["a download over "+proto+" by a link"] = s.slow(proto, hold).download(u.RequestURI(), u.Host, len(body))
			}
			until := time.After(time.Minute) // 50 transfers of 40 MB at once
			looks := func(n int) {
				t.Helper()
				for guard.least(len(transfers)) < n {
					select {
					case what := <-guard.ended:
						guard.mu.Lock()
						t.Fatalf("%s has ended; refused: %q", what, guard.no)
					case <-until:
						t.Fatal("nobody looks")
					case <-time.After(time.Millisecond):
					}
				}
			}
			looks(2) // the first was before it began
			if take == nil {
				s.later(25 * time.Hour) // the secret, the token and the link have ended
				looks(5)
			} else {
				take(s)
				for n := range len(transfers) {
					select {
					case <-guard.ended:
					case <-until:
						t.Fatalf("of %d transfers %d have ended", len(transfers), n)
					}
				}
			}
			close(hold)
			for what, whole := range transfers {
				if got := <-whole; got != (take == nil) {
					t.Errorf("%s: whole is %t", what, got)
				}
			}
		})
	}
}
