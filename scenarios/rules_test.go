package scenarios

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/covetest"
	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// A machine in a subnet with a service endpoint: its resolver answers the
// registry's public name with the network's front end, the registry sees the
// subnet, and the subnet's rule decides; without one, and without public
// access, the answer is the network's no. row:8 row:10 row:12
func TestRootServiceEndpoint(t *testing.T) {
	l := newLab(t)
	name := "harbor.cr." + l.domain
	l.Cove(t, "registry", "create", "harbor", "--admin-enabled", "--default-action", "Deny")
	l.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	l.join(t, "office", "vm")
	password := l.Password(t, "harbor")
	resolved := func() string {
		out := strings.Fields(l.on(t, l.inside, "dig", "+short", name))
		return out[len(out)-1]
	}
	v2 := func(h host) (string, string) {
		out := l.on(t, h, "curl", "-s", "--cacert", filepath.Join(l.Data, "ca.pem"), "-o", "-", "-w", "\n%{http_code}", "-u", "harbor:"+password, "https://"+name+"/v2/")
		i := strings.LastIndexByte(out, '\n')
		return out[i+1:], out[:i]
	}
	expect := func(when, want, reason string) {
		t.Helper()
		status, body := v2(l.inside)
		if status != want {
			t.Errorf("%s: %s %s, want %s", when, status, body, want)
		}
		if reason != "" {
			l.explained(t, body, reason)
		}
	}
	if got := resolved(); got != l.outside.gateway {
		t.Errorf("without a service endpoint the name leads to %s, want the public address %s", got, l.outside.gateway)
	}
	// A rule needs the service endpoint.
	if _, errs, status := l.Try(t, "network-rule", "add", "harbor", "--subnet", "office/default"); status == 0 || !strings.Contains(errs, "do not have ServiceEndpoints for Microsoft.ContainerRegistry resources configured") {
		t.Errorf("a rule for a subnet without one: %d %s", status, errs)
	}
	l.Cove(t, "subnet", "update", "office/default", "--service-endpoint")
	if got := resolved(); got != "100.100.100.100" {
		t.Errorf("with a service endpoint the name leads to %s", got)
	}
	expect("no rule names the subnet", "403", "COVE-NET-021")
	l.Cove(t, "network-rule", "add", "harbor", "--subnet", "office/default")
	expect("a rule names the subnet", "200", "")
	// The real client of an engine does too.
	if out, err := l.try(t, l.inside, "skopeo", "login", "-u", "harbor", "-p", password, name); err != nil {
		t.Errorf("skopeo login: %v\n%s", err, out)
	}
	if status, body := v2(l.outside); status != "403" {
		t.Errorf("from outside: %s %s", status, body)
	} else {
		l.explained(t, body, "COVE-NET-003")
	}
	l.Cove(t, "registry", "update", "harbor", "--public-network-enabled", "false")
	expect("public access off", "403", "COVE-NET-001")
	l.Cove(t, "registry", "update", "harbor", "--public-network-enabled", "true")
	expect("public access on again", "200", "")
	l.Cove(t, "network-rule", "remove", "harbor", "--subnet", "office/default")
	expect("the rule is gone", "403", "COVE-NET-021")
	l.Cove(t, "subnet", "update", "office/default", "--service-endpoint=false")
	if got := resolved(); got != l.outside.gateway {
		t.Errorf("with the service endpoint gone the name leads to %s", got)
	}
}

