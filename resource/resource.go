// Package resource keeps ARM resources as documents: an id, a type, an ETag
// and a JSON object whose unknown properties survive.
//
// A resource type is an entry in a table: what of it is read-only, how it is
// checked, what changes with it. One generic service does the rest, so that a
// type costs a page and behaves like every other.
package resource

import (
	"context"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/task"
)

// Object is a JSON object. Numbers are json.Number, so that what a client
// sent is what it gets back.
type Object = map[string]any

// Doc is one resource as it is stored.
type Doc struct {
	ID      arm.ID
	UID     string // random, never used twice: a name made again is another resource; set before a type's Check
	ETag    string
	Created time.Time
	Changed time.Time
	Body    Object // the whole envelope but id, name, type and etag: location, tags, sku, identity, properties, …
}

// The failures of every type.
var (
	ErrUnknown = fault.Coded(fault.NotFound, "ResourceNotFound", "the resource was not found")
	ErrStale   = fault.Coded(fault.Stale, "PreconditionFailed", "the resource has changed since it was read")
	ErrNested  = fault.Coded(fault.Conflict, "CannotDeleteResource", "cannot delete resource while nested resources exist")
)

// Query selects documents. All that is set must hold.
type Query struct {
	Type  string // full type name, any case; "" is any
	Under arm.ID // the scope: a subscription, a group, or a parent resource; zero is all
	After string // Key of the last id of the page before; "" is the beginning
	Limit int    // 0 is no limit; for callers inside the server only
}

// Reader reads documents as of one moment.
type Reader interface {
	// Get returns the document, or an error that is ErrUnknown. The caller
	// owns what it gets.
	Get(ctx context.Context, id arm.ID) (Doc, error)
	// List returns documents in the order of their keys.
	List(ctx context.Context, q Query) ([]Doc, error)
	// Count returns how many children of a type, any case, a parent has; it
	// reads none of them.
	Count(ctx context.Context, typ string, parent arm.ID) (int64, error)
}

// Tx is a transaction: everything in it happens, or nothing. Its function may
// be run again after a conflict, so it must have no effect of its own.
type Tx interface {
	Reader
	// Put writes doc, sets its ETag and Changed (and UID and Created of a new
	// one), and writes the outbox row.
	Put(ctx context.Context, doc *Doc) error
	// Delete removes that one document; deleting what is absent is no error.
	Delete(ctx context.Context, id arm.ID) error
	// Enqueue makes a task that exists when the transaction is committed.
	Enqueue(ctx context.Context, t task.New) error
}

// Store is where documents are kept; store implements it.
type Store interface {
	View(ctx context.Context, fn func(Reader) error) error
	// Update commits durably before it returns nil.
	Update(ctx context.Context, fn func(Tx) error) error
	// Follow calls fn with the ids of documents that changed, in commit
	// order, batched, from now on, until ctx ends. It begins with one call
	// with no ids: the moment from which nothing is missed.
	Follow(ctx context.Context, fn func(ids []arm.ID)) error
	// OnCommit has fn called after every commit of this process, before its
	// Update returns, with the ids of what changed: whoever waits for the
	// answer to a PUT finds it obeyed. fn must be quick and do no I/O.
	OnCommit(fn func(ids []arm.ID))
}

// Change is a PUT or PATCH on its way through a type.
type Change struct {
	Old    *Doc // nil when the resource is new
	New    *Doc // what will be stored; a type may fill in what it computes
	Caller Caller
	Now    time.Time
}

// Caller is who asks, as the control plane knows them.
type Caller struct {
	ObjectID string // the principal
	Name     string // for people: the application id or user name
	Tenant   string
	// Credential is what the caller has signed in with, as directory.Standing
	// takes it: work that goes on after the answer ends with it.
	Credential string
	Request    string                                 // correlation id of the request that this is, "" for none
	May        func(action string, scope arm.ID) bool // holds a role for it now
	Holds      func(scope arm.ID) bool                // holds any role at the scope or below it now; nil is none
	// MayData is May for a data action on one repository of the registry that
	// scope is; nil is never.
	MayData func(action string, scope arm.ID, repository string) bool
}

type actor struct{}

