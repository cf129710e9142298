package scenarios

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"cove.example/cove/access"
	"cove.example/cove/covetest"
	"cove.example/cove/link"
)

// The additions by which clouds' balancers name a private link.
func azureLink(n uint32) proxyproto.TLV {
	return proxyproto.TLV{Type: 0xee, Value: binary.LittleEndian.AppendUint32([]byte{1}, n)}
}

func awsEndpoint(id string) proxyproto.TLV {
	return proxyproto.TLV{Type: 0xea, Value: append([]byte{1}, id...)}
}

// balance is a cloud's balancer: what connects to at is passed on to the
// server, from an address of the balancer's own and behind a header that says
// whose private link it is.
func balance(t *testing.T, at net.Listener, from, to, caller string, more ...proxyproto.TLV) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	balanceBy(t, at, func() (net.Conn, error) { return d.Dial("tcp", to) }, caller, more...)
}

func balanceBy(t *testing.T, at net.Listener, dial func() (net.Conn, error), caller string, more ...proxyproto.TLV) {
	t.Helper()
	t.Cleanup(func() { at.Close() })
	header := proxyproto.HeaderProxyFromAddrs(2, &net.TCPAddr{IP: net.ParseIP(caller), Port: 40000}, &net.TCPAddr{IP: net.IPv4(10, 9, 0, 4), Port: 443})
	if err := header.SetTLVs(more); err != nil {
		t.Fatal(err)
	}
	first, err := header.Format()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			client, err := at.Accept()
			if err != nil {
				return
			}
			go func() {
				defer client.Close()
				server, err := dial()
				if err != nil {
					return
				}
				defer server.Close()
				if _, err := server.Write(first); err != nil {
					return
				}
				go func() {
					defer server.Close()
					io.Copy(server, client)
				}()
				if _, err := io.Copy(client, server); err != nil {
					link.Abort(client.(*net.TCPConn)) // a reset on one side is one on the other
				}
			}()
		}
	}()
}

// cloud is a server whose network cloud is reached through balancers.
type cloud struct {
	*covetest.Server
	endpoints map[string]string // resource ids of the private endpoints, by registry
	links     string            // the file of --proxy-map
}

func (c *cloud) id(t *testing.T, kind, name string) string {
	t.Helper()
	return c.Cove(t, kind, "show", name, "--query", "id", "-o", "tsv")
}

// newCloud makes two registries with a private endpoint each, which an Azure
// private link leads to and an AWS endpoint.
func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{Server: covetest.Start(t), endpoints: map[string]string{}, links: filepath.Join(t.TempDir(), "links.yaml")}
	c.Cove(t, "vnet", "create", "cloud", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default")
	for _, name := range []string{"alpha", "bravo"} {
		c.Cove(t, "registry", "create", name, "--public-network-enabled", "false", "--admin-enabled")
		c.Cove(t, "private-endpoint", "create", "pe-"+name, "--registry", name, "--subnet", "cloud/default")
		c.endpoints[name] = c.id(t, "private-endpoint", "pe-"+name)
	}
	c.lead(t, "azure:305419896: "+c.endpoints["alpha"], "aws:vpce-0b2a0: "+c.endpoints["bravo"])
	vnet := c.id(t, "vnet", "cloud")
	c.Stop(t)
	c.StartWith(t, "--attach-proxy", vnet, "--proxy-listen", "127.0.0.1:0", "--proxy-from", "127.0.0.1", "--proxy-map", c.links)
	return c
}

// lead writes the file of --proxy-map, whole.
func (c *cloud) lead(t *testing.T, lines ...string) {
	t.Helper()
	if err := os.WriteFile(c.links+".new", []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(c.links+".new", c.links); err != nil {
		t.Fatal(err)
	}
}

// behind is a client in a cloud's network, whose connections a balancer passes
// on.
func (c *cloud) behind(t *testing.T, balancer string, more ...proxyproto.TLV) *http.Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	balance(t, l, balancer, c.Run.Proxy[0], "10.1.0.4", more...)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: c.TLS(t), DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, l.Addr().String())
		},
	}}
}

