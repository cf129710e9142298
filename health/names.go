package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"cove.example/cove/reason"
)

// Answer is what a resolver said to one name.
type Answer struct {
	Server string   // who was asked
	Chain  []string // the aliases that were followed, without the name itself
	Addrs  []netip.Addr
	Absent bool // NXDOMAIN, at the end of Chain
	// System are the addresses that programs of this machine get, where the
	// lookup knows them apart from the resolver's: the hosts file has a say.
	System []netip.Addr
	// Hosts are the lines of the hosts file that name it, as "/etc/hosts, line
	// 7: 10.0.0.9 name": where System differs, they are why.
	Hosts []string
	// Others are what other resolvers of this machine say, where it is something
	// else, and those that programs ask before and hear nothing of.
	Others []string
}

// Lookup asks for the addresses of a name: those of IPv4, or where there are
// none those of IPv6. It fails when nobody answers.
type Lookup func(ctx context.Context, host string) (Answer, error)

// place is where a host was found.
type place struct {
	host, port string
	addrs      []netip.Addr
	proxy      *url.URL
}

// named is the place as clients write it: with the port where that is not 443.
func (p place) named() string {
	if p.port == "443" {
		return p.host
	}
	return net.JoinHostPort(p.host, p.port)
}

// named looks a host up and keeps the result under layer.
func (c *Check) named(ctx context.Context, layer, host string) (at place, r Result) {
	r = c.timed(ctx, layer, host, func(ctx context.Context, r *Result) {
		var found Result
		at, found = c.look(ctx, host)
		r.take(found)
	})
	return at, r
}

func (c *Check) look(ctx context.Context, host string) (place, Result) {
	name, port, err := splitHost(host)
	at, r := place{host: name, port: port}, Result{Outcome: Passed}
	if err != nil {
		r.fail(reason.NameUnknown, "%q is no host", host)
		return at, r
	}
	proxy, err := c.proxyOf(host)
	if err != nil {
		r.fail(reason.ProxyAway, "the proxy of the environment is no URL: %v", err)
		return at, r
	}
	if at.proxy = proxy; proxy != nil {
		r.Said = "the proxy " + proxy.Host + " looks it up"
		return at, r
	}
	if a, err := netip.ParseAddr(name); err == nil {
		at.addrs, r.Said = []netip.Addr{a}, "an address, no name"
		return at, r
	}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	answer, err := c.Way.Lookup(ctx, name)
	if err != nil {
		r.fail(reason.ResolverSilent, "%s: %v", name, err)
		if _, answered := errors.AsType[rcodeError](err); answered {
			r.Code = reason.ResolverFails
		}
		return at, r
	}
	at.addrs = answer.Addrs
	if len(answer.System) > 0 {
		at.addrs = answer.System
	}
	r = judgeName(name, answer, c.Target.Holds[name])
	if r.Code == reason.PrivateName {
		r.Fix = "ask for " + c.instead(name)
	}
	return at, r
}

// judgeName says whether an answer is what the name ought to lead to from
// here: holds are the private endpoint's addresses, nil where no private
// endpoint of this network serves the name or none is known.
func judgeName(name string, a Answer, holds []netip.Addr) Result {
	r := Result{Outcome: Passed}
	chain := strings.Join(append([]string{name}, a.Chain...), " → ")
	private := slices.ContainsFunc(a.Chain, isPrivateName) || isPrivateName(name)
	asked := ""
	if a.Server != "" {
		asked = ", asked " + a.Server
	}
	switch {
	case isPrivateName(name):
		r.fail(reason.PrivateName, "%s is an alias for resolvers", name)
	case a.Absent && private:
		r.fail(reason.PrivateNoRecord, "%s does not exist%s", chain, asked)
	case a.Absent:
		r.fail(reason.NameUnknown, "%s does not exist%s", chain, asked)
	case len(a.Addrs) == 0:
		r.fail(reason.NameEmpty, "%s has no address%s", chain, asked)
	case len(holds) > 0 && !overlap(a.Addrs, holds) && (leaves(a.Chain) || !slices.ContainsFunc(a.Addrs, isPrivate)):
		r.fail(reason.NamePublic, "%s → %s (public)%s", chain, join(a.Addrs), asked)
	case len(holds) > 0 && !within(a.Addrs, holds):
		r.fail(reason.NameElsewhere, "%s → %s%s", chain, join(a.Addrs), asked)
	default:
		kind := "public"
		switch {
		case slices.ContainsFunc(a.Addrs, netip.Addr.IsLoopback):
			kind = "this machine"
		case slices.ContainsFunc(a.Addrs, isPrivate):
			kind = "private"
		}
		r.Said = fmt.Sprintf("%s → %s (%s)", chain, join(a.Addrs), kind)
	}
	if len(holds) > 0 && r.Outcome == Failed {
		r.Evidence = append(r.Evidence, "the private endpoint holds "+join(holds)+" for it")
	}
	if len(a.Others) > 0 {
		r.Evidence = append(r.Evidence, a.Others...)
		if r.Outcome == Passed {
			r.Outcome, r.Code = Warned, reason.ResolversSplit
		}
	}
	r.other(name, a, holds)
	return r
}

