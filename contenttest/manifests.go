package contenttest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cove.example/cove/content"
	"cove.example/cove/oci"
)

func manifestKinds(w *world) {
	for _, b := range []string{"config", "layer", "{}"} {
		w.push(w.app, []byte(b))
	}
	oneImage := image("config", "layer")
	docker := image("config", "layer")
	docker.MediaType = oci.MediaTypeDockerImage
	w.put(w.app, oneImage)
	w.put(w.app, docker)
	dockerList := index(docker)
	dockerList.MediaType = oci.MediaTypeDockerList
	nested := index(oneImage)
	w.put(w.app, nested)
	artifact := image("{}", "layer")
	artifact.ArtifactType = "application/vnd.example.sbom"
	unnamed := image("config", "layer")
	unnamed.MediaType = "" // the specification recommends it, no more
	cache := index()
	cache.Manifests = []descriptor{*describe(layerType, []byte("layer")), *describe("application/vnd.buildkit.cacheconfig.v0", []byte("config"))}

	for name, tc := range map[string]struct {
		m            manifest
		mediaType    string
		artifactType string
	}{
		"image":           {oneImage, oci.MediaTypeImage, configType},
		"docker":          {docker, oci.MediaTypeDockerImage, configType},
		"docker-list":     {dockerList, oci.MediaTypeDockerList, ""},
		"index":           {index(oneImage, docker), oci.MediaTypeIndex, ""},
		"index-of-index":  {index(nested), oci.MediaTypeIndex, ""},
		"empty-index":     {index(), oci.MediaTypeIndex, ""},
		"artifact":        {artifact, oci.MediaTypeImage, "application/vnd.example.sbom"},
		"no-layers":       {image("config"), oci.MediaTypeImage, configType},
		"media-type-left": {unnamed, oci.MediaTypeImage, configType},
		"buildkit-cache":  {cache, oci.MediaTypeIndex, ""},
	} {
		put, err := w.s.PutManifest(w.Context(), w.app, tc.mediaType+"; charset=utf-8", tc.m.body(), oci.Digest{}, []oci.Tag{tag(w, name)})
		if err != nil {
			w.Errorf("%s: %v", name, err)
			continue
		}
		for range 2 { // from the database, and from memory
			for _, ref := range []oci.Reference{byTag(w, name), {Digest: put.Digest}} {
				got, err := w.s.Manifest(w.Context(), w.app, ref)
				if err != nil || !bytes.Equal(got.Body, tc.m.body()) || got.Digest != sum(tc.m.body()) || got.Size != int64(len(tc.m.body())) {
					w.Errorf("%s by %s: got %v of %d bytes, error %v", name, ref, got.Digest, got.Size, err)
				}
				if got.MediaType != tc.mediaType || got.ArtifactType != tc.artifactType {
					w.Errorf("%s by %s: got types %q, %q", name, ref, got.MediaType, got.ArtifactType)
				}
			}
		}
	}
	w.noManifest(w.web, byTag(w, "image"))
	w.noManifest(w.web, oci.Reference{Digest: sum(oneImage.body())})
	w.noManifest(w.foreign, oci.Reference{Digest: sum(oneImage.body())})
	w.noManifest(w.app, byTag(w, "nothing"))
}

func manifestByBothDigests(w *world) {
	w.push(w.app, []byte("config"))
	body := image("config").body()
	for _, alg := range []string{oci.SHA256, oci.SHA512} {
		want := oci.DigestOf(alg, body)
		got, err := w.s.PutManifest(w.Context(), w.app, oci.MediaTypeImage, body, want, []oci.Tag{tag(w, alg), tag(w, alg+"-too")})
		w.must(err)
		if got.Digest != want || len(got.Tags) != 2 {
			w.Errorf("got %s with tags %v, want %s and two tags", got.Digest, got.Tags, want)
		}
		w.points(w.app, alg, want)
		w.points(w.app, alg+"-too", want)
	}
	w.must(w.s.DeleteManifest(w.Context(), w.app, sum(body)))
	w.noManifest(w.app, byTag(w, "sha256"))
	w.points(w.app, "sha512", oci.DigestOf(oci.SHA512, body))

	_, err := w.s.PutManifest(w.Context(), w.app, oci.MediaTypeImage, append(body, ' '), sum(body), nil)
	w.wants(err, oci.ErrDigestInvalid)
	w.noManifest(w.app, oci.Reference{Digest: sum(body)})
}

