package access

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// pier is a virtual machine in a subnet with a service endpoint.
var pier = &network.Member{
	Subnet: arm.MustID(office + "/subnets/pier"), SubnetKey: office + "/subnets/pier",
	Address: netip.MustParseAddr("10.0.0.20"), Kind: "vm", Service: true, Served: true,
}

func member(kind string, service bool) *network.Member {
	m := *pier
	m.Kind, m.Service, m.Served = kind, service, kind == "vm" || kind == "aks" || kind == "agentpool"
	return &m
}

func subnets(keys ...string) func(*registry.Settings) {
	return func(s *registry.Settings) {
		s.DefaultAllow, s.Subnets = false, map[string]int{}
		for i, k := range keys {
			s.Subnets[k] = i + 1
		}
	}
}

// A caller inside a network is who its subnet is. row:8 row:12 row:13
func TestServiceEndpoints(t *testing.T) {
	named := subnets("another", pier.SubnetKey)
	const noRule = "COVE-NET-021 rules: the default action is Deny; 1 subnet rule was tried, none names pier"
	for _, c := range []struct {
		name string
		m    *network.Member
		reg  *registry.Settings
		want string
	}{
		{"a rule names the subnet", pier, harbor(named), "allowed"},
		{"a node of a cluster", member("aks", true), harbor(named), "allowed"},
		{"an agent of a dedicated pool", member("agentpool", true), harbor(named), "allowed"},
		{"no rule at all", pier, harbor(subnets()), "COVE-NET-021 rules: the default action is Deny and there is no rule for a subnet"},
		{"a rule names another subnet", pier, harbor(subnets("another")), noRule},
		{"a container instance", member("aci", true), harbor(named), "COVE-NET-022 rules: virtualNetworkRules[1] names the subnet pier, and the caller is of kind aci, which service endpoints do not serve"},
		{"an app service", member("appservice", true), harbor(named), "COVE-NET-022 rules: virtualNetworkRules[1] names the subnet pier, and the caller is of kind appservice, which service endpoints do not serve"},
		{"a rule, and no service endpoint", member("vm", false), harbor(named), "COVE-NET-023 rules: the default action is Deny, and the subnet pier has no service endpoint for registries"},
		{"a stranger in the network", nil, harbor(named), "COVE-NET-023 rules: the default action is Deny, and the caller inside the virtual network has no service endpoint"},
		{"open to all", member("aci", false), harbor(), "allowed"},
		{"public access off ends it", pier, harbor(named, closed), "COVE-NET-001 public access: public access is disabled"},
		{"public access off ends it for all", pier, harbor(closed), "COVE-NET-001 public access: public access is disabled"},
		// Whoever makes a network chooses its addresses.
		{"an address that a rule is for", pier, harbor(rules("10.0.0.20/32")), "COVE-NET-021 rules: the default action is Deny and there is no rule for a subnet"},
	} {
		f := Facts{Ask: Ask{ID: id, Origin: inside("100.100.100.100"), Host: host}, Registry: c.reg, Member: c.m, Proof: Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}}
		if c.m != nil {
			f.Subnet = c.m.Subnet.String()
		}
		v := Decide(f)
		if got := sentence(v); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if c.m != nil && c.m.Service && v.Steps()[0].Why != "inside the virtual network office, through the service endpoint of the subnet pier" {
			t.Errorf("%s: arrived %q", c.name, v.Steps()[0].Why)
		}
	}
}

// The fix of a subnet that no rule names is such a rule, and it cures.
func TestSubnetFixesCure(t *testing.T) {
	for _, c := range []struct {
		m    *network.Member
		want string
	}{
		{pier, "cove network-rule add harbor --subnet office/pier"},
		{member("vm", false), "cove subnet update office/pier --service-endpoint && cove network-rule add harbor --subnet office/pier"},
	} {
		f := Facts{
			Ask: Ask{ID: id, Origin: inside("100.100.100.100"), Host: host}, Registry: harbor(subnets()), Member: c.m, Subnet: c.m.Subnet.String(),
			Proof: Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}},
		}
		got, err := Explain(audit.Event{Detail: detail(Decide(f))})
		if err != nil || len(got.Fixes) != 2 || got.Fixes[0].Command != c.want || got.Fixes[0].Needs == "" {
			t.Fatalf("%+v, %v", got.Fixes, err)
		}
		f.Registry, f.Member = harbor(subnets(pier.SubnetKey)), pier
		if v := Decide(f); !v.Allow {
			t.Errorf("after the fix: %s", sentence(v))
		}
	}
}

