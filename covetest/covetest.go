// Package covetest runs the real server for tests: bin/cove as a process of
// its own, with its data in a temporary folder and everything it listens on at
// free ports of loopback. Tests talk to it as its users do.
package covetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Wait is how long anything may take before a test gives up on it.
const Wait = 60 * time.Second

// Binary is the program under test: $COVE, or bin/cove of this tree. A test
// fails where it has not been built.
func Binary(t testing.TB) string {
	t.Helper()
	if name := os.Getenv("COVE"); name != "" {
		return name
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		name := filepath.Join(dir, "bin", "cove")
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	t.Fatal("there is no bin/cove: run `make build` first")
	return ""
}

// Crane is $CRANE, or crane on the PATH.
func Crane(t testing.TB) string {
	t.Helper()
	if name := os.Getenv("CRANE"); name != "" {
		return name
	}
	name, err := exec.LookPath("crane")
	if err != nil {
		t.Fatal("crane is missing: `make test` installs it and sets CRANE")
	}
	return name
}

// Helm is $HELM, or helm on the PATH.
func Helm(t testing.TB) string {
	t.Helper()
	if name := os.Getenv("HELM"); name != "" {
		return name
	}
	name, err := exec.LookPath("helm")
	if err != nil {
		t.Fatal("helm is missing: `make test` builds it and sets HELM")
	}
	return name
}

// Run is run.json.
type Run struct {
	PID       int      `json:"pid"`
	Listen    []string `json:"listen"`
	Connect   string   `json:"connect"`
	HTTP      string   `json:"listenHttp"`
	DNS       []string `json:"dns"`
	WireGuard string   `json:"wireguard"`
	Proxy     []string `json:"proxy"`
	Admin     string   `json:"admin"`
}

// Server is a running server.
type Server struct {
	Data string
	Run  Run
	args []string
	cmd  *exec.Cmd
	log  *buffer
	done chan struct{}
}

// buffer is a bytes.Buffer that a process writes while a test reads.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// Start starts a server that the test's end stops. args are further flags of
// serve, each in a word of its own; they take the place of the defaults.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartIn(t, t.TempDir(), args...)
}

// StartIn is Start with a data folder that outlives the server.
func StartIn(t testing.TB, data string, args ...string) *Server {
	t.Helper()
	s := &Server{Data: data, args: args}
	s.Start(t)
	t.Cleanup(func() {
		s.Stop(t)
		if t.Failed() {
			t.Logf("the server's log:\n%s", tail(s.log.String(), 60))
		}
	})
	return s
}

