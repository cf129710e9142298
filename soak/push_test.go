package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// shape is one of the ways in which a blob may be sent.
type shape int

const (
	single     shape = iota // POST with the body
	monolithic              // POST, PUT with the body
	streamed                // POST, PATCH of no stated length, PUT
	chunked                 // POST, PATCHes with ranges, PUT with the last of them
	mounted                 // POST that names another repository, which has it
	shapes
)

// blob is a layer or a configuration.
type blob struct {
	shape  shape
	digest string
	size   int64
	data   []byte // nil once only its digest is needed
}

// image is what a push sends.
type image struct {
	tag      string
	digest   string
	manifest []byte
	blobs    []*blob // the configuration last
}

// newImage draws an image whose layers have between lo and hi bytes, one layer
// in each shape.
func newImage(r *rand.Rand, tag string, lo, hi int) *image {
	im := &image{tag: tag}
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int64  `json:"size"`
	}
	var layers []descriptor
	for sh := range shapes {
		b := newBlob(r, sh, lo+r.IntN(hi-lo))
		im.blobs = append(im.blobs, b)
		layers = append(layers, descriptor{layerType, b.digest, b.size})
	}
	r.Shuffle(len(im.blobs), func(i, j int) { im.blobs[i], im.blobs[j] = im.blobs[j], im.blobs[i] })
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"author":"%d"}`, r.Uint64())
	c := &blob{shape: single, digest: digestOf(config), size: int64(len(config)), data: config}
	im.blobs = append(im.blobs, c)
	im.manifest, _ = json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": descriptor{configType, c.digest, c.size}, "layers": layers,
	})
	im.digest = digestOf(im.manifest)
	return im
}

func newBlob(r *rand.Rand, sh shape, size int) *blob {
	var key [32]byte
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	data := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(data) // never fails
	return &blob{shape: sh, digest: digestOf(data), size: int64(size), data: data}
}

// forget drops the bytes, which the digests stand for from now on.
func (im *image) forget() {
	for _, b := range im.blobs {
		b.data = nil
	}
}

// session is an upload as its client knows it.
type session struct {
	blob      *blob
	location  string
	acked     int64 // the server has said that it stands here
	finishing bool  // the PUT has been sent
}

// push is one image on its way, and all that the server has acknowledged.
type push struct {
	*image
	repo string // where to
	from string // the repository that has the mounted layer

	sent atomic.Bool // the first byte of a layer has left
	done atomic.Bool // the manifest's 201 has come

	mu        sync.Mutex
	acked     map[string]bool // blobs of repo that a 201 was received for
	mountable bool            // the same for the mounted layer in from
	sessions  map[string]*session
}

func newPush(im *image, repo, from string) *push {
	return &push{image: im, repo: repo, from: from, acked: map[string]bool{}, sessions: map[string]*session{}}
}

// parallel is how many layers a push sends at once, as clients do.
const parallel = 3

// run pushes what is not there yet. It stops at the first failure.
func (p *push) run(ctx context.Context, c *client) error {
	g, layers := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	for _, b := range p.blobs {
		g.Go(func() error { return p.blob(layers, c, b) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := c.manifestPut(ctx, p.repo, p.tag, p.manifest); err != nil {
		return err
	}
	p.done.Store(true)
	return nil
}

func (p *push) blob(ctx context.Context, c *client, b *blob) error {
	_, err := c.tell(ctx, http.StatusOK, http.MethodHead, "/v2/"+p.repo+"/blobs/"+b.digest, nil)
	if err == nil || status(err) != http.StatusNotFound {
		return err
	}
	switch b.shape {
	case single:
		_, err = c.tell(ctx, http.StatusCreated, http.MethodPost, "/v2/"+p.repo+"/blobs/uploads/?digest="+b.digest, p.body(b.data), "Content-Type", "application/octet-stream")
	case mounted:
		return p.mount(ctx, c, b)
	default:
		err = p.session(ctx, c, b)
	}
	if err != nil {
		return err
	}
	p.acknowledge(b)
	return nil
}

func (p *push) acknowledge(b *blob) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acked[b.digest] = true
	delete(p.sessions, b.digest)
}

// mount sends the layer to the other repository first.
func (p *push) mount(ctx context.Context, c *client, b *blob) error {
	_, err := c.tell(ctx, http.StatusCreated, http.MethodPost, "/v2/"+p.from+"/blobs/uploads/?digest="+b.digest, p.body(b.data), "Content-Type", "application/octet-stream")
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.mountable = true
	p.mu.Unlock()
	q := url.Values{"mount": {b.digest}, "from": {p.from}}
	if _, err := c.tell(ctx, http.StatusCreated, http.MethodPost, "/v2/"+p.repo+"/blobs/uploads/?"+q.Encode(), nil); err != nil {
		return err
	}
	p.acknowledge(b)
	return nil
}

func (p *push) session(ctx context.Context, c *client, b *blob) error {
	at, err := c.blobStart(ctx, p.repo)
	if err != nil {
		return err
	}
	s := &session{blob: b, location: at}
	p.mu.Lock()
	p.sessions[b.digest] = s
	p.mu.Unlock()
	rest := b.data
	switch b.shape {
	case streamed:
		// Hiding the length makes it a body of no stated length.
		if err := p.patch(ctx, c, s, struct{ io.Reader }{p.body(rest)}); err != nil {
			return err
		}
		rest = nil
	case chunked:
		for size := len(b.data)/4 + 1; len(rest) > size; rest = rest[size:] {
			from := len(b.data) - len(rest)
			if err := p.patch(ctx, c, s, p.body(rest[:size]), "Content-Range", span(from, size)); err != nil {
				return err
			}
		}
	}
	return p.finish(ctx, c, s, rest)
}

func span(from, size int) string { return strconv.Itoa(from) + "-" + strconv.Itoa(from+size-1) }

func (p *push) patch(ctx context.Context, c *client, s *session, body io.Reader, headers ...string) error {
	h, err := c.tell(ctx, http.StatusAccepted, http.MethodPatch, s.location, body, append(headers, "Content-Type", "application/octet-stream")...)
	if err != nil {
		return err
	}
	at, err := location(h)
	if err != nil {
		return err
	}
	n, err := standing(h)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s.location, s.acked = at, n
	return nil
}

// finish sends the rest of a session's bytes with the PUT that ends it.
func (p *push) finish(ctx context.Context, c *client, s *session, rest []byte) error {
	p.mu.Lock()
	s.finishing = true
	p.mu.Unlock()
	headers := []string{"Content-Type", "application/octet-stream"}
	if from := int(s.blob.size) - len(rest); from > 0 && len(rest) > 0 {
		headers = append(headers, "Content-Range", span(from, len(rest)))
	}
	_, err := c.tell(ctx, http.StatusCreated, http.MethodPut, withDigest(s.location, s.blob.digest), p.body(rest), headers...)
	return err
}

// body is data on its way to the server, which notes that it has left.
func (p *push) body(data []byte) *leaving { return &leaving{bytes.NewReader(data), &p.sent} }

type leaving struct {
	*bytes.Reader
	left *atomic.Bool
}

func (l *leaving) Read(b []byte) (int, error) {
	n, err := l.Reader.Read(b)
	if n > 0 {
		l.left.Store(true)
	}
	return n, err
}

// WriteTo hides that of bytes.Reader, which would go around Read.
func (l *leaving) WriteTo(w io.Writer) (int64, error) { return io.Copy(w, struct{ io.Reader }{l}) }
