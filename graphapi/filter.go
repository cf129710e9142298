package graphapi

import (
	"strings"

	"cove.example/cove/directory"
)

// filter is a $filter: terms joined by and. The store narrows by what it has
// an index for, and every term is compared with the object as it is shown.
type filter []term

type term struct {
	field string
	value string
	op    string // eq, startswith, any
}

// maxTerms bounds a filter.
const maxTerms = 20

// parseFilter reads FIELD eq 'VALUE' (or eq true), startswith(FIELD,'VALUE')
// and FIELD/any(x:x eq 'VALUE'), joined by and.
func parseFilter(text string) (filter, error) {
	var f filter
	rest := strings.TrimSpace(text)
	for rest != "" {
		t, after, ok := parseTerm(rest)
		if !ok || len(f) == maxTerms {
			return nil, errQuery.Detail("The filter %.200q is not supported. It may have FIELD eq 'VALUE', startswith(FIELD,'VALUE') and FIELD/any(x:x eq 'VALUE'), joined by and.", text)
		}
		f = append(f, t)
		if rest = strings.TrimSpace(after); rest == "" {
			break
		}
		more, ok := strings.CutPrefix(rest, "and ")
		if more = strings.TrimSpace(more); !ok || more == "" {
			return nil, errQuery.Detail("The filter %.200q is not supported: its terms are joined by and.", text)
		}
		rest = more
	}
	return f, nil
}

func parseTerm(s string) (t term, rest string, ok bool) {
	if inner, found := strings.CutPrefix(s, "startswith("); found {
		field, after, found := strings.Cut(inner, ",")
		value, after, ok := quoted(strings.TrimSpace(after))
		after, closed := strings.CutPrefix(strings.TrimSpace(after), ")")
		return term{strings.TrimSpace(field), value, "startswith"}, after, found && ok && closed && name(strings.TrimSpace(field))
	}
	field, after := word(s)
	if inner, found := strings.CutPrefix(after, "/any("); found {
		x, after, found := strings.Cut(inner, ":")
		again, after := word(strings.TrimSpace(strings.TrimPrefix(after, " ")))
		after, eq := strings.CutPrefix(strings.TrimSpace(after), "eq ")
		value, after, ok := quoted(strings.TrimSpace(after))
		after, closed := strings.CutPrefix(strings.TrimSpace(after), ")")
		return term{field, value, "any"}, after, found && eq && ok && closed && again == strings.TrimSpace(x) && name(again) && name(field)
	}
	after, ok = strings.CutPrefix(strings.TrimSpace(after), "eq ")
	after = strings.TrimSpace(after)
	for _, literal := range []string{"true", "false"} {
		if more, found := strings.CutPrefix(after, literal); found && (more == "" || more[0] == ' ') {
			return term{field, literal, "eq"}, more, ok && name(field)
		}
	}
	value, after, isText := quoted(after)
	return term{field, value, "eq"}, after, ok && isText && name(field)
}

// word cuts a name off the front.
func word(s string) (string, string) {
	n := 0
	for n < len(s) && (s[n] >= 'a' && s[n] <= 'z' || s[n] >= 'A' && s[n] <= 'Z' || n > 0 && s[n] >= '0' && s[n] <= '9') {
		n++
	}
	return s[:n], s[n:]
}

func name(s string) bool {
	w, rest := word(s)
	return w != "" && rest == ""
}

// quoted reads a string in single quotes, in which two of them are one.
func quoted(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, "'") {
		return "", "", false
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] != '\'':
			b.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\'':
			b.WriteByte('\'')
			i++
		default:
			return b.String(), s[i+1:], true
		}
	}
	return "", "", false
}

// narrow lets the store leave out what the filter cannot want.
func (f filter) narrow(q *directory.Query) {
	for _, t := range f {
		switch {
		case t.value == "":
		case t.op == "eq" && t.field == "appId", t.op == "any" && t.field == "servicePrincipalNames" && directory.IsID(t.value):
			q.AppID = t.value
		case t.op == "eq" && t.field == "displayName":
			q.Name = t.value
		case t.op == "startswith" && t.field == "displayName":
			q.NamePrefix = t.value
		case t.op == "eq" && t.field == "userPrincipalName":
			q.UPN = t.value
		}
	}
}

// holds compares without regard to case, as Graph does.
func (f filter) holds(o map[string]any) bool {
	for _, t := range f {
		var ok bool
		switch v := o[t.field].(type) {
		case string:
			ok = t.op == "eq" && strings.EqualFold(v, t.value) ||
				t.op == "startswith" && strings.HasPrefix(strings.ToLower(v), strings.ToLower(t.value))
		case bool:
			ok = t.op == "eq" && t.value == map[bool]string{true: "true", false: "false"}[v]
		case []string:
			for _, one := range v {
				ok = ok || t.op == "any" && strings.EqualFold(one, t.value)
			}
		case []any:
			for _, one := range v {
				text, isText := one.(string)
				ok = ok || t.op == "any" && isText && strings.EqualFold(text, t.value)
			}
		}
		if !ok {
			return false
		}
	}
	return true
}
