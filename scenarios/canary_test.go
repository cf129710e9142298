package scenarios

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// hunt holds secrets, each of which stands in one place, and looks for them
// in all others.
type hunt struct {
	*testing.T
	s       *covetest.Server
	secrets map[string]string
	seen    strings.Builder // what strangers and readers were told
}

// plant is a secret of the test's own: with the characters that change where
// a text is put into an address, a form or JSON.
func (h *hunt) plant(name string) string {
	return h.keep(name, "k/+"+rand.Text()+"=&")
}

// keep remembers a secret that somebody else has made.
func (h *hunt) keep(name, value string) string {
	h.Helper()
	if len(value) < 8 {
		h.Fatalf("%s is %q, which is no secret", name, value)
	}
	if _, ok := h.secrets[name]; ok {
		h.Fatalf("%s twice", name)
	}
	h.secrets[name] = value
	return value
}

// spellings are the ways in which a secret may be written: as it is, in an
// address, in JSON, in hex, and within base64 at each of its three places.
func spellings(value string) []string {
	quoted, _ := json.Marshal(value) // a string has a JSON form
	out := []string{value, url.QueryEscape(value), url.PathEscape(value), strings.Trim(string(quoted), `"`), hex.EncodeToString([]byte(value))}
	for shift := range 3 {
		padded := append(make([]byte, shift), value...)
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			// The first and last letters hold bits of what stands beside it.
			text := enc.EncodeToString(padded)
			out = append(out, text[4:len(text)-2])
		}
	}
	return out
}

// clean fails where one of the secrets stands in a text.
func (h *hunt) clean(place, text string) {
	h.Helper()
	for name, value := range h.secrets {
		if i := find(text, value); i >= 0 {
			h.Errorf("%s shows %s: …%s…", place, name, text[max(0, i-120):min(len(text), i+60)])
		}
	}
}

// find is where in a text a secret stands, -1 for nowhere.
func find(text, value string) int {
	for _, form := range spellings(value) {
		if i := strings.Index(text, form); i >= 0 {
			return i
		}
	}
	return -1
}

// The hunt finds what it looks for, however it is written.
func TestTheHuntFindsSecrets(t *testing.T) {
	const secret = "k/+5XJ2Q7ZK3=&"
	quoted, err := json.Marshal(map[string]string{"password": secret})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"password=" + secret, string(quoted), "?password=" + url.QueryEscape(secret), "/" + url.PathEscape(secret), url.UserPassword("u", secret).String(),
		basic("u", secret), basic("us", secret), basic("use", secret), base64.URLEncoding.EncodeToString([]byte(secret)), fmt.Sprintf("%q", secret), fmt.Sprintf("%x", secret),
	} {
		if find("before "+text+" after", secret) < 0 {
			t.Errorf("not found in %s", text)
		}
	}
	if find("k/+5XJ2Q7ZK4=&", secret) >= 0 {
		t.Error("found in another")
	}
}

// ask makes a request and keeps what a refusal says.
func (h *hunt) ask(method, target, body string, headers ...string) (int, http.Header, map[string]any) {
	h.Helper()
	req, err := http.NewRequestWithContext(h.Context(), method, target, strings.NewReader(body))
	if err != nil {
		h.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := h.s.Outside(h)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		h.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.Fatal(err)
	}
	if resp.StatusCode >= 400 {
		fmt.Fprintf(&h.seen, "%s %s\n%v\n%s\n", method, resp.Status, resp.Header, text)
	}
	var out map[string]any
	_ = json.Unmarshal(text, &out) // some answers are empty
	return resp.StatusCode, resp.Header, out
}

func (h *hunt) form(target string, headers []string, fields ...string) (int, map[string]any) {
	h.Helper()
	v := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		v.Add(fields[i], fields[i+1])
	}
	status, _, out := h.ask(http.MethodPost, target, v.Encode(), append(headers, "Content-Type", "application/x-www-form-urlencoded")...)
	return status, out
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// got is a text of an answer, which must be there.
func (h *hunt) got(out map[string]any, path ...any) string {
	h.Helper()
	var v any = out
	for _, p := range path {
		switch p := p.(type) {
		case string:
			o, _ := v.(map[string]any)
			v = o[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				h.Fatalf("%v is not in %v", path, out)
			}
			v = l[p]
		}
	}
	s, ok := v.(string)
	if !ok || s == "" {
		h.Fatalf("%v is not in %v", path, out)
	}
	return s
}

