package task_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/task"
)

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

// start runs r until stop.
func start(t *testing.T, r *task.Runner) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
}

// Two runners, many tasks: each is done once, by one of them.
func TestTwoRunnersShareTheWork(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		const tasks = 40
		var mu sync.Mutex
		done := map[string]int{}
		all := make(chan struct{})
		mow := func(_ context.Context, h *task.Held) error {
			mu.Lock()
			defer mu.Unlock()
			done[h.Key]++
			if len(done) == tasks {
				close(all)
			}
			return nil
		}
		for range 2 {
			defer start(t, &task.Runner{Queue: db, Handlers: map[string]task.Handler{"mow": mow}})()
		}
		var list []task.New
		for i := range tasks {
			list = append(list, task.New{Kind: "mow", Key: fmt.Sprint(i)})
		}
		enqueue(t, db, list...)
		select {
		case <-all:
		case <-time.After(time.Minute):
			t.Fatal("not all were done")
		}
		mu.Lock()
		defer mu.Unlock()
		for key, n := range done {
			if n != 1 {
				t.Errorf("task %s was done %d times", key, n)
			}
		}
	})
}

func TestRunnerWakesWhenSomethingIsEnqueuedHere(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		done := make(chan struct{})
		defer start(t, &task.Runner{Queue: db, Poll: time.Hour, Handlers: map[string]task.Handler{
			"mow": func(context.Context, *task.Held) error { close(done); return nil },
		}})()
		enqueue(t, db, task.New{Kind: "mow"})
		select {
		case <-done:
		case <-time.After(time.Minute):
			t.Error("it did not wake")
		}
	})
}

// A runner that lost its lease while its handler went on: the handler is
// told, and what it returns no longer matters.
func TestSlowRunnerCannotFinishForAnother(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn"})
		at := make(chan error, 1)
		// Nobody looks again: a renewal that comes late would give it away here.
		defer start(t, &task.Runner{Queue: db, Lease: 300 * time.Millisecond, Poll: time.Hour, Workers: 1, Handlers: map[string]task.Handler{
			"mow": func(ctx context.Context, h *task.Held) error {
				// Somebody whose clock is far ahead takes it over.
				other, err := db.Claim(context.Background(), []string{"mow"}, 1, time.Now().Add(time.Hour), time.Hour)
				if err != nil || len(other) != 1 {
					t.Errorf("take over: %v, %v", other, err)
				}
				<-ctx.Done()
				at <- h.Save(context.Background(), json.RawMessage("1"))
				return nil
			},
		}})()
		select {
		case err := <-at:
			if !errors.Is(err, task.ErrFenced) {
				t.Errorf("Save by the slow one: %v", err)
			}
		case <-time.After(time.Minute):
			t.Fatal("the slow handler was not told")
		}
		// It is still there, in the other's hands.
		list, err := db.Claim(t.Context(), []string{"mow"}, 1, time.Now().Add(3*time.Hour), time.Hour)
		if err != nil || len(list) != 1 || list[0].State != nil {
			t.Errorf("after the slow one returned: %v, %v", list, err)
		}
	})
}

// inBubble runs test in a bubble whose time passes at once, on a real
// database of its own.
func inBubble(t *testing.T, test func(t *testing.T, db *store.DB)) {
	url := storetest.SQLite(t)
	synctest.Test(t, func(t *testing.T) {
		db, err := store.Open(t.Context(), url, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		test(t, db)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestFailuresComeFurtherAndFurtherApart(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		var at []time.Time
		stop := start(t, &task.Runner{Queue: db, Tries: 15, Handlers: map[string]task.Handler{
			"mow": func(_ context.Context, h *task.Held) error {
				at = append(at, time.Now())
				return errors.New("rain")
			},
		}})
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn"})
		time.Sleep(24 * time.Hour)
		stop()
		if len(at) != 15 {
			t.Fatalf("%d attempts", len(at))
		}
		for i := 1; i < len(at); i++ {
			longest := min(time.Second<<(i-1), 10*time.Minute)
			// The runner looks once a second.
			if pause := at[i].Sub(at[i-1]); pause < longest/2 || pause > longest+time.Second {
				t.Errorf("pause %d is %v, want %v to %v", i, pause, longest/2, longest)
			}
		}
		dead, err := db.DeadTasks(t.Context(), 10)
		if err != nil || len(dead) != 1 || dead[0].Why != "rain" || dead[0].Tries != 15 {
			t.Errorf("set aside: %+v, %v", dead, err)
		}
	})
}

func TestLongWorkKeepsItsLease(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		var runs atomic.Int64
		handlers := map[string]task.Handler{"mow": func(ctx context.Context, h *task.Held) error {
			runs.Add(1)
			select {
			case <-time.After(time.Hour):
			case <-ctx.Done():
				t.Error("interrupted")
			}
			return nil
		}}
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn"})
		stop1 := start(t, &task.Runner{Queue: db, Handlers: handlers})
		stop2 := start(t, &task.Runner{Queue: db, Handlers: handlers})
		time.Sleep(2 * time.Hour)
		stop1()
		stop2()
		if n := runs.Load(); n != 1 {
			t.Errorf("run %d times", n)
		}
	})
}

func TestHopelessTaskIsSetAsideAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		runs := map[string]int{}
		stop := start(t, &task.Runner{Queue: db, Workers: 1, Handlers: map[string]task.Handler{
			"invalid": func(context.Context, *task.Held) error {
				runs["invalid"]++
				return fault.Newf(fault.Invalid, "no such lawn")
			},
			"panic": func(context.Context, *task.Held) error { runs["panic"]++; panic("a mole\x00\xff") },
		}, Tries: 2})
		enqueue(t, db, task.New{Kind: "invalid"}, task.New{Kind: "panic"})
		time.Sleep(time.Hour)
		stop()
		if runs["invalid"] != 1 || runs["panic"] != 2 {
			t.Errorf("runs: %v", runs)
		}
		if dead, err := db.DeadTasks(t.Context(), 10); len(dead) != 2 || err != nil {
			t.Errorf("set aside: %v, %v", dead, err)
		}
	})
}

// A runner that is stopped gives back what it holds, with its progress, and
// the interruption does not count as a try.
func TestStoppedRunnerGivesBack(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		held := make(chan struct{})
		stop := start(t, &task.Runner{Queue: db, Handlers: map[string]task.Handler{
			"mow": func(ctx context.Context, h *task.Held) error {
				if err := h.Save(ctx, json.RawMessage(`{"row":7}`)); err != nil {
					t.Error(err)
				}
				close(held)
				<-ctx.Done()
				return ctx.Err()
			},
		}})
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn"})
		<-held
		stop()
		list, err := db.Claim(t.Context(), []string{"mow"}, 1, time.Now(), time.Minute)
		if err != nil || len(list) != 1 || list[0].Tries != 1 || string(list[0].State) != `{"row":7}` {
			t.Errorf("given back: %+v, %v", list, err)
		}
	})
}

// A task that takes its process with it never says that it failed.
func TestTaskThatKillsIsSetAside(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		enqueue(t, db, task.New{Kind: "mow", Key: "lawn"})
		for range 3 { // claimed, and then silence
			if list, err := db.Claim(t.Context(), []string{"mow"}, 1, time.Now(), time.Second); len(list) != 1 || err != nil {
				t.Fatal(list, err)
			}
			time.Sleep(2 * time.Second)
		}
		stop := start(t, &task.Runner{Queue: db, Tries: 3, Handlers: map[string]task.Handler{
			"mow": func(context.Context, *task.Held) error { t.Error("run once more"); return nil },
		}})
		time.Sleep(time.Minute)
		stop()
		if dead, err := db.DeadTasks(t.Context(), 10); len(dead) != 1 || err != nil {
			t.Errorf("set aside: %v, %v", dead, err)
		}
	})
}

func TestNoMoreHandlersAtOnceThanWorkers(t *testing.T) {
	inBubble(t, func(t *testing.T, db *store.DB) {
		var now, most atomic.Int64
		stop := start(t, &task.Runner{Queue: db, Workers: 3, Handlers: map[string]task.Handler{
			"mow": func(context.Context, *task.Held) error {
				for n, had := now.Add(1), most.Load(); n > had && !most.CompareAndSwap(had, n); had = most.Load() {
				}
				time.Sleep(time.Second)
				now.Add(-1)
				return nil
			},
		}})
		begun := time.Now()
		enqueue(t, db, slices.Repeat([]task.New{{Kind: "mow"}}, 12)...)
		time.Sleep(5 * time.Second)
		stop()
		if most.Load() != 3 {
			t.Errorf("%d at once", most.Load())
		}
		if dead, err := db.Claim(t.Context(), []string{"mow"}, 1, begun.Add(time.Hour), time.Second); len(dead) != 0 || err != nil {
			t.Errorf("left after five seconds: %v, %v", dead, err)
		}
	})
}
