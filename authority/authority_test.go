package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clock is a time that the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func open(t *testing.T, dir string, c *clock) *Authority {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	a, err := Open(root, c.now)
	if err != nil {
		t.Fatal(err)
	}
	a.Serves = func(_ context.Context, name string) (bool, error) {
		return strings.HasSuffix(name, ".cove.internal"), nil
	}
	return a
}

// serve answers TLS on loopback until the test ends.
func serve(t *testing.T, a *Authority) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", a.TLS())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.WriteString(c, "hello")
				c.Close()
			}()
		}
	}()
	return l.Addr().String()
}

func dial(a *Authority, c *clock, addr string, conf *tls.Config) (*x509.Certificate, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.PEM())
	conf.RootCAs, conf.Time = roots, c.now
	conn, err := tls.Dial("tcp", addr, conf)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if _, err := io.ReadAll(conn); err != nil {
		return nil, err
	}
	return conn.ConnectionState().PeerCertificates[0], nil
}

func TestALeafIsMadeForOurNamesAndRefusedForOthers(t *testing.T) {
	c := &clock{time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	a := open(t, t.TempDir(), c)
	addr := serve(t, a)
	for name, want := range map[string]bool{
		"myregistry.cr.cove.internal": true,
		"MyRegistry.cr.cove.internal": true,
		"somebody.else":               false,
		"":                            false,
	} {
		_, err := dial(a, c, addr, &tls.Config{ServerName: name, InsecureSkipVerify: name == ""})
		if (err == nil) != want {
			t.Errorf("handshake for %q: %v, want success %v", name, err, want)
		}
	}
}

// What a client says of a name that is not ours, and of a registry's private
// name, tells which mistake it was.
func TestRefusalsNameTheMistake(t *testing.T) {
	c := &clock{time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	a := open(t, t.TempDir(), c)
	addr := serve(t, a)
	for name, want := range map[string]string{
		"somebody.else":                                       "remote error: tls: unrecognized name",
		"somebody.privatelink.else":                           "remote error: tls: unrecognized name",
		"myregistry.privatelink.cr.cove.internal":             "certificate is valid for myregistry.cr.cove.internal, not myregistry.privatelink.cr.cove.internal",
		"myregistry.eastus.data.privatelink.cr.cove.internal": "certificate is valid for myregistry.eastus.data.cr.cove.internal, not ",
	} {
		if _, err := dial(a, c, addr, &tls.Config{ServerName: name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

func TestALeafIsKeptAndRenewedBeforeItEnds(t *testing.T) {
	c := &clock{time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	a := open(t, t.TempDir(), c)
	addr := serve(t, a)
	conf := func() *tls.Config { return &tls.Config{ServerName: "login.cove.internal"} }
	first, err := dial(a, c, addr, conf())
	if err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(50 * 24 * time.Hour)
	same, err := dial(a, c, addr, conf())
	if err != nil {
		t.Fatal(err)
	}
	if same.SerialNumber.Cmp(first.SerialNumber) != 0 {
		t.Error("a leaf with 40 days to go was made anew")
	}
	c.t = c.t.Add(15 * 24 * time.Hour)
	fresh, err := dial(a, c, addr, conf())
	if err != nil {
		t.Fatal(err)
	}
	if fresh.SerialNumber.Cmp(first.SerialNumber) == 0 {
		t.Error("a leaf with 25 days to go was not renewed")
	}
}

func TestTheAuthorityStaysTheSameOverARestart(t *testing.T) {
	c := &clock{time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)}
	dir := t.TempDir()
	first := open(t, dir, c)
	again := open(t, dir, c)
	if first.Fingerprint() != again.Fingerprint() || string(first.PEM()) != string(again.PEM()) {
		t.Error("a second start has another authority")
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key: %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(filepath.Join(dir, "ca.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Open(root, c.now); err == nil || !strings.Contains(err.Error(), "ca.key can be read by others") {
		t.Errorf("a key that everybody may read: %v", err)
	}
}

// TLS 1.0 and 1.1 and suites without forward secrecy are refused
// (docs/published-failures.md, failure 46).
//
// Published failure 46.
func TestOldTLSIsRefused(t *testing.T) {
	c := &clock{time.Now()}
	a := open(t, t.TempDir(), c)
	addr := serve(t, a)
	for _, conf := range []*tls.Config{
		{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10},
		{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}},
		{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
	} {
		conf.ServerName = "login.cove.internal"
		if _, err := dial(a, c, addr, conf); err == nil {
			t.Errorf("a handshake of %x with %x succeeded", conf.MaxVersion, conf.CipherSuites)
		}
	}
	if _, err := dial(a, c, addr, &tls.Config{ServerName: "login.cove.internal", MaxVersion: tls.VersionTLS12}); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
}

func TestAnOperatorsCertificateIsServedAndExchanged(t *testing.T) {
	c := &clock{time.Now()}
	a := open(t, t.TempDir(), c)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	write := func(serial int64, at time.Time) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "ours"}, NotBefore: c.t.Add(-time.Hour), NotAfter: c.t.Add(24 * time.Hour), DNSNames: []string{"*.cr.cove.internal"}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, a.root, key.Public(), a.key)
		if err != nil {
			t.Fatal(err)
		}
		keyDER, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		for name, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
			if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(name, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(101, c.t.Add(-time.Minute))
	op, err := OpenOperator(certFile, keyFile, c.now)
	if err != nil {
		t.Fatal(err)
	}
	a.Operator = op
	addr := serve(t, a)
	got := func(name string) int64 {
		t.Helper()
		leaf, err := dial(a, c, addr, &tls.Config{ServerName: name})
		if err != nil {
			t.Fatal(err)
		}
		if !leaf.SerialNumber.IsInt64() {
			return 0
		}
		return leaf.SerialNumber.Int64()
	}
	if s := got("myregistry.cr.cove.internal"); s != 101 {
		t.Errorf("serial %d, want the operator's 101", s)
	}
	if s := got("login.cove.internal"); s != 0 {
		t.Error("the operator's certificate was served for a name that it does not cover")
	}
	write(102, c.t)
	c.t = c.t.Add(11 * time.Second)
	if s := got("myregistry.cr.cove.internal"); s != 102 {
		t.Errorf("serial %d, want the exchanged 102", s)
	}
	if err := os.WriteFile(certFile, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(11 * time.Second)
	if s := got("myregistry.cr.cove.internal"); s != 102 {
		t.Errorf("serial %d: a broken file took the certificate away", s)
	}
	if op.Failed() == nil {
		t.Error("nobody is told that the new file cannot be read")
	}
}

func TestAConnectionWithoutANameLearnsNothing(t *testing.T) {
	c := &clock{time.Now()}
	a := open(t, t.TempDir(), c)
	conn, err := net.Dial("tcp", serve(t, a))
	if err != nil {
		t.Fatal(err)
	}
	tc := tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	defer tc.Close()
	if err := tc.Handshake(); err == nil {
		t.Errorf("handshake without a name got a certificate for %v", tc.ConnectionState().PeerCertificates[0].DNSNames)
	}
}
