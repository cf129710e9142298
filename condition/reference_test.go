package condition_test

import (
	"flag"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cove.example/cove/condition"
)

// The reference works on the text itself: it cuts it into pieces with one
// regular expression and says what they come to while it goes over them. There
// is no tree, no operator is known in advance, and lists are compared by
// writing out every pair. It is for conditions that Parse has taken.
type reference struct {
	pieces []string
	facts  map[string]string // lower-case attribute in brackets → value; one that is missing is absent
	action string
}

var piece = regexp.MustCompile(`@\w+\[[^\]]*\]|'[^']*'|&&|\|\||[(){},!]|[\w:-]+`)

// refer is 1, 0 or -1: true, not known, false.
func refer(text, action string, facts map[string]string) int {
	r := &reference{piece.FindAllString(text, -1), facts, action}
	return r.whole()
}

func (r *reference) peek() string {
	if len(r.pieces) == 0 {
		return ""
	}
	return r.pieces[0]
}

func (r *reference) pop() string {
	p := r.peek()
	r.pieces = r.pieces[1:]
	return p
}

func (r *reference) whole() int {
	all := []int{r.one()}
	joint := ""
	for strings.Contains(" AND && OR || ", " "+r.peek()+" ") && r.peek() != "" {
		joint = r.pop()
		all = append(all, r.one())
	}
	trues, falses := 0, 0
	for _, v := range all {
		switch v {
		case 1:
			trues++
		case -1:
			falses++
		}
	}
	if joint == "OR" || joint == "||" {
		switch {
		case trues > 0:
			return 1
		case falses == len(all):
			return -1
		}
		return 0
	}
	switch {
	case falses > 0:
		return -1
	case trues == len(all):
		return 1
	}
	return 0
}

func (r *reference) one() int {
	switch p := r.peek(); {
	case p == "NOT" || p == "!":
		r.pop()
		return -r.one()
	case p == "(":
		r.pop()
		v := r.whole()
		r.pop()
		return v
	case p == "ActionMatches" || p == "SubOperationMatches":
		r.pop()
		r.pop()
		pattern := unquote(r.pop())
		r.pop()
		expression := "(?is)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$"
		return sign(p == "ActionMatches" && regexp.MustCompile(expression).MatchString(r.action))
	case p == "Exists":
		r.pop()
		_, ok := r.facts[key(r.pop())]
		return sign(ok)
	}
	left, leftKnown := r.values()
	operator := r.pop()
	right, rightKnown := r.values()
	if !leftKnown || !rightKnown {
		return 0
	}
	prefix, bare, found := strings.Cut(operator, ":")
	if !found {
		prefix, bare = "ForAnyOfAnyValues", operator
	}
	good := 0
	for _, l := range left {
		n := 0
		for _, w := range right {
			if apply(bare, l, w) {
				n++
			}
		}
		if n == len(right) || n > 0 && strings.HasSuffix(prefix, "OfAnyValues") {
			good++
		}
	}
	return sign(good == len(left) || good > 0 && strings.HasPrefix(prefix, "ForAny"))
}

func (r *reference) values() ([]string, bool) {
	switch p := r.pop(); {
	case p == "{":
		var out []string
		for {
			out = append(out, unquote(r.pop()))
			if r.pop() == "}" {
				return out, true
			}
		}
	case strings.HasPrefix(p, "@"):
		v, ok := r.facts[key(p)]
		return []string{v}, ok
	default:
		return []string{unquote(p)}, true
	}
}

func key(attribute string) string {
	name := strings.TrimSuffix(attribute[strings.Index(attribute, "[")+1:], "]")
	return strings.ToLower(strings.TrimSpace(name))
}

func unquote(s string) string { return strings.Trim(s, "'") }

func sign(b bool) int {
	if b {
		return 1
	}
	return -1
}

