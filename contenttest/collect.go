package contenttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

func (w *world) collect(o content.CollectOptions) content.Report {
	w.Helper()
	r, err := w.s.Collect(w.Context(), o)
	w.must(err)
	return r
}

func collect(w *world) {
	w.pushImage(w.app, []string{"v1"}, "config", "kept")
	untagged := w.pushImage(w.app, nil, "untagged")
	loose := w.push(w.app, []byte("loose"))
	if r := w.collect(content.CollectOptions{}); r != (content.Report{}) {
		w.Errorf("within the grace %+v was collected", r)
	}
	w.clock.advance(grace + time.Second)
	want := content.Report{Memberships: 1, Blobs: 1, Bytes: 5}
	if r := w.collect(content.CollectOptions{DryRun: true}); r != want {
		w.Errorf("a dry run reports %+v, want %+v", r, want)
	}
	file := w.file(loose)
	if r := w.collect(content.CollectOptions{}); r != want {
		w.Errorf("a run reports %+v, want %+v", r, want)
	}
	// Distribution issue 3045: after a collection the running server went on
	// to say that the layer was there.
	w.unknown(w.app, loose)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		w.Errorf("the file is still there: %v", err)
	}
	w.pulls(w.app, []byte("kept"), sum([]byte("kept")))
	w.pulls(w.app, []byte("config"), sum([]byte("config")))
	w.must2(w.s.Manifest(w.Context(), w.app, oci.Reference{Digest: untagged.Digest}))
	if r := w.collect(content.CollectOptions{}); r != (content.Report{}) {
		w.Errorf("a second run reports %+v", r)
	}
	w.push(w.app, []byte("loose"))
	w.pulls(w.app, []byte("loose"), loose)

	// What a deleted manifest alone named goes, and what another one names
	// too stays.
	w.put(w.app, image("config", "loose"), "v2")
	w.must(w.s.DeleteManifest(w.Context(), w.app, sum(image("config", "loose").body())))
	w.clock.advance(grace + time.Second)
	w.collect(content.CollectOptions{})
	w.unknown(w.app, loose)
	w.pulls(w.app, []byte("config"), sum([]byte("config")))
}

func (w *world) must2(_ content.Manifest, err error) {
	w.Helper()
	w.must(err)
}

// Between a page and the removal of what stands on it there may be a push. So
// the removal asks again: here the pushes have all come.
func collectAsksAgain(w *world) {
	ctx := w.Context()
	linked, loose := w.push(w.app, []byte("linked")), w.push(w.app, []byte("loose"))
	page, err := w.rows.Members(ctx, content.Member{}, 10)
	if w.must(err); len(page) != 2 || page[0].Linked || page[1].Linked {
		w.Fatalf("the members are %+v", page)
	}
	w.put(w.app, image("linked"), "v1")
	w.clock.advance(time.Hour)
	since := w.clock.now()
	w.push(w.app, []byte("loose"))
	if n, err := w.rows.RemoveMembers(ctx, page, since); err != nil || n != 0 {
		w.Errorf("%d were removed that are linked or in use, error %v", n, err)
	}
	w.pulls(w.app, []byte("linked"), linked)
	w.must(w.s.DeleteTag(ctx, w.app, tag(w, "v1")))

	w.must(w.s.DeleteBlob(ctx, w.app, loose))
	later := w.clock.now().Add(time.Hour)
	unowned, _, err := w.rows.Unowned(ctx, oci.Digest{}, later, 10)
	if w.must(err); len(unowned) != 1 || unowned[0].Digest != loose {
		w.Fatalf("without a repository are %+v", unowned)
	}
	w.push(w.web, []byte("loose"))
	if gone, err := w.rows.RemoveUnowned(ctx, unowned); err != nil || len(gone) != 0 {
		w.Errorf("%v were removed that a repository has, error %v", gone, err)
	}
	w.pulls(w.web, []byte("loose"), loose)
	// Nor does a page that is old remove the row of another place.
	unowned[0].Location += "x"
	w.must(w.s.DeleteBlob(ctx, w.web, loose))
	if gone, err := w.rows.RemoveUnowned(ctx, unowned); err != nil || len(gone) != 0 {
		w.Errorf("%v were removed that are at another place, error %v", gone, err)
	}
}

