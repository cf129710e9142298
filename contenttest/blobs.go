package contenttest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing/iotest"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

// Every way to push a blob ends in the same blob.
func uploadShapes(w *world) {
	ctx := w.Context()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // several buffers
	for _, alg := range []string{oci.SHA256, oci.SHA512} {
		for name, b := range map[string][]byte{"empty": {}, "small": []byte("small " + alg), "big": append(big, alg...)} {
			want := oci.DigestOf(alg, b)
			cut := len(b) / 3
			shapes := map[string]func(id string) (oci.Descriptor, error){
				"at once": func(id string) (oci.Descriptor, error) {
					return w.s.Finish(ctx, w.app, id, 0, bytes.NewReader(b), want)
				},
				"chunks": func(id string) (oci.Descriptor, error) {
					u, err := w.s.Append(ctx, w.app, id, 0, bytes.NewReader(b[:cut]))
					w.must(err)
					if u.Offset != int64(cut) || u.ID != id {
						w.Errorf("%s: after a chunk of %d bytes %q stands at %d", name, cut, u.ID, u.Offset)
					}
					if _, err = w.s.Append(ctx, w.app, id, u.Offset, bytes.NewReader(b[cut:])); err != nil {
						return oci.Descriptor{}, err
					}
					return w.s.Finish(ctx, w.app, id, -1, nil, want)
				},
				"stream": func(id string) (oci.Descriptor, error) {
					_, err := w.s.Append(ctx, w.app, id, -1, iotest.OneByteReader(bytes.NewReader(b[:min(cut, 100)])))
					w.must(err)
					return w.s.Finish(ctx, w.app, id, -1, iotest.HalfReader(bytes.NewReader(b[min(cut, 100):])), want)
				},
			}
			for shape, do := range shapes {
				for _, promised := range []string{"", alg} {
					u, err := w.s.StartUpload(ctx, w.app, promised)
					w.must(err)
					d, err := do(u.ID)
					if err != nil || d.Digest != want || d.Size != int64(len(b)) {
						w.Fatalf("%s, %s, %s, promised %q: got %v of %d bytes, error %v", alg, name, shape, promised, d.Digest, d.Size, err)
					}
					w.pulls(w.app, b, want)
					_, err = w.s.UploadStatus(ctx, w.app, u.ID)
					w.wants(err, oci.ErrBlobUploadUnknown)
				}
			}
			w.file(want) // one, however often it was pushed
		}
	}
	if left := w.files("uploads", ""); len(left) > 0 {
		w.Errorf("uploads are left: %v", left)
	}
	_, err := w.s.StartUpload(ctx, w.app, "md5")
	w.wants(err, oci.ErrDigestInvalid)
}

func chunkAtTheWrongPlace(w *world) {
	id := w.start(w.app)
	_, err := w.s.Append(w.Context(), w.app, id, 0, strings.NewReader("0123"))
	w.must(err)
	unread := iotest.ErrReader(errors.New("the body was read"))
	for _, at := range []int64{0, 3, 5, 1 << 60, -2} {
		_, err := w.s.Append(w.Context(), w.app, id, at, unread)
		w.wants(err, oci.ErrRangeInvalid)
		_, err = w.s.Finish(w.Context(), w.app, id, at, unread, sum([]byte("0123")))
		w.wants(err, oci.ErrRangeInvalid)
	}
	u, err := w.s.UploadStatus(w.Context(), w.app, id)
	w.must(err)
	if u.Offset != 4 {
		w.Errorf("the upload stands at %d, want 4", u.Offset)
	}
	_, err = w.s.Finish(w.Context(), w.app, id, 4, strings.NewReader("4"), sum([]byte("01234")))
	w.must(err)
}

func digestMismatchLeavesNothing(w *world) {
	want, got := sum([]byte("expected")), sum([]byte("what came"))
	id := w.start(w.app)
	_, err := w.s.Append(w.Context(), w.app, id, 0, strings.NewReader("what "))
	w.must(err)
	_, err = w.s.Finish(w.Context(), w.app, id, 5, strings.NewReader("came"), want)
	w.wants(err, oci.ErrDigestInvalid)
	if _, public := fault.Of(err); !strings.Contains(public, want.String()) || !strings.Contains(public, got.String()) {
		w.Errorf("the sentence does not name both digests: %s", public)
	}
	w.unknown(w.app, want)
	w.unknown(w.app, got)
	_, err = w.s.UploadStatus(w.Context(), w.app, id)
	w.wants(err, oci.ErrBlobUploadUnknown)
	if left := append(w.files("uploads", ""), w.files("sha256", "")...); len(left) > 0 {
		w.Errorf("files are left: %v", left)
	}
}

