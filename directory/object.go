package directory

import (
	"context"
	"strings"
	"time"

	"cove.example/cove/fault"
)

// The kinds of objects. Service principals and users can be granted roles and
// sign in; a group is granted roles for its members; an application is what
// service principals are made from, and is nobody itself.
const (
	ServicePrincipal = "servicePrincipal"
	Application      = "application"
	User             = "user"
	Group            = "group"
)

// Object is anything in the directory, as Graph shows it.
type Object struct {
	Principal
	Created     time.Time
	Properties  map[string]any // what callers have set and nothing here reads
	Credentials []Credential   // its own; a service principal may use its application's too
}

// Query is one page of a list, in the order of the object ids. Empty fields
// ask for nothing. Names are compared without regard to case.
type Query struct {
	Tenant     string
	Kind       string
	AppID      string
	Name       string
	NamePrefix string
	UPN        string
	After      string // the last object id of the page before
	Limit      int
}

// Limits of the directory.
const (
	MaxPage        = 999  // as Graph
	MaxCredentials = 100  // of one object
	MaxGroups      = 2048 // that one principal is in, nested ones included
)

// The failures of changing objects.
var (
	ErrTaken       = fault.Coded(fault.Conflict, "Request_MultipleObjectsWithSameKeyValue", "an object with this id or name exists already")
	ErrMember      = fault.Coded(fault.Invalid, "Request_BadRequest", "One or more added object references already exist for the following modified properties: 'members'.")
	ErrNoMember    = fault.Coded(fault.Invalid, "Request_BadRequest", "only users, groups and service principals can be members of a group, and no group of itself")
	ErrCredentials = fault.Coded(fault.Invalid, "Request_BadRequest", "the object has as many credentials as it may have")
	ErrGroups      = fault.New(fault.Unavailable, "the principal is in more groups than can be considered")
)

// Add makes an object.
func (d *Directory) Add(ctx context.Context, o Object) error {
	defer d.changed()
	return d.store.Add(ctx, o)
}

// Change changes an object by fn, which may be called more than once and must
// leave what names the object alone. It fails with ErrUnknown, ErrTaken, or
// what fn returns.
func (d *Directory) Change(ctx context.Context, objectID string, fn func(*Object) error) (Object, error) {
	defer d.changed()
	return d.store.Change(ctx, strings.ToLower(objectID), fn)
}

// Remove takes an object away: with its credentials and memberships, and an
// application with its service principals.
func (d *Directory) Remove(ctx context.Context, objectID string) error {
	defer d.changed()
	return d.store.Delete(ctx, objectID)
}

// AddSecret gives an object a new secret, good from start until end.
func (d *Directory) AddSecret(ctx context.Context, objectID, name string, start, end time.Time) (Secret, Credential, error) {
	defer d.changed()
	secret, cred := NewSecret(name, start, end.Sub(start))
	if err := d.store.AddCredential(ctx, objectID, cred); err != nil {
		return Secret{}, Credential{}, err
	}
	return secret, cred, nil
}

// RemoveSecret ends a secret, and what was signed in with it. It fails with
// ErrUnknown.
func (d *Directory) RemoveSecret(ctx context.Context, objectID, keyID string) error {
	defer d.changed()
	return d.store.RemoveCredential(ctx, objectID, strings.ToLower(keyID))
}

// AddMember puts an object into a group. It fails with ErrUnknown, ErrMember
// or ErrNoMember.
func (d *Directory) AddMember(ctx context.Context, group, member string) error {
	defer d.changed()
	return d.store.AddMember(ctx, strings.ToLower(group), strings.ToLower(member))
}

// RemoveMember takes an object out of a group, or fails with ErrUnknown.
func (d *Directory) RemoveMember(ctx context.Context, group, member string) error {
	defer d.changed()
	return d.store.RemoveMember(ctx, strings.ToLower(group), strings.ToLower(member))
}

// Object, Objects, ObjectsByID and Members read from the store: they are for
// people who look, not for decisions.
func (d *Directory) Object(ctx context.Context, objectID string) (Object, error) {
	list, err := d.store.ObjectsByID(ctx, []string{objectID})
	if err == nil && len(list) == 0 {
		err = ErrUnknown
	}
	if err != nil {
		return Object{}, err
	}
	return list[0], nil
}

// ObjectsByID returns those of the ids that exist.
func (d *Directory) ObjectsByID(ctx context.Context, ids []string) ([]Object, error) {
	return d.store.ObjectsByID(ctx, ids)
}

// Objects returns a page.
func (d *Directory) Objects(ctx context.Context, q Query) ([]Object, error) {
	return d.store.Objects(ctx, q)
}

// Members returns a page of a group's own members, without those of groups in
// it.
func (d *Directory) Members(ctx context.Context, group, after string, limit int) ([]Object, error) {
	return d.store.Members(ctx, strings.ToLower(group), after, limit)
}

// Principal returns one who may be granted roles, or ErrUnknown.
func (d *Directory) Principal(ctx context.Context, objectID string) (Principal, error) {
	c, _, err := d.client(ctx, strings.ToLower(objectID), func() (Client, error) { return d.store.ByObject(ctx, strings.ToLower(objectID)) })
	if err != nil {
		return Principal{}, err
	}
	if c.Kind == Application {
		return Principal{}, ErrUnknown
	}
	return c.Principal, nil
}

// Groups returns the ids of all groups that a principal is in, through others
// as well, in order. The caller does not change what it gets.
func (d *Directory) Groups(ctx context.Context, objectID string) ([]string, error) {
	d.mu.RLock()
	known, ok := d.groups[objectID]
	epoch := d.epoch
	d.mu.RUnlock()
	if ok {
		return known, nil
	}
	got, err := d.store.GroupsOf(ctx, strings.ToLower(objectID))
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.live && d.epoch == epoch {
		if len(d.groups) >= maxRemembered {
			clear(d.groups)
		}
		d.groups[objectID] = got
	}
	return got, nil
}
