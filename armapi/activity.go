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
// which resources were made, changed and deleted, when and by whom, and from
// the events, which changes were refused; as far as the caller may know. The
// newest come first.
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
	number, before, err := activityToken(c.Query.Get("$skiptoken"))
	if err != nil {
		return Reply{}, err
	}
	sub := resource.SubscriptionID(c.ID.Subscription())
	var found []moment
	reached := before // the time of the oldest change that was looked at
looks:
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
			if len(found) == activityPage {
				break looks
			}
			number, reached = p.Number, p.Time
			d := deed{p.Time, p.ID, p.By, p.Request, "Succeeded"}
			if p.ID.Within(sub) && s.shown(p.ID) && want.holds(d) && c.may(actionActivity, p.ID) == nil {
				found = append(found, moment{p.Time, s.happened(c, p)})
			}
		}
		if number = next; number == 0 {
			reached = time.Time{}
			break
		}
	}
	if number == 0 || !reached.IsZero() {
		refused, err := s.refusals(ctx, c, want, reached, before)
		if err != nil {
			return Reply{}, err
		}
		found = append(found, refused...)
	}
	page := resource.Page{Items: newestFirst(found)}
	for i := range page.Items {
		page.Items[i] = pick(fields, page.Items[i])
	}
	if number > 0 {
		page.Next = fmt.Sprintf("%d.%d", number, reached.UnixMicro())
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

// activityToken reads where a page goes on: a change's number, and the time
// before which refusals are still to be told.
func activityToken(token string) (number int64, before time.Time, err error) {
	if token == "" {
		return 0, before, nil
	}
	first, second, _ := strings.Cut(token, ".")
	number, err = strconv.ParseInt(first, 10, 64)
	micros, bad := strconv.ParseInt(second, 10, 64)
	if err != nil || bad != nil || number < 1 {
		return 0, before, resource.ErrToken
	}
	if micros > 0 {
		before = time.UnixMicro(micros)
	}
	return number, before, nil
}

// happened is a change as the activity log has it.
func (s *Server) happened(c *Call, p resource.Past) resource.Object {
	verb := "write"
	if p.Op == "delete" {
		verb = "delete"
	}
	// A number of the record as a GUID: the same each time it is asked for.
	id := fmt.Sprintf("%08x-%04x-8000-8000-%012x", uint32(p.Number>>32), uint16(p.Number>>16), p.Number&0xffffffffffff)
	o := s.entry(c, p.ID, permission(s.Service.Canonical(p.ID.Type()), verb), p.Time, id)
	o["caller"], o["level"], o["status"], o["subStatus"] = p.By, "Informational", word("Succeeded"), word("")
	o["correlationId"], o["operationId"] = p.Request, p.Request
	return o
}

func word(v string) resource.Object { return resource.Object{"value": v, "localizedValue": v} }

// entry is what all entries of the activity log have.
func (s *Server) entry(c *Call, of arm.ID, action string, t time.Time, id string) resource.Object {
	typ := s.Service.Canonical(of.Type())
	at := t.UTC().Format(time.RFC3339Nano)
	return resource.Object{
		"id": of.String() + "/events/" + id + "/ticks/" + strconv.FormatInt(t.UnixMicro(), 10), "eventDataId": id,
		"eventTimestamp": at, "submissionTimestamp": at, "category": word("Administrative"),
		"operationName": word(action), "eventName": word("EndRequest"),
		"resourceId": of.String(), "resourceGroupName": of.Group(), "resourceProviderName": word(providerOf(typ)), "resourceType": word(typ),
		"subscriptionId": c.ID.Subscription(), "tenantId": c.Caller.Tenant, "channels": "Operation",
		"authorization": resource.Object{"action": action, "scope": of.String()},
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
		if !ok { // az leaves the quotes out around times, and in role assignment list-changelogs around the provider
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
			if op != "eq" || !ok && name != "resourceprovider" {
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

// deed is what a filter looks at: something that was done, or refused.
type deed struct {
	at          time.Time
	id          arm.ID
	by, request string
	status      string
}

func (a activities) holds(d deed) bool {
	if !a.to.IsZero() && d.at.After(a.to) {
		return false
	}
	for _, t := range a.terms {
		ok := false
		switch t.field {
		case "resourcegroupname":
			ok = strings.EqualFold(d.id.Group(), t.value)
		case "resourceid", "resourceuri":
			ok = strings.EqualFold(d.id.String(), t.value)
		case "resourceprovider":
			ok = strings.EqualFold(providerOf(d.id.Type()), t.value)
		case "resourcetype":
			ok = strings.EqualFold(d.id.Type(), t.value)
		case "caller":
			ok = d.by != "" && strings.EqualFold(d.by, t.value)
		case "status":
			ok = strings.EqualFold(t.value, d.status)
		case "correlationid":
			ok = d.request != "" && strings.EqualFold(d.request, t.value)
		case "eventchannels":
			ok = true
			for _, channel := range strings.Split(t.value, ",") {
				ok = ok && (strings.EqualFold(strings.TrimSpace(channel), "Operation") || strings.EqualFold(strings.TrimSpace(channel), "Admin"))
			}
		}
		if !ok {
			return false
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
