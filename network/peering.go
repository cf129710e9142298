package network

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// TypePeering is one side of two virtual networks that are joined: a member of
// one reaches the private endpoints of the other. Both sides must be there, and
// no third network is reached through either (a hub's spokes do not see each
// other).
const TypePeering = TypeVirtualNetwork + "/virtualNetworkPeerings"

// actionPeer is what peering needs on the other network.
const actionPeer = TypeVirtualNetwork + "/peer/action"

// The states of one side of a peering, in ARM's words.
const (
	peerInitiated    = "Initiated"    // the other side is not there yet
	peerConnected    = "Connected"    // both are
	peerDisconnected = "Disconnected" // it was, and has gone: this side must be made again
)

// The failures of a peering.
var (
	ErrPeerOverlap = fault.Coded(fault.Invalid, "VnetAddressSpacesOverlap", "the address spaces of the virtual networks overlap")
	ErrPeerTwice   = fault.Coded(fault.Invalid, "AnotherPeeringAlreadyReferencesRemoteVnet", "the virtual network has a peering with that network already")
	ErrPeerGone    = fault.Coded(fault.Invalid, "RemotePeeringIsDisconnected", "the other side of the peering has gone")
)

func peeringType(Config) resource.Type {
	return resource.Type{
		Name: TypePeering, CheckName: checkName,
		ReadOnly: peeringReadOnly,
		Secret:   []string{"cove"},
		Check:    checkPeering,
		Put:      putPeering,
		Delete:   deletePeering,
		Show:     showPeering,
	}
}

var peeringReadOnly = []string{
	"cove", "properties.provisioningState", "properties.peeringState", "properties.peeringSyncLevel",
	"properties.remoteAddressSpace", "properties.remoteVirtualNetworkAddressSpace", "properties.resourceGuid",
}

const remotePath = "properties.remoteVirtualNetwork.id"

func checkPeering(c *resource.Change) []fault.Field {
	var p problems
	props := objectAt(c.New.Body, "properties")
	remote := p.reference(remotePath, textAt(props, "remoteVirtualNetwork", "id"), TypeVirtualNetwork)
	if !remote.IsZero() && remote.Equal(c.New.ID.Parent()) {
		p.add(remotePath, "a virtual network is not its own peer")
	}
	if c.Old != nil && !remote.Equal(idAt(c.Old.Body, "properties", "remoteVirtualNetwork", "id")) {
		p.add(remotePath, "it cannot be changed; delete the peering and make another")
	}
	for key, def := range map[string]bool{"allowVirtualNetworkAccess": true, "allowForwardedTraffic": false, "allowGatewayTransit": false, "useRemoteGateways": false} {
		switch v := at(props, key).(type) {
		case nil:
			if props != nil {
				props[key] = def
			}
		case bool:
			if v && (key == "allowGatewayTransit" || key == "useRemoteGateways") {
				p.add("properties."+key, "there are no gateways in this version")
			}
		default:
			p.add("properties."+key, "it must be true or false")
		}
	}
	if whole, given := at(props, "peerCompleteVnets").(bool); given && !whole {
		p.add("properties.peerCompleteVnets", "whole networks are peered in this version, not single subnets")
	}
	return p
}

func putPeering(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	remote := idAt(c.New.Body, "properties", "remoteVirtualNetwork", "id")
	if c.Old != nil {
		if textAt(c.Old.Body, "cove", "state") == peerDisconnected {
			return ErrPeerGone.Detail("Peering '%s' cannot be changed, because its other side was deleted. Delete it and make it again.", c.New.ID.Name())
		}
		return nil
	}
	if err := may(c.Caller, actionPeer, remote); err != nil {
		return err
	}
	there, err := tx.Get(ctx, remote)
	if errors.Is(err, resource.ErrUnknown) {
		return fault.At(remotePath, ErrReference.Detail("The virtual network '%s' was not found.", remote))
	}
	if err != nil {
		return err
	}
	here, err := tx.Get(ctx, c.New.ID.Parent())
	if err != nil {
		return err
	}
	others, err := tx.List(ctx, resource.Query{Type: TypePeering, Under: here.ID})
	if err != nil {
		return err
	}
	for _, o := range others {
		if peer := idAt(o.Body, "properties", "remoteVirtualNetwork", "id"); peer.Equal(remote) {
			return fault.At(remotePath, ErrPeerTwice.Detail("Peering '%s' already references the virtual network '%s'.", o.ID.Name(), remote))
		}
	}
	if err := apartFrom(ctx, tx, here, append(others, *c.New)); err != nil {
		return fault.At(remotePath, err)
	}
	set(c.New.Body, ref(there.ID), "properties", "remoteVirtualNetwork")
	set(c.New.Body, peerInitiated, "cove", "state")
	back, found, err := otherSide(ctx, tx, here.ID, there.ID)
	if err != nil || !found {
		return err
	}
	if textAt(back.Body, "cove", "state") == peerDisconnected {
		return ErrPeerGone.Detail("Peering '%s' of virtual network '%s' is Disconnected. Delete it, and make both sides again.", back.ID.Name(), there.ID.Name())
	}
	set(c.New.Body, peerConnected, "cove", "state")
	set(back.Body, peerConnected, "cove", "state")
	return tx.Put(ctx, &back)
}

