package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// Tags implements content.Metadata.
func (c *Content) Tags(ctx context.Context, k content.Key, p content.Page) (list []string, more bool, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		r, err := c.findRepo(ctx, tx, k)
		if err != nil {
			return err
		}
		if !r.pushed {
			return oci.ErrNameUnknown
		}
		list, more, err = c.names(ctx, tx, p.N, `SELECT name FROM tags WHERE repo = $1 AND name > $2 AND (locks & 4) = 0 ORDER BY name LIMIT $3`,
			r.id, p.Last, p.N+1)
		return err
	})
	return list, more, err
}

// Repositories implements content.Metadata.
func (c *Content) Repositories(ctx context.Context, registry string, p content.Page) (list []string, more bool, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		list, more, err = c.names(ctx, tx, p.N, `SELECT name FROM repositories WHERE registry = $1 AND name > $2 AND pushed > 0 AND (locks & 4) = 0
			ORDER BY name LIMIT $3`, registry, p.Last, p.N+1)
		return err
	})
	return list, more, err
}

// Size implements content.Metadata.
func (c *Content) Size(ctx context.Context, registry string) (size int64, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		return tx.QueryRow(ctx, `SELECT
			(SELECT COALESCE(SUM(size), 0) FROM blobs WHERE digest IN (
				SELECT m.digest FROM repository_blobs m JOIN repositories r ON r.id = m.repo WHERE r.registry = $1)) +
			(SELECT COALESCE(SUM(size), 0) FROM (
				SELECT DISTINCT m.digest, m.size FROM manifests m JOIN repositories r ON r.id = m.repo WHERE r.registry = $1) AS distinct_manifests)`,
			registry).Scan(&size)
	})
	return size, err
}

// names reads one row more than n, to know whether there are more.
func (c *Content) names(ctx context.Context, tx *Tx, n int, q string, args ...any) (list []string, more bool, err error) {
	rows, err := tx.Query(ctx, q, args...)
	if err != nil {
		return nil, false, err
	}
	err = each(rows, func() error {
		if len(list) == n {
			more = true
			return nil
		}
		var s string
		err := rows.Scan(&s)
		list = append(list, s)
		return err
	})
	return list, more, err
}

// referrersBytes bounds the annotations of one page of referrers: a page of
// manifests with 4 MiB of them each would not fit in memory.
const referrersBytes = 4 << 20

// Referrers implements content.Metadata.
func (c *Content) Referrers(ctx context.Context, k content.Key, d oci.Digest, artifactType string, p content.Page) (list []oci.Descriptor, more bool, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		list, more = nil, false
		r, err := c.findRepo(ctx, tx, k)
		if err != nil {
			return err
		}
		q := `SELECT digest, media_type, artifact_type, size, annotations FROM manifests
			WHERE repo = $1 AND subject = $2 AND subject <> '' AND digest > $3 ORDER BY digest LIMIT $4`
		args := []any{r.id, d.String(), p.Last, p.N + 1}
		if artifactType != "" {
			q = `SELECT digest, media_type, artifact_type, size, annotations FROM manifests
				WHERE repo = $1 AND subject = $2 AND subject <> '' AND digest > $3 AND artifact_type = $5 ORDER BY digest LIMIT $4`
			args = append(args, artifactType)
		}
		rows, err := tx.Query(ctx, q, args...)
		if err != nil {
			return err
		}
		room := referrersBytes
		return each(rows, func() error {
			if more {
				return nil
			}
			var text, annotations string
			var e oci.Descriptor
			if err := rows.Scan(&text, &e.MediaType, &e.ArtifactType, &e.Size, &annotations); err != nil {
				return err
			}
			if room -= len(annotations); len(list) == p.N || (room < 0 && len(list) > 0) {
				more = true
				return nil
			}
			if e.Digest, err = oci.ParseDigest(text); err != nil {
				return err
			}
			if annotations != "" {
				err = json.Unmarshal([]byte(annotations), &e.Annotations)
			}
			list = append(list, e)
			return err
		})
	})
	return list, more, err
}

