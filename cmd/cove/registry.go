package main

import (
	"context"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

var registryColumns = []column{
	{"NAME", "name"},
	{"GROUP", "resourceGroup"},
	{"LOCATION", "location"},
	{"SKU", "sku.name"},
	{"LOGIN SERVER", "properties.loginServer"},
	{"PUBLIC ACCESS", "properties.publicNetworkAccess"},
	{"ADMIN USER", "properties.adminUserEnabled"},
}

// registryFlags are the settings that create and update have in common.
type registryFlags struct {
	sku, publicAccess, defaultAction string
	admin, anonymous, dataEndpoint   bool
	asManager                        bool
	mode                             string
}

func (f *registryFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.sku, "sku", "Premium", "Basic, Standard or Premium; private endpoints and network rules need Premium")
	fs.StringVar(&f.publicAccess, "public-network-enabled", "true", "whether addresses outside virtual networks may reach it: true or false")
	fs.StringVar(&f.defaultAction, "default-action", "Allow", "what happens to an address that no network rule names: Allow or Deny")
	fs.BoolVar(&f.admin, "admin-enabled", false, "switch the admin user on")
	fs.BoolVar(&f.anonymous, "anonymous-pull-enabled", false, "let everybody pull without signing in")
	fs.StringVar(&f.mode, "role-assignment-mode", "rbac", "what decides about content: rbac, or rbac-abac for repository roles with conditions")
	fs.BoolVar(&f.asManager, "authentication-as-arm", true, "take access tokens for the Resource Manager, besides those for registries")
	fs.BoolVar(&f.dataEndpoint, "data-endpoint-enabled", false, "serve layers from the region's data endpoint")
}

// body is what the flags that were given ask for.
func (f *registryFlags) body(c *cobra.Command, all bool) (client.Object, error) {
	given := func(name string) bool { return all || c.Flags().Changed(name) }
	body, props := client.Object{}, client.Object{}
	if given("sku") {
		body["sku"] = client.Object{"name": f.sku}
	}
	if given("public-network-enabled") {
		switch strings.ToLower(f.publicAccess) {
		case "true", "enabled":
			props["publicNetworkAccess"] = "Enabled"
		case "false", "disabled":
			props["publicNetworkAccess"] = "Disabled"
		default:
			return nil, usagef("--public-network-enabled %s: true or false", f.publicAccess)
		}
	}
	if c.Flags().Changed("default-action") {
		props["networkRuleSet"] = client.Object{"defaultAction": f.defaultAction}
	}
	if given("admin-enabled") {
		props["adminUserEnabled"] = f.admin
	}
	if c.Flags().Changed("anonymous-pull-enabled") {
		props["anonymousPullEnabled"] = f.anonymous
	}
	if c.Flags().Changed("data-endpoint-enabled") {
		props["dataEndpointEnabled"] = f.dataEndpoint
	}
	if c.Flags().Changed("authentication-as-arm") {
		status := "disabled"
		if f.asManager {
			status = "enabled"
		}
		props["policies"] = client.Object{"azureADAuthenticationAsArmPolicy": client.Object{"status": status}}
	}
	if c.Flags().Changed("role-assignment-mode") {
		mode, ok := map[string]string{"rbac": "LegacyRegistryPermissions", "rbac-abac": "AbacRepositoryPermissions"}[f.mode]
		if !ok {
			return nil, usagef("--role-assignment-mode %s: rbac or rbac-abac", f.mode)
		}
		props["roleAssignmentMode"] = mode
	}
	if !c.Flags().Changed("public-network-enabled") && all {
		delete(props, "publicNetworkAccess") // the deployment's default
	}
	if len(props) > 0 {
		body["properties"] = props
	}
	return body, nil
}

