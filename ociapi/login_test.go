package ociapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

const (
	managementAudience = "https://management.cove.internal/"
	registryAudience   = "https://containerregistry.azure.net"
)

// realm is a site whose registry is a resource: what is changed through the
// Resource Manager's service is what the data plane decides by. It has two
// images, team/app:1 and other:1, and a clock of its own.
type realm struct {
	*site
	docs   *resource.Service
	conf   registry.Config
	keys   *store.Keys
	ident  *store.Identity
	guard  *access.Guard
	id     string
	client directory.Client
	secret string

	mu  sync.Mutex
	now time.Time
}

func (r *realm) time() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

func (r *realm) pass(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = r.now.Add(d)
}

func (r *realm) fatal(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func newRealm(t testing.TB, db *store.DB) *realm {
	t.Helper()
	r := &realm{site: newSite(t, everybody), now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	docs, ident := store.NewResources(db), store.NewIdentity(db)
	r.ident = ident
	key := make([]byte, 32)
	rand.Read(key)
	box, err := seal.New(key)
	r.fatal(err)
	r.keys = store.NewKeys(db)
	keys, err := token.OpenKeys(t.Context(), r.keys, box, r.time)
	r.fatal(err)

	secret, cred := directory.NewSecret("ci", r.now, 365*24*time.Hour)
	r.secret = secret.Reveal()
	r.client = directory.Client{
		Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: directory.NewID(), Kind: directory.ServicePrincipal},
		Credentials: []directory.Credential{cred},
	}
	sub := directory.Subscription{ID: directory.NewID(), Tenant: r.client.Tenant}
	_, err = ident.Found(t.Context(), directory.Tenant{ID: r.client.Tenant}, sub, r.client)
	r.fatal(err)

	c := registry.Config{Suffix: "cr.cove.internal", Sealer: box, Now: r.time}
	r.conf = c
	r.docs, err = resource.New(resource.Config{
		Store: docs, Locations: []string{"local"}, Now: r.time,
		Types: []resource.Type{registry.Type(c), registry.ScopeMaps(), registry.Tokens(c), {Name: registry.TypeConnection}},
	})
	r.fatal(err)
	r.fatal(r.docs.Begin(t.Context(), resource.First{Tenant: r.client.Tenant, Subscription: sub.ID}))
	group := "/subscriptions/" + sub.ID + "/resourceGroups/g"
	r.id = group + "/providers/Microsoft.ContainerRegistry/registries/harbor"
	r.put(group, `{"location":"local"}`)
	r.put(r.id, `{"location":"local","sku":{"name":"Premium"}}`)
	r.fatal(policy.Grant(t.Context(), docs, r.client.ObjectID, policy.RoleAcrPull, arm.MustID(r.id)))

	dir := registry.NewDirectory(docs, c)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- dir.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	<-dir.Live()

	settings, err := dir.ByName(t.Context(), "harbor")
	r.fatal(err)
	uid := harbor.UID
	harbor.UID = settings.UID // what everybody pushes goes into this registry
	r.pushImage("team/app", "1", "one")
	r.pushImage("other", "1", "two")
	harbor.UID = uid

	r.guard = &access.Guard{
		Registries: dir, Scoped: dir, Directory: directory.New(ident, r.time), Roles: policy.NewRoles(docs), Now: r.time,
		Tokens:    token.New(keys, func(tenant string) string { return "https://login/" + tenant }),
		Audiences: []string{registryAudience, managementAudience}, RegistryAudience: registryAudience,
	}
	r.api.Guard, r.api.Tokens, r.api.Now = r.guard, r.guard, r.time
	return r
}

func (r *realm) body(text string) resource.Object {
	r.Helper()
	o, err := resource.Decode([]byte(text))
	r.fatal(err)
	return o
}

var roots = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}

func (r *realm) put(id, text string) {
	r.Helper()
	_, err := r.docs.Put(r.Context(), roots, arm.MustID(id), r.body(text), resource.Condition{})
	r.fatal(err)
}

func (r *realm) patch(id, text string) {
	r.Helper()
	_, err := r.docs.Patch(r.Context(), roots, arm.MustID(id), r.body(text), resource.Condition{})
	r.fatal(err)
}

// act does an action on the registry and returns the values of its passwords.
func (r *realm) act(name, text string) []string {
	r.Helper()
	out, err := r.docs.Act(r.Context(), roots, arm.MustID(r.id), name, r.body(text))
	r.fatal(err)
	var got []string
	for _, p := range out["passwords"].([]any) {
		got = append(got, p.(resource.Object)["value"].(string))
	}
	return got
}

// robot makes a token with a scope map of its own, and returns its passwords.
func (r *realm) robot(actions ...string) []string {
	r.Helper()
	list, err := json.Marshal(actions)
	r.fatal(err)
	r.put(r.id+"/scopeMaps/robot-scope-map", `{"properties":{"actions":`+string(list)+`}}`)
	r.put(r.id+"/tokens/robot", `{"properties":{"scopeMapId":"`+r.id+`/scopeMaps/robot-scope-map"}}`)
	return r.act("generateCredentials", `{"tokenId":"`+r.id+`/tokens/robot"}`)
}

