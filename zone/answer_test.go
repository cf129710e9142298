package zone

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// known are the registries of these tests, by host.
type known map[string]*Registry

func (k known) ByHost(_ context.Context, host string) (*Registry, error) {
	if host == "broken.cr.cove.internal" {
		return nil, errors.New("no database")
	}
	return k[host], nil
}

var harbor = &Registry{Private: true, Regions: []string{"westeurope"}}

// registries: myreg has had a private endpoint, open never had one.
var registries = known{
	"myreg.cr.cove.internal":                  harbor,
	"myreg.westeurope.data.cr.cove.internal":  harbor,
	"myreg.northeurope.data.cr.cove.internal": harbor,
	"open.cr.cove.internal":                   {Regions: []string{"northeurope"}},
	"abroad.cr.cove.internal":                 {Regions: []string{"japaneast"}},
}

func publicNames(t testing.TB) *Public {
	t.Helper()
	p, err := NewPublic(Names{
		Domain:    "cove.internal",
		Suffix:    "cr.cove.internal",
		Hosts:     []string{"management.cove.internal", "login.cove.internal", "management.example.com"},
		Regions:   []string{"westeurope", "northeurope"},
		Advertise: []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")},
		Aliases:   map[string]string{"images.example.org": "myreg.cr.cove.internal"},
	}, registries)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// zoneFile writes a zone down: "name: type value ttl" for each record.
func zoneFile(name string, lines ...string) *records {
	z := newRecords(name)
	for _, l := range lines {
		var owner, typ, value string
		var ttl uint32
		if _, err := fmt.Sscanf(l, "%s %s %s %d", &owner, &typ, &value, &ttl); err != nil {
			panic(err)
		}
		n := z.copied(absolute(owner, name))
		switch typ {
		case "A":
			n.a = append(n.a, Record{Type: TypeA, TTL: ttl, Addr: netip.MustParseAddr(value)})
		case "AAAA":
			n.aaaa = append(n.aaaa, Record{Type: TypeAAAA, TTL: ttl, Addr: netip.MustParseAddr(value)})
		case "CNAME":
			n.cname = &Record{Type: TypeCNAME, TTL: ttl, Target: value}
		}
		z.put(absolute(owner, name), n)
	}
	return z
}

// copied is what is at a full name, to be changed and put there.
func (z *records) copied(name string) *node {
	n := node{}
	if held := z.node(name); held != nil {
		n = *held
	}
	return &n
}

func inside(t testing.TB, zones ...link) *View {
	v := &View{public: publicNames(t), zones: map[string]link{}}
	for _, l := range zones {
		v.zones[l.zone.name] = l
	}
	return v
}

var types = map[string]uint16{"A": TypeA, "AAAA": TypeAAAA, "CNAME": TypeCNAME, "SOA": TypeSOA, "NS": TypeNS, "ANY": TypeANY, "TXT": 16}

// told is an answer as these tables write it.
func told(a Answer) string {
	var parts []string
	for _, r := range a.Records {
		for name, typ := range types {
			if typ != r.Type {
				continue
			}
			value := r.Target
			if r.Addr.IsValid() {
				value = r.Addr.String()
			}
			parts = append(parts, fmt.Sprintf("%s %s ttl %d", name, value, r.TTL))
		}
	}
	switch {
	case a.Forward != "":
		parts = append(parts, "forward "+a.Forward)
	case a.Rcode == NXDomain:
		parts = append(parts, "NXDOMAIN by "+a.SOA.Name)
	case a.Rcode == ServFail:
		parts = append(parts, "SERVFAIL")
	case a.SOA != nil:
		parts = append(parts, "NODATA by "+a.SOA.Name)
	}
	return strings.Join(parts, ", ")
}

// The chains of a name from every kind of network: row:47 row:48 row:50 row:53
// row:57.
func TestAnswer(t *testing.T) {
	full := zoneFile("privatelink.cr.cove.internal",
		"myreg A 10.0.0.7 10", "myreg.westeurope.data A 10.0.0.8 10")
	corp := zoneFile("corp.internal",
		"wiki A 10.1.0.1 300", "wiki AAAA fd00::1 300", "www CNAME wiki.corp.internal 60", "out CNAME www.example.net 60",
		"registry CNAME myreg.cr.cove.internal 60", "a CNAME b.corp.internal 1", "b CNAME a.corp.internal 1",
		"*.apps A 10.1.0.9 30", "one.two.three A 10.1.0.2 30")
	views := map[string]*View{
		"public":         {public: publicNames(t)},
		"unlinked":       inside(t),
		"linked":         inside(t, link{zone: full}),
		"empty zone":     inside(t, link{zone: newRecords("privatelink.cr.cove.internal")}),
		"with a way out": inside(t, link{zone: newRecords("privatelink.cr.cove.internal"), redirect: true}),
		"wrong name":     inside(t, link{zone: zoneFile("private.cr.cove.internal", "myreg A 10.0.0.7 10")}),
		"evil name":      inside(t, link{zone: zoneFile("evilprivatelink.cr.cove.internal", "myreg A 10.6.6.6 10")}),
		"tail":           inside(t, link{zone: zoneFile("link.cr.cove.internal", "myreg A 10.6.6.6 10")}),
		"apex":           inside(t, link{zone: zoneFile("myreg.cr.cove.internal", "@ A 10.3.0.1 10")}),
		"corp":           inside(t, link{zone: corp}, link{zone: zoneFile("eu.corp.internal", "wiki A 10.2.0.1 300")}, link{zone: full}),
	}
	const (
		label = "CNAME myreg.privatelink.cr.cove.internal ttl 3600, "
		west  = "CNAME fe.westeurope.cove.internal ttl 60, A 203.0.113.10 ttl 10"
		north = "CNAME fe.northeurope.cove.internal ttl 60, A 203.0.113.10 ttl 10"
	)
	for _, c := range []struct{ view, question, want string }{
		{"linked", "myreg.cr.cove.internal. A", label + "A 10.0.0.7 ttl 10"},
		{"linked", "MyReg.CR.cove.Internal. A", label + "A 10.0.0.7 ttl 10"},
		{"linked", "myreg.westeurope.data.cr.cove.internal. A", "CNAME myreg.westeurope.data.privatelink.cr.cove.internal ttl 3600, A 10.0.0.8 ttl 10"},
		{"linked", "myreg.privatelink.cr.cove.internal. A", "A 10.0.0.7 ttl 10"},
		{"linked", "myreg.cr.cove.internal. AAAA", label + "NODATA by privatelink.cr.cove.internal"},
		{"linked", "myreg.cr.cove.internal. CNAME", "CNAME myreg.privatelink.cr.cove.internal ttl 3600"},
		{"linked", "open.cr.cove.internal. A", north},
		{"linked", "management.cove.internal. A", "A 203.0.113.10 ttl 10"},
		{"linked", "www.example.net. A", "forward www.example.net"},

		// A replica whose record nobody made, and a link that outlived its
		// endpoint: the zone is authoritative.
		{"linked", "myreg.northeurope.data.cr.cove.internal. A", "CNAME myreg.northeurope.data.privatelink.cr.cove.internal ttl 3600, NXDOMAIN by privatelink.cr.cove.internal"},
		{"empty zone", "myreg.cr.cove.internal. A", label + "NXDOMAIN by privatelink.cr.cove.internal"},
		{"empty zone", "open.cr.cove.internal. A", north},
		{"with a way out", "myreg.cr.cove.internal. A", label + west},
		{"with a way out", "myreg.privatelink.cr.cove.internal. TXT", "NXDOMAIN by privatelink.cr.cove.internal"},

		{"unlinked", "myreg.cr.cove.internal. A", label + west},
		{"wrong name", "myreg.cr.cove.internal. A", label + west},
		{"wrong name", "myreg.private.cr.cove.internal. A", "A 10.0.0.7 ttl 10"},
		{"evil name", "myreg.cr.cove.internal. A", label + west},
		{"tail", "myreg.cr.cove.internal. A", label + west},
		{"linked", "myreg.evilprivatelink.cr.cove.internal. A", "NXDOMAIN by cove.internal"},
		{"linked", `myreg\.privatelink.cr.cove.internal. A`, "NXDOMAIN by cove.internal"},
		{"linked", `x\.privatelink.cr.cove.internal. A`, "NXDOMAIN by cove.internal"},
		{"linked", "privatelink.cr.cove.internal.evil.example. A", "forward privatelink.cr.cove.internal.evil.example"},

		{"public", "myreg.cr.cove.internal. A", label + west},
		{"public", "myreg.cr.cove.internal. AAAA", label + "CNAME fe.westeurope.cove.internal ttl 60, AAAA 2001:db8::10 ttl 10"},
		{"public", "myreg.northeurope.data.cr.cove.internal. A", "CNAME myreg.northeurope.data.privatelink.cr.cove.internal ttl 3600, " + north},
		{"public", "open.cr.cove.internal. A", north},
		{"public", "open.privatelink.cr.cove.internal. A", "NXDOMAIN by cove.internal"},
		{"public", "abroad.cr.cove.internal. A", west},
		{"public", "nobody.cr.cove.internal. A", "NXDOMAIN by cove.internal"},
		{"public", "a.b.cr.cove.internal. A", "NXDOMAIN by cove.internal"},
		{"public", "broken.cr.cove.internal. A", "SERVFAIL"},
		{"public", "login.cove.internal. TXT", "NODATA by cove.internal"},
		{"public", "cove.internal. SOA", "SOA ns.cove.internal ttl 10"},
		{"public", "cove.internal. NS", "NS ns.cove.internal ttl 3600"},
		{"public", "ns.cove.internal. A", "A 203.0.113.10 ttl 10"},
		{"public", "management.example.com. A", "A 203.0.113.10 ttl 10"},
		{"public", "www.management.example.com. A", "forward www.management.example.com"},
		{"public", "example.com. A", "forward example.com"},
		{"public", "images.example.org. A", "CNAME myreg.cr.cove.internal ttl 60, " + label + west},
		{"linked", "images.example.org. A", "CNAME myreg.cr.cove.internal ttl 60, " + label + "A 10.0.0.7 ttl 10"},
		{"public", ". NS", "forward ."},

		// Names that have names below them exist (RFC 8020).
		{"public", "cr.cove.internal. A", "NODATA by cove.internal"},
		{"public", "data.cr.cove.internal. A", "NODATA by cove.internal"},
		{"public", "westeurope.data.privatelink.cr.cove.internal. A", "NODATA by cove.internal"},
		{"public", "mars.data.cr.cove.internal. A", "NXDOMAIN by cove.internal"},
		{"linked", "westeurope.data.privatelink.cr.cove.internal. A", "NODATA by privatelink.cr.cove.internal"},

		{"apex", "myreg.cr.cove.internal. A", "A 10.3.0.1 ttl 10"},
		{"corp", "wiki.corp.internal. A", "A 10.1.0.1 ttl 300"},
		{"corp", "wiki.corp.internal. AAAA", "AAAA fd00::1 ttl 300"},
		{"corp", "wiki.eu.corp.internal. A", "A 10.2.0.1 ttl 300"},
		{"corp", "www.eu.corp.internal. A", "NXDOMAIN by eu.corp.internal"},
		{"corp", "www.corp.internal. A", "CNAME wiki.corp.internal ttl 60, A 10.1.0.1 ttl 300"},
		{"corp", "out.corp.internal. A", "CNAME www.example.net ttl 60, forward www.example.net"},
		{"corp", "registry.corp.internal. A", "CNAME myreg.cr.cove.internal ttl 60, " + label + "A 10.0.0.7 ttl 10"},
		{"corp", "a.corp.internal. A", "SERVFAIL"},
		{"corp", "x.apps.corp.internal. A", "A 10.1.0.9 ttl 30"},
		{"corp", "two.three.corp.internal. A", "NODATA by corp.internal"},
		{"corp", "four.three.corp.internal. A", "NXDOMAIN by corp.internal"},
		{"corp", "corp.internal. SOA", "SOA corp.internal ttl 10"},
		{"public", "wiki.corp.internal. A", "forward wiki.corp.internal"},
	} {
		name, typ, _ := strings.Cut(c.question, " ")
		a := views[c.view].Answer(t.Context(), name, types[typ])
		if got := told(a); got != c.want {
			t.Errorf("%s, %s:\n got %s\nwant %s\n(%s)", c.view, c.question, got, c.want, a.Why())
		}
		if len(a.Records) > 0 && a.Records[0].Name != name {
			t.Errorf("%s, %s: the answer spells the name %s", c.view, c.question, a.Records[0].Name)
		}
	}
}

// A registry's global name leads to the first of its regions that we have and
// that is not down; a region's own names lead to the region, whatever its
// state, with the private label where the registry has it. row:53
func TestRouting(t *testing.T) {
	many := &Registry{Private: true, Regions: []string{"westeurope", "northeurope"}}
	registries := known{
		"myreg.cr.cove.internal":                 many,
		"myreg.westeurope.geo.cr.cove.internal":  many,
		"myreg.westeurope.data.cr.cove.internal": many,
		"alone.cr.cove.internal":                 {Regions: []string{"westeurope"}},
		"east.cr.cove.internal":                  {Regions: []string{"eastus", "northeurope"}},
		"abroad.cr.cove.internal":                {Regions: []string{"japaneast"}},
	}
	const myreg, geo, data, alone, east, abroad = "myreg", "myreg.westeurope.geo", "myreg.westeurope.data", "alone", "east", "abroad"
	for _, c := range []struct{ down, name, want string }{
		{"", myreg, "westeurope"},
		{"", east, "northeurope"},
		{"", abroad, "westeurope"},
		{"WestEurope", myreg, "northeurope"},
		{"westeurope", geo, "westeurope"},
		{"westeurope", data, "westeurope"},
		{"westeurope", alone, "westeurope"}, // there is nowhere else
		{"westeurope", abroad, "westeurope"},
		{"westeurope northeurope", myreg, "westeurope"},
		{"westeurope northeurope", east, "northeurope"},
	} {
		p, err := NewPublic(Names{
			Domain: "cove.internal", Suffix: "cr.cove.internal", Regions: []string{"westeurope", "northeurope"},
			Down: strings.Fields(c.down), Advertise: []netip.Addr{netip.MustParseAddr("203.0.113.10")},
		}, registries)
		if err != nil {
			t.Fatal(err)
		}
		chain := "CNAME fe." + c.want + ".cove.internal ttl 60, A 203.0.113.10 ttl 10"
		if strings.HasPrefix(c.name, "myreg") {
			chain = "CNAME " + c.name + ".privatelink.cr.cove.internal ttl 3600, " + chain
		}
		if got := told((&View{public: p}).Answer(t.Context(), c.name+".cr.cove.internal", TypeA)); got != chain {
			t.Errorf("%s with %q down:\n got %s\nwant %s", c.name, c.down, got, chain)
		}
	}
	if _, err := NewPublic(Names{
		Domain: "cove.internal", Suffix: "cr.cove.internal", Regions: []string{"westeurope"},
		Down: []string{"mars"}, Advertise: []netip.Addr{netip.MustParseAddr("203.0.113.10")},
	}, registries); err == nil || !strings.Contains(err.Error(), "mars") {
		t.Errorf("a region that we do not have is down: %v", err)
	}
}

// The reason says which zone decided, in words.
func TestWhy(t *testing.T) {
	v := inside(t, link{zone: newRecords("privatelink.cr.cove.internal")})
	for name, want := range map[string]string{
		"myreg.cr.cove.internal":       "the linked zone privatelink.cr.cove.internal is authoritative and has no such name",
		"login.cove.internal":          "answered by the public names of cove.internal",
		"nobody.cr.cove.internal":      "cove.internal has no such name",
		"broken.cr.cove.internal":      "the registry could not be looked up",
		"www.example.net":              "not a name of ours",
		"privatelink.cr.cove.internal": "the name exists in privatelink.cr.cove.internal without a record of this type",
	} {
		if got := v.Answer(t.Context(), name, TypeA).Why(); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// Whatever people write into their zones, an answer ends after eight CNAMEs,
// has one record name for each step, and never holds an address of a zone that
// is not linked.
func TestAnswerAlwaysEnds(t *testing.T) {
	public := publicNames(t)
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"a", "b", "c", "d.e", "*", "*.e", "myreg", "x.y.z"})
		target := rapid.SampledFrom([]string{
			"a.one.internal", "b.one.internal", "c.two.one.internal", "d.e.two.one.internal", "q.e.one.internal",
			"myreg.cr.cove.internal", "myreg.privatelink.cr.cove.internal", "www.example.net", "one.internal",
		})
		v := &View{public: public, zones: map[string]link{}}
		for _, name := range []string{"one.internal", "two.one.internal", "privatelink.cr.cove.internal"} {
			if !rapid.Bool().Draw(t, "linked") {
				continue
			}
			z := newRecords(name)
			for range rapid.IntRange(0, 6).Draw(t, "records") {
				at := absolute(names.Draw(t, "name"), name)
				n := z.copied(at)
				if rapid.Bool().Draw(t, "cname") {
					n.cname = &Record{Type: TypeCNAME, TTL: 1, Target: target.Draw(t, "target")}
				} else {
					n.a = []Record{{Type: TypeA, TTL: 1, Addr: netip.MustParseAddr("10.0.0.1")}}
				}
				z.put(at, n)
			}
			v.zones[name] = link{zone: z, redirect: rapid.Bool().Draw(t, "redirect")}
		}
		a := v.Answer(context.Background(), target.Draw(t, "asked"), rapid.SampledFrom([]uint16{TypeA, TypeAAAA, TypeCNAME, TypeANY}).Draw(t, "type"))
		cnames := 0
		for i, r := range a.Records {
			if r.Type == TypeCNAME {
				cnames++
			}
			if i > 0 && a.Records[i-1].Type == TypeCNAME && r.Name != a.Records[i-1].Target {
				t.Fatalf("the chain breaks at %s", r.Name)
			}
			if r.Addr.IsValid() && r.Addr.String() == "10.0.0.1" && len(v.zones) == 0 {
				t.Fatal("a private address without a linked zone")
			}
		}
		if cnames > maxCNAMEs {
			t.Fatalf("%d CNAME records", cnames)
		}
		if a.Rcode == NXDomain && a.SOA == nil {
			t.Fatal("an absence without the record that says how long it may be remembered")
		}
	})
}

