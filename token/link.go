package token

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strings"
	"time"
)

// LinkLife is how long a download link is good (source: the documentation of
// Azure Container Registry, which says 20 to 30 minutes).
const LinkLife = 25 * time.Minute

// linkName is the parameter of a URL that carries a link, and maxLink bounds
// what is read of it.
const (
	linkName = "link="
	maxLink  = 2 << 10
)

// Link lets its holder download one blob of one repository of one registry
// until it ends, and nothing else. What it is for is not in it: it is part of
// what is signed and comes from where the link is used, so that a link moved
// to another host or path does not verify.
//
// A link is no credential. It names who it was made for, and whoever verifies
// it asks again what that one may do; it cannot be changed into a token, sent
// to a token endpoint or used for another method.
type Link struct {
	Registry   string // UID
	Repository string
	Digest     string
	Holder     Holder
	Expires    time.Time // whole seconds
}

// Holder is who a link was made for, in the words of RegistryClaims.
type Holder struct {
	Kind       string `json:"k"`
	Name       string `json:"n,omitempty"`
	ObjectID   string `json:"o,omitempty"`
	Tenant     string `json:"t,omitempty"`
	Credential string `json:"c,omitempty"`
	Mode       string `json:"m,omitempty"`
}

// linkBody is what a link carries in the open.
type linkBody struct {
	Key     string `json:"i"`
	Expires int64  `json:"e"`
	Holder
}

// deriveLinkKey makes the key for links out of a registry key's private half.
// It rotates, is revoked and reaches other nodes with that key. The info
// keeps the two apart: what signs links can never sign a token.
func deriveLinkKey(der []byte, id string) ([]byte, error) {
	return hkdf.Key(sha256.New, der, nil, "cove download link/"+id, sha256.Size)
}

// SignLink returns l as the query of a URL, without its question mark, good
// for LinkLife from now.
func (t *Tokens) SignLink(l Link) (string, error) {
	s, err := t.keys.signer(KindRegistry)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(linkBody{s.key.ID, t.now().Add(LinkLife).Unix(), l.Holder})
	if err != nil {
		return "", err
	}
	open := base64.RawURLEncoding.EncodeToString(body)
	return linkName + open + "." + base64.RawURLEncoding.EncodeToString(s.key.linkMAC(l, open)), nil
}

// VerifyLink verifies the query of a URL as a link to what l names, and
// returns l with its holder. ErrMalformed, ErrSignature and ErrExpired are
// its failures; a link to something else is an ErrSignature.
func (t *Tokens) VerifyLink(query string, l Link) (Link, error) {
	text, ok := strings.CutPrefix(query, linkName)
	open, sum, dot := strings.Cut(text, ".")
	strict := base64.RawURLEncoding.Strict()
	if !ok || !dot || len(query) > maxLink || strings.ContainsAny(text, "\r\n") {
		return Link{}, ErrMalformed
	}
	body, err := strict.DecodeString(open)
	if err != nil {
		return Link{}, ErrMalformed
	}
	mac, err := strict.DecodeString(sum)
	if err != nil {
		return Link{}, ErrMalformed
	}
	var b linkBody
	if err := json.Unmarshal(body, &b); err != nil {
		return Link{}, ErrMalformed.Because(err)
	}
	now := t.now()
	k := t.keys.linkKey(b.Key)
	if k == nil || k.retired(now) || !hmac.Equal(mac, k.linkMAC(l, open)) {
		return Link{}, ErrSignature
	}
	// One that ends later than any link of now is of a clock that was ahead: it
	// would last until that day.
	if ends := time.Unix(b.Expires, 0); !now.Before(ends) || now.Add(LinkLife+leeway).Before(ends) {
		return Link{}, ErrExpired
	}
	l.Holder, l.Expires = b.Holder, time.Unix(b.Expires, 0)
	return l, nil
}

func (k *Keys) linkKey(id string) *key {
	for _, each := range k.set.Load().keys {
		if each.ID == id && each.link != nil {
			return each
		}
	}
	return nil
}

// linkMAC signs what a link carries together with what it is for. Each part
// stands behind its length: no two links have the same bytes.
func (k *key) linkMAC(l Link, open string) []byte {
	m := hmac.New(sha256.New, k.link)
	for _, part := range []string{"GET or HEAD", l.Registry, l.Repository, l.Digest, open} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		m.Write(n[:])
		m.Write([]byte(part))
	}
	return m.Sum(nil)
}
