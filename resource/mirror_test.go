package resource_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// lights are the harbors that have a light, as a mirror holds them.
type lights struct {
	*resource.Mirror
	on    atomic.Pointer[map[string]bool] // by the key of the id
	whole atomic.Int32                    // how often everything was read
}

func newLights(s resource.Store) *lights {
	l := &lights{}
	l.on.Store(&map[string]bool{})
	l.Mirror = resource.NewMirror(s, resource.Mirrored{Name: "lights", Concerns: harborOf, Read: l.read}, slog.New(slog.DiscardHandler))
	return l
}

// harborOf is the harbor that id is or lies in.
func harborOf(id arm.ID) arm.ID {
	for ; !id.IsZero(); id = id.Parent() {
		if strings.EqualFold(id.Type(), "Test.Sea/harbors") {
			return id
		}
	}
	return arm.ID{}
}

func (l *lights) read(ctx context.Context, r resource.Reader, ids map[string]arm.ID, all bool) (func(), error) {
	next := maps.Clone(*l.on.Load())
	if all {
		l.whole.Add(1)
		clear(next)
		docs, err := r.List(ctx, resource.Query{Type: "Test.Sea/harbors"})
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			next[d.ID.Key()] = d.Body["light"] == true
		}
	}
	for key, id := range ids {
		d, err := r.Get(ctx, id)
		if next[key] = err == nil && d.Body["light"] == true; err != nil && !errors.Is(err, resource.ErrUnknown) {
			return nil, err
		}
	}
	return func() { l.on.Store(&next) }, nil
}

func (l *lights) lit() []string {
	var names []string
	for key, on := range *l.on.Load() {
		if on {
			names = append(names, key[strings.LastIndex(key, "/")+1:])
		}
	}
	slices.Sort(names)
	return names
}

func light(t *testing.T, s resource.Store, name string, on bool) {
	t.Helper()
	err := s.Update(t.Context(), func(tx resource.Tx) error {
		return tx.Put(t.Context(), &resource.Doc{ID: arm.MustID(harbors + name), Body: resource.Object{"light": on}})
	})
	if err != nil {
		t.Fatal(err)
	}
}

// dark is a store that cannot be read for a while.
type dark struct {
	resource.Store
	off atomic.Bool
}

func (d *dark) View(ctx context.Context, fn func(resource.Reader) error) error {
	if d.off.Load() {
		return errors.New("the database cannot be reached")
	}
	return d.Store.View(ctx, fn)
}

// Whoever has the answer to a change finds it obeyed, with nobody following;
// what cannot be read stays what it was, costs the writer no error, and comes
// in with the next that can.
func TestAChangeIsObeyedBeforeItsAnswer(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		s := &dark{Store: store.NewResources(db)}
		light(t, s, "east", true)
		l := newLights(s)
		if err := l.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		obeyed := l.Obeyed(s)
		check := func(want ...string) {
			t.Helper()
			if got := l.lit(); !slices.Equal(got, want) {
				t.Errorf("lit are %v, want %v", got, want)
			}
		}
		check("east")
		light(t, obeyed, "west", true)
		check("east", "west")
		s.off.Store(true)
		light(t, obeyed, "east", false)
		check("east", "west")
		s.off.Store(false)
		light(t, obeyed, "north", true)
		check("north", "west")
		if n := l.whole.Load(); n != 1 {
			t.Errorf("everything was read %d times", n)
		}
		// Of a document of another type nothing is held.
		err := obeyed.Update(t.Context(), func(tx resource.Tx) error {
			err := tx.Put(t.Context(), &resource.Doc{ID: arm.MustID(ships + "ann"), Body: resource.Object{"light": true}})
			return errors.Join(err, tx.Delete(t.Context(), arm.MustID(harbors+"west")))
		})
		if err != nil {
			t.Fatal(err)
		}
		check("north")
	})
}

// Another node's mirror follows, and a store that cannot be read costs it no
// change.
func TestAMirrorFollowsAnotherNode(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		here := store.NewResources(db)
		there := &dark{Store: store.NewResources(db)}
		l := newLights(there)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		sees := func(want ...string) {
			t.Helper()
			for deadline := time.Now().Add(10 * time.Second); !slices.Equal(l.lit(), want); {
				if time.Now().After(deadline) {
					t.Fatalf("lit are %v, want %v", l.lit(), want)
				}
				<-time.After(time.Millisecond)
			}
		}
		light(t, here, "east", true)
		sees("east")
		there.off.Store(true)
		light(t, here, "west", true)
		light(t, here, "east", false)
		there.off.Store(false)
		sees("west")
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
