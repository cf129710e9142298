package access

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/network"
	"cove.example/cove/policy"
	"cove.example/cove/reason"
	"cove.example/cove/registry"
	"cove.example/cove/token"
)

// Guard gathers the facts of a request and decides. A fact that cannot be
// had is a refusal.
type Guard struct {
	Registries registry.Lookup
	Networks   network.Lookup // nil: no virtual networks
	Links      LinkLookup     // nil: no private links of clouds
	Tokens     *token.Tokens
	Directory  *directory.Directory
	Roles      *policy.Roles
	Now        func() time.Time // nil is time.Now

	// Trusted are the services that may pass network rules; nil is none.
	Trusted *Trusted

	// Audiences are what an access token of the issuer may be for to be
	// exchanged here: the control plane's names and the registry's own.
	Audiences []string
	// RegistryAudience is the one of them that is good for registries only. A
	// registry may insist on it.
	RegistryAudience string

	Scoped  registry.TokenLookup // nil: registries have no tokens of their own
	Guesses *Throttle            // nil: as many as anybody likes
	// Observe is told how long each decision about a request took, if it is set.
	Observe func(time.Duration)
	// Failures gets the causes of decisions that could not be made; nil is
	// slog.Default.
	Failures *slog.Logger

	listed struct { // see aliases
		sync.Mutex
		until   time.Time
		clients map[string]bool
	}
}

// boundTo is what a credential says of the permission mode that it was issued
// in. A registry that switches and switches back is in its first mode again,
// and what was issued before stays ended.
func boundTo(r *registry.Settings) string {
	if r.Modes == "" {
		return modeOf(r)
	}
	return modeOf(r) + "#" + r.Modes
}

// modeOf is a registry's permission mode.
func modeOf(r *registry.Settings) string {
	if r.Mode == "" {
		return registry.LegacyMode
	}
	return r.Mode
}

// Check decides about one request. It does not fail; what it cannot find out
// it refuses.
func (g *Guard) Check(ctx context.Context, a Ask) Verdict {
	f := g.facts(ctx, a)
	return g.observed(g.judge(ctx, &f, func() Proof { return g.prove(ctx, &f, a.Authority) }))
}

