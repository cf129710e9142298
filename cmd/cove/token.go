package main

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

var (
	tokenColumns    = []column{{"NAME", "name"}, {"STATUS", "properties.status"}, {"SCOPE MAP", "properties.scopeMapId"}, {"PASSWORDS", "properties.credentials.passwords[].name | join(', ', @)"}}
	passwordColumns = []column{{"NAME", "name"}, {"PASSWORD", "value"}, {"ENDS", "expiry"}}
	mapColumns      = []column{{"NAME", "name"}, {"KIND", "properties.type"}, {"ACTIONS", "properties.actions | join(', ', @)"}}
)

// of are commands about the things of one registry.
type of struct {
	*app
	registry string
}

func (o *of) root(c *cobra.Command) *cobra.Command {
	c = o.asClient(c)
	c.PersistentFlags().StringVar(&o.registry, "registry", "", "the registry")
	c.PersistentFlags().StringVarP(&o.group, "resource-group", "g", "", "the registry's resource group")
	return c
}

// in is do with the registry's id.
func (o *of) in(fn func(ctx context.Context, cl *client.Client, registry string, args []string) error) func(*cobra.Command, []string) error {
	return o.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
		if o.registry == "" {
			return usagef("--registry is required")
		}
		id, err := o.find(cmd.Context(), cl, typeRegistry, o.registry)
		if err != nil {
			return err
		}
		return fn(cmd.Context(), cl, id, args)
	})
}

// list and remove are the commands that tokens and scope maps have alike.
func (o *of) list(kind, short string, columns []column) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: short, Args: cobra.NoArgs,
		RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, _ []string) error {
			list, err := cl.List(ctx, registry+"/"+kind)
			if err != nil {
				return err
			}
			return o.print.show(list, columns...)
		}),
	}
}

func (o *of) remove(kind, use, short string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, args []string) error {
			return cl.Delete(ctx, registry+"/"+kind+"/"+url.PathEscape(args[0]))
		}),
	}
}

func (a *app) tokenCommand() *cobra.Command {
	o := &of{app: a}
	root := o.root(&cobra.Command{Use: "token", Short: "A registry's tokens: names and passwords that may do what a scope map says"})
	root.AddCommand(
		o.tokenCreateCommand(), o.list("tokens", "List tokens", tokenColumns), o.tokenPasswordCommand(), o.tokenUpdateCommand(),
		o.remove("tokens", "delete TOKEN", "Delete a token; whoever is signed in with it is refused from then on"),
	)
	return root
}

func (o *of) tokenCreateCommand() *cobra.Command {
	var scopeMap string
	var days int
	c := &cobra.Command{
		Use: "create TOKEN", Short: "Create a token with two passwords, which are shown once", Args: cobra.ExactArgs(1),
		Example: "  cove token create robot --registry myregistry --scope-map _repositories_pull",
		RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, args []string) error {
			if scopeMap == "" {
				return usagef("--scope-map says what the token may do: one of `cove scope-map list`")
			}
			id := registry + "/tokens/" + url.PathEscape(args[0])
			switch _, err := cl.Get(ctx, id); {
			case err == nil:
				return fault.Newf(fault.Conflict, "there is a token %s; `cove token password %s --registry %s` gives it new passwords", args[0], args[0], o.registry)
			case !client.NotFound(err):
				return err
			}
			if _, err := cl.Put(ctx, id, client.Object{"properties": client.Object{"scopeMapId": registry + "/scopeMaps/" + scopeMap}}); err != nil {
				return err
			}
			return o.generate(ctx, cl, registry, args[0], "", days)
		}),
	}
	c.Flags().StringVar(&scopeMap, "scope-map", "", "the scope map")
	c.Flags().IntVar(&days, "days", 0, "days after which the passwords end (default: never)")
	return c
}

func (o *of) tokenPasswordCommand() *cobra.Command {
	var name string
	var days int
	c := &cobra.Command{
		Use: "password TOKEN", Short: "Make a token's passwords anew; they are shown once", Args: cobra.ExactArgs(1),
		RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, args []string) error {
			return o.generate(ctx, cl, registry, args[0], name, days)
		}),
	}
	c.Flags().StringVar(&name, "password-name", "", "password1 or password2 (default: both)")
	c.Flags().IntVar(&days, "days", 0, "days after which it ends (default: never)")
	return c
}

