package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/kql"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

const harborKey = benchSubscription + "/resourcegroups/cove/providers/microsoft.containerregistry/registries/harbor"

var everything = audit.Sees(benchSubscription, "")

// aDay are a company's events of a day and the day before.
func aDay() []audit.Event {
	at := func(ago time.Duration, e audit.Event) audit.Event {
		e.Time = noon.Add(-ago)
		e.ID = audit.NewID(e.Time)
		e.Host, e.Registry, e.Region, e.Duration = "harbor.cr.cove.internal", harborKey, "local", 4*time.Millisecond
		e.Table = audit.RepositoryEvents
		if e.Operation == "Login" {
			e.Table = audit.LoginEvents
		}
		return e
	}
	return []audit.Event{
		at(26*time.Hour, audit.Event{Operation: "Push", Identity: "ci", Repository: "team/app", Tag: "1.3", Status: 201}),
		at(25*time.Hour, audit.Event{Operation: "Delete", Identity: "ann", CallerIP: "10.0.0.7", Repository: "team/old", Status: 202}),
		at(5*time.Hour, audit.Event{Operation: "Login", Identity: "ci", CallerIP: "10.0.0.4", Status: 200}),
		at(4*time.Hour, audit.Event{Operation: "Push", Identity: "ci", Repository: "team/app", Tag: "1.4", Status: 201}),
		at(3*time.Hour, audit.Event{Operation: "Untag", Identity: "ann", CallerIP: "10.0.0.7", Repository: "team/app", Tag: "1.3", Status: 202}),
		at(2*time.Hour, audit.Event{Operation: "Pull", Identity: "node", Repository: "team/app", Tag: "1.5", Status: 404}),
		at(50*time.Minute, audit.Event{Operation: "Login", CallerIP: "203.0.113.9", Status: 403, Reason: "COVE-NET-003"}),
		at(40*time.Minute, audit.Event{Operation: "Login", Identity: "ci", CallerIP: "10.0.0.4", Status: 401, Reason: "COVE-AUTH-002"}),
		at(30*time.Minute, audit.Event{Operation: "Login", Identity: "node", CallerIP: "10.0.0.5", Status: 200}),
		at(20*time.Minute, audit.Event{Operation: "Pull", Identity: "node", Repository: "team/app", Tag: "1.4", Status: 200}),
	}
}

func ask(t *testing.T, log audit.Scanner, v audit.Viewer, text string) string {
	t.Helper()
	a, err := audit.Ask(t.Context(), log, text, v, kql.Options{Now: noon})
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	var rows []string
	for _, r := range a.Rows {
		var cells []string
		for _, v := range r {
			if v.Type() == kql.Datetime {
				cells = append(cells, v.Moment().Format("02T15:04"))
			} else if s := v.String(); s != "" {
				cells = append(cells, s)
			}
		}
		rows = append(rows, strings.Join(cells, " "))
	}
	return strings.Join(rows, " / ")
}

