package store

import (
	"context"
	"database/sql"
	"time"
)

// ForgetLaterColumns makes the day of at one of a version before them.
func ForgetLaterColumns(ctx context.Context, db *DB, at time.Time) error {
	days, err := db.partitions()
	if err != nil {
		return err
	}
	defer func() { _ = days.close() }()
	// DROP COLUMN gives no rows; both databases run it all the same.
	var pool *sql.DB
	table := "events"
	switch f := days.(type) {
	case *eventFiles:
		if pool, err = f.connect(at.Format(time.DateOnly)); err != nil {
			return err
		}
		defer pool.Close()
	case *eventTables:
		pool, table = f.pool, f.table(at.Format(time.DateOnly))
	}
	for _, name := range laterColumns {
		if _, err := pool.ExecContext(ctx, "ALTER TABLE "+table+" DROP COLUMN "+name); err != nil {
			return err
		}
	}
	return nil
}