// otherSide is the peering of there that leads here.
func otherSide(ctx context.Context, r resource.Reader, here, there arm.ID) (resource.Doc, bool, error) {
	docs, err := r.List(ctx, resource.Query{Type: TypePeering, Under: there})
	for _, d := range docs {
		if idAt(d.Body, "properties", "remoteVirtualNetwork", "id").Equal(here) {
			return d, true, nil
		}
	}
	return resource.Doc{}, false, err
}

// apartFrom refuses peers whose addresses are the network's own, or each
// other's: an address would mean two machines.
func apartFrom(ctx context.Context, r resource.Reader, here resource.Doc, peerings []resource.Doc) error {
	var none problems
	type held struct {
		name string
		doc  resource.Doc
	}
	all := []held{{here.ID.Name(), here}}
	for _, o := range peerings {
		doc, err := r.Get(ctx, idAt(o.Body, "properties", "remoteVirtualNetwork", "id"))
		if errors.Is(err, resource.ErrUnknown) {
			continue // gone; this side says Disconnected
		}
		if err != nil {
			return err
		}
		all = append(all, held{doc.ID.Name(), doc})
	}
	for i, a := range all {
		for _, b := range all[i+1:] {
			for _, p := range vnetPrefixes(&none, a.doc.Body) {
				for _, q := range vnetPrefixes(&none, b.doc.Body) {
					if p.Overlaps(q) {
						return ErrPeerOverlap.Detail("Virtual networks '%s' and '%s' cannot be peered to '%s', because their address spaces overlap: %s and %s.", a.name, b.name, here.ID.Name(), p, q)
					}
				}
			}
		}
	}
	return nil
}

// deletePeering leaves the other side where it is, dead: its owner sees why.
func deletePeering(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	back, found, err := otherSide(ctx, tx, doc.ID.Parent(), idAt(doc.Body, "properties", "remoteVirtualNetwork", "id"))
	if err != nil || !found || textAt(back.Body, "cove", "state") != peerConnected {
		return err
	}
	set(back.Body, peerDisconnected, "cove", "state")
	return tx.Put(ctx, &back)
}

