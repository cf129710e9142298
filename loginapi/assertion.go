package loginapi

import (
	"context"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // x5t is a name of a certificate (RFC 7515 §4.1.7), not a proof of one
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math/big"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"cove.example/cove/directory"
	"cove.example/cove/federation"
)

// assertionType is the only kind of client assertion (RFC 7523 §2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// Issuers verifies other issuers' tokens; *federation.Issuers does.
type Issuers interface {
	Verify(ctx context.Context, issuer, raw string) (federation.Claims, error)
}

// What an assertion may be. It may be used again until it ends: MSAL keeps one
// for nine of its ten minutes, and the older SDK for Go signs for a day
// (docs/decisions/0012).
const (
	assertionSkew = 5 * time.Minute
	assertionLife = 24 * time.Hour
	maxAssertion  = federation.MaxToken
	maxJTI        = 256
)

// assertionAlgorithms are those of certificates' keys.
var assertionAlgorithms = []jose.SignatureAlgorithm{jose.RS256, jose.PS256}

// selfClaims are what a client says of itself.
type selfClaims struct {
	Issuer   string       `json:"iss"`
	Subject  string       `json:"sub"`
	Audience jwt.Audience `json:"aud"`
	ID       string       `json:"jti"`
	Expires  float64      `json:"exp"`
	Begins   float64      `json:"nbf"`
	Issued   float64      `json:"iat"`
}

// assert signs a client in by an assertion: one that it has signed with the key
// of a certificate, or a token of another issuer that stands for it. Which it
// is, the claims say; neither is believed before its signature.
func (s *Server) assert(c *call, clientID, raw string) (directory.SignIn, error) {
	if len(raw) > maxAssertion {
		return directory.SignIn{}, errAssertion
	}
	claimed, err := federation.Unverified(raw)
	if err != nil {
		return directory.SignIn{}, errAssertion
	}
	if strings.EqualFold(claimed.Issuer, clientID) {
		return s.assertSelf(c, clientID, raw)
	}
	return s.assertForeign(c, clientID, raw, claimed)
}

// assertSelf verifies an assertion of the client's own (RFC 7523 §3).
func (s *Server) assertSelf(c *call, clientID, raw string) (directory.SignIn, error) {
	t, err := jwt.ParseSigned(raw, assertionAlgorithms)
	// Nothing here knows an extension, so that none may be one that must be
	// understood; and a JWT has one encoding (RFC 7797 §7).
	if err != nil || len(t.Headers) != 1 || t.Headers[0].ExtraHeaders["crit"] != nil || t.Headers[0].ExtraHeaders["b64"] != nil {
		return directory.SignIn{}, errAssertion
	}
	var said selfClaims
	if err := t.UnsafeClaimsWithoutVerification(&said); err != nil {
		return directory.SignIn{}, errAssertion
	}
	// What the caller says of its own assertion tells it nothing.
	if err := s.checkSelf(c, clientID, said); err != nil {
		return directory.SignIn{}, err
	}
	named := thumbprint(t.Headers[0])
	in, err := s.Directory.Verify(c.ctx, clientID, func(client *directory.Client) (directory.Credential, error) {
		found, key := directory.Credential{}, nobodysKey
		for _, k := range client.Credentials {
			if k.Kind != directory.KindCertificate || !named.is(k.Data) || found.Live(s.now()) {
				continue
			}
			if cert, err := x509.ParseCertificate(k.Data); err == nil {
				if public, ok := cert.PublicKey.(*rsa.PublicKey); ok {
					found, key = k, public
				}
			}
		}
		// The signature is verified whether or not there is a key for it: how
		// long it takes does not tell.
		var signed selfClaims
		if err := t.Claims(key, &signed); err != nil || found.KeyID == "" {
			return directory.Credential{}, directory.ErrSecret
		}
		return found, nil
	})
	return s.asserted(c, in, err, errAssertion)
}

// checkSelf checks what a client's assertion says.
func (s *Server) checkSelf(c *call, clientID string, said selfClaims) error {
	now, skew := float64(s.now().Unix()), assertionSkew.Seconds()
	began := max(said.Begins, said.Issued)
	switch {
	case !strings.EqualFold(said.Subject, clientID):
		return errAssertion.because("The subject of a client's assertion must be the client.")
	case !s.tokenEndpoint(c, said.Audience):
		return errAudience
	case said.ID == "" || len(said.ID) > maxJTI:
		return errAssertion.because("A client's assertion must have a jti, of at most 256 characters.")
	case said.Expires <= 0 || now >= said.Expires+skew || began > now+skew,
		said.Expires > now+assertionLife.Seconds()+skew, began > 0 && said.Expires-began > assertionLife.Seconds():
		return errAssertionTime
	}
	return nil
}

