package armapi

import (
	"context"
	"net/http"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/whatif"
)

// Who answers `cove can --who`: everybody who may, or could at a time, do
// something with a repository, and from where. Whoever may read the registry and
// its role assignments may ask; to others there is no such registry.
func Who(a *whatif.Asker) Route {
	return Route{
		Method: http.MethodPost, Pattern: "/subscriptions/{subscription}/providers/Cove.Diagnostics/who", Each: true, MaxBody: maxWhatIf,
		Do: func(ctx context.Context, c *Call) (Reply, error) {
			var bad fields
			q := whatif.RollQuestion{ID: c.Request, Caller: c.Caller, Want: access.Scope{Type: "repository"}}
			q.Registry = bad.id(c.Body, "registry", true)
			if q.Want.Name, _ = c.Body["repository"].(string); q.Want.Name == "" {
				bad.add("repository", "must be a repository's name")
			}
			switch q.Want.Action, _ = c.Body["action"].(string); q.Want.Action {
			case "pull", "push", "delete", "metadata_read", "metadata_write":
			default:
				bad.add("action", "must be pull, push, delete, metadata_read or metadata_write")
			}
			if s, _ := c.Body["at"].(string); s != "" {
				var err error
				if q.At, err = time.Parse(time.RFC3339, s); err != nil {
					bad.add("at", "must be a time such as 2026-11-21T09:00:00Z")
				}
			}
			if err := fault.Problems(bad); err != nil {
				return Reply{}, err
			}
			if !q.Registry.Within(resource.SubscriptionID(c.ID.Subscription())) ||
				!c.Caller.May("Microsoft.ContainerRegistry/registries/read", q.Registry) || !c.Caller.May(policy.TypeAssignments+"/read", q.Registry) {
				return Reply{}, resource.ErrUnknown
			}
			out, err := a.Roll(ctx, q)
			if err != nil {
				return Reply{}, err
			}
			return Reply{Status: http.StatusOK, Body: out}, nil
		},
	}
}
