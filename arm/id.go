// Package arm holds the words of the Azure Resource Manager contract:
// resource ids and the shape of errors.
package arm

import (
	"strings"

	"cove.example/cove/fault"
)

// ID is a resource identifier such as
// /subscriptions/S/resourceGroups/G/providers/Microsoft.ContainerRegistry/registries/R.
//
// Two spellings that differ in case name the same resource; Key is what they
// share, and what ids are compared and stored by. The zero ID names nothing.
type ID struct{ text string }

// ErrInvalidID is the failure of ParseID.
var ErrInvalidID = fault.Coded(fault.Invalid, "InvalidResourceId", "the resource id is not valid")

const maxID = 2048

// ParseID reads an id, an id of a subscription or of a resource group. It
// accepts what ARM accepts: pairs of type and name, of plain characters. Empty
// segments, dot segments, percent signs and control characters are refused,
// so that no two texts name one resource except by case.
func ParseID(s string) (ID, error) {
	bad := func(why string) (ID, error) {
		return ID{}, ErrInvalidID.Detail("the resource id %q is not valid: %s", clip(s), why)
	}
	if len(s) > maxID {
		return bad("it is too long")
	}
	rest, ok := strings.CutPrefix(s, "/")
	if !ok {
		return bad("it must begin with /")
	}
	parts := strings.Split(rest, "/")
	for _, p := range parts {
		if p == "" || p == "." || p == ".." {
			return bad("it has an empty or dot segment")
		}
		if strings.ContainsFunc(p, func(r rune) bool {
			return r <= ' ' || r == 0x7f || strings.ContainsRune("%?#<>&:;\\\"^{}|`", r) || r > 0x7e
		}) {
			return bad("a segment has a character that no name may have")
		}
	}
	i := 0
	for _, word := range []string{"subscriptions", "resourceGroups"} {
		if i < len(parts) && strings.EqualFold(parts[i], word) && (i == 2 || word == "subscriptions") {
			if i+1 == len(parts) {
				return bad("a name is missing after " + word)
			}
			parts[i] = word
			i += 2
		}
	}
	if i < len(parts) {
		if !strings.EqualFold(parts[i], "providers") {
			return bad("expected providers after the resource group")
		}
		parts[i] = "providers"
		// A nested provider (an extension resource such as a role
		// assignment) starts the same pattern again.
		for j := i; j < len(parts); {
			n := 2
			if strings.EqualFold(parts[j], "providers") {
				parts[j] = "providers"
				if j+1 == len(parts) || j+2 == len(parts) || strings.EqualFold(parts[j+2], "providers") {
					return bad("a resource type is missing after providers")
				}
			}
			if j+n > len(parts) {
				return bad("a name is missing after " + parts[j])
			}
			j += n
		}
	}
	return ID{"/" + strings.Join(parts, "/")}, nil
}

// MustID is ParseID for ids that the program itself spells.
func MustID(s string) ID {
	id, err := ParseID(s)
	if err != nil {
		panic(err)
	}
	return id
}

// String is the id as it was spelled, its keywords in their usual case.
func (id ID) String() string { return id.text }

// Key is the id in lower case: equal for two ids that name one resource.
func (id ID) Key() string { return strings.ToLower(id.text) }

// IsZero reports whether id names nothing.
func (id ID) IsZero() bool { return id.text == "" }

// Equal reports whether the two name the same resource.
func (id ID) Equal(other ID) bool { return strings.EqualFold(id.text, other.text) }

func (id ID) parts() []string {
	if id.text == "" {
		return nil
	}
	return strings.Split(id.text[1:], "/")
}

// Name is the last segment.
func (id ID) Name() string { return id.text[strings.LastIndexByte(id.text, '/')+1:] }

// Subscription is the subscription's id, "" where there is none. It is looked
// for at the front only: a provider may have a type of that name.
func (id ID) Subscription() string {
	if p := id.parts(); len(p) >= 2 && p[0] == "subscriptions" {
		return p[1]
	}
	return ""
}

// Group is the resource group's name, "" where there is none.
func (id ID) Group() string {
	if p := id.parts(); id.inGroup(p) {
		return p[3]
	}
	return ""
}

func (id ID) inGroup(p []string) bool {
	return len(p) >= 4 && p[0] == "subscriptions" && p[2] == "resourceGroups"
}

// Type is the full resource type, such as
// "Microsoft.Network/virtualNetworks/subnets"; for a resource group or
// subscription it is ARM's name for those.
func (id ID) Type() string {
	p := id.parts()
	last := -1
	for i := 0; i < len(p); i += 2 {
		if p[i] == "providers" {
			last = i
		}
	}
	if last < 0 {
		if len(p) == 4 {
			return "Microsoft.Resources/resourceGroups"
		}
		if len(p) == 2 && p[0] == "subscriptions" {
			return "Microsoft.Resources/subscriptions"
		}
		return ""
	}
	t := p[last+1]
	for i := last + 2; i < len(p); i += 2 {
		t += "/" + p[i]
	}
	return t
}

// Parent is the resource that id is a child of: a subnet's virtual network, a
// registry's resource group. The parent of a subscription is the zero ID.
func (id ID) Parent() ID {
	p := id.parts()
	if len(p) < 4 {
		return ID{}
	}
	p = p[:len(p)-2]
	if len(p) >= 2 && p[len(p)-2] == "providers" {
		p = p[:len(p)-2]
	}
	if len(p) == 0 {
		return ID{}
	}
	return ID{"/" + strings.Join(p, "/")}
}

// GroupID is the id of the resource group that id lies in, or zero.
func (id ID) GroupID() ID {
	if p := id.parts(); id.inGroup(p) {
		return ID{"/" + strings.Join(p[:4], "/")}
	}
	return ID{}
}

// Child is the id of a child resource: vnet.Child("subnets", "default").
// Both words must be plain segments; a wrong one panics, since callers pass
// names that a type's check has accepted.
func (id ID) Child(typ, name string) ID { return MustID(id.text + "/" + typ + "/" + name) }

// Within reports whether id is scope or lies below it.
func (id ID) Within(scope ID) bool {
	a, b := id.Key(), scope.Key()
	return a == b || strings.HasPrefix(a, b+"/") || b == "" || b == "/"
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
