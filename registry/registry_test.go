package registry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"github.com/google/go-cmp/cmp"
)

const (
	group      = "/subscriptions/s1/resourceGroups/g"
	registries = group + "/providers/Microsoft.ContainerRegistry/registries/"
)

var owner = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}

type world struct {
	*resource.Service
	t     *testing.T
	db    *store.DB
	store *store.Resources
	c     registry.Config
}

func open(t *testing.T, db *store.DB) *world {
	t.Helper()
	box, err := seal.New(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	c := registry.Config{Suffix: "cr.cove.internal", Sealer: box, Aliases: map[string][]string{"harbor": {"mcr.example"}}}
	r := store.NewResources(db)
	connection := resource.Type{Name: registry.TypeConnection}
	s, err := resource.New(resource.Config{Store: r, Types: []resource.Type{registry.Type(c), connection}, Locations: []string{"westeurope", "eastus"}})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{s, t, db, r, c}
	if err := s.Begin(t.Context(), resource.First{Tenant: "t", Subscription: "s1"}); err != nil {
		t.Fatal(err)
	}
	w.put(group, `{"location":"westeurope"}`)
	return w
}

func object(t *testing.T, text string) resource.Object {
	t.Helper()
	o, err := resource.Decode([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (w *world) try(id, body string) (resource.Result, error) {
	return w.Put(w.t.Context(), owner, arm.MustID(id), object(w.t, body), resource.Condition{})
}

func (w *world) put(id, body string) resource.Object {
	w.t.Helper()
	r, err := w.try(id, body)
	if err != nil {
		w.t.Fatalf("PUT %s: %v", id, err)
	}
	return r.Body
}

func (w *world) patch(id, body string) resource.Object {
	w.t.Helper()
	r, err := w.Patch(w.t.Context(), owner, arm.MustID(id), object(w.t, body), resource.Condition{})
	if err != nil {
		w.t.Fatalf("PATCH %s: %v", id, err)
	}
	return r.Body
}

func (w *world) remove(id string) {
	w.t.Helper()
	if _, err := w.Delete(w.t.Context(), owner, arm.MustID(id), resource.Condition{}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) act(id, name, body string) (resource.Object, error) {
	return w.Act(w.t.Context(), owner, arm.MustID(id), name, object(w.t, body))
}

// stored is the document as the database has it.
func (w *world) stored(id string) (d resource.Doc) {
	w.t.Helper()
	err := w.store.View(w.t.Context(), func(r resource.Reader) (err error) {
		d, err = r.Get(w.t.Context(), arm.MustID(id))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// A registry that says nothing but its SKU: the admin user and anonymous pull
// are off, everybody may knock.
func TestDefaultsOfANewRegistry(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		got := w.put(registries+"Harbor", `{"location":"West Europe","sku":{"name":"premium"}}`)
		created, _ := resource.Lookup(got, "properties.creationDate").(string)
		if at, err := time.Parse(time.RFC3339, created); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("created %q", created)
		}
		want := object(t, `{
			"id":"`+registries+`Harbor","name":"Harbor","type":"Microsoft.ContainerRegistry/registries","etag":"`+got["etag"].(string)+`",
			"location":"westeurope","sku":{"name":"Premium","tier":"Premium"},
			"properties":{
				"loginServer":"harbor.cr.cove.internal","creationDate":"`+created+`","provisioningState":"Succeeded",
				"adminUserEnabled":false,"anonymousPullEnabled":false,"dataEndpointEnabled":false,"dataEndpointHostNames":[],
				"publicNetworkAccess":"Enabled","networkRuleSet":{"defaultAction":"Allow","ipRules":[]},
				"networkRuleBypassOptions":"AzureServices","networkRuleBypassAllowedForTasks":false,
				"privateEndpointConnections":[],"zoneRedundancy":"Disabled","encryption":{"status":"disabled"},
				"roleAssignmentMode":"LegacyRegistryPermissions","regionalEndpoints":"Disabled","regionalEndpointHostNames":[],"endpointProtocol":"IPv4","metadataSearch":"Disabled",
				"policies":{
					"quarantinePolicy":{"status":"disabled"},"trustPolicy":{"type":"Notary","status":"disabled"},
					"retentionPolicy":{"days":7,"status":"disabled"},"exportPolicy":{"status":"enabled"},
					"azureADAuthenticationAsArmPolicy":{"status":"enabled"},"softDeletePolicy":{"retentionDays":7,"status":"disabled"}}}}`)
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		basic := w.put(registries+"basic1", `{"location":"eastus","sku":{"name":"Basic"}}`)
		if set := resource.Lookup(basic, "properties.networkRuleSet"); set != nil {
			t.Errorf("a Basic registry has network rules: %v", set)
		}
	})
}

// row:75: the permission mode is a property that is shown, set by PUT and PATCH
// in any case of letters, and kept by a PUT that does not say.
func TestThePermissionModeIsSwitched(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		id := registries + "harbor"
		directory := registry.NewDirectory(w.store, w.c)
		sees := func(when, want string, got resource.Object) {
			t.Helper()
			s, err := directory.ByName(t.Context(), "harbor")
			if err != nil || s.Mode != want || resource.Lookup(got, "properties.roleAssignmentMode") != want {
				t.Errorf("%s: %v shown, %q obeyed, want %s (%v)", when, resource.Lookup(got, "properties.roleAssignmentMode"), s.Mode, want, err)
			}
		}
		body := func(mode string) string {
			return `{"location":"eastus","sku":{"name":"Basic"},"properties":{` + mode + `}}`
		}
		sees("a new one", registry.LegacyMode, w.put(id, body("")))
		sees("switched", registry.AbacMode, w.put(id, body(`"RoleAssignmentMode":"abacrepositorypermissions"`)))
		sees("a PUT that does not say", registry.AbacMode, w.put(id, body(`"adminUserEnabled":true`)))
		back, err := w.Patch(t.Context(), owner, arm.MustID(id), object(t, `{"properties":{"roleAssignmentMode":"legacyRegistryPermissions"}}`), resource.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		sees("switched back", registry.LegacyMode, back.Body)
	})
}

func TestASiteMayBeClosedByDefault(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		c := open(t, db).c
		c.DefaultPublicAccess = "Disabled"
		s, err := resource.New(resource.Config{Store: store.NewResources(db), Types: []resource.Type{registry.Type(c)}, Locations: []string{"westeurope"}})
		if err != nil {
			t.Fatal(err)
		}
		w := &world{Service: s, t: t}
		got := w.put(registries+"closed", `{"location":"westeurope","sku":{"name":"Premium"}}`)
		if v := resource.Lookup(got, "properties.publicNetworkAccess"); v != "Disabled" {
			t.Errorf("publicNetworkAccess is %v", v)
		}
		// Without private endpoints nobody could reach it: say so, rather
		// than open it against the site's will.
		if _, err := w.try(registries+"basic1", `{"location":"westeurope","sku":{"name":"Basic"}}`); err == nil || !strings.Contains(err.Error(), "needs Premium") {
			t.Errorf("a Basic registry at a closed site: %v", err)
		}
		w.put(registries+"basic1", `{"location":"westeurope","sku":{"name":"Basic"},"properties":{"publicNetworkAccess":"Enabled"}}`)
	})
}

func TestAPutOfWhatWasGotChangesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		for i, body := range []string{
			`{"location":"eastus","sku":{"name":"Basic"}}`,
			`{"location":"eastus","sku":{"name":"Standard"},"properties":{"anonymousPullEnabled":true,"adminUserEnabled":true}}`,
			`{"location":"eastus","sku":{"name":"Premium"},"tags":{"a":"b"},"identity":{"type":"None"},"properties":{"publicNetworkAccess":"Disabled","adminUserEnabled":true,"dataEndpointEnabled":true,
				"networkRuleSet":{"defaultAction":"Deny","ipRules":[{"value":"203.0.113.77/24"},{"action":"allow","value":"198.51.100.7","why":"office"}],"virtualNetworkRules":[]},"policies":{"newPolicy":{"x":[1,2]}},"future":{"z":[3,1]}}}`,
		} {
			id := fmt.Sprintf("%sharbor%d", registries, i)
			first := w.put(id, body)
			encoded, err := resource.Encode(first)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(first, w.put(id, string(encoded))); d != "" {
				t.Errorf("%s changed:\n%s", body, d)
			}
		}
		if v := resource.Lookup(w.put(registries+"harbor2", `{"sku":{"name":"Premium"},"properties":{"networkRuleSet":{"ipRules":[{"value":"203.0.113.77/24","why":"x"}]}}}`), "properties.networkRuleSet.ipRules"); cmp.Diff(v,
			[]any{resource.Object{"action": "Allow", "value": "203.0.113.0/24", "why": "x"}}) != "" {
			t.Errorf("the rules are %v", v)
		}
	})
}

