package network

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// Table is a map that is never modified: With and Without return another one,
// which shares with it all but the few nodes on the way to the key. So a
// network of ten thousand machines changes as quickly as one of ten, and where
// two versions of it differ is found without looking at the rest. Looking a key
// up allocates nothing. The zero Table is empty, and == says that two are one
// and the same.
type Table[K, V comparable] struct {
	root *branch[K, V]
	size int
}

// branch is a node of a trie over the bits of the keys' hashes (source:
// Bagwell, Ideal Hash Trees, 2001).
type branch[K, V comparable] struct {
	has  uint32      // which of the 32 places are taken
	kids []kid[K, V] // what is there, in order
}

// kid is a further branch, or a key and its value where that is nil.
type kid[K, V comparable] struct {
	below *branch[K, V]
	key   K
	value V
}

// The bits of a hash that choose a kid, and how many branches one hash lasts.
const (
	placeBits = 5
	perHash   = 64 / placeBits
)

var tableSeed = maphash.MakeSeed()

// spot is where a key belongs at one depth: the last bits of hash choose the
// kid. Keys whose whole hashes are the same part at the next, where they are
// hashed otherwise.
type spot struct {
	hash  uint64
	depth int
}

func spotOf[K comparable](key K, depth int) spot {
	if depth < perHash {
		return spot{maphash.Comparable(tableSeed, key) >> (placeBits * depth), depth}
	}
	type again struct {
		key   K
		round int
	}
	return spot{maphash.Comparable(tableSeed, again{key, depth / perHash}) >> (placeBits * (depth % perHash)), depth}
}

func (s spot) bit() uint32 { return 1 << (s.hash & (1<<placeBits - 1)) }

// below is the spot of the same key one branch further down.
func below[K comparable](s spot, key K) spot {
	if (s.depth+1)%perHash == 0 {
		return spotOf(key, s.depth+1)
	}
	return spot{s.hash >> placeBits, s.depth + 1}
}

// Get returns what the table has for a key.
func (t Table[K, V]) Get(key K) (v V, ok bool) {
	at := spotOf(key, 0)
	for b := t.root; b != nil; at = below(at, key) {
		k := b.kid(at.bit())
		if k == nil {
			return v, false
		}
		if k.below == nil {
			if k.key == key {
				return k.value, true
			}
			return v, false
		}
		b = k.below
	}
	return v, false
}

// Has reports whether the table has the key.
func (t Table[K, V]) Has(key K) bool {
	_, ok := t.Get(key)
	return ok
}

// Len is how many keys there are.
func (t Table[K, V]) Len() int { return t.size }

// With is the table with a value for a key.
func (t Table[K, V]) With(key K, v V) Table[K, V] {
	t.put(key, v, false)
	return t
}

// put makes t the table with a value for a key. own says that nobody else has
// t: its nodes are changed where they are.
func (t *Table[K, V]) put(key K, v V, own bool) {
	if held, ok := t.Get(key); !ok {
		t.size++
	} else if held == v {
		return
	}
	t.root = t.root.with(spotOf(key, 0), key, v, own)
}

// Without is the table without a key.
func (t Table[K, V]) Without(key K) Table[K, V] {
	if t.Has(key) {
		t.size--
		t.root = t.root.without(spotOf(key, 0), key)
	}
	return t
}

// All are the keys and values, in no order.
func (t Table[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { t.root.all(yield) }
}

// Differences are the keys that only one of two tables has, or that have other
// values in them. What the two share is not looked at.
func Differences[K, V comparable](a, b Table[K, V]) iter.Seq[K] {
	return func(yield func(K) bool) { differ(a.root, b.root, 0, yield) }
}

func same[K, V comparable](a, b Table[K, V]) bool {
	for range Differences(a, b) {
		return false
	}
	return true
}

// before is how many kids are before the one of a bit.
func (b *branch[K, V]) before(bit uint32) int { return bits.OnesCount32(b.has & (bit - 1)) }

func (b *branch[K, V]) kid(bit uint32) *kid[K, V] {
	if b == nil || b.has&bit == 0 {
		return nil
	}
	return &b.kids[b.before(bit)]
}

func (b *branch[K, V]) with(at spot, key K, v V, own bool) *branch[K, V] {
	bit, leaf := at.bit(), kid[K, V]{key: key, value: v}
	if b == nil {
		return &branch[K, V]{bit, []kid[K, V]{leaf}}
	}
	if !own {
		b = &branch[K, V]{b.has, slices.Clone(b.kids)}
	}
	k := b.kid(bit)
	switch {
	case k == nil:
		b.kids = slices.Insert(b.kids, b.before(bit), leaf)
		b.has |= bit
	case k.below == nil && k.key == key:
		k.value = v
	default:
		*k = kid[K, V]{below: k.deeper(at.depth+1).with(below(at, key), key, v, own)}
	}
	return b
}

// deeper is the branch at a kid's place: its own, or a new one that has its
// key.
func (k *kid[K, V]) deeper(depth int) *branch[K, V] {
	switch {
	case k == nil:
		return nil
	case k.below != nil:
		return k.below
	}
	return (*branch[K, V])(nil).with(spotOf(k.key, depth), k.key, k.value, true)
}

// without is the branch without a key that is there; nil if nothing is left.
func (b *branch[K, V]) without(at spot, key K) *branch[K, V] {
	bit := at.bit()
	i, left := b.before(bit), kid[K, V]{}
	if down := b.kids[i].below; down != nil {
		if left.below = down.without(below(at, key), key); left.below != nil && len(left.below.kids) == 1 && left.below.kids[0].below == nil {
			left = left.below.kids[0] // a branch for one key is none
		}
		kids := slices.Clone(b.kids)
		kids[i] = left
		return &branch[K, V]{b.has, kids}
	}
	if len(b.kids) == 1 {
		return nil
	}
	return &branch[K, V]{b.has &^ bit, slices.Concat(b.kids[:i], b.kids[i+1:])}
}

func (b *branch[K, V]) all(yield func(K, V) bool) bool {
	if b == nil {
		return true
	}
	for i := range b.kids {
		k := &b.kids[i]
		if k.below != nil && !k.below.all(yield) || k.below == nil && !yield(k.key, k.value) {
			return false
		}
	}
	return true
}

func differ[K, V comparable](a, b *branch[K, V], depth int, yield func(K) bool) bool {
	if a == b {
		return true
	}
	var taken uint32
	for _, x := range []*branch[K, V]{a, b} {
		if x != nil {
			taken |= x.has
		}
	}
	for ; taken != 0; taken &= taken - 1 {
		bit := taken & -taken
		x, y := a.kid(bit), b.kid(bit)
		switch {
		case x.isKey() && y.isKey() && x.key == y.key:
			if x.value != y.value && !yield(x.key) {
				return false
			}
		case x.isKey() && (y == nil || y.isKey()), y.isKey() && x == nil:
			if x != nil && !yield(x.key) || y != nil && !yield(y.key) {
				return false
			}
		case !differ(x.deeper(depth+1), y.deeper(depth+1), depth+1, yield):
			return false
		}
	}
	return true
}

func (k *kid[K, V]) isKey() bool { return k != nil && k.below == nil }
