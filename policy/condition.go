package policy

import (
	"fmt"
	"strings"

	"cove.example/cove/condition"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

const (
	pathCondition = "properties.condition"
	pathVersion   = "properties.conditionVersion"
)

// checkCondition says what is wrong with the condition of an assignment, where
// it has one. An empty one is none, and takes its version with it; a version
// that is not given is the only one there is (Azure does both).
func checkCondition(doc *resource.Doc) []fault.Field {
	p, _ := doc.Body["properties"].(resource.Object)
	if twice := resource.Spell(p, "condition", "conditionVersion"); twice != "" {
		return []fault.Field{{Path: "properties." + twice, Message: "is given twice, in spellings that differ in case only"}}
	}
	text, isText := p["condition"].(string)
	version, versioned := p["conditionVersion"]
	switch {
	case p["condition"] != nil && !isText:
		return []fault.Field{{Path: pathCondition, Message: "must be a string"}}
	case text == "":
		delete(p, "condition")
		delete(p, "conditionVersion")
		return nil
	case !versioned || version == nil || version == "":
		p["conditionVersion"] = condition.Version
	case version != condition.Version:
		return []fault.Field{{Path: pathVersion, Message: "must be " + condition.Version}}
	}
	c, err := condition.Parse(text)
	if err != nil {
		return []fault.Field{{Path: pathCondition, Message: err.Error()}}
	}
	var out []fault.Field
	for _, pattern := range c.Patterns() {
		if !anyAction(pattern.Text) {
			at := condition.Error{Line: pattern.Line, Column: pattern.Column, Why: fmt.Sprintf("no action fits %q, so what this is to restrict would be open", clip(pattern.Text))}
			out = append(out, fault.Field{Path: pathCondition, Message: at.Error()})
		}
	}
	return out
}

// anyAction reports whether a pattern fits an action that a role can hold. One
// with a typing error fits none; in the usual form of a condition, in which
// actions that are not named are not restricted, it would open everything.
func anyAction(pattern string) bool {
	for _, r := range Builtin {
		if matchedBy(pattern, r.Actions) || matchedBy(pattern, r.DataActions) {
			return true
		}
	}
	return false
}

func matchedBy(pattern string, actions []string) bool {
	for _, a := range actions {
		if condition.MatchAction(pattern, a) {
			return true
		}
	}
	return false
}

// conditionFits says why an assignment of a role cannot have a condition.
func conditionFits(doc *resource.Doc, role *Role) []fault.Field {
	switch {
	case property(doc, "condition") == "" || role.conditional():
		return nil
	case role.AllowsData(DataCatalogRead):
		return []fault.Field{{Path: pathCondition, Message: fmt.Sprintf("ABAC unsupported: %s lists all repositories or none, and takes no condition", role.Name)}}
	}
	return []fault.Field{{Path: pathCondition, Message: fmt.Sprintf("%s has no data action on repositories, which are what a condition is about", role.Name)}}
}

// OnlyRepository is the condition under which an assignment counts for one
// repository, or with /* at its end for those below a name.
func OnlyRepository(name string) string {
	const attribute = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"
	if below, ok := strings.CutSuffix(name, "/*"); ok {
		return "(" + attribute + " StringStartsWith '" + below + "/')"
	}
	return "(" + attribute + " StringEquals '" + name + "')"
}
