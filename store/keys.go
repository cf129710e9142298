package store

import (
	"context"
	"database/sql"
	"time"

	"cove.example/cove/token"
)

// Keys is token.Store in the database.
//
// Each change is a row of the outbox: kind "key", the key's id, "put" or
// "retire".
type Keys struct{ db *DB }

// NewKeys returns the signing keys of db.
func NewKeys(db *DB) *Keys { return &Keys{db} }

var _ token.Store = (*Keys)(nil)

const keyKind = "key"

// Keys implements token.Store.
func (s *Keys) Keys(ctx context.Context) (list []token.Stored, err error) {
	err = s.db.View(ctx, func(tx *Tx) error {
		list = nil
		return tx.each(ctx, func(rows *sql.Rows) error {
			var k token.Stored
			var created, activate, retire int64
			if err := rows.Scan(&k.ID, &k.Use, &k.Algorithm, &k.Sealed, &created, &activate, &retire); err != nil {
				return err
			}
			k.Created, k.Activate, k.Retire = Time(created), Time(activate), Time(retire)
			list = append(list, k)
			return nil
		}, `SELECT id, purpose, algorithm, sealed, created, activate, retire FROM signing_keys ORDER BY created, id`)
	})
	return list, err
}

// AddFirst implements token.Store.
func (s *Keys) AddFirst(ctx context.Context, k token.Stored) (done bool, err error) {
	err = s.db.Update(ctx, func(tx *Tx) error {
		done = false
		var n int
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM signing_keys WHERE purpose = $1`, string(k.Use)).Scan(&n); err != nil || n > 0 {
			return err
		}
		done = true
		return addKey(ctx, tx, k)
	})
	return done && err == nil, err
}

// Rotate implements token.Store.
func (s *Keys) Rotate(ctx context.Context, k token.Stored, retire time.Time) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE signing_keys SET retire = $1 WHERE purpose = $2 AND retire = 0`, Micros(retire), string(k.Use)); err != nil {
			return err
		}
		return addKey(ctx, tx, k)
	})
}

// Replace implements token.Store. Of two nodes on PostgreSQL the second finds
// the row retired.
func (s *Keys) Replace(ctx context.Context, old string, k token.Stored, retire, gone time.Time) (done bool, err error) {
	err = s.db.Update(ctx, func(tx *Tx) error {
		done = false
		n, err := affected(tx.Exec(ctx, `UPDATE signing_keys SET retire = $1 WHERE id = $2 AND purpose = $3 AND retire = 0`, Micros(retire), old, string(k.Use)))
		if err != nil || n == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM signing_keys WHERE retire > 0 AND retire < $1`, Micros(gone)); err != nil {
			return err
		}
		done = true
		return addKey(ctx, tx, k)
	})
	return done && err == nil, err
}

// Revoke implements token.Store.
func (s *Keys) Revoke(ctx context.Context, id string, at time.Time) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE signing_keys SET retire = $1 WHERE id = $2`, Micros(at), id); err != nil {
			return err
		}
		return tx.Record(ctx, Change{Kind: keyKind, Key: id, Op: "retire"})
	})
}

// Follow implements token.Store.
func (s *Keys) Follow(ctx context.Context, fn func()) error {
	return s.db.followKind(ctx, keyKind, fn)
}

func addKey(ctx context.Context, tx *Tx, k token.Stored) error {
	if _, err := tx.Exec(ctx, `INSERT INTO signing_keys (id, purpose, algorithm, sealed, created, activate, retire)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, k.ID, string(k.Use), k.Algorithm, k.Sealed,
		Micros(k.Created), Micros(k.Activate), Micros(k.Retire)); err != nil {
		return err
	}
	return tx.Record(ctx, Change{Kind: keyKind, Key: k.ID, Op: "put"})
}
