package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// article runs one of the scripts that type an article into the Azure CLI.
// Every step must hold, and the documentation must show what it said. It logs
// the script's first comment, which names its rows.
func article(t *testing.T, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root; `make test-unprivileged` leaves it out")
	}
	rows(t, name)
	if _, err := os.ReadFile("house.sh"); err != nil { // a change to it makes this test run again
		t.Fatal(err)
	}
	data := filepath.Join(t.TempDir(), "az")
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "./"+name)
	cmd.Env = append(os.Environ(), "COVE="+covetest.Binary(t), "CRANE="+covetest.Crane(t), "DATA="+data)
	// The script cleans up when it is asked to end.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "Every step held.") {
		t.Fatalf("%v\n%s", err, out.String())
	}
	shown(t, name, out.String(), data)
}

func TestRootPrivateLinkArticle(t *testing.T) {
	t.Parallel()
	article(t, "private-link-article.sh")
}

func TestRootNetworkArticle(t *testing.T) {
	t.Parallel()
	article(t, "network-article.sh")
}

func TestRootLoginArticle(t *testing.T) {
	t.Parallel()
	article(t, "login-article.sh")
}

// `cove az` writes what the Azure CLI needs into a folder that only its owner
// may read, and names nothing outside it.
func TestAzFiles(t *testing.T) {
	s := covetest.Start(t)
	out := filepath.Join(t.TempDir(), "it's here")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	s.Cove(t, "az", "--out", out)
	modes := map[string]os.FileMode{"": 0o700, "cloud.json": 0o600, "ca-bundle.pem": 0o600, "env.sh": 0o600}
	for name, want := range modes {
		info, err := os.Stat(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%q has mode %o, want %o", name, info.Mode().Perm(), want)
		}
	}
	var cloud struct{ Endpoints, Suffixes map[string]string }
	text, err := os.ReadFile(filepath.Join(out, "cloud.json"))
	if err == nil {
		err = json.Unmarshal(text, &cloud)
	}
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"resourceManager": "https://management.cove.internal", "activeDirectory": "https://login.cove.internal/adfs",
		"activeDirectoryResourceId": "https://management.cove.internal/", "microsoftGraphResourceId": "https://graph.cove.internal/",
		"logAnalyticsResourceId": "https://logs.cove.internal",
	} {
		if got := cloud.Endpoints[key]; got != want {
			t.Errorf("%s is %q, want %q", key, got, want)
		}
	}
	if got := cloud.Suffixes["acrLoginServerEndpoint"]; got != ".cr.cove.internal" {
		t.Errorf("the registry suffix is %q", got)
	}
	ours, err := os.ReadFile(filepath.Join(s.Data, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(out, "ca-bundle.pem"))
	if err != nil || !bytes.Contains(bundle, ours) {
		t.Errorf("the bundle lacks our authority: %v", err)
	}
	// A shell reads it, spaces and quotes in the folder's name included. The
	// az here only says how it was called.
	got := must(t, "sh", "-c", `az() { echo "az $*"; [ "$2" != show ]; }; . "$0" && env`, filepath.Join(out, "env.sh"))
	for _, want := range []string{
		"AZURE_CONFIG_DIR=" + out + "/azure\n", "REQUESTS_CA_BUNDLE=" + out + "/ca-bundle.pem\n",
		"HTTPS_PROXY=http://" + s.Run.Connect + "\n", "COVE_CLIENT_SECRET=", "COVE_CLIENT_ID=", "COVE_TENANT_ID=",
		"az cloud register --name cove --cloud-config @" + out + "/cloud.json\n", "az cloud set --name cove\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if _, errs, status := s.Try(t, "az"); status != 2 || !strings.Contains(errs, "--out") {
		t.Errorf("without --out: %d %s", status, errs)
	}
}

// Without root, and with no name of the server's resolving, the Azure CLI works
// through the CONNECT proxy that env.sh names. The user's own configuration is
// not touched.
func TestRootAzThroughTheProxy(t *testing.T) {
	s := covetest.Start(t)
	dir := t.TempDir()
	s.Cove(t, "az", "--out", filepath.Join(dir, "az"))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-ec", `
		. "$0/az/env.sh"
		az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none
		az group create --name g --location local --output none
		az acr create --resource-group g --name harbor --sku Standard --admin-enabled true --output none
		az acr login --name harbor --expose-token --query loginServer --output tsv
		az acr repository list --name harbor --output tsv
		az acr login --name harbor --username harbor --password wrong --expose-token || echo "status $?"`, dir)
	cmd.Env = s.Env("HOME=" + dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "harbor.cr.cove.internal") {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(string(out), "status ") {
		t.Errorf("a wrong password is taken:\n%s", out)
	}
	if _, err := os.Stat(filepath.Join(dir, ".azure")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the user's own configuration was touched: %v", err)
	}
}
