package policytest

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Holds reports whether the condition is true of the request. A text that is no
// condition never is.
func Holds(text string, q Request) bool {
	e, err := ParseCondition(text)
	return err == nil && e.Holds(q)
}

// Holds reports whether the condition is true of the request.
func (e Expr) Holds(q Request) bool { return e.surely(true, q) }

// An Expr is a node of a condition as it was written: an operator's name, and
// below it either further nodes or two sides of values.
type Expr struct {
	op          string // AND, OR, NOT, ActionMatches, SubOperationMatches, Exists, or a comparison's
	parts       []Expr // of AND, OR, NOT
	text        string // the pattern, or the attribute that may exist
	left, right side
}

// A side is an attribute by name, or literals as they were written.
type side struct {
	attribute string
	literals  []string
}

// known are the attributes, with the kind of their values.
var known = map[string]string{
	"@Request[microsoft.containerregistry/registries/repositories:name]": "String",
	"@Environment[isprivatelink]":                                        "Bool",
	"@Environment[microsoft.network/privateendpoints]":                   "String",
	"@Environment[microsoft.network/virtualnetworks/subnets]":            "String",
	"@Environment[utcnow]":                                               "DateTime",
}

// attribute is a request's value of that attribute, and whether it has one.
// The six actions that are about one repository have its name, no others.
func attribute(name string, q Request) (string, bool) {
	v := ""
	switch name {
	case "@Request[microsoft.containerregistry/registries/repositories:name]":
		if strings.HasPrefix(strings.ToLower(q.Action), strings.ToLower(prefix+"repositories/")) {
			v = q.Repository
		}
	case "@Environment[isprivatelink]":
		v = strconv.FormatBool(q.PrivateLink)
	case "@Environment[microsoft.network/privateendpoints]":
		v = q.PrivateEndpoint
	case "@Environment[microsoft.network/virtualnetworks/subnets]":
		v = q.Subnet
	case "@Environment[utcnow]":
		v = q.Now
	}
	return v, v != ""
}

// surely reports whether the expression comes to the wanted truth, whatever an
// absent attribute would have been. So of an expression both can be false:
// that it is surely true, and that it is surely not.
func (e Expr) surely(want bool, q Request) bool {
	switch e.op {
	case "NOT":
		return e.parts[0].surely(!want, q)
	case "AND", "OR":
		some, all := false, true
		for _, p := range e.parts {
			is := p.surely(want, q)
			some, all = some || is, all && is
		}
		if want == (e.op == "AND") {
			return all
		}
		return some
	case "ActionMatches":
		return want == Wild(strings.ToLower(e.text), strings.ToLower(q.Action))
	case "SubOperationMatches":
		return !want // a registry's actions have none
	case "Exists":
		_, ok := attribute(e.text, q)
		return want == ok
	}
	left, has := e.left.values(q)
	right, hasToo := e.right.values(q)
	return has && hasToo && want == e.compares(left, right)
}

func (e Expr) compares(left, right []string) bool {
	allLeft, allRight, op := quantifiers(e.op)
	goodLeft := 0
	for _, l := range left {
		good := 0
		for _, r := range right {
			if compare(op, l, r) {
				good++
			}
		}
		if good == len(right) || good > 0 && !allRight {
			goodLeft++
		}
	}
	return goodLeft == len(left) || goodLeft > 0 && !allLeft
}

// quantifiers splits an operator's prefix off: whether all of the left side
// must satisfy it, and whether each does so for all of the right side.
func quantifiers(op string) (allLeft, allRight bool, rest string) {
	quantifier, rest, crossed := strings.Cut(op, ":")
	if !crossed {
		return true, true, op
	}
	return strings.HasPrefix(quantifier, "ForAllOf"), strings.HasSuffix(quantifier, "AllValues"), rest
}

func (s side) values(q Request) ([]string, bool) {
	if s.attribute != "" {
		v, ok := attribute(s.attribute, q)
		return []string{v}, ok
	}
	var vs []string
	for _, l := range s.literals {
		vs = append(vs, strings.Trim(l, "'"))
	}
	return vs, true
}

// compare is one comparison of two values of the operator's kind.
func compare(op, l, r string) bool {
	if strings.HasPrefix(op, "String") && strings.HasSuffix(op, "IgnoreCase") {
		l, r = lower(l), lower(r)
		op = strings.TrimSuffix(op, "IgnoreCase")
	}
	switch op {
	case "StringEquals", "BoolEquals":
		return l == r
	case "StringNotEquals", "BoolNotEquals":
		return l != r
	case "StringStartsWith":
		return strings.HasPrefix(l, r)
	case "StringNotStartsWith":
		return !strings.HasPrefix(l, r)
	case "StringLike":
		return like([]rune(r), []rune(l))
	case "StringNotLike":
		return !like([]rune(r), []rune(l))
	case "GuidEquals":
		return lower(l) == lower(r)
	case "GuidNotEquals":
		return lower(l) != lower(r)
	}
	order := 0
	if rest, ok := strings.CutPrefix(op, "Numeric"); ok {
		op = rest
		a, _ := strconv.ParseInt(l, 10, 64)
		b, _ := strconv.ParseInt(r, 10, 64)
		if a < b {
			order = -1
		} else if a > b {
			order = 1
		}
	} else {
		op = strings.TrimPrefix(op, "DateTime")
		order = strings.Compare(sevenDigits(l), sevenDigits(r))
	}
	switch op {
	case "Equals":
		return order == 0
	case "NotEquals":
		return order != 0
	case "LessThan":
		return order < 0
	case "LessThanEquals":
		return order <= 0
	case "GreaterThan":
		return order > 0
	case "GreaterThanEquals":
		return order >= 0
	}
	panic("no operator " + op)
}

