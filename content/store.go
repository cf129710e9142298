package content

import (
	"context"
	"io"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

// Store is the content of all registries: rows in Metadata, bytes in Blobs.
// It implements Service.
//
// What the two hold is made to agree by order alone; no lock spans them. Bytes
// are durable before a row names them, and a row is gone before its bytes are.
// Whatever a crash leaves is bytes without a row, which Collect removes.
type Store struct {
	rows   Metadata
	bytes  Blobs
	o      Options
	claims claims
	bodies *bodies
	refs   *recent[oci.Digest] // tags, and digests that stand for themselves
	held   *recent[BlobRow]
}

// DefaultRecent bounds how long a deletion by another node, or a push to it of
// what somebody here has just asked for, may go unseen.
const DefaultRecent = time.Second

// Options are what New may be told; the zero value is the default.
type Options struct {
	Now func() time.Time // nil is time.Now

	// Grace is how long a blob that no manifest names is kept for the
	// manifest that may still come. 0 is 24 hours.
	Grace time.Duration
	// CacheBytes bounds the manifest bodies kept in memory. 0 is 16 MiB.
	CacheBytes int64
	// Recent is how long an answer of the database may be given again, and
	// so how long a change made by another node may go unseen. A change made
	// through this Store is seen at once. 0 is DefaultRecent.
	Recent time.Duration
}

// New returns a Store over rows and bytes.
func New(rows Metadata, bytes Blobs, o Options) *Store {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Grace == 0 {
		o.Grace = 24 * time.Hour
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.Recent == 0 {
		o.Recent = DefaultRecent
	}
	s := &Store{
		rows: rows, bytes: bytes, o: o,
		claims: claims{held: map[string]struct{}{}},
		bodies: newBodies(o.CacheBytes),
		refs:   newRecent[oci.Digest](o.Now, o.Recent),
		held:   newRecent[BlobRow](o.Now, o.Recent),
	}
	// A cluster that waits for a tag asks for it again and again.
	s.refs.absent = oci.ErrManifestUnknown
	return s
}

var _ Service = (*Store)(nil)

// The failures of the place where bytes are kept, in words for the operator.
var (
	ErrDiskFull = fault.New(fault.Unavailable, "the disk is full")
	ErrReadOnly = fault.New(fault.Unavailable, "the blob folder cannot be written")
	// ErrStopped follows a failed flush. The kernel may have dropped the
	// pages and would report the next flush as good, so there is none: writes
	// are refused until the process starts anew.
	ErrStopped = fault.New(fault.Unavailable, "the disk failed to flush data; nothing more is written until cove is restarted")
	// ErrShort is a file that holds less than was written to it.
	ErrShort = fault.New(fault.Internal, "internal error")
)

// BlobRow is the row of a blob, one for all repositories that have it.
type BlobRow struct {
	Digest   oci.Digest
	Size     int64
	Location string    // where Blobs has the bytes
	Bad      bool      // the scrubber found other bytes than the digest names
	Used     time.Time // when a client of the repository last relied on it
}

// UploadRow is the row of an upload session.
type UploadRow struct {
	Upload
	Alg     string // of Hash
	Hash    []byte // the running hash over Offset bytes, marshalled; empty at the beginning
	Boot    string // Blobs.Boot when the session began
	Changed time.Time
}

// Member is a blob's row in one repository.
type Member struct {
	Repo   int64 // the repository's own id
	Digest oci.Digest
	Used   time.Time
	Linked bool // a manifest of the repository names it
}

// Metadata holds the rows. Each method is one transaction. Those that change
// what a client was told of are durable when they return nil; those on uploads
// and on times of use survive the process, not a power cut.
type Metadata interface {
	// Blob returns the row of a blob that k has: ErrBlobUnknown.
	Blob(ctx context.Context, k Key, d oci.Digest) (BlobRow, error)
	// TouchBlob sets its time of use: ErrBlobUnknown.
	TouchBlob(ctx context.Context, k Key, d oci.Digest) error
	// AddBlob puts b in k and ends the upload. The row that it returns is b
	// or the one that was there before.
	AddBlob(ctx context.Context, k Key, b BlobRow, upload string) (BlobRow, error)
	// ReplaceBlob puts b in the place of old and reports false when old is
	// not the row any more.
	ReplaceBlob(ctx context.Context, old, b BlobRow) (bool, error)
	// MountBlob puts a blob that from has in k: ErrBlobUnknown.
	MountBlob(ctx context.Context, k, from Key, d oci.Digest) (BlobRow, error)
	// RemoveBlob takes d from k: ErrBlobUnknown.
	RemoveBlob(ctx context.Context, k Key, d oci.Digest) error

	AddUpload(ctx context.Context, u UploadRow) error
	// Upload returns a session of k: ErrBlobUploadUnknown.
	Upload(ctx context.Context, k Key, id string) (UploadRow, error)
	// SaveUpload moves a session on that stands at offset; false: it does
	// not stand there.
	SaveUpload(ctx context.Context, offset int64, u UploadRow) (bool, error)
	RemoveUpload(ctx context.Context, id string) error

	// PutManifest checks that k has what links name, in the transaction that
	// writes: ErrManifestBlobUnknown. Used blobs older than touch are touched.
	PutManifest(ctx context.Context, k Key, m Manifest, links []oci.Link, touch time.Duration) error
	// Resolve returns the digest of a manifest that k has: ErrManifestUnknown.
	Resolve(ctx context.Context, k Key, ref oci.Reference) (oci.Digest, error)
	// Manifest returns it, without tags and annotations.
	Manifest(ctx context.Context, k Key, d oci.Digest) (Manifest, error)
	// DeleteManifest returns the tags that went with it: ErrManifestUnknown.
	DeleteManifest(ctx context.Context, k Key, d oci.Digest) ([]oci.Tag, error)
	DeleteTag(ctx context.Context, k Key, t oci.Tag) error

	Tags(ctx context.Context, k Key, p Page) ([]string, bool, error)
	Repositories(ctx context.Context, registry string, p Page) ([]string, bool, error)
	Referrers(ctx context.Context, k Key, d oci.Digest, artifactType string, p Page) ([]oci.Descriptor, bool, error)

	// Inventory's methods; those of manifests return the body too
	// (ManifestInfo.WithBody) and leave what is read from it to the caller.
	Inventory

	// RemoveUntagged removes up to n manifests as Purge says, the one without
	// a tag longest first, and returns them.
	RemoveUntagged(ctx context.Context, registry string, since, before time.Time, n int) ([]Untagged, error)

	// Size is how many bytes a registry's blobs and manifests have, each
	// counted once.
	Size(ctx context.Context, registry string) (int64, error)

	// Members returns up to n rows behind after, in order.
	Members(ctx context.Context, after Member, n int) ([]Member, error)
	// RemoveMembers removes those that are still neither linked nor used
	// since before, and says how many.
	RemoveMembers(ctx context.Context, list []Member, before time.Time) (int, error)
	// Blobs returns up to n rows behind after, in order.
	Blobs(ctx context.Context, after oci.Digest, n int) ([]BlobRow, error)
	// Unowned returns up to n rows behind after that are older than before
	// and that every repository would lose to RemoveMembers; scanned is the
	// last row looked at, zero at the end.
	Unowned(ctx context.Context, after oci.Digest, before time.Time, n int) (list []BlobRow, scanned oci.Digest, err error)
	// RemoveUnowned removes those that no repository has, and returns them.
	RemoveUnowned(ctx context.Context, list []BlobRow) ([]BlobRow, error)
	// Located reports whether d's row says that its bytes are at location.
	Located(ctx context.Context, d oci.Digest, location string) (bool, error)
	// MarkBlob says whether the bytes at b.Location are bad.
	MarkBlob(ctx context.Context, b BlobRow, bad bool) error
	// IdleUploads returns up to n sessions that nothing happened to since
	// before; IsUpload reports whether there is one.
	IdleUploads(ctx context.Context, before time.Time, n int) ([]string, error)
	IsUpload(ctx context.Context, id string) (bool, error)
	// DropSome removes up to n rows of a registry; false: none were left.
	DropSome(ctx context.Context, registry string, n int) (bool, error)
}

// Blobs holds the bytes. Its failures are those above, fs.ErrNotExist, and
// whatever else the system says.
type Blobs interface {
	// Upload opens an upload's bytes, cut to size, to write behind them.
	// ErrShort: there are fewer.
	Upload(id string, size int64) (io.WriteCloser, error)
	// OpenUpload opens them to read.
	OpenUpload(id string) (io.ReadCloser, error)
	// Commit makes an upload's bytes durable at a new place of their own.
	Commit(id string, d oci.Digest) (location string, err error)
	RemoveUpload(id string) error

	Stat(location string) (size int64, err error)
	Open(location string) (Bytes, error)
	Remove(location string) error

	// EachUpload and EachBlob call fn with everything that has not changed
	// since before, until fn fails.
	EachUpload(before time.Time, fn func(id string) error) error
	EachBlob(before time.Time, fn func(location string, d oci.Digest, size int64) error) error

	// Boot names the time since which unflushed bytes have been safe in
	// memory. With another Boot, those of an upload may be gone.
	Boot() string
}

// Bytes is an open file of Blobs, which the receiver closes.
type Bytes struct {
	File     File
	Size     int64
	Modified time.Time
}

// File is the bytes of a blob: an *os.File where they are on a disk, so that a
// server can sendfile it.
type File interface {
	io.ReadSeekCloser
	io.ReaderAt
}
