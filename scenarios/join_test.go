package scenarios

import (
	"context"
	"encoding/json"
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

// joined is a server with one network, and a registry that only the network
// reaches.
func joined(t *testing.T) *covetest.Server {
	t.Helper()
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--public-network-enabled", "false", "--admin-enabled")
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	s.Cove(t, "dns", "zone", "create", "privatelink.cr.cove.internal")
	s.Cove(t, "dns", "link", "add", "privatelink.cr.cove.internal", "--vnet", "office")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "myregistry", "--subnet", "office/default", "--zone", "privatelink.cr.cove.internal")
	return s
}

// cove join -- COMMAND runs the command inside the network and returns its
// status; destinations outside the network are refused unless --direct.
func TestACommandRunsInsideTheNetwork(t *testing.T) {
	s := joined(t)
	inside := []string{"join", "office/default", "--userspace", "--name"}
	curl := func(name, target string, more ...string) (string, string, int) {
		return s.Try(t, append(append(append(inside, name), more...), "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", filepath.Join(s.Data, "ca.pem"), target)...)
	}
	if out, errs, status := curl("one", "https://myregistry.cr.cove.internal/v2/"); status != 0 || out != "401" {
		t.Errorf("inside: exit status %d, %q %s", status, out, errs)
	}
	if _, _, status := s.Try(t, append(append(inside, "two"), "--", "sh", "-c", "exit 7")...); status != 7 {
		t.Errorf("a command that ends with 7: exit status %d", status)
	}
	// A name is one machine's, until it is taken over or given up.
	if _, errs, status := curl("one", "https://myregistry.cr.cove.internal/v2/"); status != 1 || !strings.Contains(errs, "--replace") {
		t.Errorf("the same name again: exit status %d, %s", status, errs)
	}
	if out, errs, status := curl("one", "https://myregistry.cr.cove.internal/v2/", "--replace"); status != 0 || out != "401" {
		t.Errorf("with --replace: exit status %d, %q %s", status, out, errs)
	}
	s.Cove(t, "join", "office/default", "--name", "one", "--remove")
	if out, errs, status := curl("one", "https://myregistry.cr.cove.internal/v2/"); status != 0 || out != "401" {
		t.Errorf("after --remove: exit status %d, %q %s", status, out, errs)
	}
	// The public listener is outside the network.
	if _, errs, status := curl("three", "https://"+s.Run.Listen[0]+"/"); status == 0 || !strings.Contains(errs, "403") {
		t.Errorf("outside the network: exit status %d, %s", status, errs)
	}
	if _, errs, status := curl("four", "https://"+s.Run.Listen[0]+"/", "--direct"); strings.Contains(errs, "403") {
		t.Errorf("with --direct: exit status %d, %s", status, errs)
	}
}

// A join code works once, and only until its time is over; what is not a code
// is found out without asking anybody.
func TestAJoinCodeWorksOnce(t *testing.T) {
	s := joined(t)
	code := s.Cove(t, "join-code", "office/default", "--name", "laptop", "--for", "1h")
	conf := filepath.Join(t.TempDir(), "laptop.conf")
	s.Cove(t, "join", code, "--out", conf)
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"[Interface]", "PrivateKey = ", "Address = 10.0.0.", "[Peer]", "AllowedIPs = 10.0.0.0/16, 168.63.129.16/32, 100.100.100.100/32", "Endpoint = 127.0.0.1:"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the configuration lacks %q:\n%s", want, text)
		}
	}
	if info, err := os.Stat(conf); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration, which holds a private key: %v %v", info.Mode(), err)
	}
	if _, errs, status := s.Try(t, "join", code, "--out", conf+"2"); status != 1 || !strings.Contains(errs, "the join code is not valid") {
		t.Errorf("the second time: exit status %d, %s", status, errs)
	}
	if _, errs, status := s.Try(t, "join", code[:len(code)-9]); status != 1 || !strings.Contains(errs, "not copied whole") {
		t.Errorf("a code cut short: exit status %d, %s", status, errs)
	}
	// The file of another member is not overwritten, and the code not spent.
	other := s.Cove(t, "join-code", "office/default", "--name", "other")
	if _, errs, status := s.Try(t, "join", other, "--out", conf); status != 1 || !strings.Contains(errs, "exists") {
		t.Errorf("over a file that is there: exit status %d, %s", status, errs)
	}
	s.Cove(t, "join", other, "--out", conf+".other")
}