// login asks for a token as docker does, and returns it and the answer.
func (r *realm) login(user, password string, scopes ...string) (string, reply) {
	r.Helper()
	q := url.Values{"service": {loginServer}, "scope": scopes, "account": {user}}
	got := r.do(http.MethodGet, "/oauth2/token?"+q.Encode(), nil, "Authorization", header(user, password))
	return got.field("access_token"), got
}

// post sends a form.
func (r *realm) post(target string, form ...string) reply {
	r.Helper()
	v := url.Values{}
	for i := 0; i < len(form); i += 2 {
		v.Add(form[i], form[i+1])
	}
	return r.do(http.MethodPost, target, strings.NewReader(v.Encode()), "Content-Type", "application/x-www-form-urlencoded")
}

// exchange gives an access token of the issuer for a refresh token.
func (r *realm) exchange(audience string) reply {
	r.Helper()
	raw, _, err := r.guard.Tokens.MintPrincipal(token.PrincipalClaims{
		Audience: audience, ObjectID: r.client.ObjectID, Tenant: r.client.Tenant, AppID: r.client.AppID, Credential: r.client.Credentials[0].KeyID,
	})
	r.fatal(err)
	return r.post("/oauth2/exchange", "grant_type", "access_token", "service", loginServer, "access_token", raw)
}

// pulls, pushes, lists and deletes are the statuses of what a credential is
// tried at.
func (r *realm) pulls(repo, authority string) int {
	r.Helper()
	return r.do(http.MethodGet, "/v2/"+repo+"/manifests/1", nil, headers(authority)...).StatusCode
}

func (r *realm) pushes(repo, authority string) int {
	r.Helper()
	return r.do(http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil, headers(authority)...).StatusCode
}

func (r *realm) lists(authority string) int {
	r.Helper()
	return r.do(http.MethodGet, "/v2/_catalog", nil, headers(authority)...).StatusCode
}

func headers(authority string) []string {
	if authority == "" {
		return nil
	}
	return []string{"Authorization", authority}
}

func (r *realm) want(what string, got, want int) {
	r.Helper()
	if got != want {
		r.Errorf("%s: %d, not %d", what, got, want)
	}
}

func (r *realm) wantText(what string, got reply, status int, text string) {
	r.Helper()
	if got.StatusCode != status || !strings.Contains(got.body, text) {
		r.Errorf("%s: %d %s, want %d %s", what, got.StatusCode, got.body, status, text)
	}
}

const required = "authentication required, visit https://aka.ms/acr/authorization for more information."

