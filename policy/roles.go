package policy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// Roles answers which assignments count for a principal at a scope. While Run
// follows the store it answers from memory; before that, and whenever
// following fails, it asks the store each time: a cache never knows better.
type Roles struct {
	// Groups says which groups a principal is in, whose roles are its roles
	// too; nil is none. It is asked at every decision and must be quick. Set it
	// before the first question.
	Groups func(ctx context.Context, principal string) ([]string, error)

	docs resource.Store

	// applying is held over reading documents and putting what was read in
	// place, so that an older reading never overwrites a newer one.
	applying sync.Mutex

	mu       sync.RWMutex
	running  bool
	live     bool
	commits  uint64
	pending  map[string]commit                 // of this process, not yet applied; by the key of the id
	by       map[string]map[string]*Assignment // principal → key of the id
	owner    map[string]string                 // key of the id → principal
	compiled map[question]compiled
}

// commit is a change of this process; n tells it from a later one of the same
// document.
type commit struct {
	id arm.ID
	n  uint64
}

// question is comparable without a new string: the scope is as it was
// spelled, and another spelling of it is merely another entry.
type question struct{ principal, scope string }

// compiled is an answer, and the groups that it was made for: when those have
// changed it is no answer any more.
type compiled struct {
	groups []string
	found  []*Assignment
}

// maxCompiled bounds the compiled answers; past it they are all forgotten.
const maxCompiled = 8192

// NewRoles returns Roles over the assignments in docs.
func NewRoles(docs resource.Store) *Roles {
	r := &Roles{docs: docs, pending: map[string]commit{}}
	r.reset(nil)
	docs.OnCommit(r.committed)
	return r
}

// committed notes this process's own changes, so that whoever has waited for
// the answer to a PUT finds it obeyed.
func (r *Roles) committed(ids []arm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if r.running && strings.EqualFold(id.Type(), TypeAssignments) {
			r.commits++
			r.pending[id.Key()] = commit{id, r.commits}
		}
	}
}

