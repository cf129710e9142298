package main

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
)

func (a *app) dnsCommand() *cobra.Command {
	root := a.asClient(&cobra.Command{Use: "dns", Short: "Private DNS zones, their links and records"})
	root.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "resource group (default cove for what is made)")
	root.AddCommand(a.zoneCommand(), a.linkCommand(), a.recordCommand())
	return root
}

var zoneColumns = []column{{"NAME", "name"}, {"GROUP", "resourceGroup"}, {"RECORD SETS", "properties.numberOfRecordSets"}, {"LINKS", "properties.numberOfVirtualNetworkLinks"}}

func (a *app) zoneCommand() *cobra.Command {
	zone := &cobra.Command{Use: "zone", Short: "Private DNS zones"}
	zone.AddCommand(&cobra.Command{
		Use: "create NAME", Short: "Create a private DNS zone", Args: cobra.ExactArgs(1),
		Long:    "Create a private DNS zone. Only a zone named privatelink.<registry suffix> changes\nwhere registries' names lead.",
		Example: "  cove dns zone create privatelink.cr.cove.internal",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			where, err := a.location(cmd.Context(), cl, "")
			if err != nil {
				return err
			}
			if err := a.ensureGroup(cmd.Context(), cl, where); err != nil {
				return err
			}
			out, err := cl.Put(cmd.Context(), a.id(cl, typeZone, args[0]), client.Object{"location": "global"})
			if err != nil {
				return err
			}
			return a.print.show(withGroups([]any{out})[0], zoneColumns...)
		}),
	}, &cobra.Command{
		Use: "list", Short: "List private DNS zones", Args: cobra.NoArgs,
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			list, err := a.list(cmd.Context(), cl, typeZone)
			if err != nil {
				return err
			}
			return a.print.show(withGroups(list), zoneColumns...)
		}),
	}, a.deleteCommand("Delete a private DNS zone without links", typeZone))
	return zone
}

var linkColumns = []column{{"NAME", "name"}, {"VIRTUAL NETWORK", "properties.virtualNetwork.id"}, {"STATE", "properties.virtualNetworkLinkState"}}

func (a *app) linkCommand() *cobra.Command {
	link := &cobra.Command{Use: "link", Short: "Which virtual networks see a zone"}
	var vnet, name, policy string
	add := &cobra.Command{
		Use: "add ZONE", Short: "Link a zone to a virtual network", Args: cobra.ExactArgs(1),
		Example: "  cove dns link add privatelink.cr.cove.internal --vnet office",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			zoneID, err := a.find(cmd.Context(), cl, typeZone, args[0])
			if err != nil {
				return err
			}
			vnetID, err := a.find(cmd.Context(), cl, typeVNet, vnet)
			if err != nil {
				return err
			}
			if name == "" {
				name = lastName(vnetID)
			}
			out, err := cl.Put(cmd.Context(), zoneID+"/virtualNetworkLinks/"+url.PathEscape(name), client.Object{
				"location":   "global",
				"properties": client.Object{"virtualNetwork": client.Object{"id": vnetID}, "registrationEnabled": false, "resolutionPolicy": policy},
			})
			if err != nil {
				return err
			}
			return a.print.show(out, linkColumns...)
		}),
	}
	add.Flags().StringVar(&vnet, "vnet", "", "the virtual network")
	add.Flags().StringVar(&name, "name", "", "the link's name (default the virtual network's)")
	add.Flags().StringVar(&policy, "resolution-policy", "Default", "what a name is that the zone lacks: Default, which is none, or NxDomainRedirect, the public one")
	if err := add.MarkFlagRequired("vnet"); err != nil {
		panic(err)
	}
	link.AddCommand(add, &cobra.Command{
		Use: "list ZONE", Short: "List a zone's links", Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			zoneID, err := a.find(cmd.Context(), cl, typeZone, args[0])
			if err != nil {
				return err
			}
			list, err := cl.List(cmd.Context(), zoneID+"/virtualNetworkLinks")
			if err != nil {
				return err
			}
			return a.print.show(list, linkColumns...)
		}),
	}, &cobra.Command{
		Use: "remove ZONE NAME", Short: "Take a link away", Args: cobra.ExactArgs(2),
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			zoneID, err := a.find(cmd.Context(), cl, typeZone, args[0])
			if err != nil {
				return err
			}
			return cl.Delete(cmd.Context(), zoneID+"/virtualNetworkLinks/"+url.PathEscape(args[1]))
		}),
	})
	return link
}

var recordColumns = []column{{"NAME", "name"}, {"TTL", "properties.ttl"}, {"ADDRESSES", "properties.aRecords[].ipv4Address"}}

