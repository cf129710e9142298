package zone_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/network"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/zone"
)

// world is a control plane on a real database, with the views that follow it.
type world struct {
	testing.TB
	db     *store.DB
	raw    resource.Store
	public *zone.Public
	views  *zone.Views
	svc    *resource.Service
}

const (
	sub     = "/subscriptions/11111111-1111-1111-1111-111111111111"
	group   = sub + "/resourceGroups/harbor"
	other   = sub + "/resourceGroups/other"
	private = "privatelink.cr.cove.internal"
)

func zoneID(group, name string) string {
	return group + "/providers/Microsoft.Network/privateDnsZones/" + name
}

func vnetID(name string) string {
	return group + "/providers/Microsoft.Network/virtualNetworks/" + name
}

func peID(name string) string { return group + "/providers/Microsoft.Network/privateEndpoints/" + name }

func regID(name string) string {
	return group + "/providers/Microsoft.ContainerRegistry/registries/" + name
}

// directory is the adapter that cmd wires.
type directory struct{ *registry.Directory }

func (d directory) ByHost(ctx context.Context, host string) (*zone.Registry, error) {
	s, err := d.Directory.ByHost(ctx, host)
	if s == nil || err != nil {
		return nil, err
	}
	return &zone.Registry{Private: s.EverPrivate, Regions: s.Routed}, nil
}

func newWorld(t testing.TB, db *store.DB) *world {
	t.Helper()
	box, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, db: db, raw: store.NewResources(db)}
	registries := registry.Config{Suffix: "cr.cove.internal", Sealer: box}
	w.public, err = zone.NewPublic(zone.Names{
		Domain: "cove.internal", Suffix: "cr.cove.internal", Regions: []string{"local"},
		Advertise: []netip.Addr{netip.MustParseAddr("203.0.113.10")},
	}, directory{registry.NewDirectory(w.raw, registries)})
	w.check(err)
	w.views = zone.NewViews(w.raw, w.public, slog.New(slog.DiscardHandler))
	zones := zone.Config{Suffix: "cr.cove.internal"}
	networks := network.Config{Sealer: box, Registry: registries, EndpointChanged: []func(context.Context, resource.Tx, resource.Doc) error{zones.EndpointChanged}}
	w.svc, err = resource.New(resource.Config{
		Store:     w.views.Obeyed(w.raw),
		Types:     append(append(zone.Types(zones), network.Types(networks)...), registry.Type(registries)),
		Locations: []string{"local"},
	})
	w.check(err)
	w.check(w.svc.Begin(t.Context(), resource.First{Tenant: "t", Subscription: arm.MustID(sub).Name()}))
	w.put(group, `{"location":"local"}`)
	w.put(other, `{"location":"local"}`)
	return w
}

func each(t *testing.T, test func(w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) { test(newWorld(t, db)) })
}

// owner may do everything; a cook everything but what another's resource
// needs.
var (
	owner = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}
	cook  = resource.Caller{ObjectID: "cook", May: func(action string, _ arm.ID) bool { return !strings.HasSuffix(action, "/join/action") }}
)

func (w *world) check(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) try(by resource.Caller, id, body string) (resource.Object, error) {
	w.Helper()
	o, err := resource.Decode([]byte(body))
	w.check(err)
	out, err := w.svc.Put(w.Context(), by, arm.MustID(id), o, resource.Condition{})
	return out.Body, err
}

func (w *world) put(id, body string) resource.Object {
	w.Helper()
	out, err := w.try(owner, id, body)
	if err != nil {
		w.Fatalf("PUT %s: %v", id, err)
	}
	return out
}

func (w *world) tryDelete(id string) error {
	_, err := w.svc.Delete(w.Context(), owner, arm.MustID(id), resource.Condition{})
	return err
}

func (w *world) delete(id string) {
	w.Helper()
	if err := w.tryDelete(id); err != nil {
		w.Fatalf("DELETE %s: %v", id, err)
	}
}

func (w *world) get(id string) resource.Object {
	w.Helper()
	out, err := w.svc.Get(w.Context(), arm.MustID(id))
	if err != nil {
		w.Fatalf("GET %s: %v", id, err)
	}
	return out.Body
}

func (w *world) exists(id string) bool {
	w.Helper()
	yes, err := w.svc.Exists(w.Context(), arm.MustID(id))
	w.check(err)
	return yes
}

