package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func settled(t *testing.T, file string, env map[string]string, args ...string) (*config, error) {
	t.Helper()
	var c config
	fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
	c.flags(fs)
	if file != "" {
		name := filepath.Join(t.TempDir(), "cove.yaml")
		if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config", name)
	}
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &c, c.settle(fs, func(k string) (string, bool) { v, ok := env[k]; return v, ok })
}

func TestAFlagGoesBeforeTheEnvironmentAndThatBeforeTheFile(t *testing.T) {
	file := "region: fromfile\nlisten:\n  - 127.0.0.1:1001\n  - 127.0.0.1:1002\nadmin: 127.0.0.1:3\ni-terminate-tls: true\n"
	env := map[string]string{"COVE_REGION": "fromenv", "COVE_ADMIN": "127.0.0.1:2", "COVE_ALSO_REGION": "eastus,northeurope"}
	c, err := settled(t, file, env, "--admin", "127.0.0.1:1")
	if err != nil {
		t.Fatal(err)
	}
	if c.Admin != "127.0.0.1:1" || c.Region != "fromenv" || !slices.Equal(c.Listen, []string{"127.0.0.1:1001", "127.0.0.1:1002"}) || !c.ITerminateTLS {
		t.Errorf("admin %s, region %s, listen %v, terminate %v", c.Admin, c.Region, c.Listen, c.ITerminateTLS)
	}
	if !slices.Equal(c.AlsoRegion, []string{"eastus", "northeurope"}) {
		t.Errorf("also-region %v", c.AlsoRegion)
	}
	for flag, want := range map[string]bool{"admin": true, "region": true, "listen": true, "dns": false, "connect": false} {
		if c.given[flag] != want {
			t.Errorf("given[%s] = %v", flag, c.given[flag])
		}
	}
}

func TestNamesFollowTheDomain(t *testing.T) {
	c, err := settled(t, "", nil, "--domain", "Example.Test.", "--host-login", "Sts.example.test")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join([]string{c.Domain, c.RegistrySuffix, c.HostManagement, c.HostLogin}, " ")
	if want := "example.test cr.example.test management.example.test sts.example.test"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// A file with mistakes is refused with the line of each of them.
func TestMistakesInTheFileAreNamedWithTheirLines(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"domain: a.test\n\ndoamin: b.test\n", `cove.yaml:3: unknown setting "doamin"; did you mean domain?`},
		{"wholly-unknown: 1\n", `cove.yaml:1: unknown setting "wholly-unknown"`},
		{"domain: a.test\ndomain: b.test\n", "cove.yaml:2: domain is given twice"},
		{"listen: {a: b}\n", "cove.yaml:1: listen: a value or a list of values is expected"},
		{"i-terminate-tls: perhaps\n", "cove.yaml:1: i-terminate-tls"},
		{"- a\n- b\n", "cove.yaml:1: expected settings as `key: value`"},
		{"domain: [unclosed\n", "cove.yaml"},
		{"config: other.yaml\n", `unknown setting "config"`},
		{"listen: [127.0.0.1:x]\nregion: West Europe\n", `region "West Europe"`},
	} {
		_, err := settled(t, c.file, nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.file, err, c.want)
		}
	}
}

func TestEveryProblemIsReported(t *testing.T) {
	_, err := settled(t, "", nil, "--listen", "nowhere", "--domain", "not a name", "--tls-cert", "only.pem", "--registry-alias", "host", "--advertise", "0.0.0.0", "--service-front-end", "::1")
	for _, want := range []string{`"nowhere"`, `"not a name"`, "--tls-cert and --tls-key", `--registry-alias "host"`, `--advertise "0.0.0.0"`, `--service-front-end "::1"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not among the problems: %v", want, err)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("domain: a.test\nlisten: [127.0.0.1:1]\n")
	f.Add("a: &x [*x]\n")
	f.Add("? {a: b}\n: c\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text string) {
		name := filepath.Join(dir, "cove.yaml")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		var c config
		fs := pflag.NewFlagSet("serve", pflag.ContinueOnError)
		c.flags(fs)
		settings, err := readConfig(name, fs)
		for key := range settings {
			if err == nil && fs.Lookup(key) == nil {
				t.Errorf("the unknown setting %q was accepted", key)
			}
		}
	})
}