// row:72 A registry's own token signs in with its name and a password, may do
// what its scope map says, and gets 401 when the password's time is over, until
// it has a new one. A change of the map, the token or a password counts at once,
// for what was issued before as well.
func TestScopeMapTokens(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := newRealm(t, db)
		passwords := r.robot("repositories/team/*/content/read", "repositories/team/app/metadata/read")
		for name, authority := range map[string]string{"the password itself": header("robot", passwords[0]), "the other": header("ROBOT", passwords[1])} {
			r.want(name+", /v2/", r.do("GET", "/v2/", nil, "Authorization", authority).StatusCode, 200)
			r.want(name+", pull", r.pulls("team/app", authority), 200)
			r.want(name+", pull of another", r.pulls("other", authority), 401)
			r.want(name+", push", r.pushes("team/app", authority), 401)
			r.want(name+", catalog", r.lists(authority), 401)
			r.want(name+", attributes", r.do("GET", "/acr/v1/team/app", nil, "Authorization", authority).StatusCode, 200)
			r.want(name+", delete", r.do("DELETE", "/acr/v1/team/app/_tags/1", nil, "Authorization", authority).StatusCode, 401)
		}
		scopes := []string{"repository:team/app:pull,push,delete", "repository:other:pull", "registry:catalog:*"}
		raw, got := r.login("robot", passwords[0], scopes...)
		r.wantText("login", got, 200, "access_token")
		if text := claimsOf(t, raw); !strings.Contains(text, `"access":[{"type":"repository","name":"team/app","actions":["pull"]}]`) || !strings.Contains(text, `"sub":"robot"`) {
			t.Error(text)
		}
		form := r.post("/oauth2/token", "grant_type", "password", "service", loginServer, "username", "robot", "password", passwords[1], "scope", "repository:*:pull")
		all := "Bearer " + form.field("access_token")
		r.want("a token for *, what the map has", r.pulls("team/app", all), 200)
		r.want("a token for *, what the map has not", r.pulls("other", all), 401)
		bearer := "Bearer " + raw
		r.want("a token, pull", r.pulls("team/app", bearer), 200)
		r.want("a token, push", r.pushes("team/app", bearer), 401)

		_, got = r.login("robot", passwords[0]+"x")
		r.wantText("a wrong password", got, 401, required)
		_, got = r.login("robots", passwords[0])
		r.wantText("no such token", got, 401, "Application not registered with AAD.")

		// The map.
		r.patch(r.id+"/scopeMaps/robot-scope-map", `{"properties":{"actions":["repositories/other/content/read","repositories/other/content/write"]}}`)
		r.want("after the change, the token", r.pulls("team/app", bearer), 401)
		r.want("after the change, the one for *", r.pulls("other", all), 200)
		r.want("after the change, the password", r.pulls("team/app", header("robot", passwords[0])), 401)
		r.want("after the change, the push", r.pushes("other", header("robot", passwords[0])), 202)
		r.patch(r.id+"/tokens/robot", `{"properties":{"scopeMapId":"`+r.id+`/scopeMaps/_repositories_admin"}}`)
		r.want("another map", r.pulls("team/app", bearer), 200)
		// Published failure 14: the map gives all that, and the token is not for it.
		r.want("what the token is for no more than", r.pulls("other", bearer), 401)
		r.want("an action that the token is not for", r.pushes("team/app", bearer), 401)
		r.want("the token as a password", r.pulls("other", header("00000000-0000-0000-0000-000000000000", raw)), 401)
		more, _ := r.login("00000000-0000-0000-0000-000000000000", raw, append(scopes, "repository:*:pull,push")...)
		if text := claimsOf(t, more); !strings.Contains(text, `"access":[{"type":"repository","name":"team/app","actions":["pull"]}]`) {
			t.Errorf("the token buys %s", text)
		}
		r.want("another map and the catalog", r.lists(header("robot", passwords[0])), 401)

		// The status.
		r.patch(r.id+"/tokens/robot", `{"properties":{"status":"disabled"}}`)
		_, got = r.login("robot", passwords[0])
		r.wantText("disabled", got, 401, required)
		r.want("disabled, the token", r.pulls("team/app", bearer), 401)
		r.patch(r.id+"/tokens/robot", `{"properties":{"status":"enabled"}}`)
		r.want("enabled again", r.pulls("team/app", bearer), 200)

		// The passwords.
		renewed := r.act("generateCredentials", `{"tokenId":"`+r.id+`/tokens/robot","name":"password1","expiry":"`+r.time().Add(30*time.Minute).Format(time.RFC3339)+`"}`)
		r.want("bought with the renewed password's predecessor", r.pulls("team/app", bearer), 401)
		r.want("bought with the other", r.pulls("other", all), 200)
		_, got = r.login("robot", passwords[0])
		r.wantText("the predecessor", got, 401, required)
		raw, got = r.login("robot", renewed[0], scopes...)
		if got.field("expires_in") != "1800" {
			t.Errorf("a token outlives the password that buys it: %s", got.body)
		}
		r.pass(30 * time.Minute)
		_, got = r.login("robot", renewed[0])
		r.wantText("an expired password", got, 401, required)
		r.want("an expired password at a resource", r.pulls("team/app", header("robot", renewed[0])), 401)
		r.want("bought with an expired password", r.pulls("team/app", "Bearer "+raw), 401)
		if e := r.log.take(); e[len(e)-1].Reason != "COVE-AUTH-003" {
			t.Errorf("the reason is %s", e[len(e)-1].Reason)
		}
		again := r.act("generateCredentials", `{"tokenId":"`+r.id+`/tokens/robot","name":"password1"}`)
		r.want("a new password", r.pulls("team/app", header("robot", again[0])), 200)

		// The token itself: one made again is another.
		raw, _ = r.login("robot", again[0], scopes...)
		_, err := r.docs.Delete(t.Context(), roots, arm.MustID(r.id+"/tokens/robot"), resource.Condition{})
		r.fatal(err)
		r.want("after its deletion", r.pulls("team/app", "Bearer "+raw), 401)
		r.robot("repositories/*/content/read")
		r.want("after it was made again", r.pulls("team/app", "Bearer "+raw), 401)
	})
}

