package zone_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/zone"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Every type of record set that a zone takes is answered in the networks that
// it is linked to, as it was written.
func TestRareRecordSets(t *testing.T) {
	each(t, func(w *world) {
		z := zoneID(group, "corp.internal")
		w.put(z, `{}`)
		w.vnet("spoke")
		w.link(z, "spoke")
		for _, c := range []struct {
			id, body, name string
			qtype          uint16
			want           []zone.Record
		}{
			{"TXT/t", `{"properties":{"ttl":30,"txtRecords":[{"value":["v=1; \"a\\b\"","second"]},{"value":["é"]}]}}`, "t.corp.internal", zone.TypeTXT, []zone.Record{{Text: []string{`v=1; "a\b"`, "second"}}, {Text: []string{"é"}}}},
			{"MX/@", `{"properties":{"ttl":30,"mxRecords":[{"preference":10,"exchange":"Mail.corp.internal."}]}}`, "corp.internal", zone.TypeMX, []zone.Record{{Preference: 10, Target: "mail.corp.internal"}}},
			{"SRV/_ldap._tcp", `{"properties":{"ttl":30,"srvRecords":[{"priority":1,"weight":2,"port":389,"target":"a.corp.internal"}]}}`, "_ldap._tcp.corp.internal", zone.TypeSRV, []zone.Record{{Priority: 1, Weight: 2, Port: 389, Target: "a.corp.internal"}}},
			{"PTR/5", `{"properties":{"ttl":30,"ptrRecords":[{"ptrdname":"a.corp.internal"}]}}`, "5.corp.internal", zone.TypePTR, []zone.Record{{Target: "a.corp.internal"}}},
		} {
			w.put(z+"/"+c.id, c.body)
			for i := range c.want {
				c.want[i].Name, c.want[i].Type, c.want[i].TTL = c.name, c.qtype, 30
			}
			view := w.views.Of(arm.MustID(vnetID("spoke")).Key())
			if d := cmp.Diff(c.want, view.Answer(t.Context(), c.name, c.qtype).Records, cmpopts.EquateComparable(netip.Addr{})); d != "" {
				t.Errorf("%s: %s", c.id, d)
			}
			if a := view.Answer(t.Context(), c.name, zone.TypeAAAA); a.Rcode != zone.NoError || a.SOA == nil {
				t.Errorf("%s, asked for another type: %v", c.id, a)
			}
		}
		if got := resource.Lookup(w.get(z), "properties.numberOfRecordSets"); fmt.Sprint(got) != "5" {
			t.Errorf("%v record sets", got)
		}
		for _, c := range []struct{ id, body, path string }{
			{"TXT/x", `{"properties":{"txtRecords":[{"value":"a"}]}}`, "properties.txtRecords[0].value"},
			{"TXT/x", `{"properties":{"txtRecords":[{"value":["` + strings.Repeat("x", 256) + `"]}]}}`, "properties.txtRecords[0].value[0]"},
			{"TXT/x", `{"properties":{"txtRecords":[7]}}`, "properties.txtRecords[0]"},
			{"MX/x", `{"properties":{"mxRecords":[{"preference":65536,"exchange":"a.b"}]}}`, "properties.mxRecords[0].preference"},
			{"SRV/x", `{"properties":{"srvRecords":[{"priority":1,"weight":1,"target":"a.b"}]}}`, "properties.srvRecords[0].port"},
			{"PTR/x", `{"properties":{"ptrRecords":[{"ptrdname":"a b"}]}}`, "properties.ptrRecords[0].ptrdname"},
			{"PTR/x", `{"properties":{"ptrRecords":{}}}`, "properties.ptrRecords"},
			{"A/x", `{"properties":{"metadata":["a"]}}`, "properties.metadata"},
			{"A/x", `{"properties":{"metadata":{"a":1}}}`, "properties.metadata.a"},
		} {
			if _, err := w.try(owner, z+"/"+c.id, c.body); invalid(err) != c.path {
				t.Errorf("%s %.60s: %v", c.id, c.body, err)
			}
		}
		_, err := w.try(owner, z+"/CNAME/t", `{"properties":{"cnameRecord":{"cname":"a.b"}}}`)
		w.refused(err, "Conflict", "CNAME")
	})
}

