package loginapi_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"cove.example/cove/directory"
	"cove.example/cove/federation"
)

// certificate is a self-signed one, as `az ad sp create-for-rbac --create-cert`
// makes it.
func certificate(t *testing.T, from, until time.Time) (*rsa.PrivateKey, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	plate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CLI-Login"}, NotBefore: from, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, plate, plate, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

// client is a service principal with an application.
func (s *site) newClient() (app directory.Object) {
	s.Helper()
	app = directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: s.admin.Tenant, Kind: directory.Application, AppID: directory.NewID(), Name: "ci"}}
	sp := app
	sp.ObjectID, sp.Kind = directory.NewID(), directory.ServicePrincipal
	s.must(s.api.Directory.Add(s.Context(), app))
	s.must(s.api.Directory.Add(s.Context(), sp))
	return app
}

func (s *site) certify(app directory.Object, der []byte) directory.Credential {
	s.Helper()
	cred, err := directory.NewCertificate("", "c", der, s.now.Add(-time.Hour), s.now.Add(365*24*time.Hour))
	s.must(err)
	s.must(s.api.Directory.ChangeCertificates(s.Context(), app.ObjectID, func(old []directory.Credential) ([]directory.Credential, error) {
		return append(old, cred), nil
	}))
	return cred
}

func fingerprint(der []byte) (x5t, x5tS256 string) {
	one, two := sha1.Sum(der), sha256.Sum256(der)
	return base64.URLEncoding.EncodeToString(one[:]), base64.RawURLEncoding.EncodeToString(two[:])
}

type signing struct {
	alg     jose.SignatureAlgorithm
	headers map[jose.HeaderKey]any
	claims  map[string]any
}

// assertion is signed as MSAL for Python signs it, unless change says otherwise.
func (s *site) assertion(app directory.Object, key *rsa.PrivateKey, der []byte, change func(*signing)) string {
	s.Helper()
	x5t, _ := fingerprint(der)
	a := signing{jose.RS256, map[jose.HeaderKey]any{"x5t": x5t}, map[string]any{
		"aud": "https://" + name + "/adfs/oauth2/token", "iss": app.AppID, "sub": app.AppID,
		"exp": s.now.Add(10 * time.Minute).Unix(), "iat": s.now.Unix(), "jti": directory.NewID(),
	}}
	if change != nil {
		change(&a)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: a.alg, Key: key}, &jose.SignerOptions{ExtraHeaders: a.headers})
	s.must(err)
	text, err := jwt.Signed(signer).Claims(a.claims).Serialize()
	s.must(err)
	return text
}

func (s *site) assert(clientID, text string, more ...string) reply {
	return s.post("/adfs/oauth2/token", append([]string{
		"grant_type", "client_credentials", "client_id", clientID, "scope", management + "//.default", "client_info", "1",
		"client_assertion", text, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
	}, more...)...)
}