// As returns a context in which changes are recorded as by's. The service sets
// it; a change without one is recorded as the server's own.
func As(ctx context.Context, by Caller) context.Context {
	return context.WithValue(ctx, actor{}, [2]string{by.ObjectID, by.Request})
}

// Actor is the object id of who changes things in ctx and the correlation id of
// their request, "" for the server.
func Actor(ctx context.Context) (id, request string) {
	by, _ := ctx.Value(actor{}).([2]string)
	return by[0], by[1]
}

// Type is one row of the table of resource types.
type Type struct {
	// Name is the full type as ARM spells it.
	Name string
	// ReadOnly are dotted paths below the body that callers cannot set: on
	// the way in they are dropped and the stored value stays.
	ReadOnly []string
	// Secret are dotted paths that are never shown.
	Secret []string
	// Whole are dotted paths of maps that a PATCH replaces as it does tags.
	Whole []string
	// Unique says that a name may be taken once in the whole deployment,
	// not only once under its parent; the second to ask gets ErrTaken.
	Unique bool
	// CheckName says what is wrong with a name, "" for nothing. Nil is the
	// rule that most of ARM has: 1 to 80 letters, digits, - _ . and ( ),
	// not ending in a dot.
	CheckName func(name string) string
	// Missing is the failure of reading one that does not exist, where ARM has
	// a code of its own for it; nil is ErrUnknown.
	Missing *fault.Error
	// Extension says that it may lie under any resource, group or
	// subscription (a role assignment); other types that are nobody's child
	// lie in a resource group.
	Extension bool
	// Located says that a new resource must name a location of this
	// deployment.
	Located bool
	// MadeIsOK says that a PUT which makes one is not told from one that changes
	// it: az takes 200 and nothing else from diagnostic settings.
	MadeIsOK bool
	// Prepare looks at a PUT before its transaction begins: at what is kept
	// elsewhere, which a transaction must not wait for. It may fill in the body,
	// whose shape nobody has checked yet. Nil is nothing to look at.
	Prepare func(ctx context.Context, id arm.ID, body Object) error
	// Check looks at one change without I/O and returns every problem.
	Check func(c *Change) []fault.Field
	// Put brings about what comes with the change: children, addresses,
	// records, tasks. c.New is stored after it returns.
	Put func(ctx context.Context, tx Tx, c *Change) error
	// Delete refuses, or takes away what hangs on the resource. Children of
	// the id itself are deleted by the service, deepest first, each through
	// its own type. It must refuse before it writes: in a cascade a resource
	// refused with fault.Conflict is tried again after its users have gone.
	Delete func(ctx context.Context, tx Tx, doc Doc, by Caller) error
	// Show adds to a copy of the body what is computed on reading.
	Show func(ctx context.Context, r Reader, doc Doc, body Object) error
	// Actions are POST …/{id}/{name}; the caller needs "{Name}/{name}/action",
	// or what Needs has for the name.
	Actions map[string]Action
	// Long are actions that go on after their answer.
	Long map[string]Long
	// Needs is the permission of an action that Azure has under another name
	// (Service.ActionName answers with it).
	Needs map[string]string
	// Computed are GET …/{id}/{name}, lists of what is worked out when asked
	// for (a registry's usages); the caller needs "{Name}/{name}/read".
	Computed map[string]Computed
	// Fixed are the documents of this type that every parent has without
	// their being stored (a registry's system scope maps). They are read and
	// listed below their parent, and never written. Nil is none.
	Fixed func(parent Doc) []Doc
	// NoPut and NoDelete close a verb to callers (a NIC of a private endpoint).
	NoPut, NoDelete bool
	// Pins says that a DELETE of the parent itself is refused while one of
	// these exists, with ErrNested; deleting the group takes both (ARM: a
	// tracked child such as a zone's link to a virtual network).
	Pins bool
}

// Action does a POST on a resource and returns the body of the answer.
type Action func(ctx context.Context, tx Tx, doc Doc, by Caller, body Object) (Object, error)

// Computed works out a list. Its items are shown as they are; those that have
// a name can be asked for one by one.
type Computed func(ctx context.Context, r Reader, doc Doc) ([]Object, error)
