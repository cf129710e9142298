package directory

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"cove.example/cove/fault"
)

// CredentialKind is a way of signing in.
type CredentialKind string

// The kinds.
const (
	KindSecret      CredentialKind = "secret"      // of 256 random bits
	KindCertificate CredentialKind = "certificate" // whose key signs an assertion
	KindFederated   CredentialKind = "federated"   // another issuer's token that says so
	KindPassword    CredentialKind = "password"    // that a person has chosen
)

// Most is how many credentials of the kind an object may have. The 20 federated
// ones are Graph's number.
func (k CredentialKind) Most() int {
	switch k {
	case KindFederated:
		return 20
	case KindPassword:
		return 1
	}
	return MaxCredentials
}

// Forever is the end of a credential that has none.
var Forever = time.Date(2299, 12, 31, 0, 0, 0, 0, time.UTC)

// The failures of making credentials.
var (
	ErrCertificate = fault.Coded(fault.Invalid, "Request_BadRequest", "the certificate cannot be used to sign in")
	ErrFederation  = fault.Coded(fault.Invalid, "Request_BadRequest", "the federated identity credential is not valid")
	ErrManaged     = fault.Coded(fault.Denied, "Authorization_RequestDenied", "a managed identity is changed through the resource that it belongs to")
)

// maxCertificate is generous: a certificate with a key of 4096 bits takes 2 KiB.
const maxCertificate = 16 << 10

