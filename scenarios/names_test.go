package scenarios

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"cove.example/cove/client"
	"cove.example/cove/covetest"
)

// snippet is the block of docs/names.md that stands after a line, with this
// lab's names in the place of the page's: what people copy is what is tried.
func (l *lab) snippet(t *testing.T, after string) string {
	t.Helper()
	page, err := os.ReadFile("../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n"+after+"\n")
	_, rest, _ = strings.Cut(rest, "```\n")
	block, _, ok := strings.Cut(rest, "\n```")
	if !ok || !strings.Contains(block, "cove.internal") {
		t.Fatalf("docs/names.md has no settings after %q", after)
	}
	return strings.ReplaceAll(block, "cove.internal", l.domain) + "\n"
}

const (
	pageDnsmasq = "dnsmasq 2.90:"
	pageUnbound = "unbound 1.17:"
	pageBind    = "BIND 9.18, inside `options` and beside it:"
)

// program is a resolver with settings beside its own: it listens at address,
// throws private addresses away or validates, and asks the public view about
// everything that the settings say nothing of.
type program func(t *testing.T, l *lab, h host, address, settings string)

func dnsmasq(t *testing.T, l *lab, h host, address, settings string) {
	t.Helper()
	file := filepath.Join(l.dir, "dnsmasq-"+address)
	own := "no-resolv\nno-hosts\nuser=root\nbind-interfaces\nlisten-address=" + address + "\nserver=" + l.outside.gateway + "\nstop-dns-rebind\n"
	if err := os.WriteFile(file, []byte(own+settings), 0o600); err != nil {
		t.Fatal(err)
	}
	l.background(t, h, "started", nil, "dnsmasq", "--no-daemon", "--log-facility=-", "--pid-file=", "--conf-file="+file)
}

func unbound(t *testing.T, l *lab, h host, address, settings string) {
	t.Helper()
	file := filepath.Join(l.dir, "unbound-"+address)
	// With the root's key it validates: a domain that nobody has delegated
	// fails then, unless it is told. It denies names below test by itself,
	// which this lab's are.
	own := `server:
    interface: ` + address + `
    access-control: 0.0.0.0/0 allow
    chroot: ""
    username: ""
    directory: "` + l.dir + `"
    pidfile: ""
    use-syslog: no
    logfile: ""
    do-not-query-localhost: no
    private-address: 10.0.0.0/8
    local-zone: "test." nodefault
    trust-anchor: ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D"
remote-control:
    control-enable: no
forward-zone:
    name: "."
    forward-addr: ` + l.outside.gateway + "\n"
	if err := os.WriteFile(file, []byte(own+settings), 0o600); err != nil {
		t.Fatal(err)
	}
	l.background(t, h, "start of service", nil, "unbound", "-d", "-c", file)
}

// bind is BIND, which validates with the root's key that it has built in. The
// settings' options go among its own.
func bind(t *testing.T, l *lab, h host, address, settings string) {
	t.Helper()
	dir := filepath.Join(l.dir, "bind-"+address)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	options, isOptions := strings.CutPrefix(settings, "options {")
	options, beside, ended := strings.Cut(options, "\n};\n")
	if !isOptions || !ended {
		t.Fatalf("the settings of docs/names.md for BIND do not begin with options:\n%s", settings)
	}
	text := `options {
    directory "` + dir + `";
    pid-file none;
    session-keyfile "` + dir + `/session.key";
    managed-keys-directory "` + dir + `";
    listen-on { ` + address + `; };
    listen-on-v6 { none; };
    allow-query { any; };
    recursion yes;
    max-cache-size 16m;
    dnssec-validation auto;
    forward only;
    forwarders { ` + l.outside.gateway + `; };
` + options + `
};
controls {};
` + beside
	// It listens at addresses that interfaces have, and at no others.
	l.on(t, h, "ip", "addr", "add", address+"/8", "dev", "lo")
	file := filepath.Join(dir, "named.conf")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.background(t, h, " running\n", nil, "named", "-g", "-c", file)
}

var statusLine = regexp.MustCompile(`status: ([A-Z]+)`)

