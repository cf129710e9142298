package store

import (
	"context"
	"database/sql"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// untag notes since when a manifest has no tag, where the tag that it has just
// lost was its last.
func (c *Content) untag(ctx context.Context, tx *Tx, r repo, digest string) error {
	_, err := tx.Exec(ctx, `UPDATE manifests SET untagged = $3 WHERE repo = $1 AND digest = $2
		AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repo = manifests.repo AND t.digest = manifests.digest)`,
		r.id, digest, Micros(tx.Now()))
	return err
}

// RemoveUntagged implements content.Metadata. What is removed is looked for
// and removed in one transaction, so that a tag set meanwhile is either seen
// or finds no manifest.
func (c *Content) RemoveUntagged(ctx context.Context, registry string, since, before time.Time, n int) (list []content.Untagged, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		list = nil
		ids := []int64{}
		err := tx.each(ctx, func(rows *sql.Rows) error {
			var u content.Untagged
			var id, at int64
			var name, digest string
			if err := rows.Scan(&id, &name, &digest, &u.MediaType, &u.Size, &at); err != nil {
				return err
			}
			var err error
			if u.Repo, err = oci.ParseRepo(name); err != nil {
				return err
			}
			u.Digest, err = oci.ParseDigest(digest)
			u.Since = Time(at)
			list, ids = append(list, u), append(ids, id)
			return err
		}, `SELECT r.id, r.name, m.digest, m.media_type, m.size, m.untagged
			FROM manifests m JOIN repositories r ON r.id = m.repo
			WHERE r.registry = $1 AND m.untagged > 0 AND m.untagged >= $2 AND m.untagged <= $3
			AND m.media_type IN ($4, $5) AND (m.locks & 3) = 0 AND (r.locks & 3) = 0
			AND NOT EXISTS (SELECT 1 FROM tags t WHERE t.repo = m.repo AND t.digest = m.digest)
			AND NOT EXISTS (SELECT 1 FROM manifest_links l WHERE l.repo = m.repo AND l.child = m.digest)
			AND NOT EXISTS (SELECT 1 FROM manifests s WHERE s.repo = m.repo AND s.subject = m.digest)
			ORDER BY m.untagged, m.digest LIMIT $6`,
			registry, Micros(since), Micros(before), oci.MediaTypeDockerImage, oci.MediaTypeDockerList, n)
		if err != nil {
			return err
		}
		for i, u := range list {
			for _, q := range []string{
				`DELETE FROM manifests WHERE repo = $1 AND digest = $2`, `DELETE FROM manifest_links WHERE repo = $1 AND manifest = $2`,
			} {
				if _, err := tx.Exec(ctx, q, ids[i], u.Digest.String()); err != nil {
					return err
				}
			}
			k := content.Key{Registry: registry, Repo: u.Repo}
			if err := c.record(ctx, tx, "manifest", digestKey(k, u.Digest), "delete", content.Manifest{Descriptor: u.Descriptor}); err != nil {
				return err
			}
		}
		return nil
	})
	return list, err
}
