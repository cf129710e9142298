package registry

import (
	"context"
	"strings"
	"time"

	"cove.example/cove/resource"
)

// The limits of a registry that this version enforces or reports, by SKU
// (source: the documentation of Azure Container Registry).
const (
	maxPrivateEndpoints = 200
	// Registries made before October 2021 may have ten.
	oldPrivateEndpoints = 10
	maxSubnetRules      = 100
)

var manyEndpointsSince = time.Date(2021, 10, 1, 0, 0, 0, 0, time.UTC)

// MaxPrivateEndpoints is how many private endpoints a registry may have: by
// the day it was made on, unless the operator has said otherwise.
func (c Config) MaxPrivateEndpoints(doc resource.Doc) int {
	if resource.Lookup(doc.Body, "sku.name") != Premium {
		return 0
	}
	if n, ok := c.EndpointLimits[strings.ToLower(doc.ID.Name())]; ok {
		return n
	}
	text, _ := resource.Lookup(doc.Body, pathCreated).(string)
	if made, err := time.Parse(time.RFC3339Nano, text); err == nil && made.Before(manyEndpointsSince) {
		return oldPrivateEndpoints
	}
	return maxPrivateEndpoints
}

// limits are those that differ by SKU: the storage that it comes with, in GiB,
// webhooks, and tokens, of which there may be as many as scope maps.
var limits = map[string]struct{ gib, webhooks, tokens int64 }{
	Basic:    {10, 2, 100},
	Standard: {100, 10, 500},
	Premium:  {500, 500, 50_000},
}

// usages are what a registry has of what it may have.
func (c Config) usages(ctx context.Context, r resource.Reader, doc resource.Doc) ([]resource.Object, error) {
	sku, _ := resource.Lookup(doc.Body, "sku.name").(string)
	var size int64
	if c.Size != nil {
		var err error
		if size, err = c.Size(ctx, doc.UID); err != nil {
			return nil, err
		}
	}
	count := map[string]int64{}
	for _, typ := range []string{TypeConnection, TypeName + "/webhooks", TypeName + "/tokens", TypeName + "/scopeMaps"} {
		var err error
		if count[typ], err = r.Count(ctx, typ, doc.ID); err != nil {
			return nil, err
		}
	}
	ipRules, _ := resource.Lookup(doc.Body, pathIPRules).([]any)
	subnets, _ := resource.Lookup(doc.Body, "properties.networkRuleSet.virtualNetworkRules").([]any)
	of := func(n int) int {
		if sku != Premium {
			return 0
		}
		return n
	}
	one := func(name string, limit, current int64, unit string) resource.Object {
		return resource.Object{"name": name, "limit": limit, "currentValue": current, "unit": unit}
	}
	return []resource.Object{
		one("Size", limits[sku].gib<<30, size, "Bytes"),
		one("Webhooks", limits[sku].webhooks, count[TypeName+"/webhooks"], "Count"),
		one("Geo-replications", int64(of(-1)), int64(len(regions(&doc))-1), "Count"),
		one("IPRules", int64(of(MaxIPRules)), int64(len(ipRules)), "Count"),
		one("VNetRules", int64(of(maxSubnetRules)), int64(len(subnets)), "Count"),
		one("PrivateEndpointConnections", int64(c.MaxPrivateEndpoints(doc)), count[TypeConnection], "Count"),
		one("ScopeMaps", limits[sku].tokens, count[TypeName+"/scopeMaps"], "Count"),
		one("Tokens", limits[sku].tokens, count[TypeName+"/tokens"], "Count"),
	}, nil
}

// linkResources is the one thing of a registry that private endpoints lead to,
// with a member for the login server and one for each region's data host.
func (c Config) linkResources(_ context.Context, _ resource.Reader, doc resource.Doc) ([]resource.Object, error) {
	members := []any{GroupID}
	for _, region := range regions(&doc) {
		members = append(members, "registry_data_"+region)
	}
	return []resource.Object{{
		"id": doc.ID.String() + "/privateLinkResources/" + GroupID, "name": GroupID, "type": TypeName + "/privateLinkResources",
		"properties": resource.Object{
			"groupId": GroupID, "requiredMembers": members, "requiredZoneNames": []any{"privatelink." + c.Suffix},
		},
	}}, nil
}

// GroupID is the one group of members that a registry has for private
// endpoints.
const GroupID = "registry"
