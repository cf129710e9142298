package scenarios

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// lab is a server with two hosts beside it, each a network namespace with a
// wire of its own to the server: inside will join virtual networks, outside
// never does.
type lab struct {
	*covetest.Server
	dir     string
	domain  string
	inside  host
	outside host
}

// host is a network namespace.
type host struct {
	name    string
	gateway string // the server's address on its wire
	address string
}

// newLab makes the lab; the test's end takes it away.
func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root; `make test-unprivileged` leaves it out")
	}
	tag, n := quarter(t)
	l := &lab{
		dir: t.TempDir(), domain: "t" + tag + ".test",
		outside: host{name: "cove-o" + tag, gateway: fmt.Sprintf("198.19.%d.1", n), address: fmt.Sprintf("198.19.%d.2", n)},
		inside:  host{name: "cove-i" + tag, gateway: fmt.Sprintf("198.18.%d.1", n), address: fmt.Sprintf("198.18.%d.2", n)},
	}
	for _, h := range []host{l.outside, l.inside} {
		wire := "cv" + h.name[5:]
		must(t, "ip", "netns", "add", h.name)
		t.Cleanup(func() {
			must(t, "ip", "netns", "delete", h.name)
			if err := os.RemoveAll("/etc/netns/" + h.name); err != nil {
				t.Error(err)
			}
		})
		must(t, "ip", "link", "add", wire, "type", "veth", "peer", "name", "eth0", "netns", h.name)
		must(t, "ip", "addr", "add", h.gateway+"/24", "dev", wire)
		must(t, "ip", "link", "set", wire, "up")
		must(t, "ip", "-n", h.name, "link", "set", "lo", "up")
		must(t, "ip", "-n", h.name, "addr", "add", h.address+"/24", "dev", "eth0")
		must(t, "ip", "-n", h.name, "link", "set", "eth0", "up")
		must(t, "ip", "-n", h.name, "route", "add", "default", "via", h.gateway)
		if err := os.MkdirAll("/etc/netns/"+h.name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l.resolver(t, l.outside, l.outside.gateway)
	l.resolver(t, l.inside, "168.63.129.16")
	// --connect is off: the listener has the port that names mean.
	l.Server = covetest.StartIn(t, filepath.Join(l.dir, "data"), "--domain", l.domain, "--listen", l.outside.gateway+":443",
		"--advertise", l.outside.gateway, "--dns", l.outside.gateway+":53", "--wireguard", "0.0.0.0:0", "--connect", "")
	return l
}

// quarter is a name and a number that no lab beside this one has, in this run
// or another. The main job has the numbers from 200 on, and the few first.
func quarter(t *testing.T) (tag string, n int) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		id := make([]byte, 3)
		rand.Read(id)
		n = 10 + int(id[0])%190
		taken := func(a net.Addr) bool { return strings.HasPrefix(a.String(), fmt.Sprintf("198.19.%d.", n)) }
		if slices.ContainsFunc(addrs, taken) {
			continue // by one that was killed
		}
		// The kernel gives a socket's name to one process, and takes it back at its end.
		if claim, err := net.Listen("unix", fmt.Sprintf("@cove-lab-%d", n)); err == nil {
			t.Cleanup(func() { claim.Close() })
			return hex.EncodeToString(id), n
		}
	}
	t.Fatal("all the numbers for labs are taken: namespaces of tests that were killed?")
	return "", 0
}

// resolver sets what the host's programs ask for names.
func (l *lab) resolver(t *testing.T, h host, address string) {
	t.Helper()
	if err := os.WriteFile("/etc/netns/"+h.name+"/resolv.conf", []byte("nameserver "+address+"\noptions timeout:2 attempts:2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// command is a program on a host. It runs in the host's network namespace and
// in a mount namespace where /etc/resolv.conf is the host's; unlike
// `ip netns exec` it keeps the cgroup mounts, which container engines need.
func (l *lab) command(ctx context.Context, h host, argv ...string) *exec.Cmd {
	const enter = `mount --make-rprivate / && mount --bind "$0" /etc/resolv.conf && exec "$@"`
	args := append([]string{"--net=/run/netns/" + h.name, "unshare", "-m", "sh", "-c", enter, "/etc/netns/" + h.name + "/resolv.conf"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = l.Env("HOME="+l.dir, "DOCKER_CONFIG="+filepath.Join(l.dir, "docker-"+h.name), "REGISTRY_AUTH_FILE="+filepath.Join(l.dir, "auth-"+h.name+".json"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	return cmd
}

// try runs a program on a host and returns what it said, and how it ended.
func (l *lab) try(t *testing.T, h host, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := l.command(ctx, h, argv...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s on %s did not end\n%s", strings.Join(argv, " "), h.name, out.String())
	}
	return out.String(), err
}

// on is try for what must succeed.
func (l *lab) on(t *testing.T, h host, argv ...string) string {
	t.Helper()
	out, err := l.try(t, h, argv...)
	if err != nil {
		t.Fatalf("%s on %s: %v\n%s", strings.Join(argv, " "), h.name, err, out)
	}
	return out
}

// background starts a program on a host and waits until it has said ready, or
// until isReady holds. The test's end stops it.
func (l *lab) background(t *testing.T, h host, ready string, isReady func() bool, argv ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := l.command(ctx, h, argv...)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		w.Close()
		ended <- err
	}()
	said := make(chan string, 1)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		told := false
		for {
			n, err := r.Read(buf)
			all.Write(buf[:n])
			if !told && ready != "" && strings.Contains(all.String(), ready) {
				told = true
				said <- ""
			}
			if err != nil {
				if !told {
					said <- all.String()
				}
				return
			}
		}
	}()
	t.Cleanup(func() {
		// First a polite end, so that it puts away what it has made.
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
		select {
		case <-ended:
		case <-time.After(15 * time.Second):
		}
		cancel()
	})
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(covetest.Wait)
	for {
		select {
		case out := <-said:
			if out != "" {
				t.Fatalf("%s on %s ended:\n%s", argv[0], h.name, out)
			}
			return
		case <-tick.C:
			if isReady != nil && isReady() {
				return
			}
		case <-deadline:
			t.Fatalf("%s on %s was not ready in time", argv[0], h.name)
		}
	}
}

// network makes a virtual network with one subnet and the zone of registries'
// private names, linked.
func (l *lab) network(t *testing.T, name string) {
	t.Helper()
	l.Cove(t, "vnet", "create", name, "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	l.Cove(t, "dns", "zone", "create", "privatelink.cr."+l.domain)
	l.Cove(t, "dns", "link", "add", "privatelink.cr."+l.domain, "--vnet", name)
}

// join makes the inside host a member, with an interface of its own.
func (l *lab) join(t *testing.T, network, name string, args ...string) {
	t.Helper()
	code := l.Cove(t, "join-code", network+"/default", "--name", name)
	l.background(t, l.inside, "joined as", nil, append([]string{covetest.Binary(t), "join", code, "--up"}, args...)...)
}

var correlation = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// explained asserts that a client's refusal carries an id that `cove explain`
// resolves to the reason.
func (l *lab) explained(t *testing.T, refusal, reason string) {
	t.Helper()
	ids := correlation.FindAllString(refusal, -1)
	if ids == nil {
		t.Fatalf("the refusal carries no correlation id:\n%s", refusal)
	}
	if got := l.Cove(t, "explain", ids[len(ids)-1]); !strings.Contains(got, reason) {
		t.Errorf("explained otherwise than by %s:\n%s", reason, got)
	}
}
