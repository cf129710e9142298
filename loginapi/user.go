package loginapi

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/token"
)

// publicClients are programs with which people sign in and that have no secret
// to prove themselves with (source: their own code).
var publicClients = map[string]string{
	"04b07795-8ddb-461a-bbee-02f9e1bf7b46": "Azure CLI",
	"1950a258-227b-4e31-a9cf-717495945fc2": "Azure PowerShell",
}

var (
	errPerson  = &refusal{status: http.StatusBadRequest, error: "invalid_grant", code: 50126, text: "Error validating credentials due to invalid username or password."}
	errGuesses = &refusal{status: http.StatusBadRequest, error: "invalid_grant", code: 50053, text: "You've tried to sign in too many times with an incorrect user ID or password. Try again later."}
	errRefresh = &refusal{status: http.StatusBadRequest, error: "invalid_grant", code: 70008, text: "The provided authorization code or refresh token has expired due to inactivity, or is not valid. Sign in again."}
	errProgram = &refusal{status: http.StatusBadRequest, error: "unauthorized_client", code: 700016, text: "The application was not found in the directory, or people do not sign in with it."}
	errBusy    = &refusal{status: http.StatusServiceUnavailable, error: "temporarily_unavailable", code: 90033, text: "Too many people are signing in at once. Try again."}
)

// person is the password grant (RFC 6749 §4.3), by which az signs people in
// with -u and -p.
func (s *Server) person(c *call, form url.Values) (any, error) {
	g, err := s.readPerson(form, "username", "password")
	if err != nil {
		return nil, err
	}
	in, err := s.byPassword(c, c.tenant, g.first, g.second)
	if err != nil {
		return nil, err
	}
	return s.welcome(g, in.Principal, in.KeyID, time.Time{})
}

// byPassword signs a person in.
func (s *Server) byPassword(c *call, tenant, upn, password string) (directory.SignIn, error) {
	g := s.Guesses.Chosen(link.From(c.ctx), realm(tenant), upn, password)
	in, err := s.attempt(c, errGuesses, g, func() (directory.SignIn, error) {
		in, err := s.Directory.SignInUser(c.ctx, upn, password)
		if err == nil && in.Tenant != tenant {
			err = directory.ErrSecret
		}
		return in, err
	})
	switch {
	case errors.Is(err, directory.ErrSecret):
		err = errPerson
	case errors.Is(err, directory.ErrBusy):
		err = errBusy
	}
	return in, err
}

// realm is where a name is somebody's, to whoever counts guesses.
func realm(tenant string) string { return "login " + tenant }

// attempt is one try of a password or secret, of somebody who has not failed
// too often: at this name from this address, or at many names from it. tooMany
// is what the others are told.
func (s *Server) attempt(c *call, tooMany *refusal, g access.Guess, try func() (directory.SignIn, error)) (directory.SignIn, error) {
	if wait := s.Guesses.Wait(g, s.now()); wait > 0 {
		return directory.SignIn{}, tooMany.after(wait)
	}
	in, err := try()
	// Tries that are sent all at once pass the first question together, and
	// then wait for the slow hash one behind the other. No more of them are
	// told what they have found than of tries that come in turn.
	if wait := s.Guesses.Wait(g, s.now()); wait > 0 {
		return directory.SignIn{}, tooMany.after(wait)
	}
	switch {
	case err == nil:
		s.Guesses.Succeeded(g, s.now())
	case errors.Is(err, directory.ErrSecret), errors.Is(err, directory.ErrDisabled), errors.Is(err, directory.ErrUnknown):
		s.Guesses.Failed(g, s.now())
	}
	return in, err
}

