package network

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/storetest"
)

const otherSub = "/subscriptions/22222222-2222-2222-2222-222222222222"

func withService(prefix string) string {
	return fmt.Sprintf(`{"properties":{"addressPrefix":%q,"serviceEndpoints":[{"service":"microsoft.containerregistry","locations":["westeurope"]},{"service":"Microsoft.Storage"}]}}`, prefix)
}

// A subnet's service endpoint is told of by each of its members, from the
// moment that it is written.
func TestServiceEndpointOfASubnet(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.nic("vm", "")
		w.nic("box", "")
		w.put(memberID("vm", "m"), memberBody(newKey(), "vm"))
		w.put(memberID("box", "m"), memberBody(newKey(), "aci"))
		seen := func(addr string) *Member { return w.m.Member(arm.MustID(vnetID).Key(), netip.MustParseAddr(addr)) }
		if m := seen("10.0.0.4"); m == nil || m.Service || !m.Served || m.SubnetKey != arm.MustID(subnetID).Key() {
			w.Errorf("without one: %+v", m)
		}
		got := w.put(subnetID, withService("10.0.0.0/24"))
		if have := text(at(got, "properties", "serviceEndpoints")); have != `[{"locations":["*"],"provisioningState":"Succeeded","service":"Microsoft.ContainerRegistry"},{"locations":["*"],"provisioningState":"Succeeded","service":"Microsoft.Storage"}]` {
			w.Errorf("it is shown as %s", have)
		}
		if m := seen("10.0.0.4"); !m.Service || !m.Served {
			w.Errorf("with one: %+v", m)
		}
		if m := seen("10.0.0.5"); !m.Service || m.Served { // row:13
			w.Errorf("a container instance: %+v", m)
		}
		w.put(subnetID, text(w.get(subnetID))) // what was shown, sent back
		if !seen("10.0.0.4").Service {
			w.Error("an echo took the service endpoint away")
		}
		w.put(subnetID, `{"properties":{"addressPrefix":"10.0.0.0/24"}}`)
		if seen("10.0.0.4").Service {
			w.Error("it is there still")
		}
		for body, path := range map[string]string{
			`[{"service":""}]`: "properties.serviceEndpoints[0].service",
			`{"service":"x"}`:  "properties.serviceEndpoints",
			`[{"service":"Microsoft.ContainerRegistry"},{"service":"MICROSOFT.containerRegistry"}]`: "properties.serviceEndpoints[1].service",
		} {
			_, err := w.try(owner, subnetID, `{"properties":{"addressPrefix":"10.0.0.0/24","serviceEndpoints":`+body+`}}`)
			w.invalid(err, path)
		}
	})
}

func ruleOf(subnets ...string) string {
	var list []string
	for _, s := range subnets {
		list = append(list, fmt.Sprintf(`{"id":%q}`, s))
	}
	return `{"location":"local","sku":{"name":"Premium"},"properties":{"networkRuleSet":{"defaultAction":"Deny","virtualNetworkRules":[` + strings.Join(list, ",") + `]}}}`
}

