package dnsapi

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

// A server cookie comes back only from an address that we have answered
// (RFC 7873), so who has one is no victim of somebody else's questions, and is
// not limited. It is laid out as RFC 9018 says, but for the hash: no other
// server has to understand it.
const (
	clientCookie  = 8
	serverCookie  = 16
	cookieVersion = 1
	// RFC 9018, 4.3.
	cookieLife  = time.Hour
	cookieEarly = 5 * time.Minute
)

// cookies makes and knows server cookies. The secret is this process's: after
// a restart askers are strangers for one question.
type cookies struct{ secret [32]byte }

func newCookies() *cookies {
	c := new(cookies)
	rand.Read(c.secret[:]) // never fails
	return c
}

// server is the server cookie of a client cookie and an address, made at a
// time.
func (c *cookies) server(client []byte, from netip.Addr, at uint32) (out [serverCookie]byte) {
	out[0] = cookieVersion
	binary.BigEndian.PutUint32(out[4:], at)
	mac := hmac.New(sha256.New, c.secret[:])
	mac.Write(client)
	mac.Write(out[:8])
	address := from.Unmap().As16()
	mac.Write(address[:])
	copy(out[8:], mac.Sum(nil))
	return out
}

// proves reports whether a cookie, client's and server's part together, is one
// that we gave to this address.
func (c *cookies) proves(cookie []byte, from netip.Addr, now time.Time) bool {
	if len(cookie) != clientCookie+serverCookie {
		return false
	}
	at := binary.BigEndian.Uint32(cookie[clientCookie+4:])
	// Seconds of a clock that wraps in 2106 (RFC 1982).
	if age := time.Duration(int32(uint32(now.Unix())-at)) * time.Second; age > cookieLife || age < -cookieEarly {
		return false
	}
	want := c.server(cookie[:clientCookie], from, at)
	return hmac.Equal(want[:], cookie[clientCookie:])
}

// cookieOf is the cookie of a question, nil where it has none. ok is false
// where it has one of a length that none has (RFC 7873, 5.2.2).
func cookieOf(q *dns.Msg) (cookie []byte, ok bool) {
	o := q.IsEdns0()
	if o == nil {
		return nil, true
	}
	for _, option := range o.Option {
		e, is := option.(*dns.EDNS0_COOKIE)
		if !is {
			continue
		}
		cookie, err := hex.DecodeString(e.Cookie)
		if err != nil || len(cookie) != clientCookie && (len(cookie) < clientCookie+8 || len(cookie) > clientCookie+32) {
			return nil, false
		}
		return cookie, true
	}
	return nil, true
}

// proven reports whether a packet comes from where it says.
func (v *served) proven(wire []byte, from netip.Addr) bool {
	if end := questionEnd(wire); end < 0 || len(wire) > maxQuery || end == len(wire) {
		return false // no question, or one without options
	}
	q := new(dns.Msg)
	if q.Unpack(wire) != nil {
		return false
	}
	cookie, ok := cookieOf(q)
	return ok && v.cookies.proves(cookie, from, v.Now())
}

// give puts a fresh server cookie into an answer to a question that had a
// cookie.
func (v *served) give(m *dns.Msg, cookie []byte, from netip.Addr) {
	if cookie == nil {
		return
	}
	fresh := v.cookies.server(cookie[:clientCookie], from, uint32(v.Now().Unix()))
	o := m.IsEdns0()
	o.Option = append(o.Option, &dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: hex.EncodeToString(cookie[:clientCookie]) + hex.EncodeToString(fresh[:])})
}
