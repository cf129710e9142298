// Package device is signing in on a machine without a browser (RFC 8628): a
// program there shows a short code and waits, and a person types that code,
// a name and a password into a page somewhere else.
//
// A login is kept until it is taken or its time is over, through a restart
// too. Both of its codes are kept as hashes: who reads the database can take
// nobody's login.
package device

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/fault"
)

// Life is how long a person has, and Interval how long a program waits between
// two questions (source: RFC 8628, 3.2; both are what Entra gives).
const (
	Life     = 15 * time.Minute
	Interval = 5 * time.Second

	// early is how much sooner a question may come: programs' clocks tick in
	// whole seconds.
	early = time.Second
)

// Everybody may begin a login, so few may be under way: from one address, and
// in all.
const (
	maxOfOne = 20
	maxOfAll = 4096
)

// letters of a user's code: no vowels, so that it is no word, and nothing that
// looks like something else (RFC 8628, 6.1).
const letters = "BCDFGHJKLMNPQRSTVWXZ"

// codeLen letters are 34 bits: of a hundred thousand guesses at four thousand
// logins one in forty finds one, and nobody has as many in fifteen minutes.
const codeLen = 8

// Login is one that a program has begun.
type Login struct {
	User, Device string // the hashes of its codes
	Client       string // the program
	Tenant       string
	Audience     string
	From         string // where the program is, for the person to recognise
	Begun, Ends  time.Time
	Asked        time.Time // when the program last asked, zero for never
	Denied       bool
	ObjectID     string // who has approved it, "" as long as nobody has
	Credential   string // key id of what that person has signed in with
}

func (l *Login) open() bool { return !l.Denied && l.ObjectID == "" }

// The failures of this package.
var (
	ErrUnknown = fault.New(fault.NotFound, "The code is not known, or has been used.")
	ErrFull    = fault.New(fault.Throttled, "Too many sign-ins by code are under way. Try again later.")
	ErrPending = fault.New(fault.Conflict, "The person has not signed in yet.")
	ErrSlow    = fault.New(fault.Throttled, "The program asks too often.")
	ErrDenied  = fault.New(fault.Denied, "The person has declined.")
	ErrEnded   = fault.New(fault.Conflict, "The code has expired.")
)

// Store is where logins are kept; store implements it. Every change is durable
// when the method returns.
type Store interface {
	// AddLogin writes l and takes away what ended before gone. It fails with
	// ErrFull when ofOne of l's origin, or ofAll, have not ended when l begins.
	AddLogin(ctx context.Context, l Login, gone time.Time, ofOne, ofAll int) error
	// Login returns the login with this user's hash or, where it is "", with
	// this device's. It fails with ErrUnknown.
	Login(ctx context.Context, user, device string) (Login, error)
	// AnswerLogin writes the person's answer. It fails with ErrUnknown for a
	// login that is not there or has been answered.
	AnswerLogin(ctx context.Context, user string, denied bool, objectID, credential string) error
	AskedLogin(ctx context.Context, device string, at time.Time) error
	// TakeLogin takes away a login that was approved. It fails with ErrUnknown
	// when somebody else was faster.
	TakeLogin(ctx context.Context, device string) error
}

// Desk is where both sides of a login come.
type Desk struct {
	Store Store
	Now   func() time.Time
}

// Codes are the two codes of a login. They are known here only.
type Codes struct {
	User   string // as people read it
	Device directory.Secret
}

// Begin makes a login for what l says of the program. It fails with ErrFull.
func (d *Desk) Begin(ctx context.Context, l Login) (Codes, error) {
	secret := make([]byte, 32)
	rand.Read(secret)
	c := Codes{newCode(), directory.SecretFrom(base64.RawURLEncoding.EncodeToString(secret))}
	l.User, l.Device = hash("user", normal(c.User)), hash("device", c.Device.Reveal())
	l.Begun = d.Now()
	l.Ends = l.Begun.Add(Life)
	// What has ended stays for as long again, so that a program that is late
	// is told that it is.
	return c, d.Store.AddLogin(ctx, l, l.Begun.Add(-Life), maxOfOne, maxOfAll)
}

// Show is the login that a person's code names, as long as it can be answered.
// It fails with ErrUnknown.
func (d *Desk) Show(ctx context.Context, code string) (Login, error) {
	l, err := d.Store.Login(ctx, hash("user", normal(code)), "")
	if err == nil && (!l.open() || !d.Now().Before(l.Ends)) {
		err = ErrUnknown
	}
	return l, err
}

// Approve lets the program have what the person may; it does so once. It fails
// with ErrUnknown, as Deny does.
func (d *Desk) Approve(ctx context.Context, code, objectID, credential string) error {
	return d.answer(ctx, code, false, objectID, credential)
}

// Deny ends a login.
func (d *Desk) Deny(ctx context.Context, code string) error {
	return d.answer(ctx, code, true, "", "")
}

func (d *Desk) answer(ctx context.Context, code string, denied bool, objectID, credential string) error {
	l, err := d.Show(ctx, code)
	if err != nil {
		return err
	}
	return d.Store.AnswerLogin(ctx, l.User, denied, objectID, credential)
}

// Poll is a program's question whether the person has answered. It returns an
// approved login once and takes it away, or fails with ErrPending, ErrSlow,
// ErrDenied, ErrEnded or ErrUnknown. Another program, or one that speaks to
// another tenant, learns nothing of it.
func (d *Desk) Poll(ctx context.Context, client, tenant, code string) (Login, error) {
	l, err := d.Store.Login(ctx, "", hash("device", code))
	now := d.Now()
	switch {
	case err != nil:
		return Login{}, err
	case l.Client != client || l.Tenant != tenant:
		return Login{}, ErrUnknown
	case !now.Before(l.Ends):
		return Login{}, ErrEnded
	case l.Denied:
		return Login{}, ErrDenied
	case !l.open():
		return l, d.Store.TakeLogin(ctx, l.Device)
	case !l.Asked.IsZero() && now.Sub(l.Asked) < Interval-early:
		// Not written down: who asks without a pause costs no disk.
		return Login{}, ErrSlow
	}
	if err := d.Store.AskedLogin(ctx, l.Device, now); err != nil {
		return Login{}, err
	}
	return Login{}, ErrPending
}

// newCode is a user's code, in two halves.
func newCode() string {
	var out []byte
	for b := make([]byte, 1); len(out) < codeLen; {
		// A byte past the last whole round would make some letters likelier.
		if rand.Read(b); int(b[0]) < 256/len(letters)*len(letters) {
			out = append(out, letters[int(b[0])%len(letters)])
		}
	}
	return string(out[:codeLen/2]) + "-" + string(out[codeLen/2:])
}

// normal is a code as it is compared: people type small letters, spaces and no
// dash. What is longer than a code can be is none.
func normal(code string) string {
	if len(code) > 4*codeLen {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r == '-' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToUpper(code))
}

// hash keeps the two kinds of codes apart.
func hash(kind, code string) string {
	sum := sha256.Sum256([]byte(kind + " code of a login\x00" + code))
	return hex.EncodeToString(sum[:])
}
