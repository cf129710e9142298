package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

var (
	principalColumns = []column{{"NAME", "displayName"}, {"CLIENT ID", "appId"}, {"OBJECT ID", "id"}, {"SECRETS", "length(passwordCredentials)"}}
	secretColumns    = []column{{"KEY ID", "keyId"}, {"NAME", "displayName"}, {"BEGINS WITH", "hint"}, {"ENDS", "endDateTime"}}
)

// directoryDo is do for commands that speak to the directory.
func (a *app) directoryDo(fn func(cmd *cobra.Command, cl, graph *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
		graph, err := cl.Graph(cmd.Context())
		if err != nil {
			return err
		}
		return fn(cmd, cl, graph, args)
	})
}

func (a *app) principalCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "principal", Short: "Service principals: who signs in with a client id and a secret"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	root.AddCommand(a.principalCreateCommand())
	root.AddCommand(&cobra.Command{
		Use: "list", Short: "List service principals", Args: cobra.NoArgs,
		RunE: a.directoryDo(func(cmd *cobra.Command, _, graph *client.Client, _ []string) error {
			list, err := graph.List(cmd.Context(), "/servicePrincipals")
			if err != nil {
				return err
			}
			return a.print.show(list, principalColumns...)
		}),
	})
	root.AddCommand(&cobra.Command{
		Use: "delete PRINCIPAL", Short: "Delete a service principal, its application and its secrets", Args: cobra.ExactArgs(1),
		Long: "Delete a service principal, named by its name, client id or object id, with its\napplication and its secrets. What was signed in with them ends within 10 seconds.",
		RunE: a.directoryDo(func(cmd *cobra.Command, _, graph *client.Client, args []string) error {
			p, err := findPrincipal(cmd.Context(), graph, args[0])
			if err != nil {
				return err
			}
			return deletePrincipal(cmd.Context(), graph, p)
		}),
	})
	secret := &cobra.Command{Use: "secret", Short: "A service principal's secrets"}
	secret.AddCommand(a.secretAddCommand(), &cobra.Command{
		Use: "list PRINCIPAL", Short: "List a service principal's secrets, which are shown by their first characters", Args: cobra.ExactArgs(1),
		RunE: a.directoryDo(func(cmd *cobra.Command, _, graph *client.Client, args []string) error {
			p, err := findPrincipal(cmd.Context(), graph, args[0])
			if err != nil {
				return err
			}
			list, _ := p["passwordCredentials"].([]any)
			return a.print.show(list, secretColumns...)
		}),
	}, &cobra.Command{
		Use: "remove PRINCIPAL KEY-ID", Short: "End a secret", Args: cobra.ExactArgs(2),
		Long: "End a secret, named by its key id as `cove principal secret list` shows it. What\nwas signed in with it ends within 10 seconds.",
		RunE: a.directoryDo(func(cmd *cobra.Command, _, graph *client.Client, args []string) error {
			p, err := findPrincipal(cmd.Context(), graph, args[0])
			if err != nil {
				return err
			}
			_, err = graph.Post(cmd.Context(), objectPath(p)+"/removePassword", client.Object{"keyId": args[1]})
			return err
		}),
	})
	root.AddCommand(secret)
	return root
}

func (a *app) principalCreateCommand() *cobra.Command {
	var role, scope, registry string
	var days int
	c := &cobra.Command{
		Use: "create NAME", Short: "Create a service principal with a secret, which is shown once", Args: cobra.ExactArgs(1),
		Example: "  cove principal create ci --role AcrPull --registry myregistry\n  cove principal create deployer --role Contributor",
		RunE: a.directoryDo(func(cmd *cobra.Command, cl, graph *client.Client, args []string) error {
			ctx := cmd.Context()
			r := roleNamed(role)
			switch {
			case role == "" && (scope != "" || registry != ""):
				return usagef("--role says which role to give at --scope or --registry")
			case role != "" && r == nil:
				return usagef("there is no built-in role %q; AcrPull, AcrPush, AcrDelete, Reader, Contributor and Owner are some", role)
			case scope != "" && registry != "":
				return usagef("--scope and --registry exclude each other")
			case days < 1:
				return usagef("--days %d: 1 or more", days)
			}
			at := cl.Scope()
			if scope != "" {
				at = strings.TrimRight(scope, "/")
			}
			var err error
			if registry != "" {
				if at, err = a.find(ctx, cl, typeRegistry, registry); err != nil {
					return err
				}
			}
			named, err := graph.List(ctx, "/servicePrincipals?$filter="+url.QueryEscape("displayName eq '"+strings.ReplaceAll(args[0], "'", "''")+"'"))
			if err != nil {
				return err
			}
			if len(named) > 0 {
				return fault.Newf(fault.Conflict, "there is a principal %s; `cove principal secret add %s` gives it another secret", args[0], args[0])
			}
			app, err := graph.Post(ctx, "/applications", client.Object{"displayName": args[0]})
			if err != nil {
				return err
			}
			out, err := equip(ctx, graph, app, days, func(objectID string) error {
				if r == nil {
					return nil
				}
				_, err := assignRole(ctx, cl, objectID, r, at, "")
				return err
			})
			if err != nil {
				// Half a principal would be in the way of the next try.
				if undo := graph.Delete(ctx, objectPath(app)); undo != nil {
					a.note("the application %v was made and could not be taken away again: %s", app["id"], sentence(undo))
				}
				return err
			}
			out["tenantId"] = cl.Profile.TenantID
			if r != nil {
				out["role"], out["scope"] = r.Name, at
			}
			return a.showSecret(out)
		}),
	}
	c.Flags().StringVar(&role, "role", "", "a built-in role to give it")
	c.Flags().StringVar(&scope, "scope", "", "where the role counts: a resource id (default the subscription)")
	c.Flags().StringVar(&registry, "registry", "", "where the role counts: a registry, by name")
	c.Flags().IntVar(&days, "days", 365, "how long the secret is good")
	return c
}

