package link

import (
	"net"
	"sync"
)

// Set is the connections that are open, so that those whose way in has gone
// can be ended at once. Its zero value is empty.
type Set struct {
	mu   sync.Mutex
	live map[*counted]struct{}
}

// counted is a connection of a Set. Embedding the TCP connection itself keeps
// what net/http looks for in it: sendfile above all.
type counted struct {
	*net.TCPConn
	set    *Set
	origin Origin
}

// Add takes in a connection, which leaves the set when it is closed.
func (s *Set) Add(c *net.TCPConn, o Origin) *Conn {
	k := &counted{c, s, o}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = map[*counted]struct{}{}
	}
	s.live[k] = struct{}{}
	return &Conn{Conn: k, Origin: o}
}

// Close closes the connection.
func (c *counted) Close() error {
	c.set.mu.Lock()
	delete(c.set.live, c)
	c.set.mu.Unlock()
	return c.TCPConn.Close()
}

// Reset ends the connections that have lost their way in, with what is under
// way on them.
func (s *Set) Reset(lost func(Origin) bool) {
	var gone []*counted
	s.mu.Lock()
	for c := range s.live {
		if lost(c.origin) {
			gone = append(gone, c)
		}
	}
	s.mu.Unlock()
	for _, c := range gone {
		Abort(c.TCPConn)
	}
}

// Len is how many are open.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.live)
}

// Abort closes a connection so that its peer knows at once, and what has not
// been sent is not sent any more.
func Abort(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
