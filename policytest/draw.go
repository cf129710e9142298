package policytest

import (
	"strings"

	"pgregory.net/rapid"
)

// Ids that requests and conditions have in common, so that some of them meet.
const (
	EndpointID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/privateEndpoints/pe1"
	SubnetID   = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Network/virtualNetworks/v/subnets/nodes"
)

// Repositories are names that meet what conditions look for, or nearly.
var Repositories = []string{"a", "team/api", "team/api2", "team/web", "ops/x", "opsx", "ops"}

// Moments are times about those that conditions compare with.
var Moments = []string{
	"2026-05-01T11:59:59.9999999Z", "2026-05-01T12:00:00.0000000Z", "2026-05-01T12:00:00.0000001Z", "2028-02-29T00:00:00.5000000Z",
}

// ContentActions are the six that are about one repository.
var ContentActions = []string{
	prefix + "repositories/content/read", prefix + "repositories/content/write", prefix + "repositories/content/delete",
	prefix + "repositories/metadata/read", prefix + "repositories/metadata/write", prefix + "repositories/metadata/delete",
}

func pick(t *rapid.T, label string, from ...string) string {
	return rapid.SampledFrom(from).Draw(t, label)
}

// DrawRequest is a request for content from anywhere, at any of Moments.
func DrawRequest(t *rapid.T) Request {
	q := Request{
		Action: pick(t, "action", append([]string{prefix + "catalog/read"}, ContentActions...)...), Data: true,
		Now: pick(t, "now", Moments...),
	}
	if q.Action != prefix+"catalog/read" {
		q.Repository = pick(t, "repository", Repositories...)
	}
	if rapid.Bool().Draw(t, "private link") {
		q.PrivateLink, q.PrivateEndpoint = true, EndpointID
	}
	if rapid.Bool().Draw(t, "subnet known") {
		q.Subnet = SubnetID
	}
	return q
}

// DrawCondition is a condition of any form that the grammar has, its brackets
// nested no deeper than asked.
func DrawCondition(t *rapid.T, depth int) string {
	joint := pick(t, "joint", "AND", "&&", "OR", "||", "")
	if depth == 0 || joint == "" {
		return blank(t) + term(t, depth) + blank(t)
	}
	terms := []string{term(t, depth)}
	for range rapid.IntRange(1, 3).Draw(t, "further terms") {
		terms = append(terms, term(t, depth))
	}
	if rapid.Bool().Draw(t, "spelt both ways") { // AND and && are one and may stand together
		other := map[string]string{"AND": "&&", "&&": "AND", "OR": "||", "||": "OR"}[joint]
		return strings.Join([]string{terms[0], strings.Join(terms[1:], " "+other+" ")}, " "+joint+" ")
	}
	return strings.Join(terms, space(t)+joint+space(t))
}

// blank may stand where words need none between them, space where they do.
func blank(t *rapid.T) string { return pick(t, "blank", "", "", " ", "\n") }
func space(t *rapid.T) string { return pick(t, "space", " ", " ", "\t", "\r\n  ") }

func term(t *rapid.T, depth int) string {
	not := pick(t, "not", "", "", "!", "NOT ", "! ")
	if depth > 0 && rapid.Bool().Draw(t, "bracketed") {
		return not + "(" + DrawCondition(t, depth-1) + ")"
	}
	return not + drawPrimary(t)
}

var (
	textAttributes = []string{
		"@Request[Microsoft.ContainerRegistry/registries/repositories:name]", "@Request[ microsoft.containerregistry/Registries/repositories:Name ]",
		"@Environment[Microsoft.Network/privateEndpoints]", "@Environment[Microsoft.Network/virtualNetworks/subnets]",
	}
	textLiterals = []string{
		"'a'", "'team/api'", "'TEAM/API'", "'team/'", "'ops/'", "'ops*'", "'*/?pi'", "'*pi2'", "''", "'Team/*'", "'*'", "'?'", "'??'",
		`'a\*'`, `'a*'`, `'a\?'`, `'a?'`, `'a\'`, `'a\b'`, `'\\*'`, "'a??'", "'ä'", "'Ä'", "'€'", "'*€'", "'*??'", "'K'", "'k'", "'team/ api'", "'a\nb'",
		"'" + EndpointID + "'", "'" + strings.ToUpper(SubnetID) + "'", "'*/virtualNetworks/?/*'",
	}
	numberLiterals = []string{"0", "1", "2", "-3", "10", "007", "-0", "9223372036854775807", "-9223372036854775808"}
	momentLiterals = []string{
		"'2026-05-01T12:00:00Z'", "'2026-05-01T12:00:00.0000001Z'", "'2030-01-01T00:00:00.5Z'", "'2020-12-31T23:59:59.1234567Z'",
		"'2028-02-29T00:00:00.500Z'", "'0000-01-01T00:00:00Z'", "'9999-12-31T23:59:59.9999999Z'",
	}
	guidLiterals = []string{
		"'aaaaaaaa-0000-4000-8000-000000000001'", "'AAAAAAAA-0000-4000-8000-000000000001'", "'aaaaaaaa-0000-4000-8000-000000000002'",
	}
	orders     = []string{"Equals", "NotEquals", "GreaterThan", "GreaterThanEquals", "LessThan", "LessThanEquals"}
	quantified = []string{"ForAnyOfAnyValues:", "ForAllOfAnyValues:", "ForAnyOfAllValues:", "ForAllOfAllValues:"}
)