func manifestAgain(w *world) {
	m := w.pushImage(w.app, []string{"v1"}, "config", "layer")
	w.put(w.app, image("config", "layer"), "v1", "v2")
	w.points(w.app, "v1", m.Digest)
	w.points(w.app, "v2", m.Digest)
	// Again is not blind: what it names must still be there.
	w.must(w.s.DeleteBlob(w.Context(), w.app, sum([]byte("layer"))))
	_, err := w.tryPut(w.app, image("config", "layer"), "v3")
	w.wants(err, oci.ErrManifestBlobUnknown)
	w.noManifest(w.app, byTag(w, "v3"))
}

func manifestReferences(w *world) {
	w.push(w.app, []byte("config"))
	w.push(w.app, []byte("layer"))
	w.push(w.web, []byte("theirs"))
	w.pushImage(w.web, nil, "their config")

	missing := func(m manifest, what string) {
		w.Helper()
		_, err := w.tryPut(w.app, m, "broken")
		w.wants(err, oci.ErrManifestBlobUnknown)
		if !strings.Contains(err.Error(), sum([]byte(what)).String()) {
			w.Errorf("%q does not name %s", err, what)
		}
		w.noManifest(w.app, oci.Reference{Digest: sum(m.body())})
		w.noManifest(w.app, byTag(w, "broken"))
	}
	missing(image("config", "layer", "theirs"), "theirs")
	missing(image("no config", "layer"), "no config")
	missing(index(image("their config")), string(image("their config").body()))
	// A blob is no manifest, and the other way round.
	w.push(w.app, image("their config").body())
	missing(index(image("their config")), string(image("their config").body()))

	// Clients fetch a foreign layer elsewhere, if it says where.
	foreign := image("config", "layer")
	foreign.Layers = append(foreign.Layers, *describe("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", []byte("windows")))
	missing(foreign, "windows")
	foreign.Layers[1].URLs = []string{"https://example.com/windows"}
	w.put(w.app, foreign, "windows")

	wrong := image("config", "layer")
	wrong.Layers[0].Size++
	_, err := w.tryPut(w.app, wrong)
	w.wants(err, oci.ErrManifestInvalid)

	// More than one query's worth.
	var many []string
	for i := range 70 {
		many = append(many, fmt.Sprintf("layer %d", i))
		w.push(w.app, []byte(many[i]))
	}
	w.put(w.app, image("config", many...), "many")
	missing(image("config", append(many, "one too many")...), "one too many")
}

// CVE-2021-41190 and its kin: nothing that two readers may understand
// differently gets in. The parser's own tests have the rest.
func manifestRefused(w *world) {
	w.push(w.app, []byte("config"))
	good := string(image("config").body())
	for name, body := range map[string]string{
		"image and index": strings.Replace(good, `"config"`, `"manifests":[],"config"`, 1),
		"a key twice":     strings.Replace(good, `"schemaVersion":2`, `"schemaVersion":2,"schemaVersion":2`, 1),
		"trailing data":   good + "{}",
		"byte order mark": "\ufeff" + good,
		"other type":      strings.Replace(good, oci.MediaTypeImage, oci.MediaTypeIndex, 1),
		"empty":           "",
	} {
		_, err := w.s.PutManifest(w.Context(), w.app, oci.MediaTypeImage, []byte(body), oci.Digest{}, []oci.Tag{tag(w, "bad")})
		if !errors.Is(err, oci.ErrManifestInvalid) {
			w.Errorf("%s: got error %v", name, err)
		}
		w.noManifest(w.app, oci.Reference{Digest: sum([]byte(body))})
	}
	_, err := w.s.PutManifest(w.Context(), w.app, oci.MediaTypeImage, []byte(good+strings.Repeat(" ", oci.MaxManifest)), oci.Digest{}, nil)
	w.wants(err, oci.ErrSizeInvalid)
	w.noManifest(w.app, byTag(w, "bad"))
	_, _, err = w.s.Tags(w.Context(), w.app, content.Page{N: 10})
	w.wants(err, oci.ErrNameUnknown)
	if list, _, err := w.s.Repositories(w.Context(), w.app.Registry, content.Page{N: 10}); err != nil || len(list) > 0 {
		w.Errorf("a repository without a manifest is listed: %v, %v", list, err)
	}
}

