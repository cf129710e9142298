package scenarios

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// listening accepts connections in the server's own namespace until the test
// ends: what a host can reach beside the registry.
func listening(t *testing.T, at string) {
	t.Helper()
	l, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
}

// The rules that `cove status --firewall` writes let a real client pull, whole,
// from the login server and the data host, and nothing else: outside with
// nftables whose policy is to drop, as a member of a network whose tunnel has
// to pass as well, behind a squid that denies the rest, and past a proxy that
// is of no use. With one of the two hosts left out the pull fails, so each of
// them counts. row:18 row:20 row:108
func TestRootFirewallRulesLetAPullThrough(t *testing.T) {
	l := newLab(t)
	const registry = "walled"
	name, data := registry+".cr."+l.domain, registry+".local.data.cr."+l.domain
	image := name + "/seed:1"
	l.Cove(t, "registry", "create", registry, "--admin-enabled", "--data-endpoint-enabled")
	l.Cove(t, "registry", "create", "beside")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", registry, "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	crane, password := covetest.Crane(t), l.Password(t, registry)
	l.resolver(t, l.inside, l.outside.gateway) // until it has joined
	pushSeed(t, l, name, image, registry, password)
	l.on(t, l.outside, crane, "auth", "login", name, "-u", registry, "-p", password)

	beside := strings.TrimSuffix(l.outside.gateway, ".1") + ".9"
	must(t, "ip", "addr", "add", beside+"/24", "dev", "cv"+l.outside.name[5:])
	for _, at := range []string{beside + ":443", beside + ":3128", l.outside.gateway + ":8080"} {
		listening(t, at)
	}
	reaches := func(h host, at, port string) bool {
		_, err := l.try(t, h, "timeout", "2", "bash", "-c", "exec 3<>/dev/tcp/"+at+"/"+port)
		return err == nil
	}
	pulls := func(h host, env ...string) error {
		_, err := l.try(t, h, append(append([]string{"env"}, env...), crane, "validate", "--remote", image)...)
		return err
	}
	load := func(h host, args ...string) string {
		t.Helper()
		rules := l.on(t, h, append([]string{covetest.Binary(t), "status", "--firewall", "nftables", registry}, args...)...)
		file := filepath.Join(l.dir, "rules-"+h.name)
		if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
			t.Fatal(err)
		}
		l.on(t, h, "nft", "-f", file)
		return rules
	}

	t.Run("no-proxy", func(t *testing.T) {
		hosts := strings.TrimSpace(l.on(t, l.outside, covetest.Binary(t), "status", "--firewall", "no-proxy", registry))
		if hosts != name+","+data {
			t.Fatalf("the hosts are %s", hosts)
		}
		proxy := "HTTPS_PROXY=http://" + beside + ":3128" // it hangs up
		for noProxy, works := range map[string]bool{hosts: true, name: false} {
			if err := pulls(l.outside, proxy, "NO_PROXY="+noProxy); (err == nil) != works {
				t.Errorf("with NO_PROXY=%s: %v", noProxy, err)
			}
		}
	})

	t.Run("squid", func(t *testing.T) {
		rules := l.on(t, l.outside, covetest.Binary(t), "status", "--firewall", "squid", registry)
		for _, c := range []struct {
			port, rules string
			works       bool
		}{{"3129", rules, true}, {"3130", strings.Replace(rules, "dstdomain "+data, "dstdomain other.test", 1), false}} {
			file := filepath.Join(l.dir, "squid-"+c.port)
			own := "http_port 127.0.0.1:" + c.port + "\npid_filename none\ncache deny all\naccess_log none\ncache_log /dev/null\ncoredump_dir none\nshutdown_lifetime 0 seconds\n" +
				"dns_nameservers " + l.outside.gateway + "\nvisible_hostname squid\nnetdb_filename none\ncache_effective_user nobody\nlogfile_rotate 0\n"
			if err := os.WriteFile(file, []byte(own+c.rules), 0o644); err != nil {
				t.Fatal(err)
			}
			l.background(t, l.outside, "Accepting HTTP Socket connections", nil, "squid", "-N", "-d", "1", "-f", file, "-n", strings.TrimSuffix(l.domain, ".test")+c.port)
			proxy := "http://127.0.0.1:" + c.port
			if err := pulls(l.outside, "HTTPS_PROXY="+proxy, "NO_PROXY="); (err == nil) != c.works {
				t.Errorf("through squid at %s: %v", c.port, err)
			}
			for _, target := range []string{"https://beside.cr." + l.domain + "/v2/", "https://management." + l.domain + "/", "https://" + name + ":8443/v2/", "http://" + name + "/v2/"} {
				if out, err := l.try(t, l.outside, "curl", "-sS", "-k", "--fail", "-x", proxy, target); err == nil || !strings.Contains(out, "403") {
					t.Errorf("through squid to %s: %v %s", target, err, out)
				}
			}
		}
	})

	t.Run("nftables", func(t *testing.T) {
		for _, at := range [][2]string{{beside, "443"}, {l.outside.gateway, "8080"}} {
			if !reaches(l.outside, at[0], at[1]) {
				t.Fatalf("%s:%s is not reached without rules", at[0], at[1])
			}
		}
		rules := load(l.outside)
		if err := pulls(l.outside); err != nil {
			t.Errorf("with the rules: %v\n%s", err, rules)
		}
		for _, at := range [][2]string{{beside, "443"}, {l.outside.gateway, "8080"}, {l.inside.gateway, "443"}} {
			if reaches(l.outside, at[0], at[1]) {
				t.Errorf("%s:%s is reached with the rules\n%s", at[0], at[1], rules)
			}
		}
		if out, err := l.try(t, l.outside, "dig", "+time=1", "+tries=1", "@"+beside, name); err == nil {
			t.Errorf("another resolver is reached with the rules: %s", out)
		}
		load(l.outside) // again: it replaces itself
		l.on(t, l.outside, "nft", "delete", "table", "inet", "cove")
		if !reaches(l.outside, beside, "443") {
			t.Error("the rules outlive their table")
		}
	})

	t.Run("nftables of a member", func(t *testing.T) {
		l.resolver(t, l.inside, "168.63.129.16")
		l.join(t, "office", "laptop")
		_, port, err := net.SplitHostPort(l.Run.WireGuard)
		if err != nil {
			t.Fatal(err)
		}
		rules := load(l.inside, "--tunnel", l.outside.gateway+":"+port)
		if !strings.Contains(rules, "10.0.0.") || !strings.Contains(rules, "168.63.129.16") || strings.Contains(rules, l.outside.gateway+" } tcp") {
			t.Errorf("the rules are not about the addresses of the network:\n%s", rules)
		}
		if err := pulls(l.inside); err != nil {
			t.Errorf("with the rules: %v\n%s", err, rules)
		}
		if reaches(l.inside, l.outside.gateway, "443") {
			t.Errorf("the public side is reached with the rules\n%s", rules)
		}
	})
}
