//go:build !linux

package wireguard

import (
	"net"
	"net/netip"
)

// Elsewhere than on Linux every datagram is a system call of its own, and the
// kernel chooses the address that answers leave from.

type source struct{ addr netip.Addr }

func enlarge(c *net.UDPConn, size int) {
	_ = c.SetReadBuffer(size)
	_ = c.SetWriteBuffer(size)
}

func offload(*net.UDPConn, bool, bool) bool { return false }

func (source) control(oob []byte) []byte { return oob }

func segmentControl(oob []byte, _ int) []byte { return oob }
