package outbound_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"cove.example/cove/fault"
	"cove.example/cove/outbound"
)

// canary is a listener that nobody may reach: it counts who does.
func canary(t *testing.T) (at netip.AddrPort, reached *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	reached = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			reached.Add(1)
			c.Close()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String()), reached
}

// inner are addresses that the server must not be sent to.
var inner = []string{
	"127.0.0.1", "127.0.0.53", "127.255.255.254", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1", "192.168.255.255",
	"169.254.169.254", "169.254.0.1", "100.64.0.1", "100.127.255.255", "100.100.100.200", "168.63.129.16",
	"0.0.0.0", "0.0.0.1", "224.0.0.1", "239.255.255.255", "255.255.255.255", "240.0.0.1",
	"192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
}

// spellings are all the ways to write an IPv4 address that a resolver, a C
// library, a browser or an IPv6 transition mechanism knows.
func spellings(text string) []string {
	a := netip.MustParseAddr(text).As4()
	n := uint32(a[0])<<24 | uint32(a[1])<<16 | uint32(a[2])<<8 | uint32(a[3])
	hi, lo := n>>16, n&0xffff
	v6 := func(format string) string { return "[" + fmt.Sprintf(format, hi, lo) + "]" }
	return []string{
		text, text + ".",
		fmt.Sprintf("%d", n), fmt.Sprintf("0x%x", n), fmt.Sprintf("0X%08X", n), fmt.Sprintf("0%o", n),
		fmt.Sprintf("%d.%d", a[0], n&0xffffff), fmt.Sprintf("%d.%d.%d", a[0], a[1], lo),
		fmt.Sprintf("0x%x.0x%x.0x%x.0x%x", a[0], a[1], a[2], a[3]), fmt.Sprintf("0%o.0%o.0%o.0%o", a[0], a[1], a[2], a[3]),
		fmt.Sprintf("%03d.%03d.%03d.%03d", a[0], a[1], a[2], a[3]), fmt.Sprintf("0x%x.%d", a[0], n&0xffffff),
		"[::ffff:" + text + "]", v6("::ffff:%x:%x"), v6("0:0:0:0:0:ffff:%x:%x"), v6("::%x:%x"), "[::" + text + "]",
		v6("64:ff9b::%x:%x"), "[64:ff9b::" + text + "]", v6("64:ff9b:1::%x:%x"), v6("2002:%x:%x::1"), v6("::ffff:0:%x:%x"),
		"[" + fmt.Sprintf("2001:0:4136:e378:8000:63bf:%x:%x", hi^0xffff, lo^0xffff) + "]", // Teredo
		"[" + fmt.Sprintf("fe80::5efe:%x:%x", hi, lo) + "]",                               // ISATAP
		"[::ffff:" + text + "%25eth0]", "[::ffff:" + text + "%lo]",
	}
}

// more are addresses that have no IPv4 inside.
var more = []string{
	"[::]", "[::1]", "[0:0:0:0:0:0:0:1]", "[::1%lo]", "[fe80::1]", "[fe80::1%eth0]", "[fec0::1]", "[fc00::1]", "[fd00:ec2::254]", "[fdff::1]",
	"[ff02::1]", "[ff0e::1]", "[100::1]", "[2001:db8::1]", "[2001::1]", "[2001:10::1]", "[2001:20::1]", "[3fff::1]", "[5f00::1]", "[4000::1]", "[::127.0.0.1]",
	"localhost", "localhost.", "LOCALHOST", "1.localhost.127.0.0.1", "a..b", "-", "..", "%31%32%37.0.0.1", "127。0。0。1", "①②⑦.0.0.1", "127.0.0.1\x00.example.com", "",
}

