// Package disk keeps the bytes of blobs in files below one folder:
//
//	uploads/<id>                     what is being uploaded
//	sha256/ab/<hex>.<suffix>         blobs, by the first byte of their digest
//	sha512/ab/<hex>.<suffix>
//
// The suffix is random and never comes again. So a file that is to be removed
// is never one that somebody has just written for the same content, and no
// lock is needed between the two.
//
// Every path is opened below the handle of the folder and is made of a digest
// or an id, never of a caller's text.
package disk

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

const (
	uploads = "uploads"

	folderMode = 0o700
	fileMode   = 0o600
)

// Blobs is content.Blobs in a folder.
type Blobs struct {
	root    *os.Root
	boot    string
	folders sync.Map // names of those that are durable
	flusher flusher
	stopped atomic.Pointer[error] // the flush that failed
}

var _ content.Blobs = (*Blobs)(nil)

// Open opens the folder, and makes it if it is not there. Its errors are for
// the operator who started the server.
func Open(dir string) (*Blobs, error) {
	if err := os.MkdirAll(dir, folderMode); err != nil {
		return nil, openError(dir, err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, openError(dir, err)
	}
	b := &Blobs{root: root, boot: bootID()}
	b.flusher.flush = b.flushFolder
	if err := b.prepare(); err != nil {
		_ = root.Close()
		return nil, openError(dir, err)
	}
	return b, nil
}

func openError(dir string, err error) error {
	kind, _ := fault.Of(failure(err))
	why := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		why = e.Err // the path is in the sentence already
	}
	return &fault.Error{Kind: kind, Public: fmt.Sprintf("the blob folder %s cannot be used: %v", dir, why), Err: err}
}

// prepare makes the first folders and flushes them, and takes for durable what
// stands in them after that.
func (b *Blobs) prepare() error {
	for _, name := range []string{uploads, oci.SHA256, oci.SHA512} {
		if err := b.makeFolder(name); err != nil {
			return err
		}
	}
	if err := b.flushFolder("."); err != nil {
		return err
	}
	for _, alg := range []string{oci.SHA256, oci.SHA512} {
		f, err := b.root.Open(alg)
		if err != nil {
			return err
		}
		names, err := f.Readdirnames(-1) // 256 at most, unless somebody plays
		_ = f.Close()                    // only read
		if err != nil {
			return err
		}
		if err := b.flushFolder(alg); err != nil {
			return err
		}
		for _, name := range names {
			b.folders.Store(alg+"/"+name, true)
		}
	}
	return nil
}

func (b *Blobs) makeFolder(name string) error {
	err := b.root.Mkdir(name, folderMode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// folder makes the folder of a digest durable. One that was found there may be
// another request's that has not been flushed yet, so only what is in folders
// counts.
func (b *Blobs) folder(d oci.Digest) (string, error) {
	name := d.Algorithm() + "/" + d.Hex()[:2]
	if _, ok := b.folders.Load(name); ok {
		return name, nil
	}
	if err := b.makeFolder(name); err != nil {
		return "", failure(err)
	}
	if err := b.flusher.wait(d.Algorithm()); err != nil {
		return "", err
	}
	b.folders.Store(name, true)
	return name, nil
}

// bootID is the kernel's name for the time since the machine started. Where
// there is none, every process is taken for a new start, which only costs
// reading uploads again.
func bootID() string {
	if id, err := os.ReadFile("/proc/sys/kernel/random/boot_id"); err == nil {
		return strings.TrimSpace(string(id))
	}
	return rand.Text()
}

// Boot implements content.Blobs.
func (b *Blobs) Boot() string { return b.boot }

// Close gives the folder back. Open files stay open.
func (b *Blobs) Close() error { return b.root.Close() }

// Stopped returns why nothing more is written, or nil: for the readiness
// check.
func (b *Blobs) Stopped() error {
	if cause := b.stopped.Load(); cause != nil {
		return content.ErrStopped.Because(*cause)
	}
	return nil
}

// failure puts what the system says into words for the caller.
func failure(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return content.ErrDiskFull.Because(err)
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return content.ErrReadOnly.Because(err)
	}
	return err
}

// flushed is failure for the result of a flush. A full disk is found out at
// the flush where space is given late, and loses only this file; after any
// other error what the kernel still holds of other files is unknown too.
func (b *Blobs) flushed(err error) error {
	if err == nil || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return failure(err)
	}
	b.stopped.CompareAndSwap(nil, &err)
	return content.ErrStopped.Because(err)
}

func (b *Blobs) flushFolder(name string) error {
	f, err := b.root.Open(name)
	if err != nil {
		return failure(err)
	}
	defer f.Close()
	return b.flushed(f.Sync())
}

// uploadPath refuses what StartUpload has not made.
func uploadPath(id string) (string, error) {
	if raw, err := hex.DecodeString(id); err != nil || len(raw) != 16 || strings.ToLower(id) != id {
		return "", oci.ErrBlobUploadUnknown
	}
	return uploads + "/" + id, nil
}

// Upload implements content.Blobs.
func (b *Blobs) Upload(id string, size int64) (io.WriteCloser, error) {
	if err := b.Stopped(); err != nil {
		return nil, err
	}
	name, err := uploadPath(id)
	if err != nil {
		return nil, err
	}
	flags := os.O_WRONLY
	if size == 0 {
		flags |= os.O_CREATE
	}
	f, err := b.root.OpenFile(name, flags, fileMode)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, content.ErrShort.Because(err)
	}
	if err != nil {
		return nil, failure(err)
	}
	if err := cut(f, size); err != nil {
		_ = f.Close() // nothing has been written
		return nil, err
	}
	return uploadFile{f, b}, nil
}

