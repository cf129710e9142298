// Package ociapi is the registry as clients of the distribution
// specification see it: it turns method and URL into one typed Call, asks
// access whether the caller may, lets content do the work, and turns values
// and errors into responses.
//
// It decides nothing itself. A path is never cleaned, decoded or compared
// loosely: what is not written as the specification writes it is refused,
// because a second spelling of a route is a second door to it.
package ociapi

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/audit"
	"cove.example/cove/content"
	"cove.example/cove/link"
	"cove.example/cove/oci"
	"cove.example/cove/reason"
)

// Guard is the one decision. access.Guard implements it.
type Guard interface {
	// Check decides about a. It does not fail: what it cannot find out it
	// refuses.
	Check(ctx context.Context, a access.Ask) access.Verdict
	// Link returns the query of a URL at a data host, with which the caller
	// of v, who was allowed, can download one blob for 20 to 30 minutes.
	Link(v access.Verdict, repository, digest string) (string, error)
}

// Server answers for every registry: login servers, data hosts and aliases.
//
// The caller has made sure that the Host header and the name that TLS was
// asked for agree and are a registry's, that the request's context carries
// the connection's Origin, and that nothing before this handler, such as an
// http.ServeMux, rewrites or redirects paths.
type Server struct {
	Guard   Guard
	Tokens  TokenService
	Content content.Service
	Log     audit.Log
	Now     func() time.Time
	// Room fails with oci.ErrDisallowed where a registry may hold no more; nil
	// is no limit.
	Room func(ctx context.Context, uid, sku string) error
	// Route is the region that a global name leads to, of those that it may
	// lead to; nil is the home.
	Route func(regions []string) string
	// Attend is how often a transfer that is under way is decided again; 0 is
	// every five seconds.
	Attend    time.Duration
	PlainHTTP bool          // without TLS of our own: no Strict-Transport-Security
	Rates     *access.Rates // nil: no rate limits
	Failures  *slog.Logger  // causes of 500s; nil is slog.Default
}

// exchange is one request on its way through the handler of its kind.
type exchange struct {
	w    *answer
	r    *http.Request
	call Call
	key  content.Key
	ev   *event
	data bool // it came to a data host
}

// ServeHTTP answers one request and leaves one event behind.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{w: &answer{ResponseWriter: w}, r: r, ev: s.open(r)}
	s.headers(w.Header(), x.ev.ID)
	if err := s.serve(x); err != nil {
		s.fail(x, err)
	}
	s.observe(x)
}

// headers sets what every answer carries.
func (s *Server) headers(h http.Header, id string) {
	h["Docker-Distribution-Api-Version"] = apiVersion
	h["X-Ms-Correlation-Request-Id"] = []string{id}
	h["X-Content-Type-Options"] = nosniff
	h["Access-Control-Expose-Headers"] = exposed
	h["Cache-Control"] = noStore // what is addressed by digest says otherwise
	if !s.PlainHTTP {
		h["Strict-Transport-Security"] = strictTransport
	}
}

// Header values that most answers share; nobody changes them.
var (
	apiVersion      = []string{"registry/2.0"}
	nosniff         = []string{"nosniff"}
	exposed         = []string{"Docker-Content-Digest", "WWW-Authenticate", "Link", "X-Ms-Correlation-Request-Id"}
	noStore         = []string{"no-store"}
	strictTransport = []string{"max-age=31536000; includeSubDomains"}

	octets     = []string{"application/octet-stream"}
	attachment = []string{"attachment"}
	forever    = []string{"private, max-age=31536000, immutable"}
	revalidate = []string{"private, no-cache"}
	perCaller  = []string{"Authorization"}
)