// The queries of the documentation of Azure Container Registry's logs, each
// with the rows that it finds.
//
// row:87
func TestDocumentedQueries(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		for _, v := range aDay() {
			e.Record(v)
		}
		for _, c := range []struct{ name, query, want string }{
			{
				"the last 24 hours",
				`ContainerRegistryRepositoryEvents | where TimeGenerated > ago(1d) | project OperationName, Tag`,
				"Push 1.4 / Untag 1.3 / Pull 1.5 / Pull 1.4",
			},
			{
				"the 100 latest",
				"union ContainerRegistryRepositoryEvents, ContainerRegistryLoginEvents\n| top 100 by TimeGenerated\n| project TimeGenerated, LoginServer, OperationName, Identity, Repository, DurationMs, Region, ResultType\n| take 3",
				"21T11:40 harbor.cr.cove.internal Pull node team/app 4 local HttpStatusCode / 21T11:30 harbor.cr.cove.internal Login node 4 local HttpStatusCode / 21T11:20 harbor.cr.cove.internal Login ci 4 local HttpStatusCode",
			},
			{
				"who deleted a repository",
				`ContainerRegistryRepositoryEvents | where OperationName contains "Delete" | project LoginServer, OperationName, Repository, Identity, CallerIpAddress`,
				"harbor.cr.cove.internal Delete team/old ann 10.0.0.7",
			},
			{
				"who deleted a tag",
				`ContainerRegistryRepositoryEvents | where OperationName contains "Untag" | project LoginServer, OperationName, Repository, Tag, Identity, CallerIpAddress`,
				"harbor.cr.cove.internal Untag team/app 1.3 ann 10.0.0.7",
			},
			{
				"operations that failed",
				`ContainerRegistryRepositoryEvents | where ResultDescription contains "40" | project TimeGenerated, OperationName, Repository, Tag, ResultDescription`,
				"21T10:00 Pull team/app 1.5 404",
			},
			{
				"registry authentication failures",
				`ContainerRegistryLoginEvents | where ResultDescription != "200" | project TimeGenerated, Identity, CallerIpAddress, ResultDescription`,
				"21T11:10 203.0.113.9 403 / 21T11:20 ci 10.0.0.4 401",
			},
			{
				"logins of the last hour, the oldest first",
				`ContainerRegistryLoginEvents | where TimeGenerated > ago(1h) | sort by TimeGenerated asc | project TimeGenerated, Identity, ResultDescription, ReasonCode`,
				"21T11:10 403 COVE-NET-003 / 21T11:20 ci 401 COVE-AUTH-002 / 21T11:30 node 200",
			},
		} {
			if got := ask(t, e, everything, c.query); got != c.want {
				t.Errorf("%s\n got %s\nwant %s", c.name, got, c.want)
			}
		}
	})
}

// All of Azure's columns are there, with its types.
func TestColumnsAreAzures(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	e := events(t, db)
	defer e.Close()
	common := "_BilledSize real CallerIpAddress string Category string CorrelationId string DecisionId string DurationMs string Identity string _IsBillable string "
	rest := "ReasonCode string Region string Repository string _ResourceId string ResultDescription string ResultType string "
	last := "SourceSystem string _SubscriptionId string "
	end := "TenantId string TimeGenerated datetime Type string UserAgent string UserTenantId string"
	for table, want := range map[string]string{
		"ContainerRegistryRepositoryEvents": "ArtifactType string " + common + "Digest string LoginServer string MediaType string OperationName string " + rest + "Size int " + last + "Tag string " + end,
		"ContainerRegistryLoginEvents":      common + "JwtId string LoginServer string OperationName string " + rest + last + end,
	} {
		got := strings.Fields(strings.ReplaceAll(ask(t, e, everything, table+" | getschema | project ColumnName, ColumnType"), "/", ""))
		expected := strings.Fields(want)
		pairs := func(list []string) (out []string) {
			for i := 0; i+1 < len(list); i += 2 {
				out = append(out, list[i]+" "+list[i+1])
			}
			slices.Sort(out)
			return out
		}
		if g, w := pairs(got), pairs(expected); !slices.Equal(g, w) {
			t.Errorf("%s\n got %q\nwant %q", table, g, w)
		}
	}
}

// A query sees the events of registries that its viewer may read, and of no
// others: it does not count them either.
func TestViewersSeeTheirRegistriesOnly(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		other := benchSubscription + "/resourcegroups/cove/providers/microsoft.containerregistry/registries/harbor2"
		for i, key := range []string{harborKey, harborKey, other, "", "/subscriptions/99999999-2222-4333-8444-555555555555/resourcegroups/x/providers/microsoft.containerregistry/registries/harbor"} {
			e.Record(audit.Event{ID: fmt.Sprintf("%08d", i), Time: noon, Table: audit.LoginEvents, Operation: "Login", Registry: key, Status: 403})
		}
		for _, c := range []struct {
			within []string
			want   string
		}{
			{nil, "0"},
			{[]string{harborKey}, "2"},
			{[]string{other}, "1"},
			{[]string{harborKey, other}, "3"},
			{[]string{benchSubscription}, "3"},
			{[]string{benchSubscription + "/resourcegroups/cove"}, "3"},
			{[]string{benchSubscription + "/resourcegroups/cov"}, "0"},
			{[]string{benchSubscription, ""}, "4"},
			{[]string{""}, "1"},
		} {
			for _, q := range []string{"ContainerRegistryLoginEvents | count", "ContainerRegistryLoginEvents | top 10 by TimeGenerated | count"} {
				if got := ask(t, e, audit.Sees(c.within...), q); got != c.want {
					t.Errorf("%q: %s counts %s, want %s", c.within, q, got, c.want)
				}
			}
		}
	})
}

