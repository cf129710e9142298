package identity_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/identity"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const (
	tenant = "11111111-1111-1111-1111-111111111111"
	sub    = "22222222-2222-2222-2222-222222222222"
	group  = "/subscriptions/" + sub + "/resourceGroups/g"
)

func user(name string) arm.ID {
	return arm.MustID(group + "/providers/" + identity.TypeName + "/" + name)
}

func machine(name string) arm.ID { return arm.MustID(group + "/providers/Cove.Test/machines/" + name) }

type world struct {
	*testing.T
	service *resource.Service
	docs    *store.Resources
	dir     *store.Identity
	may     func(action string, scope arm.ID) bool
}

func each(t *testing.T, test func(w *world)) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		w := &world{T: t, docs: store.NewResources(db), dir: store.NewIdentity(db), may: func(string, arm.ID) bool { return true }}
		c := identity.Config{Principals: w.dir}
		machines := resource.Type{
			Name:  "Cove.Test/machines",
			Check: func(*resource.Change) []fault.Field { return nil },
			Delete: func(_ context.Context, _ resource.Tx, doc resource.Doc, _ resource.Caller) error {
				if doc.Body["managedBy"] == "busy" {
					return fault.Newf(fault.Conflict, "busy")
				}
				return nil
			},
		}
		bearing := c.Bearing(machines, func(ch *resource.Change) bool { return ch.Old.Body["kind"] != ch.New.Body["kind"] })
		var err error
		w.service, err = resource.New(resource.Config{Store: w.docs, Types: append(identity.Types(c), bearing), Locations: []string{"local"}, Now: time.Now})
		w.must(err)
		w.must(w.service.Begin(t.Context(), resource.First{Tenant: tenant, TenantName: "cove", Subscription: sub, SubscriptionName: "cove"}))
		w.put(arm.MustID(group), resource.Object{"location": "local"})
		test(w)
	})
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) caller() resource.Caller {
	return resource.Caller{ObjectID: "somebody", Tenant: tenant, May: func(a string, s arm.ID) bool { return w.may(a, s) }}
}

func (w *world) put(id arm.ID, body resource.Object) resource.Object {
	w.Helper()
	r, err := w.service.Put(w.Context(), w.caller(), id, body, resource.Condition{})
	w.must(err)
	return r.Body
}

func (w *world) patch(id arm.ID, body resource.Object) resource.Object {
	w.Helper()
	r, err := w.service.Patch(w.Context(), w.caller(), id, body, resource.Condition{})
	w.must(err)
	return r.Body
}

func (w *world) delete(id arm.ID) {
	w.Helper()
	_, err := w.service.Delete(w.Context(), w.caller(), id, resource.Condition{})
	w.must(err)
}

func text(o resource.Object, path string) string {
	s, _ := resource.Lookup(o, path).(string)
	return s
}

// there reports whether the directory has a principal.
func (w *world) there(id string) bool {
	w.Helper()
	_, err := w.dir.ByObject(w.Context(), id)
	if err != nil && !errors.Is(err, directory.ErrUnknown) {
		w.Fatal(err)
	}
	return err == nil
}

func (w *world) carried(id arm.ID) (out []identity.One) {
	w.Helper()
	w.must(w.docs.View(w.Context(), func(r resource.Reader) error {
		doc, err := r.Get(w.Context(), id)
		if err != nil {
			return err
		}
		out, err = identity.Of(w.Context(), r, doc)
		return err
	}))
	return out
}

