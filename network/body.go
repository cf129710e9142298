package network

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// at walks nested objects; it is nil where the way ends.
func at(o resource.Object, path ...string) any {
	var v any = o
	for _, p := range path {
		m, ok := v.(resource.Object)
		if !ok {
			return nil
		}
		v = m[p]
	}
	return v
}

func textAt(o resource.Object, path ...string) string {
	s, _ := at(o, path...).(string)
	return s
}

func objectAt(o resource.Object, path ...string) resource.Object {
	m, _ := at(o, path...).(resource.Object)
	return m
}

func listAt(o resource.Object, path ...string) []any {
	l, _ := at(o, path...).([]any)
	return l
}

// idAt is the id at path, or zero. Stored ids have been checked.
func idAt(o resource.Object, path ...string) arm.ID {
	id, err := arm.ParseID(textAt(o, path...))
	if err != nil {
		return arm.ID{}
	}
	return id
}

// set stores v, making the objects on the way to it.
func set(o resource.Object, v any, path ...string) {
	for _, p := range path[:len(path)-1] {
		next, ok := o[p].(resource.Object)
		if !ok {
			next = resource.Object{}
			o[p] = next
		}
		o = next
	}
	o[path[len(path)-1]] = v
}

// objectsAt are the elements of a list, an element that is no object as nil.
func objectsAt(o resource.Object, path ...string) []resource.Object {
	l := listAt(o, path...)
	out := make([]resource.Object, len(l))
	for i, v := range l {
		out[i], _ = v.(resource.Object)
	}
	return out
}

// resourceGUID is the resource itself, whatever its name, as a GUID: some
// clients read no other text there.
func resourceGUID(doc resource.Doc) string { return uuid.NewSHA1(uuid.Nil, []byte(doc.UID)).String() }

func ref(id arm.ID) resource.Object { return resource.Object{"id": id.String()} }

// problems gathers what is wrong with a body.
type problems []fault.Field

func (p *problems) add(path, format string, args ...any) {
	*p = append(*p, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
}

// unobeyed are properties by which a client asks for what this version has not,
// with the words for it. To keep them would be to say that it is there: a route
// through a firewall, an address on the internet.
type unobeyed map[string]string

// refuse names those of a body that ask for something.
func (u unobeyed) refuse(p *problems, path string, props resource.Object) {
	for _, key := range slices.Sorted(maps.Keys(u)) {
		if asks(at(props, strings.Split(key, ".")...)) {
			p.add(path+key, "%s not in this version", u[key])
		}
	}
}

// asks says whether a value asks for anything: clients write out what they leave
// alone, too.
func asks(v any) bool {
	switch v := v.(type) {
	case nil:
		return false
	case bool:
		return v
	case string:
		return v != "" && !strings.EqualFold(v, "Disabled") && !strings.EqualFold(v, "None")
	case []any:
		return len(v) > 0
	case resource.Object:
		for _, inner := range v {
			if asks(inner) {
				return true
			}
		}
		return false
	}
	return true
}

// checkName is Microsoft.Network's rule for names.
func checkName(s string) string {
	if plainName(s) {
		return ""
	}
	return "must be 1 to 80 letters, digits, underscores, periods and hyphens, begin with a letter or digit and end with a letter, digit or underscore"
}

func plainName(s string) bool {
	alnum := func(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }
	if len(s) < 1 || len(s) > 80 || !alnum(s[0]) || !alnum(s[len(s)-1]) && s[len(s)-1] != '_' {
		return false
	}
	for i := range len(s) {
		if !alnum(s[i]) && !strings.ContainsRune("_.-", rune(s[i])) {
			return false
		}
	}
	return true
}

// reference checks that the text at path is the id of a resource of type typ.
func (p *problems) reference(path, s, typ string) arm.ID {
	id, err := arm.ParseID(s)
	switch {
	case s == "":
		p.add(path, "the id of a %s is required", typ)
	case err != nil:
		p.add(path, "it is not a resource id")
	case !strings.EqualFold(id.Type(), typ):
		p.add(path, "it must be the id of a %s", typ)
	default:
		return id
	}
	return arm.ID{}
}

// oneOf checks an optional word against the list and returns it as spelled
// there; "" stays "".
func (p *problems) oneOf(path, s string, words ...string) string {
	if s == "" {
		return ""
	}
	for _, w := range words {
		if strings.EqualFold(s, w) {
			return w
		}
	}
	p.add(path, "it must be one of %s", strings.Join(words, ", "))
	return ""
}
