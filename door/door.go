// Package door is the front door: it looks at the name that a caller asked
// for and hands the request to whoever serves that name.
//
// The name comes from one place, the TLS handshake and the Host header
// together. Where the two disagree the answer is 421, so that nobody gets one
// registry's answer under another's name (docs/published-failures.md, failure 30).
package door

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"cove.example/cove/link"
)

// Router hands a request to the handler of its host.
type Router struct {
	// Hosts are the configured names, lower case.
	Hosts map[string]http.Handler
	// Registry serves every host that IsRegistry admits.
	Registry http.Handler
	// IsRegistry fails where it cannot be found out now.
	IsRegistry func(ctx context.Context, host string) (bool, error)
	// Plain says that TLS ends in front of us; then only registries are
	// served and the Host header is all there is to go by.
	Plain bool
}

// Serves reports whether host is one of ours; the certificate authority asks.
// It fails where that cannot be found out now.
func (r *Router) Serves(ctx context.Context, host string) (bool, error) {
	if r.Hosts[host] != nil {
		return true, nil
	}
	return r.IsRegistry(ctx, host)
}

// ServeHTTP answers 421 Misdirected Request where the names disagree or the
// host is not ours, and 503 where that cannot be found out, with no body: a
// stranger's Host header gets no word of ours.
func (r *Router) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	host, ok := canonical(req.Host)
	if ok && !r.Plain {
		ok = req.TLS != nil && strings.EqualFold(req.TLS.ServerName, host)
	}
	if !ok {
		refuse(w, http.StatusMisdirectedRequest)
		return
	}
	if h := r.Hosts[host]; h != nil && !r.Plain {
		req.Host = host
		h.ServeHTTP(w, req)
		return
	}
	// The data plane sees the name as it was written: capitals and, in plain
	// HTTP, the port matter to what it answers.
	switch ours, err := r.IsRegistry(req.Context(), host); {
	case err != nil:
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable)
	case ours:
		r.Registry.ServeHTTP(w, req)
	default:
		refuse(w, http.StatusMisdirectedRequest)
	}
}

func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Connection", "close")
	w.WriteHeader(status)
}

// canonical is the Host header in lower case without a port; false for what
// is no plain host name or IPv4 address.
func canonical(host string) (string, bool) {
	if h, port, err := net.SplitHostPort(host); err == nil {
		if port == "" || strings.Trim(port, "0123456789") != "" || len(port) > 5 {
			return "", false
		}
		host = h
	}
	host = strings.ToLower(host)
	if host == "" || len(host) > 253 || host[len(host)-1] == '.' || strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return "", false
	}
	return host, true
}

// Limits of every HTTP server of cove.
const (
	maxHeader      = 32 << 10
	headerDeadline = 10 * time.Second
	idle           = 2 * time.Minute
	maxStreams     = 250
)

// Server returns an HTTP server with cove's limits whose requests know their
// link.Origin.
func Server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           patient{h},
		ReadHeaderTimeout: headerDeadline,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxHeader,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: maxStreams, WriteByteTimeout: stall},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if o, ok := origin(c); ok {
				return link.With(ctx, o)
			}
			return ctx
		},
	}
}

// origin finds the link.Conn below TLS.
func origin(c net.Conn) (link.Origin, bool) {
	for {
		switch t := c.(type) {
		case *link.Conn:
			return t.Origin, true
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			return link.Origin{}, false
		}
	}
}