// cut leaves size bytes: what stands behind them came after the session was
// last saved.
func cut(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < size {
		return content.ErrShort
	}
	if info.Size() > size {
		if err := f.Truncate(size); err != nil {
			return failure(err)
		}
	}
	_, err = f.Seek(size, io.SeekStart)
	return err
}

type uploadFile struct {
	*os.File
	b *Blobs
}

func (f uploadFile) Write(p []byte) (int, error) {
	if err := f.b.Stopped(); err != nil {
		return 0, err
	}
	n, err := f.File.Write(p)
	return n, failure(err)
}

// OpenUpload implements content.Blobs.
func (b *Blobs) OpenUpload(id string) (io.ReadCloser, error) {
	name, err := uploadPath(id)
	if err != nil {
		return nil, err
	}
	return b.root.Open(name)
}

// Commit implements content.Blobs. The file's time is set first: Collect takes
// a file that has no row for a leaving once it is old, and an upload may have
// got its last byte long ago.
func (b *Blobs) Commit(id string, d oci.Digest) (string, error) {
	if err := b.Stopped(); err != nil {
		return "", err
	}
	from, err := uploadPath(id)
	if err != nil {
		return "", err
	}
	folder, err := b.folder(d)
	if err != nil {
		return "", err
	}
	to := folder + "/" + d.Hex() + "." + strings.ToLower(rand.Text()[:16])
	now := time.Now()
	if err := b.root.Chtimes(from, now, now); err != nil {
		return "", failure(err)
	}
	f, err := b.root.OpenFile(from, os.O_WRONLY, fileMode)
	if err != nil {
		return "", failure(err)
	}
	err = b.flushed(f.Sync())
	_ = f.Close() // flushed, or given up
	if err != nil {
		return "", err
	}
	if err := b.root.Rename(from, to); err != nil {
		return "", failure(err)
	}
	if err := b.flusher.wait(folder); err != nil {
		return "", err
	}
	return to, nil
}

// RemoveUpload implements content.Blobs.
func (b *Blobs) RemoveUpload(id string) error {
	name, err := uploadPath(id)
	if err != nil {
		return err
	}
	return b.remove(name)
}

// remove may be undone by a power cut. The file is then found again as one
// that no row names.
func (b *Blobs) remove(name string) error {
	err := b.root.Remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return failure(err)
}

// digestAt returns the digest of the blob at location, if it is one that
// Commit makes.
func digestAt(location string) (oci.Digest, bool) {
	alg, rest, _ := strings.Cut(location, "/")
	folder, file, _ := strings.Cut(rest, "/")
	name, suffix, _ := strings.Cut(file, ".")
	d, err := oci.ParseDigest(alg + ":" + name)
	if err != nil || folder != name[:2] || len(suffix) != 16 || strings.Trim(suffix, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return oci.Digest{}, false
	}
	return d, true
}

func blobPath(location string) (string, error) {
	if _, ok := digestAt(location); !ok {
		return "", fmt.Errorf("disk: %q is no blob's place", location)
	}
	return location, nil
}

// Stat implements content.Blobs.
func (b *Blobs) Stat(location string) (int64, error) {
	name, err := blobPath(location)
	if err != nil {
		return 0, err
	}
	info, err := b.root.Stat(name)
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Open implements content.Blobs. Its File is an *os.File.
func (b *Blobs) Open(location string) (content.Bytes, error) {
	name, err := blobPath(location)
	if err != nil {
		return content.Bytes{}, err
	}
	f, err := b.root.Open(name)
	if err != nil {
		return content.Bytes{}, err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close() // only read
		return content.Bytes{}, err
	}
	return content.Bytes{File: f, Size: info.Size(), Modified: info.ModTime()}, nil
}

// Remove implements content.Blobs.
func (b *Blobs) Remove(location string) error {
	name, err := blobPath(location)
	if err != nil {
		return err
	}
	return b.remove(name)
}

// EachUpload implements content.Blobs.
func (b *Blobs) EachUpload(before time.Time, fn func(id string) error) error {
	return b.each(uploads, before, func(info fs.FileInfo) error {
		if _, err := uploadPath(info.Name()); err != nil {
			return nil // not ours
		}
		return fn(info.Name())
	})
}

// EachBlob implements content.Blobs.
func (b *Blobs) EachBlob(before time.Time, fn func(location string, d oci.Digest, size int64) error) error {
	for _, alg := range []string{oci.SHA256, oci.SHA512} {
		for i := range 256 {
			folder := path.Join(alg, hex.EncodeToString([]byte{byte(i)}))
			err := b.each(folder, before, func(info fs.FileInfo) error {
				location := folder + "/" + info.Name()
				d, ok := digestAt(location)
				if !ok {
					return nil // not ours
				}
				return fn(location, d, info.Size())
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// each calls fn for the files of a folder that are older than before, a
// thousand names in memory at a time.
func (b *Blobs) each(folder string, before time.Time, fn func(fs.FileInfo) error) error {
	f, err := b.root.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing has been put there yet
	}
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		list, err := f.ReadDir(1000)
		for _, e := range list {
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() || !info.ModTime().Before(before) {
				continue
			}
			if err := fn(info); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
