package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"cove.example/cove/client"
	"cove.example/cove/fault"
	"cove.example/cove/health"
	"cove.example/cove/link/wireguard"
	"cove.example/cove/reason"
)

// checkFlags say what is checked, as whom, and from where.
type checkFlags struct {
	image, platform    string
	user, passwordFile string
	anonymous, engines bool
	vnet, userspace    string
	resolver, caFile   string
	tokenHost          string
}

func (f *checkFlags) add(c *cobra.Command) {
	fs := c.Flags()
	fs.StringVar(&f.image, "image", "", "the image to pull, REPOSITORY[:TAG|@DIGEST]")
	fs.StringVar(&f.platform, "platform", "", "of an image for several, the one to check (default linux and this machine's processor)")
	fs.StringVarP(&f.user, "username", "u", "", "sign in with this user name and a password (default: as cove login did)")
	fs.StringVar(&f.passwordFile, "password-file", "", "file that holds the password (default standard input)")
	fs.BoolVar(&f.anonymous, "anonymous", false, "do not sign in")
	fs.StringVar(&f.vnet, "vnet", "", "the virtual network that this machine is in: its private endpoint must be the one that is reached")
	fs.StringVar(&f.userspace, "userspace", "", "check from inside VNET/SUBNET, as a member that lasts as long as the check")
	fs.StringVar(&f.resolver, "resolver", "", "ask this DNS server, IP[:PORT], in place of the machine's own")
	fs.StringVar(&f.tokenHost, "token-host", "", "a host, besides the registry's own, that the credential may be given to for a token")
	fs.StringVar(&f.caFile, "ca-file", "", "the authority to trust besides the system's (default: the server's that this machine knows)")
}

func (a *app) checkCommand() *cobra.Command {
	f := checkFlags{engines: true}
	c := a.asClient(&cobra.Command{
		Use: "check-health REGISTRY | HOST[/REPOSITORY[:TAG]]", Short: "Try everything a pull needs, from here, and say what fails",
		Long: `Try everything that a pull needs, from this machine: names, connections,
certificates, sign-in, the image's manifest and a layer of it, and every data
endpoint. What cannot be tried because something before it failed is said to be
not reached. It needs no container engine, and works with any registry.

Give an image: only then are the permission, the manifest and the layers tried.

It ends with 0 when all is well, 1 when something failed, and 3 when something
could not be determined.`,
		Example: `  cove check-health myregistry --image team/app:1.4
  cove check-health myregistry --vnet office --image team/app:1.4
  cove check-health myregistry --userspace office/default --image team/app:1.4
  cove check-health registry.example.com/team/app:1.4 --username ci --password-file pw`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.names(typeRegistry),
		RunE:              func(cmd *cobra.Command, args []string) error { return a.check(cmd.Context(), f, args[0], "") },
	})
	c.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	f.add(c)
	return c
}

// probes are the layers that can be tried alone, by the words of the command
// line.
var probes = map[string]string{
	"dns": health.LayerName, "tcp": health.LayerConnect, "tls": health.LayerTLS, "challenge": health.LayerChallenge,
	"token": health.LayerSignIn, "manifest": health.LayerManifest, "blob": health.LayerBlob,
}

func (a *app) probeCommand() *cobra.Command {
	var f checkFlags
	c := a.asClient(&cobra.Command{
		Use: "probe LAYER REGISTRY | HOST[/REPOSITORY[:TAG]]", Short: "Try one layer of a pull",
		Long:    "Try one layer of a pull, and what it needs, from this machine: dns, tcp, tls,\nchallenge, token, manifest or blob. See cove check-health for all of them at once.",
		Example: "  cove probe tls myregistry.cr.cove.internal\n  cove probe blob myregistry --image team/app:1.4",
		Args:    cobra.ExactArgs(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return slices.Sorted(maps.Keys(probes)), cobra.ShellCompDirectiveNoFileComp
			}
			return a.names(typeRegistry)(cmd, args, word)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			layer, ok := probes[args[0]]
			if !ok {
				return usagef("there is no probe %q: dns, tcp, tls, challenge, token, manifest or blob", args[0])
			}
			return a.check(cmd.Context(), f, args[1], layer)
		},
	})
	c.PersistentFlags().StringVarP(&a.group, "resource-group", "g", "", "the registry's resource group")
	f.add(c)
	return c
}