// Start starts the process again after Kill or Stop, on its data.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	s.log = &buffer{}
	if err := os.Remove(filepath.Join(s.Data, "run.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	argv := []string{"serve", "--data", s.Data}
	for _, free := range [][2]string{
		{"--listen", "127.0.0.1:0"},
		{"--advertise", "127.0.0.1"},
		{"--connect", "127.0.0.1:0"},
		{"--dns", "127.0.0.1:0"},
		{"--wireguard", "127.0.0.1:0"},
		{"--admin", "127.0.0.1:0"},
	} {
		if !slices.Contains(s.args, free[0]) {
			argv = append(argv, free[0], free[1])
		}
	}
	s.cmd = exec.Command(Binary(t), append(argv, s.args...)...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd.Stderr = s.log
	// A test that dies takes its server with it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready := make(chan error, 1)
	done := make(chan struct{})
	s.done = done
	go func() {
		defer close(done)
		said := ""
		buf := make([]byte, 4096)
		for {
			n, err := out.Read(buf)
			said += string(buf[:n])
			if strings.Contains(said, "ready") {
				select {
				case ready <- nil:
				default:
				}
			}
			if err != nil {
				break
			}
		}
		err := s.cmd.Wait()
		select {
		case ready <- fmt.Errorf("the server ended before it was ready: %v", err):
		default:
		}
	}()
	select {
	case err := <-ready:
		if err != nil {
			t.Fatalf("%v\n%s", err, tail(s.log.String(), 40))
		}
	case <-time.After(Wait):
		t.Fatalf("the server was not ready in time\n%s", tail(s.log.String(), 40))
	}
	data, err := os.ReadFile(filepath.Join(s.Data, "run.json"))
	if err != nil {
		t.Fatal(err)
	}
	s.Run = Run{}
	if err := json.Unmarshal(data, &s.Run); err != nil {
		t.Fatal(err)
	}
}

// StartWith is Start with further flags of serve from now on.
func (s *Server) StartWith(t testing.TB, args ...string) {
	t.Helper()
	s.args = append(s.args, args...)
	s.Start(t)
}

// Kill ends the process as a power cut would, and waits until it is gone.
func (s *Server) Kill(t testing.TB) { s.end(t, syscall.SIGKILL) }

// Stop asks the process to end, and waits.
func (s *Server) Stop(t testing.TB) { s.end(t, syscall.SIGTERM) }

func (s *Server) end(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	select {
	case <-s.done:
	case <-time.After(Wait):
		t.Errorf("the server did not end on %v", sig)
		if err := s.cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		<-s.done
	}
	s.cmd = nil
}

// Log is what the server has written to standard error since it started.
func (s *Server) Log() string { return s.log.String() }

// PID is the server's process id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Env is the environment of a client of this server: its data folder for
// cove's own commands, its authority for programs that look at SSL_CERT_FILE,
// and none of the caller's proxies.
func (s *Server) Env(more ...string) []string {
	var env []string
	for _, kv := range os.Environ() {
		k, _, _ := strings.Cut(kv, "=")
		switch strings.ToUpper(k) {
		case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "SSL_CERT_DIR", "SSL_CERT_FILE":
			continue
		}
		if !strings.HasPrefix(k, "COVE_") {
			env = append(env, kv)
		}
	}
	return append(append(env, "COVE_DATA="+s.Data, "SSL_CERT_FILE="+filepath.Join(s.Data, "ca.pem")), more...)
}

// Try runs cove with args and returns its standard output, its standard error
// and its exit status.
func (s *Server) Try(t testing.TB, args ...string) (out, errs string, status int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Wait)
	defer cancel()
	cmd := exec.CommandContext(ctx, Binary(t), args...)
	cmd.Env = s.Env()
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("cove %s did not end\n%s", strings.Join(args, " "), e.String())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return o.String(), e.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return o.String(), e.String(), 0
}

// Cove runs cove with args, which must succeed, and returns its standard
// output without the last line feed.
func (s *Server) Cove(t testing.TB, args ...string) string {
	t.Helper()
	out, errs, status := s.Try(t, args...)
	if status != 0 {
		t.Fatalf("cove %s: exit status %d\n%s%s", strings.Join(args, " "), status, out, errs)
	}
	return strings.TrimSuffix(out, "\n")
}

// Password is the first of a registry's admin passwords.
func (s *Server) Password(t testing.TB, registry string) string {
	t.Helper()
	return s.Cove(t, "registry", "credential", "show", registry, "--query", "passwords[0].value", "-o", "tsv")
}

// Outside is an HTTP client that arrives at the public listener, whatever the
// URL's host is.
func (s *Server) Outside(t testing.TB) *http.Client {
	t.Helper()
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   s.TLS(t),
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Run.Listen[0])
		},
	}}
}

// Through is an HTTP client that uses the proxy at addr.
func (s *Server) Through(t testing.TB, addr string) *http.Client {
	t.Helper()
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: s.TLS(t), ForceAttemptHTTP2: true, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: addr}),
	}}
}

// TLS trusts the server's authority and nothing else.
func (s *Server) TLS(t testing.TB) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(filepath.Join(s.Data, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("ca.pem holds no certificate")
	}
	return &tls.Config{RootCAs: pool}
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
