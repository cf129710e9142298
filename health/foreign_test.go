package health

import (
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// A registry that is not cove, with a password and its own certificate, and
// with an image that another program has pushed to it.
func TestAForeignRegistry(t *testing.T) {
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	open := false
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		if !open && (user != "ci" || password != "pa55-w0rd") {
			w.Header().Set("Www-Authenticate", `Basic realm="a registry"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	host := s.Listener.Addr().String()
	ref, err := name.ParseReference(host + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	img, err := random.Image(2000, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img, remote.WithTransport(s.Client().Transport), remote.WithAuth(&authn.Basic{Username: "ci", Password: "pa55-w0rd"})); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	check := func(repository, tag, user, password string) Report {
		t.Helper()
		c, err := New(
			Target{Host: host, Repository: repository, Reference: tag, Credential: Credential{User: user, Password: Secret(password)}},
			Way{Lookup: Resolvers(nil, (&net.Dialer{}).DialContext, nil), Roots: roots},
		)
		if err != nil {
			t.Fatal(err)
		}
		return c.Run(t.Context())
	}
	for _, x := range []struct {
		what, repository, tag, user, password string
		fails                                 string // the layer, "" for none
		says                                  string
	}{
		{"the image", "team/app", "1", "ci", "pa55-w0rd", "", "the other 3 are there"},
		{"the registry alone", "", "", "ci", "pa55-w0rd", "", "as ci"},
		{"a wrong password", "team/app", "1", "ci", "password", LayerSignIn, "401"},
		{"a wrong password for the registry alone", "", "", "ci", "password", LayerSignIn, "401"},
		{"nobody", "team/app", "1", "", "", LayerSignIn, "none was given"},
		{"another tag", "team/app", "2", "ci", "pa55-w0rd", LayerManifest, "404"},
		{"another repository", "team/apii", "1", "ci", "pa55-w0rd", LayerManifest, "404"},
	} {
		r := check(x.repository, x.tag, x.user, x.password)
		if r.Good() != (x.fails == "") {
			t.Errorf("%s: %+v", x.what, r.Results)
		}
		said := false
		for _, one := range r.Results {
			said = said || strings.Contains(one.Said, x.says)
			if one.Outcome == Failed && one.Layer != x.fails {
				t.Errorf("%s: %+v", x.what, one)
			}
			if strings.Contains(one.Fix, "cove explain") {
				t.Errorf("%s: another registry's id is not cove's: %+v", x.what, one)
			}
		}
		if !said {
			t.Errorf("%s: nothing says %q: %+v", x.what, x.says, r.Results)
		}
	}
	open = true
	if r := check("team/app", "1", "", ""); !r.Good() {
		t.Errorf("a registry that is open to everybody: %+v", r.Results)
	}
}
