package graphapi_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/graphapi"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/storetest"
	"cove.example/cove/token"
)

// Who may, in words of the tables. A secret added to a principal is worth every
// role that it has, so who changes the directory must be able to give out any.
const (
	everybody = "noRole reader contributor groupOwner roleAdmin owner" // who is signed in, to this edge
	whoGrants = "roleAdmin owner"
)

// matrix says of each route who may and what they then get, in words of its own:
// what the table in route.go asks for is what is being tested. {app} and the
// like are objects of the directory.
var matrix = map[string]struct {
	target, body string
	may          string
	status       int
}{
	"GET me":                                    {"/me", "", everybody, 400}, // there is no person behind a program's token
	"POST directoryObjects/getByIds":            {"/directoryObjects/getByIds", `{"ids":["{app}"]}`, everybody, 200},
	"GET directoryObjects/*":                    {"/directoryObjects/{sp}", "", everybody, 200},
	"POST directoryObjects/*/checkMemberGroups": {"/directoryObjects/{user}/checkMemberGroups", `{"groupIds":["{group}"]}`, everybody, 200},
	"POST directoryObjects/*/getMemberGroups":   {"/directoryObjects/{user}/getMemberGroups", `{"securityEnabledOnly":false}`, everybody, 200},
	"GET groups/*/members":                      {"/groups/{group}/members", "", everybody, 200},
	"POST groups/*/members/$ref":                {"/groups/{group}/members/$ref", `{"@odata.id":"https://graph.cove.internal/v1.0/directoryObjects/{sp}"}`, whoGrants, 204},
	"DELETE groups/*/members/*/$ref":            {"/groups/{group}/members/{member}/$ref", "", whoGrants, 204},

	"GET applications":                                     {"/applications", "", everybody, 200},
	"POST applications":                                    {"/applications", `{"displayName":"x"}`, whoGrants, 201},
	"GET applications/*":                                   {"/applications/{app}", "", everybody, 200},
	"PATCH applications/*":                                 {"/applications/{app}", `{"displayName":"y"}`, whoGrants, 204},
	"DELETE applications/*":                                {"/applications/{app}", "", whoGrants, 204},
	"POST applications/*/addPassword":                      {"/applications/{app}/addPassword", `{"passwordCredential":{}}`, whoGrants, 200},
	"POST applications/*/removePassword":                   {"/applications/{app}/removePassword", `{"keyId":"{key}"}`, whoGrants, 204},
	"GET applications/*/federatedIdentityCredentials":      {"/applications/{app}/federatedIdentityCredentials", "", everybody, 200},
	"POST applications/*/federatedIdentityCredentials":     {"/applications/{app}/federatedIdentityCredentials", federation("new"), whoGrants, 201},
	"GET applications/*/federatedIdentityCredentials/*":    {"/applications/{app}/federatedIdentityCredentials/{federation}", "", everybody, 200},
	"PATCH applications/*/federatedIdentityCredentials/*":  {"/applications/{app}/federatedIdentityCredentials/{federation}", `{"description":"y"}`, whoGrants, 204},
	"DELETE applications/*/federatedIdentityCredentials/*": {"/applications/{app}/federatedIdentityCredentials/{federation}", "", whoGrants, 204},

	"GET servicePrincipals":                   {"/servicePrincipals", "", everybody, 200},
	"POST servicePrincipals":                  {"/servicePrincipals", `{"appId":"{client}"}`, whoGrants, 201},
	"GET servicePrincipals/*":                 {"/servicePrincipals/{sp}", "", everybody, 200},
	"PATCH servicePrincipals/*":               {"/servicePrincipals/{sp}", `{"accountEnabled":false}`, whoGrants, 204},
	"DELETE servicePrincipals/*":              {"/servicePrincipals/{sp}", "", whoGrants, 204},
	"POST servicePrincipals/*/addPassword":    {"/servicePrincipals/{sp}/addPassword", `{"passwordCredential":{}}`, whoGrants, 200},
	"POST servicePrincipals/*/removePassword": {"/servicePrincipals/{sp}/removePassword", `{"keyId":"{spKey}"}`, whoGrants, 204},

	"GET users":                    {"/users", "", everybody, 200},
	"POST users":                   {"/users", person("{new}"), whoGrants, 201},
	"GET users/*":                  {"/users/{user}", "", everybody, 200},
	"PATCH users/*":                {"/users/{user}", `{"displayName":"y"}`, whoGrants, 204},
	"DELETE users/*":               {"/users/{user}", "", whoGrants, 204},
	"POST users/*/getMemberGroups": {"/users/{user}/getMemberGroups", `{"securityEnabledOnly":false}`, everybody, 200},

	"GET groups":                    {"/groups", "", everybody, 200},
	"POST groups":                   {"/groups", `{"displayName":"x","mailEnabled":false,"mailNickname":"x","securityEnabled":true}`, whoGrants, 201},
	"GET groups/*":                  {"/groups/{group}", "", everybody, 200},
	"PATCH groups/*":                {"/groups/{group}", `{"displayName":"y"}`, whoGrants, 204},
	"DELETE groups/*":               {"/groups/{group}", "", whoGrants, 204},
	"POST groups/*/getMemberGroups": {"/groups/{group}/getMemberGroups", `{"securityEnabledOnly":false}`, everybody, 200},
}

