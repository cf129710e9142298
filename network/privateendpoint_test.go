package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

// row:45 The interface of an endpoint has one address for the registry and
// one for its data endpoint, each with the member's name and its names.
// row:41 The registry has a connection for it.
func TestPrivateEndpoint(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		pe := w.pe("pe")
		nic := w.get(textAt(objectsAt(pe, "properties", "networkInterfaces")[0], "id"))
		type line struct{ member, fqdn, address string }
		var got []line
		for _, c := range objectsAt(nic, "properties", "ipConfigurations") {
			l := objectAt(c, "properties", "privateLinkConnectionProperties")
			if textAt(l, "groupId") != "registry" {
				w.Errorf("groupId is %q", textAt(l, "groupId"))
			}
			got = append(got, line{textAt(l, "requiredMemberName"), listAt(l, "fqdns")[0].(string), textAt(c, "properties", "privateIPAddress")})
		}
		want := []line{
			{"registry", "myregistry.cr.cove.internal", "10.0.0.4"},
			{"registry_data_local", "myregistry.local.data.cr.cove.internal", "10.0.0.5"},
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			w.Errorf("the interface has %v, want %v", got, want)
		}
		if s := stateOf(pe); s != Approved {
			w.Errorf("the owner's endpoint is %s", s)
		}
		conn := w.get(w.connection(peID("pe")))
		if !strings.HasPrefix(conn["name"].(string), "pe.") || readState(conn).Status != Approved || textAt(conn, "properties", "privateEndpoint", "id") != peID("pe") {
			w.Errorf("the connection is %s", text(conn))
		}
		reg := w.get(regID)
		if at(reg, "properties", "dataEndpointEnabled") != true || reg["cove"] != nil {
			w.Errorf("the registry is %s", text(reg))
		}
		dns := listAt(pe, "properties", "customDnsConfigs")
		if have := text(dns); have != `[{"fqdn":"myregistry.cr.cove.internal","ipAddresses":["10.0.0.4"]},{"fqdn":"myregistry.local.data.cr.cove.internal","ipAddresses":["10.0.0.5"]}]` {
			w.Errorf("customDnsConfigs is %s", have)
		}
		for addr, member := range map[string]string{"10.0.0.4": "registry", "10.0.0.5": "registry_data_local"} {
			e := w.m.Endpoint(arm.MustID(vnetID).Key(), netip.MustParseAddr(addr))
			if e == nil || e.Member != member || e.State != Approved || !e.Registry.Equal(arm.MustID(regID)) || !e.Connection.Equal(arm.MustID(conn["id"].(string))) || len(e.FQDNs) != 1 {
				w.Errorf("at %s the data path sees %+v", addr, e)
			}
		}
	})
}

func TestDeletedEndpointTakesEverythingWithIt(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		before := w.docs()
		nic := textAt(objectsAt(w.pe("pe"), "properties", "networkInterfaces")[0], "id")
		w.refused(w.tryDelete(nic), "CannotModifyNicAttachedToPrivateEndpoint")
		_, err := w.try(owner, nic, text(w.get(nic)))
		w.refused(err, "CannotModifyNicAttachedToPrivateEndpoint")
		_, err = w.try(owner, nic+"/providers/Cove.Network/members/m", memberBody(newKey(), "vm"))
		w.refused(err, "CannotModifyNicAttachedToPrivateEndpoint")
		w.refused(w.tryDelete(subnetID), "InUseSubnetCannotBeDeleted")

		w.delete(peID("pe"))
		if n := w.docs(); n != before+1 { // the cursor of the subnet
			w.Errorf("%d documents are left of the endpoint", n-before)
		}
		if e := w.m.Endpoint(arm.MustID(vnetID).Key(), netip.MustParseAddr("10.0.0.4")); e != nil {
			w.Error("the data path still has a deleted endpoint")
		}
		// That it once was private is remembered: a stale zone link then shows.
		w.check(w.raw.View(w.Context(), func(r resource.Reader) error {
			reg, err := r.Get(w.Context(), arm.MustID(regID))
			if at(reg.Body, "cove", "everPrivate") != true {
				w.Error("the registry forgot that it had a private endpoint")
			}
			return err
		}))
	})
}

