// Package wireguard makes overlay virtual networks: each is a TCP/IP stack in
// this process with a WireGuard device in front of it, and all of them share
// one UDP port. Members are whatever holds a peer's key: any standard WireGuard
// client, or this package's own Tunnel and Interface.
//
// The one idea: a network is a stack of its own, so two networks may have the
// same address space, and which network a connection came from is a fact about
// the listener it was accepted from, never something the caller says. A
// member's source address is checked by WireGuard against its key.
//
// It refuses to pass a packet from one network to another, or anywhere else
// outside a network, and to answer anyone whose key it does not know.
package wireguard

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"cove.example/cove/network"
)

// Config says what a Switch needs. HTTPS, DNS and Metadata own what they are given and
// must return without waiting for it; it ends when the network is removed.
type Config struct {
	// Listen is the UDP address, "0.0.0.0:51820". Port 0 takes a free one.
	Listen string
	// HTTPS is called once for each new network with a listener for port 443 of
	// every address in it but the resolver's and network.Metadata. LocalAddr of a connection is the
	// private endpoint's address, RemoteAddr the member's.
	HTTPS func(network string, l net.Listener)
	// DNS is called once for each new network with port 53 of
	// network.Resolver, and once for each further resolver that members have.
	DNS func(network string, udp net.PacketConn, tcp net.Listener)
	// Metadata is called once for each new network with a listener for port 80
	// of network.Metadata.
	Metadata func(network string, l net.Listener)
	// State is the folder that keeps where peers were last heard, so that after
	// a restart the server can call them. Nil keeps nothing.
	State  *os.Root
	Logger *slog.Logger     // nil discards
	Now    func() time.Time // nil is time.Now; it only ages indices and rations
}

// Switch is all overlay networks of a server.
type Switch struct {
	config Config
	log    *slog.Logger
	socket *socket
	router *router
	memory *memory
	done   sync.WaitGroup
	kick   chan struct{}
	stop   chan struct{}
	totals totals

	mu       sync.Mutex // guards networks and closed; held during Apply
	networks map[string]*overlay
	closed   bool
}

var _ network.Overlay = (*Switch)(nil)

// Open takes the port. It fails with ErrPortTaken if another program has it.
func Open(c Config) (*Switch, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Switch{
		config: c, log: c.Logger, networks: map[string]*overlay{},
		kick: make(chan struct{}, 1), stop: make(chan struct{}),
	}
	s.router = newRouter(c.Now, &s.totals.drops)
	var err error
	if s.socket, err = listen(c.Listen); err != nil {
		return nil, err
	}
	in, err := s.socket.receiver()
	if err != nil {
		return nil, errors.Join(err, s.socket.close())
	}
	if s.memory, err = recall(c.State); err != nil {
		s.log.Warn("what is remembered of WireGuard peers cannot be read; they will call us", "err", err)
	}
	s.done.Go(func() { s.read(in) })
	if c.State != nil {
		s.done.Go(s.remember)
	}
	return s, nil
}

// Addr is the UDP address in use.
func (s *Switch) Addr() netip.AddrPort { return s.socket.addr() }

var errClosed = fmt.Errorf("the WireGuard port is closed: %w", net.ErrClosed)

// Apply makes the network as w says. Nothing changes if w is invalid, and
// whatever both the old and the new network have keeps its tunnels and
// connections.
func (s *Switch) Apply(w network.Wanted) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if err := s.check(w); err != nil {
		return err
	}
	if o := s.networks[w.Key]; o != nil {
		return o.apply(w)
	}
	o, err := s.create(w)
	if err != nil {
		return fmt.Errorf("make virtual network %s: %w", w.Key, err)
	}
	s.networks[w.Key] = o
	return nil
}

// Remove ends a network with all its tunnels and connections. Removing one
// that is not there is not an error.
func (s *Switch) Remove(key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	if o := s.networks[key]; o != nil {
		delete(s.networks, key)
		o.close()
		s.memory.forget(key)
		s.wake()
	}
	return nil
}

// Close ends all networks and gives the port back. It returns when every
// goroutine has ended.
func (s *Switch) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.stop)
	saved := s.save(true)
	for _, o := range s.networks {
		o.close()
	}
	s.mu.Unlock()
	err := s.socket.close()
	s.done.Wait()
	return errors.Join(saved, err)
}

// check finds everything wrong with w. What comes here was validated by the
// resource provider; a mistake in it must still not break another network.
func (s *Switch) check(w network.Wanted) error {
	var problems []error
	wrong := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("virtual network %s: "+format, append([]any{w.Key}, args...)...))
	}
	if w.Key == "" {
		wrong("it has no name")
	}
	if w.PrivateKey == [32]byte{} {
		wrong("it has no key")
	}
	for key, o := range s.networks {
		if key != w.Key && o.key == PrivateKey(w.PrivateKey) {
			wrong("it has the key of %s, and their members could not be told apart", key)
		}
	}
	for _, p := range w.Prefixes {
		if !p.IsValid() || !p.Addr().Is4() {
			wrong("%s is not an IPv4 prefix", p)
		}
	}
	ours := map[netip.Addr]bool{network.Resolver: true, network.Metadata: true}
	for _, a := range w.Addresses {
		if !a.Is4() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() {
			wrong("%s cannot be an address in it", a)
		}
		ours[a] = true
	}
	keys, addresses := map[PublicKey]bool{PrivateKey(w.PrivateKey).Public(): true}, map[netip.Addr]bool{}
	for _, p := range w.Peers {
		switch {
		case p.PublicKey == [32]byte{}:
			wrong("member %s has no key", p.Address)
		case keys[p.PublicKey]:
			wrong("member %s has the key of another", p.Address)
		}
		switch {
		case !p.Address.Is4() || p.Address.IsUnspecified() || p.Address.IsMulticast() || p.Address.IsLoopback():
			wrong("%s cannot be a member's address", p.Address)
		case ours[p.Address] || addresses[p.Address]:
			wrong("address %s is given twice", p.Address)
		}
		keys[p.PublicKey], addresses[p.Address] = true, true
	}
	return errors.Join(problems...)
}
