package loginapi

import (
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/token"
)

// maxForm bounds the body of a token request.
const maxForm = 64 << 10

// grant is a token request, read.
type grant struct {
	clientID  string
	secret    directory.Secret
	assertion directory.Secret // in place of the secret
	audience  string
}

// credentials is the client_credentials grant (RFC 6749 §4.4).
func (s *Server) credentials(c *call, form url.Values) (any, error) {
	g, err := s.readGrant(c, form)
	if err != nil {
		return nil, err
	}
	acr := "1"
	var in directory.SignIn
	if text := g.assertion.Reveal(); text != "" {
		acr = "2"
		in, err = s.assert(c, g.clientID, text)
	} else {
		in, err = s.signIn(c, g)
	}
	if err != nil {
		return nil, err
	}
	text, claims, err := s.Tokens.MintPrincipal(token.PrincipalClaims{
		Audience: g.audience, ObjectID: in.ObjectID, Tenant: in.Tenant, AppID: in.AppID, AppACR: acr, Credential: in.KeyID, Managed: in.Managed,
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

// signIn is a sign-in by secret.
func (s *Server) signIn(c *call, g grant) (directory.SignIn, error) {
	try := s.Guesses.Guess(link.From(c.ctx), realm(c.tenant), g.clientID, g.secret.Reveal())
	in, err := s.attempt(c, errClientGuesses, try, func() (directory.SignIn, error) {
		return s.Directory.SignIn(c.ctx, g.clientID, g.secret.Reveal())
	})
	switch {
	case errors.Is(err, directory.ErrSecret), errors.Is(err, directory.ErrDisabled), errors.Is(err, directory.ErrUnknown):
		return in, errClient
	case errors.Is(err, directory.ErrExpired):
		return in, errSecretExpired
	case err == nil && in.Tenant != c.tenant:
		return in, errClient
	}
	return in, err
}

func (s *Server) readGrant(c *call, form url.Values) (g grant, err error) {
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
	id, secret := one("client_id"), one("client_secret")
	scope, resource := one("scope"), one("resource")
	assertion, kind := one("client_assertion"), one("client_assertion_type")
	if err != nil {
		return grant{}, err
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
	case assertion != "" && secret != "":
		return grant{}, errRequest.because("The client proves itself in two ways at once.")
	case assertion != "" && kind != assertionType:
		return grant{}, errRequest.because("The client_assertion_type must be " + assertionType + ".")
	case id == "":
		return grant{}, errRequest.because("The request body must contain the parameter 'client_id'.")
	case secret == "" && assertion == "":
		return grant{}, errNoSecret
	}
	audience, err := s.audience(scope, resource)
	return grant{id, directory.SecretFrom(secret), directory.SecretFrom(assertion), audience}, err
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

// token is the token endpoint.
func (s *Server) token(c *call) (any, error) {
	form, err := readForm(c.r)
	if err != nil {
		return nil, err
	}
	kinds := form["grant_type"]
	if len(kinds) > 1 {
		return nil, errRequest.because("The parameter 'grant_type' is given more than once.")
	}
	for kind, serve := range grants {
		if len(kinds) == 1 && kinds[0] == kind {
			return serve(s, c, form)
		}
	}
	return nil, errGrantType
}

// grants are the kinds of token requests.
var grants = map[string]func(*Server, *call, url.Values) (any, error){
	"client_credentials": (*Server).credentials,
	"password":           (*Server).person,
	"refresh_token":      (*Server).again,
	deviceGrant:          (*Server).poll,
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
	wait   time.Duration // when it is worth to try again, 0 where that is not known
}

func (e *refusal) Error() string { return fmt.Sprintf("%s: AADSTS%d: %s", e.error, e.code, e.text) }

func (e *refusal) because(text string) *refusal {
	out := *e
	out.text = text
	return &out
}

func (e *refusal) after(wait time.Duration) *refusal {
	out := *e
	out.wait = wait
	return &out
}

// The failures. An unknown client, a wrong secret and a disabled client are
// one sentence: which ids exist is nobody's business.
var (
	errRequest       = &refusal{status: http.StatusBadRequest, error: "invalid_request", code: 900144, text: "The request is not well-formed."}
	errGrantType     = &refusal{status: http.StatusBadRequest, error: "unsupported_grant_type", code: 70003, text: "The app requested an unsupported grant type."}
	errScope         = &refusal{status: http.StatusBadRequest, error: "invalid_scope", code: 70011, text: "The scope is not valid: a client asks for one resource, as RESOURCE/.default."}
	errResource      = &refusal{status: http.StatusBadRequest, error: "invalid_resource", code: 500011, text: "The resource principal was not found in the tenant."}
	errTenant        = &refusal{status: http.StatusBadRequest, error: "invalid_request", code: 90002, text: "The tenant was not found."}
	errAssertion     = &refusal{status: http.StatusUnauthorized, error: "invalid_client", code: 700027, text: "The certificate with identifier used to sign the client assertion is not registered on application, or the signature is not valid."}
	errAssertionTime = &refusal{status: http.StatusUnauthorized, error: "invalid_client", code: 700024, text: "Client assertion is not within its valid time range."}
	errAudience      = &refusal{status: http.StatusUnauthorized, error: "invalid_client", code: 700023, text: "Client assertion audience claim does not match the token endpoint."}
	errFederation    = &refusal{status: http.StatusUnauthorized, error: "invalid_client", code: 70021, text: "No matching federated identity record found for presented assertion."}
	errIssuer        = &refusal{status: http.StatusServiceUnavailable, error: "temporarily_unavailable", code: 50166, text: "The issuer of the assertion cannot be asked for its keys. Try again."}
	errNoSecret      = &refusal{status: http.StatusUnauthorized, error: "invalid_client", code: 7000218, text: "The request body must contain the parameter 'client_assertion' or 'client_secret'."}
	errClient        = &refusal{status: http.StatusUnauthorized, error: "invalid_client", code: 7000215, text: "Invalid client id or client secret provided."}
	errClientGuesses = &refusal{status: http.StatusTooManyRequests, error: "temporarily_unavailable", code: 50196, text: "The client has failed to sign in too many times. Try again later."}
	errSecretExpired = &refusal{status: http.StatusUnauthorized, error: "invalid_client", code: 7000222, text: "The provided client secret has expired."}
	errRoute         = &refusal{status: http.StatusNotFound, error: "invalid_request", code: 900971, text: "There is nothing under this address."}
	errMisdirected   = &refusal{status: http.StatusMisdirectedRequest, error: "invalid_request", code: 900561, text: "The name asked for is not served on this connection."}
	errInternal      = &refusal{status: http.StatusServiceUnavailable, error: "temporarily_unavailable", code: 90033, text: "A transient error has occurred. Try again."}
)

// fail writes err as the answer. It is the only function of the package that
// writes an error status.
func (s *Server) fail(w http.ResponseWriter, c *call, err error) {
	e, ok := errors.AsType[*refusal](err)
	if !ok {
		e = errInternal
		s.log().Error("a token request failed", "id", c.id, "err", err)
	}
	if e.wait == 0 && e.status == http.StatusServiceUnavailable {
		e = e.after(time.Second)
	}
	if e.wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.wait.Seconds()))))
	}
	if c.page != nil {
		c.page.Error, c.page.ID = e.text, c.id
		c.page.send(w, e.status)
		return
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
