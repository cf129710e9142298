package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"cove.example/cove/directory"
	"cove.example/cove/resource"
)

// Identity is directory.Store in the database.
//
// Each change is a row of the outbox: kind "directory", the principal's or
// tenant's id, "put" or "delete".
type Identity struct{ db *DB }

// NewIdentity returns the directory of db.
func NewIdentity(db *DB) *Identity { return &Identity{db} }

var _ directory.Store = (*Identity)(nil)

const directoryKind = "directory"

// Tenants implements directory.Store.
func (s *Identity) Tenants(ctx context.Context) (list []directory.Tenant, err error) {
	err = s.db.View(ctx, func(tx *Tx) error {
		list = nil
		return tx.each(ctx, func(rows *sql.Rows) error {
			var t directory.Tenant
			err := rows.Scan(&t.ID, &t.Name)
			list = append(list, t)
			return err
		}, `SELECT id, name FROM tenants ORDER BY id`)
	})
	return list, err
}

// Subscriptions implements directory.Store.
func (s *Identity) Subscriptions(ctx context.Context) (list []directory.Subscription, err error) {
	err = s.db.View(ctx, func(tx *Tx) error {
		list = nil
		return tx.each(ctx, func(rows *sql.Rows) error {
			var t directory.Subscription
			err := rows.Scan(&t.ID, &t.Tenant, &t.Name)
			list = append(list, t)
			return err
		}, `SELECT id, tenant, name FROM subscriptions ORDER BY created, id`)
	})
	return list, err
}

// Found implements directory.Store.
func (s *Identity) Found(ctx context.Context, t directory.Tenant, sub directory.Subscription, c directory.Client) (done bool, err error) {
	err = s.db.Update(ctx, func(tx *Tx) error {
		done = false
		var n int
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM tenants`).Scan(&n); err != nil || n > 0 {
			return err
		}
		now := Micros(tx.Now())
		if _, err := tx.Exec(ctx, `INSERT INTO tenants (id, name, created) VALUES ($1, $2, $3)`, lower(t.ID), t.Name, now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO subscriptions (id, tenant, name, created) VALUES ($1, $2, $3, $4)`,
			lower(sub.ID), lower(sub.Tenant), sub.Name, now); err != nil {
			return err
		}
		done = true
		return addObject(ctx, tx, directory.Object{Principal: c.Principal, Credentials: c.Credentials})
	})
	return done && err == nil, err
}

// Create implements directory.Store.
func (s *Identity) Create(ctx context.Context, c directory.Client) error {
	return s.Add(ctx, directory.Object{Principal: c.Principal, Credentials: c.Credentials})
}

// Delete implements directory.Store.
func (s *Identity) Delete(ctx context.Context, objectID string) error {
	return s.db.Update(ctx, func(tx *Tx) error { return deleteObject(ctx, tx, objectID) })
}

func deleteObject(ctx context.Context, tx *Tx, objectID string) error {
	ids := []string{lower(objectID)}
	err := tx.each(ctx, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		ids = append(ids, id)
		return err
	}, `SELECT p.object_id FROM principals a JOIN principals p ON p.app_id = a.app_id AND p.kind = $1
			WHERE a.object_id = $2 AND a.kind = $3 AND a.app_id <> ''`, directory.ServicePrincipal, ids[0], directory.Application)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if err := tx.rememberLeft(ctx, id); err != nil {
			return err
		}
		for _, q := range []string{
			`DELETE FROM credentials WHERE object_id = $1`, `DELETE FROM principals WHERE object_id = $1`,
			`DELETE FROM group_members WHERE group_id = $1`, `DELETE FROM group_members WHERE member_id = $1`,
		} {
			if _, err := tx.Exec(ctx, q, id); err != nil {
				return err
			}
		}
		if err := directoryChanged(ctx, tx, id, "delete"); err != nil {
			return err
		}
	}
	return nil
}

// ByApp implements directory.Store.
func (s *Identity) ByApp(ctx context.Context, appID string) (directory.Client, error) {
	if appID == "" { // what principals without a client id have
		return directory.Client{}, directory.ErrUnknown
	}
	return s.client(ctx, `WHERE kind = 'servicePrincipal' AND app_id = $1`, appID)
}

