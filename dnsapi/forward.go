package dnsapi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/singleflight"
)

const (
	// maxForwards are outstanding at once, over all networks; each has a
	// socket.
	maxForwards = 512
	// tryTimeout is for one upstream.
	tryTimeout = 2 * time.Second
	// maxUpstreams is how many glibc asks, too.
	maxUpstreams = 3
	// maxStray datagrams that are no answer to the question: then somebody is
	// guessing, and TCP is asked, where that is of no use.
	maxStray = 16
)

// ErrNoUpstream means that there is nobody to ask.
var ErrNoUpstream = errors.New("no resolver to forward to")

var errBusy = errors.New("too many questions are being forwarded")

// Forwarder asks the host's resolvers about names that are not ours. Each
// question goes out from a port and with an id of its own, its letters in
// random case, and a question that is already on its way is not sent twice:
// what an attacker would have to guess stays as much as it can be.
type Forwarder struct {
	upstreams []netip.AddrPort
	flights   singleflight.Group
	slots     chan struct{}
}

// Query is what is asked of another resolver.
type Query struct {
	Name       string // fully qualified
	Type       uint16
	DO, CD, AD bool // as the asker set them
}

// NewForwarder returns a forwarder to the upstreams that are not ourselves;
// own are the addresses that this process answers DNS at. Asking ourselves
// would be a circle.
func NewForwarder(upstreams, own []netip.AddrPort) *Forwarder {
	local := map[netip.Addr]bool{}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				local[p.Addr()] = true
			}
		}
	}
	f := &Forwarder{slots: make(chan struct{}, maxForwards)}
	for _, up := range upstreams {
		up = netip.AddrPortFrom(up.Addr().Unmap(), up.Port())
		ours := slices.ContainsFunc(own, func(o netip.AddrPort) bool {
			here := local[up.Addr()] || up.Addr().IsLoopback() || up.Addr().IsUnspecified()
			return o.Port() == up.Port() && (o.Addr().Unmap() == up.Addr() || o.Addr().IsUnspecified() && here)
		})
		if !ours && !slices.Contains(f.upstreams, up) && len(f.upstreams) < maxUpstreams {
			f.upstreams = append(f.upstreams, up)
		}
	}
	return f
}

// Upstreams are the resolvers that are asked, in order.
func (f *Forwarder) Upstreams() []netip.AddrPort { return slices.Clone(f.upstreams) }

// SystemResolvers reads the resolvers from a file such as /etc/resolv.conf.
func SystemResolvers(path string) ([]netip.AddrPort, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the host's resolvers: %w", err)
	}
	defer file.Close()
	c, err := dns.ClientConfigFromReader(file)
	if err != nil {
		return nil, fmt.Errorf("read the host's resolvers: %w", err)
	}
	var ups []netip.AddrPort
	for _, s := range c.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			ups = append(ups, netip.AddrPortFrom(a, 53))
		}
	}
	return ups, nil
}

// Ask returns what the first upstream that knows says. The answer is shared
// with others who asked the same and must not be modified.
func (f *Forwarder) Ask(ctx context.Context, q Query) (*dns.Msg, error) {
	if len(f.upstreams) == 0 {
		return nil, ErrNoUpstream
	}
	q.Name = strings.ToLower(q.Name)
	key := fmt.Sprintf("%d %t %t %t %s", q.Type, q.DO, q.CD, q.AD, q.Name)
	done := f.flights.DoChan(key, func() (any, error) {
		select {
		case f.slots <- struct{}{}:
			defer func() { <-f.slots }()
		default:
			return nil, errBusy
		}
		// The first asker may leave; the others still want to know.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTimeout)
		defer cancel()
		return f.ask(ctx, q)
	})
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case r := <-done:
		m, _ := r.Val.(*dns.Msg)
		return m, r.Err
	}
}

func (f *Forwarder) ask(ctx context.Context, q Query) (*dns.Msg, error) {
	var last *dns.Msg
	var errs []error
	for _, up := range f.upstreams {
		m, err := exchange(ctx, up, q)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if m.Rcode != dns.RcodeServerFailure && m.Rcode != dns.RcodeRefused {
			return m, nil
		}
		last = m
	}
	if last != nil {
		return last, nil
	}
	return nil, errors.Join(errs...)
}

// exchange asks one upstream, over TCP where UDP is too small or not to be
// trusted.
func exchange(ctx context.Context, up netip.AddrPort, q Query) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTimeout)
	defer cancel()
	m := new(dns.Msg)
	m.SetQuestion(mixed(q.Name), q.Type)
	m.Id = dns.Id() // from crypto/rand
	m.CheckingDisabled, m.AuthenticatedData = q.CD, q.AD
	m.SetEdns0(maxUDP, q.DO)
	got, err := overUDP(ctx, up, m)
	if err == nil && got != nil {
		return got, nil
	}
	if err != nil && ctx.Err() != nil {
		return nil, err
	}
	return overTCP(ctx, up, m)
}

// overUDP returns nil without error when TCP must be asked.
func overUDP(ctx context.Context, up netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	c, err := dial(ctx, "udp", up)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.WriteMsg(m); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for range maxStray {
		// Not dns.Conn.ReadMsg: it fails at the first datagram that is no
		// message, and a forged one would do.
		n, err := c.Conn.Read(buf)
		if err != nil {
			return nil, err
		}
		got := new(dns.Msg)
		if got.Unpack(buf[:n]) != nil || !answers(got, m) {
			continue
		}
		if got.Truncated || got.Question[0].Name != m.Question[0].Name {
			// Cut off; or from somebody who has not seen how the name was
			// spelled. Some resolvers do not keep the spelling, so it is not
			// an error.
			return nil, nil
		}
		return got, nil
	}
	return nil, nil
}

func overTCP(ctx context.Context, up netip.AddrPort, m *dns.Msg) (*dns.Msg, error) {
	c, err := dial(ctx, "tcp", up)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := c.WriteMsg(m); err != nil {
		return nil, err
	}
	got, err := c.ReadMsg()
	if err != nil {
		return nil, err
	}
	if !answers(got, m) || got.Truncated {
		return nil, fmt.Errorf("%s answered another question", up)
	}
	return got, nil
}

func dial(ctx context.Context, network string, up netip.AddrPort) (*dns.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, network, up.String())
	if err != nil {
		return nil, err
	}
	if d, ok := ctx.Deadline(); ok {
		if err := c.SetDeadline(d); err != nil {
			c.Close()
			return nil, err
		}
	}
	return &dns.Conn{Conn: c, UDPSize: maxUDP}, nil
}

// answers reports whether got answers the question of m, but for case.
func answers(got, m *dns.Msg) bool {
	if got.Id != m.Id || !got.Response || got.Opcode != dns.OpcodeQuery || len(got.Question) != 1 {
		return false
	}
	g, w := got.Question[0], m.Question[0]
	return g.Qtype == w.Qtype && g.Qclass == w.Qclass && strings.EqualFold(g.Name, w.Name)
}

// mixed is name with its letters in random case, which a resolver sends back
// as it came: a bit a letter that a forger has to guess
// (draft-vixie-dnsext-dns0x20).
func mixed(name string) string {
	b := []byte(name)
	for i, c := range b {
		// math/rand/v2's functions draw from the runtime's ChaCha8, seeded by
		// the system.
		if (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') && rand.Uint32()&1 == 0 {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}
