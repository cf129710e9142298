package loginapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"cove.example/cove/access"
	"cove.example/cove/device"
	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/loginapi"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

const (
	name       = "login.cove.internal"
	alias      = "login.microsoftonline.com"
	management = "https://management.cove.internal"
	acr        = "https://containerregistry.azure.net"
)

type site struct {
	testing.TB
	*httptest.Server
	api    *loginapi.Server
	ident  *store.Identity
	admin  directory.Admin
	client *http.Client
	log    bytes.Buffer
	now    time.Time
}

func open(t testing.TB) *site {
	t.Helper()
	db := storetest.Open(t, storetest.SQLite(t))
	s := &site{TB: t, ident: store.NewIdentity(db), now: time.Now().Truncate(time.Second)}
	now := func() time.Time { return s.now }
	key := make([]byte, 32)
	rand.Read(key)
	box, err := seal.New(key)
	s.must(err)
	keys, err := token.OpenKeys(t.Context(), store.NewKeys(db), box, now)
	s.must(err)
	nothing := func(context.Context, directory.Admin) error { return nil }
	s.admin, _, err = directory.Bootstrap(t.Context(), s.ident, s.now, nothing, nothing)
	s.must(err)
	config := loginapi.Config{Hosts: []string{name, alias}, Audiences: []string{management, acr}}
	s.api = &loginapi.Server{
		Config: config, Tokens: token.New(keys, config.Issuer), Directory: directory.New(s.ident, now), Now: now,
		Guesses: access.NewThrottle(), Devices: &device.Desk{Store: store.NewDevices(db), Now: now},
		Log: slog.New(slog.NewTextHandler(&s.log, nil)),
	}
	s.Server = httptest.NewUnstartedServer(s.api)
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		from, err := netip.ParseAddrPort(c.RemoteAddr().String())
		s.must(err)
		return link.With(ctx, link.Origin{Remote: from})
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	s.client = s.Client()
	s.client.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true // the test server's certificate has other names
	s.under(name)
	return s
}

// under makes the connections from now on to a name, as TLS sees it.
func (s *site) under(serverName string) {
	transport := s.client.Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.ServerName = serverName
	s.client.Transport = transport
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

type reply struct {
	*http.Response
	body map[string]any
	text string
}

func (s *site) do(method, path, host string, body io.Reader, headers ...string) reply {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.URL+path, body)
	s.must(err)
	req.Host = host
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(req)
	s.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	s.must(err)
	r := reply{Response: resp, text: string(b)}
	if err := json.Unmarshal(b, &r.body); err != nil {
		s.Errorf("%s %s answers what is not JSON: %q", method, path, b)
	}
	if cc := resp.Header.Get("Cache-Control"); cc != "no-store" {
		s.Errorf("%s %s may be cached: %q", method, path, cc)
	}
	return r
}

func (s *site) get(path string) reply { return s.do(http.MethodGet, path, name, nil) }

func (s *site) post(path string, form ...string) reply {
	v := url.Values{}
	for i := 0; i < len(form); i += 2 {
		v.Add(form[i], form[i+1])
	}
	return s.do(http.MethodPost, path, name, strings.NewReader(v.Encode()), "Content-Type", "application/x-www-form-urlencoded")
}

// az sends this, field for field (source: the requests of az 2.45).
func (s *site) az(more ...string) []string {
	return append([]string{
		"client_id", s.admin.ClientID, "grant_type", "client_credentials", "client_info", "1", "client_secret", s.admin.Secret.Reveal(),
		"claims", `{"access_token":{"xms_cc":{"values":["CP1"]}}}`,
	}, more...)
}

