package federation_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"cove.example/cove/federation"
)

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// issuer is another issuer: a real server with keys of its own.
type issuer struct {
	*httptest.Server
	testing.TB
	now      time.Time
	document map[string]any
	set      jose.JSONWebKeySet
	raw      string // takes the place of the set
	asked    int    // for keys
	away     bool
}

func newIssuer(t *testing.T) *issuer {
	is := &issuer{TB: t, now: time.Now().Truncate(time.Second)}
	is.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case is.away:
			http.Error(w, "away", http.StatusBadGateway)
		case r.URL.Path == "/.well-known/openid-configuration":
			json.NewEncoder(w).Encode(is.document)
		case r.URL.Path == "/keys":
			is.asked++
			if is.raw != "" {
				fmt.Fprint(w, is.raw)
				return
			}
			json.NewEncoder(w).Encode(is.set)
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/keys", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(is.Close)
	is.document = map[string]any{"issuer": is.URL, "jwks_uri": is.URL + "/keys"}
	is.set = jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &rsaKey().PublicKey, KeyID: "k1", Use: "sig", Algorithm: "RS256"}}}
	return is
}

func (is *issuer) open() *federation.Issuers {
	return federation.New(is.Client().Transport, func() time.Time { return is.now }, nil)
}

func (is *issuer) sign(alg jose.SignatureAlgorithm, key any, kid string, change func(map[string]any)) string {
	is.Helper()
	return is.signWith(nil, alg, key, kid, change)
}

func (is *issuer) signWith(o *jose.SignerOptions, alg jose.SignatureAlgorithm, key any, kid string, change func(map[string]any)) string {
	is.Helper()
	claims := map[string]any{
		"iss": is.URL, "sub": "repo:a/b:ref:refs/heads/main", "aud": "api://AzureADTokenExchange",
		"iat": is.now.Unix(), "nbf": is.now.Unix(), "exp": is.now.Add(10 * time.Minute).Unix(),
	}
	if change != nil {
		change(claims)
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, o)
	if err != nil {
		is.Fatal(err)
	}
	text, err := jwt.Signed(s).Claims(claims).Serialize()
	if err != nil {
		is.Fatal(err)
	}
	return text
}

func set(name string, v any) func(map[string]any) { return func(c map[string]any) { c[name] = v } }

