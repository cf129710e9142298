package store_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/kql"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

var benchEvents = flag.Int("events", 1_000_000, "how many events the benchmarks of queries are run over")

const (
	benchSubscription = "/subscriptions/11111111-2222-4333-8444-555555555555"
	benchDays         = 30
)

// invented is one of many events of a company's month: most are pulls and
// logins that go well, one in a hundred is refused, few change something.
func invented(r *rand.Rand, newest time.Time) audit.Event {
	e := audit.Event{
		Time: newest.Add(-time.Duration(r.Int64N(int64(benchDays * 24 * time.Hour)))),
		Host: "harbor.cr.cove.internal", Registry: benchSubscription + "/resourcegroups/cove/providers/microsoft.containerregistry/registries/harbor",
		Identity: fmt.Sprintf("5e9a1c00-0000-4000-8000-%012d", r.IntN(500)), CallerIP: fmt.Sprintf("10.0.%d.%d", r.IntN(256), r.IntN(256)),
		UserAgent: "containerd/1.7.24", Repository: fmt.Sprintf("team-%d/app-%d", r.IntN(20), r.IntN(50)), Region: "local",
		Status: 200, Duration: time.Duration(r.IntN(80)) * time.Millisecond, Tenant: "aaaaaaaa-0000-4000-8000-000000000001",
		Detail: []byte(`{"from":"10.0.1.2","host":"harbor.cr.cove.internal","registry":"` + benchSubscription + `/resourcegroups/cove/providers/microsoft.containerregistry/registries/harbor","name":"harbor","operation":"ManifestGet","want":[{"type":"repository","name":"team-1/app-1","action":"pull"}],"publicAccess":true,"defaultAllow":true,"method":"token","identity":{"objectId":"5e9a1c00","name":"ci","kind":"servicePrincipal"},"allow":true,"ends":["public","none","on","default-allow","proved","permitted"]}`),
	}
	e.ID = audit.NewID(e.Time)
	e.Table, e.Operation = audit.RepositoryEvents, "Pull"
	e.Tag, e.Digest, e.MediaType, e.Size = "1.4", "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "application/vnd.oci.image.manifest.v1+json", 1024
	switch n := r.IntN(1000); {
	case n < 400:
		e.Table, e.Operation, e.Tag, e.Digest, e.MediaType, e.Size = audit.LoginEvents, "Login", "", "", "", 0
		if n < 8 {
			e.Status, e.Reason = 401, "COVE-AUTH-002"
		} else if n < 12 {
			e.Status, e.Reason, e.Identity = 403, "COVE-NET-003", ""
		}
	case n < 450:
		e.Operation, e.Status = "Push", 201
	case n < 455:
		e.Status = 404
	case n < 457:
		e.Operation, e.Status = "Untag", 202
	case n < 459:
		e.Operation, e.Status = "Delete", 202
	}
	return e
}

func fill(tb testing.TB, e *store.Events, newest time.Time, n int) (last audit.Event) {
	tb.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range n {
		last = invented(r, newest)
		e.Record(last)
		if i%8192 == 8191 {
			if err := e.Flush(tb.Context()); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if err := e.Flush(tb.Context()); err != nil || e.Dropped() != 0 {
		tb.Fatal(err, e.Dropped())
	}
	return last
}

// The documented queries, and what an investigator asks, over a month.
func BenchmarkAsk(b *testing.B) {
	queries := []struct{ name, text string }{
		{"last-day", `ContainerRegistryRepositoryEvents | where TimeGenerated > ago(1d)`},
		{"newest-100", `union ContainerRegistryRepositoryEvents, ContainerRegistryLoginEvents | top 100 by TimeGenerated | project TimeGenerated, LoginServer, OperationName, Identity, Repository, DurationMs, Region, ResultType`},
		{"deleted", `ContainerRegistryRepositoryEvents | where OperationName contains "Delete" | project LoginServer, OperationName, Repository, Identity, CallerIpAddress`},
		{"untagged", `ContainerRegistryRepositoryEvents | where OperationName contains "Untag" | project LoginServer, OperationName, Repository, Tag, Identity, CallerIpAddress`},
		{"failures", `ContainerRegistryRepositoryEvents | where ResultDescription contains "40" | project TimeGenerated, OperationName, Repository, Tag, ResultDescription`},
		{"auth-failures", `ContainerRegistryLoginEvents | where ResultDescription != "200" | project TimeGenerated, Identity, CallerIpAddress, ResultDescription`},
		{"logins-hour", `ContainerRegistryLoginEvents | where TimeGenerated > ago(1h) | sort by TimeGenerated asc`},
		{"identity", `union ContainerRegistryRepositoryEvents, ContainerRegistryLoginEvents | where Identity == "5e9a1c00-0000-4000-8000-000000000007" | top 100 by TimeGenerated`},
		{"by-hour", `ContainerRegistryLoginEvents | where ResultDescription startswith "4" | summarize count() by bin(TimeGenerated, 1h), ReasonCode | sort by TimeGenerated asc`},
		{"everything", `ContainerRegistryRepositoryEvents | summarize Pulls = count(), Last = max(TimeGenerated) by Repository | top 20 by Pulls`},
	}
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		db := storetest.Open(b, url(b))
		e, err := db.Events(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		start := time.Now()
		last := fill(b, e, noon, *benchEvents)
		b.Logf("%s: %d events in %s", name, *benchEvents, time.Since(start))
		for _, q := range queries {
			b.Run(name+"/"+q.name, func(b *testing.B) {
				for b.Loop() {
					a, err := audit.Ask(b.Context(), e, q.text, audit.Sees(benchSubscription), kql.Options{Now: noon, Rows: 1 << 20, Memory: 1 << 30})
					if err != nil || len(a.Rows) == 0 {
						b.Fatal(err)
					}
					b.ReportMetric(float64(len(a.Rows)), "rows")
				}
			})
		}
		for what, prefix := range map[string]string{"find-id": last.ID, "find-prefix": last.ID[:9]} {
			b.Run(name+"/"+what, func(b *testing.B) {
				for b.Loop() {
					if _, err := e.Find(b.Context(), prefix); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
