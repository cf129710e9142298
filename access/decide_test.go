package access

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/condition"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/token"
)

const (
	sub  = "/subscriptions/5f0a1c52-0000-4000-8000-000000000001"
	host = "harbor.cr.cove.internal"
	id   = "0d9cbd62-6b9b-4b35-9e6e-0123456789ab"
	ci   = "33333333-3333-4333-8333-333333333333"
)

var (
	harborID = arm.MustID(sub + "/resourceGroups/prod/providers/Microsoft.ContainerRegistry/registries/harbor")
	quayID   = arm.MustID(sub + "/resourceGroups/prod/providers/Microsoft.ContainerRegistry/registries/quay")
	office   = sub + "/resourcegroups/prod/providers/microsoft.network/virtualnetworks/office"
	pe       = arm.MustID(sub + "/resourceGroups/prod/providers/Microsoft.Network/privateEndpoints/pe")
	app      = Scope{"repository", "team/app", "pull"}
	appPush  = Scope{"repository", "team/app", "push"}
	catalog  = Scope{"registry", "catalog", "*"}
)

// harbor is open to all unless a test says otherwise.
func harbor(change ...func(*registry.Settings)) *registry.Settings {
	s := &registry.Settings{
		ID: harborID, UID: "uid-harbor", Name: "harbor", Host: host, Location: "local",
		PublicAccess: true, DefaultAllow: true, DataHosts: []string{"harbor.local.data.cr.cove.internal"},
		Aliases: []string{"images.example.org"},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func closed(s *registry.Settings) { s.PublicAccess = false }

func rules(text ...string) func(*registry.Settings) {
	return func(s *registry.Settings) {
		s.DefaultAllow = false
		for _, r := range text {
			s.IPRules = append(s.IPRules, netip.MustParsePrefix(r))
		}
	}
}

func outside(addr string) link.Origin {
	a, _ := netip.ParseAddr(addr)
	return link.Origin{Kind: link.Public, Remote: netip.AddrPortFrom(a, 40000)}
}

func inside(local string) link.Origin {
	return link.Origin{
		Kind: link.Overlay, Network: office,
		Remote: netip.MustParseAddrPort("10.0.0.20:40000"), Local: netip.AddrPortFrom(netip.MustParseAddr(local), 443),
	}
}

func endpoint(state string, to arm.ID) *network.Endpoint {
	return &network.Endpoint{
		ID: pe, Connection: arm.MustID(to.String() + "/privateEndpointConnections/c1"), Registry: to,
		State: state, Member: "registry", Address: netip.MustParseAddr("10.0.0.7"),
	}
}

func servicePrincipal(limit []token.Access) Proof {
	return Proof{Method: ByToken, Limit: limit, Identity: Identity{ObjectID: "22222222-2222-4222-8222-222222222222", Name: ci, Kind: KindServicePrincipal}}
}

func holding(role string, scope arm.ID) []*policy.Assignment {
	return []*policy.Assignment{{ID: arm.MustID(scope.String() + "/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-000000000001"), Scope: scope, Role: policy.BuiltinByName(role)}}
}

// sentence is the deciding step as explain says it.
func sentence(v Verdict) string {
	if v.Allow {
		return "allowed"
	}
	for _, s := range v.Steps() {
		if s.Outcome == Failed || s.Outcome == Unknown {
			return string(s.Reason) + " " + s.Name + ": " + s.Why
		}
	}
	return "refused by no step"
}

func TestDecideNetwork(t *testing.T) {
	admin := Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}
	for _, c := range []struct {
		name string
		from link.Origin
		reg  *registry.Settings
		ep   *network.Endpoint
		want string
	}{
		{"open to all", outside("203.0.113.9"), harbor(), nil, "allowed"},
		{"public access off", outside("203.0.113.9"), harbor(closed), nil, "COVE-NET-001 public access: public access is disabled"},
		{"a rule names it and public access is off", outside("203.0.113.9"), harbor(closed, rules("203.0.113.9/32")), nil, "COVE-NET-001 public access: public access is disabled"},
		{"a rule names it", outside("203.0.113.9"), harbor(rules("198.51.100.0/24", "203.0.113.0/28")), nil, "allowed"},
		{"no rule at all", outside("203.0.113.9"), harbor(rules()), nil, "COVE-NET-003 rules: the default action is Deny and there is no rule"},
		{"a near miss above", outside("203.0.113.40"), harbor(rules("198.51.100.0/24", "203.0.113.0/27", "10.0.0.0/8")), nil, "COVE-NET-003 rules: the default action is Deny; 3 rules were tried, none contains 203.0.113.40; nearest is ipRules[1] 203.0.113.0/27, which misses by 9 addresses"},
		{"a near miss below", outside("203.0.112.255"), harbor(rules("203.0.113.0/27")), nil, "COVE-NET-003 rules: the default action is Deny; 1 rule was tried, none contains 203.0.112.255; nearest is ipRules[0] 203.0.113.0/27, which misses by 1 address"},
		{"a rule of everything", outside("203.0.113.9"), harbor(rules("0.0.0.0/0")), nil, "allowed"},
		{"an IPv6 caller", outside("2001:db8::1"), harbor(rules("0.0.0.0/0")), nil, "COVE-NET-003 rules: the default action is Deny; 1 rule was tried, none contains 2001:db8::1"},
		{"an IPv4 caller in IPv6's clothes", outside("::ffff:203.0.113.9"), harbor(rules("203.0.113.9/32")), nil, "allowed"},
		{"no address", outside(""), harbor(), nil, "COVE-NET-002 rules: the connection has no address"},
		{"through an approved endpoint", inside("10.0.0.7"), harbor(closed), endpoint("Approved", harborID), "allowed"},
		{"row 9: rules do not apply to it", inside("10.0.0.7"), harbor(rules("203.0.113.9/32")), endpoint("Approved", harborID), "allowed"},
		{"pending", inside("10.0.0.7"), harbor(), endpoint("Pending", harborID), "COVE-NET-005 endpoint: the connection c1 of the private endpoint pe is Pending, not Approved"},
		{"rejected", inside("10.0.0.7"), harbor(), endpoint("Rejected", harborID), "COVE-NET-005 endpoint: the connection c1 of the private endpoint pe is Rejected, not Approved"},
		{"disconnected", inside("10.0.0.7"), harbor(), endpoint("Disconnected", harborID), "COVE-NET-005 endpoint: the connection c1 of the private endpoint pe is Disconnected, not Approved"},
		{"a state that nobody knows", inside("10.0.0.7"), harbor(), endpoint("", harborID), "COVE-NET-005 endpoint: the connection c1 of the private endpoint pe is , not Approved"},
		{"another registry's endpoint", inside("10.0.0.7"), harbor(), endpoint("Approved", quayID), "COVE-NET-006 endpoint: the private endpoint pe leads to quay, and the name asked for is " + host},
		{"inside, not at an endpoint", inside("100.100.100.100"), harbor(closed), nil, "COVE-NET-001 public access: public access is disabled"},
		{"inside, not at an endpoint, with rules", inside("100.100.100.100"), harbor(rules()), nil, "COVE-NET-023 rules: the default action is Deny, and the caller inside the virtual network has no service endpoint"},
		{"an endpoint's value at the public door", outside("203.0.113.9"), harbor(closed), endpoint("Approved", harborID), "COVE-NET-001 public access: public access is disabled"},
		{"no such registry", outside("203.0.113.9"), nil, nil, "COVE-NAME-001 endpoint: no registry is served as " + host},
	} {
		v := Decide(Facts{Ask: Ask{ID: id, Origin: c.from, Host: host}, Registry: c.reg, Endpoint: c.ep, Proof: admin})
		if got := sentence(v); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
		if !v.Allow && (v.Refusal != Network || v.Challenge != "" || v.Identity != (Identity{})) {
			t.Errorf("%s: the network's no tells more than the network's no: %+v", c.name, v.Refusal)
		}
	}
}

func TestDecideCaller(t *testing.T) {
	failed := func(m Method, r Reason, claimed string) Proof { return Proof{Method: m, Failure: r, Claimed: claimed} }
	anyPull := []token.Access{{Type: "repository", Name: "*", Actions: []string{"pull"}}}
	for _, c := range []struct {
		name  string
		proof Proof
		roles []*policy.Assignment
		want  []Scope
		text  string
	}{
		{"nobody", Proof{Method: ByNothing}, nil, nil, "COVE-AUTH-001 sign-in: no credential was sent"},
		{"the zero proof", Proof{}, nil, []Scope{app}, "COVE-AUTH-001 sign-in: no credential was sent"},
		{"a wrong secret", failed(ByPassword, reason.WrongCredential, ci), nil, nil, "COVE-AUTH-002 sign-in: the user name or password is wrong (the caller said it was " + ci + ", which is not proved)"},
		{"an expired secret", failed(ByPassword, reason.SecretExpired, ci), nil, nil, "COVE-AUTH-003 sign-in: the secret has expired (the caller said it was " + ci + ", which is not proved)"},
		{"an expired token", failed(ByToken, reason.TokenExpired, ""), nil, nil, "COVE-AUTH-005 sign-in: the token has expired"},
		{"admin", Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}, nil, []Scope{app, appPush, catalog}, "allowed"},
		{"anonymous pulls", Proof{Method: ByToken, Limit: anyPull, Identity: Identity{Kind: KindAnonymous}}, nil, []Scope{app}, "allowed"},
		{"anonymous pushes", Proof{Method: Anonymously, Identity: Identity{Kind: KindAnonymous}}, nil, []Scope{appPush}, "COVE-PERM-004 permission: nobody in particular may not push to team/app: anonymous callers may only read"},
		{"no role", servicePrincipal(nil), nil, []Scope{app}, "COVE-PERM-002 permission: the service principal " + ci + " may not pull from team/app: it holds no role on harbor"},
		{"no role, wanting nothing yet", servicePrincipal(nil), nil, nil, "COVE-PERM-002 permission: the service principal " + ci + " holds no role on harbor"},
		{"a puller", servicePrincipal(nil), holding("AcrPull", harborID), []Scope{app}, "allowed"},
		{"a puller lists", servicePrincipal(nil), holding("AcrPull", harborID), []Scope{catalog}, "allowed"},
		{"a puller pushes", servicePrincipal(nil), holding("AcrPull", harborID), []Scope{app, appPush}, "COVE-PERM-001 permission: the service principal " + ci + " may not push to team/app: AcrPull does not allow it"},
		{"a puller who is told it may", servicePrincipal([]token.Access{{Type: "repository", Name: "team/app", Actions: []string{"pull", "push"}}}), holding("AcrPull", harborID), []Scope{appPush}, "COVE-PERM-001 permission: the service principal " + ci + " may not push to team/app: AcrPull does not allow it"},
		{"an owner with a token for less", servicePrincipal([]token.Access{{Type: "repository", Name: "other", Actions: []string{"pull"}}}), holding("Owner", harborID), []Scope{app}, "COVE-PERM-003 permission: the service principal " + ci + " may not pull from team/app: the token was issued for less"},
		{"an owner with a token for nothing", servicePrincipal([]token.Access{}), holding("Owner", harborID), []Scope{app}, "COVE-PERM-003 permission: the service principal " + ci + " may not pull from team/app: the token was issued for less"},
		{"the subscription's owner", servicePrincipal(nil), holding("Owner", arm.MustID(sub)), []Scope{app, appPush, {"repository", "a", "delete"}, {"repository", "a", "metadata_write"}}, "allowed"},
		{"a pusher and locks", servicePrincipal(nil), holding("AcrPush", harborID), []Scope{{"repository", "a", "metadata_write"}}, "COVE-PERM-001 permission: the service principal " + ci + " may not change attributes of a: AcrPush does not allow it"},
		{"an unknown action", servicePrincipal(nil), holding("Owner", harborID), []Scope{{"repository", "a", "fly"}}, "COVE-PERM-001 permission: the service principal " + ci + " may not fly a: no role allows it"},
		{"admin and an unknown action", Proof{Method: ByPassword, Identity: Identity{Kind: KindAdmin}}, nil, []Scope{{"repository", "a", "*"}}, "COVE-PERM-001 permission: the admin user  may not * a: no role allows it"},
		{"an identity of no kind", Proof{Method: ByToken, Identity: Identity{Name: "x", Kind: "other"}}, nil, []Scope{app}, "COVE-PERM-002 permission: the caller may not pull from team/app: it holds no role on harbor"},
	} {
		v := Decide(Facts{Ask: Ask{ID: id, Origin: outside("203.0.113.9"), Host: host, Want: c.want}, Registry: harbor(), Proof: c.proof, Roles: c.roles})
		if got := sentence(v); got != c.text {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.text)
		}
		if !v.Allow && (v.Challenge == "" || v.Refusal == Network) {
			t.Errorf("%s: a 401 without a challenge", c.name)
		}
	}
}

