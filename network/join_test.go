package network

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/arm"
	"cove.example/cove/fault"
	"cove.example/cove/resource"
	"cove.example/cove/task"
)

func (w *world) joinCode(name string) Code {
	w.Helper()
	out, err := w.act(stranger, subnetID, "joinCode", fmt.Sprintf(`{"name":%q,"expiresIn":600,"kind":"aks"}`, name))
	if err != nil {
		w.Fatal(err)
	}
	c, err := ParseCode(textAt(out, "code"))
	if err != nil {
		w.Fatalf("%v: %q", err, textAt(out, "code"))
	}
	return c
}

func (w *world) joiner() Joiner { return Joiner{Store: w.store, Config: w.cfg} }

func TestJoinByCode(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		code := w.joinCode("laptop")
		if code.Management != w.cfg.Management || code.Fingerprint != "ab12" || code.Dial != w.cfg.Dial || code.NIC != nicID("laptop") {
			w.Errorf("the code says %+v", code)
		}
		key := newKey()
		got, err := w.joiner().Redeem(w.Context(), code.Secret.Reveal(), key, "")
		if err != nil {
			w.Fatal(err)
		}
		if got.Member != memberID("laptop", "laptop") || got.Address != "10.0.0.4" || got.Endpoint != "203.0.113.1:51820" || got.MTU != 1420 {
			w.Errorf("the configuration is %+v", got)
		}
		if m := w.m.Member(arm.MustID(vnetID).Key(), netip.MustParseAddr("10.0.0.4")); m == nil || m.Kind != "aks" {
			w.Errorf("the data path sees %+v", m)
		}
		if have := textAt(w.get(got.Member), "properties", "publicKey"); have != key {
			w.Errorf("the member's key is %q", have)
		}
		_, err = w.joiner().Redeem(w.Context(), code.Secret.Reveal(), newKey(), "")
		w.refused(err, "JoinCodeInvalid")
	})
}

func TestJoinCodeRefusals(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		_, err := w.act(nobody, subnetID, "joinCode", `{"name":"laptop"}`)
		w.refused(err, "LinkedAuthorizationFailed")
		for body, path := range map[string]string{
			`{}`: "name", `{"name":"a/b"}`: "name", `{"name":"a","kind":"toaster"}`: "kind",
			`{"name":"a","expiresIn":0}`: "expiresIn", `{"name":"a","expiresIn":"soon"}`: "expiresIn", `{"name":"a","expiresIn":1e9}`: "expiresIn", `{"name":"a","expiresIn":9999999}`: "expiresIn",
		} {
			_, err := w.act(owner, subnetID, "joinCode", body)
			w.invalid(err, path)
		}
		// The right to join is not the right to take over a machine.
		w.nic("vm", "")
		_, err = w.act(stranger, subnetID, "joinCode", `{"name":"vm"}`)
		w.refused(err, "NetworkInterfaceExists")
		code := w.joinCode("laptop")
		if _, err := w.joiner().Redeem(w.Context(), code.Secret.Reveal(), newKey(), ""); err != nil {
			w.Fatal(err)
		}
		_, err = w.act(stranger, subnetID, "joinCode", `{"name":"laptop"}`)
		w.refused(err, "NetworkInterfaceExists")
	})
}

// A machine that was put by hand on an interface that a code is kept for is
// somebody's, with its identities perhaps: the code does not take it over, and
// neither does another code for that name.
func TestACodeTakesNoMachineOver(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		for _, name := range []string{"laptop", "another"} {
			code, key := w.joinCode("laptop"), newKey()
			member := memberID("laptop", name)
			w.put(member, memberBody(key, "vm"))
			_, err := w.joiner().Redeem(w.Context(), code.Secret.Reveal(), newKey(), "")
			w.refused(err, "JoinCodeInvalid")
			_, err = w.act(stranger, subnetID, "joinCode", `{"name":"laptop"}`)
			w.refused(err, "NetworkInterfaceExists")
			if have := textAt(w.get(member), "properties", "publicKey"); have != key {
				w.Errorf("the key of %s is %q", name, have)
			}
			w.delete(member)
			w.delete(nicID("laptop"))
		}
	})
}

