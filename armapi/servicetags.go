package armapi

import (
	"context"
	"fmt"
	"hash/crc32"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"cove.example/cove/network"
	"cove.example/cove/resource"
)

// ServiceTags answers `az network list-service-tags`. The location says, as in
// Azure, which copy of the list is asked for and not what is in it; here there
// is one copy.
func ServiceTags(tags []network.ServiceTag, locations []string) Route {
	number := strconv.FormatUint(uint64(crc32.ChecksumIEEE([]byte(fmt.Sprint(tags)))), 10)
	values := make([]any, len(tags))
	for i, t := range tags {
		values[i] = resource.Object{"name": t.Name, "id": t.Name, "properties": resource.Object{
			"changeNumber": number, "region": t.Region, "systemService": t.Service, "addressPrefixes": t.Prefixes,
		}}
	}
	return Route{
		Method: http.MethodGet, Pattern: "/subscriptions/{subscription}/providers/Microsoft.Network/locations/{location}/serviceTags",
		Action: "Microsoft.Network/locations/serviceTags/read",
		Do: func(_ context.Context, c *Call) (Reply, error) {
			where := strings.ReplaceAll(c.Params["location"], " ", "")
			if !slices.ContainsFunc(locations, func(l string) bool { return strings.EqualFold(l, where) }) {
				return Reply{}, resource.ErrLocation.Detail("The provided location '%.90s' is not available for resource type 'locations/serviceTags'. List of available regions for the resource type is '%s'.", where, strings.Join(locations, ","))
			}
			return Reply{Status: http.StatusOK, Body: resource.Object{
				"name": "cove", "id": "/subscriptions/" + c.Params["subscription"] + "/providers/Microsoft.Network/serviceTags/cove",
				"type": "Microsoft.Network/serviceTags", "cloud": "cove", "changeNumber": number, "values": values,
			}}, nil
		},
	}
}
