package armapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

func (s *Server) get(ctx context.Context, c *Call) (Reply, error) {
	r, err := s.Service.Get(ctx, c.ID)
	if err != nil {
		return Reply{}, err
	}
	return Reply{Status: http.StatusOK, Body: r.Body, ETag: r.ETag}, nil
}

// head says whether a resource exists: 204 or 404, as ARM does.
func (s *Server) head(ctx context.Context, c *Call) (Reply, error) {
	r, err := s.Service.Get(ctx, c.ID)
	if err != nil {
		return Reply{}, err
	}
	return Reply{Status: http.StatusNoContent, ETag: r.ETag}, nil
}

// put and patch answer when the work is done and durable, so no client polls:
// 200 or 201 with provisioningState Succeeded and no operation header ends a
// long-running operation at once.
func (s *Server) put(ctx context.Context, c *Call) (Reply, error) {
	if c.Body == nil {
		return Reply{}, errJSON.Detail("A body is required.")
	}
	r, err := s.Service.Put(ctx, c.Caller, c.ID, c.Body, c.Condition)
	if err != nil {
		return Reply{}, err
	}
	status := http.StatusOK
	if r.Created {
		status = http.StatusCreated
	}
	return Reply{Status: status, Body: r.Body, ETag: r.ETag}, nil
}

func (s *Server) patch(ctx context.Context, c *Call) (Reply, error) {
	if c.Body == nil {
		return Reply{}, errJSON.Detail("A body is required.")
	}
	r, err := s.Service.Patch(ctx, c.Caller, c.ID, c.Body, c.Condition)
	if err != nil {
		return Reply{}, err
	}
	return Reply{Status: http.StatusOK, Body: r.Body, ETag: r.ETag}, nil
}

func (s *Server) delete(ctx context.Context, c *Call) (Reply, error) {
	existed, err := s.Service.Delete(ctx, c.Caller, c.ID, c.Condition)
	if err != nil {
		return Reply{}, err
	}
	if !existed {
		return Reply{Status: http.StatusNoContent}, nil
	}
	return Reply{Status: http.StatusOK}, nil
}

func (s *Server) act(ctx context.Context, c *Call, name string) (Reply, error) {
	if s.Service.IsLong(c.ID, name) {
		o, err := s.Service.Start(ctx, c.Caller, c.ID, name, c.Body)
		if err != nil {
			return Reply{}, err
		}
		return s.accepted(c, o), nil
	}
	out, err := s.Service.Act(ctx, c.Caller, c.ID, name, c.Body)
	if err != nil {
		return Reply{}, err
	}
	if out == nil {
		return Reply{Status: http.StatusOK}, nil
	}
	return Reply{Status: http.StatusOK, Body: out}, nil
}

// list answers a page of what the caller may read at or below c.ID. Who may
// read nothing there is refused, so that an empty list says "none" and not
// "none for you".
func (s *Server) list(ctx context.Context, c *Call, q resource.ListQuery) (Reply, error) {
	q.Scope = c.ID
	q.Token = c.Query.Get("$skiptoken")
	if top := c.Query.Get("$top"); top != "" {
		n, err := strconv.Atoi(top)
		if err != nil || n < 1 {
			return Reply{}, errURL.Detail("$top must be a whole number, 1 or more.")
		}
		q.Limit = min(n, resource.MaxPage)
	}
	want, err := filter(c.Query.Get("$filter"))
	if err != nil {
		return Reply{}, err
	}
	if q.Type == "" {
		q.Type = want.typ
	}
	action := "Microsoft.Resources/subscriptions/resources/read"
	if q.Type != "" {
		action = permission(s.Service.Canonical(q.Type), "read")
	}
	refusal := c.may(action, c.ID)
	// Rights are inherited: who may read a type at the scope may read all of
	// it below.
	every := refusal == nil && q.Type != ""
	wanted, suffix := q.Want, c.Query.Get(nameSuffix)
	q.Want = func(d resource.Doc) bool {
		return (wanted == nil || wanted(d)) && want.holds(d) && (suffix == "" || recordSetBelow(suffix, d.ID)) && (every || c.may(permission(s.Service.Canonical(d.ID.Type()), "read"), d.ID) == nil)
	}
	page, err := s.Service.List(ctx, q)
	none := len(page.Items) == 0 && page.Next == "" && q.Token == ""
	if refusal != nil && !c.ID.IsZero() && (err != nil || none) {
		return Reply{}, refusal // the same for a scope that exists and one that does not
	}
	if err != nil {
		return Reply{}, err
	}
	return Reply{Status: http.StatusOK, Body: s.page(c, page)}, nil
}

// nameSuffix is what lists of record sets can be asked for: those below a label.
const nameSuffix = "$recordsetnamesuffix"

// recordSetBelow says whether a record set's name ends in a dot and suffix; it
// holds for everything else, whose lists do not know the parameter.
func recordSetBelow(suffix string, id arm.ID) bool {
	return !strings.HasPrefix(strings.ToLower(id.Type()), "microsoft.network/privatednszones/") ||
		strings.HasSuffix(strings.ToLower(id.Name()), "."+strings.ToLower(suffix))
}

// page is the envelope of a list. Its link names the configured host: a link
// built from the Host header would send the caller's token wherever that says.
func (s *Server) page(c *Call, p resource.Page) resource.Object {
	out := resource.Object{"value": p.Items}
	if p.Next != "" {
		q := url.Values{"$skiptoken": {p.Next}}
		for _, name := range []string{"api-version", "$filter", "$top", "$select", "$expand", nameSuffix} {
			if v := c.Query.Get(name); v != "" {
				q.Set(name, v)
			}
		}
		u := url.URL{Scheme: "https", Host: s.Host, Path: c.Path, RawQuery: q.Encode()}
		out["nextLink"] = u.String()
	}
	return out
}