// A client that was told "exists" pushes no bytes; its manifest must find them.
func collectSparesWhatIsReliedOn(w *world) {
	ctx := w.Context()
	relied := map[string]func(oci.Digest) error{
		"stat": func(d oci.Digest) error { _, err := w.s.StatBlob(ctx, w.app, d); return err },
		"open": func(d oci.Digest) error {
			b, err := w.s.OpenBlob(ctx, w.app, d)
			if err == nil {
				err = b.File.Close()
			}
			return err
		},
		"mount": func(d oci.Digest) error { _, err := w.s.Mount(ctx, w.app, w.web.Repo, d); return err },
		"push":  func(d oci.Digest) error { w.push(w.app, []byte("push")); return nil },
		"manifest": func(d oci.Digest) error {
			_, err := w.tryPut(w.app, image("manifest"))
			if err == nil {
				err = w.s.DeleteManifest(ctx, w.app, sum(image("manifest").body()))
			}
			return err
		},
	}
	for how := range relied {
		w.push(w.app, []byte(how))
		w.push(w.web, []byte(how))
	}
	for range 4 { // each time most of the grace has passed since the last
		w.clock.advance(grace * 3 / 4)
		for how, rely := range relied {
			if err := rely(sum([]byte(how))); err != nil {
				w.Fatalf("%s: %v", how, err)
			}
		}
		w.collect(content.CollectOptions{})
	}
	for how := range relied {
		w.pulls(w.app, []byte(how), sum([]byte(how)))
	}
}

func collectLeavings(w *world) {
	abandoned := w.start(w.app)
	w.must2u(w.s.Append(w.Context(), w.app, abandoned, 0, strings.NewReader("abandoned")))
	w.clock.advance(2 * time.Hour)
	alive := w.start(w.app)
	w.must2u(w.s.Append(w.Context(), w.app, alive, 0, strings.NewReader("alive")))
	blob := w.push(w.app, []byte("blob"))

	// What a crash leaves: bytes whose row never came.
	old := filepath.Join(w.f.Dir, "uploads", strings.Repeat("0f", 16))
	orphan := w.file(blob)[:len(w.file(blob))-16] + strings.Repeat("a", 16)
	stranger := filepath.Join(filepath.Dir(orphan), "README")
	for _, file := range []string{old, orphan, stranger} {
		w.must(os.WriteFile(file, []byte("left"), 0o600))
	}
	o := content.CollectOptions{UploadAge: time.Hour, OrphanAge: 24 * time.Hour, Grace: 1000 * time.Hour}
	if r := w.collect(o); r != (content.Report{Uploads: 1}) {
		w.Errorf("%+v was collected, want one upload", r)
	}
	w.clock.advance(24 * time.Hour)
	o.UploadAge = 1000 * time.Hour
	o.DryRun = true
	dry := w.collect(o)
	o.DryRun = false
	if r := w.collect(o); r != (content.Report{Files: 2}) || dry != r {
		w.Errorf("%+v was collected, after a dry run of %+v, want two files", r, dry)
	}
	if _, err := os.Stat(stranger); err != nil {
		w.Errorf("a file that is none of ours was removed: %v", err)
	}
	_, err := w.s.UploadStatus(w.Context(), w.app, abandoned)
	w.wants(err, oci.ErrBlobUploadUnknown)
	_, err = w.s.Finish(w.Context(), w.app, alive, 5, nil, sum([]byte("alive")))
	w.must(err)
	w.pulls(w.app, []byte("blob"), blob)
}

func (w *world) must2u(_ content.Upload, err error) {
	w.Helper()
	w.must(err)
}

func collectSharedBlob(w *world) {
	b := []byte("shared")
	d := w.push(w.app, b)
	w.pushImage(w.foreign, []string{"v1"}, "config", "shared")
	w.clock.advance(grace + time.Second)
	if r := w.collect(content.CollectOptions{}); r != (content.Report{Memberships: 1}) {
		w.Errorf("%+v was collected, want one membership", r)
	}
	w.unknown(w.app, d)
	w.pulls(w.foreign, b, d)
}

