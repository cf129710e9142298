package registry

import (
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

// How many registries, and how many names that are no registry's, a Directory
// remembers. Both are bounds on memory: a stranger chooses the names.
const (
	maxKnown   = 16384
	maxUnknown = 4096
)

// Directory is the Lookup over stored registries. What it remembers of one is
// forgotten in the commit that changes it, before the answer to the change is
// sent, and within a second of a commit on another node.
type Directory struct {
	store resource.Store
	c     Config
	alias map[string]string // host to registry name

	mu      sync.Mutex
	live    bool // Follow is running, so what is remembered is kept right
	once    sync.Once
	began   chan struct{}
	known   map[string]*Settings
	unknown map[string]struct{}
	loading map[string]*load
	tokens  shelf
}

// load is a read of one name that is under way.
type load struct {
	done     chan struct{}
	settings *Settings
	err      error
	outdated bool // a change was committed since it began
}

// NewDirectory returns a Directory that remembers nothing until Run.
func NewDirectory(store resource.Store, c Config) *Directory {
	d := &Directory{store: store, c: c, alias: map[string]string{}, loading: map[string]*load{}, began: make(chan struct{})}
	for name, hosts := range c.Aliases {
		for _, host := range hosts {
			d.alias[strings.ToLower(host)] = strings.ToLower(name)
		}
	}
	d.forgetAll()
	store.OnCommit(d.forget)
	return d
}

// Run keeps what is remembered right until ctx ends. While the store cannot be
// followed, nothing is remembered: a change on another node would go unseen.
func (d *Directory) Run(ctx context.Context) error {
	for {
		err := d.store.Follow(ctx, func(ids []arm.ID) {
			if len(ids) > 0 {
				d.forget(ids)
				return
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			d.forgetAll()
			d.live = true
			d.once.Do(func() { close(d.began) })
		})
		d.mu.Lock()
		d.live = false
		d.forgetAll()
		d.mu.Unlock()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		slog.Warn("registry changes cannot be followed; trying again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Live is closed when Run has begun to follow the store.
func (d *Directory) Live() <-chan struct{} { return d.began }

// forgetAll is called with mu held, or before anybody else has d.
func (d *Directory) forgetAll() {
	d.known, d.unknown = map[string]*Settings{}, map[string]struct{}{}
	d.tokens.forgetAll()
	for _, l := range d.loading {
		l.outdated = true
	}
	clear(d.loading)
}

// forget drops the registries that ids belong to: themselves, or something
// below them.
func (d *Directory) forget(ids []arm.ID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		name := nameIn(id)
		if name == "" {
			continue
		}
		d.tokens.forget(name, id)
		delete(d.known, name)
		delete(d.unknown, name)
		if l := d.loading[name]; l != nil {
			l.outdated = true
			delete(d.loading, name) // who asks from now on must read again
		}
	}
}

// nameIn is the lower-case name of the registry that id is or lies in.
func nameIn(id arm.ID) string {
	_, rest, ok := strings.Cut(id.Key(), "/providers/"+strings.ToLower(TypeName)+"/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// ByHost implements Lookup.
func (d *Directory) ByHost(ctx context.Context, host string) (*Settings, error) {
	name, regional := d.name(host)
	if name == "" || CheckName(name) != "" {
		return nil, nil
	}
	s, err := d.byName(ctx, name)
	if err != nil || s == nil {
		return nil, err
	}
	if regional && !slices.Contains(s.DataHosts, host) && !slices.Contains(s.RegionalHosts, host) {
		return nil, nil // another region's, or nobody's
	}
	return s, nil
}

// ByName returns the registry of that name, or nil.
func (d *Directory) ByName(ctx context.Context, name string) (*Settings, error) {
	if CheckName(name) != "" {
		return nil, nil
	}
	return d.byName(ctx, strings.ToLower(name))
}

// name is the registry that a host can only be of, and whether it is one of
// its hosts in a region.
func (d *Directory) name(host string) (name string, regional bool) {
	if name, ok := d.alias[host]; ok {
		return name, false
	}
	labels, ok := strings.CutSuffix(host, "."+d.c.Suffix)
	if !ok {
		return "", false
	}
	name, rest, more := strings.Cut(labels, ".")
	if more && !strings.HasSuffix(rest, ".data") && !strings.HasSuffix(rest, ".geo") {
		return "", false // harbor.privatelink is a name of DNS, not of a registry
	}
	return name, more
}

// byName finds a registry in memory, or reads it. Callers who want the same
// one at once share a read, unless it began before a change that they may
// have been told of.
func (d *Directory) byName(ctx context.Context, name string) (*Settings, error) {
	d.mu.Lock()
	if s := d.known[name]; s != nil {
		d.mu.Unlock()
		return s, nil
	}
	if _, ok := d.unknown[name]; ok {
		d.mu.Unlock()
		return nil, nil
	}
	if l := d.loading[name]; l != nil {
		d.mu.Unlock()
		select {
		case <-l.done:
			return l.settings, l.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	l := &load{done: make(chan struct{})}
	d.loading[name] = l
	d.mu.Unlock()

	// The reader's own context ends only its own wait: others share the read.
	l.settings, l.err = d.read(context.WithoutCancel(ctx), name)
	d.mu.Lock()
	defer d.mu.Unlock()
	defer close(l.done)
	if l.outdated {
		return l.settings, l.err
	}
	delete(d.loading, name)
	if d.live && l.err == nil {
		if l.settings != nil {
			evict(d.known, maxKnown)
			d.known[name] = l.settings
		} else {
			evict(d.unknown, maxUnknown)
			d.unknown[name] = struct{}{}
		}
	}
	return l.settings, l.err
}

// evict makes room for one more, at the cost of any.
func evict[K comparable, V any](m map[K]V, limit int) {
	for key := range m {
		if len(m) < limit {
			return
		}
		delete(m, key)
	}
}

func (d *Directory) read(ctx context.Context, name string) (*Settings, error) {
	var s *Settings
	err := d.store.View(ctx, func(r resource.Reader) error {
		s = nil
		id, err := resource.Holder(ctx, r, TypeName, name)
		if err != nil {
			return err
		}
		doc, err := r.Get(ctx, id)
		if err != nil {
			return err
		}
		s, err = d.c.compile(doc)
		return err
	})
	if errors.Is(err, resource.ErrUnknown) {
		return nil, nil
	}
	return s, err
}

// compile makes the data path's view of a document. It fails rather than
// leave out a rule that it cannot read.
func (c Config) compile(doc resource.Doc) (*Settings, error) {
	at := func(path string) any { return resource.Lookup(doc.Body, path) }
	flag := func(path string) bool { v, _ := at(path).(bool); return v }
	text := func(path string) string { v, _ := at(path).(string); return v }
	name := doc.ID.Name()
	s := Settings{
		ID: doc.ID, UID: doc.UID, Name: name, Host: c.host(name), Aliases: c.Aliases[strings.ToLower(name)],
		Location: text("location"), Routed: routed(&doc), SKU: text("sku.name"), Mode: mode(doc), Modes: text(pathModes),
		// What is not said plainly is the safer of the two.
		PublicAccess:  text(pathPublic) == "Enabled",
		DefaultAllow:  text(pathDefault) == "Allow" || at("properties.networkRuleSet") == nil,
		Bypass:        text("properties.networkRuleBypassOptions") == "AzureServices",
		TaskBypass:    flag("properties.networkRuleBypassAllowedForTasks"),
		AdminUser:     flag(pathAdmin),
		AnonymousPull: flag(pathAnonymous),
		DataEndpoint:  flag(pathDataEndpoint),
		DataHosts:     c.dataHosts(&doc),
		RegionalHosts: c.regionalHosts(&doc),
		EverPrivate:   EverPrivate(doc),

		RegistryAudienceOnly: text(pathARMTokens) != "enabled",
	}
	rules, _ := at(pathIPRules).([]any)
	for _, r := range rules {
		o, _ := r.(resource.Object)
		value, _ := o["value"].(string)
		p, err := parseRule(value)
		if err != nil {
			return nil, err
		}
		s.IPRules = append(s.IPRules, p)
	}
	subnets, err := storedSubnets(&doc)
	if err != nil {
		return nil, err
	}
	for i, id := range subnets {
		if s.Subnets == nil {
			s.Subnets = make(map[string]int, len(subnets))
		}
		s.Subnets[id.Key()] = i + 1
	}
	secrets, err := c.passwords(doc)
	if err != nil {
		return nil, err
	}
	return s.WithAdmin(secrets...), nil
}

var _ Lookup = (*Directory)(nil)