// What goes over the wire is ACR's own, text for text.
func TestWhatTheCallerReads(t *testing.T) {
	bearer := `Bearer realm="https://harbor.cr.cove.internal/oauth2/token",service="harbor.cr.cove.internal"`
	for _, c := range []struct {
		name      string
		facts     Facts
		text      string
		challenge string
	}{
		{
			"refused by the network",
			Facts{Registry: harbor(closed)},
			"client with IP '203.0.113.9' is not allowed access. Refer https://aka.ms/acr/firewall to grant access. CorrelationId: " + id, "",
		},
		{
			"the first request of every client",
			Facts{Registry: harbor(), Proof: Proof{Method: ByNothing}},
			"authentication required, visit https://aka.ms/acr/authorization for more information.", bearer,
		},
		{
			"pull without a credential",
			Facts{Registry: harbor(), Ask: Ask{Want: []Scope{app}}, Proof: Proof{Method: ByNothing}},
			"authentication required, visit https://aka.ms/acr/authorization for more information.", bearer + `,scope="repository:team/app:pull"`,
		},
		{
			"push without a credential",
			Facts{Registry: harbor(), Ask: Ask{Want: []Scope{app, appPush}}, Proof: Proof{Method: ByNothing}},
			"authentication required, visit https://aka.ms/acr/authorization for more information.", bearer + `,scope="repository:team/app:pull,push"`,
		},
		{
			"mount without a credential",
			Facts{Registry: harbor(), Ask: Ask{Want: []Scope{app, appPush, {"repository", "base", "pull"}}}, Proof: Proof{Method: ByNothing}},
			"authentication required, visit https://aka.ms/acr/authorization for more information.", bearer + `,scope="repository:team/app:pull,push repository:base:pull"`,
		},
		{
			"a token that is over",
			Facts{Registry: harbor(), Ask: Ask{Want: []Scope{app}}, Proof: Proof{Method: ByToken, Failure: reason.TokenExpired}},
			"authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: " + id, bearer + `,scope="repository:team/app:pull",error="invalid_token"`,
		},
		{
			"a wrong password of the admin user",
			Facts{Registry: harbor(), Proof: Proof{Method: ByPassword, Failure: reason.WrongCredential, Claimed: "harbor"}},
			"authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: " + id, `Basic realm="Azure Container Registry"`,
		},
		{
			"the admin user where it is off",
			Facts{Registry: harbor(), Proof: Proof{Method: ByPassword, Failure: reason.AdminOff, Claimed: "harbor"}},
			"authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: " + id, `Basic realm="Azure Container Registry"`,
		},
		{
			"a wrong secret",
			Facts{Registry: harbor(), Proof: Proof{Method: ByPassword, Failure: reason.WrongCredential, Claimed: ci}},
			"Invalid clientid or client secret. CorrelationId: " + id, `Basic realm="Azure Container Registry"`,
		},
		{
			"an expired secret",
			Facts{Registry: harbor(), Proof: Proof{Method: ByPassword, Failure: reason.SecretExpired, Claimed: ci}},
			"Invalid clientid or client secret. CorrelationId: " + id, `Basic realm="Azure Container Registry"`,
		},
		{
			"an unknown user",
			Facts{Registry: harbor(), Proof: Proof{Method: ByPassword, Failure: reason.NotRegistered}},
			"Application not registered with AAD. CorrelationId: " + id, `Basic realm="Azure Container Registry"`,
		},
		{
			"a good password and no role",
			Facts{Registry: harbor(), Ask: Ask{Want: []Scope{app}}, Proof: Proof{Method: ByPassword, Claimed: ci, Identity: Identity{Name: ci, Kind: KindServicePrincipal}}},
			"authentication required, visit https://aka.ms/acr/authorization for more information. CorrelationId: " + id, bearer + `,scope="repository:team/app:pull"`,
		},
		{
			"under an alias",
			Facts{Registry: harbor(), Ask: Ask{Host: "images.example.org"}, Proof: Proof{Method: ByNothing}},
			"authentication required, visit https://aka.ms/acr/authorization for more information.", strings.ReplaceAll(bearer, host, "images.example.org"),
		},
		{
			"at a data host",
			Facts{Registry: harbor(), Ask: Ask{Host: "harbor.local.data.cr.cove.internal"}, Proof: Proof{Method: ByNothing}},
			"authentication required, visit https://aka.ms/acr/authorization for more information.", bearer,
		},
		{
			"when facts are missing",
			Facts{Registry: harbor(), Failed: true},
			"the registry cannot decide about this request now, try again. CorrelationId: " + id, "",
		},
	} {
		f := c.facts
		f.Ask.ID, f.Ask.Origin = id, outside("203.0.113.9")
		if f.Ask.Host == "" {
			f.Ask.Host = host
		}
		v := Decide(f)
		if v.Allow || v.Public != c.text || v.Challenge != c.challenge {
			t.Errorf("%s:\n got %s\n     %s\nwant %s\n     %s", c.name, v.Public, v.Challenge, c.text, c.challenge)
		}
	}
}

