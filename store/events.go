package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/fault"
)

var (
	_ audit.Log     = (*Events)(nil)
	_ audit.Scanner = (*Events)(nil)
)

// Events keeps login and repository events, a partition for each UTC day: a
// file beside the database on SQLite, a table on PostgreSQL. To forget a day
// costs no more than to delete it.
type Events struct {
	db   *DB
	days partitions

	mu      sync.Mutex
	pending []audit.Event // recorded, not yet kept
	writing int           // taken from pending and being written
	closed  bool

	dropped atomic.Int64
	told    int64 // of dropped, those that an event tells of; run's own
	kept    bell
	wake    chan struct{}
	flushes chan chan error
	closing chan struct{}
	done    chan struct{}
}

// partitions are the days of one database. day is "2026-11-21".
type partitions interface {
	// add keeps events of one day; all or none.
	add(ctx context.Context, day string, events []audit.Event) error
	// list returns the days there are, newest first.
	list(ctx context.Context) ([]string, error)
	// query reads from the day's table, which the text calls %s, once. A day that
	// is not there has no rows.
	query(ctx context.Context, day, text string, args []any, row func(*sql.Rows) error) error
	drop(ctx context.Context, day string) error
	// size is how many bytes a day takes.
	size(ctx context.Context, day string) (int64, error)
	// settle closes what is not needed to write to these days.
	settle(days map[string]bool)
	close() error
}

// eventsBuffer bounds what waits to be kept; at a few hundred bytes each.
const eventsBuffer = 16384

// eventsDelay is how long an event may wait for others, so that with the time
// of writing it is kept within 200 ms. eventsRetry follows a failure.
const (
	eventsDelay = 150 * time.Millisecond
	eventsRetry = time.Second
)

// Events opens the partitions of db. Close it before db.
func (db *DB) Events(ctx context.Context) (*Events, error) {
	e := &Events{
		db:      db,
		wake:    make(chan struct{}, 1),
		flushes: make(chan chan error),
		closing: make(chan struct{}),
		done:    make(chan struct{}),
	}
	var err error
	if e.days, err = db.partitions(); err != nil {
		return nil, err
	}
	if _, err := e.days.list(ctx); err != nil {
		return nil, err
	}
	go e.run()
	return e, nil
}

