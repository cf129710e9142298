package zone

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// recordType is one type of record set in a zone. check looks at the records
// of the type, below properties.
func recordType(typ string, check func(props resource.Object) []fault.Field) resource.Type {
	return resource.Type{
		Name:     typ,
		ReadOnly: []string{"properties.fqdn", "properties.isAutoRegistered"},
		Whole:    []string{pathMetadata},
		CheckName: func(name string) string {
			// The zone is not known here; Check measures the two together.
			if err := checkRelative(name, "zone"); err != nil {
				return err.Error()
			}
			return ""
		},
		Check: func(c *resource.Change) []fault.Field {
			props, ok := c.New.Body["properties"].(resource.Object)
			if !ok {
				return []fault.Field{{Path: "properties", Message: "is required"}}
			}
			bad := append(check(props), checkMetadata(props)...)
			name, zone := c.New.ID.Name(), c.New.ID.Parent().Name()
			if err := checkRelative(name, zone); err != nil {
				bad = append(bad, fault.Field{Path: "name", Message: err.Error()})
			}
			if typ == TypeZoneCNAME && name == "@" {
				bad = append(bad, fault.Field{Path: "name", Message: "a CNAME record set cannot be at the zone's own name"})
			}
			if props["ttl"] == nil {
				props["ttl"] = json.Number(strconv.Itoa(ttlManual))
			}
			if n, ok := number(props["ttl"]); !ok || n < 1 || n > maxTTL {
				bad = append(bad, fault.Field{Path: "properties.ttl", Message: fmt.Sprintf("must be a whole number of seconds from 1 to %d", maxTTL)})
			}
			props["fqdn"] = absolute(name, zone) + "."
			props["isAutoRegistered"] = false
			return bad
		},
		Put: func(ctx context.Context, tx resource.Tx, c *resource.Change) error {
			if c.Old != nil {
				return nil
			}
			return admitSet(ctx, tx, c.New.ID)
		},
	}
}

// pathMetadata are the words that a caller keeps with a record set.
const pathMetadata = "properties.metadata"

func checkMetadata(props resource.Object) (bad []fault.Field) {
	words, ok := props["metadata"].(resource.Object)
	if props["metadata"] != nil && !ok {
		return []fault.Field{{Path: pathMetadata, Message: "must be an object of strings"}}
	}
	for _, name := range slices.Sorted(maps.Keys(words)) {
		if _, ok := words[name].(string); !ok {
			bad = append(bad, fault.Field{Path: pathMetadata + "." + name, Message: "must be a string"})
		}
	}
	return bad
}

// number reads a JSON number that is whole.
func number(v any) (int64, bool) {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		return n, err == nil
	case float64:
		return int64(v), v == float64(int64(v))
	case int:
		return int64(v), true
	case int64:
		return v, true
	}
	return 0, false
}

// admitSet refuses a new record set beside a CNAME (RFC 1034, 3.6.2: where a
// CNAME is, nothing else is) and in a full zone.
func admitSet(ctx context.Context, r resource.Reader, id arm.ID) error {
	zone := id.Parent()
	sets, err := setsAt(ctx, r, zone, id.Name())
	if err != nil {
		return err
	}
	isCNAME := strings.EqualFold(id.Type(), TypeZoneCNAME)
	for _, s := range sets {
		if isCNAME || strings.EqualFold(s.ID.Type(), TypeZoneCNAME) {
			return ErrMixed.Detail("The zone %s has a record set of another type with the name %s, and one of the two is a CNAME.", zone.Name(), id.Name())
		}
	}
	n, err := countSets(ctx, r, zone)
	if err != nil {
		return err
	}
	if n >= maxRecordSets {
		return ErrFull.Detail("The zone %s has %d record sets, as many as it may have.", zone.Name(), n)
	}
	return nil
}

// checkAddresses checks a list of addresses of one family. An empty list is
// a record set that az makes before it adds the first address; it answers
// nothing.
func checkAddresses(list, field string, family func(netip.Addr) bool) func(resource.Object) []fault.Field {
	return func(props resource.Object) (bad []fault.Field) {
		if _, ok := props[list].([]any); props[list] != nil && !ok {
			return []fault.Field{{Path: "properties." + list, Message: "must be a list"}}
		}
		records, _ := props[list].([]any)
		if len(records) > maxRecords {
			bad = append(bad, fault.Field{Path: "properties." + list, Message: fmt.Sprintf("has %d records; a record set may have %d", len(records), maxRecords)})
		}
		seen := map[netip.Addr]bool{}
		for i, r := range records {
			o, _ := r.(resource.Object)
			text, _ := o[field].(string)
			addr, err := netip.ParseAddr(text)
			path := fmt.Sprintf("properties.%s[%d].%s", list, i, field)
			switch {
			case err != nil || !family(addr) || addr.Zone() != "" || addr.Is4In6():
				bad = append(bad, fault.Field{Path: path, Message: "must be an address of this family"})
			case seen[addr]:
				bad = append(bad, fault.Field{Path: path, Message: "repeats an address"})
			}
			seen[addr] = true
		}
		return bad
	}
}

func checkCNAME(props resource.Object) []fault.Field {
	cname, _ := resource.Lookup(props, "cnameRecord.cname").(string)
	if cname == "" && props["cnameRecord"] == nil {
		return nil // az makes the set first and sets its record then
	}
	if err := checkName(canonical(cname)); err != nil {
		return []fault.Field{{Path: "properties.cnameRecord.cname", Message: err.Error()}}
	}
	return nil
}

// add puts a stored record set into what is answered from. A set without
// records is no name: Azure's servers do not show it either.
func (n *node) add(doc resource.Doc) {
	props, _ := doc.Body["properties"].(resource.Object)
	ttl := uint32(ttlManual)
	if n, ok := number(props["ttl"]); ok && n >= 0 && n <= maxTTL {
		ttl = uint32(n)
	}
	switch typ := doc.ID.Type(); {
	case strings.EqualFold(typ, TypeZoneA):
		for _, a := range addrsOf(props, "aRecords", "ipv4Address") {
			n.a = append(n.a, Record{Type: TypeA, TTL: ttl, Addr: a})
		}
	case strings.EqualFold(typ, TypeZoneAAAA):
		for _, a := range addrsOf(props, "aaaaRecords", "ipv6Address") {
			n.aaaa = append(n.aaaa, Record{Type: TypeAAAA, TTL: ttl, Addr: a})
		}
	case strings.EqualFold(typ, TypeZoneCNAME):
		if cname, _ := resource.Lookup(props, "cnameRecord.cname").(string); cname != "" {
			n.cname = &Record{Type: TypeCNAME, TTL: ttl, Target: canonical(cname)}
		}
	default:
		for _, r := range rareOf(typ, props) {
			r.TTL = ttl
			n.rare = append(n.rare, r)
		}
	}
}

func addrsOf(props resource.Object, list, field string) (addrs []netip.Addr) {
	records, _ := props[list].([]any)
	for _, r := range records {
		o, _ := r.(resource.Object)
		text, _ := o[field].(string)
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}
