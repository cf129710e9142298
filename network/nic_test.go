package network

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

func TestAddressesOfAPrefix(t *testing.T) {
	tests := []struct{ prefix, first, last string }{
		{"10.0.0.0/24", "10.0.0.4", "10.0.0.254"},
		{"10.0.0.8/29", "10.0.0.12", "10.0.0.14"},
		{"10.0.0.0/16", "10.0.0.4", "10.0.255.254"},
		{"10.0.0.0/13", "10.0.0.4", "10.7.255.254"},
	}
	for _, tt := range tests {
		first, last := usable(netip.MustParsePrefix(tt.prefix))
		if first.String() != tt.first || last.String() != tt.last {
			t.Errorf("%s: %s to %s, want %s to %s", tt.prefix, first, last, tt.first, tt.last)
		}
	}
}

func TestDynamicAddresses(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		for i, want := range []string{"10.0.0.4", "10.0.0.5", "10.0.0.6"} {
			if got := w.nic(fmt.Sprint("vm", i), ""); got != want {
				w.Errorf("interface %d got %s, want %s", i, got, want)
			}
		}
		shown := objectsAt(w.get(nicID("vm0")), "properties", "ipConfigurations")[0]
		if textAt(shown, "properties", "privateIpAddress") != "10.0.0.4" {
			w.Error("the address cannot be read as privateIpAddress, the name that the article queries by")
		}
		// Whoever knew the old holder of .4 must not reach a stranger there.
		w.delete(nicID("vm0"))
		if got := w.nic("vm3", ""); got != "10.0.0.7" {
			w.Errorf("after .4 was given back, %s was given; want 10.0.0.7", got)
		}
		// An interface keeps its address when it is written again.
		if got := w.nic("vm1", ""); got != "10.0.0.5" {
			w.Errorf("a second PUT moved the interface to %s", got)
		}
	})
}

func TestSubnetIsFull(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/29") // .4 to .6
		for i := range 3 {
			w.nic(fmt.Sprint("vm", i), "")
		}
		before := w.docs()
		_, err := w.try(owner, nicID("late"), nicBody(subnetID, ""))
		w.refused(err, "SubnetIsFull")
		if n := w.docs(); n != before {
			w.Errorf("a refused interface left %d documents", n-before)
		}
		// The address that was freed is the only one left, so it is given.
		w.delete(nicID("vm1"))
		if got := w.nic("late", ""); got != "10.0.0.5" {
			w.Errorf("got %s, want 10.0.0.5", got)
		}
	})
}

func TestEndpointThatDoesNotFitLeavesNothing(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/29")
		w.registry()
		w.nic("vm0", "")
		w.nic("vm1", "")
		before, reg := w.docs(), text(w.get(regID))
		_, err := w.try(owner, peID("pe"), peBody(automatic, subnetID, regID)) // needs two, one is free
		w.refused(err, "SubnetIsFull")
		if n := w.docs(); n != before {
			w.Errorf("the refused endpoint left %d documents", n-before)
		}
		if now := text(w.get(regID)); now != reg {
			w.Errorf("the refused endpoint changed the registry to %s", now)
		}
		if got := w.nic("vm2", ""); got != "10.0.0.6" {
			w.Errorf("the last address is %s, want 10.0.0.6", got)
		}
	})
}

func TestStaticAddresses(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.nic("vm", "10.0.0.4")
		if got := w.nic("next", ""); got != "10.0.0.5" {
			w.Errorf("a dynamic interface got %s beside a static 10.0.0.4", got)
		}
		for address, code := range map[string]string{
			"10.0.1.4":   "PrivateIPAddressNotInSubnet",
			"10.0.0.0":   "PrivateIPAddressInReservedRange",
			"10.0.0.3":   "PrivateIPAddressInReservedRange",
			"10.0.0.255": "PrivateIPAddressInReservedRange",
			"10.0.0.5":   "PrivateIPAddressIsAllocated",
		} {
			_, err := w.try(owner, nicID("other"), nicBody(subnetID, address))
			w.refused(err, code)
		}
		_, err := w.try(owner, nicID("other"), nicBody(subnetID, "fd00::4"))
		w.invalid(err, "properties.ipConfigurations[0].properties.privateIPAddress")

		// Moving an interface gives the old address back.
		w.nic("vm", "10.0.0.9")
		w.nic("other", "10.0.0.4")
	})
}

func TestStaticBeforeDynamicInOneBody(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.put(nicID("vm"), fmt.Sprintf(`{"location":"local","properties":{"ipConfigurations":[
			{"name":"a","properties":{"subnet":{"id":%[1]q}}},
			{"name":"b","properties":{"subnet":{"id":%[1]q},"privateIPAllocationMethod":"static","privateIPAddress":"10.0.0.4"}}]}}`, subnetID))
		if got := addressOf(w.get(nicID("vm"))); got != "10.0.0.5" {
			w.Errorf("the dynamic configuration got %s", got)
		}
	})
}

func TestInterfaceNeedsTheRightToJoin(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		// The same answer for a subnet that exists and one that does not.
		for _, id := range []string{subnetID, vnetID + "/subnets/nowhere"} {
			_, err := w.try(nobody, nicID("vm"), nicBody(id, ""))
			w.refused(err, "LinkedAuthorizationFailed")
		}
		_, err := w.try(owner, nicID("vm"), nicBody(vnetID+"/subnets/nowhere", ""))
		w.refused(err, "InvalidResourceReference")
		_, err = w.try(owner, nicID("vm"), nicBody(vnetID, ""))
		w.invalid(err, "properties.ipConfigurations[0].properties.subnet.id")
	})
}

func TestConcurrentInterfacesGetDifferentAddresses(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		const n = 8
		got := make([]string, n)
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				out, err := w.try(owner, nicID(fmt.Sprint("vm", i)), nicBody(subnetID, ""))
				if err != nil {
					w.Error(err)
					return
				}
				got[i] = addressOf(out)
			})
		}
		wg.Wait()
		seen := map[string]bool{}
		for _, a := range got {
			if a == "" || seen[a] {
				w.Errorf("addresses %v: %q is missing or given twice", got, a)
			}
			seen[a] = true
		}
	})
}

// A full page of taken addresses must not end the search early.
func TestFreeAddressAfterManyTaken(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/22")
		var s subnet
		w.check(w.raw.View(w.Context(), func(r resource.Reader) (err error) {
			s, err = loadSubnet(w.Context(), r, arm.MustID(subnetID))
			return err
		}))
		first, _ := usable(s.prefixes[0])
		w.check(w.store.Update(w.Context(), func(tx resource.Tx) error {
			for i, a := 0, first; i < 600; i, a = i+1, a.Next() {
				if err := s.hold(w.Context(), tx, a, arm.MustID(nicID("crowd"))); err != nil {
					return err
				}
			}
			return nil
		}))
		if got := w.nic("vm", ""); got != "10.0.2.92" {
			w.Errorf("the address after 600 taken ones is %s, want 10.0.2.92", got)
		}
	})
}
