package health

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/reason"
)

// asker speaks to a registry as a container engine does.
type asker struct {
	c    *Check
	base string // https://host[:port]
	http *http.Client
	// Once signed in: where tokens come from, and what was exchanged for them.
	from    challenge
	refresh string
}

const (
	maxAnswer   = 4 << 20 // of a manifest (source: the distribution specification's minimum)
	maxLayer    = 1 << 20 // of a layer that is read whole, so that its digest can be compared
	maxPart     = 64 << 10
	maxBlobs    = 256 // that are asked about; each of them takes a request
	maxAtOnce   = 8
	maxSkew     = 5 * time.Minute
	endsSoon    = 7 * 24 * time.Hour
	maxRedirect = 3
)

func newAsker(c *Check, at place) *asker {
	a := &asker{c: c, base: "https://" + c.Target.Host}
	a.http = &http.Client{
		// A redirect is followed by hand: what it says is part of the check,
		// and the credential stays here.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				// A little less than the request has, so that what is told is
				// what the connection met.
				ctx, cancel := context.WithTimeout(ctx, Patience-Patience/5)
				defer cancel()
				to := at
				if address != net.JoinHostPort(at.host, at.port) {
					var r Result
					if to, r = c.look(ctx, strings.TrimSuffix(address, ":443")); r.Outcome == Failed {
						return nil, &wayError{r}
					}
				}
				conn, r := c.reach(ctx, to)
				if r.Outcome == Failed {
					return nil, &wayError{r}
				}
				return conn, nil
			},
			TLSClientConfig:       &tls.Config{RootCAs: c.Way.Roots, MinVersion: tls.VersionTLS12, Time: c.Way.Now},
			TLSHandshakeTimeout:   Patience,
			ResponseHeaderTimeout: Patience,
			ForceAttemptHTTP2:     true,
			MaxConnsPerHost:       maxAtOnce,
		},
	}
	return a
}

func (a *asker) close() { a.http.CloseIdleConnections() }

// wayError is a failure on the way of a request, already judged.
type wayError struct{ result Result }

func (e *wayError) Error() string { return e.result.Said }

// answer is a response, read.
type answer struct {
	status int
	header http.Header
	body   []byte
	id     string   // correlation id
	at     *url.URL // where it came from
	codes  []string
	said   string // the first error's message
	cause  reason.Code
}

// do sends a request and reads the answer whole, up to limit.
func (a *asker) do(ctx context.Context, method, target string, header http.Header, form url.Values, limit int64) (answer, error) {
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return answer{}, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	req.Header.Set("User-Agent", "cove-check-health")
	resp, err := a.http.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	out := answer{status: resp.StatusCode, header: resp.Header, id: idText.FindString(resp.Header.Get("X-Ms-Correlation-Request-Id"))}
	if out.body, err = io.ReadAll(io.LimitReader(resp.Body, limit)); err != nil {
		return answer{}, err
	}
	out.read()
	return out, nil
}

// follow sends a request and goes where the registry sends it. from is the host
// that answered, which has not seen the credential if it is another.
func (a *asker) follow(ctx context.Context, method, target string, header http.Header, limit int64) (x answer, from string, err error) {
	at, err := url.Parse(target)
	if err != nil {
		return x, "", err
	}
	from, header = at.Host, header.Clone()
	for range maxRedirect {
		if x, err = a.do(ctx, method, target, header, nil, limit); err != nil {
			return answer{at: at}, from, err
		}
		switch x.status {
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		default:
			x.at = at
			return x, from, nil
		}
		to, err := at.Parse(x.header.Get("Location"))
		if err != nil || to.Scheme != "https" || to.Host == "" {
			return x, from, &wayError{astray("%s redirects to something that is no https URL", from)}
		}
		if to.Host != at.Host {
			header.Del("Authorization")
		}
		target, from, at = to.String(), to.Host, to
	}
	return x, from, &wayError{astray("the registry redirects more than %d times, last to %s", maxRedirect, from)}
}

func astray(format string, args ...any) (r Result) {
	r.fail(reason.DataBlocked, format, args...)
	return r
}

// idText is a correlation id. It becomes a part of a command that people copy,
// and may come from a server that has thought of that.
var idText = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)

