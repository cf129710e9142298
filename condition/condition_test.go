package condition_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"cove.example/cove/condition"
)

const (
	repositories = "Microsoft.ContainerRegistry/registries/repositories/"
	repo         = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"
	read         = repositories + "content/read"
	write        = repositories + "content/write"
	endpointID   = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/pe1"
	subnetID     = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/nodes"
)

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func parsed(t testing.TB, text string) *condition.Condition {
	t.Helper()
	c, err := condition.Parse(text)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c
}

// template is the form in which the portal writes conditions.
func template(test string, actions ...string) string {
	var left []string
	for _, a := range actions {
		left = append(left, "!(ActionMatches{'"+a+"'})")
	}
	return "((" + strings.Join(left, " AND ") + ") OR (" + test + "))"
}

// row:76 row:79: what is named in the left half of the template is restricted
// to what the right half says; what is not named is not.
func TestTheTemplateRestrictsWhatItNames(t *testing.T) {
	one := template(repo+" StringEqualsIgnoreCase 'team/api'", read, repositories+"metadata/read")
	prefix := template(repo+" StringStartsWith 'ops/'", read, write)
	loose := template(repo+" StringStartsWith 'ops'", read)
	either := template(repo+" StringStartsWith 'a/' OR "+repo+" StringStartsWith 'b/'", read)
	for _, c := range []struct {
		text, action, repo string
		want               bool
	}{
		{one, read, "team/api", true},
		{one, strings.ToUpper(read), "team/api", true},
		{one, read, "team/api2", false},
		{one, strings.ToUpper(read), "team/api2", false},
		{one, repositories + "metadata/read", "team/api2", false},
		{one, write, "team/api2", true},
		{prefix, write, "ops/x", true},
		{prefix, write, "opsx", false},
		{prefix, read, "OPS/x", false},
		{loose, read, "opsx", true},
		{loose, write, "other", true}, // named for reading only: pushing is open everywhere
		{either, read, "a/x", true},
		{either, read, "b/x", true},
		{either, read, "c/x", false},
		{either, read, "", false}, // the catalog has no repository
	} {
		if got := parsed(t, c.text).Holds(&condition.Request{Action: c.action, Repository: c.repo}); got != c.want {
			t.Errorf("%s of %q under\n%s: %v", c.action, c.repo, c.text, got)
		}
	}
}

