// Package token mints and verifies the tokens of cove: access tokens of its
// own issuer, and the refresh and access tokens of registries.
//
// A token is never taken for another kind. The kind decides the key, the
// algorithm, the typ header and the issuer; what verifies says which kind and
// which audience it wants, and the token is never asked what it is. A token's
// header is compared, not interpreted: ours are known byte for byte, so there
// is no header in which a stranger could name an algorithm, a key or a place
// to fetch one.
package token

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"cove.example/cove/directory"
	"cove.example/cove/fault"
)

// Kind is the typ header of a kind of token.
type Kind string

// The kinds.
const (
	KindAccess   Kind = "at+jwt"            // of the issuer, for the control plane (RFC 9068)
	KindRefresh  Kind = "cove-refresh+jwt"  // of a registry: buys access tokens there
	KindRegistry Kind = "cove-registry+jwt" // of a registry: reads and writes content there
	KindID       Kind = "JWT"               // of the issuer, tells a program who has signed in; good for nothing
)

var kinds = []Kind{KindAccess, KindRefresh, KindRegistry, KindID}

func (k Kind) use() Use {
	if k == KindAccess || k == KindID {
		return Issuer
	}
	return Registry
}

// How long tokens live (source: the documentation of Azure Container Registry), and by how much clocks
// may differ.
const (
	AccessLife   = time.Hour
	RefreshLife  = 3 * time.Hour
	RegistryLife = 75 * time.Minute

	// MaxLife is the longest that an operator may let a registry's tokens live:
	// keys that have been replaced verify for that long.
	MaxLife = 24 * time.Hour
	// MinLife is the shortest: az wants five minutes.
	MinLife = 5 * time.Minute

	leeway  = 60 * time.Second
	maxSize = 8 << 10
)

// The failures of verification. Their sentences are for the record; what a
// caller reads is the edge's.
var (
	ErrMalformed = fault.New(fault.Unauthenticated, "the token is not one of ours")
	ErrSignature = fault.New(fault.Unauthenticated, "the token's signature does not verify")
	ErrExpired   = fault.New(fault.Unauthenticated, "the token has expired")
	ErrNotYet    = fault.New(fault.Unauthenticated, "the token is not valid yet")
	ErrAudience  = fault.New(fault.Unauthenticated, "the token is for another audience")
	ErrIssuer    = fault.New(fault.Unauthenticated, "the token is of another issuer")
)

// Access is one entry of what a registry token allows.
type Access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

// Permissions is what ACR's refresh tokens say of their holder.
type Permissions struct {
	Actions    []string `json:"actions"`
	NotActions []string `json:"notActions"`
}

