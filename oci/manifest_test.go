package oci

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"cove.example/cove/fault"
)

var (
	aDigest = DigestOf(SHA256, []byte("a")).String()
	bDigest = DigestOf(SHA512, []byte("b")).String()
)

// object writes a descriptor with further properties.
func object(digest string, more ...string) string {
	return fmt.Sprintf(`{"digest":%q,"size":1%s}`, digest, strings.Join(append([]string{""}, more...), ","))
}

func imageOf(more ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"config":%s%s}`, object(aDigest, `"mediaType":"c/t"`), strings.Join(append([]string{""}, more...), ","))
}

func indexOf(more ...string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]%s}`, object(aDigest), strings.Join(append([]string{""}, more...), ","))
}

func typed(t, manifest string) string {
	return fmt.Sprintf(`{"mediaType":%q,%s`, t, manifest[1:])
}

func TestParseManifest(t *testing.T) {
	const foreignLayer = `"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"`
	for _, tc := range []struct {
		name, sent, body string
		want             string // mediaType artifactType subject links
	}{
		{"image", MediaTypeImage, imageOf(), MediaTypeImage + " c/t - blob:a"},
		{"image that names itself", MediaTypeImage, typed(MediaTypeImage, imageOf()), MediaTypeImage + " c/t - blob:a"},
		{"type left to the body", "", typed(MediaTypeDockerImage, imageOf()), MediaTypeDockerImage + " c/t - blob:a"},
		{"parameters and case", "Application/Vnd.OCI.image.manifest.v1+json ; charset=utf-8", imageOf(), MediaTypeImage + " c/t - blob:a"},
		{"layers are null", MediaTypeImage, imageOf(`"layers":null`), MediaTypeImage + " c/t - blob:a"},
		{"a layer twice", MediaTypeImage, imageOf(`"layers":[` + object(bDigest) + "," + object(bDigest) + `]`), MediaTypeImage + " c/t - blob:a blob:b"},
		{"artifact", MediaTypeImage, imageOf(`"artifactType":"a/t"`), MediaTypeImage + " a/t - blob:a"},
		{"subject", MediaTypeImage, imageOf(`"subject":` + object(bDigest)), MediaTypeImage + " c/t b blob:a"},
		{"data", MediaTypeImage, imageOf(`"layers":[` + object(bDigest, `"data":"`+base64.StdEncoding.EncodeToString([]byte("b"))+`"`) + `]`), MediaTypeImage + " c/t - blob:a blob:b"},
		{"foreign layer", MediaTypeImage, imageOf(`"layers":[` + object(bDigest, foreignLayer, `"urls":["https://example.com/"]`) + `]`), MediaTypeImage + " c/t - blob:a foreign:b"},
		{"foreign layer from nowhere", MediaTypeImage, imageOf(`"layers":[` + object(bDigest, foreignLayer) + `]`), MediaTypeImage + " c/t - blob:a blob:b"},
		{"layer with a url", MediaTypeImage, imageOf(`"layers":[` + object(bDigest, `"urls":["https://example.com/"]`) + `]`), MediaTypeImage + " c/t - blob:a blob:b"},
		{"index", MediaTypeIndex, indexOf(), MediaTypeIndex + "  - manifest:a"},
		{"list", MediaTypeDockerList, typed(MediaTypeDockerList, indexOf()), MediaTypeDockerList + "  - manifest:a"},
		{"index over layers", MediaTypeIndex, `{"schemaVersion":2,"manifests":[` + object(aDigest, `"mediaType":"application/vnd.oci.image.layer.v1.tar"`) + `]}`, MediaTypeIndex + "  - blob:a"},
		{"empty index", MediaTypeIndex, `{"schemaVersion":2,"manifests":[]}`, MediaTypeIndex + "  -"},
		{"unknown properties", MediaTypeImage, imageOf(`"org.example":{"deep":[{"x":1}]}`), MediaTypeImage + " c/t - blob:a"},
		{"free annotations", MediaTypeImage, imageOf(`"annotations":{"Layers":"1","layers":"2","LAYERS":"3"}`), MediaTypeImage + " c/t - blob:a"},
		{"white space", MediaTypeImage, " \n" + imageOf() + "\n ", MediaTypeImage + " c/t - blob:a"},
	} {
		m, err := ParseManifest(tc.sent, []byte(tc.body))
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if got := m.describe(); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

func (m Manifest) describe() string {
	name := map[string]string{aDigest: "a", bDigest: "b", "": "-"}
	s := m.MediaType + " " + m.ArtifactType + " " + name[m.Subject.Digest.String()]
	for _, l := range m.Links {
		kind := "blob"
		if l.Manifest {
			kind = "manifest"
		} else if l.Foreign {
			kind = "foreign"
		}
		s += " " + kind + ":" + name[l.Digest.String()]
	}
	return s
}

// CVE-2021-41190, GHSA-77vh-xpmg-72qh, GHSA-mc8v-mgrf-8f4m, GHSA-5j5w-g665-5m35:
// a document that one reader takes for an image and another for an index.
func TestParseManifestRefuses(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	var many strings.Builder
	for i := range MaxLinks {
		fmt.Fprintf(&many, `,{"digest":"sha256:%064x","size":1}`, i)
	}
	for _, tc := range []struct{ name, sent, body, want string }{
		{"nothing", MediaTypeImage, "", "not JSON"},
		{"null", MediaTypeImage, "null", "not a JSON object"},
		{"a list", MediaTypeImage, "[]", "the manifest is a JSON array"},
		{"two documents", MediaTypeImage, imageOf() + imageOf(), "not JSON"},
		{"a number behind", MediaTypeImage, imageOf() + " 1", "not JSON"},
		{"garbage behind", MediaTypeImage, imageOf() + "x", "not JSON"},
		{"cut short", MediaTypeImage, imageOf()[:50], "not JSON"},
		{"byte order mark", MediaTypeImage, "\ufeff" + imageOf(), "not JSON"},
		{"not UTF-8", MediaTypeImage, imageOf(`"annotations":{"a":"` + "\xff" + `"}`), "not UTF-8"},
		{"NUL behind", MediaTypeImage, imageOf() + "\x00", "not JSON"},
		{"key twice", MediaTypeImage, imageOf(`"schemaVersion":2`), `"schemaVersion" appears twice`},
		{"key twice, escaped", MediaTypeImage, imageOf(`"sch\u0065maVersion":2`), `"schemaVersion" appears twice`},
		{"key twice, deep", MediaTypeImage, imageOf(`"x":[{"y":{"z":1,"z":2}}]`), `"z" appears twice`},
		{"key twice, annotations", MediaTypeImage, imageOf(`"annotations":{"a":"1","a":"2"}`), `"a" appears twice`},
		{"other case", MediaTypeImage, imageOf(`"Layers":[]`), `"Layers" is not "layers"`},
		{"other case, long s", MediaTypeImage, imageOf(`"layerſ":[]`), `is not "layers"`},
		{"other case in a descriptor", MediaTypeIndex, `{"schemaVersion":2,"manifests":[{"Digest":"x","digest":"` + aDigest + `","size":1}]}`, `"Digest" is not "digest"`},
		{"other case behind annotations", MediaTypeImage, imageOf(`"annotations":{"a":"b"},"Manifests":[]`), `"Manifests" is not "manifests"`},
		{"other case behind no annotations", MediaTypeImage, imageOf(`"annotations":null,"Manifests":[]`), `"Manifests" is not "manifests"`},
		{"nested too deep", MediaTypeImage, imageOf(`"x":` + deep), "nested more than"},
		{"image and index", MediaTypeImage, imageOf(`"manifests":[]`), "at once"},
		{"image and index, null", MediaTypeImage, typed(MediaTypeImage, imageOf(`"manifests":null`)), "manifests has no place"},
		{"image and schema 1", MediaTypeImage, imageOf(`"fsLayers":[]`), "fsLayers has no place"},
		{"index and image", MediaTypeIndex, indexOf(`"layers":[]`), "at once"},
		{"index with a config", MediaTypeIndex, typed(MediaTypeIndex, indexOf(`"config":null`)), "config has no place"},
		{"sent as another type", MediaTypeIndex, typed(MediaTypeImage, imageOf()), "sent as"},
		{"sent as an index", MediaTypeIndex, imageOf(), "sent as"},
		{"Docker image that does not say so", MediaTypeDockerImage, imageOf(), "sent as"},
		{"schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", imageOf(), "sent as"},
		{"unknown type", "text/plain", typed("text/plain", imageOf()), "are not stored"},
		{"empty type", MediaTypeImage, typed("", imageOf()), "mediaType is empty"},
		{"type that is no string", MediaTypeImage, imageOf(`"mediaType":1`), "mediaType is a JSON number"},
		{"no version", MediaTypeImage, `{"config":` + object(aDigest) + `}`, "schemaVersion"},
		{"version 1", MediaTypeImage, strings.Replace(imageOf(), "2", "1", 1), "schemaVersion"},
		{"no config", MediaTypeImage, `{"schemaVersion":2,"layers":[]}`, "config is missing"},
		{"config is null", MediaTypeImage, `{"schemaVersion":2,"config":null}`, "config is missing"},
		{"no size", MediaTypeImage, `{"schemaVersion":2,"config":{"digest":"` + aDigest + `"}}`, "no size"},
		{"negative size", MediaTypeImage, strings.Replace(imageOf(), `"size":1`, `"size":-1`, 1), "no size"},
		{"size of a half", MediaTypeImage, strings.Replace(imageOf(), `"size":1`, `"size":1.5`, 1), "JSON number"},
		{"enormous size", MediaTypeImage, strings.Replace(imageOf(), `"size":1`, `"size":1e30`, 1), "JSON number"},
		{"two sizes", MediaTypeImage, imageOf(`"layers":[` + strings.Replace(object(aDigest), ":1", ":2", 1) + `]`), "two sizes"},
		{"no digest", MediaTypeImage, `{"schemaVersion":2,"config":{"size":1}}`, "is not a sha256"},
		{"digest with a path", MediaTypeImage, strings.Replace(imageOf(), aDigest, "sha256:../../etc/passwd", 1), "is not a sha256"},
		{"digest in upper case", MediaTypeImage, strings.Replace(imageOf(), aDigest, strings.ToUpper(aDigest), 1), "is not a sha256"},
		{"bad subject", MediaTypeImage, imageOf(`"subject":{"digest":"sha256:1","size":1}`), "subject"},
		{"data of something else", MediaTypeImage, imageOf(`"layers":[` + object(bDigest, `"data":"YQ=="`) + `]`), "not what its digest names"},
		{"data of another length", MediaTypeImage, imageOf(`"layers":[` + object(bDigest, `"data":""`) + `]`), "not what its digest names"},
		{"too many layers", MediaTypeImage, imageOf(`"layers":[` + many.String()[1:] + `]`), "names more than"},
	} {
		_, err := ParseManifest(tc.sent, []byte(tc.body))
		kind, public := fault.Of(err)
		if !errors.Is(err, ErrManifestInvalid) || kind != fault.Invalid || !strings.Contains(public, tc.want) {
			t.Errorf("%s: got error %v, want one with %q", tc.name, err, tc.want)
		}
	}
	_, err := ParseManifest(MediaTypeImage, []byte(imageOf()+strings.Repeat(" ", MaxManifest)))
	if !errors.Is(err, ErrSizeInvalid) {
		t.Errorf("over the limit: got error %v", err)
	}
}

// What is accepted has one meaning: the same under the type that it was found
// to have, and under no other.
func FuzzParseManifest(f *testing.F) {
	f.Add(MediaTypeImage, []byte(imageOf()))
	f.Add("", []byte(typed(MediaTypeDockerList, indexOf())))
	f.Add(MediaTypeIndex, []byte(indexOf(`"annotations":{"a":"b"},"subject":`+object(bDigest))))
	f.Add(MediaTypeImage, []byte(imageOf(`"Layers":[{"digest":"sha256:1"}]`)))
	f.Fuzz(func(t *testing.T, sent string, body []byte) {
		m, err := ParseManifest(sent, body)
		if err != nil {
			if kind, _ := fault.Of(err); kind == fault.Internal {
				t.Fatalf("an internal error: %v", err)
			}
			return
		}
		for _, other := range []string{MediaTypeImage, MediaTypeIndex, MediaTypeDockerImage, MediaTypeDockerList} {
			again, err := ParseManifest(other, body)
			if other != m.MediaType && err == nil {
				t.Fatalf("both %s and %s", m.MediaType, other)
			}
			if other == m.MediaType && (err != nil || again.describe() != m.describe()) {
				t.Fatalf("as %s: %v, then %v, error %v", other, m, again, err)
			}
		}
		if len(m.Links) > MaxLinks {
			t.Fatalf("%d links", len(m.Links))
		}
		for _, l := range m.Links {
			if d, err := ParseDigest(l.Digest.String()); err != nil || d != l.Digest || l.Size < 0 {
				t.Fatalf("link %v", l)
			}
		}
	})
}

func FuzzParseDigest(f *testing.F) {
	for _, s := range []string{aDigest, bDigest, "sha256:", "sha512:" + aDigest[7:], strings.ToUpper(aDigest), aDigest + "0", "sha256:../", "md5:" + aDigest[7:]} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			if !errors.Is(err, ErrDigestInvalid) || !d.IsZero() {
				t.Fatalf("%q: digest %v, error %v", s, d, err)
			}
			return
		}
		if d.String() != s || d.Algorithm()+":"+d.Hex() != s {
			t.Fatalf("%q became %q", s, d)
		}
		if strings.Trim(d.Hex(), "0123456789abcdef") != "" || strings.Contains(d.Algorithm(), "/") {
			t.Fatalf("%q is no safe part of a path", s)
		}
	})
}

func BenchmarkParseManifest(b *testing.B) {
	layer := object(bDigest, `"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip"`)
	body := []byte(imageOf(`"layers":[` + strings.Repeat(layer+",", 9) + layer + `]`))
	for b.Loop() {
		if _, err := ParseManifest(MediaTypeImage, body); err != nil {
			b.Fatal(err)
		}
	}
}
