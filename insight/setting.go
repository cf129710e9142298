package insight

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

// TaskDeliver is the kind of the task that sends a setting's events to its
// sink for as long as there are both.
const TaskDeliver = "insight.deliver"

// errDestination is a destination that is not there, or not the caller's to
// send to: the same for both.
var errDestination = fault.Coded(fault.Invalid, "InvalidDestination", "the destination does not exist, or you may not send to it")

// setting is what a diagnostic setting says.
type setting struct {
	registry  arm.ID
	tables    []string
	workspace string
	sink      string
	since     time.Time // events from then on go to the sink
}

// settings are diagnostic settings on registries.
func settings() resource.Type {
	return resource.Type{
		Name: TypeSettings, Extension: true, MadeIsOK: true,
		ReadOnly: []string{"properties.sentSince"},
		Check: func(c *resource.Change) []fault.Field {
			_, wrong := parseSetting(*c.New)
			return wrong
		},
		Put: putSetting,
	}
}

// elsewhere are Azure's destinations that are not here.
var elsewhere = []string{"storageAccountId", "eventHubAuthorizationRuleId", "eventHubName", "serviceBusRuleId"}

func parseSetting(doc resource.Doc) (setting, []fault.Field) {
	s := setting{registry: doc.ID.Parent(), workspace: text(doc.Body, "properties.workspaceId"), sink: text(doc.Body, "properties.marketplacePartnerId")}
	var wrong []fault.Field
	bad := func(path, message string, args ...any) {
		wrong = append(wrong, fault.Field{Path: path, Message: fmt.Sprintf(message, args...)})
	}
	if !strings.EqualFold(s.registry.Type(), typeRegistries) {
		bad("id", "only registries have logs here")
	}
	for _, name := range elsewhere {
		if resource.Lookup(doc.Body, "properties."+name) != nil {
			bad("properties."+name, "is not a destination here; send to a workspace (workspaceId), or to a sink of type %s (marketplacePartnerId)", TypeSinks)
		}
	}
	for _, d := range []struct{ path, typ string }{{"properties.workspaceId", TypeWorkspaces}, {"properties.marketplacePartnerId", TypeSinks}} {
		if resource.Lookup(doc.Body, d.path) == nil {
			continue
		}
		if id, err := arm.ParseID(text(doc.Body, d.path)); err != nil || !strings.EqualFold(id.Type(), d.typ) {
			bad(d.path, "must be the resource id of a %s", d.typ)
		}
	}
	if s.workspace == "" && s.sink == "" {
		bad("properties", "name a destination: workspaceId or marketplacePartnerId")
	}
	if t := text(doc.Body, "properties.logAnalyticsDestinationType"); t != "" && t != "Dedicated" {
		bad("properties.logAnalyticsDestinationType", "can only be Dedicated: the tables are the registry's own")
	}
	s.tables = logs(doc.Body, bad)
	metrics(doc.Body, s.sink != "", bad)
	if len(wrong) == 0 && len(s.tables) == 0 && s.sink != "" {
		bad("properties.logs", "enable at least one category, or nothing is sent")
	}
	s.since, _ = time.Parse(time.RFC3339Nano, text(doc.Body, "properties.sentSince"))
	return s, wrong
}

// logs are the tables that a setting asks for.
func logs(body resource.Object, bad func(path, message string, args ...any)) []string {
	var tables []string
	list, ok := resource.Lookup(body, "properties.logs").([]any)
	if v := resource.Lookup(body, "properties.logs"); v != nil && !ok {
		bad("properties.logs", "must be a list")
	}
	for i, item := range list {
		path := fmt.Sprintf("properties.logs[%d]", i)
		o, _ := item.(resource.Object)
		on, isBool := o["enabled"].(bool)
		if !isBool {
			bad(path+".enabled", "must be true or false")
		}
		noRetention(o, path, bad)
		name, group := text(o, "category"), text(o, "categoryGroup")
		found := false
		for _, c := range Categories {
			if strings.EqualFold(name, c.Name) || name == "" && (strings.EqualFold(group, "allLogs") || strings.EqualFold(group, "audit")) {
				found = true
				if on && !slices.Contains(tables, c.Table) {
					tables = append(tables, c.Table)
				}
			}
		}
		if !found {
			bad(path+".category", "must be %s or %s, or categoryGroup allLogs", Categories[0].Name, Categories[1].Name)
		}
	}
	return tables
}

func noRetention(o resource.Object, path string, bad func(path, message string, args ...any)) {
	if on, _ := resource.Lookup(o, "retentionPolicy.enabled").(bool); on {
		if n, _ := resource.Lookup(o, "retentionPolicy.days").(json.Number); n != "0" && n != "" {
			bad(path+".retentionPolicy", "is for storage accounts; a workspace has retentionInDays, a sink its own limits")
		}
	}
}

// metrics may be asked for with a workspace, as az does with each; they are at
// /metrics and in no table, so a sink would wait for them in vain.
func metrics(body resource.Object, sink bool, bad func(path, message string, args ...any)) {
	list, ok := resource.Lookup(body, "properties.metrics").([]any)
	if v := resource.Lookup(body, "properties.metrics"); v != nil && !ok {
		bad("properties.metrics", "must be a list")
	}
	for i, item := range list {
		path := fmt.Sprintf("properties.metrics[%d]", i)
		o, _ := item.(resource.Object)
		noRetention(o, path, bad)
		if name := text(o, "category"); !strings.EqualFold(name, "AllMetrics") {
			bad(path+".category", "must be AllMetrics")
		}
		if on, _ := o["enabled"].(bool); on && sink {
			bad(path+".enabled", "metrics are not sent to sinks")
		}
	}
}

func putSetting(ctx context.Context, tx resource.Tx, c *resource.Change) error {
	s, _ := parseSetting(*c.New)
	for _, to := range []struct{ id, action string }{{s.workspace, actionSendWorkspace}, {s.sink, actionSendSink}} {
		if to.id == "" {
			continue
		}
		at, err := arm.ParseID(to.id)
		if err != nil {
			return err
		}
		_, err = tx.Get(ctx, at)
		if err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err != nil || c.Caller.May == nil || !c.Caller.May(to.action, at) {
			return errDestination.Detail("The destination '%s' does not exist, or you may not send to it: that takes %s.", at, to.action)
		}
	}
	if s.sink == "" {
		resource.Remove(c.New.Body, "properties.sentSince")
		return nil
	}
	if c.Old == nil || !strings.EqualFold(text(c.Old.Body, "properties.marketplacePartnerId"), s.sink) {
		resource.Assign(c.New.Body, "properties.sentSince", c.Now.UTC().Format(time.RFC3339Nano))
	}
	body, err := json.Marshal(deliverBody{ID: c.New.ID.Key(), UID: c.New.UID})
	if err != nil {
		return err
	}
	return tx.Enqueue(ctx, task.New{Kind: TaskDeliver, Key: c.New.UID, Body: body})
}

// deliverBody names the setting that a task delivers for.
type deliverBody struct {
	ID  string `json:"id"`
	UID string `json:"uid"`
}
