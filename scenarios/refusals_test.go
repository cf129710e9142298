package scenarios

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"cove.example/cove/covetest"
	"cove.example/cove/storetest"
)

// manager is a client of the Resource Manager that may do everything.
type manager struct {
	*testing.T
	client *http.Client
	bearer string
	sub    string
}

func openManager(t *testing.T, s *covetest.Server) *manager {
	t.Helper()
	m := &manager{t, s.Outside(t), issued(t, s, administrator(t, s), "https://management.cove.internal"), ""}
	m.sub = m.subscription("cove")
	return m
}

// subscription is the id of the subscription of a name.
func (m *manager) subscription(name string) string {
	m.Helper()
	list, _ := m.done(http.MethodGet, "/subscriptions", "").body["value"].([]any)
	for _, v := range list {
		if o, _ := v.(map[string]any); o["displayName"] == name {
			id, _ := o["id"].(string)
			return id
		}
	}
	m.Fatalf("there is no subscription %s among %v", name, list)
	return ""
}

// said is an answer of the Resource Manager.
type said struct {
	status int
	header http.Header
	body   map[string]any
}

// try fails where the server is not there.
func (m *manager) try(method, target, body string, headers ...string) (said, error) {
	target, query, _ := strings.Cut(target, "?")
	if !strings.Contains(query, "api-version") {
		query = strings.Trim(query+"&api-version=2025-04-01", "&")
	}
	req, err := http.NewRequestWithContext(m.Context(), method, "https://management.cove.internal"+target+"?"+query, strings.NewReader(body))
	if err != nil {
		return said{}, err
	}
	req.Header.Set("Authorization", "Bearer "+m.bearer)
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return said{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	out := said{status: resp.StatusCode, header: resp.Header}
	if err == nil && len(text) > 0 {
		err = json.Unmarshal(text, &out.body)
	}
	return out, err
}

func (m *manager) ask(method, target, body string, headers ...string) said {
	m.Helper()
	a, err := m.try(method, target, body, headers...)
	if err != nil {
		m.Fatalf("%s %s: %v", method, target, err)
	}
	return a
}

// done is ask for what must succeed.
func (m *manager) done(method, target, body string, headers ...string) said {
	m.Helper()
	a := m.ask(method, target, body, headers...)
	if a.status >= 300 {
		m.Fatalf("%s %s: %d %v", method, target, a.status, a.body)
	}
	return a
}

// problem is a refusal's code, and the paths of the properties that it names.
func (a said) problem() (code, message string, targets []string) {
	e, _ := a.body["error"].(map[string]any)
	code, _ = e["code"].(string)
	message, _ = e["message"].(string)
	if list, ok := e["details"].([]any); ok {
		for _, v := range list {
			o, _ := v.(map[string]any)
			text, _ := o["target"].(string)
			targets = append(targets, text)
		}
	} else if text, ok := e["target"].(string); ok {
		targets = []string{text}
	}
	return code, message, targets
}

// refusal is one row of the table of bad input.
type refusal struct {
	what                 string
	method, target, body string
	status               int
	code                 string
	targets              string // the paths of all properties that are wrong, in order
	headers              []string
}

// Everything that a caller can get wrong is refused in the Resource Manager's
// shape, with its status and code, by the path of each property that is wrong,
// all of a body at once, and it leaves nothing behind.
func TestBadInput(t *testing.T) {
	t.Parallel()
	run := func(t *testing.T, more ...string) {
		t.Parallel()
		s := covetest.Start(t, append([]string{"--region", "westeurope", "--also-region", "eastus", "--also-subscription", "partner"}, more...)...)
		m := openManager(t, s)
		here, second := m.sub, m.subscription("partner")
		group := here + "/resourceGroups/one"
		acr := group + "/providers/Microsoft.ContainerRegistry/registries/"
		net := group + "/providers/Microsoft.Network/"
		auth := "/providers/Microsoft.Authorization/"
		vnet, zone := net+"virtualNetworks/net", net+"privateDnsZones/privatelink.cr.cove.internal"
		const pull = "7f951dda-4ed3-4680-a7ca-43fe172d538d"
		at := `"location":"westeurope"`
		endpoint := func(subnet, registry, more string) string {
			return `{` + at + `,"properties":{"subnet":{"id":"` + vnet + `/subnets/` + subnet + `"},` + more + `"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"` + registry + `","groupIds":["registry"]}}]}}`
		}
		nic := func(subnet string, addresses ...string) string {
			var list []string
			for i, a := range addresses {
				how := `"privateIPAllocationMethod":"Dynamic"`
				if a != "" {
					how = `"privateIPAllocationMethod":"Static","privateIPAddress":"` + a + `"`
				}
				list = append(list, fmt.Sprintf(`{"name":"ip%d","properties":{"subnet":{"id":"%s/subnets/%s"},%s}}`, i, vnet, subnet, how))
			}
			return `{` + at + `,"properties":{"ipConfigurations":[` + strings.Join(list, ",") + `]}}`
		}
		rules := func(n int) string {
			var list []string
			for i := range n {
				list = append(list, fmt.Sprintf(`{"value":"203.0.%d.%d"}`, i/250, i%250))
			}
			return `{` + at + `,"sku":{"name":"Premium"},"properties":{"networkRuleSet":{"ipRules":[` + strings.Join(list, ",") + `]}}}`
		}
		connections := acr + "harbor/privateEndpointConnections"
		stale := []string{"If-Match", `"of another day"`}

		for _, r := range [][2]string{
			{group, `{` + at + `}`},
			{second + "/resourceGroups/abroad", `{` + at + `}`},
			{here + "/resourceGroups/kept", `{` + at + `}`},
			{here + "/resourceGroups/kept/providers/Microsoft.Authorization/locks/keep", `{"properties":{"level":"CanNotDelete"}}`},
			{acr + "harbor", `{` + at + `,"sku":{"name":"Premium"}}`},
			{acr + "plain", `{` + at + `,"sku":{"name":"Basic"}}`},
			{vnet, `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]},"subnets":[{"name":"default","properties":{"addressPrefix":"10.1.0.0/24"}},{"name":"tiny","properties":{"addressPrefix":"10.1.1.0/29"}}]}}`},
			{net + "networkSecurityGroups/walls", `{` + at + `}`},
			{vnet + "/subnets/walled", `{"properties":{"addressPrefix":"10.1.2.0/24","networkSecurityGroup":{"id":"` + net + `networkSecurityGroups/walls"}}}`},
			{net + "networkInterfaces/full", nic("tiny", "10.1.1.4", "10.1.1.5", "")},
			{net + "privateEndpoints/pe", endpoint("default", acr+"harbor", "")},
			{zone, `{"location":"global"}`},
			{zone + "/virtualNetworkLinks/net", `{"location":"global","properties":{"registrationEnabled":false,"virtualNetwork":{"id":"` + vnet + `"}}}`},
			{zone + "/A/www", `{"properties":{"ttl":60,"aRecords":[{"ipv4Address":"10.1.0.77"}]}}`},
			{acr + "harbor/scopeMaps/readers", `{"properties":{"actions":["repositories/a/content/read"]}}`},
			{acr + "harbor/tokens/robot", `{"properties":{"scopeMapId":"` + acr + `harbor/scopeMaps/readers","status":"enabled"}}`},
			{net + "virtualNetworks/other", `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.1.128.0/17"]}}}`},
		} {
			m.done(http.MethodPut, r[0], r[1])
		}
		list := m.done(http.MethodGet, connections, "").body["value"].([]any)
		connection, _ := list[0].(map[string]any)["id"].(string)
		nicOf := func() string {
			for _, v := range m.done(http.MethodGet, net+"networkInterfaces", "").body["value"].([]any) {
				if id, _ := v.(map[string]any)["id"].(string); strings.Contains(id, "pe.nic.") {
					return id
				}
			}
			return ""
		}()
		before := everything(m)

		const put, patch, get, del, post = http.MethodPut, http.MethodPatch, http.MethodGet, http.MethodDelete, http.MethodPost
		const invalid, gone, taken = http.StatusBadRequest, http.StatusNotFound, http.StatusConflict
		for _, r := range []refusal{
			// Types, ids, paths.
			{"an unknown type", put, group + "/providers/Microsoft.Compute/virtualMachines/vm", `{` + at + `}`, gone, "InvalidResourceType", "", nil},
			{"an unknown type, read", get, group + "/providers/Microsoft.Compute/virtualMachines/vm", "", gone, "InvalidResourceType", "", nil},
			{"an unknown child", put, acr + "harbor/buckets/b", `{}`, gone, "InvalidResourceType", "", nil},
			{"a resource outside of a group", put, here + "/providers/Microsoft.ContainerRegistry/registries/harbor", `{` + at + `}`, gone, "InvalidResourceType", "", nil},
			{"an id with an empty segment", get, here + "//resourceGroups/one", "", invalid, "InvalidRequestUri", "", nil},
			{"an id with a dot segment", get, here + "/resourceGroups/../one", "", invalid, "InvalidRequestUri", "", nil},
			{"an id that ends too early", put, group + "/providers/Microsoft.Network", `{}`, gone, "ResourceNotFound", "", nil},
			{"a slash at the end", get, group + "/", "", invalid, "InvalidRequestUri", "", nil},
			{"another subscription", get, "/subscriptions/00000000-0000-4000-8000-000000000000/resourceGroups/one", "", http.StatusForbidden, "AuthorizationFailed", "", nil},
			{"no such group", get, here + "/resourceGroups/nowhere", "", gone, "ResourceGroupNotFound", "", nil},
			{"a resource in no such group", put, here + "/resourceGroups/nowhere/providers/Microsoft.Network/virtualNetworks/v", `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]}}}`, gone, "ResourceGroupNotFound", "", nil},
			{"a child of nothing", put, vnet + "er/subnets/s", `{"properties":{"addressPrefix":"10.1.9.0/24"}}`, gone, "ParentResourceNotFound", "", nil},
			{"a resource that is not there", get, acr + "nowhere", "", gone, "ResourceNotFound", "", nil},
			{"a patch of nothing", patch, acr + "nowhere", `{"tags":{}}`, gone, "ResourceNotFound", "", nil},
			{"an action that is none", post, acr + "harbor/explode", `{}`, gone, "ActionNotFound", "", nil},
			{"no api-version", get, group + "?api-version=", "", invalid, "MissingApiVersionParameter", "", nil},
			{"an api-version that is none", get, group + "?api-version=latest", "", invalid, "InvalidApiVersionParameter", "", nil},
			{"an operation that is none", get, here + "/providers/Microsoft.ContainerRegistry/locations/westeurope/operationStatuses/none", "", gone, "OperationNotFound", "", nil},
			// Bodies.
			{"no body", put, acr + "fresh", "", invalid, "InvalidRequestContent", "", nil},
			{"no JSON", put, acr + "fresh", "{", invalid, "InvalidRequestContent", "", nil},
			{"no object", put, acr + "fresh", "[]", invalid, "InvalidRequestContent", "", nil},
			{"a property twice", put, acr + "fresh", `{"sku":{},"sku":{}}`, invalid, "InvalidRequestContent", "", nil},
			{"a property twice, in another case", put, acr + "fresh", `{"sku":{},"Sku":{}}`, invalid, "InvalidRequestContent", "sku", nil},
			{"no JSON by its type", put, acr + "fresh", `{}`, http.StatusUnsupportedMediaType, "UnsupportedMediaType", "", []string{"Content-Type", "text/plain"}},
			{"tags that are none", put, group, `{` + at + `,"tags":{"a":1,"b<":"c"}}`, invalid, "InvalidRequestContent", "tags.a tags", nil},
			// Locations.
			{"no location", put, acr + "fresh", `{"sku":{"name":"Premium"}}`, invalid, "LocationRequired", "location", nil},
			{"a location elsewhere", put, acr + "fresh", `{"location":"northeurope","sku":{"name":"Premium"}}`, invalid, "LocationNotAvailableForResourceType", "location", nil},
			{"a group elsewhere", put, here + "/resourceGroups/two", `{"location":"northeurope"}`, invalid, "LocationNotAvailableForResourceGroup", "location", nil},
			{"a move", put, acr + "harbor", `{"location":"eastus","sku":{"name":"Premium"}}`, taken, "InvalidResourceLocation", "location", nil},
			{"a region twice", put, acr + "harbor/replications/westeurope", `{` + at + `}`, taken, "RegistryAlreadyInRegion", "location", nil},
			{"a region elsewhere", put, acr + "harbor/replications/northeurope", `{"location":"northeurope"}`, invalid, "LocationNotAvailableForResourceType", "location", nil},
			// Names.
			{"a name that is taken in another subscription", put, second + "/resourceGroups/abroad/providers/Microsoft.ContainerRegistry/registries/Harbor", `{` + at + `,"sku":{"name":"Basic"}}`, taken, "AlreadyInUse", "", nil},
			{"a name too short", put, acr + "abc", `{` + at + `,"sku":{"name":"Basic"}}`, invalid, "InvalidRequestContent", "name", nil},
			{"a reserved name", put, acr + "privatelink", `{` + at + `,"sku":{"name":"Basic"}}`, invalid, "InvalidRequestContent", "name", nil},
			{"a network's name", put, net + "virtualNetworks/-net", `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]}}}`, invalid, "InvalidRequestContent", "name", nil},
			{"a federated credential's name", put, group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/none/federatedIdentityCredentials/x", `{"properties":{"issuer":"http://x","subject":"","audiences":["a"]}}`, gone, "ParentResourceNotFound", "", nil},
			// SKUs.
			{"no SKU", put, acr + "fresh", `{` + at + `}`, invalid, "InvalidRequestContent", "sku.name", nil},
			{"a SKU that is none", put, acr + "fresh", `{` + at + `,"sku":{"name":"Gold"}}`, invalid, "InvalidRequestContent", "sku.name", nil},
			{"rules on Basic", patch, acr + "plain", `{"properties":{"networkRuleSet":{"defaultAction":"Deny"}}}`, invalid, "InvalidRequestContent", "properties.networkRuleSet", nil},
			{"closed on Basic", patch, acr + "plain", `{"properties":{"publicNetworkAccess":"Disabled"}}`, invalid, "InvalidRequestContent", "properties.publicNetworkAccess", nil},
			{"anonymous pull on Basic", patch, acr + "plain", `{"properties":{"anonymousPullEnabled":true}}`, invalid, "InvalidRequestContent", "properties.anonymousPullEnabled", nil},
			{"data endpoints on Basic", patch, acr + "plain", `{"properties":{"dataEndpointEnabled":true}}`, invalid, "InvalidRequestContent", "properties.dataEndpointEnabled", nil},
			{"replicas of Basic", put, acr + "plain/replications/eastus", `{"location":"eastus"}`, invalid, "SkuNotSupported", "", nil},
			{"a private endpoint to Basic", put, net + "privateEndpoints/pe2", endpoint("default", acr+"plain", ""), invalid, "SkuNotSupported", "properties.privateLinkServiceConnections[0].properties.privateLinkServiceId", nil},
			{"a downgrade with private endpoints", patch, acr + "harbor", `{"sku":{"name":"Standard"},"properties":{"dataEndpointEnabled":false}}`, invalid, "InvalidRequestContent", "sku.name properties.dataEndpointEnabled", nil},
			{"no data endpoints with private endpoints", patch, acr + "harbor", `{"properties":{"dataEndpointEnabled":false}}`, invalid, "InvalidRequestContent", "properties.dataEndpointEnabled", nil},
			// Quotas.
			{"201 rules", put, acr + "fresh", rules(201), invalid, "InvalidRequestContent", "properties.networkRuleSet.ipRules", nil},
			{"51 tags", patch, acr + "harbor", `{"tags":{` + strings.Join(times(51, `"t%d":""`), ",") + `}}`, invalid, "InvalidRequestContent", "tags", nil},
			{"501 actions of a scope map", put, acr + "harbor/scopeMaps/toolong", `{"properties":{"actions":[` + strings.Join(times(501, `"repositories/r%d/content/read"`), ",") + `]}}`, invalid, "InvalidRequestContent", "properties.actions", nil},
			// Prefixes and addresses.
			{"a prefix with bits beyond", put, net + "virtualNetworks/v", `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.0.0.1/16","x"]}}}`, invalid, "InvalidRequestContent", "properties.addressSpace.addressPrefixes properties.addressSpace.addressPrefixes", nil},
			{"subnets that overlap", put, vnet + "/subnets/more", `{"properties":{"addressPrefix":"10.1.0.128/25"}}`, invalid, "NetcfgSubnetRangesOverlap", "properties.addressPrefix", nil},
			{"a subnet outside", put, vnet + "/subnets/more", `{"properties":{"addressPrefix":"10.2.0.0/24"}}`, invalid, "NetcfgSubnetRangeOutsideVnet", "properties.addressPrefix", nil},
			{"subnets that overlap, inside a network", put, net + "virtualNetworks/v", `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[{"name":"a","properties":{"addressPrefix":"10.0.0.0/24"}},{"name":"b","properties":{"addressPrefix":"10.0.0.128/25"}},{"name":"c","properties":{"addressPrefix":"10.9.0.0/24"}}]}}`, invalid, "InvalidRequestContent", "properties.subnets[1].properties.addressPrefix properties.subnets[2].properties.addressPrefix", nil},
			{"subnets that are no objects", put, net + "virtualNetworks/v", `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.0.0.0/16"]},"subnets":[5,{"name":"a!"}]}}`, invalid, "InvalidRequestContent", "properties.subnets[0].properties properties.subnets[1].properties", nil},
			{"a prefix in use", patch, vnet, `{"properties":{"addressSpace":{"addressPrefixes":["10.1.2.0/24"]}}}`, invalid, "InvalidRequestContent", "properties.addressSpace.addressPrefixes properties.addressSpace.addressPrefixes", nil},
			{"another prefix under addresses", put, vnet + "/subnets/default", `{"properties":{"addressPrefix":"10.1.3.0/24"}}`, invalid, "InUsePrefixCannotBeDeleted", "properties.addressPrefix", nil},
			{"an address outside its subnet", put, net + "networkInterfaces/n", nic("default", "10.1.1.9"), invalid, "PrivateIPAddressNotInSubnet", "properties.ipConfigurations[0].properties.privateIPAddress", nil},
			{"a reserved address", put, net + "networkInterfaces/n", nic("default", "10.1.0.1"), invalid, "PrivateIPAddressInReservedRange", "properties.ipConfigurations[0].properties.privateIPAddress", nil},
			{"an address that is taken, and one outside", put, net + "networkInterfaces/n", nic("tiny", "10.1.1.4", "10.1.9.9"), invalid, "InvalidRequestContent", "properties.ipConfigurations[0].properties.privateIPAddress properties.ipConfigurations[1].properties.privateIPAddress", nil},
			{"a full subnet", put, net + "networkInterfaces/n", nic("tiny", ""), invalid, "SubnetIsFull", "properties.ipConfigurations[0].properties.subnet.id", nil},
			{"a private endpoint in a full subnet", put, net + "privateEndpoints/pe2", endpoint("tiny", acr+"harbor", ""), invalid, "InvalidRequestContent", "properties.subnet.id properties.subnet.id", nil},
			{"static addresses outside of the subnet", put, net + "privateEndpoints/pe2", endpoint("default", acr+"harbor", `"ipConfigurations":[{"name":"d","properties":{"groupId":"registry","memberName":"registry_data_westeurope","privateIPAddress":"10.1.7.2"}},{"name":"r","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":"10.1.7.1"}}],`), invalid, "InvalidRequestContent", "properties.ipConfigurations[1].properties.privateIPAddress properties.ipConfigurations[0].properties.privateIPAddress", nil},
			{"static addresses, one too few", put, net + "privateEndpoints/pe2", endpoint("default", acr+"harbor", `"ipConfigurations":[{"name":"r","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":"10.1.0.99"}}],`), invalid, "PrivateEndpointIpConfigurationsInvalid", "properties.ipConfigurations", nil},
			{"networks that overlap, as peers", put, vnet + "/virtualNetworkPeerings/p", `{"properties":{"remoteVirtualNetwork":{"id":"` + net + `virtualNetworks/other"}}}`, invalid, "VnetAddressSpacesOverlap", "properties.remoteVirtualNetwork.id", nil},
			{"a peering inside a network", put, net + "virtualNetworks/other", `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.1.128.0/17"]},"virtualNetworkPeerings":[{"name":"p","properties":{}}]}}`, invalid, "InvalidRequestContent", "properties.virtualNetworkPeerings", nil},
			// What a body names.
			{"a subnet that is not there", put, net + "privateEndpoints/pe2", endpoint("nowhere", acr+"harbor", ""), invalid, "InvalidResourceReference", "properties.subnet.id", nil},
			{"a registry that is not there", put, net + "privateEndpoints/pe2", endpoint("default", acr+"nowhere", ""), invalid, "InvalidResourceReference", "properties.privateLinkServiceConnections[0].properties.privateLinkServiceId", nil},
			{"another group id", put, net + "privateEndpoints/pe2", strings.ReplaceAll(endpoint("default", acr+"harbor", ""), `["registry"]`, `["blob"]`), invalid, "InvalidRequestContent", "properties.privateLinkServiceConnections[0].properties.groupIds", nil},
			{"another subnet, registry and addresses", put, net + "privateEndpoints/pe", endpoint("walled", acr+"plain", `"ipConfigurations":[{"name":"r","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":"10.1.0.99"}}],`), invalid, "InvalidRequestContent", "properties.subnet.id properties.privateLinkServiceConnections properties.ipConfigurations", nil},
			{"a security group that is not there", put, vnet + "/subnets/default", `{"properties":{"addressPrefix":"10.1.0.0/24","networkSecurityGroup":{"id":"` + net + `networkSecurityGroups/none"}}}`, invalid, "InvalidResourceReference", "properties.networkSecurityGroup.id", nil},
			{"a zone that is not there", put, net + "privateEndpoints/pe/privateDnsZoneGroups/default", `{"properties":{"privateDnsZoneConfigs":[{"name":"a","properties":{"privateDnsZoneId":"` + net + `privateDnsZones/none.test"}}]}}`, invalid, "InvalidResourceReference", "properties.privateDnsZoneConfigs[0].properties.privateDnsZoneId", nil},
			{"a network that is linked", put, zone + "/virtualNetworkLinks/again", `{"location":"global","properties":{"virtualNetwork":{"id":"` + vnet + `"}}}`, invalid, "BadRequest", "properties.virtualNetwork.id", nil},
			{"a subnet rule beside private endpoints", patch, acr + "harbor", `{"properties":{"networkRuleSet":{"virtualNetworkRules":[{"id":"` + vnet + `/subnets/default"}]}}}`, invalid, "PrivateEndpointAndServiceEndpointConflict", "properties.networkRuleSet.virtualNetworkRules", nil},
			{"records that are none", put, zone + "/A/bad", `{"properties":{"ttl":-1,"aRecords":[{"ipv4Address":"10.1"},{"ipv4Address":"fd00::1"}]}}`, invalid, "InvalidRequestContent", "properties.aRecords[0].ipv4Address properties.aRecords[1].ipv4Address properties.ttl", nil},
			{"a CNAME beside addresses", put, zone + "/CNAME/www", `{"properties":{"ttl":60,"cnameRecord":{"cname":"x.test"}}}`, taken, "Conflict", "", nil},
			{"rules of one priority", put, net + "networkSecurityGroups/walls", `{` + at + `,"properties":{"securityRules":[` + strings.Join(times(2, `{"name":"r%d","properties":{"priority":100,"direction":"Inbound","access":"Deny","protocol":"*","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"*"}}`), ",") + `]}}`, invalid, "SecurityRuleConflict", "properties.securityRules", nil},
			{"rules that say nothing", put, net + "networkSecurityGroups/walls/securityRules/r", `{"properties":{"priority":1,"direction":"Up"}}`, invalid, "InvalidRequestContent", "properties.access properties.direction properties.protocol properties.priority properties.sourceAddressPrefix properties.destinationAddressPrefix properties.sourcePortRange properties.destinationPortRange", nil},
			// Roles.
			{"an assignment that is not there", get, acr + "harbor" + auth + "roleAssignments/1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f7e", "", gone, "RoleAssignmentNotFound", "", nil},
			{"a role that is not there", put, acr + "harbor" + auth + "roleAssignments/1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f7e", `{"properties":{"principalId":"1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f7e","roleDefinitionId":"` + here + auth + `roleDefinitions/1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f7e"}}`, invalid, "PrincipalNotFound", "properties.principalId", nil},
			{"a principal that is not there", put, acr + "harbor" + auth + "roleAssignments/1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f7e", `{"properties":{"principalId":"1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f7e","roleDefinitionId":"` + here + auth + `roleDefinitions/` + pull + `"}}`, invalid, "PrincipalNotFound", "properties.principalId", nil},
			{"a role definition that is not there", get, here + auth + "roleDefinitions/1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f7e", "", gone, "RoleDefinitionDoesNotExist", "", nil},
			// Deleting what is in use.
			{"a subnet in use", del, vnet + "/subnets/default", "", invalid, "InUseSubnetCannotBeDeleted", "", nil},
			{"a network in use", del, vnet, "", invalid, "InUseSubnetCannotBeDeleted", "", nil},
			{"a security group in use", del, net + "networkSecurityGroups/walls", "", invalid, "InUseNetworkSecurityGroupCannotBeDeleted", "", nil},
			{"a zone that is linked", del, zone, "", taken, "CannotDeleteResource", "", nil},
			{"a private endpoint's interface", del, nicOf, "", taken, "CannotModifyNicAttachedToPrivateEndpoint", "", nil},
			{"a private endpoint's interface, written", put, nicOf, nic("default", ""), taken, "CannotModifyNicAttachedToPrivateEndpoint", "", nil},
			{"a scope map in use", del, acr + "harbor/scopeMaps/readers", "", taken, "ScopeMapInUse", "", nil},
			{"a locked group", del, here + "/resourceGroups/kept", "", taken, "ScopeLocked", "", nil},
			{"a subscription", del, here, "", http.StatusMethodNotAllowed, "MethodNotAllowed", "", nil},
			// Connections.
			{"a connection made by hand", put, connections + "/mine", `{"properties":{"privateLinkServiceConnectionState":{"status":"Approved"}}}`, gone, "ResourceNotFound", "", nil},
			{"a state that is none", put, connection, `{"properties":{"privateLinkServiceConnectionState":{"status":"Maybe"}}}`, invalid, "InvalidRequestContent", "properties.privateLinkServiceConnectionState.status", nil},
			{"back to pending", put, connection, `{"properties":{"privateLinkServiceConnectionState":{"status":"Pending"}}}`, invalid, "PrivateEndpointConnectionStateInvalid", "properties.privateLinkServiceConnectionState.status", nil},
			// Two writers.
			{"PUT with an old ETag", put, acr + "harbor", `{` + at + `,"sku":{"name":"Premium"}}`, http.StatusPreconditionFailed, "PreconditionFailed", "", stale},
			{"PATCH with an old ETag", patch, acr + "harbor", `{"tags":{}}`, http.StatusPreconditionFailed, "PreconditionFailed", "", stale},
			{"DELETE with an old ETag", del, acr + "harbor", "", http.StatusPreconditionFailed, "PreconditionFailed", "", stale},
			{"If-Match of nothing", put, acr + "fresh", `{` + at + `,"sku":{"name":"Basic"}}`, http.StatusPreconditionFailed, "PreconditionFailed", "", []string{"If-Match", "*"}},
			{"If-None-Match of what is there", put, acr + "harbor", `{` + at + `,"sku":{"name":"Premium"}}`, http.StatusPreconditionFailed, "PreconditionFailed", "", []string{"If-None-Match", "*"}},
			// All at once.
			{"everything", put, acr + "x", `{"location":"mars","sku":{"name":"Basic"},"properties":{"adminUserEnabled":1,"publicNetworkAccess":"Disabled","networkRuleSet":{"defaultAction":"Deny","ipRules":[{"value":"x"}]}}}`, invalid, "InvalidRequestContent", "name location properties.adminUserEnabled properties.publicNetworkAccess properties.networkRuleSet.ipRules[0].value properties.networkRuleSet", nil},
		} {
			a := m.ask(r.method, r.target, r.body, r.headers...)
			code, message, targets := a.problem()
			if a.status != r.status || code != r.code || message == "" || strings.Join(targets, " ") != r.targets {
				t.Errorf("%s: %d %s of %q (%s), want %d %s of %q", r.what, a.status, code, strings.Join(targets, " "), message, r.status, r.code, r.targets)
			}
		}
		if after := everything(m); !reflect.DeepEqual(before, after) {
			t.Errorf("the refusals have changed something:\n%v\n%v", before, after)
		}

		// Approving twice changes nothing but what the second says.
		approve := func(why string) said {
			return m.done(put, connection, `{"properties":{"privateLinkServiceConnectionState":{"status":"Approved","description":"`+why+`"}}}`)
		}
		first := approve("once").header.Get("ETag")
		if again := approve("once").header.Get("ETag"); again != first {
			t.Errorf("the same approval has written: %s, %s", first, again)
		}
		if changed := approve("twice").header.Get("ETag"); changed == first {
			t.Error("another description was not written")
		}
		m.writers(acr + "harbor")
	}
	t.Run("sqlite", func(t *testing.T) { run(t) })
	t.Run("postgres", func(t *testing.T) { run(t, "--database", storetest.Postgres(t)) })
}

func times(n int, format string) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprintf(format, i))
	}
	return out
}

