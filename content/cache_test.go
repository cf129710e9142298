package content

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"cove.example/cove/oci"
)

// A reader that asked before a deletion must not file its answer after it: the
// deleted thing would be served again.
func TestRecentForgetsWhatWasAskedBeforeADeletion(t *testing.T) {
	p := place{Key{Registry: "r"}, "latest"}
	for name, forget := range map[string]func(*recent[int]){
		"drop":  func(r *recent[int]) { r.drop(p) },
		"clear": func(r *recent[int]) { r.clear() },
	} {
		r := newRecent[int](time.Now, time.Hour)
		if v, kept, err := r.get(p, func() (int, error) {
			forget(r) // deleted while the answer was under way
			return 1, nil
		}); v != 1 || kept || err != nil {
			t.Errorf("%s: got %d, kept %v, error %v", name, v, kept, err)
		}
		if v, kept, _ := r.get(p, func() (int, error) { return 2, nil }); v != 2 || kept {
			t.Errorf("%s: the old answer was kept: %d", name, v)
		}
		if v, kept, _ := r.get(p, func() (int, error) { return 3, nil }); v != 2 || !kept {
			t.Errorf("%s: got %d, kept %v, want the answer before", name, v, kept)
		}
		forget(r)
		if v, kept, _ := r.get(p, func() (int, error) { return 4, nil }); v != 4 || kept {
			t.Errorf("%s: got %d after it, kept %v", name, v, kept)
		}
	}
}

func TestRecentIsRecent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRecent[int](time.Now, time.Second)
		asked := 0
		ask := func() (int, error) { asked++; return asked, nil }
		p := place{name: "latest"}
		for range 3 {
			_, _, _ = r.get(p, ask)
		}
		time.Sleep(time.Second - 1)
		_, _, _ = r.get(p, ask)
		if asked != 1 {
			t.Errorf("asked %d times within the second", asked)
		}
		time.Sleep(time.Nanosecond)
		if v, kept, _ := r.get(p, ask); v != 2 || kept {
			t.Errorf("after a second: got %d, kept %v", v, kept)
		}
		// What is absent is an answer, forgotten as any other.
		missing := errors.New("missing")
		r.absent = missing
		none := func() (int, error) { asked++; return 0, fmt.Errorf("here: %w", missing) }
		away := place{name: "away"}
		before := asked
		for range 3 {
			if _, _, err := r.get(away, none); !errors.Is(err, missing) {
				t.Errorf("got %v", err)
			}
		}
		if asked != before+1 {
			t.Errorf("asked %d times for what is absent", asked-before)
		}
		r.drop(away)
		if v, kept, err := r.get(away, ask); kept || err != nil || v == 0 {
			t.Errorf("after it came: %d, kept %v, error %v", v, kept, err)
		}
		// Other failures are not kept.
		failed := errors.New("failed")
		q := place{name: "other"}
		if _, _, err := r.get(q, func() (int, error) { return 0, failed }); err != failed {
			t.Errorf("got %v", err)
		}
		if _, kept, err := r.get(q, ask); kept || err != nil {
			t.Errorf("after a failure: kept %v, error %v", kept, err)
		}
	})
}

func TestCachesAreBounded(t *testing.T) {
	r := newRecent[int](time.Now, time.Hour)
	for i := range 3 * recentShards * recentPlaces {
		_, _, _ = r.get(place{name: fmt.Sprint(i)}, func() (int, error) { return i, nil })
	}
	for i := range r.shards {
		if n := len(r.shards[i].m); n > recentPlaces || n < recentPlaces/2 {
			t.Errorf("shard %d has %d places", i, n)
		}
	}

	b := newBodies(100 * (overhead + 1000))
	manifest := func(n, size int) Manifest {
		return Manifest{Descriptor: oci.Descriptor{Digest: oci.DigestOf(oci.SHA256, []byte(fmt.Sprint(n)))}, Body: make([]byte, size)}
	}
	hot := manifest(-1, 1000)
	b.put(hot)
	for i := range 1000 {
		b.put(manifest(i, 1000))
		b.put(manifest(i, 1000)) // again changes nothing
		if _, ok := b.get(hot.Digest); !ok {
			t.Fatalf("what is used all the time was given up after %d others", i)
		}
		if b.size > b.limit || len(b.by) != b.order.Len() {
			t.Fatalf("%d of %d bytes, %d and %d entries", b.size, b.limit, len(b.by), b.order.Len())
		}
	}
	if len(b.by) != 100 {
		t.Errorf("%d manifests are kept, there is room for 100", len(b.by))
	}
	b.put(manifest(-2, int(b.limit/2))) // would push out half of all
	if len(b.by) != 100 {
		t.Errorf("a huge manifest left %d", len(b.by))
	}
}
