package registry_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// row:4 row:37 A replica gives a registry a data host in another region of this
// deployment, and nowhere else; its deletion takes the host away.
func TestReplications(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		var told []string
		c := w.c
		c.RegionsChanged = func(_ context.Context, _ resource.Tx, reg resource.Doc, _ resource.Caller) error {
			told = append(told, fmt.Sprint(resource.Lookup(reg.Body, "properties.dataEndpointHostNames")))
			if len(told) == 2 {
				return fault.Newf(fault.Invalid, "no address is free")
			}
			return nil
		}
		svc, err := resource.New(resource.Config{
			Store: w.store, Types: []resource.Type{registry.Type(c), registry.Replications(c), {Name: registry.TypeConnection}},
			Locations: []string{"westeurope", "eastus", "northeurope"},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.Service = svc
		dir := registry.NewDirectory(w.store, c)
		isData := func(host string) bool {
			s, err := dir.ByHost(t.Context(), host)
			if err != nil {
				t.Fatal(err)
			}
			return s != nil
		}
		harbor := registries + "harbor"
		w.put(harbor, `{"location":"westeurope","sku":{"name":"Premium"},"properties":{"dataEndpointEnabled":true}}`)
		w.put(registries+"basic", `{"location":"westeurope","sku":{"name":"Basic"}}`)
		const east = "harbor.eastus.data.cr.cove.internal"
		if isData(east) {
			t.Error("there is a data host in a region without a replica")
		}
		shown := w.put(harbor+"/replications/eastus", `{"location":"East US","properties":{}}`)
		if got := resource.Lookup(shown, "properties.status.displayStatus"); got != "Ready" {
			t.Errorf("its status is %v", got)
		}
		hosts := func() string {
			t.Helper()
			r, err := w.Get(t.Context(), arm.MustID(harbor))
			if err != nil {
				t.Fatal(err)
			}
			return fmt.Sprint(resource.Lookup(r.Body, "properties.dataEndpointHostNames"))
		}
		const both = "[harbor.westeurope.data.cr.cove.internal " + east + "]"
		if got := hosts(); got != both || !isData(east) || fmt.Sprint(told) != "["+both+"]" {
			t.Errorf("hosts %s, told %v", got, told)
		}
		// What has addresses for the data hosts may refuse: then nothing happened.
		if _, err := w.try(harbor+"/replications/northeurope", `{"location":"northeurope"}`); !fault.Is(err, fault.Invalid) {
			t.Errorf("refused by an endpoint: %v", err)
		}
		if got := hosts(); got != both {
			t.Errorf("after a refusal: %s", got)
		}
		// A replica may be kept out of the global name's routing; its hosts stay,
		// and nobody who has addresses is told.
		for _, c := range []struct{ properties, want string }{
			{`{"regionEndpointEnabled":false}`, "[westeurope]"}, {`{"regionEndpointEnabled":true}`, "[westeurope eastus]"}, {`{}`, "[westeurope eastus]"},
		} {
			w.put(harbor+"/replications/eastus", `{"location":"eastus","properties":`+c.properties+`}`)
			s, err := dir.ByHost(t.Context(), "harbor.cr.cove.internal")
			if err != nil || fmt.Sprint(s.Routed) != c.want || !isData(east) || len(told) != 2 {
				t.Errorf("with %s it is routed to %v, want %s; %d were told, %v", c.properties, s.Routed, c.want, len(told), err)
			}
		}
		for body, want := range map[string]error{
			`{"location":"eastus"}`:     registry.ErrReplicated,
			`{"location":"westeurope"}`: registry.ErrReplicated,
		} {
			if _, err := w.try(harbor+"/replications/second", body); !errors.Is(err, want) {
				t.Errorf("%s: %v", body, err)
			}
		}
		for _, body := range []string{`{"location":"mars"}`, `{"location":"northeurope","properties":{"regionEndpointEnabled":"no"}}`, `{"location":"northeurope","properties":{"zoneRedundancy":"Enabled"}}`, `{}`} {
			if _, err := w.try(harbor+"/replications/second", body); !fault.Is(err, fault.Invalid) {
				t.Errorf("%s: %v", body, err)
			}
		}
		if _, err := w.try(registries+"basic/replications/eastus", `{"location":"eastus"}`); !errors.Is(err, registry.ErrSKU) {
			t.Errorf("of a Basic registry: %v", err)
		}
		if _, err := w.try(harbor, `{"location":"westeurope","sku":{"name":"Standard"}}`); !fault.Is(err, fault.Invalid) {
			t.Errorf("a lower SKU under a replica: %v", err)
		}
		w.remove(harbor + "/replications/eastus")
		if got := hosts(); got != "[harbor.westeurope.data.cr.cove.internal]" || isData(east) {
			t.Errorf("after the replica's deletion: %s", got)
		}
	})
}

// row:37 Names, limits and what is there, as the SKU has it.
func TestUsages(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		c := w.c
		c.Size = func(_ context.Context, uid string) (int64, error) { return int64(len(uid)), nil }
		svc, err := resource.New(resource.Config{Store: w.store, Types: []resource.Type{registry.Type(c), {Name: registry.TypeConnection}}, Locations: []string{"westeurope"}})
		if err != nil {
			t.Fatal(err)
		}
		w.Service = svc
		harbor := registries + "harbor"
		w.put(harbor, `{"location":"westeurope","sku":{"name":"Premium"},"properties":{"networkRuleSet":{"defaultAction":"Deny","ipRules":[{"value":"203.0.113.1"}]}}}`)
		w.put(harbor+"/privateEndpointConnections/one", `{"properties":{}}`)
		w.put(registries+"basic", `{"location":"westeurope","sku":{"name":"Basic"}}`)
		for id, want := range map[string]string{
			harbor:               "Size 536870912000 26 Bytes, Webhooks 500 0 Count, Geo-replications -1 0 Count, IPRules 200 1 Count, VNetRules 100 0 Count, PrivateEndpointConnections 200 1 Count, ScopeMaps 50000 0 Count, Tokens 50000 0 Count, ",
			registries + "basic": "Size 10737418240 26 Bytes, Webhooks 2 0 Count, Geo-replications 0 0 Count, IPRules 0 0 Count, VNetRules 0 0 Count, PrivateEndpointConnections 0 0 Count, ScopeMaps 100 0 Count, Tokens 100 0 Count, ",
		} {
			items, err := w.Compute(t.Context(), arm.MustID(id), "LISTUSAGES")
			if err != nil {
				t.Fatal(err)
			}
			var got string
			for _, o := range items {
				got += fmt.Sprintf("%v %v %v %v, ", o["name"], o["limit"], o["currentValue"], o["unit"])
			}
			if got != want {
				t.Errorf("%s:\n got %s\nwant %s", id, got, want)
			}
		}
	})
}
