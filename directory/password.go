package directory

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"cove.example/cove/fault"
)

// The cost of guessing a password once: 19 MiB and two passes, which OWASP
// gives as the least for argon2id.
const (
	argonMemory  = 19 << 10 // KiB
	argonTime    = 2
	argonThreads = 1
	argonSalt    = 16
	argonHash    = 32
)

// Passwords are 8 to 256 characters long, as in Entra.
const (
	minPassword = 8
	maxPassword = 256
)

// The failures of passwords.
var (
	ErrPassword = fault.Coded(fault.Invalid, "Request_BadRequest", "The specified password does not comply with password complexity requirements: 8 to 256 characters that are not all the same.")
	ErrBusy     = fault.New(fault.Unavailable, "too many people are signing in at once")
)

// hashing bounds how many passwords are hashed at once, for each takes 19 MiB
// and a core: strangers who guess must not take the memory from who pulls. Who
// does not get a turn in time is told to come back.
var hashing = make(chan struct{}, max(1, runtime.NumCPU()/2))

// hashWait is how long somebody waits for a turn.
const hashWait = 5 * time.Second

func hash(ctx context.Context, password string, salt []byte, memory, passes uint32) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, hashWait)
	defer cancel()
	select {
	case hashing <- struct{}{}:
	case <-ctx.Done():
		return nil, ErrBusy
	}
	defer func() { <-hashing }()
	return argon2.IDKey([]byte(password), salt, passes, memory, argonThreads, argonHash), nil
}

// CheckPassword fails with ErrPassword for a text that is no password.
func CheckPassword(password string) error {
	if n := utf8.RuneCountInString(password); n < minPassword || n > maxPassword || !utf8.ValidString(password) || strings.Count(password, password[:1]) == len(password) {
		return ErrPassword
	}
	return nil
}

// NewPassword is the credential of a password that somebody has chosen.
func NewPassword(ctx context.Context, password string, now time.Time) (Credential, error) {
	if err := CheckPassword(password); err != nil {
		return Credential{}, err
	}
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	sum, err := hash(ctx, password, salt, argonMemory, argonTime)
	if err != nil {
		return Credential{}, err
	}
	text := encodeHash(argonMemory, argonTime, salt, sum)
	return Credential{KeyID: NewID(), Kind: KindPassword, Hash: sha256.Sum256(text), Data: text, Start: now, End: Forever}, nil
}

// encodeHash is the usual text of an argon2id hash, with its parameters.
func encodeHash(memory, passes uint32, salt, sum []byte) []byte {
	b := base64.RawStdEncoding.EncodeToString
	return fmt.Appendf(nil, "$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memory, passes, argonThreads, b(salt), b(sum))
}

// checkPassword compares a password with a stored one; it takes as long for one
// that nobody has.
func checkPassword(ctx context.Context, stored []byte, password string) (bool, error) {
	var memory, passes uint32
	var rest string
	if _, err := fmt.Sscanf(string(stored), "$argon2id$v=19$m=%d,t=%d,p=1$%s", &memory, &passes, &rest); err != nil {
		return false, errNotSecret
	}
	one, two, _ := strings.Cut(rest, "$")
	salt, err1 := base64.RawStdEncoding.DecodeString(one)
	want, err2 := base64.RawStdEncoding.DecodeString(two)
	if err := errors.Join(err1, err2); err != nil || len(want) != argonHash || memory > 1<<20 || passes > 16 || passes == 0 {
		return false, errNotSecret
	}
	sum, err := hash(ctx, password, salt, memory, passes)
	return err == nil && subtle.ConstantTimeCompare(sum, want) == 1, err
}

// nobodys is a password that no text has: what is compared with for somebody
// who does not exist.
var nobodys = encodeHash(argonMemory, argonTime, make([]byte, argonSalt), make([]byte, argonHash))

// SignInUser verifies a person's name and password. It fails with ErrSecret for
// one who is not there, whose password is another or who is disabled, after the
// same work; with ErrBusy when there are too many at once.
func (d *Directory) SignInUser(ctx context.Context, upn, password string) (SignIn, error) {
	upn = strings.ToLower(upn)
	if len(password) > 4*maxPassword {
		password = password[:4*maxPassword+1] // no password is as long
	}
	now := d.now()
	mac := d.mac("user/"+upn, password)
	d.mu.RLock()
	known, ok := d.verified[mac]
	ok = ok && d.live
	d.mu.RUnlock()
	if ok && now.Before(known.End) {
		return known, nil
	}
	load := func() (Client, error) { return d.store.ByUPN(ctx, upn) }
	d.mu.RLock()
	remembered := d.clients["user/"+upn] != nil
	d.mu.RUnlock()
	c, epoch, err := d.client(ctx, "user/"+upn, load)
	if errors.Is(err, ErrUnknown) {
		c, err = &Client{}, nil
	}
	if err != nil {
		return SignIn{}, err
	}
	stored := c.password()
	right, err := checkPassword(ctx, stored.Data, password)
	if err == nil && remembered && (!right || c.Disabled || !stored.Live(now)) {
		// As in verify: nobody is refused for what was remembered, and who is
		// there costs a refusal the same reading as who is not.
		fresh, loadErr := load()
		if loadErr != nil && !errors.Is(loadErr, ErrUnknown) {
			return SignIn{}, loadErr
		}
		before := stored
		c, stored = &fresh, fresh.password()
		if stored.KeyID != before.KeyID || !bytes.Equal(stored.Data, before.Data) {
			right, err = checkPassword(ctx, stored.Data, password)
		}
	}
	if err != nil {
		return SignIn{}, err
	}
	if !right || c.Disabled || !stored.Live(now) {
		return SignIn{}, ErrSecret
	}
	in := SignIn{Principal: c.Principal, KeyID: stored.KeyID, End: stored.End}
	d.remember(mac, in, epoch)
	return in, nil
}

// password is the password of a client, nobody's where it has none.
func (c *Client) password() Credential {
	for _, k := range c.Credentials {
		if k.Kind == KindPassword {
			return k
		}
	}
	return Credential{Data: nobodys}
}

// SetPassword gives a user another password. What was signed in with the one
// before ends.
func (d *Directory) SetPassword(ctx context.Context, objectID, password string) error {
	defer d.changed()
	cred, err := NewPassword(ctx, password, d.now())
	if err != nil {
		return err
	}
	return d.store.ChangeCredentials(ctx, objectID, KindPassword, func([]Credential) ([]Credential, error) { return []Credential{cred}, nil })
}

func rsaKey(cert *x509.Certificate) (*rsa.PublicKey, bool) {
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	return key, ok
}