func TestTokenForms(t *testing.T) {
	s := open(t)
	tenant := s.admin.Tenant
	for _, c := range []struct {
		name, path string
		form       []string
		audience   string
	}{
		{"az, by the adfs authority", "/adfs/oauth2/token", s.az("scope", management+"//.default"), management},
		{"in lower case, as az makes it", "/ADFS/OAuth2/Token", s.az("scope", management+"/.default"), management},
		{"version 2", "/" + tenant + "/oauth2/v2.0/token", s.az("scope", management+"/.default"), management},
		{"version 2 with more scopes", "/" + tenant + "/oauth2/v2.0/token", s.az("scope", "openid "+management+"/.default offline_access"), management},
		{"version 1", "/" + strings.ToUpper(tenant) + "/oauth2/token", s.az("resource", management+"/"), management},
		{"by the tenant's name", "/cove/oauth2/token", s.az("resource", management), management},
		{"common", "/common/oauth2/v2.0/token", s.az("scope", management+"/.default"), management},
		{"for registries", "/adfs/oauth2/token", s.az("scope", acr+"/.default"), acr},
	} {
		r := s.post(c.path, c.form...)
		if r.StatusCode != http.StatusOK || r.body["token_type"] != "Bearer" || r.body["expires_in"] != 3600.0 {
			t.Errorf("%s: %d %s", c.name, r.StatusCode, r.text)
			continue
		}
		claims, err := s.api.Tokens.VerifyPrincipal(r.body["access_token"].(string), c.audience)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if claims.Tenant != tenant || claims.ObjectID != s.admin.ObjectID || claims.AppID != s.admin.ClientID || claims.IDType != "app" || claims.Audience != c.audience {
			t.Errorf("%s: %+v", c.name, claims)
		}
	}
	basic := s.do(http.MethodPost, "/adfs/oauth2/token", name, strings.NewReader("grant_type=client_credentials&resource="+url.QueryEscape(management)),
		"Content-Type", "application/x-www-form-urlencoded",
		"Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(s.admin.ClientID)+":"+url.QueryEscape(s.admin.Secret.Reveal()))))
	if basic.StatusCode != http.StatusOK {
		t.Errorf("client_secret_basic: %d %s", basic.StatusCode, basic.text)
	}
}

func TestTokenRefusals(t *testing.T) {
	s := open(t)
	second := directory.NewID()
	secret, cred := directory.NewSecret("ci", s.now, time.Hour)
	foreign := directory.Client{
		Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: second, Kind: directory.ServicePrincipal},
		Credentials: []directory.Credential{cred},
	}
	s.must(s.ident.Create(t.Context(), foreign))
	const scope = management + "/.default"
	client := func(id, secret string, more ...string) []string {
		return append([]string{"grant_type", "client_credentials", "client_id", id, "client_secret", secret}, more...)
	}
	good := s.admin.Secret.Reveal()
	for _, c := range []struct {
		name   string
		r      reply
		status int
		error  string
		code   string
	}{
		{"a wrong secret", s.post("/adfs/oauth2/token", client(s.admin.ClientID, "x", "scope", scope)...), 401, "invalid_client", "AADSTS7000215: Invalid client id or client secret provided."},
		{"an unknown client", s.post("/adfs/oauth2/token", client(directory.NewID(), good, "scope", scope)...), 401, "invalid_client", "AADSTS7000215: Invalid client id or client secret provided."},
		{"a client of another tenant", s.post("/adfs/oauth2/token", client(foreign.AppID, secret.Reveal(), "scope", scope)...), 401, "invalid_client", "AADSTS7000215: Invalid client id or client secret provided."},
		{"no secret", s.post("/adfs/oauth2/token", "grant_type", "client_credentials", "client_id", s.admin.ClientID, "scope", scope), 401, "invalid_client", "AADSTS7000218"},
		{"an assertion of no type", s.post("/adfs/oauth2/token", client(s.admin.ClientID, "", "scope", scope, "client_assertion", "x")...), 400, "invalid_request", "AADSTS900144"},
		{"no client", s.post("/adfs/oauth2/token", client("", good, "scope", scope)...), 400, "invalid_request", "AADSTS900144"},
		{"another grant", s.post("/adfs/oauth2/token", "grant_type", "implicit", "username", "u", "password", good), 400, "unsupported_grant_type", "AADSTS70003"},
		{"an unknown resource", s.post("/adfs/oauth2/token", s.az("scope", "https://vault.cove.internal/.default")...), 400, "invalid_resource", "AADSTS500011"},
		{"a scope that is none", s.post("/adfs/oauth2/token", s.az("scope", management)...), 400, "invalid_scope", "AADSTS70011"},
		{"two resources", s.post("/adfs/oauth2/token", s.az("scope", management+"/.default "+acr+"/.default")...), 400, "invalid_scope", "AADSTS70011"},
		{"no resource", s.post("/adfs/oauth2/token", s.az()...), 400, "invalid_request", "AADSTS900144"},
		{"a resource and a half", s.post("/adfs/oauth2/token", s.az("scope", management+".attacker.example/.default")...), 400, "invalid_resource", "AADSTS500011"},
		{"a field twice", s.post("/adfs/oauth2/token", s.az("client_secret", "x", "scope", scope)...), 400, "invalid_request", "AADSTS900144: The parameter 'client_secret' is given more than once."},
		{"an unknown tenant", s.post("/"+directory.NewID()+"/oauth2/token", s.az("resource", management)...), 400, "invalid_request", "AADSTS90002"},
		{"too long", s.post("/adfs/oauth2/token", s.az("x", strings.Repeat("y", 65<<10))...), 400, "invalid_request", "AADSTS900144"},
		{"JSON", s.do(http.MethodPost, "/adfs/oauth2/token", name, strings.NewReader("{}"), "Content-Type", "application/json"), 400, "invalid_request", "AADSTS900144"},
		{"by GET", s.get("/adfs/oauth2/token?client_id=" + s.admin.ClientID + "&client_secret=" + good), 404, "invalid_request", "AADSTS900971"},
		{"a path with a dot", s.get("/adfs/./oauth2/token"), 404, "invalid_request", "AADSTS900971"},
		{"an encoded path", s.get("/%61dfs/.well-known/openid-configuration"), 404, "invalid_request", "AADSTS900971"},
		{"version 2 under adfs", s.get("/adfs/v2.0/.well-known/openid-configuration"), 404, "invalid_request", "AADSTS900971"},
		{"another host", s.do(http.MethodGet, "/adfs/.well-known/openid-configuration", "attacker.example", nil), 421, "invalid_request", "AADSTS900561"},
		{"another of ours than TLS was asked for", s.do(http.MethodGet, "/adfs/.well-known/openid-configuration", alias, nil), 421, "invalid_request", "AADSTS900561"},
	} {
		description, _ := c.r.body["error_description"].(string)
		if c.r.StatusCode != c.status || c.r.body["error"] != c.error || !strings.HasPrefix(description, c.code) {
			t.Errorf("%s: %d %s, want %d %s %s", c.name, c.r.StatusCode, c.r.text, c.status, c.error, c.code)
		}
		if strings.Contains(c.r.text, good) || strings.Contains(c.r.text, "access_token\"") {
			t.Errorf("%s: the answer says too much: %s", c.name, c.r.text)
		}
	}
	s.now = s.now.Add(11 * 365 * 24 * time.Hour)
	expired := s.post("/adfs/oauth2/token", s.az("scope", scope)...)
	if text, _ := expired.body["error_description"].(string); expired.StatusCode != 401 || !strings.HasPrefix(text, "AADSTS7000222") {
		t.Errorf("an expired secret: %s", expired.text) // row 71
	}
	if s.log.Len() != 0 {
		t.Errorf("refusals are no failures of ours: %s", s.log.String())
	}
}

