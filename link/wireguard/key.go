package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
)

// PublicKey is a Curve25519 public key, written in base64 as wg(8) does.
type PublicKey [32]byte

func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

func (k PublicKey) hex() string { return hex.EncodeToString(k[:]) }

// ParsePublicKey reads 32 bytes of canonical base64. The key of all zeros is
// refused: a Diffie-Hellman with it gives everybody the same secret.
func ParsePublicKey(s string) (PublicKey, error) {
	b, err := parseKey(s)
	return PublicKey(b), err
}

// PrivateKey is a Curve25519 private key. Every way of printing it says
// "redacted"; Reveal alone shows it.
type PrivateKey [32]byte

// NewPrivateKey returns a fresh, clamped key.
func NewPrivateKey() PrivateKey {
	var k PrivateKey
	rand.Read(k[:])
	k[0] &= 248
	k[31] = k[31]&127 | 64
	return k
}

// ParsePrivateKey reads 32 bytes of canonical base64.
func ParsePrivateKey(s string) (PrivateKey, error) {
	b, err := parseKey(s)
	return PrivateKey(b), err
}

// Public returns the key that others know this one by.
func (k PrivateKey) Public() PublicKey {
	// NewPrivateKey of X25519 refuses nothing but a wrong length.
	p, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		panic(err)
	}
	return PublicKey(p.PublicKey().Bytes())
}

// Reveal returns the key in base64, for the one file that must hold it.
func (k PrivateKey) Reveal() string { return base64.StdEncoding.EncodeToString(k[:]) }

// Format keeps the key out of every verb, %x and %d included.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// LogValue keeps the key out of the log.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the key out of JSON written by accident.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte(redacted), nil }

const redacted = "redacted"

func (k PrivateKey) hex() string { return hex.EncodeToString(k[:]) }

// parseKey never repeats its input: it may be a secret.
func parseKey(s string) ([32]byte, error) {
	var k [32]byte
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != len(k) || base64.StdEncoding.EncodeToString(b) != s {
		return k, fmt.Errorf("a key is 44 characters of base64")
	}
	if copy(k[:], b); k == [32]byte{} {
		return k, fmt.Errorf("a key of zeros is no key")
	}
	return k, nil
}
