package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cove.example/cove/covetest"
	"cove.example/cove/linktest"
)

// site is a server on a host of its own, and other hosts with a wire to it.
type site struct {
	*covetest.Server
	dir    string
	domain string
	hosts  map[string]*linktest.Namespace
	ours   map[string]netip.Addr // the server's address on the wire to each
	theirs map[string]netip.Addr
}

// newSite makes the hosts. What the test starts from here on runs on the
// server's.
func newSite(t *testing.T, names ...string) *site {
	t.Helper()
	linktest.RequireRoot(t)
	s := &site{
		dir: t.TempDir(), domain: "hp.test",
		hosts: map[string]*linktest.Namespace{"server": linktest.New(t)}, ours: map[string]netip.Addr{}, theirs: map[string]netip.Addr{},
	}
	for i, name := range names {
		n := linktest.New(t)
		s.ours[name], s.theirs[name] = s.hosts["server"].Wire(n, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 30))
		n.Run("ip", "route", "add", "default", "via", s.ours[name].String())
		smallBuffers(n)
		s.hosts[name] = n
	}
	inside(t, s.hosts["server"])
	return s
}

// smallBuffers bounds what a host takes in before a program asks for it: the
// end of a connection is noticed behind that.
func smallBuffers(n *linktest.Namespace) {
	n.Run("sysctl", "-q", "-w", "net.ipv4.tcp_rmem=4096 65536 65536", "net.ipv4.tcp_wmem=4096 65536 65536")
}

// inside makes the test's own thread, and the programs that it starts, live on
// a host until the test ends.
func inside(t *testing.T, n *linktest.Namespace) {
	t.Helper()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer home.Close()
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Fatal(err) // the thread stays locked, and ends with the test
		}
		runtime.UnlockOSThread()
	})
	there, err := os.Open("/run/netns/" + n.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// start starts the server, whose public side is on the wire to outside.
func (s *site) start(t *testing.T) {
	t.Helper()
	at := s.ours["outside"].String()
	s.Server = covetest.StartIn(t, filepath.Join(s.dir, "data"), "--domain", s.domain, "--listen", at+":443", "--advertise", at, "--dns", at+":53", "--connect", "")
}

func (s *site) restart(t *testing.T, args ...string) {
	t.Helper()
	s.Stop(t)
	s.StartWith(t, args...)
}

func (s *site) host(registry string) string { return registry + ".cr." + s.domain }

// try runs a program on a host, as a user who trusts the server's authority.
func (s *site) try(t *testing.T, on string, argv ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), covetest.Wait)
	defer cancel()
	c := s.hosts[on].Command(ctx, argv[0], argv[1:]...)
	home := filepath.Join(s.dir, on)
	c.Env = s.Env("HOME="+home, "DOCKER_CONFIG="+home, "REGISTRY_AUTH_FILE="+filepath.Join(home, "auth.json"))
	out, err := c.CombinedOutput()
	return string(out), err
}

// on is try for what must succeed.
func (s *site) on(t *testing.T, host string, argv ...string) string {
	t.Helper()
	out, err := s.try(t, host, argv...)
	if err != nil {
		t.Fatalf("%s on %s: %v\n%s", strings.Join(argv, " "), host, err, out)
	}
	return out
}

// push pushes an image of one layer of random bytes from a host, and returns
// the layer's digest.
func (s *site) push(t *testing.T, from, registry string, size int) (digest string) {
	t.Helper()
	crane, layer := covetest.Crane(t), filepath.Join(s.dir, "layer.tar.gz")
	file := filepath.Join(s.dir, "bytes")
	must(t, "sh", "-c", fmt.Sprintf("head -c %d /dev/urandom > %s && tar -C %s -czf %s bytes", size, file, s.dir, layer))
	s.on(t, from, crane, "auth", "login", s.host(registry), "-u", registry, "-p", s.Password(t, registry))
	s.on(t, from, crane, "append", "-f", layer, "-t", s.host(registry)+"/team/app:1")
	return "sha256:" + strings.Fields(must(t, "sha256sum", layer))[0]
}

// pull fetches an image whole with skopeo.
func (s *site) pull(t *testing.T, on, registry string) (string, error) {
	t.Helper()
	to := t.TempDir()
	return s.try(t, on, "skopeo", "copy", "--src-creds", registry+":"+s.Password(t, registry), "docker://"+s.host(registry)+"/team/app:1", "oci:"+to+":x")
}

