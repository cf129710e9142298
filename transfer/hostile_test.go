package transfer_test

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cove.example/cove/content"
	"cove.example/cove/content/disk"
	"cove.example/cove/fault"
	"cove.example/cove/oci"
	"cove.example/cove/outbound"
	"cove.example/cove/store"
	"cove.example/cove/storetest"
	"cove.example/cove/transfer"
	"cove.example/cove/upstream"
)

const password = "correct-horse"

// stranger is a registry that does what it likes, and a second host that it
// may send a client to. What either gets to see is kept.
type stranger struct {
	*httptest.Server
	t     *testing.T
	evil  *httptest.Server
	mu    sync.Mutex
	leaks []string // requests at the second host that had a credential
	came  []string // all requests at the second host

	challenge string                      // of /v2/ to whoever has no token; %s is the own host
	answers   map[string]http.HandlerFunc // by path, before the rest
	content   map[string][]byte           // by path
}

func open(t *testing.T) *stranger {
	t.Helper()
	s := &stranger{t: t, answers: map[string]http.HandlerFunc{}, content: map[string][]byte{}}
	s.Server = httptest.NewTLSServer(http.HandlerFunc(s.serve))
	s.evil = httptest.NewTLSServer(http.HandlerFunc(s.lurk))
	t.Cleanup(s.Close)
	t.Cleanup(s.evil.Close)
	s.challenge = `Bearer realm="https://` + s.host() + `/token",service="x"`
	return s
}

func port(s *httptest.Server) int { return s.Listener.Addr().(*net.TCPAddr).Port }

func (s *stranger) host() string     { return fmt.Sprintf("source.example.com:%d", port(s.Server)) }
func (s *stranger) evilHost() string { return fmt.Sprintf("evil.example.com:%d", port(s.evil)) }

func (s *stranger) serve(w http.ResponseWriter, r *http.Request) {
	if h := s.answers[r.URL.Path]; h != nil {
		h(w, r)
		return
	}
	switch {
	case r.URL.Path == "/token":
		if _, p, ok := r.BasicAuth(); !ok || p != password {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		io.WriteString(w, `{"token":"good-token"}`)
	case r.Header.Get("Authorization") != "Bearer good-token" && r.Header.Get("Authorization") != basic():
		w.Header().Set("WWW-Authenticate", s.challenge)
		w.WriteHeader(http.StatusUnauthorized)
	default:
		s.give(w, r)
	}
}

func basic() string { return "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+password)) }

func (s *stranger) give(w http.ResponseWriter, r *http.Request) {
	b, ok := s.content[r.URL.Path]
	switch {
	case r.URL.Path == "/v2/":
	case !ok:
		w.WriteHeader(http.StatusNotFound)
	default:
		if strings.Contains(r.URL.Path, "/manifests/") {
			w.Header().Set("Content-Type", oci.MediaTypeImage)
		}
		w.Write(b)
	}
}

// lurk answers as the source would, to whoever comes, and looks for what they
// carry.
func (s *stranger) lurk(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	s.came = append(s.came, r.Method+" "+r.URL.Path)
	text := fmt.Sprint(r.Header, r.URL, string(body))
	for _, secret := range []string{"Authorization", password, base64.StdEncoding.EncodeToString([]byte("me:" + password)), "good-token"} {
		if strings.Contains(text, secret) {
			s.leaks = append(s.leaks, text)
		}
	}
	s.mu.Unlock()
	if r.URL.Path == "/token" {
		io.WriteString(w, `{"token":"evil-token"}`)
		return
	}
	if r.URL.Path == "/asks" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="https://`+s.evilHost()+`/token"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.give(w, r)
}

func redirect(to string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, http.StatusTemporaryRedirect) }
}

