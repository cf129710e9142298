package armapi

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// The activity log: a page holds at most activityPage events, found in at most
// activityLooks looks at the record of changes.
const (
	activityPage  = 200
	activityLooks = 10
)

// actionActivity is what Azure asks for to read the activity log.
const actionActivity = "Microsoft.Insights/eventtypes/values/read"

// activity answers `az monitor activity-log list` from the record of changes:
// which resources were made, changed and deleted, when and by whom, as far as
// the caller may know. The newest come first.
func (s *Server) activity(ctx context.Context, c *Call) (Reply, error) {
	if s.History == nil {
		return Reply{}, errNoRoute.Detail("This server has no activity log.")
	}
	want, err := parseActivity(c.Query.Get("$filter"))
	if err != nil {
		return Reply{}, err
	}
	fields, err := selection(c.Query.Get("$select"))
	if err != nil {
		return Reply{}, err
	}
	number := int64(0)
	if token := c.Query.Get("$skiptoken"); token != "" {
		if number, err = strconv.ParseInt(token, 10, 64); err != nil || number < 1 {
			return Reply{}, resource.ErrToken
		}
	}
	sub := resource.SubscriptionID(c.ID.Subscription())
	page := resource.Page{Items: []resource.Object{}}
	for range activityLooks {
		list, next, err := s.History.Before(ctx, number)
		if err != nil {
			return Reply{}, err
		}
		for _, p := range list {
			if p.Time.Before(want.from) {
				next = 0 // the others are older still
				break
			}
			if len(page.Items) == activityPage {
				page.Next = strconv.FormatInt(number, 10)
				return Reply{Status: http.StatusOK, Body: s.page(c, page)}, nil
			}
			number = p.Number
			if p.ID.Within(sub) && s.shown(p.ID) && want.holds(p) && c.may(actionActivity, p.ID) == nil {
				page.Items = append(page.Items, pick(fields, s.happened(c, p)))
			}
		}
		if number = next; number == 0 {
			break
		}
	}
	if number > 0 {
		page.Next = strconv.FormatInt(number, 10)
	}
	return Reply{Status: http.StatusOK, Body: s.page(c, page)}, nil
}

// shown says that an id is a resource's; the store has documents of its own
// too.
func (s *Server) shown(id arm.ID) bool {
	for _, t := range s.Service.Types() {
		if strings.EqualFold(t, id.Type()) {
			return true
		}
	}
	return false
}

// happened is a change as the activity log has it. Of what was only asked for
// and refused there is no record, so every one has succeeded.
func (s *Server) happened(c *Call, p resource.Past) resource.Object {
	typ := s.Service.Canonical(p.ID.Type())
	provider, _, _ := strings.Cut(typ, "/")
	verb := "write"
	if p.Op == "delete" {
		verb = "delete"
	}
	word := func(v string) resource.Object { return resource.Object{"value": v, "localizedValue": v} }
	at := p.Time.UTC().Format(time.RFC3339Nano)
	// A number of the record as a GUID: the same each time it is asked for.
	id := fmt.Sprintf("%08x-%04x-8000-8000-%012x", uint32(p.Number>>32), uint16(p.Number>>16), p.Number&0xffffffffffff)
	return resource.Object{
		"id": p.ID.String() + "/events/" + id + "/ticks/" + strconv.FormatInt(p.Time.UnixMicro(), 10), "eventDataId": id,
		"eventTimestamp": at, "submissionTimestamp": at, "caller": p.By, "level": "Informational", "category": word("Administrative"),
		"operationName": word(permission(typ, verb)), "status": word("Succeeded"), "subStatus": word(""), "eventName": word("EndRequest"),
		"resourceId": p.ID.String(), "resourceGroupName": p.ID.Group(), "resourceProviderName": word(provider), "resourceType": word(typ),
		"subscriptionId": c.ID.Subscription(), "tenantId": c.Caller.Tenant, "channels": "Operation",
		"authorization": resource.Object{"action": permission(typ, verb), "scope": p.ID.String()},
	}
}

// activities is the $filter of the activity log.
type activities struct {
	from, to time.Time
	terms    []term
}

const activityForms = "It may be eventTimestamp ge 'TIME' and eventTimestamp le 'TIME', and one or more of resourceGroupName, resourceId, resourceProvider, resourceType, caller, status, correlationId and eventChannels eq 'VALUE', joined by and."

func parseActivity(text string) (activities, error) {
	var a activities
	bad := errFilter.Detail("The filter %.200q is not valid. %s", text, activityForms)
	for rest := strings.TrimSpace(text); rest != ""; {
		field, after, _ := strings.Cut(rest, " ")
		op, after, _ := strings.Cut(strings.TrimSpace(after), " ")
		after = strings.TrimSpace(after)
		value, behind, ok := quoted(after)
		if !ok { // az leaves the quotes out around times
			value, behind, _ = strings.Cut(after, " ")
		}
		switch name := strings.ToLower(field); name {
		case "eventtimestamp":
			at, err := activityTime(value)
			switch {
			case err != nil:
				return a, bad
			case op == "ge":
				a.from = at
			case op == "le":
				a.to = at
			default:
				return a, bad
			}
		case "resourcegroupname", "resourceid", "resourceuri", "resourceprovider", "resourcetype", "caller", "status", "correlationid", "eventchannels":
			if op != "eq" || !ok {
				return a, bad
			}
			a.terms = append(a.terms, term{name, value})
		default:
			return a, bad
		}
		if rest, ok = conjunction(behind); !ok {
			return a, bad
		}
	}
	return a, nil
}

func activityTime(s string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		at, err = time.Parse("2006-01-02T15:04:05.999999999", s) // az, in UTC
	}
	return at, err
}

func (a activities) holds(p resource.Past) bool {
	if !a.to.IsZero() && p.Time.After(a.to) {
		return false
	}
	for _, t := range a.terms {
		ok := false
		switch t.field {
		case "resourcegroupname":
			ok = strings.EqualFold(p.ID.Group(), t.value)
		case "resourceid", "resourceuri":
			ok = strings.EqualFold(p.ID.String(), t.value)
		case "resourceprovider":
			provider, _, _ := strings.Cut(p.ID.Type(), "/")
			ok = strings.EqualFold(provider, t.value)
		case "resourcetype":
			ok = strings.EqualFold(p.ID.Type(), t.value)
		case "caller":
			ok = p.By != "" && strings.EqualFold(p.By, t.value)
		case "status":
			ok = strings.EqualFold(t.value, "Succeeded")
		case "eventchannels":
			ok = true
			for _, channel := range strings.Split(t.value, ",") {
				ok = ok && (strings.EqualFold(strings.TrimSpace(channel), "Operation") || strings.EqualFold(strings.TrimSpace(channel), "Admin"))
			}
		}
		if !ok {
			return false // the record has no correlation ids: none is that one
		}
	}
	return true
}

// selection reads a $select; nil is everything.
func selection(text string) ([]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var out []string
	for _, name := range strings.Split(text, ",") {
		if name = strings.TrimSpace(name); name == "" || len(out) == 50 {
			return nil, errFilter.Detail("The $select %.200q is not a list of properties.", text)
		}
		out = append(out, name)
	}
	return out, nil
}

func pick(fields []string, o resource.Object) resource.Object {
	if fields == nil {
		return o
	}
	out := resource.Object{}
	for _, want := range fields {
		for name, v := range o {
			if strings.EqualFold(name, want) {
				out[name] = v
			}
		}
	}
	return out
}