// A client whose connection broke goes on where the server says it stands,
// also after a restart of the server.
func bodyBreaksOff(w *world) {
	b := bytes.Repeat([]byte("layer"), 100_000)
	broke := errors.New("connection reset")
	for _, finishing := range []bool{false, true} {
		b := append(b, fmt.Sprint(finishing)...)
		id := w.start(w.app)
		_, err := w.s.Append(w.Context(), w.app, id, 0, bytes.NewReader(b[:1000]))
		w.must(err)
		body := io.MultiReader(bytes.NewReader(b[1000:300_000]), iotest.ErrReader(broke))
		if finishing {
			_, err = w.s.Finish(w.Context(), w.app, id, 1000, body, sum(b))
		} else {
			_, err = w.s.Append(w.Context(), w.app, id, 1000, body)
		}
		w.wants(err, broke)
		w.restart()
		u, err := w.s.UploadStatus(w.Context(), w.app, id)
		w.must(err)
		if u.Offset != 300_000 {
			w.Fatalf("the upload stands at %d, want 300000", u.Offset)
		}
		_, err = w.s.Finish(w.Context(), w.app, id, u.Offset, bytes.NewReader(b[u.Offset:]), sum(b))
		w.must(err)
		w.pulls(w.app, b, sum(b))
	}
}