func tagsMove(w *world) {
	one := w.pushImage(w.app, []string{"latest", "v1"}, "one")
	w.points(w.app, "latest", one.Digest)
	two := w.pushImage(w.app, []string{"latest", "v2"}, "two")
	w.points(w.app, "latest", two.Digest)
	w.points(w.app, "v1", one.Digest)
	w.must(w.s.DeleteTag(w.Context(), w.app, tag(w, "latest")))
	w.noManifest(w.app, byTag(w, "latest"))
	w.wants(w.s.DeleteTag(w.Context(), w.app, tag(w, "latest")), oci.ErrManifestUnknown)
	w.wants(w.s.DeleteTag(w.Context(), w.web, tag(w, "v1")), oci.ErrManifestUnknown)
	w.points(w.app, "v2", two.Digest)
	w.restart()
	w.noManifest(w.app, byTag(w, "latest"))
	w.points(w.app, "v1", one.Digest)
}

func deleteManifest(w *world) {
	one := w.pushImage(w.app, []string{"v1", "latest"}, "one")
	two := w.pushImage(w.app, []string{"v2"}, "two")
	there := w.pushImage(w.web, []string{"v1"}, "one")
	for _, name := range []string{"v1", "latest"} {
		w.points(w.app, name, one.Digest) // so that whatever is kept is kept
	}
	w.must(w.s.DeleteManifest(w.Context(), w.app, one.Digest))
	for _, ref := range []oci.Reference{byTag(w, "v1"), byTag(w, "latest"), {Digest: one.Digest}} {
		w.noManifest(w.app, ref)
	}
	w.wants(w.s.DeleteManifest(w.Context(), w.app, one.Digest), oci.ErrManifestUnknown)
	w.points(w.app, "v2", two.Digest)
	w.points(w.web, "v1", there.Digest)
	tags, _, err := w.s.Tags(w.Context(), w.app, content.Page{N: 10})
	if w.must(err); !slices.Equal(tags, []string{"v2"}) {
		w.Errorf("the tags are %v", tags)
	}
	w.must(w.s.DeleteManifest(w.Context(), w.app, two.Digest))
	if tags, more, err := w.s.Tags(w.Context(), w.app, content.Page{N: 10}); err != nil || len(tags) > 0 || more {
		w.Errorf("an empty repository lists %v, %v, %v", tags, more, err)
	}
}

// Lists are in the order of bytes on every database, and go on behind a name
// that is not there any more.
func lists(w *world) {
	names := []string{"1.10", "1.9", "A", "B", "Z", "_x", "a", "a-b", "a.b", "a_b", "ab"}
	slices.Sort(names)
	w.pushImage(w.app, names, "config")
	var got []string
	for last, more := "", true; more; {
		var page []string
		var err error
		page, more, err = w.s.Tags(w.Context(), w.app, content.Page{Last: last, N: 4})
		if w.must(err); len(page) == 0 || len(page) > 4 {
			w.Fatalf("a page of %d", len(page))
		}
		got = append(got, page...)
		last = page[len(page)-1]
	}
	if !slices.Equal(got, names) {
		w.Errorf("got tags %v, want %v", got, names)
	}
	rest, more, err := w.s.Tags(w.Context(), w.app, content.Page{Last: "a_", N: 10})
	if w.must(err); more || !slices.Equal(rest, []string{"a_b", "ab"}) {
		w.Errorf("behind a_ stand %v, more %v", rest, more)
	}
	_, _, err = w.s.Tags(w.Context(), w.web, content.Page{N: 4})
	w.wants(err, oci.ErrNameUnknown)

	w.pushImage(w.foreign, []string{"v1"}, "config")
	var repos []string
	for _, name := range []string{"a/b", "a-b", "a", "team/app2", "zoo"} {
		w.pushImage(content.Key{Registry: w.app.Registry, Repo: repo(w, name)}, nil, "config")
		repos = append(repos, name)
	}
	repos = append(repos, "team/app")
	slices.Sort(repos)
	got = nil
	for last, more := "", true; more; last = got[len(got)-1] {
		var page []string
		page, more, err = w.s.Repositories(w.Context(), w.app.Registry, content.Page{Last: last, N: 2})
		w.must(err)
		got = append(got, page...)
	}
	if !slices.Equal(got, repos) {
		w.Errorf("got repositories %v, want %v", got, repos)
	}
}

