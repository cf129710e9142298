package store

import (
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"time"

	"cove.example/cove/audit"
)

var _ audit.Feed = (*Events)(nil)

// lateDays are how many days behind today may still get events: those of the
// moments before midnight, and of a database that could not be reached.
const lateDays = 2

// More implements audit.Feed.
func (e *Events) More() <-chan struct{} { return e.kept.heard() }

// After implements audit.Feed. Numbers rise in the order of commits: on SQLite
// one process writes, on PostgreSQL one node after the other (eventTables.add).
func (e *Events) After(ctx context.Context, c audit.Cursor, q audit.Query, limit int) ([]audit.Event, audit.Cursor, []audit.Gap, error) {
	if c.Day == "" {
		c.Day = q.From.UTC().Format(time.DateOnly)
	}
	next := audit.Cursor{Day: c.Day, Read: map[string]int64{}, Kept: map[string]int64{}}
	maps.Copy(next.Read, c.Read)
	maps.Copy(next.Kept, c.Kept)
	days, err := e.days.list(ctx)
	if err != nil {
		return nil, c, nil, err
	}
	var gaps []audit.Gap
	for _, day := range slices.Sorted(maps.Keys(next.Kept)) {
		if slices.Contains(days, day) {
			continue
		}
		if lost := next.Kept[day] - next.Read[day]; lost > 0 {
			gaps = append(gaps, audit.Gap{Day: day, Count: lost})
		}
		delete(next.Kept, day)
		delete(next.Read, day)
	}
	slices.Reverse(days)
	var list []audit.Event
	for _, day := range days {
		if day < c.Day {
			continue
		}
		got, last, newest, err := e.after(ctx, day, next.Read[day], q, limit-len(list))
		if err != nil {
			return nil, c, nil, err
		}
		list = append(list, got...)
		next.Read[day], next.Kept[day] = last, newest
	}
	open := e.db.now().UTC().AddDate(0, 0, -lateDays).Format(time.DateOnly)
	for _, day := range days {
		if day >= open || day < next.Day {
			continue
		}
		if next.Read[day] < next.Kept[day] {
			break
		}
		next.Day = after(day)
		delete(next.Read, day)
		delete(next.Kept, day)
	}
	return list, next, gaps, nil
}

// after is the day behind a day.
func after(day string) string {
	t, _ := time.Parse(time.DateOnly, day) // of a partition, which isDay has looked at
	return t.AddDate(0, 0, 1).Format(time.DateOnly)
}

// after reads a day behind a number, and says how far it has read and how far
// there is.
func (e *Events) after(ctx context.Context, day string, read int64, q audit.Query, limit int) (list []audit.Event, last, newest int64, err error) {
	last = read
	err = e.days.query(ctx, day, `SELECT COALESCE(MAX(n), 0) FROM %s`, nil, func(rows *sql.Rows) error { return rows.Scan(&newest) })
	if err != nil || newest <= read || limit <= 0 {
		return nil, last, newest, err
	}
	c := conditionsOf(day, q)
	c.list = append(c.list, "n > "+c.arg(read), "n <= "+c.arg(newest))
	r := newEventReader(nil)
	err = e.days.query(ctx, day, `SELECT `+r.columns+` FROM %s`+c.where()+` ORDER BY n LIMIT `+strconv.Itoa(limit), c.args, func(rows *sql.Rows) error {
		if err := r.read(rows); err != nil {
			return err
		}
		list, last = append(list, r.event), r.n
		return nil
	})
	if err == nil && len(list) < limit {
		last = newest
	}
	return list, last, newest, err
}

// noteDropped keeps an event that says how many were lost, so that whoever
// reads the log sees that it has a hole.
func (e *Events) noteDropped() {
	lost := e.dropped.Load() - e.told
	if lost == 0 {
		return
	}
	now := e.db.now()
	v := storable(audit.Event{ID: audit.NewID(now), Time: now, Table: audit.RepositoryEvents, Operation: audit.Dropped, Identity: "cove", Size: lost})
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	e.told += lost
	e.pending = append(e.pending, v)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
