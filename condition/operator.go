package condition

import (
	"fmt"
	"strconv"
	"time"
)

// domain is what kind of values an operator compares.
type domain uint8

const (
	texts domain = iota
	flags
	integers
	moments
	guids
)

var domainNames = [...]string{"strings", "true and false", "whole numbers", "moments", "GUIDs"}

type relation uint8

const (
	equals relation = iota
	startsWith
	like
	greater
	greaterEquals
	less
	lessEquals
)

// operator is what stands between two operands, but for the quantifiers.
type operator struct {
	of      domain
	rel     relation
	negate  bool
	fold    bool // case does not matter
	crosses bool // takes quantifiers, and so several values
}

// operators are all there are, by their names.
var operators = func() map[string]operator {
	out := map[string]operator{}
	for name, rel := range map[string]relation{"Equals": equals, "StartsWith": startsWith, "Like": like} {
		for _, fold := range []bool{false, true} {
			suffix := name
			if fold {
				suffix += "IgnoreCase"
			}
			crosses := rel != startsWith
			out["String"+suffix] = operator{texts, rel, false, fold, crosses}
			out["StringNot"+suffix] = operator{texts, rel, true, fold, crosses}
		}
	}
	for name, of := range map[string]domain{"Numeric": integers, "DateTime": moments} {
		for suffix, rel := range map[string]relation{
			"Equals": equals, "GreaterThan": greater, "GreaterThanEquals": greaterEquals, "LessThan": less, "LessThanEquals": lessEquals,
		} {
			out[name+suffix] = operator{of, rel, false, false, of == integers}
		}
		out[name+"NotEquals"] = operator{of, equals, true, false, of == integers}
	}
	for _, negate := range []bool{false, true} {
		name := "Equals"
		if negate {
			name = "NotEquals"
		}
		out["Bool"+name] = operator{flags, equals, negate, false, false}
		out["Guid"+name] = operator{guids, equals, negate, true, true}
	}
	return out
}()

// quantifier says of how many values on each side a comparison must hold.
type quantifier struct{ allLeft, allRight bool }

var quantifiers = map[string]quantifier{
	"ForAnyOfAnyValues": {false, false},
	"ForAllOfAnyValues": {true, false},
	"ForAnyOfAllValues": {false, true},
	"ForAllOfAllValues": {true, true},
}

// value is one value in any domain: strings and GUIDs in text; numbers,
// moments (units of 100 ns since 1970) and flags (0, 1) in n.
type value struct {
	text string
	n    int64
}

// moment is a time in the resolution that literals have.
func moment(t time.Time) int64 { return t.Unix()*1e7 + int64(t.Nanosecond())/100 }

// parse reads a literal as a value of a domain.
func (d domain) parse(x *lexeme, source string) (value, error) {
	switch d {
	case flags:
		switch source {
		case "true":
			return value{n: 1}, nil
		case "false":
			return value{}, nil
		}
		return value{}, fmt.Errorf("expected true or false, found %s", clip(source))
	case integers:
		n, err := strconv.ParseInt(source, 10, 64)
		if x.kind != number || err != nil {
			return value{}, fmt.Errorf("expected a whole number, found %s", clip(source))
		}
		return value{n: n}, nil
	}
	if x.kind != quoted {
		return value{}, fmt.Errorf("expected a text in single quotes, found %s", clip(source))
	}
	switch d {
	case moments:
		t, ok := parseMoment(x.inner)
		if !ok {
			return value{}, fmt.Errorf("expected a moment such as '2026-01-31T13:00:00.0000000Z', found %s", clip(source))
		}
		return value{n: moment(t)}, nil
	case guids:
		if !isGUID(x.inner) {
			return value{}, fmt.Errorf("expected a GUID, found %s", clip(source))
		}
	}
	return value{text: x.inner}, nil
}

// parseMoment reads yyyy-mm-ddThh:mm:ssZ with a fraction of up to seven digits,
// and no other spelling of which time.Parse takes several.
func parseMoment(s string) (time.Time, bool) {
	const whole = len("2006-01-02T15:04:05")
	fraction := len(s) - whole - len("Z")
	if fraction < 0 || fraction == 1 || fraction > 8 || s[13] != ':' || fraction > 0 && s[whole] != '.' {
		return time.Time{}, false
	}
	t, err := time.Parse("2006-01-02T15:04:05Z", s)
	return t, err == nil
}

func isGUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case i == 8 || i == 13 || i == 18 || i == 23:
			if c != '-' {
				return false
			}
		case !digit(c) && (c|0x20 < 'a' || c|0x20 > 'f'):
			return false
		}
	}
	return true
}

// holds compares two values.
func (o operator) holds(l, r value) bool {
	var is bool
	switch o.rel {
	case equals:
		switch {
		case o.of != texts && o.of != guids:
			is = l.n == r.n
		default:
			is = equal(l.text, r.text, o.fold)
		}
	case startsWith:
		is = begins(l.text, r.text, o.fold)
	case like:
		is = matches(r.text, l.text, o.fold)
	case greater:
		is = l.n > r.n
	case greaterEquals:
		is = l.n >= r.n
	case less:
		is = l.n < r.n
	case lessEquals:
		is = l.n <= r.n
	}
	return is != o.negate
}
