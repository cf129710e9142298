package directory

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// Directory answers who somebody is. While Run follows the store it remembers
// clients it has read and secrets it has verified; before that, and whenever
// following fails, it asks the store each time.
type Directory struct {
	store Store
	now   func() time.Time
	key   [32]byte // of the MACs by which verified secrets are remembered; this process's own

	mu       sync.RWMutex
	live     bool
	epoch    uint64
	clients  map[string]*Client // by object id, and by "app/"+client id
	verified map[[32]byte]SignIn
	groups   map[string][]string
	tenants  []Tenant
	subs     map[string]Subscription
}

// SignIn is a principal that has proved itself with a secret.
type SignIn struct {
	Principal
	KeyID string // of the credential, as Standing takes it
	End   time.Time
}

// maxRemembered bounds each of the memories; past it all is forgotten. Only
// what exists is remembered: a flood of unknown names fills nothing.
const maxRemembered = 8192

// New returns a Directory over st. A nil now is time.Now.
func New(st Store, now func() time.Time) *Directory {
	if now == nil {
		now = time.Now
	}
	d := &Directory{store: st, now: now}
	rand.Read(d.key[:])
	d.forget(false)
	return d
}

// Run lets the directory remember, until ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	for {
		err := d.store.Follow(ctx, func() { d.forget(true) })
		d.forget(false)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		slog.WarnContext(ctx, "the directory is read from the store each time until it can be followed again", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Live reports whether the directory remembers.
func (d *Directory) Live() bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.live
}

// SignIn verifies a client id and secret. It fails with ErrSecret, ErrExpired
// or ErrDisabled, which say the same sentence: a stranger does not learn which
// clients exist.
func (d *Directory) SignIn(ctx context.Context, appID, secret string) (SignIn, error) {
	now := d.now()
	mac := d.mac(appID, secret)
	d.mu.RLock()
	known, ok := d.verified[mac]
	ok = ok && d.live
	d.mu.RUnlock()
	if ok && now.Before(known.End) {
		return known, nil
	}
	in, epoch, err := d.verify(ctx, appID, func(c *Client) (Credential, error) { return c.verify(secret, now) })
	if err == nil {
		d.remember(mac, in, epoch)
	}
	return in, err
}

// Verify is the sign-in of a client by another proof than a secret: proof finds
// among the client's credentials the one that it is made with, or fails with
// ErrSecret. It is called for a client that does not exist, which has no
// credentials, and may be called twice. Verify fails as SignIn does.
func (d *Directory) Verify(ctx context.Context, appID string, proof func(*Client) (Credential, error)) (SignIn, error) {
	now := d.now()
	in, _, err := d.verify(ctx, appID, func(c *Client) (Credential, error) {
		cred, err := proof(c)
		switch {
		case err != nil:
			return Credential{}, err
		case c.Disabled:
			return Credential{}, ErrDisabled
		case !cred.Live(now):
			return cred, ErrExpired
		}
		return cred, nil
	})
	return in, err
}

// verify has prove look at a client. Nobody is refused for what was
// remembered: it is read again then. And it is read for a wrong secret as it is
// for an unknown client, since otherwise how long a refusal takes would tell a
// stranger which clients there are.
func (d *Directory) verify(ctx context.Context, appID string, prove func(*Client) (Credential, error)) (SignIn, uint64, error) {
	key := "app/" + strings.ToLower(appID)
	load := func() (Client, error) { return d.store.ByApp(ctx, strings.ToLower(appID)) }
	d.mu.RLock()
	remembered := d.clients[key] != nil
	d.mu.RUnlock()
	c, epoch, err := d.client(ctx, key, load)
	if errors.Is(err, ErrUnknown) {
		c, err = &Client{}, nil
	}
	if err != nil {
		return SignIn{}, 0, err
	}
	cred, err := prove(c)
	if err != nil && remembered {
		fresh, loadErr := load()
		if loadErr != nil && !errors.Is(loadErr, ErrUnknown) {
			return SignIn{}, 0, loadErr
		}
		c = &fresh
		cred, err = prove(c)
	}
	return SignIn{Principal: c.Principal, KeyID: cred.bought(), End: cred.End}, epoch, err
}

// remember keeps a sign-in that was verified with what was known in an epoch.
func (d *Directory) remember(mac [32]byte, in SignIn, epoch uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live && d.epoch == epoch {
		if len(d.verified) >= maxRemembered {
			clear(d.verified)
		}
		d.verified[mac] = in
	}
}

