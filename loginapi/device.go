package loginapi

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"cove.example/cove/device"
	"cove.example/cove/directory"
	"cove.example/cove/link"
	"cove.example/cove/token"
)

// deviceGrant is how a program asks whether the person has signed in (RFC 8628
// §3.4), and devicePath the page where the person does.
const (
	deviceGrant = "urn:ietf:params:oauth:grant-type:device_code"
	devicePath  = "/device"
)

// The failures. Those of a program are RFC 8628's (§3.5).
var (
	errPending   = &refusal{status: http.StatusBadRequest, error: "authorization_pending", code: 70016, text: "OAuth 2.0 device flow error. Authorization is pending. Continue polling."}
	errSlowDown  = &refusal{status: http.StatusBadRequest, error: "slow_down", code: 70016, text: "OAuth 2.0 device flow error. The program asks too often; it must wait longer between two questions."}
	errDeclined  = &refusal{status: http.StatusBadRequest, error: "access_denied", code: 70018, text: "The person has declined to sign this program in."}
	errCodeEnded = &refusal{status: http.StatusBadRequest, error: "expired_token", code: 70020, text: "The provided value for the input parameter 'device_code' has expired. Begin again."}
	errCode      = &refusal{status: http.StatusBadRequest, error: "invalid_grant", code: 70019, text: "The provided value for the input parameter 'device_code' is not valid, or has been used."}
	errFull      = &refusal{status: http.StatusTooManyRequests, error: "temporarily_unavailable", code: 50196, text: "Too many sign-ins by code are under way. Try again later."}
	errCross     = &refusal{status: http.StatusForbidden, error: "invalid_request", code: 90023, text: "The form was not sent from this page. Open the page again, and allow it its cookie."}
	errUserCode  = &refusal{status: http.StatusBadRequest, error: "invalid_request", code: 70019, text: "This code is not known, or has been used, or is older than 15 minutes. Compare it with the one that the program shows, or begin again there."}
)

// people reports whether people sign in here with a code.
func (s *Server) people() bool { return s.People && s.Devices != nil }

// beginDevice is a program's first request (RFC 8628 §3.1).
func (s *Server) beginDevice(c *call) (any, error) {
	form, err := readForm(c.r)
	if err != nil {
		return nil, err
	}
	g, err := s.readPerson(form, "", "")
	if err != nil {
		return nil, err
	}
	if !s.people() {
		return nil, errGrantType
	}
	codes, err := s.Devices.Begin(c.ctx, device.Login{
		Client: g.client, Tenant: c.tenant, Audience: g.audience, From: strings.TrimSpace(source(c)),
	})
	if errors.Is(err, device.ErrFull) {
		return nil, errFull.after(device.Life)
	}
	if err != nil {
		return nil, err
	}
	at := "https://" + c.host + devicePath
	return map[string]any{
		"user_code": codes.User, "device_code": codes.Device.Reveal(), "verification_uri": at,
		"expires_in": int(device.Life.Seconds()), "interval": int(device.Interval.Seconds()),
		"message": "To sign in, use a web browser to open the page " + at + " and enter the code " + codes.User + " to authenticate.",
	}, nil
}

// poll is a program's question, and its answer the tokens (RFC 8628 §3.4).
func (s *Server) poll(c *call, form url.Values) (any, error) {
	if !s.people() {
		return nil, errGrantType
	}
	// What the token is for was said at the beginning, and the person has read
	// it: a scope that is named now changes nothing, and az names none.
	for _, name := range []string{"client_id", "device_code", "scope", "resource"} {
		if len(form[name]) > 1 {
			return nil, errRequest.because("The parameter '" + name + "' is given more than once.")
		}
	}
	client, code := strings.ToLower(form.Get("client_id")), form.Get("device_code")
	switch {
	case client == "" || code == "":
		return nil, errRequest.because("The request body must contain the parameters 'client_id' and 'device_code'.")
	case publicClients[client] == "":
		return nil, errProgram
	}
	l, err := s.Devices.Poll(c.ctx, client, c.tenant, code)
	for _, known := range []struct {
		err error
		say *refusal
	}{{device.ErrPending, errPending}, {device.ErrSlow, errSlowDown}, {device.ErrDenied, errDeclined}, {device.ErrEnded, errCodeEnded}, {device.ErrUnknown, errCode}} {
		if errors.Is(err, known.err) {
			return nil, known.say
		}
	}
	if err != nil {
		return nil, err
	}
	// The person may have been disabled, or have another password, since.
	who, err := s.standing(c, l.ObjectID, l.Credential)
	if err != nil {
		return nil, err
	}
	return s.welcome(asked{client: client, audience: l.Audience}, who, l.Credential, l.Begun.Add(token.SessionLife))
}

