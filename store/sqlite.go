package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"

	"cove.example/cove/fault"
	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// application marks a SQLite file as ours ("cove"), so that the file of
// another program is refused instead of migrated.
const application = 0x636f7665

// sqliteEngine is one file, one process: a writer goroutine, a few readers
// and a checkpointer, each with a connection of its own.
type sqliteEngine struct {
	db   *DB
	file string
	lock *os.File
	pool *sql.DB

	queue   chan *write
	writer  *conn
	synced  bool // the writer's PRAGMA synchronous is FULL
	readers chan *conn

	dirty      chan struct{} // there is something to checkpoint
	checkpoint *conn

	stopped   atomic.Pointer[error] // set once: the I/O error after which nothing is written
	closing   chan struct{}
	closeOnce sync.Once
	closeErr  error
	running   sync.WaitGroup
}

func (e *sqliteEngine) exclusive() bool { return true }

// SQLiteURL is the URL for Open of the database file at an absolute path.
func SQLiteURL(file string) string {
	u := url.URL{Scheme: "sqlite", Path: filepath.ToSlash(file)}
	return u.String()
}

// sqlitePath is the file that a sqlite URL names.
func sqlitePath(text string) (string, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host != "" || !filepath.IsAbs(u.Path) || u.RawQuery != "" || u.Fragment != "" {
		return "", fault.Newf(fault.Invalid, `a SQLite database URL is "sqlite://" and an absolute path`)
	}
	return filepath.Clean(u.Path), nil
}

func (db *DB) openSQLite(ctx context.Context, text string) (err error) {
	file, err := sqlitePath(text)
	if err != nil {
		return err
	}
	e := &sqliteEngine{
		db: db, file: file,
		queue:   make(chan *write),
		dirty:   make(chan struct{}, 1),
		closing: make(chan struct{}),
	}
	db.engine, db.dialect = e, sqliteDialect
	defer func() {
		if err != nil {
			e.release()
		}
	}()
	if err := e.claim(); err != nil {
		return err
	}
	dsn := url.URL{Scheme: "file", Path: file, OmitHost: true, RawQuery: url.Values{
		"_pragma": {"busy_timeout(10000)", "foreign_keys(1)", "temp_store(memory)"},
	}.Encode()}
	if e.pool, err = sql.Open("sqlite", dsn.String()); err != nil {
		return err
	}
	if err := e.adopt(ctx); err != nil {
		return e.openError(err)
	}
	if err := db.migrate(ctx, e.pool); err != nil {
		return e.openError(err)
	}
	return e.openError(e.start(ctx))
}

// claim makes this process the only one on the file, and the file private.
func (e *sqliteEngine) claim() error {
	dir := filepath.Dir(e.file)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return (&fault.Error{Kind: fault.Invalid, Public: fmt.Sprintf("the folder %s does not exist", dir)}).Because(err)
	case err != nil:
		return e.openError(err)
	case !info.IsDir():
		return fault.Newf(fault.Invalid, "%s is not a folder", dir)
	}
	// The lock is a file beside the database because closing any descriptor of
	// the database itself would drop SQLite's own locks in this process.
	e.lock, err = os.OpenFile(e.file+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return e.openError(err)
	}
	if err := unix.Flock(int(e.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fault.Newf(fault.Conflict, "the database %s is in use by another cove server", e.file)
		}
		return e.openError(err)
	}
	// Made here for its mode; the log and its index inherit it.
	f, err := os.OpenFile(e.file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return e.openError(err)
	}
	_ = f.Close()
	return e.openError(syncDir(dir))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// adopt refuses a database that is not ours before anything is written.
func (e *sqliteEngine) adopt(ctx context.Context) error {
	var id, objects int64
	if err := e.pool.QueryRowContext(ctx, "PRAGMA application_id").Scan(&id); err != nil {
		return err
	}
	if err := e.pool.QueryRowContext(ctx, "SELECT count(*) FROM sqlite_master").Scan(&objects); err != nil {
		return err
	}
	if id != application && (id != 0 || objects != 0) {
		return fault.Newf(fault.Invalid, "%s is the database of another program", e.file)
	}
	c, err := newConn(ctx, e.pool, "journal_mode=WAL", fmt.Sprintf("application_id=%d", application))
	if err != nil {
		return err
	}
	return c.close()
}

