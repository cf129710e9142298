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
)

// New is work that a transaction wants done.
type New struct {
	Kind  string          // names the handler
	Key   string          // at most one unfinished task of a kind and key; "" is never equal
	Body  json.RawMessage // the handler's own
	After time.Time       // not before; zero is at once
}

// Task is work that a runner holds.
type Task struct {
	ID      int64
	Kind    string
	Key     string
	Body    json.RawMessage
	Attempt int // the fence: completing with an older attempt fails
	State   json.RawMessage
	Created time.Time
}

// Queue is where tasks are kept; store implements it.
type Queue interface {
	// Claim takes up to n tasks that are due, leased until now+lease.
	Claim(ctx context.Context, kinds []string, n int, now time.Time, lease time.Duration) ([]Task, error)
	// Extend prolongs a lease and keeps progress. It fails with ErrFenced
	// when another attempt has begun.
	Extend(ctx context.Context, t Task, now time.Time, lease time.Duration, state json.RawMessage) error
	// Done ends the task. It fails with ErrFenced as Extend does.
	Done(ctx context.Context, t Task, now time.Time) error
	// Fail ends the attempt; the task is due again at retry, or is set aside
	// for the operator to see when retry is zero.
	Fail(ctx context.Context, t Task, now, retry time.Time, why string) error
}
