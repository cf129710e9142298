package door

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// open runs a server of h on loopback, for HTTP/1.1 and HTTP/2 without TLS.
func open(t *testing.T, h http.HandlerFunc) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := Server(h)
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// hostile is a connection that speaks HTTP/2 by frames.
type hostile struct {
	*http2.Framer
	c     net.Conn
	heads bytes.Buffer
	pack  *hpack.Encoder
}

func attack(t *testing.T, addr string) *hostile {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	a := &hostile{Framer: http2.NewFramer(c, c), c: c}
	a.pack = hpack.NewEncoder(&a.heads)
	if err := a.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return a
}

// head is the header block of a request.
func (a *hostile) head(more ...hpack.HeaderField) []byte {
	a.heads.Reset()
	for _, f := range append([]hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":authority", Value: "x"}, {Name: ":path", Value: "/"}}, more...) {
		a.pack.WriteField(f)
	}
	return bytes.Clone(a.heads.Bytes())
}

// ended reads until the server says that it has had enough, or hangs up.
func (a *hostile) ended() error {
	for {
		f, err := a.ReadFrame()
		if err != nil {
			return err
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			return http2.ConnectionError(g.ErrCode)
		}
	}
}

// Streams that are opened and reset at once run no more handlers than streams
// that are left open, and who goes on with it is hung up on; others are served
// meanwhile (docs/published-failures.md, failure 57).
func TestStreamsThatAreResetAtOnce(t *testing.T) {
	var running, most atomic.Int64
	release := make(chan struct{})
	addr := open(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Host == "other" {
			io.WriteString(w, "served")
			return
		}
		if n := running.Add(1); n > most.Load() {
			most.Store(n)
		}
		defer running.Add(-1)
		<-release // what a handler does that is at work and does not look
	})
	a := attack(t, addr)
	over := make(chan error, 1)
	go func() { over <- a.ended() }()
	opened, enough := 0, error(nil)
	for enough == nil {
		id := uint32(2*opened + 1)
		if err := errors.Join(a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: a.head(), EndHeaders: true, EndStream: true}), a.WriteRSTStream(id, http2.ErrCodeCancel)); err != nil {
			enough = <-over
			break
		}
		opened++
		select {
		case enough = <-over:
		default:
		}
		if opened > 1<<20 { // far more than the buffers between hold
			t.Fatalf("%d streams were opened and reset, and the connection lives", opened)
		}
	}
	if most.Load() > maxStreams {
		t.Errorf("%d handlers ran for one connection, of at most %d", most.Load(), maxStreams)
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "other"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	close(release)
	t.Logf("ended by %v after %d streams, with %d handlers", enough, opened, most.Load())
}

// A header that goes on in frame after frame is not waited for to its end
// (docs/published-failures.md, failure 57).
func TestAHeaderWithoutEnd(t *testing.T) {
	addr := open(t, func(http.ResponseWriter, *http.Request) { t.Error("a header without end was served") })
	a := attack(t, addr)
	over := make(chan error, 1)
	go func() { over <- a.ended() }()
	if err := a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.head(), EndStream: true}); err != nil {
		t.Fatal(err)
	}
	piece := func(i int) []byte {
		a.heads.Reset()
		a.pack.WriteField(hpack.HeaderField{Name: "x-more", Value: strings.Repeat(string(rune('a'+i%26)), 12<<10), Sensitive: true})
		return a.heads.Bytes()
	}
	for sent := 0; ; {
		b := piece(sent)
		if err := a.WriteContinuation(1, false, b); err != nil {
			return // it has hung up
		}
		if sent += len(b); sent > 64<<20 { // far more than the buffers between hold
			t.Fatalf("%d bytes of header were taken", sent)
		}
		select {
		case <-over:
			return
		default:
		}
	}
}

// What two programs could read as two different requests is refused, and what
// stands behind it is not served (docs/published-failures.md, failure 57).
func TestRequestsThatCanBeReadInTwoWays(t *testing.T) {
	type read struct {
		path string
		err  error
	}
	served := make(chan read, 4)
	addr := open(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		served <- read{r.URL.Path, err}
	})
	const behind = "GET /behind HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, request := range map[string]string{
		"a chunk's size that ends in a bare line feed":   "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
		"a chunk's extension with a bare line feed":      "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nb\r\nhello\r\n0\r\n\r\n",
		"a chunk that is longer than it says":            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
		"two lengths":                                    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"a length with a sign":                           "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello",
		"an encoding that is none":                       "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"an encoding behind a space":                     "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"two hosts":                                      "POST / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"a folded header":                                "POST / HTTP/1.1\r\nHost: x\r\n\tContent-Length: 5\r\n\r\nhello",
		"a header with a carriage return":                "POST / HTTP/1.1\r\nHost: x\r\nA: b\rContent-Length: 5\r\n\r\nhello",
		"a version that is none":                         "POST / HTTP/1.2x\r\nHost: x\r\n\r\n",
		"a body that a space stands before, in the line": "POST /a b HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.WriteString(c, request+behind); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			// A request line and a header are refused by the server; a body is
			// by whoever reads it.
			if resp.StatusCode != http.StatusBadRequest && resp.StatusCode != http.StatusNotImplemented && resp.StatusCode != http.StatusHTTPVersionNotSupported {
				if got := <-served; got.err == nil {
					t.Errorf("it was served, and answered %s", resp.Status)
				}
			}
			if _, err := io.Copy(io.Discard, c); err != nil {
				t.Errorf("the connection goes on: %v", err)
			}
			select {
			case got := <-served:
				t.Errorf("what stood behind it was served too: %+v", got)
			default:
			}
		})
	}
}