const robot = "22222222-2222-4222-8222-222222222222" // servicePrincipal's object id

// scanners is the built-in table with identities that are the scanner's.
func scanners(ids ...string) *Trusted {
	return parsed("services:\n- name: defender\n  identities: [" + strings.Join(ids, ", ") + "]\n")
}

func parsed(text string) *Trusted {
	t, err := ParseTrusted(strings.NewReader(text))
	if err != nil {
		panic(err)
	}
	return t
}

func bypass(s *registry.Settings) { s.Bypass = true }

// A trusted service passes the rules of a registry that lets it, as who it
// proves to be and with a role. row:23 row:24 row:25 row:99
func TestTrustedServices(t *testing.T) {
	managed := servicePrincipal(nil)
	managed.Identity.Managed = true
	tasks := parsed("services: [{name: tasks, identities: [" + ci + "]}]")
	const off, aci, scanner = "COVE-NET-001 public access: public access is disabled", "Azure Container Instances", "Microsoft Defender for Cloud"
	distrust := func(name, why string) string {
		return off + "; it does not help that the caller is the trusted service " + name + ": " + why
	}
	for _, c := range []struct {
		name  string
		from  link.Origin
		m     *network.Member
		reg   *registry.Settings
		table *Trusted
		proof Proof
		roles string
		want  string
	}{
		{"the scanner", outside("203.0.113.9"), nil, harbor(closed, bypass), scanners(ci), servicePrincipal(nil), "AcrPull", "allowed"},
		{"the scanner by its object id", outside("203.0.113.9"), nil, harbor(rules(), bypass), scanners(robot), servicePrincipal(nil), "AcrPull", "allowed"},
		{"the scanner, bypass None", outside("203.0.113.9"), nil, harbor(closed), scanners(ci), servicePrincipal(nil), "AcrPull", off},
		{"the scanner without a role", outside("203.0.113.9"), nil, harbor(closed, bypass), scanners(ci), servicePrincipal(nil), "", distrust(scanner, "its identity holds no role here")},
		{"the scanner where subnets are named", outside("203.0.113.9"), nil, harbor(subnets("another"), closed, bypass), scanners(ci), servicePrincipal(nil), "AcrPull", off},
		{"a scanner that proves nothing", outside("203.0.113.9"), nil, harbor(closed, bypass), scanners(ci), Proof{Method: ByNothing}, "", off},
		{"a wrong secret of the scanner's", outside("203.0.113.9"), nil, harbor(closed, bypass), scanners(ci), Proof{Method: ByPassword, Failure: reason.WrongCredential, Claimed: ci}, "", off},
		{"somebody else with a role", outside("203.0.113.9"), nil, harbor(closed, bypass), scanners("44444444-4444-4444-8444-444444444444"), servicePrincipal(nil), "Owner", off},
		{"the admin user", outside("203.0.113.9"), nil, harbor(closed, bypass), scanners(ci), Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}, "", off},
		{"no table", outside("203.0.113.9"), nil, harbor(closed, bypass), nil, servicePrincipal(nil), "Owner", off},

		{"a container instance with its identity", inside("100.100.100.100"), member("aci", false), harbor(closed, bypass), NewTrusted(), managed, "AcrPull", "allowed"},
		{"a container instance with an application's", inside("100.100.100.100"), member("aci", false), harbor(closed, bypass), NewTrusted(), servicePrincipal(nil), "AcrPull", distrust(aci, "it must come as a managed identity, or as one that the operator has listed")},
		{"a container instance with nothing", inside("100.100.100.100"), member("aci", false), harbor(closed, bypass), NewTrusted(), Proof{Method: ByNothing}, "", distrust(aci, "no identity was proved")},
		{"a container instance, bypass None", inside("100.100.100.100"), member("aci", false), harbor(closed), NewTrusted(), managed, "AcrPull", distrust(aci, "the registry's networkRuleBypassOptions is None")},
		{"an app service is on no list", inside("100.100.100.100"), member("appservice", false), harbor(closed, bypass), NewTrusted(), managed, "AcrPull", off},
		{"a virtual machine is on no list", inside("100.100.100.100"), pier, harbor(closed, bypass), NewTrusted(), managed, "AcrPull", off},
		{"a container instance in a subnet that a rule names", inside("100.100.100.100"), member("aci", true), harbor(subnets(pier.SubnetKey), bypass), NewTrusted(), managed, "AcrPull", "COVE-NET-022 rules: virtualNetworkRules[0] names the subnet pier, and the caller is of kind aci, which service endpoints do not serve; it does not help that the caller is the trusted service " + aci + ": the registry is restricted by subnet rules, which nothing bypasses"},
		{"a container instance at a pending endpoint", inside("10.0.0.7"), member("aci", false), harbor(closed, bypass), NewTrusted(), managed, "AcrPull", "COVE-NET-005 endpoint: the connection c1 of the private endpoint pe is Pending, not Approved"},

		{"a task, the switch for all on", outside("203.0.113.9"), nil, harbor(closed, bypass), tasks, servicePrincipal(nil), "AcrPull", off},
		{"a task, its own switch on", outside("203.0.113.9"), nil, harbor(closed, func(s *registry.Settings) { s.TaskBypass = true }), tasks, servicePrincipal(nil), "AcrPull", "allowed"},
	} {
		f := Facts{Ask: Ask{ID: id, Origin: c.from, Host: host, Want: []Scope{app}}, Now: day(2026, 11, 21), Registry: c.reg, Member: c.m, Trusted: c.table, Proof: c.proof}
		if c.roles != "" {
			f.Roles = holding(c.roles, harborID)
		}
		if strings.Contains(c.name, "pending") {
			f.Endpoint = endpoint("Pending", harborID)
		}
		if c.m != nil {
			f.Subnet = c.m.Subnet.String()
		}
		v := Decide(f)
		if got := sentence(v); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		// What a caller reads does not depend on what it has shown.
		f.Proof, f.Roles = Proof{Method: ByNothing}, nil
		if bare := Decide(f); bare.Allow || bare.Refusal != Network || !v.Allow && (bare.Public != v.Public || v.Refusal != Network || v.Challenge != "" || v.Identity != (Identity{})) {
			t.Errorf("%s: a stranger reads %q, and this caller %q", c.name, bare.Public, v.Public)
		}
	}
	// What a service may bypass the rules for is in its row too.
	push := Facts{Ask: Ask{ID: id, Origin: outside("203.0.113.9"), Host: host, Want: []Scope{app, appPush}}, Registry: harbor(closed, bypass), Trusted: scanners(ci), Proof: servicePrincipal(nil), Roles: holding("Owner", harborID), Now: day(2026, 11, 21)}
	if got := sentence(Decide(push)); got != distrust(scanner, "it may not bypass the rules for this") {
		t.Error(got)
	}
}

