package wireguard

import (
	"encoding/hex"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// PeerStatus is how one tunnel does.
type PeerStatus struct {
	PublicKey PublicKey
	Address   netip.Addr     // inside the network
	Endpoint  netip.AddrPort // where it was last heard; not valid if never
	Handshake time.Time      // the last that both ends completed; zero if none
	Received  uint64         // bytes from the peer, WireGuard's own included
	Sent      uint64
}

// NetworkStatus is how one network does.
type NetworkStatus struct {
	Network string
	Key     PublicKey
	Peers   []PeerStatus
	Dropped map[string]uint64 // packets, by reason; the reasons are a closed set
}

// Status returns all networks, in no order.
func (s *Switch) Status() []NetworkStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]NetworkStatus, 0, len(s.networks))
	for name, o := range s.networks {
		all = append(all, NetworkStatus{Network: name, Key: o.key.Public(), Peers: o.status(), Dropped: o.stack.count.named()})
	}
	return all
}

func (o *overlay) status() []PeerStatus {
	peers := deviceStatus(o.device)
	for i := range peers {
		peers[i].Address = o.members[peers[i].PublicKey]
	}
	return peers
}

// deviceStatus reads wireguard-go's own account, which it gives only as text.
func deviceStatus(d *device.Device) []PeerStatus {
	text, err := d.IpcGet()
	if err != nil {
		return nil // it writes to memory and cannot fail
	}
	var peers []PeerStatus
	var seconds int64
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if key == "public_key" {
			peers = append(peers, PeerStatus{})
			_, _ = hex.Decode(peers[len(peers)-1].PublicKey[:], []byte(value))
			continue
		}
		if len(peers) == 0 {
			continue
		}
		p := &peers[len(peers)-1]
		number, _ := strconv.ParseUint(value, 10, 63)
		switch key {
		case "endpoint":
			p.Endpoint, _ = netip.ParseAddrPort(value)
		case "last_handshake_time_sec":
			seconds = int64(number)
		case "last_handshake_time_nsec":
			if seconds != 0 || number != 0 {
				p.Handshake = time.Unix(seconds, int64(number))
			}
		case "rx_bytes":
			p.Received = number
		case "tx_bytes":
			p.Sent = number
		}
	}
	return peers
}

// Holder is the key of the member that has an address in a network now: packets
// from that address came from whoever holds it. While the network is being
// changed it waits, and says who has the address then; by that time the
// connections of who had it before have ended.
func (s *Switch) Holder(network string, at netip.Addr) (PublicKey, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.networks[network]; o != nil {
		for key, a := range o.members {
			if a == at {
				return key, true
			}
		}
	}
	return PublicKey{}, false
}
