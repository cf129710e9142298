package wireguard

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"cove.example/cove/network"
)

// segmentOf is a TCP segment with timestamps, as WireGuard hands it over.
func segmentOf(from netip.Addr, port uint16, seq, ack uint32, flags byte, data []byte) []byte {
	p := make([]byte, 52, 52+len(data))
	p[0], p[8], p[9] = 0x45, 64, protocolTCP
	copy(p[12:], from.AsSlice())
	copy(p[16:], registry.AsSlice())
	binary.BigEndian.PutUint16(p[20:], port)
	binary.BigEndian.PutUint16(p[22:], 443)
	binary.BigEndian.PutUint32(p[24:], seq)
	binary.BigEndian.PutUint32(p[28:], ack)
	p[32], p[33] = 8<<4, flags
	binary.BigEndian.PutUint16(p[34:], 500)
	copy(p[40:], timestamps)
	p = append(p, data...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	return p
}

// waiting is a joiner whose stack takes nothing.
func waiting() *joiner {
	j := newJoiner(nil)
	j.started = true
	return j
}

func (w *run) payload() []byte {
	var all []byte
	for _, v := range w.views {
		all = append(all, v.AsSlice()...)
	}
	return all
}

// What transfers bring in small pieces, mixed with each other, waits as few
// runs, and each connection's runs are its stream, in order and whole.
func TestRunsAreTheStreams(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	r := &rules{}
	for range 50 {
		j := waiting()
		const connections = 3
		var sent [connections][]byte
		pieces := 0
		for len(j.runs) < maxRuns-1 && pieces < 300 {
			c := random.IntN(connections)
			for range 1 + random.IntN(8) { // in bursts, as they come
				data := make([]byte, 1+random.IntN(1368))
				for i := range data {
					data[i] = byte(random.Uint32())
				}
				flags := byte(tcpFlagAck)
				if random.IntN(4) == 0 {
					flags |= tcpFlagPsh
				}
				p := segmentOf(laptop, uint16(1000+c), uint32(len(sent[c]))-3000, 1, flags, data)
				sent[c] = append(sent[c], data...)
				j.add(p, r)
				clear(p) // the device uses its buffers again
				pieces++
			}
		}
		var got [connections][]byte
		for _, w := range j.runs {
			if w.length != 52 || w.length+w.size > maxPacket || w.size != len(w.payload()) {
				t.Fatalf("a run of %d and %d bytes, %d held", w.length, w.size, len(w.payload()))
			}
			c := binary.BigEndian.Uint16(w.head[20:]) - 1000
			if seq := binary.BigEndian.Uint32(w.head[24:]); seq != uint32(len(got[c]))-3000 {
				t.Fatalf("connection %d goes on at %d", c, seq)
			}
			got[c] = append(got[c], w.payload()...)
		}
		for c := range sent {
			if !bytes.Equal(sent[c], got[c]) {
				t.Fatalf("connection %d: %d bytes, want %d", c, len(got[c]), len(sent[c]))
			}
		}
		if len(j.runs)*8 > pieces {
			t.Errorf("%d pieces are %d runs", pieces, len(j.runs))
		}
	}
}

// What must be seen on its own is, and nothing overtakes it.
func TestWhatIsNotJoined(t *testing.T) {
	r := &rules{}
	piece := func(change func(p []byte)) []byte {
		p := segmentOf(laptop, 1000, 105, 7, tcpFlagAck, []byte("after"))
		if change != nil {
			change(p)
		}
		return p
	}
	for name, second := range map[string][]byte{
		"a gap":                      piece(func(p []byte) { binary.BigEndian.PutUint32(p[24:], 106) }),
		"the same again":             piece(func(p []byte) { binary.BigEndian.PutUint32(p[24:], 100) }),
		"another acknowledgement":    piece(func(p []byte) { binary.BigEndian.PutUint32(p[28:], 8) }),
		"another window":             piece(func(p []byte) { p[35]++ }),
		"other options":              piece(func(p []byte) { p[51]++ }),
		"congestion was experienced": piece(func(p []byte) { p[1] = 3 }),
		"the end":                    piece(func(p []byte) { p[33] |= 1 }),
		"a reset":                    piece(func(p []byte) { p[33] |= 4 }),
		"urgent":                     piece(func(p []byte) { p[33] |= 0x20 }),
		"a fragment":                 piece(func(p []byte) { p[6] |= 0x20 }),
		"an acknowledgement alone":   segmentOf(laptop, 1000, 105, 7, tcpFlagAck, nil),
		"not TCP":                    echo(laptop, registry, 8),
	} {
		j := waiting()
		j.add(segmentOf(laptop, 1000, 100, 7, tcpFlagAck, []byte("first")), r)
		j.add(second, r)
		j.add(segmentOf(laptop, 1000, 105, 7, tcpFlagAck, []byte("third")), r) // would continue the first
		if len(j.runs) < 2 || j.runs[0].size != 5 {
			t.Errorf("%s was joined", name)
		}
		if len(j.runs) == 3 && string(j.runs[2].payload()) != "third" {
			t.Errorf("%s: the third comes before it", name)
		}
	}
	j := waiting()
	j.add(segmentOf(laptop, 1000, 100, 7, tcpFlagAck, []byte("first")), r)
	j.add(piece(nil), &rules{})
	if len(j.runs) != 2 {
		t.Error("packets that different rules have let in were joined")
	}
}

// Of acknowledgements the last says what those before it said; one that is
// repeated says that something is missing.
func TestAcknowledgementsAreReplaced(t *testing.T) {
	r := &rules{}
	j := waiting()
	for _, ack := range []uint32{10, 20, 30, 30, 30, 40} {
		j.add(segmentOf(laptop, 1000, 100, ack, tcpFlagAck, nil), r)
		j.add(segmentOf(laptop, 1001, 100, 7, tcpFlagAck, nil), r) // another connection between them
	}
	var got []uint32
	for _, w := range j.runs {
		if binary.BigEndian.Uint16(w.head[20:]) == 1000 {
			got = append(got, binary.BigEndian.Uint32(w.head[28:]))
		}
	}
	if len(got) != 3 || got[0] != 30 || got[1] != 30 || got[2] != 40 {
		t.Errorf("%d wait, want 30, 30 and 40", got)
	}
	gaps := segmentOf(laptop, 1002, 100, 10, tcpFlagAck, nil)
	gaps[40] = 5 // SACK
	j = waiting()
	j.add(gaps, r)
	more := bytes.Clone(gaps)
	binary.BigEndian.PutUint32(more[28:], 20)
	j.add(more, r)
	if len(j.runs) != 2 {
		t.Error("an acknowledgement that names gaps was replaced")
	}
}

// A packet that waited while its sender was removed, or its destination, does
// not reach the stack.
func TestWaitingPacketsObeyChanges(t *testing.T) {
	p := segmentOf(laptop, 1000, 1, 1, tcpFlagAck, []byte("x"))
	head, _ := joinable(p)
	for name, c := range map[string]struct {
		rules *rules
		want  bool
	}{
		"both are there":          {&rules{ours: answered(registry), members: joined(laptop)}, true},
		"a tunnel has no members": {&rules{ours: answered(registry), anybody: true}, true},
		"the member is gone":      {&rules{ours: answered(registry), members: joined(builder)}, false},
		"the endpoint is gone":    {&rules{ours: answered(second), members: joined(laptop)}, false},
		"a group has a say, no":   {&rules{ours: answered(registry), members: joined(laptop), policy: policy{filter: onlyPort(0), flows: &flows{}}}, false},
		"a group has a say, yes":  {&rules{ours: answered(registry), members: joined(laptop), policy: policy{filter: onlyPort(443), flows: &flows{}}}, true},
	} {
		if got := c.rules.still(p[:head]); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// onlyPort lets flows to one port begin.
type onlyPort uint16

func (o onlyPort) Admit(w network.Flow) bool { return w.ToPort == uint16(o) }
func (onlyPort) Watches(netip.Addr) bool     { return true }