// other compares what programs of this machine get with the resolver's answer,
// which r has judged. It is what they get that counts for a pull from here: an
// answer that is missing or public does no harm where the hosts file leads to
// the private endpoint, and only containers with resolvers of their own meet it.
func (r *Result) other(name string, a Answer, holds []netip.Addr) {
	if len(a.System) == 0 || slices.Equal(sorted(a.System), sorted(a.Addrs)) || isPrivateName(name) {
		return
	}
	says := "the resolver says " + a.words()
	evidence := append(slices.Clone(a.Hosts), r.Evidence...)
	switch right := within(a.System, holds); {
	case right && len(holds) > 0, len(holds) == 0 && len(a.Addrs) == 0:
		r.fail(reason.ResolversDiffer, "%s → %s for programs here; %s", name, join(a.System), says)
		r.Outcome = Warned
	default:
		r.fail(reason.ResolversDiffer, "%s: programs here get %s, %s", name, join(a.System), says)
		if len(a.Hosts) > 0 {
			r.Fix = "take the name out of " + a.Hosts[0]
		}
	}
	r.Evidence = evidence
}

// HostsLines are the lines of a hosts file that name a host.
func HostsLines(path, host string) (lines []string) {
	f, err := os.Open(path)
	if err != nil {
		return nil // the answer itself was had otherwise
	}
	defer f.Close()
	n := 0
	for s := bufio.NewScanner(io.LimitReader(f, maxHosts)); s.Scan(); {
		n++
		text, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) > 1 && slices.ContainsFunc(fields[1:], func(f string) bool { return strings.EqualFold(strings.TrimSuffix(f, "."), host) }) {
			lines = append(lines, fmt.Sprintf("%s, line %d: %s", path, n, strings.Join(fields, " ")))
		}
	}
	return lines
}

const maxHosts = 4 << 20 // lists that block advertisers are long

func isPrivateName(s string) bool { return strings.Contains(s, ".privatelink.") }

// leaves reports whether a chain of aliases goes on behind the privatelink
// name: then no private zone has answered for it.
func leaves(chain []string) bool {
	i := slices.IndexFunc(chain, isPrivateName)
	return i >= 0 && i < len(chain)-1
}

// instead is what to ask for in place of a privatelink name: the image, where
// that is what was asked for.
func (c *Check) instead(host string) string {
	if strings.HasPrefix(c.Target.Host, host) {
		return withoutPrivate(c.name())
	}
	return withoutPrivate(host)
}

func withoutPrivate(s string) string { return strings.Replace(s, ".privatelink.", ".", 1) }

// isPrivate holds for what no public resolver ought to answer. The shared
// space of RFC 6598 is where virtual networks have their service front end.
func isPrivate(a netip.Addr) bool {
	return a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || shared.Contains(a)
}

var shared = netip.MustParsePrefix("100.64.0.0/10")

func overlap(a, b []netip.Addr) bool {
	return slices.ContainsFunc(a, func(x netip.Addr) bool { return slices.Contains(b, x) })
}

func within(a, b []netip.Addr) bool {
	return !slices.ContainsFunc(a, func(x netip.Addr) bool { return !slices.Contains(b, x) })
}

func sorted(a []netip.Addr) []netip.Addr {
	return slices.SortedFunc(slices.Values(a), netip.Addr.Compare)
}

func join(a []netip.Addr) string {
	var out []string
	for _, x := range a {
		out = append(out, x.String())
	}
	return strings.Join(out, ", ")
}

const (
	lookupTry = 1200 * time.Millisecond
	lookups   = 2                      // a question or its answer may be lost
	laggards  = 300 * time.Millisecond // that others have once one has answered
	maxChain  = 16
)

