package policy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const (
	ci     = "22222222-2222-4222-8222-222222222222"
	laptop = "33333333-3333-4333-8333-333333333333"
)

// follow runs roles until the test ends and waits until it answers from memory.
func follow(t *testing.T, r *policy.Roles) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("following ended with %v", err)
		}
	})
	wait(t, "following to begin", func() bool { return r.Live() })
}

func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func may(t *testing.T, r *policy.Roles, who, action string, scope arm.ID) bool {
	t.Helper()
	d, err := r.May(t.Context(), who, action, scope)
	if err != nil {
		t.Fatal(err)
	}
	return d.Allowed
}

func TestRolesObeyAChangeAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		docs := store.NewResources(db)
		r := policy.NewRoles(docs)
		if may(t, r, ci, policy.ActionPull, harbor) {
			t.Fatal("allowed in an empty directory")
		}
		if err := policy.Grant(t.Context(), docs, laptop, policy.RoleOwner, everyone); err != nil {
			t.Fatal(err)
		}
		if !may(t, r, laptop, policy.ActionPull, harbor) {
			t.Fatal("a grant is not obeyed before following has begun")
		}
		follow(t, r)
		// Each change is obeyed by the next question, without waiting.
		for i := range 20 {
			if err := policy.Grant(t.Context(), docs, ci, policy.RoleAcrPull, harbor); err != nil {
				t.Fatal(err)
			}
			if !may(t, r, ci, policy.ActionPull, harbor) || may(t, r, ci, policy.ActionPull, quay) || may(t, r, ci, policy.ActionPush, harbor) {
				t.Fatalf("round %d: a grant is not obeyed as given", i)
			}
			as, err := r.At(t.Context(), ci, harbor)
			if err != nil || len(as) != 1 {
				t.Fatal(as, err)
			}
			err = docs.Update(t.Context(), func(tx resource.Tx) error { return tx.Delete(t.Context(), as[0].ID) })
			if err != nil {
				t.Fatal(err)
			}
			if may(t, r, ci, policy.ActionPull, harbor) {
				t.Fatalf("round %d: a removed assignment still allows", i)
			}
		}
		if !may(t, r, laptop, policy.ActionPush, quay) {
			t.Error("the owner has lost the subscription on the way")
		}
	})
}

func TestAnotherNodesGrantArrives(t *testing.T) {
	url := storetest.Postgres(t)
	here := policy.NewRoles(store.NewResources(storetest.Open(t, url)))
	there := store.NewResources(storetest.Open(t, url))
	follow(t, here)
	if may(t, here, ci, policy.ActionPull, harbor) {
		t.Fatal("allowed too early")
	}
	if err := policy.Grant(t.Context(), there, ci, policy.RoleAcrPull, harbor); err != nil {
		t.Fatal(err)
	}
	wait(t, "the grant", func() bool { return may(t, here, ci, policy.ActionPull, harbor) })
}

// What a group may, its members may, from the next question on and no longer.
func TestRolesOfGroups(t *testing.T) {
	docs := store.NewResources(storetest.Open(t, storetest.SQLite(t)))
	r := policy.NewRoles(docs)
	groups := map[string][]string{}
	r.Groups = func(_ context.Context, who string) ([]string, error) {
		if who == "nobody can say" {
			return nil, errors.New("the database is away")
		}
		return groups[who], nil
	}
	const devs, ops = "44444444-4444-4444-8444-444444444444", "55555555-5555-4555-8555-555555555555"
	for who, role := range map[string]string{devs: policy.RoleAcrPull, ops: policy.RoleAcrPush} {
		if err := policy.Grant(t.Context(), docs, who, role, harbor); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		for _, c := range []struct {
			in         []string
			pull, push bool
		}{{nil, false, false}, {[]string{devs}, true, false}, {[]string{devs, ops}, true, true}, {[]string{ops}, true, true}, {nil, false, false}} {
			groups[ci] = c.in
			for range 2 { // compiled, and as compiled
				if pull, push := may(t, r, ci, policy.ActionPull, harbor), may(t, r, ci, policy.ActionPush, harbor); pull != c.pull || push != c.push {
					t.Errorf("%s, in %v: pull %v, push %v", when, c.in, pull, push)
				}
			}
		}
		if _, err := r.May(t.Context(), "nobody can say", policy.ActionPull, harbor); err == nil {
			t.Errorf("%s: decided without knowing the groups", when)
		}
	}
	check("from the store")
	follow(t, r)
	check("from memory")
}

