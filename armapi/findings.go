package armapi

import (
	"context"
	"net/http"

	"cove.example/cove/drift"
	"cove.example/cove/resource"
)

// Findings answers `cove status`: what fails now or will, of everything that
// the caller may read.
func Findings(look func(ctx context.Context) ([]drift.Finding, error)) Route {
	return Route{
		Method: http.MethodGet, Pattern: "/subscriptions/{subscription}/providers/Cove.Diagnostics/findings", Each: true,
		Do: func(ctx context.Context, c *Call) (Reply, error) {
			all, err := look(ctx)
			if err != nil {
				return Reply{}, err
			}
			subscription := resource.SubscriptionID(c.ID.Subscription())
			out := []drift.Finding{}
			for _, f := range all {
				if f.Resource.Within(subscription) && c.Caller.May(f.Resource.Type()+"/read", f.Resource) {
					out = append(out, f)
				}
			}
			return Reply{Status: http.StatusOK, Body: resource.Object{"value": out}}, nil
		},
	}
}
