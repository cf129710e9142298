package cove

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// may says, for each package, which of cove's packages it may import. A new
// arrow is a design decision: change this table in a commit that explains it.
//
// Leaves know only each other. Nouns know leaves and the nouns written here.
// Adapters know the noun they serve. Edges know nouns and leaves, never an
// adapter, never another edge. Only cmd/cove knows which adapter is behind an
// interface.
var may = map[string]string{
	".": "",

	"fault": "",
	"oci":   "fault",
	"arm":   "fault",
	"link":  "",
	"task":  "fault",

	// What the server asks of others goes through one door; transfer copies
	// what comes in by it, and does the work that a registry was asked for.
	"outbound": "fault",
	"upstream": "fault oci content outbound transfer",
	"transfer": "fault oci content registry resource task",

	"content":   "fault oci task",
	"resource":  "fault arm task",
	"registry":  "fault arm oci resource task",
	"network":   "fault arm resource registry task",
	"zone":      "fault arm resource network",
	"directory": "fault arm",
	"policy":    "fault arm resource",
	"token":     "fault arm directory",
	"access":    "fault arm oci link resource registry network policy directory token audit",
	"audit":     "fault",
	"authority": "fault",
	"seal":      "fault",

	"content/disk":   "fault oci content",
	"link/wireguard": "fault link network",
	"store":          "fault oci arm task content resource registry directory policy token audit",

	"ociapi":   "fault oci link content registry access audit",
	"armapi":   "fault arm link resource registry network access policy token audit directory",
	"loginapi": "fault link directory token",
	"graphapi": "fault resource directory",
	"dnsapi":   "fault zone",

	"door":     "link",
	"client":   "fault arm",
	"cmd/cove": "*",
	"cmd/rows": "",
}

// It reads the files itself rather than ask go list, so that the test cache
// notices when one of them changes.
func TestImportsFollowTheTable(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"bin", "bench", "conformance", "testdata"}, d.Name())) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		if strings.HasSuffix(pkg, "test") {
			return nil // contract suites and harnesses: only tests import them
		}
		seen[pkg] = true
		allowed, ok := may[pkg]
		if !ok {
			t.Errorf("%s has no row in the table", pkg)
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, im := range f.Imports {
			p, err := strconv.Unquote(im.Path.Value)
			if err != nil {
				return err
			}
			name, ours := strings.CutPrefix(p, "cove.example/cove/")
			if ours && allowed != "*" && !slices.Contains(strings.Fields(allowed), name) {
				t.Errorf("%s imports %s, which the table does not allow", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 10 {
		t.Fatalf("only %d packages found: the walk is broken", len(seen))
	}
}