// Published failure 48.
func TestVerify(t *testing.T) {
	is := newIssuer(t)
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	is.set.Keys = append(is.set.Keys,
		jose.JSONWebKey{Key: small.Public(), KeyID: "ec"},
		jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "enc", Use: "enc"},
		jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "twice"}, jose.JSONWebKey{Key: &other.PublicKey, KeyID: "twice"},
		jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "mac"},
		jose.JSONWebKey{Key: &rsaKey().PublicKey, KeyID: "any"})
	for _, c := range []struct {
		name string
		raw  string
		want error
	}{
		{"a good one", is.sign(jose.RS256, rsaKey(), "k1", nil), nil},
		{"with a key of another kind", is.sign(jose.ES256, small, "ec", nil), nil},
		{"PS256 with a key for any algorithm", is.sign(jose.PS256, rsaKey(), "any", nil), nil},
		{"PS256 with a key for RS256", is.sign(jose.PS256, rsaKey(), "k1", nil), federation.ErrToken},
		{"RS512", is.sign(jose.RS512, rsaKey(), "any", nil), federation.ErrToken},
		{"a MAC by a published key", is.sign(jose.HS256, []byte("0123456789abcdef0123456789abcdef"), "mac", nil), federation.ErrToken},
		{"an RSA key where the id is an EC key's", is.sign(jose.RS256, rsaKey(), "ec", nil), federation.ErrToken},
		{"another's key", is.sign(jose.RS256, other, "k1", nil), federation.ErrToken},
		{"a key for encryption", is.sign(jose.RS256, rsaKey(), "enc", nil), federation.ErrToken},
		{"a key id that two have", is.sign(jose.RS256, rsaKey(), "twice", nil), federation.ErrToken},
		{"no key id", is.sign(jose.RS256, rsaKey(), "", nil), federation.ErrToken},
		{"an unknown key", is.sign(jose.RS256, rsaKey(), "k9", nil), federation.ErrToken},
		{"another issuer's claim", is.sign(jose.RS256, rsaKey(), "k1", set("iss", is.URL+"/")), federation.ErrToken},
		{"expired", is.sign(jose.RS256, rsaKey(), "k1", set("exp", is.now.Add(-3*time.Minute).Unix())), federation.ErrTime},
		{"expired within what clocks differ", is.sign(jose.RS256, rsaKey(), "k1", set("exp", is.now.Add(-time.Minute).Unix())), nil},
		{"no end", is.sign(jose.RS256, rsaKey(), "k1", func(c map[string]any) { delete(c, "exp") }), federation.ErrTime},
		{"not yet", is.sign(jose.RS256, rsaKey(), "k1", set("nbf", is.now.Add(time.Hour).Unix())), federation.ErrTime},
		{"from the future", is.sign(jose.RS256, rsaKey(), "k1", set("iat", is.now.Add(time.Hour).Unix())), federation.ErrTime},
		{"no time at which it was issued, which nobody needs", is.sign(jose.RS256, rsaKey(), "k1", func(c map[string]any) { delete(c, "iat") }), nil},
		{"an end that is a text", is.sign(jose.RS256, rsaKey(), "k1", set("exp", "tomorrow")), federation.ErrToken},
		{"an end before all time", is.sign(jose.RS256, rsaKey(), "k1", set("exp", -1)), federation.ErrTime},
		{"an audience that is a number", is.sign(jose.RS256, rsaKey(), "k1", set("aud", 1)), federation.ErrToken},
		{"two issuers", is.sign(jose.RS256, rsaKey(), "k1", set("iss", []string{is.URL, "x"})), federation.ErrToken},
		{"another encoding", is.signWith((&jose.SignerOptions{}).WithHeader("b64", false), jose.RS256, rsaKey(), "k1", nil), federation.ErrToken},
		{"an extension that must be understood", is.signWith((&jose.SignerOptions{}).WithCritical("exp"), jose.RS256, rsaKey(), "k1", nil), federation.ErrToken},
		{"nothing", "", federation.ErrToken},
		{"too long", strings.Repeat("x", federation.MaxToken) + "..", federation.ErrToken},
		{"without a signature", "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.e30.", federation.ErrToken},
	} {
		got, err := is.open().Verify(t.Context(), is.URL, c.raw)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err == nil && (got.Subject != "repo:a/b:ref:refs/heads/main" || !got.Has("api://AzureADTokenExchange") || got.Has("api://azureadtokenexchange")) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// What an issuer says that cannot be relied on gives no keys.
//
// Published failure 50.
func TestIssuersThatAreNotBelieved(t *testing.T) {
	good := func(is *issuer) string { return is.sign(jose.RS256, rsaKey(), "k1", nil) }
	for name, spoil := range map[string]func(*issuer){
		"another's document": func(is *issuer) { is.document["issuer"] = "https://other.example" },
		"a slash too many":   func(is *issuer) { is.document["issuer"] = is.URL + "/" },
		"keys by plain http": func(is *issuer) {
			plain := httptest.NewServer(is.Config.Handler)
			t.Cleanup(plain.Close)
			is.document["jwks_uri"] = plain.URL + "/keys"
		},
		"keys elsewhere":       func(is *issuer) { is.document["jwks_uri"] = is.URL + "/moved" },
		"no keys":              func(is *issuer) { delete(is.document, "jwks_uri") },
		"a document too large": func(is *issuer) { is.document["x"] = strings.Repeat("x", 65<<10) },
		"keys too large":       func(is *issuer) { is.raw = `{"keys":[],"x":"` + strings.Repeat("x", 257<<10) + `"}` },
		"too many keys":        func(is *issuer) { is.raw = `{"keys":[` + strings.Repeat("{},", 100) + `{}]}` },
		"no JSON":              func(is *issuer) { is.raw = "<html>" },
		"away":                 func(is *issuer) { is.away = true },
	} {
		is := newIssuer(t)
		spoil(is)
		if _, err := is.open().Verify(t.Context(), is.URL, good(is)); !errors.Is(err, federation.ErrIssuer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Keys are kept, asked for again when they are old or one is unknown, never
// oftener than every half minute, and end when the issuer is away for an hour.
func TestKeysAreKeptWithinBounds(t *testing.T) {
	is := newIssuer(t)
	s := is.open()
	try := func(kid string, want error) {
		t.Helper()
		if _, err := s.Verify(t.Context(), is.URL, is.sign(jose.RS256, rsaKey(), kid, nil)); !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	asked := func(want int) {
		t.Helper()
		if is.asked != want {
			t.Errorf("keys were asked for %d times, want %d", is.asked, want)
		}
	}
	for range 5 {
		try("k1", nil)
	}
	asked(1)
	for range 50 {
		try("k2", federation.ErrToken)
	}
	asked(1)
	is.now = is.now.Add(31 * time.Second)
	is.set.Keys[0].KeyID = "k2" // the issuer has another key
	try("k2", nil)
	try("k1", federation.ErrToken)
	asked(2)
	is.now = is.now.Add(11 * time.Minute)
	is.away = true
	try("k2", nil) // for a while
	is.now = is.now.Add(time.Hour)
	try("k2", federation.ErrIssuer)
	is.away = false
	is.now = is.now.Add(31 * time.Second)
	try("k2", nil)
	asked(3)
}

func FuzzUnverified(f *testing.F) {
	is := &issuer{Server: &httptest.Server{URL: "https://issuer.example"}, TB: f, now: time.Unix(1_800_000_000, 0)}
	f.Add(is.sign(jose.RS256, rsaKey(), "k1", nil))
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, raw string) {
		if c, err := federation.Unverified(raw); err != nil && c.Issuer != "" {
			t.Errorf("%+v with %v", c, err)
		}
	})
}
