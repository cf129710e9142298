package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

var endpointColumns = []column{
	{"NAME", "name"},
	{"STATE", "state"},
	{"REGISTRY", "registry"},
	{"SUBNET", "subnet"},
	{"ADDRESSES", "addresses"},
}

func (a *app) endpointCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "private-endpoint", Short: "Give a registry an address inside a virtual network"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "resource group (default cove for what is made)")

	var registry, subnet, zone, location, message string
	var manual bool
	create := &cobra.Command{
		Use: "create NAME", Short: "Create a private endpoint", Args: cobra.ExactArgs(1),
		Example: "  cove private-endpoint create pe --registry myregistry --subnet office/default --zone privatelink.cr.cove.internal",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			cl, err := a.client()
			if err != nil {
				return err
			}
			regID, err := a.find(ctx, cl, typeRegistry, registry)
			if err != nil {
				return err
			}
			vnet, sub, ok := strings.Cut(subnet, "/")
			if !ok || sub == "" {
				return usagef("--subnet %q: name it as VNET/SUBNET", subnet)
			}
			vnetID, err := a.find(ctx, cl, typeVNet, vnet)
			if err != nil {
				return err
			}
			where, err := a.location(ctx, cl, location)
			if err != nil {
				return err
			}
			if err := a.ensureGroup(ctx, cl, where); err != nil {
				return err
			}
			connection := client.Object{"name": args[0], "properties": client.Object{
				"privateLinkServiceId": regID, "groupIds": []string{"registry"}, "requestMessage": message,
			}}
			list := "privateLinkServiceConnections"
			if manual {
				list = "manualPrivateLinkServiceConnections"
			}
			id := a.id(cl, typeEndpoint, args[0])
			out, err := cl.Put(ctx, id, client.Object{"location": where, "properties": client.Object{
				"subnet": client.Object{"id": vnetID + "/subnets/" + url.PathEscape(sub)},
				list:     []any{connection},
			}})
			if err != nil {
				return err
			}
			if zone != "" {
				if err := a.zoneGroup(cmd, cl, id, zone); err != nil {
					return fmt.Errorf("the private endpoint %s was made, but its DNS records were not: %w", args[0], err)
				}
				if out, err = cl.Get(ctx, id); err != nil {
					return err
				}
			}
			return a.print.show(summary(out), endpointColumns...)
		},
	}
	fs := create.Flags()
	fs.StringVar(&registry, "registry", "", "the registry that it leads to")
	fs.StringVar(&subnet, "subnet", "", "VNET/SUBNET that its addresses come from")
	fs.StringVar(&zone, "zone", "", "private DNS zone that its records are kept in")
	fs.StringVarP(&location, "location", "l", "", "region (default the server's)")
	fs.BoolVar(&manual, "manual-request", false, "wait for the registry's owner to approve")
	fs.StringVar(&message, "request-message", "", "what the owner is told")
	for _, name := range []string{"registry", "subnet"} {
		if err := create.MarkFlagRequired(name); err != nil {
			panic(err)
		}
	}
	root.AddCommand(create,
		&cobra.Command{
			Use: "list", Short: "List private endpoints", Args: cobra.NoArgs,
			RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
				list, err := a.list(cmd.Context(), cl, typeEndpoint)
				if err != nil {
					return err
				}
				for i, v := range list {
					if o, ok := v.(client.Object); ok {
						list[i] = summary(o)
					}
				}
				return a.print.show(list, endpointColumns...)
			}),
		},
		&cobra.Command{
			Use: "show NAME", Short: "Show a private endpoint, its names and addresses", Args: cobra.ExactArgs(1),
			RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
				id, err := a.find(cmd.Context(), cl, typeEndpoint, args[0])
				if err != nil {
					return err
				}
				out, err := cl.Get(cmd.Context(), id)
				if err != nil {
					return err
				}
				if err := a.print.show(summary(out), endpointColumns...); err != nil || a.print.format != "table" || a.print.query != "" {
					return err
				}
				names, _ := dig(out, "properties", "customDnsConfigs").([]any)
				fmt.Fprintln(a.out)
				return a.print.show(names, column{"SERVES", "fqdn"}, column{"ADDRESS", "ipAddresses"})
			}),
		},
		a.deleteCommand("Delete a private endpoint, its addresses and records", typeEndpoint),
		a.decideCommand("approve", "Approved", "Let a private endpoint's traffic in"),
		a.decideCommand("reject", "Rejected", "Refuse a private endpoint's traffic from now on"),
	)
	return root
}

