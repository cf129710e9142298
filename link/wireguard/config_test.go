package wireguard

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"cove.example/cove/fault"
)

var byValue = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}, PrivateKey{}, PublicKey{})

const written = `[Interface]
PrivateKey = AFSZKMRhBXvNvLJKwzfkGqkPJFLBkCQfSEuXB1RJvFI=
Address = 10.0.0.4/32
MTU = 1380
# Remove the # where resolvconf or systemd-resolved manages DNS.
# DNS = 168.63.129.16

[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
Endpoint = vpn.contoso.test:51820
AllowedIPs = 10.0.0.0/16, 168.63.129.16/32
PersistentKeepalive = 25
`

func sample(t testing.TB) MemberConfig {
	key, err := ParsePrivateKey("AFSZKMRhBXvNvLJKwzfkGqkPJFLBkCQfSEuXB1RJvFI=")
	if err != nil {
		t.Fatal(err)
	}
	server, err := ParsePublicKey("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
	if err != nil {
		t.Fatal(err)
	}
	return MemberConfig{
		PrivateKey: key, Address: laptop, ServerKey: server, Endpoint: "vpn.contoso.test:51820",
		AllowedIPs: []netip.Prefix{space, netip.MustParsePrefix("168.63.129.16/32")}, Resolver: netip.MustParseAddr("168.63.129.16"),
		MTU: 1380, Keepalive: 25 * time.Second,
	}
}

func TestConfigFile(t *testing.T) {
	text, err := sample(t).File()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(written, text); diff != "" {
		t.Error(diff)
	}
}

// What other programs write is read as they mean it.
func TestConfigOfOtherPrograms(t *testing.T) {
	text := strings.NewReplacer(
		"Address = 10.0.0.4/32", "address=10.0.0.4/16 # ours", "[Peer]", "[PEER]",
		"# DNS", "DNS", "AllowedIPs = 10.0.0.0/16, 168.63.129.16/32", "AllowedIPs=10.0.9.9/16,168.63.129.16",
		"\n", "\r\n",
	).Replace(written)
	got, err := ParseConfig(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sample(t), got, byValue); diff != "" {
		t.Error(diff)
	}
	got, err = ParseConfig(strings.Replace(written, "= 25", "= off", 1))
	if err != nil || got.Keepalive != 0 {
		t.Errorf("%s, %v", got.Keepalive, err)
	}
}

func TestConfigProblems(t *testing.T) {
	for _, c := range []struct{ old, replaced, want string }{
		{"PrivateKey = AFSZ", "PrivateKey = AFS", "line 2: privatekey: a key is 44 characters of base64"},
		{"AFSZKMRhBXvNvLJKwzfkGqkPJFLBkCQfSEuXB1RJvFI=", strings.Repeat("A", 43) + "=", "line 2: privatekey: a key of zeros is no key"},
		{"MTU = 1380", "PostUp = rm -rf /", "line 4: postup is nothing that cove can do here"},
		{"MTU = 1380", "MTU = 01380", `line 4: mtu: "01380" is not a number up to 65535`},
		{"MTU = 1380", "MTU = 100", "Interface.MTU: must be between 576 and 65455"},
		{"10.0.0.4/32", "fd00::4/128", "Interface.Address: must be one IPv4 address"},
		{"[Peer]", "[Friend]", `line 8: an unknown section "[friend]" (and 4 more)`},
		{"[Peer]", "[Peer]\n[Peer]", "line 9: a second [peer] section; a member has one server"},
		{"[Peer]", "", "line 9: publickey is nothing that cove can do here (and 3 more)"},
		{"Endpoint = vpn.contoso.test:51820", "Endpoint = vpn.contoso.test", "line 10: endpoint: must be host:port"},
		{"vpn.contoso.test:51820", "vpn contoso:51820", "line 10: endpoint: must be host:port"},
		{"vpn.contoso.test:51820", "vpn.contoso.test:0", "line 10: endpoint: must be host:port"},
		{"10.0.0.0/16, ", "10.0.0.0/33, ", `line 11: allowedips: "10.0.0.0/33" is not a prefix`},
		{"PersistentKeepalive = 25", "PersistentKeepalive = 25\nPersistentKeepalive = 26", "line 13: persistentkeepalive is given twice"},
		{"PersistentKeepalive = 25", "nonsense", "line 12: neither a [section] nor key = value"},
	} {
		if !strings.Contains(written, c.old) {
			t.Fatalf("%q is not in the sample", c.old)
		}
		_, err := ParseConfig(strings.Replace(written, c.old, c.replaced, 1))
		if _, got := fault.Of(err); got != c.want {
			t.Errorf("%s → %s:\n got %q\nwant %q", c.old, c.replaced, got, c.want)
		}
	}
	if _, err := ParseConfig(strings.Repeat("#", maxConfig+1)); !fault.Is(err, fault.TooLarge) {
		t.Errorf("a file without end: %v", err)
	}
}

// A server that hands out an endpoint with a line break in it would have root
// execute what follows.
func TestConfigCannotSmuggleACommand(t *testing.T) {
	for _, evil := range []string{"vpn.contoso.test:51820\nPostUp = touch /tmp/owned", "vpn\r:1", "vpn.contoso.test:51820 # x", "[::1%eth0\n]:1"} {
		c := sample(t)
		c.Endpoint = evil
		if text, err := c.File(); err == nil {
			t.Errorf("%q was written:\n%s", evil, text)
		}
		if _, err := Dial(t.Context(), c); err == nil {
			t.Errorf("%q was dialled", evil)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "a")))
		})
		prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
			return netip.PrefixFrom(addr.Draw(t, "p"), rapid.IntRange(0, 32).Draw(t, "bits")).Masked()
		})
		want := MemberConfig{
			PrivateKey: NewPrivateKey(), ServerKey: NewPrivateKey().Public(), Address: addr.Draw(t, "address"),
			Endpoint:   rapid.SampledFrom([]string{"vpn.contoso.test:51820", "203.0.113.9:1", "[2001:db8::1]:65535"}).Draw(t, "endpoint"),
			AllowedIPs: rapid.SliceOfNDistinct(prefix, 1, 20, rapid.ID).Draw(t, "allowed"),
			MTU:        rapid.SampledFrom([]int{0, 576, 1280, 1420, 9000}).Draw(t, "mtu"),
			Keepalive:  time.Duration(rapid.IntRange(0, 65535).Draw(t, "keepalive")) * time.Second,
		}
		if rapid.Bool().Draw(t, "resolver") {
			want.Resolver = addr.Draw(t, "resolver")
		}
		text, err := want.File()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseConfig(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, byValue); diff != "" {
			t.Error(diff)
		}
	})
}

