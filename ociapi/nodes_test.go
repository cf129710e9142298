package ociapi

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

// node is a second server over a realm's database. It remembers what it has
// read, as servers do, and hears of changes by the record of changes alone.
func (r *realm) node(db *store.DB) *site {
	r.Helper()
	s := newSite(r.TB, everybody)
	docs := store.NewResources(db)
	registries := registry.NewDirectory(docs, r.conf)
	people := directory.New(store.NewIdentity(db), r.time)
	roles := policy.NewRoles(docs)
	roles.Groups, roles.Now = people.Groups, r.time
	keys, err := token.OpenKeys(r.Context(), r.keys, r.conf.Sealer, r.time)
	r.fatal(err)
	ctx, stop := context.WithCancel(context.Background())
	runs := []func(context.Context) error{registries.Run, people.Run, roles.Run, keys.Run}
	ended := make(chan error, len(runs))
	for _, run := range runs {
		go func() { ended <- run(ctx) }()
	}
	r.Cleanup(func() {
		stop()
		for range runs {
			<-ended
		}
	})
	<-registries.Live()
	r.soon("the second node follows", func() bool { return people.Live() && roles.Live() })
	guard := &access.Guard{
		Registries: registries, Scoped: registries, Directory: people, Roles: roles, Now: r.time, Tokens: token.New(keys, r.guard.Tokens.Issuer),
		Audiences: r.guard.Audiences, RegistryAudience: registryAudience,
	}
	s.api.Guard, s.api.Tokens, s.api.Now = guard, guard, r.time
	return s
}

// soon fails unless something holds within the ten seconds that a revocation
// may take.
func (r *realm) soon(what string, holds func() bool) {
	r.Helper()
	for begun := time.Now(); !holds(); {
		if time.Since(begun) > 10*time.Second {
			r.Fatalf("after ten seconds: not %s", what)
		}
	}
}

