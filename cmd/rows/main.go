// Command rows reads the output of `go test -json` on standard input, prints
// it for people, and writes docs/rows.md: for every row of the list of
// features, the tests that name it and passed in this run.
//
// A test names a row by "row:NN" in its doc comment or in a line that it logs;
// a scenario script in its first comment, which its test logs.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func main() {
	list := flag.String("list", "docs/rows.list.md", "the list of rows")
	out := flag.String("out", "", "where to write the table; empty writes none")
	module := flag.String("module", "cove.example/cove", "module path, cut off packages' names")
	flag.Parse()
	failed, err := run(os.Stdin, os.Stdout, *list, *out, *module)
	if err != nil {
		fmt.Fprintln(os.Stderr, "rows:", err)
		os.Exit(2)
	}
	if failed {
		os.Exit(1)
	}
}

// event is one line of go test -json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
	// Build failures come under the import path.
	ImportPath string
}

// result is how the tests of a run ended.
type result struct {
	passed, failed, skipped int
	broken                  []string          // packages that failed outside a test
	ended                   map[string]string // package.Test → pass, fail, skip
	rows                    map[int][]string  // row → package.Test that logged it
}

var names = regexp.MustCompile(`\brow:(\d{1,3})\b`)

func run(in io.Reader, out io.Writer, list, target, module string) (failed bool, err error) {
	r, err := read(in, out, module)
	if err != nil {
		return true, err
	}
	if target != "" {
		if err := commented(".", r); err != nil {
			return true, err
		}
		text, err := table(list, r)
		if err != nil {
			return true, err
		}
		if err := os.WriteFile(target, text, 0o644); err != nil {
			return true, err
		}
	}
	for _, p := range r.broken {
		fmt.Fprintln(out, "FAIL", p)
	}
	fmt.Fprintf(out, "%d passed, %d failed, %d skipped\n", r.passed, r.failed+len(r.broken), r.skipped)
	if r.passed+r.failed == 0 {
		fmt.Fprintln(out, "no test has run")
		return true, nil
	}
	return r.failed+len(r.broken) > 0, nil
}

// read prints what a person wants to see while the tests run: a line a
// package, and everything that a failing test said.
func read(in io.Reader, out io.Writer, module string) (*result, error) {
	r := &result{ended: map[string]string{}, rows: map[int][]string{}}
	said := map[string][]string{}
	inFailed := map[string]bool{}
	dec := json.NewDecoder(bufio.NewReaderSize(in, 1<<20))
	for {
		var e event
		if err := dec.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("not the output of go test -json: %w", err)
		}
		pkg := strings.TrimPrefix(strings.TrimPrefix(e.Package, module), "/")
		if pkg == "" {
			pkg = "."
		}
		id := pkg + "." + e.Test
		switch e.Action {
		case "build-output":
			fmt.Fprint(out, e.Output)
		case "output":
			said[id] = append(said[id], e.Output)
			for _, m := range names.FindAllStringSubmatch(e.Output, -1) {
				if n, err := strconv.Atoi(m[1]); err == nil && e.Test != "" {
					r.rows[n] = append(r.rows[n], id)
				}
			}
		case "pass", "skip", "fail":
			if e.Test == "" {
				fmt.Fprintf(out, "%-5s %-24s %6.1fs\n", map[string]string{"pass": "ok", "skip": "-", "fail": "FAIL"}[e.Action], pkg, e.Elapsed)
				if e.Action == "fail" {
					if !inFailed[pkg] {
						r.broken = append(r.broken, pkg)
					}
					fmt.Fprint(out, strings.Join(said[id], ""))
				}
				continue
			}
			r.ended[id] = e.Action
			top := !strings.Contains(e.Test, "/")
			switch e.Action {
			case "fail":
				inFailed[pkg] = true
				if top {
					r.failed++
				}
				fmt.Fprint(out, strings.Join(said[id], ""))
			case "pass":
				if top {
					r.passed++
				}
			case "skip":
				if top {
					r.skipped++
				}
				fmt.Fprint(out, strings.Join(said[id], ""))
			}
			delete(said, id)
		}
	}
	return r, nil
}

// commented adds the rows that tests name in their doc comments.
func commented(root string, r *result) error {
	return filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Doc == nil || !strings.HasPrefix(fn.Name.Name, "Test") {
				continue
			}
			for _, m := range names.FindAllStringSubmatch(fn.Doc.Text(), -1) {
				n, err := strconv.Atoi(m[1])
				if err != nil {
					return err
				}
				r.rows[n] = append(r.rows[n], path.Clean(filepath.ToSlash(filepath.Dir(name)))+"."+fn.Name.Name)
			}
		}
		return nil
	})
}

var listed = regexp.MustCompile(`^\| (\d+) \| ([^|]*)\|`)

// table is docs/rows.md.
func table(list string, r *result) ([]byte, error) {
	f, err := os.ReadFile(list)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	var lines []string
	done, total := 0, 0
	for line := range strings.Lines(string(f)) {
		m := listed.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		total++
		var passed, open []string
		slices.Sort(r.rows[n])
		for _, id := range slices.Compact(r.rows[n]) {
			switch r.ended[id] {
			case "pass":
				passed = append(passed, "`"+id+"`")
			case "":
				open = append(open, "`"+id+"` did not run")
			default:
				open = append(open, "`"+id+"` "+r.ended[id])
			}
		}
		state := "open"
		if len(passed) > 0 && len(open) == 0 {
			state = "done"
			done++
		}
		lines = append(lines, fmt.Sprintf("| %d | %s | %s | %s |", n, strings.TrimSpace(m[2]), state, strings.Join(append(passed, open...), ", ")))
	}
	fmt.Fprintf(&b, "# Rows\n\nGenerated by `make test` from its own run; do not edit. A row is done when at least one test names it and all that do have passed. The list itself is [rows.list.md](rows.list.md).\n\n%d of %d have a passing test.\n\n| Row | Feature | State | Tests |\n|---|---|---|---|\n", done, total)
	for _, l := range lines {
		fmt.Fprintln(&b, l)
	}
	return []byte(b.String()), nil
}
