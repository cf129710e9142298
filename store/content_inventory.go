package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// guarded are the locks that keep something from being deleted.
const guarded = content.NoDelete | content.NoWrite

// Repository implements content.Metadata.
func (c *Content) Repository(ctx context.Context, k content.Key) (info content.RepositoryInfo, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		r, err := c.known(ctx, tx, k)
		if err != nil {
			return err
		}
		var created, changed int64
		err = tx.QueryRow(ctx, `SELECT pushed,
			(SELECT COUNT(*) FROM manifests WHERE repo = $1), (SELECT COUNT(*) FROM tags WHERE repo = $1),
			(SELECT COALESCE(MAX(at), 0) FROM (
				SELECT MAX(pushed) AS at FROM manifests WHERE repo = $1 UNION ALL SELECT MAX(changed) AS at FROM tags WHERE repo = $1) AS times)
			FROM repositories WHERE id = $1`, r.id).Scan(&created, &info.Manifests, &info.Tags, &changed)
		info.Created, info.Changed, info.Locks = Time(created), Time(max(created, changed)), r.locks
		return err
	})
	return info, err
}

// known is findRepo for a repository that clients know: ErrNameUnknown.
func (c *Content) known(ctx context.Context, tx *Tx, k content.Key) (repo, error) {
	r, err := c.findRepo(ctx, tx, k)
	if err == nil && !r.pushed {
		err = oci.ErrNameUnknown
	}
	return r, err
}

// order is the tail of a list's statement: what comes behind the last entry,
// and in which order. Its arguments begin at $2; names and times are columns.
func order(l content.Listing, name, at string) (tail string, args []any) {
	if !l.On.IsZero() {
		// Few tags are on one manifest: they are one page, in their order.
		return " AND digest = $2 AND name > $3 ORDER BY name LIMIT $4", []any{l.On.String(), l.Last, l.N + 1}
	}
	if l.Order == content.ByName {
		return " AND " + name + " > $2 ORDER BY " + name + " LIMIT $3", []any{l.Last, l.N + 1}
	}
	compare, direction := ">", ""
	if l.Order == content.NewestFirst {
		compare, direction = "<", " DESC"
	}
	by := " ORDER BY " + at + direction + ", " + name + direction
	if l.Last == "" {
		return by + " LIMIT $2", []any{l.N + 1}
	}
	return " AND (" + at + ", " + name + ") " + compare + " ($2, $3)" + by + " LIMIT $4", []any{Micros(l.At), l.Last, l.N + 1}
}

// TagInfos implements content.Metadata.
func (c *Content) TagInfos(ctx context.Context, k content.Key, l content.Listing) (list []content.TagInfo, more bool, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		r, err := c.known(ctx, tx, k)
		if err != nil {
			return err
		}
		tail, args := order(l, "name", "changed")
		rows, err := tx.Query(ctx, tagInfo+" AND (locks & 4) = 0"+tail, append([]any{r.id}, args...)...)
		if err != nil {
			return err
		}
		list, more = nil, false
		return each(rows, func() error {
			t, err := scanTag(rows)
			if len(list) == l.N {
				more = true
				return nil
			}
			list = append(list, t)
			return err
		})
	})
	return list, more, err
}

const tagInfo = `SELECT name, digest, created, changed, locks FROM tags WHERE repo = $1`

func scanTag(row interface{ Scan(...any) error }) (t content.TagInfo, err error) {
	var digest string
	var created, changed, locks int64
	if err := row.Scan(&t.Name, &digest, &created, &changed, &locks); err != nil {
		return t, err
	}
	t.Created, t.Changed, t.Locks = Time(created), Time(changed), content.Locks(locks)
	t.Digest, err = oci.ParseDigest(digest)
	return t, err
}

// TagInfo implements content.Metadata.
func (c *Content) TagInfo(ctx context.Context, k content.Key, tag oci.Tag) (t content.TagInfo, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		r, err := c.known(ctx, tx, k)
		if err != nil {
			return err
		}
		t, err = scanTag(tx.QueryRow(ctx, tagInfo+" AND name = $2", r.id, tag.String()))
		if errors.Is(err, sql.ErrNoRows) {
			err = oci.ErrManifestUnknown.Detail("%s has no tag %s", k.Repo, tag)
		}
		return err
	})
	return t, err
}

// infoBytes bounds the bodies of one page of manifests.
const infoBytes = 8 << 20

const manifestInfo = `SELECT digest, media_type, artifact_type, size, pushed, locks, body FROM manifests WHERE repo = $1`

// ManifestInfos implements content.Metadata.
func (c *Content) ManifestInfos(ctx context.Context, k content.Key, l content.Listing) (list []content.ManifestInfo, more bool, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		r, err := c.known(ctx, tx, k)
		if err != nil {
			return err
		}
		tail, args := order(l, "digest", "pushed")
		rows, err := tx.Query(ctx, manifestInfo+" AND (locks & 4) = 0"+tail, append([]any{r.id}, args...)...)
		if err != nil {
			return err
		}
		list, more = nil, false
		var size int64
		err = each(rows, func() error {
			m, err := scanManifest(rows)
			if size += m.Size; more || len(list) == l.N || len(list) > 0 && size > infoBytes {
				more = true
				return nil
			}
			list = append(list, m)
			return err
		})
		if err != nil {
			return err
		}
		return c.addTags(ctx, tx, r, list)
	})
	return list, more, err
}

