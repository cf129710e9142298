package armapi_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
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

	"cove.example/cove/arm"
	"cove.example/cove/armapi"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"github.com/google/go-cmp/cmp"
)

const (
	sub        = "/subscriptions/s1"
	group      = sub + "/resourceGroups/docks"
	registries = group + "/providers/Microsoft.ContainerRegistry/registries"
	harbor     = registries + "/harbor"
	version    = "?api-version=2025-04-01"
	premium    = `{"location":"eastus","sku":{"name":"Premium"}}`
)

// people knows callers by their token and what each may do where.
type people map[string]func(action string, scope arm.ID) bool

func (p people) Authenticate(_ context.Context, header string) (resource.Caller, error) {
	if header == "" {
		return resource.Caller{}, fault.New(fault.Unauthenticated, `Authentication failed. The "Authorization" header is missing.`)
	}
	name, _ := strings.CutPrefix(header, "Bearer ")
	may, ok := p[name]
	if !ok {
		return resource.Caller{}, fault.Coded(fault.Unauthenticated, "InvalidAuthenticationToken", "The access token is invalid.")
	}
	holds := func(scope arm.ID) bool {
		return (name == "reader" || name == "puller") && arm.MustID(harbor).Within(scope)
	}
	return resource.Caller{ObjectID: "oid-" + name, Name: "app-" + name, Tenant: "t1", May: may, Holds: holds}, nil
}

type site struct {
	*httptest.Server
	t   *testing.T
	db  *store.DB
	log *bytes.Buffer
}

