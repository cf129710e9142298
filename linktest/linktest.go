//go:build linux

// Package linktest makes machines for tests: network namespaces joined by
// wires, with unmodified wireguard-go and wg(8) in them. It needs root.
//
// Everything it makes is named cvt-<process>-<number> and is taken away when
// the test ends; what a killed test left behind goes when the next one starts.
// Nothing of it is in the machine's own namespace.
package linktest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const prefix = "cvt-"

var (
	count atomic.Int64
	swept sync.Once
)

// RequireRoot fails the test without root: a test that skips itself proves
// nothing. Tests that need it are named TestRoot…, so that those who have none
// can leave them out.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root; without it, run make test-unprivileged, which is go test -skip '^TestRoot'")
	}
}

// Namespace is a machine of its own, as far as the network goes.
type Namespace struct {
	Name string
	t    testing.TB
}

// New makes a namespace whose loopback is up.
func New(t testing.TB) *Namespace {
	t.Helper()
	RequireRoot(t)
	swept.Do(func() { sweep(t) })
	n := &Namespace{Name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), count.Add(1)), t: t}
	run(t, "ip", "netns", "add", n.Name)
	t.Cleanup(func() {
		run(t, "ip", "netns", "delete", n.Name)
		_ = os.RemoveAll(n.etc())
	})
	run(t, "ip", "-n", n.Name, "link", "set", "lo", "up")
	return n
}

// sweep removes the namespaces of processes that are no more.
func sweep(t testing.TB) {
	left, err := os.ReadDir("/run/netns")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range left {
		owner, _, ok := strings.Cut(strings.TrimPrefix(e.Name(), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if !strings.HasPrefix(e.Name(), prefix) || !ok || err != nil || syscall.Kill(pid, 0) == nil {
			continue
		}
		run(t, "ip", "netns", "delete", e.Name())
		_ = os.RemoveAll(filepath.Join("/etc/netns", e.Name()))
	}
}

func (n *Namespace) etc() string { return filepath.Join("/etc/netns", n.Name) }

// Wire joins two namespaces by a cable with one address of a /30 at each end:
// the first usable one at n's, the second at other's.
func (n *Namespace) Wire(other *Namespace, net netip.Prefix) (here, there netip.Addr) {
	n.t.Helper()
	here = net.Masked().Addr().Next()
	there = here.Next()
	id := count.Add(1)
	a, b := fmt.Sprintf("cvt%da", id), fmt.Sprintf("cvt%db", id)
	run(n.t, "ip", "link", "add", a, "netns", n.Name, "type", "veth", "peer", "name", b, "netns", other.Name)
	for _, end := range []struct {
		n    *Namespace
		link string
		addr netip.Addr
	}{{n, a, here}, {other, b, there}} {
		run(n.t, "ip", "-n", end.n.Name, "address", "add", end.addr.String()+"/30", "dev", end.link)
		run(n.t, "ip", "-n", end.n.Name, "link", "set", end.link, "up")
	}
	return here, there
}

// Do runs f on a thread inside the namespace. A socket that f opens stays there.
func (n *Namespace) Do(f func()) {
	n.t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		there, err := os.Open("/run/netns/" + n.Name)
		if err != nil {
			done <- err
			return
		}
		defer there.Close()
		if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
		// A thread that cannot go home stays locked and ends with its goroutine.
		if err = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatalf("namespace %s: %v", n.Name, err)
	}
}

// Command is a program inside the namespace; it dies with the test process.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", n.Name, name}, args...)...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// Run runs a program inside the namespace, fails the test if it fails, and
// returns what it printed, errors included.
func (n *Namespace) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Try(name, args...)
	if err != nil {
		n.t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// Try is Run for a program that may fail.
func (n *Namespace) Try(name string, args ...string) (string, error) {
	out, err := n.Command(n.t.Context(), name, args...).CombinedOutput()
	return strings.TrimSuffix(string(out), "\n"), err
}

// Resolver is what programs in the namespace find in /etc/resolv.conf.
func (n *Namespace) Resolver(a netip.Addr) {
	n.t.Helper()
	if err := os.MkdirAll(n.etc(), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.etc(), "resolv.conf"), []byte("nameserver "+a.String()+"\n"), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// WireGuard joins with unmodified wireguard-go and wg(8): conf is a file as
// wg-quick reads it. It returns the interface's name.
func (n *Namespace) WireGuard(conf string, address netip.Addr, mtu int, routes ...netip.Prefix) string {
	n.t.Helper()
	// Its control socket lives in the file system, which all namespaces share.
	name := fmt.Sprintf("cw%d-%d", os.Getpid()%1_000_000, count.Add(1))
	c := n.Command(context.Background(), "wireguard-go", "--foreground", name)
	if err := c.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	socket := "/var/run/wireguard/" + name + ".sock"
	if !appears(socket, 10*time.Second) {
		n.t.Fatal("wireguard-go does not start")
	}
	file := filepath.Join(n.t.TempDir(), name+".conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		n.t.Fatal(err)
	}
	stripped := filepath.Join(n.t.TempDir(), "stripped")
	if err := os.WriteFile(stripped, []byte(run(n.t, "wg-quick", "strip", file)), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.Run("wg", "setconf", name, stripped)
	n.Run("ip", "address", "add", address.String()+"/32", "dev", name)
	n.Run("ip", "link", "set", name, "mtu", strconv.Itoa(mtu), "up")
	for _, r := range routes {
		n.Run("ip", "route", "add", r.String(), "dev", name, "src", address.String())
	}
	return name
}

func appears(file string, within time.Duration) bool {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.After(within)
	for {
		if _, err := os.Stat(file); err == nil {
			return true
		}
		select {
		case <-end:
			return false
		case <-tick.C:
		}
	}
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(context.Background(), name, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			out = exit.Stderr
		}
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
