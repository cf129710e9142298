package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// Content is content.Metadata in the database.
//
// Whoever changes a tag or a manifest records it in the outbox: kind
// "manifest" with the key <registry uid>/<repository>@<digest>, kind "tag"
// with <registry uid>/<repository>:<tag>, kind "blob", deletions only, as
// manifests, and kind "repository" with <registry uid>/<repository> when all
// of it is dropped.
type Content struct{ db *DB }

// NewContent returns the content of db.
func NewContent(db *DB) *Content { return &Content{db} }

var _ content.Metadata = (*Content)(nil)

// repo is a row of repositories.
type repo struct {
	id     int64
	pushed bool
	locks  content.Locks
}

// findRepo returns the zero repo when k is none.
func (c *Content) findRepo(ctx context.Context, tx *Tx, k content.Key) (r repo, err error) {
	var pushed, locks int64
	err = tx.QueryRow(ctx, `SELECT id, pushed, locks FROM repositories WHERE registry = $1 AND name = $2`,
		k.Registry, k.Repo.String()).Scan(&r.id, &pushed, &locks)
	if errors.Is(err, sql.ErrNoRows) {
		return repo{}, nil
	}
	r.pushed, r.locks = pushed != 0, content.Locks(locks)
	return r, err
}

func (c *Content) makeRepo(ctx context.Context, tx *Tx, k content.Key) (repo, error) {
	r, err := c.findRepo(ctx, tx, k)
	if err != nil || r.id != 0 {
		return r, err
	}
	err = tx.QueryRow(ctx, `INSERT INTO repositories (registry, name, created, pushed) VALUES ($1, $2, $3, 0) RETURNING id`,
		k.Registry, k.Repo.String(), Micros(tx.Now())).Scan(&r.id)
	return r, err
}

// Blob implements content.Metadata.
func (c *Content) Blob(ctx context.Context, k content.Key, d oci.Digest) (b content.BlobRow, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		b, err = c.blob(ctx, tx, k, d)
		return err
	})
	return b, err
}

func (c *Content) blob(ctx context.Context, tx *Tx, k content.Key, d oci.Digest) (content.BlobRow, error) {
	b := content.BlobRow{Digest: d}
	var bad, used, locks int64
	// A blob that only manifests name which may not be read is part of what
	// may not be read: 8 is NoRead. The first that may be read ends the search;
	// thousands of images may share a layer.
	err := tx.QueryRow(ctx, `SELECT b.size, b.location, b.bad, m.used, r.locks | CASE
			WHEN EXISTS (SELECT 1 FROM manifest_links l JOIN manifests p ON p.repo = l.repo AND p.digest = l.manifest
				WHERE l.repo = r.id AND l.child = m.digest AND (p.locks & 8) = 0) THEN 0
			WHEN EXISTS (SELECT 1 FROM manifest_links l WHERE l.repo = r.id AND l.child = m.digest) THEN 8
			ELSE 0 END
		FROM repositories r
		JOIN repository_blobs m ON m.repo = r.id AND m.digest = $3
		JOIN blobs b ON b.digest = m.digest
		WHERE r.registry = $1 AND r.name = $2`,
		k.Registry, k.Repo.String(), d.String()).Scan(&b.Size, &b.Location, &bad, &used, &locks)
	if errors.Is(err, sql.ErrNoRows) {
		return content.BlobRow{}, oci.ErrBlobUnknown
	}
	if err == nil && content.Locks(locks).Has(content.NoRead) {
		return content.BlobRow{}, oci.ErrDisallowed
	}
	b.Bad, b.Used = bad != 0, Time(used)
	return b, err
}

// TouchBlob implements content.Metadata.
func (c *Content) TouchBlob(ctx context.Context, k content.Key, d oci.Digest) error {
	return c.db.UpdateRelaxed(ctx, func(tx *Tx) error {
		res, err := tx.Exec(ctx, `UPDATE repository_blobs SET used = $4
			WHERE repo = (SELECT id FROM repositories WHERE registry = $1 AND name = $2) AND digest = $3`,
			k.Registry, k.Repo.String(), d.String(), Micros(tx.Now()))
		return oneRow(res, err, oci.ErrBlobUnknown)
	})
}

