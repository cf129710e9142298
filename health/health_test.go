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
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"cove.example/cove/fault"
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
	mu       sync.Mutex
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
	l.put(name, rr)
}

// put gives a name these records; none is that it does not exist.
func (l *lab) put(name string, records ...dns.RR) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.records[name] = records
}

func (l *lab) serveDNS() string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		l.t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		l.mu.Lock()
		defer l.mu.Unlock()
		m := new(dns.Msg)
		m.SetReply(q)
		name := strings.TrimSuffix(q.Question[0].Name, ".")
		m.Answer = l.records[name]
		if m.Answer == nil {
			m.Rcode = dns.RcodeNameError
		} else if t := m.Answer[0].Header().Rrtype; t != dns.TypeCNAME && t != q.Question[0].Qtype {
			m.Answer = nil
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

// region is one more data endpoint. Its name is behind the first's in the order
// of results.
func (l *lab) region(serve http.HandlerFunc) string {
	s := httptest.NewUnstartedServer(serve)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	l.t.Cleanup(s.Close)
	l.point("zz.example.com", here.String())
	return "zz.example.com:" + port(s)
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
		if len(report.Results) != len(Layers)-2 { // no engine was looked for, and no control plane asked
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
	const closed = "1" // a port that was free a moment ago may be somebody's by now
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
		"the name does not exist": {func(t *testing.T, l *lab) { l.put(registryName) }, LayerName, reason.NameUnknown, LayerBlob},
		"a linked zone has no record": {func(t *testing.T, l *lab) {
			rr, _ := dns.NewRR(registryName + ". 1 IN CNAME a.privatelink.example.com.")
			l.put(registryName, rr)
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
		"nothing listens":     {func(t *testing.T, l *lab) { l.c.Target.Host = registryName + ":" + closed }, LayerConnect, reason.PathRefused, LayerSignIn},
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
		"the proxy is away": {func(t *testing.T, l *lab) { viaProxy(l, "127.0.0.1:"+closed) }, LayerConnect, reason.ProxyAway, LayerTLS},
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
		"a token for nothing": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/token" {
					return false
				}
				json.NewEncoder(w).Encode(map[string]string{"token": jwt(map[string]any{"exp": time.Now().Add(time.Hour).Unix(), "access": []any{}})})
				return true
			}
		}, LayerPermission, reason.TokenLacks, ""},
		"no such image": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				problem(w, 404, "MANIFEST_UNKNOWN", "manifest unknown", nil)
				return true
			}
		}, LayerManifest, reason.ImageUnknown, LayerBlob},
		"the image is for another platform": {func(t *testing.T, l *lab) {
			l.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q,"size":1,"platform":{"os":"plan9","architecture":"mips"}}]}`, digest(l.manifest))
		}, LayerManifest, reason.PlatformAbsent, LayerBlob},
		"the image alone is for another platform": {func(t *testing.T, l *lab) {
			config := []byte(`{"os":"plan9","architecture":"mips"}`)
			l.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"digest":%q,"size":7}]}`, digest(config), len(config), digest(l.layer))
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, digest(config)) {
					return false
				}
				w.Write(config)
				return true
			}
		}, LayerBlob, reason.PlatformAbsent, ""},
		"a layer besides the smallest is gone": {func(t *testing.T, l *lab) {
			more := digest([]byte("more"))
			l.manifest = fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%[1]q,"size":7},"layers":[{"digest":%[1]q,"size":7},{"digest":%[2]q,"size":9}]}`, digest(l.layer), more)
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, more) {
					return false
				}
				problem(w, 404, "BLOB_UNKNOWN", "blob unknown", nil)
				return true
			}
		}, LayerBlob, reason.LayerGone, ""},
		"the smallest layer is gone": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/blobs/") {
					return false
				}
				problem(w, 404, "BLOB_UNKNOWN", "blob unknown to registry", nil)
				return true
			}
		}, LayerBlob, reason.LayerGone, ""},
		"the image is locked": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				problem(w, 405, "REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed on this registry, repository or image.", nil)
				return true
			}
		}, LayerManifest, reason.LockForbids, LayerBlob},
		"the server's database is away": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				problem(w, 503, "UNKNOWN", "the database cannot be reached", nil)
				return true
			}
		}, LayerManifest, reason.DatabaseAway, LayerBlob},
		"TLS gets no answer": {func(t *testing.T, l *lab) {
			quiet := make(chan struct{})
			t.Cleanup(func() { close(quiet) })
			_, p, _ := net.SplitHostPort(listen(t, func(c net.Conn) { <-quiet }).Addr().String())
			l.c.Target.Host = registryName + ":" + p
		}, LayerTLS, reason.PathStalls, LayerChallenge},
		"a page that says 200": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", "text/html")
				io.WriteString(w, "<html>Sign in to the airport</html>")
				return true
			}
		}, LayerChallenge, reason.ProxyAnswers, LayerManifest},
		"a page for every path but the first": {func(t *testing.T, l *lab) {
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.Contains(r.URL.Path, "/manifests/") {
					return false
				}
				io.WriteString(w, `{"welcome":"to the airport"}`)
				return true
			}
		}, LayerManifest, reason.ProxyAnswers, LayerBlob},
		"a token that the registry does not take": {func(t *testing.T, l *lab) {
			l.c.Target.Repository, l.c.Target.Reference = "", ""
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" || r.Header.Get("Authorization") == "" {
					return false
				}
				problem(w, 401, "UNAUTHORIZED", "authentication required", nil)
				return true
			}
		}, LayerSignIn, reason.SignInRefused, ""},
		"a wrong password where nothing else is asked": {func(t *testing.T, l *lab) {
			l.c.Target.Repository, l.c.Target.Reference = "", ""
			l.answer = func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Www-Authenticate", `Basic realm="r"`)
				problem(w, 401, "UNAUTHORIZED", "authentication required", nil)
				return true
			}
		}, LayerSignIn, reason.SignInRefused, ""},
		"there ought to be a credential": {func(t *testing.T, l *lab) {
			l.c.Target.Credential = Credential{Missing: fault.Newf(fault.Unauthenticated, "the secret has expired")}
		}, LayerSignIn, reason.SignInRefused, LayerManifest},
		"a clock that is years behind": {func(t *testing.T, l *lab) {
			l.c.Way.Now = func() time.Time { return l.registry.Certificate().NotBefore.Add(-24 * time.Hour) }
		}, LayerClock, reason.ClockWrong, LayerSignIn},
		"another region has other bytes": {func(t *testing.T, l *lab) {
			l.redirect = true
			l.c.Target.DataHosts = []string{dataName + ":" + port(l.data), l.region(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "stale") })}
		}, LayerBlob, reason.BytesWrong, ""},
		"another region refuses": {func(t *testing.T, l *lab) {
			l.redirect = true
			l.c.Target.DataHosts = []string{dataName + ":" + port(l.data), l.region(func(w http.ResponseWriter, _ *http.Request) {
				problem(w, 403, "DENIED", "client with IP '1.2.3.4' is not allowed access.", nil)
			})}
		}, LayerBlob, reason.NetworkRefuses, ""},
		"other bytes": {func(t *testing.T, l *lab) { l.layer = []byte("another") }, LayerBlob, reason.BytesWrong, ""},
		"the data endpoint is closed": {func(t *testing.T, l *lab) {
			l.redirect = true
			l.data.Close()
		}, LayerBlob, reason.DataBlocked, ""},
		"the nearest data endpoint is closed, and the others are tried all the same": {func(t *testing.T, l *lab) {
			l.redirect = true
			l.c.Target.DataHosts = []string{dataName + ":" + port(l.data), l.region(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "stale") })}
			l.data.Close()
		}, LayerBlob, reason.BytesWrong, ""},
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
				if strings.Contains(fmt.Sprint(r), "pa55-w0rd") || strings.Contains(fmt.Sprint(r), "wr0ng-w0rd") {
					t.Errorf("%s tells the password: %+v", layer, r)
				}
			}
		})
	}
}

// What programs of this machine are told depends on which resolver answers
// first: one that is silent costs time, one that lies is found out, and a name
// that is of IPv6 alone has an address.
func TestSeveralResolvers(t *testing.T) {
	l, liar := newLab(t), newLab(t)
	l.point(registryName, "10.0.0.7")
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	six, err := dns.NewRR("six.example.com. 1 IN AAAA ::1")
	if err != nil {
		t.Fatal(err)
	}
	l.put("six.example.com", six)
	look := func(host string, servers ...string) (string, Result) {
		t.Helper()
		a, err := Resolvers(servers, (&net.Dialer{}).DialContext, nil)(t.Context(), host)
		if err != nil {
			return err.Error(), Result{}
		}
		return a.words(), judgeName(host, a, nil)
	}
	none := silent.LocalAddr().String()
	for _, x := range []struct {
		what, host string
		servers    []string
		said       string
		code       reason.Code
	}{
		{"one", registryName, []string{l.resolver}, "10.0.0.7", ""},
		{"the first is silent", registryName, []string{none, l.resolver}, "10.0.0.7", reason.ResolversSplit},
		{"the second is silent", registryName, []string{l.resolver, none}, "10.0.0.7", ""},
		{"all are", registryName, []string{none}, none + ": no answer", ""},
		{"the second says another address", registryName, []string{l.resolver, liar.resolver}, "10.0.0.7", reason.ResolversSplit},
		{"the second does not know it", "six.example.com", []string{l.resolver, liar.resolver}, "::1", reason.ResolversSplit},
		{"IPv6 alone", "six.example.com", []string{l.resolver}, "::1", ""},
		{"none", "seven.example.com", []string{l.resolver, liar.resolver}, "that it does not exist", reason.NameUnknown},
	} {
		said, r := look(x.host, x.servers...)
		if said != x.said || r.Code != x.code {
			t.Errorf("%s: %s %+v", x.what, said, r)
		}
		if x.code == reason.ResolversSplit && (len(r.Evidence) != 1 || !strings.HasPrefix(r.Evidence[0], liar.resolver+" says ") && r.Evidence[0] != none+": no answer") {
			t.Errorf("%s: %+v", x.what, r)
		}
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

// Some registries have their tokens, or their manifests, at another host: that
// is followed where the caller has said so, and where nothing secret goes.
func TestARegistryOfSeveralHosts(t *testing.T) {
	l := newLab(t)
	tokens := l.region(l.serve)
	l.answer = func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Host == tokens:
			return false
		case strings.Contains(r.URL.Path, "/manifests/"):
			w.Header().Set("Location", "https://"+dataName+":"+port(l.data)+"/m")
			w.WriteHeader(http.StatusTemporaryRedirect)
		case r.Header.Get("Authorization") == "":
			w.Header().Set("Www-Authenticate", `Bearer realm="https://`+tokens+`/token",service="x"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			return false
		}
		return true
	}
	l.layer = l.manifest // what the data host has
	if r := l.run()[LayerSignIn]; r.Code != reason.RealmElsewhere || !strings.Contains(r.Fix, "--token-host "+tokens) {
		t.Errorf("nobody has named the host: %+v", r)
	}
	l.c.Target.TokenHost = tokens
	got := l.run()
	if got[LayerSignIn].Outcome != Passed || got[LayerManifest].Outcome != Passed {
		t.Errorf("%+v", got)
	}
	if l.leaked.Load() {
		t.Error("the registry's token was sent on with the redirect")
	}
}