// Published failures 9 and 50: what one node takes away ends the sessions that
// are running on another within ten seconds, whichever kind they are of and
// whatever it is that was taken: passwords and secrets, both of a registry's
// tokens, whoever holds them, the role, the group that has it. What another
// credential has bought goes on.
func TestRevocationEndsSessionsOnTheOtherNode(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		r := newRealm(t, db)
		there := r.node(db)
		people := r.guard.Directory
		// Sessions are what a client goes on with: its password, a refresh token,
		// an access token. Each is opened, and used, on the other node.
		open := func(user, password string) map[string]func() int {
			r.Helper()
			basic := header(user, password)
			get := func(credential string) reply {
				q := url.Values{"service": {loginServer}, "scope": {"repository:other:pull"}}
				return there.do(http.MethodGet, "/oauth2/token?"+q.Encode(), nil, "Authorization", credential)
			}
			raw := get(basic).field("access_token")
			pull := func(credential string) int {
				return there.do(http.MethodGet, "/v2/other/manifests/1", nil, "Authorization", credential).StatusCode
			}
			return map[string]func() int{
				"a password":                  func() int { return pull(basic) },
				"a password at the endpoint":  func() int { return get(basic).StatusCode },
				"an access token":             func() int { return pull("Bearer " + raw) },
				"an access token as password": func() int { return pull(header("00000000-0000-0000-0000-000000000000", raw)) },
			}
		}
		refreshed := func(objectID, keyID string) map[string]func() int {
			r.Helper()
			entra, _, err := r.guard.Tokens.MintPrincipal(token.PrincipalClaims{Audience: managementAudience, ObjectID: objectID, Tenant: r.client.Tenant, AppID: "a", Credential: keyID})
			r.fatal(err)
			form := func(target string, f ...string) reply {
				v := url.Values{}
				for i := 0; i < len(f); i += 2 {
					v.Add(f[i], f[i+1])
				}
				return there.do(http.MethodPost, target, strings.NewReader(v.Encode()), "Content-Type", "application/x-www-form-urlencoded")
			}
			swap := func() reply {
				return form("/oauth2/exchange", "grant_type", "access_token", "service", loginServer, "access_token", entra)
			}
			refresh := swap().field("refresh_token")
			return map[string]func() int{
				"the issuer's token": func() int { return swap().StatusCode },
				"a refresh token": func() int {
					return form("/oauth2/token", "grant_type", "refresh_token", "service", loginServer, "scope", "repository:other:pull", "refresh_token", refresh).StatusCode
				},
			}
		}
		both := func(sets ...map[string]func() int) map[string]func() int {
			out := map[string]func() int{}
			for _, set := range sets {
				maps.Copy(out, set)
			}
			return out
		}
		// application is one more service principal, which may pull.
		application := func() (directory.Client, string) {
			secret, cred := directory.NewSecret("ci", r.time(), 24*time.Hour)
			c := directory.Client{
				Principal:   directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: r.client.Tenant, Kind: directory.ServicePrincipal},
				Credentials: []directory.Credential{cred},
			}
			r.fatal(r.ident.Create(t.Context(), c))
			return c, secret.Reveal()
		}
		docs := store.NewResources(db)
		grant := func(principal string) {
			r.fatal(policy.Grant(t.Context(), docs, principal, policy.RoleAcrPull, arm.MustID(r.id)))
		}
		withdraw := func(principal string) {
			r.fatal(docs.Update(t.Context(), func(tx resource.Tx) error {
				list, err := tx.List(t.Context(), resource.Query{Type: policy.TypeAssignments, Under: arm.MustID(r.id)})
				for _, d := range list {
					if resource.Lookup(d.Body, "properties.principalId") == principal && err == nil {
						err = tx.Delete(t.Context(), d.ID)
					}
				}
				return err
			}))
		}
		all := func(c directory.Client, secret string) map[string]func() int {
			return both(open(c.AppID, secret), refreshed(c.ObjectID, c.Credentials[0].KeyID))
		}

		passwords := r.robot("repositories/*/content/read")
		r.patch(r.id, `{"properties":{"adminUserEnabled":true}}`)
		admin := r.act("listCredentials", `{}`)
		removed, removedSecret := application()
		disabled, disabledSecret := application()
		deleted, deletedSecret := application()
		unassigned, unassignedSecret := application()
		member, memberSecret := application()
		grouped := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: r.client.Tenant, Kind: directory.Group, Name: "pullers"}}
		r.fatal(people.Add(t.Context(), grouped))
		r.fatal(people.AddMember(t.Context(), grouped.ObjectID, member.ObjectID))
		for _, id := range []string{removed.ObjectID, disabled.ObjectID, deleted.ObjectID, unassigned.ObjectID, grouped.ObjectID} {
			grant(id)
		}
		r.soon("everybody is known there", func() bool {
			return there.do("GET", "/v2/other/tags/list", nil, "Authorization", header(member.AppID, memberSecret)).StatusCode != 401 &&
				there.do("GET", "/v2/other/tags/list", nil, "Authorization", header("robot", passwords[1])).StatusCode != 401 &&
				there.do("GET", "/v2/other/tags/list", nil, "Authorization", header("harbor", admin[1])).StatusCode != 401
		})
		for _, c := range []struct {
			name       string
			ends, lets map[string]func() int
			take       func()
		}{
			{"a password of a token", open("robot", passwords[0]), open("robot", passwords[1]), func() {
				r.act("generateCredentials", `{"tokenId":"`+r.id+`/tokens/robot","name":"password1"}`)
			}},
			{"the token", open("robot", passwords[1]), nil, func() { r.patch(r.id+"/tokens/robot", `{"properties":{"status":"disabled"}}`) }},
			{"an admin password", open("harbor", admin[0]), open("harbor", admin[1]), func() { r.act("regenerateCredential", `{"name":"password"}`) }},
			{"the admin user", open("harbor", admin[1]), nil, func() { r.patch(r.id, `{"properties":{"adminUserEnabled":false}}`) }},
			{"a secret", all(removed, removedSecret), all(disabled, disabledSecret), func() {
				r.fatal(people.RemoveSecret(t.Context(), removed.ObjectID, removed.Credentials[0].KeyID))
			}},
			{"a principal's being enabled", all(disabled, disabledSecret), all(deleted, deletedSecret), func() {
				_, err := people.Change(t.Context(), disabled.ObjectID, func(o *directory.Object) error { o.Disabled = true; return nil })
				r.fatal(err)
			}},
			{"a principal", all(deleted, deletedSecret), all(unassigned, unassignedSecret), func() { r.fatal(people.Remove(t.Context(), deleted.ObjectID)) }},
			{"a role", all(unassigned, unassignedSecret), all(member, memberSecret), func() { withdraw(unassigned.ObjectID) }},
			{"a membership", all(member, memberSecret), all(r.client, r.secret), func() {
				r.fatal(people.RemoveMember(t.Context(), grouped.ObjectID, member.ObjectID))
			}},
			{"the key that signed", map[string]func() int{"an access token": open(r.client.AppID, r.secret)["an access token"]}, map[string]func() int{"a password": open(r.client.AppID, r.secret)["a password"]}, func() {
				list, err := r.keys.Keys(t.Context())
				r.fatal(err)
				for _, k := range list {
					if k.Use == token.Registry {
						r.fatal(r.guard.Tokens.Keys().Revoke(t.Context(), k.ID))
					}
				}
			}},
		} {
			for name, session := range both(c.lets, c.ends) {
				if got := session(); got == http.StatusUnauthorized {
					t.Errorf("with %s, %s: %d", c.name, name, got)
				}
			}
			c.take()
			begun := time.Now()
			for name, session := range c.ends {
				r.soon("without "+c.name+", the end of "+name, func() bool { return session() == http.StatusUnauthorized })
			}
			t.Logf("without %s after %v", c.name, time.Since(begun).Round(time.Millisecond))
			for name, session := range c.lets {
				if got := session(); got == http.StatusUnauthorized {
					t.Errorf("without %s, what is left, %s: %d", c.name, name, got)
				}
			}
		}
	})
}
