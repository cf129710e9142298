package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

const (
	typeSink      = "Cove.Diagnostics/sinks"
	typeWorkspace = "Microsoft.OperationalInsights/workspaces"
	typeSetting   = "Microsoft.Insights/diagnosticSettings"
)

var (
	sinkColumns    = []column{{"NAME", "name"}, {"KIND", "properties.kind"}, {"SENDS TO", "properties.origin"}, {"HEADERS", "properties.headerNames || `[]` | join(', ', @)"}}
	settingColumns = []column{{"NAME", "name"}, {"CATEGORIES", "properties.logs[?enabled].[category || categoryGroup][] | join(', ', @)"}, {"SENT SINCE", "properties.sentSince"}, {"TO", "properties.[marketplacePartnerId, workspaceId][?@] | join(', ', @)"}}
)

// categories are the words of the command line for a registry's log categories.
var categories = map[string]string{"logins": "ContainerRegistryLoginEvents", "content": "ContainerRegistryRepositoryEvents"}

// sinkCommand is where events are sent.
func (a *app) sinkCommand() *cobra.Command {
	root := &cobra.Command{Use: "sink", Short: "Where events can be sent: files of the server's, and webhooks"}
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the sink's resource group")
	root.AddCommand(
		a.sinkCreateCommand(),
		&cobra.Command{
			Use: "list", Short: "List sinks", Args: cobra.NoArgs,
			RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
				list, err := a.list(cmd.Context(), cl, typeSink)
				if err != nil {
					return err
				}
				return a.print.show(list, sinkColumns...)
			}),
		},
		&cobra.Command{
			Use: "show NAME", Short: "Show a sink; its address and headers are shown to nobody", Args: cobra.ExactArgs(1),
			RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
				doc, err := a.get(cmd.Context(), cl, typeSink, args[0])
				if err != nil {
					return err
				}
				return a.print.show(doc, sinkColumns...)
			}),
		},
		&cobra.Command{
			Use: "delete NAME", Short: "Delete a sink that no setting sends to", Args: cobra.ExactArgs(1),
			RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
				id, err := a.find(cmd.Context(), cl, typeSink, args[0])
				if err != nil {
					return err
				}
				return cl.Delete(cmd.Context(), id)
			}),
		},
	)
	return root
}

func (a *app) sinkCreateCommand() *cobra.Command {
	var file bool
	var address, addressFile, headerFile string
	var mib, files int
	c := &cobra.Command{
		Use: "create NAME --file | --webhook ADDRESS | --webhook-file FILE", Short: "Make a sink, or change one", Args: cobra.ExactArgs(1),
		Long: `Make a sink, or change the one of that name.

With --file the server appends a JSON object a line to NAME.jsonl in its folder
of sinks. With --webhook or --webhook-file it sends {"records": […]} by POST to
an https address, which says with a status of 2xx that it has them.

An address or a header that is a secret is read from a file, or from standard
input for -, because the arguments of a command stand in the list of processes.
Both are kept sealed and shown to nobody.`,
		Example: "  cove logs sink create archive --file --max-mib 256 --files 20\n  cove logs sink create siem --webhook https://logs.example.com/cove --header-file headers\n  cove logs sink create chat --webhook-file address",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			properties := client.Object{}
			given := 0
			for _, on := range []bool{file, address != "", addressFile != ""} {
				if on {
					given++
				}
			}
			switch {
			case given != 1:
				return usagef("say where to send: one of --file, --webhook and --webhook-file")
			case file && headerFile != "":
				return usagef("--header-file is for webhooks")
			case !file && (mib != 0 || files != 0):
				return usagef("--max-mib and --files are for --file")
			case mib < 0 || files < 0:
				return usagef("--max-mib and --files are numbers from 1")
			}
			properties["kind"] = "webhook"
			if file {
				properties["kind"] = "file"
				if mib > 0 {
					properties["maxBytes"] = mib << 20
				}
				if files > 0 {
					properties["files"] = files
				}
			}
			if addressFile != "" {
				lines, err := a.lines("--webhook-file", addressFile)
				if err != nil {
					return err
				}
				if len(lines) != 1 {
					return usagef("--webhook-file holds %d lines, and not the one address", len(lines))
				}
				address = lines[0]
			}
			if address != "" {
				properties["uri"] = address
			}
			if headerFile != "" {
				headers, err := a.headers(headerFile)
				if err != nil {
					return err
				}
				properties["headers"] = headers
			}
			location, err := a.location(cmd.Context(), cl, "")
			if err != nil {
				return err
			}
			if err := a.ensureGroup(cmd.Context(), cl, location); err != nil {
				return err
			}
			doc, err := cl.Put(cmd.Context(), a.id(cl, typeSink, args[0]), client.Object{"location": location, "properties": properties})
			if err != nil {
				return err
			}
			return a.print.show(doc, sinkColumns...)
		}),
	}
	fs := c.Flags()
	fs.BoolVar(&file, "file", false, "append to a file of the server's")
	fs.IntVar(&mib, "max-mib", 0, "MiB after which a file is put aside (default 64)")
	fs.IntVar(&files, "files", 0, "how many files are kept (default 8)")
	fs.StringVar(&address, "webhook", "", "send to this https address")
	fs.StringVar(&addressFile, "webhook-file", "", "send to the https address that this file holds")
	fs.StringVar(&headerFile, "header-file", "", "file of the headers to send with, a \"Name: value\" on each line")
	return c
}

