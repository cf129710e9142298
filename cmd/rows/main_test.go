package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const list = "# Rows\n\n| # | Feature |\n|---|---|\n| 1 | One thing | S0 |\n| 2 | Another | S1 |\n| 3 | A third | S1 |\n"

// line is one event of go test -json.
func line(action, pkg, test, output string) string {
	return `{"Action":"` + action + `","Package":"cove.example/cove/` + pkg + `","Test":"` + test + `","Output":"` + output + `","Elapsed":0.1}` + "\n"
}

func rowsOf(t *testing.T, events string) (out, table string, failed bool) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("list.md", []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("pkg", 0o755); err != nil {
		t.Fatal(err)
	}
	source := "package pkg\n\n// TestOne is about row:" + "1 and nothing else.\nfunc TestOne(t *testing.T) {}\n"
	if err := os.WriteFile(filepath.Join("pkg", "one_test.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	failed, err := run(strings.NewReader(events), &b, "list.md", "rows.md", "cove.example/cove")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("rows.md")
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), string(text), failed
}

func TestARowIsDoneWhenItsTestsHavePassed(t *testing.T) {
	row2 := "row:" + "2" // not a claim of this test
	for _, c := range []struct {
		name, events string
		want         []string
		failed       bool
	}{
		{
			"all pass", line("pass", "pkg", "TestOne", "") + line("output", "pkg", "TestTwo", "    x.go:1: # "+row2+"\\n") + line("pass", "pkg", "TestTwo", "") + line("pass", "pkg", "", ""),
			[]string{"| 1 | One thing | done | `pkg.TestOne` |", "| 2 | Another | done | `pkg.TestTwo` |", "| 3 | A third | open |  |", "2 of 3 have a passing test", "2 passed, 0 failed, 0 skipped"},
			false,
		},
		{
			"one fails", line("fail", "pkg", "TestOne", "") + line("fail", "pkg", "", ""),
			[]string{"| 1 | One thing | open | `pkg.TestOne` fail |", "0 passed, 1 failed, 0 skipped"},
			true,
		},
		{
			"one is skipped", line("skip", "pkg", "TestOne", "") + line("pass", "pkg", "", ""),
			[]string{"| 1 | One thing | open | `pkg.TestOne` skip |", "0 passed, 0 failed, 1 skipped", "no test has run"},
			true,
		},
		{
			"one did not run", line("pass", "pkg", "TestOther", "") + line("pass", "pkg", "", ""),
			[]string{"| 1 | One thing | open | `pkg.TestOne` did not run |"},
			false,
		},
		{
			"a package does not build", line("fail", "pkg", "", ""),
			[]string{"FAIL pkg", "0 passed, 1 failed, 0 skipped"},
			true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, table, failed := rowsOf(t, c.events)
			for _, want := range c.want {
				if !strings.Contains(out+table, want) {
					t.Errorf("%q is missing from\n%s\n%s", want, out, table)
				}
			}
			if failed != c.failed {
				t.Errorf("failed = %v", failed)
			}
		})
	}
}

func TestAnythingElseIsRefused(t *testing.T) {
	if _, err := read(strings.NewReader("ok  \tpkg\t0.1s\n"), &bytes.Buffer{}, ""); err == nil {
		t.Error("the plain output of go test was taken")
	}
	// A run without a single test proves nothing.
	t.Chdir(t.TempDir())
	if failed, err := run(strings.NewReader(""), &bytes.Buffer{}, "", "", ""); err != nil || !failed {
		t.Errorf("a run without tests: failed %v, %v", failed, err)
	}
}
