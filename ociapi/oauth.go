package ociapi

import (
	"context"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/fault"
)

// TokenService issues registry tokens. access.Guard implements it.
type TokenService interface {
	// CheckNetwork decides whether the caller may speak to the registry at
	// all; it looks at no credential.
	CheckNetwork(ctx context.Context, a access.Ask) access.Verdict
	// Token issues an access token, Exchange a refresh token for an access
	// token of the issuer, ExchangeSession for a person's refresh token of the
	// issuer, with an access token or ("") without. A no is in the verdict; the
	// error is for a request that can never succeed.
	Token(ctx context.Context, a access.Ask, g access.Grant) (access.Issued, access.Verdict, error)
	Exchange(ctx context.Context, a access.Ask, service, tenant string, raw access.Secret) (access.Secret, access.Verdict, error)
	ExchangeSession(ctx context.Context, a access.Ask, service, tenant string, raw, refresh access.Secret) (access.Secret, access.Verdict, error)
}

var _ TokenService = (*access.Guard)(nil)

// The paths of a registry's token endpoint.
const (
	pathToken    = "/oauth2/token"
	pathExchange = "/oauth2/exchange"

	maxForm = 64 << 10 // bytes of a token request's body
)

var (
	errForm     = fault.New(fault.Invalid, "the body is not a form")
	errFormSize = fault.New(fault.TooLarge, "the form is larger than 64 KiB")
	errGrant    = fault.New(fault.Invalid, "the grant_type is not supported")
)

// isOAuth reports whether a request target is of the token endpoint.
func isOAuth(target string) bool {
	path, _, _ := strings.Cut(target, "?")
	return path == pathToken || path == pathExchange
}

// oauth serves the token endpoint (source: the documentation of Azure Container Registry). The
// network's answer comes before the request is read. Every request leaves a
// login event, the refused ones above all.
func (s *Server) oauth(x *exchange) error {
	x.ev.Table, x.ev.Operation = loginEvents, opLogin
	ask := access.Ask{
		ID: x.ev.ID, Origin: x.ev.origin, Host: x.ev.Host,
		Operation: opLogin, UserAgent: x.ev.UserAgent,
	}
	v := s.Tokens.CheckNetwork(x.r.Context(), ask)
	x.ev.verdict = v
	switch {
	case !v.Allow:
		return v.Err()
	case v.Registry == nil || slices.Contains(v.Registry.DataHosts, x.ev.Host):
		return errNoRoute
	}
	path, query, _ := strings.Cut(x.r.RequestURI, "?")
	if len(query) > maxURL {
		return errTooLong
	}
	switch values := x.r.Header.Values("Authorization"); {
	case len(values) > 1:
		return fault.Newf(fault.Invalid, "more than one Authorization header")
	case len(values) == 1:
		ask.Authority = values[0]
	}
	if s.Rates != nil {
		left := s.Rates.Look(v.Registry, access.OAuth, x.ev.Time)
		x.remaining(left)
		if err := s.spend(x, left); err != nil {
			return err
		}
	}
	switch method := x.r.Method; {
	case path == pathExchange && method == http.MethodPost:
		return s.exchange(x, ask)
	case path == pathToken && method == http.MethodPost:
		form, err := readForm(x)
		if err != nil {
			return err
		}
		return s.token(x, ask, form, true)
	case path == pathToken && method == http.MethodGet:
		form, err := parseQuery(query)
		if err != nil {
			return err
		}
		return s.token(x, ask, form, false)
	}
	return errNoRoute // ACR: 404, not 405
}

// exchanges are the grants of an exchange (source: the documentation of Azure
// Container Registry, which deprecates all but the first).
var exchanges = map[string]struct {
	access, refresh bool
	say             string
}{
	"access_token":               {true, false, "service and access_token are required"},
	"access_token_refresh_token": {true, true, "service, access_token and refresh_token are required"},
	"refresh_token":              {false, true, "service and refresh_token are required"},
}

