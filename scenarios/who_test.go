package scenarios

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"cove.example/cove/whatif"
)

// Who could pull from where is asked of a running server, after the door has
// been closed and a role taken away: the answer about the time before is the one
// that was given then. row:110
func TestWhoCouldThen(t *testing.T) {
	s := joined(t)
	s.Cove(t, "principal", "create", "ci", "--role", "AcrPull", "--registry", "myregistry")
	ask := func(more ...string) (r whatif.Roll) {
		t.Helper()
		out := s.Cove(t, append([]string{"can", "--who", "pull", "team/app", "--registry", "myregistry", "-o", "json"}, more...)...)
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r.At = time.Time{}
		return r
	}
	words := func(r whatif.Roll) string {
		b, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	then := words(ask())
	at := time.Now().UTC().Format(time.RFC3339Nano)
	if !strings.Contains(then, "private endpoint ") || !strings.Contains(then, `"known": "ci"`) || strings.Contains(then, "any public address") {
		t.Errorf("before the changes: %s", then)
	}
	s.Cove(t, "registry", "update", "myregistry", "--public-network-enabled", "true")
	s.Cove(t, "principal", "delete", "ci")
	now := words(ask())
	if strings.Contains(now, `"known": "ci"`) || !strings.Contains(now, "any public address") {
		t.Errorf("after the changes: %s", now)
	}
	if got := words(ask("--at", at)); got != then {
		t.Errorf("of the time before the server says %s\nand then it said %s", got, then)
	}
	if _, errs, status := s.Try(t, "can", "--who", "pull", "team/app", "--registry", "myregistry", "--at", "2001-01-01T00:00:00Z"); status == 0 || !strings.Contains(errs, "the history of access begins at") {
		t.Errorf("before the history: exit status %d, %s", status, errs)
	}
	if out := s.Cove(t, "can", "--who", "pull", "team/app", "--registry", "myregistry", "--at", at); !strings.Contains(out, "AcrPull at /subscriptions/") || !strings.Contains(out, " in office/") {
		t.Errorf("in words: %s", out)
	}
}
