package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

const (
	pathSubnetRules = "properties.networkRuleSet.virtualNetworkRules"

	typeSubnet = "Microsoft.Network/virtualNetworks/subnets"
	// service is what a subnet's service endpoint is for, and the namespace
	// that the subnet's subscription must be registered for (row 15).
	service = "Microsoft.ContainerRegistry"
	// actionUseSubnet is what naming a subnet in a rule needs on the subnet.
	actionUseSubnet = "Microsoft.Network/virtualNetworks/subnets/joinViaServiceEndpoint/action"
)

// The failures of naming a subnet in a registry's rules.
var (
	// ErrSubnetRule is Azure's answer where the subnet's subscription, or the
	// caller, does not let the registry look at the network (row 16).
	ErrSubnetRule = fault.Coded(fault.Denied, "LinkedAuthorizationFailed", "the network rule could not be validated")
	ErrNoService  = fault.Coded(fault.Invalid, "SubnetsHaveNoServiceEndpointsConfigured", "the subnet has no service endpoint for registries")
	ErrNoSubnet   = fault.Coded(fault.Invalid, "InvalidResourceReference", "a subnet that a rule names was not found")
	// ErrExclusive is a subnet rule beside a private endpoint (row 11).
	ErrExclusive = fault.Coded(fault.Invalid, "PrivateEndpointAndServiceEndpointConflict", "a registry has private endpoints or subnet rules, not both")
)

// subnetRules checks the rules that name subnets and stores them as they are
// compared: one for each subnet.
func (k *checker) subnetRules(set resource.Object) int {
	list, ok := set["virtualNetworkRules"].([]any)
	if !ok && set["virtualNetworkRules"] != nil {
		k.bad(pathSubnetRules, "must be a list")
		return 0
	}
	if len(list) == 0 {
		delete(set, "virtualNetworkRules") // newer versions of the API do not have it
		return 0
	}
	seen := map[string]bool{}
	var kept []any
	for i, v := range list {
		path := fmt.Sprintf("%s[%d]", pathSubnetRules, i)
		o, ok := v.(resource.Object)
		if !ok {
			k.bad(path, "must be an object with an id")
			continue
		}
		if twice := resource.Spell(o, "action", "id"); twice != "" {
			k.bad(path+"."+twice, "is given twice, in spellings that differ in case only")
		}
		if action, _ := o["action"].(string); o["action"] != nil && !strings.EqualFold(action, "Allow") {
			k.bad(path+".action", "must be Allow")
		}
		text, _ := o["id"].(string)
		id, err := arm.ParseID(text)
		if err != nil || !strings.EqualFold(id.Type(), typeSubnet) {
			k.bad(path+".id", "%.300q is not the id of a subnet", text)
			continue
		}
		if seen[id.Key()] {
			continue
		}
		seen[id.Key()] = true
		kept = append(kept, resource.Object{"action": "Allow", "id": id.String()})
	}
	if len(k.problems) == 0 {
		set["virtualNetworkRules"] = kept
	}
	if len(kept) > maxSubnetRules {
		k.bad(pathSubnetRules, "The requested feature virtual network rule exceeds allowed quota %d for the SKU %s.", maxSubnetRules, Premium)
	}
	return len(kept)
}

// storedSubnets are the subnets of a document's rules, in their order.
func storedSubnets(doc *resource.Doc) ([]arm.ID, error) {
	list, _ := resource.Lookup(doc.Body, pathSubnetRules).([]any)
	out := make([]arm.ID, 0, len(list))
	for _, v := range list {
		o, _ := v.(resource.Object)
		text, _ := o["id"].(string)
		id, err := arm.ParseID(text)
		if err != nil {
			return nil, err
		}
		out = append(out, id)
	}
	return out, nil
}

// putSubnetRules validates the rules that are new. Those that were there stay
// valid whatever became of their subnets since, so that nothing else about the
// registry is frozen by a subnet that somebody else has deleted.
func (c Config) putSubnetRules(ctx context.Context, r resource.Reader, ch *resource.Change) error {
	now, err := storedSubnets(ch.New)
	if err != nil {
		return err
	}
	had := map[string]bool{}
	if ch.Old != nil {
		was, err := storedSubnets(ch.Old)
		if err != nil {
			return err
		}
		for _, id := range was {
			had[id.Key()] = true
		}
	}
	exclusive := false
	var wrong []error
	for i, id := range now {
		if had[id.Key()] {
			continue
		}
		if !exclusive {
			all, err := r.List(ctx, resource.Query{Type: TypeConnection, Under: ch.New.ID})
			if err != nil {
				return err
			}
			if approved(all) > 0 {
				return fault.At(pathSubnetRules, ErrExclusive.Detail("The registry %s has private endpoint connections. A registry is reached from virtual networks through private endpoints or by subnet rules, not both: delete the private endpoints before you add a subnet rule.", ch.New.ID.Name()))
			}
			exclusive = true
		}
		wrong = append(wrong, fault.At(fmt.Sprintf("%s[%d].id", pathSubnetRules, i), validateSubnet(ctx, r, ch, id)))
	}
	return fault.All(wrong...)
}

// validateSubnet asks what the network's owner would be asked. A subnet that is
// not there and one that the caller may not use are told apart by nothing: a
// registry's owner must not find out whose networks exist.
func validateSubnet(ctx context.Context, r resource.Reader, ch *resource.Change, subnet arm.ID) error {
	refused := ErrSubnetRule.Detail("Failed to save firewall and virtual network settings for container registry '%s'. Error: Could not validate network rule - The client '%s' with object id '%s' does not have authorization to perform action 'Microsoft.Network/virtualNetworks/taggedTrafficConsumers/validate/action' over scope '%s/taggedTrafficConsumers/%s' or the scope is invalid. If access was recently granted, please refresh your credentials.",
		ch.New.ID.Name(), ch.Caller.Name, ch.Caller.ObjectID, subnet.Parent(), service)
	if ch.Caller.May == nil || !ch.Caller.May(actionUseSubnet, subnet) {
		return refused
	}
	state, err := resource.Registration(ctx, r, subnet.Subscription(), service)
	if err != nil {
		return err
	}
	if state != resource.Registered {
		return refused
	}
	doc, err := r.Get(ctx, subnet)
	if errors.Is(err, resource.ErrUnknown) {
		return ErrNoSubnet.Detail("The subnet '%s' was not found.", subnet)
	}
	if err != nil {
		return err
	}
	list, _ := resource.Lookup(doc.Body, "properties.serviceEndpoints").([]any)
	for _, v := range list {
		if o, _ := v.(resource.Object); o["service"] == service {
			return nil
		}
	}
	return ErrNoService.Detail("Subnets %s of virtual network %s do not have ServiceEndpoints for %s resources configured. Add %s to subnet's ServiceEndpoints collection before trying to ACL %s resources to these subnets.",
		subnet.Name(), subnet.Parent(), service, service, service)
}

// bothWays flags a registry that has private endpoints and subnet rules: Azure
// accepts the endpoint and then asks for the rules to be removed (row 11).
func bothWays(body resource.Object, connections int, changed string) {
	rules, _ := resource.Lookup(body, pathSubnetRules).([]any)
	if connections == 0 || len(rules) == 0 {
		return
	}
	resource.Assign(body, "properties.status", resource.Object{
		"displayStatus": "Warning", "timestamp": changed,
		"message": fmt.Sprintf("The registry has private endpoints and subnet rules, which do not go together. Remove the subnet rules (%d) once its clients come through the private endpoints.", len(rules)),
	})
}
