package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// desk is a host outside with docker's engine, the other clients and an Azure
// CLI that is signed in as the administrator. Commands are written as in a
// shell, with $NAME for its variables.
type desk struct {
	*lab
	t      *testing.T
	at     host // where commands run
	cli    *cli
	engine string // folder of docker's engine
	node   *node  // for PullImage
	forged string // address of the terminator of TLS
	docker func(...string) []string
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	l := newLab(t)
	d := &desk{lab: l, t: t, at: l.outside, engine: filepath.Join(l.dir, "dockerd-"+l.outside.name)}
	d.docker = l.docker(t, l.outside)
	d.cli = d.openCLI()
	d.let("CA", filepath.Join(l.Data, "ca.pem"))
	d.let("DIR", l.dir)
	admin := administrator(t, l.Server)
	d.let("ADMIN_ID", admin.ClientID)
	d.let("ADMIN_SECRET", admin.ClientSecret)
	d.let("TENANT", admin.TenantID)
	d.let("CRANE", covetest.Crane(t))
	layer(t, filepath.Join(l.dir, "layer.tar"), "hello\n")
	for _, line := range []string{
		"docker import $DIR/layer.tar image:1",
		"docker save --output $DIR/raw.tar image:1",
		"skopeo copy docker-archive:$DIR/raw.tar oci:$DIR/oci:1",
	} {
		d.does(line)
	}
	return d
}

// openCLI is openCLI for the host outside.
func (d *desk) openCLI() *cli {
	d.t.Helper()
	d.Cove(d.t, "az", "--out", filepath.Join(d.dir, "az"))
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	d.t.Cleanup(cancel)
	// Debian's docker stands before any other: az runs what it finds.
	cmd := d.command(ctx, d.outside, "sh", "-ec", `. "$0/az/env.sh" >&2
		az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none
		exec python3 "$1/az/many.py"`, d.dir, here(d.t))
	cmd.Env = append(cmd.Env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH="+filepath.Join(here(d.t), "az"), "DOCKER_HOST=unix://"+filepath.Join(d.engine, "docker.sock"))
	c := &cli{t: d.t, vars: map[string]string{}, errs: &bytes.Buffer{}, env: cmd.Env}
	cmd.Stderr = c.errs
	in, err := cmd.StdinPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	t := d.t
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("az ended with %v\n%s", err, c.errs.String())
		}
	})
	c.in, c.out = json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))
	return c
}

// chapter is a subtest; the desk reports to it.
func (d *desk) chapter(name string, f func()) {
	d.t.Run(name, func(t *testing.T) {
		defer d.report(d.t)
		d.report(t)
		f()
	})
}

// report says whose test it is from now on.
func (d *desk) report(t *testing.T) {
	d.t, d.cli.t = t, t
	if d.node != nil {
		d.node.t = t
	}
}

// let sets a variable.
func (d *desk) let(name, value string) { d.cli.vars[name] = value }

