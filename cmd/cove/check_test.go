package main

import (
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// Whoever is on call reads the verdict first, then what was measured, and at
// the end what to do about the worst of it. What a server has said of itself
// does nothing to the terminal.
func TestAReportIsReadFromTheTop(t *testing.T) {
	passed := func(layer, said string) health.Result {
		return health.Result{Layer: layer, Subject: "r", Outcome: health.Passed, Said: said}
	}
	for _, x := range []struct {
		what    string
		results []health.Result
		want    string
	}{
		{"all is well", []health.Result{passed(health.LayerName, "r → 10.0.0.4 (private)"), passed(health.LayerManifest, "read")}, `r/app:1 · from here · 1.23s
All that was tried is well (2 ok).

 ✔ name          r → 10.0.0.4 (private)
 ✔ manifest      read
`},
		{"an engine and the way are broken", []health.Result{
			{Layer: health.LayerEngine, Subject: "docker", Outcome: health.Failed, Code: reason.EngineAway, Said: "the daemon does not answer"},
			passed(health.LayerName, "r → 203.0.113.7 (public)"),
			{Layer: health.LayerConnect, Subject: "r", Outcome: health.Failed, Code: reason.PathRefused, Said: "203.0.113.7:443: connection refused", Fix: "start it"},
			{Layer: health.LayerTLS, Subject: "r", Outcome: health.NotReached, Said: "needs a connection"},
		}, `r/app:1 · from here · 1.23s
FAILED at the connection: the connection is refused (1 ok, 2 failed, 1 not reached).

 ✖ engine        docker  the daemon does not answer
                 COVE-CLIENT-002  the container engine does not run
 ✔ name          r → 203.0.113.7 (public)
 ✖ connection    203.0.113.7:443: connection refused
                 COVE-PATH-002  the connection is refused
 · certificate   not reached: needs a connection

next   start it
more   cove help COVE-PATH-002
next   Start the daemon, or let this user use it.
more   cove help COVE-CLIENT-002
`},
		{"a server that writes to the terminal", []health.Result{
			{Layer: health.LayerChallenge, Subject: "r", Outcome: health.Failed, Code: reason.ProxyAnswers, Said: "200 \x1b[2Jall is well\n ✔ manifest", Evidence: []string{"Server: \x1b]0;x\a"}, Fix: "x"},
		}, "r/app:1 · from here · 1.23s\nFAILED at the challenge: something else answers in the registry's place (1 failed).\n\n ✖ challenge     200 �[2Jall is well� ✔ manifest\n                 COVE-PROXY-004  something else answers in the registry's place\n                 Server: �]0;x�\n\nnext   x\nmore   cove help COVE-PROXY-004\n"},
	} {
		var b strings.Builder
		if err := diagnose(&b, health.Report{Target: "r/app:1", Results: x.results, Millis: 1234}, "here"); err != nil {
			t.Fatal(err)
		}
		if b.String() != x.want {
			t.Errorf("%s:\n%s\nwant\n%s", x.what, b.String(), x.want)
		}
	}
}

// A private address that does not answer is a wrong record where no private
// endpoint of the registry holds it, and a wall on the way where one does.
func TestAnAddressThatNobodyHolds(t *testing.T) {
	const name = "r.local.data.cr.cove.internal"
	held := []holder{
		{name: "pe", vnet: "office", state: "Approved", addrs: map[string][]netip.Addr{name: {netip.MustParseAddr("10.0.0.5")}}},
		{name: "old", vnet: "office", state: "Disconnected", addrs: map[string][]netip.Addr{name: {netip.MustParseAddr("10.0.0.9")}}},
	}
	for said, want := range map[string]health.Result{
		"10.0.0.77:443: no answer":    {Code: reason.NameElsewhere, Fix: "cove dns record sync --private-endpoint pe"},
		"10.0.0.9:443: no answer":     {Code: reason.NameElsewhere, Fix: "cove dns record sync --private-endpoint pe"},
		"10.0.0.5:443: no answer":     {Code: reason.PathSilent, Fix: "open it"},
		"203.0.113.7:443: no answer":  {Code: reason.PathSilent, Fix: "open it"},
		"something else: not reached": {Code: reason.PathSilent, Fix: "open it"},
	} {
		r := health.Report{Results: []health.Result{{Layer: health.LayerData, Subject: name, Outcome: health.Failed, Code: reason.PathSilent, Said: said, Fix: "open it"}}}
		strays(r, held)
		if got := r.Results[0]; got.Code != want.Code || got.Fix != want.Fix || (len(got.Evidence) == 1) != (want.Code == reason.NameElsewhere) {
			t.Errorf("%s: %+v", said, got)
		}
	}
}

// Of a network in which the registry has no private endpoint the check says so,
// and what is to be done where there was one.
func TestANetworkWithoutTheEndpoint(t *testing.T) {
	held := []holder{
		{name: "pe", vnet: "hub", subnet: "hub/default", state: "Approved"},
		{name: "old", vnet: "office", subnet: "office/default", state: "Disconnected"},
	}
	if r := absent(held, "spoke", "r", "privatelink.x"); r.Outcome != health.Passed || r.Said != "no private endpoint of r lies in spoke; pe lies in hub" {
		t.Errorf("%+v", r)
	}
	r := absent(held, "office", "r", "privatelink.x")
	if r.Outcome != health.Failed || r.Code != reason.EndpointDead ||
		r.Fix != "cove private-endpoint delete old && cove private-endpoint create old --registry r --subnet office/default --zone privatelink.x" {
		t.Errorf("%+v", r)
	}
}

// Where layers do not come because of the data endpoint's name, what mends the
// name is said, and not to open a firewall.
func TestWhatMendsTheDataEndpointComesFirst(t *testing.T) {
	var b strings.Builder
	err := diagnose(&b, health.Report{Target: "r/app:1", Results: []health.Result{
		{Layer: health.LayerBlob, Subject: "r", Outcome: health.Failed, Code: reason.DataBlocked, Said: "the registry sends layers to r.data, and r.data does not exist"},
		{Layer: health.LayerData, Subject: "r.data", Outcome: health.Failed, Code: reason.PrivateNoRecord, Said: "r.data does not exist", Fix: "cove dns record sync --private-endpoint pe"},
	}}, "here")
	if want := "\nnext   cove dns record sync --private-endpoint pe\nmore   cove help COVE-DNS-006\n"; err != nil || !strings.HasSuffix(b.String(), want) || strings.Count(b.String(), "next ") != 1 {
		t.Errorf("%v\n%s", err, b.String())
	}
}