// Resolvers is a Lookup that asks servers ("168.63.129.16:53") and takes the
// answer of the first of them that has one, as programs do; that of the others
// is compared with it. system, if not nil, is how programs of this machine look
// names up.
func Resolvers(servers []string, dial func(ctx context.Context, network, address string) (net.Conn, error), system func(ctx context.Context, host string) ([]netip.Addr, error)) Lookup {
	return func(ctx context.Context, host string) (Answer, error) {
		if len(servers) == 0 {
			return Answer{}, errors.New("this machine is set to use no resolver")
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		type heard struct {
			from int
			Answer
			err error
		}
		all := make(chan heard, len(servers))
		for i, server := range servers {
			go func() {
				h := heard{from: i}
				for range lookups {
					if h.Answer, h.err = askBoth(ctx, dial, server, host); h.err == nil {
						break
					}
				}
				all <- h
			}()
		}
		got := make([]*heard, len(servers))
		var late <-chan time.Time
		for range servers {
			select {
			case h := <-all:
				got[h.from] = &h
				if h.err == nil && late == nil {
					late = time.After(laggards)
				}
				continue
			case <-late:
			}
			break
		}
		var failed []error
		for i, h := range got {
			switch {
			case h == nil:
				failed = append(failed, fmt.Errorf("%s: no answer", servers[i]))
				continue
			case h.err != nil:
				failed = append(failed, fmt.Errorf("%s: %w", servers[i], h.err))
				continue
			}
			a := h.Answer
			for _, err := range failed {
				a.Others = append(a.Others, err.Error())
			}
			for _, other := range got[i+1:] {
				if other != nil && other.err == nil && otherwise(a, other.Answer) {
					a.Others = append(a.Others, other.Server+" says "+other.words())
				}
			}
			if system != nil {
				var err error
				if a.System, err = system(ctx, host); err != nil {
					a.System = nil // the resolver's answer says why
				}
			}
			return a, nil
		}
		return Answer{}, errors.Join(failed...)
	}
}

// otherwise reports whether two answers lead to different places. Public ones
// that have no address in common do not: large services answer with some of
// theirs.
func otherwise(a, b Answer) bool {
	private := func(x Answer) bool { return slices.ContainsFunc(x.Addrs, isPrivate) }
	return (len(a.Addrs) == 0) != (len(b.Addrs) == 0) || (private(a) || private(b)) && !overlap(a.Addrs, b.Addrs)
}

func (a Answer) words() string {
	switch {
	case a.Absent:
		return "that it does not exist"
	case len(a.Addrs) == 0:
		return "that it has no address"
	}
	return join(a.Addrs)
}

// askBoth asks for IPv4, and for IPv6 where there is a name and none of those.
func askBoth(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), server, host string) (Answer, error) {
	a, err := ask(ctx, dial, server, host, dns.TypeA)
	if err != nil || a.Absent || len(a.Addrs) > 0 {
		return a, err
	}
	if six, err := ask(ctx, dial, server, host, dns.TypeAAAA); err == nil && len(six.Addrs) > 0 {
		return six, nil
	}
	return a, nil
}

// ask puts the question by UDP, and by TCP when the answer does not fit.
func ask(ctx context.Context, dial func(ctx context.Context, network, address string) (net.Conn, error), server, host string, kind uint16) (Answer, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(host), kind)
	m.SetEdns0(1232, false)
	exchange := func(network string) (*dns.Msg, error) {
		ctx, cancel := context.WithTimeout(ctx, lookupTry)
		defer cancel()
		conn, err := dial(ctx, network, server)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		deadline, _ := ctx.Deadline()
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
		co := &dns.Conn{Conn: conn, UDPSize: 1232}
		in, _, err := (&dns.Client{Net: network, Timeout: lookupTry}).ExchangeWithConnContext(ctx, m, co)
		return in, err
	}
	in, err := exchange("udp")
	if err == nil && in.Truncated {
		in, err = exchange("tcp")
	}
	if err != nil {
		return Answer{}, errors.New(plain(err))
	}
	switch in.Rcode {
	case dns.RcodeSuccess, dns.RcodeNameError:
	default:
		return Answer{}, rcodeError(in.Rcode)
	}
	return follow(server, host, in), nil
}

// rcodeError is an answer of a resolver that is neither addresses nor their
// absence.
type rcodeError int

func (e rcodeError) Error() string { return "it answers " + dns.RcodeToString[int(e)] }

// follow reads the chain of aliases that starts at host. Records of other
// names are nobody's business.
func follow(server, host string, in *dns.Msg) Answer {
	a := Answer{Server: strings.TrimSuffix(server, ":53"), Absent: in.Rcode == dns.RcodeNameError}
	at := dns.CanonicalName(host)
	for range maxChain {
		next := ""
		for _, rr := range in.Answer {
			if dns.CanonicalName(rr.Header().Name) != at {
				continue
			}
			switch rr := rr.(type) {
			case *dns.CNAME:
				next = dns.CanonicalName(rr.Target)
			case *dns.A:
				if addr, ok := netip.AddrFromSlice(rr.A.To4()); ok {
					a.Addrs = append(a.Addrs, addr)
				}
			case *dns.AAAA:
				if addr, ok := netip.AddrFromSlice(rr.AAAA); ok {
					a.Addrs = append(a.Addrs, addr)
				}
			}
		}
		if next == "" || len(a.Addrs) > 0 {
			return a
		}
		a.Chain = append(a.Chain, strings.TrimSuffix(next, "."))
		at = next
	}
	return a
}

// plain is an error without the names of Go's functions around it.
func plain(err error) string {
	var t interface{ Timeout() bool }
	if errors.As(err, &t) && t.Timeout() {
		return "no answer"
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Err != nil {
		err = op.Err
	}
	return err.Error()
}
