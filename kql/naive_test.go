package kql

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// naive answers a query the slow way: whole tables as maps, one operator after
// the other, each expression walked anew for each row, nothing told to the
// source, nothing ended early. It knows what the generator below writes.
type naive struct {
	src *shelf
	now time.Time
}

type naiveTable struct {
	cols []string
	rows []map[string]any
}

func (n *naive) table(t *table) naiveTable {
	var out naiveTable
	switch {
	case t.sub != nil:
		out = n.table(t.sub)
	case t.union != nil:
		out = n.union(naiveTable{}, t.union)
	default:
		i := slices.IndexFunc(n.src.tables, func(x Table) bool { return x.Name == t.name })
		for _, c := range n.src.tables[i].Columns {
			out.cols = append(out.cols, c.Name)
		}
		for _, r := range n.src.rows[t.name] {
			row := map[string]any{}
			for j, v := range r {
				row[out.cols[j]] = plainValue(v)
			}
			out.rows = append(out.rows, row)
		}
	}
	for _, o := range t.ops {
		out = n.oper(out, o)
	}
	return out
}

func plainValue(v Value) any {
	switch v.Type() {
	case Null:
		return nil
	case String:
		return v.s
	case Datetime:
		return v.Moment()
	case Timespan:
		return time.Duration(v.n) * tick
	case Real:
		return v.real()
	case Bool:
		return v.n != 0
	}
	return v.n
}

func (n *naive) union(first naiveTable, u *union) naiveTable {
	out := first
	add := func(t naiveTable) {
		for _, c := range t.cols {
			if !slices.Contains(out.cols, c) {
				out.cols = append(out.cols, c)
			}
		}
		out.rows = append(out.rows, t.rows...)
	}
	for i := range u.tables {
		add(n.table(&u.tables[i]))
	}
	texts := []string{"Who", "What", "Code"}
	for i, row := range out.rows {
		full := map[string]any{}
		for _, c := range out.cols {
			v, ok := row[c]
			if !ok && slices.Contains(texts, c) {
				v = ""
			}
			full[c] = v
		}
		out.rows[i] = full
	}
	return out
}

func (n *naive) oper(t naiveTable, o oper) naiveTable {
	switch o.name {
	case "where":
		t.rows = slices.DeleteFunc(slices.Clone(t.rows), func(r map[string]any) bool { return n.eval(o.cond, r) != true })
	case "project", "extend":
		var out naiveTable
		if o.name == "extend" {
			out.cols = slices.Clone(t.cols)
		}
		names := make([]string, len(o.list))
		for i, item := range o.list {
			names[i] = item.name
			if names[i] == "" {
				names[i] = item.expr.text
			}
			if !slices.Contains(out.cols, names[i]) {
				out.cols = append(out.cols, names[i])
			}
		}
		for _, r := range t.rows {
			row := map[string]any{}
			if o.name == "extend" {
				for k, v := range r {
					row[k] = v
				}
			}
			for i, item := range o.list {
				row[names[i]] = n.eval(item.expr, r)
			}
			out.rows = append(out.rows, row)
		}
		return out
	case "distinct", "summarize":
		return n.group(t, o)
	case "count":
		return naiveTable{[]string{"Count"}, []map[string]any{{"Count": int64(len(t.rows))}}}
	case "take":
		t.rows = t.rows[:min(int64(len(t.rows)), o.count)]
	case "sort", "top":
		t.rows = slices.Clone(t.rows)
		slices.SortStableFunc(t.rows, func(a, b map[string]any) int {
			for _, k := range o.sort {
				c := naiveCompare(n.eval(k.expr, a), n.eval(k.expr, b))
				if !k.asc {
					c = -c
				}
				if c != 0 {
					return c
				}
			}
			return 0
		})
		if o.name == "top" {
			t.rows = t.rows[:min(int64(len(t.rows)), o.count)]
		}
	case "union":
		return n.union(t, o.union)
	default:
		panic(o.name)
	}
	return t
}

func (n *naive) group(t naiveTable, o oper) naiveTable {
	by := o.by
	if o.name == "distinct" {
		by = o.list
	}
	var out naiveTable
	for _, b := range by {
		name := b.name
		if name == "" {
			name = b.expr.text
		}
		out.cols = append(out.cols, name)
	}
	groups := map[string][]map[string]any{}
	var keys []string
	for _, r := range t.rows {
		key := ""
		for _, b := range by {
			key += fmt.Sprintf("%T %v|", n.eval(b.expr, r), n.eval(b.expr, r))
		}
		if groups[key] == nil {
			keys = append(keys, key)
		}
		groups[key] = append(groups[key], r)
	}
	if len(by) == 0 && len(keys) == 0 {
		keys = []string{""}
	}
	for _, k := range keys {
		row := map[string]any{}
		for i, b := range by {
			row[out.cols[i]] = n.eval(b.expr, groups[k][0])
		}
		if o.name == "summarize" {
			for _, a := range o.list {
				row[a.name] = n.sum(a.expr, groups[k])
			}
		}
		out.rows = append(out.rows, row)
	}
	if o.name == "summarize" {
		for _, a := range o.list {
			out.cols = append(out.cols, a.name)
		}
	}
	return out
}

