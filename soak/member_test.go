package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"cove.example/cove/covetest"
)

// enter joins a network without root and returns the address of the member's
// proxy.
func enter(t *testing.T, s *covetest.Server, network, name string) string {
	t.Helper()
	cmd := exec.Command(covetest.Binary(t), "join", network+"/default", "--name", name, "--userspace", "--proxy", "127.0.0.1:0")
	cmd.Env = s.Env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait()); err != nil {
			t.Errorf("the member %s: %v", name, err)
		}
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	_, proxy, ok := strings.Cut(strings.TrimSpace(line), "proxy at ")
	if err != nil || !ok {
		t.Fatalf("cove join: %v %q", err, line)
	}
	return proxy
}

// addresses are a private endpoint's, by the names that they serve.
func addresses(t *testing.T, s *covetest.Server, endpoint string) map[string]string {
	t.Helper()
	var configs []struct {
		FQDN        string
		IPAddresses []string
	}
	if err := json.Unmarshal([]byte(s.Cove(t, "private-endpoint", "show", endpoint, "--query", "properties.customDnsConfigs", "-o", "json")), &configs); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range configs {
		out[c.FQDN] = c.IPAddresses[0]
	}
	return out
}

// by is a client like c, without a connection yet, that arrives through a
// member's proxy at the addresses of a private endpoint.
func (c *client) by(proxy string, addresses map[string]string) *client {
	d := *c
	transport := c.http.Transport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, _, to string) (net.Conn, error) {
		name, port, err := net.SplitHostPort(to)
		if err != nil || addresses[name] == "" {
			return nil, fmt.Errorf("the private endpoint has no address for %s", to)
		}
		return connect(ctx, proxy, net.JoinHostPort(addresses[name], port))
	}
	d.http = &http.Client{Transport: transport}
	return &d
}

// connect opens a connection to address through an HTTP proxy.
func connect(ctx context.Context, proxy, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", proxy)
	if err != nil {
		return nil, err
	}
	_, err = fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", address)
	if err == nil {
		// The registry says nothing before we do, so nothing of it is lost in
		// the reader.
		var resp *http.Response
		if resp, err = http.ReadResponse(bufio.NewReader(conn), nil); err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("the proxy answers %s", resp.Status)
		}
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}
