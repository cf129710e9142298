package registry

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	"cove.example/cove/fault"
	"cove.example/cove/resource"
)

// MaxIPRules is how many IP rules a Premium registry may have.
const MaxIPRules = 200

// checker gathers every problem of one body.
type checker struct {
	body     resource.Object
	problems []fault.Field
}

func (k *checker) bad(path, format string, args ...any) {
	k.problems = append(k.problems, fault.Field{Path: path, Message: fmt.Sprintf(format, args...)})
}

// check is Type.Check: it spells known properties as ARM does, fills in the
// defaults, and says all that is wrong.
func (c Config) check(ch *resource.Change) []fault.Field {
	k := &checker{body: ch.New.Body}
	for _, path := range []string{"properties", "sku", "properties.networkRuleSet", "properties.policies", "properties.encryption"} {
		k.object(path)
	}
	if len(k.problems) > 0 {
		return k.problems
	}
	k.spell("sku", "name", "tier")
	k.spell("properties", "adminUserEnabled", "anonymousPullEnabled", "dataEndpointEnabled", "encryption", "endpointProtocol", "metadataSearch",
		"networkRuleBypassAllowedForTasks", "networkRuleBypassOptions", "networkRuleSet", "policies", "publicNetworkAccess", "regionalEndpoints",
		"roleAssignmentMode", "zoneRedundancy")
	k.spell("properties.networkRuleSet", "defaultAction", "ipRules", "virtualNetworkRules")
	k.spell("properties.encryption", "status")
	k.spell("properties.policies", policies...)
	for _, p := range policies {
		k.spell("properties.policies."+p, "status", "type", "days", "retentionDays")
	}
	if v := resource.Lookup(k.body, pathDataEndpoint); v == nil && ch.Old != nil && EverPrivate(*ch.Old) {
		// A body that does not say must not cut off the clients inside,
		// who reach blobs by the data hosts' private addresses.
		resource.Assign(k.body, pathDataEndpoint, resource.Lookup(ch.Old.Body, pathDataEndpoint))
	}
	if resource.Lookup(k.body, pathMode) == nil && ch.Old != nil {
		// A client that knows nothing of modes must not change what decides
		// about content.
		resource.Assign(k.body, pathMode, resource.Lookup(ch.Old.Body, pathMode))
	}
	sku := k.word("sku.name", "", Basic, Standard, Premium)
	if resource.Lookup(k.body, "sku.name") == nil {
		k.bad("sku.name", "is required: Basic, Standard or Premium")
	}
	if sku != "" {
		resource.Assign(k.body, "sku.tier", sku)
	}
	k.settings(c, sku)
	k.policies()
	return k.problems
}

// settings are the switches and the network rules.
func (k *checker) settings(c Config, sku string) {
	k.flag("properties.adminUserEnabled")
	if k.flag("properties.anonymousPullEnabled") && sku == Basic {
		k.bad("properties.anonymousPullEnabled", "anonymous pull is not supported for the SKU Basic")
	}
	if k.flag("properties.dataEndpointEnabled") && sku != Premium && sku != "" {
		k.bad("properties.dataEndpointEnabled", "dedicated data endpoints are not supported for the SKU %s", sku)
	}
	k.flag("properties.networkRuleBypassAllowedForTasks")
	byDefault := "Enabled"
	if c.DefaultPublicAccess != "" {
		byDefault = c.DefaultPublicAccess
	}
	public := k.word(pathPublic, byDefault, "Enabled", "Disabled")
	if public == "Disabled" && sku != Premium && sku != "" {
		k.bad(pathPublic, "public network access cannot be disabled for the SKU %s; it needs Premium", sku)
	}
	k.word("properties.networkRuleBypassOptions", "AzureServices", "AzureServices", "None")
	k.word(pathARMTokens, "enabled", "enabled", "disabled")
	k.word(pathMode, LegacyMode, LegacyMode, AbacMode)
	k.regional(sku)
	k.retention(sku)
	k.word("properties.policies.exportPolicy.status", "enabled", "enabled", "disabled")
	if status := resource.Lookup(k.body, "properties.policies.exportPolicy.status"); status == "disabled" && public != "Disabled" {
		k.bad("properties.policies.exportPolicy.status", "export can be disabled only while publicNetworkAccess is Disabled")
	}
	k.rules(sku)
}

func (k *checker) rules(sku string) {
	if sku == Premium {
		k.word(pathDefault, "Allow", "Allow", "Deny")
		if resource.Lookup(k.body, pathIPRules) == nil {
			resource.Assign(k.body, pathIPRules, []any{})
		}
	}
	set, _ := resource.Lookup(k.body, "properties.networkRuleSet").(resource.Object)
	if set == nil {
		return
	}
	rules, ok := set["ipRules"].([]any)
	if !ok && set["ipRules"] != nil {
		k.bad(pathIPRules, "must be a list")
	}
	for i, r := range rules {
		k.rule(fmt.Sprintf("%s[%d]", pathIPRules, i), r)
	}
	subnets := k.subnetRules(set)
	action := k.word(pathDefault, "Allow", "Allow", "Deny")
	switch {
	case sku != Premium && sku != "" && (action == "Deny" || len(rules) > 0 || subnets > 0):
		k.bad("properties.networkRuleSet", "network rules are not supported for the SKU %s; they need Premium", sku)
	case len(rules) > MaxIPRules:
		k.bad(pathIPRules, "The requested feature IP rule exceeds allowed quota %d for the SKU %s.", MaxIPRules, Premium)
	}
}

