package content

import (
	"context"
	"crypto/rand"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

// errBusy is for the second of two requests that write to one upload at once.
var errBusy = fault.New(fault.Conflict, "another request is writing to this upload")

var errAlgorithm = oci.ErrDigestInvalid.Detail("the digest algorithm is neither sha256 nor sha512")

// saveBytes is how often a body in flight is put on record: what the death of
// the process can cost a client is this much and not the whole of a layer.
const saveBytes = 64 << 20

// saveTime bounds what is written for a client that has gone.
const saveTime = 30 * time.Second

// chunkSize is what is hashed and written at a time: large enough that system
// calls do not show, small enough for many uploads at once.
const chunkSize = 256 << 10

var chunks = sync.Pool{New: func() any { return new([chunkSize]byte) }}

// claims are the sessions that a request of this process is writing to. The
// offset in the row is the fence against any other process.
type claims struct {
	mu   sync.Mutex
	held map[string]struct{}
}

func (c *claims) take(id string) (release func(), err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.held[id]; ok {
		return nil, errBusy
	}
	c.held[id] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.held, id)
	}, nil
}

// StartUpload implements Service.
func (s *Store) StartUpload(ctx context.Context, k Key, alg string) (Upload, error) {
	if alg == "" {
		alg = oci.SHA256
	}
	if _, ok := oci.NewHash(alg); !ok {
		return Upload{}, errAlgorithm
	}
	// 128 random bits: an id cannot be guessed, and still opens nothing in
	// another repository.
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	u := Upload{ID: hex.EncodeToString(id[:]), Key: k}
	return u, s.rows.AddUpload(ctx, UploadRow{Upload: u, Alg: alg, Boot: s.bytes.Boot(), Changed: s.o.Now()})
}

// UploadStatus implements Service.
func (s *Store) UploadStatus(ctx context.Context, k Key, id string) (Upload, error) {
	u, err := s.rows.Upload(ctx, k, id)
	return u.Upload, err
}

// Append implements Service.
func (s *Store) Append(ctx context.Context, k Key, id string, at int64, r io.Reader) (Upload, error) {
	w, err := s.resume(ctx, k, id, at)
	if err != nil {
		return Upload{}, err
	}
	defer w.release()
	if err := w.take(ctx, r); err != nil {
		return w.row.Upload, err
	}
	return w.row.Upload, w.save(ctx)
}

// Finish implements Service.
//
// The order is what a crash may interrupt anywhere: bytes flushed, renamed to
// a place that no other upload has, folder flushed, row. Before the row there
// is only a file that Collect will find.
func (s *Store) Finish(ctx context.Context, k Key, id string, at int64, r io.Reader, want oci.Digest) (oci.Descriptor, error) {
	w, err := s.resume(ctx, k, id, at)
	if err != nil {
		return oci.Descriptor{}, err
	}
	defer w.release()
	if err := w.take(ctx, r); err != nil {
		return oci.Descriptor{}, err
	}
	got, err := w.digest(ctx, want.Algorithm())
	if err != nil {
		return oci.Descriptor{}, err
	}
	if got != want {
		w.remove(ctx)
		return oci.Descriptor{}, oci.ErrDigestInvalid.Detail("expected %s, but the %d bytes uploaded are %s", want, w.row.Offset, got)
	}
	b := BlobRow{Digest: want, Size: w.row.Offset, Used: s.o.Now()}
	if b.Location, err = s.bytes.Commit(id, want); err != nil {
		return oci.Descriptor{}, fmt.Errorf("commit blob %s: %w", want, err)
	}
	if err := s.own(ctx, k, b, id); err != nil {
		return oci.Descriptor{}, err
	}
	return oci.Descriptor{Digest: want, Size: b.Size}, nil
}

// own makes b's row, or adopts the one that is there. Whoever's bytes are not
// the row's in the end are removed, and the row's are whole in the end: this
// is how a re-push heals what the disk has lost.
//
// A client that has gone does not stop it: with its bytes moved, the session
// could not be resumed.
func (s *Store) own(ctx context.Context, k Key, b BlobRow, upload string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	row, err := s.rows.AddBlob(ctx, k, b, upload)
	if err != nil {
		return err // it may have been committed: the bytes stay for Collect to judge
	}
	defer s.held.drop(place{k, b.Digest.String()})
	for row.Location != b.Location {
		size, err := s.bytes.Stat(row.Location)
		err = whole(row, size, err)
		if err == nil && !row.Bad {
			_ = s.bytes.Remove(b.Location) // else Collect will
			return nil
		}
		if err != nil && !errors.Is(err, oci.ErrBlobUnknown) {
			return err
		}
		replaced, err := s.rows.ReplaceBlob(ctx, row, b)
		if err != nil {
			return err
		}
		if replaced {
			s.held.clear() // other repositories' rows name the old place
			_ = s.bytes.Remove(row.Location)
			return nil
		}
		// Another upload healed it first, or the scrubber changed its mind.
		if row, err = s.rows.Blob(ctx, k, b.Digest); err != nil {
			return err
		}
	}
	return nil
}

// CancelUpload implements Service.
func (s *Store) CancelUpload(ctx context.Context, k Key, id string) error {
	release, err := s.claims.take(id)
	if err != nil {
		return err
	}
	defer release()
	if _, err := s.rows.Upload(ctx, k, id); err != nil {
		return err
	}
	if err := s.rows.RemoveUpload(ctx, id); err != nil {
		return err
	}
	return s.bytes.RemoveUpload(id)
}

