package main

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"cove.example/cove/arm"
	"cove.example/cove/door"
	"cove.example/cove/drift"
	"cove.example/cove/link/host"
	"cove.example/cove/link/wireguard"
	"cove.example/cove/network"
	"cove.example/cove/reason"
)

// attachments are the networks that do not exist as tunnels, by the operator's
// configuration.
type attachments struct {
	host  map[string]host.Network // by arm.ID.Key
	proxy []string                // keys, in order
	ids   map[string]arm.ID       // of both
}

func (a *attachments) way(vnet arm.ID) string {
	switch key := vnet.Key(); {
	case slices.Contains(a.proxy, key):
		return network.AttachedProxy
	case a.ids[key] != (arm.ID{}):
		return network.AttachedHost
	}
	return network.AttachedOverlay
}

// namesElsewhere reports whether the machines of a network ask for names where
// our view of it is not seen.
func (a *attachments) namesElsewhere(key string) bool {
	return a.ids[key] != (arm.ID{}) && !a.host[key].Resolver.IsValid()
}

// attachments reads the flags that attach networks, and returns every problem
// of theirs.
func (c *config) attachments() (*attachments, []error) {
	a := &attachments{host: map[string]host.Network{}, ids: map[string]arm.ID{}}
	var wrong []error
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	for _, s := range c.AttachHost {
		name, text := cutLast(s)
		id, err := vnetID(name)
		prefix, prefixErr := netip.ParsePrefix(text)
		switch {
		case err != nil:
			bad("--attach-host %q: %w", s, err)
			continue
		case prefixErr != nil || !prefix.Addr().Is4() || prefix.Bits() < 8 || prefix != prefix.Masked():
			bad("--attach-host %q: expected VNET=RANGE, with a range of this machine's own such as 10.77.0.0/16, from /8 to /32", s)
			continue
		}
		for key, other := range a.host {
			for _, p := range other.Prefixes {
				if p.Overlaps(prefix) {
					bad("--attach-host: %s of %s overlaps %s of %s; an address of this machine is in one network only", prefix, id.Name(), p, a.ids[key].Name())
				}
			}
		}
		n := a.host[id.Key()]
		n.Prefixes = append(n.Prefixes, prefix)
		a.host[id.Key()], a.ids[id.Key()] = n, id
	}
	for _, s := range c.AttachHostDNS {
		name, text := cutLast(s)
		id, err := vnetID(name)
		at, addrErr := netip.ParseAddr(text)
		n, ok := a.host[id.Key()]
		switch {
		case err != nil:
			bad("--attach-host-dns %q: %w", s, err)
		case addrErr != nil || !at.Is4() || !unicast(at):
			bad("--attach-host-dns %q: expected VNET=ADDRESS, with an IPv4 address of this machine's own such as %s", s, network.Resolver)
		case !ok:
			bad("--attach-host-dns %q: --attach-host names no such network", s)
		case n.Resolver.IsValid():
			bad("--attach-host-dns: %s has two addresses", id.Name())
		default:
			for key, other := range a.host {
				if other.Resolver == at {
					bad("--attach-host-dns: %s answers for %s and for %s; which one is asked cannot be told", at, id.Name(), a.ids[key].Name())
				}
			}
			n.Resolver = at
			a.host[id.Key()] = n
		}
	}
	for _, s := range c.AttachProxy {
		id, err := vnetID(s)
		switch {
		case err != nil:
			bad("--attach-proxy %q: %w", s, err)
		case a.ids[id.Key()] != (arm.ID{}):
			bad("--attach-proxy: %s is attached already", id.Name())
		default:
			a.proxy, a.ids[id.Key()] = append(a.proxy, id.Key()), id
		}
	}
	wrong = append(wrong, c.clashes(a)...)
	_, more := c.balancers()
	return a, append(wrong, more...)
}

// clashes are addresses that both the public side and a network attached to
// the host would listen at.
func (c *config) clashes(a *attachments) (wrong []error) {
	if len(a.host) == 0 {
		return nil
	}
	listen := c.Listen
	if len(listen) == 0 {
		listen = []string{publicHTTPS}
	}
	for _, s := range listen {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			continue // told of elsewhere
		}
		if ap.Addr().IsUnspecified() && ap.Port() == 443 {
			wrong = append(wrong, fmt.Errorf("--attach-host: the public side listens at %s, which takes the endpoints' addresses too; give it an address of its own with --listen", s))
		}
		for key, n := range a.host {
			for _, p := range n.Prefixes {
				if p.Contains(ap.Addr()) {
					wrong = append(wrong, fmt.Errorf("--listen %s lies in %s, which --attach-host gives to %s", s, p, a.ids[key].Name()))
				}
			}
		}
	}
	return wrong
}

