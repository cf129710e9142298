package authority

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"sync"
	"time"

	"cove.example/cove/fault"
)

// recheck is how often the operator's files are looked at. Mounted secrets are
// exchanged by renaming links, which notification interfaces miss.
const recheck = 10 * time.Second

// Operator is a certificate of the operator's own, read from two PEM files
// and read again when they change. While a new pair cannot be read, the old
// one stays.
type Operator struct {
	certFile, keyFile string
	now               func() time.Time

	mu      sync.Mutex
	pair    *tls.Certificate
	stamp   [2]time.Time
	checked time.Time
	failed  error
}

// OpenOperator reads the pair. The certificate file holds the leaf first, then
// its chain.
func OpenOperator(certFile, keyFile string, now func() time.Time) (*Operator, error) {
	o := &Operator{certFile: certFile, keyFile: keyFile, now: now}
	if err := o.load(); err != nil {
		return nil, err
	}
	o.checked = now()
	return o, nil
}

func (o *Operator) load() error {
	stamp, err := o.stamps()
	if err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
	if err != nil {
		return fault.Newf(fault.Invalid, "the certificate %s and its key cannot be used: %v", o.certFile, err)
	}
	o.pair, o.stamp = &pair, stamp
	return nil
}

func (o *Operator) stamps() (s [2]time.Time, err error) {
	for i, name := range []string{o.certFile, o.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = info.ModTime()
	}
	return s, nil
}

// certificate returns the pair if it covers name and is in force, else nil.
func (o *Operator) certificate(name string) *tls.Certificate {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.now()
	if now.Sub(o.checked) >= recheck {
		o.checked = now
		if s, err := o.stamps(); err != nil {
			o.failed = err
		} else if s != o.stamp {
			o.failed = o.load()
		}
	}
	leaf := o.pair.Leaf
	if leaf.VerifyHostname(name) != nil || now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		return nil
	}
	return o.pair
}

// Failed is why the files could not be read when they last changed, or nil.
func (o *Operator) Failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}

// Leaf is the certificate that is served now.
func (o *Operator) Leaf() *x509.Certificate {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pair.Leaf
}
