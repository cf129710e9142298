package kql

import "slices"

// accumulator sums up the rows of one group.
type accumulator interface {
	// add takes a row in and returns by how many bytes it has grown.
	add(row []Value) int64
	// result appends its columns.
	result(to []Value) []Value
}

// aggregate is one function behind summarize, bound to its arguments.
type aggregate struct {
	columns []Column
	uses    []int
	start   func() accumulator
}

type aggregateKind struct {
	least, most int
	bind        func(e *expr, args []code, s scope) aggregate
}

// aggregates are all that there are.
var aggregates = map[string]aggregateKind{
	"count": {0, 0, func(*expr, []code, scope) aggregate {
		return aggregate{columns: []Column{{"count_", Long}}, start: func() accumulator { return &counter{} }}
	}},
	"countif": {1, 1, func(e *expr, args []code, _ scope) aggregate {
		wants(e, args, Bool)
		return one("countif_", Long, args, func() accumulator { return &counter{cond: args[0].eval} })
	}},
	"dcount": {1, 1, func(_ *expr, args []code, _ scope) aggregate {
		return one("dcount_"+args[0].name, Long, args, func() accumulator { return &distinct{of: args[0].eval, seen: map[string]bool{}} })
	}},
	"make_set": {1, 2, func(e *expr, args []code, _ scope) aggregate {
		most := int64(maxSet)
		if len(args) == 2 {
			wants(e, args, args[0].typ, Long)
			if !args[1].constant || args[1].value().n < 1 || args[1].value().n > maxSet {
				wrong(ErrSemantic, e.args[1].at, "a set's size is a constant from 1 to %d", maxSet)
			}
			most = args[1].value().n
		}
		return one("set_"+args[0].name, Dynamic, args[:1], func() accumulator {
			return &distinct{of: args[0].eval, seen: map[string]bool{}, keep: true, most: most}
		})
	}},
	"min":     {1, 1, extreme("min_", -1)},
	"max":     {1, 1, extreme("max_", 1)},
	"arg_min": {2, many, argExtreme("min", -1)},
	"arg_max": {2, many, argExtreme("max", 1)},
	"take_any": {1, 1, func(_ *expr, args []code, _ scope) aggregate {
		return one(args[0].name, args[0].typ, args, func() accumulator { return &best{of: args[0].eval} })
	}},
	"sum": {1, 1, func(e *expr, args []code, _ scope) aggregate {
		typ := summable(e, args)
		return one("sum_"+args[0].name, typ, args, func() accumulator { return &sum{of: args[0].eval, typ: typ} })
	}},
	"avg": {1, 1, func(e *expr, args []code, _ scope) aggregate {
		typ := summable(e, args)
		if typ == Long {
			typ = Real
		}
		return one("avg_"+args[0].name, typ, args, func() accumulator { return &sum{of: args[0].eval, typ: typ, mean: true} })
	}},
}

// maxSet is the most that make_set keeps; it leaves out the rest, as Kusto's
// does at its own.
const maxSet = 10_000

func one(name string, typ Type, args []code, start func() accumulator) aggregate {
	return aggregate{columns: []Column{{name, typ}}, uses: join(typ, args, nil).uses, start: start}
}

func summable(e *expr, args []code) Type {
	switch t := args[0].typ; t {
	case Int, Long:
		return Long
	case Real, Timespan:
		return t
	default:
		hint := ""
		if t == String {
			hint = "; write toint(…) around a text of digits"
		}
		wrong(ErrSemantic, e.args[0].at, "%s adds up numbers and timespans, and this is a %s%s", e.text, t, hint)
	}
	panic("unreachable")
}

func (b *binder) aggregate(e *expr, s scope) aggregate {
	if e.kind != callExpr {
		wrong(ErrSemantic, e.at, "expected a sum such as count(), or a column behind by")
	}
	kind, ok := aggregates[e.text]
	if !ok {
		names := make([]string, 0, len(aggregates))
		for n := range aggregates {
			names = append(names, n)
		}
		slices.Sort(names)
		wrong(ErrSemantic, e.at, "summarize has no %s%s", clip(e.text), instead(e.text, names))
	}
	if len(e.args) == 1 && e.args[0].kind == starExpr && e.text == "count" {
		e = &expr{kind: e.kind, at: e.at, end: e.end, text: e.text}
	}
	arity(e, kind.least, kind.most)
	var args []code
	for i, a := range e.args {
		if a.kind == starExpr && i > 0 && i == len(e.args)-1 {
			break // arg_max(x, *)
		}
		args = append(args, b.expr(a, s))
	}
	return kind.bind(e, args, s)
}

