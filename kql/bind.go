package kql

import (
	"regexp"
	"slices"
	"strings"
)

// Column is one column of a table.
type Column struct {
	Name string
	Type Type
}

// code is an expression that can be run on a row.
type code struct {
	typ      Type
	eval     func(row []Value) Value
	uses     []int // the row's cells that it reads
	constant bool
	plain    bool   // it is uses[0] and nothing else
	name     string // what a column made of it is called, "" for nothing in particular
}

func constantCode(v Value) code {
	return code{typ: v.typ, constant: true, eval: func([]Value) Value { return v }}
}

// value is what a constant is.
func (c code) value() Value { return c.eval(nil) }

// binder gives names their meaning.
type binder struct {
	lets map[string]code
	now  Value
}

// scope are the columns of the rows that an expression sees.
type scope []Column

func (s scope) find(name string) int {
	return slices.IndexFunc(s, func(c Column) bool { return c.Name == name })
}

func (s scope) names() []string {
	var out []string
	for _, c := range s {
		out = append(out, c.Name)
	}
	return out
}

// column finds a column or fails at its place.
func (s scope) column(at int, name string) int {
	i := s.find(name)
	if i < 0 {
		wrong(ErrSemantic, at, "there is no column %s here%s", clip(name), nearest(name, s.names()))
	}
	return i
}

// expr binds one expression. What has no column in it is worked out at once.
func (b *binder) expr(e *expr, s scope) code {
	var c code
	switch e.kind {
	case literalExpr:
		return constantCode(e.value)
	case nameExpr:
		if i := s.find(e.text); i >= 0 {
			return code{typ: s[i].Type, uses: []int{i}, plain: true, name: e.text, eval: func(row []Value) Value { return row[i] }}
		}
		if c, ok := b.lets[e.text]; ok {
			return c
		}
		s.column(e.at, e.text)
	case starExpr:
		wrong(ErrSemantic, e.at, "* stands for nothing here")
	case minusExpr:
		c = b.minus(e, b.expr(e.args[0], s))
	case callExpr:
		c = b.call(e, s)
	default:
		args := make([]code, len(e.args))
		for i, a := range e.args {
			args[i] = b.expr(a, s)
		}
		switch e.kind {
		case listExpr:
			c = list(e, args)
		case betweenExpr:
			c = between(e, args)
		default:
			c = binary(e, args)
		}
	}
	return fold(c)
}

func fold(c code) code {
	if c.constant {
		typ := c.typ
		c = constantCode(c.value())
		c.typ = typ // of a null too
	}
	return c
}

// join fills in what a code has from its arguments.
func join(typ Type, args []code, eval func(row []Value) Value) code {
	c := code{typ: typ, eval: eval, constant: true}
	for _, a := range args {
		c.constant = c.constant && a.constant
		for _, u := range a.uses {
			if !slices.Contains(c.uses, u) {
				c.uses = append(c.uses, u)
			}
		}
	}
	return c
}

// condition is an expression that must be a bool.
func (b *binder) condition(e *expr, s scope) code {
	c := b.expr(e, s)
	if c.typ != Bool && c.typ != Null {
		wrong(ErrSemantic, e.at, "expected a condition, and this is of type %s", c.typ)
	}
	return c
}

func (b *binder) minus(e *expr, c code) code {
	switch {
	case c.typ == Real:
		return join(Real, []code{c}, func(row []Value) Value {
			v := c.eval(row)
			if v.typ == Null {
				return v
			}
			return Float(-v.real())
		})
	case c.typ == Timespan || c.typ.number():
		typ := c.typ
		if typ == Int {
			typ = Long
		}
		return join(typ, []code{c}, func(row []Value) Value {
			v := c.eval(row)
			if v.typ == Null {
				return v
			}
			return Value{typ: typ, n: -v.n}
		})
	}
	wrong(ErrSemantic, e.at, "there is no minus of type %s", c.typ)
	panic("unreachable")
}

// together reports whether values of two types can be compared.
func together(a, b Type) bool {
	return a == b || a.number() && b.number() || a == Null || b == Null
}

func mismatch(e *expr, a, b code) {
	hint := ""
	switch {
	case a.typ == String && b.typ.number():
		hint = "; write toint(…) around the text, or quote the number"
	case a.typ == Datetime && b.typ == String:
		hint = "; write datetime(2026-11-21T09:00:00Z)"
	case a.typ == Datetime && b.typ == Timespan:
		hint = "; write ago(1h)"
	}
	wrong(ErrSemantic, e.at, "%s cannot be applied to %s and %s%s", e.text, a.typ, b.typ, hint)
}

var null = Value{}

