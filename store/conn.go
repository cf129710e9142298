package store

import (
	"context"
	"database/sql"
)

// maxStatements bounds the statements kept on one connection. Texts are
// constants, so it is never reached; a text built from data by mistake costs
// its own preparation and not the server's memory.
const maxStatements = 1024

// conn is one SQLite connection with its prepared statements. One goroutine
// uses it at a time.
type conn struct {
	c     *sql.Conn
	stmts map[string]*statement
	open  []*sql.Rows // given out in this transaction, perhaps closed since
	// detached: statements are not interrupted when the caller's context
	// ends. Set on the writer, whose transaction is shared: an interrupted
	// write would take its neighbours' with it.
	detached bool
}

type statement struct {
	*sql.Stmt
	rows *sql.Rows // last given out, perhaps closed since
}

func newConn(ctx context.Context, db *sql.DB, pragmas ...string) (*conn, error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range pragmas {
		if _, err := c.ExecContext(ctx, "PRAGMA "+p); err != nil {
			_ = c.Close()
			return nil, err
		}
	}
	return &conn{c: c, stmts: map[string]*statement{}}, nil
}

func (c *conn) close() error {
	for _, s := range c.stmts {
		_ = s.Close()
	}
	return c.c.Close()
}

// prepared returns nil when q is to be run as it is: the cache is full, or
// the rows of an earlier run of q are still being read. (Running a statement
// again under its own open rows would advance those.)
func (c *conn) prepared(ctx context.Context, q string) (*statement, error) {
	if s := c.stmts[q]; s != nil {
		if s.rows != nil {
			if _, err := s.rows.Columns(); err == nil {
				return nil, nil // not closed
			}
			s.rows = nil
		}
		return s, nil
	}
	if len(c.stmts) >= maxStatements {
		return nil, nil
	}
	st, err := c.c.PrepareContext(ctx, q)
	if err != nil {
		return nil, err
	}
	s := &statement{Stmt: st}
	c.stmts[q] = s
	return s, nil
}

// run executes a statement of the engine's own.
func (c *conn) run(q string) error {
	_, err := c.ExecContext(context.Background(), q)
	return err
}

// settle closes rows that fn has left open: on the writer they would hold
// the snapshot, and with it the log, for ever.
func (c *conn) settle() {
	for _, rows := range c.open {
		_ = rows.Close()
	}
	clear(c.open)
	c.open = c.open[:0]
}

func (c *conn) context(ctx context.Context) (context.Context, error) {
	if !c.detached {
		return ctx, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return context.WithoutCancel(ctx), nil
}

func (c *conn) ExecContext(ctx context.Context, q string, args ...any) (sql.Result, error) {
	ctx, err := c.context(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.prepared(ctx, q)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return c.c.ExecContext(ctx, q, args...)
	}
	return s.ExecContext(ctx, args...)
}

func (c *conn) QueryContext(ctx context.Context, q string, args ...any) (*sql.Rows, error) {
	ctx, err := c.context(ctx)
	if err != nil {
		return nil, err
	}
	s, err := c.prepared(ctx, q)
	if err != nil {
		return nil, err
	}
	var rows *sql.Rows
	if s == nil {
		rows, err = c.c.QueryContext(ctx, q, args...)
	} else if rows, err = s.QueryContext(ctx, args...); err == nil {
		s.rows = rows
	}
	if err == nil {
		c.open = append(c.open, rows)
	}
	return rows, err
}

func (c *conn) QueryRowContext(ctx context.Context, q string, args ...any) *sql.Row {
	detached, err := c.context(ctx)
	if err != nil {
		return c.c.QueryRowContext(ctx, q, args...) // a sql.Row that holds ctx's error
	}
	s, err := c.prepared(detached, q)
	if err != nil || s == nil {
		return c.c.QueryRowContext(detached, q, args...) // fails as preparing has
	}
	return s.QueryRowContext(detached, args...)
}
