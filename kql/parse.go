package kql

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// What a query may be. A person's is far below; what is above was made to
// hurt.
const (
	maxText  = 32 << 10
	maxDepth = 100
	maxOpers = 100
	maxNodes = 5000
	maxUnion = 32
	maxTake  = 1 << 30
)

// parser is recursive descent over tokens that are read when needed.
type parser struct {
	lexer
	tok   token
	depth int
	opers int
	nodes int
}

// parse reads a whole query. Its error is ErrSyntax.
func parse(text string) (q *query, err error) {
	if len(text) > maxText {
		return nil, ErrSyntax.Detail("the query is longer than %d bytes", maxText)
	}
	if !utf8.ValidString(text) {
		return nil, ErrSyntax.Detail("the query is not UTF-8")
	}
	p := &parser{lexer: lexer{text: text}}
	err = caught(text, func() {
		p.advance()
		q = p.query()
	})
	return q, err
}

func (p *parser) advance() { p.tok = p.next() }

func (p *parser) is(s string) bool {
	return (p.tok.kind == symbol || p.tok.kind == word) && p.tok.text == s
}

func (p *parser) take(s string) bool {
	if !p.is(s) {
		return false
	}
	p.advance()
	return true
}

func (p *parser) want(s string) {
	if !p.take(s) {
		wrong(ErrSyntax, p.tok.at, "expected %s before %s", s, p.found())
	}
}

// found is the token as a message names it.
func (p *parser) found() string {
	if p.tok.kind == end {
		return "the end"
	}
	return `"` + clip(p.text[p.tok.at:p.tok.end]) + `"`
}

func (p *parser) deeper(at int) {
	if p.depth++; p.depth > maxDepth {
		wrong(ErrSyntax, at, "the query is nested deeper than %d levels", maxDepth)
	}
}

func (p *parser) node(e *expr) *expr {
	if p.nodes++; p.nodes > maxNodes {
		wrong(ErrSyntax, e.at, "the query has more than %d terms", maxNodes)
	}
	return e
}

func (p *parser) name(what string) token {
	t := p.tok
	if t.kind != word {
		wrong(ErrSyntax, t.at, "expected %s before %s", what, p.found())
	}
	p.advance()
	return t
}

func (p *parser) query() *query {
	q := &query{}
	for p.is("let") {
		at := p.tok.at
		p.advance()
		name := p.name("a name")
		p.want("=")
		e := p.expr()
		q.lets = append(q.lets, named{at, name.text, e})
		p.want(";")
	}
	if p.tok.kind == end {
		wrong(ErrSyntax, p.tok.at, "the query names no table")
	}
	q.table = p.table()
	p.take(";")
	if p.tok.kind != end {
		wrong(ErrSyntax, p.tok.at, "expected | or the end before %s", p.found())
	}
	return q
}

// table reads a source and its operators.
func (p *parser) table() table {
	p.deeper(p.tok.at)
	defer func() { p.depth-- }()
	t := p.source()
	for p.take("|") {
		if p.opers++; p.opers > maxOpers {
			wrong(ErrSyntax, p.tok.at, "the query has more than %d operators", maxOpers)
		}
		t.ops = append(t.ops, p.oper())
	}
	return t
}

func (p *parser) source() table {
	t := table{at: p.tok.at}
	switch {
	case p.take("("):
		sub := p.table()
		t.sub = &sub
		p.want(")")
	case p.is("union"):
		p.advance()
		t.union = p.union(t.at)
	default:
		t.name = p.name("a table").text
		if t.name == "search" || t.name == "find" {
			wrong(ErrSyntax, t.at, "there is no operator %s; %s", t.name, others[t.name])
		}
	}
	return t
}

func (p *parser) union(at int) *union {
	u := &union{at: at}
	for {
		option := p.tok
		if option.kind != word || !strings.HasPrefix(strings.TrimLeft(p.text[option.end:], " \t"), "=") {
			break
		}
		p.advance()
		p.want("=")
		value := p.name("a word")
		switch {
		case option.text == "kind" && (value.text == "outer" || value.text == "inner"):
			u.inner = value.text == "inner"
		case option.text == "withsource":
			u.source = value.text
		case option.text == "isfuzzy" && value.text == "false":
		default:
			wrong(ErrSyntax, option.at, "union takes kind=outer, kind=inner and withsource=NAME")
		}
	}
	for {
		one := table{at: p.tok.at}
		if p.take("(") {
			one = p.table()
			p.want(")")
		} else {
			one.name = p.name("a table").text
		}
		u.tables = append(u.tables, one)
		if len(u.tables) > maxUnion {
			wrong(ErrSyntax, one.at, "a union has at most %d tables", maxUnion)
		}
		if !p.take(",") {
			return u
		}
	}
}