// A client proves itself with a certificate's key, in the spellings that the
// MSAL libraries have; whatever is not exactly that is refused.
//
// Published failure 44.
func TestCertificates(t *testing.T) {
	s := open(t)
	app, other := s.newClient(), s.newClient()
	key, der := certificate(t, s.now.Add(-time.Hour), s.now.Add(48*time.Hour))
	second, secondDER := certificate(t, s.now.Add(-time.Hour), s.now.Add(48*time.Hour))
	stranger, strangerDER := certificate(t, s.now.Add(-time.Hour), s.now.Add(48*time.Hour))
	cred := s.certify(app, der)
	s.certify(app, secondDER)
	foreign := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.ServicePrincipal, AppID: directory.NewID()}}
	s.must(s.api.Directory.Add(t.Context(), foreign))
	s.certify(foreign, der)
	_, x5tS256 := fingerprint(der)
	claim := func(name string, v any) func(*signing) { return func(a *signing) { a.claims[name] = v } }
	at := func(d time.Duration) int64 { return s.now.Add(d).Unix() }
	for _, c := range []struct {
		name string
		r    reply
		code string // "" is a token
	}{
		{"MSAL for Python", s.assert(app.AppID, s.assertion(app, key, der, nil)), ""},
		{"the second certificate", s.assert(app.AppID, s.assertion(app, second, secondDER, nil)), ""},
		{"MSAL for Go", s.assert(app.AppID, s.assertion(app, key, der, func(a *signing) {
			a.alg, a.headers = jose.PS256, map[jose.HeaderKey]any{"x5t#S256": x5tS256}
			a.claims["aud"] = "https://" + name + "/" + s.admin.Tenant + "/oauth2/v2.0/token"
		})), ""},
		{"capitals and a slash in the audience", s.assert(app.AppID, s.assertion(app, key, der, claim("aud", "https://LOGIN.cove.internal/ADFS/oauth2/token/"))), ""},
		{"the authority's other name", s.assert(app.AppID, s.assertion(app, key, der, claim("aud", []string{"https://" + alias + "/" + s.admin.Tenant + "/v2.0"}))), ""},
		{"another's key", s.assert(app.AppID, s.assertion(app, stranger, der, nil)), "AADSTS700027"},
		{"a certificate that nobody registered", s.assert(app.AppID, s.assertion(app, stranger, strangerDER, nil)), "AADSTS700027"},
		{"no thumbprint", s.assert(app.AppID, s.assertion(app, key, der, func(a *signing) { a.headers = nil })), "AADSTS700027"},
		{"RS512", s.assert(app.AppID, s.assertion(app, key, der, func(a *signing) { a.alg = jose.RS512 })), "AADSTS700027"},
		{"a client that is not there", s.assert(directory.NewID(), s.assertion(app, key, der, nil)), "AADSTS70021"},
		{"another client", s.assert(other.AppID, s.assertion(other, key, der, nil)), "AADSTS700027"},
		{"a client of another tenant", s.assert(foreign.AppID, s.assertion(foreign, key, der, nil)), "AADSTS700027"},
		{"another subject", s.assert(app.AppID, s.assertion(app, key, der, claim("sub", other.AppID))), "AADSTS700027"},
		{"another audience", s.assert(app.AppID, s.assertion(app, key, der, claim("aud", "https://login.example/adfs/oauth2/token"))), "AADSTS700023"},
		{"another path of ours", s.assert(app.AppID, s.assertion(app, key, der, claim("aud", "https://"+name+"/"))), "AADSTS700023"},
		{"expired", s.assert(app.AppID, s.assertion(app, key, der, claim("exp", at(-6*time.Minute)))), "AADSTS700024"},
		{"no end", s.assert(app.AppID, s.assertion(app, key, der, func(a *signing) { delete(a.claims, "exp") })), "AADSTS700024"},
		{"of two days", s.assert(app.AppID, s.assertion(app, key, der, claim("exp", at(48*time.Hour)))), "AADSTS700024"},
		{"not yet", s.assert(app.AppID, s.assertion(app, key, der, claim("nbf", at(6*time.Minute)))), "AADSTS700024"},
		{"no jti", s.assert(app.AppID, s.assertion(app, key, der, func(a *signing) { delete(a.claims, "jti") })), "AADSTS700027"},
		{"a secret besides", s.assert(app.AppID, s.assertion(app, key, der, nil), "client_secret", "x"), "AADSTS900144"},
		{"the certificate as a secret", s.post("/adfs/oauth2/token", "grant_type", "client_credentials", "client_id", app.AppID, "scope", management+"/.default", "client_secret", string(der)), "AADSTS7000215"},
		{"no JWT", s.assert(app.AppID, "x"), "AADSTS700027"},
	} {
		text, _ := c.r.body["error_description"].(string)
		if c.code == "" && c.r.StatusCode != 200 || c.code != "" && (!strings.HasPrefix(text, c.code+":") || c.r.StatusCode < 400) {
			t.Errorf("%s: %d %s, want %s", c.name, c.r.StatusCode, c.r.text, c.code)
		}
	}

	// The same one again, within its life; and its token is the credential's.
	once := s.assertion(app, key, der, nil)
	for range 2 {
		r := s.assert(app.AppID, once)
		claims, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(r.body["access_token"]), management)
		if err != nil || claims.Credential != cred.KeyID || claims.AppACR != "2" {
			t.Errorf("%+v %v", claims, err)
		}
	}
	s.now = s.now.Add(49 * time.Hour)
	if r := s.assert(app.AppID, s.assertion(app, key, der, nil)); r.StatusCode != 401 || !strings.Contains(r.text, "has expired") {
		t.Errorf("with a certificate that has ended: %s", r.text)
	}
}

// row:71 Of several secrets each has its own end; one that has ended is refused
// with the text that people look for, the others go on, and what was bought
// with it ends with it.
//
// Published failure 50.
func TestSecretsEndOneByOne(t *testing.T) {
	s := open(t)
	app := s.newClient()
	secrets := map[string]string{}
	for name, life := range map[string]time.Duration{"short": time.Hour, "long": 48 * time.Hour} {
		secret, _, err := s.api.Directory.AddSecret(t.Context(), app.ObjectID, name, s.now, s.now.Add(life))
		s.must(err)
		secrets[name] = secret.Reveal()
	}
	try := func(secret string) reply {
		return s.post("/adfs/oauth2/token", "grant_type", "client_credentials", "client_id", app.AppID, "client_secret", secrets[secret], "scope", management+"/.default")
	}
	first := try("short")
	if first.StatusCode != 200 || try("long").StatusCode != 200 {
		t.Fatalf("%s", first.text)
	}
	claims, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(first.body["access_token"]), management)
	s.must(err)
	if _, err := s.api.Directory.Standing(t.Context(), claims.ObjectID, claims.Credential); err != nil {
		t.Error(err)
	}
	s.now = s.now.Add(time.Hour - time.Second)
	if r := try("short"); r.StatusCode != 200 {
		t.Errorf("a second before its end: %s", r.text)
	}
	s.now = s.now.Add(time.Second)
	if r := try("short"); r.StatusCode != 401 || !strings.HasPrefix(fmt.Sprint(r.body["error_description"]), "AADSTS7000222: ") {
		t.Errorf("at its end: %d %s", r.StatusCode, r.text)
	}
	if _, err := s.api.Directory.Standing(t.Context(), claims.ObjectID, claims.Credential); !errors.Is(err, directory.ErrExpired) {
		t.Errorf("a token of a secret that has ended: %v", err)
	}
	if r := try("long"); r.StatusCode != 200 {
		t.Errorf("the other secret: %s", r.text)
	}
}

