package content

import (
	"context"
	"encoding/json"
	"io"
	"time"

	"cove.example/cove/oci"
)

// Locks are what may not be done with a repository, a manifest or a tag. The
// zero value forbids nothing. Each of the three has its own: a locked tag says
// nothing of its manifest.
type Locks uint8

// The locks. NoWrite forbids deletion too. NoList hides from lists, not from
// who knows the name.
const (
	NoDelete Locks = 1 << iota
	NoWrite
	NoList
	NoRead
)

// Has reports whether one of the locks of other is set.
func (l Locks) Has(other Locks) bool { return l&other != 0 }

// RepositoryInfo is what is known of a repository.
type RepositoryInfo struct {
	Created, Changed time.Time
	Manifests, Tags  int64
	Locks            Locks
}

// TagInfo is what is known of a tag.
type TagInfo struct {
	Name             string
	Digest           oci.Digest
	Created, Changed time.Time
	Locks            Locks
}

// ManifestInfo is what is known of a manifest.
type ManifestInfo struct {
	oci.Descriptor
	Pushed time.Time
	Tags   []string
	Locks  Locks

	ConfigMediaType  string
	ImageSize        int64 // of everything that it names, for an index its own
	Architecture, OS string
	References       []Platform // of an index
	body             []byte
}

// Platform is a manifest that an index names.
type Platform struct {
	Digest           oci.Digest
	Architecture, OS string
}

// Order is that of a list.
type Order uint8

// The orders.
const (
	ByName Order = iota
	OldestFirst
	NewestFirst
)

// Listing asks for a part of a list in an order.
type Listing struct {
	Page
	Order Order
	At    time.Time  // of the entry Last, for the orders by time
	On    oci.Digest // tags: only those on this manifest
}

// Inventory is content as an administrator looks at it. What is NoList is not
// in its lists; asked for by name it is.
type Inventory interface {
	// Repository fails with ErrNameUnknown, as all do for a repository that
	// does not exist.
	Repository(ctx context.Context, k Key) (RepositoryInfo, error)
	TagInfos(ctx context.Context, k Key, l Listing) ([]TagInfo, bool, error)
	TagInfo(ctx context.Context, k Key, t oci.Tag) (TagInfo, error)
	// ManifestInfos ends a page early when its manifests are large.
	ManifestInfos(ctx context.Context, k Key, l Listing) ([]ManifestInfo, bool, error)
	ManifestInfo(ctx context.Context, k Key, d oci.Digest) (ManifestInfo, error)

	// The locks of one of the three become those that they were, without
	// clear, with set.
	LockRepository(ctx context.Context, k Key, set, clear Locks) error
	LockTag(ctx context.Context, k Key, t oci.Tag, set, clear Locks) error
	LockManifest(ctx context.Context, k Key, d oci.Digest, set, clear Locks) error

	// DeleteRepository removes a repository and says what was in it. It fails
	// with ErrDisallowed, and removes nothing, where anything in it is locked.
	DeleteRepository(ctx context.Context, k Key) (manifests, tags []string, err error)
}

var _ Inventory = (*Store)(nil)

// Repository implements Inventory.
func (s *Store) Repository(ctx context.Context, k Key) (RepositoryInfo, error) {
	return s.rows.Repository(ctx, k)
}

// TagInfos implements Inventory.
func (s *Store) TagInfos(ctx context.Context, k Key, l Listing) ([]TagInfo, bool, error) {
	return s.rows.TagInfos(ctx, k, l)
}

// TagInfo implements Inventory.
func (s *Store) TagInfo(ctx context.Context, k Key, t oci.Tag) (TagInfo, error) {
	return s.rows.TagInfo(ctx, k, t)
}

// ManifestInfos implements Inventory.
func (s *Store) ManifestInfos(ctx context.Context, k Key, l Listing) ([]ManifestInfo, bool, error) {
	list, more, err := s.rows.ManifestInfos(ctx, k, l)
	if err != nil {
		return nil, false, err
	}
	for i := range list {
		s.describe(ctx, k, &list[i])
	}
	return list, more, nil
}

// ManifestInfo implements Inventory.
func (s *Store) ManifestInfo(ctx context.Context, k Key, d oci.Digest) (ManifestInfo, error) {
	m, err := s.rows.ManifestInfo(ctx, k, d)
	if err == nil {
		s.describe(ctx, k, &m)
	}
	return m, err
}

// WithBody returns m with the manifest's body, for describe to read. The rows
// call it.
func (m ManifestInfo) WithBody(body []byte) ManifestInfo {
	m.body = body
	return m
}

// maxConfig bounds how much of an image's config is read for its platform.
const maxConfig = 1 << 20

// describe reads from the manifest, and from its config where that is in the
// repository, what lists show. What cannot be read stays unsaid: a list is no
// place to fail about one entry of it.
func (s *Store) describe(ctx context.Context, k Key, m *ManifestInfo) {
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
		Platform  struct {
			Architecture string `json:"architecture"`
			OS           string `json:"os"`
		} `json:"platform"`
	}
	var doc struct {
		Config    descriptor   `json:"config"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
	}
	body := m.body
	m.body, m.ImageSize = nil, m.Size
	if json.Unmarshal(body, &doc) != nil {
		return
	}
	for _, d := range doc.Manifests {
		if digest, err := oci.ParseDigest(d.Digest); err == nil {
			m.References = append(m.References, Platform{digest, d.Platform.Architecture, d.Platform.OS})
		}
	}
	config, err := oci.ParseDigest(doc.Config.Digest)
	if err != nil {
		return
	}
	m.ConfigMediaType, m.ImageSize = doc.Config.MediaType, doc.Config.Size
	for _, d := range doc.Layers {
		m.ImageSize += d.Size
	}
	b, err := s.OpenBlob(ctx, k, config)
	if err != nil {
		return
	}
	defer b.File.Close()
	var platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	if json.NewDecoder(io.LimitReader(b.File, maxConfig)).Decode(&platform) == nil {
		m.Architecture, m.OS = platform.Architecture, platform.OS
	}
}

// LockRepository implements Inventory.
func (s *Store) LockRepository(ctx context.Context, k Key, set, clear Locks) error {
	defer s.forgetAll()
	return s.rows.LockRepository(ctx, k, set, clear)
}

// LockTag implements Inventory.
func (s *Store) LockTag(ctx context.Context, k Key, t oci.Tag, set, clear Locks) error {
	defer s.forgetAll()
	return s.rows.LockTag(ctx, k, t, set, clear)
}

// LockManifest implements Inventory.
func (s *Store) LockManifest(ctx context.Context, k Key, d oci.Digest, set, clear Locks) error {
	defer s.forgetAll()
	return s.rows.LockManifest(ctx, k, d, set, clear)
}

// DeleteRepository implements Inventory.
func (s *Store) DeleteRepository(ctx context.Context, k Key) (manifests, tags []string, err error) {
	defer s.forgetAll()
	return s.rows.DeleteRepository(ctx, k)
}

// forgetAll drops every remembered answer: a change to a repository concerns
// more of them than can be named, and all are a second old at most.
func (s *Store) forgetAll() {
	s.refs.clear()
	s.held.clear()
}
