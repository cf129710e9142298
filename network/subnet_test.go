package network

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/uuid"

	"cove.example/cove/arm"
)

func TestVirtualNetworkShowsItsSubnetsAndItsPublicKeyOnly(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		got := w.get(vnetID)
		if key := textAt(got, "properties", "cove", "publicKey"); len(key) != 44 {
			w.Errorf("publicKey is %q, want 44 characters of base64", key)
		}
		if got["cove"] != nil {
			w.Error("the sealed private key was shown")
		}
		sub := objectsAt(got, "properties", "subnets")[0]
		if textAt(sub, "id") != subnetID || textAt(sub, "properties", "addressPrefix") != "10.0.0.0/24" {
			w.Errorf("the inline subnet is %s", text(sub))
		}
		// Absent counts as Disabled: Azure needs it so for private endpoints.
		if p := textAt(w.get(subnetID), "properties", "privateEndpointNetworkPolicies"); p != "Disabled" {
			w.Errorf("privateEndpointNetworkPolicies is %q", p)
		}
	})
}

func TestVirtualNetworkKeepsItsKey(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		before := textAt(w.get(vnetID), "properties", "cove", "publicKey")
		w.put(vnetID, `{"location":"local","tags":{"a":"b"},"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},
			"cove":{"publicKey":"theirs"}},"cove":{"privateKey":"theirs"}}`)
		if after := textAt(w.get(vnetID), "properties", "cove", "publicKey"); after != before {
			w.Errorf("the key changed from %q to %q", before, after)
		}
		if n, ok := w.m.Wanted(arm.MustID(vnetID).Key()); !ok {
			w.Error("no overlay is wanted")
		} else if pub, _ := n.PrivateKey.public(); pub != before {
			w.Errorf("the tunnel's public key is %q, the resource's %q", pub, before)
		}
	})
}

func TestInlineSubnetsAreTheSubnets(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		etag := w.get(subnetID)["etag"]
		space := `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]}%s}}`

		w.put(vnetID, fmt.Sprintf(space, `,"subnets":[{"name":"pier","properties":{"addressPrefix":"10.0.0.0/24"}},
			{"name":"quay","properties":{"addressPrefixes":["10.0.1.0/24"],"unheardOf":7}}]`))
		if now := w.get(subnetID)["etag"]; now != etag {
			w.Error("an unchanged subnet was written again")
		}
		if got := text(at(w.get(vnetID+"/subnets/quay"), "properties", "unheardOf")); got != "7" {
			w.Errorf("an unknown property became %s", got)
		}
		// They stand in the order in which they were listed, with those made
		// since at the end.
		w.put(vnetID+"/subnets/jetty", `{"properties":{"addressPrefix":"10.0.2.0/24"}}`)
		w.put(vnetID, fmt.Sprintf(space, `,"tags":{},"subnets":[{"name":"quay","properties":{"addressPrefixes":["10.0.1.0/24"]}},
			{"name":"Pier","properties":{"addressPrefix":"10.0.0.0/24"}}]`))
		w.put(vnetID+"/subnets/jetty", `{"properties":{"addressPrefix":"10.0.2.0/24"}}`)
		order := ""
		for _, s := range objectsAt(w.get(vnetID), "properties", "subnets") {
			order += textAt(s, "name") + " "
		}
		if order != "quay pier jetty " {
			w.Errorf("the subnets are %sin this order", order)
		}
		// A body that does not mention them leaves them alone, one that lists
		// others takes them away.
		w.put(vnetID, fmt.Sprintf(space, ``))
		if n := len(objectsAt(w.get(vnetID), "properties", "subnets")); n != 3 {
			w.Errorf("%d subnets are left, want 3", n)
		}
		w.put(vnetID, fmt.Sprintf(space, `,"subnets":[]`))
		if n := len(objectsAt(w.get(vnetID), "properties", "subnets")); n != 0 {
			w.Errorf("%d subnets are left, want 0", n)
		}
	})
}

func TestWhatAClientWasShownItMaySendBack(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.pe("pe")
		w.nic("vm", "")
		for _, id := range []string{vnetID, subnetID, nicID("vm"), peID("pe")} {
			first := w.get(id)
			w.put(id, text(first))
			if again := w.get(id); text(again) != text(first) {
				w.Errorf("%s was %s and became %s", id, text(first), text(again))
			}
		}
	})
}

