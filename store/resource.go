package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"sync"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

// Resources is resource.Store in the database. One process has one, since
// its hooks are called for its own commits.
//
// Each change is a row of the outbox: kind "resource", the document's key,
// "put" or "delete", and who did it.
type Resources struct {
	db *DB

	mu    sync.Mutex
	hooks []func([]arm.ID) // only ever added to
}

// NewResources returns the resources of db.
func NewResources(db *DB) *Resources { return &Resources{db: db} }

var _ resource.Store = (*Resources)(nil)

const resourceKind = "resource"

// OnCommit implements resource.Store.
func (r *Resources) OnCommit(fn func([]arm.ID)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.hooks = append(r.hooks, fn)
}

// View implements resource.Store.
func (r *Resources) View(ctx context.Context, fn func(resource.Reader) error) error {
	return r.db.View(ctx, func(tx *Tx) error { return fn(&resourceTx{tx: tx}) })
}

// Update implements resource.Store.
func (r *Resources) Update(ctx context.Context, fn func(resource.Tx) error) error {
	var changed []arm.ID
	err := r.db.Update(ctx, func(tx *Tx) error {
		t := &resourceTx{tx: tx}
		err := fn(t)
		changed = t.changed
		return err
	})
	if err != nil || len(changed) == 0 {
		return err
	}
	r.mu.Lock()
	hooks := r.hooks
	r.mu.Unlock()
	for _, fn := range hooks {
		fn(changed)
	}
	return nil
}

// Follow implements resource.Store.
func (r *Resources) Follow(ctx context.Context, fn func([]arm.ID)) error {
	return r.db.Follow(ctx, func(changes []Change) {
		var ids []arm.ID
		for _, c := range changes {
			if c.Kind != resourceKind {
				continue
			}
			if id, err := arm.ParseID(c.Key); err == nil { // what we wrote parses
				ids = append(ids, id)
			}
		}
		if len(ids) > 0 || len(changes) == 0 {
			fn(ids)
		}
	})
}

type resourceTx struct {
	tx      *Tx
	changed []arm.ID
}

const resourceColumns = `SELECT id, uid, etag, created, changed, body FROM resources `

func scanDoc(row interface{ Scan(...any) error }) (resource.Doc, error) {
	var d resource.Doc
	var id, body string
	var created, changed int64
	if err := row.Scan(&id, &d.UID, &d.ETag, &created, &changed, &body); err != nil {
		return resource.Doc{}, err
	}
	d.Created, d.Changed = Time(created), Time(changed)
	var err error
	if d.ID, err = arm.ParseID(id); err != nil {
		return resource.Doc{}, err
	}
	d.Body, err = resource.Decode([]byte(body))
	return d, err
}

// Get implements resource.Reader.
func (t *resourceTx) Get(ctx context.Context, id arm.ID) (resource.Doc, error) {
	d, err := scanDoc(t.tx.QueryRow(ctx, resourceColumns+`WHERE key = $1`, id.Key()))
	if errors.Is(err, sql.ErrNoRows) {
		return resource.Doc{}, resource.ErrUnknown
	}
	return d, err
}