// A user-assigned identity and its principal come and go together, and what a
// caller says of its ids counts for nothing.
func TestAUserAssignedIdentityHasAPrincipal(t *testing.T) {
	each(t, func(w *world) {
		mine := resource.Object{"location": "local", "tags": resource.Object{"a": "b"}, "properties": resource.Object{"principalId": "mine", "clientId": "mine", "tenantId": "mine"}}
		one := w.put(user("puller"), mine)
		principal, client := text(one, "properties.principalId"), text(one, "properties.clientId")
		if !directory.IsID(principal) || !directory.IsID(client) || text(one, "properties.tenantId") != tenant {
			w.Fatalf("%v", one)
		}
		again := w.put(user("PULLER"), mine)
		if text(again, "properties.principalId") != principal {
			w.Error("the same identity has another principal after a second PUT")
		}
		who, err := w.dir.ByApp(w.Context(), client)
		w.must(err)
		if who.ObjectID != principal || who.Kind != directory.ServicePrincipal || who.Managed != user("puller").String() || who.Tenant != tenant || len(who.Credentials) != 0 {
			w.Errorf("%+v", who)
		}
		w.delete(arm.MustID(group))
		if w.there(principal) {
			w.Error("the principal outlives its identity")
		}
	})
}

func TestIdentitiesThatAreRefused(t *testing.T) {
	each(t, func(w *world) {
		w.put(user("good"), resource.Object{"location": "local"})
		ids := func(names ...string) resource.Object {
			o := resource.Object{}
			for _, n := range names {
				o[n] = resource.Object{}
			}
			return o
		}
		for _, c := range []struct {
			name string
			id   arm.ID
			body resource.Object
			want string
		}{
			{"a short name", user("ab"), resource.Object{"location": "local"}, "3 to 128"},
			{"a name that begins with a hyphen", user("-abc"), resource.Object{"location": "local"}, "3 to 128"},
			{"no location", user("abc"), resource.Object{}, "location"},
			{"an unknown type", machine("m"), resource.Object{"identity": resource.Object{"type": "Robot"}}, "identity.type"},
			{"no type", machine("m"), resource.Object{"identity": resource.Object{}}, "identity.type"},
			{"none and some", machine("m"), resource.Object{"identity": resource.Object{"type": "None, SystemAssigned"}}, "identity.type"},
			{"user-assigned without any", machine("m"), resource.Object{"identity": resource.Object{"type": "UserAssigned"}}, "at least one"},
			{"a list", machine("m"), resource.Object{"identity": resource.Object{"type": "UserAssigned", "userAssignedIdentities": []any{"x"}}}, "must be an object"},
			{"an id of another type", machine("m"), resource.Object{"identity": resource.Object{"type": "UserAssigned", "userAssignedIdentities": ids(machine("x").String())}}, "is not the id"},
			{"twice in two spellings", machine("m"), resource.Object{"identity": resource.Object{"type": "UserAssigned", "userAssignedIdentities": ids(user("good").String(), strings.ToUpper(user("good").String()))}}, "twice"},
			{"one that is not there", machine("m"), resource.Object{"identity": resource.Object{"type": "UserAssigned", "userAssignedIdentities": ids(user("bad").String())}}, "was not found"},
			{"both spellings of a property", machine("m"), resource.Object{"identity": resource.Object{"type": "None", "Type": "SystemAssigned"}}, "given twice"},
		} {
			_, err := w.service.Put(w.Context(), w.caller(), c.id, c.body, resource.Condition{})
			var said strings.Builder
			if e, ok := errors.AsType[*fault.Error](err); ok {
				fmt.Fprint(&said, e.Public, e.Fields)
			}
			if err == nil || !strings.Contains(said.String(), c.want) {
				w.Errorf("%s: %v %s", c.name, err, said.String())
			}
		}
		if there, err := w.service.Exists(w.Context(), machine("m")); there || err != nil {
			w.Errorf("something was made, %v", err)
		}
	})
}

