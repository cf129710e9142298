package ociapi

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/link"
	"cove.example/cove/oci"
	"cove.example/cove/storetest"
)

func TestBlobHeadersAndRanges(t *testing.T) {
	s := newSite(t, everybody)
	page := "<html><script>alert(1)</script>" + strings.Repeat("x", 1000)
	d := s.pushBlob("app", page)
	target := "/v2/app/blobs/" + d

	for _, method := range []string{"GET", "HEAD"} {
		r := s.do(method, target, nil)
		for name, want := range map[string]string{
			"Content-Type":           "application/octet-stream",
			"Content-Disposition":    "attachment",
			"X-Content-Type-Options": "nosniff",
			"Docker-Content-Digest":  d,
			"Etag":                   `"` + d + `"`,
			"Cache-Control":          "private, max-age=31536000, immutable",
			"Vary":                   "Authorization",
			"Accept-Ranges":          "bytes",
			"Content-Length":         "1031",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", method, name, got, want)
			}
		}
		if want := map[string]string{"GET": page}[method]; r.StatusCode != 200 || r.body != want {
			t.Errorf("%s: %d, %d bytes", method, r.StatusCode, len(r.body))
		}
	}
	for _, c := range []struct {
		name, value string
		status      int
		body, rng   string
	}{
		{"Range", "bytes=0-4", 206, page[:5], "bytes 0-4/1031"},
		{"Range", "bytes=1000-", 206, page[1000:], "bytes 1000-1030/1031"},
		{"Range", "bytes=-3", 206, "xxx", "bytes 1028-1030/1031"},
		{"Range", "bytes=1000-5000", 206, page[1000:], "bytes 1000-1030/1031"},
		{"If-None-Match", `"` + d + `"`, 304, "", ""},
		{"If-None-Match", `"other"`, 200, page, ""},
		{"If-Match", `"` + d + `"`, 200, page, ""},
	} {
		r := s.do("GET", target, nil, c.name, c.value)
		if r.StatusCode != c.status || r.body != c.body || r.Header.Get("Content-Range") != c.rng {
			t.Errorf("%s: %s: %d %q, %d bytes", c.name, c.value, r.StatusCode, r.Header.Get("Content-Range"), len(r.body))
		}
	}
	// What net/http would answer in plain text is answered as every error is.
	for _, c := range []struct {
		name, value string
		status      int
	}{
		{"Range", "bytes=500-0", 416},
		{"Range", "bytes=5000-6000", 416},
		{"Range", "bytes=x", 416},
		{"If-Match", `"other"`, 412},
	} {
		r := s.do("GET", target, nil, c.name, c.value)
		if r.StatusCode != c.status || !strings.HasPrefix(r.body, `{"errors":[{"code":"UNSUPPORTED"`) ||
			r.Header.Get("Content-Type") != typeJSON || r.Header.Get("Etag") != "" || r.Header.Get("Content-Disposition") != "" {
			t.Errorf("%s: %s: %d %v %s", c.name, c.value, r.StatusCode, r.Header, r.body)
		}
	}
	s.must(202, "DELETE", target, "")
	s.must(404, "GET", target, "")
	if events := s.log.take(); len(events) != 0 {
		t.Errorf("blobs were recorded: %+v", events)
	}
}

