package transfer

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

// Importer does the imports that registries were asked for.
type Importer struct {
	Content Target
	Store   resource.Store // where it sees that the target is still there
	Sealer  registry.Sealer
	// Upstream opens a repository of another registry.
	Upstream func(host string, repo oci.Repo, username, password string) (Remote, error)
	// Allowed reports whether the import of an operation may begin, or go on: who
	// has asked for it may have lost the right since.
	Allowed func(ctx context.Context, o resource.Operation, im registry.Import) error
	// Attend is how often that is asked; 0 is every five seconds.
	Attend time.Duration
}

// attendEvery is how often an import is decided again: what is taken away ends
// it within ten seconds.
const attendEvery = 5 * time.Second

// mark is what an attempt leaves for the next.
type mark struct {
	Digest string `json:"digest"`
}

// Do imports one image; it is the work of resource.Operations for
// registry.ImportTask. An image asked for by its tag is what the tag meant when
// the first attempt asked.
func (i *Importer) Do(ctx context.Context, p *resource.Progress) (resource.Object, error) {
	im, err := registry.ParseImport(p.Request)
	if err != nil {
		return nil, err
	}
	if err := i.Allowed(ctx, p.Operation, im); err != nil && !fault.Is(err, fault.NotFound) { // do tells what that is
		return nil, err
	}
	attended, end := i.attend(ctx, p.Operation, im)
	result, err := i.do(attended, p, im)
	if no := end(); err != nil && no != nil {
		err = no
	}
	if errors.Is(err, resource.ErrCanceled) {
		// The registry's content was dropped with it; this is what came later.
		if err := i.drop(ctx, im.UID); err != nil {
			return nil, err
		}
	}
	return result, err
}

// attend has an import decided again while it lasts, and cancels its context
// when it may not go on; end says why, nil where it might to its end. Who cannot
// be asked about is not stopped.
func (i *Importer) attend(ctx context.Context, o resource.Operation, im registry.Import) (_ context.Context, end func() error) {
	attended, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(cmp.Or(i.Attend, attendEvery))
		defer tick.Stop()
		for {
			select {
			case <-attended.Done():
				ended <- nil
				return
			case <-tick.C:
			}
			if err := i.Allowed(attended, o, im); fault.Is(err, fault.Denied) || fault.Is(err, fault.Unauthenticated) {
				cancel()
				ended <- err
				return
			}
		}
	}()
	return attended, func() error {
		cancel()
		return <-ended
	}
}

func (i *Importer) do(ctx context.Context, p *resource.Progress, im registry.Import) (resource.Object, error) {
	places, err := placesOf(im)
	if err != nil {
		return nil, err
	}
	from, err := i.source(im)
	if err != nil {
		return nil, err
	}
	if err := i.present(ctx, p.Operation, im); err != nil {
		return nil, err
	}
	image, err := i.plan(ctx, p, im, from)
	if err != nil {
		return nil, err
	}
	if !im.Force {
		if err := i.free(ctx, places, image); err != nil {
			return nil, err
		}
	}
	var t tally
	said := func(n int64) {
		done := min(t.add(n), image.Bytes)
		p.Say(ctx, percent(done, image.Bytes), detail(image, done))
	}
	for _, place := range places {
		if err := image.Copy(ctx, from, i.Content, place.key, said); err != nil {
			return nil, err
		}
		from, said = Near(i.Content, place.key), func(int64) {} // the others get it from the first
	}
	for _, place := range places {
		if len(place.tags) == 0 {
			continue
		}
		if err := image.Tag(ctx, i.Content, place.key, place.tags); err != nil {
			return nil, err
		}
	}
	return detail(image, image.Bytes), i.present(ctx, p.Operation, im)
}

