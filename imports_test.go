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

	"reason": "",
	"topic":  "",
	"health": "fault oci reason",
	"whatif": "fault arm reason link resource directory registry network zone policy audit access",
	// It looks at what requests are answered from.
	"drift": "arm reason resource registry network zone policy",

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
	"identity":  "fault arm resource directory",
	// Other issuers' tokens; what it fetches goes by a transport it is given.
	"federation": "fault",
	"condition":  "",
	"policy":     "fault arm condition resource",
	"token":      "fault arm directory",
	"access":     "fault arm reason condition oci link resource registry network policy directory token audit",
	"audit":      "fault kql",
	"kql":        "fault",
	"authority":  "fault",
	"seal":       "fault",
	// A login that a person ends elsewhere.
	"device": "fault directory",

	"content/disk":   "fault oci content",
	"link/wireguard": "fault link network",
	"link/host":      "link network",
	"link/proxy":     "fault link",
	"store":          "fault oci arm task content resource registry directory policy token audit device",

	"ociapi":   "fault oci reason link content registry access audit",
	"armapi":   "fault arm drift whatif link resource registry network access policy token audit directory insight",
	"loginapi": "fault link directory federation token device access",
	"graphapi": "fault resource directory",
	"dnsapi":   "fault zone",
	"logapi":   "fault audit insight kql link resource arm",
	"imdsapi":  "link resource network identity directory token",

	"insight":  "fault arm audit outbound resource task",
	"door":     "link",
	"client":   "fault arm",
	"cmd/cove": "*",
	"cmd/rows": "",

	// The second opinion on who may do what has nothing of the first.
	"policytest": "",
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
		if strings.HasSuffix(pkg, "test") && pkg != "policytest" {
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
