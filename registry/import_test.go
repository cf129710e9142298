package registry_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"github.com/google/go-cmp/cmp"
)

// importing asks for an import into a registry as by, and returns what its
// task will find.
func (w *world) importing(by resource.Caller, into, body string) (registry.Import, error) {
	w.t.Helper()
	o, err := w.Start(w.t.Context(), by, arm.MustID(registries+into), "importImage", object(w.t, body))
	if err != nil {
		return registry.Import{}, err
	}
	request, _ := w.stored(o.ID.String()).Body["request"].(resource.Object)
	im, err := registry.ParseImport(request)
	if err != nil {
		w.t.Fatal(err)
	}
	return im, nil
}

// clerk may import into harbor and pull from nowhere.
var clerk = resource.Caller{ObjectID: "clerk", Name: "clerk", May: func(action string, _ arm.ID) bool { return !strings.HasSuffix(action, "/pull/read") }}

const quayBody = `{"source":{"resourceId":"` + registries + `quayside","sourceImage":"team/app:1"}}`

func openImport(t *testing.T, db *store.DB) *world {
	w := open(t, db)
	w.put(registries+"harbor", `{"location":"eastus","sku":{"name":"Premium"}}`)
	w.put(registries+"quayside", `{"location":"eastus","sku":{"name":"Premium"},"properties":{"adminUserEnabled":true}}`)
	return w
}

func TestImportReadsSourceAndTargets(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		digest := "sha256:" + strings.Repeat("a", 64)
		target := func(list ...string) (out []registry.ImportTarget) {
			for _, text := range list {
				repo, tag, _ := strings.Cut(text, ":")
				out = append(out, registry.ImportTarget{Repo: repo, Tag: tag})
			}
			return out
		}
		for _, c := range []struct {
			body            string
			host, repo, ref string
			targets         []registry.ImportTarget
			force           bool
		}{
			{`{"source":{"registryUri":"registry.example.com","sourceImage":"team/app:1"}}`, "registry.example.com", "team/app", "1", target("team/app:1"), false},
			{`{"source":{"registryUri":"https://Registry.Example.com:5000/","sourceImage":"app"},"mode":"force"}`, "registry.example.com:5000", "app", "latest", target("app:latest"), true},
			{`{"Source":{"RegistryUri":"registry.example.com","sourceImage":"app@` + digest + `"},"targetTags":["copy","copy:latest","b/c:2"]}`, "registry.example.com", "app", digest, target("copy:latest", "b/c:2"), false},
			{`{"source":{"registryUri":"registry.example.com","sourceImage":"app:1@` + digest + `"}}`, "registry.example.com", "app", digest, target("app"), false},
			{`{"source":{"registryUri":"registry.example.com","sourceImage":"app:1"},"targetTags":[],"untaggedTargetRepositories":["bare/app"],"mode":"NoForce"}`, "registry.example.com", "app", "1", target("bare/app"), false},
			{`{"source":{"registryUri":"registry.example.com","sourceImage":"app:1","credentials":null},"targetTags":null}`, "registry.example.com", "app", "1", target("app:1"), false},
		} {
			im, err := w.importing(owner, "harbor", c.body)
			if err != nil {
				t.Errorf("%s: %v", c.body, err)
				continue
			}
			want := registry.Import{UID: w.stored(registries + "harbor").UID, By: registry.ImportCaller{ObjectID: "owner"}, Source: registry.ImportSource{Host: c.host, Repo: c.repo, Reference: c.ref}, Targets: c.targets, Force: c.force}
			if d := cmp.Diff(want, im); d != "" {
				t.Errorf("%s: %s", c.body, d)
			}
		}
	})
}

