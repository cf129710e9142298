package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// numbers makes a table of names and numbers.
func numbers(t testing.TB, db *store.DB) {
	t.Helper()
	do(t, db, `CREATE TABLE numbers (name VARCHAR(100) PRIMARY KEY, n BIGINT NOT NULL)`)
}

func do(t testing.TB, db *store.DB, q string, args ...any) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.Exec(t.Context(), q, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func set(ctx context.Context, tx *store.Tx, name string, n int64) error {
	_, err := tx.Exec(ctx, `INSERT INTO numbers (name, n) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET n = excluded.n`, name, n)
	return err
}

func get(ctx context.Context, tx *store.Tx, name string) (n int64, err error) {
	err = tx.QueryRow(ctx, `SELECT n FROM numbers WHERE name = $1`, name).Scan(&n)
	return n, err
}

func count(t testing.TB, db *store.DB) (n int) {
	t.Helper()
	err := db.View(context.Background(), func(tx *store.Tx) error {
		return tx.QueryRow(context.Background(), `SELECT count(*) FROM numbers`).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestViewSeesOneMoment(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		numbers(t, db)
		do(t, db, `INSERT INTO numbers VALUES ('a', 1)`)
		err := db.View(ctx, func(tx *store.Tx) error {
			before, err := get(ctx, tx, "a")
			if err != nil {
				return err
			}
			do(t, db, `UPDATE numbers SET n = 2`)
			after, err := get(ctx, tx, "a")
			if before != 1 || after != 1 {
				t.Errorf("a View read %d and, after somebody's Update, %d", before, after)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestViewCannotWrite(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		numbers(t, db)
		err := db.View(t.Context(), func(tx *store.Tx) error { return set(t.Context(), tx, "a", 1) })
		if err == nil || count(t, db) != 0 {
			t.Errorf("a View wrote: error %v, %d rows", err, count(t, db))
		}
	})
}

func TestFailedUpdateLeavesNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		numbers(t, db)
		mine := errors.New("mine")
		err := db.Update(ctx, func(tx *store.Tx) error {
			if err := errors.Join(set(ctx, tx, "a", 1), tx.Record(ctx, store.Change{Kind: "n", Key: "a", Op: "put"})); err != nil {
				return err
			}
			return mine
		})
		if !errors.Is(err, mine) {
			t.Errorf("Update returned %v", err)
		}
		if list, err := db.Changes(ctx, 0, 10); len(list) != 0 || err != nil {
			t.Errorf("the outbox has %v, %v", list, err)
		}
		if n := count(t, db); n != 0 {
			t.Errorf("%d rows were left", n)
		}
	})
}

// In one group on SQLite, side by side on PostgreSQL: a write that fails, in
// its function or by a statement, disturbs no neighbour.
func TestFailingWritesDisturbNoNeighbour(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		numbers(t, db)
		do(t, db, `INSERT INTO numbers VALUES ('taken', 1)`)
		const writers, rounds = 8, 20
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range rounds {
					name := fmt.Sprintf("%d-%d", w, i)
					err := db.Update(ctx, func(tx *store.Tx) error {
						if err := set(ctx, tx, name, 1); err != nil {
							return err
						}
						switch (w + i) % 4 {
						case 0:
							return errors.New("changed my mind")
						case 1:
							_, err := tx.Exec(ctx, `INSERT INTO numbers VALUES ('taken', 2)`)
							return err
						}
						return nil
					})
					if wanted := (w+i)%4 > 1; (err == nil) != wanted {
						t.Errorf("%s: %v", name, err)
					}
				}
			})
		}
		wg.Wait()
		if n := count(t, db); n != 1+writers*rounds/2 {
			t.Errorf("%d rows, want %d", n, 1+writers*rounds/2)
		}
	})
}