// drawFacts makes any situation, sensible or not.
func drawFacts(t *rapid.T) Facts {
	addresses := []string{"", "203.0.113.9", "10.0.0.20", "2001:db8::1", "::ffff:203.0.113.9", "198.51.100.1"}
	prefixes := []string{"203.0.113.0/24", "203.0.113.9/32", "10.0.0.0/8", "0.0.0.0/0", "198.51.100.0/31"}
	f := Facts{Ask: Ask{ID: id, Host: host, Origin: outside(rapid.SampledFrom(addresses).Draw(t, "from"))}}
	switch rapid.SampledFrom([]string{"public", "public", "inside", "inside", "host", "link", "no link"}).Draw(t, "way") {
	case "inside":
		f.Ask.Origin = inside("10.0.0.7")
	case "host":
		f.Ask.Origin = byHost("10.0.0.7")
	case "link":
		f.Ask.Origin = byLink("azure:0x0000002a")
	case "no link":
		f.Ask.Origin = byLink("")
	}
	if rapid.IntRange(0, 9).Draw(t, "registry") > 0 {
		f.Registry = harbor(func(s *registry.Settings) {
			s.PublicAccess, s.DefaultAllow = rapid.Bool().Draw(t, "public"), rapid.Bool().Draw(t, "default")
			for _, p := range rapid.SliceOfN(rapid.SampledFrom(prefixes), 0, 4).Draw(t, "rules") {
				s.IPRules = append(s.IPRules, netip.MustParsePrefix(p))
			}
			if rapid.Bool().Draw(t, "subnet rule") {
				s.Subnets = map[string]int{rapid.SampledFrom([]string{pier.SubnetKey, "another"}).Draw(t, "of"): 1}
			}
			s.Bypass = rapid.Bool().Draw(t, "bypass")
		})
	}
	if rapid.Bool().Draw(t, "member") {
		m := *pier
		m.Kind = rapid.SampledFrom([]string{"vm", "aci"}).Draw(t, "of kind")
		m.Served, m.Service = m.Kind == "vm", rapid.Bool().Draw(t, "service endpoint")
		f.Member, f.Subnet = &m, m.Subnet.String()
	}
	f.Trusted = rapid.SampledFrom([]*Trusted{nil, NewTrusted(), scanners(ci)}).Draw(t, "trusted")
	if rapid.Bool().Draw(t, "endpoint") {
		f.Endpoint = endpoint(rapid.SampledFrom([]string{"Approved", "Pending", "Rejected", ""}).Draw(t, "state"), rapid.SampledFrom([]arm.ID{harborID, quayID}).Draw(t, "leads to"))
	}
	f.Proof = Proof{
		Method:   rapid.SampledFrom([]Method{"", ByNothing, ByPassword, ByPassword, ByToken, ByToken, Anonymously}).Draw(t, "method"),
		Failure:  rapid.SampledFrom([]Reason{"", "", "", "", reason.WrongCredential, reason.TokenExpired}).Draw(t, "failure"),
		Identity: Identity{Name: ci, Kind: rapid.SampledFrom([]string{"", KindAdmin, KindAnonymous, KindServicePrincipal, KindServicePrincipal, "other"}).Draw(t, "kind")},
	}
	if rapid.Bool().Draw(t, "limited") {
		f.Proof.Limit = rapid.SampledFrom([][]token.Access{{}, {{Type: "repository", Name: "team/app", Actions: []string{"pull"}}}}).Draw(t, "limit")
	}
	if role := rapid.SampledFrom([]string{"", "AcrPull", "AcrPush", "Owner", "AcrDelete"}).Draw(t, "role"); role != "" {
		f.Roles = holding(role, rapid.SampledFrom([]arm.ID{harborID, quayID, arm.MustID(sub)}).Draw(t, "at"))
	}
	f.Ask.Want = rapid.SliceOfN(rapid.SampledFrom([]Scope{app, appPush, catalog, {"repository", "a", "fly"}}), 0, 3).Draw(t, "want")
	f.Proof.Identity.Managed = rapid.Bool().Draw(t, "managed")
	f.Proof.Identity.ObjectID = rapid.SampledFrom([]string{"", "22222222-2222-4222-8222-222222222222"}).Draw(t, "object")
	f.Now = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	f.Failed = rapid.IntRange(0, 19).Draw(t, "failed") == 0
	return f
}

