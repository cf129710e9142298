package graphapi_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

func certificate(t *testing.T, key any, public any, until time.Time) string {
	t.Helper()
	plate := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, plate, plate, public, key)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(der)
}

// az sends the whole list of certificates: what it got without keys, and what
// it adds with one. What it leaves out ends.
func TestCertificatesOfAnApplication(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	year := time.Now().Add(365 * 24 * time.Hour)
	good, other := certificate(t, key, key.Public(), year), certificate(t, key, key.Public(), year.Add(time.Hour))
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		one := func(id, der string) string {
			return fmt.Sprintf(`{"@odata.type":"#microsoft.graph.keyCredential","displayName":"c","key":%q,"keyId":%q,"type":"AsymmetricX509Cert","usage":"Verify","startDateTime":"2020-01-01T00:00:00Z","endDateTime":"2150-01-01T00:00:00Z"}`, der, id)
		}
		first, second := directory.NewID(), directory.NewID()
		app := s.do(201, "POST", "/applications", `{"displayName":"ci","keyCredentials":[`+one(first, good[:70]+"\n"+good[70:])+`]}`)
		if !strings.Contains(app.text, first) || strings.Contains(app.text, good) {
			t.Fatal(app.text)
		}
		at := "/applications/" + app.str("id")
		creds := func() (out []directory.Credential) {
			o, err := s.dir.Object(t.Context(), app.str("id"))
			s.must(err)
			return o.Credentials
		}
		if c := creds(); len(c) != 1 || c[0].Kind != directory.KindCertificate || c[0].End.After(year) {
			t.Errorf("%+v", c)
		}
		s.do(204, "PATCH", at, `{"keyCredentials":[{"keyId":"`+strings.ToUpper(first)+`","key":null},`+one(second, other)+`]}`)
		if c := creds(); len(c) != 2 {
			t.Errorf("%+v", c)
		}
		for name, wrong := range map[string]string{
			"one that is not there": `{"keyId":"` + directory.NewID() + `","key":null}`,
			"a weak key":            one("", certificate(t, weak, weak.Public(), year)),
			"an elliptic key":       one("", certificate(t, curve, curve.Public(), year)),
			"one that has ended":    one("", certificate(t, key, key.Public(), time.Now().Add(-time.Minute))),
			"no base64":             one("", "%%%"),
			"no certificate":        one("", "AAAA"),
			"for encryption":        strings.Replace(one("", other), "Verify", "Encrypt", 1),
			"a symmetric key":       strings.Replace(one("", other), "AsymmetricX509Cert", "Symmetric", 1),
			"no GUID":               one("x", other),
		} {
			if a := s.do(400, "PATCH", at, `{"keyCredentials":[`+wrong+`]}`); a.code() != "Request_BadRequest" {
				t.Errorf("%s: %s", name, a.text)
			}
		}
		s.do(204, "PATCH", at, `{"displayName":"renamed"}`)
		if c := creds(); len(c) != 2 {
			t.Errorf("a change of something else: %+v", c)
		}
		s.do(204, "PATCH", at, `{"keyCredentials":[]}`)
		if c := creds(); len(c) != 0 {
			t.Errorf("%+v", c)
		}
	})
}