// A PUT asks the directory who the principal is, and says the same thing once.
func TestAssigningAsksTheDirectory(t *testing.T) {
	docs := store.NewResources(storetest.Open(t, storetest.SQLite(t)))
	service, err := resource.New(resource.Config{Store: docs, Locations: []string{"local"}, Types: []resource.Type{policy.Assignments(func(_ context.Context, id string) (string, error) {
		if id == ci {
			return "Group", nil
		}
		return "", fault.New(fault.NotFound, "nobody")
	})}})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Begin(t.Context(), resource.First{Tenant: laptop, Subscription: everyone.Name()}); err != nil {
		t.Fatal(err)
	}
	put := func(name string, p resource.Object) (resource.Result, error) {
		id := arm.MustID(everyone.String() + "/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-00000000000" + name)
		return service.Put(t.Context(), resource.Caller{}, id, resource.Object{"properties": p}, resource.Condition{})
	}
	role := "/providers/" + policy.TypeDefinitions + "/" + strings.ToUpper(policy.RoleAcrPull)
	for _, c := range []struct {
		why  string
		p    resource.Object
		want error
	}{
		{"nobody", resource.Object{"principalId": laptop, "roleDefinitionId": role}, policy.ErrNoPrincipal},
		{"another type", resource.Object{"principalId": ci, "roleDefinitionId": role, "principalType": "User"}, policy.ErrPrincipalType},
	} {
		if _, err := put("1", c.p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.why, err)
		}
	}
	if _, err := put("1", resource.Object{"principalId": "x"}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	good := func() resource.Object {
		return resource.Object{"principalId": strings.ToUpper(ci), "roleDefinitionId": role}
	}
	made, err := put("1", good())
	if err != nil || resource.Lookup(made.Body, "properties.principalType") != "Group" || resource.Lookup(made.Body, "properties.principalId") != ci ||
		resource.Lookup(made.Body, "properties.roleDefinitionId") != policy.DefinitionID(everyone.Name(), policy.RoleAcrPull) {
		t.Fatal(made.Body, err)
	}
	if again, err := put("1", good()); err != nil || again.ETag != made.ETag {
		t.Error("the same again is a change", err)
	}
	if _, err := put("2", good()); !errors.Is(err, policy.ErrAssigned) || !strings.Contains(err.Error(), "000000000001") {
		t.Errorf("a second that says the same: %v", err)
	}
	if _, err := service.Patch(t.Context(), resource.Caller{}, made.ID, resource.Object{"properties": resource.Object{"principalType": "User"}}, resource.Condition{}); !fault.Is(err, fault.Invalid) {
		t.Errorf("a patched type: %v", err)
	}
	if _, err := service.Delete(t.Context(), resource.Caller{}, made.ID, resource.Condition{}); err != nil {
		t.Fatal(err)
	}
	if _, err := put("2", good()); err != nil {
		t.Errorf("after the first has gone: %v", err)
	}
}

