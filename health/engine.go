package health

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"cove.example/cove/reason"
)

// Machine is where container engines are looked for.
type Machine struct {
	Env func(string) string // nil is the process's environment
}

// oldest is the first docker that signs in as registries of this kind need
// (source: the login article of Azure Container Registry).
var oldest = [2]int{18, 3}

// Engines says of each container engine of this machine whether it can be
// used. A machine without one is no failure: nodes and pipelines have
// clients of their own.
func (m Machine) Engines(ctx context.Context) []Result {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out []Result
	if path, err := exec.LookPath("docker"); err == nil {
		out = append(out, m.docker(ctx, path)...)
	}
	for _, client := range []string{"podman", "containerd"} {
		path, err := exec.LookPath(client)
		if err != nil {
			continue
		}
		r := Result{Layer: LayerEngine, Subject: client, Outcome: Passed}
		if version, err := output(ctx, path, "--version"); err != nil {
			r.fail(reason.EngineAway, "%s --version fails: %s", client, err)
		} else {
			r.Said = version
		}
		out = append(out, r)
	}
	return out
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
	mine := m.env("HTTPS_PROXY", "https_proxy")
	if sameProxy(d.Proxy, mine) && (d.Proxy == "" || d.No == m.env("NO_PROXY", "no_proxy")) {
		return nil
	}
	r := Result{Layer: LayerEngine, Subject: "docker's proxy"}
	r.fail(reason.EngineProxy, "the daemon's proxy is %s, this shell's is %s", orNone(redactProxy(d.Proxy)), orNone(redactProxy(mine)))
	r.Outcome = Warned // the daemon may be the one that is right
	r.Evidence = []string{"the daemon's NO_PROXY: " + orNone(d.No)}
	return []Result{r}
}

func (m Machine) env(names ...string) string {
	get := m.Env
	if get == nil {
		get = os.Getenv
	}
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
