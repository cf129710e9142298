package resource_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/task"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

const (
	sub     = "/subscriptions/s1"
	group   = sub + "/resourceGroups/Docks"
	harbors = group + "/providers/Test.Sea/harbors/"
	ships   = group + "/providers/Test.Sea/ships/"
)

var (
	owner  = resource.Caller{ObjectID: "owner", May: func(string, arm.ID) bool { return true }}
	always = resource.Condition{}
)

// The sea has harbors with berths, and ships that lie in a berth. A berth with
// a ship in it cannot go.
func sea() []resource.Type {
	return []resource.Type{
		{
			Name: "Test.Sea/harbors", Located: true, Unique: true,
			ReadOnly: []string{"properties.depth", "hidden"}, Secret: []string{"hidden", "properties.password"},
			Check: func(c *resource.Change) (problems []fault.Field) {
				for _, name := range []string{"light", "pilot"} {
					if v, ok := resource.Lookup(c.New.Body, "properties."+name).(string); ok && v == "broken" {
						problems = append(problems, fault.Field{Path: "properties." + name, Message: "is broken"})
					}
				}
				return problems
			},
			Put: func(_ context.Context, _ resource.Tx, c *resource.Change) error {
				if c.Old == nil {
					resource.Assign(c.New.Body, "properties.depth", 12) // no json.Number: what is stored is what is read
					resource.Assign(c.New.Body, "hidden", resource.Object{"chart": "x"})
				}
				return nil
			},
			Delete: func(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
				return tx.Enqueue(ctx, task.New{Kind: "dredge", Key: doc.UID})
			},
			Needs: map[string]string{"salute": "Test.Sea/harbors/enter/action"},
			Actions: map[string]resource.Action{
				"salute": func(context.Context, resource.Tx, resource.Doc, resource.Caller, resource.Object) (resource.Object, error) {
					return nil, nil
				},
				"signal": func(_ context.Context, _ resource.Tx, doc resource.Doc, by resource.Caller, body resource.Object) (resource.Object, error) {
					return resource.Object{"to": doc.ID.Name(), "by": by.ObjectID, "flag": body["flag"]}, nil
				},
			},
		},
		{
			Name: "Test.Sea/harbors/berths",
			Delete: func(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
				all, err := tx.List(ctx, resource.Query{Type: "Test.Sea/ships"})
				if err != nil {
					return err
				}
				for _, ship := range all {
					if at, _ := resource.Lookup(ship.Body, "properties.berth").(string); strings.EqualFold(at, doc.ID.String()) {
						return fault.Newf(fault.Conflict, "%s lies there", ship.ID.Name())
					}
				}
				return nil
			},
		},
		{Name: "Test.Sea/ships"},
		{
			Name: "Test.Sea/beacons",
			// Worked out on reading, in a place that callers may write.
			Show: func(_ context.Context, _ resource.Reader, _ resource.Doc, body resource.Object) error {
				resource.Assign(body, "properties.tides", []any{resource.Object{"high": 7}})
				return nil
			},
		},
		{Name: "Test.Sea/wrecks", NoPut: true, NoDelete: true},
		{Name: "Test.Law/grants", Extension: true},
		{Name: "Test.Sea/harbors/chains", Pins: true},
	}
}

type fixture struct {
	*resource.Service
	store *store.Resources
	db    *store.DB
	t     *testing.T
}