func (e *sqliteEngine) start(ctx context.Context) error {
	var err error
	// The log is checkpointed by us (see checkpoints): SQLite's own way of
	// doing it inside a commit does not tell when an fsync has failed.
	e.writer, err = newConn(ctx, e.pool, "wal_autocheckpoint=0", "journal_size_limit=67108864", "synchronous=FULL")
	if err != nil {
		return err
	}
	e.writer.detached, e.synced = true, true
	// The wait for readers is shorter than the writer's wait for the
	// checkpointer.
	e.checkpoint, err = newConn(ctx, e.pool, "wal_autocheckpoint=0", "synchronous=FULL", "busy_timeout=1000")
	if err != nil {
		return err
	}
	n := max(4, runtime.GOMAXPROCS(0))
	e.readers = make(chan *conn, n)
	for range n {
		c, err := newConn(ctx, e.pool, "query_only=1")
		if err != nil {
			return err
		}
		e.readers <- c
	}
	e.running.Go(e.writes)
	e.running.Go(e.checkpoints)
	return nil
}

// view runs fn in a read transaction. Its snapshot is taken at its first
// statement.
func (e *sqliteEngine) view(ctx context.Context, fn func(*Tx) error) error {
	var c *conn
	select {
	case c = <-e.readers:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closing:
		return ErrClosed
	}
	defer func() { e.readers <- c }()
	if err := c.run("BEGIN"); err != nil {
		return err
	}
	defer func() {
		c.settle()
		_ = c.run("ROLLBACK")
	}()
	return fn(e.db.tx(c))
}

// close waits for what runs. A second call returns what the first did.
func (e *sqliteEngine) close() error {
	e.closeOnce.Do(func() {
		close(e.closing)
		e.running.Wait()
		for range cap(e.readers) {
			_ = (<-e.readers).close()
		}
		e.closeErr = e.release()
	})
	return e.closeErr
}

// release closes what is open. Closing the last connection checkpoints and
// removes the log.
func (e *sqliteEngine) release() error {
	for {
		select {
		case c := <-e.readers:
			_ = c.close()
			continue
		default:
		}
		break
	}
	for _, c := range []*conn{e.writer, e.checkpoint} {
		if c != nil {
			_ = c.close()
		}
	}
	var err error
	if e.pool != nil {
		err = e.pool.Close()
	}
	if e.lock != nil {
		_ = e.lock.Close() // and with it the lock; the file stays, or two could hold it
	}
	return err
}

// sqliteCode is the extended result code in err, or 0.
func sqliteCode(err error) int {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return e.Code()
	}
	return 0
}

// full says that err is a lack of space. SQLite makes the log's index larger
// before it uses it and calls a failure there an I/O error.
func full(err error) bool {
	code := sqliteCode(err)
	return code&0xff == sqlite3.SQLITE_FULL || code == sqlite3.SQLITE_IOERR_SHMSIZE || errors.Is(err, unix.ENOSPC)
}

// openError says in one sentence why the file could not be opened.
func (e *sqliteEngine) openError(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*fault.Error](err); ok {
		return err
	}
	say := func(k fault.Kind, format string, args ...any) error {
		return (&fault.Error{Kind: k, Public: fmt.Sprintf(format, args...)}).Because(err)
	}
	switch code := sqliteCode(err); {
	case full(err):
		return ErrFull.Because(err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS), code&0xff == sqlite3.SQLITE_READONLY, code&0xff == sqlite3.SQLITE_PERM:
		return say(fault.Invalid, "the folder %s or the database in it cannot be written to", filepath.Dir(e.file))
	case code&0xff == sqlite3.SQLITE_NOTADB:
		return say(fault.Invalid, "%s is not a database", e.file)
	case code&0xff == sqlite3.SQLITE_CORRUPT:
		return say(fault.Internal, "the database %s is damaged", e.file)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return say(fault.Internal, "the database %s cannot be opened", e.file)
}
