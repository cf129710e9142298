// Package imdsapi is the instance metadata service: what answers at
// 169.254.169.254 inside a virtual network. A member that carries managed
// identities gets their tokens here without a secret.
//
// Who asks is told by the tunnel, never by the request: the network that the
// connection came from, the address that WireGuard has checked against the
// sender's key, and that this key is the member's still. What a request may
// carry besides is what keeps others from sending it in the member's place: a
// header that browsers and URL fetchers do not set, a Host that is this address
// and no name, no sign of a proxy.
package imdsapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"cove.example/cove/directory"
	"cove.example/cove/identity"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/resource"
	"cove.example/cove/token"
)

// Config is what a Server is made of.
type Config struct {
	Store    resource.Store
	Networks network.Lookup
	// Holder is the WireGuard key of the member that has an address now.
	Holder    func(network string, at netip.Addr) (key [32]byte, ok bool)
	Directory *directory.Directory
	Tokens    *token.Tokens
	Audiences []string // what tokens may be had for
	Now       func() time.Time
	Log       *slog.Logger // causes of internal failures, and one line for each token
}

// Server answers members.
type Server struct {
	Config

	mu     sync.Mutex
	limits map[string]*rate.Limiter // by member
}

// New returns the server.
func New(c Config) *Server {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{Config: c, limits: map[string]*rate.Limiter{}}
}

const maxURL = 4 << 10

// What one member may ask in a second, as of the real service; a token costs a
// signature.
const (
	perSecond  = 20
	burst      = 40
	maxLimited = 8192 // members whose rate is remembered; past it all begin anew
)

// refusal is a failure in the words that clients of the real service know.
// retry stands for a header of its own: they come back for a 429 or a 5xx.
type refusal struct {
	status int
	code   string
	text   string
}

func (e *refusal) Error() string { return e.code + ": " + e.text }

var (
	errHeader    = &refusal{http.StatusBadRequest, "invalid_request", "Required metadata header not specified"}
	errForwarded = &refusal{http.StatusBadRequest, "invalid_request", "Requests with an X-Forwarded-For header are not answered"}
	errHost      = &refusal{http.StatusBadRequest, "invalid_request", "The Host header must be the address of this service"}
	errVersion   = &refusal{http.StatusBadRequest, "invalid_request", "Required query variable 'api-version' is missing or not a version"}
	errTwice     = &refusal{http.StatusBadRequest, "invalid_request", "A query variable is given more than once, or the query cannot be read"}
	errResource  = &refusal{http.StatusBadRequest, "invalid_request", "Required query variable 'resource' is missing"}
	errAudience  = &refusal{http.StatusBadRequest, "invalid_resource", "AADSTS500011: The resource principal was not found in the tenant."}
	errSelector  = &refusal{http.StatusBadRequest, "invalid_request", "At most one of client_id, object_id and msi_res_id may be specified"}
	errIdentity  = &refusal{http.StatusBadRequest, "invalid_request", "Identity not found"}
	errMany      = &refusal{http.StatusBadRequest, "invalid_request", "Multiple user assigned identities exist, please specify the clientId / resourceId of the identity in the token request"}
	errNobody    = &refusal{http.StatusForbidden, "access_denied", "No member of the virtual network has this address"}
	errPath      = &refusal{http.StatusNotFound, "not_found", "There is nothing under this address"}
	errMethod    = &refusal{http.StatusMethodNotAllowed, "method_not_allowed", "Only GET is answered"}
	errRate      = &refusal{http.StatusTooManyRequests, "too_many_requests", "Too many requests"}
	errInternal  = &refusal{http.StatusServiceUnavailable, "service_unavailable", "The service cannot answer now, try again"}
)

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	value, err := s.answer(r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	if text, ok := value.(string); ok {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(text)) // a caller who has gone needs no answer
		return
	}
	send(w, http.StatusOK, value)
}

var version = regexp.MustCompile(`^20[0-9]{2}-[01][0-9]-[0-3][0-9](-preview)?$`)

func (s *Server) answer(r *http.Request) (any, error) {
	switch {
	case r.Method != http.MethodGet:
		return nil, errMethod
	case len(r.Header.Values("X-Forwarded-For")) > 0:
		// Something in between passes on what a stranger has asked.
		return nil, errForwarded
	case len(r.Header.Values("Metadata")) != 1 || !strings.EqualFold(r.Header.Get("Metadata"), "true"):
		// What can be made to fetch an address cannot, as a rule, be made to
		// set a header.
		return nil, errHeader
	case r.Host != network.Metadata.String() && r.Host != network.Metadata.String()+":80":
		// A page whose name was made to lead here (DNS rebinding) can set the
		// header; its Host is that name.
		return nil, errHost
	case len(r.RequestURI) > maxURL:
		return nil, errPath
	}
	path, _, _ := strings.Cut(r.RequestURI, "?")
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errTwice
	}
	for _, v := range query {
		if len(v) > 1 {
			return nil, errTwice
		}
	}
	path = strings.ToLower(strings.TrimSuffix(path, "/"))
	instance, isInstance := strings.CutPrefix(path, "/metadata/instance")
	isToken := path == "/metadata/identity/oauth2/token"
	if !isToken && !(isInstance && (instance == "" || instance[0] == '/')) {
		return nil, errPath
	}
	if !version.MatchString(query.Get("api-version")) {
		return nil, errVersion
	}
	ctx := r.Context()
	m, err := s.member(ctx)
	if err != nil {
		return nil, err
	}
	if isToken {
		return s.token(ctx, m, query)
	}
	return m.instance(strings.TrimPrefix(instance, "/"), query.Get("format"))
}

