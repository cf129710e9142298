package ociapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/content"
	"cove.example/cove/content/disk"
	"cove.example/cove/link"
	"cove.example/cove/oci"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const (
	loginServer = "harbor.cr.cove.internal"
	dataHost    = "harbor.local.data.cr.cove.internal"
)

// guardFunc is a Guard of one function.
type guardFunc func(access.Ask) access.Verdict

func (g guardFunc) Check(_ context.Context, a access.Ask) access.Verdict { return g(a) }

func (g guardFunc) Link(access.Verdict, string, string) (string, error) { return "link=x", nil }

// records keeps what the server records, in order.
type records struct {
	audit.Log
	mu   sync.Mutex
	list []audit.Event
}

func (r *records) Record(e audit.Event) {
	if e.Decision != nil { // as a log does when it keeps the event
		e.Detail, _ = json.Marshal(e.Decision)
		e.Decision = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, e)
}

// take returns the records so far and forgets them.
func (r *records) take() []audit.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

// site is a server on a socket, over a real database and disk.
type site struct {
	testing.TB
	*httptest.Server
	api   *Server
	log   *records
	asked *asked
}

// asked is what the guard was asked, in order.
type asked struct {
	mu   sync.Mutex
	list []access.Ask
}

func (a *asked) take() []access.Ask {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list
	a.list = nil
	return list
}

// blobs is the folder that all tests share: to make one takes longer than most
// tests, and bytes under their digests do not mix up databases.
var blobs *disk.Blobs

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "ociapi")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if blobs, err = disk.Open(dir); err != nil {
		panic(err)
	}
	defer blobs.Close()
	return m.Run()
}

// openContent returns the real thing on db and the disk.
func openContent(t testing.TB, db *store.DB) content.Service {
	t.Helper()
	return content.New(store.NewContent(db), blobs, content.Options{})
}

// newSite serves over TLS with HTTP/2 on offer. decide is the guard.
func newSite(t testing.TB, decide func(access.Ask) access.Verdict) *site {
	s := &site{TB: t, log: &records{}, asked: &asked{}}
	s.api = &Server{
		Content: openContent(t, storetest.Open(t, storetest.SQLite(t))),
		Log:     s.log,
		Now:     time.Now,
		Guard: guardFunc(func(a access.Ask) access.Verdict {
			s.asked.mu.Lock()
			s.asked.list = append(s.asked.list, a)
			s.asked.mu.Unlock()
			v := decide(a)
			v.Ask = a
			return v
		}),
	}
	s.Server = httptest.NewUnstartedServer(s.api)
	s.Listener = link.Listener{Listener: s.Listener}
	s.Config.ConnContext = withOrigin
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func withOrigin(ctx context.Context, c net.Conn) context.Context {
	if over, ok := c.(*tls.Conn); ok {
		c = over.NetConn()
	}
	return link.With(ctx, c.(*link.Conn).Origin)
}

var harbor = &registry.Settings{
	ID:        arm.ID{},
	UID:       "uid-of-harbor",
	Name:      "harbor",
	Host:      loginServer,
	Location:  "local",
	DataHosts: []string{dataHost},
}

// everybody is allowed everything.
func everybody(access.Ask) access.Verdict {
	return access.Verdict{Allow: true, Registry: harbor, Identity: access.Identity{Name: "ci-bot"}}
}

// noOne is refused by the network.
func noOne(a access.Ask) access.Verdict {
	return access.Verdict{
		Refusal: access.Network, Reason: string(reason.NoRule), Registry: harbor,
		Public: "client with IP '" + a.Origin.Remote.Addr().String() + "' is not allowed access. Refer https://aka.ms/acr/firewall to grant access. CorrelationId: " + a.ID,
	}
}

// byScope lets in who writes the scopes down as a credential, and nobody else.
func byScope(a access.Ask) access.Verdict {
	v := access.Verdict{Registry: harbor, Refusal: access.Unauthenticated, Reason: string(reason.NoCredential)}
	v.Public = "authentication required, visit https://aka.ms/acr/authorization for more information."
	v.Challenge = `Bearer realm="https://` + loginServer + `/oauth2/token",service="` + loginServer + `"`
	held, ok := strings.CutPrefix(a.Authority, "Bearer ")
	if !ok {
		return v
	}
	for _, w := range a.Want {
		if !strings.Contains(held, w.String()) {
			v.Refusal, v.Reason = access.Permission, string(reason.TokenScopeTooSmall)
			return v
		}
	}
	return access.Verdict{Allow: true, Registry: harbor, Identity: access.Identity{Name: "ci-bot"}}
}

// reply is a response read to its end.
type reply struct {
	*http.Response
	body string
}

// do sends a request to the login server. headers are name, value, …
func (s *site) do(method, target string, body io.Reader, headers ...string) reply {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.URL+target, body)
	if err != nil {
		s.Fatal(err)
	}
	req.Host = loginServer
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	return s.send(req)
}

func (s *site) send(req *http.Request) reply {
	s.Helper()
	c := *s.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := c.Do(req)
	if err != nil {
		s.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return reply{resp, string(b)}
}

// must is do for requests that set the scene.
func (s *site) must(status int, method, target string, body string, headers ...string) reply {
	s.Helper()
	r := s.do(method, target, strings.NewReader(body), headers...)
	if r.StatusCode != status {
		s.Fatalf("%s %s: %d %s, want %d", method, target, r.StatusCode, r.body, status)
	}
	return r
}

// pushBlob puts b in a repository and returns its digest.
func (s *site) pushBlob(repo, b string) string {
	s.Helper()
	d := oci.DigestOf(oci.SHA256, []byte(b)).String()
	s.must(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d, b)
	return d
}

const typeImage = "application/vnd.oci.image.manifest.v1+json"

// image is a manifest of one small config and no layers; it pushes the config.
func (s *site) image(repo, note string, more ...string) string {
	s.Helper()
	config := s.pushBlob(repo, "{}")
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},"layers":[],"annotations":{"note":%q}%s}`,
		typeImage, config, note, strings.Join(more, ""))
}

// pushImage puts an image under a tag and returns body and digest.
func (s *site) pushImage(repo, tag, note string, more ...string) (body, digest string) {
	s.Helper()
	body = s.image(repo, note, more...)
	r := s.must(201, "PUT", "/v2/"+repo+"/manifests/"+tag, body, "Content-Type", typeImage)
	return body, r.Header.Get("Docker-Content-Digest")
}

// raw sends bytes as they are over HTTP/1.1 and returns the status line's
// number and all that came; 0 when the connection was closed without an answer.
func (s *site) raw(request string) (int, string) {
	s.Helper()
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		s.Fatal(err)
	}
	var out bytes.Buffer
	io.Copy(&out, conn)
	status := 0
	fmt.Sscanf(out.String(), "HTTP/1.1 %d", &status)
	return status, out.String()
}
