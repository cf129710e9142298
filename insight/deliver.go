package insight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

// Delivery sends events to sinks. Each setting with a sink is a task that
// lives as long as it does, so of several nodes one sends for it, and another
// goes on where that one was when it dies. Where it was is saved after the
// sink has said that it has the events: after a crash some come again, and
// none is left out. An event's DecisionId tells it from others.
type Delivery struct {
	Config
	Store resource.Store
	Feed  audit.Feed
	Now   func() time.Time
	Log   *slog.Logger
	// Patience is how long a webhook may take; 0 is 20 s.
	Patience time.Duration

	sent, failed, lost atomic.Int64
	files              files
}

// How delivery goes on.
const (
	batch      = 500
	pace       = time.Second // between batches that were not full
	poll       = 3 * time.Second
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	saveEvery  = time.Minute // where it is, while there is nothing to send
)

// Sent is how many events sinks have taken, Failed how many attempts they have
// not, and Lost how many events were deleted, for their age, before a sink
// took them. All are since the start.
func (d *Delivery) Sent() int64 { return d.sent.Load() }

// Failed is described at Sent.
func (d *Delivery) Failed() int64 { return d.failed.Load() }

// Lost is described at Sent.
func (d *Delivery) Lost() int64 { return d.lost.Load() }

// Record is one event as a sink gets it: the columns of its table.
type Record = map[string]any

// Notice is the record that a sink gets where events were deleted before it
// took them.
func notice(g audit.Gap, now time.Time) Record {
	return Record{
		"Type": "CoveNotice", "TimeGenerated": now.UTC().Format(time.RFC3339Nano), "Count": g.Count,
		"Message": fmt.Sprintf("up to %d events of %s were deleted for their age before this sink took them", g.Count, g.Day),
	}
}

// Do is the handler of TaskDeliver.
func (d *Delivery) Do(ctx context.Context, h *task.Held) error {
	var body deliverBody
	if err := json.Unmarshal(h.Body, &body); err != nil {
		return err
	}
	run := &delivery{d: d, keep: h.Save, body: body}
	if len(h.State) > 0 {
		if err := json.Unmarshal(h.State, &run.cursor); err != nil {
			return err
		}
	}
	for retry := firstRetry; ; {
		more := d.Feed.More()
		full, err := run.pass(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case fault.Is(err, fault.NotFound):
			return nil // the setting or its sink has gone
		case errors.Is(err, task.ErrFenced):
			return err
		case err != nil:
			d.failed.Add(1)
			d.Log.Warn("events could not be sent to a sink; they wait", "setting", body.ID, "err", err, "retry", retry)
			sleep(ctx, nil, retry/2+rand.N(retry/2))
			retry = min(2*retry, lastRetry)
		default:
			retry = firstRetry
			if !full {
				sleep(ctx, nil, pace)
				sleep(ctx, more, poll)
			}
		}
	}
}

// sleep returns after t, when the channel is closed, or when ctx ends.
func sleep(ctx context.Context, until <-chan struct{}, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-until:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// delivery is one setting's.
type delivery struct {
	d      *Delivery
	keep   func(context.Context, json.RawMessage) error
	body   deliverBody
	cursor audit.Cursor
	saved  time.Time
}

// pass sends what there is, at most a batch, and reports whether there is
// more.
func (r *delivery) pass(ctx context.Context) (full bool, err error) {
	set, sink, err := r.d.find(ctx, r.body)
	if err != nil {
		return false, err
	}
	q := audit.Query{Within: []string{set.registry.Key()}, From: set.since}
	if len(set.tables) == 1 {
		q.Table = set.tables[0]
	}
	events, next, gaps, err := r.d.Feed.After(ctx, r.cursor, q, batch)
	if err != nil {
		return false, err
	}
	now := r.d.Now()
	var records []Record
	for _, g := range gaps {
		records = append(records, notice(g, now))
	}
	for i := range events {
		if events[i].Table != audit.AdministrativeEvents { // no category has these
			records = append(records, audit.Columns(&events[i]))
		}
	}
	if len(records) == 0 {
		r.cursor = next
		if now.Sub(r.saved) >= saveEvery {
			return false, r.save(ctx, now)
		}
		return false, nil
	}
	if err := r.d.send(ctx, sink, records); err != nil {
		// How much there is to lose is known when it is lost.
		if r.cursor.Kept == nil {
			r.cursor.Kept = map[string]int64{}
		}
		maps.Copy(r.cursor.Kept, next.Kept)
		if r.cursor.Day == "" {
			r.cursor.Day = set.since.UTC().Format(time.DateOnly)
		}
		if now.Sub(r.saved) >= saveEvery {
			_ = r.save(ctx, now) // the failure to send is told
		}
		return false, err
	}
	r.cursor = next
	if err := r.save(ctx, now); err != nil {
		return false, err
	}
	r.d.sent.Add(int64(len(events)))
	for _, g := range gaps {
		r.d.lost.Add(g.Count)
		r.d.Log.Error("events were deleted before a sink took them", "setting", r.body.ID, "day", g.Day, "most", g.Count)
	}
	return len(events) == batch, nil
}

func (r *delivery) save(ctx context.Context, now time.Time) error {
	state, err := json.Marshal(r.cursor)
	if err != nil {
		return err
	}
	r.saved = now
	return r.keep(ctx, state)
}

// find reads the setting and its sink as they are now. NotFound: it no longer
// sends.
func (d *Delivery) find(ctx context.Context, body deliverBody) (setting, resource.Doc, error) {
	var set setting
	var sink resource.Doc
	gone := fault.Newf(fault.NotFound, "the setting does not send to a sink")
	id, err := arm.ParseID(body.ID)
	if err != nil {
		return set, sink, err
	}
	err = d.Store.View(ctx, func(r resource.Reader) error {
		doc, err := r.Get(ctx, id)
		if err != nil {
			return err
		}
		var wrong []fault.Field
		if set, wrong = parseSetting(doc); len(wrong) > 0 || doc.UID != body.UID || set.sink == "" {
			return gone
		}
		at, err := arm.ParseID(set.sink)
		if err != nil {
			return gone
		}
		sink, err = r.Get(ctx, at)
		return err
	})
	return set, sink, err
}

func (d *Delivery) send(ctx context.Context, sink resource.Doc, records []Record) error {
	if strings.EqualFold(text(sink.Body, "properties.kind"), kindFile) {
		deleted, err := d.files.write(d.Folder, sink, records)
		if deleted > 0 {
			d.Log.Warn("the oldest events of a sink were deleted to make room: it keeps no more files", "sink", sink.ID.Name(), "files", deleted)
		}
		return err
	}
	return d.post(ctx, sink, records)
}