// A resource's own identity goes with it, and with the property that asked
// for it; a change that keeps it keeps its principal.
func TestASystemAssignedIdentity(t *testing.T) {
	each(t, func(w *world) {
		own := resource.Object{"identity": resource.Object{"Type": "systemassigned"}, "kind": "k1"}
		one := w.put(machine("m"), own)
		principal := text(one, "identity.principalId")
		if text(one, "identity.type") != "SystemAssigned" || text(one, "identity.tenantId") != tenant || !w.there(principal) {
			w.Fatalf("%v", one)
		}
		if one["identities"] != nil {
			w.Errorf("what is ours is shown: %v", one)
		}
		if echo := w.put(machine("m"), one); text(echo, "identity.principalId") != principal || echo["etag"] != one["etag"] {
			w.Errorf("the echo of what was shown has changed it: %v", echo)
		}
		forged := w.patch(machine("m"), resource.Object{"identity": resource.Object{"principalId": "forged"}, "identities": resource.Object{"system": resource.Object{"principalId": "forged"}}})
		if text(forged, "identity.principalId") != principal {
			w.Errorf("a caller has set its principal: %v", forged)
		}
		if kept := w.patch(machine("m"), resource.Object{"kind": "k1"}); text(kept, "identity.principalId") != principal {
			w.Errorf("a change of something else: %v", kept)
		}
		none := w.patch(machine("m"), resource.Object{"identity": resource.Object{"type": "None"}})
		if none["identity"] != nil || w.there(principal) {
			w.Errorf("after None: %v", none)
		}
		second := text(w.patch(machine("m"), own), "identity.principalId")
		if second == principal || !w.there(second) {
			w.Errorf("an identity that was taken away has come back: %s", second)
		}
		// Whoever changes the key has made another machine of it.
		third := text(w.patch(machine("m"), resource.Object{"kind": "k2"}), "identity.principalId")
		if third == second || w.there(second) || !w.there(third) {
			w.Errorf("the machine with another key has the identity of the one before")
		}
		w.put(machine("m"), resource.Object{"kind": "k2"})
		if w.there(third) {
			w.Error("a PUT without the property keeps it")
		}
		fourth := text(w.put(machine("m"), own), "identity.principalId")
		w.patch(machine("m"), resource.Object{"managedBy": "busy"})
		if _, err := w.service.Delete(w.Context(), w.caller(), machine("m"), resource.Condition{}); err == nil || !w.there(fourth) {
			w.Errorf("a deletion that was refused has taken the identity away: %v", err)
		}
		w.patch(machine("m"), resource.Object{"managedBy": nil})
		w.delete(machine("m"))
		if w.there(fourth) {
			w.Error("the identity outlives its resource")
		}
	})
}

// Assigning an identity needs the right to; having the machine is not enough,
// nor is replacing its key. An identity made again under its name is not the
// one that was assigned.
func TestAssigningAnIdentity(t *testing.T) {
	each(t, func(w *world) {
		a, b := w.put(user("aaa"), resource.Object{"location": "local"}), w.put(user("bbb"), resource.Object{"location": "local"})
		carrying := func(kind string, names ...string) resource.Object {
			named := resource.Object{}
			for _, n := range names {
				named[user(n).String()] = resource.Object{}
			}
			return resource.Object{"identity": resource.Object{"type": kind, "userAssignedIdentities": named}}
		}
		granted := map[string]bool{}
		w.may = func(action string, scope arm.ID) bool {
			return action == identity.ActionAssign && granted[scope.Name()]
		}
		refused := func(what string, err error) {
			w.Helper()
			if !errors.Is(err, identity.ErrNotPermitted) {
				w.Errorf("%s: %v", what, err)
			}
		}
		_, err := w.service.Put(w.Context(), w.caller(), machine("m"), carrying("UserAssigned", "aaa"), resource.Condition{})
		refused("without the right", err)
		_, err = w.service.Put(w.Context(), w.caller(), machine("m"), carrying("UserAssigned", "nobody"), resource.Condition{})
		refused("one that is not there", err)
		granted["aaa"] = true
		one := w.put(machine("m"), carrying("UserAssigned", "aaa"))
		shown, _ := resource.Lookup(one, "identity.userAssignedIdentities").(resource.Object)[user("aaa").String()].(resource.Object)
		if shown["principalId"] != text(a, "properties.principalId") || shown["clientId"] != text(a, "properties.clientId") {
			w.Errorf("%v", one)
		}
		granted["aaa"] = false
		_, err = w.service.Patch(w.Context(), w.caller(), machine("m"), carrying("UserAssigned", "aaa", "bbb"), resource.Condition{})
		refused("one more", err)
		w.patch(machine("m"), resource.Object{"properties": resource.Object{"x": "y"}}) // what is carried needs no right anew
		_, err = w.service.Patch(w.Context(), w.caller(), machine("m"), resource.Object{"kind": "another"}, resource.Condition{})
		refused("another key", err)

		granted["bbb"], granted["aaa"] = true, true
		w.patch(machine("m"), carrying("SystemAssigned,UserAssigned", "aaa", "bbb"))
		if got := w.carried(machine("m")); len(got) != 3 || !got[0].System || got[1].ClientID != text(a, "properties.clientId") || got[2].ClientID != text(b, "properties.clientId") {
			w.Errorf("%+v", got)
		}
		// az takes one away by leaving it out.
		w.patch(machine("m"), carrying("UserAssigned", "bbb"))
		if got := w.carried(machine("m")); len(got) != 1 || got[0].ID.Name() != "bbb" {
			w.Errorf("%+v", got)
		}
		w.delete(user("bbb"))
		if got := w.carried(machine("m")); len(got) != 0 {
			w.Errorf("a deleted identity: %+v", got)
		}
		w.put(user("bbb"), resource.Object{"location": "local"})
		if got := w.carried(machine("m")); len(got) != 0 {
			w.Errorf("an identity made again under the name of another: %+v", got)
		}
	})
}