// oneRow returns none when a statement has changed nothing.
func oneRow(res sql.Result, err, none error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return none
	}
	return err
}

// AddBlob implements content.Metadata.
func (c *Content) AddBlob(ctx context.Context, k content.Key, b content.BlobRow, upload string) (row content.BlobRow, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		if row, err = c.adopt(ctx, tx, b); err != nil {
			return err
		}
		if err = c.join(ctx, tx, k, b.Digest); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM uploads WHERE id = $1`, upload)
		return err
	})
	return row, err
}

// adopt returns the row of b's digest, which is b if there was none. Nothing is
// read that is not there: PostgreSQL would take that for a reason to let one
// of two pushes begin again.
func (c *Content) adopt(ctx context.Context, tx *Tx, b content.BlobRow) (content.BlobRow, error) {
	res, err := tx.Exec(ctx, `INSERT INTO blobs (digest, size, location, bad, created) VALUES ($1, $2, $3, 0, $4)
		ON CONFLICT (digest) DO NOTHING`, b.Digest.String(), b.Size, b.Location, Micros(tx.Now()))
	if err != nil {
		return content.BlobRow{}, err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return b, err
	}
	var bad int64
	there := content.BlobRow{Digest: b.Digest, Used: tx.Now()}
	err = tx.QueryRow(ctx, `SELECT size, location, bad FROM blobs WHERE digest = $1`, b.Digest.String()).
		Scan(&there.Size, &there.Location, &bad)
	there.Bad = bad != 0
	return there, err
}

// join makes d a blob of k, used now.
func (c *Content) join(ctx context.Context, tx *Tx, k content.Key, d oci.Digest) error {
	r, err := c.makeRepo(ctx, tx, k)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO repository_blobs (repo, digest, used) VALUES ($1, $2, $3)
		ON CONFLICT (repo, digest) DO UPDATE SET used = excluded.used`, r.id, d.String(), Micros(tx.Now()))
	return err
}

// ReplaceBlob implements content.Metadata.
func (c *Content) ReplaceBlob(ctx context.Context, old, b content.BlobRow) (replaced bool, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		res, err := tx.Exec(ctx, `UPDATE blobs SET size = $3, location = $4, bad = 0 WHERE digest = $1 AND location = $2`,
			old.Digest.String(), old.Location, b.Size, b.Location)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		replaced = n == 1
		return err
	})
	return replaced, err
}

// MountBlob implements content.Metadata.
func (c *Content) MountBlob(ctx context.Context, k, from content.Key, d oci.Digest) (b content.BlobRow, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		if b, err = c.blob(ctx, tx, from, d); err != nil {
			return err
		}
		if b.Bad {
			return oci.ErrBlobUnknown
		}
		return c.join(ctx, tx, k, d)
	})
	return b, err
}

// RemoveBlob implements content.Metadata.
func (c *Content) RemoveBlob(ctx context.Context, k content.Key, d oci.Digest) error {
	return c.db.Update(ctx, func(tx *Tx) error {
		r, err := c.findRepo(ctx, tx, k)
		if err != nil {
			return err
		}
		if r.locks.Has(guarded) {
			return oci.ErrDisallowed
		}
		if err := c.needed(ctx, tx, r, d); err != nil {
			return err
		}
		res, err := tx.Exec(ctx, `DELETE FROM repository_blobs WHERE repo = $1 AND digest = $2`, r.id, d.String())
		if err := oneRow(res, err, oci.ErrBlobUnknown); err != nil {
			return err
		}
		return tx.Record(ctx, Change{Kind: "blob", Key: digestKey(k, d), Op: "delete"})
	})
}

// needed fails where a manifest that may not be deleted names d: without it
// that manifest would be one that nobody can pull.
func (c *Content) needed(ctx context.Context, tx *Tx, r repo, d oci.Digest) error {
	var one int
	err := tx.QueryRow(ctx, `SELECT 1 FROM manifest_links l JOIN manifests p ON p.repo = l.repo AND p.digest = l.manifest
		WHERE l.repo = $1 AND l.child = $2 AND (p.locks & 3) <> 0 LIMIT 1`, r.id, d.String()).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err == nil:
		return oci.ErrDisallowed
	}
	return err
}

