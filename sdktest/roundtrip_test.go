package sdktest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/google/go-cmp/cmp"
)

// raw sends requests through the SDK's pipeline, its bodies unread: what a
// program that keeps resources as JSON sees.
type raw struct {
	*arm.Client
	t *testing.T
}

func (r raw) do(method, id, version, body string, headers ...string) (*http.Response, string) {
	r.t.Helper()
	req, err := runtime.NewRequest(r.t.Context(), method, r.Endpoint()+id+"?api-version="+version)
	must(r.t, err)
	for i := 0; i < len(headers); i += 2 {
		req.Raw().Header.Set(headers[i], headers[i+1])
	}
	if body != "" {
		must(r.t, req.SetBody(streamed(body), "application/json"))
	}
	resp, err := r.Pipeline().Do(req)
	must(r.t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(r.t, err)
	return resp, string(text)
}

type body struct{ *bytes.Reader }

func (body) Close() error { return nil }

func streamed(text string) io.ReadSeekCloser { return body{bytes.NewReader([]byte(text))} }

// kind is one resource of each type, with every property that a client may set,
// and lists in no order. The test adds properties that nobody knows.
type kind struct {
	id, version string
	body        string
	change      string // a PATCH that changes it; "" where the type or its effects allow none
	own         bool   // cove makes it: it is not PUT first
	always      int    // the status of every PUT; 0 is 201 for the first and then 200
}

func (k kind) status(usual int) int {
	if k.always != 0 {
		return k.always
	}
	return usual
}

// season puts a property that nobody knows into every object of a body, but
// where names are the caller's own and where one resource names another.
func season(o map[string]any) {
	for name, v := range o {
		if name == "tags" || name == "metadata" || name == "sku" {
			continue
		}
		list, _ := v.([]any)
		for _, v := range append(list, v) {
			if inner, ok := v.(map[string]any); ok && !(len(inner) == 1 && inner["id"] != nil) {
				season(inner)
			}
		}
	}
	o["x-nobody-knows"] = map[string]any{"b": []any{json.Number("3"), json.Number("1.50"), nil}, "a": "B"}
}

// lists are the lists in a body of two values or more, those that nobody knows
// apart.
func lists(v any) (out [][]any) {
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			if name != "x-nobody-knows" {
				out = append(out, lists(e)...)
			}
		}
	case []any:
		if len(v) > 1 {
			out = append(out, v)
		}
		for _, e := range v {
			out = append(out, lists(e)...)
		}
	}
	return out
}

