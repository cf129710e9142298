package kql

// query is a text as parsed; nothing in it has been looked up yet.
type query struct {
	lets  []named
	table table
}

// table is a source and the operators behind it.
type table struct {
	at    int
	name  string // of a table; "" where it is another's
	sub   *table // in parentheses
	union *union // at the beginning
	ops   []oper // in order
}

// union is several tables as one.
type union struct {
	at     int
	inner  bool // only the columns that all have
	source string
	tables []table
}

// oper is one operator behind a bar.
type oper struct {
	at   int
	name string

	cond  *expr   // where
	list  []named // project, extend, distinct; the aggregates of summarize
	by    []named // summarize
	sort  []order // sort, top
	count int64   // take, top
	globs []glob  // project-away, project-keep
	union *union
}

// named is an expression and the name that it is given, "" for none.
type named struct {
	at   int
	name string
	expr *expr
}

// order is one key of a sort.
type order struct {
	expr       *expr
	asc        bool
	nullsFirst bool
}

// glob is a column's name, or the beginning of some.
type glob struct {
	at     int
	name   string
	prefix bool
}

// exprKind is what an expression is.
type exprKind uint8

const (
	literalExpr exprKind = iota
	nameExpr
	callExpr   // text(args…)
	binaryExpr // args[0] text args[1]
	listExpr   // args[0] in (args[1:]…); text is in, !in, in~, !in~, has_any, has_all
	betweenExpr
	minusExpr
	starExpr // count(*), arg_max(x, *)
)

// expr is one expression.
type expr struct {
	kind  exprKind
	at    int
	end   int
	text  string
	value Value
	args  []*expr
}
