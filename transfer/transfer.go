// Package transfer copies an image, with all that it names, from one
// repository into others.
//
// A copy may be broken off anywhere and begun again: what is there already is
// not copied twice, and nothing gets a name before it is whole.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

// MaxManifests is how many manifests an image may name, itself not counted
// (source: the documentation of Azure Container Registry).
const MaxManifests = 50

// maxBodies bounds the manifests of one image together, in bytes: they are
// held in memory.
const maxBodies = 32 << 20

// width is how many blobs are copied at once.
const width = 3

// The failures of a copy, besides those of its ends.
var (
	ErrTooMany  = fault.Coded(fault.Invalid, "ManifestLimitExceeded", fmt.Sprintf("the image names more than %d manifests", MaxManifests))
	ErrNotThere = fault.Coded(fault.Invalid, "SourceNotFound", "the source registry does not have the image")
	ErrForeign  = fault.Coded(fault.Invalid, "ForeignLayer", "the source does not hold a layer of the image itself")
)

// Remote is a repository of another registry. It fails with ErrNotThere for
// what it does not have.
type Remote interface {
	// Manifest returns a manifest; asked for by digest, it is what the digest
	// says.
	Manifest(ctx context.Context, ref oci.Reference) (content.Manifest, error)
	// Blob opens a blob; what it gives may be anything.
	Blob(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error)
}

// Source is the repository that an image is copied from: Near or Far.
type Source interface {
	Manifest(ctx context.Context, ref oci.Reference) (content.Manifest, error)
	// give makes a blob one of k and calls got with the bytes that are there.
	give(ctx context.Context, k content.Key, l oci.Link, got func(int64)) error
}

// Target is the content that an image is copied into.
type Target interface {
	content.Service
	// Share makes a blob of one repository a blob of another.
	Share(ctx context.Context, k, from content.Key, d oci.Digest) (oci.Descriptor, error)
}

// Image is an image that is to be copied: what of it is where.
type Image struct {
	Top       content.Manifest
	below     []content.Manifest // those that it names, each behind what it names itself
	blobs     []oci.Link
	Bytes     int64 // of all blobs
	Manifests int   // that it names
}

// Plan reads the manifests of an image. It fails where the image is more than
// a copy may be, or where a manifest is not what the one above says of it.
func Plan(ctx context.Context, from Source, ref oci.Reference) (*Image, error) {
	top, err := from.Manifest(ctx, ref)
	if err != nil {
		return nil, err
	}
	p := plan{from: from, image: &Image{Top: top}, seen: map[oci.Digest]bool{top.Digest: true}}
	if err := p.read(ctx, top); err != nil {
		return nil, err
	}
	return p.image, nil
}

type plan struct {
	from   Source
	image  *Image
	seen   map[oci.Digest]bool
	bodies int64
}

// read takes down what m names. Digests cannot go round in a circle, and each
// is visited once, so the depth is bounded by their number.
func (p *plan) read(ctx context.Context, m content.Manifest) error {
	if p.bodies += int64(len(m.Body)); p.bodies > maxBodies {
		return ErrTooMany.Detail("The manifests of the image are larger than %d bytes together.", maxBodies)
	}
	parsed, err := oci.ParseManifest(m.MediaType, m.Body)
	if err != nil {
		return err
	}
	for _, l := range parsed.Links {
		if p.seen[l.Digest] {
			continue
		}
		p.seen[l.Digest] = true
		if !l.Manifest {
			p.image.blobs = append(p.image.blobs, l)
			p.image.Bytes += l.Size
			continue
		}
		if p.image.Manifests++; p.image.Manifests > MaxManifests {
			return ErrTooMany.Detail("The image names more than %d manifests; that is the most that can be imported at once.", MaxManifests)
		}
		child, err := p.from.Manifest(ctx, oci.Reference{Digest: l.Digest})
		if err != nil {
			return err
		}
		if child.Size != l.Size {
			return oci.ErrManifestInvalid.Detail("The manifest %s has %d bytes, and its index says %d.", l.Digest, child.Size, l.Size)
		}
		if err := p.read(ctx, child); err != nil {
			return err
		}
		p.image.below = append(p.image.below, child)
	}
	return nil
}

