package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/dnsapi"
	"cove.example/cove/fault"
)

// way is what a client of registries has to reach, and no more.
type way struct {
	of        string       // what it is for, in words
	names     []string     // at port 443
	addresses []netip.Addr // that the names have, as this machine resolves them
	resolvers []netip.Addr // that this machine asks, loopback left out
	tunnel    netip.AddrPort
}

// firewall is one form that a way can be written in.
type firewall struct {
	addresses bool // it needs them; the others are about names
	write     func(way) string
}

var firewalls = map[string]firewall{
	"nftables":      {true, way.nftables},
	"networkpolicy": {true, way.networkPolicy},
	"squid":         {false, way.squid},
	"no-proxy":      {false, way.noProxy},
}

// firewallForms are the forms in the order in which they are told.
const firewallForms = "nftables, no-proxy, squid or networkpolicy"

// firewall writes the rules that let clients of a registry, or of all, through.
func (a *app) firewall(cmd *cobra.Command, cl *client.Client, form, tunnel string, args []string) error {
	f, ok := firewalls[form]
	if !ok {
		return usagef("--firewall %s: %s", form, firewallForms)
	}
	w, err := a.way(cmd.Context(), cl, args)
	if err != nil {
		return err
	}
	if f.addresses {
		if err := w.resolve(cmd.Context()); err != nil {
			return err
		}
	}
	if tunnel != "" {
		if form != "nftables" {
			return usagef("--tunnel goes with --firewall nftables")
		}
		at, err := net.ResolveUDPAddr("udp", tunnel)
		if err != nil {
			return usagef("--tunnel %s: %v", tunnel, err)
		}
		w.tunnel = netip.AddrPortFrom(at.AddrPort().Addr().Unmap(), at.AddrPort().Port())
	}
	_, err = io.WriteString(a.out, f.write(w))
	return err
}

// way collects the hosts of registries: login servers, data hosts where
// dedicated data endpoints are on, regions' login servers where they are.
func (a *app) way(ctx context.Context, cl *client.Client, args []string) (way, error) {
	var w way
	var list []any
	if len(args) == 1 {
		id, err := a.find(ctx, cl, typeRegistry, args[0])
		if err != nil {
			return w, err
		}
		reg, err := cl.Get(ctx, id)
		if err != nil {
			return w, err
		}
		list = []any{reg}
	} else {
		var err error
		if list, err = a.list(ctx, cl, typeRegistry); err != nil {
			return w, err
		}
	}
	for _, v := range list {
		reg, _ := v.(client.Object)
		w.add(dig(reg, "properties", "loginServer"))
		for _, hosts := range []string{"dataEndpointHostNames", "regionalEndpointHostNames"} {
			more, _ := dig(reg, "properties", hosts).([]any)
			for _, host := range more {
				w.add(host)
			}
		}
	}
	if len(w.names) == 0 {
		return w, fault.New(fault.NotFound, "there is no registry to let through")
	}
	if w.of = "every registry"; len(args) == 1 {
		w.of = w.names[0]
	}
	return w, nil
}

// add takes a host of the server's answer. What is no host name does not get
// into rules that somebody loads as root.
func (w *way) add(v any) {
	host, _ := v.(string)
	host = strings.ToLower(host)
	if host != "" && strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789.-") == "" && !slices.Contains(w.names, host) {
		w.names = append(w.names, host)
	}
}

// resolve asks this machine's resolver, since what counts is where the client
// will go: inside a network names have other addresses than outside.
func (w *way) resolve(ctx context.Context) error {
	for _, name := range w.names {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name+".")
		if err != nil {
			return fault.Newf(fault.Unavailable, "%s has no address here: run this where the client runs, whose names these are (%v)", name, err)
		}
		for _, a := range found {
			w.addresses = append(w.addresses, a.Unmap().WithZone(""))
		}
	}
	slices.SortFunc(w.addresses, netip.Addr.Compare)
	w.addresses = slices.Compact(w.addresses)
	servers, err := dnsapi.SystemResolvers("/etc/resolv.conf")
	if err != nil {
		return fault.Newf(fault.Unavailable, "this machine's resolvers are not known: %v", err)
	}
	for _, s := range servers {
		if a := s.Addr().Unmap(); !a.IsLoopback() && !slices.Contains(w.resolvers, a) {
			w.resolvers = append(w.resolvers, a)
		}
	}
	return nil
}

// nftables drops what leaves this machine but for the way. One table holds
// the whole: an accept of one table does not undo another's drop.
func (w way) nftables() string {
	var b strings.Builder
	fmt.Fprintf(&b, "#!/usr/sbin/nft -f\n# Lets this machine reach %s, and nothing else:\n", w.of)
	for _, name := range w.names {
		fmt.Fprintf(&b, "#   %s\n", name)
	}
	b.WriteString("# The addresses are those that the names had when this was written.\n")
	if len(w.resolvers) == 0 {
		b.WriteString("# The resolver is this machine itself: let through what it asks, too.\n")
	}
	b.WriteString(`table inet cove
delete table inet cove
table inet cove {
	chain out {
		type filter hook output priority filter; policy drop;
		oifname "lo" accept
		ct state established,related accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } accept
`)
	rule := func(addresses []netip.Addr, ports string) {
		for _, family := range []struct {
			word string
			is   func(netip.Addr) bool
		}{{"ip", netip.Addr.Is4}, {"ip6", netip.Addr.Is6}} {
			if set := pick(addresses, family.is); len(set) > 0 {
				fmt.Fprintf(&b, "\t\t%s daddr { %s } %s accept\n", family.word, strings.Join(set, ", "), ports)
			}
		}
	}
	rule(w.addresses, "tcp dport 443")
	rule(w.resolvers, "udp dport 53")
	rule(w.resolvers, "tcp dport 53")
	if w.tunnel.IsValid() {
		rule([]netip.Addr{w.tunnel.Addr()}, fmt.Sprintf("udp dport %d", w.tunnel.Port()))
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

func pick(addresses []netip.Addr, is func(netip.Addr) bool) (out []string) {
	for _, a := range addresses {
		if is(a) {
			out = append(out, a.String())
		}
	}
	return out
}

// networkPolicy is about pods that pull by themselves, such as builders: a
// node's own pulls are the node's traffic, and no policy's.
func (w way) networkPolicy() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Lets the pods of a namespace reach %s and the cluster's resolver,\n# and nothing else. A node's own pulls are not a pod's traffic.\n", w.of)
	for _, name := range w.names {
		fmt.Fprintf(&b, "#   %s\n", name)
	}
	b.WriteString(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: cove
spec:
  podSelector: {}
  policyTypes:
    - Egress
  egress:
    - to:
`)
	for _, a := range w.addresses {
		fmt.Fprintf(&b, "        - ipBlock:\n            cidr: %s/%d\n", a, a.BitLen())
	}
	b.WriteString(`      ports:
        - protocol: TCP
          port: 443
    - to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: kube-system
          podSelector:
            matchLabels:
              k8s-app: kube-dns
      ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
`)
	return b.String()
}

// squid has one name a line, so that a name that is another's beginning or end
// is not taken for it.
func (w way) squid() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Lets clients reach %s through this proxy, and nothing else.\n", w.of)
	for _, name := range w.names {
		fmt.Fprintf(&b, "acl cove_registry dstdomain %s\n", name)
	}
	b.WriteString(`acl cove_tls port 443
acl cove_connect method CONNECT
http_access allow cove_connect cove_registry cove_tls
http_access deny all
`)
	return b.String()
}

func (w way) noProxy() string { return strings.Join(w.names, ",") + "\n" }
