package dnsapi

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// digWhole is everything that dig says.
func digWhole(t *testing.T, at netip.AddrPort, args ...string) string {
	t.Helper()
	out, err := exec.Command("dig", append([]string{"@" + at.Addr().String(), "-p", strconv.Itoa(int(at.Port())), "+tries=1", "+time=30"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("dig %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// set writes a record set into the zone of (deployment).zone.
func (d deployment) set(t testing.TB, zone, typ, name, properties string) {
	t.Helper()
	body, err := resource.Decode([]byte(`{"properties":` + properties + `}`))
	if err != nil {
		t.Fatal(err)
	}
	id := arm.MustID(strings.Replace(group, "/g/", "/a/", 1)+"/privateDnsZones/"+zone).Child(typ, name)
	if err := d.store.Update(t.Context(), func(tx resource.Tx) error { return tx.Put(t.Context(), &resource.Doc{ID: id, Body: body}) }); err != nil {
		t.Fatal(err)
	}
}

// Records of every kind, wildcards and an absence with the zone's own times,
// as dig sees them. row:51
func TestDigRecordsByHand(t *testing.T) {
	d := deploy(t)
	const private = "privatelink.cr.cove.internal"
	d.zone(t, "a", private, vnet, map[string]string{"myreg": "10.0.0.7", "*.apps": "10.0.0.9"})
	d.set(t, private, "AAAA", "myreg", `{"ttl":30,"aaaaRecords":[{"ipv6Address":"fd00::7"}]}`)
	d.set(t, private, "CNAME", "alias", `{"ttl":60,"cnameRecord":{"cname":"MyReg.privatelink.cr.cove.internal."}}`)
	d.set(t, private, "SOA", "@", `{"ttl":3600,"soaRecord":{"minimumTtl":7,"email":"ops.example.com"}}`)
	at := serve(t, New(Config{Views: d.Of}), vnet)
	for _, c := range []struct{ args, want string }{
		{"myreg.cr.cove.internal AAAA", "NOERROR\nmyreg.cr.cove.internal. 3600 IN CNAME myreg.privatelink.cr.cove.internal.\nmyreg.privatelink.cr.cove.internal. 30 IN AAAA fd00::7"},
		{"alias.privatelink.cr.cove.internal", "NOERROR\nalias.privatelink.cr.cove.internal. 60 IN CNAME myreg.privatelink.cr.cove.internal.\nmyreg.privatelink.cr.cove.internal. 10 IN A 10.0.0.7"},
		{"alias.privatelink.cr.cove.internal CNAME", "NOERROR\nalias.privatelink.cr.cove.internal. 60 IN CNAME myreg.privatelink.cr.cove.internal."},
		{"x.y.apps.privatelink.cr.cove.internal", "NOERROR\nx.y.apps.privatelink.cr.cove.internal. 10 IN A 10.0.0.9"},
		{"apps.privatelink.cr.cove.internal", "NOERROR"},
		{"myreg.westeurope.data.cr.cove.internal", "NXDOMAIN\nmyreg.westeurope.data.cr.cove.internal. 3600 IN CNAME myreg.westeurope.data.privatelink.cr.cove.internal."},
	} {
		if got := dig(t, at, strings.Fields(c.args)...); got != c.want {
			t.Errorf("dig %s:\n%s\nwant\n%s", c.args, got, c.want)
		}
	}
	missing := digWhole(t, at, "nobody."+private)
	if !strings.Contains(strings.Join(strings.Fields(missing), " "), "flags: qr aa rd ra;") || !strings.Contains(strings.Join(strings.Fields(missing), " "), private+". 7 IN SOA "+private+". ops.example.com. 1 3600 300 2419200 7") {
		t.Errorf("an absence is not authoritative, or not for seven seconds:\n%s", missing)
	}
}

// An answer is no longer than the asker can take, and whole over TCP, to which
// the program goes by itself.
func TestDigTruncation(t *testing.T) {
	d := deploy(t)
	const zone, name = "corp.internal", "long.corp.internal"
	d.zone(t, "a", zone, vnet, nil)
	text := strings.Repeat("x", 250)
	var records []string
	for i := range 6 {
		records = append(records, fmt.Sprintf(`{"value":["%d%s"]}`, i, text))
	}
	d.set(t, zone, "TXT", "long", `{"ttl":10,"txtRecords":[`+strings.Join(records, ",")+`]}`)
	d.set(t, zone, "TXT", "middle", `{"ttl":10,"txtRecords":[`+strings.Join(records[:3], ",")+`]}`)
	at := serve(t, New(Config{Views: d.Of}), vnet)
	for _, c := range []struct {
		args string
		cut  bool
		size int
	}{
		{"long.corp.internal TXT +ignore +noedns", true, 512},
		{"long.corp.internal TXT +ignore +bufsize=600", true, 600},
		{"long.corp.internal TXT +ignore +bufsize=65535", true, maxUDP},
		{"middle.corp.internal TXT +ignore +noedns", true, 512},
		{"middle.corp.internal TXT +ignore +bufsize=512", true, 512},
		{"middle.corp.internal TXT +ignore +bufsize=1232", false, maxUDP},
		{"middle.corp.internal TXT +ignore +bufsize=100", true, 512}, // RFC 6891, 6.2.3
		{"long.corp.internal TXT +noedns", false, 4096},
		{"long.corp.internal TXT +bufsize=4096", false, 4096},
		{"long.corp.internal TXT +tcp", false, 4096},
	} {
		out := digWhole(t, at, strings.Fields(c.args)...)
		flags, _, _ := strings.Cut(out[strings.Index(out, "flags:"):], ";")
		_, after, _ := strings.Cut(out, "MSG SIZE  rcvd: ")
		size, err := strconv.Atoi(strings.Fields(after)[0])
		if cut := strings.Contains(flags, " tc"); err != nil || cut != c.cut || size > c.size {
			t.Errorf("dig %s: truncated %t, %d bytes, want %t and at most %d", c.args, cut, size, c.cut, c.size)
		}
		if want := map[string]int{"long": 6, "midd": 3}[c.args[:4]]; !c.cut && strings.Count(out, text) != want {
			t.Errorf("dig %s: %d texts, want %d", c.args, strings.Count(out, text), want)
		}
	}
}

// What belongs to one network is nothing to the others and to the public,
// whichever way it is asked for: by its name, in other letters, through a
// CNAME of one's own, below a wildcard, over either transport; a forwarder
// behind does not have it either (docs/published-failures.md, failure 54).
func TestAnotherNetworksZonesAreNothing(t *testing.T) {
	d := deploy(t)
	d.zone(t, "a", "secret.internal", vnet, map[string]string{"db": "10.6.6.6", "*.apps": "10.6.6.6", "@": "10.6.6.6"})
	d.zone(t, "b", "own.internal", hub, nil)
	d.zone(t, "c", "privatelink.cr.cove.internal", vnet, map[string]string{"myreg": "10.6.6.6"})
	id := arm.MustID(strings.Replace(group, "/g/", "/b/", 1)+"/privateDnsZones/own.internal").Child("CNAME", "thief")
	if err := d.store.Update(t.Context(), func(tx resource.Tx) error {
		return tx.Put(t.Context(), &resource.Doc{ID: id, Body: resource.Object{"properties": resource.Object{"ttl": 10, "cnameRecord": resource.Object{"cname": "db.secret.internal"}}}})
	}); err != nil {
		t.Fatal(err)
	}
	up := newUpstream(t, func(q *dns.Msg) []*dns.Msg {
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeNameError)
		return []*dns.Msg{m}
	}, func(q *dns.Msg) *dns.Msg {
		m := new(dns.Msg)
		m.SetRcode(q, dns.RcodeNameError)
		return m
	})
	s := New(Config{Views: d.Of, Forward: NewForwarder([]netip.AddrPort{up.at}, nil)})
	owner, other, public := serve(t, s, vnet), serve(t, s, hub), serve(t, s, "")
	names := []string{"db.secret.internal", "DB.Secret.Internal", "x.apps.secret.internal", "secret.internal", "thief.own.internal", "myreg.cr.cove.internal", "myreg.privatelink.cr.cove.internal"}
	for _, name := range names {
		for _, transport := range []string{"+notcp", "+tcp"} {
			for where, at := range map[string]netip.AddrPort{"another network": other, "the public view": public} {
				for _, typ := range []string{"A", "ANY", "SOA", "TXT"} {
					if out := digWhole(t, at, name, typ, transport); strings.Contains(out, "10.6.6.6") || strings.Contains(out, "secret.internal.\t10") {
						t.Errorf("%s has %s %s %s:\n%s", where, name, typ, transport, out)
					}
				}
			}
			if out := digWhole(t, owner, name, transport); name != "thief.own.internal" && !strings.Contains(out, "10.6.6.6") {
				t.Errorf("its own network has no %s %s:\n%s", name, transport, out)
			}
		}
	}
	up.mu.Lock()
	defer up.mu.Unlock()
	for _, q := range up.asked {
		if strings.Contains(strings.ToLower(q.Name), "cove.internal") {
			t.Errorf("a name of ours was asked of the host's resolver: %s", q.Name)
		}
	}
}
