package ociapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"cove.example/cove/access"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

// What the protocol refuses before content is asked.
var (
	errNoRoute      = fault.New(fault.NotFound, "no such path")
	errTooLong      = fault.New(fault.Invalid, "the URL is longer than 8 KiB")
	errTwice        = fault.New(fault.Invalid, "more than one Authorization header")
	errEncoded      = fault.New(fault.Invalid, "a request body with Content-Encoding is not accepted: what is stored is what is hashed")
	errLength       = fault.New(fault.Invalid, "provided length did not match content length")
	errShortBody    = fault.New(fault.Invalid, "the request's body ended early")
	errRange        = fault.New(fault.Invalid, "the range is not satisfiable")
	errPrecondition = fault.New(fault.Stale, "a precondition of the request does not hold")
)

// methodError is a path that does not have the method.
type methodError struct{ allowed methods }

func (e methodError) Error() string { return "the method is not allowed here" }

// codes is the whole mapping from sentinels to the specification's words.
var codes = []struct {
	err    error
	code   string
	status int
}{
	{oci.ErrNameInvalid, "NAME_INVALID", http.StatusBadRequest},
	{oci.ErrNameUnknown, "NAME_UNKNOWN", http.StatusNotFound},
	{oci.ErrTagInvalid, "MANIFEST_INVALID", http.StatusBadRequest}, // the list has no word of its own for tags
	{oci.ErrDigestInvalid, "DIGEST_INVALID", http.StatusBadRequest},
	{oci.ErrManifestUnknown, "MANIFEST_UNKNOWN", http.StatusNotFound},
	{oci.ErrManifestInvalid, "MANIFEST_INVALID", http.StatusBadRequest},
	{oci.ErrManifestBlobUnknown, "MANIFEST_BLOB_UNKNOWN", http.StatusNotFound},
	{oci.ErrBlobUnknown, "BLOB_UNKNOWN", http.StatusNotFound},
	{oci.ErrBlobUploadUnknown, "BLOB_UPLOAD_UNKNOWN", http.StatusNotFound},
	{oci.ErrBlobUploadInvalid, "BLOB_UPLOAD_INVALID", http.StatusBadRequest},
	{oci.ErrRangeInvalid, "BLOB_UPLOAD_INVALID", http.StatusRequestedRangeNotSatisfiable},
	{oci.ErrSizeInvalid, "SIZE_INVALID", http.StatusRequestEntityTooLarge},
	{oci.ErrDisallowed, "REGISTRY_DISALLOWED_OPERATION", http.StatusMethodNotAllowed},
	{oci.ErrUnsupported, "UNSUPPORTED", http.StatusMethodNotAllowed},
	{errNoRoute, "NAME_UNKNOWN", http.StatusNotFound},
	{errTooLong, "UNSUPPORTED", http.StatusRequestURITooLong},
	{errEncoded, "SIZE_INVALID", http.StatusBadRequest},
	{errLength, "SIZE_INVALID", http.StatusBadRequest},
	{errShortBody, "BLOB_UPLOAD_INVALID", http.StatusBadRequest},
	{errRange, "UNSUPPORTED", http.StatusRequestedRangeNotSatisfiable},
	{errPrecondition, "UNSUPPORTED", http.StatusPreconditionFailed},
}

// byKind is what holds when no sentinel does.
var byKind = map[fault.Kind]problem{
	fault.Invalid:         {Code: "UNSUPPORTED", status: http.StatusBadRequest},
	fault.Unauthenticated: {Code: "UNAUTHORIZED", status: http.StatusUnauthorized},
	fault.Denied:          {Code: "DENIED", status: http.StatusForbidden},
	fault.NotFound:        {Code: "NAME_UNKNOWN", status: http.StatusNotFound},
	fault.Conflict:        {Code: "UNSUPPORTED", status: http.StatusConflict},
	fault.Stale:           {Code: "UNSUPPORTED", status: http.StatusPreconditionFailed},
	fault.TooLarge:        {Code: "SIZE_INVALID", status: http.StatusRequestEntityTooLarge},
	fault.Disallowed:      {Code: "REGISTRY_DISALLOWED_OPERATION", status: http.StatusMethodNotAllowed},
	fault.Throttled:       {Code: "TOOMANYREQUESTS", status: http.StatusTooManyRequests},
	fault.Unavailable:     {Code: "UNKNOWN", status: http.StatusServiceUnavailable},
	fault.Unsupported:     {Code: "UNSUPPORTED", status: http.StatusMethodNotAllowed},
	fault.Internal:        {Code: "UNKNOWN", status: http.StatusInternalServerError},
}

// problem is one entry of an error body.
type problem struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Detail  any    `json:"detail"`
	status  int
}

