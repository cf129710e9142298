package store

import (
	"context"
	"fmt"
	"time"
)

// Change is one row of the outbox.
//
// On SQLite Seq is a row number. PostgreSQL has no number that rises in the
// order of commits, so there Seq is the number of the transaction and, below
// it, the row's place in the transaction; readers are shown transactions older
// than the oldest that is still open. Two that wrote the same row then stand
// in the order in which they did, and nothing appears before the cursor. The
// price: a transaction left open on that server, in whichever of its
// databases, delays followers until it ends.
type Change struct {
	Seq    int64     // rises in the order of commits, with gaps
	Time   time.Time // of the transaction
	Kind   string    // "resource", "manifest", "tag", "key", …
	Key    string    // what changed: an arm.ID.Key, a registry's UID/repo/…
	Op     string    // "put", "delete"
	Detail []byte    // JSON, the kind's own
}

// placeBits of Seq are a change's place in its PostgreSQL transaction. The 43
// above them last 27 years at ten thousand transactions a second.
const placeBits = 20

// Record writes a row to the outbox in this transaction. What is not in the
// outbox did not happen.
func (tx *Tx) Record(ctx context.Context, c Change) error { return tx.record(ctx, c, nil) }

// record is Record with the version that the change makes, nil for none: both
// in one round trip where the database is a network away.
func (tx *Tx) record(ctx context.Context, c Change, v *version) error {
	if c.Detail == nil {
		c.Detail = []byte{}
	}
	tx.changes++
	if tx.changes >= 1<<placeBits {
		return fmt.Errorf("store: more than %d changes in one transaction", 1<<placeBits-1)
	}
	if tx.db.dialect == postgresDialect {
		const change = `INSERT INTO changes (seq, time, kind, key, op, detail)
			VALUES (((pg_current_xact_id()::text::bigint + $1::bigint) << 20) + $2::bigint, $3, $4, $5, $6, $7)`
		args := []any{tx.db.origin, tx.changes, Micros(tx.now), c.Kind, c.Key, c.Op, c.Detail}
		if v == nil {
			_, err := tx.Exec(ctx, change, args...)
			return err
		}
		_, err := tx.Exec(ctx, `WITH v AS (INSERT INTO versions (time, key, type, id, uid, body, gone) VALUES ($3, $8, $9, $10, $11, $12, $13)) `+change,
			append(args, v.key, v.typ, v.id, v.uid, string(v.body), flag(v.gone))...)
		return err
	}
	if v != nil {
		if err := tx.remember(ctx, *v); err != nil {
			return err
		}
	}
	_, err := tx.Exec(ctx, `INSERT INTO changes (time, kind, key, op, detail) VALUES ($1, $2, $3, $4, $5)`,
		Micros(tx.now), c.Kind, c.Key, c.Op, c.Detail)
	return err
}

// findOrigin sees to it that new rows stand behind all that are there. They
// would not in a database that was restored into a cluster whose transaction
// numbers are lower.
func (db *DB) findOrigin(ctx context.Context) error {
	return db.update(ctx, mode{}, func(tx *Tx) error {
		var newest, xid, n int64
		err := tx.QueryRow(ctx, `SELECT (SELECT COALESCE(MAX(seq), 0) >> 20 FROM changes), pg_current_xact_id()::text::bigint, n
			FROM changes_origin WHERE id = 1`).Scan(&newest, &xid, &n)
		if err == nil && xid+n <= newest {
			n = newest + 1 - xid
			_, err = tx.Exec(ctx, `UPDATE changes_origin SET n = $1 WHERE id = 1`, n)
		}
		db.origin = n
		return err
	})
}

// Changes returns at most limit rows after the cursor in commit order. A row
// is returned only once no earlier one can still appear.
func (db *DB) Changes(ctx context.Context, after int64, limit int) ([]Change, error) {
	q := `SELECT seq, time, kind, key, op, detail FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2`
	args := []any{after, limit}
	if db.dialect == postgresDialect {
		q = `SELECT seq, time, kind, key, op, detail FROM changes
			WHERE seq > $1 AND seq < (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + $3::bigint) << 20
			ORDER BY seq LIMIT $2`
		args = append(args, db.origin)
	}
	var list []Change
	err := db.View(ctx, func(tx *Tx) error {
		list = nil
		rows, err := tx.Query(ctx, q, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c Change
			var us int64
			if err := rows.Scan(&c.Seq, &us, &c.Kind, &c.Key, &c.Op, &c.Detail); err != nil {
				return err
			}
			c.Time = Time(us)
			list = append(list, c)
		}
		return rows.Err()
	})
	return list, err
}

// Head returns the cursor behind which everything committed from now on will
// stand.
func (db *DB) Head(ctx context.Context) (seq int64, err error) {
	err = db.View(ctx, func(tx *Tx) error {
		if db.dialect == postgresDialect {
			return tx.QueryRow(ctx, `SELECT ((pg_snapshot_xmin(pg_current_snapshot())::text::bigint + $1::bigint) << 20) - 1`, db.origin).Scan(&seq)
		}
		return tx.QueryRow(ctx, `SELECT COALESCE(MAX(seq), 0) FROM changes`).Scan(&seq)
	})
	return seq, err
}

// Other nodes' changes are looked for this often. After a change of this node
// PostgreSQL may not show it yet, so the first looks follow closely.
const (
	followPoll  = 500 * time.Millisecond
	followFirst = 2 * time.Millisecond
	followBatch = 1000
)

// Follow calls fn with batches of changes committed after the call began,
// within a second of their commit on any node and at once on this one, until
// ctx ends, and returns ctx's error. The first call has no changes and says
// that following has begun; on PostgreSQL a few changes from just before may
// follow it. While the database cannot be read it waits; nothing is missed.
func (db *DB) Follow(ctx context.Context, fn func([]Change)) error {
	cursor, err := db.Head(ctx)
	for err != nil {
		if wait(ctx, nil, followPoll); ctx.Err() != nil {
			return ctx.Err()
		}
		cursor, err = db.Head(ctx)
	}
	fn(nil)
	pause := followPoll
	for ctx.Err() == nil {
		rung := db.changed.heard()
		list, err := db.Changes(ctx, cursor, followBatch)
		if len(list) > 0 {
			cursor = list[len(list)-1].Seq
			fn(list)
		}
		if len(list) == followBatch {
			continue
		}
		if err == nil && db.exclusive() {
			wait(ctx, rung, time.Hour) // nobody else writes
			continue
		}
		if wait(ctx, rung, pause) {
			pause = followFirst
		} else {
			pause = min(2*pause, followPoll)
		}
	}
	return ctx.Err()
}

// wait returns when rung is closed, after d, or when ctx ends, and reports
// whether it was the first.
func wait(ctx context.Context, rung <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-rung:
		return true
	case <-t.C:
	case <-ctx.Done():
	}
	return false
}

// TrimChanges deletes changes from before, at most limit of them, the oldest
// first, and returns how many. The newest change stays: SQLite counts on from
// it.
func (db *DB) TrimChanges(ctx context.Context, before time.Time, limit int) (n int64, err error) {
	err = db.update(ctx, mode{relaxed: true, readCommitted: true}, func(tx *Tx) error {
		res, err := tx.Exec(ctx, `DELETE FROM changes WHERE time < $1 AND seq IN (
			SELECT seq FROM changes WHERE seq < (SELECT MAX(seq) FROM changes) ORDER BY seq LIMIT $2)`, Micros(before), limit)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}
