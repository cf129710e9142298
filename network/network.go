package network

import (
	"context"
	"net/netip"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/registry"
	"cove.example/cove/resource"
)

// The resource types of this package, as ARM spells them.
const (
	TypeVirtualNetwork = "Microsoft.Network/virtualNetworks"
	TypeSubnet         = "Microsoft.Network/virtualNetworks/subnets"
	TypeInterface      = "Microsoft.Network/networkInterfaces"
	TypeMember         = "Cove.Network/members"
	TypeEndpoint       = "Microsoft.Network/privateEndpoints"
	TypeConnection     = registry.TypeConnection
)

// The permissions that this package asks for itself, beyond those that the
// service asks for every verb.
const (
	ActionJoin    = "Microsoft.Network/virtualNetworks/subnets/join/action"
	ActionApprove = "Microsoft.ContainerRegistry/registries/privateEndpointConnectionsApproval/action"
)

// The failures that callers meet by these codes, which are Azure's where
// Azure has one. Those that end when another resource goes are a Conflict or
// inUse, so that the deletion of a group tries again after it went.
var (
	ErrSubnetInUse     = inUse("InUseSubnetCannotBeDeleted", "the subnet is in use and cannot be deleted")
	ErrPrefixInUse     = fault.Coded(fault.Invalid, "InUsePrefixCannotBeDeleted", "the prefix has addresses in use and cannot be taken away")
	ErrSubnetFull      = fault.Coded(fault.Invalid, "SubnetIsFull", "the subnet has no free address")
	ErrSubnetOutside   = fault.Coded(fault.Invalid, "NetcfgSubnetRangeOutsideVnet", "the subnet lies outside its virtual network")
	ErrSubnetOverlap   = fault.Coded(fault.Invalid, "NetcfgSubnetRangesOverlap", "the subnet overlaps another")
	ErrAddressOutside  = fault.Coded(fault.Invalid, "PrivateIPAddressNotInSubnet", "the address does not lie in the subnet")
	ErrAddressReserved = fault.Coded(fault.Invalid, "PrivateIPAddressInReservedRange", "the address is reserved")
	ErrAddressTaken    = fault.Coded(fault.Invalid, "PrivateIPAddressIsAllocated", "the address is taken")
	ErrReference       = fault.Coded(fault.Invalid, "InvalidResourceReference", "a resource that this one names was not found")
	ErrNotPermitted    = fault.Coded(fault.Denied, "LinkedAuthorizationFailed", "the caller may not use a resource that this one names")
	ErrEndpointNIC     = fault.Coded(fault.Conflict, "CannotModifyNicAttachedToPrivateEndpoint", "the network interface belongs to a private endpoint and is changed and deleted with it")
	ErrKeyTaken        = fault.Coded(fault.Conflict, "PublicKeyInUse", "the public key belongs to another member of this virtual network")
	ErrQuota           = fault.Coded(fault.Invalid, "QuotaExceeded", "the registry has as many private endpoints as it may have")
	ErrTransition      = fault.Coded(fault.Invalid, "PrivateEndpointConnectionStateInvalid", "the connection cannot change to that state")
	ErrFixed           = fault.Coded(fault.Invalid, "PrivateEndpointCannotBeChanged", "the property cannot be changed once the private endpoint exists")
	ErrNameTaken       = fault.Coded(fault.Conflict, "NetworkInterfaceExists", "a network interface of this name exists")

	// ErrCode is every failure of a join code. It never says whether the code
	// is unknown, used or expired: a caller who has no code learns nothing.
	ErrCode = fault.Coded(fault.Denied, "JoinCodeInvalid", "the join code is not valid, or no longer")
)

// inUse is a refusal that Azure answers with 400.
func inUse(code, public string) *fault.Error {
	return &fault.Error{Kind: fault.Invalid, Code: code, Public: public, Err: resource.ErrInUse}
}

// Sealer keeps small secrets readable by this deployment only. What was sealed
// in one context does not open in another.
type Sealer interface {
	Seal(secret, context []byte) ([]byte, error)
	Open(sealed, context []byte) ([]byte, error)
}

// DefaultFrontEnd is the address inside every network at which subnets with a
// service endpoint reach the registries' public side.
var DefaultFrontEnd = netip.MustParseAddr("100.100.100.100")

// DefaultMTU is what a tunnel may carry: an Ethernet frame less WireGuard over
// IPv6, so that it holds on either family outside.
const DefaultMTU = 1420

// Config is what the deployment says about its networks.
type Config struct {
	Sealer   Sealer
	Registry registry.Config  // what makes a registry one with private endpoints
	Endpoint string           // host:port where members' tunnels dial
	FrontEnd netip.Addr       // DefaultFrontEnd if zero
	MTU      int              // DefaultMTU if zero
	Regions  []string         // of the deployment, for service tags; "local" if empty
	Now      func() time.Time // time.Now if nil

	// What a join code tells a machine that has nothing yet.
	Management  string // URL of the management endpoint
	Fingerprint string // of the certificate authority: lower-case hex of its SHA-256
	Dial        string // host:port to connect to for that URL

	// Attached is how a network exists, AttachedOverlay if nil.
	Attached func(vnet arm.ID) string

	// EndpointChanged runs in the transaction that creates a private endpoint
	// or changes it or its state, after its interface is written.
	EndpointChanged []func(ctx context.Context, tx resource.Tx, pe resource.Doc) error
}

func (c Config) frontEnd() netip.Addr {
	if c.FrontEnd.IsValid() {
		return c.FrontEnd
	}
	return DefaultFrontEnd
}

func (c Config) mtu() int {
	if c.MTU > 0 {
		return c.MTU
	}
	return DefaultMTU
}

func (c Config) now() time.Time {
	if c.Now != nil {
		return c.Now()
	}
	return time.Now()
}

func (c Config) endpointChanged(ctx context.Context, tx resource.Tx, pe resource.Doc) error {
	for _, fn := range c.EndpointChanged {
		if err := fn(ctx, tx, pe); err != nil {
			return err
		}
	}
	return nil
}

// Types are the rows of the resource table that this package fills.
func Types(c Config) []resource.Type {
	return []resource.Type{
		virtualNetworkType(c), subnetType(c), interfaceType(c), memberType(c), endpointType(c), connectionType(c),
		groupType(c), ruleType(c), peeringType(c),
	}
}

// may asks for a permission on a resource that a body names. The answer is
// the same for one that does not exist, so that nobody finds out by asking.
func may(by resource.Caller, action string, on arm.ID) error {
	if by.May == nil || !by.May(action, on) {
		return ErrNotPermitted.Detail("The client has permission to write this resource, but not to perform action '%s' on the linked scope '%s', or the linked scope is invalid.", action, on)
	}
	return nil
}
