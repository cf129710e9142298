// Package logapi is the edge for logs.<domain>: log queries as the API of
// Log Analytics has them.
//
//	POST /v1/workspaces/{id}/query          a subscription's id, or a workspace's customerId
//	POST /v1/subscriptions/{s}/…/query      a subscription, a group, a registry or a workspace
//
// A query sees only events of registries that its caller may read.
package logapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/insight"
	"cove.example/cove/kql"
	"cove.example/cove/link"
	"cove.example/cove/resource"
)

// Auth says who asks; access.ARM with this edge's audiences does.
type Auth interface {
	// Authenticate reads an Authorization header, "" where there is none.
	Authenticate(ctx context.Context, authorization string) (resource.Caller, error)
}

// Config is what a Server is made of.
type Config struct {
	Desk    *audit.Desk
	Service *resource.Service
	Auth    Auth
	Now     func() time.Time
	Log     *slog.Logger // one line a query; nil is none
}

// Server answers log queries.
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
	maxURL  = 48 << 10 // a GET has the query in it
	maxBody = 64 << 10
)

// The failures of a request, in the API's words (source: the reference of the
// Log Analytics API).
var (
	errPath   = fault.Coded(fault.NotFound, "PathNotFoundError", "The requested path does not exist")
	errMethod = fault.Coded(fault.Disallowed, "MethodNotAllowedError", "A query is a POST, or a GET")
	errBody   = fault.Coded(fault.Invalid, "BadArgumentError", "the request is not valid")
)

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := s.Now()
	id := uuid.NewString()
	h := w.Header()
	h.Set("X-Ms-Correlation-Request-Id", id)
	h.Set("Request-Id", id)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	caller, body, err := s.answer(w, r)
	status, why := http.StatusOK, ""
	if err != nil {
		status, body = refuse(h, err, id)
		why = err.Error()
	}
	write(w, status, body)
	s.Log.LogAttrs(r.Context(), slog.LevelInfo, "log query",
		slog.String("id", id), slog.String("who", caller.ObjectID), slog.String("from", link.From(r.Context()).Remote.Addr().String()),
		slog.Int("status", status), slog.String("why", why), slog.Duration("took", s.Now().Sub(start)))
}

// answer asks who it is before anything else is looked at.
func (s *Server) answer(w http.ResponseWriter, r *http.Request) (resource.Caller, any, error) {
	ctx := r.Context()
	caller, err := s.Auth.Authenticate(ctx, r.Header.Get("Authorization"))
	if err != nil {
		return caller, nil, err
	}
	target, ok := strings.CutPrefix(r.URL.EscapedPath(), "/v1")
	target, asks := strings.CutSuffix(target, "/query")
	if len(r.RequestURI) > maxURL || !ok || !asks {
		return caller, nil, errPath
	}
	text, interval, err := question(w, r)
	if err != nil {
		return caller, nil, err
	}
	viewer, err := s.viewer(ctx, caller, target)
	if err != nil {
		return caller, nil, err
	}
	a, err := s.Desk.Ask(ctx, text, interval, viewer)
	if err != nil {
		return caller, nil, err
	}
	return caller, a.Tables(), nil
}

// viewer is what the caller sees of what a path names.
func (s *Server) viewer(ctx context.Context, caller resource.Caller, target string) (audit.Viewer, error) {
	if id, ok := strings.CutPrefix(target, "/workspaces/"); ok {
		if id == "" || strings.ContainsAny(id, "/%") {
			return audit.Viewer{}, errPath
		}
		return insight.WorkspaceViewer(ctx, s.Service, caller, id, s.Now())
	}
	id, err := arm.ParseID(target)
	switch {
	case err != nil || id.Subscription() == "":
		return audit.Viewer{}, errPath
	case strings.EqualFold(id.Type(), insight.TypeWorkspaces):
		return insight.At(ctx, s.Service, caller, id, s.Now())
	}
	return insight.Viewer(ctx, s.Service, caller, id)
}

