package wireguard

import (
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// drops counts packets by why they were dropped: a network's, which are also
// counted among all's.
type drops struct {
	all *drops // nil if these are all
	by  [verdicts]atomic.Uint64
}

func (d *drops) add(why verdict) { d.addN(why, 1) }

func (d *drops) addN(why verdict, n uint64) {
	d.by[why].Add(n)
	if d.all != nil {
		d.all.addN(why, n)
	}
}

func (d *drops) named() map[string]uint64 {
	all := make(map[string]uint64, len(dropNames))
	for why, name := range dropNames {
		if name != "" {
			all[name] = d.by[why].Load()
		}
	}
	return all
}

// totals are what has happened at the port since it was opened, in networks
// that are gone too.
type totals struct {
	drops      drops
	handshakes atomic.Uint64
	cookies    atomic.Uint64
	received   atomic.Uint64 // bytes of datagrams
	sent       atomic.Uint64
}

// Totals says how all networks do together. All but Networks, Members and Here
// only ever grow.
type Totals struct {
	Networks   int
	Members    int               // that may join
	Here       int               // whose session is good, see hereFor
	Handshakes uint64            // that members began, and answers to ours; both well proved
	Cookies    uint64            // handshakes that were put off under load
	Received   uint64            // bytes of UDP payload, rubbish included
	Sent       uint64            // bytes of UDP payload
	Dropped    map[string]uint64 // datagrams and packets, by cause; the causes are a closed set
}

// hereFor is how long a member counts as here after a handshake: its keys are
// refused from then on (REJECT_AFTER_TIME).
const hereFor = device.RejectAfterTime

// Totals reads every member's state; it is for a scrape, not for a request. It
// does not hold up changes of networks meanwhile.
func (s *Switch) Totals() Totals {
	t := Totals{
		Handshakes: s.totals.handshakes.Load(), Cookies: s.totals.cookies.Load(),
		Received: s.totals.received.Load(), Sent: s.totals.sent.Load(), Dropped: s.totals.drops.named(),
	}
	s.mu.Lock()
	devices := make([]*device.Device, 0, len(s.networks))
	for _, o := range s.networks {
		t.Members += o.peers.Len()
		devices = append(devices, o.device)
	}
	s.mu.Unlock()
	t.Networks = len(devices)
	for _, d := range devices {
		for _, p := range deviceStatus(d) {
			// WireGuard ages its keys by the same clock.
			if !p.Handshake.IsZero() && time.Since(p.Handshake) < hereFor {
				t.Here++
			}
		}
	}
	return t
}

// What a device drops or does, it says in its log and nowhere else; these are
// its words. A test asks for each.
const (
	saidInitiation = "%v - Received handshake initiation"
	saidResponse   = "%v - Received handshake response"
	saidCookie     = "Sending cookie response for denied handshake message for %v"
)

var saidDrop = map[string]verdict{
	"Received invalid initiation message from %s":        dropHandshake,
	"Received invalid response message from %s":          dropHandshake,
	"IPv4 packet with disallowed source address from %v": dropSource,
	"IPv6 packet with disallowed source address from %v": dropIPv6,
	"Packet with invalid IP version from %v":             dropMalformed,
}

// counting counts what a device says, and passes on its errors for who asks:
// one of them is that a member is absent whom another one called, as often as it
// calls. What it says in between names every packet.
func counting(l *slog.Logger, d *drops, t *totals) *device.Logger {
	return &device.Logger{
		Verbosef: func(format string, _ ...any) {
			switch format {
			case saidInitiation, saidResponse:
				t.handshakes.Add(1)
			case saidCookie:
				t.cookies.Add(1)
			default:
				if why, ok := saidDrop[format]; ok {
					d.add(why)
				}
			}
		},
		Errorf: func(format string, args ...any) { l.Debug("wireguard", "err", fmt.Sprintf(format, args...)) },
	}
}