func binary(e *expr, args []code) code {
	a, b := args[0], args[1]
	switch op := e.text; op {
	case "and", "or":
		for i, c := range args {
			if c.typ != Bool && c.typ != Null {
				wrong(ErrSemantic, e.args[i].at, "%s wants conditions, and this is of type %s", op, c.typ)
			}
		}
		return join(Bool, args, logic(op == "or", a.eval, b.eval))
	case "==", "!=", "<", "<=", ">", ">=":
		if !together(a.typ, b.typ) || a.typ == Dynamic || b.typ == Dynamic {
			mismatch(e, a, b)
		}
		return join(Bool, args, comparison(op, a.eval, b.eval))
	case "+", "-", "*", "/", "%":
		return arithmetic(e, args)
	case "matches":
		return regex(e, args)
	}
	if a.typ != String || b.typ != String {
		mismatch(e, a, b)
	}
	return join(Bool, args, textTest(e.text, a, b))
}

// logic is "and" and "or" with a third value: unknown, which is null.
func logic(or bool, a, b func([]Value) Value) func([]Value) Value {
	decides := int64(boolInt(or))
	return func(row []Value) Value {
		x := a(row)
		if x.typ == Bool && x.n == decides {
			return x
		}
		y := b(row)
		if y.typ == Bool && y.n == decides {
			return y
		}
		if x.typ == Null || y.typ == Null {
			return null
		}
		return Truth(!or)
	}
}

// comparison of what is null gives null, but that something is not nothing is
// known.
func comparison(op string, a, b func([]Value) Value) func([]Value) Value {
	var test func(int) bool
	switch op {
	case "==":
		test = func(c int) bool { return c == 0 }
	case "!=":
		test = func(c int) bool { return c != 0 }
	case "<":
		test = func(c int) bool { return c < 0 }
	case "<=":
		test = func(c int) bool { return c <= 0 }
	case ">":
		test = func(c int) bool { return c > 0 }
	default:
		test = func(c int) bool { return c >= 0 }
	}
	return func(row []Value) Value {
		x, y := a(row), b(row)
		if x.typ == Null || y.typ == Null {
			if x.typ != y.typ && (op == "==" || op == "!=") {
				return Truth(op == "!=")
			}
			return null
		}
		return Truth(test(compare(x, y)))
	}
}

// textTest is one of the tests of two strings. A constant pattern is prepared
// once.
func textTest(op string, a, b code) func([]Value) Value {
	name, negative := strings.CutPrefix(op, "!")
	if op == "!~" {
		name = "=~"
	}
	name, exact := strings.CutSuffix(name, "_cs")
	test := textTests[name]
	pattern := func(s string) string {
		if exact {
			return s
		}
		return lower(s)
	}
	if b.constant {
		p := pattern(b.value().s)
		return func(row []Value) Value { return Truth(test(pattern(a.eval(row).s), p) != negative) }
	}
	return func(row []Value) Value {
		return Truth(test(pattern(a.eval(row).s), pattern(b.eval(row).s)) != negative)
	}
}

// textTests compare texts that are both in lower case, or both as they stand.
var textTests = map[string]func(s, p string) bool{
	"=~":         func(s, p string) bool { return s == p },
	"contains":   strings.Contains,
	"startswith": strings.HasPrefix,
	"endswith":   strings.HasSuffix,
	"has":        func(s, p string) bool { return term(s, p, true, true) },
	"hasprefix":  func(s, p string) bool { return term(s, p, true, false) },
	"hassuffix":  func(s, p string) bool { return term(s, p, false, true) },
}

// lower is s for comparing without regard to case.
func lower(s string) string { return strings.ToLower(s) }

// term reports whether p stands in s as a word: where p begins, and where it
// ends, s has no letter or digit before or behind it.
func term(s, p string, begin, end bool) bool {
	for from := 0; ; {
		i := strings.Index(s[from:], p)
		if i < 0 {
			return false
		}
		i += from
		j := i + len(p)
		if (!begin || i == 0 || p == "" || !wordByte(s[i-1]) || !wordByte(p[0])) &&
			(!end || j == len(s) || p == "" || !wordByte(s[j]) || !wordByte(p[len(p)-1])) {
			return true
		}
		from = i + 1
	}
}

// wordByte says that c is part of a term; what is not ASCII is.
func wordByte(c byte) bool { return c >= 0x80 || digit(c) || letter(c) && c != '_' }

const maxRegex = 1000

