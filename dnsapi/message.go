package dnsapi

import (
	"cmp"
	"context"
	"encoding/binary"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"cove.example/cove/fault"
	"cove.example/cove/zone"
)

const headerLen = 12

// respond returns the answer to one message, or nil where there is none to be
// given. An answer over UDP is at most maxUDP long.
func (v *served) respond(ctx context.Context, wire []byte, from netip.Addr, udp bool) []byte {
	if out := v.respondPlain(ctx, wire, from, udp); out != nil {
		return out
	}
	return v.respondAny(ctx, wire, from, udp)
}

// respondAny is respond by the library, which knows every form of a question.
func (v *served) respondAny(ctx context.Context, wire []byte, from netip.Addr, udp bool) []byte {
	q, reply := v.read(wire)
	if q == nil {
		return reply
	}
	m := v.answer(ctx, q, from)
	size := dns.MaxMsgSize
	if udp {
		size = dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, min(maxUDP, int(o.UDPSize())))
		}
	}
	return v.pack(m, size)
}

// pack writes m in at most size bytes, cut off if need be.
func (v *served) pack(m *dns.Msg, size int) []byte {
	m.Compress = true // a chain is half as long, and so is what a forger can aim at others
	out, err := m.Pack()
	if err == nil && len(out) > size {
		m.Truncate(size)
		out, err = m.Pack()
	}
	if err != nil {
		// A record that cannot be written, such as a name that is too long
		// behind a CNAME of somebody's.
		f := new(dns.Msg)
		f.SetRcode(m, dns.RcodeServerFailure)
		f.Question = m.Question
		if out, err = f.Pack(); err != nil {
			return nil
		}
		m = f
	}
	v.observe(m.Rcode)
	return out
}

// read is the one place where a stranger's bytes become a question. What is
// no question gets a bare header, which is never longer than what came, or
// nothing.
func (v *served) read(wire []byte) (q *dns.Msg, reply []byte) {
	if len(wire) < headerLen || wire[2]&0x80 != 0 {
		// An answer to an answer could go back and forth for ever.
		v.Observe(v.label, "DROPPED")
		return nil, nil
	}
	refuse := func(rcode int) (*dns.Msg, []byte) {
		v.observe(rcode)
		h := make([]byte, headerLen)
		copy(h, wire[:2])
		h[2] = 0x80 | wire[2]&0x79 // QR; opcode and RD as they came
		h[3] = byte(rcode)
		return nil, h
	}
	if wire[2]>>3&0xf != dns.OpcodeQuery {
		return refuse(dns.RcodeNotImplemented)
	}
	count := func(at int) int { return int(binary.BigEndian.Uint16(wire[at:])) }
	// RFC 9619: a query has one question. Records in it are the OPT record
	// and perhaps a signature, which nothing here depends on.
	if questionEnd(wire) < 0 || count(4) != 1 || count(6) != 0 || count(8) != 0 || count(10) > 2 || len(wire) > maxQuery {
		return refuse(dns.RcodeFormatError)
	}
	q = new(dns.Msg)
	if err := q.Unpack(wire); err != nil || len(q.Question) != 1 {
		return refuse(dns.RcodeFormatError)
	}
	opts := 0
	for _, r := range q.Extra {
		if r.Header().Rrtype == dns.TypeOPT {
			opts++
		}
	}
	if opts > 1 {
		return refuse(dns.RcodeFormatError)
	}
	return q, nil
}

// questionEnd is where the first question of a message ends, or -1. The name
// in it is not compressed, having nothing before it, and it has its type and
// class, which the library does not insist on.
func questionEnd(wire []byte) int {
	at := headerLen
	for at < len(wire) && wire[at] != 0 {
		if wire[at] > 63 {
			return -1
		}
		at += 1 + int(wire[at])
	}
	if at += 1 + 4; at > len(wire) || at > headerLen+255+4 {
		return -1
	}
	return at
}

// answer is the whole answer to a question, before it is cut to size.
func (v *served) answer(ctx context.Context, q *dns.Msg, from netip.Addr) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = !v.public()
	var cookie []byte
	if v.public() {
		var ok bool
		if cookie, ok = cookieOf(q); !ok {
			m.Rcode = dns.RcodeFormatError
			return m
		}
	}
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(maxUDP, o.Do())
		if o.Version() != 0 {
			// The upper bits of the rcode go into the OPT record.
			m.Rcode = dns.RcodeBadVers
			return m
		}
	}
	ask := q.Question[0]
	switch {
	case ask.Qclass != dns.ClassINET:
		m.Rcode = dns.RcodeRefused
		return m
	case ask.Qtype == dns.TypeOPT, ask.Qtype >= 128 && ask.Qtype <= 254, ask.Qtype == dns.TypeNone:
		// Meta types: transfers above all. Nobody gets a list of names.
		m.Rcode = dns.RcodeRefused
		return m
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	if v.tells(ask.Name, ask.Qtype) {
		v.tell(ctx, m, from)
		return m
	}
	view := v.view(from)
	a := view.Answer(ctx, ask.Name, ask.Qtype)
	m.Authoritative = a.Authoritative
	add(m, a)
	switch {
	case a.Forward != "":
		v.elsewhere(ctx, view, q, m, a.Forward)
	case ask.Qtype == dns.TypeANY && m.Rcode == dns.RcodeSuccess && len(m.Answer) == 0:
		// RFC 8482, 4.2: a small answer to a question that is asked to make
		// large ones.
		m.Answer = append(m.Answer, &dns.HINFO{
			Hdr: dns.RR_Header{Name: ask.Name, Rrtype: dns.TypeHINFO, Class: dns.ClassINET, Ttl: 3600},
			Cpu: "RFC8482",
		})
	}
	if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
		v.give(m, cookie, from) // a refusal stays no longer than its question
	}
	return m
}

