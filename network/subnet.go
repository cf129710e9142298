package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

func subnetType(cfg Config) resource.Type {
	return resource.Type{
		Name:      TypeSubnet,
		CheckName: checkName,
		ReadOnly:  subnetReadOnly,
		Check:     checkSubnet,
		Put:       putSubnet,
		Delete:    deleteSubnet,
		Show:      showSubnet,
		Actions:   map[string]resource.Action{"joinCode": cfg.joinCode},
		Needs:     map[string]string{"joinCode": ActionJoin},
	}
}

var subnetReadOnly = []string{
	"properties.provisioningState", "properties.ipConfigurations", "properties.privateEndpoints",
	"properties.purpose", "properties.resourceNavigationLinks", "properties.serviceAssociationLinks",
}

var subnetUnobeyed = unobeyed{
	"routeTable": "route tables are", "natGateway": "NAT gateways are", "serviceEndpointPolicies": "policies of service endpoints are",
	"delegations": "delegations to services are", "ipAllocations": "IP allocations are", "ipamPoolPrefixAllocations": "IP allocations are",
	"applicationGatewayIPConfigurations": "application gateways are", "sharingScope": "sharing of subnets is",
}

func checkSubnet(c *resource.Change) []fault.Field {
	var p problems
	checkSubnetBody(&p, "", c.New.ID.Name(), objectAt(c.New.Body, "properties"))
	return p
}

// checkSubnetBody is shared with the subnets that stand inside a virtual
// network's body, whose paths begin with prefix.
func checkSubnetBody(p *problems, prefix, name string, props resource.Object) {
	if why := checkName(name); why != "" {
		p.add(prefix+"name", "%s", why)
	}
	subnetPrefixes(p, prefix+"properties.", props)
	word := func(key string, words ...string) {
		if s := p.oneOf(prefix+"properties."+key, textAt(props, key), words...); s != "" {
			props[key] = s
		}
	}
	word("privateEndpointNetworkPolicies", "Disabled", "Enabled", "NetworkSecurityGroupEnabled", "RouteTableEnabled")
	word("privateLinkServiceNetworkPolicies", "Disabled", "Enabled")
	subnetUnobeyed.refuse(p, prefix+"properties.", props)
	checkServices(p, prefix, props)
	checkGroupRef(p, prefix+"properties.", props)
}

// subnetPrefixes reads addressPrefix or addressPrefixes; where a client sends
// both, as one does that echoes what it read, they must agree.
func subnetPrefixes(p *problems, path string, props resource.Object) []netip.Prefix {
	texts, list := []string{}, listAt(props, "addressPrefixes")
	for _, v := range list {
		s, _ := v.(string)
		texts = append(texts, s)
	}
	where := path + "addressPrefixes"
	if one := textAt(props, "addressPrefix"); one != "" {
		if len(texts) > 0 && texts[0] != one {
			p.add(path+"addressPrefix", "it must be the first of addressPrefixes when both are given")
		}
		if len(texts) == 0 {
			where, texts = path+"addressPrefix", []string{one}
		}
	}
	if len(texts) == 0 {
		p.add(path+"addressPrefix", "an address prefix such as 10.0.0.0/24 is required")
		return nil
	}
	return parsePrefixes(p, where, texts)
}

// maxPrefixes bounds what one network or subnet may list.
const maxPrefixes = 64

func parsePrefixes(p *problems, path string, texts []string) []netip.Prefix {
	if len(texts) > maxPrefixes {
		p.add(path, "at most %d prefixes are allowed", maxPrefixes)
		return nil
	}
	var out []netip.Prefix
	for _, s := range texts {
		pre, err := netip.ParsePrefix(s)
		switch {
		case err != nil:
			p.add(path, "%q is not a prefix such as 10.0.0.0/24", s)
			continue
		case !pre.Addr().Is4():
			p.add(path, "%s: only IPv4 prefixes are supported in this version", s)
			continue
		case pre != pre.Masked():
			p.add(path, "%s has bits set beyond its length; did you mean %s?", s, pre.Masked())
			continue
		case pre.Bits() < 2 || pre.Bits() > 29:
			p.add(path, "%s: a prefix is between /2 and /29", s)
			continue
		}
		for _, o := range out {
			if o.Overlaps(pre) {
				p.add(path, "%s and %s overlap", o, pre)
			}
		}
		out = append(out, pre)
	}
	return out
}

