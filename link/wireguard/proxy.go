package wireguard

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"cove.example/cove/fault"
)

const (
	// proxyHandshake is how long a client may take to say where it wants to go.
	proxyHandshake = 10 * time.Second
	// proxyDial is how long the destination may take to answer.
	proxyDial = 30 * time.Second
	// proxyConns is how many clients are served at once; more wait in the
	// kernel's queue.
	proxyConns = 512
	// proxyRequest bounds a CONNECT request with its headers.
	proxyRequest = 16 << 10
)

// Dialer is what a Proxy needs of a Tunnel.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	LookupNetIP(ctx context.Context, host string) ([]netip.Addr, error)
	Carries(a netip.Addr) bool
}

// Proxy lets programs that know HTTP CONNECT or SOCKS5 use a tunnel, with one
// port for both: a SOCKS client's first byte is 5, which no HTTP request begins
// with. It has no authentication, so it serves the loopback address only, unless
// told otherwise.
type Proxy struct {
	Tunnel Dialer
	// Direct dials destinations outside the tunnel from this machine. Without
	// it they are refused.
	Direct bool
	// Anyone allows a listener that is not on a loopback address: everyone who
	// reaches it is then a member of the network.
	Anyone bool
}

// Serve accepts connections from l until ctx ends, then closes l and every
// connection. It returns nil if ctx ended it.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	if at, ok := l.Addr().(*net.TCPAddr); !p.Anyone && (!ok || !at.IP.IsLoopback()) {
		return fault.Newf(fault.Invalid, "the proxy has no password and listens on a loopback address only, not on %s", l.Addr())
	}
	ctx, cancel := context.WithCancel(ctx)
	var conns sync.WaitGroup
	defer conns.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	places := semaphore.NewWeighted(proxyConns)
	for {
		if places.Acquire(ctx, 1) != nil {
			return nil
		}
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept at the proxy: %w", err)
		}
		conns.Go(func() {
			defer places.Release(1)
			p.serve(ctx, c)
		})
	}
}

func (p *Proxy) serve(ctx context.Context, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	_ = c.SetDeadline(time.Now().Add(proxyHandshake))
	r := bufio.NewReader(&io.LimitedReader{R: c, N: proxyRequest})
	first, err := r.Peek(1)
	if err != nil {
		return
	}
	greet := p.connect
	if first[0] == socksVersion {
		greet = p.socks
	}
	far := greet(ctx, c, r)
	if far == nil {
		return
	}
	defer far.Close()
	stopFar := context.AfterFunc(ctx, func() { _ = far.Close() })
	defer stopFar()
	_ = c.SetDeadline(time.Time{})
	early, _ := r.Peek(r.Buffered()) // what the client sent without waiting for our answer
	if _, err := far.Write(early); err != nil {
		return
	}
	splice(c, far)
}

// splice copies both ways until both ends have finished.
func splice(a, b net.Conn) {
	var done sync.WaitGroup
	done.Go(func() { pour(a, b) })
	pour(b, a)
	done.Wait()
}

// pour copies from src to dst and passes on the end of it. If dst fails, src's
// sender is cut off, because nobody reads it any more.
func pour(dst, src net.Conn) {
	_, err := io.Copy(dst, src)
	half, ok := dst.(interface{ CloseWrite() error })
	if err != nil || !ok || half.CloseWrite() != nil {
		_, _ = dst.Close(), src.Close()
	}
}

// open connects to host:port, and says in HTTP's terms why it did not.
func (p *Proxy) open(ctx context.Context, address string) (net.Conn, int, error) {
	ctx, cancel := context.WithTimeout(ctx, proxyDial)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return nil, http.StatusBadRequest, errors.New("the destination is not host:port")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, http.StatusBadRequest, errors.New("the destination's port is not a number from 1 to 65535")
	}
	addrs, err := p.Tunnel.LookupNetIP(ctx, host)
	if err != nil {
		return nil, gatewayStatus(err), err
	}
	for _, a := range addrs {
		var c net.Conn
		at := net.JoinHostPort(a.String(), port)
		switch {
		case p.Tunnel.Carries(a):
			c, err = p.Tunnel.DialContext(ctx, "tcp", at)
		case p.Direct:
			c, err = new(net.Dialer).DialContext(ctx, "tcp", at)
		default:
			return nil, http.StatusForbidden, fmt.Errorf("%s (%s) is not in the network; cove join --direct would let the proxy reach it from here", host, a)
		}
		if err == nil {
			return c, http.StatusOK, nil
		}
	}
	return nil, gatewayStatus(err), err
}

