package proxy

import (
	"bytes"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"cove.example/cove/link"
)

const wait = 30 * time.Second

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}

type refusal struct {
	peer netip.AddrPort
	why  Refusal
}

func listen(t *testing.T, c Config) (*Listener, chan refusal) {
	t.Helper()
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4zero})
	if err != nil {
		t.Fatal(err)
	}
	refused := make(chan refusal, 64)
	c.Refused = func(peer netip.AddrPort, why Refusal, _ error) { refused <- refusal{peer, why} }
	p := Listen(l, c)
	t.Cleanup(func() { p.Close() })
	return p, refused
}

// next is the next refusal.
func next(t *testing.T, refused <-chan refusal) refusal {
	t.Helper()
	select {
	case r := <-refused:
		return r
	case <-time.After(wait):
		t.Fatal("nothing was refused")
		return refusal{}
	}
}

// dial connects from an address of this machine.
func dial(t *testing.T, p *Listener, from string) *net.TCPConn {
	t.Helper()
	c := try(t, p, from)
	if c == nil {
		t.Fatal("the connection was cut off")
	}
	return c
}

// try is dial for a connection that may be cut off before it is whole: nil.
func try(t *testing.T, p *Listener, from string) *net.TCPConn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: wait}
	to := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: p.Addr().(*net.TCPAddr).Port}
	c, err := d.Dial("tcp4", to.String())
	if errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

func send(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

// cut asserts that a connection has been ended by the other side.
func cut(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection goes on: %v", err)
	}
}

// What a listed balancer says is the connection's Origin, and what comes behind
// the header is the connection's, whole. row:102
func TestListedBalancer(t *testing.T) {
	p, _ := listen(t, Config{From: loopback})
	c := dial(t, p, "127.0.0.1")
	send(t, c, append(said(t, "10.1.0.4:40000", "10.9.0.4:443", azureLink(0x12345678)), "hello"...))
	got, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	want := link.Origin{
		Kind: link.Proxy, Link: "azure:0x12345678", Balancer: netip.MustParseAddr("127.0.0.1"),
		Remote: netip.MustParseAddrPort("10.1.0.4:40000"), Local: netip.MustParseAddrPort("10.9.0.4:443"),
	}
	if o := got.(*link.Conn).Origin; o != want {
		t.Errorf("%+v, want %+v", o, want)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(got, b); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
}

// A balancer's own probe is a caller without a private link, at the balancer's
// own address, whatever the header says besides.
func TestProbe(t *testing.T) {
	p, _ := listen(t, Config{From: loopback})
	c := dial(t, p, "127.0.0.1")
	send(t, c, changed(said(t, "10.1.0.4:40000", "10.9.0.4:443", azureLink(7)), 12, commandLocal))
	got, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if o := got.(*link.Conn).Origin; o.Link != "" || o.Remote.String() != c.LocalAddr().String() || o.Local.String() != c.RemoteAddr().String() {
		t.Errorf("%+v", o)
	}
}

// A header from a peer that is not listed is worth nothing, however good it is;
// so is a listed one's connection without a good header. row:102
func TestRefused(t *testing.T) {
	config := Config{From: loopback, Patience: time.Hour, Admit: func(o link.Origin) bool { return o.Link != "azure:0x00000009" }}
	patient, byPatient := listen(t, config)
	// On a busy machine anybody may be late there.
	config.Patience = 300 * time.Millisecond
	hasty, byHasty := listen(t, config)
	good := said(t, "10.1.0.4:40000", "10.9.0.4:443", azureLink(7))
	for _, c := range []struct {
		what, from string
		say        []byte
		want       Refusal
	}{
		{"a good header from an unlisted peer", "127.0.0.2", good, Unlisted},
		{"an unlisted peer that says nothing", "127.0.0.2", nil, Unlisted},
		{"TLS without a header", "127.0.0.1", []byte("\x16\x03\x01"), NoHeader},
		{"HTTP without a header", "127.0.0.1", []byte("G"), NoHeader},
		{"version 1", "127.0.0.1", []byte("PROXY TCP4 10.1.0.4 10.9.0.4 40000 443\r\n"), NoHeader},
		{"a malformed header", "127.0.0.1", changed(good, 13, 0x12), Malformed},
		{"a wrong checksum", "127.0.0.1", changed(summed(t, azureLink(7)), 19, 9), Malformed},
		{"half a header", "127.0.0.1", good[:20], Late},
		{"nothing", "127.0.0.1", nil, Late},
		{"one that Admit refuses", "127.0.0.1", said(t, "10.1.0.4:40000", "10.9.0.4:443", azureLink(9)), Forbidden},
	} {
		t.Run(c.what, func(t *testing.T) {
			p, refused := patient, byPatient
			if c.want == Late {
				p, refused = hasty, byHasty
			}
			if conn := try(t, p, c.from); conn != nil {
				// One that was cut off already may fail to be written to.
				_, _ = conn.Write(c.say)
				cut(t, conn)
			} else if c.want != Unlisted {
				t.Error("cut off before it has said anything")
			}
			if got := next(t, refused); got.why != c.want || got.peer.Addr().String() != c.from {
				t.Errorf("refused %v as %q, want %v as %q", got.peer, got.why, c.from, c.want)
			}
		})
	}
	if n := patient.open.Len() + hasty.open.Len(); n != 0 {
		t.Errorf("%d of them are open", n)
	}
}

// Callers who say nothing hold up nobody: not Accept, and not who comes after
// them.
func TestSilentCallersHoldUpNobody(t *testing.T) {
	p, _ := listen(t, Config{From: loopback, Patience: time.Hour})
	for range 200 {
		dial(t, p, "127.0.0.1")
	}
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) }),
	}
	go srv.Serve(p)
	t.Cleanup(func() { srv.Close() })
	c := dial(t, p, "127.0.0.1")
	send(t, c, append(said(t, "10.1.0.4:40000", "10.9.0.4:443"), "GET / HTTP/1.0\r\n\r\n"...))
	if all, err := io.ReadAll(c); err != nil || !bytes.HasPrefix(all, []byte("HTTP/1.0 200 OK")) {
		t.Fatalf("%q, %v", all, err)
	}
}