// foreign is another issuer, which counts how often it is asked.
type foreign struct {
	*httptest.Server
	key   *rsa.PrivateKey
	asked int
	away  bool
}

func newForeign(t *testing.T) *foreign {
	key, _ := certificate(t, time.Now(), time.Now().Add(time.Hour))
	f := &foreign{key: key}
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.asked++
		switch {
		case f.away:
			http.Error(w, "away", http.StatusBadGateway)
		case r.URL.Path == "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k1", Use: "sig"}}})
		default:
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": f.URL, "jwks_uri": f.URL + "/keys"})
		}
	}))
	t.Cleanup(f.Close)
	return f
}

// A token of another issuer stands for a client where its issuer, subject and
// audience are letter by letter what was registered; only then is the issuer
// asked for its keys.
func TestFederatedCredentials(t *testing.T) {
	s := open(t)
	other := newForeign(t)
	s.api.Issuers = federation.New(other.Client().Transport, func() time.Time { return s.now }, nil)
	app := s.newClient()
	const subject = "repo:org/app:environment:production"
	cred, err := directory.NewFederation("main", directory.Federation{Issuer: other.URL, Subject: subject, Audiences: []string{"api://AzureADTokenExchange"}})
	s.must(err)
	s.must(s.api.Directory.ChangeFederations(t.Context(), app.ObjectID, func(old []directory.Credential) ([]directory.Credential, error) { return append(old, cred), nil }))
	token := func(key *rsa.PrivateKey, change func(map[string]any)) string {
		return s.assertion(app, key, nil, func(a *signing) {
			a.headers = map[jose.HeaderKey]any{"kid": "k1"}
			a.claims["iss"], a.claims["sub"], a.claims["aud"] = other.URL, subject, "api://AzureADTokenExchange"
			if change != nil {
				change(a.claims)
			}
		})
	}
	claim := func(name string, v any) func(map[string]any) { return func(c map[string]any) { c[name] = v } }
	for name, r := range map[string]reply{
		"another issuer":             s.assert(app.AppID, token(other.key, claim("iss", "https://attacker.example"))),
		"a slash after the issuer":   s.assert(app.AppID, token(other.key, claim("iss", other.URL+"/"))),
		"another subject":            s.assert(app.AppID, token(other.key, claim("sub", "repo:org/app:environment:staging"))),
		"the subject in capitals":    s.assert(app.AppID, token(other.key, claim("sub", strings.ToUpper(subject)))),
		"another audience":           s.assert(app.AppID, token(other.key, claim("aud", "api://other"))),
		"another client":             s.assert(s.newClient().AppID, token(other.key, nil)),
		"a client that is not there": s.assert(directory.NewID(), token(other.key, nil)),
	} {
		if r.StatusCode != 401 || !strings.HasPrefix(fmt.Sprint(r.body["error_description"]), "AADSTS70021: No matching federated identity record found") {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.text)
		}
	}
	if other.asked != 0 {
		t.Errorf("strangers made the server ask an issuer %d times", other.asked)
	}
	// An issuer that is away is no fault of the client's.
	other.away = true
	if r := s.assert(app.AppID, token(other.key, nil)); r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.HasPrefix(fmt.Sprint(r.body["error_description"]), "AADSTS50166") {
		t.Errorf("an issuer that is away: %d %s", r.StatusCode, r.text)
	}
	other.away, s.now = false, s.now.Add(time.Minute)
	good := s.assert(app.AppID, token(other.key, nil))
	claims, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(good.body["access_token"]), management)
	if err != nil || !strings.HasPrefix(claims.Credential, cred.KeyID+".") || claims.AppID != app.AppID {
		t.Fatalf("%s %v", good.text, err)
	}
	stranger, _ := certificate(t, s.now, s.now.Add(time.Hour))
	for code, r := range map[string]reply{
		"AADSTS700027": s.assert(app.AppID, token(stranger, nil)),
		"AADSTS700024": s.assert(app.AppID, token(other.key, claim("exp", s.now.Add(-time.Hour).Unix()))),
	} {
		if r.StatusCode != 401 || !strings.HasPrefix(fmt.Sprint(r.body["error_description"]), code) {
			t.Errorf("want %s: %d %s", code, r.StatusCode, r.text)
		}
	}
	// What is taken away ends, and so does what was bought with it.
	s.must(s.api.Directory.ChangeFederations(t.Context(), app.ObjectID, func([]directory.Credential) ([]directory.Credential, error) { return nil, nil }))
	if r := s.assert(app.AppID, token(other.key, nil)); r.StatusCode != 401 {
		t.Errorf("after its removal: %s", r.text)
	}
	if _, err := s.api.Directory.Standing(t.Context(), claims.ObjectID, claims.Credential); !errors.Is(err, directory.ErrUnknown) {
		t.Error(err)
	}
}
