package resource_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/task"
)

// yard is a service with one type whose action "dredge" goes on after its
// answer, and a queue whose tasks the test takes itself.
type yard struct {
	*resource.Service
	t     *testing.T
	db    *store.DB
	store *store.Resources
	ops   resource.Operations
	now   time.Time
}

var basin = arm.MustID("/subscriptions/s1/resourceGroups/docks/providers/Test.Sea/basins/north")

func openYard(t *testing.T, db *store.DB) *yard {
	t.Helper()
	y := &yard{t: t, db: db, store: store.NewResources(db), now: time.Now()}
	clock := func() time.Time { return y.now }
	y.ops = resource.Operations{Store: y.store, Now: clock}
	basins := resource.Type{Name: "Test.Sea/basins", Long: map[string]resource.Long{
		"dredge": func(_ context.Context, _ resource.Tx, _ resource.Doc, _ resource.Caller, body resource.Object) (resource.Work, error) {
			if body["depth"] == nil {
				return resource.Work{}, fault.Problems([]fault.Field{{Path: "depth", Message: "is required"}})
			}
			return resource.Work{Task: "sea.dredge", Request: resource.Object{"depth": body["depth"], "secret": "sealed"}}, nil
		},
	}}
	var err error
	if y.Service, err = resource.New(resource.Config{Store: y.store, Types: []resource.Type{basins}, Locations: []string{"westeurope"}, Now: clock}); err != nil {
		t.Fatal(err)
	}
	if err := y.Begin(t.Context(), resource.First{Tenant: "t1", Subscription: "s1"}); err != nil {
		t.Fatal(err)
	}
	for _, id := range []arm.ID{basin.GroupID(), basin} {
		if _, err := y.Put(t.Context(), owner, id, resource.Object{"location": "westeurope"}, resource.Condition{}); err != nil {
			t.Fatal(err)
		}
	}
	return y
}

func (y *yard) dredge() resource.Operation {
	y.t.Helper()
	o, err := y.Start(y.t.Context(), owner, basin, "DREDGE", resource.Object{"depth": json.Number("12")})
	if err != nil {
		y.t.Fatal(err)
	}
	return o
}

func (y *yard) look(o resource.Operation) resource.Operation {
	y.t.Helper()
	o, err := y.Operation(y.t.Context(), o.ID)
	if err != nil {
		y.t.Fatal(err)
	}
	return o
}

// claim takes the one task that is due, as a runner would.
func (y *yard) claim(kind string) task.Task {
	y.t.Helper()
	if now := time.Now(); y.now.Before(now) {
		y.now = now // tasks are due by the database's clock
	}
	list, err := y.db.Claim(y.t.Context(), []string{kind}, 10, y.now, time.Minute)
	if err != nil || len(list) != 1 {
		y.t.Fatalf("due of %s: %v, %v", kind, list, err)
	}
	return list[0]
}

// attempt claims the task and does it with fn, and says the end of it to the
// queue, as a runner would.
func (y *yard) attempt(fn func(context.Context, *resource.Progress) (resource.Object, error)) error {
	y.t.Helper()
	t := y.claim("sea.dredge")
	err := y.ops.Handler(fn)(y.t.Context(), &task.Held{Task: t})
	if err == nil {
		err = y.db.Done(y.t.Context(), t, y.now)
	} else if fail := y.db.Fail(y.t.Context(), t, y.now, y.now, err.Error()); fail != nil {
		y.t.Fatal(fail)
	}
	return err
}

