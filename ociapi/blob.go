package ociapi

import (
	"io"
	"net/http"

	"cove.example/cove/oci"
)

// blobHeaders describes a blob. Its type is never the pusher's: a layer that
// is really a web page must not run in a browser that is shown its address.
func blobHeaders(h http.Header, d oci.Digest) {
	h["Content-Type"] = octets
	h["Content-Disposition"] = attachment
	immutable(h, d)
}

// immutable is for what a digest names. private and Vary keep a shared cache
// from handing one caller's answer to another.
func immutable(h http.Header, d oci.Digest) {
	s := d.String()
	h["Docker-Content-Digest"] = []string{s}
	h["Etag"] = []string{`"` + s + `"`}
	h["Cache-Control"] = forever
	h["Vary"] = perCaller
}

// blobGet is the one place that decides where a blob's bytes come from.
func (s *Server) blobGet(x *exchange) error {
	if x.away() {
		return s.redirect(x)
	}
	b, err := s.Content.OpenBlob(x.r.Context(), x.key, x.call.Digest)
	if err != nil {
		return err
	}
	defer b.File.Close()
	blobHeaders(x.w.Header(), b.Digest)
	return x.serve(b.File)
}

// blobHead answers as blobGet would, without opening the file: nothing reads
// from the section.
func (s *Server) blobHead(x *exchange) error {
	if x.away() {
		return s.redirect(x)
	}
	d, err := s.Content.StatBlob(x.r.Context(), x.key, x.call.Digest)
	if err != nil {
		return err
	}
	blobHeaders(x.w.Header(), d.Digest)
	return x.serve(io.NewSectionReader(nil, 0, d.Size))
}

func (s *Server) blobDelete(x *exchange) error {
	if err := s.Content.DeleteBlob(x.r.Context(), x.key, x.call.Digest); err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}
