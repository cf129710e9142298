package sdktest

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/authorization/armauthorization/v2"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerregistry/armcontainerregistry"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/network/armnetwork/v8"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/privatedns/armprivatedns"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources/v3"
)

// The names of the scene.
const (
	groupName    = "rg-sdk"
	networkName  = "vnet-sdk"
	subnetName   = "endpoints"
	registryName = "sdkregistry"
	endpointName = "pe-sdk"
)

// TestCustomCloud plays the scene with cove's own names, which the SDK is told
// as a custom cloud.
func TestCustomCloud(t *testing.T) {
	t.Parallel()
	play(t, custom())
}

// TestPublicCloud plays the scene with the SDK's defaults: the public cloud's
// own names, instance discovery included. Only where they lead to and the
// trusted authority differ from Azure.
func TestPublicCloud(t *testing.T) {
	t.Parallel()
	play(t, public())
}

func play(t *testing.T, p place) {
	w := start(t, p)
	w.makeGroup(t)
	subnet := w.makeNetwork(t)
	registry := w.makeRegistry(t)
	w.ruleNetwork(t)
	w.credentials(t)
	zone := w.makeZone(t)
	w.connect(t, subnet, registry, zone)
	w.approve(t, subnet, registry)
	w.assign(t, registry)
	w.content(t)
	w.removeGroup(t)
	if out := w.wentElsewhere(); len(out) > 0 {
		t.Errorf("the SDK was sent to %v, which is not of this cloud", out)
	}
}

// makeGroup makes a resource group, patches it and finds it.
func (w *world) makeGroup(t *testing.T) {
	ctx := t.Context()
	groups, err := armresources.NewResourceGroupsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	is, err := groups.CheckExistence(ctx, groupName, nil)
	must(t, err)
	if is.Success {
		t.Fatal("the group exists before it is made")
	}
	made, err := groups.CreateOrUpdate(ctx, groupName, armresources.ResourceGroup{
		Location: to.Ptr("West Europe"), Tags: map[string]*string{"env": to.Ptr("test")},
	}, nil)
	must(t, err)
	same(t, "id", made.ID, w.group(groupName))
	same(t, "location", made.Location, "westeurope")
	same(t, "provisioningState", made.Properties.ProvisioningState, "Succeeded")
	patched, err := groups.Update(ctx, groupName, armresources.ResourceGroupPatchable{Tags: map[string]*string{"team": to.Ptr("sdk")}}, nil)
	must(t, err)
	if len(patched.Tags) != 1 {
		t.Fatalf("tags are merged, want them replaced: %v", patched.Tags)
	}
	if is, err = groups.CheckExistence(ctx, groupName, nil); err != nil || !is.Success {
		t.Fatalf("CheckExistence of a group that was made: %v, %v", is.Success, err)
	}
	list := all(t, groups.NewListPager(nil), func(p armresources.ResourceGroupsClientListResponse) []*armresources.ResourceGroup { return p.Value })
	if len(list) != 1 {
		t.Fatalf("%d groups are listed, want 1", len(list))
	}
}

