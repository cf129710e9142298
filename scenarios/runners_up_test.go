package scenarios

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/covetest"
	"cove.example/cove/health"
	"cove.example/cove/reason"
)

// decidedBy holds an explanation against the one step that decided.
func decidedBy(t *testing.T, e access.Explanation, step string, code reason.Code, evidence string) {
	t.Helper()
	for _, s := range e.Steps {
		if (s.Reason != "") != (s.Name == step) || s.Reason != "" && s.Reason != code {
			t.Errorf("the step %s has the reason %q; %s decided with %s", s.Name, s.Reason, step, code)
		}
	}
	if e.Reason != code || !strings.Contains(strings.Join(e.Evidence, " "), evidence) {
		t.Errorf("%s with the evidence %q, want %s with %q", e.Reason, e.Evidence, code, evidence)
	}
}

// want asks for r and expects a status; all of the answer comes back.
func (f *faulty) want(t *testing.T, r request, status string) string {
	t.Helper()
	got, all := f.get(r)
	if got != status {
		t.Errorf("status %q, not %s\n%s", got, status, all)
	}
	return all
}

// The failures that come behind the twelve: each is made, has its code, its
// deciding step and its evidence; what is printed is done, and the same request
// is allowed, while one that differs in one thing is not. row:103
func TestRootRunnersUpAndTheirCures(t *testing.T) {
	f := newFaulty(t)
	if status, all := f.get(f.pull(f.inside)); status != "200" {
		t.Fatalf("before anything is broken: %s\n%s", status, all)
	}
	manager := f.manager(t)
	registry := manager.Scope() + "/resourceGroups/cove/providers/Microsoft.ContainerRegistry/registries/harbor"

	t.Run("a user name that is not quite an id", func(t *testing.T) {
		for _, wrong := range []string{"{" + f.ci.ClientID + "}", strings.ReplaceAll(f.ci.ClientID, "-", "")} {
			r := f.pull(f.inside)
			r.user = wrong
			e := f.why(f.want(t, r, "401"))
			decidedBy(t, e, "sign-in", reason.NotQuiteAnID, "the user name is not quite an id")
			if !strings.Contains(e.Next, "five groups of hexadecimal digits with hyphens") {
				t.Errorf("it says to do %q", e.Next)
			}
		}
		f.want(t, f.pull(f.inside), "200")
		r := f.pull(f.inside)
		r.user = "harbour"
		decidedBy(t, f.why(f.want(t, r, "401")), "sign-in", reason.NotRegistered, "the user name is not known")
	})

	t.Run("a disabled principal", func(t *testing.T) {
		graph, err := manager.Graph(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		able := func(on bool) {
			t.Helper()
			if _, err := graph.Patch(t.Context(), "/servicePrincipals/"+f.ci.ObjectID, client.Object{"accountEnabled": on}); err != nil {
				t.Fatal(err)
			}
		}
		able(false)
		e := f.why(f.refused(t, f.pull(f.inside)))
		decidedBy(t, e, "sign-in", reason.IdentityGone, f.ci.ClientID)
		if len(e.Fixes) != 0 || !strings.HasPrefix(e.Next, "Enable the identity") {
			t.Errorf("that it was disabled was somebody's decision: %+v, %s", e.Fixes, e.Next)
		}
		able(true)
		f.want(t, f.pull(f.inside), "200")
		r := f.pull(f.inside)
		r.password += "x"
		f.want(t, r, "401")
	})

	t.Run("the name leads to another registry's endpoint", func(t *testing.T) {
		f.Cove(t, "registry", "create", "depot")
		f.Cove(t, "private-endpoint", "create", "pe2", "--registry", "depot", "--subnet", "office/default", "--zone", f.zone)
		var pe struct {
			Properties struct {
				CustomDNSConfigs []struct {
					FQDN        string
					IPAddresses []string
				}
			}
		}
		doc, err := manager.Get(t.Context(), manager.Scope()+"/resourceGroups/cove/providers/Microsoft.Network/privateEndpoints/pe2")
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		f.decode(string(text), &pe)
		for _, c := range pe.Properties.CustomDNSConfigs {
			if strings.HasPrefix(c.FQDN, "depot.cr.") {
				f.Cove(t, "dns", "record", "remove", f.zone, "harbor")
				f.Cove(t, "dns", "record", "add", f.zone, "harbor", c.IPAddresses[0])
			}
		}
		e := f.why(f.want(t, f.pull(f.inside), "403"))
		decidedBy(t, e, "endpoint", reason.EndpointElsewhere, "leads to depot, and the name asked for is "+f.host)
		r := f.checkup(f.inside, "--vnet", "office")[health.LayerName]
		if r.Code != reason.NameElsewhere || !strings.Contains(strings.Join(r.Evidence, " "), "holds 10.0.0.") {
			t.Errorf("%+v", r)
		}
		f.run(r.Fix)
		f.want(t, f.pull(f.inside), "200")
		f.want(t, f.pull(f.outside), "403")
	})

	t.Run("access tokens for the Resource Manager are not taken", func(t *testing.T) {
		token, err := manager.Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		exchange := func(token string) request {
			return request{from: f.inside, path: "/oauth2/exchange", more: []string{
				"-d", "grant_type=access_token", "-d", "service=" + f.host, "-d", "access_token=" + token,
			}}
		}
		f.want(t, exchange(token), "200")
		f.Cove(t, "registry", "update", "harbor", "--authentication-as-arm=false")
		e := f.why(f.want(t, exchange(token), "401"))
		decidedBy(t, e, "sign-in", reason.AudienceRefused, "")
		if len(e.Fixes) != 1 {
			t.Fatalf("%+v", e.Fixes)
		}
		f.run(e.Fixes[0].Command)
		f.want(t, exchange(token), "200")
		f.want(t, exchange(token+"x"), "401")
	})

	t.Run("a locked tag, a locked repository", func(t *testing.T) {
		f.Cove(t, "az", "--out", filepath.Join(f.dir, "az"))
		admin := f.pull(f.inside)
		admin.user, admin.password = "harbor", f.Password(t, "harbor")
		lock := func(path, attribute string) {
			t.Helper()
			r := admin
			r.path, r.more = "/acr/v1/"+path, []string{"-X", "PATCH", "-H", "Content-Type: application/json", "-d", `{"` + attribute + `":false}`}
			f.want(t, r, "200")
		}
		manifest := f.on(t, f.inside, covetest.Crane(t), "manifest", f.host+"/team/app:1")
		body := filepath.Join(f.dir, "manifest")
		if err := os.WriteFile(body, []byte(strings.TrimSpace(manifest)), 0o644); err != nil {
			t.Fatal(err)
		}
		var kind struct{ MediaType string }
		f.decode(manifest, &kind)
		put := admin
		put.more = []string{"-X", "PUT", "-H", "Content-Type: " + kind.MediaType, "--data-binary", "@" + body}
		f.want(t, put, "201")
		del := admin
		del.path, del.more = "/v2/team/app/manifests/2", []string{"-X", "DELETE"}
		second := put
		second.path = "/v2/team/app/manifests/2"
		f.want(t, second, "201")

		lock("team/app/_tags/1", "writeEnabled")
		tagged := f.why(f.want(t, put, "405"))
		decidedBy(t, tagged, "lock", reason.LockForbids, "team/app:1, or the repository, is locked against writing")
		f.want(t, second, "201") // another tag is not locked
		lock("team/app", "deleteEnabled")
		whole := f.why(f.want(t, del, "405"))
		decidedBy(t, whole, "lock", reason.LockForbids, "is locked against deleting")
		if len(tagged.Fixes) != 2 || len(whole.Fixes) != 2 {
			t.Fatalf("%+v\n%+v", tagged.Fixes, whole.Fixes)
		}
		lock("team/app/_tags/2", "readEnabled")
		// In the same session the Azure CLI reads what else was refused: a change
		// of the registry's own settings.
		p := manager.Profile
		p.ClientID, p.ClientSecret = f.ci.ClientID, client.Secret(f.ci.ClientSecret)
		other, err := client.New(p)
		if err != nil {
			t.Fatal(err)
		}
		var refused *client.Error
		if _, err := other.Patch(t.Context(), registry, client.Object{"properties": client.Object{"adminUserEnabled": true}}); !errors.As(err, &refused) || refused.Status != http.StatusForbidden {
			t.Fatalf("who may pull changes the registry: %v", err)
		}
		said := f.on(t, f.inside, "sh", "-ec", `. "$0/az/env.sh" >/dev/null 2>&1
			unset HTTPS_PROXY https_proxy
			az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none
			`+tagged.Fixes[0].Command+" --output none\n"+whole.Fixes[1].Command+` --output none
			az monitor activity-log list --status Failed --offset 1h --output json`, f.dir)
		var log []struct {
			Caller, CorrelationID string
			Authorization         struct{ Action, Scope string }
			Status, SubStatus     struct{ Value string }
		}
		f.decode(said[strings.Index(said, "["):], &log)
		if len(log) != 1 || log[0].Caller != f.ci.ObjectID || log[0].Authorization.Action != "Microsoft.ContainerRegistry/registries/write" ||
			!strings.EqualFold(log[0].Authorization.Scope, registry) || log[0].SubStatus.Value != "Forbidden" || log[0].CorrelationID == "" {
			t.Errorf("az monitor activity-log list: %+v", log)
		}
		f.want(t, put, "201")
		get := f.pull(f.inside)
		get.path = "/v2/team/app/manifests/2"
		f.want(t, get, "405") // what was locked otherwise stays locked
		decidedBy(t, f.why(f.want(t, get, "405")), "lock", reason.LockForbids, "is locked against reading")
		del.path = "/v2/team/app/manifests/1"
		f.want(t, del, "202")
		f.want(t, put, "201")
	})

	t.Run("the credential helper is broken", func(t *testing.T) {
		tools, conf := filepath.Join(f.dir, "helpers"), filepath.Join(f.dir, "docker-helped")
		for _, dir := range []string{tools, conf} {
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		settings := filepath.Join(conf, "config.json")
		write := func(name, text string) {
			t.Helper()
			if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		write(filepath.Join(tools, "docker-credential-vault"), "#!/bin/sh\necho the vault is sealed\nexit 1\n")
		write(settings, `{"credHelpers":{"`+f.host+`":"vault"}}`)
		env := []string{"DOCKER_CONFIG=" + conf, "PATH=" + tools + ":" + os.Getenv("PATH")}
		crane := func() (string, error) {
			return f.try(t, f.inside, append(slices.Concat([]string{"env"}, env), covetest.Crane(t), "manifest", f.host+"/team/app:1")...)
		}
		if out, err := crane(); err == nil {
			t.Errorf("it pulls without a credential: %s", out)
		}
		r := f.checkupAs(f.inside, env, "harbor", "--image", "team/app:1")[health.LayerEngine+" credentials"]
		if r.Code != reason.HelperBroken || !strings.Contains(r.Said, "docker-credential-vault: exit status 1: the vault is sealed") || !strings.Contains(r.Fix, "take vault out of credHelpers in "+settings) {
			t.Errorf("%+v", r)
		}
		// One thing differs: for another host no helper is named.
		if r, ok := f.checkupAs(f.inside, env, "depot.cr."+f.domain)[health.LayerEngine+" credentials"]; ok {
			t.Errorf("another host: %+v", r)
		}
		write(settings, `{"credHelpers":{}}`)
		f.on(t, f.inside, append(slices.Concat([]string{"env"}, env), covetest.Crane(t), "auth", "login", f.host, "-u", f.ci.ClientID, "-p", f.ci.ClientSecret)...)
		if out, err := crane(); err != nil {
			t.Errorf("mended: %v %s", err, out)
		}
		if r, ok := f.checkupAs(f.inside, env, "harbor", "--image", "team/app:1")[health.LayerEngine+" credentials"]; ok {
			t.Errorf("mended: %+v", r)
		}
	})

	t.Run("something in front", func(t *testing.T) {
		f.Cove(t, "registry", "create", "granary", "--admin-enabled")
		m := newMiddlebox(t, f, "granary.cr."+f.domain)
		t.Run("it limits bodies", func(t *testing.T) { m.limits(t) })
		t.Run("it has another time", func(t *testing.T) { m.clocks(t) })
		t.Run("its certificate's time has not come", func(t *testing.T) { m.certificates(t) })
	})
}

// middlebox is a proxy with TLS of its own between the outside host and a
// registry, which breaks what passes.
type middlebox struct {
	f    *faulty
	host string
	env  []string // of a client that is led to it and trusts it

	mu    sync.Mutex
	limit int64         // of a request's body; 0 is none
	ahead time.Duration // of its clock before the right time
	cert  tls.Certificate
	key   *ecdsa.PrivateKey
}

func newMiddlebox(t *testing.T, f *faulty, host string) *middlebox {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &middlebox{f: f, host: host, key: key}
	m.signed(t, time.Now().Add(-time.Hour))
	roots, err := os.ReadFile(filepath.Join(f.Data, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "https", Host: f.outside.gateway + ":443"})
			r.Out.Host = r.In.Host
		},
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: host}},
		ModifyResponse: func(r *http.Response) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			r.Header.Set("Date", time.Now().Add(m.ahead).UTC().Format(http.TimeFormat))
			return nil
		},
	}
	l, err := net.Listen("tcp", f.inside.gateway+":443")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{
		ReadHeaderTimeout: time.Minute,
		TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			m.mu.Lock()
			defer m.mu.Unlock()
			return &m.cert, nil
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			m.mu.Lock()
			limit := m.limit
			m.mu.Unlock()
			if limit > 0 {
				b, err := io.ReadAll(io.LimitReader(r.Body, limit+1))
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				if int64(len(b)) > limit {
					w.Header().Set("Content-Type", "text/html")
					w.WriteHeader(http.StatusRequestEntityTooLarge)
					io.WriteString(w, "<html><head><title>413 Request Entity Too Large</title></head></html>")
					return
				}
				r.Body = io.NopCloser(bytes.NewReader(b))
			}
			proxy.ServeHTTP(w, r)
		}),
	}
	go s.ServeTLS(l, "", "")
	t.Cleanup(func() { s.Close() })

	own := filepath.Join(f.dir, "middlebox.pem")
	if err := os.WriteFile(own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Certificate[0]}), 0o644); err != nil {
		t.Fatal(err)
	}
	m.env = []string{"SSL_CERT_FILE=" + own, "COVE_CA_FILE=" + own}
	return m
}

