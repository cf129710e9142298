package drift

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/network"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/zone"
)

var (
	now = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	sub = arm.MustID("/subscriptions/11111111-1111-1111-1111-111111111111")
)

func watch() *Watch { return &Watch{Now: func() time.Time { return now }, Subscription: sub} }

// A credential is told of two weeks before it ends, with the day on which what
// uses it breaks, and after its end as broken. row:107
func TestCredentialsThatEnd(t *testing.T) {
	for days, want := range map[int]string{-1: "now", 7: "later", 13: "later", 15: ""} {
		ends := now.Add(time.Duration(days) * 24 * time.Hour)
		got := watch().ending([]Credential{{Holder: sub, Name: "the secret ci", Ends: ends}})
		switch {
		case want == "" && len(got) != 0, want != "" && len(got) != 1:
			t.Errorf("%d days: %+v", days, got)
		case want != "" && (got[0].Code != reason.CredentialEnds || got[0].Now != (want == "now") || !got[0].Breaks.Equal(ends)):
			t.Errorf("%d days: %+v", days, got)
		}
	}
	if got := watch().ending([]Credential{{Name: "one without an end"}}); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestCertificatesThatEnd(t *testing.T) {
	if got := watch().certificates([]Certificate{{Names: []string{"a.example"}, Ends: now.Add(29 * 24 * time.Hour)}}); len(got) != 1 || got[0].Now {
		t.Errorf("%+v", got)
	}
	if got := watch().certificates([]Certificate{{Ends: now.Add(31 * 24 * time.Hour)}}); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestRulesWithoutEffect(t *testing.T) {
	rules := func(public bool, prefixes ...string) []string {
		s := &registry.Settings{Name: "harbor", PublicAccess: public}
		for _, p := range prefixes {
			s.IPRules = append(s.IPRules, netip.MustParsePrefix(p))
		}
		var out []string
		for _, f := range watch().rules(s) {
			out = append(out, f.Says)
		}
		return out
	}
	for _, c := range []struct {
		public   bool
		prefixes []string
		want     []string
	}{
		{true, []string{"203.0.113.0/24", "198.51.100.7/32"}, nil},
		{true, []string{"10.1.0.0/16", "127.0.0.1/32"}, nil}, // of machines beside the server, which do arrive
		{true, []string{"203.0.113.9/32", "203.0.113.0/24"}, []string{"the rule 203.0.113.9/32 of harbor lies within 203.0.113.0/24"}},
		{true, []string{"203.0.113.9/32", "203.0.113.9/32"}, []string{"lies within 203.0.113.9/32"}}, // one of the two
		{false, []string{"203.0.113.9/32"}, []string{"1 address rules"}},
		{false, nil, nil},
	} {
		got := rules(c.public, c.prefixes...)
		if len(got) != len(c.want) {
			t.Errorf("%v %v: %q", c.public, c.prefixes, got)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) {
				t.Errorf("%v: %q, want %q", c.prefixes, got[i], want)
			}
		}
	}
}

func TestANameAgainstItsEndpoint(t *testing.T) {
	e := &network.Endpoint{ID: arm.MustID(sub.String() + "/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/pe"), Member: "registry", Address: netip.MustParseAddr("10.0.0.4")}
	a := func(addrs ...string) (out zone.Answer) {
		for _, s := range addrs {
			out.Records = append(out.Records, zone.Record{Type: zone.TypeA, Addr: netip.MustParseAddr(s)})
		}
		return out
	}
	if f, bad := judge("harbor.cr.cove.internal", e, a("10.0.0.4"), "office"); bad {
		t.Errorf("%+v", f)
	}
	// A second address is as bad as a wrong one: clients take either.
	if _, bad := judge("harbor.cr.cove.internal", e, a("10.0.0.4", "10.0.0.9"), "office"); !bad {
		t.Error("a name with another address besides is taken for right")
	}
	if f, _ := judge("harbor.cr.cove.internal", e, a("203.0.113.1"), "office"); f.Code != reason.NamePublic || f.Cure != "cove dns record sync --private-endpoint pe" {
		t.Errorf("%+v", f)
	}
	e.Member = "registry_data_local"
	if f, _ := judge("harbor.local.data.cr.cove.internal", e, a("203.0.113.1"), "office"); f.Code != reason.DataNamePublic || f.Cure != "cove dns record sync --private-endpoint pe" {
		t.Errorf("%+v", f)
	}
}

// What has come and what has gone is logged once, and counted.
func TestWhatHasComeAndGone(t *testing.T) {
	var log bytes.Buffer
	told := ""
	r := &Runner{Log: slog.New(slog.NewTextHandler(&log, nil)), Every: time.Hour, Tell: func(f Finding, mended bool) {
		told += fmt.Sprint(f.Says, " ", mended, "; ")
	}}
	f := Finding{Code: reason.StaleLink, Title: "stale", Says: "in lab"}
	for _, found := range [][]Finding{{f}, {f}, nil} {
		r.take(found)
		if got := r.Count()[reason.StaleLink]; got != len(found) {
			t.Errorf("counted %d of %d", got, len(found))
		}
	}
	if got := log.String(); strings.Count(got, "found: stale") != 1 || strings.Count(got, "mended: stale") != 1 {
		t.Error(got)
	}
	if told != "in lab false; in lab true; " {
		t.Errorf("told %q", told)
	}
}

// A disk that fills is told of before it is full.
func TestTheDisk(t *testing.T) {
	const gib = 1 << 30
	for _, x := range []struct {
		free, all uint64
		want      bool
	}{
		{0, 24 << 20, true},
		{20 << 20, 24 << 20, false},
		{gib / 2, 100 * gib, true},
		{2 * gib, 100 * gib, false},
		{2 * gib, 4000 * gib, false},
	} {
		if got := little(x.free, x.all); got != x.want {
			t.Errorf("%d of %d: %v", x.free, x.all, got)
		}
	}
}
