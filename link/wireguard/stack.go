package wireguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"cove.example/cove/network"
)

const (
	// DefaultMTU leaves room for WireGuard over IPv6 in 1500 bytes.
	DefaultMTU = 1420

	// readBatch and writeBatch are how many packets a device handles at once on
	// their way in and out. wireguard-go keeps a buffer of 64 KiB for each, for as long as the
	// network exists, so its own 128 would be 16 MiB of heap a network. Few
	// suffice: what comes in together is joined by the joiner, what goes out
	// together by the outbox.
	readBatch  = 8
	writeBatch = 8

	// sendRun is how many full packets, encrypted, fit a datagram of 64 KiB
	// that the kernel cuts.
	sendRun = maxSuper / (DefaultMTU + 32)

	nicID = 1
	// queued packets, each up to 32 KiB before it is cut, on their way out of
	// the stack; TCP's windows rarely let it fill.
	queueLength = 512
	hubLength   = 256
	backlog     = 1024
)

// netStack is a TCP/IP stack in this process that is also the TUN device of a
// WireGuard device: what WireGuard decrypts goes into Write, what Read returns
// is encrypted. Nothing outside this file and segment.go knows gVisor.
type netStack struct {
	mtu    int
	stack  *stack.Stack
	link   *channel.Endpoint
	events chan tun.Event
	rules  atomic.Pointer[rules]
	count  drops
	hub    chan []byte // packets between members, in buffers of hubBufs
	wakeup chan struct{}
	done   chan struct{}
	once   sync.Once

	window *window // of the device
	join   *joiner
	cut    cutter // of the goroutine that calls Read
}

var _ tun.Device = (*netStack)(nil)

var hubBufs = sync.Pool{New: func() any { return new([hubBuf]byte) }}

const hubBuf = 2048

// newNetStack counts what it drops with all, if that is not nil.
func newNetStack(mtu int, all *drops) (*netStack, error) {
	n := &netStack{
		mtu:    mtu,
		link:   channel.New(queueLength, uint32(mtu), ""),
		events: make(chan tun.Event),
		hub:    make(chan []byte, hubLength),
		wakeup: make(chan struct{}, 1),
		done:   make(chan struct{}),
	}
	n.window, n.join = newWindow(), newJoiner(n)
	n.count.all = all
	n.rules.Store(&rules{mtu: mtu})
	n.link.SupportedGSOKind = stack.HostGSOSupported
	// What arrives was authenticated by WireGuard; a checksum proves less. But
	// one that its sender spoilt before sealing it is not found out here: TLS
	// finds it, and DNS's and the metadata service's plain text goes without.
	n.link.LinkEPCapabilities |= stack.CapabilityRXChecksumOffload
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	for _, set := range []tcpip.SettableTransportProtocolOption{
		ptr(tcpip.TCPSACKEnabled(true)),
		ptr(tcpip.TCPModerateReceiveBufferOption(true)),
		// Buffers grow with the connection; the default is what one costs
		// before it has shown that it is fast.
		&tcpip.TCPSendBufferSizeRangeOption{Min: 4 << 10, Default: 512 << 10, Max: 4 << 20},
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: 4 << 10, Default: 512 << 10, Max: 4 << 20},
		ptr(tcpip.CongestionControlOption("cubic")),
		// Off: gVisor's RACK handles acknowledgements late and retransmits
		// what was not lost.
		ptr(tcpip.TCPRecovery(0)),
	} {
		if e := n.stack.SetTransportProtocolOption(tcp.ProtocolNumber, set); e != nil {
			return nil, fmt.Errorf("set up TCP: %s", e)
		}
	}
	if e := n.stack.CreateNIC(nicID, superLink{n.link}); e != nil {
		return nil, fmt.Errorf("set up the interface: %s", e)
	}
	n.stack.AddRoute(tcpip.Route{Destination: header.IPv4EmptySubnet, NIC: nicID})
	n.link.AddNotify(n)
	return n, nil
}

// superLink takes segments from the stack that become as many packets as the
// kernel sends at once: with the 32 KiB of channel.Endpoint it would be half as
// many.
type superLink struct{ *channel.Endpoint }

func (superLink) GSOMaxSize() uint32 {
	const payload = sendRun * (DefaultMTU - 20 - 32) // IP, and TCP with timestamps
	return payload + header.TCPTotalHeaderMaximumSize + 1
}

func ptr[T any](v T) *T { return &v }

func address(a netip.Addr) tcpip.Address { return tcpip.AddrFrom4(a.As4()) }

func fullAddress(a netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nicID, Addr: address(a.Addr()), Port: a.Port()}
}

