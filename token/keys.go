package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"cove.example/cove/directory"
)

// Use is what a key signs. A key of one use never verifies another's tokens.
type Use string

// The uses. Programs that read our issuer's key set expect RS256; registry
// tokens are verified by cove alone, and ES256 signs them at a twentieth of
// the cost.
const (
	Issuer   Use = "issuer"
	Registry Use = "registry"
)

// life is the longest that a token lives which a key of this use has signed.
func (u Use) life() time.Duration {
	if u == Issuer {
		return RefreshLife
	}
	return MaxLife
}

var algorithms = map[Use]jose.SignatureAlgorithm{Issuer: jose.RS256, Registry: jose.ES256}

// Stored is a key as it is kept: its private half sealed.
type Stored struct {
	ID        string // kid
	Use       Use
	Algorithm string
	Sealed    []byte
	Created   time.Time // tokens from before it are impossible
	Activate  time.Time // signs from here on
	Retire    time.Time // verifies until here; zero is open
}

// Store is where keys are kept; store implements it.
type Store interface {
	Keys(ctx context.Context) ([]Stored, error)
	// AddFirst writes k unless a key of its use is there, and reports whether
	// it did.
	AddFirst(ctx context.Context, k Stored) (bool, error)
	// Rotate writes k and lets every other open key of its use retire at
	// retire, in one transaction.
	Rotate(ctx context.Context, k Stored, retire time.Time) error
	// Replace is Rotate as long as old is an open key of its use. It
	// reports false, and writes nothing, when it is not: another node was faster.
	// Keys that retired before gone are taken away.
	Replace(ctx context.Context, old string, k Stored, retire, gone time.Time) (bool, error)
	// Revoke lets a key retire at once.
	Revoke(ctx context.Context, id string, at time.Time) error
	// Follow calls fn after keys have changed, on any node, until ctx ends.
	// Its first call says that following has begun.
	Follow(ctx context.Context, fn func()) error
}