// Run keeps the assignments in memory, current, until ctx ends.
func (r *Roles) Run(ctx context.Context) error {
	r.run(true)
	defer r.run(false)
	for {
		follow, stop := context.WithCancel(ctx)
		err := r.docs.Follow(follow, func(ids []arm.ID) {
			if r.apply(follow, ids) != nil {
				r.reset(nil)
				stop() // begin again: the next first call reads everything
			}
		})
		stop()
		r.reset(nil)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		slog.WarnContext(ctx, "role assignments are read from the store each time until it can be followed again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Live reports whether the answers come from memory.
func (r *Roles) Live() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.live
}

// At returns the assignments of the principal and of its groups at the scope
// and above it. The caller does not change what it gets.
func (r *Roles) At(ctx context.Context, principal string, scope arm.ID) ([]*Assignment, error) {
	var groups []string
	if r.Groups != nil {
		var err error
		if groups, err = r.Groups(ctx, principal); err != nil {
			return nil, err
		}
	}
	q := question{principal, scope.String()}
	r.mu.RLock()
	live, behind := r.live, len(r.pending) > 0
	known, ok := r.compiled[q]
	r.mu.RUnlock()
	ok = ok && slices.Equal(known.groups, groups)
	if live && behind {
		if err := r.catchUp(ctx); err != nil {
			return nil, err
		}
		ok = false
	}
	if live && ok {
		return known.found, nil
	}
	if live {
		if found, ok := r.compile(q, groups, scope); ok {
			return found, nil
		}
	}
	all, err := r.load(ctx)
	if err != nil {
		return nil, err
	}
	return applying(all, principal, groups, scope), nil
}

// May decides for a principal with the assignments of now.
func (r *Roles) May(ctx context.Context, principal, action string, scope arm.ID) (Decision, error) {
	as, err := r.At(ctx, principal, scope)
	if err != nil {
		return Decision{}, err
	}
	return Decide(as, action, scope), nil
}

func (r *Roles) compile(q question, groups []string, scope arm.ID) ([]*Assignment, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.live {
		return nil, false
	}
	found := applying(r.by, q.principal, groups, scope)
	if len(r.compiled) >= maxCompiled {
		clear(r.compiled)
	}
	r.compiled[q] = compiled{groups, found}
	return found, true
}

func applying(by map[string]map[string]*Assignment, principal string, groups []string, scope arm.ID) []*Assignment {
	var out []*Assignment
	take := func(holder string) {
		for _, a := range by[holder] {
			if within(scope, a.Scope) {
				out = append(out, a)
			}
		}
	}
	take(strings.ToLower(principal))
	for _, g := range groups {
		take(g)
	}
	// The nearest scope first, so that the reason given is the same each time.
	slices.SortFunc(out, func(a, b *Assignment) int {
		return cmp.Or(cmp.Compare(len(b.Scope.String()), len(a.Scope.String())), cmp.Compare(a.ID.Key(), b.ID.Key()))
	})
	return out
}

func (r *Roles) run(on bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running = on
	clear(r.pending)
}

// catchUp applies what this process has committed.
func (r *Roles) catchUp(ctx context.Context) error {
	r.mu.RLock()
	var ids []arm.ID
	for _, c := range r.pending {
		ids = append(ids, c.id)
	}
	r.mu.RUnlock()
	if len(ids) == 0 {
		return nil
	}
	return r.apply(ctx, ids)
}

// apply brings the index up to date: with everything for no ids, else with
// those documents that are assignments. A commit stays pending, and At waits
// here, until a reading that began after it is in place.
func (r *Roles) apply(ctx context.Context, ids []arm.ID) error {
	r.applying.Lock()
	defer r.applying.Unlock()
	r.mu.RLock()
	whole := len(ids) == 0 || !r.live
	before := r.commits
	r.mu.RUnlock()
	if whole {
		all, err := r.load(ctx)
		if err == nil {
			r.reset(all)
			r.applied(before, nil)
		}
		return err
	}
	changed, err := r.read(ctx, ids)
	if err != nil {
		return err
	}
	r.mu.Lock()
	for key, a := range changed {
		delete(r.by[r.owner[key]], key)
		delete(r.owner, key)
		if a != nil {
			r.insert(key, a)
		}
	}
	if len(changed) > 0 {
		clear(r.compiled)
	}
	r.mu.Unlock()
	r.applied(before, changed)
	return nil
}

// applied takes away the commits up to a number that are now in place: all,
// or those of the documents in these.
func (r *Roles) applied(upTo uint64, these map[string]*Assignment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, c := range r.pending {
		if _, ok := these[key]; c.n <= upTo && (ok || these == nil) {
			delete(r.pending, key)
		}
	}
}

// read returns the assignments among ids by key, nil for one that is gone.
func (r *Roles) read(ctx context.Context, ids []arm.ID) (map[string]*Assignment, error) {
	var changed map[string]*Assignment
	err := r.docs.View(ctx, func(rd resource.Reader) error {
		changed = map[string]*Assignment{}
		for _, id := range ids {
			if !strings.EqualFold(id.Type(), TypeAssignments) {
				continue
			}
			doc, err := rd.Get(ctx, id)
			switch {
			case errors.Is(err, resource.ErrUnknown):
				changed[id.Key()] = nil
			case err != nil:
				return err
			default:
				a, _ := FromDoc(doc) // nil for a malformed one, which grants nothing
				changed[id.Key()] = a
			}
		}
		return nil
	})
	return changed, err
}

func (r *Roles) insert(key string, a *Assignment) {
	if r.by[a.Principal] == nil {
		r.by[a.Principal] = map[string]*Assignment{}
	}
	r.by[a.Principal][key] = a
	r.owner[key] = a.Principal
}

// reset puts all in place of what was known; nil switches the memory off.
func (r *Roles) reset(all map[string]map[string]*Assignment) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live = all != nil
	r.by, r.owner, r.compiled = map[string]map[string]*Assignment{}, map[string]string{}, map[question]compiled{}
	for _, own := range all {
		for key, a := range own {
			r.insert(key, a)
		}
	}
}

// load reads all assignments, a page at a time.
func (r *Roles) load(ctx context.Context) (map[string]map[string]*Assignment, error) {
	const page = 1000
	var all map[string]map[string]*Assignment
	err := r.docs.View(ctx, func(rd resource.Reader) error {
		all = map[string]map[string]*Assignment{}
		for after := ""; ; {
			docs, err := rd.List(ctx, resource.Query{Type: TypeAssignments, After: after, Limit: page})
			if err != nil {
				return err
			}
			for _, doc := range docs {
				after = doc.ID.Key()
				a, err := FromDoc(doc)
				if err != nil {
					continue // grants nothing
				}
				if all[a.Principal] == nil {
					all[a.Principal] = map[string]*Assignment{}
				}
				all[a.Principal][after] = a
			}
			if len(docs) < page {
				return nil
			}
		}
	})
	return all, err
}
