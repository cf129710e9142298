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
	"cove.example/cove/condition"
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
	// Now is what conditions compare with; nil is time.Now. Set it before the
	// first question.
	Now func() time.Time

	docs resource.Store

	// applying is held over reading documents and putting what was read in
	// place, so that an older reading never overwrites a newer one.
	applying sync.Mutex

	mu       sync.RWMutex
	running  bool
	live     bool
	commits  uint64
	pending  map[string]commit // of this process, not yet applied; by the key of the id
	owner    map[string]string // key of an assignment's id → principal
	compiled map[question]compiled
	known
}

// known is what the store says.
type known struct {
	by     map[string]map[string]*Assignment // principal → key of the id
	custom map[string]*Role                  // GUID, lower case
}

func nothing() *known {
	return &known{map[string]map[string]*Assignment{}, map[string]*Role{}}
}

func (k *known) add(key string, a *Assignment) {
	if k.by[a.Principal] == nil {
		k.by[a.Principal] = map[string]*Assignment{}
	}
	k.by[a.Principal][key] = a
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

func ours(id arm.ID) bool {
	return strings.EqualFold(id.Type(), TypeAssignments) || strings.EqualFold(id.Type(), TypeDefinitions)
}

// committed notes this process's own changes, so that whoever has waited for
// the answer to a PUT finds it obeyed.
func (r *Roles) committed(ids []arm.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if r.running && ours(id) {
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

// Load reads everything once, for documents that do not change: those of a
// moment. Nobody calls Run then.
func (r *Roles) Load(ctx context.Context) error { return r.apply(ctx, nil) }

// Holders are the assignments that count at a scope, whoever holds them.
func (r *Roles) Holders(scope arm.ID) []*Assignment {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*Assignment
	for principal := range r.by {
		out = append(out, r.counting(principal, nil, scope)...)
	}
	slices.SortFunc(out, func(a, b *Assignment) int { return cmp.Compare(a.ID.Key(), b.ID.Key()) })
	return out
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
	answer, ok := r.compiled[q]
	r.mu.RUnlock()
	ok = ok && slices.Equal(answer.groups, groups)
	if live && behind {
		if err := r.catchUp(ctx); err != nil {
			return nil, err
		}
		ok = false
	}
	if live && ok {
		return answer.found, nil
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
	return all.counting(principal, groups, scope), nil
}

// May decides for a principal about an action, with the assignments of now.
func (r *Roles) May(ctx context.Context, principal, action string, scope arm.ID) (Decision, error) {
	return r.ask(ctx, principal, Question{Request: condition.Request{Action: action}, Scope: scope})
}

// MayData decides about a data action on a repository of the registry that
// scope is, for a request that came by way of the control plane: it has no
// private link of the registry's.
func (r *Roles) MayData(ctx context.Context, principal, action string, scope arm.ID, repository string) (Decision, error) {
	return r.ask(ctx, principal, Question{Request: condition.Request{Action: action, Repository: repository}, Scope: scope, Data: true})
}

func (r *Roles) ask(ctx context.Context, principal string, q Question) (Decision, error) {
	as, err := r.At(ctx, principal, q.Scope)
	if err != nil {
		return Decision{}, err
	}
	q.Now = time.Now()
	if r.Now != nil {
		q.Now = r.Now()
	}
	return Decide(as, &q), nil
}

func (r *Roles) compile(q question, groups []string, scope arm.ID) ([]*Assignment, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.live {
		return nil, false
	}
	found := r.counting(q.principal, groups, scope)
	if len(r.compiled) >= maxCompiled {
		clear(r.compiled)
	}
	r.compiled[q] = compiled{groups, found}
	return found, true
}

// counting are the assignments of a principal and its groups at a scope and
// above it, each with its role. One whose role is gone, or cannot be assigned
// where it is, counts for nothing.
func (k *known) counting(principal string, groups []string, scope arm.ID) []*Assignment {
	var out []*Assignment
	take := func(holder string) {
		for _, a := range k.by[holder] {
			if !within(scope, a.Scope) {
				continue
			}
			if a.Role == nil {
				role := k.custom[a.RoleID]
				if role == nil || !role.assignableAt(a.Scope) {
					continue
				}
				with := *a
				with.Role = role
				a = &with
			}
			out = append(out, a)
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
	for key, c := range changed {
		if c.definition {
			delete(r.custom, c.name)
			if c.role != nil {
				r.custom[c.name] = c.role
			}
			continue
		}
		delete(r.by[r.owner[key]], key)
		delete(r.owner, key)
		if c.assignment != nil {
			r.add(key, c.assignment)
			r.owner[key] = c.assignment.Principal
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
func (r *Roles) applied(upTo uint64, these map[string]change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for key, c := range r.pending {
		if _, ok := these[key]; c.n <= upTo && (ok || these == nil) {
			delete(r.pending, key)
		}
	}
}

// change is a document as it now is: an assignment or a role, nil where it is
// gone or malformed. What is malformed grants nothing.
type change struct {
	assignment *Assignment
	definition bool
	name       string // of the definition, lower case
	role       *Role
}

// read returns the documents among ids that are of concern, by key.
func (r *Roles) read(ctx context.Context, ids []arm.ID) (map[string]change, error) {
	var changed map[string]change
	err := r.docs.View(ctx, func(rd resource.Reader) error {
		changed = map[string]change{}
		for _, id := range ids {
			if !ours(id) {
				continue
			}
			c := change{definition: strings.EqualFold(id.Type(), TypeDefinitions), name: strings.ToLower(id.Name())}
			doc, err := rd.Get(ctx, id)
			switch {
			case errors.Is(err, resource.ErrUnknown):
			case err != nil:
				return err
			case c.definition:
				c.role, _ = RoleFromDoc(doc)
			default:
				c.assignment, _ = FromDoc(doc)
			}
			changed[id.Key()] = c
		}
		return nil
	})
	return changed, err
}

// reset puts all in place of what was known; nil switches the memory off.
func (r *Roles) reset(all *known) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.live = all != nil
	if all == nil {
		all = nothing()
	}
	r.known, r.owner, r.compiled = *all, map[string]string{}, map[question]compiled{}
	for principal, own := range all.by {
		for key := range own {
			r.owner[key] = principal
		}
	}
}

// load reads everything, as of one moment.
func (r *Roles) load(ctx context.Context) (*known, error) {
	var all *known
	err := r.docs.View(ctx, func(rd resource.Reader) error {
		all = nothing()
		err := eachDoc(ctx, rd, resource.Query{Type: TypeDefinitions}, func(doc resource.Doc) error {
			if role, err := RoleFromDoc(doc); err == nil {
				all.custom[role.ID] = role
			}
			return nil
		})
		if err != nil {
			return err
		}
		return eachDoc(ctx, rd, resource.Query{Type: TypeAssignments}, func(doc resource.Doc) error {
			if a, err := FromDoc(doc); err == nil {
				all.add(doc.ID.Key(), a)
			}
			return nil
		})
	})
	return all, err
}
