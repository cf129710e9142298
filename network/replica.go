package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// ActionReplicate is what adding a region to a registry needs on each private
// endpoint of it, since the endpoint gets another address.
const ActionReplicate = "Microsoft.Network/privateEndpoints/privateLinkServiceProxies/write"

// ErrReplicate is the failure of giving a private endpoint what a registry's
// new region needs.
var ErrReplicate = fault.Coded(fault.Invalid, "PrivateEndpointReplicationFailed", "a private endpoint of the registry cannot be extended to the new region")

// RegionsChanged gives every private endpoint of a registry the addresses for
// the data hosts that the registry now has, and takes away those that it has
// no more. It belongs into registry.Config.RegionsChanged.
//
// Where one endpoint cannot follow, nothing happens: a registry is never half
// in a region. An endpoint whose connection was approved by hand waits for
// approval again, because it now leads to more than what was approved.
func (cfg Config) RegionsChanged(ctx context.Context, tx resource.Tx, reg resource.Doc, by resource.Caller) error {
	connections, err := tx.List(ctx, resource.Query{Type: TypeConnection, Under: reg.ID})
	if err != nil {
		return err
	}
	for _, conn := range connections {
		pe, err := tx.Get(ctx, idAt(conn.Body, "properties", "privateEndpoint", "id"))
		if errors.Is(err, resource.ErrUnknown) || err == nil && !idAt(pe.Body, "cove", "connection").Equal(conn.ID) {
			continue // it goes with its group in this very transaction
		}
		if err != nil {
			return err
		}
		if err := cfg.extend(ctx, tx, reg, conn, pe, by); err != nil {
			return err
		}
	}
	return nil
}

// extend makes the members of one endpoint those of its registry.
func (cfg Config) extend(ctx context.Context, tx resource.Tx, reg, conn, pe resource.Doc, by resource.Caller) error {
	nics := objectsAt(pe.Body, "properties", "networkInterfaces")
	if len(nics) != 1 {
		return fmt.Errorf("the private endpoint %s has %d interfaces", pe.ID, len(nics))
	}
	nic, err := tx.Get(ctx, idAt(nics[0], "id"))
	if err != nil {
		return err
	}
	was := storedConfigs(nic.Body)
	private, _, err := cfg.private(reg)
	if err != nil {
		return err
	}
	var now []planned
	var added []member
	for _, m := range members(private) {
		if i := slices.IndexFunc(was, func(c ipConfig) bool { return memberOf(c) == m.name }); i >= 0 {
			now = append(now, planned{was[i], m})
		} else {
			added = append(added, m)
		}
	}
	if len(added) == 0 && len(now) == len(was) {
		return nil
	}
	if len(added) > 0 {
		var none problems
		if len(readStatic(&none, pe.Body)) > 0 {
			return staticConfigs(pe.ID, was, added)
		}
		if err := may(by, ActionReplicate, pe.ID); err != nil {
			return err
		}
		fresh, err := plan(nil, added, idAt(pe.Body, "properties", "subnet", "id"))
		if err != nil {
			return err
		}
		now = append(now, fresh...)
	}
	list := make([]ipConfig, len(now))
	for i, p := range now {
		list[i] = p.ipConfig
	}
	err = readdress(ctx, tx, nic.ID, was, list)
	if errors.Is(err, ErrSubnetFull) {
		return ErrReplicate.Detail("Failed to replicate private endpoint. The subnet of private endpoint %s has no free address. Delete a network interface or a private endpoint in it that is not used any more, and create the replication again.", pe.ID)
	}
	if err != nil {
		return err
	}
	bodies := make([]any, len(now))
	for i, p := range now {
		describe(p.body, p.member, i == 0)
		bodies[i] = p.body
	}
	set(nic.Body, bodies, "properties", "ipConfigurations")
	if err := tx.Put(ctx, &nic); err != nil {
		return err
	}
	return cfg.askAgain(ctx, tx, conn, pe, len(added) > 0)
}

// askAgain sets a manual connection that was approved to pending, and has the
// endpoint's zone groups write its records.
func (cfg Config) askAgain(ctx context.Context, tx resource.Tx, conn, pe resource.Doc, grew bool) error {
	var none problems
	ask := readAsked(&none, pe.Body)
	s := readState(conn.Body)
	if !grew || ask.list != manual || s.Status != Approved {
		return cfg.endpointChanged(ctx, tx, pe)
	}
	s = state{Pending, "The registry was extended to another region.", "None"}
	s.write(conn.Body)
	if err := tx.Put(ctx, &conn); err != nil {
		return err
	}
	return cfg.mirror(ctx, tx, pe.ID, conn.ID, s)
}

func memberOf(c ipConfig) string {
	return textAt(c.body, "properties", "privateLinkConnectionProperties", "requiredMemberName")
}

// describe writes what an address of an endpoint is for.
func describe(body resource.Object, m member, primary bool) {
	set(body, resource.Object{
		"groupId": GroupID, "requiredMemberName": m.name, "fqdns": []any{m.fqdn},
	}, "properties", "privateLinkConnectionProperties")
	set(body, primary, "properties", "primary")
}

// staticConfigs is Azure's refusal of an endpoint whose addresses were chosen
// one by one (source: the documentation of Azure Container Registry).
func staticConfigs(pe arm.ID, was []ipConfig, added []member) error {
	var have, missing []string
	for _, c := range was {
		have = append(have, fmt.Sprintf("GroupId: %s, MemberName: %s", GroupID, memberOf(c)))
	}
	for _, m := range added {
		missing = append(missing, fmt.Sprintf("GroupId: %s, MemberName: %s, IpVersion: IPv4", GroupID, m.name))
	}
	return ErrReplicate.Detail("Failed to replicate private endpoint. Private Endpoint %s contains static ipconfigurations: [%s] and it's missing these membernames/groupids requested by Private Link service [%s]. Private Endpoint needs to be reconfigured with missing memberNames.",
		pe, strings.Join(have, "; "), strings.Join(missing, "; "))
}