func TestRefusals(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		rules := func(n int) string {
			var list []string
			for i := range n {
				list = append(list, fmt.Sprintf(`{"value":"10.%d.%d.1"}`, i/250, i%250))
			}
			return `{"networkRuleSet":{"ipRules":[` + strings.Join(list, ",") + `]}}`
		}
		for _, c := range []struct{ name, sku, properties, want string }{
			{"harb", "Basic", `{}`, "name: must be 5 to 50 letters and digits"},
			{strings.Repeat("a", 51), "Basic", `{}`, "name: must be 5 to 50"},
			{"har-bor", "Basic", `{}`, "name: must be 5 to 50"},
			{"harbor.x", "Basic", `{}`, "name: must be 5 to 50"},
			{"privatelink", "Basic", `{}`, "name: is reserved"},
			{"Management", "Basic", `{}`, "name: is reserved"},
			{"LOGIN", "Basic", `{}`, "name: is reserved"},
			{"graph", "Basic", `{}`, "name: is reserved"},
			{"portal", "Basic", `{}`, "name: is reserved"},
			{"harbor", "", `{}`, "sku.name: must be one of Basic, Standard, Premium"},
			{"harbor", "Gold", `{}`, "sku.name: must be one of"},
			{"harbor", "Basic", `{"publicNetworkAccess":"Disabled"}`, "properties.publicNetworkAccess: "},
			{"harbor", "Standard", `{"publicNetworkAccess":"disabled"}`, "needs Premium"},
			{"harbor", "Premium", `{"publicNetworkAccess":"Off"}`, "must be one of Enabled, Disabled"},
			{"harbor", "Premium", `{"zoneRedundancy":"Enabled"}`, "properties.zoneRedundancy: zone redundancy is not in this version; it can only be Disabled"},
			{"harbor", "Premium", `{"publicNetworkAccess":false}`, "must be one of Enabled, Disabled"},
			{"harbor", "Premium", `{"publicNetworkAccess":"Enabled","PublicNetworkAccess":"Disabled"}`, "given twice"},
			{"harbor", "Premium", `{"adminUserEnabled":"true"}`, "adminUserEnabled: must be true or false"},
			{"harbor", "Basic", `{"anonymousPullEnabled":true}`, "anonymousPullEnabled: "},
			{"harbor", "Standard", `{"dataEndpointEnabled":true}`, "dataEndpointEnabled: "},
			{"harbor", "Standard", `{"networkRuleSet":{"defaultAction":"Deny"}}`, "network rules are not supported for the SKU Standard"},
			{"harbor", "Basic", rules(1), "network rules are not supported for the SKU Basic"},
			{"harbor", "Premium", `{"networkRuleSet":[]}`, "networkRuleSet: must be an object"},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":{}}}`, "ipRules: must be a list"},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":["10.0.0.1"]}}`, "ipRules[0]: must be an object"},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{"value":"10.0.0.1"},{"value":"10.0.0.256"}]}}`, "ipRules[1].value: "},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{"value":"2001:db8::1"}]}}`, "ipRules[0].value: "},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{"value":"::ffff:10.0.0.0/80"}]}}`, "ipRules[0].value: "},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{"value":"10.0.0.0/33"}]}}`, "ipRules[0].value: "},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{"value":"10.0.0.1-10.0.0.9"}]}}`, "ipRules[0].value: "},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{}]}}`, "ipRules[0].value: "},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{"value":"10.0.0.1","Value":"10.0.0.2"}]}}`, "given twice"},
			{"harbor", "Premium", `{"networkRuleSet":{"ipRules":[{"value":"10.0.0.1","action":"Deny"}]}}`, "ipRules[0].action: must be Allow"},
			{"harbor", "Premium", `{"networkRuleSet":{"defaultAction":"Perhaps"}}`, "defaultAction: must be one of Allow, Deny"},
			{"harbor", "Premium", `{"networkRuleSet":{"virtualNetworkRules":[{"id":"x"}]}}`, "virtualNetworkRules[0].id: "},
			{"harbor", "Premium", rules(201), "The requested feature IP rule exceeds allowed quota 200 for the SKU Premium."},
			{"harbor", "Premium", `{"policies":{"exportPolicy":{"status":"disabled"}}}`, "exportPolicy.status: "},
			{"harbor", "Premium", `{"policies":{"quarantinePolicy":{"status":"enabled"}}}`, "quarantine is not in this version"},
			{"harbor", "Premium", `{"Policies":{"QuarantinePolicy":{"Status":"enabled"}}}`, "quarantine is not in this version"},
			{"harbor", "Premium", `{"policies":{"quarantinePolicy":"on"}}`, "quarantinePolicy: must be an object"},
			{"harbor", "Premium", `{"policies":"none"}`, "policies: must be an object"},
			{"harbor", "Premium", `{"encryption":{"status":"enabled"}}`, "encryption with a customer's key is not in this version"},
			{"harbor", "Premium", `{"roleAssignmentMode":"Abac"}`, "roleAssignmentMode: must be one of LegacyRegistryPermissions, AbacRepositoryPermissions"},
		} {
			_, err := w.try(registries+c.name, `{"location":"eastus","sku":{"name":"`+c.sku+`"},"properties":`+c.properties+`}`)
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s, %.90s: %v; want %q", c.name, c.sku, c.properties, err, c.want)
			}
		}
		if _, err := w.try(registries+"harbor", `{"location":"eastus"}`); err == nil || !strings.Contains(err.Error(), "sku.name: is required") {
			t.Errorf("no SKU: %v", err)
		}
		w.put(registries+"harbor", `{"location":"eastus","sku":{"name":"Premium"},"properties":`+rules(200)+`}`)

		// All problems of a body are reported at once.
		_, err := w.try(registries+"bad", `{"location":"mars","sku":{"name":"Basic"},"properties":{"adminUserEnabled":1,"publicNetworkAccess":"Disabled","networkRuleSet":{"defaultAction":"Deny","ipRules":[{"value":"x"}]}}}`)
		var paths []string
		for _, d := range arm.Describe(err).Error.Details {
			paths = append(paths, d.Target)
		}
		if want := []string{"name", "location", "properties.adminUserEnabled", "properties.publicNetworkAccess", "properties.networkRuleSet.ipRules[0].value", "properties.networkRuleSet"}; !slices.Equal(paths, want) {
			t.Errorf("problems of %q, want of %q", paths, want)
		}
	})
}