func (n *naive) sum(e *expr, rows []map[string]any) any {
	var vs []any
	for _, r := range rows {
		if len(e.args) == 0 {
			continue
		}
		if v := n.eval(e.args[0], r); v != nil {
			vs = append(vs, v)
		}
	}
	switch e.text {
	case "count":
		return int64(len(rows))
	case "countif":
		return int64(len(slices.DeleteFunc(vs, func(v any) bool { return v != true })))
	case "dcount":
		seen := map[any]bool{}
		for _, v := range vs {
			seen[v] = true
		}
		return int64(len(seen))
	case "sum":
		var s int64
		for _, v := range vs {
			s += v.(int64)
		}
		return s
	case "avg":
		if len(vs) == 0 {
			return nil
		}
		var s int64
		for _, v := range vs {
			s += v.(int64)
		}
		return float64(s) / float64(len(vs))
	case "min", "max":
		var best any
		for _, v := range vs {
			if c := 0; best != nil {
				c = naiveCompare(v, best)
				if e.text == "min" && c >= 0 || e.text == "max" && c <= 0 {
					continue
				}
			}
			best = v
		}
		return best
	}
	panic(e.text)
}

func naiveCompare(a, b any) int {
	if a == nil || b == nil {
		return boolInt(a != nil) - boolInt(b != nil)
	}
	switch a := a.(type) {
	case string:
		return strings.Compare(a, b.(string))
	case time.Time:
		return a.Compare(b.(time.Time))
	case int64:
		return int(min(max(a-b.(int64), -1), 1))
	}
	panic(fmt.Sprintf("%T", a))
}

func (n *naive) eval(e *expr, row map[string]any) any {
	arg := func(i int) any { return n.eval(e.args[i], row) }
	text := func(i int) string { return arg(i).(string) }
	switch e.kind {
	case literalExpr:
		return plainValue(e.value)
	case nameExpr:
		return row[e.text]
	case listExpr:
		found := false
		for i := range e.args[1:] {
			if strings.HasSuffix(e.text, "~") {
				found = found || strings.EqualFold(text(0), text(i+1))
			} else {
				found = found || arg(0) == arg(i+1)
			}
		}
		return found != strings.HasPrefix(e.text, "!")
	case betweenExpr:
		if arg(0) == nil {
			return nil
		}
		return (naiveCompare(arg(0), arg(1)) >= 0 && naiveCompare(arg(0), arg(2)) <= 0) != strings.HasPrefix(e.text, "!")
	case callExpr:
		switch e.text {
		case "ago":
			return n.now.Add(-arg(0).(time.Duration))
		case "not":
			if arg(0) == nil {
				return nil
			}
			return arg(0) != true
		case "tolower":
			return strings.ToLower(text(0))
		case "isempty":
			return text(0) == ""
		case "strlen":
			return int64(len([]rune(text(0))))
		case "toint":
			v, err := strconv.ParseInt(text(0), 10, 32)
			if err != nil {
				return nil
			}
			return v
		case "bin":
			if arg(0) == nil {
				return nil
			}
			if at, ok := arg(0).(time.Time); ok {
				return at.Truncate(arg(1).(time.Duration))
			}
			by := arg(1).(int64)
			return arg(0).(int64) / by * by // of numbers from 0
		case "iff":
			if arg(0) == true {
				return arg(1)
			}
			return arg(2)
		}
	case binaryExpr:
		switch e.text {
		case "and":
			if arg(0) == false || arg(1) == false {
				return false
			}
			if arg(0) == nil || arg(1) == nil {
				return nil
			}
			return true
		case "or":
			if arg(0) == true || arg(1) == true {
				return true
			}
			if arg(0) == nil || arg(1) == nil {
				return nil
			}
			return false
		case "==", "!=", "<", "<=", ">", ">=":
			if arg(0) == nil || arg(1) == nil {
				switch {
				case arg(0) == nil && arg(1) == nil || e.text != "==" && e.text != "!=":
					return nil
				}
				return e.text == "!="
			}
			c := naiveCompare(arg(0), arg(1))
			return map[string]bool{"==": c == 0, "!=": c != 0, "<": c < 0, "<=": c <= 0, ">": c > 0, ">=": c >= 0}[e.text]
		case "+":
			if arg(0) == nil || arg(1) == nil {
				return nil
			}
			return arg(0).(int64) + arg(1).(int64)
		}
		name, not := strings.CutPrefix(e.text, "!")
		s, p := text(0), text(1)
		if !strings.HasSuffix(name, "_cs") {
			s, p = strings.ToLower(s), strings.ToLower(p)
		}
		var yes bool
		switch strings.TrimSuffix(name, "_cs") {
		case "contains":
			yes = strings.Contains(s, p)
		case "startswith":
			yes = strings.HasPrefix(s, p)
		case "endswith":
			yes = strings.HasSuffix(s, p)
		case "=~", "~":
			yes = s == p
		case "has":
			yes = slices.Contains(strings.FieldsFunc(s, func(r rune) bool { return !wordByte(byte(r)) }), p)
		default:
			panic(e.text)
		}
		return yes != not
	}
	panic(e.text)
}

