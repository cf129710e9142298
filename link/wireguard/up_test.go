//go:build linux

package wireguard

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"cove.example/cove/fault"
)

// The tunnel's own packets must not be routed into the tunnel.
func TestUpRefusesALoop(t *testing.T) {
	c := sample(t)
	c.Endpoint = "203.0.113.9:51820"
	c.AllowedIPs = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
	_, err := Up(t.Context(), c, "cove0")
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "203.0.113.9 lies inside AllowedIPs") {
		t.Errorf("got %v", err)
	}
}

func TestUpRefusesABadName(t *testing.T) {
	c := sample(t)
	c.Endpoint = "203.0.113.9:51820"
	for _, name := range []string{"", "a-name-that-is-too-long"} {
		if _, err := Up(t.Context(), c, name); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// Without root, or without the device, the sentence says what does work.
func TestUpWithoutRootNamesTheWayOut(t *testing.T) {
	err := tunError("cove0", os.ErrPermission)
	if !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "--userspace") {
		t.Errorf("got %v", err)
	}
}