func (s *Server) exchange(x *exchange, ask access.Ask) error {
	form, err := readForm(x)
	if err != nil {
		return err
	}
	f := fields{form: form}
	grant, service, tenant := f.one("grant_type"), f.one("service"), f.one("tenant")
	raw, session := access.Secret(f.one("access_token")), access.Secret(f.one("refresh_token"))
	needs, ok := exchanges[grant]
	switch {
	case f.err != nil:
		return f.err
	case !ok:
		return errGrant
	case service == "" || needs.access && raw == "" || needs.refresh && session == "":
		return fault.Newf(fault.Invalid, "%s", needs.say)
	}
	var refresh access.Secret
	var v access.Verdict
	switch {
	case !needs.refresh:
		refresh, v, err = s.Tokens.Exchange(x.r.Context(), ask, service, tenant, raw)
	case !needs.access:
		refresh, v, err = s.Tokens.ExchangeSession(x.r.Context(), ask, service, tenant, "", session)
	default:
		refresh, v, err = s.Tokens.ExchangeSession(x.r.Context(), ask, service, tenant, raw, session)
	}
	x.ev.verdict = v
	if err != nil || !v.Allow {
		return noBefore(v.Err(), err)
	}
	s.issued(x, v)
	return sendToken(x, map[string]any{"refresh_token": string(refresh)})
}

// token issues an access token for a form or a query. Credentials are never
// read from a query: an address is written into logs along the way.
func (s *Server) token(x *exchange, ask access.Ask, form url.Values, posted bool) error {
	f := fields{form: form}
	g := access.Grant{Service: f.one("service"), Scopes: form["scope"]}
	if posted {
		switch f.one("grant_type") {
		case "refresh_token":
			g.Refresh = access.Secret(f.one("refresh_token"))
			if g.Refresh == "" && f.err == nil {
				return fault.Newf(fault.Invalid, "refresh_token is required")
			}
		case "password":
			g.User, g.Pass, g.HasUser = f.one("username"), access.Secret(f.one("password")), true
		case "":
		default:
			return errGrant
		}
	}
	if f.err != nil {
		return f.err
	}
	issued, v, err := s.Tokens.Token(x.r.Context(), ask, g)
	x.ev.verdict = v
	if err != nil || !v.Allow {
		return noBefore(v.Err(), err)
	}
	s.issued(x, v)
	// Without expires_in the specification's default is 60 seconds, and
	// clients would ask again and again.
	return sendToken(x, map[string]any{
		"access_token": string(issued.Token),
		"expires_in":   issued.ExpiresIn,
		"issued_at":    issued.IssuedAt.Format(time.RFC3339),
	})
}

// issued counts a token. What is refused is not counted: strangers could use
// up what the registry's own clients have.
func (s *Server) issued(x *exchange, v access.Verdict) {
	if s.Rates != nil {
		x.remaining(s.Rates.Take(v.Registry, v.Identity, access.OAuth, x.ev.Time))
	}
}

// noBefore returns the verdict's no where there is one: it stands before what
// else is wrong with a request.
func noBefore(no, err error) error {
	if no != nil {
		return no
	}
	return err
}

// readForm reads a form from a body, with bounds.
func readForm(x *exchange) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" || x.r.Header.Get("Content-Encoding") != "" {
		return nil, errForm
	}
	body, err := io.ReadAll(io.LimitReader(x.r.Body, maxForm+1))
	switch {
	case err != nil:
		return nil, errShortBody
	case len(body) > maxForm:
		return nil, errFormSize
	}
	form, err := parseQuery(string(body))
	if err != nil {
		return nil, errForm
	}
	return form, nil
}

// fields reads single-valued parameters and keeps the first problem.
type fields struct {
	form url.Values
	err  error
}

func (f *fields) one(name string) string {
	v, err := one(f.form, name)
	if f.err == nil {
		f.err = err
	}
	return v
}

func sendToken(x *exchange, value map[string]any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	h := x.w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	_, _ = x.w.Write(append(b, '\n')) // a caller who has gone needs no answer
	return nil
}