func regex(e *expr, args []code) code {
	a, b := args[0], args[1]
	if a.typ != String || !b.constant || b.typ != String {
		wrong(ErrSemantic, e.args[1].at, "matches regex wants a text and a constant pattern")
	}
	pattern := b.value().s
	if len(pattern) > maxRegex {
		wrong(ErrSemantic, e.args[1].at, "a pattern has at most %d bytes", maxRegex)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		wrong(ErrSemantic, e.args[1].at, "the pattern is not one of RE2: %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	return join(Bool, args, func(row []Value) Value { return Truth(re.MatchString(a.eval(row).s)) })
}

// list is in, !in, in~, !in~, has_any and has_all.
func list(e *expr, args []code) code {
	subject, list := args[0], args[1:]
	name, negative := strings.CutPrefix(e.text, "!")
	for i, c := range list {
		if !together(subject.typ, c.typ) || subject.typ == Dynamic || name != "in" && (subject.typ != String || c.typ != String) {
			wrong(ErrSemantic, e.args[i+1].at, "%s cannot look for %s among %s", e.text, subject.typ, c.typ)
		}
	}
	if name == "has_any" || name == "has_all" {
		decides := name == "has_any"
		words := make([]func([]Value) Value, len(list))
		for i, c := range list {
			words[i] = textTest("has", subject, c)
		}
		return join(Bool, args, func(row []Value) Value {
			// One that is there decides for any, one that is not for all.
			return Truth(slices.ContainsFunc(words, func(w func([]Value) Value) bool { return w(row).isTrue() == decides }) == decides)
		})
	}
	key := func(v Value) string {
		if name == "in~" {
			return lower(v.s)
		}
		return v.s
	}
	if subject.typ == String && !slices.ContainsFunc(list, func(c code) bool { return !c.constant || c.typ != String }) {
		among := map[string]bool{}
		for _, c := range list {
			among[key(c.value())] = true
		}
		return join(Bool, args, func(row []Value) Value { return Truth(among[key(subject.eval(row))] != negative) })
	}
	return join(Bool, args, func(row []Value) Value {
		v := subject.eval(row)
		found := slices.ContainsFunc(list, func(c code) bool {
			w := c.eval(row)
			if v.typ == Null || w.typ == Null {
				return v.typ == w.typ
			}
			if v.typ == String {
				return key(v) == key(w)
			}
			return compare(v, w) == 0
		})
		return Truth(found != negative)
	})
}

// between takes both ends as inside; "datetime .. timespan" is a length.
func between(e *expr, args []code) code {
	v, from, to := args[0], args[1], args[2]
	length := v.typ == Datetime && to.typ == Timespan
	if !together(v.typ, from.typ) || !together(v.typ, to.typ) && !length || v.typ == String || v.typ == Bool || v.typ == Dynamic {
		wrong(ErrSemantic, e.at, "%s cannot be applied to %s with %s and %s", e.text, v.typ, from.typ, to.typ)
	}
	want := e.text == "between"
	return join(Bool, args, func(row []Value) Value {
		x, lo, hi := v.eval(row), from.eval(row), to.eval(row)
		if x.typ == Null || lo.typ == Null || hi.typ == Null {
			return null
		}
		if length {
			hi = Value{typ: Datetime, n: lo.n + hi.n}
		}
		return Truth((compare(x, lo) >= 0 && compare(x, hi) <= 0) == want)
	})
}

// sums are the types that arithmetic gives, other than those of numbers.
var sums = map[[2]Type]map[string]Type{
	{Datetime, Timespan}: {"+": Datetime, "-": Datetime},
	{Timespan, Datetime}: {"+": Datetime},
	{Datetime, Datetime}: {"-": Timespan},
	{Timespan, Timespan}: {"+": Timespan, "-": Timespan, "/": Real, "%": Timespan},
	{Timespan, Long}:     {"*": Timespan, "/": Timespan},
	{Timespan, Real}:     {"*": Timespan, "/": Timespan},
	{Long, Timespan}:     {"*": Timespan},
	{Real, Timespan}:     {"*": Timespan},
}

func arithmetic(e *expr, args []code) code {
	a, b := args[0], args[1]
	kind := func(t Type) Type {
		if t == Int {
			return Long
		}
		return t
	}
	ta, tb := kind(a.typ), kind(b.typ)
	typ := sums[[2]Type{ta, tb}][e.text]
	if ta.number() && tb.number() {
		typ = Long
		if ta == Real || tb == Real {
			typ = Real
		}
	}
	if typ == Null {
		mismatch(e, a, b)
	}
	inReal := ta == Real || tb == Real || typ == Real
	op := e.text[0]
	return join(typ, args, func(row []Value) Value {
		x, y := a.eval(row), b.eval(row)
		if x.typ == Null || y.typ == Null {
			return null
		}
		if inReal {
			f, ok := realSum(op, x.real(), y.real())
			switch {
			case !ok:
				return null
			case typ == Real:
				return Float(f)
			}
			return whole(typ, f)
		}
		switch {
		case op == '+':
			return Value{typ: typ, n: x.n + y.n}
		case op == '-':
			return Value{typ: typ, n: x.n - y.n}
		case op == '*':
			return Value{typ: typ, n: x.n * y.n}
		case y.n == 0:
			return null
		case y.n == -1: // the least number has no opposite; Go wraps, a processor may trap
			if op == '%' {
				return Value{typ: typ}
			}
			return Value{typ: typ, n: -x.n}
		case op == '/':
			return Value{typ: typ, n: x.n / y.n}
		}
		return Value{typ: typ, n: x.n % y.n}
	})
}