// signed gives it a certificate that is good from a time on.
func (m *middlebox) signed(t *testing.T, from time.Time) {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "middlebox"}, DNSNames: []string{m.host},
		NotBefore: from, NotAfter: from.Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, m.key.Public(), m.key)
	if err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: m.key}
}

// led runs a program on the outside host, where the registry's name leads to
// the middlebox.
func (m *middlebox) led(t *testing.T, argv ...string) (string, error) {
	t.Helper()
	hosts := filepath.Join(m.f.dir, "hosts")
	if err := os.WriteFile(hosts, []byte(m.f.inside.gateway+" "+m.host+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	script := `mount --bind "$0" /etc/hosts && exec "$@"`
	return m.f.try(t, m.f.outside, append(slices.Concat([]string{"sh", "-c", script, hosts, "env"}, m.env), argv...)...)
}

func (m *middlebox) check(t *testing.T, args ...string) map[string]health.Result {
	t.Helper()
	out, _ := m.led(t, append([]string{covetest.Binary(t), "check-health", m.host, "-o", "json", "--anonymous"}, args...)...)
	var r health.Report
	i := strings.IndexByte(out, '{')
	if i < 0 {
		t.Fatalf("no report:\n%s", out)
	}
	if err := json.NewDecoder(strings.NewReader(out[i:])).Decode(&r); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	found := map[string]health.Result{}
	for _, x := range r.Results {
		found[x.Layer] = x
	}
	return found
}

func (m *middlebox) set(limit int64, ahead time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.limit, m.ahead = limit, ahead
}

// limits pushes a layer that is larger than what passes. The registry never
// sees it: the client's words are what there is.
func (m *middlebox) limits(t *testing.T) {
	dir := t.TempDir()
	layer := filepath.Join(dir, "layer.tar")
	large := make([]byte, 1<<20)
	rand.Read(large)
	if err := os.WriteFile(filepath.Join(dir, "large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "tar", "-C", dir, "-cf", layer, "large")
	push := func(tag string) (string, error) {
		return m.led(t, "sh", "-ec", `"$0" auth login "$1" -u granary -p "$2" && "$0" append -f "$3" -t "$1/team/$4"`,
			covetest.Crane(t), m.host, m.f.Password(t, "granary"), layer, tag)
	}
	m.set(512<<10, 0)
	out, err := push("app:1")
	if err == nil {
		t.Fatalf("a body over the limit passes: %s", out)
	}
	var e reason.Meaning
	m.f.decode(m.f.Cove(t, "explain", out, "-o", "json"), &e)
	if e.Code != reason.ProxyLimits || !strings.Contains(e.Next, "client_max_body_size") {
		t.Errorf("%q is %+v", out, e)
	}
	m.set(0, 0) // what is printed: take the limit off
	if out, err := push("app:1"); err != nil {
		t.Errorf("without the limit: %v %s", err, out)
	}
	rand.Read(large) // one thing differs: the limit is there again
	if err := os.WriteFile(filepath.Join(dir, "large"), large, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "tar", "-C", dir, "-cf", layer, "large")
	m.set(1<<20-1, 0)
	if out, err := push("web:1"); err == nil {
		t.Errorf("under a limit that is a little smaller than the layer: %s", out)
	}
	m.set(0, 0)
}

// clocks moves its clock, as the client sees it, against this machine's.
func (m *middlebox) clocks(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -26 * time.Hour} {
		m.set(0, ahead)
		r := m.check(t)[health.LayerClock]
		_, said, _ := strings.Cut(strings.TrimSuffix(r.Said, " apart"), " at the server: ")
		apart, err := time.ParseDuration(said)
		if off := (apart - ahead.Abs()).Abs(); err != nil || r.Code != reason.ClockWrong || r.Outcome != health.Failed || off > 5*time.Second {
			t.Errorf("%s ahead: %+v", ahead, r)
		}
	}
	m.set(0, 2*time.Minute) // within what tokens tolerate
	if r := m.check(t)[health.LayerClock]; r.Outcome != health.Passed {
		t.Errorf("two minutes: %+v", r)
	}
	m.set(0, 0)
	if r := m.check(t)[health.LayerClock]; r.Outcome != health.Passed {
		t.Errorf("the clock is right: %+v", r)
	}
}

// certificates gives it one of tomorrow, and then one of today.
func (m *middlebox) certificates(t *testing.T) {
	from := time.Now().Add(24 * time.Hour)
	m.signed(t, from)
	m.trustIt(t)
	r := m.check(t)
	if c := r[health.LayerTLS]; c.Code != reason.CertificateTime || !strings.Contains(c.Said, "good from "+from.UTC().Format(time.DateOnly)) {
		t.Errorf("%+v", c)
	}
	if c := r[health.LayerChallenge]; c.Outcome != health.NotReached {
		t.Errorf("%+v", c)
	}
	m.signed(t, time.Now().Add(-time.Hour))
	m.trustIt(t)
	if c := m.check(t)[health.LayerTLS]; c.Outcome != health.Passed {
		t.Errorf("renewed: %+v", c)
	}
	m.signed(t, time.Now().Add(-48*time.Hour))
	m.trustIt(t)
	if c := m.check(t)[health.LayerTLS]; c.Code != reason.CertificateTime {
		t.Errorf("one of the day before yesterday: %+v", c)
	}
}

// trustIt has the client trust what it shows now.
func (m *middlebox) trustIt(t *testing.T) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	own, _ := strings.CutPrefix(m.env[0], "SSL_CERT_FILE=")
	if err := os.WriteFile(own, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Certificate[0]}), 0o644); err != nil {
		t.Fatal(err)
	}
}

