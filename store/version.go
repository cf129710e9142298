package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/directory"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// versioned are the types, in lower case, whose documents decide who may do
// what to a repository, and from where.
var versioned = []string{
	"microsoft.authorization/roleassignments", "microsoft.authorization/roledefinitions",
	"microsoft.containerregistry/registries", "microsoft.containerregistry/registries/privateendpointconnections",
	"microsoft.containerregistry/registries/scopemaps", "microsoft.containerregistry/registries/tokens",
	"microsoft.network/privateendpoints", "microsoft.network/virtualnetworks/subnets",
}

// The directory's versions: a principal by its object id, and a membership by
// the group's and the member's, of which id and uid are the two.
const (
	principalVersion = "directory/principal"
	memberVersion    = "directory/member"
)

// keptParts of a document, and keptOwn of what is cove's own in it, are what a
// version keeps. What somebody adds there later is not kept until it is named
// here, so that no secret, sealed or hashed, outlives its end in the history.
var (
	keptParts = []string{"identity", "location", "properties", "sku"}
	keptOwn   = []string{"connection", "everPrivate", "modes", "regions", "tenant", "unrouted"}
)

func keptBody(body resource.Object) ([]byte, error) {
	kept := resource.Object{}
	for _, part := range keptParts {
		if v, ok := body[part]; ok {
			kept[part] = v
		}
	}
	if own, _ := body["cove"].(resource.Object); own != nil {
		own = maps.Clone(own)
		maps.DeleteFunc(own, func(name string, _ any) bool { return !slices.Contains(keptOwn, name) })
		kept["cove"] = own
	}
	return resource.Encode(kept)
}

// version is one row of versions.
type version struct {
	key, typ, id, uid string
	body              []byte
	gone              bool
}

