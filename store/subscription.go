package store

import (
	"context"

	"cove.example/cove/directory"
)

// AddSubscription writes one more subscription of a tenant, and reports false
// without writing where the tenant has one of that name.
func (s *Identity) AddSubscription(ctx context.Context, sub directory.Subscription) (added bool, err error) {
	err = s.db.Update(ctx, func(tx *Tx) error {
		added = false
		res, err := tx.Exec(ctx, `INSERT INTO subscriptions (id, tenant, name, created)
			SELECT $1, t.id, $3, $4 FROM tenants t WHERE t.id = $2
			AND NOT EXISTS (SELECT 1 FROM subscriptions s WHERE s.tenant = t.id AND s.name = $3)`,
			lower(sub.ID), lower(sub.Tenant), sub.Name, Micros(tx.Now()))
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil || n == 0 {
			return err
		}
		added = true
		return directoryChanged(ctx, tx, sub.ID, "put")
	})
	return added && err == nil, err
}
