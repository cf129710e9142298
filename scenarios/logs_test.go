package scenarios

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// post sends JSON with a bearer token and returns status and body.
func post(t *testing.T, c *http.Client, url, token, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatalf("%d %s", resp.StatusCode, b)
	}
	return resp.StatusCode, out
}

// cells are the rows of an answer, or its error.
func cells(status int, body map[string]any) string {
	if status != http.StatusOK {
		e, _ := body["error"].(map[string]any)
		inner, _ := e["innererror"].(map[string]any)
		return fmt.Sprintf("%d %v %v: %v", status, e["code"], inner["code"], e["message"])
	}
	tables, _ := body["tables"].([]any)
	table, _ := tables[0].(map[string]any)
	rows, _ := table["rows"].([]any)
	return fmt.Sprint(rows)
}

// The API of log queries, as programs written for Log Analytics ask it: each
// caller is answered from the registries that they may read.
//
// row:86
// row:87
func TestLogQueries(t *testing.T) {
	s := covetest.Start(t)
	for _, name := range []string{"harbor", "quay1"} {
		s.Cove(t, "registry", "create", name, "--admin-enabled")
		get(t, s.Outside(t), "https://"+name+".cr.cove.internal/v2/", name, "wrong")
	}
	s.Cove(t, "registry", "update", "harbor", "--public-network-enabled", "false")
	get(t, s.Outside(t), "https://harbor.cr.cove.internal/v2/", "", "")

	admin := administrator(t, s)
	group := "/subscriptions/" + subscription(t, s) + "/resourceGroups/cove"
	reader := principal(t, s, "create", "reader", "--role", "Reader", "--registry", "quay1")
	puller := principal(t, s, "create", "puller", "--role", "AcrPull", "--registry", "quay1")
	const logs = "https://logs.cove.internal"
	workspace := logs + "/v1/workspaces/" + subscription(t, s) + "/query"
	const failures = `{"query":"ContainerRegistryLoginEvents | where ResultDescription != \"200\" | sort by TimeGenerated asc | project LoginServer, Identity, CallerIpAddress, ResultDescription, ReasonCode"}`
	of := func(who identity, audience string) string { return issued(t, s, who, audience) }
	harbor := "[harbor.cr.cove.internal  127.0.0.1 401 COVE-AUTH-002]"
	quay := "[quay1.cr.cove.internal  127.0.0.1 401 COVE-AUTH-002]"
	refused := "[harbor.cr.cove.internal  127.0.0.1 403 COVE-NET-001]"
	for _, c := range []struct{ what, token, url, body, want string }{
		{"all of them", of(admin, logs), workspace, failures, "[" + harbor + " " + quay + " " + refused + "]"},
		{"the public cloud's audience", of(admin, "https://api.loganalytics.io"), workspace, failures, "[" + harbor + " " + quay + " " + refused + "]"},
		{"the Resource Manager's audience", of(admin, "https://management.cove.internal"), workspace, failures, "[" + harbor + " " + quay + " " + refused + "]"},
		{"of one registry", of(admin, logs), logs + "/v1" + group + "/providers/Microsoft.ContainerRegistry/registries/quay1/query", failures, "[" + quay + "]"},
		{"a reader of one", of(reader, logs), workspace, failures, "[" + quay + "]"},
		{"who may pull and not read", of(puller, logs), workspace, failures, "[]"},
		{"no token", "", workspace, failures, "401 AuthorizationRequiredError <nil>: Authentication failed. The 'Authorization' header is missing."},
		{"a token for the directory", of(admin, "https://graph.cove.internal"), workspace, failures, "401 AuthorizationRequiredError <nil>: The access token has been obtained for another audience."},
		{"a mistake", of(admin, logs), workspace, `{"query":"ContainerRegistryLoginEvents\n| where Identty == 'x'"}`, "400 BadArgumentError SemanticError: line 2, column 9: there is no column Identty here; did you mean Identity?"},
		{"no query", of(admin, logs), workspace, `{}`, "400 BadArgumentError <nil>: The request has no query."},
		{"no JSON", of(admin, logs), workspace, `query`, `400 BadArgumentError <nil>: The body is not JSON of the form {"query": "…", "timespan": "PT1H"}.`},
		{"a timespan before anything", of(admin, logs), workspace, `{"query":"ContainerRegistryLoginEvents | count","timespan":"2020-01-01/2020-01-02"}`, "[[0]]"},
		{"a timespan that is none", of(admin, logs), workspace, `{"query":"ContainerRegistryLoginEvents | count","timespan":"1h"}`, `400 BadArgumentError <nil>: the timespan "1h" is not valid; write PT1H, P1D, or two of start, end and duration: 2026-11-21T09:00:00Z/PT1H`},
		{"another path", of(admin, logs), logs + "/v1/query", failures, "404 PathNotFoundError <nil>: The requested path does not exist"},
		{"another workspace", of(admin, logs), logs + "/v1/workspaces/x/query", failures, "404 WorkspaceNotFoundError <nil>: the workspace could not be found"},
		{"the Resource Manager", of(admin, "https://management.cove.internal"), "https://management.cove.internal" + group + "/providers/Microsoft.Insights/logs?api-version=2018-08-01", failures, "[" + harbor + " " + quay + " " + refused + "]"},
	} {
		if got := cells(post(t, s.Outside(t), c.url, c.token, c.body)); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
	}
	out := s.Cove(t, "logs", "query", "--registry", "quay1", "--since", "1h", "-o", "tsv", "ContainerRegistryLoginEvents | project ReasonCode")
	if out != "COVE-AUTH-002" {
		t.Errorf("cove logs query prints %q", out)
	}
	_, errs, status := s.Try(t, "logs", "query", "ContainerRegistryLoginEvents | wher true")
	if status != 1 || !strings.Contains(errs, "line 1, column 32: there is no operator wher; did you mean where?") {
		t.Errorf("a mistake: status %d, %s", status, errs)
	}
	resp, err := http.Get("http://" + s.Run.Admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`cove_access_refusals_total{reason="COVE-NET-001"} 1`, `cove_access_refusals_total{reason="COVE-AUTH-002"} 2`, `cove_audit_events_total{operation="Login",status="4xx"} 3`, `cove_audit_request_seconds_count{operation="Login"} 3`} {
		if !strings.Contains(string(metrics), want+"\n") {
			t.Errorf("no %s in the metrics", want)
		}
	}
}