// row:35 Basic and Standard registries have no private endpoints.
// row:39 The one group id is "registry".
func TestEndpointsThatCannotBe(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		for _, sku := range []string{"Basic", "Standard"} {
			reg := strings.Replace(regID, "Myregistry", "plain"+sku, 1)
			w.put(reg, fmt.Sprintf(`{"location":"local","sku":{"name":%q},"properties":{}}`, sku))
			_, err := w.try(owner, peID("pe"), peBody(automatic, subnetID, reg))
			w.refused(err, "SkuNotSupported")
		}
		_, err := w.try(owner, peID("pe"), peBody(automatic, subnetID, strings.Replace(regID, "Myregistry", "nowhere", 1)))
		w.refused(err, "InvalidResourceReference")
		_, err = w.try(owner, peID("pe"), peBody(automatic, vnetID+"/subnets/nowhere", regID))
		w.refused(err, "InvalidResourceReference")
		_, err = w.try(nobody, peID("pe"), peBody(automatic, subnetID, regID))
		w.refused(err, "LinkedAuthorizationFailed")
		_, err = w.try(owner, peID("pe"), peBody(automatic, subnetID, vnetID))
		w.invalid(err, "properties.privateLinkServiceConnections[0].properties.privateLinkServiceId")
		for _, groups := range []string{`[]`, `["blob"]`, `["registry","blob"]`} {
			_, err = w.try(owner, peID("pe"), strings.Replace(peBody(automatic, subnetID, regID), `["registry"]`, groups, 1))
			w.invalid(err, "properties.privateLinkServiceConnections[0].properties.groupIds")
		}
		_, err = w.try(owner, peID("pe"), fmt.Sprintf(`{"location":"local","properties":{"subnet":{"id":%q}}}`, subnetID))
		w.invalid(err, "properties.privateLinkServiceConnections")

		w.pe("pe")
		_, err = w.try(owner, peID("pe"), peBody(manual, subnetID, regID))
		w.refused(err, "PrivateEndpointCannotBeChanged")
		_, err = w.try(owner, peID("pe"), peBody(automatic, vnetID+"/subnets/other", regID))
		w.refused(err, "PrivateEndpointCannotBeChanged")
	})
}

func TestEndpointWithStaticAddresses(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		static := func(pairs ...string) string {
			var l []string
			for i := 0; i < len(pairs); i += 2 {
				l = append(l, fmt.Sprintf(`{"name":"ip%d","properties":{"groupId":"registry","memberName":%q,"privateIPAddress":%q}}`, i, pairs[i], pairs[i+1]))
			}
			return strings.Replace(peBody(automatic, subnetID, regID), `"properties":{`, `"properties":{"ipConfigurations":[`+strings.Join(l, ",")+`],`, 1)
		}
		_, err := w.try(owner, peID("pe"), static("registry", "10.0.0.7"))
		w.refused(err, "PrivateEndpointIpConfigurationsInvalid")
		_, err = w.try(owner, peID("pe"), static("registry", "10.0.0.7", "registry_data_mars", "10.0.0.8"))
		w.refused(err, "PrivateEndpointIpConfigurationsInvalid")
		_, err = w.try(owner, peID("pe"), static("registry", "10.0.0.7", "registry_data_local", "10.0.0.7"))
		w.refused(err, "PrivateIPAddressIsAllocated")
		_, err = w.try(owner, peID("pe"), static("registry", "10.0.0.7", "registry_data_local", "10.0.0.2"))
		w.refused(err, "PrivateIPAddressInReservedRange")
		w.put(peID("pe"), static("registry_data_local", "10.0.0.8", "registry", "10.0.0.7"))
		if e := w.m.Endpoint(arm.MustID(vnetID).Key(), netip.MustParseAddr("10.0.0.7")); e == nil || e.Member != "registry" {
			w.Errorf("at 10.0.0.7 the data path sees %+v", e)
		}
	})
}

