package token_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"pgregory.net/rapid"

	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

const (
	tenant  = "11111111-1111-4111-8111-111111111111"
	console = "https://management.cove.internal"
	harbor  = "harbor.cr.cove.internal"
	quay    = "quay.cr.cove.internal"
)

// world is a deployment's tokens over a real database, and its clock.
type world struct {
	*token.Tokens
	keys  *token.Keys
	store *store.Keys
	box   *seal.Box

	mu  sync.Mutex
	now time.Time
}

func (w *world) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func issuer(tenant string) string { return "https://login.cove.internal/" + tenant + "/v2.0" }

func open(t testing.TB) *world {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	box, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{store: store.NewKeys(storetest.Open(t, storetest.SQLite(t))), box: box, now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	if w.keys, err = token.OpenKeys(t.Context(), w.store, box, w.Now); err != nil {
		t.Fatal(err)
	}
	w.Tokens = token.New(w.keys, issuer)
	return w
}

func someone() token.PrincipalClaims {
	return token.PrincipalClaims{Audience: console + "/", ObjectID: "22222222-2222-4222-8222-222222222222", Tenant: tenant, AppID: "33333333-3333-4333-8333-333333333333"}
}

func holder(host string) token.RegistryClaims {
	return token.RegistryClaims{
		Audience: host, RegistryUID: "uid-" + host, Subject: "ci", Kind: "servicePrincipal", Mode: "m",
		Access: []token.Access{{Type: "repository", Name: "team/app", Actions: []string{"pull"}}},
	}
}

// kinds are all kinds of token, each with how it is made and the place that
// takes it.
type kind struct {
	name   string
	mint   func(*world) (string, error)
	verify func(*world, string) error
}

var kinds = []kind{
	{
		"access token for the control plane",
		func(w *world) (string, error) { s, _, err := w.MintPrincipal(someone()); return s, err },
		func(w *world, s string) error { _, err := w.VerifyPrincipal(s, console); return err },
	},
	{
		"access token for the registry audience",
		func(w *world) (string, error) {
			c := someone()
			c.Audience = "https://containerregistry.azure.net"
			s, _, err := w.MintPrincipal(c)
			return s, err
		},
		func(w *world, s string) error {
			_, err := w.VerifyPrincipal(s, "https://containerregistry.azure.net")
			return err
		},
	},
	{
		"refresh token of harbor",
		func(w *world) (string, error) { s, _, err := w.MintRefresh(holder(harbor)); return s, err },
		func(w *world, s string) error { _, err := w.VerifyRefresh(s, harbor, "uid-"+harbor); return err },
	},
	{
		"refresh token of quay",
		func(w *world) (string, error) { s, _, err := w.MintRefresh(holder(quay)); return s, err },
		func(w *world, s string) error { _, err := w.VerifyRefresh(s, quay, "uid-"+quay); return err },
	},
	{
		"access token of harbor",
		func(w *world) (string, error) {
			s, _, err := w.MintRegistry(holder(harbor), time.Time{})
			return s, err
		},
		func(w *world, s string) error { _, err := w.VerifyRegistry(s, harbor, "uid-"+harbor); return err },
	},
	{
		"access token of quay",
		func(w *world) (string, error) { s, _, err := w.MintRegistry(holder(quay), time.Time{}); return s, err },
		func(w *world, s string) error { _, err := w.VerifyRegistry(s, quay, "uid-"+quay); return err },
	},
	{
		"access token of a registry made again under harbor's name",
		func(w *world) (string, error) {
			c := holder(harbor)
			c.RegistryUID = "uid-new"
			s, _, err := w.MintRegistry(c, time.Time{})
			return s, err
		},
		func(w *world, s string) error { _, err := w.VerifyRegistry(s, harbor, "uid-new"); return err },
	},
}

// Published failures 14 and 43: a token was taken for another kind, for
// another audience, or of another tenant. Each kind is tried in every place.
func TestEachKindIsTakenInItsOwnPlaceOnly(t *testing.T) {
	w := open(t)
	for _, made := range kinds {
		raw, err := made.mint(w)
		if err != nil {
			t.Fatal(err)
		}
		for _, place := range kinds {
			for range 2 { // the second time out of memory
				err := place.verify(w, raw)
				if own := made.name == place.name; own != (err == nil) {
					t.Errorf("%s where an %s is wanted: %v", made.name, place.name, err)
				}
			}
		}
	}
}

// Published failure 43: the tenant and the issuer are one pair.
//
// Published failure 14.
func TestATokenOfAnotherIssuerIsRefused(t *testing.T) {
	w := open(t)
	other := token.New(w.keys, func(tenant string) string { return "https://elsewhere/" + tenant })
	raw, _, err := other.MintPrincipal(someone())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.VerifyPrincipal(raw, console); !errors.Is(err, token.ErrIssuer) {
		t.Fatalf("a token of another issuer, signed with our key: %v", err)
	}
}

func TestTimesAreKeptWithAMinuteOfLeeway(t *testing.T) {
	for _, each := range kinds {
		t.Run(each.name, func(t *testing.T) {
			w := open(t)
			raw, err := each.mint(w)
			if err != nil {
				t.Fatal(err)
			}
			var c struct{ Iat, Exp int64 }
			payload(t, raw, &c)
			life := time.Duration(c.Exp-c.Iat) * time.Second
			w.pass(-59 * time.Second)
			if err := each.verify(w, raw); err != nil {
				t.Errorf("a clock 59 s behind: %v", err)
			}
			w.pass(-2 * time.Second)
			if err := each.verify(w, raw); err == nil {
				t.Error("a token from 61 s in the future was taken")
			}
			w.pass(61*time.Second + life + 59*time.Second)
			if err := each.verify(w, raw); err != nil {
				t.Errorf("59 s after its end: %v", err)
			}
			w.pass(time.Second)
			if err := each.verify(w, raw); !errors.Is(err, token.ErrExpired) {
				t.Errorf("60 s after its end: %v", err)
			}
		})
	}
}

func TestLifetimesAreAzures(t *testing.T) {
	w := open(t)
	for i, want := range []time.Duration{time.Hour, time.Hour, 3 * time.Hour, 3 * time.Hour, 75 * time.Minute} {
		raw, err := kinds[i].mint(w)
		if err != nil {
			t.Fatal(err)
		}
		var c struct{ Iat, Exp int64 }
		payload(t, raw, &c)
		if got := time.Duration(c.Exp-c.Iat) * time.Second; got != want {
			t.Errorf("%s lasts %v, not %v", kinds[i].name, got, want)
		}
	}
}

func TestATokenBoughtWithATokenEndsWithIt(t *testing.T) {
	w := open(t)
	end := w.Now().Add(10 * time.Minute)
	_, c, err := w.MintRegistry(holder(harbor), end)
	if err != nil || c.Expires != end.Unix() {
		t.Fatalf("expires at %v, not %v: %v", time.Unix(c.Expires, 0), end, err)
	}
}

// An access token that is good for nothing says so; one that said nothing would
// be read as one that does not tell.
func TestATokenForNothingSaysSo(t *testing.T) {
	w := open(t)
	nothing := holder(harbor)
	nothing.Access = nil
	raw, _, err := w.MintRegistry(nothing, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	var said map[string]any
	payload(t, raw, &said)
	if list, ok := said["access"].([]any); !ok || len(list) != 0 {
		t.Errorf("access is %v", said["access"])
	}
	c, err := w.VerifyRegistry(raw, harbor, "uid-"+harbor)
	if err != nil || c.Access == nil || len(c.Access) != 0 {
		t.Errorf("%v %v", c, err)
	}
	if raw, _, err = w.MintRefresh(holder(harbor)); err != nil {
		t.Fatal(err)
	}
	clear(said)
	if payload(t, raw, &said); said["access"] != nil {
		t.Errorf("a refresh token with access %v", said["access"])
	}
}

// Whatever one claim says instead of what it said, under a good signature of
// the right key: the token is taken nowhere. A signature proves who wrote, not
// that it was written for this place.
//
// Published failures 14 and 43.
func TestNoOtherClaimIsTaken(t *testing.T) {
	w := open(t)
	now := w.Now().Unix()
	strange := []any{nil, "", "x", 0, -1, 1e300, true, []any{}, map[string]any{}, "0", []any{"https://management.cove.internal"}}
	claims := map[string][]any{
		"iss": append([]any{issuer("44444444-4444-4444-8444-444444444444"), issuer(""), "Azure Container Registry "}, strange...),
		"aud": append([]any{"https://management.cove.internal.example", "*", quay + "." + harbor, strings.ToUpper(harbor)}, strange...),
		"exp": append([]any{now - 61, now + 25*3600, float64(now+60) + 0.5}, strange...),
		"iat": append([]any{now + 121, now - 30*3600}, strange...),
		"nbf": append([]any{now + 121}, strange...),
		// Of the issuer's tokens.
		"oid": {nil, "", 0, true, []any{}},
		"tid": append([]any{"44444444-4444-4444-8444-444444444444", strings.ToUpper(tenant) + " "}, strange...),
		// Of registries'.
		"rid": append([]any{"uid-", "uid-" + quay + harbor}, strange...), "grant_type": append([]any{"access_token refresh_token", "password"}, strange...), "version": append([]any{"2.0"}, strange...),
	}
	// What only one of the two has.
	principal := map[string]bool{"oid": true, "tid": true}
	registry := map[string]bool{"rid": true, "grant_type": true, "version": true}
	n := 0
	for i, k := range kinds {
		own := i < 2
		good := mint(t, w, k)
		header, _, _ := strings.Cut(good, ".")
		for claim, values := range claims {
			if own && registry[claim] || !own && principal[claim] {
				continue
			}
			for _, v := range values {
				var c map[string]any
				payload(t, good, &c)
				if c[claim] = v; v == nil {
					delete(c, claim)
				}
				bad := w.forge(t, header, c)
				if err := k.verify(w, bad); err == nil {
					t.Errorf("%s with %s of %v was taken", k.name, claim, v)
				}
				n++
			}
		}
		// The forger is one: what it changes nothing of is taken.
		var c map[string]any
		payload(t, good, &c)
		if err := k.verify(w, w.forge(t, header, c)); err != nil {
			t.Fatalf("%s: the test cannot sign: %v", k.name, err)
		}
	}
	t.Logf("%d tokens", n)
}

// forge signs any claims as the key that a header names would.
func (w *world) forge(t *testing.T, header string, claims map[string]any) string {
	t.Helper()
	var h struct{ Kid, Typ string }
	segment(t, header, &h)
	stored, err := w.store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range stored {
		if k.ID != h.Kid {
			continue
		}
		der, err := w.box.Open(k.Sealed, []byte("signing key/"+string(k.Use)+"/"+k.ID))
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			t.Fatal(err)
		}
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(k.Algorithm), Key: jose.JSONWebKey{Key: private, KeyID: k.ID}}, (&jose.SignerOptions{}).WithType(jose.ContentType(h.Typ)))
		if err != nil {
			t.Fatal(err)
		}
		body, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		obj, err := s.Sign(body)
		if err != nil {
			t.Fatal(err)
		}
		out, err := obj.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	t.Fatalf("there is no key %s", h.Kid)
	return ""
}

