package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	other "github.com/pires/go-proxyproto"
	"github.com/pires/go-proxyproto/tlvparse"
)

// said is a header as another implementation writes it.
func said(t testing.TB, source, destination string, tlvs ...other.TLV) []byte {
	t.Helper()
	h := other.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source)), net.TCPAddrFromAddrPort(netip.MustParseAddrPort(destination)))
	if err := h.SetTLVs(tlvs); err != nil {
		t.Fatal(err)
	}
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func azureLink(n uint32) other.TLV {
	return other.TLV{Type: typeAzure, Value: binary.LittleEndian.AppendUint32([]byte{subtypeID}, n)}
}

func awsEndpoint(id string) other.TLV {
	return other.TLV{Type: typeAWS, Value: append([]byte{subtypeID}, id...)}
}

// summed is a header with its checksum, as the last addition.
func summed(t testing.TB, tlvs ...other.TLV) []byte {
	t.Helper()
	b := said(t, "10.1.0.4:40000", "10.9.0.4:443", append(tlvs, other.TLV{Type: typeCRC32C, Value: make([]byte, 4)})...)
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Checksum(b, castagnoli))
	return b
}

func changed(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

func TestHeader(t *testing.T) {
	const from, to = "10.1.0.4:40000", "10.9.0.4:443"
	plain := said(t, from, to)
	long := func(n int) []byte {
		b := bytes.Clone(plain)
		binary.BigEndian.PutUint16(b[14:], uint16(n))
		b = append(b, 0x04, byte((n-15)>>8), byte(n-15))
		return append(b, make([]byte, n-15)...)
	}
	local, err := (&other.Header{Version: 2, Command: other.LOCAL, TransportProtocol: other.UNSPEC}).Format()
	if err != nil {
		t.Fatal(err)
	}
	mapped := said(t, "[2001:db8::4]:40000", "[2001:db8::1]:443")
	inside := netip.MustParseAddr("::ffff:10.1.0.4").As16()
	copy(mapped[fixed:], inside[:])
	for _, c := range []struct {
		what string
		b    []byte
		want string // the header, or what is wrong
	}{
		{"plain", plain, "10.1.0.4:40000 10.9.0.4:443 "},
		{"IPv6", said(t, "[2001:db8::4]:40000", "[2001:db8::1]:443"), "[2001:db8::4]:40000 [2001:db8::1]:443 "},
		{"an IPv4 caller in IPv6", mapped, "10.1.0.4:40000 [2001:db8::1]:443 "},
		{"Azure", said(t, from, to, azureLink(0x12345678)), "10.1.0.4:40000 10.9.0.4:443 azure:0x12345678"},
		{"AWS", said(t, from, to, awsEndpoint("vpce-08d2bf15fac5001c9")), "10.1.0.4:40000 10.9.0.4:443 aws:vpce-08d2bf15fac5001c9"},
		{"padding and others", said(t, from, to, other.TLV{Type: 0x04, Value: make([]byte, 9)}, azureLink(7), other.TLV{Type: 0xe5, Value: []byte("x")}), "10.1.0.4:40000 10.9.0.4:443 azure:0x00000007"},
		{"another subtype", said(t, from, to, other.TLV{Type: typeAzure, Value: []byte{2, 1, 1, 1, 1}}, other.TLV{Type: typeAWS}), "10.1.0.4:40000 10.9.0.4:443 "},
		{"a checksum", summed(t, azureLink(7)), "10.1.0.4:40000 10.9.0.4:443 azure:0x00000007"},
		{"a health probe", local, "local"},
		{"the longest", long(maxRest), "10.1.0.4:40000 10.9.0.4:443 "},

		{"a wrong checksum", changed(summed(t, azureLink(7)), 19, 9), "the PROXY header is malformed: its checksum is wrong"},
		{"another link under the checksum", changed(summed(t, azureLink(7)), len(summed(t, azureLink(7)))-11, 8), "the PROXY header is malformed: its checksum is wrong"},
		{"a short checksum", said(t, from, to, other.TLV{Type: typeCRC32C, Value: []byte{1}}), "the PROXY header is malformed: its checksum is wrong"},
		{"too long", long(maxRest + 1), "the PROXY header is malformed: it is 4097 bytes long"},
		{"version 1", []byte("PROXY TCP4 10.1.0.4 10.9.0.4 40000 443\r\n"), ErrNoHeader.Error()},
		{"TLS", []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03aaaaaaaaaaaaaaaa"), ErrNoHeader.Error()},
		{"one wrong byte of the signature", changed(plain, 11, 'x'), ErrNoHeader.Error()},
		{"version 3", changed(plain, 12, 0x31), "the PROXY header is malformed: its version and command are 0x31"},
		{"another command", changed(plain, 12, 0x22), "the PROXY header is malformed: its version and command are 0x22"},
		{"UDP", changed(plain, 13, 0x12), "the PROXY header is malformed: its address family is 0x12"},
		{"no addresses", changed(plain, 13, 0), "the PROXY header is malformed: its address family is 0x00"},
		{"a caller without an address", said(t, "0.0.0.0:1", to), "the PROXY header is malformed: it names no caller"},
		{"IPv6 in the room of IPv4", changed(plain, 13, 0x21), "the PROXY header is malformed: it is too short for its addresses"},
		{"cut off", plain[:20], io.ErrUnexpectedEOF.Error()},
		{"an addition cut off", changed(append(bytes.Clone(plain), 1, 0), 15, 14), "the PROXY header is malformed: an addition is cut off"},
		{"an addition too long", changed(append(bytes.Clone(plain), 1, 0, 1), 15, 15), "the PROXY header is malformed: an addition is longer than the header"},
		{"two links", said(t, from, to, azureLink(7), azureLink(7)), "the PROXY header is malformed: it names two private links"},
		{"a link of each cloud", said(t, from, to, azureLink(7), awsEndpoint("vpce-1")), "the PROXY header is malformed: it names two private links"},
		{"a short Azure id", said(t, from, to, other.TLV{Type: typeAzure, Value: []byte{1, 7, 0}}), "the PROXY header is malformed: the id of an Azure private endpoint has 2 bytes"},
		{"an AWS id of another kind", said(t, from, to, awsEndpoint("vpc-1\n")), "the PROXY header is malformed: the id of an AWS endpoint is not one"},
	} {
		const after = "what follows"
		r := bytes.NewBuffer(append(bytes.Clone(c.b), after...))
		if strings.HasPrefix(c.want, "unexpected") {
			r = bytes.NewBuffer(c.b)
		}
		h, err := ReadHeader(iotest.OneByteReader(r))
		got := h.Source.String() + " " + h.Destination.String() + " " + string(h.Link)
		switch {
		case err != nil:
			got = err.Error()
		case h.Local:
			got = "local"
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
		if err == nil && r.String() != after {
			t.Errorf("%s: %q is left of what follows", c.what, r)
		}
	}
}

func TestID(t *testing.T) {
	for text, want := range map[string]ID{
		"azure:305419896":            "azure:0x12345678",
		"azure:0x12345678":           "azure:0x12345678",
		"azure:0x7":                  "azure:0x00000007",
		"azure:4294967295":           "azure:0xffffffff",
		"aws:vpce-08d2bf15fac5001c9": "aws:vpce-08d2bf15fac5001c9",
		"azure:4294967296":           "",
		"azure:":                     "",
		"azure:+7":                   "",
		"azure:0x":                   "",
		"azure:12345678ab":           "",
		"aws:vpce-":                  "",
		"aws:vpce-A":                 "",
		"vpce-1":                     "",
		"":                           "",
	} {
		got, err := ParseID(text)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
		if again, err := ParseID(string(got)); want != "" && (err != nil || again != got) {
			t.Errorf("%q is read as %q, %v", got, again, err)
		}
	}
}

// FuzzHeader: what is taken is what another implementation reads too, no byte
// beyond the header is consumed, and no header of ours names two links.
func FuzzHeader(f *testing.F) {
	f.Add(said(f, "10.1.0.4:40000", "10.9.0.4:443", azureLink(7)))
	f.Add(said(f, "[2001:db8::4]:40000", "[2001:db8::1]:443", awsEndpoint("vpce-1")))
	f.Add(summed(f, azureLink(7)))
	f.Add([]byte(signature + "\x20\x00\x00\x00"))
	f.Add([]byte("PROXY TCP4 10.1.0.4 10.9.0.4 40000 443\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := ReadHeader(r)
		if err != nil {
			if h != (Header{}) {
				t.Fatalf("a failure with a header: %+v", h)
			}
			return
		}
		length := fixed + int(binary.BigEndian.Uint16(b[14:]))
		if r.Len() != len(b)-length {
			t.Fatalf("%d bytes are left of %d after %d", r.Len(), len(b), length)
		}
		if again, err := parse(b[:length]); err != nil || again != h {
			t.Fatalf("read %+v, parsed %+v, %v", h, again, err)
		}
		theirs, err := other.Read(bufio.NewReader(bytes.NewReader(b)))
		if err != nil || theirs.Command.IsLocal() != h.Local {
			t.Fatalf("read as %+v, by another as %+v, %v", h, theirs, err)
		}
		if h.Local {
			return
		}
		from, to, ok := theirs.TCPAddrs()
		if !ok || plain(from) != h.Source || plain(to) != h.Destination {
			t.Fatalf("read as %+v, by another as from %v to %v", h, from, to)
		}
		tlvs, err := theirs.TLVs()
		if err != nil {
			t.Fatal(err)
		}
		id := ID("")
		if n, ok := tlvparse.FindAzurePrivateEndpointLinkID(tlvs); ok {
			id = Azure(n)
		} else if s := tlvparse.FindAWSVPCEndpointID(tlvs); s != "" {
			id = ID("aws:" + s)
		}
		if id != h.Link {
			t.Fatalf("read as %q, by another as %q", h.Link, id)
		}
	})
}

func plain(a *net.TCPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}