// row:15 row:98 An endpoint to another subscription's registry is refused until
// its own subscription is registered for registries.
func TestEndpointFromAnotherSubscription(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		const theirs = "/subscriptions/22222222-2222-2222-2222-222222222222"
		other := arm.MustID(theirs)
		w.check(w.svc.Begin(w.Context(), resource.First{Tenant: "t", Subscription: other.Name()}))
		w.check(w.svc.Register(w.Context(), owner, other, "Microsoft.ContainerRegistry", false))
		w.put(theirs+"/resourceGroups/harbor", `{"location":"local"}`)
		vnet := theirs + "/resourceGroups/harbor/providers/Microsoft.Network/virtualNetworks/dock"
		w.put(vnet, `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[{"name":"pier","properties":{"addressPrefix":"10.0.0.0/24"}}]}}`)
		id, body := theirs+"/resourceGroups/harbor/providers/Microsoft.Network/privateEndpoints/pe", peBody(automatic, vnet+"/subnets/pier", regID)
		_, err := w.try(owner, id, body)
		w.refused(err, "MissingSubscriptionRegistration")
		w.check(w.svc.Register(w.Context(), owner, other, "Microsoft.ContainerRegistry", true))
		if got := stateOf(w.put(id, body)); got != Approved {
			w.Errorf("once it is registered the endpoint is %s", got)
		}
	})
}

// row:36 Two hundred, or ten of a registry from before October 2021.
func TestHowManyEndpointsARegistryMayHave(t *testing.T) {
	for _, c := range []struct {
		made string
		most int
	}{{"", 200}, {"2021-09-30T23:59:59Z", 10}} {
		each(t, func(w *world) {
			w.vnet("10.0.0.0/16", "10.0.0.0/24")
			w.registry()
			w.update(func(ctx context.Context, tx resource.Tx) error {
				if c.made != "" {
					reg, err := tx.Get(ctx, arm.MustID(regID))
					if err != nil {
						return err
					}
					set(reg.Body, c.made, "properties", "creationDate")
					if err := tx.Put(ctx, &reg); err != nil {
						return err
					}
				}
				for i := range c.most - 1 {
					id := arm.MustID(regID).Child("privateEndpointConnections", fmt.Sprint("other.", i))
					if err := tx.Put(ctx, &resource.Doc{ID: id, Body: resource.Object{"properties": resource.Object{}}}); err != nil {
						return err
					}
				}
				return nil
			})
			w.pe("last")
			_, err := w.try(owner, peID("one-too-many"), peBody(automatic, subnetID, regID))
			w.refused(err, "QuotaExceeded")
		})
	}
}

// row:42 Accepted by itself when its maker has the right to, otherwise it
// waits; one that is made to ask waits in any case.
func TestWhoApproves(t *testing.T) {
	tests := []struct {
		by   resource.Caller
		list string
		want string
	}{
		{owner, automatic, Approved},
		{owner, manual, Pending},
		{stranger, automatic, Pending},
		{stranger, manual, Pending},
	}
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		for i, tt := range tests {
			name := fmt.Sprint("pe", i)
			out, err := w.try(tt.by, peID(name), peBody(tt.list, subnetID, regID))
			if err != nil {
				w.Fatal(err)
			}
			conn := readState(w.get(w.connection(peID(name)))).Status
			if got := stateOf(out); got != tt.want || conn != tt.want {
				w.Errorf("%s of %s: %s, its connection %s, want %s", tt.list, tt.by.ObjectID, got, conn, tt.want)
			}
		}
	})
}