func TestOperationSucceeds(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		o := y.dredge()
		if o.Status != resource.Running || !y.IsLong(basin, "dredge") || y.IsLong(basin, "sink") {
			t.Errorf("begun: %+v", o)
		}
		if got := y.ActionName(basin, "DREDGE"); got != "Test.Sea/basins/dredge/action" {
			t.Errorf("needs %s", got)
		}
		err := y.attempt(func(ctx context.Context, p *resource.Progress) (resource.Object, error) {
			if p.Request["depth"] != json.Number("12") {
				t.Errorf("request: %v", p.Request)
			}
			p.Say(ctx, 10, resource.Object{"mud": "much"}) // too soon to be written
			if now := y.look(o); now.Percent != 0 {
				t.Errorf("written at once: %+v", now)
			}
			y.now = y.now.Add(2 * time.Second)
			p.Say(ctx, 140, resource.Object{"mud": "less"})
			if now := y.look(o); now.Percent != 99 || now.Detail["mud"] != "less" || now.Status != resource.Running {
				t.Errorf("under way: %+v", now)
			}
			return resource.Object{"mud": "none"}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		done := y.look(o)
		if done.Status != resource.Succeeded || done.Percent != 100 || done.Detail["mud"] != "none" || done.Ended.IsZero() {
			t.Errorf("done: %+v", done)
		}
		if text, err := json.Marshal(done.Show()); err != nil || strings.Contains(string(text), "sealed") {
			t.Errorf("shown: %s, %v", text, err)
		}
		if doc := y.document(o); doc.Body["request"] != nil {
			t.Errorf("kept: %v", doc.Body)
		}
	})
}

func (y *yard) document(o resource.Operation) (doc resource.Doc) {
	y.t.Helper()
	err := y.store.View(y.t.Context(), func(r resource.Reader) (err error) {
		doc, err = r.Get(y.t.Context(), o.ID)
		return err
	})
	if err != nil {
		y.t.Fatal(err)
	}
	return doc
}

// Refused at once: no operation, no task.
func TestRefusedActionBeginsNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		if _, err := y.Start(t.Context(), owner, basin, "dredge", nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("without a depth: %v", err)
		}
		if _, err := y.Start(t.Context(), owner, arm.MustID(basin.Parent().String()+"/providers/Test.Sea/basins/none"), "dredge", nil); !errors.Is(err, resource.ErrUnknown) {
			t.Errorf("nowhere: %v", err)
		}
		if list, err := db.Claim(t.Context(), []string{"sea.dredge", resource.TaskExpireOperation}, 10, y.now.Add(72*time.Hour), time.Minute); len(list) != 0 || err != nil {
			t.Errorf("tasks: %v, %v", list, err)
		}
	})
}

func TestOperationFailsInItsOwnWords(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		for _, c := range []struct {
			err          error
			status, code string
			message      string
			attempts     int
		}{
			{fault.Coded(fault.Invalid, "TooDeep", "the basin is not that deep"), resource.Failed, "TooDeep", "the basin is not that deep", 1},
			{resource.ErrCanceled.Detail("The basin is gone."), resource.Canceled, "OperationCanceled", "The basin is gone.", 1},
			{errors.New("open /var/lib/cove/mud: no space"), resource.Failed, "InternalServerError", "internal error", 5},
			{fault.New(fault.Unavailable, "the tide is in"), resource.Failed, "ServiceUnavailable", "the tide is in", 5},
			{resource.Final(fault.New(fault.Unavailable, "the tide is in")), resource.Failed, "ServiceUnavailable", "the tide is in", 1},
		} {
			o := y.dredge()
			n := 0
			for y.look(o).Status == resource.Running {
				err := y.attempt(func(context.Context, *resource.Progress) (resource.Object, error) { n++; return nil, c.err })
				if (err == nil) != (n == c.attempts) {
					t.Fatalf("attempt %d at %v: %v", n, c.err, err)
				}
			}
			got := y.look(o)
			if n != c.attempts || got.Status != c.status || got.Code != c.code || got.Message != c.message {
				t.Errorf("%v: after %d attempts %+v", c.err, n, got)
			}
		}
	})
}