// A program that trusts the discovery document alone can verify our tokens.
func TestDiscoveryLeadsToKeysThatVerify(t *testing.T) {
	s := open(t)
	tenant := s.admin.Tenant
	raw, _ := s.post("/adfs/oauth2/token", s.az("scope", management+"/.default")...).body["access_token"].(string)
	for _, at := range []struct{ path, tokens, host string }{
		{"/adfs/.well-known/openid-configuration", "/adfs/oauth2/token", name},
		{"/" + tenant + "/v2.0/.well-known/openid-configuration", "/" + tenant + "/oauth2/v2.0/token", name},
		{"/" + tenant + "/.well-known/openid-configuration", "/" + tenant + "/oauth2/v2.0/token", name},
		{"/common/v2.0/.well-known/openid-configuration", "/" + tenant + "/oauth2/v2.0/token", name},
		{"/adfs/.well-known/openid-configuration", "/adfs/oauth2/token", alias},
	} {
		s.under(at.host)
		doc := s.do(http.MethodGet, at.path, at.host, nil, "X-Forwarded-Host", "attacker.example", "Forwarded", "host=attacker.example")
		if doc.StatusCode != 200 || doc.body["token_endpoint"] != "https://"+at.host+at.tokens || strings.Contains(doc.text, "attacker") || strings.Contains(doc.text, "127.0.0.1") {
			t.Errorf("%s: %d %s", at.path, doc.StatusCode, doc.text)
			continue
		}
		if doc.body["authorization_endpoint"] == nil {
			t.Errorf("%s: MSAL refuses a document without authorization_endpoint", at.path)
		}
		keysAt, _ := doc.body["jwks_uri"].(string)
		keys := s.do(http.MethodGet, strings.TrimPrefix(keysAt, "https://"+at.host), at.host, nil)
		var set jose.JSONWebKeySet
		s.must(json.Unmarshal([]byte(keys.text), &set))
		parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
		s.must(err)
		var claims jwt.Claims
		if err := parsed.Claims(set, &claims); err != nil {
			t.Errorf("%s: %v", at.path, err)
		}
		if err := claims.Validate(jwt.Expected{Issuer: doc.body["issuer"].(string), AnyAudience: jwt.Audience{management}, Time: s.now}); err != nil {
			t.Errorf("%s: %v", at.path, err)
		}
		if strings.Contains(keys.text, `"d"`) {
			t.Error("a private key is published")
		}
	}
}

