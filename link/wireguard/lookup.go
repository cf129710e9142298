package wireguard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Go's own resolver would read this machine's hosts file, search list and
// options; a name inside the network means what the network's resolver says.

const (
	// lookupTry is how long one question waits for its answer.
	lookupTry   = 2 * time.Second
	lookupTries = 3
	maxAnswer   = 65535
	maxChain    = 16 // CNAMEs followed; the longest chain cove makes has three
)

// LookupNetIP returns the IPv4 addresses of host as the network's resolver
// answers, in its order. An IP address is itself.
func (t *Tunnel) LookupNetIP(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	at := t.config.Load().Resolver
	failed := &net.DNSError{Name: host, Server: at.String()}
	name, err := dnsmessage.NewName(strings.TrimSuffix(host, ".") + ".")
	if err != nil || host == "" {
		failed.Err, failed.IsNotFound = "not a name", true
		return nil, failed
	}
	if !at.IsValid() {
		failed.Err, failed.Server = "this member's configuration names no resolver", ""
		return nil, failed
	}
	for range lookupTries {
		var addrs []netip.Addr
		if addrs, err = t.ask(ctx, name); err == nil {
			return addrs, nil
		}
		failed.Err, failed.IsNotFound = err.Error(), errors.Is(err, errNoSuchHost)
		var n net.Error
		failed.IsTimeout = errors.As(err, &n) && n.Timeout()
		if failed.IsNotFound || ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

var (
	errNoSuchHost = errors.New("no such host")
	errForeign    = errors.New("an answer to another question")
	errTruncated  = errors.New("truncated")
)

// ask puts the question once.
func (t *Tunnel) ask(ctx context.Context, name dnsmessage.Name) ([]netip.Addr, error) {
	q := question(uint16(rand.Uint32()), name, dnsmessage.TypeA)
	ctx, cancel := context.WithTimeout(ctx, lookupTry)
	defer cancel()
	m, err := exchange(ctx, t.resolver, q)
	if err != nil {
		return nil, err
	}
	return addresses(m)
}

// resolver dials the network's resolver inside it.
func (t *Tunnel) resolver(ctx context.Context, proto string) (net.Conn, error) {
	return t.stack.dial(ctx, proto, netip.AddrPortFrom(t.config.Load().Resolver, 53))
}

// exchange asks by UDP, and by TCP if the answer does not fit.
func exchange(ctx context.Context, to resolver, q []byte) (*dnsmessage.Message, error) {
	m, err := exchangeBy(ctx, to, "udp", q)
	if errors.Is(err, errTruncated) {
		return exchangeBy(ctx, to, "tcp", q)
	}
	return m, err
}

func exchangeBy(ctx context.Context, to resolver, proto string, q []byte) (*dnsmessage.Message, error) {
	c, err := to(ctx, proto)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if proto == "udp" {
		if _, err := c.Write(q); err != nil {
			return nil, err
		}
		b := make([]byte, maxAnswer)
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		return readMessage(q, b[:n])
	}
	if _, err := c.Write(binary.BigEndian.AppendUint16(nil, uint16(len(q)))); err != nil {
		return nil, err
	}
	if _, err := c.Write(q); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		return nil, err
	}
	return readMessage(q, b)
}

func question(id uint16, name dnsmessage.Name, typ dnsmessage.Type) []byte {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: typ, Class: dnsmessage.ClassINET}},
	}
	b, err := m.Pack()
	if err != nil {
		panic(err) // dnsmessage.NewName has accepted the name
	}
	return b
}

// readMessage reads the answer to a question, or why there is none.
func readMessage(q, answer []byte) (*dnsmessage.Message, error) {
	var asked, m dnsmessage.Message
	if err := asked.Unpack(q); err != nil {
		return nil, err
	}
	if err := m.Unpack(answer); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if m.ID != asked.ID || !m.Response || len(m.Questions) != 1 || m.Questions[0].Type != asked.Questions[0].Type ||
		!sameName(m.Questions[0].Name, asked.Questions[0].Name) {
		return nil, errForeign
	}
	switch {
	case m.Truncated:
		return nil, errTruncated
	case m.RCode == dnsmessage.RCodeNameError:
		return nil, errNoSuchHost
	case m.RCode != dnsmessage.RCodeSuccess:
		return nil, fmt.Errorf("the resolver says %s", m.RCode)
	}
	return &m, nil
}

// addresses are those at the end of the chain of aliases that starts at the
// question's name. A record for any other name is ignored.
func addresses(m *dnsmessage.Message) ([]netip.Addr, error) {
	name := m.Questions[0].Name
	for range maxChain {
		addrs, alias := step(m.Answers, name)
		if len(addrs) > 0 {
			return addrs, nil
		}
		if alias == nil {
			return nil, errNoSuchHost
		}
		name = *alias
	}
	return nil, errors.New("too many aliases")
}

// step returns what records say about name.
func step(records []dnsmessage.Resource, name dnsmessage.Name) (addrs []netip.Addr, alias *dnsmessage.Name) {
	for _, r := range records {
		if !sameName(r.Header.Name, name) {
			continue
		}
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			addrs = append(addrs, netip.AddrFrom4(body.A))
		case *dnsmessage.CNAMEResource:
			alias = &body.CNAME
		}
	}
	return addrs, alias
}

func sameName(a, b dnsmessage.Name) bool { return strings.EqualFold(a.String(), b.String()) }
