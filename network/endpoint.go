// Package network is virtual networks, subnets, network interfaces and the
// private endpoints in them, and what of them the data path must know.
package network

import (
	"net/netip"

	"cove.example/cove/arm"
)

// Endpoint is one address of a private endpoint, as a connection to it finds
// it. It is never modified.
type Endpoint struct {
	ID         arm.ID // the private endpoint
	Connection arm.ID // its connection on the registry
	Registry   arm.ID // what it leads to
	State      string // Approved, Pending, Rejected, Disconnected
	Member     string // "registry", "registry_data_westeurope"
	Address    netip.Addr
	FQDNs      []string
}

// Member is a machine in a virtual network.
type Member struct {
	ID      arm.ID // Cove.Network/members child of the NIC
	NIC     arm.ID
	Subnet  arm.ID
	Address netip.Addr
	Kind    string // vm, aks, aci, appservice, agentpool

	SubnetKey string // Subnet.Key
	// Service says that the subnet has a service endpoint for registries.
	Service bool
	// Served says that its kind is one that service endpoints are for.
	Served bool
	// Routes are the address spaces of its own network and of those joined with
	// it, at the time at which the machine was last given its configuration; nil
	// is not known.
	Routes []netip.Prefix
}

// Lookup finds what an address inside a virtual network belongs to. A nil
// answer means that nothing of that kind has the address. Both take time that
// does not grow with the number of networks, endpoints or members, and neither
// does I/O.
type Lookup interface {
	Endpoint(network string, local netip.Addr) *Endpoint
	Member(network string, remote netip.Addr) *Member
}
