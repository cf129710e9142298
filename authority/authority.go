// Package authority is cove's own certificate authority: one root that
// clients are told to trust, and leaf certificates made when a name is asked
// for, of names that this server has and no others.
//
// An operator's own certificate may stand in front of it for the names that it
// covers. Both are exchanged while the server runs.
package authority

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"os"
	"strings"
	"sync"
	"time"

	"cove.example/cove/fault"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// leafLife is short enough that a leaf of a deleted registry is soon
	// worth nothing, and under the limit of 398 days that clients enforce.
	leafLife = 90 * 24 * time.Hour
	// renewAt is the rest of its life at which a leaf is made anew.
	renewAt = leafLife / 3
	// backdate forgives clients whose clocks are slow, and rootBackdate a
	// server whose own clock is set right after its first start: every leaf
	// would be outside the root's life.
	backdate     = time.Hour
	rootBackdate = 24 * time.Hour
	// maxLeaves bounds the cache; a name that is asked for again is made again.
	maxLeaves = 4096
	maxFile   = 1 << 20
)

// ErrNotServed is the failure of a handshake for a name that is not ours.
var ErrNotServed = fault.New(fault.NotFound, "this server does not serve that name")

// Authority signs leaf certificates for the names that Serves admits.
type Authority struct {
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte

	// Serves says whether name (lower case, no trailing dot) is one of the
	// server's. It is asked at each handshake, also for cached leaves, so
	// that a deleted registry's name is refused at once. Where it fails, a
	// name that has a leaf keeps it: the answer to the request says more than
	// a handshake that breaks off.
	Serves func(ctx context.Context, name string) (bool, error)
	// Now is the clock.
	Now func() time.Time
	// Operator, if not nil, is asked first.
	Operator *Operator

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// Open reads the root from ca.pem and ca.key below dir, or makes it there on
// the first start. The key has mode 0600; one that others may read is refused.
func Open(dir *os.Root, now func() time.Time) (*Authority, error) {
	certPEM, err := readFile(dir, "ca.pem")
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, now)
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	info, err := dir.Stat("ca.key")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Newf(fault.Invalid, "there is a ca.pem without its ca.key: put ca.key back from a backup, or move ca.pem away to have a new authority made, which every client must then be told to trust")
	}
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority's key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.Newf(fault.Invalid, "ca.key can be read by others (mode %04o): set it to 0600", info.Mode().Perm())
	}
	keyPEM, err := readFile(dir, "ca.key")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fault.Newf(fault.Invalid, "ca.pem and ca.key are damaged or do not belong together (%v): put both back from a backup, or move both away to have a new authority made, which every client must then be told to trust", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fault.Newf(fault.Invalid, "ca.pem is not a certificate authority with an ECDSA key")
	}
	if now().After(pair.Leaf.NotAfter) {
		return nil, fault.Newf(fault.Invalid, "the certificate authority in ca.pem ended on %s: move ca.pem and ca.key away to have a new one made", pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	return &Authority{root: pair.Leaf, key: key, pem: certPEM, Now: now, leaves: map[string]*tls.Certificate{}}, nil
}

func create(dir *os.Root, now func() time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial := serialNumber()
	t := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "cove certificate authority " + hex.EncodeToString(serial.Bytes()[:4]), Organization: []string{"cove"}},
		NotBefore:             now().Add(-rootBackdate),
		NotAfter:              now().Add(rootLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	// The key first: a crash between the two leaves a key that the next
	// start replaces, never a certificate without its key.
	if err := writeFile(dir, "ca.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(dir, "ca.pem", certPEM, 0o644); err != nil {
		return nil, err
	}
	return &Authority{root: root, key: key, pem: certPEM, Now: now, leaves: map[string]*tls.Certificate{}}, nil
}

// PEM is the root's certificate, for clients to trust.
func (a *Authority) PEM() []byte { return a.pem }

// Fingerprint is the SHA-256 of the root's certificate in hexadecimal; a join
// code carries it so that a new member need trust nothing else.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.root.Raw)
	return hex.EncodeToString(sum[:])
}

// GetCertificate is for tls.Config. A handshake without a server name, or for
// a name that is not ours, fails: who connects to an address learns no name.
//
// A name in a private zone is an alias for resolvers alone. Who asks for it is
// shown the certificate of the name that it stands for: the client refuses it,
// and says which name it is valid for.
func (a *Authority) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := strings.ToLower(hello.ServerName)
	if name == "" || strings.HasSuffix(name, ".") || len(name) > 253 {
		return nil, ErrNotServed
	}
	name = strings.Replace(name, ".privatelink.", ".", 1)
	ctx := hello.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ours, err := a.Serves(ctx, name)
	if err != nil && !a.known(name) {
		return nil, err
	}
	if err == nil && !ours {
		return nil, ErrNotServed
	}
	if a.Operator != nil {
		if c := a.Operator.certificate(name); c != nil {
			return c, nil
		}
	}
	return a.leaf(name)
}

// known reports whether name has had a leaf of this process.
func (a *Authority) known(name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leaves[name] != nil
}

func (a *Authority) leaf(name string) (*tls.Certificate, error) {
	now := a.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.leaves[name]; c != nil && now.Before(c.Leaf.NotAfter.Add(-renewAt)) && !now.Before(c.Leaf.NotBefore) {
		return c, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(leafLife)
	if notAfter.After(a.root.NotAfter) {
		notAfter = a.root.NotAfter
	}
	t := &x509.Certificate{
		SerialNumber: serialNumber(),
		Subject:      pkix.Name{Organization: []string{"cove"}},
		NotBefore:    now.Add(-backdate),
		NotAfter:     notAfter,
		DNSNames:     []string{name},
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.root, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if len(a.leaves) >= maxLeaves {
		for old := range a.leaves {
			delete(a.leaves, old)
			break
		}
	}
	c := &tls.Certificate{Certificate: [][]byte{der, a.root.Raw}, PrivateKey: key, Leaf: leaf}
	a.leaves[name] = c
	return c, nil
}

// TLS is the policy of every listener: 1.2 with AEAD suites and forward
// secrecy, or 1.3; HTTP/2 or HTTP/1.1.
func (a *Authority) TLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			c, err := a.GetCertificate(hello)
			if errors.Is(err, ErrNotServed) {
				return nil, nil // the alert unrecognized_name; an error would read as a fault of the server
			}
			return c, err
		},
	}
}

func serialNumber() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive, and never shorter than RFC 5280 wants
	return new(big.Int).SetBytes(b)
}

func readFile(dir *os.Root, name string) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

// writeFile makes name whole or not at all, and durable.
func writeFile(dir *os.Root, name string, data []byte, mode os.FileMode) error {
	tmp := name + ".new"
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return dir.Rename(tmp, name)
}