func (tx *Tx) remember(ctx context.Context, v version) error {
	_, err := tx.Exec(ctx, `INSERT INTO versions (key, type, time, id, uid, body, gone) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		v.key, v.typ, Micros(tx.now), v.id, v.uid, string(v.body), flag(v.gone))
	return err
}

// docVersion is what doc is from now on, nil where its type has no say about
// access.
func docVersion(doc *resource.Doc) (*version, error) {
	typ := strings.ToLower(doc.ID.Type())
	if !slices.Contains(versioned, typ) {
		return nil, nil
	}
	body, err := keptBody(doc.Body)
	return &version{key: doc.ID.Key(), typ: typ, id: doc.ID.String(), uid: doc.UID, body: body}, err
}

// goneVersion says that there is no document of that id from now on.
func goneVersion(id arm.ID) *version {
	typ := strings.ToLower(id.Type())
	if !slices.Contains(versioned, typ) {
		return nil
	}
	return &version{key: id.Key(), typ: typ, id: id.String(), gone: true}
}

const principalColumns = `SELECT object_id, tenant, kind, app_id, name, upn, disabled, managed FROM principals `

func scanPrincipal(row interface{ Scan(...any) error }) (p directory.Principal, err error) {
	var disabled int64
	err = row.Scan(&p.ObjectID, &p.Tenant, &p.Kind, &p.AppID, &p.Name, &p.UPN, &disabled, &p.Managed)
	p.Disabled = disabled != 0
	return p, err
}

func principalOf(p directory.Principal) (version, error) {
	body, err := json.Marshal(p)
	return version{key: p.ObjectID, typ: principalVersion, id: p.ObjectID, uid: p.ObjectID, body: body}, err
}

// rememberPrincipal keeps what a principal is from now on; an id that is no
// principal's, such as a subscription's, is none of its business.
func (tx *Tx) rememberPrincipal(ctx context.Context, objectID string) error {
	p, err := scanPrincipal(tx.QueryRow(ctx, principalColumns+`WHERE object_id = $1`, lower(objectID)))
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	v, err := principalOf(p)
	if err != nil {
		return err
	}
	return tx.remember(ctx, v)
}

func memberOf(group, member string, gone bool) version {
	return version{key: group + "/" + member, typ: memberVersion, id: group, uid: member, gone: gone}
}

// rememberLeft keeps that an object, and whoever was in it, is in no group and
// has no members from now on. It is asked before the memberships are deleted.
func (tx *Tx) rememberLeft(ctx context.Context, objectID string) error {
	_, err := tx.Exec(ctx, `INSERT INTO versions (key, type, time, id, uid, body, gone)
		SELECT group_id || '/' || member_id, CAST($1 AS TEXT), CAST($2 AS BIGINT), group_id, member_id, '', 1 FROM group_members WHERE group_id = $3 OR member_id = $4`,
		memberVersion, Micros(tx.now), objectID, objectID)
	return err
}

// beginHistory writes down what there is, once in the life of a database. What
// a node changes meanwhile is newer than all of it.
func (db *DB) beginHistory(ctx context.Context) error {
	var began int64
	err := db.View(ctx, func(tx *Tx) error { return tx.QueryRow(ctx, `SELECT began FROM history WHERE id = 1`).Scan(&began) })
	if err != nil || began != 0 {
		return err
	}
	return db.Update(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(ctx, `UPDATE history SET began = $1 WHERE id = 1 AND began = 0`, Micros(tx.now)))
		if err != nil || n == 0 {
			return err
		}
		var found []version
		for _, typ := range versioned {
			err := tx.each(ctx, func(rows *sql.Rows) error {
				doc, err := scanDoc(rows)
				if err != nil {
					return err
				}
				v, err := docVersion(&doc)
				if err == nil {
					found = append(found, *v)
				}
				return err
			}, resourceColumns+`WHERE type = $1 ORDER BY key`, typ)
			if err != nil {
				return err
			}
		}
		err = tx.each(ctx, func(rows *sql.Rows) error {
			p, err := scanPrincipal(rows)
			if err != nil {
				return err
			}
			v, err := principalOf(p)
			found = append(found, v)
			return err
		}, principalColumns+`ORDER BY object_id`)
		if err != nil {
			return err
		}
		err = tx.each(ctx, func(rows *sql.Rows) error {
			var group, member string
			err := rows.Scan(&group, &member)
			found = append(found, memberOf(group, member, false))
			return err
		}, `SELECT group_id, member_id FROM group_members ORDER BY group_id, member_id`)
		if err != nil {
			return err
		}
		for i, v := range found {
			if _, err := tx.Exec(ctx, `INSERT INTO versions (seq, key, type, time, id, uid, body, gone) VALUES ($1, $2, $3, 0, $4, $5, $6, 0)`,
				i-len(found), v.key, v.typ, v.id, v.uid, string(v.body)); err != nil {
				return err
			}
		}
		return nil
	})
}

// TrimHistory ends the history before a time: it deletes at most limit versions
// that no question about that time or later needs, and returns how many. More
// may be left when it is limit.
func (db *DB) TrimHistory(ctx context.Context, before time.Time, limit int) (n int64, err error) {
	err = db.update(ctx, mode{relaxed: true, readCommitted: true}, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE history SET began = $1 WHERE id = 1 AND began <> 0 AND began < $2`, Micros(before), Micros(before)); err != nil {
			return err
		}
		// A deletion goes after what it ended, or that would be there again.
		n, err = affected(tx.Exec(ctx, `DELETE FROM versions WHERE seq IN (
			SELECT v.seq FROM versions v WHERE v.time < $1 AND (
				EXISTS (SELECT 1 FROM versions n WHERE n.type = v.type AND n.key = v.key AND n.seq > v.seq AND n.time < $2)
				OR v.gone = 1 AND NOT EXISTS (SELECT 1 FROM versions o WHERE o.type = v.type AND o.key = v.key AND o.seq < v.seq))
			LIMIT $3)`, Micros(before), Micros(before), limit))
		return err
	})
	return n, err
}

// Past is what decided about access at a moment: the documents of the types
// that do, without secrets, and the directory.
type Past struct {
	// Store has the reads that a decision needs, and no others: what else a
	// directory does cannot be done to the past.
	directory.Store
	db *DB
	at time.Time
}

// AsOf returns the past of a moment. Its reads fail with fault.Invalid where
// the history began later.
func (db *DB) AsOf(at time.Time) *Past { return &Past{db: db, at: at} }

// each reads versions that held at the moment; where is about v, from $3 on.
func (p *Past) each(ctx context.Context, tx *Tx, typ, where string, fn func(*version) error, args ...any) error {
	var began int64
	if err := tx.QueryRow(ctx, `SELECT began FROM history WHERE id = 1`).Scan(&began); err != nil {
		return err
	}
	at := Micros(p.at)
	if at < began {
		return fault.Newf(fault.Invalid, "the history of access begins at %s: what was before it is not known", Time(began).UTC().Format(time.RFC3339))
	}
	return tx.each(ctx, func(rows *sql.Rows) error {
		v := version{typ: typ}
		var body string
		if err := rows.Scan(&v.key, &v.id, &v.uid, &body); err != nil {
			return err
		}
		v.body = []byte(body)
		return fn(&v)
	}, `SELECT v.key, v.id, v.uid, v.body FROM versions v WHERE v.type = $1 AND v.time <= $2 AND v.gone = 0
		AND NOT EXISTS (SELECT 1 FROM versions n WHERE n.type = v.type AND n.key = v.key AND n.seq > v.seq AND n.time <= $2) `+where,
		append([]any{typ, at}, args...)...)
}

