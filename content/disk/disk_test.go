package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"golang.org/x/sys/unix"
)

var anID = strings.Repeat("0f", 16)

func open(t *testing.T, dir string) *Blobs {
	t.Helper()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func write(t *testing.T, b *Blobs, id string, size int64, body string) {
	t.Helper()
	w, err := b.Upload(id, size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	for _, alg := range []string{oci.SHA256, oci.SHA512} {
		d := oci.DigestOf(alg, []byte("a blob"))
		seen := map[string]bool{}
		for range 3 {
			write(t, b, anID, 0, "a b")
			write(t, b, anID, 3, "lob")
			location, err := b.Commit(anID, d)
			if err != nil {
				t.Fatal(err)
			}
			if seen[location] {
				t.Errorf("%s was used twice", location)
			}
			seen[location] = true
			f, err := b.Open(location)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := f.File.(*os.File); !ok {
				t.Errorf("a %T cannot be sent with sendfile", f.File)
			}
			got, err := io.ReadAll(f.File)
			if err != nil || string(got) != "a blob" || f.Size != 6 {
				t.Errorf("got %q, size %d, error %v", got, f.Size, err)
			}
			_ = f.File.Close()
			if size, err := b.Stat(location); err != nil || size != 6 {
				t.Errorf("got size %d, error %v", size, err)
			}
		}
		n := 0
		err := b.EachBlob(time.Now().Add(time.Hour), func(location string, got oci.Digest, size int64) error {
			if got == d && size == 6 && seen[location] {
				n++
			}
			return nil
		})
		if err != nil || n != 3 {
			t.Errorf("%d of 3 files are found, error %v", n, err)
		}
		for location := range seen {
			if err := errors.Join(b.Remove(location), b.Remove(location)); err != nil {
				t.Error(err)
			}
			if _, err := b.Stat(location); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after Remove: %v", err)
			}
		}
	}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm()&0o077 != 0 {
			t.Errorf("others may open %s: %v, %v", path, info.Mode(), err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// An upload that got its last byte long ago must not look like a leaving
// between its rename and its row.
func TestCommitMakesTheFileNew(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	write(t, b, anID, 0, "x")
	old := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, "uploads", anID), old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Commit(anID, oci.DigestOf(oci.SHA256, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	err := b.EachBlob(time.Now().Add(-time.Hour), func(location string, _ oci.Digest, _ int64) error {
		return errors.New(location + " looks old")
	})
	if err != nil {
		t.Error(err)
	}
}

// Nothing outside the folder is opened, and nothing in it by a name that is
// not made of a digest or an id, whatever the database says.
func TestPathsThatAreNotOurs(t *testing.T) {
	b := open(t, filepath.Join(t.TempDir(), "blobs"))
	for _, id := range []string{"", ".", "..", "../x", "a/b", strings.ToUpper(anID), anID + "0", anID[:30], anID[:31] + "/", anID[:31] + "\x00"} {
		if _, err := b.Upload(id, 0); !errors.Is(err, oci.ErrBlobUploadUnknown) {
			t.Errorf("upload %q: %v", id, err)
		}
		if err := b.RemoveUpload(id); !errors.Is(err, oci.ErrBlobUploadUnknown) {
			t.Errorf("remove upload %q: %v", id, err)
		}
	}
	hex := oci.DigestOf(oci.SHA256, nil).Hex()
	for _, location := range []string{
		"", "/etc/passwd", "../blobs", "uploads/" + anID, "sha256/" + hex[:2], "sha256/" + hex[:2] + "/" + hex,
		"sha256/00/" + hex + ".aaaaaaaaaaaaaaaa", "sha256/" + hex[:2] + "/../" + hex[:2] + "/" + hex + ".aaaaaaaaaaaaaaaa",
		"sha256/" + hex[:2] + "/" + hex + ".aaaaaaaaaaaaaaa/", "sha512/" + hex[:2] + "/" + hex + ".aaaaaaaaaaaaaaaa",
	} {
		if _, err := b.Open(location); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("open %q: %v", location, err)
		}
		if err := b.Remove(location); err == nil {
			t.Errorf("%q was removed", location)
		}
	}
}

// A link that somebody has put into the folder leads nowhere.
func TestLinksDoNotLeadOut(t *testing.T) {
	dir := t.TempDir()
	b := open(t, filepath.Join(dir, "blobs"))
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	hex := oci.DigestOf(oci.SHA256, nil).Hex()
	folder := filepath.Join(dir, "blobs", "sha256", hex[:2])
	location := "sha256/" + hex[:2] + "/" + hex + ".aaaaaaaaaaaaaaaa"
	err := errors.Join(
		os.Mkdir(folder, 0o700),
		os.Symlink(secret, filepath.Join(dir, "blobs", location)),
		os.Symlink(secret, filepath.Join(dir, "blobs", "uploads", anID)),
	)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := b.Open(location); err == nil {
		_ = f.File.Close()
		t.Error("a link out of the folder was opened")
	}
	if f, err := b.Upload(anID, 0); err == nil {
		_ = f.Close()
		t.Error("a link out of the folder was opened to write")
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "secret" {
		t.Errorf("the file outside is %q, %v", got, err)
	}
}

func TestUploadIsCutToItsSize(t *testing.T) {
	b := open(t, t.TempDir())
	write(t, b, anID, 0, "0123456789")
	write(t, b, anID, 4, "x")
	r, err := b.OpenUpload(anID)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || string(got) != "0123x" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, id := range []string{anID, strings.Repeat("ab", 16)} {
		if _, err := b.Upload(id, 6); !errors.Is(err, content.ErrShort) {
			t.Errorf("%s: an upload of fewer bytes: %v", id, err)
		}
	}
}

// PostgreSQL learned in 2018 that a flush retried after a failure may report
// success for pages that are gone. So after one nothing is written any more.
func TestFailedFlushStopsWriting(t *testing.T) {
	b := open(t, t.TempDir())
	write(t, b, anID, 0, "x")
	w, err := b.Upload(strings.Repeat("ab", 16), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	d := oci.DigestOf(oci.SHA256, []byte("x"))
	location, err := b.Commit(anID, d)
	if err != nil {
		t.Fatal(err)
	}

	// A full disk is no reason to stop: space comes back.
	if err := b.flushed(&fs.PathError{Op: "sync", Err: syscall.ENOSPC}); !errors.Is(err, content.ErrDiskFull) || b.Stopped() != nil {
		t.Fatalf("a flush on a full disk: %v, stopped %v", err, b.Stopped())
	}
	if err := b.flushed(&fs.PathError{Op: "sync", Err: syscall.EIO}); !errors.Is(err, content.ErrStopped) {
		t.Fatalf("a failed flush: %v", err)
	}
	_, onUpload := b.Upload(anID, 0)
	_, onWrite := w.Write([]byte("y"))
	_, onCommit := b.Commit(anID, d)
	for _, err := range []error{b.Stopped(), onUpload, onWrite, onCommit} {
		if kind, public := fault.Of(err); !errors.Is(err, content.ErrStopped) || kind != fault.Unavailable || strings.Contains(public, "sync") {
			t.Errorf("after a failed flush: %v", err)
		}
	}
	if f, err := b.Open(location); err != nil {
		t.Errorf("reading goes on: %v", err)
	} else {
		_ = f.File.Close()
	}
}

// A file system of 1 MiB is full soon. The failure has a sentence, what was
// stored stays readable, and writing goes on when there is space again.
func TestRootDiskFullAndReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("this test mounts a small file system and needs root; `make test-unprivileged` leaves it out: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := open(t, dir)
	write(t, b, anID, 0, "kept")
	location, err := b.Commit(anID, oci.DigestOf(oci.SHA256, []byte("kept")))
	if err != nil {
		t.Fatal(err)
	}
	w, err := b.Upload(anID, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for err == nil {
		_, err = w.Write(bytes.Repeat([]byte("x"), 100_000))
	}
	if _, public := fault.Of(err); !errors.Is(err, content.ErrDiskFull) || public != "the disk is full" {
		t.Errorf("got %v", err)
	}
	if size, err := b.Stat(location); err != nil || size != 4 {
		t.Errorf("on a full disk: size %d, %v", size, err)
	}
	if err := b.RemoveUpload(anID); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, b, anID, 0, "again")

	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Upload(strings.Repeat("ab", 16), 0); !errors.Is(err, content.ErrReadOnly) {
		t.Errorf("on a read-only file system: %v", err)
	}
	if _, err := b.Commit(anID, oci.DigestOf(oci.SHA256, []byte("again"))); !errors.Is(err, content.ErrReadOnly) {
		t.Errorf("on a read-only file system: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "other")); !errors.Is(err, syscall.EROFS) || !strings.Contains(err.Error(), dir) {
		t.Errorf("opening a folder there: %v", err)
	}
}

func TestOpenOnAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(file)
	if err == nil || !strings.Contains(err.Error(), file) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %q", err)
	}
}

// Who comes while a folder is being flushed waits for the next flush, and
// shares it with all who came meanwhile.
func TestFlushesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan error)
		var flushes atomic.Int64
		f := flusher{flush: func(string) error {
			flushes.Add(1)
			return <-gate
		}}
		var all sync.WaitGroup
		failed := errors.New("failed")
		var failures atomic.Int64
		join := func(n int) {
			for range n {
				all.Go(func() {
					if f.wait("ab") != nil {
						failures.Add(1)
					}
				})
			}
			synctest.Wait()
		}
		join(1)
		join(10)
		if n := flushes.Load(); n != 1 {
			t.Fatalf("%d flushes at once", n)
		}
		gate <- nil // the first, for one
		synctest.Wait()
		join(5)
		gate <- failed // the second, for ten
		synctest.Wait()
		if n := failures.Load(); n != 10 {
			t.Errorf("%d were told of the failure, want the ten that shared it", n)
		}
		gate <- nil // the third, for five
		all.Wait()
		if n := flushes.Load(); n != 3 || failures.Load() != 10 || len(f.busy) != 0 {
			t.Errorf("%d flushes, %d failures, %d left", n, failures.Load(), len(f.busy))
		}
	})
}