func putSubnet(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	vnet, err := tx.Get(ctx, c.New.ID.Parent())
	if err != nil {
		return err
	}
	siblings, err := tx.List(ctx, resource.Query{Type: TypeSubnet, Under: vnet.ID})
	if err != nil {
		return err
	}
	all := slices.DeleteFunc(siblings, func(s resource.Doc) bool { return s.ID.Equal(c.New.ID) })
	if err := fitSubnets(vnet, append(all, *c.New), func(int) string { return "properties.addressPrefix" }); err != nil {
		return err
	}
	var was resource.Object
	if c.Old != nil {
		was = objectAt(c.Old.Body, "properties")
	}
	if err := mayJoinGroup(ctx, tx, c.Caller, c.New.ID, was, objectAt(c.New.Body, "properties")); err != nil {
		return err
	}
	if err := underGroup(ctx, tx, c.New.ID, was, objectAt(c.New.Body, "properties")); err != nil {
		return err
	}
	return keepsAddresses(ctx, tx, c.Old, c.New)
}

// fitSubnets says whether the subnets lie inside the network and apart from
// each other, and of each that does not at the path that at has for it.
func fitSubnets(vnet resource.Doc, subnets []resource.Doc, at func(int) string) error {
	var none problems
	var wrong []error
	space := vnetPrefixes(&none, vnet.Body)
	type held struct {
		name string
		p    netip.Prefix
	}
	var seen []held
	for i, d := range subnets {
		for _, pre := range subnetPrefixes(&none, "", objectAt(d.Body, "properties")) {
			if !covered(pre, space) {
				wrong = append(wrong, fault.At(at(i), ErrSubnetOutside.Detail("Subnet '%s' is not valid because its IP address range %s is outside the IP address range of virtual network '%s'.", d.ID.Name(), pre, vnet.ID.Name())))
			}
			for _, h := range seen {
				if h.p.Overlaps(pre) {
					wrong = append(wrong, fault.At(at(i), ErrSubnetOverlap.Detail("Subnet '%s' is not valid because its IP address range %s overlaps with that of subnet '%s' in virtual network '%s'.", d.ID.Name(), pre, h.name, vnet.ID.Name())))
				}
			}
			seen = append(seen, held{d.ID.Name(), pre})
		}
	}
	return fault.All(wrong...)
}

