package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/armapi"
	"cove.example/cove/audit"
	"cove.example/cove/directory"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/token"
)

// holders hold a role on the subscription, or none; the columns of the tables.
var holders = []string{"", "AcrPull", "Reader", "Contributor", "Owner"}

// routeMatrix says of each listed route of the Resource Manager what holders
// get. 400 and 404 are theirs who may: nothing is where the requests point, and
// no body says anything. One number is everybody's, signed in or not.
var routeMatrix = map[string]string{
	"POST /cove/join":         "400", // the code in the body says who it is
	"GET /metadata/endpoints": "200",

	// Whoever is signed in: each shows what the caller may read, and no more.
	"GET /subscriptions": "200 200 200 200 200",
	"GET /tenants":       "200 200 200 200 200",
	"GET /subscriptions/{subscription}/providers/Cove.Diagnostics/decisions/{id}":                                "400 400 400 400 400",
	"GET /subscriptions/{subscription}/providers/Cove.Diagnostics/events":                                        "200 200 200 200 200",
	"GET /subscriptions/{subscription}/providers/Cove.Diagnostics/findings":                                      "200 200 200 200 200",
	"POST /subscriptions/{subscription}/providers/Cove.Diagnostics/can":                                          "400 400 400 400 400",
	"POST /subscriptions/{subscription}/providers/Cove.Diagnostics/who":                                          "400 400 400 400 400",
	"POST /subscriptions/{subscription}/providers/Cove.Diagnostics/flips":                                        "400 400 400 400 400",
	"GET /subscriptions/{subscription}/providers/Microsoft.Insights/eventtypes/management/values":                "200 200 200 200 200",
	"GET /subscriptions/{subscription}/providers/{namespace}/locations/{location}/operationStatuses/{operation}": "404 404 404 404 404",
	"GET /subscriptions/{subscription}/providers/{namespace}/locations/{location}/operationResults/{operation}":  "404 404 404 404 404",
	"GET /subscriptions/{subscription}/providers/Microsoft.Insights/logs":                                        "400 400 400 400 400",
	"POST /subscriptions/{subscription}/providers/Microsoft.Insights/logs":                                       "400 400 400 400 400",
	"GET " + inGroup + "/providers/Microsoft.Insights/logs":                                                      "400 400 400 400 400",
	"POST " + inGroup + "/providers/Microsoft.Insights/logs":                                                     "400 400 400 400 400",
	"GET " + aRegistry + "/providers/Microsoft.Insights/logs":                                                    "400 400 400 400 400",
	"POST " + aRegistry + "/providers/Microsoft.Insights/logs":                                                   "400 400 400 400 400",
	"GET " + inGroup + "/providers/Microsoft.OperationalInsights/workspaces/{workspace}/query":                   "404 404 404 404 404",
	"POST " + inGroup + "/providers/Microsoft.OperationalInsights/workspaces/{workspace}/query":                  "400 400 400 400 400",
	"GET " + inGroup + "/providers/Microsoft.OperationalInsights/workspaces/{workspace}/api/query":               "404 404 404 404 404",
	"POST " + inGroup + "/providers/Microsoft.OperationalInsights/workspaces/{workspace}/api/query":              "400 400 400 400 400",

	// Whoever holds any role in the subscription.
	"GET /subscriptions/{subscription}":                       "403 200 200 200 200",
	"GET /subscriptions/{subscription}/locations":             "403 200 200 200 200",
	"GET /subscriptions/{subscription}/resources":             "403 200 200 200 200",
	"GET /subscriptions/{subscription}/providers":             "403 200 200 200 200",
	"GET /subscriptions/{subscription}/providers/{namespace}": "403 404 404 404 404",

	// Whoever may read.
	"GET " + inGroup + "/resources":                                                                  "403 403 404 404 404",
	"GET " + inGroup + "/providers/Microsoft.Network/privateDnsZones/{zone}/ALL":                     "403 403 404 404 404",
	"GET " + inGroup + "/providers/Microsoft.Network/privateDnsZones/{zone}/recordsets":              "403 403 404 404 404",
	"GET " + aRegistry + "/providers/Microsoft.Insights/diagnosticSettingsCategories":                "403 403 404 404 404",
	"GET " + aRegistry + "/providers/Microsoft.Insights/diagnosticSettingsCategories/{category}":     "403 403 404 404 404",
	"GET /subscriptions/{subscription}/providers/Microsoft.Network/locations/{location}/serviceTags": "403 403 400 400 400",
	"POST /subscriptions/{subscription}/providers/Microsoft.ContainerRegistry/checkNameAvailability": "403 403 400 400 400",

	// Whoever may write.
	"POST /subscriptions/{subscription}/providers/{namespace}/register":                    "403 403 403 404 404",
	"POST /subscriptions/{subscription}/providers/{namespace}/unregister":                  "403 403 403 404 404",
	"POST " + inGroup + "/providers/Microsoft.Resources/deployments/{deployment}/validate": "403 403 403 400 400",
}