// A rule for a subnet is taken when the subnet is there, has a service endpoint,
// may be used by the caller, and lies in a subscription that is registered for
// registries. row:15 row:16 row:17
func TestSubnetRulesAreValidated(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		_, err := w.try(owner, regID, ruleOf(subnetID))
		w.refused(err, "SubnetsHaveNoServiceEndpointsConfigured")
		w.put(subnetID, withService("10.0.0.0/24"))
		got := w.put(regID, ruleOf(strings.ToUpper(subnetID[:len(subnetID)-4])+"pier", subnetID))
		if n := len(listAt(got, "properties", "networkRuleSet", "virtualNetworkRules")); n != 1 {
			w.Errorf("one subnet, named twice, has %d rules", n)
		}
		_, err = w.try(owner, regID, ruleOf(subnetID, vnetID+"/subnets/nowhere"))
		w.refused(err, "InvalidResourceReference")
		_, err = w.try(owner, regID, ruleOf(vnetID))
		w.invalid(err, "properties.networkRuleSet.virtualNetworkRules[0].id")

		// Who may not use the subnet learns nothing of whether it is there.
		mayWrite := resource.Caller{ObjectID: "oid", Name: "app", May: func(action string, on arm.ID) bool { return !strings.Contains(action, "joinViaServiceEndpoint") }}
		full := func(scope string) string {
			return "Failed to save firewall and virtual network settings for container registry 'Myregistry'. Error: Could not validate network rule - The client 'app' with object id 'oid' does not have authorization to perform action 'Microsoft.Network/virtualNetworks/taggedTrafficConsumers/validate/action' over scope '" + scope + "/taggedTrafficConsumers/Microsoft.ContainerRegistry' or the scope is invalid. If access was recently granted, please refresh your credentials."
		}
		w.delete(regID)
		for _, sub := range []string{subnetID, vnetID + "/subnets/nowhere"} {
			_, err = w.try(mayWrite, regID, ruleOf(sub))
			if _, said := fault.Of(err); said != full(vnetID) {
				w.Errorf("%s: %s", sub, said)
			}
		}

		// Another subscription's network, before and after that is registered.
		w.check(w.svc.Begin(w.Context(), resource.First{Tenant: "t", Subscription: arm.MustID(otherSub).Name()}))
		w.put(otherSub+"/resourceGroups/far", `{"location":"local"}`)
		far := otherSub + "/resourceGroups/far/providers/Microsoft.Network/virtualNetworks/reef"
		w.put(far, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[{"name":"a","properties":{"addressPrefix":"10.0.0.0/24","serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}]}}]}}`)
		all := resource.Caller{ObjectID: "oid", Name: "app", May: owner.May}
		w.check(w.svc.Register(w.Context(), owner, arm.MustID(otherSub), "Microsoft.ContainerRegistry", false))
		_, err = w.try(all, regID, ruleOf(far+"/subnets/a"))
		if _, said := fault.Of(err); said != full(far) {
			w.Errorf("an unregistered subscription: %s", said)
		}
		w.check(w.svc.Register(w.Context(), owner, arm.MustID(otherSub), "Microsoft.ContainerRegistry", true))
		w.put(regID, ruleOf(far+"/subnets/a"))

		// A subnet that somebody deletes freezes nothing about the registry.
		w.delete(far)
		w.put(regID, strings.Replace(ruleOf(far+"/subnets/a"), `"Deny"`, `"Allow"`, 1))

		var many []string
		for i := range 101 {
			many = append(many, fmt.Sprintf("%s/subnets/s%d", vnetID, i))
		}
		_, err = w.try(owner, regID, ruleOf(many...))
		w.invalid(err, "properties.networkRuleSet.virtualNetworkRules")
		if !strings.Contains(err.Error(), "The requested feature virtual network rule exceeds allowed quota 100 for the SKU Premium.") {
			w.Error(err)
		}
	})
}

// row:11 A registry with a private endpoint takes no new subnet rule; one with
// rules takes an endpoint, and says that they do not go together.
func TestSubnetRulesAndPrivateEndpoints(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.put(subnetID, withService("10.0.0.0/24"))
		w.put(regID, ruleOf(subnetID))
		w.pe("pe")
		body := w.get(regID)
		if at(body, "properties", "status", "displayStatus") != "Warning" {
			w.Errorf("it is not flagged: %s", text(at(body, "properties", "status")))
		}
		w.put(vnetID+"/subnets/quay", withService("10.0.1.0/24"))
		rules := `{"dataEndpointEnabled":true,`
		_, err := w.try(owner, regID, strings.Replace(ruleOf(subnetID, vnetID+"/subnets/quay"), `"properties":{`, `"properties":`+rules, 1))
		w.refused(err, "PrivateEndpointAndServiceEndpointConflict")
		if got := w.put(regID, strings.Replace(ruleOf(), `"properties":{`, `"properties":`+rules, 1)); at(got, "properties", "status") != nil {
			w.Errorf("it is flagged without rules: %s", text(at(got, "properties", "status")))
		}
	})
}