func open(t *testing.T, db *store.DB) *site {
	t.Helper()
	box, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	broken := resource.Type{
		Name: "Test.Sea/storms",
		Put: func(context.Context, resource.Tx, *resource.Change) error {
			return errors.New("pq: relation resources in /var/lib/cove does not exist")
		},
	}
	service, err := resource.New(resource.Config{
		Store:     store.NewResources(db),
		Types:     []resource.Type{registry.Type(registry.Config{Suffix: "cr.cove.internal", Sealer: box}), policy.Assignments(func(context.Context, string) (string, error) { return "ServicePrincipal", nil }), policy.Definitions(), {Name: "Test.Sea/ships"}, {Name: "Test.Sea/ships/sails"}, broken},
		Locations: []string{"westeurope", "eastus"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Begin(t.Context(), resource.First{Tenant: "t1", TenantName: "Cove", Subscription: "s1", SubscriptionName: "Main"}); err != nil {
		t.Fatal(err)
	}
	under := func(scope string, actions ...string) func(string, arm.ID) bool {
		return func(action string, id arm.ID) bool {
			return id.Within(arm.MustID(scope)) && slices.Contains(actions, action)
		}
	}
	events, err := db.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { events.Close() })
	s := &site{t: t, db: db, log: &bytes.Buffer{}}
	server, err := armapi.New(armapi.Config{
		Service: service, Host: "management.cove.internal", Authority: "https://login.cove.internal/t1",
		Log: slog.New(slog.NewJSONHandler(s.log, nil)), History: store.NewResources(db), Refusals: events,
		Auth: people{
			"owner":    func(_ string, id arm.ID) bool { return !id.IsZero() && id.Within(arm.MustID(sub)) },
			"crown":    func(string, arm.ID) bool { return true },
			"stranger": func(string, arm.ID) bool { return false },
			"reader":   under(harbor, "Microsoft.ContainerRegistry/registries/read"),
			"puller":   under(harbor, "Microsoft.ContainerRegistry/registries/pull/read"),
			"auditor":  under(harbor, policy.TypeAssignments+"/read"),
			"clerk":    under(sub, "Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Resources/subscriptions/read"),
		},
		Extra: []armapi.Route{
			{Method: http.MethodPost, Pattern: "/cove/join", Open: true, MaxBody: 64 << 10, Do: func(_ context.Context, c *armapi.Call) (armapi.Reply, error) {
				return armapi.Reply{Status: http.StatusOK, Body: resource.Object{"code": c.Body["code"], "who": c.Caller.ObjectID}}, nil
			}},
			{Method: http.MethodGet, Pattern: "/subscriptions/{subscription}/providers/Cove.Diagnostics/decisions/{prefix}", Action: "Cove.Diagnostics/decisions/read", Do: func(_ context.Context, c *armapi.Call) (armapi.Reply, error) {
				return armapi.Reply{Status: http.StatusOK, Body: resource.Object{"prefix": c.Params["prefix"], "scope": c.ID.String()}}, nil
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewTLSServer(server)
	t.Cleanup(s.Close)
	return s
}

type answer struct {
	*http.Response
	text string
	body resource.Object
}

// do sends a request as who, "" being nobody, and checks what is true of
// every answer.
func (s *site) do(who, method, target, body string, headers ...string) answer {
	s.t.Helper()
	var r io.Reader
	if body != "" {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, s.URL+target, r)
	if err != nil {
		s.t.Fatal(err)
	}
	if who != "" {
		req.Header.Set("Authorization", "Bearer "+who)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			req.Host = headers[i+1]
		}
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.Client().Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{Response: resp, text: string(text)}
	if len(text) > 0 {
		if a.body, err = resource.Decode(text); err != nil || resp.Header.Get("Content-Type") != "application/json; charset=utf-8" {
			s.t.Errorf("%s %s: the answer is no JSON object: %s", method, target, text)
		}
	}
	id := resp.Header.Get("X-Ms-Request-Id")
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(id) || id != resp.Header.Get("X-Ms-Correlation-Request-Id") ||
		resp.Header.Get("Cache-Control") != "no-store" || resp.Header.Get("X-Content-Type-Options") != "nosniff" {
		s.t.Errorf("%s %s: the headers are %v", method, target, resp.Header)
	}
	if resp.StatusCode >= 400 && method != http.MethodHead && (a.code() == "" || a.message() == "") {
		s.t.Errorf("%s %s: %d with %s", method, target, resp.StatusCode, text)
	}
	return a
}

func (a answer) code() string { s, _ := resource.Lookup(a.body, "error.code").(string); return s }

func (a answer) message() string { s, _ := resource.Lookup(a.body, "error.message").(string); return s }

func (a answer) names() (names []string) {
	for _, v := range a.body["value"].([]any) {
		name, _ := v.(resource.Object)["name"].(string)
		names = append(names, name)
	}
	return names
}

// expect is do, for one status.
func (s *site) expect(status int, who, method, target, body string, headers ...string) answer {
	s.t.Helper()
	a := s.do(who, method, target, body, headers...)
	if a.StatusCode != status {
		s.t.Fatalf("%s %s: %d, want %d: %s", method, target, a.StatusCode, status, a.text)
	}
	return a
}

func (s *site) changes() int {
	s.t.Helper()
	list, err := s.db.Changes(s.t.Context(), 0, 100_000)
	if err != nil {
		s.t.Fatal(err)
	}
	return len(list)
}

// build makes the group and the registry that most tests look at.
func (s *site) build() {
	s.t.Helper()
	s.expect(201, "owner", "PUT", group+version, `{"location":"westeurope"}`)
	s.expect(201, "owner", "PUT", harbor+version, premium)
}

func TestTheLifeOfARegistry(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		lower := strings.Replace(group, "resourceGroups", "resourcegroups", 1) // as az writes it
		s.expect(404, "owner", "HEAD", lower+version, "")
		made := s.expect(201, "owner", "PUT", lower+version, `{"location":"West Europe","tags":{"a":"b"}}`)
		want := resource.Object{
			"id": group, "name": "docks", "type": "Microsoft.Resources/resourceGroups", "location": "westeurope", "etag": made.body["etag"],
			"tags": resource.Object{"a": "b"}, "properties": resource.Object{"provisioningState": "Succeeded"},
		}
		if d := cmp.Diff(want, made.body); d != "" {
			t.Error(d)
		}
		s.expect(204, "owner", "HEAD", lower+version, "")
		s.expect(200, "owner", "PUT", group+version, `{"location":"westeurope","tags":{"a":"b"}}`)

		first := s.expect(201, "owner", "PUT", harbor+version, premium)
		if first.Header.Get("ETag") != `"`+first.body["etag"].(string)+`"` || first.Header.Get("Azure-AsyncOperation") != "" || first.Header.Get("Location") != "" {
			t.Errorf("the headers are %v", first.Header)
		}
		got := s.expect(200, "owner", "GET", strings.ToUpper(harbor)+version, "")
		if d := cmp.Diff(first.body, got.body); d != "" {
			t.Error(d)
		}
		again := s.expect(200, "owner", "PUT", harbor+version, got.text, "If-Match", got.Header.Get("ETag"))
		if again.Header.Get("ETag") != got.Header.Get("ETag") || again.text != got.text {
			t.Error("a PUT of what was got changed it")
		}
		patched := s.expect(200, "owner", "PATCH", harbor+version, `{"properties":{"publicNetworkAccess":"Disabled"}}`)
		if resource.Lookup(patched.body, "properties.publicNetworkAccess") != "Disabled" {
			t.Errorf("patched: %s", patched.text)
		}
		if a := s.expect(412, "owner", "PUT", harbor+version, premium, "If-Match", got.Header.Get("ETag")); a.code() != "PreconditionFailed" {
			t.Errorf("a stale PUT: %s", a.text)
		}
		if a := s.expect(412, "owner", "PUT", harbor+version, premium, "If-None-Match", "*"); a.code() != "PreconditionFailed" {
			t.Errorf("a PUT of what must not be there: %s", a.text)
		}
		s.expect(412, "owner", "DELETE", harbor+version, "", "If-Match", got.Header.Get("ETag"))
		s.expect(200, "owner", "PATCH", harbor+version, `{"properties":{"adminUserEnabled":true}}`)
		if a := s.expect(200, "owner", "POST", harbor+"/LISTcredentials"+version, ""); a.body["username"] != "harbor" {
			t.Errorf("credentials: %s", a.text)
		}
		s.expect(200, "owner", "DELETE", harbor+version, "")
		s.expect(204, "owner", "DELETE", harbor+version, "")
		if a := s.expect(404, "owner", "GET", harbor+version, ""); a.code() != "ResourceNotFound" {
			t.Errorf("what is gone: %s", a.text)
		}
		s.expect(201, "owner", "PUT", harbor+version, premium)
		s.expect(200, "owner", "DELETE", group+version, "")
		if a := s.expect(404, "owner", "GET", harbor+version, ""); a.code() != "ResourceGroupNotFound" {
			t.Errorf("a registry in a group that is gone: %s", a.text)
		}
	})
}

// Whoever is not known learns where to sign in, and nothing else.
func TestNobodyLearnsAnything(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		before := s.changes()
		for _, token := range []string{"", "wrong"} {
			for _, c := range [][2]string{
				{"GET", harbor + version},
				{"GET", harbor + "2" + version},
				{"GET", "/"},
				{"GET", "/nothing/here"},
				{"GET", "/a//b"},
				{"GET", harbor},
				{"GET", harbor + "?api-version=x"},
				{"PUT", harbor + version},
				{"DELETE", harbor + version},
				{"GET", "/subscriptions" + version},
				{"POST", harbor + "/listCredentials" + version},
				{"BREW", harbor + version},
				{"GET", "/%2e%2e/x"},
				{"GET", "/cove/join"},
			} {
				a := s.expect(401, token, c[0], c[1], "")
				challenge := `Bearer authorization_uri="https://login.cove.internal/t1", error="invalid_token", error_description="` + strings.ReplaceAll(a.message(), `"`, "'") + `"`
				if a.Header.Get("WWW-Authenticate") != challenge || !strings.HasPrefix(a.text, `{"error":{"code":`) {
					t.Errorf("%v: %s %s", c, a.Header.Get("WWW-Authenticate"), a.text)
				}
			}
		}
		if s.changes() != before {
			t.Error("something was stored")
		}
	})
}

// A caller without rights is told the same of what is there and what is not.
//
// Published failure 16.
func TestTheDeniedCannotTellWhatExists(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		before := s.changes()
		a := s.expect(403, "stranger", "GET", harbor+version, "")
		if want := "The client 'app-stranger' with object id 'oid-stranger' does not have authorization to perform action 'Microsoft.ContainerRegistry/registries/read' over scope '" + harbor +
			"' or the scope is invalid. If access was recently granted, please refresh your credentials."; a.message() != want || a.code() != "AuthorizationFailed" {
			t.Errorf("got %s\nwant %s", a.message(), want)
		}
		for _, c := range []struct{ method, target, body string }{
			{"GET", harbor, ""},
			{"HEAD", harbor, ""},
			{"PUT", harbor, premium},
			{"PUT", harbor, "not json"},
			{"PATCH", harbor, `{}`},
			{"DELETE", harbor, ""},
			{"POST", harbor + "/listCredentials", ""},
			{"GET", registries, ""},
			{"GET", group, ""},
			{"GET", group + "/resources", ""},
			{"GET", harbor + "/privateEndpointConnections", ""},
			{"PUT", group, `{"location":"eastus"}`},
		} {
			there := s.do("stranger", c.method, c.target+version, c.body)
			gone := s.do("stranger", c.method, strings.NewReplacer("docks", "other").Replace(c.target)+version, c.body)
			if there.StatusCode != 403 || gone.StatusCode != 403 || strings.ReplaceAll(gone.text, "other", "docks") != there.text {
				t.Errorf("%s %s: %d %s\nabsent: %d %s", c.method, c.target, there.StatusCode, there.text, gone.StatusCode, gone.text)
			}
		}
		if s.changes() != before {
			t.Error("something was stored")
		}
	})
}

// What a caller may not read is not listed.
func TestListsShowWhatTheCallerMayRead(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		s.expect(201, "owner", "PUT", registries+"/other"+version, premium)
		s.expect(201, "owner", "PUT", group+"/providers/Test.Sea/ships/anna"+version, `{"location":"sea","tags":{"Flag":"nl"}}`)
		s.expect(201, "owner", "PUT", group+"/providers/Test.Sea/ships/anna/sails/main"+version, `{}`)
		for _, c := range []struct {
			who, target string
			want        []string
		}{
			{"owner", registries, []string{"harbor", "other"}},
			{"reader", registries, []string{"harbor"}},
			{"reader", sub + "/providers/microsoft.containerregistry/REGISTRIES", []string{"harbor"}},
			{"reader", group + "/resources", []string{"harbor"}},
			{"owner", sub + "/resources", []string{"harbor", "other", "anna"}},
			{"owner", group + "/providers/Test.Sea/ships/anna/sails", []string{"main"}},
			{"owner", sub + "/resourcegroups", []string{"docks"}},
			{"clerk", sub + "/resourcegroups", []string{"docks"}},
			{"owner", sub + "/resources?$filter=resourceType eq 'microsoft.containerregistry/registries'", []string{"harbor", "other"}},
			{"owner", sub + "/resources?$filter=resourceType eq 'Microsoft.ContainerRegistry/registries' and name eq 'OTHER'", []string{"other"}},
			{"owner", sub + "/resources?$filter=resourceGroup eq 'DOCKS' AND location eq 'Sea'", []string{"anna"}},
			{"owner", sub + "/resources?$filter=tagName eq 'flag' and tagValue eq 'nl'", []string{"anna"}},
			{"owner", sub + "/resources?$filter=tagName eq 'flag' and tagValue eq 'de'", nil},
			{"owner", sub + "/resources?$filter=name eq 'it''s'", nil},
		} {
			path, query, _ := strings.Cut(c.target, "?$filter=")
			target := path + version
			if query != "" {
				target += "&$filter=" + url.QueryEscape(query)
			}
			if got := s.expect(200, c.who, "GET", target, "").names(); !slices.Equal(got, c.want) {
				t.Errorf("%s, %s: %q, want %q", c.who, c.target, got, c.want)
			}
		}
		if a := s.expect(200, "owner", "GET", "/subscriptions"+version, ""); resource.Lookup(a.body["value"].([]any)[0].(resource.Object), "subscriptionId") != "s1" {
			t.Errorf("subscriptions: %s", a.text)
		}
		if a := s.expect(200, "stranger", "GET", "/subscriptions"+version, ""); len(a.names()) != 0 {
			t.Errorf("a stranger's subscriptions: %s", a.text)
		}
		for filter, code := range map[string]string{
			"name": "InvalidFilterInQueryString", "name eq anna": "InvalidFilterInQueryString", "name eq 'anna": "InvalidFilterInQueryString", "name ne 'anna'": "InvalidFilterInQueryString",
			"name eq 'anna' or name eq 'x'": "InvalidFilterInQueryString", "name eq 'anna' and": "InvalidFilterInQueryString", "color eq 'red'": "InvalidFilterInQueryString",
			"resourceType eq 'a/b' and resourceType eq 'c/d'": "InvalidFilterInQueryString", "resourceType eq 'No.Such/type'": "InvalidResourceType",
		} {
			if a := s.do("owner", "GET", sub+"/resources"+version+"&$filter="+url.QueryEscape(filter), ""); a.code() != code {
				t.Errorf("$filter=%s: %s", filter, a.text)
			}
		}
		for _, top := range []string{"0", "-1", "x", "1e9", "99999999999999999999"} {
			s.expect(400, "owner", "GET", registries+version+"&$top="+top, "")
		}
	})
}