// The resolver answers every name with the canary's own address, as the C
// library answers 127.1 (docs/published-failures.md, failure 24).
func TestNoSpellingOfAnInnerAddressIsDialled(t *testing.T) {
	at, reached := canary(t)
	d := outbound.New(outbound.Config{Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
		return []netip.Addr{at.Addr()}, nil
	}})
	hosts := more
	for _, a := range inner {
		hosts = append(hosts, spellings(a)...)
	}
	if len(hosts) < 400 {
		t.Fatalf("only %d spellings", len(hosts))
	}
	client := d.Client(outbound.Import)
	said := map[string]bool{}
	for _, h := range hosts {
		for _, port := range []string{"443", fmt.Sprint(at.Port())} {
			c, err := d.Dial(t.Context(), outbound.Import, h+":"+port)
			if err == nil {
				c.Close()
				t.Errorf("%q was dialled", h)
				continue
			}
			kind, public := fault.Of(err)
			said[fmt.Sprint(kind, public)] = true
		}
		// The same by the URL, where net/http reads the host.
		resp, err := client.Get("https://" + h + ":" + fmt.Sprint(at.Port()) + "/")
		if err == nil {
			resp.Body.Close()
			t.Errorf("%q was requested", h)
		}
	}
	if len(said) != 1 {
		t.Errorf("the refusals can be told apart: %v", said)
	}
	if n := reached.Load(); n != 0 {
		t.Errorf("the canary was reached %d times", n)
	}
	t.Logf("%d spellings", len(hosts))
}

func lookup(list ...string) func(context.Context, string) ([]netip.Addr, error) {
	return func(context.Context, string) ([]netip.Addr, error) {
		var out []netip.Addr
		for _, s := range list {
			out = append(out, netip.MustParseAddr(s))
		}
		return out, nil
	}
}

// An answer that mixes a public and an inner address is refused whole
// (docs/published-failures.md, failure 24).
func TestOneInnerAddressSpoilsTheAnswer(t *testing.T) {
	at, reached := canary(t)
	for _, answer := range [][]string{
		{"93.184.216.34", at.Addr().String()},
		{at.Addr().String(), "93.184.216.34"},
		{"2606:4700::1", "::1"},
		{"93.184.216.34", "169.254.169.254"},
		{"::ffff:127.0.0.1"},
		{},
	} {
		d := outbound.New(outbound.Config{Lookup: lookup(answer...)})
		if _, err := d.Dial(t.Context(), outbound.Import, "registry.example.com:443"); !errors.Is(err, outbound.ErrUnreachable) {
			t.Errorf("%v: %v", answer, err)
		}
	}
	if reached.Load() != 0 {
		t.Error("the canary was reached")
	}
}

// The name is asked for once: what is dialled is the address that was checked,
// whatever the name means a moment later (docs/published-failures.md,
// failure 24).
func TestANameThatChangesIsDialledAsItWasChecked(t *testing.T) {
	public := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "public") }))
	defer public.Close()
	at, reached := canary(t)
	var asked atomic.Int64
	own := netip.MustParseAddrPort(public.Listener.Addr().String())
	d := outbound.New(outbound.Config{
		// 127.0.0.2 stands for a public address, 127.0.0.1 for an inner one.
		Allow: allow(t, "import=127.0.0.2/32"), Roots: roots(public),
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			if asked.Add(1) == 1 {
				return []netip.Addr{netip.MustParseAddr("127.0.0.2")}, nil
			}
			return []netip.Addr{at.Addr()}, nil
		},
	})
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.2:%d", own.Port()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go forward(l, own.String())
	resp, err := d.Client(outbound.Import).Get(fmt.Sprintf("https://example.com:%d/", own.Port()))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if asked.Load() != 1 || reached.Load() != 0 {
		t.Errorf("asked %d times, canary reached %d times", asked.Load(), reached.Load())
	}
	// From now on the name is an inner address, and a new connection is refused.
	d.Client(outbound.Import).CloseIdleConnections()
	if _, err := d.Dial(t.Context(), outbound.Import, "example.com:443"); !errors.Is(err, outbound.ErrUnreachable) {
		t.Errorf("after the change: %v", err)
	}
}

func forward(l net.Listener, to string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			up, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer up.Close()
			go io.Copy(up, c)
			io.Copy(c, up)
		}()
	}
}

func allow(t *testing.T, values ...string) outbound.Allow {
	t.Helper()
	a, wrong := outbound.ParseAllow(values)
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	return a
}