func TestConditionsAreTrueOrNot(t *testing.T) {
	inside := condition.Request{
		Action: read, Repository: "team/api", PrivateLink: true, Endpoint: endpointID, Subnet: subnetID, Now: noon,
	}
	bare := condition.Request{Action: read}
	for _, c := range []struct {
		text         string
		inside, bare bool
	}{
		{"@Environment[isPrivateLink] BoolEquals true", true, false},
		{"@Environment[isPrivateLink] BoolNotEquals true", false, true},
		{"false BoolEquals @Environment[isPrivateLink]", false, true},
		{"@environment[isPrivateLink] BoolEquals true", false, false}, // no such source: see the errors
		{"@Environment[Microsoft.Network/privateEndpoints] StringEqualsIgnoreCase '" + strings.ToUpper(endpointID) + "'", true, false},
		{"@Environment[Microsoft.Network/privateEndpoints] StringNotEquals 'x'", true, false}, // what is absent is not unequal either
		{"!(@Environment[Microsoft.Network/privateEndpoints] StringEquals 'x')", true, false},
		{"@Environment[Microsoft.Network/virtualNetworks/subnets] StringLike '*/virtualNetworks/?/subnets/nodes'", true, false},
		{"@Environment[UtcNow] DateTimeGreaterThan '2026-05-01T11:59:59.9999999Z'", true, false},
		{"@Environment[UtcNow] DateTimeGreaterThan '2026-05-01T12:00:00Z'", false, false},
		{"@Environment[UtcNow] DateTimeEquals '2026-05-01T12:00:00.000Z'", true, false},
		{"@Environment[UtcNow] DateTimeLessThanEquals '9999-12-31T23:59:59.9999999Z'", true, false},
		{"Exists @Environment[Microsoft.Network/privateEndpoints]", true, false},
		{"NOT Exists " + repo, false, true},
		{repo + " StringEquals 'team/api'", true, false},
		{repo + " StringEquals 'Team/api'", false, false},
		{repo + " StringNotStartsWithIgnoreCase 'TEAM/'", false, false},
		{repo + " ForAnyOfAnyValues:StringLikeIgnoreCase {'x', 'TEAM/*'}", true, false},
		{repo + " ForAnyOfAnyValues:StringNotEquals {'team/api'}", false, false},
		{"@Request[ MICROSOFT.containerregistry/registries/repositories:NAME ] StringEquals 'team/api'", true, false},
		{"SubOperationMatches{'*'}", false, false}, // no request has one
		{"ActionMatches{'*/content/*'} && !ActionMatches{'*/write'}", true, true},
		{"(1 NumericLessThan 2) || (2 NumericLessThan 1)", true, true},
		{"-3 NumericGreaterThan -4", true, true},
		{"'AAAAAAAA-0000-4000-8000-000000000001' GuidEquals 'aaaaaaaa-0000-4000-8000-000000000001'", true, true},
		{"{'red','blue'} ForAnyOfAnyValues:StringEquals {'blue','green'}", true, true},
		{"{'red','blue'} ForAllOfAnyValues:StringEquals {'red','green'}", false, false},
		{"{'red','blue'} ForAllOfAnyValues:StringEquals {'orange','red','blue'}", true, true},
		{"{10, 20} ForAnyOfAllValues:NumericLessThan {15, 18}", true, true},
		{"{10, 20} ForAllOfAllValues:NumericLessThan {15, 25, 30}", false, false},
		{"{10, 20} ForAllOfAllValues:NumericLessThan {25, 30}", true, true},
		{`'a*b' StringLike 'a\*b'`, true, true},
		{`'axb' StringLike 'a\*b'`, false, false},
		{`'a?' StringLike '?\?'`, true, true},
		{`'a\b' StringLike 'a\b'`, true, true},
		{`'aXbYb' StringLikeIgnoreCase 'A*b'`, true, true},
		{"'' StringLike '*'", true, true},
		{"'€' StringLike '?'", true, true}, // a character, not a byte
		{"'a€' StringLike '*?'", true, true},
		{"'€' StringLike '??'", false, false},
		{"'€' StringLike '*??'", false, false},
		{"\n(\r\n\t1 NumericEquals 1\n)\n", true, true},
	} {
		parse, err := condition.Parse(c.text)
		if strings.HasPrefix(c.text, "@environment") {
			if err == nil {
				t.Errorf("%s is taken", c.text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s\n%v", c.text, err)
			continue
		}
		if parse.String() != c.text {
			t.Errorf("%s is shown as %s", c.text, parse)
		}
		if got, gotBare := parse.Holds(&inside), parse.Holds(&bare); got != c.inside || gotBare != c.bare {
			t.Errorf("%s: %v inside, %v bare", c.text, got, gotBare)
		}
	}
}

func TestErrorsPointAtTheColumn(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "column 1: expected a condition, found the end of the condition"},
		{"  ", "column 3: expected a condition"},
		{"(1 NumericEquals 1", "column 19: expected AND, OR or the ) that closes the ( at column 1, found the end"},
		{"1 NumericEquals 1)", "column 18: expected AND, OR or the end of the condition, found )"},
		{")", "column 1: expected a condition, found )"},
		{"()", "column 2: expected a condition, found )"},
		{"((1 NumericEquals 1)", "column 21: expected AND, OR or the ) that closes the ( at column 1, found the end"},
		{"(1 NumericEquals 1))", "column 20: expected AND, OR or the end of the condition, found )"},
		{"!(1 NumericEquals 1", "column 20: expected AND, OR or the ) that closes the ( at column 2, found the end"},
		{"(\n (1 NumericEquals 1\n) AND\n", "line 4, column 1: expected a condition, found the end"},
		{"(\n (1 NumericEquals 1\n)\n", "line 4, column 1: expected AND, OR or the ) that closes the ( at column 1, found the end"},
		{"(1 NumericEquals 1}", "column 19: expected AND, OR or the ) that closes the ( at column 1, found }"},
		{"{'a' StringEquals 'a'", "column 6: expected } or a comma after a value, found StringEquals"},
		{"'a'} StringEquals 'a'", "column 4: expected an operator such as StringEquals, found }"},
		{"{{'a'}} ForAnyOfAnyValues:StringEquals 'a'", "column 2: expected a value: braces hold"},
		{"ActionMatches{'x'}}", "column 19: expected AND, OR or the end of the condition, found }"},
		{"ActionMatches{{'x'}}", "column 15: expected a pattern in single quotes, found {"},
		{"ActionMatches'x'", "column 14: expected { after ActionMatches, found 'x'"},
		{"SubOperationMatches{'x'", "column 24: expected } after the pattern, found the end"},
		{"(1 NumericEquals 1 && (1 NumericEquals 1 OR 1 NumericEquals 1 AND 1 NumericEquals 1))", "column 63: expected parentheses: AND stands beside OR"},
		{"1 NumericEquals 1 && 1 NumericEquals 1 AND NOT 1 NumericEquals 1 || 1 NumericEquals 1", "column 66: expected parentheses: OR stands beside AND"},
		{"ActionMatches{'x'} OR !ActionMatches{'x'}\n\tAND Exists @Environment[UtcNow]", "line 2, column 2: expected parentheses: AND stands beside OR"},
		{"1 NumericEquals 1 AND 1 NumericEquals 1 OR 1 NumericEquals 1", "column 41: expected parentheses: OR stands beside AND"},
		{"1 NumericEquals 1 || 1 NumericEquals 1 && 1 NumericEquals 1", "column 40: expected parentheses: AND stands beside OR"},
		{"1 NumericEquals 1 and 1 NumericEquals 1", "column 19: expected AND, OR or the end of the condition, found and"},
		{"1 NumericEquals 1 & 1 NumericEquals 1", "column 19: expected &&, found a single &"},
		{"NOT NOT 1 NumericEquals 1", "column 5: expected a condition, found NOT"},
		{"actionMatches{'x'}", "column 1: expected a condition, found actionMatches; it is written ActionMatches"},
		{"ActionMatches('x')", "column 14: expected { after ActionMatches, found ("},
		{"ActionMatches{x}", "column 15: expected a pattern in single quotes, found x"},
		{"ActionMatches{'x'", "column 18: expected } after the pattern, found the end"},
		{"ActionMatches{'x", "column 15: the quote that begins here is not closed"},
		{repo + " StringEqual 'x'", "column 68: there is no operator StringEqual"},
		{repo + " stringequals 'x'", "column 68: there is no operator stringequals; it is written StringEquals"},
		{repo + " ForAnyOfAnyValues:StringStartsWith {'x'}", "column 68: StringStartsWith does not go with ForAnyOfAnyValues"},
		{repo + " ForAnyOfAnyValues:StringIs {'x'}", "column 86: there is no operator StringIs"},
		{repo + " ForSome:StringEquals {'x'}", "column 68: there is no ForSome: expected ForAnyOfAnyValues,"},
		{repo + " StringContains 'x'", "column 68: there is no operator StringContains"},
		{repo + " StringEqualsIgnorecase 'x'", "column 68: there is no operator StringEqualsIgnorecase; it is written StringEqualsIgnoreCase"},
		{repo + " StringIn {'x'}", "column 68: there is no operator StringIn"},
		{repo + " = 'x'", "column 68: the character '=' has no meaning here"},
		{"1 NumericLike 1", "column 3: there is no operator NumericLike"},
		{"true BoolLike true", "column 6: there is no operator BoolLike"},
		{"true ForAnyOfAnyValues:BoolEquals true", "column 6: BoolEquals does not go with ForAnyOfAnyValues"},
		{"@Environment[UtcNow] ForAllOfAllValues:DateTimeEquals '2026-05-01T12:00:00Z'", "column 22: DateTimeEquals does not go with ForAllOfAllValues"},
		{repo + " ForAnyOfAnyValues: StringEquals {'x'}", "column 86: there is no operator "},
		{repo + " ForAnyOfAnyValues:StringEquals:x {'x'}", "column 86: there is no operator StringEquals:x"},
		{repo + " forAnyOfAnyValues:StringEquals {'x'}", "column 68: there is no forAnyOfAnyValues"},
		{repo + " StringEquals", "column 80: expected a value, found the end"},
		{repo + " 'x'", "column 68: expected an operator such as StringEquals, found 'x'"},
		{repo + " StringEquals 1", "column 81: StringEquals compares strings: expected a text in single quotes, found 1"},
		{repo + " NumericEquals 1", "column 1: NumericEquals compares whole numbers, and this attribute is one of strings"},
		{repo + " StringEquals {'x','y'}", "column 81: StringEquals compares one value with one; for several write ForAnyOfAnyValues:StringEquals"},
		{repo + " ForAnyOfAnyValues:StringEquals {}", "column 100: expected a value, found }"},
		{repo + " ForAnyOfAnyValues:StringEquals {'x',2}", "column 104: ForAnyOfAnyValues:StringEquals compares strings: expected a text in single quotes, found 2"},
		{repo + " ForAnyOfAnyValues:StringEquals {'x' 'y'}", "column 104: expected } or a comma after a value, found 'y'"},
		{repo + " ForAnyOfAnyValues:StringEquals {" + repo + "}", "column 100: expected a value: braces hold"},
		{"@Environment[isPrivateLink] BoolEquals 'true'", "column 40: BoolEquals compares true and false: expected true or false, found 'true'"},
		{"@Environment[isPrivateLink] BoolEquals True", "column 40: expected a value, found True; it is written true"},
		{"@Environment[UtcNow] DateTimeLessThan '2026-05-01'", "column 39: DateTimeLessThan compares moments: expected a moment such as"},
		{"@Environment[UtcNow] DateTimeLessThan '2026-05-01T1:00:00.00Z'", "column 39: DateTimeLessThan compares moments"},
		{"@Environment[UtcNow] DateTimeLessThan '2026-05-01T01:00:00.Z'", "column 39: DateTimeLessThan compares moments"},
		{"@Environment[UtcNow] DateTimeLessThan '2026-05-01T01:00:00.12345678Z'", "column 39: DateTimeLessThan compares moments"},
		{"@Environment[UtcNow] DateTimeLessThan '2026-05-01T01:00:00+02:00'", "column 39: DateTimeLessThan compares moments"},
		{"@Environment[UtcNow] DateTimeLessThan '2026-02-30T01:00:00Z'", "column 39: DateTimeLessThan compares moments"},
		{"'x' GuidEquals 'y'", "column 1: GuidEquals compares GUIDs: expected a GUID, found 'x'"},
		{"1.5 NumericEquals 1", "column 1: NumericEquals compares whole numbers: expected a whole number, found 1.5"},
		{"99999999999999999999 NumericEquals 1", "column 1: NumericEquals compares whole numbers"},
		{"@Resource[Microsoft.Storage/x:name] StringEquals 'x'", "column 1: a registry's requests have no @Resource attributes"},
		{"@Principal[Microsoft.Directory/x:name] StringEquals 'x'", "column 1: a registry's requests have no @Principal attributes"},
		{"@User[x] StringEquals 'x'", "column 1: there is no source @User: expected @Request or @Environment"},
		{"@Request[Microsoft.ContainerRegistry/registries:name] StringEquals 'x'", "column 10: there is no attribute Microsoft.ContainerRegistry/registries:name; there are @Request["},
		{"Exists @Environment[isPrivatelinks]", "column 21: there is no attribute isPrivatelinks; there are @Request["},
		{"@Environment[] BoolEquals true", "column 14: there is no attribute ; there are"},
		{"@Environment[\visPrivateLink] BoolEquals true", "column 14: there is no attribute \visPrivateLink; there are"}, // no blank of this language
		{"@Environment[\u00a0isPrivateLink] BoolEquals true", "column 14: there is no attribute"},
		{"@Environment [isPrivateLink] BoolEquals true", "column 13: expected [ and the name of an attribute after @Environment"},
		{"1 NumericEquals 1 AND\n ('ä' StringEquals @Request[Microsoft.ContainerRegistry/registries/repositories:tag])", "line 2, column 29: there is no attribute Microsoft.ContainerRegistry/registries/repositories:tag"},
		{"@Request[UtcNow] DateTimeLessThan '2026-05-01T01:00:00Z'", "column 1: UtcNow is not of @Request but of @Environment"},
		{strings.TrimSuffix(repo, "]") + "<$key_case_sensitive$>] StringEquals 'x'", "column 10: Microsoft.ContainerRegistry/registries/repositories:name has no keys"},
		{"@Request[x StringEquals 'x'", "column 9: the bracket [ that begins here is not closed"},
		{"@Request x", "column 9: expected [ and the name of an attribute after @Request"},
		{"Exists 'x'", "column 8: expected an attribute after Exists"},
		{"true", "column 5: expected an operator such as StringEquals, found the end"},
		{"1 NumericEquals 1 AND", "column 22: expected a condition, found the end"},
		{"'äö' StringEquals \"x\"", `column 19: the character '"' has no meaning here`},
		{"(1 NumericEquals 1\n AND\n  ä)", `line 3, column 3: the character 'ä' has no meaning here`},
		{"'\xff' StringEquals 'x'", "column 1: the condition is not UTF-8"},
		{strings.Repeat("(", 51), "column 51: parentheses are nested more than 50 deep"},
		{strings.Repeat(" ", 8193), "column 8193: a condition has at most 8192 bytes, this one has 8193"},
	} {
		_, err := condition.Parse(c.text)
		var at *condition.Error
		if !errors.As(err, &at) || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%.120s\n got %v\nwant %s", c.text, err, c.want)
		}
	}
	if _, err := condition.Parse(strings.Repeat("(", 50) + "1 NumericEquals 1" + strings.Repeat(")", 50)); err != nil {
		t.Errorf("50 deep: %v", err)
	}
}

