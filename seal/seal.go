// Package seal keeps secrets unreadable at rest: private keys and passwords
// that must be shown again are stored sealed under a master key that lies
// beside the database, never in it. A stolen database or backup of it alone
// opens nothing.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"cove.example/cove/fault"
)

// Box seals and opens under one master key. It prints as redacted.
type Box struct{ aead cipher.AEAD }

const (
	keySize = 32
	version = 1 // first byte of all that is sealed, so that a key can be changed one day
)

// ErrOpen is the failure of Open: the text was not sealed under this key, or
// has been changed since.
var ErrOpen = fault.New(fault.Internal, "sealed under another master key, or damaged")

// New returns a box for a 32-byte key. A key of zeros is refused: an empty
// secret is a public one.
func New(key []byte) (*Box, error) {
	if len(key) != keySize {
		return nil, fmt.Errorf("seal: the master key has %d bytes, not %d", len(key), keySize)
	}
	var or byte
	for _, b := range key {
		or |= b
	}
	if or == 0 {
		return nil, errors.New("seal: the master key is empty")
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &Box{aead}, nil
}

// OpenFile reads the master key from name below dir, and makes one with mode
// 0600 where there is none. A file that others may read is refused.
func OpenFile(dir *os.Root, name string) (*Box, error) {
	f, err := dir.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return create(dir, name)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fault.Newf(fault.Invalid, "%s can be read by others (mode %04o): set it to 0600", name, info.Mode().Perm())
	}
	key, err := io.ReadAll(io.LimitReader(f, keySize+1))
	if err != nil {
		return nil, err
	}
	if len(key) != keySize {
		// Never replaced: what is sealed under the lost one would be lost too.
		return nil, fault.Newf(fault.Invalid, "%s is damaged: it has %d bytes, not %d; put back the file from a backup", name, info.Size(), keySize)
	}
	return New(key)
}

func create(dir *os.Root, name string) (*Box, error) {
	key := make([]byte, keySize)
	rand.Read(key)
	box, err := New(key)
	if err != nil {
		return nil, err
	}
	tmp := name + "." + rand.Text()
	f, err := dir.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(key)
	err = errors.Join(err, f.Sync(), f.Close())
	// The name appears with the whole key behind it, whenever the process is
	// killed. A link fails where a rename would replace: two servers that
	// start at once must not each keep a key of their own.
	if err == nil {
		err = dir.Link(tmp, name)
	}
	if err = errors.Join(err, dir.Remove(tmp)); err != nil {
		return nil, err
	}
	return box, syncFolder(dir)
}

// syncFolder makes the name durable: what is sealed from now on outlives a
// loss of power, and so must the key.
func syncFolder(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Seal returns text such that only Open with the same key and context gives it
// back. The context says what the secret is and whose, so that a sealed text
// copied over another's in the database does not open as the other.
func (b *Box) Seal(text, context []byte) ([]byte, error) {
	out := make([]byte, 1+b.aead.NonceSize(), 1+b.aead.NonceSize()+len(text)+b.aead.Overhead())
	out[0] = version
	nonce := out[1:]
	rand.Read(nonce)
	return b.aead.Seal(out, nonce, text, context), nil
}

// Open returns what was sealed in that context, or ErrOpen.
func (b *Box) Open(sealed, context []byte) ([]byte, error) {
	n := b.aead.NonceSize()
	if len(sealed) < 1+n || sealed[0] != version {
		return nil, ErrOpen
	}
	text, err := b.aead.Open(nil, sealed[1:1+n], sealed[1+n:], context)
	if err != nil {
		return nil, ErrOpen
	}
	return text, nil
}

// String keeps the key out of every log.
func (b *Box) String() string { return "seal.Box(redacted)" }

// GoString is String.
func (b *Box) GoString() string { return b.String() }
