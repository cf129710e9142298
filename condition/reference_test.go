package condition_test

import (
	"errors"
	"flag"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"cove.example/cove/condition"
	"cove.example/cove/policytest"
)

// checks has rapid draw that many times until the test ends.
func checks(t testing.TB, n string) {
	before := flag.Lookup("rapid.checks").Value.String()
	flag.Set("rapid.checks", n)
	t.Cleanup(func() { flag.Set("rapid.checks", before) })
}

// request is the request as the condition package takes it.
func request(t testing.TB, q policytest.Request) condition.Request {
	now, err := time.Parse(time.RFC3339Nano, q.Now)
	if err != nil {
		t.Fatal(err)
	}
	return condition.Request{Action: q.Action, Repository: q.Repository, PrivateLink: q.PrivateLink, Endpoint: q.PrivateEndpoint, Subnet: q.Subnet, Now: now}
}

// The evaluator agrees with the reference on every condition that the grammar
// has.
func TestTheEvaluatorAgreesWithTheReference(t *testing.T) {
	outer := t
	checks(t, "8000")
	seen := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		text, q := policytest.DrawCondition(t, 3), policytest.DrawRequest(t)
		c, err := condition.Parse(text)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		e, err := policytest.ParseCondition(text)
		if err != nil {
			t.Fatalf("%s\nthe reference: %v", text, err)
		}
		want, r := e.Holds(q), request(outer, q)
		if c.Holds(&r) != want || c.Possible(&r) != want {
			t.Fatalf("%s\nfor %+v: %v, the reference says %v", text, q, c.Holds(&r), want)
		}
		seen[want]++
		anywhere := r
		anywhere.Repository = condition.Any
		if r.Repository != "" && (want && !c.Possible(&anywhere) || c.Holds(&anywhere) && !want) {
			t.Fatalf("%s\nfor %+v: %v, and for any repository: holds %v, possible %v", text, q, want, c.Holds(&anywhere), c.Possible(&anywhere))
		}
	})
	if min(seen[true], seen[false]) < 1000 {
		t.Errorf("the conditions drawn say nothing: %v", seen)
	}
}

// agrees holds the parser to the reference's on one text: both take it, or both
// refuse it, and then at a place that is in the text.
func agrees(t interface{ Fatalf(string, ...any) }, text string) bool {
	_, err := condition.Parse(text)
	_, refused := policytest.ParseCondition(text)
	if (err == nil) != (refused == nil) {
		t.Fatalf("%q\n the parser: %v\nthe reference: %v", text, err, refused)
	}
	if err == nil {
		return true
	}
	var at *condition.Error
	if !errors.As(err, &at) {
		t.Fatalf("%q: %T", text, err)
	}
	lines := strings.Split(text, "\n")
	if at.Line < 1 || at.Line > len(lines) || at.Column < 1 || at.Column > utf8.RuneCountInString(lines[at.Line-1])+1 {
		t.Fatalf("%q: %v is not in the text", text, err)
	}
	return false
}

// What is no condition is refused by both, what is one is taken by both.
func TestTheParserAgreesWithTheReference(t *testing.T) {
	checks(t, "8000")
	taken, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		if agrees(t, policytest.DrawMutation(t, policytest.DrawCondition(t, 2))) {
			taken++
		} else {
			refused++
		}
	})
	if min(taken, refused) < 200 {
		t.Errorf("%d texts taken and %d refused say nothing", taken, refused)
	}
}

// What a stranger writes is taken or refused as by the reference, and means the
// same; what is refused is so at a place that is in the text.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", writer, template(repo+" StringLike 'a*' OR "+repo+" StringLike 'b?'", read),
		"@Environment[UtcNow] DateTimeLessThan '2026-05-01T12:00:00Z'", "!(1 NumericEquals -1)",
		"{'red','blue'} ForAllOfAnyValues:StringNotLikeIgnoreCase {'blue','gr*'}", "Exists @Environment[isPrivateLink]",
	} {
		f.Add(text, "team/api", true)
	}
	f.Fuzz(func(t *testing.T, text, name string, inside bool) {
		// The reference has no bounds, and its time grows with what they bound.
		if len(text) > 500 || strings.Count(text, "*") > 4 || strings.Count(text, "(") > condition.MaxDepth || !utf8.ValidString(text+name) || len(name) > 50 || name == condition.Any {
			_, err := condition.Parse(text)
			if at := (*condition.Error)(nil); err != nil && (!errors.As(err, &at) || at.Column < 1 || at.Column > math.MaxInt32) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if !agrees(t, text) {
			return
		}
		q := policytest.Request{Action: read, Repository: name, PrivateLink: inside, Now: policytest.Moments[1]}
		r := request(t, q)
		if c, want := parsed(t, text), policytest.Holds(text, q); c.Holds(&r) != want {
			t.Fatalf("%q for %+v: %v, the reference says %v", text, q, !want, want)
		}
	})
}