// The table of 2020, that of 2021 and today's are one table, read as of a day:
// who is blocked differs by it. row:96
func TestWhoIsTrustedWhen(t *testing.T) {
	managed := servicePrincipal(nil)
	managed.Identity.Managed = true
	for _, c := range []struct {
		asOf, passes string // of aci, appservice and the listed defender, machinelearning, tasks, devops
	}{
		{"2020-10-01", ""},
		{"2021-03-01", "defender machinelearning tasks"},
		{"2024-01-01", "aci defender machinelearning tasks"},
		{"", "aci defender machinelearning"},
	} {
		var got []string
		for _, who := range []string{"aci", "appservice", "defender", "devops", "machinelearning", "tasks"} {
			text := "asOf: " + c.asOf + "\n"
			f := Facts{Ask: Ask{ID: id, Origin: outside("203.0.113.9"), Host: host}, Now: day(2026, 11, 21), Registry: harbor(closed, bypass), Proof: managed, Roles: holding("AcrPull", harborID)}
			switch who {
			case "aci", "appservice":
				f.Ask.Origin, f.Member = inside("100.100.100.100"), member(who, false)
			case "devops": // is on no list, so that nobody is it
			default:
				text += "services: [{name: " + who + ", identities: [" + ci + "]}]\n"
			}
			f.Trusted = parsed(text)
			if Decide(f).Allow {
				got = append(got, who)
			}
		}
		if strings.Join(got, " ") != c.passes {
			t.Errorf("as of %q pass %v, want %s", c.asOf, got, c.passes)
		}
	}
}

