package armapi

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
)

const authorization = "/providers/Microsoft.Authorization/"

// roles are the collections of Microsoft.Authorization, which can be asked for
// at every scope: who has which role there, and which roles there are. A role
// definition is one, under the scope of whoever names it.
func (s *Server) roles(c *Call) (*Route, bool) {
	cut := strings.LastIndex(strings.ToLower(c.Path), strings.ToLower(authorization))
	if cut < 0 {
		return nil, false
	}
	var scope arm.ID // the tenant's root, unless the path says more
	if cut > 0 {
		var err error
		if scope, err = arm.ParseID(c.Path[:cut]); err != nil {
			return nil, false
		}
	}
	collection, name, one := strings.Cut(c.Path[cut+len(authorization):], "/")
	get := c.Method == http.MethodGet
	switch {
	case strings.EqualFold(collection, "roleAssignments") && get && !one && scope.Subscription() != "":
		c.ID = scope
		return &Route{Each: true, Do: s.assignments}, true
	case !strings.EqualFold(collection, "roleDefinitions") || strings.Contains(name, "/"):
		return nil, false
	case get && cut == 0:
		// What the built-in roles are is no secret; of the others each is
		// asked for.
		c.ID = scope
		if one {
			return &Route{Each: true, Do: s.definition(name)}, true
		}
		return &Route{Each: true, Do: s.definitions}, true
	case get:
		c.ID = scope
		do := s.definitions
		if one {
			do = s.definition(name)
		}
		return &Route{Action: policy.TypeDefinitions + "/read", Do: do}, true
	case !one:
		return nil, false
	case c.Method == http.MethodPut:
		c.ID = scope
		return &Route{Action: policy.TypeDefinitions + "/write", Do: s.define(name)}, true
	case c.Method == http.MethodDelete:
		c.ID = scope
		return &Route{Action: policy.TypeDefinitions + "/delete", Do: s.undefine(name)}, true
	}
	return &Route{Each: true, Do: noMethod}, true
}

// assignments are those that count at the scope or lie below it: made there,
// above, or below. With atScope() those below are left out.
func (s *Server) assignments(ctx context.Context, c *Call) (Reply, error) {
	want, err := roleFilter(c.Query.Get("$filter"), "principalid")
	if err != nil {
		return Reply{}, err
	}
	holders, err := s.holders(ctx, want)
	if err != nil {
		return Reply{}, err
	}
	const action = policy.TypeAssignments + "/read"
	refusal := c.may(action, c.ID)
	if refusal == nil {
		if _, err := s.Service.Get(ctx, c.ID); err != nil {
			return Reply{}, err
		}
	}
	token := c.Query.Get("$skiptoken")
	page, err := s.Service.List(ctx, resource.ListQuery{
		Type: policy.TypeAssignments, Scope: resource.SubscriptionID(c.ID.Subscription()), Token: token,
		Want: func(d resource.Doc) bool {
			on := d.ID.Parent()
			below := on.Within(c.ID)
			if !c.ID.Within(on) && (!below || want.atScope) {
				return false
			}
			principal, _ := resource.Lookup(d.Body, "properties.principalId").(string)
			if holders != nil && !slices.Contains(holders, strings.ToLower(principal)) {
				return false
			}
			return refusal == nil || below && c.may(action, d.ID) == nil
		},
	})
	if refusal != nil && (err != nil || len(page.Items) == 0 && page.Next == "" && token == "") {
		return Reply{}, refusal // the same for a scope that exists and one that does not
	}
	if err != nil {
		return Reply{}, err
	}
	return Reply{Status: http.StatusOK, Body: s.page(c, page)}, nil
}

// holders are the principals whose assignments a filter asks for, nil for all:
// one, and for assignedTo the groups it is in too.
func (s *Server) holders(ctx context.Context, want roleWant) ([]string, error) {
	if want.value == "" {
		return nil, nil
	}
	one := strings.ToLower(want.value)
	if !want.assigned || s.Groups == nil {
		return []string{one}, nil
	}
	groups, err := s.Groups(ctx, one)
	return append([]string{one}, groups...), err
}