// rule checks one IP rule and stores the range that it means.
func (k *checker) rule(path string, v any) {
	r, ok := v.(resource.Object)
	if !ok {
		k.bad(path, "must be an object with a value")
		return
	}
	if twice := resource.Spell(r, "action", "value"); twice != "" {
		k.bad(path+"."+twice, "is given twice, in spellings that differ in case only")
	}
	switch action, _ := r["action"].(string); {
	case r["action"] == nil || strings.EqualFold(action, "Allow"):
		r["action"] = "Allow"
	default:
		k.bad(path+".action", "must be Allow")
	}
	text, _ := r["value"].(string)
	p, err := parseRule(text)
	if err != nil {
		k.bad(path+".value", "%.60q is not an IPv4 address or an IPv4 range such as 203.0.113.0/24", text)
		return
	}
	r["value"] = ruleText(p)
}

// parseRule reads an IPv4 address or range. ::ffff:203.0.113.9 is 203.0.113.9:
// that is how a dual-stack log shows the caller whom somebody wants to let in.
// Bits after the prefix are cleared, since they are not looked at.
func parseRule(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		a = a.Unmap()
		if !a.Is4() {
			return netip.Prefix{}, fmt.Errorf("%s is not IPv4", a)
		}
		return netip.PrefixFrom(a, 32), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, err
	}
	a, bits := p.Addr(), p.Bits()
	if a.Is4In6() && bits >= 96 {
		a, bits = a.Unmap(), bits-96
	}
	if !a.Is4() {
		return netip.Prefix{}, fmt.Errorf("%s is not IPv4", p)
	}
	return netip.PrefixFrom(a, bits).Masked(), nil
}

func ruleText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// later are the settings that this version keeps at the one value that it
// obeys. A setting that is accepted and not obeyed would be a lie, and with
// these a dangerous one.
var later = []setting{
	{"properties.policies.quarantinePolicy.status", "disabled", "quarantine"},
	{"properties.policies.trustPolicy.status", "disabled", "content trust"},
	{"properties.policies.softDeletePolicy.status", "disabled", "soft delete"},
	{"properties.encryption.status", "disabled", "encryption with a customer's key"},
	{"properties.endpointProtocol", "IPv4", "IPv6"},
	{"properties.metadataSearch", "Disabled", "metadata search"},
	zones,
}

// zones is the one that a replication has too.
var zones = setting{"properties.zoneRedundancy", "Disabled", "zone redundancy"}

// setting is one that can only have one value.
type setting struct{ path, only, what string }

func (k *checker) only(l setting) {
	v := resource.Lookup(k.body, l.path)
	text, isText := v.(string)
	switch {
	case v == nil || isText && strings.EqualFold(text, l.only):
		if !resource.Assign(k.body, l.path, l.only) {
			k.bad(l.path[:strings.LastIndexByte(l.path, '.')], "must be an object")
		}
	case !isText:
		k.bad(l.path, "must be a string")
	default:
		k.bad(l.path, "%s is not in this version; it can only be %s", l.what, l.only)
	}
}

var policies = []string{"quarantinePolicy", "trustPolicy", "retentionPolicy", "softDeletePolicy", "exportPolicy", "azureADAuthenticationAsArmPolicy"}

// policies fills in the policies, all of which clients expect to find.
func (k *checker) policies() {
	for _, l := range later {
		k.only(l)
	}
	for _, d := range []struct {
		path  string
		value any
	}{
		{"properties.policies.trustPolicy.type", "Notary"},
		{"properties.policies.softDeletePolicy.retentionDays", json.Number("7")},
	} {
		if resource.Lookup(k.body, d.path) == nil {
			resource.Assign(k.body, d.path, d.value)
		}
	}
}

// object checks that what is at a path, if anything, is an object.
func (k *checker) object(path string) {
	if v := resource.Lookup(k.body, path); v != nil {
		if _, ok := v.(resource.Object); !ok {
			k.bad(path, "must be an object")
		}
	} else if path == "properties" {
		k.body[path] = resource.Object{}
	}
}

// spell gives the known properties below a path their usual spelling: ARM
// takes them in any, and a switch that was spelled differently must not be
// stored without being obeyed.
func (k *checker) spell(path string, names ...string) {
	o, _ := resource.Lookup(k.body, path).(resource.Object)
	if twice := resource.Spell(o, names...); twice != "" {
		k.bad(path+"."+twice, "is given twice, in spellings that differ in case only")
	}
}

// flag reads a switch that is off where it is absent.
func (k *checker) flag(path string) bool {
	switch v := resource.Lookup(k.body, path).(type) {
	case nil:
		resource.Assign(k.body, path, false)
	case bool:
		return v
	default:
		k.bad(path, "must be true or false")
	}
	return false
}

// word reads one of a few words in any case and stores it as spelled in the
// list; "" as default leaves an absent one absent.
func (k *checker) word(path, byDefault string, words ...string) string {
	v := resource.Lookup(k.body, path)
	if v == nil {
		if byDefault != "" && !resource.Assign(k.body, path, byDefault) {
			k.bad(path[:strings.LastIndexByte(path, '.')], "must be an object")
		}
		return byDefault
	}
	text, _ := v.(string)
	for _, w := range words {
		if strings.EqualFold(w, text) {
			resource.Assign(k.body, path, w)
			return w
		}
	}
	k.bad(path, "must be one of %s", strings.Join(words, ", "))
	return ""
}
