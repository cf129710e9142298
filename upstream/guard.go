package upstream

import (
	"net/http"
	"net/url"
	"strings"

	"cove.example/cove/outbound"
)

// realms are the hosts that give tokens for a registry which is known to keep
// them at another place. A realm elsewhere is refused: that is how a registry
// would have the credentials for it sent to somebody else (CVE-2026-33540).
var realms = map[string]string{
	"index.docker.io:443":     "auth.docker.io:443",
	"registry.gitlab.com:443": "gitlab.com:443",
}

const maxRedirects = 5

// guard lets pass what a registry may make us send:
//
//	to the registry itself, and to its realm where that is known: everything
//	to other hosts: a GET or HEAD that the registry has redirected, without
//	any credential; layers are often kept with a content network
//
// All of it by https. Where the addresses behind the names lie is outbound's
// matter.
type guard struct {
	origin string
	inner  http.RoundTripper
}

func newGuard(host string, inner http.RoundTripper) *guard {
	return &guard{outbound.Authority(&url.URL{Scheme: "https", Host: host}), inner}
}

func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	to := outbound.Authority(req.URL)
	home := to == g.origin || to == realms[g.origin]
	hops := 0
	for via := req.Response; via != nil && via.Request != nil && hops <= maxRedirects; via = via.Request.Response {
		hops++
	}
	switch {
	case req.URL.Scheme != "https":
		return nil, ErrElsewhere.Detail("The source registry %s refers to an address in plain http.", g.origin)
	case req.URL.User != nil:
		return nil, ErrElsewhere.Detail("The source registry %s refers to an address with a user name in it.", g.origin)
	case hops > maxRedirects:
		return nil, ErrElsewhere.Detail("The source registry %s redirects more than %d times.", g.origin, maxRedirects)
	case home:
	case hops == 0:
		return nil, ErrElsewhere.Detail("The source registry %s asks for its tokens to be fetched at another host; credentials go to the registry itself only.", g.origin)
	case req.Method != http.MethodGet && req.Method != http.MethodHead, req.Body != nil && req.Body != http.NoBody:
		return nil, ErrElsewhere.Detail("The source registry %s redirects a request that has a body to another host.", g.origin)
	case req.Header.Get("Authorization") != "":
		return nil, ErrElsewhere.Detail("The source registry %s redirects to another host, which asks for credentials.", g.origin)
	case tokens(req):
		return nil, ErrElsewhere.Detail("The source registry %s redirects a request for a token to another host.", g.origin)
	}
	if !home {
		req = req.Clone(req.Context())
		for _, h := range []string{"Cookie", "Proxy-Authorization", "Referer"} {
			req.Header.Del(h)
		}
	}
	return g.inner.RoundTrip(req)
}

// tokens reports whether what was redirected is a request for a token: its
// query may carry the account.
func tokens(req *http.Request) bool {
	first := req
	for first.Response != nil && first.Response.Request != nil {
		first = first.Response.Request
	}
	return !strings.HasPrefix(first.URL.Path, "/v2/")
}
