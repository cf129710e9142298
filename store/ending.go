package store

import (
	"context"
	"database/sql"
	"time"

	"cove.example/cove/directory"
)

// Ending returns the secrets and certificates that end before a time, those
// that have ended included, the soonest first, at most limit of them. A
// principal that is disabled signs in with none of them.
func (s *Identity) Ending(ctx context.Context, before time.Time, limit int) (out []directory.Ending, err error) {
	err = s.db.View(ctx, func(tx *Tx) error {
		out = nil
		return tx.each(ctx, func(rows *sql.Rows) error {
			var e directory.Ending
			var ends int64
			if err := rows.Scan(&e.ObjectID, &e.AppID, &e.Holder, &e.Name, &e.Kind, &e.KeyID, &ends); err != nil {
				return err
			}
			e.Ends = Time(ends)
			out = append(out, e)
			return nil
		}, `SELECT p.object_id, p.app_id, p.name, c.name, c.kind, c.key_id, c.ends FROM credentials c
			JOIN principals p ON p.object_id = c.object_id
			WHERE c.ends > 0 AND c.ends < $1 AND p.disabled = 0 ORDER BY c.ends, c.key_id LIMIT $2`, Micros(before), limit)
	})
	return out, err
}