const (
	inGroup   = "/subscriptions/{subscription}/resourceGroups/{group}"
	aRegistry = inGroup + "/providers/Microsoft.ContainerRegistry/registries/{registry}"
)

// rights are who may read and write a type, and who may do each of its actions.
// What is not in actions is a computed list, which who may read may read.
type rights struct {
	read, write string
	actions     map[string]string
}

const (
	readers = "Reader Contributor Owner"
	writers = "Contributor Owner"
)

var (
	ordinary = rights{readers, writers, nil}
	granted  = rights{readers, "Owner", nil} // who may write these may do everything
)

// typeMatrix says of each type of resource who may do what with one.
var typeMatrix = map[string]rights{
	"Cove.Diagnostics/sinks":                  ordinary,
	"Cove.Network/members":                    ordinary,
	"Microsoft.Authorization/locks":           granted,
	"Microsoft.Authorization/roleAssignments": granted,
	"Microsoft.Authorization/roleDefinitions": granted,
	"Microsoft.ContainerRegistry/registries": {readers, writers, map[string]string{
		"generateCredentials": writers, "importImage": writers, "listCredentials": writers, "regenerateCredential": writers,
	}},
	"Microsoft.ContainerRegistry/registries/privateEndpointConnections":             ordinary,
	"Microsoft.ContainerRegistry/registries/replications":                           ordinary,
	"Microsoft.ContainerRegistry/registries/scopeMaps":                              ordinary,
	"Microsoft.ContainerRegistry/registries/tokens":                                 ordinary,
	"Microsoft.Insights/diagnosticSettings":                                         ordinary,
	"Microsoft.ManagedIdentity/userAssignedIdentities":                              ordinary,
	"Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials": ordinary,
	"Microsoft.Network/networkInterfaces":                                           ordinary,
	"Microsoft.Network/networkSecurityGroups":                                       ordinary,
	"Microsoft.Network/networkSecurityGroups/securityRules":                         ordinary,
	"Microsoft.Network/privateDnsZones":                                             ordinary,
	"Microsoft.Network/privateDnsZones/A":                                           ordinary,
	"Microsoft.Network/privateDnsZones/AAAA":                                        ordinary,
	"Microsoft.Network/privateDnsZones/CNAME":                                       ordinary,
	"Microsoft.Network/privateDnsZones/MX":                                          ordinary,
	"Microsoft.Network/privateDnsZones/PTR":                                         ordinary,
	"Microsoft.Network/privateDnsZones/SOA":                                         ordinary,
	"Microsoft.Network/privateDnsZones/SRV":                                         ordinary,
	"Microsoft.Network/privateDnsZones/TXT":                                         ordinary,
	"Microsoft.Network/privateDnsZones/virtualNetworkLinks":                         ordinary,
	"Microsoft.Network/privateEndpoints":                                            ordinary,
	"Microsoft.Network/privateEndpoints/privateDnsZoneGroups":                       ordinary,
	"Microsoft.Network/virtualNetworks":                                             ordinary,
	"Microsoft.Network/virtualNetworks/subnets":                                     {readers, writers, map[string]string{"joinCode": writers}},
	"Microsoft.Network/virtualNetworks/virtualNetworkPeerings":                      ordinary,
	"Microsoft.OperationalInsights/workspaces":                                      ordinary,
}

