package armapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/network"
	"cove.example/cove/resource"
)

// Journal is a log of events that can be asked.
type Journal interface {
	audit.Log
	audit.Scanner
}

// Decisions answers `cove explain`: one decision by a prefix of its
// correlation id. Whom it was about learns what concerns them; whoever else may
// not read the registry is told what they would be told of an id that does not
// exist.
func Decisions(log Journal, guard *access.Guard, now func() time.Time) Route {
	return Route{
		Method: http.MethodGet, Pattern: "/subscriptions/{subscription}/providers/Cove.Diagnostics/decisions/{id}", Each: true,
		Do: func(ctx context.Context, c *Call) (Reply, error) {
			// What happened a moment ago may still be on its way to the log.
			if err := log.Flush(ctx); err != nil {
				return Reply{}, err
			}
			e, err := log.Find(ctx, c.Params["id"])
			if err != nil {
				return Reply{}, err
			}
			subscription := resource.SubscriptionID(c.ID.Subscription())
			scope := subscription
			if e.Registry != "" {
				if scope, err = arm.ParseID(e.Registry); err != nil {
					return Reply{}, err
				}
			}
			var out access.Explanation
			switch {
			case !scope.Within(subscription):
				return Reply{}, audit.ErrUnknown
			case c.Caller.May("Microsoft.ContainerRegistry/registries/read", scope):
				if out, err = guard.Explain(ctx, e); err == nil && e.Reason != "" {
					out.Alike, err = alike(ctx, log, e, now().Add(-time.Hour))
				}
			case c.Caller.ObjectID != "" && access.SubjectOf(e) == c.Caller.ObjectID:
				out, err = access.ExplainToSubject(e)
			default:
				err = audit.ErrUnknown
			}
			if err != nil {
				return Reply{}, err
			}
			return Reply{Status: http.StatusOK, Body: out}, nil
		},
	}
}

// maxAlike bounds a count: beyond it, it is "many".
const maxAlike = 1000

// alike counts the refusals like e since a time, maxAlike at most.
func alike(ctx context.Context, log audit.Scanner, e audit.Event, since time.Time) (n int, err error) {
	q := audit.Query{
		Table: e.Table, From: since, Within: []string{e.Registry}, Statuses: []int{e.Status}, Select: []audit.Field{audit.FieldReason},
		Where: []audit.In{{Field: audit.FieldReason, Values: []string{e.Reason}}},
	}
	err = log.Scan(ctx, q, func(*audit.Event) error {
		if n++; n == maxAlike {
			return errMany
		}
		return nil
	})
	if errors.Is(err, errMany) {
		err = nil
	}
	return n, err
}

var errMany = errors.New("as many as are counted")

// recentLimit bounds a list of events; the newest come first.
const recentLimit = 500

// Events answers `cove logs`: the newest login or repository events that the
// caller may read, of one registry or of all. Query parameters: table
// (LoginEvents or RepositoryEvents), registry (a resource id), since (RFC 3339).
func Events(log audit.Log) Route {
	return Route{
		Method: http.MethodGet, Pattern: "/subscriptions/{subscription}/providers/Cove.Diagnostics/events", Each: true,
		Do: func(ctx context.Context, c *Call) (Reply, error) {
			var wrong []fault.Field
			table := c.Query.Get("table")
			switch table {
			case "":
				table = "LoginEvents"
			case "LoginEvents", "RepositoryEvents":
			default:
				wrong = append(wrong, fault.Field{Path: "table", Message: "must be LoginEvents or RepositoryEvents"})
			}
			var since time.Time
			if s := c.Query.Get("since"); s != "" {
				var err error
				if since, err = time.Parse(time.RFC3339, s); err != nil {
					wrong = append(wrong, fault.Field{Path: "since", Message: "must be a time such as 2026-11-21T09:00:00Z"})
				}
			}
			registry := c.Query.Get("registry")
			if registry != "" {
				id, err := arm.ParseID(registry)
				if err != nil {
					wrong = append(wrong, fault.Field{Path: "registry", Message: "must be a registry's resource id"})
				}
				registry = id.Key()
			}
			if err := fault.Problems(wrong); err != nil {
				return Reply{}, err
			}
			if err := log.Flush(ctx); err != nil {
				return Reply{}, err
			}
			list, err := log.Recent(ctx, table, registry, since, recentLimit)
			if err != nil {
				return Reply{}, err
			}
			subscription := resource.SubscriptionID(c.ID.Subscription())
			out := []resource.Object{}
			for _, e := range list {
				scope := subscription
				if e.Registry != "" {
					if scope, err = arm.ParseID(e.Registry); err != nil {
						return Reply{}, err
					}
				}
				if scope.Within(subscription) && c.Caller.May("Microsoft.ContainerRegistry/registries/read", scope) {
					out = append(out, audit.Columns(&e))
				}
			}
			return Reply{Status: http.StatusOK, Body: resource.Object{"value": out}}, nil
		},
	}
}

// maxJoin bounds the body of a join.
const maxJoin = 4 << 10

// Join turns a join code into a member. Nobody signs in for it: the code,
// 256 random bits that are good once, is the proof.
func Join(j network.Joiner) Route {
	return Route{
		Method: http.MethodPost, Pattern: "/cove/join", Open: true, MaxBody: maxJoin,
		Do: func(ctx context.Context, c *Call) (Reply, error) {
			code, _ := c.Body["code"].(string)
			key, _ := c.Body["publicKey"].(string)
			var missing []fault.Field
			if code == "" {
				missing = append(missing, fault.Field{Path: "code", Message: "is missing"})
			}
			if key == "" {
				missing = append(missing, fault.Field{Path: "publicKey", Message: "is missing"})
			}
			if err := fault.Problems(missing); err != nil {
				return Reply{}, err
			}
			resolver, _ := c.Body["resolver"].(string)
			out, err := j.Redeem(ctx, code, key, resolver)
			if err != nil {
				return Reply{}, err
			}
			return Reply{Status: http.StatusOK, Body: out}, nil
		},
	}
}