// digs is where a name leads: the last address of the answer, or what dig says
// of an answer without one.
func (l *lab) digs(t *testing.T, h host, name string, args ...string) string {
	t.Helper()
	out := l.on(t, h, append([]string{"dig", "+time=5", "+tries=2", "+noall", "+comments", "+answer", name}, args...)...)
	var last string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 5 && (f[3] == "A" || f[3] == "AAAA") {
			last = f[4]
		}
	}
	if last != "" {
		return last
	}
	m := statusLine.FindStringSubmatch(out)
	if m == nil {
		return out
	}
	return m[1]
}

// address is the address of a name that a private endpoint has.
func (l *lab) address(t *testing.T, endpoint, name string, more ...string) string {
	t.Helper()
	args := append([]string{"private-endpoint", "show", endpoint, "-o", "tsv", "--query", "properties.customDnsConfigs[?fqdn=='" + name + "'].ipAddresses[0] | [0]"}, more...)
	got := l.Cove(t, args...)
	if _, err := netip.ParseAddr(got); err != nil {
		t.Fatalf("%s has no address for %s: %q", endpoint, name, got)
	}
	return got
}

// A resolver of one's own that runs on a member and forwards the registries'
// suffix to 168.63.129.16, with the settings that docs/names.md gives, answers
// what the network's resolver answers. The page's warnings are true as well:
// without the settings about private addresses the answer is empty, without
// the one about validation it fails, and where only the privatelink names are
// forwarded dnsmasq gives the public address, unbound the private one. row:55
// row:53
func TestRootForwarders(t *testing.T) {
	l := newLab(t)
	name := "forwarders.cr." + l.domain
	data := "forwarders.local.data.cr." + l.domain
	l.Cove(t, "registry", "create", "forwarders")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", "forwarders", "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	l.join(t, "office", "laptop")
	private, public := l.address(t, "pe", name), l.outside.gateway

	without := func(settings, line string) string {
		t.Helper()
		var kept []string
		for text := range strings.Lines(settings) {
			if !strings.Contains(text, line) {
				kept = append(kept, text)
			}
		}
		if out := strings.Join(kept, ""); out != settings {
			return out
		}
		t.Fatalf("the settings of docs/names.md have no line with %s:\n%s", line, settings)
		return ""
	}
	// narrow is the settings with only the privatelink names forwarded.
	narrow := func(settings, forwarded string) string {
		t.Helper()
		out := strings.ReplaceAll(settings, fmt.Sprintf(forwarded, "cr."+l.domain), fmt.Sprintf(forwarded, "privatelink.cr."+l.domain))
		if out == settings {
			t.Fatalf("the settings of docs/names.md do not forward as this test thinks:\n%s", settings)
		}
		return out
	}
	forMasq, forUnbound, forBind := l.snippet(t, pageDnsmasq), l.snippet(t, pageUnbound), l.snippet(t, pageBind)
	for i, c := range []struct {
		what     string
		start    program
		settings string
		want     string
	}{
		{"dnsmasq as the page has it", dnsmasq, forMasq, private},
		{"unbound as the page has it", unbound, forUnbound, private},
		{"BIND as the page has it", bind, forBind, private},
		{"BIND that validates", bind, without(forBind, "validate-except"), "SERVFAIL"},
		{"BIND with privatelink alone", bind, narrow(forBind, `zone "%s"`), private},
		{"dnsmasq with rebind protection", dnsmasq, without(forMasq, "rebind-domain-ok"), "NOERROR"},
		{"unbound with private addresses kept out", unbound, without(forUnbound, "private-domain"), "NOERROR"},
		{"unbound that validates", unbound, without(forUnbound, "domain-insecure"), "SERVFAIL"},
		{"dnsmasq with privatelink alone", dnsmasq, narrow(forMasq, "server=/%s/"), public},
		{"unbound with privatelink alone", unbound, narrow(forUnbound, `name: "%s"`), private},
		{"dnsmasq without the network", dnsmasq, "", public},
	} {
		at := "127.0.0." + strconv.Itoa(10+i)
		c.start(t, l, l.inside, at, c.settings)
		for _, transport := range []string{"+notcp", "+tcp"} {
			if got := l.digs(t, l.inside, name, "@"+at, transport); got != c.want {
				t.Errorf("%s, %s: %s leads to %s, want %s", c.what, transport, name, got, c.want)
			}
		}
		// glibc, whose only resolver it is, agrees with dig.
		l.resolver(t, l.inside, at)
		got, err := l.try(t, l.inside, "getent", "ahostsv4", name)
		if _, bad := netip.ParseAddr(c.want); (bad == nil) != (err == nil) || err == nil && !strings.HasPrefix(got, c.want+" ") {
			t.Errorf("%s: getent says %q, %v", c.what, got, err)
		}
	}
	l.resolver(t, l.inside, "168.63.129.16")

	// An absence is remembered for the seconds of the zone's SOA and no longer:
	// dnsmasq still denies a name that the zone has meanwhile, and gives it as
	// soon as ten seconds are over.
	const at = "127.0.0.10"
	zone := "privatelink.cr." + l.domain
	l.Cove(t, "dns", "record", "remove", zone, "forwarders.local.data")
	private = l.address(t, "pe", data)
	denied := l.on(t, l.inside, "dig", "+noall", "+authority", "@168.63.129.16", data)
	if f := strings.Fields(denied); len(f) != 11 || f[1] != "10" || f[3] != "SOA" || f[10] != "10" {
		t.Errorf("the absence comes with %q, want an SOA with both its times 10 s", denied)
	}
	if got := l.digs(t, l.inside, data, "@"+at); got != "NXDOMAIN" {
		t.Fatalf("a missing record behind dnsmasq: %s", got)
	}
	asked := time.Now()
	l.Cove(t, "dns", "record", "add", zone, "forwarders.local.data", private)
	if got := l.digs(t, l.inside, data); got != private {
		t.Errorf("the network's own resolver gives %s, want %s", got, private)
	}
	if got := l.digs(t, l.inside, data, "@"+at); got != "NXDOMAIN" && time.Since(asked) < 9*time.Second {
		t.Errorf("dnsmasq did not remember the absence: %s", got)
	}
	for l.digs(t, l.inside, data, "@"+at) != private {
		if took := time.Since(asked); took > covetest.Wait {
			t.Fatalf("an absence is remembered for %v, want about 10 s", took)
		}
	}
	// The addresses themselves live as long.
	if got := l.on(t, l.inside, "dig", "+noall", "+answer", data); !strings.Contains(strings.Join(strings.Fields(got), " "), zone+". 10 IN A "+private) {
		t.Errorf("the private address has another time to live than 10 s:\n%s", got)
	}
}

