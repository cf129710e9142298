package contenttest

import (
	"errors"
	"fmt"
	"slices"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

// locked is a repository with one image under one tag, a second image under
// another, and a copy's destination.
type locked struct {
	*world
	k, to     content.Key
	tag       oci.Tag
	m, other  content.Manifest
	layer     oci.Digest
	otherBody manifest
}

func (w *world) scene(name string) *locked {
	l := &locked{world: w, tag: tag(w, "t")}
	l.k = content.Key{Registry: "registry-1", Repo: repo(w, name)}
	l.to = content.Key{Registry: "registry-2", Repo: repo(w, name)}
	l.layer = sum([]byte("layer"))
	for _, b := range []string{"config", "layer"} {
		_, err := w.s.Mount(w.Context(), l.k, w.web.Repo, sum([]byte(b)))
		w.must(err)
	}
	l.m = w.put(l.k, image("config", "layer"), "t")
	l.otherBody = image("config")
	l.other = w.put(l.k, l.otherBody, "other")
	return l
}

func (l *locked) read(ref oci.Reference) error {
	_, err := l.s.Manifest(l.Context(), l.k, ref)
	return err
}

// errHidden is the failure of a list that leaves out what it should have.
var errHidden = errors.New("not in the list")

func listed[T any](list []T, err error, has func(T) bool) error {
	if err == nil && !slices.ContainsFunc(list, has) {
		return errHidden
	}
	return err
}

// lockMatrix: each lock on each of the three against everything that can be
// done, with what must happen written down once, by rule.
func lockMatrix(w *world) {
	ops := []struct {
		name string
		do   func(l *locked) error
		// Which locks forbid it, on each of the three.
		repository, tag, manifest content.Locks
		changes                   bool
	}{
		{"pull by tag", func(l *locked) error { return l.read(oci.Reference{Tag: l.tag}) }, content.NoRead, content.NoRead, content.NoRead, false},
		{"pull by digest", func(l *locked) error { return l.read(oci.Reference{Digest: l.m.Digest}) }, content.NoRead, 0, content.NoRead, false},
		{"pull a layer", func(l *locked) error {
			_, err := l.s.StatBlob(l.Context(), l.k, l.layer)
			return err
		}, content.NoRead, 0, content.NoRead, false},
		{"import a layer elsewhere", func(l *locked) error {
			_, err := l.s.Share(l.Context(), l.to, l.k, l.layer)
			return err
		}, content.NoRead, 0, content.NoRead, false},
		{"list repositories", func(l *locked) error {
			list, _, err := l.s.Repositories(l.Context(), l.k.Registry, content.Page{N: 1000})
			return listed(list, err, func(s string) bool { return s == l.k.Repo.String() })
		}, content.NoList, 0, 0, false},
		{"list tags", func(l *locked) error {
			list, _, err := l.s.Tags(l.Context(), l.k, content.Page{N: 10})
			return listed(list, err, func(s string) bool { return s == "t" })
		}, 0, content.NoList, 0, false},
		{"list tags with attributes", func(l *locked) error {
			list, _, err := l.s.TagInfos(l.Context(), l.k, content.Listing{Page: content.Page{N: 10}})
			return listed(list, err, func(t content.TagInfo) bool { return t.Name == "t" })
		}, 0, content.NoList, 0, false},
		{"list manifests", func(l *locked) error {
			list, _, err := l.s.ManifestInfos(l.Context(), l.k, content.Listing{Page: content.Page{N: 10}})
			return listed(list, err, func(m content.ManifestInfo) bool { return m.Digest == l.m.Digest })
		}, 0, 0, content.NoList, false},
		{"overwrite the tag", func(l *locked) error {
			_, err := l.tryPut(l.k, l.otherBody, "t") // as an import with --force does
			return err
		}, content.NoWrite, content.NoWrite, 0, true},
		{"push another tag", func(l *locked) error {
			_, err := l.tryPut(l.k, l.otherBody, "new")
			return err
		}, content.NoWrite, 0, 0, true},
		{"untag", func(l *locked) error { return l.s.DeleteTag(l.Context(), l.k, l.tag) }, guarding, guarding, 0, true},
		{"delete the manifest", func(l *locked) error { return l.s.DeleteManifest(l.Context(), l.k, l.m.Digest) }, guarding, guarding, guarding, true},
		{"delete a layer", func(l *locked) error { return l.s.DeleteBlob(l.Context(), l.k, l.layer) }, guarding, 0, guarding, true},
		{"delete the repository", func(l *locked) error {
			_, _, err := l.s.DeleteRepository(l.Context(), l.k)
			return err
		}, guarding, guarding, guarding, true},
	}
	w.pushImage(w.web, nil, "config", "layer") // the scenes mount from here
	n := 0
	for _, lock := range []content.Locks{content.NoDelete, content.NoWrite, content.NoList, content.NoRead} {
		for level, name := range []string{"repository", "tag", "manifest"} {
			var l *locked
			for _, op := range ops {
				if l == nil {
					n++
					l = w.scene(fmt.Sprint("cell", n))
					w.must([]func() error{
						func() error { return w.s.LockRepository(w.Context(), l.k, lock, 0) },
						func() error { return w.s.LockTag(w.Context(), l.k, l.tag, lock, 0) },
						func() error { return w.s.LockManifest(w.Context(), l.k, l.m.Digest, lock, 0) },
					}[level]())
				}
				forbids := [...]content.Locks{op.repository, op.tag, op.manifest}[level]
				err := op.do(l)
				what := fmt.Sprintf("%s, with lock %d on the %s", op.name, lock, name)
				switch {
				case !forbids.Has(lock):
					if err != nil {
						w.Errorf("%s: %v", what, err)
					}
				case lock == content.NoList:
					if !errors.Is(err, errHidden) {
						w.Errorf("%s: %v", what, err)
					}
				case !errors.Is(err, oci.ErrDisallowed):
					w.Errorf("%s: %v", what, err)
				}
				if err == nil && op.changes {
					l = nil // the next one finds things as they were
				}
			}
		}
	}
	// An index that may not be deleted keeps what it names.
	l := w.scene("index")
	top := w.put(l.k, index(l.otherBody), "index")
	w.must(w.s.LockManifest(w.Context(), l.k, top.Digest, content.NoDelete, 0))
	w.wants(w.s.DeleteManifest(w.Context(), l.k, l.other.Digest), oci.ErrDisallowed)
	w.must(w.s.DeleteManifest(w.Context(), l.k, l.m.Digest))
}

// guarding are the locks that keep something from being deleted.
const guarding = content.NoDelete | content.NoWrite
