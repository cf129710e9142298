// Package store is the SQL layer: hand-written statements over database/sql,
// the same on SQLite and PostgreSQL.
//
// On SQLite one writer goroutine folds the writes that wait into one
// transaction and one fsync, each write in a savepoint of its own. On
// PostgreSQL each write is a serializable transaction, retried when the server
// says so. Either way an Update that has returned nil survives power loss.
package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"time"

	"cove.example/cove/fault"
)

// The failures of the store itself. What a caller reads of them is the
// sentence; the cause is for the log.
var (
	ErrClosed = fault.New(fault.Unavailable, "the store is closed")
	ErrFull   = fault.New(fault.Unavailable, "the disk is full; free some space and try again")
	// ErrStopped follows an I/O error while committing. Never cleared: what a
	// failed fsync has lost is not known, and asking the disk again would
	// only be told that all is well.
	ErrStopped     = fault.New(fault.Unavailable, "the store has stopped writing after a disk error and must be restarted")
	ErrUnreachable = fault.New(fault.Unavailable, "the database cannot be reached")
	ErrBusy        = fault.New(fault.Unavailable, "the database is busy; try again")
)

// DB is an open database.
type DB struct {
	engine
	dialect  dialect
	now      func() time.Time
	log      *slog.Logger
	origin   int64 // PostgreSQL: see Change.Seq
	changed  bell  // rung when a transaction with changes has been committed here
	enqueued bell  // the same for tasks
}

// engine is what differs between the two databases.
type engine interface {
	view(ctx context.Context, fn func(*Tx) error) error
	update(ctx context.Context, m mode, fn func(*Tx) error) error
	// exclusive says that no other process can write to this database.
	exclusive() bool
	close() error
}

// mode is how a transaction is to be run.
type mode struct {
	relaxed bool // do not wait for the disk
	// readCommitted is for statements that are right by themselves on rows
	// that others change at the same time. SQLite has one writer anyway.
	readCommitted bool
}

type dialect uint8

const (
	sqliteDialect dialect = iota
	postgresDialect
)

// Options are what Open may be told.
type Options struct {
	Now func() time.Time // nil is time.Now
	Log *slog.Logger     // for what nobody is there to be told; nil is silence
}

// Open opens the database at url: "sqlite:///absolute/path.db" or
// "postgres://…". It creates and migrates the schema under a lock row, and
// refuses a database that a newer cove has written.
//
// Its errors are for the operator who started the server: one sentence that
// may name a file or a host, never a password.
func Open(ctx context.Context, url string, o Options) (*DB, error) {
	db := &DB{now: o.Now, log: o.Log}
	if db.now == nil {
		db.now = time.Now
	}
	if db.log == nil {
		db.log = slog.New(slog.DiscardHandler)
	}
	scheme, _, _ := strings.Cut(url, ":")
	var err error
	switch scheme {
	case "sqlite":
		err = db.openSQLite(ctx, url)
	case "postgres", "postgresql":
		err = db.openPostgres(ctx, url)
	default:
		// The rest of the text may hold a password.
		err = fault.Newf(fault.Invalid, `the database URL begins with neither "sqlite://" nor "postgres://"`)
	}
	if err != nil {
		return nil, err
	}
	if err := db.beginHistory(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Close waits for transactions in flight and closes the database.
func (db *DB) Close() error { return db.close() }

// View runs fn on one consistent snapshot. Writing in it fails.
//
// Readers are few; fn must not wait for anything but the database, nor begin
// another transaction.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error { return db.view(ctx, fn) }

// Update runs fn in a transaction and returns nil only when what it wrote is
// on disk. fn may be run more than once and must have no other effect. When fn
// fails nothing of it happens, and Update returns its error.
//
// On SQLite every other write waits while fn runs: it must do no I/O of its
// own, and a transaction begun inside it waits for ever.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error {
	return db.write(ctx, mode{}, fn)
}

// UpdateRelaxed is Update for state that may be lost with the machine's power
// but not with the process: upload sessions, last-used times. It waits for no
// fsync.
func (db *DB) UpdateRelaxed(ctx context.Context, fn func(*Tx) error) error {
	return db.write(ctx, mode{relaxed: true}, fn)
}

func (db *DB) write(ctx context.Context, m mode, fn func(*Tx) error) error {
	var last *Tx
	err := db.update(ctx, m, func(tx *Tx) error {
		last = tx
		return fn(tx)
	})
	if err != nil {
		return err
	}
	if last.changes > 0 {
		db.changed.ring()
	}
	if last.enqueued {
		db.enqueued.ring()
	}
	return nil
}

// Tx runs statements. Parameters are $1, $2, … on both databases; times are
// BIGINT microseconds since 1970 (Micros, Time), documents TEXT, bytes BLOB
// or BYTEA.
//
// A statement that fails spoils the transaction on PostgreSQL: what may
// conflict is written with ON CONFLICT, not tried and caught. Statement texts
// are constants; they are prepared once per connection and kept.
type Tx struct {
	db       *DB
	q        querier
	now      time.Time
	changes  int64 // rows recorded so far
	enqueued bool
}

// querier is a transaction of database/sql, or a connection with one open.
type querier interface {
	ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row
}

func (db *DB) tx(q querier) *Tx {
	return &Tx{db: db, q: q, now: db.now().UTC().Truncate(time.Microsecond)}
}

// Exec runs a statement that returns no rows. The result knows RowsAffected
// only; use RETURNING for ids.
func (tx *Tx) Exec(ctx context.Context, q string, args ...any) (sql.Result, error) {
	return tx.q.ExecContext(ctx, q, args...)
}

// Query runs a statement that returns rows. On PostgreSQL no other statement
// can run before they are closed.
func (tx *Tx) Query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	return tx.q.QueryContext(ctx, q, args...)
}

// QueryRow runs a statement that returns one row.
func (tx *Tx) QueryRow(ctx context.Context, q string, args ...any) *sql.Row {
	return tx.q.QueryRowContext(ctx, q, args...)
}

// Now is the time of the transaction, in UTC and whole microseconds.
func (tx *Tx) Now() time.Time { return tx.now }

// Micros is t as it is stored; the zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is a stored time; 0 is the zero time.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
