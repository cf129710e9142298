package door

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/authority"
	"cove.example/cove/link"
)

// house is a running front door: two configured hosts and one registry.
type house struct {
	ca      *authority.Authority
	router  *Router
	addr    string
	connect string
	away    atomic.Bool // nobody can tell which registries there are
}

func build(t *testing.T) *house {
	t.Helper()
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	ca, err := authority.Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	say := func(name string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			o := link.From(r.Context())
			fmt.Fprintf(w, "%s host=%s door=%s known=%v", name, r.Host, o.Kind, o.Remote.IsValid())
		})
	}
	h := &house{ca: ca}
	h.router = &Router{
		Hosts:    map[string]http.Handler{"management.cove.internal": say("management"), "login.cove.internal": say("login")},
		Registry: say("registry"),
		IsRegistry: func(_ context.Context, host string) (bool, error) {
			if h.away.Load() {
				return false, errors.New("the database cannot be reached")
			}
			return host == "myregistry.cr.cove.internal", nil
		},
	}
	ca.Serves = h.router.Serves
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	srv := Server(h.router)
	srv.TLSConfig = ca.TLS()
	proxy := NewConnect(h.router.Serves, l.Addr())
	pl, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.connect = pl.Addr().String()
	go proxy.Serve(pl)
	go srv.ServeTLS(link.Listener{Listener: l}, "", "")
	go srv.ServeTLS(link.Listener{Listener: proxy}, "", "")
	t.Cleanup(func() { srv.Close(); pl.Close() })
	return h
}

func (h *house) client(sni string, h2 bool) *http.Client {
	tr := httptest.NewTLSServer(nil).Client().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig = &tls.Config{RootCAs: tr.TLSClientConfig.RootCAs.Clone(), ServerName: sni}
	tr.TLSClientConfig.RootCAs.AppendCertsFromPEM(h.ca.PEM())
	tr.ForceAttemptHTTP2 = h2
	tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", h.addr)
	}
	return &http.Client{Transport: tr}
}

// The registry's name comes from SNI and Host together; any disagreement is
// 421 without a body (docs/published-failures.md, failure 30; also DNS
// rebinding, Host header).
func TestTheNameMustBeOneAndOurs(t *testing.T) {
	h := build(t)
	for _, c := range []struct{ sni, host, want string }{
		{"management.cove.internal", "management.cove.internal", "200 management"},
		{"management.cove.internal", "MANAGEMENT.cove.internal", "200 management"},
		{"management.cove.internal", "management.cove.internal:443", "200 management"},
		{"myregistry.cr.cove.internal", "myregistry.cr.cove.internal", "200 registry"},
		{"myregistry.cr.cove.internal", "myregistry.cr.cove.internal:8443", "200 registry"},
		{"myregistry.cr.cove.internal", "management.cove.internal", "421"},
		{"management.cove.internal", "myregistry.cr.cove.internal", "421"},
		{"login.cove.internal", "attacker.example", "421"},
		{"login.cove.internal", "login.cove.internal.", "421"},
		{"login.cove.internal", "127.0.0.1", "421"},
		{"login.cove.internal", "login.cove.internal:", "421"},
		{"login.cove.internal", "login.cove.internal:99999999", "421"},
	} {
		for _, h2 := range []bool{false, true} {
			req, err := http.NewRequest(http.MethodGet, "https://"+c.sni+"/", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = c.host
			req.Header.Set("X-Forwarded-Host", "evil.example")
			resp, err := h.client(c.sni, h2).Do(req)
			if err != nil {
				t.Errorf("%+v h2=%v: %v", c, h2, err)
				continue
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%d %s", resp.StatusCode, body)
			if !strings.HasPrefix(got, c.want) || (c.want == "421" && len(body) > 0) {
				t.Errorf("SNI %s, Host %s, h2=%v: %s; want %s", c.sni, c.host, h2, got, c.want)
			}
		}
	}
}

func TestAConnectionKnowsItsOrigin(t *testing.T) {
	h := build(t)
	resp, err := h.client("login.cove.internal", true).Get("https://login.cove.internal/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if want := "login host=login.cove.internal door=public known=true"; string(body) != want {
		t.Errorf("got %q, want %q", body, want)
	}
}

func TestConnectLeadsToOurNamesOnly(t *testing.T) {
	h := build(t)
	tr := h.client("", false).Transport.(*http.Transport)
	tr.DialContext = nil
	tr.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: h.connect})
	c := &http.Client{Transport: tr}
	resp, err := c.Get("https://myregistry.cr.cove.internal/v2/")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.HasPrefix(string(body), "registry host=myregistry.cr.cove.internal door=public known=true") {
		t.Errorf("through the proxy: %q, %v", body, err)
	}
	for _, target := range []string{"somebody.else:443", "myregistry.cr.cove.internal:22", "127.0.0.1:443", "login.cove.internal"} {
		if got := ask(t, h.connect, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 403") {
			t.Errorf("CONNECT %s: %q", target, got)
		}
	}
	if got := ask(t, h.connect, "GET http://login.cove.internal/ HTTP/1.1\r\nHost: login.cove.internal\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 405") {
		t.Errorf("GET: %q", got)
	}
	if got := ask(t, h.connect, "CONNECT a:443 HTTP/1.1\r\nX: "+strings.Repeat("x", 2*maxConnectRequest)); got != "" {
		t.Errorf("an endless header: %q", got)
	}
}

