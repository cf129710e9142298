package access

import "fmt"

// How the stages end for a caller inside a virtual network. Findings are
// stored, so their words keep their meaning.
const (
	arrivedService    finding = "service-endpoint"
	subnetMatches     finding = "subnet-match"
	noSubnetRule      finding = "no-subnet-rule"
	kindNotServed     finding = "kind-not-served"
	noServiceEndpoint finding = "no-service-endpoint"
)

// stepInside is what the network rules said to a caller inside a network, or
// to a trusted service.
func (r *record) stepInside(out Step, f finding) Step {
	switch f {
	case subnetMatches:
		out.Input, out.Rule = r.Subnet, fmt.Sprintf("virtualNetworkRules[%d]", r.SubnetRule-1)
		out.Why = "virtualNetworkRules[" + fmt.Sprint(r.SubnetRule-1) + "] names the subnet " + last(r.Subnet)
	case noSubnetRule:
		out.Outcome, out.Input, out.Rule = Failed, r.Subnet, "defaultAction"
		out.Why = "the default action is Deny and there is no rule for a subnet"
		if r.SubnetRules > 0 {
			out.Why = fmt.Sprintf("the default action is Deny; %s tried, none names %s", count(r.SubnetRules, "subnet rule"), last(r.Subnet))
		}
	case kindNotServed:
		out.Outcome, out.Input, out.Rule = Failed, r.Subnet, fmt.Sprintf("virtualNetworkRules[%d]", r.SubnetRule-1)
		out.Why = fmt.Sprintf("virtualNetworkRules[%d] names the subnet %s, and the caller is of kind %s, which service endpoints do not serve", r.SubnetRule-1, last(r.Subnet), r.Kind)
	case noServiceEndpoint:
		out.Outcome, out.Rule = Failed, "defaultAction"
		out.Why = "the default action is Deny, and the caller inside the virtual network has no service endpoint"
		if r.Subnet != "" {
			out.Why = "the default action is Deny, and the subnet " + last(r.Subnet) + " has no service endpoint for registries"
		}
	case trustedPasses, tasksPass:
		out.Rule = "networkRuleBypassOptions"
		if f == tasksPass {
			out.Rule = "networkRuleBypassAllowedForTasks"
		}
		out.Why = "the trusted service " + r.Trusted + " passes the network rules"
	}
	return out
}

// distrust says why it did not help that the caller is a trusted service.
func (r *record) distrust() string {
	if r.Trusted == "" {
		return ""
	}
	why := map[finding]string{
		trustBypassOff: "the registry's networkRuleBypassOptions is None",
		trustTasksOff:  "the registry's networkRuleBypassAllowedForTasks is false",
		trustSubnets:   "the registry is restricted by subnet rules, which nothing bypasses",
		trustNotNow:    "it is not trusted at this time",
		trustAction:    "it may not bypass the rules for this",
		trustUnproved:  "no identity was proved",
		trustIdentity:  "it must come as a managed identity, or as one that the operator has listed",
		trustNoRole:    "its identity holds no role here",
	}[r.Trust]
	if why == "" {
		return ""
	}
	return "; it does not help that the caller is the trusted service " + r.Trusted + ": " + why
}