// tells reports whether a question is a member's for its own routes, which no
// zone answers.
func (v *served) tells(name string, qtype uint16) bool {
	return qtype == dns.TypeTXT && v.Routes != nil && !v.public() && strings.EqualFold(name, v.RoutesName)
}

// tell answers it. It is an answer to one asker, now: nobody is to keep it.
func (v *served) tell(ctx context.Context, m *dns.Msg, from netip.Addr) {
	m.Authoritative = true
	list, err := v.Routes(ctx, v.network, from)
	switch {
	case fault.Is(err, fault.NotFound):
		m.Rcode = dns.RcodeRefused
	case err != nil:
		m.Rcode = dns.RcodeServerFailure
	}
	for _, p := range list {
		m.Answer = append(m.Answer, &dns.TXT{
			Hdr: dns.RR_Header{Name: m.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{p.String()},
		})
	}
}

// view is what an asker sees.
func (v *served) view(from netip.Addr) *zone.View {
	view := v.Views(v.network)
	if v.FrontEnd != nil && !v.public() {
		if front := v.FrontEnd(v.network, from); front.IsValid() {
			view = view.Through(front)
		}
	}
	return view
}

// add puts what a view says behind what m holds.
func add(m *dns.Msg, a zone.Answer) {
	m.Rcode = int(a.Rcode)
	for _, r := range a.Records {
		m.Answer = append(m.Answer, rr(r))
	}
	if a.SOA != nil {
		m.Ns = append(m.Ns, rr(*a.SOA))
	}
}

// elsewhere completes m with what another resolver says about name, which is
// the name asked for or the end of the chain that m holds. Where that leads to
// a name of the view, the view has the last word. The public view asks nobody:
// it would be a resolver for the whole world, and a way to aim its answers at
// others.
func (v *served) elsewhere(ctx context.Context, view *zone.View, q, m *dns.Msg, name string) {
	ask := q.Question[0]
	switch {
	case v.public():
		if len(m.Answer) == 0 {
			m.Rcode = dns.RcodeRefused
		}
		return
	case ask.Qtype == dns.TypeANY:
		m.Rcode = dns.RcodeNotImplemented
		return
	case v.Forward == nil:
		m.Rcode = dns.RcodeServerFailure
		return
	}
	select {
	case v.forwards <- struct{}{}:
		defer func() { <-v.forwards }()
	default:
		m.Rcode = dns.RcodeServerFailure
		return
	}
	query := Query{Name: dns.Fqdn(name), Type: ask.Qtype, CD: q.CheckingDisabled, AD: q.AuthenticatedData}
	if o := q.IsEdns0(); o != nil {
		query.DO = o.Do()
	}
	got, err := v.Forward.Ask(ctx, query)
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	spelled := query.Name
	if len(m.Answer) == 0 {
		spelled = ask.Name
	}
	chain, end, err := follow(got, spelled, ask.Qtype, view.Has)
	if err != nil {
		m.Rcode = dns.RcodeServerFailure
		return
	}
	m.AuthenticatedData = got.AuthenticatedData && len(m.Answer) == 0 && end == ""
	m.CheckingDisabled = q.CheckingDisabled
	m.Answer = append(m.Answer, chain...)
	if end == "" {
		m.Rcode = got.Rcode
		m.Ns = append(m.Ns, absence(got, view.Has)...)
		return
	}
	a := view.Answer(ctx, end, ask.Qtype)
	if a.Forward != "" {
		// Out, in and out again: somebody sends us in circles.
		m.Rcode, m.Answer = dns.RcodeServerFailure, nil
		return
	}
	add(m, a)
}

// rr is a record as the library writes it.
func rr(r zone.Record) dns.RR {
	h := dns.RR_Header{Name: dns.Fqdn(r.Name), Rrtype: r.Type, Class: dns.ClassINET, Ttl: r.TTL}
	switch r.Type {
	case zone.TypeA:
		return &dns.A{Hdr: h, A: r.Addr.AsSlice()}
	case zone.TypeAAAA:
		return &dns.AAAA{Hdr: h, AAAA: r.Addr.AsSlice()}
	case zone.TypeCNAME:
		return &dns.CNAME{Hdr: h, Target: dns.Fqdn(r.Target)}
	case zone.TypeNS:
		return &dns.NS{Hdr: h, Ns: dns.Fqdn(r.Target)}
	case zone.TypePTR:
		return &dns.PTR{Hdr: h, Ptr: dns.Fqdn(r.Target)}
	case zone.TypeMX:
		return &dns.MX{Hdr: h, Preference: r.Preference, Mx: dns.Fqdn(r.Target)}
	case zone.TypeSRV:
		return &dns.SRV{Hdr: h, Priority: r.Priority, Weight: r.Weight, Port: r.Port, Target: dns.Fqdn(r.Target)}
	case zone.TypeTXT:
		t := &dns.TXT{Hdr: h}
		for _, s := range r.Text {
			t.Txt = append(t.Txt, strings.ReplaceAll(s, `\`, `\\`)) // the library reads escapes
		}
		return t
	}
	soa := r.SOA
	if soa == nil {
		soa = &zone.StandardSOA
	}
	// The mailbox is the server's own name where nobody has set it: a name
	// already written costs two bytes, and an answer to a stranger should be
	// short.
	return &dns.SOA{
		Hdr: h, Ns: dns.Fqdn(r.Target), Mbox: dns.Fqdn(cmp.Or(soa.Mailbox, r.Target)),
		Serial: soa.Serial, Refresh: soa.Refresh, Retry: soa.Retry, Expire: soa.Expire, Minttl: soa.Minimum,
	}
}
