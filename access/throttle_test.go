package access

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"cove.example/cove/link"
	"cove.example/cove/registry"
)

type guesser struct {
	*Throttle
	now time.Time
}

func newGuesser() *guesser {
	return &guesser{NewThrottle(), time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
}

func (g *guesser) of(from, user, password string) Guess {
	return g.Guess(link.Origin{Remote: netip.AddrPortFrom(netip.MustParseAddr(from), 40000)}, "u", user, password)
}

// wrong makes n different wrong guesses, waiting for none, and reports how
// many were heard.
func (g *guesser) wrong(n int, from, user string) (heard int) {
	for i := range n {
		try := g.of(from, user, fmt.Sprint(from, i))
		if g.Wait(try, g.now) == 0 {
			g.Failed(try, g.now)
			heard++
		}
	}
	return heard
}

const here, elsewhere = "203.0.113.9", "198.51.100.1"

// Published failure 21.
func TestAGuesserWaitsLongerAndLonger(t *testing.T) {
	g := newGuesser()
	if n := g.wrong(100, here, "robot"); n != freeGuesses {
		t.Fatalf("%d guesses were heard", n)
	}
	var waits []time.Duration
	for i := range 8 {
		try := g.of(here, "ROBOT", fmt.Sprint("later", i))
		wait := g.Wait(try, g.now)
		waits = append(waits, wait)
		g.now = g.now.Add(wait)
		if g.Wait(try, g.now) != 0 {
			t.Fatal("the wait was not what it said")
		}
		g.Failed(try, g.now)
	}
	if got := fmt.Sprint(waits); got != "[1s 2s 4s 8s 16s 32s 1m0s 1m0s]" {
		t.Error(got)
	}
	g.now = g.now.Add(forgetAfter + time.Second)
	if n := g.wrong(100, here, "robot"); n != freeGuesses {
		t.Errorf("after a quarter of an hour %d guesses were heard", n)
	}
}

// Somebody else's failures lock out nobody: not from another address, not with
// another name from a shared one, not with a password that is known.
//
// Published failure 21.
func TestNobodyIsLockedOutByAnother(t *testing.T) {
	g := newGuesser()
	known := g.of(here, "robot", "right")
	g.Succeeded(known, g.now)
	for i := range 300 {
		g.wrong(freeGuesses+5, fmt.Sprintf("192.0.2.%d", i%250), "robot")
	}
	if wait := g.Wait(g.of(elsewhere, "robot", "right, and new"), g.now); wait != 0 {
		t.Errorf("a first try from elsewhere waits %v", wait)
	}
	if n := g.wrong(100, elsewhere, "robot"); n != waryGuesses {
		t.Errorf("an identity under attack has %d free guesses from a new address", n)
	}
	g.wrong(freeGuesses+5, here, "robot")
	if wait := g.Wait(known, g.now); wait != 0 {
		t.Errorf("a known password waits %v", wait)
	}
	if wait := g.Wait(g.of(elsewhere, "robot", "right"), g.now); wait != 0 {
		t.Errorf("a known password from elsewhere waits %v", wait)
	}
	if wait := g.Wait(g.of(here, "another", "x"), g.now); wait != 0 {
		t.Errorf("another name from the same address waits %v", wait)
	}
}

// A password that somebody has thought of is in a list of a million. That its
// owner has signed in with it must not be what lets a guesser, who has to wait,
// find it: right or wrong, what is sent too early gets the same answer.
//
// Published failure 21.
func TestAChosenPasswordIsNotHeardForBeingRight(t *testing.T) {
	g := newGuesser()
	chosen := func(from, user, password string) Guess {
		return g.Chosen(link.Origin{Remote: netip.AddrPortFrom(netip.MustParseAddr(from), 40000)}, "u", user, password)
	}
	// guess makes n different wrong guesses at alice, and reports how many were heard.
	guess := func(n int, from, word string) (heard int) {
		for i := range n {
			try := chosen(from, "alice", fmt.Sprint(word, i))
			if g.Wait(try, g.now) == 0 {
				g.Failed(try, g.now)
				heard++
			}
		}
		return heard
	}
	g.Succeeded(chosen(here, "alice", "correct horse"), g.now)
	for _, from := range []string{elsewhere, here} {
		if n := guess(300, from, "a"); n != freeGuesses {
			t.Errorf("%d guesses from %s were heard", n, from)
		}
		if g.Wait(chosen(from, "alice", "correct horse"), g.now) == 0 {
			t.Errorf("from %s the right one is heard while wrong ones wait", from)
		}
	}
	// Nor where it is the address that has to wait, for guesses at others.
	const third = "192.0.2.77"
	for i := range 2 * freeAddress {
		if try := chosen(third, fmt.Sprint("user", i), "x"); g.Wait(try, g.now) == 0 {
			g.Failed(try, g.now)
		}
	}
	if g.Wait(chosen(third, "alice", "correct horse"), g.now) == 0 {
		t.Error("the right one is heard from an address that has to wait")
	}
	// The owner, from where they are, is not held up by what others there have
	// tried with other names, and has no more free guesses for it.
	g.now = g.now.Add(forgetAfter + time.Second)
	for i := range 2 * freeAddress {
		if try := chosen(here, fmt.Sprint("user", i), "x"); g.Wait(try, g.now) == 0 {
			g.Failed(try, g.now)
		}
	}
	if wait := g.Wait(chosen(here, "alice", "correct horse"), g.now); wait != 0 {
		t.Errorf("the owner waits %v for what others have tried with other names", wait)
	}
	if n := guess(10, here, "b"); n != 10 {
		t.Errorf("of ten guesses %d were heard", n)
	}
	g.Succeeded(chosen(here, "alice", "correct horse"), g.now)
	if n := guess(300, here, "c"); n > freeGuesses-10 {
		t.Errorf("the owner's sign-in gave somebody there %d guesses", n)
	}
}

// A client with a stale password asks on and on: it slows down itself alone.
func TestAStalePasswordIsOneGuess(t *testing.T) {
	g := newGuesser()
	stale, heard := g.of(here, "robot", "of last year"), 0
	for range 100 {
		if g.Wait(stale, g.now) == 0 {
			g.Failed(stale, g.now)
			heard++
		}
	}
	if heard != freeRepeats {
		t.Errorf("it was heard %d times", heard)
	}
	if wait := g.Wait(g.of(here, "robot", "the new one"), g.now); wait != 0 {
		t.Errorf("the new password waits %v", wait)
	}
	// A password that was right and is no longer loses its credit.
	g.Succeeded(stale, g.now)
	g.Failed(stale, g.now)
	if g.Wait(stale, g.now) == 0 {
		t.Error("a password that is wrong now is let through as a known one")
	}
}

// One name after the other from one address is guessing too. A customer's /64
// of IPv6 is one address.
func TestManyNamesFromOneAddress(t *testing.T) {
	g := newGuesser()
	heard := 0
	for i := range 400 {
		try := g.of(fmt.Sprintf("2001:db8::%x", i+1), fmt.Sprint("user", i), "x")
		if g.Wait(try, g.now) == 0 {
			g.Failed(try, g.now)
			heard++
		}
	}
	if heard != freeAddress {
		t.Errorf("%d guesses were heard", heard)
	}
	if g.Wait(g.of("2001:db8:0:1::1", "user", "x"), g.now) != 0 {
		t.Error("the neighbour waits")
	}
	if g.Wait(g.of("::ffff:203.0.113.9", "user", "x"), g.now) != 0 {
		t.Error("an IPv4 caller waits for an IPv6 one")
	}
}

func TestGuessesAreBounded(t *testing.T) {
	g := newGuesser()
	for i := range maxTries {
		g.wrong(1, netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(), "robot")
	}
	if n := len(g.tries); n > maxTries {
		t.Errorf("%d entries", n)
	}
}

func BenchmarkGuess(b *testing.B) {
	g := newGuesser()
	from := link.Origin{Remote: netip.MustParseAddrPort(here + ":1")}
	for b.Loop() {
		try := g.Guess(from, "0d9cbd62-6b9b-4b35-9e6e-0123456789ab", "robot", "cvtokabcdefghijklmnopqrstuvwxyz")
		g.Wait(try, g.now)
		g.Succeeded(try, g.now)
	}
}

var (
	basic   = &registry.Settings{UID: "b", Name: "small", SKU: registry.Basic}
	premium = &registry.Settings{UID: "p", Name: "large", SKU: registry.Premium}
	builder = Identity{Name: "ci", Kind: KindServicePrincipal}
	coder   = Identity{Name: "dev", Kind: KindServicePrincipal}
)

// took is how many requests of one kind are let through at one moment.
func took(r *Rates, reg *registry.Settings, id Identity, c Category, now time.Time) (n int, no Left) {
	for {
		if no = r.Take(reg, id, c, now); no.Wait != 0 {
			return n, no
		}
		n++
	}
}

// The documented numbers, one by one.
func TestRateLimits(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		reg                *registry.Settings
		category           Category
		identity, registry int
	}{
		{basic, DataplaneRead, 5_000, 10_000},
		{basic, DataplaneWrite, 1_000, 2_000},
		{basic, DataplaneDelete, 500, 1_000},
		{basic, ListReferrers, 250, 500},
		{premium, DataplaneRead, 10_000, 20_000},
		{premium, DataplaneWrite, 2_000, 4_000},
		{premium, DataplaneDelete, 2_000, 4_000},
		{premium, ListReferrers, 1_000, 2_000},
	} {
		r := NewRates(1)
		first, no := took(r, c.reg, builder, c.category, now)
		want := fmt.Sprintf("Identity ci exceeded the per-identity %s rate limit of %d requests in a 60 second window.", c.category, c.identity)
		if first != c.identity || no.Public != want {
			t.Errorf("%s %s: %d, %s", c.reg.SKU, c.category, first, no.Public)
		}
		second, _ := took(r, c.reg, coder, c.category, now)
		third, no := took(r, c.reg, Identity{Kind: KindAnonymous}, c.category, now)
		want = fmt.Sprintf("Registry %s exceeded the per-registry %s rate limit of %d requests in a 60 second window.", c.reg.Name, c.category, c.registry)
		if second != c.identity || third != 0 || no.Public != want {
			t.Errorf("%s %s: %d and %d more, %s", c.reg.SKU, c.category, second, third, no.Public)
		}
		// It fills up evenly: after a tenth of a minute, a tenth.
		if n, _ := took(r, c.reg, builder, c.category, now.Add(6*time.Second)); n != c.identity/10 {
			t.Errorf("%s %s: %d after six seconds", c.reg.SKU, c.category, n)
		}
		if n, _ := took(r, c.reg, builder, c.category, now.Add(time.Hour)); n != c.identity {
			t.Errorf("%s %s: %d after an hour", c.reg.SKU, c.category, n)
		}
	}
	for reg, want := range map[*registry.Settings]int{basic: 10_000, premium: 20_000} {
		r := NewRates(1)
		if n, no := took(r, reg, builder, OAuth, now); n != want || r.Look(reg, OAuth, now).Public != no.Public || no.Public == "" {
			t.Errorf("%d tokens for %s", n, reg.SKU)
		}
	}
}

