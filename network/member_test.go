package network

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"cove.example/cove/arm"
)

func TestMemberIsToldItsConfiguration(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.nic("laptop", "")
		got := w.put(memberID("laptop", "me"), memberBody(newKey(), ""))
		want := resourceConfiguration(textAt(w.get(vnetID), "properties", "cove", "publicKey"))
		if have := text(at(got, "properties", "configuration")); have != want {
			w.Errorf("configuration\n%s\nwant\n%s", have, want)
		}
		if k := textAt(got, "properties", "kind"); k != "vm" {
			w.Errorf("kind is %q, want vm", k)
		}
		m := w.m.Member(arm.MustID(vnetID).Key(), netip.MustParseAddr("10.0.0.4"))
		if m == nil || m.Kind != "vm" || !m.Subnet.Equal(arm.MustID(subnetID)) || m.ID.String() != memberID("laptop", "me") {
			w.Fatalf("the data path sees %+v", m)
		}
		w.delete(memberID("laptop", "me"))
		if m := w.m.Member(arm.MustID(vnetID).Key(), netip.MustParseAddr("10.0.0.4")); m != nil {
			w.Error("a deleted member is still known")
		}
	})
}

func resourceConfiguration(public string) string {
	return fmt.Sprintf(`{"address":"10.0.0.4","allowedIPs":["10.0.0.0/16","168.63.129.16/32","100.100.100.100/32"],`+
		`"endpoint":"203.0.113.1:51820","mtu":1420,"resolver":"168.63.129.16","serverPublicKey":%q}`, public)
}

func TestKeysThatAreNone(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.nic("laptop", "")
		one := make([]byte, 32)
		one[0] = 1
		for _, key := range []string{
			"", "short", base64.StdEncoding.EncodeToString(make([]byte, 31)), base64.StdEncoding.EncodeToString(make([]byte, 33)),
			base64.StdEncoding.EncodeToString(make([]byte, 32)), base64.StdEncoding.EncodeToString(one), // of low order
		} {
			_, err := w.try(owner, memberID("laptop", "me"), memberBody(key, "vm"))
			w.invalid(err, "properties.publicKey")
		}
		_, err := w.try(owner, memberID("laptop", "me"), memberBody(newKey(), "toaster"))
		w.invalid(err, "properties.kind")
		_, err = w.try(owner, vnetID+"/providers/Cove.Network/members/me", memberBody(newKey(), "vm"))
		w.invalid(err, "id")
		_, err = w.try(owner, memberID("laptop", "me"), memberBody(textAt(w.get(vnetID), "properties", "cove", "publicKey"), "vm"))
		w.refused(err, "PublicKeyInUse")
	})
}

func TestOneKeyOneMember(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.nic("a", "")
		w.nic("b", "")
		key, second := newKey(), newKey()
		w.put(memberID("a", "m"), memberBody(key, "vm"))
		_, err := w.try(owner, memberID("b", "m"), memberBody(key, "vm"))
		w.refused(err, "PublicKeyInUse")
		if _, err := w.try(owner, memberID("a", "other"), memberBody(newKey(), "vm")); err == nil {
			w.Error("one interface has two machines")
		}
		// A key that was replaced or whose member has gone is free again.
		w.put(memberID("a", "m"), memberBody(second, "aks"))
		w.put(memberID("b", "m"), memberBody(key, "vm"))
		w.delete(nicID("a"))
		w.put(memberID("b", "m"), memberBody(second, "vm"))

		// Another network does not care.
		const other = group + "/providers/Microsoft.Network/virtualNetworks/other"
		w.put(other, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},
			"subnets":[{"name":"pier","properties":{"addressPrefix":"10.0.0.0/24"}}]}}`)
		w.put(nicID("c"), nicBody(other+"/subnets/pier", ""))
		w.put(memberID("c", "m"), memberBody(second, "aci"))
		m := w.m.Member(arm.MustID(other).Key(), netip.MustParseAddr("10.0.0.4"))
		if m == nil || m.Kind != "aci" {
			w.Errorf("the same address in the other network is %+v", m)
		}
		if m := w.m.Member(arm.MustID(vnetID).Key(), netip.MustParseAddr("10.0.0.4")); m != nil {
			w.Errorf("10.0.0.4 of the first network is %+v, and its interface has gone", m)
		}
	})
}

func TestConcurrentMembersWithOneKey(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		key := newKey()
		const n = 6
		for i := range n {
			w.nic(fmt.Sprint("vm", i), "")
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for i := range n {
			wg.Go(func() {
				if _, err := w.try(owner, memberID(fmt.Sprint("vm", i), "m"), memberBody(key, "vm")); err == nil {
					mu.Lock()
					made++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		if made != 1 {
			w.Errorf("%d members have the key, want 1", made)
		}
	})
}

// A member chooses where it asks for names, and by that takes nobody's address:
// not one of its network's, of a network that is joined with it, or of the
// registries' public side, about which security groups would then have no say.
func TestAResolverIsNobodysAddress(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.put(vnetAt("spoke"), `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]},"subnets":[{"name":"s","properties":{"addressPrefix":"10.1.0.0/24"}}]}}`)
		w.registry()
		w.pe("pe") // 10.0.0.4
		w.peer("spoke", "dock")
		w.peer("dock", "spoke")
		w.put(nicID("vm"), nicBody(vnetAt("spoke")+"/subnets/s", ""))
		asking := func(at string) string {
			return strings.Replace(memberBody(newKey(), "vm"), `"publicKey"`, fmt.Sprintf(`"resolver":%q,"publicKey"`, at), 1)
		}
		for _, at := range []string{"10.1.0.9", "10.0.0.4", DefaultFrontEnd.String()} {
			_, err := w.try(owner, memberID("vm", "m"), asking(at))
			w.invalid(err, "properties.resolver")
		}
		// Later the network may grow over it; then it is a machine's.
		w.put(memberID("vm", "m"), asking("192.0.2.9"))
		key := arm.MustID(vnetAt("spoke")).Key()
		if got, _ := w.m.Wanted(key); !got.Addresses.Has(netip.MustParseAddr("192.0.2.9")) || len(got.Resolvers) != 1 {
			w.Errorf("the member's own resolver does not answer: %v", got.Resolvers)
		}
		w.put(vnetAt("spoke"), `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16","192.0.2.0/24"]},
			"subnets":[{"name":"s","properties":{"addressPrefix":"10.1.0.0/24"}},{"name":"t","properties":{"addressPrefix":"192.0.2.0/24"}}]}}`)
		w.put(nicID("new"), nicBody(vnetAt("spoke")+"/subnets/t", "192.0.2.9"))
		w.put(memberID("new", "n"), memberBody(newKey(), "vm"))
		if got, _ := w.m.Wanted(key); got.Addresses.Has(netip.MustParseAddr("192.0.2.9")) || !got.Peers.Has(netip.MustParseAddr("192.0.2.9")) || len(got.Resolvers) != 0 {
			w.Errorf("one address is a member's and the resolver's: %v", got.Resolvers)
		}
	})
}
