package outbound

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cove.example/cove/fault"
)

// ErrUnreachable is every failure to get a connection. Its sentence says
// nothing of which one it was.
var ErrUnreachable = fault.New(fault.Unavailable, "the host cannot be reached, or is not one that this server connects to")

// Config is what a Dialer is made of.
type Config struct {
	Allow Allow
	// Own reports what this server listens on itself. No allow-list opens it:
	// a request that comes from the server's own machine would pass for an
	// operator's.
	Own func(netip.AddrPort) bool
	// Roots sign the certificates of others; nil are the system's.
	Roots *x509.CertPool
	// Resolvers are asked for names; none are the system's. They are the
	// operator's choice and are not checked.
	Resolvers []netip.AddrPort
	// Lookup takes the place of the resolvers.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Log gets the causes that callers are not told; nil is none.
	Log *slog.Logger
}

// Dialer makes connections to others. It is safe for concurrent use.
type Dialer struct {
	c      Config
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	tls    *tls.Config
	log    *slog.Logger
}

// How long one address may take, how long a name may, and how many addresses
// of a name are tried. A name with more is refused whole: nobody needs them,
// and each is checked.
const (
	dialTime   = 10 * time.Second
	lookupTime = 10 * time.Second
	maxAddrs   = 64
	maxTries   = 4
)

// New returns a Dialer.
func New(c Config) *Dialer {
	d := &Dialer{c: c, lookup: c.Lookup, log: c.Log, tls: &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if d.lookup == nil {
		r := net.DefaultResolver
		if len(c.Resolvers) > 0 {
			r = ask(c.Resolvers)
		}
		d.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return r.LookupNetIP(ctx, "ip", host)
		}
	}
	return d
}

// ask is a resolver that asks servers in their order.
func ask(servers []netip.AddrPort) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var all []error
		for _, s := range servers {
			c, err := (&net.Dialer{Timeout: lookupTime}).DialContext(ctx, network, s.String())
			if err == nil {
				return c, nil
			}
			all = append(all, err)
		}
		return nil, errors.Join(all...)
	}}
}

// Dial connects to HOST:PORT for a feature. Whatever goes wrong is
// ErrUnreachable.
func (d *Dialer) Dial(ctx context.Context, f Feature, address string) (net.Conn, error) {
	c, err := d.dial(ctx, f, address)
	if err != nil {
		d.log.Info("no connection", "feature", f, "to", address, "err", err)
		return nil, ErrUnreachable.Because(err)
	}
	return c, nil
}

func (d *Dialer) dial(ctx context.Context, f Feature, address string) (net.Conn, error) {
	list, err := d.resolve(ctx, f, address)
	if err != nil {
		return nil, err
	}
	last := net.Dialer{
		Timeout: dialTime,
		// What the kernel is about to connect to, whatever was said above.
		ControlContext: func(_ context.Context, _, to string, _ syscall.RawConn) error {
			ap, err := netip.ParseAddrPort(to)
			if err != nil {
				return err
			}
			return d.c.Allow.Check(f, ap, d.c.Own)
		},
	}
	var all []error
	for _, to := range list[:min(len(list), maxTries)] {
		c, err := last.DialContext(ctx, "tcp", to.String())
		if err == nil {
			return c, nil
		}
		all = append(all, err)
	}
	return nil, errors.Join(all...)
}

// resolve returns the addresses of HOST:PORT, each of which may be dialled. One
// that may not makes it refuse them all: whoever mixes an inner address into an
// answer hopes that the public one is checked and the inner one dialled.
func (d *Dialer) resolve(ctx context.Context, f Feature, address string) ([]netip.AddrPort, error) {
	host, digits, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(digits, 10, 16)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		addrs = []netip.Addr{ip}
	} else {
		if !isName(host) {
			return nil, fmt.Errorf("%.80q is neither a name nor an address as it is usually written", host)
		}
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		if addrs, err = d.lookup(ctx, host); err != nil {
			return nil, err
		}
	}
	if len(addrs) == 0 || len(addrs) > maxAddrs {
		return nil, fmt.Errorf("%s has %d addresses", host, len(addrs))
	}
	var out []netip.AddrPort
	for _, a := range addrs {
		if a.Is4In6() && net.ParseIP(host) == nil {
			a = a.Unmap() // resolvers give A records so
		}
		to := netip.AddrPortFrom(a, uint16(port))
		if err := d.c.Allow.Check(f, to, d.c.Own); err != nil {
			return nil, err
		}
		out = append(out, to)
	}
	return out, nil
}

// isName reports whether host is a DNS name and cannot be read as an address.
// Resolvers of C libraries take 127.1, 0x7f.1 and 2130706433 for addresses; a
// name whose last label begins with a digit is never meant.
func isName(host string) bool {
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
		last = label
	}
	return last[0] < '0' || last[0] > '9'
}