func (w *world) refused(err error, code, words string) {
	w.Helper()
	e, ok := errors.AsType[*fault.Error](err)
	if !ok || e.Code != code || !strings.Contains(e.Public, words) {
		w.Errorf("got %v, want %s: %s", err, code, words)
	}
}

// invalid are the paths that a refusal names.
func invalid(err error) (paths string) {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		for _, f := range e.Fields {
			paths += " " + f.Path
		}
	}
	return strings.TrimSpace(paths)
}

func (w *world) vnet(name string) {
	w.Helper()
	w.put(vnetID(name), `{"location":"local","properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},
		"subnets":[{"name":"default","properties":{"addressPrefix":"10.0.0.0/24"}}]}}`)
}

func (w *world) registry(name string) {
	w.Helper()
	w.put(regID(name), `{"location":"local","sku":{"name":"Premium"},"properties":{}}`)
}

func (w *world) endpoint(name, vnet, reg string) {
	w.Helper()
	w.put(peID(name), fmt.Sprintf(`{"location":"local","properties":{"subnet":{"id":%q},"privateLinkServiceConnections":[
		{"name":"c","properties":{"privateLinkServiceId":%q,"groupIds":["registry"]}}]}}`, vnetID(vnet)+"/subnets/default", regID(reg)))
}

func linkBody(vnet, more string) string {
	return fmt.Sprintf(`{"location":"global","properties":{"virtualNetwork":{"id":%q},"registrationEnabled":false%s}}`, vnetID(vnet), more)
}

func (w *world) link(zone, vnet string) {
	w.Helper()
	w.put(zone+"/virtualNetworkLinks/to-"+vnet, linkBody(vnet, ""))
}

func groupBody(zones ...string) string {
	var configs []string
	for i, z := range zones {
		configs = append(configs, fmt.Sprintf(`{"name":"c%d","properties":{"privateDnsZoneId":%q}}`, i, z))
	}
	return `{"properties":{"privateDnsZoneConfigs":[` + strings.Join(configs, ",") + `]}}`
}

// ask is the last thing that the view of a network says about a name: an
// address, or what there is instead.
func (w *world) ask(vnet, name string) string {
	w.Helper()
	key := ""
	if vnet != "" {
		key = arm.MustID(vnetID(vnet)).Key()
	}
	return last(w.views.Of(key).Answer(w.Context(), name+".", zone.TypeA))
}

func last(a zone.Answer) string {
	switch {
	case a.Forward != "":
		return "forward"
	case a.Rcode == zone.NXDomain:
		return "NXDOMAIN"
	case a.Rcode != zone.NoError:
		return "SERVFAIL"
	case a.SOA != nil:
		return "NODATA"
	}
	return a.Records[len(a.Records)-1].Addr.String()
}

func (w *world) asks(vnet, name, want string) {
	w.Helper()
	if got := w.ask(vnet, name); got != want {
		w.Errorf("%s asks for %s: %s, want %s", vnet, name, got, want)
	}
}

const (
	myreg  = "myreg.cr.cove.internal"
	mydata = "myreg.local.data.cr.cove.internal"
	front  = "203.0.113.10"
)

