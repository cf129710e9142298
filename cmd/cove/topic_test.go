package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"cove.example/cove/topic"
)

// The pages that people look for when nothing works are in the program, and in
// the documentation: slow pulls, questions and habits, what to secure, what to
// send; names in a cluster and what its firewall must let out; build agents of
// others, which no private endpoint serves; what a browser still shows after a
// change of permissions. row:92 row:93 row:26 row:81
func TestHelpTopics(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "explain.md"))
	if err != nil {
		t.Fatal(err)
	}
	list := helped(t, "topics")
	for name, wants := range map[string][]string{
		"performance":        {"check-health", "429", "data endpoint"},
		"faq":                {"00000000-0000-0000-0000-000000000000", "Log out first"},
		"security":           {"--public-network-enabled false", "SECURITY.md"},
		"practices":          {"digest", "zone group"},
		"support":            {"cove version", "cove explain", "hold no password and no token"},
		"kubernetes-dns":     {"forward . 168.63.129.16", "nslookup", "coredns", "NXDOMAIN"},
		"outbound":           {"--firewall networkpolicy", "--firewall no-proxy", "443", "every region"},
		"build-agents":       {"A private endpoint does not serve it", "line of sight", "COVE-NET-001"},
		"permission-changes": {"private window", "next request", "Log out and in again"},
	} {
		got := helped(t, strings.ToUpper(name))
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s does not say %q", name, want)
			}
		}
		if !strings.Contains(list, name+" ") || !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("%s is not listed", name)
		}
	}
}

func helped(t *testing.T, name string) string {
	t.Helper()
	var out strings.Builder
	if status := run(t.Context(), []string{"help", name}, strings.NewReader(""), &out, io.Discard); status != 0 {
		t.Fatalf("cove help %s: exit status %d", name, status)
	}
	return out.String()
}

// Every page is of a terminal's width and of no command's name; what it tells
// people to type is a command that cove takes.
func TestTopicsTellCommandsThatExist(t *testing.T) {
	typed := regexp.MustCompile("(?m)^ {4}cove (.+)$|`cove ([a-z][^`]*)`")
	a := &app{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	n := 0
	for _, page := range topic.All() {
		if c, _, err := a.root().Find([]string{page.Name}); err == nil && c.Name() == page.Name {
			t.Errorf("%s is a command's name", page.Name)
		}
		for line := range strings.Lines(page.Title + "\n" + page.Text) {
			if len([]rune(line)) > 85 {
				t.Errorf("%s is too wide: %s", page.Name, line)
			}
		}
		for _, m := range typed.FindAllStringSubmatch(page.Text, -1) {
			n++
			words := strings.Fields(m[1] + m[2])
			root := a.root()
			root.InitDefaultHelpCmd()
			c, rest, err := root.Find(words)
			if err != nil || c.Parent() == nil {
				t.Errorf("%s: %s: %v", page.Name, m[0], err)
				continue
			}
			if m[1] == "" {
				continue // running text names a command, and may leave out its words
			}
			if err := c.ParseFlags(rest); err != nil {
				t.Errorf("%s: %s: %v", page.Name, m[0], err)
			} else if c.Args != nil {
				if err := c.Args(c, c.Flags().Args()); err != nil {
					t.Errorf("%s: %s: %v", page.Name, m[0], err)
				}
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d commands found", n)
	}
}
