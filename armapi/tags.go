package armapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// tags are the operations on the tags of something, by themselves: whoever may
// write tags there needs no right to write the rest of it.
func (s *Server) tags(c *Call) (*Route, bool) {
	id, err := arm.ParseID(c.Path)
	if err != nil || !strings.EqualFold(id.Type(), resource.TypeTags) || id.Subscription() == "" {
		return nil, false
	}
	on := id.Parent()
	route := func(verb string, do func(context.Context, *Call) (resource.Object, error)) (*Route, bool) {
		return &Route{Action: resource.TypeTags + "/" + verb, Do: func(ctx context.Context, c *Call) (Reply, error) {
			if !strings.EqualFold(id.Name(), "default") {
				return Reply{}, errNoRoute.Detail("The tags of a resource are named default, not %.60q.", id.Name())
			}
			tags, err := do(ctx, c)
			if err != nil || c.Method == http.MethodDelete {
				return Reply{Status: http.StatusOK}, err
			}
			return Reply{Status: http.StatusOK, Body: resource.Object{
				"id": on.String() + "/providers/" + resource.TypeTags + "/default", "name": "default", "type": resource.TypeTags,
				"properties": resource.Object{"tags": tags},
			}}, nil
		}}, true
	}
	c.ID = on
	switch c.Method {
	case http.MethodGet:
		return route("read", func(ctx context.Context, c *Call) (resource.Object, error) { return s.Service.Tags(ctx, on) })
	case http.MethodPut, http.MethodPatch:
		return route("write", func(ctx context.Context, c *Call) (resource.Object, error) {
			how, given, err := tagChange(c)
			if err != nil {
				return nil, err
			}
			return s.Service.Tag(ctx, c.Caller, on, how, given)
		})
	case http.MethodDelete:
		return route("delete", func(ctx context.Context, c *Call) (resource.Object, error) {
			return s.Service.Tag(ctx, c.Caller, on, resource.TagsReplace, resource.Object{})
		})
	}
	return nil, false
}

// tagChange reads {"operation": "Merge", "properties": {"tags": {…}}}. A PUT
// has no operation and replaces.
func tagChange(c *Call) (how string, given resource.Object, err error) {
	var bad []fault.Field
	how = resource.TagsReplace
	if c.Method == http.MethodPatch {
		text, _ := c.Body["operation"].(string)
		words := []string{resource.TagsMerge, resource.TagsReplace, resource.TagsDelete}
		if i := slices.IndexFunc(words, func(w string) bool { return strings.EqualFold(w, text) }); i >= 0 {
			how = words[i]
		} else {
			bad = append(bad, fault.Field{Path: "operation", Message: "must be one of " + strings.Join(words, ", ")})
		}
	}
	given = resource.Object{}
	switch tags := resource.Lookup(c.Body, "properties.tags").(type) {
	case nil:
	case resource.Object:
		given = tags
	default:
		bad = append(bad, fault.Field{Path: "properties.tags", Message: "must be an object of strings"})
	}
	if c.Body["properties"] == nil {
		bad = append(bad, fault.Field{Path: "properties", Message: "is required"})
	}
	return how, given, fault.Problems(bad)
}
