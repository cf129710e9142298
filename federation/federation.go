// Package federation verifies the tokens of other issuers: those of a build
// service or a cluster, which an administrator has named as good for one of the
// directory's principals.
//
// An issuer is asked only after somebody here has named it: Verify is called
// with the issuer of a credential, never with the one that a token names.
// What issuers say is read as strangers' text: bounded, with algorithms and
// kinds of keys that are ours to choose.
package federation

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"cove.example/cove/fault"
)

// The failures of Verify.
var (
	ErrToken  = fault.New(fault.Unauthenticated, "the token of the other issuer is not valid")
	ErrTime   = fault.New(fault.Unauthenticated, "the token of the other issuer is not valid at this time")
	ErrIssuer = fault.New(fault.Unavailable, "the other issuer's keys cannot be had")
)

// Bounds on what issuers and callers send.
const (
	MaxToken    = 16 << 10
	maxDocument = 64 << 10
	maxKeySet   = 256 << 10
	maxKeys     = 100
	maxIssuers  = 1024
	fetchTime   = 10 * time.Second
)

// How keys are kept. After fresh they are asked for again; where that fails the
// old ones do until stale, for an issuer may be away for a while, and no longer:
// what it has taken back must end. Nobody makes us ask oftener than every
// again, whatever key they name.
const (
	fresh = 10 * time.Minute
	stale = time.Hour
	again = 30 * time.Second
)

// leeway is by how much clocks may differ.
const leeway = 2 * time.Minute

// algorithms are all that are taken. Each is bound to a kind of key: a public
// key is never taken for the secret of a MAC, and none means no.
var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256, jose.ES256}

// Claims are what a token says.
type Claims struct {
	Issuer   string       `json:"iss"`
	Subject  string       `json:"sub"`
	Audience jwt.Audience `json:"aud"`
	Expires  float64      `json:"exp"`
	Begins   float64      `json:"nbf"`
	Issued   float64      `json:"iat"`
}

// Has reports whether the token is for an audience, letter by letter.
func (c Claims) Has(audience string) bool { return c.Audience.Contains(audience) }

// Unverified reads what a token says of itself, which proves nothing: it serves
// to find what to compare with.
func Unverified(raw string) (Claims, error) {
	var c Claims
	t, err := parse(raw)
	if err != nil {
		return c, err
	}
	if err := t.UnsafeClaimsWithoutVerification(&c); err != nil {
		return c, ErrToken.Because(err)
	}
	return c, nil
}

func parse(raw string) (*jwt.JSONWebToken, error) {
	if len(raw) > MaxToken || strings.Count(raw, ".") != 2 {
		return nil, ErrToken
	}
	t, err := jwt.ParseSigned(raw, algorithms)
	if err != nil {
		return nil, ErrToken.Because(err)
	}
	// Nothing here knows an extension that must be understood, and a JWT has one
	// encoding (RFC 7797, 7).
	if len(t.Headers) != 1 || t.Headers[0].ExtraHeaders["crit"] != nil || t.Headers[0].ExtraHeaders["b64"] != nil {
		return nil, ErrToken
	}
	return t, nil
}

// Issuers are the issuers whose keys were asked for, and those keys.
type Issuers struct {
	client *http.Client
	now    func() time.Time
	log    *slog.Logger

	mu    sync.Mutex
	known map[string]*issuer
}

// issuer is one of them. Its lock is held while it is asked: who comes
// meanwhile waits for that answer.
type issuer struct {
	turn  chan struct{}
	keys  map[string]key // by key id
	got   time.Time      // when keys were read
	asked time.Time      // when they were last asked for, in vain or not
}

type key struct {
	public any
	alg    string // "" is any that fits the key
}

// New returns Issuers that ask through a transport, which decides what may be
// reached.
func New(through http.RoundTripper, now func() time.Time, log *slog.Logger) *Issuers {
	if now == nil {
		now = time.Now
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Issuers{
		client: &http.Client{Transport: through, Timeout: fetchTime, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // an issuer is where its name says
		}},
		now: now, log: log, known: map[string]*issuer{},
	}
}