// balancers are those that --proxy-from lists.
func (c *config) balancers() (from []netip.Prefix, wrong []error) {
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	for _, s := range c.ProxyFrom {
		p, err := netip.ParsePrefix(s)
		if a, addrErr := netip.ParseAddr(s); addrErr == nil {
			p, err = netip.PrefixFrom(a, a.BitLen()), nil
		}
		switch {
		case err != nil || p != p.Masked() || p.Addr().Is4In6():
			bad("--proxy-from %q is no address and no range of addresses", s)
		case p.Bits() == 0:
			bad("--proxy-from %s: whoever is listed is believed about who calls; name the balancers' own addresses", s)
		default:
			from = append(from, p)
		}
	}
	for _, s := range c.ProxyListen {
		if _, err := netip.ParseAddrPort(s); err != nil {
			bad("--proxy-listen %q is not an address and port such as 10.0.0.5:8444", s)
		}
	}
	switch set := len(c.ProxyListen) > 0; {
	case set && (len(c.ProxyFrom) == 0 || c.ProxyMap == "" || len(c.AttachProxy) == 0):
		bad("--proxy-listen needs --proxy-from, the balancers that are believed; --proxy-map, whose private links they tell of; and --attach-proxy, the networks of those")
	case !set && (len(c.ProxyFrom) > 0 || c.ProxyMap != "" || len(c.AttachProxy) > 0):
		bad("--proxy-from, --proxy-map and --attach-proxy need --proxy-listen, where the balancers connect to")
	}
	return from, wrong
}

// cutLast cuts at the last equals sign: resource ids may have others.
func cutLast(s string) (before, after string) {
	i := strings.LastIndexByte(s, '=')
	if i < 0 {
		return s, ""
	}
	return s[:i], s[i+1:]
}

func vnetID(s string) (arm.ID, error) {
	id, err := arm.ParseID(s)
	if err != nil || !strings.EqualFold(id.Type(), network.TypeVirtualNetwork) {
		return arm.ID{}, fmt.Errorf("expected the resource id of a virtual network, /subscriptions/…/virtualNetworks/NAME")
	}
	return id, nil
}

// ways makes each network exist the way that the operator has chosen. It is
// the network.Overlay of all of them.
type ways struct {
	attachments *attachments
	overlay     *wireguard.Switch // nil: networks without attachment do not exist
	host        *host.Switch
	links       *links
}

// Apply implements network.Overlay.
func (w *ways) Apply(n network.Wanted) error {
	switch {
	case slices.Contains(w.attachments.proxy, n.Key):
		w.links.changed()
		return nil
	case w.attachments.ids[n.Key] != (arm.ID{}):
		return w.host.Apply(n)
	case w.overlay != nil:
		return w.overlay.Apply(n)
	}
	return nil
}

// Remove implements network.Overlay.
func (w *ways) Remove(key string) error {
	switch {
	case slices.Contains(w.attachments.proxy, key):
		w.links.changed()
		return nil
	case w.attachments.ids[key] != (arm.ID{}):
		return w.host.Remove(key)
	case w.overlay != nil:
		return w.overlay.Remove(key)
	}
	return nil
}

// openWays makes what the attached networks need, after the overlay.
func (s *server) openWays(a *attachments, frontEnd netip.Addr) error {
	s.ways = &ways{attachments: a, overlay: s.overlay}
	s.ways.host = host.New(host.Config{
		Networks: a.host, FrontEnd: frontEnd, HTTPS: s.serveHostNetwork, DNS: s.serveNetworkDNS,
	})
	s.closers.add(s.ways.host.Close)
	var err error
	s.ways.links, err = s.openLinks(a.proxy)
	return err
}

// privateRouter serves registries and nothing else: what leads to a registry
// is not a way to the Resource Manager.
func (s *server) privateRouter() *door.Router {
	return &door.Router{Registry: s.registry, IsRegistry: s.isRegistry}
}

func (s *server) serveHostNetwork(key string, l net.Listener) {
	s.servePrivate(l, func(err error) {
		s.log.Debug("the listeners of a network attached to the host ended", "network", key, "err", err)
	})
}

// servePrivate serves registries to connections that know their Origin.
func (s *server) servePrivate(l net.Listener, ended func(error)) {
	srv := door.Server(s.privateRouter())
	srv.ErrorLog = quiet(s.log)
	srv.TLSConfig = s.ca.TLS()
	go func() { ended(s.servers.run(srv, func() error { return srv.ServeTLS(l, "", "") })) }()
}

// attached finds what is wrong with the attached networks, for whoever asks for
// the server's status.
func (s *server) attached(subscription arm.ID) (found []drift.Finding) {
	w := s.ways
	there := s.networks.Networks()
	for key, id := range w.attachments.ids {
		if !slices.Contains(there, key) {
			found = append(found, drift.Finding{
				Code: reason.AttachedNothing, Resource: subscription,
				Says: fmt.Sprintf("--attach-%s names %s, and there is no such network", w.attachments.way(id), id),
			})
		}
		if n, _ := s.networks.Wanted(key); n.Peers.Len() > 0 {
			found = append(found, drift.Finding{
				Code: reason.MembersCutOff, Resource: id,
				Says: fmt.Sprintf("members of %s that joined by tunnels before --attach-%s was given are cut off: %d", id.Name(), w.attachments.way(id), n.Peers.Len()),
			})
		}
	}
	for _, t := range w.host.Troubles() {
		id := w.attachments.ids[t.Network]
		f := drift.Finding{Code: reason.AddressUnserved, Resource: id}
		if t.Err == nil {
			f.Says = fmt.Sprintf("%s of %s lies in no range that --attach-host gives to the network", t.Address, id.Name())
		} else {
			f.Says = fmt.Sprintf("%s of %s cannot be listened at: %v", t.Address, id.Name(), sentence(t.Err))
		}
		found = append(found, f)
	}
	for link, pe := range w.links.lost() {
		found = append(found, drift.Finding{
			Code: reason.LinkNowhere, Resource: subscription,
			Says: fmt.Sprintf("--proxy-map leads %s to %s, which is no private endpoint in a network that --attach-proxy names", link, pe),
		})
	}
	return found
}
