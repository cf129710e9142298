package ociapi

import (
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"cove.example/cove/access"
	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
)

const (
	hex64 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	empty = "sha256:" + hex64
)

func repo(t testing.TB, s string) oci.Repo {
	t.Helper()
	r, err := oci.ParseRepo(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tag(t testing.TB, s string) oci.Tag {
	t.Helper()
	r, err := oci.ParseTag(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func digest(t testing.TB, s string) oci.Digest {
	t.Helper()
	d, err := oci.ParseDigest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestParseCall(t *testing.T) {
	app, lib := repo(t, "team/app"), repo(t, "library")
	d := digest(t, empty)
	for _, c := range []struct {
		method, target string
		want           Call
	}{
		{"GET", "/v2/", Call{Kind: Ping}},
		{"GET", "/v2", Call{Kind: Ping}},
		{"HEAD", "/v2/", Call{Kind: Ping}},
		{"GET", "/v2/?x=y", Call{Kind: Ping}},
		{"GET", "/v2/_catalog", Call{Kind: Catalog, Page: content.Page{N: 100}}},
		{"GET", "/v2/_catalog?n=5&last=team/app&orderby=", Call{Kind: Catalog, Page: content.Page{N: 5, Last: "team/app"}}},
		{"GET", "/v2/_catalog?n=1001", Call{Kind: Catalog, Page: content.Page{N: 1000}}},
		{"GET", "/v2/_catalog?n=99999999999999999999999999", Call{Kind: Catalog, Page: content.Page{N: 1000}}},
		{"GET", "/v2/_catalog?n=0", Call{Kind: Catalog}},
		{"GET", "/v2/team/app/tags/list", Call{Kind: TagList, Repo: app, Page: content.Page{N: 1000}}},
		{"GET", "/v2/team/app/tags/list?last=1.0", Call{Kind: TagList, Repo: app, Page: content.Page{N: 1000, Last: "1.0"}}},
		{"GET", "/v2/team/app/manifests/1.4", Call{Kind: ManifestGet, Repo: app, Reference: oci.Reference{Tag: tag(t, "1.4")}}},
		{"HEAD", "/v2/team/app/manifests/" + empty, Call{Kind: ManifestHead, Repo: app, Reference: oci.Reference{Digest: d}}},
		{"PUT", "/v2/team/app/manifests/1.4?tag=x", Call{Kind: ManifestPut, Repo: app, Reference: oci.Reference{Tag: tag(t, "1.4")}, Tags: []oci.Tag{tag(t, "1.4")}}},
		{"PUT", "/v2/team/app/manifests/" + empty + "?tag=a&tag=b", Call{Kind: ManifestPut, Repo: app, Reference: oci.Reference{Digest: d}, Tags: []oci.Tag{tag(t, "a"), tag(t, "b")}}},
		{"DELETE", "/v2/team/app/manifests/1.4", Call{Kind: ManifestDelete, Repo: app, Reference: oci.Reference{Tag: tag(t, "1.4")}}},
		{"GET", "/v2/team/app/blobs/" + empty, Call{Kind: BlobGet, Repo: app, Digest: d}},
		{"HEAD", "/v2/team/app/blobs/" + empty, Call{Kind: BlobHead, Repo: app, Digest: d}},
		{"DELETE", "/v2/team/app/blobs/" + empty, Call{Kind: BlobDelete, Repo: app, Digest: d}},
		{"POST", "/v2/team/app/blobs/uploads/", Call{Kind: UploadStart, Repo: app}},
		{"POST", "/v2/team/app/blobs/uploads/?digest-algorithm=sha512", Call{Kind: UploadStart, Repo: app, Algorithm: "sha512"}},
		{"POST", "/v2/team/app/blobs/uploads/?digest=" + empty, Call{Kind: UploadWhole, Repo: app, Digest: d, Algorithm: "sha256"}},
		{"POST", "/v2/team/app/blobs/uploads/?mount=" + empty + "&from=library", Call{Kind: UploadMount, Repo: app, Digest: d, From: lib, Algorithm: "sha256"}},
		{"POST", "/v2/team/app/blobs/uploads/?mount=" + empty, Call{Kind: UploadStart, Repo: app, Digest: d, Algorithm: "sha256"}},
		{"GET", "/v2/team/app/blobs/uploads/a-B_9", Call{Kind: UploadStatus, Repo: app, Upload: "a-B_9"}},
		{"PATCH", "/v2/team/app/blobs/uploads/x", Call{Kind: UploadAppend, Repo: app, Upload: "x"}},
		{"PUT", "/v2/team/app/blobs/uploads/x?digest=sha256%3A" + hex64, Call{Kind: UploadFinish, Repo: app, Upload: "x", Digest: d}},
		{"DELETE", "/v2/team/app/blobs/uploads/x", Call{Kind: UploadCancel, Repo: app, Upload: "x"}},
		{"GET", "/v2/team/app/referrers/" + empty, Call{Kind: Referrers, Repo: app, Digest: d, Page: content.Page{N: 1000}}},
		{"GET", "/v2/team/app/referrers/" + empty + "?artifactType=application/x+json", Call{Kind: Referrers, Repo: app, Digest: d, ArtifactType: "application/x+json", Page: content.Page{N: 1000}}},
		// As Azure's SDKs spell names.
		{"GET", "/v2/team%2Fapp/tags/list", Call{Kind: TagList, Repo: app, Page: content.Page{N: 1000}}},
		{"POST", "/v2/team%2fapp/blobs/uploads/", Call{Kind: UploadStart, Repo: app}},
		{"GET", "/v2/team/app/referrers/" + empty + "?artifactType=application/x%2Bjson", Call{Kind: Referrers, Repo: app, Digest: d, ArtifactType: "application/x+json", Page: content.Page{N: 1000}}},

		// A repository may be called by the words of the routes.
		{"GET", "/v2/a/blobs/uploads/manifests/x", Call{Kind: ManifestGet, Repo: repo(t, "a/blobs/uploads"), Reference: oci.Reference{Tag: tag(t, "x")}}},
		{"GET", "/v2/a/blobs/uploads/tags/list", Call{Kind: TagList, Repo: repo(t, "a/blobs/uploads"), Page: content.Page{N: 1000}}},
		{"GET", "/v2/manifests/manifests/manifests", Call{Kind: ManifestGet, Repo: repo(t, "manifests"), Reference: oci.Reference{Tag: tag(t, "manifests")}}},
		{"POST", "/v2/a/manifests/blobs/uploads/", Call{Kind: UploadStart, Repo: repo(t, "a/manifests")}},
	} {
		got, err := ParseCall(c.method, c.target)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s %s is\n%+v, %v\nwant\n%+v", c.method, c.target, got, err, c.want)
		}
	}
}

func TestParseCallRefuses(t *testing.T) {
	long := strings.Repeat("a", maxURL)
	many := "/v2/_catalog?" + strings.TrimSuffix(strings.Repeat("x=1&", maxParameters), "&")
	for _, c := range []struct {
		method, target string
		want           error // nil: a fault.Invalid without a sentinel
	}{
		{"GET", "", errNoRoute},
		{"GET", "/", errNoRoute},
		{"GET", "*", errNoRoute},
		{"GET", "/v1/", errNoRoute},
		{"GET", "/v2/team/app", errNoRoute},
		{"GET", "/v2/manifests/x", errNoRoute},
		{"GET", "/v2/tags/list", errNoRoute},
		{"GET", "/v2/team/app/tags/list/", errNoRoute},
		{"GET", "/v2/team/app/Manifests/x", errNoRoute},
		{"GET", "/v2//manifests/x", oci.ErrNameInvalid},
		{"GET", "/v2/Team/manifests/x", oci.ErrNameInvalid},
		{"GET", "/v2/" + strings.Repeat("a", 256) + "/manifests/x", oci.ErrNameInvalid},
		{"GET", "/v2/a/manifests/.x", oci.ErrTagInvalid},
		{"GET", "/v2/a/manifests/", oci.ErrTagInvalid},
		{"GET", "/v2/a/manifests/" + strings.Repeat("t", 129), oci.ErrTagInvalid},
		{"GET", "/v2/a/manifests/sha256:abc", oci.ErrDigestInvalid},
		{"GET", "/v2/a/manifests/sha256%3A" + hex64, oci.ErrTagInvalid},
		{"GET", "/v2/a/blobs/sha256:" + strings.ToUpper(hex64), oci.ErrDigestInvalid},
		{"GET", "/v2/a/blobs/sha256:" + hex64 + "0", oci.ErrDigestInvalid},
		{"GET", "/v2/a/blobs/sha256:../../../../etc/passwd", errNoRoute},
		{"GET", "/v2/a/blobs/md5:d41d8cd98f00b204e9800998ecf8427e", oci.ErrDigestInvalid},
		{"POST", "/v2/a/blobs/uploads", oci.ErrDigestInvalid},
		{"GET", "/v2/a/blobs/uploads/..", oci.ErrBlobUploadUnknown},
		{"GET", "/v2/a/blobs/uploads/%2e%2e", oci.ErrBlobUploadUnknown},
		{"GET", "/v2/a%2Fmanifests%2Flatest", errNoRoute},
		{"GET", "/v2/a/manifests%2Flatest", errNoRoute},
		{"GET", "/v2/a%2Ftags/list", errNoRoute},
		{"POST", "/v2/a/blobs%2Fuploads/", errNoRoute},
		{"GET", "/v2/a%252Fb/tags/list", oci.ErrNameInvalid},
		{"GET", "/v2/a%2F%2Fb/tags/list", oci.ErrNameInvalid},
		{"GET", "/v2/%2Fa/tags/list", oci.ErrNameInvalid},
		{"GET", "/v2/a%2F..%2Fb/tags/list", oci.ErrNameInvalid},
		{"GET", "/v2/a/blobs/uploads/" + strings.Repeat("u", 129), oci.ErrBlobUploadUnknown},
		{"PUT", "/v2/a/blobs/uploads/u", oci.ErrDigestInvalid},
		{"PUT", "/v2/a/blobs/uploads/u?digest=" + empty + "&digest=" + empty, nil},
		{"POST", "/v2/a/blobs/uploads/?mount=x&from=b", oci.ErrDigestInvalid},
		{"POST", "/v2/a/blobs/uploads/?mount=" + empty + "&from=../b", oci.ErrNameInvalid},
		{"POST", "/v2/a/blobs/uploads/?mount=" + empty + "&from=", oci.ErrNameInvalid},
		{"POST", "/v2/a/blobs/uploads/?mount=" + empty + "&from=b&from=c", nil},
		{"POST", "/v2/a/blobs/uploads/?mount=" + empty + "&from=b&digest=" + empty, nil},
		{"POST", "/v2/a/blobs/uploads/?digest-algorithm=md5", oci.ErrDigestInvalid},
		{"PUT", "/v2/a/manifests/" + empty + "?tag=a&tag=-", oci.ErrTagInvalid},
		{"GET", "/v2/a/referrers/" + empty + "?artifactType=a%00b", nil},
		{"GET", "/v2/_catalog?n=-1", nil},
		{"GET", "/v2/_catalog?n=%2B1", nil},
		{"GET", "/v2/_catalog?n=1e30", nil},
		{"GET", "/v2/_catalog?n=", nil},
		{"GET", "/v2/_catalog?n", nil},
		{"GET", "/v2/_catalog?n=x", nil},
		{"GET", "/v2/_catalog?n=1&n=1", nil},
		{"GET", "/v2/_catalog?n=%zz", nil},
		{"GET", "/v2/_catalog?n=1;last=a", nil},
		{"GET", "/v2/_catalog?last='%20or%201=1--", oci.ErrNameInvalid},
		{"GET", "/v2/a/tags/list?last=%00", oci.ErrTagInvalid},
		{"GET", "/v2/a/referrers/" + empty + "?last=x", oci.ErrDigestInvalid},
		{"GET", "/v2/" + long, errTooLong},
		{"GET", "/v2/?" + long, errTooLong},
		{"GET", many + "&x=1", nil},
	} {
		_, err := ParseCall(c.method, c.target)
		if want := c.want; want == nil && !fault.Is(err, fault.Invalid) || want != nil && !errors.Is(err, want) {
			t.Errorf("%s %.200s: %v, want %v", c.method, c.target, err, c.want)
		}
	}
	if _, err := ParseCall("GET", many); err != nil {
		t.Errorf("%d parameters: %v", maxParameters, err)
	}
	if _, err := ParseCall("GET", ("/v2/?" + long)[:maxURL]); err != nil {
		t.Errorf("a URL of %d bytes: %v", maxURL, err)
	}
}

func TestMethodsThatAPathDoesNotHave(t *testing.T) {
	for _, c := range []struct{ method, target, allow string }{
		{"POST", "/v2/", "GET, HEAD"},
		{"get", "/v2/", "GET, HEAD"},
		{"OPTIONS", "/v2/", "GET, HEAD"},
		{"TRACE", "/v2/_catalog", "GET, HEAD"},
		{"POST", "/v2/a/manifests/x", "GET, HEAD, PUT, DELETE"},
		{"PUT", "/v2/a/blobs/" + empty, "GET, HEAD, DELETE"},
		{"GET", "/v2/a/blobs/uploads/", "POST"},
		{"POST", "/v2/a/blobs/uploads/u", "GET, HEAD, PATCH, PUT, DELETE"},
		{"DELETE", "/v2/a/tags/list", "GET, HEAD"},
		{"PUT", "/v2/a/referrers/" + empty, "GET, HEAD"},
	} {
		_, err := ParseCall(c.method, c.target)
		if m, ok := err.(methodError); !ok || m.allowed.String() != c.allow {
			t.Errorf("%s %s: %v, want one that allows %s", c.method, c.target, err, c.allow)
		}
	}
}

// Every kind of call says what it needs and has somebody who answers it.
//
// Published failure 49.
func TestEveryKindHasARow(t *testing.T) {
	app := Call{Repo: repo(t, "app"), From: repo(t, "lib")}
	for k := NoCall; k < kinds; k++ {
		if k.String() == "" {
			t.Errorf("kind %d has no name", k)
		}
		if rows[k].needs == nil || rows[k].serve == nil != (k == NoCall) {
			t.Errorf("%s has no row", k)
			continue
		}
		app.Kind = k
		if scopes := app.scopes(); len(scopes) == 0 != (k == NoCall || k == Ping) {
			t.Errorf("%s asks for %v", k, scopes)
		}
	}
	app.Kind = UploadMount
	want := []access.Scope{{Type: "repository", Name: "app", Action: "pull"}, {Type: "repository", Name: "app", Action: "push"}, {Type: "repository", Name: "lib", Action: "pull"}}
	if got := app.scopes(); !reflect.DeepEqual(got, want) {
		t.Errorf("a mount asks for %v, want %v", got, want)
	}
}

// path is the one spelling of c's path.
func (c Call) path() string {
	base := "/v2/" + c.Repo.String()
	switch c.Kind {
	case Ping:
		return "/v2/"
	case Catalog:
		return "/v2/_catalog"
	case TagList:
		return base + "/tags/list"
	case Referrers:
		return base + "/referrers/" + c.Digest.String()
	case ManifestGet, ManifestHead, ManifestPut, ManifestDelete:
		return base + "/manifests/" + c.Reference.String()
	case BlobGet, BlobHead, BlobDelete:
		return base + "/blobs/" + c.Digest.String()
	case RepositoryList:
		return "/acr/v1/_catalog"
	case RepositoryGet, RepositoryLock, RepositoryDelete:
		return "/acr/v1/" + c.Repo.String()
	case TagInfoList:
		return "/acr/v1/" + c.Repo.String() + "/_tags"
	case TagInfoGet, TagLock, TagDelete:
		return "/acr/v1/" + c.Repo.String() + "/_tags/" + c.Reference.Tag.String()
	case ManifestInfoList:
		return "/acr/v1/" + c.Repo.String() + "/_manifests"
	case ManifestInfoGet, ManifestLock:
		return "/acr/v1/" + c.Repo.String() + "/_manifests/" + c.Reference.Digest.String()
	case UploadStart, UploadMount, UploadWhole:
		return base + "/blobs/uploads/"
	}
	return base + "/blobs/uploads/" + c.Upload
}

// A path that is understood is the canonical one, byte for byte; what the
// scopes name is in it; and no answer takes the process down.
func FuzzParseCall(f *testing.F) {
	methods := []string{"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "get", "CONNECT", ""}
	for i, target := range []string{
		"/v2/", "/v2", "/v2/_catalog?n=3&last=a", "/v2/a/b/tags/list?n=0", "/v2/a/manifests/" + empty + "?tag=x",
		"/v2/a/blobs/" + empty, "/v2/a/blobs/uploads/?mount=" + empty + "&from=b/c", "/v2/a/blobs/uploads/u?digest=" + empty,
		"/v2/a/referrers/" + empty + "?artifactType=a/b", "//v2/", "/v2/a%2fb/manifests/x", "/v2/../x", "http://h/v2/", "/v2/a/blobs/uploads/tags/list",
		"/acr/v1/_catalog", "/acr/v1/a%2Fb", "/acr/v1/a/b/_tags?orderby=timeasc", "/acr/v1/a/_tags/b", "/acr/v1/a/_manifests/" + empty, "/acr/v1/a%252Fb/_tags/b",
	} {
		f.Add(methods[i%len(methods)], target)
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		c, err := ParseCall(method, target)
		if err != nil {
			if kind, public := fault.Of(err); kind == fault.Internal && !errors.As(err, new(methodError)) || len(public) > 2000 {
				t.Errorf("%q %q: %v says nothing to the caller, or too much", method, target, err)
			}
			return
		}
		path, _, _ := strings.Cut(target, "?")
		if strings.HasPrefix(path, "/acr/") {
			path = escapes.Replace(path)
		}
		path = slashes.Replace(path)
		if path != c.path() && path != "/v2" {
			t.Errorf("%q is taken for %q", path, c.path())
		}
		if c.Page.N < 0 || c.Page.N > maxPage {
			t.Errorf("%q gives a page of %d", target, c.Page.N)
		}
		if rows[c.Kind].serve == nil || (method == http.MethodGet || method == http.MethodHead) && c.Kind >= UploadStart && c.Kind < RepositoryList && c.Kind != UploadStatus {
			t.Errorf("%s %q is %s", method, target, c.Kind)
		}
		for _, s := range c.scopes() {
			if s.Type == "repository" && s.Name != c.Repo.String() && s.Name != c.From.String() {
				t.Errorf("%q asks for %v", target, s)
			}
		}
	})
}
