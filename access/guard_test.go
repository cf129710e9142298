package access_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

const (
	management = "https://management.cove.internal"
	acr        = "https://containerregistry.azure.net"
	host       = "harbor.cr.cove.internal"
)

// shelf is the registries and the networks of a test.
type shelf struct {
	byHost    map[string]*registry.Settings
	endpoints map[netip.Addr]*network.Endpoint
	broken    error
}

func (s *shelf) ByHost(_ context.Context, host string) (*registry.Settings, error) {
	return s.byHost[host], s.broken
}

func (s *shelf) Endpoint(_ string, local netip.Addr) *network.Endpoint { return s.endpoints[local] }
func (s *shelf) Member(string, netip.Addr) *network.Member             { return nil }

// world is a deployment over a real database, with one registry, one
// application that owns the subscription, and another that may do nothing.
type world struct {
	*access.Guard
	arm   *access.ARM
	shelf *shelf
	db    *store.DB
	ident *store.Identity
	docs  *store.Resources
	admin directory.Admin
	log   bytes.Buffer

	mu  sync.Mutex
	now time.Time
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func open(t testing.TB) *world {
	t.Helper()
	db := storetest.Open(t, storetest.SQLite(t))
	w := &world{db: db, ident: store.NewIdentity(db), docs: store.NewResources(db), now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	now := func() time.Time {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.now
	}
	key := make([]byte, 32)
	rand.Read(key)
	box, err := seal.New(key)
	must(t, err)
	keys, err := token.OpenKeys(t.Context(), store.NewKeys(db), box, now)
	must(t, err)
	tokens := token.New(keys, func(tenant string) string { return "https://login.cove.internal/" + tenant + "/v2.0" })
	dir, roles := directory.New(w.ident, now), policy.NewRoles(w.docs)
	w.admin, _, err = directory.Bootstrap(t.Context(), w.ident, w.now,
		func(context.Context, directory.Admin) error { return nil },
		func(ctx context.Context, a directory.Admin) error {
			return policy.Grant(ctx, w.docs, a.ObjectID, policy.RoleOwner, arm.MustID("/subscriptions/"+a.Subscription))
		})
	must(t, err)
	w.shelf = &shelf{byHost: map[string]*registry.Settings{}, endpoints: map[netip.Addr]*network.Endpoint{}}
	for _, name := range []string{"harbor", "quay"} {
		w.shelf.byHost[name+".cr.cove.internal"] = registry.Settings{
			ID: w.registryID(name), UID: "uid-" + name, Name: name, Host: name + ".cr.cove.internal", PublicAccess: true, DefaultAllow: true, AdminUser: true,
		}.WithAdmin("first-"+name, "second-"+name)
	}
	w.Guard = &access.Guard{
		Registries: w.shelf, Networks: w.shelf, Tokens: tokens, Directory: dir, Roles: roles, Now: now,
		Audiences: []string{management, acr}, Failures: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	w.arm = &access.ARM{Tokens: tokens, Directory: dir, Roles: roles, Audiences: []string{management}}
	return w
}

func (w *world) registryID(name string) arm.ID {
	return arm.MustID("/subscriptions/" + w.admin.Subscription + "/resourceGroups/prod/providers/Microsoft.ContainerRegistry/registries/" + name)
}

// change replaces a registry's settings, as a change of its document does.
func (w *world) change(name string, fn func(*registry.Settings)) {
	s := *w.shelf.byHost[name+".cr.cove.internal"]
	fn(&s)
	w.shelf.byHost[name+".cr.cove.internal"] = &s
}

func (w *world) application(t testing.TB, tenant string) (directory.Client, string) {
	t.Helper()
	secret, cred := directory.NewSecret("ci", w.now, 24*time.Hour)
	c := directory.Client{
		Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: tenant, Kind: directory.ServicePrincipal},
		Credentials: []directory.Credential{cred},
	}
	must(t, w.ident.Create(t.Context(), c))
	return c, secret.Reveal()
}

func (w *world) grant(t testing.TB, who directory.Client, role string, on arm.ID) {
	t.Helper()
	must(t, policy.Grant(t.Context(), w.docs, who.ObjectID, role, on))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ask(authority string, want ...access.Scope) access.Ask {
	return access.Ask{
		ID: "0d9cbd62-6b9b-4b35-9e6e-0123456789ab", Host: host, Authority: authority, Want: want, Operation: "ManifestGet",
		Origin: link.Origin{Remote: netip.MustParseAddrPort("203.0.113.9:40000")},
	}
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func repo(name, action string) access.Scope {
	return access.Scope{Type: "repository", Name: name, Action: action}
}

// outcome is a verdict in a word: allowed, or its code.
func outcome(v access.Verdict) string {
	if v.Allow {
		return "allowed"
	}
	return v.Reason
}

func (w *world) token(t testing.TB, g access.Grant, authority string) (string, string) {
	t.Helper()
	issued, v, err := w.Token(t.Context(), ask(authority), g)
	must(t, err)
	return string(issued.Token), outcome(v)
}

const zero = "00000000-0000-0000-0000-000000000000"

// Every kind of user name and password, at a resource and at the token
// endpoint, which must agree.
func TestUserNamesAndPasswords(t *testing.T) {
	w := open(t)
	puller, secret := w.application(t, w.admin.Tenant)
	w.grant(t, puller, policy.RoleAcrPull, w.registryID("harbor"))
	stranger, strangerSecret := w.application(t, directory.NewID()) // of another tenant
	w.grant(t, stranger, policy.RoleOwner, w.registryID("harbor"))
	nobody, nobodySecret := w.application(t, w.admin.Tenant)
	elsewhere, elsewhereSecret := w.application(t, w.admin.Tenant)
	w.grant(t, elsewhere, policy.RoleAcrPull, w.registryID("quay"))
	refresh, v, err := w.Exchange(t.Context(), ask(""), host, "", access.Secret(w.entra(t, puller, management)))
	must(t, err)
	if !v.Allow {
		t.Fatal(v.Reason)
	}
	bearer, _ := w.token(t, access.Grant{User: puller.AppID, Pass: access.Secret(secret), HasUser: true, Scopes: []string{"repository:team/app:pull"}}, "")

	for _, c := range []struct{ name, user, password, want string }{
		{"admin", "harbor", "first-harbor", "allowed"},
		{"admin, the second password, another case", "HARBOR", "second-harbor", "allowed"},
		{"admin of another registry", "quay", "first-quay", "COVE-AUTH-010"},
		{"admin with another registry's password", "harbor", "first-quay", "COVE-AUTH-002"},
		{"admin without a password", "harbor", "", "COVE-AUTH-002"},
		{"a service principal", puller.AppID, secret, "allowed"},
		{"the bootstrap principal", w.admin.ClientID, w.admin.Secret.Reveal(), "allowed"},
		{"a wrong secret", puller.AppID, secret + "x", "COVE-AUTH-002"},
		{"an unknown client", directory.NewID(), secret, "COVE-AUTH-002"},
		{"the object id for a client id", puller.ObjectID, secret, "COVE-AUTH-002"},
		{"a principal of another tenant, whoever gave it a role", stranger.AppID, strangerSecret, "COVE-AUTH-002"},
		{"a principal without a role", nobody.AppID, nobodySecret, "COVE-PERM-002"},
		{"a principal with a role elsewhere", elsewhere.AppID, elsewhereSecret, "COVE-PERM-002"},
		{"a name that is none", "alice", "x", "COVE-AUTH-010"},
		{"no name", "", "x", "COVE-AUTH-010"},
		{"a refresh token", zero, string(refresh), "allowed"},
		{"an access token", zero, bearer, "allowed"},
		{"a token with another name", "alice", string(refresh), "COVE-AUTH-010"}, // row 67
		{"a token of the control plane", zero, w.entra(t, puller, management), "COVE-AUTH-006"},
		{"no token", zero, "", "COVE-AUTH-006"},
	} {
		at := w.Check(t.Context(), ask(basic(c.user, c.password)))
		_, byForm := w.token(t, access.Grant{User: c.user, Pass: access.Secret(c.password), HasUser: true}, "")
		_, byHeader := w.token(t, access.Grant{}, basic(c.user, c.password))
		if outcome(at) != c.want || byForm != c.want || byHeader != c.want {
			t.Errorf("%s: %s at the resource, %s by form, %s by header; want %s", c.name, outcome(at), byForm, byHeader, c.want)
		}
	}
}

func (w *world) entra(t testing.TB, c directory.Client, audience string) string {
	t.Helper()
	s, _, err := w.Tokens.MintPrincipal(token.PrincipalClaims{Audience: audience, ObjectID: c.ObjectID, Tenant: c.Tenant, AppID: c.AppID, Credential: c.Credentials[0].KeyID})
	must(t, err)
	return s
}

// A token opens what it was issued for, on its own registry, as long as its
// holder may, and no longer.
func TestBearer(t *testing.T) {
	w := open(t)
	ci, secret := w.application(t, w.admin.Tenant)
	w.grant(t, ci, policy.RoleAcrPush, w.registryID("harbor"))
	login := access.Grant{User: ci.AppID, Pass: access.Secret(secret), HasUser: true, Scopes: []string{"repository:team/app:pull,push repository:base:pull"}}
	raw, how := w.token(t, login, "")
	if how != "allowed" {
		t.Fatal(how)
	}
	check := func(want, host, authority string, scopes ...access.Scope) {
		t.Helper()
		a := ask(authority, scopes...)
		a.Host = host
		if got := outcome(w.Check(t.Context(), a)); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
	check("allowed", host, "Bearer "+raw, repo("team/app", "pull"), repo("team/app", "push"))
	check("allowed", host, "bearer "+raw, repo("base", "pull"))
	check("allowed", host, "Bearer "+raw)
	check("COVE-PERM-003", host, "Bearer "+raw, repo("base", "push"))
	check("COVE-PERM-003", host, "Bearer "+raw, repo("team/app2", "pull"))
	check("COVE-PERM-003", host, "Bearer "+raw, access.Scope{Type: "registry", Name: "catalog", Action: "*"})
	check("COVE-AUTH-006", "quay.cr.cove.internal", "Bearer "+raw, repo("team/app", "pull"))
	check("COVE-AUTH-007", host, "Bearer", repo("team/app", "pull"))
	check("COVE-AUTH-007", host, "Digest x", repo("team/app", "pull"))
	check("COVE-AUTH-001", host, "", repo("team/app", "pull"))
	check("COVE-NAME-001", "absent.cr.cove.internal", "Bearer "+raw)

	// Clients ask for what they need and get what they may have. That the
	// token lacks it is no reason of its own: the role is what is missing.
	puller, pullersSecret := w.application(t, w.admin.Tenant)
	w.grant(t, puller, policy.RoleAcrPull, w.registryID("harbor"))
	narrow, _ := w.token(t, access.Grant{User: puller.AppID, Pass: access.Secret(pullersSecret), HasUser: true, Scopes: []string{"repository:team/app:pull,push"}}, "")
	check("allowed", host, "Bearer "+narrow, repo("team/app", "pull"))
	check("COVE-PERM-001", host, "Bearer "+narrow, repo("team/app", "pull"), repo("team/app", "push"))

	// A token for nothing is good for nothing: it is not one without a limit.
	empty, _ := w.token(t, access.Grant{User: ci.AppID, Pass: access.Secret(secret), HasUser: true}, "")
	check("allowed", host, "Bearer "+empty)
	check("COVE-PERM-003", host, "Bearer "+empty, repo("team/app", "pull"))
	check("COVE-PERM-003", host, basic(zero, empty), repo("team/app", "pull"))

	// A role that is taken away is gone from the tokens that are out.
	as, err := w.Roles.At(t.Context(), ci.ObjectID, w.registryID("harbor"))
	must(t, err)
	must(t, w.docs.Update(t.Context(), func(tx resource.Tx) error { return tx.Delete(t.Context(), as[0].ID) }))
	check("COVE-PERM-002", host, "Bearer "+raw, repo("team/app", "pull"))
	w.grant(t, ci, policy.RoleAcrPull, w.registryID("harbor"))
	check("allowed", host, "Bearer "+raw, repo("team/app", "pull"))
	check("COVE-PERM-001", host, "Bearer "+raw, repo("team/app", "push"))

	// So is the principal, and the secret that bought them.
	must(t, w.ident.SetDisabled(t.Context(), ci.ObjectID, true))
	check("COVE-AUTH-008", host, "Bearer "+raw, repo("team/app", "pull"))
	must(t, w.ident.SetDisabled(t.Context(), ci.ObjectID, false))
	must(t, w.ident.RemoveCredential(t.Context(), ci.ObjectID, ci.Credentials[0].KeyID))
	check("COVE-AUTH-008", host, "Bearer "+raw, repo("team/app", "pull"))

	// And the registry: another of the same name is another.
	admin, _ := w.token(t, access.Grant{User: "harbor", Pass: "first-harbor", HasUser: true, Scopes: []string{"repository:team/app:*"}}, "")
	check("allowed", host, "Bearer "+admin, repo("team/app", "delete"))
	w.change("harbor", func(s *registry.Settings) { s.AdminUser = false })
	check("COVE-AUTH-004", host, "Bearer "+admin, repo("team/app", "delete"))
	w.change("harbor", func(s *registry.Settings) { s.AdminUser, s.UID = true, "uid-again" })
	check("COVE-AUTH-006", host, "Bearer "+admin, repo("team/app", "delete"))
	w.change("harbor", func(s *registry.Settings) { s.UID = "uid-harbor" })
	w.pass(75*time.Minute + 60*time.Second)
	check("COVE-AUTH-005", host, "Bearer "+admin, repo("team/app", "delete"))
}

// A credential is bound to the permissions mode in which it was issued, and to
// a kind of identity that we know.
func TestATokenOfAnotherModeIsRefused(t *testing.T) {
	w := open(t)
	password, _ := w.shelf.byHost[host].AdminPassword("harbor", "first-harbor")
	ci, _ := w.application(t, w.admin.Tenant)
	w.grant(t, ci, policy.RoleAcrPull, w.registryID("harbor"))
	for want, change := range map[string]func(*token.RegistryClaims){
		"allowed":                 func(*token.RegistryClaims) {},
		"COVE-AUTH-033":           func(c *token.RegistryClaims) { c.Mode = "AbacRepositoryPermissions" },
		"COVE-AUTH-006":           func(c *token.RegistryClaims) { c.Mode = "Another" },
		"COVE-AUTH-008":           func(c *token.RegistryClaims) { c.Credential = "another" }, // a password that was renewed
		"COVE-AUTH-006, no mode":  func(c *token.RegistryClaims) { c.Mode = "" },
		"COVE-AUTH-006, no kind":  func(c *token.RegistryClaims) { c.Kind = "" },
		"COVE-AUTH-008, nobody's": func(c *token.RegistryClaims) { c.Kind = access.KindServicePrincipal },
		"allowed, a principal's": func(c *token.RegistryClaims) {
			c.Kind, c.ObjectID, c.Tenant, c.Credential = access.KindServicePrincipal, ci.ObjectID, ci.Tenant, ""
		},
		// Published failure 43.
		"COVE-AUTH-006, a principal's of another tenant": func(c *token.RegistryClaims) {
			c.Kind, c.ObjectID, c.Tenant, c.Credential = access.KindServicePrincipal, ci.ObjectID, directory.NewID(), ""
		},
	} {
		c := token.RegistryClaims{
			Audience: host, RegistryUID: "uid-harbor", Kind: access.KindAdmin, Mode: "LegacyRegistryPermissions", Credential: password,
			Access: []token.Access{{Type: "repository", Name: "a", Actions: []string{"pull"}}},
		}
		change(&c)
		raw, _, err := w.Tokens.MintRegistry(c, time.Time{})
		must(t, err)
		want, _, _ = strings.Cut(want, ",")
		if got := outcome(w.Check(t.Context(), ask("Bearer "+raw, repo("a", "pull")))); got != want {
			t.Errorf("%s, not %s", got, want)
		}
	}
}

// A token is issued for what of the scopes may be had; the rest fails where
// it is used.
func TestScopesAreReduced(t *testing.T) {
	w := open(t)
	puller, secret := w.application(t, w.admin.Tenant)
	w.grant(t, puller, policy.RoleAcrPull, w.registryID("harbor"))
	for _, c := range []struct{ asked, want string }{
		{"repository:team/app:pull,push", "repository:team/app:pull"},
		{"repository:team/app:push", ""},
		{"repository:a:pull repository:b:pull", "repository:a:pull repository:b:pull"},
		{"repository:*:pull registry:catalog:*", "repository:*:pull registry:catalog:*"},
		{"repository:a:*", "repository:a:pull,metadata_read"},
		{"", ""},
	} {
		raw, how := w.token(t, access.Grant{User: puller.AppID, Pass: access.Secret(secret), HasUser: true, Scopes: []string{c.asked}}, "")
		claims, err := w.Tokens.VerifyRegistry(raw, host, "uid-harbor")
		if how != "allowed" || err != nil {
			t.Fatal(how, err)
		}
		var got []string
		for _, a := range claims.Access {
			got = append(got, token.Scope(a).String())
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("asked %q, got %q, want %q", c.asked, text, c.want)
		}
	}
	if _, _, err := w.Token(t.Context(), ask(""), access.Grant{Scopes: []string{"nonsense"}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a scope that is none: %v", err)
	}
}

// An access token used as a password buys no more than it is, and nothing
// that outlives it.
func TestATokenBuysNoMoreThanItIs(t *testing.T) {
	w := open(t)
	ci, secret := w.application(t, w.admin.Tenant)
	w.grant(t, ci, policy.RoleAcrPush, w.registryID("harbor"))
	// Who may push is issued tokens for deleting, good for referrers: not for
	// one that was for pulling.
	for user, password := range map[string]string{"harbor": "first-harbor", ci.AppID: secret} {
		raw, _ := w.token(t, access.Grant{User: user, Pass: access.Secret(password), HasUser: true, Scopes: []string{"repository:a:pull"}}, "")
		w.pass(time.Hour)
		again, how := w.token(t, access.Grant{User: zero, Pass: access.Secret(raw), HasUser: true, Scopes: []string{"repository:a:pull,push,delete repository:b:pull repository:*:pull,delete"}}, "")
		if how != "allowed" {
			t.Fatal(how)
		}
		first, err := w.Tokens.VerifyRegistry(raw, host, "uid-harbor")
		must(t, err)
		second, err := w.Tokens.VerifyRegistry(again, host, "uid-harbor")
		must(t, err)
		if fmt.Sprint(second.Access) != "[{repository a [pull]}]" || second.Expires > first.Expires {
			t.Errorf("%s: %v until %d, bought with %v until %d", user, second.Access, second.Expires, first.Access, first.Expires)
		}
	}
}

func TestExchange(t *testing.T) {
	w := open(t)
	ci, secret := w.application(t, w.admin.Tenant)
	w.grant(t, ci, policy.RoleAcrPull, w.registryID("harbor"))
	stranger, _ := w.application(t, directory.NewID())
	w.grant(t, stranger, policy.RoleOwner, w.registryID("harbor"))
	nobody, _ := w.application(t, w.admin.Tenant)
	moved := ci // Published failure 43: a token that is ours, in the name of a tenant that its holder is not of
	moved.Tenant = directory.NewID()
	registryToken, _ := w.token(t, access.Grant{User: ci.AppID, Pass: access.Secret(secret), HasUser: true}, "")
	for _, c := range []struct{ name, service, tenant, raw, want string }{
		{"for the control plane", host, w.admin.Tenant, w.entra(t, ci, management), "allowed"},
		{"for the control plane, with a slash", host, "", w.entra(t, ci, management+"/"), "allowed"},
		{"for registries", host, strings.ToUpper(w.admin.Tenant), w.entra(t, ci, acr), "allowed"},
		{"a tenant's name", host, "contoso", w.entra(t, ci, acr), "allowed"},
		{"for the directory", host, "", w.entra(t, ci, "https://graph.cove.internal"), "COVE-AUTH-006"},
		{"another tenant named", host, directory.NewID(), w.entra(t, ci, management), "COVE-AUTH-006"},
		{"another registry named", "quay.cr.cove.internal", "", w.entra(t, ci, management), "COVE-AUTH-006"},
		{"no registry named", "", "", w.entra(t, ci, management), "COVE-AUTH-006"},
		{"of another tenant", host, "", w.entra(t, stranger, management), "COVE-AUTH-002"},
		{"as of another tenant", host, "", w.entra(t, moved, management), "COVE-AUTH-006"},
		{"without a role", host, "", w.entra(t, nobody, management), "COVE-PERM-002"},
		{"a registry's token", host, "", registryToken, "COVE-AUTH-006"},
		{"no token", host, "", "", "COVE-AUTH-006"},
	} {
		refresh, v, err := w.Exchange(t.Context(), ask(""), c.service, c.tenant, access.Secret(c.raw))
		must(t, err)
		if outcome(v) != c.want || v.Allow != (refresh != "") {
			t.Errorf("%s: %s, not %s", c.name, outcome(v), c.want)
		}
	}
	refresh, _, err := w.Exchange(t.Context(), ask(""), host, "", access.Secret(w.entra(t, ci, management)))
	must(t, err)
	claims, err := w.Tokens.VerifyRefresh(string(refresh), host, "uid-harbor")
	must(t, err)
	if claims.Subject != ci.AppID || claims.Tenant != w.admin.Tenant || fmt.Sprint(claims.Permissions.Actions) != "[read]" || claims.Grant != "refresh_token" {
		t.Errorf("claims: %+v", claims)
	}
	grant := access.Grant{Refresh: refresh, Scopes: []string{"repository:a:pull,push"}}
	if _, how := w.token(t, grant, ""); how != "allowed" {
		t.Error(how)
	}
	w.pass(3*time.Hour + time.Minute)
	if _, how := w.token(t, grant, ""); how != "COVE-AUTH-005" { // row 70
		t.Error(how)
	}
}

func TestAnonymous(t *testing.T) {
	w := open(t)
	if _, how := w.token(t, access.Grant{Scopes: []string{"repository:a:pull"}}, ""); how != "COVE-AUTH-001" {
		t.Errorf("where anonymous pull is off: %s", how)
	}
	w.change("harbor", func(s *registry.Settings) { s.AnonymousPull = true })
	if got := outcome(w.Check(t.Context(), ask(""))); got != "COVE-AUTH-001" {
		t.Errorf("clients must be challenged even so: %s", got)
	}
	raw, how := w.token(t, access.Grant{Scopes: []string{"repository:a:pull,push,delete registry:catalog:*"}}, "")
	if how != "allowed" {
		t.Fatal(how)
	}
	if got := outcome(w.Check(t.Context(), ask("Bearer "+raw, repo("a", "pull")))); got != "allowed" {
		t.Error(got)
	}
	if got := outcome(w.Check(t.Context(), ask("Bearer "+raw, repo("a", "push")))); got != "COVE-PERM-004" {
		t.Error(got)
	}
	// Row 68: a credential that is presented is judged, never dropped.
	for _, authority := range []string{basic("harbor", "wrong"), basic("", ""), "Basic !", "Bearer x", "Bearer " + raw, "Negotiate y"} {
		if _, how := w.token(t, access.Grant{}, authority); how == "allowed" {
			t.Errorf("%q was taken for an anonymous caller", authority)
		}
	}
	w.change("harbor", func(s *registry.Settings) { s.AnonymousPull = false })
	if got := outcome(w.Check(t.Context(), ask("Bearer "+raw, repo("a", "pull")))); got != "COVE-AUTH-009" {
		t.Error(got)
	}
}

// The network's no comes first, at the token endpoint too, and no credential
// is looked at.
func TestTheNetworkComesFirst(t *testing.T) {
	w := open(t)
	w.change("harbor", func(s *registry.Settings) { s.PublicAccess = false })
	good := basic("harbor", "first-harbor")
	_, v1, err1 := w.Token(t.Context(), ask(good), access.Grant{Scopes: []string{"nonsense"}})
	_, v2, err2 := w.Exchange(t.Context(), ask(good), host, "", "x")
	for _, v := range []access.Verdict{w.Check(t.Context(), ask(good)), w.CheckNetwork(t.Context(), ask(good)), v1, v2} {
		if v.Refusal != access.Network || v.Reason != "COVE-NET-001" || v.Identity != (access.Identity{}) {
			t.Errorf("%v", v)
		}
	}
	if !fault.Is(err1, fault.Invalid) || err2 != nil {
		t.Error(err1, err2)
	}

	// The same through an approved endpoint.
	local := netip.MustParseAddr("10.0.0.7")
	w.shelf.endpoints[local] = &network.Endpoint{ID: arm.MustID("/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/pe"), Registry: w.registryID("harbor"), State: "Approved"}
	inside := ask(good, repo("a", "push"))
	inside.Origin = link.Origin{Kind: link.Overlay, Network: "n", Remote: netip.MustParseAddrPort("10.0.0.20:1"), Local: netip.AddrPortFrom(local, 443)}
	if v := w.Check(t.Context(), inside); !v.Allow || v.Endpoint == "" {
		t.Error(outcome(v))
	}
	// Who asks inside for another registry than the endpoint's is refused,
	// open as that one may be.
	inside.Host = "quay.cr.cove.internal"
	if v := w.Check(t.Context(), inside); v.Reason != "COVE-NET-006" {
		t.Error(outcome(v))
	}
}

// What cannot be read is refused, says so to nobody but the log, and is not
// taken for a wrong password.
func TestMissingFactsRefuse(t *testing.T) {
	const secretCause = "cause-for-the-log"
	w := open(t)
	w.shelf.broken = errors.New(secretCause)
	v := w.Check(t.Context(), ask(basic("harbor", "first-harbor")))
	if v.Allow || v.Refusal != access.Unavailable || v.Reason != "COVE-INT-001" || strings.Contains(v.Public, secretCause) || !fault.Is(v.Err(), fault.Unavailable) {
		t.Errorf("%v %s", v, v.Public)
	}
	if !strings.Contains(w.log.String(), secretCause) || !strings.Contains(w.log.String(), v.Ask.ID) {
		t.Errorf("the log says %q", w.log.String())
	}
	w.shelf.broken = nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // the database answers nothing any more
	v = w.Check(ctx, ask(basic(w.admin.ClientID, w.admin.Secret.Reveal())))
	if v.Allow || v.Refusal != access.Unavailable {
		t.Errorf("without a database: %v", v)
	}
	kept, err := json.Marshal(access.Kept(&v))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := access.Explain(audit.Event{Detail: kept}); err != nil || e.Steps[4].Outcome != access.Unknown {
		t.Errorf("%+v %v", e, err)
	}
}

func TestARM(t *testing.T) {
	w := open(t)
	owner, err := w.ident.ByApp(t.Context(), w.admin.ClientID)
	must(t, err)
	reader, _ := w.application(t, w.admin.Tenant)
	w.grant(t, reader, policy.RoleReader, w.registryID("harbor"))
	stranger, _ := w.application(t, directory.NewID())
	w.grant(t, stranger, policy.RoleOwner, w.registryID("harbor"))
	bearer := func(c directory.Client, audience string) string { return "Bearer " + w.entra(t, c, audience) }
	caller := func(c directory.Client) resource.Caller {
		got, err := w.arm.Authenticate(t.Context(), bearer(c, management+"/"))
		must(t, err)
		return got
	}
	group := w.registryID("harbor").GroupID()
	for _, c := range []struct {
		who    string
		by     resource.Caller
		action string
		scope  arm.ID
		want   bool
	}{
		{"the owner", caller(owner), policy.ActionRegistryWrite, w.registryID("harbor"), true},
		{"the owner", caller(owner), "Microsoft.Authorization/roleAssignments/write", group, true},
		{"the owner", caller(owner), policy.ActionRegistryWrite, arm.MustID("/subscriptions/" + directory.NewID()), false},
		{"the reader", caller(reader), policy.ActionRegistryRead, w.registryID("harbor"), true},
		{"the reader", caller(reader), policy.ActionRegistryWrite, w.registryID("harbor"), false},
		{"the reader", caller(reader), policy.ActionRegistryRead, w.registryID("quay"), false},
		{"the reader", caller(reader), policy.ActionRegistryRead, group, false},
		{"one of another tenant", caller(stranger), policy.ActionRegistryRead, w.registryID("harbor"), false},
	} {
		if got := c.by.May(c.action, c.scope); got != c.want {
			t.Errorf("%s, %s at %s: %v", c.who, c.action, c.scope, got)
		}
	}
	for who, want := range map[*directory.Client]bool{&reader: true, &stranger: false} {
		w.grant(t, *who, policy.RoleRepoReader, w.registryID("harbor"))
		by := caller(*who)
		if got := by.MayData(policy.DataContentRead, w.registryID("harbor"), "a"); got != want || by.MayData(policy.DataContentWrite, w.registryID("harbor"), "a") {
			t.Errorf("data, of the tenant %s: %v", who.Tenant, got)
		}
	}
	registryToken, _ := w.token(t, access.Grant{User: "harbor", Pass: "first-harbor", HasUser: true, Scopes: []string{"repository:a:*"}}, "")
	old := bearer(reader, management)
	for name, c := range map[string]struct {
		header string
		want   error
	}{
		"nothing":             {"", access.ErrNoToken},
		"a password":          {basic("harbor", "first-harbor"), access.ErrTokenInvalid},
		"a registry's token":  {"Bearer " + registryToken, access.ErrTokenInvalid},
		"for registries only": {bearer(owner, acr), access.ErrTokenAudience},
		"for the directory":   {bearer(owner, "https://graph.cove.internal"), access.ErrTokenAudience},
		"nonsense":            {"Bearer x", access.ErrTokenInvalid},
	} {
		if _, err := w.arm.Authenticate(t.Context(), c.header); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What goes on after an answer ends with what its request was made with.
	credential := caller(reader).Credential
	again := func() error { _, err := w.arm.Again(t.Context(), reader.ObjectID, credential); return err }
	must(t, again())
	must(t, w.ident.SetDisabled(t.Context(), reader.ObjectID, true))
	if _, err := w.arm.Authenticate(t.Context(), old); !errors.Is(err, access.ErrTokenInvalid) {
		t.Errorf("disabled: %v", err)
	}
	if err := again(); !errors.Is(err, access.ErrTokenInvalid) {
		t.Errorf("disabled, later: %v", err)
	}
	must(t, w.ident.SetDisabled(t.Context(), reader.ObjectID, false))
	w.pass(time.Hour + time.Minute)
	if _, err := w.arm.Authenticate(t.Context(), old); !errors.Is(err, access.ErrTokenExpired) {
		t.Errorf("expired: %v", err)
	}
}

func BenchmarkCheckBearer(b *testing.B) {
	w := open(b)
	ctx, stop := context.WithCancel(b.Context())
	var following sync.WaitGroup
	following.Go(func() { _ = w.Directory.Run(ctx) })
	following.Go(func() { _ = w.Roles.Run(ctx) })
	for !w.Directory.Live() || !w.Roles.Live() {
		time.Sleep(time.Millisecond)
	}
	g := access.Grant{User: w.admin.ClientID, Pass: access.Secret(w.admin.Secret.Reveal()), HasUser: true, Scopes: []string{"repository:team/app:pull"}}
	raw, how := w.token(b, g, "")
	if how != "allowed" {
		b.Fatal(how)
	}
	a := ask("Bearer "+raw, repo("team/app", "pull"))
	b.ReportAllocs()
	for b.Loop() {
		if v := w.Check(b.Context(), a); !v.Allow {
			b.Fatal(outcome(v))
		}
	}
	stop()
	following.Wait()
}

func BenchmarkTokenByPassword(b *testing.B) {
	w := open(b)
	ctx, stop := context.WithCancel(b.Context())
	var following sync.WaitGroup
	following.Go(func() { _ = w.Directory.Run(ctx) })
	following.Go(func() { _ = w.Roles.Run(ctx) })
	for !w.Directory.Live() || !w.Roles.Live() {
		time.Sleep(time.Millisecond)
	}
	g := access.Grant{User: w.admin.ClientID, Pass: access.Secret(w.admin.Secret.Reveal()), HasUser: true, Scopes: []string{"repository:team/app:pull"}}
	b.ReportAllocs()
	for b.Loop() {
		if _, how := w.token(b, g, ""); how != "allowed" {
			b.Fatal(how)
		}
	}
	stop()
	following.Wait()
}

// The two deprecated grants of an exchange: a person's refresh token of the
// issuer, alone and beside an access token.
func TestExchangeOfASession(t *testing.T) {
	w := open(t)
	person := func(upn string) (directory.Object, string) {
		password, err := directory.NewPassword(t.Context(), "correct horse", w.now)
		must(t, err)
		o := directory.Object{
			Principal:   directory.Principal{ObjectID: directory.NewID(), Tenant: w.admin.Tenant, Kind: directory.User, UPN: upn},
			Credentials: []directory.Credential{password},
		}
		must(t, w.Directory.Add(t.Context(), o))
		must(t, policy.Grant(t.Context(), w.docs, o.ObjectID, policy.RoleAcrPull, w.registryID("harbor")))
		raw, err := w.Tokens.MintSession(token.Session{Client: "az", ObjectID: o.ObjectID, Tenant: o.Tenant, Credential: password.KeyID})
		must(t, err)
		return o, raw
	}
	alice, session := person("alice@cove.internal")
	bob, bobs := person("bob@cove.internal")
	entra := func(o directory.Object, audience string) string {
		raw, _, err := w.Tokens.MintPrincipal(token.PrincipalClaims{Audience: audience, ObjectID: o.ObjectID, Tenant: o.Tenant, AppID: "az", IDType: "user", Credential: o.Credentials[0].KeyID})
		must(t, err)
		return raw
	}
	ci, _ := w.application(t, w.admin.Tenant)
	w.grant(t, ci, policy.RoleAcrPull, w.registryID("harbor"))
	notAPerson, err := w.Tokens.MintSession(token.Session{Client: "az", ObjectID: ci.ObjectID, Tenant: ci.Tenant})
	must(t, err)
	elsewhere, err := w.Tokens.MintSession(token.Session{Client: "az", ObjectID: alice.ObjectID, Tenant: directory.NewID(), Credential: alice.Credentials[0].KeyID})
	must(t, err)
	own, _, err := w.ExchangeSession(t.Context(), ask(""), host, "", "", access.Secret(session))
	must(t, err)
	changed := []byte(session)
	changed[20] ^= 'A' ^ 'B' // another letter, or none of the alphabet
	insist := func(on bool) func() {
		return func() {
			w.RegistryAudience = acr
			w.change("harbor", func(s *registry.Settings) { s.RegistryAudienceOnly = on })
		}
	}
	for _, c := range []struct {
		name, service, tenant, raw, refresh, want string
		first                                     func()
	}{
		{"alone", host, "", "", session, "allowed", nil},
		{"with its tenant", host, strings.ToUpper(alice.Tenant), "", session, "allowed", nil},
		{"beside an access token", host, "", entra(alice, management), session, "allowed", nil},
		{"beside another's access token", host, "", entra(bob, management), session, "COVE-AUTH-006", nil},
		{"beside an access token for another place", host, "", entra(alice, "https://graph.cove.internal"), session, "COVE-AUTH-006", nil},
		{"another's beside an access token", host, "", entra(alice, management), bobs, "COVE-AUTH-006", nil},
		{"another tenant named", host, directory.NewID(), "", session, "COVE-AUTH-006", nil},
		{"another registry named", "quay.cr.cove.internal", "", "", session, "COVE-AUTH-006", nil},
		{"an application's", host, "", "", notAPerson, "COVE-AUTH-006", nil},
		{"of another tenant", host, "", "", elsewhere, "COVE-AUTH-006", nil},
		{"the registry's own refresh token", host, "", "", string(own), "COVE-AUTH-006", nil},
		{"an access token", host, "", "", entra(alice, management), "COVE-AUTH-006", nil},
		{"changed", host, "", "", string(changed), "COVE-AUTH-006", nil},
		{"cut", host, "", "", session[:len(session)-4], "COVE-AUTH-006", nil},
		{"of 9 KiB", host, "", "", session + strings.Repeat("A", 9<<10), "COVE-AUTH-006", nil},
		{"where only tokens for registries are taken", host, "", "", session, "COVE-AUTH-034", insist(true)},
		{"there, beside an access token for all", host, "", entra(alice, management), session, "COVE-AUTH-034", nil},
		{"there, beside one for registries", host, "", entra(alice, acr), session, "allowed", nil},
		{"with another password since", host, "", "", session, "COVE-AUTH-008", func() {
			insist(false)()
			must(t, w.Directory.SetPassword(t.Context(), alice.ObjectID, "battery staple"))
		}},
		{"before its end", host, "", "", bobs, "allowed", func() { w.pass(token.SessionLife - time.Second) }},
		{"after its end", host, "", "", bobs, "COVE-AUTH-005", func() { w.pass(time.Second) }},
		{"from the future", host, "", "", bobs, "COVE-AUTH-006", func() { w.pass(-token.SessionLife - time.Hour) }},
	} {
		if c.first != nil {
			c.first()
		}
		refresh, v, err := w.ExchangeSession(t.Context(), ask(""), c.service, c.tenant, access.Secret(c.raw), access.Secret(c.refresh))
		must(t, err)
		if outcome(v) != c.want || v.Allow != (refresh != "") {
			t.Errorf("%s: %s, not %s", c.name, outcome(v), c.want)
		}
	}
}