// lower is for ASCII alone: that is what names here are made of.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// sevenDigits writes a time so that later ones sort later.
func sevenDigits(t string) string {
	whole, fraction, _ := strings.Cut(strings.TrimSuffix(t, "Z"), ".")
	return whole + "." + (fraction + "0000000")[:7]
}

// like matches a star with many characters or none, a question mark with one,
// and either of them with itself after a backslash.
func like(pattern, text []rune) bool {
	if len(pattern) == 0 {
		return len(text) == 0
	}
	switch pattern[0] {
	case '*':
		for i := 0; i <= len(text); i++ {
			if like(pattern[1:], text[i:]) {
				return true
			}
		}
		return false
	case '?':
		return len(text) > 0 && like(pattern[1:], text[1:])
	case '\\':
		if len(pattern) > 1 && (pattern[1] == '*' || pattern[1] == '?') {
			pattern = pattern[1:]
		}
	}
	return len(text) > 0 && text[0] == pattern[0] && like(pattern[1:], text[1:])
}

// lexemes are tried in this order at each place of the text.
var lexemes = regexp.MustCompile(`^(?:` + strings.Join([]string{
	`'[^']*'`,
	`@[A-Za-z]+\[[ \t\r\n]*[A-Za-z./:]+[ \t\r\n]*\]`,
	`-?[0-9]+\b`,
	`[A-Za-z]+(?::[A-Za-z]+)?\b`,
	`&&|\|\||[!(){},]`,
}, "|") + `)`)

// ParseCondition reads a condition.
func ParseCondition(text string) (Expr, error) {
	var words []string
	for rest := strings.TrimLeft(text, " \t\r\n"); rest != ""; {
		w := lexemes.FindString(rest)
		if w == "" {
			return Expr{}, fmt.Errorf("nothing known begins at %q", rest)
		}
		if w[0] == '@' {
			w = strings.Join(strings.Fields(w), "")
			source, name, _ := strings.Cut(w, "[")
			w = source + "[" + strings.ToLower(name)
		}
		words = append(words, w)
		rest = strings.TrimLeft(rest[len(lexemes.FindString(rest)):], " \t\r\n")
	}
	e, rest, err := parseOr(words)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("%q is too much", rest)
	}
	return e, err
}

func first(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return words[0]
}

// parseOr reads one level: terms joined by AND, or terms joined by OR. Both at
// one level could be meant in two ways.
func parseOr(words []string) (Expr, []string, error) {
	e, words, err := parseNot(words)
	if err != nil {
		return e, words, err
	}
	joined := Expr{parts: []Expr{e}}
	for {
		op := map[string]string{"AND": "AND", "&&": "AND", "OR": "OR", "||": "OR"}[first(words)]
		if op == "" {
			if joined.op == "" {
				return e, words, nil
			}
			return joined, words, nil
		}
		if joined.op != "" && joined.op != op {
			return e, words, errors.New("one level has AND and OR without brackets")
		}
		joined.op = op
		var next Expr
		if next, words, err = parseNot(words[1:]); err != nil {
			return e, words, err
		}
		joined.parts = append(joined.parts, next)
	}
}

func parseNot(words []string) (Expr, []string, error) {
	if w := first(words); w != "NOT" && w != "!" {
		return parsePrimary(words)
	}
	e, words, err := parsePrimary(words[1:])
	return Expr{op: "NOT", parts: []Expr{e}}, words, err
}

func parsePrimary(words []string) (Expr, []string, error) {
	switch w := first(words); w {
	case "(":
		e, words, err := parseOr(words[1:])
		if err == nil && first(words) != ")" {
			err = errors.New("a bracket is not closed")
		}
		if err != nil {
			return e, words, err
		}
		return e, words[1:], nil
	case "ActionMatches", "SubOperationMatches":
		if len(words) < 4 || words[1] != "{" || words[2][0] != '\'' || words[3] != "}" {
			return Expr{}, words, fmt.Errorf("%s wants {'…'}", w)
		}
		return Expr{op: w, text: strings.Trim(words[2], "'")}, words[4:], nil
	case "Exists":
		if len(words) < 2 || known[words[1]] == "" {
			return Expr{}, words, errors.New("an attribute is missing after Exists")
		}
		return Expr{op: w, text: words[1]}, words[2:], nil
	}
	left, words, err := parseSide(words)
	if err != nil {
		return Expr{}, words, err
	}
	op := first(words)
	if !operators[op] {
		return Expr{}, words, fmt.Errorf("%q is no operator", op)
	}
	right, words, err := parseSide(words[1:])
	if err != nil {
		return Expr{}, words, err
	}
	for _, s := range []side{left, right} {
		if err := s.suits(op); err != nil {
			return Expr{}, words, err
		}
	}
	return Expr{op: op, left: left, right: right}, words, nil
}

