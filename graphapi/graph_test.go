package graphapi_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/graphapi"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

const (
	host     = "graph.cove.internal"
	audience = "https://" + host
)

type site struct {
	*testing.T
	*httptest.Server
	dir    *directory.Directory
	ident  *store.Identity
	docs   *store.Resources
	tokens *token.Tokens
	admin  directory.Admin
	log    bytes.Buffer
	now    time.Time
}

func open(t *testing.T, db *store.DB) *site {
	t.Helper()
	s := &site{T: t, ident: store.NewIdentity(db), docs: store.NewResources(db), now: time.Now().Truncate(time.Second)}
	now := func() time.Time { return s.now }
	key := make([]byte, 32)
	rand.Read(key)
	box, err := seal.New(key)
	s.must(err)
	keys, err := token.OpenKeys(t.Context(), store.NewKeys(db), box, now)
	s.must(err)
	s.tokens = token.New(keys, func(tenant string) string { return "https://login.cove.internal/" + tenant + "/v2.0" })
	s.dir = directory.New(s.ident, now)
	roles := policy.NewRoles(s.docs)
	roles.Groups = s.dir.Groups
	s.admin, _, err = directory.Bootstrap(t.Context(), s.ident, s.now, func(context.Context, directory.Admin) error { return nil },
		func(ctx context.Context, a directory.Admin) error {
			return policy.Grant(ctx, s.docs, a.ObjectID, policy.RoleOwner, resource.SubscriptionID(a.Subscription))
		})
	s.must(err)
	s.Server = httptest.NewTLSServer(graphapi.New(graphapi.Config{
		Directory: s.dir, Host: host, Now: now, Log: slog.New(slog.NewTextHandler(&s.log, nil)),
		Auth: &access.ARM{Tokens: s.tokens, Directory: s.dir, Roles: roles, Audiences: []string{audience}},
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// bearer is a token of a principal for an audience.
func (s *site) bearer(objectID, appID, audience string) string {
	s.Helper()
	text, _, err := s.tokens.MintPrincipal(token.PrincipalClaims{Audience: audience, ObjectID: objectID, Tenant: s.admin.Tenant, AppID: appID})
	s.must(err)
	return text
}

type answer struct {
	status int
	text   string
	body   map[string]any
	header http.Header
}

func (a answer) code() string {
	e, _ := a.body["error"].(map[string]any)
	code, _ := e["code"].(string)
	return code
}

func (a answer) message() string {
	e, _ := a.body["error"].(map[string]any)
	text, _ := e["message"].(string)
	return text
}

func (a answer) names() string {
	var out []string
	list, _ := a.body["value"].([]any)
	for _, v := range list {
		o, _ := v.(map[string]any)
		out = append(out, fmt.Sprint(o["displayName"]))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func (a answer) str(name string) string {
	text, _ := a.body[name].(string)
	return text
}

// as sends a request with a token, "" being none.
func (s *site) as(bearer, method, path, body string) answer {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), method, s.URL+path, strings.NewReader(body))
	s.must(err)
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.Client().Do(req)
	s.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	s.must(err)
	a := answer{status: resp.StatusCode, text: string(b), header: resp.Header}
	if len(b) > 0 {
		if err := json.Unmarshal(b, &a.body); err != nil {
			s.Errorf("%s %s answers what is not JSON: %s", method, path, b)
		}
	}
	if resp.StatusCode >= 400 && (a.code() == "" || a.message() == "" || !strings.Contains(a.text, `"request-id":"`+resp.Header.Get("Request-Id"))) {
		s.Errorf("%s %s: not an error of Graph's shape: %s", method, path, a.text)
	}
	return a
}

// do is as the administrator, who must get this status.
func (s *site) do(status int, method, path, body string) answer {
	s.Helper()
	a := s.as(s.bearer(s.admin.ObjectID, s.admin.ClientID, audience), method, "/v1.0"+path, body)
	if a.status != status {
		s.Fatalf("%s %s: %d %s, want %d", method, path, a.status, a.text, status)
	}
	return a
}

func filter(text string) string { return "?$filter=" + url.QueryEscape(text) }

// What `az ad sp create-for-rbac`, `credential reset` and `delete` send, in
// their order (source: the requests of az 2.45), and that each has its effect on
// signing in: at once, and a session that was begun earlier ends.
func TestAServicePrincipalAsAzMakesIt(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		in := func(app, secret string) bool {
			_, err := s.dir.SignIn(t.Context(), app, secret)
			return err == nil
		}
		if a := s.do(200, "GET", "/servicePrincipals"+filter("displayName eq 'ci'"), ""); a.names() != "" || !strings.Contains(a.text, `"value":[]`) {
			t.Fatal(a.text)
		}
		s.do(200, "GET", "/applications"+filter("startswith(displayName,'ci')"), "")
		app := s.do(201, "POST", "/applications", `{"displayName":"ci","isFallbackPublicClient":null,"keyCredentials":[],"web":{"redirectUris":["https://x"]}}`)
		if !directory.IsID(app.str("id")) || !directory.IsID(app.str("appId")) || app.str("id") == app.str("appId") || !strings.Contains(app.text, `"passwordCredentials":[]`) || !strings.Contains(app.text, `"https://x"`) {
			t.Fatal(app.text)
		}
		client := app.str("appId")
		// The client's clock is ahead of ours: the secret works all the same.
		made := s.do(200, "POST", "/applications/"+app.str("id")+"/addPassword",
			`{"passwordCredential":{"displayName":"rbac","startDateTime":"`+s.now.Add(time.Minute).UTC().Format(time.RFC3339)+`","endDateTime":"`+s.now.Add(time.Hour).UTC().Format(time.RFC3339)+`"}}`)
		first := made.str("secretText")
		if !directory.Looks(first) || made.str("displayName") != "rbac" || made.str("hint") == "" || made.header.Get("Cache-Control") != "no-store" {
			t.Fatal(made.text)
		}
		if in(client, first) {
			t.Error("an application without a service principal signs in")
		}
		sp := s.do(201, "POST", "/servicePrincipals", `{"appId":"`+client+`","accountEnabled":"True"}`)
		if sp.str("displayName") != "ci" || sp.str("servicePrincipalType") != "Application" || sp.body["accountEnabled"] != true || !strings.Contains(sp.text, `"servicePrincipalNames":["`+client+`"]`) {
			t.Fatal(sp.text)
		}
		if a := s.as(s.bearer(s.admin.ObjectID, "", audience), "POST", "/v1.0/servicePrincipals", `{"appId":"`+client+`"}`); a.status != 409 || a.code() != "Request_MultipleObjectsWithSameKeyValue" {
			t.Errorf("a second service principal: %d %s", a.status, a.text)
		}
		if !in(client, first) {
			t.Fatal("a new secret does not work at once")
		}
		show := s.do(200, "GET", "/applications/"+app.str("id"), "")
		if strings.Contains(show.text, first) || !strings.Contains(show.text, `"keyId":"`+made.str("keyId")) {
			t.Errorf("the secret is shown again, or not told by its key: %s", show.text)
		}

		// credential reset: by client id, to the object id, and its secrets.
		for _, f := range []string{"servicePrincipalNames/any(c:c eq '" + client + "')", "appId eq '" + strings.ToUpper(client) + "'", "displayName eq 'CI'", "startswith(displayName,'c') and accountEnabled eq true"} {
			if a := s.do(200, "GET", "/servicePrincipals"+filter(f), ""); !strings.Contains(a.text, sp.str("id")) {
				t.Errorf("%s: %s", f, a.text)
			}
		}
		byKey := s.do(200, "GET", "/servicePrincipals(appId='"+client+"')", "")
		if byKey.str("id") != sp.str("id") {
			t.Error(byKey.text)
		}
		second := s.do(200, "POST", "/servicePrincipals/"+sp.str("id")+"/addPassword", `{"passwordCredential":{}}`)
		if !in(client, second.str("secretText")) || !in(client, first) {
			t.Error("two secrets do not work beside each other")
		}
		if end, err := time.Parse(time.RFC3339, second.str("endDateTime")); err != nil || end.Before(s.now.AddDate(1, 11, 0)) {
			t.Errorf("it ends at %s", second.str("endDateTime"))
		}
		s.do(204, "POST", "/applications/"+app.str("id")+"/removePassword", `{"keyId":"`+made.str("keyId")+`"}`)
		if in(client, first) || !in(client, second.str("secretText")) {
			t.Error("a removed secret works, or another was removed")
		}
		if _, err := s.dir.Standing(t.Context(), sp.str("id"), made.str("keyId")); err == nil {
			t.Error("what was signed in with a removed secret goes on")
		}
		if a := s.do(400, "POST", "/applications/"+app.str("id")+"/removePassword", `{"keyId":"`+made.str("keyId")+`"}`); a.message() != "No password credential found with keyId '"+made.str("keyId")+"'." {
			t.Error(a.text)
		}
		s.do(204, "PATCH", "/servicePrincipals/"+sp.str("id"), `{"accountEnabled":false}`)
		if in(client, second.str("secretText")) {
			t.Error("a disabled service principal signs in")
		}
		s.do(204, "PATCH", "/applications/"+app.str("id"), `{"displayName":"deployer","tags":["x"],"isFallbackPublicClient":true}`)
		if a := s.do(200, "GET", "/servicePrincipals/"+sp.str("id"), ""); a.str("displayName") != "deployer" {
			t.Error(a.text)
		}
		s.do(204, "DELETE", "/applications/"+app.str("id"), "")
		if a := s.do(404, "GET", "/servicePrincipals/"+sp.str("id"), ""); a.code() != "Request_ResourceNotFound" {
			t.Error(a.text)
		}
		if strings.Contains(s.log.String(), first) || strings.Contains(s.log.String(), second.str("secretText")) {
			t.Error("a secret is in the log")
		}
	})
}

// Who may: a token for this audience reads, and the right to give out roles on
// everything that the tenant has writes.
func TestWhoMayReadAndWriteTheDirectory(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	s := open(t, db)
	subscription := resource.SubscriptionID(s.admin.Subscription)
	group := arm.MustID(subscription.String() + "/resourceGroups/prod")
	person := func(role string, at arm.ID) string {
		_, cred := directory.NewSecret("x", s.now, time.Hour)
		c := directory.Client{Principal: directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: s.admin.Tenant, Kind: directory.ServicePrincipal}, Credentials: []directory.Credential{cred}}
		s.must(s.ident.Create(t.Context(), c))
		if role != "" {
			s.must(policy.Grant(t.Context(), s.docs, c.ObjectID, policy.BuiltinByName(role).ID, at))
		}
		return s.bearer(c.ObjectID, c.AppID, audience)
	}
	for _, c := range []struct {
		name, bearer string
		read, write  int
	}{
		{"nobody", "", 401, 401},
		{"a token for the control plane", s.bearer(s.admin.ObjectID, s.admin.ClientID, "https://management.cove.internal"), 401, 401},
		{"a principal that is gone", s.bearer(directory.NewID(), directory.NewID(), audience), 401, 401},
		{"one without a role", person("", subscription), 200, 403},
		{"a contributor", person("Contributor", subscription), 200, 403},
		{"the owner of a group alone", person("Owner", group), 200, 403},
		{"a role administrator", person("Role Based Access Control Administrator", subscription), 200, 201},
		{"an access administrator", person("User Access Administrator", subscription), 200, 201},
		{"an owner", person("Owner", subscription), 200, 201},
	} {
		read, write := s.as(c.bearer, "GET", "/v1.0/applications", ""), s.as(c.bearer, "POST", "/v1.0/applications", `{"displayName":"x"}`)
		if read.status != c.read || write.status != c.write {
			t.Errorf("%s: reads %d, writes %d %s", c.name, read.status, write.status, write.text)
		}
		if write.status == 403 && (write.code() != "Authorization_RequestDenied" || write.message() != "Insufficient privileges to complete the operation.") {
			t.Error(write.text)
		}
		if write.status == 401 && write.code() != "InvalidAuthenticationToken" {
			t.Error(write.text)
		}
		// Every operation that changes something is refused to who may not.
		if c.write == 403 {
			for _, op := range []string{
				"POST /servicePrincipals", "POST /users", "POST /groups", "PATCH /applications/x", "DELETE /servicePrincipals/" + s.admin.ObjectID,
				"POST /servicePrincipals/" + s.admin.ObjectID + "/addPassword", "POST /servicePrincipals/" + s.admin.ObjectID + "/removePassword",
				"POST /applications/x/addPassword", "POST /groups/x/members/$ref", "DELETE /groups/x/members/y/$ref", "PATCH /servicePrincipals(appId='" + s.admin.ClientID + "')",
			} {
				method, path, _ := strings.Cut(op, " ")
				if a := s.as(c.bearer, method, "/v1.0"+path, `{}`); a.status != 403 {
					t.Errorf("%s, %s: %d", c.name, op, a.status)
				}
			}
		}
	}
	if a := s.do(400, "DELETE", "/servicePrincipals/"+s.admin.ObjectID, ""); !strings.Contains(a.message(), "cannot delete itself") {
		t.Error(a.text)
	}
	if a := s.do(400, "GET", "/me", ""); a.message() != "/me request is only valid with delegated authentication flow." {
		t.Error(a.text)
	}

	// The owner of one subscription could else be the owner of the other, by a
	// secret added to that one's owner.
	s.must(db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO subscriptions (id, tenant, name, created) VALUES ($1, $2, 'other', 0)`, directory.NewID(), s.admin.Tenant)
		return err
	}))
	s.do(200, "GET", "/applications", "")
	s.do(403, "POST", "/applications", `{"displayName":"x"}`)
}

func TestUsersAndGroups(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		alice := s.do(201, "POST", "/users", `{"accountEnabled":true,"displayName":"Alice","mailNickname":"alice","userPrincipalName":"Alice@cove.internal","passwordProfile":{"password":"correct horse","forceChangePasswordNextSignIn":false}}`)
		if alice.str("userPrincipalName") != "alice@cove.internal" || strings.Contains(alice.text, "horse") {
			t.Fatal(alice.text)
		}
		kept, err := s.dir.Object(t.Context(), alice.str("id"))
		if err != nil || strings.Contains(fmt.Sprint(kept), "horse") {
			t.Error("a password is kept as it is", err)
		}
		signIn := func(password string) error {
			_, err := s.dir.SignInUser(t.Context(), "ALICE@cove.internal", password)
			return err
		}
		if err := signIn("correct horse"); err != nil {
			t.Error(err)
		}
		s.do(204, "PATCH", "/users/alice@cove.internal", `{"passwordProfile":{"password":"battery staple"}}`)
		s.do(400, "PATCH", "/users/alice@cove.internal", `{"displayName":"Alicia","passwordProfile":{"password":"short"}}`)
		s.do(400, "PATCH", "/users/alice@cove.internal", `{"passwordProfile":{"password":"battery staple","forceChangePasswordNextSignIn":true}}`)
		if err := signIn("correct horse"); !errors.Is(err, directory.ErrSecret) {
			t.Error("the old password:", err)
		}
		if err := signIn("battery staple"); err != nil {
			t.Error(err)
		}
		if a := s.do(200, "GET", "/users/alice@cove.internal", ""); a.str("displayName") != "Alice" || strings.Contains(a.text, "argon2") || strings.Contains(a.text, "password") {
			t.Error("half of a change, or a password is shown:", a.text)
		}
		if a := s.do(200, "GET", "/users/alice@cove.internal", ""); a.str("id") != alice.str("id") {
			t.Error(a.text)
		}
		if a := s.do(200, "GET", "/users"+filter("userPrincipalName eq 'ALICE@cove.internal'"), ""); a.names() != "Alice" {
			t.Error(a.text)
		}
		s.do(409, "POST", "/users", `{"accountEnabled":true,"displayName":"A","mailNickname":"a","userPrincipalName":"alice@cove.internal","passwordProfile":{"password":"xyxyxyxy"}}`)

		group := func(name string) string {
			return s.do(201, "POST", "/groups", `{"displayName":"`+name+`","mailEnabled":false,"mailNickname":"`+name+`","securityEnabled":true}`).str("id")
		}
		inner, outer := group("inner"), group("outer")
		if a := s.do(200, "GET", "/groups"+filter("displayName eq 'inner' and mailNickname eq 'inner'"), ""); a.names() != "inner" {
			t.Error(a.text)
		}
		ref := func(id string) string { return `{"@odata.id":"` + audience + `/v1.0/directoryObjects/` + id + `"}` }
		s.do(204, "POST", "/groups/"+inner+"/members/$ref", ref(alice.str("id")))
		s.do(204, "POST", "/groups/"+outer+"/members/$ref", ref(inner))
		s.do(204, "POST", "/groups/"+inner+"/members/$ref", ref(outer)) // a circle
		if a := s.do(400, "POST", "/groups/"+inner+"/members/$ref", ref(alice.str("id"))); a.message() != "One or more added object references already exist for the following modified properties: 'members'." {
			t.Error(a.text)
		}
		s.do(404, "POST", "/groups/"+inner+"/members/$ref", ref(directory.NewID()))
		s.do(400, "POST", "/groups/"+inner+"/members/$ref", `{"@odata.id":"https://attacker.example/x"}`)
		if a := s.do(200, "GET", "/groups/"+inner+"/members", ""); a.names() != "Alice outer" || !strings.Contains(a.text, `"@odata.type":"#microsoft.graph.user"`) {
			t.Error(a.text)
		}
		if a := s.do(200, "POST", "/users/"+alice.str("id")+"/getMemberGroups", `{"securityEnabledOnly":false}`); !strings.Contains(a.text, inner) || !strings.Contains(a.text, outer) {
			t.Error(a.text)
		}
		if a := s.do(200, "POST", "/users/"+alice.str("userPrincipalName")+"/getMemberGroups", `{"securityEnabledOnly":false}`); !strings.Contains(a.text, inner) {
			t.Error(a.text)
		}
		s.do(404, "POST", "/groups/"+alice.str("id")+"/getMemberGroups", `{"securityEnabledOnly":false}`)
		if a := s.do(200, "POST", "/directoryObjects/"+alice.str("id")+"/checkMemberGroups", `{"groupIds":["`+strings.ToUpper(outer)+`","`+directory.NewID()+`"]}`); !strings.Contains(a.text, `"value":["`+outer+`"]`) {
			t.Error(a.text)
		}
		both := `{"ids":["` + alice.str("id") + `","` + inner + `","` + directory.NewID() + `"],"types":["group","servicePrincipal"]}`
		if a := s.do(200, "POST", "/directoryObjects/getByIds", both); a.names() != "inner" || !strings.Contains(a.text, `"@odata.type":"#microsoft.graph.group"`) {
			t.Error(a.text)
		}
		// A member of an owner's group owns; out of it, no longer.
		s.must(policy.Grant(t.Context(), s.docs, outer, policy.RoleOwner, resource.SubscriptionID(s.admin.Subscription)))
		as := s.bearer(alice.str("id"), "", audience)
		if a := s.as(as, "POST", "/v1.0/applications", `{"displayName":"alices"}`); a.status != 201 {
			t.Errorf("a member of an owning group: %d %s", a.status, a.text)
		}
		if a := s.as(as, "GET", "/v1.0/me", ""); a.str("displayName") != "Alice" {
			t.Error(a.text)
		}
		s.do(204, "DELETE", "/groups/"+inner+"/members/"+alice.str("id")+"/$ref", "")
		if a := s.as(as, "POST", "/v1.0/applications", `{"displayName":"alices"}`); a.status != 403 {
			t.Errorf("no member any more: %d", a.status)
		}
		s.do(204, "DELETE", "/groups/"+inner, "")
		s.do(204, "DELETE", "/users/alice@cove.internal", "")
		s.do(404, "GET", "/directoryObjects/"+alice.str("id"), "")
	})
}

func TestPages(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)))
	for i := range 7 {
		s.do(201, "POST", "/applications", fmt.Sprintf(`{"displayName":"app%d","notes":"%d"}`, i, i%2))
	}
	for f, want := range map[string]string{
		"": "app0 app1 app2 app3 app4 app5 app6", "notes eq '1'": "app1 app3 app5", "startswith(displayName,'APP') and notes eq '0'": "app0 app2 app4 app6", "displayName eq 'it''s'": "",
	} {
		var all []string
		next := "/v1.0/applications?$top=2&$filter=" + url.QueryEscape(f)
		for n := 0; next != ""; n++ {
			a := s.as(s.bearer(s.admin.ObjectID, "", audience), "GET", next, "")
			if list, ok := a.body["value"].([]any); !ok || len(list) > 2 || n > 10 {
				t.Fatalf("%s: %s", next, a.text)
			}
			all = append(all, strings.Fields(a.names())...)
			link := a.str("@odata.nextLink")
			if next = strings.TrimPrefix(link, audience); link != "" && next == link {
				t.Fatalf("the next page lies at %s", link)
			}
		}
		slices.Sort(all)
		if got := strings.Join(all, " "); got != want {
			t.Errorf("%s: %s", f, got)
		}
	}
}

func TestBadRequests(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)))
	for _, c := range []struct {
		status           int
		method, path, in string
		code, says       string
	}{
		{400, "POST", "/applications", `{}`, "Request_BadRequest", "Property 'displayName'"},
		{400, "POST", "/applications", `{"displayName":""}`, "Request_BadRequest", "1 to 256"},
		{400, "POST", "/applications", `[]`, "Request_BadRequest", "JSON object"},
		{400, "POST", "/applications", `{"displayName":"x"} {}`, "Request_BadRequest", "goes on"},
		{400, "POST", "/applications", `{"displayName":"x","keyCredentials":[{"key":"MII"}]}`, "Request_BadRequest", "must be a certificate"},
		{400, "POST", "/applications", `{"displayName":"x","passwordCredentials":[{}]}`, "Request_BadRequest", "addPassword"},
		{400, "POST", "/applications", `{"displayName":"x","owners@odata.bind":["y"]}`, "Request_BadRequest", "owners@odata.bind"},
		{413, "POST", "/applications", `{"displayName":"` + strings.Repeat("x", 300<<10) + `"}`, "Request_BadRequest", "larger"},
		{400, "POST", "/servicePrincipals", `{"appId":"` + directory.NewID() + `"}`, "Request_BadRequest", "does not reference a valid application object"},
		{400, "POST", "/users", `{"displayName":"x","userPrincipalName":"x"}`, "Request_BadRequest", "Property 'accountEnabled': a value is required. Property 'mailNickname'"},
		{400, "POST", "/groups", `{"displayName":"x","mailEnabled":false,"mailNickname":"x","securityEnabled":true,"groupTypes":["Unified"]}`, "Request_BadRequest", "groupTypes"},
		{404, "GET", "/applications/" + directory.NewID(), "", "Request_ResourceNotFound", "does not exist"},
		{404, "GET", "/applications/" + s.admin.ObjectID, "", "Request_ResourceNotFound", "does not exist"}, // of another kind
		{400, "GET", "/servicePrincipals(appId='x)", "", "Request_BadRequest", "key"},
		{400, "GET", "/users" + filter("displayName ne 'x'"), "", "Request_UnsupportedQuery", "not supported"},
		{400, "GET", "/users" + filter("displayName eq 'x' or displayName eq 'y'"), "", "Request_UnsupportedQuery", "joined by and"},
		{400, "GET", "/users?$expand=manager", "", "Request_UnsupportedQuery", "$expand"},
		{400, "GET", "/users?$top=0", "", "Request_UnsupportedQuery", "$top"},
		{400, "GET", "/users?$skiptoken=x", "", "Request_UnsupportedQuery", "$skiptoken"},
		{404, "GET", "/nothing", "", "BadRequest", "nothing"},
		{404, "PUT", "/applications", "{}", "BadRequest", "applications"},
		{400, "GET", "/applications/../users", "", "BadRequest", "path"},
		{400, "GET", "/%61pplications", "", "BadRequest", "path"},
		{400, "GET", "//applications", "", "BadRequest", "path"},
		{400, "POST", "/servicePrincipals/" + s.admin.ObjectID + "/addPassword", `{"passwordCredential":{"endDateTime":"2001-01-01T00:00:00Z"}}`, "Request_BadRequest", "later"},
		{400, "POST", "/servicePrincipals/" + s.admin.ObjectID + "/addPassword", `{"passwordCredential":{"endDateTime":"soon"}}`, "Request_BadRequest", "endDateTime"},
		{400, "POST", "/directoryObjects/getByIds", `{"ids":"x"}`, "Request_BadRequest", "ids"},
	} {
		if a := s.do(c.status, c.method, c.path, c.in); a.code() != c.code || !strings.Contains(a.message(), c.says) {
			t.Errorf("%s %s: %s", c.method, c.path, a.text)
		}
	}
}