// A process that dies in the middle: the next attempt goes on, and an
// operation that kills every process has failed in the end.
func TestOperationOutlivesItsProcess(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		o := y.dredge()
		for range 5 {
			y.claim("sea.dredge") // and then silence
			if got := y.look(o); got.Status != resource.Running {
				t.Fatalf("too soon: %+v", got)
			}
			y.now = y.now.Add(2 * time.Minute) // the lease runs out
		}
		if err := y.attempt(func(context.Context, *resource.Progress) (resource.Object, error) {
			t.Error("done a sixth time")
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
		if got := y.look(o); got.Status != resource.Failed {
			t.Errorf("%+v", got)
		}

		o = y.dredge()
		y.claim("sea.dredge")
		y.now = y.now.Add(2 * time.Minute)
		if err := y.attempt(func(context.Context, *resource.Progress) (resource.Object, error) { return nil, nil }); err != nil {
			t.Fatal(err)
		}
		if got := y.look(o); got.Status != resource.Succeeded {
			t.Errorf("after one death: %+v", got)
		}
	})
}

// An attempt that was slow, not dead, cannot end the operation that another
// has taken over.
func TestSlowAttemptEndsNothing(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		o := y.dredge()
		slow := y.claim("sea.dredge")
		err := y.ops.Handler(func(ctx context.Context, p *resource.Progress) (resource.Object, error) {
			y.now = y.now.Add(2 * time.Minute)
			quick := y.claim("sea.dredge")
			if err := y.ops.Handler(func(context.Context, *resource.Progress) (resource.Object, error) {
				return resource.Object{"by": "the quick one"}, errors.New("not yet")
			})(t.Context(), &task.Held{Task: quick}); err == nil {
				t.Error("the quick one has ended")
			}
			return resource.Object{"by": "the slow one"}, nil
		})(t.Context(), &task.Held{Task: slow})
		if !errors.Is(err, task.ErrFenced) {
			t.Errorf("the slow one: %v", err)
		}
		if got := y.look(o); got.Status != resource.Running {
			t.Errorf("%+v", got)
		}
	})
}

// A runner that stops gives its operation back, whatever the handler returns.
func TestStoppedAttemptLeavesItRunning(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		o := y.dredge()
		held := y.claim("sea.dredge")
		ctx, cancel := context.WithCancel(t.Context())
		err := y.ops.Handler(func(context.Context, *resource.Progress) (resource.Object, error) {
			cancel()
			return nil, fault.New(fault.Invalid, "cut off")
		})(ctx, &task.Held{Task: held})
		if got := y.look(o); err == nil || got.Status != resource.Running {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestOperationTakesADayAtMostAndIsKeptForOne(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		o := y.dredge()
		y.now = y.now.Add(24 * time.Hour)
		if err := y.attempt(func(ctx context.Context, _ *resource.Progress) (resource.Object, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}); err != nil {
			t.Fatal(err)
		}
		if got := y.look(o); got.Status != resource.Failed || got.Code != "OperationTimedOut" {
			t.Errorf("after a day: %+v", got)
		}
		y.now = y.now.Add(24*time.Hour + time.Second)
		if _, err := y.Operation(t.Context(), o.ID); !errors.Is(err, resource.ErrOperationUnknown) {
			t.Errorf("after two: %v", err)
		}
		if err := y.ops.Expire(t.Context(), &task.Held{Task: y.claim(resource.TaskExpireOperation)}); err != nil {
			t.Fatal(err)
		}
		if exists, err := y.Exists(t.Context(), o.ID); exists || err != nil {
			t.Errorf("its document is there: %v, %v", exists, err)
		}
	})
}

// An operation stands in nobody's way: its resource, group and lists know
// nothing of it, and no caller can write one.
func TestOperationIsNoResource(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		y := openYard(t, db)
		o := y.dredge()
		if _, err := y.Put(t.Context(), owner, o.ID, resource.Object{}, resource.Condition{}); !errors.Is(err, resource.ErrTypeUnknown) {
			t.Errorf("put: %v", err)
		}
		if _, err := y.Delete(t.Context(), owner, basin.GroupID(), resource.Condition{}); err != nil {
			t.Errorf("delete its group: %v", err)
		}
		if got := y.look(o); !got.On.Equal(basin) {
			t.Errorf("%+v", got)
		}
	})
}