// Any standard WireGuard client can be a member: wg-quick takes the
// configuration that cove join writes. row:101 row:34
func TestRootAStandardWireGuardClientJoins(t *testing.T) {
	l := newLab(t)
	name := "wgquick.cr." + l.domain
	l.Cove(t, "registry", "create", "wgquick", "--public-network-enabled", "false", "--admin-enabled")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", "wgquick", "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	// An interface is named after its file.
	conf := filepath.Join(l.dir, "cvwg0.conf")
	l.Cove(t, "join", "office/default", "--name", "laptop", "--out", conf)
	l.on(t, l.inside, "env", "WG_SUDO=1", "wg-quick", "up", conf)
	t.Cleanup(func() { l.on(t, l.inside, "env", "WG_SUDO=1", "wg-quick", "down", conf) })
	if got := l.on(t, l.inside, "dig", "+short", name); !strings.Contains(got, "\n10.0.0.") {
		t.Errorf("%s leads to %s", name, got)
	}
	if got := l.on(t, l.inside, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", filepath.Join(l.Data, "ca.pem"), "https://"+name+"/v2/"); got != "401" {
		t.Errorf("through the endpoint: %s", got)
	}
	if out, err := l.try(t, l.outside, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", filepath.Join(l.Data, "ca.pem"), "https://"+name+"/v2/"); err != nil || out != "403" {
		t.Errorf("outside: %s %v", out, err)
	}
}

// The service principal of the first start signs in to a registry with its
// client id and secret, directly, through the token endpoint, and with an
// access token of the issuer that it exchanges.
func TestTheServicePrincipalSignsIn(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry")
	var admin struct{ TenantID, ClientID, ClientSecret string }
	data, err := os.ReadFile(filepath.Join(s.Data, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &admin); err != nil {
		t.Fatal(err)
	}
	const host = "myregistry.cr.cove.internal"
	for _, c := range []struct {
		user, password string
		want           int
	}{
		{admin.ClientID, admin.ClientSecret, http.StatusOK},
		{admin.ClientID, admin.ClientSecret + "x", http.StatusUnauthorized},
		{admin.TenantID, admin.ClientSecret, http.StatusUnauthorized},
		{"myregistry", admin.ClientSecret, http.StatusUnauthorized},
	} {
		if status, _, body := get(t, s.Outside(t), "https://"+host+"/v2/", c.user, c.password); status != c.want {
			t.Errorf("user %s: %d %s, want %d", c.user, status, body, c.want)
		}
	}
	post := func(target string, form url.Values) map[string]any {
		t.Helper()
		resp, err := s.Outside(t).PostForm(target, form)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var out map[string]any
		if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d %v %v", target, resp.StatusCode, out, err)
		}
		return out
	}
	arm := post("https://login.cove.internal/"+admin.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {admin.ClientID}, "client_secret": {admin.ClientSecret}, "scope": {"https://management.cove.internal//.default"},
	})["access_token"].(string)
	refresh := post("https://"+host+"/oauth2/exchange", url.Values{"grant_type": {"access_token"}, "service": {host}, "tenant": {admin.TenantID}, "access_token": {arm}})["refresh_token"].(string)
	access := post("https://"+host+"/oauth2/token", url.Values{"grant_type": {"refresh_token"}, "service": {host}, "scope": {"registry:catalog:*"}, "refresh_token": {refresh}})["access_token"].(string)
	for what, c := range map[string]struct{ user, password string }{
		"the refresh token as a password": {"00000000-0000-0000-0000-000000000000", refresh},
		"the access token as a password":  {"00000000-0000-0000-0000-000000000000", access},
	} {
		if status, _, body := get(t, s.Outside(t), "https://"+host+"/v2/_catalog", c.user, c.password); status != http.StatusOK {
			t.Errorf("%s: %d %s", what, status, body)
		}
	}
	// A token of the issuer is no password (source: the documentation of Azure Container Registry).
	if status, _, _ := get(t, s.Outside(t), "https://"+host+"/v2/", "00000000-0000-0000-0000-000000000000", arm); status != http.StatusUnauthorized {
		t.Errorf("the issuer's token as a password: %d", status)
	}
}

