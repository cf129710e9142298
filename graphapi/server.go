// Package graphapi is the edge for graph.<domain>: the part of Microsoft
// Graph v1.0 by which az, Terraform and cove's own command manage
// applications, service principals, users, groups and secrets.
//
// Whoever is signed in may read the objects of its tenant. Whoever may give
// out roles on every subscription of the tenant may write them: a secret added
// to a principal is worth every role that the principal has.
package graphapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// Auth says who asks; access.ARM with this edge's audience does.
type Auth interface {
	// Authenticate reads an Authorization header, "" where there is none.
	Authenticate(ctx context.Context, authorization string) (resource.Caller, error)
}

// Config is what a Server is made of.
type Config struct {
	Directory *directory.Directory
	Auth      Auth
	Host      string // the configured name; links in answers begin with it, never with what a caller sent
	Now       func() time.Time
	Log       *slog.Logger // one line a request; nil is none
}

// Server answers requests to the directory.
type Server struct{ Config }

// New returns the server.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{c}
}

// What a caller may send.
const (
	maxURL  = 8 << 10
	maxBody = 256 << 10
)

// call is one request on its way.
type call struct {
	r      *http.Request
	w      http.ResponseWriter
	id     string // of the request, a GUID
	path   string
	query  url.Values
	caller resource.Caller
	params []string       // what the path has where its route has a star
	body   map[string]any // of a POST or PATCH
}

// reply is what a handler has to say; no body is 204.
type reply struct {
	status int
	body   any
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := s.Now()
	c := &call{r: r, w: w, id: directory.NewID()}
	h := w.Header()
	h.Set("Request-Id", c.id)
	h.Set("Client-Request-Id", c.id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	out, err := s.answer(r.Context(), c)
	var why string
	if err != nil {
		out, why = s.refuse(h, c, err), err.Error()
	}
	write(w, out)
	s.Log.LogAttrs(r.Context(), slog.LevelInfo, "directory request",
		slog.String("op", r.Method), slog.String("path", c.path), slog.String("id", c.id), slog.String("who", c.caller.ObjectID),
		slog.Int("status", out.status), slog.String("why", why), slog.Duration("took", s.Now().Sub(start)))
}

// answer asks who it is before anything else is looked at, and whether they
// may before anything is read.
func (s *Server) answer(ctx context.Context, c *call) (reply, error) {
	var err error
	if c.caller, err = s.Auth.Authenticate(ctx, c.r.Header.Get("Authorization")); err != nil {
		return reply{}, err
	}
	segments, err := split(c.r.RequestURI)
	if err != nil {
		return reply{}, err
	}
	c.path = "/" + strings.Join(segments, "/")
	op := find(c, segments)
	if op == nil {
		return reply{}, errRoute.Detail("Resource not found for the segment '%.60s'.", segments[len(segments)-1])
	}
	if op.writes {
		if err := s.mayWrite(ctx, c.caller); err != nil {
			return reply{}, err
		}
	}
	if c.query, err = query(c.r); err != nil {
		return reply{}, err
	}
	if op.method == http.MethodPost || op.method == http.MethodPatch {
		if c.body, err = body(c.w, c.r); err != nil {
			return reply{}, err
		}
	}
	return op.do(s, resource.As(ctx, c.caller), c)
}

const actionAssign = "Microsoft.Authorization/roleAssignments/write"

// mayWrite reports whether the caller may give out roles in all that the
// tenant has. Were one subscription enough, its administrator could add a
// secret to the owner of another and be its owner.
func (s *Server) mayWrite(ctx context.Context, by resource.Caller) error {
	subs, err := s.Directory.SubscriptionsOf(ctx, by.Tenant)
	if err != nil {
		return err
	}
	for _, sub := range subs {
		if by.May == nil || !by.May(actionAssign, resource.SubscriptionID(sub.ID)) {
			return errPrivileges
		}
	}
	if len(subs) == 0 {
		return errPrivileges
	}
	return nil
}

// split reads a path, which has one spelling: no empty or dot segment, and
// percent signs only before the few characters that ids and names may have
// and clients do escape.
func split(uri string) ([]string, error) {
	path, _, _ := strings.Cut(uri, "?")
	if len(uri) > maxURL || !strings.HasPrefix(path, "/") {
		return nil, errPath
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "" || plain == "." || plain == ".." || strings.ContainsFunc(plain, func(r rune) bool {
			return r <= ' ' || r > '~' || strings.ContainsRune(`%?<>&:;\/"^{}|`+"`", r)
		}) {
			return nil, errPath
		}
		for rest := s; ; {
			_, after, found := strings.Cut(rest, "%")
			if !found {
				break
			}
			if c, _ := url.PathUnescape("%" + after[:2]); !strings.Contains("@*()!',=+$#", c) {
				return nil, errPath
			}
			rest = after[2:]
		}
		segments[i] = plain
	}
	return segments, nil
}

func query(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errRequest.Detail("The query of the request is not valid.")
	}
	for name, v := range q {
		switch name {
		case "$filter", "$top", "$skiptoken":
		case "$select", "$count":
			// Both are about less or more in the answer, which has all.
		default:
			return nil, errQuery.Detail("The query option '%.40s' is not supported.", name)
		}
		if len(v) > 1 {
			return nil, errRequest.Detail("The query option '%.40s' is given more than once.", name)
		}
	}
	return q, nil
}

