package ociapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

// oneRegistry is a Lookup of harbor, under its login server and data host.
type oneRegistry struct {
	mu sync.Mutex // over a change of the settings, and a question
	*registry.Settings
}

func (o *oneRegistry) ByHost(_ context.Context, host string) (*registry.Settings, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if host == loginServer || host == dataHost {
		return o.Settings, nil
	}
	return nil, nil
}

// loginSite is a site with the real guard and a service principal that may
// pull from harbor.
type loginSite struct {
	*site
	guard    *access.Guard
	registry *oneRegistry
	client   directory.Client
	secret   string
	ahead    *atomic.Int64 // of the clock, in nanoseconds
}

// later lets time pass for the guard and its tokens.
func (s *loginSite) later(d time.Duration) { s.ahead.Add(int64(d)) }

const adminPassword = "canary-admin-password"

func newLoginSite(t *testing.T) *loginSite {
	t.Helper()
	return newLoginSiteAs(t, policy.RoleAcrPull)
}

// newLoginSiteAs is a site whose service principal has a role on harbor, or
// none.
func newLoginSiteAs(t testing.TB, role string) *loginSite {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	db := storetest.Open(t, storetest.SQLite(t))
	docs, ident := store.NewResources(db), store.NewIdentity(db)
	key := make([]byte, 32)
	rand.Read(key)
	box, err := seal.New(key)
	fatal(err)
	ahead := &atomic.Int64{}
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	keys, err := token.OpenKeys(t.Context(), store.NewKeys(db), box, now)
	fatal(err)

	secret, cred := directory.NewSecret("ci", time.Now(), time.Hour)
	c := directory.Client{
		Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.ServicePrincipal},
		Credentials: []directory.Credential{cred},
	}
	subscription := directory.Subscription{ID: directory.NewID(), Tenant: c.Tenant}
	_, err = ident.Found(t.Context(), directory.Tenant{ID: c.Tenant}, subscription, c)
	fatal(err)
	settings := registry.Settings{
		ID:  arm.MustID("/subscriptions/" + subscription.ID + "/resourceGroups/g/providers/Microsoft.ContainerRegistry/registries/harbor"),
		UID: "uid-of-harbor", Name: "harbor", Host: loginServer, Location: "local", DataHosts: []string{dataHost},
		PublicAccess: true, DefaultAllow: true, AdminUser: true,
	}.WithAdmin(adminPassword)
	if role != "" {
		fatal(policy.Grant(t.Context(), docs, c.ObjectID, role, settings.ID))
	}

	s := &loginSite{site: newSite(t, everybody), registry: &oneRegistry{Settings: settings}, client: c, secret: secret.Reveal(), ahead: ahead}
	s.guard = &access.Guard{
		Now:        now,
		Registries: s.registry, Directory: directory.New(ident, nil), Roles: policy.NewRoles(docs),
		Tokens:    token.New(keys, func(tenant string) string { return "https://login/" + tenant }),
		Audiences: []string{"https://management.cove.internal"},
	}
	s.api.Guard, s.api.Tokens = s.guard, s.guard
	return s
}

func (s *loginSite) post(target string, form ...string) reply {
	s.Helper()
	v := url.Values{}
	for i := 0; i < len(form); i += 2 {
		v.Add(form[i], form[i+1])
	}
	return s.do(http.MethodPost, target, strings.NewReader(v.Encode()), "Content-Type", "application/x-www-form-urlencoded")
}

func (s *loginSite) entra() string {
	s.Helper()
	raw, _, err := s.guard.Tokens.MintPrincipal(token.PrincipalClaims{
		Audience: "https://management.cove.internal/", ObjectID: s.client.ObjectID, Tenant: s.client.Tenant, AppID: s.client.AppID, Credential: s.client.Credentials[0].KeyID,
	})
	if err != nil {
		s.Fatal(err)
	}
	return raw
}

func (r reply) field(name string) string {
	var v map[string]any
	if json.Unmarshal([]byte(r.body), &v) != nil || v[name] == nil {
		return ""
	}
	return fmt.Sprint(v[name])
}

