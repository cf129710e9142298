package armapi_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"cove.example/cove/arm"
	"cove.example/cove/armapi"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/seal"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// BenchmarkStored asks what a call costs with few and with many resources in
// the store. cpu-µs/op is this process's own time, to the fsync's exclusion;
// the targets are 300 for GET, 1000 for PUT, 50,000 for a list of 1,000.
func BenchmarkStored(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { stored(b, storetest.SQLite) })
	b.Run("postgres", func(b *testing.B) { stored(b, storetest.Postgres) })
}

func stored(b *testing.B, database func(testing.TB) string) {
	for _, n := range []int{10, 100_000} {
		db := storetest.Open(b, database(b))
		box, err := seal.New(bytes.Repeat([]byte{7}, 32))
		if err != nil {
			b.Fatal(err)
		}
		docs := store.NewResources(db)
		service, err := resource.New(resource.Config{Store: docs, Types: []resource.Type{registry.Type(registry.Config{Suffix: "cr.cove.internal", Sealer: box})}, Locations: []string{"eastus"}})
		if err != nil {
			b.Fatal(err)
		}
		if err := service.Begin(b.Context(), resource.First{Tenant: "t1", Subscription: "s1"}); err != nil {
			b.Fatal(err)
		}
		server, err := armapi.New(armapi.Config{Service: service, Host: "management.cove.internal", Auth: people{"owner": func(string, arm.ID) bool { return true }}})
		if err != nil {
			b.Fatal(err)
		}
		call := func(method, target, body string, want int) {
			r := httptest.NewRequest(method, target+version, strings.NewReader(body))
			r.Header.Set("Authorization", "Bearer owner")
			w := httptest.NewRecorder()
			server.ServeHTTP(w, r)
			if w.Code != want {
				b.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
			}
		}
		call(http.MethodPut, group, `{"location":"eastus"}`, 201)
		call(http.MethodPut, harbor, premium, 201)
		fill(b, docs, n)
		run := func(name string, fn func(i int)) {
			b.Run(fmt.Sprintf("%s/of=%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				before, i := cpu(), 0
				for b.Loop() {
					fn(i)
					i++
				}
				b.ReportMetric(float64(cpu()-before)/float64(i), "cpu-µs/op")
			})
		}
		run("get", func(int) { call(http.MethodGet, harbor, "", 200) })
		run("put", func(i int) {
			call(http.MethodPut, harbor, fmt.Sprintf(`{"location":"eastus","sku":{"name":"Premium"},"tags":{"n":"%d"}}`, i), 200)
		})
		run("listgroups", func(int) { call(http.MethodGet, sub+"/resourcegroups", "", 200) })
		if n >= 1000 {
			run("list1000", func(int) { call(http.MethodGet, registries, "", 200) })
		}
	}
}

// fill writes n more registries, as PUTs have written the first.
func fill(b *testing.B, docs *store.Resources, n int) {
	b.Helper()
	var first resource.Doc
	for done := 0; done < n; {
		if err := docs.Update(b.Context(), func(tx resource.Tx) (err error) {
			if first, err = tx.Get(b.Context(), arm.MustID(harbor)); err != nil {
				return err
			}
			for i := done; i < min(done+5000, n); i++ {
				doc := resource.Doc{ID: arm.MustID(fmt.Sprintf("%s/filled%06d", registries, i)), Body: first.Body}
				if err := tx.Put(b.Context(), &doc); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
		done += 5000
	}
}

// cpu is the time this process has used, in microseconds.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return (u.Utime.Sec+u.Stime.Sec)*1e6 + u.Utime.Usec + u.Stime.Usec
}