// Standing reports whether the principal still exists, is enabled and, where
// keyID is given, still has that credential unexpired: what a token that was
// issued earlier is worth now. It fails with ErrUnknown, ErrDisabled or
// ErrExpired.
func (d *Directory) Standing(ctx context.Context, objectID, keyID string) (Principal, error) {
	c, _, err := d.client(ctx, objectID, func() (Client, error) { return d.store.ByObject(ctx, strings.ToLower(objectID)) })
	if err != nil {
		return Principal{}, err
	}
	if c.Kind != ServicePrincipal && c.Kind != User {
		return Principal{}, ErrUnknown // nobody is a group or an application
	}
	if c.Disabled {
		return c.Principal, ErrDisabled
	}
	if keyID == "" {
		return c.Principal, nil
	}
	for i := range c.Credentials {
		if strings.HasPrefix(keyID, c.Credentials[i].KeyID) && c.Credentials[i].bought() == keyID {
			if d.now().Before(c.Credentials[i].End) {
				return c.Principal, nil
			}
			return c.Principal, ErrExpired
		}
	}
	return c.Principal, ErrUnknown
}

// Tenants returns all tenants.
func (d *Directory) Tenants(ctx context.Context) ([]Tenant, error) {
	d.mu.RLock()
	known, epoch := d.tenants, d.epoch
	d.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	ts, err := d.store.Tenants(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live && d.epoch == epoch {
		d.tenants = ts
	}
	return ts, nil
}

// SubscriptionsOf returns the subscriptions of a tenant, in no order.
func (d *Directory) SubscriptionsOf(ctx context.Context, tenant string) ([]Subscription, error) {
	all, err := d.subscriptions(ctx)
	var out []Subscription
	for _, s := range all {
		if strings.EqualFold(s.Tenant, tenant) {
			out = append(out, s)
		}
	}
	return out, err
}

func (d *Directory) subscriptions(ctx context.Context) (map[string]Subscription, error) {
	d.mu.RLock()
	known, epoch := d.subs, d.epoch
	d.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	list, err := d.store.Subscriptions(ctx)
	if err != nil {
		return nil, err
	}
	known = map[string]Subscription{}
	for _, s := range list {
		known[strings.ToLower(s.ID)] = s
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live && d.epoch == epoch {
		d.subs = known
	}
	return known, nil
}

// Subscription returns the subscription, or ErrUnknown.
func (d *Directory) Subscription(ctx context.Context, id string) (Subscription, error) {
	known, err := d.subscriptions(ctx)
	if err != nil {
		return Subscription{}, err
	}
	s, ok := known[id]
	if !ok {
		s, ok = known[strings.ToLower(id)]
	}
	if !ok {
		return Subscription{}, ErrUnknown
	}
	return s, nil
}

func (d *Directory) client(ctx context.Context, key string, load func() (Client, error)) (*Client, uint64, error) {
	d.mu.RLock()
	c, epoch := d.clients[key], d.epoch
	d.mu.RUnlock()
	if c != nil {
		return c, epoch, nil
	}
	got, err := load()
	if err != nil {
		return nil, 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// What was read before a change must not be remembered after it.
	if d.live && d.epoch == epoch {
		if len(d.clients) >= maxRemembered {
			clear(d.clients)
		}
		d.clients[key] = &got
	}
	return &got, epoch, nil
}

func (d *Directory) forget(live bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live = live
	d.reset()
}

// changed forgets what was known before a change of this process, so that
// whoever has waited for the answer finds it obeyed.
func (d *Directory) changed() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reset()
}

func (d *Directory) reset() {
	d.epoch++
	d.clients, d.verified = map[string]*Client{}, map[[32]byte]SignIn{}
	d.groups, d.tenants, d.subs = map[string][]string{}, nil, nil
}

// mac names a pair of id and secret. Its key is random and this process's own,
// so that what is remembered cannot be compared with anything kept elsewhere.
func (d *Directory) mac(appID, secret string) (out [32]byte) {
	h := hmac.New(sha256.New, d.key[:])
	h.Write([]byte(strings.ToLower(appID)))
	h.Write([]byte{0})
	h.Write([]byte(secret))
	h.Sum(out[:0])
	return out
}
