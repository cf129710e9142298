package sdktest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/streaming"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/containers/azcontainerregistry"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/containerregistry/armcontainerregistry"
)

const repository = "team/app"

// content gets tokens step by step, pushes an image, and lists, reads, locks
// and deletes what is there.
func (w *world) content(t *testing.T) {
	w.exchange(t)
	first := w.push(t, repository, "1.0", "one")
	second := w.push(t, repository, "2.0", "two")
	w.push(t, "team/other", "1.0", "one")
	ctx := t.Context()
	client, err := azcontainerregistry.NewClient(w.registry(), w.cred, w.registries())
	must(t, err)

	var names []string
	for pager := client.NewListRepositoriesPager(&azcontainerregistry.ClientListRepositoriesOptions{MaxNum: to.Ptr[int32](1)}); pager.More(); {
		page, err := pager.NextPage(ctx)
		must(t, err)
		for _, n := range page.Names {
			names = append(names, *n)
		}
	}
	if got := strings.Join(names, " "); got != "team/app team/other" {
		t.Fatalf("the repositories are %q", got)
	}
	props, err := client.GetRepositoryProperties(ctx, repository, nil)
	must(t, err)
	same(t, "registry", props.RegistryLoginServer, registryName+"."+w.suffix)
	same(t, "tagCount", props.TagCount, 2)
	same(t, "manifestCount", props.ManifestCount, 2)

	var tags []string
	for pager := client.NewListTagsPager(repository, &azcontainerregistry.ClientListTagsOptions{
		MaxNum: to.Ptr[int32](1), OrderBy: to.Ptr(azcontainerregistry.ArtifactTagOrderByLastUpdatedOnDescending),
	}); pager.More(); {
		page, err := pager.NextPage(ctx)
		must(t, err)
		for _, tag := range page.Tags {
			tags = append(tags, *tag.Name+"@"+*tag.Digest)
		}
	}
	if len(tags) != 2 || tags[0] != "2.0@"+second || tags[1] != "1.0@"+first {
		t.Fatalf("the tags, newest first, are %q", tags)
	}
	var manifests []string
	for pager := client.NewListManifestsPager(repository, &azcontainerregistry.ClientListManifestsOptions{
		MaxNum: to.Ptr[int32](1), OrderBy: to.Ptr(azcontainerregistry.ArtifactManifestOrderByLastUpdatedOnAscending),
	}); pager.More(); {
		page, err := pager.NextPage(ctx)
		must(t, err)
		for _, m := range page.Attributes {
			manifests = append(manifests, *m.Digest)
		}
	}
	if len(manifests) != 2 || manifests[0] != first || manifests[1] != second {
		t.Fatalf("the manifests, oldest first, are %q", manifests)
	}

	manifest, err := client.GetManifestProperties(ctx, repository, first, nil)
	must(t, err)
	same(t, "mediaType", manifest.Manifest.MediaType, string(azcontainerregistry.ContentTypeApplicationVndOciImageManifestV1JSON))
	same(t, "size", manifest.Manifest.Size, manifestSize(t, client, first))
	tag, err := client.GetTagProperties(ctx, repository, "1.0", nil)
	must(t, err)
	same(t, "digest", tag.Tag.Digest, first)

	w.importImage(t)
	imported, err := client.GetTagProperties(ctx, "copied/app", "2.0", nil)
	must(t, err)
	same(t, "the imported digest", imported.Tag.Digest, second)

	locked, err := client.UpdateTagProperties(ctx, repository, "1.0", &azcontainerregistry.ClientUpdateTagPropertiesOptions{
		Value: &azcontainerregistry.TagWriteableProperties{CanDelete: to.Ptr(false)},
	})
	must(t, err)
	same(t, "deleteEnabled", locked.Tag.ChangeableAttributes.CanDelete, false)
	_, err = client.DeleteTag(ctx, repository, "1.0", nil)
	refused(t, err, http.StatusMethodNotAllowed, "REGISTRY_DISALLOWED_OPERATION")
	_, err = client.UpdateTagProperties(ctx, repository, "1.0", &azcontainerregistry.ClientUpdateTagPropertiesOptions{
		Value: &azcontainerregistry.TagWriteableProperties{CanDelete: to.Ptr(true)},
	})
	must(t, err)
	_, err = client.DeleteTag(ctx, repository, "1.0", nil)
	must(t, err)
	_, err = client.GetTagProperties(ctx, repository, "1.0", nil)
	refused(t, err, http.StatusNotFound, "TAG_UNKNOWN")
	_, err = client.DeleteManifest(ctx, repository, first, nil)
	must(t, err)
	_, err = client.GetManifest(ctx, repository, first, &azcontainerregistry.ClientGetManifestOptions{Accept: to.Ptr("*/*")})
	refused(t, err, http.StatusNotFound, "MANIFEST_UNKNOWN")
	_, err = client.DeleteRepository(ctx, "team/other", nil)
	must(t, err)
	_, err = client.GetRepositoryProperties(ctx, "team/other", nil)
	refused(t, err, http.StatusNotFound, "NAME_UNKNOWN")
}

// importImage copies an image by a long-running operation, which the SDK polls
// at its own pace.
func (w *world) importImage(t *testing.T) {
	registries, err := armcontainerregistry.NewRegistriesClient(w.subscription, w.cred, w.arm)
	must(t, err)
	p, err := registries.BeginImportImage(t.Context(), groupName, registryName, armcontainerregistry.ImportImageParameters{
		Source: &armcontainerregistry.ImportSource{
			ResourceID:  to.Ptr(w.group(groupName) + "/providers/Microsoft.ContainerRegistry/registries/" + registryName),
			SourceImage: to.Ptr(repository + ":2.0"),
		},
		TargetTags: []*string{to.Ptr("copied/app:2.0")}, Mode: to.Ptr(armcontainerregistry.ImportModeNoForce),
	}, nil)
	done(t, p, err)
}