// List implements resource.Reader. Its cost is what it returns, whatever else
// is stored: each of its statements is one range of one index.
func (t *resourceTx) List(ctx context.Context, q resource.Query) ([]resource.Doc, error) {
	// Every key begins with a slash; '0' is the character after it.
	from, to := "/", "0"
	if !q.Under.IsZero() {
		from, to = q.Under.Key()+"/", q.Under.Key()+"0"
	}
	from = max(from, q.After)
	limit := int64(math.MaxInt64)
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	var rows *sql.Rows
	var err error
	if q.Type == "" {
		rows, err = t.tx.Query(ctx, resourceColumns+`WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3`, from, to, limit)
	} else {
		rows, err = t.tx.Query(ctx, resourceColumns+`WHERE type = $1 AND key > $2 AND key < $3 ORDER BY key LIMIT $4`,
			strings.ToLower(q.Type), from, to, limit)
	}
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []resource.Doc
	for rows.Next() {
		d, err := scanDoc(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, rows.Err()
}

// counted are the types, in lower case, of which one parent may have tens of
// thousands. Every other kind of child is counted by reading an index: a count
// that each change must write makes changes wait for each other.
var counted = []string{
	"microsoft.containerregistry/registries/tokens", "microsoft.containerregistry/registries/scopemaps",
	"microsoft.network/privatednszones/a", "microsoft.network/privatednszones/aaaa", "microsoft.network/privatednszones/cname",
	"microsoft.network/privatednszones/mx", "microsoft.network/privatednszones/ptr", "microsoft.network/privatednszones/srv", "microsoft.network/privatednszones/txt",
}

// Count implements resource.Reader.
func (t *resourceTx) Count(ctx context.Context, typ string, parent arm.ID) (n int64, err error) {
	typ = strings.ToLower(typ)
	if !slices.Contains(counted, typ) {
		err = t.tx.QueryRow(ctx, `SELECT COUNT(*) FROM resources WHERE type = $1 AND key > $2 AND key < $3`, typ, parent.Key()+"/", parent.Key()+"0").Scan(&n)
		return n, err
	}
	err = t.tx.QueryRow(ctx, `SELECT n FROM resource_counts WHERE collection = $1`, parent.Key()+typ[strings.LastIndexByte(typ, '/'):]+"/").Scan(&n)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return n, err
}

// count notes that there is one more, or one less, of what id is.
func (t *resourceTx) count(ctx context.Context, id arm.ID, by int) error {
	if !slices.Contains(counted, strings.ToLower(id.Type())) {
		return nil
	}
	key := id.Key()
	_, err := t.tx.Exec(ctx, `INSERT INTO resource_counts (collection, n) VALUES ($1, $2)
		ON CONFLICT (collection) DO UPDATE SET n = resource_counts.n + excluded.n`, key[:strings.LastIndexByte(key, '/')+1], by)
	return err
}

// Put implements resource.Tx. A document that is there keeps its UID and its
// time of creation, whatever doc says.
func (t *resourceTx) Put(ctx context.Context, doc *resource.Doc) error {
	body, err := resource.Encode(doc.Body)
	if err != nil {
		return err
	}
	if slices.Contains(counted, strings.ToLower(doc.ID.Type())) {
		var there int
		err := t.tx.QueryRow(ctx, `SELECT 1 FROM resources WHERE key = $1`, doc.ID.Key()).Scan(&there)
		if errors.Is(err, sql.ErrNoRows) {
			err = t.count(ctx, doc.ID, 1)
		}
		if err != nil {
			return err
		}
	}
	if doc.UID == "" {
		doc.UID = rand.Text()
	}
	doc.ETag, doc.Changed = rand.Text(), t.tx.Now()
	var created int64
	err = t.tx.QueryRow(ctx, `INSERT INTO resources (key, id, type, uid, etag, created, changed, body)
		VALUES ($1, $2, $3, $4, $5, $6, $6, $7)
		ON CONFLICT (key) DO UPDATE SET id = excluded.id, etag = excluded.etag, changed = excluded.changed, body = excluded.body
		RETURNING uid, created`,
		doc.ID.Key(), doc.ID.String(), strings.ToLower(doc.ID.Type()), doc.UID, doc.ETag, Micros(doc.Changed), string(body)).Scan(&doc.UID, &created)
	if err != nil {
		return err
	}
	doc.Created = Time(created)
	v, err := docVersion(doc)
	if err != nil {
		return err
	}
	return t.record(ctx, doc.ID, "put", v)
}

// Delete implements resource.Tx.
func (t *resourceTx) Delete(ctx context.Context, id arm.ID) error {
	res, err := t.tx.Exec(ctx, `DELETE FROM resources WHERE key = $1`, id.Key())
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	if err := t.count(ctx, id, -1); err != nil {
		return err
	}
	return t.record(ctx, id, "delete", goneVersion(id))
}

func (t *resourceTx) record(ctx context.Context, id arm.ID, op string, v *version) error {
	detail, err := actor(ctx)
	if err != nil {
		return err
	}
	t.changed = append(t.changed, id)
	return t.tx.record(ctx, Change{Kind: resourceKind, Key: id.Key(), Op: op, Detail: detail}, v)
}

// actor is who makes the changes of ctx, as the outbox keeps it.
func actor(ctx context.Context) ([]byte, error) {
	by, request := resource.Actor(ctx)
	return json.Marshal(struct {
		By      string `json:"by,omitempty"` // the principal; none is the server itself
		Request string `json:"request,omitempty"`
	}{by, request})
}

// Enqueue implements resource.Tx.
func (t *resourceTx) Enqueue(ctx context.Context, n task.New) error { return t.tx.Enqueue(ctx, n) }
