package dnsapi

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// The rate of questions over loopback UDP, of this server with a private chain
// and of the library's server with a handler that sends back what it got.
func BenchmarkQueries(b *testing.B) {
	d := deploy(b)
	d.zone(b, "a", "privatelink.cr.cove.internal", vnet, map[string]string{"myreg": "10.0.0.7"})
	b.Run("cove", func(b *testing.B) {
		at := serve(b, New(Config{Views: d.Of}), vnet)
		flood(b, at.String())
	})
	b.Run("echo", func(b *testing.B) {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			b.Fatal(err)
		}
		srv := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg)
			m.SetReply(q)
			_ = w.WriteMsg(m)
		})}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.ActivateAndServe() }()
		defer func() { _ = srv.ShutdownContext(context.Background()); <-done }()
		flood(b, pc.LocalAddr().String())
	})
}

// flood keeps some questions in flight on several sockets until b has had its
// answers.
func flood(b *testing.B, at string) {
	q := query(b, "myreg.cr.cove.internal.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	b.SetParallelism(max(1, 8/runtime.GOMAXPROCS(0)))
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("udp", at)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		buf := make([]byte, 1500)
		for pb.Next() {
			if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				b.Error(err)
				return
			}
			if _, err := c.Write(q); err != nil {
				b.Error(err)
				return
			}
			if _, err := c.Read(buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}

// BenchmarkRespond is the part of an answer that is ours: no sockets.
func BenchmarkRespond(b *testing.B) {
	d := deploy(b)
	d.zone(b, "a", "privatelink.cr.cove.internal", vnet, map[string]string{"myreg": "10.0.0.7"})
	v := &served{Server: New(Config{Views: d.Of}), network: vnet, label: "network"}
	q := query(b, "myreg.cr.cove.internal.", dns.TypeA, func(m *dns.Msg) { m.SetEdns0(1232, false) })
	b.ReportAllocs()
	for b.Loop() {
		if v.respond(b.Context(), q, netip.Addr{}, true) == nil {
			b.Fatal("no answer")
		}
	}
}
