package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/content"
	"cove.example/cove/oci"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
)

// What happens to manifests and tags stands in the outbox, in order, and
// nothing of what was refused. The rest of the contract is contenttest's.
func TestContentRecordsChanges(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.DB) {
		c := store.NewContent(db)
		repo, err := oci.ParseRepo("team/app")
		if err != nil {
			t.Fatal(err)
		}
		v1, err := oci.ParseTag("v1")
		if err != nil {
			t.Fatal(err)
		}
		v2, err := oci.ParseTag("v2")
		if err != nil {
			t.Fatal(err)
		}
		k := content.Key{Registry: "registry-1", Repo: repo}
		blob := content.BlobRow{Digest: oci.DigestOf(oci.SHA256, []byte("blob")), Size: 4, Location: "somewhere"}
		m := content.Manifest{
			Descriptor: oci.Descriptor{Digest: oci.DigestOf(oci.SHA256, []byte("{}")), Size: 2, MediaType: oci.MediaTypeImage},
			Body:       []byte("{}"), Tags: []oci.Tag{v1, v2},
		}
		links := []oci.Link{{Descriptor: oci.Descriptor{Digest: blob.Digest, Size: 4}}}
		ctx := t.Context()
		if err := c.PutManifest(ctx, k, m, links, 0); err == nil {
			t.Fatal("a manifest was stored without its blob")
		}
		if _, err := c.AddBlob(ctx, k, blob, ""); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the manifest is there the second time, the tags are set again
			if err := c.PutManifest(ctx, k, m, links, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.DeleteTag(ctx, k, v1); err != nil {
			t.Fatal(err)
		}
		if _, err := c.DeleteManifest(ctx, k, m.Digest); err != nil {
			t.Fatal(err)
		}
		if err := c.RemoveBlob(ctx, k, blob.Digest); err != nil {
			t.Fatal(err)
		}
		for more := true; more; {
			if more, err = c.DropSome(ctx, k.Registry, 100); err != nil {
				t.Fatal(err)
			}
		}
		list, err := db.Changes(ctx, 0, 100)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, ch := range list {
			got = append(got, fmt.Sprintf("%s %s %s", ch.Op, ch.Kind, ch.Key))
			var detail struct{ Digest string }
			if ch.Kind != "blob" && ch.Kind != "repository" {
				if err := json.Unmarshal(ch.Detail, &detail); err != nil || detail.Digest != m.Digest.String() {
					t.Errorf("%s %s: detail %s, %v", ch.Op, ch.Key, ch.Detail, err)
				}
			}
		}
		key := "registry-1/team/app"
		want := []string{
			"put manifest " + key + "@" + m.Digest.String(), "put tag " + key + ":v1", "put tag " + key + ":v2",
			"put tag " + key + ":v1", "put tag " + key + ":v2",
			"delete tag " + key + ":v1",
			"delete tag " + key + ":v2", "delete manifest " + key + "@" + m.Digest.String(),
			"delete blob " + key + "@" + blob.Digest.String(),
			"delete repository " + key,
		}
		if !slices.Equal(got, want) {
			t.Errorf("the outbox has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
