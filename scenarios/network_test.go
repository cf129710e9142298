package scenarios

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"cove.example/cove/covetest"
)

// member is a tunnel into a virtual network with its proxy, run by cove join
// --userspace: it needs no root.
type member struct{ proxy string }

// enter joins a network without root and returns the member's proxy.
func enter(t *testing.T, s *covetest.Server, network, name string, args ...string) member {
	t.Helper()
	cmd := exec.Command(covetest.Binary(t), append([]string{"join", network + "/default", "--name", name, "--userspace", "--proxy", "127.0.0.1:0"}, args...)...)
	cmd.Env = s.Env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs strings.Builder
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("join: %v\n%s", err, errs.String())
	}
	_, proxy, ok := strings.Cut(strings.TrimSpace(line), "proxy at ")
	if !ok {
		t.Fatalf("join said %q", line)
	}
	return member{proxy}
}

// get asks for a URL and returns status, headers and body.
func get(t *testing.T, c *http.Client, url, user, password string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("GET %s: %v", url, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// fenced is a server with two virtual networks of the same address space,
// each with a private endpoint at the same address, of another registry each.
func fenced(t *testing.T) *covetest.Server {
	t.Helper()
	s := covetest.Start(t)
	s.Cove(t, "dns", "zone", "create", "privatelink.cr.cove.internal")
	for _, n := range []struct{ network, registry string }{{"north", "registrynorth"}, {"south", "registrysouth"}} {
		s.Cove(t, "registry", "create", n.registry, "--public-network-enabled", "false", "--admin-enabled")
		s.Cove(t, "vnet", "create", n.network, "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
		s.Cove(t, "dns", "link", "add", "privatelink.cr.cove.internal", "--vnet", n.network)
		s.Cove(t, "private-endpoint", "create", "pe-"+n.network, "--registry", n.registry, "--subnet", n.network+"/default", "--zone", "privatelink.cr.cove.internal")
	}
	return s
}

// One process serves two virtual networks with the same address space and the
// same private endpoint address, and each connection is attributed to its own:
// an address leads to the registry of its network's endpoint and to no other.
// row:101 row:34
func TestTwoNetworksWithOneAddressSpace(t *testing.T) {
	s := fenced(t)
	addresses := map[string]string{}
	for _, network := range []string{"north", "south"} {
		var pe map[string]any
		if err := json.Unmarshal([]byte(s.Cove(t, "private-endpoint", "show", "pe-"+network, "-o", "json")), &pe); err != nil {
			t.Fatal(err)
		}
		addresses[network] = fmt.Sprint(pe["addresses"])
	}
	if addresses["north"] != addresses["south"] {
		t.Fatalf("the endpoints have different addresses: %v", addresses)
	}
	for _, c := range []struct{ network, other string }{{"north", "south"}, {"south", "north"}} {
		m := enter(t, s, c.network, "m-"+c.network)
		own, foreign := "registry"+c.network, "registry"+c.other
		client := s.Through(t, m.proxy)
		if status, _, body := get(t, client, "https://"+own+".cr.cove.internal/v2/", own, s.Password(t, own)); status != http.StatusOK {
			t.Errorf("in %s its own registry answers %d: %s", c.network, status, body)
		}
		// The other registry's name, forced to the endpoint's address here.
		via := client.Transport.(*http.Transport).Clone()
		via.TLSClientConfig.ServerName = foreign + ".cr.cove.internal"
		address := strings.Fields(strings.Trim(addresses[c.network], "[]"))[0]
		req, err := http.NewRequest(http.MethodGet, "https://"+address+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = foreign + ".cr.cove.internal"
		req.SetBasicAuth(foreign, s.Password(t, foreign))
		resp, err := (&http.Client{Transport: via}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("in %s the endpoint of %s answered %d for %s", c.network, own, resp.StatusCode, foreign)
		}
		if got := s.Cove(t, "explain", resp.Header.Get("X-Ms-Correlation-Request-Id")); !strings.Contains(got, "COVE-NET-006") {
			t.Errorf("explained otherwise:\n%s", got)
		}
	}
}

// Rules about addresses are about the public side: whatever they say, members
// come in by the private endpoint. Who is outside can list neither repositories
// nor tags, with the best of credentials, until the rules are changed or the
// endpoint goes and public access is on. row:9 row:27 row:28
func TestListsFromOutsideAndInside(t *testing.T) {
	s := joined(t)
	pushed(t, s, "team/app:1")
	const host = "https://myregistry.cr.cove.internal"
	inside, outside, password := s.Through(t, enter(t, s, "office", "m").proxy), s.Outside(t), s.Password(t, "myregistry")
	lists := func(when, refusal string) {
		t.Helper()
		for _, path := range []string{"/v2/_catalog", "/v2/team/app/tags/list", "/acr/v1/_catalog", "/acr/v1/team/app/_tags", "/acr/v1/team/app/_manifests", "/acr/v1/team/app"} {
			if status, _, body := get(t, inside, host+path, "myregistry", password); status != http.StatusOK || !strings.Contains(body, "app") {
				t.Errorf("%s, inside, %s: %d %s", when, path, status, body)
			}
			status, header, body := get(t, outside, host+path, "myregistry", password)
			if refusal == "" {
				if status != http.StatusOK || !strings.Contains(body, "app") {
					t.Errorf("%s, outside, %s: %d %s", when, path, status, body)
				}
				continue
			}
			if status != http.StatusForbidden || !strings.Contains(body, "DENIED") || strings.Contains(body, "team") {
				t.Errorf("%s, outside, %s: %d %s", when, path, status, body)
			}
			if got := s.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id")); !strings.Contains(got, refusal) {
				t.Errorf("%s, outside, %s, explained otherwise than by %s:\n%s", when, path, refusal, got)
			}
		}
	}
	lists("public access is off", "COVE-NET-001")
	s.Cove(t, "registry", "update", "myregistry", "--public-network-enabled", "true", "--default-action", "Deny")
	lists("no rule admits anybody", "COVE-NET-003")
	s.Cove(t, "network-rule", "add", "myregistry", "203.0.113.0/24")
	lists("a rule is about somebody else", "COVE-NET-003")
	s.Cove(t, "registry", "update", "myregistry", "--default-action", "Allow")
	lists("all networks are allowed", "")
	s.Cove(t, "registry", "update", "myregistry", "--public-network-enabled", "false")
	lists("public access is off again", "COVE-NET-001")
	s.Cove(t, "private-endpoint", "delete", "pe")
	s.Cove(t, "registry", "update", "myregistry", "--public-network-enabled", "true")
	if status, _, body := get(t, outside, host+"/v2/_catalog", "myregistry", password); status != http.StatusOK || !strings.Contains(body, "team/app") {
		t.Errorf("the endpoint is gone and public access on: %d %s", status, body)
	}
}

// A connection that stands is decided anew at each request: rejecting the
// endpoint refuses the next one, approving it lets the one after in.
func TestRejectionReachesAnOpenConnection(t *testing.T) {
	s := fenced(t)
	client := s.Through(t, enter(t, s, "north", "m").proxy)
	const url = "https://registrynorth.cr.cove.internal/v2/"
	password := s.Password(t, "registrynorth")
	for _, step := range []struct {
		command []string
		want    int
		reason  string
	}{
		{nil, http.StatusOK, ""},
		{[]string{"private-endpoint", "reject", "pe-north"}, http.StatusForbidden, "COVE-NET-005"},
		{[]string{"private-endpoint", "approve", "pe-north"}, http.StatusOK, ""},
	} {
		if step.command != nil {
			s.Cove(t, step.command...)
		}
		status, header, body := get(t, client, url, "registrynorth", password)
		if status != step.want {
			t.Errorf("after %v: %d %s, want %d", step.command, status, body, step.want)
		}
		if step.reason == "" {
			continue
		}
		explained := s.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id"))
		if !strings.Contains(explained, step.reason) || !strings.Contains(explained, "cove private-endpoint approve") {
			t.Errorf("explained without %s and its cure:\n%s", step.reason, explained)
		}
	}
}

// A change of the rules reaches a connection that is open at its next request,
// in either direction: what was closed by mistake is open again at once.
// row:6 row:7 row:28
func TestRulesReachAnOpenConnection(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--admin-enabled")
	password, client := s.Password(t, "myregistry"), s.Outside(t)
	opened := 0
	dial := client.Transport.(*http.Transport).DialContext
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		opened++
		return dial(ctx, network, address)
	}
	for _, step := range []struct {
		command []string
		want    int
		reason  string
	}{
		{nil, 200, ""},
		{[]string{"registry", "update", "myregistry", "--default-action", "Deny"}, 403, "COVE-NET-003"},
		{[]string{"network-rule", "add", "myregistry", "127.0.0.0/30"}, 200, ""},
		{[]string{"network-rule", "add", "myregistry", "203.0.113.0/24"}, 200, ""},
		{[]string{"registry", "update", "myregistry", "--public-network-enabled=false"}, 403, "COVE-NET-001"},
		{[]string{"registry", "update", "myregistry", "--public-network-enabled=true"}, 200, ""},
		{[]string{"network-rule", "remove", "myregistry", "127.0.0.0/30"}, 403, "COVE-NET-003"},
		{[]string{"registry", "update", "myregistry", "--default-action", "Allow"}, 200, ""},
	} {
		if step.command != nil {
			s.Cove(t, step.command...)
		}
		status, header, body := get(t, client, "https://myregistry.cr.cove.internal/v2/_catalog", "myregistry", password)
		if status != step.want {
			t.Errorf("after %v: %d %s, want %d", step.command, status, body, step.want)
		}
		if step.reason != "" {
			if got := s.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id")); !strings.Contains(got, step.reason) {
				t.Errorf("after %v, explained otherwise than by %s:\n%s", step.command, step.reason, got)
			}
		}
	}
	if opened != 1 {
		t.Errorf("%d connections were opened", opened)
	}
}

// A new registry is public: any address gets a challenge that names the
// registry's own host, and nothing else without a credential. row:1 row:5
func TestANewRegistryChallengesEverybody(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--admin-enabled")
	const host = "myregistry.cr.cove.internal"
	status, header, body := get(t, s.Outside(t), "https://"+host+"/v2/", "", "")
	if want := `Bearer realm="https://` + host + `/oauth2/token",service="` + host + `"`; status != http.StatusUnauthorized || header.Get("Www-Authenticate") != want {
		t.Errorf("%d %q, want 401 %q", status, header.Get("Www-Authenticate"), want)
	}
	if want := `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required, visit https://aka.ms/acr/authorization for more information.","detail":null}]}` + "\n"; body != want {
		t.Errorf("body %q, want %q", body, want)
	}
	if status, _, body := get(t, s.Outside(t), "https://"+host+"/v2/", "myregistry", s.Password(t, "myregistry")); status != http.StatusOK {
		t.Errorf("with the admin user's password: %d %s", status, body)
	}
}

// Sign-ins and refusals are events with the caller's address, the identity and
// the status, the blocked attempts among them. row:86
func TestLoginsAreEvents(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--admin-enabled")
	const url = "https://myregistry.cr.cove.internal/v2/"
	get(t, s.Outside(t), url, "", "")
	get(t, s.Outside(t), url, "myregistry", "wrong")
	token := "https://myregistry.cr.cove.internal/oauth2/token?service=myregistry.cr.cove.internal"
	if status, _, body := get(t, s.Outside(t), token, "myregistry", s.Password(t, "myregistry")); status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	s.Cove(t, "registry", "update", "myregistry", "--public-network-enabled", "false")
	_, header, _ := get(t, s.Outside(t), url, "", "")

	var events []map[string]any
	if err := json.Unmarshal([]byte(s.Cove(t, "logs", "--registry", "myregistry", "-o", "json")), &events); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range events {
		if e["CallerIpAddress"] != "127.0.0.1" {
			t.Errorf("the event %v has not the caller's address", e)
		}
		got = append(got, fmt.Sprintf("%v by %q %v", e["ResultDescription"], e["Identity"], e["ReasonCode"]))
	}
	want := []string{`401 by "" COVE-AUTH-001`, `401 by "" COVE-AUTH-002`, `200 by "myregistry" `, `403 by "" COVE-NET-001`}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if last := events[len(events)-1]["CorrelationId"]; last != header.Get("X-Ms-Correlation-Request-Id") {
		t.Errorf("the refusal's event has the id %v, the refusal %v", last, header.Get("X-Ms-Correlation-Request-Id"))
	}
}

// answers asks the DNS server at addr and returns the answer section, a line
// a record, TTLs left out.
func answers(t *testing.T, addr, name string) string {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	r, _, err := (&dns.Client{Timeout: covetest.Wait}).Exchange(q, addr)
	if err != nil {
		t.Fatal(err)
	}
	out := []string{dns.RcodeToString[r.Rcode]}
	for _, rr := range r.Answer {
		switch v := rr.(type) {
		case *dns.CNAME:
			out = append(out, "CNAME "+v.Target)
		case *dns.A:
			out = append(out, "A "+v.A.String())
		}
	}
	return strings.Join(out, "\n")
}

// The public view gains the privatelink label with the first private endpoint
// and keeps leading to the public front end. row:53
func TestThePublicChainShowsThatThereIsAPrivateEndpoint(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry")
	const name = "myregistry.cr.cove.internal"
	if got, want := answers(t, s.Run.DNS[0], name), "NOERROR\nCNAME fe.local.cove.internal.\nA 127.0.0.1"; got != want {
		t.Errorf("without an endpoint\n%s\nwant\n%s", got, want)
	}
	s.Cove(t, "vnet", "create", "office", "--subnet-name", "default")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "myregistry", "--subnet", "office/default")
	if got, want := answers(t, s.Run.DNS[0], name), "NOERROR\nCNAME myregistry.privatelink.cr.cove.internal.\nCNAME fe.local.cove.internal.\nA 127.0.0.1"; got != want {
		t.Errorf("with one\n%s\nwant\n%s", got, want)
	}
	if got := answers(t, s.Run.DNS[0], "nobody.cr.cove.internal"); got != "NXDOMAIN" {
		t.Errorf("a registry that does not exist: %s", got)
	}
}

