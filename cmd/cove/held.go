package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"cove.example/cove/client"
	"cove.example/cove/health"
	"cove.example/cove/network"
	"cove.example/cove/reason"
)

// holder is a private endpoint of the registry that is checked.
type holder struct {
	name, vnet, state string
	subnet            string // NETWORK/SUBNET
	addrs             map[string][]netip.Addr
}

// endpointsTo are the private endpoints that lead, or have led, to a registry, as
// far as whoever asks may see them: none is no failure, since the check does
// without.
func endpointsTo(ctx context.Context, cl *client.Client, registry string) (out []holder) {
	list, err := cl.List(ctx, cl.Scope()+"/providers/"+typeEndpoint)
	if err != nil {
		return nil
	}
	for _, v := range list {
		pe, _ := v.(client.Object)
		if !slices.ContainsFunc(connections(pe), func(c client.Object) bool {
			target, _ := dig(c, "properties", "privateLinkServiceId").(string)
			return strings.EqualFold(target, registry)
		}) {
			continue
		}
		s := summary(pe)
		h := holder{name: text(pe["name"]), state: text(s["state"]), subnet: text(s["subnet"]), addrs: addressesOf(pe)}
		h.vnet, _, _ = strings.Cut(h.subnet, "/")
		out = append(out, h)
	}
	return out
}

// addressesOf are the addresses that a private endpoint holds, by name.
func addressesOf(pe client.Object) map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	configs, _ := dig(pe, "properties", "customDnsConfigs").([]any)
	for _, c := range configs {
		o, _ := c.(client.Object)
		name, _ := o["fqdn"].(string)
		addrs, _ := o["ipAddresses"].([]any)
		for _, s := range addrs {
			if addr, err := netip.ParseAddr(text(s)); err == nil {
				out[name] = append(out[name], addr)
			}
		}
	}
	return out
}

// absent says of a network in which the registry has no private endpoint that
// it has none, and what has become of the one that it had.
func absent(held []holder, vnet, registry, zone string) health.Result {
	r := health.Result{Layer: health.LayerControl, Subject: vnet, Outcome: health.Passed, Said: "no private endpoint of " + registry + " lies in " + vnet}
	for _, h := range held {
		switch {
		case h.state == "Disconnected" && strings.EqualFold(h.vnet, vnet):
			r.Outcome, r.Code = health.Failed, reason.EndpointDead
			r.Said = fmt.Sprintf("%s lies in %s and is cut off from %s for good", h.name, vnet, registry)
			r.Fix = fmt.Sprintf("cove private-endpoint delete %[1]s && cove private-endpoint create %[1]s --registry %[2]s --subnet %[3]s --zone %[4]s", h.name, registry, h.subnet, zone)
			return r
		case h.state == "Approved":
			r.Said += "; " + h.name + " lies in " + h.vnet
		}
	}
	return r
}

// strays looks at private addresses that did not answer: one that no private
// endpoint of the registry holds is a wrong record, and no firewall's doing.
func strays(r health.Report, held []holder) {
	for i := range r.Results {
		x := &r.Results[i]
		switch x.Code {
		case reason.PathSilent, reason.PathRefused, reason.NoRoute:
		default:
			continue
		}
		dialled, _, _ := strings.Cut(x.Said, ":")
		addr, err := netip.ParseAddr(dialled)
		if err != nil || !addr.IsPrivate() || x.Layer != health.LayerConnect && x.Layer != health.LayerData {
			continue
		}
		var by []string
		known := false
		for _, h := range held {
			if list := h.addrs[x.Subject]; h.state == "Approved" && len(list) > 0 {
				known = known || slices.Contains(list, addr)
				by = append(by, h.name)
				x.Evidence = append(x.Evidence, fmt.Sprintf("the private endpoint %s in %s holds %s for it", h.name, h.vnet, list[0]))
			}
		}
		if known || len(by) == 0 {
			x.Evidence = x.Evidence[:len(x.Evidence)-len(by)]
			continue
		}
		x.Said += fmt.Sprintf(", and no private endpoint of the registry holds %s", addr)
		x.Code, x.Fix = reason.NameElsewhere, ""
		if len(by) == 1 {
			x.Fix = "cove dns record sync --private-endpoint " + by[0]
		}
	}
}

// forwards looks at names that lead to the public address, or nowhere, where a
// private endpoint of the network holds them. Where the network's own resolver
// knows better, nothing is wrong with its zones and links: this machine asks
// another.
func forwards(ctx context.Context, r health.Report, w health.Way, holds map[string][]netip.Addr, suffix string) {
	ctx, cancel := context.WithTimeout(ctx, health.Patience)
	defer cancel()
	own := health.Resolvers([]string{netip.AddrPortFrom(network.Resolver, 53).String()}, w.Dial, nil)
	for i := range r.Results {
		x := &r.Results[i]
		switch x.Code {
		case reason.NamePublic, reason.DataNamePublic, reason.NameUnknown, reason.ResolverSilent, reason.ResolverFails:
		default:
			continue
		}
		a, err := own(ctx, x.Subject)
		if err != nil || len(a.Addrs) == 0 || !slices.Contains(holds[x.Subject], a.Addrs[0]) {
			continue
		}
		x.Evidence = append(x.Evidence, fmt.Sprintf("the network's resolver %s says %s", network.Resolver, a.Addrs[0]))
		x.Fix = fmt.Sprintf("let this machine, or the resolver that it asks, send questions about %s to %s", suffix, network.Resolver)
	}
}
