// Package host serves virtual networks whose private endpoints are addresses
// of this machine: on one of its interfaces, or within a range that a route
// declares local (AnyIP). Whoever can route to them is in the network.
//
// An endpoint's address is listened at as long as the endpoint is there, and no
// other address ever is. The local address of a connection says which endpoint
// it came to; that its caller is who its address says rests on the networks
// around this machine, and on nothing else.
package host

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"cove.example/cove/link"
	"cove.example/cove/network"
)

// Network is how the operator has attached one network.
type Network struct {
	// Prefixes are where its endpoints may have addresses. Whoever may change
	// the network chooses addresses in it, and must not be able to choose one
	// that this machine uses otherwise.
	Prefixes []netip.Prefix
	Resolver netip.Addr // where its view of names is answered; zero is nowhere
}

// Config is what a Switch is made of.
type Config struct {
	Networks map[string]Network // by arm.ID.Key; no two overlap
	FrontEnd netip.Addr         // an address that every network has, and that is no endpoint's
	Port     uint16             // of the endpoints; 0 is 443
	DNSPort  uint16             // of the resolvers; 0 is 53

	// HTTPS gets the connections to a network's endpoints, when the network
	// appears. It must not wait; the listener ends with the network.
	HTTPS func(network string, l net.Listener)
	// DNS gets the sockets of a network's resolver, likewise. Nil answers none.
	DNS func(network string, udp net.PacketConn, tcp net.Listener)
}

// Switch holds the networks that are attached to the host. It implements
// network.Overlay for those of its Config.
type Switch struct {
	cfg Config

	mu   sync.Mutex
	open map[string]*attached
}

// New returns a switch of no networks; Apply fills it.
func New(c Config) *Switch {
	if c.Port == 0 {
		c.Port = 443
	}
	if c.DNSPort == 0 {
		c.DNSPort = 53
	}
	return &Switch{cfg: c, open: map[string]*attached{}}
}

// attached is one network that is served.
type attached struct {
	key  string
	sw   *Switch
	out  chan net.Conn
	done chan struct{}
	once sync.Once
	live link.Set
	dns  func() // ends the resolver; nil: there is none yet

	mu        sync.Mutex
	listeners map[netip.Addr]*net.TCPListener
	closed    map[netip.Addr]bool // their endpoints are not approved
	filter    *network.Filter
	failed    map[netip.Addr]error // cannot be listened at
	outside   []netip.Addr         // of endpoints, and of no prefix of the operator's
}

// Apply makes a network be served as it is now. What cannot be listened at is
// an error, and the rest is served all the same.
func (s *Switch) Apply(w network.Wanted) error {
	cfg, ok := s.cfg.Networks[w.Key]
	if !ok {
		return fmt.Errorf("the network %s is not attached to the host", w.Key)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.open[w.Key]
	if a == nil {
		a = &attached{
			key: w.Key, sw: s, out: make(chan net.Conn), done: make(chan struct{}),
			listeners: map[netip.Addr]*net.TCPListener{}, failed: map[netip.Addr]error{},
		}
		s.open[w.Key] = a
		s.cfg.HTTPS(w.Key, door{a})
	}
	return errors.Join(a.apply(w, cfg), a.resolve(cfg.Resolver))
}

// Remove ends a network, with every connection in it.
func (s *Switch) Remove(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.open[key]; a != nil {
		delete(s.open, key)
		a.end()
	}
	return nil
}

// Close ends all networks.
func (s *Switch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.open {
		a.end()
	}
	clear(s.open)
	return nil
}

// Trouble is an address of an endpoint that is not served.
type Trouble struct {
	Network string
	Address netip.Addr
	Err     error // nil: it lies in no prefix of the network's
}

// Troubles are the addresses that are not served now, in order.
func (s *Switch) Troubles() (out []Trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(s.open)) {
		a := s.open[key]
		a.mu.Lock()
		for _, at := range a.outside {
			out = append(out, Trouble{Network: key, Address: at})
		}
		for _, at := range slices.SortedFunc(maps.Keys(a.failed), netip.Addr.Compare) {
			out = append(out, Trouble{key, at, a.failed[at]})
		}
		a.mu.Unlock()
	}
	return out
}