func parseSide(words []string) (side, []string, error) {
	w := first(words)
	switch {
	case w == "":
		return side{}, words, errors.New("a value is missing")
	case w[0] == '@':
		if known[w] == "" {
			return side{}, words, fmt.Errorf("%s is no attribute", w)
		}
		return side{attribute: w}, words[1:], nil
	case w == "{":
		s := side{}
		for {
			words = words[1:]
			if kindsOf(first(words)) == nil {
				return side{}, words, errors.New("braces hold literals")
			}
			s.literals = append(s.literals, words[0])
			words = words[1:]
			if first(words) == "}" {
				return s, words[1:], nil
			}
			if first(words) != "," {
				return side{}, words, errors.New("a brace is not closed")
			}
		}
	case kindsOf(w) != nil:
		return side{literals: []string{w}}, words[1:], nil
	}
	return side{}, words, fmt.Errorf("%q is no value", w)
}

var (
	integer  = regexp.MustCompile(`^-?[0-9]+$`)
	guid     = regexp.MustCompile(`^'[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}'$`)
	dateTime = regexp.MustCompile(`^'[0-9]{4}-(0[1-9]|1[0-2])-([0-2][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,7})?Z'$`)
)

// kindsOf lists what a literal may be taken for; nil for what is no literal.
func kindsOf(word string) []string {
	switch {
	case word == "true" || word == "false":
		return []string{"Bool"}
	case integer.MatchString(word):
		if _, err := strconv.ParseInt(word, 10, 64); err != nil {
			return nil
		}
		return []string{"Numeric"}
	case strings.HasPrefix(word, "'"):
		kinds := []string{"String"}
		if guid.MatchString(word) {
			kinds = append(kinds, "Guid")
		}
		if dateTime.MatchString(word) && calendar(word) {
			kinds = append(kinds, "DateTime")
		}
		return kinds
	}
	return nil
}

// calendar reports whether the month has the day.
func calendar(word string) bool {
	year, _ := strconv.Atoi(word[1:5])
	month, _ := strconv.Atoi(word[6:8])
	day, _ := strconv.Atoi(word[9:11])
	days := []int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && (year%4 == 0 && year%100 != 0 || year%400 == 0) {
		days = 29
	}
	return day >= 1 && day <= days
}

// suits says what is wrong with the side as the operator's.
func (s side) suits(op string) error {
	_, bare, crossed := strings.Cut(op, ":")
	if !crossed {
		bare = op
	}
	if len(s.literals) > 1 && !crossed {
		return fmt.Errorf("%s compares one value with one", op)
	}
	wanted := ""
	for _, k := range []string{"String", "Bool", "Numeric", "DateTime", "Guid"} {
		if strings.HasPrefix(bare, k) {
			wanted = k
		}
	}
	if s.attribute != "" {
		if known[s.attribute] != wanted {
			return fmt.Errorf("%s is a %s, %s compares a %s", s.attribute, known[s.attribute], op, wanted)
		}
		return nil
	}
	for _, l := range s.literals {
		ok := false
		for _, k := range kindsOf(l) {
			ok = ok || k == wanted
		}
		if !ok {
			return fmt.Errorf("%s is not a %s", l, wanted)
		}
	}
	return nil
}

// operators are all comparisons that there are.
var operators = func() map[string]bool {
	all := map[string]bool{}
	for _, o := range []string{"Equals", "StartsWith", "Like"} {
		for _, not := range []string{"", "Not"} {
			for _, fold := range []string{"", "IgnoreCase"} {
				all["String"+not+o+fold] = true
			}
		}
	}
	for _, o := range []string{"Equals", "NotEquals"} {
		all["Bool"+o], all["Guid"+o] = true, true
	}
	for _, o := range []string{"Equals", "NotEquals", "GreaterThan", "GreaterThanEquals", "LessThan", "LessThanEquals"} {
		all["Numeric"+o], all["DateTime"+o] = true, true
	}
	for o := range all {
		if strings.Contains(o, ":") || strings.Contains(o, "StartsWith") || strings.HasPrefix(o, "Bool") || strings.HasPrefix(o, "DateTime") {
			continue
		}
		for _, q := range []string{"ForAnyOfAnyValues:", "ForAllOfAnyValues:", "ForAnyOfAllValues:", "ForAllOfAllValues:"} {
			all[q+o] = true
		}
	}
	return all
}()