// makeNetwork makes a virtual network and a subnet and returns the subnet's id.
func (w *world) makeNetwork(t *testing.T) string {
	ctx := t.Context()
	networks, err := armnetwork.NewVirtualNetworksClient(w.subscription, w.cred, w.arm)
	must(t, err)
	p, err := networks.BeginCreateOrUpdate(ctx, groupName, networkName, armnetwork.VirtualNetwork{
		Location: to.Ptr("westeurope"),
		Properties: &armnetwork.VirtualNetworkPropertiesFormat{
			AddressSpace: &armnetwork.AddressSpace{AddressPrefixes: []*string{to.Ptr("10.1.0.0/16"), to.Ptr("10.0.0.0/16")}},
			Subnets: []*armnetwork.Subnet{{
				Name: to.Ptr("hosts"), Properties: &armnetwork.SubnetPropertiesFormat{AddressPrefix: to.Ptr("10.0.1.0/24")},
			}},
		},
	}, nil)
	made := done(t, p, err)
	if len(made.Properties.Subnets) != 1 || *made.Properties.AddressSpace.AddressPrefixes[0] != "10.1.0.0/16" {
		t.Fatalf("the network is not as it was sent: %+v", made.Properties)
	}
	subnets, err := armnetwork.NewSubnetsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	s, err := subnets.BeginCreateOrUpdate(ctx, groupName, networkName, subnetName, armnetwork.Subnet{Properties: &armnetwork.SubnetPropertiesFormat{
		AddressPrefix:                  to.Ptr("10.0.2.0/24"),
		PrivateEndpointNetworkPolicies: to.Ptr(armnetwork.VirtualNetworkPrivateEndpointNetworkPoliciesDisabled),
	}}, nil)
	subnet := done(t, s, err)
	same(t, "privateEndpointNetworkPolicies", subnet.Properties.PrivateEndpointNetworkPolicies, armnetwork.VirtualNetworkPrivateEndpointNetworkPoliciesDisabled)
	s, err = subnets.BeginCreateOrUpdate(ctx, groupName, networkName, "overlapping", armnetwork.Subnet{Properties: &armnetwork.SubnetPropertiesFormat{
		AddressPrefix: to.Ptr("10.0.2.128/25"),
	}}, nil)
	if err == nil {
		_, err = s.PollUntilDone(ctx, nil)
	}
	refused(t, err, http.StatusBadRequest, "NetcfgSubnetRangesOverlap")
	got, err := networks.Get(ctx, groupName, networkName, nil)
	must(t, err)
	if len(got.Properties.Subnets) != 2 {
		t.Fatalf("the network shows %d subnets, want 2", len(got.Properties.Subnets))
	}
	list := all(t, subnets.NewListPager(groupName, networkName, nil), func(p armnetwork.SubnetsClientListResponse) []*armnetwork.Subnet { return p.Value })
	if len(list) != 2 {
		t.Fatalf("%d subnets are listed, want 2", len(list))
	}
	return *subnet.ID
}

// makeRegistry makes a Premium registry, updates it and returns its id.
func (w *world) makeRegistry(t *testing.T) string {
	ctx := t.Context()
	registries, err := armcontainerregistry.NewRegistriesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	ask := armcontainerregistry.RegistryNameCheckRequest{Name: to.Ptr(registryName), Type: to.Ptr("Microsoft.ContainerRegistry/registries")}
	free, err := registries.CheckNameAvailability(ctx, ask, nil)
	must(t, err)
	same(t, "nameAvailable", free.NameAvailable, true)
	// A subscription that has not registered the provider is refused; the SDK
	// then registers it and tries again by itself.
	providers, err := armresources.NewProvidersClient(w.subscription, w.cred, w.arm)
	must(t, err)
	_, err = providers.Unregister(ctx, "Microsoft.ContainerRegistry", nil)
	must(t, err)
	p, err := registries.BeginCreate(ctx, groupName, registryName, armcontainerregistry.Registry{
		Location: to.Ptr("westeurope"), SKU: &armcontainerregistry.SKU{Name: to.Ptr(armcontainerregistry.SKUNamePremium)},
	}, nil)
	made := done(t, p, err)
	provider, err := providers.Get(ctx, "Microsoft.ContainerRegistry", nil)
	must(t, err)
	same(t, "registrationState", provider.RegistrationState, "Registered")
	same(t, "loginServer", made.Properties.LoginServer, registryName+"."+w.suffix)
	same(t, "sku.tier", made.SKU.Tier, armcontainerregistry.SKUTierPremium)
	same(t, "provisioningState", made.Properties.ProvisioningState, armcontainerregistry.ProvisioningStateSucceeded)
	same(t, "adminUserEnabled", made.Properties.AdminUserEnabled, false)
	same(t, "publicNetworkAccess", made.Properties.PublicNetworkAccess, armcontainerregistry.PublicNetworkAccessEnabled)
	if made.Properties.CreationDate == nil || made.Properties.CreationDate.IsZero() {
		t.Fatal("the registry has no creation date")
	}
	if free, err = registries.CheckNameAvailability(ctx, ask, nil); err != nil {
		t.Fatal(err)
	}
	same(t, "nameAvailable", free.NameAvailable, false)
	same(t, "reason", free.Reason, "AlreadyExists")

	u, err := registries.BeginUpdate(ctx, groupName, registryName, armcontainerregistry.RegistryUpdateParameters{
		Tags:       map[string]*string{"env": to.Ptr("test")},
		Properties: &armcontainerregistry.RegistryPropertiesUpdateParameters{AdminUserEnabled: to.Ptr(true)},
	}, nil)
	updated := done(t, u, err)
	same(t, "adminUserEnabled", updated.Properties.AdminUserEnabled, true)
	same(t, "tags.env", updated.Tags["env"], "test")
	list := all(t, registries.NewListPager(nil), func(p armcontainerregistry.RegistriesClientListResponse) []*armcontainerregistry.Registry {
		return p.Value
	})
	if len(list) != 1 || *list[0].ID != *made.ID {
		t.Fatalf("%d registries are listed, want the one", len(list))
	}
	usages, err := registries.ListUsages(ctx, groupName, registryName, nil)
	must(t, err)
	if !slices.ContainsFunc(usages.Value, func(u *armcontainerregistry.RegistryUsage) bool { return *u.Name == "Size" && *u.Limit > 0 }) {
		t.Fatal("the usages do not name a size")
	}
	return *made.ID
}