// run runs a command on the host that d.at is. Its first word says which program.
func (d *desk) run(line string, env ...string) answer {
	d.t.Helper()
	var argv []string
	for _, w := range words(d.t, 0, line) {
		argv = append(argv, d.cli.fill(w, strings.Clone))
	}
	switch argv[0] {
	case "az":
		return d.cli.az(argv[1:])
	case "cove":
		out, errs, status := d.Try(d.t, argv[1:]...)
		return answer{status, out, errs}
	case "docker":
		argv = d.docker(argv[1:]...)
	case "crane":
		argv[0] = d.cli.vars["CRANE"]
	case "helm":
		argv[0] = covetest.Helm(d.t)
	case "PullImage":
		return d.pullImage(append(argv[1:], "", "")...)
	case "curl":
		// The status and the challenge stand below the body.
		argv = append([]string{
			"curl", "-sS", "--max-time", "20", "--cacert", d.cli.vars["CA"], "--fail-with-body", "-w", `%{http_code} %header{www-authenticate}\n`,
			"-H", "Accept: application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json",
		}, argv[1:]...)
	case "podman":
		argv = append([]string{
			"podman", "--root", filepath.Join(d.dir, "podman"), "--runroot", filepath.Join(d.dir, "podman-run"), "--storage-driver", "vfs",
			"--cgroup-manager", "cgroupfs", "--events-backend", "none",
		}, argv[1:]...)
	case "ctr":
		// The engine's own containerd serves.
		argv = append([]string{"ctr", "--address", filepath.Join(d.engine, "exec", "containerd", "containerd.sock")}, argv[1:]...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := d.command(ctx, d.at, argv...)
	cmd.Env = append(cmd.Env, env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil || cmd.ProcessState == nil {
		d.t.Fatalf("%s: %v\n%s", line, err, errs.String())
	}
	return answer{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// pullImage is what a kubelet asks of a node: the image, and the user name and
// password of the pull secret. It answers as the kubelet's event does.
func (d *desk) pullImage(args ...string) answer {
	d.t.Helper()
	status, message := d.node.ask(args[0], args[1], args[2])
	if message == "" {
		return answer{Out: "pulled\n"}
	}
	name := map[string]string{"2": "Unknown", "3": "InvalidArgument", "5": "NotFound"}[status]
	if name == "" {
		d.t.Errorf("the node answers with status %s", status)
	}
	return answer{1, "", fmt.Sprintf("Failed to pull image %q: rpc error: code = %s desc = %s\n", args[0], name, message)}
}

// does runs a command that must succeed, and returns its standard output.
func (d *desk) does(line string) string {
	d.t.Helper()
	a := d.run(line)
	if a.Status != 0 {
		d.t.Fatalf("%s: exit status %d\n%s%s", line, a.Status, a.Out, a.Err)
	}
	return strings.TrimSpace(a.Out)
}

// sets is does for one whose output is a variable's value.
func (d *desk) sets(name, line string) {
	d.t.Helper()
	v := d.does(line)
	if v == "" {
		d.t.Fatalf("%s says nothing", line)
	}
	d.let(name, v)
}

// says runs a command that must succeed and say something that the pattern
// matches.
func (d *desk) says(pattern, line string) string {
	d.t.Helper()
	a := d.run(line)
	if a.Status != 0 {
		d.t.Fatalf("%s: exit status %d\n%s%s", line, a.Status, a.Out, a.Err)
	}
	return d.matches(pattern, line, a)
}

// refused runs a command that must fail, and say why.
func (d *desk) refused(pattern, line string, env ...string) string {
	d.t.Helper()
	a := d.run(line, env...)
	if a.Status == 0 {
		d.t.Errorf("it succeeds: %s\n%s%s", line, a.Out, a.Err)
		return ""
	}
	return d.matches(pattern, line, a)
}

func (d *desk) matches(pattern, line string, a answer) string {
	d.t.Helper()
	all := a.Out + a.Err
	if !regexp.MustCompile(`(?m)` + d.cli.fill(pattern, regexp.QuoteMeta)).MatchString(all) {
		d.t.Errorf("%s does not say %s\n%s", line, pattern, all)
	}
	return all
}

// until waits until a command fails as it should, for what ends by itself or
// within the ten seconds that revocation may take.
func (d *desk) until(pattern, line string) {
	d.t.Helper()
	soon(d.t, "refused: "+line, func() bool { return d.run(line).Status != 0 })
	// The first refusal may have met a sign-in half done, which says less: the
	// token was still sold and is good for nothing.
	d.refused(pattern, line)
}

// brief is sets for a password that ends soon: $SOON in the command is when. A
// command that uses it succeeds before that; where the machine is too busy for
// it, another one is made that lives longer.
func (d *desk) brief(name, line string, uses ...string) {
	d.t.Helper()
	for life := 8 * time.Second; ; life *= 2 {
		end := time.Now().Add(life).Truncate(time.Second)
		d.let("SOON", end.UTC().Format(time.RFC3339))
		a := d.run(line)
		d.let(name, strings.TrimSpace(a.Out))
		for i := 0; a.Status == 0 && i < len(uses); i++ {
			a = d.run(uses[i])
		}
		if a.Status == 0 && d.cli.vars[name] != "" {
			return
		}
		if time.Now().Before(end) || life > covetest.Wait/2 {
			d.t.Fatalf("%s %q: exit status %d\n%s%s", line, uses, a.Status, a.Out, a.Err)
		}
	}
}

// principal makes a service principal by the Azure CLI, and sets NAME_ID,
// NAME_SECRET and NAME_OBJECT.
func (d *desk) principal(name string, flags string) {
	d.t.Helper()
	out := strings.Fields(d.does("az ad sp create-for-rbac --name " + strings.ToLower(name) + " " + flags + ` --query "[appId, password]" --output tsv`))
	if len(out) != 2 {
		d.t.Fatalf("create-for-rbac prints %d words", len(out))
	}
	d.let(name+"_ID", out[0])
	d.let(name+"_SECRET", out[1])
	d.sets(name+"_OBJECT", "az ad sp show --id "+out[0]+" --query id --output tsv")
}

// as signs the Azure CLI in as a principal that d.principal has made, until
// the function returns.
func (d *desk) as(name string, f func()) {
	d.t.Helper()
	defer d.administer()
	d.does("az login --service-principal -u $" + name + "_ID -p $" + name + "_SECRET --tenant $TENANT --allow-no-subscriptions --output none")
	f()
}

// administer signs the Azure CLI in as the administrator.
func (d *desk) administer() {
	d.t.Helper()
	d.does("az login --service-principal -u $ADMIN_ID -p $ADMIN_SECRET --tenant $TENANT --output none")
}

// sign writes the credentials of a client into a folder of its own, and
// returns the environment in which docker, skopeo, podman and crane use them.
func (d *desk) sign(host, user, password string) []string {
	d.t.Helper()
	dir, err := os.MkdirTemp(d.dir, "client")
	if err != nil {
		d.t.Fatal(err)
	}
	auths := map[string]map[string][]byte{}
	if user != "" {
		auths[host] = map[string][]byte{"auth": []byte(user + ":" + password)}
	}
	text, err := json.Marshal(map[string]any{"auths": auths})
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), text, 0o600); err != nil {
		d.t.Fatal(err)
	}
	config := filepath.Join(dir, "config.json")
	return []string{"DOCKER_CONFIG=" + dir, "REGISTRY_AUTH_FILE=" + config, "HELM_REGISTRY_CONFIG=" + config}
}