// A subscription keeps somebody who may give out roles in it: with the last of
// them gone nobody could make another. One who may so for a group only, one whose
// assignment counts under a condition, and a custom role, which can change, are
// none of them.
func TestTheLastAdministratorOfASubscriptionStays(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		docs := store.NewResources(db)
		typ := policy.Assignments(func(context.Context, string) (string, error) { return "ServicePrincipal", nil })
		service, err := resource.New(resource.Config{Store: docs, Locations: []string{"local"}, Types: []resource.Type{typ}})
		if err != nil {
			t.Fatal(err)
		}
		if err := service.Begin(t.Context(), resource.First{Tenant: laptop, Subscription: everyone.Name()}); err != nil {
			t.Fatal(err)
		}
		const userAccess, rbac = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9", "f58310d9-a9f6-439a-9e8d-f62e7b41a168"
		made := map[string]arm.ID{}
		give := func(name, role string, scope arm.ID, properties resource.Object) {
			t.Helper()
			made[name] = arm.MustID(fmt.Sprintf("%s/providers/%s/00000000-0000-4000-8000-0000000000%02d", scope, policy.TypeAssignments, len(made)))
			body := resource.Object{"principalId": laptop, "roleDefinitionId": "/x/" + role}
			for k, v := range properties {
				body[k] = v
			}
			err := docs.Update(t.Context(), func(tx resource.Tx) error {
				return tx.Put(t.Context(), &resource.Doc{ID: made[name], Body: resource.Object{"properties": body}})
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		take := func(name string) error {
			_, err := service.Delete(t.Context(), resource.Caller{}, made[name], resource.Condition{})
			return err
		}
		group := arm.MustID(everyone.String() + "/resourceGroups/ops")
		give("owner", policy.RoleOwner, everyone, nil)
		give("second owner", policy.RoleOwner, everyone, resource.Object{"principalId": ci})
		give("reader", policy.RoleReader, everyone, nil)
		give("contributor", policy.RoleContributor, everyone, nil)
		give("owner of a group", policy.RoleOwner, group, nil)
		give("conditional", policy.RoleOwner, everyone, resource.Object{"condition": "(@Environment[isPrivateLink] BoolEquals true)"})
		give("custom", "99999999-9999-4999-8999-999999999999", everyone, nil)
		if err := take("second owner"); err != nil {
			t.Fatalf("one of two: %v", err)
		}
		err = take("owner")
		if _, public := fault.Of(err); !errors.Is(err, policy.ErrLastAdmin) || !fault.Is(err, fault.Stale) || !strings.Contains(public, "Cannot delete the last RBAC admin assignment") {
			t.Errorf("the last: %v", err)
		}
		for _, name := range []string{"reader", "contributor", "owner of a group", "conditional", "custom"} {
			if err := take(name); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		give("user access", userAccess, everyone, nil)
		if err := take("owner"); err != nil {
			t.Errorf("with somebody left who may make another: %v", err)
		}
		give("rbac", rbac, everyone, nil)
		if err := errors.Join(take("user access"), take("rbac")); !errors.Is(err, policy.ErrLastAdmin) || strings.Count(err.Error(), "RBAC admin") != 1 {
			t.Errorf("the last two, one after the other: %v", err)
		}
	})
}

func TestGrantingTwiceIsGrantingOnce(t *testing.T) {
	docs := store.NewResources(storetest.Open(t, storetest.SQLite(t)))
	r := policy.NewRoles(docs)
	for range 2 {
		if err := policy.Grant(t.Context(), docs, ci, policy.RoleAcrPull, harbor); err != nil {
			t.Fatal(err)
		}
	}
	if as, err := r.At(t.Context(), ci, harbor); err != nil || len(as) != 1 {
		t.Fatal(as, err)
	}
	if err := policy.Grant(t.Context(), docs, ci, policy.RoleAcrPull, arm.ID{}); err == nil {
		t.Error("a role was granted above every subscription")
	}
}

// A document that is not whole grants nothing; least of all everything.
func TestMalformedAssignmentsGrantNothing(t *testing.T) {
	docs := store.NewResources(storetest.Open(t, storetest.SQLite(t)))
	r := policy.NewRoles(docs)
	for i, body := range []resource.Object{
		{},
		{"properties": resource.Object{"principalId": ci}},
		{"properties": resource.Object{"principalId": ci, "roleDefinitionId": "x/" + policy.RoleOwner + "0"}},
		{"properties": resource.Object{"principalId": "", "roleDefinitionId": policy.RoleOwner}},
	} {
		err := docs.Update(t.Context(), func(tx resource.Tx) error {
			id := arm.MustID(fmt.Sprintf("%s/providers/%s/00000000-0000-4000-8000-00000000000%d", harbor, policy.TypeAssignments, i))
			return tx.Put(t.Context(), &resource.Doc{ID: id, Body: body})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	root := arm.MustID("/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-000000000009")
	err := docs.Update(t.Context(), func(tx resource.Tx) error {
		return tx.Put(t.Context(), &resource.Doc{ID: root, Body: resource.Object{"properties": resource.Object{"principalId": ci, "roleDefinitionId": policy.RoleOwner}}})
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range []string{ci, ""} {
		if may(t, r, who, policy.ActionPull, harbor) {
			t.Errorf("%q may pull", who)
		}
	}
}

func TestAssignmentsAreChecked(t *testing.T) {
	typ := policy.Assignments(func(context.Context, string) (string, error) { return "ServicePrincipal", nil })
	id := arm.MustID(harbor.String() + "/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-000000000001")
	doc := func(id arm.ID, p resource.Object) *resource.Doc {
		return &resource.Doc{ID: id, Body: resource.Object{"properties": p}}
	}
	good := resource.Object{"principalId": ci, "roleDefinitionId": everyone.String() + "/providers/Microsoft.Authorization/roleDefinitions/" + policy.RoleAcrPull}
	for name, c := range map[string]struct {
		change resource.Change
		want   int
	}{
		"a good one":          {resource.Change{New: doc(id, good)}, 0},
		"the same again":      {resource.Change{Old: doc(id, good), New: doc(id, good)}, 0},
		"nothing in it":       {resource.Change{New: doc(id, resource.Object{})}, 2},
		"above subscriptions": {resource.Change{New: doc(arm.MustID("/providers/"+policy.TypeAssignments+"/00000000-0000-4000-8000-000000000001"), good)}, 1},
		"another principal":   {resource.Change{Old: doc(id, good), New: doc(id, resource.Object{"principalId": laptop, "roleDefinitionId": good["roleDefinitionId"]})}, 1},
		"a role by its name":  {resource.Change{New: doc(id, resource.Object{"principalId": ci, "roleDefinitionId": "AcrPull"})}, 1},
	} {
		if got := typ.Check(&c.change); len(got) != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if typ.CheckName("default") == "" || typ.CheckName(id.Name()) != "" {
		t.Error("names are not checked")
	}
}

// A custom role is obeyed as it is at the time, where it can be assigned, and
// not at all when it has gone: before following has begun and after.
func TestRolesObeyCustomRoles(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		docs := store.NewResources(db)
		r := policy.NewRoles(docs)
		const name = "aaaaaaaa-0000-4000-8000-000000000001"
		id, err := policy.RoleID(strings.ToUpper(name))
		if err != nil {
			t.Fatal(err)
		}
		change := func(fn func(tx resource.Tx) error) {
			t.Helper()
			if err := docs.Update(t.Context(), fn); err != nil {
				t.Fatal(err)
			}
		}
		define := func(scope arm.ID, actions, without []any) {
			t.Helper()
			change(func(tx resource.Tx) error {
				return tx.Put(t.Context(), &resource.Doc{ID: id, Body: resource.Object{"properties": resource.Object{
					"roleName": "ours", "assignableScopes": []any{scope.String()},
					"permissions": []any{resource.Object{"actions": actions, "notActions": without, "dataActions": []any{policy.DataContentRead}, "notDataActions": []any{}}},
				}}})
			})
		}
		at := arm.MustID(harbor.String() + "/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-000000000001")
		change(func(tx resource.Tx) error {
			return tx.Put(t.Context(), &resource.Doc{ID: at, Body: resource.Object{"properties": resource.Object{
				"principalId": ci, "roleDefinitionId": policy.DefinitionID(everyone.Subscription(), name),
				"condition": repo + " StringStartsWith 'team/' OR !ActionMatches{'*/content/read'}", "conditionVersion": "2.0",
			}}})
		})
		check := func(when string, pull, push, data bool) {
			t.Helper()
			d, err := r.MayData(t.Context(), ci, policy.DataContentRead, harbor, "team/api")
			if err != nil {
				t.Fatal(err)
			}
			if other, err := r.MayData(t.Context(), ci, policy.DataContentRead, harbor, "ops/x"); err != nil || other.Allowed {
				t.Errorf("%s: the condition is not obeyed: %v", when, err)
			}
			if gotPull, gotPush := may(t, r, ci, policy.ActionPull, harbor), may(t, r, ci, policy.ActionPush, harbor); gotPull != pull || gotPush != push || d.Allowed != data {
				t.Errorf("%s: pull %v, push %v, data %v", when, gotPull, gotPush, d.Allowed)
			}
		}
		for _, when := range []string{"from the store", "from memory"} {
			check(when+", without the role", false, false, false)
			define(prod, []any{policy.ActionPull}, []any{})
			check(when+", with it", true, false, true)
			define(prod, []any{"*"}, []any{"*/pull/*"})
			check(when+", changed", false, true, true)
			define(arm.MustID(sub+"/resourceGroups/test"), []any{"*"}, []any{})
			check(when+", assignable elsewhere", false, false, false)
			// Were what it lacks lost, it would be given.
			define(prod, []any{"*"}, nil)
			change(func(tx resource.Tx) error {
				doc, err := tx.Get(t.Context(), id)
				if err != nil {
					return err
				}
				resource.Lookup(doc.Body, "properties.permissions").([]any)[0].(resource.Object)["notActions"] = "*/pull/*"
				return tx.Put(t.Context(), &doc)
			})
			check(when+", malformed", false, false, false)
			change(func(tx resource.Tx) error { return tx.Delete(t.Context(), id) })
			if when == "from the store" {
				follow(t, r)
			}
		}
	})
}

// A custom role takes a condition where it gives access to single repositories,
// and no other.
func TestConditionsOfCustomRoles(t *testing.T) {
	docs := store.NewResources(storetest.Open(t, storetest.SQLite(t)))
	typ := policy.Assignments(func(context.Context, string) (string, error) { return "ServicePrincipal", nil })
	service, err := resource.New(resource.Config{Store: docs, Locations: []string{"local"}, Types: []resource.Type{typ, policy.Definitions()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := service.Begin(t.Context(), resource.First{Tenant: laptop, Subscription: everyone.Name()}); err != nil {
		t.Fatal(err)
	}
	owner := resource.Caller{ObjectID: "owner", Tenant: laptop, May: func(string, arm.ID) bool { return true }}
	for i, c := range []struct{ list, action, says string }{
		{"actions", "Microsoft.ContainerRegistry/registries/*", "has no data action on repositories"},
		{"dataActions", policy.DataCatalogRead, "ABAC unsupported"},
		{"dataActions", "Microsoft.ContainerRegistry/registries/repositories/*/read", ""},
	} {
		name := fmt.Sprintf("99999999-9999-4999-8999-99999999999%d", i)
		id, err := policy.RoleID(name)
		if err != nil {
			t.Fatal(err)
		}
		_, err = service.Put(t.Context(), owner, id, resource.Object{"properties": resource.Object{
			"roleName": name, "assignableScopes": []any{everyone.String()}, "permissions": []any{resource.Object{c.list: []any{c.action}}},
		}}, resource.Condition{})
		if err != nil {
			t.Fatal(err)
		}
		at := arm.MustID(everyone.String() + "/providers/" + policy.TypeAssignments + "/" + name)
		_, err = service.Put(t.Context(), owner, at, resource.Object{"properties": resource.Object{
			"principalId": ci, "roleDefinitionId": policy.DefinitionID(everyone.Name(), name), "condition": "(" + repo + " StringEquals 'team/api')",
		}}, resource.Condition{})
		if c.says == "" && err != nil || c.says != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s %s: %v", c.list, c.action, err)
		}
	}
}

// Who may define roles in one place takes none over, and takes none away, that is
// good in another as well: not by leaving the other place out either.
func TestARoleOfTwoPlacesNeedsTheRightInBoth(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		docs := store.NewResources(db)
		service, err := resource.New(resource.Config{Store: docs, Locations: []string{"local"}, Types: []resource.Type{policy.Definitions()}})
		if err != nil {
			t.Fatal(err)
		}
		if err := service.Begin(t.Context(), resource.First{Tenant: laptop, Subscription: everyone.Name()}); err != nil {
			t.Fatal(err)
		}
		here, there := arm.MustID(everyone.String()+"/resourceGroups/here"), arm.MustID(everyone.String()+"/resourceGroups/there")
		err = docs.Update(t.Context(), func(tx resource.Tx) error {
			return errors.Join(tx.Put(t.Context(), &resource.Doc{ID: here, Body: resource.Object{}}), tx.Put(t.Context(), &resource.Doc{ID: there, Body: resource.Object{}}))
		})
		if err != nil {
			t.Fatal(err)
		}
		both := resource.Caller{ObjectID: "both", Tenant: laptop, May: func(string, arm.ID) bool { return true }}
		one := resource.Caller{ObjectID: "one", Tenant: laptop, May: func(_ string, at arm.ID) bool { return at.Equal(here) }}
		id, err := policy.RoleID("99999999-9999-4999-8999-999999999999")
		if err != nil {
			t.Fatal(err)
		}
		put := func(by resource.Caller, action string, scopes ...any) error {
			_, err := service.Put(t.Context(), by, id, resource.Object{"properties": resource.Object{
				"roleName": "two places", "assignableScopes": scopes, "permissions": []any{resource.Object{"actions": []any{action}}},
			}}, resource.Condition{})
			return err
		}
		if err := put(both, "*/read", here.String(), there.String()); err != nil {
			t.Fatal(err)
		}
		for _, scopes := range [][]any{{here.String()}, {here.String(), there.String()}, {there.String()}} {
			if err := put(one, "*", scopes...); !fault.Is(err, fault.Denied) {
				t.Errorf("to %v: %v", scopes, err)
			}
		}
		if _, err := service.Delete(t.Context(), one, id, resource.Condition{}); !fault.Is(err, fault.Denied) {
			t.Errorf("deleting it: %v", err)
		}
		if err := put(both, "*", here.String()); err != nil {
			t.Error(err)
		}
		if err := put(one, "*/read", here.String()); err != nil {
			t.Errorf("a role of the one place: %v", err)
		}
	})
}

// An assignment whose condition cannot be read grants nothing, as one whose
// condition is not true.
func TestAConditionThatCannotBeReadGrantsNothing(t *testing.T) {
	docs := store.NewResources(storetest.Open(t, storetest.SQLite(t)))
	r := policy.NewRoles(docs)
	for _, text := range []any{"", "x", json.Number("1"), nil, []any{}} {
		err := docs.Update(t.Context(), func(tx resource.Tx) error {
			id := arm.MustID(harbor.String() + "/providers/" + policy.TypeAssignments + "/00000000-0000-4000-8000-000000000001")
			return tx.Put(t.Context(), &resource.Doc{ID: id, Body: resource.Object{"properties": resource.Object{"principalId": ci, "roleDefinitionId": policy.RoleOwner, "condition": text}}})
		})
		if err != nil {
			t.Fatal(err)
		}
		if may(t, r, ci, policy.ActionPull, harbor) {
			t.Errorf("condition %v: may pull", text)
		}
	}
}

// What a decision costs depends on the caller's own assignments, not on how
// many others there are.
func BenchmarkMayAmong10000(b *testing.B) {
	docs := store.NewResources(storetest.Open(b, storetest.SQLite(b)))
	err := docs.Update(b.Context(), func(tx resource.Tx) error {
		for i := range 10_000 {
			id := arm.MustID(fmt.Sprintf("%s/providers/%s/00000000-0000-4000-8000-%012d", harbor, policy.TypeAssignments, i))
			body := resource.Object{
				"principalId": fmt.Sprintf("22222222-2222-4222-8222-%012d", i), "roleDefinitionId": policy.RoleRepoReader,
				"condition": fmt.Sprintf("((!(ActionMatches{'%s'}) AND !(ActionMatches{'%s'})) OR (%s StringStartsWithIgnoreCase 'team/%d/'))", policy.DataContentRead, policy.DataMetadataRead, repo, i),
			}
			if err := tx.Put(b.Context(), &resource.Doc{ID: id, Body: resource.Object{"properties": body}}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	r := policy.NewRoles(docs)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	for !r.Live() {
		time.Sleep(time.Millisecond)
	}
	b.ReportAllocs()
	for b.Loop() {
		d, err := r.MayData(b.Context(), "22222222-2222-4222-8222-000000000007", policy.DataContentRead, harbor, "team/7/app")
		if err != nil || !d.Allowed {
			b.Fatal(d, err)
		}
	}
	stop()
	<-ended
}