func header(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// The way of every client, from the challenge to content.
func TestLoginJourneys(t *testing.T) {
	s := newLoginSite(t)
	challenge := s.do(http.MethodGet, "/v2/", nil)
	if challenge.StatusCode != http.StatusUnauthorized ||
		challenge.Header.Get("WWW-Authenticate") != `Bearer realm="https://`+loginServer+`/oauth2/token",service="`+loginServer+`"` ||
		challenge.Header.Get("Content-Length") != "149" {
		t.Fatalf("the challenge: %d %q %q", challenge.StatusCode, challenge.Header, challenge.body)
	}
	scope := "repository:team/app:pull,push"
	refresh := s.post("/oauth2/exchange", "grant_type", "access_token", "service", loginServer, "tenant", s.client.Tenant, "access_token", s.entra())
	if refresh.StatusCode != http.StatusOK || refresh.field("refresh_token") == "" {
		t.Fatal(refresh.StatusCode, refresh.body)
	}
	for name, r := range map[string]reply{
		"password by POST": s.post("/oauth2/token", "grant_type", "password", "service", loginServer, "username", s.client.AppID, "password", s.secret, "scope", scope, "client_id", "docker", "access_type", "offline"),
		"refresh by POST":  s.post("/oauth2/token", "grant_type", "refresh_token", "service", loginServer, "refresh_token", refresh.field("refresh_token"), "scope", scope),
		"Basic by GET":     s.do(http.MethodGet, "/oauth2/token?account=x&client_id=docker&offline_token=true&service="+loginServer+"&scope="+scope, nil, "Authorization", header(s.client.AppID, s.secret)),
		"a refresh token as password": s.do(http.MethodGet, "/oauth2/token?service="+loginServer+"&scope="+scope, nil, "Authorization",
			header("00000000-0000-0000-0000-000000000000", refresh.field("refresh_token"))),
		"two scopes": s.do(http.MethodGet, "/oauth2/token?scope="+scope+"&scope=repository:base:pull+registry:catalog:*", nil, "Authorization", header(s.client.AppID, s.secret)),
	} {
		if r.StatusCode != http.StatusOK || r.field("expires_in") != "4500" || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
			continue
		}
		if at, err := time.Parse(time.RFC3339, r.field("issued_at")); err != nil || time.Since(at) > time.Minute {
			t.Errorf("%s: issued at %q", name, r.field("issued_at"))
		}
		bearer := "Bearer " + r.field("access_token")
		if got := s.do(http.MethodGet, "/v2/", nil, "Authorization", bearer); got.StatusCode != http.StatusOK {
			t.Errorf("%s: /v2/ says %d", name, got.StatusCode)
		}
		if got := s.do(http.MethodGet, "/v2/team/app/manifests/none", nil, "Authorization", bearer); got.StatusCode != http.StatusNotFound {
			t.Errorf("%s: a pull says %d", name, got.StatusCode)
		}
		// Pushing was asked for and may not be had: the token comes without
		// it, and the push fails with the scope to ask for.
		got := s.do(http.MethodPost, "/v2/team/app/blobs/uploads/", nil, "Authorization", bearer)
		if got.StatusCode != http.StatusUnauthorized || !strings.Contains(got.Header.Get("WWW-Authenticate"), `scope="`+scope+`",error="invalid_token"`) {
			t.Errorf("%s: a push says %d %s", name, got.StatusCode, got.Header.Get("WWW-Authenticate"))
		}
	}
}

