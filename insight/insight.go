// Package insight is where a registry's events go, and who may ask about them:
// diagnostic settings, the workspaces and sinks that they name, and the
// delivery to sinks.
//
// Events are always kept and can be asked about by whoever may read their
// registry. A setting only adds a destination: a workspace, through which
// others may ask, or a sink, a file or an address that gets each event at least
// once.
package insight

import (
	"net/http"
	"os"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/resource"
)

// The resource types. Sinks are cove's own: Azure's destinations for events
// are services of Azure.
const (
	TypeSettings   = "Microsoft.Insights/diagnosticSettings"
	TypeWorkspaces = "Microsoft.OperationalInsights/workspaces"
	TypeSinks      = "Cove.Diagnostics/sinks"

	typeRegistries = "Microsoft.ContainerRegistry/registries"
)

// The permissions. Whoever may read a registry may read its events; Azure
// asks for the right to a workspace's keys before something is sent to it.
const (
	actionReadRegistry   = typeRegistries + "/read"
	actionQueryWorkspace = TypeWorkspaces + "/query/read"
	actionSendWorkspace  = TypeWorkspaces + "/sharedKeys/action"
	actionSendSink       = TypeSinks + "/send/action"
)

// Categories are a registry's log categories, in Azure's words, and the tables
// that they are.
var Categories = []struct{ Name, Table string }{
	{"ContainerRegistryRepositoryEvents", audit.RepositoryEvents},
	{"ContainerRegistryLoginEvents", audit.LoginEvents},
}

// Sealer encrypts a webhook's address and what it is sent with; seal.Box is one.
type Sealer interface {
	Seal(text, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

// Config is what the types and the delivery are made of.
type Config struct {
	Sealer Sealer
	Keep   time.Duration     // how long events are kept
	Folder *os.Root          // where files are written
	Web    http.RoundTripper // by which webhooks are reached
}

// Types are the resource types for the control plane.
func Types(c Config) []resource.Type {
	return []resource.Type{settings(), workspaces(c), sinks(c)}
}

func text(o resource.Object, path string) string {
	s, _ := resource.Lookup(o, path).(string)
	return s
}
