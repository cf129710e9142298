package access

import (
	"encoding/json"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
)

// A decision shows each viewer what is theirs to see. The one whom it was about
// learns what was refused and why; the registry's rules, assignments,
// conditions and endpoints are its owner's. The attack: a caller maps a
// registry's defences from its own refusals.
func TestViewersAndFields(t *testing.T) {
	assigned := &policy.Assignment{
		ID: arm.MustID(harborID.String() + "/providers/Microsoft.Authorization/roleAssignments/99999999-9999-4999-8999-999999999999"), Scope: harborID,
		Principal: ci, Role: policy.BuiltinByName("AcrPull"),
	}
	who := Identity{ObjectID: ci, Name: "ci-app", Kind: KindServicePrincipal, Tenant: "t"}
	for _, c := range []struct {
		name  string
		facts Facts
		owner []string // in what the owner reads
		own   []string // in what the subject reads too
	}{
		{
			"a role that does not allow it",
			Facts{Roles: []*policy.Assignment{assigned}, Ask: Ask{Want: []Scope{appPush}}},
			[]string{"99999999", "AcrPull at ", "role assign"},
			[]string{"COVE-PERM-001", "team/app", "ci-app", "203.0.113.9"},
		},
		{
			"through a private endpoint, in the other mode",
			Facts{
				Roles: []*policy.Assignment{assigned}, Endpoint: endpoint("Approved", harborID), Ask: Ask{Want: []Scope{app}, Origin: inside("10.0.0.4")},
				Registry: harbor(func(s *registry.Settings) { s.Mode = registry.AbacMode }),
			},
			[]string{"privateEndpointConnections/c1", "99999999"},
			[]string{"COVE-PERM-011"},
		},
		{
			"a rule admitted it",
			Facts{Registry: harbor(rules("203.0.113.0/28")), Ask: Ask{Want: []Scope{app}}},
			[]string{"203.0.113.0/28"},
			[]string{"COVE-PERM-002"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := c.facts
			if f.Registry == nil {
				f.Registry = harbor()
			}
			if f.Ask.Origin.Remote.Port() == 0 {
				f.Ask.Origin = outside("203.0.113.9")
			}
			f.Ask.ID, f.Ask.Host, f.Ask.Operation = id, host, "ManifestGet"
			f.Proof = Proof{Method: ByPassword, Identity: who}
			v := Decide(f)
			if v.Allow {
				t.Fatal("allowed")
			}
			e := audit.Event{ID: id, Operation: "ManifestGet", Status: 401, Detail: detail(v)}
			full, err := Explain(e)
			if err != nil {
				t.Fatal(err)
			}
			mine, err := ExplainToSubject(e)
			if err != nil {
				t.Fatal(err)
			}
			owner, subject := text(t, full), text(t, mine)
			for _, s := range c.owner {
				if !strings.Contains(owner, s) {
					t.Errorf("the owner is not told %q:\n%s", s, owner)
				}
				if strings.Contains(subject, s) {
					t.Errorf("the subject is told %q:\n%s", s, subject)
				}
			}
			for _, s := range c.own {
				if !strings.Contains(subject, s) {
					t.Errorf("the subject is not told %q:\n%s", s, subject)
				}
			}
			if SubjectOf(e) != ci {
				t.Errorf("the decision is about %q", SubjectOf(e))
			}
			// Nobody else is the subject: a caller whom the network refused has
			// proved nothing, whatever it claimed.
			f.Registry = harbor(closed)
			f.Endpoint = (*network.Endpoint)(nil)
			f.Ask.Origin = outside("203.0.113.9")
			if got := SubjectOf(audit.Event{Detail: detail(Decide(f))}); got != "" {
				t.Errorf("a caller that the network refused is the subject: %q", got)
			}
			if strings.Contains(v.Public, "99999999") || strings.Contains(v.Public, "203.0.113.0/28") {
				t.Errorf("the refusal itself says %q", v.Public)
			}
		})
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