var codeText = regexp.MustCompile(`COVE-[A-Z]+-[0-9]{3}`)

// read takes the error envelope apart: the specification's codes, and cove's
// reason in the detail.
func (r *answer) read() {
	if r.status < 400 {
		return
	}
	var e struct {
		Errors []struct {
			Code    string          `json:"code"`
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
	}
	if json.Unmarshal(r.body, &e) != nil {
		return
	}
	for i, x := range e.Errors {
		r.codes = append(r.codes, x.Code)
		if i == 0 {
			r.said = x.Message
			r.cause = reason.Code(codeText.FindString(string(x.Detail)))
		}
	}
}

// is reports whether a registry wrote the error.
func (r *answer) isRegistry() bool { return len(r.codes) > 0 }

// refused judges an answer that is not the wanted one: who wrote it, and why.
// deny is the code of a 401.
func (a *asker) refused(r *Result, x answer, deny reason.Code) {
	r.ID = x.id
	words := x.said
	if words == "" {
		words = http.StatusText(x.status)
	}
	switch {
	case x.status == http.StatusTooManyRequests:
		r.fail(reason.Throttled, "429, wait %s s: %s", orUnknown(x.header.Get("Retry-After")), words)
	case !x.isRegistry() && strings.Contains(x.header.Get("Content-Type"), "html"):
		r.fail(reason.ProxyAnswers, "%d with a web page", x.status)
		r.Evidence = append(r.Evidence, "Server: "+orUnknown(x.header.Get("Server")))
	case x.status >= 500:
		r.fail(reason.ServerFails, "%d %s", x.status, words)
		if m, ok := Symptom("unknown: " + x.said); ok && (m.Code == reason.DatabaseAway || m.Code == reason.ServerFull) {
			r.Code = m.Code
		}
	case x.status == http.StatusForbidden && x.isRegistry():
		r.fail(reason.NetworkRefuses, "403 %s", words)
	case x.status == http.StatusForbidden:
		r.fail(reason.ProxyAnswers, "403, and not from a registry")
	case slices.Contains(x.codes, "REGISTRY_DISALLOWED_OPERATION"):
		r.fail(reason.LockForbids, "%d %s", x.status, words)
	case slices.Contains(x.codes, "BLOB_UNKNOWN"):
		r.fail(reason.LayerGone, "404 %s", words)
	case x.status == http.StatusNotFound && deny == reason.TokenLacks:
		r.fail(reason.ImageUnknown, "404 %s", words)
	case x.status == http.StatusUnauthorized:
		r.fail(deny, "401 %s", words)
	default:
		r.fail(reason.NoChallenge, "%d %s", x.status, words)
	}
	if x.cause != "" {
		r.Code = x.cause // the registry knows better, and may say it to this caller
	}
	switch r.Code {
	case reason.ImageUnknown, reason.LayerGone, reason.ServerFails, reason.DatabaseAway, reason.ServerFull:
		return // nobody has decided anything that could be explained
	}
	if r.ID != "" && a.c.Target.Explained {
		r.Fix = "cove explain " + r.ID
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "?"
	}
	return s
}

// broken judges a request that got no answer.
func (r *Result) broken(err error) {
	if w, ok := errors.AsType[*wayError](err); ok {
		r.take(w.result)
		return
	}
	if t := (interface{ Timeout() bool })(nil); errors.As(err, &t) && t.Timeout() {
		r.fail(reason.PathStalls, "the request was sent and no answer came")
		return
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		invalid, _ := errors.AsType[x509.CertificateInvalidError](err)
		switch _, name := errors.AsType[x509.HostnameError](err); {
		case name:
			r.Code = reason.CertificateName
		case invalid.Reason == x509.Expired && invalid.Cert != nil:
			r.Code = reason.CertificateTime
		default:
			r.Code = reason.AuthorityUnknown
		}
		r.fail(r.Code, "no TLS: %s", plain(err))
		return
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	r.fail(reason.PathCut, "no answer: %s", plain(err))
}

// challenge is what the registry says about signing in.
type challenge struct {
	scheme, realm, service string
}

// challenge asks for /v2/ and reads where tokens come from.
func (a *asker) challenge(ctx context.Context) (challenge, bool) {
	var found challenge
	var date string
	r := a.c.timed(ctx, LayerChallenge, a.c.Target.Host, func(ctx context.Context, r *Result) {
		x, from, err := a.follow(ctx, http.MethodGet, a.base+"/v2/", nil, maxAnswer)
		if err != nil {
			r.broken(err)
			return
		}
		date = x.header.Get("Date")
		if from != a.c.Target.Host {
			r.Evidence = append(r.Evidence, "the registry redirects to "+from)
		}
		switch html := strings.Contains(x.header.Get("Content-Type"), "html"); {
		case x.status == http.StatusOK && html:
			r.fail(reason.ProxyAnswers, "200 with a web page")
			r.Evidence = append(r.Evidence, "Server: "+orUnknown(x.header.Get("Server")))
			return
		case x.status == http.StatusOK && (a.c.Target.Repository != "" || x.header.Get("Docker-Distribution-Api-Version") != ""):
			// Whether it is a registry that says so, the manifest shows.
			r.Said = "open: nobody has to sign in"
			return
		case x.status == http.StatusOK:
			r.Outcome, r.Said = Unknown, "200, and nothing that says that a registry answered: name an image, and it is read"
			return
		case x.status != http.StatusUnauthorized:
			a.refused(r, x, reason.NoChallenge)
			return
		}
		if found = parseChallenge(x.header.Get("Www-Authenticate")); found.scheme == "" || found.scheme == "bearer" && found.realm == "" {
			r.fail(reason.NoChallenge, "401 without a challenge that names where tokens come from")
			return
		}
		r.Said = "401 as it should be; tokens from " + found.realm
		if found.scheme == "basic" {
			r.Said = "401 as it should be; signs in with Basic"
		}
	})
	if date != "" {
		a.c.clock(ctx, date)
	} else if r.Outcome != Failed {
		a.c.add(Result{Layer: LayerClock, Subject: "this machine", Outcome: Unknown, Said: "the server does not say what time it has"})
	}
	return found, r.Outcome != Failed
}

var param = regexp.MustCompile(`([a-z]+)="([^"]*)"`)

// parseChallenge reads the first challenge of a WWW-Authenticate header.
func parseChallenge(h string) challenge {
	scheme, rest, _ := strings.Cut(h, " ")
	out := challenge{scheme: strings.ToLower(scheme)}
	for _, m := range param.FindAllStringSubmatch(rest, -1) {
		switch m[1] {
		case "realm":
			out.realm = m[2]
		case "service":
			out.service = m[2]
		}
	}
	return out
}

// clock compares the server's Date with this machine's time.
func (c *Check) clock(ctx context.Context, date string) {
	c.timed(ctx, LayerClock, "this machine", func(_ context.Context, r *Result) {
		there, err := http.ParseTime(date)
		if err != nil {
			r.Outcome, r.Said = Unknown, "the server sends no date that can be read"
			return
		}
		skew := c.Way.Now().Sub(there).Round(time.Second)
		if skew.Abs() > maxSkew {
			r.fail(reason.ClockWrong, "%s here, %s at the server: %s apart", c.Way.Now().UTC().Format(time.DateTime), there.UTC().Format(time.DateTime), skew.Abs())
			return
		}
		r.Said = fmt.Sprintf("within %s of the server's", max(skew.Abs(), time.Second))
	})
}

// token is a registry token and what can be read in it.
type token struct {
	header string // Authorization
	ends   time.Time
	access []grant
	read   bool // access was read
}

type grant struct {
	Type, Name string
	Actions    []string
}

// signIn gets a token for the image, as whoever was given.
func (a *asker) signIn(ctx context.Context, ch challenge) (token, bool) {
	var t token
	a.from = ch
	r := a.c.timed(ctx, LayerSignIn, a.c.Target.Host, func(ctx context.Context, r *Result) {
		cred := a.c.Target.Credential
		if ch.scheme != "" && cred.Missing != nil {
			r.Outcome, r.Said = Unknown, "not tried: "+cred.Missing.Error()
			if fault.Is(cred.Missing, fault.Unauthenticated) {
				r.fail(reason.SignInRefused, "%s", cred.Missing)
			}
			return
		}
		switch ch.scheme {
		case "":
			r.Said = "not asked for"
			if cred.User != "" || cred.AccessToken != "" {
				r.Said += ": the credential was not tried"
			}
			return
		case "basic":
			if cred.User == "" {
				r.fail(reason.SignInRefused, "the registry asks for a user name and password, and none was given")
				return
			}
			t.header = basic(cred.User, cred.Password)
			if a.proved(ctx, r, t) {
				r.Said = "as " + cred.User
				r.ending(cred, a.c.Way.Now())
			}
			return
		case "bearer":
		default:
			r.fail(reason.NoChallenge, "the challenge %q is of no scheme that engines know", ch.scheme)
			return
		}
		if why := a.realm(ch, cred); why != "" {
			r.fail(reason.RealmElsewhere, "%s", why)
			if u, err := url.Parse(ch.realm); err == nil && u.Scheme == "https" && u.Host != "" {
				r.Fix = "if the registry's documentation names that host, add --token-host " + u.Host
			}
			return
		}
		if t = a.bearer(ctx, r, ch, cred); r.Outcome == Passed && a.c.Target.Repository == "" {
			a.proved(ctx, r, t) // with an image, its manifest proves it
		}
		if r.Outcome == Passed {
			r.ending(cred, a.c.Way.Now())
		}
	})
	return t, r.Outcome == Passed || r.Outcome == Warned
}

// proved asks whether the registry takes what was signed in with: that it
// was given out says nothing yet.
func (a *asker) proved(ctx context.Context, r *Result, t token) bool {
	x, err := a.do(ctx, http.MethodGet, a.base+"/v2/", a.headers(t, ""), nil, maxAnswer)
	switch {
	case err != nil:
		r.broken(err)
	case x.status != http.StatusOK:
		a.refused(r, x, reason.SignInRefused)
	default:
		return true
	}
	return false
}

// ending says how long the secret that was signed in with is good for.
func (r *Result) ending(cred Credential, now time.Time) {
	switch e := cred.Ends; {
	case e.IsZero():
	case e.Sub(now) < endsSoon:
		r.Outcome, r.Code = Warned, reason.CredentialEnds
		r.Said += "; the secret behind it ends on " + day(e)
	default:
		r.Said += "; the secret behind it is good for " + days(e.Sub(now))
	}
}

// realm says why credentials do not go to where the challenge sends them, ""
// where they may. The attack: an answer in the registry's place names a host
// of its own as the realm and collects what is sent there.
func (a *asker) realm(ch challenge, cred Credential) string {
	u, err := url.Parse(ch.realm)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Sprintf("the realm %q is no https URL", ch.realm)
	}
	host, _, err := splitHost(u.Host)
	ours, _, ourErr := splitHost(a.c.Target.Host)
	if err != nil || ourErr != nil {
		return fmt.Sprintf("the realm %q names no host", ch.realm)
	}
	if (cred.User != "" || cred.AccessToken != "") && !strings.EqualFold(host, ours) && !strings.EqualFold(u.Host, a.c.Target.TokenHost) {
		return "tokens come from " + u.Host
	}
	return ""
}

func basic(user string, password Secret) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+string(password)))
}

