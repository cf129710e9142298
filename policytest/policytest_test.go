package policytest_test

import (
	"strings"
	"testing"

	"cove.example/cove/policytest"
)

const repositories = "Microsoft.ContainerRegistry/registries/repositories/"

// The reference is itself held to what the description says by example.
func TestExamplesOfTheDescription(t *testing.T) {
	name := "@Request[Microsoft.ContainerRegistry/registries/repositories:name] "
	reader := "(!(ActionMatches{'" + repositories + "content/read'}) AND !(ActionMatches{'" + repositories + "metadata/read'})) OR (" + name + "StringEqualsIgnoreCase 'team/api')"
	writer := func(test string) string {
		var parts []string
		for _, a := range []string{"content/read", "metadata/read", "content/write", "metadata/write"} {
			parts = append(parts, "!ActionMatches{'"+repositories+a+"'}")
		}
		return "(" + strings.Join(parts, " AND ") + ") OR (" + test + ")"
	}
	ops := writer(name + "StringStartsWithIgnoreCase 'ops/'")
	two := writer(name + "StringStartsWith 'ops/' OR " + name + "StringStartsWith 'dev/'")
	readOnly := "!ActionMatches{'" + repositories + "content/read'} OR " + name + "StringEquals 'team/api'"
	for _, row := range []struct {
		condition, action, repository string
		holds                         bool
	}{
		{"{'red','blue'} ForAnyOfAnyValues:StringEquals {'blue','green'}", "", "", true},
		{"{'red','blue'} ForAllOfAnyValues:StringEquals {'red','green'}", "", "", false},
		{"{'red','blue'} ForAllOfAnyValues:StringEquals {'orange','red','blue'}", "", "", true},
		{"{10, 20} ForAnyOfAllValues:NumericLessThan {15, 18}", "", "", true},
		{"{10, 20} ForAllOfAllValues:NumericLessThan {15, 25, 30}", "", "", false},
		{"{10, 20} ForAllOfAllValues:NumericLessThan {25, 30}", "", "", true},
		{name + "StringLike 'a*c?'", "", "abcd", true},
		{name + "StringLike 'A*C?'", "", "abcd", false},
		{name + "StringLike 'a*c'", "", "abcd", false},
		{name + "StringLikeIgnoreCase 'A*C?'", "", "abcd", true},
		{name + `StringLike 'a\*c'`, "", "abc", false},
		{reader, "content/read", "team/api", true},
		{reader, "content/read", "team/api2", false},
		{reader, "metadata/read", "team/api2", false},
		{ops, "content/write", "ops/x", true},
		{ops, "content/write", "opsx", false},
		{two, "content/write", "dev/x", true},
		{two, "content/write", "qa/x", false},
		{readOnly, "content/write", "qa/x", true},
		{readOnly, "content/read", "qa/x", false},
		{"a AND b OR c", "", "", false},
	} {
		q := policytest.Request{Action: repositories + row.action, Data: true, Repository: row.repository}
		if got := policytest.Holds(row.condition, q); got != row.holds {
			t.Errorf("%s of %q: %t", row.condition, row.repository, got)
		}
	}
}