// The way of the private-link article, by zone group, and its end: what is
// written is obeyed when the caller is told. row:48 row:49 row:57
func TestZoneGroupFollowsItsEndpoint(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("spoke")
		w.vnet("stranger")
		w.registry("myreg")
		z := zoneID(group, private)
		w.put(z, `{"location":"global"}`)
		w.asks("spoke", myreg, front)
		w.endpoint("pe", "spoke", "myreg")
		w.asks("spoke", myreg, front)

		w.link(z, "spoke")
		w.asks("spoke", myreg, "NXDOMAIN")
		g := w.put(peID("pe")+"/privateDnsZoneGroups/default", groupBody(z))
		login, data := w.ask("spoke", myreg), w.ask("spoke", mydata)
		for _, a := range []string{login, data} {
			if !strings.HasPrefix(a, "10.0.0.") || login == data {
				w.Errorf("the login server is at %s, the data endpoint at %s", login, data)
			}
		}
		w.asks("stranger", myreg, front)
		w.asks("", myreg, front)
		config := g["properties"].(resource.Object)["privateDnsZoneConfigs"].([]any)[0].(resource.Object)
		sets, _ := resource.Lookup(config, "properties.recordSets").([]any)
		if len(sets) != 2 || sets[0].(resource.Object)["fqdn"] != "myreg."+private || sets[1].(resource.Object)["recordSetName"] != "myreg.local.data" {
			w.Errorf("the group shows %v", sets)
		}
		record := w.get(z + "/A/myreg")
		if got := resource.Lookup(record, "properties.fqdn"); got != "myreg."+private+"." {
			w.Errorf("fqdn %v", got)
		}
		if got := fmt.Sprint(resource.Lookup(record, "properties.ttl")); got != "10" {
			w.Errorf("ttl %v", got)
		}

		// A record that somebody deleted comes back with the next change.
		w.delete(z + "/A/myreg")
		w.asks("spoke", myreg, "NXDOMAIN")
		w.put(peID("pe")+"/privateDnsZoneGroups/default", groupBody(z))
		w.asks("spoke", myreg, login)

		w.delete(peID("pe"))
		if w.exists(z+"/A/myreg") || w.exists(z+"/A/myreg.local.data") {
			w.Error("the records outlive their endpoint")
		}
		// The link does not, and nobody in the network reaches the registry
		// until it goes.
		w.asks("spoke", myreg, "NXDOMAIN")
		w.refused(w.tryDelete(z), "CannotDeleteResource", "privateDnsZones/"+private+"/virtualNetworkLinks/to-spoke")
		w.delete(z + "/virtualNetworkLinks/to-spoke")
		w.asks("spoke", myreg, front)
		w.delete(z)
		if w.exists(z + "/SOA/@") {
			w.Error("a deleted zone has a record")
		}
	})
}

// Records by hand: the set first, then its addresses, as az does it; one for
// the registry, one for each data endpoint. row:50
func TestRecordsByHand(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("spoke")
		w.registry("myreg")
		w.endpoint("pe", "spoke", "myreg")
		z := zoneID(group, private)
		w.put(z, `{}`)
		w.link(z, "spoke")
		w.put(z+"/a/myreg", `{"properties":{"ttl":3600,"aRecords":[]}}`)
		w.asks("spoke", myreg, "NXDOMAIN") // no address, no name
		w.put(z+"/a/myreg", `{"properties":{"ttl":3600,"aRecords":[{"ipv4Address":"10.0.0.7"}]}}`)
		w.asks("spoke", myreg, "10.0.0.7")
		w.asks("spoke", mydata, "NXDOMAIN")
		w.put(z+"/A/myreg.local.data", `{"properties":{"ttl":10,"aRecords":[{"ipv4Address":"10.0.0.8"}]}}`)
		w.asks("spoke", mydata, "10.0.0.8")
		w.delete(z + "/a/myreg")
		w.asks("spoke", myreg, "NXDOMAIN")

		soa := w.get(z + "/SOA/@")
		if got := resource.Lookup(soa, "properties.soaRecord.minimumTtl"); fmt.Sprint(got) != "10" {
			w.Errorf("SOA %v", soa)
		}
		shown := w.get(z)
		for path, want := range map[string]string{"numberOfRecordSets": "2", "numberOfVirtualNetworkLinks": "1", "maxNumberOfRecordSets": "25000", "provisioningState": "Succeeded"} {
			if got := fmt.Sprint(resource.Lookup(shown, "properties."+path)); got != want {
				w.Errorf("%s is %s, want %s", path, got, want)
			}
		}
	})
}

// Two networks with the same addresses each see their own record under one
// name, and a zone of another name overrides nothing. row:47
func TestTwoNetworks(t *testing.T) {
	each(t, func(w *world) {
		w.registry("myreg")
		for i, vnet := range []string{"spoke-a", "spoke-b"} {
			w.vnet(vnet)
			z := zoneID([]string{group, other}[i], private)
			w.put(z, `{}`)
			w.link(z, vnet)
			w.endpoint("pe-"+vnet, vnet, "myreg")
			w.put(z+"/A/myreg", fmt.Sprintf(`{"properties":{"ttl":10,"aRecords":[{"ipv4Address":"10.0.0.%d"}]}}`, 10+i))
		}
		w.vnet("spoke-c")
		z := zoneID(group, "private.cr.cove.internal")
		w.put(z, `{}`)
		w.link(z, "spoke-c")
		w.put(peID("pe-spoke-a")+"/privateDnsZoneGroups/default", groupBody(z))
		w.asks("spoke-a", myreg, "10.0.0.10")
		w.asks("spoke-b", myreg, "10.0.0.11")
		w.asks("spoke-c", myreg, front)
		if n := resource.Lookup(w.get(z), "properties.numberOfRecordSets"); fmt.Sprint(n) != "1" {
			w.Errorf("a zone that overrides nothing got %v record sets", n)
		}
	})
}

