package health

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"cove.example/cove/reason"
)

// here is where the servers of these tests are; names lead there by the
// resolver that each test runs.
var here = netip.MustParseAddr("127.0.0.1")

// lab is a registry with faults, its resolver and a check of it.
type lab struct {
	t        *testing.T
	registry *httptest.Server
	data     *httptest.Server
	resolver string
	records  map[string][]dns.RR

	manifest, layer []byte
	answer          func(w http.ResponseWriter, r *http.Request) bool // comes first
	redirect        bool
	leaked          atomic.Bool // a credential reached the data host
	c               Check
}

const registryName, dataName = "example.com", "data.example.com" // the names of httptest's certificate

func newLab(t *testing.T) *lab {
	l := &lab{t: t, records: map[string][]dns.RR{}, layer: []byte("a layer")}
	l.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"digest":%q,"size":%d},"layers":[{"digest":%q,"size":%d}]}`,
		digest(l.layer), len(l.layer), digest(l.layer), len(l.layer))
	quiet := log.New(io.Discard, "", 0)
	l.registry = httptest.NewUnstartedServer(http.HandlerFunc(l.serve))
	l.data = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			l.leaked.Store(true)
		}
		w.Write(l.layer)
	}))
	for _, s := range []*httptest.Server{l.registry, l.data} {
		s.Config.ErrorLog = quiet
		s.StartTLS()
		t.Cleanup(s.Close)
	}
	l.resolver = l.serveDNS()
	l.point(registryName, here.String())
	l.point(dataName, here.String())
	roots := x509.NewCertPool()
	roots.AddCert(l.registry.Certificate())
	l.c = Check{
		Target: Target{Host: registryName + ":" + port(l.registry), Repository: "team/app", Reference: "1", Credential: Credential{User: "me", Password: "pa55-w0rd"}},
		Way:    Way{Lookup: Resolvers([]string{l.resolver}, (&net.Dialer{}).DialContext, nil), Roots: roots},
	}
	return l
}

func port(s *httptest.Server) string {
	_, p, _ := net.SplitHostPort(s.Listener.Addr().String())
	return p
}

func digest(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// point gives a name an A record.
func (l *lab) point(name, addr string) {
	rr, err := dns.NewRR(name + ". 1 IN A " + addr)
	if err != nil {
		l.t.Fatal(err)
	}
	l.records[name] = []dns.RR{rr}
}

func (l *lab) serveDNS() string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(q)
		name := strings.TrimSuffix(q.Question[0].Name, ".")
		m.Answer = l.records[name]
		if m.Answer == nil {
			m.Rcode = dns.RcodeNameError
		} else if alias, ok := m.Answer[0].(*dns.CNAME); ok && l.records[strings.TrimSuffix(alias.Target, ".")] == nil {
			m.Rcode = dns.RcodeNameError // as a resolver that has followed it
		}
		if err := w.WriteMsg(m); err != nil {
			l.t.Error(err)
		}
	})}
	go s.ActivateAndServe()
	l.t.Cleanup(func() { s.Shutdown() })
	return pc.LocalAddr().String()
}

// serve is a registry with tokens.
func (l *lab) serve(w http.ResponseWriter, r *http.Request) {
	if l.answer != nil && l.answer(w, r) {
		return
	}
	const good = "Bearer "
	switch path := r.URL.Path; {
	case path == "/token":
		if user, password, _ := r.BasicAuth(); user != "me" || password != "pa55-w0rd" {
			problem(w, 401, "UNAUTHORIZED", "authentication required", nil)
			return
		}
		json.NewEncoder(w).Encode(map[string]string{"token": jwt(map[string]any{
			"exp": time.Now().Add(time.Hour).Unix(), "access": []any{map[string]any{"type": "repository", "name": "team/app", "actions": []string{"pull"}}},
		})})
	case !strings.HasPrefix(r.Header.Get("Authorization"), good):
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="https://%s/token",service="%s"`, r.Host, r.Host))
		problem(w, 401, "UNAUTHORIZED", "authentication required", nil)
	case strings.Contains(path, "/manifests/"):
		w.Header().Set("Docker-Content-Digest", digest(l.manifest))
		w.Write(l.manifest)
	case strings.Contains(path, "/blobs/") && l.redirect:
		http.Redirect(w, r, "https://"+dataName+":"+port(l.data)+"/x?sig=1", http.StatusTemporaryRedirect)
	case strings.Contains(path, "/blobs/"):
		w.Write(l.layer)
	}
}

func jwt(claims map[string]any) string {
	b, _ := json.Marshal(claims)
	return "x." + base64.RawURLEncoding.EncodeToString(b) + ".x"
}

