package main

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
)

var vnetColumns = []column{
	{"NAME", "name"},
	{"GROUP", "resourceGroup"},
	{"LOCATION", "location"},
	{"ADDRESS SPACE", "properties.addressSpace.addressPrefixes"},
	{"SUBNETS", "properties.subnets[].name"},
}

func (a *app) vnetCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "vnet", Short: "Create virtual networks"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "resource group (default cove for what is made)")
	var prefixes []string
	var location, subnet, subnetPrefix string
	c := &cobra.Command{
		Use: "create NAME", Short: "Create a virtual network", Args: cobra.ExactArgs(1),
		Example: "  cove vnet create office --address-prefix 10.0.0.0/16 --subnet-name default --subnet-prefix 10.0.0.0/24",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			where, err := a.location(cmd.Context(), cl, location)
			if err != nil {
				return err
			}
			if err := a.ensureGroup(cmd.Context(), cl, where); err != nil {
				return err
			}
			props := client.Object{"addressSpace": client.Object{"addressPrefixes": prefixes}}
			if subnet != "" {
				if subnetPrefix == "" {
					// As az: the first /24 of the address space, or all of it.
					p, err := netip.ParsePrefix(prefixes[0])
					if err != nil {
						return usagef("--address-prefix %q is not a range such as 10.0.0.0/16", prefixes[0])
					}
					subnetPrefix = netip.PrefixFrom(p.Addr(), max(p.Bits(), 24)).String()
				}
				props["subnets"] = []any{client.Object{"name": subnet, "properties": client.Object{"addressPrefix": subnetPrefix}}}
			}
			out, err := cl.Put(cmd.Context(), a.id(cl, typeVNet, args[0]), client.Object{"location": where, "properties": props})
			if err != nil {
				return err
			}
			return a.print.show(withGroups([]any{out})[0], vnetColumns...)
		}),
	}
	c.Flags().StringSliceVar(&prefixes, "address-prefix", []string{"10.0.0.0/16"}, "address space; repeatable")
	c.Flags().StringVar(&subnet, "subnet-name", "", "make this subnet too")
	c.Flags().StringVar(&subnetPrefix, "subnet-prefix", "", "its range (default the first /24)")
	c.Flags().StringVarP(&location, "location", "l", "", "region (default the server's)")
	root.AddCommand(c, &cobra.Command{
		Use: "list", Short: "List virtual networks", Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := a.list(cmd.Context(), cl, typeVNet)
			if err != nil {
				return err
			}
			return a.print.show(withGroups(list), vnetColumns...)
		}),
	}, a.showCommand("Show a virtual network", typeVNet, vnetColumns), a.deleteCommand("Delete a virtual network that nothing uses", typeVNet))
	return root
}

var subnetColumns = []column{
	{"NAME", "name"},
	{"RANGE", "properties.addressPrefix"},
	{"ENDPOINT POLICIES", "properties.privateEndpointNetworkPolicies"},
}

func (a *app) subnetCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "subnet", Short: "Divide a virtual network"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the virtual network's resource group")
	// on runs do with the id of the subnet VNET/SUBNET, or of the VNet's
	// subnets when the argument names only a VNet.
	on := func(do func(cmd *cobra.Command, cl *client.Client, id string) (any, error)) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			cl, err := a.client()
			if err != nil {
				return err
			}
			vnet, subnet, _ := strings.Cut(args[0], "/")
			id, err := a.find(cmd.Context(), cl, typeVNet, vnet)
			if err != nil {
				return err
			}
			id += "/subnets"
			if subnet != "" {
				id += "/" + url.PathEscape(subnet)
			}
			out, err := do(cmd, cl, id)
			if err != nil || out == nil {
				return err
			}
			return a.print.show(out, subnetColumns...)
		}
	}
	named := func(_ *cobra.Command, args []string) error {
		if len(args) != 1 || !strings.Contains(args[0], "/") {
			return usagef("name the subnet as VNET/SUBNET")
		}
		return nil
	}
	var prefix string
	create := &cobra.Command{
		Use: "create VNET/SUBNET", Short: "Create a subnet", Args: named,
		Example: "  cove subnet create office/endpoints --address-prefix 10.0.1.0/24",
		RunE: on(func(cmd *cobra.Command, cl *client.Client, id string) (any, error) {
			return cl.Put(cmd.Context(), id, client.Object{"properties": client.Object{"addressPrefix": prefix}})
		}),
	}
	create.Flags().StringVar(&prefix, "address-prefix", "", "its range, inside the virtual network's")
	if err := create.MarkFlagRequired("address-prefix"); err != nil {
		panic(err)
	}
	root.AddCommand(create, a.subnetUpdateCommand(),
		&cobra.Command{Use: "list VNET", Short: "List subnets", Args: cobra.ExactArgs(1), RunE: on(func(cmd *cobra.Command, cl *client.Client, id string) (any, error) {
			return cl.List(cmd.Context(), id)
		})},
		&cobra.Command{Use: "show VNET/SUBNET", Short: "Show a subnet", Args: named, RunE: on(func(cmd *cobra.Command, cl *client.Client, id string) (any, error) {
			return cl.Get(cmd.Context(), id)
		})},
		&cobra.Command{Use: "delete VNET/SUBNET", Short: "Delete a subnet that nothing uses", Args: named, RunE: on(func(cmd *cobra.Command, cl *client.Client, id string) (any, error) {
			return nil, cl.Delete(cmd.Context(), id)
		})},
	)
	return root
}

// subnetUpdateCommand changes what a subnet's machines and private endpoints
// can do. What is not named stays.
func (a *app) subnetUpdateCommand() *cobra.Command {
	var service, policies bool
	var group string
	c := &cobra.Command{
		Use: "update VNET/SUBNET", Short: "Change a subnet's service endpoint and security group", Args: cobra.ExactArgs(1),
		Example: "  cove subnet update office/build --service-endpoint\n  cove subnet update office/build --security-group walls --private-endpoint-policies",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			id, err := a.subnetID(cmd.Context(), cl, args[0])
			if err != nil {
				return err
			}
			props := client.Object{}
			if cmd.Flags().Changed("service-endpoint") {
				props["serviceEndpoints"] = []any{}
				if service {
					props["serviceEndpoints"] = []any{client.Object{"service": "Microsoft.ContainerRegistry"}}
				}
			}
			if cmd.Flags().Changed("private-endpoint-policies") {
				props["privateEndpointNetworkPolicies"] = "Disabled"
				if policies {
					props["privateEndpointNetworkPolicies"] = "Enabled"
				}
			}
			if cmd.Flags().Changed("security-group") {
				props["networkSecurityGroup"] = nil
				if group != "" {
					found, err := a.find(cmd.Context(), cl, typeGroup, group)
					if err != nil {
						return err
					}
					props["networkSecurityGroup"] = client.Object{"id": found}
				}
			}
			if len(props) == 0 {
				return usagef("nothing to change: name a setting, such as --service-endpoint")
			}
			out, err := cl.Patch(cmd.Context(), id, client.Object{"properties": props})
			if err != nil {
				return err
			}
			return a.print.show(out, subnetColumns...)
		}),
	}
	c.Flags().BoolVar(&service, "service-endpoint", false, "its machines reach registries' public side from inside the network, as this subnet")
	c.Flags().BoolVar(&policies, "private-endpoint-policies", false, "its security group counts for private endpoints in it too")
	c.Flags().StringVar(&group, "security-group", "", "its network security group; \"\" takes it away")
	return c
}
