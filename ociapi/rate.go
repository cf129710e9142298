package ociapi

import (
	"net/http"
	"strconv"
	"time"

	"cove.example/cove/access"
)

// category is the rate limit that a call counts under; a list of referrers
// counts as a read as well.
func (x *exchange) category() access.Category {
	switch x.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return access.DataplaneRead
	case http.MethodDelete:
		return access.DataplaneDelete
	}
	return access.DataplaneWrite
}

// limit counts a call that the guard has allowed, and refuses it where the
// registry or the identity has had its share of the minute. The network's
// answer and the credential's come before it.
func (s *Server) limit(x *exchange, v access.Verdict) error {
	if s.Rates == nil {
		return nil
	}
	if x.call.Kind == Referrers {
		if err := s.spend(x, s.Rates.Take(v.Registry, v.Identity, access.ListReferrers, x.ev.Time)); err != nil {
			return err
		}
	}
	return s.spend(x, s.Rates.Take(v.Registry, v.Identity, x.category(), x.ev.Time))
}

// spend turns what is left into the answer's headers, or into its refusal.
func (s *Server) spend(x *exchange, left access.Left) error {
	if left.Wait == 0 {
		return nil
	}
	x.ev.verdict = x.ev.verdict.Throttled(left)
	return x.ev.verdict.Err()
}

// remaining says how many calls of a minute are left, by the second, as the
// service does that clients were written against.
func (x *exchange) remaining(left access.Left) {
	x.w.Header().Set("X-Ms-Ratelimit-Remaining-Calls-Per-Second", strconv.FormatFloat(max(0, left.Requests)/60, 'f', 6, 64))
}

// after is Retry-After: whole seconds, and at least one.
func after(wait time.Duration) string {
	return strconv.Itoa(max(1, int((wait+time.Second-1)/time.Second)))
}
