package ociapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/access"
	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/reason"
)

// sentinels returns the exported Err… variables of a package's folder.
func sentinels(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok {
				for _, name := range v.Names {
					if strings.HasPrefix(name.Name, "Err") {
						found[name.Name] = true
					}
				}
			}
			_, inFunc := n.(*ast.FuncDecl)
			return !inFunc
		})
	}
	return slices.Sorted(maps.Keys(found))
}

func TestEverySentinelHasACode(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "fail.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var inTable []string
	ast.Inspect(f, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || v.Names[0].Name != "codes" {
			return true
		}
		ast.Inspect(v, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(s.Sel.Name, "Err") {
				inTable = append(inTable, s.Sel.Name)
			}
			return true
		})
		return false
	})
	slices.Sort(inTable)
	declared := sentinels(t, "../oci")
	if len(declared) < 10 || !slices.Equal(declared, inTable) {
		t.Errorf("oci declares\n%v\nthe table has\n%v", declared, inTable)
	}
}

// What the specification lists, and ACR's own for locked things, and the one
// for failures of ours, which may not be any of these.
var specified = []string{
	"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
	"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS",
	"REGISTRY_DISALLOWED_OPERATION", "UNKNOWN",
}

func TestCodesAreTheSpecifications(t *testing.T) {
	for _, c := range codes {
		if !slices.Contains(specified, c.code) || c.status < 400 || c.status > 499 {
			t.Errorf("%v is %d %s", c.err, c.status, c.code)
		}
	}
	for k := fault.Internal; k <= fault.Unsupported; k++ {
		if p := byKind[k]; !slices.Contains(specified, p.Code) || p.status < 400 {
			t.Errorf("kind %d is %d %s", k, p.status, p.Code)
		}
	}
}

// broken is content of which one method fails.
type broken struct {
	content.Service
	err error
}

func (b broken) Manifest(context.Context, content.Key, oci.Reference) (content.Manifest, error) {
	return content.Manifest{}, b.err
}

func TestFailuresOnTheWire(t *testing.T) {
	s := newSite(t, everybody)
	var log bytes.Buffer
	s.api.Failures = slog.New(slog.NewTextHandler(&log, nil))
	cause := errors.New("SELECT secret FROM /var/lib/cove")
	for _, c := range []struct {
		err    error
		status int
		code   string
		says   string
	}{
		{oci.ErrManifestUnknown, 404, "MANIFEST_UNKNOWN", `manifest tagged by "1.4" is not found`},
		{fmt.Errorf("read: %w", oci.ErrManifestUnknown.Because(cause)), 404, "MANIFEST_UNKNOWN", `manifest tagged by "1.4" is not found`},
		{oci.ErrNameUnknown, 404, "NAME_UNKNOWN", "repository name not known to registry"},
		{oci.ErrDisallowed, 405, "REGISTRY_DISALLOWED_OPERATION", "The operation is disallowed on this registry, repository or image. View troubleshooting steps at https://aka.ms/acr/faq/#why-does-my-pull-or-push-request-fail-with-disallowed-operation"},
		{fault.Newf(fault.Throttled, "slowly"), 429, "TOOMANYREQUESTS", "slowly"},
		{content.ErrDiskFull.Because(cause), 503, "UNKNOWN", "the disk is full"},
		{cause, 500, "UNKNOWN", "internal error"},
	} {
		s.api.Content = broken{err: c.err}
		log.Reset()
		r := s.do("GET", "/v2/app/manifests/1.4", nil)
		var body struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(r.body), &body); err != nil || len(body.Errors) != 1 {
			t.Errorf("%v gives %q", c.err, r.body)
			continue
		}
		if e := body.Errors[0]; r.StatusCode != c.status || e.Code != c.code || e.Message != c.says {
			t.Errorf("%v gives %d %+v", c.err, r.StatusCode, e)
		}
		if strings.Contains(r.body, "SELECT") || strings.Contains(r.body, "/var") {
			t.Errorf("the cause reached the caller: %s", r.body)
		}
		if again := r.Header.Get("Retry-After") != ""; again != (c.status == 429 || c.status == 503) {
			t.Errorf("%d with Retry-After %q", c.status, r.Header.Get("Retry-After"))
		}
		id := r.Header.Get("X-Ms-Correlation-Request-Id")
		if logged := strings.Contains(log.String(), id) && strings.Contains(log.String(), "SELECT"); logged != (c.status == 500) {
			t.Errorf("%d left in the log: %q", c.status, &log)
		}
		head := s.do("HEAD", "/v2/app/manifests/1.4", nil)
		if head.StatusCode != c.status || head.body != "" || head.Header.Get("Content-Type") != r.Header.Get("Content-Type") {
			t.Errorf("HEAD gives %d %q", head.StatusCode, head.body)
		}
	}
}

