package wireguard

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"cove.example/cove/link"
	"cove.example/cove/network"
)

// The situations that the tests share: two companies that both chose 10.0.0.0/16
// and both put their registry at 10.0.0.7.
var (
	space    = netip.MustParsePrefix("10.0.0.0/16")
	registry = netip.MustParseAddr("10.0.0.7")
	second   = netip.MustParseAddr("10.0.0.8")
	laptop   = netip.MustParseAddr("10.0.0.4")
	builder  = netip.MustParseAddr("10.0.0.5")
)

// patience is how long a condition may take on a busy machine before the test
// fails.
const patience = 15 * time.Second

// lab is a Switch with servers in its networks: HTTPS that says how the caller
// came, and DNS that knows registry.cove.test.
type lab struct {
	t       testing.TB
	sw      *Switch
	config  Config
	root    *x509.CertPool
	https   *http.Server
	mu      sync.Mutex
	hung    map[string]chan error // path → how its handler ended
	servers sync.WaitGroup
}

func newLab(t testing.TB, listen string) *lab {
	l := &lab{t: t, hung: map[string]chan error{}}
	cert, root := certificate(t)
	l.root = root
	mux := http.NewServeMux()
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) {
		o := link.From(r.Context())
		fmt.Fprintf(w, "%s %s %s", o.Network, o.Local, o.Remote.Addr())
	})
	mux.HandleFunc("/blob", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(w, blob(n))
	})
	mux.HandleFunc("/zeros", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(w, io.LimitReader(zeros{}, n))
	})
	mux.HandleFunc("/sink", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		fmt.Fprintf(w, "%d %x %v", n, h.Sum(nil), err)
	})
	mux.HandleFunc("/discard", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	mux.HandleFunc("/hang/{name}", l.hang)
	l.https = &http.Server{
		Handler: mux, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			if c, ok := c.(*link.Conn); ok {
				ctx = link.With(ctx, c.Origin)
			}
			return ctx
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}
	l.config = Config{
		Listen: listen,
		HTTPS: func(name string, ln net.Listener) {
			l.servers.Go(func() { _ = l.https.ServeTLS(link.Listener{Listener: ln, Kind: link.Overlay, Network: name}, "", "") })
		},
		DNS: func(name string, udp net.PacketConn, tcp net.Listener) {
			h := dns.HandlerFunc(answerDNS)
			l.servers.Go(func() { _ = (&dns.Server{PacketConn: udp, Handler: h}).ActivateAndServe() })
			l.servers.Go(func() { _ = (&dns.Server{Listener: tcp, Handler: h}).ActivateAndServe() })
		},
	}
	return l
}

// open starts the lab's Switch, and ends it with the test.
func (l *lab) open() *lab {
	l.t.Helper()
	var err error
	if l.sw, err = Open(l.config); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.close)
	return l
}

func (l *lab) close() {
	if err := l.sw.Close(); err != nil {
		l.t.Error(err)
	}
	_ = l.https.Close()
	l.servers.Wait()
}

func openLab(t testing.TB) *lab { return newLab(t, "127.0.0.1:0").open() }

// hang holds a request until its connection ends, and says so.
func (l *lab) hang(w http.ResponseWriter, r *http.Request) {
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	<-r.Context().Done()
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.hung[r.PathValue("name")]; c != nil {
		c <- r.Context().Err()
	}
}

// blob is n bytes that are the same every time and repeat nowhere soon.
func blob(n int64) io.Reader {
	return io.LimitReader(mrand.NewChaCha8([32]byte{1}), n)
}

// zeros is a source that costs nothing.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func blobSum(n int64) string {
	h := sha256.New()
	_, _ = io.Copy(h, blob(n))
	return hex.EncodeToString(h.Sum(nil))
}

func answerDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	add := func(s string) {
		r, err := dns.NewRR(s)
		if err != nil {
			panic(err)
		}
		m.Answer = append(m.Answer, r)
	}
	switch q.Question[0].Name {
	case "registry.cove.test.":
		add("registry.cove.test. 60 IN CNAME registry.privatelink.cove.test.")
		add("registry.privatelink.cove.test. 60 IN A 10.0.0.7")
	case "outside.cove.test.":
		add("outside.cove.test. 60 IN A 127.0.0.1")
	case "large.cove.test.": // does not fit a datagram
		for i := range 100 {
			add(fmt.Sprintf("large.cove.test. 60 IN A 10.0.%d.7", i))
		}
		if w.LocalAddr().Network() == "udp" {
			m.Truncate(512)
		}
	case network.RoutesName:
		add(network.RoutesName + ` 0 IN TXT "10.0.0.0/16"`)
		add(network.RoutesName + ` 0 IN TXT "10.9.0.0/16"`) // which no configuration has
	default:
		m.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(m)
}