// More silent callers than are waited for are turned away; it is they who are
// many, and everybody else is served when they have been given up.
func TestCrowd(t *testing.T) {
	p, refused := listen(t, Config{From: loopback})
	for range waiting {
		p.slots <- struct{}{}
	}
	if conn := try(t, p, "127.0.0.1"); conn != nil {
		cut(t, conn)
	}
	if got := next(t, refused); got.why != Crowded {
		t.Errorf("refused as %q", got.why)
	}
	<-p.slots
	c := dial(t, p, "127.0.0.1")
	send(t, c, said(t, "10.1.0.4:40000", "10.9.0.4:443"))
	if _, err := p.Accept(); err != nil {
		t.Fatal(err)
	}
}

// The connections of one private link can be ended, and no others are.
func TestResetOfOneLink(t *testing.T) {
	p, _ := listen(t, Config{From: loopback})
	conns := map[string]*net.TCPConn{}
	for _, n := range []uint32{7, 8} {
		c := dial(t, p, "127.0.0.1")
		send(t, c, said(t, "10.1.0.4:40000", "10.9.0.4:443", azureLink(n)))
		got, err := p.Accept()
		if err != nil {
			t.Fatal(err)
		}
		go io.Copy(got, got)
		conns[got.(*link.Conn).Origin.Link] = c
	}
	p.Reset(func(o link.Origin) bool { return o.Link == "azure:0x00000007" })
	cut(t, conns["azure:0x00000007"])
	other := conns["azure:0x00000008"]
	send(t, other, []byte("x"))
	if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
		t.Errorf("the other link's connection: %v", err)
	}
}

// A file is handed to the kernel and not copied through the server: on the way
// through the wrapper nothing may hide the TCP connection's ReadFrom.
func TestFilesAreSentByTheKernel(t *testing.T) {
	p, _ := listen(t, Config{From: loopback})
	c := dial(t, p, "127.0.0.1")
	send(t, c, said(t, "10.1.0.4:40000", "10.9.0.4:443"))
	got, err := p.Accept()
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "layer")
	const size = 64 << 10
	if err := os.WriteFile(name, []byte(strings.Repeat("x", size)), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Where the kernel does it, the copy takes no buffer of 32 KiB. What else the
	// process does takes memory too, but not each time.
	used := uint64(math.MaxUint64)
	for range 5 {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := got.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: f, N: size})
		runtime.ReadMemStats(&after)
		if err != nil || n != size {
			t.Fatalf("%d bytes, %v", n, err)
		}
		used = min(used, after.TotalAlloc-before.TotalAlloc)
		if _, err := io.ReadFull(c, make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
	if used > 16<<10 {
		t.Errorf("the copy took %d bytes of memory", used)
	}
}

func TestClose(t *testing.T) {
	p, _ := listen(t, Config{From: loopback})
	dial(t, p, "127.0.0.1")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
}
