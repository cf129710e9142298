package dnsapi

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"cove.example/cove/zone"
)

// same compares the answers of the two ways to one question.
func same(t *testing.T, v *served, wire []byte, udp bool) (short bool) {
	t.Helper()
	quick := v.respondPlain(t.Context(), wire, netip.Addr{}, udp)
	if quick == nil {
		return false
	}
	a, b := new(dns.Msg), new(dns.Msg)
	if err := a.Unpack(quick); err != nil {
		t.Fatalf("%x became %x: %v", wire, quick, err)
	}
	slow := v.respondAny(t.Context(), wire, netip.Addr{}, udp)
	if err := b.Unpack(slow); err != nil {
		t.Fatal(err)
	}
	if a.String() != b.String() || len(quick) > len(slow) {
		t.Fatalf("%x: quickly %d bytes\n%v\nelse %d bytes\n%v", wire, len(quick), a, len(slow), b)
	}
	return true
}

// awkward is a zone whose names begin and end as others do.
func awkward(t testing.TB) deployment {
	d := deploy(t)
	const private, corp = "privatelink.cr.cove.internal", "corp.internal"
	d.zone(t, "a", private, vnet, map[string]string{"myreg": "10.0.0.7", "*": "10.0.0.8"})
	d.zone(t, "a", corp, vnet, map[string]string{"privatelink": "10.0.0.1", "a.b.c.d.e.f.g.h": "10.0.0.2", "b": "10.0.0.3"})
	for from, to := range map[string]string{
		"one": "privatelink.corp.internal", "two": "privatelink", "three": "b.corp.internal", "corp": "corp.internal", "internal": "internal.corp.internal",
		"four": "one.corp.internal", "five": "four.corp.internal", "six": "five.corp.internal", "seven": "six.corp.internal", "circle": "circle.corp.internal",
		"registry": "myreg.cr.cove.internal", "x.y.z": "y.z.corp.internal",
	} {
		d.set(t, corp, "CNAME", from, `{"ttl":5,"cnameRecord":{"cname":"`+to+`"}}`)
	}
	d.set(t, corp, "AAAA", "b", `{"ttl":7,"aaaaRecords":[{"ipv6Address":"fd00::1"},{"ipv6Address":"fd00::2"}]}`)
	d.set(t, corp, "MX", "b", `{"ttl":7,"mxRecords":[{"preference":1,"exchange":"m.corp.internal"}]}`)
	d.set(t, corp, "SOA", "@", `{"ttl":99,"soaRecord":{"email":"ops.corp.internal","minimumTtl":8}}`)
	return d
}

// The quick way to an answer says what the library's way says, and is taken
// for the questions that clients ask.
func TestTheQuickWayIsTheSame(t *testing.T) {
	d := awkward(t)
	s := New(Config{Views: d.Of})
	names := []string{"myreg.cr.cove.internal.", "MyReg.CR.Cove.Internal.", "other.cr.cove.internal.", "open.cr.cove.internal.", "cove.internal.", "management.cove.internal.", "internal.", "nobody.corp.internal.", "corp.internal.", "_x.y.privatelink.cr.cove.internal."}
	for _, n := range []string{"one", "two", "three", "corp", "internal", "four", "five", "six", "seven", "circle", "registry", "x.y.z", "b", "a.b.c.d.e.f.g.h", "c.d.e.f.g.h"} {
		names = append(names, n+".corp.internal.")
	}
	quick, all := 0, 0
	for _, network := range []string{"", vnet} {
		v := &served{Server: s, network: network, label: "x", forwards: make(chan struct{}, 1)}
		for _, name := range names {
			for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeSOA, dns.TypeNS, dns.TypeTXT, dns.TypeMX, dns.TypeHTTPS, dns.TypeANY, 65280} {
				for i, edit := range []func(m *dns.Msg){nil, func(m *dns.Msg) { m.SetEdns0(4096, false) }, func(m *dns.Msg) { m.SetEdns0(512, true); m.CheckingDisabled, m.RecursionDesired = true, false }, func(m *dns.Msg) { m.AuthenticatedData = true }} {
					all++
					if same(t, v, query(t, name, qtype, edit), i%2 == 0) {
						quick++
					}
				}
			}
		}
		if !same(t, v, query(t, "myreg.cr.cove.internal.", dns.TypeA, nil), true) || !same(t, v, query(t, "myreg.cr.cove.internal.", dns.TypeAAAA, func(m *dns.Msg) { m.SetEdns0(1232, false) }), true) {
			t.Error("a registry's name does not take the quick way")
		}
	}
	if quick < all/3 {
		t.Errorf("%d of %d questions took the quick way", quick, all)
	}
}

// A flood of other names' records costs nobody else: the answer to one name of
// ten thousand takes as many allocations as that of one, and none takes many.
func TestAnswersCostTheSameAmongMany(t *testing.T) {
	cost := func(records int) float64 {
		d := deploy(t)
		addresses := map[string]string{"myreg": "10.0.0.7"}
		for i := range records {
			addresses[fmt.Sprintf("r%d", i)] = "10.0.0.8"
		}
		d.zone(t, "a", "privatelink.cr.cove.internal", vnet, addresses)
		v := &served{Server: New(Config{Views: d.Of}), network: vnet, label: "network"}
		wire := query(t, "myreg.cr.cove.internal.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
		if m := new(dns.Msg); m.Unpack(v.respond(t.Context(), wire, netip.Addr{}, true)) != nil || len(m.Answer) != 2 {
			t.Fatal("no answer")
		}
		return testing.AllocsPerRun(1000, func() { v.respond(t.Context(), wire, netip.Addr{}, true) })
	}
	few, many := cost(1), cost(10_000)
	if many > few || many > 10 {
		t.Errorf("an answer takes %v allocations among few records, %v among many", few, many)
	}
}

// Names that the library would escape, or that are too long to be written, are
// left to it.
func TestTheQuickWayLeavesTheRest(t *testing.T) {
	for _, name := range []string{`a\.b`, strings.Repeat("x", 64) + ".y", "a..b", strings.Repeat("abcdefg.", 33)} {
		q, ok := readPlain(query(t, "a.b.", dns.TypeA, nil))
		if !ok {
			t.Fatal("a plain question")
		}
		a := zone.Answer{Records: []zone.Record{{Name: "a.b", Type: zone.TypeCNAME, Target: name}}}
		if out := writePlain(query(t, "a.b.", dns.TypeA, nil), q, a, true, 1232); out != nil {
			t.Errorf("%s was written as %x", name, out)
		}
	}
}
