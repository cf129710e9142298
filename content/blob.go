package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"cove.example/cove/oci"
)

// StatBlob implements Service.
func (s *Store) StatBlob(ctx context.Context, k Key, d oci.Digest) (oci.Descriptor, error) {
	row, err := s.present(ctx, k, d, func(row BlobRow) error {
		size, err := s.bytes.Stat(row.Location)
		return whole(row, size, err)
	})
	if err != nil {
		return oci.Descriptor{}, err
	}
	return oci.Descriptor{Digest: d, Size: row.Size}, nil
}

// OpenBlob implements Service.
func (s *Store) OpenBlob(ctx context.Context, k Key, d oci.Digest) (Blob, error) {
	var b Bytes
	row, err := s.present(ctx, k, d, func(row BlobRow) (err error) {
		if b, err = s.bytes.Open(row.Location); err != nil {
			return whole(row, 0, err)
		}
		if err = whole(row, b.Size, nil); err != nil {
			_ = b.File.Close() // only read
		}
		return err
	})
	if err != nil {
		return Blob{}, err
	}
	return Blob{Descriptor: oci.Descriptor{Digest: d, Size: row.Size}, File: b.File, Modified: b.Modified}, nil
}

// present finds d in k and looks at its bytes. A kept row whose bytes are gone
// may be of before a re-push healed them, so it is asked for once more.
func (s *Store) present(ctx context.Context, k Key, d oci.Digest, look func(BlobRow) error) (BlobRow, error) {
	p := place{k, d.String()}
	for {
		row, kept, err := s.held.get(p, func() (BlobRow, error) { return s.used(ctx, k, d) })
		if err != nil {
			return BlobRow{}, err
		}
		if row.Bad {
			err = oci.ErrBlobUnknown
		} else {
			err = look(row)
		}
		if !kept || !errors.Is(err, oci.ErrBlobUnknown) {
			return row, err
		}
		s.held.drop(p)
	}
}

// used reads the row and notes that it was relied on: a client that is told
// "exists" pushes no bytes and must find the blob still there when its
// manifest comes. A quarter of the grace is close enough. Where the note
// cannot be written, collection cannot delete either.
func (s *Store) used(ctx context.Context, k Key, d oci.Digest) (BlobRow, error) {
	row, err := s.rows.Blob(ctx, k, d)
	if err != nil || s.o.Now().Sub(row.Used) < s.o.Grace/4 {
		return row, err
	}
	if err := s.rows.TouchBlob(ctx, k, d); errors.Is(err, oci.ErrBlobUnknown) {
		return BlobRow{}, err
	}
	return row, nil
}

// whole turns what was found at a row's location into the answer. A file of
// another size was cut by a crash or a person, and its digest is a lie
// (go-containerregistry issue 2124 served such files).
func whole(row BlobRow, size int64, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && size != row.Size:
		return oci.ErrBlobUnknown
	case err != nil:
		return fmt.Errorf("blob %s: %w", row.Digest, err)
	}
	return nil
}

// DeleteBlob implements Service. The bytes stay for the other repositories,
// and for Collect.
func (s *Store) DeleteBlob(ctx context.Context, k Key, d oci.Digest) error {
	defer s.held.drop(place{k, d.String()}) // also after an error: it may have been committed
	return s.rows.RemoveBlob(ctx, k, d)
}

// Mount implements Service.
func (s *Store) Mount(ctx context.Context, k Key, from oci.Repo, d oci.Digest) (oci.Descriptor, error) {
	return s.Share(ctx, k, Key{k.Registry, from}, d)
}

// Share is Mount from a repository of any registry. It is not part of Service:
// no client's request may cross from one registry into another.
func (s *Store) Share(ctx context.Context, k, from Key, d oci.Digest) (oci.Descriptor, error) {
	there, err := s.StatBlob(ctx, from, d)
	if err != nil {
		return oci.Descriptor{}, err
	}
	defer s.held.drop(place{k, d.String()})
	if _, err := s.rows.MountBlob(ctx, k, from, d); err != nil {
		return oci.Descriptor{}, err
	}
	return there, nil
}
