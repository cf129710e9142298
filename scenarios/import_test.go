package scenarios

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"cove.example/cove/covetest"
)

// quay is a registry of a server, and a client that may do anything there.
type quay struct {
	t    *testing.T
	on   *covetest.Server
	host string
	auth authn.Authenticator
}

func openQuay(t *testing.T, on *covetest.Server, registry string) quay {
	t.Helper()
	on.Cove(t, "registry", "create", registry, "--admin-enabled")
	host := on.Cove(t, "registry", "show", registry, "--query", "properties.loginServer", "-o", "tsv")
	return quay{t, on, host, &authn.Basic{Username: registry, Password: on.Password(t, registry)}}
}

func (q quay) ref(text string) name.Reference {
	q.t.Helper()
	r, err := name.ParseReference(q.host + "/" + text)
	if err != nil {
		q.t.Fatal(err)
	}
	return r
}

func (q quay) options() []remote.Option {
	return []remote.Option{remote.WithAuth(q.auth), remote.WithTransport(q.on.Outside(q.t).Transport)}
}

// digest is what a reference means, "" where it is nothing.
func (q quay) digest(text string) string {
	q.t.Helper()
	d, err := remote.Head(q.ref(text), q.options()...)
	if err != nil {
		return ""
	}
	return d.Digest.String()
}

// fleet is an index of n images, each of one layer.
func fleet(t *testing.T, n int) v1.ImageIndex {
	t.Helper()
	var all []mutate.IndexAddendum
	for i := range n {
		img, err := random.Image(2048, 1)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: fmt.Sprintf("arch%d", i)}}})
	}
	return mutate.AppendManifests(empty.Index, all...)
}

func (q quay) push(text string, index v1.ImageIndex) string {
	q.t.Helper()
	if err := remote.WriteIndex(q.ref(text), index, q.options()...); err != nil {
		q.t.Fatal(err)
	}
	d, err := index.Digest()
	if err != nil {
		q.t.Fatal(err)
	}
	return d.String()
}

// whole pulls an index and everything below it, bytes verified, and returns
// how many images it has.
func (q quay) whole(text string) (images int) {
	q.t.Helper()
	index, err := remote.Index(q.ref(text), q.options()...)
	if err != nil {
		q.t.Fatalf("%s: %v", text, err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		q.t.Fatal(err)
	}
	for _, d := range m.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			q.t.Fatal(err)
		}
		layers, err := img.Layers()
		if err != nil {
			q.t.Fatal(err)
		}
		for _, l := range layers {
			body, err := l.Compressed()
			if err != nil {
				q.t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, body) // ends in an error where the digest is another
			if err := errors.Join(err, body.Close()); err != nil || n == 0 {
				q.t.Errorf("a layer of %s has %d bytes: %v", text, n, err)
			}
		}
		images++
	}
	return images
}

// abroad is another deployment, at an address of its own with the port that
// names mean. The way there leads through a strait.
func abroad(t *testing.T) (*covetest.Server, *strait) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test serves at port 443 and needs root; `make test-unprivileged` leaves it out")
	}
	var b [2]byte
	rand.Read(b[:])
	ip := fmt.Sprintf("127.77.%d.%d", b[0], 1+b[1]%250)
	far := covetest.Start(t, "--domain", fmt.Sprintf("abroad%x.test", b), "--advertise", ip, "--connect", "", "--wireguard", "")
	l, err := net.Listen("tcp", ip+":443")
	if err != nil {
		t.Fatal(err)
	}
	s := &strait{to: far.Run.Listen[0], full: make(chan struct{}), open: make(chan struct{})}
	s.left.Store(math.MaxInt64)
	t.Cleanup(func() { l.Close() })
	go s.serve(l)
	return far, s
}

// strait forwards connections until so many bytes have come back through it;
// then everything stands still until it is opened.
type strait struct {
	to   string
	left atomic.Int64
	once sync.Once
	full chan struct{} // closed when it stands still
	open chan struct{} // close it to let all pass
}

func (s *strait) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			up, err := net.Dial("tcp", s.to)
			if err != nil {
				return
			}
			defer up.Close()
			go func() {
				io.Copy(up, c)
				up.Close()
			}()
			io.Copy(c, through{up, s})
		}()
	}
}

