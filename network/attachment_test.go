package network

import (
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

// attach is the operator's word about networks, from now on.
func (w *world) attach(how func(vnet arm.ID) string) {
	w.Helper()
	w.cfg.Attached = how
	svc, err := resource.New(resource.Config{
		Store: w.store, Types: append(Types(w.cfg), registry.Type(w.cfg.Registry)), Locations: []string{"local"}, Now: w.clock.now,
	})
	w.check(err)
	w.svc = svc
}

// A network that is attached to the host, or a cloud's, takes no members and
// gives no codes for any: they could never be there.
func TestNoMembersWithoutATunnel(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.nic("early", "")
		member := func(nic string) error {
			_, err := w.try(owner, memberID(nic, "m"), memberBody(newKey(), "vm"))
			return err
		}
		how := AttachedOverlay
		w.attach(func(id arm.ID) string {
			if id.Key() != arm.MustID(vnetID).Key() {
				w.Errorf("asked about %s", id)
			}
			return how
		})
		code := w.joinCode("late")
		for _, how = range []string{AttachedHost, AttachedProxy} {
			w.refused(member("early"), "VirtualNetworkHasNoTunnel")
			_, err := w.act(owner, subnetID, "joinCode", `{"name":"another"}`)
			w.refused(err, "VirtualNetworkHasNoTunnel")
			_, err = w.joiner().Redeem(w.Context(), code.Secret.Reveal(), newKey(), "")
			w.refused(err, "VirtualNetworkHasNoTunnel")
		}
		how = AttachedOverlay
		w.check(member("early"))
		_, err := w.joiner().Redeem(w.Context(), code.Secret.Reveal(), newKey(), "")
		w.check(err)
	})
}

// A private endpoint is found by its id, in its own network and in those that
// reach it, as long as it is there.
func TestEndpointByItsID(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		w.registry()
		w.pe("pe")
		in, id := arm.MustID(vnetID).Key(), arm.MustID(peID("pe")).Key()
		if e := w.m.Private(in, id); e == nil || e.State != Approved || e.ID.Key() != id || e != w.m.Endpoint(in, e.Address) {
			w.Fatalf("%+v", e)
		}
		w.put(w.connection(peID("pe")), setState(Rejected))
		if e := w.m.Private(in, id); e == nil || e.State != Rejected {
			w.Errorf("after the rejection: %+v", e)
		}
		if e := w.m.Private(in, arm.MustID(peID("other")).Key()); e != nil {
			w.Errorf("another endpoint: %+v", e)
		}
		w.delete(peID("pe"))
		if e := w.m.Private(in, id); e != nil {
			w.Errorf("after the deletion: %+v", e)
		}
	})
}