func open(t *testing.T, db *store.DB) *fixture {
	t.Helper()
	r := store.NewResources(db)
	s, err := resource.New(resource.Config{Store: r, Types: sea(), Locations: []string{"westeurope", "eastus"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(t.Context(), resource.First{Tenant: "t1", Subscription: "s1"}); err != nil {
		t.Fatal(err)
	}
	f := &fixture{s, r, db, t}
	f.put(group, `{"location":"West Europe"}`)
	return f
}

func (f *fixture) put(id, body string) resource.Result {
	f.t.Helper()
	r, err := f.Put(f.t.Context(), owner, arm.MustID(id), object(f.t, body), always)
	if err != nil {
		f.t.Fatalf("PUT %s: %v", id, err)
	}
	return r
}

func (f *fixture) get(id string) resource.Result {
	f.t.Helper()
	r, err := f.Get(f.t.Context(), arm.MustID(id))
	if err != nil {
		f.t.Fatalf("GET %s: %v", id, err)
	}
	return r
}

// everything is all that is stored, and how often something was changed.
func (f *fixture) everything() (keys []string, changes int) {
	f.t.Helper()
	err := f.store.View(f.t.Context(), func(r resource.Reader) error {
		docs, err := r.List(f.t.Context(), resource.Query{})
		for _, d := range docs {
			keys = append(keys, d.ID.Key())
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	list, err := f.db.Changes(f.t.Context(), 0, 100_000)
	if err != nil {
		f.t.Fatal(err)
	}
	return keys, len(list)
}

// object and code take testing.TB for rapid's sake.
func object(t interface{ Fatal(...any) }, text string) resource.Object {
	o, err := resource.Decode([]byte(text))
	if err != nil {
		t.Fatal(text, err)
	}
	return o
}

func fields(err error) []fault.Field {
	if e, ok := errors.AsType[*fault.Error](err); ok {
		return e.Fields
	}
	return nil
}

func code(err error) string { return arm.Describe(err).Error.Code }

func TestPutKeepsWhatNoTypeKnows(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		made := f.put(harbors+"Rotterdam", `{"location":"West Europe","tags":{"a":"b"},"plan":{"z":1},
			"properties":{"future":{"list":[3,1,{"x":1.50},null],"big":12345678901234567890,"e":1e3},"depth":99,"gone":null}}`)
		if !made.Created {
			t.Error("a new resource was not called created")
		}
		got := f.get(strings.ToUpper(harbors + "rotterdam"))
		want := object(t, `{"id":"`+harbors+`Rotterdam","name":"Rotterdam","type":"Test.Sea/harbors","etag":"`+made.ETag+`",
			"location":"westeurope","tags":{"a":"b"},"plan":{"z":1},
			"properties":{"future":{"list":[3,1,{"x":1.50},null],"big":12345678901234567890,"e":1e3},"depth":12,"provisioningState":"Succeeded"}}`)
		if d := cmp.Diff(want, got.Body); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(made.Body, got.Body); d != "" {
			t.Errorf("the answer to the PUT is not what is read:\n%s", d)
		}
	})
}

// az update --set writes what it does not know of beside the properties, where
// nothing would look for it: it would be shown as if it had been obeyed.
func TestWhatNoResourceHasIsRefused(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		made := f.put(harbors+"Rotterdam", `{"location":"westeurope"}`)
		id, beacon := arm.MustID(harbors+"Rotterdam"), arm.MustID(group+"/providers/Test.Sea/beacons/fastnet")
		for sent, want := range map[string][]string{
			`{"location":"westeurope","depthLimit":3}`:                                                                  {"depthLimit"},
			`{"location":"westeurope","depthLimit":null}`:                                                               nil,
			`{"location":"westeurope","loginServer":"evil.example","Depth":1,"tags":{"a":1}}`:                           {"Depth", "loginServer", "tags.a"},
			`{"location":"westeurope","zones":["1"],"extendedLocation":{"type":"EdgeZone"}}`:                            {"zones", "extendedLocation"},
			`{"location":"westeurope","zones":[],"TAGS":{"a":"b"},"SystemData":{},"ETag":"mine","resourceGroup":"sea"}`: nil,
		} {
			for verb, write := range map[string]func() error{
				"PUT":   func() error { _, err := f.Put(t.Context(), owner, id, object(t, sent), always); return err },
				"PATCH": func() error { _, err := f.Patch(t.Context(), owner, id, object(t, sent), always); return err },
			} {
				var got []string
				for _, p := range fields(write()) {
					got = append(got, p.Path)
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s %s: problems at %q, want %q", verb, sent, got, want)
				}
			}
		}
		if got := f.get(harbors + "Rotterdam"); got.Body["loginServer"] != nil || got.Body["Depth"] != nil {
			t.Errorf("what was refused is shown: %v, made as %v", got.Body, made.Body)
		}
		// What has no location has no tags: there is nowhere to find them by.
		_, err := f.Put(t.Context(), owner, beacon, object(t, `{"properties":{"height":54},"tags":{"a":"b"}}`), always)
		if at := fields(err); len(at) != 1 || at[0].Path != "tags" {
			t.Errorf("tags on what has none: %v", err)
		}
	})
}

// A client that PUTs what it last GOT, as Terraform does, changes nothing:
// no property lost, no list reordered, no new ETag, no row in the outbox.
func TestPuttingWhatWasGotChangesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		names := rapid.SampledFrom([]string{"a", "B", "depth", "password", "id", "etag", "name", "provisioningState", "x.y", "é", "properties"})
		value := rapid.Deferred(func() *rapid.Generator[any] { return anything(names, 3) })
		n := 0
		rapid.Check(t, func(rt *rapid.T) {
			n++
			id := arm.MustID(fmt.Sprintf("%sh%d", harbors, n))
			body := rapid.MapOfN(rapid.SampledFrom([]string{"kind", "plan", "managedBy", "id", "etag", "name"}), value, 0, 5).Draw(rt, "body")
			body["properties"] = rapid.MapOfN(names, value, 0, 5).Draw(rt, "properties")
			body["location"] = "eastus"
			encoded, err := resource.Encode(body)
			if err != nil {
				rt.Fatal(err)
			}
			if _, err := f.Put(t.Context(), owner, id, object(rt, string(encoded)), always); err != nil {
				rt.Fatal(err)
			}
			first, err := f.Get(t.Context(), id)
			if err != nil {
				rt.Fatal(err)
			}
			_, before := f.everything()
			again, err := f.Put(t.Context(), owner, id, first.Body, resource.Condition{IfMatch: first.ETag})
			if err != nil {
				rt.Fatal(err)
			}
			second, err := f.Get(t.Context(), id)
			if err != nil {
				rt.Fatal(err)
			}
			if d := cmp.Diff(first, second); d != "" || again.ETag != first.ETag || again.Created {
				rt.Fatalf("it changed:\n%s", d)
			}
			if _, after := f.everything(); after != before {
				rt.Fatalf("%d rows were written for no change", after-before)
			}
		})
	})
}

