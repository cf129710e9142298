package store

import "sync"

// bell wakes everybody who waits for it. The zero bell is ready.
type bell struct {
	mu sync.Mutex
	ch chan struct{}
}

// heard returns a channel that is closed at the next ring. Take it before
// looking at what the bell announces; then no ring is missed.
func (b *bell) heard() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}