// NewCertificate is the credential of a certificate, DER. Its key signs with
// RS256 or PS256, so it is RSA, of 2048 bits or more.
func NewCertificate(keyID, name string, der []byte, start, end time.Time) (Credential, error) {
	if len(der) > maxCertificate {
		return Credential{}, ErrCertificate.Detail("The certificate is larger than %d bytes.", maxCertificate)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return Credential{}, ErrCertificate.Detail("The key of the credential is not an X.509 certificate.")
	}
	key, ok := rsaKey(cert)
	if !ok || key.N.BitLen() < 2048 || key.N.BitLen() > 8192 {
		return Credential{}, ErrCertificate.Detail("The certificate's key must be RSA, of 2048 to 8192 bits.")
	}
	if keyID == "" {
		keyID = NewID()
	}
	if !IsID(keyID) {
		return Credential{}, ErrCertificate.Detail("The keyId '%.60s' is not a GUID.", keyID)
	}
	// A credential does not outlive its certificate.
	if start.Before(cert.NotBefore) {
		start = cert.NotBefore
	}
	if end.After(cert.NotAfter) {
		end = cert.NotAfter
	}
	if !end.After(start) {
		return Credential{}, ErrCertificate.Detail("The credential ends before it begins; the certificate is good from %s to %s.", cert.NotBefore.UTC().Format(time.RFC3339), cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return Credential{KeyID: strings.ToLower(keyID), Kind: KindCertificate, Name: name, Hash: sha256.Sum256(der), Data: der, Start: start, End: end}, nil
}

// Federation says whose tokens are taken for a principal's own proof: those of
// one issuer for one subject and audience, each compared letter by letter.
type Federation struct {
	Issuer      string   `json:"issuer"`
	Subject     string   `json:"subject"`
	Audiences   []string `json:"audiences"`
	Description string   `json:"description,omitempty"`
}

// The bounds of Graph on a federated credential's properties.
const (
	maxFederationName = 120
	maxFederationText = 600
)

// NewFederation is the credential of a federation. Every problem is in its
// error.
func NewFederation(name string, f Federation) (Credential, error) {
	if problems := f.Problems(name); problems != nil {
		var words []string
		for _, p := range problems {
			words = append(words, p.Message)
		}
		return Credential{}, ErrFederation.Detail("%s", strings.Join(words, " "))
	}
	data, err := json.Marshal(f)
	if err != nil {
		return Credential{}, err
	}
	return Credential{KeyID: NewID(), Kind: KindFederated, Name: name, Hash: sha256.Sum256(data), Data: data, Start: time.Unix(0, 0), End: Forever}, nil
}

// Problems says what is wrong with a credential of that name, by property.
func (f Federation) Problems(name string) (out []fault.Field) {
	plain := func(c rune) bool {
		return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
	}
	if n := len(name); n < 3 || n > maxFederationName || strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) || name[0] == '-' || name[0] == '_' {
		out = append(out, fault.Field{Path: "name", Message: "The name must be 3 to 120 letters, digits, hyphens and underscores and begin with a letter or digit."})
	}
	u, err := url.Parse(f.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || len(f.Issuer) > maxFederationText {
		out = append(out, fault.Field{Path: "issuer", Message: "The issuer must be an https address without user, query and fragment, of at most 600 characters."})
	}
	if f.Subject == "" || len(f.Subject) > maxFederationText {
		out = append(out, fault.Field{Path: "subject", Message: "The subject must be a text of 1 to 600 characters."})
	}
	if len(f.Audiences) != 1 || f.Audiences[0] == "" || len(f.Audiences[0]) > maxFederationText {
		out = append(out, fault.Field{Path: "audiences", Message: "There must be one audience, of 1 to 600 characters."})
	}
	if len(f.Description) > maxFederationText {
		out = append(out, fault.Field{Path: "description", Message: "The description is at most 600 characters long."})
	}
	return out
}

// Federation reads the credential, or reports false where it is of another
// kind.
func (c *Credential) Federation() (f Federation, ok bool) {
	return f, c.Kind == KindFederated && json.Unmarshal(c.Data, &f) == nil
}

// Live reports whether the credential is good at that time.
func (c *Credential) Live(now time.Time) bool { return !now.Before(c.Start) && now.Before(c.End) }

// ChangeCertificates replaces an object's certificates by what fn makes of
// them.
func (d *Directory) ChangeCertificates(ctx context.Context, objectID string, fn func([]Credential) ([]Credential, error)) error {
	defer d.changed()
	return d.store.ChangeCredentials(ctx, objectID, KindCertificate, fn)
}

// ChangeFederations replaces an object's federated credentials by what fn makes
// of them, of which no two may have one name, or one issuer and subject: which
// of them a token was taken for would be chance.
func (d *Directory) ChangeFederations(ctx context.Context, objectID string, fn func([]Credential) ([]Credential, error)) error {
	defer d.changed()
	return d.store.ChangeCredentials(ctx, objectID, KindFederated, DistinctFederations(fn))
}

// DistinctFederations is fn, refused where two of what it returns are one.
func DistinctFederations(fn func([]Credential) ([]Credential, error)) func([]Credential) ([]Credential, error) {
	return func(old []Credential) ([]Credential, error) {
		list, err := fn(old)
		if err != nil {
			return nil, err
		}
		for i := range list {
			a, _ := list[i].Federation()
			for j := range list[:i] {
				b, _ := list[j].Federation()
				switch {
				case strings.EqualFold(list[i].Name, list[j].Name):
					return nil, ErrTaken.Detail("There is a federated identity credential with the name '%s' already.", list[i].Name)
				case a.Issuer == b.Issuer && a.Subject == b.Subject:
					return nil, ErrTaken.Detail("The federated identity credential '%s' has this issuer and subject already.", list[j].Name)
				}
			}
		}
		return list, nil
	}
}

// errNotSecret is never shown: a password's row is damaged.
var errNotSecret = errors.New("directory: a password is kept in a form that is not known")

// bought is what a token says of the credential that it was bought with. A
// federated one can be changed under its id: whom it then stands for is
// somebody else, and what the one before has bought ends.
func (c *Credential) bought() string {
	f, ok := c.Federation()
	if !ok {
		return c.KeyID
	}
	h := sha256.New()
	for _, part := range append([]string{f.Issuer, f.Subject}, f.Audiences...) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return c.KeyID + "." + hex.EncodeToString(h.Sum(nil)[:8])
}
