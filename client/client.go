// Package client speaks cove's Resource Manager API, as any other client of
// it would: a token from the issuer, JSON over HTTPS, errors in ARM's shape.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"cove.example/cove/fault"
)

// Object is a JSON object.
type Object = map[string]any

const (
	apiVersion = "2025-04-01"
	maxAnswer  = 64 << 20
	maxPages   = 10_000
	// expiryLeeway renews a token that would end while a request is under way.
	expiryLeeway = time.Minute
)

// Client is one caller of one deployment.
type Client struct {
	Profile Profile
	http    *http.Client
	graph   string // the directory's address, for a client of Graph; "" is the Resource Manager

	mu      sync.Mutex
	token   string
	expires time.Time
}

// New returns a client for p. It sends the secret to p's issuer only.
func New(p Profile) (*Client, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(p.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(p.CA) {
			return nil, fault.Newf(fault.Invalid, "the certificate authority's file holds no certificate")
		}
		conf.RootCAs = pool
	}
	tr := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     conf,
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     30 * time.Second,
	}
	if p.Dial != "" {
		// The server runs here and its names need not resolve: its listener
		// is known.
		tr.Proxy = nil
		tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, p.Dial)
		}
	}
	return &Client{Profile: p, http: &http.Client{
		Transport: tr,
		Timeout:   2 * time.Minute,
		// A redirect would carry the token to a host that somebody else chose.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Error is an answer that is no success, as ARM words it.
type Error struct {
	Status      int
	Code        string
	Message     string
	Details     []Detail
	Correlation string // x-ms-correlation-request-id
}

// Detail is one of several problems.
type Detail struct {
	Code    string `json:"code"`
	Target  string `json:"target"`
	Message string `json:"message"`
}

func (e *Error) Error() string {
	text := e.Message
	if text == "" {
		text = fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	}
	if len(e.Details) > 1 || len(e.Details) == 1 && e.Details[0].Message != e.Message && !strings.Contains(text, e.Details[0].Message) {
		for _, d := range e.Details {
			text += "\n  " + strings.TrimPrefix(d.Target+": ", ": ") + d.Message
		}
	}
	return text
}

// NotFound reports whether err says that the resource does not exist.
func NotFound(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Status == http.StatusNotFound
}

// Scope is the id of the profile's subscription.
func (c *Client) Scope() string { return "/subscriptions/" + c.Profile.SubscriptionID }

// Get, Put, Patch, Post and Delete act on the resource with that id.
func (c *Client) Get(ctx context.Context, id string) (Object, error) {
	return c.do(ctx, http.MethodGet, id, nil)
}

// Put creates or replaces a resource.
func (c *Client) Put(ctx context.Context, id string, body Object) (Object, error) {
	return c.do(ctx, http.MethodPut, id, body)
}

// Patch changes what body names.
func (c *Client) Patch(ctx context.Context, id string, body Object) (Object, error) {
	return c.do(ctx, http.MethodPatch, id, body)
}

// Post runs an action.
func (c *Client) Post(ctx context.Context, id string, body Object) (Object, error) {
	return c.do(ctx, http.MethodPost, id, body)
}

// Delete deletes a resource; an absent one is no error.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.do(ctx, http.MethodDelete, id, nil)
	return err
}

// List returns all pages of a collection.
func (c *Client) List(ctx context.Context, path string) ([]any, error) {
	var all []any
	next := c.url(path)
	for range maxPages {
		page, err := c.send(ctx, http.MethodGet, next, nil)
		if err != nil {
			return nil, err
		}
		values, _ := page["value"].([]any)
		all = append(all, values...)
		link, _ := page["nextLink"].(string)
		if c.graph != "" {
			link, _ = page["@odata.nextLink"].(string)
		}
		if link == "" {
			return all, nil
		}
		// The token goes to the API that it is for and nowhere else.
		if !strings.HasPrefix(link, c.audience()+"/") {
			return nil, fault.Newf(fault.Unavailable, "the server's next page lies at another host: %s", link)
		}
		next = link
	}
	return nil, fault.Newf(fault.TooLarge, "the list has more than %d pages", maxPages)
}

// Graph is the same caller as a client of the directory, Graph v1.0: its ids
// are paths such as /applications, its tokens are for the directory only.
func (c *Client) Graph(ctx context.Context) (*Client, error) {
	at := c.Profile.Graph
	if at == "" {
		cloud, err := c.Metadata(ctx)
		if err != nil {
			return nil, err
		}
		at = cloud.Graph
	}
	if !strings.HasPrefix(at, "https://") {
		return nil, fault.Newf(fault.Unavailable, "the server names no directory")
	}
	return &Client{Profile: c.Profile, http: c.http, graph: strings.TrimRight(at, "/")}, nil
}

// audience is the API that requests go to and that tokens are for.
func (c *Client) audience() string {
	if c.graph != "" {
		return c.graph
	}
	return c.Profile.ResourceManager
}

func (c *Client) url(path string) string {
	if c.graph != "" {
		return c.graph + "/v1.0" + path
	}
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	return c.Profile.ResourceManager + path + sep + "api-version=" + apiVersion
}

func (c *Client) do(ctx context.Context, method, path string, body Object) (Object, error) {
	return c.send(ctx, method, c.url(path), body)
}

func (c *Client) send(ctx context.Context, method, target string, body Object) (Object, error) {
	out, _, err := c.exchange(ctx, method, target, body)
	return out, err
}

// exchange sends one request and returns the answer with its headers.
func (c *Client) exchange(ctx context.Context, method, target string, body Object) (Object, http.Header, error) {
	token, err := c.bearer(ctx)
	if err != nil {
		return nil, nil, err
	}
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, r)
	if err != nil {
		return nil, nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Header.Set("User-Agent", "cove-cli")
	return c.read(req)
}

func (c *Client) answer(req *http.Request) (Object, error) {
	out, _, err := c.read(req)
	return out, err
}

func (c *Client) read(req *http.Request) (Object, http.Header, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, unreachable(req.URL, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, nil, unreachable(req.URL, err)
	}
	if resp.StatusCode >= 300 {
		return nil, nil, failure(resp, data)
	}
	var out Object
	if len(bytes.TrimSpace(data)) > 0 {
		dec := json.NewDecoder(bytes.NewReader(data))
		dec.UseNumber()
		if err := dec.Decode(&out); err != nil {
			return nil, nil, fault.Newf(fault.Unavailable, "%s answered something that is not JSON", req.URL.Host)
		}
	}
	return out, resp.Header, nil
}

func failure(resp *http.Response, data []byte) error {
	e := &Error{Status: resp.StatusCode, Correlation: resp.Header.Get("X-Ms-Correlation-Request-Id")}
	var arm struct {
		Error json.RawMessage `json:"error"`
		// The issuer's form.
		Description string `json:"error_description"`
	}
	if json.Unmarshal(data, &arm) != nil {
		return e
	}
	var body struct {
		Code    string   `json:"code"`
		Message string   `json:"message"`
		Details []Detail `json:"details"`
	}
	if json.Unmarshal(arm.Error, &body) == nil {
		e.Code, e.Message, e.Details = body.Code, body.Message, body.Details
		return e
	}
	e.Message = arm.Description
	return e
}

// unreachable says what to look at when no answer came at all.
func unreachable(u *url.URL, err error) error {
	cause := err
	if ue, ok := errors.AsType[*url.Error](err); ok {
		cause = ue.Err
	}
	switch {
	case errors.As(cause, new(*net.DNSError)):
		return fault.Newf(fault.Unavailable, "%s does not resolve on this machine. On the server's own machine start the server and use --data; elsewhere point its resolver at cove's public DNS view, or set HTTPS_PROXY to its --connect address", u.Hostname())
	case errors.As(cause, new(x509.UnknownAuthorityError)):
		return fault.Newf(fault.Unavailable, "%s has a certificate that this machine does not trust: give the server's ca.pem to `cove login` with --ca-file, or in COVE_CA_FILE", u.Hostname())
	}
	return fault.Newf(fault.Unavailable, "%s cannot be reached: %v. Is `cove serve` running?", u.Host, cause)
}

// Token returns a token of the Resource Manager, such as registries exchange
// for one of theirs. It is for hosts of the same deployment only.
func (c *Client) Token(ctx context.Context) (string, error) { return c.bearer(ctx) }

// bearer returns a token of the API's audience, a kept one while it is good.
func (c *Client) bearer(ctx context.Context) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.Profile.ClientID == "" {
		return "", nil
	}
	if c.token != "" && time.Now().Before(c.expires) {
		return c.token, nil
	}
	issuer, err := c.issuer(ctx)
	if err != nil {
		return "", err
	}
	form := url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {c.Profile.ClientID},
		"client_secret": {string(c.Profile.ClientSecret)},
		"scope":         {c.audience() + "/.default"},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, issuer+"/"+url.PathEscape(c.Profile.TenantID)+"/oauth2/v2.0/token", strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	out, err := c.answer(req)
	if err != nil {
		if e, ok := errors.AsType[*Error](err); ok {
			return "", fault.Newf(fault.Unauthenticated, "sign-in failed: %s", e.Error())
		}
		return "", err
	}
	c.token, _ = out["access_token"].(string)
	if c.token == "" {
		return "", fault.Newf(fault.Unavailable, "%s gave no token", req.URL.Host)
	}
	life, _ := out["expires_in"].(json.Number)
	seconds, err := life.Int64()
	if err != nil {
		seconds = 0
	}
	c.expires = time.Now().Add(time.Duration(seconds)*time.Second - expiryLeeway)
	return c.token, nil
}

// issuer is the profile's, or the one that the Resource Manager names.
func (c *Client) issuer(ctx context.Context) (string, error) {
	if c.Profile.ActiveDirectory != "" {
		return c.Profile.ActiveDirectory, nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.Profile.ResourceManager+"/metadata/endpoints?api-version=2015-01-01", nil)
	if err != nil {
		return "", err
	}
	out, err := c.answer(req)
	if err != nil {
		return "", err
	}
	auth, _ := out["authentication"].(Object)
	login, _ := auth["loginEndpoint"].(string)
	login = strings.TrimSuffix(strings.TrimRight(login, "/"), "/adfs")
	if !strings.HasPrefix(login, "https://") {
		return "", fault.Newf(fault.Unavailable, "%s names no issuer", req.URL.Host)
	}
	c.Profile.ActiveDirectory = login
	return login, nil
}