func TestLinks(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("spoke")
		w.vnet("hub")
		a, b := zoneID(group, private), zoneID(other, private)
		w.put(a, `{}`)
		w.put(b, `{}`)
		w.link(a, "spoke")
		overlap := "A virtual network cannot be linked to multiple zones with overlapping namespaces. You tried to link virtual network with '" + private + "' and '" + private + "' zones."
		for _, id := range []string{a + "/virtualNetworkLinks/again", b + "/virtualNetworkLinks/l"} {
			_, err := w.try(owner, id, linkBody("spoke", ""))
			w.refused(err, "BadRequest", overlap)
		}
		w.link(b, "hub")

		// Whoever may make zones may not answer names in another's network.
		_, err := w.try(cook, zoneID(group, "corp.internal"), `{}`)
		w.check(err)
		_, err = w.try(cook, zoneID(group, "corp.internal")+"/virtualNetworkLinks/l", linkBody("hub", ""))
		w.refused(err, "LinkedAuthorizationFailed", "Microsoft.Network/virtualNetworks/join/action")
		_, err = w.try(cook, zoneID(group, "corp.internal")+"/virtualNetworkLinks/l", linkBody("absent", ""))
		w.refused(err, "LinkedAuthorizationFailed", "Microsoft.Network/virtualNetworks/join/action")
		_, err = w.try(owner, zoneID(group, "corp.internal")+"/virtualNetworkLinks/l", linkBody("absent", ""))
		w.refused(err, "InvalidResourceReference", "absent")

		for body, want := range map[string]string{
			linkBody("hub", `,"resolutionPolicy":"NxDomainRedirect"`):             "properties.virtualNetwork.id",
			linkBody("spoke", `,"resolutionPolicy":"Sometimes"`):                  "properties.resolutionPolicy",
			`{"properties":{"registrationEnabled":true}}`:                         "properties.virtualNetwork.id properties.virtualNetwork.id properties.registrationEnabled",
			strings.Replace(linkBody("spoke", ""), "false", "1", 1):               "properties.registrationEnabled",
			strings.Replace(linkBody("spoke", ""), `"global"`, `"westeurope"`, 1): "",
		} {
			_, err := w.try(owner, a+"/virtualNetworkLinks/to-spoke", body)
			if got := invalid(err); err == nil || want != "" && !strings.Contains(want, got) {
				w.Errorf("%s: %v names %q, want %q", body, err, got, want)
			}
		}
		w.put(zoneID(group, "corp.internal")+"/virtualNetworkLinks/l", linkBody("hub", ""))
		_, err = w.try(owner, zoneID(group, "corp.internal")+"/virtualNetworkLinks/l", linkBody("hub", `,"resolutionPolicy":"NxDomainRedirect"`))
		if got := invalid(err); got != "properties.resolutionPolicy" {
			w.Errorf("redirection from a zone that is no privatelink zone: %v", err)
		}

		// A group takes its zones with it, links and all.
		w.delete(group)
		if w.exists(a) || w.exists(a+"/virtualNetworkLinks/to-spoke") {
			w.Error("the group left a zone behind")
		}
	})
}

// The link's policy sends a name that the zone lacks to the public answer.
func TestFallback(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("spoke")
		w.registry("myreg")
		w.endpoint("pe", "spoke", "myreg")
		z := zoneID(group, private)
		w.put(z, `{}`)
		w.link(z, "spoke")
		w.asks("spoke", myreg, "NXDOMAIN")
		w.put(z+"/virtualNetworkLinks/to-spoke", linkBody("spoke", `,"resolutionPolicy":"NxDomainRedirect"`))
		w.asks("spoke", myreg, front)
	})
}