// writer is a claimed session, open behind its last byte.
type writer struct {
	s     *Store
	row   UploadRow
	from  int64 // where it stands on record
	hash  hash.Hash
	file  io.WriteCloser // nil once closed
	freed func()
}

func (s *Store) resume(ctx context.Context, k Key, id string, at int64) (_ *writer, err error) {
	release, err := s.claims.take(id)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	row, err := s.rows.Upload(ctx, k, id)
	if err != nil {
		return nil, err
	}
	if at != -1 && at != row.Offset {
		return nil, oci.ErrRangeInvalid.Detail("the upload stands at %d, not at %d", row.Offset, at)
	}
	w := &writer{s: s, row: row, from: row.Offset, freed: release}
	if w.hash, err = unmarshal(row.Alg, row.Hash); err != nil {
		return nil, fmt.Errorf("resume upload %s: %w", id, err)
	}
	w.file, err = s.bytes.Upload(id, row.Offset)
	if errors.Is(err, ErrShort) {
		// Power was lost, or Finish ended between its rename and its row.
		// The client can only begin again.
		w.remove(ctx)
		return nil, oci.ErrBlobUploadUnknown.Because(err)
	}
	if err != nil {
		return nil, fmt.Errorf("resume upload %s: %w", id, err)
	}
	return w, nil
}

func unmarshal(alg string, state []byte) (hash.Hash, error) {
	h, ok := oci.NewHash(alg)
	if !ok {
		return nil, fmt.Errorf("no digest algorithm %q", alg)
	}
	if len(state) == 0 {
		return h, nil
	}
	return h, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}

// take writes r behind what is there. On any failure what was written before
// it is saved, so that the client can go on from there.
func (w *writer) take(ctx context.Context, r io.Reader) (err error) {
	if r == nil {
		r = eof{}
	}
	buf := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	for err == nil {
		var got int
		if err = ctx.Err(); err != nil {
			break
		}
		got, err = fill(r, buf[:])
		if got > 0 {
			if _, werr := w.file.Write(buf[:got]); werr != nil {
				err = fmt.Errorf("write upload %s: %w", w.row.ID, werr)
				break
			}
			w.hash.Write(buf[:got])
			w.row.Offset += int64(got)
			if w.row.Offset-w.from >= saveBytes {
				if serr := w.save(ctx); serr != nil {
					err = serr
					break
				}
			}
		}
	}
	if err != io.EOF { // itself: one that wraps it is a body that broke off
		return errors.Join(err, w.save(ctx))
	}
	if err := w.close(); err != nil {
		return fmt.Errorf("write upload %s: %w", w.row.ID, err)
	}
	return nil
}

// fill reads until buf is full, so that a body that comes in small records is
// not written in as small pieces.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for idle := 0; n < len(buf) && err == nil; {
		var got int
		got, err = r.Read(buf[n:])
		n += got
		if got > 0 {
			idle = 0
		} else if idle++; idle > 100 && err == nil {
			err = io.ErrNoProgress
		}
	}
	return n, err
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// save records where the session stands now. It does so for a client that has
// gone, too: what arrived can be resumed.
func (w *writer) save(ctx context.Context) error {
	if w.row.Offset == w.from {
		return nil
	}
	state, err := w.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	w.row.Hash, w.row.Changed = state, w.s.o.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	ok, err := w.s.rows.SaveUpload(ctx, w.from, w.row)
	if err == nil && !ok {
		err = errBusy
	}
	if err == nil {
		w.from = w.row.Offset
	}
	return err
}

// digest returns the digest under alg of all bytes of the session. They are
// read again only when the running hash is of another algorithm, or when the
// machine has been started anew since: then bytes that were hashed as they
// came may never have reached the disk.
func (w *writer) digest(ctx context.Context, alg string) (oci.Digest, error) {
	if alg == w.row.Alg && (w.row.Boot == w.s.bytes.Boot() || w.from == 0) {
		return oci.FromHash(alg, w.hash), nil
	}
	h, ok := oci.NewHash(alg)
	if !ok {
		return oci.Digest{}, errAlgorithm
	}
	f, err := w.s.bytes.OpenUpload(w.row.ID)
	if err != nil {
		return oci.Digest{}, fmt.Errorf("read upload %s: %w", w.row.ID, err)
	}
	defer f.Close()
	if err := copyTo(ctx, h, f); err != nil {
		return oci.Digest{}, fmt.Errorf("read upload %s: %w", w.row.ID, err)
	}
	return oci.FromHash(alg, h), nil
}

func copyTo(ctx context.Context, h hash.Hash, r io.Reader) error {
	buf := chunks.Get().(*[chunkSize]byte)
	defer chunks.Put(buf)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf[:])
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// remove takes the session away, row first: a row without bytes would be
// resumed. Bytes that stay are Collect's.
func (w *writer) remove(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), saveTime)
	defer cancel()
	if err := w.s.rows.RemoveUpload(ctx, w.row.ID); err == nil {
		_ = w.s.bytes.RemoveUpload(w.row.ID)
	}
}

func (w *writer) close() error {
	f := w.file
	if w.file = nil; f == nil {
		return nil
	}
	return f.Close()
}

func (w *writer) release() {
	_ = w.close() // after a failure that is being reported already
	w.freed()
}