func TestTransitions(t *testing.T) {
	all := []string{Pending, Approved, Rejected, Disconnected}
	allowed := map[string]string{
		Pending:      "Pending Approved Rejected",
		Approved:     "Approved Rejected",
		Rejected:     "Rejected Approved",
		Disconnected: "",
	}
	for _, from := range all {
		for _, to := range all {
			if got, want := mayBecome(from, to), strings.Contains(" "+allowed[from]+" ", " "+to+" "); got != want {
				t.Errorf("%s to %s: %v, want %v", from, to, got, want)
			}
		}
	}
}

func TestOwnerDecidesAndTheEndpointFollows(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.put(peID("pe"), peBody(manual, subnetID, regID))
		conn := w.connection(peID("pe"))
		here := netip.MustParseAddr("10.0.0.4")
		for _, to := range []string{Pending, "approved", Rejected, Approved, Rejected} {
			w.put(conn, setState(to))
			want := to
			if to == "approved" {
				want = Approved
			}
			e := w.m.Endpoint(arm.MustID(vnetID).Key(), here)
			if e == nil || e.State != want || stateOf(w.get(peID("pe"))) != want {
				w.Errorf("after %s the data path sees %+v and the endpoint says %s", to, e, stateOf(w.get(peID("pe"))))
			}
		}
		_, err := w.try(owner, conn, setState(Pending))
		w.refused(err, "PrivateEndpointConnectionStateInvalid")
		_, err = w.try(owner, conn, setState("Perhaps"))
		w.invalid(err, "properties.privateLinkServiceConnectionState.status")
		_, err = w.try(owner, regID+"/privateEndpointConnections/made.up", setState(Approved))
		if !errors.Is(err, resource.ErrUnknown) {
			w.Errorf("a connection without an endpoint: %v", err)
		}
		// A PUT of the endpoint by its own owner approves nothing.
		body := w.get(peID("pe"))
		state{Approved, "", ""}.write(objectsAt(body, "properties", manual)[0])
		w.put(peID("pe"), text(body))
		if s := stateOf(w.get(peID("pe"))); s != Rejected {
			w.Errorf("the endpoint's owner made it %s", s)
		}

		w.delete(conn)
		if e := w.m.Endpoint(arm.MustID(vnetID).Key(), here); e == nil || e.State != Disconnected {
			w.Errorf("without its connection the data path sees %+v", e)
		}
		if s := stateOf(w.get(peID("pe"))); s != Disconnected {
			w.Errorf("without its connection the endpoint is %s", s)
		}
		if _, err = w.try(owner, conn, setState(Approved)); !errors.Is(err, resource.ErrUnknown) {
			w.Errorf("approving a disconnected endpoint: %v", err)
		}
		w.delete(peID("pe"))
	})
}

func TestDeletedRegistryDisconnectsItsEndpoints(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.pe("pe")
		w.delete(regID)
		if s := stateOf(w.get(peID("pe"))); s != Disconnected {
			w.Errorf("the endpoint of a deleted registry is %s", s)
		}
		// Another registry of that name is another registry.
		w.registry()
		if e := w.m.Endpoint(arm.MustID(vnetID).Key(), netip.MustParseAddr("10.0.0.4")); e == nil || e.State != Disconnected {
			w.Errorf("the data path sees %+v", e)
		}
	})
}

// An old connection must not reach the new endpoint of the same name.
func TestStaleConnectionDoesNotReachANewEndpoint(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.pe("pe")
		stale := arm.MustID(regID).Child("privateEndpointConnections", "pe.stale")
		w.update(func(ctx context.Context, tx resource.Tx) error {
			body := resource.Object{"properties": resource.Object{"privateEndpoint": ref(arm.MustID(peID("pe")))}}
			state{Approved, "", "None"}.write(body)
			return tx.Put(ctx, &resource.Doc{ID: stale, Body: body})
		})
		w.delete(stale.String())
		if s := stateOf(w.get(peID("pe"))); s != Approved {
			w.Errorf("a stale connection made the endpoint %s", s)
		}
	})
}

