package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// literal is a string in cove's source.
type literal struct{ file, text string }

// packages are the folders that hold cove's own source, tests apart.
func packages(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, s := range source(t) {
		if dir := filepath.ToSlash(filepath.Dir(s.file)); dir != "." && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	slices.Sort(out)
	return out
}

type file struct {
	file string
	tree *ast.File
}

var parsed struct {
	once  sync.Once
	files []file
	err   error
}

// source is every file of the program.
func source(t *testing.T) []file {
	t.Helper()
	parsed.once.Do(func() {
		parsed.err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			if d.IsDir() {
				skip := []string{"bin", "bench", "conformance", "docs", "testdata", "make", "scenarios", "soak"}
				if rel != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains(skip, d.Name())) {
					return fs.SkipDir
				}
				return nil
			}
			if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			tree, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			parsed.files = append(parsed.files, file{rel, tree})
			return nil
		})
	})
	if parsed.err != nil {
		t.Fatal(parsed.err)
	}
	return parsed.files
}

// literals are the strings of the program, those that are put together with +
// as one, with %s for what is not a literal.
func literals(t *testing.T) (out []literal) {
	t.Helper()
	for _, f := range source(t) {
		ast.Inspect(f.tree, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			if !ok {
				return true
			}
			text, is := constant(e)
			if is {
				out = append(out, literal{filepath.ToSlash(f.file), text})
			}
			return !is
		})
	}
	if len(out) < 1000 {
		t.Fatalf("only %d strings found in the source", len(out))
	}
	return out
}

// constant is the text of a string literal, or of a sum with one in it.
func constant(e ast.Expr) (string, bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, e.Kind == token.STRING && err == nil
	case *ast.BinaryExpr:
		left, ok := constant(e.X)
		right, ok2 := constant(e.Y)
		if e.Op != token.ADD || !ok && !ok2 {
			return "", false
		}
		if !ok {
			left = "%s"
		}
		if !ok2 {
			right = "%s"
		}
		return left + right, true
	}
	return "", false
}

// The sentences that "When it fails" says cove prints are in its source, word
// for word; … stands for what is filled in.
func TestSentencesAreCoves(t *testing.T) {
	verb := regexp.MustCompile(`%[-+# 0-9.]*[a-zA-Z]`)
	var texts []string
	for _, l := range literals(t) {
		texts = append(texts, verb.ReplaceAllString(l.text, "…"))
	}
	n := 0
	for _, page := range listed(t) {
		_, section, _ := strings.Cut(read(t, page), "\n## When it fails\n")
		column := -1
		for row := range strings.Lines(section) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
			if len(cells) < 2 {
				column = -1
				continue
			}
			if i := slices.IndexFunc(cells, func(s string) bool { return strings.TrimSpace(s) == "cove says" }); i >= 0 {
				column = i
				continue
			}
			if column < 0 {
				continue
			}
			for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cells[column], -1) {
				n++
				if lost := missing(m[1], texts); lost != "" {
					t.Errorf("%s says that cove prints %q, and nothing in the source has %q", page, m[1], lost)
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d sentences found", n)
	}
}

// missing is the first piece of a sentence, between what is filled in, that no
// string has.
func missing(sentence string, texts []string) string {
	for piece := range strings.SplitSeq(sentence, "…") {
		piece = strings.TrimSpace(piece)
		if len(piece) < 4 {
			continue
		}
		if !slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(s, piece) }) {
			return piece
		}
	}
	return ""
}
