package armapi

import (
	"maps"
	"net/http"
	"strconv"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

var (
	errDenied    = fault.Coded(fault.Denied, "AuthorizationFailed", "the caller lacks a permission")
	errNoRoute   = fault.Coded(fault.NotFound, "ResourceNotFound", "nothing is at this path")
	errNoRole    = fault.Coded(fault.NotFound, "RoleDefinitionDoesNotExist", "the role definition was not found")
	errNoMethod  = fault.Coded(fault.Disallowed, "MethodNotAllowed", "the method is not allowed here")
	errMediaType = fault.Coded(fault.Invalid, "UnsupportedMediaType", "The body must be application/json.")
)

// statuses says how each kind of failure is answered.
var statuses = map[fault.Kind]int{
	fault.Internal:        http.StatusInternalServerError,
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Denied:          http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Conflict:        http.StatusConflict,
	fault.Stale:           http.StatusPreconditionFailed,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.Disallowed:      http.StatusMethodNotAllowed,
	fault.Throttled:       http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
	fault.Unsupported:     http.StatusBadRequest,
}

// refuse is the reply to a request that failed, and sets the headers that go
// with it. It is the only function here that knows statuses of failures.
func (s *Server) refuse(h http.Header, err error) Reply {
	e := arm.Describe(err)
	kind, _ := fault.Of(err)
	status := statuses[kind]
	switch {
	case e.Error.Code == errMediaType.Code:
		status = http.StatusUnsupportedMediaType
	case status == http.StatusUnauthorized:
		words := strings.NewReplacer(`"`, "'", `\`, "/", "\r", " ", "\n", " ").Replace(e.Error.Message)
		h.Set("WWW-Authenticate", `Bearer authorization_uri="`+s.Authority+`", error="invalid_token", error_description="`+words+`"`)
	case status == http.StatusMethodNotAllowed:
		h.Set("Allow", "GET, HEAD")
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	}
	return Reply{Status: status, Body: e}
}

// write sends a reply. The body is encoded whole before the status, so that
// no half of one is ever sent as a success.
func write(w http.ResponseWriter, method string, reply Reply) {
	h := w.Header()
	maps.Copy(h, reply.Header)
	if reply.ETag != "" {
		h.Set("ETag", `"`+reply.ETag+`"`)
	}
	var b []byte
	if reply.Body != nil {
		var err error
		if b, err = resource.Append(nil, reply.Body); err != nil {
			reply.Status = http.StatusInternalServerError
			b = []byte(`{"error":{"code":"InternalServerError","message":"internal error"}}`)
		}
		b = append(b, '\n')
		h.Set("Content-Type", "application/json; charset=utf-8")
		h.Set("Content-Length", strconv.Itoa(len(b)))
	}
	w.WriteHeader(reply.Status)
	if method != http.MethodHead {
		w.Write(b) // the caller may have gone; nothing is left to do for it
	}
}
