package dnsapi

import (
	"context"
	"encoding/binary"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"cove.example/cove/zone"
)

// plain is a question in its usual form, of which nearly all are: one name of
// letters, digits, hyphens and underscores, a type that is not a meta type,
// class IN, and an OPT record without options or none.
type plain struct {
	end   int    // of the question
	name  string // with its final dot
	qtype uint16
	edns  bool
	size  int // the longest answer over UDP
	do    bool
}

// readPlain reads a question of the usual form, byte by byte and without
// copying more than the name; ok is false for every other message, which the
// library then reads.
func readPlain(wire []byte) (q plain, ok bool) {
	end := questionEnd(wire)
	// QR, opcode, AA and TC are 0, and the counts are those of a question.
	if end < 0 || len(wire) > maxQuery || wire[2]&^0x01 != 0 || binary.BigEndian.Uint64(wire[4:])&^1 != 1<<48 {
		return q, false
	}
	q.end, q.size = end, dns.MinMsgSize
	name := make([]byte, 0, 64)
	for at := headerLen; wire[at] != 0; at += 1 + int(wire[at]) {
		for _, c := range wire[at+1 : at+1+int(wire[at])] {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return q, false
			}
			name = append(name, c)
		}
		name = append(name, '.')
	}
	if len(name) == 0 {
		return q, false
	}
	q.qtype = binary.BigEndian.Uint16(wire[end-4:])
	if q.qtype == 0 || q.qtype == dns.TypeOPT || q.qtype >= 128 && q.qtype <= 255 || binary.BigEndian.Uint16(wire[end-2:]) != dns.ClassINET {
		return q, false
	}
	if wire[11] == 1 {
		// RFC 6891, 6.1.2: the root's name, the type, the size that the asker
		// takes, upper bits of the rcode, version, flags, no options.
		opt := wire[end:]
		if len(opt) != 11 || opt[0] != 0 || binary.BigEndian.Uint16(opt[1:]) != dns.TypeOPT || opt[5] != 0 || opt[6] != 0 || opt[9] != 0 || opt[10] != 0 {
			return q, false
		}
		q.edns, q.do = true, opt[7]&0x80 != 0
		q.size = max(q.size, min(maxUDP, int(binary.BigEndian.Uint16(opt[3:]))))
	} else if len(wire) != end {
		return q, false
	}
	q.name = string(name)
	return q, true
}

// writePlain writes an answer of addresses, names and an SOA record to a
// question of the usual form, as the library would; nil where there is more to
// it than that, or where it is longer than size.
func writePlain(wire []byte, q plain, a zone.Answer, recursion bool, size int) []byte {
	w := writer{out: make([]byte, q.end, 512)}
	copy(w.out, wire[:q.end])
	clear(w.out[4:headerLen])
	w.out[2] = 0x80 | wire[2]&0x01 // QR; RD as it came
	if a.Authoritative {
		w.out[2] |= 0x04
	}
	w.out[3] = wire[3]&0x10 | byte(a.Rcode) // CD as it came
	if recursion {
		w.out[3] |= 0x80
	}
	w.learn(q.name[:len(q.name)-1], len(q.name), headerLen)
	w.out[5] = 1
	binary.BigEndian.PutUint16(w.out[6:], uint16(len(a.Records)))
	for _, r := range a.Records {
		w.record(r)
	}
	if a.SOA != nil {
		w.out[9] = 1
		w.record(*a.SOA)
	}
	if q.edns {
		w.out[11] = 1
		w.out = append(w.out, 0, 0, byte(dns.TypeOPT), maxUDP>>8, maxUDP&0xff, 0, 0, 0, 0, 0, 0)
		if q.do {
			w.out[len(w.out)-4] = 0x80
		}
	}
	if w.failed || len(w.out) > size {
		return nil
	}
	return w.out
}

// writer writes records and remembers where it wrote which name (RFC 1035,
// 4.1.4).
type writer struct {
	out    []byte
	known  [24]struct{ name, at int32 } // suffixes of names: where the text begins in texts, where it is in out
	texts  [8]string
	n, m   int
	failed bool
}

