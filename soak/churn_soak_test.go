//go:build soak

package soak

import (
	"slices"
	"testing"
)

// The same with a gibibyte, at the speed that the tunnel has.
func TestSoakGibibyteAmongChanges(t *testing.T) {
	const size = 1 << 30
	seen := comeAndGo(t, size)
	record(t, "A gibibyte among changes", `
A member of a virtual network (cove join --userspace) pulls a blob of 1 GiB through a
private endpoint in one request, while in its network other endpoints are made, wait,
are approved, carry a transfer, are rejected and deleted, and another registry's come
and go. The transfer was not disturbed.

| | |
|---|---|
| seed | COVE_SEED=%d |
| the transfer | %.0f MB/s |
| rounds of changes | %d |
| a transfer through a rejected endpoint went on for, at most | %v |
| peak MiB resident of the server | %.0f |`,
		seen.seed, size/1e6/seen.took.Seconds(), len(seen.ends), slices.Max(seen.ends), mib(memory(t, seen.pid, "VmHWM")))
}