// Federated credentials, in the requests of `az ad app federated-credential`.
func TestFederatedCredentials(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		at := "/applications/" + s.do(201, "POST", "/applications", `{"displayName":"ci"}`).str("id") + "/federatedIdentityCredentials"
		const good = `{"name":"main","issuer":"https://token.actions.githubusercontent.com","subject":"repo:org/app:ref:refs/heads/main","description":"d","audiences":["api://AzureADTokenExchange"]}`
		one := s.do(201, "POST", at, good)
		if one.str("name") != "main" || one.str("description") != "d" || !directory.IsID(one.str("id")) {
			t.Fatal(one.text)
		}
		for _, named := range []string{"main", "MAIN", one.str("id")} {
			if a := s.do(200, "GET", at+"/"+named, ""); a.str("subject") != "repo:org/app:ref:refs/heads/main" {
				t.Error(a.text)
			}
		}
		s.do(409, "POST", at, good)
		s.do(409, "POST", at, strings.Replace(good, `"main"`, `"other"`, 1))
		s.do(204, "PATCH", at+"/main", `{"subject":"repo:org/app:pull_request"}`)
		if a := s.do(200, "GET", at+"/"+one.str("id"), ""); a.str("subject") != "repo:org/app:pull_request" || a.str("issuer") == "" {
			t.Error(a.text)
		}
		s.do(201, "POST", at, strings.Replace(good, `"main"`, `"other"`, 1))
		for name, wrong := range map[string]string{
			"plain http":        strings.Replace(good, "https", "http", 1),
			"no audience":       strings.Replace(good, `"api://AzureADTokenExchange"`, "", 1),
			"two audiences":     strings.Replace(good, `"api://AzureADTokenExchange"`, `"a","b"`, 1),
			"a number":          strings.Replace(good, `"d"`, "1", 1),
			"a name of a space": strings.Replace(good, `"main"`, `"a b c"`, 1),
			"no subject":        strings.Replace(good, `"subject"`, `"object"`, 1),
		} {
			if a := s.do(400, "POST", at, wrong); a.code() != "Request_BadRequest" {
				t.Errorf("%s: %s", name, a.text)
			}
		}
		s.do(400, "PATCH", at+"/main", `{"name":"renamed"}`)
		s.do(404, "DELETE", at+"/nothing", "")
		s.do(204, "DELETE", at+"/main", "")
		if list, _ := s.do(200, "GET", at, "").body["value"].([]any); len(list) != 1 {
			t.Error(list)
		}
	})
}

// A managed identity is shown as one; its secrets are nobody's to make, and it
// goes with its resource and not before.
func TestAManagedIdentityIsItsResources(t *testing.T) {
	s := open(t, storetest.Open(t, storetest.SQLite(t)))
	const owner = "/subscriptions/s/resourceGroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller"
	who := directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: s.admin.Tenant, Kind: directory.ServicePrincipal, Name: "puller", Managed: owner}
	s.must(s.docs.Update(t.Context(), func(tx resource.Tx) error {
		return s.ident.AddIn(context.Background(), tx, directory.Object{Principal: who})
	}))
	at := "/servicePrincipals/" + who.ObjectID
	if a := s.do(200, "GET", at, ""); a.str("servicePrincipalType") != "ManagedIdentity" || !strings.Contains(a.text, `["isExplicit=True","`+owner+`"]`) {
		t.Error(a.text)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	s.must(err)
	for _, c := range []struct{ method, path, body string }{
		{"POST", at + "/addPassword", `{"passwordCredential":{}}`},
		{"PATCH", at, `{"keyCredentials":[{"key":"` + certificate(t, key, key.Public(), time.Now().Add(time.Hour)) + `"}]}`},
		{"PATCH", at, `{"displayName":"mine"}`},
		{"DELETE", at, ""},
	} {
		if a := s.do(403, c.method, c.path, c.body); !strings.Contains(a.message(), "through the resource") {
			t.Errorf("%s %s: %s", c.method, c.path, a.text)
		}
	}
	s.do(204, "PATCH", at, `{"accountEnabled":false}`)
	if a := s.do(200, "GET", at, ""); a.body["accountEnabled"] != false {
		t.Error(a.text)
	}
}