func repoKey(k content.Key) string                 { return k.Registry + "/" + k.Repo.String() }
func digestKey(k content.Key, d oci.Digest) string { return repoKey(k) + "@" + d.String() }
func tagKey(k content.Key, tag string) string      { return repoKey(k) + ":" + tag }

// AddUpload implements content.Metadata.
func (c *Content) AddUpload(ctx context.Context, u content.UploadRow) error {
	return c.db.UpdateRelaxed(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO uploads (id, registry, repo, alg, size, hash, boot, changed)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
			u.ID, u.Key.Registry, u.Key.Repo.String(), u.Alg, u.Offset, notNull(u.Hash), u.Boot, Micros(u.Changed))
		return err
	})
}

func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// Upload implements content.Metadata. That the repository is part of the
// question keeps an id that has leaked from being of use in another one.
func (c *Content) Upload(ctx context.Context, k content.Key, id string) (u content.UploadRow, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		u = content.UploadRow{Upload: content.Upload{ID: id, Key: k}}
		var changed int64
		err := tx.QueryRow(ctx, `SELECT alg, size, hash, boot, changed FROM uploads WHERE id = $1 AND registry = $2 AND repo = $3`,
			id, k.Registry, k.Repo.String()).Scan(&u.Alg, &u.Offset, &u.Hash, &u.Boot, &changed)
		u.Changed = Time(changed)
		if errors.Is(err, sql.ErrNoRows) {
			return oci.ErrBlobUploadUnknown
		}
		return err
	})
	if err != nil {
		return content.UploadRow{}, err
	}
	return u, nil
}

// SaveUpload implements content.Metadata.
func (c *Content) SaveUpload(ctx context.Context, offset int64, u content.UploadRow) (saved bool, err error) {
	err = c.db.UpdateRelaxed(ctx, func(tx *Tx) error {
		res, err := tx.Exec(ctx, `UPDATE uploads SET size = $3, hash = $4, changed = $5 WHERE id = $1 AND size = $2`,
			u.ID, offset, u.Offset, notNull(u.Hash), Micros(u.Changed))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		saved = n == 1
		return err
	})
	return saved, err
}

// RemoveUpload implements content.Metadata.
func (c *Content) RemoveUpload(ctx context.Context, id string) error {
	return c.db.UpdateRelaxed(ctx, func(tx *Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM uploads WHERE id = $1`, id)
		return err
	})
}

// PutManifest implements content.Metadata.
func (c *Content) PutManifest(ctx context.Context, k content.Key, m content.Manifest, links []oci.Link, touch time.Duration) error {
	return c.db.Update(ctx, func(tx *Tx) error {
		r, err := c.makeRepo(ctx, tx, k)
		if err != nil {
			return err
		}
		if r.locks.Has(content.NoWrite) {
			return oci.ErrDisallowed
		}
		if err := c.checkLinks(ctx, tx, r, links, touch); err != nil {
			return err
		}
		if err := c.addManifest(ctx, tx, k, r, m, links); err != nil {
			return err
		}
		return c.setTags(ctx, tx, k, r, m)
	})
}

// addManifest does nothing when m is there already.
func (c *Content) addManifest(ctx context.Context, tx *Tx, k content.Key, r repo, m content.Manifest, links []oci.Link) error {
	now := Micros(tx.Now())
	annotations := ""
	if !m.Subject.IsZero() && len(m.Annotations) > 0 {
		doc, err := json.Marshal(m.Annotations)
		if err != nil {
			return err
		}
		annotations = string(doc)
	}
	untagged := now
	if len(m.Tags) > 0 {
		untagged = 0
	}
	res, err := tx.Exec(ctx, `INSERT INTO manifests (repo, digest, media_type, artifact_type, size, subject, pushed, annotations, body, untagged)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (repo, digest) DO NOTHING`,
		r.id, m.Digest.String(), m.MediaType, m.ArtifactType, m.Size, m.Subject.String(), now, annotations, m.Body, untagged)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if !r.pushed {
		if _, err := tx.Exec(ctx, `UPDATE repositories SET pushed = $2 WHERE id = $1`, r.id, now); err != nil {
			return err
		}
	}
	for _, l := range links {
		_, err := tx.Exec(ctx, `INSERT INTO manifest_links (repo, manifest, child) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
			r.id, m.Digest.String(), l.Digest.String())
		if err != nil {
			return err
		}
	}
	return c.record(ctx, tx, "manifest", digestKey(k, m.Digest), "put", m)
}