// Situations cost a few microseconds each: thousands are drawn.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "5000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// Rules match as net/netip says.
func TestRulesMatchAsPrefixesDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := netip.AddrFrom4([4]byte{203, 0, rapid.Byte().Draw(t, "c"), rapid.Byte().Draw(t, "d")})
		other := netip.AddrFrom4([4]byte{203, 0, rapid.Byte().Draw(t, "rule c"), rapid.Byte().Draw(t, "rule d")})
		p := netip.PrefixFrom(other, rapid.IntRange(-1, 32).Draw(t, "bits"))
		if got := matching([]netip.Prefix{{}, p}, at) == 2; got != p.Contains(at) {
			t.Fatalf("%s in %s: %v", at, p, got)
		}
	})
}

// What may never happen, whatever the situation.
func TestDecideNever(t *testing.T) {
	allowed := 0
	rapid.Check(t, func(t *rapid.T) {
		f := drawFacts(t)
		v := Decide(f)
		private := f.Ask.Origin.Kind != link.Public && f.Endpoint != nil
		switch {
		case !v.Allow && (v.Reason == "" || v.Refusal == None || v.Public == ""):
			t.Fatalf("a refusal without a reason: %+v", v.rec)
		case !v.Allow && meaning(Reason(v.Reason)).Cause == "":
			t.Fatalf("a reason without a meaning: %s", v.Reason)
		case v.Allow && (v.Reason != "" || v.Refusal != None):
			t.Fatal("allowed, with a reason against it")
		}
		if v.Refusal == Network && (v.Challenge != "" || v.Identity != (Identity{})) {
			t.Fatal("the network's no says something about the caller")
		}
		steps := v.Steps()
		failed := 0
		for i, s := range steps {
			if s.Why == "" || s.Name != stageNames[i] {
				t.Fatalf("a step says nothing: %+v", s)
			}
			if s.Outcome == Failed || s.Outcome == Unknown {
				failed++
			}
			if failed > 0 && s.Outcome == Passed {
				t.Fatalf("a step was passed after one had failed: %+v", steps)
			}
		}
		if want := map[bool]int{true: 0, false: 1}[v.Allow]; failed != want {
			t.Fatalf("%d steps failed: %+v", failed, steps)
		}
		if !v.Allow {
			return
		}
		allowed++
		trusted := f.Registry != nil && f.Registry.Bypass && len(f.Registry.Subnets) == 0 && f.Trusted != nil && f.Proof.Identity.ObjectID != "" &&
			(f.Trusted.ofIdentity(&f) != nil || f.Member != nil && f.Member.Kind == "aci" && f.Proof.Identity.Managed)
		within := f.Ask.Origin.Kind.Inside()
		named := within && f.Member != nil && f.Member.Service && f.Member.Served && f.Registry != nil && f.Registry.Subnets[f.Member.SubnetKey] > 0
		switch {
		case f.Failed || f.Registry == nil:
			t.Fatal("allowed without knowing")
		case f.Ask.Origin.Kind == link.Proxy && !private:
			t.Fatal("allowed by a private link that leads to no private endpoint")
		case trusted:
		case !private && !f.Registry.PublicAccess:
			t.Fatal("allowed by the public door although public access is disabled")
		case !private && within && !f.Registry.DefaultAllow && !named:
			t.Fatal("allowed from inside although no rule names the subnet and the default is Deny")
		case !private && !within && !f.Registry.DefaultAllow && matching(f.Registry.IPRules, f.Ask.Origin.Remote.Addr().Unmap()) == 0:
			t.Fatal("allowed although no rule admits the address and the default is Deny")
		case private && (f.Endpoint.State != "Approved" || !f.Endpoint.Registry.Equal(f.Registry.ID)):
			t.Fatal("allowed through an endpoint that is not an approved one of this registry")
		case f.Proof.Failure != "" || f.Proof.Identity.Kind == "" || f.Proof.Method == "" || f.Proof.Method == ByNothing:
			t.Fatal("allowed without proof")
		}
		for _, w := range f.Ask.Want {
			if f.Proof.Limit != nil && !token.Covers(f.Proof.Limit, w.Type, w.Name, w.Action) {
				t.Fatal("allowed beyond what the token is for")
			}
			n, _ := w.need()
			if f.Proof.Identity.Kind == KindServicePrincipal && !policy.Decide(f.Roles, &policy.Question{Request: condition.Request{Action: n.action}, Scope: harborID}).Allowed {
				t.Fatal("allowed without a role")
			}
		}
	})
	if allowed == 0 {
		t.Error("the generator makes nothing that is allowed")
	}
}