func claimsOf(t testing.TB, raw string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(raw+"..", ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// row:68 With anonymous pull on, whoever shows no credential reads everything,
// lists included, and does nothing else. A credential that is shown is judged:
// a stale one is refused, never dropped, so that docker logout is the cure.
func TestAnonymousPull(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := newRealm(t, db)
		ask := func(scope string, more ...string) reply {
			return r.do("GET", "/oauth2/token?service="+loginServer+"&scope="+scope, nil, more...)
		}
		r.wantText("while it is off", ask("repository:team/app:pull"), 401, required)
		r.patch(r.id, `{"properties":{"anonymousPullEnabled":true}}`)
		r.want("/v2/ without a token", r.do("GET", "/v2/", nil).StatusCode, 401)
		r.want("a pull without a token", r.pulls("team/app", ""), 401)
		got := ask("repository:team/app:pull,push+registry:catalog:*+repository:other:metadata_read,delete")
		r.wantText("asked for", got, 200, "access_token")
		if text := claimsOf(t, got.field("access_token")); !strings.Contains(text, `"access":[{"type":"repository","name":"team/app","actions":["pull"]},{"type":"registry","name":"catalog","actions":["*"]},{"type":"repository","name":"other","actions":["metadata_read"]}]`) {
			t.Error(text)
		}
		bearer := "Bearer " + got.field("access_token")
		r.want("/v2/", r.do("GET", "/v2/", nil, "Authorization", bearer).StatusCode, 200)
		r.want("pull", r.pulls("team/app", bearer), 200)
		r.want("tags", r.do("GET", "/v2/team/app/tags/list", nil, "Authorization", bearer).StatusCode, 200)
		r.want("catalog", r.lists(bearer), 200)
		r.want("attributes", r.do("GET", "/acr/v1/other", nil, "Authorization", bearer).StatusCode, 200)
		refused := r.do("POST", "/v2/team/app/blobs/uploads/", nil, "Authorization", bearer)
		if refused.StatusCode != 401 || !strings.Contains(refused.Header.Get("WWW-Authenticate"), `scope="repository:team/app:pull,push"`) {
			t.Errorf("a push: %d %s", refused.StatusCode, refused.Header)
		}
		r.want("a lock", r.do("PATCH", "/acr/v1/team/app", strings.NewReader(`{"writeEnabled":false}`), "Authorization", bearer, "Content-Type", "application/json").StatusCode, 401)
		r.want("a deletion", r.do("DELETE", "/acr/v1/team/app", nil, "Authorization", bearer).StatusCode, 401)

		stale, _ := r.login(r.client.AppID, r.secret, "repository:team/app:pull")
		r.pass(80 * time.Minute)
		for name, authority := range map[string]string{
			"a wrong password": header(r.client.AppID, "x"), "an unknown user": header("alice", "x"), "the admin user, which is off": header("harbor", "x"),
			"an expired token": "Bearer " + stale, "an expired token as a password": header("00000000-0000-0000-0000-000000000000", stale),
			"no text": "Basic ???", "another scheme": "Digest x", "an empty user": header("", ""),
		} {
			r.want(name+" at a resource", r.pulls("team/app", authority), 401)
			r.wantText(name+" for a token", ask("repository:team/app:pull", "Authorization", authority), 401, `"UNAUTHORIZED"`)
		}
		// The gate of the SKU, and the switch.
		if _, err := r.docs.Patch(t.Context(), roots, arm.MustID(r.id), r.body(`{"sku":{"name":"Basic"}}`), resource.Condition{}); err == nil {
			t.Error("a Basic registry has anonymous pull")
		}
		fresh := ask("repository:team/app:pull").field("access_token")
		r.patch(r.id, `{"properties":{"anonymousPullEnabled":false}}`)
		r.want("after it was switched off", r.pulls("team/app", "Bearer "+fresh), 401)
	})
}

// row:69 The admin user is off until somebody switches it on, and both its
// passwords are one identity. A password that is renewed takes with it what
// was bought with it.
func TestTheAdminUser(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := newRealm(t, db)
		if _, err := r.docs.Act(t.Context(), roots, arm.MustID(r.id), "listCredentials", nil); err == nil || !strings.Contains(err.Error(), "is disabled") {
			t.Errorf("the passwords of an admin user that is off: %v", err)
		}
		r.patch(r.id, `{"properties":{"adminUserEnabled":true}}`)
		both := r.act("listCredentials", `{}`)
		r.log.take()
		first, got := r.login("harbor", both[0], "repository:other:pull,push,delete", "registry:catalog:*")
		r.wantText("the first password", got, 200, "access_token")
		second, _ := r.login("harbor", both[1], "repository:other:pull")
		r.want("a push", r.pushes("other", "Bearer "+first), 202)
		r.want("the catalog", r.lists("Bearer "+first), 200)
		names := map[string]bool{}
		for _, e := range r.log.take() {
			names[e.Identity] = true
		}
		if len(names) != 1 || !names["harbor"] {
			t.Errorf("the identities are %v", names)
		}
		renewed := r.act("regenerateCredential", `{"name":"password"}`)
		if renewed[0] == both[0] || renewed[1] != both[1] {
			t.Fatal("not the first password was renewed")
		}
		r.want("bought with the old password", r.pulls("other", "Bearer "+first), 401)
		r.want("bought with the other", r.pulls("other", "Bearer "+second), 200)
		r.want("the old password", r.pulls("other", header("harbor", both[0])), 401)
		r.want("the new one", r.pulls("other", header("harbor", renewed[0])), 200)
		r.patch(r.id, `{"properties":{"adminUserEnabled":false}}`)
		r.want("after it was switched off", r.pulls("other", "Bearer "+second), 401)
		_, got = r.login("harbor", both[1])
		r.wantText("a login after that", got, 401, required)
	})
}

