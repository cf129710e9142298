package access

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/registry"
	"cove.example/cove/token"
)

// Guard gathers the facts of a request and decides. A fact that cannot be
// had is a refusal.
type Guard struct {
	Registries registry.Lookup
	Networks   network.Lookup // nil: no virtual networks
	Tokens     *token.Tokens
	Directory  *directory.Directory
	Roles      *policy.Roles
	Now        func() time.Time // nil is time.Now

	// Audiences are what an access token of the issuer may be for to be
	// exchanged here: the control plane's names and the registry's own.
	Audiences []string
	// Failures gets the causes of decisions that could not be made; nil is
	// slog.Default.
	Failures *slog.Logger
}

// legacyMode is the permissions mode in which Actions decide. A credential is
// bound to the mode it was issued in.
const legacyMode = "LegacyRegistryPermissions"

// Check decides about one request. It does not fail; what it cannot find out
// it refuses.
func (g *Guard) Check(ctx context.Context, a Ask) Verdict {
	f := g.facts(ctx, a)
	return g.judge(ctx, &f, func() Proof { return g.prove(ctx, &f, a.Authority) })
}

// CheckNetwork decides the network's part alone: whether the caller may speak
// to the registry at all. Allow is true when it may.
func (g *Guard) CheckNetwork(ctx context.Context, a Ask) Verdict {
	f := g.facts(ctx, a)
	return g.network(&f)
}

func (g *Guard) network(f *Facts) Verdict {
	v := begin(f)
	v.Allow = admit(f, &v)
	return v
}

// judge decides, and has the credential verified only for a caller that the
// network has let through.
func (g *Guard) judge(ctx context.Context, f *Facts, prove func() Proof) Verdict {
	v := begin(f)
	if !admit(f, &v) {
		return v
	}
	f.Proof = prove()
	if f.Proof.Failure == "" && f.Proof.Identity.Kind == KindServicePrincipal {
		roles, err := g.Roles.At(ctx, f.Proof.Identity.ObjectID, f.Registry.ID)
		if err != nil {
			g.missing(f, "role assignments", err)
		}
		f.Roles = roles
	}
	settle(f, &v)
	return v
}

func (g *Guard) now() time.Time {
	if g.Now == nil {
		return time.Now()
	}
	return g.Now()
}

// missing turns a fact that could not be had into a refusal. The caller
// learns the id; the log has the cause under it.
func (g *Guard) missing(f *Facts, what string, err error) {
	f.Failed = true
	log := g.Failures
	if log == nil {
		log = slog.Default()
	}
	log.Error("a decision could not be made", "id", f.Ask.ID, "missing", what, "err", err)
}

func (g *Guard) facts(ctx context.Context, a Ask) Facts {
	f := Facts{Ask: a, Now: g.now()}
	reg, err := g.Registries.ByHost(ctx, a.Host)
	if err != nil {
		g.missing(&f, "the registry", err)
		return f
	}
	f.Registry = reg
	if a.Origin.Kind == link.Overlay && g.Networks != nil {
		f.Endpoint = g.Networks.Endpoint(a.Origin.Network, a.Origin.Local.Addr())
		if f.Endpoint == nil {
			if m := g.Networks.Member(a.Origin.Network, a.Origin.Remote.Addr()); m != nil {
				f.Subnet = m.Subnet.String()
			}
		}
	}
	return f
}

// prove says what an Authorization header proves at a resource.
func (g *Guard) prove(ctx context.Context, f *Facts, authority string) Proof {
	c, ok := parseAuthorization(authority)
	switch {
	case !ok:
		return Proof{Method: c.method, Failure: CredentialUnread}
	case c.method == ByNothing:
		return Proof{Method: ByNothing}
	case f.Ask.Capitals:
		return Proof{Method: c.method, Failure: HostCapitals}
	case c.method == ByPassword:
		return g.password(ctx, f, c.user, c.password)
	}
	claims, err := g.Tokens.VerifyRegistry(c.password, f.Registry.Host, f.Registry.UID)
	if err != nil {
		return Proof{Method: ByToken, Failure: tokenReason(err)}
	}
	return g.standing(ctx, f, ByToken, claims)
}

