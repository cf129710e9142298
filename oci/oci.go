// Package oci holds the words of the OCI distribution and image
// specifications: digests, repository names, tags, references, descriptors
// and manifests. A value of one of its types is valid; only its Parse
// functions make one from a stranger's text.
package oci

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"hash"
	"strings"

	"cove.example/cove/fault"
)

// Digest names content by its hash, as in sha256:3fc9….
// The zero Digest names nothing.
type Digest struct{ alg, hex string }

// The digest algorithms of the image specification that cove stores under.
const (
	SHA256 = "sha256"
	SHA512 = "sha512"
)

// ParseDigest accepts "sha256:" and 64, or "sha512:" and 128, lower-case
// hexadecimal digits, and nothing else (image-spec, descriptor.md, Digests).
func ParseDigest(s string) (Digest, error) {
	alg, h, ok := strings.Cut(s, ":")
	size := map[string]int{SHA256: 2 * sha256.Size, SHA512: 2 * sha512.Size}[alg]
	if !ok || size == 0 || len(h) != size || strings.Trim(h, "0123456789abcdef") != "" {
		return Digest{}, ErrDigestInvalid.Detail("%q is not a sha256 or sha512 digest", clip(s))
	}
	return Digest{alg, h}, nil
}

// NewHash returns the hash for an algorithm, or false where cove has none.
func NewHash(alg string) (hash.Hash, bool) {
	switch alg {
	case SHA256:
		return sha256.New(), true
	case SHA512:
		return sha512.New(), true
	}
	return nil, false
}

// FromHash returns the digest of what was written to h.
func FromHash(alg string, h hash.Hash) Digest {
	return Digest{alg, hex.EncodeToString(h.Sum(nil))}
}

// DigestOf returns the digest of b under alg, which must be SHA256 or SHA512.
func DigestOf(alg string, b []byte) Digest {
	h, ok := NewHash(alg)
	if !ok {
		panic("oci: no such digest algorithm: " + alg)
	}
	h.Write(b)
	return FromHash(alg, h)
}

// Algorithm is "sha256" or "sha512".
func (d Digest) Algorithm() string { return d.alg }

// Hex is the part behind the colon.
func (d Digest) Hex() string { return d.hex }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d.alg == "" }

func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return d.alg + ":" + d.hex
}

// Repo is a repository name.
type Repo struct{ s string }

func (r Repo) String() string { return r.s }

// Tag is a tag name.
type Tag struct{ s string }

func (t Tag) String() string { return t.s }

// Reference is a tag or a digest; exactly one of the two is set.
type Reference struct {
	Tag    Tag
	Digest Digest
}

func (r Reference) String() string {
	if r.Digest.IsZero() {
		return r.Tag.s
	}
	return r.Digest.String()
}

// Descriptor points at content (image-spec, descriptor.md).
type Descriptor struct {
	MediaType    string
	Digest       Digest
	Size         int64
	ArtifactType string
	Annotations  map[string]string
}

// The failures that the specification has a word for.
var (
	ErrNameInvalid         = fault.New(fault.Invalid, "invalid repository name")
	ErrNameUnknown         = fault.New(fault.NotFound, "repository name not known to registry")
	ErrTagInvalid          = fault.New(fault.Invalid, "invalid tag")
	ErrDigestInvalid       = fault.New(fault.Invalid, "provided digest did not match uploaded content")
	ErrManifestUnknown     = fault.New(fault.NotFound, "manifest unknown to registry")
	ErrManifestInvalid     = fault.New(fault.Invalid, "manifest invalid")
	ErrManifestBlobUnknown = fault.New(fault.NotFound, "manifest references a manifest or blob unknown to registry")
	ErrBlobUnknown         = fault.New(fault.NotFound, "blob unknown to registry")
	ErrBlobUploadUnknown   = fault.New(fault.NotFound, "blob upload unknown to registry")
	ErrBlobUploadInvalid   = fault.New(fault.Invalid, "blob upload invalid")
	ErrRangeInvalid        = fault.New(fault.Invalid, "the chunk does not start where the upload stands")
	ErrSizeInvalid         = fault.New(fault.TooLarge, "provided length did not match content length or is over the limit")
	ErrDisallowed          = fault.New(fault.Disallowed, "The operation is disallowed on this registry, repository or image. View troubleshooting steps at https://aka.ms/acr/faq/#why-does-my-pull-or-push-request-fail-with-disallowed-operation")
	ErrUnsupported         = fault.New(fault.Unsupported, "the operation is unsupported")
)

// clip keeps a stranger's text short enough to be quoted back.
func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