func drawPrimary(t *rapid.T) string {
	switch pick(t, "primary", "action", "exists", "suboperation", "comparison", "comparison", "comparison", "comparison", "name", "name", "name") {
	case "action":
		return "ActionMatches" + blank(t) + "{" + blank(t) + pick(t, "pattern",
			"'"+ContentActions[0]+"'", "'"+strings.ToUpper(ContentActions[1])+"'", "'*'", "'*/content/*'", "'*/read'", "'"+prefix+"*/read'", "'x'", "''", "'*r*e*d'") + blank(t) + "}"
	case "exists":
		return "Exists" + blank(t) + pick(t, "attribute", append([]string{"@Environment[UtcNow]", "@Environment[isPrivateLink]"}, textAttributes...)...)
	case "suboperation":
		return "SubOperationMatches{" + pick(t, "sub-operation", "'*'", "''", "'x'") + "}"
	case "name": // what most people write
		return textAttributes[0] + " " + pick(t, "operator", "StringEquals", "StringEqualsIgnoreCase", "StringStartsWith", "StringStartsWithIgnoreCase", "StringLike", "StringNotEquals", "StringNotStartsWith") +
			blank(t) + pick(t, "literal", "'team/api'", "'TEAM/'", "'team/'", "'ops/'", "'team/*'")
	}
	kind := pick(t, "kind", "String", "String", "Numeric", "DateTime", "Bool", "Guid")
	not := pick(t, "negated", "", "Not")
	var operator string
	var attributes, literals []string
	crosses := true
	switch kind {
	case "String":
		what := pick(t, "relation", "Equals", "Like", "StartsWith")
		crosses = what != "StartsWith"
		operator = kind + not + what + pick(t, "fold", "", "IgnoreCase")
		attributes, literals = textAttributes, textLiterals
	case "Numeric":
		operator, literals = kind+pick(t, "order", orders...), numberLiterals
	case "DateTime":
		operator, attributes, literals, crosses = kind+pick(t, "order", orders...), []string{"@Environment[UtcNow]"}, momentLiterals, false
	case "Bool":
		operator, attributes, literals, crosses = kind+not+"Equals", []string{"@Environment[isPrivateLink]"}, []string{"true", "false"}, false
	case "Guid":
		operator, literals = kind+not+"Equals", guidLiterals
	}
	most := 1
	if crosses && rapid.Bool().Draw(t, "quantified") {
		operator, most = pick(t, "quantifier", quantified...)+operator, 3
	}
	return drawSide(t, attributes, literals, most) + space(t) + operator + space(t) + drawSide(t, attributes, literals, most)
}

func drawSide(t *rapid.T, attributes, literals []string, most int) string {
	switch pick(t, "side", "attribute", "attribute", "literal", "set") {
	case "attribute":
		if attributes != nil {
			return pick(t, "attribute", attributes...)
		}
	case "set":
		values := rapid.SliceOfN(rapid.SampledFrom(literals), 1, most).Draw(t, "values")
		return "{" + blank(t) + strings.Join(values, blank(t)+","+blank(t)) + blank(t) + "}"
	}
	return pick(t, "literal", literals...)
}

// pieces are what mutations put into a text.
var pieces = []string{
	"(", ")", "{", "}", ",", "!", "&", "&&", "|", "||", "'", "''", "AND", "OR", "NOT", "and", "Exists", "ActionMatches", "SubOperationMatches",
	"true", "false", "True", "1", "-", "-1", "1.5", "9223372036854775808", "@", "[", "]", ":", "*", "\\", "\"", " ", "\n", "\v", "\u00a0", "ä", "\x00", "_", "<$key_case_sensitive$>",
	"StringEquals", "StringEqualsIgnoreCase", "stringEquals", "StringLike", "StringStartsWith", "NumericEquals", "NumericLessThan", "BoolEquals", "BoolNotEquals",
	"DateTimeEquals", "DateTimeGreaterThan", "GuidEquals", "IgnoreCase", "ForAnyOfAnyValues:", "ForAllOfAllValues:StringEquals", "ForAnyOfAnyValues:BoolEquals", "ForSome:StringEquals",
	"@Request[Microsoft.ContainerRegistry/registries/repositories:name]", "@Environment[UtcNow]", "@Environment[isPrivateLink]", "@Resource[isPrivateLink]", "@Principal[x:y]",
	"@Request[UtcNow]", "@request[UtcNow]", "@Environment[ isprivatelink\t]", "@Environment [isPrivateLink]", "{'a','b'}", "{'a'}", "{1}", "{}", "'2026-02-29T00:00:00Z'", "'2026-05-01T24:00:00Z'", "'2026-05-01T00:00:60Z'", "'2026-5-01T00:00:00Z'",
}

// DrawMutation is a condition that somebody has meddled with: a few pieces
// taken away, put in, exchanged or doubled.
func DrawMutation(t *rapid.T, text string) string {
	for range rapid.IntRange(1, 3).Draw(t, "mutations") {
		runes := []rune(text)
		from := rapid.IntRange(0, len(runes)).Draw(t, "from")
		to := min(len(runes), from+rapid.SampledFrom([]int{0, 0, 1, 1, 2, 5, 20}).Draw(t, "length"))
		before, taken, after := string(runes[:from]), string(runes[from:to]), string(runes[to:])
		switch pick(t, "mutation", "cut", "put", "put", "replace", "double", "case", "end") {
		case "cut":
			text = before + after
		case "put":
			text = before + pick(t, "piece", pieces...) + taken + after
		case "replace":
			text = before + pick(t, "piece", pieces...) + after
		case "double":
			text = before + taken + taken + after
		case "case":
			text = before + strings.ToUpper(taken) + after
		case "end":
			text = before
		}
	}
	return text
}