func (a *app) recordCommand() *cobra.Command {
	record := &cobra.Command{Use: "record", Short: "A records of a zone"}
	// onSet runs do with the id of the A record set ZONE NAME.
	onSet := func(do func(cmd *cobra.Command, cl *client.Client, id string, addresses []string) (any, error)) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, args []string) error {
			for _, s := range args[2:] {
				if ip, err := netip.ParseAddr(s); err != nil || !ip.Is4() {
					return usagef("%q is not an IPv4 address", s)
				}
			}
			cl, err := a.client()
			if err != nil {
				return err
			}
			zoneID, err := a.find(cmd.Context(), cl, typeZone, args[0])
			if err != nil {
				return err
			}
			out, err := do(cmd, cl, zoneID+"/A/"+url.PathEscape(args[1]), args[2:])
			if err != nil || out == nil {
				return err
			}
			return a.print.show(out, recordColumns...)
		}
	}
	put := func(cmd *cobra.Command, cl *client.Client, id string, set client.Object, addresses []string) (any, error) {
		var records []any
		for _, s := range addresses {
			records = append(records, client.Object{"ipv4Address": s})
		}
		ttl := dig(set, "properties", "ttl")
		if ttl == nil {
			ttl = 10
		}
		return cl.Put(cmd.Context(), id, client.Object{"properties": client.Object{"ttl": ttl, "aRecords": records}})
	}
	current := func(set client.Object) []string {
		var out []string
		list, _ := dig(set, "properties", "aRecords").([]any)
		for _, v := range list {
			if o, ok := v.(client.Object); ok {
				if s, ok := o["ipv4Address"].(string); ok {
					out = append(out, s)
				}
			}
		}
		return out
	}
	record.AddCommand(&cobra.Command{
		Use: "add ZONE NAME ADDRESS…", Short: "Add addresses to a name", Args: cobra.MinimumNArgs(3),
		Example: "  cove dns record add privatelink.cr.cove.internal myregistry 10.0.0.7",
		RunE: onSet(func(cmd *cobra.Command, cl *client.Client, id string, add []string) (any, error) {
			set, err := cl.Get(cmd.Context(), id)
			if err != nil && !client.NotFound(err) {
				return nil, err
			}
			all := current(set)
			for _, s := range add {
				if !slices.Contains(all, s) {
					all = append(all, s)
				}
			}
			return put(cmd, cl, id, set, all)
		}),
	}, &cobra.Command{
		Use: "remove ZONE NAME [ADDRESS…]", Short: "Remove addresses of a name, or the name", Args: cobra.MinimumNArgs(2),
		Example: "  cove dns record remove privatelink.cr.cove.internal myregistry",
		RunE: onSet(func(cmd *cobra.Command, cl *client.Client, id string, gone []string) (any, error) {
			set, err := cl.Get(cmd.Context(), id)
			if err != nil {
				return nil, err
			}
			rest := slices.DeleteFunc(current(set), func(s string) bool { return slices.Contains(gone, s) })
			if len(gone) == 0 || len(rest) == 0 {
				return nil, cl.Delete(cmd.Context(), id)
			}
			if len(rest) == len(current(set)) {
				return nil, fault.Newf(fault.NotFound, "%s has none of these addresses", lastName(id))
			}
			return put(cmd, cl, id, set, rest)
		}),
	}, &cobra.Command{
		Use: "list ZONE", Short: "List the A records of a zone", Args: cobra.ExactArgs(1),
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, args []string) error {
			zoneID, err := a.find(cmd.Context(), cl, typeZone, args[0])
			if err != nil {
				return err
			}
			list, err := cl.List(cmd.Context(), zoneID+"/A")
			if err != nil {
				return err
			}
			return a.print.show(list, recordColumns...)
		}),
	})
	var endpoint, zone string
	sync := &cobra.Command{
		Use: "sync --private-endpoint NAME", Short: "Give a zone the records that a private endpoint needs", Args: cobra.NoArgs,
		Long:    "Write the A records of a private endpoint's names, one for the login server and\none for each data endpoint, with the addresses that it has now. Other records of\nthe zone stay as they are.",
		Example: "  cove dns record sync --private-endpoint pe",
		RunE: a.do(func(cmd *cobra.Command, cl *client.Client, _ []string) error {
			out, err := a.syncRecords(cmd.Context(), cl, endpoint, zone)
			if err != nil {
				return err
			}
			return a.print.show(out, recordColumns...)
		}),
	}
	sync.Flags().StringVar(&endpoint, "private-endpoint", "", "whose names and addresses")
	sync.Flags().StringVar(&zone, "zone", "", "the private DNS zone (default privatelink. and the registry suffix)")
	if err := sync.MarkFlagRequired("private-endpoint"); err != nil {
		panic(err)
	}
	record.AddCommand(sync)
	return record
}

// syncRecords writes the record sets of a private endpoint's names that differ
// from its addresses, and returns all of them.
func (a *app) syncRecords(ctx context.Context, cl *client.Client, endpoint, zone string) ([]any, error) {
	id, err := a.find(ctx, cl, typeEndpoint, endpoint)
	if err != nil {
		return nil, err
	}
	pe, err := cl.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if zone == "" {
		zone = privatePrefix + cl.Profile.RegistrySuffix
	}
	zoneID, err := a.find(ctx, cl, typeZone, zone)
	if err != nil {
		return nil, err
	}
	var out []any
	configs, _ := dig(pe, "properties", "customDnsConfigs").([]any)
	for _, c := range configs {
		o, _ := c.(client.Object)
		fqdn, _ := o["fqdn"].(string)
		name, ok := strings.CutSuffix(fqdn, "."+strings.TrimPrefix(lastName(zoneID), privatePrefix))
		addresses, _ := o["ipAddresses"].([]any)
		if !ok || len(addresses) == 0 {
			continue
		}
		var records []any
		for _, s := range addresses {
			records = append(records, client.Object{"ipv4Address": s})
		}
		set, err := cl.Put(ctx, zoneID+"/A/"+url.PathEscape(name), client.Object{"properties": client.Object{"ttl": 10, "aRecords": records}})
		if err != nil {
			return nil, err
		}
		out = append(out, set)
	}
	if len(out) == 0 {
		return nil, fault.Newf(fault.Invalid, "%s serves no name below %s", endpoint, strings.TrimPrefix(lastName(zoneID), privatePrefix))
	}
	return out, nil
}

// privatePrefix is what a private zone's name puts before the registry suffix.
const privatePrefix = "privatelink."