// Every operator's kind of value beside every other's, on either side: the
// error is at the operand that does not fit.
func TestWhatIsOfAnotherKindIsToldAtItsColumn(t *testing.T) {
	kinds := []struct {
		operator, fits string
		operands       []string
	}{
		{"StringLike", "'a'", []string{repo, "@Environment[Microsoft.Network/privateEndpoints]", "'a'"}},
		{"BoolNotEquals", "true", []string{"@Environment[isPrivateLink]", "true", "false"}},
		{"NumericLessThan", "1", []string{"1", "-7"}},
		{"DateTimeEquals", "'2026-05-01T12:00:00Z'", []string{"@Environment[UtcNow]"}},
		{"GuidEquals", "'aaaaaaaa-0000-4000-8000-000000000001'", nil},
		{"ForAnyOfAnyValues:StringEquals", "{'a','b'}", []string{"'a'"}},
		{"ForAllOfAllValues:NumericEquals", "{1,2}", []string{"1"}},
	}
	pairs := 0
	for i, k := range kinds {
		for _, fits := range append([]string{k.fits}, k.operands...) {
			parsed(t, fits+" "+k.operator+" "+k.fits)
			parsed(t, k.fits+" "+k.operator+" "+fits)
		}
		for j, other := range kinds {
			for _, o := range other.operands {
				if i == j || strings.Contains(k.operator, "String") && strings.Contains(other.operator, "String") || strings.Contains(k.operator, "Numeric") && strings.Contains(other.operator, "Numeric") {
					continue
				}
				for text, column := range map[string]int{
					o + " " + k.operator + " " + k.fits: 1,
					k.fits + " " + k.operator + " " + o: len(k.fits) + 1 + len(k.operator) + 1 + 1,
				} {
					_, err := condition.Parse(text)
					var at *condition.Error
					if !errors.As(err, &at) || at.Line != 1 || at.Column != column || !strings.HasPrefix(at.Why, k.operator+" compares ") {
						t.Errorf("%s: %v, want it at column %d", text, err, column)
					}
					pairs++
				}
			}
		}
	}
	if pairs < 80 {
		t.Errorf("only %d pairs", pairs)
	}
}

