package scenarios

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// identity is somebody who signs in with a client id and a secret.
type identity struct{ ClientID, ClientSecret, TenantID, ObjectID, KeyID, Name string }

// administrator is the one of the first start.
func administrator(t *testing.T, s *covetest.Server) (who identity) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(s.Data, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &who); err != nil {
		t.Fatal(err)
	}
	return who
}

// principal makes one by cove's own command.
func principal(t *testing.T, s *covetest.Server, args ...string) (who identity) {
	t.Helper()
	out := s.Cove(t, append([]string{"principal", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &who); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if who.ClientSecret == "" || who.ObjectID == "" {
		t.Fatalf("principal %v says %s", args, out)
	}
	return who
}

// crane runs crane as who, with a store of credentials of its own.
func crane(t *testing.T, s *covetest.Server, who identity, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), covetest.Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, covetest.Crane(t), args...)
	cmd.Env = s.Env("HTTPS_PROXY=http://"+s.Run.Connect, "DOCKER_CONFIG="+filepath.Join(s.Data, "docker-"+who.ClientID))
	cmd.Stdin = strings.NewReader(who.ClientSecret)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// send is a request with a JSON body and a token, of which the answer is JSON.
func send(t *testing.T, s *covetest.Server, method, target, bearer, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	return exchange(t, s, req)
}

func form(t *testing.T, s *covetest.Server, target string, v url.Values) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(v.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return exchange(t, s, req)
}

func exchange(t *testing.T, s *covetest.Server, req *http.Request) (int, map[string]any) {
	t.Helper()
	resp, err := s.Outside(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if len(data) > 0 {
		if err := json.Unmarshal(data, &out); err != nil {
			t.Fatalf("%s %s: %d %s", req.Method, req.URL, resp.StatusCode, data)
		}
	}
	return resp.StatusCode, out
}

// issued is an access token of the issuer for an audience.
func issued(t *testing.T, s *covetest.Server, who identity, audience string) string {
	t.Helper()
	status, out := form(t, s, "https://login.cove.internal/"+who.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {who.ClientID}, "client_secret": {who.ClientSecret}, "scope": {audience + "/.default"},
	})
	text, _ := out["access_token"].(string)
	if status != http.StatusOK || text == "" {
		t.Fatalf("%s signs in: %d %v", who.ClientID, status, out)
	}
	return text
}

// soon waits until a condition holds. That a revocation takes ten seconds at
// most is proven where the clock is a test's own; here it is told how long it
// took.
func soon(t *testing.T, what string, holds func() bool) {
	t.Helper()
	begun := time.Now()
	for !holds() {
		if time.Since(begun) > covetest.Wait {
			t.Fatalf("after %v: not %s", covetest.Wait, what)
		}
	}
	t.Logf("%s after %v", what, time.Since(begun).Round(time.Millisecond))
}

// row:65 A service principal signs in with its client id and secret, right,
// wrong and expired; it may what its role on this registry says and nothing
// elsewhere; what `cove explain` prints as the fix lets the same request
// through; and what is taken away ends.
//
// Published failure 9.
func TestAServicePrincipalAndItsRoles(t *testing.T) {
	s := covetest.Start(t)
	const alpha, beta = "alpha1.cr.cove.internal", "beta22.cr.cove.internal"
	admin := administrator(t, s)
	layer := filepath.Join(s.Data, "layer.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: 5}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(layer, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	login := func(who identity, host string) {
		t.Helper()
		if out, err := crane(t, s, who, "auth", "login", host, "-u", who.ClientID, "--password-stdin"); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
	push := func(who identity, host, tag string) (string, error) {
		return crane(t, s, who, "append", "-f", layer, "-t", host+"/app:"+tag)
	}
	pull := func(who identity, host string) (string, error) {
		return crane(t, s, who, "pull", host+"/app:1", filepath.Join(s.Data, "pulled.tar"))
	}
	may := func(what, out string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, out)
		}
	}
	for _, host := range []string{alpha, beta} {
		s.Cove(t, "registry", "create", strings.TrimSuffix(host, ".cr.cove.internal"))
		login(admin, host)
		out, err := push(admin, host, "1")
		may("the administrator pushes", out, err)
	}

	ci := principal(t, s, "create", "ci", "--role", "AcrPull", "--registry", "alpha1")
	login(ci, alpha)
	login(ci, beta)
	out, err := pull(ci, alpha)
	may("a new principal pulls", out, err)

	// The other registry, and more than pulling, are refused. Each refusal is
	// followed by its own fix and tried again.
	for _, c := range []struct {
		name, reason string
		try          func() (string, error)
	}{
		{"push where it may pull", "COVE-PERM-001", func() (string, error) { return push(ci, alpha, "2") }},
		{"pull where it holds nothing", "COVE-PERM-002", func() (string, error) { return pull(ci, beta) }},
	} {
		out, err := c.try()
		if err == nil || !strings.Contains(out, "UNAUTHORIZED") {
			t.Fatalf("%s: %v\n%s", c.name, err, out)
		}
		ids := correlation.FindAllString(out, -1)
		if ids == nil {
			t.Fatalf("%s: no correlation id in\n%s", c.name, out)
		}
		var e struct {
			Reason string
			Fixes  []struct{ Command string }
		}
		if err := json.Unmarshal([]byte(s.Cove(t, "explain", "-o", "json", ids[len(ids)-1])), &e); err != nil {
			t.Fatal(err)
		}
		if e.Reason != c.reason || len(e.Fixes) != 1 || !strings.HasPrefix(e.Fixes[0].Command, "cove role assign ") {
			t.Fatalf("%s is explained by %+v", c.name, e)
		}
		s.Cove(t, strings.Fields(e.Fixes[0].Command)[1:]...)
		s.Cove(t, strings.Fields(e.Fixes[0].Command)[1:]...) // twice is once
		out, err = c.try()
		may(c.name+", after the fix", out, err)
	}

	// A session that is under way ends with the role that it lives from.
	_, got := form(t, s, "https://"+alpha+"/oauth2/token", url.Values{
		"grant_type": {"password"}, "service": {alpha}, "username": {ci.ClientID}, "password": {ci.ClientSecret}, "scope": {"repository:app:pull,push"},
	})
	session, _ := got["access_token"].(string)
	upload := func() int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+alpha+"/v2/app/blobs/uploads/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+session)
		resp, err := s.Outside(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	manifest := func() int {
		t.Helper()
		status, _ := send(t, s, http.MethodGet, "https://"+alpha+"/v2/app/manifests/1", session, "")
		return status
	}
	if a, b := upload(), manifest(); a != http.StatusAccepted || b != http.StatusOK {
		t.Fatalf("a session of its own: upload %d, manifest %d", a, b)
	}
	name := s.Cove(t, "role", "list", "--registry", "alpha1", "--query", "[?role=='AcrPush'].name", "-o", "tsv")
	s.Cove(t, "role", "remove", name, "--registry", "alpha1")
	if a, b := upload(), manifest(); a != http.StatusUnauthorized || b != http.StatusOK {
		t.Errorf("the very next request after AcrPush is gone: upload %d, manifest %d", a, b)
	}

	// Wrong, expired, of another tenant.
	v2 := func(user, password string) int {
		status, _, _ := get(t, s.Outside(t), "https://"+alpha+"/v2/", user, password)
		return status
	}
	if v2(ci.ClientID, ci.ClientSecret) != http.StatusOK || v2(ci.ClientID, ci.ClientSecret+"x") != http.StatusUnauthorized || v2(ci.ObjectID, ci.ClientSecret) != http.StatusUnauthorized {
		t.Error("the right secret is refused, or a wrong pair is let in")
	}
	arm := issued(t, s, ci, "https://management.cove.internal")
	for tenant, want := range map[string]int{ci.TenantID: http.StatusOK, "0a0a0a0a-0000-4000-8000-00000000000f": http.StatusUnauthorized} {
		if status, out := form(t, s, "https://"+alpha+"/oauth2/exchange", url.Values{"grant_type": {"access_token"}, "service": {alpha}, "tenant": {tenant}, "access_token": {arm}}); status != want {
			t.Errorf("exchanged as of the tenant %s: %d %v", tenant, status, out)
		}
	}
	graph := issued(t, s, admin, "https://graph.cove.internal")
	short := ""
	for life := 3 * time.Second; short == ""; life *= 2 {
		end := time.Now().Add(life)
		status, made := send(t, s, http.MethodPost, "https://graph.cove.internal/v1.0/servicePrincipals/"+ci.ObjectID+"/addPassword", graph,
			`{"passwordCredential":{"displayName":"short","endDateTime":"`+end.UTC().Format(time.RFC3339Nano)+`"}}`)
		text, _ := made["secretText"].(string)
		if status == http.StatusOK && v2(ci.ClientID, text) == http.StatusOK {
			short = text
		} else if time.Now().Before(end) || life > covetest.Wait/2 { // else the machine was too busy for it
			t.Fatalf("a short-lived secret: %d %v", status, made)
		}
	}
	soon(t, "refused for being expired", func() bool { return v2(ci.ClientID, short) == http.StatusUnauthorized })
	if log := s.Cove(t, "logs", "--refused", "--query", "[].ReasonCode", "-o", "tsv"); !strings.Contains(log, "COVE-AUTH-003") {
		t.Errorf("the expired secret is on record as\n%s", log)
	}

	// The secret is removed: nobody signs in with it, and what was ends.
	next := principal(t, s, "secret", "add", "ci", "--name", "next")
	if v2(ci.ClientID, next.ClientSecret) != http.StatusOK {
		t.Error("another secret does not work at once")
	}
	s.Cove(t, "principal", "secret", "remove", ci.ClientID, ci.KeyID)
	soon(t, "out with the removed secret", func() bool {
		return manifest() == http.StatusUnauthorized && v2(ci.ClientID, ci.ClientSecret) == http.StatusUnauthorized
	})
	if out, err := pull(ci, alpha); err == nil {
		t.Errorf("crane still pulls with the removed secret\n%s", out)
	}
	if v2(next.ClientID, next.ClientSecret) != http.StatusOK {
		t.Error("the other secret was removed too")
	}
	s.Cove(t, "principal", "delete", "ci")
	soon(t, "out with the principal", func() bool { return v2(next.ClientID, next.ClientSecret) == http.StatusUnauthorized })
	if list := s.Cove(t, "principal", "list"); strings.Contains(list, ci.ClientID) || !strings.Contains(list, "cove-admin") {
		t.Errorf("after the deletion there is\n%s", list)
	}
}

// row:73 Who holds roleAssignments/write at a scope assigns roles there:
// Owner, User Access Administrator and Role Based Access Control
// Administrator; everybody else is refused with 403, by cove's command as by
// any client.
func TestWhoMayAssignRoles(t *testing.T) {
	s := covetest.Start(t)
	const management = "https://management.cove.internal"
	s.Cove(t, "registry", "create", "alpha1")
	s.Cove(t, "registry", "create", "beta22")
	id := func(name string) string {
		return s.Cove(t, "registry", "show", name, "--query", "id", "-o", "tsv")
	}
	alpha, beta := id("alpha1"), id("beta22")
	target := principal(t, s, "create", "target")
	const role = "/providers/Microsoft.Authorization/roleDefinitions/7f951dda-4ed3-4680-a7ca-43fe172d538d"
	n := 0
	assign := func(bearer, scope, who string) (int, map[string]any, string) {
		n++
		at := management + scope + "/providers/Microsoft.Authorization/roleAssignments/00000000-0000-4000-8000-0000000000" + string(rune('a'+n/10%6)) + string(rune('0'+n%10)) + "?api-version=2020-04-01-preview"
		status, out := send(t, s, http.MethodPut, at, bearer, `{"properties":{"roleDefinitionId":"`+role+`","principalId":"`+who+`"}}`)
		return status, out, at
	}
	for _, c := range []struct {
		role, registry string
		alpha, beta    int
	}{
		{"Role Based Access Control Administrator", "alpha1", http.StatusCreated, http.StatusForbidden},
		{"User Access Administrator", "", http.StatusCreated, http.StatusCreated},
		{"Owner", "beta22", http.StatusForbidden, http.StatusCreated},
		{"Contributor", "", http.StatusForbidden, http.StatusForbidden},
		{"Container Registry Contributor and Data Access Configuration Administrator", "", http.StatusForbidden, http.StatusForbidden},
		{"Reader", "", http.StatusForbidden, http.StatusForbidden},
		{"AcrPush", "alpha1", http.StatusForbidden, http.StatusForbidden},
	} {
		args := []string{"create", "holder " + c.role, "--role", c.role}
		if c.registry != "" {
			args = append(args, "--registry", c.registry)
		}
		holder := principal(t, s, args...)
		bearer := issued(t, s, holder, management)
		for scope, want := range map[string]int{alpha: c.alpha, beta: c.beta} {
			status, out, at := assign(bearer, scope, target.ObjectID)
			if status != want {
				t.Errorf("%s at %q assigns at %s: %d %v", c.role, c.registry, lastSegment(scope), status, out)
			}
			e, _ := out["error"].(map[string]any)
			text, _ := e["message"].(string)
			if status == http.StatusForbidden && (e["code"] != "AuthorizationFailed" || !strings.Contains(text, "Microsoft.Authorization/roleAssignments/write") || !strings.Contains(text, holder.ClientID)) {
				t.Errorf("the refusal says %v", out)
			}
			if status == http.StatusCreated {
				p, _ := out["properties"].(map[string]any)
				if p["principalType"] != "ServicePrincipal" || p["createdBy"] != holder.ObjectID {
					t.Errorf("%v", p)
				}
				// Who gives takes away.
				if status, out := send(t, s, http.MethodDelete, at, bearer, ""); status != http.StatusOK {
					t.Errorf("%s takes the role away: %d %v", c.role, status, out)
				}
			}
		}
	}

	// What can be assigned: to whom there is, and once.
	owner := issued(t, s, administrator(t, s), management)
	for who, code := range map[string]string{"99999999-0000-4000-8000-000000000001": "PrincipalNotFound", target.ClientID: "PrincipalNotFound"} {
		if status, out, _ := assign(owner, alpha, who); status != http.StatusBadRequest || out["error"].(map[string]any)["code"] != code {
			t.Errorf("to %s: %d %v", who, status, out)
		}
	}
	if status, out, _ := assign(owner, alpha, target.ObjectID); status != http.StatusCreated {
		t.Fatal(status, out)
	}
	if status, out, _ := assign(owner, alpha, strings.ToUpper(target.ObjectID)); status != http.StatusConflict || out["error"].(map[string]any)["code"] != "RoleAssignmentExists" {
		t.Errorf("the same again: %d %v", status, out)
	}
	// By cove's own command the same again is as good as the first time.
	if out := s.Cove(t, "role", "assign", target.ObjectID, "AcrPull", "--scope", alpha); !strings.Contains(out, "AcrPull") {
		t.Error(out)
	}
}

func lastSegment(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }

// row:74 Managing a registry takes the role Container Registry Contributor and
// Data Access Configuration Administrator or more; what only reaches the
// content, or only looks, is refused with 403, and what manages does not reach
// the content.
func TestWhoMayManageARegistry(t *testing.T) {
	s := covetest.Start(t)
	const management = "https://management.cove.internal"
	s.Cove(t, "registry", "create", "alpha1")
	id := s.Cove(t, "registry", "show", "alpha1", "--query", "id", "-o", "tsv")
	const ok, no = http.StatusOK, http.StatusForbidden
	for _, c := range []struct {
		role                    string
		show, change, keys, use int
	}{
		{"Container Registry Contributor and Data Access Configuration Administrator", ok, ok, ok, http.StatusUnauthorized},
		{"Container Registry Configuration Reader and Data Access Configuration Reader", ok, no, ok, http.StatusUnauthorized},
		{"Contributor", ok, ok, ok, ok},
		{"Owner", ok, ok, ok, ok},
		{"Reader", ok, no, no, ok},
		{"AcrPush", no, no, no, ok},
		{"Role Based Access Control Administrator", ok, no, no, ok}, // */read, as Reader
	} {
		who := principal(t, s, "create", "holder "+c.role, "--role", c.role, "--registry", "alpha1")
		bearer := issued(t, s, who, management)
		ask := func(method, path, body string) int {
			status, _ := send(t, s, method, management+id+path+"?api-version=2025-04-01", bearer, body)
			return status
		}
		show, change := ask(http.MethodGet, "", ""), ask(http.MethodPatch, "", `{"properties":{"adminUserEnabled":true}}`)
		keys := ask(http.MethodPost, "/listCredentials", "{}")
		_, got := form(t, s, "https://alpha1.cr.cove.internal/oauth2/token", url.Values{
			"grant_type": {"password"}, "service": {"alpha1.cr.cove.internal"}, "username": {who.ClientID}, "password": {who.ClientSecret}, "scope": {"repository:app:pull"},
		})
		token, _ := got["access_token"].(string)
		use := http.StatusUnauthorized
		// The repository is not there: 404 is for who may look.
		if status, _ := send(t, s, http.MethodGet, "https://alpha1.cr.cove.internal/v2/app/tags/list", token, ""); status == http.StatusNotFound {
			use = ok
		}
		if show != c.show || change != c.change || keys != c.keys || use != c.use {
			t.Errorf("%s: shows %d, changes %d, lists credentials %d, pulls %d; want %d, %d, %d, %d", c.role, show, change, keys, use, c.show, c.change, c.keys, c.use)
		}
	}
}

// The Azure CLI makes a principal, gives and takes its roles and renews its
// secret, unmodified, and each command has its effect at the registry.
func TestRootAzMakesAPrincipal(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "alpha1")
	id := s.Cove(t, "registry", "show", "alpha1", "--query", "id", "-o", "tsv")
	dir := t.TempDir()
	s.Cove(t, "az", "--out", dir)
	shims, err := filepath.Abs("az")
	if err != nil {
		t.Fatal(err)
	}
	az := func(args ...string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // az is slow where the machine is busy
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", append([]string{"-c", `. "$0"/env.sh >/dev/null 2>&1; exec az "$@"`, dir}, args...)...)
		cmd.Env = s.Env("PYTHONPATH=" + shims)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			return errs.String(), err
		}
		return strings.TrimSpace(out.String()), nil
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := az(args...)
		if err != nil {
			t.Fatalf("az %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return out
	}
	admin := administrator(t, s)
	run("login", "--service-principal", "-u", admin.ClientID, "-p", admin.ClientSecret, "--tenant", admin.TenantID, "-o", "none")
	var made struct{ AppID, Password, Tenant string }
	if err := json.Unmarshal([]byte(run("ad", "sp", "create-for-rbac", "-n", "pipeline", "--role", "AcrPull", "--scopes", id, "-o", "json")), &made); err != nil || made.Tenant != admin.TenantID {
		t.Fatal(made, err)
	}
	const catalog = "https://alpha1.cr.cove.internal/v2/_catalog"
	pulls := func(password string) bool {
		t.Helper()
		status, _, _ := get(t, s.Outside(t), catalog, made.AppID, password)
		return status == http.StatusOK
	}
	if !pulls(made.Password) {
		t.Fatal("what create-for-rbac prints does not sign in")
	}
	if got := run("ad", "sp", "list", "--display-name", "pipe", "--query", "[].appId", "-o", "tsv"); got != made.AppID {
		t.Errorf("ad sp list: %s", got)
	}
	if got := run("ad", "app", "list", "--app-id", made.AppID, "--query", "[].displayName", "-o", "tsv"); got != "pipeline" {
		t.Errorf("ad app list: %s", got)
	}
	reset := run("ad", "sp", "credential", "reset", "--id", made.AppID, "--query", "password", "-o", "tsv")
	if !pulls(reset) {
		t.Error("what credential reset prints does not sign in")
	}
	if got := run("role", "assignment", "create", "--assignee", made.AppID, "--role", "AcrPush", "--scope", id, "--query", "principalType", "-o", "tsv"); got != "ServicePrincipal" {
		t.Errorf("role assignment create: %s", got)
	}
	if got := run("role", "assignment", "list", "--scope", id, "--query", "sort([].roleDefinitionName)", "-o", "tsv"); got != "AcrPull\nAcrPush" {
		t.Errorf("role assignment list: %q", got)
	}
	run("role", "assignment", "delete", "--assignee", made.AppID, "--scope", id)
	if pulls(reset) {
		t.Error("role assignment delete leaves what it was for")
	}
	if got := run("role", "assignment", "list", "--scope", id, "-o", "tsv"); got != "" {
		t.Errorf("after the deletion: %q", got)
	}
	run("ad", "app", "delete", "--id", made.AppID)
	if out, err := az("ad", "sp", "show", "--id", made.AppID); err == nil || !strings.Contains(out, "does not exist") {
		t.Errorf("the principal is still there: %v %s", err, out)
	}
}
