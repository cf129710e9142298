package network

import (
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A table is the map that the same steps make, each version of it stays what
// it was, and Differences finds what differs between any two.
func TestTableIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			table Table[int, int]
			like  map[int]int
		}
		versions := []version{{like: map[int]int{}}}
		keys := rapid.IntRange(1, 400).Draw(t, "keys")
		for range rapid.IntRange(0, 300).Draw(t, "steps") {
			last := versions[len(versions)-1]
			next := version{last.table, maps.Clone(last.like)}
			k := rapid.IntRange(0, keys).Draw(t, "key")
			if rapid.Bool().Draw(t, "with") {
				v := rapid.IntRange(0, 2).Draw(t, "value")
				next.table, next.like[k] = next.table.With(k, v), v
			} else {
				next.table = next.table.Without(k)
				delete(next.like, k)
			}
			versions = append(versions, next)
		}
		var whole Table[int, int] // made in one go, without the versions between
		for k, v := range versions[len(versions)-1].like {
			whole.put(k, v, true)
		}
		versions = append(versions, version{whole, versions[len(versions)-1].like})
		for _, v := range versions {
			if got := maps.Collect(v.table.All()); !maps.Equal(got, v.like) || v.table.Len() != len(v.like) {
				t.Fatalf("the table has %v (%d), and the map %v", got, v.table.Len(), v.like)
			}
			for k := range keys + 1 {
				got, ok := v.table.Get(k)
				if want, there := v.like[k]; got != want || ok != there {
					t.Fatalf("key %d: %d, %v", k, got, ok)
				}
			}
		}
		for range 20 {
			a, b := rapid.SampledFrom(versions).Draw(t, "a"), rapid.SampledFrom(versions).Draw(t, "b")
			var want []int
			for k := range keys + 1 {
				x, inA := a.like[k]
				if y, inB := b.like[k]; inA != inB || x != y {
					want = append(want, k)
				}
			}
			if got := slices.Sorted(Differences(a.table, b.table)); !slices.Equal(got, want) {
				t.Fatalf("between %v and %v differ %v", a.like, b.like, got)
			}
			if same(a.table, b.table) != (len(want) == 0) {
				t.Fatal("same says otherwise")
			}
		}
	})
}

// Keys whose hashes are the same in every bit are kept apart all the same: they
// are hashed otherwise from then on.
func TestTableOfKeysThatMeet(t *testing.T) {
	meet := func(key, depth int) *branch[int, int] {
		b := (*branch[int, int])(nil).with(spotOf(key, depth), key, key, true)
		for d := depth - 1; d >= 0; d-- {
			b = &branch[int, int]{1, []kid[int, int]{{below: b}}}
		}
		return b
	}
	a, b := meet(1, perHash), meet(2, perHash)
	if got := slices.Sorted(func(yield func(int) bool) { differ(a, b, 0, yield) }); !slices.Equal(got, []int{1, 2}) {
		t.Errorf("they differ in %v", got)
	}
	last := spotOf(1, perHash-1)
	if one := below(last, 1); one != spotOf(1, perHash) || one.hash == spotOf(1, 0).hash {
		t.Error("after the last bits of a hash comes no other")
	}
}
