package scenarios

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"cove.example/cove/covetest"
	"cove.example/cove/drift"
	"cove.example/cove/reason"
)

// watched are the server's own findings by code.
func watched(t *testing.T, s *covetest.Server) map[reason.Code]drift.Finding {
	t.Helper()
	var out struct{ Findings []drift.Finding }
	if err := json.Unmarshal([]byte(s.Cove(t, "status", "-o", "json")), &out); err != nil {
		t.Fatal(err)
	}
	found := map[reason.Code]drift.Finding{}
	for _, f := range out.Findings {
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
	cmd := exec.Command("sh", "-ec", covetest.Binary(t)+strings.TrimPrefix(command, "cove"))
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
