package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// place is where a credential may be put, and the request that puts it there.
type place struct {
	name string
	put  func(credential string) *http.Request
}

// visit makes the requests of places.
type visit struct {
	*testing.T
	s *covetest.Server
	n *int
}

func (v visit) request(method, target string, form url.Values, headers ...string) *http.Request {
	v.Helper()
	req, err := http.NewRequestWithContext(v.Context(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		v.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return req
}

// taken reports whether a credential is taken in a place: what is there is
// answered, and a token where one is asked for.
func (v visit) taken(p place, credential string) bool {
	v.Helper()
	client := v.s.Outside(v)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	// Each from an address of its own: who guesses too often is not heard, and
	// a no for that says nothing.
	*v.n++
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 30, byte(*v.n>>8), byte(*v.n))}}
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dialer.DialContext(ctx, network, v.s.Run.Listen[0])
	}
	defer client.CloseIdleConnections()
	resp, err := client.Do(p.put(credential))
	if err != nil {
		v.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		v.Fatal(err)
	}
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		v.Errorf("%s: %d %s", p.name, resp.StatusCode, text)
	}
	return resp.StatusCode < 400
}

// Published failures 14, 29 and 43, and 49: every kind of credential in every
// place where one may stand. What is not in the table is refused: a kind that
// is new, or a place, has no row that lets it in.
func TestEachCredentialInEachPlace(t *testing.T) {
	t.Parallel()
	s := covetest.Start(t)
	v := visit{t, s, new(int)}
	h := &hunt{T: t, s: s, secrets: map[string]string{}}
	const alpha, beta = "alpha1.cr.cove.internal", "beta22.cr.cove.internal"
	admin := administrator(t, s)
	for _, name := range []string{"alpha1", "beta22"} {
		s.Cove(t, "registry", "create", name, "--sku", "Premium", "--admin-enabled")
	}
	s.Cove(t, "registry", "update", "alpha1", "--data-endpoint-enabled")
	newPerson(t, s, "alice@cove.internal", "correct horse", "Owner")
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	password := s.Password(t, "alpha1")
	_, head, _ := h.ask(http.MethodPost, "https://"+alpha+"/v2/app/blobs/uploads/?digest=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "hello",
		"Authorization", basic("alpha1", password), "Content-Type", "application/octet-stream")
	blob := head.Get("Location")
	const index = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`
	h.ask(http.MethodPut, "https://"+alpha+"/v2/app/manifests/1", index, "Authorization", basic("alpha1", password), "Content-Type", "application/vnd.oci.image.index.v1+json")
	_, head, _ = h.ask(http.MethodGet, "https://"+alpha+blob, "", "Authorization", basic("alpha1", password))
	link, err := url.Parse(head.Get("Location"))
	if err != nil || link.RawQuery == "" {
		t.Fatalf("no link: %v", head)
	}
	data := "https://" + link.Host + link.Path

	all := map[string]string{
		"the administrator's secret": admin.ClientSecret, "an admin password": password, "an admin password of another registry": s.Password(t, "beta22"),
		"a person's password": "correct horse", "a join code": s.Cove(t, "join-code", "office/default", "--name", "laptop"),
		"a download link": link.RawQuery, "nothing": "", "a word": "undefined",
	}
	for name, audience := range map[string]string{
		"a token for the Resource Manager": canaryManagement, "a token for the directory": canaryGraph,
		"a token for registries": "https://containerregistry.azure.net", "a token for the logs": "https://api.loganalytics.io",
	} {
		all[name] = issued(t, s, admin, audience)
	}
	for name, host := range map[string]string{"": alpha, " of another registry": beta} {
		_, out := h.form("https://"+host+"/oauth2/exchange", nil, "grant_type", "access_token", "service", host, "access_token", all["a token for registries"])
		all["a refresh token"+name] = h.got(out, "refresh_token")
		_, out = h.form("https://"+host+"/oauth2/token", nil, "grant_type", "refresh_token", "service", host, "scope", "repository:app:pull registry:catalog:*", "refresh_token", all["a refresh token"+name])
		all["an access token"+name] = h.got(out, "access_token")
	}
	_, out := h.form("https://"+alpha+"/oauth2/token", nil, "grant_type", "refresh_token", "service", alpha, "scope", "repository:other:pull", "refresh_token", all["a refresh token"])
	all["an access token for another repository"] = h.got(out, "access_token")
	_, out = h.form(canaryLogin, nil, "grant_type", "password", "client_id", azCLI, "username", "alice@cove.internal", "password", "correct horse", "scope", canaryManagement+"/.default")
	all["a person's token for the Resource Manager"], all["an id token"], all["a person's refresh token"] = h.got(out, "access_token"), h.got(out, "id_token"), h.got(out, "refresh_token")
	_, out = h.form("https://login.cove.internal/adfs/oauth2/devicecode", nil, "client_id", azCLI, "scope", canaryManagement+"/.default")
	all["a device code"], all["a user code"] = h.got(out, "device_code"), h.got(out, "user_code")
	answerCode(t, s, "https://login.cove.internal/device", all["a user code"], "alice@cove.internal", "correct horse")
	var made []map[string]any
	if err := json.Unmarshal([]byte(s.Cove(t, "token", "create", "robot", "--registry", "alpha1", "--scope-map", "_repositories_pull", "-o", "json")), &made); err != nil {
		t.Fatal(err)
	}
	all["a token's password"] = h.got(made[0], "value")

	places := v.places(admin, alpha, data)
	manager, person := "a token for the Resource Manager", "a person's token for the Resource Manager"
	want := map[string][]string{
		"the Resource Manager":          {manager, person},
		"the directory":                 {"a token for the directory"},
		"the logs":                      {manager, person, "a token for the logs"},
		"/v2/ with Bearer":              {"an access token", "an access token for another repository"},
		"tags with Bearer":              {"an access token"},
		"the catalog with Bearer":       {"an access token"},
		"/acr/v1 with Bearer":           {},
		"tags as the zero user":         {"a refresh token", "an access token"},
		"tags as the administrator":     {"the administrator's secret"},
		"tags as the admin user":        {"an admin password"},
		"tags as a token":               {"a token's password"},
		"tags as a person":              {},
		"/oauth2/token with Bearer":     {},
		"a refresh token's form":        {"a refresh token"},
		"a password's form":             {"an admin password"},
		"an exchange":                   {manager, person, "a token for registries"},
		"an exchange of a session":      {"a person's refresh token"},
		"the data host with Bearer":     {}, // a storage service knows links only
		"the data host as admin user":   {},
		"the data host with a link":     {"a download link"},
		"a blob with a link":            {},
		"a client's secret":             {"the administrator's secret"},
		"a person's password":           {"a person's password"},
		"a person's refresh token":      {"a person's refresh token"},
		"a device code":                 {"a device code"},
		"an assertion":                  {},
		"the Resource Manager in Basic": {},
	}
	cells := 0
	names := slices.Sorted(maps.Keys(all))
	for _, p := range places {
		allowed, ok := want[p.name]
		if !ok {
			t.Errorf("%s has no row", p.name)
		}
		// The right ones first: many wrong ones are many guesses.
		for _, name := range append(slices.Clone(allowed), slices.DeleteFunc(slices.Clone(names), func(n string) bool { return slices.Contains(allowed, n) })...) {
			cells++
			if _, ok := all[name]; !ok {
				t.Errorf("there is no %s", name)
			}
			if got := v.taken(p, all[name]); got != slices.Contains(allowed, name) {
				t.Errorf("%s at %s: taken is %v", name, p.name, got)
			}
		}
		delete(want, p.name)
	}
	for name := range want {
		t.Errorf("%s is no place", name)
	}
	t.Logf("%d credentials in %d places, %d requests", len(all), len(places), cells)
}

func (v visit) places(admin identity, host, data string) []place {
	get := func(name, target string, authorization func(string) string) place {
		return place{name, func(c string) *http.Request {
			return v.request(http.MethodGet, target, nil, "Authorization", authorization(c))
		}}
	}
	bearer := func(c string) string { return "Bearer " + c }
	as := func(user string) func(string) string { return func(c string) string { return basic(user, c) } }
	form := func(name, target, field string, more ...string) place {
		return place{name, func(c string) *http.Request {
			f := url.Values{field: {c}}
			for i := 0; i < len(more); i += 2 {
				f.Set(more[i], more[i+1])
			}
			return v.request(http.MethodPost, target, f)
		}}
	}
	link := func(name, target string) place {
		return place{name, func(c string) *http.Request {
			if strings.ContainsAny(c, " ") {
				c = url.QueryEscape(c)
			}
			return v.request(http.MethodGet, target+"?"+c, nil)
		}}
	}
	registry, tags := "https://"+host, "https://"+host+"/v2/app/tags/list"
	zero := "00000000-0000-0000-0000-000000000000"
	scope := canaryManagement + "/.default"
	_, blob, _ := strings.Cut(strings.TrimPrefix(data, "https://"), "/")
	return []place{
		get("the Resource Manager", canaryManagement+"/subscriptions?api-version=2022-12-01", bearer),
		get("the Resource Manager in Basic", canaryManagement+"/subscriptions?api-version=2022-12-01", as(admin.ClientID)),
		get("the directory", canaryGraph+"/v1.0/users", bearer),
		get("/v2/ with Bearer", registry+"/v2/", bearer),
		get("tags with Bearer", tags, bearer),
		get("the catalog with Bearer", registry+"/v2/_catalog", bearer),
		get("/acr/v1 with Bearer", registry+"/acr/v1/app/_tags", bearer),
		get("tags as the zero user", tags, as(zero)),
		get("tags as the administrator", tags, as(admin.ClientID)),
		get("tags as the admin user", tags, as(strings.Split(host, ".")[0])),
		get("tags as a token", tags, as("robot")),
		get("tags as a person", tags, as("alice@cove.internal")),
		get("/oauth2/token with Bearer", registry+"/oauth2/token?service="+host+"&scope=repository:app:pull", bearer),
		get("the data host with Bearer", data, bearer),
		get("the data host as admin user", data, as(strings.Split(host, ".")[0])),
		link("the data host with a link", data),
		link("a blob with a link", registry+"/"+blob),
		form("a refresh token's form", registry+"/oauth2/token", "refresh_token", "grant_type", "refresh_token", "service", host, "scope", "repository:app:pull"),
		form("a password's form", registry+"/oauth2/token", "password", "grant_type", "password", "service", host, "scope", "repository:app:pull", "username", strings.Split(host, ".")[0]),
		form("an exchange", registry+"/oauth2/exchange", "access_token", "grant_type", "access_token", "service", host),
		form("an exchange of a session", registry+"/oauth2/exchange", "refresh_token", "grant_type", "refresh_token", "service", host),
		form("a client's secret", canaryLogin, "client_secret", "grant_type", "client_credentials", "client_id", admin.ClientID, "scope", scope),
		form("a person's password", canaryLogin, "password", "grant_type", "password", "client_id", azCLI, "username", "alice@cove.internal", "scope", scope),
		form("a person's refresh token", canaryLogin, "refresh_token", "grant_type", "refresh_token", "client_id", azCLI, "scope", scope),
		form("a device code", canaryLogin, "device_code", "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", azCLI),
		form("an assertion", canaryLogin, "client_assertion", "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer", "grant_type", "client_credentials", "client_id", admin.ClientID, "scope", scope),
		{"the logs", func(c string) *http.Request {
			body := fmt.Sprintf("/v1/workspaces/%s/query?query=%s", subscription(v.T, v.s), url.QueryEscape("ContainerRegistryLoginEvents | count"))
			return v.request(http.MethodGet, "https://logs.cove.internal"+body, nil, "Authorization", "Bearer "+c)
		}},
	}
}