// row:70 What is bought with an access token of the issuer lasts three hours,
// and what is bought with that 75 minutes.
func TestLifetimes(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	got := r.exchange(managementAudience)
	refresh := got.field("refresh_token")
	var c struct{ Iat, Exp int64 }
	r.fatal(json.Unmarshal([]byte(claimsOf(t, refresh)), &c))
	if c.Exp-c.Iat != 3*3600 {
		t.Errorf("a refresh token lasts %d s", c.Exp-c.Iat)
	}
	buy := func() reply {
		return r.post("/oauth2/token", "grant_type", "refresh_token", "service", loginServer, "refresh_token", refresh, "scope", "repository:other:pull")
	}
	if got := buy(); got.field("expires_in") != "4500" {
		t.Errorf("an access token lasts %s s", got.field("expires_in"))
	}
	r.pass(3*time.Hour - 10*time.Minute)
	last := "Bearer " + buy().field("access_token")
	r.pass(10*time.Minute + 59*time.Second)
	r.want("within the tolerance for clocks", buy().StatusCode, 200)
	r.pass(time.Second)
	r.wantText("after three hours", buy(), 401, required)
	r.want("after three hours, as a password", r.pulls("other", header("00000000-0000-0000-0000-000000000000", refresh)), 401)
	r.want("what it bought before", r.pulls("other", last), 200)
	r.pass(65*time.Minute - time.Second)
	r.want("that, within the tolerance", r.pulls("other", last), 200)
	r.pass(time.Second)
	r.want("that, after its time", r.pulls("other", last), 401)

	// An operator may want others; what was issued for longer is not taken.
	old := r.exchange(registryAudience).field("refresh_token")
	r.guard.Tokens.SetLives(token.Lives{Refresh: time.Hour, Registry: 10 * time.Minute})
	refresh = r.exchange(registryAudience).field("refresh_token")
	if got := buy(); got.field("expires_in") != "600" {
		t.Errorf("an access token lasts %s s", got.field("expires_in"))
	}
	r.want("issued for longer", r.pulls("other", header("00000000-0000-0000-0000-000000000000", old)), 401)
}

// row:71 When the time of a service principal's secret is over it is answered
// 401, and so is what it bought; a new secret signs in.
func TestAnExpiredSecret(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := newRealm(t, db)
		r.pass(365*24*time.Hour - time.Minute)
		raw, got := r.login(r.client.AppID, r.secret, "repository:other:pull")
		r.wantText("in its last minute", got, 200, "access_token")
		r.pass(time.Minute)
		_, got = r.login(r.client.AppID, r.secret)
		r.wantText("after it", got, 401, "Invalid clientid or client secret.")
		r.want("what it bought", r.pulls("other", "Bearer "+raw), 401)
		fresh, cred := directory.NewSecret("next", r.time(), 24*time.Hour)
		r.fatal(r.ident.AddCredential(t.Context(), r.client.ObjectID, cred))
		raw, _ = r.login(r.client.AppID, fresh.Reveal(), "repository:other:pull")
		r.want("a new secret", r.pulls("other", "Bearer "+raw), 200)
	})
}

// row:67 An exposed token is the password of the zero GUID and of no other
// user name.
func TestAnExposedToken(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	r.patch(r.id, `{"properties":{"adminUserEnabled":true}}`)
	r.robot("repositories/*/content/read")
	exposed := r.exchange(managementAudience).field("refresh_token")
	r.want("the zero GUID", r.pulls("other", header("00000000-0000-0000-0000-000000000000", exposed)), 200)
	for _, user := range []string{"", "0", "harbor", "robot", "alice", r.client.AppID, r.client.ObjectID, "00000000000000000000000000000000", "{00000000-0000-0000-0000-000000000000}", "<token>", "00000000-0000-0000-0000-000000000001"} {
		r.want("the user "+user, r.pulls("other", header(user, exposed)), 401)
		_, got := r.login(user, exposed)
		r.want("a login as "+user, got.StatusCode, 401)
	}
}

// row:83 What each kind of wrong user name and password is answered.
func TestFailureTexts(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	r.robot("repositories/*/content/read")
	entra, _, err := r.guard.Tokens.MintPrincipal(token.PrincipalClaims{Audience: managementAudience, ObjectID: r.client.ObjectID, Tenant: r.client.Tenant, AppID: r.client.AppID})
	r.fatal(err)
	const guid = "aad access token with sp failed client id must be guid"
	for _, c := range []struct{ user, password, text string }{
		{"harbor", "x", required}, // the admin user, which is off
		{"robot", "x", required},
		{r.client.AppID, "x", "Invalid clientid or client secret."},
		{r.client.AppID, entra, "Invalid clientid or client secret."},
		{directory.NewID(), r.secret, "Invalid clientid or client secret."},
		{strings.ReplaceAll(r.client.AppID, "-", ""), r.secret, guid},
		{"{" + r.client.AppID + "}", r.secret, guid},
		{"zzzzzzzz" + r.client.AppID[8:], r.secret, guid},
		{"alice", "x", "Application not registered with AAD."},
		{"alice@example.com", "x", "Application not registered with AAD."},
		{"", "", "Application not registered with AAD."},
		{"00000000-0000-0000-0000-000000000000", entra, required},
		{"00000000-0000-0000-0000-000000000000", "x", required},
	} {
		_, got := r.login(c.user, c.password, "repository:other:pull")
		r.wantText("a login as "+c.user, got, 401, `{"errors":[{"code":"UNAUTHORIZED","message":"`+c.text+" CorrelationId: "+got.Header.Get("X-Ms-Correlation-Request-Id"))
		direct := r.do("GET", "/v2/", nil, "Authorization", header(c.user, c.password))
		r.wantText("at /v2/ as "+c.user, direct, 401, c.text)
		if got := direct.Header.Get("WWW-Authenticate"); got != `Basic realm="Azure Container Registry"` {
			t.Errorf("at /v2/ as %s: %s", c.user, got)
		}
	}
}