// The resolver inside follows zones, links and records: without a link, or in
// a zone of another name, names lead to the public address; in a linked zone a
// missing record is no name at all. row:47 row:48 row:49 row:50 row:45
func TestRootNamesInside(t *testing.T) {
	l := newLab(t)
	const registry = "names"
	name := registry + ".cr." + l.domain
	data := registry + ".local.data.cr." + l.domain
	zone := "privatelink.cr." + l.domain
	l.Cove(t, "registry", "create", registry, "--admin-enabled")
	l.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	l.Cove(t, "private-endpoint", "create", "pe", "--registry", registry, "--subnet", "office/default")
	l.join(t, "office", "laptop")

	// The network interface holds an address for the registry and one for its
	// data endpoint, and says which is which.
	nic := l.Cove(t, "private-endpoint", "show", "pe", "-o", "tsv", "--query", "properties.customDnsConfigs[].[fqdn, ipAddresses[0]]")
	private := map[string]string{}
	for line := range strings.Lines(nic) {
		fqdn, address, _ := strings.Cut(strings.TrimSpace(line), "\t")
		private[fqdn] = address
	}
	inSubnet := netip.MustParsePrefix("10.0.0.0/24")
	for _, fqdn := range []string{name, data} {
		if a, err := netip.ParseAddr(private[fqdn]); err != nil || !inSubnet.Contains(a) {
			t.Fatalf("%s has the address %q; all: %s", fqdn, private[fqdn], nic)
		}
	}
	last := func(name string) string {
		out := strings.Fields(l.on(t, l.inside, "dig", "+short", name))
		if len(out) == 0 || strings.HasSuffix(out[len(out)-1], ".") {
			return strings.TrimSpace(l.on(t, l.inside, "sh", "-c", "dig "+name+" | grep -o 'status: [A-Z]*'"))
		}
		return out[len(out)-1]
	}
	public := l.outside.gateway
	want := func(when, name, answer string) {
		t.Helper()
		if got := last(name); got != answer {
			t.Errorf("%s: %s leads to %q, want %q", when, name, got, answer)
		}
	}
	want("without a zone", name, public)
	l.Cove(t, "dns", "zone", "create", zone)
	l.Cove(t, "dns", "zone", "create", "private.cr."+l.domain)
	l.Cove(t, "dns", "record", "add", zone, registry, private[name])
	l.Cove(t, "dns", "record", "add", "private.cr."+l.domain, registry, "10.0.0.99")
	want("with a zone that is not linked", name, public)
	l.Cove(t, "dns", "link", "add", "private.cr."+l.domain, "--vnet", "office")
	want("with a linked zone of another name", name, public)
	l.Cove(t, "dns", "link", "add", zone, "--vnet", "office")
	want("with the zone linked", name, private[name])
	want("with no record for the data endpoint", data, "status: NXDOMAIN")
	l.Cove(t, "dns", "record", "add", zone, registry+".local.data", private[data])
	want("with a record by hand", data, private[data])
	// glibc agrees with dig.
	if got := l.on(t, l.inside, "getent", "ahostsv4", name); !strings.HasPrefix(got, private[name]+" ") {
		t.Errorf("getent: %s", got)
	}
	// Integration writes the records by itself, and takes them away with the
	// endpoint.
	l.Cove(t, "dns", "record", "remove", zone, registry)
	l.Cove(t, "dns", "record", "remove", zone, registry+".local.data")
	l.Cove(t, "private-endpoint", "create", "second", "--registry", registry, "--subnet", "office/default", "--zone", zone)
	second := l.Cove(t, "private-endpoint", "show", "second", "-o", "tsv", "--query", "properties.customDnsConfigs[?fqdn=='"+name+"'].ipAddresses[0] | [0]")
	want("with a zone group", name, second)
	l.Cove(t, "private-endpoint", "delete", "second")
	want("with the endpoint deleted and the link left", name, "status: NXDOMAIN")
}
