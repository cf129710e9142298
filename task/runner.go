package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"cove.example/cove/fault"
)

// Handler does the work of one kind. Its context ends when the runner stops
// and when the task is no longer held; it must then return soon and change
// nothing more. An error of kind Invalid or Unsupported says that trying again
// is of no use.
type Handler func(ctx context.Context, h *Held) error

// Held is a task in its handler's hands.
type Held struct {
	Task
	save func(context.Context, json.RawMessage) error
}

// Save keeps state for the next attempt, should this one not end well. It
// fails with ErrFenced when the task is no longer held.
func (h *Held) Save(ctx context.Context, state json.RawMessage) error {
	err := h.save(ctx, state)
	if err == nil {
		h.State = state
	}
	return err
}

// Runner takes due tasks from a queue and does them. Kinds that must not wait
// for each other get a runner each.
type Runner struct {
	Queue    Queue
	Handlers map[string]Handler // by kind; a runner takes no other
	Workers  int                // handlers at once; 0 is 4
	Lease    time.Duration      // renewed at every third of it; 0 is a minute
	Tries    int                // attempts before a task is set aside; 0 is 20, about two hours
	Poll     time.Duration      // how often to look for what other nodes enqueued and what has come due; 0 is a second
	Now      func() time.Time   // nil is time.Now
	Log      *slog.Logger       // nil is silence
}

// Run takes tasks until ctx ends, then waits for the handlers to return and
// gives back what they have not finished. It returns ctx's error.
func (r *Runner) Run(ctx context.Context) error {
	run := *r
	run.defaults()
	kinds := slices.Sorted(maps.Keys(run.Handlers))
	slots := make(chan struct{}, run.Workers)
	var running sync.WaitGroup
	defer running.Wait()
	for {
		enqueued := run.Queue.Enqueued()
		free := take(ctx, slots)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		list, err := run.Queue.Claim(ctx, kinds, free, run.Now(), run.Lease)
		if err != nil && ctx.Err() == nil {
			run.Log.Error("tasks could not be taken", "error", err)
		}
		for range free - len(list) {
			<-slots
		}
		for _, t := range list {
			running.Go(func() {
				defer func() { <-slots }()
				run.do(ctx, t)
			})
		}
		if len(list) == free {
			continue // there may be more
		}
		poll := time.NewTimer(run.Poll)
		select {
		case <-enqueued:
		case <-poll.C:
		case <-ctx.Done():
		}
		poll.Stop()
	}
}

func (r *Runner) defaults() {
	if r.Workers == 0 {
		r.Workers = 4
	}
	if r.Lease == 0 {
		r.Lease = time.Minute
	}
	if r.Tries == 0 {
		r.Tries = 20
	}
	if r.Poll == 0 {
		r.Poll = time.Second
	}
	if r.Now == nil {
		r.Now = time.Now
	}
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
}

// take waits for a slot, takes all that are free and returns how many.
func take(ctx context.Context, slots chan struct{}) (n int) {
	select {
	case slots <- struct{}{}:
		n++
	case <-ctx.Done():
		return 0
	}
	for n < cap(slots) {
		select {
		case slots <- struct{}{}:
			n++
			continue
		default:
		}
		break
	}
	return n
}

func (r *Runner) do(ctx context.Context, t Task) {
	log := r.Log.With("task", t.ID, "kind", t.Kind, "key", t.Key, "try", t.Tries)
	var err error
	if t.Tries > r.Tries {
		// Earlier attempts ended with their process, and perhaps ended it.
		err = errors.New("no attempt came to an end")
	} else {
		err = r.attempt(ctx, t)
	}
	// The last word is said even when the runner is being stopped.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Lease)
	defer cancel()
	var say error
	switch now := r.Now(); {
	case errors.Is(err, ErrFenced):
		log.Warn("task lost to another attempt")
		return
	case err == nil:
		say = r.Queue.Done(last, t, now)
	case ctx.Err() != nil:
		say = r.Queue.Release(last, t, now)
	default:
		retry := now.Add(pause(t.Tries, rand.Float64()))
		if t.Tries >= r.Tries || fault.Is(err, fault.Invalid) || fault.Is(err, fault.Unsupported) {
			retry = time.Time{}
			log.Error("task set aside", "error", err)
		} else {
			log.Warn("task failed", "error", err, "retry", retry)
		}
		say = r.Queue.Fail(last, t, now, retry, brief(err))
	}
	if say != nil {
		log.Warn("the end of a task could not be kept; it will be run again", "error", say)
	}
}

// attempt runs the handler while another goroutine renews the lease. It
// returns ErrFenced when the task was lost meanwhile, whatever the handler
// says.
func (r *Runner) attempt(ctx context.Context, t Task) error {
	work, cancel := context.WithCancelCause(ctx)
	extend := func(ctx context.Context, state json.RawMessage) error {
		err := r.Queue.Extend(ctx, t, r.Now(), r.Lease, state)
		if errors.Is(err, ErrFenced) {
			cancel(ErrFenced)
		}
		return err
	}
	var beating sync.WaitGroup
	beating.Go(func() {
		tick := time.NewTicker(r.Lease / 3)
		defer tick.Stop()
		for ends := time.Now().Add(r.Lease); ; {
			select {
			case <-tick.C:
			case <-work.Done():
				return
			}
			begun := time.Now()
			once, done := context.WithDeadline(work, ends)
			err := extend(once, nil)
			done()
			switch {
			case err == nil:
				ends = begun.Add(r.Lease)
			case !time.Now().Before(ends):
				cancel(ErrFenced) // somebody else may hold it by now
			}
		}
	})
	err := call(work, r.Handlers[t.Kind], &Held{Task: t, save: extend})
	lost := errors.Is(context.Cause(work), ErrFenced)
	cancel(nil)
	beating.Wait()
	if lost {
		return ErrFenced
	}
	return err
}

// call runs a handler. A handler that panics fails; it does not take the
// server with it.
func call(ctx context.Context, handle Handler, h *Held) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return handle(ctx, h)
}

// The pause after a failure doubles from the first to the longest.
const (
	firstPause   = time.Second
	longestPause = 10 * time.Minute
)

// pause is how long to wait after so many tries. Half of it is chance (in
// [0,1)), so that what failed together does not come back together.
func pause(tries int, chance float64) time.Duration {
	d := longestPause
	if tries < 11 { // 2^10 s is past the longest
		d = min(firstPause<<max(tries-1, 0), longestPause)
	}
	return d/2 + time.Duration(chance*float64(d/2))
}

// brief is err for the task's row. PostgreSQL takes neither broken UTF-8 nor
// NUL, both of which an error from elsewhere may hold.
func brief(err error) string {
	s := err.Error()
	s = s[:min(len(s), 2000)]
	return strings.ReplaceAll(strings.ToValidUTF8(s, ""), "\x00", "")
}