// apply takes away first and adds last.
func (a *attached) apply(w network.Wanted, cfg Network) error {
	want, closed := map[netip.Addr]bool{}, map[netip.Addr]bool{}
	var outside []netip.Addr
	for at, open := range w.Addresses.All() {
		if at == network.Resolver || at == a.sw.cfg.FrontEnd || slices.Contains(w.Resolvers, at) {
			continue // a tunnel's, and there is none
		}
		if slices.ContainsFunc(cfg.Prefixes, func(p netip.Prefix) bool { return p.Contains(at) }) {
			want[at], closed[at] = true, !open
		} else {
			outside = append(outside, at)
		}
	}
	slices.SortFunc(outside, netip.Addr.Compare)

	a.mu.Lock()
	before, filter := a.closed, w.Filter
	a.closed, a.filter, a.outside = closed, filter, outside
	for at, l := range a.listeners {
		if !want[at] {
			_ = l.Close()
			delete(a.listeners, at)
		}
	}
	for at := range a.failed {
		if !want[at] {
			delete(a.failed, at)
		}
	}
	a.mu.Unlock()

	port := a.sw.cfg.Port
	a.live.Reset(func(o link.Origin) bool {
		at := o.Local.Addr()
		return !want[at] || closed[at] && !before[at] || !admits(filter, o, port)
	})

	var all []error
	for at := range want {
		if err := a.listen(at); err != nil {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

func admits(f *network.Filter, o link.Origin, port uint16) bool {
	return f.Admit(network.Flow{Protocol: 6, From: o.Remote.Addr(), FromPort: o.Remote.Port(), To: o.Local.Addr(), ToPort: port})
}

// listen serves one address, if it is not served yet.
func (a *attached) listen(at netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listeners[at] != nil {
		return nil
	}
	l, err := config.Listen(context.Background(), "tcp4", a.sw.at(at, a.sw.cfg.Port))
	if err != nil {
		a.failed[at] = err
		return fmt.Errorf("an endpoint's address cannot be listened at: %w", err)
	}
	delete(a.failed, at)
	a.listeners[at] = l.(*net.TCPListener)
	go a.accept(at, l.(*net.TCPListener))
	return nil
}

func (s *Switch) at(a netip.Addr, port uint16) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
}

// config lets an address be bound before the machine has it, so that it does
// not matter which is there first.
var config = net.ListenConfig{Control: freebind}

// acceptAgain is the pause after a failed accept: a process without free
// descriptors cannot accept for a while, and that is no end.
const acceptAgain = 100 * time.Millisecond

func (a *attached) accept(at netip.Addr, l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-a.done:
				return
			case <-time.After(acceptAgain):
			}
			continue
		}
		conn := a.live.Add(c, link.Origin{
			Kind: link.Host, Network: a.key, Remote: unmapped(c.RemoteAddr()), Local: unmapped(c.LocalAddr()),
		})
		// It is in the set first, and looked at then: so an address that goes
		// away in between takes it along either way.
		if !a.takes(conn.Origin, l) {
			link.Abort(c)
			_ = conn.Close()
			continue
		}
		select {
		case a.out <- conn:
		case <-a.done:
			_ = conn.Close()
			return
		}
	}
}

// takes reports whether a connection's address is still served by l, and the
// security groups let it in.
func (a *attached) takes(o link.Origin, l *net.TCPListener) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.listeners[o.Local.Addr()] == l && admits(a.filter, o, a.sw.cfg.Port)
}

func unmapped(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// resolve answers names where the operator has said.
func (a *attached) resolve(at netip.Addr) error {
	if a.dns != nil || !at.IsValid() || a.sw.cfg.DNS == nil {
		return nil
	}
	where := a.sw.at(at, a.sw.cfg.DNSPort)
	udp, err := config.ListenPacket(context.Background(), "udp4", where)
	if err != nil {
		return fmt.Errorf("the network's resolver cannot be served: %w", err)
	}
	tcp, err := config.Listen(context.Background(), "tcp4", where)
	if err != nil {
		_ = udp.Close()
		return fmt.Errorf("the network's resolver cannot be served: %w", err)
	}
	a.dns = func() { _, _ = udp.Close(), tcp.Close() }
	a.sw.cfg.DNS(a.key, udp, tcp)
	return nil
}

func (a *attached) end() {
	_ = door{a}.Close()
	a.mu.Lock()
	for at, l := range a.listeners {
		_ = l.Close()
		delete(a.listeners, at)
	}
	a.mu.Unlock()
	a.live.Reset(func(link.Origin) bool { return true })
	if a.dns != nil {
		a.dns()
	}
}

// door is all listeners of a network as one.
type door struct{ a *attached }

// Accept returns the next connection, a *link.Conn.
func (d door) Accept() (net.Conn, error) {
	select {
	case c := <-d.a.out:
		return c, nil
	case <-d.a.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept. The addresses are listened at until the network ends.
func (d door) Close() error {
	err := net.ErrClosed
	d.a.once.Do(func() { close(d.a.done); err = nil })
	return err
}

// Addr is every address of the network's.
func (d door) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4zero, Port: int(d.a.sw.cfg.Port)} }