// detail is what the outbox says of a manifest or a tag.
type detail struct {
	Digest       string `json:"digest"`
	MediaType    string `json:"mediaType,omitempty"`
	ArtifactType string `json:"artifactType,omitempty"`
	Size         int64  `json:"size,omitempty"`
	Subject      string `json:"subject,omitempty"`
}

func (c *Content) record(ctx context.Context, tx *Tx, kind, key, op string, m content.Manifest) error {
	doc, err := json.Marshal(detail{m.Digest.String(), m.MediaType, m.ArtifactType, m.Size, m.Subject.String()})
	if err != nil {
		return err
	}
	return tx.Record(ctx, Change{Kind: kind, Key: key, Op: op, Detail: doc})
}

// setTags records a tag also where it pointed at m before: that it was set
// now is what counts between regions. A tag that may not be written stays.
func (c *Content) setTags(ctx context.Context, tx *Tx, k content.Key, r repo, m content.Manifest) error {
	now := Micros(tx.Now())
	for _, t := range m.Tags {
		var was string
		err := tx.QueryRow(ctx, `INSERT INTO tags (repo, name, digest, created, changed) VALUES ($1, $2, $3, $4, $4)
			ON CONFLICT (repo, name) DO UPDATE SET was = tags.digest, digest = excluded.digest, changed = excluded.changed
			WHERE (tags.locks & 2) = 0 RETURNING was`, r.id, t.String(), m.Digest.String(), now).Scan(&was)
		if errors.Is(err, sql.ErrNoRows) {
			return oci.ErrDisallowed
		}
		if err == nil && was != "" && was != m.Digest.String() {
			err = c.untag(ctx, tx, r, was)
		}
		if err != nil {
			return err
		}
		if err := c.record(ctx, tx, "tag", tagKey(k, t.String()), "put", m); err != nil {
			return err
		}
	}
	return nil
}

// found is what the database says of a digest that a manifest names.
type found struct {
	size int64
	used time.Time
}

// checkLinks sees that r has what links name, and keeps it from the collector,
// whose own transaction cannot come between.
func (c *Content) checkLinks(ctx context.Context, tx *Tx, r repo, links []oci.Link, touch time.Duration) error {
	var blobs, manifests []string
	for _, l := range links {
		if l.Manifest {
			manifests = append(manifests, l.Digest.String())
		} else {
			blobs = append(blobs, l.Digest.String())
		}
	}
	hereBlobs, err := c.find(ctx, tx, `SELECT m.digest, b.size, m.used FROM repository_blobs m JOIN blobs b ON b.digest = m.digest
		WHERE m.repo = $1 AND b.bad = 0 AND m.digest IN `, r, blobs)
	if err != nil {
		return err
	}
	hereManifests, err := c.find(ctx, tx, `SELECT digest, size, pushed FROM manifests WHERE repo = $1 AND digest IN `, r, manifests)
	if err != nil {
		return err
	}
	if err := compare(links, hereBlobs, hereManifests); err != nil {
		return err
	}
	for d, f := range hereBlobs {
		if tx.Now().Sub(f.used) < touch {
			continue
		}
		if _, err := tx.Exec(ctx, `UPDATE repository_blobs SET used = $3 WHERE repo = $1 AND digest = $2`, r.id, d, Micros(tx.Now())); err != nil {
			return err
		}
	}
	return nil
}

