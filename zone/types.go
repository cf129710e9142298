package zone

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/network"
	"cove.example/cove/resource"
)

// The resource types of this package, as ARM spells them.
const (
	TypeZone      = "Microsoft.Network/privateDnsZones"
	TypeLink      = TypeZone + "/virtualNetworkLinks"
	TypeZoneA     = TypeZone + "/A"
	TypeZoneAAAA  = TypeZone + "/AAAA"
	TypeZoneCNAME = TypeZone + "/CNAME"
	TypeZoneSOA   = TypeZone + "/SOA"
	TypeZoneTXT   = TypeZone + "/TXT"
	TypeZoneMX    = TypeZone + "/MX"
	TypeZoneSRV   = TypeZone + "/SRV"
	TypeZonePTR   = TypeZone + "/PTR"
	TypeGroup     = network.TypeEndpoint + "/privateDnsZoneGroups"
)

// The permissions that this package asks for itself, beyond those that the
// service asks for every verb.
const (
	// ActionJoinNetwork is what linking a zone to a network needs there.
	// Without it whoever may make a zone could answer names in a network that
	// is not theirs.
	ActionJoinNetwork = "Microsoft.Network/virtualNetworks/join/action"
	// ActionJoinZone is what a zone group needs on each zone that it writes.
	ActionJoinZone = "Microsoft.Network/privateDnsZones/join/action"
)

// Config is what the resource types need of the deployment.
type Config struct {
	Suffix string // of registries: cr.cove.internal
}

// Types are the rows of the resource table that this package fills.
func Types(c Config) []resource.Type {
	return []resource.Type{
		zoneType(), linkType(),
		recordType(TypeZoneA, checkAddresses("aRecords", "ipv4Address", netip.Addr.Is4)),
		recordType(TypeZoneAAAA, checkAddresses("aaaaRecords", "ipv6Address", netip.Addr.Is6)),
		recordType(TypeZoneCNAME, checkCNAME),
		recordType(TypeZoneTXT, checkTexts), recordType(TypeZoneMX, checkMX), recordType(TypeZoneSRV, checkSRV), recordType(TypeZonePTR, checkPTR),
		soaType(), c.groupType(),
	}
}

// zoneType is Microsoft.Network/privateDnsZones. A zone with links is not
// deleted (TypeLink pins it): the links of a deleted endpoint's zone stay
// until somebody takes them away.
func zoneType() resource.Type {
	return resource.Type{
		Name: TypeZone,
		CheckName: func(name string) string {
			if n := strings.Count(name, ".") + 1; n < 2 || n > 34 {
				return "must have 2 to 34 labels"
			}
			if err := checkName(name); err != nil {
				return err.Error()
			}
			return ""
		},
		Check: checkGlobal,
		Put: func(ctx context.Context, tx resource.Tx, c *resource.Change) error {
			c.New.Body["location"] = "global"
			if c.Old != nil {
				return nil
			}
			return tx.Put(ctx, &resource.Doc{ID: c.New.ID.Child("SOA", "@"), Body: resource.Object{
				"properties": resource.Object{"ttl": ttlManual},
			}})
		},
		Show: showZone,
	}
}

func showZone(ctx context.Context, r resource.Reader, doc resource.Doc, body resource.Object) error {
	sets, err := countSets(ctx, r, doc.ID)
	if err != nil {
		return err
	}
	links, err := r.Count(ctx, TypeLink, doc.ID)
	if err != nil {
		return err
	}
	counts := resource.Object{
		"maxNumberOfRecordSets":                          maxRecordSets,
		"maxNumberOfVirtualNetworkLinks":                 maxLinks,
		"maxNumberOfVirtualNetworkLinksWithRegistration": 0,
		"numberOfRecordSets":                             sets,
		"numberOfVirtualNetworkLinks":                    links,
		"numberOfVirtualNetworkLinksWithRegistration":    0,
		"provisioningState":                              "Succeeded",
	}
	for path, v := range counts {
		resource.Assign(body, "properties."+path, v)
	}
	return nil
}

// setTypes are the types of record sets but for the SOA, of which there is one.
var setTypes = []string{TypeZoneA, TypeZoneAAAA, TypeZoneCNAME, TypeZoneTXT, TypeZoneMX, TypeZoneSRV, TypeZonePTR}

// recordSets are a zone's record sets without its SOA.
func recordSets(ctx context.Context, r resource.Reader, zone arm.ID) ([]resource.Doc, error) {
	var all []resource.Doc
	for _, typ := range setTypes {
		docs, err := r.List(ctx, resource.Query{Type: typ, Under: zone})
		if err != nil {
			return nil, err
		}
		all = append(all, docs...)
	}
	return all, nil
}

// setsAt are a zone's record sets of one relative name, without its SOA.
func setsAt(ctx context.Context, r resource.Reader, zone arm.ID, name string) ([]resource.Doc, error) {
	var all []resource.Doc
	for _, typ := range setTypes {
		doc, err := r.Get(ctx, zone.Child(typ[len(TypeZone)+1:], name))
		switch {
		case err == nil:
			all = append(all, doc)
		case !errors.Is(err, resource.ErrUnknown):
			return nil, err
		}
	}
	return all, nil
}

// countSets is how many record sets a zone has, its SOA among them.
func countSets(ctx context.Context, r resource.Reader, zone arm.ID) (int64, error) {
	all := int64(1)
	for _, typ := range setTypes {
		n, err := r.Count(ctx, typ, zone)
		if err != nil {
			return 0, err
		}
		all += n
	}
	return all, nil
}