// Sealer keeps private keys unreadable in the database. What was sealed in
// one context does not open in another: a key copied into another row is no
// key.
type Sealer interface {
	Seal(text, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

// Keys are the signing keys of this deployment, as of the last reading.
type Keys struct {
	store Store
	seal  Sealer
	now   func() time.Time
	set   atomic.Pointer[keyset]
}

// keyset is never modified.
type keyset struct {
	mark   string // what was read, to tell whether the next differs
	keys   []*key
	header map[string]*signer // by the exact first segment of the tokens it signs
}

type key struct {
	Stored
	public  crypto.PublicKey
	signers map[Kind]*signer
	link    []byte // signs download links; of registry keys only
}

// signer signs tokens of one kind with one key.
type signer struct {
	key    *key
	kind   Kind
	header string
	jose   jose.Signer
}

// Leads are how long before its first use a new key is published: for the
// issuer an hour, which is how long programs keep a key set; for registry
// tokens, which only our own nodes verify, the time in which every node has
// heard of it.
const (
	issuerLead   = time.Hour
	registryLead = time.Minute
)

func (u Use) lead() time.Duration {
	if u == Issuer {
		return issuerLead
	}
	return registryLead
}

const firstBackdate = 24 * time.Hour

// OpenKeys reads the keys and makes those that are missing. It fails when a
// key cannot be opened with this sealer: signing with others would leave every
// node with its own.
func OpenKeys(ctx context.Context, st Store, seal Sealer, now func() time.Time) (*Keys, error) {
	if now == nil {
		now = time.Now
	}
	k := &Keys{store: st, seal: seal, now: now}
	k.set.Store(&keyset{})
	stored, err := st.Keys(ctx)
	if err != nil {
		return nil, err
	}
	for _, use := range []Use{Issuer, Registry} {
		has := false
		for _, s := range stored {
			has = has || s.Use == use
		}
		if has {
			continue
		}
		// Backdated: a clock that was wrong at the first start and is set
		// right afterwards must not stop all signing until it has caught up.
		begin := now().Add(-firstBackdate)
		fresh, err := k.generate(use, begin, begin)
		if err != nil {
			return nil, err
		}
		if _, err := st.AddFirst(ctx, fresh); err != nil {
			return nil, err
		}
	}
	return k, k.reload(ctx)
}

// Run follows changes of the keys until ctx ends. While the store is away the
// keys that are known stay in use, each until its own end.
func (k *Keys) Run(ctx context.Context) error {
	for {
		err := k.store.Follow(ctx, func() {
			if err := k.reload(ctx); err != nil && ctx.Err() == nil {
				slog.ErrorContext(ctx, "signing keys could not be read again", "err", err)
			}
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		slog.WarnContext(ctx, "signing keys cannot be followed", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Rotate makes the next key of a use. It begins to sign when everybody can
// know it; the present one verifies until its last token has ended.
func (k *Keys) Rotate(ctx context.Context, use Use) error {
	now := k.now()
	fresh, err := k.generate(use, now, now.Add(use.lead()))
	if err != nil {
		return err
	}
	if err := k.store.Rotate(ctx, fresh, fresh.Activate.Add(use.life()+leeway)); err != nil {
		return err
	}
	return k.reload(ctx)
}

// KeyLife is for how long a key signs before the next one does. What a stolen
// key is worth ends with it, and nobody needs to act.
const KeyLife = 30 * 24 * time.Hour

// keepRetired is for how long a retired key is kept: a clock that is set back
// must find it.
const keepRetired = 24 * time.Hour

// Turn makes the next key of each use whose present one has signed for
// KeyLife, as Rotate does. Nodes that do so at once make one between them.
func (k *Keys) Turn(ctx context.Context) error {
	stored, err := k.store.Keys(ctx)
	if err != nil {
		return err
	}
	now := k.now()
	for _, present := range stored {
		// A key from the future is one that a wrong clock has made: it would
		// stay until that future has come.
		due := !now.Before(present.Activate.Add(KeyLife)) || present.Created.After(now.Add(firstBackdate))
		if !present.Retire.IsZero() || !due {
			continue
		}
		fresh, err := k.generate(present.Use, now, now.Add(present.Use.lead()))
		if err != nil {
			return err
		}
		made, err := k.store.Replace(ctx, present.ID, fresh, fresh.Activate.Add(present.Use.life()+leeway), now.Add(-keepRetired))
		if err != nil {
			return err
		}
		if made {
			slog.InfoContext(ctx, "the next signing key is made", "use", present.Use, "kid", fresh.ID, "signs from", fresh.Activate)
		}
	}
	return k.reload(ctx)
}

// turnEvery is how often Tend looks. A key that is an hour late is no weaker.
const turnEvery = time.Hour

// Tend turns the keys when they are due, until ctx ends.
func (k *Keys) Tend(ctx context.Context) error {
	tick := time.NewTicker(turnEvery)
	defer tick.Stop()
	for {
		if err := k.Turn(ctx); err != nil && ctx.Err() == nil {
			slog.ErrorContext(ctx, "signing keys cannot be turned; the present ones go on signing", "err", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Revoke ends a key at once, and with it every token it has signed. When it
// is the last of its use, a new one signs from now on.
func (k *Keys) Revoke(ctx context.Context, id string) error {
	now := k.now()
	for _, each := range k.set.Load().keys {
		if each.ID != id {
			continue
		}
		fresh, err := k.generate(each.Use, now, now)
		if err != nil {
			return err
		}
		if err := k.store.Rotate(ctx, fresh, now.Add(each.Use.life()+leeway)); err != nil {
			return err
		}
	}
	if err := k.store.Revoke(ctx, id, now); err != nil {
		return err
	}
	return k.reload(ctx)
}

// JWKS is the issuer's public keys: those in use, those about to be, and
// those whose tokens may still be alive.
func (k *Keys) JWKS() jose.JSONWebKeySet {
	out := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	now := k.now()
	for _, each := range k.set.Load().keys {
		if each.Use == Issuer && !each.retired(now) {
			out.Keys = append(out.Keys, jose.JSONWebKey{Key: each.public, KeyID: each.ID, Algorithm: each.Algorithm, Use: "sig"})
		}
	}
	return out
}

// signer returns what signs tokens of a kind now: the key that became active
// last. A clock that has been set back must not keep everybody out, so where
// none is active yet the first that will be signs.
func (k *Keys) signer(kind Kind) (*signer, error) {
	now := k.now()
	var best *key
	for _, each := range k.set.Load().keys {
		switch {
		case each.Use != kind.use() || each.retired(now):
		case best == nil,
			!now.Before(each.Activate) && each.Activate.After(best.Activate),
			now.Before(best.Activate) && each.Activate.Before(best.Activate):
			best = each
		}
	}
	if best == nil {
		return nil, fmt.Errorf("token: there is no key of use %s", kind.use())
	}
	return best.signers[kind], nil
}

func (k *key) retired(now time.Time) bool { return !k.Retire.IsZero() && !now.Before(k.Retire) }

func (s *Stored) context() []byte { return []byte("signing key/" + string(s.Use) + "/" + s.ID) }

func (k *Keys) generate(use Use, created, activate time.Time) (Stored, error) {
	var private any
	var err error
	switch use {
	case Issuer:
		private, err = rsa.GenerateKey(rand.Reader, 2048)
	case Registry:
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	default:
		err = errors.New("token: no such use of a key: " + string(use))
	}
	if err != nil {
		return Stored{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Stored{}, err
	}
	s := Stored{ID: strings.ReplaceAll(directory.NewID(), "-", ""), Use: use, Algorithm: string(algorithms[use]), Created: created, Activate: activate}
	s.Sealed, err = k.seal.Seal(der, s.context())
	return s, err
}

// reload puts what the store has now in place. What is replaced is looked at
// before the store is read, so that a reading never replaces a newer one: a
// key that has been revoked in between would be good again.
func (k *Keys) reload(ctx context.Context) error {
	for {
		old := k.set.Load()
		next, err := k.read(ctx, old)
		if err != nil || next == nil || k.set.CompareAndSwap(old, next) {
			return err
		}
	}
}

// read returns what the store has now, nil where that is old.
func (k *Keys) read(ctx context.Context, old *keyset) (*keyset, error) {
	stored, err := k.store.Keys(ctx)
	if err != nil {
		return nil, err
	}
	next := &keyset{header: map[string]*signer{}}
	for _, s := range stored {
		next.mark += fmt.Sprintln(s.ID, s.Use, s.Created.UnixMicro(), s.Activate.UnixMicro(), s.Retire.UnixMicro())
	}
	if next.mark == old.mark {
		return nil, nil
	}
	for _, s := range stored {
		if (&key{Stored: s}).retired(k.now()) {
			continue
		}
		loaded, err := k.load(s)
		if err != nil {
			return nil, fmt.Errorf("token: key %s: %w", s.ID, err)
		}
		next.keys = append(next.keys, loaded)
		for _, sg := range loaded.signers {
			next.header[sg.header] = sg
		}
	}
	return next, nil
}

func (k *Keys) load(s Stored) (*key, error) {
	der, err := k.seal.Open(s.Sealed, s.context())
	if err != nil {
		return nil, err
	}
	private, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	out := &key{Stored: s, signers: map[Kind]*signer{}}
	switch p := private.(type) {
	case *rsa.PrivateKey:
		if s.Use != Issuer || p.N.BitLen() < 2048 {
			return nil, errors.New("an RSA key must be the issuer's, of 2048 bits or more")
		}
		out.public = p.Public()
	case *ecdsa.PrivateKey:
		if s.Use != Registry || p.Curve != elliptic.P256() {
			return nil, errors.New("an elliptic key must be the registry's, on P-256")
		}
		out.public = p.Public()
		if out.link, err = deriveLinkKey(der, s.ID); err != nil {
			return nil, err
		}
	default:
		return nil, errors.New("not a kind of key that signs tokens")
	}
	for _, kind := range kinds {
		if kind.use() != s.Use {
			continue
		}
		sg, err := newSigner(out, kind, private)
		if err != nil {
			return nil, err
		}
		out.signers[kind] = sg
	}
	return out, nil
}

func newSigner(k *key, kind Kind, private any) (*signer, error) {
	js, err := jose.NewSigner(
		jose.SigningKey{Algorithm: algorithms[k.Use], Key: jose.JSONWebKey{Key: private, KeyID: k.ID}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(kind)))
	if err != nil {
		return nil, err
	}
	s := &signer{key: k, kind: kind, jose: js}
	sample, err := s.sign([]byte("{}"))
	if err != nil {
		return nil, err
	}
	s.header, _, _ = strings.Cut(sample, ".")
	return s, nil
}

func (s *signer) sign(claims []byte) (string, error) {
	obj, err := s.jose.Sign(claims)
	if err != nil {
		return "", err
	}
	return obj.CompactSerialize()
}