// Links in answers are made of the configured name, whatever the caller calls
// us: a link to another host would take the caller's token there.
func TestNextLinksLeadToTheConfiguredHost(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		var want, got []string
		for i := range 7 {
			want = append(want, fmt.Sprintf("harbor%d", i))
			s.expect(201, "owner", "PUT", fmt.Sprintf("%s/harbor%d%s", registries, i, version), `{"location":"eastus","sku":{"name":"Basic"}}`)
		}
		want = append([]string{"harbor"}, want...)
		evil := []string{"Host", "evil.example", "X-Forwarded-Host", "evil.example", "Forwarded", "host=evil.example", "X-Forwarded-Proto", "http", "X-Original-URL", "/x"}
		pages := 0
		for next := sub + "/resources" + version + "&$top=3&$filter=" + url.QueryEscape("resourceType eq 'Microsoft.ContainerRegistry/registries'"); next != ""; pages++ {
			a := s.expect(200, "owner", "GET", next, "", evil...)
			got = append(got, a.names()...)
			link, _ := a.body["nextLink"].(string)
			if strings.Contains(a.text, "evil.example") || link != "" && !strings.HasPrefix(link, "https://management.cove.internal/subscriptions/") {
				t.Fatalf("a link to %s", link)
			}
			next = strings.TrimPrefix(link, "https://management.cove.internal")
		}
		if !slices.Equal(got, want) || pages != 3 {
			t.Errorf("%d pages of %q", pages, got)
		}
		if a := s.expect(400, "owner", "GET", registries+version+"&$skiptoken=spoiled", ""); a.code() != "InvalidSkipToken" {
			t.Errorf("a spoiled token: %s", a.text)
		}
	})
}