func TestRecordSetsAreChecked(t *testing.T) {
	w := newWorld(t, storetest.Open(t, storetest.SQLite(t)))
	z := zoneID(group, "corp.internal")
	w.put(z, `{}`)
	many := strings.Repeat(`{"ipv4Address":"10.0.0.1"},`, 21)
	for _, c := range []struct{ name, body, want string }{
		{"A/x", `{"properties":{"aRecords":[{"ipv4Address":"10.0.0.256"}]}}`, "properties.aRecords[0].ipv4Address"},
		{"A/x", `{"properties":{"aRecords":[{"ipv4Address":"::1"}]}}`, "properties.aRecords[0].ipv4Address"},
		{"A/x", `{"properties":{"aRecords":[{"ipv4Address":"10.0.0.1"},{"ipv4Address":"10.0.0.1"}]}}`, "properties.aRecords[1].ipv4Address"},
		{"A/x", `{"properties":{"aRecords":"10.0.0.1"}}`, "properties.aRecords"},
		{"A/x", `{"properties":{"aRecords":[` + many[:len(many)-1] + `]}}`, "properties.aRecords"},
		{"A/x", `{"properties":{"ttl":0}}`, "properties.ttl"},
		{"A/x", `{"properties":{"ttl":1.5}}`, "properties.ttl"},
		{"A/x", `{"properties":{"ttl":"3600"}}`, "properties.ttl"},
		{"A/x", `{"properties":{"ttl":2147483648}}`, "properties.ttl"},
		{"A/x", `{}`, "properties"},
		{"A/-x", `{"properties":{}}`, "name"},
		{"A/x..y", `{"properties":{}}`, "name"},
		{"A/a.*", `{"properties":{}}`, "name"},
		{"A/" + strings.Repeat("a", 64), `{"properties":{}}`, "name"},
		{"A/" + strings.Repeat("a.", 121) + "a", `{"properties":{}}`, "name"},
		{"AAAA/x", `{"properties":{"aaaaRecords":[{"ipv6Address":"10.0.0.1"}]}}`, "properties.aaaaRecords[0].ipv6Address"},
		{"AAAA/x", `{"properties":{"aaaaRecords":[{"ipv6Address":"fe80::1%eth0"}]}}`, "properties.aaaaRecords[0].ipv6Address"},
		{"AAAA/x", `{"properties":{"aaaaRecords":[{"ipv6Address":"::ffff:10.0.0.1"}]}}`, "properties.aaaaRecords[0].ipv6Address"},
		{"CNAME/@", `{"properties":{"cnameRecord":{"cname":"a.b"}}}`, "name"},
		{"CNAME/x", `{"properties":{"cnameRecord":{"cname":"a..b"}}}`, "properties.cnameRecord.cname"},
		{"CNAME/x", `{"properties":{"cnameRecord":"a.b"}}`, "properties.cnameRecord.cname"},
	} {
		_, err := w.try(owner, z+"/"+c.name, c.body)
		if got := invalid(err); !strings.Contains(got, c.want) || got == "" {
			t.Errorf("%s %s: %v, want a problem of %s", c.name, c.body, err, c.want)
		}
	}
	for _, name := range []string{"internal", "a..b", "-a.b", "a b.c", strings.Repeat("a.", 34) + "a"} {
		if id, err := arm.ParseID(zoneID(group, name)); err == nil {
			if _, err := w.svc.Put(t.Context(), owner, id, resource.Object{}, resource.Condition{}); invalid(err) != "name" {
				t.Errorf("the zone %s: %v", name, err)
			}
		}
	}
	for _, ok := range []string{"A/*", "A/@", "A/*.apps", "A/_x.y"} {
		w.put(z+"/"+ok, `{"properties":{"aRecords":[{"ipv4Address":"10.0.0.1"}]}}`)
	}
	w.put(z+"/CNAME/www", `{"properties":{"ttl":60,"cnameRecord":{"cname":"wiki.corp.internal."}}}`)
	_, err := w.try(owner, z+"/A/www", `{"properties":{}}`)
	w.refused(err, "Conflict", "CNAME")
	_, err = w.try(owner, z+"/CNAME/_x.y", `{"properties":{"cnameRecord":{"cname":"a.b"}}}`)
	w.refused(err, "Conflict", "CNAME")
	w.refused(w.tryDelete(z+"/SOA/@"), "MethodNotAllowed", "")
}

