package zone

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// soaType is the record that every zone has at its own name. Its server and
// its serial are the zone's; the rest may be set. minimumTtl is how long the
// absence of a name may be remembered.
func soaType() resource.Type {
	return resource.Type{
		Name: TypeZoneSOA, NoDelete: true,
		ReadOnly: []string{"properties.fqdn", "properties.isAutoRegistered", "properties.soaRecord.host", "properties.soaRecord.serialNumber"},
		Whole:    []string{pathMetadata},
		CheckName: func(name string) string {
			if name != "@" {
				return "must be @"
			}
			return ""
		},
		Check: checkSOA,
		Show: func(_ context.Context, _ resource.Reader, doc resource.Doc, body resource.Object) error {
			zone := canonical(doc.ID.Parent().Name())
			ttl, soa := soaOf(doc)
			if soa.Mailbox == "" {
				soa.Mailbox = zone
			}
			shown := resource.Object{
				"host": zone, "email": soa.Mailbox, "serialNumber": soa.Serial, "refreshTime": soa.Refresh,
				"retryTime": soa.Retry, "expireTime": soa.Expire, "minimumTtl": soa.Minimum,
			}
			for path, v := range map[string]any{"fqdn": zone + ".", "ttl": ttl, "isAutoRegistered": false, "soaRecord": shown} {
				if !resource.Assign(body, "properties."+path, v) {
					return fmt.Errorf("the SOA of %s: its stored properties are no object", zone)
				}
			}
			return nil
		},
	}
}

// soaNumbers are the properties of a soaRecord that are seconds.
var soaNumbers = []string{"refreshTime", "retryTime", "expireTime", "minimumTtl"}

func checkSOA(c *resource.Change) (bad []fault.Field) {
	props, _ := c.New.Body["properties"].(resource.Object)
	if v, ok := props["soaRecord"]; ok {
		if _, ok := v.(resource.Object); !ok {
			return []fault.Field{{Path: "properties.soaRecord", Message: "must be an object"}}
		}
	}
	record, _ := props["soaRecord"].(resource.Object)
	seconds := func(o resource.Object, path, name string, least int64) {
		if v, given := o[name]; given {
			if n, ok := number(v); !ok || n < least || n > maxTTL {
				bad = append(bad, fault.Field{Path: path + name, Message: fmt.Sprintf("must be a whole number of seconds from %d to %d", least, maxTTL)})
				return
			}
			// However it was spelled, it is kept as the number that it is.
			n, _ := number(v)
			o[name] = json.Number(strconv.FormatInt(n, 10))
		}
	}
	seconds(props, "properties.", "ttl", 1)
	if twice := resource.Spell(record, append(soaNumbers, "email")...); twice != "" {
		bad = append(bad, fault.Field{Path: "properties.soaRecord." + twice, Message: "is given twice, in spellings that differ in case only"})
	}
	for _, name := range soaNumbers {
		seconds(record, "properties.soaRecord.", name, 1)
	}
	if v, given := record["email"]; given {
		email, _ := v.(string)
		if err := checkName(canonical(email)); err != nil {
			bad = append(bad, fault.Field{Path: "properties.soaRecord.email", Message: err.Error() + "; the @ of the address is written as a dot"})
		}
	}
	return bad
}

// soaOf is what a stored SOA says, with the standard numbers for what it does
// not.
func soaOf(doc resource.Doc) (ttl uint32, soa SOA) {
	ttl, soa = ttlManual, StandardSOA
	record, _ := resource.Lookup(doc.Body, "properties.soaRecord").(resource.Object)
	for name, into := range map[string]*uint32{"refreshTime": &soa.Refresh, "retryTime": &soa.Retry, "expireTime": &soa.Expire, "minimumTtl": &soa.Minimum} {
		if n, ok := number(record[name]); ok && n > 0 && n <= maxTTL {
			*into = uint32(n)
		}
	}
	if n, ok := number(resource.Lookup(doc.Body, "properties.ttl")); ok && n > 0 && n <= maxTTL {
		ttl = uint32(n)
	}
	email, _ := record["email"].(string)
	soa.Mailbox = canonical(email)
	return ttl, soa
}

// begin puts the zone's stored SOA into what is answered from. An answer that
// denies a name is remembered for the smaller of the record's two times
// (RFC 2308, 5), so that is the time that it goes out with.
func (z *records) begin(doc resource.Doc) {
	ttl, soa := soaOf(doc)
	z.soa.TTL, z.soa.SOA = min(ttl, soa.Minimum), &soa
}