// check runs the layers up to last, all of them for "", and prints them.
func (a *app) check(ctx context.Context, f checkFlags, what, last string) error {
	t, err := f.target(what)
	if err != nil {
		return err
	}
	t.Last = last
	if (last == health.LayerManifest || last == health.LayerBlob) && t.Repository == "" {
		return usagef("say which image with --image, as in --image team/app:1.4")
	}
	cl, err := a.known()
	if err != nil {
		return err
	}
	t.TokenHost = f.tokenHost
	seen, err := a.aim(ctx, cl, &f, &t)
	if err != nil {
		return err
	}
	if err := a.identify(ctx, cl, f, &t); err != nil {
		return err
	}
	w := health.Way{Proxy: health.FromEnvironment}
	if w.Roots, err = a.trusted(cl, f.caFile); err != nil {
		return err
	}
	if f.engines {
		w.Engines, w.Trusts = health.Machine{}.Engines, health.Machine{}.Trusts
	}
	where := "this machine"
	if f.userspace != "" {
		leave, err := a.inside(ctx, f, &w)
		if err != nil {
			return err
		}
		defer leave()
		where = f.userspace
	} else if err := outside(f.resolver, &w); err != nil {
		return err
	}
	c, err := health.New(t, w)
	if err != nil {
		return usageError{err}
	}
	c.Known = seen.compared
	report := c.Run(ctx)
	strays(report, seen.held)
	if t.Holds != nil && f.userspace == "" {
		forwards(ctx, report, c.Way, t.Holds, cl.Profile.RegistrySuffix)
	}
	cures(report, cl, f, seen.endpoint)
	a.walls(ctx, cl, f, t.Host, c.Way, report)
	if a.print.format != "table" || a.print.query != "" {
		if err := a.print.shown(report); err != nil {
			return err
		}
	} else if err := diagnose(a.out, report, where); err != nil {
		return err
	}
	switch {
	case report.Count(health.Failed) > 0:
		return exitStatus(exitFailed)
	case !report.Good():
		return exitStatus(exitUnknown)
	}
	return nil
}

// target reads what is to be checked: a registry's name, a host, or an image
// with its host.
func (f *checkFlags) target(what string) (health.Target, error) {
	// People have it from a browser, or from skopeo.
	for _, scheme := range []string{"https://", "docker://", "oci://"} {
		what = strings.TrimPrefix(what, scheme)
	}
	what = strings.TrimSuffix(strings.TrimSuffix(what, "/"), "/v2")
	t := health.Target{Host: strings.ToLower(what), Platform: f.platform}
	host, image, _ := strings.Cut(what, "/")
	if image != "" {
		if f.image != "" {
			return t, usagef("name the image once: in --image or behind the host")
		}
		t.Host, f.image = strings.ToLower(host), image
	}
	if f.image == "" {
		return t, nil
	}
	t.Repository, t.Reference = f.image, "latest"
	if name, digest, ok := strings.Cut(f.image, "@"); ok {
		t.Repository, t.Reference = name, digest
	} else if i := strings.LastIndexByte(f.image, ':'); i > strings.LastIndexByte(f.image, '/') {
		t.Repository, t.Reference = f.image[:i], f.image[i+1:]
	}
	return t, nil
}

// known is the server that this machine knows, or nil: a registry can be
// checked without one.
func (a *app) known() (*client.Client, error) {
	cl, err := a.client()
	if err != nil && a.data != "" {
		return nil, err
	}
	if err != nil {
		return nil, nil
	}
	return cl, nil
}

// aimed is what the control plane knows that the answers are compared with.
type aimed struct {
	endpoint string   // the registry's private endpoint in the caller's network
	held     []holder // where the caller's network is not known
	compared []health.Result
}