// ruleNetwork closes the registry to the public and opens it again, and sees
// both obeyed.
func (w *world) ruleNetwork(t *testing.T) {
	ctx := t.Context()
	registries, err := armcontainerregistry.NewRegistriesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	set := func(action armcontainerregistry.DefaultAction, public armcontainerregistry.PublicNetworkAccess) *armcontainerregistry.NetworkRuleSet {
		t.Helper()
		p, err := registries.BeginUpdate(ctx, groupName, registryName, armcontainerregistry.RegistryUpdateParameters{
			Properties: &armcontainerregistry.RegistryPropertiesUpdateParameters{
				PublicNetworkAccess: to.Ptr(public),
				NetworkRuleSet: &armcontainerregistry.NetworkRuleSet{DefaultAction: to.Ptr(action), IPRules: []*armcontainerregistry.IPRule{
					{Action: to.Ptr(armcontainerregistry.ActionAllow), IPAddressOrRange: to.Ptr("203.0.113.0/24")},
					{Action: to.Ptr(armcontainerregistry.ActionAllow), IPAddressOrRange: to.Ptr("198.51.100.7")},
				}},
			},
		}, nil)
		return done(t, p, err).Properties.NetworkRuleSet
	}
	rules := set(armcontainerregistry.DefaultActionDeny, armcontainerregistry.PublicNetworkAccessEnabled)
	if len(rules.IPRules) != 2 || *rules.IPRules[0].IPAddressOrRange != "203.0.113.0/24" {
		t.Fatalf("the rules are not as they were sent: %d", len(rules.IPRules))
	}
	w.pingRegistry(t, "", "", http.StatusForbidden)
	set(armcontainerregistry.DefaultActionAllow, armcontainerregistry.PublicNetworkAccessDisabled)
	w.pingRegistry(t, "", "", http.StatusForbidden)
	set(armcontainerregistry.DefaultActionAllow, armcontainerregistry.PublicNetworkAccessEnabled)
	w.pingRegistry(t, "", "", http.StatusUnauthorized)
}

// pingRegistry asks the registry for its version from outside.
func (w *world) pingRegistry(t *testing.T, user, password string, want int) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.registry()+"/v2/", http.NoBody)
	must(t, err)
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	resp, err := w.http.Do(r)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != want {
		t.Fatalf("GET /v2/ is answered %d, want %d", resp.StatusCode, want)
	}
}

func (w *world) registry() string { return "https://" + registryName + "." + w.suffix }