func (a *app) registryCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "registry", Short: "Create and configure registries"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "resource group (default cove for what is made)")

	var create registryFlags
	var location string
	c := &cobra.Command{
		Use: "create NAME", Short: "Create a registry", Args: cobra.ExactArgs(1),
		Example: "  cove registry create myregistry\n  cove registry create myregistry --public-network-enabled false --admin-enabled",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			body, err := create.body(cmd, true)
			if err != nil {
				return err
			}
			if body["location"], err = a.location(cmd.Context(), cl, location); err != nil {
				return err
			}
			if err := a.ensureGroup(cmd.Context(), cl, body["location"].(string)); err != nil {
				return err
			}
			id := a.id(cl, typeRegistry, args[0])
			if _, err := cl.Get(cmd.Context(), id); err == nil {
				return fault.Newf(fault.Conflict, "the registry %s exists; `cove registry update %s …` changes it", args[0], args[0])
			} else if !client.NotFound(err) {
				return err
			}
			out, err := cl.Put(cmd.Context(), id, body)
			if err != nil {
				return err
			}
			return a.print.show(withGroups([]any{out})[0], registryColumns...)
		}),
	}
	create.add(c)
	c.Flags().StringVarP(&location, "location", "l", "", "region (default the server's)")
	root.AddCommand(c)

	root.AddCommand(a.importCommand())
	root.AddCommand(&cobra.Command{
		Use: "list", Short: "List registries", Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := a.list(cmd.Context(), cl, typeRegistry)
			if err != nil {
				return err
			}
			return a.print.show(withGroups(list), registryColumns...)
		}),
	})
	root.AddCommand(a.showCommand("Show a registry", typeRegistry, registryColumns))
	root.AddCommand(a.deleteCommand("Delete a registry and everything in it", typeRegistry))

	var update registryFlags
	u := &cobra.Command{
		Use: "update NAME", Short: "Change a registry's settings", Args: cobra.ExactArgs(1),
		Example: "  cove registry update myregistry --public-network-enabled false",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			body, err := update.body(cmd, false)
			if err != nil {
				return err
			}
			if len(body) == 0 {
				return usagef("nothing to change: name a setting, such as --public-network-enabled false")
			}
			id, err := a.find(cmd.Context(), cl, typeRegistry, args[0])
			if err != nil {
				return err
			}
			out, err := cl.Patch(cmd.Context(), id, body)
			if err != nil {
				return err
			}
			return a.print.show(withGroups([]any{out})[0], registryColumns...)
		}),
	}
	update.add(u)
	root.AddCommand(u, a.credentialCommand())
	return root
}

func (a *app) credentialCommand() *cobra.Command {
	root := &cobra.Command{Use: "credential", Short: "The admin user's passwords"}
	columns := []column{{"USER", "username"}, {"PASSWORD", "passwords[?name=='password'].value | [0]"}, {"PASSWORD2", "passwords[?name=='password2'].value | [0]"}}
	act := func(action string, body func() client.Object) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.find(cmd.Context(), cl, typeRegistry, args[0])
			if err != nil {
				return err
			}
			out, err := cl.Post(cmd.Context(), id+"/"+action, body())
			if err != nil {
				return err
			}
			return a.print.show(out, columns...)
		}
	}
	root.AddCommand(&cobra.Command{
		Use: "show REGISTRY", Short: "Show user name and passwords", Args: cobra.ExactArgs(1),
		Example: "  cove registry credential show myregistry --query 'passwords[0].value' -o tsv",
		RunE:    act("listCredentials", func() client.Object { return client.Object{} }),
	})
	name := "password"
	renew := &cobra.Command{
		Use: "renew REGISTRY", Short: "Make one of the two passwords anew", Args: cobra.ExactArgs(1),
		RunE: act("regenerateCredential", func() client.Object { return client.Object{"name": name} }),
	}
	renew.Flags().StringVar(&name, "password-name", "password", "password or password2")
	root.AddCommand(renew)
	return root
}