// everything is the ETag of each resource that lists show.
func everything(m *manager) map[string]string {
	m.Helper()
	all := map[string]string{}
	for next := m.sub + "/resources"; next != ""; {
		page := m.done(http.MethodGet, next, "").body
		for _, v := range page["value"].([]any) {
			o, _ := v.(map[string]any)
			id, _ := o["id"].(string)
			all[id] = m.done(http.MethodGet, id, "").header.Get("ETag")
		}
		link, _ := page["nextLink"].(string)
		next = strings.TrimPrefix(link, "https://management.cove.internal")
	}
	return all
}

// writers change one resource at once. Of those that say which version they
// have read one is first and the others are told; of those that do not the last
// one wins.
func (m *manager) writers(id string) {
	m.Helper()
	const writers = 12
	etag := m.done(http.MethodGet, id, "").header.Get("ETag")
	race := func(headers ...string) (statuses [writers]int) {
		var all sync.WaitGroup
		for i := range statuses {
			all.Go(func() {
				statuses[i] = m.ask(http.MethodPatch, id, fmt.Sprintf(`{"tags":{"writer":"%d"}}`, i), headers...).status
			})
		}
		all.Wait()
		return statuses
	}
	writer := func() string {
		tags, _ := m.done(http.MethodGet, id, "").body["tags"].(map[string]any)
		text, _ := tags["writer"].(string)
		return text
	}
	won := ""
	for i, status := range race("If-Match", etag) {
		switch {
		case status == http.StatusOK && won == "":
			won = fmt.Sprint(i)
		case status != http.StatusPreconditionFailed:
			m.Errorf("writer %d with If-Match is answered %d", i, status)
		}
	}
	if got := writer(); won == "" || got != won {
		m.Errorf("writer %q was first, %q has written", won, got)
	}
	if statuses := race(); slices.ContainsFunc(statuses[:], func(s int) bool { return s != http.StatusOK }) {
		m.Errorf("writers without If-Match are answered %v", statuses)
	}
	if writer() == "" {
		m.Error("none of twelve writers has written")
	}
}