// fail writes err as the answer. It is the only function of the package that
// writes an error status.
func (s *Server) fail(x *exchange, err error) {
	if x.w.status != 0 {
		return // the answer has begun; its length will not be reached and the client sees that
	}
	p := describe(x, err)
	h := x.w.Header()
	for _, name := range []string{"Content-Disposition", "Docker-Content-Digest", "Etag", "Vary", "Content-Length"} {
		h.Del(name)
	}
	h.Set("Cache-Control", "no-store")
	if x.data {
		if e, ok := storage(err, x.ev.ID, x.ev.Time); ok {
			h.Set("Content-Type", "application/xml")
			h.Set("X-Ms-Error-Code", e.Code)
			x.w.WriteHeader(e.status)
			x.w.Write(e.encode())
			return
		}
	}
	h.Set("Content-Type", "application/json; charset=utf-8")
	if e, ok := errors.AsType[*access.Refused](err); ok && p.status == http.StatusUnauthorized {
		h.Set("Www-Authenticate", s.challenge(x, e.Verdict.Challenge))
	}
	if e, ok := errors.AsType[*access.Refused](err); ok && p.status == http.StatusTooManyRequests {
		h.Set("Retry-After", after(e.Verdict.Wait))
	}
	if e, ok := errors.AsType[methodError](err); ok {
		h.Set("Allow", e.allowed.String())
	}
	switch p.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "1")
		}
	case http.StatusInternalServerError:
		s.report(x, err)
	}
	x.w.WriteHeader(p.status)
	x.w.Write(encode(p))
}

// challenge is the guard's, which names an HTTPS address without port, as
// behind the operator's own TLS. A caller of the plain listener itself, whose
// Host has our port, is sent back the way it came.
func (s *Server) challenge(x *exchange, c string) string {
	port := s.ownPort(x)
	if port == "" {
		return c
	}
	return strings.Replace(c, `realm="https://`+x.ev.Host+`/`, `realm="http://`+x.ev.Host+":"+port+"/", 1)
}

// encode is the error envelope. Quotes go out as \u0027 because that is
// how the service that clients were written against sends them.
func encode(p problem) []byte {
	b, err := json.Marshal(struct {
		Errors []problem `json:"errors"`
	}{[]problem{p}})
	if err != nil {
		panic("ociapi: a detail that is not JSON: " + err.Error())
	}
	return append(bytes.ReplaceAll(b, []byte("'"), []byte(`\u0027`)), '\n')
}

// describe chooses code, sentence and detail.
func describe(x *exchange, err error) problem {
	if e, ok := errors.AsType[methodError](err); ok {
		return problem{Code: "UNSUPPORTED", Message: e.Error(), status: http.StatusMethodNotAllowed}
	}
	kind, public := fault.Of(err)
	p := byKind[kind]
	p.Message = public
	if e, ok := errors.AsType[*access.Refused](err); ok {
		p.Detail = refused(x.call, e.Verdict)
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			p.Code, p.status = c.code, c.status
			break
		}
	}
	if p.status == http.StatusNotFound {
		absent(&p, x.call, err)
	}
	return p
}

// absent gives the answers to what is not there the words that clients and
// scripts look for, whoever found out.
func absent(p *problem, c Call, err error) {
	switch {
	case errors.Is(err, oci.ErrNameUnknown):
		p.Message, p.Detail = "repository name not known to registry", map[string]string{"name": c.Repo.String()}
	case errors.Is(err, oci.ErrManifestUnknown) && (c.Kind == TagInfoGet || c.Kind == TagLock || c.Kind == TagDelete):
		p.Code, p.Message = "TAG_UNKNOWN", "the specified tag does not exist" // ACR's own, below /acr/v1
	case errors.Is(err, oci.ErrManifestUnknown) && c.Reference.Digest.IsZero():
		tag := c.Reference.Tag.String()
		p.Message, p.Detail = `manifest tagged by "`+tag+`" is not found`, map[string]string{"Tag": tag}
	case errors.Is(err, oci.ErrManifestUnknown):
		d := c.Reference.Digest.String()
		p.Message, p.Detail = "manifest "+d+" is not found", map[string]string{"Name": c.Repo.String(), "Revision": d}
	case errors.Is(err, oci.ErrBlobUnknown):
		p.Message, p.Detail = "blob unknown to registry", map[string]string{"digest": c.Digest.String()}
	}
}

// refused is what stands beside the guard's no: the reason where the network
// refused, else what was asked for. Only the network's no is a 403; a caller
// who may not is told the same as one who is unknown, and neither what exists.
func refused(c Call, v access.Verdict) any {
	if v.Refusal != access.Unauthenticated && v.Refusal != access.Permission {
		return v.Reason
	}
	var wanted []scopeDetail
	for _, w := range c.scopes() {
		wanted = append(wanted, scopeDetail{w.Type, w.Name, w.Action})
	}
	if wanted == nil {
		return nil
	}
	return wanted
}

// scopeDetail is a scope as error bodies spell it.
type scopeDetail struct {
	Type, Name, Action string
}

// report keeps the cause of an internal error, which the caller does not see,
// under the id that the caller does.
func (s *Server) report(x *exchange, err error) {
	log := s.Failures
	if log == nil {
		log = slog.Default()
	}
	if x.r.Context().Err() != nil {
		return // the caller has gone; nothing of ours failed
	}
	log.Error("request failed", "id", x.ev.ID, "op", x.call.Kind.String(), "repo", x.call.Repo.String(), "err", err)
}