// A long body is put on record while it comes, so that a process that dies
// costs the client what came last and not the whole.
func longBodyIsPutOnRecord(w *world) {
	const mark, size = 64 << 20, 66 << 20
	u, err := w.s.StartUpload(w.Context(), w.app, "")
	w.must2u(u, err)
	var seen int64
	body := io.LimitReader(zeros{}, size)
	watched := readerFunc(func(b []byte) (int, error) {
		n, err := body.Read(b)
		if err == io.EOF {
			now, err := w.s.UploadStatus(w.Context(), w.app, u.ID)
			w.must(err)
			seen = now.Offset
		}
		return n, err
	})
	u, err = w.s.Append(w.Context(), w.app, u.ID, 0, watched)
	w.must(err)
	if seen != mark || u.Offset != size {
		w.Errorf("on record before the end: %d, want %d; at the end %d, want %d", seen, mark, u.Offset, size)
	}
	h, _ := oci.NewHash(oci.SHA256)
	if _, err := io.Copy(h, io.LimitReader(zeros{}, size)); err != nil {
		w.Fatal(err)
	}
	_, err = w.s.Finish(w.Context(), w.app, u.ID, -1, nil, oci.FromHash(oci.SHA256, h))
	w.must(err)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// Bytes that came after the last save are not counted in the hash, so they
// must not stay in the file either.
func unsavedBytesAreCut(w *world) {
	id := w.start(w.app)
	_, err := w.s.Append(w.Context(), w.app, id, 0, strings.NewReader("saved, "))
	w.must(err)
	f, err := os.OpenFile(filepath.Join(w.f.Dir, "uploads", id), os.O_APPEND|os.O_WRONLY, 0)
	w.must(err)
	_, err = f.WriteString("and then the process was killed")
	w.must(errors.Join(err, f.Close()))
	w.restart()
	b := []byte("saved, and sent again")
	_, err = w.s.Finish(w.Context(), w.app, id, 7, bytes.NewReader(b[7:]), sum(b))
	w.must(err)
	w.pulls(w.app, b, sum(b))
}

// After a power cut the row of a session may know of bytes that never reached
// the disk. They are read again before they become a blob.
func powerLoss(w *world) {
	b := []byte("first half, second half")
	half := func() string {
		id := w.start(w.app)
		_, err := w.s.Append(w.Context(), w.app, id, 0, bytes.NewReader(b[:12]))
		w.must(err)
		return id
	}
	file := func(id string) string { return filepath.Join(w.f.Dir, "uploads", id) }
	kept, zeroed, short, gone := half(), half(), half(), half()
	w.must(os.WriteFile(file(zeroed), make([]byte, 12), 0))
	w.must(os.Truncate(file(short), 5))
	w.must(os.Remove(file(gone)))
	w.boot = "after the power came back"
	w.restart()

	_, err := w.s.Finish(w.Context(), w.app, zeroed, 12, bytes.NewReader(b[12:]), sum(b))
	w.wants(err, oci.ErrDigestInvalid)
	for _, id := range []string{short, gone} {
		_, err = w.s.Finish(w.Context(), w.app, id, 12, bytes.NewReader(b[12:]), sum(b))
		w.wants(err, oci.ErrBlobUploadUnknown)
		_, err = w.s.UploadStatus(w.Context(), w.app, id)
		w.wants(err, oci.ErrBlobUploadUnknown)
	}
	w.unknown(w.app, sum(b))
	_, err = w.s.Finish(w.Context(), w.app, kept, 12, bytes.NewReader(b[12:]), sum(b))
	w.must(err)
	w.pulls(w.app, b, sum(b))
}

// CVE-2026-32589: an upload's id opened it from any repository.
func uploadBelongsToItsRepository(w *world) {
	id := w.start(w.app)
	_, err := w.s.Append(w.Context(), w.app, id, 0, strings.NewReader("mine"))
	w.must(err)
	for _, k := range []content.Key{w.web, w.foreign} {
		for _, id := range []string{id, strings.ToUpper(id), "../" + id, ""} {
			_, err = w.s.UploadStatus(w.Context(), k, id)
			w.wants(err, oci.ErrBlobUploadUnknown)
			_, err = w.s.Append(w.Context(), k, id, -1, strings.NewReader("theirs"))
			w.wants(err, oci.ErrBlobUploadUnknown)
			_, err = w.s.Finish(w.Context(), k, id, -1, nil, sum([]byte("mine")))
			w.wants(err, oci.ErrBlobUploadUnknown)
			w.wants(w.s.CancelUpload(w.Context(), k, id), oci.ErrBlobUploadUnknown)
		}
	}
	_, err = w.s.Finish(w.Context(), w.app, id, 4, nil, sum([]byte("mine")))
	w.must(err)
	w.pulls(w.app, []byte("mine"), sum([]byte("mine")))
}

func twoWritersOfOneUpload(w *world) {
	id := w.start(w.app)
	r, body := io.Pipe()
	first := make(chan error, 1)
	go func() {
		_, err := w.s.Append(w.Context(), w.app, id, 0, r)
		first <- err
	}()
	_, err := body.Write([]byte("first")) // returns when Append has it
	w.must(err)
	_, err = w.s.Append(w.Context(), w.app, id, 0, strings.NewReader("second"))
	if !fault.Is(err, fault.Conflict) {
		w.Errorf("the second writer got %v", err)
	}
	_, err = w.s.Finish(w.Context(), w.app, id, 0, strings.NewReader("second"), sum([]byte("second")))
	if !fault.Is(err, fault.Conflict) {
		w.Errorf("the second finisher got %v", err)
	}
	w.must(body.Close())
	w.must(<-first)
	_, err = w.s.Finish(w.Context(), w.app, id, 5, nil, sum([]byte("first")))
	w.must(err)

	// Another process does not know of our claim; the row's offset tells.
	id = w.start(w.app)
	row, err := w.rows.Upload(w.Context(), w.app, id)
	w.must(err)
	_, err = w.s.Append(w.Context(), w.app, id, 0, strings.NewReader("four"))
	w.must(err)
	row.Offset = 9
	if saved, err := w.rows.SaveUpload(w.Context(), 0, row); err != nil || saved {
		w.Errorf("a save over a newer one: saved %v, error %v", saved, err)
	}
}

func cancelledUpload(w *world) {
	id := w.start(w.app)
	_, err := w.s.Append(w.Context(), w.app, id, 0, strings.NewReader("never mind"))
	w.must(err)
	w.must(w.s.CancelUpload(w.Context(), w.app, id))
	_, err = w.s.Append(w.Context(), w.app, id, -1, strings.NewReader("more"))
	w.wants(err, oci.ErrBlobUploadUnknown)
	w.wants(w.s.CancelUpload(w.Context(), w.app, id), oci.ErrBlobUploadUnknown)
	w.must(w.s.CancelUpload(w.Context(), w.app, w.start(w.app))) // before its first byte
	if left := w.files("uploads", ""); len(left) > 0 {
		w.Errorf("files are left: %v", left)
	}
}

func sameBlobFromManyAtOnce(w *world) {
	b := []byte("everybody's base layer")
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			k := []content.Key{w.app, w.web, w.foreign}[i%3]
			u, err := w.s.StartUpload(w.Context(), k, "")
			if err == nil {
				_, err = w.s.Finish(w.Context(), k, u.ID, 0, bytes.NewReader(b), sum(b))
			}
			if err != nil {
				w.Error(err)
			}
		})
	}
	all.Wait()
	for _, k := range []content.Key{w.app, w.web, w.foreign} {
		w.pulls(k, b, sum(b))
	}
	w.file(sum(b)) // one
}