// With the authentication-as-arm policy disabled a registry takes tokens that
// are made out to registries, and no others.
func TestTheRegistryAudienceOnly(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	for _, audience := range []string{managementAudience, registryAudience, registryAudience + "/"} {
		r.want(audience, r.exchange(audience).StatusCode, 200)
	}
	r.want("another's", r.exchange("https://graph.cove.internal").StatusCode, 401)
	r.patch(r.id, `{"properties":{"policies":{"azureADAuthenticationAsArmPolicy":{"status":"disabled"}}}}`)
	r.want("the registry's, policy disabled", r.exchange(registryAudience).StatusCode, 200)
	r.wantText("the Resource Manager's, policy disabled", r.exchange(managementAudience), 401, required)
	if e := r.log.take(); e[len(e)-1].Reason != "COVE-AUTH-034" {
		t.Errorf("the reason is %s", e[len(e)-1].Reason)
	}
}

// A switch of the permission mode ends every credential that was issued
// before, whoever holds it and whatever roles they have in the new one.
//
// Published failure 9.
func TestAModeSwitchEndsTokens(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	r.patch(r.id, `{"properties":{"adminUserEnabled":true,"anonymousPullEnabled":true}}`)
	admin, robot := r.act("listCredentials", `{}`)[0], r.robot("repositories/*/content/read")[0]
	tokens := map[string]string{
		"a refresh token": header("00000000-0000-0000-0000-000000000000", r.exchange(managementAudience).field("refresh_token")),
		"anonymous":       "Bearer " + r.do("GET", "/oauth2/token?scope=repository:other:pull", nil).field("access_token"),
	}
	for name, who := range map[string][2]string{"admin": {"harbor", admin}, "token": {"robot", robot}, "principal": {r.client.AppID, r.secret}} {
		raw, _ := r.login(who[0], who[1], "repository:other:pull")
		tokens[name] = "Bearer " + raw
	}
	for name, authority := range tokens {
		r.want(name, r.pulls("other", authority), 200)
	}
	r.patch(r.id, `{"properties":{"roleAssignmentMode":"AbacRepositoryPermissions"}}`)
	r.log.take()
	for name, authority := range tokens {
		r.want(name+" after the switch", r.pulls("other", authority), 401)
		if e := r.log.take(); len(e) != 1 || e[0].Reason != "COVE-AUTH-033" {
			t.Errorf("%s: %+v", name, e)
		}
	}
	between := map[string]string{}
	for name, who := range map[string][2]string{"admin": {"harbor", admin}, "token": {"robot", robot}} {
		raw, _ := r.login(who[0], who[1], "repository:other:pull")
		r.want(name+" in the new mode", r.pulls("other", "Bearer "+raw), 200)
		between[name+" of between"] = "Bearer " + raw
	}
	// Switched back, it is in its first mode again, and what has ended has ended.
	r.patch(r.id, `{"properties":{"roleAssignmentMode":"LegacyRegistryPermissions"}}`)
	maps.Copy(tokens, between)
	for name, authority := range tokens {
		r.want(name+" after switching back", r.pulls("other", authority), 401)
	}
	r.patch(r.id, `{"properties":{"anonymousPullEnabled":true,"roleAssignmentMode":"LegacyRegistryPermissions"},"tags":{"a":"b"}}`)
	raw, _ := r.login("harbor", admin, "repository:other:pull")
	r.want("a new one", r.pulls("other", "Bearer "+raw), 200)
}

// The exchange answers POST and nothing else.
func TestTheExchangeIsPostedTo(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"} {
		r.want(method, r.do(method, "/oauth2/exchange", nil).StatusCode, 404)
	}
}

