package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/task"
)

const lease = time.Minute

// soon is a time at which whatever is enqueued now is due, however long that
// takes.
func soon() time.Time { return time.Now().Add(time.Hour) }

func enqueue(t *testing.T, db *store.DB, list ...task.New) {
	t.Helper()
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		for _, n := range list {
			if err := tx.Enqueue(t.Context(), n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func claim(t *testing.T, db *store.DB, at time.Time) []task.Task {
	t.Helper()
	list, err := db.Claim(t.Context(), []string{"mow", "rake"}, 10, at, lease)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// one claims the only task that is due.
func one(t *testing.T, db *store.DB, at time.Time) task.Task {
	t.Helper()
	list := claim(t, db, at)
	if len(list) != 1 {
		t.Fatalf("%d tasks are due, want 1: %v", len(list), list)
	}
	return list[0]
}

func none(t *testing.T, db *store.DB, at time.Time) {
	t.Helper()
	if list := claim(t, db, at); len(list) != 0 {
		t.Fatalf("due although it should not be: %v", list)
	}
}

func TestTaskLife(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, now := t.Context(), soon()
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn", Body: []byte(`{"height":4}`)}, task.New{Kind: "unknown here", Key: "x"})
		got := one(t, db, now)
		if got.Kind != "mow" || got.Key != "lawn" || string(got.Body) != `{"height":4}` || got.Tries != 1 || got.State != nil || got.Created.IsZero() {
			t.Errorf("claimed %+v", got)
		}
		none(t, db, now)
		if err := db.Done(ctx, got, now); err != nil {
			t.Fatal(err)
		}
		none(t, db, now.Add(time.Hour))
		if err := db.Done(ctx, got, now); !errors.Is(err, task.ErrFenced) {
			t.Errorf("done twice: %v", err)
		}
	})
}

func TestRolledBackTaskIsNotThere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		rung := db.Enqueued()
		_ = db.Update(t.Context(), func(tx *store.Tx) error {
			if err := tx.Enqueue(t.Context(), task.New{Kind: "mow"}); err != nil {
				t.Error(err)
			}
			return errors.New("changed my mind")
		})
		none(t, db, time.Now().Add(time.Hour))
		select {
		case <-rung:
			t.Error("runners were woken for nothing")
		default:
		}
		enqueue(t, db, task.New{Kind: "mow"})
		<-rung
	})
}

func TestTaskWaitsForItsTime(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		now := time.Now()
		enqueue(t, db, task.New{Kind: "mow", After: now.Add(time.Hour)})
		none(t, db, now.Add(59*time.Minute))
		one(t, db, now.Add(61*time.Minute))
	})
}

func TestOneUnfinishedTaskOfAKindAndKey(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		now := soon()
		enqueue(t, db,
			task.New{Kind: "mow", Key: "lawn", Body: []byte("1")}, task.New{Kind: "mow", Key: "lawn", Body: []byte("2")},
			task.New{Kind: "rake", Key: "lawn"}, task.New{Kind: "mow"}, task.New{Kind: "mow"})
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn", Body: []byte("3")})
		list := claim(t, db, now)
		if len(list) != 4 {
			t.Fatalf("%d tasks: %v", len(list), list)
		}
		for _, x := range list {
			if x.Kind == "mow" && x.Key == "lawn" && string(x.Body) != "1" {
				t.Errorf("the body is that of a later one: %s", x.Body)
			}
			if err := db.Done(t.Context(), x, now); err != nil {
				t.Error(err)
			}
		}
		none(t, db, now.Add(time.Hour))
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn", Body: []byte("4")})
		if x := one(t, db, now); string(x.Body) != "4" {
			t.Errorf("after the first was done: %s", x.Body)
		}
	})
}

// What was enqueued while its like was being done is done again: the one at
// work may have read the state of before.
func TestTaskEnqueuedWhileHeldRunsAgain(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, now := t.Context(), soon()
		lawn := task.New{Kind: "mow", Key: "lawn"}
		enqueue(t, db, lawn)
		first := one(t, db, now)
		if err := db.Extend(ctx, first, now, lease, []byte(`"half"`)); err != nil {
			t.Fatal(err)
		}
		enqueue(t, db, lawn)
		none(t, db, now)
		if err := db.Done(ctx, first, now); err != nil {
			t.Fatal(err)
		}
		second := one(t, db, now.Add(time.Second))
		if second.Tries != 1 || second.State != nil {
			t.Errorf("it did not start from the beginning: %+v", second)
		}
		if err := db.Done(ctx, first, now); !errors.Is(err, task.ErrFenced) {
			t.Errorf("the first could end the second: %v", err)
		}
		// Also when the one at work is given up: the new wish is no part of that.
		enqueue(t, db, lawn)
		if err := db.Fail(ctx, second, now, time.Time{}, "rain"); err != nil {
			t.Fatal(err)
		}
		third := one(t, db, now.Add(time.Second))
		if err := db.Done(ctx, third, now); err != nil {
			t.Fatal(err)
		}
		none(t, db, now.Add(time.Hour))
	})
}

