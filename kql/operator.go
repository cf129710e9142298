package kql

import (
	"slices"
	"strconv"
	"strings"
)

// cells binds named expressions and adds them to the columns that there are;
// extend gives a column that exists another value.
func (p *planner) cells(cells []code, cols scope, list []named, s scope) ([]code, scope) {
	extends := cells != nil
	for i, n := range list {
		c := p.expr(n.expr, s)
		name := n.name
		switch {
		case name == "" && c.name != "":
			name = c.name
		case name == "":
			name = unused(cols, "Column"+strconv.Itoa(i+1))
		}
		col := Column{name, c.typ}
		if c.typ == Null {
			wrong(ErrSemantic, n.at, "null has no type; write tostring(null) or toint(null)")
		}
		at := cols.find(name)
		switch {
		case at < 0:
			cells, cols = append(cells, c), append(cols, col)
		case extends:
			cells[at], cols[at] = c, col
		default:
			wrong(ErrSemantic, n.at, "two columns are named %s; write NAME = … before one", clip(name))
		}
	}
	return cells, cols
}

// unused is name, or name with a number behind it.
func unused(cols scope, name string) string {
	for i, free := 0, name; ; {
		if cols.find(free) < 0 {
			return free
		}
		i++
		free = name + strconv.Itoa(i)
	}
}

// choose is project-away and project-keep.
func (p *planner) choose(n node, o *oper) node {
	s := n.columns()
	named := make([]bool, len(s))
	for _, g := range o.globs {
		if !g.prefix {
			named[s.column(g.at, g.name)] = true
			continue
		}
		found := false
		for i, c := range s {
			if strings.HasPrefix(c.Name, g.name) {
				named[i], found = true, true
			}
		}
		if !found {
			wrong(ErrSemantic, g.at, "no column begins with %s", clip(g.name))
		}
	}
	var cells []code
	var cols scope
	for i, c := range s {
		if named[i] == (o.name == "project-keep") {
			cells, cols = append(cells, plainCode(i, c)), append(cols, c)
		}
	}
	if len(cols) == 0 {
		wrong(ErrSemantic, o.at, "no column is left")
	}
	return then(n, step{cells: cells}, cols)
}

func (p *planner) rename(n node, o *oper) node {
	s := slices.Clone(n.columns())
	var cells []code
	for i, c := range s {
		cells = append(cells, plainCode(i, c))
	}
	for _, item := range o.list {
		if item.name == "" || item.expr.kind != nameExpr {
			wrong(ErrSemantic, item.at, "write NEW = OLD, both names of columns")
		}
		i := n.columns().column(item.expr.at, item.expr.text)
		if s.find(item.name) >= 0 {
			wrong(ErrSemantic, item.at, "there is a column %s already", clip(item.name))
		}
		s[i].Name, cells[i].name = item.name, item.name
	}
	return then(n, step{cells: cells}, s)
}

func (p *planner) distinct(n node, o *oper) node {
	s := n.columns()
	g := &group{input: n}
	if o.list[0].expr.kind == starExpr {
		for i, c := range s {
			g.keys = append(g.keys, plainCode(i, c))
		}
		g.cols = slices.Clone(s)
		return g
	}
	g.keys, g.cols = p.cells(nil, nil, o.list, s)
	return g
}

func (p *planner) summarize(n node, o *oper) node {
	if len(o.list)+len(o.by) == 0 {
		wrong(ErrSemantic, o.at, "summarize wants a sum such as count(), or by and a column")
	}
	s := n.columns()
	g := &group{input: n, always: len(o.by) == 0}
	g.keys, g.cols = p.cells(nil, nil, o.by, s)
	for _, item := range o.list {
		a := p.aggregate(item.expr, s)
		for i, c := range a.columns {
			switch {
			case i == 0 && item.name != "":
				if g.cols.find(item.name) >= 0 {
					wrong(ErrSemantic, item.at, "two columns are named %s", clip(item.name))
				}
				c.Name = item.name
			default:
				if c.Name == "" {
					c.Name = "Column"
				}
				c.Name = unused(g.cols, c.Name)
			}
			g.cols = append(g.cols, c)
		}
		g.aggregates = append(g.aggregates, a)
	}
	return g
}

// key is one key of a sort.
type key struct {
	code
	desc, nullsFirst bool
}

func (p *planner) keys(list []order, s scope) []key {
	var out []key
	for _, o := range list {
		c := p.expr(o.expr, s)
		if c.typ == Dynamic {
			wrong(ErrSemantic, o.expr.at, "there is no order of a %s", c.typ)
		}
		out = append(out, key{c, !o.asc, o.nullsFirst})
	}
	return out
}

// first is top and take. Where the order is that of the table's time, or there
// is none, a scan can end early.
func (p *planner) first(n node, keys []key, most int64) node {
	enough(n, keys, most)
	return &sorted{input: n, keys: keys, most: most}
}

func enough(n node, keys []key, most int64) {
	switch n := n.(type) {
	case *both:
		for _, in := range n.inputs {
			enough(in, keys, most)
		}
	case *chain:
		if n.scan == nil || len(keys) > 1 {
			return
		}
		order := Newest
		if len(keys) == 1 {
			k := keys[0]
			if !k.plain || n.origin[k.uses[0]] != n.scan.table.Time {
				return
			}
			if !k.desc {
				order = Oldest
			}
		}
		n.scan.order, n.scan.enough = order, most
		n.limited, n.most = true, most
	}
}

// describe is what getschema says of columns.
func describe(s scope) [][]Value {
	var rows [][]Value
	for i, c := range s {
		rows = append(rows, []Value{Str(c.Name), Num(int64(i)), Str("System." + goNames[c.Type]), Str(c.Type.String())})
	}
	return rows
}

var goNames = map[Type]string{
	Bool: "SByte", Int: "Int32", Long: "Int64", Real: "Double", Datetime: "DateTime", Timespan: "TimeSpan", String: "String", Dynamic: "Object",
}
