package main

import (
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
