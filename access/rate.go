package access

import (
	"fmt"
	"math"
	"sync"
	"time"

	"cove.example/cove/reason"
	"cove.example/cove/registry"
)

// Category is a kind of request that has a rate limit of its own.
type Category uint8

// The categories (source: the documentation of Azure Container Registry). A
// list of referrers is a read as well.
const (
	DataplaneRead   Category = iota // GET, HEAD, OPTIONS
	DataplaneWrite                  // PUT, PATCH, POST
	DataplaneDelete                 // DELETE
	ListReferrers
	OAuth // tokens issued
	categories
)

// String is the category's name.
func (c Category) String() string {
	return [categories]string{"DataplaneRead", "DataplaneWrite", "DataplaneDelete", "ListReferrers", "OAuth"}[c]
}

// perMinute is how many requests in a minute a registry takes, and how many of
// them from one identity; 0 is no limit of its own.
type perMinute struct{ registry, identity [categories]float64 }

var (
	smallRates   = perMinute{registry: [categories]float64{10_000, 2_000, 1_000, 500, 10_000}, identity: [categories]float64{5_000, 1_000, 500, 250, 0}}
	premiumRates = perMinute{registry: [categories]float64{20_000, 4_000, 4_000, 2_000, 20_000}, identity: [categories]float64{10_000, 2_000, 2_000, 1_000, 0}}
)

// Rates are the rate limits of registries: token buckets that hold a minute's
// requests and fill up evenly. Requests that the decision refuses are not
// counted, so that strangers cannot use up what a registry's own clients have;
// all anonymous callers are one identity, and so are the admin user's two
// passwords. A nil *Rates limits nothing.
type Rates struct {
	factor float64

	mu  sync.RWMutex
	all map[string]*rates // by the registry's UID
}

// rates are the buckets of one registry.
type rates struct {
	mu   sync.Mutex
	own  buckets
	each map[rated]*buckets
}

// rated is an identity: its name is unique among its kind.
type rated struct{ kind, name string }

// buckets are full when they are new.
type buckets [categories]bucket

type bucket struct {
	used float64
	at   int64 // when that was so, in nanoseconds; some has come back since
}

// Bounds of memory: past them any is forgotten, which gives it a full minute.
const (
	maxRated           = 4096 // identities of a registry
	maxRatedRegistries = 4096
)

// NewRates returns the documented limits times factor.
func NewRates(factor float64) *Rates {
	return &Rates{factor: factor, all: map[string]*rates{}}
}

// Left is how many requests of a category are left, and, where it is less than
// one, how long the next has to wait and whose limit it is.
type Left struct {
	Requests float64
	Wait     time.Duration
	Public   string
}

// Take counts one request of an identity. It refuses with a wait.
func (r *Rates) Take(reg *registry.Settings, id Identity, c Category, now time.Time) Left {
	return r.take(reg, id, c, now, 1)
}

// Look is Take without counting.
func (r *Rates) Look(reg *registry.Settings, c Category, now time.Time) Left {
	return r.take(reg, Identity{}, c, now, 0)
}

func (r *Rates) take(reg *registry.Settings, id Identity, c Category, now time.Time, n float64) Left {
	if r == nil {
		return Left{Requests: math.Inf(1)}
	}
	limit := &smallRates
	if reg.SKU == registry.Premium {
		limit = &premiumRates
	}
	of := r.of(reg.UID)
	of.mu.Lock()
	defer of.mu.Unlock()
	at := now.UnixNano()
	left := Left{Requests: of.own[c].left(limit.registry[c]*r.factor, at)}
	switch {
	case n == 0 && left.Requests >= 1:
		return left
	case left.Requests < 1:
		return over(left.Requests, limit.registry[c]*r.factor, c, "Registry "+reg.Name, "registry")
	}
	var own *buckets
	if limit.identity[c] > 0 {
		key := rated{id.Kind, id.Name}
		if own = of.each[key]; own == nil {
			for k := range of.each {
				if len(of.each) < maxRated {
					break
				}
				delete(of.each, k)
			}
			own = &buckets{}
			of.each[key] = own
		}
		mine := own[c].left(limit.identity[c]*r.factor, at)
		if mine < 1 {
			name := id.Name
			if name == "" {
				name = "anonymous"
			}
			return over(mine, limit.identity[c]*r.factor, c, "Identity "+name, "identity")
		}
		left.Requests = min(left.Requests, mine)
		own[c].used++
	}
	of.own[c].used++
	left.Requests--
	return left
}

// left is what a bucket of that size has, with what the time since the last
// request has brought. A clock that was set back brings nothing.
func (b *bucket) left(limit float64, now int64) float64 {
	if passed := now - b.at; passed > 0 && b.used > 0 {
		b.used = max(0, b.used-float64(passed)*limit/float64(time.Minute))
	}
	b.at = now
	return limit - b.used
}

func over(left, limit float64, c Category, who, per string) Left {
	return Left{
		Wait:   time.Duration((1 - left) / limit * float64(time.Minute)),
		Public: fmt.Sprintf("%s exceeded the per-%s %s rate limit of %.0f requests in a 60 second window.", who, per, c, limit),
	}
}

func (r *Rates) of(uid string) *rates {
	r.mu.RLock()
	of := r.all[uid]
	r.mu.RUnlock()
	if of != nil {
		return of
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if of = r.all[uid]; of == nil {
		for k := range r.all {
			if len(r.all) < maxRatedRegistries {
				break
			}
			delete(r.all, k)
		}
		of = &rates{each: map[rated]*buckets{}}
		r.all[uid] = of
	}
	return of
}

// Throttled is an allowed verdict that a rate limit has turned into a no.
func (v Verdict) Throttled(l Left) Verdict {
	refuse(&v, Throttled, reason.RateExceeded, stagePermission, overRate)
	if v.Registry != nil {
		v.rec.SKU = v.Registry.SKU
	}
	v.Wait, v.Public = l.Wait, l.Public+" CorrelationId: "+v.Ask.ID
	return v
}