// A switch in another spelling is that switch.
func TestKnownPropertiesInAnyCase(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		w.put(registries+"harbor", `{"Location":"EastUS","SKU":{"Name":"PREMIUM"},"PROPERTIES":{"PublicNetworkAccess":"DISABLED","networkruleset":{"DefaultAction":"deny","IPRULES":[{"VALUE":"::ffff:203.0.113.9"}]}}}`)
		got := w.patch(registries+"harbor", `{"properties":{"AdminUserEnabled":true,"Unknown":"kept"}}`)
		for path, want := range map[string]any{
			"sku.name": "Premium", "location": "eastus", "properties.publicNetworkAccess": "Disabled", "properties.networkRuleSet.defaultAction": "Deny",
			"properties.networkRuleSet.ipRules": []any{resource.Object{"action": "Allow", "value": "203.0.113.9"}},
			"properties.adminUserEnabled":       true, "properties.AdminUserEnabled": nil, "properties.Unknown": "kept",
		} {
			if d := cmp.Diff(want, resource.Lookup(got, path)); d != "" {
				t.Errorf("%s:\n%s", path, d)
			}
		}
	})
}

func TestAdminPasswords(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		id := registries + "Harbor"
		w.put(id, `{"location":"eastus","sku":{"name":"Basic"}}`)
		if _, err := w.act(id, "listCredentials", `{}`); !errors.Is(err, registry.ErrAdminOff) {
			t.Errorf("credentials of an admin user that is off: %v", err)
		}
		if _, err := w.act(id, "regenerateCredential", `{"name":"password"}`); !errors.Is(err, registry.ErrAdminOff) {
			t.Errorf("renewal while the admin user is off: %v", err)
		}
		w.patch(id, `{"properties":{"adminUserEnabled":true}}`)
		list := func(action, body string) (p1, p2 string) {
			t.Helper()
			out, err := w.act(id, action, body)
			if err != nil {
				t.Fatal(err)
			}
			text, err := json.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				Username  string
				Passwords []struct{ Name, Value string }
			}
			if err := json.Unmarshal(text, &got); err != nil || got.Username != "Harbor" || len(got.Passwords) != 2 ||
				got.Passwords[0].Name != "password" || got.Passwords[1].Name != "password2" {
				t.Fatalf("%s: %s", action, text)
			}
			return got.Passwords[0].Value, got.Passwords[1].Value
		}
		p1, p2 := list("listCredentials", `{}`)
		for _, p := range []string{p1, p2} {
			if !regexp.MustCompile(`^cvadm[a-z2-7]{47}$`).MatchString(p) {
				t.Errorf("a password is %q", p)
			}
		}
		if a, b := list("listCredentials", `{}`); p1 == p2 || a != p1 || b != p2 {
			t.Error("the passwords are equal, or change by being looked at")
		}
		q1, q2 := list("regenerateCredential", `{"name":"Password2"}`)
		if q1 != p1 || q2 == p2 {
			t.Error("renewing password2 changed the other, or not that one")
		}
		if _, err := w.act(id, "regenerateCredential", `{"name":"password3"}`); !fault.Is(err, fault.Invalid) {
			t.Errorf("renewing password3: %v", err)
		}
		// Neither the database nor an answer has them.
		raw, err := resource.Encode(w.stored(id).Body)
		if err != nil {
			t.Fatal(err)
		}
		shown, err := w.Get(t.Context(), arm.MustID(id))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := resource.Encode(shown.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{p1, p2, q2, p1[5:30]} {
			if bytes.Contains(raw, []byte(secret)) || bytes.Contains(answer, []byte(secret)) {
				t.Error("a password is stored or shown in clear")
			}
		}
		if !bytes.Contains(raw, []byte(`"passwords"`)) || bytes.Contains(answer, []byte(`"passwords"`)) {
			t.Error("the sealed passwords are not stored, or are shown")
		}

		// They are a registry's own: sealed text moved to another does not open.
		other := registries + "other"
		w.put(other, `{"location":"eastus","sku":{"name":"Basic"},"properties":{"adminUserEnabled":true}}`)
		sealed := resource.Lookup(w.stored(id).Body, "cove.passwords")
		err = w.store.Update(t.Context(), func(tx resource.Tx) error {
			doc, err := tx.Get(t.Context(), arm.MustID(other))
			if err != nil {
				return err
			}
			resource.Assign(doc.Body, "cove.passwords", sealed)
			return tx.Put(t.Context(), &doc)
		})
		if err != nil {
			t.Fatal(err)
		}
		if out, err := w.act(other, "listCredentials", `{}`); !fault.Is(err, fault.Internal) {
			t.Errorf("another registry's passwords: %v, %v", out, err)
		}
	})
}

