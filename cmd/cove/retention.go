package main

import (
	"context"
	"net/http"
	"strings"
	"time"

	"cove.example/cove/audit"
	"cove.example/cove/content"
	"cove.example/cove/directory"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

// retain does one pass of a registry's retention policy. What it removes is
// recorded as Azure records it, without an identity.
func (s *server) retain(ctx context.Context, h *task.Held) error {
	return registry.Retain(ctx, s.resources, h, s.now(), func(ctx context.Context, doc resource.Doc, since, before time.Time) error {
		where, _ := doc.Body["location"].(string)
		return s.content.Purge(ctx, doc.UID, since, before, func(u content.Untagged) {
			s.events.Record(audit.Event{
				ID: directory.NewID(), Time: s.now(), Table: audit.RepositoryEvents, Registry: doc.ID.Key(), Region: where,
				Host: strings.ToLower(doc.ID.Name()) + "." + s.config.RegistrySuffix, Operation: "Purge manifest", Repository: u.Repo.String(),
				Digest: u.Digest.String(), MediaType: u.MediaType, Size: u.Size, Status: http.StatusOK,
			})
		})
	})
}
