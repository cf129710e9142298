// Package content is what registries hold: blobs, manifests, tags, referrers
// and the uploads that become blobs.
//
// A row says what is there; a file is only bytes. A blob may be read in a
// repository when a row says that this repository has it, and for no other
// reason, however many registries share its file.
package content

import (
	"context"
	"io"
	"os"
	"time"

	"cove.example/cove/oci"
)

// Key names a repository of a registry.
type Key struct {
	Registry string // registry.Settings.UID
	Repo     oci.Repo
}

// Page asks for a part of a list in lexical order.
type Page struct {
	Last string // exclusive; "" is the beginning
	N    int    // at most; the edge has clamped it
}

// Manifest is a stored manifest.
type Manifest struct {
	oci.Descriptor
	Body    []byte
	Subject oci.Digest // zero when it has none
	Tags    []oci.Tag  // the tags a PUT has set
}

// Upload is where an upload session stands.
type Upload struct {
	ID     string
	Key    Key
	Offset int64 // bytes that are there; the next chunk begins here
}

// Blob is an open blob. File is the plain file, so that a server can sendfile
// it; the caller closes it.
type Blob struct {
	oci.Descriptor
	File interface {
		io.ReadSeekCloser
		io.ReaderAt
	}
	Modified time.Time
}

var _ = (*os.File)(nil) // File is an *os.File when the adapter is the disk

// Service is content as the edges use it. Store implements it.
//
// Every method fails with the oci sentinel that fits: what a repository does
// not have is unknown in it, whoever else has it.
//
// What a lock forbids fails with ErrDisallowed.
type Service interface {
	Inventory

	// StatBlob and OpenBlob fail with ErrBlobUnknown also when the file's
	// size is not its row's.
	StatBlob(ctx context.Context, k Key, d oci.Digest) (oci.Descriptor, error)
	OpenBlob(ctx context.Context, k Key, d oci.Digest) (Blob, error)
	DeleteBlob(ctx context.Context, k Key, d oci.Digest) error
	// Mount makes d of the repository from part of k too. The caller has
	// checked that from may be read. ErrBlobUnknown: start an upload.
	Mount(ctx context.Context, k Key, from oci.Repo, d oci.Digest) (oci.Descriptor, error)

	// StartUpload opens a session; alg is the digest algorithm expected, ""
	// for sha256.
	StartUpload(ctx context.Context, k Key, alg string) (Upload, error)
	// UploadStatus fails with ErrBlobUploadUnknown for an id of another
	// repository as for no id at all.
	UploadStatus(ctx context.Context, k Key, id string) (Upload, error)
	// Append adds r at offset at, or where the upload stands when at is -1.
	// ErrRangeInvalid: at is not where it stands; nothing was read.
	// What arrived before an error of r stays and can be resumed.
	Append(ctx context.Context, k Key, id string, at int64, r io.Reader) (Upload, error)
	// Finish appends r as Append does, and makes the blob durable and
	// visible in k. ErrDigestInvalid names expected and actual digest and
	// leaves nothing.
	Finish(ctx context.Context, k Key, id string, at int64, r io.Reader, want oci.Digest) (oci.Descriptor, error)
	CancelUpload(ctx context.Context, k Key, id string) error

	// PutManifest stores body under its digest in k and points the tags at
	// it, in one transaction, durably. want is zero when ref is a tag. The
	// blobs and manifests that it names must be in k already (a subject and
	// foreign layers need not be): ErrManifestBlobUnknown.
	PutManifest(ctx context.Context, k Key, mediaType string, body []byte, want oci.Digest, tags []oci.Tag) (Manifest, error)
	// Manifest answers GET and HEAD; Body is shared and not to be modified.
	Manifest(ctx context.Context, k Key, ref oci.Reference) (Manifest, error)
	// DeleteManifest removes the manifest and every tag on it; DeleteTag
	// only the tag.
	DeleteManifest(ctx context.Context, k Key, d oci.Digest) error
	DeleteTag(ctx context.Context, k Key, t oci.Tag) error

	// Tags fails with ErrNameUnknown for a repository that does not exist.
	// more says that another page follows.
	Tags(ctx context.Context, k Key, p Page) (tags []string, more bool, err error)
	Repositories(ctx context.Context, registry string, p Page) (repos []string, more bool, err error)
	// Referrers lists manifests of k whose subject is d, also when d is not
	// there; artifactType filters unless "". Page.Last is a digest. A page
	// ends early, with more set, when its annotations are large.
	Referrers(ctx context.Context, k Key, d oci.Digest, artifactType string, p Page) (list []oci.Descriptor, more bool, err error)
}
