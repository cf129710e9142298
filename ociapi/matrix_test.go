package ociapi

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"cove.example/cove/policy"
	"cove.example/cove/registry"
)

const (
	aDigest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	anID    = "00000000000000000000000000000000"
)

// matrix says of each route who may, in words of its own: what the table in
// rows.go asks for is what is being tested. A route that is not here fails.
var matrix = map[Kind]struct {
	method, target, body string
	may                  string
}{
	Ping:           {"GET", "/v2/", "", "admin puller pusher deleter anonymous"},
	Catalog:        {"GET", "/v2/_catalog", "", "admin puller pusher anonymous"},
	TagList:        {"GET", "/v2/team/app/tags/list", "", "admin puller pusher anonymous"},
	Referrers:      {"GET", "/v2/team/app/referrers/" + aDigest, "", "admin puller pusher anonymous"},
	ManifestGet:    {"GET", "/v2/team/app/manifests/1", "", "admin puller pusher anonymous"},
	ManifestHead:   {"HEAD", "/v2/team/app/manifests/1", "", "admin puller pusher anonymous"},
	ManifestPut:    {"PUT", "/v2/team/app/manifests/1", "{}", "admin pusher"},
	ManifestDelete: {"DELETE", "/v2/team/app/manifests/1", "", "admin deleter"},
	BlobGet:        {"GET", "/v2/team/app/blobs/" + aDigest, "", "admin puller pusher anonymous"},
	BlobHead:       {"HEAD", "/v2/team/app/blobs/" + aDigest, "", "admin puller pusher anonymous"},
	BlobDelete:     {"DELETE", "/v2/team/app/blobs/" + aDigest, "", "admin deleter"},
	UploadStart:    {"POST", "/v2/team/app/blobs/uploads/", "", "admin pusher"},
	UploadMount:    {"POST", "/v2/team/app/blobs/uploads/?from=team/web&mount=" + aDigest, "", "admin pusher"},
	UploadWhole:    {"POST", "/v2/team/app/blobs/uploads/?digest=" + aDigest, "x", "admin pusher"},
	UploadStatus:   {"GET", "/v2/team/app/blobs/uploads/" + anID, "", "admin pusher"},
	UploadAppend:   {"PATCH", "/v2/team/app/blobs/uploads/" + anID, "x", "admin pusher"},
	UploadFinish:   {"PUT", "/v2/team/app/blobs/uploads/" + anID + "?digest=" + aDigest, "x", "admin pusher"},
	UploadCancel:   {"DELETE", "/v2/team/app/blobs/uploads/" + anID, "", "admin pusher"},

	RepositoryList:   {"GET", "/acr/v1/_catalog", "", "admin puller pusher anonymous"},
	RepositoryGet:    {"GET", "/acr/v1/team/app", "", "admin puller pusher anonymous"},
	RepositoryLock:   {"PATCH", "/acr/v1/team/app", "{}", "admin"},
	RepositoryDelete: {"DELETE", "/acr/v1/team/app", "", "admin deleter"},
	TagInfoList:      {"GET", "/acr/v1/team/app/_tags", "", "admin puller pusher anonymous"},
	TagInfoGet:       {"GET", "/acr/v1/team/app/_tags/1", "", "admin puller pusher anonymous"},
	TagLock:          {"PATCH", "/acr/v1/team/app/_tags/1", "{}", "admin"},
	TagDelete:        {"DELETE", "/acr/v1/team/app/_tags/1", "", "admin deleter"},
	ManifestInfoList: {"GET", "/acr/v1/team/app/_manifests", "", "admin puller pusher anonymous"},
	ManifestInfoGet:  {"GET", "/acr/v1/team/app/_manifests/" + aDigest, "", "admin puller pusher anonymous"},
	ManifestLock:     {"PATCH", "/acr/v1/team/app/_manifests/" + aDigest, "{}", "admin"},
}

var challenged = regexp.MustCompile(`scope="([^"]+)"`)

// Reliability rows 42 to 50: every route against every kind of caller, along
// the way that clients take: the challenge, a token for what it names, the
// request again. A route without a line here fails, so that none is added
// without a decision about who may.
//
// Published failure 16.
func TestRoutesAndPrincipals(t *testing.T) {
	for _, who := range []struct{ name, role string }{
		{"nobody", ""},
		{"stranger", ""},
		{"anonymous", ""},
		{"admin", ""},
		{"puller", policy.RoleAcrPull},
		{"pusher", policy.RoleAcrPush},
		{"deleter", policy.RoleAcrDelete},
	} {
		t.Run(who.name, func(t *testing.T) {
			t.Parallel()
			s := newLoginSiteAs(t, who.role)
			s.set(func(r *registry.Settings) { r.AnonymousPull = who.name == "anonymous" })
			var credential []string
			switch who.name {
			case "nobody", "anonymous":
			case "admin":
				credential = []string{"Authorization", header("harbor", adminPassword)}
			default:
				credential = []string{"Authorization", header(s.client.AppID, s.secret)}
			}
			for kind := Ping; kind < kinds; kind++ {
				m, ok := matrix[kind]
				if c, err := ParseCall(m.method, m.target); !ok || err != nil || c.Kind != kind {
					t.Errorf("%s has no line in the matrix, or one that is another call's (%v, %v)", kind, c.Kind, err)
					continue
				}
				send := func(headers ...string) reply { return s.do(m.method, m.target, strings.NewReader(m.body), headers...) }
				r := send()
				if r.StatusCode != http.StatusUnauthorized {
					t.Errorf("%s without a credential: %d %s", kind, r.StatusCode, r.body)
				}
				token := "/oauth2/token?service=" + loginServer
				if found := challenged.FindStringSubmatch(r.Header.Get("Www-Authenticate")); found != nil {
					for scope := range strings.FieldsSeq(found[1]) {
						token += "&scope=" + url.QueryEscape(scope)
					}
				}
				direct := send(credential...)
				if got := s.do("GET", token, nil, credential...); got.StatusCode == http.StatusOK {
					r = send("Authorization", "Bearer "+got.field("access_token"))
				}
				may := strings.Contains(" "+m.may+" ", " "+who.name+" ")
				if allowed := r.StatusCode != http.StatusUnauthorized; allowed != may || r.StatusCode >= 500 || r.StatusCode == http.StatusForbidden {
					t.Errorf("%s with a token: %d %s; may: %v", kind, r.StatusCode, r.body, may)
				}
				if who.name == "anonymous" {
					continue // only a token is anonymous
				}
				if allowed := direct.StatusCode != http.StatusUnauthorized; allowed != may {
					t.Errorf("%s with a password: %d %s; may: %v", kind, direct.StatusCode, direct.body, may)
				}
			}
		})
	}
	if len(matrix) != int(kinds)-1 {
		t.Errorf("%d lines for %d routes", len(matrix), kinds-1)
	}
}