// A region more needs an address more in the subnet of each private endpoint.
// Where there is none the refusal says so and what to do; that done, the same
// request is allowed, and the next region is refused again. row:103
func TestASubnetWithoutRoomForAnotherRegion(t *testing.T) {
	s := covetest.Start(t, "--also-region", "north", "--also-region", "south")
	s.Cove(t, "registry", "create", "harbor")
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "small", "--subnet-prefix", "10.0.0.0/29")
	s.Cove(t, "private-endpoint", "create", "pe", "--registry", "harbor", "--subnet", "office/small")
	p, err := client.FromData(s.Data)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(p)
	if err != nil {
		t.Fatal(err)
	}
	in := c.Scope() + "/resourceGroups/cove/providers/"
	// Of eight addresses five are the network's own, two the private endpoint's
	// and the last one another interface's.
	if _, err := c.Put(t.Context(), in+"Microsoft.Network/networkInterfaces/idle", client.Object{"location": "local", "properties": client.Object{
		"ipConfigurations": []any{client.Object{"name": "one", "properties": client.Object{"subnet": client.Object{"id": in + "Microsoft.Network/virtualNetworks/office/subnets/small"}}}},
	}}); err != nil {
		t.Fatal(err)
	}
	add := func(region string) error {
		_, err := c.Put(t.Context(), in+"Microsoft.ContainerRegistry/registries/harbor/replications/"+region, client.Object{"location": region})
		return err
	}
	full := func(region string) {
		t.Helper()
		err := add(region)
		var e *client.Error
		if !errors.As(err, &e) || e.Code != "PrivateEndpointReplicationFailed" || !strings.Contains(e.Message, "/privateEndpoints/pe has no free address") || !strings.Contains(e.Message, "Delete a network interface") {
			t.Errorf("%s: %v", region, err)
		}
	}
	full("north")
	if err := c.Delete(t.Context(), in+"Microsoft.Network/networkInterfaces/idle"); err != nil {
		t.Fatal(err)
	}
	if err := add("north"); err != nil {
		t.Errorf("there is room now: %v", err)
	}
	full("south")
}