func TestLeaseThatRunsOut(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, now := t.Context(), soon()
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn"})
		slow := one(t, db, now)
		if err := db.Extend(ctx, slow, now.Add(lease/2), lease, []byte(`{"row":7}`)); err != nil {
			t.Fatal(err)
		}
		none(t, db, now.Add(lease+time.Second))
		// A heartbeat without news keeps what is known.
		if err := db.Extend(ctx, slow, now.Add(lease/2), lease, nil); err != nil {
			t.Fatal(err)
		}
		later := now.Add(2 * lease)
		other := one(t, db, later)
		if other.Tries != 2 || string(other.State) != `{"row":7}` {
			t.Errorf("the other got %+v", other)
		}
		for name, err := range map[string]error{
			"Done":      db.Done(ctx, slow, later),
			"Extend":    db.Extend(ctx, slow, later, lease, nil),
			"Fail":      db.Fail(ctx, slow, later, later, ""),
			"set aside": db.Fail(ctx, slow, later, time.Time{}, ""),
			"Release":   db.Release(ctx, slow, later),
		} {
			if !errors.Is(err, task.ErrFenced) {
				t.Errorf("%s by the one whose lease ran out: %v", name, err)
			}
		}
		if err := db.Done(ctx, other, later); err != nil {
			t.Error(err)
		}
	})
}

func TestFailedTaskComesBackAndIsSetAside(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		ctx, now := t.Context(), soon()
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn", Body: []byte("1")})
		x := one(t, db, now)
		if err := db.Fail(ctx, x, now, now.Add(time.Minute), "rain"); err != nil {
			t.Fatal(err)
		}
		none(t, db, now.Add(59*time.Second))
		now = now.Add(time.Minute)
		x = one(t, db, now)
		if x.Tries != 2 {
			t.Errorf("try %d", x.Tries)
		}
		if err := db.Release(ctx, x, now); err != nil {
			t.Fatal(err)
		}
		if x = one(t, db, now); x.Tries != 2 {
			t.Errorf("after it was given back: try %d", x.Tries)
		}
		if err := db.Fail(ctx, x, now, time.Time{}, "winter"); err != nil {
			t.Fatal(err)
		}
		none(t, db, now.Add(time.Hour))
		dead, err := db.DeadTasks(ctx, 10)
		if err != nil || len(dead) != 1 || dead[0].Key != "lawn" || dead[0].Why != "winter" || !dead[0].Since.Equal(now.Truncate(time.Microsecond)) {
			t.Fatalf("set aside: %+v, %v", dead, err)
		}

		// It does not stand in the way of a new one, nor does a new one vanish
		// in it.
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn", Body: []byte("2")})
		if err := db.Revive(ctx, dead[0].ID); !fault.Is(err, fault.Conflict) {
			t.Errorf("revived beside a new one: %v", err)
		}
		x = one(t, db, now)
		if err := db.Done(ctx, x, now); err != nil || string(x.Body) != "2" {
			t.Errorf("the new one: %+v, %v", x, err)
		}
		if err := db.Revive(ctx, dead[0].ID); err != nil {
			t.Fatal(err)
		}
		if x = one(t, db, soon()); string(x.Body) != "1" || x.Tries != 1 {
			t.Errorf("revived as %+v", x)
		}
		if err := db.Revive(ctx, dead[0].ID); !errors.Is(err, store.ErrNoTask) {
			t.Errorf("revived twice: %v", err)
		}
	})
}

// Many claim at once: each task goes to one of them.
func TestClaimsDoNotOverlap(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const tasks, claimers = 60, 6
		var list []task.New
		for i := range tasks {
			list = append(list, task.New{Kind: "mow", Key: fmt.Sprint(i)})
		}
		enqueue(t, db, list...)
		now := soon()
		var mu sync.Mutex
		var wg sync.WaitGroup
		owners := map[int64]int{}
		for c := range claimers {
			wg.Go(func() {
				for {
					got, err := db.Claim(context.Background(), []string{"mow"}, 7, now, lease)
					if err != nil {
						t.Error(err)
						return
					}
					if len(got) > 7 {
						t.Errorf("got %d of 7", len(got))
					}
					mu.Lock()
					for _, x := range got {
						if other, ok := owners[x.ID]; ok {
							t.Errorf("task %d went to %d and to %d", x.ID, other, c)
						}
						owners[x.ID] = c
					}
					mu.Unlock()
					if len(got) == 0 {
						return // what is left is in others' hands
					}
				}
			})
		}
		wg.Wait()
		if len(owners) != tasks {
			t.Errorf("%d of %d tasks were claimed", len(owners), tasks)
		}
	})
}

// What somebody is just claiming holds nobody up, and is not claimed twice.
func TestClaimPassesBySomebodysClaim(t *testing.T) {
	db := storetest.Open(t, storetest.Postgres(t))
	enqueue(t, db, task.New{Kind: "mow", Key: "theirs"}, task.New{Kind: "mow", Key: "ours"})
	err := db.Update(t.Context(), func(tx *store.Tx) error {
		if _, err := tx.Exec(t.Context(), `UPDATE tasks SET attempt = attempt + 1 WHERE key = 'theirs'`); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		list, err := db.Claim(ctx, []string{"mow"}, 10, soon(), lease)
		if err != nil || len(list) != 1 || list[0].Key != "ours" {
			t.Errorf("claimed %v, %v", list, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
