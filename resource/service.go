package resource

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
)

// The failures of the service besides those of every type.
var (
	ErrTypeUnknown         = fault.Coded(fault.NotFound, "InvalidResourceType", "the resource type is not known")
	ErrSubscriptionUnknown = fault.Coded(fault.NotFound, "SubscriptionNotFound", "the subscription was not found")
	ErrGroupUnknown        = fault.Coded(fault.NotFound, "ResourceGroupNotFound", "the resource group was not found")
	ErrParentUnknown       = fault.Coded(fault.NotFound, "ParentResourceNotFound", "the parent resource was not found")
	ErrNoVerb              = fault.Coded(fault.Disallowed, "MethodNotAllowed", "the resource does not allow this")
	ErrActionUnknown       = fault.Coded(fault.NotFound, "ActionNotFound", "the resource type has no such action")
	ErrLocation            = fault.Coded(fault.Invalid, "LocationNotAvailableForResourceType", "the location is not one of this deployment")
	ErrGroupLocation       = fault.Coded(fault.Invalid, "LocationNotAvailableForResourceGroup", "the location is not one of this deployment")
	ErrNoLocation          = fault.Coded(fault.Invalid, "LocationRequired", "the location property is required")
	ErrMoved               = fault.Coded(fault.Conflict, "InvalidResourceLocation", "a resource cannot change its location")
)

// Config is what a Service is made of.
type Config struct {
	Store     Store
	Types     []Type
	Locations []string // normalized; the first is the deployment's own region
	Now       func() time.Time
}

// Service does what callers of the control plane ask. It does not ask whether
// they may: its edge has done that, for the action and the id of the call.
type Service struct {
	store     Store
	types     map[string]*Type // by lower-case name
	locations []string
	now       func() time.Time
}

// New returns the service for the built-in types and those of c. It fails
// where two have one name.
func New(c Config) (*Service, error) {
	s := &Service{store: c.Store, types: map[string]*Type{}, locations: c.Locations, now: c.Now}
	if s.now == nil {
		s.now = time.Now
	}
	for _, t := range slices.Concat(builtin, c.Types) {
		key := strings.ToLower(t.Name)
		if s.types[key] != nil {
			return nil, fmt.Errorf("two resource types are named %s", t.Name)
		}
		s.types[key] = &t
	}
	return s, nil
}

// Locations are where resources may be; the first is the default.
func (s *Service) Locations() []string { return slices.Clone(s.locations) }

