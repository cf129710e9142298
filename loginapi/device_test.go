package loginapi_test

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/link"
)

// browser is a person's: it keeps the page's cookie, and sends what browsers
// send with a form.
type browser struct {
	*site
	cookie, form string
	headers      http.Header
}

type shown struct {
	*http.Response
	text string
}

func (s *site) newBrowser() *browser {
	b := &browser{site: s, headers: http.Header{"Origin": {"https://" + name}, "Sec-Fetch-Site": {"same-origin"}}}
	b.visit(http.MethodGet)
	return b
}

var hidden = regexp.MustCompile(`name="form" value="([^"]*)"`)

func (b *browser) visit(method string, fields ...string) shown {
	b.Helper()
	v := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		v.Add(fields[i], fields[i+1])
	}
	req, err := http.NewRequestWithContext(b.Context(), method, b.URL+"/device", strings.NewReader(v.Encode()))
	b.must(err)
	req.Host = name
	if method == http.MethodPost {
		req.Header = b.headers.Clone()
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if b.cookie != "" {
		req.Header.Set("Cookie", "__Host-cove-device="+b.cookie)
	}
	resp, err := b.client.Do(req)
	b.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	b.must(err)
	for _, c := range resp.Cookies() {
		b.cookie = c.Value
		if c.Name != "__Host-cove-device" || !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" {
			b.Errorf("the cookie %v", c)
		}
	}
	if m := hidden.FindSubmatch(text); m != nil {
		b.form = string(m[1])
	}
	return shown{resp, string(text)}
}

func (b *browser) answer(fields ...string) shown {
	b.Helper()
	return b.visit(http.MethodPost, append([]string{"form", b.form}, fields...)...)
}

// begin is what az sends for `az login --use-device-code`.
func (s *site) begin() (user, device string) {
	s.Helper()
	r := s.post("/adfs/oauth2/devicecode", "client_id", azCLI, "scope", management+"//.default offline_access openid profile")
	user, device = fmt.Sprint(r.body["user_code"]), fmt.Sprint(r.body["device_code"])
	if r.StatusCode != 200 || r.body["verification_uri"] != "https://"+name+"/device" || r.body["expires_in"] != 900.0 || r.body["interval"] != 5.0 ||
		!strings.Contains(fmt.Sprint(r.body["message"]), user) || strings.Contains(fmt.Sprint(r.body["verification_uri"]), user) {
		s.Fatalf("%d %s", r.StatusCode, r.text)
	}
	return user, device
}

func (s *site) poll(device string, more ...string) reply {
	s.Helper()
	return s.post("/adfs/oauth2/token", append([]string{
		"client_id", azCLI, "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", device, "code", device, "client_info", "1",
	}, more...)...)
}