// Explain says what enforcement did: the same steps from the record as from
// the verdict.
func TestExplainIsWhatWasDecided(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := Decide(drawFacts(t))
		e := audit.Event{ID: id, Time: v.Time, Status: 403, Detail: detail(v)}
		got, err := Explain(e)
		if err != nil {
			t.Fatal(err)
		}
		if (got.Verdict == "ALLOWED") != v.Allow || string(got.Reason) != v.Reason || fmt.Sprint(got.Steps) != fmt.Sprint(v.Steps()) {
			t.Fatalf("explain: %+v\nverdict: %v %v", got, v.Reason, v.Steps())
		}
	})
}

// The command that is printed as a fix, carried out on the settings, lets the
// same request through the network; one that differs stays out.
func TestFixesCure(t *testing.T) {
	stranger := outside("203.0.113.10")
	for _, c := range []struct {
		name  string
		facts Facts
		want  string // the first fix
		cure  func(*Facts)
	}{
		{
			"public access off",
			Facts{Registry: harbor(closed)},
			"cove registry update harbor --public-network-enabled true",
			func(f *Facts) { f.Registry.PublicAccess = true },
		},
		{
			"public access off and no rule",
			Facts{Registry: harbor(closed, rules())},
			"cove registry update harbor --public-network-enabled true && cove network-rule add harbor 203.0.113.9",
			func(f *Facts) { *f.Registry = *harbor(rules("203.0.113.9/32")) },
		},
		{
			"no rule",
			Facts{Registry: harbor(rules())},
			"cove network-rule add harbor 203.0.113.9",
			func(f *Facts) { *f.Registry = *harbor(rules("203.0.113.9/32")) },
		},
		{
			"no rule for a machine beside the server",
			Facts{Registry: harbor(rules()), Ask: Ask{Origin: outside("192.168.7.9")}},
			"cove network-rule add harbor 192.168.7.9",
			func(f *Facts) { *f.Registry = *harbor(rules("192.168.7.9/32")) },
		},
		{
			"pending",
			Facts{Registry: harbor(closed), Ask: Ask{Origin: inside("10.0.0.7")}, Endpoint: endpoint("Pending", harborID)},
			"cove private-endpoint approve c1 --registry harbor",
			func(f *Facts) { f.Endpoint = endpoint("Approved", harborID) },
		},
		{
			"no role",
			Facts{Registry: harbor(), Ask: Ask{Want: []Scope{appPush}}, Proof: servicePrincipal(nil)},
			"cove role assign 22222222-2222-4222-8222-222222222222 AcrPush --registry harbor",
			func(f *Facts) { f.Roles = holding("AcrPush", harborID) },
		},
		{
			"inside, where there is no endpoint",
			Facts{Registry: harbor(closed), Ask: Ask{Origin: inside("100.100.100.100")}, Subnet: office + "/subnets/default"},
			"cove private-endpoint create harbor-office --registry harbor --subnet office/default --zone privatelink.cr.cove.internal",
			func(f *Facts) { f.Ask.Origin, f.Endpoint = inside("10.0.0.7"), endpoint("Approved", harborID) },
		},
	} {
		f := c.facts
		f.Ask.ID, f.Ask.Host = id, host
		if !f.Ask.Origin.Remote.IsValid() {
			f.Ask.Origin = outside("203.0.113.9")
		}
		if f.Proof.Method == "" {
			f.Proof = Proof{Method: ByPassword, Identity: Identity{Name: "harbor", Kind: KindAdmin}}
		}
		got, err := Explain(audit.Event{Detail: detail(Decide(f))})
		if err != nil || len(got.Fixes) == 0 || got.Fixes[0].Command != c.want || got.Fixes[0].Opens == "" || got.Fixes[0].Needs == "" {
			t.Errorf("%s: %+v, %v", c.name, got.Fixes, err)
			continue
		}
		c.cure(&f)
		if v := Decide(f); !v.Allow {
			t.Errorf("%s: after the fix: %s", c.name, sentence(v))
		}
		if strings.Contains(c.want, "network-rule") {
			f.Ask.Origin = stranger
			if Decide(f).Allow {
				t.Errorf("%s: the fix lets a neighbour in", c.name)
			}
		}
	}
}