func (a *asker) scope() string {
	if a.c.Target.Repository == "" {
		return ""
	}
	return "repository:" + a.c.Target.Repository + ":pull"
}

// bearer gets a token at the realm.
func (a *asker) bearer(ctx context.Context, r *Result, ch challenge, cred Credential) token {
	who := "as nobody in particular"
	refresh, deny := "", reason.SignInRefused
	if cred.AccessToken != "" {
		realm, err := url.Parse(ch.realm)
		if err != nil {
			r.fail(reason.NoChallenge, "the realm is no URL")
			return token{}
		}
		x, err := a.do(ctx, http.MethodPost, "https://"+realm.Host+"/oauth2/exchange", nil, url.Values{
			"grant_type": {"access_token"}, "service": {ch.service}, "access_token": {string(cred.AccessToken)},
		}, maxAnswer)
		if err != nil {
			r.broken(err)
			return token{}
		}
		var out struct {
			Refresh string `json:"refresh_token"`
		}
		if x.status != http.StatusOK || json.Unmarshal(x.body, &out) != nil || out.Refresh == "" {
			a.refused(r, x, deny)
			r.Evidence = append(r.Evidence, "refused at /oauth2/exchange")
			return token{}
		}
		refresh, who = out.Refresh, "by exchange"
		a.refresh = refresh
	}
	x, err := a.fetch(ctx, ch, cred, refresh, a.scope())
	if err != nil {
		r.broken(err)
		return token{}
	}
	t, ok := x.token()
	if !ok {
		if x.status == http.StatusUnauthorized && cred.User == "" && refresh == "" {
			r.fail(deny, "the registry gives no token to nobody in particular, and no credential was given")
			r.Fix = "sign in with `cove login`, or add --username and --password-file"
			r.ID = x.id
			return token{}
		}
		a.refused(r, x, deny)
		return token{}
	}
	if cred.User != "" {
		who = "as " + cred.User
	}
	r.Said = "a token " + who
	if !t.ends.IsZero() {
		r.Said += ", good for " + minutes(t.ends.Sub(a.c.Way.Now()))
	}
	return t
}

