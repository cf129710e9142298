package scenarios

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	ids "cove.example/cove/arm"
	"cove.example/cove/covetest"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// A server that is killed at any moment of a storm of changes, of every kind
// that the control plane has, is found whole each time: what it acknowledged is
// there or gone as it said, no resource is on its way for ever, none lacks what
// it lies in or leads to, and every operation that was accepted comes to an end.
func TestAStormAndManyDeaths(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) { t.Parallel(); weather(t, "") })
	t.Run("postgres", func(t *testing.T) { t.Parallel(); weather(t, storetest.Postgres(t)) })
}

const (
	sailors = 4
	deaths  = 6
)

// fate is what the test knows of a resource.
type fate int

const (
	unsure fate = iota // the server died while it was asked
	there
	gone
)

// sailor makes, changes and deletes everything in one resource group, over and
// over.
type sailor struct {
	group      string
	known      map[string]fate
	operations []string
	next       int           // the step of the scene that comes next
	done       *atomic.Int64 // how often the whole crew was told that a change is made
}

func weather(t *testing.T, database string) {
	args := []string{"--region", "westeurope", "--also-region", "eastus", "--rate-limits", "off"}
	if database != "" {
		args = append(args, "--database", database)
	}
	s := covetest.Start(t, args...)
	if database == "" {
		database = store.SQLiteURL(filepath.Join(s.Data, "cove.db"))
	}
	quay := openQuay(t, s, "quarry")
	img, err := random.Image(4096, 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(quay.ref("app:1"), img, quay.options()...); err != nil {
		t.Fatal(err)
	}
	source := s.Cove(t, "registry", "show", "quarry", "--query", "id", "-o", "tsv")
	s.Stop(t)
	before := keys(documents(t, database))
	s.Start(t)
	m := openManager(t, s)

	seed := [2]uint64{rand.Uint64(), rand.Uint64()}
	dice := rand.New(rand.NewPCG(seed[0], seed[1]))
	defer func() {
		if t.Failed() {
			t.Logf("the seed is %v", seed)
		}
	}()
	var done atomic.Int64
	crew := make([]*sailor, sailors)
	for i := range crew {
		crew[i] = &sailor{group: fmt.Sprintf("%s/resourceGroups/sea%d", m.sub, i), known: map[string]fate{}, done: &done}
	}
	for death := range deaths {
		var all sync.WaitGroup
		for i, c := range crew {
			all.Go(func() { c.sail(m, i, source) })
		}
		moment := time.NewTimer(100*time.Millisecond + time.Duration(dice.IntN(700))*time.Millisecond)
		<-moment.C
		// On a busy machine hardly anything has been done by then.
		for deadline := time.Now().Add(covetest.Wait); done.Load() < int64((death+1)*sailors) && !t.Failed(); pause(t) {
			if time.Now().After(deadline) {
				t.Errorf("only %d changes were acknowledged in the storm", done.Load())
			}
		}
		s.Kill(t)
		all.Wait()
		docs := documents(t, database)
		whole(t, docs)
		for _, c := range crew {
			c.compare(t, docs)
			c.next = dice.IntN(c.next + 1) // some are asked again for what they have
		}
		if t.Failed() {
			t.Fatalf("after death %d", death+1)
		}
		s.Start(t)
		m = openManager(t, s)
	}
	t.Logf("%d changes acknowledged, %d deaths", done.Load(), deaths)
	for _, c := range crew {
		for _, at := range c.operations {
			m.ends(at)
		}
		// After the storm all of it can be taken away, and nothing stays behind.
		if m.ask(http.MethodGet, c.group, "").status == http.StatusOK {
			m.done(http.MethodDelete, c.group+"/providers/Microsoft.Authorization/locks/anchor", "")
			m.done(http.MethodDelete, c.group, "")
		}
	}
	s.Stop(t)
	after := documents(t, database)
	for key, doc := range after {
		if !slices.Contains(before, key) && doc.Body["on"] == nil { // what operations came to is kept for a day
			t.Errorf("%s is left behind", doc.ID)
		}
	}
}

// ends waits until an operation has come to an end.
func (m *manager) ends(at string) {
	m.Helper()
	for deadline := time.Now().Add(covetest.Wait); ; pause(m.T) {
		a := m.ask(http.MethodGet, at, "")
		status, _ := a.body["status"].(string)
		switch {
		case status == resource.Succeeded, status == resource.Failed, status == resource.Canceled:
			return
		case a.status != http.StatusOK || status != resource.Running:
			m.Errorf("the operation %s is answered %d %v", at, a.status, a.body)
			return
		case time.Now().After(deadline):
			m.Errorf("the operation %s is %s", at, status)
			return
		}
	}
}

// step is one request of the scene that a sailor plays.
type step struct{ method, target, body string }

// scene makes everything that there is, changes it and takes it away.
func (c *sailor) scene(n int, source, principal string) []step {
	const at = `"location":"westeurope"`
	net, auth := c.group+"/providers/Microsoft.Network/", "/providers/Microsoft.Authorization/"
	registry := fmt.Sprintf("%s/providers/Microsoft.ContainerRegistry/registries/vessel%d", c.group, n)
	vnet, zone := net+"virtualNetworks/net", net+"privateDnsZones/privatelink.cr.cove.internal"
	identity := c.group + "/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mate"
	workspace := c.group + "/providers/Microsoft.OperationalInsights/workspaces/log"
	const role = "/providers/Microsoft.Authorization/roleDefinitions/7f951dda-4ed3-4680-a7ca-43fe172d538d"
	put, patch, post, del := http.MethodPut, http.MethodPatch, http.MethodPost, http.MethodDelete
	return []step{
		{put, c.group, `{` + at + `}`},
		{put, net + "networkSecurityGroups/walls", `{` + at + `,"properties":{"securityRules":[{"name":"r","properties":{"priority":100,"direction":"Inbound","access":"Deny","protocol":"*","sourceAddressPrefix":"*","sourcePortRange":"*","destinationAddressPrefix":"*","destinationPortRange":"*"}}]}}`},
		{put, vnet, `{` + at + `,"properties":{"addressSpace":{"addressPrefixes":["10.1.0.0/16"]},"subnets":[{"name":"default","properties":{"addressPrefix":"10.1.0.0/24"}}]}}`},
		{put, vnet + "/subnets/more", `{"properties":{"addressPrefix":"10.1.1.0/24","networkSecurityGroup":{"id":"` + net + `networkSecurityGroups/walls"}}}`},
		{put, registry, `{` + at + `,"sku":{"name":"Premium"},"properties":{"adminUserEnabled":true}}`},
		{put, net + "networkInterfaces/card", `{` + at + `,"properties":{"ipConfigurations":[{"name":"ip","properties":{"subnet":{"id":"` + vnet + `/subnets/default"},"privateIPAllocationMethod":"Dynamic"}}]}}`},
		{put, net + "privateEndpoints/pe", `{` + at + `,"properties":{"subnet":{"id":"` + vnet + `/subnets/default"},"privateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"` + registry + `","groupIds":["registry"]}}]}}`},
		{put, zone, `{"location":"global"}`},
		{put, zone + "/virtualNetworkLinks/net", `{"location":"global","properties":{"registrationEnabled":false,"virtualNetwork":{"id":"` + vnet + `"}}}`},
		{put, net + "privateEndpoints/pe/privateDnsZoneGroups/default", `{"properties":{"privateDnsZoneConfigs":[{"name":"a","properties":{"privateDnsZoneId":"` + zone + `"}}]}}`},
		{put, registry + "/replications/eastus", `{"location":"eastus"}`},
		{put, zone + "/A/www", `{"properties":{"ttl":60,"aRecords":[{"ipv4Address":"10.1.0.77"}]}}`},
		{post, registry + "/importImage", `{"source":{"resourceId":"` + source + `","sourceImage":"app:1"},"targetTags":["app:1"],"mode":"Force"}`},
		{put, registry + "/scopeMaps/readers", `{"properties":{"actions":["repositories/a/content/read"]}}`},
		{put, registry + "/tokens/robot", `{"properties":{"scopeMapId":"` + registry + `/scopeMaps/readers","status":"enabled"}}`},
		{put, identity, `{` + at + `}`},
		{put, identity + "/federatedIdentityCredentials/pipeline", `{"properties":{"issuer":"https://issuer.example.org","subject":"x","audiences":["api://AzureADTokenExchange"]}}`},
		{put, registry + auth + "roleAssignments/" + fmt.Sprintf("1b3cfd0e-8a10-4b7c-9a51-5a5f3ad10f%02d", n), `{"properties":{"principalId":"` + principal + `","roleDefinitionId":"` + c.group[:strings.Index(c.group, "/resourceGroups")] + role + `"}}`},
		{put, workspace, `{` + at + `}`},
		{put, registry + "/providers/Microsoft.Insights/diagnosticSettings/logs", `{"properties":{"workspaceId":"` + workspace + `","logs":[{"category":"ContainerRegistryLoginEvents","enabled":true}]}}`},
		{patch, registry, `{"tags":{"a":"b"},"properties":{"publicNetworkAccess":"Disabled"}}`},
		{put, c.group + "/providers/Microsoft.Authorization/locks/anchor", `{"properties":{"level":"CanNotDelete"}}`},
		{del, c.group, ""}, // which the lock refuses
		{del, c.group + "/providers/Microsoft.Authorization/locks/anchor", ""},
		{del, registry + "/replications/eastus", ""},
		{del, identity, ""},
		{del, net + "privateEndpoints/pe", ""},
		{del, zone + "/virtualNetworkLinks/net", ""},
		{del, zone, ""},
		{put, net + "privateEndpoints/pe", `{` + at + `,"properties":{"subnet":{"id":"` + vnet + `/subnets/more"},"manualPrivateLinkServiceConnections":[{"name":"c","properties":{"privateLinkServiceId":"` + registry + `","groupIds":["registry"]}}]}}`},
		{post, registry + "/importImage", `{"source":{"resourceId":"` + source + `","sourceImage":"app:1"},"targetTags":["app:2"],"mode":"Force"}`},
		{del, registry, ""},
		{del, c.group, ""},
	}
}

// sail plays the scene from the next step on until the server is gone. The
// state that it is in may forbid a step; only the server's own failures are
// errors.
func (c *sailor) sail(m *manager, n int, source string) {
	for {
		scene := c.scene(n, source, c.mate(m))
		at := scene[c.next%len(scene)]
		c.next = (c.next + 1) % len(scene)
		a, err := m.try(at.method, at.target, at.body)
		switch {
		case err != nil:
			switch at.method {
			case http.MethodDelete:
				c.mark(at.target, unsure)
			case http.MethodPut:
				c.known[at.target] = unsure
				c.mark(c.unnamed(at), unsure)
			}
			return
		case a.status >= 500:
			m.Errorf("%s %s: %d %v", at.method, at.target, a.status, a.body)
			return
		case a.status >= 300:
			continue
		case at.method == http.MethodPut:
			c.known[at.target] = there
			c.mark(c.unnamed(at), gone)
		case at.method == http.MethodDelete:
			c.mark(at.target, gone)
		case a.status == http.StatusAccepted:
			c.operations = append(c.operations, a.header.Get("Azure-AsyncOperation")[len("https://management.cove.internal"):])
		}
		c.done.Add(1)
	}
}

// mate is the object id of the sailor's identity, or one that nobody has.
func (c *sailor) mate(m *manager) string {
	const nobody = "00000000-0000-4000-8000-000000000000"
	a, err := m.try(http.MethodGet, c.group+"/providers/Microsoft.ManagedIdentity/userAssignedIdentities/mate", "")
	if err != nil || a.status != http.StatusOK {
		return nobody
	}
	props, _ := a.body["properties"].(map[string]any)
	text, _ := props["principalId"].(string)
	return text
}

// unnamed is the subnet that the scene's PUT of its network takes away, because
// it names another; of every other step it is nothing.
func (c *sailor) unnamed(s step) string {
	if network := c.group + "/providers/Microsoft.Network/virtualNetworks/net"; s.target == network {
		return network + "/subnets/more"
	}
	return ""
}

// mark says what became of a resource and of all that lay below it.
func (c *sailor) mark(target string, f fate) {
	if target == "" {
		return
	}
	for id, was := range c.known {
		if id == target || strings.HasPrefix(id, target+"/") && was == there {
			c.known[id] = f
		}
	}
}

// compare finds what the server acknowledged as it said, and learns what became
// of the rest.
func (c *sailor) compare(t *testing.T, docs map[string]resource.Doc) {
	t.Helper()
	for id, f := range c.known {
		_, is := docs[ids.MustID(id).Key()]
		if f == there && !is {
			t.Errorf("%s was acknowledged and is gone", id)
		}
		if f == gone && is {
			t.Errorf("%s was deleted and is there", id)
		}
		c.known[id] = gone
		if is {
			c.known[id] = there
		}
	}
}

// documents reads a database while no server has it.
func documents(t *testing.T, url string) map[string]resource.Doc {
	t.Helper()
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]resource.Doc{}
	err = store.NewResources(db).View(t.Context(), func(r resource.Reader) error {
		docs, err := r.List(t.Context(), resource.Query{})
		for _, d := range docs {
			out[d.ID.Key()] = d
		}
		return err
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return out
}

func keys(docs map[string]resource.Doc) (out []string) {
	for k := range docs {
		out = append(out, k)
	}
	return out
}

// whole finds every document complete: nothing is on its way, and what it lies
// in and what it leads to are there and lead back.
func whole(t *testing.T, docs map[string]resource.Doc) {
	t.Helper()
	find := func(of resource.Doc, o any, path string) (resource.Doc, bool) {
		t.Helper()
		object, _ := o.(resource.Object)
		text, _ := resource.Lookup(object, path).(string)
		id, err := ids.ParseID(text)
		if err != nil {
			t.Errorf("%s has no %s", of.ID, path)
			return resource.Doc{}, false
		}
		d, ok := docs[id.Key()]
		return d, ok
	}
	first := func(d resource.Doc, path string) any {
		list, _ := resource.Lookup(d.Body, path).([]any)
		if len(list) == 0 {
			return nil
		}
		return list[0]
	}
	held := map[string]bool{}
	for _, d := range docs {
		if state := resource.Lookup(d.Body, "properties.provisioningState"); state != nil && state != "Succeeded" {
			t.Errorf("%s is %v", d.ID, state)
		}
		parent := d.ID.Parent()
		own := strings.HasPrefix(d.ID.Key(), "/providers/cove.") // and checked below
		if _, ok := docs[parent.Key()]; !parent.IsZero() && !ok && !own && d.Body["on"] == nil {
			t.Errorf("%s lies in nothing", d.ID)
		}
		switch strings.ToLower(d.ID.Type()) {
		case "cove.network/subnets/addresses":
			holder, _ := d.Body["holder"].(string)
			nic := ids.MustID(holder).Parent()
			if _, ok := docs[nic.Key()]; !ok {
				t.Errorf("an address is held by %s, which is gone", nic)
			}
			held[nic.Key()+" "+d.Body["address"].(string)] = true
		case "cove.network/groups/users":
			if user, ok := find(d, d.Body, "id"); !ok || resource.Lookup(user.Body, "properties.networkSecurityGroup") == nil {
				t.Errorf("%s is under a security group that it does not name, or gone", d.Body["id"])
			}
		case "microsoft.network/privateendpoints":
			if _, ok := find(d, first(d, "properties.networkInterfaces"), "id"); !ok {
				t.Errorf("%s has lost its interface", d.ID)
			}
			here := first(d, "properties.privateLinkServiceConnections")
			if here == nil {
				here = first(d, "properties.manualPrivateLinkServiceConnections")
			}
			const state = "properties.privateLinkServiceConnectionState.status"
			says := resource.Lookup(here.(resource.Object), state)
			connection, ok := find(d, d.Body, "cove.connection")
			if ok && resource.Lookup(connection.Body, state) != says || !ok && says != "Disconnected" {
				t.Errorf("%s says %v, its connection is there: %v, and says %v", d.ID, says, ok, resource.Lookup(connection.Body, state))
			}
		case "microsoft.containerregistry/registries/privateendpointconnections":
			if pe, ok := find(d, d.Body, "properties.privateEndpoint.id"); !ok || resource.Lookup(pe.Body, "cove.connection") != d.ID.String() {
				t.Errorf("%s leads to no private endpoint of its own", d.ID)
			}
		}
		if text, ok := d.Body["holder"].(string); ok && strings.HasPrefix(d.ID.Key(), "/providers/cove.names/") {
			if _, ok := docs[ids.MustID(text).Key()]; !ok {
				t.Errorf("the name %s is held by %s, which is gone", d.ID.Name(), text)
			}
		}
	}
	for _, d := range docs {
		if !strings.EqualFold(d.ID.Type(), "Microsoft.Network/networkInterfaces") {
			continue
		}
		list, _ := resource.Lookup(d.Body, "properties.ipConfigurations").([]any)
		for _, v := range list {
			o, _ := v.(resource.Object)
			if a, _ := resource.Lookup(o, "properties.privateIPAddress").(string); !held[d.ID.Key()+" "+a] {
				t.Errorf("%s has the address %q, which it does not hold", d.ID, a)
			}
		}
	}
}
