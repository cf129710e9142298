package health

import (
	"cmp"
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"cove.example/cove/reason"
)

// Trusts says which container engines of this machine trust the certificate
// that a host has shown, by the system's list or by a folder of their own. The
// check itself may trust more: the authority that it was given. It says nothing
// where the system's list is enough.
func (m Machine) Trusts(host string, shown []*x509.Certificate, now time.Time) []Result {
	if m.verifies(host, shown, now, nil) {
		return nil
	}
	var with, without, flags, by []string
	for _, e := range []struct {
		name  string
		files []string
	}{
		{"docker", m.glob("/etc/docker/certs.d/" + host + "/*.crt")},
		{"podman", append(m.glob("/etc/containers/certs.d/"+host+"/*.crt"), m.glob("/etc/docker/certs.d/"+host+"/*.crt")...)},
		{"containerd", m.namedBy("/etc/containerd/certs.d/" + host + "/hosts.toml")},
	} {
		if _, err := exec.LookPath(e.name); err != nil {
			continue
		}
		if i := slices.IndexFunc(e.files, func(name string) bool { return m.verifies(host, shown, now, &name) }); i >= 0 {
			with, by = append(with, e.name), append(by, e.files[i])
		} else {
			without, flags = append(without, e.name), append(flags, "--"+e.name)
		}
	}
	var out []Result
	if len(with) > 0 {
		out = append(out, Result{Layer: LayerEngine, Subject: "trust", Outcome: Passed, Said: listed(with) + ", by " + strings.Join(by, ", ")})
	}
	if len(with)+len(without) > 0 && len(without) == 0 {
		return out
	}
	r := Result{Layer: LayerEngine, Subject: "trust"}
	r.fail(reason.AuthorityUnknown, "%s would refuse the certificate, which this check trusts because cove knows its authority", cmp.Or(listed(without), "programs that use this machine's own list"))
	if len(with) > 0 || len(without) == 0 {
		r.Outcome = Warned // what is used to pull may be another
	}
	r.Fix = "cove trust " + cmp.Or(strings.Join(flags, " "), "--system") + " " + host
	return append(out, r)
}

// listed is "a, b and c".
func listed(s []string) string {
	if len(s) < 2 {
		return strings.Join(s, "")
	}
	return strings.Join(s[:len(s)-1], ", ") + " and " + s[len(s)-1]
}

// verifies reports whether the certificate is trusted by the system's list and
// by a file besides.
func (m Machine) verifies(host string, shown []*x509.Certificate, now time.Time, file *string) bool {
	pool := m.System
	if pool == nil {
		var err error
		if pool, err = x509.SystemCertPool(); err != nil {
			pool = x509.NewCertPool()
		}
	}
	pool = pool.Clone()
	if file != nil {
		pem, err := os.ReadFile(*file)
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			return false
		}
	}
	name, _, err := splitHost(host)
	if err != nil {
		return false
	}
	o := x509.VerifyOptions{DNSName: name, Roots: pool, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range shown[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err = shown[0].Verify(o)
	return err == nil
}

func (m Machine) glob(pattern string) []string {
	found, err := filepath.Glob(m.Root + pattern)
	if err != nil {
		return nil // a host that is a pattern has no folder
	}
	return found
}

// authorities are the files that a hosts.toml of containerd's names.
var authorities = regexp.MustCompile(`(?m)^\s*ca\s*=\s*(.*)$`)

// namedBy are the authorities' files that containerd's settings for a host
// name.
func (m Machine) namedBy(settings string) []string {
	text, err := os.ReadFile(m.Root + settings)
	if err != nil {
		return nil
	}
	var out []string
	for _, match := range authorities.FindAllStringSubmatch(string(text), -1) {
		for i, part := range strings.Split(match[1], `"`) {
			if i%2 == 1 {
				out = append(out, m.Root+part)
			}
		}
	}
	return out
}