// Published failure 10: no credential in anything that is kept or printed.
func TestNoSecretInAVerdict(t *testing.T) {
	const canary = "canary-9f8e7d6c"
	v := Decide(Facts{
		Ask:      Ask{ID: id, Host: host, Origin: outside("203.0.113.9"), Authority: "Bearer " + canary, Operation: "ManifestGet"},
		Registry: harbor(), Proof: Proof{Method: ByToken, Failure: reason.TokenNotForHere},
	})
	asJSON, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	g := Grant{User: "u", Pass: canary, Refresh: canary}
	grant, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		fmt.Sprintf("%v %+v %#v %s", v, v, v, v), fmt.Sprintf("%v %+v %#v", v.Ask, v.Ask, v.Ask), string(asJSON), string(detail(v)),
		fmt.Sprintf("%v %+v %#v", g, g, g), string(grant), v.Err().Error(), fmt.Sprintf("%+v", v.Err()), v.Public, v.Challenge,
	} {
		if strings.Contains(text, canary) {
			t.Errorf("a credential is in %s", text)
		}
	}
}

func FuzzAuthorization(f *testing.F) {
	for _, s := range []string{"", "Basic dTpw", "basic dTpw", "Bearer a.b.c", "Bearer", "Basic", "Basic  dTpw", "Basic dTpw=", "Negotiate x", "Bearer a b", "Basic OjpAOg=="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := parseAuthorization(s)
		if (c.method == ByNothing) != (s == "") {
			t.Fatalf("%q is taken for no credential", s)
		}
		if ok && c.method == ByToken && strings.ContainsAny(c.password, " \t\r\n\x00") {
			t.Fatalf("%q is taken for a token", s)
		}
		if ok && c.method == ByPassword && strings.Contains(c.user, ":") {
			t.Fatalf("%q has a user name with a colon", s)
		}
	})
}