// CVE-2024-39897: the answer for a blob that only another repository has is
// the answer for one that nobody has, to the letter.
func blobOfAnotherRepository(w *world) {
	secret, nobodys := w.push(w.app, []byte("secret")), sum([]byte("nobody's"))
	for _, k := range []content.Key{w.web, w.foreign} {
		w.unknown(k, secret)
		_, there := w.s.StatBlob(w.Context(), k, secret)
		_, absent := w.s.StatBlob(w.Context(), k, nobodys)
		if there.Error() != absent.Error() {
			w.Errorf("%q and %q can be told apart", there, absent)
		}
		w.wants(w.s.DeleteBlob(w.Context(), k, secret), oci.ErrBlobUnknown)
		m := image("config of a thief", "secret")
		w.push(k, []byte("config of a thief"))
		_, err := w.tryPut(k, m, "stolen")
		w.wants(err, oci.ErrManifestBlobUnknown)
	}
	w.pulls(w.app, []byte("secret"), secret)
}

// CVE-2026-35172: a blob deleted in one repository came back there when it was
// read in another.
func deleteInOneRepository(w *world) {
	b := []byte("shared")
	d := w.push(w.app, b)
	w.push(w.web, b)
	for range 2 {
		w.pulls(w.app, b, d) // so that whatever is kept is kept
		w.pulls(w.web, b, d)
	}
	w.must(w.s.DeleteBlob(w.Context(), w.app, d))
	w.unknown(w.app, d)
	w.pulls(w.web, b, d)
	w.unknown(w.app, d)
	w.wants(w.s.DeleteBlob(w.Context(), w.app, d), oci.ErrBlobUnknown)
	_, err := w.s.Mount(w.Context(), w.web, w.app.Repo, d)
	w.wants(err, oci.ErrBlobUnknown)
	w.restart()
	w.unknown(w.app, d)
	w.pulls(w.web, b, d)
	w.push(w.app, b)
	w.pulls(w.app, b, d)
}

// go-containerregistry issue 2124: an empty file was served as the blob whose
// name it had, and a client told "exists" could not repair it.
func damagedFiles(w *world) {
	damage := map[string]func(file string) error{
		"emptied":   func(file string) error { return os.Truncate(file, 0) },
		"truncated": func(file string) error { return os.Truncate(file, 3) },
		"grown":     func(file string) error { return os.Truncate(file, 1000) },
		"removed":   os.Remove,
		"flipped":   func(file string) error { return flip(file) },
	}
	for name, do := range damage {
		b := []byte("content of the blob that is " + name)
		d := w.push(w.app, b)
		w.push(w.web, b)
		w.pulls(w.app, b, d)
		w.must(do(w.file(d)))
		if name == "flipped" { // its size is right: the scrubber sees it
			_, err := w.s.Scrub(w.Context(), content.ScrubOptions{BytesPerSecond: 1 << 40})
			w.must(err)
		}
		w.unknown(w.app, d)
		w.unknown(w.web, d)
		w.push(w.web, b)
		w.pulls(w.web, b, d)
		w.pulls(w.app, b, d)
		w.file(d)
	}
}

// flip changes one bit.
func flip(file string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 0x10
	return os.WriteFile(file, b, 0)
}

func mount(w *world) {
	b := []byte("base")
	d := w.push(w.app, b)
	got, err := w.s.Mount(w.Context(), w.web, w.app.Repo, d)
	w.must(err)
	if got.Digest != d || got.Size != int64(len(b)) {
		w.Errorf("Mount answered %v of %d bytes", got.Digest, got.Size)
	}
	w.pulls(w.web, b, d)
	w.must(w.s.DeleteBlob(w.Context(), w.app, d))
	w.pulls(w.web, b, d)
	// The source is a repository of the same registry.
	_, err = w.s.Mount(w.Context(), w.foreign, w.web.Repo, d)
	w.wants(err, oci.ErrBlobUnknown)
	_, err = w.s.Mount(w.Context(), w.app, oci.Repo{}, d)
	w.wants(err, oci.ErrBlobUnknown)
	w.must(os.Truncate(w.file(d), 1))
	_, err = w.s.Mount(w.Context(), w.app, w.web.Repo, d)
	w.wants(err, oci.ErrBlobUnknown)
}