func scanManifest(row interface{ Scan(...any) error }) (m content.ManifestInfo, err error) {
	var digest string
	var pushed, locks int64
	var body []byte
	if err := row.Scan(&digest, &m.MediaType, &m.ArtifactType, &m.Size, &pushed, &locks, &body); err != nil {
		return m, err
	}
	m.Pushed, m.Locks = Time(pushed), content.Locks(locks)
	m.Digest, err = oci.ParseDigest(digest)
	return m.WithBody(body), err
}

// addTags fills in the tags of manifests, one indexed read each.
func (c *Content) addTags(ctx context.Context, tx *Tx, r repo, list []content.ManifestInfo) error {
	for i := range list {
		rows, err := tx.Query(ctx, `SELECT name FROM tags WHERE repo = $1 AND digest = $2 AND (locks & 4) = 0 ORDER BY name`, r.id, list[i].Digest.String())
		if err != nil {
			return err
		}
		err = each(rows, func() error {
			var name string
			err := rows.Scan(&name)
			list[i].Tags = append(list[i].Tags, name)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ManifestInfo implements content.Metadata.
func (c *Content) ManifestInfo(ctx context.Context, k content.Key, d oci.Digest) (m content.ManifestInfo, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		r, err := c.known(ctx, tx, k)
		if err != nil {
			return err
		}
		m, err = scanManifest(tx.QueryRow(ctx, manifestInfo+" AND digest = $2", r.id, d.String()))
		if errors.Is(err, sql.ErrNoRows) {
			return oci.ErrManifestUnknown.Detail("%s has no manifest %s", k.Repo, d)
		}
		if err != nil {
			return err
		}
		one := []content.ManifestInfo{m}
		err = c.addTags(ctx, tx, r, one)
		m = one[0]
		return err
	})
	return m, err
}

// LockRepository implements content.Metadata.
func (c *Content) LockRepository(ctx context.Context, k content.Key, set, clear content.Locks) error {
	return c.lock(ctx, k, set, clear, Change{Kind: "repository", Key: repoKey(k), Op: "lock"}, oci.ErrNameUnknown,
		`UPDATE repositories SET locks = (locks | $2) - (locks & $3) WHERE id = $1`)
}

// LockTag implements content.Metadata.
func (c *Content) LockTag(ctx context.Context, k content.Key, t oci.Tag, set, clear content.Locks) error {
	return c.lock(ctx, k, set, clear, Change{Kind: "tag", Key: tagKey(k, t.String()), Op: "lock"}, oci.ErrManifestUnknown.Detail("%s has no tag %s", k.Repo, t),
		`UPDATE tags SET locks = (locks | $2) - (locks & $3) WHERE repo = $1 AND name = $4`, t.String())
}

// LockManifest implements content.Metadata.
func (c *Content) LockManifest(ctx context.Context, k content.Key, d oci.Digest, set, clear content.Locks) error {
	return c.lock(ctx, k, set, clear, Change{Kind: "manifest", Key: digestKey(k, d), Op: "lock"}, oci.ErrManifestUnknown.Detail("%s has no manifest %s", k.Repo, d),
		`UPDATE manifests SET locks = (locks | $2) - (locks & $3) WHERE repo = $1 AND digest = $4`, d.String())
}

// lock runs one of the statements above. A lock that is both set and cleared
// is cleared.
func (c *Content) lock(ctx context.Context, k content.Key, set, clear content.Locks, ch Change, none error, q string, args ...any) error {
	set &^= clear
	var err error
	if ch.Detail, err = json.Marshal(struct {
		Set   content.Locks `json:"set"`
		Clear content.Locks `json:"clear"`
	}{set, clear}); err != nil {
		return err
	}
	return c.db.Update(ctx, func(tx *Tx) error {
		r, err := c.known(ctx, tx, k)
		if err != nil {
			return err
		}
		res, err := tx.Exec(ctx, q, append([]any{r.id, int64(set), int64(clear)}, args...)...)
		if err := oneRow(res, err, none); err != nil {
			return err
		}
		return tx.Record(ctx, ch)
	})
}

// DeleteRepository implements content.Metadata. It is one transaction, so that
// a push that comes between is either deleted with the rest or makes the
// repository anew.
func (c *Content) DeleteRepository(ctx context.Context, k content.Key) (manifests, tags []string, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		r, err := c.known(ctx, tx, k)
		if err != nil {
			return err
		}
		if r.locks.Has(guarded) {
			return oci.ErrDisallowed
		}
		if tags, err = c.dropAll(ctx, tx, `DELETE FROM tags WHERE repo = $1 RETURNING name, locks`, r.id); err != nil {
			return err
		}
		if manifests, err = c.dropAll(ctx, tx, `DELETE FROM manifests WHERE repo = $1 RETURNING digest, locks`, r.id); err != nil {
			return err
		}
		for _, q := range []string{
			`DELETE FROM manifest_links WHERE repo = $1`, `DELETE FROM repository_blobs WHERE repo = $1`, `DELETE FROM repositories WHERE id = $1`,
		} {
			if _, err := tx.Exec(ctx, q, r.id); err != nil {
				return err
			}
		}
		return tx.Record(ctx, Change{Kind: "repository", Key: repoKey(k), Op: "delete"})
	})
	return manifests, tags, err
}

// dropAll runs a deletion that returns names and locks. One that is locked
// fails it.
func (c *Content) dropAll(ctx context.Context, tx *Tx, q string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	var names []string
	var locks content.Locks
	err = each(rows, func() error {
		var name string
		var l int64
		err := rows.Scan(&name, &l)
		names, locks = append(names, name), locks|content.Locks(l)
		return err
	})
	if err == nil && locks.Has(guarded) {
		err = oci.ErrDisallowed
	}
	return names, err
}
