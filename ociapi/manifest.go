package ociapi

import (
	"bytes"
	"net/http"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

func (s *Server) manifestGet(x *exchange) error {
	x.note(opPull)
	return s.manifestHead(x)
}

// manifestHead answers GET too. The type is the one that was pushed whatever
// Accept says: a digest that is an image to one client and an index to
// another was CVE-2021-41190.
func (s *Server) manifestHead(x *exchange) error {
	m, err := s.Content.Manifest(x.r.Context(), x.key, x.call.Reference)
	if err != nil {
		return err
	}
	x.found(m)
	h := x.w.Header()
	immutable(h, m.Digest)
	if x.call.Reference.Digest.IsZero() {
		h["Cache-Control"] = revalidate // a tag moves
	}
	h["Content-Type"] = []string{m.MediaType}
	return x.serve(bytes.NewReader(m.Body))
}

func (s *Server) manifestPut(x *exchange) error {
	x.note(opPush)
	b, err := manifestBody(x)
	if err != nil {
		return err
	}
	m, err := s.Content.PutManifest(x.r.Context(), x.key, x.r.Header.Get("Content-Type"), b, x.call.Reference.Digest, x.call.Tags)
	if err != nil {
		return err
	}
	x.found(m)
	h := x.w.Header()
	h.Set("Location", "/v2/"+x.call.Repo.String()+"/manifests/"+m.Digest.String())
	h.Set("Docker-Content-Digest", m.Digest.String())
	if !m.Subject.IsZero() {
		h.Set("OCI-Subject", m.Subject.String())
	}
	if !x.call.Reference.Digest.IsZero() {
		for _, t := range m.Tags {
			h.Add("OCI-Tag", t.String())
		}
	}
	x.w.WriteHeader(http.StatusCreated)
	return nil
}

// manifestBody reads no more than a manifest may have, declared or not
// (CVE-2017-11468).
func manifestBody(x *exchange) ([]byte, error) {
	if x.r.ContentLength > oci.MaxManifest {
		return nil, oci.ErrSizeInvalid.Detail("the limit of a manifest is %d bytes", oci.MaxManifest)
	}
	src := &body{r: http.MaxBytesReader(x.w.ResponseWriter, x.r.Body, oci.MaxManifest)}
	var b bytes.Buffer
	if n := x.r.ContentLength; n > 0 {
		b.Grow(int(min(n, 64<<10)) + bytes.MinRead) // no more for a promise
	}
	if _, err := b.ReadFrom(src); err != nil {
		return nil, src.blame(err)
	}
	return b.Bytes(), nil
}

// manifestDelete removes a tag by its name, a manifest with all its tags by
// its digest.
func (s *Server) manifestDelete(x *exchange) error {
	var err error
	if ref := x.call.Reference; ref.Digest.IsZero() {
		x.note(opUntag)
		err = s.Content.DeleteTag(x.r.Context(), x.key, ref.Tag)
	} else {
		x.note(opDelete)
		err = s.Content.DeleteManifest(x.r.Context(), x.key, ref.Digest)
	}
	if err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusAccepted)
	return nil
}

// note has the request recorded as an operation on the repository.
func (x *exchange) note(operation string) {
	x.ev.Table, x.ev.Operation = repositoryEvents, operation
	x.ev.Tag, x.ev.Digest = x.call.Reference.Tag.String(), x.call.Reference.Digest.String()
}

func (x *exchange) found(m content.Manifest) {
	x.ev.Digest, x.ev.MediaType, x.ev.ArtifactType, x.ev.Size = m.Digest.String(), m.MediaType, m.ArtifactType, m.Size
}
