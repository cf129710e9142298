package main

import (
	"net/url"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
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
	fs := c.Flags()
	fs.StringVar(&registry, "registry", "", "of this registry only")
	fs.DurationVar(&since, "since", time.Hour, "how far to look back")
	fs.BoolVar(&pulls, "content", false, "what was pulled, pushed and deleted instead of logins")
	fs.BoolVar(&refused, "refused", false, "refusals only")
	return c
}