func TestConcurrentEndpointsGetDifferentAddresses(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		const n = 4
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				if _, err := w.try(owner, peID(fmt.Sprint("pe", i)), peBody(automatic, subnetID, regID)); err != nil {
					w.Error(err)
				}
			})
		}
		wg.Wait()
		seen := map[netip.Addr]bool{}
		w.check(w.raw.View(w.Context(), func(r resource.Reader) error {
			for i := range n {
				records, err := EndpointRecords(w.Context(), r, arm.MustID(peID(fmt.Sprint("pe", i))))
				if err != nil {
					return err
				}
				for _, rec := range records {
					seen[rec.Address] = true
				}
			}
			return nil
		}))
		if len(seen) != 2*n {
			w.Errorf("%d endpoints have the addresses %v", n, seen)
		}
	})
}

// Anybody can ask for a private endpoint to a registry, so asking changes
// nothing about it: neither where its layers come from, nor its public names,
// nor what rules it can have. Its owner sees the request, and an approval makes
// it a registry with a private endpoint. row:3 row:42
func TestAskingForAnEndpointChangesNothing(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.put(subnetID, `{"properties":{"addressPrefix":"10.0.0.0/24","serviceEndpoints":[{"service":"Microsoft.ContainerRegistry"}]}}`)
		w.registry()
		w.put(peID("pe"), peBody(manual, subnetID, regID))
		var stored resource.Doc
		read := func() resource.Object {
			w.check(w.raw.View(w.Context(), func(r resource.Reader) (err error) {
				stored, err = r.Get(w.Context(), arm.MustID(regID))
				return err
			}))
			return w.get(regID)
		}
		got := read()
		if at(got, "properties", "dataEndpointEnabled") == true || len(listAt(got, "properties", "dataEndpointHostNames")) > 0 || registry.EverPrivate(stored) {
			w.Errorf("a request made it a private registry: %s", text(got))
		}
		if n := len(listAt(got, "properties", "privateEndpointConnections")); n != 1 {
			w.Errorf("its owner sees %d requests", n)
		}
		const rules = `{"location":"local","sku":{"name":"Premium"},"properties":{"networkRuleSet":{"defaultAction":"Allow","virtualNetworkRules":[%s]}}}`
		if _, err := w.try(owner, regID, fmt.Sprintf(rules, fmt.Sprintf(`{"action":"Allow","id":%q}`, subnetID))); err != nil {
			w.Errorf("a request keeps its owner from a rule: %v", err)
		}
		w.put(regID, fmt.Sprintf(rules, ""))
		// What the endpoint needs once it is approved it has already.
		records := func() (n int) {
			w.check(w.raw.View(w.Context(), func(r resource.Reader) error {
				list, err := EndpointRecords(w.Context(), r, arm.MustID(peID("pe")))
				n = len(list)
				return err
			}))
			return n
		}
		if n := records(); n != 2 {
			w.Errorf("it has %d addresses", n)
		}
		w.put(w.connection(peID("pe")), setState(Approved))
		got = read()
		if at(got, "properties", "dataEndpointEnabled") != true || len(listAt(got, "properties", "dataEndpointHostNames")) != 1 || !registry.EverPrivate(stored) || records() != 2 {
			w.Errorf("approved: %s", text(got))
		}
		_, err := w.try(owner, regID, fmt.Sprintf(rules, fmt.Sprintf(`{"action":"Allow","id":%q}`, subnetID)))
		w.refused(err, "PrivateEndpointAndServiceEndpointConflict")
		_, err = w.try(owner, regID, `{"location":"local","sku":{"name":"Premium"},"properties":{"dataEndpointEnabled":false}}`)
		w.invalid(err, "properties.dataEndpointEnabled")
	})
}