const (
	canaryLogin      = "https://login.cove.internal/adfs/oauth2/token"
	canaryManagement = "https://management.cove.internal"
	canaryGraph      = "https://graph.cove.internal"
	canaryHost       = "harbor.cr.cove.internal"
)

// Published failures 10 and 25: no secret stands in a log, an event, a metric, an
// answer or the database, nor is shown to who may read. Eighty secrets, each in a place of its own, are put to
// a server that says all it can; it is killed and started again in the middle;
// then they are looked for, in every spelling that a text has.
func TestNoSecretIsWrittenDown(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	h := &hunt{T: t, secrets: map[string]string{}}
	cert, key := operatorPair(t, dir)
	h.keep("the operator's TLS key", pemLine(t, key))
	h.s = covetest.Start(t, "--log-level", "debug", "--tls-cert", cert, "--tls-key", key)
	s := h.s
	h.keep("the authority's key", pemLine(t, filepath.Join(s.Data, "ca.key")))
	master, err := os.ReadFile(filepath.Join(s.Data, "master.key"))
	if err != nil {
		t.Fatal(err)
	}
	h.keep("the master key", string(master))
	admin := administrator(t, s)
	h.keep("the administrator's secret", admin.ClientSecret)

	h.registrySecrets()
	h.directorySecrets(admin)
	h.tokens(admin)
	h.networkSecrets(dir)
	h.outgoing(admin)
	h.lies()

	flush := func() { s.Cove(t, "logs", "query", "ContainerRegistryLoginEvents | count") }
	flush()
	log := s.Log()
	s.Kill(t)
	h.clean("the database after a kill", databaseOf(t, s))
	s.Start(t)
	h.lies2()
	flush()
	h.told()
	s.Stop(t)
	h.clean("the log", log+s.Log())
	h.clean("the database", databaseOf(t, s))
	h.clean("the answers", h.seen.String())
	if len(log) < 10_000 || !strings.Contains(log, "level=DEBUG") || h.seen.Len() < 5_000 {
		t.Errorf("too little was said to mean anything: %d of log, %d of answers", len(log), h.seen.Len())
	}
	t.Logf("%d secrets; %d KiB of logs, %d KiB of answers", len(h.secrets), (len(log)+len(s.Log()))>>10, h.seen.Len()>>10)
	if len(h.secrets) < 50 {
		t.Errorf("%d secrets only", len(h.secrets))
	}

	// What the server is started with, and cannot use.
	password := h.plant("the database's password")
	out, _ := serveOnce(t, []string{"COVE_DATABASE=postgres://cove:" + url.PathEscape(password) + "@127.0.0.1:1/cove?connect_timeout=1"}, "--data", filepath.Join(dir, "other"),
		"--listen", "127.0.0.1:0", "--advertise", "127.0.0.1", "--dns", "", "--wireguard", "", "--admin", "", "--log-level", "debug")
	if out == "" {
		t.Error("a server without its database says nothing")
	}
	h.clean("a server without its database", out)
	out, _ = serveOnce(t, []string{"COVE_DATABASE=postgres://cove:" + password + "@ /"}, "--data", filepath.Join(dir, "other"))
	h.clean("a server with a database that is none", out)
}

