//go:build soak

package soak

import (
	"testing"
	"time"
)

// A hundred pushes are interrupted at seeded moments spread over the duration
// of a push, at least thirty of them between the first byte of a layer and the
// manifest's 201. After each, everything acknowledged is there and whole.
func TestSoakKill(t *testing.T) {
	k := killing{runs: 100, lo: 100_000, hi: 8_000_000, warm: 5}
	y := k.run(t, "")
	record(t, "Killed in the middle of a push", `
%d pushes of six blobs of up to 8 MB, one in each upload shape, over TLS and over
plain HTTP in turn. Undisturbed, one took %v here; the server was killed with
SIGKILL at seeded moments spread over that time, then started again on its data.

| | |
|---|---|
| seed | COVE_SEED=%d |
| killed after a layer's first byte and before the manifest's 201 | %d |
| killed before the first byte | %d |
| killed after the manifest's 201 | %d |
| blobs of unfinished pushes that had been acknowledged | %d |
| uploads that went on from where the server said | %d |
| of those, with bytes that were not sent again | %d |
| the slowest start after a kill | %v |
| removed by collection afterwards | %d sessions, %d files without a row, %d blobs without a manifest |
| acknowledged and lost, or visible in part | 0 |
`, k.runs, y.took.Round(time.Millisecond), y.seed, y.amid, y.before, y.completed, y.blobs, y.resumed, y.offset,
		y.started.Round(time.Millisecond), y.collected.Uploads, y.collected.Files, y.collected.Blobs)
}