// operators are those that there are, for messages.
var operators = []string{
	"where", "filter", "project", "project-away", "project-keep", "project-rename", "extend", "summarize", "count",
	"distinct", "top", "sort", "order", "take", "limit", "union", "getschema",
}

func (p *parser) oper() oper {
	t := p.name("an operator")
	o := oper{at: t.at, name: t.text}
	if p.is("-") && p.tok.at == t.end {
		ahead := p.lexer
		switch {
		case o.name == "project":
			p.advance()
			o.name += "-" + p.name("away, keep or rename").text
		case ahead.next().kind == word: // as in mv-expand, of which there is none
			p.advance()
			o.name += "-" + p.tok.text
		}
	}
	switch o.name {
	case "where", "filter":
		o.name, o.cond = "where", p.expr()
	case "project", "extend", "project-rename":
		o.list = p.list()
	case "project-away", "project-keep":
		o.globs = p.globs()
	case "summarize":
		if !p.is("by") {
			o.list = p.list()
		}
		if p.take("by") {
			o.by = p.list()
		}
	case "distinct":
		if p.is("*") {
			o.list = []named{{p.tok.at, "", p.star()}}
		} else {
			o.list = p.list()
		}
	case "count", "getschema":
	case "take", "limit":
		o.name, o.count = "take", p.rows()
	case "top":
		o.count = p.rows()
		p.want("by")
		o.sort = []order{p.order()}
	case "sort", "order":
		o.name = "sort"
		p.want("by")
		o.sort = []order{p.order()}
		for p.take(",") {
			o.sort = append(o.sort, p.order())
		}
	case "union":
		o.union = p.union(o.at)
	default:
		wrong(ErrSyntax, o.at, "there is no operator %s%s", clip(o.name), instead(o.name, operators))
	}
	return o
}

// rows reads how many rows an operator gives.
func (p *parser) rows() int64 {
	if p.tok.kind != integer || p.tok.num > maxTake {
		wrong(ErrSyntax, p.tok.at, "expected a number of rows before %s", p.found())
	}
	n := p.tok.num
	p.advance()
	return n
}

func (p *parser) list() []named {
	var out []named
	for {
		n := named{at: p.tok.at}
		if p.tok.kind == word {
			// One token ahead: NAME = … gives a name.
			ahead := p.lexer
			if t := ahead.next(); t.kind == symbol && t.text == "=" {
				n.name = p.tok.text
				p.advance()
				p.advance()
			}
		}
		n.expr = p.expr()
		out = append(out, n)
		if !p.take(",") {
			return out
		}
	}
}

func (p *parser) globs() []glob {
	var out []glob
	for {
		g := glob{at: p.tok.at}
		if !p.is("*") {
			t := p.name("a column")
			g.name = t.text
			g.prefix = p.is("*") && p.tok.at == t.end
		} else {
			g.prefix = true
		}
		if g.prefix {
			p.advance()
		}
		out = append(out, g)
		if !p.take(",") {
			return out
		}
	}
}

func (p *parser) order() order {
	o := order{expr: p.expr()}
	switch {
	case p.take("asc"):
		o.asc = true
	default:
		p.take("desc")
	}
	o.nullsFirst = o.asc
	if p.take("nulls") {
		switch {
		case p.take("first"):
			o.nullsFirst = true
		case p.take("last"):
			o.nullsFirst = false
		default:
			wrong(ErrSyntax, p.tok.at, "expected first or last before %s", p.found())
		}
	}
	return o
}

func (p *parser) expr() *expr {
	return p.chain("or", func() *expr { return p.chain("and", p.comparison) })
}

// chain reads terms with one operator between them.
func (p *parser) chain(operator string, term func() *expr) *expr {
	p.deeper(p.tok.at)
	defer func() { p.depth-- }()
	left := term()
	for p.is(operator) {
		at := p.tok.at
		p.advance()
		right := term()
		left = p.node(&expr{kind: binaryExpr, at: at, end: right.end, text: operator, args: []*expr{left, right}})
	}
	return left
}