func apply(operator, l, w string) bool {
	if s, ok := strings.CutSuffix(operator, "IgnoreCase"); ok {
		operator, l, w = s, lowered(l), lowered(w)
	}
	if strings.Contains(operator, "Not") {
		return !apply(strings.Replace(operator, "Not", "", 1), l, w)
	}
	difference := 0
	switch {
	case strings.HasPrefix(operator, "Numeric"):
		a, _ := strconv.ParseFloat(l, 64)
		b, _ := strconv.ParseFloat(w, 64)
		switch {
		case a < b:
			difference = -1
		case a > b:
			difference = 1
		}
	case strings.HasPrefix(operator, "DateTime"):
		a, _ := time.Parse(time.RFC3339Nano, l)
		b, _ := time.Parse(time.RFC3339Nano, w)
		difference = a.Compare(b)
	case strings.HasPrefix(operator, "Guid"):
		difference = strings.Compare(lowered(l), lowered(w))
	default:
		difference = strings.Compare(l, w)
	}
	switch {
	case strings.HasSuffix(operator, "GreaterThanEquals"):
		return difference >= 0
	case strings.HasSuffix(operator, "LessThanEquals"):
		return difference <= 0
	case strings.HasSuffix(operator, "GreaterThan"):
		return difference > 0
	case strings.HasSuffix(operator, "LessThan"):
		return difference < 0
	case strings.HasSuffix(operator, "StartsWith"):
		return strings.Index(l, w) == 0
	case strings.HasSuffix(operator, "Like"):
		e := regexp.QuoteMeta(w)
		for _, c := range [][2]string{{`\\\*`, "\x00"}, {`\\\?`, "\x01"}, {`\*`, "(?s:.*)"}, {`\?`, "(?s:.)"}, {"\x00", `\*`}, {"\x01", `\?`}} {
			e = strings.ReplaceAll(e, c[0], c[1])
		}
		return regexp.MustCompile("^" + e + "$").MatchString(l)
	}
	return difference == 0
}

