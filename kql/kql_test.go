package kql

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/fault"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// shelf is a source whose rows are in memory. It gives as many rows as it may:
// what a query does not check itself, it gets.
type shelf struct {
	tables []Table
	rows   map[string][][]Value
	scans  []Scan
	given  int
}

func (s *shelf) Tables() []Table { return s.tables }

func (s *shelf) Scan(_ context.Context, scan Scan, row func([]Value) error) error {
	s.scans = append(s.scans, scan)
	i := slices.IndexFunc(s.tables, func(t Table) bool { return t.Name == scan.Table })
	t := s.tables[i]
	rows := slices.Clone(s.rows[t.Name])
	switch scan.Order {
	case Newest:
		slices.SortStableFunc(rows, func(a, b []Value) int { return compare(b[t.Time], a[t.Time]) })
	case Oldest:
		slices.SortStableFunc(rows, func(a, b []Value) int { return compare(a[t.Time], b[t.Time]) })
	}
	cells := make([]Value, len(t.Columns))
	for _, r := range rows {
		if at := r[t.Time].n; at < scan.From || at > scan.To {
			continue
		}
		clear(cells) // what was not asked for is not there
		for _, c := range scan.Columns {
			cells[c] = r[c]
		}
		s.given++
		if err := row(cells); err != nil {
			return err
		}
	}
	return nil
}

// visits is a small table: At, Who, What, Code, Size, Took.
func visits() *shelf {
	cols := []Column{{"At", Datetime}, {"Who", String}, {"What", String}, {"Code", String}, {"Size", Int}, {"Took", Timespan}}
	row := func(ago time.Duration, who, what, code string, size int64) []Value {
		return []Value{Time(noon.Add(-ago)), Str(who), Str(what), Str(code), Num(size), {typ: Timespan, n: size * tickSecond}}
	}
	return &shelf{
		tables: []Table{{Name: "Visits", Columns: cols}, {Name: "Others", Columns: []Column{{"At", Datetime}, {"Who", String}, {"Extra", Real}}}},
		rows: map[string][][]Value{
			"Visits": {
				row(time.Minute, "ann", "Pull", "200", 3), row(2*time.Minute, "bob", "Push", "201", 5), row(time.Hour, "Ann", "Pull", "404", 0),
				row(25*time.Hour, "ann", "Delete repo", "202", 7), row(26*time.Hour, "", "Pull", "401", 1),
			},
			"Others": {{Time(noon.Add(-90 * time.Second)), Str("carl"), Float(1.5)}},
		},
	}
}

// show writes an answer on one line: rows with / between them.
func show(a *Answer) string {
	var rows []string
	for _, r := range a.Rows {
		var cells []string
		for _, v := range r {
			text := v.String()
			if v.IsNull() {
				text = "null"
			}
			if v.Type() == Datetime {
				text = v.Moment().Format("02T15:04:05")
			}
			cells = append(cells, text)
		}
		rows = append(rows, strings.Join(cells, " "))
	}
	return strings.Join(rows, " / ")
}

