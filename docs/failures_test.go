package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The page of published failures names the tests that would fail if cove did
// the same, and each of them is there.
func TestPublishedFailuresNameTheirTests(t *testing.T) {
	text, err := os.ReadFile("published-failures.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z/]+)\\.(Test[A-Za-z0-9]+)`")
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| #") {
			continue
		}
		rows++
		if len(cells) != 4 {
			t.Errorf("not number, failure, answer and tests: %s", line)
			continue
		}
		found := named.FindAllStringSubmatch(cells[3], -1)
		if found == nil {
			t.Errorf("no test is named: %s", line)
		}
		for _, m := range found {
			if !hasTest(t, filepath.Join("..", m[1]), m[2]) {
				t.Errorf("there is no %s in %s", m[2], m[1])
			}
		}
	}
	if rows < 40 {
		t.Errorf("%d rows", rows)
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(") {
			return true
		}
	}
	return false
}
