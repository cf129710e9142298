package scenarios

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// rows logs a script's first comment, which names the rows that it proves.
func rows(t *testing.T, name string) {
	t.Helper()
	script, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(script)) {
		if !strings.HasPrefix(line, "#") {
			return
		}
		if !strings.HasPrefix(line, "#!") {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// walk runs main-job.sh once with env and returns what it said and its exit
// status.
func walk(t *testing.T, argv []string, env ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "ONCE=1", "COVE="+covetest.Binary(t), "CRANE="+covetest.Crane(t))
	cmd.Env = append(cmd.Env, env...)
	// The script cleans up when it is asked to end.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	return out.String(), 0
}

// script is main-job.sh as an argument list for this user, or, for root, for
// one who is not: then the programs and the data lie where that user may go.
func unprivileged(t *testing.T) (argv, env []string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return []string{"./main-job.sh"}, []string{"DATA=" + filepath.Join(t.TempDir(), "run")}
	}
	const nobody = "65534"
	dir, err := os.MkdirTemp("", "cove-walk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, from := range map[string]string{"cove": covetest.Binary(t), "crane": covetest.Crane(t), "main-job.sh": "main-job.sh"} {
		data, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"setpriv", "--reuid", nobody, "--regid", nobody, "--clear-groups", filepath.Join(dir, "main-job.sh")},
		[]string{"DATA=" + dir + "/run", "HOME=" + dir, "COVE=" + dir + "/cove", "CRANE=" + dir + "/crane"}
}

func TestRootMainJob(t *testing.T) {
	rows(t, "main-job.sh")
	out, status := walk(t, []string{"./main-job.sh"}, "DATA="+filepath.Join(t.TempDir(), "run"))
	if status != 0 || !strings.Contains(out, "Every step held.") {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	made := regexp.MustCompile(`cove-(outside|member)\d+`).FindAllString(strings.SplitN(out, "\n", 2)[0], -1)
	if len(made) != 2 {
		t.Fatalf("the first line does not name the namespaces:\n%.200s", out)
	}
	for _, folder := range []string{"/run/netns/", "/etc/netns/", "/sys/class/net/"} {
		for _, name := range made {
			if _, err := os.Stat(folder + name); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the walk left %s behind: %v", folder+name, err)
			}
		}
	}
}

func TestMainJobWithoutRoot(t *testing.T) {
	argv, env := unprivileged(t)
	out, status := walk(t, argv, env...)
	if status != 0 || !strings.Contains(out, "Every step held.") {
		t.Fatalf("exit status %d\n%s", status, out)
	}
	if !strings.HasPrefix(out, "Without root") {
		t.Errorf("the first line does not say which way the walk goes:\n%.200s", out)
	}
}

// One part of the walk taken away makes it fail: traffic depends on the
// endpoint's state and on the record, not on there having been a command.
func TestRootBrokenMainJobFails(t *testing.T) {
	for _, c := range []struct{ name, command, says string }{
		{"the endpoint is rejected", "private-endpoint reject pe", "DENIED: client with IP '10.0.0."},
		{"the record is removed", "dns record remove privatelink.cr.cove.internal myregistry", "leads to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status := walk(t, []string{"./main-job.sh"}, "DATA="+filepath.Join(t.TempDir(), "run"), "BREAK="+c.command)
			if status == 0 {
				t.Fatalf("the walk succeeded although %s\n%s", c.name, out)
			}
			if !strings.Contains(out, c.says) {
				t.Errorf("the walk failed for another reason: %q is not in\n%s", c.says, out)
			}
		})
	}
}

func TestMainJobWithoutRootFailsWhenBroken(t *testing.T) {
	argv, env := unprivileged(t)
	out, status := walk(t, argv, append(env, "BREAK=private-endpoint reject pe")...)
	if status == 0 {
		t.Fatalf("the walk succeeded although its endpoint was rejected\n%s", out)
	}
	if !strings.Contains(out, "DENIED: client with IP '10.0.0.") {
		t.Errorf("the walk failed for another reason\n%s", out)
	}
}
