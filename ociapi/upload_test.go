package ociapi

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"cove.example/cove/oci"
)

func sha256Of(s string) string { return oci.DigestOf(oci.SHA256, []byte(s)).String() }

// start opens an upload and returns its location.
func (s *site) start(repo, query string) string {
	s.Helper()
	r := s.must(202, "POST", "/v2/"+repo+"/blobs/uploads/"+query, "")
	at := r.Header.Get("Location")
	if id := r.Header.Get("Docker-Upload-Uuid"); at != "/v2/"+repo+"/blobs/uploads/"+id || r.Header.Get("Range") != "0-0" {
		s.Fatalf("an upload starts with %v", r.Header)
	}
	return at
}

func TestEveryShapeOfUpload(t *testing.T) {
	s := newSite(t, everybody)
	const text = "abcdefghij"
	d := sha256Of(text)
	shapes := map[string]func(repo string) reply{
		"one POST": func(repo string) reply { return s.must(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+d, text) },
		"POST and PUT": func(repo string) reply {
			return s.must(201, "PUT", s.start(repo, "")+"?digest="+d, text)
		},
		"streamed": func(repo string) reply {
			at := s.start(repo, "")
			r := s.do("PATCH", at, io.MultiReader(strings.NewReader(text))) // no length is known: chunked, or frames
			if r.StatusCode != 202 || r.Header.Get("Range") != "0-9" || r.Header.Get("Location") != at {
				t.Errorf("streamed: %d %v", r.StatusCode, r.Header)
			}
			return s.must(201, "PUT", at+"?digest="+d, "")
		},
		"chunks": func(repo string) reply {
			at := s.start(repo, "")
			for _, c := range []string{"0-3", "4-7", "8-9"} {
				var from, to int
				fmt.Sscanf(c, "%d-%d", &from, &to)
				r := s.must(202, "PATCH", at, text[from:to+1], "Content-Range", c)
				if got := r.Header.Get("Range"); got != fmt.Sprintf("0-%d", to) {
					t.Errorf("after %s the upload stands at %s", c, got)
				}
			}
			return s.must(201, "PUT", at+"?digest="+d, "")
		},
		"last chunk in the PUT": func(repo string) reply {
			at := s.start(repo, "")
			s.must(202, "PATCH", at, text[:4], "Content-Range", "0-3")
			r := s.must(204, "GET", at, "")
			if r.Header.Get("Range") != "0-3" || r.Header.Get("Location") != at {
				t.Errorf("status: %v", r.Header)
			}
			return s.must(201, "PUT", at+"?digest="+d, text[4:], "Content-Range", "4-9")
		},
	}
	for name, push := range shapes {
		repo := strings.ToLower(strings.ReplaceAll(name, " ", "-"))
		r := push(repo)
		if r.Header.Get("Location") != "/v2/"+repo+"/blobs/"+d || r.Header.Get("Docker-Content-Digest") != d {
			t.Errorf("%s: %v", name, r.Header)
		}
		if got := s.do("GET", r.Header.Get("Location"), nil); got.body != text {
			t.Errorf("%s: %d %q", name, got.StatusCode, got.body)
		}
	}
}

func TestEmptyBlobAndSHA512(t *testing.T) {
	s := newSite(t, everybody)
	s.must(201, "POST", "/v2/app/blobs/uploads/?digest="+empty, "")
	s.must(201, "PUT", s.start("other", "")+"?digest="+empty, "")
	for _, repo := range []string{"app", "other"} {
		if r := s.do("GET", "/v2/"+repo+"/blobs/"+empty, nil); r.StatusCode != 200 || r.ContentLength != 0 {
			t.Errorf("the empty blob: %d, %d bytes", r.StatusCode, r.ContentLength)
		}
	}
	d := oci.DigestOf(oci.SHA512, []byte("x")).String()
	for _, query := range []string{"?digest-algorithm=sha512", ""} {
		s.must(201, "PUT", s.start("app", query)+"?digest="+d, "x")
		if r := s.do("GET", "/v2/app/blobs/"+d, nil); r.body != "x" {
			t.Errorf("under sha512%s: %d %s", query, r.StatusCode, r.body)
		}
		s.must(202, "DELETE", "/v2/app/blobs/"+d, "")
	}
}

// A digest that the bytes do not have stores nothing and names both.
func TestDigestMismatch(t *testing.T) {
	s := newSite(t, everybody)
	want, got := sha256Of("what was meant"), sha256Of("what came")
	for name, send := range map[string]func() reply{
		"one POST": func() reply {
			return s.do("POST", "/v2/app/blobs/uploads/?digest="+want, strings.NewReader("what came"))
		},
		"PUT": func() reply { return s.do("PUT", s.start("app", "")+"?digest="+want, strings.NewReader("what came")) },
		"PUT after PATCH": func() reply {
			at := s.start("app", "")
			s.must(202, "PATCH", at, "what ")
			return s.do("PUT", at+"?digest="+want, strings.NewReader("came"))
		},
	} {
		r := send()
		if r.StatusCode != 400 || !strings.Contains(r.body, "DIGEST_INVALID") || !strings.Contains(r.body, want) || !strings.Contains(r.body, got) {
			t.Errorf("%s: %d %s", name, r.StatusCode, r.body)
		}
	}
	s.must(404, "GET", "/v2/app/blobs/"+want, "")
	s.must(404, "GET", "/v2/app/blobs/"+got, "")
}

