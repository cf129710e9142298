package health

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"cove.example/cove/reason"
)

// connect opens a connection to a place and keeps the result under layer.
func (c *Check) connect(ctx context.Context, layer string, at place) (conn net.Conn, r Result) {
	r = c.timed(ctx, layer, at.host, func(ctx context.Context, r *Result) {
		var found Result
		conn, found = c.reach(ctx, at)
		r.take(found)
	})
	return conn, r
}

// reach opens a connection to a place: through the proxy, if there is one,
// else to each of its addresses at once. An address that does not answer is a
// failure even where another does: clients pick any.
func (c *Check) reach(ctx context.Context, at place) (net.Conn, Result) {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	if at.proxy != nil {
		return c.through(ctx, at)
	}
	type attempt struct {
		conn  net.Conn
		err   error
		after time.Duration
	}
	tried := make([]attempt, len(at.addrs))
	var all sync.WaitGroup
	var here netip.Addr
	all.Go(func() { here = c.source(ctx, at) })
	for i, a := range at.addrs {
		all.Go(func() {
			began := time.Now()
			conn, err := c.Way.Dial(ctx, "tcp", net.JoinHostPort(a.String(), at.port))
			tried[i] = attempt{conn, err, time.Since(began)}
		})
	}
	all.Wait()

	r := Result{Outcome: Passed}
	var first net.Conn
	var silent []netip.Addr
	for i, a := range at.addrs {
		switch x := tried[i]; {
		case x.err != nil:
			r.fail(pathCode(x.err), "%s:%s: %s", a, at.port, pathWords(x.err))
			if r.Code == reason.PathSilent {
				silent = append(silent, a)
			}
		case first == nil:
			first = x.conn
			if r.Outcome != Failed {
				r.Said = fmt.Sprintf("%s:%s TCP in %d ms", a, at.port, x.after.Milliseconds())
			}
		default:
			x.conn.Close()
		}
	}
	if len(silent) > 0 && r.Code == reason.PathSilent {
		r.Fix = letThrough(here, silent, at.port)
	}
	if first == nil || r.Outcome != Failed {
		return first, r
	}
	r.Evidence = append(r.Evidence, fmt.Sprintf("%s answers", first.RemoteAddr()))
	first.Close()
	return nil, r
}

// source is the address that connections to a place come from, the zero one
// where that is not known. Nothing is sent: the system only chooses.
func (c *Check) source(ctx context.Context, at place) netip.Addr {
	if len(at.addrs) == 0 {
		return netip.Addr{}
	}
	conn, err := c.Way.Dial(ctx, "udp", net.JoinHostPort(at.addrs[0].String(), at.port))
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	from, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap().WithZone("")
}

// letThrough says what a firewall on the way must let through for connections
// from here to addresses that do not answer; "" where here is not known.
func letThrough(here netip.Addr, to []netip.Addr, port string) string {
	if !here.IsValid() {
		return ""
	}
	ip, set := "ip", to[0].String()
	if to[0].Is6() {
		ip = "ip6"
	}
	if len(to) > 1 {
		set = "{ " + join(to) + " }"
	}
	return fmt.Sprintf("on the firewall between, let TCP from %s to %s port %s through, and the answers; in nftables: %s saddr %s %s daddr %s tcp dport %s accept", here, join(to), port, ip, here, ip, set, port)
}

func pathCode(err error) reason.Code {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return reason.PathRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return reason.NoRoute
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return reason.PathCut
	}
	return reason.PathSilent
}

func pathWords(err error) string {
	switch pathCode(err) {
	case reason.PathRefused:
		return "connection refused"
	case reason.NoRoute:
		return "no route"
	case reason.PathCut:
		return "the connection was cut"
	}
	if plain(err) == "no answer" || errors.Is(err, context.DeadlineExceeded) {
		return "no answer"
	}
	return plain(err)
}

