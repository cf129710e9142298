package contenttest

import (
	"slices"
	"strings"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// locks: each is obeyed by what it forbids, by nothing else, and not after it
// has been taken away.
func locks(w *world) {
	m := w.pushImage(w.app, []string{"free", "locked"}, "config", "layer")
	locked := tag(w, "locked")
	other := image("config")
	w.put(w.app, other, "other")
	config := sum([]byte("config"))

	type act struct {
		name string
		do   func() error
	}
	put := func(names ...string) func() error {
		return func() error { _, err := w.tryPut(w.app, other, names...); return err }
	}
	read := func(ref oci.Reference) func() error {
		return func() error { _, err := w.s.Manifest(w.Context(), w.app, ref); return err }
	}
	blob := func() error { _, err := w.s.StatBlob(w.Context(), w.app, config); return err }
	untag := func() error { return w.s.DeleteTag(w.Context(), w.app, locked) }
	remove := func() error { return w.s.DeleteManifest(w.Context(), w.app, m.Digest) }
	removeBlob := func() error { return w.s.DeleteBlob(w.Context(), w.app, config) }
	removeAll := func() error { _, _, err := w.s.DeleteRepository(w.Context(), w.app); return err }

	onTag := func(set, clear content.Locks) error { return w.s.LockTag(w.Context(), w.app, locked, set, clear) }
	onManifest := func(set, clear content.Locks) error {
		return w.s.LockManifest(w.Context(), w.app, m.Digest, set, clear)
	}
	onRepository := func(set, clear content.Locks) error { return w.s.LockRepository(w.Context(), w.app, set, clear) }

	for _, c := range []struct {
		name      string
		lock      func(set, clear content.Locks) error
		locks     content.Locks
		forbidden []act
		allowed   []act
	}{
		{
			"a tag that may not be written", onTag, content.NoWrite,
			[]act{{"overwrite", put("locked")}, {"overwrite with another", put("free", "locked")}, {"untag", untag}, {"delete the manifest", remove}, {"delete all", removeAll}},
			[]act{{"read", read(byTag(w, "locked"))}, {"write another", put("third")}},
		},
		{
			"a tag that may not be deleted", onTag, content.NoDelete,
			[]act{{"untag", untag}, {"delete the manifest", remove}, {"delete all", removeAll}},
			[]act{{"read", read(byTag(w, "locked"))}},
		},
		{
			"a tag that may not be read", onTag, content.NoRead,
			[]act{{"read", read(byTag(w, "locked"))}},
			[]act{{"read another", read(byTag(w, "free"))}, {"read its manifest", read(oci.Reference{Digest: m.Digest})}},
		},
		{
			"a manifest that may not be deleted", onManifest, content.NoDelete,
			[]act{{"delete", remove}, {"delete all", removeAll}},
			[]act{{"read", read(byTag(w, "free"))}},
		},
		{
			"a manifest that may not be read", onManifest, content.NoRead,
			[]act{{"read", read(oci.Reference{Digest: m.Digest})}, {"read by tag", read(byTag(w, "free"))}},
			[]act{{"read another", read(byTag(w, "other"))}, {"read a blob that another names too", blob}},
		},
		{
			"a repository that may not be written", onRepository, content.NoWrite,
			[]act{{"push", put("new")}, {"untag", untag}, {"delete", remove}, {"delete a blob", removeBlob}, {"delete all", removeAll}},
			[]act{{"read", read(byTag(w, "free"))}, {"read a blob", blob}},
		},
		{
			"a repository that may not be read", onRepository, content.NoRead,
			[]act{{"read", read(byTag(w, "free"))}, {"read a blob", blob}},
			[]act{{"push", put("new")}},
		},
	} {
		for _, a := range c.forbidden { // what is remembered from before is no excuse
			if strings.HasPrefix(a.name, "read") {
				w.must(a.do())
			}
		}
		w.must(c.lock(c.locks, 0))
		for _, a := range c.forbidden {
			if err := a.do(); err == nil {
				w.Fatalf("%s: %s was allowed", c.name, a.name)
			} else {
				w.wants(err, oci.ErrDisallowed)
			}
		}
		for _, a := range c.allowed {
			if err := a.do(); err != nil {
				w.Errorf("%s: %s: %v", c.name, a.name, err)
			}
		}
		// Another registry's repository of the same name has no locks.
		theirs := w.pushImage(w.foreign, []string{"free"}, "config", "layer")
		w.points(w.foreign, "free", theirs.Digest)
		w.must(c.lock(0, c.locks))
		for _, a := range c.forbidden {
			if strings.HasPrefix(a.name, "read") {
				w.must(a.do())
			}
		}
	}

	w.wants(w.s.LockTag(w.Context(), w.app, tag(w, "none"), content.NoRead, 0), oci.ErrManifestUnknown)
	w.wants(w.s.LockManifest(w.Context(), w.app, sum([]byte("none")), content.NoRead, 0), oci.ErrManifestUnknown)
	w.wants(w.s.LockRepository(w.Context(), w.web, content.NoRead, 0), oci.ErrNameUnknown)
}

// inventory: what is known of tags, manifests and a repository, in each order,
// page by page, without what is hidden.
func inventory(w *world) {
	var digests []oci.Digest
	began := w.clock.now()
	for _, name := range []string{"c", "a", "b"} {
		w.clock.advance(time.Minute)
		digests = append(digests, w.pushImage(w.app, []string{name}, `{"architecture":"arm64","os":"linux","n":"`+name+`"}`, "layer").Digest)
	}
	tags := func(l content.Listing) (names []string) {
		for {
			l.N = 1
			page, more, err := w.s.TagInfos(w.Context(), w.app, l)
			w.must(err)
			for _, t := range page {
				names = append(names, t.Name)
				l.Last, l.At = t.Name, t.Changed
			}
			if !more {
				return names
			}
			// The entry that the page ended with may go before the next.
			if l.Order != content.ByName && len(names) == 1 {
				w.must(w.s.LockTag(w.Context(), w.app, tag(w, names[0]), content.NoList, 0))
				defer func() { w.must(w.s.LockTag(w.Context(), w.app, tag(w, names[0]), 0, content.NoList)) }()
			}
		}
	}
	for order, want := range map[content.Order]string{content.ByName: "a b c", content.OldestFirst: "c a b", content.NewestFirst: "b a c"} {
		if got := strings.Join(tags(content.Listing{Order: order}), " "); got != want {
			w.Errorf("order %d: %s, want %s", order, got, want)
		}
	}
	if got := tags(content.Listing{On: digests[1]}); !slices.Equal(got, []string{"a"}) {
		w.Errorf("on one manifest: %v", got)
	}
	list, more, err := w.s.ManifestInfos(w.Context(), w.app, content.Listing{Page: content.Page{N: 2}, Order: content.NewestFirst})
	w.must(err)
	if !more || len(list) != 2 || list[0].Digest != digests[2] || list[1].Digest != digests[1] {
		w.Errorf("the newest manifests: %+v, more %v", list, more)
	}
	m, err := w.s.ManifestInfo(w.Context(), w.app, digests[0])
	w.must(err)
	config := int64(len(`{"architecture":"arm64","os":"linux","n":"c"}`))
	if m.Architecture != "arm64" || m.OS != "linux" || m.ImageSize != config+int64(len("layer")) || m.ConfigMediaType != configType ||
		!slices.Equal(m.Tags, []string{"c"}) || !m.Pushed.Equal(began.Add(time.Minute)) {
		w.Errorf("a manifest: %+v", m)
	}
	r, err := w.s.Repository(w.Context(), w.app)
	w.must(err)
	if r.Manifests != 3 || r.Tags != 3 || !r.Created.Equal(began.Add(time.Minute)) || !r.Changed.Equal(began.Add(3*time.Minute)) {
		w.Errorf("the repository: %+v", r)
	}
	size, err := w.s.Size(w.Context(), w.app.Registry)
	w.must(err)
	var want int64 = int64(len("layer")) + 3*config
	for _, d := range digests {
		m, err := w.s.ManifestInfo(w.Context(), w.app, d)
		w.must(err)
		want += m.Size
	}
	if size != want {
		w.Errorf("the registry's content has %d bytes, want %d: each once", size, want)
	}
	w.must(w.s.LockTag(w.Context(), w.app, tag(w, "a"), content.NoList, 0))
	w.must(w.s.LockManifest(w.Context(), w.app, digests[2], content.NoList, 0))
	if got := tags(content.Listing{}); !slices.Equal(got, []string{"b", "c"}) {
		w.Errorf("with a hidden one the tags are %v", got)
	}
	if plain, _, err := w.s.Tags(w.Context(), w.app, content.Page{N: 9}); err != nil || !slices.Equal(plain, []string{"b", "c"}) {
		w.Errorf("with a hidden one the list of tags is %v, %v", plain, err)
	}
	if list, _, err := w.s.ManifestInfos(w.Context(), w.app, content.Listing{Page: content.Page{N: 9}}); err != nil || len(list) != 2 {
		w.Errorf("with a hidden one there are %d manifests, %v", len(list), err)
	}
	w.points(w.app, "a", digests[1]) // hidden is not gone
	w.must(w.s.LockRepository(w.Context(), w.app, content.NoList, 0))
	if repos, _, err := w.s.Repositories(w.Context(), w.app.Registry, content.Page{N: 9}); err != nil || len(repos) != 0 {
		w.Errorf("a hidden repository is listed: %v, %v", repos, err)
	}
}

// deleteRepository takes everything away, and nothing of another's.
func deleteRepository(w *world) {
	m := w.pushImage(w.app, []string{"a", "b"}, "config", "layer")
	w.pushImage(w.web, []string{"a"}, "config", "layer")
	manifests, tags, err := w.s.DeleteRepository(w.Context(), w.app)
	w.must(err)
	slices.Sort(tags)
	if !slices.Equal(manifests, []string{m.Digest.String()}) || !slices.Equal(tags, []string{"a", "b"}) {
		w.Errorf("deleted %v, %v", manifests, tags)
	}
	w.noManifest(w.app, byTag(w, "a"))
	w.noManifest(w.app, oci.Reference{Digest: m.Digest})
	w.unknown(w.app, sum([]byte("layer")))
	w.pulls(w.web, []byte("layer"), sum([]byte("layer")))
	_, err = w.s.Repository(w.Context(), w.app)
	w.wants(err, oci.ErrNameUnknown)
	_, _, err = w.s.DeleteRepository(w.Context(), w.app)
	w.wants(err, oci.ErrNameUnknown)
	w.restart()
	w.noManifest(w.app, byTag(w, "a"))
	again := w.pushImage(w.app, []string{"a"}, "config", "layer")
	w.points(w.app, "a", again.Digest)
}
