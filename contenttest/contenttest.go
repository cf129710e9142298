// Package contenttest is the contract of content: what any rows and any place
// for bytes must do together.
package contenttest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// Fixture is an empty place for content.
type Fixture struct {
	// Open opens it. Opened again it is what a restarted server finds: what
	// was open before is closed.
	Open func(t testing.TB, now func() time.Time) (content.Metadata, content.Blobs)
	// Dir is the folder of the bytes, to damage them.
	Dir string
}

// Run tests what fresh makes, fresh for each test.
func Run(t *testing.T, fresh func(t *testing.T) Fixture) {
	tests := []struct {
		name string
		test func(*world)
	}{
		{"UploadShapes", uploadShapes},
		{"ChunkAtTheWrongPlace", chunkAtTheWrongPlace},
		{"DigestMismatchLeavesNothing", digestMismatchLeavesNothing},
		{"BodyBreaksOff", bodyBreaksOff},
		{"LongBodyIsPutOnRecord", longBodyIsPutOnRecord},
		{"UnsavedBytesAreCut", unsavedBytesAreCut},
		{"PowerLoss", powerLoss},
		{"UploadBelongsToItsRepository", uploadBelongsToItsRepository},
		{"TwoWritersOfOneUpload", twoWritersOfOneUpload},
		{"CancelledUpload", cancelledUpload},
		{"SameBlobFromManyAtOnce", sameBlobFromManyAtOnce},
		{"BlobOfAnotherRepository", blobOfAnotherRepository},
		{"DeleteInOneRepository", deleteInOneRepository},
		{"DamagedFiles", damagedFiles},
		{"Mount", mount},

		{"ManifestKinds", manifestKinds},
		{"ManifestByBothDigests", manifestByBothDigests},
		{"ManifestAgain", manifestAgain},
		{"ManifestReferences", manifestReferences},
		{"ManifestRefused", manifestRefused},
		{"TagsMove", tagsMove},
		{"DeleteManifest", deleteManifest},
		{"Lists", lists},
		{"Referrers", referrers},
		{"ReferrersPageIsBounded", referrersPageIsBounded},
		{"TwoNodes", twoNodes},
		{"Locks", locks},
		{"LockMatrix", lockMatrix},
		{"Retention", retention},
		{"Inventory", inventory},
		{"DeleteRepository", deleteRepository},

		{"Collect", collect},
		{"CollectSparesWhatIsReliedOn", collectSparesWhatIsReliedOn},
		{"CollectAsksAgain", collectAsksAgain},
		{"CollectLeavings", collectLeavings},
		{"CollectSharedBlob", collectSharedBlob},
		{"CollectWhilePushing", collectWhilePushing},
		{"Scrub", scrub},
		{"DropRegistry", dropRegistry},
		{"Model", model},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			tc.test(newWorld(t, fresh(t)))
		})
	}
}

// grace is that of every test's Store.
const grace = 24 * time.Hour

// clock begins at the real time, because files have that, and moves only when
// told.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// world is a Store with two registries' repositories.
type world struct {
	*testing.T
	f     Fixture
	clock *clock
	rows  content.Metadata
	bytes content.Blobs
	s     *content.Store
	boot  string // "" for the real one

	app, web, foreign content.Key // foreign is of another registry, with app's name
}

func newWorld(t *testing.T, f Fixture) *world {
	w := &world{T: t, f: f, clock: &clock{t: time.Now().UTC().Truncate(time.Microsecond)}}
	w.app = content.Key{Registry: "registry-1", Repo: repo(t, "team/app")}
	w.web = content.Key{Registry: "registry-1", Repo: repo(t, "team/web")}
	w.foreign = content.Key{Registry: "registry-2", Repo: repo(t, "team/app")}
	w.restart()
	return w
}

func (w *world) restart() {
	w.Helper()
	w.rows, w.bytes = w.f.Open(w.T, w.clock.now)
	if w.boot != "" {
		w.bytes = rebooted{w.bytes, w.boot}
	}
	w.s = w.node()
}

// node is another Store over the same rows and bytes.
func (w *world) node() *content.Store {
	return content.New(w.rows, w.bytes, content.Options{Now: w.clock.now, Grace: grace})
}

type rebooted struct {
	content.Blobs
	boot string
}

func (r rebooted) Boot() string { return r.boot }