// What a type shows beyond what it stores may be sent back: it is not stored,
// and the ETag stays.
func TestWhatIsShownIsNotStored(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		id := arm.MustID(group + "/providers/Test.Sea/beacons/fastnet")
		made, err := f.Put(t.Context(), owner, id, object(t, `{"properties":{"height":54}}`), always)
		if err != nil {
			t.Fatal(err)
		}
		full, err := resource.Encode(made.Body)
		if err != nil {
			t.Fatal(err)
		}
		for _, sent := range []string{
			string(full),
			// As a client sends it that keeps no ids and spells out what is null.
			`{"properties":{"tides":[{"high":7}],"height":54,"range":null},"tags":null}`,
		} {
			again, err := f.Put(t.Context(), owner, id, object(t, sent), resource.Condition{IfMatch: made.ETag})
			if err != nil || again.ETag != made.ETag {
				t.Fatalf("%s: ETag %s of %s, %v", sent, again.ETag, made.ETag, err)
			}
			err = f.store.View(t.Context(), func(r resource.Reader) error {
				doc, err := r.Get(t.Context(), id)
				if err == nil && resource.Lookup(doc.Body, "properties.tides") != nil {
					t.Errorf("%s: what is shown was stored", sent)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		// One tide changed is the caller's own word.
		other, err := f.Put(t.Context(), owner, id, object(t, `{"properties":{"tides":[],"height":54}}`), always)
		if err != nil || other.ETag == made.ETag {
			t.Errorf("a change was not written: %v", err)
		}
	})
}

func anything(names *rapid.Generator[string], depth int) *rapid.Generator[any] {
	leaves := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.Bool().AsAny(), rapid.String().AsAny(),
		rapid.Custom(func(t *rapid.T) json.Number { return json.Number(fmt.Sprint(rapid.Float64().Draw(t, "n"))) }).
			Filter(func(n json.Number) bool { return json.Valid([]byte(n)) }).AsAny(),
	}
	if depth > 0 {
		inner := rapid.Deferred(func() *rapid.Generator[any] { return anything(names, depth-1) })
		leaves = append(leaves, rapid.MapOfN(names, inner, 0, 3).AsAny(), rapid.SliceOfN(inner, 0, 3).AsAny())
	}
	return rapid.OneOf(leaves...)
}

func TestPatchChangesWhatItHas(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		id := harbors + "rotterdam"
		f.put(id, `{"location":"eastus","tags":{"a":"1","b":"2"},"properties":{"light":"on","pilot":"yes","list":[1,2],"deep":{"x":1,"y":2}}}`)
		patch := func(body string) resource.Object {
			t.Helper()
			r, err := f.Patch(t.Context(), owner, arm.MustID(id), object(t, body), always)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(r.Body, f.get(id).Body); d != "" {
				t.Errorf("the answer is not what is read:\n%s", d)
			}
			return r.Body
		}
		got := patch(`{"tags":{"a":"3"},"properties":{"light":"off","pilot":null,"list":[3],"deep":{"x":null,"z":3},"depth":1}}`)
		for path, want := range map[string]any{
			"tags": object(t, `{"a":"3"}`), "location": "eastus", "properties.light": "off", "properties.pilot": nil,
			"properties.list": []any{json.Number("3")}, "properties.deep": object(t, `{"y":2,"z":3}`), "properties.depth": json.Number("12"),
		} {
			if v := resource.Lookup(got, path); !reflect.DeepEqual(v, want) {
				t.Errorf("%s is %v, want %v", path, v, want)
			}
		}
		if tags := patch(`{"tags":{}}`)["tags"]; len(tags.(resource.Object)) != 0 {
			t.Errorf("an empty set of tags left %v", tags)
		}
		// A property in another case is that property, not another beside it.
		got = patch(`{"PROPERTIES":{"Light":"dim","DEPTH":1}}`)
		if v := resource.Lookup(got, "properties.light"); v != "dim" || resource.Lookup(got, "properties.depth") != json.Number("12") {
			t.Errorf("the patch in another case left %v", got)
		}
		if _, err := f.Patch(t.Context(), owner, arm.MustID(harbors+"nowhere"), resource.Object{}, always); code(err) != "ResourceNotFound" {
			t.Errorf("a patch of what is not there: %v", err)
		}
	})
}