// turned sends a body again and again, each time with another of its lists
// turned round, and finds that list as it was sent.
func (r raw) turned(k kind, sent map[string]any) {
	for _, list := range lists(sent) {
		slices.Reverse(list)
		resp, text := r.do(http.MethodPut, k.id, k.version, encoded(r.t, sent))
		if resp.StatusCode != k.status(http.StatusOK) {
			r.t.Errorf("PUT %s with %v: %d %s", k.id, list, resp.StatusCode, text)
			slices.Reverse(list)
			continue
		}
		_, text = r.do(http.MethodGet, k.id, k.version, "")
		kept(r.t, k.id+" turned round", sent, decoded(r.t, text))
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return string(text)
}

// TestRoundTrip does for every type what Terraform does at its second run: it
// PUTs what it last got, and nothing is lost, reordered or changed, the ETag
// included. Then the ETag is used against another's change.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	w := start(t, custom())
	client, err := arm.NewClient("cove.example/sdktest", "v0.0.0", w.cred, w.arm)
	must(t, err)
	r := raw{client, t}

	group := w.group("rg")
	network := group + "/providers/Microsoft.Network/"
	vnet := network + "virtualNetworks/vnet"
	registry := group + "/providers/Microsoft.ContainerRegistry/registries/roundtrip"
	zone := network + "privateDnsZones/privatelink." + w.suffix
	endpoint := network + "privateEndpoints/pe"
	nic := network + "networkInterfaces/nic"
	workspace := group + "/providers/Microsoft.OperationalInsights/workspaces/desk"
	sink := group + "/providers/Cove.Diagnostics/sinks/siem"
	const key = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	const networks, zones, registries = "2025-01-01", "2024-06-01", "2023-07-01"
	const tags = `"tags":{"z":"1","a":"2"},`
	kinds := []kind{
		{group, "2025-04-01", `{"location":"westeurope","managedBy":"someone",` + tags + `"properties":{}}`, `{"tags":{"b":"3"}}`, false, 0},
		{vnet, networks, `{"location":"westeurope",` + tags + `"properties":{"addressSpace":{"addressPrefixes":["10.9.0.0/16","10.0.0.0/16"]},
			"dhcpOptions":{"dnsServers":[]},"enableDdosProtection":false,
			"subnets":[{"name":"two","properties":{"addressPrefix":"10.0.2.0/24","privateEndpointNetworkPolicies":"Disabled"}},
			{"name":"one","properties":{"addressPrefix":"10.0.1.0/24"}}]}}`, `{"tags":{"b":"3"}}`, false, 0},
		{vnet + "/subnets/three", networks, `{"properties":{"addressPrefix":"10.9.3.0/24","privateLinkServiceNetworkPolicies":"Enabled",
			"serviceEndpoints":[{"service":"Microsoft.Storage"},{"service":"Microsoft.ContainerRegistry","locations":["*"]}],"delegations":[]}}`, "", false, 0},
		{network + "virtualNetworks/hub", networks, `{"location":"westeurope","properties":{"addressSpace":{"addressPrefixes":["10.200.0.0/16"]},"subnets":[]}}`, `{"tags":{"b":"3"}}`, false, 0},
		{network + "virtualNetworks/leaf", networks, `{"location":"westeurope","properties":{"addressSpace":{"addressPrefixes":["10.201.0.0/16"]}}}`, `{"tags":{"b":"3"}}`, false, 0},
		{vnet + "/virtualNetworkPeerings/to-leaf", networks, `{"properties":{"remoteVirtualNetwork":{"id":"` + network + `virtualNetworks/leaf"},"allowVirtualNetworkAccess":false,"allowForwardedTraffic":true}}`, "", false, 0},
		{vnet + "/virtualNetworkPeerings/to-hub", networks, `{"properties":{"remoteVirtualNetwork":{"id":"` + network + `virtualNetworks/hub"},"doNotVerifyRemoteGateways":true}}`, `{"properties":{"allowForwardedTraffic":true}}`, false, 0},
		{nic, networks, `{"location":"westeurope",` + tags + `"properties":{"enableIPForwarding":false,"ipConfigurations":[
			{"name":"second","properties":{"subnet":{"id":"` + vnet + `/subnets/one"},"privateIPAllocationMethod":"Dynamic"}},
			{"name":"first","properties":{"subnet":{"id":"` + vnet + `/subnets/one"},"privateIPAddress":"10.0.1.77","privateIPAllocationMethod":"Static","primary":true}}]}}`, `{"tags":{"b":"3"}}`, false, 0},
		{registry, registries, `{"location":"westeurope","sku":{"name":"Premium"},` + tags + `"properties":{"adminUserEnabled":true,
			"networkRuleBypassOptions":"None","publicNetworkAccess":"Enabled","zoneRedundancy":"Disabled",
			"policies":{"retentionPolicy":{"days":9,"status":"disabled"},"exportPolicy":{"status":"enabled"}},
			"networkRuleSet":{"defaultAction":"Deny","ipRules":[{"action":"Allow","value":"203.0.113.0/24"},{"value":"198.51.100.7","action":"Allow"}]}}}`, `{"tags":{"b":"3"}}`, false, 0},
		{registry + "/replications/eastus", registries, `{"location":"eastus",` + tags + `"properties":{"zoneRedundancy":"Disabled"}}`, `{"tags":{"b":"3"}}`, false, 0},
		{zone, zones, `{"location":"global",` + tags + `"properties":{}}`, `{"tags":{"b":"3"}}`, false, 0},
		{zone + "/virtualNetworkLinks/link", zones, `{"location":"global",` + tags + `"properties":{"registrationEnabled":false,"virtualNetwork":{"id":"` + vnet + `"}}}`, `{"tags":{"b":"3"}}`, false, 0},
		{zone + "/A/web", zones, `{"properties":{"ttl":300,"metadata":{"z":"1","a":"2"},"aRecords":[{"ipv4Address":"10.0.0.9"},{"ipv4Address":"10.0.0.8"}]}}`, `{"properties":{"ttl":60}}`, false, 0},
		{zone + "/AAAA/web", zones, `{"properties":{"ttl":300,"aaaaRecords":[{"ipv6Address":"fd00::9"},{"ipv6Address":"fd00::8"}]}}`, `{"properties":{"ttl":60}}`, false, 0},
		{zone + "/CNAME/alias", zones, `{"properties":{"ttl":300,"cnameRecord":{"cname":"web.example.org"}}}`, `{"properties":{"ttl":60}}`, false, 0},
		{zone + "/TXT/note", zones, `{"properties":{"ttl":300,"txtRecords":[{"value":["z","a"]},{"value":["b"]}]}}`, `{"properties":{"ttl":60}}`, false, 0},
		{zone + "/MX/note", zones, `{"properties":{"ttl":300,"mxRecords":[{"preference":20,"exchange":"b.example.org"},{"preference":10,"exchange":"a.example.org"}]}}`, `{"properties":{"ttl":60}}`, false, 0},
		{zone + "/SRV/_x._tcp", zones, `{"properties":{"ttl":300,"srvRecords":[{"priority":2,"weight":1,"port":443,"target":"b.example.org"}]}}`, `{"properties":{"ttl":60}}`, false, 0},
		{zone + "/PTR/5", zones, `{"properties":{"ttl":300,"ptrRecords":[{"ptrdname":"z.example.org"},{"ptrdname":"a.example.org"}]}}`, `{"properties":{"ttl":60}}`, false, 0},
		{zone + "/SOA/@", zones, "", "", true, 0},
		{zone + "/PTR/5/providers/Microsoft.Authorization/locks/keep", "2016-09-01", `{"properties":{"level":"CanNotDelete","notes":"why"}}`, `{"properties":{"notes":"because"}}`, false, 0},
		{network + "networkSecurityGroups/nsg", networks, `{"location":"westeurope",` + tags + `"properties":{"securityRules":[
			{"name":"m","properties":{"priority":150,"direction":"Inbound","access":"Allow","protocol":"Tcp","sourceAddressPrefixes":["10.9.0.0/16","10.0.0.0/16"],"sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRanges":["8443","443"]}},
			{"name":"a","properties":{"priority":100,"direction":"Inbound","access":"Allow","protocol":"Tcp","sourceAddressPrefix":"10.0.0.0/8","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"443"}},
			{"name":"z","properties":{"priority":200,"direction":"Inbound","access":"Deny","protocol":"*","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"*"}}]}}`, `{"tags":{"b":"3"}}`, false, 0},
		{network + "networkSecurityGroups/nsg/securityRules/z2", networks, `{"properties":{"priority":300,"direction":"Outbound","access":"Allow","protocol":"Tcp","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRanges":["443","80"]}}`, "", false, 0},
		{registry + "/scopeMaps/mapone", registries, `{"properties":{"description":"why","actions":["repositories/z/content/read","repositories/a/content/write"]}}`, `{"properties":{"description":"because"}}`, false, 0},
		{registry + "/tokens/tokone", registries, `{"properties":{"scopeMapId":"` + registry + `/scopeMaps/mapone","status":"enabled"}}`, `{"properties":{"status":"disabled"}}`, false, 0},
		{group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity", "2023-01-31", `{"location":"westeurope",` + tags + `"properties":{}}`, `{"tags":{"b":"3"}}`, false, 0},
		{nic + "/providers/Cove.Network/members/laptop", "2025-01-01", `{"properties":{"publicKey":"` + key + `","kind":"vm","resolver":"192.0.2.53"}}`, `{"properties":{"kind":"aks"}}`, false, 0},
		{group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity/federatedIdentityCredentials/pipeline", "2023-01-31", `{"properties":{"issuer":"https://issuer.example.org","subject":"repo:x:ref","audiences":["api://AzureADTokenExchange"]}}`, "", false, 0},
		{workspace, "2022-10-01", `{"location":"westeurope",` + tags + `"properties":{"sku":{"name":"PerGB2018"},"features":{"z":true,"a":false}}}`, `{"tags":{"b":"3"}}`, false, 0},
		{sink, "2025-01-01", `{"properties":{"kind":"file","maxBytes":2097152,"files":3}}`, `{"properties":{"files":4}}`, false, 0},
		{registry + "/providers/Microsoft.Insights/diagnosticSettings/logs", "2021-05-01-preview", `{"properties":{"workspaceId":"` + workspace + `","marketplacePartnerId":"` + sink + `","logs":[{"category":"ContainerRegistryRepositoryEvents","enabled":true},{"category":"ContainerRegistryLoginEvents","enabled":false}],"metrics":[]}}`, "", false, http.StatusOK},
		{
			group + "/providers/Microsoft.Authorization/roleDefinitions/7c6f1b1e-3f0e-4b8b-9a53-0a9f0f6a2d11", "2022-04-01",
			`{"properties":{"roleName":"Own","description":"why","type":"CustomRole","assignableScopes":["` + group + `","/subscriptions/` + w.subscription + `"],"permissions":[
			{"actions":["Microsoft.Network/*/read","Microsoft.ContainerRegistry/*/read"],"notActions":["Microsoft.Network/virtualNetworks/read"],
			"dataActions":["Microsoft.ContainerRegistry/registries/repositories/content/read","Microsoft.ContainerRegistry/registries/repositories/content/delete"],"notDataActions":[]}]}}`, "", false, http.StatusCreated,
		},
		{endpoint, networks, `{"location":"westeurope",` + tags + `"properties":{"subnet":{"id":"` + vnet + `/subnets/two"},"customNetworkInterfaceName":"pe-nic",
			"ipConfigurations":[{"name":"data-westeurope","properties":{"groupId":"registry","memberName":"registry_data_westeurope","privateIPAddress":"10.0.2.20"}},
			{"name":"data-eastus","properties":{"groupId":"registry","memberName":"registry_data_eastus","privateIPAddress":"10.0.2.21"}},
			{"name":"login","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":"10.0.2.19"}}],
			"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"` + registry + `","groupIds":["registry"],"requestMessage":"hello"}}]}}`, `{"tags":{"b":"3"}}`, false, 0},
		{endpoint + "/privateDnsZoneGroups/default", networks, `{"properties":{"privateDnsZoneConfigs":[{"name":"acr","properties":{"privateDnsZoneId":"` + zone + `"}}]}}`, "", false, 0},
		{
			registry + "/providers/Microsoft.Authorization/roleAssignments/b5f34b1c-4f9d-4a4c-9df3-0d4b1a3b8c11", "2022-04-01",
			`{"properties":{"principalId":"` + w.objectID(t) + `","roleDefinitionId":"/subscriptions/` + w.subscription + `/providers/Microsoft.Authorization/roleDefinitions/7f951dda-4ed3-4680-a7ca-43fe172d538d","principalType":"ServicePrincipal","description":"why"}}`, "", false, 0,
		},
	}
	for _, k := range kinds {
		if k.own {
			continue
		}
		sent := decoded(t, k.body)
		season(sent)
		delete(sent, "x-nobody-knows") // beside the properties ARM takes what it knows only
		resp, text := r.do(http.MethodPut, k.id, k.version, encoded(t, sent))
		if resp.StatusCode != k.status(http.StatusCreated) {
			t.Fatalf("PUT %s: %d %s", k.id, resp.StatusCode, text)
		}
		// Everything that was sent is there, in its order, whichever that is.
		kept(t, k.id, sent, decoded(t, text))
		r.turned(k, sent)
	}
	// The connection that the endpoint has made.
	resp, text := r.do(http.MethodGet, registry+"/privateEndpointConnections", registries, "")
	list, _ := decoded(t, text)["value"].([]any)
	if resp.StatusCode != http.StatusOK || len(list) != 1 {
		t.Fatalf("the connections: %d %s", resp.StatusCode, text)
	}
	connection, _ := list[0].(map[string]any)["id"].(string)
	kinds = append(kinds, kind{connection, registries, "", "", true, 0})

	// All exist, and each is sent back as it is now shown: with what the
	// others have made of it.
	for _, k := range kinds {
		name := k.id[strings.Index(k.id, "/resourceGroups/"):]
		resp, before := r.do(http.MethodGet, k.id, k.version, "")
		if resp.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %d %s", name, resp.StatusCode, before)
			continue
		}
		etag := resp.Header.Get("ETag")
		resp, put := r.do(http.MethodPut, k.id, k.version, before)
		if resp.StatusCode != k.status(http.StatusOK) {
			t.Errorf("PUT of what was got, %s: %d %s", name, resp.StatusCode, put)
			continue
		}
		_, after := r.do(http.MethodGet, k.id, k.version, "")
		for what, text := range map[string]string{"the answer to the PUT": put, "the next GET": after} {
			if text != before {
				t.Errorf("%s: %s is not what was sent (-sent +got):\n%s", name, what, cmp.Diff(decoded(t, before), decoded(t, text)))
			}
		}
		if etag == "" || resp.Header.Get("ETag") != etag {
			t.Errorf("%s: a PUT that changes nothing makes the ETag %s of %s", name, resp.Header.Get("ETag"), etag)
		}
		if resp, text := r.do(http.MethodPut, k.id, k.version, before, "If-None-Match", "*"); resp.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("%s: PUT of what exists with If-None-Match * is answered %d %s", name, resp.StatusCode, text)
		}
		if resp, text := r.do(http.MethodPut, k.id, k.version, before, "If-Match", etag); resp.StatusCode != k.status(http.StatusOK) {
			t.Errorf("%s: PUT with the ETag as it is: %d %s", name, resp.StatusCode, text)
		}
		if k.change == "" {
			continue
		}
		resp, changed := r.do(http.MethodPatch, k.id, k.version, k.change, "If-Match", etag)
		if now := resp.Header.Get("ETag"); resp.StatusCode != http.StatusOK || now == etag || now == "" {
			t.Errorf("%s: PATCH %d, ETag %s after %s: %s", name, resp.StatusCode, now, etag, changed)
			continue
		}
		kept(t, name+" changed", decoded(t, k.change), decoded(t, changed))
		if resp, _ := r.do(http.MethodPut, k.id, k.version, before, "If-Match", etag); resp.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("%s: PUT over another's change with the old ETag is answered %d", name, resp.StatusCode)
		}
		if resp, _ := r.do(http.MethodDelete, k.id, k.version, "", "If-Match", etag); resp.StatusCode != http.StatusPreconditionFailed {
			t.Errorf("%s: DELETE with the old ETag is answered %d", name, resp.StatusCode)
		}
		if _, text := r.do(http.MethodGet, k.id, k.version, ""); text != changed {
			t.Errorf("%s: refused requests have changed it:\n%s", name, cmp.Diff(decoded(t, changed), decoded(t, text)))
		}
	}
	// What cove keeps for others is shown and not written.
	pe := network + "networkInterfaces/pe-nic"
	_, before := r.do(http.MethodGet, pe, networks, "")
	if resp, text := r.do(http.MethodPut, pe, networks, before); resp.StatusCode < 400 || resp.StatusCode > 499 {
		t.Errorf("the private endpoint's own interface is written: %d %s", resp.StatusCode, text)
	}
}

func decoded(t *testing.T, text string) map[string]any {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var out map[string]any
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

// kept checks that everything in sent is in got: properties by name, lists
// whole and in order. Null means absent, as in ARM.
func kept(t *testing.T, at string, sent, got any) {
	t.Helper()
	switch sent := sent.(type) {
	case nil:
	case map[string]any:
		o, ok := got.(map[string]any)
		if !ok {
			t.Errorf("%s: %v was sent, %v is there", at, sent, got)
		}
		for name, v := range sent {
			kept(t, at+"."+name, v, o[name])
		}
	case []any:
		l, ok := got.([]any)
		if !ok || len(l) != len(sent) {
			t.Errorf("%s: %v was sent, %v is there", at, sent, got)
			return
		}
		for i, v := range sent {
			kept(t, at, v, l[i])
		}
	default:
		if !reflect.DeepEqual(sent, got) {
			t.Errorf("%s: %v was sent, %v is there", at, sent, got)
		}
	}
}
