package scenarios

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cove.example/cove/access"
	"cove.example/cove/covetest"
	"cove.example/cove/reason"
)

// could asks a question; the verdict, the deciding code, the exit status.
func could(t *testing.T, s *covetest.Server, args ...string) (access.Explanation, int) {
	t.Helper()
	out, errs, status := s.Try(t, append([]string{"can", "-o", "json"}, args...)...)
	var e access.Explanation
	if err := json.Unmarshal([]byte(out), &e); err != nil {
		t.Fatalf("cove can %v: exit status %d, %v\n%s%s", args, status, err, out, errs)
	}
	return e, status
}

// The question asked before the fact gets the answer that enforcement gives:
// from inside and outside, of identities that may and may not, before and after
// changes. row:104 row:80
func TestWhatARequestWouldGet(t *testing.T) {
	s := joined(t)
	secret := s.Cove(t, "principal", "create", "ci", "--role", "AcrPull", "--registry", "myregistry", "-o", "json")
	var ci struct{ ClientID, ClientSecret string }
	if err := json.Unmarshal([]byte(secret), &ci); err != nil || ci.ClientSecret == "" {
		t.Fatalf("%v %d bytes", err, len(secret))
	}
	inside := []string{"--registry", "myregistry", "--from", "office/default"}
	outside := []string{"--registry", "myregistry", "--from", "203.0.113.9"}
	ask := func(more []string, args ...string) (access.Explanation, int) {
		t.Helper()
		return could(t, s, append(args, more...)...)
	}

	for _, c := range []struct {
		name   string
		from   []string
		args   []string
		want   string
		status int
		reason access.Reason
	}{
		{"inside, with the role", inside, []string{"ci", "pull", "team/app:1"}, "ALLOWED", 0, ""},
		{"inside, without the role", inside, []string{"ci", "push", "team/app"}, "DENIED", 1, reason.NoRoleForAction},
		{"outside, public access is off", outside, []string{"ci", "pull", "team/app"}, "DENIED", 1, reason.PublicAccessOff},
		{"nobody in particular", inside, []string{"anonymous", "pull", "team/app"}, "DENIED", 1, reason.NoCredential},
		{"the admin user", inside, []string{"admin", "delete", "team/app"}, "ALLOWED", 0, ""},
	} {
		e, status := ask(c.from, c.args...)
		if e.Verdict != c.want || status != c.status || e.Reason != c.reason {
			t.Errorf("%s: exit status %d, %s %s", c.name, status, e.Verdict, e.Reason)
		}
	}
	// Enforcement agrees, from inside with the real credential.
	token := func() int {
		out := s.Cove(t, "join", "office/default", "--name", "asker", "--replace", "--userspace", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}",
			"--cacert", filepath.Join(s.Data, "ca.pem"), "-u", ci.ClientID+":"+ci.ClientSecret, "https://myregistry.cr.cove.internal/v2/team/app/tags/list")
		var status int
		fmt.Sscan(out, &status)
		return status
	}
	if got := token(); got != http.StatusNotFound {
		t.Errorf("enforcement says %d to what can allows", got)
	}
	// Without the link the name leads out of the network, and what the caller's
	// address is there nobody knows; with it said, it is refused.
	s.Cove(t, "dns", "link", "remove", "privatelink.cr.cove.internal", "office")
	if e, status := ask(inside, "ci", "pull", "team/app"); e.Verdict != "UNKNOWN" || status != 3 || e.Reason != "COVE-PATH-006" {
		t.Errorf("without the link: exit status %d, %s %s", status, e.Verdict, e.Reason)
	}
	if e, _ := ask(append(inside, "--address", "203.0.113.9"), "ci", "pull", "team/app"); e.Reason != reason.PublicAccessOff {
		t.Errorf("with the address: %s %s", e.Verdict, e.Reason)
	}
	s.Cove(t, "dns", "link", "add", "privatelink.cr.cove.internal", "--vnet", "office")

	// A change is tried and taken back.
	var doc map[string]any
	if err := json.Unmarshal([]byte(s.Cove(t, "registry", "show", "myregistry", "-o", "json")), &doc); err != nil {
		t.Fatal(err)
	}
	doc["properties"].(map[string]any)["publicNetworkAccess"] = "Enabled"
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "open.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if e, status := ask(append(outside, "--if-change", file), "ci", "pull", "team/app"); e.Verdict != "ALLOWED" || status != 0 {
		t.Errorf("after the change: exit status %d, %s %s", status, e.Verdict, e.Reason)
	}
	if e, _ := ask(outside, "ci", "pull", "team/app"); e.Reason != reason.PublicAccessOff {
		t.Errorf("the change was not taken back: %s %s", e.Verdict, e.Reason)
	}

	// Requests that were refused are named as those that the change would let in.
	resp, err := s.Outside(t).Get("https://myregistry.cr.cove.internal/v2/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	id := resp.Header.Get("X-Ms-Correlation-Request-Id")
	out := s.Cove(t, "can", "--if-change", file, "-o", "json")
	if !strings.Contains(out, id) || !strings.Contains(out, `"after": "ALLOWED"`) {
		t.Errorf("the refused request %s is not among those that the change lets in: %s", id, out)
	}
}