func TestImportSaysAllThatIsWrong(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		for body, want := range map[string][]string{
			`{}`:           {"source.registryUri", "source.sourceImage"},
			`{"source":1}`: {"source"},
			`{"source":{"registryUri":"registry.example.com","resourceId":"/x","sourceImage":"A B"},"mode":"Maybe","targetTags":["ok:1","Bad:1","app@sha256:x"],"untaggedTargetRepositories":["UP"]}`: {"mode", "source.registryUri", "source.sourceImage", "targetTags[1]", "targetTags[2]", "untaggedTargetRepositories[0]"},
			`{"source":{"registryUri":"registry.example.com","sourceImage":"app:1","credentials":{"username":"me"}},"targetTags":"app:1"}`:                                                            {"source.credentials.password", "targetTags"},
			`{"source":{"registryUri":"localhost","sourceImage":"app:1"}}`:                                                                                                                            {"source.registryUri"},
			`{"source":{"registryUri":"http://registry.example.com","sourceImage":"app:1"}}`:                                                                                                          {"source.registryUri"},
			`{"source":{"registryUri":"me:you@registry.example.com","sourceImage":"app:1"}}`:                                                                                                          {"source.registryUri"},
			`{"source":{"registryUri":"registry.example.com/path","sourceImage":"app:1"}}`:                                                                                                            {"source.registryUri"},
			`{"source":{"registryUri":"registry.example.com?x","sourceImage":"../../etc:1"}}`:                                                                                                         {"source.registryUri", "source.sourceImage"},
			`{"source":{"registryUri":"[::1]:443","sourceImage":"app@latest"}}`:                                                                                                                       {"source.registryUri", "source.sourceImage"},
			`{"source":{"registryUri":"registry.example.com","sourceImage":"app:1"},"targetTags":["` + strings.Repeat(`a:1","`, 100) + `a:1"]}`:                                                       {"targetTags"},
			`{"source":{"resourceId":"` + group + `/providers/Microsoft.Network/virtualNetworks/v","sourceImage":"app:1"}}`:                                                                           {"source.resourceId"},
		} {
			_, err := w.importing(owner, "harbor", body)
			e, ok := errors.AsType[*fault.Error](err)
			if !ok || e.Kind != fault.Invalid {
				t.Errorf("%s: %v", body, err)
				continue
			}
			var paths []string
			for _, f := range e.Fields {
				paths = append(paths, f.Path)
			}
			slices.Sort(paths)
			if d := cmp.Diff(want, paths); d != "" {
				t.Errorf("%s: %s", body, d)
			}
		}
	})
}

// A registry of this deployment is found by its id, its login server and its
// alias, and is never left to a resolver.
func TestImportKnowsItsOwnRegistries(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		quay, harbor := w.stored(registries+"quayside"), w.stored(registries+"harbor")
		for source, of := range map[string]resource.Doc{
			`"resourceId":"` + strings.ToUpper(registries) + `QuaySide"`:                quay,
			`"registryUri":"quayside.cr.cove.internal"`:                                 quay,
			`"registryUri":"QUAYSIDE.cr.cove.internal:443"`:                             quay,
			`"registryUri":"mcr.example"`:                                               harbor,
			`"registryUri":"mcr.example","credentials":{"username":"x","password":"y"}`: harbor,
		} {
			im, err := w.importing(owner, "harbor", `{"source":{`+source+`,"sourceImage":"app:1"}}`)
			if err != nil || im.Source != (registry.ImportSource{ID: of.ID.String(), UID: of.UID, Repo: "app", Reference: "1"}) {
				t.Errorf("%s: %+v, %v", source, im.Source, err)
			}
		}
		for _, source := range []string{`"registryUri":"nobody.cr.cove.internal"`, `"registryUri":"x.y.cr.cove.internal"`} {
			if _, err := w.importing(owner, "harbor", `{"source":{`+source+`,"sourceImage":"app:1"}}`); !fault.Is(err, fault.Denied) {
				t.Errorf("%s: %v", source, err)
			}
		}
	})
}

// Who may import into a registry may not thereby read another one.
func TestImportNeedsPullAtItsSource(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		_, there := w.importing(clerk, "harbor", quayBody)
		_, nowhere := w.importing(clerk, "harbor", strings.Replace(quayBody, "quayside", "nowheres", 1))
		if !fault.Is(there, fault.Denied) || strings.Replace(there.Error(), "quayside", "nowheres", 1) != nowhere.Error() {
			t.Errorf("the two can be told apart:\n%v\n%v", there, nowhere)
		}
		at := func(credentials string) string {
			return `{"source":{"registryUri":"quayside.cr.cove.internal","sourceImage":"team/app:1"` + credentials + `}}`
		}
		credentials, err := w.act(registries+"quayside", "listCredentials", `{}`)
		if err != nil {
			t.Fatal(err)
		}
		passwords, _ := credentials["passwords"].([]any)
		one, _ := passwords[0].(resource.Object)
		secret, _ := one["value"].(string)
		for _, c := range []struct {
			body string
			ok   bool
		}{
			{at(""), false},
			{at(`,"credentials":{"username":"quayside","password":"guess"}`), false},
			{at(`,"credentials":{"username":"harbor","password":"` + secret + `"}`), false},
			{at(`,"credentials":{"username":"quayside","password":"` + secret + `"}`), true},
		} {
			if _, err := w.importing(clerk, "harbor", c.body); (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Denied) {
				t.Errorf("%s: %v", c.body, err)
			}
		}
		w.patch(registries+"quayside", `{"properties":{"anonymousPullEnabled":true}}`)
		if _, err := w.importing(clerk, "harbor", at("")); err != nil {
			t.Errorf("from a registry open to everybody: %v", err)
		}
	})
}