func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "cove lab"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"registry.cove.test"},
		IPAddresses: []net.IP{registry.AsSlice(), second.AsSlice(), net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// vnet is a network that a test changes and applies.
type vnet struct {
	network.Wanted
	lab     *lab
	members map[netip.Addr]PrivateKey
}

// network makes a network with the registry's endpoint and members at the given
// addresses.
func (l *lab) network(name string, members ...netip.Addr) *vnet {
	v := &vnet{lab: l, members: map[netip.Addr]PrivateKey{}}
	v.Wanted = network.Wanted{Key: name, PrivateKey: network.PrivateKey(NewPrivateKey()), Prefixes: []netip.Prefix{space}, Addresses: answered(registry, network.Resolver)}
	for _, a := range members {
		v.admit(a)
	}
	v.apply()
	return v
}

// answered are addresses that are answered at.
func answered(all ...netip.Addr) (t network.Table[netip.Addr, bool]) {
	for _, a := range all {
		t = t.With(a, true)
	}
	return t
}

func (v *vnet) admit(a netip.Addr) {
	key := NewPrivateKey()
	v.members[a] = key
	v.Peers = v.Peers.With(a, key.Public())
}

func (v *vnet) apply() {
	v.lab.t.Helper()
	if err := v.lab.sw.Apply(v.Wanted); err != nil {
		v.lab.t.Fatal(err)
	}
}

// config is what the member at a would be given.
func (v *vnet) config(a netip.Addr) MemberConfig {
	return MemberConfig{
		PrivateKey: v.members[a], Address: a, ServerKey: PrivateKey(v.PrivateKey).Public(), Endpoint: v.lab.sw.Addr().String(),
		AllowedIPs: []netip.Prefix{space, netip.PrefixFrom(network.Resolver, 32)}, Resolver: network.Resolver, Keepalive: 25 * time.Second,
	}
}

// join returns a tunnel that the server has answered.
func (v *vnet) join(a netip.Addr) *Tunnel {
	v.lab.t.Helper()
	return dial(v.lab.t, v.config(a))
}

func dial(t testing.TB, c MemberConfig) *Tunnel {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tun, err := Dial(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tun.Close() })
	if err := tun.WaitHandshake(ctx); err != nil {
		t.Fatal(err)
	}
	return tun
}

// client speaks HTTPS through a tunnel, a new connection for each request.
func (l *lab) client(tun *Tunnel) *http.Client {
	tr := &http.Transport{DialContext: tun.DialContext, TLSClientConfig: &tls.Config{RootCAs: l.root}, DisableKeepAlives: true, DisableCompression: true, ReadBufferSize: 64 << 10, WriteBufferSize: 64 << 10}
	l.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 60 * time.Second}
}

func (l *lab) get(tun *Tunnel, url string) string {
	l.t.Helper()
	s, err := get(l.client(tun), url)
	if err != nil {
		l.t.Fatal(err)
	}
	return s
}

func get(c *http.Client, url string) (string, error) {
	res, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// silent fails the test if the address answers a connection within the time
// that an answering one would take many times over.
func silent(t testing.TB, tun *Tunnel, at string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	c, err := tun.DialContext(ctx, "tcp", at)
	if err == nil {
		_ = c.Close()
		t.Fatalf("%s answers", at)
	}
	if ctx.Err() == nil {
		t.Fatalf("%s: want silence, got %v", at, err)
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-end:
			t.Fatalf("not in %s: %s", patience, what)
		case <-tick.C:
		}
	}
}

func stateFolder(t testing.TB) *os.Root {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return root
}

func (v *vnet) status() NetworkStatus {
	for _, s := range v.lab.sw.Status() {
		if s.Network == v.Key {
			return s
		}
	}
	return NetworkStatus{}
}

func sha(b []byte) string { return fmt.Sprintf("%x", sha256.Sum256(b)) }

func sum(t testing.TB, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}
