package scenarios

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"cove.example/cove/access"
	"cove.example/cove/client"
	"cove.example/cove/covetest"
)

// Who asks about a refusal learns what is theirs to know: the registry's owner
// everything, the one whom it was about what concerns them, and anybody else no
// more than they would learn of an id that does not exist. The attack: ids are
// collected from shared build logs, and asked about. row:103
func TestWhoMayKnowWhatOfARefusal(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry")
	s.Cove(t, "network-rule", "add", "myregistry", "127.0.0.0/29") // which admits this test
	s.Cove(t, "registry", "update", "myregistry", "--default-action", "Deny")
	type principal struct{ ClientID, ClientSecret, ObjectID string }
	make := func(name string) (p principal) {
		if err := json.Unmarshal([]byte(s.Cove(t, "principal", "create", name, "-o", "json")), &p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	subject, outsider, reader := make("subject"), make("outsider"), make("reader")
	s.Cove(t, "role", "assign", reader.ObjectID, "Reader", "--registry", "myregistry")

	h := s.Outside(t)
	t.Cleanup(h.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://myregistry.cr.cove.internal/v2/team/app/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(subject.ClientID, subject.ClientSecret)
	resp, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	id := resp.Header.Get("X-Ms-Correlation-Request-Id")
	if resp.StatusCode != http.StatusUnauthorized || id == "" {
		t.Fatalf("%s %q", resp.Status, id)
	}

	// ask is what somebody is told of an id.
	ask := func(who principal, id string) (access.Explanation, string) {
		t.Helper()
		p, err := client.FromData(s.Data)
		if err != nil {
			t.Fatal(err)
		}
		if who.ClientID != "" {
			p.ClientID, p.ClientSecret = who.ClientID, client.Secret(who.ClientSecret)
		}
		c, err := client.New(p)
		if err != nil {
			t.Fatal(err)
		}
		out, err := c.Get(t.Context(), c.Scope()+"/providers/Cove.Diagnostics/decisions/"+id)
		if err != nil {
			return access.Explanation{}, strings.ReplaceAll(err.Error(), id, "ID")
		}
		b, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		var e access.Explanation
		if err := json.Unmarshal(b, &e); err != nil {
			t.Fatal(err)
		}
		return e, string(b)
	}
	const none = "00000000-0000-4000-8000-000000000000"
	fields := map[string][]bool{ // owner, reader, subject, outsider
		"COVE-PERM-002":    {true, true, true, false},
		"team/app":         {true, true, true, false},
		subject.ClientID:   {true, true, true, false},
		"127.0.0.0/29":     {true, true, false, false}, // the rule that let it in
		"cove role assign": {true, true, false, false}, // what would change it
		`"known":"subject`: {true, true, false, false},
		"/registries/":     {true, true, false, false},
	}
	for i, who := range []principal{{}, reader, subject, outsider} {
		_, told := ask(who, id)
		for field, may := range fields {
			if strings.Contains(told, field) != may[i] {
				t.Errorf("viewer %d and %q: it should be told is %v\n%s", i, field, may[i], told)
			}
		}
		if _, missing := ask(who, none); i == 3 && told != missing {
			t.Errorf("an outsider tells an id that exists from one that does not:\n%s\n%s", told, missing)
		}
	}
	// The last character of an id does not make another's findable.
	if _, told := ask(outsider, id[:8]); strings.Contains(told, "COVE-") {
		t.Error(told)
	}
}

// What strangers put into a request reaches no terminal as it came: neither in
// the log nor in an explanation does it move a cursor.
func TestHostileTextStaysText(t *testing.T) {
	s := covetest.Start(t)
	s.Cove(t, "registry", "create", "myregistry")
	h := s.Outside(t)
	t.Cleanup(h.CloseIdleConnections)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://myregistry.cr.cove.internal/v2/team/app/manifests/1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "evil\x9b2J\xc2\x9b31m\u202eexe\u200b")
	req.SetBasicAuth("\x1b[2Jroot\r\n", "x")
	resp, err := h.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	id := resp.Header.Get("X-Ms-Correlation-Request-Id")
	for _, args := range [][]string{
		{"explain", id},
		{"explain", id, "-o", "json"},
		{"logs", "--refused"},
		{"logs", "--refused", "-o", "json"},
		{"logs", "--refused", "-o", "tsv"},
		{"logs", "query", "ContainerRegistryLoginEvents | project UserAgent, Identity, LoginServer"},
	} {
		out, errs, _ := s.Try(t, args...)
		if out == "" || strings.ContainsFunc(out+errs+s.Log(), hostile) {
			t.Errorf("cove %q: %q %q", args, out, errs)
		}
	}
}

// hostile are characters that a terminal obeys or does not show; U+FFFD stands
// where one was.
func hostile(r rune) bool {
	return r < ' ' && r != '\n' && r != '\t' || 0x7f <= r && r < 0xa0 || 0x200b <= r && r <= 0x200f || 0x202a <= r && r <= 0x202e
}
