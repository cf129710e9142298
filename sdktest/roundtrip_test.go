package sdktest

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"reflect"
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

// kind is one resource of each type, with every property that a client may set
// and one that nobody knows, and lists in no order.
type kind struct {
	id, version string
	body        string
	change      string // a PATCH that changes it; "" where the type or its effects allow none
	own         bool   // cove makes it: it is not PUT first
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
	const networks, zones, registries = "2025-01-01", "2024-06-01", "2023-07-01"
	const tags = `"tags":{"z":"1","a":"2"},`
	kinds := []kind{
		{group, "2025-04-01", `{"location":"westeurope","managedBy":"someone",` + tags + `"properties":{"x-unknown":[3,1,2]}}`, `{"tags":{"b":"3"}}`, false},
		{vnet, networks, `{"location":"westeurope",` + tags + `"properties":{"addressSpace":{"addressPrefixes":["10.9.0.0/16","10.0.0.0/16"]},
			"dhcpOptions":{"dnsServers":["10.0.0.9","10.0.0.8"]},"enableDdosProtection":false,"x-unknown":{"b":1.50,"a":[]},
			"subnets":[{"name":"two","properties":{"addressPrefix":"10.0.2.0/24","privateEndpointNetworkPolicies":"Disabled"}},
			{"name":"one","properties":{"addressPrefix":"10.0.1.0/24"}}]}}`, `{"tags":{"b":"3"}}`, false},
		{vnet + "/subnets/three", networks, `{"properties":{"addressPrefix":"10.9.3.0/24","x-unknown":true,"privateLinkServiceNetworkPolicies":"Enabled",
			"serviceEndpoints":[{"service":"Microsoft.Storage"},{"service":"Microsoft.ContainerRegistry","locations":["*"]}],"delegations":[]}}`, "", false},
		{nic, networks, `{"location":"westeurope",` + tags + `"properties":{"enableIPForwarding":false,"x-unknown":"y","ipConfigurations":[
			{"name":"second","properties":{"subnet":{"id":"` + vnet + `/subnets/one"},"privateIPAllocationMethod":"Dynamic"}},
			{"name":"first","properties":{"subnet":{"id":"` + vnet + `/subnets/one"},"privateIPAddress":"10.0.1.77","privateIPAllocationMethod":"Static","primary":true}}]}}`, `{"tags":{"b":"3"}}`, false},
		{registry, registries, `{"location":"westeurope","sku":{"name":"Premium"},` + tags + `"properties":{"adminUserEnabled":true,"x-unknown":null,"x-other":["z","a"],
			"networkRuleBypassOptions":"None","publicNetworkAccess":"Enabled","zoneRedundancy":"Disabled",
			"policies":{"retentionPolicy":{"days":9,"status":"disabled"},"exportPolicy":{"status":"enabled"}},
			"networkRuleSet":{"defaultAction":"Deny","ipRules":[{"action":"Allow","value":"203.0.113.0/24"},{"value":"198.51.100.7","action":"Allow"}]}}}`, `{"tags":{"b":"3"}}`, false},
		{registry + "/replications/eastus", registries, `{"location":"eastus",` + tags + `"properties":{"zoneRedundancy":"Disabled"}}`, `{"tags":{"b":"3"}}`, false},
		{zone, zones, `{"location":"global",` + tags + `"properties":{}}`, `{"tags":{"b":"3"}}`, false},
		{zone + "/virtualNetworkLinks/link", zones, `{"location":"global",` + tags + `"properties":{"registrationEnabled":false,"virtualNetwork":{"id":"` + vnet + `"}}}`, `{"tags":{"b":"3"}}`, false},
		{zone + "/A/web", zones, `{"properties":{"ttl":300,"metadata":{"z":"1","a":"2"},"aRecords":[{"ipv4Address":"10.0.0.9"},{"ipv4Address":"10.0.0.8"}]}}`, `{"properties":{"ttl":60}}`, false},
		{zone + "/AAAA/web", zones, `{"properties":{"ttl":300,"aaaaRecords":[{"ipv6Address":"fd00::9"},{"ipv6Address":"fd00::8"}]}}`, `{"properties":{"ttl":60}}`, false},
		{zone + "/CNAME/alias", zones, `{"properties":{"ttl":300,"cnameRecord":{"cname":"web.example.org"}}}`, `{"properties":{"ttl":60}}`, false},
		{zone + "/TXT/note", zones, `{"properties":{"ttl":300,"txtRecords":[{"value":["z","a"]},{"value":["b"]}]}}`, `{"properties":{"ttl":60}}`, false},
		{zone + "/MX/note", zones, `{"properties":{"ttl":300,"mxRecords":[{"preference":20,"exchange":"b.example.org"},{"preference":10,"exchange":"a.example.org"}]}}`, `{"properties":{"ttl":60}}`, false},
		{zone + "/SRV/_x._tcp", zones, `{"properties":{"ttl":300,"srvRecords":[{"priority":2,"weight":1,"port":443,"target":"b.example.org"}]}}`, `{"properties":{"ttl":60}}`, false},
		{zone + "/PTR/5", zones, `{"properties":{"ttl":300,"ptrRecords":[{"ptrdname":"z.example.org"},{"ptrdname":"a.example.org"}]}}`, `{"properties":{"ttl":60}}`, false},
		{zone + "/SOA/@", zones, "", "", true},
		{zone + "/PTR/5/providers/Microsoft.Authorization/locks/keep", "2016-09-01", `{"properties":{"level":"CanNotDelete","notes":"why"}}`, `{"properties":{"notes":"because"}}`, false},
		{network + "networkSecurityGroups/nsg", networks, `{"location":"westeurope",` + tags + `"properties":{"x-unknown":[2,1],"securityRules":[
			{"name":"a","properties":{"priority":100,"direction":"Inbound","access":"Allow","protocol":"Tcp","sourceAddressPrefix":"10.0.0.0/8","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"443"}},
			{"name":"z","properties":{"priority":200,"direction":"Inbound","access":"Deny","protocol":"*","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"*"}}]}}`, `{"tags":{"b":"3"}}`, false},
		{network + "networkSecurityGroups/nsg/securityRules/z2", networks, `{"properties":{"priority":300,"direction":"Outbound","access":"Allow","protocol":"Tcp","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRanges":["443","80"]}}`, "", false},
		{registry + "/scopeMaps/mapone", registries, `{"properties":{"description":"why","actions":["repositories/z/content/read","repositories/a/content/write"]}}`, `{"properties":{"description":"because"}}`, false},
		{registry + "/tokens/tokone", registries, `{"properties":{"scopeMapId":"` + registry + `/scopeMaps/mapone","status":"enabled"}}`, `{"properties":{"status":"disabled"}}`, false},
		{group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/identity", "2023-01-31", `{"location":"westeurope",` + tags + `"properties":{}}`, `{"tags":{"b":"3"}}`, false},
		{endpoint, networks, `{"location":"westeurope",` + tags + `"properties":{"subnet":{"id":"` + vnet + `/subnets/two"},"customNetworkInterfaceName":"pe-nic",
			"ipConfigurations":[{"name":"data-westeurope","properties":{"groupId":"registry","memberName":"registry_data_westeurope","privateIPAddress":"10.0.2.20"}},
			{"name":"data-eastus","properties":{"groupId":"registry","memberName":"registry_data_eastus","privateIPAddress":"10.0.2.21"}},
			{"name":"login","properties":{"groupId":"registry","memberName":"registry","privateIPAddress":"10.0.2.19"}}],
			"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"` + registry + `","groupIds":["registry"],"requestMessage":"hello"}}]}}`, `{"tags":{"b":"3"}}`, false},
		{endpoint + "/privateDnsZoneGroups/default", networks, `{"properties":{"privateDnsZoneConfigs":[{"name":"acr","properties":{"privateDnsZoneId":"` + zone + `"}}]}}`, "", false},
		{
			registry + "/providers/Microsoft.Authorization/roleAssignments/b5f34b1c-4f9d-4a4c-9df3-0d4b1a3b8c11", "2022-04-01",
			`{"properties":{"principalId":"` + w.objectID(t) + `","roleDefinitionId":"/subscriptions/` + w.subscription + `/providers/Microsoft.Authorization/roleDefinitions/7f951dda-4ed3-4680-a7ca-43fe172d538d","principalType":"ServicePrincipal","description":"why"}}`, "", false,
		},
	}
	for _, k := range kinds {
		if k.own {
			continue
		}
		resp, text := r.do(http.MethodPut, k.id, k.version, k.body)
		if resp.StatusCode != http.StatusCreated {
			t.Fatalf("PUT %s: %d %s", k.id, resp.StatusCode, text)
		}
		// Everything that was sent is there, in its order.
		kept(t, k.id, decoded(t, k.body), decoded(t, text))
	}
	// The connection that the endpoint has made.
	resp, text := r.do(http.MethodGet, registry+"/privateEndpointConnections", registries, "")
	list, _ := decoded(t, text)["value"].([]any)
	if resp.StatusCode != http.StatusOK || len(list) != 1 {
		t.Fatalf("the connections: %d %s", resp.StatusCode, text)
	}
	connection, _ := list[0].(map[string]any)["id"].(string)
	kinds = append(kinds, kind{connection, registries, "", "", true})

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
		if resp.StatusCode != http.StatusOK {
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
		if resp, text := r.do(http.MethodPut, k.id, k.version, before, "If-Match", etag); resp.StatusCode != http.StatusOK {
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
