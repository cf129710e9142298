//go:build linux

package wireguard

import (
	"context"
	"encoding/pem"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/linktest"
	"cove.example/cove/network"
)

// site is a lab whose Switch runs on a machine of its own, with members on
// others.
type site struct {
	*lab
	server *linktest.Namespace
	ca     string
	wires  byte
}

func newSite(t testing.TB, change ...func(*Config)) *site {
	s := closedSite(t)
	for _, f := range change {
		f(&s.config)
	}
	s.server.Do(func() { s.open() })
	return s
}

// closedSite is a site whose Switch has not been opened.
func closedSite(t testing.TB) *site {
	s := &site{lab: newLab(t, "0.0.0.0:51820"), server: linktest.New(t)}
	s.ca = filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.https.TLSConfig.Certificates[0].Certificate[0]})
	if err := os.WriteFile(s.ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// machine is a host with a cable to the server; config is what the member at a
// would be given there.
func (s *site) machine(v *vnet, a netip.Addr) (*linktest.Namespace, MemberConfig) {
	n := linktest.New(s.t)
	s.wires++
	here, _ := s.server.Wire(n, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, s.wires, 0}), 30))
	c := v.config(a)
	c.Endpoint = netip.AddrPortFrom(here, 51820).String()
	return n, c
}

// join makes a machine that has joined with wireguard-go.
func (s *site) join(v *vnet, a netip.Addr) (*linktest.Namespace, string) {
	s.t.Helper()
	n, c := s.machine(v, a)
	conf, err := c.File()
	if err != nil {
		s.t.Fatal(err)
	}
	n.Resolver(network.Resolver)
	return n, n.WireGuard(conf, a, DefaultMTU, c.AllowedIPs...)
}

func (s *site) curl(n *linktest.Namespace, args ...string) (string, error) {
	return n.Try("curl", append([]string{"--silent", "--show-error", "--max-time", "20", "--cacert", s.ca}, args...)...)
}

func (s *site) want(n *linktest.Namespace, want string, args ...string) {
	s.t.Helper()
	if got, err := s.curl(n, args...); got != want || err != nil {
		s.t.Errorf("curl %s: %q, %v, want %q", args, got, err, want)
	}
}

// row:101 — a virtual network is real on any Linux host: members join with a
// standard WireGuard client, the private endpoint answers inside it, the
// resolver is 168.63.129.16, and two networks with the same address space in one
// server are told apart.
func TestRootStandardClientsInOverlappingNetworks(t *testing.T) {
	t.Parallel()
	linktest.RequireRoot(t)
	s := newSite(t)
	contoso, fabrikam := s.network("contoso", laptop, builder), s.network("fabrikam", laptop)
	a, link := s.join(contoso, laptop)
	second, _ := s.join(contoso, builder)
	b, _ := s.join(fabrikam, laptop)

	s.want(a, "contoso 10.0.0.7:443 10.0.0.4", "https://10.0.0.7/whoami")
	s.want(b, "fabrikam 10.0.0.7:443 10.0.0.4", "https://10.0.0.7/whoami")
	s.want(second, "contoso 10.0.0.7:443 10.0.0.5", "https://registry.cove.test/whoami")
	s.want(a, "contoso 10.0.0.7:443 10.0.0.4", "https://registry.cove.test/whoami")
	for _, way := range []string{"+notcp", "+tcp"} {
		if got := a.Run("dig", "@168.63.129.16", way, "+short", "registry.cove.test"); got != "registry.privatelink.cove.test.\n10.0.0.7" {
			t.Errorf("dig %s: %q", way, got)
		}
	}
	if got := a.Run("getent", "ahostsv4", "registry.cove.test"); !strings.HasPrefix(got, "10.0.0.7 ") {
		t.Errorf("getent: %q", got)
	}

	// A source address that is not the member's own gets nowhere.
	a.Run("ip", "address", "add", "10.0.0.9/32", "dev", link)
	if got, err := s.curl(a, "--interface", "10.0.0.9", "--max-time", "1", "https://10.0.0.7/whoami"); err == nil {
		t.Errorf("the spoofed source was answered: %s", got)
	}
	s.want(a, "contoso 10.0.0.7:443 10.0.0.4", "--interface", "10.0.0.4", "https://10.0.0.7/whoami")

	// Members reach each other inside their network only.
	folder := t.TempDir()
	if err := os.WriteFile(filepath.Join(folder, "hello"), []byte("from the builder"), 0o644); err != nil {
		t.Fatal(err)
	}
	web := second.Command(t.Context(), "busybox", "httpd", "-f", "-p", "10.0.0.5:8080", "-h", folder)
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = web.Process.Kill(); _ = web.Wait() }()
	eventually(t, "the other member's server answers", func() bool {
		got, err := s.curl(a, "http://10.0.0.5:8080/hello")
		return err == nil && got == "from the builder"
	})
	if got, err := s.curl(b, "--max-time", "1", "http://10.0.0.5:8080/hello"); err == nil {
		t.Errorf("the other network reached the builder: %s", got)
	}
}

