package scenarios

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// Losing admin.json is not the end of a deployment: the server says what to
// do, and one start with --renew-admin lets the operator in again.
func TestALostAdminFileIsRenewed(t *testing.T) {
	for name, lose := range map[string]func(string) error{
		"gone":    os.Remove,
		"damaged": func(file string) error { return os.Truncate(file, 40) },
	} {
		t.Run(name, func(t *testing.T) {
			s := covetest.Start(t)
			s.Cove(t, "registry", "create", "harbor")
			s.Stop(t)
			if err := lose(filepath.Join(s.Data, "admin.json")); err != nil {
				t.Fatal(err)
			}
			s.Start(t)
			if !strings.Contains(s.Log(), "--renew-admin") {
				t.Errorf("the log does not say what to do:\n%s", s.Log())
			}
			if _, errs, status := s.Try(t, "registry", "list"); status != 1 || !strings.Contains(errs, "admin.json") {
				t.Errorf("exit status %d: %s", status, errs)
			}
			s.Stop(t)
			s.StartWith(t, "--renew-admin")
			if got := s.Cove(t, "registry", "list", "--query", "[].name", "-o", "tsv"); got != "harbor" {
				t.Errorf("the registries are %q", got)
			}
			info, err := os.Stat(filepath.Join(s.Data, "admin.json"))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("admin.json: %v, %v", info, err)
			}
		})
	}
}

// A server may be given other names; who signs in with its data folder need
// not be told.
func TestAnotherDomainIsKnownToTheAdminFile(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "harbor")
	s.Stop(t)
	s.StartWith(t, "--domain", "other.test")
	if got := s.Cove(t, "registry", "show", "harbor", "--query", "properties.loginServer", "-o", "tsv"); got != "harbor.cr.other.test" {
		t.Errorf("the login server is %q", got)
	}
}

// A push that is under way when the server is told to stop ends well, by the
// public door and through a tunnel alike.
func TestAPushEndsBeforeTheServerDoes(t *testing.T) {
	layer := []byte("the first half, and the second")
	for name, way := range map[string]func(*testing.T, *covetest.Server) *http.Client{
		"by the public door": func(t *testing.T, s *covetest.Server) *http.Client {
			s.Cove(t, "registry", "update", "myregistry", "--public-network-enabled", "true")
			return s.Outside(t)
		},
		"through a tunnel": func(t *testing.T, s *covetest.Server) *http.Client {
			return s.Through(t, enter(t, s, "office", "m").proxy)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := joined(t)
			c := way(t, s)
			c.Timeout = covetest.Wait
			tr := c.Transport.(*http.Transport)
			tr.ExpectContinueTimeout, tr.ForceAttemptHTTP2 = covetest.Wait, false
			body, feed := io.Pipe()
			req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("https://myregistry.cr.cove.internal/v2/hello/blobs/uploads/?digest=sha256:%x", sha256.Sum256(layer)), body)
			if err != nil {
				t.Fatal(err)
			}
			req.SetBasicAuth("myregistry", s.Password(t, "myregistry"))
			// So that the body is sent when the handler is at work on it.
			req.Header.Set("Expect", "100-continue")
			answered := make(chan error, 1)
			go func() {
				resp, err := c.Do(req)
				if err == nil {
					resp.Body.Close()
					if resp.StatusCode != http.StatusCreated {
						err = errors.New(resp.Status)
					}
				}
				body.CloseWithError(err)
				answered <- err
			}()
			if _, err := feed.Write(layer[:15]); err != nil {
				t.Fatal(err)
			}
			stopped := make(chan struct{})
			go func() { defer close(stopped); s.Stop(t) }()
			// It takes no further connections, and goes on with this one.
			for deadline := time.Now().Add(covetest.Wait); ; {
				conn, err := net.Dial("tcp", s.Run.Listen[0])
				if err != nil {
					break
				}
				conn.Close()
				if time.Now().After(deadline) {
					t.Fatal("the server does not stop")
				}
				<-time.After(5 * time.Millisecond)
			}
			feed.Write(layer[15:]) // its failure is the request's
			feed.Close()
			if err := <-answered; err != nil {
				t.Error(err)
			}
			<-stopped
		})
	}
}

// Of two servers that begin at once on a fresh folder one becomes it and the
// other is told; neither is left with half of the other's keys.
func TestTwoServersRaceForAFolder(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	type outcome struct {
		out, errs bytes.Buffer
		cmd       *exec.Cmd
		ended     chan error
	}
	var both [2]outcome
	for i := range both {
		b := &both[i]
		b.cmd = exec.Command(covetest.Binary(t), "serve", "--data", data, "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1", "--dns", "", "--wireguard", "", "--admin", "")
		b.cmd.Stdout, b.cmd.Stderr, b.ended = &b.out, &b.errs, make(chan error, 1)
		if err := b.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { b.ended <- b.cmd.Wait() }()
	}
	var lost, won *outcome
	select {
	case <-both[0].ended:
		lost, won = &both[0], &both[1]
	case <-both[1].ended:
		lost, won = &both[1], &both[0]
	case <-time.After(covetest.Wait):
		t.Fatal("both go on")
	}
	if status := lost.cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(lost.errs.String(), "is in use by another cove server") {
		t.Errorf("exit status %d: %s", status, lost.errs.String())
	}
	if err := won.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-won.ended
	// Killed at whatever moment of its first start: the next one heals it.
	s := covetest.StartIn(t, data)
	s.Cove(t, "registry", "create", "harbor")
}
