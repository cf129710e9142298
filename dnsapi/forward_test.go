package dnsapi

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// upstream is a resolver whose datagrams and streams the test writes itself.
type upstream struct {
	at    netip.AddrPort
	mu    sync.Mutex
	asked []dns.Question // over UDP
	ports map[string]bool
	tcp   atomic.Int32
}

// newUpstream starts a resolver: udp returns the datagrams to send for a
// question, tcp the answer over a stream.
func newUpstream(t *testing.T, udp func(q *dns.Msg) []*dns.Msg, tcp func(q *dns.Msg) *dns.Msg) *upstream {
	t.Helper()
	pc, l := pair(t)
	u := &upstream{at: addrPort(pc.LocalAddr()), ports: map[string]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			q := new(dns.Msg)
			if err := q.Unpack(buf[:n]); err != nil {
				t.Errorf("the forwarder sent %x: %v", buf[:n], err)
				continue
			}
			u.mu.Lock()
			u.asked = append(u.asked, q.Question[0])
			u.ports[from.String()] = true
			u.mu.Unlock()
			wg.Go(func() {
				for _, m := range udp(q) {
					b, err := m.Pack()
					if err != nil {
						t.Errorf("pack: %v", err)
					}
					pc.WriteTo(b, from)
				}
			})
		}
	})
	srv := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		u.tcp.Add(1)
		if m := tcp(q); m != nil {
			w.WriteMsg(m)
		}
	})}
	wg.Go(func() { srv.ActivateAndServe() })
	t.Cleanup(func() { pc.Close(); srv.Shutdown(); l.Close(); wg.Wait() })
	return u
}

// says answers a question with one address.
func says(q *dns.Msg, addr string, edit func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 77}, A: net.ParseIP(addr)}}
	if edit != nil {
		edit(m)
	}
	return m
}

func honest(q *dns.Msg) []*dns.Msg { return []*dns.Msg{says(q, "192.0.2.80", nil)} }
func none(*dns.Msg) *dns.Msg       { return nil }

// Inside a network other names are the host's resolver's; outside nobody gets
// them.
func TestForwarding(t *testing.T) {
	up := newUpstream(t, honest, none)
	s := New(Config{Views: views(t), Forward: NewForwarder([]netip.AddrPort{up.at}, nil)})
	inside, outside := serve(t, s, vnet), serve(t, s, "")
	const rounds = 3 // two spellings, and two ports, may be the same by chance; six are not
	for _, name := range slices.Repeat([]string{"www.Example.net", "www.example.net"}, rounds) {
		if got, want := dig(t, inside, name), "NOERROR\n"+name+". 77 IN A 192.0.2.80"; got != want {
			t.Errorf("inside: %s, want %s", got, want)
		}
	}
	if got := dig(t, outside, "www.example.net"); got != "REFUSED" {
		t.Errorf("outside: %s", got)
	}
	if got := dig(t, inside, "nobody.cr.cove.internal"); got != "NXDOMAIN" {
		t.Errorf("a name of ours: %s", got)
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if len(up.asked) != 2*rounds {
		t.Errorf("the upstream was asked %v", up.asked)
	}
	if len(up.ports) < rounds {
		t.Errorf("%d questions came from %d ports", len(up.asked), len(up.ports))
	}
	spellings := map[string]bool{}
	for _, q := range up.asked {
		spellings[q.Name] = true
		if !strings.EqualFold(q.Name, "www.example.net.") {
			t.Errorf("asked for %s", q.Name)
		}
	}
	if len(spellings) < rounds {
		t.Errorf("%d questions were spelled in %d ways", len(up.asked), len(spellings))
	}
}

// What is no answer to the question is not taken, however much of it there is;
// the answer behind it is (docs/published-failures.md, failure 56).
func TestForgedAnswers(t *testing.T) {
	forged := func(edit func(m *dns.Msg)) func(q *dns.Msg) *dns.Msg {
		return func(q *dns.Msg) *dns.Msg { return says(q, "198.51.100.66", edit) }
	}
	for name, forge := range map[string]func(q *dns.Msg) *dns.Msg{
		"another id":       forged(func(m *dns.Msg) { m.Id++ }),
		"another name":     forged(func(m *dns.Msg) { m.Question[0].Name = "www.example.org." }),
		"another type":     forged(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }),
		"another class":    forged(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }),
		"no question":      forged(func(m *dns.Msg) { m.Question = nil }),
		"a question again": forged(func(m *dns.Msg) { m.Response = false }),
		"other letters":    forged(func(m *dns.Msg) { m.Question[0].Name = flipped(m.Question[0].Name) }),
		"cut off":          forged(func(m *dns.Msg) { m.Truncated = true }),
	} {
		up := newUpstream(t, func(q *dns.Msg) []*dns.Msg {
			return append(slices.Repeat([]*dns.Msg{forge(q)}, 5), honest(q)...)
		}, func(q *dns.Msg) *dns.Msg { return says(q, "192.0.2.80", nil) })
		got, err := NewForwarder([]netip.AddrPort{up.at}, nil).Ask(t.Context(), Query{Name: "www.example.net.", Type: dns.TypeA})
		if err != nil || len(got.Answer) != 1 || got.Answer[0].(*dns.A).A.String() != "192.0.2.80" {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		overTCP := name == "other letters" || name == "cut off"
		if (up.tcp.Load() == 1) != overTCP {
			t.Errorf("%s: asked over TCP %d times", name, up.tcp.Load())
		}
	}
}

