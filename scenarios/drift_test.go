package scenarios

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/covetest"
	"cove.example/cove/drift"
	"cove.example/cove/reason"
)

// findings are the server's own, what breaks first in front.
func findings(t *testing.T, s *covetest.Server) []drift.Finding {
	t.Helper()
	var out struct{ Findings []drift.Finding }
	if err := json.Unmarshal([]byte(s.Cove(t, "status", "-o", "json")), &out); err != nil {
		t.Fatal(err)
	}
	return out.Findings
}

// watched are findings by code.
func watched(t *testing.T, s *covetest.Server) map[reason.Code]drift.Finding {
	t.Helper()
	found := map[reason.Code]drift.Finding{}
	for _, f := range findings(t, s) {
		found[f.Code] = f
	}
	return found
}

// run runs a command that was printed.
func run(t *testing.T, s *covetest.Server, command string) {
	t.Helper()
	if !strings.HasPrefix(command, "cove ") {
		t.Fatalf("%q is no command of cove", command)
	}
	cmd := exec.Command("sh", "-ec", `cove() { "`+covetest.Binary(t)+`" "$@"; }; `+command)
	cmd.Env = s.Env()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
}

// The server finds what is wrong before anybody asks, says when it breaks, and
// the command that it prints puts it right. row:107 row:52
func TestTheServerFindsWhatWillBreak(t *testing.T) {
	s := joined(t)
	const zone = "privatelink.cr.cove.internal"
	if found := watched(t, s); len(found) != 0 {
		t.Errorf("nothing is wrong, and it says %+v", found)
	}
	for _, c := range []struct {
		name   string
		break_ [][]string
		code   reason.Code
		says   string
		mend   bool // the printed command mends it
	}{
		{"a record is missing", [][]string{{"dns", "record", "remove", zone, "myregistry.local.data"}}, reason.PrivateNoRecord, "myregistry.local.data.cr.cove.internal does not exist", true},
		{"a record is stale", [][]string{{"dns", "record", "add", zone, "myregistry", "10.0.0.77"}}, reason.NameElsewhere, "leads to", true},
		{"the link is gone", [][]string{{"dns", "link", "remove", zone, "office"}}, reason.NamePublic, "public address", true},
		{"a network without an endpoint sees the zone", [][]string{
			{"vnet", "create", "lab", "--address-prefix", "10.9.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.9.0.0/24"},
			{"dns", "record", "remove", zone, "myregistry"},
			{"dns", "link", "add", zone, "--vnet", "lab"},
		}, reason.StaleLink, "no private endpoint of myregistry lies there", true},
		{"a connection waits", [][]string{
			{"registry", "create", "harbour"},
			{"private-endpoint", "create", "waiting", "--registry", "harbour", "--subnet", "office/default", "--manual-request"},
		}, reason.WaitsForOwner, "harbour", true},
		{"a rule that can match nothing", [][]string{
			{"registry", "create", "depot"}, {"network-rule", "add", "depot", "203.0.113.0/24"}, {"network-rule", "add", "depot", "203.0.113.9"},
		}, reason.RuleIdle, "lies within 203.0.113.0/24", true},
		{"a connection was rejected", [][]string{{"private-endpoint", "reject", "waiting", "--registry", "harbour"}}, reason.EndpointRejected, "harbour", true},
		{"a connection was removed", [][]string{{"registry", "delete", "harbour"}}, reason.EndpointDead, "cut off from harbour for good", true},
		{"rules that nothing gets as far as", [][]string{
			{"registry", "create", "granary"}, {"network-rule", "add", "granary", "203.0.113.0/24"}, {"registry", "update", "granary", "--public-network-enabled", "false"},
		}, reason.RulesIdle, "its public access is disabled", true},
		{"a role that does not count", [][]string{
			{"registry", "create", "vault"},
			{"principal", "create", "puller", "--role", "AcrPull", "--registry", "vault"},
			{"registry", "update", "vault", "--role-assignment-mode", "rbac-abac"},
		}, reason.RoleIdle, "ABAC mode", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, args := range c.break_ {
				s.Cove(t, args...)
			}
			f, ok := watched(t, s)[c.code]
			if !ok || !strings.Contains(f.Says, c.says) || !f.Now {
				t.Fatalf("it says %+v of %+v", f, watched(t, s))
			}
			run(t, s, f.Cure)
			s.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe")
			if f, ok := watched(t, s)[c.code]; ok {
				t.Errorf("mended by %q, and it says %+v", f.Cure, f)
			}
		})
	}
}