func TestAPIVersions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		for _, v := range []string{"2019-06-01-preview", "2022-02-01-preview", "2025-11-01", "2031-01-01"} {
			s.expect(200, "owner", "GET", harbor+"?api-version="+v, "")
		}
		if a := s.expect(400, "owner", "GET", harbor, ""); a.code() != "MissingApiVersionParameter" {
			t.Errorf("none: %s", a.text)
		}
		for _, v := range []string{"latest", "2025", "2025-02-30", "2025-01-01%2f", "2025-01-01&api-version=2025-01-01"} {
			if a := s.expect(400, "owner", "GET", harbor+"?api-version="+v, ""); a.code() != "InvalidApiVersionParameter" {
				t.Errorf("%s: %s", v, a.text)
			}
		}
	})
}

func TestBadBodiesStoreNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		before := s.changes()
		deep := strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)
		for _, c := range []struct {
			body   string
			status int
			want   string
		}{
			{``, 400, "A body is required"},
			{`{`, 400, "not valid JSON"},
			{`{"location":"eastus","sku":{"name":"Basic"}} x`, 400, "goes on after"},
			{`{"location":"eastus","sku":{"name":"Basic"}}{}`, 400, "goes on after"},
			{`[1]`, 400, "must be a JSON object"},
			{`"x"`, 400, "must be a JSON object"},
			{`null`, 400, "must be a JSON object"},
			{"\ufeff{}", 400, "not valid JSON"},
			{`{"location":"eastus","location":"westeurope"}`, 400, `"location" twice`},
			{`{"properties":{"a":[{"b":1,"b":2}]}}`, 400, `"b" twice`},
			{`{"properties":` + deep + `}`, 400, "deeper than"},
			{`{"properties":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}`, 400, "deeper than"},
			{"{\"properties\":{\"a\":\"\xff\"}}", 400, "not UTF-8"},
			{`{"a":NaN}`, 400, "not valid JSON"},
			{`{"a":01}`, 400, "not valid JSON"},
			{`{"a":"` + strings.Repeat("x", 4<<20) + `"}`, 413, "larger than"},
		} {
			for _, method := range []string{"PUT", "PATCH"} {
				a := s.do("owner", method, registries+"/newone"+version, c.body)
				if a.StatusCode != c.status || !strings.Contains(a.message(), c.want) {
					t.Errorf("%s %.60q: %d %.200s", method, c.body, a.StatusCode, a.text)
				}
			}
		}
		if a := s.do("owner", "PUT", harbor+version, premium, "Content-Type", "application/x-www-form-urlencoded"); a.StatusCode != 415 || a.code() != "UnsupportedMediaType" {
			t.Errorf("a form: %d %s", a.StatusCode, a.text)
		}
		// A body that names no length is no larger.
		req, err := http.NewRequest("PUT", s.URL+registries+"/newone"+version, io.LimitReader(zeros{}, 64<<20))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer owner")
		if resp, err := s.Client().Do(req); err == nil { // else the server has hung up on it, which is right too
			resp.Body.Close()
			if resp.StatusCode != 413 {
				t.Errorf("64 MiB in chunks: %d", resp.StatusCode)
			}
		}
		if s.changes() != before {
			t.Error("something was stored")
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// The failures that no caller causes are told as such, without their causes.
func TestInternalErrorsStayInTheLog(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		a := s.expect(500, "owner", "PUT", group+"/providers/Test.Sea/storms/one"+version, `{}`)
		if a.text != `{"error":{"code":"InternalServerError","message":"internal error"}}`+"\n" {
			t.Errorf("told: %s", a.text)
		}
		if log := s.log.String(); !strings.Contains(log, "pq: relation") || !strings.Contains(log, a.Header.Get("X-Ms-Request-Id")) {
			t.Errorf("logged: %s", log)
		}
		if strings.Contains(s.log.String(), "Bearer") {
			t.Error("a token was logged")
		}
	})
}

