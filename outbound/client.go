package outbound

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cove.example/cove/fault"
)

// Bounds on what others send us.
const (
	maxHeader    = 64 << 10
	headerTime   = 30 * time.Second
	idleTime     = 60 * time.Second
	maxRedirects = 5
	// maxBody bounds a response for which the caller has set no bound.
	maxBody = 1 << 20
)

// The failures of a request besides ErrUnreachable.
var (
	ErrScheme   = fault.New(fault.Invalid, "only https addresses are requested")
	ErrRedirect = fault.New(fault.Invalid, "the host redirects where this server does not follow")
	ErrTooLarge = fault.New(fault.TooLarge, "the host sent more than was to be expected")
)

type limit struct{}

// Limit returns a context whose requests take at most n bytes of body; more is
// ErrTooLarge. Without it they take 1 MiB.
func Limit(ctx context.Context, n int64) context.Context {
	return context.WithValue(ctx, limit{}, n)
}

// Transport returns the transport of a feature. It takes https only, no URL
// with a user in it, and bounds headers and bodies. It does not decompress.
func (d *Dialer) Transport(f Feature) http.RoundTripper {
	return &transport{&http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return d.Dial(ctx, f, address)
		},
		TLSClientConfig:        d.tls.Clone(),
		TLSHandshakeTimeout:    dialTime,
		ResponseHeaderTimeout:  headerTime,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    4,
		MaxIdleConns:           32,
		IdleConnTimeout:        idleTime,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
	}}
}

// Client returns an HTTP client of a feature. It follows redirects to https
// only, and drops every credential on the way to another host.
func (d *Dialer) Client(f Feature) *http.Client {
	return &http.Client{Transport: d.Transport(f), CheckRedirect: Follow}
}

// Follow is the policy of redirects, for http.Client.CheckRedirect.
func Follow(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return ErrRedirect.Detail("the host redirects more than %d times", maxRedirects)
	}
	if req.URL.Scheme != "https" {
		return ErrRedirect.Detail("the host redirects to plain http")
	}
	if !SameOrigin(req.URL, via[0].URL) {
		// net/http keeps them for a subdomain, which may be somebody else's.
		for _, h := range []string{"Authorization", "Cookie", "Proxy-Authorization", "Www-Authenticate"} {
			req.Header.Del(h)
		}
		req.Header.Del("Referer")
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			return ErrRedirect.Detail("the host redirects a request that has a body to another host")
		}
	}
	return nil
}

// SameOrigin reports whether two URLs have one scheme, host and port.
func SameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && Authority(a) == Authority(b)
}

// Authority is the host and port of an https URL, in lower case.
func Authority(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "443"
	}
	return net.JoinHostPort(strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")), port)
}

type transport struct{ inner http.RoundTripper }

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	switch {
	case req.URL.Scheme != "https":
		return nil, ErrScheme
	case req.URL.User != nil:
		return nil, ErrScheme.Detail("an address with a user name or password in it is not requested")
	}
	resp, err := t.inner.RoundTrip(req)
	if err != nil {
		if _, ok := kindOf(err); ok {
			return nil, err
		}
		// A certificate that does not verify, a peer that speaks no TLS: what
		// it says tells a caller what is there.
		return nil, ErrUnreachable.Because(err)
	}
	n, ok := req.Context().Value(limit{}).(int64)
	if !ok {
		n = maxBody
	}
	if resp.ContentLength > n && req.Method != http.MethodHead {
		resp.Body.Close()
		return nil, ErrTooLarge.Because(fmt.Errorf("%d bytes announced, the bound is %d", resp.ContentLength, n))
	}
	resp.Body = &bounded{resp.Body, n}
	return resp, nil
}

// CloseIdleConnections implements what http.Client asks of a transport.
func (t *transport) CloseIdleConnections() {
	if c, ok := t.inner.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func kindOf(err error) (fault.Kind, bool) {
	kind, _ := fault.Of(err)
	return kind, kind != fault.Internal
}

// bounded is a body that ends in ErrTooLarge rather than behind its bound.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		n, b.left = int(b.left), 0
		return n, ErrTooLarge
	}
	b.left -= int64(n)
	return n, err
}
