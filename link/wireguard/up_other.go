//go:build !linux

package wireguard

import (
	"context"

	"cove.example/cove/fault"
)

// Interface is a member's tunnel as a network interface; only Linux has it.
type Interface struct{ *Tunnel }

// Name would be the interface's.
func (i *Interface) Name() string { return "" }

// Up is only there on Linux. Elsewhere the system's own WireGuard client reads
// the configuration file.
func Up(context.Context, MemberConfig, string) (*Interface, error) {
	return nil, fault.Newf(fault.Unsupported, "cove makes interfaces on Linux only; use the configuration file with this system's WireGuard client, or --userspace")
}