func TestOperationsOfARM(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		if a := s.expect(200, "owner", "GET", sub+version, ""); a.body["id"] != sub || a.body["displayName"] != "Main" || a.body["state"] != "Enabled" || a.body["tenantId"] != "t1" {
			t.Errorf("subscription: %s", a.text)
		}
		if a := s.expect(200, "stranger", "GET", "/tenants"+version, ""); !strings.Contains(a.text, `"id":"/tenants/t1"`) || !strings.Contains(a.text, `"tenantId":"t1"`) {
			t.Errorf("tenants: %s", a.text)
		}
		if a := s.expect(200, "owner", "GET", sub+"/locations"+version, ""); !slices.Equal(a.names(), []string{"westeurope", "eastus"}) {
			t.Errorf("locations: %s", a.text)
		}
		a := s.expect(200, "owner", "GET", sub+"/providers/microsoft.containerregistry"+version, "")
		if a.body["registrationState"] != "Registered" || a.body["namespace"] != "Microsoft.ContainerRegistry" || !strings.Contains(a.text, `"resourceType":"registries"`) {
			t.Errorf("provider: %s", a.text)
		}
		if b := s.expect(200, "owner", "POST", sub+"/providers/Microsoft.ContainerRegistry/register"+version, ""); b.text != a.text {
			t.Errorf("registered: %s", b.text)
		}
		if a := s.expect(200, "owner", "GET", sub+"/providers"+version, ""); len(a.names()) != 4 {
			t.Errorf("providers: %s", a.text)
		}
		if a := s.expect(404, "owner", "GET", sub+"/providers/No.Such"+version, ""); a.code() != "InvalidResourceNamespace" {
			t.Errorf("no provider: %s", a.text)
		}
		for name, want := range map[string]string{
			"harbor": `{"message":"The name harbor is already in use.","nameAvailable":false,"reason":"AlreadyExists"}`,
			"HARBOR": `{"message":"The name HARBOR is already in use.","nameAvailable":false,"reason":"AlreadyExists"}`,
			"free1":  `{"nameAvailable":true}`,
			"har-":   `{"message":"The name must be 5 to 50 letters and digits.","nameAvailable":false,"reason":"Invalid"}`,
			"login":  `{"message":"The name is reserved.","nameAvailable":false,"reason":"Invalid"}`,
		} {
			a := s.expect(200, "owner", "POST", sub+"/providers/Microsoft.ContainerRegistry/checkNameAvailability"+version, `{"name":"`+name+`","type":"Microsoft.ContainerRegistry/registries"}`)
			if strings.TrimSpace(a.text) != want {
				t.Errorf("%s: %s", name, a.text)
			}
		}
		s.expect(400, "owner", "POST", sub+"/providers/Microsoft.ContainerRegistry/checkNameAvailability"+version, `{"name":"x","type":"y"}`)
		s.expect(403, "stranger", "POST", sub+"/providers/Microsoft.ContainerRegistry/checkNameAvailability"+version, `{"name":"harbor"}`)
		other := strings.Replace(harbor, "docks", "other", 1)
		s.expect(201, "owner", "PUT", sub+"/resourceGroups/other"+version, `{"location":"eastus"}`)
		if a := s.expect(409, "owner", "PUT", other+version, premium); a.code() != "AlreadyInUse" {
			t.Errorf("a name taken in another group: %s", a.text)
		}
		if a := s.expect(405, "owner", "POST", harbor+version, `{}`); a.code() != "MethodNotAllowed" || a.Header.Get("Allow") == "" {
			t.Errorf("POST on a document: %s", a.text)
		}
		for _, target := range []string{"/subscriptions/s1/nothing", "/other", harbor + "/sink"} {
			method := "GET"
			if target == harbor+"/sink" {
				method = "POST"
			}
			s.expect(404, "owner", method, target+version, "")
		}
		a = s.do("owner", "PUT", registries+"/x"+version, `{"location":"mars","sku":{"name":"Gold"}}`)
		if details, _ := resource.Lookup(a.body, "error.details").([]any); a.StatusCode != 400 || len(details) != 3 {
			t.Errorf("three problems: %d %s", a.StatusCode, a.text)
		}
	})
}