func (h *hunt) registrySecrets() {
	s := h.s
	s.Cove(h, "registry", "create", "harbor", "--sku", "Premium", "--admin-enabled")
	id := s.Cove(h, "registry", "show", "harbor", "--query", "id", "-o", "tsv")
	bearer := "Bearer " + issued(h.T, s, administrator(h.T, s), canaryManagement)
	const version = "?api-version=2023-07-01"
	_, _, out := h.ask(http.MethodPost, canaryManagement+id+"/listCredentials"+version, "", "Authorization", bearer)
	h.keep("an admin password", h.got(out, "passwords", 0, "value"))
	h.keep("the other admin password", h.got(out, "passwords", 1, "value"))
	_, _, out = h.ask(http.MethodPost, canaryManagement+id+"/regenerateCredential"+version, `{"name":"password2"}`, "Authorization", bearer, "Content-Type", "application/json")
	h.keep("an admin password made anew", h.got(out, "passwords", 1, "value"))
	var made []map[string]any
	if err := json.Unmarshal([]byte(s.Cove(h, "token", "create", "robot", "--registry", "harbor", "--scope-map", "_repositories_pull", "-o", "json")), &made); err != nil {
		h.Fatal(err)
	}
	for i, name := range []string{"a token's password", "a token's other password"} {
		password := h.keep(name, h.got(made[i], "value"))
		if status, _, _ := h.ask(http.MethodGet, "https://"+canaryHost+"/v2/", "", "Authorization", basic("robot", password)); status != http.StatusOK {
			h.Errorf("%s: %d", name, status)
		}
	}
	s.Cove(h, "registry", "update", "harbor", "--data-endpoint-enabled")
	password := h.secrets["an admin password"]
	login := basic("harbor", password)
	_, head, _ := h.ask(http.MethodPost, "https://"+canaryHost+"/v2/app/blobs/uploads/?digest=sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "hello",
		"Authorization", login, "Content-Type", "application/octet-stream")
	_, head, _ = h.ask(http.MethodGet, "https://"+canaryHost+head.Get("Location"), "", "Authorization", login)
	at, err := url.Parse(head.Get("Location"))
	if err != nil || at.RawQuery == "" {
		h.Fatalf("no link to the data host: %v %v", head, err)
	}
	_, signature, _ := strings.Cut(at.RawQuery, ".")
	h.keep("a download link's signature", signature)
	for _, link := range []string{at.String(), strings.Replace(at.String(), "/app/", "/other/", 1), at.String() + "x"} {
		h.ask(http.MethodGet, link, "")
	}
}

func (h *hunt) directorySecrets(admin identity) {
	s := h.s
	graph := issued(h.T, s, admin, canaryGraph)
	h.keep("an access token for the directory", graph)
	reader := principal(h.T, s, "create", "reader", "--role", "AcrPull", "--registry", "harbor")
	h.keep("a client's secret", reader.ClientSecret)
	bearer := []string{"Authorization", "Bearer " + graph, "Content-Type", "application/json"}
	_, _, out := h.ask(http.MethodGet, canaryGraph+"/v1.0/servicePrincipals?$filter="+url.QueryEscape("servicePrincipalNames/any(c:c eq '"+reader.ClientID+"')"), "", bearer...)
	object := h.got(out, "value", 0, "id")
	_, _, out = h.ask(http.MethodPost, canaryGraph+"/v1.0/servicePrincipals/"+object+"/addPassword", `{"passwordCredential":{"displayName":"second"}}`, bearer...)
	h.keep("a client's second secret", h.got(out, "secretText"))

	password, next := h.plant("a person's password"), h.plant("a person's next password")
	text, _ := json.Marshal(map[string]any{"accountEnabled": true, "displayName": "Alice", "mailNickname": "alice", "userPrincipalName": "alice@cove.internal", "passwordProfile": map[string]any{"password": password}})
	_, _, out = h.ask(http.MethodPost, canaryGraph+"/v1.0/users", string(text), bearer...)
	person := func(password string) map[string]any {
		status, out := h.form(canaryLogin, nil, "grant_type", "password", "client_id", azCLI, "username", "alice@cove.internal", "password", password, "scope", canaryManagement+"/.default offline_access")
		if status != http.StatusOK {
			h.Errorf("a person signs in: %d %v", status, out)
		}
		return out
	}
	said := person(password)
	h.keep("a person's refresh token", h.got(said, "refresh_token"))
	h.keep("a person's access token", h.got(said, "access_token"))
	h.keep("a person's id token", h.got(said, "id_token"))
	h.form(canaryLogin, nil, "grant_type", "refresh_token", "client_id", azCLI, "refresh_token", h.secrets["a person's refresh token"], "scope", canaryManagement+"/.default")
	text, _ = json.Marshal(map[string]any{"passwordProfile": map[string]any{"password": next}})
	h.ask(http.MethodPatch, canaryGraph+"/v1.0/users/"+h.got(out, "id"), string(text), bearer...)
	h.form(canaryLogin, nil, "grant_type", "refresh_token", "client_id", azCLI, "refresh_token", h.secrets["a person's refresh token"], "scope", canaryManagement+"/.default")
	person(next)

	device := "https://login.cove.internal/adfs/oauth2/devicecode"
	_, began := h.form(device, nil, "client_id", azCLI, "scope", canaryManagement+"/.default")
	code, user := h.keep("a device code", h.got(began, "device_code")), h.keep("a user code", h.got(began, "user_code"))
	poll := func() map[string]any {
		_, out := h.form(canaryLogin, nil, "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", azCLI, "device_code", code)
		return out
	}
	poll()
	wrong := answerCode(h.T, h.s, "https://login.cove.internal/device", user, "alice@cove.internal", h.plant("a wrong password on the page"))
	h.seen.WriteString(strings.ReplaceAll(wrong, user, "")) // the page shows the code that was typed
	answerCode(h.T, h.s, "https://login.cove.internal/device", user, "alice@cove.internal", next)
	h.keep("a refresh token by a code", h.got(poll(), "refresh_token"))
}

