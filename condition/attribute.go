package condition

import "strings"

// attributes are all there are: what a request has of itself and of the way it
// came. Their names are compared without regard to case, as Azure's are.
var attributes = []struct {
	at, name string
	from     source
	of       domain
}{
	{"@Request", "Microsoft.ContainerRegistry/registries/repositories:name", repository, texts},
	{"@Environment", "isPrivateLink", privateLink, flags},
	{"@Environment", "Microsoft.Network/privateEndpoints", endpoint, texts},
	{"@Environment", "Microsoft.Network/virtualNetworks/subnets", subnet, texts},
	{"@Environment", "UtcNow", utcNow, moments},
}

var examples = []string{"@Request[Microsoft.ContainerRegistry/registries/repositories:name]"}

// caseSensitiveKey ends the names of attributes that have keys. None here has.
const caseSensitiveKey = "<$key_case_sensitive$>"

// attribute says which attribute the lexeme names.
func (p *parser) attribute() (source, domain, *Error) {
	full := p.source(&p.now)
	at := full[:strings.IndexByte(full, '[')]
	inside := p.now.at + len(at) + 1
	name := strings.Trim(p.now.inner, " \t\r\n") // as between words: no other space is one
	switch at {
	case "@Request", "@Environment":
	case "@Resource", "@Principal":
		return 0, 0, p.fail(p.now.at, "a registry's requests have no %s attributes; there are %s", at, known())
	default:
		return 0, 0, p.fail(p.now.at, "there is no source %s: expected @Request or @Environment", clip(at))
	}
	if bare, ok := strings.CutSuffix(name, caseSensitiveKey); ok {
		return 0, 0, p.fail(inside, "%s has no keys, so %s says nothing about it", clip(bare), caseSensitiveKey)
	}
	elsewhere := ""
	for _, a := range attributes {
		if !equal(a.name, name, true) {
			continue
		}
		if a.at == at {
			return a.from, a.of, nil
		}
		elsewhere = a.at
	}
	if elsewhere != "" {
		return 0, 0, p.fail(p.now.at, "%s is not of %s but of %s", name, at, elsewhere)
	}
	return 0, 0, p.fail(inside, "there is no attribute %s; there are %s", clip(name), known())
}

func known() string {
	var out []string
	for _, a := range attributes {
		out = append(out, a.at+"["+a.name+"]")
	}
	return strings.Join(out, ", ")
}
