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
	"slices"
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
	if s.memory, err = recall(c.State); err != nil {
		s.log.Warn("what is remembered of WireGuard peers cannot be read; they will call us", "err", err)
	}
	s.done.Go(func() { s.read(s.socket.receiver()) })
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
// resource provider; a mistake in it must still not break another network. What
// the network has already was looked at when it came.
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
	var ours network.Table[netip.Addr, bool]
	var peers network.Table[netip.Addr, [32]byte]
	keys := map[PublicKey]netip.Addr{}
	if o := s.networks[w.Key]; o != nil {
		ours, peers, keys = o.stack.rules.Load().ours, o.peers, o.members
	}
	for _, a := range slices.SortedFunc(network.Differences(ours, w.Addresses), netip.Addr.Compare) {
		switch {
		case !w.Addresses.Has(a):
		case !unicast(a):
			wrong("%s cannot be an address in it", a)
		case w.Peers.Has(a):
			wrong("address %s is given twice", a)
		}
	}
	own := PrivateKey(w.PrivateKey).Public()
	if key, _ := w.Peers.Get(keys[own]); key == own {
		wrong("member %s has the network's own key", keys[own])
	}
	added := map[PublicKey]bool{own: true}
	for _, a := range slices.SortedFunc(network.Differences(peers, w.Peers), netip.Addr.Compare) {
		key, is := w.Peers.Get(a)
		if !is {
			continue
		}
		stays, has := w.Peers.Get(keys[key])
		switch {
		case key == [32]byte{}:
			wrong("member %s has no key", a)
		case added[key], has && stays == key && keys[key] != a:
			wrong("member %s has the key of another", a)
		}
		switch {
		case !unicast(a):
			wrong("%s cannot be a member's address", a)
		case a == network.Resolver, a == network.Metadata, w.Addresses.Has(a) && ours.Has(a):
			wrong("address %s is given twice", a)
		}
		added[key] = true
	}
	return errors.Join(problems...)
}

// unicast reports whether a can be an address in a network.
func unicast(a netip.Addr) bool {
	return a.Is4() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
}