// again is the refresh grant (RFC 6749 §6). What the token was bought with must
// be good still.
func (s *Server) again(c *call, form url.Values) (any, error) {
	g, err := s.readPerson(form, "refresh_token", "")
	if err != nil {
		return nil, err
	}
	r, err := s.Tokens.VerifySession(g.first)
	if err != nil || r.Client != g.client || r.Tenant != c.tenant {
		return nil, errRefresh
	}
	who, err := s.standing(c, r.ObjectID, r.Credential)
	if err != nil {
		return nil, err
	}
	return s.welcome(g, who, r.Credential, r.Ends())
}

// standing is a person who has signed in before, if what that was done with is
// good still.
func (s *Server) standing(c *call, objectID, credential string) (directory.Principal, error) {
	who, err := s.Directory.Standing(c.ctx, objectID, credential)
	switch {
	case errors.Is(err, directory.ErrUnknown), errors.Is(err, directory.ErrDisabled), errors.Is(err, directory.ErrExpired):
		return who, errRefresh
	case err == nil && (who.Kind != directory.User || who.Tenant != c.tenant):
		return who, errRefresh
	}
	return who, err
}

// asked is a request of a public client, read.
type asked struct {
	client, audience string
	first, second    string
}

func (s *Server) readPerson(form url.Values, first, second string) (asked, error) {
	for _, name := range []string{"client_id", "scope", "resource", first, second} {
		if len(form[name]) > 1 {
			return asked{}, errRequest.because("The parameter '" + name + "' is given more than once.")
		}
	}
	g := asked{client: strings.ToLower(form.Get("client_id"))}
	if first != "" {
		g.first = form.Get(first)
	}
	if second != "" {
		g.second = form.Get(second)
	}
	switch {
	case !s.People:
		return g, errGrantType
	case g.client == "":
		return g, errRequest.because("The request body must contain the parameter 'client_id'.")
	case publicClients[g.client] == "":
		return g, errProgram
	case first != "" && g.first == "" || second != "" && g.second == "":
		return g, errRequest.because("The request body must contain the parameters that the grant needs.")
	}
	var err error
	g.audience, err = s.audience(form.Get("scope"), form.Get("resource"))
	return g, err
}

// welcome is the answer to a person who has signed in, in the form that MSAL
// wants of it: with who it is, twice. until, where it is not zero, is the end of
// what the token is bought with: the token does not outlive it.
func (s *Server) welcome(g asked, who directory.Principal, keyID string, until time.Time) (any, error) {
	text, claims, err := s.Tokens.MintPrincipal(token.PrincipalClaims{
		Times:    token.EndingBy(until),
		Audience: g.audience, ObjectID: who.ObjectID, Tenant: who.Tenant, AppID: g.client, AppACR: "0", IDType: "user",
		UPN: who.UPN, UniqueName: who.UPN, Name: who.Name, Scope: "user_impersonation", Credential: keyID,
	})
	if err != nil {
		return nil, err
	}
	id, err := s.Tokens.MintID(token.IDClaims{Audience: g.client, ObjectID: who.ObjectID, Tenant: who.Tenant, Username: who.UPN, Name: who.Name})
	if err != nil {
		return nil, err
	}
	session, err := s.Tokens.MintSession(token.Session{Client: g.client, ObjectID: who.ObjectID, Tenant: who.Tenant, Credential: keyID})
	if err != nil {
		return nil, err
	}
	info, err := json.Marshal(map[string]string{"uid": who.ObjectID, "utid": who.Tenant})
	if err != nil {
		return nil, err
	}
	life := claims.Expires - claims.Issued
	return map[string]any{
		"token_type": "Bearer", "expires_in": life, "ext_expires_in": life, "scope": g.audience + "/.default",
		"access_token": text, "refresh_token": session, "id_token": id, "client_info": base64.RawURLEncoding.EncodeToString(info),
	}, nil
}

// source is where a request comes from: an address, or the half of an IPv6 one
// that a customer has, in its network.
func source(c *call) string {
	o := link.From(c.ctx)
	a := o.Remote.Addr().Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
	}
	return o.Network + " " + a.String()
}