// token reads a token out of the answer to fetch.
func (r *answer) token() (token, bool) {
	var out struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
	}
	if r.status != http.StatusOK || json.Unmarshal(r.body, &out) != nil || out.Token+out.Access == "" {
		return token{}, false
	}
	return readToken(cmp.Or(out.Access, out.Token)), true
}

// tokenFor gets a token for another scope, as whoever has signed in.
func (a *asker) tokenFor(ctx context.Context, scope string) (token, bool) {
	cred := a.c.Target.Credential
	switch a.from.scheme {
	case "":
		return token{}, true
	case "basic":
		return token{header: basic(cred.User, cred.Password)}, true
	}
	x, err := a.fetch(ctx, a.from, cred, a.refresh, scope)
	if err != nil {
		return token{}, false
	}
	return x.token()
}

// fetch asks the realm for a token: by POST with a refresh token, else by GET
// as engines do.
func (a *asker) fetch(ctx context.Context, ch challenge, cred Credential, refresh, scope string) (answer, error) {
	q := url.Values{"service": {ch.service}}
	if scope != "" {
		q.Set("scope", scope)
	}
	if refresh != "" {
		q.Set("grant_type", "refresh_token")
		q.Set("refresh_token", refresh)
		return a.do(ctx, http.MethodPost, ch.realm, nil, q, maxAnswer)
	}
	h := http.Header{}
	if cred.User != "" {
		h.Set("Authorization", basic(cred.User, cred.Password))
	}
	sep := "?"
	if strings.Contains(ch.realm, "?") {
		sep = "&"
	}
	return a.do(ctx, http.MethodGet, ch.realm+sep+q.Encode(), h, nil, maxAnswer)
}