func TestQueries(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{`Visits | project Who, Code`, "ann 200 / bob 201 / Ann 404 / ann 202 /  401"},
		{`Visits | where At > ago(1d) | count`, "3"},
		{`Visits | where At between (ago(2h) .. ago(90s)) | project Who`, "bob / Ann"},
		{`Visits | where At between (ago(1h) .. 58m) | project Who`, "bob / Ann"},
		{`Visits | where At !between (ago(2h) .. now()) | count`, "2"},
		{`Visits | where Who == "ann" | count`, "2"},
		{`Visits | where Who =~ "ANN" | count`, "3"},
		{`Visits | where Who != "ann" and Who !~ "bob" | project Code`, "404 / 401"},
		{`Visits | where Who in ("ann", "bob") | count`, "3"},
		{`Visits | where Who in~ ("ANN") | count`, "3"},
		{`Visits | where Who !in ("ann", "bob") | count`, "2"},
		{`Visits | where Code in (200, 201) | count`, "line 1, column 25: in cannot look for string among long"},
		{`Visits | where Size in (3, 5.0) | count`, "2"},
		{`Visits | where Code contains "40" | project Code`, "404 / 401"},
		{`Visits | where What contains "delete" | project What`, "Delete repo"},
		{`Visits | where What contains_cs "delete" | count`, "0"},
		{`Visits | where What !contains "PULL" | count`, "2"},
		{`Visits | where What has "repo" and What !has "rep" | count`, "1"},
		{`Visits | where What hasprefix "RE" | count`, "1"},
		{`Visits | where What has_any ("repo", "push") | project What`, "Push / Delete repo"},
		{`Visits | where What has_all ("repo", "delete") | project What`, "Delete repo"},
		{`Visits | where What has_all ("repo", "push") | count`, "0"},
		{`Visits | where What hasprefix_cs "RE" or What hassuffix_cs "PO" | count`, "0"},
		{`Visits | where What hassuffix "PO" and What !hassuffix_cs "PO" | count`, "1"},
		{`Visits | where Who !in~ ("ANN") | count`, "2"},
		{`Visits | where What startswith "pu" | count`, "4"},
		{`Visits | where What startswith_cs "pu" | count`, "0"},
		{`Visits | where What endswith "PO" | count`, "1"},
		{`Visits | where Code matches regex "^4[0-9]{2}$" | count`, "2"},
		{`Visits | where not(Code startswith "2") | count`, "2"},
		{`Visits | where isempty(Who) or Who == "bob" | project Code`, "201 / 401"},
		{`Visits | where (Who == "ann" or Who == "bob") and Code != "202" | count`, "2"},
		{`Visits | where toint(Code) >= 400 | count`, "2"},
		{`Visits | where Size < 2 or Size > 5 | project Size`, "0 / 7 / 1"},
		{`Visits | where Took >= 5s | project Took`, "00:00:05 / 00:00:07"},
		{`Visits | project W = toupper(Who), N = strlen(What), S = Size * 2 + 1 | take 2`, "ANN 4 7 / BOB 4 11"},
		{`Visits | extend Bad = iff(Code startswith "4", "yes", "no") | project Bad, Size | top 2 by Size`, "no 7 / no 5"},
		{`Visits | extend Size = Size / 2 | project-keep Size | distinct Size`, "1 / 2 / 0 / 3"},
		{`Visits | project-away At, T*, S*, W* | take 1`, "200"},
		{`Visits | project-rename Person = Who | where Person == "bob" | project Person`, "bob"},
		{`Visits | summarize count() by Code | sort by Code asc`, "200 1 / 201 1 / 202 1 / 401 1 / 404 1"},
		{`Visits | summarize N = count(), Who = dcount(Who) by bin(At, 1d) | sort by At`, "21T00:00:00 3 3 / 20T00:00:00 2 2"},
		{`Visits | summarize min(Size), max(Size), avg(Size), sum(Size), countif(Size > 2)`, "0 7 3.2 16 3"},
		{`Visits | where Size > 100 | summarize min(Size), avg(Size), sum(Size), count()`, "null null 0 0"},
		{`Visits | where Size > 100 | summarize count() by Who`, ""},
		{`Visits | summarize make_set(Code, 2) by Who =tolower(Who) | where Who == "ann"`, `ann ["200","404"]`},
		{`Visits | summarize arg_max(At, Code, Size) by Who | sort by Who asc`, " 20T10:00:00 401 1 / Ann 21T11:00:00 404 0 / ann 21T11:59:00 200 3 / bob 21T11:58:00 201 5"},
		{`Visits | where Code == "404" | summarize arg_min(Size, *)`, "0 21T11:00:00 Ann Pull 404 00:00:00"},
		{`Visits | distinct What | sort by What asc`, "Delete repo / Pull / Push"},
		{`Visits | summarize by What | count`, "3"},
		{`Visits | top 2 by At asc | project Code`, "401 / 202"},
		{`Visits | sort by What asc, Size desc | project What, Size`, "Delete repo 7 / Pull 3 / Pull 1 / Pull 0 / Push 5"},
		{`Visits | order by At | limit 1 | project Code`, "200"},
		{`Visits | take 0`, ""},
		{`union Visits, Others | top 3 by At | project Who, What, Extra`, "ann Pull null / carl  1.5 / bob Push null"},
		{`Visits | union (Others | where Extra > 2) | count`, "5"},
		{`union kind=inner Visits, Others | top 1 by At asc | project Who, At`, " 20T10:00:00"},
		{`union withsource=T Visits, Others | summarize count() by T`, "Visits 5 / Others 1"},
		{`union Visits, Others | where Who == "carl" | project Who`, "carl"},
		{`let limit_ = 2; let since = ago(2h); Visits | where At > since and Size > limit_ | count`, "2"},
		{`(Visits | where Size > 1) | count`, "3"},
		{"Visits // who\n| where Who == 'bob' // only\n| project Who", "bob"},
		{`Visits | where At > datetime(2026-11-21T11:30:00Z) | count`, "2"},
		{`Visits | where At < datetime(2026-11-20 10:30) | count`, "1"},
		{`Visits | take 1 | project strcat(Who, "-", tostring(Size), "-", 1.5, true), coalesce("", Who)`, "ann-3-1.5True ann"},
		{`Visits | take 1 | project substring(What, 1, 2), case(Size > 5, "big", Size > 2, "middle", "small")`, "ul middle"},
		{`Visits | take 1 | project Age = now() - At, D = bin(7.5, 2), M = -Size % 2, Z = Size / 0, R = 7 / 2.0`, "00:01:00 6 -1 null 3.5"},
		{`Visits | take 1 | project toint("x"), toint("7"), tolong(" 8 "), toreal("1.5"), isnull(toint("x")), todatetime("2026-11-21"), totimespan("1.02:03:04.5")`, "null 7 8 1.5 True 21T00:00:00 1.02:03:04.5000000"},
		{`Visits | where toint(Who) == 1 or toint(Who) != 1 | count`, "5"},
		{`Visits | where toint(Who) < 1 | count`, "0"},
		{`Visits | summarize count() by bin(At, 30m) | where count_ > 1 | project count_`, "2"},
		{`Visits | summarize count(), count() by Who | count`, "4"},
		{`Visits | getschema | take 2`, "At 0 System.DateTime datetime / Who 1 System.String string"},
		{`Visits | project hourofday(At), startofday(At) | take 1`, "11 21T00:00:00"},
		{`Visits | where Who == @"a\b" or Who == "a\\b" or Who == 'bo\u0062' | count`, "1"},
	} {
		a, err := Run(t.Context(), visits(), c.query, Options{Now: noon})
		got := ""
		if err != nil {
			_, got = fault.Of(err)
		} else {
			got = show(a)
		}
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

// An error says at which column of the text something is wrong, and what was
// probably meant.
func TestErrorsPointAtTheColumn(t *testing.T) {
	for _, c := range []struct{ query, want string }{
		{``, "line 1, column 1: the query names no table"},
		{`Visit | take 1`, "line 1, column 1: there is no table Visit; did you mean Visits?"},
		{`Nothing`, "line 1, column 1: there is no table Nothing; there are Visits and Others"},
		{`Visits | where Wo == "x"`, "line 1, column 16: there is no column Wo here; did you mean Who?"},
		{`Visits | where who == "x"`, "line 1, column 16: there is no column who here; did you mean Who?"},
		{"Visits\n| where Who == \"é\" and Nope == 1", "line 2, column 24: there is no column Nope here"},
		{`Visits | wher Who == "x"`, "line 1, column 10: there is no operator wher; did you mean where?"},
		{`Visits | join Others`, "line 1, column 10: there is no operator join; write union T1, T2 | summarize … by CorrelationId: rows of one request have it in common"},
		{`Visits | where Who = "x"`, "line 1, column 20: a single = gives a name; to compare write =="},
		{`Visits | where Code > 400`, "line 1, column 21: > cannot be applied to string and long; write toint(…) around the text, or quote the number"},
		{`Visits | where At > "2026-11-21"`, "line 1, column 19: > cannot be applied to datetime and string; write datetime(2026-11-21T09:00:00Z)"},
		{`Visits | where At > 1h`, "line 1, column 19: > cannot be applied to datetime and timespan; write ago(1h)"},
		{`Visits | where Who`, "line 1, column 16: expected a condition, and this is of type string"},
		{`Visits | where Who == "x`, "line 1, column 23: the string has no end"},
		{`Visits | where Size > 5x`, `line 1, column 24: "x" is no unit of time; there are d, h, m, s, ms, microsecond and tick`},
		{`Visits | where At > ago(1)`, "line 1, column 25: ago wants a timespan here, not a long"},
		{`Visits | where Who matches regex "("`, "line 1, column 34: the pattern is not one of RE2: missing closing ): `(`"},
		{`Visits | where foo(Who)`, "line 1, column 16: there is no function foo; there are ago, bin, case, coalesce, double, floor, hourofday, iff, iif, int, isempty, isnotempty, isnotnull, isnull, long, not, now, real, startofday, strcat, strlen, substring, todatetime, todouble, toint, tolong, tolower, toreal, tostring, totimespan, toupper, trim_space"},
		{`Visits | evaluate bag_unpack(Who)`, "line 1, column 10: there is no operator evaluate; there are where, filter, project, project-away, project-keep, project-rename, extend, summarize, count, distinct, top, sort, order, take, limit, union, getschema"},
		{`Visits | mv-expand Who`, "line 1, column 10: there is no operator mv-expand; columns are plain texts, numbers and times: TABLE | getschema lists them"},
		{`Visits | top-nested 3 of Who by count()`, "line 1, column 10: there is no operator top-nested; write summarize count() by COLUMN | top 10 by count_"},
		{`search "x"`, `line 1, column 1: there is no operator search; name a table, and write | where COLUMN has "text"`},
		{`Visits | extend X = parse_json(Who)`, "line 1, column 21: there is no function parse_json; columns are plain texts, numbers and times: TABLE | getschema lists them"},
		{`Visits | where ipv4_is_in_range(Who, "10.0.0.0/8")`, `line 1, column 16: there is no function ipv4_is_in_range; write CallerIpAddress startswith "10.", or matches regex "…"`},
		{`Visits | summarize make_list(Who)`, "line 1, column 20: summarize has no make_list; write make_set"},
		{`Visits | where strln(Who) > 1`, "line 1, column 16: there is no function strln; did you mean strlen?"},
		{`Visits | where strlen() > 1`, "line 1, column 16: strlen takes 1 arguments, not 0"},
		{`Visits | where count() > 1`, "line 1, column 16: count sums up rows, and stands behind summarize only"},
		{`Visits | summarize Who`, "line 1, column 20: expected a sum such as count(), or a column behind by"},
		{`Visits | summarize cuont()`, "line 1, column 20: summarize has no cuont; did you mean count?"},
		{`Visits | summarize sum(Code)`, "line 1, column 24: sum adds up numbers and timespans, and this is a string; write toint(…) around a text of digits"},
		{`Visits | project Who, Who`, "line 1, column 23: two columns are named Who; write NAME = … before one"},
		{`Visits | top by At`, `line 1, column 14: expected a number of rows before "by"`},
		{`Visits | take 9999999999`, `line 1, column 15: expected a number of rows before "9999999999"`},
		{`Visits | where Who == "x" "y"`, `line 1, column 27: expected | or the end before ""y""`},
		{`Visits | where (Who == "x"`, "line 1, column 27: expected ) before the end"},
		{`Visits | where Who !contain "x"`, "line 1, column 20: there is no operator !contain; did you mean !contains?"},
		{`Visits | where #`, "line 1, column 16: the character '#' has no meaning here"},
		{`Visits | where At > datetime(yesterday)`, `line 1, column 30: "yesterday" is not a datetime; write datetime(2026-11-21T09:00:00Z)`},
		{`Visits | summarize count() by bin(At, 0s)`, "line 1, column 39: the size of a bin is above zero"},
		{`Visits | project-away *`, "line 1, column 10: no column is left"},
		{`Visits | project-away X*`, "line 1, column 23: no column begins with X"},
		{`Visits | where Who.name == "x"`, "line 1, column 19: columns have no parts: there is nothing behind Who"},
		{`let x = Who; Visits`, "line 1, column 9: there is no column Who here"},
		{`Visits | extend X = null`, "line 1, column 17: null has no type; write tostring(null) or toint(null)"},
		{`union Visits, (Others | extend Size = "x")`, "line 1, column 1: the column Size is a int in one table and a string in another"},
		{`Visits | where iff(true, 1, "x") == 1`, "line 1, column 26: iff gives a string in one case and a long in another"},
		{`Visits | take 1 | render timechart`, "line 1, column 19: there is no operator render; the answer is a table: leave it out"},
		{"Visits | where Who == \"\xff\"", "the query is not UTF-8"},
		{strings.Repeat("(", 200) + "Visits", "line 1, column 101: the query is nested deeper than 100 levels"},
		{"Visits | where " + strings.Repeat("(", 200) + "true", "line 1, column 65: the query is nested deeper than 100 levels"},
		{"Visits | where Size == " + strings.Repeat("-", 200) + "1", "line 1, column 121: the query is nested deeper than 100 levels"},
		{"Visits" + strings.Repeat(" | take 1", 101), "line 1, column 910: the query has more than 100 operators"},
		{"Visits | where Size in (" + strings.Repeat("1,", 6000) + "1)", "line 1, column 10023: the query has more than 5000 terms"},
		{"Visits" + strings.Repeat(" ", 33<<10), "the query is longer than 32768 bytes"},
	} {
		_, err := Run(t.Context(), visits(), c.query, Options{Now: noon})
		if _, got := fault.Of(err); got != c.want {
			t.Errorf("%.80s\n got %s\nwant %s", c.query, got, c.want)
		}
	}
}

// What a source is told of a query: times, filters and when it is enough.
func TestSourcesAreTold(t *testing.T) {
	far := fmt.Sprintf("%d..%d", int64(math.MinInt64), int64(math.MaxInt64))
	hour := ticks(noon.Add(-time.Hour))
	for _, c := range []struct{ query, want string }{
		{`Visits | count`, "Visits [] " + far},
		{`Visits | where At > ago(1h) and Size > 1 | project Who`, fmt.Sprintf("Visits [0 1 4] %d..%d", hour+1, int64(math.MaxInt64))},
		{`Visits | where ago(1h) <= At | where At < now() | count`, fmt.Sprintf("Visits [0] %d..%d", hour, ticks(noon)-1)},
		{`let since = ago(1h); Visits | extend X = Size | where At == since | count`, fmt.Sprintf("Visits [0] %d..%d", hour, hour)},
		{`Visits | where At > ago(1h) or Size > 1 | count`, "Visits [0 4] " + far},
		{`Visits | where Who == "ann" or Who in ("bob", "carl") | count`, "Visits [1] " + far + " Who=ann,bob,carl"},
		{`Visits | project W = Who | where "ann" == W | count`, "Visits [1] " + far + " Who=ann"},
		{`Visits | extend Who = What | where Who == "Pull" | count`, "Visits [2] " + far + " What=Pull"},
		{`Visits | extend Who = tolower(Who) | where Who == "ann" | count`, "Visits [1] " + far},
		{`Visits | where Who =~ "ann" | count`, "Visits [1] " + far + " Who"},
		{`union Visits, Others | where Who == "x" | top 5 by At | project Who`, "Visits [0 1] " + far + " Who=x newest 5; Others [0 1] " + far + " Who=x newest 5"},
		{`Visits | sort by At asc | take 7 | project Code`, "Visits [0 3] " + far + " oldest 7"},
		{`Visits | take 3 | project Code`, "Visits [3] " + far + " newest 3"},
		{`Visits | top 3 by Size | project Code`, "Visits [3 4] " + far},
		{`Visits | summarize count() by Who | where Who == "x"`, "Visits [1] " + far},
		{`Visits | where 1 == 1 | count`, "Visits [] " + far},
	} {
		s := visits()
		if _, err := Run(t.Context(), s, c.query, Options{Now: noon}); err != nil {
			t.Errorf("%s: %v", c.query, err)
			continue
		}
		var got []string
		for _, scan := range s.scans {
			text := fmt.Sprintf("%s %v %d..%d", scan.Table, scan.Columns, scan.From, scan.To)
			for _, f := range scan.Filters {
				text += " " + s.tables[0].Columns[f.Column].Name
				if f.Values != nil {
					text += "=" + strings.Join(f.Values, ",")
				}
			}
			if scan.Order != AnyOrder {
				text += []string{"", " newest", " oldest"}[scan.Order] + fmt.Sprintf(" %d", scan.Enough)
			}
			got = append(got, text)
		}
		if g := strings.Join(got, "; "); g != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.query, g, c.want)
		}
	}
}

