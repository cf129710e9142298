package dnsapi

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/zone"
)

type known map[string]*zone.Registry

func (k known) ByHost(_ context.Context, host string) (*zone.Registry, error) { return k[host], nil }

var harbor = &zone.Registry{Private: true, Regions: []string{"westeurope"}}

func public(t testing.TB) *zone.Public {
	t.Helper()
	p, err := zone.NewPublic(zone.Names{
		Domain:    "cove.internal",
		Suffix:    "cr.cove.internal",
		Hosts:     []string{"management.cove.internal"},
		Regions:   []string{"westeurope"},
		Advertise: []netip.Addr{netip.MustParseAddr("203.0.113.10")},
	}, known{
		"myreg.cr.cove.internal":                 harbor,
		"myreg.westeurope.data.cr.cove.internal": harbor,
		"open.cr.cove.internal":                  {Regions: []string{"westeurope"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// deployment is private zones in a real database and the views of it.
type deployment struct {
	*zone.Views
	store resource.Store
}

func deploy(t testing.TB) deployment {
	t.Helper()
	docs := store.NewResources(storetest.Open(t, storetest.SQLite(t)))
	v := zone.NewViews(docs, public(t), slog.New(slog.DiscardHandler))
	return deployment{v, v.Obeyed(docs)}
}

// views are those of a deployment without private zones.
func views(t testing.TB) func(string) *zone.View { return deploy(t).Of }

const (
	group = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network"
	vnet  = "/subscriptions/s/resourcegroups/g/providers/microsoft.network/virtualnetworks/spoke"
	hub   = "/subscriptions/s/resourcegroups/g/providers/microsoft.network/virtualnetworks/hub"
)

// zone links a new zone to a network, with an address for each name.
func (d deployment) zone(t testing.TB, id, name, vnet string, records map[string]string) {
	t.Helper()
	zoneID := arm.MustID(strings.Replace(group, "/g/", "/"+id+"/", 1) + "/privateDnsZones/" + name)
	err := d.store.Update(t.Context(), func(tx resource.Tx) error {
		docs := []resource.Doc{
			{ID: zoneID, Body: resource.Object{}},
			{ID: zoneID.Child("virtualNetworkLinks", "l"), Body: resource.Object{"properties": resource.Object{"virtualNetwork": resource.Object{"id": vnet}}}},
		}
		for name, addr := range records {
			docs = append(docs, resource.Doc{ID: zoneID.Child("A", name), Body: resource.Object{"properties": resource.Object{
				"ttl": 10, "aRecords": []any{resource.Object{"ipv4Address": addr}},
			}}})
		}
		for _, doc := range docs {
			if err := tx.Put(t.Context(), &doc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// pair is a socket in each protocol on one port of loopback.
func pair(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 50 { // another process may have the port in the other protocol
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if l, err := net.Listen("tcp", pc.LocalAddr().String()); err == nil {
			return pc, l
		}
		pc.Close()
	}
	t.Fatal("no port is free in both protocols")
	return nil, nil
}

// serve starts s for a network on loopback and returns its address, the same
// for UDP and TCP.
func serve(t testing.TB, s *Server, network string) netip.AddrPort {
	t.Helper()
	pc, l := pair(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, network, pc, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// dig runs the real program and returns its short answer, or its status where
// there is none.
func dig(t *testing.T, at netip.AddrPort, args ...string) string {
	t.Helper()
	args = append([]string{"@" + at.Addr().String(), "-p", strconv.Itoa(int(at.Port())), "+tries=1", "+time=30", "+nostats", "+noall", "+answer", "+comments"}, args...)
	out, err := exec.Command("dig", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("dig %v: %v\n%s", args, err, out)
	}
	var lines []string
	for l := range strings.Lines(string(out)) {
		l = strings.TrimSpace(l)
		if _, after, ok := strings.Cut(l, "status: "); ok {
			status, _, _ := strings.Cut(after, ",")
			lines = append(lines, status)
		}
		if l != "" && l[0] != ';' {
			lines = append(lines, strings.Join(strings.Fields(l), " "))
		}
	}
	return strings.Join(lines, "\n")
}

// What a person sees from outside, with the program that the article names.
// row:53
func TestDigPublicView(t *testing.T) {
	at := serve(t, New(Config{Views: views(t)}), "")
	chain := "NOERROR\n" +
		"myreg.cr.cove.internal. 3600 IN CNAME myreg.privatelink.cr.cove.internal.\n" +
		"myreg.privatelink.cr.cove.internal. 60 IN CNAME fe.westeurope.cove.internal.\n" +
		"fe.westeurope.cove.internal. 10 IN A 203.0.113.10"
	for _, c := range []struct{ args, want string }{
		{"myreg.cr.cove.internal", chain},
		{"+tcp myreg.cr.cove.internal", chain},
		{"+noedns myreg.cr.cove.internal", chain},
		{"+bufsize=4096 +dnssec myreg.cr.cove.internal", chain},
		{"mYrEg.Cr.CoVe.InTeRnAl", strings.Replace(chain, "myreg.cr.cove.internal. 3600", "mYrEg.Cr.CoVe.InTeRnAl. 3600", 1)},
		{"open.cr.cove.internal", "NOERROR\nopen.cr.cove.internal. 60 IN CNAME fe.westeurope.cove.internal.\nfe.westeurope.cove.internal. 10 IN A 203.0.113.10"},
		{"management.cove.internal AAAA", "NOERROR"},
		{"nobody.cr.cove.internal", "NXDOMAIN"},
		{"example.com", "REFUSED"},
		{"+recurse . NS", "REFUSED"},
		{"cove.internal AXFR +noall +comments", "; Transfer failed."},
		{"version.bind CH TXT", "REFUSED"},
		{"management.cove.internal ANY +notcp", `NOERROR` + "\n" + `management.cove.internal. 3600 IN HINFO "RFC8482" ""`},
		{"+edns=1 +noednsneg management.cove.internal", "BADVERS"},
		{"+opcode=update management.cove.internal", "NOTIMP"},
	} {
		got := dig(t, at, strings.Fields(c.args)...)
		if strings.Contains(c.args, "AXFR") {
			if strings.Contains(got, "203.0.113.10") {
				t.Errorf("dig %s gave names away:\n%s", c.args, got)
			}
			continue
		}
		if got != c.want {
			t.Errorf("dig %s:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
}

// What the same names are inside two networks that are served at once, each on
// its own sockets; the article's own dig line. row:53 row:54
func TestDigInsideNetworks(t *testing.T) {
	d := deploy(t)
	d.zone(t, "a", "privatelink.cr.cove.internal", vnet, map[string]string{"myreg": "10.0.0.7", "myreg.westeurope.data": "10.0.0.8"})
	d.zone(t, "b", "privatelink.cr.cove.internal", hub, map[string]string{"myreg": "10.0.0.9"})
	s := New(Config{Views: d.Of})
	spoke, other := serve(t, s, vnet), serve(t, s, hub)
	for _, c := range []struct {
		at         netip.AddrPort
		args, want string
	}{
		{spoke, "myreg.cr.cove.internal", "NOERROR\nmyreg.cr.cove.internal. 3600 IN CNAME myreg.privatelink.cr.cove.internal.\nmyreg.privatelink.cr.cove.internal. 10 IN A 10.0.0.7"},
		{spoke, "+tcp MYREG.westeurope.data.cr.cove.internal", "NOERROR\nMYREG.westeurope.data.cr.cove.internal. 3600 IN CNAME myreg.westeurope.data.privatelink.cr.cove.internal.\nmyreg.westeurope.data.privatelink.cr.cove.internal. 10 IN A 10.0.0.8"},
		{other, "myreg.cr.cove.internal", "NOERROR\nmyreg.cr.cove.internal. 3600 IN CNAME myreg.privatelink.cr.cove.internal.\nmyreg.privatelink.cr.cove.internal. 10 IN A 10.0.0.9"},
		{other, "myreg.westeurope.data.cr.cove.internal", "NXDOMAIN\nmyreg.westeurope.data.cr.cove.internal. 3600 IN CNAME myreg.westeurope.data.privatelink.cr.cove.internal."},
		{spoke, "example.com", "SERVFAIL"}, // nobody to forward to
	} {
		if got := dig(t, c.at, strings.Fields(c.args)...); got != c.want {
			t.Errorf("dig %s:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
}

func TestGoResolver(t *testing.T) {
	at := serve(t, New(Config{Views: views(t)}), "")
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, at.String())
	}}
	addrs, err := r.LookupHost(t.Context(), "myreg.cr.cove.internal.")
	if err != nil || !slices.Equal(addrs, []string{"203.0.113.10"}) {
		t.Errorf("LookupHost: %v, %v", addrs, err)
	}
	var missing *net.DNSError
	if _, err := r.LookupHost(t.Context(), "nobody.cr.cove.internal."); !asDNSError(err, &missing) || !missing.IsNotFound {
		t.Errorf("an unknown registry: %v, want no such host", err)
	}
	// Tools take a registry's location from the second label of this name.
	if name, err := r.LookupCNAME(t.Context(), "open.cr.cove.internal."); err != nil || name != "fe.westeurope.cove.internal." {
		t.Errorf("LookupCNAME: %s, %v", name, err)
	}
}

func asDNSError(err error, to **net.DNSError) bool {
	e, ok := err.(*net.DNSError)
	*to = e
	return ok
}

// A socket bound to every address answers from the one that was asked, or
// resolvers would drop the answer.
func TestAnswersFromTheAddressAsked(t *testing.T) {
	pc, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(Config{Views: views(t)}).Serve(ctx, "", pc, nil) }()
	defer func() { cancel(); <-done }()
	port := addrPort(pc.LocalAddr()).Port()
	for _, host := range []string{"127.0.0.1", "127.0.0.77"} {
		got := dig(t, netip.AddrPortFrom(netip.MustParseAddr(host), port), "management.cove.internal")
		if !strings.Contains(got, "203.0.113.10") {
			t.Errorf("asked at %s: %s", host, got)
		}
	}
}

func addrPort(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// query is a message in wire form, changed by edit.
func query(t testing.TB, name string, qtype uint16, edit func(*dns.Msg)) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	m.Id = 4711
	if edit != nil {
		edit(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func publicly(s *Server) *served { return &served{Server: s, label: "public"} }

// What is no question gets a header or nothing, never more than it sent.
func TestMalformed(t *testing.T) {
	ok := query(t, "myreg.cr.cove.internal.", dns.TypeA, nil)
	edited := func(edit func(b []byte) []byte) []byte { return edit(bytes.Clone(ok)) }
	for name, c := range map[string]struct {
		wire []byte
		want string
	}{
		"nothing":              {nil, "dropped"},
		"half a header":        {ok[:11], "dropped"},
		"an answer":            {edited(func(b []byte) []byte { b[2] |= 0x80; return b }), "dropped"},
		"a header alone":       {ok[:12], "FORMERR"},
		"half a name":          {ok[:20], "FORMERR"},
		"no type":              {append(bytes.Clone(ok[:12]), 0), "FORMERR"},
		"no question":          {edited(func(b []byte) []byte { b[5] = 0; return b }), "FORMERR"},
		"two questions":        {edited(func(b []byte) []byte { b[5] = 2; return append(b, b[12:]...) }), "FORMERR"},
		"records in a query":   {edited(func(b []byte) []byte { b[7] = 1; return b }), "FORMERR"},
		"65535 records":        {edited(func(b []byte) []byte { b[10], b[11] = 0xff, 0xff; return b }), "FORMERR"},
		"a name in a circle":   {append(bytes.Clone(ok[:12]), 0xc0, 12, 0, 1, 0, 1), "FORMERR"},
		"a notification":       {edited(func(b []byte) []byte { b[2] |= 4 << 3; return b }), "NOTIMP"},
		"an update":            {edited(func(b []byte) []byte { b[2] |= 5 << 3; return b }), "NOTIMP"},
		"too long":             {append(bytes.Clone(ok), make([]byte, maxQuery)...), "FORMERR"},
		"two OPT records":      {query(t, "a.", 1, func(m *dns.Msg) { m.SetEdns0(1232, false); m.Extra = append(m.Extra, m.Extra[0]) }), "FORMERR"},
		"class ANY":            {query(t, "a.", 1, func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), "REFUSED"},
		"a transfer":           {query(t, "cove.internal.", dns.TypeAXFR, nil), "REFUSED"},
		"an OPT question":      {query(t, "cove.internal.", dns.TypeOPT, nil), "REFUSED"},
		"EDNS of the future":   {query(t, "a.", 1, func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(1) }), "BADVERS"},
		"somebody else's name": {query(t, "example.com.", 1, nil), "REFUSED"},
	} {
		v := publicly(New(Config{Views: views(t)}))
		out := v.respond(t.Context(), c.wire, netip.Addr{}, true)
		got := "dropped"
		if out != nil {
			m := new(dns.Msg)
			if err := m.Unpack(out); err != nil {
				t.Errorf("%s: the answer is malformed: %v", name, err)
				continue
			}
			got = dns.RcodeToString[m.Rcode]
			if m.Rcode == dns.RcodeBadVers {
				got = "BADVERS" // shares its number with BADSIG
			}
			if !m.Response || !bytes.Equal(out[:2], c.wire[:2]) || len(out) > len(c.wire) {
				t.Errorf("%s: %d bytes became %d, response %t", name, len(c.wire), len(out), m.Response)
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// A flood from one prefix gets less than twice what it sends, whatever it
// asks for, and a real asker in the same prefix still gets through over TCP
// (docs/published-failures.md, failure 55).
func TestFloodFromOnePrefix(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := New(Config{Views: views(t), Now: func() time.Time { return now }})
	v := publicly(s)
	asked := map[string][]byte{
		"A":             query(t, "myreg.cr.cove.internal.", dns.TypeA, nil),
		"A with EDNS":   query(t, "myreg.cr.cove.internal.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(65535, true) }),
		"ANY":           query(t, "myreg.cr.cove.internal.", dns.TypeANY, func(m *dns.Msg) { m.SetEdns0(65535, true) }),
		"absent":        query(t, "nobody.cr.cove.internal.", dns.TypeA, nil),
		"somebody else": query(t, "example.com.", dns.TypeANY, nil),
	}
	for name, wire := range asked {
		now = now.Add(time.Second)
		in, out, slipped := 0, 0, 0
		for i := range 2000 {
			from := &net.UDPAddr{IP: net.IPv4(198, 51, 100, byte(i)), Port: 1024 + i}
			reply := v.packet(t.Context(), wire, from)
			if len(reply) > maxUDP {
				t.Fatalf("%s: an answer of %d bytes", name, len(reply))
			}
			in, out = in+len(wire), out+len(reply)
			if reply != nil && reply[2]&0x02 != 0 {
				slipped++
			}
		}
		if float64(out) > 2*float64(in) || slipped == 0 {
			t.Errorf("%s: %d bytes became %d, %d truncated", name, in, out, slipped)
		}
		// Nor at any rate below, but for the first answers of a second.
		for _, rate := range []int{2 * DefaultPerSecond / 10, DefaultPerSecond} {
			now = now.Add(time.Second)
			out := 0
			for range rate {
				out += len(v.packet(t.Context(), wire, &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 53}))
			}
			if out > 2*rate*len(wire) {
				t.Errorf("%s, %d times: %d bytes became %d", name, rate, rate*len(wire), out)
			}
		}
		one := len(v.respond(t.Context(), wire, netip.Addr{}, true))
		t.Logf("%s: one answer is %.2f times the question, a flood's %.2f", name, float64(one)/float64(len(wire)), float64(out)/float64(in))
	}
	other := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 53}
	if m := new(dns.Msg); m.Unpack(v.packet(t.Context(), asked["A"], other)) != nil || len(m.Answer) != 3 {
		t.Error("another prefix is limited too")
	}
	inside := &served{Server: s, network: vnet, label: "network"}
	from := &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 53}
	if m := new(dns.Msg); m.Unpack(inside.packet(t.Context(), asked["A"], from)) != nil || m.Truncated {
		t.Error("a member of a network is limited as strangers are")
	}
	now = now.Add(time.Second)
	if m := new(dns.Msg); m.Unpack(v.packet(t.Context(), asked["A"], from)) != nil || m.Truncated || len(m.Answer) != 3 {
		t.Error("the prefix is still limited a second later")
	}
}

// A clock that jumps, either way, neither lifts the limit for longer than the
// second that it jumps to, nor leaves anybody without answers behind.
func TestTheLimitOutlivesClockJumps(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := New(Config{Views: views(t), Now: func() time.Time { return now }})
	v := publicly(s)
	wire := query(t, "myreg.cr.cove.internal.", dns.TypeA, nil)
	from := &net.UDPAddr{IP: net.IPv4(198, 51, 100, 1), Port: 53}
	whole := func() bool {
		m := new(dns.Msg)
		return m.Unpack(v.packet(t.Context(), wire, from)) == nil && !m.Truncated && len(m.Answer) == 3
	}
	for _, jump := range []time.Duration{0, -time.Second, -24 * time.Hour, 24 * 365 * time.Hour, -48 * 365 * time.Hour, time.Second} {
		now = now.Add(jump)
		answered := 0
		for range 1000 {
			if whole() {
				answered++
			}
		}
		if answered == 0 || answered > DefaultPerSecond {
			t.Errorf("after a jump of %v %d of a thousand questions are answered whole", jump, answered)
		}
	}
}

// A slipped answer is the question with three bits set. Without AA glibc would
// take it for a lame server's, and not ask again over TCP.
func TestSlip(t *testing.T) {
	wire := query(t, "mYreg.cr.cove.internal.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	m := new(dns.Msg)
	if err := m.Unpack(truncated(wire)); err != nil {
		t.Fatal(err)
	}
	if !m.Truncated || !m.Response || !m.Authoritative || m.Id != 4711 || m.Question[0].Name != "mYreg.cr.cove.internal." || len(m.Extra) != 0 {
		t.Errorf("%v", m)
	}
	for i := range wire {
		if out := truncated(wire[:i]); len(out) > i {
			t.Errorf("%d bytes became %d", i, len(out))
		}
	}
}

// Ten thousand strangers who connect and say nothing cannot keep others out,
// and no more of them stay than there are places (docs/published-failures.md,
// failure 55).
func TestTenThousandIdleConnections(t *testing.T) {
	at := serve(t, New(Config{Views: views(t)}), "")
	idle := make([]net.Conn, 10_000)
	var dialling errgroup.Group
	dialling.SetLimit(64)
	for i := range idle {
		dialling.Go(func() error {
			from := &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}
			c, err := (&net.Dialer{LocalAddr: from}).DialContext(t.Context(), "tcp", at.String())
			idle[i] = c
			return err
		})
	}
	defer func() {
		for _, c := range idle {
			if c != nil {
				c.Close()
			}
		}
	}()
	if err := dialling.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"+tcp", "+notcp"} {
		if got := dig(t, at, how, "management.cove.internal"); !strings.Contains(got, "203.0.113.10") {
			t.Errorf("behind idle connections, %s: %s", how, got)
		}
	}
	var open atomic.Int64
	var reading sync.WaitGroup
	for _, c := range idle {
		reading.Go(func() {
			c.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := c.Read(make([]byte, 1)); isTimeout(err) {
				open.Add(1)
			}
		})
	}
	reading.Wait()
	if n := open.Load(); n == 0 || n > maxConns {
		t.Errorf("%d connections stay open, of at most %d", n, maxConns)
	}
}

// One stranger's connections make room for each other.
func TestIdleConnectionsMakeRoom(t *testing.T) {
	at := serve(t, New(Config{Views: views(t)}), "")
	var idle []net.Conn
	for range 3 * maxConnsPerSource {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		idle = append(idle, c)
	}
	if got := dig(t, at, "+tcp", "management.cove.internal"); !strings.Contains(got, "203.0.113.10") {
		t.Errorf("behind idle connections: %s", got)
	}
	// The first of them has been closed.
	idle[0].SetReadDeadline(time.Now().Add(idleTimeout / 2)) // silence alone has not ended it by then
	if _, err := idle[0].Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the oldest of %d connections is open: %v", len(idle), err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// Several questions on one connection, and one that no question can be as long
// as.
func TestStream(t *testing.T) {
	at := serve(t, New(Config{Views: views(t)}), "")
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	q := query(t, "management.cove.internal.", dns.TypeA, nil)
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...)
	if _, err := c.Write(bytes.Repeat(framed, 3)); err != nil {
		t.Fatal(err)
	}
	dc := &dns.Conn{Conn: c}
	for range 3 {
		m, err := dc.ReadMsg()
		if err != nil || len(m.Answer) != 1 {
			t.Fatalf("%v, %v", m, err)
		}
	}
	if _, err := c.Write([]byte{0xff, 0xff, 1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
		t.Errorf("a question of 65535 bytes is being waited for: %d, %v", n, err)
	}
}

// piped is a listener of connections in memory, for tests with a clock of
// their own.
type piped struct {
	conns chan net.Conn
	once  sync.Once
}

func (p *piped) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p *piped) Close() error   { p.once.Do(func() { close(p.conns) }); return nil }
func (p *piped) Addr() net.Addr { return &net.TCPAddr{} }

// A quiet connection is closed after a few seconds, one that sends a byte now
// and then too.
func TestSlowConnections(t *testing.T) {
	of := views(t)
	synctest.Test(t, func(t *testing.T) {
		l := &piped{conns: make(chan net.Conn)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- New(Config{Views: of}).Serve(ctx, "", nil, l) }()
		for name, c := range map[string]struct {
			say  []byte
			want time.Duration
		}{
			"silence":      {nil, idleTimeout},
			"half a frame": {[]byte{0, 30, 1, 2, 3}, ioTimeout},
		} {
			client, server := net.Pipe()
			l.conns <- server
			start := time.Now()
			if _, err := client.Write(c.say); err != nil {
				t.Fatal(err)
			}
			if _, err := client.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took != c.want {
				t.Errorf("%s: closed after %v, want %v", name, took, c.want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// Every answer is told to the observer, by view and outcome.
func TestObserve(t *testing.T) {
	seen := map[string]int{}
	s := New(Config{Views: views(t), PerSecond: 3, Now: func() time.Time { return time.Unix(1, 0) }, Observe: func(view, rcode string) { seen[view+" "+rcode]++ }})
	from := &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
	v := publicly(s)
	for _, wire := range [][]byte{
		query(t, "management.cove.internal.", 1, nil), query(t, "nobody.cr.cove.internal.", 1, nil), {1, 2}, {1, 2},
	} {
		v.packet(t.Context(), wire, from)
	}
	(&served{Server: s, network: vnet, label: "network", forwards: make(chan struct{}, 1)}).packet(t.Context(), query(t, "example.com.", 1, nil), from)
	for _, want := range []string{"public NOERROR", "public NXDOMAIN", "public DROPPED", "public LIMITED", "network SERVFAIL"} {
		if seen[want] != 1 {
			t.Errorf("%s was told %d times: %v", want, seen[want], seen)
		}
	}
}

// Any bytes: no panic, and an answer is an answer to what came, no longer than
// UDP allows; what is no question is never answered with more than it sent.
func FuzzDNSQuery(f *testing.F) {
	f.Add(query(f, "myreg.cr.cove.internal.", dns.TypeA, nil))
	f.Add(query(f, "myreg.cr.cove.internal.", dns.TypeANY, func(m *dns.Msg) { m.SetEdns0(4096, true) }))
	f.Add(query(f, "cr.cove.internal.", dns.TypeSOA, func(m *dns.Msg) { m.SetEdns0(512, false) }))
	f.Add(query(f, `x\.privatelink.cr.cove.internal.`, dns.TypeAAAA, nil))
	d := awkward(f)
	v := publicly(New(Config{Views: d.Of}))
	inside := &served{Server: v.Server, network: vnet, label: "network", forwards: make(chan struct{}, 1)}
	f.Fuzz(func(t *testing.T, wire []byte) {
		same(t, v, wire, true)
		same(t, inside, wire, true)
		for _, udp := range []bool{true, false} {
			out := v.respond(t.Context(), wire, netip.Addr{}, udp)
			if out == nil {
				continue
			}
			m := new(dns.Msg)
			if err := m.Unpack(out); err != nil {
				t.Fatalf("%x became %x: %v", wire, out, err)
			}
			if !m.Response || !bytes.Equal(out[:2], wire[:2]) || m.RecursionAvailable {
				t.Fatalf("%x became %v", wire, m)
			}
			if udp && len(out) > maxUDP || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError && len(out) > len(wire) {
				t.Fatalf("%d bytes became %d: %v", len(wire), len(out), m)
			}
		}
		if out := truncated(wire); len(out) > len(wire) {
			t.Fatalf("%d bytes became %d", len(wire), len(out))
		}
	})
}
