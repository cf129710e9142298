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
	"time"
)

// DB is an open database.
type DB struct{ impl }

type impl struct{}

// Options are what Open may be told.
type Options struct {
	Now func() time.Time // nil is time.Now
}

// Open opens the database at url: "sqlite:///absolute/path.db" or
// "postgres://…". It creates and migrates the schema under a lock row, and
// refuses a database that a newer cove has written.
func Open(ctx context.Context, url string, o Options) (*DB, error) { panic("store: Open") }

// Close waits for writes in flight and closes the database.
func (db *DB) Close() error { panic("store: Close") }

// View runs fn on one consistent snapshot. Writing in it fails.
func (db *DB) View(ctx context.Context, fn func(*Tx) error) error { panic("store: View") }

// Update runs fn in a transaction and returns nil only when what it wrote is
// on disk. fn may be run more than once and must have no other effect.
func (db *DB) Update(ctx context.Context, fn func(*Tx) error) error { panic("store: Update") }

// UpdateRelaxed is Update for state that may be lost with the machine's power
// but not with the process: upload sessions, last-used times. It waits for no
// fsync.
func (db *DB) UpdateRelaxed(ctx context.Context, fn func(*Tx) error) error {
	panic("store: UpdateRelaxed")
}

// Tx runs statements. Parameters are $1, $2, … on both databases; times are
// BIGINT microseconds since 1970 (Micros, Time), documents TEXT, bytes BLOB
// or BYTEA.
type Tx struct{ tx *sql.Tx }

// Exec, Query and QueryRow are as in database/sql, with prepared statements
// kept for texts that come again.
func (tx *Tx) Exec(ctx context.Context, q string, args ...any) (sql.Result, error) {
	panic("store: Exec")
}

// Query runs a statement that returns rows.
func (tx *Tx) Query(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	panic("store: Query")
}

// QueryRow runs a statement that returns one row.
func (tx *Tx) QueryRow(ctx context.Context, q string, args ...any) *sql.Row { panic("store: QueryRow") }

// Now is the time of the transaction.
func (tx *Tx) Now() time.Time { panic("store: Now") }

// Change is one row of the outbox.
type Change struct {
	Seq    int64     // rises in the order of commits, with gaps
	Time   time.Time // of the transaction
	Kind   string    // "resource", "manifest", "tag", "key", …
	Key    string    // what changed: an arm.ID.Key, a registry's UID/repo/…
	Op     string    // "put", "delete"
	Detail []byte    // JSON, the kind's own
}

// Record writes a row to the outbox in this transaction. What is not in the
// outbox did not happen.
func (tx *Tx) Record(ctx context.Context, c Change) error { panic("store: Record") }

// Changes returns rows after the cursor in commit order. A row is returned
// only once no earlier one can still appear.
func (db *DB) Changes(ctx context.Context, after int64, limit int) ([]Change, error) {
	panic("store: Changes")
}

// Follow calls fn with batches of changes committed after the call began,
// within a second of their commit on any node and at once on this one, until
// ctx ends. The first call has no changes and says that following has begun.
func (db *DB) Follow(ctx context.Context, fn func([]Change)) error { panic("store: Follow") }

// Micros is t as it is stored.
func Micros(t time.Time) int64 { return t.UnixMicro() }

// Time is a stored time; 0 is the zero time.
func Time(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
