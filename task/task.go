// Package task is durable work: what must happen after a transaction, does,
// once its row is committed, however often the process dies meanwhile.
//
// A task is enqueued in the transaction that wants it. A runner takes it with
// a lease and an attempt number; only the holder of the newest attempt may
// complete it, so a runner that was slow, not dead, cannot finish for another.
// A handler may run more than once and must reach the same state each time.
package task

import (
	"context"
	"encoding/json"
	"time"

	"cove.example/cove/fault"
)

// ErrFenced means that the caller no longer holds the task: its lease ran out
// and another attempt has begun, or the task has ended.
var ErrFenced = fault.New(fault.Conflict, "the task is held by another attempt")

// New is work that a transaction wants done.
//
// To enqueue a Kind and Key that are unfinished changes nothing about the task
// that is there, its Body included, except that a task which a runner holds at
// that moment is run once more: its handler may have read what the transaction
// is about to change. What differs from one time to the next therefore belongs
// in the database, not in Body.
type New struct {
	Kind  string          // names the handler
	Key   string          // at most one unfinished task of a kind and key; "" is never equal
	Body  json.RawMessage // the handler's own; nil is null
	After time.Time       // not before; zero is at once
}

// Task is work that a runner holds.
type Task struct {
	ID      int64
	Kind    string
	Key     string
	Body    json.RawMessage
	Attempt int             // the fence: completing with an older attempt fails
	Tries   int             // attempts that count, this one included: those given back by Release do not
	State   json.RawMessage // what the last attempt saved with Extend; nil at first
	Created time.Time
}

// Dead is a task that was set aside.
type Dead struct {
	Task
	Since time.Time
	Why   string
}

// Queue is where tasks are kept; store implements it. A task that is done is
// gone.
type Queue interface {
	// Claim takes up to n tasks that are due, leased until now+lease, the one
	// due longest first.
	Claim(ctx context.Context, kinds []string, n int, now time.Time, lease time.Duration) ([]Task, error)
	// Extend prolongs a lease and keeps progress, unless state is nil. It
	// fails with ErrFenced when another attempt has begun.
	Extend(ctx context.Context, t Task, now time.Time, lease time.Duration, state json.RawMessage) error
	// Done ends the task. It fails with ErrFenced as Extend does.
	Done(ctx context.Context, t Task, now time.Time) error
	// Fail ends the attempt; the task is due again at retry, or is set aside
	// for the operator to see when retry is zero. It fails with ErrFenced as
	// Extend does.
	Fail(ctx context.Context, t Task, now, retry time.Time, why string) error
	// Release gives the task back untried, due at once, because the runner
	// stops. It fails with ErrFenced as Extend does.
	Release(ctx context.Context, t Task, now time.Time) error
	// Enqueued returns a channel that is closed when a task has next been
	// enqueued on this node. Take it before Claim, so that none is missed.
	Enqueued() <-chan struct{}
}