// Reliability row 8: whoever may use one repository cannot read, measure or
// mount what only another one has; and it is not told from what is nowhere.
func TestABlobOfAnotherRepository(t *testing.T) {
	s := newSite(t, byScope)
	const owner, stranger = "Bearer repository:secret:pull repository:secret:push", "Bearer repository:open:pull repository:open:push repository:open:delete"
	const text = "the secret"
	d := oci.DigestOf(oci.SHA256, []byte(text)).String()
	s.must(201, "POST", "/v2/secret/blobs/uploads/?digest="+d, text, "Authorization", owner)

	nowhere := oci.DigestOf(oci.SHA256, []byte("nowhere")).String()
	for _, c := range []struct{ method, name, value string }{
		{"GET", "", ""}, {"HEAD", "", ""}, {"GET", "Range", "bytes=0-1"}, {"GET", "If-None-Match", `"` + d + `"`}, {"DELETE", "", ""},
	} {
		ask := func(d string) reply {
			headers := []string{"Authorization", stranger}
			if c.name != "" {
				headers = append(headers, c.name, c.value)
			}
			return s.do(c.method, "/v2/open/blobs/"+d, nil, headers...)
		}
		there, absent := ask(d), ask(nowhere)
		if there.StatusCode != 404 || strings.ReplaceAll(there.body, d, "D") != strings.ReplaceAll(absent.body, nowhere, "D") {
			t.Errorf("%s %s: %d %s, for one that is nowhere %d %s", c.method, c.name, there.StatusCode, there.body, absent.StatusCode, absent.body)
		}
	}
	if r := s.do("GET", "/v2/secret/blobs/"+d, nil, "Authorization", stranger); r.StatusCode != 401 {
		t.Errorf("by the owner's path: %d", r.StatusCode)
	}

	mount := "/v2/open/blobs/uploads/?from=secret&mount="
	for _, d := range []string{d, nowhere} {
		r := s.do("POST", mount+d, nil, "Authorization", stranger)
		if r.StatusCode != 202 || r.Header.Get("Docker-Content-Digest") != "" || r.Header.Get("Docker-Upload-Uuid") == "" {
			t.Errorf("a mount from where one may not read: %d %v", r.StatusCode, r.Header)
		}
	}
	s.must(404, "GET", "/v2/open/blobs/"+d, "", "Authorization", stranger)
	r := s.do("POST", mount+d, nil)
	if want := `"detail":[{"Type":"repository","Name":"open","Action":"pull"},{"Type":"repository","Name":"open","Action":"push"},{"Type":"repository","Name":"secret","Action":"pull"}]`; r.StatusCode != 401 || !strings.Contains(r.body, want) {
		t.Errorf("a mount without a credential: %d %s", r.StatusCode, r.body)
	}
	if r := s.do("POST", mount+d, nil, "Authorization", "Bearer repository:secret:pull"); r.StatusCode != 401 {
		t.Errorf("a mount to where one may not write: %d", r.StatusCode)
	}
	both := stranger + " repository:secret:pull"
	s.must(201, "POST", mount+d, "", "Authorization", both)
	if r := s.do("GET", "/v2/open/blobs/"+d, nil, "Authorization", stranger); r.body != text {
		t.Errorf("after a mount by one who may: %d %s", r.StatusCode, r.body)
	}
}

// A data host has downloads and nothing else.
func TestDataHost(t *testing.T) {
	s := newSite(t, everybody)
	d := s.pushBlob("app", "x")
	if r := s.do("GET", "/v2/app/blobs/"+d, nil, "Host", dataHost); r.StatusCode != 200 || r.body != "x" {
		t.Errorf("GET of a blob: %d %s", r.StatusCode, r.body)
	}
	for _, c := range []struct{ method, target string }{
		{"GET", "/v2/"}, {"GET", "/v2/_catalog"}, {"GET", "/v2/app/tags/list"}, {"DELETE", "/v2/app/blobs/" + d}, {"POST", "/v2/app/blobs/uploads/"},
	} {
		if r := s.do(c.method, c.target, nil, "Host", strings.ToUpper(dataHost)+":443"); r.StatusCode != 404 {
			t.Errorf("%s %s: %d", c.method, c.target, r.StatusCode)
		}
	}
}

// counting counts the bytes that connections were given as a file to send.
type counting struct {
	net.Listener
	files *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return countingConn{c, l.files}, nil
}

type countingConn struct {
	net.Conn
	files *atomic.Int64
}

func (c countingConn) ReadFrom(r io.Reader) (int64, error) {
	n, err := c.Conn.(io.ReaderFrom).ReadFrom(r)
	if limited, ok := r.(*io.LimitedReader); ok {
		if _, ok := limited.R.(*os.File); ok {
			c.files.Add(n)
		}
	}
	return n, err
}

// Over plain HTTP a blob goes from the disk to the socket without passing
// through this process: the kernel is handed the file itself.
func TestBlobsAreSentByTheKernel(t *testing.T) {
	var files atomic.Int64
	api := &Server{
		Content: openContent(t, storetest.Open(t, storetest.SQLite(t))), Log: &records{}, Now: time.Now, PlainHTTP: true,
		Guard: guardFunc(func(access.Ask) access.Verdict { return everybody(access.Ask{}) }),
	}
	done := make(chan struct{}, 10) // the last byte arrives before the server has counted it
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.ServeHTTP(w, r)
		done <- struct{}{}
	}))
	server.Listener = link.Listener{Listener: counting{server.Listener, &files}}
	server.Start()
	defer server.Close()
	s := &site{TB: t, Server: server, api: api}

	text := strings.Repeat("0123456789", 1<<17)
	d := s.pushBlob("app", text)
	<-done
	r := s.do("GET", "/v2/app/blobs/"+d, nil)
	<-done
	if r.StatusCode != http.StatusOK || r.body != text {
		t.Fatalf("%d, %d bytes", r.StatusCode, len(r.body))
	}
	if got := files.Load(); got < int64(len(text))-512 { // net/http copies the first bytes itself
		t.Errorf("%d of %d bytes went by sendfile", got, len(text))
	}
	files.Store(0)
	r = s.do("GET", "/v2/app/blobs/"+d, nil, "Range", "bytes=100-1000099")
	<-done
	if r.body != text[100:1000100] || files.Load() < 999000 {
		t.Errorf("of a range %d bytes went by sendfile", files.Load())
	}
}