func gatewayStatus(err error) int {
	var n net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout() {
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// connect answers an HTTP client. Only CONNECT is served: what cove's clients
// speak is HTTPS, and a proxy that reads requests would see their tokens.
func (p *Proxy) connect(ctx context.Context, c net.Conn, r *bufio.Reader) net.Conn {
	req, err := http.ReadRequest(r)
	if err != nil {
		refuse(c, http.StatusBadRequest, "not an HTTP request")
		return nil
	}
	if req.Method != http.MethodConnect {
		refuse(c, http.StatusMethodNotAllowed, "this proxy serves CONNECT and SOCKS5 only; use https")
		return nil
	}
	far, status, err := p.open(ctx, req.Host)
	if err != nil {
		refuse(c, status, err.Error())
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(proxyHandshake))
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		_ = far.Close()
		return nil
	}
	return far
}

func refuse(c net.Conn, status int, why string) {
	_ = c.SetDeadline(time.Now().Add(proxyHandshake))
	allow := ""
	if status == http.StatusMethodNotAllowed {
		allow = "Allow: CONNECT\r\n"
	}
	why = "cove: " + why + "\n"
	_, _ = fmt.Fprintf(c, "HTTP/1.1 %d %s\r\nContent-Type: text/plain; charset=utf-8\r\n%sContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		status, http.StatusText(status), allow, len(why), why)
}

// SOCKS5, RFC 1928.
const (
	socksVersion = 5
	socksConnect = 1
	socksIPv4    = 1
	socksName    = 3
	socksIPv6    = 4

	socksGranted       = 0
	socksFailed        = 1
	socksNotAllowed    = 2
	socksUnreachable   = 4
	socksExpired       = 6
	socksNoCommand     = 7
	socksNoAddressKind = 8
	socksNoMethod      = 0xff
)

func (p *Proxy) socks(ctx context.Context, c net.Conn, r *bufio.Reader) net.Conn {
	if !socksMethod(c, r) {
		return nil
	}
	address, code := readSocksRequest(r)
	if code != socksGranted {
		_ = socksReply(c, code)
		return nil
	}
	far, status, err := p.open(ctx, address)
	_ = c.SetDeadline(time.Now().Add(proxyHandshake))
	if err != nil {
		_ = socksReply(c, socksCode(status))
		return nil
	}
	if socksReply(c, socksGranted) != nil {
		_ = far.Close()
		return nil
	}
	return far
}

// socksMethod agrees on no authentication.
func socksMethod(c net.Conn, r *bufio.Reader) bool {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return false
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(r, methods); err != nil {
		return false
	}
	for _, m := range methods {
		if m == 0 {
			_, err := c.Write([]byte{socksVersion, 0})
			return err == nil
		}
	}
	_, _ = c.Write([]byte{socksVersion, socksNoMethod})
	return false
}

// readSocksRequest returns where to connect, or the code to refuse with.
func readSocksRequest(r io.Reader) (string, byte) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil || head[0] != socksVersion {
		return "", socksFailed
	}
	size := map[byte]int{socksIPv4: 4, socksIPv6: 16}[head[3]]
	if head[3] == socksName {
		var n [1]byte
		if _, err := io.ReadFull(r, n[:]); err != nil {
			return "", socksFailed
		}
		size = int(n[0])
	}
	if size == 0 {
		return "", socksNoAddressKind
	}
	b := make([]byte, size+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", socksFailed
	}
	if head[1] != socksConnect {
		return "", socksNoCommand
	}
	host := string(b[:size])
	if head[3] != socksName {
		a, _ := netip.AddrFromSlice(b[:size])
		host = a.Unmap().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(binary.BigEndian.Uint16(b[size:])))), socksGranted
}

func socksCode(status int) byte {
	switch status {
	case http.StatusForbidden:
		return socksNotAllowed
	case http.StatusGatewayTimeout:
		return socksExpired
	case http.StatusBadGateway:
		return socksUnreachable
	}
	return socksFailed
}

// socksReply names no bound address: no client of CONNECT uses it.
func socksReply(c net.Conn, code byte) error {
	_, err := c.Write([]byte{socksVersion, code, 0, socksIPv4, 0, 0, 0, 0, 0, 0})
	return err
}
