package health

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// sizes are the packets that are tried where packets of full size get no
// answer: what PPPoE and common tunnels leave of an Ethernet's 1500 bytes, what
// every link of IPv6 carries (RFC 8200), and what every host takes (RFC 791).
var sizes = []int{1492, 1420, 1400, 1380, 1280, 576}

// secondTry is how much of a layer's time is left for them.
const secondTry = Patience * 2 / 5

// SmallDial is a Dial whose connections send packets of at most size bytes, and
// ask the other side for no larger ones.
func SmallDial(ctx context.Context, network, address string, size int) (net.Conn, error) {
	segment := size - headers(address)
	var set error
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		err := c.Control(func(fd uintptr) {
			set = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, segment)
		})
		if err != nil {
			return err
		}
		return set
	}}
	return d.DialContext(ctx, network, address)
}

// headers is what IP and TCP take of each packet.
func headers(address string) int {
	if at, err := netip.ParseAddrPort(address); err == nil && at.Addr().Is6() {
		return 60
	}
	return 40
}

// smaller finds the largest packets with which TLS gets an answer where it gets
// none with full ones, and says what to do. Where none do it is not their size.
func (c *Check) smaller(ctx context.Context, at place, r *Result) {
	if c.Way.Small == nil || at.proxy != nil || len(at.addrs) == 0 {
		return
	}
	address, from := net.JoinHostPort(at.addrs[0].String(), at.port), c.source(ctx, at)
	heard := make([]bool, len(sizes))
	var all sync.WaitGroup
	for i, size := range sizes {
		all.Go(func() {
			conn, err := c.Way.Small(ctx, "tcp", address, size)
			if err != nil {
				return
			}
			defer conn.Close()
			// Only whether it answers is asked; shake judges.
			t := tls.Client(conn, &tls.Config{ServerName: at.host, MinVersion: tls.VersionTLS12, InsecureSkipVerify: true})
			heard[i] = t.HandshakeContext(ctx) == nil
		})
	}
	all.Wait()
	for i, size := range sizes {
		if !heard[i] {
			continue
		}
		r.Said += fmt.Sprintf("; with packets of %d bytes it does", size)
		r.Evidence = append(r.Evidence, "something on the way carries smaller packets than this machine sends, and does not say so")
		r.Fix = fmt.Sprintf("ip link set dev %s mtu %d", interfaceOf(from), size)
		return
	}
	r.Evidence = append(r.Evidence, fmt.Sprintf("packets of %d bytes get no answer either: it is not their size", sizes[len(sizes)-1]))
}

// interfaceOf is the name of this machine's interface with an address,
// INTERFACE where it has none.
func interfaceOf(addr netip.Addr) string {
	list, err := net.Interfaces()
	if err != nil {
		return "INTERFACE"
	}
	for _, i := range list {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap() == addr {
				return i.Name
			}
		}
	}
	return "INTERFACE"
}