// row:13 row:25 row:99 Who is in a subnet that a rule names is served if it is
// a virtual machine or a node of a cluster, and told from others that are not.
func TestServiceEndpointsAreForMachines(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "harbor", "--admin-enabled", "--default-action", "Deny")
	s.Cove(t, "vnet", "create", "office", "--subnet-name", "default")
	s.Cove(t, "subnet", "update", "office/default", "--service-endpoint")
	s.Cove(t, "network-rule", "add", "harbor", "--subnet", "office/default")
	password := s.Password(t, "harbor")
	for _, c := range []struct {
		kind, reason string
		want         int
	}{{"aks", "", 200}, {"aci", "COVE-NET-022", 403}, {"appservice", "COVE-NET-022", 403}, {"agentpool", "", 200}} {
		m := enter(t, s, "office", "m-"+c.kind, "--kind", c.kind)
		status, header, body := get(t, s.Through(t, m.proxy), "https://harbor.cr.cove.internal/v2/", "harbor", password)
		if status != c.want {
			t.Errorf("%s: %d %s, want %d", c.kind, status, body, c.want)
		}
		if c.kind == "aks" { // row:99 it is let in: it pushes, and pulls again
			tar := filepath.Join(t.TempDir(), "layer.tar")
			layer(t, tar, "hello\n")
			const image = "harbor.cr.cove.internal/hello:1"
			for _, argv := range [][]string{{"auth", "login", "harbor.cr.cove.internal", "-u", "harbor", "-p", password}, {"append", "-f", tar, "-t", image}, {"pull", image, tar + ".out"}} {
				cmd := exec.CommandContext(t.Context(), covetest.Crane(t), argv...)
				cmd.Env = s.Env("HTTPS_PROXY=http://"+m.proxy, "DOCKER_CONFIG="+s.Data)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("crane %s: %v\n%s", argv[0], err, out)
				}
			}
		}
		if c.reason != "" {
			if got := s.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id")); !strings.Contains(got, c.reason) {
				t.Errorf("%s explained otherwise:\n%s", c.kind, got)
			}
		}
	}
}

// A rule beside private endpoints is refused; a private endpoint beside rules
// is made, and the registry is flagged until the rules are gone. row:11
func TestPrivateLinkOrServiceEndpoints(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "harbor")
	s.Cove(t, "vnet", "create", "office", "--subnet-name", "default")
	s.Cove(t, "subnet", "create", "office/second", "--address-prefix", "10.0.1.0/24")
	for _, sub := range []string{"office/default", "office/second"} {
		s.Cove(t, "subnet", "update", sub, "--service-endpoint")
	}
	s.Cove(t, "network-rule", "add", "harbor", "--subnet", "office/default")
	flag := func() string {
		return s.Cove(t, "registry", "show", "harbor", "-o", "tsv", "--query", "properties.status.message")
	}
	if got := flag(); strings.Contains(got, "subnet rules") {
		t.Errorf("flagged without an endpoint: %s", got)
	}
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/default")
	if got := flag(); !strings.Contains(got, "Remove the subnet rules (1)") {
		t.Errorf("not flagged: %s", got)
	}
	if _, errs, status := s.Try(t, "network-rule", "add", "harbor", "--subnet", "office/second"); status == 0 || !strings.Contains(errs, "through private endpoints or by subnet rules, not both") {
		t.Errorf("a new rule: %d %s", status, errs)
	}
	s.Cove(t, "network-rule", "remove", "harbor", "--subnet", "office/default")
	if got := flag(); strings.Contains(got, "subnet rules") {
		t.Errorf("flagged after the rules were removed: %s", got)
	}
}