// What a federated credential has bought ends when it is changed to stand for
// somebody else, although its id stays (published failure 50).
func TestAChangedFederationEndsWhatItBought(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		app := s.do(201, "POST", "/applications", `{"displayName":"ci"}`)
		s.do(201, "POST", "/servicePrincipals", `{"appId":"`+app.str("appId")+`"}`)
		at := "/applications/" + app.str("id") + "/federatedIdentityCredentials"
		s.do(201, "POST", at, `{"name":"main","issuer":"https://token.actions.githubusercontent.com","subject":"repo:org/app:ref:refs/heads/main","audiences":["api://AzureADTokenExchange"]}`)
		buy := func() directory.SignIn {
			in, err := s.dir.Verify(t.Context(), app.str("appId"), func(c *directory.Client) (directory.Credential, error) {
				for _, k := range c.Credentials {
					if k.Kind == directory.KindFederated {
						return k, nil
					}
				}
				return directory.Credential{}, directory.ErrSecret
			})
			s.must(err)
			return in
		}
		in := buy()
		good := func(in directory.SignIn) bool {
			_, err := s.dir.Standing(t.Context(), in.ObjectID, in.KeyID)
			if err != nil && !errors.Is(err, directory.ErrUnknown) {
				t.Error(err)
			}
			return err == nil
		}
		s.do(204, "PATCH", at+"/main", `{"description":"what it is for"}`)
		if !good(in) {
			t.Error("another description ends what was bought")
		}
		for _, change := range []string{`{"subject":"repo:org/app:pull_request"}`, `{"issuer":"https://oidc.example.internal"}`, `{"audiences":["api://other"]}`} {
			in := buy()
			s.do(204, "PATCH", at+"/main", change)
			if good(in) || !good(buy()) {
				t.Errorf("after %s: %v, and %v", change, good(in), good(buy()))
			}
		}
	})
}

// Failures 12 and 16: a body cannot set what is the server's, and an object of
// another tenant is not there, whoever's id is known.
func TestBodiesAndIDsGiveNoRights(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		other := directory.NewID()
		const more = `"id":"%s","tenant":"%s","tenantId":"%s","kind":"group","role":"Owner","isAdmin":true,"managed":"/x","createdDateTime":"2001-01-01T00:00:00Z","owners":["%[1]s"],"memberOf":["%[1]s"],"roles":["Owner"]`
		extra := fmt.Sprintf(more, other, other, other)
		made := map[string]answer{
			"applications": s.do(201, "POST", "/applications", `{"displayName":"a",`+extra+`}`),
			"users":        s.do(201, "POST", "/users", `{"accountEnabled":true,"displayName":"u","mailNickname":"u","userPrincipalName":"u@cove.internal","passwordProfile":{"password":"correct horse"},`+extra+`}`),
			"groups":       s.do(201, "POST", "/groups", `{"displayName":"g","mailEnabled":false,"mailNickname":"g","securityEnabled":true,`+extra+`}`),
		}
		for set, a := range made {
			o, err := s.dir.Object(t.Context(), a.str("id"))
			s.must(err)
			if a.str("id") == other || o.Tenant != s.admin.Tenant || o.Kind+"s" != set || o.Managed != "" || o.Created.Year() == 2001 {
				t.Errorf("%s: %s %+v", set, a.text, o)
			}
			s.as(s.bearer(s.admin.ObjectID, s.admin.ClientID, audience), "PATCH", "/v1.0/"+set+"/"+a.str("id"), `{`+extra+`}`)
			if after, err := s.dir.Object(t.Context(), a.str("id")); err != nil || after.Principal != o.Principal {
				t.Errorf("%s after a change: %+v %v", set, after.Principal, err)
			}
			groups, err := s.dir.Groups(t.Context(), a.str("id"))
			if err != nil || len(groups) > 1 { // itself, where it is one
				t.Errorf("%s is in %v, %v", set, groups, err)
			}
		}
		if a := s.as(s.bearer(made["users"].str("id"), azCLI, audience), "POST", "/v1.0/groups", `{"displayName":"h","mailEnabled":false,"mailNickname":"h","securityEnabled":true}`); a.status != 403 {
			t.Errorf("a new person writes the directory: %d %s", a.status, a.text)
		}

		foreign := map[string]directory.Object{}
		for set, kind := range map[string]string{"applications": directory.Application, "servicePrincipals": directory.ServicePrincipal, "users": directory.User, "groups": directory.Group} {
			o := directory.Object{Principal: directory.Principal{ObjectID: directory.NewID(), Tenant: other, Kind: kind, Name: "theirs"}}
			if kind == directory.User {
				o.UPN = "theirs@other.internal"
			} else if kind != directory.Group {
				o.AppID = directory.NewID()
			}
			s.must(s.dir.Add(t.Context(), o))
			foreign[set] = o
		}
		group := made["groups"].str("id")
		for set, o := range foreign {
			at := "/" + set + "/" + o.ObjectID
			for _, c := range [][2]string{{"GET", at}, {"PATCH", at}, {"DELETE", at}, {"POST", at + "/addPassword"}, {"GET", at + "/federatedIdentityCredentials"}, {"GET", at + "/members"}, {"GET", "/directoryObjects/" + o.ObjectID}} {
				a := s.as(s.bearer(s.admin.ObjectID, s.admin.ClientID, audience), c[0], "/v1.0"+c[1], `{"displayName":"mine"}`)
				if a.status != 404 || strings.Contains(a.text, "theirs") {
					t.Errorf("%s %s: %d %s", c[0], set, a.status, a.text)
				}
			}
			if a := s.as(s.bearer(s.admin.ObjectID, s.admin.ClientID, audience), "POST", "/v1.0/groups/"+group+"/members/$ref", `{"@odata.id":"https://`+host+`/v1.0/directoryObjects/`+o.ObjectID+`"}`); a.status/100 != 4 {
				t.Errorf("%s of another tenant is made a member: %d %s", set, a.status, a.text)
			}
			if a := s.do(200, "GET", "/"+set, ""); strings.Contains(a.text, "theirs") {
				t.Errorf("%s are listed: %s", set, a.text)
			}
			if a := s.do(200, "POST", "/directoryObjects/getByIds", `{"ids":["`+o.ObjectID+`","`+group+`"]}`); strings.Contains(a.text, "theirs") || !strings.Contains(a.text, group) {
				t.Errorf("%s are found by their ids: %s", set, a.text)
			}
			if after, err := s.dir.Object(t.Context(), o.ObjectID); err != nil || after.Name != "theirs" || len(after.Credentials) != 0 {
				t.Errorf("%s: %+v %v", set, after, err)
			}
		}
	})
}

