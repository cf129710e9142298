package scenarios

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cove.example/cove/covetest"
)

// Which registry a request is for comes from one place. Name, login server,
// Host, SNI, service and scope are varied one by one; any disagreement is
// refused, and no answer of one registry comes under another's name
// (docs/published-failures.md, failure 30).
func TestTheRegistryIsNotChosenByTheCaller(t *testing.T) {
	s := covetest.Start(t)
	for _, name := range []string{"alpha1", "beta22"} {
		s.Cove(t, "registry", "create", name, "--admin-enabled")
	}
	const alpha, beta = "alpha1.cr.cove.internal", "beta22.cr.cove.internal"
	password := s.Password(t, "alpha1")
	token := func(host, service, scope string) (int, string) {
		status, _, body := get(t, s.Outside(t), "https://"+host+"/oauth2/token?"+url.Values{"service": {service}, "scope": {scope}}.Encode(), "alpha1", password)
		_, after, _ := strings.Cut(body, `"access_token":"`)
		raw, _, _ := strings.Cut(after, `"`)
		return status, raw
	}
	status, good := token(alpha, alpha, "repository:app:pull,push")
	if status != http.StatusOK || good == "" {
		t.Fatalf("the right request: %d", status)
	}
	for _, c := range []struct{ host, service string }{{beta, beta}, {alpha, beta}, {beta, alpha}, {alpha, strings.ToUpper(alpha) + "."}, {alpha, "*"}} {
		if status, raw := token(c.host, c.service, "repository:app:pull"); status == http.StatusOK || raw != "" {
			t.Errorf("alpha's password got a token at %s for the service %s: %d", c.host, c.service, status)
		}
	}
	ask := func(sni, host, bearer string) int {
		client := s.Outside(t)
		client.Transport.(*http.Transport).TLSClientConfig.ServerName = sni
		req, err := http.NewRequest(http.MethodGet, "https://"+sni+"/v2/app/tags/list", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		req.Header.Set("Authorization", "Bearer "+bearer)
		for _, h := range []string{"X-Forwarded-Host", "X-Original-Host", "Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
			req.Header.Set(h, alpha)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
	for _, c := range []struct {
		sni, host string
		want      int
	}{
		{alpha, alpha, http.StatusNotFound}, // signed in; the repository is not there
		{beta, beta, http.StatusUnauthorized},
		{alpha, beta, http.StatusMisdirectedRequest},
		{beta, alpha, http.StatusMisdirectedRequest},
	} {
		if got := ask(c.sni, c.host, good); got != c.want {
			t.Errorf("alpha's token with SNI %s and Host %s: %d, want %d", c.sni, c.host, got, c.want)
		}
	}
}

// A manifest or blob sent under a digest that is not its own is refused and
// nothing is stored, whatever the client insists on (docs/published-failures.md,
// failure 34).
func TestAPinnedDigestIsHeld(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--admin-enabled")
	password := s.Password(t, "myregistry")
	const base = "https://myregistry.cr.cove.internal/v2/app"
	send := func(method, url, kind, body string) (*http.Response, string) {
		req, err := http.NewRequest(method, url, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("myregistry", password)
		req.Header.Set("Content-Type", kind)
		resp, err := s.Outside(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp, string(b)
	}
	digest := func(s string) string {
		sum := sha256.Sum256([]byte(s))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	const index = "application/vnd.oci.image.index.v1+json"
	manifest := `{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`
	for _, body := range []string{manifest + " ", manifest[:len(manifest)-1], strings.ReplaceAll(manifest, "[]", "[ ]")} {
		resp, text := send(http.MethodPut, base+"/manifests/"+digest(manifest), index, body)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "DIGEST_INVALID") && !strings.Contains(text, "MANIFEST_INVALID") {
			t.Errorf("other bytes under a pinned digest: %d %s", resp.StatusCode, text)
		}
		if resp, _ := send(http.MethodGet, base+"/manifests/"+digest(manifest), "", ""); resp.StatusCode != http.StatusNotFound {
			t.Errorf("something is stored: %d", resp.StatusCode)
		}
	}
	for _, body := range []string{"other", "", "blob and more"} {
		resp, text := send(http.MethodPost, base+"/blobs/uploads/?digest="+digest("blob"), "application/octet-stream", body)
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(text, "DIGEST_INVALID") || !strings.Contains(text, digest("blob")) || !strings.Contains(text, digest(body)) {
			t.Errorf("%q under another digest: %d %s", body, resp.StatusCode, text)
		}
	}
	if resp, _ := send(http.MethodHead, base+"/blobs/"+digest("blob"), "", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("a blob is there that nobody sent: %d", resp.StatusCode)
	}
}

// An empty or foreign secret starts no server: what is signed or sealed under
// a key that everybody has is signed by everybody (docs/published-failures.md,
// failure 15).
func TestAnEmptySecretStartsNoServer(t *testing.T) {
	s := covetest.Start(t)
	s.Stop(t)
	key := filepath.Join(s.Data, "master.key")
	right, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"empty": {}, "zeros": make([]byte, 32), "short": []byte("secret"), "another": []byte("0123456789abcdef0123456789abcdef")} {
		if err := os.WriteFile(key, content, 0o600); err != nil {
			t.Fatal(err)
		}
		out, status := serveOnce(t, nil, "--data", s.Data, "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1", "--dns", "", "--wireguard", "", "--admin", "")
		if status != 1 || !strings.HasPrefix(out, "cove: ") {
			t.Errorf("a master key that is %s: exit status %d, %s", name, status, out)
		}
	}
	if err := os.WriteFile(key, right, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
}

// Every listener refuses TLS below 1.2 (published failure 46), headers beyond
// 32 KiB, and anything without a name of ours.
func TestTheFrontDoorHasLimits(t *testing.T) {
	s := covetest.Start(t)
	conf := s.TLS(t)
	conf.ServerName = "login.cove.internal"
	conf.MinVersion, conf.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if c, err := tls.Dial("tcp", s.Run.Listen[0], conf); err == nil {
		c.Close()
		t.Error("TLS 1.1 was accepted")
	}
	for _, h2 := range []bool{true, false} {
		client := s.Outside(t)
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		req, err := http.NewRequest(http.MethodGet, "https://login.cove.internal/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Long", strings.Repeat("x", 64<<10))
		resp, err := client.Do(req)
		if err != nil {
			continue // HTTP/2 resets the stream
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("h2=%v: a header of 64 KiB is answered %d", h2, resp.StatusCode)
		}
	}
}

// Where a caller comes from and who it is follow from its connection and its
// credential: no header says otherwise, in whatever spelling, and neither does
// a balancer's preface at the listener that everybody reaches
// (docs/published-failures.md, failure 51).
func TestNobodyIsBelievedAboutWhereTheyComeFrom(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--admin-enabled", "--default-action", "Deny")
	s.Cove(t, "network-rule", "add", "myregistry", "203.0.113.9")
	const host = "myregistry.cr.cove.internal"
	password := s.Password(t, "myregistry")
	var headers []string
	for _, name := range []string{
		"X-Forwarded-For", "X-Real-Ip", "X-Client-Ip", "X-Cluster-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Fastly-Client-Ip", "X-Azure-Clientip",
		"X-Azure-Socketip", "X-Original-Forwarded-For", "X-Envoy-External-Address", "X-Appengine-User-Ip", "Client-Ip", "Forwarded", "X-Forwarded", "Via", "X-Remote-Addr",
	} {
		headers = append(headers, name, strings.ToLower(name), strings.ReplaceAll(name, "-", "_"))
	}
	users := []string{"X-Remote-User", "Remote-User", "X-Forwarded-User", "X-Webauth-User", "X-Ms-Client-Principal", "X-Ms-Client-Principal-Id", "X-Ssl-Client-S-Dn", "X_Remote_User"}
	ask := func(h2 bool, user string) (int, string) {
		t.Helper()
		client := s.Outside(t)
		defer client.CloseIdleConnections()
		client.Transport.(*http.Transport).ForceAttemptHTTP2 = h2
		req, err := http.NewRequest(http.MethodGet, "https://"+host+"/v2/_catalog", nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range headers {
			req.Header[h] = []string{"203.0.113.9"}
		}
		req.Header["Forwarded"] = []string{"for=203.0.113.9;proto=https"}
		for _, h := range users {
			req.Header[h] = []string{"myregistry"}
		}
		if user != "" {
			req.SetBasicAuth(user, password)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for _, h2 := range []bool{false, true} {
		status, body := ask(h2, "myregistry")
		if status != http.StatusForbidden || !strings.Contains(body, `client with IP \u0027127.0.0.1\u0027 is not allowed access`) {
			t.Errorf("h2=%v: an address in a header was believed: %d %s", h2, status, body)
		}
	}
	s.Cove(t, "network-rule", "add", "myregistry", "127.0.0.1")
	for _, h2 := range []bool{false, true} {
		if status, body := ask(h2, ""); status != http.StatusUnauthorized {
			t.Errorf("h2=%v: a user in a header was believed: %d %s", h2, status, body)
		}
		if status, body := ask(h2, "myregistry"); status != http.StatusOK {
			t.Errorf("h2=%v: the right caller: %d %s", h2, status, body)
		}
	}
	s.Cove(t, "network-rule", "remove", "myregistry", "127.0.0.1")
	v2 := "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\x7f\x00\x00\x01\x10\x00\x01\xbb"
	for name, preface := range map[string]string{"version 1": "PROXY TCP4 203.0.113.9 127.0.0.1 4096 443\r\n", "version 2": v2} {
		c, err := net.Dial("tcp", s.Run.Listen[0])
		if err != nil {
			t.Fatal(err)
		}
		conf := s.TLS(t)
		conf.ServerName = host
		if _, err := io.WriteString(c, preface); err != nil {
			t.Fatal(err)
		}
		if err := tls.Client(c, conf).HandshakeContext(t.Context()); err == nil {
			t.Errorf("a preface of %s was read", name)
		}
		c.Close()
	}
}

// Nothing of the server's inside shows in its answers: no path, no SQL, no
// stack (hardening: error bodies).
func TestErrorsShowNothingOfTheInside(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--admin-enabled")
	password := s.Password(t, "myregistry")
	long := strings.Repeat("a", 4000)
	for _, path := range []string{
		"/v2/app/manifests/" + long, "/v2/" + long + "/tags/list", "/v2/app/blobs/sha256:" + long, "/v2/app/tags/list?n=1e30", "/v2/_catalog?n=-1",
		"/v2/app/manifests/%00", "/v2/..%2f..%2fetc/passwd/manifests/latest", "/v2/app/blobs/uploads/" + long, "/acr/v1/" + long, "/oauth2/token?scope=" + long,
		"/v2/app/referrers/x", "/%2e%2e/", "/v2/;x/",
	} {
		req, err := http.NewRequest(http.MethodGet, "https://myregistry.cr.cove.internal/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Opaque = path
		req.SetBasicAuth("myregistry", password)
		resp, err := s.Outside(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode >= 500 {
			t.Errorf("%.60s: %d", path, resp.StatusCode)
		}
		for _, inside := range []string{s.Data, "SELECT", "sqlite", "goroutine", ".go:", "no such file"} {
			if strings.Contains(strings.ToLower(string(body)+fmt.Sprint(resp.Header)), strings.ToLower(inside)) {
				t.Errorf("%.60s shows %q: %s", path, inside, body)
			}
		}
	}
}
