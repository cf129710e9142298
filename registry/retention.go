package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

// RetentionTask is the kind of the task that removes what a registry's
// retention policy says. Its body is a Retention. One that ends leaves the
// next, for as long as the policy is what it was made for.
const RetentionTask = "registry.retention"

// RetentionEvery is how long after one pass of a registry's policy the next
// begins.
const RetentionEvery = 15 * time.Minute

// Retention says whose policy it is, and which: since when it has been on.
type Retention struct {
	Registry string    `json:"registry"` // resource id
	UID      string    `json:"uid"`
	Since    time.Time `json:"since"`
	At       time.Time `json:"at"` // when this pass was due
}

const (
	pathRetention        = "properties.policies.retentionPolicy"
	pathRetentionStatus  = pathRetention + ".status"
	pathRetentionDays    = pathRetention + ".days"
	pathRetentionUpdated = pathRetention + ".lastUpdatedTime"
	// pathRetentionSince is when the policy was switched on: only what has
	// lost its tag since then is removed.
	pathRetentionSince = "cove.retentionSince"

	maxRetentionDays = 365
)

// retention checks the policy.
func (k *checker) retention(sku string) {
	status := k.word(pathRetentionStatus, "disabled", "enabled", "disabled")
	if status == "enabled" && sku != Premium && sku != "" {
		k.bad(pathRetentionStatus, "retention of untagged manifests is not supported for the SKU %s; it needs Premium", sku)
	}
	switch days, err := retentionDays(k.body); {
	case resource.Lookup(k.body, pathRetentionDays) == nil:
		resource.Assign(k.body, pathRetentionDays, json.Number("7"))
	case err != nil || days < 0 || days > maxRetentionDays:
		k.bad(pathRetentionDays, "must be a whole number from 0 to %d", maxRetentionDays)
	}
}

func retentionDays(body resource.Object) (int, error) {
	return strconv.Atoi(fmt.Sprint(resource.Lookup(body, pathRetentionDays)))
}

func retains(body resource.Object) bool {
	return resource.Lookup(body, pathRetentionStatus) == "enabled"
}

// putRetention notes when the policy was switched on, and has it obeyed.
func (c Config) putRetention(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	on, was, days := retains(ch.New.Body), false, any(nil)
	if ch.Old != nil {
		was, days = retains(ch.Old.Body), resource.Lookup(ch.Old.Body, pathRetentionDays)
	}
	if on != was || on && fmt.Sprint(days) != fmt.Sprint(resource.Lookup(ch.New.Body, pathRetentionDays)) {
		resource.Assign(ch.New.Body, pathRetentionUpdated, ch.Now.UTC().Format(time.RFC3339Nano))
	}
	if !on || was {
		return nil
	}
	since := ch.Now.UTC().Truncate(time.Microsecond)
	resource.Assign(ch.New.Body, pathRetentionSince, since.Format(time.RFC3339Nano))
	return enqueueRetention(ctx, tx, Retention{ch.New.ID.String(), ch.New.UID, since, since})
}

// enqueueRetention makes the task for a pass. Each pass has a key of its own:
// under the one of the pass that runs, it would be run again at once.
func enqueueRetention(ctx context.Context, tx resource.Tx, r Retention) error {
	body, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return tx.Enqueue(ctx, task.New{Kind: RetentionTask, Key: r.UID + "@" + r.At.UTC().Format(time.RFC3339Nano), Body: body, After: r.At})
}

// Retain does one pass of a registry's retention policy and leaves the next.
// purge removes what has been untagged since a time at or before another, and
// not earlier than the policy. A registry that is gone, or whose policy was
// switched off or on anew, ends it.
func Retain(ctx context.Context, st resource.Store, h *task.Held, now time.Time, purge func(ctx context.Context, doc resource.Doc, since, before time.Time) error) error {
	var r Retention
	if err := json.Unmarshal(h.Body, &r); err != nil {
		return err
	}
	id, err := arm.ParseID(r.Registry)
	if err != nil {
		return err
	}
	var doc resource.Doc
	err = st.View(ctx, func(tx resource.Reader) (err error) {
		doc, err = tx.Get(ctx, id)
		return err
	})
	switch {
	case errors.Is(err, resource.ErrUnknown), err == nil && !r.current(doc):
		return nil
	case err != nil:
		return err
	}
	days, err := retentionDays(doc.Body)
	if err != nil {
		return err
	}
	// The next pass is there before this one may fail. Its time is one of a
	// grid, so that a pass that is run twice leaves one next and not two.
	r.At = r.At.Add((max(now.Sub(r.At), 0)/RetentionEvery + 1) * RetentionEvery)
	if err := st.Update(ctx, func(tx resource.Tx) error { return enqueueRetention(ctx, tx, r) }); err != nil {
		return err
	}
	return purge(ctx, doc, r.Since, now.AddDate(0, 0, -days))
}

func (r Retention) current(doc resource.Doc) bool {
	since, _ := resource.Lookup(doc.Body, pathRetentionSince).(string)
	return doc.UID == r.UID && retains(doc.Body) && since == r.Since.UTC().Format(time.RFC3339Nano)
}
