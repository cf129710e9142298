package scenarios

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// Two houses stand side by side with the same names and addresses, neither is
// seen from the machine, and each is gone with its script: asked to end, or
// killed before it could put anything away.
func TestRootHouses(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root; `make test-unprivileged` leaves it out")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	script := filepath.Join(dir, "two.sh")
	text := fmt.Sprintf(`#!/bin/bash
set -euo pipefail
cove=$COVE crane=$CRANE data=$DATA here=%s host=harbor.cr.cove.internal
. "$here/house.sh"
house
ip netns list
mkdir -p /etc/docker/certs.d/$host
echo standing
sleep 1000 &
children+=($!)
wait
`, here)
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	var houses []*exec.Cmd
	for _, name := range []string{"one", "two"} {
		data := filepath.Join(dir, name)
		cmd := exec.Command(script)
		cmd.Env = append(os.Environ(), "COVE="+covetest.Binary(t), "CRANE="+covetest.Crane(t), "DATA="+data)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill() })
		var said []string
		for lines := bufio.NewScanner(out); !slices.Contains(said, "standing"); said = append(said, lines.Text()) {
			if !lines.Scan() {
				t.Fatalf("%s does not stand beside the other: %v %q", name, cmd.Wait(), said)
			}
		}
		if !slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, "outside") }) {
			t.Errorf("%s has no outside: %q", name, said)
		}
		if inhabitants(t, data) == 0 {
			t.Fatal("nothing runs in the house: this test cannot see")
		}
		houses = append(houses, cmd)
	}
	if got := must(t, "ip", "netns", "list"); strings.Contains("\n"+got, "\noutside") {
		t.Errorf("the machine has the houses' namespaces: %s", got)
	}
	if got := must(t, "ip", "-br", "link"); strings.Contains(got, "wire241") {
		t.Errorf("the machine has the houses' wires: %s", got)
	}
	if _, err := os.Stat("/etc/docker/certs.d/harbor.cr.cove.internal"); err == nil {
		t.Error("a house has written into the machine's /etc")
	}
	// No interrupt: who runs in the background ignores them, and so do children.
	for i, end := range []os.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := houses[i].Process.Signal(end); err != nil {
			t.Fatal(err)
		}
		if err := houses[i].Wait(); err == nil {
			t.Errorf("%v: the script says that every step held", end)
		}
		data := filepath.Join(dir, []string{"one", "two"}[i])
		// The kernel ends what is left a moment after the script.
		deadline := time.Now().Add(covetest.Wait)
		for inhabitants(t, data) > 0 {
			if time.Now().After(deadline) {
				t.Fatalf("%v: %d programs go on", end, inhabitants(t, data))
			}
			<-time.After(20 * time.Millisecond)
		}
	}
}

// inhabitants is how many programs run with a folder in their arguments or
// their environment.
func inhabitants(t *testing.T, folder string) (n int) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range processes {
		for _, name := range []string{"environ", "cmdline"} {
			if text, err := os.ReadFile(filepath.Join(p, name)); err == nil && strings.Contains(string(text), folder) {
				n++
				break
			}
		}
	}
	return n
}