// What is wrong with a request, text for text.
func TestTokenEndpointRefusals(t *testing.T) {
	s := newLoginSite(t)
	pass := []string{"grant_type", "password", "service", loginServer, "username", s.client.AppID, "password"}
	with := func(form []string, more ...string) []string { return append(append([]string{}, form...), more...) }
	exchange := []string{"grant_type", "access_token", "service", loginServer, "access_token", s.entra()}
	for _, c := range []struct {
		name   string
		r      reply
		status int
		text   string
	}{
		{"wrong secret", s.post("/oauth2/token", with(pass, "x")...), 401, "Invalid clientid or client secret. CorrelationId: "},
		{"unknown user", s.post("/oauth2/token", "grant_type", "password", "username", "alice", "password", "x"), 401, "Application not registered with AAD. CorrelationId: "},
		{"wrong admin password", s.post("/oauth2/token", "grant_type", "password", "username", "harbor", "password", "x"), 401, "authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: "},
		{"nothing at all", s.do(http.MethodGet, "/oauth2/token?scope=repository:a:pull", nil), 401, "authentication required, visit https://aka.ms/acr/authorization for more information."},
		{"another registry's service", s.post("/oauth2/token", "grant_type", "password", "service", "quay.cr.cove.internal", "username", s.client.AppID, "password", s.secret), 401, "authentication required"},
		{"an access token for a refresh token", s.post("/oauth2/token", "grant_type", "refresh_token", "refresh_token", s.entra()), 401, "authentication required"},
		{"a raw access token as password", s.post("/oauth2/token", with(pass, s.entra())...), 401, "Invalid clientid or client secret."},
		{"an unknown grant", s.post("/oauth2/token", "grant_type", "authorization_code"), 400, "the grant_type is not supported"},
		{"a refresh without a token", s.post("/oauth2/token", "grant_type", "refresh_token"), 400, "refresh_token is required"},
		{"two passwords", s.post("/oauth2/token", with(pass, "x", "password", s.secret)...), 400, "the parameter password is given more than once"},
		{"two services", s.do(http.MethodGet, "/oauth2/token?service="+loginServer+"&service=quay", nil, "Authorization", header(s.client.AppID, s.secret)), 400, "the parameter service is given more than once"},
		{"a scope that is none", s.do(http.MethodGet, "/oauth2/token?scope=nonsense", nil, "Authorization", header(s.client.AppID, s.secret)), 400, "is not of the form type:name:action"},
		{"a secret in the address", s.do(http.MethodGet, "/oauth2/token?grant_type=password&username="+s.client.AppID+"&password="+s.secret, nil), 401, "authentication required"},
		{"another method", s.do(http.MethodPut, "/oauth2/token", nil), 404, "no such path"},
		{"exchange by GET", s.do(http.MethodGet, "/oauth2/exchange", nil), 404, "no such path"},
		{"exchange for nobody", s.post("/oauth2/exchange", exchange[:4]...), 400, "service and access_token are required"},
		{"exchange without service", s.post("/oauth2/exchange", "grant_type", "access_token", "access_token", "x"), 400, "service and access_token are required"},
		{"exchange elsewhere", s.post("/oauth2/exchange", "grant_type", "access_token", "service", "quay", "access_token", s.entra()), 401, "authentication required"},
		{"exchange of a refresh token that is none", s.post("/oauth2/exchange", "grant_type", "refresh_token", "service", loginServer, "refresh_token", "x"), 401, "authentication required"},
		{"exchange of no refresh token", s.post("/oauth2/exchange", "grant_type", "refresh_token", "service", loginServer, "access_token", s.entra()), 400, "service and refresh_token are required"},
		{"exchange of one token of two", s.post("/oauth2/exchange", "grant_type", "access_token_refresh_token", "service", loginServer, "access_token", s.entra()), 400, "service, access_token and refresh_token are required"},
		{"exchange of two tokens, one of which is none", s.post("/oauth2/exchange", "grant_type", "access_token_refresh_token", "service", loginServer, "access_token", s.entra(), "refresh_token", "x"), 401, "authentication required"},
		{"exchange of a password", s.post("/oauth2/exchange", "grant_type", "password", "service", loginServer, "username", s.client.AppID, "password", s.secret), 400, "the grant_type is not supported"},
		{"exchange of nothing named", s.post("/oauth2/exchange", "service", loginServer, "access_token", s.entra()), 400, "the grant_type is not supported"},
		{"a token for an access token", s.post("/oauth2/token", "grant_type", "access_token", "service", loginServer, "access_token", s.entra()), 400, "the grant_type is not supported"},
		{"two refresh tokens", s.post("/oauth2/exchange", "grant_type", "refresh_token", "service", loginServer, "refresh_token", "x", "refresh_token", "y"), 400, "the parameter refresh_token is given more than once"},
		{"two tenants", s.post("/oauth2/exchange", with(exchange, "tenant", "a", "tenant", "b")...), 400, "the parameter tenant is given more than once"},
		{"a form of 65 KiB", s.post("/oauth2/token", with(pass, strings.Repeat("x", 65<<10))...), 413, "the form is larger than 64 KiB"},
		{"a body that is JSON", s.do(http.MethodPost, "/oauth2/token", strings.NewReader(`{"grant_type":"password"}`), "Content-Type", "application/json"), 400, "the body is not a form"},
		{"a thousand fields", s.post("/oauth2/token", strings.Split(strings.Repeat("a b ", 1000), " ")[:2000]...), 400, "the body is not a form"},
		{"at the data host", s.do(http.MethodGet, "/oauth2/token", nil, "Host", dataHost, "Authorization", header(s.client.AppID, s.secret)), 404, "no such path"},
		{"with a slash more", s.do(http.MethodGet, "/oauth2/token/", nil, "Authorization", "Bearer x"), 404, ""},
	} {
		if c.r.StatusCode != c.status || !strings.Contains(c.r.body, c.text) || c.r.field("access_token")+c.r.field("refresh_token") != "" {
			t.Errorf("%s: %d %s, want %d %s", c.name, c.r.StatusCode, c.r.body, c.status, c.text)
		}
		if c.status == 401 && c.r.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: a 401 without a challenge", c.name)
		}
	}
}

// Of two credentials none is taken, a right one among them or not: something in
// front of us may have judged by the other.
func TestTwoCredentialsBuyNoToken(t *testing.T) {
	s := newLoginSite(t)
	right := "Authorization: " + header(s.client.AppID, s.secret) + "\r\n"
	for _, two := range []string{right + right, right + "Authorization: Basic eDp5\r\n", "Authorization: Bearer x\r\n" + right} {
		status, answer := s.raw("GET /oauth2/token?service=" + loginServer + "&scope=repository:team/app:pull HTTP/1.1\r\nHost: " + loginServer + "\r\n" + two + "Connection: close\r\n\r\n")
		if status != 400 || !strings.Contains(answer, "more than one Authorization header") || strings.Contains(answer, "access_token") {
			t.Errorf("%s", answer)
		}
	}
}

// The network's answer comes first here as everywhere, and byte for byte as
// clients know it. row:86: attempts that were refused are recorded too.
func TestTokenEndpointBehindTheNetwork(t *testing.T) {
	s := newLoginSite(t)
	closed := *s.registry.Settings
	closed.PublicAccess = false
	s.registry.Settings = &closed
	s.log.take()
	for name, r := range map[string]reply{
		"token":                   s.post("/oauth2/token", "grant_type", "password", "username", s.client.AppID, "password", s.secret),
		"token by GET":            s.do(http.MethodGet, "/oauth2/token?scope=nonsense", nil, "Authorization", header("harbor", adminPassword)),
		"exchange":                s.post("/oauth2/exchange", "grant_type", "access_token", "service", loginServer, "access_token", s.entra()),
		"a method there is not":   s.do(http.MethodDelete, "/oauth2/token", nil),
		"a form that is too long": s.post("/oauth2/token", "a", strings.Repeat("x", 65<<10)),
	} {
		id := r.Header.Get("X-Ms-Correlation-Request-Id")
		want := `{"errors":[{"code":"DENIED","message":"client with IP \u0027127.0.0.1\u0027 is not allowed access. Refer https://aka.ms/acr/firewall to grant access. CorrelationId: ` + id + `"`
		if r.StatusCode != http.StatusForbidden || !strings.HasPrefix(r.body, want) || r.Header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	events := s.log.take()
	if len(events) != 5 {
		t.Fatalf("%d events", len(events))
	}
	for _, e := range events {
		x, err := access.Explain(e)
		if e.Table != "LoginEvents" || e.Operation != "Login" || e.Status != 403 || e.CallerIP != "127.0.0.1" || e.Reason != "COVE-NET-001" ||
			err != nil || x.Verdict != "DENIED" || len(x.Fixes) == 0 {
			t.Errorf("%+v\n%+v %v", e, x, err)
		}
	}
}

// Every request leaves one login event that explains it, and no secret.
func TestLoginEvents(t *testing.T) {
	s := newLoginSite(t)
	raw := s.entra()
	s.log.take()
	good := s.post("/oauth2/token", "grant_type", "password", "username", s.client.AppID, "password", s.secret, "scope", "repository:team/app:pull")
	refresh := s.post("/oauth2/exchange", "grant_type", "access_token", "service", loginServer, "access_token", raw)
	s.post("/oauth2/token", "grant_type", "password", "username", s.client.AppID, "password", "canary-wrong")
	s.post("/oauth2/token", "grant_type", "password", "username", "canary-in-the-wrong-field", "password", "x")
	s.do(http.MethodGet, "/oauth2/token", nil, "Authorization", header("harbor", adminPassword))
	s.post("/oauth2/token", "grant_type", "nonsense")
	want := []struct {
		status   int
		identity string
		reason   string
	}{{200, s.client.AppID, ""}, {200, s.client.AppID, ""}, {401, "", "COVE-AUTH-002"}, {401, "", "COVE-AUTH-010"}, {200, "harbor", ""}, {400, "", ""}}
	events := s.log.take()
	if len(events) != len(want) {
		t.Fatalf("%d events, not %d", len(events), len(want))
	}
	secrets := []string{s.secret, raw, adminPassword, "canary", good.field("access_token"), refresh.field("refresh_token")}
	for i, raw := range []string{good.field("access_token"), refresh.field("refresh_token")} {
		if got := events[i].TokenID(); got == "" || got != jti(t, raw) {
			t.Errorf("event %d is of the token %q, not %q", i, got, jti(t, raw))
		}
	}
	for i := range events {
		if i != 0 && i != 1 && i != 4 && events[i].TokenID() != "" {
			t.Errorf("event %d is of the token %q", i, events[i].TokenID())
		}
	}
	for i, e := range events {
		if e.Table != "LoginEvents" || e.Status != want[i].status || e.Identity != want[i].identity || e.Reason != want[i].reason || e.Registry != s.registry.ID.Key() {
			t.Errorf("event %d: %+v", i, e)
		}
		if _, err := access.Explain(e); err != nil {
			t.Errorf("event %d: %v", i, err)
		}
		noSecret(t, e, secrets)
	}
}

func jti(t *testing.T, raw string) string {
	t.Helper()
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(raw, ".")[1])
	var c struct{ JTI string }
	if err == nil {
		err = json.Unmarshal(body, &c)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.JTI
}

// A refusal at a resource is an event of the token that was shown, as long as
// it is one of ours: one that has ended or is for something else, and never
// what a stranger has written into another.
func TestRefusalsNameTheirToken(t *testing.T) {
	s := newLoginSite(t)
	raw := s.do(http.MethodGet, "/oauth2/token?scope=repository:team/app:pull", nil, "Authorization", header(s.client.AppID, s.secret)).field("access_token")
	parts := strings.Split(raw, ".")
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(body), jti(t, raw), "11111111-2222-4333-8444-555555555555", 1))) + "." + parts[2]
	for _, c := range []struct{ name, raw, want string }{
		{"for less", raw, jti(t, raw)},
		{"forged", forged, ""},
		{"ended", raw, jti(t, raw)},
	} {
		if c.name == "ended" {
			s.later(2 * time.Hour)
		}
		s.log.take()
		if r := s.do(http.MethodPost, "/v2/team/app/blobs/uploads/", nil, "Authorization", "Bearer "+c.raw); r.StatusCode != 401 {
			t.Fatal(r.StatusCode)
		}
		if e := s.log.take(); len(e) != 1 || e[0].TokenID() != c.want {
			t.Errorf("%s: %d events, %q", c.name, len(e), e[0].TokenID())
		}
	}
}

