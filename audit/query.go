package audit

import (
	"context"
	"time"
)

// Field is one column of an event as a log keeps it.
type Field uint8

// The fields, in the order of Event.
const (
	FieldID Field = iota
	FieldTime
	FieldTable
	FieldRegistry
	FieldHost
	FieldOperation
	FieldIdentity
	FieldTenant
	FieldCallerIP
	FieldUserAgent
	FieldRepository
	FieldTag
	FieldDigest
	FieldMediaType
	FieldArtifactType
	FieldSize
	FieldStatus
	FieldDuration
	FieldRegion
	FieldReason
	FieldDetail
	Fields // how many there are
)

// Order is the order of a query's events.
type Order uint8

// The orders. Of events of one time, any may come first.
const (
	AnyOrder Order = iota
	NewestFirst
	OldestFirst
)

// In is a condition: the field's text is one of these, or none of them.
type In struct {
	Field  Field
	Values []string
	Not    bool
}

// Query selects events. All that is set must hold.
type Query struct {
	Table    string    // "" is all
	From, To time.Time // both are inside; zero is open
	// Within are scopes, in Key form: events of registries at or below one of
	// them, and with "" those of no registry. Nil is all.
	Within   []string
	Where    []In
	Statuses []int // nil is all
	Select   []Field
	Order    Order
	Enough   int // so many are likely to be wanted; 0 is all
}

// Scanner is a log that can be asked about.
type Scanner interface {
	// Scan calls fn with each event that q selects; of it, only the selected
	// fields are filled in, and it is good for that call only. What was recorded
	// before the call is among them. An error of fn ends it and is returned.
	Scan(ctx context.Context, q Query, fn func(*Event) error) error
}