// A private endpoint was made and its names forgotten: what is printed makes
// the zone, links it and gives it its records. What comes and goes is counted
// for the metrics. row:107
func TestWhatWasForgottenIsMadeByTheCure(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry")
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "myregistry", "--subnet", "office/default")
	found := watched(t, s)
	f, ok := found[reason.NamePublic]
	if _, data := found[reason.DataNamePublic]; !ok || !data {
		t.Fatalf("it says %+v", found)
	}
	run(t, s, f.Cure)
	if found := watched(t, s); len(found) != 0 {
		t.Errorf("mended by %q, and it says %+v", f.Cure, found)
	}
}

// Credentials that end within two weeks are told of, with the day on which what
// uses them breaks and the command that makes the next; those that end later
// are not. row:107
func TestCredentialsThatEndAreTold(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry")
	s.Cove(t, "principal", "create", "later", "--days", "30")
	if found := watched(t, s); len(found) != 0 {
		t.Errorf("nothing ends soon, and it says %+v", found)
	}
	var short struct{ ClientID, KeyID string }
	if err := json.Unmarshal([]byte(s.Cove(t, "principal", "create", "short", "--days", "7", "-o", "json")), &short); err != nil {
		t.Fatal(err)
	}
	f := watched(t, s)[reason.CredentialEnds]
	if left := time.Until(f.Breaks); f.Now || left > 7*24*time.Hour || left < 6*24*time.Hour || !strings.Contains(f.Says, short.ClientID) {
		t.Errorf("it says %+v", f)
	}
	run(t, s, f.Cure) // the next one; the old one is ended by whoever has put it in its place
	var secrets []struct{ KeyID string }
	if err := json.Unmarshal([]byte(s.Cove(t, "principal", "secret", "list", "short", "-o", "json")), &secrets); err != nil || len(secrets) != 2 {
		t.Fatalf("%v %+v", err, secrets)
	}

	s.Cove(t, "token", "create", "robot", "--registry", "myregistry", "--scope-map", "_repositories_pull", "--days", "3")
	told := 0
	for _, f := range findings(t, s) {
		if strings.Contains(f.Says, "of the token robot of myregistry") {
			told++
			run(t, s, f.Cure) // a password without an end
		}
	}
	if told != 2 {
		t.Errorf("%d of two passwords are told of", told)
	}
	for _, f := range findings(t, s) {
		if strings.Contains(f.Says, "robot") {
			t.Errorf("renewed, and it says %+v", f)
		}
	}
}

// mended runs a finding's cure, if it is a command, and waits until it is told
// of no more.
func mended(t *testing.T, s *covetest.Server, f drift.Finding) {
	t.Helper()
	if f.Command {
		run(t, s, f.Cure)
	}
	deadline := time.Now().Add(covetest.Wait)
	for {
		left, ok := watched(t, s)[f.Code]
		if !ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("mended by %q, and it says %+v", f.Cure, left)
		}
	}
}

// Rules for subnets from before a private endpoint, and those that can match
// nothing because the subnet has no service endpoint: each is told of, and the
// command that is printed ends it. row:107
func TestSubnetRulesWithoutEffect(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--default-action", "Deny")
	for _, network := range []string{"office", "lab"} {
		s.Cove(t, "vnet", "create", network, "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
		s.Cove(t, "subnet", "update", network+"/default", "--service-endpoint")
		s.Cove(t, "network-rule", "add", "myregistry", "--subnet", network+"/default")
	}
	if found := watched(t, s); len(found) != 0 {
		t.Errorf("nothing is wrong, and it says %+v", found)
	}
	s.Cove(t, "subnet", "update", "lab/default", "--service-endpoint=false")
	f, ok := watched(t, s)[reason.RuleIdle]
	if !ok || !strings.Contains(f.Says, "lab/default") || !strings.Contains(f.Says, "no service endpoint") || len(findings(t, s)) != 1 {
		t.Fatalf("it says %+v", findings(t, s))
	}
	mended(t, s, f)
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "myregistry", "--subnet", "office/default", "--manual-request")
	f, ok = watched(t, s)[reason.RulesAndEndpoint]
	if !ok || !strings.Contains(f.Says, "2 subnet rules and the private endpoint pe") || !f.Command {
		t.Fatalf("it says %+v", findings(t, s))
	}
	mended(t, s, f)
	if out := s.Cove(t, "network-rule", "list", "myregistry", "-o", "json"); strings.Contains(out, "/subnets/") {
		t.Errorf("a rule is left: %s", out)
	}
}

