package wireguard

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.zx2c4.com/wireguard/device"

	"cove.example/cove/network"
)

// overlay is one network: a WireGuard device whose interface is a stack.
type overlay struct {
	name   string
	key    PrivateKey
	sw     *Switch
	port   *port
	stack  *netStack
	device *device.Device
	// peers are those that the device has, and members the same by their keys.
	peers   network.Table[netip.Addr, [32]byte]
	members map[PublicKey]netip.Addr
	// resolvers are the further addresses that answer DNS, and how to stop.
	resolvers map[netip.Addr]func()
	flows     flows
}

func (s *Switch) create(w network.Wanted) (*overlay, error) {
	key := PrivateKey(w.PrivateKey)
	n, err := newNetStack(DefaultMTU, &s.totals.drops)
	if err != nil {
		return nil, err
	}
	o := &overlay{name: w.Key, key: key, sw: s, port: newPort(s, key.Public(), &n.count, n.window), stack: n, members: map[PublicKey]netip.Addr{}, resolvers: map[netip.Addr]func(){}}
	o.device = device.NewDevice(n, o.port, counting(s.log.With("network", w.Key), &n.count, &s.totals))
	if err := o.begin(w); err != nil {
		o.close()
		return nil, err
	}
	return o, nil
}

func (o *overlay) begin(w network.Wanted) error {
	if err := o.device.IpcSet("private_key=" + o.key.hex() + "\n"); err != nil {
		return err
	}
	if err := o.device.Up(); err != nil {
		return err
	}
	o.sw.router.add(o.port)
	if err := o.apply(w); err != nil {
		return err
	}
	https, err := o.stack.listenTCP(netip.AddrPortFrom(netip.IPv4Unspecified(), 443), network.Resolver, network.Metadata)
	if err != nil {
		return err
	}
	at := netip.AddrPortFrom(network.Resolver, 53)
	udp, err := o.stack.listenUDP(at)
	if err != nil {
		return err
	}
	tcp, err := o.stack.listenTCP(at)
	if err != nil {
		return err
	}
	metadata, err := o.stack.listenTCP(netip.AddrPortFrom(network.Metadata, 80))
	if err != nil {
		return err
	}
	offer(o.sw.config, o.name, https, metadata, udp, tcp)
	return nil
}

// offer hands out the listeners; one that nobody wants is closed, so that
// callers are refused and do not wait.
func offer(c Config, name string, https, metadata net.Listener, udp net.PacketConn, tcp net.Listener) {
	if c.HTTPS != nil {
		c.HTTPS(name, https)
	} else {
		_ = https.Close()
	}
	if c.DNS != nil {
		c.DNS(name, udp, tcp)
	} else {
		_, _ = udp.Close(), tcp.Close()
	}
	if c.Metadata != nil {
		c.Metadata(name, metadata)
	} else {
		_ = metadata.Close()
	}
}

// apply takes away first and adds last: an address that moves from one member
// to another belongs to nobody in between.
func (o *overlay) apply(w network.Wanted) error {
	r := &rules{
		mtu: DefaultMTU, ours: w.Addresses.With(network.Resolver, true).With(network.Metadata, true), members: w.Peers,
		prefixes: w.Prefixes, policy: policyOf(w, &o.flows),
	}
	if key := PrivateKey(w.PrivateKey); key != o.key {
		if err := o.rekey(key); err != nil {
			return err
		}
	}

	var gone strings.Builder
	before, left := o.peers, o.peers // left are who stays, with the address it has
	for a := range network.Differences(o.peers, w.Peers) {
		if key, have := o.peers.Get(a); have {
			fmt.Fprintf(&gone, "public_key=%s\nremove=true\n", PublicKey(key).hex())
			o.sw.memory.drop(o.name, key)
			delete(o.members, key)
			left = left.Without(a)
		}
	}
	if err := o.set(gone.String()); err != nil {
		return err
	}
	o.peers = left
	// The same addresses without those members, so that their connections end
	// before anybody else can have their addresses.
	if gone.Len() > 0 {
		have := *o.stack.rules.Load()
		have.members = left
		if err := o.stack.setRules(&have); err != nil {
			return err
		}
		for a := range network.Differences(have.members, before) {
			o.flows.forget(a)
		}
	}
	if err := o.stack.setRules(r); err != nil {
		return err
	}
	var added strings.Builder
	for a := range network.Differences(o.peers, w.Peers) {
		key, _ := w.Peers.Get(a)
		fmt.Fprintf(&added, "public_key=%s\nreplace_allowed_ips=true\nallowed_ip=%s/32\n", PublicKey(key).hex(), a)
		added.WriteString(call(o.sw.memory.endpoint(o.name, key), key, 0))
		o.members[key] = a
	}
	if err := o.set(added.String()); err != nil {
		return err
	}
	o.peers = w.Peers
	return o.resolve(w.Resolvers)
}

// resolve makes DNS be answered at these addresses besides the usual one.
func (o *overlay) resolve(want []netip.Addr) error {
	for a, stop := range o.resolvers {
		if !slices.Contains(want, a) {
			stop()
			delete(o.resolvers, a)
		}
	}
	for _, a := range want {
		if o.resolvers[a] != nil || a == network.Resolver {
			continue
		}
		udp, err := o.stack.listenUDP(netip.AddrPortFrom(a, 53))
		if err != nil {
			return err
		}
		tcp, err := o.stack.listenTCP(netip.AddrPortFrom(a, 53))
		if err != nil {
			_ = udp.Close()
			return err
		}
		o.resolvers[a] = func() { _, _ = udp.Close(), tcp.Close() }
		if o.sw.config.DNS == nil {
			o.resolvers[a]()
			continue
		}
		o.sw.config.DNS(o.name, udp, tcp)
	}
	return nil
}

func (o *overlay) set(config string) error {
	if config == "" {
		return nil
	}
	return o.device.IpcSet(config)
}

// rekey gives the network another key; members that know the old one are out.
func (o *overlay) rekey(key PrivateKey) error {
	if err := o.device.IpcSet("private_key=" + key.hex() + "\n"); err != nil {
		return err
	}
	fresh := newMac1(key.Public())
	o.port.mac.Store(fresh)
	o.key = key
	return nil
}

// call is the configuration that makes the device start a handshake with a
// peer now, at the endpoint it was last heard at, then keep the interval given
// (0: none). Turning keepalive on is what sends the first packet, and
// WireGuard's own timers repeat it for 90 s. Left on, it would call members that
// are gone for ever; those that are there send keepalives of their own.
func call(at netip.AddrPort, key PublicKey, keepalive int) string {
	if !at.IsValid() {
		return ""
	}
	return fmt.Sprintf("endpoint=%s\npersistent_keepalive_interval=25\npublic_key=%s\npersistent_keepalive_interval=%d\n", at, key.hex(), keepalive)
}

// close ends the device, its peers, the stack and every connection in it.
func (o *overlay) close() {
	o.sw.router.remove(o.port)
	o.device.Close()
}