// isAdmin reports whether these are the credentials of the admin user.
func isAdmin(s *registry.Settings, user, password string) bool {
	_, ok := s.AdminPassword(user, password)
	return ok
}

func TestAdminPassword(t *testing.T) {
	s := registry.Settings{Name: "Harbor", AdminUser: true}.WithAdmin("first-password", "second-password")
	for _, c := range []struct {
		user, password string
		want           bool
	}{
		{"Harbor", "first-password", true},
		{"harbor", "second-password", true},
		{"harbor", "third-password!", false},
		{"harbor", "", false},
		{"harbor", "first-password ", false},
		{"harbo", "first-password", false},
		{"", "first-password", false},
	} {
		if got := isAdmin(s, c.user, c.password); got != c.want {
			t.Errorf("%s, %s: %v", c.user, c.password, got)
		}
	}
	off := *s
	off.AdminUser = false
	if isAdmin(&off, "harbor", "first-password") {
		t.Error("an admin user that is off signed in")
	}
	none := registry.Settings{Name: "Harbor", AdminUser: true}
	if isAdmin(&none, "harbor", "") || isAdmin(none.WithAdmin("", ""), "harbor", "") {
		t.Error("an empty password was right")
	}
	encoded, _ := json.Marshal(s)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v", s, s, s), fmt.Sprintf("%+v %#v", *s, *s), string(encoded)} {
		if strings.Contains(text, "first-password") {
			t.Errorf("printed: %s", text)
		}
	}
}