func roots(s *httptest.Server) *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return pool
}

func TestWhatTheAllowListOpens(t *testing.T) {
	a := allow(t, "import=10.1.0.0/16", "import=127.0.0.0/8", "import=fd12::/16", "import=169.254.0.0/16", "import=0.0.0.0/0", "import=::/0", "webhook=192.168.0.0/16")
	own := func(to netip.AddrPort) bool { return to == netip.MustParseAddrPort("127.0.0.1:9464") }
	for _, c := range []struct {
		feature outbound.Feature
		to      string
		ok      bool
	}{
		{outbound.Import, "10.1.2.3:443", true},
		{outbound.Import, "10.1.2.3:5000", true},
		{outbound.Import, "[fd12::1]:443", true},
		{outbound.Import, "127.0.0.1:8443", true},
		{outbound.Import, "127.0.0.1:9464", false}, // our own
		{outbound.Import, "169.254.169.254:443", false},
		{outbound.Import, "[fe80::1]:443", false},
		{outbound.Import, "168.63.129.16:443", false},
		{outbound.Import, "[fd00:ec2::254]:443", false},
		{outbound.Import, "[::ffff:10.1.2.3]:443", false},
		{outbound.Import, "0.0.0.0:443", false},
		{outbound.Import, "224.0.0.1:443", false},
		{outbound.Webhook, "10.1.2.3:443", false}, // another feature's
		{outbound.Webhook, "192.168.1.1:8080", true},
		{outbound.Webhook, "93.184.216.34:443", true},
		{outbound.Webhook, "93.184.216.34:80", false},
		{outbound.Webhook, "[2606:4700::1]:443", true},
		{outbound.Webhook, "93.184.216.34:0", false},
	} {
		err := a.Check(c.feature, netip.MustParseAddrPort(c.to), own)
		if (err == nil) != c.ok {
			t.Errorf("%s to %s: %v", c.feature, c.to, err)
		}
	}
}

func TestBadAllowListsAreRefused(t *testing.T) {
	_, wrong := outbound.ParseAllow([]string{"import", "mail=10.0.0.0/8", "import=10.0.0.1/8", "import=10.0.0.0", "import=::ffff:10.0.0.0/104", "=10.0.0.0/8", "import=10.0.0.0/8"})
	if len(wrong) != 6 {
		t.Errorf("%d problems: %v", len(wrong), wrong)
	}
}

// peer is a TLS server that the allow-list opens, and a client that trusts it.
func peer(t *testing.T, h http.Handler) (*httptest.Server, *http.Client) {
	t.Helper()
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	d := outbound.New(outbound.Config{Allow: allow(t, "import=127.0.0.0/8"), Roots: roots(s), Lookup: lookup("127.0.0.1")})
	return s, d.Client(outbound.Import)
}

