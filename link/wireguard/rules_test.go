package wireguard

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"

	"cove.example/cove/network"
)

func testRules() *rules {
	return &rules{
		mtu:      DefaultMTU,
		ours:     answered(registry),
		members:  joined(laptop, builder),
		prefixes: []netip.Prefix{space},
	}
}

// joined are members, of whose keys nothing is said.
func joined(all ...netip.Addr) (t network.Table[netip.Addr, [32]byte]) {
	for _, a := range all {
		t = t.With(a, [32]byte{1})
	}
	return t
}

// ping is an IPv4 packet of the given size.
func ping(to netip.Addr, ttl byte, size int) []byte {
	p := make([]byte, size)
	p[0], p[8], p[9] = 0x45, ttl, 1
	binary.BigEndian.PutUint16(p[2:], uint16(size))
	from, dst := laptop.As4(), to.As4()
	copy(p[12:], from[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[10:], ^checksum.Checksum(p[:20], 0))
	return p
}

func TestJudge(t *testing.T) {
	six := make([]byte, 40)
	six[0] = 0x60
	long := ping(registry, 64, 60)
	long[3]++
	options := ping(registry, 64, 20)
	options[0] = 0x46
	short := ping(registry, 64, 20)
	short[0] = 0x44
	for name, c := range map[string]struct {
		p    []byte
		want verdict
	}{
		"to a private endpoint":                      {ping(registry, 64, 60), toStack},
		"to a private endpoint, larger than the MTU": {ping(registry, 64, 9000), toStack},
		"to a private endpoint, TTL spent":           {ping(registry, 1, 60), toStack},
		"to a member":                                {ping(builder, 64, 60), toMember},
		"to a member, TTL spent":                     {ping(builder, 1, 60), dropExpired},
		"to a member, too big":                       {ping(builder, 64, DefaultMTU+1), dropTooBig},
		"to nobody in the network":                   {ping(second, 64, 60), dropNobody},
		"to the subnet's broadcast":                  {ping(netip.MustParseAddr("10.0.255.255"), 64, 60), dropNobody},
		"to another network":                         {ping(netip.MustParseAddr("10.1.0.7"), 64, 60), dropOutside},
		"to the internet":                            {ping(netip.MustParseAddr("192.0.2.1"), 64, 60), dropOutside},
		"to loopback":                                {ping(netip.MustParseAddr("127.0.0.1"), 64, 60), dropOutside},
		"to multicast":                               {ping(netip.MustParseAddr("224.0.0.1"), 64, 60), dropOutside},
		"IPv6":                                       {six, dropIPv6},
		"nothing":                                    {nil, dropIPv6},
		"shorter than a header":                      {ping(registry, 64, 20)[:19], dropMalformed},
		"a length that is not its own":               {long, dropMalformed},
		"options beyond its end":                     {options, dropMalformed},
		"a header shorter than a header":             {short, dropMalformed},
	} {
		if got := testRules().judge(c.p); got != c.want {
			t.Errorf("%s: verdict %d, want %d", name, got, c.want)
		}
	}
}

// The corrected checksum is the one that would be calculated afresh, for every
// TTL and for the checksums at which one's complement arithmetic goes wrong.
func TestLowerTTL(t *testing.T) {
	for ttl := 2; ttl < 256; ttl++ {
		for id := range 1 << 12 {
			p := ping(builder, byte(ttl), 20)
			binary.BigEndian.PutUint16(p[4:], uint16(id*16))
			p[10], p[11] = 0, 0
			binary.BigEndian.PutUint16(p[10:], ^checksum.Checksum(p, 0))
			lowerTTL(p)
			if int(p[8]) != ttl-1 || header.IPv4(p).CalculateChecksum() != 0xffff {
				t.Fatalf("ttl %d id %d: % x", ttl, id*16, p)
			}
		}
	}
}

func TestFragmentationNeeded(t *testing.T) {
	p := ping(builder, 64, 4000)
	b := make([]byte, hubBuf)
	d := b[:fragmentationNeeded(b, p, DefaultMTU)]
	ip := header.IPv4(d)
	icmp := header.ICMPv4(ip.Payload())
	if !ip.IsValid(len(d)) || ip.CalculateChecksum() != 0xffff || checksum.Checksum(icmp, 0) != 0xffff {
		t.Fatalf("not a valid packet: % x", d)
	}
	if icmp.Type() != header.ICMPv4DstUnreachable || icmp.Code() != header.ICMPv4FragmentationNeeded || icmp.MTU() != DefaultMTU {
		t.Errorf("type %d code %d MTU %d", icmp.Type(), icmp.Code(), icmp.MTU())
	}
	if ip.DestinationAddress().As4() != laptop.As4() || string(icmp.Payload()) != string(p[:28]) {
		t.Errorf("to %s, quoting % x", ip.DestinationAddress(), icmp.Payload())
	}
}

// No packet makes the judge panic or sends anything anywhere but to an address
// that is ours or a member's.
func FuzzJudge(f *testing.F) {
	f.Add(ping(registry, 64, 60))
	f.Add(ping(builder, 1, 20))
	f.Add(ping(builder, 9, 1421))
	f.Add([]byte{0x4f})
	f.Fuzz(func(t *testing.T, p []byte) {
		r := testRules()
		switch r.judge(p) {
		case toStack:
			if !r.ours.Has(netip.AddrFrom4([4]byte(p[16:20]))) {
				t.Error("not ours")
			}
		case toMember:
			if !r.members.Has(netip.AddrFrom4([4]byte(p[16:20]))) || p[8] < 2 || len(p) > hubBuf {
				t.Error("not a member's")
			}
			lowerTTL(p)
		case dropTooBig:
			fragmentationNeeded(make([]byte, hubBuf), p, r.mtu)
		}
	})
}