// What a server says of itself is printed, and some of it within commands.
func TestAServerThatHasThoughtOfCopying(t *testing.T) {
	for id, fix := range map[string]string{
		"11111111-2222-3333-4444-555555555555":            "cove explain 11111111-2222-3333-4444-555555555555",
		"11111111-2222-3333-4444-555555555555; rm -rf ~/": "",
		"$(reboot)": "",
	} {
		l := newLab(t)
		l.c.Target.Explained = true
		l.answer = func(w http.ResponseWriter, r *http.Request) bool {
			w.Header().Set("X-Ms-Correlation-Request-Id", id)
			w.WriteHeader(http.StatusForbidden)
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"no","detail":{"reason":"COVE-NET-003"}}]}`)
			return true
		}
		if r := l.run()[LayerChallenge]; r.Fix != fix || r.Code != "COVE-NET-003" {
			t.Errorf("%q: %+v", id, r)
		}
	}
}

// Who could not sign in because nobody was there to sign in to was not refused.
func TestACredentialThatCouldNotBeHad(t *testing.T) {
	l := newLab(t)
	l.c.Target.Credential = Credential{Missing: fault.Newf(fault.Unavailable, "login.example.com cannot be reached")}
	got := l.run()
	if r := got[LayerSignIn]; r.Outcome != Unknown || r.Code != "" || !strings.Contains(r.Said, "cannot be reached") || got[LayerManifest].Outcome != NotReached {
		t.Errorf("%+v", got)
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
		`error pushing image: PUT https://r/v2/x/blobs/uploads/1: unexpected status code 413 Request Entity Too Large: <html>`:                                                       reason.ProxyLimits,
		`error getting credentials - err: exit status 1, out: ` + "`the keyring is locked`":                                                                                          reason.HelperBroken,
		`curl: (56) CONNECT tunnel failed, response 403`:                                                                                                                             reason.ProxyRefuses,
		// A resolver that says nothing, one that fails, and one that knows.
		`dial tcp: lookup r.cr.cove.internal on 10.0.0.10:53: read udp 10.1.0.4:4342->10.0.0.10:53: i/o timeout`:             reason.ResolverSilent,
		`Get "https://r/v2/": dial tcp: lookup r on 10.0.0.9:53: read udp 10.1.0.4:5->10.0.0.9:53: read: connection refused`: reason.ResolverSilent,
		`Failed to establish a new connection: [Errno -3] Temporary failure in name resolution`:                              reason.ResolverSilent,
		`Get "https://r/v2/": dial tcp: lookup r.cr.cove.internal on 127.0.0.53:53: server misbehaving`:                      reason.ResolverFails,
		`error pulling image configuration: dial tcp: lookup r.local.data.cr.cove.internal on 10.0.0.9:53: no such host`:     reason.NameUnknown,
		// What begins well and then goes no further, at the login server and at
		// the data endpoint.
		`Error response from daemon: Get "https://r/v2/": net/http: TLS handshake timeout`:                                   reason.PathStalls,
		`failed to do request: Get "https://r.eastus.data.azurecr.io/xx": dial tcp 20.1.1.1:443: i/o timeout`:                reason.DataBlocked,
		`Get "https://r.local.data.cr.cove.internal/x?link=REDACTED": dial tcp 198.18.241.99:443: connect: no route to host`: reason.DataBlocked,
		// Who was never asked who they are.
		`failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized`: reason.NoCredential,
		`Get "https://r/v2/x/manifests/1": no basic auth credentials`:                               reason.NoCredential,
		// The image is another machine's, or this machine is full.
		`no matching manifest for linux/arm64/v8 in the manifest list entries`:                                      reason.PlatformAbsent,
		`failed to pull and unpack image "r/x:1": no match for platform in manifest sha256:1111: not found`:         reason.PlatformAbsent,
		`choosing image instance: no image found in manifest list for architecture "amd64", variant "", OS "linux"`: reason.PlatformAbsent,
		`exec /bin/sh: exec format error`:                                                                                  reason.PlatformAbsent,
		`failed to register layer: write /usr/lib/x: no space left on device`:                                              reason.EngineFull,
		`failed commit on ref "layer-sha256:1": unexpected commit digest sha256:2, expected sha256:1: failed precondition`: reason.BytesWrong,
		`Back-off pulling image "r/app:1"`:                                                                                 reason.WaitsToRetry,
		`permission denied while trying to connect to the Docker daemon socket at unix:///var/run/docker.sock`:             reason.EngineAway,
		`docker: invalid reference format: repository name (Library/x) must be lowercase`:                                  reason.NameInvalid,
		// What the server says of itself.
		`PUSH: POST https://r/v2/x/blobs/uploads/: UNKNOWN: the disk is full; free some space and try again`: reason.ServerFull,
		`GET https://r/v2/x/manifests/1: UNKNOWN: the database cannot be reached`:                            reason.DatabaseAway,
		`unexpected status from HEAD request to https://r/v2/x/manifests/1: 421 Misdirected Request`:         reason.NotServedName,
		// The issuer and the Resource Manager, whose ids are no decision's.
		`AADSTS7000215: Invalid client id or client secret provided. Trace ID: 25f86f7c-1c88-4792-a2c4-661ef5f72abf`:                       reason.WrongCredential,
		`AADSTS7000222: The provided client secret keys are expired.`:                                                                      reason.SecretExpired,
		`AADSTS700016: Application with identifier 'x' was not found in the directory`:                                                     reason.NotRegistered,
		`(AuthorizationFailed) The client 'x' does not have authorization to perform action 'Microsoft.ContainerRegistry/registries/read'`: reason.ManagerRefuses,
		`The resource with name 'r' and type 'x' could not be found in subscription 'cove (37167e1a-eeaf-4294-9401-8135c5632695)'.`:        reason.ManagerHasNone,
		`CONNECTIVITY_REFRESH_TOKEN_ERROR Access to registry 'r' was denied. Response code: 403. Please try running 'az login' again`:      reason.NetworkRefuses,
		// A machine that asks for its own identity.
		`ERROR: Failed to connect to MSI. Error detail: HTTPConnectionPool(host='169.254.169.254', port=80): Max retries exceeded (Caused by ConnectTimeoutError('Connection to 169.254.169.254 timed out.'))`: reason.MetadataAway,
		"ERROR: Failed to connect to MSI. Please make sure MSI is configured correctly.\nGet Token request returned http error: 400, reason: Bad Request":                                                      reason.MachineNobody,
		`{"error":"invalid_request","error_description":"Identity not found"}`:                                                                                                                                 reason.MachineNobody,
		// Digits within an id are no status.
		`manifest sha256:a429b401c500d is not found`: reason.ImageUnknown,
		`An error occurred: CONNECTIVITY_DNS_ERROR`:  reason.NameUnknown,
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

