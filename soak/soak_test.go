// Package soak lets the server's word be tested from outside: the process is
// killed in the middle of pushes, its disk runs full, it carries blobs larger
// than its memory and more clients than it has processors, and what it had
// acknowledged must be there afterwards.
//
// Moments and contents come from a seed that each test prints; COVE_SEED=N
// repeats one. What takes longer than half a minute has the build tag soak and
// is run by `make soak`, which writes docs/soak.md.
package soak

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// seed returns the test's seed: COVE_SEED, or one of its own.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64() >> 32 // short enough to be typed
	if text := os.Getenv("COVE_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("COVE_SEED=%s is not a number", text)
		}
	}
	t.Logf("COVE_SEED=%d", n)
	return n
}

// source is the random numbers of one purpose: what one of them draws does
// not shift the others.
func source(seed uint64, purpose int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(purpose)))
}
