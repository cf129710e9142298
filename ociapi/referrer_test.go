package ociapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"cove.example/cove/content"
	"cove.example/cove/oci"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
)

// Roles for repositories (source: the documentation of Azure Container Registry).
const (
	roleWriter      = "2a1e307c-b015-4ebd-883e-5b7698a07328"
	roleContributor = "2efddaa5-3f1f-4df3-97df-af3f13818f4c"
)

// In the mode where Actions decide, AcrPush deletes what belongs to another
// manifest, and no image; neither does it in the other mode, nor AcrPull in
// either. The token says delete, and each use is decided again.
func TestWhoMayPushTakesBackReferrers(t *testing.T) {
	for _, c := range []struct {
		name, role, mode string
		referrer, image  int
	}{
		{"AcrPush", policy.RoleAcrPush, registry.LegacyMode, 202, 401},
		{"AcrPull", policy.RoleAcrPull, registry.LegacyMode, 401, 401},
		{"AcrDelete", policy.RoleAcrDelete, registry.LegacyMode, 202, 202},
		{"AcrPush, which the mode ignores", policy.RoleAcrPush, registry.AbacMode, 401, 401},
		{"Writer", roleWriter, registry.AbacMode, 401, 401},
		{"Writer, which the mode ignores", roleWriter, registry.LegacyMode, 401, 401},
		{"Contributor of repositories", roleContributor, registry.AbacMode, 202, 202},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newLoginSiteAs(t, c.role)
			s.set(func(r *registry.Settings) { r.Mode = c.mode })
			admin, own := header("harbor", adminPassword), header(s.client.AppID, s.secret)
			const index = "application/vnd.oci.image.index.v1+json"
			push := func(body string) oci.Digest {
				d := oci.DigestOf(oci.SHA256, []byte(body))
				s.must(201, "PUT", "/v2/team/app/manifests/"+d.String(), body, "Authorization", admin, "Content-Type", index)
				return d
			}
			body := func(subject oci.Digest, n int) string {
				return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[],"subject":{"mediaType":%q,"digest":%q,"size":1},"annotations":{"n":"%d"}}`, index, index, subject, n)
			}
			image := push(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`)
			ways := map[string]func() string{
				"a password": func() string { return own },
				"a token": func() string {
					raw := s.do("GET", "/oauth2/token?service="+loginServer+"&scope=repository:team/app:delete", nil, "Authorization", own).field("access_token")
					return "Bearer " + raw
				},
				"a token for every repository": func() string {
					raw := s.do("GET", "/oauth2/token?service="+loginServer+"&scope=repository:*:delete", nil, "Authorization", own).field("access_token")
					return "Bearer " + raw
				},
			}
			n := 0
			for how, credential := range ways {
				n++
				signature := push(body(image, n))
				if r := s.do("DELETE", "/v2/team/app/manifests/"+image.String(), nil, "Authorization", credential()); r.StatusCode != c.image {
					t.Errorf("the image, by %s: %d %s", how, r.StatusCode, r.body)
				}
				if r := s.do("DELETE", "/v2/team/app/manifests/"+signature.String(), nil, "Authorization", credential()); r.StatusCode != c.referrer {
					t.Errorf("a referrer, by %s: %d %s", how, r.StatusCode, r.body)
				}
				push(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`)
				// To untag is to delete, as az has it: it asks for that action.
				s.must(201, "PUT", "/v2/team/app/manifests/stable", `{"schemaVersion":2,"mediaType":"`+index+`","manifests":[]}`, "Authorization", admin, "Content-Type", index)
				if r := s.do("DELETE", "/acr/v1/team/app/_tags/stable", nil, "Authorization", credential()); r.StatusCode != c.image {
					t.Errorf("a tag, by %s: %d %s", how, r.StatusCode, r.body)
				}
			}
			if c.image != 401 || c.referrer != 202 {
				return
			}
			// Not the whole repository, its tags or its blobs; not another's word
			// for it; and no lock is passed by.
			signature := push(body(image, 99))
			repo, err := oci.ParseRepo("team/app")
			if err != nil {
				t.Fatal(err)
			}
			s.must(201, "PUT", "/v2/team/app/manifests/signed", body(image, 99), "Authorization", admin, "Content-Type", index)
			for _, target := range []string{
				"/v2/team/app/manifests/signed", "/acr/v1/team/app", "/acr/v1/team/app/_tags/signed", "/v2/team/app/blobs/" + signature.String(),
				"/v2/team/app/manifests/" + oci.DigestOf(oci.SHA256, []byte("absent")).String(), "/v2/team/other/manifests/" + signature.String(),
			} {
				if r := s.do("DELETE", target, nil, "Authorization", own); r.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s: %d %s", target, r.StatusCode, r.body)
				}
			}
			small := s.do("GET", "/oauth2/token?service="+loginServer+"&scope=repository:team/app:pull,push", nil, "Authorization", own).field("access_token")
			if r := s.do("DELETE", "/v2/team/app/manifests/"+signature.String(), nil, "Authorization", "Bearer "+small); r.StatusCode != http.StatusUnauthorized || !strings.Contains(r.Header.Get("WWW-Authenticate"), `scope="repository:team/app:delete",error="invalid_token"`) {
				t.Errorf("with a token without delete: %d %s", r.StatusCode, r.Header)
			}
			if err := s.api.Content.LockRepository(t.Context(), content.Key{Registry: s.registry.UID, Repo: repo}, content.NoDelete, 0); err != nil {
				t.Fatal(err)
			}
			if r := s.do("DELETE", "/v2/team/app/manifests/"+signature.String(), nil, "Authorization", own); r.StatusCode != http.StatusMethodNotAllowed {
				t.Errorf("a locked one: %d %s", r.StatusCode, r.body)
			}
		})
	}
}