// ByUPN implements directory.Store.
func (s *Identity) ByUPN(ctx context.Context, upn string) (directory.Client, error) {
	if upn == "" {
		return directory.Client{}, directory.ErrUnknown
	}
	return s.client(ctx, `WHERE kind = 'user' AND upn = $1`, upn)
}

// ByObject implements directory.Store.
func (s *Identity) ByObject(ctx context.Context, objectID string) (directory.Client, error) {
	return s.client(ctx, `WHERE object_id = $1`, objectID)
}

func (s *Identity) client(ctx context.Context, where, id string) (c directory.Client, err error) {
	err = s.db.View(ctx, func(tx *Tx) error {
		c = directory.Client{}
		var disabled int64
		err := tx.QueryRow(ctx, `SELECT object_id, tenant, kind, app_id, name, upn, disabled, managed FROM principals `+where, lower(id)).
			Scan(&c.ObjectID, &c.Tenant, &c.Kind, &c.AppID, &c.Name, &c.UPN, &disabled, &c.Managed)
		if errors.Is(err, sql.ErrNoRows) {
			return directory.ErrUnknown
		}
		if err != nil {
			return err
		}
		c.Disabled = disabled != 0
		// A service principal signs in with its application's secrets too.
		creds, err := credentials(ctx, tx, `object_id = $1 OR object_id IN (SELECT object_id FROM principals WHERE kind = 'application' AND app_id = $2 AND app_id <> '')`, c.ObjectID, c.AppID)
		for _, list := range creds {
			c.Credentials = append(c.Credentials, list...)
		}
		return err
	})
	return c, err
}

// SetDisabled implements directory.Store.
func (s *Identity) SetDisabled(ctx context.Context, objectID string, disabled bool) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(ctx, `UPDATE principals SET disabled = $1 WHERE object_id = $2`, flag(disabled), lower(objectID)))
		if err != nil {
			return err
		}
		if n == 0 {
			return directory.ErrUnknown
		}
		return directoryChanged(ctx, tx, objectID, "put")
	})
}

// AddCredential implements directory.Store.
func (s *Identity) AddCredential(ctx context.Context, objectID string, c directory.Credential) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		// The row is written, not only read: two transactions on PostgreSQL
		// that add to and delete a principal at once cannot both succeed.
		n, err := affected(tx.Exec(ctx, `UPDATE principals SET disabled = disabled WHERE object_id = $1`, lower(objectID)))
		if err != nil {
			return err
		}
		if n == 0 {
			return directory.ErrUnknown
		}
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM credentials WHERE object_id = $1 AND kind = $2`, lower(objectID), c.Kind).Scan(&n); err != nil {
			return err
		}
		if n >= int64(c.Kind.Most()) {
			return directory.ErrCredentials
		}
		if err := addCredential(ctx, tx, objectID, c); err != nil {
			return err
		}
		return directoryChanged(ctx, tx, objectID, "put")
	})
}

func addCredential(ctx context.Context, tx *Tx, objectID string, c directory.Credential) error {
	data := c.Data
	if data == nil {
		data = []byte{}
	}
	n, err := affected(tx.Exec(ctx, `INSERT INTO credentials (key_id, object_id, kind, name, hint, hash, data, starts, ends)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
		c.KeyID, lower(objectID), c.Kind, c.Name, c.Hint, c.Hash[:], data, Micros(c.Start), Micros(c.End)))
	if err == nil && n == 0 {
		return directory.ErrTaken
	}
	return err
}

// RemoveCredential implements directory.Store.
func (s *Identity) RemoveCredential(ctx context.Context, objectID, keyID string) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(ctx, `DELETE FROM credentials WHERE object_id = $1 AND key_id = $2`, lower(objectID), keyID))
		if err != nil {
			return err
		}
		if n == 0 {
			return directory.ErrUnknown
		}
		return directoryChanged(ctx, tx, objectID, "put")
	})
}

