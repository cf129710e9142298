package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// An image reference is the same inside and outside: in the virtual network
// docker's engine, containerd, skopeo, crane and buildah sign in, push and pull
// through the private endpoint; outside each is refused with 403 and an id
// that explains itself. row:7 row:34 row:54 row:59 row:62
func TestRootClients(t *testing.T) {
	l := newLab(t)
	const name = "clients"
	registry := name + ".cr." + l.domain
	l.Cove(t, "registry", "create", name, "--public-network-enabled", "false", "--admin-enabled")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", name, "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	l.join(t, "office", "laptop")
	password := l.Password(t, name)

	l.Cove(t, "trust", "--docker", "--podman", registry)
	t.Cleanup(func() { l.Cove(t, "trust", "--docker", "--podman", "--remove", registry) })
	seed := registry + "/seed:1"
	pushSeed(t, l, registry, seed, name, password)

	t.Run("crane", func(t *testing.T) {
		crane := covetest.Crane(t)
		l.on(t, l.inside, crane, "pull", seed, filepath.Join(l.dir, "seed.tar"))
		l.on(t, l.inside, crane, "push", filepath.Join(l.dir, "seed.tar"), registry+"/by/crane:1")
		l.check(t, registry+"/by/crane:1")
		out, err := l.try(t, l.outside, crane, "pull", seed, filepath.Join(l.dir, "no.tar"))
		l.refused(t, out, err)
	})

	t.Run("skopeo", func(t *testing.T) {
		l.on(t, l.inside, "skopeo", "login", registry, "-u", name, "-p", password)
		l.on(t, l.inside, "skopeo", "copy", "docker://"+seed, "oci:"+filepath.Join(l.dir, "oci")+":seed")
		l.on(t, l.inside, "skopeo", "copy", "oci:"+filepath.Join(l.dir, "oci")+":seed", "docker://"+registry+"/by/skopeo:1")
		l.check(t, registry+"/by/skopeo:1")
		out, err := l.try(t, l.outside, "skopeo", "inspect", "docker://"+seed)
		l.forbidden(t, name, out, err)
	})

	t.Run("buildah", func(t *testing.T) {
		storage := []string{"buildah", "--root", filepath.Join(l.dir, "buildah"), "--runroot", filepath.Join(l.dir, "buildah-run"), "--storage-driver", "vfs"}
		buildah := func(args ...string) []string { return append(storage[:len(storage):len(storage)], args...) }
		l.on(t, l.inside, buildah("login", "-u", name, "-p", password, registry)...)
		l.on(t, l.inside, buildah("pull", seed)...)
		l.on(t, l.inside, buildah("push", seed, "docker://"+registry+"/by/buildah:1")...)
		l.check(t, registry+"/by/buildah:1")
		out, err := l.try(t, l.outside, append([]string{"env", "-u", "REGISTRY_AUTH_FILE", "-u", "DOCKER_CONFIG"}, buildah("pull", "--policy", "always", registry+"/by/crane:1")...)...)
		l.forbidden(t, name, out, err)
	})

	t.Run("docker", func(t *testing.T) {
		inside, outside := l.docker(t, l.inside), l.docker(t, l.outside)
		l.on(t, l.inside, inside("login", registry, "-u", name, "-p", password)...)
		l.on(t, l.inside, inside("pull", seed)...)
		l.on(t, l.inside, inside("tag", seed, registry+"/by/docker:1")...)
		l.on(t, l.inside, inside("push", registry+"/by/docker:1")...)
		l.check(t, registry+"/by/docker:1")
		// The login server is written in lower case, or signing in fails.
		out, err := l.try(t, l.inside, inside("login", strings.ToUpper(name)+".cr."+l.domain, "-u", name, "-p", password)...)
		if err == nil || !strings.Contains(out, "401") {
			t.Errorf("signing in with capitals: %v\n%s", err, out)
		}
		out, err = l.try(t, l.outside, outside("login", registry, "-u", name, "-p", password)...)
		l.forbidden(t, name, out, err)
		out, err = l.try(t, l.outside, outside("pull", seed)...)
		l.refused(t, out, err)
	})

	t.Run("containerd", func(t *testing.T) {
		inside, outside := l.containerd(t, l.inside), l.containerd(t, l.outside)
		ca := filepath.Join(l.Data, "ca.pem")
		// ctr signs in with each command.
		l.on(t, l.inside, inside("images", "pull", "--snapshotter", "native", "--user", name+":"+password, "--tlscacert", ca, seed)...)
		l.on(t, l.inside, inside("images", "tag", seed, registry+"/by/ctr:1")...)
		l.on(t, l.inside, inside("images", "push", "--user", name+":"+password, "--tlscacert", ca, registry+"/by/ctr:1")...)
		l.check(t, registry+"/by/ctr:1")
		out, err := l.try(t, l.outside, outside("images", "pull", "--snapshotter", "native", "--user", name+":"+password, "--tlscacert", ca, seed)...)
		l.forbidden(t, name, out, err)
	})
}