func referrers(w *world) {
	ctx := w.Context()
	subject := image("subject")
	w.push(w.app, []byte("{}"))
	var sbom, all []string
	for i := range 5 {
		m := image("{}")
		m.Subject = describe(oci.MediaTypeImage, subject.body())
		m.Annotations = map[string]string{"n": fmt.Sprint(i)}
		if m.ArtifactType = "signature"; i%2 == 0 {
			m.ArtifactType = "sbom"
		}
		d := w.put(w.app, m).Digest.String() // the subject is not there yet
		if all = append(all, d); i%2 == 0 {
			sbom = append(sbom, d)
		}
	}
	list := index()
	list.Subject = describe(oci.MediaTypeImage, subject.body())
	all = append(all, w.put(w.app, list).Digest.String())
	slices.Sort(all)
	slices.Sort(sbom)

	page := func(k content.Key, artifactType string, n int) (got []string) {
		for last, more := "", true; more; {
			var part []oci.Descriptor
			var err error
			part, more, err = w.s.Referrers(ctx, k, sum(subject.body()), artifactType, content.Page{Last: last, N: n})
			w.must(err)
			if len(part) > n || more && len(part) == 0 {
				w.Fatalf("a page of %d, more %v", len(part), more)
			}
			for _, d := range part {
				last = d.Digest.String()
				got = append(got, last)
				if d.MediaType == oci.MediaTypeImage && (d.Annotations["n"] == "" || d.Size == 0 || d.ArtifactType == "") {
					w.Errorf("%+v is incomplete", d)
				}
				if artifactType != "" && d.ArtifactType != artifactType {
					w.Errorf("%s is a %s", d.Digest, d.ArtifactType)
				}
			}
		}
		return got
	}
	for _, n := range []int{1, 2, 100} {
		if got := page(w.app, "", n); !slices.Equal(got, all) {
			w.Errorf("by %d: got %v, want %v", n, got, all)
		}
		if got := page(w.app, "sbom", n); !slices.Equal(got, sbom) {
			w.Errorf("sboms by %d: got %v, want %v", n, got, sbom)
		}
	}
	if got := append(page(w.web, "", 10), page(w.foreign, "", 10)...); len(got) > 0 {
		w.Errorf("other repositories list %v", got)
	}
	d, err := oci.ParseDigest(all[0])
	w.must(err)
	w.must(w.s.DeleteManifest(ctx, w.app, d))
	if got := page(w.app, "", 10); !slices.Equal(got, all[1:]) {
		w.Errorf("after a deletion: got %v, want %v", got, all[1:])
	}
}

// 1,000 referrers with 4 MiB of annotations each would be 4 GiB of answer.
func referrersPageIsBounded(w *world) {
	subject := image("subject")
	w.push(w.app, []byte("{}"))
	for i := range 5 {
		m := image("{}")
		m.Subject = describe(oci.MediaTypeImage, subject.body())
		m.Annotations = map[string]string{"n": fmt.Sprint(i), "big": strings.Repeat("x", 3<<19)}
		w.put(w.app, m)
	}
	var got int
	for last, more := "", true; more; {
		part, m, err := w.s.Referrers(w.Context(), w.app, sum(subject.body()), "", content.Page{Last: last, N: 100})
		if w.must(err); len(part) == 0 || len(part) > 2 {
			w.Fatalf("a page of %d", len(part))
		}
		got, more, last = got+len(part), m, part[len(part)-1].Digest.String()
	}
	if got != 5 {
		w.Errorf("%d referrers in all", got)
	}
}

// What another node has changed may go unseen for a second and no longer; what
// this one has changed is seen at once.
func twoNodes(w *world) {
	there := w.node()
	one := w.pushImage(w.app, []string{"latest"}, "one")
	blob := w.push(w.app, []byte("blob"))
	w.points(w.app, "latest", one.Digest)
	w.pulls(w.app, []byte("blob"), blob)
	if _, err := there.Manifest(w.Context(), w.app, byTag(w, "latest")); err != nil {
		w.Fatal(err)
	}
	w.must(there.DeleteManifest(w.Context(), w.app, one.Digest))
	w.must(there.DeleteBlob(w.Context(), w.app, blob))
	if _, err := there.Manifest(w.Context(), w.app, byTag(w, "latest")); err == nil {
		w.Error("the node that deleted it still has it")
	}
	w.clock.advance(content.DefaultRecent)
	w.noManifest(w.app, byTag(w, "latest"))
	w.noManifest(w.app, oci.Reference{Digest: one.Digest})
	w.unknown(w.app, blob)

	// What was asked for in vain is there as soon as it is pushed.
	two := image("two")
	w.push(w.app, []byte("two"))
	w.noManifest(w.app, byTag(w, "two"))
	w.noManifest(w.app, oci.Reference{Digest: sum(two.body())})
	w.put(w.app, two, "two")
	w.points(w.app, "two", sum(two.body()))
	_, err := w.s.Manifest(w.Context(), w.app, oci.Reference{Digest: sum(two.body())})
	w.must(err)
}
