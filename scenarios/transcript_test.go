package scenarios

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var write = flag.Bool("write", false, "write the transcripts in docs/ instead of comparing them")

//go:generate go test . -run Article$ -write

// noise are lines of the clients that differ from run to run, or say nothing
// about the server.
var noise = regexp.MustCompile(strings.Join([]string{
	`^[0-9a-f]{12}: `, // docker's progress, layer by layer
	`(pushed|existing|mounted) blob: `,
	`logged in via `,
	`Your credentials are stored unencrypted`,
	`^Configure a credential helper to remove this warning`,
	`^https://docs.docker.com/go/credential-store/`,
	`Using --password via the CLI is insecure`,
	`^WARNING:$`,
	`HEAD request failed, falling back on GET`,
}, "|"))

// examples are texts that differ from run to run, and what the pages have in
// their place. Secrets are there for a script that forgets to hide one.
var examples = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`cvadm[a-z0-9]+|cove_[0-9a-f]{8}_[\w-]+|eyJ[\w.-]+`), "SECRET"},
	{regexp.MustCompile(`sha256:[0-9a-f]{64}`), "sha256:DIGEST"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\b[0-9a-f]{32}\b`), "ID"},
	{regexp.MustCompile(`\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?`), "TIME"},
	{regexp.MustCompile(`'Docker version [^']*'`), "'Docker version VERSION'"},
	{regexp.MustCompile(`size: \d+`), "size: SIZE"},
}

// nobody is the user name that goes with a token; it is not an example.
const nobody = "00000000-0000-0000-0000-000000000000"

// page is a run of a script as a page of the documentation: what the script's
// first comment says, then each step with its commands and their output.
func page(t *testing.T, script, out, data string) string {
	t.Helper()
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	var comment []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "#!") {
			continue
		}
		if line == "#" || !strings.HasPrefix(line, "#") {
			break // its first paragraph
		}
		comment = append(comment, strings.TrimPrefix(line, "# "))
	}
	about := regexp.MustCompile(`\s*row:\d+`).ReplaceAllString(strings.Join(comment, " "), "")
	fmt.Fprintf(&b, "# %s\n\n", titles[script])
	fmt.Fprintf(&b, "%s\n\n", about)
	fmt.Fprintf(&b, "This is a run of [scenarios/%s](../scenarios/%s), written by `go generate ./scenarios`; `make test` runs it again and compares. In brackets stands the host on which a command is typed: *outside* reaches the server's public side only, the others have joined virtual networks. Values that a command line takes from an earlier answer are shown as `\"$NAME\"`; ids, times, digests and versions are replaced by words.\n", script, script)
	open := false
	end := func() {
		if open {
			b.WriteString("```\n")
		}
		open = false
	}
	for line := range strings.Lines(normal(out, data)) {
		if title, ok := strings.CutPrefix(line, "== "); ok {
			end()
			fmt.Fprintf(&b, "\n## %s\n", strings.TrimSpace(title))
			continue
		}
		if !open {
			b.WriteString("\n```console\n")
			open = true
		}
		b.WriteString(line)
	}
	end()
	return b.String()
}

// normal is what a script said, without what differs from run to run.
func normal(out, data string) string {
	out = strings.ReplaceAll(out, data+"/", "")
	var lines []string
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, " \n")
		if line == "" || noise.MatchString(line) || line == "Every step held." {
			continue
		}
		line = strings.ReplaceAll(line, nobody, "\x00")
		for _, e := range examples {
			line = e.pattern.ReplaceAllString(line, e.word)
		}
		lines = append(lines, strings.ReplaceAll(line, "\x00", nobody))
	}
	return strings.Join(lines, "\n") + "\n"
}

var titles = map[string]string{
	"private-link-article.sh": "The Private Link article in the Azure CLI",
	"network-article.sh":      "The network troubleshooting articles in the Azure CLI",
	"login-article.sh":        "The login troubleshooting article in the Azure CLI",
}

// pages are where the transcripts of the scripts stand.
var pages = map[string]string{
	"private-link-article.sh": "az-private-link.md",
	"network-article.sh":      "az-network.md",
	"login-article.sh":        "az-login.md",
}

// shown asserts that the documentation shows what a script has just said.
func shown(t *testing.T, script, out, data string) {
	t.Helper()
	name := filepath.Join("..", "docs", pages[script])
	got := page(t, script, out, data)
	if *write {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if at, want, have := firstDifference(string(text), got); at > 0 {
		t.Errorf("docs/%s:%d has\n%s\nand %s says\n%s\n`go generate ./scenarios` writes the page anew", pages[script], at, want, script, have)
	}
}

// firstDifference is the number of the first line in which two texts differ,
// and the line in each; 0 is none.
func firstDifference(a, b string) (at int, inA, inB string) {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	if slices.Equal(as, bs) {
		return 0, "", ""
	}
	for i := range max(len(as), len(bs)) {
		var x, y string
		if i < len(as) {
			x = as[i]
		}
		if i < len(bs) {
			y = bs[i]
		}
		if x != y || i >= len(as) || i >= len(bs) {
			return i + 1, x, y
		}
	}
	return 0, "", ""
}

// A transcript says the same for two runs that differ only in what is made
// anew each time, and something else for a run with another answer.
func TestTranscriptsAreOfOneKind(t *testing.T) {
	run := func(id, stamp, dir, answer string) string {
		return "\n== Step\n[outside] $ az acr show --ids /subscriptions/" + id + "/x\n" + stamp + " An error occurred\n91a93a8a64a3: Pulling fs layer\n" +
			dir + "/home/config.json\n   answer: " + answer + "\n\nEvery step held.\n"
	}
	first := normal(run("11111111-2222-4333-8444-555555555555", "2026-11-21 04:03:20.596540", "/tmp/one", "Approved"), "/tmp/one")
	second := normal(run("66666666-7777-4888-8999-aaaaaaaaaaaa", "2027-01-02 10:20:30.1", "/tmp/two", "Approved"), "/tmp/two")
	if at, x, y := firstDifference(first, second); at != 0 {
		t.Errorf("two runs differ in line %d: %q and %q", at, x, y)
	}
	other := normal(run("66666666-7777-4888-8999-aaaaaaaaaaaa", "2027-01-02 10:20:30.1", "/tmp/two", "Pending"), "/tmp/two")
	if at, _, y := firstDifference(first, other); at == 0 || !strings.Contains(y, "Pending") {
		t.Errorf("another answer makes no difference: %d %q", at, y)
	}
	if strings.Contains(first, "Pulling") || strings.Contains(first, "/tmp/") || strings.Contains(first, "Every step") {
		t.Errorf("the transcript keeps what differs from run to run:\n%s", first)
	}
	if got := normal("-u "+nobody+" -p eyJhbGciOiJSUzI1NiJ9.e30.c2ln and cvadmabc123", "/d"); got != "-u "+nobody+" -p SECRET and SECRET\n" {
		t.Errorf("a secret is shown: %q", got)
	}
}