// credentials reads and renews the admin user's passwords.
func (w *world) credentials(t *testing.T) {
	ctx := t.Context()
	registries, err := armcontainerregistry.NewRegistriesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	before, err := registries.ListCredentials(ctx, groupName, registryName, nil)
	must(t, err)
	same(t, "username", before.Username, registryName)
	if len(before.Passwords) != 2 {
		t.Fatalf("there are %d passwords, want 2", len(before.Passwords))
	}
	same(t, "passwords[1].name", before.Passwords[1].Name, armcontainerregistry.PasswordNamePassword2)
	first, second := *before.Passwords[0].Value, *before.Passwords[1].Value
	w.pingRegistry(t, registryName, second, http.StatusOK)
	after, err := registries.RegenerateCredential(ctx, groupName, registryName, armcontainerregistry.RegenerateCredentialParameters{
		Name: to.Ptr(armcontainerregistry.PasswordNamePassword2),
	}, nil)
	must(t, err)
	same(t, "the password that was not renewed", after.Passwords[0].Value, first)
	w.pingRegistry(t, registryName, second, http.StatusUnauthorized)
	w.pingRegistry(t, registryName, *after.Passwords[1].Value, http.StatusOK)
	w.pingRegistry(t, registryName, first, http.StatusOK)
}

// makeZone makes the private zone of registries, links it to the network, and
// tries record sets. It returns the zone's id.
func (w *world) makeZone(t *testing.T) string {
	ctx := t.Context()
	zones, err := armprivatedns.NewPrivateZonesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	name := "privatelink." + w.suffix
	p, err := zones.BeginCreateOrUpdate(ctx, groupName, name, armprivatedns.PrivateZone{Location: to.Ptr("global")}, nil)
	zone := done(t, p, err)
	same(t, "numberOfRecordSets", zone.Properties.NumberOfRecordSets, 1)
	links, err := armprivatedns.NewVirtualNetworkLinksClient(w.subscription, w.cred, w.arm)
	must(t, err)
	l, err := links.BeginCreateOrUpdate(ctx, groupName, name, "link", armprivatedns.VirtualNetworkLink{
		Location: to.Ptr("global"),
		Properties: &armprivatedns.VirtualNetworkLinkProperties{
			RegistrationEnabled: to.Ptr(false),
			VirtualNetwork:      &armprivatedns.SubResource{ID: to.Ptr(w.group(groupName) + "/providers/Microsoft.Network/virtualNetworks/" + networkName)},
		},
	}, nil)
	link := done(t, l, err)
	same(t, "virtualNetworkLinkState", link.Properties.VirtualNetworkLinkState, armprivatedns.VirtualNetworkLinkStateCompleted)

	sets, err := armprivatedns.NewRecordSetsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	records := armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{
		TTL: to.Ptr[int64](300), ARecords: []*armprivatedns.ARecord{{IPv4Address: to.Ptr("10.0.9.2")}, {IPv4Address: to.Ptr("10.0.9.1")}},
		Metadata: map[string]*string{"owner": to.Ptr("sdk")},
	}}
	fresh := &armprivatedns.RecordSetsClientCreateOrUpdateOptions{IfNoneMatch: to.Ptr("*")}
	made, err := sets.CreateOrUpdate(ctx, groupName, name, armprivatedns.RecordTypeA, "other", records, fresh)
	must(t, err)
	same(t, "fqdn", made.Properties.Fqdn, "other."+name+".")
	if len(made.Properties.ARecords) != 2 || *made.Properties.ARecords[0].IPv4Address != "10.0.9.2" {
		t.Fatal("the records are not in the order in which they were sent")
	}
	same(t, "metadata.owner", made.Properties.Metadata["owner"], "sdk")
	_, err = sets.CreateOrUpdate(ctx, groupName, name, armprivatedns.RecordTypeA, "other", records, fresh)
	refused(t, err, http.StatusPreconditionFailed, "PreconditionFailed")
	updated, err := sets.Update(ctx, groupName, name, armprivatedns.RecordTypeA, "other", armprivatedns.RecordSet{
		Properties: &armprivatedns.RecordSetProperties{TTL: to.Ptr[int64](60)},
	}, &armprivatedns.RecordSetsClientUpdateOptions{IfMatch: made.Etag})
	must(t, err)
	same(t, "ttl", updated.Properties.TTL, 60)
	_, err = sets.Delete(ctx, groupName, name, armprivatedns.RecordTypeA, "other", &armprivatedns.RecordSetsClientDeleteOptions{IfMatch: made.Etag})
	refused(t, err, http.StatusPreconditionFailed, "PreconditionFailed")
	_, err = sets.CreateOrUpdate(ctx, groupName, name, armprivatedns.RecordTypeCNAME, "alias", armprivatedns.RecordSet{Properties: &armprivatedns.RecordSetProperties{
		TTL: to.Ptr[int64](300), CnameRecord: &armprivatedns.CnameRecord{Cname: to.Ptr("other." + name)},
	}}, nil)
	must(t, err)
	list := all(t, sets.NewListPager(groupName, name, nil), func(p armprivatedns.RecordSetsClientListResponse) []*armprivatedns.RecordSet { return p.Value })
	if len(list) != 3 {
		t.Fatalf("%d record sets are listed, want SOA, A and CNAME", len(list))
	}
	_, err = sets.Delete(ctx, groupName, name, armprivatedns.RecordTypeA, "other", &armprivatedns.RecordSetsClientDeleteOptions{IfMatch: updated.Etag})
	must(t, err)
	addresses := all(t, sets.NewListByTypePager(groupName, name, armprivatedns.RecordTypeA, nil), func(p armprivatedns.RecordSetsClientListByTypeResponse) []*armprivatedns.RecordSet {
		return p.Value
	})
	if len(addresses) != 0 {
		t.Fatalf("%d A record sets are left, want none", len(addresses))
	}
	return *zone.ID
}