// writer writes queries that make sense.
type writer struct{ *rand.Rand }

func (w writer) pick(list ...string) string { return list[w.IntN(len(list))] }

func (w writer) literal() string {
	return `"` + w.pick("ann", "bob", "Ann", "", "Pull", "push", "Delete", "repo", "200", "4", "404", "z") + `"`
}

func (w writer) name() string { return w.pick("Who", "What", "Code") }

func (w writer) number() string {
	return w.pick("Size", "Size", strconv.Itoa(w.IntN(9)), "toint(Code)", "strlen(Who)", "(Size + "+strconv.Itoa(w.IntN(3))+")", "bin(Size, 3)")
}

func (w writer) cond(depth int) string {
	if depth > 0 {
		switch w.IntN(5) {
		case 0:
			return "(" + w.cond(depth-1) + " and " + w.cond(depth-1) + ")"
		case 1:
			return "(" + w.cond(depth-1) + " or " + w.cond(depth-1) + ")"
		case 2:
			return "not(" + w.cond(depth-1) + ")"
		}
	}
	ago := func() string { return fmt.Sprintf("ago(%dm)", w.IntN(3000)) }
	switch w.IntN(8) {
	case 0:
		return "At " + w.pick("<", "<=", ">", ">=") + " " + ago()
	case 1:
		return ago() + " " + w.pick("<", "<=", ">", ">=") + " At"
	case 2:
		return "At " + w.pick("between", "!between") + " (ago(" + strconv.Itoa(1000+w.IntN(2000)) + "m) .. " + "ago(" + strconv.Itoa(w.IntN(1000)) + "m))"
	case 3:
		return w.name() + " " + w.pick("in", "!in", "in~", "!in~") + " (" + w.literal() + ", " + w.literal() + ")"
	case 4:
		return w.number() + " " + w.pick("==", "!=", "<", "<=", ">", ">=") + " " + w.number()
	case 5:
		return w.pick("isempty(Who)", `tolower(What) == "pull"`, `What has "repo"`, `Code !has "404"`)
	case 6:
		return w.literal() + " == " + w.name()
	}
	return w.name() + " " + w.pick("==", "!=", "=~", "!~", "contains", "!contains", "contains_cs", "!contains_cs", "startswith", "!startswith_cs", "endswith", "!endswith") + " " + w.literal()
}

// query ends in an order that leaves nothing open: every row has a number.
func (w writer) query() string {
	q := w.pick("Visits", "Visits", "union Visits, More", "(Visits | where "+w.cond(1)+")", "union (Visits | where "+w.cond(1)+"), More")
	for range w.IntN(4) {
		switch w.IntN(6) {
		case 0, 1, 2:
			q += " | where " + w.cond(2)
		case 3:
			q += " | extend " + w.pick("Who = tolower(Who)", "Size = Size + 1", "Code = iff(Size > 3, Code, What)", "What = Code")
		case 4:
			q += " | union (More | where " + w.cond(1) + ")"
		case 5:
			q += " | project At, Who, What, Code, Size, Id"
		}
	}
	switch w.IntN(6) {
	case 0:
		return q + " | summarize N = count(), D = dcount(" + w.name() + "), S = sum(Size), A = avg(Size), L = min(At), M = max(" + w.number() + "), C = countif(" + w.cond(1) + ") by " + w.name() + " | sort by " + "N asc"
	case 1:
		return q + " | summarize N = count() by B = bin(At, " + w.pick("1h", "1d", "7m") + ") | sort by B " + w.pick("asc", "desc")
	case 2:
		return q + " | distinct " + w.name()
	case 3:
		return q + " | count"
	case 4:
		return q + " | " + w.pick("top 3 by At", "top 3 by At asc", "top 5 by Id", "sort by At asc | take 4", "sort by Id desc | take 2") + " | project Id, Who"
	}
	return q + " | sort by Id " + w.pick("asc", "desc") + w.pick("", " | where "+w.cond(1)) + " | project Id, Code, X = " + w.number()
}