// Secrets are never shown, so a client that sends back what it saw cannot send
// them: they stay.
//
// Published failure 12.
func TestSecretsAndReadOnlyPropertiesAreTheServers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		id := harbors + "rotterdam"
		f.put(id, `{"location":"eastus","hidden":{"chart":"mine"},"Hidden":{"chart":"mine"},"properties":{"password":"abc","Depth":3}}`)
		stored := func(path string) any {
			var v any
			err := f.store.View(t.Context(), func(r resource.Reader) error {
				doc, err := r.Get(t.Context(), arm.MustID(id))
				v = resource.Lookup(doc.Body, path)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		got := f.get(id).Body
		if text, _ := json.Marshal(got); strings.Contains(string(text), "abc") || strings.Contains(strings.ToLower(string(text)), "chart") {
			t.Errorf("shown: %s", text)
		}
		f.put(id, `{"location":"eastus","tags":{"new":"yes"}}`)
		if stored("properties.password") != "abc" || stored("hidden.chart") != "x" || stored("properties.depth") != json.Number("12") {
			t.Error("a PUT without them lost the secrets or the computed values")
		}
		f.put(id, `{"location":"eastus","properties":{"password":"def"}}`)
		if stored("properties.password") != "def" {
			t.Error("a secret that callers may set was not set")
		}
	})
}

