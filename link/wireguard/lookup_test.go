package wireguard

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/miekg/dns"
	"golang.org/x/net/dns/dnsmessage"
)

// reply packs an answer to q with the records given, after change.
func reply(t testing.TB, q []byte, change func(*dns.Msg), records ...string) []byte {
	t.Helper()
	asked := new(dns.Msg)
	if err := asked.Unpack(q); err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg).SetReply(asked)
	for _, s := range records {
		r, err := dns.NewRR(s)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, r)
	}
	if change != nil {
		change(m)
	}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadAnswer(t *testing.T) {
	q := question(7, dnsmessage.MustNewName("registry.cove.test."), dnsmessage.TypeA)
	for name, c := range map[string]struct {
		answer []byte
		want   []string
		err    error
	}{
		"an address":       {reply(t, q, nil, "registry.cove.test. A 10.0.0.7"), []string{"10.0.0.7"}, nil},
		"another spelling": {reply(t, q, nil, "Registry.COVE.test. A 10.0.0.7"), []string{"10.0.0.7"}, nil},
		"a chain in any order": {
			reply(t, q, nil, "b.test. A 10.0.0.7", "registry.cove.test. CNAME a.test.", "b.test. A 10.0.0.8", "a.test. CNAME b.test."),
			[]string{"10.0.0.7", "10.0.0.8"},
			nil,
		},
		"an address of somebody else": {reply(t, q, nil, "evil.test. A 192.0.2.1"), nil, errNoSuchHost},
		"no address":                  {reply(t, q, nil), nil, errNoSuchHost},
		"no such name":                {reply(t, q, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }), nil, errNoSuchHost},
		"truncated":                   {reply(t, q, func(m *dns.Msg) { m.Truncated = true }), nil, errTruncated},
		"another id":                  {reply(t, q, func(m *dns.Msg) { m.Id++ }, "registry.cove.test. A 10.0.0.7"), nil, errForeign},
		"another question":            {reply(t, q, func(m *dns.Msg) { m.Question[0].Name = "other.test." }, "registry.cove.test. A 10.0.0.7"), nil, errForeign},
		"a question":                  {q, nil, errForeign},
	} {
		got, err := readAnswer(q, c.answer)
		if !errors.Is(err, c.err) {
			t.Errorf("%s: %v, want %v", name, err, c.err)
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
			continue
		}
		for i := range got {
			if got[i] != netip.MustParseAddr(c.want[i]) {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
		}
	}
	loop := reply(t, q, nil, "registry.cove.test. CNAME a.test.", "a.test. CNAME registry.cove.test.")
	if got, err := readAnswer(q, loop); err == nil {
		t.Errorf("aliases in a circle lead to %v", got)
	}
	if _, err := readAnswer(q, reply(t, q, func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure })); err == nil || errors.Is(err, errNoSuchHost) {
		t.Errorf("a failure of the resolver is not the absence of a name: %v", err)
	}
}

// readAnswer are the addresses in an answer.
func readAnswer(q, answer []byte) ([]netip.Addr, error) {
	m, err := readMessage(q, answer)
	if err != nil {
		return nil, err
	}
	return addresses(m)
}

func FuzzReadAnswer(f *testing.F) {
	q := question(7, dnsmessage.MustNewName("registry.cove.test."), dnsmessage.TypeA)
	f.Add(reply(f, q, nil, "registry.cove.test. CNAME a.test.", "a.test. A 10.0.0.7"))
	f.Add(q)
	f.Fuzz(func(t *testing.T, answer []byte) {
		if got, err := readAnswer(q, answer); err == nil && len(got) == 0 {
			t.Error("neither an address nor an error")
		}
	})
}