// The Azure CLI behind a proxy leaves Nagle's algorithm on. It does not stand
// still for 40 ms after each handshake, until its kernel hears that the server's
// has received the last packet of it.
func TestAClientWithNaglesAlgorithmIsNotDelayed(t *testing.T) {
	h := build(t)
	quickest := time.Hour
	for range 10 {
		raw, err := net.Dial("tcp", h.connect)
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.(*net.TCPConn).SetNoDelay(false); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(raw, "CONNECT login.cove.internal:443 HTTP/1.1\r\nHost: login.cove.internal:443\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(raw), nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		c := tls.Client(raw, &tls.Config{ServerName: "login.cove.internal", InsecureSkipVerify: true})
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: login.cove.internal\r\n\r\n")
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
		quickest = min(quickest, time.Since(began))
		raw.Close()
	}
	if quickest > 30*time.Millisecond {
		t.Errorf("the quickest of ten took %v", quickest)
	}
}

// A client that sends its ClientHello without waiting for the proxy's answer
// loses nothing.
func TestEarlyBytesArePassedOn(t *testing.T) {
	h := build(t)
	raw, err := net.Dial("tcp", h.connect)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	mine, theirs := net.Pipe()
	tc := tls.Client(mine, &tls.Config{ServerName: "login.cove.internal", InsecureSkipVerify: true})
	go tc.Handshake()
	hello := make([]byte, 4096)
	n, err := theirs.Read(hello)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(raw, "CONNECT login.cove.internal:443 HTTP/1.1\r\nHost: login.cove.internal:443\r\n\r\n%s", hello[:n])
	br := bufio.NewReader(raw)
	if line, err := br.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	if _, err := br.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	record, err := br.ReadByte()
	if err != nil || record != 22 {
		t.Errorf("the answer to the hello begins with %d, %v; want a handshake record", record, err)
	}
}

func ask(t *testing.T, addr, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return ""
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return ""
	}
	return string(b)
}

// While nobody can tell which registries there are, a registry that was served
// before says that it is to be asked again, not that it is somebody else's
// name; and a name that was not gets no certificate.
func TestARegistryIsNotDeniedWhileNobodyKnows(t *testing.T) {
	h := build(t)
	client := h.client("myregistry.cr.cove.internal", false)
	client.Transport.(*http.Transport).DisableKeepAlives = true
	status := func() string {
		resp, err := client.Get("https://myregistry.cr.cove.internal/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.Status + " " + resp.Header.Get("Retry-After")
	}
	if got := status(); got != "200 OK " {
		t.Error(got)
	}
	h.away.Store(true)
	if got := status(); got != "503 Service Unavailable 5" {
		t.Error(got)
	}
	if resp, err := h.client("another.cr.cove.internal", false).Get("https://another.cr.cove.internal/v2/"); err == nil {
		resp.Body.Close()
		t.Errorf("a name that may be nobody's: %s", resp.Status)
	}
	for target, want := range map[string]string{"myregistry.cr.cove.internal:443": "HTTP/1.1 503", "myregistry.cr.cove.internal:22": "HTTP/1.1 403"} {
		if got := ask(t, h.connect, "CONNECT "+target+" HTTP/1.1\r\nHost: "+target+"\r\n\r\n"); !strings.HasPrefix(got, want) {
			t.Errorf("CONNECT %s: %q", target, got)
		}
	}
}