func (w writer) shelf() *shelf {
	cols := []Column{{"At", Datetime}, {"Who", String}, {"What", String}, {"Code", String}, {"Size", Int}, {"Id", Long}}
	s := &shelf{tables: []Table{{Name: "Visits", Columns: cols}, {Name: "More", Columns: cols}}, rows: map[string][][]Value{}}
	id := int64(0)
	for _, name := range []string{"Visits", "More"} {
		for range w.IntN(30) {
			id++
			at := noon.Add(-time.Duration(w.IntN(3000)) * time.Minute).Add(time.Duration(id)) // of its own: ticks are 100 ns
			at = at.Add(-time.Duration(id) * 7 * time.Microsecond)
			s.rows[name] = append(s.rows[name], []Value{
				Time(at), Str(w.pick("ann", "bob", "Ann", "")), Str(w.pick("Pull", "Push", "Delete repo", "Pull repo-x")),
				Str(w.pick("200", "201", "404", "401", "none")), Num(w.Int64N(9)), Num(id),
			})
		}
	}
	return s
}

// The evaluator and the naive one agree on random queries over random rows.
// What has no order is compared without one. KQL_SEED repeats a run.
func TestAgreesWithTheNaive(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("KQL_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	w := writer{rand.New(rand.NewPCG(seed, 1))}
	filled := 0
	for range 20_000 {
		s, text := w.shelf(), w.query()
		a, err := Run(t.Context(), s, text, Options{Now: noon})
		if err != nil {
			t.Fatalf("KQL_SEED=%d\n%s\n%v", seed, text, err)
		}
		q, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		want := (&naive{s, noon}).table(&q.table)
		var got, expected []string
		for _, r := range a.Rows {
			line := ""
			for _, v := range r {
				line += fmt.Sprint(plainValue(v), "|")
			}
			got = append(got, line)
		}
		for _, r := range want.rows {
			line := ""
			for _, c := range want.cols {
				line += fmt.Sprint(r[c], "|")
			}
			expected = append(expected, line)
		}
		filled += boolInt(len(got) > 0)
		if strings.Contains(text, "distinct") || strings.Contains(text, "sort by N") {
			slices.Sort(got)
			slices.Sort(expected)
		}
		if !slices.Equal(got, expected) {
			t.Fatalf("KQL_SEED=%d\n%s\n got %q\nwant %q", seed, text, got, expected)
		}
	}
	if filled < 5000 {
		t.Errorf("only %d queries found anything", filled)
	}
}

// Whatever is asked, the answer is a table or an error of this package, soon;
// and what is told to the source never rules out a row that is wanted.
func FuzzRun(f *testing.F) {
	w := writer{rand.New(rand.NewPCG(1, 2))}
	for range 50 {
		f.Add(w.query())
	}
	for _, s := range []string{
		`union withsource=T Visits, More | summarize arg_max(At, *), make_set(Who, 3) by T, bin(Size, 2)`,
		`let x = 5m; Visits | where At between (ago(x) .. now()) | project-away At | project-rename A = Who | getschema`,
		`Visits | where Who matches regex @"^a+$" | extend X = case(Size > 1, "a", Size > 2, 'b', "c"), Y = datetime(2026-11-21) - At, Z = totimespan("1.02:03:04")`,
		"Visits // c\n| top 5 by Size asc nulls last | distinct *", `Visits | where Size in (1, 2.5, -3) or Took > 5m`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s := writer{rand.New(rand.NewPCG(3, 4))}.shelf()
		a, err := Run(t.Context(), s, text, Options{Now: noon, Rows: 1000, Memory: 8 << 20})
		if err != nil {
			known := false
			for _, e := range []error{ErrSyntax, ErrSemantic, ErrRows, ErrMemory, ErrTime} {
				known = known || errors.Is(err, e)
			}
			if !known {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		for _, r := range a.Rows {
			if len(r) != len(a.Columns) {
				t.Fatalf("%q: a row of %d cells and %d columns", text, len(r), len(a.Columns))
			}
			for i, v := range r {
				if typ := a.Columns[i].Type; !v.IsNull() && typ != v.Type() && !(typ.number() && v.Type().number()) {
					t.Fatalf("%q: a %s in the column %s, which is a %s", text, v.Type(), a.Columns[i].Name, typ)
				}
			}
		}
		for _, scan := range s.scans {
			for _, f := range scan.Filters {
				if f.Values != nil && f.Test("a value that nobody names") && !slices.Contains(f.Values, "a value that nobody names") {
					t.Fatalf("%q: the source is told of %q, and the condition holds for others", text, f.Values)
				}
			}
		}
	})
}
