// Package kql is a subset of the Kusto query language: what the questions
// that people ask of a registry's logs are written in.
//
// A text is parsed, its names and types are checked, and it becomes a chain of
// operators through which rows are pushed. What of a query a source can do
// better, such as a range of time, is told to the source. A query is bounded
// in text, rows, memory and time, and an error says which bound it met, or at
// which column of the text something is wrong.
package kql

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"cove.example/cove/fault"
)

// Source is where rows come from.
type Source interface {
	Tables() []Table
	// Scan calls row with the cells of each row in the order of the table's
	// columns. The slice is good for that call only. An error of row ends it
	// and is returned.
	Scan(ctx context.Context, s Scan, row func([]Value) error) error
}

// The bounds that Options may lower.
const (
	MaxRows   = 30_000
	MaxMemory = 64 << 20
	MaxTime   = 30 * time.Second
)

// Options are what a query is run with.
type Options struct {
	Now      time.Time // what now() says
	From, To time.Time // rows from outside [From, To] are not there; zero is open
	Rows     int       // of the answer; 0 is MaxRows
	Memory   int64     // bytes; 0 is MaxMemory
	Time     time.Duration
}

// Answer is a table.
type Answer struct {
	Columns []Column
	Rows    [][]Value
}

// Run answers a query. Its errors are those of this package, and the source's.
func Run(ctx context.Context, src Source, text string, o Options) (*Answer, error) {
	q, err := parse(text)
	if err != nil {
		return nil, err
	}
	p := &planner{tables: src.Tables(), from: math.MinInt64, to: math.MaxInt64}
	p.now = Time(o.Now)
	if !o.From.IsZero() {
		p.from = ticks(o.From)
	}
	if !o.To.IsZero() {
		p.to = ticks(o.To)
	}
	var n node
	if err := caught(text, func() { n = p.query(q) }); err != nil {
		return nil, err
	}
	all := make([]bool, len(n.columns()))
	for i := range all {
		all[i] = true
	}
	n.need(all)
	return collect(ctx, src, n, o)
}