func TestNamesAreChecked(t *testing.T) {
	_, err := NewPublic(Names{Domain: "cove..internal", Suffix: "cr.cove.internal"}, registries)
	for _, want := range []string{`"cove..internal"`, "no region", "no address"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
}

func TestRecordName(t *testing.T) {
	for _, c := range []struct{ zone, fqdn, want string }{
		{"privatelink.cr.cove.internal", "myreg.cr.cove.internal", "myreg"},
		{"PrivateLink.cr.cove.internal", "MyReg.cr.cove.internal.", "myreg"},
		{"privatelink.cr.cove.internal", "myreg.westeurope.data.cr.cove.internal", "myreg.westeurope.data"},
		{"westeurope.data.privatelink.cr.cove.internal", "myreg.westeurope.data.cr.cove.internal", "myreg"},
		{"westeurope.data.privatelink.cr.cove.internal", "myreg.cr.cove.internal", ""},
		{"cr.cove.internal", "myreg.cr.cove.internal", "myreg.privatelink"},
		{"myreg.cr.cove.internal", "myreg.cr.cove.internal", "@"},
		{"evilprivatelink.cr.cove.internal", "myreg.cr.cove.internal", ""},
		{"corp.internal", "myreg.cr.cove.internal", ""},
		{"privatelink.cr.cove.internal", "myreg.evilcr.cove.internal", ""},
		{"privatelink.cr.cove.internal", "cr.cove.internal", ""},
	} {
		got, ok := RecordName(c.zone, c.fqdn, "cr.cove.internal")
		if got != c.want || ok != (c.want != "") {
			t.Errorf("RecordName(%s, %s) = %q, %t, want %q", c.zone, c.fqdn, got, ok, c.want)
		}
	}
}

// A record made under RecordName is what the chain from the public name finds.
func FuzzRecordName(f *testing.F) {
	f.Add("privatelink.cr.cove.internal", "myreg.cr.cove.internal")
	f.Add("a.b", `x\.privatelink.cr.cove.internal`)
	f.Add("cr.cove.internal", "myreg.westeurope.data.cr.cove.internal")
	f.Fuzz(func(t *testing.T, zone, fqdn string) {
		const suffix = "cr.cove.internal"
		name, ok := RecordName(zone, fqdn, suffix)
		if !ok {
			return
		}
		full := absolute(name, zone)
		public := strings.Replace(full, "."+privateLabel+"."+suffix, "."+suffix, 1)
		if want := canonical(fqdn); full != want && public != want {
			t.Fatalf("%q in %q is %q, which overrides nothing of %q", name, zone, full, want)
		}
		if rel, in := below(full, canonical(zone)); !in || rel == "" && name != "@" {
			t.Fatalf("%q does not lie in %q", full, zone)
		}
	})
}

// Names are compared label by label, whatever stands in a label.
func FuzzBelow(f *testing.F) {
	f.Add("a.privatelink.example", "privatelink.example")
	f.Add(`a\.privatelink.example`, "privatelink.example")
	f.Add(`a\\.privatelink.example`, "privatelink.example")
	f.Fuzz(func(t *testing.T, name, apex string) {
		rel, ok := below(name, apex)
		if !ok {
			return
		}
		if name != apex && rel+"."+apex != name {
			t.Fatalf("%q below %q is %q", name, apex, rel)
		}
		// A dot that ends with an odd number of backslashes before it ends no
		// label.
		if n := len(rel) - len(strings.TrimRight(rel, `\`)); n%2 == 1 {
			t.Fatalf("%q was cut inside a label", name)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	v := inside(b, link{zone: zoneFile("privatelink.cr.cove.internal", "myreg A 10.0.0.7 10")})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if a := v.Answer(ctx, "myreg.cr.cove.internal.", TypeA); len(a.Records) != 2 {
			b.Fatal(a)
		}
	}
}

// A zone that is changed name by name answers from what it has then, and what it
// was before a change answers as it did.
func TestAZoneChangesByNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const apex = "one.internal"
		names := rapid.SampledFrom([]string{"@", "a", "b.a", "c.b.a", "d.c.b.a", "*", "*.a", "x.y.z", "y.z"})
		z, held := newRecords(apex), map[string]string{}
		same := func(z *records, want map[string]string) {
			exists := func(name string) bool {
				for held := range want {
					if held == name || strings.HasSuffix(held, "."+name) {
						return true
					}
				}
				return name == apex
			}
			for _, name := range []string{apex, "a." + apex, "b.a." + apex, "c.b.a." + apex, "d.c.b.a." + apex, "q.a." + apex, "x.y.z." + apex, "y.z." + apex, "z." + apex, "q." + apex, "q.q.z." + apex} {
				at := name
				if !exists(name) { // RFC 4592: the wildcard of the closest name that does
					for !exists(at) {
						_, at, _ = strings.Cut(at, ".")
					}
					at = "*." + at
				}
				address, rcode := want[at], NoError
				if !exists(at) {
					rcode = NXDomain
				}
				got := z.step(name, TypeA)
				if got.rcode != rcode || address != "" && (len(got.found) != 1 || got.found[0].Addr.String() != address) || address == "" && len(got.found) != 0 {
					t.Fatalf("%s is %+v; the zone has %v", name, got, want)
				}
			}
		}
		for i := range rapid.IntRange(1, 2*maxLater).Draw(t, "changes") {
			name := absolute(names.Draw(t, "name"), apex)
			before, was := z, maps.Clone(held)
			n := &node{}
			if delete(held, name); rapid.Bool().Draw(t, "there") {
				held[name] = fmt.Sprintf("10.0.%d.%d", i/250, i%250)
				n.a = []Record{{Type: TypeA, TTL: 1, Addr: netip.MustParseAddr(held[name])}}
			}
			z = z.with(name, n)
			if i%16 == 0 {
				same(before, was)
			}
		}
		same(z, held)
	})
}
