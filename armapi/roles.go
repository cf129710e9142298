package armapi

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
)

const authorization = "/providers/Microsoft.Authorization/"

// roles are the collections of Microsoft.Authorization, which can be asked for
// at every scope: who has which role there, and which roles there are.
func (s *Server) roles(c *Call) (*Route, bool) {
	if c.Method != http.MethodGet {
		return nil, false
	}
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
	switch {
	case strings.EqualFold(collection, "roleAssignments") && !one && scope.Subscription() != "":
		c.ID = scope
		return &Route{Each: true, Do: s.assignments}, true
	case strings.EqualFold(collection, "roleDefinitions") && !strings.Contains(name, "/"):
		c.ID = scope
		do := s.definitions
		if one {
			do = definition(name)
		}
		if cut == 0 {
			// What the built-in roles are is no secret; there are no others
			// at the root.
			return &Route{Each: true, Do: do}, true
		}
		return &Route{Action: policy.TypeDefinitions + "/read", Do: do}, true
	}
	return nil, false
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

func (s *Server) definitions(_ context.Context, c *Call) (Reply, error) {
	want, err := roleFilter(c.Query.Get("$filter"), "rolename")
	if err != nil {
		return Reply{}, err
	}
	page := resource.Page{Items: []resource.Object{}}
	for _, r := range policy.Builtin {
		if want.value == "" || strings.EqualFold(r.Name, want.value) {
			page.Items = append(page.Items, defined(r, c.ID))
		}
	}
	return Reply{Status: http.StatusOK, Body: s.page(c, page)}, nil
}

func definition(name string) func(context.Context, *Call) (Reply, error) {
	return func(_ context.Context, c *Call) (Reply, error) {
		r := policy.BuiltinByID(name)
		if r == nil {
			return Reply{}, errNoRole.Detail("The role definition '%.60s' was not found.", name)
		}
		return Reply{Status: http.StatusOK, Body: defined(r, c.ID)}, nil
	}
}

// defined is a role in ARM's shape. Its id is that of the subscription it was
// asked for in, as in Azure; the GUID at its end is what counts.
func defined(r *policy.Role, at arm.ID) resource.Object {
	id := authorization + "roleDefinitions/" + r.ID
	if sub := at.Subscription(); sub != "" {
		id = "/subscriptions/" + sub + id
	}
	list := func(l []string) []string { return append([]string{}, l...) }
	return resource.Object{
		"id": id, "name": r.ID, "type": policy.TypeDefinitions,
		"properties": resource.Object{
			"roleName": r.Name, "type": "BuiltInRole", "description": r.Description, "assignableScopes": []string{"/"},
			"permissions": []resource.Object{{
				"actions": list(r.Actions), "notActions": list(r.NotActions),
				"dataActions": list(r.DataActions), "notDataActions": []string{},
			}},
		},
	}
}

// roleWant is a $filter of a collection of roles.
type roleWant struct {
	atScope  bool
	assigned bool   // the value's groups count as the value
	value    string // of the one field that it may compare
}

// roleFilter reads the filters of the two collections: atScope(),
// assignedTo('GUID'), FIELD eq 'VALUE' and type eq 'BuiltInRole', joined by
// and.
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
				ok = ok && strings.EqualFold(value, "BuiltInRole")
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