// lines are those of a file, or of standard input for -, without empty ones.
func (a *app) lines(flag, name string) ([]string, error) {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			why := errors.Unwrap(err)
			if errors.Is(err, fs.ErrNotExist) {
				why = errors.New("there is no such file")
			}
			return nil, fault.Newf(fault.Invalid, "%s %s: %v", flag, name, why)
		}
		defer f.Close()
		in = f
	}
	var out []string
	s := bufio.NewScanner(io.LimitReader(in, maxSecret))
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" {
			out = append(out, line)
		}
	}
	return out, s.Err()
}

func (a *app) headers(name string) (client.Object, error) {
	lines, err := a.lines("--header-file", name)
	if err != nil {
		return nil, err
	}
	out := client.Object{}
	for i, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, usagef("--header-file: line %d is no \"Name: value\"", i+1)
		}
		out[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return out, nil
}

// settingCommand is which registry's events are sent where.
func (a *app) settingCommand() *cobra.Command {
	o := &of{app: a}
	root := &cobra.Command{Use: "setting", Short: "Which of a registry's events are sent where"}
	root.PersistentFlags().StringVar(&o.registry, "registry", "", "the registry")
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	root.AddCommand(
		o.settingCreateCommand(),
		&cobra.Command{
			Use: "list", Short: "List a registry's diagnostic settings", Args: cobra.NoArgs,
			RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, _ []string) error {
				list, err := cl.List(ctx, registry+"/providers/"+typeSetting)
				if err != nil {
					return err
				}
				return o.print.show(list, settingColumns...)
			}),
		},
		&cobra.Command{
			Use: "delete NAME", Short: "Send no more; the events stay kept", Args: cobra.ExactArgs(1),
			RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, args []string) error {
				return cl.Delete(ctx, settingID(registry, args[0]))
			}),
		},
	)
	return root
}

func settingID(registry, name string) string {
	return registry + "/providers/" + typeSetting + "/" + url.PathEscape(name)
}

func (o *of) settingCreateCommand() *cobra.Command {
	var sink, workspace string
	var only []string
	c := &cobra.Command{
		Use: "create NAME --registry REGISTRY --sink SINK | --workspace WORKSPACE", Short: "Send a registry's events to a sink, or let a workspace's readers ask about them", Args: cobra.ExactArgs(1),
		Long:    "Make a diagnostic setting, or change the one of that name. A sink gets the events\nfrom then on, each at least once; while it is down they wait.",
		Example: "  cove logs setting create all --registry myregistry --sink archive\n  cove logs setting create logins --registry myregistry --sink siem --category logins",
		RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, args []string) error {
			if (sink == "") == (workspace == "") {
				return usagef("say where to send: one of --sink and --workspace")
			}
			properties := client.Object{}
			for _, d := range []struct{ property, typ, name string }{{"marketplacePartnerId", typeSink, sink}, {"workspaceId", typeWorkspace, workspace}} {
				if d.name == "" {
					continue
				}
				// The group is the registry's, and a sink has its own.
				everywhere := *o.app
				everywhere.group = ""
				id, err := everywhere.find(ctx, cl, d.typ, d.name)
				if err != nil {
					return err
				}
				properties[d.property] = id
			}
			logs := []any{}
			for _, word := range only {
				name, ok := categories[word]
				if !ok {
					return usagef("there is no category %q: logins or content", word)
				}
				logs = append(logs, client.Object{"category": name, "enabled": true})
			}
			if len(logs) == 0 {
				logs = append(logs, client.Object{"categoryGroup": "allLogs", "enabled": true})
			}
			properties["logs"] = logs
			doc, err := cl.Put(ctx, settingID(registry, args[0]), client.Object{"properties": properties})
			if err != nil {
				return err
			}
			return o.print.show(doc, settingColumns...)
		}),
	}
	c.Flags().StringVar(&sink, "sink", "", "the sink")
	c.Flags().StringVar(&workspace, "workspace", "", "the workspace")
	c.Flags().StringSliceVar(&only, "category", nil, "logins or content (default both)")
	return c
}