// serve is the journey: parse, gate, work. The network's answer comes before
// anything about the request's text, so that an address that may not speak
// learns nothing; what cannot be parsed is asked about without its
// credential, which nobody needs to verify.
func (s *Server) serve(x *exchange) error {
	if isOAuth(x.r.RequestURI) {
		return s.oauth(x)
	}
	call, bad := ParseCall(x.r.Method, x.r.RequestURI)
	if len(x.r.Header["Authorization"]) > 1 {
		bad = errTwice // whichever is taken, something in front may have judged by the other
	}
	x.call, x.ev.call = call, call
	ask := access.Ask{
		ID:        x.ev.ID,
		Origin:    x.ev.origin,
		Host:      x.ev.Host,
		Capitals:  strings.ToLower(x.r.Host) != x.r.Host,
		Authority: x.r.Header.Get("Authorization"),
		Want:      call.scopes(),
		Operation: call.Kind.String(),
		UserAgent: x.ev.UserAgent,
	}
	if call.Kind == ManifestDelete && !call.Reference.Digest.IsZero() {
		ask.Referrer = func(ctx context.Context, uid string) bool {
			m, err := s.Content.Manifest(ctx, content.Key{Registry: uid, Repo: x.call.Repo}, x.call.Reference)
			return err == nil && !m.Subject.IsZero()
		}
	}
	if v, ours := s.askData(x, ask); ours {
		return s.data(x, v)
	}
	if bad != nil {
		ask.Authority, ask.Want = "", nil
	}
	v := s.check(x, ask)
	switch {
	case bad != nil && v.Refusal != access.Network:
		x.ev.undecided = true
		return bad
	case !v.Allow:
		return v.Err()
	case v.Registry == nil:
		return oci.ErrNameUnknown
	case x.r.Header.Get("Content-Encoding") != "":
		return errEncoded
	}
	if err := s.limit(x, v); err != nil {
		return err
	}
	if s.Room != nil && slices.Contains(growing, x.call.Kind) {
		if err := s.Room(x.r.Context(), v.Registry.UID, v.Registry.SKU); err != nil {
			return err
		}
	}
	x.key = content.Key{Registry: v.Registry.UID, Repo: x.call.Repo}
	defer s.attend(x, ask)()
	err := rows[x.call.Kind].serve(s, x)
	x.ev.locked = errors.Is(err, oci.ErrDisallowed)
	return err
}

// growing are the calls with which a registry gets larger. Those that go on
// with an upload are not among them: it was let in.
var growing = []Kind{UploadStart, UploadWhole, UploadMount, ManifestPut}

// check asks the guard. A mount that fails for want of the source becomes a
// plain upload, which is also what the specification answers when the source
// does not have the blob: who may not read a repository cannot tell the two
// apart. Without a credential the challenge names both scopes instead.
func (s *Server) check(x *exchange, ask access.Ask) access.Verdict {
	v := s.Guard.Check(x.r.Context(), ask)
	if x.call.Kind == UploadMount && !v.Allow && v.Refusal != access.Network && ask.Authority != "" {
		upload := x.call
		upload.Kind = UploadStart
		ask.Want = upload.scopes()
		if second := s.Guard.Check(x.r.Context(), ask); second.Allow {
			v, x.call = second, upload
		}
	}
	x.ev.verdict = v
	return v
}

// event is what becomes known about a request while it is answered. The
// embedded record is kept when Table is set.
type event struct {
	audit.Event
	origin  link.Origin
	call    Call
	verdict access.Verdict

	undecided bool // the answer is about the request's text, not its sender
	locked    bool // the decision allowed it, and a lock forbade it
}

func (s *Server) open(r *http.Request) *event {
	ev := &event{origin: link.From(r.Context())}
	ev.Time = s.Now()
	ev.ID = audit.NewID(ev.Time) // never the caller's own: it could name another caller's decision
	ev.Host = host(r)
	ev.UserAgent = strings.ToValidUTF8(clip(r.UserAgent(), 512), "?")
	if ip := ev.origin.Remote.Addr(); ip.IsValid() {
		ev.CallerIP = ip.String()
	}
	return ev
}

// observe is the one place where operation, status and duration are known.
func (s *Server) observe(x *exchange) {
	ev := x.ev
	ev.Status = x.w.status
	ev.Duration = s.Now().Sub(ev.Time)
	if ev.Table == "" && !ev.undecided && slices.Contains(refusals, ev.Status) {
		ev.Table, ev.Operation = loginEvents, opLogin
	}
	if ev.Table == "" || ev.Status == http.StatusNotModified {
		return
	}
	v := ev.verdict
	ev.Identity, ev.Tenant = v.Identity.Name, v.Identity.Tenant
	ev.Reason, ev.Decision = v.Reason, access.Kept(&v)
	ev.Repository = ev.call.Repo.String()
	if ev.locked {
		ev.Reason = string(reason.LockForbids)
		if ref := ev.call.Reference; ev.Tag == "" && ev.Digest == "" {
			ev.Tag, ev.Digest = ref.Tag.String(), ref.Digest.String()
		}
	}
	if v.Registry != nil {
		ev.Registry, ev.Region = v.Registry.ID.Key(), v.Registry.Location
	}
	s.Log.Record(ev.Event)
}

// refusals are the statuses that somebody will ask about.
var refusals = []int{http.StatusUnauthorized, http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusTooManyRequests}

// The tables and operations of the records, in Azure's words.
const (
	loginEvents      = "LoginEvents"
	repositoryEvents = "RepositoryEvents"

	opLogin  = "Login"
	opPull   = "Pull"
	opPush   = "Push"
	opUntag  = "Untag"
	opDelete = "Delete"
)

// host is the name the request was made to, lower case, without port. It says
// which registry is meant; no address in an answer is made from it.
func host(r *http.Request) string {
	h := r.Host
	if name, _, err := net.SplitHostPort(h); err == nil {
		h = name
	}
	return strings.ToLower(h)
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
