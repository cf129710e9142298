package content

import (
	"context"
	"errors"
	"time"

	"cove.example/cove/oci"
)

// batch is how many rows one transaction of the collector looks at. Nothing
// else waits longer than for one of them.
const batch = 500

// CollectOptions are what Collect may be told; the zero value is the default.
type CollectOptions struct {
	Grace     time.Duration // for blobs that no manifest names; 0 is that of the Store
	UploadAge time.Duration // of uploads that nothing happens to; 0 is 7 days
	OrphanAge time.Duration // of files without a row; 0 is a day
	DryRun    bool          // count, and change nothing
}

// Report is what a collection has removed, or would remove.
type Report struct {
	Memberships int   // blobs that a repository lost
	Blobs       int   // blobs that no repository had any more
	Bytes       int64 // of those
	Uploads     int   // sessions
	Files       int   // files that no row named
}

// Collect removes what nothing needs. It may run at any time, beside pushes
// and beside another Collect, and be interrupted: each batch is a transaction
// that asks again whether what it removes is still unneeded, and what a run
// leaves the next one finds.
//
// Manifests are never collected, tagged or not: Purge does that, for registries
// whose policy it is.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (Report, error) {
	if o.Grace == 0 {
		o.Grace = s.o.Grace
	}
	if o.UploadAge == 0 {
		o.UploadAge = 7 * 24 * time.Hour
	}
	if o.OrphanAge == 0 {
		o.OrphanAge = 24 * time.Hour
	}
	c := collection{s: s, o: o, now: s.o.Now()}
	for _, step := range []func(context.Context) error{c.members, c.blobs, c.uploads, c.files} {
		if err := step(ctx); err != nil {
			return c.report, err
		}
	}
	return c.report, nil
}

type collection struct {
	s      *Store
	o      CollectOptions
	now    time.Time
	report Report
}

// members takes blobs from repositories whose manifests do not name them.
func (c *collection) members(ctx context.Context) error {
	before := c.now.Add(-c.o.Grace)
	for after := (Member{}); ; {
		page, err := c.s.rows.Members(ctx, after, batch)
		if err != nil || len(page) == 0 {
			return err
		}
		after = page[len(page)-1]
		var old []Member
		for _, m := range page {
			if !m.Linked && m.Used.Before(before) {
				old = append(old, m)
			}
		}
		if c.o.DryRun || len(old) == 0 {
			c.report.Memberships += len(old)
			continue
		}
		n, err := c.s.rows.RemoveMembers(ctx, old, before)
		c.s.held.clear()
		if err != nil {
			return err
		}
		c.report.Memberships += n
	}
}

// blobs removes the rows of blobs that no repository has, then their bytes.
// The bytes are at the place that the removed row named; a push of the same
// content meanwhile has made another row and another place.
func (c *collection) blobs(ctx context.Context) error {
	before := c.now.Add(-c.o.Grace)
	for after := (oci.Digest{}); ; {
		page, scanned, err := c.s.rows.Unowned(ctx, after, before, batch)
		if err != nil {
			return err
		}
		if !c.o.DryRun && len(page) > 0 {
			if page, err = c.s.rows.RemoveUnowned(ctx, page); err != nil {
				return err
			}
		}
		for _, b := range page {
			if !c.o.DryRun {
				if err := c.s.bytes.Remove(b.Location); err != nil {
					return err
				}
			}
			c.report.Blobs++
			c.report.Bytes += b.Size
		}
		if after = scanned; after.IsZero() {
			return nil
		}
	}
}

// uploads ends the sessions that clients have abandoned.
func (c *collection) uploads(ctx context.Context) error {
	before := c.now.Add(-c.o.UploadAge)
	for {
		idle, err := c.s.rows.IdleUploads(ctx, before, batch)
		if err != nil {
			return err
		}
		removed := 0
		for _, id := range idle {
			done, err := c.upload(ctx, id)
			if err != nil {
				return err
			}
			if done {
				removed++
			}
		}
		c.report.Uploads += removed
		if removed == 0 || len(idle) < batch || c.o.DryRun {
			return nil
		}
	}
}

func (c *collection) upload(ctx context.Context, id string) (bool, error) {
	if c.o.DryRun {
		return true, nil
	}
	release, err := c.s.claims.take(id)
	if err != nil {
		return false, nil // it is not abandoned after all
	}
	defer release()
	if err := c.s.rows.RemoveUpload(ctx, id); err != nil {
		return false, err
	}
	return true, c.s.bytes.RemoveUpload(id)
}