func TestDeletionLeavesTheContentToATask(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		w.put(registries+"harbor", `{"location":"eastus","sku":{"name":"Basic"}}`)
		uid := w.stored(registries + "harbor").UID
		w.remove(group)
		tasks, err := db.Claim(t.Context(), []string{registry.DropTask}, 10, time.Now().Add(time.Minute), time.Minute)
		if err != nil || len(tasks) != 1 {
			t.Fatalf("%d tasks, %v", len(tasks), err)
		}
		var d registry.Drop
		if err := json.Unmarshal(tasks[0].Body, &d); err != nil || d.UID != uid || uid == "" || tasks[0].Key != uid {
			t.Errorf("the task is %s %s, the UID was %s", tasks[0].Key, tasks[0].Body, uid)
		}
	})
}

// From its first private endpoint on, a registry answers blobs at data hosts
// and keeps the privatelink label; while it has one, it cannot lose what the
// endpoint needs.
func TestARegistryWithPrivateEndpoints(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		id := registries + "harbor"
		w.put(id, `{"location":"eastus","sku":{"name":"Premium"}}`)
		makePrivate := func(id string) (changed bool, err error) {
			err = w.store.Update(t.Context(), func(tx resource.Tx) error {
				doc, err := tx.Get(t.Context(), arm.MustID(id))
				if err != nil {
					return err
				}
				if changed, err = w.c.MakePrivate(&doc); err != nil || !changed {
					return err
				}
				return tx.Put(t.Context(), &doc)
			})
			return changed, err
		}
		if changed, err := makePrivate(id); err != nil || !changed {
			t.Fatal(changed, err)
		}
		if changed, err := makePrivate(id); err != nil || changed {
			t.Fatal(changed, err)
		}
		w.put(id+"/privateEndpointConnections/c1", `{"properties":{"privateLinkServiceConnectionState":{"status":"Approved"}}}`)
		got := w.put(id, `{"sku":{"name":"Premium"}}`) // says nothing of data endpoints
		for path, want := range map[string]any{
			"properties.dataEndpointEnabled":   true,
			"properties.dataEndpointHostNames": []any{"harbor.eastus.data.cr.cove.internal"},
			"cove":                             nil,
		} {
			if d := cmp.Diff(want, resource.Lookup(got, path)); d != "" {
				t.Errorf("%s:\n%s", path, d)
			}
		}
		list, _ := resource.Lookup(got, "properties.privateEndpointConnections").([]any)
		if len(list) != 1 || resource.Lookup(list[0].(resource.Object), "id") != id+"/privateEndpointConnections/c1" ||
			resource.Lookup(list[0].(resource.Object), "properties.privateLinkServiceConnectionState.status") != "Approved" {
			t.Errorf("the connections are %v", list)
		}
		for body, want := range map[string]string{
			`{"sku":{"name":"Premium"},"properties":{"dataEndpointEnabled":false}}`:  "dataEndpointEnabled: must be true",
			`{"sku":{"name":"Standard"},"properties":{"dataEndpointEnabled":false}}`: "sku.name: ",
		} {
			if _, err := w.try(id, body); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", body, err)
			}
		}
		w.remove(id + "/privateEndpointConnections/c1")
		w.put(id, `{"sku":{"name":"Standard"},"properties":{"dataEndpointEnabled":false}}`)
		if !registry.EverPrivate(w.stored(id)) {
			t.Error("it forgot that it had a private endpoint")
		}
		if _, err := makePrivate(id); !errors.Is(err, registry.ErrSKU) {
			t.Errorf("a private endpoint for a Standard registry: %v", err)
		}
	})
}

