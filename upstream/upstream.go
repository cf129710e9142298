// Package upstream reads images from other registries, for transfer.
//
// The other registry is a stranger whom a caller has named, and everything it
// says is a wish: the realm of its challenge, where it redirects, what a
// manifest's layers have for URLs. Credentials go to the host that the caller
// gave them for and to nowhere else; bytes are what their digest says or they
// are refused. The protocol itself is go-containerregistry's; what it may send
// where is decided under it, in one RoundTripper (guard).
package upstream

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"cove.example/cove/content"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/outbound"
	"cove.example/cove/transfer"
)

// The failures of a source, besides outbound's. None repeats what the source
// has said: it may have said what it likes.
var (
	ErrElsewhere   = fault.Coded(fault.Invalid, "SourceNotAllowed", "the source registry refers to another place")
	ErrCredentials = fault.Coded(fault.Invalid, "SourceUnauthorized", "the source registry wants other credentials")
	ErrBytes       = fault.Coded(fault.Invalid, "SourceInvalid", "the source registry sent other bytes than it was asked for")
	ErrBusy        = fault.New(fault.Throttled, "the source registry asks to come back later")
	ErrBroken      = fault.New(fault.Unavailable, "the source registry does not answer as a registry does")
)

// Credentials are a user name and password for the source; the zero value is
// nobody.
type Credentials struct{ Username, Password string }

// String keeps a password out of every log.
func (Credentials) String() string { return "upstream.Credentials(redacted)" }

// GoString is String.
func (c Credentials) GoString() string { return c.String() }

// Options are how a source is reached.
type Options struct {
	Transport http.RoundTripper // of outbound
	// Patience is how long a body may stand still before it is given up; 0 is
	// a minute.
	Patience time.Duration
}

// Repository is a repository of another registry. It is safe for concurrent
// use.
type Repository struct {
	host     string
	repo     name.Repository
	puller   *remote.Puller
	patience time.Duration
}

// Open returns a repository of HOST or HOST:PORT. It asks nothing yet.
func Open(host string, repo oci.Repo, c Credentials, o Options) (*Repository, error) {
	r, err := name.NewRepository(host + "/" + repo.String())
	if err != nil {
		return nil, fault.New(fault.Invalid, "the source is not the name of a repository").Because(err)
	}
	auth := authn.Anonymous
	if c.Password != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: c.Username, Password: c.Password})
	}
	p, err := remote.NewPuller(remote.WithTransport(newGuard(r.RegistryStr(), o.Transport)), remote.WithAuth(auth),
		remote.WithUserAgent("cove"), remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.2, Steps: 3}))
	if err != nil {
		return nil, err
	}
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	return &Repository{host: host, repo: r, puller: p, patience: o.Patience}, nil
}

// Manifest returns a manifest. Asked for by digest, it is what the digest says.
func (r *Repository) Manifest(ctx context.Context, ref oci.Reference) (content.Manifest, error) {
	// The answer to a token request on the way is bounded by the library.
	ctx, cancel := context.WithTimeout(outbound.Limit(ctx, oci.MaxManifest), 5*r.patience)
	defer cancel()
	var at name.Reference = r.repo.Tag(ref.String())
	if !ref.Digest.IsZero() {
		at = r.repo.Digest(ref.String())
	}
	d, err := r.puller.Get(ctx, at)
	if err != nil {
		return content.Manifest{}, explain(err)
	}
	alg := oci.SHA256
	if !ref.Digest.IsZero() {
		alg = ref.Digest.Algorithm()
	}
	got := oci.DigestOf(alg, d.Manifest)
	if !ref.Digest.IsZero() && got != ref.Digest {
		return content.Manifest{}, ErrBytes.Detail("The source was asked for the manifest %s and sent %s.", ref.Digest, got)
	}
	return content.Manifest{
		Descriptor: oci.Descriptor{MediaType: string(d.MediaType), Digest: got, Size: int64(len(d.Manifest))},
		Body:       d.Manifest,
	}, nil
}

// slack is what a response on the way to a small blob may have: a token, an
// error.
const slack = 1 << 20

// Blob opens a blob, whose bytes the receiver verifies: it may give more, less
// or other ones than d says. The receiver closes it.
func (r *Repository) Blob(ctx context.Context, d oci.Descriptor) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(outbound.Limit(ctx, max(d.Size, slack)))
	still := time.AfterFunc(r.patience, func() { cancel(errStill) })
	layer, err := r.puller.Layer(ctx, r.repo.Digest(d.Digest.String()))
	if err == nil {
		var body io.ReadCloser
		if body, err = layer.Compressed(); err == nil {
			return &stream{body: body, still: still, patience: r.patience, cancel: cancel, ctx: ctx}, nil
		}
	}
	still.Stop()
	cancel(nil)
	return nil, explain(err)
}

var errStill = ErrBroken.Detail("The source registry stopped sending in the middle.")

// stream is a body that may not stand still.
type stream struct {
	body     io.ReadCloser
	still    *time.Timer
	patience time.Duration
	ctx      context.Context
	cancel   context.CancelCauseFunc
	once     sync.Once
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if n > 0 {
		s.still.Reset(s.patience)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(s.ctx); cause != nil {
			err = cause
		}
		err = explain(err)
	}
	return n, err
}

func (s *stream) Close() error {
	s.once.Do(func() { s.still.Stop(); s.cancel(nil) })
	return s.body.Close()
}

// explain makes a failure of ours out of one of the library's.
func explain(err error) error {
	var said *transport.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said):
		switch said.StatusCode {
		case http.StatusUnauthorized, http.StatusForbidden:
			return ErrCredentials.Because(err)
		case http.StatusNotFound:
			return transfer.ErrNotThere.Because(err)
		case http.StatusTooManyRequests:
			return ErrBusy.Because(err)
		}
		return ErrBroken.Because(err)
	}
	if kind, _ := fault.Of(err); kind != fault.Internal {
		return err
	}
	// The library's own checks have no type that can be asked for.
	if text := err.Error(); strings.Contains(text, "error verifying") || strings.Contains(text, "does not match") {
		return ErrBytes.Because(err)
	}
	return ErrBroken.Because(err)
}
