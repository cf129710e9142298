package main

import (
	"context"
	"errors"
	"io"
	stdlog "log"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"cove.example/cove/content"
	"cove.example/cove/door"
	"cove.example/cove/link"
)

// listen opens the remaining ports and begins to serve, the public names last.
func (s *server) listen(ctx context.Context) error {
	s.closers.add(s.servers.close)
	for _, step := range []func(context.Context) error{s.listenDNS, s.listenConnect, s.listenHTTP, s.listenProxy, s.listenAdmin} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	for _, l := range s.https {
		s.serveTLS(link.Listener{Listener: l, Kind: link.Public})
	}
	if err := s.run.write(s.data); err != nil {
		return dataFault(s.config.Data, err)
	}
	s.closers.add(func() error { return s.data.Remove("run.json") })
	return nil
}

// serveTLS serves the router on l until the server stops.
func (s *server) serveTLS(l net.Listener) {
	srv := door.Server(s.router)
	srv.ErrorLog = quiet(s.log)
	srv.TLSConfig = s.ca.TLS()
	s.serve(srv, func() error { return srv.ServeTLS(l, "", "") })
}

func (s *server) serve(srv *http.Server, serve func() error) {
	go func() {
		if err := s.servers.run(srv, serve); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			s.log.Error("a listener ended", "err", err)
		}
	}()
}

// servers are the HTTP servers that run now, those of virtual networks too.
// They end together: what comes in by one door is not cut off sooner than what
// comes in by another, and all of them take one grace.
type servers struct {
	mu    sync.Mutex
	all   map[*http.Server]bool
	ended bool
}

// run is serve, whose server is srv.
func (s *servers) run(srv *http.Server, serve func() error) error {
	if !s.add(srv) {
		return http.ErrServerClosed
	}
	defer s.remove(srv)
	return serve()
}

func (s *servers) add(srv *http.Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	if s.all == nil {
		s.all = map[*http.Server]bool{}
	}
	s.all[srv] = true
	return true
}

func (s *servers) remove(srv *http.Server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, srv)
}

// close lets requests under way end, for as long as grace, and cuts the rest.
func (s *servers) close() error {
	s.mu.Lock()
	s.ended = true
	all := slices.Collect(maps.Keys(s.all))
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, srv := range all {
		wg.Go(func() {
			if srv.Shutdown(ctx) != nil {
				srv.Close()
			}
		})
	}
	wg.Wait()
	return nil
}

// quiet takes what net/http says of strangers' broken handshakes: worth a
// line when debugging and nothing else.
func quiet(log *slog.Logger) *stdlog.Logger {
	return slog.NewLogLogger(log.Handler(), slog.LevelDebug)
}

// serveNetwork serves the private endpoints' addresses of one network; it is
// called when the network appears and its listener ends with it.
func (s *server) serveNetwork(key string, l net.Listener) {
	srv := door.Server(s.router)
	srv.ErrorLog = quiet(s.log)
	srv.TLSConfig = s.ca.TLS()
	go func() {
		err := s.servers.run(srv, func() error {
			return srv.ServeTLS(link.Listener{Listener: l, Kind: link.Overlay, Network: key}, "", "")
		})
		s.log.Debug("the listener of a virtual network ended", "network", key, "err", err)
	}()
}

func (s *server) serveNetworkDNS(key string, udp net.PacketConn, tcp net.Listener) {
	go func() {
		if err := s.dns.Serve(context.Background(), key, udp, tcp); err != nil {
			s.log.Debug("the resolver of a virtual network ended", "network", key, "err", err)
		}
	}()
}

// listenDNS opens the public view.
func (s *server) listenDNS(context.Context) error {
	c := s.config
	if c.DNS == "" {
		return nil
	}
	addrs := []string{c.DNS}
	optional := ""
	if !c.given["dns"] {
		optional = netip.AddrPortFrom(s.advertise, 53).String()
		addrs = append(addrs, optional)
	}
	for _, addr := range addrs {
		pc, l, err := pairDNS(addr)
		if err != nil {
			if addr == optional {
				s.log.Info("the public DNS view is not served at port 53", "addr", addr, "err", err)
				continue
			}
			return taken("--dns", addr, err)
		}
		s.closers.add(func() error { return errors.Join(pc.Close(), l.Close()) })
		s.run.DNS = append(s.run.DNS, pc.LocalAddr().String())
		s.loops.run("dns "+addr, func(ctx context.Context) error { return s.dns.Serve(ctx, "", pc, l) })
	}
	return nil
}

func (s *server) listenConnect(context.Context) error {
	addr := s.config.Connect
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return taken("--connect", addr, err)
	}
	proxy := door.NewConnect(s.router.Serves, s.https[0].Addr())
	s.closers.add(func() error { return errors.Join(l.Close(), proxy.Close()) })
	s.run.Connect = l.Addr().String()
	s.loops.run("connect", func(ctx context.Context) error {
		go func() { <-ctx.Done(); l.Close() }()
		return proxy.Serve(l)
	})
	s.serveTLS(link.Listener{Listener: proxy, Kind: link.Public})
	return nil
}

