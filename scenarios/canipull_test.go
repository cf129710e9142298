package scenarios

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cove.example/cove/client"
	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// The exit statuses of canipull, which `az aks check-acr` runs on a node
// (source: its repository).
const (
	canPull         = 0
	noConfig        = 1
	configUnread    = 2
	configNoJSON    = 3
	cloudUnknown    = 4
	identityInvalid = 10
	hostUnknown     = 52
	noPull          = 60
)

// nodeCheck is the check of a node. It sends what canipull sends, or runs the
// canipull that $CANIPULL names.
type nodeCheck struct {
	l     *lab
	tool  string
	trust *tls.Config
}

// azureJSON is what canipull reads of a node's /etc/kubernetes/azure.json.
type azureJSON struct {
	Cloud      string `json:"cloud"`
	TenantID   string `json:"tenantId"`
	Location   string `json:"location"`
	ClientID   string `json:"aadClientId"`
	Secret     string `json:"aadClientSecret"`
	IdentityID string `json:"userAssignedIdentityID"`
}

// run checks a registry from a host with a configuration file. It returns the
// exit status and what was said.
func (n nodeCheck) run(t *testing.T, h host, config, acr string) (status int, said string) {
	t.Helper()
	if n.tool == "" {
		var out strings.Builder
		status := n.play(h, config, acr, &out)
		return status, out.String()
	}
	// It knows the cloud from a file.
	out, err := n.l.try(t, h, "env", "AZURE_ENVIRONMENT_FILEPATH="+n.cloud(t), n.tool, "-v6", "--config", config, acr)
	exit, failed := errors.AsType[*exec.ExitError](err)
	switch {
	case failed:
		return exit.ExitCode(), out
	case err != nil:
		t.Fatal(err)
	}
	return 0, out
}

// cloud is the file in which the Azure SDK for Go finds a cloud that is not
// one of those compiled into it.
func (n nodeCheck) cloud(t *testing.T) string {
	name := filepath.Join(n.l.dir, "environment.json")
	text, err := json.Marshal(map[string]string{"name": "AzureStackCloud", "activeDirectoryEndpoint": n.login(), "resourceManagerEndpoint": n.manager()})
	if err != nil {
		t.Fatal(err)
	}
	overwrite(t, name, string(text))
	return name
}

func (n nodeCheck) login() string   { return "https://login." + n.l.domain + "/" }
func (n nodeCheck) manager() string { return "https://management." + n.l.domain + "/" }

// play is canipull: the same questions, in the same order.
func (n nodeCheck) play(h host, config, acr string, out io.Writer) int {
	say := func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) }
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		text, err := os.ReadFile("/etc/netns/" + h.name + "/resolv.conf")
		if err != nil {
			return nil, err
		}
		return h.dial(ctx, network, net.JoinHostPort(strings.Fields(string(text))[1], "53"))
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := resolver.LookupHost(ctx, acr); err != nil {
		say("Checking host name resolution (%s): FAILED: %v", acr, err)
		return hostUnknown
	}
	cname, err := resolver.LookupCNAME(ctx, acr)
	if err != nil {
		say("Checking CNAME (%s): FAILED: %v", acr, err)
		return hostUnknown
	}
	say("Canonical name for ACR (%s): %s", acr, cname)
	if _, err := os.Stat(config); err != nil {
		return noConfig
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return configUnread
	}
	var c azureJSON
	if json.Unmarshal(text, &c) != nil {
		return configNoJSON
	}
	location := strings.Split(cname, ".")[1]
	private := strings.EqualFold(location, "privatelink")
	if !private && !strings.EqualFold(location, strings.ReplaceAll(c.Location, " ", "")) {
		say("Checking ACR location matches cluster location: FAILED")
		say("ACR location '%s' does not match your cluster location '%s'.", location, c.Location)
	}
	if c.Cloud != "AzureStackCloud" {
		say("Unknown Azure cloud name: %s", c.Cloud)
		return cloudUnknown
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		TLSClientConfig: n.trust, DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			name, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			ips, err := resolver.LookupHost(ctx, name)
			if err != nil {
				return nil, err
			}
			return h.dial(ctx, network, net.JoinHostPort(ips[0], port))
		},
	}}
	token, err := n.armToken(client, c)
	if err != nil {
		say("Sign in failed: %v", err)
		return identityInvalid
	}
	if err := exchanged(client, acr, token); err != nil {
		say("ACR %s rejected token exchange: %v", acr, err)
		return noPull
	}
	say("Your cluster can pull images from %s!", acr)
	return canPull
}