// files removes bytes that no row names: what crashes have left. A file that
// is younger than OrphanAge may be waiting for its row.
func (c *collection) files(ctx context.Context) error {
	before := c.now.Add(-c.o.OrphanAge)
	err := c.s.bytes.EachBlob(before, func(location string, d oci.Digest, _ int64) error {
		named, err := c.s.rows.Located(ctx, d, location)
		if err != nil || named {
			return err
		}
		return c.orphan(func() error { return c.s.bytes.Remove(location) })
	})
	if err != nil {
		return err
	}
	return c.s.bytes.EachUpload(before, func(id string) error {
		named, err := c.s.rows.IsUpload(ctx, id)
		if err != nil || named {
			return err
		}
		return c.orphan(func() error { return c.s.bytes.RemoveUpload(id) })
	})
}

func (c *collection) orphan(remove func() error) error {
	c.report.Files++
	if c.o.DryRun {
		return nil
	}
	return remove()
}

// ScrubOptions are what Scrub may be told; the zero value is the default.
type ScrubOptions struct {
	BytesPerSecond int64      // 0 is 32 MiB
	After          oci.Digest // begin behind this blob: where an earlier run was stopped
	// Progress is called after each blob. Its error ends the run.
	Progress func(ScrubReport) error
}

// ScrubReport is what a run of Scrub has seen.
type ScrubReport struct {
	Blobs   int
	Bytes   int64
	Missing int        // rows without a file, or with one of another size
	Bad     int        // files with other bytes than their digest names
	Healed  int        // marked bad before, and good now
	Last    oci.Digest // the last one looked at
}

// Scrub reads every blob in turn and compares it with its digest. A blob with
// other bytes is marked: from then on it is unknown in every repository, so
// that clients push it again, and that heals it. It is not removed: the disk
// may only have lied this once, and the next run takes the mark off.
func (s *Store) Scrub(ctx context.Context, o ScrubOptions) (ScrubReport, error) {
	if o.BytesPerSecond == 0 {
		o.BytesPerSecond = 32 << 20
	}
	r := ScrubReport{Last: o.After}
	pace := newPace(o.BytesPerSecond)
	for {
		page, err := s.rows.Blobs(ctx, r.Last, batch)
		if err != nil || len(page) == 0 {
			return r, err
		}
		for _, row := range page {
			if err := s.scrub(ctx, row, pace, &r); err != nil {
				return r, err
			}
			r.Last = row.Digest
			if o.Progress == nil {
				continue
			}
			if err := o.Progress(r); err != nil {
				return r, err
			}
		}
	}
}

func (s *Store) scrub(ctx context.Context, row BlobRow, pace *pace, r *ScrubReport) error {
	r.Blobs++
	b, err := s.bytes.Open(row.Location)
	if err == nil {
		defer b.File.Close()
	}
	if err = whole(row, b.Size, err); errors.Is(err, oci.ErrBlobUnknown) {
		// Readers see this for themselves; there is nothing to mark. Removed
		// while we looked is not missing.
		if still, err := s.rows.Located(ctx, row.Digest, row.Location); err != nil || !still {
			return err
		}
		r.Missing++
		return nil
	}
	if err != nil {
		return err // a disk that cannot be read is not a bad blob
	}
	h, _ := oci.NewHash(row.Digest.Algorithm())
	if err := copyTo(ctx, h, pace.reader(ctx, b.File)); err != nil {
		return err
	}
	r.Bytes += row.Size
	bad := oci.FromHash(row.Digest.Algorithm(), h) != row.Digest
	if bad {
		r.Bad++
	} else if row.Bad {
		r.Healed++
	}
	if bad == row.Bad {
		return nil
	}
	err = s.rows.MarkBlob(ctx, row, bad)
	s.held.clear()
	return err
}

// DropRegistry removes everything of a registry that is gone, by bounded
// transactions; called again after an interruption it goes on. Bytes that no
// other registry has are then Collect's.
func (s *Store) DropRegistry(ctx context.Context, uid string) error {
	defer s.refs.clear()
	defer s.held.clear()
	for {
		more, err := s.rows.DropSome(ctx, uid, batch)
		if err != nil || !more {
			return err
		}
	}
}
