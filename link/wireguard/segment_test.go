package wireguard

import (
	"bytes"
	"encoding/binary"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"pgregory.net/rapid"
)

// superSegment is what the stack hands out: headers, a payload, and a checksum
// of the pseudo header only.
func superSegment(flags uint8, ipOptions, tcpOptions int, payload []byte) []byte {
	ihl, tho := 20+ipOptions, 20+tcpOptions
	p := make([]byte, ihl+tho+len(payload))
	p[0] = 0x40 | byte(ihl/4)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[4:], 0xfffe) // the identification wraps
	p[8], p[9] = 64, 6
	copy(p[12:], []byte{10, 0, 0, 7, 10, 0, 0, 4})
	t := p[ihl:]
	binary.BigEndian.PutUint16(t, 443)
	binary.BigEndian.PutUint16(t[2:], 40000)
	binary.BigEndian.PutUint32(t[4:], 0xffffff00) // the sequence number wraps
	t[12], t[13] = byte(tho/4)<<4, flags
	copy(t[tho:], payload)
	return p
}

// Every piece is a packet that a receiver accepts, and together they are what
// went in: same bytes, sequence numbers without a gap, the flags that end
// something on the last piece only.
func TestCutterProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload := rapid.SliceOfN(rapid.Byte(), 0, 32<<10).Draw(t, "payload")
		mss := rapid.IntRange(1+len(payload)/2000, 1500).Draw(t, "mss") // 2000 pieces at most
		flags := rapid.Uint8().Draw(t, "flags")
		in := superSegment(flags, 4*rapid.IntRange(0, 10).Draw(t, "ip"), 4*rapid.IntRange(0, 10).Draw(t, "tcp"), payload)
		room := rapid.IntRange(1, 40).Draw(t, "room")
		want := bytes.Clone(in)

		c := &cutter{}
		c.start(in, mss)
		var got []byte
		pieces := 0
		seq := header.TCP(want[int(want[0]&15)*4:]).SequenceNumber()
		for c.pending() {
			bufs, sizes := make([][]byte, room), make([]int, room)
			for i := range bufs {
				bufs[i] = make([]byte, 2048)
			}
			n := c.next(bufs, sizes, 16)
			if n == 0 {
				t.Fatal("no progress")
			}
			for i := range n {
				p := bufs[i][16 : 16+sizes[i]]
				ip, tcp := header.IPv4(p), header.TCP(p[int(p[0]&15)*4:])
				body := tcp.Payload()
				if int(ip.TotalLength()) != len(p) || ip.CalculateChecksum() != 0xffff {
					t.Fatalf("piece %d: IP header", pieces)
				}
				if sum := header.PseudoHeaderChecksum(header.TCPProtocolNumber, ip.SourceAddress(), ip.DestinationAddress(), uint16(len(tcp))); checksum.Checksum(tcp, sum) != 0xffff {
					t.Fatalf("piece %d: TCP checksum", pieces)
				}
				if tcp.SequenceNumber() != seq || ip.ID() != uint16(0xfffe+pieces) {
					t.Fatalf("piece %d: sequence %d, id %d", pieces, tcp.SequenceNumber(), ip.ID())
				}
				last := len(got)+len(body) == len(payload)
				wantFlags := flags
				if !last {
					wantFlags &^= 0x01 | 0x08
				}
				if pieces > 0 {
					wantFlags &^= 0x80
				}
				if uint8(tcp.Flags()) != wantFlags {
					t.Fatalf("piece %d: flags %02x, want %02x", pieces, uint8(tcp.Flags()), wantFlags)
				}
				if !last && len(body) != mss {
					t.Fatalf("piece %d: %d bytes", pieces, len(body))
				}
				got = append(got, body...)
				seq += uint32(len(body))
				pieces++
			}
		}
		if !bytes.Equal(got, payload) {
			t.Fatal("the bytes differ")
		}
	})
}
