package content

import (
	"context"
	"errors"
	"fmt"

	"cove.example/cove/oci"
)

// PutManifest implements Service.
func (s *Store) PutManifest(ctx context.Context, k Key, mediaType string, body []byte, want oci.Digest, tags []oci.Tag) (Manifest, error) {
	alg := oci.SHA256
	if !want.IsZero() {
		alg = want.Algorithm()
	}
	got := oci.DigestOf(alg, body)
	if !want.IsZero() && got != want {
		return Manifest{}, oci.ErrDigestInvalid.Detail("expected %s, but the manifest is %s", want, got)
	}
	p, err := oci.ParseManifest(mediaType, body)
	if err != nil {
		return Manifest{}, err
	}
	m := Manifest{
		Descriptor: oci.Descriptor{
			MediaType: p.MediaType, Digest: got, Size: int64(len(body)),
			ArtifactType: p.ArtifactType, Annotations: p.Annotations,
		},
		Body: body, Subject: p.Subject.Digest, Tags: tags,
	}
	// Also after an error: it may have been committed. The digest too, since
	// somebody may have been told that it is not there.
	defer s.refs.drop(place{k, got.String()})
	defer s.forget(k, tags)
	if err := s.rows.PutManifest(ctx, k, m, p.Links, s.o.Grace/4); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// Manifest implements Service.
func (s *Store) Manifest(ctx context.Context, k Key, ref oci.Reference) (Manifest, error) {
	for {
		d, kept, err := s.refs.get(place{k, ref.String()}, func() (oci.Digest, error) { return s.rows.Resolve(ctx, k, ref) })
		if err != nil {
			return Manifest{}, err
		}
		if m, ok := s.bodies.get(d); ok {
			return m, nil
		}
		m, err := s.rows.Manifest(ctx, k, d)
		if err == nil && oci.DigestOf(d.Algorithm(), m.Body) != d {
			err = fmt.Errorf("the stored manifest %s has other bytes than its digest names", d)
		}
		if err == nil {
			s.bodies.put(m)
			return m, nil
		}
		if !kept || !errors.Is(err, oci.ErrManifestUnknown) {
			return Manifest{}, err
		}
		s.refs.drop(place{k, ref.String()}) // another node has moved the tag
	}
}

// DeleteManifest implements Service.
func (s *Store) DeleteManifest(ctx context.Context, k Key, d oci.Digest) error {
	tags, err := s.rows.DeleteManifest(ctx, k, d)
	if err != nil {
		s.refs.clear() // it may have been committed, with tags that we were not told
		return err
	}
	s.refs.drop(place{k, d.String()})
	s.forget(k, tags)
	return nil
}

// DeleteTag implements Service.
func (s *Store) DeleteTag(ctx context.Context, k Key, t oci.Tag) error {
	defer s.forget(k, []oci.Tag{t})
	return s.rows.DeleteTag(ctx, k, t)
}

func (s *Store) forget(k Key, tags []oci.Tag) {
	for _, t := range tags {
		s.refs.drop(place{k, t.String()})
	}
}

// Tags implements Service.
func (s *Store) Tags(ctx context.Context, k Key, p Page) ([]string, bool, error) {
	return s.rows.Tags(ctx, k, p)
}

// Repositories implements Service.
func (s *Store) Repositories(ctx context.Context, registry string, p Page) ([]string, bool, error) {
	return s.rows.Repositories(ctx, registry, p)
}

// Referrers implements Service.
func (s *Store) Referrers(ctx context.Context, k Key, d oci.Digest, artifactType string, p Page) ([]oci.Descriptor, bool, error) {
	return s.rows.Referrers(ctx, k, d, artifactType, p)
}

// Size is how many bytes a registry's content has, each blob counted once
// however many of its repositories have it. It reads all of the registry's
// rows.
func (s *Store) Size(ctx context.Context, registry string) (int64, error) {
	return s.rows.Size(ctx, registry)
}
