package wireguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/fault"
)

// MemberConfig is what a member's end of the tunnel needs: the standard
// configuration file of WireGuard, as wg-quick(8) reads it.
type MemberConfig struct {
	PrivateKey PrivateKey
	Address    netip.Addr // the member's own, inside the network
	ServerKey  PublicKey
	Endpoint   string         // the server's, "host:port"
	AllowedIPs []netip.Prefix // what is reached through the tunnel
	Resolver   netip.Addr     // answers DNS inside the network; may be absent
	MTU        int            // 0 is DefaultMTU
	Keepalive  time.Duration  // whole seconds; 0 is none. 25s: RFC 4787 asks NATs to wait two minutes; many wait thirty seconds.
}

// maxConfig is generous for a file of a dozen lines.
const maxConfig = 64 << 10

// check returns every problem.
//
// A configuration may come from a server over the network, and root runs
// wg-quick on the file made of it. wg-quick executes lines such as PostUp, so a
// line break inside a value would be a command: no value may hold one.
func (c MemberConfig) check() []fault.Field {
	var problems []fault.Field
	wrong := func(path, message string) { problems = append(problems, fault.Field{Path: path, Message: message}) }
	if c.PrivateKey == (PrivateKey{}) {
		wrong("Interface.PrivateKey", "is missing")
	}
	if !c.Address.Is4() {
		wrong("Interface.Address", "must be one IPv4 address")
	}
	if c.Resolver.IsValid() && !c.Resolver.Is4() {
		wrong("Interface.DNS", "must be one IPv4 address")
	}
	if c.MTU != 0 && (c.MTU < 576 || c.MTU > maxDatagram-80) {
		wrong("Interface.MTU", "must be between 576 and "+strconv.Itoa(maxDatagram-80))
	}
	if c.ServerKey == (PublicKey{}) {
		wrong("Peer.PublicKey", "is missing")
	}
	if err := checkEndpoint(c.Endpoint); err != nil {
		wrong("Peer.Endpoint", err.Error())
	}
	if len(c.AllowedIPs) == 0 {
		wrong("Peer.AllowedIPs", "is missing")
	}
	for _, p := range c.AllowedIPs {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			wrong("Peer.AllowedIPs", p.String()+" is not an IPv4 prefix")
		}
	}
	if c.Keepalive < 0 || c.Keepalive > 65535*time.Second || c.Keepalive%time.Second != 0 {
		wrong("Peer.PersistentKeepalive", "must be between 0 and 65535 seconds")
	}
	return problems
}

var errEndpoint = errors.New("must be host:port")

func checkEndpoint(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return errEndpoint
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return errEndpoint
	}
	name := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._:", r)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return !name(r) }) {
		return errEndpoint
	}
	return nil
}

// File returns the configuration file, private key included: write it with mode
// 0600. ParseConfig of it returns c again.
//
// The resolver stands in a comment: with a DNS line wg-quick fails wherever
// resolvconf is not installed.
func (c MemberConfig) File() (string, error) {
	if err := fault.Problems(c.check()); err != nil {
		return "", err
	}
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s = %v\n", key, value) }
	b.WriteString("[Interface]\n")
	line("PrivateKey", c.PrivateKey.Reveal())
	line("Address", netip.PrefixFrom(c.Address, 32))
	if c.MTU != 0 {
		line("MTU", c.MTU)
	}
	if c.Resolver.IsValid() {
		b.WriteString("# Remove the # where resolvconf or systemd-resolved manages DNS.\n")
		line(resolverComment, c.Resolver)
	}
	b.WriteString("\n[Peer]\n")
	line("PublicKey", c.ServerKey)
	line("Endpoint", c.Endpoint)
	ips := make([]string, len(c.AllowedIPs))
	for i, p := range c.AllowedIPs {
		ips[i] = p.String()
	}
	line("AllowedIPs", strings.Join(ips, ", "))
	if c.Keepalive != 0 {
		line("PersistentKeepalive", int(c.Keepalive/time.Second))
	}
	return b.String(), nil
}

// String says where the tunnel leads, without the key.
func (c MemberConfig) String() string {
	return fmt.Sprintf("%s by %s to %s", c.Address, c.Endpoint, c.ServerKey)
}

// resolverComment is how File writes the resolver; ParseConfig knows it.
const resolverComment = "# DNS"

