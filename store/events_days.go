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
		return &eventFiles{dir: dir, open: map[string]*sql.DB{}}, nil
	case *postgresEngine:
		return &eventTables{pool: e.pool}, nil
	}
	return nil, fmt.Errorf("store: no events on %T", db.engine)
}

// eventFiles are days as SQLite files. Those being written to are kept open,
// others for the length of a query.
type eventFiles struct {
	dir string
	// mu is held for reading while a file is used, for writing while one is
	// opened to stay, closed or deleted.
	mu   sync.RWMutex
	open map[string]*sql.DB
}

func (f *eventFiles) file(day string) string { return filepath.Join(f.dir, day+".db") }

func (f *eventFiles) connect(day, mode string) (*sql.DB, error) {
	u := url.URL{Scheme: "file", Path: f.file(day), OmitHost: true, RawQuery: url.Values{
		"mode":    {mode},
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(NORMAL)", "temp_store(memory)"},
	}.Encode()}
	pool, err := sql.Open("sqlite", u.String())
	if err != nil {
		return nil, err
	}
	pool.SetMaxOpenConns(2) // the writer's, and one for a query
	return pool, nil
}

func (f *eventFiles) writable(ctx context.Context, day string) (*sql.DB, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if pool := f.open[day]; pool != nil {
		return pool, nil
	}
	// Made here for its mode.
	file, err := os.OpenFile(f.file(day), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	_ = file.Close()
	pool, err := f.connect(day, "rw")
	if err != nil {
		return nil, err
	}
	if _, err := pool.ExecContext(ctx, fmt.Sprintf(sqliteDialect.translate(eventSchema), "events")); err != nil {
		_ = pool.Close()
		return nil, err
	}
	f.open[day] = pool
	return pool, nil
}

func (f *eventFiles) add(ctx context.Context, day string, events []audit.Event) error {
	// Of those that close it, settle is called by this goroutine, and after
	// Trim the insert fails and is tried again.
	pool, err := f.writable(ctx, day)
	if err != nil {
		return err
	}
	tx, err := pool.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	insert, err := tx.PrepareContext(ctx, `INSERT INTO events (`+eventColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)`)
	if err != nil {
		return err
	}
	for _, v := range events {
		if _, err := insert.ExecContext(ctx, eventValues(v)...); err != nil {
			return err
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
	f.mu.RLock()
	defer f.mu.RUnlock()
	pool := f.open[day]
	if pool == nil {
		if _, err := os.Stat(f.file(day)); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		var err error
		// Writable, because a file whose process was killed has a log to be
		// taken in.
		if pool, err = f.connect(day, "rw"); err != nil {
			return err
		}
		defer pool.Close()
	}
	return eachRow(ctx, pool, fmt.Sprintf(text, "events"), args, row)
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

func (f *eventFiles) drop(_ context.Context, day string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.shut(day)
	err := os.Remove(f.file(day))
	for _, beside := range []string{"-wal", "-shm"} {
		if e := os.Remove(f.file(day) + beside); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

func (f *eventFiles) shut(day string) {
	if pool := f.open[day]; pool != nil {
		_ = pool.Close()
		delete(f.open, day)
	}
}

func (f *eventFiles) settle(days map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for day := range f.open {
		if !days[day] {
			f.shut(day)
		}
	}
}

func (f *eventFiles) close() error {
	f.settle(nil)
	return nil
}

// eventTables are days as PostgreSQL tables: events_20261121.
type eventTables struct {
	pool *sql.DB
	mu   sync.Mutex
	made map[string]bool // tables that are known to exist
}

const eventTable = "events_"

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
			if f.made == nil || len(f.made) > 100 {
				f.made = map[string]bool{}
			}
			f.made[day] = true
			break
		}
	}
	return err
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
		_, err = tx.CopyFrom(ctx, pgx.Identifier{f.table(day)}, strings.Split(eventColumns, ", "),
			pgx.CopyFromSlice(len(events), func(i int) ([]any, error) { return eventValues(events[i]), nil }))
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

func (f *eventTables) settle(map[string]bool) {}

func (f *eventTables) close() error { return nil }
