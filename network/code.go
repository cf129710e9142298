package network

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"cove.example/cove/fault"
)

// Secret is what makes a join code worth something. It prints as nothing; the
// server keeps only its hash.
type Secret [32]byte

// Format prints a placeholder for every verb.
func (Secret) Format(s fmt.State, _ rune) { fmt.Fprint(s, "redacted") }

// MarshalText keeps the secret out of JSON and structured logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("redacted"), nil }

// Hash is the secret's SHA-256 in hexadecimal, which gives nothing away.
func (s Secret) Hash() string {
	h := sha256.Sum256(s[:])
	return hex.EncodeToString(h[:])
}

// Reveal is the secret as it is sent to Redeem.
func (s Secret) Reveal() string { return base64.RawURLEncoding.EncodeToString(s[:]) }

// ParseSecret reads what Reveal wrote. Its only failure is ErrCode.
func ParseSecret(s string) (Secret, error) {
	var out Secret
	if len(s) != base64.RawURLEncoding.EncodedLen(len(out)) {
		return out, ErrCode
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return out, ErrCode
	}
	return Secret(b), nil
}

func newSecret() (s Secret) {
	rand.Read(s[:])
	return s
}

// Code is everything that a machine needs in order to join: where to ask,
// how to know that it asks the right one, and what to show.
type Code struct {
	Management  string    // URL of the management endpoint
	Fingerprint string    // SHA-256 of the certificate authority, lower-case hex
	Dial        string    // host:port to connect to for that URL
	NIC         string    // resource id of the interface that is kept for it
	Expires     time.Time // whole seconds
	Secret      Secret
}

// wire is the JSON inside the text; its names are short because people copy
// the text by hand.
type wire struct {
	Management  string `json:"u"`
	Fingerprint string `json:"f"`
	Dial        string `json:"d"`
	NIC         string `json:"n"`
	Expires     int64  `json:"e"`
	Secret      string `json:"s"`
}

const (
	codePrefix = "cove1."
	codeSum    = 4    // bytes of SHA-256 at the end
	maxCode    = 8192 // characters
)

// ErrCodeText is the failure of ParseCode: not a code, or one that was cut or
// mistyped. It is found without asking the server.
var ErrCodeText = fault.New(fault.Invalid, "this is not a join code, or it was not copied whole")

// Text is the code as it is handed over: "cove1." and base64url of a JSON
// object and the first four bytes of its SHA-256. It holds the secret.
func (c Code) Text() string {
	b, err := json.Marshal(wire{c.Management, c.Fingerprint, c.Dial, c.NIC, c.Expires.Unix(), c.Secret.Reveal()})
	if err != nil {
		panic(err) // strings and a number
	}
	sum := sha256.Sum256(b)
	return codePrefix + base64.RawURLEncoding.EncodeToString(append(b, sum[:codeSum]...))
}

// ParseCode reads what Text wrote; white space around it is ignored.
func ParseCode(text string) (Code, error) {
	text, ok := strings.CutPrefix(strings.TrimSpace(text), codePrefix)
	if !ok || len(text) > maxCode {
		return Code{}, ErrCodeText
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < codeSum {
		return Code{}, ErrCodeText
	}
	b, got := b[:len(b)-codeSum], b[len(b)-codeSum:]
	sum := sha256.Sum256(b)
	if subtle.ConstantTimeCompare(sum[:codeSum], got) != 1 {
		return Code{}, ErrCodeText
	}
	var w wire
	if err := json.Unmarshal(b, &w); err != nil {
		return Code{}, ErrCodeText
	}
	secret, err := ParseSecret(w.Secret)
	if err != nil {
		return Code{}, ErrCodeText
	}
	return Code{w.Management, w.Fingerprint, w.Dial, w.NIC, time.Unix(w.Expires, 0).UTC(), secret}, nil
}