// row:36 How many private endpoints a registry may have is 200, 10 for an old one,
// and what the operator says for single ones.
func TestEndpointLimits(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		if n := w.cfg.Registry.MaxPrivateEndpoints(w.doc(regID)); n != 200 {
			w.Errorf("a new registry may have %d", n)
		}
		old := w.doc(regID)
		set(old.Body, "2021-09-30T12:00:00Z", "properties", "creationDate")
		if n := w.cfg.Registry.MaxPrivateEndpoints(old); n != 10 {
			w.Errorf("one of before October 2021 may have %d", n)
		}
		cfg := w.cfg
		cfg.Registry.EndpointLimits = map[string]int{"myregistry": 2}
		w.pe("one")
		w.pe("two")
		err := w.raw.View(w.Context(), func(r resource.Reader) error {
			_, err := cfg.target(w.Context(), r, arm.MustID(regID))
			return err
		})
		w.refused(err, "QuotaExceeded")
		if _, said := fault.Of(err); said != "The requested feature private endpoint connection exceeds allowed quota 2 for the SKU Premium." {
			w.Error(said)
		}
	})
}

// Regions' own login servers have members beside those for data.
func TestMembersOfRegionalEndpoints(t *testing.T) {
	reg := resource.Doc{Body: object(`{"properties":{"loginServer":"m.cr.x","dataEndpointHostNames":["m.local.data.cr.x","m.east.data.cr.x"],"regionalEndpointHostNames":["m.local.geo.cr.x","m.east.geo.cr.x"]}}`)}
	want := []member{{"registry", "m.cr.x"}, {"registry_data_local", "m.local.data.cr.x"}, {"registry_data_east", "m.east.data.cr.x"}, {"registry_local", "m.local.geo.cr.x"}, {"registry_east", "m.east.geo.cr.x"}}
	if got := members(reg); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func (w *world) doc(id string) (d resource.Doc) {
	w.Helper()
	w.check(w.raw.View(w.Context(), func(r resource.Reader) (err error) {
		d, err = r.Get(w.Context(), arm.MustID(id))
		return err
	}))
	return d
}

const groupID = group + "/providers/Microsoft.Network/networkSecurityGroups/walls"

// secRule is a rule's properties: "out 200 deny tcp 10.0.0.4/* > VirtualNetwork/443".
func secRule(spec string) string {
	f := strings.Fields(spec)
	end := func(s string) (string, string) {
		i := strings.LastIndexByte(s, '/')
		return s[:i], s[i+1:]
	}
	from, fromPort := end(f[4])
	to, toPort := end(f[6])
	direction := map[string]string{"in": "Inbound", "out": "outbound"}[f[0]]
	return fmt.Sprintf(`{"priority":%s,"direction":%q,"access":%q,"protocol":%q,"sourceAddressPrefix":%q,"sourcePortRange":%q,"destinationAddressPrefix":%q,"destinationPortRange":%q}`,
		f[1], direction, f[2], f[3], from, fromPort, to, toPort)
}

// What the groups of a network say about a flow, as the data path asks them.
// row:14 row:46
func TestSecurityGroupsDecide(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.nic("vm", "10.0.0.20")
		w.nic("box", "10.0.0.21")
		w.pe("pe") // 10.0.0.4 and .5
		w.put(groupID, `{"location":"local"}`)
		assign := func(where string, policies string) {
			w.put(subnetID, fmt.Sprintf(`{"properties":{"addressPrefix":"10.0.0.0/24","privateEndpointNetworkPolicies":%q%s}}`, policies, where))
		}
		under := fmt.Sprintf(`,"networkSecurityGroup":{"id":%q}`, groupID)
		const registry, front, friend, web = "tcp 10.0.0.20:4000 > 10.0.0.4:443", "tcp 10.0.0.20:4000 > 100.100.100.100:443", "tcp 10.0.0.20:4000 > 10.0.0.21:22", "udp 10.0.0.20:53 > 203.0.113.9:53"
		const dns, imds = "udp 10.0.0.20:4000 > 168.63.129.16:53", "tcp 10.0.0.20:4000 > 169.254.169.254:80"
		for _, c := range []struct {
			name, policies string
			rules          []string
			denied         []string
		}{
			{"the default rules", "Disabled", nil, nil},
			{"a port out", "Disabled", []string{"out 200 Deny Tcp */* > */443"}, []string{registry, front}},
			{"another port out", "Disabled", []string{"out 200 Deny Tcp */* > */444"}, nil},
			{"a source port", "Disabled", []string{"out 200 Deny Tcp */3000-5000 > */22"}, []string{friend}},
			{"another protocol", "Disabled", []string{"out 200 Deny Udp */* > */443"}, nil},
			{"one machine", "Disabled", []string{"out 200 Deny * 10.0.0.20/* > 10.0.0.21/*"}, []string{friend}},
			{"the network", "Disabled", []string{"out 200 Deny * */* > VirtualNetwork/*"}, []string{registry, friend}},
			{"the internet", "Disabled", []string{"out 200 Deny * */* > internet/*"}, []string{front, web}},
			{"the registries' public side", "Disabled", []string{"out 200 Deny * */* > AzureContainerRegistry/*"}, []string{front}},
			{"that of a region", "Disabled", []string{"out 200 Deny * */* > azurecontainerregistry.LOCAL/*"}, []string{front}},
			{"another service", "Disabled", []string{"out 200 Deny * */* > Storage/*"}, nil},
			{"all", "Disabled", []string{"out 200 Deny * */* > */*"}, []string{registry, front, friend, web}},
			{"names", "Disabled", []string{"out 200 Deny * */* > AzurePlatformDNS/*"}, []string{dns}},
			{"the instance metadata", "Disabled", []string{"out 200 Deny * */* > AzurePlatformIMDS/*"}, []string{imds}},
			{"the first of two", "Disabled", []string{"out 200 Deny * */* > */443", "out 199 Allow * */* > 10.0.0.4/443"}, []string{front}},
			{"into the subnet, policies off", "Disabled", []string{"in 200 Deny * */* > */*"}, []string{friend}},
			{"into the subnet, policies on", "Enabled", []string{"in 200 Deny * */* > */*"}, []string{friend, registry}},
			{"into the subnet, policies on for groups", "NetworkSecurityGroupEnabled", []string{"in 200 Deny * */* > */443"}, []string{registry}},
			{"into the subnet, policies on for routes", "RouteTableEnabled", []string{"in 200 Deny * */* > */443"}, nil},
		} {
			assign(under, c.policies)
			var rules []string
			for i, r := range c.rules {
				rules = append(rules, fmt.Sprintf(`{"name":"r%d","properties":%s}`, i, secRule(r)))
			}
			w.put(groupID, `{"location":"local","properties":{"securityRules":[`+strings.Join(rules, ",")+`]}}`)
			wanted, _ := w.m.Wanted(arm.MustID(vnetID).Key())
			for _, f := range []string{registry, front, friend, web, dns, imds} {
				want := true
				for _, d := range c.denied {
					want = want && d != f
				}
				if got := wanted.Filter.Admit(flow(f)); got != want {
					w.Errorf("%s: %s admitted %v, want %v", c.name, f, got, want)
				}
			}
		}
		assign("", "Disabled")
		if wanted, _ := w.m.Wanted(arm.MustID(vnetID).Key()); wanted.Filter != nil {
			w.Error("a network without groups has a filter")
		}
		// On the interface, and on both: both must let it pass.
		nic := strings.Replace(nicBody(subnetID, "10.0.0.20"), `"ipConfigurations"`, fmt.Sprintf(`"networkSecurityGroup":{"id":%q},"ipConfigurations"`, groupID), 1)
		w.put(nicID("vm"), nic)
		w.put(groupID+"/securityRules/r0", `{"properties":`+secRule("out 300 Deny * */* > 10.0.0.4/*")+`}`)
		wanted, _ := w.m.Wanted(arm.MustID(vnetID).Key())
		if wanted.Filter.Admit(flow(registry)) || !wanted.Filter.Admit(flow(friend)) {
			w.Error("an interface's group")
		}
		_, err := w.try(owner, nicID("vm"), nicBody(subnetID, "10.0.0.20"))
		w.check(err)
		w.delete(groupID)
	})
}

