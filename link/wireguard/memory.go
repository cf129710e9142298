package wireguard

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	memoryFile = "wireguard-peers.json"
	// 64 MiB is half a million peers.
	maxMemory = 64 << 20
	// saveEvery is how old what is on disk may be. After a crash a peer that
	// has moved since is not called, and calls us itself within half a minute.
	saveEvery = time.Second
)

// memory is where each peer of each network was last heard. It is a hint: lost
// or wrong, it costs a member the time until its own client notices.
type memory struct {
	root  *os.Root
	mu    sync.Mutex
	peers map[string]map[PublicKey]netip.AddrPort
	saved map[string]map[PublicKey]netip.AddrPort
}

// recall always returns a memory, empty if what is on disk cannot be read.
func recall(root *os.Root) (*memory, error) {
	m := &memory{root: root, peers: map[string]map[PublicKey]netip.AddrPort{}}
	if root == nil {
		return m, nil
	}
	f, err := root.Open(memoryFile)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMemory))
	if err != nil {
		return m, err
	}
	var file map[string]map[string]netip.AddrPort
	if err := json.Unmarshal(b, &file); err != nil {
		return m, fmt.Errorf("%s: %w", memoryFile, err)
	}
	for network, peers := range file {
		for text, at := range peers {
			key, err := ParsePublicKey(text)
			if err != nil || !at.IsValid() || at.Port() == 0 {
				return m, fmt.Errorf("%s: network %s has an entry that is no key and address", memoryFile, network)
			}
			m.note(network, key, at)
		}
	}
	m.saved = m.copy()
	return m, nil
}

func (m *memory) endpoint(network string, key PublicKey) netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peers[network][key]
}

func (m *memory) note(network string, key PublicKey, at netip.AddrPort) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.peers[network] == nil {
		m.peers[network] = map[PublicKey]netip.AddrPort{}
	}
	m.peers[network][key] = at
}

func (m *memory) drop(network string, key PublicKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.peers[network], key)
}

func (m *memory) forget(network string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.peers, network)
}

func (m *memory) copy() map[string]map[PublicKey]netip.AddrPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := maps.Clone(m.peers)
	for network, peers := range c {
		c[network] = maps.Clone(peers)
	}
	return c
}

// save writes the file if it would say something new. The rename makes it whole
// or absent for the next process; a power cut may leave an older one, or one
// that does not parse and is ignored. Only one goroutine calls it at a time.
func (m *memory) save() error {
	now := m.copy()
	if m.root == nil || maps.EqualFunc(now, m.saved, maps.Equal[map[PublicKey]netip.AddrPort, map[PublicKey]netip.AddrPort]) {
		return nil
	}
	file := map[string]map[string]netip.AddrPort{}
	for network, peers := range now {
		file[network] = map[string]netip.AddrPort{}
		for key, at := range peers {
			file[network][key.String()] = at
		}
	}
	b, err := json.Marshal(file)
	if err != nil {
		return err
	}
	const next = memoryFile + ".next"
	if err := m.root.WriteFile(next, b, 0o600); err != nil {
		return fmt.Errorf("remember WireGuard peers: %w", err)
	}
	if err := m.root.Rename(next, memoryFile); err != nil {
		return fmt.Errorf("remember WireGuard peers: %w", err)
	}
	m.saved = now
	return nil
}

// wake tells remember that a peer may have moved.
func (s *Switch) wake() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// remember saves where peers are, saveEvery after one has moved: by then its
// device has judged the packet that said so.
func (s *Switch) remember() {
	for {
		select {
		case <-s.stop:
			return
		case <-s.kick:
		}
		select {
		case <-s.stop:
			return
		case <-time.After(saveEvery):
		}
		s.mu.Lock()
		if !s.closed {
			if err := s.save(false); err != nil {
				s.log.Warn("peers' addresses are not saved; after a restart they must call us", "err", err)
			}
		}
		s.mu.Unlock()
	}
}

// save asks the devices of networks in which somebody may have moved, or all.
// s.mu is held.
func (s *Switch) save(all bool) error {
	for name, o := range s.networks {
		if moved := o.port.dirty.Swap(false); !moved && !all {
			continue
		}
		for _, p := range o.status() {
			if p.Endpoint.IsValid() {
				s.memory.note(name, p.PublicKey, p.Endpoint)
			}
		}
	}
	return s.memory.save()
}
