package door

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Connect is an HTTP proxy for programs on this machine that cannot reach the
// listener's port: with HTTPS_PROXY set to it they use cove's true names. It
// takes CONNECT to cove's own names at port 443 and nothing else, and hands
// the connection to the public listener as one from outside. It is no way in
// to anything that the public listener would not give.
type Connect struct {
	// Serves says which names are ours.
	Serves func(ctx context.Context, host string) (bool, error)
	out    chan net.Conn
	once   sync.Once
	done   chan struct{}
	addr   net.Addr
}

// NewConnect returns a proxy; Serve feeds it.
func NewConnect(serves func(context.Context, string) (bool, error), public net.Addr) *Connect {
	return &Connect{Serves: serves, out: make(chan net.Conn), done: make(chan struct{}), addr: public}
}

// maxConnectRequest bounds the request line and headers of a CONNECT.
const maxConnectRequest = 8 << 10

// Serve accepts proxy clients on l until it is closed. A process without free
// descriptors cannot accept for a while; that is no end.
func (p *Connect) Serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			time.Sleep(acceptAgain)
			continue
		}
		go p.take(c)
	}
}

const acceptAgain = 100 * time.Millisecond

func (p *Connect) take(c net.Conn) {
	deadline := time.Now().Add(headerDeadline)
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return
	}
	br := bufio.NewReaderSize(io.LimitReader(c, maxConnectRequest), maxConnectRequest)
	req, err := http.ReadRequest(br)
	if err != nil {
		c.Close()
		return
	}
	host, port, err := net.SplitHostPort(req.Host)
	host = strings.ToLower(host)
	ours, away := false, error(nil)
	if err == nil && port == "443" && req.Method == http.MethodConnect {
		ours, away = p.Serves(req.Context(), host)
	}
	switch {
	case req.Method != http.MethodConnect:
		answer(c, "405 Method Not Allowed", "This is cove's CONNECT proxy for HTTPS. Set HTTPS_PROXY, not HTTP_PROXY.")
		return
	case away != nil:
		answer(c, "503 Service Unavailable", "cove cannot tell now whether it serves that name; try again.")
		return
	case !ours:
		answer(c, "403 Forbidden", "cove proxies to its own names at port 443 only.")
		return
	}
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		c.Close()
		return
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		c.Close()
		return
	}
	var early []byte
	if n := br.Buffered(); n > 0 {
		early, _ = br.Peek(n)
	}
	select {
	case p.out <- &resumed{Conn: c, early: early}:
	case <-p.done:
		c.Close()
	}
}

func answer(c net.Conn, status, text string) {
	io.WriteString(c, "HTTP/1.1 "+status+"\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"+text+"\n")
	c.Close()
}

// handshakeReads is how many reads of a connection are confirmed at once: more
// than a TLS handshake takes.
const handshakeReads = 8

// resumed is a connection whose first bytes have been read already.
type resumed struct {
	net.Conn
	early []byte
	reads int
}

func (r *resumed) Read(b []byte) (int, error) {
	if len(r.early) > 0 {
		n := copy(b, r.early)
		r.early = r.early[n:]
		return n, nil
	}
	n, err := r.Conn.Read(b)
	if r.reads < handshakeReads {
		r.reads++
		acknowledge(r.Conn)
	}
	return n, err
}

// Accept returns the next connection that the proxy has let through; with
// Close and Addr it makes Connect a net.Listener.
func (p *Connect) Accept() (net.Conn, error) {
	select {
	case c := <-p.out:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (p *Connect) Close() error {
	err := errors.New("door: closed twice")
	p.once.Do(func() { close(p.done); err = nil })
	return err
}

// Addr is the public listener's.
func (p *Connect) Addr() net.Addr { return p.addr }