// lowered is for ASCII alone: that is what names here are made of.
func lowered(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// facts are a request's attributes as the reference takes them.
func facts(r *condition.Request) map[string]string {
	out := map[string]string{"isprivatelink": strconv.FormatBool(r.PrivateLink)}
	for name, v := range map[string]string{
		"microsoft.containerregistry/registries/repositories:name": r.Repository,
		"microsoft.network/privateendpoints":                       r.Endpoint,
		"microsoft.network/virtualnetworks/subnets":                r.Subnet,
	} {
		if v != "" {
			out[name] = v
		}
	}
	if !r.Now.IsZero() {
		out["utcnow"] = r.Now.UTC().Format("2006-01-02T15:04:05.0000000Z")
	}
	return out
}

func drawRequest(t *rapid.T) condition.Request {
	return condition.Request{
		Action:      rapid.SampledFrom([]string{read, write, repositories + "content/delete", "Microsoft.ContainerRegistry/registries/catalog/read"}).Draw(t, "action"),
		Repository:  rapid.SampledFrom([]string{"", "a", "team/api", "team/web", "ops/x", "opsx"}).Draw(t, "repository"),
		PrivateLink: rapid.Bool().Draw(t, "private"),
		Endpoint:    rapid.SampledFrom([]string{"", endpointID}).Draw(t, "endpoint"),
		Subnet:      rapid.SampledFrom([]string{"", subnetID}).Draw(t, "subnet"),
		Now:         rapid.SampledFrom([]time.Time{noon, noon.Add(time.Hour), noon.Add(100 * time.Nanosecond)}).Draw(t, "now"),
	}
}

// drawCondition writes a condition of every form that the grammar has.
func drawCondition(t *rapid.T, depth int) string {
	pick := func(label string, from ...string) string { return rapid.SampledFrom(from).Draw(t, label) }
	blank := func() string { return pick("blank", " ", "  ", "\n", "\t") }
	if depth > 0 && rapid.Bool().Draw(t, "nested") {
		joint := pick("joint", "AND", "&&", "OR", "||")
		var terms []string
		for range rapid.IntRange(1, 3).Draw(t, "terms") {
			term := "(" + drawCondition(t, depth-1) + ")"
			terms = append(terms, pick("not", "", "!", "NOT ")+term)
		}
		return strings.Join(terms, blank()+joint+blank())
	}
	strs := []string{"'a'", "'team/api'", "'TEAM/API'", "'team/'", "'ops*'", "'*/?pi'", `'a\*'`, "''", "'" + endpointID + "'", "'Team/*'"}
	numbers := []string{"1", "2", "-3", "10", "0"}
	moments := []string{"'2026-05-01T12:00:00Z'", "'2026-05-01T12:00:00.0000001Z'", "'2030-01-01T00:00:00.5Z'", "'2020-12-31T23:59:59.1234567Z'"}
	guids := []string{"'aaaaaaaa-0000-4000-8000-000000000001'", "'AAAAAAAA-0000-4000-8000-000000000001'", "'aaaaaaaa-0000-4000-8000-000000000002'"}
	list := func(values []string) string {
		return "{" + strings.Join(rapid.SliceOfN(rapid.SampledFrom(values), 1, 3).Draw(t, "list"), blank()+",") + "}"
	}
	crossed := func(operator string, sides func() string) string {
		return sides() + blank() + pick("quantifier", "ForAnyOfAnyValues", "ForAllOfAnyValues", "ForAnyOfAllValues", "ForAllOfAllValues") + ":" + operator + blank() + sides()
	}
	either := func(attributes, literals []string) func() string {
		return func() string { return pick("operand", append(append([]string{}, attributes...), literals...)...) }
	}
	attributes := []string{repo, repo, "@Environment[Microsoft.Network/privateEndpoints]", "@Environment[Microsoft.Network/virtualNetworks/subnets]"}
	compare := pick("comparison", "Equals", "NotEquals", "GreaterThan", "GreaterThanEquals", "LessThan", "LessThanEquals")
	text := pick("not", "", "Not")
	fold := pick("fold", "", "IgnoreCase")
	word := text + pick("text", "Equals", "Like")
	plain := func(operator string, side func() string) string {
		return side() + blank() + operator + blank() + side()
	}
	switch rapid.IntRange(0, 10).Draw(t, "form") {
	case 0:
		return "ActionMatches" + blank() + "{" + pick("pattern", "'"+read+"'", "'"+strings.ToUpper(write)+"'", "'*'", "'*/content/*'", "'Microsoft.ContainerRegistry/registries/*/read'", "'x'") + "}"
	case 1:
		return "SubOperationMatches{'*'}"
	case 2:
		return "Exists " + pick("attribute", append(attributes, "@Environment[UtcNow]", "@Environment[isPrivateLink]")...)
	case 3:
		return plain("String"+text+"StartsWith"+fold, either(attributes, strs))
	case 4:
		return plain("String"+word+fold, either(attributes, strs))
	case 5:
		return crossed("String"+word+fold, func() string {
			if rapid.Bool().Draw(t, "set") {
				return list(strs)
			}
			return either(attributes, strs)()
		})
	case 6:
		return crossed("Numeric"+compare, func() string { return list(numbers) })
	case 7:
		return plain("DateTime"+compare, either([]string{"@Environment[UtcNow]"}, moments))
	case 8:
		return plain("Bool"+text+"Equals", either([]string{"@Environment[isPrivateLink]"}, []string{"true", "false"}))
	case 9:
		return crossed("Guid"+text+"Equals", func() string { return list(guids) })
	}
	return plain("Numeric"+compare, either(nil, numbers))
}

// The evaluator agrees with the reference on every condition that the grammar
// has.
func TestTheEvaluatorAgreesWithTheReference(t *testing.T) {
	before := flag.Lookup("rapid.checks").Value.String()
	flag.Set("rapid.checks", "3000")
	defer flag.Set("rapid.checks", before)
	seen := map[bool]int{}
	rapid.Check(t, func(t *rapid.T) {
		text, r := drawCondition(t, 3), drawRequest(t)
		c, err := condition.Parse(text)
		if err != nil {
			t.Fatalf("%s\n%v", text, err)
		}
		want := refer(text, r.Action, facts(&r)) == 1
		if c.Holds(&r) != want || c.Possible(&r) != want {
			t.Fatalf("%s\nfor %+v: %v, the reference says %v", text, r, c.Holds(&r), want)
		}
		seen[want]++
		anywhere := r
		anywhere.Repository = condition.Any
		if r.Repository != "" && (want && !c.Possible(&anywhere) || c.Holds(&anywhere) && !want) {
			t.Fatalf("%s\nfor %+v: %v, and for any repository: holds %v, possible %v", text, r, want, c.Holds(&anywhere), c.Possible(&anywhere))
		}
	})
	if seen[true] < 10 || seen[false] < 10 {
		t.Errorf("the conditions drawn say nothing: %v", seen)
	}
}

// What Parse takes the reference understands alike; what it refuses it refuses
// at a place that is in the text.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", writer, template(repo+" StringLike 'a*' OR "+repo+" StringLike 'b?'", read),
		"@Environment[UtcNow] DateTimeLessThan '2026-05-01T12:00:00Z'", "!(1 NumericEquals -1)",
		"{'red','blue'} ForAllOfAnyValues:StringNotLikeIgnoreCase {'blue','gr*'}", "Exists @Environment[isPrivateLink]",
	} {
		f.Add(text, "team/api", true)
	}
	f.Fuzz(func(t *testing.T, text, name string, inside bool) {
		c, err := condition.Parse(text)
		if err != nil {
			at, ok := err.(*condition.Error)
			if !ok || at.Line < 1 || at.Column < 1 || at.Line > strings.Count(text, "\n")+1 || at.Column > len(text)+1 {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		r := condition.Request{Action: read, Repository: name, PrivateLink: inside, Now: noon}
		if name == condition.Any {
			return
		}
		if want := refer(text, r.Action, facts(&r)) == 1; c.Holds(&r) != want {
			t.Fatalf("%q for %s: %v, the reference says %v", text, fmt.Sprintf("%+v", r), !want, want)
		}
	})
}
