package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"cove.example/cove/directory"
	"cove.example/cove/resource"
)

// Add implements directory.Store.
func (s *Identity) Add(ctx context.Context, o directory.Object) error {
	return s.db.Update(ctx, func(tx *Tx) error { return addObject(ctx, tx, o) })
}

func addObject(ctx context.Context, tx *Tx, o directory.Object) error {
	properties, err := encodeProperties(o.Properties)
	if err != nil {
		return err
	}
	created := o.Created
	if created.IsZero() {
		created = tx.Now()
	}
	n, err := affected(tx.Exec(ctx, `INSERT INTO principals (object_id, tenant, kind, app_id, name, name_key, upn, properties, disabled, created, managed)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING`,
		lower(o.ObjectID), lower(o.Tenant), o.Kind, lower(o.AppID), o.Name, lower(o.Name), lower(o.UPN), properties, flag(o.Disabled), Micros(created), o.Managed))
	if err != nil {
		return err
	}
	if n == 0 {
		return directory.ErrTaken
	}
	for _, cred := range o.Credentials {
		if err := addCredential(ctx, tx, o.ObjectID, cred); err != nil {
			return err
		}
	}
	return directoryChanged(ctx, tx, o.ObjectID, "put")
}

// Change implements directory.Store.
func (s *Identity) Change(ctx context.Context, objectID string, fn func(*directory.Object) error) (out directory.Object, err error) {
	err = s.db.Update(ctx, func(tx *Tx) error {
		// Locked before it is read: of two changes at once neither loses the
		// other's.
		if _, err := tx.Exec(ctx, `UPDATE principals SET disabled = disabled WHERE object_id = $1`, lower(objectID)); err != nil {
			return err
		}
		list, err := objects(ctx, tx, `WHERE object_id = $1`, lower(objectID))
		if err != nil {
			return err
		}
		if len(list) == 0 {
			return directory.ErrUnknown
		}
		out = list[0]
		if err := fn(&out); err != nil {
			return err
		}
		properties, err := encodeProperties(out.Properties)
		if err != nil {
			return err
		}
		var taken int64
		err = tx.QueryRow(ctx, `SELECT COUNT(*) FROM principals WHERE upn = $1 AND upn <> '' AND object_id <> $2`, lower(out.UPN), lower(objectID)).Scan(&taken)
		if err != nil {
			return err
		}
		if taken > 0 {
			return directory.ErrTaken
		}
		if _, err := tx.Exec(ctx, `UPDATE principals SET name = $1, name_key = $2, upn = $3, properties = $4, disabled = $5 WHERE object_id = $6`,
			out.Name, lower(out.Name), lower(out.UPN), properties, flag(out.Disabled), lower(objectID)); err != nil {
			return err
		}
		return directoryChanged(ctx, tx, objectID, "put")
	})
	return out, err
}