// Two networks see one zone, and one registry has a private endpoint in each:
// the name leads one of them to the other's address. A zone for each is the
// cure. row:107 row:52
func TestTwoEndpointsShareAName(t *testing.T) {
	s := joined(t)
	const zone = "privatelink.cr.cove.internal"
	s.Cove(t, "vnet", "create", "lab", "--address-prefix", "10.9.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.9.0.0/24")
	s.Cove(t, "dns", "link", "add", zone, "--vnet", "lab")
	s.Cove(t, "private-endpoint", "create", "pe-lab", "--registry", "myregistry", "--subnet", "lab/default", "--zone", zone)
	f, ok := watched(t, s)[reason.EndpointClash]
	if !ok || !strings.Contains(f.Says, "leads to") || f.Command || !strings.Contains(f.Cure, "Give each network a zone of its own") {
		t.Fatalf("it says %+v", findings(t, s))
	}
	s.Cove(t, "dns", "link", "remove", zone, "lab")
	s.Cove(t, "private-endpoint", "delete", "pe-lab")
	s.Cove(t, "dns", "record", "sync", "--private-endpoint", "pe")
	s.Cove(t, "private-endpoint", "create", "pe-lab", "--registry", "myregistry", "--subnet", "lab/default")
	p, err := client.FromData(s.Data)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(p)
	if err != nil {
		t.Fatal(err)
	}
	group := func(name string) string { return c.Scope() + "/resourceGroups/" + name }
	network := func(kind string) string { return group("cove") + "/providers/Microsoft.Network/" + kind }
	own := group("labs") + "/providers/Microsoft.Network/privateDnsZones/" + zone
	for _, made := range []struct {
		id   string
		body client.Object
	}{
		{group("labs"), client.Object{"location": "local"}},
		{own, client.Object{"location": "global"}},
		{own + "/virtualNetworkLinks/lab", client.Object{"location": "global", "properties": client.Object{
			"registrationEnabled": false, "virtualNetwork": client.Object{"id": network("virtualNetworks/lab")},
		}}},
		{network("privateEndpoints/pe-lab/privateDnsZoneGroups/default"), client.Object{"properties": client.Object{"privateDnsZoneConfigs": []any{
			client.Object{"name": "cr", "properties": client.Object{"privateDnsZoneId": own}},
		}}}},
	} {
		if _, err := c.Put(t.Context(), made.id, made.body); err != nil {
			t.Fatalf("%s: %v", made.id, err)
		}
	}
	mended(t, s, f)
	if found := watched(t, s); len(found) != 0 {
		t.Errorf("mended, and it says %+v", found)
	}
}

// The operator's certificate that ends within a month is told of with its day;
// one that is put in its place is taken up without a restart. row:107
func TestACertificateThatEnds(t *testing.T) {
	cert, key := operatorPair(t, t.TempDir()) // for an hour
	s := covetest.Start(t, "--tls-cert", cert, "--tls-key", key)
	f, ok := watched(t, s)[reason.CertificateEnds]
	if left := time.Until(f.Breaks); !ok || f.Now || left > time.Hour || left < 50*time.Minute || !strings.Contains(f.Says, "own.example") {
		t.Fatalf("it says %+v", findings(t, s))
	}
	must(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", cert,
		"-subj", "/CN=own", "-addext", "subjectAltName=DNS:own.example", "-days", "90")
	mended(t, s, f)
}