// A site outside the virtual network has a resolver of its own, which forwards
// the registries' suffix to 168.63.129.16 over a member that routes for the
// site. The site's clients then have the private address, and reach the
// registry at it though its public access is off; without the route the name
// fails, and nothing else answers in its place. row:55 row:34 row:54
func TestRootASiteBehindAMember(t *testing.T) {
	l := newLab(t)
	name := "onsite.cr." + l.domain
	l.Cove(t, "registry", "create", "onsite", "--public-network-enabled", "false")
	l.network(t, "office")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", "onsite", "--subnet", "office/default", "--zone", "privatelink.cr."+l.domain)
	l.join(t, "office", "router")
	private := l.address(t, "pe", name)

	// The private line between the site and the member, which hides the site
	// behind its own address as any router of one address does.
	must(t, "ip", "link", "add", "line", "netns", l.outside.name, "type", "veth", "peer", "name", "line", "netns", l.inside.name)
	for h, address := range map[host]string{l.outside: "198.51.100.1/30", l.inside: "198.51.100.2/30"} {
		must(t, "ip", "-n", h.name, "addr", "add", address, "dev", "line")
		must(t, "ip", "-n", h.name, "link", "set", "line", "up")
	}
	page, err := os.ReadFile("../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	router := regexp.MustCompile("```\n(sysctl .*\nnft .*\n)```").FindSubmatch(page)
	if router == nil {
		t.Fatal("docs/names.md does not say how a member becomes a router")
	}
	l.on(t, l.inside, "sh", "-ec", string(router[1]))
	routes := []string{"168.63.129.16/32", "10.0.0.0/16"}
	for _, to := range routes {
		must(t, "ip", "-n", l.outside.name, "route", "add", to, "via", "198.51.100.2")
	}
	dnsmasq(t, l, l.outside, "127.0.0.2", l.snippet(t, pageDnsmasq))
	unbound(t, l, l.outside, "127.0.0.3", l.snippet(t, pageUnbound))
	ca := filepath.Join(l.Data, "ca.pem")
	for _, at := range []string{"127.0.0.2", "127.0.0.3"} {
		l.resolver(t, l.outside, at)
		if got := l.digs(t, l.outside, name); got != private {
			t.Errorf("by %s the site has %s, want %s", at, got, private)
		}
		if got := l.on(t, l.outside, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", "--cacert", ca, "https://"+name+"/v2/"); got != "401 "+private {
			t.Errorf("by %s the registry answers the site %s", at, got)
		}
	}
	// Who asks the public view still has the public address, and is refused.
	l.resolver(t, l.outside, l.outside.gateway)
	if got := l.on(t, l.outside, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{remote_ip}", "--cacert", ca, "https://"+name+"/v2/"); got != "403 "+l.outside.gateway {
		t.Errorf("by the public view the registry answers %s", got)
	}
	// A stranger who asks much gets answers that are cut off, which nobody can
	// be flooded with, and by TCP every one of them whole.
	file := filepath.Join(l.dir, "questions")
	const questions = 300
	if err := os.WriteFile(file, []byte(strings.Repeat(name+"\n", questions)), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(args ...string) (whole, cut int) {
		t.Helper()
		out := l.on(t, l.outside, append([]string{"dig", "+tries=4", "+time=1", "+noall", "+comments", "+answer", "-f", file}, args...)...)
		for line := range strings.Lines(out) {
			switch f := strings.Fields(line); {
			case strings.Contains(line, "flags: qr aa tc"), strings.Contains(line, "flags: qr tc"):
				cut++
			case len(f) == 5 && f[3] == "A" && f[4] == l.outside.gateway:
				whole++
			}
		}
		return whole, cut
	}
	if whole, cut := ask("+nocookie", "+ignore"); cut == 0 || whole == 0 {
		t.Errorf("of %d questions in a row %d are answered by UDP and %d cut off", questions, whole, cut)
	}
	if whole, _ := ask("+nocookie"); whole != questions {
		t.Errorf("of %d questions in a row %d are answered by UDP and TCP", questions, whole)
	}
	for _, to := range routes {
		must(t, "ip", "-n", l.outside.name, "route", "delete", to)
	}
	must(t, "ip", "-n", l.outside.name, "route", "add", "unreachable", "168.63.129.16/32")
	dnsmasq(t, l, l.outside, "127.0.0.4", l.snippet(t, pageDnsmasq))
	out, err := l.try(t, l.outside, "dig", "+time=3", "+tries=1", "@127.0.0.4", name)
	if strings.Contains(out, "ANSWER SECTION") || err == nil && !strings.Contains(out, "status: SERVFAIL") && !strings.Contains(out, "status: REFUSED") {
		t.Errorf("without the line: %v\n%s", err, out)
	}
}

// What goes wrong with zones, on one member's real resolver: a zone that two
// regions' endpoints share gives one of them the other's address, and a zone
// for each is the cure; a link that outlives its endpoint makes the name
// unresolvable, for dig, glibc, and in the words of the clients of images; the
// link's other policy, or its removal, leads to the public side again. row:56
// row:57 row:89 row:48
func TestRootZonesGoneWrong(t *testing.T) {
	l := newLab(t)
	const registry = "wrong"
	name, zone := registry+".cr."+l.domain, "privatelink.cr."+l.domain
	ca := filepath.Join(l.Data, "ca.pem")
	answers := func() string {
		t.Helper()
		out, err := l.try(t, l.inside, "curl", "-sS", "-m", "4", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", ca, "https://"+name+"/v2/")
		if err != nil {
			return "none"
		}
		return out
	}
	l.Cove(t, "registry", "create", registry)
	l.network(t, "west")
	l.join(t, "west", "laptop")
	l.Cove(t, "vnet", "create", "east", "--address-prefix", "10.1.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.1.0.0/24")
	l.Cove(t, "dns", "link", "add", zone, "--vnet", "east")
	l.Cove(t, "private-endpoint", "create", "pe-west", "--registry", registry, "--subnet", "west/default", "--zone", zone)
	west := l.address(t, "pe-west", name)
	if got := l.digs(t, l.inside, name); got != west || answers() != "401" {
		t.Fatalf("with one endpoint: %s", got)
	}
	l.Cove(t, "private-endpoint", "create", "pe-east", "--registry", registry, "--subnet", "east/default", "--zone", zone)
	east := l.address(t, "pe-east", name)
	if got := l.digs(t, l.inside, name); got != east {
		t.Errorf("with a shared zone the member has %s, want the other network's %s", got, east)
	}
	if got := answers(); got != "none" {
		t.Errorf("with the other network's address the registry answers %s", got)
	}
	// A zone for each: the west's is a new one, in a group of its own.
	l.Cove(t, "private-endpoint", "delete", "pe-west")
	l.Cove(t, "dns", "link", "remove", zone, "west")
	l.group(t, "west")
	l.Cove(t, "dns", "zone", "create", zone, "-g", "west")
	l.Cove(t, "dns", "link", "add", zone, "--vnet", vnetID(t, l, "west"), "-g", "west")
	l.Cove(t, "private-endpoint", "create", "pe-west", "--registry", registry, "--subnet", "west/default")
	west = l.address(t, "pe-west", name)
	for _, host := range []string{registry, registry + ".local.data"} {
		l.Cove(t, "dns", "record", "add", zone, host, l.address(t, "pe-west", host+".cr."+l.domain), "-g", "west")
	}
	if got := l.digs(t, l.inside, name); got != west || answers() != "401" {
		t.Errorf("with a zone of its own the west has %s, want %s; the registry answers %s", got, west, answers())
	}

	// The endpoint goes, the link stays.
	l.Cove(t, "private-endpoint", "delete", "pe-west")
	for _, host := range []string{registry, registry + ".local.data"} {
		l.Cove(t, "dns", "record", "remove", zone, host, "-g", "west")
	}
	if got := l.digs(t, l.inside, name); got != "NXDOMAIN" {
		t.Errorf("with the link left: %s", got)
	}
	if out, err := l.try(t, l.inside, "getent", "ahosts", name); err == nil {
		t.Errorf("with the link left getent says %s", out)
	}
	docker := l.docker(t, l.inside)
	for client, argv := range map[string][]string{
		"docker": docker("pull", name+"/team/app:1"),
		"skopeo": {"skopeo", "inspect", "docker://" + name + "/team/app:1"},
		"crane":  {covetest.Crane(t), "manifest", name + "/team/app:1"},
	} {
		out, err := l.try(t, l.inside, argv...)
		if err == nil || !strings.Contains(out, "dial tcp: lookup "+name) || !strings.Contains(out, "no such host") {
			t.Errorf("%s with the link left: %v\n%s", client, err, out)
		}
	}
	l.Cove(t, "dns", "link", "remove", zone, "west", "-g", "west")
	if got := l.digs(t, l.inside, name); got != l.outside.gateway {
		t.Errorf("with the link removed: %s", got)
	}
	l.Cove(t, "dns", "link", "add", zone, "--vnet", vnetID(t, l, "west"), "-g", "west", "--resolution-policy", "NxDomainRedirect")
	if got := l.digs(t, l.inside, name); got != l.outside.gateway {
		t.Errorf("with a link that redirects: %s", got)
	}
	l.Cove(t, "dns", "record", "add", zone, registry, "10.0.0.99", "-g", "west")
	if got := l.digs(t, l.inside, name); got != "10.0.0.99" {
		t.Errorf("a record under a link that redirects: %s", got)
	}
}

// group makes a resource group.
func (l *lab) group(t *testing.T, name string) {
	t.Helper()
	p, err := client.FromData(l.Data)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Put(t.Context(), cl.Scope()+"/resourceGroups/"+name, client.Object{"location": "local"}); err != nil {
		t.Fatal(err)
	}
}

func vnetID(t *testing.T, l *lab, name string) string {
	t.Helper()
	return l.Cove(t, "vnet", "show", name, "-o", "tsv", "--query", "id")
}

// A registry's global name leads to its home, or, while the operator routes
// around that region, to a replica that takes part in the routing, and its
// layers come from the data host of the same region. The names
// of a region lead to the region, whatever is said of it, and gain the
// privatelink label with the first private endpoint as the global one does.
// row:53 row:91
func TestGlobalNamesAreRouted(t *testing.T) {
	s := covetest.Start(t, "--also-region", "eastus", "--route-around", "local")
	s.Cove(t, "registry", "create", "harbor", "--admin-enabled", "--data-endpoint-enabled")
	const suffix = ".cr.cove.internal"
	const image = "harbor" + suffix + "/team/app:1"
	p := newPuller(t, s, s.Run.Connect, "harbor")
	p.push(t, image)
	blob, outside := p.blob(t, image), s.Outside(t)
	outside.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	leads := func(when, want string) {
		t.Helper()
		status, h, _ := get(t, outside, "https://harbor"+suffix+blob, "harbor", s.Password(t, "harbor"))
		if where := h.Get("Location"); status != http.StatusTemporaryRedirect || !strings.HasPrefix(where, "https://harbor."+want+".data"+suffix+"/") {
			t.Errorf("%s, a layer: %d %s, want the data host of %s", when, status, where, want)
		}
	}
	asks := func(when, name, want string) {
		t.Helper()
		if got := strings.Split(answers(t, s.Run.DNS[0], name+suffix), "\n"); len(got) < 2 || got[len(got)-2] != "CNAME fe."+want+".cove.internal." {
			t.Errorf("%s, %s: %q, want the front end of %s", when, name, got, want)
		}
	}
	asks("with one region", "harbor", "local")
	b := signIn(t, s)
	reg := s.Cove(t, "registry", "show", "harbor", "--query", "id", "-o", "tsv")
	put := func(method, path, body string) {
		t.Helper()
		if r := b.do(method, reg+path+"?api-version=2025-04-01", body); r.StatusCode >= 300 {
			t.Fatalf("%s %s: %d %s", method, path, r.StatusCode, r.text)
		}
	}
	put("PUT", "/replications/eastus", `{"location":"eastus","properties":{}}`)
	put("PATCH", "", `{"properties":{"regionalEndpoints":"Enabled"}}`)
	asks("with a replica", "harbor", "eastus")
	leads("with a replica", "eastus")
	if err := p.pull(t, image); err != nil {
		t.Errorf("with a replica: %v", err)
	}
	for _, name := range []string{"harbor.local.geo", "harbor.local.data"} {
		asks("routed around", name, "local")
	}
	asks("of its own", "harbor.eastus.geo", "eastus")
	put("PATCH", "/replications/eastus", `{"properties":{"regionEndpointEnabled":false}}`)
	asks("with the replica out of the routing", "harbor", "local")
	leads("with the replica out of the routing", "local")
	asks("with the replica out of the routing", "harbor.eastus.geo", "eastus")
	asks("with the replica out of the routing", "harbor.eastus.data", "eastus")
	put("PATCH", "/replications/eastus", `{"properties":{"regionEndpointEnabled":true}}`)
	asks("with the replica back", "harbor", "eastus")

	s.Cove(t, "vnet", "create", "office", "--subnet-name", "default")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default")
	for name, region := range map[string]string{"harbor": "eastus", "harbor.eastus.geo": "eastus", "harbor.local.geo": "local", "harbor.eastus.data": "eastus"} {
		want := "NOERROR\nCNAME " + name + ".privatelink" + suffix + ".\nCNAME fe." + region + ".cove.internal.\nA 127.0.0.1"
		if got := answers(t, s.Run.DNS[0], name+suffix); got != want {
			t.Errorf("with an endpoint, %s:\n%s\nwant\n%s", name, got, want)
		}
	}
}
