package store

import (
	"context"
	"database/sql"
	"slices"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/audit"
)

// A scan in order reads a day in pages, so that one that ends early has read
// little more than it gave.
const (
	firstPage = 128
	lastPage  = 16384
)

// Scan implements audit.Scanner: it reads the days that the query reaches,
// each through whichever index says most.
func (e *Events) Scan(ctx context.Context, q audit.Query, fn func(*audit.Event) error) error {
	if q.Statuses != nil && len(q.Statuses) == 0 {
		return nil
	}
	if err := e.Flush(ctx); err != nil {
		return err
	}
	days, err := e.days.list(ctx)
	if err != nil {
		return err
	}
	if q.Order == audit.OldestFirst {
		slices.Reverse(days)
	}
	for _, day := range days {
		if !q.From.IsZero() && day < q.From.UTC().Format(time.DateOnly) || !q.To.IsZero() && day > q.To.UTC().Format(time.DateOnly) {
			continue
		}
		scan := e.scanAll
		if q.Order != audit.AnyOrder {
			scan = e.scanOrdered
		}
		if err := scan(ctx, day, q, fn); err != nil {
			return err
		}
	}
	return nil
}

// scanAll reads a day in whatever order comes.
func (e *Events) scanAll(ctx context.Context, day string, q audit.Query, fn func(*audit.Event) error) error {
	// Whoever ends it early must not wait for the rest to be read.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := newEventReader(q.Select)
	c := conditionsOf(day, q)
	return e.days.query(ctx, day, `SELECT `+r.columns+` FROM %s`+c.where(), c.args, func(rows *sql.Rows) error {
		if err := r.read(rows); err != nil {
			return err
		}
		err := fn(&r.event)
		if err != nil {
			cancel()
		}
		return err
	})
}

// scanOrdered reads a day by time, a page at once.
func (e *Events) scanOrdered(ctx context.Context, day string, q audit.Query, fn func(*audit.Event) error) error {
	direction, behind := " DESC", "<"
	if q.Order == audit.OldestFirst {
		direction, behind = "", ">"
	}
	r := newEventReader(q.Select)
	page := firstPage
	if q.Enough > 0 {
		page = min(max(q.Enough, firstPage), lastPage)
	}
	for at, n, more := int64(0), int64(0), false; ; more = true {
		c := conditionsOf(day, q)
		if more {
			c.list = append(c.list, "(time, n) "+behind+" ("+c.arg(at)+", "+c.arg(n)+")")
		}
		limit := c.arg(int64(page))
		got := 0
		err := e.days.query(ctx, day, `SELECT `+r.columns+` FROM %s`+c.where()+` ORDER BY time`+direction+`, n`+direction+` LIMIT `+limit, c.args,
			func(rows *sql.Rows) error {
				if err := r.read(rows); err != nil {
					return err
				}
				got, at, n = got+1, r.at, r.n
				return fn(&r.event)
			})
		if err != nil || got < page {
			return err
		}
		page = min(4*page, lastPage)
	}
}

// conditions of a statement, with their arguments.
type conditions struct {
	list []string
	args []any
}

func (c *conditions) arg(v any) string {
	c.args = append(c.args, v)
	return "$" + strconv.Itoa(len(c.args))
}

func (c *conditions) among(column string, values []string, not bool) {
	var marks []string
	for _, v := range values {
		marks = append(marks, c.arg(plain(v)))
	}
	in := " IN ("
	if not {
		in = " NOT IN ("
	}
	c.list = append(c.list, column+in+strings.Join(marks, ", ")+")")
}

func (c *conditions) where() string {
	if len(c.list) == 0 {
		return ""
	}
	return " WHERE " + strings.Join(c.list, " AND ")
}

// conditionsOf makes SQL of a query, for one day. A condition that an index
// has is written as the index has it: only then do the databases use it.
func conditionsOf(day string, q audit.Query) *conditions {
	c := &conditions{}
	begin, _ := time.Parse(time.DateOnly, day) // of a partition, which isDay has looked at
	// A day is in one table, and its times need not be said; but said, they
	// lead to the index that has identity and repository in it.
	narrow := slices.ContainsFunc(q.Where, func(in audit.In) bool {
		return !in.Not && (in.Field == audit.FieldIdentity || in.Field == audit.FieldRepository)
	})
	if q.From.After(begin) || narrow {
		c.list = append(c.list, "time >= "+c.arg(Micros(later(q.From, begin).Add(time.Microsecond-1))))
	}
	if !q.To.IsZero() && q.To.Before(begin.AddDate(0, 0, 1)) {
		c.list = append(c.list, "time <= "+c.arg(Micros(q.To)))
	}
	if q.Table != "" {
		c.list = append(c.list, "tbl = "+c.arg(q.Table))
	}
	if q.Within != nil {
		c.within(q.Within)
	}
	if q.Statuses != nil && !slices.Contains(q.Statuses, 200) {
		c.list = append(c.list, "status <> 200")
	}
	if q.Statuses != nil && len(q.Statuses) <= 100 {
		var digits []string
		for _, s := range q.Statuses {
			digits = append(digits, strconv.Itoa(s))
		}
		c.list = append(c.list, "status IN ("+strings.Join(digits, ", ")+")")
	}
	for _, in := range q.Where {
		if in.Field == audit.FieldOperation && in.Not && slices.Contains(in.Values, "Login") && slices.Contains(in.Values, "Pull") {
			c.list = append(c.list, "operation <> 'Login'", "operation <> 'Pull'")
		}
		c.among(eventColumns[in.Field], in.Values, in.Not)
	}
	return c
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// within are scopes: a registry itself, or all below a group or subscription.
func (c *conditions) within(scopes []string) {
	if len(scopes) == 0 {
		c.list = append(c.list, "1 = 0")
		return
	}
	var alternatives, same []string
	for _, s := range scopes {
		if s == "" || strings.Contains(s, "/registries/") {
			same = append(same, s)
			continue
		}
		// Most events are below a subscription: this must not look to the
		// databases like something that the registry's index is good for.
		alternatives = append(alternatives, "substr(registry, 1, "+strconv.Itoa(len(s)+1)+") = "+c.arg(s+"/"))
	}
	if len(same) > 0 {
		n := len(c.list)
		c.among("registry", same, false)
		alternatives = append(alternatives, c.list[n])
		c.list = c.list[:n]
	}
	c.list = append(c.list, "("+strings.Join(alternatives, " OR ")+")")
}
