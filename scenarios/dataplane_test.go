package scenarios

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// puller runs crane and skopeo, which are on their way through proxy.
type puller struct {
	s     *covetest.Server
	proxy string
	dir   string
}

func newPuller(t *testing.T, s *covetest.Server, proxy, registry string) puller {
	t.Helper()
	p := puller{s, proxy, t.TempDir()}
	cmd := exec.Command(covetest.Crane(t), "auth", "login", registry+".cr.cove.internal", "-u", registry, "--password-stdin")
	cmd.Env = s.Env("DOCKER_CONFIG=" + p.dir)
	cmd.Stdin = strings.NewReader(s.Password(t, registry))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("crane auth login: %v\n%s", err, out)
	}
	return p
}

func (p puller) run(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = p.s.Env("DOCKER_CONFIG="+p.dir, "REGISTRY_AUTH_FILE="+filepath.Join(p.dir, "config.json"), "HTTPS_PROXY=http://"+p.proxy, "NO_PROXY=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (p puller) crane(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return p.run(append([]string{covetest.Crane(t)}, args...)...)
}

// pull fetches an image whole, with both clients.
func (p puller) pull(t *testing.T, image string) error {
	t.Helper()
	if out, err := p.crane(t, "validate", "--remote", image); err != nil {
		return fmt.Errorf("crane: %w\n%s", err, out)
	}
	to := filepath.Join(t.TempDir(), "image")
	if out, err := p.run("skopeo", "copy", "--quiet", "docker://"+image, "oci:"+to+":x"); err != nil {
		return fmt.Errorf("skopeo: %w\n%s", err, out)
	}
	return nil
}

// push puts an image of one layer into a registry.
func (p puller) push(t *testing.T, image string) {
	t.Helper()
	layer := filepath.Join(t.TempDir(), "hello.txt")
	if err := os.WriteFile(layer, []byte(strings.Repeat("hello\n", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	tar := layer + ".tar"
	if out, err := p.run("tar", "-cf", tar, "-C", filepath.Dir(layer), "hello.txt"); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	if out, err := p.crane(t, "append", "-f", tar, "-t", image); err != nil {
		t.Fatalf("push: %v\n%s", err, out)
	}
}

// blob is the path of the one layer of an image.
func (p puller) blob(t *testing.T, image string) string {
	t.Helper()
	out, err := p.crane(t, "manifest", image)
	if err != nil {
		t.Fatal(out)
	}
	var m struct{ Layers []struct{ Digest string } }
	if err := json.Unmarshal([]byte(out), &m); err != nil || len(m.Layers) != 1 {
		t.Fatal(err, out)
	}
	_, path, _ := strings.Cut(image, "/")
	repo, _, _ := strings.Cut(path, ":")
	return "/v2/" + repo + "/blobs/" + m.Layers[0].Digest
}

// Layers come from the login server, and with dedicated data endpoints on from
// the data host of the region that was asked; real clients pull both ways. A
// replica brings a data host of its own, and a private endpoint switches them
// on for good.
// row:2 row:3 row:4
func TestDedicatedDataEndpoints(t *testing.T) {
	s := covetest.Start(t, "--also-region", "eastus")
	s.Cove(t, "registry", "create", "harbor", "--admin-enabled")
	const login, home, east = "harbor.cr.cove.internal", "harbor.local.data.cr.cove.internal", "harbor.eastus.data.cr.cove.internal"
	const image = login + "/team/app:1"
	p := newPuller(t, s, s.Run.Connect, "harbor")
	p.push(t, image)
	blob, password := p.blob(t, image), s.Password(t, "harbor")
	outside := s.Outside(t)
	outside.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	leads := func(host, want string) {
		t.Helper()
		status, h, _ := get(t, outside, "https://"+host+blob, "harbor", password)
		switch where := h.Get("Location"); {
		case want == "" && status != http.StatusOK, want != "" && (status != http.StatusTemporaryRedirect || !strings.HasPrefix(where, "https://"+want+"/")):
			t.Errorf("a layer at %s: %d %s", host, status, where)
		}
	}
	leads(login, "")
	if err := p.pull(t, image); err != nil {
		t.Errorf("with the switch off: %v", err)
	}

	s.Cove(t, "registry", "update", "harbor", "--data-endpoint-enabled")
	leads(login, home)
	if err := p.pull(t, image); err != nil {
		t.Errorf("with the switch on: %v", err)
	}
	p.push(t, login+"/team/app:2") // a push asks for layers too

	b := signIn(t, s)
	reg := s.Cove(t, "registry", "show", "harbor", "--query", "id", "-o", "tsv")
	hosts := func() string {
		t.Helper()
		return s.Cove(t, "registry", "show", "harbor", "--query", "properties.dataEndpointHostNames", "-o", "json")
	}
	if r := b.do("PUT", reg+"/replications/eastus?api-version=2025-04-01", `{"location":"eastus","properties":{}}`); r.StatusCode >= 300 {
		t.Fatalf("replicate: %d %s", r.StatusCode, r.text)
	}
	if got := hosts(); !strings.Contains(got, home) || !strings.Contains(got, east) {
		t.Errorf("data hosts after a replication: %s", got)
	}
	if r := b.do("PATCH", reg+"?api-version=2025-04-01", `{"properties":{"regionalEndpoints":"Enabled"}}`); r.StatusCode >= 300 {
		t.Fatalf("regional endpoints: %d %s", r.StatusCode, r.text)
	}
	leads("harbor.eastus.geo.cr.cove.internal", east)
	leads("harbor.local.geo.cr.cove.internal", home)
	leads(login, home)

	s.Cove(t, "registry", "update", "harbor", "--data-endpoint-enabled=false")
	leads(login, "")
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default")
	leads(login, home)
	if out, errs, status := s.Try(t, "registry", "update", "harbor", "--data-endpoint-enabled=false"); status == 0 || !strings.Contains(errs, "must be true while the registry has private endpoint connections") {
		t.Errorf("the switch goes off beside a private endpoint: %d %s%s", status, out, errs)
	}
	leads(login, home)
}

// Inside a network whose zone knows the login server alone, a client signs in
// and lists, and cannot pull: the layers' name does not resolve. With the
// record of the region's data host it can.
// row:21 row:22
func TestAPullNeedsTheDataHost(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "harbor", "--admin-enabled")
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	s.Cove(t, "dns", "zone", "create", "privatelink.cr.cove.internal")
	s.Cove(t, "dns", "link", "add", "privatelink.cr.cove.internal", "--vnet", "office")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default")
	const image = "harbor.cr.cove.internal/team/app:1"
	newPuller(t, s, s.Run.Connect, "harbor").push(t, image)
	s.Cove(t, "registry", "update", "harbor", "--public-network-enabled=false")

	var pe struct{ Addresses []string }
	if err := json.Unmarshal([]byte(s.Cove(t, "private-endpoint", "show", "pe", "-o", "json")), &pe); err != nil || len(pe.Addresses) != 2 {
		t.Fatal(err, pe)
	}
	slices.Sort(pe.Addresses) // the login server's is taken first
	p := newPuller(t, s, enter(t, s, "office", "m").proxy, "harbor")
	s.Cove(t, "dns", "record", "add", "privatelink.cr.cove.internal", "harbor", pe.Addresses[0])
	inside := s.Through(t, p.proxy)
	soon(t, "the login server resolves", func() bool {
		_, err := p.crane(t, "ls", "harbor.cr.cove.internal/team/app")
		return err == nil
	})
	if status, _, body := get(t, inside, "https://harbor.cr.cove.internal/oauth2/token?service=harbor.cr.cove.internal&scope=repository:team/app:pull", "harbor", s.Password(t, "harbor")); status != http.StatusOK {
		t.Errorf("a login with the login server's record alone: %d %s", status, body)
	}
	if out, err := p.crane(t, "manifest", image); err != nil {
		t.Errorf("a manifest: %s", out)
	}
	if err := p.pull(t, image); err == nil || !strings.Contains(err.Error(), "harbor.local.data.cr.cove.internal") {
		t.Errorf("a pull without the data host's record: %v", err)
	}
	s.Cove(t, "dns", "record", "add", "privatelink.cr.cove.internal", "harbor.local.data", pe.Addresses[1])
	soon(t, "a pull works", func() bool { return p.pull(t, image) == nil })
}
