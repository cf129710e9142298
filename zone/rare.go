package zone

import (
	"fmt"
	"math"
	"strings"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// The record sets that registries have no use for, and that a zone has which
// was brought along from elsewhere.

// A text is at most 255 bytes on the wire (RFC 1035, 3.3.14); Azure allows
// 1,024 characters in all the texts of one record.
const (
	maxText  = 255
	maxTexts = 1024
)

// listed goes over the records of a set, which must be a list of objects, and
// says what is wrong with each.
func listed(props resource.Object, list string, check func(path string, r resource.Object, bad func(path, message string))) (out []fault.Field) {
	records, ok := props[list].([]any)
	path := "properties." + list
	if props[list] != nil && !ok {
		return []fault.Field{{Path: path, Message: "must be a list"}}
	}
	if len(records) > maxRecords {
		out = append(out, fault.Field{Path: path, Message: fmt.Sprintf("has %d records; a record set may have %d", len(records), maxRecords)})
	}
	for i, r := range records {
		o, ok := r.(resource.Object)
		at := fmt.Sprintf("%s[%d]", path, i)
		if !ok {
			out = append(out, fault.Field{Path: at, Message: "must be an object"})
			continue
		}
		check(at, o, func(field, message string) {
			out = append(out, fault.Field{Path: at + "." + field, Message: message})
		})
	}
	return out
}

// checkTarget says what is wrong with a name that a record leads to.
func checkTarget(r resource.Object, field string, bad func(path, message string)) {
	text, _ := r[field].(string)
	if err := checkName(canonical(text)); err != nil {
		bad(field, err.Error())
	}
}

// checkSmall says what is wrong with a number of 16 bits.
func checkSmall(r resource.Object, field string, bad func(path, message string)) {
	if n, ok := number(r[field]); !ok || n < 0 || n > math.MaxUint16 {
		bad(field, "must be a whole number from 0 to 65535")
	}
}

func checkTexts(props resource.Object) []fault.Field {
	return listed(props, "txtRecords", func(_ string, r resource.Object, bad func(path, message string)) {
		texts, ok := r["value"].([]any)
		if !ok || len(texts) == 0 {
			bad("value", "must be a list of texts")
		}
		sum := 0
		for i, t := range texts {
			text, ok := t.(string)
			if sum += len(text); !ok || len(text) > maxText {
				bad(fmt.Sprintf("value[%d]", i), fmt.Sprintf("must be a text of at most %d bytes", maxText))
			}
		}
		if sum > maxTexts {
			bad("value", fmt.Sprintf("has %d bytes; a record may have %d", sum, maxTexts))
		}
	})
}

func checkMX(props resource.Object) []fault.Field {
	return listed(props, "mxRecords", func(_ string, r resource.Object, bad func(path, message string)) {
		checkSmall(r, "preference", bad)
		checkTarget(r, "exchange", bad)
	})
}

func checkSRV(props resource.Object) []fault.Field {
	return listed(props, "srvRecords", func(_ string, r resource.Object, bad func(path, message string)) {
		for _, field := range []string{"priority", "weight", "port"} {
			checkSmall(r, field, bad)
		}
		checkTarget(r, "target", bad)
	})
}

func checkPTR(props resource.Object) []fault.Field {
	return listed(props, "ptrRecords", func(_ string, r resource.Object, bad func(path, message string)) {
		checkTarget(r, "ptrdname", bad)
	})
}

// rareOf are the records of a stored set of one of these types, as they are
// answered but for their time to live.
func rareOf(typ string, props resource.Object) (out []Record) {
	each := func(list string, read func(r resource.Object) Record) {
		records, _ := props[list].([]any)
		for _, r := range records {
			o, _ := r.(resource.Object)
			out = append(out, read(o))
		}
	}
	small := func(o resource.Object, field string) uint16 { n, _ := number(o[field]); return uint16(n) }
	name := func(o resource.Object, field string) string { s, _ := o[field].(string); return canonical(s) }
	switch {
	case strings.EqualFold(typ, TypeZoneTXT):
		each("txtRecords", func(o resource.Object) Record {
			r := Record{Type: TypeTXT}
			texts, _ := o["value"].([]any)
			for _, t := range texts {
				text, _ := t.(string)
				r.Text = append(r.Text, text)
			}
			return r
		})
	case strings.EqualFold(typ, TypeZoneMX):
		each("mxRecords", func(o resource.Object) Record {
			return Record{Type: TypeMX, Preference: small(o, "preference"), Target: name(o, "exchange")}
		})
	case strings.EqualFold(typ, TypeZoneSRV):
		each("srvRecords", func(o resource.Object) Record {
			return Record{Type: TypeSRV, Priority: small(o, "priority"), Weight: small(o, "weight"), Port: small(o, "port"), Target: name(o, "target")}
		})
	case strings.EqualFold(typ, TypeZonePTR):
		each("ptrRecords", func(o resource.Object) Record { return Record{Type: TypePTR, Target: name(o, "ptrdname")} })
	}
	return out
}
