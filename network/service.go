package network

import (
	"fmt"
	"slices"
	"strings"

	"cove.example/cove/resource"
)

// A subnet with a service endpoint reaches registries' public side from inside
// its network, and the registry knows which subnet it is. Registries are the
// one service that there is here; the names of others are kept and mean
// nothing.
const registryService = "Microsoft.ContainerRegistry"

// maxServices bounds a subnet's list.
const maxServices = 64

// served are the kinds of machines whose subnet a registry's rule can name
// (row 13; source: the documentation of Azure Container Registry). Whatever
// else runs in a network has only the address of one.
var served = []string{"vm", "aks", "agentpool"}

// checkServices checks a subnet's serviceEndpoints and spells the service's
// name as the rest of cove does.
func checkServices(p *problems, prefix string, props resource.Object) {
	v, ok := props["serviceEndpoints"]
	if !ok || v == nil {
		return
	}
	path := prefix + "properties.serviceEndpoints"
	list, ok := v.([]any)
	if !ok {
		p.add(path, "it must be a list")
		return
	}
	if len(list) > maxServices {
		p.add(path, "at most %d are allowed", maxServices)
		return
	}
	seen := map[string]bool{}
	for i, o := range objectsAt(props, "serviceEndpoints") {
		at := fmt.Sprintf("%s[%d].service", path, i)
		name := textAt(o, "service")
		key := strings.ToLower(name)
		switch {
		case name == "":
			p.add(at, "each has a service, such as %s", registryService)
			continue
		case seen[key]:
			p.add(at, "%s stands there twice", name)
		case strings.EqualFold(name, registryService):
			o["service"] = registryService
		}
		seen[key] = true
		// Both are ours to say: an endpoint is good everywhere, and at once.
		delete(o, "locations")
		delete(o, "provisioningState")
	}
}

func hasRegistryService(props resource.Object) bool {
	return slices.ContainsFunc(objectsAt(props, "serviceEndpoints"), func(o resource.Object) bool {
		return textAt(o, "service") == registryService
	})
}

func showServices(body resource.Object) {
	for _, o := range objectsAt(body, "properties", "serviceEndpoints") {
		if o != nil {
			o["locations"], o["provisioningState"] = []any{"*"}, "Succeeded"
		}
	}
}