func repo(t *testing.T, s string) oci.Repo {
	t.Helper()
	r, err := oci.ParseRepo(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (s *stranger) remote() *upstream.Repository {
	s.t.Helper()
	allow, wrong := outbound.ParseAllow([]string{"import=127.0.0.0/8"})
	if len(wrong) > 0 {
		s.t.Fatal(wrong)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	d := outbound.New(outbound.Config{Allow: allow, Roots: roots, Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
		if host == "inner.example.com" {
			return []netip.Addr{netip.MustParseAddr("10.0.0.7")}, nil
		}
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	}})
	r, err := upstream.Open(s.host(), repo(s.t, "team/app"), upstream.Credentials{Username: "me", Password: password},
		upstream.Options{Transport: d.Transport(outbound.Import), Patience: 2 * time.Second})
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// image puts an image of a config and one layer into the source.
func (s *stranger) image(layer []byte, extra string) (manifest []byte, blob oci.Digest) {
	config := []byte(`{}`)
	c, l := oci.DigestOf(oci.SHA256, config), oci.DigestOf(oci.SHA256, layer)
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d%s}]}`,
		oci.MediaTypeImage, c, l, len(layer), extra)
	s.content["/v2/team/app/blobs/"+c.String()] = config
	s.content["/v2/team/app/blobs/"+l.String()] = layer
	s.content["/v2/team/app/manifests/1"] = manifest
	s.content["/v2/team/app/manifests/"+oci.DigestOf(oci.SHA256, manifest).String()] = manifest
	return manifest, l
}

// here is the content of this deployment.
func here(t *testing.T) *content.Store {
	t.Helper()
	blobs, err := disk.Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { blobs.Close() })
	return content.New(store.NewContent(storetest.Open(t, storetest.SQLite(t))), blobs, content.Options{})
}

// fetch imports team/app:1, or what ref says, into k.
func fetch(t *testing.T, s *stranger, to *content.Store, ref string) error {
	t.Helper()
	r, err := oci.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	from := transfer.Far(s.remote(), to)
	image, err := transfer.Plan(t.Context(), from, r)
	if err != nil {
		return err
	}
	k := content.Key{Registry: "u1", Repo: repo(t, "copy/app")}
	if err := image.Copy(t.Context(), from, to, k, func(int64) {}); err != nil {
		return err
	}
	tag, err := oci.ParseTag("1")
	if err != nil {
		t.Fatal(err)
	}
	return image.Tag(t.Context(), to, k, []oci.Tag{tag})
}

func stored(t *testing.T, to *content.Store) bool {
	t.Helper()
	repos, _, err := to.Repositories(t.Context(), "u1", content.Page{N: 10})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range repos {
		if tags, _, err := to.Tags(t.Context(), content.Key{Registry: "u1", Repo: repo(t, name)}, content.Page{N: 10}); err == nil && len(tags) > 0 {
			return true
		}
	}
	return false
}

// docs/published-failures.md, 4 and 31: whatever the source answers, its credentials are
// seen by the source alone.
func TestCredentialsStayWithTheSource(t *testing.T) {
	const works = "works"
	layer := []byte("a layer")
	for _, c := range []struct {
		name string
		bend func(s *stranger, manifest, layer string)
		says string // works: the image is there
	}{
		{"nothing bent", func(*stranger, string, string) {}, works},
		{"basic authentication", func(s *stranger, _, _ string) { s.challenge = `Basic realm="x"` }, works},
		{"a realm elsewhere", func(s *stranger, _, _ string) {
			s.challenge = `Bearer realm="https://` + s.evilHost() + `/token",service="x"`
		}, "at another host"},
		{"a realm at another port", func(s *stranger, _, _ string) {
			s.challenge = fmt.Sprintf(`Bearer realm="https://source.example.com:%d/token"`, port(s.evil))
		}, "at another host"},
		{"a realm on a name that ends alike", func(s *stranger, _, _ string) {
			s.challenge = fmt.Sprintf(`Bearer realm="https://evil.source.example.com:%d/token"`, port(s.evil))
		}, "at another host"},
		{"a realm in plain http", func(s *stranger, _, _ string) { s.challenge = `Bearer realm="http://` + s.host() + `/token"` }, ""},
		{"a realm inside", func(s *stranger, _, _ string) { s.challenge = `Bearer realm="https://10.0.0.1/token"` }, ""},
		{"a realm that resolves inside", func(s *stranger, _, _ string) { s.challenge = `Bearer realm="https://inner.example.com/token"` }, "at another host"},
		{"a realm with a user in it", func(s *stranger, _, _ string) { s.challenge = `Bearer realm="https://a:b@` + s.host() + `/token"` }, "user name"},
		{"a realm that has this host as its user", func(s *stranger, _, _ string) {
			s.challenge = `Bearer realm="https://` + strings.Replace(s.host(), ":", "%3A", 1) + `@` + s.evilHost() + `/token"`
		}, "user name"},
		{"no realm", func(s *stranger, _, _ string) { s.challenge = `Bearer service="x"` }, ""},
		{"a token that is redirected", func(s *stranger, _, _ string) { s.answers["/token"] = redirect("https://" + s.evilHost() + "/token") }, "token"},
		{"a greeting that is redirected", func(s *stranger, _, _ string) { s.answers["/v2/"] = redirect("https://" + s.evilHost() + "/asks") }, "at another host"},
		{"a manifest that is redirected", func(s *stranger, m, _ string) { s.answers[m] = redirect("https://" + s.evilHost() + m) }, works},
		{"a blob that is redirected", func(s *stranger, _, b string) { s.answers[b] = redirect("https://" + s.evilHost() + b) }, works},
		{"a blob that is redirected to who asks for credentials", func(s *stranger, _, b string) { s.answers[b] = redirect("https://" + s.evilHost() + "/asks") }, ""},
		{"a blob that is redirected to plain http", func(s *stranger, _, b string) { s.answers[b] = redirect("http://" + s.evilHost() + b) }, "plain http"},
		{"a blob that is redirected inside", func(s *stranger, _, b string) { s.answers[b] = redirect("https://inner.example.com" + b) }, "cannot be reached"},
		{"a blob that is redirected to the metadata service", func(s *stranger, _, b string) { s.answers[b] = redirect("https://169.254.169.254/latest") }, ""},
		{"a blob that is redirected in a circle", func(s *stranger, _, b string) { s.answers[b] = redirect("https://" + s.host() + b) }, "redirects more than"},
		{"a blob that is redirected with a user", func(s *stranger, _, b string) { s.answers[b] = redirect("https://a:b@" + s.evilHost() + b) }, "user name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, to := open(t), here(t)
			_, blob := s.image(layer, "")
			c.bend(s, "/v2/team/app/manifests/1", "/v2/team/app/blobs/"+blob.String())
			err := fetch(t, s, to, "1")
			_, public := fault.Of(err)
			if good := c.says == works; (err == nil) != good || stored(t, to) != good {
				t.Errorf("%v; stored is %v", err, stored(t, to))
			}
			if err != nil && (!strings.Contains(public, c.says) || strings.Contains(err.Error(), password)) {
				t.Errorf("says %q, want %q", public, c.says)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.leaks) > 0 {
				t.Errorf("a credential left: %v", s.leaks)
			}
		})
	}
}

// The addresses in a manifest are never asked for anything. A layer that has
// some is taken from the source itself, or the import fails.
func TestForeignLayersAreNotFetched(t *testing.T) {
	s, to := open(t), here(t)
	url := "https://" + s.evilHost() + "/layer"
	m, blob := s.image([]byte("a layer"), `,"urls":["`+url+`"]`)
	m = []byte(strings.Replace(string(m), "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", 1))
	s.content["/v2/team/app/manifests/1"] = m
	if err := fetch(t, s, to, "1"); err != nil {
		t.Errorf("with the layer in the source: %v", err)
	}
	to = here(t)
	delete(s.content, "/v2/team/app/blobs/"+blob.String())
	if err := fetch(t, s, to, "1"); !errors.Is(err, transfer.ErrForeign) || stored(t, to) {
		t.Errorf("without: %v", err)
	}
	if len(s.came) > 0 {
		t.Errorf("asked for: %v", s.came)
	}
}

// docs/published-failures.md, 34: bytes that are not what the digest says are refused and
// not stored, whatever else is right about them.
func TestOtherBytesAreNotStored(t *testing.T) {
	layer := []byte(strings.Repeat("layer", 1000))
	for name, bend := range map[string]func(s *stranger, manifest, blob string){
		"another manifest":     func(s *stranger, m, _ string) { s.content[m] = append([]byte(" "), s.content[m]...) },
		"a shorter manifest":   func(s *stranger, m, _ string) { s.content[m] = s.content[m][:len(s.content[m])-1] },
		"an empty manifest":    func(s *stranger, m, _ string) { s.content[m] = []byte{} },
		"a manifest that lies": func(s *stranger, m, _ string) { s.content[m] = []byte(`{"schemaVersion":2}`) },
		"an enormous manifest": func(s *stranger, m, _ string) { s.content[m] = make([]byte, 5<<20) },
		"other bytes":          func(s *stranger, _, b string) { s.content[b] = []byte(strings.Repeat("LAYER", 1000)) },
		"fewer bytes":          func(s *stranger, _, b string) { s.content[b] = layer[:4999] },
		"more bytes":           func(s *stranger, _, b string) { s.content[b] = append([]byte(string(layer)), 'x') },
		"no bytes":             func(s *stranger, _, b string) { s.content[b] = []byte{} },
		"no end":               func(s *stranger, _, b string) { s.answers[b] = endless },
		"a connection that breaks": func(s *stranger, _, b string) {
			s.answers[b] = func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "5000")
				w.Write(layer[:2500])
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		},
		"a connection that stands still": func(s *stranger, _, b string) {
			s.answers[b] = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Length", "5000")
				w.Write(layer[:2500])
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, to := open(t), here(t)
			manifest, blob := s.image(layer, "")
			pinned := oci.DigestOf(oci.SHA256, manifest).String()
			bend(s, "/v2/team/app/manifests/"+pinned, "/v2/team/app/blobs/"+blob.String())
			if err := fetch(t, s, to, pinned); err == nil || stored(t, to) {
				t.Errorf("%v; stored is %v", err, stored(t, to))
			}
			k := content.Key{Registry: "u1", Repo: repo(t, "copy/app")}
			if _, err := to.StatBlob(t.Context(), k, blob); err == nil && !strings.Contains(name, "manifest") {
				t.Error("the blob is there")
			}
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 64<<10)); err != nil {
			return
		}
	}
}

// A manifest in an index that is not as long as the index says, and an index
// that names more than an import takes.
func TestIndexIsCheckedAgainstWhatItNames(t *testing.T) {
	s, to := open(t), here(t)
	m, _ := s.image([]byte("a layer"), "")
	d := oci.DigestOf(oci.SHA256, m)
	index := func(n, size int) []byte {
		var list []string
		for i := range n {
			body := fmt.Appendf(nil, "%s%s", m, strings.Repeat(" ", i))
			digest := oci.DigestOf(oci.SHA256, body)
			s.content["/v2/team/app/manifests/"+digest.String()] = body
			if size == 0 {
				size = len(m)
			}
			list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, oci.MediaTypeImage, digest, size+i))
		}
		return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeIndex, strings.Join(list, ","))
	}
	for _, c := range []struct {
		body []byte
		want error
	}{
		{index(1, len(m)+1), oci.ErrManifestInvalid},
		{index(51, 0), transfer.ErrTooMany},
		{fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[{"mediaType":%q,"digest":%q,"size":3}]}`, oci.MediaTypeIndex, oci.MediaTypeImage, d.String()[:70]), oci.ErrManifestInvalid},
		{index(50, 0), nil},
	} {
		s.answers["/v2/team/app/manifests/1"] = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", oci.MediaTypeIndex)
			w.Write(c.body)
		}
		err := fetch(t, s, to, "1")
		kind, _ := fault.Of(err)
		if c.want == nil && err != nil || c.want != nil && (kind != fault.Invalid || stored(t, to)) {
			t.Errorf("%v, want %v", err, c.want)
		}
	}
	if !stored(t, to) {
		t.Error("an index of fifty is not there")
	}
}

func TestSourceWithoutTheImageIsToldFromOneThatIsBroken(t *testing.T) {
	s, to := open(t), here(t)
	s.image([]byte("a layer"), "")
	if err := fetch(t, s, to, "2"); !errors.Is(err, transfer.ErrNotThere) {
		t.Errorf("no such tag: %v", err)
	}
	s.answers["/v2/team/app/manifests/1"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTooManyRequests) }
	if err := fetch(t, s, to, "1"); !errors.Is(err, upstream.ErrBusy) {
		t.Errorf("too many requests: %v", err)
	}
	s.answers["/token"] = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }
	if err := fetch(t, s, to, "1"); !errors.Is(err, upstream.ErrCredentials) {
		t.Errorf("no token: %v", err)
	}
	c := upstream.Credentials{Username: "me", Password: password}
	if text := fmt.Sprintf("%v %+v %#v", c, c, c); strings.Contains(text, password) {
		t.Errorf("a password is printed: %s", text)
	}
}
