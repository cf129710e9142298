package kql

import (
	"encoding/json"
	"testing"
	"time"
)

func TestParseInterval(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "0001-01-01T00:00:00Z 0001-01-01T00:00:00Z"},
		{"PT1H", "2026-11-21T11:00:00Z 2026-11-21T12:00:00Z"},
		{"P1DT30M", "2026-11-20T11:30:00Z 2026-11-21T12:00:00Z"},
		{"P1W", "2026-11-14T12:00:00Z 2026-11-21T12:00:00Z"},
		{"2026-11-20/2026-11-21T06:00:00Z", "2026-11-20T00:00:00Z 2026-11-21T06:00:00Z"},
		{"2026-11-20T00:00:00Z/PT2H", "2026-11-20T00:00:00Z 2026-11-20T02:00:00Z"},
		{"PT2H/2026-11-20T02:00:00Z", "2026-11-20T00:00:00Z 2026-11-20T02:00:00Z"},
		{"1h", "refused"},
		{"P", "refused"},
		{"PT", "refused"},
		{"P1H", "refused"},
		{"P1M", "refused"},
		{"PT1S1H", "refused"},
		{"PT1H/PT2H", "refused"},
		{"2026-11-21/2026-11-20", "refused"},
		{"P9999999D", "refused"},
		{"P999999D", "refused"},
		{"PT1H/", "refused"},
	} {
		from, to, err := ParseInterval(c.text, noon)
		got := from.UTC().Format(time.RFC3339) + " " + to.UTC().Format(time.RFC3339)
		if err != nil {
			got = "refused"
		}
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
}

// The form that az and the SDKs of Log Analytics read.
func TestTables(t *testing.T) {
	a, err := Run(t.Context(), visits(), `Visits | summarize N = count(), S = make_set(Who), M = avg(toint(Code)) by What | top 1 by N`, Options{Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(a.Tables())
	want := `{"tables":[{"columns":[{"name":"What","type":"string"},{"name":"N","type":"long"},{"name":"S","type":"dynamic"},{"name":"M","type":"real"}],"name":"PrimaryResult","rows":[["Pull",3,"[\"ann\",\"Ann\",\"\"]",335]]}]}`
	if err != nil || string(b) != want {
		t.Errorf("%s\n%v", b, err)
	}
}

// An interval never ends before it begins, and never is one without the other.
func FuzzParseInterval(f *testing.F) {
	for _, s := range []string{"", "PT1H", "P1DT30M", "2026-11-20/2026-11-21T06:00:00Z", "2026-11-20T00:00:00Z/PT2H", "PT2H/2026-11-20T02:00:00Z", "P9999999D", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, to, err := ParseInterval(s, noon)
		if err == nil && (to.Before(from) || from.IsZero() != to.IsZero() && s == "") {
			t.Fatalf("%q: %s to %s", s, from, to)
		}
	})
}