func TestExtraRoutes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		if a := s.expect(200, "", "POST", "/cove/join", `{"code":"abc"}`); a.body["code"] != "abc" {
			t.Errorf("joined: %s", a.text)
		}
		// A token on an open route is not looked at, so it proves nothing.
		if a := s.expect(200, "owner", "POST", "/Cove/JOIN", `{}`); a.body["who"] != "" {
			t.Errorf("an open route knows %v", a.body["who"])
		}
		s.expect(200, "", "POST", "/cove/join", `{"code":"`+strings.Repeat("x", 64<<10-11)+`"}`)
		s.expect(413, "", "POST", "/cove/join", `{"code":"`+strings.Repeat("x", 64<<10-10)+`"}`)
		if a := s.expect(200, "owner", "GET", sub+"/providers/cove.diagnostics/decisions/1a2b"+version, ""); a.body["prefix"] != "1a2b" || a.body["scope"] != sub+"/providers/cove.diagnostics/decisions/1a2b" {
			t.Errorf("decision: %s", a.text)
		}
		s.expect(403, "stranger", "GET", sub+"/providers/Cove.Diagnostics/decisions/1a2b"+version, "")
		s.expect(403, "owner", "GET", "/subscriptions/s2/providers/Cove.Diagnostics/decisions/1a2b"+version, "")
		s.expect(401, "", "GET", sub+"/providers/Cove.Diagnostics/decisions/1a2b"+version, "")
		s.expect(400, "owner", "GET", sub+"/providers/Cove.Diagnostics/decisions/1a2b", "")
	})
}

