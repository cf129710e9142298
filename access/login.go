package access

import (
	"context"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/reason"
	"cove.example/cove/token"
)

// Secret is a credential on its way to being verified. It prints as redacted.
type Secret string

// String keeps the secret out of every log.
func (Secret) String() string { return "[redacted]" }

// GoString keeps it out of %#v.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText keeps it out of JSON and of structured logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// Grant is what a client presents at a registry's token endpoint. One of
// Refresh, User, or the Authorization header of the Ask is the credential; a
// grant with none asks for an anonymous token.
type Grant struct {
	Service string // the registry it thinks it speaks to; "" is the one it does
	User    string
	Pass    Secret
	HasUser bool // user and password were sent, empty ones included
	Refresh Secret
	Scopes  []string
}

// Issued is a token and how long it lasts.
type Issued struct {
	Token     Secret
	ExpiresIn int // seconds
	IssuedAt  time.Time
}

// Token issues an access token of the registry that ask was made to, for what
// of the scopes the caller may have. A caller who may have none of them gets a
// token that is good for nothing, as the token specification says; one who
// holds nothing at all on the registry is refused.
//
// The error is for a request that can never succeed; a no is in the verdict,
// and the network's no stands before every error.
func (g *Guard) Token(ctx context.Context, ask Ask, gr Grant) (Issued, Verdict, error) {
	asked, err := token.ParseScopes(gr.Scopes)
	ask.Want = nil // what the token is for is asked of the token, not of the verdict
	f := g.facts(ctx, ask)
	if err != nil {
		return Issued{}, g.network(&f), err
	}
	v := g.observed(g.judge(ctx, &f, func() Proof { return g.present(ctx, &f, gr) }))
	if !v.Allow {
		return Issued{}, v, nil
	}
	for _, s := range asked {
		for _, a := range s.Actions {
			v.rec.Want = append(v.rec.Want, Scope{s.Type, s.Name, a})
		}
	}
	text, claims, err := g.Tokens.MintRegistry(g.claims(&f, token.Narrow(asked, f.mayAsk)), f.Proof.Until)
	if err != nil {
		return Issued{}, v, err
	}
	v.rec.Token = claims.ID
	return Issued{Secret(text), int(claims.Expires - claims.Issued), time.Unix(claims.Issued, 0).UTC()}, v, nil
}

// Exchange gives a refresh token of the registry for an access token of the
// issuer. tenant, where the caller names one by its id, must be the token's.
func (g *Guard) Exchange(ctx context.Context, ask Ask, service, tenant string, raw Secret) (Secret, Verdict, error) {
	ask.Want = nil
	f := g.facts(ctx, ask)
	v := g.observed(g.judge(ctx, &f, func() Proof { return g.exchanged(ctx, &f, service, tenant, raw) }))
	if !v.Allow {
		return "", v, nil
	}
	text, claims, err := g.Tokens.MintRefresh(g.claims(&f, nil))
	v.rec.Token = claims.ID
	return Secret(text), v, err
}

// ExchangeSession is Exchange for a person's refresh token of the issuer, which
// says no audience. Where an access token comes with it, that one is what is
// exchanged, and both must be the same person's.
func (g *Guard) ExchangeSession(ctx context.Context, ask Ask, service, tenant string, raw, refresh Secret) (Secret, Verdict, error) {
	ask.Want = nil
	f := g.facts(ctx, ask)
	v := g.judge(ctx, &f, func() Proof {
		person := g.session(ctx, &f, service, tenant, refresh, raw != "")
		if raw == "" || person.Failure != "" {
			return person
		}
		p := g.exchanged(ctx, &f, service, tenant, raw)
		if p.Failure == "" && p.Identity.ObjectID != person.Identity.ObjectID {
			p.Failure = reason.TokenNotForHere
		}
		return p
	})
	if !v.Allow {
		return "", v, nil
	}
	text, claims, err := g.Tokens.MintRefresh(g.claims(&f, nil))
	v.rec.Token = claims.ID
	return Secret(text), v, err
}

func (f *Facts) may(typ, name, action string) bool {
	return f.permits(&Scope{typ, name, action}, nil) == ""
}