// The list of service tags says of each what rules that name it go by: every
// address of it inside a network is that tag's. row:14
func TestServiceTags(t *testing.T) {
	cfg := Config{Regions: []string{"westeurope", "eastus"}}
	f := &Filter{front: DefaultFrontEnd, platform: map[netip.Addr]tag{Resolver: tagDNS, Metadata: tagMetadata}}
	public := netip.MustParseAddr("::ffff:203.0.113.7")
	got := map[string]string{}
	for _, tag := range cfg.ServiceTags(public) {
		known, ok := cfg.tag(tag.Name)
		if !ok {
			t.Errorf("no rule can name %s", tag.Name)
		}
		var list []string
		for _, p := range tag.Prefixes {
			list = append(list, p.String())
			if a := p.Addr(); a != public.Unmap() && !f.tagged(known, a) {
				t.Errorf("a rule for %s says nothing about %s", tag.Name, a)
			}
		}
		got[tag.Name] = strings.Join(list, " ")
	}
	want := map[string]string{
		"AzureContainerRegistry":            "203.0.113.7/32 100.100.100.100/32",
		"AzureContainerRegistry.westeurope": "203.0.113.7/32 100.100.100.100/32",
		"AzureContainerRegistry.eastus":     "203.0.113.7/32 100.100.100.100/32",
		"AzureCloud":                        "203.0.113.7/32 100.100.100.100/32",
		"AzureLoadBalancer":                 "168.63.129.16/32",
		"AzurePlatformDNS":                  "168.63.129.16/32",
		"AzurePlatformIMDS":                 "169.254.169.254/32",
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func flow(spec string) Flow {
	f := strings.Fields(spec)
	from, to := netip.MustParseAddrPort(f[1]), netip.MustParseAddrPort(f[3])
	return Flow{protocols[map[string]string{"tcp": "Tcp", "udp": "Udp"}[f[0]]], from.Addr(), to.Addr(), from.Port(), to.Port()}
}

func TestSecurityGroupsThatCannotBe(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		for spec, path := range map[string]string{
			"out 99 Deny Tcp */* > */*":                               "properties.priority",
			"out 4097 Deny Tcp */* > */*":                             "properties.priority",
			"out 200 Perhaps Tcp */* > */*":                           "properties.access",
			"up 200 Deny Tcp */* > */*":                               "properties.direction",
			"out 200 Deny Sctp */* > */*":                             "properties.protocol",
			"out 200 Deny Tcp */* > Azure/*":                          "properties.destinationAddressPrefix",
			"out 200 Deny Tcp ::1/* > */*":                            "properties.sourceAddressPrefix",
			"out 200 Deny Tcp */* > */70000":                          "properties.destinationPortRange",
			"out 200 Deny Tcp */9-1 > */*":                            "properties.sourcePortRange",
			"out 200 Deny Tcp */* > AzureContainerRegistry.nowhere/*": "properties.destinationAddressPrefix",
		} {
			w.put(groupID, `{"location":"local"}`)
			_, err := w.try(owner, groupID+"/securityRules/r", `{"properties":`+secRule(spec)+`}`)
			w.invalid(err, path)
		}
		w.put(groupID+"/securityRules/a", `{"properties":`+secRule("out 200 Deny Tcp */* > */*")+`}`)
		w.put(groupID+"/securityRules/b", `{"properties":`+secRule("in 200 Deny Tcp */* > */*")+`}`)
		_, err := w.try(owner, groupID+"/securityRules/c", `{"properties":`+secRule("out 200 Allow Udp */* > */*")+`}`)
		w.refused(err, "SecurityRuleConflict")
		got := w.get(groupID)
		if n := len(listAt(got, "properties", "securityRules")); n != 2 || len(listAt(got, "properties", "defaultSecurityRules")) != 6 {
			w.Errorf("the group is %s", text(got))
		}
		w.put(groupID, text(got)) // what was shown, sent back
		if n := len(listAt(w.get(groupID), "properties", "securityRules")); n != 2 {
			w.Errorf("an echo leaves %d rules", n)
		}
		_, err = w.try(stranger, subnetID, fmt.Sprintf(`{"properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":%q}}}`, groupID))
		w.refused(err, "LinkedAuthorizationFailed")
		_, err = w.try(owner, subnetID, fmt.Sprintf(`{"properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":%q}}}`, groupID+"x"))
		w.refused(err, "InvalidResourceReference")
		w.put(subnetID, fmt.Sprintf(`{"properties":{"addressPrefix":"10.0.0.0/24","networkSecurityGroup":{"id":%q}}}`, groupID))
		// Azure answers 400 to what is in use.
		err = w.tryDelete(groupID)
		w.refused(err, "InUseNetworkSecurityGroupCannotBeDeleted")
		if !fault.Is(err, fault.Invalid) || !errors.Is(err, resource.ErrInUse) {
			w.Error(err)
		}
		w.nic("vm", "")
		if err := w.tryDelete(subnetID); !fault.Is(err, fault.Invalid) {
			w.Error(err)
		}
		w.delete(group) // they go together nonetheless
	})
}

