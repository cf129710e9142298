package access

import (
	"context"
	"strings"
	"time"

	"cove.example/cove/reason"
	"cove.example/cove/token"
)

// tokenPassword says what the name and password of one of the registry's own
// tokens prove.
func (g *Guard) tokenPassword(ctx context.Context, f *Facts, user, password string) Proof {
	p := Proof{Method: ByPassword, Failure: reason.NotRegistered}
	if notQuiteAnID(user) {
		p.Failure = reason.NotQuiteAnID
	}
	if g.Scoped == nil {
		return p
	}
	t, err := g.Scoped.Token(ctx, f.Registry, user)
	if err != nil {
		g.missing(f, "a token of the registry", err)
		p.Failure = reason.CannotDecide
		return p
	}
	if t == nil {
		return p
	}
	p.Claimed = t.Name
	id, ends, right := t.Check(password)
	switch {
	case !right:
		p.Failure = reason.WrongCredential
	case !t.Enabled:
		p.Failure = reason.IdentityGone
	case !ends.IsZero() && !f.Now.Before(ends):
		p.Failure = reason.SecretExpired
	default:
		p.Failure, p.KeyID, p.Map, p.Until = "", id, t.Map, ends
		p.Identity = Identity{ObjectID: t.UID, Name: t.Name, Kind: KindToken}
	}
	return p
}

// tokenStanding says what was bought with a token's password is worth now: the
// token may have been disabled, deleted or made again, and the password
// renewed, since.
func (g *Guard) tokenStanding(ctx context.Context, f *Facts, p Proof, c *token.RegistryClaims) Proof {
	p.Failure = reason.IdentityGone
	if g.Scoped == nil {
		return p
	}
	t, err := g.Scoped.Token(ctx, f.Registry, c.Subject)
	if err != nil {
		g.missing(f, "a token of the registry", err)
		p.Failure = reason.CannotDecide
		return p
	}
	if t == nil || t.UID != c.ObjectID || !t.Enabled {
		return p
	}
	ends, has := t.Password(c.Credential)
	switch {
	case !has:
	case !ends.IsZero() && !f.Now.Before(ends):
		p.Failure = reason.SecretExpired
	default:
		p.Failure, p.Map = "", t.Map
		p.Until = earlier(p.Until, ends)
		p.Identity = Identity{ObjectID: t.UID, Name: t.Name, Kind: KindToken}
	}
	return p
}

// earlier is the earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// notQuiteAnID reports whether a user name looks like a GUID and is not one in
// its usual spelling: without hyphens, in braces, or with other characters
// between them.
func notQuiteAnID(user string) bool {
	s := strings.ToLower(strings.Trim(user, "{}()"))
	if len(s) == 32 {
		return strings.Trim(s, "0123456789abcdef") == ""
	}
	if len(s) != 36 {
		return false
	}
	for _, i := range []int{8, 13, 18, 23} {
		if s[i] != '-' {
			return false
		}
	}
	return strings.Count(s, "-") == 4
}
