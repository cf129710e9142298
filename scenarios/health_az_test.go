package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// checker is the Azure CLI on a host, signed in, with settings that a test can
// change while it runs: they are files, which each command reads anew.
type checker struct {
	*cli
	tools   string // the folder that is its PATH
	netrc   string
	trusted string // the authorities that it trusts
	ours    []byte // what trusted holds before a test changes it
}

// newChecker starts it on h. It finds docker's client, and neither helm nor
// notary: Debian has none.
func newChecker(t *testing.T, l *lab, h host) *checker {
	t.Helper()
	c := &checker{tools: filepath.Join(l.dir, "tools"), netrc: filepath.Join(l.dir, "netrc"), trusted: filepath.Join(l.dir, "az", "ca-bundle.pem")}
	if err := os.Mkdir(c.tools, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr/bin/docker", filepath.Join(c.tools, "docker")); err != nil {
		t.Fatal(err)
	}
	l.Cove(t, "az", "--out", filepath.Join(l.dir, "az"))
	var err error
	if c.ours, err = os.ReadFile(c.trusted); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := l.command(ctx, h, "sh", "-ec", `. "$0/az/env.sh" >&2
		unset HTTPS_PROXY https_proxy
		az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none
		exec env PATH="$0/tools" /usr/bin/python3 "$1/az/many.py"`, l.dir, here(t))
	cmd.Env = append(cmd.Env, "PYTHONPATH="+filepath.Join(here(t), "az"), "NETRC="+c.netrc,
		"DOCKER_HOST=unix://"+filepath.Join(l.dir, "dockerd-"+h.name, "docker.sock"))
	c.cli = &cli{t: t, vars: map[string]string{}, errs: &bytes.Buffer{}, env: cmd.Env}
	cmd.Stderr = c.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("az ended with %v\n%s", err, c.errs.String())
		}
	})
	c.in, c.out = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	return c
}

var errorCode = regexp.MustCompile(`An error occurred: ([A-Z_]+)`)

// health runs az acr check-health and returns its exit status, all that it
// said, and the codes of its errors but those for helm and notary.
func (c *checker) health(t *testing.T, args ...string) (status int, said string, codes []string) {
	t.Helper()
	a := c.az(append([]string{"acr", "check-health", "--yes"}, args...))
	said = a.Out + a.Err
	for _, m := range errorCode.FindAllStringSubmatch(said, -1) {
		if m[1] != "HELM_COMMAND_ERROR" && m[1] != "NOTARY_COMMAND_ERROR" {
			codes = append(codes, m[1])
		}
	}
	return a.Status, said, codes
}

// azFault is a thing that is really broken, what az acr check-health makes of
// it, and what cove's own check does.
type azFault struct {
	name   string
	break_ func()
	args   []string // of az; "--name harbor" where there are none
	codes  []string // besides docker's
	status int
	says   []string
	layer  string // of cove check-health, and what it finds there; "" leaves it out
	code   reason.Code
	mend   func()
}