func loginURL(registry string) string { return "https://" + registry + ".cr.cove.internal/v2/" }

// refusal asks without a credential, wants a 403 and returns how it is
// explained.
func (c *cloud) refusal(t *testing.T, from *http.Client, registry string) string {
	t.Helper()
	status, header, body := get(t, from, loginURL(registry), "", "")
	if status != http.StatusForbidden || !strings.Contains(body, "10.1.0.4") || !strings.Contains(body, "is not allowed access") {
		t.Errorf("%d %s", status, body)
	}
	return c.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id"))
}

// A listed balancer's private link leads to its own private endpoint and to no
// other, whichever name is asked for; one that nobody has mapped, and a
// connection without one, lead nowhere, and are told why. Whoever is not a
// listed balancer gets no word. row:102
func TestPrivateLinksOfAClient(t *testing.T) {
	c := newCloud(t)
	alpha, bravo := c.behind(t, "127.0.0.1", azureLink(0x12345678)), c.behind(t, "127.0.0.1", awsEndpoint("vpce-0b2a0"))

	for _, own := range []struct {
		client          *http.Client
		registry, other string
		words           string
	}{
		{alpha, "alpha", "bravo", "through the balancer 127.0.0.1, as Azure private link 0x12345678"},
		{bravo, "bravo", "alpha", "through the balancer 127.0.0.1, as AWS endpoint vpce-0b2a0"},
	} {
		token := "https://" + own.registry + ".cr.cove.internal/oauth2/token?service=" + own.registry + ".cr.cove.internal"
		status, header, body := get(t, own.client, token, own.registry, c.Password(t, own.registry))
		if status != http.StatusOK {
			t.Fatalf("%s by its own link: %d %s", own.registry, status, body)
		}
		if got := c.Cove(t, "explain", header.Get("X-Ms-Correlation-Request-Id")); !strings.Contains(got, own.words) || !strings.Contains(got, "the private endpoint pe-"+own.registry+" leads here and is Approved") {
			t.Errorf("explained without the way:\n%s", got)
		}
		if got := c.refusal(t, own.client, own.other); !strings.Contains(got, "COVE-NET-006") {
			t.Errorf("%s by the other's link is explained otherwise:\n%s", own.other, got)
		}
	}

	if got := c.refusal(t, c.behind(t, "127.0.0.1", azureLink(7)), "alpha"); !strings.Contains(got, "COVE-NET-031") || !strings.Contains(got, "no private endpoint belongs to Azure private link 0x00000007") {
		t.Errorf("a link that is mapped to nothing is explained otherwise:\n%s", got)
	}
	if got := c.refusal(t, c.behind(t, "127.0.0.1"), "alpha"); !strings.Contains(got, "COVE-NET-032") {
		t.Errorf("a connection without a link is explained otherwise:\n%s", got)
	}
	// Public access does not make a way of it.
	c.Cove(t, "registry", "update", "alpha", "--public-network-enabled", "true")
	if got := c.refusal(t, c.behind(t, "127.0.0.1", azureLink(7)), "alpha"); !strings.Contains(got, "COVE-NET-031") {
		t.Errorf("explained otherwise:\n%s", got)
	}

	_, err := c.behind(t, "127.0.0.2", azureLink(0x12345678)).Get(loginURL("alpha"))
	if err == nil || !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a balancer that is not listed: %v", err)
	}
	// Nothing but registries is behind a private link.
	if status, _, _ := get(t, alpha, "https://management.cove.internal/subscriptions?api-version=2022-12-01", "", ""); status != http.StatusMisdirectedRequest {
		t.Errorf("the Resource Manager by a private link: %d", status)
	}
	// The public listener takes no header from anybody, and the other no
	// connection without one.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	balance(t, l, "127.0.0.1", c.Run.Listen[0], "10.1.0.4", azureLink(0x12345678))
	for what, at := range map[string]string{"a header at the public listener": l.Addr().String(), "no header": c.Run.Proxy[0]} {
		if conn, err := tls.Dial("tcp", at, c.TLS(t)); err == nil {
			t.Errorf("%s: it answers", what)
			conn.Close()
		}
	}
	_, _, metrics := get(t, http.DefaultClient, "http://"+c.Run.Admin+"/metrics", "", "")
	for _, want := range []string{`cove_proxy_refused_total{why="unlisted"} 1`, `cove_proxy_refused_total{why="no header"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}

	out, errs, status := c.Try(t, "join-code", "cloud/default", "--name", "laptop")
	if status == 0 || !strings.Contains(errs, "no machines join it here") {
		t.Errorf("a member of a cloud's network: %d %s%s", status, out, errs)
	}
}

// open is a TLS connection by a private link that has made a request and stays
// open.
func (c *cloud) open(t *testing.T, registry string, more ...proxyproto.TLV) *tls.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	balance(t, l, "127.0.0.1", c.Run.Proxy[0], "10.1.0.4", more...)
	config := c.TLS(t)
	config.ServerName = registry + ".cr.cove.internal"
	conn, err := tls.Dial("tcp", l.Addr().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "GET /v2/ HTTP/1.1\r\nHost: %s\r\n\r\n", config.ServerName)
	if _, err := io.ReadAtLeast(conn, make([]byte, 4096), 12); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ends asserts that a connection ends, long before it is given up for silence.
func ends(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(covetest.Wait / 3)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection goes on")
	}
}

// stays asserts that a connection that ought not to end answers another
// request.
func stays(t *testing.T, conn net.Conn, registry string) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(covetest.Wait)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /v2/ HTTP/1.1\r\nHost: %s.cr.cove.internal\r\n\r\n", registry)
	if _, err := io.ReadAtLeast(conn, make([]byte, 4096), 12); err != nil {
		t.Errorf("another's connection: %v", err)
	}
}

// A rejection ends what is open by the private link, and so does a line that
// the operator takes out of the file; another's connections stand. A file that
// cannot be read changes nothing. row:102
func TestPrivateLinksAreTakenAway(t *testing.T) {
	c := newCloud(t)
	azure, aws := azureLink(0x12345678), awsEndpoint("vpce-0b2a0")
	other := c.open(t, "bravo", aws)

	open := c.open(t, "alpha", azure)
	c.Cove(t, "private-endpoint", "reject", "pe-alpha")
	ends(t, open)
	if got := c.refusal(t, c.behind(t, "127.0.0.1", azure), "alpha"); !strings.Contains(got, "COVE-NET-005") || !strings.Contains(got, "cove private-endpoint approve") {
		t.Errorf("explained otherwise:\n%s", got)
	}
	stays(t, other, "bravo")
	c.Cove(t, "private-endpoint", "approve", "pe-alpha")

	open = c.open(t, "alpha", azure)
	c.lead(t, "azure:305419896: nonsense")
	waitFor(t, func() bool { return strings.Contains(c.Log(), "what it said before stands") })
	stays(t, open, "alpha")
	c.lead(t, "aws:vpce-0b2a0: "+c.endpoints["bravo"], "azure:7: "+strings.Replace(c.endpoints["alpha"], "pe-alpha", "pe-nobody", 1))
	ends(t, open)
	if got := c.refusal(t, c.behind(t, "127.0.0.1", azure), "alpha"); !strings.Contains(got, "COVE-NET-031") {
		t.Errorf("explained otherwise:\n%s", got)
	}
	stays(t, other, "bravo")
	if got := c.Cove(t, "status"); !strings.Contains(got, "COVE-DRIFT-023") || !strings.Contains(got, "azure:0x00000007") {
		t.Errorf("the link that leads nowhere is not told of:\n%s", got)
	}
}

// Security groups have their say about who calls a private endpoint by a
// private link, by the address that the caller has in its own network; a change
// ends what it forbids.
func TestSecurityGroupsOfPrivateLinks(t *testing.T) {
	c := newCloud(t)
	azure := azureLink(0x12345678)
	group := strings.TrimSuffix(registryID(t, c.Server, "alpha"), "/providers/Microsoft.ContainerRegistry/registries/alpha") + "/providers/Microsoft.Network/networkSecurityGroups/walls"
	rule := func(access string) {
		t.Helper()
		put(t, c.Server, group, fmt.Sprintf(`{"location":"local","properties":{"securityRules":[{"name":"one","properties":{"priority":200,"direction":"Inbound","access":%q,
			"protocol":"Tcp","sourceAddressPrefix":"10.1.0.4/32","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"443"}}]}}`, access))
	}
	rule("Allow")
	c.Cove(t, "subnet", "update", "cloud/default", "--security-group", "walls", "--private-endpoint-policies")
	open := c.open(t, "alpha", azure)
	rule("Deny")
	ends(t, open)
	if _, err := c.behind(t, "127.0.0.1", azure).Get(loginURL("alpha")); err == nil {
		t.Error("a caller whom the group denies is answered")
	}
	waitFor(t, func() bool { // it is counted when it has been cut off
		_, _, metrics := get(t, http.DefaultClient, "http://"+c.Run.Admin+"/metrics", "", "")
		return strings.Contains(metrics, `cove_proxy_refused_total{why="forbidden"} 1`)
	})
}

func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(covetest.Wait); !cond(); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("it does not happen")
		}
	}
}

// An attached network that does not exist is told of in the log and in the
// status, and is served when somebody has made it; so is an endpoint whose
// address the operator has not given to the network, which is not served, and
// so are members whose tunnels the attachment has ended.
func TestAttachedNetworksAreLookedAt(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "alpha")
	s.Cove(t, "vnet", "create", "plant", "--address-prefix", "10.77.0.0/16", "--subnet-name", "default")
	plant := s.Cove(t, "vnet", "show", "plant", "--query", "id", "-o", "tsv")
	plan := strings.Replace(plant, "plant", "plan", 1)
	s.Cove(t, "join", "plant/default", "--name", "laptop", "--userspace", "--", "true")
	s.Stop(t)
	s.StartWith(t, "--attach-host", plan+"=127.77.0.0/16", "--attach-host", plant+"=127.78.0.0/16")
	waitFor(t, func() bool { return strings.Contains(s.Log(), "COVE-DRIFT-021") && strings.Contains(s.Log(), plan) })
	if got := s.Cove(t, "status"); !strings.Contains(got, "COVE-DRIFT-021") || !strings.Contains(got, "--attach-host names "+plan+", and there is no such network") {
		t.Errorf("the network that is not there is not told of:\n%s", got)
	}
	const cut = "members of plant that joined by tunnels before --attach-host was given are cut off: 1"
	if got := s.Cove(t, "status"); !strings.Contains(got, "COVE-DRIFT-024") || !strings.Contains(got, cut) {
		t.Errorf("the member that is cut off is not told of:\n%s", got)
	}
	s.Cove(t, "join", "plant/default", "--name", "laptop", "--remove")
	if got := s.Cove(t, "status"); strings.Contains(got, "COVE-DRIFT-024") {
		t.Errorf("the member is gone:\n%s", got)
	}
	s.Cove(t, "vnet", "create", "plan", "--address-prefix", "10.78.0.0/16")
	if got := s.Cove(t, "status"); strings.Contains(got, "COVE-DRIFT-021") {
		t.Errorf("the network has been made:\n%s", got)
	}
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "alpha", "--subnet", "plant/default")
	if got := s.Cove(t, "status"); !strings.Contains(got, "COVE-DRIFT-022") || !strings.Contains(got, "of plant lies in no range that --attach-host gives to the network") {
		t.Errorf("the address outside is not told of:\n%s", got)
	}
}