// comparisons are the operators between two terms that give a bool.
var comparisons = []string{
	"==", "!=", "=~", "!~", "<", "<=", ">", ">=",
	"contains", "!contains", "contains_cs", "!contains_cs", "has", "!has", "has_cs", "!has_cs",
	"startswith", "!startswith", "startswith_cs", "!startswith_cs", "endswith", "!endswith", "endswith_cs", "!endswith_cs",
	"hasprefix", "!hasprefix", "hasprefix_cs", "!hasprefix_cs", "hassuffix", "!hassuffix", "hassuffix_cs", "!hassuffix_cs",
}

// comparison is not associative: a == b == c is refused.
func (p *parser) comparison() *expr {
	left := p.sum()
	if p.tok.kind != symbol && p.tok.kind != word {
		return left
	}
	op := p.tok
	e := &expr{kind: binaryExpr, at: op.at, text: op.text, args: []*expr{left}}
	switch {
	case slices.Contains(comparisons, op.text):
		p.advance()
		e.args = append(e.args, p.sum())
	case op.text == "matches":
		p.advance()
		p.want("regex")
		e.args = append(e.args, p.sum())
	case op.text == "in" || op.text == "!in" || op.text == "in~" || op.text == "!in~" || op.text == "has_any" || op.text == "has_all":
		p.advance()
		e.kind = listExpr
		p.want("(")
		for {
			e.args = append(e.args, p.expr())
			if !p.take(",") {
				break
			}
		}
		p.want(")")
	case op.text == "between" || op.text == "!between":
		p.advance()
		e.kind = betweenExpr
		p.want("(")
		e.args = append(e.args, p.sum())
		p.want("..")
		e.args = append(e.args, p.sum())
		p.want(")")
	case op.kind == symbol && op.text == "=":
		wrong(ErrSyntax, op.at, "a single = gives a name; to compare write ==")
	case op.kind == symbol && op.text[0] == '!':
		wrong(ErrSyntax, op.at, "there is no operator %s%s", clip(op.text), nearest(op.text, comparisons))
	default:
		return left
	}
	e.end = e.args[len(e.args)-1].end
	return p.node(e)
}

func (p *parser) sum() *expr {
	return p.arithmetic([]string{"+", "-"}, func() *expr { return p.arithmetic([]string{"*", "/", "%"}, p.unary) })
}

func (p *parser) arithmetic(ops []string, term func() *expr) *expr {
	left := term()
	for p.tok.kind == symbol && slices.Contains(ops, p.tok.text) {
		op := p.tok
		p.advance()
		right := term()
		left = p.node(&expr{kind: binaryExpr, at: op.at, end: right.end, text: op.text, args: []*expr{left, right}})
	}
	return left
}

func (p *parser) unary() *expr {
	at := p.tok.at
	if p.tok.kind == symbol && p.take("-") {
		p.deeper(at)
		defer func() { p.depth-- }()
		e := p.unary()
		return p.node(&expr{kind: minusExpr, at: at, end: e.end, args: []*expr{e}})
	}
	return p.primary()
}

func (p *parser) star() *expr {
	t := p.tok
	p.want("*")
	return p.node(&expr{kind: starExpr, at: t.at, end: t.end})
}

func (p *parser) primary() *expr {
	t := p.tok
	e := &expr{at: t.at, end: t.end}
	switch {
	case t.kind == text:
		e.value = Str(t.text)
	case t.kind == integer:
		e.value = Num(t.num)
	case t.kind == decimal:
		e.value = Float(t.real)
	case t.kind == duration:
		e.value = Value{typ: Timespan, n: t.num}
	case t.kind == symbol && t.text == "(":
		p.advance()
		e = p.expr()
		p.want(")")
		return e
	case t.kind != word:
		wrong(ErrSyntax, t.at, "expected a value before %s", p.found())
	case t.text == "true" || t.text == "false":
		e.value = Truth(t.text == "true")
	case t.text == "null":
	default:
		return p.word(t)
	}
	p.advance()
	return p.node(e)
}