func (s *site) explained(t *testing.T, refusal string, words ...string) {
	t.Helper()
	ids := correlation.FindAllString(refusal, -1)
	if ids == nil {
		t.Fatalf("the refusal carries no correlation id:\n%s", refusal)
	}
	got := s.Cove(t, "explain", ids[len(ids)-1])
	for _, w := range words {
		if !strings.Contains(got, w) {
			t.Errorf("explained without %q:\n%s", w, got)
		}
	}
}

// transfer begins a slow download of a blob on a host, and returns where its
// end is told.
func (s *site) transfer(t *testing.T, on, registry, digest string) <-chan error {
	t.Helper()
	to := filepath.Join(t.TempDir(), "blob")
	c := s.hosts[on].Command(t.Context(), "curl", "--silent", "--fail", "--location", "--limit-rate", "1M", "--output", to,
		"--user", registry+":"+s.Password(t, registry), "https://"+s.host(registry)+"/v2/team/app/blobs/"+digest)
	c.Env = s.Env("CURL_CA_BUNDLE=" + filepath.Join(s.Data, "ca.pem"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Wait() }()
	waitFor(t, func() bool {
		info, err := os.Stat(to)
		return err == nil && info.Size() > 0
	})
	return done
}

// cutShort asserts that a transfer ends long before its 48 seconds, and not
// well.
func cutShort(t *testing.T, transfer <-chan error) {
	t.Helper()
	select {
	case err := <-transfer:
		if err == nil {
			t.Error("the transfer came to its end: it was too short to be cut")
		}
	case <-time.After(20 * time.Second):
		t.Error("the transfer goes on")
	}
}

// A network that is attached to the host is real without a tunnel: whoever can
// route to this machine reaches the endpoints' addresses, which may come to the
// machine after the server has started, and the network's names; everybody else
// is outside. An address that no endpoint has is not listened at. row:101
func TestRootHostNetwork(t *testing.T) {
	s := newSite(t, "inside", "outside")
	s.start(t)
	zone := "privatelink.cr." + s.domain
	for _, name := range []string{"alpha", "bravo"} {
		s.Cove(t, "registry", "create", name, "--public-network-enabled", "false", "--admin-enabled")
	}
	s.Cove(t, "vnet", "create", "plant", "--address-prefix", "10.77.0.0/16", "--subnet-name", "default")
	s.Cove(t, "dns", "zone", "create", zone)
	s.Cove(t, "dns", "link", "add", zone, "--vnet", "plant")
	s.Cove(t, "private-endpoint", "create", "pe-alpha", "--registry", "alpha", "--subnet", "plant/default", "--zone", zone)
	id := s.Cove(t, "vnet", "show", "plant", "--query", "id", "-o", "tsv")
	s.restart(t, "--attach-host", id+"=10.77.0.0/16", "--attach-host-dns", id+"=168.63.129.16")

	s.hosts["inside"].Resolver(netip.MustParseAddr("168.63.129.16"))
	s.hosts["outside"].Resolver(s.ours["outside"])
	const reach = "https://10.77.0.4/"
	if out, err := s.try(t, "inside", "curl", "--silent", "--insecure", "--max-time", "1", reach); err == nil {
		t.Fatalf("an address that the machine does not have answers: %s", out)
	}
	// From here on it has all of them, by one route, and the resolver's by
	// itself. The server is not told.
	must(t, "ip", "route", "add", "local", "10.77.0.0/16", "dev", "lo")
	must(t, "ip", "address", "add", "168.63.129.16/32", "dev", "lo")

	for _, how := range []string{"+notcp", "+tcp"} {
		if got := s.on(t, "inside", "dig", "+short", how, "@168.63.129.16", s.host("alpha")); !strings.Contains(got, "alpha."+zone+".\n10.77.0.") {
			t.Errorf("dig %s: %s", how, got)
		}
	}
	if got := s.on(t, "inside", "getent", "ahostsv4", s.host("alpha")); !strings.HasPrefix(got, "10.77.0.") {
		t.Errorf("glibc: %s", got)
	}
	digest := s.push(t, "inside", "alpha", 48<<20)
	if out, err := s.pull(t, "inside", "alpha"); err != nil {
		t.Fatalf("pull inside: %v\n%s", err, out)
	}
	out, err := s.try(t, "outside", covetest.Crane(t), "digest", s.host("alpha")+"/team/app:1")
	if err == nil || !strings.Contains(out, s.theirs["outside"].String()) {
		t.Fatalf("outside: %v\n%s", err, out)
	}
	s.explained(t, out, "COVE-NET-001", "by the public door")

	// Another endpoint comes, and goes.
	refused := func(at string) {
		t.Helper()
		if out, err := s.try(t, "inside", "curl", "--silent", "--show-error", "--insecure", "--max-time", "5", "https://"+at+"/"); err == nil || !strings.Contains(out, "onnection refused") && !strings.Contains(out, "ouldn't connect") {
			t.Errorf("%s is listened at: %v %s", at, err, out)
		}
	}
	refused("10.77.0.200")
	s.Cove(t, "private-endpoint", "create", "pe-bravo", "--registry", "bravo", "--subnet", "plant/default", "--zone", zone)
	at := strings.TrimSpace(strings.Split(s.on(t, "inside", "getent", "ahostsv4", s.host("bravo")), " ")[0])
	s.push(t, "inside", "bravo", 1<<10)
	if out, err := s.pull(t, "inside", "bravo"); err != nil {
		t.Errorf("pull by the new endpoint: %v\n%s", err, out)
	}
	s.Cove(t, "private-endpoint", "delete", "pe-bravo")
	refused(at)

	// Security groups have their say about who calls an endpoint.
	s.walls(t, "Allow")
	s.Cove(t, "subnet", "update", "plant/default", "--security-group", "walls", "--private-endpoint-policies")
	denied := s.transfer(t, "inside", "alpha", digest)
	s.walls(t, "Deny")
	cutShort(t, denied)
	if out, err := s.pull(t, "inside", "alpha"); err == nil || !strings.Contains(out, "reset by peer") && !strings.Contains(out, "EOF") {
		t.Errorf("what a security group denies: %v\n%s", err, out)
	}
	s.walls(t, "Allow")

	// A rejection ends what is under way, and is said in words.
	transfer := s.transfer(t, "inside", "alpha", digest)
	s.Cove(t, "private-endpoint", "reject", "pe-alpha")
	cutShort(t, transfer)
	out, err = s.try(t, "inside", covetest.Crane(t), "digest", s.host("alpha")+"/team/app:1")
	if err == nil {
		t.Fatalf("a rejected endpoint answers: %s", out)
	}
	s.explained(t, out, "COVE-NET-005", "at this machine's address 10.77.0.", "which is one of the virtual network plant")

	if _, errs, status := s.Try(t, "join-code", "plant/default", "--name", "laptop"); status == 0 || !strings.Contains(errs, "is attached to the server's host") {
		t.Errorf("a member of a network without a tunnel: %d %s", status, errs)
	}
}

// walls makes a security group that lets the host inside call endpoints, or
// does not. It is a PUT to the Resource Manager, on the server's own host.
func (s *site) walls(t *testing.T, access string) {
	t.Helper()
	curl := func(args ...string) string {
		return s.on(t, "server", append([]string{
			"curl", "--silent", "--show-error", "--fail-with-body", "--cacert", filepath.Join(s.Data, "ca.pem"), "--connect-to", "::" + s.Run.Listen[0],
		}, args...)...)
	}
	who := administrator(t, s.Server)
	var token struct {
		Text string `json:"access_token"`
	}
	said := curl("--data", "grant_type=client_credentials", "--data", "client_id="+who.ClientID, "--data-urlencode", "client_secret="+who.ClientSecret,
		"--data", "scope=https://management."+s.domain+"/.default", "https://login."+s.domain+"/"+who.TenantID+"/oauth2/v2.0/token")
	if err := json.Unmarshal([]byte(said), &token); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	vnet := s.Cove(t, "vnet", "show", "plant", "--query", "id", "-o", "tsv")
	curl("--request", "PUT", "--header", "Authorization: Bearer "+token.Text, "--header", "Content-Type: application/json",
		"--data", fmt.Sprintf(`{"location":"local","properties":{"securityRules":[{"name":"one","properties":{"priority":200,"direction":"Inbound","access":%q,
			"protocol":"Tcp","sourceAddressPrefix":%q,"sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"443"}}]}}`, access, s.theirs["inside"]),
		"https://management."+s.domain+strings.TrimSuffix(vnet, "virtualNetworks/plant")+"networkSecurityGroups/walls?api-version=2022-01-01")
}

// A cloud's network: its machines cannot reach the server but by the balancer
// of their private link, which says whose link it is. The same header from a
// machine that is no balancer is worth nothing. row:102
func TestRootBalancer(t *testing.T) {
	s := newSite(t, "balancer", "outside")
	client := linktest.New(t)
	smallBuffers(client)
	front, caller := s.hosts["balancer"].Wire(client, netip.MustParsePrefix("10.1.0.0/30"))
	s.hosts["client"] = client
	s.start(t)
	for _, name := range []string{"alpha", "bravo"} {
		s.Cove(t, "registry", "create", name, "--public-network-enabled", "false", "--admin-enabled")
	}
	s.Cove(t, "vnet", "create", "cloud", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default")
	s.Cove(t, "private-endpoint", "create", "pe-alpha", "--registry", "alpha", "--subnet", "cloud/default")
	s.Cove(t, "private-endpoint", "create", "pe-bravo", "--registry", "bravo", "--subnet", "cloud/default")
	vnet := s.Cove(t, "vnet", "show", "cloud", "--query", "id", "-o", "tsv")
	links := filepath.Join(s.dir, "links.yaml")
	text := ""
	for link, pe := range map[string]string{"azure:305419896": "pe-alpha", "aws:vpce-0b2a0": "pe-bravo"} {
		text += link + ": " + s.Cove(t, "private-endpoint", "show", pe, "--query", "id", "-o", "tsv") + "\n"
	}
	if err := os.WriteFile(links, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s.restart(t, "--attach-proxy", vnet, "--proxy-listen", "0.0.0.0:8444", "--proxy-from", s.theirs["balancer"].String(), "--proxy-map", links)

	// The cloud's own names: the private endpoint is an address of its network.
	// A forwarding balancer answers it; the other host has the same program.
	names := ""
	for _, registry := range []string{"alpha", "bravo"} {
		names += fmt.Sprintf("%s %s %s.local.data.cr.%s\n", front, s.host(registry), registry, s.domain)
	}
	hosts := filepath.Join("/etc/netns", client.Name, "hosts")
	if err := os.MkdirAll(filepath.Dir(hosts), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hosts, []byte(names), 0o644); err != nil {
		t.Fatal(err)
	}
	s.forward(t, "balancer", front.String(), s.theirs["balancer"], s.ours["balancer"], caller)

	digest := s.push(t, "client", "alpha", 48<<20)
	if out, err := s.pull(t, "client", "alpha"); err != nil {
		t.Fatalf("pull by the private link: %v\n%s", err, out)
	}
	// The link's id decides, not the name that is asked for.
	out, err := s.try(t, "client", covetest.Crane(t), "digest", s.host("bravo")+"/team/app:1")
	if err == nil {
		t.Fatalf("another's registry by this link: %s", out)
	}
	s.explained(t, out, "COVE-NET-006", "through the balancer "+s.theirs["balancer"].String()+", as Azure private link 0x12345678")

	// The same program, the same header, on a host that is not listed.
	s.forward(t, "outside", "127.0.0.1", s.theirs["outside"], s.ours["outside"], caller)
	out, err = s.try(t, "outside", "curl", "--silent", "--show-error", "--cacert", filepath.Join(s.Data, "ca.pem"), "--connect-to", "::127.0.0.1:443", "https://"+s.host("alpha")+"/v2/")
	if err == nil {
		t.Fatalf("a header from an unlisted peer: %s", out)
	}
	if got := s.on(t, "server", "curl", "--silent", "http://"+s.Run.Admin+"/metrics"); !strings.Contains(got, `cove_proxy_refused_total{why="unlisted"} 1`) {
		t.Errorf("an unlisted peer is not counted; it was told %s", out)
	}

	transfer := s.transfer(t, "client", "alpha", digest)
	s.Cove(t, "private-endpoint", "reject", "pe-alpha")
	cutShort(t, transfer)
	out, err = s.try(t, "client", covetest.Crane(t), "digest", s.host("alpha")+"/team/app:1")
	if err == nil {
		t.Fatalf("a rejected connection answers: %s", out)
	}
	s.explained(t, out, "COVE-NET-005", "cove private-endpoint approve")
}

// forward runs a balancer on a host: what connects to its port 443 is passed on
// to the server's listener for balancers as caller's, by an Azure private link.
func (s *site) forward(t *testing.T, on, at string, from, to, caller netip.Addr) {
	t.Helper()
	var l net.Listener
	var err error
	s.hosts[on].Do(func() { l, err = net.Listen("tcp", at+":443") })
	if err != nil {
		t.Fatal(err)
	}
	balanceBy(t, l, func() (c net.Conn, err error) {
		s.hosts[on].Do(func() {
			c, err = (&net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}).Dial("tcp", to.String()+":8444")
		})
		return c, err
	}, caller.String(), azureLink(0x12345678))
}