// ParseConfig reads a configuration file. It knows one [Interface] and one
// [Peer] and refuses every key that it would not honour, because a tunnel with
// half of its settings is not the one that was asked for. All problems are
// returned at once, with their lines.
func ParseConfig(text string) (MemberConfig, error) {
	if len(text) > maxConfig {
		return MemberConfig{}, fault.Newf(fault.TooLarge, "a WireGuard configuration of more than %d bytes", maxConfig)
	}
	p := configParser{seen: map[string]bool{}}
	number := 0
	for line := range strings.Lines(text) {
		number++
		if err := p.line(strings.TrimSpace(line)); err != nil {
			p.problems = append(p.problems, fault.Field{Path: "line " + strconv.Itoa(number), Message: err.Error()})
		}
	}
	if !p.c.Resolver.IsValid() {
		p.c.Resolver = p.commented
	}
	if len(p.problems) == 0 {
		p.problems = p.c.check()
	}
	if err := fault.Problems(p.problems); err != nil {
		return MemberConfig{}, err
	}
	return p.c, nil
}

type configParser struct {
	c         MemberConfig
	section   string
	seen      map[string]bool // sections, and keys as section.key
	commented netip.Addr
	problems  []fault.Field
}

func (p *configParser) line(s string) error {
	if value, ok := strings.CutPrefix(s, resolverComment+" = "); ok && p.section == "interface" {
		if a, err := netip.ParseAddr(value); err == nil && a.Is4() {
			p.commented = a
		}
		return nil
	}
	s, _, _ = strings.Cut(s, "#")
	if s = strings.TrimSpace(s); s == "" {
		return nil
	}
	if strings.HasPrefix(s, "[") {
		return p.header(strings.ToLower(s))
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("neither a [section] nor key = value")
	}
	return p.set(strings.ToLower(strings.TrimSpace(key)), strings.TrimSpace(value))
}

func (p *configParser) header(s string) error {
	if s != "[interface]" && s != "[peer]" {
		return fmt.Errorf("an unknown section %q", s)
	}
	if p.section = s[1 : len(s)-1]; p.seen[p.section] {
		return fmt.Errorf("a second %s section; a member has one server", s)
	}
	p.seen[p.section] = true
	return nil
}

func (p *configParser) set(key, value string) error {
	path := p.section + "." + key
	if p.seen[path] {
		return fmt.Errorf("%s is given twice", key)
	}
	p.seen[path] = true
	var err error
	switch path {
	case "interface.privatekey":
		p.c.PrivateKey, err = ParsePrivateKey(value)
	case "interface.address":
		p.c.Address, err = parseOwnAddress(value)
	case "interface.dns":
		p.c.Resolver, err = netip.ParseAddr(value)
	case "interface.mtu":
		p.c.MTU, err = parseNumber(value)
	case "peer.publickey":
		p.c.ServerKey, err = ParsePublicKey(value)
	case "peer.endpoint":
		p.c.Endpoint, err = value, checkEndpoint(value)
	case "peer.allowedips":
		p.c.AllowedIPs, err = parsePrefixes(value)
	case "peer.persistentkeepalive":
		if value != "off" {
			var n int
			n, err = parseNumber(value)
			p.c.Keepalive = time.Duration(n) * time.Second
		}
	default:
		return fmt.Errorf("%s is nothing that cove can do here", key)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// parseNumber refuses what does not fit 16 bits and what another reader might
// take for another number.
func parseNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || strconv.FormatUint(n, 10) != s {
		return 0, fmt.Errorf("%q is not a number up to 65535", s)
	}
	return int(n), nil
}

// parseOwnAddress takes "10.0.0.4", "10.0.0.4/32" and "10.0.0.4/16": routes come
// from AllowedIPs, so the length says nothing.
func parseOwnAddress(s string) (netip.Addr, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Addr(), nil
	}
	return netip.ParseAddr(s)
}

func parsePrefixes(s string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		p, err := netip.ParsePrefix(part)
		if err != nil {
			a, err := netip.ParseAddr(part)
			if err != nil {
				return nil, fmt.Errorf("%q is not a prefix", part)
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p = p.Masked(); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all, nil
}

func (c MemberConfig) mtu() int {
	if c.MTU == 0 {
		return DefaultMTU
	}
	return c.MTU
}

// carries reports whether a is reached through the tunnel.
func (c MemberConfig) carries(a netip.Addr) bool {
	for _, p := range c.AllowedIPs {
		if p.Contains(a.Unmap()) {
			return true
		}
	}
	return false
}