// The image is taken as it stands in a pod, or in the error that was pasted:
// its login server names the registry, and is no part of the repository.
func TestWhatAnImageWithItsHostWouldGet(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "harbor", "--role-assignment-mode", "rbac-abac")
	s.Cove(t, "registry", "create", "granary")
	var ci struct{ ObjectID string }
	if err := json.Unmarshal([]byte(s.Cove(t, "principal", "create", "ci", "-o", "json")), &ci); err != nil {
		t.Fatal(err)
	}
	s.Cove(t, "role", "assign", ci.ObjectID, "Container Registry Repository Reader", "--registry", "harbor", "--repository", "team/app")
	const image = "harbor.cr.cove.internal/team/app:1"
	for _, args := range [][]string{{image}, {"docker://" + image}, {image, "--registry", "harbor"}} {
		if out, errs, status := s.Try(t, append([]string{"can", "ci", "pull", "--from", "203.0.113.9"}, args...)...); status != 0 || !strings.HasPrefix(out, "YES") {
			t.Errorf("%q: exit status %d\n%s%s", args, status, out, errs)
		}
	}
	if out, _, status := s.Try(t, "can", "ci", "pull", "harbor.cr.cove.internal/team/api", "--from", "203.0.113.9"); status != 1 || !strings.Contains(out, "and here it is team/api") {
		t.Errorf("another repository: exit status %d\n%s", status, out)
	}
	if _, errs, status := s.Try(t, "can", "ci", "pull", image, "--registry", "granary", "--from", "203.0.113.9"); status != 2 || !strings.Contains(errs, "the image is in the registry harbor") {
		t.Errorf("another registry: exit status %d: %s", status, errs)
	}
	s.Cove(t, "vnet", "create", "office", "--address-prefix", "10.0.0.0/16", "--subnet-name", "default", "--subnet-prefix", "10.0.0.0/24")
	if _, errs, status := s.Try(t, "can", "ci", "pull", image, "--from", "office/nope"); status != 1 || !strings.Contains(errs, "there is no subnet nope in office") {
		t.Errorf("no such subnet: exit status %d: %s", status, errs)
	}
}

// What somebody may is listed in one table.
func TestWhatSomebodyMay(t *testing.T) {
	s := joined(t)
	s.Cove(t, "principal", "create", "ci", "--role", "AcrPull", "--registry", "myregistry")
	out := s.Cove(t, "can", "ci", "--list", "--registry", "myregistry", "--from", "office/default")
	for _, want := range []string{"pull    ALLOWED", "push    DENIED", "COVE-PERM-001"} {
		if !strings.Contains(out, want) {
			t.Errorf("the list lacks %q:\n%s", want, out)
		}
	}
	if _, errs, status := s.Try(t, "can", "ci", "fly", "team/app", "--registry", "myregistry", "--from", "203.0.113.9"); status != 2 || !strings.Contains(errs, "there is no action") {
		t.Errorf("exit status %d %s", status, errs)
	}
}