// checkGlobal: zones and links lie in no region.
func checkGlobal(c *resource.Change) []fault.Field {
	if l, _ := c.New.Body["location"].(string); l != "" && !strings.EqualFold(l, "global") {
		return []fault.Field{{Path: "location", Message: "must be global"}}
	}
	return nil
}

// linkType is a zone's link to a virtual network.
func linkType() resource.Type {
	return resource.Type{
		Name:     TypeLink,
		Pins:     true,
		ReadOnly: []string{"properties.virtualNetworkLinkState"},
		Check:    checkLink,
		Put:      putLink,
		Delete:   deleteLink,
	}
}

func checkLink(c *resource.Change) []fault.Field {
	bad := checkGlobal(c)
	body := c.New.Body
	id := vnetOf(*c.New)
	switch {
	case id.IsZero():
		bad = append(bad, fault.Field{Path: "properties.virtualNetwork.id", Message: "must be the id of a virtual network"})
	case c.Old != nil && !vnetOf(*c.Old).Equal(id):
		bad = append(bad, fault.Field{Path: "properties.virtualNetwork.id", Message: "cannot be changed; make another link"})
	}
	switch v := resource.Lookup(body, "properties.registrationEnabled").(type) {
	case nil:
		resource.Assign(body, "properties.registrationEnabled", false)
	case bool:
		if v {
			bad = append(bad, fault.Field{Path: "properties.registrationEnabled", Message: "must be false: members are not registered by themselves"})
		}
	default:
		bad = append(bad, fault.Field{Path: "properties.registrationEnabled", Message: "must be true or false"})
	}
	switch policy := resource.Lookup(body, "properties.resolutionPolicy"); policy {
	case nil:
		resource.Assign(body, "properties.resolutionPolicy", "Default")
	case "Default":
	case "NxDomainRedirect":
		if !isPrivateLink(c.New.ID.Parent().Name()) {
			bad = append(bad, fault.Field{Path: "properties.resolutionPolicy", Message: "NxDomainRedirect is for privatelink zones only"})
		}
	default:
		bad = append(bad, fault.Field{Path: "properties.resolutionPolicy", Message: "must be Default or NxDomainRedirect"})
	}
	return bad
}

// isPrivateLink reports whether a zone has the label that public chains lead
// to.
func isPrivateLink(zone string) bool {
	for l := range strings.SplitSeq(canonical(zone), ".") {
		if l == privateLabel {
			return true
		}
	}
	return false
}

// vnetOf is the virtual network of a link, or zero.
func vnetOf(doc resource.Doc) arm.ID {
	text, _ := resource.Lookup(doc.Body, "properties.virtualNetwork.id").(string)
	id, err := arm.ParseID(text)
	if err != nil || !strings.EqualFold(id.Type(), network.TypeVirtualNetwork) {
		return arm.ID{}
	}
	return id
}

func putLink(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	c.New.Body["location"] = "global"
	resource.Assign(c.New.Body, "properties.virtualNetworkLinkState", "Completed")
	if c.Old != nil {
		return nil
	}
	vnet := vnetOf(*c.New)
	if err := may(c.Caller, ActionJoinNetwork, vnet); err != nil {
		return err
	}
	if _, err := tx.Get(ctx, vnet); err != nil {
		return fault.At("properties.virtualNetwork.id", missing(err, "virtual network", vnet))
	}
	zone := c.New.ID.Parent()
	at, err := linkedAs(*c.New)
	if err != nil {
		return err
	}
	held, err := tx.Get(ctx, at)
	switch {
	case err == nil:
		text, _ := held.Body["holder"].(string)
		other, err := arm.ParseID(text)
		if err != nil {
			return fmt.Errorf("read which zone a network is linked to: %w", err)
		}
		return fault.At("properties.virtualNetwork.id", ErrOverlap.Detail("A virtual network cannot be linked to multiple zones with overlapping namespaces. You tried to link virtual network with '%s' and '%s' zones.", other.Parent().Name(), zone.Name()))
	case !errors.Is(err, resource.ErrUnknown):
		return err
	}
	n, err := tx.Count(ctx, TypeLink, zone)
	if err != nil {
		return err
	}
	if n >= maxLinks {
		return ErrFull.Detail("The zone %s has %d links to virtual networks, as many as it may have.", zone.Name(), n)
	}
	return tx.Put(ctx, &resource.Doc{ID: at, Body: resource.Object{"holder": c.New.ID.String()}})
}

// linkedAs is the document that says which link joins a network to a zone of
// that name: a network has one at most, and to find it nobody looks through the
// links of all.
func linkedAs(link resource.Doc) (arm.ID, error) {
	sum := sha256.Sum256([]byte(strings.ToLower(link.ID.Parent().Name()) + " " + vnetOf(link).Key()))
	return arm.ParseID("/providers/Cove.Names/" + strings.ReplaceAll(TypeLink, "/", ".") + "/" + hex.EncodeToString(sum[:16]))
}

func deleteLink(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	at, err := linkedAs(doc)
	if err != nil {
		return err
	}
	return tx.Delete(ctx, at)
}

// may asks for a permission on a resource that a body names. The answer is
// the same for one that does not exist, so that nobody finds out by asking.
func may(by resource.Caller, action string, on arm.ID) error {
	if by.May == nil || !by.May(action, on) {
		return ErrLinked.Detail("The client has permission to write this resource, but not to perform action '%s' on the linked scope '%s', or the linked scope is invalid.", action, on)
	}
	return nil
}

// missing turns "not found" of a resource that a body names into the fault of
// that body.
func missing(err error, what string, id arm.ID) error {
	if fault.Is(err, fault.NotFound) {
		return network.ErrReference.Detail("The %s '%s' was not found.", what, id)
	}
	return fmt.Errorf("read the %s: %w", what, err)
}