// aim completes the target with what the control plane knows of the registry:
// its login server, its data endpoints, and what the private endpoint of the
// caller's network holds. A pull does not need the control plane, and a check goes on without it; but then it says so, because there is
// less to compare the answers with.
func (a *app) aim(ctx context.Context, cl *client.Client, f *checkFlags, t *health.Target) (seen aimed, err error) {
	name, suffix, isHost := strings.Cut(t.Host, ".")
	if cl == nil {
		if !isHost {
			return seen, fault.Newf(fault.Invalid, "no server is known that could say where the registry %s is: give its login server, or use --data or `cove login`", t.Host)
		}
		return seen, nil
	}
	ctx, cancel := context.WithTimeout(ctx, health.Patience)
	defer cancel()
	// Where it cannot be had, compare below says why.
	if known, _ := registrySuffix(ctx, cl); isHost && !strings.EqualFold(suffix, known) {
		return seen, nil // somebody else's registry
	}
	t.Explained = true
	if f.vnet == "" {
		f.vnet, _, _ = strings.Cut(f.userspace, "/")
	}
	began := time.Now()
	seen, err = a.compare(ctx, cl, f, name, t)
	if err == nil {
		return seen, nil
	}
	if !isHost {
		if cl.Profile.RegistrySuffix == "" {
			return seen, err
		}
		t.Host = name + "." + cl.Profile.RegistrySuffix
	}
	r := health.Result{
		Layer: health.LayerControl, Subject: cl.Profile.ResourceManager, Outcome: health.Unknown, Millis: time.Since(began).Milliseconds(),
		Said: sentence(err), Evidence: []string{"not compared: the data endpoints of all regions, and the addresses that private endpoints hold"},
	}
	if f.vnet == "" && (client.NotFound(err) || fault.Is(err, fault.NotFound) || fault.Is(err, fault.Denied)) {
		r.Outcome = health.Warned // who pulls need not be somebody who may read the registry
	}
	return aimed{compared: []health.Result{r}}, nil
}

// compare reads what the control plane knows of a registry.
func (a *app) compare(ctx context.Context, cl *client.Client, f *checkFlags, name string, t *health.Target) (seen aimed, err error) {
	doc, err := a.get(ctx, cl, typeRegistry, name)
	if err != nil {
		return seen, err
	}
	if server, ok := dig(doc, "properties", "loginServer").(string); ok && !strings.Contains(t.Host, ".") {
		t.Host = server
	}
	if on, _ := dig(doc, "properties", "dataEndpointEnabled").(bool); on {
		hosts, _ := dig(doc, "properties", "dataEndpointHostNames").([]any)
		for _, h := range hosts {
			t.DataHosts = append(t.DataHosts, text(h))
		}
	}
	if f.user != "" {
		if t.Credential.Ends, err = a.tokenEnds(ctx, cl, doc, f.user); err != nil {
			return seen, err
		}
	}
	if f.vnet == "" {
		seen.held = endpointsTo(ctx, cl, text(doc["id"]))
		return seen, nil
	}
	if seen.endpoint, err = a.holds(ctx, cl, doc, f.vnet, t); err == nil && seen.endpoint == "" {
		zone := privatePrefix + cl.Profile.RegistrySuffix
		seen.compared = []health.Result{absent(endpointsTo(ctx, cl, text(doc["id"])), lastName(f.vnet), text(doc["name"]), zone)}
	}
	return seen, err
}

// tokenEnds is when the last password of a registry's token ends, the zero time
// where there is no such token or its passwords do not end.
func (a *app) tokenEnds(ctx context.Context, cl *client.Client, registry client.Object, name string) (last time.Time, err error) {
	doc, err := cl.Get(ctx, text(registry["id"])+"/tokens/"+url.PathEscape(name))
	if err != nil {
		if e, ok := errors.AsType[*client.Error](err); ok && e.Status < 500 {
			err = nil // no token, or none that we may see
		}
		return last, err
	}
	list, _ := dig(doc, "properties", "credentials", "passwords").([]any)
	for _, p := range list {
		o, _ := p.(client.Object)
		ends, err := time.Parse(time.RFC3339, text(o["expiry"]))
		if err != nil {
			return time.Time{}, nil // one that does not end
		}
		if ends.After(last) {
			last = ends
		}
	}
	return last, nil
}

func (a *app) get(ctx context.Context, cl *client.Client, typ, name string) (client.Object, error) {
	id, err := a.find(ctx, cl, typ, name)
	if err != nil {
		return nil, err
	}
	return cl.Get(ctx, id)
}

