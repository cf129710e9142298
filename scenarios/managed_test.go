package scenarios

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// row:66 A machine in a virtual network signs in without a secret: the Azure
// CLI asks the metadata service for a token of the machine's identity, by none
// of its names and by each, and with it for a registry's. An identity without a
// role is refused with what gives it one. A machine that carries no identity, one outside, and a request that a proxy passes on get
// none; an identity that is taken away ends.
func TestRootManagedIdentity(t *testing.T) {
	l := newLab(t)
	l.Cove(t, "registry", "create", "harbor", "--admin-enabled")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	l.Cove(t, "az", "--out", filepath.Join(l.dir, "az"))

	// az runs a script as the administrator, on the outside host.
	az := func(script string) string {
		t.Helper()
		return l.on(t, l.outside, "sh", "-ec", `. "$0/az/env.sh"; unset HTTPS_PROXY https_proxy; export PYTHONPATH="$1/az"; `+script, l.dir, here(t))
	}
	az(`az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none`)
	client := strings.TrimSpace(az(`az identity create -g cove -n puller --query clientId -o tsv`))
	if got := az(`az identity list -g cove --query "[].name" -o tsv; az ad sp show --id ` + client + ` --query servicePrincipalType -o tsv`); got != "puller\nManagedIdentity\n" {
		t.Errorf("az identity list and az ad sp show say %q", got)
	}
	az(`principal=$(az identity show -g cove -n puller --query principalId -o tsv) registry=$(az acr show -n harbor --query id -o tsv)
		for role in AcrPull Reader; do
			az role assignment create --assignee-object-id "$principal" --assignee-principal-type ServicePrincipal --role $role --scope "$registry" --output none
		done`)

	code := l.Cove(t, "join-code", "office/default", "--name", "laptop")
	l.background(t, l.inside, "joined as", nil, covetest.Binary(t), "join", code, "--up", "--metadata")
	imds := func(args ...string) string {
		t.Helper()
		return l.on(t, l.inside, append([]string{"curl", "-sS", "-m", "10", "-w", " %{http_code}"}, args...)...)
	}
	tokenURL := "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://management." + l.domain + "/"
	if got := imds("-H", "Metadata: true", tokenURL); !strings.Contains(got, "Identity not found") || !strings.HasSuffix(got, " 400") {
		t.Errorf("a member without an identity: %s", got)
	}

	member := strings.TrimSpace(az(`az resource show --ids "$(az network nic show -g cove -n laptop --query id -o tsv)/providers/Cove.Network/members/laptop" --query id -o tsv`))
	az(`az rest --method patch --url "` + member + `?api-version=2025-04-01" --body '{"identity":{"type":"SystemAssigned, UserAssigned","userAssignedIdentities":{"'"$(az identity show -g cove -n puller --query id -o tsv)"'":{}}}}' --output none`)

	// What is refused whoever asks.
	for name, args := range map[string][]string{
		"without the header":    {tokenURL},
		"through a proxy":       {"-H", "Metadata: true", "-H", "X-Forwarded-For: 203.0.113.9", tokenURL},
		"by another name":       {"-H", "Metadata: true", "-H", "Host: evil.example", tokenURL},
		"without a version":     {"-H", "Metadata: true", "http://169.254.169.254/metadata/identity/oauth2/token?resource=x"},
		"for another audience":  {"-H", "Metadata: true", "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.example"},
		"an identity of nobody": {"-H", "Metadata: true", tokenURL + "&client_id=00000000-0000-0000-0000-000000000001"},
	} {
		if got := imds(args...); !strings.HasSuffix(got, " 400") || strings.Contains(got, "access_token") {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := imds("-H", "Metadata: true", "http://169.254.169.254/metadata/instance?api-version=2021-02-01"); !strings.Contains(got, `"name":"laptop"`) || !strings.Contains(got, `"location":"local"`) {
		t.Errorf("%s", got)
	}
	if got := imds("-H", "Metadata: true", "http://169.254.169.254/metadata/instance/compute/name?api-version=2021-02-01&format=text"); got != "laptop 200" {
		t.Errorf("%s", got)
	}
	if out, err := l.try(t, l.inside, "curl", "-sS", "-m", "10", "-k", "https://169.254.169.254/"); err == nil {
		t.Errorf("registries are served at the metadata service's address: %s", out)
	}
	if out, err := l.try(t, l.outside, "curl", "-sS", "-m", "3", "-H", "Metadata: true", tokenURL); err == nil {
		t.Errorf("the metadata service is reached from outside: %s", out)
	}

	// The machine's own identity holds no role yet. The registry says so, and
	// what gives it one.
	own := imds("-H", "Metadata: true", tokenURL)
	var issued struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(strings.TrimSuffix(own, " 200")), &issued); err != nil {
		t.Fatalf("%v: %s", err, own)
	}
	host := "harbor.cr." + l.domain
	refused := l.on(t, l.inside, "curl", "-sS", "-m", "10", "--cacert", filepath.Join(l.Data, "ca.pem"), "https://"+host+"/oauth2/exchange",
		"-d", "grant_type=access_token", "-d", "service="+host, "--data-urlencode", "access_token="+issued.Token)
	l.explained(t, refused, "COVE-PERM-002")
	ids := correlation.FindAllString(refused, -1)
	if why := l.Cove(t, "explain", ids[len(ids)-1]); !strings.Contains(why, "cove role assign") {
		t.Errorf("nothing says what to do:\n%s", why)
	}

	// az, on the machine: without a name it is the system-assigned identity,
	// which holds no role; by the client id and the resource id the other.
	vm := func(script string) (string, error) {
		t.Helper()
		return l.try(t, l.inside, "sh", "-ec", `. "$0/az/env.sh"; unset HTTPS_PROXY https_proxy COVE_CLIENT_SECRET; export AZURE_CONFIG_DIR="$0/vm" PYTHONPATH="$1/az"
			az cloud show --name cove >/dev/null 2>&1 || az cloud register --name cove --cloud-config "@$0/az/cloud.json"; az cloud set --name cove; `+script, l.dir, here(t))
	}
	if out, err := vm(`az login --identity --allow-no-subscriptions --output none`); err != nil {
		t.Fatalf("az login --identity: %v\n%s", err, out)
	}
	out, err := vm(`az login --identity --username ` + client + ` --query "[].user.assignedIdentityInfo" -o tsv
		az acr login --name harbor --expose-token --query "[loginServer, accessToken]" -o tsv
		az acr repository list --name harbor -o tsv`)
	if err != nil || !strings.Contains(out, "MSIClient-"+client) || !strings.Contains(out, "harbor.cr."+l.domain) || !regexp.MustCompile(`eyJ[\w-]+\.[\w-]+\.[\w-]+`).MatchString(out) {
		t.Fatalf("as the user-assigned identity: %v\n%s", err, out)
	}
	if out, err := vm(`az login --identity --username "` + strings.Replace(member[:strings.Index(member, "/providers/")], "", "", 1) + `/providers/Microsoft.ManagedIdentity/userAssignedIdentities/puller" --output none`); err != nil {
		t.Errorf("by its resource id: %v\n%s", err, out)
	}

	// The identity is taken away from the machine, and then from the world.
	az(`az rest --method patch --url "` + member + `?api-version=2025-04-01" --body '{"identity":{"type":"SystemAssigned"}}' --output none`)
	if got := imds("-H", "Metadata: true", tokenURL+"&client_id="+client); !strings.Contains(got, "Identity not found") {
		t.Errorf("an identity that was taken away: %s", got)
	}
	az(`az identity delete -g cove -n puller`)
	soon(t, "the token of a deleted identity refused", func() bool {
		out, err := vm(`az acr repository list --name harbor -o tsv`)
		return err != nil && !strings.Contains(out, "Traceback")
	})
}

// here is the folder of this package.
func here(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// The Azure CLI makes people, certificates, federated credentials and a
// registry's identities, each of which then has its effect: people and
// certificates sign in, and what is taken away does not any more.
func TestRootAzIdentities(t *testing.T) {
	s := covetest.Start(t)
	dir := t.TempDir()
	s.Cove(t, "registry", "create", "harbor", "--sku", "Premium")
	s.Cove(t, "az", "--out", filepath.Join(dir, "az"))
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-ec", `
		. "$0/az/env.sh"
		export PYTHONPATH="$1/az"
		say() { echo "$1: $2"; }
		administrator() { az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none; }
		administrator

		az acr identity assign -n harbor --identities '[system]' --output none
		az identity create -g cove -n one --output none
		az identity create -g cove -n two --output none
		az acr identity assign -n harbor --identities one two --output none
		say assigned "$(az acr identity show -n harbor --query '[type, length(userAssignedIdentities)]' -o tsv | tr '\n' ' ')"
		az acr identity remove -n harbor --identities one --output none
		say removed "$(az acr identity show -n harbor --query 'keys(userAssignedIdentities)' -o tsv | sed 's|.*/||')"
		az acr identity remove -n harbor --identities '[system]' --output none
		say left "$(az acr identity show -n harbor --query type -o tsv)"

		az ad app create --display-name builder --output none
		app=$(az ad app list --display-name builder --query '[0].appId' -o tsv)
		az ad app federated-credential create --id "$app" --output none --parameters '{"name":"main","issuer":"https://token.actions.githubusercontent.com","subject":"repo:org/app:ref:refs/heads/main","audiences":["api://AzureADTokenExchange"]}'
		say federated "$(az ad app federated-credential list --id "$app" --query '[].subject' -o tsv)"
		az ad app federated-credential delete --id "$app" --federated-credential-id main
		say unfederated "$(az ad app federated-credential list --id "$app" --query 'length(@)' -o tsv)"
		az identity federated-credential create -g cove --identity-name two --name cluster --issuer https://oidc.example.internal --subject system:serviceaccount:default:builder --output none
		say cluster "$(az identity federated-credential list -g cove --identity-name two --query '[].subject' -o tsv)"

		az ad user create --display-name Alice --user-principal-name alice@cove.internal --password 'correct horse' --output none
		say user "$(az ad user list --upn alice@cove.internal --query '[].displayName' -o tsv)"
		az role assignment create --assignee alice@cove.internal --role Reader --scope "/subscriptions/$(az account show --query id -o tsv)" --output none
		cert=$(HOME="$0" az ad sp create-for-rbac -n certified --create-cert --query '[appId, fileWithCertAndPrivateKey]' -o tsv 2>/dev/null | tr '\n' ' ')
		set -- $cert

		az login -u alice@cove.internal -p 'correct horse' --output none
		say signed-in "$(az ad signed-in-user show --query userPrincipalName -o tsv) $(az acr show -n harbor --query name -o tsv)"
		az login -u alice@cove.internal -p 'wrong horse' --output none 2>"$0/wrong" || say wrong "$(grep -o AADSTS50126 "$0/wrong" | head -1)"
		az login --service-principal -u "$1" -p "$2" --tenant "$COVE_TENANT_ID" --allow-no-subscriptions --output none
		say certificate "$(az account show --query user.name -o tsv | sed "s/$1/itself/")"

		administrator
		az ad app credential reset --id "$1" --output none 2>/dev/null
		az ad sp delete --id "$1"
		az ad user delete --id alice@cove.internal
		az login -u alice@cove.internal -p 'correct horse' --output none 2>"$0/gone" || say gone "$(grep -o AADSTS50126 "$0/gone" | head -1)"`, dir, here(t))
	cmd.Env = s.Env("HOME=" + dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{
		"assigned: SystemAssigned, UserAssigned 2 \n", "removed: two\n", "left: UserAssigned\n",
		"federated: repo:org/app:ref:refs/heads/main\n", "unfederated: 0\n", "cluster: system:serviceaccount:default:builder\n",
		"user: Alice\n", "signed-in: alice@cove.internal harbor\n", "wrong: AADSTS50126\n", "certificate: itself\n", "gone: AADSTS50126\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
}