// An import that was begun goes on as long as it might begin: what is taken away
// from who has asked, from what opened the source or by the registries' rules
// ends it. Else whoever keeps the importers busy would have today's right to what
// is pushed tomorrow.
//
// Published failure 9.
func TestAnImportGoesOnAsLongAsItMay(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		d, harbor, quay := registry.NewDirectory(w.store, w.c), arm.MustID(registries+"harbor"), registries+"quayside"
		credentials, err := w.act(quay, "listCredentials", `{}`)
		if err != nil {
			t.Fatal(err)
		}
		one, _ := credentials["passwords"].([]any)[0].(resource.Object)
		secret, _ := one["value"].(string)
		begin := func(by resource.Caller, body string) registry.Import {
			t.Helper()
			by.Credential = "k1"
			im, err := w.importing(by, "harbor", body)
			if err != nil || im.By != (registry.ImportCaller{ObjectID: by.ObjectID, Credential: "k1"}) {
				t.Fatalf("%+v: %v", im, err)
			}
			return im
		}
		at := strings.Replace(quayBody, `"resourceId":"`+quay+`"`, `"registryUri":"quayside.cr.cove.internal"`, 1)
		byRole, byPassword := begin(owner, quayBody), begin(clerk, strings.Replace(at, `"sourceImage"`, `"credentials":{"username":"quayside","password":"`+secret+`"},"sourceImage"`, 1))
		abroad := begin(clerk, `{"source":{"registryUri":"registry.example.com","sourceImage":"app:1"}}`)
		w.patch(quay, `{"properties":{"anonymousPullEnabled":true}}`)
		openTo := begin(clerk, at)
		if openTo.Source.Opened == "" || byPassword.Source.Opened == "" || byRole.Source.Opened != "" {
			t.Errorf("opened by %q, %q, %q", openTo.Source.Opened, byPassword.Source.Opened, byRole.Source.Opened)
		}
		check := func(what string, by resource.Caller, want map[*registry.Import]bool) {
			t.Helper()
			for im, ok := range want {
				who := by
				if who.May == nil {
					if who = clerk; im == &byRole {
						who = owner
					}
				}
				if err := d.ImportAllowed(t.Context(), harbor, *im, who); (err == nil) != ok || err != nil && !fault.Is(err, fault.Denied) {
					t.Errorf("%s, %+v: %v", what, im.Source, err)
				}
			}
		}
		all := func(role, password, open, abroadToo bool) map[*registry.Import]bool {
			return map[*registry.Import]bool{&byRole: role, &byPassword: password, &openTo: open, &abroad: abroadToo}
		}
		as := resource.Caller{} // whoever has asked
		check("nothing has changed", as, all(true, true, true, true))
		check("the right to pull is gone", clerk, map[*registry.Import]bool{&byRole: false})
		nothing := resource.Caller{ObjectID: "clerk", May: func(action string, _ arm.ID) bool { return strings.HasSuffix(action, "/pull/read") }}
		check("the right to import is gone", nothing, all(false, false, false, false))
		w.patch(quay, `{"properties":{"anonymousPullEnabled":false}}`)
		check("anonymous pull is off", as, all(true, true, false, true))
		if _, err := w.act(quay, "regenerateCredential", `{"name":"password"}`); err != nil {
			t.Fatal(err)
		}
		check("the password is renewed", as, all(true, false, false, true))
		w.patch(quay, `{"properties":{"publicNetworkAccess":"Disabled","policies":{"exportPolicy":{"status":"disabled"}}}}`)
		check("nothing is exported", as, all(false, false, false, true))
		w.patch(quay, `{"properties":{"publicNetworkAccess":"Enabled","policies":{"exportPolicy":{"status":"enabled"}}}}`)
		check("again", as, all(true, false, false, true))
		w.remove(quay)
		w.put(quay, `{"location":"eastus","sku":{"name":"Premium"}}`)
		check("another registry has the source's name", as, all(false, false, false, true))
		w.remove(harbor.String())
		if err := d.ImportAllowed(t.Context(), harbor, abroad, owner); !errors.Is(err, resource.ErrUnknown) {
			t.Errorf("without a target: %v", err)
		}
	})
}