// The scanner that the operator has listed reads a registry that is closed,
// with its role and while the owner lets it; without credentials it is told
// what everybody is. row:23 row:24
func TestTheScannerPasses(t *testing.T) {
	table := filepath.Join(t.TempDir(), "trusted.yaml")
	if err := os.WriteFile(table, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := covetest.Start(t, "--trusted-services", table)
	s.Cove(t, "registry", "create", "harbor", "--admin-enabled", "--public-network-enabled", "false")
	scanner := principal(t, s, "create", "scanner")
	if err := os.WriteFile(table, []byte("services:\n- name: defender\n  identities: ["+scanner.ClientID+"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Stop(t)
	s.Start(t)
	const url = "https://harbor.cr.cove.internal/v2/_catalog"
	try := func(when string, want int, user, password, explained string) string {
		t.Helper()
		status, header, body := get(t, s.Outside(t), url, user, password)
		if status != want {
			t.Errorf("%s: %d %s, want %d", when, status, body, want)
		}
		if explained != "" {
			if got := s.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id")); !strings.Contains(got, explained) {
				t.Errorf("%s, explained otherwise than by %q:\n%s", when, explained, got)
			}
		}
		return correlation.ReplaceAllString(body, "ID")
	}
	bare := try("without credentials", 403, "", "", "COVE-NET-001")
	if got := try("without a role", 403, scanner.ClientID, scanner.ClientSecret, "its identity holds no role here"); got != bare {
		t.Errorf("who has no role reads %s, a stranger %s", got, bare)
	}
	s.Cove(t, "role", "assign", scanner.ObjectID, "AcrPull", "--scope", registryID(t, s, "harbor"))
	try("with a role", 200, scanner.ClientID, scanner.ClientSecret, "")
	if got := try("with a wrong secret", 403, scanner.ClientID, "wrong", "COVE-NET-001"); got != bare {
		t.Errorf("who guesses reads %s, a stranger %s", got, bare)
	}
	if got := try("the admin user", 403, "harbor", s.Password(t, "harbor"), "COVE-NET-001"); got != bare {
		t.Errorf("the admin user reads %s, a stranger %s", got, bare)
	}
	if status, out := arm(t, s, http.MethodPatch, registryID(t, s, "harbor"), "2023-07-01", `{"properties":{"networkRuleBypassOptions":"None"}}`); status != http.StatusOK {
		t.Fatalf("%d %v", status, out)
	}
	try("bypass off", 403, scanner.ClientID, scanner.ClientSecret, "COVE-NET-001")
}

// Security groups filter what members begin: towards a private endpoint where
// the member's own group says so, and where the endpoint's subnet lets its
// group have a say. A change ends the connections that stand. row:14 row:46
func TestSecurityGroups(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "harbor", "--public-network-enabled", "false", "--admin-enabled")
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	s.Cove(t, "subnet", "create", "office/endpoints", "--address-prefix", "10.0.1.0/24")
	s.Cove(t, "dns", "zone", "create", "privatelink.cr.cove.internal")
	s.Cove(t, "dns", "link", "add", "privatelink.cr.cove.internal", "--vnet", "office")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/endpoints", "--zone", "privatelink.cr.cove.internal")
	group := strings.TrimSuffix(registryID(t, s, "harbor"), "/providers/Microsoft.ContainerRegistry/registries/harbor") + "/providers/Microsoft.Network/networkSecurityGroups/walls"
	put(t, s, group, `{"location":"local","properties":{"securityRules":[]}}`)
	rule := func(direction, access, to, port string) {
		t.Helper()
		put(t, s, group+"/securityRules/one", fmt.Sprintf(`{"properties":{"priority":200,"direction":%q,"access":%q,"protocol":"Tcp",
			"sourceAddressPrefix":"VirtualNetwork","sourcePortRange":"*","destinationAddressPrefix":%q,"destinationPortRange":%q}}`, direction, access, to, port))
	}
	m := enter(t, s, "office", "m")
	client := s.Through(t, m.proxy)
	password := s.Password(t, "harbor")
	reaches := func(when string, want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), map[bool]time.Duration{true: 20 * time.Second, false: 1500 * time.Millisecond}[want])
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://harbor.cr.cove.internal/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("harbor", password)
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if got := err == nil && resp.StatusCode == http.StatusOK; got != want {
			t.Errorf("%s: reached %v, want %v (%v)", when, got, want, err)
		}
	}
	reaches("without a group", true)
	s.Cove(t, "subnet", "update", "office/endpoints", "--security-group", "walls")
	rule("Inbound", "Deny", "*", "443")
	reaches("denied by the endpoint's subnet, whose policies are off", true)
	s.Cove(t, "subnet", "update", "office/endpoints", "--private-endpoint-policies")
	reaches("denied by the endpoint's subnet, whose policies are on", false)
	rule("Inbound", "Deny", "*", "80")
	reaches("another port is denied", true)
	s.Cove(t, "subnet", "update", "office/endpoints", "--security-group", "")
	s.Cove(t, "subnet", "update", "office/default", "--security-group", "walls")
	rule("Outbound", "Deny", "10.0.1.0/24", "443")
	reaches("denied where it leaves", false)
	// The member sees silence, and whoever may ask the control plane the rule.
	found, status := checked(t, s, "harbor", "--userspace", "office/default")
	if r := found[health.LayerConnect]; status != 1 || r.Code != reason.GroupDenies || !strings.Contains(strings.Join(r.Evidence, " "), "the rule one of the network security group walls denies TCP port 443 from 10.0.0.") {
		t.Errorf("the check ends with %d: %+v", status, r)
	}
	if got := s.Log(); !strings.Contains(got, "a security group denies") || !strings.Contains(got, "group=walls rule=one protocol=6 from=10.0.0.") {
		t.Error("the server's log does not say what was denied")
	}
	rule("Outbound", "Deny", "AzureContainerRegistry.local", "443")
	reaches("the public side is denied", true)
	if _, out := arm(t, s, http.MethodDelete, group, "2022-01-01", ""); !strings.Contains(fmt.Sprint(out), "InUseNetworkSecurityGroupCannotBeDeleted") {
		t.Errorf("a group in use: %v", out)
	}
}

