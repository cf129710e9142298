// Package registry is what an administrator creates and configures: a
// registry, its network rules, its admin user, its policies.
package registry

import (
	"context"
	"net/netip"

	"cove.example/cove/arm"
)

// Settings is a registry as the data path needs it, compiled from its
// document once and shared by all requests until the document changes. It is
// never modified.
type Settings struct {
	ID       arm.ID
	UID      string // content belongs to this, not to the name
	Name     string // as created
	Host     string // the login server, lower case: myregistry.cr.cove.internal
	Aliases  []string
	Location string
	Routed   []string // regions that Host may lead to, the home first
	SKU      string   // Basic, Standard, Premium
	Mode     string   // roleAssignmentMode: LegacyMode or AbacMode
	Modes    string   // how often that has been switched, "" for never

	PublicAccess  bool           // publicNetworkAccess is Enabled
	DefaultAllow  bool           // networkRuleSet.defaultAction is Allow
	IPRules       []netip.Prefix // networkRuleSet.ipRules, in their order
	Subnets       map[string]int // networkRuleSet.virtualNetworkRules: key of the subnet to its number, from 1
	Bypass        bool           // networkRuleBypassOptions is AzureServices
	TaskBypass    bool           // networkRuleBypassAllowedForTasks
	AdminUser     bool           // adminUserEnabled
	AnonymousPull bool           // anonymousPullEnabled
	DataEndpoint  bool           // dataEndpointEnabled
	DataHosts     []string       // <name>.<region>.data.<suffix>
	RegionalHosts []string       // <name>.<region>.geo.<suffix>: login servers of single regions, where they are on
	EverPrivate   bool           // has or had a private endpoint: public DNS keeps the privatelink label

	// RegistryAudienceOnly says that tokens for the Resource Manager are not
	// exchanged here (azureADAuthenticationAsArmPolicy is disabled).
	RegistryAudienceOnly bool

	admin *admin
}

// Lookup finds registries for the data path.
type Lookup interface {
	// ByHost returns the registry whose login server, data host, regional
	// host or alias is
	// host (lower case, no port), or nil. It reads no disk on a hit.
	ByHost(ctx context.Context, host string) (*Settings, error)
}