// A query that has what it wants reads no further.
func TestEnoughIsEnough(t *testing.T) {
	for _, query := range []string{`Visits | top 2 by At`, `Visits | take 2`, `Visits | extend X = 1 | take 2 | count`, `Visits | sort by At | take 2`} {
		s := visits()
		if _, err := Run(t.Context(), s, query, Options{Now: noon}); err != nil || s.given != 2 {
			t.Errorf("%s read %d rows, %v", query, s.given, err)
		}
	}
}

// endless has rows for ever.
type endless struct {
	shelf
	text string
}

func (s *endless) Scan(ctx context.Context, scan Scan, row func([]Value) error) error {
	for i := int64(0); ; i++ {
		if err := row([]Value{Time(noon.Add(time.Duration(i))), Str(fmt.Sprint(s.text, i)), Str(""), Str(""), Num(i), {}}); err != nil {
			return err
		}
	}
}

// A query that would run away meets a bound, and is told which.
func TestBounds(t *testing.T) {
	for _, c := range []struct {
		query string
		o     Options
		err   error
		want  string
	}{
		{`Visits`, Options{Rows: 10}, ErrRows, "the answer has more than 10 rows; narrow it with where, sum it up with summarize, or add: take 10"},
		{`Visits | sort by Size`, Options{Memory: 1 << 20}, ErrMemory, "the query needs more than 1 MiB of memory; narrow it with where, or project fewer columns before"},
		{`Visits | summarize count() by Who`, Options{Memory: 2 << 20}, ErrMemory, "the query needs more than 2 MiB of memory; narrow it with where, or project fewer columns before"},
		{`Visits | summarize make_set(Size), dcount(Who)`, Options{Memory: 1 << 20}, ErrMemory, "the query needs more than 1 MiB of memory; narrow it with where, or project fewer columns before"},
		{`Visits | distinct *`, Options{Memory: 1 << 20}, ErrMemory, "the query needs more than 1 MiB of memory; narrow it with where, or project fewer columns before"},
		{`Visits | count`, Options{Time: 50 * time.Millisecond}, ErrTime, "the query took longer than 50ms; narrow TimeGenerated, for example with: where TimeGenerated > ago(1d)"},
	} {
		c.o.Now = noon
		_, err := Run(t.Context(), &endless{shelf: *visits(), text: "who"}, c.query, c.o)
		if _, got := fault.Of(err); !errors.Is(err, c.err) || got != c.want {
			t.Errorf("%s\n got %v\nwant %s", c.query, err, c.want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, &endless{shelf: *visits()}, `Visits | count`, Options{Now: noon}); !errors.Is(err, context.Canceled) {
		t.Errorf("a caller who has gone: %v", err)
	}
	// The first of endless rows are found without keeping them all.
	a, err := Run(t.Context(), &endless{shelf: *visits()}, `Visits | where Size % 2 == 1 | take 3 | project Size`, Options{Now: noon})
	if err != nil || show(a) != "1 / 3 / 5" {
		t.Errorf("%v, %v", a, err)
	}
}

func TestValuesAsJSON(t *testing.T) {
	a, err := Run(t.Context(), visits(), `Visits | take 1 | project At, Who, Size, R = 1.5, B = Size > 1, Took, N = toint("x") | extend S = R`, Options{Now: noon})
	if err != nil {
		t.Fatal(err)
	}
	var got []any
	for _, v := range a.Rows[0] {
		got = append(got, v.Go())
	}
	if g := fmt.Sprintf("%#v", got); g != `[]interface {}{"2026-11-21T11:59:00Z", "ann", 3, 1.5, true, "00:00:03", interface {}(nil), 1.5}` {
		t.Error(g)
	}
}