// Real clients move 100 MB each way, over real cables, unharmed.
func TestRootLargeTransfers(t *testing.T) {
	linktest.RequireRoot(t)
	const size = transferSize
	s := newSite(t)
	n, _ := s.join(s.network("contoso", laptop), laptop)
	file := filepath.Join(t.TempDir(), "blob")
	s.want(n, "", "--output", file, fmt.Sprintf("https://10.0.0.7/blob?n=%d", size))
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := blobSum(size)
	if got := sum(t, f); got != want {
		t.Errorf("download: sha256 %s, want %s", got, want)
	}
	s.want(n, fmt.Sprintf("%d %s <nil>", size, want), "--upload-file", file, "--header", "Expect:", "https://10.0.0.7/sink")
}

// A standard client goes on within a second or two of a restart.
func TestRootRestartIsNotFelt(t *testing.T) {
	linktest.RequireRoot(t)
	root := stateFolder(t)
	s := newSite(t, func(c *Config) { c.State = root })
	v := s.network("contoso", laptop)
	n, _ := s.join(v, laptop)
	s.want(n, "contoso 10.0.0.7:443 10.0.0.4", "https://10.0.0.7/whoami")
	unfelt(t, func() time.Duration {
		if err := s.sw.Close(); err != nil {
			t.Fatal(err)
		}
		s.server.Do(func() {
			var err error
			if s.sw, err = Open(s.config); err != nil {
				t.Error(err)
			}
		})
		start := time.Now()
		v.apply()
		s.want(n, "contoso 10.0.0.7:443 10.0.0.4", "https://10.0.0.7/whoami")
		return time.Since(start)
	})
}

// The file that cove writes is one that wg-quick takes as it is.
func TestRootWgQuick(t *testing.T) {
	t.Parallel()
	linktest.RequireRoot(t)
	s := newSite(t)
	n, c := s.machine(s.network("contoso", laptop), laptop)
	c.MTU = 1380
	text, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), fmt.Sprintf("cq%d.conf", os.Getpid()%1_000_000))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Run("wg-quick", "up", conf)
	defer n.Run("wg-quick", "down", conf)
	s.want(n, "contoso 10.0.0.7:443 10.0.0.4", "https://10.0.0.7/whoami")
}

func TestRootUp(t *testing.T) {
	linktest.RequireRoot(t)
	s := newSite(t)
	n, c := s.machine(s.network("contoso", laptop), laptop)
	c.MTU = 1380
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	up := func(ctx context.Context, c MemberConfig, name string) (i *Interface, err error) {
		n.Do(func() { i, err = Up(ctx, c, name) })
		return i, err
	}
	i, err := up(ctx, c, "cove0")
	if err != nil {
		t.Fatal(err)
	}
	waiting, stop := context.WithTimeout(ctx, patience)
	defer stop()
	if err := i.WaitHandshake(waiting); err != nil {
		t.Fatal(err)
	}
	n.Resolver(network.Resolver)
	s.want(n, "contoso 10.0.0.7:443 10.0.0.4", "https://registry.cove.test/whoami")
	if got := n.Run("ip", "-o", "link", "show", "cove0"); !strings.Contains(got, "mtu 1380") || !strings.Contains(got, "UP") {
		t.Errorf("link: %s", got)
	}
	if got := n.Run("ip", "-4", "-o", "address", "show", "cove0"); !strings.Contains(got, "inet 10.0.0.4/32") {
		t.Errorf("address: %s", got)
	}
	routes := n.Run("ip", "route", "show", "dev", "cove0")
	for _, want := range []string{"10.0.0.0/16", "168.63.129.16"} {
		if !strings.Contains(routes, want) {
			t.Errorf("no route to %s in %s", want, routes)
		}
	}

	if _, err := up(ctx, c, "cove0"); !fault.Is(err, fault.Conflict) {
		t.Errorf("the name of an interface that is there: %v", err)
	}
	clash := c
	clash.PrivateKey = NewPrivateKey()
	clash.Address = builder
	if _, err := up(ctx, clash, "cove1"); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "10.0.0.0/16") {
		t.Errorf("routes that are there: %v", err)
	}
	if _, err := n.Try("ip", "link", "show", "cove1"); err == nil {
		t.Error("the interface that could not be set up is still there")
	}

	cancel()
	wait(t, "the interface to be gone", i.Done())
	if out, err := n.Try("ip", "link", "show", "cove0"); err == nil {
		t.Errorf("still there: %s", out)
	}
	if out := n.Run("ip", "route", "show"); strings.Contains(out, "10.0.0.0/16") {
		t.Errorf("its routes are still there: %s", out)
	}
	again, err := up(t.Context(), c, "cove0")
	if err != nil {
		t.Fatalf("a second time: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
}
