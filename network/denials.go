package network

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

const (
	// denialEvery is how often one rule may say that it denies: a member that
	// tries again and again is one line a minute.
	denialEvery = time.Minute
	// maxDenials bounds the rules that are remembered; of those beyond it, which
	// a thousand groups could hold, nothing is said until others have been
	// silent for denialEvery.
	maxDenials = 1024
)

// denials tells the log what security groups do not let pass, since whoever is
// denied sees silence only.
type denials struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	said map[denier]*denied
}

// denier is a rule in a network.
type denier struct{ network, group, rule string }

// denied is what a rule has denied since it was last said.
type denied struct {
	packets uint64
	at      time.Time // when it was last said
}

// note counts a packet. Who calls it may hold locks of the data path, so the
// line is written elsewhere: at most one for each rule in denialEvery.
func (d *denials) note(network string, r *rule, w Flow) {
	if d == nil {
		return
	}
	key, now := denier{network, r.group, r.name}, d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	seen := d.said[key]
	if seen == nil {
		if len(d.said) >= maxDenials {
			d.forget(now)
		}
		if len(d.said) >= maxDenials {
			return
		}
		seen = &denied{}
		d.said[key] = seen
	}
	seen.packets++
	// A clock that went back must not silence a rule until it is there again.
	if since := now.Sub(seen.at); 0 <= since && since < denialEvery {
		return
	}
	packets := seen.packets
	seen.packets, seen.at = 0, now
	go d.log.Info("a security group denies", "network", key.network, "group", key.group, "rule", key.rule,
		"protocol", w.Protocol, "from", w.From, "to", netip.AddrPortFrom(w.To, w.ToPort), "packets", packets)
}

// forget drops the rules that have said nothing for a while.
func (d *denials) forget(now time.Time) {
	for key, seen := range d.said {
		if since := now.Sub(seen.at); since < 0 || since >= denialEvery {
			delete(d.said, key)
		}
	}
}
