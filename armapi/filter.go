package armapi

import (
	"strings"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

var errFilter = fault.Coded(fault.Invalid, "InvalidFilterInQueryString", "the $filter is not one that this list takes")

// filtered is a $filter of a list of resources: field eq 'value', joined by
// and. Names and values are compared without regard to case, as ARM does.
type filtered struct {
	typ   string
	terms []term
}

type term struct{ field, value string }

func filter(text string) (filtered, error) {
	var f filtered
	rest := strings.TrimSpace(text)
	for rest != "" {
		field, after, ok := strings.Cut(rest, " ")
		op, after, ok2 := strings.Cut(strings.TrimSpace(after), " ")
		value, after, ok3 := quoted(strings.TrimSpace(after))
		if !ok || !ok2 || !ok3 || !strings.EqualFold(op, "eq") {
			return filtered{}, errFilter.Detail("The filter %.200q is not valid. It may be: field eq 'value', joined by and.", text)
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
		if rest = strings.TrimSpace(after); rest == "" {
			break
		}
		word, more, ok := strings.Cut(rest, " ")
		if !ok || !strings.EqualFold(word, "and") || strings.TrimSpace(more) == "" {
			return filtered{}, errFilter.Detail("The filter %.200q is not valid. It may be: field eq 'value', joined by and.", text)
		}
		rest = strings.TrimSpace(more)
	}
	return f, nil
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