// holds gives the target the addresses of the registry's approved private
// endpoint in a virtual network, by name, and returns that endpoint's name. A
// connection that is not approved is left for the registry to refuse.
func (a *app) holds(ctx context.Context, cl *client.Client, registry client.Object, vnet string, t *health.Target) (endpoint string, err error) {
	vnetID, err := a.find(ctx, cl, typeVNet, vnet)
	if err != nil {
		return "", err
	}
	t.Holds = map[string][]netip.Addr{}
	list, _ := dig(registry, "properties", "privateEndpointConnections").([]any)
	for _, v := range list {
		conn, _ := v.(client.Object)
		id, _ := dig(conn, "properties", "privateEndpoint", "id").(string)
		if id == "" {
			continue
		}
		pe, err := cl.Get(ctx, id)
		if client.NotFound(err) {
			continue
		}
		if err != nil {
			return "", err
		}
		subnet, _ := dig(pe, "properties", "subnet", "id").(string)
		if !strings.HasPrefix(strings.ToLower(subnet), strings.ToLower(vnetID)+"/") {
			continue
		}
		endpoint = lastName(id)
		for name, addrs := range addressesOf(pe) {
			t.Holds[name] = append(t.Holds[name], addrs...)
		}
	}
	return endpoint, nil
}

// cures writes the commands that mend what was found, where the control plane
// can mend it.
func cures(r health.Report, cl *client.Client, f checkFlags, endpoint string) {
	for i, x := range r.Results {
		if f.caFile != "" && strings.HasPrefix(x.Fix, "cove trust ") {
			r.Results[i].Fix += " --ca-file " + shellQuoted(f.caFile)
		}
	}
	if endpoint == "" {
		return
	}
	unlinked := slices.ContainsFunc(r.Results, func(x health.Result) bool { return x.Code == reason.NamePublic })
	for i := range r.Results {
		if r.Results[i].Fix != "" {
			continue
		}
		switch code := r.Results[i].Code; {
		case code == reason.PrivateNoRecord, code == reason.NameElsewhere, code == reason.DataNamePublic && !unlinked:
			r.Results[i].Fix = "cove dns record sync --private-endpoint " + endpoint
		case code == reason.NamePublic, code == reason.DataNamePublic:
			r.Results[i].Fix = "cove dns link add " + privatePrefix + cl.Profile.RegistrySuffix + " --vnet " + f.vnet
		}
	}
}

// identify gives the target the credential to ask with.
func (a *app) identify(ctx context.Context, cl *client.Client, f checkFlags, t *health.Target) error {
	switch {
	case f.anonymous && f.user != "":
		return usagef("--anonymous and --username exclude each other")
	case f.anonymous, t.Last == health.LayerName, t.Last == health.LayerConnect, t.Last == health.LayerTLS, t.Last == health.LayerChallenge:
		return nil
	case f.user != "":
		in := a.in
		if f.passwordFile != "" {
			file, err := os.Open(f.passwordFile)
			if err != nil {
				return fault.Newf(fault.Invalid, "--password-file cannot be read: %v", err)
			}
			defer file.Close()
			in = file
		}
		s := bufio.NewScanner(io.LimitReader(in, maxSecret))
		if !s.Scan() || s.Text() == "" {
			return usagef("the password is empty")
		}
		t.Credential.User, t.Credential.Password = f.user, health.Secret(s.Text())
		if cl != nil && t.Explained && t.Credential.Ends.IsZero() {
			t.Credential.Ends = secretEnds(ctx, cl, f.user, s.Text())
		}
		return nil
	case cl == nil:
		return nil
	}
	// The control plane's token goes to registries of the same deployment and
	// to nobody else.
	if _, suffix, _ := strings.Cut(t.Host, "."); !strings.EqualFold(suffix, cl.Profile.RegistrySuffix) {
		return nil
	}
	soon, cancel := context.WithTimeout(ctx, health.Patience)
	defer cancel()
	token, err := cl.Token(soon)
	if err != nil {
		kind := fault.Unavailable
		if fault.Is(err, fault.Unauthenticated) {
			kind = fault.Unauthenticated
		}
		t.Credential.Missing = fault.New(kind, sentence(err))
		return nil
	}
	t.Credential.AccessToken = health.Secret(token)
	t.Credential.Ends = secretEnds(ctx, cl, cl.Profile.ClientID, string(cl.Profile.ClientSecret))
	return nil
}