// Where conditions decide about the source's content, a role that lists actions
// is no way around them.
func TestImportObeysTheSourcesPermissionMode(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		quay := arm.MustID(registries + "quayside")
		if _, err := w.Patch(t.Context(), owner, quay, object(t, `{"properties":{"roleAssignmentMode":"AbacRepositoryPermissions"}}`), resource.Condition{}); err != nil {
			t.Fatal(err)
		}
		all := func(string, arm.ID) bool { return true }
		for name, c := range map[string]struct {
			data func(string, arm.ID, string) bool
			ok   bool
		}{
			"actions only":               {nil, false},
			"data of another repository": {func(_ string, _ arm.ID, repo string) bool { return repo == "other" }, false},
			"data of this one": {func(action string, at arm.ID, repo string) bool {
				return action == "Microsoft.ContainerRegistry/registries/repositories/content/read" && at.Equal(quay) && repo == "app"
			}, true},
		} {
			by := resource.Caller{ObjectID: "x", Name: "x", May: all, MayData: c.data}
			for _, source := range []string{`"resourceId":"` + quay.String() + `"`, `"registryUri":"quayside.cr.cove.internal"`} {
				_, err := w.importing(by, "harbor", `{"source":{`+source+`,"sourceImage":"app:1"}}`)
				if (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Denied) {
					t.Errorf("%s, %s: %v", name, source, err)
				}
			}
		}
	})
}

// row:95: export policy and network rules with bypass None are obeyed by import.
func TestImportObeysTheRegistriesRules(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		w.patch(registries+"quayside", `{"properties":{"publicNetworkAccess":"Disabled"}}`)
		if _, err := w.importing(owner, "harbor", quayBody); err != nil {
			t.Errorf("a closed source with bypass on: %v", err)
		}
		w.patch(registries+"quayside", `{"properties":{"networkRuleBypassOptions":"None"}}`)
		if _, err := w.importing(owner, "harbor", quayBody); !errors.Is(err, registry.ErrRestricted) {
			t.Errorf("a closed source with bypass off: %v", err)
		}
		back := strings.Replace(quayBody, "quayside", "harbor", 1)
		if _, err := w.importing(owner, "quayside", back); !errors.Is(err, registry.ErrRestricted) {
			t.Errorf("a closed target with bypass off: %v", err)
		}
		w.patch(registries+"quayside", `{"properties":{"networkRuleBypassOptions":"AzureServices","policies":{"exportPolicy":{"status":"disabled"}}}}`)
		if _, err := w.importing(owner, "harbor", quayBody); !errors.Is(err, registry.ErrNoExport) {
			t.Errorf("from a registry that exports nothing: %v", err)
		}
		if _, err := w.importing(owner, "quayside", quayBody); err != nil {
			t.Errorf("within it: %v", err)
		}
	})
}

func TestImportRefusesATagThatExists(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		c := w.c
		uid := w.stored(registries + "harbor").UID
		c.Tagged = func(_ context.Context, of string, repo oci.Repo, tag oci.Tag) (bool, error) {
			return of == uid && repo.String() == "team/app" && tag.String() == "1", nil
		}
		var err error
		if w.Service, err = resource.New(resource.Config{Store: w.store, Types: []resource.Type{registry.Type(c)}, Locations: []string{"eastus"}}); err != nil {
			t.Fatal(err)
		}
		body := `{"source":{"registryUri":"registry.example.com","sourceImage":"team/app:1"},"targetTags":["new/app:1","team/app:1"]}`
		if _, err := w.importing(owner, "harbor", body); !errors.Is(err, registry.ErrTagExists) || !strings.HasPrefix(err.Error(), "Tag team/app:1 already exists in target registry.") {
			t.Errorf("%v", err)
		}
		if _, err := w.importing(owner, "harbor", strings.Replace(body, `"source"`, `"mode":"Force","source"`, 1)); err != nil {
			t.Errorf("by force: %v", err)
		}
	})
}

// The password for a source is sealed for the target and the source: written
// beside another host's name in the database, it does not open.
func TestImportSealsThePassword(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := openImport(t, db)
		im, err := w.importing(owner, "harbor", `{"source":{"registryUri":"registry.example.com","sourceImage":"app:1","credentials":{"password":"correct-horse"}}}`)
		if err != nil {
			t.Fatal(err)
		}
		if im.Source.Username != "00000000-0000-0000-0000-000000000000" || strings.Contains(im.Source.Password, "horse") || im.Source.Password == "" {
			t.Errorf("%+v", im.Source)
		}
		if got, err := im.Password(w.c.Sealer); err != nil || got != "correct-horse" {
			t.Errorf("opened: %v", err)
		}
		im.Source.Host = "evil.example.com"
		if got, err := im.Password(w.c.Sealer); err == nil {
			t.Errorf("opened for another host: %q", got)
		}
	})
}