// A program without a browser is signed in by a person elsewhere, who sees
// which program it is, and gets what a sign-in by password gets.
//
// Published failure 47.
func TestAPersonSignsInOnAnotherDevice(t *testing.T) {
	s := open(t)
	s.people()
	alice := s.newUser("alice@cove.internal", "correct horse")
	if doc := s.get("/adfs/.well-known/openid-configuration").body; doc["device_authorization_endpoint"] != "https://"+name+"/adfs/oauth2/devicecode" {
		t.Errorf("%v", doc)
	}
	if doc := s.get("/common/v2.0/.well-known/openid-configuration").body; doc["device_authorization_endpoint"] != "https://"+name+"/"+s.admin.Tenant+"/oauth2/v2.0/devicecode" {
		t.Errorf("%v", doc)
	}
	user, code := s.begin()
	wants := func(r reply, want string) {
		t.Helper()
		if r.StatusCode != 400 || r.body["error"] != want || r.body["access_token"] != nil {
			t.Errorf("%d %s, want %s", r.StatusCode, r.text, want)
		}
	}
	wants(s.poll(code), "authorization_pending")
	wants(s.poll(code), "slow_down")
	b := s.newBrowser()
	page := b.answer("code", strings.ToLower(user))
	for _, want := range []string{"Azure CLI", "127.0.0.1", management, `name="password"`} {
		if page.StatusCode != 200 || !strings.Contains(page.text, want) {
			t.Errorf("%d: %q is not in\n%s", page.StatusCode, want, page.text)
		}
	}
	page = b.answer("code", user, "answer", "approve", "username", "alice@cove.internal", "password", "wrong horse")
	if page.StatusCode != 400 || !strings.Contains(page.text, "invalid username or password") || strings.Contains(page.text, "wrong horse") {
		t.Errorf("a wrong password: %d\n%s", page.StatusCode, page.text)
	}
	s.now = s.now.Add(5 * time.Second)
	wants(s.poll(code), "authorization_pending")
	if page = b.answer("code", user, "answer", "approve", "username", "Alice@cove.internal", "password", "correct horse"); page.StatusCode != 200 || !strings.Contains(page.text, "You have signed in to Azure CLI") {
		t.Fatalf("%d %s", page.StatusCode, page.text)
	}
	if again := b.answer("code", user); again.StatusCode != 400 || !strings.Contains(again.text, "not known") {
		t.Errorf("the code is good twice: %s", again.text)
	}
	wants(s.post("/adfs/oauth2/token", "client_id", "1950a258-227b-4e31-a9cf-717495945fc2", "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "device_code", code), "invalid_grant")
	wants(s.poll(code, "device_code", code), "invalid_request")
	wants(s.poll(user), "invalid_grant")
	r := s.poll(code)
	claims, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(r.body["access_token"]), management)
	if err != nil || claims.ObjectID != alice.ObjectID || claims.IDType != "user" || claims.AppID != azCLI || r.body["id_token"] == nil || r.body["client_info"] == nil {
		t.Fatalf("%s %+v %v", r.text, claims, err)
	}
	wants(s.poll(code), "invalid_grant")
	if next := s.refresh(fmt.Sprint(r.body["refresh_token"])); next.StatusCode != 200 {
		t.Errorf("the refresh token: %s", next.text)
	}

	// Declined, and too late.
	user, code = s.begin()
	if page = b.answer("code", user, "answer", "decline"); page.StatusCode != 200 || !strings.Contains(page.text, "declined") {
		t.Errorf("%s", page.text)
	}
	wants(s.poll(code), "access_denied")
	user, code = s.begin()
	s.now = s.now.Add(15 * time.Minute)
	wants(s.poll(code), "expired_token")
	if page = b.answer("code", user, "answer", "approve", "username", "alice@cove.internal", "password", "correct horse"); page.StatusCode != 400 {
		t.Errorf("an expired code: %s", page.text)
	}

	// Who approves and is disabled before the program asks has approved nothing.
	user, code = s.begin()
	b.answer("code", user, "answer", "approve", "username", "alice@cove.internal", "password", "correct horse")
	s.must(s.api.Directory.SetPassword(t.Context(), alice.ObjectID, "battery staple"))
	wants(s.poll(code), "invalid_grant")

	// A person of another tenant is nobody here.
	foreign := s.newUser("eve@other.internal", "correct horse")
	s.must(s.api.Directory.Remove(t.Context(), foreign.ObjectID))
	foreign.Tenant = directory.NewID()
	s.must(s.api.Directory.Add(t.Context(), foreign))
	user, _ = s.begin()
	if page = b.answer("code", user, "answer", "approve", "username", "eve@other.internal", "password", "correct horse"); page.StatusCode != 400 {
		t.Errorf("another tenant's person: %s", page.text)
	}
	for name, form := range map[string][]string{
		"no program": {"scope", management + "/.default"}, "an unknown program": {"client_id", directory.NewID(), "scope", management + "/.default"},
		"no scope": {"client_id", azCLI}, "another's scope": {"client_id", azCLI, "scope", "https://example.com/.default"},
		"twice": {"client_id", azCLI, "client_id", azCLI, "scope", management + "/.default"},
	} {
		if r := s.post("/adfs/oauth2/devicecode", form...); r.StatusCode != 400 || r.body["device_code"] != nil {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.text)
		}
	}
}