// definitions are the built-in roles, and the custom ones that can be assigned
// at the scope, above it or below it; with atScope(), at the scope itself.
func (s *Server) definitions(ctx context.Context, c *Call) (Reply, error) {
	want, err := roleFilter(c.Query.Get("$filter"), "rolename")
	if err != nil {
		return Reply{}, err
	}
	items := []resource.Object{}
	token := c.Query.Get("$skiptoken")
	for _, r := range policy.Builtin {
		if token == "" && want.kind != customRole && (want.value == "" || strings.EqualFold(r.Name, want.value)) {
			items = append(items, defined(r, c.ID))
		}
	}
	page := resource.Page{}
	if want.kind != builtInRole {
		page, err = s.Service.List(ctx, resource.ListQuery{
			Type: policy.TypeDefinitions, Token: token,
			Item: func(d resource.Doc) resource.Object { return customized(d.Body, d.ID.Name(), c.ID) },
			Want: func(d resource.Doc) bool {
				name, _ := resource.Lookup(d.Body, "properties.roleName").(string)
				return (want.value == "" || strings.EqualFold(name, want.value)) && c.shownRole(d, want.atScope)
			},
		})
		if err != nil {
			return Reply{}, err
		}
	}
	page.Items = append(items, page.Items...)
	return Reply{Status: http.StatusOK, Body: s.page(c, page)}, nil
}

// shownRole reports whether a custom role is one that a call at its scope is shown.
func (c *Call) shownRole(d resource.Doc, atScope bool) bool {
	role, err := policy.RoleFromDoc(d)
	if err != nil {
		return false
	}
	for _, at := range role.Assignable {
		if c.ID.IsZero() && c.may(policy.TypeDefinitions+"/read", at) == nil || !c.ID.IsZero() && c.ID.Within(at) ||
			!c.ID.IsZero() && at.Within(c.ID) && !atScope {
			return true
		}
	}
	return false
}

func (s *Server) definition(name string) func(context.Context, *Call) (Reply, error) {
	return func(ctx context.Context, c *Call) (Reply, error) {
		if r := policy.BuiltinByID(name); r != nil {
			return Reply{Status: http.StatusOK, Body: defined(r, c.ID)}, nil
		}
		got, err := s.custom(ctx, c, name)
		if err != nil {
			return Reply{}, err
		}
		return Reply{Status: http.StatusOK, Body: customized(got.Body, name, c.ID), ETag: got.ETag}, nil
	}
}

// custom reads a custom role that is shown at the scope of a call.
func (s *Server) custom(ctx context.Context, c *Call, name string) (resource.Result, error) {
	none := errNoRole.Detail("The role definition '%.60s' was not found.", name)
	id, err := policy.RoleID(name)
	if err != nil {
		return resource.Result{}, none
	}
	got, err := s.Service.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) || err == nil && !c.shownRole(resource.Doc{ID: id, Body: got.Body}, false) {
		return resource.Result{}, none
	}
	return got, err
}

// define makes a custom role or changes one. The type asks for the right to at
// each of the role's scopes; the route has asked for it at the scope of the call.
func (s *Server) define(name string) func(context.Context, *Call) (Reply, error) {
	return func(ctx context.Context, c *Call) (Reply, error) {
		if c.Body == nil {
			return Reply{}, errJSON.Detail("A body is required.")
		}
		if policy.BuiltinByID(name) != nil {
			return Reply{}, policy.ErrBuiltin
		}
		id, err := policy.RoleID(name)
		if err != nil {
			return Reply{}, fault.Problems([]fault.Field{{Path: "name", Message: "the name of a role definition is a GUID"}})
		}
		r, err := s.Service.Put(ctx, c.Caller, id, c.Body, c.Condition)
		if err != nil {
			return Reply{}, err
		}
		// 201 for a change too: az takes no other status.
		return Reply{Status: http.StatusCreated, Body: customized(r.Body, name, c.ID), ETag: r.ETag}, nil
	}
}

// undefine deletes a custom role and answers with what it was, as ARM does.
func (s *Server) undefine(name string) func(context.Context, *Call) (Reply, error) {
	return func(ctx context.Context, c *Call) (Reply, error) {
		if policy.BuiltinByID(name) != nil {
			return Reply{}, policy.ErrBuiltin
		}
		got, err := s.custom(ctx, c, name)
		if errors.Is(err, errNoRole) {
			return Reply{Status: http.StatusNoContent}, nil
		}
		if err == nil {
			_, err = s.Service.Delete(ctx, c.Caller, got.ID, c.Condition)
		}
		if err != nil {
			return Reply{}, err
		}
		return Reply{Status: http.StatusOK, Body: customized(got.Body, name, c.ID)}, nil
	}
}