// Members implements content.Metadata.
func (c *Content) Members(ctx context.Context, after content.Member, n int) (list []content.Member, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		list = nil
		rows, err := tx.Query(ctx, `SELECT b.repo, b.digest, b.used,
				EXISTS (SELECT 1 FROM manifest_links l WHERE l.repo = b.repo AND l.child = b.digest)
			FROM repository_blobs b WHERE (b.repo, b.digest) > ($1, $2) ORDER BY b.repo, b.digest LIMIT $3`,
			after.Repo, after.Digest.String(), n)
		if err != nil {
			return err
		}
		return each(rows, func() error {
			var m content.Member
			var d string
			var used int64
			if err := rows.Scan(&m.Repo, &d, &used, &m.Linked); err != nil {
				return err
			}
			m.Used = Time(used)
			m.Digest, err = oci.ParseDigest(d)
			list = append(list, m)
			return err
		})
	})
	return list, err
}

// RemoveMembers implements content.Metadata.
func (c *Content) RemoveMembers(ctx context.Context, list []content.Member, before time.Time) (removed int, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		removed = 0
		for _, m := range list {
			res, err := tx.Exec(ctx, `DELETE FROM repository_blobs WHERE repo = $1 AND digest = $2 AND used < $3
				AND NOT EXISTS (SELECT 1 FROM manifest_links l WHERE l.repo = $1 AND l.child = $2)`,
				m.Repo, m.Digest.String(), Micros(before))
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			removed += int(n)
		}
		return nil
	})
	return removed, err
}

// Blobs implements content.Metadata.
func (c *Content) Blobs(ctx context.Context, after oci.Digest, n int) (list []content.BlobRow, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		list, _, err = c.blobs(ctx, tx, `SELECT digest, size, location, bad, 0 FROM blobs WHERE digest > $1 ORDER BY digest LIMIT $2`,
			after.String(), n)
		return err
	})
	return list, err
}

// blobs returns the rows whose last column is 0, and the last digest of all.
func (c *Content) blobs(ctx context.Context, tx *Tx, q string, args ...any) (list []content.BlobRow, last oci.Digest, err error) {
	rows, err := tx.Query(ctx, q, args...)
	if err != nil {
		return nil, oci.Digest{}, err
	}
	err = each(rows, func() error {
		var b content.BlobRow
		var d string
		var bad, skip int64
		if err := rows.Scan(&d, &b.Size, &b.Location, &bad, &skip); err != nil {
			return err
		}
		if b.Digest, err = oci.ParseDigest(d); err != nil {
			return err
		}
		b.Bad, last = bad != 0, b.Digest
		if skip == 0 {
			list = append(list, b)
		}
		return nil
	})
	return list, last, err
}

// Unowned implements content.Metadata.
func (c *Content) Unowned(ctx context.Context, after oci.Digest, before time.Time, n int) (list []content.BlobRow, scanned oci.Digest, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		list, scanned, err = c.blobs(ctx, tx, `SELECT b.digest, b.size, b.location, b.bad,
				CASE WHEN b.created >= $2 OR EXISTS (
					SELECT 1 FROM repository_blobs m WHERE m.digest = b.digest AND (m.used >= $2 OR EXISTS (
						SELECT 1 FROM manifest_links l WHERE l.repo = m.repo AND l.child = m.digest)))
				THEN 1 ELSE 0 END
			FROM blobs b WHERE b.digest > $1 ORDER BY b.digest LIMIT $3`, after.String(), Micros(before), n)
		return err
	})
	return list, scanned, err
}