type counter struct {
	cond func([]Value) Value // nil is every row
	n    int64
}

func (c *counter) add(row []Value) int64 {
	if c.cond == nil || c.cond(row).isTrue() {
		c.n++
	}
	return 0
}

func (c *counter) result(to []Value) []Value { return append(to, Num(c.n)) }

// distinct counts different values, or keeps them. Null is none.
type distinct struct {
	of   func([]Value) Value
	seen map[string]bool
	keep bool
	most int64
	set  []Value
	key  []byte
}

func (d *distinct) add(row []Value) int64 {
	v := d.of(row)
	if v.typ == Null || d.keep && int64(len(d.set)) >= d.most {
		return 0
	}
	d.key = appendKey(d.key[:0], v)
	if d.seen[string(d.key)] {
		return 0
	}
	d.seen[string(d.key)] = true
	grown := int64(len(d.key)) + 64
	if d.keep {
		d.set = append(d.set, v)
		grown += v.size()
	}
	return grown
}

func (d *distinct) result(to []Value) []Value {
	if !d.keep {
		return append(to, Num(int64(len(d.seen))))
	}
	return append(to, Value{typ: Dynamic, set: &d.set})
}

// best is the least (-1) or greatest (1) value, or the first (0); null where
// there is none. What stands in the same row comes with it.
type best struct {
	of   func([]Value) Value
	sign int
	with []func([]Value) Value
	v    Value
	row  []Value
}

func (m *best) add(row []Value) int64 {
	v := m.of(row)
	if v.typ == Null || m.v.typ != Null && compare(v, m.v)*m.sign <= 0 {
		return 0
	}
	grown := v.size() - m.v.size()
	m.v = v
	for i, w := range m.with {
		x := w(row)
		grown += x.size() - m.row[i].size()
		m.row[i] = x
	}
	return grown
}

func (m *best) result(to []Value) []Value { return append(append(to, m.v), m.row...) }

func extreme(prefix string, sign int) func(*expr, []code, scope) aggregate {
	return func(_ *expr, args []code, _ scope) aggregate {
		return one(prefix+args[0].name, args[0].typ, args, func() accumulator { return &best{of: args[0].eval, sign: sign} })
	}
}

// argExtreme is arg_max(x, a, b), or arg_max(x, *) for all other columns.
func argExtreme(word string, sign int) func(*expr, []code, scope) aggregate {
	return func(e *expr, args []code, s scope) aggregate {
		by, with := args[0], args[1:]
		if len(args) < len(e.args) {
			for i, c := range s {
				if by.plain && by.uses[0] == i {
					continue
				}
				with = append(with, plainCode(i, c))
			}
		}
		name := by.name
		if !by.plain {
			name = word + "_" + by.name
		}
		out := aggregate{columns: []Column{{name, by.typ}}, uses: join(Null, append([]code{by}, with...), nil).uses}
		evals := make([]func([]Value) Value, len(with))
		for i, w := range with {
			evals[i] = w.eval
			out.columns = append(out.columns, Column{w.name, w.typ})
		}
		out.start = func() accumulator {
			return &best{of: by.eval, sign: sign, with: evals, row: make([]Value, len(evals))}
		}
		return out
	}
}

// sum adds up, or takes the mean; null where there is nothing to.
type sum struct {
	of   func([]Value) Value
	typ  Type
	mean bool
	n    int64
	ints int64
	real float64
}

func (s *sum) add(row []Value) int64 {
	v := s.of(row)
	if v.typ == Null {
		return 0
	}
	s.n++
	s.ints += v.n
	s.real += v.real()
	return 0
}

func (s *sum) result(to []Value) []Value {
	switch {
	case s.n == 0 && s.mean:
		return append(to, null)
	case s.mean && s.typ == Real:
		return append(to, Float(s.real/float64(s.n)))
	case s.mean:
		return append(to, whole(s.typ, s.real/float64(s.n)))
	case s.typ == Real:
		return append(to, Float(s.real))
	}
	return append(to, Value{typ: s.typ, n: s.ints})
}