// A hub holds the endpoint of its spokes: a member of a network that is peered
// with it reaches the endpoint by its name, one of a spoke's spoke does not, and
// one side alone is no peering. Members that were there before the peering are
// told of, with what brings them there.
func TestPeering(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "harbor", "--public-network-enabled", "false", "--admin-enabled")
	group := strings.TrimSuffix(registryID(t, s, "harbor"), "/providers/Microsoft.ContainerRegistry/registries/harbor") + "/providers/Microsoft.Network/virtualNetworks/"
	s.Cove(t, "dns", "zone", "create", "privatelink.cr.cove.internal")
	for i, n := range []string{"hub", "spoke", "far"} {
		s.Cove(t, "vnet", "create", n, "--address-prefix", fmt.Sprintf("10.%d.0.0/16", i), "--subnet-name", "default")
		s.Cove(t, "dns", "link", "add", "privatelink.cr.cove.internal", "--vnet", n)
	}
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "hub/default", "--zone", "privatelink.cr.cove.internal")
	peer := func(from, to string) map[string]any {
		t.Helper()
		return put(t, s, group+from+"/virtualNetworkPeerings/to-"+to, fmt.Sprintf(`{"properties":{"remoteVirtualNetwork":{"id":%q},"allowVirtualNetworkAccess":true}}`, group+to))
	}
	state := func(p map[string]any) any { return p["properties"].(map[string]any)["peeringState"] }
	if got := state(peer("spoke", "hub")); got != "Initiated" {
		t.Errorf("one side alone is %v", got)
	}
	peer("far", "spoke")
	peer("spoke", "far")
	password := s.Password(t, "harbor")
	asks := func(m member, network, name string, want bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), map[bool]time.Duration{true: 20 * time.Second, false: 1500 * time.Millisecond}[want])
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://harbor.cr.cove.internal/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("harbor", password)
		resp, err := s.Through(t, m.proxy).Do(req)
		if err == nil {
			resp.Body.Close()
		}
		if got := err == nil && resp.StatusCode == http.StatusOK; got != want {
			t.Errorf("%s from %s: reached %v, want %v (%v)", name, network, got, want, err)
		}
	}
	reaches := func(network, name string, want bool) {
		t.Helper()
		asks(enter(t, s, network, name), network, name, want)
	}
	early := enter(t, s, "spoke", "early")
	asks(early, "spoke", "early", false)
	s.Cove(t, "join", "spoke/default", "--name", "filed", "--out", filepath.Join(t.TempDir(), "filed.conf"))
	if got := state(peer("hub", "spoke")); got != "Connected" {
		t.Errorf("both sides are %v", got)
	}
	reaches("spoke", "builder", true)
	reaches("far", "stranger", false)
	// Who was there before finds the new routes by itself; a configuration in a
	// file stays what it is, which the status says of it and of nobody else, until
	// it is made anew.
	client := s.Through(t, early.proxy)
	for late := time.Now().Add(covetest.Wait); ; {
		req, err := http.NewRequest(http.MethodGet, "https://harbor.cr.cove.internal/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("harbor", password)
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			break
		}
		if time.Now().After(late) {
			t.Fatalf("a member that was there before does not reach the peer: %v", err)
		}
		<-time.After(100 * time.Millisecond)
	}
	asks(early, "spoke", "early", true)
	if got, want := watched(t, s)[reason.MembersBehind].Says, "members of spoke have no route to the private endpoints in 10.0.0.0/16: filed"; got != want {
		t.Errorf("the status says %q, want %q", got, want)
	}
	enter(t, s, "spoke", "filed", "--replace")
	if got, found := watched(t, s)[reason.MembersBehind]; found {
		t.Errorf("the status still says %+v", got)
	}
	// What the owner decides about the hub's endpoint holds in the spokes.
	worker := s.Through(t, enter(t, s, "spoke", "worker").proxy)
	for _, step := range []struct {
		command string
		want    int
	}{{"reject", http.StatusForbidden}, {"approve", http.StatusOK}} {
		s.Cove(t, "private-endpoint", step.command, "pe")
		status, header, body := get(t, worker, "https://harbor.cr.cove.internal/v2/", "harbor", password)
		if status != step.want {
			t.Errorf("%s, from the spoke: %d %s", step.command, status, body)
		}
		if status != http.StatusForbidden {
			continue
		}
		if got := s.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id")); !strings.Contains(got, "COVE-NET-005") {
			t.Errorf("explained otherwise:\n%s", got)
		}
	}
	if status, out := arm(t, s, http.MethodPut, group+"hub/virtualNetworkPeerings/again", "2022-01-01", fmt.Sprintf(`{"properties":{"remoteVirtualNetwork":{"id":%q}}}`, group+"spoke")); status != http.StatusBadRequest {
		t.Errorf("a second peering: %d %v", status, out)
	}
	if status, out := arm(t, s, http.MethodDelete, group+"hub/virtualNetworkPeerings/to-spoke", "2022-01-01", ""); status != http.StatusOK {
		t.Errorf("%d %v", status, out)
	}
	reaches("spoke", "late", false)
}