// Whoever has no good code learns nothing from the answer.
func TestEveryBadCodeIsRefusedTheSame(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		used, late, gone, replaced := w.joinCode("used"), w.joinCode("late"), w.joinCode("gone"), w.joinCode("again")
		again := w.joinCode("again")
		w.delete(nicID("gone"))
		if _, err := w.joiner().Redeem(w.Context(), used.Secret.Reveal(), newKey(), ""); err != nil {
			w.Fatal(err)
		}
		if _, err := w.joiner().Redeem(w.Context(), again.Secret.Reveal(), newKey(), ""); err != nil {
			w.Errorf("the second code for one name: %v", err)
		}
		w.clock.add(10 * time.Minute)
		var said []string
		for _, secret := range []string{used.Secret.Reveal(), late.Secret.Reveal(), gone.Secret.Reveal(), replaced.Secret.Reveal(), newSecret().Reveal(), "", "x", strings.Repeat("A", 1<<16)} {
			_, err := w.joiner().Redeem(w.Context(), secret, newKey(), "")
			kind, public := fault.Of(err)
			if kind != fault.Denied || !errors.Is(err, ErrCode) {
				w.Errorf("%.20q: %v", secret, err)
			}
			said = append(said, public)
		}
		for _, s := range said {
			if s != said[0] {
				w.Errorf("%q differs from %q", s, said[0])
			}
		}
	})
}

// A code is good for its time by the server's clock, however that jumps: one
// that was made while the clock was years ahead does not last for years, and
// one whose clock goes back a little is not lost. What ends codes ends those
// that will never be good.
func TestCodesAndClockJumps(t *testing.T) {
	const year = 365 * 24 * time.Hour
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		for i, c := range []struct {
			jump    time.Duration
			good    bool
			expires bool // Expire ends it
		}{
			{-50 * year, false, true},
			{-6 * time.Minute, false, true},
			{-4 * time.Minute, true, false},
			{0, true, false},
			{10*time.Minute - time.Second, true, false},
			{10 * time.Minute, false, true},
			{200 * year, false, true},
		} {
			name := fmt.Sprint("m", i)
			kept, used := w.joinCode(name+"kept"), w.joinCode(name)
			w.clock.add(c.jump)
			_, err := w.joiner().Redeem(w.Context(), used.Secret.Reveal(), newKey(), "")
			if (err == nil) != c.good || err != nil && !errors.Is(err, ErrCode) {
				w.Errorf("after %v: %v, want good %v", c.jump, err, c.good)
			}
			err = w.joiner().Expire(w.Context(), task.Task{Body: []byte(`{"hash":"` + kept.Secret.Hash() + `"}`)})
			if (err == nil) != c.expires {
				w.Errorf("after %v the end of a code: %v, want one %v", c.jump, err, c.expires)
			}
			w.clock.add(-c.jump)
			if _, err = w.joiner().Redeem(w.Context(), kept.Secret.Reveal(), newKey(), ""); (err == nil) == c.expires {
				w.Errorf("after %v and back: %v, ended %v", c.jump, err, c.expires)
			}
		}
	})
}

func TestCodeIsGoodOnceWhoeverComesAtOnce(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		code := w.joinCode("laptop")
		const n = 20
		var mu sync.Mutex
		var wg sync.WaitGroup
		won := 0
		start := make(chan struct{})
		for range n {
			wg.Go(func() {
				<-start
				_, err := w.joiner().Redeem(w.Context(), code.Secret.Reveal(), newKey(), "")
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					won++
				case !errors.Is(err, ErrCode):
					w.Errorf("a loser is told %v", err)
				}
			})
		}
		close(start)
		wg.Wait()
		if won != 1 {
			w.Errorf("%d of %d redeemed the code", won, n)
		}
	})
}