// Published failures 18, 19, 20 and 47: a form is taken from its own page in the same
// browser only; the page runs no script, is shown in no frame, repeats nothing
// unescaped and leads nowhere else, whatever its address says.
func TestTheDevicePageIsNobodyElses(t *testing.T) {
	s := open(t)
	s.people()
	s.newUser("alice@cove.internal", "correct horse")
	user, code := s.begin()
	good := []string{"code", user, "answer", "approve", "username", "alice@cove.internal", "password", "correct horse"}
	for name, spoil := range map[string]func(*browser){
		"another site":              func(b *browser) { b.headers.Set("Sec-Fetch-Site", "cross-site") },
		"a neighbour below a name":  func(b *browser) { b.headers.Set("Sec-Fetch-Site", "same-site") },
		"another origin":            func(b *browser) { b.headers = http.Header{"Origin": {"https://harbor.cr.cove.internal"}} },
		"no origin that is told":    func(b *browser) { b.headers = http.Header{"Origin": {"null"}} },
		"no cookie":                 func(b *browser) { b.cookie = "" },
		"another browser's cookie":  func(b *browser) { b.cookie = s.newBrowser().cookie },
		"no form":                   func(b *browser) { b.form = "" },
		"no form and an empty one":  func(b *browser) { b.form, b.cookie = "", `""` },
		"a form of another browser": func(b *browser) { b.form = s.newBrowser().form },
	} {
		b := s.newBrowser()
		spoil(b)
		if r := b.answer(good...); r.StatusCode != http.StatusForbidden || strings.Contains(r.text, user) {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.text)
		}
	}
	b := s.newBrowser()
	if r := b.answer(append(good, "username", "eve@cove.internal")...); r.StatusCode != http.StatusBadRequest {
		t.Errorf("a field sent twice: %d %s", r.StatusCode, r.text)
	}
	if r := s.poll(code); r.body["error"] != "authorization_pending" {
		t.Errorf("one of them was taken: %s", r.text)
	}

	for _, page := range []shown{b.visit(http.MethodGet), b.answer("code", user), b.answer("code", `"><script>alert(1)</script>`), b.visit(http.MethodPut)} {
		csp := page.Header.Get("Content-Security-Policy")
		style := regexp.MustCompile(`(?s)<style>(.*)</style>`).FindStringSubmatch(page.text)
		if style == nil {
			t.Fatalf("no style in %s", page.text)
		}
		sum := sha256.Sum256([]byte(style[1]))
		want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
		if csp != want || page.Header.Get("X-Frame-Options") != "DENY" || page.Header.Get("Cache-Control") != "no-store" ||
			page.Header.Get("X-Content-Type-Options") != "nosniff" || page.Header.Get("Referrer-Policy") != "same-origin" || page.Header.Get("Content-Type") != "text/html; charset=utf-8" {
			t.Errorf("%v", page.Header)
		}
		if strings.Contains(page.text, "<script") || strings.Contains(page.text, "alert(1)\"") {
			t.Errorf("a script: %s", page.text)
		}
	}
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, to := range []string{"//h.example", `/\h.example`, "/%09/h.example", "https:h.example", "https://login.cove.internal@h.example"} {
		for _, parameter := range []string{"redirect_uri", "next", "return", "post_logout_redirect_uri", "user_code"} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/device?"+url.Values{parameter: {to}}.Encode(), nil)
			s.must(err)
			req.Host = name
			resp, err := s.client.Do(req)
			s.must(err)
			text, err := io.ReadAll(resp.Body)
			s.must(errors.Join(err, resp.Body.Close()))
			if resp.StatusCode != http.StatusOK || resp.Header.Get("Location") != "" || strings.Contains(string(text), "h.example") {
				t.Errorf("%s=%s: %d %v", parameter, to, resp.StatusCode, resp.Header)
			}
		}
	}
	// A page under the wrong name is misdirected, and without people there is none.
	s.api.People = false
	if r := s.get("/device"); r.StatusCode != http.StatusNotFound {
		t.Errorf("without people: %d %s", r.StatusCode, r.text)
	}
	if r := s.post("/adfs/oauth2/devicecode", "client_id", azCLI, "scope", management+"/.default"); r.StatusCode != 400 {
		t.Errorf("without people: %d %s", r.StatusCode, r.text)
	}
	if doc := s.get("/adfs/.well-known/openid-configuration").body; doc["device_authorization_endpoint"] != nil {
		t.Errorf("without people: %v", doc)
	}
}

