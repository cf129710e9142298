package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
	"cove.example/cove/policy"
)

const typeAssignment = "Microsoft.Authorization/roleAssignments"

var roleColumns = []column{{"ROLE", "role"}, {"PRINCIPAL", "properties.principalId"}, {"SCOPE", "properties.scope"}, {"NAME", "name"}, {"CONDITION", "properties.condition"}}

func (a *app) roleCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "role", Short: "Who may do what"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	var scope, registry, condition, repository string
	// where is the id that --scope or --registry name, the subscription
	// without either.
	where := func(cmd *cobra.Command, cl *client.Client) (string, error) {
		switch {
		case scope != "" && registry != "":
			return "", usagef("--scope and --registry exclude each other")
		case registry != "":
			return a.find(cmd.Context(), cl, typeRegistry, registry)
		case scope != "":
			if !strings.HasPrefix(scope, "/subscriptions/") {
				return "", usagef("--scope %q: a resource id, which begins with /subscriptions/", scope)
			}
			return strings.TrimRight(scope, "/"), nil
		}
		return cl.Scope(), nil
	}
	assign := &cobra.Command{
		Use: "assign PRINCIPAL ROLE", Short: "Give a principal a role", Args: cobra.ExactArgs(2),
		Long:    "Give a principal, named by its object id, a built-in role on a registry or\nanother scope. With --repository it counts for that repository alone, besides those\nfor which the principal has the role already; that is for registries whose\npermissions mode is rbac-abac.",
		Example: "  cove role assign 5b1c6a0e-2f43-4f0b-9a53-6f2f5a3c9d10 AcrPull --registry myregistry\n  cove role assign 5b1c6a0e-2f43-4f0b-9a53-6f2f5a3c9d10 'Container Registry Repository Reader' --registry myregistry --repository 'team/*'",
		RunE: func(cmd *cobra.Command, args []string) error {
			role := roleNamed(args[1])
			if role == nil {
				return usagef("there is no built-in role %q; AcrPull, AcrPush, AcrDelete, Reader, Contributor and Owner are some", args[1])
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			at, err := where(cmd, cl)
			if err != nil {
				return err
			}
			if repository != "" {
				if condition != "" {
					return usagef("--condition and --repository exclude each other")
				}
				if condition, err = alsoFor(cmd.Context(), cl, args[0], role, at, repository); err != nil {
					return err
				}
			}
			out, err := assignRole(cmd.Context(), cl, args[0], role, at, condition)
			if err != nil {
				return err
			}
			return a.print.show(withRoles([]any{out})[0], roleColumns...)
		},
	}
	list := &cobra.Command{
		Use: "list", Short: "List role assignments at a scope and below it", Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			at, err := where(cmd, cl)
			if err != nil {
				return err
			}
			all, err := assignments(cmd.Context(), cl, at)
			if err != nil {
				return err
			}
			return a.print.show(withRoles(all), roleColumns...)
		}),
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Take a role assignment away", Args: cobra.ExactArgs(1),
		Long: "Take away the role assignment of this name, as `cove role list` shows it.",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			at, err := where(cmd, cl)
			if err != nil {
				return err
			}
			all, err := assignments(cmd.Context(), cl, at)
			if err != nil {
				return err
			}
			for _, v := range all {
				o, _ := v.(client.Object)
				if id, _ := o["id"].(string); strings.EqualFold(lastName(id), args[0]) {
					return cl.Delete(cmd.Context(), id)
				}
			}
			return fault.Newf(fault.NotFound, "there is no role assignment %s; `cove role list` shows what there is", url.PathEscape(args[0]))
		}),
	}
	assign.Flags().StringVar(&condition, "condition", "", "when the assignment counts, in the language of Azure role assignment conditions")
	assign.Flags().StringVar(&repository, "repository", "", "one repository for which the assignment counts, or NAME/* for those below a name")
	for _, c := range []*cobra.Command{assign, list, remove} {
		c.Flags().StringVar(&scope, "scope", "", "a resource id (default the subscription)")
		c.Flags().StringVar(&registry, "registry", "", "a registry, by name")
		root.AddCommand(c)
	}
	return root
}

