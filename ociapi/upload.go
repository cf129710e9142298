package ociapi

import (
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// maxBlob is the largest layer, 200 GiB as Azure documents it.
const maxBlob = 200 << 30

// whole is the position of a body that says nothing of where it belongs: it
// goes where the upload stands.
const whole = -1

func (s *Server) uploadStart(x *exchange) error {
	up, err := s.Content.StartUpload(x.r.Context(), x.key, x.call.Algorithm)
	if err != nil {
		return err
	}
	return x.standing(up, http.StatusAccepted)
}

// uploadMount takes a blob over from another repository, or opens a session
// when that one does not have it.
func (s *Server) uploadMount(x *exchange) error {
	d, err := s.Content.Mount(x.r.Context(), x.key, x.call.From, x.call.Digest)
	if errors.Is(err, oci.ErrBlobUnknown) || errors.Is(err, oci.ErrNameUnknown) {
		return s.uploadStart(x)
	}
	if err != nil {
		return err
	}
	return x.created(d)
}

// uploadWhole is a session of one request.
func (s *Server) uploadWhole(x *exchange) error {
	body, at, err := chunk(x)
	if err != nil {
		return err
	}
	ctx := x.r.Context()
	up, err := s.Content.StartUpload(ctx, x.key, x.call.Algorithm)
	if err != nil {
		return err
	}
	d, err := s.Content.Finish(ctx, x.key, up.ID, at, body, x.call.Digest)
	if err != nil {
		// Nobody knows the session's id. What cannot be removed now is
		// collected with the other abandoned uploads.
		_ = s.Content.CancelUpload(ctx, x.key, up.ID)
		return body.blame(err)
	}
	return x.created(d)
}

func (s *Server) uploadStatus(x *exchange) error {
	up, err := s.Content.UploadStatus(x.r.Context(), x.key, x.call.Upload)
	if err != nil {
		return err
	}
	return x.standing(up, http.StatusNoContent)
}

func (s *Server) uploadAppend(x *exchange) error {
	body, at, err := chunk(x)
	if err != nil {
		return err
	}
	up, err := s.Content.Append(x.r.Context(), x.key, x.call.Upload, at, body)
	if err != nil {
		return s.outOfOrder(x, body.blame(err))
	}
	return x.standing(up, http.StatusAccepted)
}

func (s *Server) uploadFinish(x *exchange) error {
	body, at, err := chunk(x)
	if err != nil {
		return err
	}
	d, err := s.Content.Finish(x.r.Context(), x.key, x.call.Upload, at, body, x.call.Digest)
	if err != nil {
		return s.outOfOrder(x, body.blame(err))
	}
	return x.created(d)
}

func (s *Server) uploadCancel(x *exchange) error {
	if err := s.Content.CancelUpload(x.r.Context(), x.key, x.call.Upload); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusNoContent)
	return nil
}

// outOfOrder tells the sender of a chunk that does not fit where the upload
// stands, so that it need not ask.
func (s *Server) outOfOrder(x *exchange, err error) error {
	if errors.Is(err, oci.ErrRangeInvalid) {
		if up, statusErr := s.Content.UploadStatus(x.r.Context(), x.key, x.call.Upload); statusErr == nil {
			x.position(up)
		}
	}
	return err
}

// standing answers with where the upload is. Everything that the session
// needs is in the path: clients lose query parameters.
func (x *exchange) standing(up content.Upload, status int) error {
	x.position(up)
	x.w.WriteHeader(status)
	return nil
}

func (x *exchange) position(up content.Upload) {
	h := x.w.Header()
	h.Set("Location", "/v2/"+x.call.Repo.String()+"/blobs/uploads/"+up.ID)
	h.Set("Range", "0-"+strconv.FormatInt(max(up.Offset-1, 0), 10)) // of nothing too: the grammar has no empty range
	h.Set("Docker-Upload-UUID", up.ID)
}

// created answers with where the blob is now.
func (x *exchange) created(d oci.Descriptor) error {
	h := x.w.Header()
	h.Set("Location", "/v2/"+x.call.Repo.String()+"/blobs/"+d.Digest.String())
	h.Set("Docker-Content-Digest", d.Digest.String())
	x.w.WriteHeader(http.StatusCreated)
	return nil
}

// contentRange is the specification's form, not RFC 9110's.
var contentRange = regexp.MustCompile(`^([0-9]{1,18})-([0-9]{1,18})$`)

// chunk returns a request's body and where it belongs. A body with a range
// has to have its length: bytes beyond it would be part of the blob before
// anyone could object.
func chunk(x *exchange) (*body, int64, error) {
	length := x.r.ContentLength
	if length > maxBlob {
		return nil, 0, oci.ErrSizeInvalid.Detail("the limit of a blob is %d bytes", int64(maxBlob))
	}
	b := &body{r: http.MaxBytesReader(x.w.ResponseWriter, x.r.Body, maxBlob)}
	values := x.r.Header.Values("Content-Range")
	if len(values) == 0 {
		return b, whole, nil
	}
	m := contentRange.FindStringSubmatch(values[0])
	if len(values) > 1 || m == nil {
		return nil, 0, oci.ErrBlobUploadInvalid.Detail("Content-Range is not START-END in decimal digits")
	}
	start, _ := strconv.ParseInt(m[1], 10, 64) // 18 digits fit
	end, _ := strconv.ParseInt(m[2], 10, 64)
	switch {
	case end < start:
		return nil, 0, oci.ErrBlobUploadInvalid.Detail("Content-Range ends before it starts")
	case end >= maxBlob:
		return nil, 0, oci.ErrSizeInvalid.Detail("the limit of a blob is %d bytes", int64(maxBlob))
	case length != end-start+1:
		return nil, 0, errLength.Detail("Content-Range %s is not what Content-Length says", values[0])
	}
	return b, start, nil
}

// body remembers that reading a request failed, so that a caller who hangs up
// or sends too much is not reported as a failure of the server.
type body struct {
	r   io.Reader
	err error
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && err != io.EOF {
		b.err = err
	}
	return n, err
}

// blame returns whose failure err is.
func (b *body) blame(err error) error {
	switch {
	case b.err == nil:
		return err
	case tooLarge(b.err):
		return oci.ErrSizeInvalid.Because(b.err)
	}
	return errShortBody.Because(b.err)
}

func tooLarge(err error) bool {
	_, ok := errors.AsType[*http.MaxBytesError](err)
	return ok
}