type through struct {
	net.Conn
	s *strait
}

func (t through) Read(p []byte) (int, error) {
	n, err := t.Conn.Read(p)
	if t.s.left.Add(-int64(n)) < 0 {
		t.s.once.Do(func() { close(t.s.full) })
		<-t.s.open
	}
	return n, err
}

// towards are the flags with which a server reaches that deployment.
func towards(far *covetest.Server) []string {
	return []string{"--outbound-ca", filepath.Join(far.Data, "ca.pem"), "--dns-upstream", far.Run.DNS[0], "--wireguard", ""}
}

// An image of another deployment is imported over TLS, with all its platforms,
// by tag and by digest, with the source's credentials; a tag that exists is
// overwritten only by force, and an address inside is reached only with
// --outbound-allow.
//
// row:61, row:95
func TestRootImportFromAnotherDeployment(t *testing.T) {
	far, _ := abroad(t)
	source := openQuay(t, far, "overseas")
	pinned := source.push("team/app:1.4", fleet(t, 3))
	second := source.push("team/app:1.5", fleet(t, 2))
	source.push("team/huge:1", fleet(t, 51))
	source.push("team/large:1", fleet(t, 50))
	secret := far.Password(t, "overseas")

	closed := covetest.Start(t, towards(far)...)
	closed.Cove(t, "registry", "create", "harbor")
	_, errs, status := closed.Try(t, "registry", "import", "harbor", "--source", source.host+"/team/app:1.4", "-u", "overseas", "-p", secret)
	if status != 1 || !strings.Contains(errs, "the host cannot be reached, or is not one that this server connects to") {
		t.Errorf("without --outbound-allow: exit status %d, %s", status, errs)
	}
	_, gone, _ := closed.Try(t, "registry", "import", "harbor", "--source", "no.such.host.test/team/app:1.4")
	if last(gone) != last(errs) {
		t.Errorf("a host that does not exist is told from one that is refused:\n%s%s", errs, gone)
	}

	home := covetest.Start(t, append(towards(far), "--outbound-allow", "import=127.77.0.0/16")...)
	harbor := openQuay(t, home, "harbor")
	with := []string{"-u", "overseas", "-p", secret}
	for _, c := range []struct {
		name   string
		args   []string
		status int
		says   string
	}{
		{"nobody", []string{"--source", source.host + "/team/app:1.4"}, 1, "wants other credentials"},
		{"a wrong password", []string{"--source", source.host + "/team/app:1.4", "-u", "overseas", "-p", "guess"}, 1, "wants other credentials"},
		{"no such tag", append(with, "--source", source.host+"/team/app:9"), 1, "does not have the image"},
		{"too many manifests", append(with, "--source", source.host+"/team/huge:1"), 1, "more than 50 manifests"},
		{"by tag", append(with, "--source", source.host+"/team/app:1.4"), 0, pinned},
		{"the same again", append(with, "--source", source.host+"/team/app:1.4"), 1, "Tag team/app:1.4 already exists in target registry."},
		{"another onto it", append(with, "--source", source.host+"/team/app:1.5", "-t", "team/app:1.4"), 1, "already exists"},
		{"by force", append(with, "--source", source.host+"/team/app:1.5", "-t", "team/app:1.4", "-t", "copy/app:new", "--repository", "bare/app", "--force"), 0, second},
		{"by digest", append(with, "--source", source.host+"/team/app@"+pinned, "-t", "pinned/app:1"), 0, pinned},
		{"as many as may be", append(with, "--source", source.host+"/team/large:1"), 0, ""},
	} {
		out, errs, status := home.Try(t, append([]string{"registry", "import", "harbor"}, c.args...)...)
		if status != c.status || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: exit status %d\n%s%s", c.name, status, out, errs)
		}
	}
	for ref, want := range map[string]string{
		"team/app:1.4": second, "copy/app:new": second, "bare/app@" + second: second, "pinned/app:1": pinned, "team/app@" + pinned: pinned,
		"team/huge:1": "",
	} {
		if got := harbor.digest(ref); got != want {
			t.Errorf("%s is %q, want %q", ref, got, want)
		}
	}
	for ref, want := range map[string]int{"team/app:1.4": 2, "copy/app:new": 2, "bare/app@" + second: 2, "pinned/app:1": 3, "team/large:1": 50} {
		if got := harbor.whole(ref); got != want {
			t.Errorf("%s has %d images, want %d", ref, got, want)
		}
	}
	for _, s := range []*covetest.Server{home, closed} {
		if strings.Contains(s.Log(), secret) {
			t.Error("the password is in the log")
		}
	}
}

