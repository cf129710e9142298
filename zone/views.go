package zone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

// Views holds the view of every network, as a resource.Mirror keeps them.
// Reading one is a load of a pointer and a look into a map, and never waits.
type Views struct {
	mirror *resource.Mirror
	public *View // of everybody outside
	inside *View // of a network without links

	current atomic.Pointer[map[string]*View] // by arm.ID.Key of the network; replaced, never modified
	zones   map[string]*loaded               // the mirror's
}

// loaded is a zone and its links as they were last read.
type loaded struct {
	content *records
	links   map[string]bool // key of the network: whether it redirects
}

// NewViews returns views without private zones; Load or Run fills them.
func NewViews(store resource.Store, public *Public, log *slog.Logger) *Views {
	v := &Views{public: &View{public: public}, inside: &View{public: public}, zones: map[string]*loaded{}}
	v.current.Store(&map[string]*View{})
	v.mirror = resource.NewMirror(store, resource.Mirrored{Name: "private zones", Concerns: concerned, Read: v.read}, log)
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
func (v *Views) Load(ctx context.Context) error { return v.mirror.Load(ctx) }

// Run follows the store until ctx ends.
func (v *Views) Run(ctx context.Context) error { return v.mirror.Run(ctx) }

// Obeyed is store, but an Update of it returns only when the views have what
// it committed.
func (v *Views) Obeyed(store resource.Store) resource.Store { return v.mirror.Obeyed(store) }

// change is what has been read anew: whole zones, nil where one is gone, and
// single names of others, by the zone's key.
type change struct {
	all   bool
	zones map[string]*loaded
	names map[string]map[string]*node
}

// read reads what changed, or all. Of a zone that is held, only the names that
// changed are read.
func (v *Views) read(ctx context.Context, r resource.Reader, changed map[string]arm.ID, all bool) (install func(), err error) {
	zones, sets := map[string]arm.ID{}, map[string]arm.ID{}
	for key, id := range changed {
		if zone := zoneAbove(id); zone.Equal(id) || v.zones[zone.Key()] == nil {
			zones[zone.Key()] = zone
		} else {
			sets[key] = id
		}
	}
	if all {
		docs, err := r.List(ctx, resource.Query{Type: TypeZone})
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			zones[d.ID.Key()] = d.ID
		}
	}
	c := change{all: all, zones: map[string]*loaded{}, names: map[string]map[string]*node{}}
	for key, id := range zones {
		if c.zones[key], err = load(ctx, r, id); err != nil {
			return nil, fmt.Errorf("read the zone %s: %w", id, err)
		}
	}
	for _, id := range sets {
		zone := id.Parent()
		if _, ok := zones[zone.Key()]; ok {
			continue
		}
		docs, err := setsAt(ctx, r, zone, id.Name())
		if err != nil {
			return nil, fmt.Errorf("read the name of %s: %w", id, err)
		}
		if c.names[zone.Key()] == nil {
			c.names[zone.Key()] = map[string]*node{}
		}
		n := &node{}
		for _, d := range docs {
			n.add(d)
		}
		c.names[zone.Key()][absolute(id.Name(), canonical(zone.Name()))] = n
	}
	return func() { v.install(c) }, nil
}

// install replaces the views of the networks that zones were or are linked to.
func (v *Views) install(c change) {
	if c.all {
		for key := range v.zones {
			if _, ok := c.zones[key]; !ok {
				c.zones[key] = nil
			}
		}
	}
	next := maps.Clone(*v.current.Load())
	v.relink(next, c.zones)
	for key, names := range c.names {
		z := *v.zones[key]
		for name, n := range names {
			z.content = z.content.with(name, n)
		}
		v.zones[key] = &z
		for network, redirect := range z.links {
			zones := maps.Clone(next[network].zones)
			zones[z.content.name] = link{zone: z.content, redirect: redirect}
			next[network] = &View{public: v.public.public, zones: zones}
		}
	}
	v.current.Store(&next)
}

// relink makes in next the views of the networks that fresh zones were or are
// linked to.
func (v *Views) relink(next map[string]*View, fresh map[string]*loaded) {
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
	if len(touched) == 0 {
		return
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
	for network, linked := range zones {
		if len(linked) == 0 {
			delete(next, network)
		} else {
			next[network] = &View{public: v.public.public, zones: linked}
		}
	}
}

// concerned is what to read when id has changed: a record set alone, the zone
// with everything in it for anything else in it, or the zero ID.
func concerned(id arm.ID) arm.ID {
	if slices.ContainsFunc(setTypes, func(typ string) bool { return strings.EqualFold(typ, id.Type()) }) {
		return id
	}
	return zoneAbove(id)
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
	names := map[string]*node{}
	for _, s := range sets {
		name := absolute(s.ID.Name(), z.content.name)
		if names[name] == nil {
			names[name] = &node{}
		}
		names[name].add(s)
	}
	for name, n := range names {
		z.content.put(name, n)
	}
	if soa, err := r.Get(ctx, id.Child("SOA", "@")); err == nil {
		z.content.begin(soa)
	} else if !errors.Is(err, resource.ErrUnknown) {
		return nil, err
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