func TestTwoWritersMeet(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		id := arm.MustID(harbors + "rotterdam")
		put := func(body string, c resource.Condition) (resource.Result, error) {
			return f.Put(t.Context(), owner, id, object(t, `{"location":"eastus","properties":{"light":"`+body+`"}}`), c)
		}
		if _, err := put("a", resource.Condition{IfMatch: "*"}); code(err) != "PreconditionFailed" {
			t.Errorf("If-Match of what is not there: %v", err)
		}
		first, err := put("a", resource.Condition{IfNoneMatch: "*"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := put("b", resource.Condition{IfNoneMatch: "*"}); !errors.Is(err, resource.ErrStale) {
			t.Errorf("If-None-Match: * of what is there: %v", err)
		}
		second, err := put("b", resource.Condition{IfMatch: `"` + first.ETag + `"`})
		if err != nil || second.ETag == first.ETag {
			t.Fatalf("the writer who read last: %v", err)
		}
		for _, stale := range []string{first.ETag, `"` + first.ETag + `"`, `W/"` + first.ETag + `"`, `""`, "x"} {
			if _, err := put("c", resource.Condition{IfMatch: stale}); !errors.Is(err, resource.ErrStale) || !fault.Is(err, fault.Stale) {
				t.Errorf("If-Match: %s of a changed resource: %v", stale, err)
			}
			if _, err := f.Patch(t.Context(), owner, id, resource.Object{"tags": resource.Object{}}, resource.Condition{IfMatch: stale}); !errors.Is(err, resource.ErrStale) {
				t.Errorf("PATCH with If-Match: %s: %v", stale, err)
			}
			if _, err := f.Delete(t.Context(), owner, id, resource.Condition{IfMatch: stale}); !errors.Is(err, resource.ErrStale) {
				t.Errorf("DELETE with If-Match: %s: %v", stale, err)
			}
		}
		if v := resource.Lookup(f.get(id.String()).Body, "properties.light"); v != "b" {
			t.Errorf("it is %v, want b", v)
		}
		// Of many who read the same, one wins.
		seen := second.ETag
		var won, lost int
		var mu sync.Mutex
		var wait sync.WaitGroup
		for i := range 8 {
			wait.Go(func() {
				_, err := put(fmt.Sprint(i), resource.Condition{IfMatch: seen})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case errors.Is(err, resource.ErrStale):
					lost++
				default:
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if won != 1 || lost != 7 {
			t.Errorf("%d won and %d lost", won, lost)
		}
		if gone, err := f.Delete(t.Context(), owner, id, resource.Condition{IfMatch: f.get(id.String()).ETag}); err != nil || !gone {
			t.Errorf("DELETE with the right ETag: %v", err)
		}
		if _, err := f.Delete(t.Context(), owner, id, resource.Condition{IfMatch: "*"}); !errors.Is(err, resource.ErrStale) {
			t.Errorf("DELETE with If-Match of what is gone: %v", err)
		}
	})
}

func TestRefusalsStoreNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		f.put(harbors+"rotterdam", `{"location":"eastus"}`)
		f.put(harbors+"rotterdam/berths/one", `{}`)
		keys, changes := f.everything()
		tags := `"tags":{`
		for i := range 51 {
			tags += fmt.Sprintf(`"t%d":"",`, i)
		}
		tags = strings.TrimSuffix(tags, ",") + "}"
		for _, c := range []struct{ id, body, code, message string }{
			{"/subscriptions/s2/resourceGroups/g", `{"location":"eastus"}`, "SubscriptionNotFound", "'s2'"},
			{"/subscriptions/s2/resourceGroups/g/providers/Test.Sea/ships/x", `{}`, "SubscriptionNotFound", "'s2'"},
			{sub + "/resourceGroups/other/providers/Test.Sea/harbors/x", `{"location":"eastus"}`, "ResourceGroupNotFound", "'other'"},
			{harbors + "nowhere/berths/one", `{}`, "ParentResourceNotFound", "harbors/nowhere"},
			{harbors + "nowhere/providers/Test.Law/grants/g", `{}`, "ParentResourceNotFound", "nowhere"},
			{sub + "/providers/Test.Sea/ships/x", `{}`, "InvalidResourceType", "lies in a resource group"},
			{harbors + "rotterdam/providers/Test.Sea/ships/x", `{}`, "InvalidResourceType", "lies in a resource group"},
			{"/providers/Test.Sea/ships/x", `{}`, "InvalidResourceType", "lies in a resource group"},
			{group + "/providers/Test.Sea/submarines/x", `{}`, "InvalidResourceType", "submarines"},
			{"/providers/Cove.Names/Test.Sea.harbors/antwerp", `{"holder":"me"}`, "InvalidResourceType", "Cove.Names"},
			{group + "/providers/Test.Sea/wrecks/x", `{}`, "MethodNotAllowed", "wrecks"},
			{"/subscriptions/s2", `{}`, "MethodNotAllowed", "subscriptions"},
			{sub + "/resourceGroups/bad.", `{"location":"eastus"}`, "InvalidRequestContent", "name: "},
			{sub + "/resourceGroups/" + strings.Repeat("g", 91), `{"location":"eastus"}`, "InvalidRequestContent", "name: "},
			{ships + strings.Repeat("x", 81), `{}`, "InvalidRequestContent", "name: "},
			{ships + "a,b", `{}`, "InvalidRequestContent", "name: "},
			{harbors + "new", `{}`, "LocationRequired", "'westeurope,eastus'"},
			{harbors + "new", `{"location":"moon"}`, "LocationNotAvailableForResourceType", "'moon' is not available for resource type 'Test.Sea/harbors'. List of available regions for the resource type is 'westeurope,eastus'."},
			{sub + "/resourceGroups/new", `{"location":"moon"}`, "LocationNotAvailableForResourceGroup", "is not available for resource group"},
			{harbors + "new", `{"location":7}`, "InvalidRequestContent", "location: must be a string"},
			{harbors + "new", `{"location":"eastus","Location":"westeurope"}`, "InvalidRequestContent", "given twice"},
			{harbors + "rotterdam", `{"location":"westeurope"}`, "InvalidResourceLocation", "cannot be moved"},
			{harbors + "new", `{"location":"eastus","properties":[]}`, "InvalidRequestContent", "properties: must be an object"},
			{harbors + "rotterdam", `{"properties":"x"}`, "InvalidRequestContent", "properties: must be an object"},
			{harbors + "new", `{"location":"eastus","tags":[]}`, "InvalidRequestContent", "tags: "},
			{harbors + "new", `{"location":"eastus","tags":{"a":1}}`, "InvalidRequestContent", "tags.a: must be a string"},
			{harbors + "new", `{"location":"eastus","tags":{"a":"","A":""}}`, "InvalidRequestContent", "case only"},
			{harbors + "new", `{"location":"eastus","tags":{"a":"` + strings.Repeat("x", 257) + `"}}`, "InvalidRequestContent", "256"},
			{harbors + "new", `{"location":"eastus",` + tags + `}`, "InvalidRequestContent", "51 tags"},
			{harbors + "new", `{"location":"moon","properties":{"light":"broken","pilot":"broken"}}`, "InvalidRequestContent", "location: "},
		} {
			_, err := f.Put(t.Context(), owner, arm.MustID(c.id), object(t, c.body), always)
			if code(err) != c.code || !strings.Contains(fmt.Sprint(err), c.message) {
				t.Errorf("PUT %s %.80s: %v (%s), want %s with %q", c.id, c.body, err, code(err), c.code, c.message)
			}
		}
		_, err := f.Put(t.Context(), owner, arm.MustID(harbors+"bad,name"), object(t, `{"location":"moon","properties":{"light":"broken","pilot":"broken"}}`), always)
		var paths []string
		for _, d := range arm.Describe(err).Error.Details {
			paths = append(paths, d.Target)
		}
		if want := []string{"name", "location", "properties.light", "properties.pilot"}; !slices.Equal(paths, want) {
			t.Errorf("the problems are of %v, want all of %v", paths, want)
		}
		for _, id := range []string{group + "/providers/Test.Sea/wrecks/x", sub} {
			if _, err := f.Delete(t.Context(), owner, arm.MustID(id), always); code(err) != "MethodNotAllowed" {
				t.Errorf("DELETE %s: %v", id, err)
			}
		}
		if k, n := f.everything(); !slices.Equal(k, keys) || n != changes {
			t.Errorf("the refusals left %v and %d changes more", k, n-changes)
		}
	})
}