// heap is a log without any order or index: it gives everything.
type heap []audit.Event

func (h heap) Scan(_ context.Context, q audit.Query, fn func(*audit.Event) error) error {
	list := slices.Clone(h)
	slices.SortStableFunc(list, func(a, b audit.Event) int {
		if q.Order == audit.OldestFirst {
			return a.Time.Compare(b.Time)
		}
		return b.Time.Compare(a.Time)
	})
	for i := range list {
		if list[i].Table == q.Table {
			if err := fn(&list[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// What is made into SQL of a query leaves out no row that is wanted: the same
// query over a log that is told nothing finds the same.
func TestScansLeaveNothingOut(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("EVENTS_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	r := rand.New(rand.NewPCG(seed, 1))
	pick := func(list ...string) string { return list[r.IntN(len(list))] }
	var all heap
	for i := range 600 {
		v := invented(r, noon)
		v.Time = noon.Add(-time.Duration(r.IntN(3*86400))*time.Second - time.Duration(i)*time.Microsecond)
		v.ID = audit.NewID(v.Time)
		v.Identity = pick("ann", "bob", "Ann", "")
		v.Status = []int{200, 200, 200, 201, 202, 401, 403, 404, 503}[r.IntN(9)]
		v.Operation = pick("Login", "Pull", "Push", "Delete", "Untag", "Something new")
		v.Reason = pick("", "", "COVE-NET-003")
		v.Repository = pick("team/app", "team/app2", "")
		all = append(all, v)
	}
	cond := func() string {
		switch r.IntN(9) {
		case 0:
			return fmt.Sprintf("TimeGenerated %s ago(%dm)", pick("<", "<=", ">", ">="), r.IntN(4500))
		case 1:
			return fmt.Sprintf("TimeGenerated between (ago(%dm) .. ago(%dm))", 2000+r.IntN(2500), r.IntN(2000))
		case 2:
			return "Identity " + pick("==", "!=", "=~") + " " + pick(`"ann"`, `"bob"`, `""`)
		case 3:
			return "ResultDescription " + pick("==", "!=", "contains", "startswith", "!startswith") + " " + pick(`"200"`, `"40"`, `"4"`, `"2"`, `"401"`)
		case 4:
			return "OperationName " + pick("==", "contains", "!=", "!contains", "has") + " " + pick(`"Delete"`, `"Pull"`, `"u"`, `"Something new"`, `"new"`)
		case 5:
			return `Repository in ("team/app", "` + pick("x", "team/app2") + `")`
		case 6:
			return "ReasonCode " + pick(`!= ""`, `== "COVE-NET-003"`, `startswith "COVE"`, `== ""`)
		case 7:
			return `CorrelationId == "` + all[r.IntN(len(all))].ID + `"`
		}
		return `toint(ResultDescription) >= ` + pick("400", "202")
	}
	var queries []string
	for range 150 {
		q := pick("ContainerRegistryRepositoryEvents", "ContainerRegistryLoginEvents", "union ContainerRegistryLoginEvents, ContainerRegistryRepositoryEvents")
		for range 1 + r.IntN(3) {
			c := cond()
			if r.IntN(3) == 0 {
				c = c + " or " + cond()
			}
			q += " | where " + c
		}
		queries = append(queries, q+pick(" | sort by TimeGenerated asc", " | top 7 by TimeGenerated", " | top 200 by TimeGenerated asc", " | sort by CorrelationId asc")+
			" | project TimeGenerated, CorrelationId, Identity, ResultDescription, OperationName, Repository, ReasonCode, Type")
	}
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		for _, v := range all {
			e.Record(v)
		}
		found := 0
		for _, q := range queries {
			got, want := ask(t, e, everything, q), ask(t, all, everything, q)
			if got != want {
				t.Fatalf("EVENTS_SEED=%d\n%s\n got %s\nwant %s", seed, q, got, want)
			}
			if want != "" {
				found++
			}
		}
		if found < len(queries)/2 {
			t.Errorf("only %d of %d queries found anything", found, len(queries))
		}
	})
}

// The id of a token is found, and only its own event by it.
func TestEventsOfAToken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		for i, detail := range []string{`{"jti":"one"}`, `{"jti":"two"}`, `{}`, ``, `[{"step":"x"}]`} {
			e.Record(audit.Event{ID: fmt.Sprintf("aaaaaaa%d", i), Time: noon, Table: audit.LoginEvents, Operation: "Login", Registry: harborKey, Status: 200, Detail: []byte(detail)})
		}
		for q, want := range map[string]string{
			`where JwtId == "two" | project DecisionId`: "aaaaaaa1",
			`where JwtId == "" | count`:                 "3",
			`where JwtId != "" | summarize count()`:     "2",
		} {
			if got := ask(t, e, everything, "ContainerRegistryLoginEvents | "+q); got != want {
				t.Errorf("%s: %q, not %q", q, got, want)
			}
		}
	})
}

// A day from before a column was there is read, and written to.
func TestDayOfAnOlderVersion(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		e.Record(audit.Event{ID: "aaaaaaaa", Time: noon, Table: audit.LoginEvents, Operation: "Login", Registry: harborKey, Status: 200, Tenant: "t"})
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if err := store.ForgetLaterColumns(t.Context(), db, noon); err != nil {
			t.Fatal(err)
		}
		e = events(t, db)
		defer e.Close()
		const q = "ContainerRegistryLoginEvents | summarize count() by UserTenantId, ResultDescription"
		if got := ask(t, e, everything, q); got != "200 1" {
			t.Errorf("read: %q", got)
		}
		e.Record(audit.Event{ID: "bbbbbbbb", Time: noon, Table: audit.LoginEvents, Operation: "Login", Registry: harborKey, Status: 200, Tenant: "t"})
		if got := ask(t, e, everything, q+" | sort by UserTenantId asc"); got != "200 1 / t 200 1" {
			t.Errorf("written: %q", got)
		}
		e.Record(audit.Event{ID: "cccccccc", Time: noon, Table: audit.RepositoryEvents, Operation: "Push", Registry: harborKey, Status: 201, ArtifactType: "application/vnd.example+type"})
		if got := ask(t, e, everything, "ContainerRegistryRepositoryEvents | project ArtifactType"); got != "application/vnd.example+type" {
			t.Errorf("the kind of an artifact: %q", got)
		}
	})
}

