package cove

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// dials says which files may open connections of their own, and why. All
// requests of the server go through package outbound, which looks at the
// address that it dials.
var dials = map[string]string{
	"outbound/client.go":         "is the one transport of the server",
	"outbound/dialer.go":         "is the one dialer of the server",
	"client/client.go":           "runs at the user's, and goes where their profile says",
	"cmd/cove/join.go":           "runs at the user's: redeems a code, and asks the resolver that the member would get",
	"cmd/cove/listen.go":         "connects a UDP socket to learn which address of ours would be used; nothing is sent",
	"cmd/cove/check.go":          "runs at the user's: check-health and probe try the way that the user's own clients take",
	"health/health.go":           "runs at the user's: the check's way to a registry",
	"health/engine.go":           "runs at the user's: the sockets of this machine's container engines",
	"health/names.go":            "runs at the user's: asks the resolver that this machine uses",
	"health/ask.go":              "runs at the user's: asks the registry that is checked; a credential goes to it alone",
	"health/small.go":            "runs at the user's: the same way as health/connect.go, with smaller packets",
	"cmd/cove/firewall.go":       "runs at the user's: looks up the addresses that a firewall's rules name",
	"federation/federation.go":   "wraps the transport that it is given, which is package outbound's",
	"dnsapi/forward.go":          "asks the resolvers that the operator has named by address",
	"link/wireguard/tunnel.go":   "runs at the user's: finds the address of the server's WireGuard endpoint",
	"link/wireguard/up_linux.go": "runs at the user's: asks the resolver inside the tunnel what to route",
	"link/wireguard/proxy.go":    "runs at the user's: cove join --userspace --direct",
	"bench/regload/main.go":      "is a load generator, no part of the server",
}

// forbidden are the names by which the standard library and our libraries open
// connections; "*" is all of a package.
var forbidden = map[string][]string{
	"net/http":   {"Client", "Transport", "DefaultClient", "DefaultTransport", "Get", "Head", "Post", "PostForm"},
	"net":        {"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer", "Resolver", "DefaultResolver", "LookupHost", "LookupIP", "LookupAddr", "LookupCNAME"},
	"crypto/tls": {"Dial", "DialWithDialer", "Dialer"},
	"net/smtp":   {"*"}, "net/rpc": {"*"}, "golang.org/x/net/proxy": {"*"},
	"github.com/miekg/dns":                                 {"Client", "Dial", "DialTimeout", "Exchange", "ExchangeContext"},
	"github.com/google/go-containerregistry/pkg/v1/remote": {"DefaultTransport", "Get", "Image", "Index", "Head", "Layer", "List", "Write"}, // without options they use the default
	"github.com/google/go-containerregistry/pkg/crane":     {"*"},
}

func TestOnlyTheListedFilesOpenConnections(t *testing.T) {
	used := map[string]bool{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || slices.Contains([]string{"bin", "testdata", "sdktest"}, d.Name())) {
			return fs.SkipDir
		}
		file = filepath.ToSlash(file)
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") || strings.HasSuffix(path.Dir(file), "test") {
			return nil // only tests import what lies in a package named …test
		}
		found, err := connections(file)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return nil
		}
		used[file] = true
		if dials[file] == "" {
			t.Errorf("%s uses %s: what the server asks of others goes through package outbound", file, strings.Join(found, ", "))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for file := range dials {
		if !used[file] {
			t.Errorf("%s opens no connection: take it from the list", file)
		}
	}
}

// connections are the forbidden names that a file uses as values or makes
// values of. The type of a field or parameter, which has a star, opens none.
func connections(file string) (found []string, err error) {
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	names := map[string][]string{}
	for _, im := range f.Imports {
		p, err := strconv.Unquote(im.Path.Value)
		if err != nil {
			return nil, err
		}
		local := path.Base(p)
		if im.Name != nil {
			local = im.Name.Name
		}
		if list := forbidden[p]; list != nil {
			names[local] = list
			if local == "." || list[0] == "*" {
				found = append(found, p)
			}
		}
	}
	pointers := map[ast.Expr]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StarExpr:
			pointers[n.X] = true
		case *ast.SelectorExpr:
			if pkg, ok := n.X.(*ast.Ident); ok && slices.Contains(names[pkg.Name], n.Sel.Name) && !pointers[n] {
				found = append(found, pkg.Name+"."+n.Sel.Name)
			}
		}
		return true
	})
	return found, nil
}