// Verify returns the claims of a token that the issuer named by its address has
// signed and that is good now. It fails with ErrToken, ErrTime or ErrIssuer.
func (s *Issuers) Verify(ctx context.Context, address, raw string) (Claims, error) {
	t, err := parse(raw)
	if err != nil {
		return Claims{}, err
	}
	h := t.Headers[0]
	if h.KeyID == "" {
		return Claims{}, ErrToken
	}
	k, err := s.key(ctx, address, h.KeyID)
	if err != nil {
		return Claims{}, err
	}
	if !k.signs(h.Algorithm) {
		return Claims{}, ErrToken
	}
	var c Claims
	if err := t.Claims(k.public, &c); err != nil {
		return Claims{}, ErrToken.Because(err)
	}
	now := float64(s.now().Unix())
	skew := leeway.Seconds()
	switch {
	case c.Issuer != address:
		return Claims{}, ErrToken
	case c.Expires <= 0 || now >= c.Expires+skew, c.Begins > now+skew, c.Issued > now+skew:
		return Claims{}, ErrTime
	}
	return c, nil
}

// signs reports whether a key is one for the algorithm.
func (k key) signs(alg string) bool {
	if k.alg != "" && k.alg != alg {
		return false
	}
	switch p := k.public.(type) {
	case *rsa.PublicKey:
		return alg == string(jose.RS256) || alg == string(jose.PS256)
	case *ecdsa.PublicKey:
		return alg == string(jose.ES256) && p.Curve == elliptic.P256()
	}
	return false
}

func (s *Issuers) key(ctx context.Context, address, id string) (key, error) {
	s.mu.Lock()
	is := s.known[address]
	if is == nil {
		if len(s.known) >= maxIssuers {
			clear(s.known)
		}
		is = &issuer{turn: make(chan struct{}, 1)}
		s.known[address] = is
	}
	s.mu.Unlock()
	select {
	case is.turn <- struct{}{}:
	case <-ctx.Done():
		return key{}, ErrIssuer.Because(ctx.Err())
	}
	defer func() { <-is.turn }()

	now := s.now()
	k, known := is.keys[id]
	if !known || now.Sub(is.got) >= fresh {
		if is.asked.IsZero() || now.Sub(is.asked) >= again || now.Before(is.asked) {
			is.asked = now
			keys, err := s.fetch(ctx, address)
			if err != nil {
				s.log.WarnContext(ctx, "an issuer's keys could not be read", "issuer", address, "err", err)
			} else {
				is.keys, is.got = keys, now
			}
		}
		k, known = is.keys[id]
	}
	switch {
	case is.keys == nil || now.Sub(is.got) >= stale:
		return key{}, ErrIssuer
	case !known:
		return key{}, ErrToken
	}
	return k, nil
}

// fetch reads an issuer's keys from where its discovery document says
// (OpenID Connect Discovery 1.0, 4).
func (s *Issuers) fetch(ctx context.Context, address string) (map[string]key, error) {
	var doc struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := s.get(ctx, strings.TrimSuffix(address, "/")+"/.well-known/openid-configuration", maxDocument, &doc); err != nil {
		return nil, err
	}
	// One who serves another's document would lend it its name.
	if doc.Issuer != address {
		return nil, fmt.Errorf("the document at %s is of the issuer %.200q", address, doc.Issuer)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := s.get(ctx, doc.Keys, maxKeySet, &set); err != nil {
		return nil, err
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("%d keys", len(set.Keys))
	}
	return readKeys(set.Keys), nil
}

// readKeys returns the keys that tokens may be verified with. One that is for
// something else, too weak or not understood is none; of two with one id
// neither is, for which is meant would be chance.
func readKeys(list []json.RawMessage) map[string]key {
	out, twice := map[string]key{}, map[string]bool{}
	for _, raw := range list {
		var j jose.JSONWebKey
		if j.UnmarshalJSON(raw) != nil || j.KeyID == "" || j.Use != "" && j.Use != "sig" || !j.IsPublic() {
			continue
		}
		switch p := j.Key.(type) {
		case *rsa.PublicKey:
			if n := p.N.BitLen(); n < 2048 || n > 8192 {
				continue
			}
		case *ecdsa.PublicKey:
			if p.Curve != elliptic.P256() {
				continue
			}
		default:
			continue
		}
		if _, ok := out[j.KeyID]; ok {
			twice[j.KeyID] = true
		}
		out[j.KeyID] = key{j.Key, j.Algorithm}
	}
	for id := range twice {
		delete(out, id)
	}
	return out
}

func (s *Issuers) get(ctx context.Context, address string, most int64, into any) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	if req.URL.Scheme != "https" {
		return errors.New("the address is not https")
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return err
	}
	if int64(len(b)) > most {
		return fmt.Errorf("%s sent more than %d bytes", req.URL.Host, most)
	}
	return json.Unmarshal(b, into)
}
