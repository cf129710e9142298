package main

import (
	"context"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/health"
	"cove.example/cove/network"
	"cove.example/cove/reason"
)

// walls asks the control plane, where a connection out of a network got no
// answer, whether a security group is why: its rules drop without a word, and
// seen from the member look like any firewall. Where that cannot be asked the
// report stays as it is.
func (a *app) walls(ctx context.Context, cl *client.Client, f checkFlags, host string, w health.Way, r health.Report) {
	if cl == nil || f.vnet == "" {
		return
	}
	for i := range r.Results {
		silent := &r.Results[i]
		if silent.Layer != health.LayerConnect || silent.Code != reason.PathSilent {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, health.Patience)
		defer cancel()
		if rule, why := a.denied(ctx, cl, f.vnet, host, w); rule != "" {
			silent.Code, silent.Fix = reason.GroupDenies, ""
			silent.Evidence = append(silent.Evidence, why)
		}
		return
	}
}

// denied is the security rule that keeps this machine, a member of a network,
// from a registry, and what the control plane says of it; both are "" where
// none is known to.
func (a *app) denied(ctx context.Context, cl *client.Client, vnet, host string, w health.Way) (rule, why string) {
	// Nothing is sent: the system only says which address would be sent from.
	conn, err := w.Dial(ctx, "udp", net.JoinHostPort(network.Resolver.String(), "53"))
	if err != nil {
		return "", ""
	}
	defer conn.Close()
	from, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return "", ""
	}
	doc, err := a.get(ctx, cl, typeVNet, vnet)
	if err != nil {
		return "", ""
	}
	name, _, _ := strings.Cut(host, ".")
	registry, err := a.get(ctx, cl, typeRegistry, name)
	if err != nil {
		return "", ""
	}
	subnets, _ := dig(doc, "properties", "subnets").([]any)
	for _, s := range subnets {
		o, _ := s.(client.Object)
		prefix, err := netip.ParsePrefix(text(dig(o, "properties", "addressPrefix")))
		if err != nil || !prefix.Contains(from.Addr()) {
			continue
		}
		e, _, err := asked(ctx, cl, client.Object{
			"registry": registry["id"], "who": client.Object{"kind": access.KindAnonymous},
			"from":   client.Object{"subnet": text(doc["id"]) + "/subnets/" + url.PathEscape(text(o["name"])), "address": from.Addr().String()},
			"scopes": []any{client.Object{"type": "registry", "name": "catalog", "action": "*"}},
		})
		if err != nil || e.Reason != reason.GroupDenies || len(e.Steps) == 0 {
			return "", ""
		}
		last := e.Steps[len(e.Steps)-1]
		return last.Rule, last.Why
	}
	return "", ""
}
