package armapi

import (
	"strings"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

var errFilter = fault.Coded(fault.Invalid, "InvalidFilterInQueryString", "the $filter is not one that this list takes")

// filtered is a $filter of a list of resources: field eq 'value',
// startswith(tagName, 'value') and substringof('value', name), joined by and.
// Names and values are compared without regard to case, as ARM does.
type filtered struct {
	typ   string
	terms []term
}

type term struct{ field, value string }

const filterForms = "It may be field eq 'value', startswith(tagName, 'value') and substringof('value', name or resourceGroup), joined by and."

func filter(text string) (filtered, error) {
	var f filtered
	rest := strings.TrimSpace(text)
	for rest != "" {
		if t, after, ok := call(rest); ok {
			f.terms = append(f.terms, t)
			if rest, ok = conjunction(after); !ok {
				return filtered{}, errFilter.Detail("The filter %.200q is not valid. %s", text, filterForms)
			}
			continue
		}
		field, after, ok := strings.Cut(rest, " ")
		op, after, ok2 := strings.Cut(strings.TrimSpace(after), " ")
		value, after, ok3 := quoted(strings.TrimSpace(after))
		if !ok || !ok2 || !ok3 || !strings.EqualFold(op, "eq") {
			return filtered{}, errFilter.Detail("The filter %.200q is not valid. %s", text, filterForms)
		}
		switch field = strings.ToLower(field); field {
		case "resourcetype":
			if f.typ != "" && !strings.EqualFold(f.typ, value) {
				return filtered{}, errFilter.Detail("The filter names two resource types.")
			}
			f.typ = value
		case "name", "resourcegroup", "location", "tagname", "tagvalue":
			f.terms = append(f.terms, term{field, value})
		default:
			return filtered{}, errFilter.Detail("The filter may name resourceType, name, resourceGroup, location, tagName and tagValue, but not %.60q.", field)
		}
		if rest, ok = conjunction(after); !ok {
			return filtered{}, errFilter.Detail("The filter %.200q is not valid. %s", text, filterForms)
		}
	}
	return f, nil
}

// conjunction is what comes after an and, "" at the end of a filter.
func conjunction(after string) (rest string, ok bool) {
	after = strings.TrimSpace(after)
	if after == "" {
		return "", true
	}
	word, rest, _ := strings.Cut(after, " ")
	rest = strings.TrimSpace(rest)
	return rest, strings.EqualFold(word, "and") && rest != ""
}

// call reads one of the two functions at the front of s. A term that a function
// makes has a field of that function's own.
func call(s string) (t term, rest string, ok bool) {
	name, args, ok := strings.Cut(s, "(")
	if !ok {
		return t, "", false
	}
	var field, value string
	switch name = strings.ToLower(strings.TrimSpace(name)); name {
	case "startswith":
		field, args, _ = strings.Cut(args, ",")
		value, args, ok = quoted(strings.TrimSpace(args))
		field = strings.ToLower(strings.TrimSpace(field))
		ok = ok && field == "tagname"
		rest, closed := strings.CutPrefix(strings.TrimSpace(args), ")")
		return term{"startswith " + field, value}, rest, ok && closed
	case "substringof":
		value, args, ok = quoted(strings.TrimSpace(args))
		args, comma := strings.CutPrefix(strings.TrimSpace(args), ",")
		field, rest, closed := strings.Cut(args, ")")
		field = strings.ToLower(strings.TrimSpace(field))
		return term{"substringof " + field, value}, rest, ok && comma && closed && (field == "name" || field == "resourcegroup")
	}
	return t, "", false
}

// quoted reads a string in single quotes, in which two of them are one.
func quoted(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, "'") {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		return b.String(), s[i+1:], true
	}
	return "", "", false
}

func (f filtered) holds(d resource.Doc) bool {
	tagName := ""
	for _, t := range f.terms {
		if t.field == "tagname" {
			tagName = t.value
		}
	}
	tags, _ := d.Body["tags"].(resource.Object)
	for _, t := range f.terms {
		ok := false
		switch t.field {
		case "name":
			ok = strings.EqualFold(d.ID.Name(), t.value)
		case "resourcegroup":
			ok = strings.EqualFold(d.ID.Group(), t.value)
		case "location":
			where, _ := d.Body["location"].(string)
			ok = where == resource.Location(t.value)
		case "substringof name":
			ok = contains(d.ID.Name(), t.value)
		case "substringof resourcegroup":
			ok = contains(d.ID.Group(), t.value)
		case "startswith tagname":
			for name := range tags {
				ok = ok || strings.HasPrefix(strings.ToLower(name), strings.ToLower(t.value))
			}
		case "tagname", "tagvalue":
			for name, value := range tags {
				ok = ok || (tagName == "" || strings.EqualFold(name, tagName)) && (t.field == "tagname" || value == t.value)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}

func contains(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}