func body(w http.ResponseWriter, r *http.Request) (map[string]any, error) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, errBig
		}
		return nil, errRequest.Detail("The body could not be read to its end.")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var o map[string]any
	if err := d.Decode(&o); err != nil || o == nil {
		return nil, errRequest.Detail("The body must be a JSON object.")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errRequest.Detail("The body goes on after the JSON object.")
	}
	return o, nil
}

// The failures in Graph's words.
var (
	errRoute      = fault.Coded(fault.NotFound, "BadRequest", "there is nothing under this address")
	errPath       = fault.Coded(fault.Invalid, "BadRequest", "The request's path is not written as it must be.")
	errRequest    = fault.Coded(fault.Invalid, "Request_BadRequest", "the request is not valid")
	errQuery      = fault.Coded(fault.Invalid, "Request_UnsupportedQuery", "the query is not supported")
	errBig        = fault.Coded(fault.TooLarge, "Request_BadRequest", "The body is larger than the directory takes.")
	errPrivileges = fault.Coded(fault.Denied, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
)

var statuses = map[fault.Kind]int{
	fault.Internal:        http.StatusInternalServerError,
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Denied:          http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.Conflict:        http.StatusConflict,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.Unavailable:     http.StatusServiceUnavailable,
	fault.Unsupported:     http.StatusBadRequest,
}

// refuse is the reply to a request that failed. It is the only function of the
// package that knows statuses of failures.
func (s *Server) refuse(h http.Header, c *call, err error) reply {
	kind, public := fault.Of(err)
	status := statuses[kind]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	code := "InternalServerError"
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Code != "" {
		code = e.Code
	}
	switch status {
	case http.StatusUnauthorized:
		// az asks for new claims where it is told how; plain words otherwise.
		code = "InvalidAuthenticationToken"
		h.Set("WWW-Authenticate", `Bearer realm="", error="invalid_token"`)
	case http.StatusServiceUnavailable:
		code = "ServiceUnavailable"
		h.Set("Retry-After", "5")
	}
	return reply{status, map[string]any{"error": map[string]any{
		"code": code, "message": public,
		"innerError": map[string]any{"date": s.Now().UTC().Format("2006-01-02T15:04:05"), "request-id": c.id, "client-request-id": c.id},
	}}}
}

func write(w http.ResponseWriter, out reply) {
	if out.body == nil {
		w.WriteHeader(out.status)
		return
	}
	b, err := json.Marshal(out.body)
	if err != nil {
		panic(fmt.Sprintf("graphapi: an answer that is not JSON: %v", err)) // only our own values come here
	}
	w.Header().Set("Content-Type", "application/json; odata.metadata=minimal; odata.streaming=true; IEEE754Compatible=false; charset=utf-8")
	w.WriteHeader(out.status)
	_, _ = w.Write(append(b, '\n')) // a caller who has gone needs no answer
}