func compare(links []oci.Link, blobs, manifests map[string]found) error {
	var missing []string
	for _, l := range links {
		here := blobs
		if l.Manifest {
			here = manifests
		}
		f, ok := here[l.Digest.String()]
		switch {
		case !ok && !l.Foreign:
			missing = append(missing, l.Digest.String())
		case ok && f.size != l.Size:
			return oci.ErrManifestInvalid.Detail("%s has %d bytes, not %d as the manifest says", l.Digest, f.size, l.Size)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	text := strings.Join(missing[:min(len(missing), 3)], ", ")
	if more := len(missing) - 3; more > 0 {
		text += " and " + strconv.Itoa(more) + " more"
	}
	return oci.ErrManifestBlobUnknown.Detail("the manifest names what this repository does not have: %s", text)
}

// lists are the lengths of IN lists. Few, so that the statements are few.
var lists = [...]int{1, 4, 16, 64}

// inList has the texts ($2, $3, …) for each of them.
var inList = func() (texts [len(lists)]string) {
	for i, n := range lists {
		var b strings.Builder
		for j := range n {
			b.WriteString(",$" + strconv.Itoa(j+2))
		}
		texts[i] = "(" + b.String()[1:] + ")"
	}
	return texts
}()

// find runs q, which ends in IN, for all digests. A list that is not full is
// filled with its last one.
func (c *Content) find(ctx context.Context, tx *Tx, q string, r repo, digests []string) (map[string]found, error) {
	all := make(map[string]found, len(digests))
	for len(digests) > 0 {
		i := 0
		for i+1 < len(lists) && lists[i] < len(digests) {
			i++
		}
		part := digests[:min(lists[i], len(digests))]
		digests = digests[len(part):]
		args := make([]any, 1, lists[i]+1)
		args[0] = r.id
		for j := range lists[i] {
			args = append(args, part[min(j, len(part)-1)])
		}
		rows, err := tx.Query(ctx, q+inList[i], args...)
		if err != nil {
			return nil, err
		}
		err = each(rows, func() error {
			var d string
			var size, used int64
			err := rows.Scan(&d, &size, &used)
			all[d] = found{size, Time(used)}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// each calls fn for each row and closes rows.
func each(rows *sql.Rows, fn func() error) error {
	defer rows.Close()
	for rows.Next() {
		if err := fn(); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Resolve implements content.Metadata.
func (c *Content) Resolve(ctx context.Context, k content.Key, ref oci.Reference) (d oci.Digest, err error) {
	q, name := `SELECT t.digest, r.locks | t.locks | COALESCE(m.locks, 0) FROM repositories r
		JOIN tags t ON t.repo = r.id AND t.name = $3
		LEFT JOIN manifests m ON m.repo = r.id AND m.digest = t.digest
		WHERE r.registry = $1 AND r.name = $2`, ref.Tag.String()
	if !ref.Digest.IsZero() {
		q, name = `SELECT m.digest, r.locks | m.locks FROM repositories r JOIN manifests m ON m.repo = r.id AND m.digest = $3
			WHERE r.registry = $1 AND r.name = $2`, ref.Digest.String()
	}
	err = c.db.View(ctx, func(tx *Tx) error {
		var text string
		var locks int64
		err := tx.QueryRow(ctx, q, k.Registry, k.Repo.String(), name).Scan(&text, &locks)
		if errors.Is(err, sql.ErrNoRows) {
			return oci.ErrManifestUnknown.Detail("%s has no manifest %s", k.Repo, ref)
		}
		if err == nil && content.Locks(locks).Has(content.NoRead) {
			err = oci.ErrDisallowed
		}
		if err != nil {
			return err
		}
		d, err = oci.ParseDigest(text)
		return err
	})
	return d, err
}

// Manifest implements content.Metadata.
func (c *Content) Manifest(ctx context.Context, k content.Key, d oci.Digest) (m content.Manifest, err error) {
	err = c.db.View(ctx, func(tx *Tx) error {
		m = content.Manifest{Descriptor: oci.Descriptor{Digest: d}}
		var subject string
		err := tx.QueryRow(ctx, `SELECT m.media_type, m.artifact_type, m.size, m.subject, m.body
			FROM repositories r JOIN manifests m ON m.repo = r.id AND m.digest = $3
			WHERE r.registry = $1 AND r.name = $2`,
			k.Registry, k.Repo.String(), d.String()).Scan(&m.MediaType, &m.ArtifactType, &m.Size, &subject, &m.Body)
		if errors.Is(err, sql.ErrNoRows) {
			return oci.ErrManifestUnknown.Detail("%s has no manifest %s", k.Repo, d)
		}
		if err != nil || subject == "" {
			return err
		}
		m.Subject, err = oci.ParseDigest(subject)
		return err
	})
	if err != nil {
		return content.Manifest{}, err
	}
	return m, nil
}

// DeleteManifest implements content.Metadata.
func (c *Content) DeleteManifest(ctx context.Context, k content.Key, d oci.Digest) (tags []oci.Tag, err error) {
	err = c.db.Update(ctx, func(tx *Tx) error {
		tags = nil
		r, err := c.findRepo(ctx, tx, k)
		if err != nil {
			return err
		}
		m := content.Manifest{Descriptor: oci.Descriptor{Digest: d}}
		var subject string
		var locks int64
		err = tx.QueryRow(ctx, `DELETE FROM manifests WHERE repo = $1 AND digest = $2 RETURNING media_type, artifact_type, size, subject, locks`,
			r.id, d.String()).Scan(&m.MediaType, &m.ArtifactType, &m.Size, &subject, &locks)
		if errors.Is(err, sql.ErrNoRows) {
			return oci.ErrManifestUnknown.Detail("%s has no manifest %s", k.Repo, d)
		}
		if err != nil {
			return err
		}
		if (r.locks | content.Locks(locks)).Has(guarded) {
			return oci.ErrDisallowed
		}
		if err := c.needed(ctx, tx, r, d); err != nil {
			return err
		}
		if m.Subject, err = digestOrNone(subject); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM manifest_links WHERE repo = $1 AND manifest = $2`, r.id, d.String()); err != nil {
			return err
		}
		if tags, err = c.dropTags(ctx, tx, r, d); err != nil {
			return err
		}
		for _, t := range tags {
			if err := c.record(ctx, tx, "tag", tagKey(k, t.String()), "delete", m); err != nil {
				return err
			}
		}
		return c.record(ctx, tx, "manifest", digestKey(k, d), "delete", m)
	})
	return tags, err
}

func digestOrNone(s string) (oci.Digest, error) {
	if s == "" {
		return oci.Digest{}, nil
	}
	return oci.ParseDigest(s)
}

func (c *Content) dropTags(ctx context.Context, tx *Tx, r repo, d oci.Digest) ([]oci.Tag, error) {
	names, err := c.dropAll(ctx, tx, `DELETE FROM tags WHERE repo = $1 AND digest = $2 RETURNING name, locks`, r.id, d.String())
	if err != nil {
		return nil, err
	}
	var tags []oci.Tag
	for _, name := range names {
		t, err := oci.ParseTag(name)
		if err != nil {
			return nil, err
		}
		tags = append(tags, t)
	}
	return tags, nil
}

// DeleteTag implements content.Metadata.
func (c *Content) DeleteTag(ctx context.Context, k content.Key, t oci.Tag) error {
	return c.db.Update(ctx, func(tx *Tx) error {
		r, err := c.findRepo(ctx, tx, k)
		if err != nil {
			return err
		}
		var text string
		var locks int64
		err = tx.QueryRow(ctx, `DELETE FROM tags WHERE repo = $1 AND name = $2 RETURNING digest, locks`, r.id, t.String()).Scan(&text, &locks)
		if errors.Is(err, sql.ErrNoRows) {
			return oci.ErrManifestUnknown.Detail("%s has no tag %s", k.Repo, t)
		}
		if err == nil && (r.locks | content.Locks(locks)).Has(guarded) {
			err = oci.ErrDisallowed
		}
		if err != nil {
			return err
		}
		if err := c.untag(ctx, tx, r, text); err != nil {
			return err
		}
		d, err := oci.ParseDigest(text)
		if err != nil {
			return err
		}
		return c.record(ctx, tx, "tag", tagKey(k, t.String()), "delete", content.Manifest{Descriptor: oci.Descriptor{Digest: d}})
	})
}
