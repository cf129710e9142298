package contenttest

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
	"pgregory.net/rapid"
)

// modelled is what the Store should hold, kept in the simplest way.
type modelled struct {
	blobs     map[content.Key]map[string]time.Time // by content: when last relied on
	manifests map[content.Key]map[oci.Digest][]string
	tags      map[content.Key]map[string]oci.Digest
}

// model compares any sequence of operations with the model. Few names and few
// contents, so that operations meet.
func model(w *world) {
	fewer("rapid.checks", "20", w.T)
	n := 0 // of registries made
	rapid.Check(w.T, func(t *rapid.T) {
		n++
		m := modelled{
			blobs:     map[content.Key]map[string]time.Time{},
			manifests: map[content.Key]map[oci.Digest][]string{},
			tags:      map[content.Key]map[string]oci.Digest{},
		}
		var keys []content.Key
		for _, name := range []string{"a", "a/b"} {
			k := content.Key{Registry: fmt.Sprint("model-", n), Repo: repo(w, name)}
			keys = append(keys, k)
			m.blobs[k], m.manifests[k], m.tags[k] = map[string]time.Time{}, map[oci.Digest][]string{}, map[string]oci.Digest{}
		}
		run := steps{w: w, m: m, keys: keys}
		t.Repeat(map[string]func(*rapid.T){
			"push":           run.push,
			"mount":          run.mount,
			"deleteBlob":     run.deleteBlob,
			"put":            run.put,
			"deleteManifest": run.deleteManifest,
			"deleteTag":      run.deleteTag,
			"collect":        run.collect,
			"":               run.check,
		})
	})
}

var (
	contents = []string{"one", "two", "three"}
	tagNames = []string{"v1", "v2"}
)

// fewer lowers rapid's default: this runs on two databases in every test run.
// The flag given on the command line wins.
func fewer(name, value string, t *testing.T) {
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == name })
	if given {
		return
	}
	if err := flag.Set(name, value); err != nil {
		t.Fatal(err)
	}
}

type steps struct {
	w    *world
	m    modelled
	keys []content.Key
}

func (s steps) key(t *rapid.T) content.Key { return rapid.SampledFrom(s.keys).Draw(t, "repository") }

func (s steps) same(t *rapid.T, what string, err error, want error) {
	if !errors.Is(err, want) {
		t.Fatalf("%s: got error %v, the model says %v", what, err, want)
	}
}

func blobs(t *rapid.T) string { return rapid.SampledFrom(contents).Draw(t, "content") }

func (s steps) push(t *rapid.T) {
	k, b := s.key(t), blobs(t)
	u, err := s.w.s.StartUpload(s.w.Context(), k, "")
	s.same(t, "start", err, nil)
	_, err = s.w.s.Finish(s.w.Context(), k, u.ID, 0, strings.NewReader(b), sum([]byte(b)))
	s.same(t, "push", err, nil)
	s.m.blobs[k][b] = s.w.clock.now()
}

func (s steps) mount(t *rapid.T) {
	k, from, b := s.key(t), s.key(t), blobs(t)
	_, err := s.w.s.Mount(s.w.Context(), k, from.Repo, sum([]byte(b)))
	if _, ok := s.m.blobs[from][b]; !ok {
		s.same(t, "mount", err, oci.ErrBlobUnknown)
		return
	}
	s.same(t, "mount", err, nil)
	s.m.blobs[from][b] = s.w.clock.now()
	s.m.blobs[k][b] = s.w.clock.now()
}

func (s steps) deleteBlob(t *rapid.T) {
	k, b := s.key(t), blobs(t)
	err := s.w.s.DeleteBlob(s.w.Context(), k, sum([]byte(b)))
	if _, ok := s.m.blobs[k][b]; !ok {
		s.same(t, "delete blob", err, oci.ErrBlobUnknown)
		return
	}
	s.same(t, "delete blob", err, nil)
	delete(s.m.blobs[k], b)
}

