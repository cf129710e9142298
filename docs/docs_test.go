// Package docs keeps the pages true. A command in them is one that cove takes,
// a sentence that cove is said to print stands in its source, a link leads
// somewhere, a table that repeats the program equals it, and a transcript
// marked "# tested" is what a fresh server answers.
package docs

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"cove.example/cove/reason"
)

// write makes the tests write what they would compare: the flags in
// operating.md and all of reason-codes.md.
var write = flag.Bool("write", false, "write the generated parts of the pages")

//go:generate go test . -run Generated -write

const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// listed are the pages of README's table.
func listed(t *testing.T) []string {
	t.Helper()
	_, table, _ := strings.Cut(read(t, "README.md"), "\n## Pages\n")
	var pages []string
	for _, m := range regexp.MustCompile(`(?m)^\| \[[^]]+\]\((docs/[^)]+)\)`).FindAllStringSubmatch(table, -1) {
		pages = append(pages, m[1])
	}
	if len(pages) < 10 {
		t.Fatalf("README lists %d pages: its table is not where this test looks", len(pages))
	}
	return pages
}

// all are the files that this package looks after.
func all(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/decisions/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			rel, err := filepath.Rel(root, name)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, filepath.ToSlash(rel))
		}
	}
	return out
}

func TestPagesHaveTheSameHeadings(t *testing.T) {
	want := []string{"What it does", "Set up", "Example", "Metrics", "When it fails"}
	for _, page := range listed(t) {
		var got []string
		for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(read(t, page), -1) {
			got = append(got, m[1])
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s has the headings %q, want %q", page, got, want)
		}
	}
}

// generated are files that a make target writes; a link may lead to one that
// has not been written yet.
var generated = []string{"docs/rows.md", "docs/soak.md"}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	makefile := read(t, "Makefile")
	n := 0
	for _, page := range all(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, page), -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			n++
			path, anchor, _ := strings.Cut(m[1], "#")
			target := filepath.ToSlash(filepath.Join(filepath.Dir(page), path))
			if path == "" {
				target = page
			}
			if slices.Contains(generated, target) {
				if !strings.Contains(makefile, target) && target != "docs/soak.md" {
					t.Errorf("%s links to %s, which no make target writes", page, target)
				}
				continue
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			} else if anchor != "" && !slices.Contains(anchors(read(t, target)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d links found: the test looks past them", n)
	}
}