// Read, add one, write, from many at once: what serializable means.
func TestNoIncrementIsLost(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		numbers(t, db)
		do(t, db, `INSERT INTO numbers VALUES ('a', 0)`)
		const writers, rounds = 6, 10
		var runs atomic.Int64
		var wg sync.WaitGroup
		for range writers {
			wg.Go(func() {
				for done := 0; done < rounds; {
					err := db.Update(ctx, func(tx *store.Tx) error {
						runs.Add(1)
						n, err := get(ctx, tx, "a")
						if err != nil {
							return err
						}
						return set(ctx, tx, "a", n+1)
					})
					switch {
					case err == nil:
						done++
					case !errors.Is(err, store.ErrBusy):
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		err := db.View(ctx, func(tx *store.Tx) error {
			n, err := get(ctx, tx, "a")
			if n != writers*rounds {
				t.Errorf("the sum is %d, want %d", n, writers*rounds)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d runs for %d increments", runs.Load(), writers*rounds)
	})
}

// What PostgreSQL cannot serialize it refuses once; Update runs fn again and
// its caller does not learn of it.
func TestUpdateIsRunAgainAfterAConflict(t *testing.T) {
	ctx := t.Context()
	db := storetest.Open(t, storetest.Postgres(t))
	numbers(t, db)
	do(t, db, `INSERT INTO numbers VALUES ('a', 0)`)
	runs := 0
	err := db.Update(ctx, func(tx *store.Tx) error {
		runs++
		n, err := get(ctx, tx, "a")
		if err != nil {
			return err
		}
		if runs == 1 {
			do(t, db, `UPDATE numbers SET n = 10`)
		}
		return set(ctx, tx, "a", n+1)
	})
	if err != nil || runs != 2 {
		t.Fatalf("%d runs, error %v", runs, err)
	}
	err = db.View(ctx, func(tx *store.Tx) error {
		n, err := get(ctx, tx, "a")
		if n != 11 {
			t.Errorf("a is %d, want 11", n)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestPanicAndGoexitEndTheirUpdateOnly(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		numbers(t, db)
		for name, leave := range map[string]func(){"panic": func() { panic("ouch") }, "goexit": runtime.Goexit} {
			caught := make(chan any, 1)
			go func() {
				defer func() { caught <- recover() }()
				_ = db.Update(ctx, func(tx *store.Tx) error {
					if err := set(ctx, tx, name, 1); err != nil {
						return err
					}
					leave()
					return nil
				})
			}()
			if p := <-caught; (p == "ouch") != (name == "panic") {
				t.Errorf("%s: recovered %v", name, p)
			}
		}
		do(t, db, `INSERT INTO numbers VALUES ('after', 1)`)
		if n := count(t, db); n != 1 {
			t.Errorf("%d rows, want the one written afterwards", n)
		}
	})
}

func TestCallerWhoLeavesTheQueue(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	numbers(t, db)
	inside, leave := make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		first <- db.Update(t.Context(), func(tx *store.Tx) error {
			close(inside)
			<-leave
			return set(t.Context(), tx, "first", 1)
		})
	}()
	<-inside
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := db.Update(ctx, func(tx *store.Tx) error {
		t.Error("ran although its caller had gone")
		return nil
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Update returned %v", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows", n)
	}
}

// A context that ends in the middle of fn fails this write and no other of
// its group.
func TestContextEndsInTheMiddle(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	numbers(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	var other sync.WaitGroup
	err := db.Update(ctx, func(tx *store.Tx) error {
		if err := set(ctx, tx, "mine", 1); err != nil {
			return err
		}
		other.Go(func() { do(t, db, `INSERT INTO numbers VALUES ('other', 1)`) })
		cancel()
		return set(ctx, tx, "mine too", 1)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Update returned %v", err)
	}
	other.Wait()
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows, want the other's", n)
	}
}

// SQLite answers the interruption of a write by rolling back the whole
// transaction, and with it what its neighbours have written.
func TestStatementIsNotInterrupted(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	numbers(t, db)
	ctx, cancel := context.WithCancel(t.Context())
	var other sync.WaitGroup
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		queued := make(chan struct{})
		other.Go(func() {
			close(queued)
			err := db.Update(ctx, func(tx *store.Tx) error {
				time.AfterFunc(20*time.Millisecond, cancel)
				_, err := tx.Exec(ctx, `INSERT INTO numbers
					WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) SELECT 'n' || i, i FROM n`)
				return errors.Join(err, errors.New("changed my mind"))
			})
			if err == nil {
				t.Error("it changed its mind")
			}
		})
		<-queued
		for range 1000 {
			runtime.Gosched() // it waits in line, for the same group
		}
		return set(t.Context(), tx, "mine", 1)
	})
	if err != nil {
		t.Errorf("the neighbour of a write whose caller went: %v", err)
	}
	other.Wait()
	if n := count(t, db); n != 1 {
		t.Errorf("%d rows, want one", n)
	}
}

// The same text may be run while its rows are being read, and rows that were
// left open are closed with the transaction.
func TestRowsWithinRows(t *testing.T) {
	db := storetest.Open(t, storetest.SQLite(t))
	ctx := t.Context()
	numbers(t, db)
	do(t, db, `INSERT INTO numbers VALUES ('a', 1), ('b', 2), ('c', 3)`)
	const q = `SELECT n FROM numbers ORDER BY name`
	var seen []int64
	read := func(rows *sql.Rows, each func()) {
		defer rows.Close()
		for rows.Next() {
			var n int64
			if err := rows.Scan(&n); err != nil {
				t.Fatal(err)
			}
			seen = append(seen, n)
			each()
		}
	}
	for _, run := range []func(context.Context, func(*store.Tx) error) error{db.View, db.Update} {
		seen = nil
		var leaked *sql.Rows
		err := run(ctx, func(tx *store.Tx) error {
			outer, err := tx.Query(ctx, q)
			if err != nil {
				return err
			}
			read(outer, func() {
				inner, err := tx.Query(ctx, q)
				if err != nil {
					t.Fatal(err)
				}
				read(inner, func() {})
			})
			leaked, err = tx.Query(ctx, q)
			return err
		})
		if err != nil || fmt.Sprint(seen) != "[1 1 2 3 2 1 2 3 3 1 2 3]" {
			t.Errorf("read %v, %v", seen, err)
		}
		if leaked.Next() {
			t.Error("rows can be read after the end of their transaction")
		}
	}
}

func TestClosedStoreSaysSo(t *testing.T) {
	for name, url := range map[string]string{"sqlite": storetest.SQLite(t), "postgres": storetest.Postgres(t)} {
		db, err := store.Open(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		nothing := func(*store.Tx) error { return nil }
		for _, err := range []error{db.View(t.Context(), nothing), db.Update(t.Context(), nothing)} {
			if !errors.Is(err, store.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

func TestCloseWaitsForWhatRuns(t *testing.T) {
	db, err := store.Open(t.Context(), storetest.SQLite(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	numbers(t, db)
	inside, closed := make(chan struct{}), make(chan error, 1)
	go func() {
		<-inside
		closed <- db.Close()
	}()
	err = db.Update(t.Context(), func(tx *store.Tx) error {
		close(inside)
		for range 100 {
			runtime.Gosched()
		}
		return set(t.Context(), tx, "a", 1)
	})
	if err != nil {
		t.Errorf("an Update that ran when the store was closed: %v", err)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
}

// Strings sort by bytes on both, whatever the database's language.
func TestTextSortsByBytes(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		err := db.Update(ctx, func(tx *store.Tx) error {
			for _, key := range []string{"b", "B", "a", "_", "A", "-"} {
				if err := tx.Record(ctx, store.Change{Kind: "n", Key: key, Op: "put"}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		err = db.View(ctx, func(tx *store.Tx) error {
			rows, err := tx.Query(ctx, `SELECT key FROM changes ORDER BY key`)
			if err != nil {
				return err
			}
			defer rows.Close()
			for rows.Next() {
				var k string
				if err := rows.Scan(&k); err != nil {
					return err
				}
				keys = append(keys, k)
			}
			return rows.Err()
		})
		if got := strings.Join(keys, ""); got != "-AB_ab" || err != nil {
			t.Errorf("sorted %q, %v", got, err)
		}
	})
}

func TestTimesAreKeptAsMicroseconds(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 34, 56, 789012345, time.FixedZone("CET", 3600))
	if got := store.Time(store.Micros(at)); !got.Equal(at.Truncate(time.Microsecond)) || got.Location() != time.UTC {
		t.Errorf("%v came back as %v", at, got)
	}
	if store.Micros(time.Time{}) != 0 || !store.Time(0).IsZero() {
		t.Error("the zero time is not 0")
	}
}