func (o *of) generate(ctx context.Context, cl *client.Client, registry, token, name string, days int) error {
	body := client.Object{"tokenId": registry + "/tokens/" + token}
	if name != "" {
		body["name"] = name
	}
	if days < 0 {
		return usagef("--days %d: 1 or more", days)
	}
	if days > 0 {
		body["expiry"] = time.Now().UTC().AddDate(0, 0, days).Format(time.RFC3339)
	}
	got, err := cl.Post(ctx, registry+"/generateCredentials", body)
	if err != nil {
		return err
	}
	list, _ := got["passwords"].([]any)
	return o.print.show(list, passwordColumns...)
}

func (o *of) tokenUpdateCommand() *cobra.Command {
	var scopeMap, status string
	c := &cobra.Command{
		Use: "update TOKEN", Short: "Disable or enable a token, or point it at another scope map", Args: cobra.ExactArgs(1),
		Example: "  cove token update robot --registry myregistry --status disabled",
		RunE: o.in(func(ctx context.Context, cl *client.Client, registry string, args []string) error {
			properties := client.Object{}
			if status != "" {
				properties["status"] = status
			}
			if scopeMap != "" {
				properties["scopeMapId"] = registry + "/scopeMaps/" + scopeMap
			}
			if len(properties) == 0 {
				return usagef("--status or --scope-map says what to change")
			}
			got, err := cl.Patch(ctx, registry+"/tokens/"+url.PathEscape(args[0]), client.Object{"properties": properties})
			if err != nil {
				return err
			}
			return o.print.show(got, tokenColumns...)
		}),
	}
	c.Flags().StringVar(&scopeMap, "scope-map", "", "the scope map")
	c.Flags().StringVar(&status, "status", "", "enabled or disabled")
	return c
}

func (a *app) scopeMapCommand() *cobra.Command {
	o := &of{app: a}
	root := o.root(&cobra.Command{Use: "scope-map", Short: "A registry's scope maps: what tokens may do where"})
	var allow []string
	// put makes the command that writes what is allowed, besides what was where
	// keep says so.
	put := func(c *cobra.Command, keep bool) *cobra.Command {
		c.Args = cobra.ExactArgs(1)
		c.RunE = o.in(func(ctx context.Context, cl *client.Client, registry string, args []string) error {
			id := registry + "/scopeMaps/" + url.PathEscape(args[0])
			actions := []any{}
			if keep {
				was, err := cl.Get(ctx, id)
				if err != nil {
					return err
				}
				actions, _ = dig(was, "properties", "actions").([]any)
			}
			for _, rule := range allow {
				repo, words, ok := strings.Cut(rule, "=")
				if !ok {
					return usagef("--allow %q: expected REPOSITORY=ACTION,ACTION", rule)
				}
				for word := range strings.SplitSeq(words, ",") {
					if action := "repositories/" + repo + "/" + word; !slices.Contains(actions, any(action)) {
						actions = append(actions, action)
					}
				}
			}
			got, err := cl.Put(ctx, id, client.Object{"properties": client.Object{"actions": actions}})
			if err != nil {
				return err
			}
			return o.print.show(got, mapColumns...)
		})
		c.Flags().StringArrayVar(&allow, "allow", nil, "REPOSITORY=ACTION,ACTION")
		return c
	}
	set := put(&cobra.Command{
		Use: "set SCOPE-MAP", Short: "Create a scope map, or replace what it allows",
		Long:    "Create a scope map, or replace what it allows. --allow is a repository, below/* for\nall that lies below a name or * for all, and the actions there: content/read,\ncontent/write, content/delete, metadata/read, metadata/write. It may be repeated.",
		Example: "  cove scope-map set team --registry myregistry --allow 'team/*=content/read,content/write' --allow base=content/read",
	}, false)
	add := put(&cobra.Command{
		Use: "add SCOPE-MAP", Short: "Allow more by a scope map that there is",
		Example: "  cove scope-map add team --registry myregistry --allow base=content/read",
	}, true)
	root.AddCommand(
		set, add, o.list("scopeMaps", "List scope maps, the system's own first", mapColumns),
		o.remove("scopeMaps", "delete SCOPE-MAP", "Delete a scope map that no token uses"),
	)
	return root
}
