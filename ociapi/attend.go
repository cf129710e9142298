package ociapi

import (
	"cmp"
	"context"
	"net/http"
	"slices"
	"sync"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/reason"
)

// lasting are the calls whose bytes may take hours to pass.
var lasting = []Kind{BlobGet, UploadWhole, UploadAppend, UploadFinish}

// attendEvery is how often a transfer that is under way is decided again. What
// is taken away ends it within ten seconds.
const attendEvery = 5 * time.Second

// attendance decides about a transfer again and again until its end.
type attendance struct {
	s   *Server
	x   *exchange
	ask access.Ask

	mu    sync.Mutex // the handler's end and a look exclude each other
	over  bool
	timer *time.Timer
	cut   *access.Verdict // what ended the transfer
}

// attend has a transfer decided again while it lasts. end is called when the
// handler has returned; after it nothing touches the connection, which may be
// another request's.
func (s *Server) attend(x *exchange, ask access.Ask) (end func()) {
	if !slices.Contains(lasting, x.call.Kind) {
		return func() {}
	}
	a := &attendance{s: s, x: x, ask: ask}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.timer = time.AfterFunc(cmp.Or(s.Attend, attendEvery), a.look)
	return a.end
}

func (a *attendance) look() {
	// Whoever leaves meanwhile must not make a failure of it.
	v := a.s.Guard.Check(context.WithoutCancel(a.x.r.Context()), a.ask)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.over:
	case v.Allow || !takenAway(v):
		a.timer.Reset(cmp.Or(a.s.Attend, attendEvery))
	default:
		a.over, a.cut = true, &v
		c := http.NewResponseController(a.x.w)
		// The answer has begun: all that can be said is that it does not end.
		_ = c.SetWriteDeadline(time.Unix(1, 0)) // a connection that takes none is over with the transfer
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

func (a *attendance) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
	a.timer.Stop()
	if a.cut != nil {
		a.cut.Identity = a.x.ev.verdict.Identity // whose transfer it was
		a.x.ev.verdict = *a.cut
	}
}

// takenAway tells a no that somebody has brought about from one that time has:
// what was good when a transfer began is good for the whole of it. Who cannot
// be asked about is not cut off either.
func takenAway(v access.Verdict) bool {
	switch reason.Code(v.Reason) {
	case reason.TokenExpired, reason.SecretExpired, reason.LinkExpired:
		return false
	}
	return v.Refusal == access.Network || v.Refusal == access.Unauthenticated || v.Refusal == access.Permission
}
