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
	ID           string    // correlation id
	Time         time.Time // TimeGenerated
	Table        string    // LoginEvents, RepositoryEvents or AdministrativeEvents
	Registry     string    // resource id, Key form; _ResourceId
	Host         string    // LoginServer
	Operation    string    // OperationName, one of Operations but for administrative events
	Identity     string
	Tenant       string // UserTenantId
	CallerIP     string // CallerIpAddress
	UserAgent    string
	Repository   string
	Tag          string
	Digest       string
	MediaType    string
	ArtifactType string // of a manifest: what it says itself, else its config's media type
	Size         int64
	Status       int // ResultDescription
	Duration     time.Duration
	Region       string
	Reason       string          // ReasonCode, "" when allowed
	Detail       json.RawMessage // the decision, as explain needs it
	// Decision is of a new event what becomes its Detail as JSON. That is made
	// when the event is kept: a request does not wait for it. Whoever records
	// the event does not change it any more.
	Decision any
}

// TokenID is the id (jti) of the token that the request was given or, where it
// was given none, of the one that it showed; "" where there was neither, or
// the one shown was not one of ours.
func (e *Event) TokenID() string {
	detail := e.Detail
	if e.Decision != nil {
		detail, _ = json.Marshal(e.Decision) // as in Record: what cannot be written is not there
	}
	var kept struct {
		Token string `json:"jti"`
	}
	if len(detail) == 0 || json.Unmarshal(detail, &kept) != nil {
		return ""
	}
	return kept.Token
}

// The tables.
const (
	LoginEvents      = "LoginEvents"
	RepositoryEvents = "RepositoryEvents"
	// AdministrativeEvents are of any resource, whose id is the event's Registry:
	// changes that the control plane has refused, with the action that was
	// lacking as Operation; and what the server has found or found mended by
	// itself, with the words as Detail. The activity log shows them, queries do
	// not.
	AdministrativeEvents = "AdministrativeEvents"
)

// The operations of what the server finds by itself.
const (
	Found  = "Cove.Diagnostics/findings/found/action"
	Mended = "Cove.Diagnostics/findings/mended/action"
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