// View runs fn on the documents of the moment.
func (p *Past) View(ctx context.Context, fn func(resource.Reader) error) error {
	return p.db.View(ctx, func(tx *Tx) error { return fn(&pastReader{p, tx}) })
}

type pastReader struct {
	*Past
	tx *Tx
}

// kept fails for what has no history: "there was none" would be a guess.
func kept(typ string) error {
	if !slices.Contains(versioned, strings.ToLower(typ)) {
		return fmt.Errorf("store: past versions of %q are not kept", typ)
	}
	return nil
}

func (v *version) doc() (d resource.Doc, err error) {
	d.UID = v.uid
	if d.ID, err = arm.ParseID(v.id); err != nil {
		return d, err
	}
	d.Body, err = resource.Decode(v.body)
	return d, err
}

// Get implements resource.Reader. The document has neither ETag nor times.
func (r *pastReader) Get(ctx context.Context, id arm.ID) (out resource.Doc, err error) {
	if err := kept(id.Type()); err != nil {
		return out, err
	}
	found := false
	err = r.each(ctx, r.tx, strings.ToLower(id.Type()), `AND v.key = $3`, func(v *version) (err error) {
		found = true
		out, err = v.doc()
		return err
	}, id.Key())
	if err == nil && !found {
		err = resource.ErrUnknown
	}
	return out, err
}

// List implements resource.Reader, for one type.
func (r *pastReader) List(ctx context.Context, q resource.Query) (list []resource.Doc, err error) {
	if err := kept(q.Type); err != nil {
		return nil, err
	}
	from, to := "/", "0"
	if !q.Under.IsZero() {
		from, to = q.Under.Key()+"/", q.Under.Key()+"0"
	}
	limit := int64(math.MaxInt64)
	if q.Limit > 0 {
		limit = int64(q.Limit)
	}
	err = r.each(ctx, r.tx, strings.ToLower(q.Type), `AND v.key > $3 AND v.key < $4 ORDER BY v.key LIMIT $5`, func(v *version) error {
		d, err := v.doc()
		list = append(list, d)
		return err
	}, max(from, q.After), to, limit)
	return list, err
}

// Count implements resource.Reader.
func (r *pastReader) Count(ctx context.Context, typ string, parent arm.ID) (int64, error) {
	list, err := r.List(ctx, resource.Query{Type: typ, Under: parent})
	return int64(len(list)), err
}

// Subscriptions implements directory.Store: they are never changed.
func (p *Past) Subscriptions(ctx context.Context) ([]directory.Subscription, error) {
	return NewIdentity(p.db).Subscriptions(ctx)
}

// ByObject implements directory.Store, without credentials.
func (p *Past) ByObject(ctx context.Context, objectID string) (c directory.Client, err error) {
	found := false
	err = p.db.View(ctx, func(tx *Tx) error {
		return p.each(ctx, tx, principalVersion, `AND v.key = $3`, func(v *version) error {
			found = true
			return json.Unmarshal(v.body, &c.Principal)
		}, lower(objectID))
	})
	if err == nil && !found {
		err = directory.ErrUnknown
	}
	return c, err
}

// GroupsOf implements directory.Store.
func (p *Past) GroupsOf(ctx context.Context, objectID string) ([]string, error) {
	seen := map[string]bool{}
	err := p.db.View(ctx, func(tx *Tx) error {
		clear(seen)
		for next := []string{lower(objectID)}; len(next) > 0; next = next[1:] {
			err := p.each(ctx, tx, memberVersion, `AND v.uid = $3`, func(v *version) error {
				if !seen[v.id] {
					seen[v.id] = true
					next = append(next, v.id)
				}
				return nil
			}, next[0])
			if err != nil {
				return err
			}
			if len(seen) > directory.MaxGroups {
				return directory.ErrGroups
			}
		}
		return nil
	})
	return slices.Sorted(maps.Keys(seen)), err
}

// Members implements directory.Store, without credentials and properties.
func (p *Past) Members(ctx context.Context, group, after string, limit int) ([]directory.Object, error) {
	var ids []string
	err := p.db.View(ctx, func(tx *Tx) error {
		ids = nil
		return p.each(ctx, tx, memberVersion, `AND v.key > $3 AND v.key < $4 ORDER BY v.key LIMIT $5`, func(v *version) error {
			ids = append(ids, v.uid)
			return nil
		}, lower(group)+"/"+lower(after), lower(group)+"0", limit)
	})
	if err != nil {
		return nil, err
	}
	var list []directory.Object
	for _, id := range ids {
		c, err := p.ByObject(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, directory.Object{Principal: c.Principal})
	}
	return list, nil
}
