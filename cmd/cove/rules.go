package main

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/fault"
)

// trustedServices is the operator's table of services that may pass network
// rules, or the built-in one.
func trustedServices(file string) (*access.Trusted, error) {
	if file == "" {
		return access.NewTrusted(), nil
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "--trusted-services cannot be read: %v", err)
	}
	defer f.Close()
	t, err := access.ParseTrusted(f)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "--trusted-services %s: %v", file, err)
	}
	return t, nil
}

// endpointLimits reads REGISTRY=NUMBER.
func endpointLimits(list []string) (map[string]int, error) {
	out := map[string]int{}
	for _, text := range list {
		name, number, _ := strings.Cut(text, "=")
		n, err := strconv.Atoi(number)
		if name == "" || err != nil || n < 1 || n > 10_000 {
			return nil, fmt.Errorf("--private-endpoint-limit %q: expected REGISTRY=NUMBER, from 1 to 10000", text)
		}
		out[strings.ToLower(name)] = n
	}
	return out, nil
}

// serviceFrontEnd is where a member reaches the registries' public side: at the
// front end in its network if its subnet has a service endpoint, else by a way
// of its own.
func (s *server) serviceFrontEnd(front netip.Addr) func(network string, from netip.Addr) netip.Addr {
	return func(network string, from netip.Addr) netip.Addr {
		if m := s.networks.Member(network, from); m != nil && m.Service {
			return front
		}
		return netip.Addr{}
	}
}

// ruleList is one of the two lists of rules of a registry, as the commands
// edit it.
type ruleList struct{ property, key string }

var (
	addressRules = ruleList{"ipRules", "value"}
	subnetRules  = ruleList{"virtualNetworkRules", "id"}
)

func (l ruleList) of(set client.Object) []any {
	rules, _ := set[l.property].([]any)
	return rules
}

func (l ruleList) same(value string) func(any) bool {
	bare := func(s string) string { return strings.ToLower(strings.TrimSuffix(s, "/32")) }
	return func(r any) bool {
		o, _ := r.(client.Object)
		v, _ := o[l.key].(string)
		return bare(v) == bare(value)
	}
}

func (l ruleList) add(rules []any, value string) ([]any, error) {
	if slices.ContainsFunc(rules, l.same(value)) {
		return rules, nil
	}
	return append(rules, client.Object{"action": "Allow", l.key: value}), nil
}

func (l ruleList) remove(rules []any, value string) ([]any, error) {
	if !slices.ContainsFunc(rules, l.same(value)) {
		return nil, fault.Newf(fault.NotFound, "no rule admits exactly %s", value)
	}
	return slices.DeleteFunc(rules, l.same(value)), nil
}

// ruleRows are both lists, one after the other.
func ruleRows(set client.Object) []any {
	return slices.Concat(addressRules.of(set), subnetRules.of(set))
}

// subnetID is the id of VNET/SUBNET, or the id that was given.
func (a *app) subnetID(ctx context.Context, cl *client.Client, name string) (string, error) {
	if strings.HasPrefix(name, "/subscriptions/") {
		return name, nil
	}
	vnet, subnet, ok := strings.Cut(name, "/")
	if !ok || subnet == "" {
		return "", usagef("--subnet %s: name it as VNET/SUBNET", name)
	}
	id, err := a.find(ctx, cl, typeVNet, vnet)
	return id + "/subnets/" + url.PathEscape(subnet), err
}