// connect makes a private endpoint with a zone group and reads the addresses
// from its network interface and the zone.
func (w *world) connect(t *testing.T, subnet, registry, zone string) {
	ctx := t.Context()
	registries, err := armcontainerregistry.NewRegistriesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	resources := all(t, registries.NewListPrivateLinkResourcesPager(groupName, registryName, nil), func(p armcontainerregistry.RegistriesClientListPrivateLinkResourcesResponse) []*armcontainerregistry.PrivateLinkResource {
		return p.Value
	})
	if len(resources) != 1 || *resources[0].Properties.GroupID != "registry" {
		t.Fatal("the registry does not say that it has the group id registry")
	}
	same(t, "requiredZoneNames", resources[0].Properties.RequiredZoneNames[0], "privatelink."+w.suffix)

	endpoints, err := armnetwork.NewPrivateEndpointsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	p, err := endpoints.BeginCreateOrUpdate(ctx, groupName, endpointName, armnetwork.PrivateEndpoint{
		Location: to.Ptr("westeurope"),
		Properties: &armnetwork.PrivateEndpointProperties{
			Subnet: &armnetwork.Subnet{ID: to.Ptr(subnet)},
			PrivateLinkServiceConnections: []*armnetwork.PrivateLinkServiceConnection{{
				Name: to.Ptr("connection"), Properties: &armnetwork.PrivateLinkServiceConnectionProperties{
					PrivateLinkServiceID: to.Ptr(registry), GroupIDs: []*string{to.Ptr("registry")},
				},
			}},
		},
	}, nil)
	made := done(t, p, err)
	same(t, "status", made.Properties.PrivateLinkServiceConnections[0].Properties.PrivateLinkServiceConnectionState.Status, "Approved")
	groups, err := armnetwork.NewPrivateDNSZoneGroupsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	g, err := groups.BeginCreateOrUpdate(ctx, groupName, endpointName, "default", armnetwork.PrivateDNSZoneGroup{
		Properties: &armnetwork.PrivateDNSZoneGroupPropertiesFormat{PrivateDNSZoneConfigs: []*armnetwork.PrivateDNSZoneConfig{{
			Name: to.Ptr("registry"), Properties: &armnetwork.PrivateDNSZonePropertiesFormat{PrivateDNSZoneID: to.Ptr(zone)},
		}}},
	}, nil)
	group := done(t, g, err)

	// What leads where is said by the interface, the endpoint, the zone group
	// and the zone: all must say the same.
	want := map[string]string{}
	_, nicName, ok := strings.Cut(*made.Properties.NetworkInterfaces[0].ID, "/networkInterfaces/")
	if !ok {
		t.Fatalf("%s is no network interface", *made.Properties.NetworkInterfaces[0].ID)
	}
	interfaces, err := armnetwork.NewInterfacesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	nic, err := interfaces.Get(ctx, groupName, nicName, nil)
	must(t, err)
	for _, c := range nic.Properties.IPConfigurations {
		link := c.Properties.PrivateLinkConnectionProperties
		same(t, "groupId", link.GroupID, "registry")
		if a := netip.MustParseAddr(*c.Properties.PrivateIPAddress); !netip.MustParsePrefix("10.0.2.0/24").Contains(a) {
			t.Fatalf("%s is not in the subnet", a)
		}
		for _, name := range link.Fqdns {
			want[*name] = *c.Properties.PrivateIPAddress
		}
	}
	data := registryName + ".westeurope.data." + w.suffix
	if len(want) != 2 || want[registryName+"."+w.suffix] == "" || want[data] == "" {
		t.Fatalf("the interface has the names %v, want the login server and the data endpoint", want)
	}
	got, err := endpoints.Get(ctx, groupName, endpointName, nil)
	must(t, err)
	for _, c := range got.Properties.CustomDNSConfigs {
		if len(c.IPAddresses) != 1 || want[*c.Fqdn] != *c.IPAddresses[0] {
			t.Errorf("customDnsConfigs say otherwise of %s", *c.Fqdn)
		}
	}
	sets, err := armprivatedns.NewRecordSetsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	for name, address := range want {
		label := strings.TrimSuffix(name, "."+w.suffix)
		set, err := sets.Get(ctx, groupName, "privatelink."+w.suffix, armprivatedns.RecordTypeA, label, nil)
		must(t, err)
		if len(set.Properties.ARecords) != 1 {
			t.Fatalf("%s has %d addresses in the zone, want one", label, len(set.Properties.ARecords))
		}
		same(t, "the zone's address of "+label, set.Properties.ARecords[0].IPv4Address, address)
		if !slices.ContainsFunc(group.Properties.PrivateDNSZoneConfigs[0].Properties.RecordSets, func(r *armnetwork.RecordSet) bool {
			return *r.RecordSetName == label && len(r.IPAddresses) == 1 && *r.IPAddresses[0] == address
		}) {
			t.Errorf("the zone group does not show the record of %s", label)
		}
	}
	reg, err := registries.Get(ctx, groupName, registryName, nil)
	must(t, err)
	same(t, "dataEndpointEnabled", reg.Properties.DataEndpointEnabled, true)
	if len(reg.Properties.DataEndpointHostNames) != 1 || *reg.Properties.DataEndpointHostNames[0] != data {
		t.Fatal("the registry does not name its data endpoint")
	}
	if len(reg.Properties.PrivateEndpointConnections) != 1 {
		t.Fatalf("the registry shows %d connections, want one", len(reg.Properties.PrivateEndpointConnections))
	}
}