func (a *app) showCommand(short, typ string, columns []column) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			id, err := a.find(cmd.Context(), cl, typ, args[0])
			if err != nil {
				return err
			}
			out, err := cl.Get(cmd.Context(), id)
			if err != nil {
				return err
			}
			return a.print.show(withGroups([]any{out})[0], columns...)
		}),
	}
}

func (a *app) deleteCommand(short, typ string) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: short, Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			id, err := a.find(cmd.Context(), cl, typ, args[0])
			if err != nil {
				return err
			}
			return cl.Delete(cmd.Context(), id)
		}),
	}
}

// ruleCommand edits a registry's rules for addresses and for subnets.
func (a *app) ruleCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "network-rule", Short: "Which public addresses and which subnets may reach a registry"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	columns := []column{{"ACTION", "action"}, {"ADDRESS", "value || id"}}
	var subnet string
	// which is the list that an argument or --subnet is for, and its value.
	which := func(ctx context.Context, cl *client.Client, args []string) (ruleList, string, error) {
		if subnet == "" {
			return addressRules, args[1], nil
		}
		id, err := a.subnetID(ctx, cl, subnet)
		return subnetRules, id, err
	}
	edit := func(change func(l ruleList, rules []any, value string) ([]any, error)) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			if change != nil && (len(args) == 2) == (subnet != "") {
				return usagef("name either an address or --subnet VNET/SUBNET")
			}
			if len(args) > 1 {
				if _, err := netip.ParsePrefix(args[1]); err != nil {
					if _, err := netip.ParseAddr(args[1]); err != nil {
						return usagef("%q is neither an address nor a range such as 203.0.113.0/24", args[1])
					}
				}
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			id, err := a.find(cmd.Context(), cl, typeRegistry, args[0])
			if err != nil {
				return err
			}
			reg, err := cl.Get(cmd.Context(), id)
			if err != nil {
				return err
			}
			set, _ := dig(reg, "properties", "networkRuleSet").(client.Object)
			if set == nil {
				set = client.Object{"defaultAction": "Allow"}
			}
			if change == nil {
				return a.print.show(ruleRows(set), columns...)
			}
			list, value, err := which(cmd.Context(), cl, args)
			if err != nil {
				return err
			}
			if set[list.property], err = change(list, list.of(set), value); err != nil {
				return err
			}
			out, err := cl.Patch(cmd.Context(), id, client.Object{"properties": client.Object{"networkRuleSet": set}})
			if err != nil {
				return err
			}
			if dig(out, "properties", "networkRuleSet", "defaultAction") == "Allow" {
				a.note("note: every address may reach %s while its default action is Allow; `cove registry update %s --default-action Deny` makes the rules count", args[0], args[0])
			}
			if dig(out, "properties", "publicNetworkAccess") == "Disabled" {
				a.note("note: public access of %s is off, so no rule counts; `cove registry update %s --public-network-enabled true` turns it on", args[0], args[0])
			}
			set, _ = dig(out, "properties", "networkRuleSet").(client.Object)
			return a.print.show(ruleRows(set), columns...)
		}
	}
	add := &cobra.Command{
		Use: "add REGISTRY [ADDRESS]", Short: "Admit an address, a range or a subnet", Args: cobra.RangeArgs(1, 2),
		Example: "  cove network-rule add myregistry 203.0.113.0/24\n  cove network-rule add myregistry --subnet office/build",
		RunE:    edit(ruleList.add),
	}
	remove := &cobra.Command{
		Use: "remove REGISTRY [ADDRESS]", Short: "Take a rule away", Args: cobra.RangeArgs(1, 2),
		RunE: edit(ruleList.remove),
	}
	for _, c := range []*cobra.Command{add, remove} {
		c.Flags().StringVar(&subnet, "subnet", "", "VNET/SUBNET, or the id of a subnet; it has a service endpoint")
	}
	root.AddCommand(add, remove, &cobra.Command{Use: "list REGISTRY", Short: "List the rules", Args: cobra.ExactArgs(1), RunE: edit(nil)})
	return root
}
