package audit

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/kql"
)

// The tables' names in queries, which are Azure's.
const (
	azureLoginEvents      = "ContainerRegistryLoginEvents"
	azureRepositoryEvents = "ContainerRegistryRepositoryEvents"
)

// column is one column of a table: what it is made of, and how.
type column struct {
	kql.Column
	from  []Field
	value func(*Event) kql.Value
}

func textOf(name string, f Field, of func(*Event) string) column {
	return column{kql.Column{Name: name, Type: kql.String}, []Field{f}, func(e *Event) kql.Value { return kql.Str(of(e)) }}
}

// fixed is a column that says the same in every row; "" where Azure has a
// column and this server does not know what stands in it.
func fixed(name, text string) column {
	v := kql.Str(text)
	return column{kql.Column{Name: name, Type: kql.String}, nil, func(*Event) kql.Value { return v }}
}

// common are the columns of both tables (source: the Azure Monitor tables'
// reference). DecisionId and ReasonCode are cove's own.
func common(table string) []column {
	return []column{
		{kql.Column{Name: "TimeGenerated", Type: kql.Datetime}, []Field{FieldTime}, func(e *Event) kql.Value { return kql.Time(e.Time) }},
		textOf("LoginServer", FieldHost, func(e *Event) string { return e.Host }),
		textOf("OperationName", FieldOperation, func(e *Event) string { return e.Operation }),
		textOf("Identity", FieldIdentity, func(e *Event) string { return e.Identity }),
		textOf("CallerIpAddress", FieldCallerIP, func(e *Event) string { return e.CallerIP }),
		textOf("ResultDescription", FieldStatus, func(e *Event) string { return statusText(e.Status) }),
		fixed("ResultType", "HttpStatusCode"),
		textOf("ReasonCode", FieldReason, func(e *Event) string { return e.Reason }),
		textOf("Repository", FieldRepository, func(e *Event) string { return e.Repository }),
		textOf("DurationMs", FieldDuration, func(e *Event) string { return strconv.FormatInt(e.Duration.Milliseconds(), 10) }),
		textOf("Region", FieldRegion, func(e *Event) string { return e.Region }),
		textOf("UserAgent", FieldUserAgent, func(e *Event) string { return e.UserAgent }),
		textOf("UserTenantId", FieldTenant, func(e *Event) string { return e.Tenant }),
		textOf("CorrelationId", FieldID, func(e *Event) string { return e.ID }),
		textOf("DecisionId", FieldID, func(e *Event) string { return e.ID }),
		fixed("Category", table),
		fixed("Type", table),
		textOf("_ResourceId", FieldRegistry, func(e *Event) string { return e.Registry }),
		textOf("_SubscriptionId", FieldRegistry, subscription),
		// A subscription is a workspace here.
		textOf("TenantId", FieldRegistry, subscription),
		fixed("SourceSystem", "Cove"),
		fixed("_IsBillable", "false"),
		{kql.Column{Name: "_BilledSize", Type: kql.Real}, nil, func(*Event) kql.Value { return kql.Float(0) }},
	}
}

// columns are those of each table, by its Azure name.
var columns = map[string][]column{
	azureLoginEvents: append(common(azureLoginEvents),
		textOf("JwtId", FieldDetail, func(e *Event) string { return e.TokenID() })),
	azureRepositoryEvents: append(common(azureRepositoryEvents),
		textOf("Tag", FieldTag, func(e *Event) string { return e.Tag }),
		textOf("Digest", FieldDigest, func(e *Event) string { return e.Digest }),
		textOf("MediaType", FieldMediaType, func(e *Event) string { return e.MediaType }),
		textOf("ArtifactType", FieldArtifactType, func(e *Event) string { return e.ArtifactType }),
		column{kql.Column{Name: "Size", Type: kql.Int}, []Field{FieldSize}, func(e *Event) kql.Value { return kql.Num(e.Size) }},
	),
}

// stored is the table of an event as a Log knows it.
var stored = map[string]string{azureLoginEvents: LoginEvents, azureRepositoryEvents: RepositoryEvents}

// tables are what queries can name.
var tables = []kql.Table{describe(azureLoginEvents), describe(azureRepositoryEvents)}

func describe(name string) kql.Table {
	t := kql.Table{Name: name}
	for i, c := range columns[name] {
		if c.Name == "TimeGenerated" {
			t.Time = i
		}
		t.Columns = append(t.Columns, c.Column)
	}
	return t
}

// subscription is that of a registry's id, "" where there is none.
func subscription(e *Event) string {
	rest, ok := strings.CutPrefix(e.Registry, "/subscriptions/")
	if !ok {
		return ""
	}
	id, _, _ := strings.Cut(rest, "/")
	return id
}

// Columns are an event in Azure's words, by the names of its columns.
func Columns(e *Event) map[string]any {
	name := azureLoginEvents
	if e.Table == RepositoryEvents {
		name = azureRepositoryEvents
	}
	out := map[string]any{}
	for _, c := range columns[name] {
		out[c.Name] = c.value(e).Go()
	}
	return out
}