// What programs get is what a pull gets: a hosts file that leads to the private
// endpoint is right whatever the resolver says, one that leads elsewhere is
// wrong, and its line is named.
func TestTheHostsFile(t *testing.T) {
	private, public, stale := netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("203.0.113.7"), netip.MustParseAddr("10.0.0.9")
	line := "/etc/hosts, line 3: 10.0.0.9 r.example.com"
	for what, x := range map[string]struct {
		system  netip.Addr
		says    []netip.Addr // the resolver
		holds   []netip.Addr
		outcome Outcome
		fix     string
	}{
		"only the hosts file has it":                      {private, nil, nil, Warned, ""},
		"the hosts file is right":                         {private, []netip.Addr{public}, []netip.Addr{private}, Warned, ""},
		"the hosts file is right, the resolver has none":  {private, nil, []netip.Addr{private}, Warned, ""},
		"the hosts file is stale, the resolver is right":  {stale, []netip.Addr{private}, []netip.Addr{private}, Failed, "take the name out of " + line},
		"the hosts file is stale, the resolver has none":  {stale, nil, []netip.Addr{private}, Failed, "take the name out of " + line},
		"both are wrong":                                  {stale, []netip.Addr{public}, []netip.Addr{private}, Failed, "take the name out of " + line},
		"the two differ, and nothing says which is right": {stale, []netip.Addr{private}, nil, Failed, "take the name out of " + line},
	} {
		r := judgeName("r.example.com", Answer{Addrs: x.says, Absent: x.says == nil, System: []netip.Addr{x.system}, Hosts: []string{line}}, x.holds)
		if r.Code != reason.ResolversDiffer || r.Outcome != x.outcome || r.Fix != x.fix || len(r.Evidence) == 0 || r.Evidence[0] != line {
			t.Errorf("%s: %+v", what, r)
		}
	}
	file := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(file, []byte("127.0.0.1 localhost\n# 10.0.0.1 r.example.com\n10.0.0.9\tother R.Example.com # by hand\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := HostsLines(file, "r.example.com"); len(got) != 1 || got[0] != file+", line 3: 10.0.0.9 other R.Example.com" {
		t.Errorf("%q", got)
	}
}