// A transfer that is under way ends within a second when its private endpoint is
// rejected, if nothing else keeps the machine busy: the quickest of three counts.
// Others go on.
func TestRejectionEndsATransfer(t *testing.T) {
	s := fenced(t)
	const hostName = "registrynorth.cr.cove.internal"
	client := s.Through(t, enter(t, s, "north", "m").proxy)
	other := s.Through(t, enter(t, s, "south", "m2").proxy)
	hang := func(c *http.Client, registry string) chan error {
		t.Helper()
		password := s.Password(t, registry)
		req, err := http.NewRequest(http.MethodPost, "https://"+registry+".cr.cove.internal/v2/a/blobs/uploads/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(registry, password)
		resp, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusAccepted {
			t.Fatalf("an upload cannot be begun: %s", resp.Status)
		}
		at := resp.Header.Get("Location")
		if strings.HasPrefix(at, "/") {
			at = "https://" + registry + ".cr.cove.internal" + at
		}
		body := &slow{begun: make(chan struct{}), closed: make(chan struct{})}
		put, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, at, body)
		if err != nil {
			t.Fatal(err)
		}
		put.SetBasicAuth(registry, password)
		ended := make(chan error, 1)
		go func() {
			resp, err := c.Do(put)
			if err == nil {
				resp.Body.Close()
				err = fmt.Errorf("answered %s", resp.Status)
			}
			ended <- err
		}()
		<-body.begun
		return ended
	}
	theirs, quickest := hang(other, "registrysouth"), time.Hour
	for range 3 {
		mine := hang(client, "registrynorth")
		s.Cove(t, "private-endpoint", "reject", "pe-north")
		done := time.Now()
		select {
		case err := <-mine:
			after := time.Since(done)
			quickest = min(quickest, after)
			t.Logf("%s: ended %v after it was rejected: %v", hostName, after, err)
		case <-time.After(covetest.Wait / 3):
			t.Fatal("the transfer goes on after its endpoint was rejected")
		}
		if quickest <= time.Second {
			break
		}
		s.Cove(t, "private-endpoint", "approve", "pe-north")
	}
	if quickest > time.Second {
		t.Errorf("the quickest end of a transfer was %v after its endpoint was rejected", quickest)
	}
	select {
	case err := <-theirs:
		t.Errorf("another network's transfer ended too: %v", err)
	default:
	}
}