func (h *hunt) tokens(admin identity) {
	arm := h.keep("an access token", issued(h.T, h.s, admin, canaryManagement))
	acr := h.keep("an access token for registries", issued(h.T, h.s, admin, "https://containerregistry.azure.net"))
	_, out := h.form("https://"+canaryHost+"/oauth2/exchange", nil, "grant_type", "access_token", "service", canaryHost, "access_token", acr)
	refresh := h.keep("a registry's refresh token", h.got(out, "refresh_token"))
	_, out = h.form("https://"+canaryHost+"/oauth2/token", nil, "grant_type", "refresh_token", "service", canaryHost, "scope", "repository:app:pull,push", "refresh_token", refresh)
	access := h.keep("a registry's access token", h.got(out, "access_token"))
	// Each where it belongs, and everywhere else.
	for _, token := range []string{arm, acr, refresh, access} {
		for _, target := range []string{
			canaryManagement + "/subscriptions?api-version=2022-12-01", canaryGraph + "/v1.0/users", "https://" + canaryHost + "/v2/_catalog", "https://" + canaryHost + "/v2/app/tags/list",
			"https://logs.cove.internal/v1/workspaces/x/query?query=1", "https://login.cove.internal/nothing", "https://" + canaryHost + "/oauth2/token?service=" + canaryHost,
		} {
			h.ask(http.MethodGet, target, "", "Authorization", "Bearer "+token)
			h.ask(http.MethodGet, target, "", "Authorization", basic("00000000-0000-0000-0000-000000000000", token))
		}
		h.form("https://"+canaryHost+"/oauth2/exchange", nil, "grant_type", "access_token", "service", canaryHost, "access_token", token)
		h.form("https://"+canaryHost+"/oauth2/token", nil, "grant_type", "refresh_token", "service", canaryHost, "refresh_token", token)
	}
}

var privateKey = regexp.MustCompile(`PrivateKey = (\S+)`)

