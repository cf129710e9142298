// Package audit keeps what happened: one event for each login, refusal and
// repository operation, with the decision's steps, under its correlation id.
//
// Events go into partitions of their own in batches, at most 200 ms after
// they happened; recording never waits for the disk. After a crash an id from
// that window is unknown, and explain says so.
package audit

import (
	"context"
	"encoding/json"
	"time"

	"cove.example/cove/fault"
)

// Event is one row. The names of the columns are Azure's
// (ContainerRegistryLoginEvents, ContainerRegistryRepositoryEvents) with
// DecisionId and ReasonCode added; Detail holds the decision's steps.
type Event struct {
	ID         string    // correlation id
	Time       time.Time // TimeGenerated
	Table      string    // LoginEvents or RepositoryEvents
	Registry   string    // resource id, Key form; _ResourceId
	Host       string    // LoginServer
	Operation  string    // OperationName, one of Operations
	Identity   string
	Tenant     string // UserTenantId
	CallerIP   string // CallerIpAddress
	UserAgent  string
	Repository string
	Tag        string
	Digest     string
	MediaType  string
	Size       int64
	Status     int // ResultDescription
	Duration   time.Duration
	Region     string
	Reason     string          // ReasonCode, "" when allowed
	Detail     json.RawMessage // access.Step list and what explain needs besides
}

// The tables.
const (
	LoginEvents      = "LoginEvents"
	RepositoryEvents = "RepositoryEvents"
)

// Operations are what OperationName may be, in Azure's words.
var Operations = []string{"Login", "Push", "Pull", "Untag", "Delete", "Purge tag", "Purge manifest"}

// Dropped is the operation of an event of cove's own: so many events, its
// Size, could not be kept before it.
const Dropped = "Dropped"

// ErrUnknown is the failure of Find.
var ErrUnknown = fault.Coded(fault.NotFound, "DecisionNotFound", "no decision has this id")

// Log is where events are kept; store implements it.
type Log interface {
	// Record keeps e, whose Detail is the log's from then on. It never blocks;
	// when the buffer is full the event is dropped and counted.
	Record(e Event)
	// Find returns the one event whose id begins with prefix (at least 8
	// characters). ErrUnknown: none; fault.Conflict: more than one.
	Find(ctx context.Context, prefix string) (Event, error)
	// Recent returns the newest events first, of one registry or of all.
	Recent(ctx context.Context, table, registry string, since time.Time, limit int) ([]Event, error)
	// Flush waits until what was recorded before the call is kept.
	Flush(ctx context.Context) error
}
