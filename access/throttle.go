package access

import (
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"

	"cove.example/cove/link"
)

// Throttle slows down whoever guesses passwords. Nil slows down nobody.
//
// What is counted are guesses: different wrong passwords. A client that goes
// on with a password that is no longer right makes one guess, however often it
// asks; its repetitions are slowed down and nobody else's. A generated password
// that was right within the last day is let through whatever others have done,
// and failures from elsewhere lock out nobody: an identity under attack from
// many addresses only has fewer free guesses from each of them.
//
// A password that somebody has chosen is never let through for being right:
// where wrong ones have to wait and the right one has not, a list of a million
// is gone through as fast as one can ask. See Chosen.
//
// Requests that are under way at once may each take a guess before the first
// has been counted. That costs nothing where a password is generated, of 200
// bits or more; whoever verifies chosen ones asks again behind the slow hash.
type Throttle struct {
	mu    sync.Mutex
	seed  maphash.Seed
	tries map[uint64]*tries
}

// tries is what is remembered under one key. Keys are hashes under a seed of
// this process's own: no password is kept, and nobody outside can make two
// keys meet.
type tries struct {
	n           int
	last, until time.Time // of the last failure, or the last success; no try before until
}

// The bounds of guessing. Twenty tries are more than a person makes, and an
// office behind one address has a few who mistype.
const (
	freeRepeats  = 20  // of one wrong password, from one address
	freeGuesses  = 20  // at one identity, from one address
	wariness     = 100 // guesses at one identity from everywhere, after which …
	waryGuesses  = 3   // … each address has these
	freeAddress  = 100 // at all identities, from one address
	forgetAfter  = 15 * time.Minute
	rememberGood = 24 * time.Hour
	longestWait  = time.Minute
	maxTries     = 1 << 15 // entries: some 4 MiB
)

// NewThrottle returns a Throttle that has seen nothing.
func NewThrottle() *Throttle {
	return &Throttle{seed: maphash.MakeSeed(), tries: map[uint64]*tries{}}
}

// Guess is one attempt to sign in, by the keys under which it is counted.
type Guess struct {
	repeat, pair, address, identity, good uint64

	chosen bool // the password is one that somebody has thought of
}

// source is where an attempt comes from: an address of the public side (a /64
// of IPv6, which is what one customer has), or a network, or private link, and an address in it.
func source(o link.Origin) string {
	a := o.Remote.Addr().Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
	}
	return o.Network + o.Link + " " + a.String()
}

// Guess is the attempt of somebody at an origin to sign in as user with a
// password. realm is where: the same name in another realm is somebody else.
func (t *Throttle) Guess(o link.Origin, realm, user, password string) Guess {
	if t == nil {
		return Guess{}
	}
	from, who := source(o), realm+" "+strings.ToLower(user)
	return Guess{
		repeat: t.key("repeat", from, who, password), pair: t.key("pair", from, who),
		address: t.key("address", from), identity: t.key("identity", who), good: t.key("good", who, password),
	}
}

// Chosen is Guess for a password that somebody has thought of. What is
// remembered of a success is from where it came and not what the password was:
// failures at other names do not hold up whoever has signed in from there, and
// the guesses at this one name stay counted, those of its owner's address too.
func (t *Throttle) Chosen(o link.Origin, realm, user, password string) Guess {
	g := t.Guess(o, realm, user, password)
	if t != nil {
		g.chosen, g.good = true, t.key("good here", source(o), realm+" "+strings.ToLower(user))
	}
	return g
}

func (t *Throttle) key(parts ...string) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	for _, p := range parts {
		h.WriteString(p)
		h.WriteByte(0)
	}
	return h.Sum64()
}

// Wait is how long this attempt has to wait, 0 when it may be made now.
func (t *Throttle) Wait(g Guess, now time.Time) time.Duration {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	keys := []uint64{g.repeat, g.pair, g.address}
	if e := t.tries[g.good]; e != nil && now.Sub(e.last) < rememberGood {
		if !g.chosen {
			return 0
		}
		keys = keys[:2]
	}
	var until time.Time
	for _, key := range keys {
		if e := t.tries[key]; e != nil && e.until.After(until) {
			until = e.until
		}
	}
	return max(0, until.Sub(now))
}

// Failed counts a wrong password.
func (t *Throttle) Failed(g Guess, now time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !g.chosen {
		delete(t.tries, g.good)
	}
	if t.count(g.repeat, freeRepeats, now) > 1 {
		return
	}
	free := freeGuesses
	if t.count(g.identity, maxTries, now) > wariness {
		free = waryGuesses
	}
	t.count(g.pair, free, now)
	t.count(g.address, freeAddress, now)
}

// count adds a failure under a key. Past the free ones each doubles the wait.
func (t *Throttle) count(key uint64, free int, now time.Time) int {
	e := t.entry(key, now)
	if now.Sub(e.last) > forgetAfter {
		e.n = 0
	}
	e.n++
	e.last = now
	if over := e.n - free; over >= 0 {
		e.until = now.Add(min(longestWait, time.Second<<min(over, 10)))
	}
	return e.n
}

// Succeeded remembers a right password, and forgets that wrong ones came from
// the same place; not of a chosen one, whose owner's sign-ins would each give
// somebody behind the same address new guesses.
func (t *Throttle) Succeeded(g Guess, now time.Time) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.entry(g.good, now).last = now
	if !g.chosen {
		delete(t.tries, g.pair)
	}
}

// entry returns what is remembered under a key, and makes room for a new one
// at the cost of whichever of a few is the oldest.
func (t *Throttle) entry(key uint64, now time.Time) *tries {
	e := t.tries[key]
	if e != nil {
		return e
	}
	if len(t.tries) >= maxTries {
		var victim uint64
		oldest, seen := now.Add(time.Hour), 0
		for k, v := range t.tries {
			if v.last.Before(oldest) {
				victim, oldest = k, v.last
			}
			if seen++; seen == 8 {
				break
			}
		}
		delete(t.tries, victim)
	}
	e = &tries{}
	t.tries[key] = e
	return e
}
