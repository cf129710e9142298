package directory

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"hash/crc32"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Secret is a client secret in the clear. It exists between its making and
// the answer that shows it once, and prints as redacted.
type Secret struct{ text string }

// SecretFrom wraps a secret that a caller has sent, so that it prints as
// redacted on its way.
func SecretFrom(s string) Secret { return Secret{s} }

// Reveal returns the secret itself. What calls it hands it to its owner and
// nowhere else.
func (s Secret) Reveal() string { return s.text }

// String keeps the secret out of every log and error.
func (Secret) String() string { return "[redacted]" }

// GoString keeps it out of %#v.
func (Secret) GoString() string { return "[redacted]" }

// MarshalText keeps it out of JSON and of structured logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("[redacted]"), nil }

// secretPrefix begins every secret, and a checksum ends it, so that a scanner
// can tell a leaked one from noise:
// cove_<8 hex: key id>_<43 base64url><6 base64url: CRC-32>.
const secretPrefix = "cove_"

// NewSecret makes a secret that is valid from now until now+life, and the
// credential to store for it.
func NewSecret(name string, now time.Time, life time.Duration) (Secret, Credential) {
	keyID := NewID()
	var random [32]byte
	rand.Read(random[:])
	text := secretPrefix + keyID[:8] + "_" + base64.RawURLEncoding.EncodeToString(random[:])
	text += checksum(text)
	return Secret{text}, Credential{
		KeyID: keyID, Kind: KindSecret, Name: name, Hint: text[:len(secretPrefix)+8],
		Hash: sha256.Sum256([]byte(text)), Start: now, End: now.Add(life),
	}
}

func checksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	return base64.RawURLEncoding.EncodeToString([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// Looks reports whether s has the form of a secret of ours, for scanners and
// for tests that look for leaks.
func Looks(s string) bool {
	rest, ok := strings.CutPrefix(s, secretPrefix)
	return ok && len(rest) == 8+1+43+6 && rest[8] == '_' && checksum(s[:len(s)-6]) == s[len(s)-6:]
}

// verify finds the credential that secret belongs to. It compares with all of
// them, each in constant time, so that how long it takes tells only how many
// there are. The hash is taken for a client that does not exist as well.
func (c *Client) verify(secret string, now time.Time) (Credential, error) {
	hash := sha256.Sum256([]byte(secret))
	at := -1
	for i := range c.Credentials {
		// A certificate's hash is one of a text that everybody knows.
		if subtle.ConstantTimeCompare(hash[:], c.Credentials[i].Hash[:]) == 1 && c.Credentials[i].Kind == KindSecret {
			at = i
		}
	}
	switch {
	case at < 0:
		return Credential{}, ErrSecret
	case c.Disabled:
		return Credential{}, ErrDisabled
	case now.Before(c.Credentials[at].Start) || !now.Before(c.Credentials[at].End):
		return c.Credentials[at], ErrExpired
	}
	return c.Credentials[at], nil
}

// NewID returns a random GUID (RFC 9562, version 4).
func NewID() string { return uuid.NewString() }

// IsID reports whether s is a GUID in its usual spelling, of any case.
func IsID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return false
			}
		}
	}
	return true
}
