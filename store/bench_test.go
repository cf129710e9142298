package store_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"cove.example/cove/audit"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// Durable writes of two rows, as a manifest and its tag are: what group
// commit makes of one fsync.
func BenchmarkUpdate(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		for _, relaxed := range []bool{false, true} {
			for _, writers := range []int{1, 16} {
				b.Run(fmt.Sprintf("%s/relaxed=%v/writers=%d", name, relaxed, writers), func(b *testing.B) {
					db := storetest.Open(b, url(b))
					numbers(b, db)
					write := db.Update
					if relaxed {
						write = db.UpdateRelaxed
					}
					var next atomic.Int64
					var wg sync.WaitGroup
					b.ResetTimer()
					for range writers {
						wg.Go(func() {
							for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
								key := fmt.Sprint(n)
								err := write(b.Context(), func(tx *store.Tx) error {
									if err := set(b.Context(), tx, key, n); err != nil {
										return err
									}
									return tx.Record(b.Context(), store.Change{Kind: "n", Key: key, Op: "put"})
								})
								if err != nil {
									b.Error(err)
								}
							}
						})
					}
					wg.Wait()
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
				})
			}
		}
	}
}

// One row by its key out of ten thousand.
func BenchmarkView(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			db := storetest.Open(b, url(b))
			numbers(b, db)
			err := db.Update(b.Context(), func(tx *store.Tx) error {
				for i := range int64(10_000) {
					if err := set(b.Context(), tx, fmt.Sprint(i), i); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					err := db.View(b.Context(), func(tx *store.Tx) error {
						_, err := get(b.Context(), tx, fmt.Sprint(i%10_000))
						return err
					})
					if err != nil {
						b.Error(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
		})
	}
}

func BenchmarkRecordEvent(b *testing.B) {
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			db := storetest.Open(b, url(b))
			e, err := db.Events(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			v := audit.Event{ID: "aaaaaaaa-0000-4000-8000-000000000001", Time: noon, Table: "LoginEvents", Detail: []byte(`{"steps":[]}`)}
			e.Record(v)
			if err := e.Flush(b.Context()); err != nil { // makes the day
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				e.Record(v)
				if i%8192 == 0 {
					if err := e.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := e.Flush(b.Context()); err != nil || e.Dropped() != 0 {
				b.Fatal(err, e.Dropped())
			}
		})
	}
}
