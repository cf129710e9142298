package armapi

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

var errTemplate = fault.Coded(fault.Invalid, "InvalidTemplate", "the template is not valid")

// maxTemplate is how many resources one template may have.
const maxTemplate = 100

// validate answers what `az deployment group validate` asks, and a portal
// before it creates: whether the resources of a template could be made in the
// group as it is. All of it is tried and none of it stays.
//
// A template's resources are taken as they are written. One with expressions
// is refused: to take "[parameters('x')]" for a name would be to validate
// something else.
func (s *Server) validate(ctx context.Context, c *Call) (Reply, error) {
	wanted, err := template(c.ID.GroupID(), c.Body)
	if err != nil {
		return Reply{}, err
	}
	for _, w := range wanted {
		if err := c.may(permission(s.Service.Canonical(w.ID.Type()), "write"), w.ID); err != nil {
			return Reply{}, err
		}
	}
	results, err := s.Service.Validate(ctx, c.Caller, wanted)
	if err != nil {
		return Reply{}, err
	}
	valid := []any{}
	for _, r := range results {
		valid = append(valid, resource.Object{"id": r.ID.String()})
	}
	return Reply{Status: http.StatusOK, Body: resource.Object{
		"id": c.ID.String(), "name": c.ID.Name(), "type": "Microsoft.Resources/deployments",
		"properties": resource.Object{
			"provisioningState": "Succeeded", "mode": "Incremental", "timestamp": s.Now().UTC().Format(time.RFC3339Nano),
			"correlationId": c.Request, "validatedResources": valid,
		},
	}}, nil
}

// template reads the body of a validation into the resources that it means in
// a group. Their order is the template's.
func template(group arm.ID, body resource.Object) ([]resource.Wanted, error) {
	var bad []fault.Field
	refuse := func(path, format string, args ...any) {
		bad = append(bad, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
	}
	props, _ := body["properties"].(resource.Object)
	text, _ := props["template"].(resource.Object)
	if mode, given := props["mode"]; given && !strings.EqualFold(fmt.Sprint(mode), "Incremental") {
		refuse("properties.mode", "must be Incremental")
	}
	if text == nil {
		refuse("properties.template", "is required, as an object; templates elsewhere are not read")
	}
	for name, v := range text {
		switch name {
		case "$schema", "contentVersion", "metadata", "resources":
		case "parameters", "variables", "outputs", "functions":
			if o, ok := v.(resource.Object); !ok || len(o) > 0 {
				refuse("properties.template."+name, "must be empty: this version takes templates without expressions")
			}
		default:
			refuse("properties.template."+name, "is not in this version")
		}
	}
	list, ok := text["resources"].([]any)
	if text != nil && !ok || len(list) > maxTemplate {
		refuse("properties.template.resources", "must be a list of at most %d resources", maxTemplate)
		list = nil
	}
	var wanted []resource.Wanted
	for i, v := range list {
		path := fmt.Sprintf("properties.template.resources[%d]", i)
		o, _ := v.(resource.Object)
		for at := range expressions(path, v) {
			refuse(at, "is an expression; this version takes templates without")
		}
		typ, _ := o["type"].(string)
		name, _ := o["name"].(string)
		id, err := placed(group, typ, name)
		if err != nil {
			refuse(path, "must have a type such as Microsoft.Network/virtualNetworks/subnets and a name such as network/subnet")
			continue
		}
		one := resource.Object{}
		for key, v := range o {
			switch key {
			case "type", "name", "apiVersion", "dependsOn", "comments":
			case "condition", "copy", "scope", "resources", "batchSize":
				refuse(path+"."+key, "is not in this version")
			default:
				one[key] = v
			}
		}
		wanted = append(wanted, resource.Wanted{ID: id, Body: one})
	}
	if len(bad) == 0 {
		return wanted, nil
	}
	slices.SortStableFunc(bad, func(a, b fault.Field) int { return strings.Compare(a.Path, b.Path) })
	return nil, &fault.Error{
		Kind: fault.Invalid, Code: errTemplate.Code, Fields: bad,
		Public: "Deployment template validation failed: " + bad[0].Path + " " + bad[0].Message + ".",
	}
}

// placed is the id of a template's resource: type N/a/b and name x/y are
// …/providers/N/a/x/b/y.
func placed(group arm.ID, typ, name string) (arm.ID, error) {
	namespace, rest, _ := strings.Cut(typ, "/")
	types, names := strings.Split(rest, "/"), strings.Split(name, "/")
	if len(types) != len(names) {
		return arm.ID{}, errTemplate
	}
	text := group.String() + "/providers/" + namespace
	for i := range types {
		text += "/" + types[i] + "/" + names[i]
	}
	return arm.ParseID(text)
}

// expressions are the paths of the texts that a template engine would evaluate.
func expressions(path string, v any) func(func(string) bool) {
	return func(yield func(string) bool) { walk(path, v, yield) }
}

func walk(path string, v any, yield func(string) bool) bool {
	switch v := v.(type) {
	case string:
		if strings.HasPrefix(v, "[") && strings.HasSuffix(v, "]") && !strings.HasPrefix(v, "[[") {
			return yield(path)
		}
	case resource.Object:
		for name, e := range v {
			if !walk(path+"."+name, e, yield) {
				return false
			}
		}
	case []any:
		for i, e := range v {
			if !walk(fmt.Sprintf("%s[%d]", path, i), e, yield) {
				return false
			}
		}
	}
	return true
}