// Types are the names of the types, in order.
func (s *Service) Types() []string {
	var names []string
	for _, t := range s.types {
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names
}

// Actions are what a type has besides the verbs of every resource: the names of
// its actions, and of its computed collections.
func (s *Service) Actions(typ string) (actions, computed []string) {
	t := s.types[strings.ToLower(typ)]
	if t == nil {
		return nil, nil
	}
	actions = slices.AppendSeq(slices.Collect(maps.Keys(t.Actions)), maps.Keys(t.Long))
	computed = slices.Collect(maps.Keys(t.Computed))
	slices.Sort(actions)
	slices.Sort(computed)
	return actions, computed
}

// Canonical is the name of a type as ARM spells it, or typ where it is unknown.
func (s *Service) Canonical(typ string) string {
	if t := s.types[strings.ToLower(typ)]; t != nil {
		return t.Name
	}
	return typ
}

// Location is a location as it is compared and shown: "West Europe" is
// "westeurope".
func Location(s string) string { return strings.ToLower(strings.ReplaceAll(s, " ", "")) }

// Condition is what must hold of a resource's ETag for a write to happen. Both
// are as the headers have them: a tag, quoted or not, or "*", or nothing.
type Condition struct{ IfMatch, IfNoneMatch string }

func (c Condition) check(old *Doc) error {
	bare := func(tag string) string { return strings.Trim(strings.TrimPrefix(strings.TrimSpace(tag), "W/"), `"`) }
	has := func(header string) bool {
		return old != nil && slices.ContainsFunc(strings.Split(header, ","), func(tag string) bool {
			return bare(tag) == "*" || bare(tag) == old.ETag
		})
	}
	switch {
	case c.IfMatch != "" && old == nil:
		return ErrStale.Detail("The condition If-Match does not hold: the resource does not exist.")
	case c.IfMatch != "" && !has(c.IfMatch):
		return ErrStale.Detail("The condition If-Match does not hold: the resource has changed since it was read. Its ETag is %s.", old.ETag)
	case c.IfNoneMatch != "" && has(c.IfNoneMatch):
		return ErrStale.Detail("The condition If-None-Match does not hold: the resource exists. Its ETag is %s.", old.ETag)
	}
	return nil
}

// Result is a resource as its caller may see it.
type Result struct {
	ID      arm.ID
	ETag    string
	Body    Object // the whole envelope
	Created bool
}

func (s *Service) typeOf(id arm.ID) (*Type, error) {
	if t := s.types[strings.ToLower(id.Type())]; t != nil {
		return t, nil
	}
	return nil, ErrTypeUnknown.Detail("The resource type %q could not be found: it is not in this version.", clip(id.Type()))
}

// Get returns a resource.
func (s *Service) Get(ctx context.Context, id arm.ID) (Result, error) {
	t, err := s.typeOf(id)
	if err != nil {
		return Result{}, err
	}
	var out Result
	err = s.store.View(ctx, func(r Reader) error {
		doc, err := s.read(ctx, r, id)
		if errors.Is(err, ErrUnknown) {
			fixed, failed := s.fixed(ctx, r, t, id)
			if failed != nil {
				return failed
			}
			switch {
			case fixed != nil:
				doc, err = *fixed, nil
			case t.Missing != nil:
				err = t.Missing.Detail("%s '%s' was not found.", t.Name, clip(id.Name()))
			}
		}
		if err != nil {
			return err
		}
		out, err = s.show(ctx, r, t, doc)
		return err
	})
	return out, err
}

// read is Reader.Get with the sentence that says what is missing.
func (s *Service) read(ctx context.Context, r Reader, id arm.ID) (Doc, error) {
	doc, err := r.Get(ctx, id)
	if !errors.Is(err, ErrUnknown) {
		return doc, err
	}
	switch strings.ToLower(id.Type()) {
	case strings.ToLower(TypeSubscription):
		return Doc{}, ErrSubscriptionUnknown.Detail("The subscription '%s' could not be found.", id.Name())
	case strings.ToLower(TypeGroup):
		if _, err := s.read(ctx, r, id.Parent()); err != nil {
			return Doc{}, err
		}
		return Doc{}, ErrGroupUnknown.Detail("Resource group '%s' could not be found.", id.Name())
	}
	if group := id.GroupID(); !group.IsZero() {
		if _, err := s.read(ctx, r, group); err != nil {
			return Doc{}, err
		}
	}
	return Doc{}, ErrUnknown.Detail("The resource '%s' was not found.", clip(id.String()))
}

// show is the envelope of a document, made of its body.
func (s *Service) show(ctx context.Context, r Reader, t *Type, doc Doc) (Result, error) {
	body := doc.Body
	if body == nil {
		body = Object{}
	}
	if t.Show != nil {
		if err := t.Show(ctx, r, doc, body); err != nil {
			return Result{}, err
		}
	}
	for _, p := range t.Secret {
		Remove(body, p)
	}
	body["id"] = doc.ID.String()
	switch t.Name {
	case TypeTenant:
		body["id"] = "/tenants/" + doc.ID.Name()
	case TypeSubscription:
	default:
		body["name"] = doc.ID.Name()
		body["type"] = t.Name
		body["etag"] = doc.ETag
		if Lookup(body, "properties.provisioningState") == nil {
			Assign(body, "properties.provisioningState", "Succeeded")
		}
	}
	return Result{ID: doc.ID, ETag: doc.ETag, Body: body}, nil
}

// Put makes a resource or replaces what callers can set of it. Properties that
// no type knows are kept; read-only ones are dropped, and so is every null. A
// replacement that changes nothing writes nothing and leaves the ETag.
func (s *Service) Put(ctx context.Context, by Caller, id arm.ID, body Object, c Condition) (Result, error) {
	w, err := s.putting(ctx, by, id, body, c)
	if err != nil {
		return Result{}, err
	}
	return s.write(ctx, w)
}

// putting is a PUT before its transaction.
func (s *Service) putting(ctx context.Context, by Caller, id arm.ID, body Object, c Condition) (write, error) {
	t, err := s.writable(id)
	if err != nil {
		return write{}, err
	}
	if body, err = incoming(t, Clone(body)); err != nil {
		return write{}, err
	}
	withoutNulls(body)
	if t.Prepare != nil {
		if err := t.Prepare(ctx, id, body); err != nil {
			return write{}, err
		}
	}
	return write{by, t, id, c, body, func(old *Doc) (Object, []fault.Field, error) {
		next := Clone(body)
		if old == nil {
			return next, strange(next), nil
		}
		if _, ok := next["location"]; !ok && old.Body["location"] != nil {
			next["location"] = old.Body["location"]
		}
		return next, append(strange(body), keep(t, old.Body, next)...), nil
	}}, nil
}

// Patch changes the properties that patch has (RFC 7396: null removes one).
// Tags are replaced as a whole, as ARM does: a caller who sends {} means none.
// So are the identities that a resource carries and what the type says: az
// leaves out the one that it takes away.
func (s *Service) Patch(ctx context.Context, by Caller, id arm.ID, patch Object, c Condition) (Result, error) {
	t, err := s.writable(id)
	if err != nil {
		return Result{}, err
	}
	if patch, err = incoming(t, Clone(patch)); err != nil {
		return Result{}, err
	}
	return s.write(ctx, write{by, t, id, c, nil, func(old *Doc) (Object, []fault.Field, error) {
		if old == nil {
			return nil, nil, ErrUnknown
		}
		next, patch := Clone(old.Body), Clone(patch)
		for _, whole := range append([]string{"tags", "identity.userAssignedIdentities"}, t.Whole...) {
			if Lookup(patch, whole) != nil {
				Remove(next, whole)
			}
		}
		merge(next, patch)
		return next, append(strange(patch), keep(t, old.Body, next)...), nil
	}})
}

func (s *Service) writable(id arm.ID) (*Type, error) {
	t, err := s.typeOf(id)
	if err != nil {
		return nil, err
	}
	if t.NoPut {
		return nil, ErrNoVerb.Detail("A resource of type %s cannot be written.", t.Name)
	}
	return t, nil
}

// echoes reports whether sent is the resource as it is shown, or that without
// what callers cannot set. What is shown is more than what is stored; sent
// back, it must not become what is stored.
func (s *Service) echoes(ctx context.Context, r Reader, t *Type, doc Doc, sent Object) (bool, error) {
	doc.Body = Clone(doc.Body)
	shown, err := s.show(ctx, r, t, doc)
	if err != nil {
		return false, err
	}
	body, err := incoming(t, shown.Body)
	if err != nil {
		return false, err
	}
	now, err := Encode(withoutNulls(body))
	if err != nil {
		return false, err
	}
	then, err := Encode(sent)
	return bytes.Equal(now, then), err
}

func stored(old *Doc) (Object, []fault.Field, error) { return Clone(old.Body), nil, nil }

// write is a PUT or PATCH on its way into a transaction.
type write struct {
	by   Caller
	t    *Type
	id   arm.ID
	c    Condition
	sent Object // what was PUT, nil for a PATCH
	// next makes the body from the old document.
	next func(old *Doc) (Object, []fault.Field, error)
}

// write is the one transaction of a PUT or PATCH.
func (s *Service) write(ctx context.Context, w write) (Result, error) {
	var out Result
	err := s.store.Update(As(ctx, w.by), func(tx Tx) (err error) {
		out, err = s.within(As(ctx, w.by), tx, w)
		return err
	})
	return out, err
}

// within does a PUT or PATCH in a transaction.
func (s *Service) within(ctx context.Context, tx Tx, w write) (Result, error) {
	change := &Change{New: &Doc{}, Caller: w.by, Now: s.now()}
	doc, err := tx.Get(ctx, w.id)
	switch {
	case err == nil:
		old := doc
		old.Body = Clone(doc.Body)
		change.Old = &old
		*change.New = Doc{ID: doc.ID, UID: doc.UID, ETag: doc.ETag, Created: doc.Created, Changed: doc.Changed}
	case errors.Is(err, ErrUnknown):
		place, err := s.place(ctx, tx, w.t, w.id)
		if err == nil {
			err = mayUse(ctx, tx, place)
		}
		if err == nil {
			err = s.isFixed(ctx, tx, w.t, place)
		}
		if err != nil {
			return Result{}, err
		}
		*change.New = Doc{ID: place, UID: rand.Text()}
	default:
		return Result{}, err
	}
	if err := w.c.check(change.Old); err != nil {
		return Result{}, err
	}
	if err := Unlocked(ctx, tx, change.New.ID, false); err != nil {
		return Result{}, err
	}
	from := w.next
	if w.sent != nil && change.Old != nil {
		echo, err := s.echoes(ctx, tx, w.t, *change.Old, w.sent)
		if err != nil {
			return Result{}, err
		}
		if echo {
			from = stored
		}
	}
	body, problems, err := from(change.Old)
	if errors.Is(err, ErrUnknown) {
		_, err = s.read(ctx, tx, w.id)
	}
	if err != nil {
		return Result{}, err
	}
	change.New.Body = body
	if err := s.valid(w.t, change, problems); err != nil {
		return Result{}, err
	}
	if change.Old == nil && w.t.Unique {
		if err := claim(ctx, tx, w.t, change.New.ID); err != nil {
			return Result{}, err
		}
	}
	if w.t.Put != nil {
		if err := w.t.Put(ctx, tx, change); err != nil {
			return Result{}, err
		}
	}
	if err := store(ctx, tx, change); err != nil {
		return Result{}, err
	}
	out, err := s.show(ctx, tx, w.t, *change.New)
	out.Created = change.Old == nil && !w.t.MadeIsOK
	return out, err
}

// store writes the new document unless it says what the old one says. What it
// leaves in c.New is what a later read will find.
func store(ctx context.Context, tx Tx, c *Change) error {
	after, err := Encode(c.New.Body)
	if err != nil {
		return err
	}
	if c.New.Body, err = Decode(after); err != nil {
		return err
	}
	if c.Old != nil {
		before, err := Encode(c.Old.Body)
		if err != nil || bytes.Equal(before, after) {
			return err
		}
	}
	return tx.Put(ctx, c.New)
}

// valid returns every problem of a change in one error.
func (s *Service) valid(t *Type, c *Change, problems []fault.Field) error {
	body := c.New.Body
	if more := append(problems, shape(body)...); len(more) > 0 {
		return fault.Problems(more) // a type's Check may rely on these shapes
	}
	where, _ := body["location"].(string)
	if where != "" {
		where = Location(where)
		body["location"] = where
	}
	if c.Old != nil {
		if was, _ := c.Old.Body["location"].(string); was != where {
			return fault.At("location", ErrMoved.Detail("The resource '%s' is in location '%s'. It cannot be moved to '%s'.", c.New.ID.Name(), was, clip(where)))
		}
	}
	if c.Old == nil {
		if why := t.name(c.New.ID.Name()); why != "" {
			problems = append(problems, fault.Field{Path: "name", Message: why})
		}
	}
	var misplaced error
	if t.Located {
		if misplaced = s.located(t, where); misplaced != nil {
			_, why := fault.Of(misplaced)
			problems = append(problems, fault.Field{Path: "location", Message: why})
		}
	}
	if tags, _ := body["tags"].(Object); len(tags) > 0 && !tagged(t, *c.New) {
		problems = append(problems, fault.Field{Path: "tags", Message: "A resource of type " + t.Name + " has no tags."})
	}
	if t.Check != nil {
		problems = append(problems, t.Check(c)...)
	}
	if misplaced != nil && len(problems) == 1 {
		return fault.At("location", misplaced) // by ARM's code for it, which programs know
	}
	return fault.Problems(problems)
}

// located refuses a place that this deployment does not have.
func (s *Service) located(t *Type, where string) error {
	have := strings.Join(s.locations, ",")
	switch {
	case where == "":
		return ErrNoLocation.Detail("The location property is required for this definition. The locations of this deployment are '%s'.", have)
	case slices.Contains(s.locations, where):
		return nil
	case t.Name == TypeGroup:
		return ErrGroupLocation.Detail("The provided location '%s' is not available for resource group. List of available regions is '%s'.", clip(where), have)
	}
	return ErrLocation.Detail("The provided location '%s' is not available for resource type '%s'. List of available regions for the resource type is '%s'.", clip(where), t.Name, have)
}

func (t *Type) name(name string) string {
	if t.CheckName != nil {
		return t.CheckName(name)
	}
	if len(name) > 80 || !plain(name) {
		return "must be 1 to 80 letters, digits, hyphens, underscores, dots and parentheses, and not end in a dot"
	}
	return ""
}

// place is the id of a new resource in the spelling of what it lies in, which
// must exist.
func (s *Service) place(ctx context.Context, r Reader, t *Type, id arm.ID) (arm.ID, error) {
	parent := id.Parent()
	if parent.IsZero() {
		if !t.Extension {
			return arm.ID{}, ErrTypeUnknown.Detail("A resource of type %s lies in a resource group.", t.Name)
		}
		return id, nil
	}
	own := t.Name[strings.LastIndexByte(t.Name, '/')+1:]
	if t.Name == TypeGroup {
		sub, err := s.read(ctx, r, parent)
		if err != nil {
			return arm.ID{}, err
		}
		return sub.ID.Child(own, id.Name()), nil
	}
	child := strings.Count(t.Name, "/") > 1
	kind := s.Canonical(parent.Type())
	if !t.Extension && !child && kind != TypeGroup {
		return arm.ID{}, ErrTypeUnknown.Detail("A resource of type %s lies in a resource group.", t.Name)
	}
	doc, err := s.read(ctx, r, parent)
	if errors.Is(err, ErrUnknown) {
		return arm.ID{}, ErrParentUnknown.Detail("The parent resource '%s/%s' was not found.", kind, parent.Name())
	}
	if err != nil {
		return arm.ID{}, err
	}
	if child {
		return doc.ID.Child(own, id.Name()), nil
	}
	return doc.ID.Child("providers/"+t.Name, id.Name()), nil
}

// Act does a POST action on a resource.
func (s *Service) Act(ctx context.Context, by Caller, id arm.ID, name string, body Object) (Object, error) {
	t, err := s.typeOf(id)
	if err != nil {
		return nil, err
	}
	_, do, ok := named(t.Actions, name)
	if !ok {
		return nil, ErrActionUnknown.Detail("The resource type %s has no action %q in this version.", t.Name, clip(name))
	}
	ctx = As(ctx, by)
	var out Object
	err = s.store.Update(ctx, func(tx Tx) error {
		doc, err := s.open(ctx, tx, id)
		if err != nil {
			return err
		}
		out, err = do(ctx, tx, doc, by, Clone(body))
		return err
	})
	return out, err
}

// open reads a resource on which an action is done.
func (s *Service) open(ctx context.Context, tx Tx, id arm.ID) (Doc, error) {
	doc, err := s.read(ctx, tx, id)
	if err == nil {
		err = Unlocked(ctx, tx, doc.ID, false)
	}
	return doc, err
}

// IsLong reports whether the action goes on after its answer, and so is
// Start's rather than Act's.
func (s *Service) IsLong(id arm.ID, name string) bool {
	if t := s.types[strings.ToLower(id.Type())]; t != nil {
		_, _, ok := named(t.Long, name)
		return ok
	}
	return false
}

// Start begins a POST action that goes on after its answer.
func (s *Service) Start(ctx context.Context, by Caller, id arm.ID, name string, body Object) (o Operation, err error) {
	t, err := s.typeOf(id)
	if err != nil {
		return o, err
	}
	_, do, ok := named(t.Long, name)
	if !ok {
		return o, ErrActionUnknown.Detail("The resource type %s has no action %q in this version.", t.Name, clip(name))
	}
	ctx = As(ctx, by)
	operation := rand.Text()
	err = s.store.Update(ctx, func(tx Tx) error {
		doc, err := s.open(ctx, tx, id)
		if err != nil {
			return err
		}
		work, err := do(ctx, tx, doc, by, Clone(body))
		if err != nil {
			return err
		}
		o, err = s.start(ctx, tx, operation, doc, work)
		return err
	})
	return o, err
}

// ActionName is the permission that a POST of an action needs: the table's
// where it has the action.
func (s *Service) ActionName(id arm.ID, name string) string {
	if t := s.types[strings.ToLower(id.Type())]; t != nil {
		known, _, ok := named(t.Actions, name)
		if !ok {
			known, _, ok = named(t.Long, name)
		}
		if ok {
			if needs := t.Needs[known]; needs != "" {
				return needs
			}
			name = known
		}
	}
	return s.Canonical(id.Type()) + "/" + name + "/action"
}

// Compute answers one of a type's computed collections.
func (s *Service) Compute(ctx context.Context, id arm.ID, name string) (items []Object, err error) {
	t, err := s.typeOf(id)
	if err != nil {
		return nil, err
	}
	_, do, ok := named(t.Computed, name)
	if !ok {
		return nil, ErrTypeUnknown.Detail("The resource type %q could not be found: it is not in this version.", clip(t.Name+"/"+name))
	}
	err = s.store.View(ctx, func(r Reader) error {
		doc, err := s.read(ctx, r, id)
		if err != nil {
			return err
		}
		items, err = do(ctx, r, doc)
		return err
	})
	return items, err
}

// Computes is the name of a computed collection as its type spells it, ""
// where the type of id has none of that name.
func (s *Service) Computes(id arm.ID, name string) string {
	if t := s.types[strings.ToLower(id.Type())]; t != nil {
		known, _, _ := named(t.Computed, name)
		return known
	}
	return ""
}

// named looks up an entry of a type's tables, whose names are compared as ARM
// compares them, and returns the name as its type spells it.
func named[V any](table map[string]V, name string) (known string, v V, ok bool) {
	for known, v := range table {
		if strings.EqualFold(known, name) {
			return known, v, true
		}
	}
	return "", v, false
}

func clip(s string) string {
	if len(s) > 200 {
		return s[:200] + "…"
	}
	return s
}