// plan finds out what is to be copied, and keeps for the next attempt which
// image it is.
func (i *Importer) plan(ctx context.Context, p *resource.Progress, im registry.Import, from Source) (*Image, error) {
	ref, err := oci.ParseReference(im.Source.Reference)
	again := p.Held.State != nil
	if again {
		var m mark
		if err = json.Unmarshal(p.Held.State, &m); err == nil {
			ref, err = oci.ParseReference(m.Digest)
		}
	}
	if err != nil {
		return nil, err
	}
	image, err := Plan(ctx, from, ref)
	if err != nil || again {
		if !again && fault.Is(err, fault.Unavailable) {
			// Nothing has come of it yet, and a caller who waits longer for
			// one kind of no than for another learns what is there.
			err = resource.Final(err)
		}
		return image, err
	}
	state, err := json.Marshal(mark{image.Top.Digest.String()})
	if err != nil {
		return nil, err
	}
	return image, p.Held.Save(ctx, state)
}

func (i *Importer) drop(ctx context.Context, uid string) error {
	body, err := json.Marshal(registry.Drop{UID: uid})
	if err != nil {
		return err
	}
	return i.Store.Update(ctx, func(tx resource.Tx) error {
		return tx.Enqueue(ctx, task.New{Kind: registry.DropTask, Key: uid, Body: body})
	})
}

func detail(image *Image, done int64) resource.Object {
	return resource.Object{
		"digest": image.Top.Digest.String(), "manifests": image.Manifests + 1, "blobs": len(image.blobs),
		"bytes": image.Bytes, "bytesCopied": done,
	}
}

func percent(done, all int64) int {
	if all <= 0 {
		return 0
	}
	return int(float64(done) / float64(all) * 100)
}

// place is a repository that gets the image, and its tags there.
type place struct {
	key  content.Key
	tags []oci.Tag
}

func placesOf(im registry.Import) ([]place, error) {
	var places []place
	at := map[oci.Repo]int{}
	for _, t := range im.Targets {
		repo, err := oci.ParseRepo(t.Repo)
		if err != nil {
			return nil, err
		}
		n, ok := at[repo]
		if !ok {
			n = len(places)
			at[repo] = n
			places = append(places, place{key: content.Key{Registry: im.UID, Repo: repo}})
		}
		if t.Tag == "" {
			continue
		}
		tag, err := oci.ParseTag(t.Tag)
		if err != nil {
			return nil, err
		}
		places[n].tags = append(places[n].tags, tag)
	}
	return places, nil
}

// source opens where the image comes from.
func (i *Importer) source(im registry.Import) (Source, error) {
	repo, err := oci.ParseRepo(im.Source.Repo)
	if err != nil {
		return nil, err
	}
	if im.Source.UID != "" {
		return Near(i.Content, content.Key{Registry: im.Source.UID, Repo: repo}), nil
	}
	password, err := im.Password(i.Sealer)
	if err != nil {
		return nil, err
	}
	remote, err := i.Upstream(im.Source.Host, repo, im.Source.Username, password)
	if err != nil {
		return nil, err
	}
	return Far(remote, i.Content), nil
}

// present fails with resource.ErrCanceled when the target registry has been
// deleted, or deleted and made again: what would be written now belongs to
// nobody.
func (i *Importer) present(ctx context.Context, o resource.Operation, im registry.Import) error {
	return i.Store.View(ctx, func(r resource.Reader) error {
		doc, err := r.Get(ctx, o.On)
		if errors.Is(err, resource.ErrUnknown) || err == nil && doc.UID != im.UID {
			return resource.ErrCanceled.Detail("The registry %s was deleted during the import.", o.On.Name())
		}
		return err
	})
}

// free refuses tags that exist on other content. On this content they are
// what an earlier attempt has set.
func (i *Importer) free(ctx context.Context, places []place, image *Image) error {
	for _, place := range places {
		for _, tag := range place.tags {
			m, err := i.Content.Manifest(ctx, place.key, oci.Reference{Tag: tag})
			switch {
			case errors.Is(err, oci.ErrManifestUnknown), errors.Is(err, oci.ErrNameUnknown):
			case err != nil:
				return err
			case m.Digest != image.Top.Digest:
				return registry.ErrTagExists.Detail("Tag %s:%s already exists in target registry.", place.key.Repo, tag)
			}
		}
	}
	return nil
}