// What `cove can` says of a machine in a network without a tunnel is what such a
// machine gets: in a cloud by the private link that leads to the endpoint, at
// the server's own addresses by the network's names and security groups.
// row:104 row:102
func TestWhatAttachedNetworksWouldGet(t *testing.T) {
	c := newCloud(t)
	expect := func(when, want string, args ...string) access.Explanation {
		t.Helper()
		e, _ := could(t, c.Server, args...)
		if got := e.Verdict + " " + string(e.Reason); got != want {
			t.Errorf("%s: %s, want %s: %+v", when, got, want, e.Steps)
		}
		return e
	}
	pull := func(registry, from string, more ...string) []string {
		return append([]string{"admin", "pull", "team/app", "--registry", registry, "--from", from}, more...)
	}
	e := expect("by a private link", "ALLOWED ", pull("alpha", "cloud/default")...)
	if text := fmt.Sprint(e.Steps); !strings.Contains(text, "through a balancer, as Azure private link 0x12345678") {
		t.Errorf("by another way: %s", text)
	}
	alpha := c.behind(t, "127.0.0.1", azureLink(0x12345678))
	if status, _, body := get(t, alpha, loginURL("alpha"), "alpha", c.Password(t, "alpha")); status != http.StatusOK {
		t.Errorf("can allows it, and it is answered %d %s", status, body)
	}
	c.Cove(t, "private-endpoint", "reject", "pe-alpha")
	expect("rejected", "DENIED COVE-NET-005", pull("alpha", "cloud/default")...)
	if got := c.refusal(t, alpha, "alpha"); !strings.Contains(got, "COVE-NET-005") {
		t.Errorf("enforcement says otherwise:\n%s", got)
	}
	c.Cove(t, "private-endpoint", "approve", "pe-alpha")
	c.Cove(t, "registry", "create", "third", "--admin-enabled", "--public-network-enabled", "false")
	expect("no endpoint there", "UNKNOWN COVE-PATH-006", pull("third", "cloud/default")...)
	expect("no endpoint there, and the address outside", "DENIED COVE-NET-001", pull("third", "cloud/default", "--address", "203.0.113.9")...)
	c.Cove(t, "private-endpoint", "create", "pe-third", "--registry", "third", "--subnet", "cloud/default")
	expect("no link there", "DENIED COVE-NET-031", pull("third", "cloud/default")...)

	// Security groups are asked about the address that calls.
	walls := strings.TrimSuffix(c.id(t, "vnet", "cloud"), "virtualNetworks/cloud") + "networkSecurityGroups/walls"
	put(t, c.Server, walls, `{"location":"local","properties":{"securityRules":[{"name":"one","properties":{"priority":200,"direction":"Inbound","access":"Deny","protocol":"Tcp",
		"sourceAddressPrefix":"10.1.0.0/24","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"443"}},
		{"name":"two","properties":{"priority":300,"direction":"Inbound","access":"Allow","protocol":"*",
		"sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"*"}}]}}`)
	c.Cove(t, "subnet", "update", "cloud/default", "--security-group", "walls", "--private-endpoint-policies")
	expect("from where nobody knows", "UNKNOWN COVE-PATH-006", pull("alpha", "cloud/default")...)
	e = expect("what a group denies", "DENIED COVE-PATH-005", pull("alpha", "cloud/default", "--address", "10.1.0.4")...)
	if text := fmt.Sprint(e.Steps); !strings.Contains(text, "the rule one of the network security group walls denies") {
		t.Errorf("the rule is not named: %s", text)
	}
	if resp, err := alpha.Get(loginURL("alpha")); err == nil {
		resp.Body.Close()
		t.Errorf("enforcement lets it in: %s", resp.Status)
	}
	expect("what it lets pass", "ALLOWED ", pull("alpha", "cloud/default", "--address", "10.2.0.4")...)

	// Another network, as addresses of this machine, where names are our own.
	c.Cove(t, "vnet", "create", "plant", "--address-prefix", "10.77.0.0/16", "--subnet-name", "default")
	plant := c.id(t, "vnet", "plant")
	c.Stop(t)
	c.StartWith(t, "--attach-host", plant+"=10.77.0.0/16", "--attach-host-dns", plant+"=127.79.0.2")
	c.Cove(t, "private-endpoint", "create", "pe-plant", "--registry", "alpha", "--subnet", "plant/default")
	c.Cove(t, "dns", "zone", "create", "privatelink.cr.cove.internal")
	c.Cove(t, "dns", "link", "add", "privatelink.cr.cove.internal", "--vnet", "plant")
	expect("without a record", "DENIED COVE-DNS-006", pull("alpha", "plant/default", "--address", "10.2.0.4")...)
	c.Cove(t, "dns", "record", "add", "privatelink.cr.cove.internal", "alpha", "10.77.0.4")
	e = expect("with one", "ALLOWED ", pull("alpha", "plant/default", "--address", "10.2.0.4")...)
	if text := fmt.Sprint(e.Steps); !strings.Contains(text, "at this machine's address 10.77.0.4") {
		t.Errorf("by another way: %s", text)
	}
	c.Cove(t, "subnet", "update", "plant/default", "--security-group", "walls", "--private-endpoint-policies")
	expect("what a group denies there", "DENIED COVE-PATH-005", pull("alpha", "plant/default", "--address", "10.1.0.4")...)
}

