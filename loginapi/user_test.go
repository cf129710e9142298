package loginapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"cove.example/cove/directory"
)

const azCLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"

func (s *site) people() { s.api.People = true }

func (s *site) newUser(upn, password string) directory.Object {
	s.Helper()
	cred, err := directory.NewPassword(s.Context(), password, s.now)
	s.must(err)
	o := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: s.admin.Tenant, Kind: directory.User, UPN: upn, Name: "Alice"}, Credentials: []directory.Credential{cred}}
	s.must(s.api.Directory.Add(s.Context(), o))
	return o
}

// ask is what az sends for `az login -u -p`.
func (s *site) ask(upn, password string, more ...string) reply {
	return s.post("/adfs/oauth2/token", append([]string{
		"client_id", azCLI, "grant_type", "password", "username", upn, "password", password,
		"scope", management + "//.default offline_access openid profile", "client_info", "1",
	}, more...)...)
}

func (s *site) refresh(text string, more ...string) reply {
	return s.post("/adfs/oauth2/token", append([]string{
		"client_id", azCLI, "grant_type", "refresh_token", "refresh_token", text, "scope", acr + "/.default offline_access openid profile",
	}, more...)...)
}

// A person signs in with az, and goes on with the refresh token for as long as
// the password is the same and the person may.
//
// Published failure 50.
func TestAPersonSignsIn(t *testing.T) {
	s := open(t)
	s.people()
	alice := s.newUser("alice@cove.internal", "correct horse")
	r := s.ask("Alice@COVE.internal", "correct horse")
	claims, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(r.body["access_token"]), management)
	if err != nil || claims.IDType != "user" || claims.UPN != "alice@cove.internal" || claims.ObjectID != alice.ObjectID || claims.AppID != azCLI {
		t.Fatalf("%s %+v %v", r.text, claims, err)
	}
	// MSAL wants these of the id token and of client_info.
	var id map[string]any
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(fmt.Sprint(r.body["id_token"]), ".")[1])
	s.must(err)
	s.must(json.Unmarshal(body, &id))
	if id["aud"] != azCLI || id["tid"] != s.admin.Tenant || id["preferred_username"] != "alice@cove.internal" || id["sub"] == nil || id["iss"] != s.get("/adfs/.well-known/openid-configuration").body["issuer"] {
		t.Errorf("%v", id)
	}
	info, err := base64.RawURLEncoding.DecodeString(fmt.Sprint(r.body["client_info"]))
	if err != nil || !strings.Contains(string(info), alice.ObjectID) {
		t.Errorf("%s %v", info, err)
	}
	// The id token is a proof of nothing.
	if _, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(r.body["id_token"]), azCLI, management); err == nil {
		t.Error("an id token is taken for an access token")
	}

	first := fmt.Sprint(r.body["refresh_token"])
	next := s.refresh(first)
	if _, err := s.api.Tokens.VerifyPrincipal(fmt.Sprint(next.body["access_token"]), acr); err != nil {
		t.Fatalf("%s %v", next.text, err)
	}
	last := len(first) - 1
	for name, bad := range map[string]reply{
		"changed":            s.refresh(first[:last] + string("AB"[btoi(first[last] == 'A')])),
		"nothing":            s.refresh(""),
		"the access token":   s.refresh(fmt.Sprint(r.body["access_token"])),
		"another program":    s.post("/adfs/oauth2/token", "client_id", "1950a258-227b-4e31-a9cf-717495945fc2", "grant_type", "refresh_token", "refresh_token", first, "scope", management+"/.default"),
		"an unknown program": s.post("/adfs/oauth2/token", "client_id", directory.NewID(), "grant_type", "refresh_token", "refresh_token", first, "scope", management+"/.default"),
		"sent twice":         s.refresh(first, "refresh_token", first),
	} {
		if bad.StatusCode != 400 || bad.body["access_token"] != nil {
			t.Errorf("%s: %d %s", name, bad.StatusCode, bad.text)
		}
	}
	s.now = s.now.Add(89 * 24 * time.Hour)
	again := s.refresh(fmt.Sprint(next.body["refresh_token"]))
	if again.StatusCode != 200 {
		t.Errorf("after 89 days: %s", again.text)
	}
	s.now = s.now.Add(2 * 24 * time.Hour)
	if r := s.refresh(first); r.StatusCode != 400 || r.body["error"] != "invalid_grant" {
		t.Errorf("one of 91 days: %s", r.text)
	}
	s.must(s.api.Directory.SetPassword(t.Context(), alice.ObjectID, "battery staple"))
	if r := s.refresh(fmt.Sprint(again.body["refresh_token"])); r.StatusCode != 400 {
		t.Errorf("after another password: %s", r.text)
	}
	if r := s.ask("alice@cove.internal", "correct horse"); r.StatusCode != 400 {
		t.Errorf("the old password: %s", r.text)
	}
	latest := s.ask("alice@cove.internal", "battery staple")
	if latest.StatusCode != 200 {
		t.Fatalf("the new password: %s", latest.text)
	}
	s.must(s.api.Directory.Remove(t.Context(), alice.ObjectID))
	if r := s.refresh(fmt.Sprint(latest.body["refresh_token"])); r.StatusCode != 400 {
		t.Errorf("after the deletion: %s", r.text)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Who is not there, who is disabled and who has mistyped are told the same; and
// nobody guesses on for long, without locking out the person.
func TestPeopleAreNotToldApart(t *testing.T) {
	s := open(t)
	s.people()
	s.newUser("alice@cove.internal", "correct horse")
	bob := s.newUser("bob@cove.internal", "correct horse")
	_, err := s.api.Directory.Change(t.Context(), bob.ObjectID, func(o *directory.Object) error { o.Disabled = true; return nil })
	s.must(err)
	foreign := s.newUser("eve@other.internal", "correct horse")
	s.must(s.api.Directory.Remove(t.Context(), foreign.ObjectID))
	foreign.Tenant = directory.NewID()
	s.must(s.api.Directory.Add(t.Context(), foreign))
	said := func(r reply) string {
		text, _ := r.body["error_description"].(string)
		text, _, _ = strings.Cut(text, " Trace ID")
		return fmt.Sprint(r.StatusCode, r.body["error"], text)
	}
	want := said(s.ask("alice@cove.internal", "wrong horse"))
	if !strings.Contains(want, "invalid_grant") || !strings.Contains(want, "AADSTS50126") {
		t.Error(want)
	}
	for name, r := range map[string]reply{
		"nobody": s.ask("nobody@cove.internal", "correct horse"), "a disabled user": s.ask("bob@cove.internal", "correct horse"),
		"a user of another tenant": s.ask("eve@other.internal", "correct horse"),
		"a very long password":     s.ask("alice@cove.internal", strings.Repeat("x", 50<<10)),
	} {
		if got := said(r); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for range 20 {
		s.ask("alice@cove.internal", "a guess")
	}
	if got := said(s.ask("alice@cove.internal", "a guess")); !strings.Contains(got, "AADSTS50053") {
		t.Errorf("the twenty-first guess: %s", got)
	}
	if got := said(s.ask("nobody@cove.internal", "a guess")); got != want {
		t.Errorf("a guess at another: %s", got)
	}
	s.now = s.now.Add(time.Minute)
	if r := s.ask("alice@cove.internal", "correct horse"); r.StatusCode != 200 {
		t.Errorf("a minute later: %s", r.text)
	}
}
