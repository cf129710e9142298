package network

import (
	"context"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// replicated writes the registry's regions as registry.Replications does, in
// one transaction with what follows from it.
func (w *world) replicated(by resource.Caller, hosts ...any) error {
	return w.store.Update(w.Context(), func(tx resource.Tx) error {
		return w.setHosts(w.Context(), tx, by, hosts)
	})
}

func (w *world) setHosts(ctx context.Context, tx resource.Tx, by resource.Caller, hosts []any) error {
	reg, err := tx.Get(ctx, arm.MustID(regID))
	if err != nil {
		return err
	}
	set(reg.Body, hosts, "properties", "dataEndpointHostNames")
	if err := tx.Put(ctx, &reg); err != nil {
		return err
	}
	return w.cfg.RegionsChanged(ctx, tx, reg, by)
}

// holdings are an endpoint's members with their addresses.
func (w *world) holdings(pe string) string {
	w.Helper()
	nic := textAt(objectsAt(w.get(peID(pe)), "properties", "networkInterfaces")[0], "id")
	var out []string
	for _, o := range objectsAt(w.get(nic), "properties", "ipConfigurations") {
		out = append(out, textAt(o, "properties", "privateLinkConnectionProperties", "requiredMemberName")+"="+textAt(o, "properties", "privateIPAddress"))
	}
	return strings.Join(out, " ")
}

const (
	localHost = "myregistry.local.data.cr.cove.internal"
	eastHost  = "myregistry.eastus.data.cr.cove.internal"
)

// row:44 row:45 row:52 A new region gives every endpoint an address; one that
// was approved by hand waits for approval again, and answers nobody meanwhile.
func TestANewRegion(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.pe("auto")
		w.put(peID("asked"), peBody(manual, subnetID, regID))
		w.put(w.connection(peID("asked")), setState(Approved))

		w.check(w.replicated(owner, localHost, eastHost))
		if got, want := w.holdings("auto"), "registry=10.0.0.4 registry_data_local=10.0.0.5 registry_data_eastus="; !strings.HasPrefix(got, want) {
			w.Errorf("the endpoint has %s, want %s…", got, want)
		}
		if a, b := stateOf(w.get(peID("auto"))), stateOf(w.get(peID("asked"))); a != Approved || b != Pending {
			w.Errorf("the connections are %s and %s", a, b)
		}
		if c := w.get(w.connection(peID("asked"))); readState(c).Status != Pending {
			w.Errorf("on the registry it is %+v", readState(c))
		}
		records, err := func() (r []Record, err error) {
			err = w.store.View(w.Context(), func(rd resource.Reader) error {
				r, err = EndpointRecords(w.Context(), rd, arm.MustID(peID("auto")))
				return err
			})
			return r, err
		}()
		w.check(err)
		if len(records) != 3 || records[2].FQDN != eastHost {
			w.Errorf("its records: %v", records)
		}
		if e := w.m.Endpoint(arm.MustID(vnetID).Key(), records[2].Address); e == nil || e.Member != "registry_data_eastus" || e.State != Approved {
			w.Errorf("the data path sees %+v", e)
		}

		w.check(w.replicated(owner, localHost))
		if got := w.holdings("auto"); got != "registry=10.0.0.4 registry_data_local=10.0.0.5" {
			w.Errorf("after the region went the endpoint has %s", got)
		}
		if e := w.m.Endpoint(arm.MustID(vnetID).Key(), records[2].Address); e != nil {
			w.Errorf("the data path still sees %+v", e)
		}
		w.put(nicID("reuses"), nicBody(subnetID, records[2].Address.String())) // it was given back
	})
}

// Where one endpoint cannot follow, none does.
func TestARegionThatAnEndpointCannotFollow(t *testing.T) {
	tests := []struct {
		name    string
		by      resource.Caller
		prepare func(w *world)
		code    string
		says    string
	}{
		{"no right to change the endpoint", stranger, func(*world) {}, "LinkedAuthorizationFailed", ActionReplicate},
		{"a full subnet", owner, func(w *world) {
			w.nic("last", "") // takes the one address that is free
		}, "PrivateEndpointReplicationFailed", "no free address"},
		{"addresses that were chosen", owner, func(w *world) {
			w.delete(peID("pe"))
			w.put(peID("pe"), `{"location":"local","properties":{"subnet":{"id":"`+subnetID+`"},
				"ipConfigurations":[
					{"name":"a","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":"10.0.0.4"}},
					{"name":"b","properties":{"groupId":"registry","memberName":"registry_data_local","privateIPAddress":"10.0.0.5"}}],
				"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"`+regID+`","groupIds":["registry"]}}]}}`)
		}, "PrivateEndpointReplicationFailed", "missing these membernames/groupids requested by Private Link service [GroupId: registry, MemberName: registry_data_eastus, IpVersion: IPv4]"},
	}
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/29") // three addresses
		w.registry()
		for _, c := range tests {
			w.pe("pe")
			c.prepare(w)
			before := w.holdings("pe")
			err := w.replicated(c.by, localHost, eastHost)
			w.refused(err, c.code)
			if !strings.Contains(err.Error(), c.says) {
				w.Errorf("%s: %v", c.name, err)
			}
			if got := w.holdings("pe"); got != before {
				w.Errorf("%s: the endpoint has %s", c.name, got)
			}
			w.delete(peID("pe"))
			if c.name == "a full subnet" {
				w.delete(nicID("last"))
			}
		}
	})
}
