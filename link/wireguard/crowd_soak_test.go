//go:build soak && linux

package wireguard

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"cove.example/cove/network"
)

// crowdLimit is what a thousand networks with ten members each may take of
// memory, the other ends of their tunnels included.
const crowdLimit = 1536 << 20

// A thousand networks, and one with a thousand members: everybody is joined and
// has had an answer through the tunnel, and an endpoint is added while they are
// there.
func TestSoakManyNetworks(t *testing.T) { crowd(t, 1000, 10) }

func TestSoakManyMembers(t *testing.T) { crowd(t, 1, 1000) }

func crowd(t *testing.T, networks, members int) {
	l := openLab(t)
	began, start := resident(t), time.Now()
	all := make([]*vnet, networks)
	var joined []*hostile
	for i := range all {
		v := &vnet{lab: l, members: map[netip.Addr]PrivateKey{}}
		v.Wanted = network.Wanted{
			Key: fmt.Sprintf("network%d", i), PrivateKey: network.PrivateKey(NewPrivateKey()), Prefixes: []netip.Prefix{space},
			Addresses: answered(registry, network.Resolver),
		}
		for m := range members {
			v.admit(member(m))
		}
		v.apply()
		all[i] = v
	}
	made, at := time.Since(start), time.Now()
	for i, v := range all {
		for m := range members {
			n := i*members + m
			h := v.hostile(member(m))
			_ = h.c.Close()
			h.move(fmt.Sprintf("127.1.%d.%d", n/200, 1+n%200)) // a source each, as members have
			joined = append(joined, h.join())
			h.ping(1000)
			h.write(h.transport(nil)) // as members do; else the server would call them all again
		}
	}
	came := time.Since(at)
	for _, h := range joined { // the first are still there
		h.ping(1001)
		h.write(h.transport(nil))
	}
	at = time.Now()
	v := all[0]
	v.Addresses = v.Addresses.With(second, true)
	v.apply()
	added := time.Since(at)
	joined[0].ping(7)

	now := resident(t)
	s := l.sw.Totals()
	if s.Here != networks*members {
		t.Errorf("%d members are here, want %d", s.Here, networks*members)
	}
	t.Logf("%d networks with %d members each: %d MiB resident, %d before, %d goroutines; made in %v, joined in %v; an endpoint was added in %v",
		networks, members, now>>20, began>>20, runtime.NumGoroutine(), made.Round(time.Millisecond), came.Round(time.Millisecond), added.Round(time.Microsecond))
	if now > crowdLimit {
		t.Errorf("%d MiB resident, the limit is %d", now>>20, crowdLimit>>20)
	}
}

// member is the address of the nth.
func member(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(1 + n/250), byte(n % 250)}) }

// resident is the most memory that this process has had.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no VmHWM in /proc/self/status")
	return 0
}