func TestCompiledSettings(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		d := registry.NewDirectory(w.store, w.c)
		w.put(registries+"Harbor", `{"location":"eastus","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":"Disabled","adminUserEnabled":true,"dataEndpointEnabled":true,
			"networkRuleSet":{"defaultAction":"Deny","ipRules":[{"value":"203.0.113.77/24"},{"value":"198.51.100.7"}]}}}`)
		s, err := d.ByHost(t.Context(), "harbor.cr.cove.internal")
		if err != nil || s == nil {
			t.Fatal(s, err)
		}
		doc := w.stored(registries + "harbor")
		if s.ID != doc.ID || s.UID != doc.UID || s.Name != "Harbor" || s.Host != "harbor.cr.cove.internal" || s.Location != "eastus" || s.SKU != "Premium" ||
			s.PublicAccess || s.DefaultAllow || !s.AdminUser || s.AnonymousPull || !s.DataEndpoint || s.EverPrivate ||
			!slices.Equal(s.Aliases, []string{"mcr.example"}) || !slices.Equal(s.DataHosts, []string{"harbor.eastus.data.cr.cove.internal"}) ||
			!slices.Equal(s.IPRules, []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("198.51.100.7/32")}) {
			t.Errorf("%+v", s)
		}
		out, err := w.act(registries+"harbor", "listCredentials", `{}`)
		if err != nil {
			t.Fatal(err)
		}
		password, _ := out["passwords"].([]any)[1].(resource.Object)["value"].(string)
		if !isAdmin(s, "harbor", password) || isAdmin(s, "harbor", password[1:]) {
			t.Error("the admin user cannot sign in, or with a wrong password too")
		}
		w.put(registries+"basic1", `{"location":"eastus","sku":{"name":"Basic"}}`)
		if s, err := d.ByName(t.Context(), "BASIC1"); err != nil || s == nil || !s.PublicAccess || !s.DefaultAllow || s.AdminUser {
			t.Errorf("%+v %v", s, err)
		}
		for host, want := range map[string]string{
			"mcr.example":                             "Harbor", // an alias
			"harbor.eastus.data.cr.cove.internal":     "Harbor",
			"harbor.westeurope.data.cr.cove.internal": "", // no region of its
			"harbor.data.cr.cove.internal":            "",
			"harbor.privatelink.cr.cove.internal":     "",
			"harbor.x.cr.cove.internal":               "",
			"a.harbor.cr.cove.internal":               "",
			"harbor.cr.cove.internal.":                "",
			"cr.cove.internal":                        "",
			".cr.cove.internal":                       "",
			"harborcr.cove.internal":                  "",
			"harbor.cr.other.internal":                "",
			"harbor2.cr.cove.internal":                "",
			"login.cr.cove.internal":                  "",
			"har%2fbor.cr.cove.internal":              "",
			"basic1.eastus.data.cr.cove.internal":     "basic1",
		} {
			s, err := d.ByHost(t.Context(), host)
			if err != nil || (s == nil) != (want == "") || s != nil && s.Name != want {
				t.Errorf("%s: %+v %v; want %q", host, s, err, want)
			}
		}
	})
}

