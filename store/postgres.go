package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cove.example/cove/fault"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresConns is how many connections a node opens at most. A PostgreSQL
// backend is a process; many nodes share one server's hundred.
const postgresConns = 10

// A transaction that PostgreSQL could not serialize is tried this often in
// all, with pauses that double from the first to the last.
const (
	attempts   = 40 // some twelve seconds
	firstPause = 2 * time.Millisecond
	lastPause  = 400 * time.Millisecond
)

type postgresEngine struct {
	db     *DB
	pool   *sql.DB
	closed atomic.Bool
	busy   sync.RWMutex // read-held by transactions, write-held by close
}

func (e *postgresEngine) exclusive() bool { return false }

func (db *DB) openPostgres(ctx context.Context, url string) error {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		// The cause quotes the URL, and perhaps a password with it.
		return fault.Newf(fault.Invalid, "the PostgreSQL URL is malformed")
	}
	defaults := map[string]string{
		"application_name": "cove",
		"timezone":         "UTC",
		// A node that hangs inside a transaction must not hold back the others.
		"idle_in_transaction_session_timeout": "60s",
		"lock_timeout":                        "10s",
		// A serializable transaction that scans a table conflicts with every
		// writer of it, and for the small tables of a young database the
		// planner would rather scan than use the index.
		"enable_seqscan": "off",
	}
	for k, v := range defaults {
		if _, ok := cfg.RuntimeParams[k]; !ok {
			cfg.RuntimeParams[k] = v
		}
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	pool := stdlib.OpenDB(*cfg)
	pool.SetMaxOpenConns(postgresConns)
	pool.SetMaxIdleConns(postgresConns)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	db.engine, db.dialect = &postgresEngine{db: db, pool: pool}, postgresDialect
	if err := db.preparePostgres(ctx, pool); err != nil {
		_ = pool.Close()
		return postgresOpenError(cfg, err)
	}
	return nil
}

func (db *DB) preparePostgres(ctx context.Context, pool *sql.DB) error {
	var version int
	if err := pool.QueryRowContext(ctx, "SELECT current_setting('server_version_num')::int").Scan(&version); err != nil {
		return err
	}
	if version < 130000 { // pg_current_xact_id
		return fault.Newf(fault.Invalid, "PostgreSQL %d is too old; cove needs version 13 or later", version/10000)
	}
	if err := db.migrate(ctx, pool); err != nil {
		return err
	}
	return db.findOrigin(ctx)
}

// begin begins a transaction. A question that is given up leaves a connection
// that is closed. database/sql throws those away and tries three; where many
// give up at once all three may be such, and whoever has given up nothing would
// be told that the database cannot be reached.
func (e *postgresEngine) begin(ctx context.Context, o *sql.TxOptions) (tx *sql.Tx, err error) {
	for range postgresConns {
		if tx, err = e.pool.BeginTx(ctx, o); !errors.Is(err, driver.ErrBadConn) {
			break
		}
	}
	return tx, err
}

func (e *postgresEngine) view(ctx context.Context, fn func(*Tx) error) error {
	e.busy.RLock()
	defer e.busy.RUnlock()
	if e.closed.Load() {
		return ErrClosed
	}
	tx, err := e.begin(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true})
	if err != nil {
		return postgresError(err)
	}
	defer func() { _ = tx.Rollback() }()
	return postgresError(fn(e.db.tx(tx)))
}

func (e *postgresEngine) update(ctx context.Context, m mode, fn func(*Tx) error) error {
	pause := firstPause
	for n := 1; ; n++ {
		err := e.once(ctx, m, fn)
		if err == nil || !again(err) || ctx.Err() != nil {
			return postgresError(err)
		}
		if n == attempts {
			return ErrBusy.Because(err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, lastPause)
	}
}

func (e *postgresEngine) once(ctx context.Context, m mode, fn func(*Tx) error) error {
	e.busy.RLock()
	defer e.busy.RUnlock()
	if e.closed.Load() {
		return ErrClosed
	}
	level := sql.LevelSerializable
	if m.readCommitted {
		level = sql.LevelReadCommitted
	}
	tx, err := e.begin(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // after Commit it does nothing
	if m.relaxed {
		if _, err := tx.ExecContext(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
	}
	if err := fn(e.db.tx(tx)); err != nil {
		return err
	}
	return tx.Commit()
}

// close waits for transactions in flight.
func (e *postgresEngine) close() error {
	e.closed.Store(true)
	e.busy.Lock()
	defer e.busy.Unlock()
	return e.pool.Close()
}

func sqlState(err error) string {
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return e.Code
	}
	return ""
}

// again says that the transaction has not happened and may succeed if tried
// once more: serialization_failure, deadlock_detected.
func again(err error) bool {
	s := sqlState(err)
	return s == "40001" || s == "40P01"
}

// postgresError turns what the server or the network has done to a
// transaction into a sentence. What fn says in words of its own, and errors
// that are our bugs, stay as they are.
func postgresError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	switch state := sqlState(err); {
	case state == "53100": // disk_full
		return ErrFull.Because(err)
	case state == "55P03", state == "40001", state == "40P01": // lock_not_available
		return ErrBusy.Because(err)
	case strings.HasPrefix(state, "57P"), strings.HasPrefix(state, "08"), strings.HasPrefix(state, "53"), state == "25006":
		// shutting down, connection, resources, a standby
		return ErrUnreachable.Because(err)
	case state != "":
		return err
	}
	if unreachable(err) {
		return ErrUnreachable.Because(err)
	}
	return err
}

// unreachable says that err is of the connection, not of a statement.
func unreachable(err error) bool {
	_, connect := errors.AsType[*pgconn.ConnectError](err)
	_, network := errors.AsType[net.Error](err)
	return connect || network || pgconn.SafeToRetry(err) ||
		errors.Is(err, driver.ErrBadConn) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// postgresOpenError says in one sentence why the database could not be
// opened. pgx's own texts are never shown: they hold the whole configuration.
func postgresOpenError(cfg *pgx.ConnConfig, err error) error {
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	where := fmt.Sprintf("the PostgreSQL server at %s:%d", cfg.Host, cfg.Port)
	say := func(k fault.Kind, format string, args ...any) error {
		return (&fault.Error{Kind: k, Public: where + " " + fmt.Sprintf(format, args...)}).Because(err)
	}
	switch state := sqlState(err); {
	case strings.HasPrefix(state, "28"):
		return say(fault.Invalid, "does not accept user %q with this password", cfg.User)
	case state == "3D000":
		return say(fault.Invalid, "has no database %q", cfg.Database)
	case state == "42501":
		return say(fault.Invalid, "does not let user %q make tables in database %q", cfg.User, cfg.Database)
	case state == "":
		return say(fault.Unavailable, "cannot be reached")
	}
	return say(fault.Unavailable, "refused to open database %q", cfg.Database)
}
