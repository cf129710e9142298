package content

import (
	"container/list"
	"errors"
	"hash/maphash"
	"sync"
	"time"

	"cove.example/cove/oci"
)

// bodies keeps manifests by digest, the least recently used given up first.
// It may be shared by all repositories because everything in it is a function
// of the body; whether a repository has the manifest is asked elsewhere.
type bodies struct {
	mu    sync.Mutex
	limit int64 // in bytes
	size  int64
	order *list.List // of Manifest, the latest in front
	by    map[oci.Digest]*list.Element
}

// overhead is about what a cached manifest takes besides its body.
const overhead = 512

func newBodies(limit int64) *bodies {
	return &bodies{limit: limit, order: list.New(), by: map[oci.Digest]*list.Element{}}
}

func (b *bodies) get(d oci.Digest) (Manifest, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.by[d]
	if !ok {
		return Manifest{}, false
	}
	b.order.MoveToFront(e)
	return e.Value.(Manifest), true
}

// put keeps m unless it would take more than a quarter of the room.
func (b *bodies) put(m Manifest) {
	cost := int64(len(m.Body)) + overhead
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.by[m.Digest]; ok || cost > b.limit/4 {
		return
	}
	b.by[m.Digest] = b.order.PushFront(m)
	b.size += cost
	for b.size > b.limit {
		old := b.order.Remove(b.order.Back()).(Manifest)
		delete(b.by, old.Digest)
		b.size -= int64(len(old.Body)) + overhead
	}
}

// place is a name or a digest in a repository.
type place struct {
	Key
	name string
}

const (
	recentShards = 16
	recentPlaces = 512 // of a shard
)

// recent gives an answer of the database again for a short while.
//
// The danger is the reader that asked before a deletion and files its answer
// after it. So each removal moves its shard on, and an answer is kept only if
// its shard has not moved since the question.
type recent[V any] struct {
	now    func() time.Time
	keep   time.Duration
	absent error // a failure that is an answer, and kept as one; nil is none
	seed   maphash.Seed
	shards [recentShards]shard[V]
}

type shard[V any] struct {
	mu    sync.Mutex
	moves uint64
	m     map[place]answer[V]
}

type answer[V any] struct {
	v     V
	err   error // that it is absent
	until time.Time
}

func newRecent[V any](now func() time.Time, keep time.Duration) *recent[V] {
	r := &recent[V]{now: now, keep: keep, seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].m = map[place]answer[V]{}
	}
	return r
}

func (r *recent[V]) shard(p place) *shard[V] {
	return &r.shards[maphash.Comparable(r.seed, p)%recentShards]
}

// get returns the answer kept for p, or asks for it.
func (r *recent[V]) get(p place, ask func() (V, error)) (v V, kept bool, err error) {
	s, now := r.shard(p), r.now()
	s.mu.Lock()
	a, ok := s.m[p]
	moves := s.moves
	s.mu.Unlock()
	if ok && now.Before(a.until) {
		return a.v, true, a.err
	}
	if v, err = ask(); err != nil && (r.absent == nil || !errors.Is(err, r.absent)) {
		return v, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moves == moves {
		for old := range s.m { // any will do: they are a second old at most
			if len(s.m) < recentPlaces {
				break
			}
			delete(s.m, old)
		}
		s.m[p] = answer[V]{v, err, now.Add(r.keep)}
	}
	return v, false, err
}

// drop forgets p, and what is being asked about it.
func (r *recent[V]) drop(p place) {
	s := r.shard(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moves++
	delete(s.m, p)
}

func (r *recent[V]) clear() {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		s.moves++
		clear(s.m)
		s.mu.Unlock()
	}
}
