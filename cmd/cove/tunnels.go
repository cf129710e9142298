package main

import (
	"errors"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"

	"cove.example/cove/link/wireguard"
	"cove.example/cove/network"
)

// openOverlay opens the WireGuard port and tells networks what members are
// told of it.
func (s *server) openOverlay(networks *network.Config) error {
	c := s.config
	if c.WireGuard == "" {
		return nil
	}
	open := func(addr string) (err error) {
		s.overlay, err = wireguard.Open(wireguard.Config{
			Listen: addr, HTTPS: s.serveNetwork, DNS: s.serveNetworkDNS, Metadata: s.serveNetworkMetadata, State: s.data, Logger: s.log, Now: s.now,
		})
		return err
	}
	err := open(c.WireGuard)
	if errors.Is(err, wireguard.ErrPortTaken) && !c.given["wireguard"] {
		ap, parseErr := netip.ParseAddrPort(c.WireGuard)
		if parseErr != nil {
			return parseErr
		}
		for port := ap.Port() + 1; port < ap.Port()+100 && errors.Is(err, wireguard.ErrPortTaken); port++ {
			err = open(netip.AddrPortFrom(ap.Addr(), port).String())
		}
		s.wireguardNote = " (51820 is taken)"
	}
	if err != nil {
		return err
	}
	s.closers.add(s.overlay.Close)
	s.run.WireGuard = s.overlay.Addr().String()
	networks.Endpoint = c.WireGuardEndpoint
	if networks.Endpoint == "" {
		networks.Endpoint = netip.AddrPortFrom(s.advertise, s.overlay.Addr().Port()).String()
	}
	return nil
}

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
