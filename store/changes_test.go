package store_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

func record(ctx context.Context, db *store.DB, key string) error {
	return db.Update(ctx, func(tx *store.Tx) error {
		return tx.Record(ctx, store.Change{Kind: "test", Key: key, Op: "put", Detail: []byte(`{"key":"` + key + `"}`)})
	})
}

// follow starts a Follow and returns once it has begun.
func follow(t *testing.T, db *store.DB, fn func([]store.Change)) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	begun, ended := make(chan struct{}), make(chan error, 1)
	var once sync.Once
	go func() {
		ended <- db.Follow(ctx, func(list []store.Change) {
			if list == nil {
				once.Do(func() { close(begun) })
				return
			}
			fn(list)
		})
	}()
	<-begun
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Follow ended with %v", err)
		}
	}
}

// Eight writers, transactions of different lengths: a follower sees each
// change once, in rising order, and the order in which one writer made its
// own.
func TestFollowSeesEverythingInOrder(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		const writers, rounds = 8, 25
		seen := make(chan store.Change, 2*writers*rounds)
		defer follow(t, db, func(list []store.Change) {
			for _, c := range list {
				seen <- c
			}
		})()
		var wg sync.WaitGroup
		for w := range writers {
			wg.Go(func() {
				for i := range rounds {
					err := db.Update(ctx, func(tx *store.Tx) error {
						for part := range 2 {
							c := store.Change{Kind: "test", Key: fmt.Sprintf("%d/%02d/%d", w, i, part), Op: "put"}
							if err := tx.Record(ctx, c); err != nil {
								return err
							}
							var x int
							for range rand.N(4) {
								if err := tx.QueryRow(ctx, `SELECT 1`).Scan(&x); err != nil {
									return err
								}
							}
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		last := store.Change{}
		newest := map[byte]string{}
		for n := range 2 * writers * rounds {
			select {
			case c := <-seen:
				if c.Seq <= last.Seq {
					t.Errorf("change %s has number %d after %d", c.Key, c.Seq, last.Seq)
				}
				if c.Key <= newest[c.Key[0]] {
					t.Errorf("writer %c: %s came after %s", c.Key[0], c.Key, newest[c.Key[0]])
				}
				last, newest[c.Key[0]] = c, c.Key
			case <-time.After(time.Minute):
				t.Fatalf("only %d changes came", n)
			}
		}
		select {
		case c := <-seen:
			t.Errorf("one more came: %v", c)
		default:
		}
	})
}

// quickest is the least time in which one of ten changes that from records is
// heard of. What is found by polling takes the pause of the polls each time; on
// a busy machine any one may take long.
func quickest(t *testing.T, from *store.DB, seen <-chan store.Change) time.Duration {
	t.Helper()
	least := time.Hour
	for i := range 10 {
		key := fmt.Sprint(i)
		begun := time.Now()
		if err := record(t.Context(), from, key); err != nil {
			t.Fatal(err)
		}
		if c := <-seen; c.Key != key || c.Kind != "test" || c.Op != "put" || string(c.Detail) != `{"key":"`+key+`"}` || c.Time.IsZero() {
			t.Errorf("got %+v", c)
		}
		least = min(least, time.Since(begun))
	}
	return least
}

func TestFollowWakesAtOnce(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		seen := make(chan store.Change, 1)
		defer follow(t, db, func(list []store.Change) { seen <- list[0] })()
		if took := quickest(t, db, seen); took > 300*time.Millisecond {
			t.Errorf("it took %v: found by polling", took)
		}
	})
}

func TestFollowSeesOtherNodes(t *testing.T) {
	url := storetest.Postgres(t)
	here, there := storetest.Open(t, url), storetest.Open(t, url)
	seen := make(chan store.Change, 1)
	defer follow(t, here, func(list []store.Change) { seen <- list[0] })()
	if took := quickest(t, there, seen); took > time.Second {
		t.Errorf("not seen within a second, but after %v", took)
	}
}

// A transaction that began first and commits last: what others committed
// meanwhile is shown after it or together with it, never before, or the
// cursor would pass it by.
func TestChangeOfASlowTransactionIsNotPassedBy(t *testing.T) {
	ctx := t.Context()
	db := storetest.Open(t, storetest.Postgres(t))
	inside, leave := make(chan struct{}), make(chan struct{})
	slow := make(chan error, 1)
	go func() {
		slow <- db.Update(ctx, func(tx *store.Tx) error {
			if err := tx.Record(ctx, store.Change{Kind: "test", Key: "slow", Op: "put"}); err != nil {
				return err
			}
			close(inside)
			<-leave
			return nil
		})
	}()
	<-inside
	if err := record(ctx, db, "quick"); err != nil {
		t.Fatal(err)
	}
	if list, err := db.Changes(ctx, 0, 10); len(list) != 0 || err != nil {
		t.Errorf("while the slow one is open: %v, %v", list, err)
	}
	close(leave)
	if err := <-slow; err != nil {
		t.Fatal(err)
	}
	list, err := db.Changes(ctx, 0, 10)
	if err != nil || len(list) != 2 || list[0].Key != "slow" || list[1].Key != "quick" {
		t.Errorf("afterwards: %v, %v", list, err)
	}
}

// A dump restored into another cluster meets transaction numbers lower than
// those in it.
func TestOutboxGoesOnAfterARestore(t *testing.T) {
	ctx := t.Context()
	url := storetest.Postgres(t)
	before := storetest.Open(t, url)
	const restored = int64(1) << 60
	do(t, before, `INSERT INTO changes (seq, time, kind, key, op, detail) VALUES ($1, 1, 'test', 'old', 'put', '')`, restored)
	db := storetest.Open(t, url)
	if err := record(ctx, db, "new"); err != nil {
		t.Fatal(err)
	}
	list, err := db.Changes(ctx, 0, 10)
	if err != nil || len(list) != 2 || list[1].Key != "new" || list[1].Seq <= restored {
		t.Errorf("got %v, %v", list, err)
	}
	again := storetest.Open(t, url)
	if err := record(ctx, again, "newer"); err != nil {
		t.Fatal(err)
	}
	if list, err := db.Changes(ctx, restored, 10); err != nil || len(list) != 2 || list[1].Key != "newer" {
		t.Errorf("after another start: %v, %v", list, err)
	}
}

func TestTrimKeepsTheYoungAndTheNewest(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx := t.Context()
		for _, key := range []string{"a", "b", "c"} {
			if err := record(ctx, db, key); err != nil {
				t.Fatal(err)
			}
		}
		trim := func(before time.Time, limit int, want int64) {
			t.Helper()
			if n, err := db.TrimChanges(ctx, before, limit); n != want || err != nil {
				t.Errorf("trimmed %d, %v; want %d", n, err, want)
			}
		}
		trim(time.Now().Add(-time.Hour), 100, 0)
		trim(time.Now().Add(time.Hour), 1, 1)
		trim(time.Now().Add(time.Hour), 100, 1)
		trim(time.Now().Add(time.Hour), 100, 0)
		list, err := db.Changes(ctx, 0, 10)
		if err != nil || len(list) != 1 || list[0].Key != "c" {
			t.Fatalf("left: %v, %v", list, err)
		}
		if err := record(ctx, db, "d"); err != nil {
			t.Fatal(err)
		}
		if more, err := db.Changes(ctx, list[0].Seq, 10); err != nil || len(more) != 1 || more[0].Key != "d" {
			t.Errorf("after trimming: %v, %v", more, err)
		}
	})
}