func problem(w http.ResponseWriter, status int, code, message string, detail any) {
	w.Header().Set("X-Ms-Correlation-Request-Id", "11111111-2222-3333-4444-555555555555")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]any{"code": code, "message": message, "detail": detail}}})
}

func (l *lab) run() map[string]Result {
	l.t.Helper()
	c, err := New(l.c.Target, l.c.Way)
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[string]Result{}
	for _, r := range c.Run(l.t.Context()).Results {
		out[r.Layer] = r
	}
	return out
}

func TestAllIsWell(t *testing.T) {
	for _, redirect := range []bool{false, true} {
		l := newLab(t)
		l.redirect = redirect
		l.c.Target.DataHosts = []string{dataName + ":" + port(l.data)}
		c, err := New(l.c.Target, l.c.Way)
		if err != nil {
			t.Fatal(err)
		}
		report := c.Run(t.Context())
		if !report.Good() {
			t.Errorf("redirect %v: %+v", redirect, report.Results)
		}
		if len(report.Results) != len(Layers)-1 { // no engine was looked for
			t.Errorf("%d results: %+v", len(report.Results), report.Results)
		}
		if l.leaked.Load() {
			t.Error("the registry's token was sent to the data host")
		}
	}
}

// Each fault gets its code, at the layer where it is, and what depends on that
// layer is said not to have been reached.
func TestFaults(t *testing.T) {
	closed := func(t *testing.T) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		_, p, _ := net.SplitHostPort(ln.Addr().String())
		return p
	}
	listen := func(t *testing.T, serve func(net.Conn)) net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); serve(c) }()
			}
		}()
		return ln
	}
	silent := func(ctx context.Context, network, address string) (net.Conn, error) {
		if strings.HasPrefix(network, "udp") {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}
		return nil, &net.OpError{Op: "dial", Err: context.DeadlineExceeded}
	}
	viaProxy := func(l *lab, addr string) {
		l.c.Way.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse("http://" + addr) }
	}
	for name, tt := range map[string]struct {
		break_     func(t *testing.T, l *lab)
		layer      string
		want       reason.Code
		notReached string
	}{
		"the name does not exist": {func(t *testing.T, l *lab) { delete(l.records, registryName) }, LayerName, reason.NameUnknown, LayerBlob},
		"a linked zone has no record": {func(t *testing.T, l *lab) {
			rr, _ := dns.NewRR(registryName + ". 1 IN CNAME a.privatelink.example.com.")
			l.records[registryName] = []dns.RR{rr}
		}, LayerName, reason.PrivateNoRecord, LayerConnect},
		"public where a private endpoint serves": {func(t *testing.T, l *lab) {
			l.point(registryName, "203.0.113.7")
			l.c.Target.Holds = map[string][]netip.Addr{registryName: {netip.MustParseAddr("10.0.0.7")}}
			l.c.Way.Dial = silent
		}, LayerName, reason.NamePublic, LayerManifest},
		"a stale record": {func(t *testing.T, l *lab) {
			l.c.Target.Holds = map[string][]netip.Addr{registryName: {netip.MustParseAddr("10.0.0.7")}}
		}, LayerName, reason.NameElsewhere, ""},
		"the resolver is silent": {func(t *testing.T, l *lab) {
			l.c.Way.Lookup = func(context.Context, string) (Answer, error) { return Answer{}, errors.New("no answer") }
		}, LayerName, reason.ResolverSilent, LayerChallenge},
		"the hosts file says otherwise": {func(t *testing.T, l *lab) {
			l.point(registryName, "127.0.0.9")
			l.c.Way.Lookup = Resolvers([]string{l.resolver}, (&net.Dialer{}).DialContext, func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{here}, nil })
		}, LayerName, reason.ResolversDiffer, ""},
		"nothing listens":     {func(t *testing.T, l *lab) { l.c.Target.Host = registryName + ":" + closed(t) }, LayerConnect, reason.PathRefused, LayerSignIn},
		"packets are dropped": {func(t *testing.T, l *lab) { l.c.Way.Dial = silent }, LayerConnect, reason.PathSilent, LayerTLS},
		"cut before TLS": {func(t *testing.T, l *lab) {
			_, p, _ := net.SplitHostPort(listen(t, func(c net.Conn) { bufio.NewReader(c).ReadByte() }).Addr().String())
			l.c.Target.Host = registryName + ":" + p
		}, LayerTLS, reason.PathCut, LayerChallenge},
		"plain HTTP": {func(t *testing.T, l *lab) {
			s := httptest.NewServer(http.HandlerFunc(l.serve))
			t.Cleanup(s.Close)
			l.c.Target.Host = registryName + ":" + port(s)
		}, LayerTLS, reason.NotTLS, LayerChallenge},
		"an authority that is not trusted": {func(t *testing.T, l *lab) { l.c.Way.Roots = x509.NewCertPool() }, LayerTLS, reason.AuthorityUnknown, LayerChallenge},
		"another name": {func(t *testing.T, l *lab) {
			l.point("example.org", here.String())
			l.c.Target.Host = "example.org:" + port(l.registry)
		}, LayerTLS, reason.CertificateName, LayerChallenge},
		"the privatelink name": {func(t *testing.T, l *lab) {
			l.point("a.privatelink.example.com", here.String())
			l.c.Target.Host = "a.privatelink.example.com:" + port(l.registry)
		}, LayerName, reason.PrivateName, ""},
		"the certificate's time is over": {func(t *testing.T, l *lab) {
			l.c.Way.Now = func() time.Time { return l.registry.Certificate().NotAfter.Add(time.Hour) }
		}, LayerTLS, reason.CertificateTime, LayerChallenge},
		"this machine's clock": {func(t *testing.T, l *lab) {
			l.c.Way.Now = func() time.Time { return time.Now().Add(time.Hour) }
		}, LayerClock, reason.ClockWrong, ""},
		"the proxy is away": {func(t *testing.T, l *lab) { viaProxy(l, "127.0.0.1:"+closed(t)) }, LayerConnect, reason.ProxyAway, LayerTLS},
		"the proxy refuses": {func(t *testing.T, l *lab) {
			viaProxy(l, listen(t, func(c net.Conn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nnot here\n")
			}).Addr().String())
		}, LayerConnect, reason.ProxyRefuses, LayerTLS},
		"proxyconnect tcp: EOF": {func(t *testing.T, l *lab) {
			viaProxy(l, listen(t, func(c net.Conn) { http.ReadRequest(bufio.NewReader(c)) }).Addr().String())
		}, LayerConnect, reason.ProxyCuts, LayerTLS},
		"a web page answers": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(403)
				return true
			}
		}, LayerChallenge, reason.ProxyAnswers, LayerSignIn},
		"the network rules": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				problem(w, 403, "DENIED", "client with IP '1.2.3.4' is not allowed access.", nil)
				return true
			}
		}, LayerChallenge, reason.NetworkRefuses, LayerSignIn},
		"a refusal with cove's reason": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				problem(w, 403, "DENIED", "client with IP '1.2.3.4' is not allowed access.", map[string]string{"reason": "COVE-NET-003"})
				return true
			}
		}, LayerChallenge, "COVE-NET-003", LayerSignIn},
		"the wrong password": {func(t *testing.T, l *lab) { l.c.Target.Credential.Password = "wr0ng-w0rd" }, LayerSignIn, reason.SignInRefused, LayerManifest},
		"throttled": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/token" {
					return false
				}
				problem(w, 429, "TOOMANYREQUESTS", "slow down", nil)
				return true
			}
		}, LayerSignIn, reason.Throttled, LayerManifest},
		"a realm elsewhere": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Www-Authenticate", `Bearer realm="https://thief.example.org/token",service="x"`)
				w.WriteHeader(401)
				return true
			}
		}, LayerSignIn, reason.RealmElsewhere, LayerManifest},
		"no such image": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				problem(w, 404, "MANIFEST_UNKNOWN", "manifest unknown", nil)
				return true
			}
		}, LayerManifest, reason.ImageUnknown, LayerBlob},
		"other bytes": {func(t *testing.T, l *lab) { l.layer = []byte("another") }, LayerBlob, reason.BytesWrong, ""},
		"the data endpoint is closed": {func(t *testing.T, l *lab) {
			l.redirect = true
			l.data.Close()
		}, LayerBlob, reason.DataBlocked, ""},
		"the secret ends": {func(t *testing.T, l *lab) { l.c.Target.Credential.Ends = time.Now().Add(time.Hour) }, LayerSignIn, reason.CredentialEnds, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			tt.break_(t, l)
			got := l.run()
			r := got[tt.layer]
			if r.Code != tt.want || r.Outcome != Failed && r.Outcome != Warned {
				t.Errorf("%s: %+v; all: %+v", tt.layer, r, got)
			}
			if tt.notReached != "" && got[tt.notReached].Outcome != NotReached {
				t.Errorf("%s: %+v", tt.notReached, got[tt.notReached])
			}
			if _, ok := reason.Of(string(r.Code)); !ok && !strings.HasPrefix(string(r.Code), "COVE-NET-") {
				t.Errorf("%s is in no catalogue", r.Code)
			}
			for layer, r := range got {
				if strings.Contains(fmt.Sprint(r), string(l.c.Target.Credential.Password)) {
					t.Errorf("%s tells the password: %+v", layer, r)
				}
			}
		})
	}
}