// ChangeCredentials implements directory.Store.
func (s *Identity) ChangeCredentials(ctx context.Context, objectID string, kind directory.CredentialKind, fn func([]directory.Credential) ([]directory.Credential, error)) error {
	return s.db.Update(ctx, func(tx *Tx) error { return changeCredentials(ctx, tx, objectID, kind, fn) })
}

func changeCredentials(ctx context.Context, tx *Tx, objectID string, kind directory.CredentialKind, fn func([]directory.Credential) ([]directory.Credential, error)) error {
	n, err := affected(tx.Exec(ctx, `UPDATE principals SET disabled = disabled WHERE object_id = $1`, lower(objectID)))
	if err != nil {
		return err
	}
	if n == 0 {
		return directory.ErrUnknown
	}
	old, err := credentials(ctx, tx, `object_id = $1 AND kind = $2`, lower(objectID), kind)
	if err != nil {
		return err
	}
	next, err := fn(old[lower(objectID)])
	if err != nil {
		return err
	}
	if len(next) > kind.Most() {
		return directory.ErrCredentials
	}
	if _, err := tx.Exec(ctx, `DELETE FROM credentials WHERE object_id = $1 AND kind = $2`, lower(objectID), kind); err != nil {
		return err
	}
	for _, c := range next {
		c.Kind = kind
		if err := addCredential(ctx, tx, objectID, c); err != nil {
			return err
		}
	}
	return directoryChanged(ctx, tx, objectID, "put")
}

// AddIn is Add in a transaction of the resources': a resource and the principal
// that it has come and go together.
func (s *Identity) AddIn(ctx context.Context, tx resource.Tx, o directory.Object) error {
	return s.in(tx, func(tx *Tx) error { return addObject(ctx, tx, o) })
}

// RemoveIn is Delete in a transaction of the resources'.
func (s *Identity) RemoveIn(ctx context.Context, tx resource.Tx, objectID string) error {
	return s.in(tx, func(tx *Tx) error { return deleteObject(ctx, tx, objectID) })
}

// ChangeCredentialsIn is ChangeCredentials in a transaction of the resources'.
func (s *Identity) ChangeCredentialsIn(ctx context.Context, tx resource.Tx, objectID string, kind directory.CredentialKind, fn func([]directory.Credential) ([]directory.Credential, error)) error {
	return s.in(tx, func(tx *Tx) error { return changeCredentials(ctx, tx, objectID, kind, fn) })
}

// in runs fn in the transaction below tx, which is of this database.
func (s *Identity) in(tx resource.Tx, fn func(*Tx) error) error {
	t, ok := tx.(*resourceTx)
	if !ok {
		return errors.New("store: the transaction is not one of this database")
	}
	return fn(t.tx)
}

// Follow implements directory.Store.
func (s *Identity) Follow(ctx context.Context, fn func()) error {
	return s.db.followKind(ctx, directoryKind, fn)
}

// followKind calls fn once when following has begun, and after every batch of
// changes that holds one of the kind.
func (db *DB) followKind(ctx context.Context, kind string, fn func()) error {
	return db.Follow(ctx, func(changes []Change) {
		if len(changes) == 0 {
			fn()
			return
		}
		for _, c := range changes {
			if c.Kind == kind {
				fn()
				return
			}
		}
	})
}

// directoryChanged is the change's audit record: what, and by whom; and keeps
// what the object is from now on.
func directoryChanged(ctx context.Context, tx *Tx, objectID, op string) error {
	detail, err := actor(ctx)
	if err != nil {
		return err
	}
	if op == "delete" {
		err = tx.remember(ctx, version{key: lower(objectID), typ: principalVersion, id: lower(objectID), uid: lower(objectID), gone: true})
	} else {
		err = tx.rememberPrincipal(ctx, objectID)
	}
	if err != nil {
		return err
	}
	return tx.Record(ctx, Change{Kind: directoryKind, Key: lower(objectID), Op: op, Detail: detail})
}

// each runs a query and fn on every row of its answer.
func (tx *Tx) each(ctx context.Context, fn func(*sql.Rows) error, q string, args ...any) error {
	rows, err := tx.Query(ctx, q, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

func affected(r sql.Result, err error) (int64, error) {
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

func lower(id string) string { return strings.ToLower(id) }

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}
