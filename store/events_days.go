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
	"slices"
	"strings"
	"sync"
	"time"

	"cove.example/cove/audit"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

func (db *DB) partitions() (partitions, error) {
	switch e := db.engine.(type) {
	case *sqliteEngine:
		dir := filepath.Join(filepath.Dir(e.file), "events")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, e.openError(err)
		}
		return &eventFiles{dir: dir, now: db.now, open: map[string]*eventFile{}}, nil
	case *postgresEngine:
		return &eventTables{pool: e.pool}, nil
	}
	return nil, fmt.Errorf("store: no events on %T", db.engine)
}

// eventFiles are days as SQLite files. Those being written to stay open, and
// those that were asked about lately.
type eventFiles struct {
	dir string
	now func() time.Time

	mu   sync.Mutex // held while a file is opened, never while one is used
	open map[string]*eventFile
}

// eventFile is one day that is open. It is closed when it is both gone and
// not in use, so that neither a writer nor one who deletes the day waits for
// a query.
type eventFile struct {
	pool  *sql.DB
	ready bool // its table is there
	users int
	last  time.Time
	gone  bool
}

// idleDay is how long a day stays open that nobody asks about. To open one
// costs a query a millisecond; one that is open, half a megabyte.
const idleDay = 5 * time.Minute

func (f *eventFiles) file(day string) string { return filepath.Join(f.dir, day+".db") }

func (f *eventFiles) connect(day string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: f.file(day), OmitHost: true, RawQuery: url.Values{
		// Writable for readers too, because a file whose process was killed has
		// a log to be taken in.
		"mode":    {"rw"},
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)", "temp_store(memory)", "cache_size(-8000)"},
	}.Encode()}
	pool, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(5) // the writer's, and some for queries
	pool.SetMaxIdleConns(1)
	return pool, nil
}

// use opens a day, or for a reader returns nil where there is none. done must
// be called.
func (f *eventFiles) use(ctx context.Context, day string, write bool) (file *eventFile, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file = f.open[day]
	if file == nil {
		if _, err := os.Stat(f.file(day)); errors.Is(err, fs.ErrNotExist) {
			if !write {
				return nil, nil
			}
			// Made here for its mode.
			made, err := os.OpenFile(f.file(day), os.O_RDWR|os.O_CREATE, 0o600)
			if err != nil {
				return nil, err
			}
			_ = made.Close()
		}
		file = &eventFile{}
		if file.pool, err = f.connect(day); err != nil {
			return nil, err
		}
		if !write {
			err = withLater(ctx, file.pool)
		}
	}
	if err == nil && write && !file.ready {
		err = file.make(ctx)
	}
	if err != nil {
		if f.open[day] == nil {
			_ = file.pool.Close()
		}
		return nil, err
	}
	f.open[day] = file
	file.users++
	file.last = f.now()
	return file, nil
}

// make sees to the day's table.
func (file *eventFile) make(ctx context.Context) error {
	if err := withLater(ctx, file.pool); err != nil {
		return err
	}
	_, err := file.pool.ExecContext(ctx, fmt.Sprintf(sqliteDialect.translate(eventSchema), "events"))
	file.ready = err == nil
	return err
}