// A restart is not felt by a member: the server remembers where it was and
// calls it.
func TestAMemberSurvivesARestart(t *testing.T) {
	s := joined(t)
	m := enter(t, s, "office", "laptop")
	client := s.Through(t, m.proxy)
	const target = "https://myregistry.cr.cove.internal/v2/"
	if status, _, _ := get(t, client, target, "", ""); status != http.StatusUnauthorized {
		t.Fatalf("before: %d", status)
	}
	// Where members are is written down within seconds, not with each packet.
	remembered := func() bool {
		data, err := os.ReadFile(filepath.Join(s.Data, "wireguard-peers.json"))
		return err == nil && strings.Contains(string(data), "127.0.0.1:")
	}
	for deadline := time.Now().Add(covetest.Wait); !remembered(); {
		if time.Now().After(deadline) {
			t.Fatal("the member's address was never written down")
		}
		get(t, client, target, "", "")
	}
	port := s.Run.WireGuard
	s.Kill(t)
	client.CloseIdleConnections()
	s.StartWith(t, "--wireguard", port)
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("after: %d", resp.StatusCode)
			}
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the member has lost the server: %v", err)
		}
	}
}

// cove login keeps a profile from which the other commands find the server;
// the secret is read, never an argument, and cove logout forgets it.
func TestLoginIsRemembered(t *testing.T) {
	s := covetest.Start(t)
	var admin struct{ TenantID, SubscriptionID, ClientID, ClientSecret string }
	data, err := os.ReadFile(filepath.Join(s.Data, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &admin); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	run := func(stdin string, args ...string) (string, error) {
		cmd := exec.Command(covetest.Binary(t), args...)
		cmd.Stdin = strings.NewReader(stdin)
		for _, kv := range s.Env("HOME="+home, "XDG_CONFIG_HOME="+home, "HTTPS_PROXY=http://"+s.Run.Connect) {
			if !strings.HasPrefix(kv, "COVE_DATA=") {
				cmd.Env = append(cmd.Env, kv)
			}
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	login := []string{"login", "https://management.cove.internal", "--tenant", admin.TenantID, "--subscription", admin.SubscriptionID, "--client-id", admin.ClientID, "--ca-file", filepath.Join(s.Data, "ca.pem")}
	if out, err := run("wrong\n", login...); err == nil || !strings.Contains(out, "sign-in failed") {
		t.Errorf("with a wrong secret: %v %s", err, out)
	}
	if out, err := run(admin.ClientSecret+"\n", login...); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := run("", "registry", "create", "remote"); err != nil || !strings.Contains(out, "remote.cr.cove.internal") {
		t.Errorf("%v %s", err, out)
	}
	profile := filepath.Join(home, "cove", "profile.json")
	if info, err := os.Stat(profile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: %v %v", profile, info, err)
	}
	if out, err := run("", "logout"); err != nil {
		t.Errorf("%v %s", err, out)
	}
	if _, err := os.Stat(profile); !os.IsNotExist(err) {
		t.Errorf("the profile is still there: %v", err)
	}
}

// Where the usual resolver's address is taken on a machine, another one is the
// network's resolver for that member, and cove join says so instead of taking
// the machine's own resolver away.
func TestRootAMemberMayHaveAnotherResolver(t *testing.T) {
	l := newLab(t)
	name := "resolver.cr." + l.domain
	l.Cove(t, "registry", "create", "resolver")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", "resolver", "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	// This machine is inside a cloud: something answers there already.
	l.on(t, l.inside, "ip", "addr", "add", "168.63.129.16/32", "dev", "lo")
	l.background(t, l.inside, "started", nil, "dnsmasq", "--no-daemon", "--no-resolv", "--listen-address=168.63.129.16", "--bind-interfaces", "--no-hosts", "--log-facility=-")
	code := l.Cove(t, "join-code", "office/default", "--name", "laptop")
	if out, err := l.try(t, l.inside, covetest.Binary(t), "join", code, "--up"); err == nil || !strings.Contains(out, "answers DNS at 168.63.129.16 already") || !strings.Contains(out, "--resolver") {
		t.Fatalf("%v\n%s", err, out)
	}
	l.background(t, l.inside, "DNS is answered at 100.64.0.53", nil, covetest.Binary(t), "join", code, "--up", "--resolver", "100.64.0.53")
	for _, transport := range []string{"+notcp", "+tcp"} {
		if got := l.on(t, l.inside, "dig", "@100.64.0.53", transport, "+short", name); !strings.Contains(got, "\n10.0.0.") {
			t.Errorf("%s: %s leads to %s", transport, name, got)
		}
	}
	if got := l.on(t, l.inside, "dig", "@168.63.129.16", "+time=2", "+tries=1", "example.test"); strings.Contains(got, "no servers could be reached") {
		t.Errorf("the machine's own resolver is gone:\n%s", got)
	}
	other := l.Cove(t, "join-code", "office/default", "--name", "other")
	if out, _, status := l.Try(t, "join", other, "--out", "-", "--resolver", "10.0.3.4"); status != 1 {
		t.Errorf("a resolver among the network's own addresses was accepted:\n%s", out)
	}
}
