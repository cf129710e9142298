package scenarios

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// serveOnce runs cove serve with args, which must end by itself, and returns
// what it said on standard error and its exit status.
func serveOnce(t *testing.T, env []string, args ...string) (string, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), covetest.Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, covetest.Binary(t), append([]string{"serve"}, args...)...)
	cmd.Env = append(os.Environ(), env...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("cove serve %s went on instead of refusing\n%s", strings.Join(args, " "), errs.String())
	}
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("cove serve %s: %v", strings.Join(args, " "), err)
	}
	return errs.String(), exit.ExitCode()
}

// What keeps a server from starting is one clear sentence and an exit status:
// 2 for a wrong command line or file, 1 for what the machine refuses.
func TestAServerThatCannotStartSaysWhy(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("not a folder"), 0o600); err != nil {
		t.Fatal(err)
	}
	typo := filepath.Join(dir, "typo.yaml")
	if err := os.WriteFile(typo, []byte("domain: cove.test\nregoin: westeurope\nlisten: [127.0.0.1:0]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	quiet := []string{"--data", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1", "--dns", "", "--wireguard", "", "--admin", ""}
	for _, c := range []struct {
		name   string
		args   []string
		env    []string
		says   string
		status int
	}{
		{"a port that is taken", []string{"--listen", taken.Addr().String()}, nil, "--listen " + taken.Addr().String() + ": another program has that port", 1},
		{"an address that is not ours", []string{"--listen", "192.0.2.7:8443"}, nil, "this machine does not have that address", 1},
		{"an unknown flag", []string{"--regoin", "x"}, nil, "unknown flag: --regoin; see `cove serve --help`", 2},
		{"a wrong value", []string{"--listen", "everywhere"}, nil, `"everywhere" is not an address and port`, 2},
		{"a wrong variable", nil, []string{"COVE_DEFAULT_PUBLIC_ACCESS=maybe"}, "enabled or disabled", 2},
		{"a misspelt setting in the file", []string{"--config", typo}, nil, typo + `:2: unknown setting "regoin"; did you mean region?`, 2},
		{"a file that is not there", []string{"--config", filepath.Join(dir, "none.yaml")}, nil, "the configuration file cannot be read", 2},
		{"data that is a file", []string{"--data", file}, nil, "is not a folder", 1},
		{"plain HTTP for everybody", []string{"--listen-http", "0.0.0.0:0"}, nil, "--i-terminate-tls", 2},
		{"a proxy for everybody", []string{"--connect", "0.0.0.0:0"}, nil, "loopback only", 2},
		{"an object store", []string{"--blobs", "s3://bucket"}, nil, "not in this version", 2},
		{"a database of another kind", []string{"--database", "mysql://u:hunter2@h/db"}, nil, "expected postgres://", 2},
		{"a database that does not answer", []string{"--database", "postgres://u:hunter2@127.0.0.1:1/db"}, nil, "PostgreSQL", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, status := serveOnce(t, c.env, append(quiet, c.args...)...)
			if !strings.Contains(out, c.says) || status != c.status {
				t.Errorf("exit status %d, want %d, and %q in\n%s", status, c.status, c.says, out)
			}
			if n := strings.Count(strings.TrimSpace(out), "\n"); n > 2 || !strings.HasPrefix(out, "cove: ") {
				t.Errorf("more than a sentence:\n%s", out)
			}
			if strings.Contains(out, "hunter2") {
				t.Errorf("the password is in the message:\n%s", out)
			}
		})
	}
	// Nothing that failed has left a server's data in a state that a good
	// start would not take.
	covetest.StartIn(t, filepath.Join(dir, "data"))
}

func TestASecondServerOnTheSameDataIsRefused(t *testing.T) {
	s := covetest.Start(t)
	out, status := serveOnce(t, nil, "--data", s.Data, "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1", "--dns", "", "--wireguard", "", "--admin", "")
	if status != 1 || !strings.Contains(out, "another cove server") {
		t.Errorf("exit status %d:\n%s", status, out)
	}
}

// A fresh start has no password that anybody could know, answers no plain
// HTTP, and shows a stranger nothing (docs/published-failures.md).
//
// Published failure 22.
func TestAFreshStartIsClosed(t *testing.T) {
	s := covetest.Start(t)
	if s.Run.HTTP != "" {
		t.Errorf("plain HTTP is served at %s", s.Run.HTTP)
	}
	for _, name := range []string{"admin.json", "ca.key", "master.key"} {
		info, err := os.Stat(filepath.Join(s.Data, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v, want mode 0600", name, info, err)
		}
	}
	s.Cove(t, "registry", "create", "fresh")
	show := s.Cove(t, "registry", "show", "fresh", "-o", "json")
	for _, want := range []string{`"adminUserEnabled": false`, `"anonymousPullEnabled": false`, `"publicNetworkAccess": "Enabled"`, `"defaultAction": "Allow"`} {
		if !strings.Contains(show, want) {
			t.Errorf("a new registry lacks %s:\n%s", want, show)
		}
	}
	if _, errs, status := s.Try(t, "registry", "credential", "show", "fresh"); status != 1 {
		t.Errorf("the admin user's passwords are shown while it is off: %s", errs)
	}
	for _, user := range []string{"fresh", "admin", "root", ""} {
		req, err := http.NewRequest(http.MethodGet, "https://fresh.cr.cove.internal/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, password := range []string{"", user, "admin", "password", "Harbor12345"} {
			req.SetBasicAuth(user, password)
			resp, err := s.Outside(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusUnauthorized {
				t.Errorf("%s:%s is answered %d", user, password, resp.StatusCode)
			}
		}
	}
}

// The default of a deployment may be that new registries are closed.
func TestASiteMayCloseNewRegistries(t *testing.T) {
	s := covetest.Start(t, "--default-public-access", "disabled")
	s.Cove(t, "registry", "create", "closed")
	resp, err := s.Outside(t).Get("https://closed.cr.cove.internal/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("a new registry answers %d from outside, want 403", resp.StatusCode)
	}
}

// An unresolvable registry is a name nobody has: no certificate is made for
// it and no answer given.
func TestAnUnknownRegistryHasNoCertificate(t *testing.T) {
	s := covetest.Start(t)
	if resp, err := s.Outside(t).Get("https://nobody.cr.cove.internal/v2/"); err == nil {
		resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	s.Cove(t, "registry", "create", "somebody")
	resp, err := s.Outside(t).Get("https://somebody.cr.cove.internal/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	s.Cove(t, "registry", "delete", "somebody")
	if resp, err := s.Outside(t).Get("https://somebody.cr.cove.internal/v2/"); err == nil {
		resp.Body.Close()
		t.Errorf("a deleted registry is answered %d", resp.StatusCode)
	}
}