// Wrong passwords are answered 429 after a while, with the seconds to wait.
// Nobody else is kept out by them: not a right password that was used before,
// not one from another address.
func TestGuessing(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	r.guard.Guesses = access.NewThrottle()
	passwords := r.robot("repositories/*/content/read")
	r.want("used before", r.pulls("other", header("robot", passwords[0])), 200)
	var last reply
	n := 0
	for ; n < 50; n++ {
		if _, last = r.login("robot", fmt.Sprint("guess ", n)); last.StatusCode != 401 {
			break
		}
	}
	if n != 20 || last.StatusCode != 429 || last.Header.Get("Retry-After") != "1" || !strings.Contains(last.body, `"code":"TOOMANYREQUESTS","message":"Too many failed sign-ins. Try again later. CorrelationId: `) {
		t.Fatalf("after %d guesses: %d %s %s", n, last.StatusCode, last.Header, last.body)
	}
	if e := r.log.take(); e[len(e)-1].Status != 429 || e[len(e)-1].Reason != "COVE-AUTH-032" {
		t.Errorf("%+v", e[len(e)-1])
	}
	r.want("at a resource", r.pulls("other", header("robot", "another guess")), 429)
	r.want("a right password that was used before", r.pulls("other", header("robot", passwords[0])), 200)
	r.pass(time.Second)
	_, last = r.login("robot", "guess 51")
	r.want("a guess when the second is over", last.StatusCode, 401)
}

// Published failure 14: each kind of token is tried in each place, and opens
// its own and no other.
//
// Published failure 43.
func TestEachTokenInEachPlace(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	password := r.robot("repositories/*/content/read")[0]
	issuer := func(audience string) string {
		raw, _, err := r.guard.Tokens.MintPrincipal(token.PrincipalClaims{
			Audience: audience, ObjectID: r.client.ObjectID, Tenant: r.client.Tenant, AppID: r.client.AppID, Credential: r.client.Credentials[0].KeyID,
		})
		r.fatal(err)
		return raw
	}
	refresh := r.exchange(managementAudience).field("refresh_token")
	own, _ := r.login(r.client.AppID, r.secret, "repository:other:pull")
	scoped, _ := r.login("robot", password, "repository:other:pull")
	settings, err := r.guard.Registries.ByHost(t.Context(), loginServer)
	r.fatal(err)
	far, _, err := r.guard.Tokens.MintRegistry(token.RegistryClaims{
		Audience: "quay.cr.cove.internal", RegistryUID: "uid-of-quay", Mode: registry.LegacyMode, Kind: access.KindServicePrincipal, ObjectID: r.client.ObjectID,
		Tenant: r.client.Tenant, Access: []token.Access{{Type: "repository", Name: "other", Actions: []string{"pull"}}},
	}, time.Time{})
	r.fatal(err)
	downloads, err := r.guard.Tokens.SignLink(token.Link{Registry: settings.UID, Repository: "other", Digest: "sha256:" + strings.Repeat("0", 64), Holder: token.Holder{Kind: access.KindServicePrincipal, ObjectID: r.client.ObjectID, Tenant: r.client.Tenant}})
	r.fatal(err)
	_, downloads, _ = strings.Cut(downloads, "=")

	managed, _, err := r.guard.Tokens.MintPrincipal(token.PrincipalClaims{ // as the metadata service gives it: bought with no credential
		Audience: managementAudience, ObjectID: r.client.ObjectID, Tenant: r.client.Tenant, AppID: r.client.AppID, AppACR: "2", Managed: "/subscriptions/s/m",
	})
	r.fatal(err)
	session, err := r.guard.Tokens.MintSession(token.Session{Client: "az", ObjectID: r.client.ObjectID, Tenant: r.client.Tenant})
	r.fatal(err)

	const zero = "00000000-0000-0000-0000-000000000000"
	arm := &access.ARM{Tokens: r.guard.Tokens, Directory: r.guard.Directory, Roles: r.guard.Roles, Audiences: []string{managementAudience}}
	graph := &access.ARM{Tokens: r.guard.Tokens, Directory: r.guard.Directory, Roles: r.guard.Roles, Audiences: []string{"https://graph.cove.internal"}}
	authenticated := func(a *access.ARM, raw string) bool {
		_, err := a.Authenticate(t.Context(), "Bearer "+raw)
		return err == nil
	}
	places := []struct {
		name string
		try  func(raw string) bool
	}{
		{"management", func(raw string) bool { return authenticated(arm, raw) }},
		{"graph", func(raw string) bool { return authenticated(graph, raw) }},
		{"exchange", func(raw string) bool {
			return r.post("/oauth2/exchange", "grant_type", "access_token", "service", loginServer, "access_token", raw).StatusCode == 200
		}},
		{"refresh", func(raw string) bool {
			return r.post("/oauth2/token", "grant_type", "refresh_token", "service", loginServer, "refresh_token", raw, "scope", "repository:other:pull").StatusCode == 200
		}},
		{"bearer", func(raw string) bool { return r.pulls("other", "Bearer "+raw) == 200 }},
		{"zero", func(raw string) bool { return r.pulls("other", header(zero, raw)) == 200 }},
		{"password of an application", func(raw string) bool { return r.pulls("other", header(r.client.AppID, raw)) == 200 }},
		{"password of a token", func(raw string) bool { return r.pulls("other", header("robot", raw)) == 200 }},
		{"bearer at the token endpoint", func(raw string) bool {
			return r.do("GET", "/oauth2/token?scope=repository:other:pull", nil, "Authorization", "Bearer "+raw).StatusCode == 200
		}},
	}
	for name, c := range map[string]struct{ raw, opens string }{
		"of the issuer, for management":          {issuer(managementAudience), "management, exchange"},
		"of the issuer, for registries":          {issuer(registryAudience), "exchange"},
		"of a managed identity":                  {managed, "management, exchange"},
		"a person's refresh token":               {session, ""},
		"of the issuer, for graph":               {issuer("https://graph.cove.internal"), "graph"},
		"of the issuer, for the registry":        {issuer("https://" + loginServer), ""},
		"a refresh token":                        {refresh, "refresh, zero"},
		"an access token":                        {own, "bearer, zero"},
		"an access token of a scope map's":       {scoped, "bearer, zero"},
		"an access token of another's":           {far, ""},
		"a download link":                        {downloads, ""},
		"a client secret":                        {r.secret, "password of an application"},
		"a password of a token":                  {password, "password of a token"},
		"nothing":                                {"", ""},
		"two tokens":                             {own + "." + refresh, ""},
		"a token of 9 KiB":                       {own + strings.Repeat("A", 9<<10), ""},
		"an unsigned token":                      {base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(own, ".")[1] + ".", ""},
		"an access token under refresh's header": {strings.Split(refresh, ".")[0] + "." + strings.Join(strings.Split(own, ".")[1:], "."), ""},
	} {
		for _, p := range places {
			want := slices.Contains(strings.Split(c.opens, ", "), p.name)
			if got := p.try(c.raw); got != want {
				t.Errorf("%s at %s: %t", name, p.name, got)
			}
		}
	}
}