// Record keeps v soon. It never blocks: when the buffer is full, and after
// Close, the event is dropped and counted.
func (e *Events) Record(v audit.Event) {
	if v.Time.IsZero() {
		v.Time = e.db.now()
	}
	e.mu.Lock()
	refused := e.closed || len(e.pending)+e.writing >= eventsBuffer
	if !refused {
		e.pending = append(e.pending, short(v))
	}
	e.mu.Unlock()
	if refused {
		e.dropped.Add(1)
		return
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// Dropped returns how many events were lost since the start.
func (e *Events) Dropped() int64 { return e.dropped.Load() }

// What of an event comes from a stranger is cut to these lengths.
const (
	longestText   = 1024
	longestDetail = 64 << 10
)

func texts(v *audit.Event) []*string {
	return []*string{
		&v.ID, &v.Table, &v.Registry, &v.Host, &v.Operation, &v.Identity, &v.Tenant, &v.CallerIP, &v.UserAgent,
		&v.Repository, &v.Tag, &v.Digest, &v.MediaType, &v.ArtifactType, &v.Region, &v.Reason,
	}
}

// short is v within those lengths. What else an event needs is done when it is
// kept: a request waits for this.
func short(v audit.Event) audit.Event {
	for _, s := range texts(&v) {
		*s = (*s)[:min(len(*s), longestText)]
	}
	return v
}

// storable is v as every database takes it: PostgreSQL refuses NUL and broken
// UTF-8, and one such User-Agent would keep its whole batch from being kept.
func storable(v audit.Event) audit.Event {
	for _, s := range texts(&v) {
		*s = plain(*s)
	}
	if v.Decision != nil {
		v.Detail, _ = json.Marshal(v.Decision) // what cannot be written is not kept
		v.Decision = nil
	}
	if len(v.Detail) <= longestDetail && json.Valid(v.Detail) {
		v.Detail = json.RawMessage(plain(string(v.Detail)))
	} else {
		v.Detail = nil
	}
	v.Time = v.Time.UTC().Truncate(time.Microsecond)
	return v
}

func plain(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "")
}

// run writes batches until Close.
func (e *Events) run() {
	defer close(e.done)
	delay := eventsDelay
	for {
		select {
		case <-e.wake:
		case reply := <-e.flushes:
			reply <- e.write()
			continue
		case <-e.closing:
			e.last()
			return
		}
		t := time.NewTimer(delay)
		var reply chan error
		select {
		case <-t.C:
		case reply = <-e.flushes:
		case <-e.closing:
			t.Stop()
			e.last()
			return
		}
		t.Stop()
		err := e.write()
		if reply != nil {
			reply <- err
		}
		delay = eventsDelay
		if err != nil {
			e.db.log.Error("events could not be kept; they wait", "error", err)
			delay = eventsRetry
			select {
			case e.wake <- struct{}{}:
			default:
			}
		}
	}
}

// last writes what is left before the end.
func (e *Events) last() {
	if err := e.write(); err != nil {
		e.mu.Lock()
		lost := len(e.pending)
		e.pending = nil
		e.mu.Unlock()
		e.dropped.Add(int64(lost))
		e.db.log.Error("events were lost", "count", lost, "error", err)
	}
}

// write keeps what is pending. What cannot be kept stays pending.
func (e *Events) write() error {
	e.mu.Lock()
	batch := e.pending
	e.pending, e.writing = nil, len(batch)
	e.mu.Unlock()
	byDay := map[string][]audit.Event{}
	for _, v := range batch {
		v = storable(v)
		day := v.Time.Format(time.DateOnly)
		byDay[day] = append(byDay[day], v)
	}
	// A database that hangs must not hold up Close for ever.
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	used := map[string]bool{e.db.now().UTC().Format(time.DateOnly): true}
	var left []audit.Event
	var failed error
	for day, list := range byDay {
		used[day] = true
		if err := e.days.add(ctx, day, list); err != nil {
			failed = err
			left = append(left, list...)
		}
	}
	e.days.settle(used)
	e.mu.Lock()
	e.pending, e.writing = append(left, e.pending...), 0
	e.mu.Unlock()
	if failed == nil {
		e.noteDropped()
	}
	if len(batch) > len(left) {
		e.kept.ring()
	}
	if failed != nil && full(failed) {
		return ErrFull.Because(failed)
	}
	return postgresError(failed)
}

// Flush waits until what was recorded before the call is kept.
func (e *Events) Flush(ctx context.Context) error {
	reply := make(chan error, 1)
	select {
	case e.flushes <- reply:
	case <-e.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-reply:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close keeps what was recorded and ends. It is called once.
func (e *Events) Close() error {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	close(e.closing)
	<-e.done
	return e.days.close()
}

// Find returns the event whose id begins with prefix; of several with that
// same id, the latest. What was recorded before the call is found.
func (e *Events) Find(ctx context.Context, prefix string) (audit.Event, error) {
	none := audit.Event{}
	prefix = strings.ToLower(prefix)
	if len(prefix) < 8 || len(prefix) > 36 || strings.Trim(prefix, "0123456789abcdef-") != "" {
		return none, fault.Newf(fault.Invalid, "an id is 8 to 36 characters of a correlation id: 0-9, a-f and hyphens")
	}
	if err := e.Flush(ctx); err != nil {
		return none, err
	}
	days, err := e.days.list(ctx)
	if err != nil {
		return none, err
	}
	// An id says when it was made: it is looked for there first. Others may be
	// anywhere, each day of them costs a question.
	said := audit.TimeOf(prefix, e.db.now()).UTC().Format(time.DateOnly)
	if i := slices.Index(days, said); i > 0 {
		days = slices.Insert(slices.Delete(days, i, i+1), 0, said)
	}
	var found audit.Event
	for _, day := range days {
		var first, last string
		// Every character of an id is below "g".
		err := e.days.query(ctx, day, `SELECT COALESCE(MIN(id), ''), COALESCE(MAX(id), '') FROM %s WHERE id >= $1 AND id < $2`,
			[]any{prefix, prefix + "g"}, func(rows *sql.Rows) error { return rows.Scan(&first, &last) })
		if err != nil {
			return none, err
		}
		if first != last || first != "" && found.ID != "" && first != found.ID {
			return none, fault.Newf(fault.Conflict, "more than one id begins with %s", prefix)
		}
		if first == "" || found.ID != "" {
			continue
		}
		whole := newEventReader(nil)
		// The sum is for PostgreSQL, which would else read the index of times
		// from its end until it meets the id.
		err = e.days.query(ctx, day, `SELECT `+whole.columns+` FROM %s WHERE id = $1 ORDER BY time + 0 DESC, n DESC LIMIT 1`,
			[]any{first}, func(rows *sql.Rows) error {
				if err := whole.read(rows); err != nil {
					return err
				}
				found = whole.event
				return nil
			})
		if err != nil {
			return none, err
		}
		if len(prefix) == 36 || day == said {
			break // no other day has another
		}
	}
	if found.ID == "" {
		return none, audit.ErrUnknown
	}
	return found, nil
}

// Recent returns at most limit events, the newest first, of one table or of
// both ("") and of one registry or of all (""), none from before since. What
// was recorded before the call is among them.
func (e *Events) Recent(ctx context.Context, table, registry string, since time.Time, limit int) ([]audit.Event, error) {
	q := audit.Query{Table: table, From: since, Order: audit.NewestFirst, Enough: limit}
	if registry != "" {
		q.Within = []string{registry}
	}
	var list []audit.Event
	if limit == 0 {
		return nil, nil
	}
	err := e.Scan(ctx, q, func(v *audit.Event) error {
		list = append(list, *v)
		if len(list) == limit {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, err
	}
	return list, nil
}

// errEnough ends a scan.
var errEnough = errors.New("store: enough events")

// Trim deletes the days that ended at or before before and returns how many.
func (e *Events) Trim(ctx context.Context, before time.Time) (n int, err error) {
	days, err := e.days.list(ctx)
	if err != nil {
		return 0, err
	}
	today := before.UTC().Format(time.DateOnly)
	for _, day := range days {
		if day >= today {
			continue
		}
		if err := e.days.drop(ctx, day); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// TrimSize deletes days, the oldest first, until the others take no more than
// most bytes, and returns how many. Today's stays whatever it takes; left says
// what is taken in the end.
func (e *Events) TrimSize(ctx context.Context, most int64) (n int, left int64, err error) {
	days, err := e.days.list(ctx)
	if err != nil {
		return 0, 0, err
	}
	sizes := make([]int64, len(days))
	for i, day := range days {
		if sizes[i], err = e.days.size(ctx, day); err != nil {
			return 0, 0, err
		}
		left += sizes[i]
	}
	today := e.db.now().UTC().Format(time.DateOnly)
	for i := len(days) - 1; i >= 0 && left > most && days[i] < today; i-- {
		if err := e.days.drop(ctx, days[i]); err != nil {
			return n, left, err
		}
		n, left = n+1, left-sizes[i]
	}
	return n, left, nil
}

// isDay says that s is a day as partitions name them.
func isDay(s string) bool {
	_, err := time.Parse(time.DateOnly, s)
	return err == nil
}
