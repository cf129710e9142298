// Package health checks the way to a registry from where it runs: names,
// connections, certificates, sign-in, and the bytes of the very image that is
// to be pulled. It sees what the registry cannot: packets that never arrived,
// a resolver that answers something else, a proxy that speaks for everybody.
//
// A layer that is good has been tried. What could not be tried because
// something before it failed is said to be not reached; nothing is called good
// for want of evidence. It works against any registry of the OCI distribution
// specification.
package health

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/reason"
)

// Target is what is checked.
type Target struct {
	Host string // the login server, lower case; with ":port" where that is not 443
	// Repository and Reference, a tag or digest, are the image; without them
	// the check ends with the token.
	Repository, Reference string
	Platform              string // "linux/amd64"; of an index this one is taken, else its first
	// DataHosts are the regions' data endpoints. The one that a layer is
	// fetched from is tried in any case.
	DataHosts []string
	// Holds are the addresses that the private endpoint of this network has
	// for a name. Nil is not known: then any address that works is good.
	Holds      map[string][]netip.Addr
	Credential Credential
	// TokenHost is where tokens come from, if that is not the registry's own
	// host: the credential goes to no other.
	TokenHost string
	// Explained is a registry of a deployment that `cove explain` can ask about
	// a refusal's id. Others send ids that mean nothing here.
	Explained bool
	// Last is the layer to end with; "" goes all the way.
	Last string
}

// Credential is who asks. The zero value asks as nobody.
type Credential struct {
	User     string
	Password Secret
	// AccessToken, of the Resource Manager or the registry's own audience, is
	// exchanged for a registry token, as `az acr login` does.
	AccessToken Secret
	// Ends is when the secret behind it expires; zero is not known.
	Ends time.Time
	// Missing says why there is no credential though there ought to be one: the
	// check then does not ask as nobody in its place. Only a
	// fault.Unauthenticated is a refusal.
	Missing error
}

// Secret prints as redacted.
type Secret string

func (Secret) String() string   { return "[redacted]" }
func (Secret) GoString() string { return "[redacted]" }

// Way is how requests leave: tests and members of a network without root have
// ways of their own.
type Way struct {
	Lookup Lookup
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	// Small is Dial for packets of at most size bytes, such as SmallDial. It is
	// tried where TLS gets no answer; nil tries nothing.
	Small func(ctx context.Context, network, address string, size int) (net.Conn, error)
	Proxy func(*url.URL) (*url.URL, error) // nil is no proxy
	Roots *x509.CertPool                   // nil is the system's
	Now   func() time.Time
	// Engines looks at the container engines of this machine, and at what keeps
	// their credentials for a host; nil skips them.
	Engines func(ctx context.Context, host string) []Result
	// Trusts says of the container engines of this machine whether they trust
	// what a host has shown, which the check may do by Roots alone; nil skips
	// them.
	Trusts func(host string, shown []*x509.Certificate, now time.Time) []Result
}

// Outcome is how a layer ended.
type Outcome string

// The outcomes.
const (
	Passed     Outcome = "passed"
	Failed     Outcome = "failed"
	Warned     Outcome = "warning"
	NotReached Outcome = "not reached"
	Unknown    Outcome = "unknown"
)

// Result is what became of one layer.
type Result struct {
	Layer    string      `json:"layer"`   // one of Layers
	Subject  string      `json:"subject"` // the host or thing that was tried
	Outcome  Outcome     `json:"outcome"`
	Said     string      `json:"said"` // what was measured
	Code     reason.Code `json:"code,omitempty"`
	Fix      string      `json:"fix,omitempty"` // a command or change that cures it, where one is known
	Evidence []string    `json:"evidence,omitempty"`
	ID       string      `json:"correlationId,omitempty"` // for `cove explain`
	Millis   int64       `json:"milliseconds"`
}

// The layers, in the order in which a pull meets them.
const (
	LayerControl    = "control plane" // what the answers are compared with
	LayerEngine     = "engine"
	LayerName       = "name"
	LayerConnect    = "connection"
	LayerTLS        = "certificate"
	LayerChallenge  = "challenge"
	LayerClock      = "clock"
	LayerSignIn     = "sign-in"
	LayerPermission = "permission"
	LayerManifest   = "manifest"
	LayerBlob       = "layers"
	LayerData       = "data endpoint"
)

// Layers are all of them.
var Layers = []string{LayerControl, LayerEngine, LayerName, LayerConnect, LayerTLS, LayerChallenge, LayerClock, LayerSignIn, LayerPermission, LayerManifest, LayerBlob, LayerData}

