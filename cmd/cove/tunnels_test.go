package main

import (
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"cove.example/cove/link/wireguard"
	"cove.example/cove/network"
)

// The metrics of tunnels are those of the networks that are there: one with one
// member that has never come, whose every cause of a drop is told at nought.
func TestTunnelMetrics(t *testing.T) {
	sw, err := wireguard.Open(wireguard.Config{Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sw.Close() })
	err = sw.Apply(network.Wanted{
		Key: "office", PrivateKey: network.PrivateKey(wireguard.NewPrivateKey()), Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
		Peers: network.Table[netip.Addr, [32]byte]{}.With(netip.MustParseAddr("10.0.0.4"), wireguard.NewPrivateKey().Public()),
	})
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(newTunnelMetrics(sw.Totals))
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	causes := 0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			if f.GetName() == "cove_overlay_drops_total" {
				causes++
			}
		}
	}
	for name, want := range map[string]float64{
		"cove_overlay_networks": 1, "cove_overlay_members here": 0, "cove_overlay_members away": 1,
		"cove_overlay_handshakes_total": 0, "cove_overlay_cookies_total": 0, "cove_overlay_bytes_total in": 0,
		"cove_overlay_bytes_total out": 0, "cove_overlay_drops_total IPv6": 0,
	} {
		if n, ok := got[name]; !ok || n != want {
			t.Errorf("%s: %v, %v, want %v", name, n, ok, want)
		}
	}
	if causes < 10 {
		t.Errorf("%d causes of drops", causes)
	}
}
