package loginapi

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/token"
)

// maxForm bounds the body of a token request.
const maxForm = 64 << 10

// grant is a token request, read.
type grant struct {
	clientID string
	secret   directory.Secret
	audience string
}

// token is the client_credentials grant (RFC 6749 §4.4) with a secret.
func (s *Server) token(c *call) (any, error) {
	g, err := s.readGrant(c)
	if err != nil {
		return nil, err
	}
	in, err := s.Directory.SignIn(c.ctx, g.clientID, g.secret.Reveal())
	switch {
	case errors.Is(err, directory.ErrSecret), errors.Is(err, directory.ErrDisabled), errors.Is(err, directory.ErrUnknown):
		return nil, errClient
	case errors.Is(err, directory.ErrExpired):
		return nil, errSecretExpired
	case err != nil:
		return nil, err
	case in.Tenant != c.tenant:
		return nil, errClient
	}
	text, claims, err := s.Tokens.MintPrincipal(token.PrincipalClaims{
		Audience: g.audience, ObjectID: in.ObjectID, Tenant: in.Tenant, AppID: in.AppID, Credential: in.KeyID,
	})
	if err != nil {
		return nil, err
	}
	life := claims.Expires - claims.Issued
	return map[string]any{
		"token_type": "Bearer", "expires_in": life, "ext_expires_in": life,
		"expires_on": fmt.Sprint(claims.Expires), "not_before": fmt.Sprint(claims.NotBefore),
		"resource": g.audience, "access_token": text,
	}, nil
}

func (s *Server) readGrant(c *call) (grant, error) {
	form, err := readForm(c.r)
	if err != nil {
		return grant{}, err
	}
	one := func(name string) string {
		switch v := form[name]; {
		case len(v) > 1 && err == nil:
			// Whichever were chosen, something in front of us may have judged
			// by the other (RFC 6749 §3.2: at most once).
			err = errRequest.because("The parameter '" + name + "' is given more than once.")
			return ""
		case len(v) == 0:
			return ""
		default:
			return v[0]
		}
	}
	kind, id, secret := one("grant_type"), one("client_id"), one("client_secret")
	scope, resource := one("scope"), one("resource")
	if err != nil {
		return grant{}, err
	}
	if kind != "client_credentials" {
		return grant{}, errGrantType
	}
	if user, pass, ok := c.r.BasicAuth(); ok {
		if secret != "" || id != "" && id != user {
			return grant{}, errRequest.because("The client proves itself in two ways at once.")
		}
		// RFC 6749 §2.3.1: both are form-encoded inside Basic.
		if id, err = url.QueryUnescape(user); err == nil {
			secret, err = url.QueryUnescape(pass)
		}
		if err != nil {
			return grant{}, errRequest
		}
	}
	switch {
	case form.Has("client_assertion"):
		return grant{}, errAssertion
	case id == "":
		return grant{}, errRequest.because("The request body must contain the parameter 'client_id'.")
	case secret == "":
		return grant{}, errNoSecret
	}
	audience, err := s.audience(scope, resource)
	return grant{id, directory.SecretFrom(secret), audience}, err
}

// audience is what the token is for: a resource, or the one scope that ends
// in /.default. The suffix is taken off exactly once: az asks for
// https://host//.default where the resource is https://host/.
func (s *Server) audience(scope, resource string) (string, error) {
	asked := resource
	for part := range strings.FieldsSeq(scope) {
		a, ok := strings.CutSuffix(part, "/.default")
		switch {
		case part == "openid" || part == "profile" || part == "offline_access":
			continue
		case !ok || asked != "" && !token.SameAudience(asked, a):
			return "", errScope
		}
		asked = a
	}
	if asked == "" {
		return "", errRequest.because("The request body must contain the parameter 'scope' or 'resource'.")
	}
	for _, known := range s.Config.Audiences {
		if token.SameAudience(known, asked) {
			return known, nil
		}
	}
	return "", errResource
}

func readForm(r *http.Request) (url.Values, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" || r.Header.Get("Content-Encoding") != "" {
		return nil, errRequest.because("The body must be of the type application/x-www-form-urlencoded.")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxForm+1))
	if err != nil || len(body) > maxForm || strings.Count(string(body), "&") > 100 {
		return nil, errRequest.because("The body cannot be read, or is too large.")
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, errRequest.because("The body is not a form.")
	}
	return form, nil
}

// refusal is a failure in the words of RFC 6749 §5.2 and of Entra, whose
// codes programs and people look for.
type refusal struct {
	status int
	error  string
	code   int // AADSTS…
	text   string
}

func (e *refusal) Error() string { return fmt.Sprintf("%s: AADSTS%d: %s", e.error, e.code, e.text) }

func (e *refusal) because(text string) *refusal {
	out := *e
	out.text = text
	return &out
}

// The failures. An unknown client, a wrong secret and a disabled client are
// one sentence: which ids exist is nobody's business.
var (
	errRequest       = &refusal{http.StatusBadRequest, "invalid_request", 900144, "The request is not well-formed."}
	errGrantType     = &refusal{http.StatusBadRequest, "unsupported_grant_type", 70003, "The app requested an unsupported grant type."}
	errScope         = &refusal{http.StatusBadRequest, "invalid_scope", 70011, "The scope is not valid: a client asks for one resource, as RESOURCE/.default."}
	errResource      = &refusal{http.StatusBadRequest, "invalid_resource", 500011, "The resource principal was not found in the tenant."}
	errTenant        = &refusal{http.StatusBadRequest, "invalid_request", 90002, "The tenant was not found."}
	errAssertion     = &refusal{http.StatusUnauthorized, "invalid_client", 700027, "Client assertions are not in this version; use a client secret."}
	errNoSecret      = &refusal{http.StatusUnauthorized, "invalid_client", 7000218, "The request body must contain the parameter 'client_secret'."}
	errClient        = &refusal{http.StatusUnauthorized, "invalid_client", 7000215, "Invalid client id or client secret provided."}
	errSecretExpired = &refusal{http.StatusUnauthorized, "invalid_client", 7000222, "The provided client secret has expired."}
	errRoute         = &refusal{http.StatusNotFound, "invalid_request", 900971, "There is nothing under this address."}
	errMisdirected   = &refusal{http.StatusMisdirectedRequest, "invalid_request", 900561, "The name asked for is not served on this connection."}
	errInternal      = &refusal{http.StatusServiceUnavailable, "temporarily_unavailable", 90033, "A transient error has occurred. Try again."}
)

// fail writes err as the answer. It is the only function of the package that
// writes an error status.
func (s *Server) fail(w http.ResponseWriter, c *call, err error) {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		e = errInternal
		log := s.Log
		if log == nil {
			log = slog.Default()
		}
		log.Error("a token request failed", "id", c.id, "err", err)
		w.Header().Set("Retry-After", "1")
	}
	at := s.now().UTC().Format(time.RFC3339)
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="`+c.host+`"`) // RFC 6749 §5.2
	}
	send(w, e.status, map[string]any{
		"error": e.error,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			e.code, e.text, c.id, c.id, at),
		"error_codes": []int{e.code}, "timestamp": at, "trace_id": c.id, "correlation_id": c.id,
	})
}
