package content

import (
	"context"
	"time"

	"cove.example/cove/oci"
)

// Untagged is a manifest that was removed because it had no tag for long.
type Untagged struct {
	oci.Descriptor
	Repo  oci.Repo
	Since time.Time // it had no tag
}

// Purge removes the Docker manifests of a registry that have had no tag since
// before, and lost it, or came without one, not earlier than since. It calls
// gone with each after it is durably gone.
//
// What is locked against deletion or writing stays, in a repository that is
// locked so too; so does what another manifest of its repository names, as an
// index does its images and a signature its subject. OCI manifests are not
// touched (source: the documentation of Azure Container Registry).
//
// It may run at any time, twice at once, and be interrupted: each batch is a
// transaction that looks for what it removes.
func (s *Store) Purge(ctx context.Context, registry string, since, before time.Time, gone func(Untagged)) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		list, err := s.rows.RemoveUntagged(ctx, registry, since, before, batch)
		if err != nil {
			s.refs.clear() // it may have been committed
			return err
		}
		for _, u := range list {
			s.refs.drop(place{Key{registry, u.Repo}, u.Digest.String()})
			gone(u)
		}
		// What an index named is free with the index, so the last batch is an
		// empty one.
		if len(list) == 0 {
			return nil
		}
	}
}
