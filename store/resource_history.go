package store

import (
	"context"
	"encoding/json"
	"math"

	"cove.example/cove/arm"
	"cove.example/cove/resource"
)

var _ resource.History = (*Resources)(nil)

// historyPage is how many changes one page looks at.
const historyPage = 2000

// Before implements resource.History.
func (r *Resources) Before(ctx context.Context, number int64) (list []resource.Past, next int64, err error) {
	if number == 0 {
		number = math.MaxInt64
	}
	err = r.db.View(ctx, func(tx *Tx) error {
		list, next = nil, 0
		rows, err := tx.Query(ctx, `SELECT seq, time, kind, key, op, detail FROM changes WHERE seq < $1 ORDER BY seq DESC LIMIT $2`, number, historyPage)
		if err != nil {
			return err
		}
		defer rows.Close()
		seen := 0
		for rows.Next() {
			var c Change
			var us int64
			if err := rows.Scan(&c.Seq, &us, &c.Kind, &c.Key, &c.Op, &c.Detail); err != nil {
				return err
			}
			seen++
			next = c.Seq
			if c.Kind != resourceKind {
				continue
			}
			id, err := arm.ParseID(c.Key)
			if err != nil {
				return err
			}
			var detail struct {
				By      string `json:"by"`
				Request string `json:"request"`
			}
			if err := json.Unmarshal(c.Detail, &detail); err != nil {
				return err
			}
			list = append(list, resource.Past{Number: c.Seq, Time: Time(us), ID: id, Op: c.Op, By: detail.By, Request: detail.Request})
		}
		if seen < historyPage {
			next = 0
		}
		return rows.Err()
	})
	return list, next, err
}