func TestRedirectsCarryNoCredentialAway(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	var to atomic.Pointer[string]
	s, client := peer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/there" {
			seen.Store(r)
			return
		}
		http.Redirect(w, r, *to.Load(), http.StatusTemporaryRedirect)
	}))
	port := s.Listener.Addr().(*net.TCPAddr).Port
	at := func(host, path string) string { return fmt.Sprintf("https://%s:%d%s", host, port, path) }
	for _, c := range []struct {
		name, method, to string
		reached, keeps   bool
	}{
		{"the same host", "GET", at("example.com", "/there"), true, true},
		{"the same host in capitals", "GET", at("EXAMPLE.com", "/there"), true, false}, // net/http is careful
		{"a subdomain", "GET", at("evil.example.com", "/there"), true, false},
		{"another port's host", "GET", "https://example.com/there", false, false},
		{"another host", "GET", at("127.0.0.1", "/there"), true, false},
		{"another host, with a body", "POST", at("127.0.0.1", "/there"), false, false},
		{"plain http", "GET", fmt.Sprintf("http://example.com:%d/there", port), false, false},
		{"a user in the address", "GET", fmt.Sprintf("https://me:you@example.com:%d/there", port), false, false},
		{"the metadata service", "GET", "https://169.254.169.254/there", false, false},
		{"in a circle", "GET", at("example.com", "/again"), false, false},
		{"another scheme", "GET", "file:///etc/passwd", false, false},
	} {
		seen.Store(nil)
		to.Store(&c.to)
		req, err := http.NewRequestWithContext(t.Context(), c.method, at("example.com", "/here"), strings.NewReader("secret"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer secret")
		req.Header.Set("Cookie", "session=secret")
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		got := seen.Load()
		if (got != nil) != c.reached || (err == nil) != c.reached {
			t.Errorf("%s: reached is %v, error %v", c.name, got != nil, err)
		}
		if got != nil && (got.Header.Get("Authorization") != "") != c.keeps {
			t.Errorf("%s: Authorization %q, Cookie %q", c.name, got.Header.Get("Authorization"), got.Header.Get("Cookie"))
		}
	}
}

func TestAnswersAreBounded(t *testing.T) {
	s, client := peer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/header":
			w.Header().Set("X-Long", strings.Repeat("x", 128<<10))
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "not gzip at all")
		case "/said":
			w.Header().Set("Content-Length", "1000000000")
		default:
			w.(http.Flusher).Flush() // no length
			io.CopyN(w, zeros{}, 3<<20)
		}
	}))
	get := func(ctx context.Context, path string) (int64, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		return io.Copy(io.Discard, resp.Body)
	}
	if n, err := get(t.Context(), "/"); n != 1<<20 || !errors.Is(err, outbound.ErrTooLarge) {
		t.Errorf("without a bound of the caller's: %d bytes, %v", n, err)
	}
	if n, err := get(outbound.Limit(t.Context(), 3<<20), "/"); n != 3<<20 || err != nil {
		t.Errorf("just as much as was allowed: %d bytes, %v", n, err)
	}
	if n, err := get(outbound.Limit(t.Context(), 3<<20-1), "/"); n != 3<<20-1 || !errors.Is(err, outbound.ErrTooLarge) {
		t.Errorf("one too many: %d bytes, %v", n, err)
	}
	if _, err := get(t.Context(), "/said"); !errors.Is(err, outbound.ErrTooLarge) {
		t.Errorf("announced: %v", err)
	}
	if _, err := get(t.Context(), "/header"); err == nil {
		t.Error("a header of 128 KiB was read")
	}
	if n, err := get(t.Context(), "/gzip"); n != 15 || err != nil {
		t.Errorf("what is said to be compressed is left as it is: %d bytes, %v", n, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// A peer whose certificate does not verify, one that speaks no TLS and one
// that is not there: the caller is told the same of each.
func TestFailuresAreNotToldApart(t *testing.T) {
	other := httptest.NewUnstartedServer(http.NotFoundHandler())
	other.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	other.StartTLS()
	defer other.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	const gone = "127.0.0.1:1" // a port that was free a moment ago may be somebody's by now
	d := outbound.New(outbound.Config{Allow: allow(t, "import=127.0.0.0/8"), Roots: x509.NewCertPool(), Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}})
	said := map[string]int{}
	for _, host := range []string{other.Listener.Addr().String(), plain.Listener.Addr().String(), gone, "10.0.0.1:443", "no.such.host:443", "93.184.216.34:81"} {
		_, err := d.Client(outbound.Import).Get("https://" + host + "/")
		kind, public := fault.Of(err)
		said[fmt.Sprint(kind, public)]++
	}
	if len(said) != 1 {
		t.Errorf("%v", said)
	}
}

func FuzzNoHostReachesTheCanary(f *testing.F) {
	for _, a := range inner[:4] {
		for _, s := range spellings(a) {
			f.Add(s)
		}
	}
	d := outbound.New(outbound.Config{Lookup: lookup("127.0.0.1")})
	f.Fuzz(func(t *testing.T, host string) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // an address that is allowed is not dialled either
		if c, err := d.Dial(ctx, outbound.Import, host+":443"); err == nil {
			c.Close()
			t.Errorf("%q was dialled", host)
		} else if !errors.Is(err, outbound.ErrUnreachable) {
			t.Errorf("%q: %v", host, err)
		}
	})
}
