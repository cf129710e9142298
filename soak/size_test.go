package soak

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

const (
	maxBinary = 40_000_000 // bytes
	maxIdle   = 60 << 20   // bytes resident
)

// The program is one file of less than 40 MB.
func TestBinarySize(t *testing.T) {
	info, err := os.Stat(covetest.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() >= maxBinary {
		t.Errorf("%s has %d bytes; the limit is %d", covetest.Binary(t), info.Size(), maxBinary)
	}
}

// A server with one registry and two virtual networks, a private endpoint in
// each, is small.
func TestIdleMemory(t *testing.T) {
	s := covetest.Start(t)
	furnish(t, s, "small")
	if n := memory(t, s.PID(), "VmRSS"); n > maxIdle {
		t.Errorf("%.1f MiB are resident; the limit is %d", mib(n), maxIdle>>20)
	} else {
		t.Logf("%.1f MiB are resident", mib(n))
	}
}

// furnish makes a registry and two virtual networks of the same address space
// with a private endpoint each, named after their networks.
func furnish(t *testing.T, s *covetest.Server, registry string) {
	t.Helper()
	s.Cove(t, "registry", "create", registry, "--admin-enabled")
	for _, network := range []string{"east", "west"} {
		s.Cove(t, "vnet", "create", network, "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
		s.Cove(t, "private-endpoint", "create", network, "--registry", registry, "--subnet", network+"/default")
	}
}

// memory is a line of /proc/PID/status in bytes: VmRSS is what is resident,
// VmHWM the most that ever was.
func memory(t *testing.T, pid int, line string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(l, line+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, line)
	return 0
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }
