package health

import (
	"crypto/x509"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"cove.example/cove/reason"
)

// write puts a file below a folder.
func write(t *testing.T, root, name, text string, mode os.FileMode) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// A node has no docker; its engine listens at a socket, and reads its proxy
// when it starts. What is installed and does not run is not called good.
func TestEnginesOfANode(t *testing.T) {
	root := t.TempDir()
	t.Setenv("PATH", filepath.Join(root, "bin"))
	m := Machine{Root: root, Env: func(k string) string { return map[string]string{"HTTPS_PROXY": "http://me:pa55@proxy:3128"}[k] }}
	look := func() map[string]Result {
		t.Helper()
		out := map[string]Result{}
		for _, r := range m.Engines(t.Context(), "r.cr.cove.internal") {
			out[r.Subject] = r
		}
		return out
	}
	if found := look(); len(found) != 0 {
		t.Errorf("a machine without engines: %+v", found)
	}
	write(t, root, "bin/containerd", "#!/bin/sh\n", 0o755)
	if r := look()["containerd"]; r.Code != reason.EngineAway || r.Outcome != Failed {
		t.Errorf("containerd is installed and does not run: %+v", r)
	}
	if err := os.MkdirAll(filepath.Join(root, "run/containerd"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(root, "run/containerd/containerd.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	write(t, root, "proc/7/comm", "sh\n", 0o644)
	write(t, root, "proc/8/comm", "containerd\n", 0o644)
	write(t, root, "proc/8/environ", "A=b\x00HTTPS_PROXY=http://other:3128\x00NO_PROXY=.svc\x00", 0o644)
	found := look()
	if r := found["containerd"]; r.Outcome != Passed {
		t.Errorf("containerd listens: %+v", r)
	}
	want := Result{
		Layer: LayerEngine, Subject: "containerd's proxy", Outcome: Warned, Code: reason.EngineProxy,
		Said: "containerd's proxy is http://other:3128, this shell's is http://me:xxxxx@proxy:3128", Evidence: []string{"containerd's NO_PROXY: .svc"},
	}
	if got := found["containerd's proxy"]; got.Said != want.Said || got.Outcome != want.Outcome || got.Code != want.Code || !slices.Equal(got.Evidence, want.Evidence) {
		t.Errorf("containerd has another proxy: %+v", got)
	}
	// Beside it another engine, which is broken: pulls can be made all the same.
	write(t, root, "bin/podman", "#!/bin/sh\necho no storage >&2\nexit 125\n", 0o755)
	if r := look()["podman"]; r.Outcome != Warned || r.Code != reason.EngineAway || r.Said != "podman info fails: no storage" {
		t.Errorf("podman is broken: %+v", r)
	}
}

// cove knows its own authority; that an engine of the same machine does is
// another matter, and what a pull needs.
func TestWhatEnginesTrust(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	t.Cleanup(s.Close)
	shown := []*x509.Certificate{s.Certificate()}
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: shown[0].Raw}))
	root := t.TempDir()
	t.Setenv("PATH", filepath.Join(root, "bin"))
	m := Machine{Root: root, System: x509.NewCertPool()}
	const host = "example.com:5443"
	says := func(want ...Outcome) {
		t.Helper()
		var got []Outcome
		results := m.Trusts(host, shown, time.Now())
		for _, r := range results {
			got = append(got, r.Outcome)
			if (r.Outcome == Passed) != (r.Code == "") || r.Code != "" && r.Fix == "" {
				t.Errorf("%+v", r)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%+v, want %v", results, want)
		}
	}
	says(Warned) // no engine, and programs that use the system's list do not trust it
	write(t, root, "bin/docker", "", 0o755)
	write(t, root, "bin/containerd", "", 0o755)
	says(Failed)
	write(t, root, "etc/docker/certs.d/example.com/ca.crt", ca, 0o644) // for another port
	says(Failed)
	write(t, root, "etc/containerd/certs.d/"+host+"/hosts.toml", "server = \"https://"+host+"\"\n[host.\"https://"+host+"\"]\n  ca = [\"/etc/pki/ours.crt\"]\n", 0o644)
	says(Failed) // it names a file that is not there
	write(t, root, "etc/pki/ours.crt", ca, 0o644)
	says(Passed, Warned)
	write(t, root, "etc/docker/certs.d/"+host+"/ca.crt", ca, 0o644)
	says(Passed)
	m.System.AddCert(shown[0])
	says()
}