func (h *hunt) networkSecrets(dir string) {
	s := h.s
	s.Cove(h, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	code := s.Cove(h, "join-code", "office/default", "--name", "laptop", "--for", "1h")
	conf := filepath.Join(dir, "laptop.conf")
	s.Cove(h, "join", code, "--out", conf)
	text, err := os.ReadFile(conf)
	if err != nil {
		h.Fatal(err)
	}
	m := privateKey.FindSubmatch(text)
	if m == nil {
		h.Fatalf("no key in %s", text)
	}
	h.keep("a member's WireGuard key", string(m[1]))
	h.keep("a join code", code)
	unused := h.keep("a join code that nobody has used", s.Cove(h, "join-code", "office/default", "--name", "phone", "--for", "1h"))
	for _, bad := range []string{code, unused[:len(unused)-9]} {
		_, errs, _ := s.Try(h, "join", bad, "--out", conf+"2")
		h.seen.WriteString(errs)
	}
}

// outgoing are credentials for others.
func (h *hunt) outgoing(admin identity) {
	s := h.s
	id := s.Cove(h, "registry", "show", "harbor", "--query", "id", "-o", "tsv")
	group, _, _ := strings.Cut(id, "/providers/")
	arm := []string{"Authorization", "Bearer " + issued(h.T, s, admin, canaryManagement), "Content-Type", "application/json"}
	var begun []string
	importImage := func(body map[string]any) {
		text, _ := json.Marshal(body)
		status, head, _ := h.ask(http.MethodPost, canaryManagement+id+"/importImage?api-version=2023-07-01", string(text), arm...)
		if status == http.StatusAccepted {
			begun = append(begun, head.Get("Location"))
		}
	}
	source := func(uri, password string) map[string]any {
		return map[string]any{"source": map[string]any{"registryUri": uri, "sourceImage": "a/b:c", "credentials": map[string]any{"username": "u", "password": password}}, "targetTags": []string{"b:c"}}
	}
	importImage(source("127.0.0.1:1", h.plant("an import's password")))
	importImage(source("registry.example.invalid", h.plant("an import's password for a host that is not there")))
	bad := source("harbor..", h.plant("a refused import's password"))
	bad["mode"] = "Sideways"
	importImage(bad)
	importImage(source("https://u:"+url.PathEscape(h.plant("a password in an import's address"))+"@registry.example.invalid", "p"))

	const version = "?api-version=2021-05-01-preview"
	sink := func(name, uri, value string) {
		text, _ := json.Marshal(map[string]any{"location": "local", "properties": map[string]any{"kind": "webhook", "uri": uri, "headers": map[string]any{"Authorization": value}}})
		h.ask(http.MethodPut, canaryManagement+group+"/providers/Cove.Diagnostics/sinks/"+name+version, string(text), arm...)
	}
	sink("hook", "https://127.0.0.1:1/in/"+url.PathEscape(h.plant("a webhook's path"))+"?sig="+url.QueryEscape(h.plant("a webhook's query")), "Bearer "+h.plant("a webhook's header"))
	sink("wrong", "https://u:"+url.PathEscape(h.plant("a password in a webhook's address"))+"@127.0.0.1:1/", h.plant("a refused webhook's header"))
	h.ask(http.MethodPut, canaryManagement+id+"/providers/Microsoft.Insights/diagnosticSettings/hook"+version,
		`{"properties":{"marketplacePartnerId":"`+group+`/providers/Cove.Diagnostics/sinks/hook","logs":[{"categoryGroup":"allLogs","enabled":true}]}}`, arm...)
	// The webhook cannot be reached, and that is said.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(covetest.Wait); !strings.Contains(s.Log(), "could not be sent to a sink"); {
		select {
		case <-tick.C:
			get(h.T, s.Outside(h), "https://"+canaryHost+"/v2/", "", "")
		case <-limit:
			h.Fatal("nothing is said of a webhook that cannot be reached")
		}
	}
	for _, location := range begun {
		for limit := time.After(covetest.Wait); ; {
			if status, _, _ := h.ask(http.MethodGet, location, "", arm...); status != http.StatusAccepted {
				break
			}
			select {
			case <-tick.C:
			case <-limit:
				h.Fatal("an import does not end")
			}
		}
	}
	for _, path := range []string{"sinks/hook", "sinks"} {
		_, _, out := h.ask(http.MethodGet, canaryManagement+group+"/providers/Cove.Diagnostics/"+path+version, "", arm...)
		fmt.Fprint(&h.seen, out)
	}
}

