package reason

import (
	"bufio"
	"os"
	"strings"
	"testing"
)

// Each code has its words, once.
func TestCodesHaveTheirWords(t *testing.T) {
	seen := map[Code]bool{}
	for _, m := range All() {
		if seen[m.Code] || m.Title == "" || !strings.HasSuffix(m.Cause, ".") || !strings.HasSuffix(m.Next, ".") {
			t.Errorf("%s is not one code with its words", m.Code)
		}
		seen[m.Code] = true
		if got, ok := Of(strings.ToLower(string(m.Code))); !ok || got != m {
			t.Errorf("%s is not found", m.Code)
		}
	}
	if _, ok := Of("COVE-NET-999"); ok {
		t.Error("a code that is none is found")
	}
}

// What cove prints says what failed, why, and what to do next, and nothing that
// helps nobody.
func TestWordsAreOfUse(t *testing.T) {
	for _, m := range All() {
		for _, empty := range []string{"please", "something went wrong", "contact", "unexpected error", "oops", "simply"} {
			if strings.Contains(strings.ToLower(m.Title+" "+m.Cause+" "+m.Next), empty) {
				t.Errorf("%s says %q", m.Code, empty)
			}
		}
		if len(m.Title) > 60 || len(m.Cause) > 400 || len(m.Next) > 400 || m.Cause == m.Next {
			t.Errorf("%s: %d, %d and %d bytes are too many to be read in a hurry", m.Code, len(m.Title), len(m.Cause), len(m.Next))
		}
	}
}

// A code that was ever printed means tomorrow what it meant then: people have
// it in their notes and programs in their conditions. testdata/codes.txt only
// grows. Whoever finds this test failing for a line that is there gives the new
// meaning a new code.
func TestCodesNeverChangeTheirMeaning(t *testing.T) {
	f, err := os.Open("testdata/codes.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	pinned := map[string]bool{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		code, title, _ := strings.Cut(lines.Text(), " ")
		pinned[code] = true
		if m, ok := Of(code); !ok || m.Title != title {
			t.Errorf("%s meant %q, and means %q", code, title, m.Title)
		}
	}
	for _, m := range All() {
		if !pinned[string(m.Code)] {
			t.Errorf("testdata/codes.txt lacks the line\n%s %s", m.Code, m.Title)
		}
	}
}
