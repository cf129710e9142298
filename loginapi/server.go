// Package loginapi is the issuer as MSAL and other OAuth clients call it: the
// discovery documents, the key set and the token endpoint, under /{tenant} and
// under /adfs.
//
// The /adfs paths are there because az, given an authority that ends so,
// makes no calls to Microsoft's instance discovery; they serve the one tenant
// of the deployment. Every address in an answer is made from configured names.
package loginapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/device"
	"cove.example/cove/directory"
	"cove.example/cove/token"
)

// Config is what the operator has decided.
type Config struct {
	// Hosts are the names that this edge is served under, lower case, without
	// port; the first is the one that issuers are named by.
	Hosts []string
	// Audiences are what access tokens may be had for: the control plane's
	// names, the registry's audience, the directory's and the logs' names.
	Audiences []string
}

// Issuer is the iss of a tenant's access tokens; token.New wants it.
func (c Config) Issuer(tenant string) string {
	return "https://" + c.Hosts[0] + "/" + strings.ToLower(tenant) + "/v2.0"
}

// Server is the edge.
type Server struct {
	Config    Config
	Tokens    *token.Tokens
	Directory *directory.Directory
	Issuers   Issuers          // of federated credentials; nil: none is taken
	People    bool             // sign in, with a name and a password
	Devices   *device.Desk     // of sign-ins by a code; nil: there are none
	Guesses   *access.Throttle // of passwords; nil: as many as anybody likes
	Now       func() time.Time // nil is time.Now
	Log       *slog.Logger     // causes of internal failures; nil is slog.Default
}

// call is one request, routed.
type call struct {
	ctx    context.Context
	r      *http.Request
	host   string // the configured name it came under
	tenant string
	adfs   bool   // the path began with /adfs, not with the tenant
	id     string // correlation id
	page   *page  // what a person in a browser sees; nil for programs
}

// handler returns what to answer, or a failure.
type handler func(*Server, *call) (any, error)

// route is the last part of a path below /{tenant} or /adfs.
type route struct {
	method string
	path   string
	adfs   bool // there under /adfs
	tenant bool // there under /{tenant}
	serve  handler
}

var routes = []route{
	{http.MethodGet, "/.well-known/openid-configuration", true, true, (*Server).discovery},
	{http.MethodGet, "/v2.0/.well-known/openid-configuration", false, true, (*Server).discovery},
	{http.MethodGet, "/discovery/keys", true, true, (*Server).keys},
	{http.MethodGet, "/discovery/v2.0/keys", false, true, (*Server).keys},
	{http.MethodPost, "/oauth2/token", true, true, (*Server).token},
	{http.MethodPost, "/oauth2/v2.0/token", false, true, (*Server).token},
	{http.MethodPost, "/oauth2/devicecode", true, true, (*Server).beginDevice},
	{http.MethodPost, "/oauth2/v2.0/devicecode", false, true, (*Server).beginDevice},
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{ctx: r.Context(), r: r, id: directory.NewID()}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Strict-Transport-Security", "max-age=31536000; includeSubDomains")
	h.Set("X-Ms-Request-Id", c.id)
	value, err := s.serve(c)
	if err != nil {
		s.fail(w, c, err)
		return
	}
	if c.page != nil {
		c.page.send(w, http.StatusOK)
		return
	}
	send(w, http.StatusOK, value)
}

