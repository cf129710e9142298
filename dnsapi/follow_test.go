package dnsapi

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func records(t testing.TB, lines ...string) (out []dns.RR) {
	t.Helper()
	for _, l := range lines {
		r, err := dns.NewRR(l)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

// An upstream is believed about what it was asked and about nothing else: what
// it says of our own names, of names that nobody asked about, and in circles
// does not reach who asked; a chain that leads to a name of the network goes
// on with what the network's view says of it.
func TestAnUpstreamIsNotBelievedAboutOtherNames(t *testing.T) {
	d := deploy(t)
	d.zone(t, "a", "privatelink.cr.cove.internal", vnet, map[string]string{"myreg": "10.0.0.7"})
	d.zone(t, "b", "corp.internal", vnet, map[string]string{"wiki": "10.0.0.9"})
	for _, c := range []struct {
		what         string
		name         string
		rcode        int
		answer, auth []string
		want         string
	}{
		{"plain", "www.example.net.", 0, []string{"www.example.net. 60 IN A 192.0.2.1", "www.example.net. 60 IN A 192.0.2.2"}, nil, "NOERROR A 192.0.2.1 A 192.0.2.2"},
		{"mixed", "www.example.net.", 0, []string{"myreg.cr.cove.internal. 60 IN A 192.0.2.66", "www.example.net. 60 IN A 192.0.2.1", "other.example.net. 60 IN A 192.0.2.66", "www.example.net. 60 IN TXT x"}, nil, "NOERROR A 192.0.2.1"},
		{"out of order", "www.example.net.", 0, []string{"b.example.net. 60 IN A 192.0.2.1", "www.example.net. 60 IN CNAME b.example.net."}, nil, "NOERROR CNAME b.example.net. A 192.0.2.1"},
		{"two chains", "www.example.net.", 0, []string{"www.example.net. 60 IN CNAME b.example.net.", "www.example.net. 60 IN CNAME c.example.net.", "b.example.net. 60 IN A 192.0.2.1", "c.example.net. 60 IN A 192.0.2.66"}, nil, "NOERROR CNAME b.example.net. A 192.0.2.1"},
		{"a circle", "www.example.net.", 0, []string{"www.example.net. 60 IN CNAME b.example.net.", "b.example.net. 60 IN CNAME www.example.net."}, nil, "SERVFAIL"},
		{"itself", "www.example.net.", 0, []string{"www.example.net. 60 IN CNAME WWW.example.net."}, nil, "SERVFAIL"},
		{"of our names", "images.example.net.", 3, []string{"images.example.net. 60 IN CNAME myreg.cr.cove.internal.", "myreg.cr.cove.internal. 60 IN A 192.0.2.66"}, nil, "NOERROR CNAME myreg.cr.cove.internal. CNAME myreg.privatelink.cr.cove.internal. A 10.0.0.7"},
		{"of a private zone", "wiki.example.net.", 3, []string{"wiki.example.net. 60 IN CNAME Wiki.corp.internal."}, nil, "NOERROR CNAME Wiki.corp.internal. A 10.0.0.9"},
		{"of a name that we lack", "gone.example.net.", 0, []string{"gone.example.net. 60 IN CNAME nobody.cr.cove.internal.", "nobody.cr.cove.internal. 60 IN A 192.0.2.66"}, nil, "NXDOMAIN CNAME nobody.cr.cove.internal. SOA cove.internal."},
		{"an absence", "www.example.net.", 3, nil, []string{"example.net. 60 IN SOA a. b. 1 2 3 4 5", "example.net. 60 IN NS ns.evil.example.", "cove.internal. 60 IN SOA a. b. 1 2 3 4 5"}, "NXDOMAIN SOA example.net."},
		{"another class", "www.example.net.", 0, []string{"www.example.net. 60 CH A 192.0.2.66"}, nil, "NOERROR"},
	} {
		up := newUpstream(t, func(q *dns.Msg) []*dns.Msg {
			m := new(dns.Msg)
			m.SetRcode(q, c.rcode)
			m.Answer, m.Ns = records(t, c.answer...), records(t, c.auth...)
			return []*dns.Msg{m}
		}, none)
		v := &served{Server: New(Config{Views: d.Of, Forward: NewForwarder([]netip.AddrPort{up.at}, nil)}), network: vnet, label: "network", forwards: make(chan struct{}, 1)}
		m := new(dns.Msg)
		if err := m.Unpack(v.respond(t.Context(), query(t, c.name, dns.TypeA, nil), netip.Addr{}, true)); err != nil {
			t.Fatal(err)
		}
		said := []string{dns.RcodeToString[m.Rcode]}
		for _, r := range append(m.Answer, m.Ns...) {
			switch r := r.(type) {
			case *dns.A:
				said = append(said, "A", r.A.String())
			case *dns.CNAME:
				said = append(said, "CNAME", r.Target)
			default:
				said = append(said, dns.TypeToString[r.Header().Rrtype], r.Header().Name)
			}
		}
		if got := strings.Join(said, " "); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
}

// Whatever an upstream sends: what comes of it is a chain from the name asked
// for, whose every owner was led to, without a name of ours in it.
func FuzzUpstream(f *testing.F) {
	for _, lines := range [][]string{
		{"www.example.net. 60 IN A 192.0.2.1"},
		{"www.example.net. 60 IN CNAME b.example.net.", "b.example.net. 60 IN CNAME www.example.net."},
		{"www.example.net. 60 IN CNAME x.cove.internal.", "x.cove.internal. 60 IN A 192.0.2.1"},
		{"example.net. 60 IN DNAME example.org.", "www.example.net. 60 IN CNAME www.example.org.", "www.example.org. 60 IN A 192.0.2.1"},
	} {
		m := new(dns.Msg).SetQuestion("www.example.net.", dns.TypeA)
		m.Response, m.Answer = true, records(f, lines...)
		b, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	ours := func(name string) bool { return dns.IsSubDomain("cove.internal.", strings.ToLower(name)) }
	q := new(dns.Msg).SetQuestion("www.example.net.", dns.TypeA)
	f.Fuzz(func(t *testing.T, wire []byte) {
		got := new(dns.Msg)
		if got.Unpack(wire) != nil {
			return
		}
		answers(got, q)
		chain, end, err := follow(got, "www.example.net.", dns.TypeA, ours)
		if err != nil && (chain != nil || end != "") || end != "" && !ours(end) {
			t.Fatalf("%v: %v %q %v", got, chain, end, err)
		}
		at := map[string]bool{"www.example.net.": true}
		for _, r := range chain {
			name := strings.ToLower(r.Header().Name)
			if ours(name) || !at[name] && r.Header().Rrtype != dns.TypeDNAME {
				t.Fatalf("%v: %v", got, chain)
			}
			if c, ok := r.(*dns.CNAME); ok {
				at[strings.ToLower(c.Target)] = true
			}
		}
		for _, r := range absence(got, ours) {
			if ours(r.Header().Name) {
				t.Fatalf("%v", r)
			}
		}
	})
}
