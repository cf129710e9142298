package zone

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/network"
	"cove.example/cove/resource"
)

// A zone group keeps the records of one private endpoint in the zones that it
// names, in the endpoint's own transactions. Two endpoints that share a zone
// and a name take the record from each other: the last to write has it, as in
// Azure, which is why each region wants a zone of its own.

func (c Config) groupType() resource.Type {
	return resource.Type{
		Name:  TypeGroup,
		Check: checkGroup,
		Put: func(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
			endpoint, err := c.admitGroup(ctx, tx, ch)
			if err != nil {
				return err
			}
			var before []set
			if ch.Old != nil {
				before = written(ch.Old.Body)
			}
			return c.sync(ctx, tx, endpoint, ch.New, before)
		},
		Delete: func(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
			endpoint, err := tx.Get(ctx, doc.ID.Parent())
			if err != nil {
				return fmt.Errorf("read the private endpoint of a zone group: %w", err)
			}
			for _, s := range written(doc.Body) {
				if err := withdraw(ctx, tx, endpoint, s); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func checkGroup(c *resource.Change) (bad []fault.Field) {
	const path = "properties.privateDnsZoneConfigs"
	configs, _ := resource.Lookup(c.New.Body, path).([]any)
	if len(configs) < 1 || len(configs) > maxZoneGroups {
		return []fault.Field{{Path: path, Message: fmt.Sprintf("must name 1 to %d zones", maxZoneGroups)}}
	}
	names, zones := map[string]bool{}, map[string]bool{}
	for i, v := range configs {
		o, _ := v.(resource.Object)
		at := fmt.Sprintf("%s[%d].", path, i)
		name, _ := o["name"].(string)
		if name == "" || len(name) > 80 || names[strings.ToLower(name)] {
			bad = append(bad, fault.Field{Path: at + "name", Message: "must be 1 to 80 characters and not repeat another's"})
		}
		names[strings.ToLower(name)] = true
		zone := zoneOf(o)
		if zone.IsZero() || zones[zone.Key()] {
			bad = append(bad, fault.Field{Path: at + "properties.privateDnsZoneId", Message: "must be the id of a private DNS zone and not repeat another's"})
		}
		zones[zone.Key()] = true
	}
	return bad
}

// zoneOf is the zone of one config of a group, or zero.
func zoneOf(config resource.Object) arm.ID {
	text, _ := resource.Lookup(config, "properties.privateDnsZoneId").(string)
	id, err := arm.ParseID(text)
	if err != nil || !strings.EqualFold(id.Type(), TypeZone) {
		return arm.ID{}
	}
	return id
}

func (c Config) admitGroup(ctx context.Context, tx resource.Tx, ch *resource.Change) (endpoint resource.Doc, err error) {
	endpoint, err = tx.Get(ctx, ch.New.ID.Parent())
	if err != nil {
		return endpoint, err
	}
	groups, err := tx.List(ctx, resource.Query{Type: TypeGroup, Under: endpoint.ID})
	if err != nil {
		return endpoint, err
	}
	for _, g := range groups {
		if !g.ID.Equal(ch.New.ID) {
			return endpoint, ErrOneGroup
		}
	}
	for i, o := range configsOf(ch.New.Body) {
		if err := may(ch.Caller, ActionJoinZone, zoneOf(o)); err != nil {
			return endpoint, err
		}
		if _, err := tx.Get(ctx, zoneOf(o)); err != nil {
			return endpoint, fault.At(fmt.Sprintf("properties.privateDnsZoneConfigs[%d].properties.privateDnsZoneId", i), missing(err, "private DNS zone", zoneOf(o)))
		}
	}
	return endpoint, nil
}

// EndpointChanged brings the records of a private endpoint's zone groups up to
// date. It belongs into network.Config.EndpointChanged.
func (c Config) EndpointChanged(ctx context.Context, tx resource.Tx, endpoint resource.Doc) error {
	groups, err := tx.List(ctx, resource.Query{Type: TypeGroup, Under: endpoint.ID})
	if err != nil {
		return err
	}
	for _, g := range groups {
		before := written(g.Body)
		if err := c.sync(ctx, tx, endpoint, &g, before); err != nil {
			return err
		}
		if err := tx.Put(ctx, &g); err != nil {
			return err
		}
	}
	return nil
}

// set is one record set that a group wrote.
type set struct {
	id    arm.ID
	addrs []string
}

// sync writes what the endpoint needs into the zones of group, withdraws what
// was written before and is not needed any more, and notes in the group what
// it wrote.
func (c Config) sync(ctx context.Context, tx resource.Tx, endpoint resource.Doc, group *resource.Doc, before []set) error {
	overrides, err := network.EndpointRecords(ctx, tx, endpoint.ID)
	if err != nil {
		return fmt.Errorf("read the names of %s: %w", endpoint.ID, err)
	}
	kept := map[string]bool{}
	for _, o := range configsOf(group.Body) {
		zone := zoneOf(o)
		sets := c.wanted(zone, overrides)
		state := "Succeeded"
		switch _, err := tx.Get(ctx, zone); {
		case errors.Is(err, resource.ErrUnknown):
			sets = nil // deleted since; the group is not to blame
		case err != nil:
			return err
		}
		shown := []any{}
		for _, s := range sets {
			kept[s.id.Key()] = true
			if err := publish(ctx, tx, endpoint, s); err != nil {
				return err
			}
			shown = append(shown, resource.Object{
				"recordType": "A", "recordSetName": s.id.Name(), "fqdn": absolute(s.id.Name(), zone.Name()),
				"ttl": json.Number(strconv.Itoa(ttlAddress)), "ipAddresses": anys(s.addrs), "provisioningState": state,
			})
		}
		resource.Assign(o, "properties.recordSets", shown)
	}
	for _, s := range before {
		if !kept[s.id.Key()] {
			if err := withdraw(ctx, tx, endpoint, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// wanted are the record sets that an endpoint needs in one zone, in order.
func (c Config) wanted(zone arm.ID, overrides []network.Record) (sets []set) {
	for _, o := range overrides {
		name, ok := RecordName(zone.Name(), o.FQDN, c.Suffix)
		if !ok || !o.Address.Is4() || checkRelative(name, zone.Name()) != nil {
			continue
		}
		id := zone.Child("A", name)
		i := slices.IndexFunc(sets, func(s set) bool { return s.id.Equal(id) })
		if i < 0 {
			sets = append(sets, set{id: id})
			i = len(sets) - 1
		}
		if a := o.Address.String(); !slices.Contains(sets[i].addrs, a) {
			sets[i].addrs = append(sets[i].addrs, a)
		}
	}
	return sets
}

// creator marks a record set as a private endpoint's, in the words that Azure
// uses. Who writes the record set by hand takes the mark away and has it.
func creator(endpoint resource.Doc) string {
	return fmt.Sprintf("created by private endpoint %s with resource guid %s", endpoint.ID.Name(), endpoint.UID)
}

func publish(ctx context.Context, tx resource.Tx, endpoint resource.Doc, s set) error {
	zone := s.id.Parent()
	records := make([]any, len(s.addrs))
	for i, a := range s.addrs {
		records[i] = resource.Object{"ipv4Address": a}
	}
	body := resource.Object{"properties": resource.Object{
		"ttl": json.Number(strconv.Itoa(ttlAddress)), "fqdn": absolute(s.id.Name(), zone.Name()) + ".",
		"isAutoRegistered": false, "aRecords": records,
		"metadata": resource.Object{"creator": creator(endpoint)},
	}}
	doc, err := tx.Get(ctx, s.id)
	switch {
	case errors.Is(err, resource.ErrUnknown):
		if err := admitSet(ctx, tx, s.id); err != nil {
			return err
		}
		doc = resource.Doc{ID: s.id}
	case err != nil:
		return err
	case same(doc.Body, body):
		return nil // the endpoint changed in something else
	}
	doc.Body = body
	return tx.Put(ctx, &doc)
}

func same(a, b resource.Object) bool {
	x, errX := resource.Encode(a)
	y, errY := resource.Encode(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// withdraw deletes a record set that is still the endpoint's.
func withdraw(ctx context.Context, tx resource.Tx, endpoint resource.Doc, s set) error {
	doc, err := tx.Get(ctx, s.id)
	if errors.Is(err, resource.ErrUnknown) {
		return nil
	}
	if err != nil {
		return err
	}
	if resource.Lookup(doc.Body, "properties.metadata.creator") != creator(endpoint) {
		return nil
	}
	return tx.Delete(ctx, s.id)
}

func configsOf(body resource.Object) (configs []resource.Object) {
	list, _ := resource.Lookup(body, "properties.privateDnsZoneConfigs").([]any)
	for _, v := range list {
		if o, ok := v.(resource.Object); ok {
			configs = append(configs, o)
		}
	}
	return configs
}

// written are the record sets that a group's body says it wrote. A caller
// cannot forge them into a group: Put reads them from the stored body only,
// and withdraw checks the mark besides.
func written(body resource.Object) (sets []set) {
	for _, o := range configsOf(body) {
		shown, _ := resource.Lookup(o, "properties.recordSets").([]any)
		for _, v := range shown {
			r, _ := v.(resource.Object)
			name, _ := r["recordSetName"].(string)
			if zone := zoneOf(o); !zone.IsZero() && checkRelative(name, zone.Name()) == nil {
				sets = append(sets, set{id: zone.Child("A", name)})
			}
		}
	}
	return sets
}

func anys(s []string) []any {
	out := make([]any, len(s))
	for i := range s {
		out[i] = s[i]
	}
	return out
}