// Flags that cannot be obeyed are refused at the start, in words.
func TestAttachmentsThatAreRefused(t *testing.T) {
	const vnet = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/cove/providers/Microsoft.Network/virtualNetworks/"
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--attach-host", "office=10.77.0.0/16"}, "expected the resource id of a virtual network"},
		{[]string{"--attach-host", vnet + "office"}, "expected VNET=RANGE"},
		{[]string{"--attach-host", vnet + "office=10.77.0.1/16"}, "expected VNET=RANGE"},
		{[]string{"--attach-host", vnet + "a=10.77.0.0/16", "--attach-host", vnet + "b=10.77.8.0/24"}, "10.77.8.0/24 of b overlaps 10.77.0.0/16 of a"},
		{[]string{"--attach-host", vnet + "a=10.77.0.0/16", "--listen", "0.0.0.0:443"}, "the public side listens at 0.0.0.0:443, which takes the endpoints' addresses too"},
		{[]string{"--attach-host", vnet + "a=127.77.0.0/16", "--listen", "127.77.0.9:8443"}, "--listen 127.77.0.9:8443 lies in 127.77.0.0/16"},
		{[]string{"--attach-host-dns", vnet + "a=168.63.129.16"}, "--attach-host names no such network"},
		{[]string{"--attach-host", vnet + "a=10.1.0.0/16", "--attach-host", vnet + "b=10.2.0.0/16", "--attach-host-dns", vnet + "a=168.63.129.16", "--attach-host-dns", vnet + "b=168.63.129.16"}, "168.63.129.16 answers for"},
		{[]string{"--attach-host", vnet + "a=10.1.0.0/16", "--attach-proxy", vnet + "A"}, "A is attached already"},
		{[]string{"--proxy-listen", "127.0.0.1:0"}, "--proxy-listen needs --proxy-from"},
		{[]string{"--proxy-from", "10.0.0.0/8"}, "need --proxy-listen"},
		{[]string{"--proxy-listen", "127.0.0.1:0", "--proxy-from", "0.0.0.0/0", "--proxy-map", "x", "--attach-proxy", vnet + "a"}, "whoever is listed is believed about who calls"},
	} {
		s := &covetest.Server{Data: t.TempDir()}
		args := append([]string{"serve", "--data", s.Data}, c.args...)
		if !strings.Contains(strings.Join(c.args, " "), "--listen ") {
			args = append(args, "--listen", "127.0.0.1:0")
		}
		_, errs, status := s.Try(t, args...)
		if status != 2 || !strings.Contains(errs, c.want) {
			t.Errorf("%v: exit status %d, %s; want %q", c.args, status, errs, c.want)
		}
	}
}