// member is who asks, as the store has them now.
type member struct {
	at         *network.Member
	doc, nic   resource.Doc
	identities []identity.One
}

// member finds who has the connection's address. The key that the tunnel has
// for the address must be the key that the member has now: the map of networks
// and the tunnels change one after the other, and in between an address is
// nobody's.
func (s *Server) member(ctx context.Context) (member, error) {
	from := link.From(ctx)
	at := s.Networks.Member(from.Network, from.Remote.Addr())
	if from.Kind != link.Overlay || at == nil {
		return member{}, errNobody
	}
	if !s.allow(at.ID.Key()) {
		return member{}, errRate
	}
	m := member{at: at}
	err := s.Store.View(ctx, func(r resource.Reader) (err error) {
		if m.doc, err = r.Get(ctx, at.ID); err != nil {
			return err
		}
		if m.nic, err = r.Get(ctx, at.NIC); err != nil {
			return err
		}
		m.identities, err = identity.Of(ctx, r, m.doc)
		return err
	})
	if errors.Is(err, resource.ErrUnknown) {
		return member{}, errNobody
	}
	if err != nil {
		return member{}, err
	}
	key, ok := s.Holder(from.Network, from.Remote.Addr())
	if !ok || !network.HasKey(m.doc, key) {
		return member{}, errNobody
	}
	return m, nil
}

func (s *Server) allow(key string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.limits[key]
	if l == nil {
		if len(s.limits) >= maxLimited {
			clear(s.limits)
		}
		l = rate.NewLimiter(perSecond, burst)
		s.limits[key] = l
	}
	return l.AllowN(s.Now(), 1)
}

// choose is the identity that a request means. Without a name it is the
// system-assigned one, else the only one there is.
func choose(list []identity.One, query url.Values) (identity.One, error) {
	named := ""
	for _, name := range []string{"client_id", "object_id", "principal_id", "msi_res_id", "mi_res_id"} {
		if query.Get(name) == "" {
			continue
		}
		if named != "" {
			return identity.One{}, errSelector
		}
		named = name
	}
	if named == "" {
		switch {
		case len(list) == 0:
			return identity.One{}, errIdentity
		case list[0].System || len(list) == 1:
			return list[0], nil
		}
		return identity.One{}, errMany
	}
	for _, one := range list {
		is := map[string]string{"client_id": one.ClientID, "object_id": one.PrincipalID, "principal_id": one.PrincipalID}[named]
		if strings.HasSuffix(named, "res_id") && !one.System {
			is = one.ID.String()
		}
		if is != "" && strings.EqualFold(is, query.Get(named)) {
			return one, nil
		}
	}
	return identity.One{}, errIdentity
}

func (s *Server) token(ctx context.Context, m member, query url.Values) (any, error) {
	asked := query.Get("resource")
	if asked == "" {
		return nil, errResource
	}
	audience := ""
	for _, known := range s.Audiences {
		if token.SameAudience(known, asked) {
			audience = known
		}
	}
	if audience == "" {
		return nil, errAudience
	}
	one, err := choose(m.identities, query)
	if err != nil {
		return nil, err
	}
	who, err := s.Directory.Standing(ctx, one.PrincipalID, "")
	switch {
	case errors.Is(err, directory.ErrUnknown), errors.Is(err, directory.ErrDisabled):
		return nil, errIdentity
	case err != nil:
		return nil, err
	}
	text, claims, err := s.Tokens.MintPrincipal(token.PrincipalClaims{
		Audience: audience, ObjectID: who.ObjectID, Tenant: who.Tenant, AppID: who.AppID, AppACR: "2", Managed: who.Managed,
	})
	if err != nil {
		return nil, err
	}
	s.Log.InfoContext(ctx, "a member was given a token of its identity", "member", m.at.ID, "identity", who.Managed, "audience", audience)
	life := fmt.Sprint(claims.Expires - claims.Issued)
	return map[string]any{
		"access_token": text, "client_id": who.AppID, "expires_in": life, "ext_expires_in": life,
		"expires_on": fmt.Sprint(claims.Expires), "not_before": fmt.Sprint(claims.NotBefore), "resource": asked, "token_type": "Bearer",
	}, nil
}

// fail writes err as the answer. It is the only function of the package that
// writes an error status.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		e = errInternal
		s.Log.ErrorContext(r.Context(), "a member's metadata could not be answered", "err", err)
	}
	switch e.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "1")
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodGet)
	}
	send(w, e.status, map[string]any{"error": e.code, "error_description": e.text})
}

func send(w http.ResponseWriter, status int, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("imdsapi: an answer that is not JSON: %v", err)) // only our own values come here
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a caller who has gone needs no answer
}