// last is the line that says why.
func last(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// Within a deployment an import asks nobody outside: the alias under which a
// registry answers for a host of the internet is resolved by the server
// itself.
//
// row:61, row:95
func TestImportBetweenRegistriesOfOneDeployment(t *testing.T) {
	home := covetest.Start(t, "--registry-alias", "mcr.microsoft.com=mirror", "--wireguard", "")
	mirror, harbor := openQuay(t, home, "mirror"), openQuay(t, home, "harbor")
	hello := mirror.push("hello-world:latest", fleet(t, 2))
	home.Cove(t, "registry", "import", "harbor", "--source", "mcr.microsoft.com/hello-world", "-t", "hello-world:v1")
	home.Cove(t, "registry", "import", "harbor", "--source", mirror.host+"/hello-world@"+hello, "-t", "base/hello:1", "-t", "base/hello:2")
	for _, ref := range []string{"hello-world:v1", "base/hello:1", "base/hello:2"} {
		if got := harbor.digest(ref); got != hello || harbor.whole(ref) != 2 {
			t.Errorf("%s is %q", ref, got)
		}
	}
	// The copy is the target's own: it outlives the source.
	home.Cove(t, "registry", "delete", "mirror")
	if harbor.whole("hello-world:v1") != 2 {
		t.Error("gone with its source")
	}
	if _, errs, status := home.Try(t, "registry", "import", "harbor", "--source", "mcr.microsoft.com/hello-world", "-t", "hello-world:v2"); status != 1 || !strings.Contains(errs, "pull/read") {
		t.Errorf("from a registry that is gone: %d %s", status, errs)
	}
}

// A server that is killed in the middle of an import goes on with it when it
// is back, and the operation says so.
func TestRootImportOutlivesTheServer(t *testing.T) {
	far, strait := abroad(t)
	source := openQuay(t, far, "overseas")
	img, err := random.Image(8<<20, 6)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(source.ref("team/app:1"), img, source.options()...); err != nil {
		t.Fatal(err)
	}
	want, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	home := covetest.Start(t, append(towards(far), "--outbound-allow", "import=127.77.0.0/16")...)
	harbor := openQuay(t, home, "harbor")
	admin := signIn(t, home)
	strait.left.Store(20 << 20) // two layers and a half
	id := home.Cove(t, "registry", "show", "harbor", "--query", "id", "-o", "tsv")
	accepted := admin.do(http.MethodPost, id+"/importImage?api-version=2025-04-01", `{"source":{"registryUri":"`+source.host+`","sourceImage":"team/app:1","credentials":{"username":"overseas","password":"`+far.Password(t, "overseas")+`"}}}`)
	at := accepted.Header.Get("Azure-AsyncOperation")
	if accepted.StatusCode != http.StatusAccepted || at == "" || accepted.Header.Get("Location") == "" || accepted.Header.Get("Retry-After") != "1" {
		t.Fatalf("%s %v", accepted.Status, accepted.Header)
	}
	select {
	case <-strait.full:
	case <-time.After(covetest.Wait):
		t.Fatal("the import did not begin")
	}
	home.Kill(t)
	close(strait.open)
	home.Start(t)
	at = at[strings.Index(at, "/subscriptions/"):]
	for deadline, status := time.Now().Add(2*time.Minute), "Running"; status != "Succeeded"; pause(t) {
		if time.Now().After(deadline) || status == "Failed" {
			t.Fatalf("the operation is %s", status)
		}
		var o struct{ Status string }
		if answer := admin.do(http.MethodGet, at, ""); json.Unmarshal(answer.text, &o) != nil || o.Status == "" {
			t.Fatalf("%s %s", answer.Status, answer.text)
		}
		status = o.Status
	}
	if got := harbor.digest("team/app:1"); got != want.String() {
		t.Errorf("it is %q, want %s", got, want)
	}
}

// An import that is under way ends within ten seconds with the secret of whoever
// has asked for it, and leaves no tag.
//
// Published failure 9.
func TestRootAnImportEndsWithTheRight(t *testing.T) {
	t.Parallel()
	far, strait := abroad(t)
	source := openQuay(t, far, "overseas")
	img, err := random.Image(8<<20, 6)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(source.ref("team/app:1"), img, source.options()...); err != nil {
		t.Fatal(err)
	}
	home := covetest.Start(t, append(towards(far), "--outbound-allow", "import=127.77.0.0/16")...)
	harbor := openQuay(t, home, "harbor")
	admin, id := signIn(t, home), home.Cove(t, "registry", "show", "harbor", "--query", "id", "-o", "tsv")
	clerk := principal(t, home, "create", "clerk", "--role", "Container Registry Data Importer and Data Reader", "--registry", "harbor")
	asked := boss{t: t, http: admin.http, token: issued(t, home, clerk, "https://management.cove.internal")}
	strait.left.Store(20 << 20)
	accepted := asked.do(http.MethodPost, id+"/importImage?api-version=2025-04-01", `{"source":{"registryUri":"`+source.host+`","sourceImage":"team/app:1","credentials":{"username":"overseas","password":"`+far.Password(t, "overseas")+`"}}}`)
	at := accepted.Header.Get("Azure-AsyncOperation")
	if accepted.StatusCode != http.StatusAccepted || at == "" {
		t.Fatalf("%s %s", accepted.Status, accepted.text)
	}
	select {
	case <-strait.full:
	case <-time.After(covetest.Wait):
		t.Fatal("the import did not begin")
	}
	var secrets []struct{ KeyID string }
	if err := json.Unmarshal([]byte(home.Cove(t, "principal", "secret", "list", "clerk", "-o", "json")), &secrets); err != nil || len(secrets) != 1 {
		t.Fatal(secrets, err)
	}
	home.Cove(t, "principal", "secret", "remove", "clerk", secrets[0].KeyID)
	removed := time.Now()
	at = at[strings.Index(at, "/subscriptions/"):]
	var o struct {
		Status string
		Error  struct{ Code string }
	}
	for o.Status != "Failed" {
		if answer := admin.do(http.MethodGet, at, ""); json.Unmarshal(answer.text, &o) != nil || o.Status == "Succeeded" || time.Since(removed) > 20*time.Second {
			t.Fatalf("%s %s", answer.Status, answer.text)
		}
		pause(t)
	}
	if took := time.Since(removed); took > 11*time.Second || o.Error.Code != "InvalidAuthenticationToken" {
		t.Errorf("after %v: %+v", took, o)
	}
	close(strait.open)
	if got := harbor.digest("team/app:1"); got != "" {
		t.Errorf("the tag is there: %s", got)
	}
}

// boss signs in as the deployment's first service principal and calls the
// Resource Manager.
type boss struct {
	t     *testing.T
	http  func() *http.Client // a server that is started again listens elsewhere
	token string
}

type reply struct {
	*http.Response
	text []byte
}

func signIn(t *testing.T, s *covetest.Server) boss {
	t.Helper()
	var admin struct{ TenantID, ClientID, ClientSecret string }
	text, err := os.ReadFile(filepath.Join(s.Data, "admin.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &admin); err != nil {
		t.Fatal(err)
	}
	b := boss{t: t, http: func() *http.Client { return s.Outside(t) }}
	resp, err := b.http().PostForm("https://login.cove.internal/"+admin.TenantID+"/oauth2/v2.0/token", url.Values{
		"grant_type": {"client_credentials"}, "client_id": {admin.ClientID}, "client_secret": {admin.ClientSecret}, "scope": {"https://management.cove.internal/.default"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var out struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil || out.Token == "" {
		t.Fatalf("%s: %v", resp.Status, err)
	}
	b.token = out.Token
	return b
}

func (b boss) do(method, path, body string) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, "https://management.cove.internal"+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+b.token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.http().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return reply{resp, text}
}

// pause is how long a test of another process waits before it looks again.
func pause(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	<-ctx.Done()
}