func TestRatesAreApart(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	r := NewRates(0.01)
	if n, _ := took(r, basic, builder, DataplaneRead, now); n != 50 {
		t.Errorf("scaled: %d", n)
	}
	for _, other := range []Left{
		r.Take(basic, builder, DataplaneWrite, now), r.Take(basic, coder, DataplaneRead, now), r.Take(premium, builder, DataplaneRead, now),
		r.Take(basic, Identity{Name: "ci", Kind: KindToken}, DataplaneRead, now),
	} {
		if other.Wait != 0 {
			t.Errorf("refused with what another has used: %s", other.Public)
		}
	}
	_, no := took(r, basic, Identity{Kind: KindAnonymous}, ListReferrers, now)
	if no.Public != "Identity anonymous exceeded the per-identity ListReferrers rate limit of 2 requests in a 60 second window." {
		t.Error(no.Public)
	}
	if no.Wait <= 0 || no.Wait > time.Minute {
		t.Error(no.Wait)
	}
	if (*Rates)(nil).Take(basic, builder, DataplaneRead, now).Wait != 0 {
		t.Error("no limits limit")
	}
	for i := range 2 * maxRated {
		r.Take(premium, Identity{Name: fmt.Sprint(i)}, ListReferrers, now.Add(time.Duration(i)*time.Minute))
	}
	if n := len(r.of("p").each); n > maxRated {
		t.Errorf("%d identities are remembered", n)
	}
	// A clock that is set back gives nothing and takes nothing.
	r = NewRates(1)
	took(r, basic, builder, DataplaneDelete, now)
	if r.Take(basic, builder, DataplaneDelete, now.Add(-time.Hour)).Wait == 0 {
		t.Error("a clock that went back filled the bucket")
	}
}

func BenchmarkRate(b *testing.B) {
	r := NewRates(1000)
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		now = now.Add(time.Millisecond)
		if r.Take(premium, builder, DataplaneRead, now).Wait != 0 {
			b.Fatal("refused")
		}
	}
}
