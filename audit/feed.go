package audit

import "context"

// Cursor is how far somebody has read a log. The zero Cursor is its
// beginning.
type Cursor struct {
	Day  string           `json:"day,omitempty"`  // of the days before it nothing more comes
	Read map[string]int64 `json:"read,omitempty"` // by day: the number of the last event that was read
	Kept map[string]int64 `json:"kept,omitempty"` // by day: the number of the last event that there was
}

// Gap are events that were deleted before they were read.
type Gap struct {
	Day   string
	Count int64 // at most; those of other registries are among them
}

// Feed is a log that is read from a cursor on.
type Feed interface {
	// After returns at most limit events behind c, in the order in which they
	// were kept within each day, where to go on, and what has been deleted
	// since c was returned. Of q, table, scope and From are obeyed.
	After(ctx context.Context, c Cursor, q Query, limit int) ([]Event, Cursor, []Gap, error)
	// More returns a channel that is closed when this process keeps more.
	More() <-chan struct{}
}
