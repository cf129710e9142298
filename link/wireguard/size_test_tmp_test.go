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

func rss(t testing.TB) string {
	b, _ := os.ReadFile("/proc/self/status")
	var out string
	for l := range strings.Lines(string(b)) {
		if strings.HasPrefix(l, "VmRSS") || strings.HasPrefix(l, "VmHWM") {
			out += strings.Join(strings.Fields(l), " ") + " "
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return fmt.Sprintf("%s heap %d MiB sys %d MiB released %d goroutines %d gc %d", out, m.HeapAlloc>>20, m.Sys>>20, m.HeapReleased>>20, runtime.NumGoroutine(), m.NumGC)
}

func TestManyTmp(t *testing.T) {
	nets, _ := strconv.Atoi(os.Getenv("NETS"))
	mem, _ := strconv.Atoi(os.Getenv("MEM"))
	l := openLab(t)
	start := time.Now()
	t.Log(rss(t))
	var all []*vnet
	for i := range nets {
		v := &vnet{lab: l, members: map[netip.Addr]PrivateKey{}}
		v.Wanted = network.Wanted{Key: fmt.Sprint("n", i), PrivateKey: network.PrivateKey(NewPrivateKey()), Prefixes: []netip.Prefix{space}, Addresses: []netip.Addr{registry, network.Resolver}}
		for j := range mem {
			v.admit(netip.AddrFrom4([4]byte{10, 0, byte(j >> 8) + 1, byte(j)}))
		}
		v.apply()
		all = append(all, v)
	}
	t.Log("created", time.Since(start), rss(t))
	runtime.GC()
	t.Log("gc", rss(t))
	var hs []*hostile
	for i, v := range all {
		var c = v.hostile(laptop)
		c.move(fmt.Sprintf("127.1.%d.%d", i>>8, i&255))
		j := 0
		for a := range v.members {
			h := *c
			h.key, h.address = v.members[a], a
			if j++; j%300 == 299 { c.move(fmt.Sprintf("127.2.%d.%d", i>>8, j/300)) }
			h.join()
			hs = append(hs, &h)
			if !h.answered() {
				t.Fatal(i, a)
			}
		}
	}
	t.Log("joined", time.Since(start), rss(t))
	runtime.GC()
	t.Log("gc", rss(t))
	rounds, _ := strconv.Atoi(os.Getenv("ROUNDS"))
	for range rounds {
		for _, h := range hs {
			for range 10 {
				h.write(h.transport(echo(h.address, registry, 1300)))
			}
			for range 10 {
				h.packet(time.Second)
			}
		}
		runtime.GC()
		runtime.GC()
		t.Log("round", time.Since(start), rss(t))
	}
	time.Sleep(5*time.Second)
	t.Log("later", rss(t))
}