func TestDeleteTakesAllThatIsBelow(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		empty, _ := f.everything()
		f.put(harbors+"rotterdam", `{"location":"eastus"}`)
		f.put(harbors+"rotterdam/berths/one", `{}`)
		f.put(harbors+"rotterdam/berths/two", `{}`)
		f.put(harbors+"rotterdam/providers/Test.Law/grants/g", `{}`)
		f.put(group+"/providers/Test.Law/grants/g", `{}`)
		f.put(sub+"/providers/Test.Law/grants/g", `{}`)
		f.put(ships+"anna", `{"properties":{"berth":"`+harbors+`Rotterdam/berths/One"}}`)
		f.put(sub+"/resourceGroups/Docks2", `{"location":"eastus"}`) // no part of Docks
		full, changes := f.everything()

		// The ship holds its berth, so nothing of the harbor goes.
		if _, err := f.Delete(t.Context(), owner, arm.MustID(harbors+"rotterdam"), always); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "anna") {
			t.Errorf("a harbor with a ship in it: %v", err)
		}
		if k, n := f.everything(); !slices.Equal(k, full) || n != changes {
			t.Errorf("a refused deletion left %v", k)
		}
		f.put(sub+"/resourceGroups/Docks2/providers/Test.Sea/harbors/antwerp", `{"location":"eastus"}`)
		antwerp := arm.MustID(sub + "/resourceGroups/Docks2/providers/Test.Sea/harbors/antwerp")
		f.put(antwerp.String()+"/chains/gate", `{}`)
		if _, err := f.Delete(t.Context(), owner, antwerp, always); !errors.Is(err, resource.ErrNested) {
			t.Errorf("a harbor behind a chain: %v", err)
		}
		if _, err := f.Delete(t.Context(), owner, antwerp.Parent(), always); err != nil {
			t.Errorf("the group of a harbor behind a chain: %v", err)
		}
		f.put(sub+"/resourceGroups/Docks2", `{"location":"eastus"}`)
		// With the whole group the ship goes too, whichever comes first.
		if gone, err := f.Delete(t.Context(), owner, arm.MustID(strings.ToLower(group)), always); err != nil || !gone {
			t.Fatalf("the group: %v", err)
		}
		keys, _ := f.everything()
		want := slices.DeleteFunc(append(slices.Clone(empty), strings.ToLower(sub+"/resourceGroups/Docks2"), strings.ToLower(sub+"/providers/Test.Law/grants/g")),
			func(k string) bool { return k == strings.ToLower(group) })
		slices.Sort(want)
		if !slices.Equal(keys, want) {
			t.Errorf("left: %v\nwant: %v", keys, want)
		}
		tasks, err := f.db.Claim(t.Context(), []string{"dredge"}, 10, time.Now().Add(time.Minute), time.Minute)
		if err != nil || len(tasks) != 2 {
			t.Errorf("%d tasks of the harbor's type, %v: its own deletion was not asked", len(tasks), err)
		}
		if gone, err := f.Delete(t.Context(), owner, arm.MustID(harbors+"rotterdam"), always); gone || code(err) != "ResourceGroupNotFound" {
			t.Errorf("something in a group that is gone: %v", err)
		}
		f.put(group, `{"location":"eastus"}`)
		if gone, err := f.Delete(t.Context(), owner, arm.MustID(harbors+"rotterdam"), always); gone || err != nil {
			t.Errorf("what is not there: %v %v", gone, err)
		}
	})
}

func TestNamesAreUniqueInTheDeployment(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		f.put(sub+"/resourceGroups/Other", `{"location":"eastus"}`)
		elsewhere := sub + "/resourceGroups/Other/providers/Test.Sea/harbors/"
		body := object(t, `{"location":"eastus"}`)
		var made, taken int
		var mu sync.Mutex
		var wait sync.WaitGroup
		for i := range 8 { // at once, from two groups, in two spellings
			wait.Go(func() {
				id := arm.MustID([]string{harbors + "Rotterdam", elsewhere + "rotterdam"}[i%2])
				_, err := f.Put(t.Context(), owner, id, body, resource.Condition{IfNoneMatch: "*"})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					made++
				case errors.Is(err, resource.ErrTaken) && code(err) == "AlreadyInUse", errors.Is(err, resource.ErrStale):
					taken++
				default:
					t.Error(err)
				}
			})
		}
		wait.Wait()
		if made != 1 || taken != 7 {
			t.Fatalf("%d made the name theirs, %d were told that it is taken", made, taken)
		}
		if reason, _, err := f.NameAvailable(t.Context(), "test.sea/HARBORS", "ROTTERDAM"); reason != "AlreadyExists" || err != nil {
			t.Errorf("a taken name: %s %v", reason, err)
		}
		if reason, _, err := f.NameAvailable(t.Context(), "Test.Sea/harbors", "no,name"); reason != "Invalid" || err != nil {
			t.Errorf("a bad name: %s %v", reason, err)
		}
		for _, id := range []string{harbors + "rotterdam", elsewhere + "rotterdam"} {
			if _, err := f.Delete(t.Context(), owner, arm.MustID(id), always); err != nil {
				t.Fatal(err)
			}
		}
		if reason, _, err := f.NameAvailable(t.Context(), "Test.Sea/harbors", "rotterdam"); reason != "" || err != nil {
			t.Errorf("a name whose holder is gone: %s %v", reason, err)
		}
		first := f.put(elsewhere+"rotterdam", `{"location":"eastus"}`)
		if again := f.put(elsewhere+"rotterdam", `{"location":"eastus","tags":{"x":"y"}}`); again.Created || first.ETag == again.ETag {
			t.Error("writing one's own resource again made another")
		}
	})
}