// counting counts the reads of a real store, and can hold one up.
type counting struct {
	resource.Store
	views int
	pause chan chan struct{} // a read that finds one here waits for it after reading
}

func (c *counting) View(ctx context.Context, fn func(resource.Reader) error) error {
	c.views++
	err := c.Store.View(ctx, fn)
	select {
	case wait := <-c.pause:
		wait <- struct{}{}
		<-wait
	default:
	}
	return err
}

func running(t *testing.T, s resource.Store, c registry.Config) *registry.Directory {
	t.Helper()
	d := registry.NewDirectory(s, c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	<-d.Live()
	return d
}

// A change that has been answered is obeyed by the next request, and what
// nobody changes is not read again.
func TestTheDirectoryObeysAtOnceAndReadsOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		s := &counting{Store: w.store}
		d := running(t, s, w.c)
		id, host := registries+"harbor", "harbor.cr.cove.internal"
		see := func() *registry.Settings {
			t.Helper()
			got, err := d.ByHost(t.Context(), host)
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if see() != nil {
			t.Fatal("it is there before it is made")
		}
		for i := range 20 {
			w.put(id, `{"location":"eastus","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":"`+[]string{"Disabled", "Enabled"}[i%2]+`"}}`)
			if got := see(); got == nil || got.PublicAccess != (i%2 == 1) {
				t.Fatalf("change %d is not obeyed: %+v", i, got)
			}
		}
		old := see()
		w.remove(id)
		if see() != nil {
			t.Fatal("it is there after it is deleted")
		}
		w.put(id, `{"location":"eastus","sku":{"name":"Premium"}}`)
		if got := see(); got == nil || got.UID == old.UID {
			t.Fatal("the name made again is the old registry")
		}
		w.put(group+"/providers/Microsoft.ContainerRegistry/registries/other", `{"location":"eastus","sku":{"name":"Basic"}}`)
		see()
		if _, err := d.ByHost(t.Context(), "nobody.cr.cove.internal"); err != nil {
			t.Fatal(err)
		}
		// Follow tells of the same commits once more, a moment later.
		for stable := 0; stable < 3; {
			before := s.views
			for range 100 {
				see()
				if got, err := d.ByHost(t.Context(), "nobody.cr.cove.internal"); got != nil || err != nil {
					t.Fatal(got, err)
				}
			}
			if s.views == before {
				stable++
			}
			if s.views > 200 {
				t.Fatalf("%d reads: it does not remember", s.views)
			}
		}
	})
}