func showPeering(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	set(body, "Succeeded", "properties", "provisioningState")
	set(body, textAt(doc.Body, "cove", "state"), "properties", "peeringState")
	set(body, "FullyInSync", "properties", "peeringSyncLevel")
	set(body, resourceGUID(doc), "properties", "resourceGuid")
	there, err := r.Get(ctx, idAt(doc.Body, "properties", "remoteVirtualNetwork", "id"))
	if errors.Is(err, resource.ErrUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	space := objectAt(there.Body, "properties", "addressSpace")
	set(body, resource.Clone(space), "properties", "remoteAddressSpace")
	set(body, resource.Clone(space), "properties", "remoteVirtualNetworkAddressSpace")
	return nil
}

// peeringPart is one side of a peering, as snapshots are built from it.
type peeringPart struct {
	here, there string // keys of the networks
	open        bool   // connected, and traffic is allowed
}

func decodePeering(d resource.Doc) *peeringPart {
	access, _ := at(d.Body, "properties", "allowVirtualNetworkAccess").(bool)
	return &peeringPart{
		d.ID.Parent().Key(), idAt(d.Body, "properties", "remoteVirtualNetwork", "id").Key(),
		access && textAt(d.Body, "cove", "state") == peerConnected,
	}
}

func (p *parts) setPeering(c part, dirty map[string]bool) {
	for _, o := range []*peeringPart{p.peerings[c.key], c.peering} {
		if o != nil {
			dirty[o.here], dirty[o.there] = true, true
		}
	}
	if old := p.peerings[c.key]; old != nil {
		p.peersOf.remove(old.here, c.key)
		p.peersOf.remove(old.there, c.key)
	}
	replace(p.peerings, c.key, c.peering)
	if c.peering != nil {
		p.peersOf.add(c.peering.here, c.key)
		p.peersOf.add(c.peering.there, c.key)
	}
}

// peers are the networks that a network is joined with: both sides are open.
func (p *parts) peers(key string) []string {
	var here, back []string
	for k := range p.peersOf[key] {
		switch o := p.peerings[k]; {
		case !o.open || p.vnets[o.here] == nil || p.vnets[o.there] == nil:
		case o.here == key:
			here = append(here, o.there)
		default:
			back = append(back, o.here)
		}
	}
	here = slices.DeleteFunc(here, func(k string) bool { return !slices.Contains(back, k) })
	slices.Sort(here)
	return here
}

// spread adds to dirty the networks that see what is in one of them.
func (p *parts) spread(dirty map[string]bool) {
	for key := range maps.Clone(dirty) {
		for k := range p.peersOf[key] {
			dirty[p.peerings[k].here], dirty[p.peerings[k].there] = true, true
		}
	}
}

// shownPeerings are a network's peerings as its body lists them.
func shownPeerings(ctx context.Context, r resource.Reader, vnet arm.ID) ([]any, error) {
	docs, err := r.List(ctx, resource.Query{Type: TypePeering, Under: vnet})
	if err != nil {
		return nil, err
	}
	out := make([]any, len(docs))
	for i, d := range docs {
		o := resource.Clone(d.Body)
		if err := showPeering(ctx, r, d, o); err != nil {
			return nil, err
		}
		delete(o, "cove")
		o["id"], o["name"], o["type"], o["etag"] = d.ID.String(), d.ID.Name(), TypePeering, d.ETag
		out[i] = o
	}
	return out, nil
}

// samePeerings takes a network's peerings out of what was sent for the network.
// A client that sends back what it was shown sends them too; one that lists
// others would find them neither made nor deleted, so it is refused.
func samePeerings(ctx context.Context, r resource.Reader, c *resource.Change) error {
	const path = "properties.virtualNetworkPeerings"
	props := objectAt(c.New.Body, "properties")
	v, given := props["virtualNetworkPeerings"]
	delete(props, "virtualNetworkPeerings")
	if !given {
		return nil
	}
	shown, err := shownPeerings(ctx, r, c.New.ID)
	if err != nil {
		return err
	}
	sent, _ := v.([]any)
	same := len(sent) == len(shown)
	for _, v := range sent {
		o, _ := v.(resource.Object)
		same = same && slices.ContainsFunc(shown, func(v any) bool {
			is, _ := v.(resource.Object)
			return strings.EqualFold(textAt(is, "name"), textAt(o, "name")) && says(is, inlineBody(o, peeringReadOnly))
		})
	}
	if !same {
		return fault.Problems([]fault.Field{{Path: path, Message: "must be as it is shown: peerings are made, changed and deleted by themselves, below the virtual network"}})
	}
	return nil
}

// says reports whether everything in part is in whole.
func says(whole, part any) bool {
	switch part := part.(type) {
	case resource.Object:
		o, ok := whole.(resource.Object)
		for name, v := range part {
			ok = ok && says(o[name], v)
		}
		return ok
	case string: // an id or a word, in any case
		s, ok := whole.(string)
		return ok && strings.EqualFold(s, part)
	}
	return reflect.DeepEqual(whole, part)
}

// keepsPeers refuses an address space that is one of the peers'.
func keepsPeers(ctx context.Context, r resource.Reader, vnet resource.Doc) error {
	docs, err := r.List(ctx, resource.Query{Type: TypePeering, Under: vnet.ID})
	if err != nil || len(docs) == 0 {
		return err
	}
	// Each peer has other peers, of which this one is one.
	const space = "properties.addressSpace.addressPrefixes"
	if err := apartFrom(ctx, r, vnet, docs); err != nil {
		return fault.At(space, err)
	}
	for _, d := range docs {
		there := idAt(d.Body, "properties", "remoteVirtualNetwork", "id")
		peer, err := r.Get(ctx, there)
		if errors.Is(err, resource.ErrUnknown) {
			continue
		}
		if err != nil {
			return err
		}
		theirs, err := r.List(ctx, resource.Query{Type: TypePeering, Under: there})
		if err != nil {
			return err
		}
		if err := apartFrom(ctx, changed{r, vnet}, peer, theirs); err != nil {
			return fault.At(space, err)
		}
	}
	return nil
}

// peerPrefixes are the address spaces of the networks that a network is joined
// with.
func peerPrefixes(ctx context.Context, r resource.Reader, vnet arm.ID) ([]netip.Prefix, error) {
	docs, err := r.List(ctx, resource.Query{Type: TypePeering, Under: vnet})
	if err != nil {
		return nil, err
	}
	var none problems
	var out []netip.Prefix
	for _, d := range docs {
		if !decodePeering(d).open {
			continue
		}
		peer, err := r.Get(ctx, idAt(d.Body, "properties", "remoteVirtualNetwork", "id"))
		if errors.Is(err, resource.ErrUnknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, vnetPrefixes(&none, peer.Body)...)
	}
	return out, nil
}

// changed is a reader in which one document is what it is about to be.
type changed struct {
	resource.Reader
	doc resource.Doc
}

func (c changed) Get(ctx context.Context, id arm.ID) (resource.Doc, error) {
	if strings.EqualFold(id.String(), c.doc.ID.String()) {
		return c.doc, nil
	}
	return c.Reader.Get(ctx, id)
}
