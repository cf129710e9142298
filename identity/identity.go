// Package identity is managed identities: principals that have no secret,
// because a resource has them. A user-assigned one is a resource of its own,
// which others may carry; a system-assigned one belongs to the resource that
// carries it and goes with it.
//
// The one idea: an identity's principal is written in the transaction that
// writes its resource, so that neither is ever there without the other.
package identity

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// The resource types of this package.
const (
	TypeName      = "Microsoft.ManagedIdentity/userAssignedIdentities"
	TypeFederated = TypeName + "/federatedIdentityCredentials"
)

// ActionAssign is what somebody needs on a user-assigned identity to make a
// resource carry it: whoever has the resource has the identity's roles.
const ActionAssign = TypeName + "/assign/action"

// The failures that callers meet by these codes, which are Azure's.
var (
	ErrNotPermitted = fault.Coded(fault.Denied, "LinkedAuthorizationFailed", "the caller may not assign an identity that this resource names")
	ErrReference    = fault.Coded(fault.Invalid, "FailedIdentityOperation", "an identity that this resource names was not found")
)

// Principals is where the identities' principals are kept; store implements it.
// Each call is part of the transaction tx.
type Principals interface {
	AddIn(ctx context.Context, tx resource.Tx, o directory.Object) error
	RemoveIn(ctx context.Context, tx resource.Tx, objectID string) error
	ChangeCredentialsIn(ctx context.Context, tx resource.Tx, objectID string, kind directory.CredentialKind, fn func([]directory.Credential) ([]directory.Credential, error)) error
}

// Config is what the types of this package are made of.
type Config struct{ Principals Principals }

// Types are the rows of the resource table that this package fills.
func Types(c Config) []resource.Type {
	return []resource.Type{
		{
			Name:      TypeName,
			CheckName: checkName,
			Located:   true,
			ReadOnly:  []string{"properties.principalId", "properties.clientId", "properties.tenantId"},
			Put:       c.put,
			Delete:    c.delete,
		},
		{
			Name:      TypeFederated,
			CheckName: func(string) string { return "" }, // with everything else of it, in checkFederation
			ReadOnly:  []string{"cove"},
			Secret:    []string{"cove"},
			Check:     checkFederation,
			Put:       c.putFederation,
			Delete:    c.deleteFederation,
		},
	}
}

// checkName is Microsoft.ManagedIdentity's rule.
func checkName(name string) string {
	alnum := func(c rune) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' }
	if len(name) < 3 || len(name) > 128 || !alnum(rune(name[0])) || strings.ContainsFunc(name, func(c rune) bool { return !alnum(c) && c != '-' && c != '_' }) {
		return "must be 3 to 128 letters, digits, hyphens and underscores, and begin with a letter or digit"
	}
	return ""
}

// made is a principal's three ids, as documents keep them.
type made struct{ principal, client, tenant string }

// add makes the principal of a resource.
func (c Config) add(ctx context.Context, tx resource.Tx, of arm.ID) (made, error) {
	sub, err := tx.Get(ctx, resource.SubscriptionID(of.Subscription()))
	if err != nil {
		return made{}, err
	}
	tenant, _ := sub.Body["tenantId"].(string)
	if tenant == "" {
		return made{}, errors.New("identity: a subscription without a tenant")
	}
	m := made{directory.NewID(), directory.NewID(), tenant}
	return m, c.Principals.AddIn(ctx, tx, directory.Object{Principal: directory.Principal{
		ObjectID: m.principal, AppID: m.client, Tenant: m.tenant, Kind: directory.ServicePrincipal, Name: of.Name(), Managed: of.String(),
	}})
}

func (c Config) put(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	if ch.Old != nil {
		return nil // its ids are read-only and were kept
	}
	m, err := c.add(ctx, tx, ch.New.ID)
	for name, id := range map[string]string{"principalId": m.principal, "clientId": m.client, "tenantId": m.tenant} {
		resource.Assign(ch.New.Body, "properties."+name, id)
	}
	return err
}

func (c Config) delete(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	return c.Principals.RemoveIn(ctx, tx, textAt(doc.Body, "properties.principalId"))
}

