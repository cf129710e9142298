package token

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// Session is what a person's refresh token of the issuer says: who has signed
// in with which program, and by what. It is for no audience and proves nothing
// that is not asked again when it is used. It is sealed, not signed: it is our
// own to read.
type Session struct {
	Client     string `json:"client"` // the program
	ObjectID   string `json:"oid"`
	Tenant     string `json:"tid"`
	Credential string `json:"credential"` // another password ends it
	Issued     int64  `json:"iat"`
}

// SessionLife is how long a person stays signed in without using it.
const SessionLife = 90 * 24 * time.Hour

// Ends is when the session is over if nobody uses it.
func (s Session) Ends() time.Time { return time.Unix(s.Issued, 0).Add(SessionLife) }

// sessionContext ties a sealed text to what it is for: nothing else that is
// sealed under the key opens as a refresh token.
const sessionContext = "loginapi: refresh token of a person"

// MintSession makes a person's refresh token; it begins now.
func (t *Tokens) MintSession(s Session) (string, error) {
	s.Issued = t.now().Unix()
	body, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sealed, err := t.keys.seal.Seal(body, []byte(sessionContext))
	return base64.RawURLEncoding.EncodeToString(sealed), err
}

// VerifySession reads a person's refresh token. It fails with ErrMalformed,
// ErrExpired or ErrNotYet.
func (t *Tokens) VerifySession(raw string) (Session, error) {
	// As of every token, there is one spelling; a decoder passes line breaks by.
	if len(raw) > maxSize || strings.ContainsAny(raw, "\r\n") {
		return Session{}, ErrMalformed
	}
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(raw)
	if err != nil {
		return Session{}, ErrMalformed
	}
	body, err := t.keys.seal.Open(sealed, []byte(sessionContext))
	if err != nil {
		return Session{}, ErrMalformed
	}
	var s Session
	if err := json.Unmarshal(body, &s); err != nil {
		return Session{}, ErrMalformed.Because(err)
	}
	switch now := t.now(); {
	case !now.Before(s.Ends()):
		return Session{}, ErrExpired
	case now.Add(leeway).Before(time.Unix(s.Issued, 0)):
		return Session{}, ErrNotYet
	}
	return s, nil
}
