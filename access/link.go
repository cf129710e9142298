package access

import (
	"context"
	"errors"
	"strings"

	"cove.example/cove/reason"
	"cove.example/cove/token"
)

// ByLink is the method of a caller that holds a download link.
const ByLink Method = "link"

// Link signs a link with which whoever asked in v, and was allowed, can
// download one blob at a data host. It is the query of the URL. It carries no
// credential: who holds it is looked up, and decided about, when it is used.
func (g *Guard) Link(v Verdict, repository, digest string) (string, error) {
	if !v.Allow || v.Registry == nil {
		return "", errors.New("access: a link for a caller who was not allowed")
	}
	return g.Tokens.SignLink(token.Link{
		Registry: v.Registry.UID, Repository: repository, Digest: digest,
		Holder: token.Holder{
			Kind: v.Identity.Kind, Name: v.Identity.Name, ObjectID: v.Identity.ObjectID, Tenant: v.Identity.Tenant,
			Credential: v.keyID, Mode: boundTo(v.Registry),
		},
	})
}

// bearer says what a download link proves: who it was made for, as long as
// that one still stands. What it may do is decided anew, so that a role taken
// away ends the links too.
func (g *Guard) bearer(ctx context.Context, f *Facts) Proof {
	p := Proof{Method: ByLink}
	if f.Ask.Authority != "" {
		p.Failure = reason.ForeignCredential
		return p
	}
	if len(f.Ask.Want) != 1 || f.Ask.Want[0].Action != "pull" {
		p.Failure = reason.LinkInvalid // a link is for a download and for nothing else
		return p
	}
	l, err := g.Tokens.VerifyLink(strings.TrimPrefix(f.Ask.Link, "?"), token.Link{
		Registry: f.Registry.UID, Repository: f.Ask.Want[0].Name, Digest: f.Ask.Digest,
	})
	switch {
	case errors.Is(err, token.ErrExpired):
		p.Failure = reason.LinkExpired
		return p
	case err != nil:
		p.Failure = reason.LinkInvalid
		return p
	}
	return g.standing(ctx, f, ByLink, &token.RegistryClaims{
		Subject: l.Holder.Name, Kind: l.Holder.Kind, ObjectID: l.Holder.ObjectID, Tenant: l.Holder.Tenant,
		Credential: l.Holder.Credential, Mode: l.Holder.Mode,
	})
}