// An address that a deleted endpoint had is another's at once, if that asks for
// it by name; the connections to the old one have ended by then, so that none
// of them ever speaks to the heir.
func TestAnAddressChangesHands(t *testing.T) {
	s := fenced(t)
	m := enter(t, s, "north", "m")
	s.Cove(t, "registry", "create", "theheir", "--public-network-enabled", "false", "--admin-enabled")
	var old struct{ Addresses []string }
	if err := json.Unmarshal([]byte(s.Cove(t, "private-endpoint", "show", "pe-north", "-o", "json")), &old); err != nil || len(old.Addresses) != 2 {
		t.Fatal(err, old)
	}
	slices.Sort(old.Addresses)
	// talk opens a connection to the address as a registry's client does, and
	// returns the status of its first answer.
	talk := func(registry string) (*tls.Conn, int) {
		t.Helper()
		c, err := net.Dial("tcp", m.proxy)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(covetest.Wait)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "CONNECT %s:443 HTTP/1.1\r\nHost: %[1]s\r\n\r\n", old.Addresses[0])
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("the proxy: %v %v", resp, err)
		}
		conf := s.TLS(t)
		conf.ServerName = registry + ".cr.cove.internal"
		conn := tls.Client(c, conf)
		req, err := http.NewRequest(http.MethodGet, "https://"+conf.ServerName+"/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(registry, s.Password(t, registry))
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return conn, resp.StatusCode
	}
	before, status := talk("registrynorth")
	if status != http.StatusOK {
		t.Fatalf("before: %d", status)
	}
	group, _, _ := strings.Cut(registryID(t, s, "theheir"), "/providers/")
	subnet := group + "/providers/Microsoft.Network/virtualNetworks/north/subnets/default"
	s.Cove(t, "private-endpoint", "delete", "pe-north")
	put(t, s, group+"/providers/Microsoft.Network/privateEndpoints/pe-heir", fmt.Sprintf(`{"location":"local","properties":{"subnet":{"id":%q},
		"ipConfigurations":[{"name":"a","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":%q}},
			{"name":"b","properties":{"groupId":"registry","memberName":"registry_data_local","privateIPAddress":%q}}],
		"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":%q,"groupIds":["registry"]}}]}}`,
		subnet, old.Addresses[0], old.Addresses[1], registryID(t, s, "theheir")))
	if err := before.SetDeadline(time.Now().Add(covetest.Wait / 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := before.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection to the deleted endpoint stands: %v", err)
	}
	if _, status := talk("theheir"); status != http.StatusOK {
		t.Errorf("the heir answers %d", status)
	}
	if _, status := talk("registrynorth"); status != http.StatusForbidden {
		t.Errorf("the old registry answers %d at the heir's address", status)
	}
}

// slow is a body that does not end before it is closed.
type slow struct {
	begun, closed chan struct{}
	once          sync.Once
	n             int
}

func (s *slow) Read(p []byte) (int, error) {
	if s.n++; s.n > 2 {
		if s.n == 3 {
			close(s.begun)
		}
		<-s.closed
		return 0, io.ErrUnexpectedEOF
	}
	return len(p), nil
}

func (s *slow) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func registryID(t *testing.T, s *covetest.Server, name string) string {
	t.Helper()
	return s.Cove(t, "registry", "show", name, "--query", "id", "-o", "tsv")
}