// setRules changes which addresses are ours and who is a member. A connection
// whose end here or there is gone is reset: a private endpoint that was removed
// must not go on answering, and what was meant for a removed member must not
// reach the next holder of its address.
func (n *netStack) setRules(want *rules) error {
	have := n.rules.Load()
	var removed []netip.Addr
	closes := false // a private endpoint is no longer approved
	for a := range network.Differences(have.ours, want.ours) {
		before, was := have.ours.Get(a)
		now, is := want.ours.Get(a)
		switch {
		case was && !is:
			removed = append(removed, a)
		case was:
			closes = closes || before && !now
		default:
			if e := n.stack.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
				Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address(a).WithPrefix(),
			}, stack.AddressProperties{}); e != nil {
				return fmt.Errorf("add address %s: %s", a, e)
			}
		}
	}
	// From here on nothing reaches an address that was removed, and Accept
	// gives out no connection to it.
	n.rules.Store(want)
	n.join.settle()
	left := len(removed) > 0
	for a := range network.Differences(have.members, want.members) {
		left = left || !want.members.Has(a)
	}
	if left {
		n.abort(func(local, remote netip.AddrPort) bool {
			return have.ours.Has(local.Addr()) && !want.ours.Has(local.Addr()) || have.members.Has(remote.Addr()) && !want.members.Has(remote.Addr())
		})
	}
	n.endRefused(have, want, closes)
	for _, a := range removed {
		if e := n.stack.RemoveAddress(nicID, address(a)); e != nil {
			return fmt.Errorf("remove address %s: %s", a, e)
		}
	}
	return nil
}

// abort resets every TCP connection that gone says has lost an end.
func (n *netStack) abort(gone func(local, remote netip.AddrPort) bool) {
	for _, e := range n.stack.RegisteredEndpoints() {
		ep, ok := e.(*tcp.Endpoint)
		if !ok {
			continue
		}
		id := ep.Info().(*stack.TransportEndpointInfo).ID
		if id.RemoteAddress.Len() != 4 || id.LocalAddress.Len() != 4 {
			continue
		}
		local := netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort)
		if gone(local, netip.AddrPortFrom(netip.AddrFrom4(id.RemoteAddress.As4()), id.RemotePort)) {
			ep.Abort()
		}
	}
}

// Write takes what WireGuard has decrypted. Each packet's source is already
// known to be its sender's own address.
func (n *netStack) Write(bufs [][]byte, offset int) (int, error) {
	r := n.rules.Load()
	for _, b := range bufs {
		p := b[offset:]
		why := r.judge(p)
		if !r.Admit(p, why) {
			why = dropGroup
		}
		switch why {
		case toStack:
			n.join.add(p, r)
		case toMember:
			n.relay(p)
		case dropTooBig:
			n.count.add(why)
			n.tooBig(p)
		default:
			n.count.add(why)
		}
	}
	n.window.leave(len(bufs))
	return len(bufs), nil
}

// relay passes a packet from one member to another, as a router would.
func (n *netStack) relay(p []byte) {
	b := hubBufs.Get().(*[hubBuf]byte)
	q := b[:copy(b[:], p)]
	lowerTTL(q)
	n.post(q)
}

// post queues a packet in a buffer of hubBufs for a member.
func (n *netStack) post(q []byte) {
	select {
	case n.hub <- q:
	default:
		n.count.add(dropQueueFull)
		hubBufs.Put((*[hubBuf]byte)(q[:hubBuf]))
	}
}

// tooBig tells the sender which size fits (RFC 1191). Without it two members
// with a larger MTU than ours would see connections hang.
func (n *netStack) tooBig(p []byte) {
	b := hubBufs.Get().(*[hubBuf]byte)
	n.post(b[:fragmentationNeeded(b[:], p, n.mtu)])
}

// Read returns packets for WireGuard to encrypt.
func (n *netStack) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	for {
		k := n.fill(bufs, sizes, offset)
		if k > 0 {
			return k, nil
		}
		select {
		case <-n.done:
			return 0, os.ErrClosed
		case <-n.wakeup:
		case p := <-n.hub:
			sizes[0] = unhub(bufs[0][offset:], p)
			return 1, nil
		}
	}
}

// fill takes what is there without waiting. A segment that does not fit what is
// left of bufs waits for the next call: cut in two it would be two sends.
func (n *netStack) fill(bufs [][]byte, sizes []int, offset int) int {
	k := 0
	for k < len(bufs) {
		if n.cut.pending() {
			k += n.cut.next(bufs[k:], sizes[k:], offset)
			continue
		}
		select {
		case p := <-n.hub:
			sizes[k] = unhub(bufs[k][offset:], p)
			k++
			continue
		default:
		}
		pkt := n.link.Read()
		if pkt == nil {
			break
		}
		whole := true
		if pkt.GSOOptions.Type != stack.GSONone {
			n.cut.load(pkt)
			whole = n.cut.pieces() <= len(bufs)-k
		} else {
			sizes[k] = flatten(bufs[k][offset:], pkt)
			k++
		}
		pkt.DecRef()
		if !whole && k > 0 {
			break
		}
	}
	return k
}