// Objects implements directory.Store.
func (s *Identity) Objects(ctx context.Context, q directory.Query) (list []directory.Object, err error) {
	var where []string
	var args []any
	arg := func(condition string, v any) {
		args = append(args, v)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	arg(`kind = $%d`, q.Kind)
	arg(`tenant = $%d`, lower(q.Tenant))
	arg(`object_id > $%d`, lower(q.After))
	if q.AppID != "" {
		arg(`app_id = $%d`, lower(q.AppID))
	}
	if q.Name != "" {
		arg(`name_key = $%d`, lower(q.Name))
	}
	if q.NamePrefix != "" {
		arg(`name_key >= $%d`, lower(q.NamePrefix))
		arg(`name_key < $%d`, lower(q.NamePrefix)+"\U0010ffff")
	}
	if q.UPN != "" {
		arg(`upn = $%d`, lower(q.UPN))
	}
	args = append(args, q.Limit)
	text := `WHERE ` + strings.Join(where, ` AND `) + fmt.Sprintf(` ORDER BY object_id LIMIT $%d`, len(args))
	err = s.db.View(ctx, func(tx *Tx) error {
		list, err = objects(ctx, tx, text, args...)
		return err
	})
	return list, err
}

// ObjectsByID implements directory.Store.
func (s *Identity) ObjectsByID(ctx context.Context, ids []string) (list []directory.Object, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	in, args := among(ids)
	err = s.db.View(ctx, func(tx *Tx) error {
		list, err = objects(ctx, tx, `WHERE object_id IN (`+in+`) ORDER BY object_id`, args...)
		return err
	})
	return list, err
}

// Members implements directory.Store.
func (s *Identity) Members(ctx context.Context, group, after string, limit int) (list []directory.Object, err error) {
	err = s.db.View(ctx, func(tx *Tx) error {
		list, err = objects(ctx, tx, `WHERE object_id IN (SELECT member_id FROM group_members WHERE group_id = $1 AND member_id > $2)
			ORDER BY object_id LIMIT $3`, lower(group), lower(after), limit)
		return err
	})
	return list, err
}

// AddMember implements directory.Store.
func (s *Identity) AddMember(ctx context.Context, group, member string) error {
	group, member = lower(group), lower(member)
	return s.db.Update(ctx, func(tx *Tx) error {
		// Both rows are written, so that neither can be deleted meanwhile.
		n, err := affected(tx.Exec(ctx, `UPDATE principals SET disabled = disabled WHERE object_id IN ($1, $2)`, group, member))
		if err != nil {
			return err
		}
		if group == member {
			return directory.ErrNoMember
		}
		if n != 2 {
			return directory.ErrUnknown
		}
		two, err := objects(ctx, tx, `WHERE object_id IN ($1, $2)`, group, member)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(two, func(o directory.Object) bool { return o.ObjectID == group })
		switch g, m := two[at], two[1-at]; {
		case g.Kind != directory.Group:
			return directory.ErrUnknown
		case m.Tenant != g.Tenant:
			return directory.ErrUnknown
		case m.Kind == directory.Application:
			return directory.ErrNoMember
		}
		n, err = affected(tx.Exec(ctx, `INSERT INTO group_members (group_id, member_id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, group, member))
		if err != nil {
			return err
		}
		if n == 0 {
			return directory.ErrMember
		}
		if err := tx.remember(ctx, memberOf(group, member, false)); err != nil {
			return err
		}
		return directoryChanged(ctx, tx, group, "put")
	})
}

// RemoveMember implements directory.Store.
func (s *Identity) RemoveMember(ctx context.Context, group, member string) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(ctx, `DELETE FROM group_members WHERE group_id = $1 AND member_id = $2`, lower(group), lower(member)))
		if err != nil {
			return err
		}
		if n == 0 {
			return directory.ErrUnknown
		}
		if err := tx.remember(ctx, memberOf(lower(group), lower(member), true)); err != nil {
			return err
		}
		return directoryChanged(ctx, tx, group, "put")
	})
}

// GroupsOf implements directory.Store. UNION, and not UNION ALL, is what ends
// the recursion when groups contain each other.
func (s *Identity) GroupsOf(ctx context.Context, objectID string) (list []string, err error) {
	err = s.db.View(ctx, func(tx *Tx) error {
		list = nil
		return tx.each(ctx, func(rows *sql.Rows) error {
			var id string
			err := rows.Scan(&id)
			list = append(list, id)
			return err
		}, `WITH RECURSIVE up(id) AS (
				SELECT group_id FROM group_members WHERE member_id = $1
				UNION SELECT m.group_id FROM group_members m JOIN up ON m.member_id = up.id)
			SELECT id FROM up ORDER BY id LIMIT $2`, lower(objectID), directory.MaxGroups+1)
	})
	if err == nil && len(list) > directory.MaxGroups {
		err = directory.ErrGroups
	}
	return list, err
}

// objects reads objects with their own credentials.
func objects(ctx context.Context, tx *Tx, where string, args ...any) ([]directory.Object, error) {
	var list []directory.Object
	err := tx.each(ctx, func(rows *sql.Rows) error {
		var o directory.Object
		var disabled, created int64
		var properties string
		err := rows.Scan(&o.ObjectID, &o.Tenant, &o.Kind, &o.AppID, &o.Name, &o.UPN, &properties, &disabled, &created, &o.Managed)
		if err != nil {
			return err
		}
		o.Disabled, o.Created = disabled != 0, Time(created)
		o.Properties, err = resource.Decode([]byte(properties))
		list = append(list, o)
		return err
	}, `SELECT object_id, tenant, kind, app_id, name, upn, properties, disabled, created, managed FROM principals `+where, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	var ids []string
	for _, o := range list {
		ids = append(ids, o.ObjectID)
	}
	in, args := among(ids)
	creds, err := credentials(ctx, tx, `object_id IN (`+in+`)`, args...)
	for i := range list {
		list[i].Credentials = creds[list[i].ObjectID]
	}
	return list, err
}

// credentials returns the credentials of objects, by object.
func credentials(ctx context.Context, tx *Tx, where string, args ...any) (map[string][]directory.Credential, error) {
	out := map[string][]directory.Credential{}
	err := tx.each(ctx, func(rows *sql.Rows) error {
		var k directory.Credential
		var owner string
		var hash []byte
		var starts, ends int64
		if err := rows.Scan(&owner, &k.KeyID, &k.Kind, &k.Name, &k.Hint, &hash, &k.Data, &starts, &ends); err != nil {
			return err
		}
		// A short hash would be padded with zeros and compared all the
		// same; a damaged row is no credential.
		if len(hash) != len(k.Hash) {
			return fmt.Errorf("store: credential %s has a hash of %d bytes", k.KeyID, len(hash))
		}
		copy(k.Hash[:], hash)
		k.Start, k.End = Time(starts), Time(ends)
		out[owner] = append(out[owner], k)
		return nil
	}, `SELECT object_id, key_id, kind, name, hint, hash, data, starts, ends FROM credentials WHERE `+where+` ORDER BY starts, key_id`, args...)
	return out, err
}

// among is the inside of IN (…) for ids, and its arguments.
func among(ids []string) (string, []any) {
	var marks []string
	var args []any
	for i, id := range ids {
		marks = append(marks, fmt.Sprintf("$%d", i+1))
		args = append(args, lower(id))
	}
	return strings.Join(marks, ", "), args
}

func encodeProperties(p map[string]any) (string, error) {
	if p == nil {
		return "{}", nil
	}
	b, err := resource.Encode(p)
	return string(b), err
}