// lies are credentials that are none, at each edge and in each place where one
// may stand.
func (h *hunt) lies() {
	for i, target := range []string{
		canaryManagement + "/subscriptions?api-version=2022-12-01", canaryGraph + "/v1.0/me", "https://" + canaryHost + "/v2/app/tags/list",
		"https://harbor.local.data.cr.cove.internal/v2/app/blobs/sha256:" + strings.Repeat("a", 64), "https://logs.cove.internal/v1/workspaces/x/query",
		"https://login.cove.internal/adfs/.well-known/openid-configuration",
	} {
		edge := []string{"the Resource Manager", "the directory", "a registry", "a data host", "the logs", "the issuer"}[i]
		h.ask(http.MethodGet, target, "", "Authorization", "Bearer "+strings.ReplaceAll(h.plant("a bearer token at "+edge), "&", ""))
		h.ask(http.MethodGet, target, "", "Authorization", basic("harbor", h.plant("a password at "+edge)))
		h.ask(http.MethodGet, target, "", "Authorization", "Secret "+h.plant("a scheme that nobody knows at "+edge))
		h.ask(http.MethodGet, target, "", "Cookie", "session="+h.plant("a cookie at "+edge))
		h.ask(http.MethodGet, target, "", "X-Api-Key", h.plant("a key in a header at "+edge))
		join := "?"
		if strings.Contains(target, "?") {
			join = "&"
		}
		h.ask(http.MethodGet, target+join+"access_token="+url.QueryEscape(h.plant("a token in an address at "+edge)), "")
	}
	h.form(canaryLogin, nil, "grant_type", "client_credentials", "client_id", azCLI, "client_secret", h.plant("a wrong secret"), "scope", canaryManagement+"/.default")
	h.form(canaryLogin, []string{"Authorization", basic(azCLI, h.plant("a wrong secret in a header"))}, "grant_type", "client_credentials", "scope", canaryManagement+"/.default")
	h.form(canaryLogin, nil, "grant_type", "password", "client_id", azCLI, "username", "alice@cove.internal", "password", h.plant("a wrong password"), "scope", canaryManagement+"/.default")
	h.form(canaryLogin, nil, "grant_type", "refresh_token", "client_id", azCLI, "refresh_token", h.plant("a wrong refresh token"), "scope", canaryManagement+"/.default")
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://token.example.invalid","sub":"x","aud":"api://AzureADTokenExchange"}`))
	h.form(canaryLogin, nil, "grant_type", "client_credentials", "client_id", azCLI, "client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
		"client_assertion", "eyJhbGciOiJSUzI1NiJ9."+claims+"."+base64.RawURLEncoding.EncodeToString([]byte(h.plant("a signature of an assertion"))), "scope", canaryManagement+"/.default")
	h.form(canaryLogin, nil, "grant_type", "urn:ietf:params:oauth:grant-type:device_code", "client_id", azCLI, "device_code", h.plant("a wrong device code"))
	h.form("https://"+canaryHost+"/oauth2/token", nil, "grant_type", "password", "service", canaryHost, "scope", "registry:catalog:*", "username", "harbor", "password", h.plant("a wrong password in a form"))
	h.form("https://"+canaryHost+"/oauth2/token", nil, "grant_type", "refresh_token", "service", canaryHost, "refresh_token", h.plant("a wrong refresh token of a registry"))
	h.form("https://"+canaryHost+"/oauth2/exchange", nil, "grant_type", "access_token", "service", canaryHost, "access_token", h.plant("a wrong access token to exchange"))
	// Ways in that are none: plain HTTP where TLS is spoken, and a proxy that
	// asks for no password.
	for addr, text := range map[string]string{
		h.s.Run.Listen[0]: "GET / HTTP/1.1\r\nHost: " + canaryHost + "\r\nAuthorization: " + basic("harbor", h.plant("a password in plain HTTP")) + "\r\n\r\n",
		h.s.Run.Connect:   "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\nProxy-Authorization: " + basic("u", h.plant("a proxy's password")) + "\r\n\r\n",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			h.Fatal(err)
		}
		if _, err := io.WriteString(c, text); err != nil {
			h.Fatal(err)
		}
		said, err := bufio.NewReader(c).ReadString('\n')
		if err != nil {
			h.Errorf("%s: %v", addr, err)
		}
		h.seen.WriteString(said)
		c.Close()
	}
	// A whole form that is not one, as programs with a mistake send it.
	h.ask(http.MethodPost, canaryLogin, `{"client_secret":"`+h.plant("a secret in JSON")+`"}`, "Content-Type", "application/json")
	h.ask(http.MethodPost, canaryManagement+"/"+url.PathEscape(h.plant("a secret in a path")), "", "Content-Type", "application/json")
}

// lies2 are some that were right before the server was killed.
func (h *hunt) lies2() {
	for _, name := range []string{"an admin password", "the other admin password", "a token's password", "a client's secret"} {
		h.ask(http.MethodGet, "https://"+canaryHost+"/v2/app/tags/list", "", "Authorization", basic("nobody", h.secrets[name]))
	}
	for _, name := range []string{"a registry's refresh token", "a registry's access token", "an access token", "a person's access token"} {
		h.ask(http.MethodGet, "https://"+canaryHost+"/v2/app/tags/list", "", "Authorization", "Bearer "+h.secrets[name])
	}
}

var anyID = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