// covered reports whether one of the space's prefixes holds all of p.
func covered(p netip.Prefix, space []netip.Prefix) bool {
	for _, s := range space {
		if s.Bits() <= p.Bits() && s.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// keepsAddresses refuses a change that takes a prefix from under addresses
// that are held. A prefix that grows keeps them: what is reserved moves
// outwards only.
func keepsAddresses(ctx context.Context, r resource.Reader, old, now *resource.Doc) error {
	if old == nil {
		return nil
	}
	var none problems
	was := subnetPrefixes(&none, "", objectAt(old.Body, "properties"))
	is := subnetPrefixes(&none, "", objectAt(now.Body, "properties"))
	for _, p := range was {
		if covered(p, is) {
			continue
		}
		held, err := holders(ctx, r, old.UID, 1)
		if err != nil {
			return err
		}
		if len(held) > 0 {
			return fault.At("properties.addressPrefix", ErrPrefixInUse.Detail("IpPrefix %s on Subnet %s has active allocations and cannot be deleted.", p, old.ID.Name()))
		}
	}
	return nil
}

func deleteSubnet(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	held, err := holders(ctx, tx, doc.UID, 1)
	if err != nil {
		return err
	}
	if len(held) > 0 {
		return ErrSubnetInUse.Detail("Subnet %s is in use by %s and cannot be deleted. In order to delete the subnet, delete all the resources within the subnet.", doc.ID.Name(), held[0])
	}
	if err := underGroup(ctx, tx, doc.ID, objectAt(doc.Body, "properties"), nil); err != nil {
		return err
	}
	return tx.Delete(ctx, poolID(doc.UID))
}

func showSubnet(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	set(body, "Succeeded", "properties", "provisioningState")
	for key, def := range map[string]string{"privateEndpointNetworkPolicies": "Disabled", "privateLinkServiceNetworkPolicies": "Enabled"} {
		if textAt(body, "properties", key) == "" {
			set(body, def, "properties", key)
		}
	}
	if at(body, "properties", "delegations") == nil {
		set(body, []any{}, "properties", "delegations")
	}
	showServices(body)
	held, err := holders(ctx, r, doc.UID, 0)
	if err != nil {
		return err
	}
	configs := make([]any, len(held))
	for i, id := range held {
		configs[i] = ref(id)
	}
	if len(configs) > 0 {
		set(body, configs, "properties", "ipConfigurations")
	}
	return nil
}

// inlineSubnets makes the virtual network's subnets what its body lists: those
// it does not list are deleted, the others written. A body without the
// property says nothing about them.
func inlineSubnets(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	now, err := tx.List(ctx, resource.Query{Type: TypeSubnet, Under: c.New.ID})
	if err != nil {
		return err
	}
	want, where := now, func(int) string { return "properties.addressSpace.addressPrefixes" }
	props := objectAt(c.New.Body, "properties")
	inline, listed := props["subnets"]
	if listed && inline != nil {
		want = nil
		where = func(i int) string { return fmt.Sprintf("properties.subnets[%d].properties.addressPrefix", i) }
		order := []any{}
		for _, s := range objectsAt(props, "subnets") {
			order = append(order, textAt(s, "name"))
			id := c.New.ID.Child("subnets", textAt(s, "name"))
			want = append(want, resource.Doc{ID: id, Body: inlineBody(s, subnetReadOnly)})
		}
		set(c.New.Body, order, "cove", "subnets")
	}
	delete(props, "subnets")
	if err := fitSubnets(*c.New, want, where); err != nil {
		return err
	}
	for _, old := range now {
		if !hasDoc(want, old.ID) {
			if err := deleteSubnet(ctx, tx, old, c.Caller); err != nil {
				return err
			}
			if err := tx.Delete(ctx, old.ID); err != nil {
				return err
			}
		}
	}
	for i := range want {
		if want[i].UID != "" {
			continue // not listed anew
		}
		if err := writeInline(ctx, tx, c.Caller, &want[i]); err != nil {
			return err
		}
	}
	return nil
}

func writeInline(ctx context.Context, tx resource.Tx, by resource.Caller, doc *resource.Doc) error {
	old, err := tx.Get(ctx, doc.ID)
	if err == nil || errors.Is(err, resource.ErrUnknown) {
		if err := mayJoinGroup(ctx, tx, by, doc.ID, objectAt(old.Body, "properties"), objectAt(doc.Body, "properties")); err != nil {
			return err
		}
		if err := underGroup(ctx, tx, doc.ID, objectAt(old.Body, "properties"), objectAt(doc.Body, "properties")); err != nil {
			return err
		}
	}
	switch {
	case errors.Is(err, resource.ErrUnknown):
	case err != nil:
		return err
	default:
		if err := keepsAddresses(ctx, tx, &old, doc); err != nil {
			return err
		}
		if sameBody(old.Body, doc.Body) {
			return nil
		}
		doc.ID, doc.UID, doc.ETag, doc.Created = old.ID, old.UID, old.ETag, old.Created
	}
	return tx.Put(ctx, doc)
}

func hasDoc(docs []resource.Doc, id arm.ID) bool {
	for _, d := range docs {
		if d.ID.Equal(id) {
			return true
		}
	}
	return false
}