// observed passes on a decision about a request that was really made.
func (g *Guard) observed(v Verdict) Verdict {
	if g.Observe != nil {
		g.Observe(v.Took)
	}
	return v
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
func (g *Guard) judge(ctx context.Context, f *Facts, prove func() Proof) (v Verdict) {
	v = begin(f)
	v.rec.Took[stageArrived] = int64(f.Gathered)
	watch := stopwatch{now: g.now, took: &v.rec.Took, last: g.now()}
	defer watch.total(&v)
	admitted := admit(f, &v)
	watch.lap(stageEndpoint)
	if !admitted && !(liftable(f, &v) && g.worthProving(ctx, f)) {
		return v
	}
	f.Proof = prove()
	watch.lap(stageSignIn)
	if admitted && f.Proof.Failure == reason.TooManyGuesses {
		v.rec.Method, v.rec.Claimed, v.Wait = f.Proof.Method, f.Proof.Claimed, f.Proof.Wait
		refuse(&v, Throttled, reason.TooManyGuesses, stageSignIn, signInFailed)
		return v
	}
	if f.Proof.Failure == "" && f.Proof.Identity.holdsRoles() {
		roles, err := g.Roles.At(ctx, f.Proof.Identity.ObjectID, f.Registry.ID)
		if err != nil {
			g.missing(f, "role assignments", err)
		}
		if f.Roles = roles; len(f.Assumed) > 0 {
			f.Roles = append(slices.Clip(f.Assumed), roles...)
		}
	}
	if !admitted && !lift(f, &v) {
		return v
	}
	f.Referrer = f.Ask.Referrer != nil && f.needsReferrer() && f.Ask.Referrer(ctx, f.Registry.UID)
	settle(f, &v)
	watch.lap(stagePermission)
	v.keyID = f.Proof.KeyID
	return v
}

// stopwatch notes how long the stages of a decision take.
type stopwatch struct {
	now  func() time.Time
	took *[stages]int64
	last time.Time
}

func (w *stopwatch) lap(at stage) {
	now := w.now()
	w.took[at] += int64(now.Sub(w.last))
	w.last = now
}

func (w *stopwatch) total(v *Verdict) {
	for _, n := range w.took {
		v.Took += time.Duration(n)
	}
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
	f := g.gather(ctx, a)
	f.Gathered = g.now().Sub(f.Now)
	return f
}

func (g *Guard) gather(ctx context.Context, a Ask) Facts {
	f := Facts{Ask: a, Now: g.now(), Trusted: g.Trusted}
	reg, err := g.Registries.ByHost(ctx, a.Host)
	if err != nil {
		g.missing(&f, "the registry", err)
		return f
	}
	f.Registry = reg
	if a.Origin.Kind == link.Proxy && g.Links != nil && a.Origin.Link != "" {
		f.Endpoint = g.Links.LinkEndpoint(a.Origin.Link)
	}
	if a.Origin.Kind.Inside() && g.Networks != nil {
		f.Endpoint = g.Networks.Endpoint(a.Origin.Network, a.Origin.Local.Addr())
		// Members are behind tunnels, which prove their addresses; who comes by
		// an address of the machine is not taken for one.
		if f.Endpoint == nil && a.Origin.Kind == link.Overlay {
			if m := g.Networks.Member(a.Origin.Network, a.Origin.Remote.Addr()); m != nil {
				f.Subnet, f.Member = m.Subnet.String(), m
			}
		}
	}
	return f
}

// prove says what an Authorization header proves at a resource.
func (g *Guard) prove(ctx context.Context, f *Facts, authority string) Proof {
	if f.Ask.Link != "" {
		return g.bearer(ctx, f)
	}
	c, ok := parseAuthorization(authority)
	switch {
	case !ok:
		return Proof{Method: c.method, Failure: reason.CredentialUnread}
	case c.method == ByNothing:
		return Proof{Method: ByNothing}
	case f.Ask.Capitals:
		return Proof{Method: c.method, Failure: reason.HostCapitals}
	case c.method == ByPassword:
		return g.password(ctx, f, c.user, c.password)
	}
	claims, err := g.Tokens.VerifyRegistry(c.password, f.Registry.Host, f.Registry.UID)
	if err != nil {
		return Proof{Method: ByToken, Failure: tokenReason(err), TokenID: idOf(claims)}
	}
	return g.standing(ctx, f, ByToken, claims)
}

// password says what a user name and password prove. Who has guessed too often
// is not heard.
func (g *Guard) password(ctx context.Context, f *Facts, user, password string) Proof {
	if user == zeroUser {
		return g.tokenAsPassword(ctx, f, password) // signed: nobody guesses one
	}
	try := g.Guesses.Guess(f.Ask.Origin, f.Registry.UID, user, password)
	if wait := g.Guesses.Wait(try, f.Now); wait > 0 {
		return Proof{Method: ByPassword, Failure: reason.TooManyGuesses, Wait: wait}
	}
	p := g.userAndPassword(ctx, f, user, password)
	switch p.Failure {
	case "":
		g.Guesses.Succeeded(try, f.Now)
	case reason.WrongCredential, reason.NotRegistered:
		g.Guesses.Failed(try, f.Now)
	}
	return p
}

func (g *Guard) userAndPassword(ctx context.Context, f *Facts, user, password string) Proof {
	p := Proof{Method: ByPassword}
	// A name of the same length in bytes folds to letters of ASCII from letters
	// of ASCII only: "ſ" is no s and "K" (the kelvin's) no k. Were they, each such
	// spelling would be an identity of its own to Throttle.Guess, with guesses at
	// one and the same password.
	if len(user) == len(f.Registry.Name) && strings.EqualFold(user, f.Registry.Name) {
		p.Claimed = f.Registry.Name
		id, right := f.Registry.AdminPassword(user, password)
		switch {
		case !f.Registry.AdminUser:
			p.Failure = reason.AdminOff
		case !right:
			p.Failure = reason.WrongCredential
		default:
			p.Identity, p.KeyID = Identity{Name: f.Registry.Name, Kind: KindAdmin}, id
		}
		return p
	}
	if !directory.IsID(user) {
		return g.tokenPassword(ctx, f, user, password)
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
		return Proof{Method: ByPassword, Failure: tokenReason(err), TokenID: idOf(claims)}
	}
	return g.standing(ctx, f, ByPassword, claims)
}

// standing says what a verified token is worth now: its holder may have been
// disabled, and the secret that bought it removed, since it was issued.
func (g *Guard) standing(ctx context.Context, f *Facts, by Method, c *token.RegistryClaims) Proof {
	p := Proof{Method: by, KeyID: c.Credential, TokenID: c.ID}
	if c.Grant == "access_token" {
		p.Limit, p.Until = c.Access, time.Unix(c.Expires, 0)
		if p.Limit == nil {
			p.Limit = []token.Access{} // good for nothing, which is not without limit
		}
	}
	switch issued, _, _ := strings.Cut(c.Mode, "#"); {
	case c.Mode == boundTo(f.Registry):
	case issued == registry.LegacyMode, issued == registry.AbacMode:
		p.Failure = reason.ModeChanged
		return p
	default:
		p.Failure = reason.TokenNotForHere
		return p
	}
	switch c.Kind {
	case KindAdmin:
		p.Identity = Identity{Name: f.Registry.Name, Kind: KindAdmin}
		switch {
		case !f.Registry.AdminUser:
			p.Failure = reason.AdminOff
		case !f.Registry.HasAdminPassword(c.Credential):
			p.Failure = reason.IdentityGone
		}
	case KindToken:
		return g.tokenStanding(ctx, f, p, c)
	case KindAnonymous:
		p.Identity = Identity{Kind: KindAnonymous}
		if !f.Registry.AnonymousPull {
			p.Failure = reason.AnonymousOff
		}
	case KindServicePrincipal, KindUser:
		principal, err := g.Directory.Standing(ctx, c.ObjectID, c.Credential)
		if err != nil {
			p.Failure = g.directoryReason(f, err)
			return p
		}
		p.Identity = identity(principal)
		if principal.Tenant != c.Tenant {
			p.Failure = reason.TokenNotForHere
		}
	default:
		p.Failure = reason.TokenNotForHere
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
		p.Failure = reason.IdentityGone
	case err != nil:
		g.missing(f, "the subscription", err)
		p.Failure = reason.CannotDecide
	case sub.Tenant != who.Tenant:
		p.Failure = reason.WrongCredential
	default:
		p.Identity = identity(who)
	}
	return p
}

func identity(p directory.Principal) Identity {
	kind := KindServicePrincipal
	if p.Kind == directory.User {
		kind = KindUser
	}
	return Identity{Managed: p.Managed != "", ObjectID: p.ObjectID, Name: p.SignInName(), Kind: kind, Tenant: p.Tenant}
}

func (g *Guard) directoryReason(f *Facts, err error) Reason {
	switch {
	case errors.Is(err, directory.ErrSecret):
		return reason.WrongCredential
	case errors.Is(err, directory.ErrExpired):
		return reason.SecretExpired
	case errors.Is(err, directory.ErrDisabled), errors.Is(err, directory.ErrUnknown):
		return reason.IdentityGone
	}
	g.missing(f, "the directory", err)
	return reason.CannotDecide
}

// idOf is the id of a token that may not be used, where it is one of ours: of
// no other is there an id to believe.
func idOf(c *token.RegistryClaims) string {
	if c == nil {
		return ""
	}
	return c.ID
}

func tokenReason(err error) Reason {
	if errors.Is(err, token.ErrExpired) {
		return reason.TokenExpired
	}
	return reason.TokenNotForHere
}
