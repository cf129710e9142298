package armapi

import (
	"context"
	"net/http"
	"strings"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/audit"
	"cove.example/cove/fault"
	"cove.example/cove/insight"
	"cove.example/cove/resource"
)

// maxQuery bounds the body of a log query.
const maxQuery = 64 << 10

// Logs are the routes of log queries and of the categories that diagnostic
// settings may name. A query sees the events of the registries at or below
// what its path names that the caller may read; by way of a workspace, those
// that are sent there.
func Logs(desk *audit.Desk, service *resource.Service, now func() time.Time) []Route {
	const sub = "/subscriptions/{subscription}"
	const group = sub + "/resourceGroups/{group}"
	const registry = group + "/providers/Microsoft.ContainerRegistry/registries/{registry}"
	ask := func(viewer func(ctx context.Context, c *Call) (audit.Viewer, error)) func(context.Context, *Call) (Reply, error) {
		return func(ctx context.Context, c *Call) (Reply, error) {
			text, interval := c.Query.Get("query"), c.Query.Get("timespan")
			if c.Method == http.MethodPost {
				var err error
				if text, interval, err = question(c.Body); err != nil {
					return Reply{}, err
				}
			}
			v, err := viewer(ctx, c)
			if err != nil {
				return Reply{}, err
			}
			a, err := desk.Ask(ctx, text, interval, v)
			if err != nil {
				return Reply{}, err
			}
			return Reply{Status: http.StatusOK, Body: a.Tables()}, nil
		}
	}
	below := ask(func(ctx context.Context, c *Call) (audit.Viewer, error) {
		return insight.Viewer(ctx, service, c.Caller, c.ID)
	})
	through := ask(func(ctx context.Context, c *Call) (audit.Viewer, error) {
		return insight.At(ctx, service, c.Caller, c.ID, now())
	})
	var out []Route
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		for _, scope := range []string{sub, group, registry} {
			out = append(out, Route{Method: method, Pattern: scope + "/providers/Microsoft.Insights/logs", Each: true, MaxBody: maxQuery, Do: below})
		}
		workspace := group + "/providers/Microsoft.OperationalInsights/workspaces/{workspace}"
		for _, name := range []string{"/query", "/api/query"} {
			out = append(out, Route{Method: method, Pattern: workspace + name, Each: true, MaxBody: maxQuery, Do: through})
		}
	}
	categories := registry + "/providers/Microsoft.Insights/diagnosticSettingsCategories"
	for _, pattern := range []string{categories, categories + "/{category}"} {
		out = append(out, Route{
			Method: http.MethodGet, Pattern: pattern, Action: "Microsoft.Insights/diagnosticSettingsCategories/read",
			Do: func(ctx context.Context, c *Call) (Reply, error) { return showCategories(ctx, service, c) },
		})
	}
	return out
}

// question reads the body of a query.
func question(body resource.Object) (text, interval string, err error) {
	var wrong []fault.Field
	for name, v := range body {
		s, isText := v.(string)
		switch {
		case name == "query" && isText:
			text = s
		case name == "timespan" && (isText || v == nil):
			interval = s
		default:
			wrong = append(wrong, fault.Field{Path: name, Message: "is not taken: a query is {\"query\": \"…\", \"timespan\": \"PT1H\"}"})
		}
	}
	if text == "" && wrong == nil {
		wrong = append(wrong, fault.Field{Path: "query", Message: "is required"})
	}
	return text, interval, fault.Problems(wrong)
}

func showCategories(ctx context.Context, service *resource.Service, c *Call) (Reply, error) {
	id, err := arm.ParseID(c.Path[:strings.LastIndex(strings.ToLower(c.Path), "/providers/microsoft.insights/")])
	if err != nil {
		return Reply{}, err
	}
	if _, err := service.Get(ctx, id); err != nil {
		return Reply{}, err
	}
	var items []resource.Object
	show := func(name, kind string) {
		items = append(items, resource.Object{
			"id": id.String() + "/providers/Microsoft.Insights/diagnosticSettingsCategories/" + name, "name": name,
			"type": "Microsoft.Insights/diagnosticSettingsCategories", "properties": resource.Object{"categoryType": kind},
		})
	}
	for _, category := range insight.Categories {
		show(category.Name, "Logs")
	}
	show("AllMetrics", "Metrics")
	if want := c.Params["category"]; want != "" {
		for _, item := range items {
			if name, _ := item["name"].(string); strings.EqualFold(name, want) {
				return Reply{Status: http.StatusOK, Body: item}, nil
			}
		}
		return Reply{}, errNoRoute.Detail("The category '%.60s' was not found.", want)
	}
	return Reply{Status: http.StatusOK, Body: resource.Object{"value": items}}, nil
}
