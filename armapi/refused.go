package armapi

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/resource"
)

// activityRefusals is how many refusals and findings the activity log tells of,
// the newest.
const activityRefusals = 1000

// lacked notes the last permission that a caller did not have: where the
// request is refused, that is why.
type lacked struct {
	action string
	scope  arm.ID
}

func (l *lacked) watch(may func(string, arm.ID) bool) func(string, arm.ID) bool {
	if may == nil {
		return nil
	}
	return func(action string, scope arm.ID) bool {
		if may(action, scope) {
			return true
		}
		l.action, l.scope = action, scope
		return false
	}
}

// refused keeps a change that was refused to somebody who is known, for the
// activity log. As in Azure's, nothing is kept of reading, and nothing of those
// whom nobody knows: strangers do not write into it.
func (s *Server) refused(c *Call, r *http.Request, status int) {
	if s.Refusals == nil || status != http.StatusForbidden || c.Caller.ObjectID == "" || c.lacks.action == "" {
		return
	}
	if c.Method == http.MethodGet || c.Method == http.MethodHead {
		return
	}
	from := ""
	if a := c.Origin.Remote.Addr(); a.IsValid() {
		from = a.Unmap().String()
	}
	s.Refusals.Record(audit.Event{
		ID: c.Request, Time: s.Now(), Table: audit.AdministrativeEvents, Registry: c.lacks.scope.Key(), Operation: c.lacks.action,
		Identity: c.Caller.ObjectID, Tenant: c.Caller.Tenant, CallerIP: from, UserAgent: r.UserAgent(),
		Status: status, Reason: errDenied.Code,
	})
}

// refusals are those of the activity log, and the server's own findings, from a time on and before another, the
// zero time being open.
func (s *Server) refusals(ctx context.Context, c *Call, want activities, from, before time.Time) ([]moment, error) {
	if s.Refusals == nil {
		return nil, nil
	}
	if want.from.After(from) {
		from = want.from
	}
	if err := s.Refusals.Flush(ctx); err != nil {
		return nil, err
	}
	list, err := s.Refusals.Recent(ctx, audit.AdministrativeEvents, "", from, activityRefusals)
	if err != nil {
		return nil, err
	}
	sub := resource.SubscriptionID(c.ID.Subscription())
	var out []moment
	for i := range list {
		e := &list[i]
		id, err := arm.ParseID(e.Registry)
		if err != nil || !before.IsZero() && !e.Time.Before(before) {
			continue // of no resource: the tenant's own
		}
		d, show := deed{at: e.Time, id: id, by: e.Identity, request: e.ID, status: "Failed"}, s.failed
		switch e.Operation {
		case audit.Found:
			d.status, show = "Active", s.noticed
		case audit.Mended:
			d.status, show = "Resolved", s.noticed
		}
		if id.Within(sub) && want.holds(d) && c.may(actionActivity, id) == nil {
			out = append(out, moment{e.Time, show(c, id, e, d.status)})
		}
	}
	return out, nil
}

// failed is a refusal as the activity log has it.
func (s *Server) failed(c *Call, id arm.ID, e *audit.Event, status string) resource.Object {
	o := s.entry(c, id, e.Operation, e.Time, e.ID)
	o["caller"], o["level"], o["status"], o["subStatus"] = e.Identity, "Error", word(status), word("Forbidden")
	o["correlationId"], o["operationId"] = e.ID, e.ID
	o["httpRequest"] = resource.Object{"clientRequestId": e.ID, "clientIpAddress": e.CallerIP}
	o["properties"] = resource.Object{"statusCode": "Forbidden", "statusMessage": e.Reason}
	return o
}

// noticed is what the server has found by itself, in the activity log: of the
// category that Azure has for the health of resources, Active and later
// Resolved.
func (s *Server) noticed(c *Call, id arm.ID, e *audit.Event, status string) resource.Object {
	o := s.entry(c, id, e.Operation, e.Time, e.ID)
	o["caller"], o["level"], o["status"], o["subStatus"] = "", "Warning", word(status), word("")
	if status == "Resolved" {
		o["level"] = "Informational"
	}
	o["category"], o["correlationId"], o["operationId"] = word("ResourceHealth"), e.ID, e.ID
	var words resource.Object
	if json.Unmarshal(e.Detail, &words) == nil {
		o["properties"] = words
	}
	return o
}

// moment is an entry of the activity log and its time.
type moment struct {
	at    time.Time
	entry resource.Object
}

// newestFirst orders what came from two records.
func newestFirst(list []moment) []resource.Object {
	slices.SortStableFunc(list, func(a, b moment) int { return b.at.Compare(a.at) })
	out := make([]resource.Object, len(list))
	for i := range list {
		out[i] = list[i].entry
	}
	return out
}

// providerOf is the provider of a resource's type.
func providerOf(typ string) string {
	provider, _, _ := strings.Cut(typ, "/")
	return provider
}
