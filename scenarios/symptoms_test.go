package scenarios

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cove.example/cove/covetest"
	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// do runs f on a thread inside the host's network: a socket that f opens stays
// there. The thread goes home afterwards and lives on: programs that it has
// started end with it.
func (h host) do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			home, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				return err
			}
			defer home.Close()
			there, err := os.Open("/run/netns/" + h.name)
			if err != nil {
				return err
			}
			defer there.Close()
			if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			err = f()
			if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
				panic(back) // nothing may run on a thread that is elsewhere
			}
			runtime.UnlockOSThread()
			return err
		}()
	}()
	return <-done
}

// listen opens a listener on the host, at an address that the host need not
// have yet; the test's end closes it.
func (h host) listen(t *testing.T, address string) net.Listener {
	t.Helper()
	early := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1) }); e != nil {
			return e
		}
		return err
	}}
	var l net.Listener
	if err := h.do(func() (err error) {
		l, err = early.Listen(context.Background(), "tcp", address)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// dial connects from the host to an address.
func (h host) dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := h.do(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// inspector is a device in a host's way to a private endpoint that reads TLS:
// it has certificates of its own authority for every name. What it lets pass
// goes on through a tunnel of its own.
type inspector struct {
	t         *testing.T
	l         *lab
	at        host
	address   string
	authority string // PEM
	answer    atomic.Pointer[func(path string) int]
}

// newInspector makes one for what the host sends to a private endpoint's
// address in a network. It is not in the way yet.
func newInspector(t *testing.T, l *lab, at host, network, address string) *inspector {
	t.Helper()
	i := &inspector{t: t, l: l, at: at, address: address}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Example Inspection"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	i.authority = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	leaf := func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{hello.ServerName},
			NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}, ca, key.Public(), key)
		return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
	}
	onward := &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "https", r.In.Host },
		Transport: l.Through(t, enter(t, l.Server, network, "inspector").proxy).Transport,
	}
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if f := i.answer.Load(); f != nil {
				if status := (*f)(r.URL.Path); status != 0 {
					w.WriteHeader(status)
					io.WriteString(w, "<html>This site is not allowed by your organization.</html>")
					return
				}
			}
			onward.ServeHTTP(w, r)
		}),
		TLSConfig: &tls.Config{GetCertificate: leaf},
		ErrorLog:  log.New(io.Discard, "", 0), // a client that does not trust it is no news
	}
	go server.ServeTLS(at.listen(t, address+":443"), "", "")
	t.Cleanup(func() { server.Close() })
	return i
}

// begin puts the device in the way: on the host the address is its own from
// now on. A path for which answer returns a status gets it, and a page.
func (i *inspector) begin(answer func(path string) int) {
	i.t.Helper()
	i.answer.Store(nil)
	if answer != nil {
		i.answer.Store(&answer)
	}
	i.l.on(i.t, i.at, "ip", "addr", "add", i.address+"/32", "dev", "lo")
}

// end takes it out of the way.
func (i *inspector) end() {
	i.t.Helper()
	i.l.on(i.t, i.at, "ip", "addr", "del", i.address+"/32", "dev", "lo")
}

