package oci

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxManifest is the largest manifest in bytes. distribution-spec, Pushing
// Manifests: a registry should take at least 4 MiB, and clients expect 413
// above its limit.
const MaxManifest = 4 << 20

// MaxLinks is how many blobs and manifests one manifest may name. Each is a row
// in the transaction that stores it; real ones name fewer than a thousand.
const MaxLinks = 4096

// maxDepth bounds nesting in a manifest; real ones stay under ten.
const maxDepth = 64

// The manifest media types that are stored.
const (
	MediaTypeImage       = "application/vnd.oci.image.manifest.v1+json"
	MediaTypeIndex       = "application/vnd.oci.image.index.v1+json"
	MediaTypeDockerImage = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerList  = "application/vnd.docker.distribution.manifest.list.v2+json"
)

// Manifest is what a registry needs to know of a manifest's body. It is a
// function of the body alone: the same bytes are never an image here and an
// index there (GHSA-77vh-xpmg-72qh, GHSA-mc8v-mgrf-8f4m).
type Manifest struct {
	MediaType string
	// ArtifactType as a referrers list shows it: the manifest's own, else an
	// image's config media type (distribution-spec, Listing Referrers).
	ArtifactType string
	Annotations  map[string]string
	Subject      Descriptor // its Digest is zero when there is none
	Links        []Link     // each digest once
}

// Link is content that a manifest names and a pull of it will ask for.
type Link struct {
	Descriptor
	Manifest bool // under /manifests/, else under /blobs/
	Foreign  bool // clients fetch it from the URLs beside it; it need not be here
}

// IsIndex reports whether t is the media type of a list of manifests.
func IsIndex(t string) bool { return t == MediaTypeIndex || t == MediaTypeDockerList }

func isManifest(t string) bool {
	return IsIndex(t) || t == MediaTypeImage || t == MediaTypeDockerImage
}

type wireDescriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         *int64            `json:"size"`
	URLs         []string          `json:"urls"`
	Annotations  map[string]string `json:"annotations"`
	Data         *[]byte           `json:"data"`
	ArtifactType string            `json:"artifactType"`
}

type wireManifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType"`
	Config        *wireDescriptor   `json:"config"`
	Layers        []wireDescriptor  `json:"layers"`
	Manifests     []wireDescriptor  `json:"manifests"`
	Subject       *wireDescriptor   `json:"subject"`
	Annotations   map[string]string `json:"annotations"`
}

