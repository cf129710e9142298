package store_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

// Events of one day, each with an id of its own, as they come.
func BenchmarkRecordEvent(b *testing.B) {
	r := rand.New(rand.NewPCG(3, 4))
	list := make([]audit.Event, 8192)
	for name, url := range map[string]func(testing.TB) string{"sqlite": storetest.SQLite, "postgres": storetest.Postgres} {
		b.Run(name, func(b *testing.B) {
			db := storetest.Open(b, url(b))
			e, err := db.Events(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			for i := range list {
				list[i] = invented(r, noon)
			}
			e.Record(list[0])
			if err := e.Flush(b.Context()); err != nil { // makes the day
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.ResetTimer()
			before := processor(b)
			for i := range b.N {
				v := list[i%len(list)]
				v.Time = noon.Add(time.Duration(i) * 100 * time.Microsecond)
				v.ID = audit.NewID(v.Time)
				e.Record(v)
				if i%1024 == 1023 {
					if err := e.Flush(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := e.Flush(b.Context()); err != nil || e.Dropped() != 0 {
				b.Fatal(err, e.Dropped())
			}
			b.ReportMetric(float64((processor(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
		})
	}
}

// processor is the time that this process has computed, which says more than
// the clock on a machine that does other things too.
func processor(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