func TestListsPageByPage(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		f.put(sub+"/resourceGroups/Docks2", `{"location":"eastus"}`)
		var want []string
		for i := range 25 {
			name := fmt.Sprintf("ship%02d", i)
			want = append(want, name)
			f.put(ships+name, `{"properties":{"n":`+fmt.Sprint(i)+`}}`)
		}
		f.put(harbors+"rotterdam", `{"location":"eastus"}`)
		f.put(harbors+"rotterdam/berths/one", `{}`)
		f.put(group+"/providers/Test.Law/grants/g", `{}`)
		f.put(sub+"/resourceGroups/Docks2/providers/Test.Sea/ships/stranger", `{}`)
		all := func(q resource.ListQuery) (names []string, pages int) {
			t.Helper()
			for {
				p, err := f.List(t.Context(), q)
				if err != nil {
					t.Fatal(err)
				}
				pages++
				for _, o := range p.Items {
					names = append(names, o["name"].(string))
				}
				if p.Next == "" {
					return names, pages
				}
				q.Token = p.Next
			}
		}
		if got, pages := all(resource.ListQuery{Scope: arm.MustID(group), Type: "test.sea/SHIPS", Limit: 10}); !slices.Equal(got, want) || pages != 3 {
			t.Errorf("%d pages of %v", pages, got)
		}
		if got, pages := all(resource.ListQuery{Scope: arm.MustID(group), Type: "Test.Sea/ships", Limit: 25}); !slices.Equal(got, want) || pages != 1 {
			t.Errorf("a page that fits exactly: %d pages of %v", pages, got)
		}
		if got, _ := all(resource.ListQuery{Scope: arm.MustID(sub), Type: "Test.Sea/ships", Limit: 7}); len(got) != 26 {
			t.Errorf("the subscription has %v", got)
		}
		if got, _ := all(resource.ListQuery{Scope: arm.MustID(harbors + "rotterdam"), Type: "Test.Sea/harbors/berths"}); !slices.Equal(got, []string{"one"}) {
			t.Errorf("the harbor has %v", got)
		}
		if got, _ := all(resource.ListQuery{Scope: arm.MustID(group), Limit: 4}); !slices.Equal(got, append([]string{"rotterdam"}, want...)) {
			t.Errorf("the resources of the group are %v", got)
		}
		odd := func(d resource.Doc) bool {
			n, _ := resource.Lookup(d.Body, "properties.n").(json.Number)
			return n == "3" || n == "24"
		}
		if got, _ := all(resource.ListQuery{Scope: arm.MustID(sub), Type: "Test.Sea/ships", Limit: 1, Want: odd}); !slices.Equal(got, []string{"ship03", "ship24"}) {
			t.Errorf("the wanted are %v", got)
		}
		page, err := f.List(t.Context(), resource.ListQuery{Scope: arm.MustID(group), Type: "Test.Sea/ships", Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		for _, token := range []string{"x", "!", page.Next + "A", page.Next[1:], strings.ToUpper(page.Next), "L3N1YnNjcmlwdGlvbnMvczI", strings.Repeat("A", 5000)} {
			if _, err := f.List(t.Context(), resource.ListQuery{Scope: arm.MustID(group), Type: "Test.Sea/ships", Token: token}); !errors.Is(err, resource.ErrToken) {
				t.Errorf("the token %.40q: %v", token, err)
			}
		}
		// A token of one scope is none of another.
		if _, err := f.List(t.Context(), resource.ListQuery{Scope: arm.MustID(sub + "/resourceGroups/Docks2"), Type: "Test.Sea/ships", Token: page.Next}); !errors.Is(err, resource.ErrToken) {
			t.Errorf("another scope's token: %v", err)
		}
		if _, err := f.List(t.Context(), resource.ListQuery{Scope: arm.MustID(sub + "/resourceGroups/none"), Type: "Test.Sea/ships"}); code(err) != "ResourceGroupNotFound" {
			t.Errorf("a list in no group: %v", err)
		}
		if _, err := f.List(t.Context(), resource.ListQuery{Scope: arm.MustID(sub), Type: "Test.Sea/none"}); code(err) != "InvalidResourceType" {
			t.Errorf("a list of nothing known: %v", err)
		}
	})
}