// arm is a request to the Resource Manager as its first administrator.
func arm(t *testing.T, s *covetest.Server, method, id, version, body string) (int, map[string]any) {
	t.Helper()
	who := administrator(t, s)
	token := issued(t, s, who, "https://management.cove.internal")
	return send(t, s, method, "https://management.cove.internal"+id+"?api-version="+version, token, body)
}

func put(t *testing.T, s *covetest.Server, id, body string) map[string]any {
	t.Helper()
	status, out := arm(t, s, http.MethodPut, id, "2022-01-01", body)
	if status != http.StatusOK && status != http.StatusCreated {
		t.Fatalf("PUT %s: %d %v", id, status, out)
	}
	return out
}

// The real Azure CLI makes what the articles name: a subnet's service endpoint
// and the registry's rule for it, security groups with their rules and tags,
// peerings. row:14 row:17
func TestRootAzNetworkRules(t *testing.T) {
	s := covetest.Start(t)
	c := openCLI(t, s)
	for _, r := range table(t, azNetworkRules) {
		if !c.play(r) {
			t.Errorf("line %d: %s", r.n, r.text)
		}
	}
}

// azNetworkRules is written as every-command.txt is.
const azNetworkRules = `
az group create --name g --location local
az acr create --resource-group g --name harbor --sku Premium --default-action Deny
az network vnet create --resource-group g --name office --address-prefix 10.0.0.0/16 --subnet-name build --subnet-prefix 10.0.0.0/24
az network vnet create --resource-group g --name hub --address-prefix 10.1.0.0/16 --subnet-name ends --subnet-prefix 10.1.0.0/24
! az acr network-rule add --name harbor --vnet-name office --subnet build
  do not have ServiceEndpoints for Microsoft.ContainerRegistry resources configured
az network vnet subnet update --resource-group g --vnet-name office --name build --service-endpoints Microsoft.ContainerRegistry --query serviceEndpoints[].service --output tsv
  ^Microsoft.ContainerRegistry$
az acr network-rule add --name harbor --vnet-name office --subnet build --ip-address 203.0.113.9
az acr network-rule list --name harbor --query "[ipRules[0].ipAddressOrRange, virtualNetworkRules[0].virtualNetworkResourceId]" --output tsv
  ^203.0.113.9$
  /subnets/build$
az acr show-usage --name harbor --query "value[?name=='VNetRules'].[limit, currentValue]" --output tsv
  ^100\t1$
az acr network-rule remove --name harbor --vnet-name office --subnet build
az acr network-rule list --name harbor --output json
  ! subnets/build
az network list-service-tags --location local --query "values[?name=='AzureContainerRegistry.local'].properties.addressPrefixes[]" --output tsv
  ^127.0.0.1/32$
  ^100.100.100.100/32$
! az network list-service-tags --location mars
  LocationNotAvailableForResourceType
az network nsg create --resource-group g --name walls
az network nsg rule create --resource-group g --nsg-name walls --name no --priority 200 --direction Outbound --access Deny --protocol Tcp --destination-address-prefixes AzureContainerRegistry.local --destination-port-ranges 443
az network vnet subnet update --resource-group g --vnet-name office --name build --network-security-group walls
az network nsg show --resource-group g --name walls --query "[securityRules[0].destinationAddressPrefix, length(defaultSecurityRules)]" --output tsv
  ^AzureContainerRegistry.local$
  ^6$
! az network nsg delete --resource-group g --name walls
  InUseNetworkSecurityGroupCannotBeDeleted
! az network nsg rule create --resource-group g --nsg-name walls --name again --priority 200 --direction Outbound --access Allow --protocol Tcp
  SecurityRuleConflict
az network vnet peering create --resource-group g --vnet-name office --name to-hub --remote-vnet hub --allow-vnet-access --query peeringState --output tsv
  ^Initiated$
az network vnet peering create --resource-group g --vnet-name hub --name to-office --remote-vnet office --allow-vnet-access --query peeringState --output tsv
  ^Connected$
az acr update --name harbor --allow-trusted-services false --query networkRuleBypassOptions --output tsv
  ^None$
`