func (a *app) zoneGroup(cmd *cobra.Command, cl *client.Client, endpoint, zone string) error {
	zoneID, err := a.find(cmd.Context(), cl, typeZone, zone)
	if err != nil {
		return err
	}
	_, err = cl.Put(cmd.Context(), endpoint+"/privateDnsZoneGroups/default", client.Object{"properties": client.Object{
		"privateDnsZoneConfigs": []any{client.Object{"name": strings.ReplaceAll(zone, ".", "-"), "properties": client.Object{"privateDnsZoneId": zoneID}}},
	}})
	return err
}

// decideCommand sets the state of an endpoint's connection on its registry;
// the argument is the private endpoint's name or the connection's.
func (a *app) decideCommand(verb, status, short string) *cobra.Command {
	var registry, description string
	c := &cobra.Command{
		Use: verb + " NAME", Short: short, Args: cobra.ExactArgs(1),
		Example: "  cove private-endpoint " + verb + " pe --registry myregistry",
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			cl, err := a.client()
			if err != nil {
				return err
			}
			regID := ""
			if registry != "" {
				regID, err = a.find(ctx, cl, typeRegistry, registry)
			} else {
				regID, err = a.registryOf(cmd, cl, args[0])
			}
			if err != nil {
				return err
			}
			list, err := cl.List(ctx, regID+"/privateEndpointConnections")
			if err != nil {
				return err
			}
			for _, v := range list {
				conn, _ := v.(client.Object)
				name, _ := conn["name"].(string)
				pe, _ := dig(conn, "properties", "privateEndpoint", "id").(string)
				if !strings.EqualFold(name, args[0]) && !strings.EqualFold(lastName(pe), args[0]) {
					continue
				}
				id, _ := conn["id"].(string)
				out, err := cl.Put(ctx, id, client.Object{"properties": client.Object{
					"privateEndpoint":                   client.Object{"id": pe},
					"privateLinkServiceConnectionState": client.Object{"status": status, "description": description},
				}})
				if err != nil {
					return err
				}
				return a.print.show(out, column{"CONNECTION", "name"}, column{"STATE", "properties.privateLinkServiceConnectionState.status"})
			}
			return fault.Newf(fault.NotFound, "%s has no connection from a private endpoint %s", lastName(regID), args[0])
		},
	}
	c.Flags().StringVar(&registry, "registry", "", "the registry (default: where the private endpoint leads)")
	c.Flags().StringVar(&description, "description", "", "why, for whoever asked")
	return c
}

// registryOf is the registry that a private endpoint leads to.
func (a *app) registryOf(cmd *cobra.Command, cl *client.Client, endpoint string) (string, error) {
	id, err := a.find(cmd.Context(), cl, typeEndpoint, endpoint)
	if err != nil {
		return "", err
	}
	pe, err := cl.Get(cmd.Context(), id)
	if err != nil {
		return "", err
	}
	for _, conn := range connections(pe) {
		if target, ok := dig(conn, "properties", "privateLinkServiceId").(string); ok {
			return target, nil
		}
	}
	return "", fault.Newf(fault.NotFound, "%s leads to no registry", endpoint)
}

func connections(pe client.Object) []client.Object {
	var out []client.Object
	for _, key := range []string{"privateLinkServiceConnections", "manualPrivateLinkServiceConnections"} {
		list, _ := dig(pe, "properties", key).([]any)
		for _, v := range list {
			if o, ok := v.(client.Object); ok {
				out = append(out, o)
			}
		}
	}
	return out
}

// summary adds to a private endpoint what a person looks for first.
func summary(pe client.Object) client.Object {
	if subnet, ok := dig(pe, "properties", "subnet", "id").(string); ok {
		parts := strings.Split(subnet, "/")
		if len(parts) > 3 {
			pe["subnet"] = parts[len(parts)-3] + "/" + parts[len(parts)-1]
		}
	}
	for _, conn := range connections(pe) {
		target, _ := dig(conn, "properties", "privateLinkServiceId").(string)
		pe["registry"] = lastName(target)
		pe["state"] = dig(conn, "properties", "privateLinkServiceConnectionState", "status")
	}
	var addresses []any
	names, _ := dig(pe, "properties", "customDnsConfigs").([]any)
	for _, v := range names {
		if o, ok := v.(client.Object); ok {
			list, _ := o["ipAddresses"].([]any)
			addresses = append(addresses, list...)
		}
	}
	pe["addresses"] = addresses
	return pe
}