// Whoever reads a day holds up neither those who write to it nor those who
// delete it, and reads it to its end.
func TestADayIsDeletedWhileItIsRead(t *testing.T) {
	url := storetest.SQLite(t)
	db := storetest.Open(t, url)
	e := events(t, db)
	defer e.Close()
	for i := range 50 {
		e.Record(refusal(fmt.Sprintf("%08d", i), noon))
	}
	read := 0
	err := e.Scan(t.Context(), audit.Query{}, func(*audit.Event) error {
		read++
		if read > 1 {
			return nil
		}
		e.Record(refusal("ffffffff", noon.AddDate(0, 0, 1)))
		if err := e.Flush(t.Context()); err != nil {
			return err
		}
		_, err := e.Trim(t.Context(), noon.AddDate(0, 0, 1))
		return err
	})
	if err != nil || read != 50 {
		t.Errorf("read %d, %v", read, err)
	}
	if _, err := os.Stat(filepath.Join(folderOf(t, url), "events", noon.Format(time.DateOnly)+".db")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the day's file: %v", err)
	}
	list, err := e.Recent(t.Context(), "", "", time.Time{}, 100)
	if len(list) != 1 || err != nil {
		t.Errorf("left: %d, %v", len(list), err)
	}
}

// Events of one time are more than a page: none is left out or given twice.
func TestEventsOfOneTime(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		e := events(t, db)
		defer e.Close()
		for i := range 400 {
			e.Record(audit.Event{ID: fmt.Sprintf("%08d", i), Time: noon.Add(time.Duration(i/300) * time.Second), Table: audit.LoginEvents, Registry: harborKey})
		}
		for _, order := range []string{"asc", "desc"} {
			if got := ask(t, e, everything, "ContainerRegistryLoginEvents | top 390 by TimeGenerated "+order+" | summarize count(), dcount(CorrelationId)"); got != "390 390" {
				t.Errorf("%s: %s", order, got)
			}
		}
	})
}