// readToken reads what a token says of itself. It is not verified: whether it
// is good is for the registry to say.
func readToken(raw string) token {
	t := token{header: "Bearer " + raw}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return t
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return t
	}
	var claims struct {
		Expires int64   `json:"exp"`
		Access  []grant `json:"access"`
	}
	if json.Unmarshal(b, &claims) != nil {
		return t
	}
	if claims.Expires > 0 {
		t.ends = time.Unix(claims.Expires, 0)
	}
	t.access, t.read = claims.Access, claims.Access != nil
	return t
}

// permission compares what the token was issued for with what a pull needs.
// A token that cannot be read is judged by what the registry answers to it.
func (a *asker) permission(ctx context.Context, t token, manifest Result) {
	a.c.timed(ctx, LayerPermission, a.c.Target.Repository, func(_ context.Context, r *Result) {
		switch {
		case t.read && slices.ContainsFunc(t.access, func(g grant) bool {
			return g.Type == "repository" && (g.Name == a.c.Target.Repository || g.Name == "*") && (slices.Contains(g.Actions, "pull") || slices.Contains(g.Actions, "*"))
		}):
			r.Said = "the token lets pull " + a.c.Target.Repository
		case t.read:
			r.fail(reason.TokenLacks, "the token was issued without pull of %s", a.c.Target.Repository)
		case manifest.Outcome == Passed:
			r.Said = "the manifest was read with it"
		default:
			r.Outcome, r.Said = NotReached, "only the manifest shows it"
		}
	})
}