// The Azure CLI's own check, in a virtual network where one thing after the
// other is really broken: each code that a registry or a network can cause, its
// OK lines when all is well, and the OK line and every failure line of --vnet.
// cove's own check finds the cause where the other has a name for the symptom.
// row:84 row:88 row:51 row:56 row:57 row:64
func TestRootAzCheckHealth(t *testing.T) {
	f := newFaulty(t)
	c := newChecker(t, f.lab, f.inside)
	f.Cove(t, "registry", "create", "lonely")
	f.Cove(t, "vnet", "create", "empty", "--address-prefix", "10.9.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.9.0.0/24")
	data := "harbor.local.data"
	dataHost := data + ".cr." + f.domain
	address := f.addresses("pe")
	// A registry beside it in the network, and a machine that serves nothing.
	f.Cove(t, "registry", "create", "neighbour")
	f.Cove(t, "private-endpoint", "create", "next", "--registry", "neighbour", "--subnet", "office/default")
	neighbour := f.addresses("next")["neighbour.cr."+f.domain]
	machine := strings.Fields(f.on(t, f.inside, "ip", "-4", "-o", "addr", "show", "dev", "cove0"))[3]
	machine, _, _ = strings.Cut(machine, "/")
	wrongly := `DNS routing to registry "harbor" through private IP is incorrect. Expect: ` + address[f.host] + ", Actual: "

	// All is well: every line of the registry's and the network's part is OK.
	engine := t.Run("all is well", func(t *testing.T) {
		f.docker(t, f.inside)
		status, said, codes := c.health(t, "--name", "harbor", "--vnet", "office", "--ignore-errors")
		// The sample image is another registry's, which nothing here resolves.
		if status != 0 || !slices.Equal(codes, []string{"DOCKER_PULL_ERROR"}) {
			t.Errorf("exit status %d, %v\n%s", status, codes, said)
		}
		contains(
			t, said, "Docker daemon status: available", "Docker version: ", "lookup mcr.microsoft.com", "Azure CLI version: 2.",
			"DNS lookup to "+f.host+" at IP "+address[f.host]+" : OK", "Challenge endpoint https://"+f.host+"/v2/ : OK",
			"Fetch refresh token for registry '"+f.host+"' : OK", "Fetch access token for registry '"+f.host+"' : OK",
			"DNS routing to private endpoint : OK", "An error occurred: HELM_COMMAND_ERROR", "An error occurred: NOTARY_COMMAND_ERROR",
			"https://aka.ms/acr/health-check",
		)
		// Without --ignore-errors the first error is the last line.
		status, said, codes = c.health(t, "--name", "harbor")
		if status != 1 || !slices.Equal(codes, []string{"DOCKER_PULL_ERROR"}) || strings.Contains(said, "DNS lookup") || !strings.Contains(said, "https://aka.ms/acr/errors#docker_pull_error") {
			t.Errorf("exit status %d, %v\n%s", status, codes, said)
		}
		// A private endpoint is the network's, and no other network's.
		for _, x := range []struct {
			args []string
			want string
		}{
			{[]string{"--vnet", "office"}, "Registry name must be provided to verify DNS routings of its private endpoints"},
			{[]string{"--vnet", "office", "--name", "lonely"}, `Registry "lonely" doesn't have private endpoints to verify DNS routings.`},
			{[]string{"--vnet", "empty", "--name", "harbor"}, "Please make sure you provided correct vnet"},
		} {
			if status, said, _ := c.health(t, append(x.args, "--ignore-errors")...); status != 1 || !strings.Contains(said, x.want) {
				t.Errorf("%v: exit status %d\n%s", x.args, status, said)
			}
		}
	})
	if !engine {
		return
	}

	// From here on docker's engine is stopped, which is an error of its own.
	down := "DOCKER_COMMAND_ERROR"
	between := newInspector(t, f.lab, f.inside, "office", address[f.host])
	for _, x := range []azFault{
		{
			name: "nothing but docker's engine", args: []string{"--name", "harbor", "--vnet", "office"},
			says: []string{"Cannot connect to the Docker daemon", "DNS routing to private endpoint : OK"},
		},
		{
			name:   "docker's client is not there",
			break_: func() { remove(t, filepath.Join(c.tools, "docker")) },
			says:   []string{"Please verify if Docker client is installed and running."},
			mend: func() {
				if err := os.Symlink("/usr/bin/docker", filepath.Join(c.tools, "docker")); err != nil {
					t.Fatal(err)
				}
			},
		},
		{
			name:   "the record of the login server is gone",
			break_: func() { f.Cove(t, "dns", "record", "remove", f.zone, "harbor") },
			args:   []string{"--name", "harbor", "--vnet", "office"},
			codes:  []string{"CONNECTIVITY_DNS_ERROR"}, status: 1,
			says:  []string{"Failed to reach DNS for registry '" + f.host + "'", "Error resolving DNS for " + f.host, "DNS routing verification failed"},
			layer: health.LayerName, code: reason.PrivateNoRecord,
			mend: func() { f.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe") },
		},
		{
			name:   "the record of the data endpoint is gone",
			break_: func() { f.Cove(t, "dns", "record", "remove", f.zone, data) },
			args:   []string{"--name", "harbor", "--vnet", "office"}, status: 1,
			says: []string{
				"Fetch access token for registry '" + f.host + "' : OK", "Error resolving DNS for " + dataHost, "DNS routing verification failed",
			},
			layer: health.LayerData, code: reason.PrivateNoRecord,
			mend: func() { f.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe") },
		},
		{
			name: "the record of the login server is a machine's, which serves nothing",
			break_: func() {
				f.Cove(t, "dns", "record", "remove", f.zone, "harbor")
				f.Cove(t, "dns", "record", "add", f.zone, "harbor", machine)
			},
			args:  []string{"--name", "harbor", "--vnet", "office"},
			codes: []string{"CONNECTIVITY_CHALLENGE_ERROR"}, status: 1,
			says:  []string{"did not issue a challenge", wrongly + machine, "DNS routing verification failed"},
			layer: health.LayerName, code: reason.NameElsewhere,
			mend: func() { f.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe") },
		},
		{
			name: "the record of the login server is another registry's",
			break_: func() {
				f.Cove(t, "dns", "record", "remove", f.zone, "harbor")
				f.Cove(t, "dns", "record", "add", f.zone, "harbor", neighbour)
			},
			args:  []string{"--name", "harbor", "--vnet", "office"},
			codes: []string{"CONNECTIVITY_FORBIDDEN_ERROR"}, status: 1,
			says:  []string{wrongly + neighbour},
			layer: health.LayerName, code: reason.NameElsewhere,
			mend: func() { f.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe") },
		},
		{
			name: "the record of the login server is the data endpoint's: it serves, and is wrong all the same",
			break_: func() {
				f.Cove(t, "dns", "record", "remove", f.zone, "harbor")
				f.Cove(t, "dns", "record", "add", f.zone, "harbor", address[dataHost])
			},
			args: []string{"--name", "harbor", "--vnet", "office"}, status: 1,
			says: []string{"Fetch access token for registry '" + f.host + "' : OK", wrongly + address[dataHost]},
			mend: func() { f.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe") },
		},
		{
			name:   "the zone is not linked to the network",
			break_: func() { f.Cove(t, "dns", "link", "remove", f.zone, "office") },
			args:   []string{"--name", "harbor", "--vnet", "office"},
			codes:  []string{"CONNECTIVITY_FORBIDDEN_ERROR"}, status: 1,
			says:  []string{"Looks like you don't have access to registry '" + f.host + "'", "Actual: " + f.outside.gateway},
			layer: health.LayerName, code: reason.NamePublic,
			mend: func() { f.Cove(t, "dns", "link", "add", f.zone, "--vnet", "office") },
		},
		{
			name:   "the connection is rejected",
			break_: func() { f.Cove(t, "private-endpoint", "reject", "pe", "--registry", "harbor") },
			codes:  []string{"CONNECTIVITY_FORBIDDEN_ERROR"},
			says:   []string{"DNS lookup to " + f.host + " at IP " + address[f.host] + " : OK"},
			layer:  health.LayerChallenge, code: "COVE-NET-005",
			mend: func() { f.Cove(t, "private-endpoint", "approve", "pe", "--registry", "harbor") },
		},
		{
			name: "a stale password in .netrc is sent in place of a question",
			break_: func() {
				overwrite(t, c.netrc, "machine "+f.host+" login harbor password 0ld\n")
			},
			codes: []string{"CONNECTIVITY_AAD_LOGIN_ERROR"},
			says:  []string{"Challenge endpoint https://" + f.host + "/v2/ : OK", "does not support AAD login"},
			mend:  func() { remove(t, c.netrc) },
		},
		{
			name: "the registry takes no tokens of the resource manager",
			break_: func() {
				c.succeeds("acr", "config", "authentication-as-arm", "update", "--registry", "harbor", "--status", "disabled")
			},
			codes: []string{"CONNECTIVITY_REFRESH_TOKEN_ERROR"},
			says:  []string{"Challenge endpoint https://" + f.host + "/v2/ : OK", "Response code: 401"},
			mend: func() {
				c.succeeds("acr", "config", "authentication-as-arm", "update", "--registry", "harbor", "--status", "enabled")
			},
		},
		{
			name:   "a proxy reads TLS, and its authority is not trusted",
			break_: func() { between.begin(nil) },
			codes:  []string{"CONNECTIVITY_SSL_ERROR"},
			says:   []string{"Are you using a proxy server?"},
			layer:  health.LayerTLS, code: reason.AuthorityUnknown,
			mend: between.end,
		},
		{
			name: "a proxy reads TLS, and is trusted",
			break_: func() {
				overwrite(t, c.trusted, string(c.ours)+between.authority)
				between.begin(nil)
			},
			says: []string{"Fetch access token for registry '" + f.host + "' : OK"},
			mend: between.end,
		},
		{
			name:   "a proxy that reads TLS has a page of its own for everybody",
			break_: func() { between.begin(func(string) int { return 200 }) },
			codes:  []string{"CONNECTIVITY_CHALLENGE_ERROR"},
			says:   []string{"did not issue a challenge"},
			mend:   between.end,
		},
		{
			name: "a proxy that reads TLS keeps one path back",
			break_: func() {
				between.begin(func(path string) int {
					if path == "/oauth2/token" {
						return 403
					}
					return 0
				})
			},
			codes: []string{"CONNECTIVITY_ACCESS_TOKEN_ERROR"},
			says:  []string{"Fetch refresh token for registry '" + f.host + "' : OK", "Response code: 403"},
			mend: func() {
				between.end()
				overwrite(t, c.trusted, string(c.ours))
			},
		},
		{
			name: "a second private endpoint is in the network",
			break_: func() {
				f.Cove(t, "private-endpoint", "create", "second", "--registry", "harbor", "--subnet", "office/default")
			},
			args: []string{"--name", "harbor", "--vnet", "office"}, status: 1,
			says: []string{`has more than one private endpoint in the vnet`, "DNS routing will be unreliable"},
			mend: func() { f.Cove(t, "private-endpoint", "delete", "second") },
		},
		{
			name: "the registry is misspelt",
			args: []string{"--name", "harbour"}, codes: []string{"CONNECTIVITY_DNS_ERROR"},
			says: []string{"Failed to reach DNS for registry 'harbour.cr." + f.domain + "'"},
		},
		{
			name: "the registry is misspelt, and the cloud's settings have an empty suffix",
			break_: func() {
				var cloud map[string]any
				f.decode(read(t, filepath.Join(f.dir, "az", "cloud.json")), &cloud)
				cloud["suffixes"].(map[string]any)["acrLoginServerEndpoint"] = ""
				text, err := json.Marshal(cloud)
				if err != nil {
					t.Fatal(err)
				}
				overwrite(t, filepath.Join(f.dir, "bare.json"), string(text))
				c.succeeds("cloud", "register", "--name", "bare", "--cloud-config", "@"+filepath.Join(f.dir, "bare.json"))
				c.succeeds("cloud", "set", "--name", "bare")
			},
			args: []string{"--name", "harbour"}, codes: []string{"LOGIN_SERVER_ERROR"},
			says: []string{"An error occurred while retrieving the login server for registry 'harbour'"},
			mend: func() { c.succeeds("cloud", "set", "--name", "cove") },
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.break_ != nil {
				x.break_()
			}
			args := x.args
			if args == nil {
				args = []string{"--name", "harbor"}
			}
			status, said, codes := c.health(t, append(args, "--ignore-errors")...)
			if status != x.status || !slices.Equal(codes, append([]string{down}, x.codes...)) {
				t.Errorf("exit status %d, %v; want %d, %v\n%s", status, codes, x.status, x.codes, said)
			}
			contains(t, said, x.says...)
			if x.layer != "" {
				if found := f.checkup(f.inside, "--vnet", "office"); found[x.layer].Code != x.code {
					t.Errorf("cove check-health says of the %s: %+v", x.layer, found[x.layer])
				}
			}
			if x.mend == nil {
				return
			}
			x.mend()
			if status, said, codes := c.health(t, "--name", "harbor", "--vnet", "office", "--ignore-errors"); status != 0 || len(codes) != 1 || !strings.Contains(said, "DNS routing to private endpoint : OK") {
				t.Errorf("mended: exit status %d, %v\n%s", status, codes, said)
			}
		})
	}

	// An endpoint that was made anew has other addresses, and a record by hand
	// keeps the old one.
	t.Run("a record is stale", func(t *testing.T) {
		f.Cove(t, "private-endpoint", "delete", "pe")
		if status, said, _ := c.health(t, "--name", "harbor", "--vnet", "office", "--ignore-errors"); status != 1 || !strings.Contains(said, `Registry "harbor" doesn't have private endpoints to verify DNS routings.`) {
			t.Errorf("without an endpoint: exit status %d\n%s", status, said)
		}
		f.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default")
		anew := f.addresses("pe")
		f.Cove(t, "dns", "record", "add", f.zone, "harbor", anew[f.host])
		f.Cove(t, "dns", "record", "add", f.zone, data, address[dataHost])
		status, said, codes := c.health(t, "--name", "harbor", "--vnet", "office", "--ignore-errors")
		if status != 1 || !slices.Equal(codes, []string{down}) || !strings.Contains(said, "Expect: "+anew[dataHost]+", Actual: "+address[dataHost]) || anew[dataHost] == address[dataHost] {
			t.Errorf("exit status %d, %v\n%s", status, codes, said)
		}
	})
}

// At the public door: the check names the rules where an address is not
// admitted, and the registry's id for that refusal leads to the rule. A
// registry that has had enough refuses the exchange; this version of the check
// has no code for it but the status. row:84 row:6
func TestRootAzCheckHealthAtThePublicDoor(t *testing.T) {
	l := newLab(t)
	host := "harbor.cr." + l.domain
	l.Cove(t, "registry", "create", "harbor", "--default-action", "Deny", "--admin-enabled")
	l.Cove(t, "network-rule", "add", "harbor", "203.0.113.0/24")
	c := newChecker(t, l, l.outside)
	status, said, codes := c.health(t, "--name", "harbor", "--ignore-errors")
	if status != 0 || !slices.Equal(codes, []string{"DOCKER_COMMAND_ERROR", "CONNECTIVITY_FORBIDDEN_ERROR"}) {
		t.Errorf("exit status %d, %v", status, codes)
	}
	contains(
		t, said, "DNS lookup to "+host+" at IP "+l.outside.gateway+" : OK", "Looks like you don't have access to registry '"+host+"'",
		"az acr show --query networkRuleSet --name harbor",
	)
	newest := l.Cove(t, "logs", "--registry", "harbor", "--refused", "-o", "tsv", "--query", "[?CallerIpAddress=='"+l.outside.address+"'] | [-1].CorrelationId")
	l.explained(t, newest, "COVE-NET-003")

	l.Cove(t, "network-rule", "add", "harbor", l.outside.address)
	if status, said, codes := c.health(t, "--name", "harbor", "--ignore-errors"); status != 0 || len(codes) != 1 || !strings.Contains(said, "Fetch access token for registry '"+host+"' : OK") {
		t.Errorf("with a rule: exit status %d, %v\n%s", status, codes, said)
	}

	// A hundredth of the limits, which somebody else uses up.
	l.Stop(t)
	l.StartWith(t, "--rate-limits", "0.01")
	l.background(t, l.outside, "429", nil, "curl", "-sS", "--cacert", filepath.Join(l.Data, "ca.pem"), "-u", "harbor:"+l.Password(t, "harbor"), "-o", "/dev/null", "-w", "%{http_code}\n",
		"https://"+host+"/oauth2/token?service="+host+"&scope=registry:catalog:*&n=[1-1000000]")
	_, said, codes = c.health(t, "--name", "harbor", "--ignore-errors")
	// The exchange is refused, or the token, if a moment was left between.
	if len(codes) != 2 || codes[1] != "CONNECTIVITY_REFRESH_TOKEN_ERROR" && codes[1] != "CONNECTIVITY_ACCESS_TOKEN_ERROR" || !strings.Contains(said, "Response code: 429") {
		t.Errorf("over the limit: %v\n%s", codes, said)
	}
}

// addresses are a private endpoint's, by the name that each serves.
func (f *faulty) addresses(endpoint string) map[string]string {
	f.t.Helper()
	var configs []struct {
		Fqdn        string
		IPAddresses []string
	}
	f.decode(f.Cove(f.t, "private-endpoint", "show", endpoint, "--query", "properties.customDnsConfigs", "-o", "json"), &configs)
	out := map[string]string{}
	for _, c := range configs {
		out[c.Fqdn] = c.IPAddresses[0]
	}
	if len(out) == 0 {
		f.t.Fatalf("%s has no addresses", endpoint)
	}
	return out
}

// succeeds is az for what prepares a test.
func (c *checker) succeeds(words ...string) {
	c.t.Helper()
	if a := c.az(words); a.Status != 0 {
		c.t.Fatalf("az %s: exit status %d\n%s", strings.Join(words, " "), a.Status, a.Err)
	}
}

func contains(t *testing.T, said string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
}

func overwrite(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func remove(t *testing.T, name string) {
	t.Helper()
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
}