func TestActionsOfAType(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		id := arm.MustID(harbors + "rotterdam")
		f.put(id.String(), `{"location":"eastus"}`)
		out, err := f.Act(t.Context(), owner, id, "SIGNAL", resource.Object{"flag": "P"})
		if err != nil || out["to"] != "rotterdam" || out["by"] != "owner" || out["flag"] != "P" {
			t.Errorf("%v %v", out, err)
		}
		if got := f.ActionName(arm.MustID(strings.ToLower(id.String())), "SIGNAL"); got != "Test.Sea/harbors/signal/action" {
			t.Errorf("the permission is %s", got)
		}
		if got := f.ActionName(id, "Salute"); got != "Test.Sea/harbors/enter/action" {
			t.Errorf("the permission under another name is %s", got)
		}
		if _, err := f.Act(t.Context(), owner, id, "sink", nil); !errors.Is(err, resource.ErrActionUnknown) {
			t.Errorf("no such action: %v", err)
		}
		if _, err := f.Act(t.Context(), owner, arm.MustID(harbors+"nowhere"), "signal", nil); code(err) != "ResourceNotFound" {
			t.Errorf("no such harbor: %v", err)
		}
	})
}

// Who waits for the answer to a change finds it known in this process; others
// are told within a second; the outbox says who did it.
func TestChangesAreToldAndRecorded(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		var told []string
		f.store.OnCommit(func(ids []arm.ID) {
			for _, id := range ids {
				told = append(told, id.Key())
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		followed := make(chan []arm.ID, 100)
		ended := make(chan error)
		go func() {
			ended <- f.store.Follow(ctx, func(ids []arm.ID) { followed <- ids })
		}()
		if first := <-followed; len(first) != 0 {
			t.Fatalf("following began with %v", first)
		}
		f.put(ships+"anna", `{}`)
		want := strings.ToLower(ships + "anna")
		if !slices.Equal(told, []string{want}) {
			t.Errorf("told when the PUT returned: %v", told)
		}
		for got := ""; got != want; {
			select {
			case ids := <-followed:
				for _, id := range ids {
					got = id.Key()
				}
			case <-time.After(time.Minute):
				t.Fatal("the change was not followed")
			}
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := f.Put(t.Context(), owner, arm.MustID(ships+"a,b"), resource.Object{}, always); err == nil || len(told) != 1 {
			t.Errorf("a refused change was told: %v", told)
		}
		changes, err := f.db.Changes(t.Context(), 0, 1000)
		if err != nil {
			t.Fatal(err)
		}
		last := changes[len(changes)-1]
		if last.Kind != "resource" || last.Key != want || last.Op != "put" || string(last.Detail) != `{"by":"owner"}` {
			t.Errorf("recorded: %s %s %s %s", last.Kind, last.Key, last.Op, last.Detail)
		}
	})
}

// A name made again is another resource.
func TestUIDsAreNeverUsedTwice(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		read := func() (d resource.Doc) {
			if err := f.store.View(t.Context(), func(r resource.Reader) (err error) {
				d, err = r.Get(t.Context(), arm.MustID(ships+"anna"))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return d
		}
		f.put(ships+"Anna", `{}`)
		first := read()
		f.put(ships+"anna", `{"properties":{"a":"b"}}`)
		second := read()
		if first.UID == "" || second.UID != first.UID || !second.Created.Equal(first.Created) || second.ID.Name() != "Anna" || second.Changed.Before(first.Changed) {
			t.Errorf("writing it again: %+v became %+v", first, second)
		}
		if _, err := f.Delete(t.Context(), owner, first.ID, always); err != nil {
			t.Fatal(err)
		}
		f.put(ships+"anna", `{}`)
		if third := read(); third.UID == first.UID {
			t.Error("the name made again has the old UID")
		}
	})
}

func TestBeginLeavesWhatIsThere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		f := open(t, db)
		_, before := f.everything()
		if err := f.Begin(t.Context(), resource.First{Tenant: "t1", Subscription: "s1", SubscriptionName: "renamed"}); err != nil {
			t.Fatal(err)
		}
		if _, after := f.everything(); after != before {
			t.Error("a second start wrote")
		}
		got := f.get(sub).Body
		if got["id"] != sub || got["subscriptionId"] != "s1" || got["tenantId"] != "t1" || got["state"] != "Enabled" {
			t.Errorf("the subscription is %v", got)
		}
	})
}
