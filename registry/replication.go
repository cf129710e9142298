package registry

import (
	"context"
	"slices"
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

// pathUnrouted are those of pathRegions that the global name does not lead to.
const pathUnrouted = "cove.unrouted"

// pathEndpointEnabled says whether the registry's global name may lead to a
// replication's region. Its content is kept up to date either way, and its own
// hosts answer (source: the documentation of Azure Container Registry).
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
	switch resource.Lookup(k.body, pathEndpointEnabled).(type) {
	case nil:
		resource.Assign(k.body, pathEndpointEnabled, true)
	case bool:
	default:
		k.bad(pathEndpointEnabled, "must be true or false")
	}
	k.only(zones)
	return k.problems
}

func (c Config) putReplication(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	reg, err := tx.Get(ctx, ch.New.ID.Parent())
	if err != nil {
		return err
	}
	if ch.Old != nil {
		// Its location cannot change: nothing else matters to the registry.
		return reroute(ctx, tx, reg, *ch.New)
	}
	where, _ := ch.New.Body["location"].(string)
	if sku, _ := resource.Lookup(reg.Body, "sku.name").(string); sku != Premium {
		return ErrSKU.Detail("The registry %s is of SKU %s; geo-replication needs Premium.", reg.ID.Name(), sku)
	}
	if where == home(&reg) {
		return fault.At("location", ErrReplicated.Detail("The registry %s is at home in %s; a replication goes to another region.", reg.ID.Name(), where))
	}
	others, err := replications(ctx, tx, reg.ID)
	if err != nil {
		return err
	}
	for _, o := range others {
		if at, _ := o.Body["location"].(string); at == where {
			return fault.At("location", ErrReplicated.Detail("The registry %s has a replication in %s already: %s.", reg.ID.Name(), where, o.ID.Name()))
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
	setUnrouted(&reg, replicas)
	c.nameHosts(&reg)
	if err := tx.Put(ctx, &reg); err != nil {
		return err
	}
	if c.RegionsChanged == nil {
		return nil
	}
	return c.RegionsChanged(ctx, tx, reg, by)
}

// setUnrouted writes into the registry which replicas take no part in the
// routing of its global name.
func setUnrouted(reg *resource.Doc, replicas []resource.Doc) {
	unrouted := []any{}
	for _, r := range replicas {
		if on, given := resource.Lookup(r.Body, pathEndpointEnabled).(bool); given && !on {
			unrouted = append(unrouted, r.Body["location"])
		}
	}
	resource.Assign(reg.Body, pathUnrouted, unrouted)
}

// reroute follows a change of a replica's part in the routing.
func reroute(ctx context.Context, tx resource.Tx, reg, replica resource.Doc) error {
	all, err := replications(ctx, tx, reg.ID)
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].ID.Equal(replica.ID) {
			all[i] = replica
		}
	}
	before, _ := resource.Lookup(reg.Body, pathUnrouted).([]any)
	setUnrouted(&reg, all)
	if after, _ := resource.Lookup(reg.Body, pathUnrouted).([]any); slices.Equal(before, after) {
		return nil // a tag, say: the registry has not changed
	}
	return tx.Put(ctx, &reg)
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

// routed are the regions that a registry's global name may lead to, its home
// first.
func routed(doc *resource.Doc) []string {
	unrouted, _ := resource.Lookup(doc.Body, pathUnrouted).([]any)
	return slices.DeleteFunc(regions(doc), func(region string) bool { return slices.Contains(unrouted, any(region)) })
}

// dataHosts are the hosts that blobs are downloaded from, one a region.
func (c Config) dataHosts(doc *resource.Doc) []string {
	var hosts []string
	for _, region := range regions(doc) {
		hosts = append(hosts, strings.ToLower(doc.ID.Name())+"."+region+".data."+c.Suffix)
	}
	return hosts
}

// nameHosts keeps the hosts in regions that are shown with the registry.
func (c Config) nameHosts(doc *resource.Doc) {
	resource.Assign(doc.Body, pathDataHosts, c.shownDataHosts(doc))
	resource.Assign(doc.Body, pathRegionalHosts, c.shownRegionalHosts(doc))
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
