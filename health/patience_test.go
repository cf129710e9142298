package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections have no wire: they are as quick as a
// bubble's clock allows.
type pipes struct {
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accept:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// far is a registry of three regions behind a network in which every exchange
// takes time, and one of them for ever.
type far struct {
	lab   *lab
	hangs string
	takes time.Duration
}

// waits is how long a stage takes, up to when the other side has gone.
func (f *far) waits(ctx context.Context, stage string) error {
	t := time.NewTimer(f.takes)
	defer t.Stop()
	until := t.C
	if f.hangs != "" && strings.Contains(stage, f.hangs) {
		until = nil
	}
	select {
	case <-until:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var farRegions = []string{"eu.example.com", "us.example.com", "ap.example.com"}

// check runs one, inside a bubble.
func (f *far) check(t *testing.T, cert tls.Certificate, roots *x509.CertPool) Report {
	l := f.lab
	at := &pipes{accept: make(chan net.Conn), closed: make(chan struct{})}
	serve := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(r.Host, ":")
		if f.waits(r.Context(), "request "+name+r.URL.Path) != nil {
			return
		}
		if name != registryName {
			w.Write(l.layer)
			return
		}
		if strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Authorization") != "" {
			http.Redirect(w, r, "https://"+farRegions[0]+"/x?sig=1", http.StatusTemporaryRedirect)
			return
		}
		l.serve(w, r)
	})
	s := &http.Server{Handler: serve, ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(tls.NewListener(at, &tls.Config{Certificates: []tls.Certificate{cert}}))
	defer s.Close()
	var mu sync.Mutex
	var mute []net.Conn
	defer func() {
		for _, c := range mute {
			c.Close()
		}
	}()
	c, err := New(
		Target{Host: registryName, Repository: "team/app", Reference: "1", DataHosts: farRegions, Credential: Credential{User: "me", Password: "pa55-w0rd"}},
		Way{
			Roots: roots,
			Lookup: func(ctx context.Context, host string) (Answer, error) {
				return Answer{Addrs: []netip.Addr{here}}, f.waits(ctx, "lookup "+host)
			},
			Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
				if err := f.waits(ctx, "dial "+address); err != nil {
					return nil, err
				}
				near, other := net.Pipe()
				if f.hangs == "tls" {
					mu.Lock()
					defer mu.Unlock()
					mute = append(mute, near, other)
					return near, nil
				}
				select {
				case at.accept <- other:
				case <-at.closed:
				}
				return near, nil
			},
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	return c.Run(t.Context())
}

// A layer that is not well waits five seconds and no more, whatever it is that
// hangs, and how many requests it takes; and a registry of three regions, a
// tenth of a second away, is checked in under three. The clock is the bubble's.
func TestNoLayerWaitsLonger(t *testing.T) {
	pki := httptest.NewUnstartedServer(nil)
	pki.StartTLS()
	cert, root := pki.TLS.Certificates[0], pki.Certificate()
	pki.Close()
	roots := x509.NewCertPool()
	roots.AddCert(root)
	l := newLab(t)
	for _, x := range []struct{ hangs, layer string }{
		{"", ""},
		{"lookup example.com", LayerName},
		{"dial", LayerConnect},
		{"tls", LayerTLS},
		{"request example.com/v2/", LayerChallenge},
		{"/token", LayerSignIn},
		{"/manifests/", LayerManifest},
		{"/blobs/", LayerBlob},
		{"/x", LayerBlob},
		{"lookup us.", LayerData},
		{"ap.example.com/x", LayerBlob},
	} {
		t.Run("hangs at "+x.hangs, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &far{lab: l, hangs: x.hangs, takes: 100 * time.Millisecond}
				r := f.check(t, cert, roots)
				failed := false
				for _, one := range r.Results {
					if one.Millis > Patience.Milliseconds() {
						t.Errorf("%s %s waited %d ms", one.Layer, one.Subject, one.Millis)
					}
					failed = failed || one.Layer == x.layer && one.Outcome == Failed && one.Millis >= 3900
				}
				if x.hangs == "" && (!r.Good() || r.Millis >= 3000 || len(r.Results) != 14) {
					t.Errorf("all is well: %d results after %d ms: %+v", len(r.Results), r.Millis, r.Results)
				}
				if x.hangs != "" && !failed {
					t.Errorf("nothing at the %s waited: %+v", x.layer, r.Results)
				}
				if r.Millis > 2*Patience.Milliseconds()+1000 { // the nearest region, then the others at once
					t.Errorf("the whole check took %d ms", r.Millis)
				}
			})
		})
	}
}
