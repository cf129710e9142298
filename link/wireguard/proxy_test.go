package wireguard

import (
	"bufio"
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// proxied is a proxy into contoso's network, and a server outside it.
type proxied struct {
	lab     *lab
	at      string
	outside string // https URL of a server on this machine
	ca      string
}

func newProxied(t *testing.T, direct bool) *proxied {
	l := openLab(t)
	p := &proxied{lab: l}
	tun := l.network("contoso", laptop).join(laptop)
	p.at = serveProxy(t, &Proxy{Tunnel: tun, Direct: direct})

	out, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = l.https.ServeTLS(out, "", "") }()
	_, port, _ := net.SplitHostPort(out.Addr().String())
	p.outside = port
	p.ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.https.TLSConfig.Certificates[0].Certificate[0]})
	if err := os.WriteFile(p.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// serveProxy runs p on a free loopback port until the test ends.
func serveProxy(t *testing.T, p *Proxy) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := wait(t, "the proxy to end", done); err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// curl runs the real one and returns its output and exit status.
func (p *proxied) curl(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "curl", append([]string{"--silent", "--show-error", "--max-time", "20", "--cacert", p.ca}, args...)...)
	cmd.Env = append(os.Environ(), "NO_PROXY=", "no_proxy=", "HTTPS_PROXY=", "https_proxy=")
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

func TestCurlThroughTheProxy(t *testing.T) {
	p := newProxied(t, false)
	inside := "contoso 10.0.0.7:443 10.0.0.4"
	for _, how := range [][]string{
		{"--proxy", "http://" + p.at},
		{"--socks5-hostname", p.at},
		{"--socks5", p.at, "--resolve", "registry.cove.test:443:10.0.0.7"},
	} {
		if out, code := p.curl(t, append(how, "https://registry.cove.test/whoami")...); out != inside || code != 0 {
			t.Errorf("%s: %q, status %d", how, out, code)
		}
		out, code := p.curl(t, append(how, "--output", "/dev/null", "--write-out", "%{size_download}", "https://registry.cove.test/blob?n=5000000")...)
		if out != "5000000" || code != 0 {
			t.Errorf("%s: %q, status %d", how, out, code)
		}
	}
	// 56 and 97: curl's statuses for a refusal by an HTTP and by a SOCKS proxy.
	for _, c := range []struct {
		how  []string
		url  string
		code int
		want string
	}{
		{[]string{"--proxy", "http://" + p.at}, "https://127.0.0.1:" + p.outside + "/whoami", 56, "403"},
		{[]string{"--proxy", "http://" + p.at}, "https://outside.cove.test:" + p.outside + "/whoami", 56, "403"},
		{[]string{"--proxy", "http://" + p.at}, "https://nobody.cove.test/", 56, "502"},
		{[]string{"--proxy", "http://" + p.at}, "https://10.0.0.7:444/", 56, "502"},
		{[]string{"--socks5-hostname", p.at}, "https://outside.cove.test:" + p.outside + "/whoami", 97, "(2)"},
		{[]string{"--socks5-hostname", p.at}, "https://nobody.cove.test/", 97, "(4)"},
	} {
		out, code := p.curl(t, append(c.how, c.url)...)
		if code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s %s: status %d, want %d with %s: %s", c.how, c.url, code, c.code, c.want, out)
		}
	}
	out, _ := p.curl(t, "--proxy", "http://"+p.at, "--include", "http://10.0.0.7/whoami")
	if !strings.HasPrefix(out, "HTTP/1.1 405") || !strings.Contains(out, "Allow: CONNECT") {
		t.Errorf("a plain request: %q", out)
	}
}

func TestDirectReachesOutside(t *testing.T) {
	p := newProxied(t, true)
	for _, how := range []string{"--proxy", "--socks5-hostname"} {
		if out, code := p.curl(t, how, p.at, "https://127.0.0.1:"+p.outside+"/blob?n=3"); len(out) != 3 || code != 0 {
			t.Errorf("%s outside: %q, status %d", how, out, code)
		}
		if out, code := p.curl(t, how, p.at, "https://registry.cove.test/whoami"); out != "contoso 10.0.0.7:443 10.0.0.4" || code != 0 {
			t.Errorf("%s inside: %q, status %d", how, out, code)
		}
	}
}