func repo(t testing.TB, s string) oci.Repo {
	t.Helper()
	r, err := oci.ParseRepo(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tag(t testing.TB, s string) oci.Tag {
	t.Helper()
	v, err := oci.ParseTag(s)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func byTag(t testing.TB, s string) oci.Reference { return oci.Reference{Tag: tag(t, s)} }

// must fails the test on err.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// wants fails the test unless err is want.
func (w *world) wants(err, want error) {
	w.Helper()
	if !errors.Is(err, want) {
		w.Fatalf("got error %v, want %v", err, want)
	}
}

func sum(b []byte) oci.Digest { return oci.DigestOf(oci.SHA256, b) }

// start opens an upload.
func (w *world) start(k content.Key) string {
	w.Helper()
	u, err := w.s.StartUpload(w.Context(), k, "")
	w.must(err)
	return u.ID
}

func (w *world) push(k content.Key, b []byte) oci.Digest {
	w.Helper()
	d, err := w.s.Finish(w.Context(), k, w.start(k), 0, bytes.NewReader(b), sum(b))
	w.must(err)
	if d.Digest != sum(b) || d.Size != int64(len(b)) {
		w.Fatalf("Finish answered %v, %d bytes", d.Digest, d.Size)
	}
	return d.Digest
}

// pulls reads d as a client would, and fails unless it is b.
func (w *world) pulls(k content.Key, b []byte, d oci.Digest) {
	w.Helper()
	got, err := w.s.StatBlob(w.Context(), k, d)
	w.must(err)
	if got.Size != int64(len(b)) || got.Digest != d {
		w.Fatalf("StatBlob answered %v, %d bytes, want %v, %d", got.Digest, got.Size, d, len(b))
	}
	f, err := w.s.OpenBlob(w.Context(), k, d)
	w.must(err)
	defer f.File.Close()
	all, err := io.ReadAll(f.File)
	w.must(err)
	if !bytes.Equal(all, b) {
		w.Fatalf("the blob has %d bytes, not the %d that were pushed", len(all), len(b))
	}
}

// unknown fails unless k has no d.
func (w *world) unknown(k content.Key, d oci.Digest) {
	w.Helper()
	_, err := w.s.StatBlob(w.Context(), k, d)
	w.wants(err, oci.ErrBlobUnknown)
	_, err = w.s.OpenBlob(w.Context(), k, d)
	w.wants(err, oci.ErrBlobUnknown)
}

// descriptor is one as it stands in a manifest.
type descriptor struct {
	MediaType    string   `json:"mediaType,omitempty"`
	Digest       string   `json:"digest"`
	Size         int64    `json:"size"`
	URLs         []string `json:"urls,omitempty"`
	ArtifactType string   `json:"artifactType,omitempty"`
}

// manifest is one as a client writes it.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType,omitempty"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        *descriptor       `json:"config,omitempty"`
	Layers        []descriptor      `json:"layers,omitempty"`
	Manifests     []descriptor      `json:"manifests,omitzero"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

func (m manifest) body() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return b
}

const (
	configType = "application/vnd.oci.image.config.v1+json"
	layerType  = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func describe(mediaType string, b []byte) *descriptor {
	return &descriptor{MediaType: mediaType, Digest: sum(b).String(), Size: int64(len(b))}
}

// image is the manifest of an image with these contents.
func image(config string, layers ...string) manifest {
	m := manifest{SchemaVersion: 2, MediaType: oci.MediaTypeImage, Config: describe(configType, []byte(config))}
	for _, l := range layers {
		m.Layers = append(m.Layers, *describe(layerType, []byte(l)))
	}
	return m
}

// index is one over manifests.
func index(children ...manifest) manifest {
	m := manifest{SchemaVersion: 2, MediaType: oci.MediaTypeIndex, Manifests: []descriptor{}}
	for _, c := range children {
		m.Manifests = append(m.Manifests, *describe(c.MediaType, c.body()))
	}
	return m
}

// pushImage pushes an image's blobs and its manifest.
func (w *world) pushImage(k content.Key, tags []string, config string, layers ...string) content.Manifest {
	w.Helper()
	for _, b := range append(layers, config) {
		w.push(k, []byte(b))
	}
	return w.put(k, image(config, layers...), tags...)
}

func (w *world) put(k content.Key, m manifest, tags ...string) content.Manifest {
	w.Helper()
	got, err := w.tryPut(k, m, tags...)
	w.must(err)
	return got
}

func (w *world) tryPut(k content.Key, m manifest, tags ...string) (content.Manifest, error) {
	var list []oci.Tag
	for _, s := range tags {
		list = append(list, tag(w, s))
	}
	return w.s.PutManifest(w.Context(), k, m.MediaType, m.body(), oci.Digest{}, list)
}

// noManifest fails unless k has no ref.
func (w *world) noManifest(k content.Key, ref oci.Reference) {
	w.Helper()
	_, err := w.s.Manifest(w.Context(), k, ref)
	w.wants(err, oci.ErrManifestUnknown)
}

// points fails unless the tag is on d.
func (w *world) points(k content.Key, name string, d oci.Digest) {
	w.Helper()
	m, err := w.s.Manifest(w.Context(), k, byTag(w, name))
	w.must(err)
	if m.Digest != d {
		w.Fatalf("%s is %s, want %s", name, m.Digest, d)
	}
}

// files returns the files below a folder of the bytes whose names begin so.
func (w *world) files(folder, prefix string) (list []string) {
	w.Helper()
	w.must(filepath.WalkDir(filepath.Join(w.f.Dir, folder), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasPrefix(e.Name(), prefix) {
			list = append(list, path)
		}
		return err
	}))
	return list
}

// file returns the one file of a blob.
func (w *world) file(d oci.Digest) string {
	w.Helper()
	list := w.files(d.Algorithm(), d.Hex())
	if len(list) != 1 {
		w.Fatalf("%s has %d files", d, len(list))
	}
	return list[0]
}