func vnetAt(name string) string {
	return group + "/providers/Microsoft.Network/virtualNetworks/" + name
}

func (w *world) peer(from, to string) resource.Object {
	w.Helper()
	return w.put(vnetAt(from)+"/virtualNetworkPeerings/"+to, peerBody(to))
}

func peerBody(to string) string {
	return fmt.Sprintf(`{"properties":{"remoteVirtualNetwork":{"id":%q},"allowVirtualNetworkAccess":true,"allowForwardedTraffic":false,"allowGatewayTransit":false,"useRemoteGateways":false}}`, vnetAt(to))
}

// Two networks are joined when both sides say so; then a member of one has a
// way to the endpoints of the other, and no further.
func TestPeerings(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		for name, prefix := range map[string]string{"spoke": "10.1.0.0/16", "far": "10.2.0.0/16", "twin": "10.0.128.0/17"} {
			w.put(vnetAt(name), fmt.Sprintf(`{"location":"local","properties":{"addressSpace":{"addressPrefixes":[%q]},"subnets":[{"name":"s","properties":{"addressPrefix":%q}}]}}`, prefix, strings.Replace(prefix, "/16", "/24", 1)))
		}
		w.registry()
		w.pe("pe")
		w.put(nicID("vm"), nicBody(vnetAt("spoke")+"/subnets/s", ""))
		member := w.put(memberID("vm", "m"), memberBody(newKey(), "vm"))
		sees := func(network string) bool {
			e := w.m.Endpoint(arm.MustID(vnetAt(network)).Key(), netip.MustParseAddr("10.0.0.4"))
			wanted, _ := w.m.Wanted(arm.MustID(vnetAt(network)).Key())
			if has := wanted.Addresses.Has(netip.MustParseAddr("10.0.0.4")); has != (e != nil) {
				w.Errorf("%s: the overlay answers at it: %v, the data path knows it: %v", network, has, e != nil)
			}
			return e != nil
		}
		state := func(from, to string) string {
			return textAt(w.get(vnetAt(from)+"/virtualNetworkPeerings/"+to), "properties", "peeringState")
		}
		if got := w.peer("spoke", "dock"); textAt(got, "properties", "peeringState") != "Initiated" || sees("spoke") {
			w.Errorf("one side: %s, sees it %v", text(got), sees("spoke"))
		}
		if text(at(member, "properties", "configuration", "allowedIPs")) == "" || strings.Contains(text(member), "10.0.0.0/16") {
			w.Error("a member is told of a network that its own is not joined with")
		}
		w.peer("far", "spoke")
		w.peer("spoke", "far")
		got := w.peer("dock", "spoke")
		if textAt(got, "properties", "peeringState") != "Connected" || state("spoke", "dock") != "Connected" || text(at(got, "properties", "remoteAddressSpace", "addressPrefixes")) != `["10.1.0.0/16"]` {
			w.Errorf("both sides: %s and %s", text(got), state("spoke", "dock"))
		}
		if !sees("spoke") || !sees("dock") || sees("far") {
			w.Errorf("the endpoint is seen from the spoke %v, the hub %v, the spoke's spoke %v", sees("spoke"), sees("dock"), sees("far"))
		}
		if !strings.Contains(text(w.get(memberID("vm", "m"))), "10.0.0.0/16") {
			w.Error("a member is not told the way")
		}
		// It was there before, so it does not know the way until it is written
		// again; the hub's own members always did.
		behind := func(network string) string {
			var out []string
			for _, b := range w.m.Behind(arm.MustID(vnetAt(network)).Key()) {
				out = append(out, fmt.Sprint(b.ID.Name(), b.Lacks))
			}
			return strings.Join(out, " ")
		}
		w.nic("own", "")
		w.put(memberID("own", "o"), memberBody(newKey(), "vm"))
		if got := behind("spoke") + ";" + behind("dock") + ";" + behind("far"); got != "m[10.0.0.0/16];;" {
			w.Errorf("without a route to private endpoints: %q", got)
		}
		// It may also ask, as the clients of our own do.
		spoke, at := arm.MustID(vnetAt("spoke")).Key(), netip.MustParseAddr("10.1.0.4")
		// One side that lets nobody in is no way, and no reason to write again.
		w.put(vnetAt("far")+"/virtualNetworkPeerings/spoke", strings.Replace(peerBody("spoke"), `"allowVirtualNetworkAccess":true`, `"allowVirtualNetworkAccess":false`, 1))
		var written [2]string
		for i := range written {
			told, err := w.m.Tell(w.Context(), w.store, spoke, at)
			w.check(err)
			written[i] = textAt(w.get(memberID("vm", "m")), "etag")
			if fmt.Sprint(told) != "[10.1.0.0/16 10.0.0.0/16]" || behind("spoke") != "" {
				w.Errorf("told of %v, it is still without a route: %q", told, behind("spoke"))
			}
		}
		if written[0] == "" || written[0] != written[1] {
			w.Error("who asks again is written again")
		}
		if _, err := w.m.Tell(w.Context(), w.store, spoke, at.Next()); !errors.Is(err, resource.ErrUnknown) {
			w.Errorf("an address that is no member's is told: %v", err)
		}
		w.put(memberID("vm", "m"), memberBody(newKey(), "vm"))
		if got := behind("spoke"); got != "" {
			w.Errorf("written again, still without a route: %q", got)
		}
		if strings.Contains(text(w.get(memberID("vm", "m"))), "routes") {
			w.Error("what is kept of a member's routes is shown")
		}
		if n := len(listAt(w.get(vnetAt("spoke")), "properties", "virtualNetworkPeerings")); n != 2 {
			w.Errorf("the network shows %d peerings", n)
		}
		// What cannot be.
		_, err := w.try(owner, vnetAt("dock")+"/virtualNetworkPeerings/again", peerBody("spoke"))
		w.refused(err, "AnotherPeeringAlreadyReferencesRemoteVnet")
		_, err = w.try(owner, vnetAt("dock")+"/virtualNetworkPeerings/twin", peerBody("twin"))
		w.refused(err, "VnetAddressSpacesOverlap")
		_, err = w.try(owner, vnetAt("dock")+"/virtualNetworkPeerings/self", peerBody("dock"))
		w.invalid(err, "properties.remoteVirtualNetwork.id")
		_, err = w.try(owner, vnetAt("dock")+"/virtualNetworkPeerings/far", strings.Replace(peerBody("far"), `"useRemoteGateways":false`, `"useRemoteGateways":true`, 1))
		w.invalid(err, "properties.useRemoteGateways")
		_, err = w.try(nobody, vnetAt("dock")+"/virtualNetworkPeerings/far", peerBody("far"))
		w.refused(err, "LinkedAuthorizationFailed")
		_, err = w.try(owner, vnetAt("far"), `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.2.0.0/16","10.1.0.0/24"]}}}`)
		w.refused(err, "VnetAddressSpacesOverlap")
		// A side can be closed, and one that is gone leaves the other dead.
		w.put(vnetAt("dock")+"/virtualNetworkPeerings/spoke", strings.Replace(peerBody("spoke"), `Access":true`, `Access":false`, 1))
		if sees("spoke") {
			w.Error("a side that allows nothing is passed")
		}
		w.put(vnetAt("dock")+"/virtualNetworkPeerings/spoke", peerBody("spoke"))
		if !sees("spoke") {
			w.Error("a side that was opened again is not passed")
		}
		w.delete(vnetAt("dock") + "/virtualNetworkPeerings/spoke")
		if sees("spoke") || state("spoke", "dock") != "Disconnected" {
			w.Errorf("after one side went: seen %v, %s", sees("spoke"), state("spoke", "dock"))
		}
		_, err = w.try(owner, vnetAt("dock")+"/virtualNetworkPeerings/spoke", peerBody("spoke"))
		w.refused(err, "RemotePeeringIsDisconnected")
		w.delete(vnetAt("spoke") + "/virtualNetworkPeerings/dock")
		w.peer("dock", "spoke")
		w.peer("spoke", "dock")
		if !sees("spoke") {
			w.Error("made again, it does not work")
		}
		w.delete(group)
	})
}