// manifestSize is how much the blobs take that a manifest names.
func manifestSize(t *testing.T, client *azcontainerregistry.Client, digest string) int64 {
	t.Helper()
	m, err := client.GetManifest(t.Context(), repository, digest, &azcontainerregistry.ClientGetManifestOptions{
		Accept: to.Ptr(string(azcontainerregistry.ContentTypeApplicationVndOciImageManifestV1JSON)),
	})
	must(t, err)
	body, err := io.ReadAll(m.ManifestData)
	must(t, err)
	var in struct {
		Config struct{ Size int64 }
		Layers []struct{ Size int64 }
	}
	must(t, json.Unmarshal(body, &in))
	size := in.Config.Size
	for _, l := range in.Layers {
		size += l.Size
	}
	return size
}

// exchange goes from the directory's token to the registry's by the SDK's
// authentication client, and is refused with a token of the wrong kind.
func (w *world) exchange(t *testing.T) {
	ctx := t.Context()
	aad, err := w.cred.GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{"https://containerregistry.azure.net/.default"}})
	must(t, err)
	client, err := azcontainerregistry.NewAuthenticationClient(w.registry(), &azcontainerregistry.AuthenticationClientOptions{ClientOptions: w.options})
	must(t, err)
	service := strings.TrimPrefix(w.registry(), "https://")
	refresh, err := client.ExchangeAADAccessTokenForACRRefreshToken(ctx, azcontainerregistry.PostContentSchemaGrantTypeAccessToken, service, &azcontainerregistry.AuthenticationClientExchangeAADAccessTokenForACRRefreshTokenOptions{
		AccessToken: to.Ptr(aad.Token), Tenant: to.Ptr(w.tenant),
	})
	must(t, err)
	grant := &azcontainerregistry.AuthenticationClientExchangeACRRefreshTokenForACRAccessTokenOptions{GrantType: to.Ptr(azcontainerregistry.TokenGrantTypeRefreshToken)}
	access, err := client.ExchangeACRRefreshTokenForACRAccessToken(ctx, service, "registry:catalog:*", *refresh.RefreshToken, grant)
	must(t, err)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.registry()+"/acr/v1/_catalog", http.NoBody)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+*access.AccessToken)
	resp, err := w.http.Do(r)
	must(t, err)
	must(t, resp.Body.Close())
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the catalog is answered %d with a token for it", resp.StatusCode)
	}
	_, err = client.ExchangeACRRefreshTokenForACRAccessToken(ctx, service, "registry:catalog:*", aad.Token, grant)
	refused(t, err, http.StatusUnauthorized, "UNAUTHORIZED")
}

// push stores an image of one layer with the SDK's blob client and returns its
// manifest's digest.
func (w *world) push(t *testing.T, name, tag, text string) string {
	t.Helper()
	ctx := t.Context()
	blobs, err := azcontainerregistry.NewBlobClient(w.registry(), w.cred, &azcontainerregistry.BlobClientOptions{ClientOptions: w.options})
	must(t, err)
	upload := func(content []byte) string {
		t.Helper()
		begun, err := blobs.StartUpload(ctx, name, nil)
		must(t, err)
		sum := azcontainerregistry.NewBlobDigestCalculator()
		half := len(content) / 2
		at := *begun.Location
		for _, part := range [][]byte{content[:half], content[half:]} {
			chunk, err := blobs.UploadChunk(ctx, at, bytes.NewReader(part), sum, nil)
			must(t, err)
			at = *chunk.Location
		}
		whole, err := blobs.CompleteUpload(ctx, at, sum, nil)
		must(t, err)
		return *whole.DockerContentDigest
	}
	descriptor := func(media string, content []byte) map[string]any {
		return map[string]any{"mediaType": media, "digest": upload(content), "size": len(content)}
	}
	layer := []byte("a layer that says " + text)
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": azcontainerregistry.ContentTypeApplicationVndOciImageManifestV1JSON,
		"config": descriptor("application/vnd.oci.image.config.v1+json", []byte(`{"architecture":"amd64","os":"linux"}`)),
		"layers": []any{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
	})
	must(t, err)
	client, err := azcontainerregistry.NewClient(w.registry(), w.cred, w.registries())
	must(t, err)
	pushed, err := client.UploadManifest(ctx, name, tag, azcontainerregistry.ContentTypeApplicationVndOciImageManifestV1JSON, streaming.NopCloser(bytes.NewReader(body)), nil)
	must(t, err)
	digest := sha256.Sum256(body)
	same(t, "Docker-Content-Digest", pushed.DockerContentDigest, "sha256:"+hex.EncodeToString(digest[:]))

	// The blob comes back from the data endpoint, to which the SDK is sent.
	sum := sha256.Sum256(layer)
	got, err := blobs.GetBlob(ctx, name, "sha256:"+hex.EncodeToString(sum[:]), nil)
	must(t, err)
	back, err := io.ReadAll(got.BlobData)
	must(t, err)
	must(t, got.BlobData.Close())
	if !bytes.Equal(back, layer) {
		t.Fatalf("the layer came back as %q", back)
	}
	return *pushed.DockerContentDigest
}
