//go:build soak

package soak

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
)

const (
	results = "../docs/soak.md"
	preface = `# Soak

Written by ` + "`make soak`" + `. Each section is the last run of one test that passed;
speeds are those of the machine that it ran on, limits hold on every machine.
`
)

// sections are the page's in their order.
var sections = []string{"Killed in the middle of a push", "A blob of 10 GiB", "Idle", "Two hundred clients", "A gibibyte among changes", "Explaining"}

// record puts a section into the page and leaves the others. A test calls it
// last: one that failed keeps what the last good run has written.
func record(t *testing.T, section, format string, args ...any) {
	t.Helper()
	if !slices.Contains(sections, section) {
		t.Fatalf("the page has no section %q", section)
	}
	if t.Failed() {
		return
	}
	text, err := os.ReadFile(results)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	kept := map[string]string{}
	for _, part := range strings.Split("\n"+string(text), "\n## ")[1:] {
		name, body, _ := strings.Cut(part, "\n")
		kept[name] = strings.TrimSpace(body)
	}
	kept[section] = strings.TrimSpace(fmt.Sprintf(format, args...))
	page := preface
	for _, name := range sections {
		if kept[name] != "" {
			page += "\n## " + name + "\n\n" + kept[name] + "\n"
		}
	}
	if err := os.WriteFile(results, []byte(page), 0o644); err != nil {
		t.Fatal(err)
	}
}