func federation(name string) string {
	return `{"name":"` + name + `","issuer":"https://issuer.example","subject":"s-` + name + `","audiences":["api://AzureADTokenExchange"]}`
}

func person(name string) string {
	return `{"accountEnabled":true,"displayName":"x","mailNickname":"x","userPrincipalName":"` + name + `@cove.internal","passwordProfile":{"password":"correct horse"}}`
}

// objects makes one object of each sort, and says what the tables call them.
func (s *site) objects(n int) *strings.Replacer {
	s.Helper()
	name := fmt.Sprint("n", n)
	app := s.do(201, "POST", "/applications", `{"displayName":"`+name+`"}`)
	bare := s.do(201, "POST", "/applications", `{"displayName":"`+name+`"}`)
	sp := s.do(201, "POST", "/servicePrincipals", `{"appId":"`+app.str("appId")+`"}`)
	key := s.do(200, "POST", "/applications/"+app.str("id")+"/addPassword", `{"passwordCredential":{}}`)
	spKey := s.do(200, "POST", "/servicePrincipals/"+sp.str("id")+"/addPassword", `{"passwordCredential":{}}`)
	fed := s.do(201, "POST", "/applications/"+app.str("id")+"/federatedIdentityCredentials", federation("old"))
	user := s.do(201, "POST", "/users", person(name))
	group := s.do(201, "POST", "/groups", `{"displayName":"`+name+`","mailEnabled":false,"mailNickname":"x","securityEnabled":true}`)
	s.do(204, "POST", "/groups/"+group.str("id")+"/members/$ref", `{"@odata.id":"`+audience+`/v1.0/directoryObjects/`+user.str("id")+`"}`)
	return strings.NewReplacer(
		"{app}", app.str("id"), "{client}", bare.str("appId"), "{sp}", sp.str("id"), "{key}", key.str("keyId"), "{spKey}", spKey.str("keyId"),
		"{federation}", fed.str("id"), "{user}", user.str("id"), "{member}", user.str("id"), "{group}", group.str("id"), "{new}", "new-"+name)
}

