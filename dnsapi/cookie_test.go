package dnsapi

import (
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Who shows a cookie of ours is not limited with the rest of the prefix; a
// cookie of another address, another server, another client or another time
// shows nothing.
func TestCookiesLiftTheLimit(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	s := New(Config{Views: views(t), PerSecond: 1, Now: func() time.Time { return now }})
	v := publicly(s)
	from := &net.UDPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 53}
	ask := func(from net.Addr, cookie string) *dns.Msg {
		t.Helper()
		out := v.packet(t.Context(), query(t, "myreg.cr.cove.internal.", dns.TypeA, func(m *dns.Msg) {
			m.SetEdns0(1232, false)
			if cookie != "" {
				m.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: cookie}}
			}
		}), from)
		if out == nil {
			return nil
		}
		m := new(dns.Msg)
		if err := m.Unpack(out); err != nil {
			t.Fatal(err)
		}
		return m
	}
	whole := func(m *dns.Msg) bool { return m != nil && !m.Truncated && len(m.Answer) == 3 }
	const mine = "0123456789abcdef"
	first := ask(from, mine)
	raw, ok := cookieOf(first)
	given := hex.EncodeToString(raw)
	if !whole(first) || !ok || len(given) != 2*(clientCookie+serverCookie) || !strings.HasPrefix(given, mine) {
		t.Fatalf("the first answer: %v", first)
	}
	if m := ask(from, ""); whole(m) {
		t.Error("the second answer to a prefix is not limited")
	}
	for range 5 {
		if !whole(ask(from, given)) {
			t.Error("with its cookie an asker is limited")
		}
	}
	foreign, err := hex.DecodeString(given)
	if err != nil {
		t.Fatal(err)
	}
	other := newCookies().server(foreign[:clientCookie], addrOf(from), uint32(now.Unix()))
	for what, c := range map[string]struct {
		from   net.Addr
		cookie string
	}{
		"another address's": {&net.UDPAddr{IP: net.IPv4(198, 51, 100, 8), Port: 53}, given},
		"another client's":  {from, "ffffffffffffffff" + given[16:]},
		"another server's":  {from, mine + hex.EncodeToString(other[:])},
		"half a":            {from, given[:32]},
		"a client's":        {from, mine},
	} {
		if whole(ask(c.from, c.cookie)) {
			t.Errorf("%s cookie lifts the limit", what)
		}
	}
	for _, age := range []time.Duration{cookieLife + time.Second, -cookieEarly - time.Second} {
		then := now
		now = now.Add(age)
		ask(from, "") // the prefix's one answer of this second
		if whole(ask(from, given)) {
			t.Errorf("a cookie lifts the limit after %v", age)
		}
		now = then
	}
	now = now.Add(time.Minute)
	if m := ask(from, "0123"); m == nil || m.Rcode != dns.RcodeFormatError {
		t.Errorf("a cookie of two bytes: %v", m)
	}
	inside := &served{Server: s, network: vnet, label: "network"}
	if m := inside.answer(t.Context(), first.SetQuestion("myreg.cr.cove.internal.", dns.TypeA), netip.Addr{}); m.IsEdns0() != nil && len(m.IsEdns0().Option) > 0 {
		t.Error("a member, whose address its tunnel proves, is given a cookie")
	}
}

// dig keeps the cookie that it is given, and finds it good the next time.
func TestDigTakesOurCookies(t *testing.T) {
	at := serve(t, New(Config{Views: views(t)}), "")
	out := digWhole(t, at, "management.cove.internal", "+cookie=0123456789abcdef")
	_, rest, _ := strings.Cut(out, "COOKIE: 0123456789abcdef")
	if len(rest) < 2*serverCookie || !strings.Contains(strings.SplitN(rest, "\n", 2)[0], "(good)") {
		t.Errorf("dig says of our cookie:\n%s", out)
	}
}
