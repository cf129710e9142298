package loginapi_test

import (
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

func segment(v any) string {
	if text, ok := v.(string); ok {
		return base64.RawURLEncoding.EncodeToString([]byte(text))
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// Failures 3 and 48: an assertion names no algorithm, key or place of its own,
// is read once and costs little, whatever its header says.
func TestAnAssertionBringsNoKey(t *testing.T) {
	s := open(t)
	app := s.newClient()
	key, der := certificate(t, s.now.Add(-time.Hour), s.now.Add(48*time.Hour))
	s.certify(app, der)
	thief, thiefDER := certificate(t, s.now.Add(-time.Hour), s.now.Add(48*time.Hour))
	x5t, _ := fingerprint(der)
	var asked atomic.Int32
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	t.Cleanup(lure.Close)

	claims := map[string]any{
		"aud": "https://" + name + "/adfs/oauth2/token", "iss": app.AppID, "sub": app.AppID,
		"exp": s.now.Add(10 * time.Minute).Unix(), "iat": s.now.Unix(), "jti": "j",
	}
	hs := func(alg string, secret []byte) string {
		open := segment(map[string]any{"alg": alg, "typ": "JWT", "x5t": strings.TrimRight(x5t, "=")}) + "." + segment(claims)
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(open))
		return open + "." + segment(string(mac.Sum(nil)))
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	s.must(err)
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	with := func(private *rsa.PrivateKey, headers map[jose.HeaderKey]any) string {
		return s.assertion(app, private, der, func(a *signing) {
			a.headers = map[jose.HeaderKey]any{"x5t": x5t}
			for k, v := range headers {
				a.headers[k] = v
			}
		})
	}
	good := with(key, nil)
	parts := strings.Split(good, ".")
	twice := func(field string) string {
		body, err := base64.RawURLEncoding.DecodeString(parts[1])
		s.must(err)
		// As a parser that takes the first reads it, and one that takes the last.
		return strings.Replace(string(body), `"`+field+`":`, `"`+field+`":"https://elsewhere.example","`+field+`":`, 1)
	}
	resign := func(payload string) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: key}, &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{"x5t": x5t}})
		s.must(err)
		obj, err := signer.Sign([]byte(payload))
		s.must(err)
		text, err := obj.CompactSerialize()
		s.must(err)
		return text
	}
	jwk := map[string]any{"kty": "RSA", "n": segment(string(thief.N.Bytes())), "e": "AQAB"}
	full, err := json.Marshal(map[string]any{"payload": parts[1], "protected": parts[0], "signature": parts[2]})
	s.must(err)
	if r := s.assert(app.AppID, good); r.StatusCode != 200 {
		t.Fatalf("the good one: %s", r.text)
	}
	for what, text := range map[string]string{
		"none":                        segment(map[string]any{"alg": "none"}) + "." + parts[1] + ".",
		"None":                        segment(map[string]any{"alg": "None", "x5t": x5t}) + "." + parts[1] + "." + parts[2],
		"no algorithm":                segment(map[string]any{"x5t": x5t}) + "." + parts[1] + "." + parts[2],
		"rs256 in small letters":      segment(map[string]any{"alg": "rs256", "x5t": x5t}) + "." + parts[1] + "." + parts[2],
		"HS256 with the public key":   hs("HS256", public),
		"HS256 with the key's DER":    hs("HS256", spki),
		"HS256 with the certificate":  hs("HS256", certPEM),
		"HS256 with its DER":          hs("HS256", der),
		"RS256 that is HS256":         hs("RS256", public),
		"its own key":                 with(thief, map[jose.HeaderKey]any{"jwk": jwk}),
		"its own certificate":         with(thief, map[jose.HeaderKey]any{"x5c": []string{base64.StdEncoding.EncodeToString(thiefDER)}}),
		"ours, then its own":          with(thief, map[jose.HeaderKey]any{"x5c": []string{base64.StdEncoding.EncodeToString(der), base64.StdEncoding.EncodeToString(thiefDER)}}),
		"a place of its own":          with(thief, map[jose.HeaderKey]any{"jku": lure.URL + "/keys", "x5u": lure.URL + "/cert", "kid": lure.URL}),
		"a path for a key":            with(thief, map[jose.HeaderKey]any{"kid": "../../dev/null"}),
		"an extension that is needed": with(key, map[jose.HeaderKey]any{"crit": []string{"exp"}, "exp": 1}),
		"another encoding":            with(key, map[jose.HeaderKey]any{"b64": false, "crit": []string{"b64"}}),
		"two issuers":                 resign(twice("iss")),
		"a cut signature":             good[:len(good)-40],
		"no signature":                parts[0] + "." + parts[1] + ".",
		"four parts":                  good + "." + parts[2],
		"five parts, as if encrypted": segment(map[string]any{"alg": "PBES2-HS256+A128KW", "enc": "A128GCM", "p2c": 1 << 30, "p2s": "AA"}) + ".a.b.c.d",
		"all in one JSON":             string(full),
		"a claim that is no text":     resign(`{"iss":["` + app.AppID + `"],"sub":"` + app.AppID + `"}`),
		"claims that are a list":      resign(`["` + app.AppID + `"]`),
		"no time that ends":           resign(strings.Replace(twice("none"), `"exp":`, `"exp":1e400,"was":`, 1)),
		"dots":                        strings.Repeat(".", 8<<10),
		"a deep header":               base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat(`{"a":`, 2000))) + "." + parts[1] + "." + parts[2],
		"a long header":               with(key, map[jose.HeaderKey]any{"long": strings.Repeat("x", 40<<10)}),
		"bytes":                       string([]byte{0xff, 0xfe, '.', 0, '.', 1}),
	} {
		if r := s.assert(app.AppID, text); r.StatusCode/100 != 4 || r.body["access_token"] != nil {
			t.Errorf("%s: %d %s", what, r.StatusCode, r.text)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests went where a token said", n)
	}
	// A claim that stands twice is the one that was checked, never the other.
	if r := s.assert(app.AppID, resign(twice("aud"))); r.StatusCode == 200 {
		body, _ := base64.RawURLEncoding.DecodeString(strings.Split(resign(twice("aud")), ".")[1])
		if strings.LastIndex(string(body), "elsewhere") > strings.LastIndex(string(body), name) {
			t.Errorf("an audience that stands last is overlooked: %s", body)
		}
	}
	quickest := time.Hour
	for range 200 {
		begun := time.Now()
		s.assert(app.AppID, strings.Repeat(".", 8<<10))
		quickest = min(quickest, time.Since(begun))
	}
	if quickest > 20*time.Millisecond {
		t.Errorf("a request of dots takes %v", quickest)
	}
}