// Report is a whole check.
type Report struct {
	Target  string    `json:"target"`
	Time    time.Time `json:"time"`
	Results []Result  `json:"results"`
	Millis  int64     `json:"milliseconds"`
}

// Good reports whether nothing failed and nothing was left untried.
func (r Report) Good() bool {
	return !slices.ContainsFunc(r.Results, func(x Result) bool { return x.Outcome != Passed && x.Outcome != Warned })
}

// Count is how many results ended so.
func (r Report) Count(o Outcome) (n int) {
	for _, x := range r.Results {
		if x.Outcome == o {
			n++
		}
	}
	return n
}

// Patience is how long one layer waits, all its requests together: longer than
// a slow network needs, and short enough that a whole check ends while somebody
// is looking.
const Patience = 5 * time.Second

// Check is one run.
type Check struct {
	Target Target
	Way    Way
	Known  []Result // what the caller has found out already

	mu      sync.Mutex
	results []Result
}

// New returns a check of t by way w, or a fault.Invalid that says what cannot
// be checked.
func New(t Target, w Way) (*Check, error) {
	host, _, err := splitHost(t.Host)
	if err != nil || host == "" || strings.ContainsAny(t.Host, "/@ \x00") {
		return nil, fault.Newf(fault.Invalid, "%q is no host of a registry", t.Host)
	}
	if t.Repository != "" {
		if _, err := oci.ParseRepo(t.Repository); err != nil {
			return nil, fault.Newf(fault.Invalid, "%q is no repository name", t.Repository)
		}
		if t.Reference == "" {
			t.Reference = "latest"
		}
		if _, err := oci.ParseReference(t.Reference); err != nil {
			return nil, fault.Newf(fault.Invalid, "%q is no tag or digest", t.Reference)
		}
	}
	if w.Dial == nil {
		w.Dial = (&net.Dialer{}).DialContext
	}
	if w.Now == nil {
		w.Now = time.Now
	}
	if w.Lookup == nil {
		return nil, fault.Newf(fault.Invalid, "a check needs a way to look names up")
	}
	if t.Last != "" && !slices.Contains(Layers, t.Last) {
		return nil, fault.Newf(fault.Invalid, "there is no layer %q", t.Last)
	}
	return &Check{Target: t, Way: w}, nil
}

// ends reports whether layer is the last one to try.
func (c *Check) ends(layer string) bool { return c.Target.Last == layer }

// splitHost is host and port, 443 where none is written.
func splitHost(s string) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(s); err == nil {
		return host, port, nil
	}
	if strings.Contains(s, ":") {
		return "", "", err
	}
	return s, "443", nil
}

// add keeps a result.
func (c *Check) add(r Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results = append(c.results, r)
}

// timed runs one layer within its time and notes how long it took.
func (c *Check) timed(ctx context.Context, layer, subject string, fn func(ctx context.Context, r *Result)) Result {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	began := time.Now() // a duration: the wall clock of Way may be a test's
	r := Result{Layer: layer, Subject: subject, Outcome: Passed}
	fn(ctx, &r)
	r.Millis = time.Since(began).Milliseconds()
	c.add(r)
	return r
}

// fail makes r a failure.
func (r *Result) fail(code reason.Code, format string, args ...any) {
	r.Outcome, r.Code, r.Said = Failed, code, fmt.Sprintf(format, args...)
}

// Run checks everything and returns what was found, in the order of Layers.
// It does not stop at the first failure: whatever does not depend on what
// failed is tried.
func (c *Check) Run(ctx context.Context) Report {
	began := time.Now()
	c.results = append(c.results, c.Known...)
	var aside sync.WaitGroup
	if c.Way.Engines != nil {
		aside.Go(func() {
			for _, r := range c.Way.Engines(ctx, c.Target.Host) {
				c.add(r)
			}
		})
	}
	for _, host := range c.Target.DataHosts {
		aside.Go(func() { c.data(ctx, host) })
	}
	c.login(ctx)
	aside.Wait()

	c.mu.Lock()
	defer c.mu.Unlock()
	out := slices.Clone(c.results)
	slices.SortStableFunc(out, func(a, b Result) int {
		if d := slices.Index(Layers, a.Layer) - slices.Index(Layers, b.Layer); d != 0 || a.Layer != LayerData && a.Layer != LayerBlob {
			return d
		}
		return strings.Compare(a.Subject, b.Subject)
	})
	return Report{Target: c.name(), Time: c.Way.Now().UTC(), Results: out, Millis: time.Since(began).Milliseconds()}
}

