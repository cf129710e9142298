package scenarios

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/covetest"
	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// faulty is a lab with a registry behind a private endpoint, an image in it,
// and an identity that may pull.
type faulty struct {
	*lab
	t          *testing.T
	host, zone string
	ci         struct{ ClientID, ClientSecret, ObjectID string }
}

func newFaulty(t *testing.T, join ...string) *faulty {
	l := newLab(t)
	f := &faulty{lab: l, t: t, host: "harbor.cr." + l.domain, zone: "privatelink.cr." + l.domain}
	l.Cove(t, "registry", "create", "harbor", "--default-action", "Deny", "--admin-enabled")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default", "--zone", f.zone)
	l.join(t, "office", "vm", join...)
	f.decode(l.Cove(t, "principal", "create", "ci", "--role", "AcrPull", "--registry", "harbor", "-o", "json"), &f.ci)

	dir := t.TempDir()
	layer := filepath.Join(dir, "layer.tar")
	if err := os.WriteFile(filepath.Join(dir, "hello"), []byte("hello\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "tar", "-C", dir, "-cf", layer, "hello")
	crane := covetest.Crane(t)
	l.on(t, l.inside, "sh", "-ec", `"$0" auth login "$1" -u harbor -p "$2" && "$0" append -f "$3" -t "$1/team/app:1"`, crane, f.host, l.Password(t, "harbor"), layer)
	return f
}

func (f *faulty) decode(text string, v any) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		f.t.Fatalf("%v in %d bytes", err, len(text))
	}
}

// request is a pull of the image's manifest, as somebody, from somewhere.
type request struct {
	from           host
	user, password string
	path           string
	more           []string // of curl
}

func (f *faulty) pull(from host) request {
	return request{from, f.ci.ClientID, f.ci.ClientSecret, "/v2/team/app/manifests/1", nil}
}

// get returns the status, "" where there was no answer, and everything that
// came back.
func (f *faulty) get(r request) (status, all string) {
	f.t.Helper()
	args := []string{"curl", "-sS", "--max-time", "20", "--cacert", filepath.Join(f.Data, "ca.pem"), "-i", "-H", "Accept: application/vnd.docker.distribution.manifest.v2+json, application/vnd.oci.image.manifest.v1+json"}
	if r.user != "" {
		args = append(args, "-u", r.user+":"+r.password)
	}
	out, err := f.try(f.t, r.from, append(append(args, r.more...), "https://"+f.host+r.path)...)
	if err != nil {
		return "", out
	}
	_, rest, _ := strings.Cut(out, " ")
	status, _, _ = strings.Cut(rest, " ")
	return status, out
}

// why is what explain says of the refusal in an answer.
func (f *faulty) why(answer string) access.Explanation {
	f.t.Helper()
	ids := correlation.FindAllString(answer, -1)
	if ids == nil {
		f.t.Fatalf("no correlation id:\n%s", answer)
	}
	var e access.Explanation
	f.decode(f.Cove(f.t, "explain", ids[len(ids)-1], "-o", "json"), &e)
	return e
}

