package armapi

import (
	"context"
	"net/http"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// locks is the list of locks that is asked for at a scope.
func (s *Server) locks(c *Call) (*Route, bool) {
	one, err := arm.ParseID(c.Path + "/x")
	if err != nil || c.Method != http.MethodGet || !strings.EqualFold(one.Type(), resource.TypeLock) || one.Subscription() == "" {
		return nil, false
	}
	c.ID = one.Parent()
	return &Route{Each: true, Do: s.locked}, true
}

// locked lists the locks that count at the scope or lie below it: made there,
// above, or below. With atScope() those below are left out.
func (s *Server) locked(ctx context.Context, c *Call) (Reply, error) {
	atScope := false
	switch want := strings.TrimSpace(c.Query.Get("$filter")); {
	case strings.EqualFold(want, "atScope()"):
		atScope = true
	case want != "":
		return Reply{}, errFilter.Detail("The filter %.200q is not one that this list takes. It may be: atScope()", want)
	}
	const action = resource.TypeLock + "/read"
	refusal := c.may(action, c.ID)
	if refusal == nil {
		if found, err := s.Service.Exists(ctx, c.ID); err != nil {
			return Reply{}, err
		} else if !found {
			_, err := s.Service.Get(ctx, c.ID)
			return Reply{}, err
		}
	}
	token := c.Query.Get("$skiptoken")
	page, err := s.Service.List(ctx, resource.ListQuery{
		Type: resource.TypeLock, Scope: resource.SubscriptionID(c.ID.Subscription()), Token: token,
		Want: func(d resource.Doc) bool {
			on := d.ID.Parent()
			below := on.Within(c.ID)
			if !c.ID.Within(on) && (!below || atScope) {
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
