package insight

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

const day = 24 * time.Hour

// workspaces are names under which people may ask about the registries whose
// settings name them. They hold nothing themselves.
func workspaces(c Config) resource.Type {
	most := int64(c.Keep / day)
	return resource.Type{
		Name: TypeWorkspaces, Located: true,
		ReadOnly: []string{"properties.customerId", "properties.createdDate"},
		Check: func(ch *resource.Change) []fault.Field {
			var out []fault.Field
			bad := func(path, message string) { out = append(out, fault.Field{Path: path, Message: message}) }
			p, _ := ch.New.Body["properties"].(resource.Object)
			if v, ok := p["retentionInDays"]; ok {
				if n, ok := v.(json.Number); !ok || !within(n, 1, most) {
					bad("properties.retentionInDays", fmt.Sprintf("must be a number from 1 to %d: this server keeps events for %d days", most, most))
				}
			}
			for _, name := range []string{"publicNetworkAccessForIngestion", "publicNetworkAccessForQuery"} {
				if v := text(ch.New.Body, "properties."+name); v != "" && !strings.EqualFold(v, "Enabled") {
					bad("properties."+name, "can only be Enabled: who may ask is said by roles")
				}
			}
			if v, ok := resource.Lookup(ch.New.Body, "properties.workspaceCapping.dailyQuotaGb").(json.Number); ok && v != "-1" && v != "-1.0" {
				bad("properties.workspaceCapping.dailyQuotaGb", "can only be -1: a workspace takes in nothing of its own")
			}
			return out
		},
		Put: func(_ context.Context, _ resource.Tx, ch *resource.Change) error {
			if ch.Old == nil {
				resource.Assign(ch.New.Body, "properties.customerId", uuid.NewString())
				resource.Assign(ch.New.Body, "properties.createdDate", ch.Now.UTC().Format(time.RFC3339))
			}
			if _, ok := resource.Lookup(ch.New.Body, "properties.retentionInDays").(json.Number); !ok {
				resource.Assign(ch.New.Body, "properties.retentionInDays", json.Number(fmt.Sprint(min(30, most))))
			}
			return nil
		},
	}
}

func within(n json.Number, least, most int64) bool {
	v, err := n.Int64()
	return err == nil && v >= least && v <= most
}