// MSAL asks about an authority that it does not know, and is told where ours
// is, whatever it named.
func TestInstanceDiscovery(t *testing.T) {
	s := open(t)
	s.under(alias)
	r := s.do(http.MethodGet, "/common/discovery/instance?api-version=1.0&authorization_endpoint=https://attacker.example/x/oauth2/v2.0/authorize", alias, nil)
	if r.StatusCode != 200 || r.body["tenant_discovery_endpoint"] != "https://"+alias+"/"+s.admin.Tenant+"/v2.0/.well-known/openid-configuration" || strings.Contains(r.text, "attacker") {
		t.Errorf("%d %s", r.StatusCode, r.text)
	}
}

// A failure of ours is not taken for the caller's, and its cause stays here.
//
// Published failure 45.
func TestAFailureOfTheStoreIsOurs(t *testing.T) {
	s := open(t)
	s.api.Directory = directory.New(broken{s.ident}, nil)
	r := s.post("/adfs/oauth2/token", s.az("scope", management+"/.default")...)
	if r.StatusCode != http.StatusServiceUnavailable || r.body["error"] != "temporarily_unavailable" || strings.Contains(r.text, "SELECT") {
		t.Errorf("%d %s", r.StatusCode, r.text)
	}
	if !strings.Contains(s.log.String(), "SELECT") || !strings.Contains(s.log.String(), fmt.Sprint(r.body["correlation_id"])) || strings.Contains(s.log.String(), s.admin.Secret.Reveal()) {
		t.Errorf("the log: %s", s.log.String())
	}
}

// broken is a directory whose database is away.
type broken struct{ directory.Store }

func (broken) Tenants(context.Context) ([]directory.Tenant, error) {
	return nil, fmt.Errorf("SELECT id FROM tenants: connection refused")
}