// A federated credential is a resource below the identity and a credential of
// its principal.
func TestFederatedCredentialsOfAnIdentity(t *testing.T) {
	each(t, func(w *world) {
		one := w.put(user("ci-bot"), resource.Object{"location": "local"})
		at := func(name string) arm.ID { return user("ci-bot").Child("federatedIdentityCredentials", name) }
		body := func(issuer, subject string) resource.Object {
			return resource.Object{"properties": resource.Object{"issuer": issuer, "subject": subject, "audiences": []any{"api://AzureADTokenExchange"}}}
		}
		creds := func() []directory.Credential {
			c, err := w.dir.ByApp(w.Context(), text(one, "properties.clientId"))
			w.must(err)
			return c.Credentials
		}
		w.put(at("main"), body("https://issuer.example", "repo:a/b:ref:refs/heads/main"))
		first := creds()
		f, ok := first[0].Federation()
		if len(first) != 1 || !ok || f.Issuer != "https://issuer.example" || f.Subject != "repo:a/b:ref:refs/heads/main" {
			w.Fatalf("%+v", first)
		}
		w.put(at("main"), body("https://issuer.example", "repo:a/b:ref:refs/heads/other"))
		if second := creds(); len(second) != 1 || second[0].KeyID == first[0].KeyID {
			w.Errorf("another subject is the same credential: %+v", second)
		}
		for name, wrong := range map[string]resource.Object{
			"plain http": body("http://issuer.example", "x"), "no subject": body("https://issuer.example", ""),
			"a user in the issuer": body("https://a:b@issuer.example", "x"), "nothing": {},
		} {
			if _, err := w.service.Put(w.Context(), w.caller(), at("wrong"), wrong, resource.Condition{}); !fault.Is(err, fault.Invalid) {
				w.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.service.Put(w.Context(), w.caller(), at("twin"), body("https://issuer.example", "repo:a/b:ref:refs/heads/other"), resource.Condition{}); !fault.Is(err, fault.Conflict) {
			w.Errorf("a second for one issuer and subject: %v", err)
		}
		for i := range 19 {
			w.put(at(fmt.Sprint("more", i)), body("https://issuer.example", fmt.Sprint(i)))
		}
		if _, err := w.service.Put(w.Context(), w.caller(), at("toomany"), body("https://issuer.example", "x"), resource.Condition{}); !errors.Is(err, directory.ErrCredentials) {
			w.Errorf("the 21st: %v", err)
		}
		w.delete(at("main"))
		if got := creds(); len(got) != 19 {
			w.Errorf("%d are left", len(got))
		}
		w.delete(user("ci-bot"))
	})
}