// federation reads a federated credential's document.
func federation(body resource.Object) (directory.Federation, string) {
	f := directory.Federation{Issuer: textAt(body, "properties.issuer"), Subject: textAt(body, "properties.subject")}
	list, ok := resource.Lookup(body, "properties.audiences").([]any)
	if !ok {
		return f, "must be a list of one text"
	}
	for _, v := range list {
		text, ok := v.(string)
		if !ok {
			return f, "must be a list of one text"
		}
		f.Audiences = append(f.Audiences, text)
	}
	return f, ""
}

func checkFederation(c *resource.Change) []fault.Field {
	f, wrong := federation(c.New.Body)
	if wrong != "" {
		return []fault.Field{{Path: "properties.audiences", Message: wrong}}
	}
	var bad []fault.Field
	for _, p := range f.Problems(c.New.ID.Name()) {
		if p.Path != "name" {
			p.Path = "properties." + p.Path
		}
		bad = append(bad, p)
	}
	return bad
}

// putFederation gives the identity's principal the credential. One that is
// changed is another, and tokens that the old one bought end; one that is sent
// again as it is stays the same.
func (c Config) putFederation(ctx context.Context, tx resource.Tx, ch *resource.Change) error {
	f, _ := federation(ch.New.Body)
	if ch.Old != nil {
		if was, _ := federation(ch.Old.Body); reflect.DeepEqual(was, f) {
			return nil
		}
	}
	cred, err := directory.NewFederation(ch.New.ID.Name(), f)
	if err != nil {
		return err
	}
	parent, err := tx.Get(ctx, ch.New.ID.Parent())
	if err != nil {
		return err
	}
	was := textAt(ch.New.Body, "cove.keyId")
	resource.Assign(ch.New.Body, "cove.keyId", cred.KeyID)
	return c.Principals.ChangeCredentialsIn(ctx, tx, textAt(parent.Body, "properties.principalId"), directory.KindFederated,
		directory.DistinctFederations(func(old []directory.Credential) ([]directory.Credential, error) {
			return append(without(old, was), cred), nil
		}))
}

func (c Config) deleteFederation(ctx context.Context, tx resource.Tx, doc resource.Doc, _ resource.Caller) error {
	parent, err := tx.Get(ctx, doc.ID.Parent())
	if err != nil {
		return err
	}
	return c.Principals.ChangeCredentialsIn(ctx, tx, textAt(parent.Body, "properties.principalId"), directory.KindFederated,
		func(old []directory.Credential) ([]directory.Credential, error) {
			return without(old, textAt(doc.Body, "cove.keyId")), nil
		})
}

func without(list []directory.Credential, keyID string) (out []directory.Credential) {
	for _, c := range list {
		if c.KeyID != keyID {
			out = append(out, c)
		}
	}
	return out
}

func textAt(o resource.Object, path string) string {
	s, _ := resource.Lookup(o, path).(string)
	return s
}

// One is an identity that a resource carries.
type One struct {
	ID          arm.ID // of the user-assigned identity, or of the resource itself
	System      bool
	PrincipalID string
	ClientID    string
	Tenant      string
}

// Of returns the identities that a resource carries, the system-assigned one
// first. One that has been deleted since is not among them, nor one that was made
// again under its name.
func Of(ctx context.Context, r resource.Reader, doc resource.Doc) ([]One, error) {
	var out []One
	if id := textAt(doc.Body, pathSystem+".principalId"); id != "" {
		out = append(out, One{doc.ID, true, id, textAt(doc.Body, pathSystem+".clientId"), textAt(doc.Body, pathSystem+".tenantId")})
	}
	for _, id := range assigned(doc.Body) {
		user, err := r.Get(ctx, id)
		if errors.Is(err, resource.ErrUnknown) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the identity %s: %w", id, err)
		}
		own, _ := resource.Lookup(doc.Body, pathAssigned).(resource.Object)
		if own[id.Key()] != textAt(user.Body, "properties.principalId") {
			continue
		}
		out = append(out, One{user.ID, false, textAt(user.Body, "properties.principalId"), textAt(user.Body, "properties.clientId"), textAt(user.Body, "properties.tenantId")})
	}
	return out, nil
}
