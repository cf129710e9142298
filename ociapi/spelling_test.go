package ociapi

import (
	"fmt"
	"strings"
	"testing"
)

// spellings are ways to write a path that some server in some stack takes for
// the path itself.
func spellings(path string) []string {
	i := strings.LastIndexByte(strings.TrimSuffix(path, "/"), '/') // the last slash inside
	head, last := path[:i], path[i+1:]
	list := []string{
		"/" + path,
		"//" + path,
		"/." + path,
		"/.." + path,
		"/x/.." + path,
		"/%2e%2e" + path,
		"/..;" + path,
		"/%2f" + path,
		`\` + path,
		`/\` + path,
		path + "//",
		path + "/.",
		path + "/..",
		path + "/x/..",
		path + "/%2e",
		path + "%2f",
		path + "%00",
		path + "%20",
		path + "%09",
		path + "%0d%0aX:y",
		path + ";x",
		path + ";x=y",
		path + "%3fx=y",
		path + "%23",
		path + "#x",
		path + `\`,
		path + "~",
		path + "*",
		path + "%e2%80%8b",
		path + "\xc0\xaf",
		head + "//" + last,
		head + "/./" + last,
		head + "/x/../" + last,
		head + "/%2e/" + last,
		head + "%2f" + last,
		head + "%2F" + last,
		head + "%252f" + last,
		head + "%c0%af" + last,
		head + `\` + last,
		head + "%5c" + last,
		head + ";/" + last,
		head + "/..;/" + last,
		head + "/%0a" + last,
		strings.ToUpper(path),
		strings.Replace(path, "v2", "V2", 1),
		strings.Replace(path, "v2", "%762", 1),
		strings.Replace(path, "v2", "v%32", 1),
		strings.Replace(path, "v2", "v1", 1),
		"https://" + loginServer + path,
		"http://" + loginServer + path,
		"https://user@" + loginServer + path,
		loginServer + path,
		"https:" + path,
		"*" + path,
	}
	if strings.HasSuffix(path, "/") {
		if path != "/v2/" { // which the specification writes both ways
			list = append(list, strings.TrimSuffix(path, "/"))
		}
	} else {
		list = append(list, path+"/")
	}
	if len(last) > 1 {
		list = append(list,
			fmt.Sprintf("%s/%%%02x%s", head, last[0], last[1:]),
			fmt.Sprintf("%s/%s%%%02X", head, last[:len(last)-1], last[len(last)-1]))
	}
	return list
}

// Reliability rows 13 and 26: a route in any other spelling is refused; it is
// never answered as the route would be, and nothing is done. The requests go
// over the socket byte by byte, because clients clean paths.
func TestOtherSpellingsOfEveryRoute(t *testing.T) {
	s := newSite(t, everybody)
	const note = "the-canary"
	_, d := s.pushImage("team/app", "1.4", note)
	blob := s.pushBlob("team/app", note+note)
	up := s.must(202, "POST", "/v2/team/app/blobs/uploads/", "").Header.Get("Location")

	for _, c := range []struct {
		method, path, query string
		status              int // of the canonical form, asked for last
	}{
		{"GET", "/v2/", "", 200},
		{"GET", "/v2/_catalog", "", 200},
		{"GET", "/v2/team/app/tags/list", "", 200},
		{"GET", "/v2/team/app/manifests/1.4", "", 200},
		{"GET", "/v2/team/app/manifests/" + d, "", 200},
		{"GET", "/v2/team/app/blobs/" + blob, "", 200},
		{"GET", "/v2/team/app/referrers/" + d, "", 200},
		{"GET", up, "", 204},
		{"POST", "/v2/team/app/blobs/uploads/", "", 202},
		{"POST", "/v2/team/app/blobs/uploads/", "?mount=" + blob + "&from=team/app", 201},
		{"PATCH", up, "", 202},
		{"PUT", up, "?digest=" + empty, 201},
		{"DELETE", "/v2/team/app/manifests/1.4", "", 202},
		{"DELETE", "/v2/team/app/manifests/" + d, "", 202},
		{"DELETE", "/v2/team/app/blobs/" + blob, "", 202},
	} {
		tries := spellings(c.path)
		if len(tries) < 30 {
			t.Fatalf("only %d spellings of %s", len(tries), c.path)
		}
		ask := func(target string) (int, string) {
			return s.raw(c.method + " " + target + c.query + " HTTP/1.1\r\nHost: " + loginServer + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		}
		for _, path := range tries {
			s.asked.take()
			status, answer := ask(path)
			if status < 400 || status > 499 {
				t.Errorf("%s %s is answered with %d, as the route itself", c.method, path, status)
			}
			if strings.Contains(answer, note) || strings.Contains(answer, "Docker-Content-Digest:") || strings.Contains(answer, "Docker-Upload-UUID:") || strings.Contains(answer, "token") {
				t.Errorf("%s %s: %s", c.method, path, answer)
			}
		}
		if status, answer := ask(c.path); status != c.status {
			t.Errorf("%s %s%s in its own spelling: %d %s", c.method, c.path, c.query, status, answer)
		}
	}
}

// Reliability rows 26 and 33: what is no name, tag, digest or upload id is
// refused wherever one stands, and no part of it becomes a path.
func TestHostileNames(t *testing.T) {
	s := newSite(t, everybody)
	s.pushImage("app", "1.4", "x")
	up := s.must(202, "POST", "/v2/app/blobs/uploads/", "").Header.Get("Location")
	digests := []string{
		"sha256:" + strings.ToUpper(hex64), "sha256:" + hex64[:63], "sha256:" + hex64 + "0", "sha256:", "sha256:../../../etc/passwd",
		"sha256:..%2f..%2fetc%2fpasswd", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha512:" + hex64, "sha384:" + hex64 + hex64[:32], "SHA256:" + hex64,
		"sha256:" + hex64[:32] + "%00" + hex64[:31], "sha256%3A" + hex64, "sha256::" + hex64, "sha256+b64:" + hex64, "sha256:" + strings.Repeat("g", 64), ":" + hex64,
	}
	for _, d := range digests {
		inPath := []string{"GET /v2/app/blobs/", "HEAD /v2/app/blobs/", "DELETE /v2/app/blobs/", "GET /v2/app/manifests/", "PUT /v2/app/manifests/", "DELETE /v2/app/manifests/", "GET /v2/app/referrers/"}
		inQuery := []string{"POST /v2/app/blobs/uploads/?digest=", "POST /v2/app/blobs/uploads/?from=app&mount=", "PUT " + up + "?digest="}
		for i, prefix := range append(inPath, inQuery...) {
			if i >= len(inPath) && d == digests[11] {
				continue // in a query a colon may be written so
			}
			status, answer := s.raw(prefix + d + " HTTP/1.1\r\nHost: " + loginServer + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			if status != 400 && !(status == 404 && strings.Contains(d, "/")) {
				t.Errorf("%s%s: %d", prefix, d, status)
			}
			if i >= len(inPath) && !strings.Contains(answer, "DIGEST_INVALID") {
				t.Errorf("%s%s: %s", prefix, d, answer)
			}
		}
	}
	for _, name := range []string{"..", "../..", "..%2f..", "%2e%2e", ".git", "a/../b", "a//b", "-", "_a", "A", "a%00", "a:b", "a@b", "con.", "%5c..%5c", strings.Repeat("a/", 200) + "a"} {
		for _, target := range []string{"/v2/" + name + "/manifests/1.4", "/v2/" + name + "/tags/list", "/v2/" + name + "/blobs/uploads/u", "/v2/app/manifests/." + name, "/v2/app/blobs/uploads/%" + name} {
			if status, answer := s.raw("GET " + target + " HTTP/1.1\r\nHost: " + loginServer + "\r\nConnection: close\r\n\r\n"); status != 400 && status != 404 {
				t.Errorf("GET %s: %d %s", target, status, answer)
			}
		}
		status, _ := s.raw("POST /v2/app/blobs/uploads/?mount=" + empty + "&from=" + name + " HTTP/1.1\r\nHost: " + loginServer + "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		if status != 400 {
			t.Errorf("a mount from %s: %d", name, status)
		}
	}
	for _, id := range []string{"..", ".", "x%2f..", "x%00", "x;y", strings.Repeat("x", 129)} {
		if status, _ := s.raw("GET /v2/app/blobs/uploads/" + id + " HTTP/1.1\r\nHost: " + loginServer + "\r\nConnection: close\r\n\r\n"); status != 404 {
			t.Errorf("upload %s: %d", id, status)
		}
	}
}