func noSecret(t *testing.T, e audit.Event, secrets []string) {
	t.Helper()
	text := fmt.Sprintf("%+v %s", e, e.Detail)
	for _, secret := range secrets {
		if secret != "" && strings.Contains(text, secret) {
			t.Errorf("a secret is in the event %s", text)
		}
	}
}

// Whatever stands in a request for tokens, and whichever way it is sent: the
// answer is one of ours, and is a token only for who has shown the secret.
func FuzzTokenRequest(f *testing.F) {
	s := newLoginSiteAs(f, policy.RoleAcrPull)
	for _, seed := range []string{
		"grant_type=password&service=" + loginServer + "&username=harbor&password=x&scope=repository:a:pull",
		"grant_type=refresh_token&refresh_token=a.b.c&scope=repository:*:*%20registry:catalog:*",
		"grant_type=access_token&service=" + loginServer + "&access_token=a.b.c&tenant=t",
		"grant_type=access_token_refresh_token&access_token=a&refresh_token=b", "scope=repository:%00:pull", "scope=&scope=:&scope=::", "a=%zz", "grant_type=&grant_type=", ";", "%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, form string) {
		for _, target := range []string{"/oauth2/token", "/oauth2/exchange"} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, "https://"+loginServer+target, strings.NewReader(form))
			r.RequestURI = target
			r = r.WithContext(link.With(r.Context(), link.Origin{Remote: netip.MustParseAddrPort("203.0.113.9:40000")}))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			s.api.ServeHTTP(w, r)
			switch w.Code {
			case 400, 401, 413:
			default:
				t.Errorf("%s with %q: %d %s", target, form, w.Code, w.Body)
			}
		}
	})
}