// withLater adds the columns that days from before them lack.
func withLater(ctx context.Context, pool *sql.DB) error {
	for _, name := range laterColumns {
		var columns, there int
		err := pool.QueryRowContext(ctx, `SELECT COUNT(*), COUNT(CASE WHEN name = $1 THEN 1 END) FROM pragma_table_info('events')`, name).Scan(&columns, &there)
		if err == nil && columns > 0 && there == 0 {
			_, err = pool.ExecContext(ctx, "ALTER TABLE events ADD COLUMN "+name+" TEXT NOT NULL DEFAULT ''")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *eventFiles) done(file *eventFile) {
	f.mu.Lock()
	defer f.mu.Unlock()
	file.users--
	file.last = f.now()
	file.settle()
}

// settle closes the file if nobody needs it. f.mu is held.
func (file *eventFile) settle() {
	if file.gone && file.users == 0 {
		_ = file.pool.Close()
	}
}

// insertRows is how many rows one statement adds: to run one costs as much as
// some rows do.
const insertRows = 40

var (
	insertOne  = insertEvents(1)
	insertMany = insertEvents(insertRows)
)

func insertEvents(rows int) string {
	one := "(?" + strings.Repeat(", ?", len(eventColumns)-1) + ")"
	return "INSERT INTO events (" + strings.Join(eventColumns[:], ", ") + ") VALUES " + one + strings.Repeat(", "+one, rows-1)
}

func (f *eventFiles) add(ctx context.Context, day string, events []audit.Event) error {
	file, err := f.use(ctx, day, true)
	if err != nil {
		return err
	}
	defer f.done(file)
	tx, err := file.pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	args := make([]any, 0, insertRows*len(eventColumns))
	for _, size := range []int{insertRows, 1} {
		if len(events) < size {
			continue
		}
		text := insertMany
		if size == 1 {
			text = insertOne
		}
		insert, err := tx.PrepareContext(ctx, text)
		if err != nil {
			return err
		}
		for ; len(events) >= size; events = events[size:] {
			args = args[:0]
			for i := range events[:size] {
				args = appendEventValues(args, &events[i])
			}
			if _, err := insert.ExecContext(ctx, args...); err != nil {
				return err
			}
		}
	}
	return tx.Commit()
}

func (f *eventFiles) list(context.Context) ([]string, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	var days []string
	for _, entry := range entries {
		if day, ok := strings.CutSuffix(entry.Name(), ".db"); ok && isDay(day) {
			days = append(days, day)
		}
	}
	slices.Reverse(days)
	return days, nil
}

func (f *eventFiles) query(ctx context.Context, day, text string, args []any, row func(*sql.Rows) error) error {
	file, err := f.use(ctx, day, false)
	if file == nil || err != nil {
		return err
	}
	defer f.done(file)
	return eachRow(ctx, file.pool, fmt.Sprintf(text, "events"), args, row)
}

func eachRow(ctx context.Context, pool *sql.DB, text string, args []any, row func(*sql.Rows) error) error {
	rows, err := pool.QueryContext(ctx, text, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// drop deletes the day's files. A query that reads them goes on to its end.
func (f *eventFiles) drop(_ context.Context, day string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(day)
	err := os.Remove(f.file(day))
	for _, beside := range []string{"-wal", "-shm"} {
		if e := os.Remove(f.file(day) + beside); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (f *eventFiles) size(_ context.Context, day string) (n int64, err error) {
	for _, name := range []string{f.file(day), f.file(day) + "-wal"} {
		info, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		n += info.Size()
	}
	return n, nil
}

func (f *eventFiles) forget(day string) {
	if file := f.open[day]; file != nil {
		delete(f.open, day)
		file.gone = true
		file.settle()
	}
}

func (f *eventFiles) settle(days map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for day, file := range f.open {
		if !days[day] && file.users == 0 && f.now().Sub(file.last) >= idleDay {
			f.forget(day)
		}
	}
}

func (f *eventFiles) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for day := range f.open {
		f.forget(day)
	}
	return nil
}

// eventTables are days as PostgreSQL tables: events_20261121.
type eventTables struct {
	pool *sql.DB
	mu   sync.Mutex
	made map[string]bool // tables that are known to exist
}

const eventTable = "events_"

// eventLock is the first half of the name of a lock that the nodes of a
// database share; the second is the day's.
const eventLock = 0x636f7665

func (f *eventTables) table(day string) string { return eventTable + strings.ReplaceAll(day, "-", "") }

func (f *eventTables) make(ctx context.Context, day string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.made[day] {
		return nil
	}
	var err error
	for range 3 { // IF NOT EXISTS of two nodes at once can fail
		_, err = f.pool.ExecContext(ctx, fmt.Sprintf(postgresDialect.translate(eventSchema), f.table(day)), pgx.QueryExecModeSimpleProtocol)
		if err == nil {
			err = f.withLater(ctx, day)
		}
		if err == nil {
			if f.made == nil || len(f.made) > 100 {
				f.made = map[string]bool{}
			}
			f.made[day] = true
			break
		}
	}
	return err
}

// withLater adds the columns that days from before them lack. It looks first:
// to add one waits for whoever reads the table, and makes others wait.
func (f *eventTables) withLater(ctx context.Context, day string) error {
	for _, name := range laterColumns {
		var there bool
		err := f.pool.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2)`, f.table(day), name).Scan(&there)
		if err == nil && !there {
			_, err = f.pool.ExecContext(ctx, "ALTER TABLE "+f.table(day)+" ADD COLUMN IF NOT EXISTS "+name+` TEXT COLLATE "C" NOT NULL DEFAULT ''`)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *eventTables) add(ctx context.Context, day string, events []audit.Event) error {
	if err := f.make(ctx, day); err != nil {
		return err
	}
	c, err := f.pool.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	err = c.Raw(func(driver any) error {
		tx, err := driver.(*stdlib.Conn).Conn().Begin(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
		if _, err := tx.Exec(ctx, "SET LOCAL synchronous_commit = off"); err != nil {
			return err
		}
		// One node after the other: numbers then rise in the order of commits,
		// and whoever has read up to one has missed none before it.
		if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1, hashtext($2))", eventLock, f.table(day)); err != nil {
			return err
		}
		values := make([]any, 0, len(eventColumns))
		_, err = tx.CopyFrom(ctx, pgx.Identifier{f.table(day)}, eventColumns[:],
			pgx.CopyFromSlice(len(events), func(i int) ([]any, error) {
				values = appendEventValues(values[:0], &events[i])
				return values, nil
			}))
		if err != nil {
			return err
		}
		return tx.Commit(ctx)
	})
	if err != nil {
		f.forget(day) // another node may have dropped it
	}
	return err
}

func (f *eventTables) forget(day string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.made, day)
}

func (f *eventTables) list(ctx context.Context) ([]string, error) {
	var days []string
	err := eachRow(ctx, f.pool, `SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND tablename ~ '^events_[0-9]{8}$' ORDER BY 1 DESC`, nil,
		func(rows *sql.Rows) error {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			d := strings.TrimPrefix(name, eventTable)
			if day := d[:4] + "-" + d[4:6] + "-" + d[6:]; isDay(day) {
				days = append(days, day)
			}
			return nil
		})
	return days, postgresError(err)
}

func (f *eventTables) query(ctx context.Context, day, text string, args []any, row func(*sql.Rows) error) error {
	err := eachRow(ctx, f.pool, fmt.Sprintf(text, f.table(day)), args, row)
	if sqlState(err) == "42703" { // undefined_column
		if err = f.withLater(ctx, day); err == nil {
			err = eachRow(ctx, f.pool, fmt.Sprintf(text, f.table(day)), args, row)
		}
	}
	if sqlState(err) == "42P01" { // undefined_table: dropped meanwhile
		return nil
	}
	return postgresError(err)
}

func (f *eventTables) drop(ctx context.Context, day string) error {
	f.forget(day)
	_, err := f.pool.ExecContext(ctx, "DROP TABLE IF EXISTS "+f.table(day))
	return postgresError(err)
}

func (f *eventTables) size(ctx context.Context, day string) (n int64, err error) {
	err = f.pool.QueryRowContext(ctx, "SELECT COALESCE(pg_total_relation_size(to_regclass($1)), 0)", f.table(day)).Scan(&n)
	return n, postgresError(err)
}

func (f *eventTables) settle(map[string]bool) {}

func (f *eventTables) close() error { return nil }
