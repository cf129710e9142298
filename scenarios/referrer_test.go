package scenarios

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"cove.example/cove/covetest"
	"cove.example/cove/whatif"
)

// Who may push may take back a signature and no image. Asked before the fact,
// cove says so: of a repository, that it is signatures only; of a manifest, by
// its digest, what deleting it would really get. row:104
func TestWhatDeletingAReferrerWouldGet(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry", "--admin-enabled")
	var ci struct{ ClientID, ClientSecret string }
	if err := json.Unmarshal([]byte(s.Cove(t, "principal", "create", "ci", "--role", "AcrPush", "--registry", "myregistry", "-o", "json")), &ci); err != nil {
		t.Fatal(err)
	}
	const host, index = "https://myregistry.cr.cove.internal", "application/vnd.oci.image.index.v1+json"
	do := func(method, digest, body string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, host+"/v2/team/app/manifests/"+digest, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(ci.ClientID, ci.ClientSecret)
		req.Header.Set("Content-Type", index)
		r, err := s.Outside(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		r.Body.Close()
		return r.StatusCode
	}
	push := func(body string) string {
		t.Helper()
		digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(body)))
		if status := do(http.MethodPut, digest, body); status != http.StatusCreated {
			t.Fatal(status)
		}
		return digest
	}
	image := push(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[]}`)
	signature := push(`{"schemaVersion":2,"mediaType":"` + index + `","manifests":[],"subject":{"mediaType":"` + index + `","digest":"` + image + `","size":1}}`)
	absent := fmt.Sprintf("sha256:%x", sha256.Sum256(nil))

	from := []string{"--registry", "myregistry", "--from", "127.0.0.1"}
	for what, want := range map[string]string{
		"team/app": "DENIED, only referrers", "team/app:1": "DENIED, only referrers",
		"team/app@" + image: "DENIED", "team/app@" + absent: "DENIED", "team/app@" + signature: "ALLOWED",
	} {
		e, status := could(t, s, append([]string{"ci", "delete", what}, from...)...)
		got := e.Verdict
		if e.Steps[len(e.Steps)-1].Name == whatif.OnlyReferrers {
			got += ", only referrers"
		}
		if got != want || (status == 0) != (want == "ALLOWED") {
			t.Errorf("deleting %s: %s, exit status %d, want %s", what, got, status, want)
		}
	}
	if list := s.Cove(t, append([]string{"can", "ci", "--list", "--query", "[?action=='delete'].verdict", "-o", "tsv"}, from...)...); list != "DEPENDS" {
		t.Errorf("listed: %s", list)
	}
	if _, errs, status := s.Try(t, append([]string{"can", "ci", "delete", "team/app@sha256:x"}, from...)...); status != 2 || !strings.Contains(errs, "digest") {
		t.Errorf("what is no digest: %d %s", status, errs)
	}
	for digest, want := range map[string]int{image: http.StatusUnauthorized, absent: http.StatusUnauthorized, signature: http.StatusAccepted} {
		if got := do(http.MethodDelete, digest, ""); got != want {
			t.Errorf("deleting %s: %d, want %d", digest, got, want)
		}
	}
}