// learn remembers a name that stands at out[at:], and every name above it
// whose first label is among the first spelled bytes: behind them out has a
// pointer.
func (w *writer) learn(name string, spelled, at int) {
	if spelled == 0 || w.m == len(w.texts) {
		return
	}
	w.texts[w.m] = name
	for i := 0; i < spelled && w.n < len(w.known) && at+i < 1<<14; {
		w.known[w.n] = struct{ name, at int32 }{int32(w.m)<<16 | int32(i), int32(at + i)}
		w.n++
		dot := strings.IndexByte(name[i:], '.')
		if dot < 0 {
			break
		}
		i += dot + 1
	}
	w.m++
}

// name writes a name without final dot.
func (w *writer) name(name string) {
	name = strings.TrimSuffix(name, ".")
	if len(name) > 253 || strings.IndexByte(name, '\\') >= 0 {
		w.failed = true // the library knows what escapes mean
		return
	}
	start, rest := len(w.out), name
	for rest != "" {
		for _, k := range w.known[:w.n] {
			if w.texts[k.name>>16][k.name&0xffff:] == rest {
				w.out = append(w.out, 0xc0|byte(k.at>>8), byte(k.at))
				w.learn(name, len(name)-len(rest), start)
				return
			}
		}
		label, more, _ := strings.Cut(rest, ".")
		if label == "" || len(label) > 63 {
			w.failed = true
			return
		}
		w.out = append(append(w.out, byte(len(label))), label...)
		rest = more
	}
	w.out = append(w.out, 0)
	w.learn(name, len(name), start)
}

func (w *writer) record(r zone.Record) {
	w.name(r.Name)
	w.out = binary.BigEndian.AppendUint16(w.out, r.Type)
	w.out = binary.BigEndian.AppendUint16(w.out, dns.ClassINET)
	w.out = binary.BigEndian.AppendUint32(w.out, r.TTL)
	at := len(w.out)
	w.out = append(w.out, 0, 0)
	switch r.Type {
	case zone.TypeA, zone.TypeAAAA:
		w.out = append(w.out, r.Addr.AsSlice()...)
	case zone.TypeCNAME, zone.TypeNS:
		w.name(r.Target)
	case zone.TypeSOA:
		w.soa(r)
	default:
		w.failed = true
	}
	binary.BigEndian.PutUint16(w.out[at:], uint16(len(w.out)-at-2))
}

func (w *writer) soa(r zone.Record) {
	soa := r.SOA
	if soa == nil {
		soa = &zone.StandardSOA
	}
	w.name(r.Target)
	mailbox := soa.Mailbox
	if mailbox == "" {
		mailbox = r.Target
	}
	w.name(mailbox)
	for _, n := range []uint32{soa.Serial, soa.Refresh, soa.Retry, soa.Expire, soa.Minimum} {
		w.out = binary.BigEndian.AppendUint32(w.out, n)
	}
}

// patience is a context that ends some time after somebody begins to wait for
// it. An answer from memory waits for nothing, and a timer costs as much as
// the rest of it.
type patience struct {
	context.Context
	time time.Duration

	mu     sync.Mutex // guards what follows
	inner  context.Context
	cancel context.CancelFunc
}

func (p *patience) begun() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.inner == nil {
		p.inner, p.cancel = context.WithTimeout(p.Context, p.time)
	}
	return p.inner
}

func (p *patience) Done() <-chan struct{}       { return p.begun().Done() }
func (p *patience) Err() error                  { return p.begun().Err() }
func (p *patience) Deadline() (time.Time, bool) { return p.begun().Deadline() }

func (p *patience) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
}

// respondPlain answers a question of the usual form from what the view holds;
// nil where that is not the case.
func (v *served) respondPlain(ctx context.Context, wire []byte, from netip.Addr, udp bool) []byte {
	q, ok := readPlain(wire)
	if !ok || v.tells(q.name, q.qtype) {
		return nil
	}
	p := &patience{Context: ctx, time: queryTimeout}
	defer p.end()
	a := v.view(from).Answer(p, q.name, q.qtype)
	if a.Forward != "" {
		return nil
	}
	size := dns.MaxMsgSize
	if udp {
		size = q.size
	}
	out := writePlain(wire, q, a, !v.public(), size)
	if out != nil {
		v.observe(int(a.Rcode))
	}
	return out
}
