package kql

import (
	"math"
	"slices"
	"strings"
)

// Table is one table of a source.
type Table struct {
	Name    string
	Columns []Column
	Time    int // the column that says when a row came about
}

// Filter is a condition on one string column that every row which the query
// wants fulfils.
type Filter struct {
	Column int
	Values []string // the column is one of these; nil is not known
	// Test is the condition. A source that knows all values a column can have
	// may ask it for each.
	Test func(string) bool
}

// Order is what order a scan's rows must come in.
type Order uint8

// The orders, by the table's Time.
const (
	AnyOrder Order = iota
	Newest         // first
	Oldest
)

// Scan is what a query wants of a table. A source may give rows that Filters
// rule out, for the query looks at each again; it gives none from outside From
// and To, and leaves out none that is wanted.
type Scan struct {
	Table    string
	Columns  []int // the cells that are read; others may stay empty
	From, To int64 // in ticks of 100 ns since 1970, [From, To]
	Filters  []Filter
	Order    Order
	Enough   int64 // so many rows are likely to be wanted; 0 is all
}

// node gives rows.
type node interface {
	columns() scope
	// need is told once which of its columns are read.
	need(cells []bool)
	run(x *execution, out func(row []Value) error) error
}

// planner makes nodes of a tree.
type planner struct {
	binder
	tables   []Table
	from, to int64
}

func (p *planner) query(q *query) node {
	p.lets = map[string]code{}
	for _, l := range q.lets {
		if _, twice := p.lets[l.name]; twice {
			wrong(ErrSemantic, l.at, "%s is given twice", clip(l.name))
		}
		p.lets[l.name] = p.expr(l.expr, nil)
	}
	return p.table(&q.table)
}

func (p *planner) table(t *table) node {
	var n node
	switch {
	case t.sub != nil:
		n = p.table(t.sub)
	case t.union != nil:
		n = p.union(nil, t.union)
	default:
		n = p.scan(t)
	}
	for i := range t.ops {
		n = p.oper(n, &t.ops[i])
	}
	return n
}

func (p *planner) scan(t *table) node {
	i := slices.IndexFunc(p.tables, func(one Table) bool { return one.Name == t.name })
	if i < 0 {
		var names []string
		for _, one := range p.tables {
			names = append(names, one.Name)
		}
		hint := nearest(t.name, names)
		if hint == "" {
			hint = "; there are " + strings.Join(names, " and ")
		}
		wrong(ErrSemantic, t.at, "there is no table %s%s", clip(t.name), hint)
	}
	s := &scan{table: &p.tables[i], from: p.from, to: p.to}
	c := &chain{input: s, cols: s.table.Columns, origin: make([]int, len(s.table.Columns)), scan: s}
	for i := range c.origin {
		c.origin[i] = i
	}
	return c
}

// union brings tables to the same columns. Those that a table lacks are empty.
func (p *planner) union(first node, u *union) node {
	var inputs []node
	var names []string
	if first != nil {
		inputs, names = append(inputs, first), append(names, "union_arg0")
	}
	for i := range u.tables {
		inputs = append(inputs, p.table(&u.tables[i]))
		name := u.tables[i].name
		if name == "" {
			name = "union_arg" + string(rune('0'+len(names)%10))
		}
		names = append(names, name)
	}
	var cols scope
	if u.source != "" {
		cols = append(cols, Column{u.source, String})
	}
	for _, n := range inputs {
		for _, c := range n.columns() {
			switch i := cols.find(c.Name); {
			case i < 0:
				cols = append(cols, c)
			case i == 0 && u.source != "":
				wrong(ErrSemantic, u.at, "a table has a column %s already", clip(u.source))
			case cols[i].Type == Long && c.Type == Int, cols[i].Type == Int && c.Type == Long:
				cols[i].Type = Long
			case cols[i].Type != c.Type:
				wrong(ErrSemantic, u.at, "the column %s is a %s in one table and a %s in another", clip(c.Name), cols[i].Type, c.Type)
			}
		}
	}
	if u.inner {
		cols = slices.DeleteFunc(cols, func(c Column) bool {
			return c.Name != u.source && slices.ContainsFunc(inputs, func(n node) bool { return n.columns().find(c.Name) < 0 })
		})
	}
	out := &both{cols: cols}
	for k, n := range inputs {
		cells := make([]code, len(cols))
		for i, c := range cols {
			j := n.columns().find(c.Name)
			switch {
			case i == 0 && u.source != "":
				cells[i] = constantCode(Str(names[k]))
			case j >= 0:
				cells[i] = plainCode(j, c)
			default:
				cells[i] = constantCode(as(c.Type, null))
			}
		}
		out.inputs = append(out.inputs, then(n, step{cells: cells}, cols))
	}
	return out
}

func (p *planner) oper(n node, o *oper) node {
	s := n.columns()
	switch o.name {
	case "where":
		return p.where(n, o.cond)
	case "project":
		cells, cols := p.cells(nil, nil, o.list, s)
		return then(n, step{cells: cells}, cols)
	case "extend":
		var cells []code
		for i, c := range s {
			cells = append(cells, plainCode(i, c))
		}
		cells, cols := p.cells(cells, slices.Clone(s), o.list, s)
		return then(n, step{cells: cells}, cols)
	case "project-away", "project-keep":
		return p.choose(n, o)
	case "project-rename":
		return p.rename(n, o)
	case "distinct":
		return p.distinct(n, o)
	case "summarize":
		return p.summarize(n, o)
	case "count":
		return &group{input: n, cols: scope{{"Count", Long}}, always: true, aggregates: []aggregate{aggregates["count"].bind(nil, nil, nil)}}
	case "take":
		if by, ok := n.(*sorted); ok && by.most < 0 {
			return p.first(by.input, by.keys, o.count)
		}
		return p.first(n, nil, o.count)
	case "top":
		return p.first(n, p.keys(o.sort, s), o.count)
	case "sort":
		return &sorted{input: n, keys: p.keys(o.sort, s), most: -1}
	case "union":
		return p.union(n, o.union)
	}
	return &schema{of: s}
}