func subscription(t *testing.T, s *covetest.Server) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.Data, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	var admin struct{ SubscriptionID string }
	if err := json.Unmarshal(data, &admin); err != nil {
		t.Fatal(err)
	}
	return admin.SubscriptionID
}

// listener is a webhook with a certificate of its own, at an address that it
// keeps.
type listener struct {
	mu   sync.Mutex
	down bool
	ids  []string
}

func (l *listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct{ Records []map[string]any }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if r.Header.Get("Authorization") != "Bearer canary" || r.URL.RequestURI() != "/services/T0-canary?sig=canary" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	for _, rec := range body.Records {
		id, _ := rec["DecisionId"].(string)
		l.ids = append(l.ids, id)
	}
}

func (l *listener) set(down bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = down
}

// missing are ids that it has not got.
func (l *listener) missing(want []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(want), func(id string) bool { return slices.Contains(l.ids, id) })
}

// ownCertificate makes a certificate for 127.0.0.1 and writes it to a file.
func ownCertificate(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "webhook"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "webhook.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

// A diagnostic setting sends events to a webhook and to a file. While the
// webhook is down and the server is killed, nothing is lost.
//
// row:97
func TestSinksSurviveAKill(t *testing.T) {
	cert, ca := ownCertificate(t)
	hook := &listener{}
	web := httptest.NewUnstartedServer(hook)
	web.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	web.StartTLS()
	t.Cleanup(web.Close)
	s := covetest.Start(t, "--outbound-ca", ca, "--outbound-allow", "logs=127.0.0.0/8")
	s.Cove(t, "registry", "create", "harbor")
	// The address is a credential, and so is the header; nobody reads them again.
	secrets := t.TempDir()
	overwrite(t, filepath.Join(secrets, "address"), web.URL+"/services/T0-canary?sig=canary\n")
	overwrite(t, filepath.Join(secrets, "headers"), "Authorization: Bearer canary\nX-Of: cove\n")
	s.Cove(t, "logs", "sink", "create", "hook", "--webhook-file", filepath.Join(secrets, "address"), "--header-file", filepath.Join(secrets, "headers"))
	s.Cove(t, "logs", "sink", "create", "file", "--file", "--max-mib", "2", "--files", "3")
	for _, format := range []string{"table", "json"} {
		shown := s.Cove(t, "logs", "sink", "list", "-o", format) + s.Cove(t, "logs", "sink", "show", "hook", "-o", format)
		if strings.Contains(shown, "canary") || !strings.Contains(shown, web.URL) || !strings.Contains(shown, "X-Of") {
			t.Errorf("sinks are shown as\n%s", shown)
		}
	}
	s.Cove(t, "logs", "setting", "create", "hook", "--registry", "harbor", "--sink", "hook")
	s.Cove(t, "logs", "setting", "create", "file", "--registry", "harbor", "--sink", "file", "--category", "logins")
	if out := s.Cove(t, "logs", "setting", "list", "--registry", "harbor"); !strings.Contains(out, "allLogs") || !strings.Contains(out, "/sinks/file") {
		t.Errorf("settings are listed as\n%s", out)
	}
	if _, errs, status := s.Try(t, "logs", "sink", "delete", "hook"); status != 1 || !strings.Contains(errs, "delete the setting first") {
		t.Errorf("a sink in use is deleted: exit status %d, %s", status, errs)
	}
	var ids []string
	refuse := func() {
		t.Helper()
		_, h, _ := get(t, s.Outside(t), "https://harbor.cr.cove.internal/v2/", "", "")
		ids = append(ids, h.Get("X-Ms-Correlation-Request-Id"))
		// Asked about, it is kept: what a kill may take are the last 200 ms.
		s.Cove(t, "logs", "query", "ContainerRegistryLoginEvents | count")
	}
	wait := func(what string, missing func() []string) {
		t.Helper()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for limit := time.After(covetest.Wait); ; {
			left := missing()
			if len(left) == 0 {
				return
			}
			select {
			case <-tick.C:
			case <-limit:
				t.Fatalf("%s: %d of %d events are missing\n%s", what, len(left), len(ids), s.Log())
			}
		}
	}
	refuse()
	wait("the webhook", func() []string { return hook.missing(ids) })
	hook.set(true)
	refuse()
	s.Kill(t)
	s.Start(t)
	refuse()
	s.Kill(t)
	hook.set(false)
	s.Start(t)
	refuse()
	wait("the webhook, after two kills", func() []string { return hook.missing(ids) })
	wait("the file, after two kills", func() []string {
		b, err := os.ReadFile(filepath.Join(s.Data, "sinks", "file.jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return strings.Contains(string(b), `"DecisionId":"`+id+`"`) })
	})
	// What is no longer sent stays kept.
	s.Cove(t, "logs", "setting", "delete", "hook", "--registry", "harbor")
	s.Cove(t, "logs", "sink", "delete", "hook")
	if out := s.Cove(t, "logs", "query", "ContainerRegistryLoginEvents | count", "-o", "tsv"); out != fmt.Sprint(len(ids)) {
		t.Errorf("%s of %d events are kept", out, len(ids))
	}
}

// The real az: activity log, diagnostic settings, workspaces and queries, each
// with its effect.
//
// row:97
func TestRootLogsByTheAzureCLI(t *testing.T) {
	s := covetest.Start(t, "--region", "westeurope")
	c := openCLI(t, s)
	c.vars["LOGS"] = "https://logs.cove.internal"
	for _, r := range table(t, `
SUB = az account show --query id --output tsv
az group create --name one --location westeurope --output none
az acr create --name harbor --resource-group one --sku Premium --admin-enabled true --output none
HARBOR = az acr show --name harbor --query id --output tsv
! crane catalog harbor.cr.cove.internal
az monitor activity-log list --resource-group one --query "[].[operationName.value, status.value]" --output tsv
  ^Microsoft.ContainerRegistry/registries/write\tSucceeded$
az monitor activity-log list --resource-id $HARBOR --caller nobody --query "length(@)" --output tsv
  ^0$
az monitor diagnostic-settings categories list --resource $HARBOR --query "value[].name" --output tsv
  ^ContainerRegistryLoginEvents$
  ^ContainerRegistryRepositoryEvents$
az monitor log-analytics workspace create --resource-group one --workspace-name logs --location westeurope --query provisioningState --output tsv
  ^Succeeded$
WORKSPACE = az monitor log-analytics workspace show --resource-group one --workspace-name logs --query id --output tsv
CUSTOMER = az monitor log-analytics workspace show --resource-group one --workspace-name logs --query customerId --output tsv
az rest --method post --url $LOGS/v1/workspaces/$CUSTOMER/query --resource $LOGS --body "{'query':'ContainerRegistryLoginEvents | count'}" --query "tables[0].rows[0][0]" --output tsv
  ^0$
az monitor diagnostic-settings create --name all --resource $HARBOR --workspace $WORKSPACE --logs "[{category:ContainerRegistryLoginEvents,enabled:true}]" --query name --output tsv
  ^all$
az monitor diagnostic-settings list --resource $HARBOR --query "[].name" --output tsv
  ^all$
az monitor diagnostic-settings show --name all --resource $HARBOR --query "logs[].category" --output tsv
  ^ContainerRegistryLoginEvents$
az rest --method post --url $LOGS/v1/workspaces/$CUSTOMER/query --resource $LOGS --body "{'query':'ContainerRegistryLoginEvents | where toint(ResultDescription) != 200 | distinct LoginServer'}" --query "tables[0].rows[0][0]" --output tsv
  ^harbor.cr.cove.internal$
! az monitor diagnostic-settings create --name bad --resource $HARBOR --storage-account /subscriptions/$SUB/resourceGroups/one/providers/Microsoft.Storage/storageAccounts/x --logs "[{category:ContainerRegistryLoginEvents,enabled:true}]"
  is not a destination here
az monitor diagnostic-settings delete --name all --resource $HARBOR
az monitor diagnostic-settings list --resource $HARBOR --query "length(@)" --output tsv
  ^0$
az monitor log-analytics workspace delete --resource-group one --workspace-name logs --yes --force
! az monitor log-analytics workspace show --resource-group one --workspace-name logs
  .
`) {
		if !c.play(r) && r.set != "" {
			t.FailNow() // what follows needs it
		}
	}
}

// The queries of the registries' documentation, each sent by the real az over
// events that real clients have made: pulls, pushes, a tag and a repository
// that were deleted, a tag that is not there, a wrong password. `az monitor
// log-analytics query` is an extension, which az would have to fetch; az rest
// sends what it sends. An event's kind of artifact is what the manifest says.
//
// row:86
// row:87
func TestRootDocumentedQueriesByTheAzureCLI(t *testing.T) {
	s := covetest.Start(t)
	c := openCLI(t, s)
	c.vars["DIR"] = t.TempDir()
	layer(t, filepath.Join(c.vars["DIR"], "layer.tar"), "hello\n")
	do := func(text string) {
		for _, r := range table(c.t, text) {
			if !c.play(r) {
				c.t.FailNow() // what follows needs it
			}
		}
	}
	do(`
SUB = az account show --query id --output tsv
az group create --name one --location local --output none
az acr create --name harbor --resource-group one --sku Premium --admin-enabled true --output none
PASSWORD = az acr credential show --name harbor --query "passwords[0].value" --output tsv
crane auth login harbor.cr.cove.internal -u harbor -p $PASSWORD
crane append --new_layer $DIR/layer.tar --new_tag harbor.cr.cove.internal/team/app:v1
crane append --new_layer $DIR/layer.tar --new_tag harbor.cr.cove.internal/team/web:v1
crane tag harbor.cr.cove.internal/team/app:v1 v2
crane manifest harbor.cr.cove.internal/team/app:v1
! crane manifest harbor.cr.cove.internal/team/app:v9
az acr repository untag --name harbor --image team/app:v2
az acr repository delete --name harbor --repository team/web --yes --output none
crane auth login harbor.cr.cove.internal -u harbor -p wrong
! crane manifest harbor.cr.cove.internal/team/app:v1
`)
	c.vars["LOGS"] = "https://logs.cove.internal"
	for _, q := range []struct{ what, query, wants string }{
		{"the last 24 hours", `ContainerRegistryRepositoryEvents | where TimeGenerated > ago(1d)`, `
  ^harbor.cr.cove.internal.*Push.*team/app.*v1
  ^harbor.cr.cove.internal.*Pull.*team/app.*v1
`},
		{
			"the 100 latest", `union ContainerRegistryRepositoryEvents, ContainerRegistryLoginEvents | top 100 by TimeGenerated | project TimeGenerated, LoginServer, OperationName, Identity, Repository, DurationMs, Region, ResultType`, `
  ^20[^\t]*Z\tharbor.cr.cove.internal\tPull\tharbor\tteam/app\t[0-9]+\tlocal\tHttpStatusCode$
  ^20[^\t]*Z\tharbor.cr.cove.internal\tLogin\t[^\t]*\t[^\t]*\t[0-9]+\tlocal\tHttpStatusCode$
`,
		},
		{"who deleted a repository", `ContainerRegistryRepositoryEvents | where OperationName contains "Delete" | project LoginServer, OperationName, Repository, Identity, CallerIpAddress`, `
  ^harbor.cr.cove.internal\tDelete\tteam/web\t[^\t]+\t127.0.0.1$
  ! team/app
`},
		{"who deleted a tag", `ContainerRegistryRepositoryEvents | where OperationName contains "Untag" | project LoginServer, OperationName, Repository, Tag, Identity, CallerIpAddress`, `
  ^harbor.cr.cove.internal\tUntag\tteam/app\tv2\t[^\t]+\t127.0.0.1$
  ! Push
`},
		{"what failed in repositories", `ContainerRegistryRepositoryEvents | where ResultDescription contains "40" | project TimeGenerated, OperationName, Repository, Tag, ResultDescription`, `
  \tPull\tteam/app\tv9\t404$
  ! \t20[0-9]$
`},
		{"registry authentication failures", `ContainerRegistryLoginEvents | where ResultDescription != "200" | project TimeGenerated, Identity, CallerIpAddress, ResultDescription`, `
  ^20[^\t]*Z\t[^\t]*\t127.0.0.1\t401$
  ! \t200$
`},
		{"logins of the last hour", `ContainerRegistryLoginEvents | where TimeGenerated > ago(1h) | sort by TimeGenerated asc | project OperationName, ResultDescription, Identity`, `
  ^Login\t200\tharbor$
  ^Login\t401\t
`},
		{"what was pushed is of a kind, and has an id for cove explain", `ContainerRegistryRepositoryEvents | where OperationName == "Push" and ArtifactType != "" and DecisionId == CorrelationId and ReasonCode == "" | project ArtifactType, MediaType, Tag`, `
  ^application/vnd.docker.container.image.v1\+json\tapplication/vnd.docker.distribution.manifest.v2\+json\tv1$
`},
	} {
		// az rest reads a single quote within the body as a double one.
		c.vars["BODY"] = `{"query":"` + strings.ReplaceAll(q.query, `"`, `'`) + `"}`
		t.Run(q.what, func(t *testing.T) {
			c.t = t
			columns := "tables[0].rows"
			if !strings.Contains(q.query, "project") {
				columns = "tables[0].rows[*][1:]" // behind the time
			}
			do(`az rest --method post --url $LOGS/v1/workspaces/$SUB/query --resource $LOGS --body $BODY --query ` + columns + ` --output tsv` + q.wants)
		})
		c.t = t
	}
}