// equip gives an application a service principal, that its roles, and last a
// secret: when somebody has one, it works.
func equip(ctx context.Context, graph *client.Client, app client.Object, days int, assign func(objectID string) error) (client.Object, error) {
	p, err := graph.Post(ctx, "/servicePrincipals", client.Object{"appId": app["appId"]})
	if err != nil {
		return nil, err
	}
	id, _ := p["id"].(string)
	if err := assign(id); err != nil {
		return nil, err
	}
	return addSecret(ctx, graph, p, "", days)
}

func (a *app) secretAddCommand() *cobra.Command {
	var name string
	var days int
	c := &cobra.Command{
		Use: "add PRINCIPAL", Short: "Give a service principal another secret, which is shown once", Args: cobra.ExactArgs(1),
		RunE: a.directoryDo(func(cmd *cobra.Command, cl, graph *client.Client, args []string) error {
			if days < 1 {
				return usagef("--days %d: 1 or more", days)
			}
			p, err := findPrincipal(cmd.Context(), graph, args[0])
			if err != nil {
				return err
			}
			out, err := addSecret(cmd.Context(), graph, p, name, days)
			if err != nil {
				return err
			}
			out["tenantId"] = cl.Profile.TenantID
			return a.showSecret(out)
		}),
	}
	c.Flags().StringVar(&name, "name", "", "what to call it in lists")
	c.Flags().IntVar(&days, "days", 365, "how long it is good")
	return c
}

func addSecret(ctx context.Context, graph *client.Client, p client.Object, name string, days int) (client.Object, error) {
	made, err := graph.Post(ctx, objectPath(p)+"/addPassword", client.Object{"passwordCredential": client.Object{
		"displayName": name, "endDateTime": time.Now().UTC().AddDate(0, 0, days).Format(time.RFC3339),
	}})
	if err != nil {
		return nil, err
	}
	return client.Object{
		"name": p["displayName"], "clientId": p["appId"], "objectId": p["id"],
		"clientSecret": made["secretText"], "keyId": made["keyId"], "ends": made["endDateTime"],
	}, nil
}

// showSecret prints one name and value a line: a column might be cut to the
// terminal's width, and what is cut here is lost.
func (a *app) showSecret(o client.Object) error {
	if a.print.format != "table" || a.print.query != "" {
		return a.print.show(o)
	}
	names := []string{"name", "clientId", "clientSecret", "tenantId", "objectId", "keyId", "ends", "role", "scope"}
	for _, name := range slices.DeleteFunc(names, func(n string) bool { return o[n] == nil }) {
		if _, err := fmt.Fprintf(a.out, "%-13s %s\n", name, clean(text(o[name]))); err != nil {
			return err
		}
	}
	a.note("The secret is not shown again.")
	return nil
}

// findPrincipal finds a service principal by client id, name or object id.
func findPrincipal(ctx context.Context, graph *client.Client, named string) (client.Object, error) {
	quoted := strings.ReplaceAll(named, "'", "''")
	for _, filter := range []string{"appId eq '" + quoted + "'", "displayName eq '" + quoted + "'"} {
		found, err := graph.List(ctx, "/servicePrincipals?$filter="+url.QueryEscape(filter))
		if err != nil {
			return nil, err
		}
		if len(found) > 1 {
			return nil, fault.Newf(fault.Conflict, "there are %d principals of the name %s: say which by its client id, as `cove principal list` shows it", len(found), named)
		}
		if len(found) == 1 {
			p, _ := found[0].(client.Object)
			return p, nil
		}
	}
	p, err := graph.Get(ctx, "/servicePrincipals/"+url.PathEscape(named))
	if e, ok := errors.AsType[*client.Error](err); ok && e.Status < 500 && e.Status != 401 && e.Status != 403 {
		return nil, fault.Newf(fault.NotFound, "there is no principal %s; `cove principal list` shows what there is", named)
	}
	return p, err
}

// deletePrincipal deletes the application, and the service principal with it,
// or that alone where it has none.
func deletePrincipal(ctx context.Context, graph *client.Client, p client.Object) error {
	apps, err := graph.List(ctx, "/applications?$filter="+url.QueryEscape(fmt.Sprintf("appId eq '%v'", p["appId"])))
	if err != nil {
		return err
	}
	if len(apps) > 0 {
		app, _ := apps[0].(client.Object)
		p = app
	}
	return graph.Delete(ctx, objectPath(p))
}

// objectPath is where an application or a service principal is.
func objectPath(o client.Object) string {
	id, _ := o["id"].(string)
	if o["servicePrincipalNames"] != nil {
		return "/servicePrincipals/" + url.PathEscape(id)
	}
	return "/applications/" + url.PathEscape(id)
}