func unhub(dst, p []byte) int {
	size := copy(dst, p)
	hubBufs.Put((*[hubBuf]byte)(p[:hubBuf]))
	return size
}

func flatten(dst []byte, pkt *stack.PacketBuffer) int {
	size := 0
	for _, s := range pkt.AsSlices() {
		size += copy(dst[size:], s)
	}
	return size
}

// WriteNotify is called by the stack when it has queued a packet.
func (n *netStack) WriteNotify() {
	select {
	case n.wakeup <- struct{}{}:
	default:
	}
}

func (n *netStack) File() *os.File           { return nil }
func (n *netStack) MTU() (int, error)        { return n.mtu, nil }
func (n *netStack) Name() (string, error)    { return "cove", nil }
func (n *netStack) Events() <-chan tun.Event { return n.events }
func (n *netStack) BatchSize() int           { return writeBatch }

func (n *netStack) Close() error {
	n.once.Do(func() {
		close(n.done)
		n.join.close()
		n.stack.Destroy()
		n.link.Close()
		close(n.events)
	})
	return nil
}

// listenTCP listens at every address of ours, except those in not, with the
// given port: the connection's local address tells which was called.
func (n *netStack) listenTCP(at netip.AddrPort, not ...netip.Addr) (net.Listener, error) {
	l := &listener{n: n, at: net.TCPAddrFromAddrPort(at), not: not, done: make(chan struct{})}
	ep, e := n.stack.NewEndpoint(tcp.ProtocolNumber, ipv4.ProtocolNumber, &l.queue)
	if e != nil {
		return nil, fmt.Errorf("listen at %s: %s", at, e)
	}
	l.ep = ep
	local := tcpip.FullAddress{NIC: nicID, Port: at.Port()}
	if !at.Addr().IsUnspecified() {
		local.Addr = address(at.Addr())
	}
	if e := ep.Bind(local); e != nil {
		ep.Close()
		return nil, fmt.Errorf("listen at %s: %s", at, e)
	}
	if e := ep.Listen(backlog); e != nil {
		ep.Close()
		return nil, fmt.Errorf("listen at %s: %s", at, e)
	}
	return l, nil
}

func (n *netStack) listenUDP(at netip.AddrPort) (net.PacketConn, error) {
	a := fullAddress(at)
	return gonet.DialUDP(n.stack, &a, nil, ipv4.ProtocolNumber)
}

func (n *netStack) dial(ctx context.Context, kind string, to netip.AddrPort) (net.Conn, error) {
	a := fullAddress(to)
	if kind == "udp" {
		return gonet.DialUDP(n.stack, nil, &a, ipv4.ProtocolNumber)
	}
	return gonet.DialContextTCP(ctx, n.stack, a, ipv4.ProtocolNumber)
}

type listener struct {
	n     *netStack
	at    *net.TCPAddr
	not   []netip.Addr
	ep    tcpip.Endpoint
	queue waiter.Queue
	once  sync.Once
	done  chan struct{}
}

func (l *listener) Addr() net.Addr { return l.at }

func (l *listener) Close() error {
	l.once.Do(func() {
		close(l.done)
		l.ep.Close()
	})
	return nil
}

// Accept gives out no connection to an address that has been removed since,
// or that this listener does not serve.
func (l *listener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.queue.EventRegister(&entry)
	defer l.queue.EventUnregister(&entry)
	for {
		ep, queue, e := l.ep.Accept(nil)
		if e == nil {
			if !l.serves(ep) {
				ep.Abort()
				continue
			}
			keepAlive(ep)
			return gonet.NewTCPConn(queue, ep), nil
		}
		if _, wait := e.(*tcpip.ErrWouldBlock); !wait {
			return nil, l.failed(e)
		}
		select {
		case <-l.done:
			return nil, l.failed(nil)
		case <-l.n.done:
			return nil, l.failed(nil)
		case <-ready:
		}
	}
}

func (l *listener) failed(e tcpip.Error) error {
	err := net.ErrClosed
	select {
	case <-l.done:
	case <-l.n.done:
	default:
		err = errors.New(e.String())
	}
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.at, Err: err}
}

func (l *listener) serves(ep tcpip.Endpoint) bool {
	at, e := ep.GetLocalAddress()
	if e != nil || at.Addr.Len() != 4 {
		return false
	}
	a := netip.AddrFrom4(at.Addr.As4())
	return !slices.Contains(l.not, a) && l.n.rules.Load().ours.Has(a)
}

// keepAlive finds members that went away without a word: a laptop's lid
// closes no connections. Two minutes and a half later theirs are gone.
func keepAlive(ep tcpip.Endpoint) {
	ep.SocketOptions().SetKeepAlive(true)
	_ = ep.SetSockOpt(ptr(tcpip.KeepaliveIdleOption(60 * time.Second)))
	_ = ep.SetSockOpt(ptr(tcpip.KeepaliveIntervalOption(15 * time.Second)))
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, 6)
}