func collect(ctx context.Context, src Source, n node, o Options) (*Answer, error) {
	x := &execution{src: src, memory: MaxMemory}
	most, limit := MaxRows, MaxTime
	if o.Rows > 0 {
		most = o.Rows
	}
	if o.Memory > 0 {
		x.memory = o.Memory
	}
	if o.Time > 0 {
		limit = o.Time
	}
	x.limit = x.memory
	late := ErrTime.Detail("the query took longer than %s; narrow TimeGenerated, for example with: where TimeGenerated > ago(1d)", limit)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
	defer cancel()
	x.ctx = ctx
	a := &Answer{Columns: n.columns()}
	err := n.run(x, func(row []Value) error {
		if len(a.Rows) == most {
			return ErrRows.Detail("the answer has more than %d rows; narrow it with where, sum it up with summarize, or add: take %d", most, most)
		}
		a.Rows = append(a.Rows, slices.Clone(row))
		return x.hold(row)
	})
	if err != nil && errors.Is(context.Cause(ctx), ErrTime) {
		err = late
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// execution is one run of a query.
type execution struct {
	ctx    context.Context
	src    Source
	memory int64 // that is left
	limit  int64
	rows   int // since the context was looked at
}

// hold counts a row that is kept.
func (x *execution) hold(row []Value) error {
	n := int64(24)
	for _, v := range row {
		n += v.size()
	}
	return x.take(n)
}

func (x *execution) take(bytes int64) error {
	if x.memory -= bytes; x.memory < 0 {
		return ErrMemory.Detail("the query needs more than %d MiB of memory; narrow it with where, or project fewer columns before", x.limit>>20)
	}
	return nil
}

// errEnough ends a scan that has given what was wanted.
var errEnough = fault.New(fault.Internal, "enough rows")

// scan reads a table.
type scan struct {
	table    *Table
	cells    []bool
	from, to int64
	filters  []Filter
	order    Order
	enough   int64
}

func (s *scan) columns() scope { return s.table.Columns }

func (s *scan) need(cells []bool) { s.cells = cells }

func (s *scan) run(x *execution, out func([]Value) error) error {
	ask := Scan{Table: s.table.Name, From: s.from, To: s.to, Filters: s.filters, Order: s.order, Enough: s.enough}
	for i, needed := range s.cells {
		if needed {
			ask.Columns = append(ask.Columns, i)
		}
	}
	if s.from > s.to {
		return nil
	}
	return x.src.Scan(x.ctx, ask, func(row []Value) error {
		if x.rows++; x.rows&1023 == 0 && x.ctx.Err() != nil {
			return x.ctx.Err()
		}
		return out(row)
	})
}

// step drops rows or makes others of them.
type step struct {
	filter *code
	cells  []code
	live   []bool // the cells that somebody reads
}

// chain is steps behind an input.
type chain struct {
	input   node
	scan    *scan // the input, where it is one
	steps   []step
	cols    scope
	origin  []int // with scan: the column of the table that a column is, or -1
	limited bool
	most    int64 // with limited: so many rows are enough
}

func (c *chain) columns() scope { return c.cols }

func (c *chain) need(cells []bool) {
	for i := len(c.steps) - 1; i >= 0; i-- {
		s := &c.steps[i]
		if s.filter != nil {
			cells = slices.Clone(cells)
			for _, u := range s.filter.uses {
				cells[u] = true
			}
			continue
		}
		s.live = cells
		before := make([]bool, c.widthBefore(i))
		for j, cell := range s.cells {
			if cells[j] {
				for _, u := range cell.uses {
					before[u] = true
				}
			}
		}
		cells = before
	}
	c.input.need(cells)
}

// widthBefore is how many cells a row has that comes to a step.
func (c *chain) widthBefore(i int) int {
	for i--; i >= 0; i-- {
		if c.steps[i].filter == nil {
			return len(c.steps[i].cells)
		}
	}
	return len(c.input.columns())
}

func (c *chain) run(x *execution, out func([]Value) error) error {
	if c.limited && c.most == 0 {
		return nil
	}
	buffers := make([][]Value, len(c.steps))
	for i, s := range c.steps {
		buffers[i] = make([]Value, len(s.cells))
	}
	n, done := int64(0), false
	err := c.input.run(x, func(row []Value) error {
		for i := range c.steps {
			s := &c.steps[i]
			if s.filter != nil {
				if !s.filter.eval(row).isTrue() {
					return nil
				}
				continue
			}
			next := buffers[i]
			for j := range s.cells {
				if s.live[j] {
					next[j] = as(s.cells[j].typ, s.cells[j].eval(row))
				}
			}
			row = next
		}
		if err := out(row); err != nil {
			return err
		}
		if n++; c.limited && n == c.most {
			done = true
			return errEnough
		}
		return nil
	})
	if done && errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// both is a union: inputs with the same columns, one after the other.
type both struct {
	inputs []node
	cols   scope
}

func (b *both) columns() scope { return b.cols }

func (b *both) need(cells []bool) {
	for _, n := range b.inputs {
		n.need(slices.Clone(cells))
	}
}

func (b *both) run(x *execution, out func([]Value) error) error {
	for _, n := range b.inputs {
		if err := n.run(x, out); err != nil {
			return err
		}
	}
	return nil
}

// group is summarize, distinct and count.
type group struct {
	input      node
	keys       []code
	aggregates []aggregate
	cols       scope
	always     bool // without a row there is one group all the same
}

func (g *group) columns() scope { return g.cols }

func (g *group) need([]bool) {
	cells := make([]bool, len(g.input.columns()))
	for _, k := range g.keys {
		for _, u := range k.uses {
			cells[u] = true
		}
	}
	for _, a := range g.aggregates {
		for _, u := range a.uses {
			cells[u] = true
		}
	}
	g.input.need(cells)
}

type member struct {
	keys []Value
	sums []accumulator
}

func (g *group) start(keys []Value) *member {
	m := &member{keys: slices.Clone(keys)}
	for _, a := range g.aggregates {
		m.sums = append(m.sums, a.start())
	}
	return m
}

func (g *group) run(x *execution, out func([]Value) error) error {
	groups := map[string]*member{}
	var list []*member // in the order of their first rows
	if g.always {
		groups[""] = g.start(nil)
		list = append(list, groups[""])
	}
	keys := make([]Value, len(g.keys))
	var id []byte
	err := g.input.run(x, func(row []Value) error {
		id = id[:0]
		for i, k := range g.keys {
			keys[i] = as(k.typ, k.eval(row))
			id = appendKey(id, keys[i])
		}
		m := groups[string(id)]
		if m == nil {
			m = g.start(keys)
			groups[string(id)] = m
			list = append(list, m)
			if err := x.take(int64(len(id)) + 200*int64(1+len(m.sums))); err != nil {
				return err
			}
			if err := x.hold(keys); err != nil {
				return err
			}
		}
		for _, s := range m.sums {
			if grown := s.add(row); grown != 0 {
				if err := x.take(grown); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	row := make([]Value, 0, len(g.cols))
	for _, m := range list {
		row = append(row[:0], m.keys...)
		for _, s := range m.sums {
			row = s.result(row)
		}
		if err := out(row); err != nil {
			return err
		}
	}
	return nil
}

// sorted is sort, top (most is not -1) and take (no keys).
type sorted struct {
	input node
	keys  []key
	most  int64
}

func (s *sorted) columns() scope { return s.input.columns() }

func (s *sorted) need(cells []bool) {
	cells = slices.Clone(cells)
	for _, k := range s.keys {
		for _, u := range k.uses {
			cells[u] = true
		}
	}
	s.input.need(cells)
}

// item is a row with what it is sorted by.
type item struct {
	row  []Value
	keys []Value
}

func (s *sorted) compare(a, b item) int {
	for i, k := range s.keys {
		x, y := a.keys[i], b.keys[i]
		if x.typ == Null || y.typ == Null {
			if x.typ == y.typ {
				continue
			}
			if (x.typ == Null) == k.nullsFirst {
				return -1
			}
			return 1
		}
		if c := compare(x, y); c != 0 {
			if k.desc {
				return -c
			}
			return c
		}
	}
	return 0
}

func (s *sorted) run(x *execution, out func([]Value) error) error {
	if s.most == 0 {
		return nil
	}
	if len(s.keys) == 0 {
		return s.take(x, out)
	}
	var list []item
	trim := func() error {
		slices.SortStableFunc(list, s.compare)
		if s.most < 0 || int64(len(list)) <= s.most {
			return nil
		}
		for _, gone := range list[s.most:] {
			x.memory += gone.size()
		}
		clear(list[s.most:])
		list = list[:s.most]
		return nil
	}
	err := s.input.run(x, func(row []Value) error {
		it := item{row: slices.Clone(row), keys: make([]Value, len(s.keys))}
		for i, k := range s.keys {
			it.keys[i] = k.eval(row)
		}
		list = append(list, it)
		if s.most > 0 && int64(len(list)) >= 2*s.most+1024 {
			if err := trim(); err != nil {
				return err
			}
		}
		return x.take(it.size())
	})
	if err != nil {
		return err
	}
	if err := trim(); err != nil {
		return err
	}
	for _, it := range list {
		x.memory += it.size()
		if err := out(it.row); err != nil {
			return err
		}
	}
	return nil
}

func (it item) size() int64 {
	n := int64(100)
	for _, v := range it.row {
		n += v.size()
	}
	return n + 40*int64(len(it.keys))
}

// take gives the first rows that come.
func (s *sorted) take(x *execution, out func([]Value) error) error {
	n, done := int64(0), false
	err := s.input.run(x, func(row []Value) error {
		if err := out(row); err != nil {
			return err
		}
		if n++; n == s.most {
			done = true
			return errEnough
		}
		return nil
	})
	if done && errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// schema is getschema.
type schema struct{ of scope }

func (*schema) columns() scope {
	return scope{{"ColumnName", String}, {"ColumnOrdinal", Long}, {"DataType", String}, {"ColumnType", String}}
}

func (*schema) need([]bool) {}

func (s *schema) run(_ *execution, out func([]Value) error) error {
	for _, row := range describe(s.of) {
		if err := out(row); err != nil {
			return err
		}
	}
	return nil
}
