package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/netip"
)

// Header is what a balancer says of one connection, in version 2 of the PROXY
// protocol (haproxy.org, proxy-protocol.txt, section 2.2).
type Header struct {
	// Local says that the connection is the balancer's own, such as a health
	// probe; nothing else is said then.
	Local       bool
	Source      netip.AddrPort // of the caller, in its own network
	Destination netip.AddrPort // that it called
	Link        ID             // "" where the balancer names none
}

// The parts of a header.
const (
	fixed = 16 // signature, version and command, family, length

	// maxRest bounds what follows: addresses are 36 bytes at most, what clouds
	// add is below a hundred, and a balancer may add what it knows of TLS.
	maxRest = 4 << 10

	commandLocal = 0x20
	commandProxy = 0x21
	familyTCP4   = 0x11
	familyTCP6   = 0x21

	typeCRC32C = 0x03
	typeAWS    = 0xea // Elastic Load Balancing, "Proxy protocol": PP2_TYPE_AWS
	typeAzure  = 0xee // Azure Private Link service, "TCP Proxy v2": PP2_TYPE_AZURE
	subtypeID  = 0x01 // of both: the endpoint's id
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// The failures of ReadHeader, apart from those of reading.
var (
	ErrNoHeader  = errors.New("the connection does not begin with a PROXY header of version 2")
	ErrMalformed = errors.New("the PROXY header is malformed")
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// ReadHeader reads a header and not one byte more, so that what follows can be
// read, and written, by the connection itself.
func ReadHeader(r io.Reader) (Header, error) {
	head := make([]byte, fixed, fixed+128)
	// What is not a header is refused at its first wrong byte: a caller whose
	// first words are shorter would be waited for in vain.
	for n := 0; n < fixed; {
		k, err := r.Read(head[n:])
		n += k
		if s := min(n, len(signature)); string(head[:s]) != signature[:s] {
			return Header{}, ErrNoHeader
		}
		if err != nil && n < fixed {
			return Header{}, err
		}
	}
	size := int(binary.BigEndian.Uint16(head[14:]))
	if size > maxRest {
		return Header{}, malformed("it is %d bytes long", size)
	}
	all := append(head, make([]byte, size)...)
	if _, err := io.ReadFull(r, all[fixed:]); err != nil {
		return Header{}, err
	}
	return parse(all)
}

// parse reads a whole header.
func parse(b []byte) (Header, error) {
	if len(b) < fixed || string(b[:len(signature)]) != signature {
		return Header{}, ErrNoHeader
	}
	if n := int(binary.BigEndian.Uint16(b[14:])); n != len(b)-fixed || n > maxRest {
		return Header{}, malformed("it is not as long as it says")
	}
	var h Header
	rest := b[fixed:]
	switch command := b[12]; command {
	case commandLocal:
		if family := b[13]; family != 0 && (family>>4 < 1 || family>>4 > 3 || family&0xf < 1 || family&0xf > 2) {
			return Header{}, malformed("its address family is 0x%02x", family)
		}
		h.Local = true // whatever else it says is to be ignored
		return h, nil
	case commandProxy:
	default:
		return Header{}, malformed("its version and command are 0x%02x", command)
	}
	var width int
	switch family := b[13]; family {
	case familyTCP4:
		width = 4
	case familyTCP6:
		width = 16
	default:
		return Header{}, malformed("its address family is 0x%02x", family)
	}
	if len(rest) < 2*width+4 {
		return Header{}, malformed("it is too short for its addresses")
	}
	source, _ := netip.AddrFromSlice(rest[:width])
	destination, _ := netip.AddrFromSlice(rest[width : 2*width])
	ports := rest[2*width:]
	h.Source = netip.AddrPortFrom(source.Unmap(), binary.BigEndian.Uint16(ports))
	h.Destination = netip.AddrPortFrom(destination.Unmap(), binary.BigEndian.Uint16(ports[2:]))
	if source.Unmap().IsUnspecified() {
		return Header{}, malformed("it names no caller")
	}
	if err := h.additions(b, fixed+2*width+4); err != nil {
		return Header{}, err
	}
	return h, nil
}

// additions reads what stands after the addresses. An id that is said twice is
// refused: two readers could take it for two.
func (h *Header) additions(all []byte, at int) error {
	sums := 0
	for at < len(all) {
		if len(all)-at < 3 {
			return malformed("an addition is cut off")
		}
		kind, size := all[at], int(binary.BigEndian.Uint16(all[at+1:]))
		at += 3
		if size > len(all)-at {
			return malformed("an addition is longer than the header")
		}
		value := all[at : at+size]
		var id ID
		switch {
		case kind == typeCRC32C:
			if sums++; sums > 1 || size != 4 || binary.BigEndian.Uint32(value) != checksum(all, at) {
				return malformed("its checksum is wrong")
			}
		case kind == typeAzure && size > 0 && value[0] == subtypeID:
			if size != 5 {
				return malformed("the id of an Azure private endpoint has %d bytes", size-1)
			}
			id = Azure(binary.LittleEndian.Uint32(value[1:]))
		case kind == typeAWS && size > 0 && value[0] == subtypeID:
			var ok bool
			if id, ok = aws(string(value[1:])); !ok {
				return malformed("the id of an AWS endpoint is not one")
			}
		}
		if id != "" {
			if h.Link != "" {
				return malformed("it names two private links")
			}
			h.Link = id
		}
		at += size
	}
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the header's, with the four bytes at at, where it stands, as
// zeros.
func checksum(all []byte, at int) uint32 {
	sum := crc32.Update(0, castagnoli, all[:at])
	sum = crc32.Update(sum, castagnoli, make([]byte, 4))
	return crc32.Update(sum, castagnoli, all[at+4:])
}