// through opens a connection by the proxy.
func (c *Check) through(ctx context.Context, at place) (net.Conn, Result) {
	r := Result{Outcome: Passed}
	address := at.proxy.Host
	if at.proxy.Port() == "" {
		address += map[string]string{"https": ":443", "http": ":80"}[at.proxy.Scheme]
	}
	conn, err := c.Way.Dial(ctx, "tcp", address)
	if err != nil {
		r.fail(reason.ProxyAway, "the proxy %s: %s", address, pathWords(err))
		return nil, r
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			conn.Close()
			r.fail(reason.ProxyAway, "the proxy %s: %v", address, plain(err))
			return nil, r
		}
	}
	if at.proxy.Scheme == "https" {
		secure := tls.Client(conn, &tls.Config{ServerName: at.proxy.Hostname(), RootCAs: c.Way.Roots, MinVersion: tls.VersionTLS12})
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			r.fail(reason.ProxyCuts, "the proxy %s does not speak TLS with us: %s", address, plain(err))
			return nil, r
		}
		conn = secure
	}
	status, words, err := tunnel(conn, at.host+":"+at.port, at.proxy)
	switch {
	case err != nil:
		conn.Close()
		r.fail(reason.ProxyCuts, "the proxy %s closed the connection without an answer", address)
		return nil, r
	case status != http.StatusOK:
		conn.Close()
		r.fail(reason.ProxyRefuses, "the proxy %s answers %d to %s", address, status, at.host)
		if words != "" {
			r.Evidence = append(r.Evidence, "it says: "+words)
		}
		return nil, r
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		conn.Close()
		r.fail(reason.ProxyCuts, "the proxy %s: %v", address, plain(err))
		return nil, r
	}
	r.Said = "through the proxy " + address
	return conn, r
}

// tunnel asks the proxy for a connection. Of its own words the first line is
// kept.
func tunnel(conn net.Conn, to string, proxy *url.URL) (status int, words string, err error) {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: to}, Host: to, Header: http.Header{}}
	if u := proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return 0, "", err
	}
	// One byte at a time: what follows the header belongs to the tunnel.
	resp, err := http.ReadResponse(bufio.NewReaderSize(&byByte{conn, maxHeader}, 16), req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return resp.StatusCode, "", nil
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 512))
	if err != nil {
		b = nil // the status says enough
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return resp.StatusCode, line, nil
}

const maxHeader = 16 << 10

// byByte reads one byte at a time, and no more than left.
type byByte struct {
	r    io.Reader
	left int
}

func (b *byByte) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errors.New("the proxy's answer is too long")
	}
	if len(p) > 1 {
		p = p[:1]
	}
	n, err := b.r.Read(p)
	b.left -= n
	return n, err
}

// secure agrees on TLS over a connection, and has the engines of this machine
// judge the certificate as well.
func (c *Check) secure(ctx context.Context, at place, conn net.Conn) Result {
	var t *tls.Conn
	r := c.timed(ctx, LayerTLS, at.host, func(ctx context.Context, r *Result) {
		var found Result
		found, t = c.shake(ctx, at, conn)
		r.take(found)
	})
	if r.Code == reason.CertificateTime {
		// Which of the two clocks is wrong is what people want to know next.
		if date := dateOf(t, at.host); date != "" {
			c.clock(ctx, date)
		}
	}
	if t != nil && c.Way.Trusts != nil && r.Outcome != Failed {
		for _, x := range c.Way.Trusts(at.named(), t.ConnectionState().PeerCertificates, c.Way.Now()) {
			c.add(x)
		}
	}
	return r
}

// dateOf asks a server that is not trusted for the time, "" if it has none to
// tell. Nothing secret goes there.
func dateOf(t *tls.Conn, host string) string {
	req := &http.Request{Method: http.MethodHead, URL: &url.URL{Path: "/v2/"}, Host: host, Header: http.Header{}}
	if t.SetDeadline(time.Now().Add(Patience)) != nil || req.Write(t) != nil {
		return ""
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(t, maxHeader)), req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	return resp.Header.Get("Date")
}