// A lookup costs the same among 200 endpoints as among one.
func BenchmarkLookupAmong200Endpoints(b *testing.B) {
	s := &snapshot{}
	a := netip.MustParseAddr("10.0.0.4")
	for range 400 {
		s.slots = s.slots.With(a, &slot{endpoint: &Endpoint{State: Approved, Address: a}})
		a = a.Next()
	}
	m := &Map{}
	m.table.Store(&map[string]*snapshot{"office": s})
	at := netip.MustParseAddr("10.0.1.7")
	b.ReportAllocs()
	for b.Loop() {
		if m.Endpoint("office", at) == nil {
			b.Fatal("no endpoint")
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	var rules []rule
	for i := range 200 {
		rules = append(rules, rule{priority: 100 + i, protocol: 6, from: places{any: true}, to: places{prefixes: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.9.%d.0/24", i))}}})
	}
	f := &Filter{sides: Table[netip.Addr, *side]{}.With(netip.MustParseAddr("10.0.0.20"), &side{out: [][]rule{ordered("walls", rules)}}), inside: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
	w := flow("tcp 10.0.0.20:4000 > 10.0.0.4:443")
	b.ReportAllocs()
	for b.Loop() {
		if !f.Admit(w) {
			b.Fatal("denied")
		}
	}
}

// What a security group costs to read and to write does not grow with how many
// subnets and interfaces there are that are not under it.
func TestAGroupCostsTheSameAmongMany(t *testing.T) {
	w := newWorld(t, storetest.Open(t, storetest.SQLite(t)))
	w.vnet("10.0.0.0/16", "10.0.0.0/24")
	walls := group + "/providers/" + TypeGroup + "/walls"
	w.put(walls, `{"location":"local"}`)
	w.nic("card", "")
	card := nicID("card")
	cost := func() float64 {
		n := 0
		return testing.AllocsPerRun(20, func() {
			n++
			w.get(walls)
			w.put(walls, fmt.Sprintf(`{"location":"local","tags":{"n":"%d"}}`, n))
		})
	}
	few := cost()
	w.update(func(ctx context.Context, tx resource.Tx) error {
		one, err := tx.Get(ctx, arm.MustID(card))
		for i := range 1000 {
			if err == nil {
				err = tx.Put(ctx, &resource.Doc{ID: arm.MustID(fmt.Sprintf("%s%d", card, i)), Body: one.Body})
			}
		}
		return err
	})
	if many := cost(); many > 2*few {
		t.Errorf("%.0f allocations among few, %.0f among a thousand", few, many)
	}
}
