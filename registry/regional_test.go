package registry_test

import (
	"context"
	"fmt"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// Regional endpoints are a switch: on, each region has a login server of its
// own, which the data path knows and who has addresses for it is told of; off,
// the names are nobody's.
func TestRegionalEndpoints(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		var told []string
		c := w.c
		c.RegionsChanged = func(_ context.Context, _ resource.Tx, reg resource.Doc, _ resource.Caller) error {
			told = append(told, fmt.Sprint(resource.Lookup(reg.Body, "properties.regionalEndpointHostNames")))
			return nil
		}
		svc, err := resource.New(resource.Config{
			Store: w.store, Types: []resource.Type{registry.Type(c), registry.Replications(c), {Name: registry.TypeConnection}},
			Locations: []string{"westeurope", "eastus"},
		})
		if err != nil {
			t.Fatal(err)
		}
		w.Service = svc
		dir := registry.NewDirectory(w.store, c)
		harbor := registries + "harbor"
		const home, east = "harbor.westeurope.geo.cr.cove.internal", "harbor.eastus.geo.cr.cove.internal"
		known := func(want ...string) {
			t.Helper()
			r, err := w.Get(t.Context(), arm.MustID(harbor))
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(resource.Lookup(r.Body, "properties.regionalEndpointHostNames")); got != fmt.Sprint(want) {
				t.Errorf("shown: %s, want %s", got, want)
			}
			for _, host := range []string{home, east} {
				s, err := dir.ByHost(t.Context(), host)
				if err != nil {
					t.Fatal(err)
				}
				served := false
				for _, h := range want {
					served = served || h == host
				}
				if served != (s != nil) {
					t.Errorf("%s: served is %v", host, s != nil)
				}
			}
		}
		w.put(harbor, `{"location":"westeurope","sku":{"name":"Premium"}}`)
		known()
		w.put(harbor, `{"location":"westeurope","sku":{"name":"Premium"},"properties":{"regionalEndpoints":"enabled","regionalEndpointHostNames":["evil.example"]}}`)
		known(home)
		w.put(harbor+"/replications/eastus", `{"location":"eastus"}`)
		known(home, east)
		w.put(harbor, `{"location":"westeurope","sku":{"name":"Premium"},"properties":{"regionalEndpoints":"Disabled"}}`)
		known()
		if got := fmt.Sprint(told); got != "[["+home+"] ["+home+" "+east+"] []]" {
			t.Errorf("told %s", got)
		}
		if _, err := w.try(registries+"basic", `{"location":"westeurope","sku":{"name":"Basic"},"properties":{"regionalEndpoints":"Enabled"}}`); err == nil {
			t.Error("a Basic registry has regional endpoints")
		}
	})
}