// run runs a command that cove has printed.
func (f *faulty) run(command string) {
	f.t.Helper()
	if !strings.HasPrefix(command, "cove ") {
		f.t.Fatalf("%q is no command of cove", command)
	}
	cmd := exec.Command("sh", "-ec", `cove() { "`+covetest.Binary(f.t)+`" "$@"; }; `+command)
	cmd.Env = f.Env()
	if out, err := cmd.CombinedOutput(); err != nil {
		f.t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// checkup is a health check from a host, by layer.
func (f *faulty) checkup(from host, args ...string) map[string]health.Result {
	f.t.Helper()
	return f.checkupAs(from, nil, append([]string{"harbor", "--image", "team/app:1"}, args...)...)
}

// checkupAs is checkup in an environment with further variables, of what args say.
func (f *faulty) checkupAs(from host, env []string, args ...string) map[string]health.Result {
	f.t.Helper()
	out, _ := f.try(f.t, from, slices.Concat([]string{"env"}, env, []string{covetest.Binary(f.t), "check-health", "-o", "json"}, args)...)
	i := strings.IndexByte(out, '{')
	if i < 0 {
		f.t.Fatalf("no report:\n%s", out)
	}
	var r health.Report
	if err := json.NewDecoder(strings.NewReader(out[i:])).Decode(&r); err != nil {
		f.t.Fatalf("%v\n%s", err, out)
	}
	found := map[string]health.Result{}
	for _, x := range r.Results {
		if x.Layer == health.LayerData || x.Layer == health.LayerEngine {
			found[x.Layer+" "+x.Subject] = x
		}
		found[x.Layer] = x
	}
	return found
}

// The failures that fill the trackers of this field, each made by really
// breaking the thing: the code, the deciding step and the evidence are as they
// should be, the command that is printed is run, the same request is allowed
// then, and one that differs in one thing is still refused. row:103 row:88
// row:79 row:105
func TestRootFaultsAndTheirCures(t *testing.T) {
	f := newFaulty(t)
	decided := func(t *testing.T, e access.Explanation, step string, code access.Reason) {
		t.Helper()
		for _, s := range e.Steps {
			if (s.Reason != "") != (s.Name == step) || s.Reason != "" && s.Reason != code {
				t.Errorf("the step %s has the reason %q; %s decided with %s", s.Name, s.Reason, step, code)
			}
		}
		if e.Reason != code || len(e.Evidence) == 0 {
			t.Errorf("%s with the evidence %q", e.Reason, e.Evidence)
		}
	}
	expect := func(t *testing.T, r request, want string) string {
		t.Helper()
		got, all := f.get(r)
		if got != want {
			t.Errorf("status %q, not %s\n%s", got, want, all)
		}
		return all
	}
	if status, all := f.get(f.pull(f.inside)); status != "200" {
		t.Fatalf("before anything is broken: %s\n%s", status, all)
	}

	t.Run("1 an address is not admitted at the public door", func(t *testing.T) {
		e := f.why(expect(t, f.pull(f.outside), "403"))
		decided(t, e, "rules", access.NoRule)
		if !strings.Contains(strings.Join(e.Evidence, " "), "Deny") || len(e.Fixes) != 1 || !strings.HasPrefix(e.Fixes[0].After, "ADMITTED") {
			t.Errorf("%+v", e)
		}
		f.run(e.Fixes[0].Command)
		expect(t, f.pull(f.outside), "200")
		wrong := f.pull(f.outside)
		wrong.password = "wr0ng"
		expect(t, wrong, "401")
		f.Cove(t, "network-rule", "remove", "harbor", f.outside.address)
		expect(t, f.pull(f.outside), "403")
	})

	t.Run("2 the name is public inside", func(t *testing.T) {
		f.Cove(t, "dns", "link", "remove", f.zone, "office")
		r := f.checkup(f.inside, "--vnet", "office")[health.LayerName]
		if r.Code != reason.NamePublic || !strings.Contains(strings.Join(r.Evidence, " "), "holds 10.0.0.") {
			t.Errorf("%+v", r)
		}
		f.run(r.Fix)
		expect(t, f.pull(f.inside), "200")
		expect(t, f.pull(f.outside), "403")
	})

	t.Run("3 the path is silent", func(t *testing.T) {
		f.on(t, f.inside, "nft", "add table inet fault; add chain inet fault out { type filter hook output priority 0; }; add rule inet fault out ip daddr 10.0.0.0/24 tcp dport 443 drop")
		r := f.checkup(f.inside, "--vnet", "office")
		if c := r[health.LayerConnect]; c.Code != reason.PathSilent || r[health.LayerName].Outcome != health.Passed || r[health.LayerManifest].Outcome != health.NotReached {
			t.Errorf("%+v", r)
		}
		if c := r[health.LayerConnect]; c.Millis > 6000 {
			t.Errorf("the layer waited %d ms", c.Millis)
		}
		f.on(t, f.inside, "nft", "delete table inet fault")
		expect(t, f.pull(f.inside), "200")
	})

	t.Run("4 layers do not come", func(t *testing.T) {
		data := "harbor.local.data"
		f.Cove(t, "dns", "record", "remove", f.zone, data)
		r := f.checkup(f.inside, "--vnet", "office")
		d := r[health.LayerData]
		if d.Code != reason.PrivateNoRecord || r[health.LayerManifest].Outcome != health.Passed || r[health.LayerBlob].Code != reason.DataBlocked {
			t.Errorf("%+v", r)
		}
		f.run(d.Fix)
		if r := f.checkup(f.inside, "--vnet", "office"); r[health.LayerBlob].Outcome != health.Passed {
			t.Errorf("mended: %+v", r)
		}
	})

	t.Run("5 the privatelink name is asked for", func(t *testing.T) {
		out, _ := f.try(t, f.inside, covetest.Binary(t), "check-health", "harbor."+f.zone, "--anonymous")
		if !strings.Contains(out, string(reason.PrivateName)) || !strings.Contains(out, "ask for "+f.host) {
			t.Error(out)
		}
	})

	t.Run("6 the certificate is not trusted", func(t *testing.T) {
		out, err := f.try(t, f.inside, "env", "-u", "SSL_CERT_FILE", "COVE_DATA=/nonexistent", "HOME=/nonexistent", covetest.Binary(t), "check-health", f.host, "--anonymous")
		if err == nil || !strings.Contains(out, string(reason.AuthorityUnknown)) || !strings.Contains(out, "issuer:") {
			t.Errorf("%v\n%s", err, out)
		}
	})

	t.Run("7 the secret is over", func(t *testing.T) {
		var short struct{ ClientSecret, KeyID string }
		f.decode(f.Cove(t, "principal", "secret", "add", "ci", "-o", "json"), &short)
		r := f.pull(f.inside)
		r.password = short.ClientSecret
		expect(t, r, "200")
		f.Cove(t, "principal", "secret", "remove", "ci", short.KeyID)
		deadline := time.Now().Add(10 * time.Second) // the bound on a revocation
		status, all := f.get(r)
		for status == "200" && time.Now().Before(deadline) {
			status, all = f.get(r)
		}
		if status != "401" {
			t.Errorf("a secret that was removed still works: %s", status)
		}
		decided(t, f.why(all), "sign-in", access.WrongCredential)
		expect(t, f.pull(f.inside), "200") // the other secret
	})

	t.Run("8 another identity than the one that was given the role", func(t *testing.T) {
		var kubelet struct{ ClientID, ClientSecret string }
		f.decode(f.Cove(t, "principal", "create", "kubelet", "-o", "json"), &kubelet)
		r := f.pull(f.inside)
		r.user, r.password = kubelet.ClientID, kubelet.ClientSecret
		e := f.why(expect(t, r, "401"))
		decided(t, e, "permission", access.NoRoleHere)
		if len(e.Fixes) != 1 || e.Fixes[0].After != "ALLOWED" || e.Fixes[0].Needs == "" || e.Fixes[0].Opens == "" {
			t.Errorf("%+v", e.Fixes)
		}
		f.run(e.Fixes[0].Command)
		expect(t, r, "200")
		r.path, r.more = "/v2/team/app/blobs/uploads/", []string{"-X", "POST"}
		expect(t, r, "401") // pull is not push
	})

	t.Run("9 the permissions mode ignores the role", func(t *testing.T) {
		f.Cove(t, "registry", "update", "harbor", "--role-assignment-mode", "rbac-abac")
		e := f.why(expect(t, f.pull(f.inside), "401"))
		decided(t, e, "permission", access.ModeIgnoresRole)
		if len(e.Fixes) != 1 || e.Fixes[0].After != "ALLOWED" {
			t.Fatalf("%+v", e.Fixes)
		}
		f.run(e.Fixes[0].Command)
		expect(t, f.pull(f.inside), "200")
		catalog := f.pull(f.inside)
		catalog.path = "/v2/_catalog"
		expect(t, catalog, "401")
		f.Cove(t, "registry", "update", "harbor", "--role-assignment-mode", "rbac")
		expect(t, f.pull(f.inside), "200")
	})

	t.Run("10 there is no such image", func(t *testing.T) {
		out, _ := f.try(t, f.inside, covetest.Binary(t), "check-health", "harbor", "--image", "team/apii:1")
		if !strings.Contains(out, string(reason.ImageUnknown)) {
			t.Error(out)
		}
	})

	t.Run("11 a connection that is not approved", func(t *testing.T) {
		f.Cove(t, "private-endpoint", "reject", "pe", "--registry", "harbor")
		e := f.why(expect(t, f.pull(f.inside), "403"))
		decided(t, e, "endpoint", access.EndpointNotOpen)
		if len(e.Fixes) != 1 || !strings.HasPrefix(e.Fixes[0].After, "ADMITTED") {
			t.Fatalf("%+v", e.Fixes)
		}
		f.run(e.Fixes[0].Command)
		expect(t, f.pull(f.inside), "200")
		expect(t, f.pull(f.outside), "403")
	})
}