// tokenEndpoint reports whether an assertion is meant for us: for the token
// endpoint in one of its spellings, the authority or the issuer. The names are
// the configured ones.
func (s *Server) tokenEndpoint(c *call, audience jwt.Audience) bool {
	for _, a := range audience {
		a = strings.TrimSuffix(a, "/")
		for _, host := range s.Config.Hosts {
			for _, path := range []string{
				"/adfs", "/adfs/oauth2/token", "/" + c.tenant, "/" + c.tenant + "/v2.0", "/" + c.tenant + "/oauth2/token", "/" + c.tenant + "/oauth2/v2.0/token",
				"/common/oauth2/token", "/common/oauth2/v2.0/token", "/organizations/oauth2/v2.0/token",
			} {
				if strings.EqualFold(a, "https://"+host+path) {
					return true
				}
			}
		}
	}
	return false
}

// assertForeign verifies a token of another issuer. It is asked for its keys
// only where somebody has named that issuer, with this subject and audience,
// for this client: a stranger chooses no address that we ask.
func (s *Server) assertForeign(c *call, clientID, raw string, claimed federation.Claims) (directory.SignIn, error) {
	if s.Issuers == nil {
		return directory.SignIn{}, errFederation
	}
	var unreachable error
	in, err := s.Directory.Verify(c.ctx, clientID, func(client *directory.Client) (directory.Credential, error) {
		for _, k := range client.Credentials {
			f, ok := k.Federation()
			if !ok || f.Issuer != claimed.Issuer || f.Subject != claimed.Subject || !claimed.Has(f.Audiences[0]) {
				continue
			}
			proved, err := s.Issuers.Verify(c.ctx, f.Issuer, raw)
			switch {
			case errors.Is(err, federation.ErrTime):
				return directory.Credential{}, errAssertionTime
			case errors.Is(err, federation.ErrToken):
				return directory.Credential{}, errAssertion
			case err != nil:
				unreachable = err
				return directory.Credential{}, errIssuer
			case proved.Issuer == f.Issuer && proved.Subject == f.Subject && proved.Has(f.Audiences[0]):
				return k, nil
			}
		}
		return directory.Credential{}, directory.ErrSecret
	})
	if errors.Is(err, errIssuer) {
		s.log().WarnContext(c.ctx, "a federated sign-in needs keys that cannot be had", "id", c.id, "issuer", claimed.Issuer, "err", unreachable)
	}
	return s.asserted(c, in, err, errFederation)
}

// asserted is the end of both: an unknown client, a disabled one and one that
// is another tenant's are told the same as a wrong proof.
func (s *Server) asserted(c *call, in directory.SignIn, err error, wrong *refusal) (directory.SignIn, error) {
	switch {
	case errors.Is(err, directory.ErrExpired):
		return in, errAssertion.because("The certificate that the assertion was signed with has expired.")
	case errors.Is(err, directory.ErrSecret), errors.Is(err, directory.ErrDisabled):
		return in, wrong
	case err != nil:
		return in, err
	case in.Tenant != c.tenant:
		return in, wrong
	}
	return in, nil
}

// print is the name by which an assertion's header calls a certificate.
type print struct{ sha1, sha256 string }

func thumbprint(h jose.Header) print {
	text := func(name jose.HeaderKey) string {
		s, _ := h.ExtraHeaders[name].(string)
		return strings.TrimRight(s, "=")
	}
	return print{text("x5t"), text("x5t#S256")}
}

func (p print) is(der []byte) bool {
	one, two := sha1.Sum(der), sha256.Sum256(der) //nolint:gosec // see the import
	encode := base64.RawURLEncoding.EncodeToString
	if p.sha256 != "" {
		return p.sha256 == encode(two[:])
	}
	return p.sha1 != "" && p.sha1 == encode(one[:])
}

// nobodysKey is a key of the usual size to which nobody has the other half.
var nobodysKey = &rsa.PublicKey{E: 65537, N: func() *big.Int {
	n := new(big.Int).Lsh(big.NewInt(1), 2047)
	return n.Add(n, big.NewInt(0x1d5))
}()}