// armToken signs in as the node does: its service principal with a secret, or
// its managed identity at the metadata service.
func (n nodeCheck) armToken(client *http.Client, c azureJSON) (string, error) {
	var resp *http.Response
	var err error
	if c.ClientID == "msi" && c.Secret == "msi" {
		var req *http.Request
		req, err = http.NewRequest(http.MethodGet, "http://169.254.169.254/metadata/identity/oauth2/token?"+url.Values{
			"client_id": {c.IdentityID}, "resource": {n.manager()}, "api-version": {"2018-02-01"},
		}.Encode(), nil)
		if err != nil {
			return "", err
		}
		req.Header.Set("Metadata", "true")
		resp, err = client.Do(req)
	} else {
		resp, err = client.PostForm(n.login()+c.TenantID+"/oauth2/token?api-version=1.0", url.Values{
			"grant_type": {"client_credentials"}, "client_id": {c.ClientID}, "client_secret": {c.Secret}, "resource": {n.manager()},
		})
	}
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := answered(resp, err, &answer); err != nil {
		return "", err
	}
	return answer.Token, nil
}

// exchanged asks for a registry's refresh token; that it comes is all that
// canipull knows of the right to pull.
func exchanged(client *http.Client, acr, token string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("not a token")
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	var claims struct {
		Tenant string `json:"tid"`
	}
	if err := json.Unmarshal(text, &claims); err != nil || claims.Tenant == "" {
		return fmt.Errorf("the token has no tenant: %w", err)
	}
	resp, err := client.PostForm("https://"+acr+"/oauth2/exchange", url.Values{
		"grant_type": {"access_token"}, "service": {acr}, "tenant": {claims.Tenant}, "access_token": {token},
	})
	var answer struct {
		Token string `json:"refresh_token"`
	}
	return answered(resp, err, &answer)
}

func answered(resp *http.Response, err error, v any) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("error status: %d. body: %s", resp.StatusCode, body)
	}
	return json.Unmarshal(body, v)
}

// kubelet gives the machine a managed identity that may pull, and returns its
// client id.
func (f *faulty) kubelet() string {
	f.t.Helper()
	profile, err := client.FromData(f.Data)
	if err != nil {
		f.t.Fatal(err)
	}
	cl, err := client.New(profile)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, group := f.t.Context(), cl.Scope()+"/resourceGroups/cove/providers/"
	id := group + "Microsoft.ManagedIdentity/userAssignedIdentities/kubelet"
	made, err := cl.Put(ctx, id, client.Object{"location": "local"})
	if err != nil {
		f.t.Fatal(err)
	}
	properties := made["properties"].(client.Object)
	f.Cove(f.t, "role", "assign", properties["principalId"].(string), "AcrPull", "--registry", "harbor")
	if _, err := cl.Patch(ctx, group+"Microsoft.Network/networkInterfaces/vm/providers/Cove.Network/members/vm", client.Object{
		"identity": client.Object{"type": "UserAssigned", "userAssignedIdentities": client.Object{id: client.Object{}}},
	}); err != nil {
		f.t.Fatal(err)
	}
	return properties["clientId"].(string)
}