// told is what the operator's own commands and addresses say.
func (h *hunt) told() {
	s := h.s
	var b strings.Builder
	for _, args := range [][]string{
		{"logs", "-o", "json"},
		{"logs", "--content", "-o", "json"},
		{"logs", "query", "ContainerRegistryLoginEvents", "-o", "json"},
		{"logs", "query", "ContainerRegistryRepositoryEvents", "-o", "json"},
		{"registry", "show", "harbor", "-o", "json"},
		{"registry", "list", "-o", "json"},
		{"token", "list", "--registry", "harbor", "-o", "json"},
		{"principal", "list", "-o", "json"},
		{"principal", "secret", "list", "reader", "-o", "json"},
		{"status"},
		{"vnet", "list", "-o", "json"},
	} {
		b.WriteString(s.Cove(h, args...))
	}
	refused := s.Cove(h, "logs", "--refused", "-o", "json")
	ids := map[string]bool{}
	for _, id := range anyID.FindAllString(refused, -1) {
		ids[id] = true
	}
	explained := 0
	for id := range ids {
		if explained == 12 {
			break
		}
		out, errs, status := s.Try(h, "explain", id)
		b.WriteString(out + errs)
		if status == 0 {
			explained++
		}
	}
	if explained < 5 {
		h.Errorf("%d of %d refusals are explained", explained, len(ids))
	}
	for _, path := range []string{"/metrics", "/readyz", "/healthz"} {
		_, _, body := get(h.T, http.DefaultClient, "http://"+s.Run.Admin+path, "", "")
		b.WriteString(body)
	}
	h.clean("what the operator is told", b.String())

	// Published failure 25: who may read everything reads no credential.
	watcher := principal(h.T, s, "create", "watcher", "--role", "Reader")
	arm := []string{"Authorization", "Bearer " + issued(h.T, s, watcher, canaryManagement), "Content-Type", "application/json"}
	read := func(id string) map[string]any {
		status, _, out := h.ask(http.MethodGet, canaryManagement+id+"?api-version=2023-07-01", "", arm...)
		if status != http.StatusOK {
			h.Errorf("a reader of %s: %d %v", id, status, out)
		}
		fmt.Fprint(&h.seen, out)
		return out
	}
	registry := s.Cove(h, "registry", "show", "harbor", "--query", "id", "-o", "tsv")
	all := read("/subscriptions/" + subscription(h.T, s) + "/resources")
	list, _ := all["value"].([]any)
	for i := range list {
		read(h.got(all, "value", i, "id"))
	}
	if len(list) < 3 {
		h.Errorf("a reader sees %v", all)
	}
	for _, below := range []string{"/tokens", "/tokens/robot", "/scopeMaps", "/providers/Microsoft.Insights/diagnosticSettings"} {
		read(registry + below)
	}
	for action, body := range map[string]string{"/listCredentials": "", "/regenerateCredential": `{"name":"password"}`, "/generateCredentials": `{"tokenId":"` + registry + `/tokens/robot"}`} {
		if status, _, out := h.ask(http.MethodPost, canaryManagement+registry+action+"?api-version=2023-07-01", body, arm...); status != http.StatusForbidden {
			h.Errorf("a reader at %s: %d %v", action, status, out)
		}
	}
	graph := []string{"Authorization", "Bearer " + issued(h.T, s, watcher, canaryGraph)}
	for _, set := range []string{"/users", "/applications", "/servicePrincipals", "/groups"} {
		_, _, out := h.ask(http.MethodGet, canaryGraph+"/v1.0"+set, "", graph...)
		fmt.Fprint(&h.seen, out)
	}
}

const azCLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"

// databaseOf is everything below the data folder but the files that are keys.
func databaseOf(t *testing.T, s *covetest.Server) string {
	t.Helper()
	var b bytes.Buffer
	err := filepath.WalkDir(s.Data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch filepath.Base(path) {
		case "admin.json", "master.key", "ca.key": // for the operator alone, mode 0600
			info, err := d.Info()
			if err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %o", path, info.Mode().Perm())
			}
			return err
		}
		text, err := os.ReadFile(path)
		b.Write(text)
		return err
	})
	if err != nil || b.Len() < 100<<10 {
		t.Fatalf("%d bytes of data: %v", b.Len(), err)
	}
	return b.String()
}

func pemLine(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 3 {
		t.Fatalf("%s is %s", name, text)
	}
	return lines[2] // the first line is the kind of key, much the same in all
}

// operatorPair is a certificate of the operator's own, and its key.
func operatorPair(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	plate := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "own"}, DNSNames: []string{"own.example"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, plate, plate, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "own.pem"), filepath.Join(dir, "own.key")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
