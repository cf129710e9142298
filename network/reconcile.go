package network

import (
	"context"
	"slices"
	"sync"
	"time"
)

// reconciler is what there is to tell the overlay.
type reconciler struct {
	mu      sync.Mutex
	dirty   map[string]bool
	running bool          // Reconcile listens
	busy    bool          // it holds keys that it has not finished
	wake    chan struct{} // there is something in dirty
	idle    chan struct{} // closed when dirty is empty and nothing is busy
}

func (r *reconciler) init() {
	r.dirty, r.wake, r.idle = map[string]bool{}, make(chan struct{}, 1), make(chan struct{})
	close(r.idle)
}

func (r *reconciler) mark(keys map[string]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.running || len(keys) == 0 {
		return // Reconcile begins with every network there is
	}
	if len(r.dirty) == 0 && !r.busy {
		r.idle = make(chan struct{})
	}
	for k := range keys {
		r.dirty[k] = true
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// take hands out what is dirty; done must follow.
func (r *reconciler) take() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := r.dirty
	r.dirty, r.busy = map[string]bool{}, len(keys) > 0
	return keys
}

func (r *reconciler) done() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.busy {
		r.busy = false
		if len(r.dirty) == 0 {
			close(r.idle)
		}
	}
}

func (r *reconciler) listen(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = on
	if !on && len(r.dirty) > 0 {
		r.dirty = map[string]bool{}
		close(r.idle)
	}
}

// settle waits until the overlay has been told all that was marked before the
// call, whether it could do it or not.
func (r *reconciler) settle(ctx context.Context) {
	r.mu.Lock()
	idle := r.idle
	r.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
	}
}

// attempt is a network that the overlay could not make so.
type attempt struct {
	wait time.Duration
	next time.Time
}

// Reconcile makes overlay hold the networks that the map has, now and after
// each change, until ctx ends. What fails is tried again, later and later, and
// holds up no other network and no writer. One overlay is reconciled at a time.
func (m *Map) Reconcile(ctx context.Context, overlay Overlay) error {
	m.overlay.listen(true)
	defer m.overlay.listen(false)
	m.overlay.mark(setOf(m.Networks()))

	applied := map[string]Wanted{}
	failed := map[string]attempt{}
	for {
		keys := m.overlay.take()
		for key, a := range failed {
			if !time.Now().Before(a.next) {
				keys[key] = true
			}
		}
		for key := range keys {
			if err := m.reconcile(key, overlay, applied); err != nil {
				wait := retryAfter(failed[key].wait)
				failed[key] = attempt{wait, time.Now().Add(wait)}
				m.log.Error("the overlay of a virtual network could not be brought up to date; trying again", "network", key, "err", err, "in", wait)
			} else {
				delete(failed, key)
			}
		}
		m.overlay.done()
		if err := m.overlay.await(ctx, failed); err != nil {
			return err
		}
	}
}

func (m *Map) reconcile(key string, overlay Overlay, applied map[string]Wanted) error {
	w, ok := m.Wanted(key)
	if !ok {
		if err := overlay.Remove(key); err != nil {
			return err
		}
		delete(applied, key)
		return nil
	}
	if have, ok := applied[key]; ok && have.equal(w) {
		applied[key] = w // of two that are equal, the one that the next shares more with
		return nil
	}
	delete(applied, key) // what a failure leaves is unknown
	if err := overlay.Apply(w); err != nil {
		return err
	}
	applied[key] = w
	return nil
}

func (w Wanted) equal(o Wanted) bool {
	return w.Key == o.Key && w.PrivateKey == o.PrivateKey && slices.Equal(w.Prefixes, o.Prefixes) && slices.Equal(w.Resolvers, o.Resolvers) &&
		same(w.Addresses, o.Addresses) && same(w.Peers, o.Peers) && w.Filter.Equal(o.Filter)
}

// await returns when there is something to do.
func (r *reconciler) await(ctx context.Context, failed map[string]attempt) error {
	var due <-chan time.Time
	if len(failed) > 0 {
		first := time.Time{}
		for _, a := range failed {
			if first.IsZero() || a.next.Before(first) {
				first = a.next
			}
		}
		t := time.NewTimer(time.Until(first))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-r.wake:
	case <-due:
	}
	return nil
}

func setOf(keys []string) map[string]bool {
	s := map[string]bool{}
	for _, k := range keys {
		s[k] = true
	}
	return s
}

// retryAfter is the next wait after one: doubled, from a twentieth of a second
// to half a minute.
func retryAfter(last time.Duration) time.Duration {
	return min(max(50*time.Millisecond, 2*last), 30*time.Second)
}
