package contenttest_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/oci"
	"cove.example/cove/storetest"
)

// bench is a Store on SQLite and the disk, as the embedded default has it.
type bench struct {
	*testing.B
	*content.Store
	rows content.Metadata
	k    content.Key
}

func newBench(b *testing.B) bench {
	rows, blobs := onDisk(b, storetest.SQLite(b)).Open(b, time.Now)
	repo, err := oci.ParseRepo("team/app")
	if err != nil {
		b.Fatal(err)
	}
	return bench{b, content.New(rows, blobs, content.Options{}), rows, content.Key{Registry: "bench", Repo: repo}}
}

func (b bench) push(body []byte) oci.Digest {
	d := oci.DigestOf(oci.SHA256, body)
	u, err := b.StartUpload(b.Context(), b.k, "")
	if err == nil {
		_, err = b.Finish(b.Context(), b.k, u.ID, 0, bytes.NewReader(body), d)
	}
	if err != nil {
		b.Error(err)
	}
	return d
}

// image is a manifest over a config and three layers that are there.
func (b bench) image() func(n int64) []byte {
	var ds []any
	for i := range 4 {
		ds = append(ds, b.push(fmt.Appendf(nil, "blob %d", i)).String())
	}
	const layer = `{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"%s","size":6}`
	format := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",` +
		`"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":6},` +
		`"layers":[` + layer + `,` + layer + `,` + layer + `],"annotations":{"n":"%d"}}`
	return func(n int64) []byte { return fmt.Appendf(nil, format, append(ds[:4:4], n)...) }
}

func (b bench) put(body []byte, name string) oci.Digest {
	tag, err := oci.ParseTag(name)
	if err != nil {
		b.Fatal(err)
	}
	m, err := b.PutManifest(b.Context(), b.k, oci.MediaTypeImage, body, oci.Digest{}, []oci.Tag{tag})
	if err != nil {
		b.Error(err)
	}
	return m.Digest
}

func BenchmarkManifestByTag(b *testing.B) {
	for _, tags := range []int{1, 10_000} {
		bb := newBench(b)
		body := bb.image()(0)
		for i := range tags {
			bb.put(body, fmt.Sprint("tag-", i))
		}
		for _, spread := range slices.Compact([]int{1, tags}) {
			b.Run(fmt.Sprintf("tags=%d/asked=%d", tags, spread), func(b *testing.B) {
				var refs []oci.Reference
				for i := range spread {
					t, err := oci.ParseTag(fmt.Sprint("tag-", i))
					if err != nil {
						b.Fatal(err)
					}
					refs = append(refs, oci.Reference{Tag: t})
				}
				for i := 0; b.Loop(); i++ {
					if _, err := bb.Manifest(b.Context(), bb.k, refs[i%len(refs)]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

// BenchmarkPutManifest is a new manifest with a tag, from four clients.
func BenchmarkPutManifest(b *testing.B) {
	bb := newBench(b)
	image := bb.image()
	var n atomic.Int64
	b.SetParallelism(2) // times GOMAXPROCS
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			i := n.Add(1)
			bb.put(image(i), fmt.Sprint("tag-", i))
		}
	})
}

// BenchmarkTagPush is a new tag on one manifest, from four clients.
func BenchmarkTagPush(b *testing.B) {
	bb := newBench(b)
	body := bb.image()(0)
	var n atomic.Int64
	b.SetParallelism(2)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			bb.put(body, fmt.Sprint("tag-", n.Add(1)))
		}
	})
}

// BenchmarkPushBlob is a new blob of 1 KiB, from eight clients.
func BenchmarkPushBlob(b *testing.B) {
	bb := newBench(b)
	var n atomic.Int64
	b.SetParallelism(4)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			bb.push(fmt.Appendf(nil, "%01024d", n.Add(1)))
		}
	})
}

func BenchmarkStatBlob(b *testing.B) {
	bb := newBench(b)
	for _, blobs := range []int{1, 1000} {
		var ds []oci.Digest
		for i := range blobs {
			ds = append(ds, bb.push(fmt.Append(nil, i)))
		}
		b.Run(fmt.Sprintf("asked=%d", blobs), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if _, err := bb.StatBlob(b.Context(), bb.k, ds[i%len(ds)]); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkBlobRow is what the database is asked about a layer that many images
// have in common.
func BenchmarkBlobRow(b *testing.B) {
	for _, images := range []int{1, 5_000} {
		bb := newBench(b)
		image, shared := bb.image(), oci.DigestOf(oci.SHA256, []byte("blob 1"))
		for i := range images {
			bb.put(image(int64(i)), fmt.Sprint("tag-", i))
		}
		b.Run(fmt.Sprintf("images=%d", images), func(b *testing.B) {
			for b.Loop() {
				if _, err := bb.rows.Blob(b.Context(), bb.k, shared); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDeleteManifest deletes by digest in a repository of 10,000 tags.
func BenchmarkDeleteManifest(b *testing.B) {
	bb := newBench(b)
	image := bb.image()
	for i := range 10_000 {
		bb.put(image(-1), fmt.Sprint("other-", i))
	}
	var ds []oci.Digest
	for i := range b.N {
		ds = append(ds, bb.put(image(int64(i)), fmt.Sprint("tag-", i)))
	}
	b.ResetTimer()
	var n atomic.Int64
	b.SetParallelism(2)
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if err := bb.DeleteManifest(b.Context(), bb.k, ds[n.Add(1)-1]); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkMissingTag is a client that waits for a tag.
func BenchmarkMissingTag(b *testing.B) {
	s := newBench(b)
	s.put(s.image()(0), "there")
	missing, err := oci.ParseReference("missing")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Manifest(b.Context(), s.k, missing); !errors.Is(err, oci.ErrManifestUnknown) {
			b.Fatal(err)
		}
	}
}
