package registry

import (
	"context"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// TypeReplication is a region, besides its home, that a registry is served in.
const TypeReplication = TypeName + "/replications"

// pathRegions are the regions of a registry's replications. They stand in the
// registry's own document, so that the data path needs no second read.
const pathRegions = "cove.regions"

const pathEndpointEnabled = "properties.regionEndpointEnabled"

// Replications is the row for replications. Which regions there can be is the
// deployment's matter: resource.Type.Located refuses the others.
func Replications(c Config) resource.Type {
	return resource.Type{
		Name:      TypeReplication,
		Located:   true,
		ReadOnly:  []string{"properties.status", "properties.provisioningState"},
		CheckName: checkReplicationName,
		Check:     checkReplication,
		Put:       c.putReplication,
		Delete:    c.deleteReplication,
		Show: func(_ context.Context, _ resource.Reader, doc resource.Doc, body resource.Object) error {
			resource.Assign(body, "properties.status", resource.Object{
				"displayStatus": "Ready", "timestamp": doc.Changed.UTC().Format("2006-01-02T15:04:05Z"),
			})
			return nil
		},
	}
}

func checkReplicationName(name string) string {
	if len(name) < 5 || len(name) > 50 || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return "must be 5 to 50 letters and digits"
	}
	return ""
}

func checkReplication(ch *resource.Change) []fault.Field {
	k := &checker{body: ch.New.Body}
	k.object("properties")
	if len(k.problems) > 0 {
		return k.problems
	}
	k.spell("properties", "regionEndpointEnabled", "zoneRedundancy")
	switch v := resource.Lookup(k.body, pathEndpointEnabled).(type) {
	case nil:
		resource.Assign(k.body, pathEndpointEnabled, true)
	case bool:
		if !v {
			k.bad(pathEndpointEnabled, "keeping a region out of the global endpoint's routing is not in this version; it can only be true")
		}
	default:
		k.bad(pathEndpointEnabled, "must be true or false")
	}
	k.word("properties.zoneRedundancy", "Disabled", "Enabled", "Disabled")
	return k.problems
}

func (c Config) putReplication(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	if ch.Old != nil {
		return nil // its location cannot change, and nothing else matters to the registry
	}
	reg, err := tx.Get(ctx, ch.New.ID.Parent())
	if err != nil {
		return err
	}
	where, _ := ch.New.Body["location"].(string)
	if sku, _ := resource.Lookup(reg.Body, "sku.name").(string); sku != Premium {
		return ErrSKU.Detail("The registry %s is of SKU %s; geo-replication needs Premium.", reg.ID.Name(), sku)
	}
	if where == home(&reg) {
		return ErrReplicated.Detail("The registry %s is at home in %s; a replication goes to another region.", reg.ID.Name(), where)
	}
	others, err := replications(ctx, tx, reg.ID)
	if err != nil {
		return err
	}
	for _, o := range others {
		if at, _ := o.Body["location"].(string); at == where {
			return ErrReplicated.Detail("The registry %s has a replication in %s already: %s.", reg.ID.Name(), where, o.ID.Name())
		}
	}
	return c.setRegions(ctx, tx, reg, append(others, *ch.New), ch.Caller)
}

func (c Config) deleteReplication(ctx context.Context, tx resource.Tx, doc resource.Doc, by resource.Caller) error {
	reg, err := tx.Get(ctx, doc.ID.Parent())
	if err != nil {
		return err
	}
	all, err := replications(ctx, tx, reg.ID)
	if err != nil {
		return err
	}
	var rest []resource.Doc
	for _, r := range all {
		if !r.ID.Equal(doc.ID) {
			rest = append(rest, r)
		}
	}
	return c.setRegions(ctx, tx, reg, rest, by)
}

// setRegions writes the regions of replicas into the registry, and tells who
// has addresses for their data hosts.
func (c Config) setRegions(ctx context.Context, tx resource.Tx, reg resource.Doc, replicas []resource.Doc, by resource.Caller) error {
	regions := []any{}
	for _, r := range replicas {
		regions = append(regions, r.Body["location"])
	}
	resource.Assign(reg.Body, pathRegions, regions)
	c.nameDataHosts(&reg)
	if err := tx.Put(ctx, &reg); err != nil {
		return err
	}
	if c.RegionsChanged == nil {
		return nil
	}
	return c.RegionsChanged(ctx, tx, reg, by)
}

func replications(ctx context.Context, r resource.Reader, reg arm.ID) ([]resource.Doc, error) {
	return r.List(ctx, resource.Query{Type: TypeReplication, Under: reg})
}

func home(doc *resource.Doc) string {
	where, _ := doc.Body["location"].(string)
	return where
}

// regions are where a registry is served, its home first.
func regions(doc *resource.Doc) []string {
	all := []string{home(doc)}
	more, _ := resource.Lookup(doc.Body, pathRegions).([]any)
	for _, v := range more {
		if s, _ := v.(string); s != "" {
			all = append(all, s)
		}
	}
	return all
}

// dataHosts are the hosts that blobs are downloaded from, one a region.
func (c Config) dataHosts(doc *resource.Doc) []string {
	var hosts []string
	for _, region := range regions(doc) {
		hosts = append(hosts, strings.ToLower(doc.ID.Name())+"."+region+".data."+c.Suffix)
	}
	return hosts
}

// nameDataHosts keeps the data hosts that are shown with the registry.
func (c Config) nameDataHosts(doc *resource.Doc) {
	resource.Assign(doc.Body, pathDataHosts, c.shownDataHosts(doc))
}

// shownDataHosts are the data hosts where dedicated data endpoints are on.
func (c Config) shownDataHosts(doc *resource.Doc) []any {
	shown := []any{}
	if on, _ := resource.Lookup(doc.Body, pathDataEndpoint).(bool); on {
		for _, host := range c.dataHosts(doc) {
			shown = append(shown, host)
		}
	}
	return shown
}

// ErrReplicated is the failure of a replication to a region that the registry
// is in already.
var ErrReplicated = fault.Coded(fault.Conflict, "RegistryAlreadyInRegion", "the registry is in the region already")