func TestFailedRedeemLeavesTheCodeGood(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		key := newKey()
		w.nic("vm", "")
		w.put(memberID("vm", "m"), memberBody(key, "vm"))
		code := w.joinCode("laptop")
		_, err := w.joiner().Redeem(w.Context(), code.Secret.Reveal(), key, "")
		w.refused(err, "PublicKeyInUse")
		_, err = w.joiner().Redeem(w.Context(), code.Secret.Reveal(), "no key", "")
		w.invalid(err, "publicKey")
		if _, err := w.joiner().Redeem(w.Context(), code.Secret.Reveal(), newKey(), ""); err != nil {
			w.Error(err)
		}
	})
}

func TestExpiredReservationIsGivenBack(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		before := w.docs()
		code, touched := w.joinCode("laptop"), w.joinCode("touched")
		expire := func(c Code) error {
			body, err := json.Marshal(expiry{c.Secret.Hash()})
			w.check(err)
			return w.joiner().Expire(w.Context(), task.Task{Kind: TaskExpireCode, Body: body})
		}
		if expire(code) == nil {
			w.Error("a code that is still good was ended")
		}
		w.clock.add(10 * time.Minute)
		for range 2 { // a task may run twice
			w.check(expire(code))
		}
		body := w.get(nicID("touched"))
		body["tags"] = resource.Object{"mine": "yes"}
		w.put(nicID("touched"), text(body))
		w.check(expire(touched))
		w.get(nicID("touched")) // somebody cares for it
		w.delete(nicID("touched"))
		if n := w.docs(); n != before+1 { // the cursor of the subnet
			w.Errorf("%d documents are left of the codes", n-before)
		}
	})
}

// The database, a backup of it and a log line give no code away.
func TestSecretIsKeptNowhere(t *testing.T) {
	each(t, func(w *world) {
		w.vnet("10.0.0.0/16", "10.0.0.0/24")
		code := w.joinCode("laptop")
		w.check(w.raw.View(w.Context(), func(r resource.Reader) error {
			all, err := r.List(w.Context(), resource.Query{})
			for _, d := range all {
				if s := d.ID.String() + text(d.Body); strings.Contains(s, code.Secret.Reveal()) || strings.Contains(s, code.Text()) {
					w.Errorf("%s holds the secret", d.ID)
				}
			}
			return err
		}))
		for _, s := range []string{fmt.Sprint(code), fmt.Sprintf("%+v %#v %x", code, code, code), text(code), fmt.Sprint(PrivateKey{1, 2}), text(Wanted{})} {
			if strings.Contains(s, code.Secret.Reveal()) || !strings.Contains(s, "redacted") {
				w.Errorf("it prints as %s", s)
			}
		}
	})
}

func TestCodeTextIsCheckedBeforeAnybodyIsAsked(t *testing.T) {
	want := Code{"https://management.cove.internal", "ab", "192.0.2.1:443", nicID("x"), time.Unix(1_800_000_000, 0).UTC(), newSecret()}
	s := want.Text()
	got, err := ParseCode(" " + s + "\n")
	if err != nil || got != want {
		t.Fatalf("got %+v, %v", got, err)
	}
	bad := []string{"", "cove1.", "cove2." + s[6:], s[:len(s)-1], s + "A", "cove1." + strings.Repeat("A", maxCode+1)}
	for i := len(codePrefix); i < len(s); i += 7 {
		b := []byte(s)
		b[i] ^= 1
		bad = append(bad, string(b))
	}
	for _, b := range bad {
		if _, err := ParseCode(b); !errors.Is(err, ErrCodeText) {
			t.Errorf("%.40q: %v", b, err)
		}
	}
}

func FuzzParseCode(f *testing.F) {
	f.Add(Code{Management: "u", Expires: time.Unix(1, 0)}.Text())
	f.Add("cove1.AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCode(s)
		if err != nil {
			if !errors.Is(err, ErrCodeText) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseCode(c.Text())
		if err != nil || again != c {
			t.Fatalf("%q reads as %+v, printed and read again as %+v, %v", s, c, again, err)
		}
	})
}

func FuzzDecodeKey(f *testing.F) {
	f.Add(newKey())
	f.Add("AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := decodeKey(s)
		if err == nil && base64.StdEncoding.EncodeToString(k[:]) != s {
			t.Fatalf("%q is another spelling of %q: one key could be two members'", s, base64.StdEncoding.EncodeToString(k[:]))
		}
	})
}