// What is read can be written, and reading that again gives the same.
func FuzzParseConfig(f *testing.F) {
	f.Add(written)
	f.Add("[Interface]\nPrivateKey=\n[Peer]\n")
	f.Add("# DNS = 1.2.3.4")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig(text)
		if err != nil {
			return
		}
		again, err := c.File()
		if err != nil {
			t.Fatalf("read but not written: %v", err)
		}
		d, err := ParseConfig(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c, d, byValue); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPrivateKeyIsNeverPrinted(t *testing.T) {
	key := NewPrivateKey()
	c := sample(t)
	c.PrivateKey = key
	j, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var logged strings.Builder
	slog.New(slog.NewTextHandler(&logged, nil)).Info("x", "key", key, "config", c)
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "key", key, "config", c)
	out := string(j) + logged.String() + fmt.Sprintf("%v %+v %#v %s %x %d %q %v %+v %#v", key, key, key, key, key, key, key, &key, c, c)
	for _, secret := range []string{key.Reveal(), key.hex(), fmt.Sprintf("%X", key[:]), fmt.Sprint(key[:]), fmt.Sprintf("%#v", key[:])} {
		if strings.Contains(out, secret) {
			t.Errorf("the key is in %s", out)
		}
	}
	back, err := ParsePrivateKey(key.Reveal())
	if err != nil || back != key {
		t.Errorf("Reveal does not: %v", err)
	}
}
