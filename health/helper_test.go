package health

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cove.example/cove/reason"
)

// A client's credentials may be kept by another program; a check asks it as
// clients do, says when it does not work, and never what it keeps.
func TestCredentialHelpers(t *testing.T) {
	const host = "r.cr.cove.internal"
	root := t.TempDir()
	t.Setenv("PATH", filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
	for name, script := range map[string]string{
		"good":   `read host; [ "$host" = ` + host + ` ] && echo '{"ServerURL":"x","Username":"me","Secret":"pa55-w0rd"}'`,
		"empty":  `echo credentials not found in native keychain; exit 1`,
		"locked": `echo the keyring is locked; echo more; exit 2`,
		"silly":  `echo pa55-w0rd`,
	} {
		write(t, root, "bin/docker-credential-"+name, "#!/bin/sh\n"+script+"\n", 0o755)
	}
	m := Machine{Root: root, Env: func(k string) string { return map[string]string{"HOME": root}[k] }}
	for _, c := range []struct {
		settings string
		broken   bool
		says     string
	}{
		{`{"auths":{}}`, false, ""},
		{`{"credsStore":"good"}`, false, "good has one"},
		{`{"credsStore":"empty"}`, false, "empty has none for " + host + ": clients ask as nobody"},
		{`{"credsStore":"locked"}`, true, "docker-credential-locked: exit status 2: the keyring is locked"},
		{`{"credsStore":"good","credHelpers":{"` + host + `":"locked"}}`, true, "docker-credential-locked: "},
		{`{"credsStore":"good","credHelpers":{"other":"locked"}}`, false, "good has one"},
		{`{"credsStore":"absent"}`, true, "docker-credential-absent: there is no such program"},
		{`{"credsStore":"../bin/docker-credential-good"}`, true, "not the name of a program"},
		{`{"credsStore":"silly"}`, true, "what it says is no credential"},
		{`{"credsStore":`, true, "cannot be read as JSON"},
	} {
		write(t, root, ".docker/config.json", c.settings, 0o600)
		found := m.helper(t.Context(), host)
		if c.says == "" {
			if len(found) != 0 {
				t.Errorf("%s: %+v", c.settings, found)
			}
			continue
		}
		if len(found) != 1 {
			t.Fatalf("%s: %+v", c.settings, found)
		}
		r := found[0]
		if (r.Outcome == Failed) != c.broken || c.broken != (r.Code == reason.HelperBroken) || !strings.Contains(r.Said, c.says) {
			t.Errorf("%s: %+v", c.settings, r)
		}
		if strings.Contains(r.Said+r.Fix+strings.Join(r.Evidence, ""), "pa55") {
			t.Errorf("%s tells the secret: %+v", c.settings, r)
		}
	}
}
