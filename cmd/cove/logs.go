package main

import (
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

func (a *app) logsCommand() *cobra.Command {
	var registry string
	var since time.Duration
	var pulls, refused bool
	c := a.asClient(&cobra.Command{
		Use: "logs", Short: "Who signed in or was refused, newest last", Args: cobra.NoArgs,
		Long: `Show login events, or with --content what was pulled, pushed and deleted. Some
clients print only the status of a refusal; its correlation id is here, for
cove explain.`,
		Example: "  cove logs --registry myregistry --refused\n  cove logs --content --since 24h -o json",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			if since <= 0 {
				return usagef("--since %s: how far to look back, such as 24h", since)
			}
			query := url.Values{"since": {time.Now().Add(-since).UTC().Format(time.RFC3339)}}
			columns := []column{
				{"TIME", "TimeGenerated"},
				{"ID", "CorrelationId"},
				{"FROM", "CallerIpAddress"},
				{"IDENTITY", "Identity"},
				{"REGISTRY", "LoginServer"},
				{"STATUS", "ResultDescription"},
				{"REASON", "ReasonCode"},
			}
			if pulls {
				query.Set("table", "RepositoryEvents")
				columns = append(columns[:5:5], column{"OPERATION", "OperationName"}, column{"REPOSITORY", "Repository"}, column{"TAG", "Tag"}, column{"STATUS", "ResultDescription"})
			}
			if registry != "" {
				id, err := a.find(cmd.Context(), cl, typeRegistry, registry)
				if err != nil {
					return err
				}
				query.Set("registry", id)
			}
			list, err := cl.List(cmd.Context(), cl.Scope()+"/providers/Cove.Diagnostics/events?"+query.Encode())
			if err != nil {
				return err
			}
			if refused {
				list = slices.DeleteFunc(list, func(v any) bool {
					e, _ := v.(client.Object)
					code, _ := e["ReasonCode"].(string)
					return code == ""
				})
			}
			slices.Reverse(list)
			return a.print.show(list, columns...)
		}),
	})
	c.AddCommand(a.logsQueryCommand(), a.sinkCommand(), a.settingCommand())
	fs := c.Flags()
	fs.StringVar(&registry, "registry", "", "of this registry only")
	fs.DurationVar(&since, "since", time.Hour, "how far to look back")
	fs.BoolVar(&pulls, "content", false, "what was pulled, pushed and deleted instead of logins")
	fs.BoolVar(&refused, "refused", false, "refusals only")
	return c
}

func (a *app) logsQueryCommand() *cobra.Command {
	var registry string
	var since time.Duration
	c := &cobra.Command{
		Use: "query KQL", Short: "Ask about events in the Kusto query language", Args: cobra.ExactArgs(1),
		Long: `Ask about the events of all registries that you may read, or of one. The tables
are ContainerRegistryLoginEvents and ContainerRegistryRepositoryEvents; TABLE |
getschema prints a table's columns.`,
		Example: `  cove logs query 'ContainerRegistryLoginEvents | where ResultDescription != "200" | top 10 by TimeGenerated'
  cove logs query --since 1h -o json 'ContainerRegistryRepositoryEvents | summarize count() by Repository'`,
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			scope := cl.Scope() + "/providers/Microsoft.Insights/logs"
			if registry != "" {
				id, err := a.find(cmd.Context(), cl, typeRegistry, registry)
				if err != nil {
					return err
				}
				scope = id + "/providers/Microsoft.Insights/logs"
			}
			body := client.Object{"query": args[0]}
			if since < 0 {
				return usagef("--since %s: how far to look back, such as 24h", since)
			}
			if since > 0 {
				body["timespan"] = fmt.Sprintf("PT%dS", int64(since/time.Second))
			}
			answer, err := cl.Post(cmd.Context(), scope, body)
			if err != nil {
				return err
			}
			list, columns, err := rowsOf(answer)
			if err != nil {
				return err
			}
			return a.print.show(list, columns...)
		}),
	}
	fs := c.Flags()
	fs.StringVar(&registry, "registry", "", "of this registry only")
	fs.DurationVar(&since, "since", 0, "how far to look back, whatever the query says (default: as far as there are events)")
	return c
}

// rowsOf makes objects of the rows of an answer.
func rowsOf(answer client.Object) ([]any, []column, error) {
	broken := fault.Newf(fault.Unavailable, "the server's answer is not one of a log query")
	tables, _ := answer["tables"].([]any)
	if len(tables) != 1 {
		return nil, nil, broken
	}
	table, _ := tables[0].(client.Object)
	named, _ := table["columns"].([]any)
	rows, ok := table["rows"].([]any)
	if !ok {
		return nil, nil, broken
	}
	var columns []column
	for _, c := range named {
		o, _ := c.(client.Object)
		name, _ := o["name"].(string)
		columns = append(columns, column{name, name})
	}
	list := []any{}
	for _, r := range rows {
		cells, _ := r.([]any)
		if len(cells) != len(columns) {
			return nil, nil, broken
		}
		o := client.Object{}
		for i, v := range cells {
			o[columns[i].title] = v
		}
		list = append(list, o)
	}
	return list, columns, nil
}