func manyRules() *registry.Settings {
	return harbor(func(s *registry.Settings) {
		s.DefaultAllow = false
		for i := range 200 {
			s.IPRules = append(s.IPRules, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i), 0}), 24))
		}
	})
}

func BenchmarkDecide200Rules(b *testing.B) {
	f := Facts{
		Ask: Ask{ID: id, Host: host, Origin: outside("198.18.199.7"), Want: []Scope{app}}, Registry: manyRules(), Now: time.Now(),
		Proof: servicePrincipal([]token.Access{{Type: "repository", Name: "team/app", Actions: []string{"pull"}}}), Roles: holding("AcrPull", harborID),
	}
	b.ReportAllocs()
	for b.Loop() {
		if v := Decide(f); !v.Allow {
			b.Fatal(sentence(v))
		}
	}
}

// detail is what the log makes of a verdict.
func detail(v Verdict) json.RawMessage {
	b, err := json.Marshal(Kept(&v))
	if err != nil {
		panic(err)
	}
	return b
}

// What a request pays for its decision being kept; the log does the rest.
func BenchmarkKept(b *testing.B) {
	v := Decide(Facts{
		Ask: Ask{ID: id, Host: host, Origin: outside("198.18.199.7"), Want: []Scope{app}}, Registry: manyRules(), Now: time.Now(),
		Proof: servicePrincipal(nil), Roles: holding("AcrPull", harborID),
	})
	b.ReportAllocs()
	var kept any
	for b.Loop() {
		kept = Kept(&v)
	}
	if !kept.(*record).Allow {
		b.Fatal("not the decision")
	}
}