func (s *server) listenHTTP(context.Context) error {
	addr := s.config.ListenHTTP
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return taken("--listen-http", addr, err)
	}
	s.run.HTTP = l.Addr().String()
	plain := *s.registry
	plain.PlainHTTP = true
	srv := door.Server(&door.Router{Registry: &plain, IsRegistry: s.isRegistry, Plain: true})
	srv.ErrorLog = quiet(s.log)
	s.serve(srv, func() error { return srv.Serve(link.Listener{Listener: l, Kind: link.Public}) })
	return nil
}

// listenAdmin serves health and metrics in plain HTTP, on loopback unless the
// operator says otherwise.
func (s *server) listenAdmin(context.Context) error {
	addr := s.config.Admin
	if addr == "" {
		return nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return taken("--admin", addr, err)
	}
	s.run.Admin = l.Addr().String()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "cove_audit_events_dropped_total", Help: "Events that the full buffer could not take."},
			func() float64 { return float64(s.events.Dropped()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "cove_insight_events_sent_total", Help: "Events that sinks have taken."},
			func() float64 { return float64(s.delivery.Sent()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "cove_insight_failures_total", Help: "Attempts to send events that a sink has not taken."},
			func() float64 { return float64(s.delivery.Failed()) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "cove_insight_events_lost_total", Help: "Events deleted for their age or size before a sink took them, at most."},
			func() float64 { return float64(s.delivery.Lost()) }),
		s.answers, s.cutOff, newDriftMetric(s.drift.Count))
	metrics.MustRegister(s.meter.collectors()...)
	if s.overlay != nil {
		metrics.MustRegister(newTunnelMetrics(s.overlay.Totals))
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	srv := door.Server(mux)
	srv.ErrorLog = quiet(s.log)
	s.serve(srv, func() error { return srv.Serve(l) })
	return nil
}

// readyz says whether the server can do its work: the database answers and
// nothing has stopped writing.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	var wrong []string
	if _, err := s.identity.Tenants(ctx); err != nil {
		wrong = append(wrong, "the database does not answer")
	}
	if err := s.blobs.Stopped(); err != nil {
		wrong = append(wrong, sentence(err))
	}
	if len(wrong) > 0 {
		http.Error(w, strings.Join(wrong, "\n"), http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ready\n")
}

// How often, and for how long, the server looks after what it keeps.
const (
	collectEvery = time.Hour
	trimEvery    = 6 * time.Hour
	sizeEvery    = 5 * time.Minute
	scrubEvery   = 7 * 24 * time.Hour
	keepChanges  = 30 * 24 * time.Hour
	trimBatch    = 1000
)

// keepHouse removes what nobody needs and reads the blobs again, in turn, for
// as long as the server runs.
func (s *server) keepHouse(ctx context.Context) error {
	var certificate error
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	collect, trim, scrub := time.NewTicker(collectEvery), time.NewTicker(trimEvery), time.NewTicker(scrubEvery)
	sizes := time.NewTicker(sizeEvery)
	defer sizes.Stop()
	defer collect.Stop()
	defer trim.Stop()
	defer scrub.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-minute.C:
			// Said once for each failure: the old certificate goes on being
			// served, and ends some day.
			if op := s.ca.Operator; op != nil {
				if failed := op.Failed(); failed != nil && (certificate == nil || failed.Error() != certificate.Error()) {
					s.log.Error("the certificate in --tls-cert has changed and cannot be read; the one before it is served", "err", failed)
				}
				certificate = op.Failed()
			}
		case <-sizes.C:
			err = s.trimSize(ctx)
		case <-collect.C:
			var r content.Report
			if r, err = s.content.Collect(ctx, content.CollectOptions{}); err == nil && r != (content.Report{}) {
				s.log.Info("collected", "blobs", r.Blobs, "bytes", r.Bytes, "uploads", r.Uploads, "files", r.Files)
			}
		case <-trim.C:
			err = s.trim(ctx)
		case <-scrub.C:
			var r content.ScrubReport
			if r, err = s.content.Scrub(ctx, content.ScrubOptions{}); err == nil {
				s.log.Info("scrubbed", "blobs", r.Blobs, "bytes", r.Bytes)
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.Error("housekeeping failed; it is tried again in its turn", "err", err)
		}
	}
}

func (s *server) trim(ctx context.Context) error {
	if _, err := s.events.Trim(ctx, s.now().Add(-s.keepEvents())); err != nil {
		return err
	}
	if err := s.trimHistory(ctx); err != nil {
		return err
	}
	for {
		n, err := s.db.TrimChanges(ctx, s.now().Add(-keepChanges), trimBatch)
		if err != nil || n < trimBatch {
			return err
		}
	}
}
