package main

import (
	"net/netip"
	"slices"
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
}

func (f *registryFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.sku, "sku", "Premium", "Basic, Standard or Premium; private endpoints and network rules need Premium")
	fs.StringVar(&f.publicAccess, "public-network-enabled", "true", "whether addresses outside virtual networks may reach it: true or false")
	fs.StringVar(&f.defaultAction, "default-action", "Allow", "what happens to an address that no network rule names: Allow or Deny")
	fs.BoolVar(&f.admin, "admin-enabled", false, "switch the admin user on")
	fs.BoolVar(&f.anonymous, "anonymous-pull-enabled", false, "let everybody pull without signing in")
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

// ruleCommand edits a registry's address rules.
func (a *app) ruleCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "network-rule", Short: "Which public addresses may reach a registry"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	columns := []column{{"ACTION", "action"}, {"ADDRESS", "value"}}
	edit := func(change func(rules []any, value string) ([]any, error)) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			value := ""
			if len(args) > 1 {
				value = args[1]
				if _, err := netip.ParsePrefix(value); err != nil {
					if _, err := netip.ParseAddr(value); err != nil {
						return usagef("%q is neither an address nor a range such as 203.0.113.0/24", value)
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
			rules, _ := set["ipRules"].([]any)
			if change == nil {
				return a.print.show(rules, columns...)
			}
			if set["ipRules"], err = change(rules, value); err != nil {
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
			rules, _ = dig(out, "properties", "networkRuleSet", "ipRules").([]any)
			return a.print.show(rules, columns...)
		}
	}
	same := func(value string) func(any) bool {
		return func(r any) bool {
			o, _ := r.(client.Object)
			v, _ := o["value"].(string)
			return strings.TrimSuffix(v, "/32") == strings.TrimSuffix(value, "/32")
		}
	}
	root.AddCommand(
		&cobra.Command{
			Use: "add REGISTRY ADDRESS", Short: "Admit an address or range", Args: cobra.ExactArgs(2),
			Example: "  cove network-rule add myregistry 203.0.113.0/24",
			RunE: edit(func(rules []any, value string) ([]any, error) {
				if slices.ContainsFunc(rules, same(value)) {
					return rules, nil
				}
				return append(rules, client.Object{"action": "Allow", "value": value}), nil
			}),
		},
		&cobra.Command{
			Use: "remove REGISTRY ADDRESS", Short: "Take a rule away", Args: cobra.ExactArgs(2),
			RunE: edit(func(rules []any, value string) ([]any, error) {
				if !slices.ContainsFunc(rules, same(value)) {
					return nil, fault.Newf(fault.NotFound, "no rule admits exactly %s", value)
				}
				return slices.DeleteFunc(rules, same(value)), nil
			}),
		},
		&cobra.Command{Use: "list REGISTRY", Short: "List the rules", Args: cobra.ExactArgs(1), RunE: edit(nil)},
	)
	return root
}