// question reads the query and its timespan.
func question(w http.ResponseWriter, r *http.Request) (text, interval string, err error) {
	switch r.Method {
	case http.MethodGet:
		q, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return "", "", errBody.Detail("The query of the request is not valid.")
		}
		text, interval = q.Get("query"), q.Get("timespan")
	case http.MethodPost:
		b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if _, big := errors.AsType[*http.MaxBytesError](err); big {
			return "", "", fault.Newf(fault.TooLarge, "The body is larger than %d bytes.", maxBody)
		}
		if err != nil {
			return "", "", errBody.Detail("The body could not be read to its end.")
		}
		var body struct {
			Query      string   `json:"query"`
			Timespan   string   `json:"timespan"`
			Workspaces []string `json:"workspaces"`
		}
		if err := json.Unmarshal(b, &body); err != nil {
			return "", "", errBody.Detail("The body is not JSON of the form {\"query\": \"…\", \"timespan\": \"PT1H\"}.")
		}
		if len(body.Workspaces) > 0 {
			return "", "", errBody.Detail("A query is about one workspace; ask about a subscription to see all of its registries.")
		}
		text, interval = body.Query, body.Timespan
	default:
		return "", "", errMethod
	}
	if text == "" {
		return "", "", errBody.Detail("The request has no query.")
	}
	return text, interval, nil
}

// statuses says how each kind of failure is answered.
var statuses = map[fault.Kind]int{
	fault.Internal:        http.StatusInternalServerError,
	fault.Invalid:         http.StatusBadRequest,
	fault.Unauthenticated: http.StatusUnauthorized,
	fault.Denied:          http.StatusForbidden,
	fault.NotFound:        http.StatusNotFound,
	fault.TooLarge:        http.StatusRequestEntityTooLarge,
	fault.Disallowed:      http.StatusMethodNotAllowed,
	fault.Throttled:       http.StatusTooManyRequests,
	fault.Unavailable:     http.StatusServiceUnavailable,
}

// refuse is the answer to a request that failed. What is wrong with a query is
// one level down, where the API's clients look for it.
func refuse(h http.Header, err error, id string) (int, any) {
	kind, public := fault.Of(err)
	status, ok := statuses[kind]
	if !ok {
		status = http.StatusInternalServerError
	}
	code := map[int]string{
		http.StatusUnauthorized: "AuthorizationRequiredError", http.StatusForbidden: "InsufficientAccessError",
		http.StatusRequestEntityTooLarge: "PayloadTooLargeError", http.StatusTooManyRequests: "ThrottledError",
		http.StatusServiceUnavailable: "ServiceUnavailable", http.StatusInternalServerError: "InternalServerError",
	}[status]
	inner := ""
	if e, isFault := errors.AsType[*fault.Error](err); isFault && e.Code != "" && status != http.StatusUnauthorized {
		code = e.Code
	}
	problem := map[string]any{"code": code, "message": public, "correlationId": id}
	for _, bound := range []error{kql.ErrSyntax, kql.ErrSemantic, kql.ErrRows, kql.ErrMemory, kql.ErrTime} {
		if errors.Is(err, bound) {
			inner = code
			problem["code"] = "BadArgumentError"
		}
	}
	if inner != "" {
		problem["innererror"] = map[string]any{"code": inner, "message": public}
	}
	switch status {
	case http.StatusUnauthorized:
		h.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
	case http.StatusMethodNotAllowed:
		h.Set("Allow", "GET, POST")
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		h.Set("Retry-After", "5")
	}
	return status, map[string]any{"error": problem}
}

// write encodes the body whole before the status, so that no half of one is
// ever sent as a success.
func write(w http.ResponseWriter, status int, body any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(body); err != nil {
		b.Reset()
		status = http.StatusInternalServerError
		b.WriteString(`{"error":{"code":"InternalServerError","message":"internal error"}}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	w.Write(b.Bytes()) // the caller may have gone; nothing is left to do for it
}
