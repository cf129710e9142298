package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/task"
)

// The states of an operation, in ARM's words. Every state but Running is the
// last one.
const (
	Running   = "Running"
	Succeeded = "Succeeded"
	Failed    = "Failed"
	Canceled  = "Canceled"
)

// ErrOperationUnknown is the answer for an operation that does not exist, has
// expired, or is about a resource that the caller may not read.
var ErrOperationUnknown = fault.Coded(fault.NotFound, "OperationNotFound", "the operation was not found")

// ErrCanceled is returned by the handler of an operation whose purpose has
// gone, such as an import into a registry that has been deleted.
var ErrCanceled = fault.Coded(fault.Conflict, "OperationCanceled", "the operation was canceled")

// TaskExpireOperation is the kind of the task that ends an operation's life.
const TaskExpireOperation = "operation.expire"

// How long an operation may run, and how long what became of it can be asked
// for. Nothing that an operation does today takes hours; the bound is there so
// that none is Running for ever.
const (
	operationTime = 24 * time.Hour
	operationKept = 24 * time.Hour
	// operationTries are the attempts after which one has failed. An attempt
	// that a process took with it counts.
	operationTries = 5
)

// Long is an action that goes on after its answer. It refuses what cannot be
// done, in the request's transaction, and says what is left to do.
type Long func(ctx context.Context, tx Tx, doc Doc, by Caller, body Object) (Work, error)

// Work is what an operation has to do.
type Work struct {
	// Task is the kind of the task that does it; Operations.Handler makes its
	// handler.
	Task string
	// Request is the handler's own. It is never shown, and gone when the
	// operation ends: it may hold sealed credentials.
	Request Object
}

// Operation is work that goes on after the answer to the request that asked
// for it.
type Operation struct {
	ID      arm.ID // /subscriptions/{s}/providers/{namespace}/locations/{location}/operationStatuses/{name}
	On      arm.ID // the resource; who may read it may read the operation
	Status  string
	Percent int
	Started time.Time
	Ended   time.Time // zero while it is running
	Detail  Object    // how far it has come, and what came of it; nil is nothing to say
	Code    string    // of its failure, in ARM's words
	Message string

	request Object
	attempt int64
}

// Show is the body of an answer about it.
func (o Operation) Show() Object {
	body := Object{
		"id": o.ID.String(), "name": o.ID.Name(), "resourceId": o.On.String(), "status": o.Status,
		"percentComplete": o.Percent, "startTime": o.Started.UTC().Format(time.RFC3339Nano),
	}
	if !o.Ended.IsZero() {
		body["endTime"] = o.Ended.UTC().Format(time.RFC3339Nano)
	}
	if o.Detail != nil {
		body["properties"] = o.Detail
	}
	if o.Code != "" {
		body["error"] = Object{"code": o.Code, "message": o.Message}
	}
	return body
}

// An operation is a document without a type, so that no caller can reach it
// but through its own routes. It does not lie below its resource, which may be
// deleted before anybody asks.

// OperationID is where the operation of that name lies.
func OperationID(subscription, namespace, location, name string) (arm.ID, error) {
	return arm.ParseID("/subscriptions/" + subscription + "/providers/" + namespace + "/locations/" + location + "/operationStatuses/" + name)
}

func (o Operation) doc() Doc {
	body := Object{
		"on": o.On.String(), "status": o.Status, "percent": o.Percent, "attempt": o.attempt,
		"started": o.Started.UTC().Format(time.RFC3339Nano),
	}
	if !o.Ended.IsZero() {
		body["ended"] = o.Ended.UTC().Format(time.RFC3339Nano)
	}
	if o.Detail != nil {
		body["detail"] = o.Detail
	}
	if o.Code != "" {
		body["code"], body["message"] = o.Code, o.Message
	}
	if o.request != nil {
		body["request"] = o.request
	}
	return Doc{ID: o.ID, Body: body}
}