func TestPrefixesThatCannotBe(t *testing.T) {
	each(t, func(w *world) {
		const path = "properties.addressSpace.addressPrefixes"
		for _, p := range []string{"10.0.0.1/16", "10.0.0.0", "nonsense", "fd00::/64", "10.0.0.0/30", "0.0.0.0/0", "127.0.0.0/16", "169.254.0.0/17", "168.63.0.0/16", "100.100.0.0/16", "239.0.0.0/8"} {
			_, err := w.try(owner, vnetID, fmt.Sprintf(`{"location":"local","properties":{"addressSpace":{"addressPrefixes":[%q]}}}`, p))
			w.invalid(err, path)
		}
		_, err := w.try(owner, vnetID, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16","10.0.1.0/24"]}}}`)
		w.invalid(err, path)
		_, err = w.try(owner, vnetID, `{"location":"local","properties":{}}`)
		w.invalid(err, path)
		if n := w.docs(); n != 3 { // tenant, subscription, group
			w.Errorf("%d documents are left of what was refused", n-3)
		}
	})
}

func TestSubnetsFitTheirNetworkAndEachOther(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		quay := vnetID + "/subnets/quay"
		_, err := w.try(owner, quay, `{"properties":{"addressPrefix":"10.1.0.0/24"}}`)
		w.refused(err, "NetcfgSubnetRangeOutsideVnet")
		_, err = w.try(owner, quay, `{"properties":{"addressPrefix":"10.0.0.128/25"}}`)
		w.refused(err, "NetcfgSubnetRangesOverlap")
		_, err = w.try(owner, quay, `{"properties":{"addressPrefix":"10.0.1.0/30"}}`)
		w.invalid(err, "properties.addressPrefix")
		_, err = w.try(owner, quay, `{"properties":{}}`)
		w.invalid(err, "properties.addressPrefix")
		w.put(quay, `{"properties":{"addressPrefixes":["10.0.1.0/29"],"serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}]}}`)
		if s := textAt(objectsAt(w.get(quay), "properties", "serviceEndpoints")[0], "service"); s != "Microsoft.ContainerRegistry" {
			w.Errorf("the service endpoint is %q", s)
		}
		// The network cannot shrink from under a subnet.
		_, err = w.try(owner, vnetID, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/24"]}}}`)
		w.refused(err, "NetcfgSubnetRangeOutsideVnet")
	})
}