// curt stands before a proxy on a host and hangs up on what begins like TLS, as
// proxies do that speak HTTP and nothing else.
func curt(t *testing.T, at host, proxy string) string {
	l := at.listen(t, "127.0.0.1:0")
	serve := func(c net.Conn) {
		defer c.Close()
		// All of it is read: what is left unread would make the end a reset.
		first := make([]byte, 4096)
		n, err := c.Read(first)
		if err != nil || first[0] == 0x16 {
			return
		}
		up, err := at.dial(context.Background(), "tcp", proxy)
		if err != nil {
			return
		}
		defer up.Close()
		up.Write(first[:n])
		go io.Copy(up, c)
		io.Copy(c, up)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().String()
}

// swallower is a device in a host's way to everything at port 443, which loses
// all that servers say once TLS stands: a client that has asked for something
// hears nothing more, and nothing ends. Such are links that lose large packets
// and firewalls that have forgotten a connection.
func swallower(t *testing.T, at host) (begin, end func()) {
	t.Helper()
	l := at.listen(t, "127.0.0.1:0")
	var server atomic.Pointer[string]
	serve := func(c net.Conn) {
		defer c.Close()
		up, err := net.Dial("tcp", *server.Load())
		if err != nil {
			return
		}
		defer up.Close()
		var asked atomic.Bool
		go func() {
			buf := make([]byte, 32<<10)
			for {
				n, err := up.Read(buf)
				if err != nil {
					return // the client's end stays open
				}
				if !asked.Load() {
					c.Write(buf[:n])
				}
			}
		}()
		head := make([]byte, 5)
		for {
			if _, err := io.ReadFull(c, head); err != nil {
				return
			}
			body := make([]byte, int(head[3])<<8|int(head[4]))
			if _, err := io.ReadFull(c, body); err != nil {
				return
			}
			// RFC 8446, section 5: application data, or what ends the handshake
			// and is encrypted like it. By then the client has heard all that it
			// needs to.
			if head[0] == 23 {
				asked.Store(true)
			}
			up.Write(append(head[:5:5], body...))
		}
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort(at.gateway, "443")
	server.Store(&address)
	return func() {
			must(t, "ip", "netns", "exec", at.name, "nft", "add table ip hush; add chain ip hush out { type nat hook output priority -100; }; add rule ip hush out tcp dport 443 redirect to :"+port)
		}, func() {
			must(t, "ip", "netns", "exec", at.name, "nft", "delete table ip hush")
		}
}

// mute puts something in the way of the host outside that takes connections to
// port 443 and says nothing, until end.
func (l *lab) mute(t *testing.T) (end func()) {
	t.Helper()
	at := l.outside.listen(t, "127.0.0.1:0")
	go func() {
		for {
			c, err := at.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { c.Close() })
		}
	}()
	_, port, err := net.SplitHostPort(at.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	must(t, "ip", "netns", "exec", l.outside.name, "nft", "add table ip mute; add chain ip mute out { type nat hook output priority -100; }; add rule ip mute out tcp dport 443 redirect to :"+port)
	return func() { must(t, "ip", "netns", "exec", l.outside.name, "nft", "delete table ip mute") }
}

// What docker's engine says when the network between it and a registry is
// broken in each of the ways that the troubleshooting articles name, and what
// cove makes of it: of the error's text alone, and by its own check from the
// same place. A proxy is the engine's matter: its client's settings change
// nothing, and its own only after a restart. row:19 row:88 row:89 row:90 row:82
func TestRootSymptoms(t *testing.T) {
	l := newLab(t)
	const name = "harbor"
	registry := name + ".cr." + l.domain
	l.Cove(t, "registry", "create", name, "--default-action", "Deny", "--admin-enabled")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", name, "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	l.Cove(t, "trust", "--docker", registry)
	t.Cleanup(func() { l.Cove(t, "trust", "--docker", "--remove", registry) })
	// Members of the network may pull; this host is none, and has a proxy that is.
	const proxy = "127.0.0.1:8118"
	l.background(t, l.outside, "proxy at "+proxy, nil, covetest.Binary(t), "join", l.Cove(t, "join-code", "office/default", "--name", "proxy"), "--userspace", "--proxy", proxy)
	socket := "DOCKER_HOST=unix://" + filepath.Join(l.dir, "dockerd-"+l.outside.name, "docker.sock")
	login := []string{"login", registry, "-u", name, "-p", l.Password(t, name)}
	overwrite(t, filepath.Join(l.dir, "password"), l.Password(t, name))

	// check is cove's own, with variables as a shell beside the engine has them.
	check := func(t *testing.T, env ...string) map[string]health.Result {
		t.Helper()
		f := faulty{lab: l, t: t}
		return f.checkupAs(l.outside, append(env, socket), registry, "--username", name, "--password-file", filepath.Join(l.dir, "password"))
	}
	says := func(t *testing.T, argv []string, want ...string) string {
		t.Helper()
		out, err := l.try(t, l.outside, argv...)
		if err == nil || !slices.ContainsFunc(want, func(w string) bool { return strings.Contains(out, w) }) {
			t.Errorf("%v: %v, not one of %q\n%s", argv[len(argv)-1], err, want, out)
		}
		return out
	}
	means := func(t *testing.T, text string, code reason.Code) {
		t.Helper()
		if out := l.Cove(t, "explain", text); !strings.Contains(out, string(code)) {
			t.Errorf("cove explain, not %s:\n%s", code, out)
		}
	}

	t.Run("no proxy", func(t *testing.T) {
		docker := l.docker(t, l.outside)
		out, err := l.try(t, l.outside, docker(login...)...)
		if err == nil || !strings.Contains(out, "failed with status: 403 Forbidden") {
			t.Errorf("without a proxy: %v\n%s", err, out)
		}
		means(t, out, reason.NetworkRefuses)
		// The words hold no id; the registry's record has it.
		l.explained(t, l.Cove(t, "logs", "--registry", name, "--refused", "-o", "tsv", "--query", "[?CallerIpAddress=='"+l.outside.address+"'] | [-1].CorrelationId"), "COVE-NET-003")

		// The client's proxy is not the engine's, which makes the connections.
		says(t, append([]string{"env", "HTTPS_PROXY=http://" + proxy}, docker(login...)...), "failed with status: 403 Forbidden")
		found := check(t, "HTTPS_PROXY=http://"+proxy)
		if r := found["engine docker's proxy"]; r.Code != reason.EngineProxy || r.Outcome != health.Warned {
			t.Errorf("the check does not see that the engine has no proxy: %+v", r)
		}
		if r := found["engine docker"]; r.Outcome != health.Passed || !strings.HasPrefix(r.Said, "docker ") {
			t.Errorf("%+v", r)
		}

		means(t, says(t, docker("pull", "harbour.cr."+l.domain+"/team/app:1"), "dial tcp: lookup harbour.cr."+l.domain), reason.NameUnknown)

		// Every packet of the handshakes arrives, and no answer: the engine waits
		// for its headers until its limit, each time.
		begin, end := swallower(t, l.outside)
		begin()
		// Go's HTTP client sets its own timer and its context's deadline to one
		// moment; where the deadline is first, it says less, and means the same.
		said := says(t, docker(login...), "Client.Timeout exceeded while awaiting headers", "context deadline exceeded")
		means(t, said, reason.PathSilent)
		found = check(t)
		if r := found[health.LayerTLS]; r.Outcome != health.Passed {
			t.Errorf("%+v", r)
		}
		if r := found[health.LayerChallenge]; r.Code != reason.PathStalls || r.Millis > 12_000 {
			t.Errorf("%+v", r)
		}
		end()

		// Packets of full size are lost, and nobody says so: the check finds those
		// that get through, and the command that it prints is all that is needed.
		l.on(t, l.outside, "nft", "add table inet narrow; add chain inet narrow in { type filter hook prerouting priority 0; }; add rule inet narrow in ip saddr "+l.outside.gateway+" meta length gt 1000 drop")
		r := check(t)[health.LayerTLS]
		if r.Code != reason.PathStalls || r.Fix != "ip link set dev eth0 mtu 576" || r.Millis > 6000 {
			t.Errorf("%+v", r)
		}
		l.on(t, l.outside, "sh", "-c", r.Fix)
		if r := check(t)[health.LayerTLS]; r.Outcome != health.Passed {
			t.Errorf("mended by %q: %+v", r.Fix, r)
		}
		l.on(t, l.outside, "ip", "link", "set", "dev", "eth0", "mtu", "1500")
		l.on(t, l.outside, "nft", "delete table inet narrow")
		// A server that says nothing at all is not taken for such a link.
		end = l.mute(t)
		if r := check(t)[health.LayerTLS]; r.Code != reason.PathStalls || r.Fix != "" {
			t.Errorf("%+v", r)
		}
		end()

		// Where no packet arrives the engine's one limit of 15 seconds ends the
		// dialling, the request and the client at once, and which of them it
		// names is chance; the check says where it is.
		l.on(t, l.outside, "nft", "add table inet fault; add chain inet fault out { type filter hook output priority 0; }; add rule inet fault out tcp dport 443 drop")
		defer l.on(t, l.outside, "nft", "delete table inet fault")
		means(t, "dial tcp "+l.outside.gateway+":443: i/o timeout", reason.PathSilent)
		if r := check(t)[health.LayerConnect]; r.Code != reason.PathSilent || r.Millis > 12_000 {
			t.Errorf("%+v", r)
		}
	})

	t.Run("no engine", func(t *testing.T) {
		if r := check(t)["engine docker"]; r.Code != reason.EngineAway {
			t.Errorf("%+v", r)
		}
		// No docker that is too old can be had any more: its first line is all
		// that the check reads of it.
		old := filepath.Join(l.dir, "old")
		if err := os.Mkdir(old, 0o755); err != nil {
			t.Fatal(err)
		}
		overwrite(t, filepath.Join(old, "docker"), "#!/bin/sh\necho 17.12.1-ce 17.12.1-ce\n")
		if err := os.Chmod(filepath.Join(old, "docker"), 0o755); err != nil {
			t.Fatal(err)
		}
		if r := check(t, "PATH="+old+":/usr/bin:/bin")["engine docker"]; r.Code != reason.ClientOld || !strings.Contains(r.Said, "18.03") {
			t.Errorf("%+v", r)
		}
	})

	for _, x := range []struct {
		name, proxy, want string
		code              reason.Code
	}{
		{"a proxy with the wrong scheme, which hangs up", "https://" + curt(t, l.outside, proxy), "proxyconnect tcp: EOF", reason.ProxyCuts},
		{"a proxy with the wrong scheme, which answers", "https://" + proxy, "proxyconnect tcp: tls: first record", reason.ProxyCuts},
		{"a proxy that is not there", "http://127.0.0.1:9", "proxyconnect tcp: dial tcp", reason.ProxyAway},
	} {
		t.Run(x.name, func(t *testing.T) {
			docker := l.docker(t, l.outside, "HTTPS_PROXY="+x.proxy)
			means(t, says(t, docker(login...), x.want), x.code)
			if r := check(t, "HTTPS_PROXY="+x.proxy)[health.LayerConnect]; r.Code != x.code {
				t.Errorf("%+v", r)
			}
		})
	}

	t.Run("the engine has the proxy", func(t *testing.T) {
		right := "HTTPS_PROXY=http://" + curt(t, l.outside, proxy)
		docker := l.docker(t, l.outside, right)
		l.on(t, l.outside, docker(login...)...)
		found := check(t, right)
		if r, there := found["engine docker's proxy"]; there || found[health.LayerSignIn].Outcome != health.Passed {
			t.Errorf("%+v %+v", r, found)
		}
	})
}
