package zone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// Views holds the view of every network and keeps them as the store has them.
// Reading one is a load of a pointer and a look into a map, and never waits.
//
// A change of another node is obeyed when Store.Follow tells of it. One of
// this process is obeyed before its writer is answered, if the writer's store
// is Obeyed(store).
type Views struct {
	store  resource.Store
	public *View // of everybody outside
	inside *View // of a network without links
	log    *slog.Logger

	current atomic.Pointer[map[string]*View] // by arm.ID.Key of the network; replaced, never modified

	mu    sync.Mutex        // guards dirty and all
	dirty map[string]arm.ID // zones that changed and have not been read
	all   bool              // everything has to be read
	wake  chan struct{}

	// Held while zones are read and current is replaced, so that an older
	// reading never replaces a newer one.
	reading sync.Mutex
	zones   map[string]*loaded
}

// loaded is a zone and its links as they were last read.
type loaded struct {
	content *records
	links   map[string]bool // key of the network: whether it redirects
}

// NewViews returns views without private zones; Load or Run fills them. It
// tells store that it wants to hear of commits.
func NewViews(store resource.Store, public *Public, log *slog.Logger) *Views {
	v := &Views{
		store:  store,
		public: &View{public: public},
		inside: &View{public: public},
		log:    log,
		dirty:  map[string]arm.ID{},
		wake:   make(chan struct{}, 1),
		zones:  map[string]*loaded{},
	}
	v.current.Store(&map[string]*View{})
	store.OnCommit(v.note)
	return v
}

// Of returns the view of a network (arm.ID.Key), or the public view for "".
// A network that is linked to no zone sees the public names.
func (v *Views) Of(network string) *View {
	if network == "" {
		return v.public
	}
	if view, ok := (*v.current.Load())[network]; ok {
		return view
	}
	return v.inside
}

// Load reads every zone.
func (v *Views) Load(ctx context.Context) error {
	v.noteAll()
	return v.catchUp(ctx)
}

// Run follows the store until ctx ends. While the store cannot be read the
// views stay what they were, and reading is tried again.
func (v *Views) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for ctx.Err() == nil {
			err := v.store.Follow(ctx, func(ids []arm.ID) {
				if len(ids) == 0 {
					v.noteAll()
				}
				v.note(ids)
			})
			if ctx.Err() == nil {
				v.log.Error("following the store of private zones stopped; trying again", "err", err)
				pause(ctx, time.Second)
			}
		}
	})
	for wait := minRetry; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-v.wake:
		}
		if err := v.catchUp(ctx); err != nil && ctx.Err() == nil {
			v.log.Error("private zones could not be read; trying again", "err", err, "in", wait)
			pause(ctx, wait)
			wait = min(2*wait, maxRetry)
			v.ring()
			continue
		}
		wait = minRetry
	}
}

const (
	minRetry = 50 * time.Millisecond
	maxRetry = time.Second
	// readWait is how long the writer of a change waits for it to be obeyed.
	// The change is durable by then, and Run goes on trying.
	readWait = 5 * time.Second
)

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Obeyed is store, but an Update of it returns only when the views have what
// it committed.
func (v *Views) Obeyed(store resource.Store) resource.Store { return obeyed{store, v} }

type obeyed struct {
	resource.Store
	v *Views
}

func (o obeyed) Update(ctx context.Context, fn func(resource.Tx) error) error {
	if err := o.Store.Update(ctx, fn); err != nil {
		return err
	}
	// The caller may have gone; the change has not.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readWait)
	defer cancel()
	if err := o.v.catchUp(ctx); err != nil {
		o.v.log.Error("private zones could not be read after a change; trying again", "err", err)
		o.v.ring()
	}
	return nil
}

// note remembers what changed. It is called at every commit.
func (v *Views) note(ids []arm.ID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, id := range ids {
		if z := zoneAbove(id); !z.IsZero() {
			v.dirty[z.Key()] = z
			v.ring()
		}
	}
}