func TestPatternsAreToldWithTheirPlaces(t *testing.T) {
	got := parsed(t, "!ActionMatches{'a'} AND\n !(ActionMatches{'b/*'})").Patterns()
	if len(got) != 2 || got[0] != (condition.Pattern{Text: "a", Line: 1, Column: 2}) || got[1] != (condition.Pattern{Text: "b/*", Line: 2, Column: 4}) {
		t.Errorf("%+v", got)
	}
}

// Whatever the repository, what holds is possible; and what holds for any
// holds for each.
func TestAnyRepositoryEnclosesEach(t *testing.T) {
	for _, c := range []struct {
		text            string
		holds, possible bool
	}{
		{template(repo+" StringStartsWith 'a/'", read), false, true},
		{template(repo+" StringStartsWith 'a/'", write), true, true},
		{repo + " StringEquals 'a' AND @Environment[isPrivateLink] BoolEquals true", false, false},
		{repo + " StringEquals 'a' AND @Environment[Microsoft.Network/privateEndpoints] StringEquals 'x'", false, false},
		{"!(" + repo + " StringEquals 'a')", false, true},
		{"Exists " + repo, true, true},
	} {
		p, r := parsed(t, c.text), condition.Request{Action: read, Repository: condition.Any}
		if p.Holds(&r) != c.holds || p.Possible(&r) != c.possible {
			t.Errorf("%s: holds %v, possible %v", c.text, p.Holds(&r), p.Possible(&r))
		}
	}
}

func TestEvaluatingAllocatesNothing(t *testing.T) {
	p := parsed(t, "("+template(repo+" ForAnyOfAnyValues:StringLikeIgnoreCase {'x', 'TEAM/*'}", read)+
		") AND (@Environment[isPrivateLink] BoolEquals true OR @Environment[UtcNow] DateTimeLessThan '2027-01-01T00:00:00Z')")
	if n := testing.AllocsPerRun(100, func() {
		r := condition.Request{Action: read, Repository: "team/api", Now: noon}
		if !p.Holds(&r) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var writer = template(repo+" StringStartsWithIgnoreCase 'team/'", read, write, repositories+"metadata/read", repositories+"metadata/write")

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := condition.Parse(writer); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHolds(b *testing.B) {
	c := parsed(b, writer)
	r := condition.Request{Action: write, Repository: "team/api"}
	b.ReportAllocs()
	for b.Loop() {
		if !c.Holds(&r) {
			b.Fatal("refused")
		}
	}
}