// az works in the first subscription that it is told of. One that is added,
// whatever its id, must not become the one that yesterday's scripts work in.
func TestTheOldestSubscriptionIsTheFirst(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		for _, added := range []string{"s3", "s0"} {
			if err := store.NewResources(db).Update(t.Context(), func(tx resource.Tx) error {
				return tx.Put(t.Context(), &resource.Doc{ID: resource.SubscriptionID(added), Body: resource.Object{"subscriptionId": added}})
			}); err != nil {
				t.Fatal(err)
			}
		}
		var got []any
		for _, one := range s.expect(200, "crown", "GET", "/subscriptions"+version, "").body["value"].([]any) {
			got = append(got, resource.Lookup(one.(resource.Object), "subscriptionId"))
		}
		if want := []any{"s1", "s3", "s0"}; !slices.Equal(got, want) {
			t.Errorf("they come as %v, want %v", got, want)
		}
	})
}

// A route that says nothing about who may use it keeps the server from
// starting.
//
// Published failure 49.
func TestNoRouteWithoutAnAuthorizationRow(t *testing.T) {
	do := func(context.Context, *armapi.Call) (armapi.Reply, error) { return armapi.Reply{}, nil }
	for _, r := range []armapi.Route{
		{Method: "GET", Pattern: "/x", Do: do},
		{Method: "GET", Pattern: "/x", Do: do, Open: true, Action: "x/read"},
		{Method: "GET", Pattern: "/x", Do: do, Open: true, Each: true},
		{Method: "GET", Pattern: "/x", Open: true},
		{Method: "GET", Pattern: "x", Do: do, Open: true},
		{Pattern: "/x", Do: do, Open: true},
	} {
		if _, err := armapi.New(armapi.Config{Extra: []armapi.Route{r}}); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
}

// spellings are other ways to write a path, which proxies and routers have
// taken for the same path, or for another.
func spellings(path string) []string {
	last := strings.LastIndexByte(path, '/')
	head, tail := path[:last], path[last+1:]
	var out []string
	for _, end := range []string{
		"/", "//", "/.", "/..", "/./", "/../" + tail, "%2f", "%2F", "/%2e", "/%2e%2e", "%00", "%0a", "%0d%0a", "%09", "%20", ";x", ";", ";a=b", "%3b", "%3Bx",
		"%3f", "%3Fx=1", "%23", "\\", "%5c", "/.json", "%", "%2", "%zz", "%25", "%252f", "%u002f", "%c0%af", "%c0%ae", "/..;/", "/.;/", "%e2%80%8b",
	} {
		out = append(out, path+end)
	}
	for _, join := range []string{
		"//", "/./", "/../", "/x/../", "/x/..;/", "/%2e/", "/%2e%2e/", "/.%2e/", "/%2e./", "/%252e%252e/", "%2f", "%2F", "/%2f", "%2f/", "%252f", `\`, "%5c", `/\`,
		"/;/", "/;x/", ";/", ";x=y/", "/%00/", "%00/", "/%20/", "/%09/", "/?/", "/#/", "/%23/", "/%3f/", "/..%2f", "/..%5c", "/%c0%ae%c0%ae/", "/%ef%bc%8f/", "／", "/+/", "/ /",
	} {
		out = append(out, head+join+tail)
	}
	first := path[1:2]
	for _, start := range []string{"", "//", "/./", "/../", "/x/../", "/%2f", "/%2e/", "/;/", `\`, `/\`, "///", "/%00", "/.;/", "https://evil.example/", "https:", "/https://management.cove.internal/", "/%20", "\t/"} {
		out = append(out, start+path[1:])
	}
	return append(out,
		fmt.Sprintf("/%%%02x%s", first[0], path[2:]), fmt.Sprintf("/%%%02X%s", first[0], path[2:]),
		head+"/"+fmt.Sprintf("%%%02x", tail[0])+tail[1:], "/"+url.PathEscape(path[1:]), strings.ReplaceAll(path, "/", "%2F"), strings.ReplaceAll(path, "/", `\`),
		strings.ReplaceAll(path, "s", "ſ"), "*", "")
}

// row 13 of the published failures: a protected route answered without a
// token, or as another route, because it was spelled differently.
func TestEverySpellingButOneIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := open(t, db)
		s.build()
		before := s.changes()
		tried := 0
		for _, c := range []struct{ method, path, body string }{
			{"GET", harbor, ""},
			{"PUT", harbor, premium},
			{"DELETE", harbor, ""},
			{"POST", harbor + "/listCredentials", ""},
			{"GET", registries, ""},
			{"DELETE", group, ""},
			{"GET", sub + "/resources", ""},
			{"POST", "/cove/join", "{}"},
			{"GET", sub + "/providers/Cove.Diagnostics/decisions/1a2b", ""},
		} {
			all := spellings(c.path)
			if len(all) < 100 {
				t.Fatalf("only %d spellings", len(all))
			}
			for _, token := range []string{"", "owner"} {
				conn := s.dial()
				for _, spelling := range all {
					if spelling == c.path {
						continue
					}
					tried++
					status, body := conn.send(c.method, spelling+version, token, c.body)
					// What net/http cannot parse it refuses itself; the rest
					// is nobody's, or written wrongly, or a name that
					// nothing has: never a success.
					if status < 400 || status >= 500 || token == "" && status != 401 && status != 400 {
						t.Errorf("%s %q as %q: %d %.200s", c.method, spelling, token, status, body)
					}
					if strings.Contains(body, `"sku"`) || strings.Contains(body, `"prefix"`) || strings.Contains(body, `"value"`) {
						t.Errorf("%s %q as %q answered with data: %.200s", c.method, spelling, token, body)
					}
				}
			}
		}
		if s.changes() != before {
			t.Error("something was changed by a strange spelling")
		}
		t.Logf("%d requests", tried)

		// Case is no spelling, and clients may escape what they like to
		// escape of names.
		s.expect(200, "owner", "GET", strings.ToUpper(harbor)+version, "")
		s.expect(201, "owner", "PUT", sub+"/resourceGroups/a(b)"+version, `{"location":"eastus"}`)
		if a := s.expect(200, "owner", "GET", sub+"/resourceGroups/a%28b%29"+version, ""); a.body["name"] != "a(b)" {
			t.Errorf("parentheses: %s", a.text)
		}
	})
}

// raw is a connection on which requests are written byte by byte as the test
// has them.
type raw struct {
	s    *site
	conn *tls.Conn
	in   *bufio.Reader
}

func (s *site) dial() *raw { return &raw{s: s} }

func (r *raw) send(method, target, token, body string) (int, string) {
	r.s.t.Helper()
	if r.conn == nil {
		conn, err := tls.Dial("tcp", r.s.Listener.Addr().String(), r.s.Client().Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			r.s.t.Fatal(err)
		}
		r.conn, r.in = conn, bufio.NewReader(conn)
	}
	auth := ""
	if token != "" {
		auth = "Authorization: Bearer " + token + "\r\n"
	}
	fmt.Fprintf(r.conn, "%s %s HTTP/1.1\r\nHost: management.cove.internal\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, target, auth, len(body), body)
	resp, err := http.ReadResponse(r.in, nil)
	if err != nil {
		r.s.t.Fatalf("%s %q: %v", method, target, err)
	}
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.s.t.Fatal(err)
	}
	if resp.Close {
		r.conn.Close()
		r.conn = nil
	}
	return resp.StatusCode, string(text)
}
