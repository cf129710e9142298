package resource

import (
	"context"
	"time"

	"cove.example/cove/arm"
)

// Past is one change of a resource that has happened.
type Past struct {
	Number int64 // rises with time
	Time   time.Time
	ID     arm.ID // as its Key spells it
	Op     string // put or delete
	By     string // the principal's object id, "" for the server itself
	// Request is the correlation id of the request that changed it, "" where
	// none did.
	Request string
}

// History is the record of changes, read backwards.
type History interface {
	// Before returns the newest changes of resources with a number below
	// number (0 is all), the newest first, and where to go on: 0 is the end.
	// It looks at a bounded number of changes of every kind, so a page may be
	// empty.
	Before(ctx context.Context, number int64) (list []Past, next int64, err error)
}
