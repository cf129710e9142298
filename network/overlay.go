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

// RoutesName is the name at which every member finds, as TXT records, the
// address spaces that lead into its network. It is the resolver's own and in no
// zone (RFC 9462, 2: resolver.arpa).
const RoutesName = "_routes.resolver.arpa."

// PrivateKey is a network's own WireGuard key (Curve25519, clamped). Whoever
// has it can pose as the network to its members, so it prints as nothing.
type PrivateKey [32]byte

// Format prints a placeholder for every verb.
func (PrivateKey) Format(s fmt.State, _ rune) { fmt.Fprint(s, "redacted") }

// MarshalText keeps the key out of JSON and structured logs.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// Wanted is an overlay network as it should be now. An adapter makes it so;
// applying the same value twice changes nothing, and applying another keeps
// every tunnel and connection that both have. It is never modified: an adapter
// that keeps the last one finds with Differences what to do.
type Wanted struct {
	Key        string // arm.ID.Key of the virtual network
	PrivateKey PrivateKey
	Prefixes   []netip.Prefix
	// Addresses of private endpoints, the resolvers and the front end are what
	// we answer at. False is one whose private endpoint is not approved: it
	// answers, to say so, and connections from before end when it becomes so.
	Addresses Table[netip.Addr, bool]
	Resolvers []netip.Addr // those of Addresses, besides Resolver, that answer DNS too
	// Peers are the public keys of members, by the one address that packets
	// from them carry or are dropped.
	Peers  Table[netip.Addr, [32]byte]
	Filter *Filter // which flows members may begin
}

// Overlay is the adapter that makes overlay networks; link/wireguard is one.
type Overlay interface {
	Apply(w Wanted) error
	Remove(key string) error
}