// Rate limits come after the network's answer and after the credential's, are
// answered 429 with the seconds to wait, and what was refused is not counted.
func TestRateLimitsOverHTTP(t *testing.T) {
	r := newRealm(t, storetest.Open(t, storetest.SQLite(t)))
	r.api.Rates = access.NewRates(0.01) // of Premium: 100 reads for an identity, 10 lists of referrers
	passwords := r.robot("repositories/*/content/read")
	robot, other := header("robot", passwords[0]), header(r.client.AppID, r.secret)
	for range 300 {
		r.want("without a credential", r.pulls("other", ""), 401)
	}
	for range 100 {
		r.want("one of a hundred", r.pulls("other", robot), 200)
	}
	r.log.take()
	over := r.do("GET", "/v2/other/manifests/1", nil, "Authorization", robot)
	r.wantText("one too many", over, 429, `{"errors":[{"code":"TOOMANYREQUESTS","message":"Identity robot exceeded the per-identity DataplaneRead rate limit of 100 requests in a 60 second window. CorrelationId: `)
	if over.Header.Get("Retry-After") != "1" {
		t.Errorf("Retry-After is %q", over.Header.Get("Retry-After"))
	}
	if e := r.log.take(); len(e) != 1 || e[0].Status != 429 || e[0].Identity != "robot" || e[0].Reason != "COVE-RATE-011" {
		t.Errorf("%+v", e)
	} else if x, err := access.Explain(e[0]); err != nil || x.Verdict != "DENIED" || !strings.Contains(fmt.Sprint(x.Evidence), "has done too much of it") {
		t.Errorf("%+v %v", x, err)
	}
	r.want("another identity", r.pulls("other", other), 200)
	r.want("another kind of request, which is not allowed", r.pushes("other", robot), 401)
	for range 10 {
		r.want("referrers", r.do("GET", "/v2/other/referrers/sha256:"+strings.Repeat("0", 64), nil, "Authorization", other).StatusCode, 200)
	}
	r.wantText("one list of referrers too many", r.do("GET", "/v2/other/referrers/sha256:"+strings.Repeat("0", 64), nil, "Authorization", other), 429, "ListReferrers rate limit of 10 requests")
	_, got := r.login("robot", passwords[0])
	if left := got.Header.Get("X-Ms-Ratelimit-Remaining-Calls-Per-Second"); left != "3.316667" { // (200-1)/60
		t.Errorf("%q calls a second are left", left)
	}
	_, got = r.login("robot", "x")
	if left := got.Header.Get("X-Ms-Ratelimit-Remaining-Calls-Per-Second"); got.StatusCode != 401 || left != "3.316667" {
		t.Errorf("after a refusal %q calls a second are left", left)
	}
	for range 199 {
		r.login("robot", passwords[0])
	}
	_, got = r.login("robot", passwords[0])
	r.wantText("one login too many", got, 429, "Registry harbor exceeded the per-registry OAuth rate limit of 200 requests in a 60 second window.")
	r.patch(r.id, `{"properties":{"publicNetworkAccess":"Disabled"}}`)
	r.want("the network's answer comes first", r.pulls("other", robot), 403)
	_, got = r.login("robot", passwords[0])
	r.want("the network's answer comes first at the token endpoint", got.StatusCode, 403)
	r.patch(r.id, `{"properties":{"publicNetworkAccess":"Enabled"}}`)
	r.pass(time.Minute)
	r.want("a minute later", r.pulls("other", robot), 200)
}