// Copy puts an image into a repository, without a tag. got is called with each
// number of bytes that are there, from several goroutines; with a negative one
// where they turned out to be the wrong ones.
func (im *Image) Copy(ctx context.Context, from Source, to Target, k content.Key, got func(int64)) error {
	g, together := errgroup.WithContext(ctx) // ends with the first that fails, and with Wait
	g.SetLimit(width)
	for _, l := range im.blobs {
		g.Go(func() error { return from.give(together, k, l, got) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return im.putManifests(ctx, to, k)
}

func (im *Image) putManifests(ctx context.Context, to Target, k content.Key) error {
	for _, m := range append(slices.Clone(im.below), im.Top) {
		if _, err := to.PutManifest(ctx, k, m.MediaType, m.Body, m.Digest, nil); err != nil {
			return err
		}
	}
	return nil
}

// Tag gives the image, which k has, its tags in k.
func (im *Image) Tag(ctx context.Context, to Target, k content.Key, tags []oci.Tag) error {
	_, err := to.PutManifest(ctx, k, im.Top.MediaType, im.Top.Body, im.Top.Digest, tags)
	return err
}

// Near is a source in this deployment: its blobs become the target's without a
// byte being copied.
func Near(c Target, from content.Key) Source { return near{c, from} }

type near struct {
	content Target
	from    content.Key
}

func (n near) Manifest(ctx context.Context, ref oci.Reference) (content.Manifest, error) {
	m, err := n.content.Manifest(ctx, n.from, ref)
	if errors.Is(err, oci.ErrManifestUnknown) || errors.Is(err, oci.ErrNameUnknown) {
		err = ErrNotThere.Detail("The source has no image %s with the tag or digest %s.", n.from.Repo, ref)
	}
	return m, err
}

func (n near) give(ctx context.Context, k content.Key, l oci.Link, got func(int64)) error {
	_, err := n.content.Share(ctx, k, n.from, l.Digest)
	if l.Foreign && errors.Is(err, oci.ErrBlobUnknown) {
		err = nil // the source does without it, and so can its copy
	}
	if err == nil {
		got(l.Size)
	}
	return err
}

// Far is a source in another registry.
func Far(from Remote, to Target) Source { return far{from, to} }

type far struct {
	Remote
	to Target
}

func (f far) give(ctx context.Context, k content.Key, l oci.Link, got func(int64)) error {
	if _, err := f.to.StatBlob(ctx, k, l.Digest); err == nil {
		got(l.Size)
		return nil
	} else if !errors.Is(err, oci.ErrBlobUnknown) && !errors.Is(err, oci.ErrNameUnknown) {
		return err
	}
	body, err := f.Blob(ctx, l.Descriptor)
	if l.Foreign && errors.Is(err, ErrNotThere) {
		// Its URLs are the wish of whoever wrote the manifest; they are never
		// fetched.
		return ErrForeign.Detail("The layer %s is kept outside the source registry. Layers are copied from the registry itself only; the addresses in a manifest are not followed.", l.Digest)
	}
	if err != nil {
		return err
	}
	defer body.Close() // only read
	u, err := f.to.StartUpload(ctx, k, l.Digest.Algorithm())
	if err != nil {
		return err
	}
	// One byte more than is expected is enough to know that it is wrong.
	r := &counted{r: io.LimitReader(body, l.Size+1), got: got}
	d, err := f.to.Finish(ctx, k, u.ID, 0, r, l.Digest)
	if err == nil && d.Size != l.Size {
		err = oci.ErrManifestInvalid.Detail("The blob %s has %d bytes, and its manifest says %d.", l.Digest, d.Size, l.Size)
	}
	if err != nil {
		got(-r.n)
		// The session would be collected in its time; the bytes need not stay
		// until then. It may have ended already.
		_ = f.to.CancelUpload(context.WithoutCancel(ctx), k, u.ID)
	}
	return err
}

// counted tells what was read.
type counted struct {
	r   io.Reader
	got func(int64)
	n   int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.got(int64(n))
	return n, err
}

// tally adds up what several goroutines tell.
type tally struct {
	mu sync.Mutex
	n  int64
}

func (t *tally) add(n int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n += n
	return t.n
}