// assignments are those at a scope and below it. The server lists those above,
// which count there too, as well: nobody takes one of them away by way of a
// scope that merely inherits it.
func assignments(ctx context.Context, cl *client.Client, at string) ([]any, error) {
	all, err := cl.List(ctx, at+"/providers/"+typeAssignment)
	return slices.DeleteFunc(all, func(v any) bool {
		o, _ := v.(client.Object)
		id, _ := o["id"].(string)
		return !strings.HasPrefix(strings.ToLower(id), strings.ToLower(at)+"/")
	}), err
}

// assignRole gives a principal a role at a scope. The name of the assignment
// follows from what it says, so that saying it twice is one assignment; one
// that somebody else has made under another name is as good, if it has the same
// condition.
// alsoFor is the condition under which an assignment counts for a repository,
// and wherever else it counts already: a principal has a role once at a scope.
func alsoFor(ctx context.Context, cl *client.Client, principal string, role *policy.Role, at, repository string) (string, error) {
	if strings.ContainsAny(repository, "'\"") {
		return "", usagef("--repository %q is no repository", repository)
	}
	want := policy.OnlyRepository(repository)
	all, err := assignments(ctx, cl, at)
	if err != nil {
		return "", err
	}
	for _, v := range all {
		o, _ := v.(client.Object)
		scope, _ := dig(o, "properties", "scope").(string)
		who, _ := dig(o, "properties", "principalId").(string)
		what, _ := dig(o, "properties", "roleDefinitionId").(string)
		if !strings.EqualFold(scope, at) || !strings.EqualFold(who, principal) || !strings.EqualFold(lastName(what), role.ID) {
			continue
		}
		under, _ := dig(o, "properties", "condition").(string)
		switch {
		case under == "", strings.Contains(under, want):
			return under, nil
		default:
			return "(" + under + ") OR " + want, nil
		}
	}
	return want, nil
}

func assignRole(ctx context.Context, cl *client.Client, principal string, role *policy.Role, at, condition string) (client.Object, error) {
	sum := sha256.Sum256([]byte(strings.ToLower(principal + "\n" + role.ID + "\n" + at)))
	properties := client.Object{
		"roleDefinitionId": cl.Scope() + "/providers/Microsoft.Authorization/roleDefinitions/" + role.ID,
		"principalId":      principal,
	}
	if condition != "" {
		properties["condition"], properties["conditionVersion"] = condition, "2.0"
	}
	out, err := cl.Put(ctx, at+"/providers/"+typeAssignment+"/"+guid(sum), client.Object{"properties": properties})
	if e, ok := errors.AsType[*client.Error](err); !ok || e.Code != "RoleAssignmentExists" {
		return out, err
	}
	all, listErr := assignments(ctx, cl, at)
	if listErr != nil {
		return nil, listErr
	}
	for _, v := range all {
		o, _ := v.(client.Object)
		scope, _ := dig(o, "properties", "scope").(string)
		who, _ := dig(o, "properties", "principalId").(string)
		what, _ := dig(o, "properties", "roleDefinitionId").(string)
		under, _ := dig(o, "properties", "condition").(string)
		if under == condition && strings.EqualFold(scope, at) && strings.EqualFold(who, principal) && strings.EqualFold(lastName(what), role.ID) {
			return o, nil
		}
	}
	return nil, err
}

// guid is a hash as a GUID (RFC 9562, version 8: a value of our own making).
func guid(h [32]byte) string {
	h[6] = h[6]&0x0f | 0x80
	h[8] = h[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", h[:4], h[4:6], h[6:8], h[8:10], h[10:16])
}

// roleNamed is a built-in role by its name, or by its GUID.
func roleNamed(s string) *policy.Role {
	if r := policy.BuiltinByName(s); r != nil {
		return r
	}
	return policy.BuiltinByID(s)
}

func withRoles(list []any) []any {
	for _, v := range list {
		o, _ := v.(client.Object)
		id, _ := dig(o, "properties", "roleDefinitionId").(string)
		if r := policy.BuiltinByID(lastName(id)); r != nil {
			o["role"] = r.Name
		}
	}
	return list
}
