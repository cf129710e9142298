package armapi

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// Route is an operation that is no plain verb on a document. Exactly one of
// Action, Each and Open says who may use it.
type Route struct {
	Method  string
	Pattern string // /subscriptions/{subscription}/providers/Cove.Diagnostics/decisions/{id}; matched without regard to case
	Action  string // the permission, on Call.ID
	Each    bool   // everybody who is signed in: Do itself asks for each thing that it shows
	Open    bool   // everybody; no token is looked at and no api-version asked for
	MaxBody int64  // bytes; 0 is 4 MiB
	// Template says that the body holds a template, as az writes it: JSON with
	// comments and with names without quotes.
	Template bool
	Do       func(ctx context.Context, c *Call) (Reply, error)
}

type route struct {
	Route
	segments []string
}

func compile(r Route) (route, error) {
	who := 0
	for _, yes := range []bool{r.Action != "", r.Each, r.Open} {
		if yes {
			who++
		}
	}
	if who != 1 || r.Do == nil || r.Method == "" || !strings.HasPrefix(r.Pattern, "/") {
		return route{}, fmt.Errorf("the route %s %s must have a handler and say in one way who may use it", r.Method, r.Pattern)
	}
	return route{r, strings.Split(r.Pattern[1:], "/")}, nil
}

// Routes are the operations that are no plain verb on a document, in the order
// in which a request is compared with them.
func (s *Server) Routes() (out []Route) {
	for _, r := range s.routes {
		out = append(out, r.Route)
	}
	return out
}

// match returns the parameters of a path, or nil where it is another.
func (r *route) match(segments []string) map[string]string {
	if len(segments) != len(r.segments) {
		return nil
	}
	params := map[string]string{}
	for i, want := range r.segments {
		if name, ok := strings.CutPrefix(want, "{"); ok {
			params[strings.TrimSuffix(name, "}")] = segments[i]
		} else if !strings.EqualFold(want, segments[i]) {
			return nil
		}
	}
	return params
}

// find returns the operation that a method and a path name, and fills in what
// the path says of the call. A listed route goes before the documents.
func (s *Server) find(c *Call, segments []string) (*Route, bool) {
	if len(segments) == 0 {
		return nil, false
	}
	for i := range s.routes {
		r := &s.routes[i]
		if r.Method != c.Method {
			continue
		}
		if params := r.match(segments); params != nil {
			c.Params, c.ID = params, scope(segments)
			return &r.Route, true
		}
	}
	return s.document(c)
}

// document is the operation on a document, on a list of them, or one of a
// type's own actions.
func (s *Server) document(c *Call) (*Route, bool) {
	if r, ok := s.roles(c); ok {
		return r, true
	}
	if r, ok := s.locks(c); ok {
		return r, true
	}
	if r, ok := s.tags(c); ok {
		return r, true
	}
	if r, ok := s.computed(c); ok {
		return r, true
	}
	if id, err := arm.ParseID(c.Path); err == nil {
		c.ID = id
		typ := s.Service.Canonical(id.Type())
		switch c.Method {
		case http.MethodGet:
			return &Route{Action: permission(typ, "read"), Do: s.get}, true
		case http.MethodHead:
			return &Route{Action: permission(typ, "read"), Do: s.head}, true
		case http.MethodPut:
			return &Route{Action: permission(typ, "write"), Do: s.put}, true
		case http.MethodPatch:
			return &Route{Action: permission(typ, "write"), Do: s.patch}, true
		case http.MethodDelete:
			return &Route{Action: permission(typ, "delete"), Do: s.delete}, true
		}
		return &Route{Each: true, Do: noMethod}, true
	}
	if one, err := arm.ParseID(c.Path + "/x"); err == nil && c.Method == http.MethodGet {
		c.ID = one.Parent()
		typ := s.Service.Canonical(one.Type())
		return &Route{Each: true, Do: func(ctx context.Context, c *Call) (Reply, error) {
			return s.list(ctx, c, resource.ListQuery{Type: typ})
		}}, true
	}
	cut := strings.LastIndexByte(c.Path, '/')
	if id, err := arm.ParseID(c.Path[:cut]); err == nil && c.Method == http.MethodPost {
		c.ID = id
		name := c.Path[cut+1:]
		return &Route{Action: s.Service.ActionName(id, name), Do: func(ctx context.Context, c *Call) (Reply, error) {
			return s.act(ctx, c, name)
		}}, true
	}
	return nil, false
}

// computed is a type's computed collection, or one item of it.
func (s *Server) computed(c *Call) (*Route, bool) {
	if c.Method != http.MethodGet {
		return nil, false
	}
	one, single := "", false
	id, err := arm.ParseID(c.Path)
	if err == nil {
		one, single = id.Name(), true
	} else if id, err = arm.ParseID(c.Path + "/x"); err != nil {
		return nil, false
	}
	name := id.Type()[strings.LastIndexByte(id.Type(), '/')+1:]
	of := id.Parent()
	if name = s.Service.Computes(of, name); name == "" {
		return nil, false
	}
	c.ID = of
	return &Route{Action: permission(s.Service.Canonical(of.Type())+"/"+name, "read"), Do: func(ctx context.Context, c *Call) (Reply, error) {
		items, err := s.Service.Compute(ctx, of, name)
		if err != nil {
			return Reply{}, err
		}
		if !single {
			return Reply{Status: http.StatusOK, Body: s.page(c, resource.Page{Items: items})}, nil
		}
		for _, item := range items {
			if known, _ := item["name"].(string); strings.EqualFold(known, one) {
				return Reply{Status: http.StatusOK, Body: item}, nil
			}
		}
		return Reply{}, resource.ErrUnknown.Detail("The resource '%.200s' was not found.", c.Path)
	}}, true
}

func noMethod(_ context.Context, c *Call) (Reply, error) {
	return Reply{}, errNoMethod.Detail("The method %.20s is not allowed on a resource.", c.Method)
}

// permission is the action that a verb on a type needs. The permissions of a
// group are spelled as those of a child of its subscription.
func permission(typ, verb string) string {
	if typ == resource.TypeGroup {
		typ = "Microsoft.Resources/subscriptions/resourceGroups"
	}
	return typ + "/" + verb
}