// word is what begins with a name: a column, a call, or a literal such as
// datetime(2026-11-21).
func (p *parser) word(t token) *expr {
	if strings.HasPrefix(strings.TrimLeft(p.text[p.pos:], " \t"), "(") {
		switch t.text {
		case "datetime", "date", "time", "timespan":
			return p.moment(t)
		}
	}
	p.advance()
	e := p.node(&expr{kind: nameExpr, at: t.at, end: t.end, text: t.text})
	switch {
	case p.is("."), p.is("["):
		wrong(ErrSyntax, p.tok.at, "columns have no parts: there is nothing behind %s", clip(t.text))
	case p.tok.kind == symbol && p.take("("):
		e.kind = callExpr
		for !p.is(")") {
			if p.is("*") {
				e.args = append(e.args, p.star())
			} else {
				e.args = append(e.args, p.expr())
			}
			if !p.take(",") {
				break
			}
		}
		e.end = p.tok.end
		p.want(")")
	}
	return e
}

// moment reads datetime(…) and timespan(…): what is in the parentheses is
// no expression, unless it is a string.
func (p *parser) moment(t token) *expr {
	from := p.pos + strings.IndexByte(p.text[p.pos:], '(') + 1
	n := strings.IndexByte(p.text[from:], ')')
	if n < 0 {
		wrong(ErrSyntax, t.at, "%s( has no end", t.text)
	}
	inside := strings.Trim(strings.TrimSpace(p.text[from:from+n]), `"'`)
	p.pos = from + n + 1
	e := p.node(&expr{at: t.at, end: p.pos})
	ok := true
	switch {
	case inside == "null":
	case t.text == "datetime" || t.text == "date":
		e.value, ok = parseTime(inside)
	default:
		e.value, ok = parseSpan(inside)
	}
	if !ok {
		example := "datetime(2026-11-21T09:00:00Z)"
		if t.text == "time" || t.text == "timespan" {
			example = "timespan(1.02:30:00), or 90m"
		}
		wrong(ErrSyntax, from, "%q is not a %s; write %s", clip(inside), t.text, example)
	}
	p.advance()
	return e
}

// The forms of a datetime; one without a zone is UTC.
var layouts = []string{
	time.RFC3339Nano, "2006-01-02T15:04:05.9999999", "2006-01-02T15:04Z", "2006-01-02T15:04", "2006-01-02 15:04:05.9999999Z07:00",
	"2006-01-02 15:04:05.9999999", "2006-01-02 15:04Z", "2006-01-02 15:04", time.DateOnly,
}

func parseTime(s string) (Value, bool) {
	for _, l := range layouts {
		if at, err := time.Parse(l, s); err == nil {
			return Time(at), true
		}
	}
	return Value{}, false
}

// parseSpan reads 1.02:03:04.5 and 90m.
func parseSpan(s string) (v Value, ok bool) {
	sign := int64(1)
	if rest, minus := strings.CutPrefix(s, "-"); minus {
		sign, s = -1, rest
	}
	if !strings.Contains(s, ":") {
		// The token of a query; digits alone are days.
		if s == "" || len(s) > 40 || !digit(s[0]) {
			return v, false
		}
		l := &lexer{text: s}
		var t token
		if caught(s, func() { t = l.next() }) != nil || l.pos != len(s) {
			return v, false
		}
		switch {
		case t.kind == duration:
			return Value{typ: Timespan, n: sign * t.num}, true
		case t.kind == integer && t.num < 1e6:
			return Value{typ: Timespan, n: sign * t.num * tickDay}, true
		}
		return v, false
	}
	var day, h, m, sec, fraction int64
	clock := s
	if d, rest, dotted := strings.Cut(s, "."); dotted && strings.Contains(rest, ":") {
		if day, ok = number(d, 6); !ok {
			return v, false
		}
		clock = rest
	}
	clock, f, _ := strings.Cut(clock, ".")
	parts := strings.Split(clock, ":")
	if len(parts) < 2 || len(parts) > 3 || len(f) > 7 {
		return v, false
	}
	for i, to := range []*int64{&h, &m, &sec}[:len(parts)] {
		if *to, ok = number(parts[i], 2); !ok || i > 0 && *to > 59 || i == 0 && *to > 23 {
			return v, false
		}
	}
	if f != "" {
		if fraction, ok = number(f+strings.Repeat("0", 7-len(f)), 7); !ok {
			return v, false
		}
	}
	return Value{typ: Timespan, n: sign * (day*tickDay + (h*3600+m*60+sec)*tickSecond + fraction)}, true
}

// number reads at most some digits.
func number(s string, digits int) (n int64, ok bool) {
	if s == "" || len(s) > digits {
		return 0, false
	}
	for i := range len(s) {
		if !digit(s[i]) {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
