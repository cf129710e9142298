package store

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"cove.example/cove/device"
)

// Devices is device.Store in the database. Nothing remembers a login, so that
// none of its changes is in the record of changes.
type Devices struct{ db *DB }

// NewDevices returns the logins by code of db.
func NewDevices(db *DB) *Devices { return &Devices{db} }

var _ device.Store = (*Devices)(nil)

// AddLogin implements device.Store.
func (s *Devices) AddLogin(ctx context.Context, l device.Login, gone time.Time, ofOne, ofAll int) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM device_logins WHERE ends < $1`, Micros(gone)); err != nil {
			return err
		}
		var all, one int
		if err := tx.QueryRow(ctx, `SELECT COUNT(*), COALESCE(SUM(CASE WHEN origin = $1 THEN 1 ELSE 0 END), 0) FROM device_logins WHERE ends > $2`,
			l.From, Micros(l.Begun)).Scan(&all, &one); err != nil {
			return err
		}
		if one >= ofOne || all >= ofAll {
			return device.ErrFull
		}
		_, err := tx.Exec(ctx, `INSERT INTO device_logins (device_hash, user_hash, client, tenant, audience, origin, begun, ends, asked, denied, object_id, credential)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
			l.Device, l.User, l.Client, lower(l.Tenant), l.Audience, l.From, Micros(l.Begun), Micros(l.Ends), Micros(l.Asked), flag(l.Denied), lower(l.ObjectID), l.Credential)
		return err
	})
}

// Login implements device.Store.
func (s *Devices) Login(ctx context.Context, user, dev string) (l device.Login, err error) {
	where, hash := `device_hash = $1`, dev
	if user != "" {
		where, hash = `user_hash = $1`, user
	}
	err = s.db.View(ctx, func(tx *Tx) error {
		var begun, ends, asked, denied int64
		err := tx.QueryRow(ctx, `SELECT device_hash, user_hash, client, tenant, audience, origin, begun, ends, asked, denied, object_id, credential
			FROM device_logins WHERE `+where, hash).
			Scan(&l.Device, &l.User, &l.Client, &l.Tenant, &l.Audience, &l.From, &begun, &ends, &asked, &denied, &l.ObjectID, &l.Credential)
		if errors.Is(err, sql.ErrNoRows) {
			return device.ErrUnknown
		}
		l.Begun, l.Ends, l.Asked, l.Denied = Time(begun), Time(ends), Time(asked), denied != 0
		return err
	})
	return l, err
}

// AnswerLogin implements device.Store.
func (s *Devices) AnswerLogin(ctx context.Context, user string, denied bool, objectID, credential string) error {
	return s.one(ctx, `UPDATE device_logins SET denied = $2, object_id = $3, credential = $4
		WHERE user_hash = $1 AND denied = 0 AND object_id = ''`, user, flag(denied), lower(objectID), credential)
}

// AskedLogin implements device.Store.
func (s *Devices) AskedLogin(ctx context.Context, dev string, at time.Time) error {
	return s.one(ctx, `UPDATE device_logins SET asked = $2 WHERE device_hash = $1`, dev, Micros(at))
}

// TakeLogin implements device.Store.
func (s *Devices) TakeLogin(ctx context.Context, dev string) error {
	return s.one(ctx, `DELETE FROM device_logins WHERE device_hash = $1 AND object_id <> ''`, dev)
}

// one runs a statement that must change a row.
func (s *Devices) one(ctx context.Context, q string, args ...any) error {
	return s.db.Update(ctx, func(tx *Tx) error {
		n, err := affected(tx.Exec(ctx, q, args...))
		if err == nil && n == 0 {
			return device.ErrUnknown
		}
		return err
	})
}