// shake agrees on TLS and judges the certificate by hand, so that what is
// wrong with it can be told apart. The connection is nil where there was no
// agreement.
func (c *Check) shake(ctx context.Context, at place, conn net.Conn) (Result, *tls.Conn) {
	r := Result{Outcome: Passed}
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	t := tls.Client(conn, &tls.Config{
		ServerName: at.host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		// judgeChain verifies below. Nothing is sent over this connection.
		InsecureSkipVerify: true,
	})
	first := ctx
	if deadline, ok := ctx.Deadline(); ok && c.Way.Small != nil {
		var end context.CancelFunc
		first, end = context.WithDeadline(ctx, deadline.Add(-secondTry))
		defer end()
	}
	if err := t.HandshakeContext(first); err != nil {
		alert, other := tls.AlertError(0), tls.RecordHeaderError{}
		switch {
		case errors.As(err, &other):
			r.fail(reason.NotTLS, "%s:%s answers in something else than TLS", at.host, at.port)
		case errors.As(err, &alert):
			r.fail(reason.PathCut, "%s refuses the name in TLS: %v", at.host, alert)
		case plain(err) == "no answer":
			r.fail(reason.PathStalls, "%s: TCP connects and TLS gets no answer", at.host)
			c.smaller(ctx, at, &r)
		default:
			r.fail(reason.PathCut, "the connection to %s was cut before TLS was agreed on", at.host)
		}
		return r, nil
	}
	return judgeChain(at, c.instead(at.host), t.ConnectionState(), c.Way.Roots, c.Way.Now()), t
}

// judgeChain says whether a client of this machine trusts what the server
// showed.
func judgeChain(at place, instead string, cs tls.ConnectionState, roots *x509.CertPool, now time.Time) Result {
	r := Result{Outcome: Passed}
	leaf := cs.PeerCertificates[0]
	opts := x509.VerifyOptions{DNSName: at.host, Roots: roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, cert := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := leaf.Verify(opts)
	if err == nil {
		r.Said = fmt.Sprintf("%s, trusted, valid %s more", tls.VersionName(cs.Version), days(leaf.NotAfter.Sub(now)))
		return r
	}
	issuer := leaf.Issuer.String()
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case isPrivateName(at.host):
		r.fail(reason.PrivateName, "%s is an alias for resolvers; no certificate has it", at.host)
		r.Fix = "ask for " + instead
	case errors.As(err, &name):
		r.fail(reason.CertificateName, "the certificate is for %s", strings.Join(clip(leaf.DNSNames, 4), ", "))
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		r.fail(reason.CertificateTime, "the certificate is good from %s to %s; it is %s here", day(leaf.NotBefore), day(leaf.NotAfter), now.UTC().Format(time.DateTime))
	case errors.As(err, &unknown) && len(cs.PeerCertificates) == 1 && leaf.Issuer.String() != leaf.Subject.String() && !isPrivateIssuer(leaf):
		r.fail(reason.ChainIncomplete, "the server sends 1 certificate, signed by %s, and not the signer's", issuer)
	default:
		r.fail(reason.AuthorityUnknown, "the certificate is signed by %s, which this machine does not trust", issuer)
	}
	r.Evidence = append(r.Evidence, "issuer: "+issuer, "names: "+strings.Join(clip(leaf.DNSNames, 8), ", "))
	if at.proxy != nil {
		r.Evidence = append(r.Evidence, "seen through the proxy "+at.proxy.Host)
	}
	return r
}

// isPrivateIssuer holds for a certificate that says nowhere where its signer's
// can be had: an authority of one's own, whose certificate is never sent.
func isPrivateIssuer(c *x509.Certificate) bool { return len(c.IssuingCertificateURL) == 0 }

func clip(s []string, n int) []string {
	if len(s) > n {
		return append(s[:n:n], fmt.Sprintf("and %d more", len(s)-n))
	}
	return s
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// minutes is a duration without the seconds.
func minutes(d time.Duration) string {
	if d < time.Minute {
		return "under a minute"
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

func days(d time.Duration) string {
	if d < 48*time.Hour {
		return minutes(d)
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}