// assembled is a server as `cove serve` puts it together, which answers nobody
// yet.
func assembled(t *testing.T) *server {
	t.Helper()
	c, err := settled(t, "", nil, "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--wireguard", "127.0.0.1:0", "--domain", "cove.internal")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{config: c, log: slog.New(slog.DiscardHandler), now: time.Now}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	if err := errors.Join(s.openData(t.Context()), s.openListeners(t.Context()), s.openStore(t.Context()), s.found(t.Context()), s.subscribe(t.Context())); err != nil {
		t.Fatal(err)
	}
	if err := s.assemble(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

// caller is somebody who asks the Resource Manager.
type caller struct {
	name, bearer string
	known        bool // a principal of the tenant, with a token for here
}

// callers are everybody: first who is nobody here, then holders.
func (s *server) callers(t *testing.T, subscription, tenant string) (out []caller) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	audience := endpointURL(s.config.HostManagement)
	principal := func(role string) directory.Principal {
		_, cred := directory.NewSecret("x", s.now(), time.Hour)
		c := directory.Client{Principal: directory.Principal{ObjectID: directory.NewID(), AppID: directory.NewID(), Tenant: tenant, Kind: directory.ServicePrincipal}, Credentials: []directory.Credential{cred}}
		must(s.identity.Create(t.Context(), c))
		if role != "" {
			must(policy.Grant(t.Context(), s.resources, c.ObjectID, policy.BuiltinByName(role).ID, resource.SubscriptionID(subscription)))
		}
		return c.Principal
	}
	owner := principal("Owner")
	issued := func(p directory.Principal, audience, tenant string) string {
		raw, _, err := s.tokens.MintPrincipal(token.PrincipalClaims{Audience: audience, ObjectID: p.ObjectID, Tenant: tenant, AppID: p.AppID})
		must(err)
		return raw
	}
	claims := token.RegistryClaims{
		Audience: "harbor.cr.cove.internal", RegistryUID: "u", Subject: owner.AppID, ObjectID: owner.ObjectID, Tenant: tenant, Kind: "servicePrincipal", Mode: "m",
		Access: []token.Access{{Type: "registry", Name: "catalog", Actions: []string{"*"}}},
	}
	access, _, err := s.tokens.MintRegistry(claims, time.Time{})
	must(err)
	refresh, _, err := s.tokens.MintRefresh(claims)
	must(err)
	out = []caller{
		{"nobody", "", false},
		{"what is no token", "x", false},
		{"an owner, for the directory", issued(owner, endpointURL(s.config.HostGraph), tenant), false},
		{"an owner, for registries", issued(owner, registryAudience, tenant), false},
		{"an owner, as of another tenant", issued(owner, audience, directory.NewID()), false},
		{"an owner who is gone", issued(directory.Principal{ObjectID: directory.NewID(), AppID: owner.AppID}, audience, tenant), false},
		{"the holder of a registry's token", access, false},
		{"the holder of a registry's refresh token", refresh, false},
	}
	for _, role := range holders {
		out = append(out, caller{role, issued(principal(role), audience, tenant), true})
	}
	return out
}

// asks sends a request and returns its answer.
func (c caller) asks(t *testing.T, web *httptest.Server, method, target, body string) (status int, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, web.URL+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	}
	r, err := web.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

var parameters = regexp.MustCompile(`\{[^}]*\}`)

// managed serves a server's Resource Manager, and says where its first
// subscription is and of which tenant.
func managed(t *testing.T, s *server) (manage *armapi.Server, web *httptest.Server, at arm.ID, tenant string) {
	t.Helper()
	manage, ok := s.router.Hosts[s.config.HostManagement].(*armapi.Server)
	if !ok {
		t.Fatal("the Resource Manager is another")
	}
	web = httptest.NewTLSServer(manage)
	t.Cleanup(web.Close)
	at, err := s.subscription(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if tenant, err = s.tenant(t.Context()); err != nil {
		t.Fatal(err)
	}
	return manage, web, at, tenant
}

// Every route of the Resource Manager, every verb on every type of resource and
// every action, against every kind of caller, over HTTP, from the tables of the
// server as it is put together: one that is added without a line here fails.
// Who may not learns nothing and changes nothing.
//
// Published failures 14, 16, 43, 49.
func TestRoutesAndPrincipals(t *testing.T) {
	s := assembled(t)
	manage, web, at, tenant := managed(t, s)
	do := func(who caller, method, target string) int {
		t.Helper()
		body := ""
		if method == http.MethodPut || method == http.MethodPost || method == http.MethodPatch {
			body = "{}"
		}
		status, _ := who.asks(t, web, method, target+"?api-version=2025-04-01", body)
		return status
	}
	changes := func() int {
		list, err := s.db.Changes(t.Context(), 0, 10_000)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}

	group := at.String() + "/resourceGroups/prod"
	everyone := s.callers(t, at.Subscription(), tenant)
	routes := manage.Routes()
	types := slices.DeleteFunc(s.service.Types(), func(typ string) bool { return strings.HasPrefix(typ, "Microsoft.Resources/") })
	before := changes()
	for _, who := range everyone {
		if slices.Contains(strings.Fields(writers), who.name) && before >= 0 {
			if n := changes(); n != before {
				t.Errorf("who may write nothing made %d changes", n-before)
			}
			before = -1
		}
		for _, r := range routes {
			name := r.Method + " " + r.Pattern
			row := strings.Fields(routeMatrix[name])
			if len(row) != 1 && len(row) != len(holders) {
				t.Errorf("%s has no line in the matrix", name)
				continue
			}
			want := fmt.Sprint(http.StatusUnauthorized)
			switch i := slices.Index(holders, who.name); {
			case len(row) == 1:
				want = row[0]
			case who.known:
				want = row[i]
			}
			target := parameters.ReplaceAllStringFunc(r.Pattern, func(p string) string {
				switch p {
				case "{subscription}":
					return at.Subscription()
				case "{group}":
					return "prod"
				}
				return "x"
			})
			if got := fmt.Sprint(do(who, r.Method, target)); got != want {
				t.Errorf("%s, %s: %s, want %s", who.name, name, got, want)
			}
		}
		for _, typ := range types {
			row, ok := typeMatrix[typ]
			if !ok {
				t.Errorf("%s has no line in the matrix", typ)
				continue
			}
			namespace, rest, _ := strings.Cut(typ, "/")
			id := group + "/providers/" + namespace + "/" + strings.Join(strings.Split(rest, "/"), "/x/") + "/x"
			check := func(may, method, target string) {
				t.Helper()
				got := do(who, method, target)
				switch {
				case !who.known && got == http.StatusUnauthorized:
				case who.known && !strings.Contains(" "+may+" ", " "+who.name+" ") && got == http.StatusForbidden:
				case who.known && strings.Contains(" "+may+" ", " "+who.name+" ") && got != http.StatusForbidden && got != http.StatusUnauthorized && got < 500:
				case who.known && got == http.StatusMethodNotAllowed: // nobody's
				default:
					t.Errorf("%s, %s %s: %d; may: %s", who.name, method, target, got, may)
				}
			}
			check(row.read, http.MethodGet, strings.TrimSuffix(id, "/x"))
			check(row.read, http.MethodGet, id)
			check(row.read, http.MethodHead, id)
			check(row.write, http.MethodPut, id)
			check(row.write, http.MethodPatch, id)
			check(row.write, http.MethodDelete, id)
			actions, computed := s.service.Actions(typ)
			for _, name := range computed {
				check(row.read, http.MethodGet, id+"/"+name)
			}
			for _, name := range actions {
				may, ok := row.actions[name]
				if !ok {
					t.Errorf("the action %s of %s has no line in the matrix", name, typ)
				}
				check(may, http.MethodPost, id+"/"+name)
			}
			check(writers, http.MethodPost, id+"/inventedAction")
		}
	}
	if len(routes) != len(routeMatrix) || len(types) != len(typeMatrix) {
		t.Errorf("%d lines for %d routes, %d for %d types", len(routeMatrix), len(routes), len(typeMatrix), len(types))
	}
}

// What a log query may be about, against every kind of caller. Of a scope one
// sees the registries that one may read, by either method; a workspace that is
// not there is told the same to all.
//
// Published failures 14, 16, 43.
func TestLogQueriesAndPrincipals(t *testing.T) {
	s := assembled(t)
	web := httptest.NewTLSServer(s.router.Hosts[s.config.HostLogs])
	defer web.Close()
	at, err := s.subscription(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tenant, err := s.tenant(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const question = "ContainerRegistryLoginEvents | take 100"
	group := "/resourceGroups/prod/providers/"
	harbor := group + "Microsoft.ContainerRegistry/registries/harbor"
	for where, who := range map[string]string{at.String(): "ours", "/subscriptions/" + directory.NewID(): "theirs"} {
		s.events.Record(audit.Event{
			ID: directory.NewID(), Time: s.now(), Table: "LoginEvents", Registry: strings.ToLower(where + harbor), Host: "harbor.cr.cove.internal",
			Operation: "Login", Identity: who, CallerIP: "203.0.113.9", Status: 200,
		})
	}
	if err := s.events.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	everyone := s.callers(t, at.Subscription(), tenant)
	for target, row := range map[string]string{
		"/v1" + at.String() + "/query":                                                   "none none ours ours ours",
		"/v1" + at.String() + harbor + "/query":                                          "none none ours ours ours",
		"/v1" + at.String() + group + "Microsoft.OperationalInsights/workspaces/w/query": "404 404 404 404 404",
		"/v1/workspaces/" + directory.NewID() + "/query":                                 "404 404 404 404 404",
		"/v1/providers/Microsoft.ContainerRegistry/query":                                "404 404 404 404 404",
		"/v1/query": "404 404 404 404 404",
		"/v1/subscriptions/" + directory.NewID() + "/query": "none none none none none",
	} {
		for _, who := range everyone {
			want := "401"
			if who.known {
				want = strings.Fields(row)[slices.Index(holders, who.name)]
			}
			for _, method := range []string{http.MethodGet, http.MethodPost} {
				query, body := "?query="+url.QueryEscape(question), ""
				if method == http.MethodPost {
					query, body = "", `{"query":"`+question+`"}`
				}
				status, text := who.asks(t, web, method, target+query, body)
				got := fmt.Sprint(status)
				switch {
				case status == http.StatusOK && strings.Contains(text, `"ours"`):
					got = "ours"
				case status == http.StatusOK:
					got = "none"
				}
				if got != want || strings.Contains(text, "theirs") {
					t.Errorf("%s, %s %s: %s, want %s: %s", who.name, method, target, got, want, text)
				}
			}
		}
	}
}
