package door

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are made with dial, so that a test's
// clock is that of its bubble.
type pipes struct {
	out  chan net.Conn
	done chan struct{}
	once sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.out:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p *pipes) dial(context.Context, string, string) (net.Conn, error) {
	mine, theirs := net.Pipe()
	p.out <- theirs
	return mine, nil
}

// serving runs f against a server of h in a bubble, once for HTTP/1.1 and
// once for HTTP/2. What h returns, f receives.
func serving(t *testing.T, h func(http.ResponseWriter, *http.Request) error, f func(t *testing.T, c *http.Client, done <-chan error)) {
	for _, two := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", two), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipes{out: make(chan net.Conn), done: make(chan struct{})}
				done := make(chan error, 1)
				srv := Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { done <- h(w, r) }))
				protocols := new(http.Protocols)
				protocols.SetHTTP1(!two)
				protocols.SetUnencryptedHTTP2(two)
				srv.Protocols = protocols
				go srv.Serve(l)
				// Small, so that a reader who stops is felt soon.
				window := &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10}
				tr := &http.Transport{DialContext: l.dial, Protocols: protocols, HTTP2: window}
				f(t, &http.Client{Transport: tr}, done)
				tr.CloseIdleConnections()
				srv.Close()
				synctest.Wait()
			})
		})
	}
}

// A caller who begins a body and falls silent is cut off, and the handler
// learns that it was the caller. So is one who sends a form a byte at a time.
func TestASilentUploadIsCut(t *testing.T) {
	for what, feed := range map[string]func(w io.Writer) error{
		"silent": func(w io.Writer) error { _, err := w.Write([]byte("a beginning")); return err },
		"trickling": func(w io.Writer) error {
			for {
				if _, err := w.Write([]byte("x")); err != nil {
					return err
				}
				time.Sleep(time.Second)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			serving(t, func(_ http.ResponseWriter, r *http.Request) error {
				_, err := io.Copy(io.Discard, r.Body)
				return err
			}, func(t *testing.T, c *http.Client, done <-chan error) {
				body, in := io.Pipe()
				fed := make(chan struct{})
				go func() {
					defer close(fed)
					_ = feed(in) // it is cut off
				}()
				go func() {
					if resp, err := c.Post("http://cove/", "", body); err == nil {
						resp.Body.Close()
					}
				}()
				start := time.Now()
				if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("reading ended with %v", err)
				}
				if took := time.Since(start); took > stall {
					t.Errorf("after %v, want at most %v", took, stall)
				}
				body.Close()
				<-fed
			})
		})
	}
}

// What is longer than a form, and comes slowly, but comes, is taken however long
// it is. The work after its end may take its time too.
func TestASlowUploadIsNot(t *testing.T) {
	const pieces = 20
	serving(t, func(w http.ResponseWriter, r *http.Request) error {
		n, err := io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(10 * stall): // a large file is flushed
		case <-r.Context().Done():
			err = errors.Join(err, r.Context().Err())
		}
		fmt.Fprint(w, n, err)
		return err
	}, func(t *testing.T, c *http.Client, _ <-chan error) {
		body, feed := io.Pipe()
		go func() {
			feed.Write(make([]byte, portion))
			for range pieces {
				time.Sleep(stall - rearm - time.Second)
				feed.Write([]byte("x"))
			}
			feed.Close()
		}()
		resp, err := c.Post("http://cove/", "", body)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != fmt.Sprint(portion+pieces, " <nil>") {
			t.Errorf("%s, %v", b, err)
		}
	})
}

// Whoever announces a body that nobody wants gets the answer, and no longer
// has a connection to hold: net/http reads such bodies by itself.
func TestAnUnsentBodyHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &pipes{out: make(chan net.Conn), done: make(chan struct{})}
		srv := Server(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
		go srv.Serve(l)
		c, err := l.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		io.WriteString(c, "POST /v2/ HTTP/1.1\r\nHost: cove\r\nContent-Length: 100\r\n\r\n")
		br := bufio.NewReader(c)
		line, err := br.ReadString('\n')
		if err != nil || !strings.Contains(line, "401") {
			t.Errorf("%q, %v", line, err)
		}
		if _, err := io.Copy(io.Discard, br); err != nil {
			t.Errorf("the connection was not closed: %v", err)
		}
		if took := time.Since(start); took > 2*stall {
			t.Errorf("held for %v", took)
		}
		srv.Close()
		synctest.Wait()
	})
}

// A caller who asks and does not read is cut off; one who reads slowly is not.
func TestAReaderHasToRead(t *testing.T) {
	const size = 3 * portion
	h := func(w http.ResponseWriter, _ *http.Request) error {
		_, err := w.(io.ReaderFrom).ReadFrom(&io.LimitedReader{R: zeros{}, N: size})
		if err == nil {
			err = http.NewResponseController(w).Flush()
		}
		return err
	}
	serving(t, h, func(t *testing.T, c *http.Client, done <-chan error) {
		start := time.Now()
		resp, err := c.Get("http://cove/")
		if err != nil {
			t.Fatal(err)
		}
		if err := <-done; err == nil {
			t.Error("a reader who does not read was sent everything")
		}
		if took := time.Since(start); took > 2*stall {
			t.Errorf("after %v", took)
		}
		resp.Body.Close()
	})
	serving(t, h, func(t *testing.T, c *http.Client, done <-chan error) {
		resp, err := c.Get("http://cove/")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var n int64
		for err == nil {
			var got int64
			got, err = io.CopyN(io.Discard, resp.Body, portion/4)
			n += got
			time.Sleep(stall / 8)
		}
		if err != io.EOF || n != size {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// failing is a listener that fails once and then is what it is.
type failing struct {
	*pipes
	failed bool
}

func (f *failing) Accept() (net.Conn, error) {
	if !f.failed {
		f.failed = true
		return nil, errors.New("accept4: too many open files")
	}
	return f.pipes.Accept()
}

// A moment without file descriptors does not end the proxy.
func TestTheProxyOutlivesAFailedAccept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failing{pipes: &pipes{out: make(chan net.Conn), done: make(chan struct{})}}
		p := NewConnect(func(context.Context, string) (bool, error) { return false, nil }, l.Addr())
		ended := make(chan error, 1)
		go func() { ended <- p.Serve(l) }()
		c, err := l.dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		go io.WriteString(c, "CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n")
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "403") {
			t.Errorf("%q, %v", line, err)
		}
		c.Close()
		l.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
}
