package network

import (
	"cove.example/cove/arm"
	"cove.example/cove/fault"
)

// The ways in which a network exists. Which network has which is the
// operator's configuration, never a tenant's request: a network attached to
// the host takes addresses of the machine.
const (
	AttachedOverlay = "overlay" // a network stack of its own, reached by tunnels
	AttachedHost    = "host"    // addresses of the machine
	AttachedProxy   = "proxy"   // a cloud's, which balancers tell of
)

// ErrNoTunnel is the failure of making a member of a network that machines do
// not join by a tunnel.
var ErrNoTunnel = fault.Coded(fault.Invalid, "VirtualNetworkHasNoTunnel", "machines do not join this virtual network by a tunnel")

// joinable fails for a network that has no tunnel: what would be made there
// could never be used.
func (c Config) joinable(vnet arm.ID) error {
	if c.Attached == nil {
		return nil
	}
	switch c.Attached(vnet) {
	case AttachedHost:
		return ErrNoTunnel.Detail("The virtual network '%s' is attached to the server's host: machines are in it that can route to its addresses, and none join it.", vnet.Name())
	case AttachedProxy:
		return ErrNoTunnel.Detail("The virtual network '%s' is a cloud's, reached through its balancers: no machines join it here.", vnet.Name())
	}
	return nil
}

// Private is an address of a private endpoint (arm.ID.Key) that a network
// reaches, nil where it reaches none of it. It takes as long as Endpoint.
func (m *Map) Private(network, endpoint string) *Endpoint {
	if s := (*m.table.Load())[network]; s != nil {
		e, _ := s.private.Get(endpoint)
		return e
	}
	return nil
}