func operation(doc Doc) (o Operation, err error) {
	text := func(name string) string { s, _ := doc.Body[name].(string); return s }
	number := func(name string) int64 {
		n, _ := doc.Body[name].(json.Number)
		i, _ := n.Int64()
		return i
	}
	o = Operation{ID: doc.ID, Status: text("status"), Percent: int(number("percent")), Code: text("code"), Message: text("message"), attempt: number("attempt")}
	o.Detail, _ = doc.Body["detail"].(Object)
	o.request, _ = doc.Body["request"].(Object)
	if o.On, err = arm.ParseID(text("on")); err != nil {
		return o, err
	}
	if o.Started, err = time.Parse(time.RFC3339Nano, text("started")); err != nil {
		return o, err
	}
	if ended := text("ended"); ended != "" {
		o.Ended, err = time.Parse(time.RFC3339Nano, ended)
	}
	return o, err
}

// start makes the operation, its task and the end of its life in the
// transaction of the request.
func (s *Service) start(ctx context.Context, tx Tx, name string, doc Doc, w Work) (Operation, error) {
	where, _ := doc.Body["location"].(string)
	if where == "" {
		where = s.locations[0]
	}
	namespace, _, _ := strings.Cut(s.Canonical(doc.ID.Type()), "/")
	id, err := OperationID(doc.ID.Subscription(), namespace, where, name)
	if err != nil {
		return Operation{}, err
	}
	o := Operation{ID: id, On: doc.ID, Status: Running, Started: s.now(), request: w.Request}
	stored := o.doc()
	if err := tx.Put(ctx, &stored); err != nil {
		return o, err
	}
	body, err := json.Marshal(id.String())
	if err != nil {
		return o, err
	}
	if err := tx.Enqueue(ctx, task.New{Kind: w.Task, Key: id.Key(), Body: body}); err != nil {
		return o, err
	}
	return o, tx.Enqueue(ctx, task.New{
		Kind: TaskExpireOperation, Key: id.Key(), Body: body, After: o.Started.Add(operationTime + operationKept),
	})
}

// Operation returns an operation. It does not ask whether its resource may be
// read.
func (s *Service) Operation(ctx context.Context, id arm.ID) (o Operation, err error) {
	err = s.store.View(ctx, func(r Reader) error {
		doc, err := r.Get(ctx, id)
		if errors.Is(err, ErrUnknown) {
			return ErrOperationUnknown
		}
		if err != nil {
			return err
		}
		o, err = operation(doc)
		return err
	})
	if err == nil && !o.Ended.IsZero() && s.now().Sub(o.Ended) > operationKept {
		return Operation{}, ErrOperationUnknown
	}
	return o, err
}

// Operations does the work of operations.
type Operations struct {
	Store Store
	Now   func() time.Time // nil is time.Now
	Log   *slog.Logger     // gets the causes of failures, which callers are not told; nil is none
}

func (p Operations) now() time.Time {
	if p.Now == nil {
		return time.Now()
	}
	return p.Now()
}

// progressEvery is how often progress is written: each time is a commit.
const progressEvery = time.Second

// Progress is an attempt at an operation, in its handler's hands. Its methods
// fail with task.ErrFenced when another attempt has begun.
type Progress struct {
	Operation Operation
	Request   Object
	Held      *task.Held

	p    Operations
	said time.Time
}

// Say tells whoever asks how far the operation has come: percent of 100, and
// detail. It is cheap to call: at most one call in a second is written, and
// a write that fails is made up for by the next.
func (p *Progress) Say(ctx context.Context, percent int, detail Object) {
	now := p.p.now()
	if now.Sub(p.said) < progressEvery {
		return
	}
	p.said = now
	_, _ = p.p.change(ctx, p.Operation.ID, p.Operation.attempt, func(o *Operation) {
		o.Percent, o.Detail = max(o.Percent, min(percent, 99)), detail
	}) // the end of the operation is what must be written
}

