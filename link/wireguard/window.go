package wireguard

import (
	"sync"
	"time"
)

// window holds back what waits for a device while the device has enough. It has
// a buffer of 64 KiB for each packet that is under way in it, and uses all of
// those that it ever needed in turn: one burst, and from then on every packet
// is written to memory that no cache holds, for an eighth of an upload's cost.
// What waits meanwhile lies in the inbox, packed, and bounded there.
//
// The device does not say which packets it drops: forged ones, repeated ones,
// those with another's source. So a window from which nothing leaves for a
// while is taken to be empty. Who fills it with such packets, and they need a
// member's key or must hear its datagrams, delays this network by windowPause
// for each windowSize of them: that leaves it 64,000 packets a second.
type window struct {
	mu     sync.Mutex
	inside int
	waits  bool          // somebody, in enter
	room   chan struct{} // tells it to look again
	pause  *time.Timer   // of enter, whose caller is one goroutine
}

const (
	windowSize = 64 // keeps workers on several processors busy
	// windowPause is much longer than the device takes for a window.
	windowPause = time.Millisecond
)

func newWindow() *window {
	w := &window{room: make(chan struct{}, 1), pause: time.NewTimer(0)}
	w.pause.Stop()
	return w
}

// wait returns when there is room. It returns within windowPause.
func (w *window) wait() {
	if !w.full() {
		return
	}
	w.pause.Reset(windowPause)
	defer w.pause.Stop()
	for w.full() {
		select {
		case <-w.room:
		case <-w.pause.C:
			w.leave(2 * windowSize) // more than ever is inside
		}
	}
}

func (w *window) full() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits = w.inside >= windowSize
	return w.waits
}

// enter is called for packets given to the device that it passes on if they
// are good.
func (w *window) enter(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inside += n
}

// leave is called for packets that the device has passed on.
func (w *window) leave(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inside = max(0, w.inside-n)
	if w.waits && w.inside < windowSize {
		w.waits = false
		select {
		case w.room <- struct{}{}:
		default: // nobody has come for the last one: who waited has given up
		}
	}
}