func TestTrustedFileIsChecked(t *testing.T) {
	for text, want := range map[string]string{
		"services: [{name: scan}]": "services[0].may",
		"services: [{name: aci, may: [fly], kinds: [cloud], since: yesterday}]": "and 2 more",
		"services: [{name: defender, identities: [scanner]}]":                   "is not the id of",
		"services: [{name: aci}, {name: aci}]":                                  "services[1].name",
		"asOf: soon":                                                            "asOf",
		"trust: all":                                                            "cannot be read",
		"services: none":                                                        "cannot be read",
		"services: [{name: aci, identities: [" + ci + "]}, {name: defender, identities: [" + strings.ToUpper(ci) + "]}]": "is aci and defender",
	} {
		if _, err := ParseTrusted(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if _, err := ParseTrusted(strings.NewReader("")); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	own := parsed("services: [{name: scan, title: Our scanner, may: [pull], kinds: [vm]}, {name: aci, until: 2024-06-01}]").Services()
	if len(own) != 5 || own[4].Title != "Our scanner" || !own[0].Until.Equal(day(2024, 6, 1)) || own[0].Title != "Azure Container Instances" {
		t.Errorf("%+v", own)
	}
}

func FuzzTrusted(f *testing.F) {
	f.Add("asOf: 2021-01-31\nservices:\n- name: aci\n  may: [pull]\n")
	f.Fuzz(func(t *testing.T, s string) {
		if table, err := ParseTrusted(strings.NewReader(s)); err == nil {
			for _, row := range table.Services() {
				if row.Name == "" || len(row.May) == 0 {
					t.Fatalf("a service without a name or anything it may do: %+v", row)
				}
			}
		}
	})
}

// fullRules are as many rules as a registry may have, of both kinds.
func fullRules() *registry.Settings {
	r := manyRules()
	r.Subnets = map[string]int{}
	for i := range 100 {
		r.Subnets[fmt.Sprintf("%s/subnets/s%d", office, i)] = i + 1
	}
	r.Subnets[pier.SubnetKey] = 100
	return r
}

// The network's part alone, whichever way a caller comes.
func BenchmarkNetwork(b *testing.B) {
	r := fullRules()
	f := func(from link.Origin, m *network.Member, e *network.Endpoint) *Facts {
		return &Facts{Ask: Ask{ID: id, Host: host, Origin: from}, Registry: r, Member: m, Endpoint: e, Trusted: NewTrusted(), Now: time.Now()}
	}
	for name, f := range map[string]*Facts{
		"IPRule":     f(outside("198.18.199.7"), nil, nil),
		"SubnetRule": f(inside("100.100.100.100"), pier, nil),
		"Endpoint":   f(inside("10.0.0.7"), nil, endpoint("Approved", harborID)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var v Verdict
			for b.Loop() {
				v = Verdict{Registry: f.Registry}
				v.rec.From = f.Ask.Origin.Remote.Addr()
				if !admit(f, &v) {
					b.Fatal(v.Reason)
				}
			}
		})
	}
}