// A client may send before it is answered; nothing of that is lost.
func TestProxyKeepsWhatWasSentEarly(t *testing.T) {
	l := openLab(t)
	v := l.network("contoso", laptop, builder)
	far := v.join(builder)
	ln, err := far.stack.listenTCP(netip.MustParseAddrPort("0.0.0.0:7"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	at := serveProxy(t, &Proxy{Tunnel: v.join(laptop)})
	for name, hello := range map[string]string{
		"CONNECT": "CONNECT 10.0.0.5:7 HTTP/1.1\r\nHost: 10.0.0.5:7\r\n\r\n",
		"SOCKS5":  "\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x05\x00\x07",
	} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, hello+"early"); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasSuffix(string(b), "early") {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

func TestProxyRefusesTheNetworkAtLarge(t *testing.T) {
	ln, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	err = (&Proxy{}).Serve(t.Context(), ln)
	if err == nil || !strings.Contains(err.Error(), "loopback") {
		t.Errorf("got %v", err)
	}
	if _, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		t.Error("it listens all the same")
	}
}

// Rubbish is answered or dropped, and never waited for without end.
func TestProxyBadClients(t *testing.T) {
	l := openLab(t)
	at := serveProxy(t, &Proxy{Tunnel: l.network("contoso", laptop).join(laptop)})
	for hello, want := range map[string]string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                         "HTTP/1.1 405",
		"CONNECT 10.0.0.7 HTTP/1.1\r\n\r\n":                         "HTTP/1.1 400",
		"CONNECT 10.0.0.7:0 HTTP/1.1\r\nHost: x\r\n\r\n":            "HTTP/1.1 400",
		"CONNECT 10.0.0.7:x HTTP/1.1\r\nHost: x\r\n\r\n":            "HTTP/1.1 400",
		"\x16\x03\x01\x00\x05hello\r\n\r\n":                         "HTTP/1.1 400",
		"GET / HTTP/1.1\r\nX: " + strings.Repeat("y", proxyRequest): "HTTP/1.1 400",
		"\x05\x01\x02": "\x05\xff",
		"\x05\x01\x00\x05\x02\x00\x01\x0a\x00\x00\x07\x01\xbb":                       "\x05\x00\x05\x07",
		"\x05\x01\x00\x05\x01\x00\x09\x0a\x00\x00\x07\x01\xbb":                       "\x05\x00\x05\x08",
		"\x05\x01\x00\x05\x01\x00\x03\x00\x01\xbb":                                   "\x05\x00\x05\x08",
		"\x05\x01\x00\x05\x01\x00\x03\x0b10.0.0.7]:1\x01\xbb":                        "\x05\x00\x05\x01",
		"\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb":                       "\x05\x00\x05\x02",
		"\x05\x01\x00\x04\x01\x00\x01\x0a\x00\x00\x07\x01\xbb":                       "\x05\x00\x05\x01",
		"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x01\xbb": "\x05\x00\x05\x02",
	} {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, hello); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		if !strings.HasPrefix(string(b), want) {
			t.Errorf("%.60q was answered %.60q, want %q", hello, b, want)
		}
		_ = c.Close()
	}
}

// An answer in HTTP is one that an HTTP client can read.
func TestRefusalIsWellFormed(t *testing.T) {
	l := openLab(t)
	at := serveProxy(t, &Proxy{Tunnel: l.network("contoso", laptop).join(laptop)})
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "CONNECT outside.cove.test:443 HTTP/1.1\r\nHost: outside.cove.test:443\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	want := "cove: outside.cove.test (127.0.0.1) is not in the network; cove join --direct would let the proxy reach it from here\n"
	if res.StatusCode != http.StatusForbidden || string(b) != want || err != nil {
		t.Errorf("%d %q %v", res.StatusCode, b, err)
	}
}