// RemoveUnowned implements content.Metadata.
func (c *Content) RemoveUnowned(ctx context.Context, list []content.BlobRow) (removed []content.BlobRow, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		removed = nil
		for _, b := range list {
			res, err := tx.Exec(ctx, `DELETE FROM blobs WHERE digest = $1 AND location = $2
				AND NOT EXISTS (SELECT 1 FROM repository_blobs m WHERE m.digest = $1)`, b.Digest.String(), b.Location)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			if n == 1 {
				removed = append(removed, b)
			}
		}
		return nil
	})
	return removed, err
}

// Located implements content.Metadata.
func (c *Content) Located(ctx context.Context, d oci.Digest, location string) (bool, error) {
	return c.any(ctx, `SELECT COUNT(*) FROM blobs WHERE digest = $1 AND location = $2`, d.String(), location)
}

// IsUpload implements content.Metadata.
func (c *Content) IsUpload(ctx context.Context, id string) (bool, error) {
	return c.any(ctx, `SELECT COUNT(*) FROM uploads WHERE id = $1`, id)
}

func (c *Content) any(ctx context.Context, q string, args ...any) (bool, error) {
	var n int
	err := c.db.View(ctx, func(tx *Tx) error { return tx.QueryRow(ctx, q, args...).Scan(&n) })
	return n > 0, err
}

// MarkBlob implements content.Metadata.
func (c *Content) MarkBlob(ctx context.Context, b content.BlobRow, bad bool) error {
	mark := 0
	if bad {
		mark = 1
	}
	return c.db.Update(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, `UPDATE blobs SET bad = $3 WHERE digest = $1 AND location = $2`, b.Digest.String(), b.Location, mark)
		return err
	})
}

// IdleUploads implements content.Metadata.
func (c *Content) IdleUploads(ctx context.Context, before time.Time, n int) (list []string, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		list, _, err = c.names(ctx, tx, n, `SELECT id FROM uploads WHERE changed < $1 ORDER BY changed LIMIT $2`, Micros(before), n)
		return err
	})
	return list, err
}

// drops are the statements that empty a repository by parts. What names
// something goes before what is named.
var drops = [...]string{
	`DELETE FROM tags WHERE repo = $1 AND name IN (SELECT name FROM tags WHERE repo = $1 LIMIT $2)`,
	`DELETE FROM manifests WHERE repo = $1 AND digest IN (SELECT digest FROM manifests WHERE repo = $1 LIMIT $2)`,
	`DELETE FROM manifest_links WHERE repo = $1 AND (manifest, child) IN (SELECT manifest, child FROM manifest_links WHERE repo = $1 LIMIT $2)`,
	`DELETE FROM repository_blobs WHERE repo = $1 AND digest IN (SELECT digest FROM repository_blobs WHERE repo = $1 LIMIT $2)`,
}

// DropSome implements content.Metadata. It removes repositories one by one,
// and the registry's uploads after them.
func (c *Content) DropSome(ctx context.Context, registry string, n int) (more bool, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		more = true
		var id int64
		var name string
		err := tx.QueryRow(ctx, `SELECT id, name FROM repositories WHERE registry = $1 ORDER BY name LIMIT 1`, registry).Scan(&id, &name)
		if errors.Is(err, sql.ErrNoRows) {
			res, err := tx.Exec(ctx, `DELETE FROM uploads WHERE id IN (SELECT id FROM uploads WHERE registry = $1 LIMIT $2)`, registry, n)
			if err != nil {
				return err
			}
			left, err := res.RowsAffected()
			more = left > 0
			return err
		}
		if err != nil {
			return err
		}
		for _, q := range drops {
			res, err := tx.Exec(ctx, q, id, n)
			if err != nil {
				return err
			}
			if removed, err := res.RowsAffected(); err != nil || removed > 0 {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `DELETE FROM repositories WHERE id = $1`, id); err != nil {
			return err
		}
		return tx.Record(ctx, Change{Kind: "repository", Key: registry + "/" + name, Op: "delete"})
	})
	return more, err
}
