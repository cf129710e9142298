//go:build !linux

package host

import "syscall"

// freebind is Linux's. Elsewhere an address that the machine does not have yet
// cannot be listened at, and is tried again.
func freebind(_, _ string, _ syscall.RawConn) error { return nil }