func (v *Views) noteAll() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.all = true
	v.ring()
}

func (v *Views) ring() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// catchUp returns when everything that was noted before the call is in the
// views.
func (v *Views) catchUp(ctx context.Context) error {
	v.reading.Lock()
	defer v.reading.Unlock()

	v.mu.Lock()
	dirty, all := v.dirty, v.all
	v.dirty, v.all = map[string]arm.ID{}, false
	v.mu.Unlock()
	if len(dirty) == 0 && !all {
		return nil
	}
	fresh, err := v.read(ctx, dirty, all)
	if err != nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		maps.Copy(dirty, v.dirty)
		v.dirty, v.all = dirty, v.all || all
		return err
	}
	v.install(fresh, all)
	return nil
}

// read reads the zones in dirty, or all; one that is gone comes back as nil.
func (v *Views) read(ctx context.Context, dirty map[string]arm.ID, all bool) (map[string]*loaded, error) {
	fresh := map[string]*loaded{}
	err := v.store.View(ctx, func(r resource.Reader) error {
		clear(fresh)
		zones := maps.Clone(dirty)
		if all {
			docs, err := r.List(ctx, resource.Query{Type: TypeZone})
			if err != nil {
				return err
			}
			for _, d := range docs {
				zones[d.ID.Key()] = d.ID
			}
		}
		for key, id := range zones {
			z, err := load(ctx, r, id)
			if err != nil {
				return fmt.Errorf("read the zone %s: %w", id, err)
			}
			fresh[key] = z
		}
		return nil
	})
	return fresh, err
}

// install replaces the views of the networks that zones were or are linked to.
func (v *Views) install(fresh map[string]*loaded, all bool) {
	if all {
		for key := range v.zones {
			if _, ok := fresh[key]; !ok {
				fresh[key] = nil
			}
		}
	}
	touched := map[string]bool{}
	for key, z := range fresh {
		if old := v.zones[key]; old != nil {
			maps.Copy(touched, old.links)
		}
		if z == nil {
			delete(v.zones, key)
			continue
		}
		v.zones[key] = z
		maps.Copy(touched, z.links)
	}
	zones := map[string]map[string]link{}
	for network := range touched {
		zones[network] = map[string]link{}
	}
	// putLink sees to it that no two zones of a network have one name.
	for _, z := range v.zones {
		for network, redirect := range z.links {
			if zones[network] != nil {
				zones[network][z.content.name] = link{zone: z.content, redirect: redirect}
			}
		}
	}
	next := maps.Clone(*v.current.Load())
	for network, linked := range zones {
		if len(linked) == 0 {
			delete(next, network)
		} else {
			next[network] = &View{public: v.public.public, zones: linked}
		}
	}
	v.current.Store(&next)
}

// zoneAbove is the zone that id is or lies in, or zero.
func zoneAbove(id arm.ID) arm.ID {
	typ := id.Type()
	for ; len(typ) > len(TypeZone) && strings.EqualFold(typ[:len(TypeZone)+1], TypeZone+"/"); typ = id.Type() {
		id = id.Parent()
	}
	if strings.EqualFold(typ, TypeZone) {
		return id
	}
	return arm.ID{}
}

// load reads one zone; nil is one that is not there.
func load(ctx context.Context, r resource.Reader, id arm.ID) (*loaded, error) {
	doc, err := r.Get(ctx, id)
	if errors.Is(err, resource.ErrUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	z := &loaded{content: newRecords(canonical(doc.ID.Name())), links: map[string]bool{}}
	sets, err := recordSets(ctx, r, id)
	if err != nil {
		return nil, err
	}
	for _, s := range sets {
		z.content.add(s)
	}
	links, err := r.List(ctx, resource.Query{Type: TypeLink, Under: id})
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		policy, _ := resource.Lookup(l.Body, "properties.resolutionPolicy").(string)
		z.links[vnetOf(l).Key()] = policy == "NxDomainRedirect"
	}
	return z, nil
}