// change edits an operation that is running in this attempt. It reports false
// for one that has ended or is gone, and fails with task.ErrFenced when a later
// attempt has it.
func (p Operations) change(ctx context.Context, id arm.ID, attempt int64, edit func(*Operation)) (running bool, err error) {
	err = p.Store.Update(ctx, func(tx Tx) error {
		running = false
		doc, err := tx.Get(ctx, id)
		if errors.Is(err, ErrUnknown) {
			return nil
		}
		if err != nil {
			return err
		}
		o, err := operation(doc)
		if err != nil {
			return err
		}
		switch {
		case o.Status != Running:
			return nil
		case o.attempt > attempt:
			return task.ErrFenced
		}
		running = true
		o.attempt = attempt
		edit(&o)
		stored := o.doc()
		return tx.Put(ctx, &stored)
	})
	return running, err
}

// Handler makes the handler of a kind of task from a function that does the
// work. What the function returns ends the operation: a result, which may be
// nil, or a failure in the words of its public sentence. A failure of kind
// Internal, Unavailable or Throttled is tried again a few times first. The
// function may be called again for what it has done already, and must then
// come to the same end.
func (p Operations) Handler(do func(ctx context.Context, p *Progress) (Object, error)) task.Handler {
	return func(ctx context.Context, h *task.Held) error {
		id, err := operationOf(h)
		if err != nil {
			return err
		}
		progress := &Progress{Held: h, p: p, said: p.now()}
		running, err := p.change(ctx, id, int64(h.Attempt), func(o *Operation) { progress.Operation = *o })
		if err != nil || !running {
			return err
		}
		progress.Request = progress.Operation.request
		if h.Tries > operationTries {
			// Earlier attempts ended with their process, and perhaps ended it.
			return p.end(ctx, progress, nil, errors.New("no attempt came to an end"))
		}
		ends := progress.Operation.Started.Add(operationTime)
		work, cancel := context.WithTimeout(ctx, ends.Sub(p.now()))
		defer cancel()
		result, err := do(work, progress)
		switch {
		case ctx.Err() != nil, errors.Is(err, task.ErrFenced):
			return err // the runner stops or has lost the task: another attempt goes on
		case work.Err() != nil && err != nil:
			err = fault.Coded(fault.Conflict, "OperationTimedOut", fmt.Sprintf("the operation took longer than %v", operationTime)).Because(err)
		case err != nil && h.Tries < operationTries && transient(err):
			return err
		}
		return p.end(ctx, progress, result, err)
	}
}

func operationOf(h *task.Held) (arm.ID, error) {
	var text string
	if err := json.Unmarshal(h.Body, &text); err != nil {
		return arm.ID{}, fault.New(fault.Invalid, "the task names no operation").Because(err)
	}
	return arm.ParseID(text)
}

func transient(err error) bool {
	kind, _ := fault.Of(err)
	return kind == fault.Internal || kind == fault.Unavailable || kind == fault.Throttled
}

// Final makes an error of a transient kind end its operation at once.
func Final(err error) error {
	e := arm.Describe(err).Error
	return fault.Coded(fault.Conflict, e.Code, e.Message).Because(err)
}

func (p Operations) end(ctx context.Context, progress *Progress, result Object, failure error) error {
	if failure != nil && p.Log != nil {
		p.Log.Warn("an operation failed", "operation", progress.Operation.ID.Name(), "on", progress.Operation.On.String(), "err", failure)
	}
	_, err := p.change(ctx, progress.Operation.ID, progress.Operation.attempt, func(o *Operation) {
		o.Ended, o.request = p.now(), nil
		switch {
		case failure == nil:
			o.Status, o.Percent, o.Detail = Succeeded, 100, result
			return
		case errors.Is(failure, ErrCanceled):
			o.Status = Canceled
		default:
			o.Status = Failed
		}
		e := arm.Describe(failure).Error
		o.Code, o.Message = e.Code, e.Message
	})
	return err
}

// Expire is the handler of TaskExpireOperation. One that is still running by
// then has lost its task, and goes too.
func (p Operations) Expire(ctx context.Context, h *task.Held) error {
	id, err := operationOf(h)
	if err != nil {
		return err
	}
	return p.Store.Update(ctx, func(tx Tx) error { return tx.Delete(ctx, id) })
}