// approve is the registry owner's side: a manual request is approved, rejected
// and removed, and its endpoint shows each.
func (w *world) approve(t *testing.T, subnet, registry string) {
	ctx := t.Context()
	endpoints, err := armnetwork.NewPrivateEndpointsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	const name = "pe-manual"
	p, err := endpoints.BeginCreateOrUpdate(ctx, groupName, name, armnetwork.PrivateEndpoint{
		Location: to.Ptr("westeurope"),
		Properties: &armnetwork.PrivateEndpointProperties{
			Subnet: &armnetwork.Subnet{ID: to.Ptr(subnet)},
			ManualPrivateLinkServiceConnections: []*armnetwork.PrivateLinkServiceConnection{{
				Name: to.Ptr("connection"), Properties: &armnetwork.PrivateLinkServiceConnectionProperties{
					PrivateLinkServiceID: to.Ptr(registry), GroupIDs: []*string{to.Ptr("registry")}, RequestMessage: to.Ptr("please"),
				},
			}},
		},
	}, nil)
	done(t, p, err)
	shown := func() *armnetwork.PrivateLinkServiceConnectionState {
		t.Helper()
		pe, err := endpoints.Get(ctx, groupName, name, nil)
		must(t, err)
		return pe.Properties.ManualPrivateLinkServiceConnections[0].Properties.PrivateLinkServiceConnectionState
	}
	same(t, "status", shown().Status, "Pending")

	connections, err := armcontainerregistry.NewPrivateEndpointConnectionsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	list := func() []*armcontainerregistry.PrivateEndpointConnection {
		t.Helper()
		return all(t, connections.NewListPager(groupName, registryName, nil), func(p armcontainerregistry.PrivateEndpointConnectionsClientListResponse) []*armcontainerregistry.PrivateEndpointConnection {
			return p.Value
		})
	}
	both := list()
	i := slices.IndexFunc(both, func(c *armcontainerregistry.PrivateEndpointConnection) bool {
		return *c.Properties.PrivateLinkServiceConnectionState.Status == armcontainerregistry.ConnectionStatusPending
	})
	if len(both) != 2 || i < 0 {
		t.Fatalf("%d connections are listed, want two, one of them pending", len(both))
	}
	same(t, "description", both[i].Properties.PrivateLinkServiceConnectionState.Description, "please")
	for _, status := range []armcontainerregistry.ConnectionStatus{armcontainerregistry.ConnectionStatusApproved, armcontainerregistry.ConnectionStatusRejected} {
		c, err := connections.BeginCreateOrUpdate(ctx, groupName, registryName, *both[i].Name, armcontainerregistry.PrivateEndpointConnection{
			Properties: &armcontainerregistry.PrivateEndpointConnectionProperties{
				PrivateEndpoint:                   both[i].Properties.PrivateEndpoint,
				PrivateLinkServiceConnectionState: &armcontainerregistry.PrivateLinkServiceConnectionState{Status: to.Ptr(status), Description: to.Ptr("decided")},
			},
		}, nil)
		same(t, "status", done(t, c, err).Properties.PrivateLinkServiceConnectionState.Status, status)
		same(t, "the endpoint's status", shown().Status, string(status))
		same(t, "the endpoint's description", shown().Description, "decided")
	}
	d, err := connections.BeginDelete(ctx, groupName, registryName, *both[i].Name, nil)
	done(t, d, err)
	if left := list(); len(left) != 1 {
		t.Fatalf("%d connections are left, want one", len(left))
	}
	same(t, "status", shown().Status, "Disconnected")
	e, err := endpoints.BeginDelete(ctx, groupName, name, nil)
	done(t, e, err)
	_, err = endpoints.Get(ctx, groupName, name, nil)
	refused(t, err, http.StatusNotFound, "ResourceNotFound")
}

