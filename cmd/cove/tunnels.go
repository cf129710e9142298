package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"cove.example/cove/link/wireguard"
)

// tunnelMetrics tells how the overlay does, all networks together: a network's
// name is its owner's to choose, so it is no label.
type tunnelMetrics struct {
	totals                            func() wireguard.Totals
	networks, members                 *prometheus.Desc
	handshakes, cookies, bytes, drops *prometheus.Desc
}

func newTunnelMetrics(totals func() wireguard.Totals) tunnelMetrics {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return tunnelMetrics{
		totals:     totals,
		networks:   desc("cove_overlay_networks", "Overlay networks."),
		members:    desc("cove_overlay_members", "Members of overlay networks: here are those with a good session.", "state"),
		handshakes: desc("cove_overlay_handshakes_total", "WireGuard handshakes with members that have proved their key."),
		cookies:    desc("cove_overlay_cookies_total", "Handshakes that were put off with a cookie, under load."),
		bytes:      desc("cove_overlay_bytes_total", "UDP payload at the WireGuard port.", "direction"),
		drops:      desc("cove_overlay_drops_total", "Datagrams and packets that were dropped, by cause.", "why"),
	}
}

// Describe implements prometheus.Collector.
func (m tunnelMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.networks, m.members, m.handshakes, m.cookies, m.bytes, m.drops} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m tunnelMetrics) Collect(ch chan<- prometheus.Metric) {
	t := m.totals()
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge(m.networks, t.Networks)
	gauge(m.members, t.Here, "here")
	gauge(m.members, t.Members-t.Here, "away")
	count(m.handshakes, t.Handshakes)
	count(m.cookies, t.Cookies)
	count(m.bytes, t.Received, "in")
	count(m.bytes, t.Sent, "out")
	for why, n := range t.Dropped {
		count(m.drops, n, why)
	}
}