// Two endpoints that share a zone take one record from each other, and the
// one that goes leaves the other's; a record that somebody wrote by hand since
// is theirs. row:56
func TestSharedZone(t *testing.T) {
	each(t, func(w *world) {
		w.registry("myreg")
		z, wrong := zoneID(group, private), zoneID(group, "corp.internal")
		w.put(z, `{}`)
		w.put(wrong, `{}`)
		for _, vnet := range []string{"spoke", "hub"} {
			w.vnet(vnet)
			w.link(z, vnet)
		}
		w.endpoint("first", "spoke", "myreg")
		w.endpoint("pad", "hub", "myreg")
		w.endpoint("second", "hub", "myreg")
		w.put(peID("first")+"/privateDnsZoneGroups/default", groupBody(z))
		before := w.ask("spoke", myreg)
		w.put(peID("second")+"/privateDnsZoneGroups/default", groupBody(z))
		after := w.ask("spoke", myreg)
		if before == after || w.ask("hub", myreg) != after {
			w.Errorf("the record went from %s to %s, the hub has %s", before, after, w.ask("hub", myreg))
		}
		w.delete(peID("first"))
		w.asks("hub", myreg, after)

		_, err := w.try(owner, peID("second")+"/privateDnsZoneGroups/more", groupBody(z))
		w.refused(err, "BadRequest", "Cannot create more than one private dns zone groups")
		_, err = w.try(cook, peID("second")+"/privateDnsZoneGroups/default", groupBody(wrong))
		w.refused(err, "LinkedAuthorizationFailed", "privateDnsZones/join/action")
		_, err = w.try(owner, peID("second")+"/privateDnsZoneGroups/default", groupBody(zoneID(group, "absent.internal")))
		w.refused(err, "InvalidResourceReference", "absent.internal")
		for _, zones := range [][]string{{}, {z, z}, {vnetID("hub")}, {z, wrong, "3", "4", "5", "6"}} {
			if _, err := w.try(owner, peID("second")+"/privateDnsZoneGroups/default", groupBody(zones...)); !strings.Contains(invalid(err), "privateDnsZoneConfigs") {
				w.Errorf("a group of %v: %v", zones, err)
			}
		}

		w.put(z+"/A/myreg", `{"properties":{"ttl":10,"aRecords":[{"ipv4Address":"10.9.9.9"}]}}`)
		w.put(peID("second")+"/privateDnsZoneGroups/default", groupBody(wrong))
		w.asks("hub", myreg, "10.9.9.9")
		w.asks("hub", mydata, "NXDOMAIN") // this one was the endpoint's still
	})
}

// flaky is a store whose next reads fail.
type flaky struct {
	resource.Store
	down atomic.Int32
}

func (f *flaky) View(ctx context.Context, fn func(resource.Reader) error) error {
	if f.down.Add(-1) >= 0 {
		return errors.New("no database")
	}
	return f.Store.View(ctx, fn)
}

// Another node's views have a change within a second, and a database that
// cannot be read for a while costs no change.
func TestAnotherNode(t *testing.T) {
	each(t, func(w *world) {
		flaky := &flaky{Store: store.NewResources(w.db)}
		views := zone.NewViews(flaky, w.public, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(w.Context())
		done := make(chan error, 1)
		go func() { done <- views.Run(ctx) }()
		defer func() { cancel(); <-done }()

		w.vnet("spoke")
		z := zoneID(group, "corp.internal")
		w.put(z, `{}`)
		w.link(z, "spoke")
		w.put(z+"/A/wiki", `{"properties":{"aRecords":[{"ipv4Address":"10.0.0.1"}]}}`)
		key := arm.MustID(vnetID("spoke")).Key()
		sees := func(want string) {
			w.Helper()
			for deadline := time.Now().Add(10 * time.Second); ; {
				got := last(views.Of(key).Answer(ctx, "wiki.corp.internal", zone.TypeA))
				if got == want {
					return
				}
				if time.Now().After(deadline) {
					w.Fatalf("the other node answers %s, want %s", got, want)
				}
				time.Sleep(time.Millisecond) // polls; nothing depends on how long
			}
		}
		sees("10.0.0.1")
		flaky.down.Store(3)
		w.put(z+"/A/wiki", `{"properties":{"aRecords":[{"ipv4Address":"10.0.0.2"}]}}`)
		sees("10.0.0.2")
		w.delete(z + "/virtualNetworkLinks/to-spoke")
		sees("forward")
	})
}