// pushSeed pushes a small image with a shell in it, for the platform of this
// machine.
func pushSeed(t *testing.T, l *lab, registry, seed, user, password string) {
	t.Helper()
	crane := covetest.Crane(t)
	layer := filepath.Join(l.dir, "layer")
	if err := os.MkdirAll(filepath.Join(layer, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	shell, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(layer, "bin", "busybox"), shell, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "tar", "-C", layer, "-cf", layer+".tar", ".")
	l.on(t, l.inside, crane, "auth", "login", registry, "-u", user, "-p", password)
	l.on(t, l.inside, crane, "append", "-f", layer+".tar", "-t", registry+"/seed:raw")
	l.on(t, l.inside, crane, "mutate", registry+"/seed:raw", "--set-platform", "linux/amd64", "--cmd", "/bin/busybox", "-t", seed)
}

// check pulls what a client has pushed and compares every digest and size.
func (l *lab) check(t *testing.T, image string) {
	t.Helper()
	l.on(t, l.inside, covetest.Crane(t), "validate", "--remote", image)
}

// refused asserts that a client outside got the network's refusal, with an id
// that explains itself.
func (l *lab) refused(t *testing.T, out string, err error) {
	t.Helper()
	if err == nil {
		t.Fatalf("it succeeded from outside:\n%s", out)
	}
	if !strings.Contains(out, "client with IP '"+l.outside.address+"' is not allowed access") {
		t.Fatalf("it failed for another reason:\n%s", out)
	}
	l.explained(t, out, "COVE-NET-001")
}

// docker starts an engine on a host, with variables NAME=VALUE of its own, and
// returns how to call its client.
func (l *lab) docker(t *testing.T, h host, env ...string) func(args ...string) []string {
	t.Helper()
	dir := filepath.Join(l.dir, "dockerd-"+h.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "daemon.json")
	if err := os.WriteFile(config, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "docker.sock")
	l.background(t, h, "API listen on", nil, slices.Concat([]string{"env"}, env, []string{
		"/usr/sbin/dockerd", "-H", "unix://" + socket, "--data-root", dir + "/data", "--exec-root", dir + "/exec",
		"--pidfile", dir + "/pid", "--config-file", config, "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "vfs",
	})...)
	return func(args ...string) []string {
		return append([]string{"/usr/bin/docker", "-H", "unix://" + socket}, args...)
	}
}

// containerd starts a containerd on a host and returns how to call ctr.
func (l *lab) containerd(t *testing.T, h host) func(args ...string) []string {
	t.Helper()
	dir := filepath.Join(l.dir, "containerd-"+h.name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "containerd.sock")
	config := filepath.Join(dir, "config.toml")
	text := "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = \"" + socket + "\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.background(t, h, "containerd successfully booted", nil, "/usr/bin/containerd", "--config", config, "--root", dir+"/root", "--state", dir+"/state")
	return func(args ...string) []string {
		return append([]string{"/usr/bin/ctr", "--address", socket}, args...)
	}
}

// forbidden is refused for a client that prints the status of a refusal and
// not its body: the id is the newest of the registry's login events.
func (l *lab) forbidden(t *testing.T, registry, out string, err error) {
	t.Helper()
	if err == nil || !strings.Contains(out, "403") {
		t.Fatalf("want a 403: %v\n%s", err, out)
	}
	const newest = "[?CallerIpAddress=='%s' && ResultDescription=='403'] | [-1].CorrelationId"
	id := l.Cove(t, "logs", "--registry", registry, "--refused", "-o", "tsv", "--query", fmt.Sprintf(newest, l.outside.address))
	l.explained(t, id, "COVE-NET-001")
}
