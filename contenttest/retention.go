package contenttest

import (
	"errors"
	"slices"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// docker makes of an image or an index what Docker would push.
func docker(m manifest) manifest {
	m.MediaType = map[string]string{oci.MediaTypeImage: oci.MediaTypeDockerImage, oci.MediaTypeIndex: oci.MediaTypeDockerList}[m.MediaType]
	return m
}

// retention: what has had no tag for long enough goes, counted from the day of
// the policy on; what has a tag again, is locked, is named by another manifest
// or is no Docker manifest stays.
func retention(w *world) {
	const day = 24 * time.Hour
	w.push(w.app, []byte("config"))
	made := map[string]oci.Digest{}
	put := func(name string, m manifest, tags ...string) manifest {
		m.Annotations = map[string]string{"name": name}
		made[name] = w.put(w.app, m, tags...).Digest
		return m
	}
	docker := func(name string, tags ...string) manifest { return put(name, docker(image("config")), tags...) }
	untag := func(names ...string) {
		for _, name := range names {
			w.must(w.s.DeleteTag(w.Context(), w.app, tag(w, name)))
		}
	}
	docker("untagged before the policy", "a")
	untag("a")
	w.clock.advance(time.Hour)
	since := w.clock.now()

	docker("locked", "locked")
	docker("not to be written", "unwritable")
	docker("tagged", "kept")
	again := docker("tagged again", "d")
	docker("untagged", "e")
	docker("overwritten", "f")
	docker("one of two tags gone", "g", "h")
	docker("two tags, both gone", "i", "j")
	docker("never tagged")
	subject := docker("a subject", "k")
	signature := image("config")
	signature.Subject = describe(subject.MediaType, subject.body())
	put("a signature", signature)
	child := docker("of a list that stays")
	list := index(child)
	list.MediaType = oci.MediaTypeDockerList
	put("a list", list, "list")
	child = docker("of a list that goes")
	list = index(child)
	list.MediaType = oci.MediaTypeDockerList
	put("an untagged list", list)
	put("an OCI image", image("config"))
	untag("locked", "unwritable", "d", "e", "g", "i", "j", "k")
	docker("overwrites", "f")
	w.put(w.app, again, "d2")
	w.must(w.s.LockManifest(w.Context(), w.app, made["locked"], content.NoDelete, 0))
	w.must(w.s.LockManifest(w.Context(), w.app, made["not to be written"], content.NoWrite, 0))
	// The same in another repository, which is locked, and another registry.
	for _, k := range []content.Key{w.web, w.foreign} {
		w.push(k, []byte("config"))
		w.put(k, child)
	}
	w.must(w.s.LockRepository(w.Context(), w.web, content.NoWrite, 0))

	purge := func(after time.Duration) (names []string) {
		w.Helper()
		w.must(w.s.Purge(w.Context(), w.app.Registry, since, since.Add(after), func(u content.Untagged) {
			name := "of another repository"
			for n, d := range made {
				if d == u.Digest && u.Repo == w.app.Repo {
					name = n
				}
			}
			names = append(names, name)
			if u.MediaType == "" || u.Size == 0 || u.Since.Before(since) {
				w.Errorf("told of %s: %+v", name, u)
			}
		}))
		slices.Sort(names)
		return names
	}
	for _, d := range made { // what is remembered must not be served afterwards
		_, err := w.s.Manifest(w.Context(), w.app, oci.Reference{Digest: d})
		w.must(err)
	}
	if got := purge(-time.Second); got != nil {
		w.Errorf("before its time: %q", got)
	}
	w.clock.advance(day)
	docker("untagged a day later", "l")
	untag("l")
	want := []string{"an untagged list", "never tagged", "of a list that goes", "overwritten", "two tags, both gone", "untagged"}
	if got := purge(time.Hour); !slices.Equal(got, want) {
		w.Errorf("went: %q\nwant: %q", got, want)
	}
	for name, d := range made {
		_, err := w.s.Manifest(w.Context(), w.app, oci.Reference{Digest: d})
		if gone := slices.Contains(want, name); gone != errors.Is(err, oci.ErrManifestUnknown) || err != nil && !gone {
			w.Errorf("%s: %v", name, err)
		}
	}
	if got := purge(time.Hour); got != nil {
		w.Errorf("again: %q", got)
	}
	// What held something is gone: its time counts from when it had no tag.
	w.must(w.s.LockManifest(w.Context(), w.app, made["locked"], 0, content.NoDelete))
	w.must(w.s.DeleteManifest(w.Context(), w.app, made["a signature"]))
	untag("d2")
	if got, want := purge(day+time.Hour), []string{"a subject", "locked", "tagged again", "untagged a day later"}; !slices.Equal(got, want) {
		w.Errorf("later went: %q, want %q", got, want)
	}
}
