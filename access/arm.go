package access

import (
	"context"
	"errors"
	"slices"

	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
	"cove.example/cove/resource"
	"cove.example/cove/token"
)

// ARM proves callers of the control plane.
type ARM struct {
	Tokens    *token.Tokens
	Directory *directory.Directory
	Roles     *policy.Roles
	// Audiences are the control plane's own names. A token for a registry is
	// not good here.
	Audiences []string
}

// The failures of Authenticate, with ARM's own codes.
var (
	ErrNoToken       = fault.Coded(fault.Unauthenticated, "AuthenticationFailed", "Authentication failed. The 'Authorization' header is missing.")
	ErrTokenInvalid  = fault.Coded(fault.Unauthenticated, "InvalidAuthenticationToken", "The access token is invalid.")
	ErrTokenExpired  = fault.Coded(fault.Unauthenticated, "ExpiredAuthenticationToken", "The access token expiry has passed. Sign in again.")
	ErrTokenAudience = fault.Coded(fault.Unauthenticated, "InvalidAuthenticationTokenAudience", "The access token has been obtained for another audience.")
)

// Authenticate returns who an Authorization header proves, and what they may:
// Caller.May asks the role assignments at the scope and above it, as they are
// when it is called, and says no when they cannot be read; so does
// Caller.Holds, of those at the scope and below it. It fails with one
// of the errors above, or with fault.Internal when the directory cannot be
// asked.
func (a *ARM) Authenticate(ctx context.Context, authorization string) (resource.Caller, error) {
	if authorization == "" {
		return resource.Caller{}, ErrNoToken
	}
	c, ok := parseAuthorization(authorization)
	if !ok || c.method != ByToken {
		return resource.Caller{}, ErrTokenInvalid
	}
	claims, err := a.Tokens.VerifyPrincipal(c.password, a.Audiences...)
	switch {
	case errors.Is(err, token.ErrExpired):
		return resource.Caller{}, ErrTokenExpired.Because(err)
	case errors.Is(err, token.ErrAudience):
		return resource.Caller{}, ErrTokenAudience.Because(err)
	case err != nil:
		return resource.Caller{}, ErrTokenInvalid.Because(err)
	}
	caller, err := a.Again(ctx, claims.ObjectID, claims.Credential)
	if err == nil && caller.Tenant != claims.Tenant {
		return resource.Caller{}, ErrTokenInvalid
	}
	return caller, err
}

// Again is a caller who has been authenticated before, as they are now, for
// what goes on after the answer to their request. It fails as Authenticate does
// where they are gone, or what they had signed in with.
func (a *ARM) Again(ctx context.Context, objectID, credential string) (resource.Caller, error) {
	who, err := a.Directory.Standing(ctx, objectID, credential)
	switch {
	case errors.Is(err, directory.ErrUnknown), errors.Is(err, directory.ErrDisabled), errors.Is(err, directory.ErrExpired):
		return resource.Caller{}, ErrTokenInvalid.Because(err)
	case err != nil:
		return resource.Caller{}, err
	}
	return resource.Caller{
		ObjectID: who.ObjectID, Name: who.SignInName(), Tenant: who.Tenant, Credential: credential,
		May: func(action string, scope arm.ID) bool {
			d, err := a.Roles.May(ctx, who.ObjectID, action, scope)
			return err == nil && d.Allowed && a.owns(ctx, who.Tenant, scope)
		},
		MayData: func(action string, scope arm.ID, repository string) bool {
			d, err := a.Roles.MayData(ctx, who.ObjectID, action, scope, repository)
			return err == nil && d.Allowed && a.owns(ctx, who.Tenant, scope)
		},
		Holds: func(scope arm.ID) bool {
			at, err := a.Roles.Scopes(ctx, who.ObjectID)
			return err == nil && slices.ContainsFunc(at, func(s arm.ID) bool { return s.Within(scope) }) && a.owns(ctx, who.Tenant, scope)
		},
	}, nil
}

// owns reports whether the scope is in the caller's tenant: a role assignment
// that names a principal of another tenant opens nothing.
func (a *ARM) owns(ctx context.Context, tenant string, scope arm.ID) bool {
	sub, err := a.Directory.Subscription(ctx, scope.Subscription())
	return err == nil && sub.Tenant == tenant
}