// Failure 45: a change that could not be written is never called a success.
//
// Published failure 45.
func TestAFailedRevocationIsNoSuccess(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		app := s.do(201, "POST", "/applications", `{"displayName":"a"}`)
		sp := s.do(201, "POST", "/servicePrincipals", `{"appId":"`+app.str("appId")+`"}`)
		secret := s.do(200, "POST", "/applications/"+app.str("id")+"/addPassword", `{"passwordCredential":{}}`)
		user := s.do(201, "POST", "/users", `{"accountEnabled":true,"displayName":"u","mailNickname":"u","userPrincipalName":"u@cove.internal","passwordProfile":{"password":"correct horse"}}`)
		group := s.do(201, "POST", "/groups", `{"displayName":"g","mailEnabled":false,"mailNickname":"g","securityEnabled":true}`)
		s.do(204, "POST", "/groups/"+group.str("id")+"/members/$ref", `{"@odata.id":"https://`+host+`/v1.0/directoryObjects/`+user.str("id")+`"}`)
		bearer := s.bearer(s.admin.ObjectID, s.admin.ClientID, audience)
		s.must(db.Close())
		for _, c := range [][3]string{
			{"POST", "/applications/" + app.str("id") + "/removePassword", `{"keyId":"` + secret.str("keyId") + `"}`},
			{"PATCH", "/servicePrincipals/" + sp.str("id"), `{"accountEnabled":false}`},
			{"PATCH", "/users/" + user.str("id"), `{"passwordProfile":{"password":"battery staple"}}`},
			{"DELETE", "/servicePrincipals/" + sp.str("id"), ""},
			{"DELETE", "/applications/" + app.str("id"), ""},
			{"DELETE", "/users/" + user.str("id"), ""},
			{"DELETE", "/groups/" + group.str("id") + "/members/" + user.str("id") + "/$ref", ""},
			{"DELETE", "/groups/" + group.str("id"), ""},
		} {
			if a := s.as(bearer, c[0], "/v1.0"+c[1], c[2]); a.status < 500 {
				t.Errorf("%s %s without a database: %d %s", c[0], c[1], a.status, a.text)
			}
		}
		if err := s.tokens.Keys().Rotate(t.Context(), token.Issuer); err == nil {
			t.Error("a key is rotated without a database")
		}
		for _, k := range s.tokens.Keys().JWKS().Keys {
			if err := s.tokens.Keys().Revoke(t.Context(), k.KeyID); err == nil {
				t.Error("a key is revoked without a database")
			}
		}
	})
}

const azCLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"