// Every route against every kind of caller, over HTTP, from the table that
// serves: a route without a line in the matrix fails, so that none is added
// without a decision about who may. A caller who may not changes nothing.
//
// Published failures 14, 16, 43, 49.
func TestRoutesAndPrincipals(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	s := open(t, db)
	subscription := resource.SubscriptionID(s.admin.Subscription)
	holding := func(role, scope string) string {
		_, cred := directory.NewSecret("x", s.now, time.Hour)
		c := directory.Client{Principal: directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: s.admin.Tenant, Kind: directory.ServicePrincipal}, Credentials: []directory.Credential{cred}}
		s.must(s.ident.Create(t.Context(), c))
		if role != "" {
			at := subscription
			if scope != "" {
				at = arm.MustID(subscription.String() + "/resourceGroups/" + scope)
			}
			s.must(policy.Grant(t.Context(), s.docs, c.ObjectID, policy.BuiltinByName(role).ID, at))
		}
		return s.bearer(c.ObjectID, c.AppID, audience)
	}
	owners := token.RegistryClaims{
		Audience: "harbor.cr.cove.internal", RegistryUID: "u", Subject: s.admin.ClientID, ObjectID: s.admin.ObjectID, Tenant: s.admin.Tenant, Kind: "servicePrincipal", Mode: "m",
		Access: []token.Access{{Type: "registry", Name: "catalog", Actions: []string{"*"}}},
	}
	access, _, err := s.tokens.MintRegistry(owners, time.Time{})
	s.must(err)
	refresh, _, err := s.tokens.MintRefresh(owners)
	s.must(err)
	elsewhere, _, err := s.tokens.MintPrincipal(token.PrincipalClaims{Audience: audience, ObjectID: s.admin.ObjectID, Tenant: directory.NewID(), AppID: s.admin.ClientID})
	s.must(err)

	var seen int64
	changes := func() int { // since it was asked last
		list, err := db.Changes(t.Context(), seen, 1000)
		s.must(err)
		if len(list) > 0 {
			seen = list[len(list)-1].Seq
		}
		return len(list)
	}
	shared := s.objects(0)
	n := 0
	for _, who := range []struct{ name, bearer string }{
		{"nobody", ""},
		{"not a token", "x"},
		{"wrong audience", s.bearer(s.admin.ObjectID, s.admin.ClientID, "https://management.cove.internal")},
		{"wrong tenant", elsewhere},
		{"gone", s.bearer(directory.NewID(), directory.NewID(), audience)},
		{"registry token", access},
		{"registry refresh token", refresh},
		{"noRole", holding("", "")},
		{"reader", holding("Reader", "")},
		{"contributor", holding("Contributor", "")},
		{"groupOwner", holding("Owner", "prod")},
		{"roleAdmin", holding("Role Based Access Control Administrator", "")},
		{"owner", holding("Owner", "")},
	} {
		for _, route := range graphapi.Routes() {
			m, ok := matrix[route]
			if got := graphapi.RouteOf(strings.Fields(route)[0], shared.Replace(m.target)); !ok || got != route {
				t.Errorf("%s has no line in the matrix, or one that is another route's (%q)", route, got)
				continue
			}
			method, _, _ := strings.Cut(route, " ")
			may := strings.Contains(" "+m.may+" ", " "+who.name+" ")
			with := shared
			if may && m.may != everybody {
				n++
				with = s.objects(n)
			}
			changes()
			a := s.as(who.bearer, method, "/v1.0"+with.Replace(m.target), with.Replace(m.body))
			want := m.status
			switch {
			case may:
			case strings.Contains(" "+everybody+" ", " "+who.name+" "):
				want = http.StatusForbidden
			default:
				want = http.StatusUnauthorized
			}
			if a.status != want {
				t.Errorf("%s, %s: %d %s, want %d", who.name, route, a.status, a.text, want)
			}
			if changed := changes() > 0; changed != (may && m.may != everybody) {
				t.Errorf("%s, %s: changed something: %v", who.name, route, changed)
			}
			if !may && regexp.MustCompile(`n0|"id"`).MatchString(a.text) {
				t.Errorf("%s, %s: a refusal tells what is there: %s", who.name, route, a.text)
			}
		}
	}
	if len(matrix) != len(graphapi.Routes()) {
		t.Errorf("%d lines for %d routes", len(matrix), len(graphapi.Routes()))
	}
}