func (c *Check) name() string {
	if c.Target.Repository == "" {
		return c.Target.Host
	}
	sep := ":"
	if strings.Contains(c.Target.Reference, ":") {
		sep = "@"
	}
	return c.Target.Host + "/" + c.Target.Repository + sep + c.Target.Reference
}

// login follows a pull through the login server.
func (c *Check) login(ctx context.Context) {
	at, named := c.named(ctx, LayerName, c.Target.Host)
	if c.ends(LayerName) || named.Outcome == Failed && len(at.addrs) == 0 {
		c.rest(LayerName, "needs the name")
		return
	}
	if !c.connected(ctx, at) || c.ends(LayerTLS) {
		return
	}
	ask := newAsker(c, at)
	defer ask.close()
	challenge, ok := ask.challenge(ctx)
	if !ok || c.ends(LayerChallenge) {
		c.rest(LayerChallenge, "needs the registry's challenge")
		return
	}
	token, ok := ask.signIn(ctx, challenge)
	if !ok || c.ends(LayerSignIn) {
		c.rest(LayerSignIn, "needs a token")
		return
	}
	if c.Target.Repository == "" {
		return
	}
	m, read := ask.manifest(ctx, token)
	ask.permission(ctx, token, read)
	if read.Outcome != Passed || c.ends(LayerManifest) {
		c.rest(LayerManifest, "needs the manifest")
		return
	}
	ask.blobs(ctx, token, m)
}

// way are the layers of a pull through the login server.
var way = []string{LayerName, LayerConnect, LayerTLS, LayerChallenge, LayerClock, LayerSignIn, LayerPermission, LayerManifest, LayerBlob}

// rest says of the layers behind one that they were not reached, but of those
// that were.
func (c *Check) rest(after, why string) {
	if c.ends(after) {
		return
	}
	for _, l := range way[slices.Index(way, after)+1:] {
		image := l == LayerPermission || l == LayerManifest || l == LayerBlob
		if (!image || c.Target.Repository != "") && !c.has(l) {
			c.add(Result{Layer: l, Subject: c.Target.Host, Outcome: NotReached, Said: why})
		}
		if c.ends(l) {
			return
		}
	}
}

// has reports whether there is a result of a layer.
func (c *Check) has(layer string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.ContainsFunc(c.results, func(r Result) bool { return r.Layer == layer })
}

// connected tries TCP and TLS to a host.
func (c *Check) connected(ctx context.Context, at place) bool {
	conn, r := c.connect(ctx, LayerConnect, at)
	if r.Outcome == Failed {
		c.rest(LayerConnect, "needs a connection")
		return false
	}
	defer conn.Close()
	if c.ends(LayerConnect) {
		return false
	}
	if c.secure(ctx, at, conn).Outcome == Failed {
		c.rest(LayerTLS, "needs TLS")
		return false
	}
	return true
}

// data tries the way to a data endpoint as far as it goes without a layer.
func (c *Check) data(ctx context.Context, host string) {
	c.timed(ctx, LayerData, host, func(ctx context.Context, r *Result) {
		at, named := c.look(ctx, host)
		if named.Outcome == Failed {
			if named.Code == reason.NamePublic {
				named.Code = reason.DataNamePublic
			}
			r.take(named)
			return
		}
		conn, reached := c.reach(ctx, at)
		if reached.Outcome == Failed {
			r.take(reached)
			return
		}
		defer conn.Close()
		safe, _ := c.shake(ctx, at, conn)
		r.take(safe)
		if safe.Outcome != Failed {
			r.Said = named.Said + " · " + reached.Said + " · " + safe.Said
		}
	})
}

// take gives r the finding of a part of it.
func (r *Result) take(part Result) {
	r.Outcome, r.Said, r.Code, r.Fix = part.Outcome, part.Said, part.Code, part.Fix
	r.Evidence = append(r.Evidence, part.Evidence...)
}

// proxyOf is the proxy of the environment for a host, if any.
func (c *Check) proxyOf(host string) (*url.URL, error) {
	if c.Way.Proxy == nil {
		return nil, nil
	}
	return c.Way.Proxy(&url.URL{Scheme: "https", Host: host})
}

// FromEnvironment is the proxy as clients take it: HTTPS_PROXY and NO_PROXY.
func FromEnvironment(u *url.URL) (*url.URL, error) {
	return http.ProxyFromEnvironment(&http.Request{URL: u})
}
