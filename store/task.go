package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/task"
)

var _ task.Queue = (*DB)(nil)

// Enqueue makes a task that exists when the transaction is committed.
func (tx *Tx) Enqueue(ctx context.Context, t task.New) error {
	if t.Kind == "" {
		return fmt.Errorf("store: a task without a kind")
	}
	body := t.Body
	if body == nil {
		body = json.RawMessage("null")
	}
	due := t.After
	if due.Before(tx.now) {
		due = tx.now
	}
	_, err := tx.Exec(ctx, `INSERT INTO tasks (kind, key, body, state, attempt, tries, created, due, again, dead, why)
		VALUES ($1, $2, $3, '', 0, 0, $4, $5, 0, 0, '')
		ON CONFLICT (kind, key) WHERE dead = 0 AND key <> ''
		DO UPDATE SET again = CASE WHEN tasks.again = 0 OR tasks.again > excluded.due THEN excluded.due ELSE tasks.again END`,
		t.Kind, t.Key, string(body), Micros(tx.now), Micros(due))
	tx.enqueued = true
	return err
}

// Enqueued is as task.Queue says.
func (db *DB) Enqueued() <-chan struct{} { return db.enqueued.heard() }

// Claim is as task.Queue says.
//
// The claim itself is durable on PostgreSQL, where the runner may outlive the
// server: a lost one would let a second runner count the same attempt. SQLite
// takes the runner with it.
func (db *DB) Claim(ctx context.Context, kinds []string, n int, now time.Time, lease time.Duration) (list []task.Task, err error) {
	if len(kinds) == 0 || n <= 0 {
		return nil, nil
	}
	args := []any{Micros(now), n}
	in := make([]string, len(kinds))
	for i, k := range kinds {
		args = append(args, k)
		in[i] = fmt.Sprintf("$%d", len(args))
	}
	due := `SELECT id FROM tasks WHERE dead = 0 AND due <= $1 AND kind IN (` + strings.Join(in, ", ") + `) ORDER BY due, id LIMIT $2`

	// Looking costs no turn with the writer; most looks find nothing.
	found := false
	err = db.View(ctx, func(tx *Tx) error {
		rows, err := tx.Query(ctx, due, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		found = rows.Next()
		return rows.Err()
	})
	if err != nil || !found {
		return nil, err
	}

	if db.dialect == postgresDialect {
		due += ` FOR UPDATE SKIP LOCKED`
	}
	args = append(args, Micros(now.Add(lease)))
	// MATERIALIZED: else PostgreSQL may run the inner query, and lock its rows,
	// once more for each row.
	claim := `WITH due AS MATERIALIZED (` + due + `)
		UPDATE tasks SET attempt = attempt + 1, tries = tries + 1, again = 0, due = ` + fmt.Sprintf("$%d", len(args)) + `
		WHERE id IN (SELECT id FROM due) RETURNING id, kind, key, body, state, attempt, tries, created`
	err = db.update(ctx, mode{relaxed: db.exclusive(), readCommitted: true}, func(tx *Tx) error {
		list = nil
		rows, err := tx.Query(ctx, claim, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			t, err := scanTask(rows)
			if err != nil {
				return err
			}
			list = append(list, t)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// scanTask reads id, kind, key, body, state, attempt, tries, created and then
// into more.
func scanTask(row interface{ Scan(...any) error }, more ...any) (t task.Task, err error) {
	var body, state string
	var created int64
	if err := row.Scan(append([]any{&t.ID, &t.Kind, &t.Key, &body, &state, &t.Attempt, &t.Tries, &created}, more...)...); err != nil {
		return t, err
	}
	t.Body, t.Created = json.RawMessage(body), Time(created)
	if state != "" {
		t.State = json.RawMessage(state)
	}
	return t, nil
}

// Extend is as task.Queue says.
func (db *DB) Extend(ctx context.Context, t task.Task, now time.Time, lease time.Duration, state json.RawMessage) error {
	return db.held(ctx, `UPDATE tasks SET due = $3, state = CASE WHEN $4 = '' THEN state ELSE $4 END
		WHERE id = $1 AND attempt = $2 AND dead = 0`, t, Micros(now.Add(lease)), string(state))
}

// Done is as task.Queue says. A task enqueued once more while it was held
// starts from the beginning. Losing this with the machine's power runs the
// task again, which it must bear anyway.
func (db *DB) Done(ctx context.Context, t task.Task, now time.Time) error {
	var rerun int64
	err := db.update(ctx, mode{relaxed: true, readCommitted: true}, func(tx *Tx) error {
		res, err := tx.Exec(ctx, `DELETE FROM tasks WHERE id = $1 AND attempt = $2 AND dead = 0 AND again = 0`, t.ID, t.Attempt)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 1 {
			return err
		}
		res, err = tx.Exec(ctx, `UPDATE tasks SET due = again, again = 0, tries = 0, state = '', attempt = attempt + 1
			WHERE id = $1 AND attempt = $2 AND dead = 0 AND again <> 0`, t.ID, t.Attempt)
		if err != nil {
			return err
		}
		if rerun, err = res.RowsAffected(); err == nil && rerun == 0 {
			err = task.ErrFenced
		}
		return err
	})
	if err == nil && rerun > 0 {
		db.enqueued.ring()
	}
	return err
}

// Fail is as task.Queue says. A task enqueued once more while it was held is
// not set aside: it starts from the beginning.
func (db *DB) Fail(ctx context.Context, t task.Task, now, retry time.Time, why string) error {
	if retry.IsZero() {
		return db.held(ctx, `UPDATE tasks SET attempt = attempt + 1, why = $4, again = 0,
			dead = CASE WHEN again = 0 THEN CAST($3 AS BIGINT) ELSE 0 END,
			due = CASE WHEN again = 0 THEN due ELSE again END,
			tries = CASE WHEN again = 0 THEN tries ELSE 0 END,
			state = CASE WHEN again = 0 THEN state ELSE '' END
			WHERE id = $1 AND attempt = $2 AND dead = 0`, t, Micros(now), why)
	}
	return db.held(ctx, `UPDATE tasks SET attempt = attempt + 1, due = $3, why = $4 WHERE id = $1 AND attempt = $2 AND dead = 0`,
		t, Micros(retry), why)
}

// Release is as task.Queue says.
func (db *DB) Release(ctx context.Context, t task.Task, now time.Time) error {
	return db.held(ctx, `UPDATE tasks SET attempt = attempt + 1, tries = tries - 1, due = $3 WHERE id = $1 AND attempt = $2 AND dead = 0`,
		t, Micros(now))
}

// held runs a statement that applies to the holder of t only.
func (db *DB) held(ctx context.Context, q string, t task.Task, args ...any) error {
	return db.update(ctx, mode{relaxed: true, readCommitted: true}, func(tx *Tx) error {
		res, err := tx.Exec(ctx, q, append([]any{t.ID, t.Attempt}, args...)...)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err == nil && n == 0 {
			err = task.ErrFenced
		}
		return err
	})
}

// DeadTasks returns at most limit tasks that were set aside, the latest first.
func (db *DB) DeadTasks(ctx context.Context, limit int) (list []task.Dead, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		list = nil
		rows, err := tx.Query(ctx, `SELECT id, kind, key, body, state, attempt, tries, created, dead, why
			FROM tasks WHERE dead <> 0 ORDER BY dead DESC, id DESC LIMIT $1`, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var d task.Dead
			var since int64
			if d.Task, err = scanTask(rows, &since, &d.Why); err != nil {
				return err
			}
			d.Since = Time(since)
			list = append(list, d)
		}
		return rows.Err()
	})
	return list, err
}

// ErrNoTask is the failure of Revive.
var ErrNoTask = fault.New(fault.NotFound, "no task with this number was set aside")

// Revive makes a task that was set aside due again, as if it were new. If an
// unfinished task of its kind and key has come meanwhile, it fails with a
// fault.Conflict.
func (db *DB) Revive(ctx context.Context, id int64) error {
	return db.Update(ctx, func(tx *Tx) error {
		var taken bool
		err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM tasks d JOIN tasks t ON t.kind = d.kind AND t.key = d.key
			WHERE d.id = $1 AND d.dead <> 0 AND t.dead = 0 AND d.key <> '')`, id).Scan(&taken)
		if err != nil {
			return err
		}
		if taken {
			return fault.Newf(fault.Conflict, "the same task has been enqueued again meanwhile")
		}
		res, err := tx.Exec(ctx, `UPDATE tasks SET dead = 0, why = '', tries = 0, again = 0, due = $2 WHERE id = $1 AND dead <> 0`, id, Micros(tx.now))
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return ErrNoTask
		}
		tx.enqueued = true
		return nil
	})
}