// assign gives a principal a role at the registry and takes it away.
func (w *world) assign(t *testing.T, registry string) {
	ctx := t.Context()
	assignments, err := armauthorization.NewRoleAssignmentsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	const name = "b5f34b1c-4f9d-4a4c-9df3-0d4b1a3b8c11"
	principal := w.objectID(t)
	definitions, err := armauthorization.NewRoleDefinitionsClient(w.cred, w.arm)
	must(t, err)
	named := all(t, definitions.NewListPager(registry, &armauthorization.RoleDefinitionsClientListOptions{Filter: to.Ptr("roleName eq 'AcrPull'")}), func(p armauthorization.RoleDefinitionsClientListResponse) []*armauthorization.RoleDefinition {
		return p.Value
	})
	if len(named) != 1 {
		t.Fatalf("%d roles are named AcrPull, want one", len(named))
	}
	role := *named[0].ID
	same(t, "the name of AcrPull", named[0].Name, "7f951dda-4ed3-4680-a7ca-43fe172d538d")
	definition, err := definitions.GetByID(ctx, role, nil)
	must(t, err)
	same(t, "its action", definition.Properties.Permissions[0].Actions[0], "Microsoft.ContainerRegistry/registries/pull/read")
	made, err := assignments.Create(ctx, registry, name, armauthorization.RoleAssignmentCreateParameters{Properties: &armauthorization.RoleAssignmentProperties{
		PrincipalID: to.Ptr(principal), PrincipalType: to.Ptr(armauthorization.PrincipalTypeServicePrincipal), RoleDefinitionID: to.Ptr(role),
	}}, nil)
	must(t, err)
	same(t, "scope", made.Properties.Scope, registry)
	same(t, "roleDefinitionId", made.Properties.RoleDefinitionID, role)
	got, err := assignments.GetByID(ctx, *made.ID, nil)
	must(t, err)
	same(t, "principalId", got.Properties.PrincipalID, principal)
	find := func(filter *string) int {
		t.Helper()
		return len(all(t, assignments.NewListForScopePager(registry, &armauthorization.RoleAssignmentsClientListForScopeOptions{Filter: filter}), func(p armauthorization.RoleAssignmentsClientListForScopeResponse) []*armauthorization.RoleAssignment {
			return p.Value
		}))
	}
	for _, filter := range []string{"atScope()", "principalId eq '" + principal + "'"} {
		if n := find(&filter); n != 2 {
			t.Fatalf("%d assignments are listed with %s, want this and that of the owner above", n, filter)
		}
	}
	_, err = assignments.Create(ctx, registry, "b5f34b1c-4f9d-4a4c-9df3-0d4b1a3b8c12", armauthorization.RoleAssignmentCreateParameters{Properties: &armauthorization.RoleAssignmentProperties{
		PrincipalID: to.Ptr(principal), RoleDefinitionID: to.Ptr(role),
	}}, nil)
	refused(t, err, http.StatusConflict, "RoleAssignmentExists")
	_, err = assignments.Delete(ctx, registry, name, nil)
	must(t, err)
	_, err = assignments.Get(ctx, registry, name, nil)
	refused(t, err, http.StatusNotFound, "RoleAssignmentNotFound")
}

