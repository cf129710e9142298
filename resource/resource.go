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
	UID     string // random, never used twice: a name made again is another resource
	ETag    string
	Created time.Time
	Changed time.Time
	Body    Object // the whole envelope but id, name, type and etag: location, tags, sku, identity, properties, …
}

// The failures of every type.
var (
	ErrUnknown = fault.Coded(fault.NotFound, "ResourceNotFound", "the resource was not found")
	ErrStale   = fault.Coded(fault.Stale, "PreconditionFailed", "the resource has changed since it was read")
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
	Tenant   string
	May      func(action string, scope arm.ID) bool // holds a role for it now
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
	// Located says that a new resource must name a location of this
	// deployment.
	Located bool
	// Check looks at one change without I/O and returns every problem.
	Check func(c *Change) []fault.Field
	// Put brings about what comes with the change: children, addresses,
	// records, tasks. c.New is stored after it returns.
	Put func(ctx context.Context, tx Tx, c *Change) error
	// Delete refuses, or takes away what hangs on the resource. Children of
	// the id itself are deleted by the service, deepest first, each through
	// its own type.
	Delete func(ctx context.Context, tx Tx, doc Doc, by Caller) error
	// Show adds to a copy of the body what is computed on reading.
	Show func(ctx context.Context, r Reader, doc Doc, body Object) error
	// Actions are POST …/{id}/{name}; the caller needs "{Name}/{name}/action".
	Actions map[string]Action
	// NoPut and NoDelete close a verb to callers (a NIC of a private endpoint).
	NoPut, NoDelete bool
}

// Action does a POST on a resource and returns the body of the answer.
type Action func(ctx context.Context, tx Tx, doc Doc, by Caller, body Object) (Object, error)
