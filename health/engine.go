package health

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cove.example/cove/reason"
)

// Machine is where container engines are looked for.
type Machine struct {
	Env  func(string) string // nil is the process's environment
	Root string              // of its files; "" is "/"
	// System is what programs of this machine trust; nil is the system's list.
	System *x509.CertPool
}

// oldest is the first docker that signs in as registries of this kind need
// (source: the login article of Azure Container Registry).
var oldest = [2]int{18, 3}

// socket is where an engine listens that others ask.
type socket struct{ name, program, variable, path string }

// sockets are where engines of nodes listen (sources: containerd's, k3s's and
// CRI-O's documentation).
var sockets = []socket{
	{"containerd", "containerd", "CONTAINERD_ADDRESS", "/run/containerd/containerd.sock"},
	{"k3s", "", "", "/run/k3s/containerd/containerd.sock"},
	{"CRI-O", "", "", "/run/crio/crio.sock"},
}

// Engines says of each container engine of this machine whether it can be
// used, and of what keeps credentials for a host. A machine without one is no failure: pipelines have clients of their
// own. Nor is an engine that is away where another is there.
func (m Machine) Engines(ctx context.Context, host string) []Result {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	var out []Result
	if path, err := exec.LookPath("docker"); err == nil {
		out = append(out, m.docker(ctx, path)...)
	}
	if path, err := exec.LookPath("podman"); err == nil {
		// Asking for the version alone would not open its storage.
		r := Result{Layer: LayerEngine, Subject: "podman", Outcome: Passed}
		if version, err := output(ctx, path, "info", "--format", "{{.Version.Version}}"); err != nil {
			r.fail(reason.EngineAway, "podman info fails: %s", err)
		} else {
			r.Said = "podman " + version
		}
		out = append(out, r)
	}
	for _, s := range sockets {
		out = append(out, m.listens(ctx, s)...)
	}
	some := slices.ContainsFunc(out, func(r Result) bool { return r.Outcome == Passed })
	for i := range out {
		if out[i].Code == reason.EngineAway && some {
			out[i].Outcome = Warned
		}
	}
	return append(out, m.helper(ctx, host)...)
}

// listens says whether an engine is at its socket, and with which proxy.
func (m Machine) listens(ctx context.Context, s socket) []Result {
	path := m.Root + s.path
	if s.variable != "" {
		path = cmp.Or(m.env(s.variable), path)
	}
	installed := false
	if s.program != "" {
		_, err := exec.LookPath(s.program)
		installed = err == nil
	}
	if _, err := os.Stat(path); err != nil && !installed {
		return nil
	}
	r := Result{Layer: LayerEngine, Subject: s.name, Outcome: Passed, Said: "listens at " + path}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		r.Outcome, r.Said = Warned, path+" is for root: run this as root to try it"
	case err != nil:
		r.fail(reason.EngineAway, "nothing listens at %s", path)
	default:
		conn.Close()
	}
	if r.Outcome != Passed || s.program == "" {
		return []Result{r}
	}
	env, err := m.environment(s.program)
	if err != nil {
		r.Said += "; its proxy can be seen by root only"
		return []Result{r}
	}
	return append([]Result{r}, m.otherProxy(s.name, first(env, "HTTPS_PROXY", "https_proxy"), first(env, "NO_PROXY", "no_proxy"))...)
}

// environment are the variables of a running program: an engine's proxy is
// read when it starts, from there.
func (m Machine) environment(program string) (func(string) string, error) {
	found, err := filepath.Glob(m.Root + "/proc/[0-9]*/comm")
	if err != nil {
		return nil, err
	}
	for _, name := range found {
		comm, err := os.ReadFile(name)
		if err != nil || strings.TrimSpace(string(comm)) != program {
			continue
		}
		text, err := os.ReadFile(filepath.Join(filepath.Dir(name), "environ"))
		if err != nil {
			return nil, err
		}
		vars := strings.Split(string(text), "\x00")
		return func(key string) string {
			for _, v := range vars {
				if value, ok := strings.CutPrefix(v, key+"="); ok {
					return value
				}
			}
			return ""
		}, nil
	}
	return nil, fs.ErrNotExist
}

// docker asks the client and, through it, the daemon.
func (m Machine) docker(ctx context.Context, path string) []Result {
	r := Result{Layer: LayerEngine, Subject: "docker", Outcome: Passed}
	text, err := output(ctx, path, "version", "--format", "{{.Client.Version}} {{if .Server}}{{.Server.Version}}{{end}}")
	versions := strings.Fields(text)
	switch {
	case len(versions) == 0 && err != nil:
		// A client whose daemon is away prints its own version and fails.
		r.fail(reason.EngineAway, "docker version fails: %s", err)
		return []Result{r}
	case tooOld(versions[0]):
		r.fail(reason.ClientOld, "docker %s; 18.03 or later is needed", versions[0])
		return []Result{r}
	case len(versions) < 2:
		r.fail(reason.EngineAway, "the client is %s and the daemon does not answer", versions[0])
		return []Result{r}
	}
	r.Said = fmt.Sprintf("docker %s, daemon %s", versions[0], versions[1])
	out := []Result{r}
	if text, err = output(ctx, path, "info", "--format", `{"proxy":{{json .HTTPSProxy}},"no":{{json .NoProxy}}}`); err == nil {
		out = append(out, m.daemonProxy(text)...)
	}
	return out
}

// daemonProxy compares the daemon's proxy with this process's.
func (m Machine) daemonProxy(info string) []Result {
	var d struct{ Proxy, No string }
	if json.Unmarshal([]byte(info), &d) != nil {
		return nil
	}
	return m.otherProxy("docker", d.Proxy, d.No)
}

// otherProxy warns where an engine's proxy is not this process's, which is the
// one that is checked.
func (m Machine) otherProxy(engine, proxy, no string) []Result {
	mine := m.env("HTTPS_PROXY", "https_proxy")
	if sameProxy(proxy, mine) && (proxy == "" || no == m.env("NO_PROXY", "no_proxy")) {
		return nil
	}
	r := Result{Layer: LayerEngine, Subject: engine + "'s proxy"}
	r.fail(reason.EngineProxy, "%s's proxy is %s, this shell's is %s", engine, orNone(redactProxy(proxy)), orNone(redactProxy(mine)))
	r.Outcome = Warned // the engine may be the one that is right
	r.Evidence = []string{engine + "'s NO_PROXY: " + orNone(no)}
	return []Result{r}
}

func (m Machine) env(names ...string) string {
	get := m.Env
	if get == nil {
		get = os.Getenv
	}
	return first(get, names...)
}

// first is the first of some variables that is set.
func first(get func(string) string, names ...string) string {
	for _, n := range names {
		if v := get(n); v != "" {
			return v
		}
	}
	return ""
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// redactProxy leaves a proxy's password out.
func redactProxy(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(not a URL)"
	}
	return u.Redacted()
}

func sameProxy(a, b string) bool {
	return strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/")
}

func tooOld(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA == nil && errB == nil && (a < oldest[0] || a == oldest[0] && b < oldest[1])
}

// output runs a program and returns its first line.
func output(ctx context.Context, path string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, path, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	line, _, _ := strings.Cut(strings.TrimSpace(out.String()), "\n")
	if err != nil {
		said, _, _ := strings.Cut(strings.TrimSpace(errs.String()), "\n")
		if said == "" {
			said = err.Error()
		}
		err = errors.New(said)
	}
	return line, err
}