// Times are the claims of time that every token has, in whole seconds.
type Times struct {
	ID        string `json:"jti"`
	Issued    int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

// PrincipalClaims are the claims of an access token of the issuer.
type PrincipalClaims struct {
	Times
	Issuer     string `json:"iss"`
	Audience   string `json:"aud"`
	Subject    string `json:"sub"`
	ObjectID   string `json:"oid"`
	Tenant     string `json:"tid"`
	AppID      string `json:"appid"`
	AppACR     string `json:"appidacr"` // how the client proved itself: "0" not, "1" by a secret, "2" otherwise
	IDType     string `json:"idtyp"`    // "app", "user"
	Version    string `json:"ver"`
	Credential string `json:"credential,omitempty"` // key id of what it was bought with
	Managed    string `json:"xms_mirid,omitempty"`  // resource id of a managed identity
	UPN        string `json:"upn,omitempty"`        // a person's sign-in name
	UniqueName string `json:"unique_name,omitempty"`
	Name       string `json:"name,omitempty"`
	Scope      string `json:"scp,omitempty"` // what a program may do in a person's name
}

// RegistryClaims are the claims of a registry's refresh and access tokens
// (source: the documentation of Azure Container Registry), and ours: rid ties the token to the registry
// rather than to its name, mode to the permissions mode it was issued in. A
// refresh token has no access; an access token always has, and one that is good
// for nothing says so by an empty list: whoever reads it must be able to tell
// that from a token that does not say.
type RegistryClaims struct {
	Times
	Issuer      string       `json:"iss"`
	Audience    string       `json:"aud"`
	Subject     string       `json:"sub"`
	Version     string       `json:"version"`
	Grant       string       `json:"grant_type"`
	Tenant      string       `json:"tenant,omitempty"`
	Permissions *Permissions `json:"permissions,omitempty"`
	Access      []Access     `json:"access,omitzero"`
	Roles       []string     `json:"roles"`

	RegistryUID string `json:"rid"`
	Mode        string `json:"mode"`
	Kind        string `json:"idkind"` // servicePrincipal, admin, anonymous
	ObjectID    string `json:"oid,omitempty"`
	AppID       string `json:"appid,omitempty"`
	Credential  string `json:"credential,omitempty"`
}

const registryIssuer = "Azure Container Registry"

// Tokens mints and verifies.
type Tokens struct {
	keys   *Keys
	issuer func(tenant string) string
	now    func() time.Time
	lives  Lives

	mu    sync.RWMutex
	known map[[32]byte]verified
}

// verified is a token whose signature was right under this key. Keys that
// were read again are others, so that a change of the keys ends all that was
// remembered under the ones before.
type verified struct {
	key    *key
	claims any
}

// maxKnown bounds the memory of verified tokens: a few MiB at worst.
const maxKnown = 4096

// New returns Tokens that sign with keys. issuer is the iss of a tenant's
// access tokens; it must be a pure function.
func New(keys *Keys, issuer func(tenant string) string) *Tokens {
	return &Tokens{keys: keys, issuer: issuer, now: keys.now, lives: Lives{RefreshLife, RegistryLife}, known: map[[32]byte]verified{}}
}

// Lives are how long a registry's tokens live; zero is the documented time. A
// token that was issued to live longer is not taken any more.
type Lives struct{ Refresh, Registry time.Duration }

// SetLives is called before the first token is issued or verified.
func (t *Tokens) SetLives(l Lives) {
	t.lives = Lives{cmp.Or(l.Refresh, RefreshLife), cmp.Or(l.Registry, RegistryLife)}
}

// Keys are the keys that sign.
func (t *Tokens) Keys() *Keys { return t.keys }

// Issuer is the iss of a tenant's access tokens.
func (t *Tokens) Issuer(tenant string) string { return t.issuer(tenant) }

// EndingBy are the times of a token that is bought with something that ends
// then; zero is something without an end.
func EndingBy(until time.Time) Times {
	if until.IsZero() {
		return Times{}
	}
	return Times{Expires: until.Unix()}
}

// MintPrincipal signs an access token for c.Audience and fills in what c does
// not say. It ends with what it is bought with, where c.Expires says when that
// is (EndingBy).
func (t *Tokens) MintPrincipal(c PrincipalClaims) (string, PrincipalClaims, error) {
	until := c.Expires
	c.Times = t.times(AccessLife)
	if until != 0 {
		c.Expires = min(c.Expires, until)
	}
	c.Issuer, c.Version = t.issuer(c.Tenant), "1.0"
	c.IDType, c.AppACR = cmp.Or(c.IDType, "app"), cmp.Or(c.AppACR, "1")
	if c.Subject == "" {
		c.Subject = c.ObjectID
	}
	text, err := t.mint(KindAccess, c)
	return text, c, err
}

// IDClaims are the claims of an id token (OpenID Connect Core 1.0, 2).
type IDClaims struct {
	Times
	Issuer   string `json:"iss"`
	Audience string `json:"aud"` // the program
	Subject  string `json:"sub"`
	ObjectID string `json:"oid"`
	Tenant   string `json:"tid"`
	Username string `json:"preferred_username"`
	Name     string `json:"name"`
	Version  string `json:"ver"`
}

// MintID signs an id token. Nothing here takes one for a proof.
func (t *Tokens) MintID(c IDClaims) (string, error) {
	c.Times, c.Issuer, c.Subject, c.Version = t.times(AccessLife), t.issuer(c.Tenant), c.ObjectID, "2.0"
	return t.mint(KindID, c)
}

// MintRefresh signs a refresh token of the registry c.Audience.
func (t *Tokens) MintRefresh(c RegistryClaims) (string, RegistryClaims, error) {
	c.Times = t.times(t.lives.Refresh)
	c.Issuer, c.Version, c.Grant, c.Access = registryIssuer, "1.0", "refresh_token", nil
	c.Roles = []string{}
	text, err := t.mint(KindRefresh, c)
	return text, c, err
}

// MintRegistry signs an access token of the registry c.Audience. until, where
// it is not zero, ends it before its time: a token bought with a token does
// not outlive it.
func (t *Tokens) MintRegistry(c RegistryClaims, until time.Time) (string, RegistryClaims, error) {
	c.Times = t.times(t.lives.Registry)
	if !until.IsZero() {
		c.Expires = min(c.Expires, until.Unix())
	}
	c.Issuer, c.Version, c.Grant, c.Permissions = registryIssuer, "1.0", "access_token", nil
	c.Roles = []string{}
	if c.Access == nil {
		c.Access = []Access{}
	}
	text, err := t.mint(KindRegistry, c)
	return text, c, err
}

func (t *Tokens) times(life time.Duration) Times {
	now := t.now().Unix()
	return Times{ID: directory.NewID(), Issued: now, NotBefore: now, Expires: now + int64(life/time.Second)}
}

func (t *Tokens) mint(kind Kind, claims any) (string, error) {
	s, err := t.keys.signer(kind)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	text, err := s.sign(body)
	if err == nil && len(text) > maxSize {
		return "", fault.New(fault.Invalid, "too many scopes for one token")
	}
	return text, err
}

// VerifyPrincipal verifies an access token of the issuer for one of the
// audiences, which are compared without regard to a slash at the end.
func (t *Tokens) VerifyPrincipal(raw string, audiences ...string) (*PrincipalClaims, error) {
	got, err := t.verify(KindAccess, raw, func(b []byte) (any, error) {
		c := &PrincipalClaims{}
		if err := json.Unmarshal(b, c); err != nil {
			return nil, ErrMalformed.Because(err)
		}
		if c.Tenant == "" || c.Issuer != t.issuer(c.Tenant) {
			return nil, ErrIssuer
		}
		if c.ObjectID == "" {
			return nil, ErrMalformed
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	c := got.(*PrincipalClaims)
	ok := false
	for _, a := range audiences {
		ok = ok || SameAudience(a, c.Audience)
	}
	if !ok {
		return nil, ErrAudience
	}
	return c, t.inTime(c.Times, AccessLife)
}

// VerifyRefresh verifies a refresh token of the registry that is served under
// the login server audience and has this UID.
func (t *Tokens) VerifyRefresh(raw, audience, uid string) (*RegistryClaims, error) {
	return t.verifyRegistry(KindRefresh, "refresh_token", t.lives.Refresh, raw, audience, uid)
}

// VerifyRegistry verifies an access token of that registry.
func (t *Tokens) VerifyRegistry(raw, audience, uid string) (*RegistryClaims, error) {
	return t.verifyRegistry(KindRegistry, "access_token", t.lives.Registry, raw, audience, uid)
}

func (t *Tokens) verifyRegistry(kind Kind, grant string, life time.Duration, raw, audience, uid string) (*RegistryClaims, error) {
	got, err := t.verify(kind, raw, func(b []byte) (any, error) {
		c := &RegistryClaims{}
		if err := json.Unmarshal(b, c); err != nil {
			return nil, ErrMalformed.Because(err)
		}
		if c.Issuer != registryIssuer {
			return nil, ErrIssuer
		}
		if c.Grant != grant || c.Version != "1.0" {
			return nil, ErrMalformed
		}
		return c, nil
	})
	if err != nil {
		return nil, err
	}
	c := got.(*RegistryClaims)
	// An empty audience or UID is a registry that is not there: it matches
	// nothing, not everything.
	if audience == "" || uid == "" || c.Audience != audience || c.RegistryUID != uid {
		return nil, ErrAudience
	}
	return c, t.inTime(c.Times, life)
}

func (t *Tokens) inTime(c Times, life time.Duration) error {
	now := t.now()
	switch {
	case c.Expires <= 0 || c.NotBefore <= 0 || c.Issued <= 0 || c.Expires-c.Issued > int64(life/time.Second):
		return ErrMalformed
	case !now.Before(time.Unix(c.Expires, 0).Add(leeway)):
		return ErrExpired
	case now.Add(leeway).Before(time.Unix(max(c.NotBefore, c.Issued), 0)):
		return ErrNotYet
	}
	return nil
}

// verify returns the claims of a token of a kind, as read has checked them.
// They are shared and never modified; audience and time are the caller's to
// check, each time, also for a token that is remembered.
func (t *Tokens) verify(kind Kind, raw string, read func([]byte) (any, error)) (any, error) {
	// Before anything costs: a megabyte of header, a million dots.
	if len(raw) > maxSize || strings.Count(raw, ".") != 2 {
		return nil, ErrMalformed
	}
	header, rest, _ := strings.Cut(raw, ".")
	s := t.keys.set.Load().header[header]
	if s == nil || s.kind != kind {
		return nil, ErrMalformed
	}
	now := t.now()
	if s.key.retired(now) || now.Add(leeway).Before(s.key.Created) {
		return nil, ErrSignature
	}
	sum := sha256.Sum256([]byte(raw))
	t.mu.RLock()
	seen, ok := t.known[sum]
	t.mu.RUnlock()
	if ok && seen.key == s.key {
		return seen.claims, nil
	}
	payload, err := check(s, raw, rest)
	if err != nil {
		return nil, err
	}
	claims, err := read(payload)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxKnown {
		n := 0
		for k := range t.known { // in no order: a victim is as good as another
			delete(t.known, k)
			if n++; n == maxKnown/8 {
				break
			}
		}
	}
	t.known[sum] = verified{s.key, claims}
	return claims, nil
}

func check(s *signer, raw, rest string) ([]byte, error) {
	payload, signature, _ := strings.Cut(rest, ".")
	// base64url has several spellings of one value unless the unused bits
	// must be zero; a token has one.
	strict := base64.RawURLEncoding.Strict()
	for _, part := range []string{payload, signature} {
		if _, err := strict.DecodeString(part); err != nil || strings.ContainsAny(part, "\r\n") {
			return nil, ErrMalformed
		}
	}
	obj, err := jose.ParseSignedCompact(raw, []jose.SignatureAlgorithm{algorithms[s.key.Use]})
	if err != nil {
		return nil, ErrMalformed.Because(err)
	}
	body, err := obj.Verify(s.key.public)
	if err != nil {
		return nil, ErrSignature.Because(errors.New("jose: " + err.Error()))
	}
	return body, nil
}

// SameAudience compares two audiences without regard to one slash at the end:
// az asks for "https://host//.default" where the resource is "https://host/".
func SameAudience(a, b string) bool {
	a, b = strings.TrimSuffix(a, "/"), strings.TrimSuffix(b, "/")
	return a != "" && a == b
}