// A read that began before a change must not be remembered after it.
func TestAReadOvertakenByAChangeIsNotKept(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := open(t, db)
		s := &counting{Store: w.store, pause: make(chan chan struct{}, 1)}
		d := running(t, s, w.c)
		id, host := registries+"harbor", "harbor.cr.cove.internal"
		w.put(id, `{"location":"eastus","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":"Enabled"}}`)
		wait := make(chan struct{})
		s.pause <- wait
		slow := make(chan *registry.Settings)
		go func() {
			got, err := d.ByHost(t.Context(), host)
			if err != nil {
				t.Error(err)
			}
			slow <- got
		}()
		<-wait // it has read, and is held up before it can tell
		w.put(id, `{"sku":{"name":"Premium"},"properties":{"publicNetworkAccess":"Disabled"}}`)
		if got, err := d.ByHost(t.Context(), host); err != nil || got.PublicAccess {
			t.Errorf("a request after the change shares the read from before it: %+v %v", got, err)
		}
		wait <- struct{}{}
		if got := <-slow; !got.PublicAccess {
			t.Error("the test held up the wrong read")
		}
		if got, err := d.ByHost(t.Context(), host); err != nil || got.PublicAccess {
			t.Errorf("the old read was remembered: %+v %v", got, err)
		}
	})
}

// A stranger may ask for any name, by SNI alone.
func TestStrangersCannotFillTheMemory(t *testing.T) {
	w := open(t, storetest.Open(t, storetest.SQLite(t)))
	d := running(t, w.store, w.c)
	for i := range registry.MaxUnknown + 200 {
		for _, host := range []string{fmt.Sprintf("name%d.cr.cove.internal", i), fmt.Sprintf("not-a-name%d.cr.cove.internal", i)} {
			if s, err := d.ByHost(t.Context(), host); s != nil || err != nil {
				t.Fatal(host, s, err)
			}
		}
	}
	if _, n := d.Remembered(); n > registry.MaxUnknown || n < registry.MaxUnknown/2 {
		t.Errorf("%d names are remembered; the bound is %d", n, registry.MaxUnknown)
	}
}

// Another node's change is obeyed within a second, if nothing else keeps the
// machine busy: the quickest of four counts.
func TestTheDirectoryHearsOfOtherNodes(t *testing.T) {
	url := storetest.Postgres(t)
	here := open(t, storetest.Open(t, url))
	there := registryOn(t, storetest.Open(t, url), here.c)
	id, host := registries+"harbor", "harbor.cr.cove.internal"
	quickest := time.Hour
	for i := range 4 {
		here.put(id, `{"location":"eastus","sku":{"name":"Premium"},"properties":{"publicNetworkAccess":"`+[]string{"Disabled", "Enabled"}[i%2]+`"}}`)
		start := time.Now()
		for {
			got, err := there.ByHost(t.Context(), host)
			if err != nil {
				t.Fatal(err)
			}
			if got != nil && got.PublicAccess == (i%2 == 1) {
				break
			}
			if time.Since(start) > time.Minute {
				t.Fatalf("change %d is not obeyed on the other node", i)
			}
		}
		quickest = min(quickest, time.Since(start))
	}
	if quickest > time.Second {
		t.Errorf("the quickest change was obeyed on the other node after %v", quickest)
	}
}

func registryOn(t *testing.T, db *store.DB, c registry.Config) *registry.Directory {
	return running(t, store.NewResources(db), c)
}