// secretEnds is when a service principal's secret ends, the zero time where
// that is not known: the directory tells it to those who may read it.
func secretEnds(ctx context.Context, cl *client.Client, clientID, secret string) (ends time.Time) {
	if len(clientID) != len("00000000-0000-0000-0000-000000000000") {
		return ends
	}
	ctx, cancel := context.WithTimeout(ctx, health.Patience)
	defer cancel()
	graph, err := cl.Graph(ctx)
	if err != nil {
		return ends
	}
	p, err := findPrincipal(ctx, graph, clientID)
	if err != nil || !strings.EqualFold(text(p["appId"]), clientID) {
		return ends
	}
	list, _ := p["passwordCredentials"].([]any)
	for _, c := range list {
		o, _ := c.(client.Object)
		// Of the secret itself the directory keeps how it begins.
		if hint := text(o["hint"]); hint != "" && strings.HasPrefix(secret, hint) {
			if ends, err = time.Parse(time.RFC3339, text(o["endDateTime"])); err != nil {
				return time.Time{}
			}
		}
	}
	return ends
}

// trusted is the system's list and the authority that this machine knows.
func (a *app) trusted(cl *client.Client, file string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if file == "" && cl == nil {
		if _, ok := a.env("COVE_CA_FILE"); !ok {
			return pool, nil
		}
	}
	if file == "" && cl != nil && len(cl.Profile.CA) == 0 {
		return pool, nil
	}
	ca, err := a.authority(file)
	if err != nil {
		return nil, err
	}
	pool.AppendCertsFromPEM(ca)
	return pool, nil
}

// outside is the way of this machine's own programs.
func outside(resolver string, w *health.Way) error {
	w.Small = health.SmallDial
	if resolver != "" {
		if _, err := netip.ParseAddrPort(resolver); err != nil {
			addr, err := netip.ParseAddr(resolver)
			if err != nil {
				return usagef("--resolver %q is no IP or IP:PORT", resolver)
			}
			resolver = netip.AddrPortFrom(addr, 53).String()
		}
		w.Lookup = health.Resolvers([]string{resolver}, (&net.Dialer{}).DialContext, nil)
		return nil
	}
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return fault.Newf(fault.Unavailable, "this machine's resolver cannot be read from /etc/resolv.conf: name one with --resolver")
	}
	var servers []string
	for _, s := range conf.Servers {
		servers = append(servers, net.JoinHostPort(s, conf.Port))
	}
	look := health.Resolvers(servers, (&net.Dialer{}).DialContext, func(ctx context.Context, host string) ([]netip.Addr, error) {
		found, err := net.DefaultResolver.LookupNetIP(ctx, "ip4", host)
		for i := range found {
			found[i] = found[i].Unmap()
		}
		return found, err
	})
	w.Lookup = func(ctx context.Context, host string) (health.Answer, error) {
		a, err := look(ctx, host)
		a.Hosts = health.HostsLines("/etc/hosts", host)
		return a, err
	}
	return nil
}

// inside joins a network for as long as the check lasts.
func (a *app) inside(ctx context.Context, f checkFlags, w *health.Way) (leave func(), err error) {
	j := joinFlags{name: "check-" + strings.ToLower(rand.Text()[:10]), kind: "vm"}
	key := wireguard.NewPrivateKey()
	got, err := a.enroll(ctx, j, f.userspace, key.Public().String())
	if err != nil {
		return nil, err
	}
	var t *wireguard.Tunnel
	leave = func() {
		if t != nil {
			t.Close()
		}
		// The member goes also when the check was interrupted.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), joinTimeout)
		defer cancel()
		if err := a.leave(ctx, j, f.userspace); err != nil {
			a.note("the member %s is left behind: %s", j.name, sentence(err))
		}
	}
	conf, err := j.memberConfig(got, key)
	if err == nil {
		t, err = wireguard.Dial(ctx, conf)
	}
	if err == nil {
		err = shake(ctx, t)
	}
	if err != nil {
		leave()
		return nil, err
	}
	w.Dial, w.Proxy = t.DialContext, nil
	w.Lookup = health.Resolvers([]string{netip.AddrPortFrom(conf.Resolver, 53).String()}, t.DialContext, nil)
	w.Engines, w.Trusts = nil, nil // this machine's engines are not in the network
	return leave, nil
}

