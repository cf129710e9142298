package resource

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	"cove.example/cove/arm"
)

// Mirror keeps what is held in memory as the store has it: everything is read
// once, then only what a change concerns.
//
// A change that another node commits is obeyed when Store.Follow tells of it.
// One of this process is obeyed before its writer is answered, if the writer's
// store is Obeyed(store). Whoever looks at what is held never waits for either.
type Mirror struct {
	of    Mirrored
	store Store
	log   *slog.Logger

	mu      sync.Mutex // guards pending and stale: what has changed and was not read
	pending map[string]arm.ID
	stale   bool // read everything
	wake    chan struct{}

	// Held while documents are read and put in place, so that an older
	// reading never replaces a newer one.
	reading sync.Mutex
}

// Mirrored is what a Mirror holds in memory.
type Mirrored struct {
	Name string // for the log: "networks"
	// Concerns is the document to read again when id has changed, or the zero
	// ID where nothing of it is held. It is called at every commit, so it must
	// be quick and do no I/O.
	Concerns func(id arm.ID) arm.ID
	// Read reads the documents of ids, by their keys, some of which may be
	// gone, or everything there is, and returns what puts them in place. It
	// may be run again before that is called. No two run at once.
	Read func(ctx context.Context, r Reader, ids map[string]arm.ID, all bool) (install func(), err error)
}

const (
	// obeyWait is how long the writer of a change waits for it to be obeyed.
	// The change is durable by then and Run goes on trying, so nothing is lost
	// with the wait.
	obeyWait    = 5 * time.Second
	firstRetry  = 50 * time.Millisecond
	lastRetry   = 10 * time.Second
	followAgain = time.Second
)

// NewMirror returns a mirror that holds nothing until Load or Run. It tells
// store that it wants to hear of commits.
func NewMirror(store Store, of Mirrored, log *slog.Logger) *Mirror {
	m := &Mirror{of: of, store: store, log: log, pending: map[string]arm.ID{}, wake: make(chan struct{}, 1)}
	store.OnCommit(m.note)
	return m
}

// Load reads everything.
func (m *Mirror) Load(ctx context.Context) error {
	m.noteAll()
	return m.catchUp(ctx)
}

// Run follows the store until ctx ends. While the store cannot be read, what
// is held stays what it was, and reading is tried again.
func (m *Mirror) Run(ctx context.Context) error {
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { m.follow(ctx) })
	for wait := firstRetry; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-m.wake:
		}
		if err := m.catchUp(ctx); err != nil && ctx.Err() == nil {
			m.log.Error(m.of.Name+" could not be read; trying again", "err", err, "in", wait)
			pause(ctx, wait)
			wait = min(2*wait, lastRetry)
			m.ring()
			continue
		}
		wait = firstRetry
	}
}

func (m *Mirror) follow(ctx context.Context) {
	for ctx.Err() == nil {
		err := m.store.Follow(ctx, func(ids []arm.ID) {
			if len(ids) == 0 {
				m.noteAll()
			}
			m.note(ids)
		})
		if ctx.Err() == nil {
			m.log.Error("following the store of "+m.of.Name+" stopped; trying again", "err", err)
			pause(ctx, followAgain)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (m *Mirror) note(ids []arm.ID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		if at := m.of.Concerns(id); !at.IsZero() {
			m.pending[at.Key()] = at
			m.ring()
		}
	}
}

func (m *Mirror) noteAll() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale = true
	m.ring()
}

func (m *Mirror) ring() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// catchUp returns when everything that was noted before the call is in place.
// Whoever comes while another reads waits for it, and finds as a rule that it
// is done.
func (m *Mirror) catchUp(ctx context.Context) error {
	m.reading.Lock()
	defer m.reading.Unlock()

	m.mu.Lock()
	ids, all := m.pending, m.stale
	m.pending, m.stale = map[string]arm.ID{}, false
	m.mu.Unlock()
	if len(ids) == 0 && !all {
		return nil
	}
	var install func()
	err := m.store.View(ctx, func(r Reader) (err error) {
		install, err = m.of.Read(ctx, r, ids, all)
		return err
	})
	if err != nil {
		m.mu.Lock()
		defer m.mu.Unlock()
		maps.Copy(m.pending, ids)
		m.stale = m.stale || all
		return err
	}
	install()
	return nil
}

// Obeyed is store, but an Update of it returns only when what is held has what
// it committed, if that is soon.
func (m *Mirror) Obeyed(store Store) Store { return obeyed{store, m} }

type obeyed struct {
	Store
	m *Mirror
}

func (o obeyed) Update(ctx context.Context, fn func(Tx) error) error {
	if err := o.Store.Update(ctx, fn); err != nil {
		return err
	}
	// The caller may have gone; the change has not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), obeyWait)
	defer cancel()
	if err := o.m.catchUp(ctx); err != nil {
		o.m.log.Error(o.m.of.Name+" could not be read after a change; trying again", "err", err)
		o.m.ring()
	}
	return nil
}