// The size of all days is bounded; today's stays.
func TestDaysAreTrimmedBySize(t *testing.T) {
	for name, url := range map[string]string{"sqlite": storetest.SQLite(t), "postgres": storetest.Postgres(t)} {
		db, err := store.Open(t.Context(), url, store.Options{Now: func() time.Time { return noon }})
		if err != nil {
			t.Fatal(err)
		}
		e := events(t, db)
		for i := range 4 {
			e.Record(refusal(fmt.Sprintf("%d0000000", i), noon.AddDate(0, 0, -i)))
		}
		if err := e.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, all, err := e.TrimSize(t.Context(), 1<<40)
		if n != 0 || err != nil {
			t.Errorf("%s: %d days deleted, %v", name, n, err)
		}
		n, left, err := e.TrimSize(t.Context(), all-1)
		if n != 1 || left >= all || err != nil {
			t.Errorf("%s: %d days deleted, %d bytes left of %d, %v", name, n, left, all, err)
		}
		if n, _, err = e.TrimSize(t.Context(), 0); n != 2 || err != nil {
			t.Errorf("%s: %d days deleted, %v", name, n, err)
		}
		list, err := e.Recent(t.Context(), "", "", time.Time{}, 10)
		if got := ids(list); got != "0" || err != nil {
			t.Errorf("%s: left %q, %v", name, got, err)
		}
		if err := errors.Join(e.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

// What the full buffer could not take is told by an event.
func TestAHoleInTheLogIsTold(t *testing.T) {
	url := storetest.SQLite(t)
	db := storetest.Open(t, url)
	e := events(t, db)
	defer e.Close()
	folder := filepath.Join(folderOf(t, url), "events")
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	for range 16384 + 5 {
		e.Record(refusal("aaaaaaaa", time.Now()))
	}
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := e.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	const q = `ContainerRegistryRepositoryEvents | where OperationName == "Dropped" | project Size, ResultDescription`
	if got := ask(t, e, everything, q); got != "5" {
		t.Errorf("told: %q", got)
	}
	if got := ask(t, e, audit.Sees(benchSubscription), q); got != "" {
		t.Errorf("told to whoever may not read everything: %q", got)
	}
}

// A query over more events than it may take says what to do.
func TestQueriesHaveBounds(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	e := events(t, db)
	defer e.Close()
	for i := range 20 {
		e.Record(audit.Event{ID: fmt.Sprintf("%08d", i), Time: noon, Table: audit.LoginEvents, Registry: harborKey})
	}
	_, err := audit.Ask(t.Context(), e, "ContainerRegistryLoginEvents", everything, kql.Options{Now: noon, Rows: 10})
	if _, public := fault.Of(err); !errors.Is(err, kql.ErrRows) || !strings.Contains(public, "more than 10 rows") {
		t.Error(err)
	}
}