// present says what a grant proves.
func (g *Guard) present(ctx context.Context, f *Facts, gr Grant) Proof {
	switch {
	case gr.Service != "" && gr.Service != f.Ask.Host:
		// A credential for one registry, sent to another: row 30's family of
		// confusions. Which registry is meant comes from the connection.
		return Proof{Method: ByPassword, Failure: reason.TokenNotForHere}
	case gr.Refresh != "":
		claims, err := g.Tokens.VerifyRefresh(string(gr.Refresh), f.Registry.Host, f.Registry.UID)
		if err != nil {
			return Proof{Method: ByToken, Failure: tokenReason(err), TokenID: idOf(claims)}
		}
		return g.standing(ctx, f, ByToken, claims)
	case gr.HasUser:
		return g.password(ctx, f, gr.User, string(gr.Pass))
	}
	c, ok := parseAuthorization(f.Ask.Authority)
	switch {
	case !ok:
		return Proof{Method: c.method, Failure: reason.CredentialUnread}
	case c.method == ByPassword:
		return g.password(ctx, f, c.user, c.password)
	case c.method == ByToken:
		// No client sends one, and to overlook it would make an anonymous
		// caller of somebody who is not.
		return Proof{Method: ByToken, Failure: reason.TokenNotForHere}
	case !f.Registry.AnonymousPull:
		return Proof{Method: ByNothing}
	}
	return Proof{Method: Anonymously, Identity: Identity{Kind: KindAnonymous}}
}

// exchanged says what an access token of the issuer proves.
func (g *Guard) exchanged(ctx context.Context, f *Facts, service, tenant string, raw Secret) Proof {
	p := Proof{Method: ByToken}
	if service != f.Ask.Host {
		p.Failure = reason.TokenNotForHere
		return p
	}
	c, err := g.Tokens.VerifyPrincipal(string(raw), g.Audiences...)
	if c != nil {
		p.TokenID = c.ID
	}
	if err != nil {
		p.Failure = tokenReason(err)
		return p
	}
	if f.Registry.RegistryAudienceOnly && !token.SameAudience(c.Audience, g.RegistryAudience) {
		p.Failure = reason.AudienceRefused
		return p
	}
	if directory.IsID(tenant) && !strings.EqualFold(tenant, c.Tenant) {
		p.Failure = reason.TokenNotForHere
		return p
	}
	who, err := g.Directory.Standing(ctx, c.ObjectID, c.Credential)
	if err != nil {
		p.Failure = g.directoryReason(f, err)
		return p
	}
	if who.Tenant != c.Tenant {
		p.Failure = reason.TokenNotForHere
		return p
	}
	p.KeyID = c.Credential
	return g.resident(ctx, f, p, who)
}

// session says what a person's refresh token of the issuer proves. A registry
// that takes no tokens but those for registries takes none of these by itself:
// they are good for everything that the person may.
func (g *Guard) session(ctx context.Context, f *Facts, service, tenant string, raw Secret, beside bool) Proof {
	p := Proof{Method: ByToken}
	if service != f.Ask.Host {
		p.Failure = reason.TokenNotForHere
		return p
	}
	s, err := g.Tokens.VerifySession(string(raw))
	switch {
	case err != nil:
		p.Failure = tokenReason(err)
		return p
	case f.Registry.RegistryAudienceOnly && !beside:
		p.Failure = reason.AudienceRefused
		return p
	case directory.IsID(tenant) && !strings.EqualFold(tenant, s.Tenant):
		p.Failure = reason.TokenNotForHere
		return p
	}
	who, err := g.Directory.Standing(ctx, s.ObjectID, s.Credential)
	switch {
	case err != nil:
		p.Failure = g.directoryReason(f, err)
		return p
	case who.Tenant != s.Tenant, who.Kind != directory.User:
		p.Failure = reason.TokenNotForHere
		return p
	}
	p.KeyID = s.Credential
	return g.resident(ctx, f, p, who)
}

// claims are what a registry's tokens say of a proof. Their audience is the
// login server whichever of its names was called: a token is good on all.
func (g *Guard) claims(f *Facts, list []token.Access) token.RegistryClaims {
	id := f.Proof.Identity
	c := token.RegistryClaims{
		Subject: id.Name, Audience: f.Registry.Host, RegistryUID: f.Registry.UID, Mode: boundTo(f.Registry),
		Kind: id.Kind, ObjectID: id.ObjectID, Tenant: id.Tenant, Credential: f.Proof.KeyID, Access: list,
	}
	if id.Kind == KindServicePrincipal {
		c.AppID = id.Name
	}
	c.Permissions = &token.Permissions{Actions: []string{}, NotActions: []string{}}
	for _, p := range []struct{ action, word string }{{"pull", "read"}, {"push", "write"}, {"delete", "delete"}} {
		if f.may("repository", "*", p.action) {
			c.Permissions.Actions = append(c.Permissions.Actions, p.word)
		}
	}
	return c
}