// ParseManifest reads body as a manifest of the media type that its sender
// gave, which may carry parameters, or may be "" where the body names its own.
// It fails with ErrSizeInvalid over MaxManifest and with ErrManifestInvalid
// for whatever two readers might understand differently: a key twice or in
// another case, bytes behind the end, an image that is also an index, a type
// other than the sender's.
func ParseManifest(mediaType string, body []byte) (Manifest, error) {
	if len(body) > MaxManifest {
		return Manifest{}, ErrSizeInvalid.Detail("the manifest is larger than %d bytes", MaxManifest)
	}
	if !utf8.Valid(body) {
		return Manifest{}, ErrManifestInvalid.Detail("the manifest is not UTF-8")
	}
	var w wireManifest
	if err := json.Unmarshal(body, &w); err != nil {
		return Manifest{}, ErrManifestInvalid.Detail("%s", jsonProblem(err))
	}
	top, err := scan(string(body))
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{ArtifactType: w.ArtifactType, Annotations: w.Annotations}
	if m.MediaType, err = typeOf(mediaType, w, top); err != nil {
		return Manifest{}, err
	}
	if w.SchemaVersion != 2 {
		return Manifest{}, ErrManifestInvalid.Detail("schemaVersion must be 2")
	}
	if w.Subject != nil {
		if m.Subject, err = w.Subject.parse("subject"); err != nil {
			return Manifest{}, err
		}
	}
	if IsIndex(m.MediaType) {
		m.Links, err = linksOfIndex(w)
	} else {
		m.Links, err = linksOfImage(w)
		if m.ArtifactType == "" {
			m.ArtifactType = w.Config.MediaType
		}
	}
	if err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// typeOf decides the media type from the body and insists that the sender
// meant the same. Only the OCI types may be left out of the body: then config
// makes an image and manifests an index, and neither may have the other's.
func typeOf(sent string, w wireManifest, top *keys) (string, error) {
	if sent, _, _ = strings.Cut(sent, ";"); sent != "" {
		sent = strings.ToLower(strings.TrimSpace(sent))
	}
	t := w.MediaType
	switch {
	case t != "":
	case top.has("mediaType"):
		return "", ErrManifestInvalid.Detail("mediaType is empty")
	case top.has("manifests") && (top.has("config") || top.has("layers")):
		return "", ErrManifestInvalid.Detail("the manifest is an image and an index at once")
	case top.has("manifests"):
		t = MediaTypeIndex
	default:
		t = MediaTypeImage
	}
	if sent != "" && sent != t {
		return "", ErrManifestInvalid.Detail("sent as %q, but the body is %q", clip(sent), clip(t))
	}
	if !isManifest(t) {
		return "", ErrManifestInvalid.Detail("manifests of media type %q are not stored; send an OCI image manifest with an artifactType", clip(t))
	}
	need, never := "config", []string{"manifests", "fsLayers"}
	if IsIndex(t) {
		need, never = "manifests", []string{"config", "layers", "fsLayers"}
	}
	for _, k := range never {
		if top.has(k) {
			return "", ErrManifestInvalid.Detail("%s has no place in a manifest of type %s", k, t)
		}
	}
	if !top.has(need) || (need == "config" && w.Config == nil) {
		return "", ErrManifestInvalid.Detail("%s is missing", need)
	}
	return t, nil
}

func linksOfImage(w wireManifest) ([]Link, error) {
	var list links
	if err := list.add("config", w.Config, false); err != nil {
		return nil, err
	}
	for i := range w.Layers {
		if err := list.add("layers", &w.Layers[i], false); err != nil {
			return nil, err
		}
	}
	return list.all, nil
}

// linksOfIndex takes an entry of another type than a manifest's for a blob:
// BuildKit exports its cache as an index over layers.
func linksOfIndex(w wireManifest) ([]Link, error) {
	var list links
	for i := range w.Manifests {
		t := w.Manifests[i].MediaType
		if err := list.add("manifests", &w.Manifests[i], isManifest(t) || t == ""); err != nil {
			return nil, err
		}
	}
	return list.all, nil
}

// links gathers each digest once: an image may name one empty layer many
// times.
type links struct {
	all []Link
	at  map[linkKey]int
}

type linkKey struct {
	Digest
	manifest bool
}

func (l *links) add(where string, w *wireDescriptor, manifest bool) error {
	d, err := w.parse(where)
	if err != nil {
		return err
	}
	isForeign := where == "layers" && foreign(d.MediaType) && len(w.URLs) > 0
	key := linkKey{d.Digest, manifest}
	if i, ok := l.at[key]; ok {
		if l.all[i].Size != d.Size {
			return ErrManifestInvalid.Detail("%s: %s has two sizes", where, d.Digest)
		}
		l.all[i].Foreign = l.all[i].Foreign && isForeign
		return nil
	}
	if len(l.all) == MaxLinks {
		return ErrManifestInvalid.Detail("the manifest names more than %d blobs or manifests", MaxLinks)
	}
	if l.at == nil {
		l.at = map[linkKey]int{}
	}
	l.at[key] = len(l.all)
	l.all = append(l.all, Link{Descriptor: d, Manifest: manifest, Foreign: isForeign})
	return nil
}

// foreign is what the image specification (layer.md, Non-Distributable Layers)
// and Docker's image manifest v2 call a layer that is not pushed.
func foreign(t string) bool {
	return strings.HasPrefix(t, "application/vnd.oci.image.layer.nondistributable.v1.tar") ||
		t == "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" ||
		t == "application/vnd.docker.image.rootfs.foreign.diff.tar"
}

func (w *wireDescriptor) parse(where string) (Descriptor, error) {
	d, err := ParseDigest(w.Digest)
	if err != nil {
		return Descriptor{}, ErrManifestInvalid.Detail("%s: %q is not a sha256 or sha512 digest", where, clip(w.Digest))
	}
	if w.Size == nil || *w.Size < 0 {
		return Descriptor{}, ErrManifestInvalid.Detail("%s: %s has no size", where, d)
	}
	// descriptor.md, data: it must be what the digest names, or a client that
	// trusts it runs something else than one that fetches.
	if w.Data != nil && (int64(len(*w.Data)) != *w.Size || DigestOf(d.alg, *w.Data) != d) {
		return Descriptor{}, ErrManifestInvalid.Detail("%s: the data of %s is not what its digest names", where, d)
	}
	return Descriptor{MediaType: w.MediaType, Digest: d, Size: *w.Size, ArtifactType: w.ArtifactType, Annotations: w.Annotations}, nil
}

// spelling has the keys that decide what a manifest is. encoding/json, like many
// readers, also takes them in another case; others do not.
var spelling = func() map[string]string {
	m := map[string]string{}
	for _, k := range []string{
		"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject",
		"annotations", "fsLayers", "digest", "size", "urls", "data",
	} {
		m[strings.ToLower(k)] = k
	}
	return m
}()

// scan walks valid JSON for what json.Unmarshal lets pass, and returns the keys
// of the outermost object.
func scan(doc string) (*keys, error) {
	if !strings.HasPrefix(strings.TrimLeft(doc, " \t\r\n"), "{") {
		return nil, ErrManifestInvalid.Detail("the manifest is not a JSON object")
	}
	var (
		top   = &keys{}
		stack []*keys // nil for an array
		name  bool    // the next string is a key
		free  int     // depth of the object whose annotations we are in: their keys are the user's
	)
	for i := 0; i < len(doc); i++ {
		switch doc[i] {
		case '{', '[':
			var level *keys
			if doc[i] == '{' {
				if level = top; len(stack) > 0 {
					level = &keys{}
				}
			}
			if stack = append(stack, level); len(stack) > maxDepth {
				return nil, ErrManifestInvalid.Detail("the manifest is nested more than %d deep", maxDepth)
			}
			name = level != nil
		case '}', ']', ',':
			if len(stack) == free {
				free = 0
			}
			if doc[i] != ',' {
				stack = stack[:len(stack)-1]
			}
			name = len(stack) > 0 && stack[len(stack)-1] != nil
		case '"':
			end := quoted(doc, i)
			if name {
				k, err := unquote(doc[i:end])
				if err != nil {
					return nil, err
				}
				if !stack[len(stack)-1].add(k) {
					return nil, ErrManifestInvalid.Detail("%q appears twice", clip(k))
				}
				if free == 0 && len(stack) <= 3 { // the manifest, its descriptors and lists of them
					if known := spelling[fold(k)]; known != "" && known != k {
						return nil, ErrManifestInvalid.Detail("%q is not %q", clip(k), known)
					}
				}
				if free == 0 && k == "annotations" {
					free = len(stack)
				}
				name = false
			}
			i = end - 1
		}
	}
	return top, nil
}

// quoted returns where the string that begins at i ends.
func quoted(doc string, i int) int {
	for i++; doc[i] != '"'; i++ {
		if doc[i] == '\\' {
			i++
		}
	}
	return i + 1
}

func unquote(s string) (string, error) {
	if !strings.Contains(s, "\\") {
		return s[1 : len(s)-1], nil
	}
	var k string
	if err := json.Unmarshal([]byte(s), &k); err != nil {
		return "", ErrManifestInvalid.Detail("the manifest is not JSON")
	}
	return k, nil
}

// keys are those of one object: a short list, or a map for an object that has
// very many.
type keys struct {
	few  []string
	many map[string]bool
}

func (k *keys) add(s string) bool {
	if k.has(s) {
		return false
	}
	if k.many == nil && len(k.few) < 16 {
		k.few = append(k.few, s)
		return true
	}
	if k.many == nil {
		k.many = map[string]bool{}
	}
	k.many[s] = true
	return true
}

func (k *keys) has(s string) bool { return slices.Contains(k.few, s) || k.many[s] }

// fold is the case folding of encoding/json, which also takes U+017F for s
// and U+212A for k.
func fold(k string) string {
	if len(k) > 32 {
		return ""
	}
	return strings.ReplaceAll(strings.ToLower(k), "\u017f", "s") // ToLower does U+212A
}

func jsonProblem(err error) string {
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		where := clip(e.Field)
		if where == "" {
			where = "the manifest"
		}
		return where + " is a JSON " + clip(e.Value)
	}
	return "the manifest is not JSON"
}