func (s steps) put(t *rapid.T) {
	k := s.key(t)
	names := rapid.SliceOfNDistinct(rapid.SampledFrom(contents), 1, 3, rapid.ID).Draw(t, "contents")
	tags := rapid.SliceOfDistinct(rapid.SampledFrom(tagNames), rapid.ID).Draw(t, "tags")
	mf := image(names[0], names[1:]...)
	got, err := s.w.tryPut(k, mf, tags...)
	for _, b := range names {
		if _, ok := s.m.blobs[k][b]; !ok {
			s.same(t, "put", err, oci.ErrManifestBlobUnknown)
			return
		}
	}
	s.same(t, "put", err, nil)
	s.m.manifests[k][got.Digest] = names
	for _, b := range names {
		s.m.blobs[k][b] = s.w.clock.now()
	}
	for _, name := range tags {
		s.m.tags[k][name] = got.Digest
	}
}

func (s steps) deleteManifest(t *rapid.T) {
	k := s.key(t)
	all := slices.SortedFunc(maps.Keys(s.m.manifests[k]), func(a, b oci.Digest) int { return strings.Compare(a.String(), b.String()) })
	if len(all) == 0 {
		s.same(t, "delete manifest", s.w.s.DeleteManifest(s.w.Context(), k, sum([]byte("none"))), oci.ErrManifestUnknown)
		return
	}
	d := rapid.SampledFrom(all).Draw(t, "manifest")
	s.same(t, "delete manifest", s.w.s.DeleteManifest(s.w.Context(), k, d), nil)
	delete(s.m.manifests[k], d)
	maps.DeleteFunc(s.m.tags[k], func(_ string, on oci.Digest) bool { return on == d })
}

func (s steps) deleteTag(t *rapid.T) {
	k, name := s.key(t), rapid.SampledFrom(tagNames).Draw(t, "tag")
	err := s.w.s.DeleteTag(s.w.Context(), k, tag(s.w, name))
	if _, ok := s.m.tags[k][name]; !ok {
		s.same(t, "delete tag", err, oci.ErrManifestUnknown)
		return
	}
	s.same(t, "delete tag", err, nil)
	delete(s.m.tags[k], name)
}

// collect lets so much time pass that everything unlinked may go, whatever the
// checks between have touched.
func (s steps) collect(t *rapid.T) {
	s.w.clock.advance(2 * grace)
	if _, err := s.w.s.Collect(s.w.Context(), content.CollectOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, k := range s.keys {
		maps.DeleteFunc(s.m.blobs[k], func(b string, _ time.Time) bool {
			for _, named := range s.m.manifests[k] {
				if slices.Contains(named, b) {
					return false
				}
			}
			return true
		})
	}
}

func (s steps) check(t *rapid.T) {
	ctx := s.w.Context()
	for _, k := range s.keys {
		for _, b := range contents {
			_, err := s.w.s.StatBlob(ctx, k, sum([]byte(b)))
			var want error
			if _, ok := s.m.blobs[k][b]; !ok {
				want = oci.ErrBlobUnknown
			}
			s.same(t, fmt.Sprintf("stat %q in %s", b, k.Repo), err, want)
		}
		for _, name := range tagNames {
			got, err := s.w.s.Manifest(ctx, k, byTag(s.w, name))
			want, ok := s.m.tags[k][name]
			if !ok {
				s.same(t, "tag "+name, err, oci.ErrManifestUnknown)
			} else if err != nil || got.Digest != want {
				t.Fatalf("tag %s of %s: got %s, error %v, the model says %s", name, k.Repo, got.Digest, err, want)
			}
		}
		for d := range s.m.manifests[k] {
			_, err := s.w.s.Manifest(ctx, k, oci.Reference{Digest: d})
			s.same(t, "manifest "+d.String(), err, nil)
		}
		tags, _, err := s.w.s.Tags(ctx, k, content.Page{N: 100})
		if err == nil && !slices.Equal(tags, slices.Sorted(maps.Keys(s.m.tags[k]))) {
			t.Fatalf("tags of %s: got %v, the model says %v", k.Repo, tags, s.m.tags[k])
		}
	}
}