// Viewer is whose question it is. Events that they may not see are not there:
// a query neither shows nor counts them.
type Viewer struct {
	// Within are, for each table, the scopes whose registries' events the viewer
	// may read, in Key form; "" is events of no registry.
	Within map[string][]string
	Since  time.Time // nothing from before; zero is open
}

// Sees is a viewer of both tables.
func Sees(within ...string) Viewer {
	return Viewer{Within: map[string][]string{LoginEvents: within, RepositoryEvents: within}}
}

// Ask answers a query in KQL over the events that the viewer may read.
func Ask(ctx context.Context, log Scanner, text string, v Viewer, o kql.Options) (*kql.Answer, error) {
	if v.Since.After(o.From) {
		o.From = v.Since
	}
	return kql.Run(ctx, &source{log, v}, text, o)
}

// ErrBusy is the failure of a query that has waited for others too long.
var ErrBusy = fault.New(fault.Throttled, "as many queries as this server runs at once are running; try again in a moment")

// How many queries run at once, and how long others wait: pulls go before
// questions about pulls.
const (
	deskSlots = 4
	deskWait  = 10 * time.Second
)

// Desk takes queries for a log, a few at once.
type Desk struct {
	log   Scanner
	now   func() time.Time
	slots chan struct{}
}

// NewDesk returns a desk.
func NewDesk(log Scanner, now func() time.Time) *Desk {
	return &Desk{log, now, make(chan struct{}, deskSlots)}
}

// Ask answers a query over an interval, which is as kql.ParseInterval has it.
func (d *Desk) Ask(ctx context.Context, text, interval string, v Viewer) (*kql.Answer, error) {
	now := d.now()
	from, to, err := kql.ParseInterval(interval, now)
	if err != nil {
		return nil, err
	}
	wait := time.NewTimer(deskWait)
	defer wait.Stop()
	select {
	case d.slots <- struct{}{}:
	case <-wait.C:
		return nil, ErrBusy
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-d.slots }()
	return Ask(ctx, d.log, text, v, kql.Options{Now: now, From: from, To: to})
}

// source gives the log's events as rows.
type source struct {
	log    Scanner
	viewer Viewer
}

func (s *source) Tables() []kql.Table { return tables }

func (s *source) Scan(ctx context.Context, scan kql.Scan, row func([]kql.Value) error) error {
	cols := columns[scan.Table]
	q := Query{
		Table: stored[scan.Table], Within: s.viewer.Within[stored[scan.Table]], Order: Order(scan.Order), Enough: int(min(scan.Enough, 1<<20)),
	}
	if len(q.Within) == 0 {
		return nil // nil would be everything
	}
	if scan.From != math.MinInt64 {
		q.From = moment(scan.From)
	}
	if scan.To != math.MaxInt64 {
		q.To = moment(scan.To)
	}
	for _, f := range scan.Filters {
		c := cols[f.Column]
		if len(c.from) == 0 && !f.Test(c.value(nil).Text()) {
			return nil // it says the same in every row, and that is not wanted
		}
		narrow(&q, c, f)
	}
	for _, i := range scan.Columns {
		for _, f := range cols[i].from {
			if !slices.Contains(q.Select, f) {
				q.Select = append(q.Select, f)
			}
		}
	}
	cells := make([]kql.Value, len(cols))
	return s.log.Scan(ctx, q, func(e *Event) error {
		for _, i := range scan.Columns {
			cells[i] = cols[i].value(e)
		}
		return row(cells)
	})
}

// moment is a time of kql's ticks. Far from any event it is cut off, so that
// it stays a time that every database has.
func moment(ticks int64) time.Time {
	const century = int64(100 * 366 * 24 * time.Hour / (100 * time.Nanosecond))
	ticks = min(max(ticks, -century), 10*century)
	return time.Unix(ticks/1e7, ticks%1e7*100).UTC()
}

// statuses are what a status can be: there is no other.
const statuses = 1000

// statusText is a status as people read it; what was no request has none.
func statusText(status int) string {
	if status == 0 {
		return ""
	}
	return strconv.Itoa(status)
}

// narrow gives the log what it can use of a filter.
func narrow(q *Query, c column, f kql.Filter) {
	if len(c.from) == 0 {
		return
	}
	switch field := c.from[0]; field {
	case FieldStatus:
		allowed := []int{}
		for status := range statuses {
			if f.Test(statusText(status)) && (q.Statuses == nil || slices.Contains(q.Statuses, status)) {
				allowed = append(allowed, status)
			}
		}
		q.Statuses = allowed
	case FieldOperation:
		// Of operations more may be in the log than are known here.
		var not []string
		for _, o := range Operations {
			if !f.Test(o) {
				not = append(not, o)
			}
		}
		if not != nil {
			q.Where = append(q.Where, In{Field: field, Values: not, Not: true})
		}
		if f.Values != nil {
			q.Where = append(q.Where, In{Field: field, Values: f.Values})
		}
	case FieldDuration, FieldSize, FieldRegistry, FieldDetail:
		// The column is made of the field and is not the same.
	default:
		if f.Values != nil {
			q.Where = append(q.Where, In{Field: field, Values: f.Values})
		} else if !f.Test("") {
			q.Where = append(q.Where, In{Field: field, Values: []string{""}, Not: true})
		}
	}
}