func flipped(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r ^ 0x20
		}
		return r
	}, s)
}

// A storm of guesses ends the asking over UDP (docs/published-failures.md,
// failure 56).
func TestGuessing(t *testing.T) {
	up := newUpstream(t, func(q *dns.Msg) []*dns.Msg {
		var storm []*dns.Msg
		for i := range maxStray {
			storm = append(storm, says(q, "198.51.100.66", func(m *dns.Msg) { m.Id += uint16(i) + 1 }))
		}
		return storm
	}, func(q *dns.Msg) *dns.Msg { return says(q, "192.0.2.80", nil) })
	got, err := NewForwarder([]netip.AddrPort{up.at}, nil).Ask(t.Context(), Query{Name: "www.example.net.", Type: dns.TypeA})
	if err != nil || got.Answer[0].(*dns.A).A.String() != "192.0.2.80" || up.tcp.Load() != 1 {
		t.Errorf("%v, %v, over TCP %d times", got, err, up.tcp.Load())
	}
}

// The same question from many askers is sent once: each more would be another
// chance for a forger (docs/published-failures.md, failure 56).
func TestOneOutstandingQuestion(t *testing.T) {
	release := make(chan struct{})
	up := newUpstream(t, func(q *dns.Msg) []*dns.Msg { <-release; return honest(q) }, none)
	s := New(Config{Views: views(t), Forward: NewForwarder([]netip.AddrPort{up.at}, nil)})
	v := &served{Server: s, network: vnet, label: "network", forwards: make(chan struct{}, forwards)}
	const askers = 20
	answers := make(chan *dns.Msg, askers)
	for i := range askers {
		name := "www.example.net."
		if i%2 == 1 {
			name = "WWW.example.net."
		}
		go func() {
			m := new(dns.Msg)
			if err := m.Unpack(v.respond(t.Context(), query(t, name, dns.TypeA, nil), netip.Addr{}, true)); err == nil && len(m.Answer) == 1 && m.Answer[0].Header().Name != name {
				t.Errorf("asked for %s, told of %s", name, m.Answer[0].Header().Name)
			}
			answers <- m
		}()
	}
	for waiting() < askers {
		select {
		case m := <-answers:
			t.Fatalf("answered before the upstream spoke: %v", m)
		default:
			runtime.Gosched()
		}
	}
	close(release)
	for range askers {
		if m := <-answers; len(m.Answer) != 1 {
			t.Errorf("%v", m)
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	if n := len(up.asked); n != 1 {
		t.Errorf("%d questions were sent", n)
	}
}

// waiting is how many goroutines have asked a Forwarder and wait for what it
// says.
func waiting() (n int) {
	all := make([]byte, 1<<20)
	for one := range strings.SplitSeq(string(all[:runtime.Stack(all, true)]), "\n\n") {
		head, rest, _ := strings.Cut(one, "\n")
		if strings.Contains(head, "[select") && strings.HasPrefix(rest, "cove.example/cove/dnsapi.(*Forwarder).Ask(") {
			n++
		}
	}
	return n
}

// No network has more than its share of the forwarder.
func TestForwardsAreBounded(t *testing.T) {
	s := New(Config{Views: views(t), Forward: NewForwarder([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1")}, nil)})
	v := &served{Server: s, network: vnet, label: "network", forwards: make(chan struct{})}
	m := new(dns.Msg)
	if err := m.Unpack(v.respond(t.Context(), query(t, "www.example.net.", 1, nil), netip.Addr{}, true)); err != nil || m.Rcode != dns.RcodeServerFailure {
		t.Errorf("%v, %v", m, err)
	}
}

// The second resolver is asked when the first is not there or does not want
// to; without any the answer is a failure at once.
func TestUpstreams(t *testing.T) {
	refuses := newUpstream(t, func(q *dns.Msg) []*dns.Msg {
		return []*dns.Msg{says(q, "192.0.2.1", func(m *dns.Msg) { m.Rcode, m.Answer = dns.RcodeRefused, nil })}
	}, none)
	works := newUpstream(t, honest, none)
	absent := netip.MustParseAddrPort("127.0.0.1:1")
	ask := Query{Name: "www.example.net.", Type: dns.TypeA}
	for _, ups := range [][]netip.AddrPort{{absent, works.at}, {refuses.at, works.at}} {
		got, err := NewForwarder(ups, nil).Ask(t.Context(), ask)
		if err != nil || len(got.Answer) != 1 {
			t.Errorf("%v: %v, %v", ups, got, err)
		}
	}
	if got, err := NewForwarder([]netip.AddrPort{refuses.at}, nil).Ask(t.Context(), ask); err != nil || got.Rcode != dns.RcodeRefused {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := NewForwarder(nil, nil).Ask(t.Context(), ask); err != ErrNoUpstream {
		t.Errorf("%v", err)
	}
	if _, err := NewForwarder([]netip.AddrPort{absent}, nil).Ask(t.Context(), ask); err == nil {
		t.Error("nobody answered, and there is an answer")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := NewForwarder([]netip.AddrPort{works.at}, nil).Ask(gone, ask); err == nil {
		t.Error("an asker that has left got an answer")
	}
}

// Questions are never sent to ourselves.
func TestNotToOurselves(t *testing.T) {
	ports := func(texts ...string) (out []netip.AddrPort) {
		for _, s := range texts {
			out = append(out, netip.MustParseAddrPort(s))
		}
		return out
	}
	for _, c := range []struct{ ups, own, want []netip.AddrPort }{
		{ports("127.0.0.53:53", "9.9.9.9:53"), ports("127.0.0.1:5300"), ports("127.0.0.53:53", "9.9.9.9:53")},
		{ports("192.0.2.1:53", "9.9.9.9:53"), ports("192.0.2.1:53"), ports("9.9.9.9:53")},
		{ports("127.0.0.1:53", "9.9.9.9:53"), ports("0.0.0.0:53"), ports("9.9.9.9:53")},
		{ports("127.0.0.1:53", "9.9.9.9:53"), ports("[::]:53"), ports("9.9.9.9:53")},
		{ports("[::ffff:9.9.9.9]:53", "9.9.9.9:53"), nil, ports("9.9.9.9:53")},
	} {
		if got := NewForwarder(c.ups, c.own).Upstreams(); !slices.Equal(got, c.want) {
			t.Errorf("upstreams %v, own %v: %v, want %v", c.ups, c.own, got, c.want)
		}
	}
}

func TestSystemResolvers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("# written by hand\nsearch example.net\nnameserver 127.0.0.53\nnameserver fe80::1%lo\noptions ndots:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := SystemResolvers(file)
	want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53"), netip.MustParseAddrPort("[fe80::1%lo]:53")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := SystemResolvers(file + "x"); err == nil {
		t.Error("a file that is not there was read")
	}
}

// An answer that is too long for UDP is cut off, and whole over TCP.
func TestLongAnswers(t *testing.T) {
	long := func(q *dns.Msg) *dns.Msg {
		return says(q, "192.0.2.1", func(m *dns.Msg) {
			for i := range 200 {
				m.Answer = append(m.Answer, &dns.A{Hdr: m.Answer[0].(*dns.A).Hdr, A: net.IPv4(192, 0, 3, byte(i))})
			}
		})
	}
	up := newUpstream(t, func(q *dns.Msg) []*dns.Msg {
		return []*dns.Msg{says(q, "192.0.2.1", func(m *dns.Msg) { m.Truncated, m.Answer = true, nil })}
	}, long)
	s := New(Config{Views: views(t), Forward: NewForwarder([]netip.AddrPort{up.at}, nil)})
	v := &served{Server: s, network: vnet, label: "network", forwards: make(chan struct{}, 1)}
	for _, c := range []struct {
		edns uint16
		udp  bool
		max  int
		cut  bool
	}{{0, true, 512, true}, {512, true, 512, true}, {65535, true, maxUDP, true}, {0, false, 65535, false}} {
		out := v.respond(t.Context(), query(t, "www.example.net.", dns.TypeA, func(m *dns.Msg) {
			if c.edns > 0 {
				m.SetEdns0(c.edns, false)
			}
		}), netip.Addr{}, c.udp)
		m := new(dns.Msg)
		if err := m.Unpack(out); err != nil || len(out) > c.max || m.Truncated != c.cut || len(m.Answer) == 0 {
			t.Errorf("%+v: %d bytes, truncated %t, %v", c, len(out), m.Truncated, err)
		}
	}
}
