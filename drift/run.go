package drift

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"cove.example/cove/reason"
)

// Runner looks again and again, says what has come and what has gone, and
// keeps count for the metrics.
type Runner struct {
	Look  func(ctx context.Context) ([]Finding, error)
	Every time.Duration
	Log   *slog.Logger
	// Tell, if not nil, is told of each finding that has come, or has gone.
	Tell func(f Finding, mended bool)

	mu    sync.Mutex
	last  map[string]Finding
	count map[reason.Code]int
}

// Run looks at once, and then as often as Every says, until ctx ends.
func (r *Runner) Run(ctx context.Context) error {
	tick := time.NewTicker(r.Every)
	defer tick.Stop()
	for {
		found, err := r.Look(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			r.Log.Error("the deployment could not be looked over; trying again", "err", err)
		default:
			r.take(found)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// take logs what is new and what has been mended since the last look.
func (r *Runner) take(found []Finding) {
	now, count := map[string]Finding{}, map[reason.Code]int{}
	for _, f := range found {
		now[string(f.Code)+" "+f.Says] = f
		count[f.Code]++
	}
	r.mu.Lock()
	before := r.last
	r.last, r.count = now, count
	r.mu.Unlock()
	for key, f := range now {
		if _, ok := before[key]; !ok {
			r.Log.Warn("found: "+f.Title, "code", f.Code, "resource", f.ID, "says", f.Says, "breaks", f.Breaks, "cure", f.Cure)
			r.tell(f, false)
		}
	}
	for key, f := range before {
		if _, ok := now[key]; !ok {
			r.Log.Info("mended: "+f.Title, "code", f.Code, "resource", f.ID, "says", f.Says)
			r.tell(f, true)
		}
	}
}

func (r *Runner) tell(f Finding, mended bool) {
	if r.Tell != nil {
		r.Tell(f, mended)
	}
}

// Count is how many findings the last look had of each code.
func (r *Runner) Count() map[reason.Code]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count
}