// Published failures 3 and 48: keys carried in the token or named by it,
// algorithms chosen by it, several signatures, and headers made to cost.
func TestATokenCannotBringItsOwnKey(t *testing.T) {
	w := open(t)
	good, err := kinds[4].mint(w)
	if err != nil {
		t.Fatal(err)
	}
	header, rest, _ := strings.Cut(good, ".")
	body, _, _ := strings.Cut(rest, ".")
	var h map[string]any
	segment(t, header, &h)
	claims, err := base64.RawURLEncoding.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	kid := h["kid"].(string)
	attacker, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(alg jose.SignatureAlgorithm, key any, o *jose.SignerOptions) string {
		s, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, o)
		if err != nil {
			t.Fatal(err)
		}
		obj, err := s.Sign(claims)
		if err != nil {
			t.Fatal(err)
		}
		out, err := obj.CompactSerialize()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	typ := h["typ"].(string)
	with := func(pairs ...string) *jose.SignerOptions {
		o := (&jose.SignerOptions{}).WithType(jose.ContentType(typ)).WithHeader("kid", kid)
		for i := 0; i < len(pairs); i += 2 {
			o = o.WithHeader(jose.HeaderKey(pairs[i]), pairs[i+1])
		}
		return o
	}
	embedded := with()
	embedded.EmbedJWK = true
	public, err := json.Marshal(w.keys.JWKS().Keys[0])
	if err != nil {
		t.Fatal(err)
	}
	raw := func(h string) string { return base64.RawURLEncoding.EncodeToString([]byte(h)) }
	for name, bad := range map[string]string{
		"another key under our kid":         sign(jose.ES256, attacker, with()),
		"its key in jwk":                    sign(jose.ES256, attacker, embedded),
		"its key at jku":                    sign(jose.ES256, attacker, with("jku", "https://attacker.example/keys")),
		"its key at x5u":                    sign(jose.ES256, attacker, with("x5u", "https://attacker.example/chain")),
		"its certificate in x5c":            raw(fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":%q,"x5c":["MIIB"]}`, kid, typ)) + "." + rest,
		"a path as kid":                     raw(`{"alg":"ES256","kid":"../../dev/null","typ":"`+typ+`"}`) + "." + rest,
		"an address as kid":                 raw(`{"alg":"ES256","kid":"https://attacker.example/k","typ":"`+typ+`"}`) + "." + rest,
		"RS256 with a key of its own":       sign(jose.RS256, big, with()),
		"HS256 keyed with our public key":   sign(jose.HS256, public, with()),
		"alg none":                          raw(fmt.Sprintf(`{"alg":"none","kid":%q,"typ":%q}`, kid, typ)) + "." + body + ".",
		"alg nOnE":                          raw(fmt.Sprintf(`{"alg":"nOnE","kid":%q,"typ":%q}`, kid, typ)) + "." + body + ".",
		"no signature":                      header + "." + body + ".",
		"two algorithms":                    raw(fmt.Sprintf(`{"alg":"ES256","alg":"none","kid":%q,"typ":%q}`, kid, typ)) + "." + rest,
		"PBES2 with a huge count":           raw(`{"alg":"PBES2-HS512+A256KW","p2c":2147483647,"p2s":"AA","enc":"A256GCM"}`) + ".AA.AA.AA.AA",
		"the JSON serialization":            `{"payload":"` + body + `","signatures":[]}`,
		"a million dots":                    strings.Repeat(".", 1e6),
		"a megabyte of header":              strings.Repeat("A", 1<<20) + "." + rest,
		"white space":                       " " + good,
		"a line break at the end":           good + "\n",
		"its end cut off":                   good[:len(good)-4],
		"nothing":                           "",
		"the key set's own text":            string(public),
		"one segment more":                  good + ".AA",
		"a token of ours with spare header": raw(fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":%q} `, kid, typ)) + "." + rest,
	} {
		if err := kinds[4].verify(w, bad); err == nil {
			t.Errorf("taken with %s", name)
		}
	}
	if allocs := testing.AllocsPerRun(100, func() { _ = kinds[4].verify(w, strings.Repeat(".", 1e6)) }); allocs > 10 {
		t.Errorf("a hostile token costs %v allocations", allocs)
	}
}

// Whatever byte is changed, removed or doubled: the token is not taken.
//
// Published failure 48.
func TestNoMutantIsTaken(t *testing.T) {
	w := open(t)
	var raw []string
	for _, k := range kinds {
		s, err := k.mint(w)
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, s)
	}
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
	rapid.Check(t, func(rt *rapid.T) {
		i := rapid.IntRange(0, len(kinds)-1).Draw(rt, "kind")
		good := raw[i]
		at := rapid.IntRange(0, len(good)-1).Draw(rt, "at")
		if rapid.Bool().Draw(rt, "near the end") {
			at = len(good) - 1 - at%3 // where base64 has spare bits
		}
		c := rapid.SampledFrom([]byte(alphabet)).Draw(rt, "byte")
		bad := good[:at] + string(c) + good[at+1:]
		switch rapid.IntRange(0, 3).Draw(rt, "how") {
		case 1:
			bad = good[:at] + good[at+1:]
		case 2:
			bad = good[:at] + string(c) + good[at:]
		case 3:
			other := rapid.IntRange(0, len(kinds)-1).Draw(rt, "other")
			a, b := strings.Split(good, "."), strings.Split(raw[other], ".")
			n := rapid.IntRange(0, 2).Draw(rt, "segment")
			a[n] = b[n]
			bad = strings.Join(a, ".")
		}
		if bad == good {
			return
		}
		if err := kinds[i].verify(w, bad); err == nil {
			rt.Fatalf("a mutant was taken: %q", bad)
		}
	})
}

func TestKeysRotateWhileTokensLive(t *testing.T) {
	for _, each := range []struct {
		kind kind
		use  token.Use
		lead time.Duration
	}{{kinds[0], token.Issuer, time.Hour}, {kinds[4], token.Registry, time.Minute}} {
		t.Run(string(each.use), func(t *testing.T) {
			w := open(t)
			first := mint(t, w, each.kind)
			if err := w.keys.Rotate(t.Context(), each.use); err != nil {
				t.Fatal(err)
			}
			if each.use == token.Issuer && len(w.keys.JWKS().Keys) != 2 {
				t.Error("the next key is not published before its first use")
			}
			if kid(t, mint(t, w, each.kind)) != kid(t, first) {
				t.Error("the next key signs before everybody can know it")
			}
			w.pass(each.lead)
			second := mint(t, w, each.kind)
			if kid(t, second) == kid(t, first) {
				t.Error("the old key still signs")
			}
			late := mint(t, w, each.kind)
			w.pass(3*time.Hour + 61*time.Second)
			if each.use == token.Issuer && len(w.keys.JWKS().Keys) != 1 {
				t.Error("the old key is still published after its last token has ended")
			}
			if err := each.kind.verify(w, late); errors.Is(err, token.ErrSignature) {
				t.Error("the new key has retired with the old")
			}
		})
	}
}

func TestARevokedKeyEndsItsTokensAtOnce(t *testing.T) {
	w := open(t)
	raw := mint(t, w, kinds[4])
	if err := kinds[4].verify(w, raw); err != nil {
		t.Fatal(err)
	}
	if err := w.keys.Revoke(t.Context(), kid(t, raw)); err != nil {
		t.Fatal(err)
	}
	if err := kinds[4].verify(w, raw); err == nil {
		t.Error("a token of a revoked key was taken, out of memory")
	}
	if err := kinds[4].verify(w, mint(t, w, kinds[4])); err != nil {
		t.Errorf("the key that took its place: %v", err)
	}
}

// A key's end holds on a node that hears nothing any more.
func TestAKeyEndsWithoutNews(t *testing.T) {
	w := open(t)
	raw := mint(t, w, kinds[4])
	if err := w.store.Revoke(t.Context(), kid(t, raw), w.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	keys, err := token.OpenKeys(t.Context(), w.store, w.box, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	w.Tokens = token.New(keys, issuer)
	if err := kinds[4].verify(w, raw); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Minute)
	if err := kinds[4].verify(w, raw); !errors.Is(err, token.ErrSignature) {
		t.Errorf("after the key's end: %v", err)
	}
}

// Another node hears of a rotation by following the database.
func TestANodeFollowsAnothersRotation(t *testing.T) {
	w := open(t)
	other, err := token.OpenKeys(t.Context(), w.store, w.box, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- other.Run(ctx) }()
	if err := w.keys.Rotate(ctx, token.Issuer); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for len(other.JWKS().Keys) != 2 {
		if time.Now().After(deadline) {
			t.Fatal("the other node does not know the new key")
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	stop()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// Published failure 15: an empty or foreign key must not be signed with.
func TestKeysOpenOnlyUnderTheirMasterKey(t *testing.T) {
	w := open(t)
	other := make([]byte, 32)
	rand.Read(other)
	box, err := seal.New(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.OpenKeys(t.Context(), w.store, box, w.Now); err == nil {
		t.Error("keys sealed under another master key were opened")
	}
	stored, err := w.store.Keys(t.Context())
	if err != nil || len(stored) != 2 {
		t.Fatal(len(stored), err)
	}
	for _, k := range stored {
		if strings.Contains(string(k.Sealed), "PRIVATE") || strings.Contains(string(k.Sealed), "pkcs8") {
			t.Errorf("key %s is readable in the database", k.ID)
		}
	}
}

// A row's key in another row's place opens, and is refused all the same.
func TestASealedKeyBelongsToItsRow(t *testing.T) {
	w := open(t)
	stored, err := w.store.Keys(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var k token.Stored
	for _, s := range stored {
		if s.Use == token.Registry {
			k = s
		}
	}
	k.ID = "ffffffffffffffffffffffffffffffff"
	if err := w.store.Rotate(t.Context(), k, w.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := token.OpenKeys(t.Context(), w.store, w.box, w.Now); err == nil {
		t.Error("a key was taken from another row")
	}
}

func mint(t testing.TB, w *world, k kind) string {
	t.Helper()
	s, err := k.mint(w)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func kid(t testing.TB, raw string) string {
	t.Helper()
	var h struct{ Kid string }
	first, _, _ := strings.Cut(raw, ".")
	segment(t, first, &h)
	return h.Kid
}

func payload(t testing.TB, raw string, into any) {
	t.Helper()
	segment(t, strings.Split(raw, ".")[1], into)
}

func segment(t testing.TB, s string, into any) {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err == nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func BenchmarkMintRegistry(b *testing.B) {
	w := open(b)
	for b.Loop() {
		if _, _, err := w.MintRegistry(holder(harbor), time.Time{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyRemembered(b *testing.B) {
	w := open(b)
	raw := mint(b, w, kinds[4])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.VerifyRegistry(raw, harbor, "uid-"+harbor); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyFirst(b *testing.B) {
	w := open(b)
	var raw []string
	for range 256 {
		raw = append(raw, mint(b, w, kinds[4]))
	}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		if i%256 == 0 {
			w.Tokens = token.New(w.keys, issuer) // with nothing remembered
		}
		b.StartTimer()
		if _, err := w.VerifyRegistry(raw[i%256], harbor, "uid-"+harbor); err != nil {
			b.Fatal(err)
		}
	}
}

// A server whose clock is set back after its first start goes on signing, and
// what it signs is good.
func TestAClockSetBackStopsNoSigning(t *testing.T) {
	w := open(t)
	w.pass(-12 * time.Hour)
	for _, k := range kinds {
		if err := k.verify(w, mint(t, w, k)); err != nil {
			t.Errorf("%v", err)
		}
	}
}

// Whatever a stranger sends: it is taken for no kind of token, and comes back
// without a panic.
func FuzzVerify(f *testing.F) {
	w := open(f)
	own := map[string]bool{}
	for _, k := range kinds {
		raw := mint(f, w, k)
		own[raw] = true
		f.Add(raw)
		f.Add(raw[:len(raw)/2])
		f.Add(strings.Replace(raw, ".", "..", 1))
	}
	session, err := w.MintSession(token.Session{ObjectID: "o", Tenant: tenant})
	if err != nil {
		f.Fatal(err)
	}
	own[session] = true
	f.Add(session)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("..")
	f.Add("")
	f.Fuzz(func(t *testing.T, raw string) {
		if own[raw] {
			return
		}
		for _, k := range kinds {
			if k.verify(w, raw) == nil {
				t.Errorf("%q is taken for an %s", raw, k.name)
			}
		}
		if _, err := w.VerifySession(raw); err == nil {
			t.Errorf("%q is taken for a session", raw)
		}
	})
}