func decode(t *testing.T, text string) resource.Object {
	t.Helper()
	o, err := resource.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// A PATCH brings the whole metadata, as az sends it: what is not in it any more
// is gone, and a PATCH of something else leaves it.
func TestMetadataIsReplaced(t *testing.T) {
	each(t, func(w *world) {
		z := zoneID(group, "corp.internal")
		w.put(z, `{}`)
		www := z + "/A/www"
		w.put(www, `{"properties":{"ttl":30,"metadata":{"a":"1","b":"2"}}}`)
		for _, c := range []struct{ patch, want string }{
			{`{"properties":{"metadata":{"b":"3"}}}`, "map[b:3]"},
			{`{"properties":{"ttl":40}}`, "map[b:3]"},
			{`{"properties":{"metadata":{}}}`, "map[]"},
		} {
			got, err := w.svc.Patch(t.Context(), owner, arm.MustID(www), decode(t, c.patch), resource.Condition{})
			w.check(err)
			if m := fmt.Sprint(resource.Lookup(got.Body, "properties.metadata")); m != c.want {
				t.Errorf("after %s it is %s, want %s", c.patch, m, c.want)
			}
		}
	})
}

// What is set in a zone's SOA is what is answered, and how long an absence is
// remembered; the server and the serial are the zone's own.
func TestSOAIsObeyed(t *testing.T) {
	each(t, func(w *world) {
		z := zoneID(group, "corp.internal")
		w.put(z, `{}`)
		w.vnet("spoke")
		w.link(z, "spoke")
		absent := func() zone.Record {
			return *w.views.Of(arm.MustID(vnetID("spoke")).Key()).Answer(t.Context(), "nothere.corp.internal", zone.TypeA).SOA
		}
		if soa := absent(); soa.TTL != 10 || soa.SOA.Minimum != 10 {
			t.Errorf("at first: %v", soa)
		}
		before := w.get(z + "/SOA/@")
		w.put(z+"/SOA/@", `{"properties":{"ttl":120,"soaRecord":{"host":"evil.example","serialNumber":7,"email":"me.corp.internal","expireTime":3000,"minimumTTL":300,"refreshTime":50}}}`)
		soa := absent()
		want := zone.SOA{Mailbox: "me.corp.internal", Serial: 1, Refresh: 50, Retry: 300, Expire: 3000, Minimum: 300}
		if soa.TTL != 120 || soa.Target != "corp.internal" || *soa.SOA != want {
			t.Errorf("set: %v %v", soa, soa.SOA)
		}
		shown := w.get(z + "/SOA/@")
		if got := resource.Lookup(shown, "properties.soaRecord.host"); got != "corp.internal" {
			t.Errorf("shown: %v", shown)
		}
		w.put(z+"/SOA/@", `{"properties":{}}`)
		if after := w.get(z + "/SOA/@"); fmt.Sprint(resource.Lookup(after, "properties")) != fmt.Sprint(resource.Lookup(before, "properties")) {
			t.Errorf("set back: %v, first %v", after, before)
		}
		for body, path := range map[string]string{
			`{"properties":{"ttl":0}}`:                                       "properties.ttl",
			`{"properties":{"soaRecord":{"minimumTtl":-1}}}`:                 "properties.soaRecord.minimumTtl",
			`{"properties":{"soaRecord":{"minimumTtl":60,"minimumTTL":70}}}`: "properties.soaRecord.minimumTtl",
			`{"properties":{"soaRecord":{"email":"me@corp.internal"}}}`:      "properties.soaRecord.email",
			`{"properties":{"soaRecord":[]}}`:                                "properties.soaRecord",
		} {
			if _, err := w.try(owner, z+"/SOA/@", body); invalid(err) != path {
				t.Errorf("%s: %v", body, err)
			}
		}
	})
}
