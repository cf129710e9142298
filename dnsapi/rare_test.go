package dnsapi

import (
	"bytes"
	"testing"

	"github.com/miekg/dns"

	"cove.example/cove/zone"
)

// A record is on the wire what the zone holds, backslashes and quotes of a
// text included.
func TestRareRecordsOnTheWire(t *testing.T) {
	for _, c := range []struct {
		record zone.Record
		wire   string // its data
	}{
		{zone.Record{Type: zone.TypeTXT, Text: []string{`a\b "c" \097`, "é"}}, "\x0ca\\b \"c\" \\097\x02é"},
		{zone.Record{Type: zone.TypeMX, Preference: 258, Target: "m.x"}, "\x01\x02\x01m\x01x\x00"},
		{zone.Record{Type: zone.TypeSRV, Priority: 1, Weight: 2, Port: 443, Target: "s.x"}, "\x00\x01\x00\x02\x01\xbb\x01s\x01x\x00"},
		{zone.Record{Type: zone.TypePTR, Target: "p.x"}, "\x01p\x01x\x00"},
		{zone.Record{Type: zone.TypeSOA, Target: "z.x", SOA: &zone.SOA{Mailbox: "m.y", Serial: 1, Refresh: 2, Retry: 3, Expire: 4, Minimum: 5}}, "\x01z\x01x\x00\x01m\x01y\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x04\x00\x00\x00\x05"},
	} {
		c.record.Name, c.record.TTL = "o.x", 30
		b := make([]byte, 512)
		n, err := dns.PackRR(rr(c.record), b, 0, nil, false)
		if err != nil || !bytes.HasSuffix(b[:n], []byte(c.wire)) {
			t.Errorf("%v: %q, %v", c.record, b[:n], err)
		}
	}
}