// removeGroup deletes everything by its group and finds nothing left.
func (w *world) removeGroup(t *testing.T) {
	ctx := t.Context()
	groups, err := armresources.NewResourceGroupsClient(w.subscription, w.cred, w.arm)
	must(t, err)
	generic, err := armresources.NewClient(w.subscription, w.cred, w.arm)
	must(t, err)
	types := map[string]bool{}
	for _, r := range all(t, generic.NewListByResourceGroupPager(groupName, nil), func(p armresources.ClientListByResourceGroupResponse) []*armresources.GenericResourceExpanded {
		return p.Value
	}) {
		types[*r.Type] = true
	}
	for _, typ := range []string{"Microsoft.ContainerRegistry/registries", "Microsoft.Network/virtualNetworks", "Microsoft.Network/privateEndpoints", "Microsoft.Network/networkInterfaces", "Microsoft.Network/privateDnsZones"} {
		if !types[typ] {
			t.Errorf("the group's resources have no %s", typ)
		}
	}
	p, err := groups.BeginDelete(ctx, groupName, nil)
	done(t, p, err)
	is, err := groups.CheckExistence(ctx, groupName, nil)
	must(t, err)
	if is.Success {
		t.Error("the group is still there")
	}
	registries, err := armcontainerregistry.NewRegistriesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	_, err = registries.Get(ctx, groupName, registryName, nil)
	refused(t, err, http.StatusNotFound, "ResourceGroupNotFound")
	if list := all(t, generic.NewListPager(nil), func(p armresources.ClientListResponse) []*armresources.GenericResourceExpanded { return p.Value }); len(list) != 0 {
		t.Errorf("%d resources outlived their group; the first is %s", len(list), *list[0].ID)
	}
	// Nobody answers for the registry any more: there is no certificate.
	w.http.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.registry()+"/v2/", http.NoBody)
	must(t, err)
	if resp, err := w.http.Do(r); err == nil {
		resp.Body.Close()
		t.Errorf("the deleted registry answers %d", resp.StatusCode)
	}
}