// A credential is given to the registry's own host only.
func TestACredentialStaysWithTheRegistry(t *testing.T) {
	l := newLab(t)
	var stolen atomic.Bool
	thief := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		stolen.Store(stolen.Load() || r.Header.Get("Authorization") != "")
	}))
	t.Cleanup(thief.Close)
	l.answer = func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Www-Authenticate", `Bearer realm="https://thief.example.com:`+port(thief)+`/token",service="x"`)
		w.WriteHeader(401)
		return true
	}
	l.point("thief.example.com", here.String())
	l.run()
	if stolen.Load() {
		t.Error("the password went to the realm's host")
	}
}

func TestSymptoms(t *testing.T) {
	for text, want := range map[string]reason.Code{
		`Error response from daemon: Get "https://r.cr.cove.internal/v2/": dial tcp: lookup r.cr.cove.internal on 127.0.0.53:53: no such host`:                                       reason.NameUnknown,
		`Error response from daemon: Get "https://r/v2/": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)`:                  reason.PathSilent,
		`Error response from daemon: Get "https://r/v2/": proxyconnect tcp: EOF`:                                                                                                     reason.ProxyCuts,
		`Error: Get "https://r/v2/": proxyconnect tcp: tls: first record does not look like a TLS handshake`:                                                                         reason.ProxyCuts, // squid, named https://
		`Error: Get "https://r/v2/": malformed HTTP response "\x15\x03\x03\x00\x02\x01\x00"`:                                                                                         reason.ProxyCuts, // a proxy that speaks TLS, named http://
		`Error: Get "https://r/v2/": proxyconnect tcp: read tcp 10.1.2.3:32776->10.1.2.4:3128: read: connection reset by peer`:                                                       reason.ProxyCuts,
		`failed to pull and unpack image "r/x:1": failed to resolve reference "r/x:1": pulling from host r failed with status code [manifests 1]: 403 Forbidden`:                     reason.NetworkRefuses, // containerd's CRI
		`failed to pull and unpack image "r/x:1": failed to resolve reference "r/x:1": r/x:1: not found`:                                                                             reason.ImageUnknown,
		`Error: Get "https://r/v2/": proxyconnect tcp: dial tcp 10.1.2.3:3128: connect: connection refused`:                                                                          reason.ProxyAway,
		`Error response from daemon: login attempt to https://r/v2/ failed with status: 403 Forbidden`:                                                                               reason.NetworkRefuses,
		`Error response from daemon: Get "https://r/v2/": unauthorized: Application not registered with AAD.`:                                                                        reason.SignInRefused,
		`time="…" level=fatal msg="initializing source docker://r/x:1: pinging container registry r: Get \"https://r/v2/\": x509: certificate signed by unknown authority"`:          reason.AuthorityUnknown,
		`Get "https://a.privatelink.cr.cove.internal/v2/": tls: failed to verify certificate: x509: certificate is valid for *.cr.cove.internal, not a.privatelink.cr.cove.internal`: reason.PrivateName,
		`failed to pull and unpack image "r/x:1": failed to resolve reference "r/x:1": r/x:1: not found: manifest unknown`:                                                           reason.ImageUnknown,
		`denied: requested access to the resource is denied`:                                                                                                                         reason.TokenLacks,
		`Error response from daemon: Get "https://r/v2/": http: server gave HTTP response to HTTPS client`:                                                                           reason.NotTLS,
		`Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?`:                                                                          reason.EngineAway,
		`curl: (56) CONNECT tunnel failed, response 403`:                                                                                                                             reason.ProxyRefuses,
		`An error occurred: CONNECTIVITY_DNS_ERROR`:                                                                                                                                  reason.NameUnknown,
	} {
		if m, ok := Symptom(text); !ok || m.Code != want {
			t.Errorf("%s: %s, want %s", text, m.Code, want)
		}
	}
	if m, ok := Symptom("all is well"); ok {
		t.Errorf("%+v", m)
	}
}

func FuzzSymptom(f *testing.F) {
	f.Add("dial tcp: lookup x: no such host")
	f.Fuzz(func(t *testing.T, s string) {
		if m, ok := Symptom(s); ok && m.Code == "" {
			t.Error("a symptom without a code")
		}
	})
}

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://r/oauth2/token",service="r"`)
	f.Fuzz(func(t *testing.T, s string) {
		if c := parseChallenge(s); strings.ToLower(c.scheme) != c.scheme {
			t.Error(c.scheme)
		}
	})
}

func TestHostsThatAreNone(t *testing.T) {
	for _, host := range []string{"", "a b", "a/b", "user@host", "a:b:c"} {
		if _, err := New(Target{Host: host}, Way{Lookup: func(context.Context, string) (Answer, error) { return Answer{}, nil }}); err == nil {
			t.Errorf("%q was taken for a host", host)
		}
	}
}
