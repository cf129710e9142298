// Package directory is who there is: tenants, the subscriptions they own, the
// applications and service principals in them, and their credentials.
//
// A generated secret is 256 random bits, so it is stored as its SHA-256: there
// is nothing to guess that a slow hash would protect, and a sign-in stays
// cheap. What people have chosen is guessed, and is kept as argon2id.
package directory

import (
	"context"
	"time"

	"cove.example/cove/fault"
)

// Tenant is a directory of its own; principals of one are nobody in another.
type Tenant struct {
	ID   string // a GUID
	Name string
}

// Subscription is what resources are created in. It belongs to one tenant.
type Subscription struct {
	ID     string // a GUID
	Tenant string
	Name   string
}

// Principal is one who can sign in or hold roles.
type Principal struct {
	ObjectID string // a GUID; what role assignments name
	Tenant   string
	Kind     string // ServicePrincipal, User, Group
	AppID    string // the client id, a GUID; only a service principal has one
	Name     string
	UPN      string // a user's sign-in name, lower case
	Disabled bool
	// Managed is the id of the resource whose identity it is, "" for every
	// other. What it signs in with is its machine's place in a network, or what
	// another issuer says; it has no secret, and goes with its resource.
	Managed string
}

// SignInName is what people know it by: a client id or a user's name.
func (p Principal) SignInName() string {
	if p.Kind == User {
		return p.UPN
	}
	return p.AppID
}

// Credential is what somebody signs in with, as it is stored: enough to
// recognise it, not enough to use it.
type Credential struct {
	KeyID string // a GUID; what is named when it is taken away
	Kind  CredentialKind
	Name  string
	Hint  string   // of a secret, the first characters, for people
	Hash  [32]byte // SHA-256 of a secret's text, or of Data
	Data  []byte   // of every kind but a secret
	Start time.Time
	End   time.Time
}

// Client is a principal with all credentials that it can sign in with: its own
// and, for a service principal, those of its application.
type Client struct {
	Principal
	Credentials []Credential
}

// The failures of this package.
var (
	ErrUnknown  = fault.Coded(fault.NotFound, "Request_ResourceNotFound", "the directory has no such object")
	ErrSecret   = fault.New(fault.Unauthenticated, "Invalid clientid or client secret.")
	ErrExpired  = fault.New(fault.Unauthenticated, "Invalid clientid or client secret.")
	ErrDisabled = fault.New(fault.Unauthenticated, "Invalid clientid or client secret.")
)

// Store is where the directory is kept; store implements it. Ids are compared
// in lower case. Every change is durable when the method returns.
type Store interface {
	Tenants(ctx context.Context) ([]Tenant, error)
	// Subscriptions are those of all tenants, the oldest first.
	Subscriptions(ctx context.Context) ([]Subscription, error)
	// Found writes the first tenant with its subscription and principal, in
	// one transaction, and reports false without writing when there is a
	// tenant already.
	Found(ctx context.Context, t Tenant, s Subscription, c Client) (bool, error)
	// Create writes a principal. It fails with fault.Conflict when an id of it
	// is taken.
	Create(ctx context.Context, c Client) error
	// Delete takes an object away with its credentials and memberships, an
	// application with its service principals; deleting what is absent is no
	// error.
	Delete(ctx context.Context, objectID string) error
	// ByApp, ByUPN and ByObject fail with ErrUnknown.
	ByApp(ctx context.Context, appID string) (Client, error)
	ByUPN(ctx context.Context, upn string) (Client, error)
	ByObject(ctx context.Context, objectID string) (Client, error)
	SetDisabled(ctx context.Context, objectID string, disabled bool) error
	// AddCredential fails with ErrUnknown or ErrCredentials.
	AddCredential(ctx context.Context, objectID string, c Credential) error
	RemoveCredential(ctx context.Context, objectID, keyID string) error
	// ChangeCredentials replaces an object's credentials of a kind by what fn
	// makes of them, in one transaction; fn may be called again. One with a new
	// key id is another. It fails with ErrUnknown, ErrCredentials, or what fn
	// returns.
	ChangeCredentials(ctx context.Context, objectID string, kind CredentialKind, fn func([]Credential) ([]Credential, error)) error

	// Add is Create for an object of any kind.
	Add(ctx context.Context, o Object) error
	// Change reads an object, has fn change it and writes it, in one
	// transaction; fn may be called again. Its id, kind, tenant, client id,
	// time of creation and credentials stay. It fails with ErrUnknown or ErrTaken.
	Change(ctx context.Context, objectID string, fn func(*Object) error) (Object, error)
	Objects(ctx context.Context, q Query) ([]Object, error)
	// ObjectsByID returns those that exist, in the order of their ids.
	ObjectsByID(ctx context.Context, ids []string) ([]Object, error)
	// AddMember fails with ErrUnknown, ErrMember or ErrNoMember.
	AddMember(ctx context.Context, group, member string) error
	RemoveMember(ctx context.Context, group, member string) error
	Members(ctx context.Context, group, after string, limit int) ([]Object, error)
	// GroupsOf returns the groups that an object is in, through others as
	// well, in order, each once whatever circles they form. It fails with
	// ErrGroups for more than MaxGroups.
	GroupsOf(ctx context.Context, objectID string) ([]string, error)

	// Follow calls fn after the directory has changed, on any node, until ctx
	// ends. Its first call says that following has begun.
	Follow(ctx context.Context, fn func()) error
}