// The check that `az aks check-acr` runs on a node ends with the exit status
// that its cause has: the node's settings, its identity, the name, the network,
// the right to pull; where the registry refused, the id in its answer leads to
// the reason. What the check cannot see, a wrong image, a right that stops
// short of the repository, a data endpoint that is out of reach, it calls well;
// cove's own check, asked for that image as that identity, does not. row:85
// row:105
func TestRootCanipull(t *testing.T) {
	f := newFaulty(t, "--metadata")
	f.Cove(t, "registry", "update", "harbor", "--default-action", "Allow")
	n := nodeCheck{f.lab, os.Getenv("CANIPULL"), f.TLS(t)}
	var admin struct{ TenantID string }
	f.decode(read(t, filepath.Join(f.Data, "admin.json")), &admin)
	var stranger struct{ ClientID, ClientSecret string }
	f.decode(f.Cove(t, "principal", "create", "stranger", "-o", "json"), &stranger)
	kubelet := f.kubelet()
	f.Cove(t, "registry", "create", "public")
	f.Cove(t, "role", "assign", f.ci.ObjectID, "AcrPull", "--registry", "public")

	node := azureJSON{Cloud: "AzureStackCloud", TenantID: admin.TenantID, Location: "local", ClientID: f.ci.ClientID, Secret: f.ci.ClientSecret}
	with := func(change func(*azureJSON)) string {
		c := node
		change(&c)
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(f.dir, "azure.json")
		overwrite(t, name, string(text))
		return name
	}
	settings := func() string { return with(func(*azureJSON) {}) }
	broken := filepath.Join(f.dir, "broken.json")
	overwrite(t, broken, "{")
	command := func(args ...string) func() { return func() { f.Cove(t, args...) } }

	for _, x := range []struct {
		name   string
		break_ func()
		from   host
		config func() string
		acr    string
		status int
		says   string
		reason string // of the refusal, where it is the registry's
		mend   func()
	}{
		{name: "all is well", status: canPull, says: "harbor.privatelink.cr." + f.domain},
		{
			name: "as the kubelet's managed identity", status: canPull,
			config: func() string {
				return with(func(c *azureJSON) { c.ClientID, c.Secret, c.IdentityID = "msi", "msi", kubelet })
			},
		},
		{name: "without a private endpoint the region is in the name", from: f.outside, acr: "public.cr." + f.domain, status: canPull, says: ": fe.local." + f.domain},
		{
			name: "a node of another region", from: f.outside, acr: "public.cr." + f.domain, status: canPull, says: "ACR location 'local' does not match your cluster location 'eastus'",
			config: func() string { return with(func(c *azureJSON) { c.Location = "eastus" }) },
		},
		{name: "no settings", config: func() string { return filepath.Join(f.dir, "nothing.json") }, status: noConfig},
		{name: "settings that cannot be read", config: func() string { return f.dir }, status: configUnread},
		{name: "settings that are no JSON", config: func() string { return broken }, status: configNoJSON},
		{name: "another cloud", config: func() string { return with(func(c *azureJSON) { c.Cloud = "AzureMoonCloud" }) }, status: cloudUnknown},
		{name: "a wrong secret", config: func() string { return with(func(c *azureJSON) { c.Secret = "wr0ng" }) }, status: identityInvalid},
		{
			name: "a managed identity that the node does not carry", status: identityInvalid, says: "Identity not found",
			config: func() string {
				return with(func(c *azureJSON) {
					c.ClientID, c.Secret, c.IdentityID = "msi", "msi", "00000000-0000-0000-0000-000000000001"
				})
			},
		},
		{name: "a registry that does not exist", acr: "harbour.cr." + f.domain, status: hostUnknown},
		{
			name: "the record is gone", break_: command("dns", "record", "remove", f.zone, "harbor"), status: hostUnknown,
			mend: command("dns", "record", "sync", "--private-endpoint", "pe"),
		},
		{
			name: "an identity without a role", status: noPull, says: "error status: 401", reason: "COVE-PERM-002",
			config: func() string {
				return with(func(c *azureJSON) { c.ClientID, c.Secret = stranger.ClientID, stranger.ClientSecret })
			},
		},
		{
			name: "the connection is rejected", break_: command("private-endpoint", "reject", "pe", "--registry", "harbor"),
			status: noPull, says: "error status: 403", reason: "COVE-NET-005",
			mend: command("private-endpoint", "approve", "pe", "--registry", "harbor"),
		},
		{
			name: "the address is not admitted", break_: command("registry", "update", "harbor", "--default-action", "Deny"), from: f.outside,
			status: noPull, says: "error status: 403", reason: "COVE-NET-003",
			mend: command("registry", "update", "harbor", "--default-action", "Allow"),
		},
	} {
		t.Run(x.name, func(t *testing.T) {
			if x.break_ != nil {
				x.break_()
				if x.mend != nil {
					defer x.mend()
				}
			}
			if x.from.name == "" {
				x.from = f.inside
			}
			if x.config == nil {
				x.config = settings
			}
			if x.acr == "" {
				x.acr = f.host
			}
			status, said := n.run(t, x.from, x.config(), x.acr)
			if status != x.status || !strings.Contains(said, x.says) {
				t.Fatalf("exit status %d, want %d and %q\n%s", status, x.status, x.says, said)
			}
			if x.reason != "" {
				f.explained(t, said, x.reason)
			}
		})
	}

	// What it calls well, and is not.
	password := filepath.Join(f.dir, "ci.password")
	overwrite(t, password, f.ci.ClientSecret)
	for _, x := range []struct {
		name, image string
		break_      func()
		layer       string
		code        reason.Code
		mend        func()
	}{
		{"there is no such tag", "team/app:2", func() {}, health.LayerManifest, reason.ImageUnknown, func() {}},
		{"there is no such repository", "team/apii:1", func() {}, health.LayerManifest, reason.ImageUnknown, func() {}},
		{
			"the role counts for another repository", "team/app:1",
			func() {
				f.Cove(t, "registry", "update", "harbor", "--role-assignment-mode", "rbac-abac")
				f.Cove(t, "role", "assign", f.ci.ObjectID, "Container Registry Repository Reader", "--registry", "harbor",
					"--condition", "@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringEqualsIgnoreCase 'team/web'")
			},
			health.LayerManifest, reason.TokenLacks,
			command("registry", "update", "harbor", "--role-assignment-mode", "rbac"),
		},
		{
			"layers do not come", "team/app:1", command("dns", "record", "remove", f.zone, "harbor.local.data"),
			health.LayerBlob, reason.DataBlocked, command("dns", "record", "sync", "--private-endpoint", "pe"),
		},
	} {
		t.Run("it does not see that "+x.name, func(t *testing.T) {
			x.break_()
			status, said := n.run(t, f.inside, settings(), f.host)
			if status != canPull {
				t.Errorf("canipull: exit status %d\n%s", status, said)
			}
			found := f.checkup(f.inside, "--image", x.image, "--username", f.ci.ClientID, "--password-file", password)
			if r := found[x.layer]; r.Outcome != health.Failed || r.Code != x.code {
				t.Errorf("cove check-health says of the %s: %+v", x.layer, r)
			} else if r.Code == reason.TokenLacks {
				f.explained(t, r.ID, "COVE-PERM-012")
			}
			x.mend()
			if found := f.checkup(f.inside, "--username", f.ci.ClientID, "--password-file", password); found[x.layer].Outcome != health.Passed {
				t.Errorf("mended: %+v", found)
			}
		})
	}

	// The node has no way to the control plane: all that a pull needs is tried
	// all the same, and what could not be compared is said.
	t.Run("the control plane is out of reach", func(t *testing.T) {
		away := t.TempDir()
		for _, name := range []string{"admin.json", "ca.pem"} {
			overwrite(t, filepath.Join(away, name), read(t, filepath.Join(f.Data, name)))
		}
		overwrite(t, filepath.Join(away, "run.json"), `{"listen":["127.0.0.1:9"]}`)
		with := []string{"COVE_DATA=" + away}
		found := f.checkupAs(f.inside, with, "harbor", "--image", "team/app:1", "--username", f.ci.ClientID, "--password-file", password)
		if r := found[health.LayerControl]; r.Outcome != health.Unknown || !strings.Contains(r.Said, "cannot be reached") {
			t.Errorf("%+v", r)
		}
		for _, layer := range []string{health.LayerName, health.LayerConnect, health.LayerTLS, health.LayerChallenge, health.LayerSignIn, health.LayerPermission, health.LayerManifest, health.LayerBlob} {
			if found[layer].Outcome != health.Passed {
				t.Errorf("%s: %+v", layer, found[layer])
			}
		}
		// As the identity that the control plane would vouch for, there is nothing
		// to sign in with; that nobody was refused is said too.
		found = f.checkupAs(f.inside, with, "harbor", "--image", "team/app:1")
		if r := found[health.LayerSignIn]; r.Outcome != health.Unknown || found[health.LayerManifest].Outcome != health.NotReached {
			t.Errorf("%+v", found)
		}
	})
}