// Distribution issues 2881 and 3899: collection beside pushes removed layers
// that a push had just been told of. Fifty clients push, mount, delete and pull
// while each push takes time on by a part of the grace, so that many a blob is
// past it before its manifest comes. Whatever got a 201 must pull whole, as
// long as nobody deletes it.
func collectWhilePushing(w *world) {
	const pushers, tries = 50, 6
	ctx, stop := context.WithCancel(w.Context())
	defer stop()
	var removed atomic.Int64
	collected := make(chan struct{})
	go func() {
		defer close(collected)
		for ctx.Err() == nil {
			// Files have the real time, which stands still beside ours.
			r, err := w.s.Collect(ctx, content.CollectOptions{UploadAge: 1e5 * time.Hour, OrphanAge: 1e5 * time.Hour})
			if err != nil && ctx.Err() == nil {
				w.Error(err)
			}
			removed.Add(int64(r.Blobs))
		}
	}()
	var acknowledged, refused atomic.Int64
	var all sync.WaitGroup
	for i := range pushers {
		all.Go(func() {
			k := []content.Key{w.app, w.web}[i%2]
			name := fmt.Sprintf("by-%d", i)
			for try := range tries {
				if err := w.pushMissing(ctx, k, fmt.Sprintf("abandoned %d %d", i, try)); err != nil {
					w.Error(err)
				}
				layers := []string{"base", fmt.Sprint("layer ", rand.N(10)), fmt.Sprintf("own %d %d", i, try)}
				w.clock.advance(grace / 20)
				if err := w.pushMissing(ctx, k, append(layers, "config")...); err != nil {
					w.Error(err)
					return
				}
				m, err := w.tryPut(k, image("config", layers...), name)
				if errors.Is(err, oci.ErrManifestBlobUnknown) {
					refused.Add(1) // its blob was collected, and it was told
					continue
				}
				if err != nil {
					w.Error(err)
					return
				}
				acknowledged.Add(1)
				if err := w.pullWhole(ctx, k, name, m); err != nil {
					w.Errorf("acknowledged, and then: %v", err)
				}
				if rand.N(2) == 0 {
					// Nobody else has this manifest: it names a layer of its own.
					if err := w.s.DeleteManifest(ctx, k, m.Digest); err != nil {
						w.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	stop()
	<-collected
	if acknowledged.Load() == 0 || removed.Load() == 0 {
		w.Error("it was no test: nothing was acknowledged, or nothing was collected")
	}
	w.Logf("%d acknowledged, %d refused, %d blobs collected", acknowledged.Load(), refused.Load(), removed.Load())
}

// pushMissing asks for each blob first, as clients do, and pushes what is not
// there.
func (w *world) pushMissing(ctx context.Context, k content.Key, blobs ...string) error {
	for _, b := range blobs {
		d := sum([]byte(b))
		if _, err := w.s.StatBlob(ctx, k, d); err == nil {
			continue
		}
		if _, err := w.s.Mount(ctx, k, w.web.Repo, d); err == nil {
			continue
		}
		u, err := w.s.StartUpload(ctx, k, "")
		if err != nil {
			return err
		}
		if _, err := w.s.Finish(ctx, k, u.ID, 0, strings.NewReader(b), d); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) pullWhole(ctx context.Context, k content.Key, name string, put content.Manifest) error {
	got, err := w.s.Manifest(ctx, k, byTag(w, name))
	if err != nil {
		return err
	}
	if !bytes.Equal(got.Body, put.Body) {
		return fmt.Errorf("%s is not what was pushed", name)
	}
	p, err := oci.ParseManifest(got.MediaType, got.Body)
	if err != nil {
		return err
	}
	for _, l := range p.Links {
		b, err := w.s.OpenBlob(ctx, k, l.Digest)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", l.Digest, name, err)
		}
		all := make([]byte, l.Size)
		_, err = b.File.ReadAt(all, 0)
		_ = b.File.Close()
		if err != nil || sum(all) != l.Digest {
			return fmt.Errorf("%s of %s is damaged: %w", l.Digest, name, err)
		}
	}
	return nil
}

func scrub(w *world) {
	var digests []oci.Digest
	for i := range 6 {
		digests = append(digests, w.push(w.app, fmt.Appendf(nil, "blob %d", i)))
	}
	run := func(o content.ScrubOptions) content.ScrubReport {
		w.Helper()
		o.BytesPerSecond = 1 << 40
		r, err := w.s.Scrub(w.Context(), o)
		w.must(err)
		return r
	}
	if r := run(content.ScrubOptions{}); r.Blobs != 6 || r.Bytes != 6*6 || r.Bad+r.Missing+r.Healed != 0 {
		w.Errorf("of whole blobs it reports %+v", r)
	}
	w.must(flip(w.file(digests[0])))
	w.must(os.Remove(w.file(digests[1])))
	if r := run(content.ScrubOptions{}); r.Bad != 1 || r.Missing != 1 {
		w.Errorf("of one bad and one missing blob it reports %+v", r)
	}
	w.unknown(w.app, digests[0])
	// A manifest may not rely on it either.
	w.push(w.app, []byte("config"))
	_, err := w.tryPut(w.app, image("config", "blob 0"))
	w.wants(err, oci.ErrManifestBlobUnknown)
	// The disk lied once only: the mark goes when the bytes are right again.
	w.must(flip(w.file(digests[0])))
	if r := run(content.ScrubOptions{}); r.Healed != 1 || r.Bad != 0 {
		w.Errorf("of a blob that is good again it reports %+v", r)
	}
	w.pulls(w.app, []byte("blob 0"), digests[0])

	// It goes on where it was stopped.
	enough := context.Canceled
	seen := 0
	r, err := w.s.Scrub(w.Context(), content.ScrubOptions{Progress: func(content.ScrubReport) error {
		if seen++; seen == 3 {
			return enough
		}
		return nil
	}})
	w.wants(err, enough)
	if rest := run(content.ScrubOptions{After: r.Last}); rest.Blobs != 7-3 {
		w.Errorf("behind the third blob of seven stand %d", rest.Blobs)
	}
}

func dropRegistry(w *world) {
	w.pushImage(w.app, []string{"v1"}, "config", "ours")
	w.pushImage(w.web, []string{"v1"}, "config")
	var many []string // more than one transaction's worth
	for i := range 600 {
		many = append(many, fmt.Sprint("t", i))
	}
	w.put(w.web, image("config"), many...)
	id := w.start(w.app)
	kept := w.pushImage(w.foreign, []string{"v1"}, "config")
	w.points(w.app, "v1", sum(image("config", "ours").body()))
	w.must(w.s.DropRegistry(w.Context(), w.app.Registry))
	w.noManifest(w.app, byTag(w, "v1"))
	w.noManifest(w.web, oci.Reference{Digest: kept.Digest})
	w.unknown(w.app, sum([]byte("ours")))
	_, err := w.s.UploadStatus(w.Context(), w.app, id)
	w.wants(err, oci.ErrBlobUploadUnknown)
	if list, _, err := w.s.Repositories(w.Context(), w.app.Registry, content.Page{N: 10}); err != nil || len(list) > 0 {
		w.Errorf("it lists %v, %v", list, err)
	}
	w.must(w.s.DropRegistry(w.Context(), w.app.Registry))
	w.points(w.foreign, "v1", kept.Digest)
	w.clock.advance(grace + time.Second)
	if r := w.collect(content.CollectOptions{}); r.Blobs != 1 || r.Bytes != 4 {
		w.Errorf("%+v was collected, want the blob that only it had", r)
	}
	w.pulls(w.foreign, []byte("config"), sum([]byte("config")))
	w.pushImage(w.app, []string{"v1"}, "config", "ours") // the id may be used again
	w.points(w.app, "v1", sum(image("config", "ours").body()))
}