func TestChunksThatDoNotFit(t *testing.T) {
	s := newSite(t, everybody)
	at := s.start("app", "")
	s.must(202, "PATCH", at, "abcd", "Content-Range", "0-3")
	for _, c := range []struct {
		method, rng, body string
		status            int
		code              string
	}{
		{"PATCH", "5-8", "fghi", 416, "BLOB_UPLOAD_INVALID"},
		{"PATCH", "0-3", "abcd", 416, "BLOB_UPLOAD_INVALID"},
		{"PUT", "3-4", "de", 416, "BLOB_UPLOAD_INVALID"},
		{"PATCH", "999999999999999999-999999999999999999", "x", 413, "SIZE_INVALID"},
		{"PATCH", "4-9", "ef", 400, "SIZE_INVALID"},
		{"PATCH", "4-4", "ef", 400, "SIZE_INVALID"},
		{"PATCH", "5-4", "", 400, "BLOB_UPLOAD_INVALID"},
		{"PATCH", "4-", "e", 400, "BLOB_UPLOAD_INVALID"},
		{"PATCH", "-1-3", "e", 400, "BLOB_UPLOAD_INVALID"},
		{"PATCH", "bytes 4-4/5", "e", 400, "BLOB_UPLOAD_INVALID"},
		{"PATCH", "4-99999999999999999999999", "e", 400, "BLOB_UPLOAD_INVALID"},
		{"PATCH", "４-４", "e", 400, "BLOB_UPLOAD_INVALID"},
	} {
		target := at
		if c.method == "PUT" {
			target += "?digest=" + sha256Of("abcdde")
		}
		r := s.do(c.method, target, strings.NewReader(c.body), "Content-Range", c.rng)
		if r.StatusCode != c.status || !strings.Contains(r.body, c.code) {
			t.Errorf("%s %s: %d %s", c.method, c.rng, r.StatusCode, r.body)
		}
		if told := r.Header.Get("Range") == "0-3" && r.Header.Get("Location") == at; told != (c.status == 416) {
			t.Errorf("%s %s: %v", c.method, c.rng, r.Header)
		}
	}
	s.must(201, "PUT", at+"?digest="+sha256Of("abcdef"), "ef", "Content-Range", "4-5")
}

// Reliability row 23: an upload is its repository's. Its id opens nothing by
// another path, and the attempts leave it as it was.
func TestUploadOfAnotherRepository(t *testing.T) {
	s := newSite(t, byScope)
	const owner, stranger = "Bearer repository:a:pull repository:a:push", "Bearer repository:b:pull repository:b:push"
	at := s.must(202, "POST", "/v2/a/blobs/uploads/", "", "Authorization", owner).Header.Get("Location")
	s.must(202, "PATCH", at, "half", "Authorization", owner)
	digest := sha256Of("half and half")
	for _, method := range []string{"GET", "HEAD", "PATCH", "PUT", "DELETE"} {
		query := map[string]string{"PUT": "?digest=" + digest}[method]
		for target, status := range map[string]int{at: 401, strings.Replace(at, "/a/", "/b/", 1): 404, "/v2/b/blobs/uploads/0000": 404} {
			if r := s.do(method, target+query, strings.NewReader("junk"), "Authorization", stranger); r.StatusCode != status || r.Header.Get("Location") != "" {
				t.Errorf("%s %s: %d, want %d", method, target, r.StatusCode, status)
			}
		}
	}
	if r := s.must(204, "GET", at, "", "Authorization", owner); r.Header.Get("Range") != "0-3" {
		t.Errorf("it stands at %s", r.Header.Get("Range"))
	}
	s.must(201, "PUT", at+"?digest="+digest, " and half", "Authorization", owner)
}

func TestCancelledUpload(t *testing.T) {
	s := newSite(t, everybody)
	at := s.start("app", "")
	s.must(204, "DELETE", at, "")
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		if r := s.must(404, method, at, ""); method != "HEAD" && !strings.Contains(r.body, "BLOB_UPLOAD_UNKNOWN") {
			t.Errorf("%s: %s", method, r.body)
		}
	}
}

// A connection that breaks loses nothing that arrived: the upload goes on
// from there.
func TestResumeAfterABrokenConnection(t *testing.T) {
	s := newSite(t, everybody)
	at := s.start("app", "")
	conn, err := tls.Dial("tcp", s.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "PATCH %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000\r\n\r\nfirst half", at, loginServer)
	conn.NetConn().(*net.TCPConn).CloseWrite()
	r, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && r.StatusCode != 400 {
		t.Errorf("half a body is answered with %d", r.StatusCode)
	}
	conn.Close()

	var stands string
	for deadline := time.Now().Add(10 * time.Second); stands != "0-9" && time.Now().Before(deadline); {
		stands = s.must(204, "GET", at, "").Header.Get("Range")
	}
	if stands != "0-9" {
		t.Fatalf("the upload stands at %s", stands)
	}
	s.must(201, "PUT", at+"?digest="+sha256Of("first half, second half"), ", second half", "Content-Range", "10-22")
}
