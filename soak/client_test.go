package soak

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// client speaks the distribution protocol to one registry and believes
// nothing: whatever comes back is counted and hashed.
type client struct {
	http     *http.Client
	base     string // scheme and host of the registry
	user     string
	password string
	bearer   string // goes before user and password
}

// outside is a client of the public listener.
func outside(t testing.TB, s *covetest.Server, registry, password string) *client {
	t.Helper()
	return &client{http: s.Outside(t), base: "https://" + host(registry), user: registry, password: password}
}

// plain is a client of --listen-http.
func plain(s *covetest.Server, registry, password string) *client {
	h := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	return &client{http: h, base: "http://" + s.Run.HTTP, user: registry, password: password}
}

// host is a registry's login server.
func host(registry string) string { return registry + ".cr.cove.internal" }

// close drops the client's connections.
func (c *client) close() { c.http.CloseIdleConnections() }

// refusal is an answer other than the one expected.
type refusal struct {
	status int
	code   string
	said   string
	call   string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("%s is answered %d %s: %s", r.call, r.status, r.code, r.said)
}

// status is that of an answer that was a refusal, else 0.
func status(err error) int {
	if r, ok := errors.AsType[*refusal](err); ok {
		return r.status
	}
	return 0
}

// maxSaid bounds what is read of a refusal.
const maxSaid = 64 << 10

// call sends a request and returns the answer if its status is want; the
// caller closes its body.
func (c *client) call(ctx context.Context, want int, method, path string, body io.Reader, headers ...string) (*http.Response, error) {
	length := int64(-1) // not stated
	if n, ok := body.(interface{ Len() int }); ok {
		length = int64(n.Len())
	}
	if length == 0 {
		body = nil
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.ContentLength = length
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+c.bearer)
	} else {
		req.SetBasicAuth(c.user, c.password)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == want {
		return resp, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxSaid))
	if err != nil {
		return nil, err
	}
	r := &refusal{status: resp.StatusCode, call: method + " " + path}
	var said struct {
		Errors []struct{ Code, Message string }
	}
	if err := json.Unmarshal(text, &said); err == nil && len(said.Errors) == 1 {
		r.code, r.said = said.Errors[0].Code, said.Errors[0].Message
	} else {
		r.said = "no OCI error: " + string(text)
	}
	return nil, r
}

// tell is call for an answer whose body does not matter.
func (c *client) tell(ctx context.Context, want int, method, path string, body io.Reader, headers ...string) (http.Header, error) {
	resp, err := c.call(ctx, want, method, path, body, headers...)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Header, err
}

// location is the path of an answer's Location, with its query.
func location(h http.Header) (string, error) {
	u, err := url.Parse(h.Get("Location"))
	if err != nil || u.Path == "" {
		return "", fmt.Errorf("the Location %q leads nowhere", h.Get("Location"))
	}
	return u.RequestURI(), nil
}

// withDigest is where the PUT that ends an upload goes.
func withDigest(location, digest string) string {
	if strings.Contains(location, "?") {
		return location + "&digest=" + digest
	}
	return location + "?digest=" + digest
}

// standing returns where an upload stands. The grammar of Range has no empty
// range, so "0-0" is read as nothing: no chunk of these tests is one byte.
func standing(h http.Header) (int64, error) {
	first, last, ok := strings.Cut(h.Get("Range"), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || first != "0" || n < 0 {
		return 0, fmt.Errorf("the Range %q is not 0-LAST", h.Get("Range"))
	}
	if n == 0 {
		return 0, nil
	}
	return n + 1, nil
}

// blobStart begins an upload and returns its location.
func (c *client) blobStart(ctx context.Context, repo string) (string, error) {
	h, err := c.tell(ctx, http.StatusAccepted, http.MethodPost, "/v2/"+repo+"/blobs/uploads/", nil)
	if err != nil {
		return "", err
	}
	return location(h)
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// errPartial is what must never be seen.
var errPartial = errors.New("what is served is not what its digest names")

// whole asks for a blob by HEAD and by GET. It is there and whole, or not
// there; anything else is an error.
func (c *client) whole(ctx context.Context, repo, digest string, size int64) (bool, error) {
	path := "/v2/" + repo + "/blobs/" + digest
	h, err := c.tell(ctx, http.StatusOK, http.MethodHead, path, nil)
	absent := status(err) == http.StatusNotFound
	if err != nil && !absent {
		return false, err
	}
	if err == nil && h.Get("Content-Length") != strconv.FormatInt(size, 10) {
		return false, fmt.Errorf("HEAD %s says %s bytes of %d: %w", path, h.Get("Content-Length"), size, errPartial)
	}
	resp, err := c.call(ctx, http.StatusOK, http.MethodGet, path, nil)
	if status(err) == http.StatusNotFound && absent {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("after HEAD (absent: %v): %w", absent, err)
	}
	defer resp.Body.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, resp.Body)
	if err != nil {
		return false, fmt.Errorf("GET %s broke off after %d of %d bytes: %w", path, n, size, err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); n != size || got != digest || absent {
		return false, fmt.Errorf("GET %s gives %d bytes of %d, %s, after HEAD (absent: %v): %w", path, n, size, got, absent, errPartial)
	}
	return true, nil
}

// manifest returns the digest and body that ref has, "" if it has none.
func (c *client) manifest(ctx context.Context, repo, ref string) (string, []byte, error) {
	path := "/v2/" + repo + "/manifests/" + ref
	resp, err := c.call(ctx, http.StatusOK, http.MethodGet, path, nil)
	if status(err) == http.StatusNotFound {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", nil, err
	}
	d := resp.Header.Get("Docker-Content-Digest")
	if got := digestOf(body); got != d {
		return "", nil, fmt.Errorf("GET %s says %s and gives %s: %w", path, d, got, errPartial)
	}
	return d, body, nil
}

// manifestPut stores a manifest under ref, a tag.
func (c *client) manifestPut(ctx context.Context, repo, tag string, body []byte) error {
	_, err := c.tell(ctx, http.StatusCreated, http.MethodPut, "/v2/"+repo+"/manifests/"+tag, bytes.NewReader(body), "Content-Type", manifestType)
	return err
}

// pull fetches an image as a client that has nothing does, and checks it
// against want.
func (c *client) pull(ctx context.Context, repo string, want *image) error {
	d, body, err := c.manifest(ctx, repo, want.tag)
	if err != nil {
		return err
	}
	if d != want.digest || !bytes.Equal(body, want.manifest) {
		return fmt.Errorf("the tag %s:%s leads to %q, not to %s", repo, want.tag, d, want.digest)
	}
	for _, b := range want.blobs {
		there, err := c.whole(ctx, repo, b.digest, b.size)
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("the blob %s (%d bytes) of %s:%s is gone", b.digest, b.size, repo, want.tag)
		}
	}
	return nil
}