// Failure 21: who guesses codes, passwords or secrets at the issuer waits, and
// locks out nobody else: not the person from elsewhere, not another client.
//
// Published failure 21.
func TestGuessesAtTheIssuerAreSlowedDown(t *testing.T) {
	s := open(t)
	s.people()
	s.newUser("alice@cove.internal", "correct horse")
	b := s.newBrowser()
	heard := 0
	for i := range 40 {
		if r := b.answer("code", fmt.Sprintf("BCDF-%04d", i)); strings.Contains(r.text, "not known") {
			heard++
		} else if r.StatusCode != 400 || r.Header.Get("Retry-After") == "" {
			t.Fatalf("%d %s", r.StatusCode, r.text)
		}
	}
	if heard != 20 {
		t.Errorf("%d guesses at codes were heard", heard)
	}
	s.now = s.now.Add(20 * time.Minute)

	// All at once, and one after another, as many are told what they found. On a
	// busy machine most do not get their turn in time: then they come again.
	heard = 0
	for round := 0; heard < 10 && round < 20; round++ {
		told := make(chan bool, 60)
		for i := range cap(told) {
			go func() {
				r := s.ask("alice@cove.internal", fmt.Sprintf("a guess, number %d of %d", i, round))
				told <- strings.Contains(r.text, "AADSTS50126")
			}()
		}
		for range cap(told) {
			if <-told {
				heard++
			}
		}
	}
	if heard < 10 || heard > 22 {
		t.Errorf("%d of 60 guesses at once were answered", heard)
	}
	s.now = s.now.Add(20 * time.Minute)

	secret := func(id, text string) reply {
		return s.post("/adfs/oauth2/token", "grant_type", "client_credentials", "client_id", id, "client_secret", text, "scope", management+"/.default")
	}
	for i := range 20 {
		if r := secret(s.admin.ClientID, fmt.Sprint("guess ", i)); r.StatusCode != http.StatusUnauthorized {
			t.Fatalf("guess %d: %d %s", i, r.StatusCode, r.text)
		}
	}
	if r := secret(s.admin.ClientID, "the next"); r.StatusCode != http.StatusTooManyRequests || r.Header.Get("Retry-After") != "1" || !strings.Contains(r.text, "AADSTS50196") {
		t.Errorf("the twenty-first guess: %d %v %s", r.StatusCode, r.Header, r.text)
	}
	if r := secret(directory.NewID(), "another's"); r.StatusCode != http.StatusUnauthorized {
		t.Errorf("another client: %d %s", r.StatusCode, r.text)
	}
	s.now = s.now.Add(time.Second)
	if r := secret(s.admin.ClientID, s.admin.Secret.Reveal()); r.StatusCode != http.StatusOK {
		t.Errorf("the right one, after the wait: %d %s", r.StatusCode, r.text)
	}
	for i := range 40 {
		secret(s.admin.ClientID, fmt.Sprint("guess again ", i))
	}
	if r := secret(s.admin.ClientID, s.admin.Secret.Reveal()); r.StatusCode != http.StatusOK {
		t.Errorf("a secret that was right before, during an attack: %d %s", r.StatusCode, r.text)
	}
}

// Whoever has to wait learns of no password whether it is the right one, although
// its owner has signed in with it a moment ago. From elsewhere the owner does.
//
// Published failure 21.
func TestAWaitingGuesserIsNotToldTheRightPassword(t *testing.T) {
	s := open(t)
	s.people()
	s.newUser("alice@cove.internal", "correct horse")
	from := "203.0.113.9:40000"
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.api.ServeHTTP(w, r.WithContext(link.With(r.Context(), link.Origin{Remote: netip.MustParseAddrPort(from)})))
	})
	if r := s.ask("alice@cove.internal", "correct horse"); r.StatusCode != http.StatusOK {
		t.Fatalf("%d %s", r.StatusCode, r.text)
	}
	from = "198.51.100.1:40000"
	for i := range 20 {
		s.ask("alice@cove.internal", fmt.Sprint("a guess, number ", i))
	}
	wrong, right := s.ask("alice@cove.internal", "another guess"), s.ask("alice@cove.internal", "correct horse")
	for what, r := range map[string]reply{"wrong": wrong, "right": right} {
		if r.StatusCode != http.StatusBadRequest || !strings.Contains(r.text, "AADSTS50053") {
			t.Errorf("the %s one, while waiting: %d %s", what, r.StatusCode, r.text)
		}
	}
	from = "203.0.113.9:40001"
	if r := s.ask("alice@cove.internal", "correct horse"); r.StatusCode != http.StatusOK {
		t.Errorf("the owner, from elsewhere: %d %s", r.StatusCode, r.text)
	}
}

// A token that is bought with a refresh token does not outlive it.
func TestARefreshedTokenEndsWithWhatBoughtIt(t *testing.T) {
	s := open(t)
	s.people()
	s.newUser("alice@cove.internal", "correct horse")
	bought := s.now
	text := fmt.Sprint(s.ask("alice@cove.internal", "correct horse").body["refresh_token"])
	s.now = bought.Add(90*24*time.Hour - 10*time.Minute)
	r := s.refresh(text)
	claims, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(r.body["access_token"]), acr)
	if err != nil || claims.Expires != bought.Add(90*24*time.Hour).Unix() || r.body["expires_in"] != 600.0 {
		t.Errorf("%s %+v %v", r.text, claims, err)
	}
}