func TestMissingThings(t *testing.T) {
	s := newSite(t, everybody)
	s.pushImage("app", "1.4", "x")
	missing := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct{ method, target, want string }{
		{"GET", "/v2/app/manifests/2.0", `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"2.0\" is not found","detail":{"Tag":"2.0"}}]}`},
		{"GET", "/v2/app/manifests/" + missing, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest ` + missing + ` is not found","detail":{"Name":"app","Revision":"` + missing + `"}}]}`},
		{"GET", "/v2/nowhere/manifests/" + missing, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest ` + missing + ` is not found","detail":{"Name":"nowhere","Revision":"` + missing + `"}}]}`},
		{"DELETE", "/v2/app/manifests/2.0", `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest tagged by \"2.0\" is not found","detail":{"Tag":"2.0"}}]}`},
		{"GET", "/v2/nowhere/tags/list", `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry","detail":{"name":"nowhere"}}]}`},
		{"GET", "/v2/app/blobs/" + missing, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":{"digest":"` + missing + `"}}]}`},
		{"DELETE", "/v2/app/blobs/" + missing, `{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":{"digest":"` + missing + `"}}]}`},
	} {
		r := s.do(c.method, c.target, nil)
		if r.StatusCode != 404 || r.body != c.want+"\n" {
			t.Errorf("%s %s: %d %s, want %s", c.method, c.target, r.StatusCode, r.body, c.want)
		}
	}
	for _, target := range []string{"/v2/app/manifests/2.0", "/v2/app/blobs/" + missing} {
		if r := s.do("HEAD", target, nil); r.StatusCode != 404 || r.body != "" {
			t.Errorf("HEAD %s: %d %q", target, r.StatusCode, r.body)
		}
	}
}

// The very bytes that clients were written against: the recorded challenge is
// 149 bytes long.
func TestTheChallenge(t *testing.T) {
	s := newSite(t, byScope)
	r := s.do("GET", "/v2/", nil, "X-Ms-Correlation-Request-Id", "11111111-2222-4333-8444-555555555555")
	want := `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required, visit https://aka.ms/acr/authorization for more information.","detail":null}]}` + "\n"
	if r.StatusCode != 401 || r.body != want || r.ContentLength != 149 {
		t.Errorf("%d, %d bytes: %s", r.StatusCode, r.ContentLength, r.body)
	}
	if got := r.Header.Get("Www-Authenticate"); got != `Bearer realm="https://harbor.cr.cove.internal/oauth2/token",service="harbor.cr.cove.internal"` {
		t.Errorf("the challenge is %s", got)
	}
	id := r.Header.Get("X-Ms-Correlation-Request-Id")
	if len(id) != 36 || strings.HasPrefix(id, "11111111") {
		t.Errorf("the id is %q", id)
	}
	events := s.log.take()
	if len(events) != 1 || events[0].ID != id || events[0].Table != "LoginEvents" || events[0].Operation != "Login" || events[0].Status != 401 ||
		events[0].Host != loginServer || events[0].CallerIP != "127.0.0.1" || events[0].Reason != string(reason.NoCredential) || len(events[0].Detail) == 0 {
		t.Errorf("recorded: %+v", events)
	}
	if again := s.do("GET", "/v2/", nil).Header.Get("X-Ms-Correlation-Request-Id"); again == id {
		t.Error("two requests have one id")
	}
}

// Over plain HTTP the token endpoint is where the caller can reach it: behind
// somebody's TLS under the name alone, else at the port that it called.
func TestTheChallengeOverPlainHTTP(t *testing.T) {
	s := newSite(t, byScope)
	s.api.PlainHTTP = true
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for host, realm := range map[string]string{
		loginServer:              "https://" + loginServer,
		loginServer + ":" + port: "http://" + loginServer + ":" + port,
		loginServer + ":1":       "https://" + loginServer,
	} {
		got := s.do("GET", "/v2/", nil, "Host", host).Header.Get("Www-Authenticate")
		if want := `Bearer realm="` + realm + `/oauth2/token",service="` + loginServer + `"`; got != want {
			t.Errorf("called as %s: %s, want %s", host, got, want)
		}
	}
}

func TestTwoCredentials(t *testing.T) {
	s := newSite(t, everybody)
	status, answer := s.raw("GET /v2/ HTTP/1.1\r\nHost: " + loginServer + "\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\nConnection: close\r\n\r\n")
	if status != 400 {
		t.Errorf("%s", answer)
	}
	for _, a := range s.asked.take() {
		if a.Authority != "" {
			t.Errorf("one of them was looked at: %q", a.Authority)
		}
	}
}

func TestAMissingPermissionIs401AndSaysWhich(t *testing.T) {
	s := newSite(t, byScope)
	for _, c := range []struct{ method, target, detail string }{
		{"GET", "/v2/team/app/manifests/1.4", `[{"Type":"repository","Name":"team/app","Action":"pull"}]`},
		{"HEAD", "/v2/team/app/blobs/" + empty, ""},
		{"PUT", "/v2/team/app/manifests/1.4", `[{"Type":"repository","Name":"team/app","Action":"pull"},{"Type":"repository","Name":"team/app","Action":"push"}]`},
		{"DELETE", "/v2/team/app/manifests/1.4", `[{"Type":"repository","Name":"team/app","Action":"delete"}]`},
		{"GET", "/v2/_catalog", `[{"Type":"registry","Name":"catalog","Action":"*"}]`},
	} {
		for _, credential := range []string{"", "Bearer repository:other:pull"} {
			r := s.do(c.method, c.target, nil, "Authorization", credential)
			want := ""
			if c.detail != "" {
				want = `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required, visit https://aka.ms/acr/authorization for more information.","detail":` + c.detail + `}]}` + "\n"
			}
			if r.StatusCode != 401 || r.body != want || r.Header.Get("Www-Authenticate") == "" {
				t.Errorf("%s %s with %q: %d %s", c.method, c.target, credential, r.StatusCode, r.body)
			}
		}
	}
}

// An address that may not speak gets one answer, whatever it asks for and
// whether or not that is there or even makes sense.
func TestTheNetworksNo(t *testing.T) {
	s := newSite(t, noOne)
	for _, c := range []struct{ method, target string }{
		{"GET", "/v2/"},
		{"GET", "/v2/team/app/manifests/1.4"},
		{"GET", "/v2/TEAM/manifests/1.4"},
		{"GET", "/v2/_catalog?n=-1"},
		{"POST", "/v2/team/app/manifests/1.4"},
		{"GET", "/somewhere/else"},
	} {
		r := s.do(c.method, c.target, nil, "Authorization", "Basic canary")
		id := r.Header.Get("X-Ms-Correlation-Request-Id")
		want := `{"errors":[{"code":"DENIED","message":"client with IP \u0027127.0.0.1\u0027 is not allowed access. Refer https://aka.ms/acr/firewall to grant access. CorrelationId: ` + id + `","detail":"COVE-NET-003"}]}` + "\n"
		if r.StatusCode != 403 || r.body != want || r.Header.Get("Www-Authenticate") != "" || r.Header.Get("Allow") != "" {
			t.Errorf("%s %s: %d %s", c.method, c.target, r.StatusCode, r.body)
		}
		if events := s.log.take(); len(events) != 1 || events[0].ID != id || events[0].Reason != "COVE-NET-003" || events[0].Status != 403 {
			t.Errorf("%s %s recorded %+v", c.method, c.target, events)
		}
	}
	if r := s.do("HEAD", "/v2/", nil); r.StatusCode != 403 || r.body != "" {
		t.Errorf("HEAD: %d %q", r.StatusCode, r.body)
	}
}

// A guard that cannot find out refuses, and says so as what it is.
func TestNoDecisionIsARefusal(t *testing.T) {
	s := newSite(t, func(a access.Ask) access.Verdict {
		return access.Verdict{Refusal: access.Unavailable, Reason: string(reason.CannotDecide), Public: "the registry cannot decide about this request now, try again."}
	})
	r := s.do("GET", "/v2/", nil)
	if r.StatusCode != 503 || r.Header.Get("Retry-After") == "" || !strings.Contains(r.body, "cannot decide") {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
}

func TestHeadersOfEveryAnswer(t *testing.T) {
	s := newSite(t, everybody)
	s.pushImage("app", "1.4", "x")
	for _, target := range []string{"/v2/", "/v2/app/manifests/1.4", "/v2/app/manifests/nothing", "/nowhere", "/v2/app/tags/list"} {
		h := s.do("GET", target, nil).Header
		for name, want := range map[string]string{
			"Docker-Distribution-Api-Version": "registry/2.0",
			"X-Content-Type-Options":          "nosniff",
			"Strict-Transport-Security":       "max-age=31536000; includeSubDomains",
			"Access-Control-Expose-Headers":   "Docker-Content-Digest,WWW-Authenticate,Link,X-Ms-Correlation-Request-Id",
		} {
			if got := strings.Join(h[name], ","); got != want {
				t.Errorf("%s: %s is %q, want %q", target, name, got, want)
			}
		}
		if c := h.Get("Cache-Control"); c != "no-store" && !strings.HasPrefix(c, "private") {
			t.Errorf("%s: Cache-Control is %q", target, c)
		}
	}
	s.api.PlainHTTP = true
	if got := s.do("GET", "/v2/", nil).Header.Get("Strict-Transport-Security"); got != "" {
		t.Errorf("over plain HTTP: %q", got)
	}
}

func TestMethodNotAllowed(t *testing.T) {
	s := newSite(t, everybody)
	for _, method := range []string{"OPTIONS", "POST", "TRACE", "PROPFIND"} {
		r := s.do(method, "/v2/app/blobs/"+empty, nil)
		if r.StatusCode != 405 || r.Header.Get("Allow") != "GET, HEAD, DELETE" {
			t.Errorf("%s: %d, Allow %q", method, r.StatusCode, r.Header.Get("Allow"))
		}
	}
	if events := s.log.take(); len(events) != 0 {
		t.Errorf("recorded as somebody's refusal: %+v", events)
	}
	if r := s.do("GET", "/v2/app/blobs/"+empty, nil, "X-Http-Method-Override", "DELETE"); r.StatusCode != http.StatusNotFound {
		t.Errorf("a method from a header: %d", r.StatusCode)
	}
}