// What the server finds by itself stands in the activity log, for whoever may
// read it, with the words and the cure. row:107
func TestFindingsAreInTheActivityLog(t *testing.T) {
	s := joined(t)
	s.Cove(t, "dns", "record", "remove", "privatelink.cr.cove.internal", "myregistry.local.data")
	s.Stop(t)
	s.Start(t) // it looks when it starts
	p, err := client.FromData(s.Data)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(p)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(covetest.Wait)
	for {
		list, err := c.List(t.Context(), c.Scope()+"/providers/Microsoft.Insights/eventtypes/management/values?$filter="+url.QueryEscape("status eq 'Active'"))
		if err != nil {
			t.Fatal(err)
		}
		if len(list) > 0 {
			text, err := json.Marshal(list[0])
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{string(reason.PrivateNoRecord), "myregistry.local.data.cr.cove.internal does not exist", "cove dns record sync --private-endpoint pe", "ResourceHealth", "/privateendpoints/pe"} {
				if !strings.Contains(string(text), want) {
					t.Errorf("%q is not in %s", want, text)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is told")
		}
	}
}

// A zone's link hides one registry from a network and leads another one's
// clients to its private endpoint: the cure does not take that away.
func TestAStaleLinkThatAnotherRegistryNeeds(t *testing.T) {
	const zone = "privatelink.cr.cove.internal"
	s := covetest.Start(t)
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	s.Cove(t, "dns", "zone", "create", zone)
	s.Cove(t, "dns", "link", "add", zone, "--vnet", "office")
	for _, name := range []string{"harbor", "granary"} {
		s.Cove(t, "registry", "create", name)
		s.Cove(t, "private-endpoint", "create", "pe-"+name, "--registry", name, "--subnet", "office/default", "--zone", zone)
	}
	s.Cove(t, "private-endpoint", "delete", "pe-granary")
	f, ok := watched(t, s)[reason.StaleLink]
	if !ok || !strings.Contains(f.Says, "granary.cr.cove.internal does not exist") {
		t.Fatalf("%+v", watched(t, s))
	}
	run(t, s, f.Cure)
	if got := watched(t, s); len(got) > 0 {
		t.Errorf("mended by %q: %+v", f.Cure, got)
	}
	for _, name := range []string{"harbor", "granary"} {
		if out, _, _ := s.Try(t, "can", "anonymous", "pull", "x", "--registry", name, "--from", "office/default"); !strings.Contains(out, "answered by the linked zone") {
			t.Errorf("%s:\n%s", name, out)
		}
	}
}

// A rule for addresses inside a virtual network admits nobody; one for a
// machine beside the server admits it, and nothing tells to take it away.
func TestRulesForPrivateAddresses(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	s.Cove(t, "registry", "create", "harbor", "--default-action", "Deny")
	get := func() *http.Response {
		resp, err := s.Outside(t).Get("https://harbor.cr.cove.internal/v2/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp
	}
	refused := get()
	var e access.Explanation
	deadline := time.Now().Add(covetest.Wait)
	for e.ID == "" && time.Now().Before(deadline) {
		if out, _, status := s.Try(t, "explain", refused.Header.Get("X-Ms-Correlation-Request-Id"), "-o", "json"); status == 0 {
			if err := json.Unmarshal([]byte(out), &e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if refused.StatusCode != http.StatusForbidden || len(e.Fixes) != 1 || e.Fixes[0].Command != "cove network-rule add harbor 127.0.0.1" {
		t.Fatalf("status %d, %+v", refused.StatusCode, e)
	}
	run(t, s, e.Fixes[0].Command)
	if got := get().StatusCode; got != http.StatusUnauthorized {
		t.Errorf("with its rule: %d", got)
	}
	if got := watched(t, s); len(got) > 0 {
		t.Errorf("a rule that admits somebody: %+v", got)
	}
	s.Cove(t, "network-rule", "add", "harbor", "10.0.0.6")
	if f := watched(t, s)[reason.RuleIdle]; f.Command || !strings.Contains(f.Says, "10.0.0.6/32 of harbor names addresses inside office") {
		t.Errorf("%+v", f)
	}
}