func TestSubnetInUseStays(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/25")
		w.nic("vm", "")
		w.refused(w.tryDelete(subnetID), "InUseSubnetCannotBeDeleted")
		w.refused(w.tryDelete(vnetID), "InUseSubnetCannotBeDeleted")
		_, err := w.try(owner, vnetID, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[]}}`)
		w.refused(err, "InUseSubnetCannotBeDeleted")
		_, err = w.try(owner, subnetID, `{"properties":{"addressPrefix":"10.0.0.0/26"}}`)
		w.refused(err, "InUsePrefixCannotBeDeleted")
		w.put(subnetID, `{"properties":{"addressPrefix":"10.0.0.0/24"}}`)

		w.delete(nicID("vm"))
		w.delete(vnetID)
		if n := w.docs(); n != 3 {
			w.Errorf("%d documents are left of the network", n-3)
		}
	})
}

// What a network cannot do is refused: kept and shown, it would be taken for
// done. What asks for nothing is kept, since clients send that too.
func TestWhatNetworksCannotDo(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		const vnet = `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[{"name":"pier","properties":{"addressPrefix":"10.0.0.0/24"%s}}]%s}}`
		const subnet = `{"properties":{"addressPrefix":"10.0.0.0/24"%s}}`
		nic := strings.TrimSuffix(nicBody(subnetID, ""), "}}") + "%s}}"
		config := strings.Replace(nicBody(subnetID, ""), `"subnet"`, `%s"subnet"`, 1)
		pe := strings.TrimSuffix(peBody(automatic, subnetID, regID), "}}") + "%s}}"
		for _, c := range []struct{ id, body, asks, path, quiet string }{
			{vnetID, vnet, `"enableDdosProtection":true`, "enableDdosProtection", `"enableDdosProtection":false`},
			{vnetID, vnet, `"enableVmProtection":true`, "enableVmProtection", `"enableVmProtection":false`},
			{vnetID, vnet, `"encryption":{"enabled":true}`, "encryption.enabled", `"encryption":{"enabled":false,"enforcement":"AllowUnencrypted"}`},
			{vnetID, vnet, `"dhcpOptions":{"dnsServers":["10.0.0.9"]}`, "dhcpOptions.dnsServers", `"dhcpOptions":{"dnsServers":[]}`},
			{vnetID, vnet, `"flowTimeoutInMinutes":10`, "flowTimeoutInMinutes", `"flowTimeoutInMinutes":null`},
			{vnetID, vnet, `"bgpCommunities":{"virtualNetworkCommunity":"12076:20000"}`, "bgpCommunities", `"bgpCommunities":{"virtualNetworkCommunity":""},"ipAllocations":[]`},
			{subnetID, subnet, `"routeTable":{"id":"x"}`, "routeTable", `"routeTable":null`},
			{subnetID, subnet, `"natGateway":{"id":"x"}`, "natGateway", `"natGateway":null`},
			{subnetID, subnet, `"delegations":[{"name":"0"}]`, "delegations", `"delegations":[]`},
			{subnetID, subnet, `"serviceEndpointPolicies":[{"id":"x"}]`, "serviceEndpointPolicies", `"serviceEndpointPolicies":[]`},
			{nicID("n"), nic, `"enableIPForwarding":true`, "enableIPForwarding", `"enableIPForwarding":false`},
			{nicID("n"), nic, `"enableAcceleratedNetworking":true`, "enableAcceleratedNetworking", `"dnsSettings":{"dnsServers":[]}`},
			{nicID("n"), nic, `"dnsSettings":{"dnsServers":["10.0.0.9"]}`, "dnsSettings.dnsServers", `"auxiliaryMode":"None"`},
			{nicID("n"), config, `"publicIPAddress":{"id":"x"}`, "ipConfigurations[0].properties.publicIPAddress", `"loadBalancerBackendAddressPools":[]`},
			{nicID("n"), config, `"applicationSecurityGroups":[{"id":"x"}]`, "ipConfigurations[0].properties.applicationSecurityGroups", `"applicationSecurityGroups":null`},
			{peID("p"), pe, `"applicationSecurityGroups":[{"id":"x"}]`, "applicationSecurityGroups", `"applicationSecurityGroups":[]`},
		} {
			body := func(more string) string {
				switch c.body {
				case vnet:
					return fmt.Sprintf(vnet, "", ","+more)
				case config:
					return fmt.Sprintf(config, more+",")
				}
				return fmt.Sprintf(c.body, ","+more)
			}
			_, err := w.try(owner, c.id, body(c.asks))
			w.invalid(err, "properties."+c.path)
			w.put(c.id, body(c.quiet))
		}
		_, err := w.try(owner, vnetID, fmt.Sprintf(vnet, `,"routeTable":{"id":"x"}`, ""))
		w.invalid(err, "properties.subnets[0].properties.routeTable")
	})
}

// Some clients read resourceGuid as a GUID and nothing else. It is the
// resource's: another one under the same name has another.
func TestResourceGUIDs(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.pe("pe")
		w.nic("vm", "")
		seen := map[string]bool{}
		look := func(id string) string {
			g := textAt(w.get(id), "properties", "resourceGuid")
			if _, err := uuid.Parse(g); err != nil || seen[g] {
				w.Errorf("%s: the resourceGuid is %q, %v", id, g, err)
			}
			seen[g] = true
			return g
		}
		look(vnetID)
		look(peID("pe"))
		first := look(nicID("vm"))
		w.nic("vm", "")
		if again := textAt(w.get(nicID("vm")), "properties", "resourceGuid"); again != first {
			w.Errorf("%s became %s", first, again)
		}
		w.delete(nicID("vm"))
		w.nic("vm", "")
		look(nicID("vm"))
	})
}

// A subnet is in use until the endpoints and machines in it have gone, so the
// order matters.
func TestGroupWithEverythingInItIsDeleted(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.pe("pe")
		w.nic("vm", "")
		w.put(memberID("vm", "m"), memberBody(newKey(), "vm"))
		if _, err := w.act(owner, subnetID, "joinCode", `{"name":"laptop"}`); err != nil {
			w.Fatal(err)
		}
		w.delete(group)
		if n := w.docs(); n != 2 {
			w.Errorf("%d documents are left of the group", n-2)
		}
		if left := w.m.Networks(); len(left) > 0 {
			w.Errorf("the map still has %v", left)
		}
	})
}