var healthMarks = map[health.Outcome]string{health.Passed: "✔", health.Failed: "✖", health.Warned: "!", health.NotReached: "·", health.Unknown: "?"}

// diagnose writes a report for a person: first what a pull would do and what
// to do about it, then what was measured.
func diagnose(w io.Writer, r health.Report, where string) error {
	b := sheet{width: terminalWidth(w)}
	b.row("", 0, cell(fmt.Sprintf("%s · from %s · %s", r.Target, where, (time.Duration(r.Millis)*time.Millisecond).Round(time.Millisecond*10))))
	b.row("", 0, pullSummary(r))
	b.WriteByte('\n')
	for _, x := range r.Results {
		subject := ""
		switch x.Layer {
		case health.LayerData, health.LayerEngine:
			subject = x.Subject + "  "
		case health.LayerBlob:
			if x.Outcome != health.Passed {
				subject = x.Subject + "  "
			}
		}
		if strings.HasPrefix(x.Said, x.Subject) {
			subject = ""
		}
		if x.Outcome == health.NotReached {
			x.Said = "not reached: " + x.Said
		}
		b.row(" "+healthMarks[x.Outcome]+" "+x.Layer, layerIndent, cell(subject+x.Said))
		if x.Code != "" {
			title := ""
			if m, ok := reason.Of(string(x.Code)); ok {
				title = "  " + m.Title
			}
			b.row("", layerIndent, string(x.Code)+title)
		}
		for _, e := range x.Evidence {
			b.row("", layerIndent, cell(e))
		}
	}
	told, failed := map[string]bool{}, r.Count(health.Failed) > 0
	for _, x := range worst(r.Results) {
		next := x.Fix
		if m, ok := reason.Of(string(x.Code)); ok && next == "" {
			next = m.Next
		}
		if x.Code == "" || told[next] || len(told) == 3 || failed && x.Outcome != health.Failed || blamed(r, x) {
			continue
		}
		if len(told) == 0 {
			b.WriteByte('\n')
		}
		told[next] = true
		if x.Fix != "" { // is there to be copied
			b.line("next", causeIndent, cell(next))
		} else {
			b.row("next", causeIndent, cell(next))
		}
		b.line("more", causeIndent, "cove help "+string(x.Code))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// layerIndent is the column in which what is said of a layer begins.
const layerIndent = 17

// blamed reports whether layers do not come because of what was found at the
// data endpoint itself: what is to be done stands there.
func blamed(r health.Report, x health.Result) bool {
	return x.Code == reason.DataBlocked && slices.ContainsFunc(r.Results, func(d health.Result) bool {
		return d.Layer == health.LayerData && d.Outcome == health.Failed && strings.Contains(x.Said, d.Subject)
	})
}

// worst are results with failures before what is only to be looked at.
func worst(results []health.Result) []health.Result {
	out := slices.Clone(results)
	slices.SortStableFunc(out, func(a, b health.Result) int { return severity(a) - severity(b) })
	return out
}

// severity puts what a pull meets before what this machine's engines have.
func severity(r health.Result) int {
	switch {
	case r.Outcome == health.Failed && r.Layer != health.LayerEngine:
		return 0
	case r.Outcome == health.Failed:
		return 1
	}
	return 2
}

// pullSummary is the verdict: what a pull from here would do.
func pullSummary(r health.Report) string {
	var parts []string
	for _, p := range []struct {
		outcome health.Outcome
		word    string
	}{{health.Passed, "ok"}, {health.Failed, "failed"}, {health.Warned, "to look at"}, {health.Unknown, "unknown"}, {health.NotReached, "not reached"}} {
		if n := r.Count(p.outcome); n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, p.word))
		}
	}
	verdict := "Nothing failed"
	if r.Good() {
		verdict = "All that was tried is well"
	}
	if x := worst(r.Results); len(x) > 0 && x[0].Outcome == health.Failed {
		verdict = "FAILED at the " + x[0].Layer
		if x[0].Layer == health.LayerEngine {
			verdict = "FAILED at this machine's engines, and not on the way to the registry"
		}
		if m, ok := reason.Of(string(x[0].Code)); ok {
			verdict += ": " + m.Title
		}
	}
	return fmt.Sprintf("%s (%s).", verdict, strings.Join(parts, ", "))
}