// Whatever a form is, the answer is one of ours, is never a token, and comes
// without a panic.
func FuzzTokenForm(f *testing.F) {
	s := open(f)
	s.people()
	for _, seed := range []string{
		"grant_type=password&client_id=" + azCLI + "&username=a&password=b&scope=https://management.cove.internal/.default",
		"grant_type=refresh_token&client_id=" + azCLI + "&refresh_token=AAAA&scope=x/.default",
		"grant_type=urn:ietf:params:oauth:grant-type:device_code&client_id=" + azCLI + "&device_code=%00",
		"grant_type=client_credentials&client_assertion=e30.e30.e30&client_assertion_type=urn:ietf:params:oauth:client-assertion-type:jwt-bearer&client_id=x&scope=" + management + "/.default",
		"%zz=%&;=&&&&", "grant_type=client_credentials&grant_type=password",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		for _, path := range []string{"/adfs/oauth2/token", "/adfs/oauth2/devicecode"} {
			req := httptest.NewRequest(http.MethodPost, "https://"+name+path, strings.NewReader(body))
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.TLS.ServerName = name
			w := httptest.NewRecorder()
			s.api.ServeHTTP(w, req)
			var out map[string]any
			if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
				t.Fatalf("%d %q", w.Code, w.Body)
			}
			if out["access_token"] != nil || w.Code >= 500 || w.Code == 200 && out["device_code"] == nil {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if w.Code >= 400 && (out["error"] == nil || !strings.Contains(fmt.Sprint(out["error_description"]), "AADSTS")) {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
		}
	})
}