// devicePage is the page. Nobody is signed in to it: each form carries the
// person's name and password, and nothing stays in the browser but the cookie
// that ties a form to the page it came from.
func (s *Server) devicePage(c *call) error {
	c.page = &page{}
	switch c.r.Method {
	case http.MethodGet:
		c.page.begin(c.r)
		return nil
	case http.MethodPost:
		return s.answerDevice(c)
	}
	return errRoute
}

// formCookie ties a form to the browser that was given it. By its prefix no
// other host, and none below this one, can set it.
const formCookie = "__Host-cove-device"

// begin gives the page its cookie, the one that the browser has if it has one.
func (p *page) begin(r *http.Request) {
	if had, err := r.Cookie(formCookie); err == nil && len(had.Value) == len(rand.Text()) {
		p.Form = had.Value
		return
	}
	p.Form, p.fresh = rand.Text(), true
}

// fromHere reports whether the form in a request is one that this browser was
// given. Without it another site could have a person's browser answer a code
// that is not the person's.
func fromHere(r *http.Request, form url.Values) bool {
	had, err := r.Cookie(formCookie)
	return err == nil && had.Value != "" && http.NewCrossOriginProtection().Check(r) == nil &&
		subtle.ConstantTimeCompare([]byte(had.Value), []byte(form.Get("form"))) == 1
}

// answerDevice is a form: a code, and then what is to become of it.
func (s *Server) answerDevice(c *call) error {
	form, err := readForm(c.r)
	if err != nil {
		return err
	}
	for _, v := range form {
		if len(v) > 1 {
			return errRequest
		}
	}
	if !fromHere(c.r, form) {
		return errCross
	}
	c.page.begin(c.r)
	code := form.Get("code")
	l, err := s.shown(c, code)
	if err != nil {
		return err
	}
	c.page.Code, c.page.Client, c.page.From, c.page.Audience = code, publicClients[l.Client], l.From, l.Audience
	switch form.Get("answer") {
	case "":
		return nil
	case "decline":
		err = s.Devices.Deny(c.ctx, code)
		c.page.Done = "The sign-in was declined. You can close this page."
	case "approve":
		var in directory.SignIn
		if in, err = s.byPassword(c, l.Tenant, form.Get("username"), form.Get("password")); err != nil {
			return err
		}
		err = s.Devices.Approve(c.ctx, code, in.ObjectID, in.KeyID)
		c.page.Done = "You have signed in to " + c.page.Client + " on the other device. You can close this page."
	default:
		return errRequest
	}
	if err != nil {
		c.page.Done = ""
	}
	if errors.Is(err, device.ErrUnknown) { // somebody was faster
		c.page.Code, err = "", errUserCode
	}
	return err
}

// shown is the login of a code. Who guesses codes is slowed down: all codes
// are one name, so that many guessers leave each other few free guesses. A
// right one forgives nothing, else a guesser would begin logins to know some.
func (s *Server) shown(c *call, code string) (device.Login, error) {
	g := s.Guesses.Guess(link.From(c.ctx), "login by code", "", code)
	if wait := s.Guesses.Wait(g, s.now()); wait > 0 {
		return device.Login{}, errGuesses.after(wait)
	}
	l, err := s.Devices.Show(c.ctx, code)
	if errors.Is(err, device.ErrUnknown) {
		s.Guesses.Failed(g, s.now())
		err = errUserCode
	}
	return l, err
}
