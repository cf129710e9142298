package health

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"cove.example/cove/oci"
	"cove.example/cove/reason"
)

// asker speaks to a registry as a container engine does.
type asker struct {
	c    *Check
	base string // https://host[:port]
	http *http.Client
}

const (
	maxAnswer   = 4 << 20  // of a manifest (source: the distribution specification's minimum)
	maxLayer    = 32 << 20 // of a layer, read whole so that its digest can be compared
	maxSkew     = 5 * time.Minute
	endsSoon    = 7 * 24 * time.Hour
	maxRedirect = 3
)

func newAsker(c *Check, at place) *asker {
	a := &asker{c: c, base: "https://" + c.Target.Host}
	a.http = &http.Client{
		Timeout: patience,
		// A redirect is followed by hand: what it says is part of the check,
		// and the credential stays here.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
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
			TLSHandshakeTimeout:   patience,
			ResponseHeaderTimeout: patience,
			ForceAttemptHTTP2:     true,
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
	id     string // correlation id
	codes  []string
	said   string // the first error's message
	cause  reason.Code
}

// get sends a request and reads the answer whole, up to limit.
func (a *asker) do(ctx context.Context, method, target string, header http.Header, form url.Values, limit int64) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
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
	out := answer{status: resp.StatusCode, header: resp.Header, id: resp.Header.Get("X-Ms-Correlation-Request-Id")}
	if out.body, err = io.ReadAll(io.LimitReader(resp.Body, limit)); err != nil {
		return answer{}, err
	}
	out.read()
	return out, nil
}

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
func (r *Result) refused(x answer, deny reason.Code) {
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
	case x.status == http.StatusForbidden && x.isRegistry():
		r.fail(reason.NetworkRefuses, "403 %s", words)
	case x.status == http.StatusForbidden:
		r.fail(reason.ProxyAnswers, "403, and not from a registry")
	case x.status == http.StatusNotFound && slices.Contains([]reason.Code{reason.TokenLacks}, deny):
		r.fail(reason.ImageUnknown, "404 %s", words)
	case x.status == http.StatusUnauthorized:
		r.fail(deny, "401 %s", words)
	default:
		r.fail(reason.NoChallenge, "%d %s", x.status, words)
	}
	if x.cause != "" {
		r.Code = x.cause // the registry knows better, and may say it to this caller
	}
	if r.ID != "" {
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
		r.fail(reason.PathSilent, "the request was sent and no answer came")
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
	r := a.c.timed(LayerChallenge, a.c.Target.Host, func(r *Result) {
		x, err := a.do(ctx, http.MethodGet, a.base+"/v2/", nil, nil, maxAnswer)
		if err != nil {
			r.broken(err)
			return
		}
		date = x.header.Get("Date")
		switch {
		case x.status == http.StatusOK && x.header.Get("Docker-Distribution-Api-Version") != "":
			r.Said = "open: nobody has to sign in"
			return
		case x.status != http.StatusUnauthorized:
			r.refused(x, reason.NoChallenge)
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
		a.c.clock(date)
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
func (c *Check) clock(date string) {
	c.timed(LayerClock, "this machine", func(r *Result) {
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
	r := a.c.timed(LayerSignIn, a.c.Target.Host, func(r *Result) {
		cred := a.c.Target.Credential
		switch ch.scheme {
		case "":
			r.Said = "not asked for"
			return
		case "basic":
			if cred.User == "" {
				r.fail(reason.SignInRefused, "the registry asks for a user name and password, and none was given")
				return
			}
			t.header = basic(cred.User, cred.Password)
			r.Said = "as " + cred.User + ", proved by the next request"
			return
		case "bearer":
		default:
			r.fail(reason.NoChallenge, "the challenge %q is of no scheme that engines know", ch.scheme)
			return
		}
		if why := a.realm(ch, cred); why != "" {
			r.fail(reason.RealmElsewhere, "%s", why)
			return
		}
		t = a.bearer(ctx, r, ch, cred)
	})
	return t, r.Outcome != Failed
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
	if (cred.User != "" || cred.AccessToken != "") && !strings.EqualFold(host, ours) {
		return "tokens come from " + host
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
			r.refused(x, deny)
			r.Evidence = append(r.Evidence, "refused at /oauth2/exchange")
			return token{}
		}
		refresh, who = out.Refresh, "by exchange"
	}
	x, err := a.fetch(ctx, ch, cred, refresh)
	if err != nil {
		r.broken(err)
		return token{}
	}
	var out struct {
		Token  string `json:"token"`
		Access string `json:"access_token"`
	}
	if x.status != http.StatusOK || json.Unmarshal(x.body, &out) != nil || out.Token+out.Access == "" {
		if x.status == http.StatusUnauthorized && cred.User == "" && refresh == "" {
			r.fail(deny, "the registry gives nobody a token without a credential: give one with --username, or sign in with cove login")
			r.ID = x.id
			return token{}
		}
		r.refused(x, deny)
		return token{}
	}
	raw := out.Access
	if raw == "" {
		raw = out.Token
	}
	if cred.User != "" {
		who = "as " + cred.User
	}
	t := readToken(raw)
	r.Said = "a token " + who
	if !t.ends.IsZero() {
		r.Said += ", good for " + t.ends.Sub(a.c.Way.Now()).Round(time.Minute).String()
	}
	if e := cred.Ends; !e.IsZero() && e.Sub(a.c.Way.Now()) < endsSoon {
		r.Outcome, r.Code = Warned, reason.CredentialEnds
		r.Said += "; the secret behind it ends on " + day(e)
	}
	return t
}

// fetch asks the realm for a token: by POST with a refresh token, else by GET
// as engines do.
func (a *asker) fetch(ctx context.Context, ch challenge, cred Credential, refresh string) (answer, error) {
	q := url.Values{"service": {ch.service}}
	if s := a.scope(); s != "" {
		q.Set("scope", s)
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
func (a *asker) permission(t token) {
	a.c.timed(LayerPermission, a.c.Target.Repository, func(r *Result) {
		switch {
		case t.header == "" || strings.HasPrefix(t.header, "Basic ") || !t.read && t.header != "":
			r.Outcome, r.Said = Passed, "the token says nothing; the manifest shows it"
		case slices.ContainsFunc(t.access, func(g grant) bool {
			return g.Type == "repository" && (g.Name == a.c.Target.Repository || g.Name == "*") && (slices.Contains(g.Actions, "pull") || slices.Contains(g.Actions, "*"))
		}):
			r.Said = "the token lets pull " + a.c.Target.Repository
		default:
			r.fail(reason.TokenLacks, "the token was issued without pull of %s", a.c.Target.Repository)
		}
	})
}

var manifestTypes = strings.Join([]string{
	"application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
}, ", ")

type descriptor struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
	Platform  struct {
		OS           string `json:"os"`
		Architecture string `json:"architecture"`
	} `json:"platform"`
	URLs []string `json:"urls"`
}

type image struct {
	Manifests []descriptor `json:"manifests"`
	Config    descriptor   `json:"config"`
	Layers    []descriptor `json:"layers"`
}

// manifest reads the image's manifest: of an index, the platform's.
func (a *asker) manifest(ctx context.Context, t token) (image, bool) {
	var m image
	r := a.c.timed(LayerManifest, a.c.name(), func(r *Result) {
		ref := a.c.Target.Reference
		for range 2 {
			x, err := a.do(ctx, http.MethodGet, a.base+"/v2/"+a.c.Target.Repository+"/manifests/"+ref, a.headers(t, manifestTypes), nil, maxAnswer)
			if err != nil {
				r.broken(err)
				return
			}
			if x.status != http.StatusOK {
				r.refused(x, reason.TokenLacks)
				return
			}
			want := x.header.Get("Docker-Content-Digest")
			if d, err := oci.ParseDigest(ref); err == nil {
				want = d.String()
			}
			if want != "" && !matches(want, x.body) {
				r.fail(reason.BytesWrong, "the manifest's bytes are not those of %s", want)
				return
			}
			m = image{}
			if err := json.Unmarshal(x.body, &m); err != nil {
				r.fail(reason.ProxyAnswers, "what came is no manifest")
				return
			}
			r.Said = fmt.Sprintf("read, %d bytes, %s", len(x.body), orUnknown(want))
			if len(m.Manifests) == 0 {
				return
			}
			ref = a.platform(m.Manifests)
		}
		if len(m.Manifests) > 0 {
			r.Outcome, r.Said = Unknown, "an index of indexes"
		}
	})
	return m, r.Outcome == Passed
}

func (a *asker) headers(t token, accept string) http.Header {
	h := http.Header{}
	if t.header != "" {
		h.Set("Authorization", t.header)
	}
	if accept != "" {
		h.Set("Accept", accept)
	}
	return h
}

// platform is the manifest of an index that a pull here would take.
func (a *asker) platform(list []descriptor) string {
	want := a.c.Target.Platform
	if want == "" {
		want = "linux/" + runtime.GOARCH
	}
	for _, d := range list {
		if d.Platform.OS+"/"+d.Platform.Architecture == want {
			return d.Digest
		}
	}
	return list[0].Digest
}

// matches reports whether bytes have a digest.
func matches(digest string, b []byte) bool {
	d, err := oci.ParseDigest(digest)
	if err != nil {
		return false
	}
	alg, sum, _ := strings.Cut(d.String(), ":")
	h, ok := oci.NewHash(alg)
	if !ok {
		return false
	}
	h.Write(b)
	return fmt.Sprintf("%x", h.Sum(nil)) == sum
}

// blob fetches the image's smallest layer, following the registry to wherever
// it sends the client, and compares its digest.
func (a *asker) blob(ctx context.Context, t token, m image) {
	all := append(slices.Clone(m.Layers), m.Config)
	all = slices.DeleteFunc(all, func(d descriptor) bool {
		_, err := oci.ParseDigest(d.Digest)
		return err != nil || len(d.URLs) > 0
	})
	if layers := slices.DeleteFunc(slices.Clone(m.Layers), func(d descriptor) bool {
		return !slices.ContainsFunc(all, func(x descriptor) bool { return x.Digest == d.Digest })
	}); len(layers) > 0 {
		all = layers
	}
	a.c.timed(LayerBlob, a.c.name(), func(r *Result) {
		if len(all) == 0 {
			r.Said = "the image has none"
			return
		}
		d := slices.MinFunc(all, func(x, y descriptor) int { return int(min(max(x.Size-y.Size, -1), 1)) })
		a.layer(ctx, r, t, d)
	})
}

func (a *asker) layer(ctx context.Context, r *Result, t token, d descriptor) {
	target, header, from := a.base+"/v2/"+a.c.Target.Repository+"/blobs/"+d.Digest, a.headers(t, ""), a.c.Target.Host
	whole := d.Size <= maxLayer
	if !whole {
		header.Set("Range", "bytes=0-65535")
	}
	for range maxRedirect {
		x, err := a.do(ctx, http.MethodGet, target, header, nil, maxLayer)
		if err != nil {
			r.broken(err)
			if from != a.c.Target.Host {
				r.Evidence = append(r.Evidence, string(r.Code)+": "+r.Said)
				r.fail(reason.DataBlocked, "the registry sends layers to %s, and %s", from, r.Said)
			}
			return
		}
		if x.status == http.StatusTemporaryRedirect || x.status == http.StatusFound || x.status == http.StatusSeeOther {
			to, err := url.Parse(x.header.Get("Location"))
			if err != nil || to.Scheme != "https" && to.Host != "" {
				r.fail(reason.DataBlocked, "the registry redirects to something that is no https URL")
				return
			}
			to = must(url.Parse(target)).ResolveReference(to)
			// The registry's token stays with the registry.
			if to.Host != must(url.Parse(target)).Host {
				header.Del("Authorization")
			}
			target, from = to.String(), to.Host
			continue
		}
		if x.status != http.StatusOK && x.status != http.StatusPartialContent {
			r.refused(x, reason.TokenLacks)
			if from != a.c.Target.Host {
				r.Evidence = append(r.Evidence, "answered by "+from)
			}
			return
		}
		if whole && x.status == http.StatusOK && !matches(d.Digest, x.body) {
			r.fail(reason.BytesWrong, "the layer's bytes are not those of %s", d.Digest)
			return
		}
		r.Said = fmt.Sprintf("%s, %d bytes from %s", short(d.Digest), len(x.body), from)
		return
	}
	r.fail(reason.DataBlocked, "the registry redirects more than %d times", maxRedirect)
}

// must is for URLs that were made from parsed ones.
func must(u *url.URL, err error) *url.URL {
	if err != nil {
		return &url.URL{}
	}
	return u
}

func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19] + "…"
	}
	return digest
}