func (s *Server) serve(c *call) (any, error) {
	var err error
	if c.host, err = s.host(c.r); err != nil {
		return nil, err
	}
	// The path is compared, never cleaned. az lower-cases the authority, so
	// letters have no case here; nothing else has two spellings.
	path, _, _ := strings.Cut(c.r.RequestURI, "?")
	if strings.ContainsAny(path, `%\`) || len(path) > maxPath {
		return nil, errRoute
	}
	if strings.EqualFold(path, "/common/discovery/instance") {
		if c.r.Method != http.MethodGet {
			return nil, errRoute
		}
		return s.instance(c)
	}
	if strings.EqualFold(path, devicePath) && s.people() {
		return nil, s.devicePage(c)
	}
	first, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if !ok || !strings.HasPrefix(path, "/") {
		return nil, errRoute
	}
	c.adfs = strings.EqualFold(first, "adfs")
	for _, each := range routes {
		if each.method != c.r.Method || !strings.EqualFold("/"+rest, each.path) || c.adfs && !each.adfs || !c.adfs && !each.tenant {
			continue
		}
		if c.tenant, err = s.tenantOf(c, first); err != nil {
			return nil, err
		}
		return each.serve(s, c)
	}
	return nil, errRoute
}

const maxPath = 1 << 10

// host is the configured name that the request came under. TLS and the Host
// header must agree: a request for one name over a connection made to another
// is misdirected.
func (s *Server) host(r *http.Request) (string, error) {
	name := r.Host
	if h, _, err := net.SplitHostPort(name); err == nil {
		name = h
	}
	for _, h := range s.Config.Hosts {
		if strings.EqualFold(h, name) && (r.TLS == nil || strings.EqualFold(r.TLS.ServerName, h)) {
			return h, nil
		}
	}
	return "", errMisdirected
}

// tenantOf resolves the first segment of a path to a tenant: its id or name,
// or the aliases by which clients mean "the one this principal is of", which
// with one tenant is that one.
func (s *Server) tenantOf(c *call, name string) (string, error) {
	list, err := s.Directory.Tenants(c.ctx)
	if err != nil {
		return "", err
	}
	alias := c.adfs || strings.EqualFold(name, "common") || strings.EqualFold(name, "organizations")
	if alias && len(list) == 1 {
		return list[0].ID, nil
	}
	for _, t := range list {
		if !alias && (strings.EqualFold(t.ID, name) || strings.EqualFold(t.Name, name)) {
			return t.ID, nil
		}
	}
	return "", errTenant
}

func (s *Server) discovery(c *call) (any, error) {
	at := "https://" + c.host + "/"
	keys, tokens := at+c.tenant+"/discovery/v2.0/keys", at+c.tenant+"/oauth2/v2.0/token"
	if c.adfs {
		keys, tokens = at+"adfs/discovery/keys", at+"adfs/oauth2/token"
	}
	doc := map[string]any{
		"issuer":         s.Tokens.Issuer(c.tenant),
		"token_endpoint": tokens,
		// MSAL refuses a document without it. No grant of this version uses
		// it, so nothing answers there.
		"authorization_endpoint":                strings.TrimSuffix(tokens, "token") + "authorize",
		"jwks_uri":                              keys,
		"response_types_supported":              []string{"token"},
		"grant_types_supported":                 []string{"client_credentials", "password", "refresh_token"},
		"subject_types_supported":               []string{"pairwise"},
		"id_token_signing_alg_values_supported": []string{"RS256"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_post", "client_secret_basic", "private_key_jwt"},
	}
	if s.people() {
		doc["device_authorization_endpoint"] = strings.TrimSuffix(tokens, "token") + "devicecode"
		doc["grant_types_supported"] = []string{"client_credentials", "password", "refresh_token", deviceGrant}
	}
	return doc, nil
}

func (s *Server) keys(*call) (any, error) { return s.Tokens.Keys().JWKS(), nil }

// instance is what MSAL asks of an authority that it does not know. The
// authority that the caller names is not repeated: it is told where ours is.
func (s *Server) instance(c *call) (any, error) {
	tenant := "common"
	if list, err := s.Directory.Tenants(c.ctx); err != nil {
		return nil, err
	} else if len(list) == 1 {
		tenant = list[0].ID
	}
	return map[string]any{
		"tenant_discovery_endpoint": "https://" + c.host + "/" + tenant + "/v2.0/.well-known/openid-configuration",
		"api-version":               "1.1",
		"metadata":                  []any{},
	}, nil
}

func (s *Server) log() *slog.Logger {
	if s.Log == nil {
		return slog.Default()
	}
	return s.Log
}

func (s *Server) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

func send(w http.ResponseWriter, status int, value any) {
	b, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("loginapi: an answer that is not JSON: %v", err)) // only our own values come here
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(append(b, '\n')) // a caller who has gone needs no answer
}