// password says what a user name and password prove.
func (g *Guard) password(ctx context.Context, f *Facts, user, password string) Proof {
	p := Proof{Method: ByPassword}
	switch {
	case user == zeroUser:
		return g.tokenAsPassword(ctx, f, password)
	case strings.EqualFold(user, f.Registry.Name):
		p.Claimed = f.Registry.Name
		switch {
		case !f.Registry.AdminUser:
			p.Failure = AdminOff
		case !f.Registry.CheckAdmin(user, password):
			p.Failure = WrongCredential
		default:
			p.Identity = Identity{Name: f.Registry.Name, Kind: KindAdmin}
		}
		return p
	case !directory.IsID(user):
		p.Failure = NotRegistered
		return p
	}
	p.Claimed = strings.ToLower(user)
	in, err := g.Directory.SignIn(ctx, user, password)
	if err != nil {
		p.Failure = g.directoryReason(f, err)
		return p
	}
	p.KeyID = in.KeyID
	return g.resident(ctx, f, p, in.Principal)
}

// tokenAsPassword is the zero-GUID user: the password is a refresh or access
// token of this registry.
func (g *Guard) tokenAsPassword(ctx context.Context, f *Facts, raw string) Proof {
	claims, err := g.Tokens.VerifyRefresh(raw, f.Registry.Host, f.Registry.UID)
	if errors.Is(err, token.ErrMalformed) {
		claims, err = g.Tokens.VerifyRegistry(raw, f.Registry.Host, f.Registry.UID)
	}
	if err != nil {
		return Proof{Method: ByPassword, Failure: tokenReason(err)}
	}
	return g.standing(ctx, f, ByPassword, claims)
}

// standing says what a verified token is worth now: its holder may have been
// disabled, and the secret that bought it removed, since it was issued.
func (g *Guard) standing(ctx context.Context, f *Facts, by Method, c *token.RegistryClaims) Proof {
	p := Proof{Method: by, KeyID: c.Credential}
	if c.Grant == "access_token" {
		p.Limit, p.Until = c.Access, time.Unix(c.Expires, 0)
		if p.Limit == nil {
			p.Limit = []token.Access{} // good for nothing, which is not without limit
		}
	}
	if c.Mode != legacyMode {
		p.Failure = TokenNotForHere
		return p
	}
	switch c.Kind {
	case KindAdmin:
		p.Identity = Identity{Name: f.Registry.Name, Kind: KindAdmin}
		if !f.Registry.AdminUser {
			p.Failure = AdminOff
		}
	case KindAnonymous:
		p.Identity = Identity{Kind: KindAnonymous}
		if !f.Registry.AnonymousPull {
			p.Failure = AnonymousOff
		}
	case KindServicePrincipal:
		principal, err := g.Directory.Standing(ctx, c.ObjectID, c.Credential)
		if err != nil {
			p.Failure = g.directoryReason(f, err)
			return p
		}
		p.Identity = identity(principal)
		if principal.Tenant != c.Tenant {
			p.Failure = TokenNotForHere
		}
	default:
		p.Failure = TokenNotForHere
	}
	return p
}

// resident gives a proof its identity if the principal is of the tenant that
// the registry's subscription belongs to: a principal of another is nobody
// here, however good its credential.
func (g *Guard) resident(ctx context.Context, f *Facts, p Proof, who directory.Principal) Proof {
	sub, err := g.Directory.Subscription(ctx, f.Registry.ID.Subscription())
	switch {
	case errors.Is(err, directory.ErrUnknown):
		p.Failure = IdentityGone
	case err != nil:
		g.missing(f, "the subscription", err)
		p.Failure = CannotDecide
	case sub.Tenant != who.Tenant:
		p.Failure = WrongCredential
	default:
		p.Identity = identity(who)
	}
	return p
}

func identity(p directory.Principal) Identity {
	return Identity{ObjectID: p.ObjectID, Name: p.AppID, Kind: KindServicePrincipal, Tenant: p.Tenant}
}

func (g *Guard) directoryReason(f *Facts, err error) Reason {
	switch {
	case errors.Is(err, directory.ErrSecret):
		return WrongCredential
	case errors.Is(err, directory.ErrExpired):
		return SecretExpired
	case errors.Is(err, directory.ErrDisabled), errors.Is(err, directory.ErrUnknown):
		return IdentityGone
	}
	g.missing(f, "the directory", err)
	return CannotDecide
}

func tokenReason(err error) Reason {
	if errors.Is(err, token.ErrExpired) {
		return TokenExpired
	}
	return TokenNotForHere
}