func plainCode(i int, c Column) code {
	return code{typ: c.Type, uses: []int{i}, plain: true, name: c.Name, eval: func(row []Value) Value { return row[i] }}
}

// where splits a condition at its ands: what a source can use of it may be a
// part only.
func (p *planner) where(n node, e *expr) node {
	if e.kind == binaryExpr && e.text == "and" {
		return p.where(p.where(n, e.args[0]), e.args[1])
	}
	c := p.condition(e, n.columns())
	if c.constant && c.value().isTrue() {
		return n
	}
	return p.push(n, e, c)
}

// push adds a filter to every chain below unions, and tells the scan of it.
func (p *planner) push(n node, e *expr, c code) node {
	switch n := n.(type) {
	case *both:
		for i := range n.inputs {
			n.inputs[i] = p.push(n.inputs[i], e, c)
		}
		return n
	case *chain:
		if n.scan != nil {
			p.tell(n, e, c)
		}
		n.steps = append(n.steps, step{filter: &c})
		return n
	}
	return &chain{input: n, cols: n.columns(), steps: []step{{filter: &c}}}
}

// then adds a change of every row.
func then(n node, s step, cols scope) node {
	switch n := n.(type) {
	case *both:
		for i := range n.inputs {
			n.inputs[i] = then(n.inputs[i], s, cols)
		}
		n.cols = cols
		return n
	case *chain:
		var origin []int
		if n.scan != nil {
			for _, c := range s.cells {
				from := -1
				if c.plain {
					from = n.origin[c.uses[0]]
				}
				origin = append(origin, from)
			}
		}
		n.steps, n.cols, n.origin = append(n.steps, s), cols, origin
		return n
	}
	return &chain{input: n, cols: cols, steps: []step{s}}
}

// tell gives the scan what it can use of a condition.
func (p *planner) tell(n *chain, e *expr, c code) {
	s := n.scan
	if len(c.uses) != 1 || n.origin[c.uses[0]] < 0 {
		return
	}
	at, from := c.uses[0], n.origin[c.uses[0]]
	if from == s.table.Time {
		p.tellTime(n, e)
		return
	}
	if s.table.Columns[from].Type != String {
		return
	}
	row := make([]Value, len(n.cols))
	s.filters = append(s.filters, Filter{Column: from, Values: values(e, n.cols[at].Name), Test: func(text string) bool {
		row[at] = Str(text)
		return c.eval(row).isTrue()
	}})
}

// values are those that a column must have one of, nil where that is not
// said.
func values(e *expr, column string) []string {
	isColumn := func(e *expr) bool { return e.kind == nameExpr && e.text == column }
	isText := func(e *expr) bool { return e.kind == literalExpr && e.value.typ == String }
	switch {
	case e.kind == binaryExpr && e.text == "==":
		for i := range 2 {
			if isColumn(e.args[i]) && isText(e.args[1-i]) {
				return []string{e.args[1-i].value.s}
			}
		}
	case e.kind == binaryExpr && e.text == "or":
		a, b := values(e.args[0], column), values(e.args[1], column)
		if a != nil && b != nil {
			return append(a, b...)
		}
	case e.kind == listExpr && e.text == "in" && isColumn(e.args[0]):
		var out []string
		for _, a := range e.args[1:] {
			if !isText(a) {
				return nil
			}
			out = append(out, a.value.s)
		}
		return out
	}
	return nil
}

// tellTime narrows what is scanned by a comparison of the time with a
// constant. What is not understood is left to the filter.
func (p *planner) tellTime(n *chain, e *expr) {
	bounds := func(side int) (int64, bool) {
		c := p.expr(e.args[side], n.cols)
		if !c.constant || c.value().typ != Datetime {
			return 0, false
		}
		return c.value().n, true
	}
	isTime := func(side int) bool {
		a := e.args[side]
		if a.kind != nameExpr {
			return false
		}
		i := n.cols.find(a.text)
		return i >= 0 && n.origin[i] == n.scan.table.Time
	}
	s := n.scan
	after := func(t int64) { s.from = max(s.from, t) }
	before := func(t int64) { s.to = min(s.to, t) }
	switch {
	case e.kind == betweenExpr && e.text == "between" && isTime(0):
		lo, ok := bounds(1)
		if !ok {
			return
		}
		hi, ok := bounds(2)
		if !ok {
			return
		}
		after(lo)
		before(hi)
	case e.kind == binaryExpr:
		op, other := e.text, 1
		if !isTime(0) {
			if !isTime(1) {
				return
			}
			other = 0
			op = map[string]string{"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "=="}[op]
		}
		t, ok := bounds(other)
		if !ok {
			return
		}
		switch op {
		case ">":
			if t < math.MaxInt64 {
				after(t + 1)
			}
		case ">=":
			after(t)
		case "<":
			if t > math.MinInt64 {
				before(t - 1)
			}
		case "<=":
			before(t)
		case "==":
			after(t)
			before(t)
		}
	}
}
