package disk

import "sync"

// flusher flushes folders. Those who wait for the same folder while it is
// being flushed share the next flush: the one under way may have begun before
// their rename.
type flusher struct {
	flush func(folder string) error

	mu   sync.Mutex
	busy map[string]*flush
}

// flush is one flush and the one after it.
type flush struct {
	done chan struct{}
	err  error
	next *flush // nil while nobody waits for it
}

// wait returns when folder has been flushed by a flush that began after the
// call.
func (f *flusher) wait(folder string) error {
	f.mu.Lock()
	now := f.busy[folder]
	if now == nil {
		mine := &flush{done: make(chan struct{})}
		if f.busy == nil {
			f.busy = map[string]*flush{}
		}
		f.busy[folder] = mine
		f.mu.Unlock()
		return f.run(folder, mine)
	}
	lead := now.next == nil
	if lead {
		now.next = &flush{done: make(chan struct{})}
	}
	mine := now.next
	f.mu.Unlock()
	if lead {
		<-now.done
		return f.run(folder, mine)
	}
	<-mine.done
	return mine.err
}

// run flushes for all that wait for mine, and hands over.
func (f *flusher) run(folder string, mine *flush) error {
	mine.err = f.flush(folder)
	f.mu.Lock()
	if mine.next == nil {
		delete(f.busy, folder)
	} else {
		f.busy[folder] = mine.next
	}
	f.mu.Unlock()
	close(mine.done)
	return mine.err
}
