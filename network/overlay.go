package network

import (
	"fmt"
	"net/netip"
)

// The addresses that every overlay network has besides its own.
var (
	// Resolver answers DNS inside a network.
	Resolver = netip.MustParseAddr("168.63.129.16")
	// Metadata is the instance metadata service, routed only on request.
	Metadata = netip.MustParseAddr("169.254.169.254")
)

// PrivateKey is a network's own WireGuard key (Curve25519, clamped). Whoever
// has it can pose as the network to its members, so it prints as nothing.
type PrivateKey [32]byte

// Format prints a placeholder for every verb.
func (PrivateKey) Format(s fmt.State, _ rune) { fmt.Fprint(s, "redacted") }

// MarshalText keeps the key out of JSON and structured logs.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// Wanted is an overlay network as it should be now. An adapter makes it so;
// applying the same value twice changes nothing, and applying another keeps
// every tunnel and connection that both have.
type Wanted struct {
	Key        string // arm.ID.Key of the virtual network
	PrivateKey PrivateKey
	Prefixes   []netip.Prefix
	Addresses  []netip.Addr // of private endpoints, the resolver and the front end: what we answer at
	Resolvers  []netip.Addr // those of Addresses, besides Resolver, that answer DNS too
	// Closed are those of Addresses whose private endpoint is not approved.
	// They answer, to say so; connections from before end when one is closed.
	Closed []netip.Addr
	Peers  []Peer
	Filter *Filter // which flows members may begin
}

// Peer is a member's tunnel: packets from it carry this one address or are
// dropped.
type Peer struct {
	PublicKey [32]byte
	Address   netip.Addr
}

// Overlay is the adapter that makes overlay networks; link/wireguard is one.
type Overlay interface {
	Apply(w Wanted) error
	Remove(key string) error
}
