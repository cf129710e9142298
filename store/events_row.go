package store

import (
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	"cove.example/cove/audit"
)

// eventColumns are the columns of a day's table, in the order of audit's
// fields. In the table those of laterColumns are last, where days from before
// them have had them added.
var eventColumns = [audit.Fields]string{
	audit.FieldID: "id", audit.FieldTime: "time", audit.FieldTable: "tbl", audit.FieldRegistry: "registry", audit.FieldHost: "host",
	audit.FieldOperation: "operation", audit.FieldIdentity: "identity", audit.FieldTenant: "tenant", audit.FieldCallerIP: "caller",
	audit.FieldUserAgent: "agent", audit.FieldRepository: "repository", audit.FieldTag: "tag", audit.FieldDigest: "digest",
	audit.FieldMediaType: "media", audit.FieldArtifactType: "artifact", audit.FieldSize: "size", audit.FieldStatus: "status", audit.FieldDuration: "duration",
	audit.FieldRegion: "region", audit.FieldReason: "reason", audit.FieldDetail: "detail",
}

// laterColumns are those that came after the first days were kept.
var laterColumns = []string{"tenant", "artifact"}

// eventSchema makes the table of a day; %[1]s is its name. detail, which may
// be long, is behind what queries look at.
//
// Events come in the order of time, and so do ids (audit.NewID): what is added
// to these indexes is added at their ends. An index that begins with who it
// was would have another of its pages written for every identity of a batch,
// which costs several times as much as all of these; instead, the index of
// times holds what is filtered by, and is narrow enough to be read whole.
// The indexes with a condition hold what is rare and asked for: failures, and
// operations that change something. They cost a pull nothing.
const eventSchema = `CREATE TABLE IF NOT EXISTS %[1]s (
	n          {{serial}},
	id         TEXT NOT NULL,
	time       BIGINT NOT NULL,
	tbl        TEXT NOT NULL,
	registry   TEXT NOT NULL,
	host       TEXT NOT NULL,
	operation  TEXT NOT NULL,
	identity   TEXT NOT NULL,
	caller     TEXT NOT NULL,
	agent      TEXT NOT NULL,
	repository TEXT NOT NULL,
	tag        TEXT NOT NULL,
	digest     TEXT NOT NULL,
	media      TEXT NOT NULL,
	size       BIGINT NOT NULL,
	status     BIGINT NOT NULL,
	duration   BIGINT NOT NULL,
	region     TEXT NOT NULL,
	reason     TEXT NOT NULL,
	detail     TEXT NOT NULL,
	tenant     TEXT NOT NULL DEFAULT '',
	artifact   TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS %[1]s_id ON %[1]s (id);
CREATE INDEX IF NOT EXISTS %[1]s_when ON %[1]s (time, status, identity, repository);
CREATE INDEX IF NOT EXISTS %[1]s_registry ON %[1]s (registry, time);
CREATE INDEX IF NOT EXISTS %[1]s_rare ON %[1]s (time) WHERE status <> 200;
CREATE INDEX IF NOT EXISTS %[1]s_done ON %[1]s (time) WHERE operation <> 'Login' AND operation <> 'Pull';`

// appendEventValues adds what goes into eventColumns.
func appendEventValues(to []any, v *audit.Event) []any {
	return append(to, v.ID, Micros(v.Time), v.Table, v.Registry, v.Host, v.Operation, v.Identity, v.Tenant, v.CallerIP, v.UserAgent,
		v.Repository, v.Tag, v.Digest, v.MediaType, v.ArtifactType, v.Size, int64(v.Status), int64(v.Duration), v.Region, v.Reason, string(v.Detail))
}

// eventReader reads some of the columns into one event, again and again.
type eventReader struct {
	columns  string
	event    audit.Event
	n        int64 // the row's number in its day
	at       int64
	duration int64
	detail   string
	to       []any
}

// newEventReader reads these fields besides time and number, or all for nil.
func newEventReader(fields []audit.Field) *eventReader {
	r := &eventReader{}
	v := &r.event
	into := [audit.Fields]any{
		&v.ID, nil, &v.Table, &v.Registry, &v.Host, &v.Operation, &v.Identity, &v.Tenant, &v.CallerIP, &v.UserAgent,
		&v.Repository, &v.Tag, &v.Digest, &v.MediaType, &v.ArtifactType, &v.Size, &v.Status, &r.duration, &v.Region, &v.Reason, &r.detail,
	}
	names := []string{"n", "time"}
	r.to = []any{&r.n, &r.at}
	if fields == nil {
		for f := range audit.Fields {
			fields = append(fields, f)
		}
	}
	for _, f := range fields {
		if f != audit.FieldTime {
			names, r.to = append(names, eventColumns[f]), append(r.to, into[f])
		}
	}
	r.columns = strings.Join(names, ", ")
	return r
}

func (r *eventReader) read(rows *sql.Rows) error {
	if err := rows.Scan(r.to...); err != nil {
		return err
	}
	r.event.Time, r.event.Duration = Time(r.at), time.Duration(r.duration)
	r.event.Detail = nil
	if r.detail != "" {
		r.event.Detail = json.RawMessage(r.detail)
	}
	return nil
}
