// Package armapi is the edge for management.<domain>: Azure Resource Manager
// as its command line, its SDKs and Terraform speak it.
//
// Every request goes the same way: who is it, is the path written as it must
// be, may they, what do they send, and then one call of the resource service
// or of a route that was given to New. Handlers return what they have to say
// or an error; Server.ServeHTTP is the only one that writes.
package armapi

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/link"
	"cove.example/cove/resource"
)

// Auth says who asks. The error for one who cannot be told is
// fault.Unauthenticated.
type Auth interface {
	// Authenticate reads an Authorization header, "" where there is none.
	Authenticate(ctx context.Context, authorization string) (resource.Caller, error)
}

// Config is what a Server is made of.
type Config struct {
	Service   *resource.Service
	Auth      Auth
	Host      string // the configured name; links in answers begin with it, never with what a caller sent
	Authority string // where to sign in, for the challenge: https://login.cove.internal/TENANT
	Extra     []Route
	// Groups says which groups a principal is in, for lists of what is
	// assigned to it; nil is none.
	Groups func(ctx context.Context, principal string) ([]string, error)
	// History is what the activity log is made of; nil is no activity log.
	History resource.History
	// Refusals is where changes that were refused are kept for the activity
	// log; nil keeps none.
	Refusals audit.Log
	Now      func() time.Time
	Log      *slog.Logger // one line a request; nil is none
}

// Server answers the requests of the control plane.
type Server struct {
	Config
	routes []route
}

// New returns the server. It fails where a route does not say who may use it.
func New(c Config) (*Server, error) {
	s := &Server{Config: c}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	for _, r := range slices.Concat(c.Extra, s.builtin()) {
		compiled, err := compile(r)
		if err != nil {
			return nil, err
		}
		s.routes = append(s.routes, compiled)
	}
	return s, nil
}

// Call is one request as a handler gets it.
type Call struct {
	Method    string
	Path      string            // canonical
	ID        arm.ID            // what the path names, or lies in: its longest prefix that is an id
	Params    map[string]string // by the names in the route's pattern
	Query     url.Values
	Body      resource.Object // nil where there was none
	Condition resource.Condition
	Caller    resource.Caller
	Origin    link.Origin
	Request   string // the correlation id, a GUID

	lacks lacked
}

// Reply is what a handler has to say.
type Reply struct {
	Status int
	Body   any // nil is none
	ETag   string
	Header http.Header // further headers; nil is none
}

// ServeHTTP answers one request and logs it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := s.Now()
	c := &Call{Method: r.Method, Origin: link.From(r.Context()), Request: uuid.NewString()}
	h := w.Header()
	h.Set("X-Ms-Request-Id", c.Request)
	h.Set("X-Ms-Correlation-Request-Id", c.Request)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Strict-Transport-Security", "max-age=31536000")
	if strings.EqualFold(r.Header.Get("X-Ms-Return-Client-Request-Id"), "true") {
		if id := r.Header.Get("X-Ms-Client-Request-Id"); len(id) <= 128 {
			h.Set("X-Ms-Client-Request-Id", id)
		}
	}
	reply, err := s.answer(c, w, r)
	var why string
	if err != nil {
		reply = s.refuse(h, err)
		s.refused(c, r, reply.Status)
		why = err.Error()
	}
	write(w, r.Method, reply)
	s.Log.LogAttrs(r.Context(), slog.LevelInfo, "request",
		slog.String("op", c.Method), slog.String("path", c.Path), slog.String("id", c.Request),
		slog.String("who", c.Caller.ObjectID), slog.String("from", c.Origin.Remote.Addr().String()),
		slog.Int("status", reply.Status), slog.String("why", why), slog.Duration("took", s.Now().Sub(start)))
}

// answer takes a request through its questions, in the order that tells a
// stranger least: nobody learns whether a path, a version or a body was right
// before it is known who asks.
func (s *Server) answer(c *Call, w http.ResponseWriter, r *http.Request) (Reply, error) {
	ctx := r.Context()
	segments, spelling := canonical(r)
	if spelling == nil {
		c.Path = "/" + strings.Join(segments, "/")
	}
	op, known := s.find(c, segments)
	if !known || !op.Open {
		caller, err := s.Auth.Authenticate(ctx, r.Header.Get("Authorization"))
		if err != nil {
			return Reply{}, err
		}
		c.Caller = caller
		c.Caller.Request = c.Request
		c.Caller.May = c.lacks.watch(caller.May)
	}
	if spelling != nil {
		return Reply{}, spelling
	}
	var err error
	if c.Query, err = query(r); err != nil {
		return Reply{}, err
	}
	if !known {
		return Reply{}, errNoRoute.Detail("Nothing is at %.200q for %s.", c.Path, c.Method)
	}
	if op.Action != "" {
		if err := c.may(op.Action, c.ID); err != nil {
			return Reply{}, err
		}
	}
	if !op.Open {
		if len(c.Query["api-version"]) > 1 {
			return Reply{}, arm.ErrBadVersion.Detail("The api-version is given more than once.")
		}
		if _, err := arm.ParseVersion(c.Query.Get("api-version")); err != nil {
			return Reply{}, err
		}
	}
	c.Condition = resource.Condition{IfMatch: r.Header.Get("If-Match"), IfNoneMatch: r.Header.Get("If-None-Match")}
	switch c.Method {
	case http.MethodPut, http.MethodPatch, http.MethodPost:
		if c.Body, err = body(w, r, op); err != nil {
			return Reply{}, err
		}
	}
	return op.Do(ctx, c)
}

// may asks for one permission. The refusal is the same whether or not the
// scope exists: it is given before anything is looked for.
func (c *Call) may(action string, scope arm.ID) error {
	if c.Caller.May != nil && c.Caller.May(action, scope) {
		return nil
	}
	name := c.Caller.Name
	if name == "" {
		name = c.Caller.ObjectID
	}
	at := scope.String()
	if at == "" {
		at = "/"
	}
	return errDenied.Detail("The client '%s' with object id '%s' does not have authorization to perform action '%s' over scope '%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		name, c.Caller.ObjectID, action, at)
}

// sees asks for what a subscription shows of itself: its name, its locations,
// its providers. Whoever holds a role on anything in it may read that, or could
// not find what the role is for.
func (c *Call) sees(action string, subscription arm.ID) error {
	err := c.may(action, subscription)
	if err != nil && c.Caller.Holds != nil && c.Caller.Holds(subscription) {
		return nil
	}
	return err
}