// definitionID is a role's id as the subscription of a scope shows it, as in
// Azure; the GUID at its end is what counts.
func definitionID(name string, at arm.ID) string {
	if sub := at.Subscription(); sub != "" {
		return policy.DefinitionID(sub, name)
	}
	return authorization + "roleDefinitions/" + strings.ToLower(name)
}

// customized is a custom role's document in ARM's shape.
func customized(body resource.Object, name string, at arm.ID) resource.Object {
	shown := resource.Clone(body)
	shown["id"], shown["name"], shown["type"] = definitionID(name, at), strings.ToLower(name), policy.TypeDefinitions
	resource.Remove(shown, "properties.provisioningState") // which role definitions do not have
	delete(shown, "etag")
	return shown
}

// defined is a built-in role in ARM's shape.
func defined(r *policy.Role, at arm.ID) resource.Object {
	list := func(l []string) []string { return append([]string{}, l...) }
	return resource.Object{
		"id": definitionID(r.ID, at), "name": r.ID, "type": policy.TypeDefinitions,
		"properties": resource.Object{
			"roleName": r.Name, "type": builtInRole, "description": r.Description, "assignableScopes": []string{"/"},
			"permissions": []resource.Object{{
				"actions": list(r.Actions), "notActions": list(r.NotActions),
				"dataActions": list(r.DataActions), "notDataActions": list(r.NotDataActions),
			}},
		},
	}
}

// The two types of roles, as filters name them.
const (
	builtInRole = "BuiltInRole"
	customRole  = "CustomRole"
)

// roleWant is a $filter of a collection of roles.
type roleWant struct {
	atScope  bool
	assigned bool   // the value's groups count as the value
	kind     string // builtInRole or customRole, "" for both
	value    string // of the one field that it may compare
}

// roleFilter reads the filters of the two collections: atScope(),
// assignedTo('GUID'), atScopeAndBelow(), FIELD eq 'VALUE' and type eq
// 'BuiltInRole' or 'CustomRole', joined by and.
func roleFilter(text, field string) (roleWant, error) {
	var w roleWant
	bad := func() (roleWant, error) {
		return roleWant{}, errFilter.Detail("The filter %.200q is not one that this list takes.", text)
	}
	set := func(value string) bool {
		ok := value != "" && (w.value == "" || strings.EqualFold(w.value, value))
		w.value = value
		return ok
	}
	rest := strings.TrimSpace(text)
	for rest != "" {
		lower, after, ok := strings.ToLower(rest), "", true
		switch value := ""; {
		case strings.HasPrefix(lower, "atscope()"):
			w.atScope, after = true, rest[len("atscope()"):]
		case field == "rolename" && strings.HasPrefix(lower, "atscopeandbelow()"):
			after = rest[len("atscopeandbelow()"):] // what is listed anyway
		case field == "principalid" && strings.HasPrefix(lower, "assignedto("):
			value, after, ok = quoted(strings.TrimSpace(rest[len("assignedto("):]))
			tail, closed := strings.CutPrefix(strings.TrimSpace(after), ")")
			after, ok, w.assigned = tail, ok && closed && set(value), true
		default:
			name, more, _ := strings.Cut(rest, " ")
			op, more, _ := strings.Cut(strings.TrimSpace(more), " ")
			value, after, ok = quoted(strings.TrimSpace(more))
			switch ok = ok && strings.EqualFold(op, "eq"); {
			case strings.EqualFold(name, field):
				ok = ok && set(value)
			case field == "rolename" && strings.EqualFold(name, "type"):
				ok = ok && w.kindIs(value)
			default:
				ok = false
			}
		}
		if !ok {
			return bad()
		}
		if rest = strings.TrimSpace(after); rest == "" {
			break
		}
		word, more, found := strings.Cut(rest, " ")
		if rest = strings.TrimSpace(more); !found || !strings.EqualFold(word, "and") || rest == "" {
			return bad()
		}
	}
	return w, nil
}

// kindIs notes the type that a filter names, and reports whether it is one that
// does not contradict what it has named before.
func (w *roleWant) kindIs(value string) bool {
	for _, known := range []string{builtInRole, customRole} {
		if strings.EqualFold(value, known) && (w.kind == "" || w.kind == known) {
			w.kind = known
			return true
		}
	}
	return false
}
