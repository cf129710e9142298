package resource

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"cove.example/cove/fault"
)

// The properties of an envelope that the service computes for every type, and
// the one that az adds when it prints. A caller that sends back what it was
// shown sends them too; they are dropped.
var computed = []string{"id", "name", "type", "etag", "systemData", "resourceGroup", "properties.provisioningState"}

// envelope is what else the body of a resource has, for every type. What a type
// does not know is kept below properties only: az update --set writes a property
// that it does not know of beside them, where nothing ever looks for it.
var envelope = []string{"location", "tags", "sku", "identity", "properties", "kind", "managedBy", "plan", "zones", "extendedLocation"}

// strange are the members of a body that no resource has. Null is none.
func strange(body Object) (problems []fault.Field) {
	for _, name := range slices.Sorted(maps.Keys(body)) {
		if body[name] != nil && !slices.Contains(envelope, name) {
			problems = append(problems, fault.Field{Path: name, Message: "is no member of a resource, which are " + strings.Join(envelope, ", ")})
		}
	}
	return problems
}

// Lookup returns the value at a dotted path below o, or nil.
func Lookup(o Object, path string) any {
	for {
		head, rest, more := strings.Cut(path, ".")
		if !more {
			return o[head]
		}
		next, ok := o[head].(Object)
		if !ok {
			return nil
		}
		o, path = next, rest
	}
}

// Assign sets the value at a dotted path below o and makes the objects on the
// way. It reports false, and changes nothing, where something on the way is no
// object.
func Assign(o Object, path string, v any) bool {
	for {
		head, rest, more := strings.Cut(path, ".")
		if !more {
			o[head] = v
			return true
		}
		next, ok := o[head].(Object)
		if !ok {
			if o[head] != nil {
				return false
			}
			next = Object{}
			if !Assign(next, rest, v) {
				return false
			}
			o[head] = next
			return true
		}
		o, path = next, rest
	}
}

// Remove takes away what is at a dotted path below o. An object that becomes
// empty by it stays.
func Remove(o Object, path string) {
	for {
		head, rest, more := strings.Cut(path, ".")
		if !more {
			delete(o, head)
			return
		}
		next, ok := o[head].(Object)
		if !ok {
			return
		}
		o, path = next, rest
	}
}

// Clone returns a copy that shares no object and no array with v.
func Clone[T any](v T) T {
	c, _ := clone(v).(T)
	return c
}

func clone(v any) any {
	switch v := v.(type) {
	case Object:
		if v == nil {
			return v
		}
		c := make(Object, len(v))
		for k, e := range v {
			c[k] = clone(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = clone(e)
		}
		return c
	}
	return v
}

// withoutNulls removes the properties that are null. In ARM a property that
// is null and one that is absent are the same.
func withoutNulls(o Object) Object {
	for k, v := range o {
		switch v := v.(type) {
		case nil:
			delete(o, k)
		case Object:
			withoutNulls(v)
		}
	}
	return o
}

// merge is RFC 7396 on o, which it changes. A property that o has in another
// case is that property.
func merge(o, patch Object) {
	for k, v := range patch {
		k := spelling(o, k)
		switch v := v.(type) {
		case nil:
			delete(o, k)
		case Object:
			if next, ok := o[k].(Object); ok {
				merge(next, v)
			} else {
				o[k] = withoutNulls(v)
			}
		default:
			o[k] = v
		}
	}
}

// spelling is name as o spells it.
func spelling(o Object, name string) string {
	if _, ok := o[name]; !ok {
		for known := range o {
			if strings.EqualFold(known, name) {
				return known
			}
		}
	}
	return name
}

// Spell gives the properties of o that are among names the case that names
// has: ARM takes them in any case, and a switch in another must not be kept
// without being obeyed. It returns a name that o has twice, or "".
func Spell(o Object, names ...string) (twice string) {
	for key, v := range o {
		i := slices.IndexFunc(names, func(name string) bool { return name != key && strings.EqualFold(name, key) })
		if i < 0 {
			continue
		}
		if _, ok := o[names[i]]; ok {
			return names[i]
		}
		delete(o, key)
		o[names[i]] = v
	}
	return ""
}

// removeAny is Remove for a path in any case, however often it is there.
func removeAny(o Object, path string) {
	head, rest, more := strings.Cut(path, ".")
	for key, v := range o {
		if !strings.EqualFold(key, head) {
			continue
		}
		if !more {
			delete(o, key)
		} else if next, ok := v.(Object); ok {
			removeAny(next, rest)
		}
	}
}

// incoming is a caller's body without what callers cannot set. The body is
// the caller's no longer.
func incoming(t *Type, body Object) (Object, error) {
	if body == nil {
		body = Object{}
	}
	if twice := Spell(body, envelope...); twice != "" {
		return nil, fault.Problems([]fault.Field{{Path: twice, Message: "is given twice, in spellings that differ in case only"}})
	}
	for _, p := range slices.Concat(computed, t.ReadOnly) {
		removeAny(body, p)
	}
	return body, nil
}

// keep puts the stored values that a caller cannot set, and the secrets that
// it did not send because it was never shown them, back into what it sent.
func keep(t *Type, old, body Object) (problems []fault.Field) {
	put := func(path string) {
		if v := Lookup(old, path); v != nil && !Assign(body, path, clone(v)) {
			problems = append(problems, fault.Field{Path: path[:strings.LastIndexByte(path, '.')], Message: "must be an object"})
		}
	}
	for _, p := range t.ReadOnly {
		put(p)
	}
	for _, p := range t.Secret {
		if Lookup(body, p) == nil {
			put(p)
		}
	}
	return problems
}

// shape checks what is the same for every type.
func shape(body Object) (problems []fault.Field) {
	bad := func(path, format string, args ...any) {
		problems = append(problems, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	for _, name := range []string{"properties", "sku", "identity"} {
		if v, ok := body[name]; ok {
			if _, ok := v.(Object); !ok {
				bad(name, "must be an object")
			}
		}
	}
	if v, ok := body["location"]; ok {
		if _, ok := v.(string); !ok {
			bad("location", "must be a string")
		}
	}
	if v, _ := body["zones"].([]any); len(v) > 0 {
		bad("zones", "availability zones are not in this version")
	}
	if body["extendedLocation"] != nil {
		bad("extendedLocation", "edge zones are not in this version")
	}
	switch tags := body["tags"].(type) {
	case nil:
	case Object:
		// ARM: at most 50 tags, names to 512 and values to 256 characters.
		if len(tags) > 50 {
			bad("tags", "has %d tags; a resource may have 50", len(tags))
		}
		seen := map[string]bool{}
		for _, name := range slices.Sorted(maps.Keys(tags)) {
			switch value, ok := tags[name].(string); {
			case !ok:
				bad("tags."+name, "must be a string")
			case len(value) > 256:
				bad("tags."+name, "is longer than 256 characters")
			case name == "" || len(name) > 512 || strings.ContainsAny(name, `<>%&\?/`):
				bad("tags", "the name %.40q is empty, longer than 512 characters or has one of <>%%&\\?/", name)
			case seen[strings.ToLower(name)]:
				bad("tags."+name, "repeats a name that differs in case only")
			}
			seen[strings.ToLower(name)] = true
		}
	default:
		bad("tags", "must be an object of strings")
	}
	return problems
}
