// Package dnsapi answers DNS, on one pair of sockets for each view: the public
// one, and 168.63.129.16 inside every virtual network.
//
// Which sockets a question came in by decides which view answers it; nothing
// in the question does. Outside, names that are not ours are refused: this is
// no resolver for strangers. Inside, they are forwarded.
package dnsapi

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/miekg/dns"

	"cove.example/cove/zone"
)

const (
	// maxUDP is what a UDP answer may have, whatever the asker claims to
	// take: with the headers it passes every path with an IPv6 minimum MTU,
	// so that no answer depends on fragments (DNS flag day 2020).
	maxUDP = 1232
	// maxQuery is the longest question that is read. One name, one OPT record
	// and its options are far below it.
	maxQuery = 1280
	// queryTimeout is less than the five seconds after which glibc asks
	// again.
	queryTimeout = 4500 * time.Millisecond
	// inFlight bounds the questions of one view that are being answered; the
	// next UDP packet waits in the socket's buffer, where it may be lost.
	inFlight = 256
	// forwards bounds the questions of one network that wait for another
	// resolver, so that no network can take all of the forwarder's room.
	forwards = 64
)

// Config is what a Server is made of.
type Config struct {
	// Views returns what a network sees (arm.ID.Key; "" is everybody).
	Views func(network string) *zone.View
	// FrontEnd returns the address inside a network at which who asks from
	// there reaches the registries' public side, or the zero Addr where it has
	// a way of its own. Nil is that for everybody.
	FrontEnd func(network string, from netip.Addr) netip.Addr
	// Routes returns the address spaces that the member at an address routes
	// into its tunnel, for it to find as TXT records at RoutesName; nil tells
	// nobody. An address that is no member's fails.
	Routes     func(ctx context.Context, network string, from netip.Addr) ([]netip.Prefix, error)
	RoutesName string
	// Forward answers other names inside networks; nil fails them at once.
	Forward *Forwarder
	// Observe is told of every answer: the view ("public" or "network") and
	// the rcode's name, or "DROPPED" or "LIMITED". It must not block.
	Observe func(view, rcode string)
	// Now is the clock of the rate limit; nil is time.Now.
	Now func() time.Time
	// PerSecond bounds the UDP answers to one stranger's prefix (IPv4 /24,
	// IPv6 /56), who has a cookie of ours apart; 0 is DefaultPerSecond.
	PerSecond int
}

// Server answers DNS.
type Server struct {
	Config
	limit   *limiter
	cookies *cookies
}

// New returns a server for c.
func New(c Config) *Server {
	if c.Observe == nil {
		c.Observe = func(string, string) {}
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.PerSecond <= 0 {
		c.PerSecond = DefaultPerSecond
	}
	return &Server{Config: c, limit: newLimiter(c.PerSecond), cookies: newCookies()}
}

// Serve answers the questions that arrive at pc and l, either of which may be
// nil, with the view of network ("" is the public one). It returns when ctx
// ends, with nil, or when a socket fails, and then both are closed.
func (s *Server) Serve(ctx context.Context, network string, pc net.PacketConn, l net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &served{
		Server:   s,
		network:  network,
		label:    "network",
		slots:    make(chan struct{}, inFlight),
		forwards: make(chan struct{}, forwards),
	}
	if network == "" {
		v.label = "public"
	}
	closeAll := func() {
		if pc != nil {
			pc.Close()
		}
		if l != nil {
			l.Close()
		}
	}
	stop := context.AfterFunc(ctx, closeAll)
	defer closeAll()
	defer stop()

	var wg sync.WaitGroup
	run := func(loop func(context.Context) error) {
		wg.Go(func() {
			if err := loop(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	if pc != nil {
		run(func(ctx context.Context) error { return v.packets(ctx, pc) })
	}
	if l != nil {
		run(func(ctx context.Context) error { return v.streams(ctx, l) })
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// served is one view being served on its sockets.
type served struct {
	*Server
	network  string
	label    string
	slots    chan struct{}
	forwards chan struct{}
}

func (v *served) public() bool { return v.network == "" }

func (v *served) observe(rcode int) {
	name, ok := dns.RcodeToString[rcode]
	if !ok {
		name = "OTHER"
	}
	v.Observe(v.label, name)
}
