//go:build soak

package soak

import (
	"testing"
	"time"

	"cove.example/cove/covetest"
)

// A minute after it was ready, a server with one registry and two virtual
// networks has less than 60 MiB resident.
func TestSoakIdleMemory(t *testing.T) {
	s := covetest.Start(t)
	minute := time.NewTimer(time.Minute)
	furnish(t, s, "small")
	<-minute.C
	n := memory(t, s.PID(), "VmRSS")
	if n > maxIdle {
		t.Errorf("%.1f MiB are resident; the limit is %d", mib(n), maxIdle>>20)
	}
	record(t, "Idle", `
One registry and two virtual networks with a private endpoint each, a minute after
the server was ready: %.0f MiB resident, of %d that are allowed.
`, mib(n), maxIdle>>20)
}