// anchors are a page's headings as links name them.
func anchors(text string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		out = append(out, strings.ReplaceAll(regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return out
}

// ARCHITECTURE's tree has every package, and none that is not there.
func TestTheTreeIsWhole(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	_, tree, _ := strings.Cut(text, "## The tree")
	tree, _, _ = strings.Cut(tree, "\n## ")
	var drawn []string
	for _, m := range regexp.MustCompile(`(?m)^((?:[a-z/]+/?[ ]{1,2})+)`).FindAllStringSubmatch(tree, -1) {
		for word := range strings.FieldsSeq(m[1]) {
			if strings.Contains(word, "/") {
				drawn = append(drawn, strings.Trim(word, "/"))
			}
		}
	}
	have := packages(t)
	for _, p := range have {
		if !slices.Contains(drawn, p) {
			t.Errorf("ARCHITECTURE's tree lacks %s", p)
		}
	}
	for _, p := range drawn {
		if info, err := os.Stat(filepath.Join(root, p)); err != nil || !info.IsDir() {
			t.Errorf("ARCHITECTURE's tree has %s, which is not there", p)
		}
	}
	if len(drawn) < 25 {
		t.Errorf("only %d packages found in the tree", len(drawn))
	}
}

// Every metric of cove's own is on a page, and no page names another.
func TestMetricsAreOnThePages(t *testing.T) {
	name := regexp.MustCompile(`cove_[a-z_]+[a-z]`)
	metrics := map[string]bool{}
	for _, s := range literals(t) {
		if m := name.FindString(s.text); m != "" && m == s.text {
			metrics[m] = true
		}
	}
	told := map[string]bool{}
	for _, page := range listed(t) {
		for _, m := range name.FindAllString(read(t, page), -1) {
			told[m] = true
			if !metrics[m] {
				t.Errorf("%s names the metric %s, which does not exist", page, m)
			}
		}
	}
	for m := range metrics {
		if !told[m] {
			t.Errorf("no page names the metric %s", m)
		}
	}
	if len(metrics) < 2 {
		t.Errorf("only %d metrics found", len(metrics))
	}
}

func TestGeneratedReasonCodes(t *testing.T) {
	const name = "docs/reason-codes.md"
	want := reasonCodes(t)
	if *write {
		if err := os.WriteFile(filepath.Join(root, name), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, name); got != want {
		t.Errorf("%s is not what reason/ says; `go generate ./docs` writes it", name)
	}
}

func reasonCodes(t *testing.T) string {
	var b strings.Builder
	b.WriteString(`# Reason codes

Generated from the catalogue in [reason/](../reason/) by ` + "`go generate ./docs`" + `. A code never changes its meaning. ` + "`cove help CODE`" + ` prints the same, [` + "`cove explain`" + `](explain.md) says which one a refusal had.

The number says nothing. The word says which stage decided: ` + "`NET`" + ` and ` + "`NAME`" + ` the network's part (403), ` + "`AUTH`" + ` who it is (401), ` + "`PERM`" + ` what they may (401), ` + "`RATE`" + ` a rate limit (429), ` + "`INT`" + ` a fault of the server (503). The others are found by [checks](checks.md): ` + "`DNS`" + `, ` + "`PATH`" + `, ` + "`PROXY`" + `, ` + "`TLS`" + ` and their like on the way to a registry, ` + "`DRIFT`" + ` by the server itself.

| code | title |
|---|---|
`)
	codes := reason.All()
	slices.SortFunc(codes, func(a, b reason.Meaning) int { return cmp.Compare(a.Code, b.Code) })
	for _, m := range codes {
		fmt.Fprintf(&b, "| [%s](#%s) | %s |\n", m.Code, strings.ToLower(string(m.Code)), m.Title)
	}
	for _, m := range codes {
		fmt.Fprintf(&b, "\n## %s\n\n**%s%s.** %s\n\nWhat to do: %s\n", m.Code, strings.ToUpper(m.Title[:1]), m.Title[1:], m.Cause, m.Next)
	}
	return b.String()
}

func TestGeneratedFlags(t *testing.T) {
	const name, begin, end = "docs/operating.md", "<!-- flags -->\n", "<!-- /flags -->\n"
	text := read(t, name)
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has lost the marks around its table of flags", name)
	}
	want := before + begin + flagTable(t) + end + after
	if *write {
		if err := os.WriteFile(filepath.Join(root, name), []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		text = want
	}
	if text != want {
		t.Errorf("the table of flags in %s is not what `cove serve --help` says; `go generate ./docs` writes it", name)
	}
}

// flagTable is `cove serve --help` as a table.
func flagTable(t *testing.T) string {
	help, status := run(t, nil, "serve", "--help")
	if status != 0 {
		t.Fatalf("cove serve --help: exit status %d\n%s", status, help)
	}
	_, flags, _ := strings.Cut(help, "\nFlags:\n")
	var b strings.Builder
	b.WriteString("| flag | default | meaning |\n|---|---|---|\n")
	n := 0
	line := regexp.MustCompile(`^ +(?:-h, )?--([a-z-]+)(?: (string|strings|duration|int))? {2,}(.+)$`)
	// A default that is more than a value is said in words, in brackets.
	given := regexp.MustCompile(`^(.*?) \(default:? (.*)\)$`)
	for text := range strings.Lines(flags) {
		m := line.FindStringSubmatch(strings.TrimRight(text, "\n"))
		if m == nil {
			t.Fatalf("a line of the help that this test cannot read: %q", text)
		}
		if m[1] == "help" {
			continue
		}
		n++
		meaning, def := m[3], ""
		if d := given.FindStringSubmatch(meaning); d != nil {
			meaning, def = d[1], d[2]
		}
		if value, ok := strings.CutPrefix(def, `"`); ok {
			def = "`" + strings.TrimSuffix(value, `"`) + "`"
		}
		if m[1] == "data" {
			def = "`/var/lib/cove` as root, else `~/.local/share/cove`" // the help says where it is for who asks
		}
		arg := map[string]string{"strings": " …", "": ""}[m[2]]
		fmt.Fprintf(&b, "| `--%s`%s | %s | %s |\n", m[1], arg, strings.ReplaceAll(def, "<", "&lt;"), strings.ReplaceAll(meaning, "<", "&lt;"))
	}
	if n < 25 {
		t.Fatalf("only %d flags found", n)
	}
	return b.String()
}
