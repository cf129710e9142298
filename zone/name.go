package zone

import (
	"errors"
	"strings"
)

// RecordName is the name, relative to the zone, under which a private zone
// overrides a registry's public name fqdn. The public chain of
// myreg.cr.example leads to myreg.privatelink.cr.example, so in the zone
// privatelink.cr.example the record is "myreg", and for
// myreg.westeurope.data.cr.example it is "myreg.westeurope.data". In a zone
// that holds the public name itself it is that name's. A zone that holds
// neither overrides nothing, and ok is false.
func RecordName(zone, fqdn, suffix string) (name string, ok bool) {
	zone, fqdn, suffix = canonical(zone), canonical(fqdn), canonical(suffix)
	left, ok := below(fqdn, suffix)
	if !ok || left == "" {
		return "", false
	}
	for _, full := range []string{left + "." + privateLabel + "." + suffix, fqdn} {
		if rel, ok := below(full, zone); ok {
			if rel == "" {
				rel = "@"
			}
			return rel, true
		}
	}
	return "", false
}

// checkName says what is wrong with a domain name in canonical form.
func checkName(name string) error {
	// 255 bytes on the wire, of which the first length and the root's are two
	// (RFC 1035, 2.3.4).
	if name == "" || len(name) > 253 {
		return errors.New("must have between 1 and 253 characters")
	}
	for l := range strings.SplitSeq(name, ".") {
		if !plainLabel(l) {
			return errors.New("must be labels of 1 to 63 letters, digits, hyphens and underscores, no hyphen first or last")
		}
	}
	return nil
}

func plainLabel(l string) bool {
	if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(l, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

// checkRelative says what is wrong with a record set's name in a zone.
func checkRelative(name, zone string) error {
	if name == "@" {
		return nil
	}
	full := name + "." + zone
	if name == "*" {
		full = zone
	} else if rest, ok := strings.CutPrefix(full, "*."); ok {
		full = rest
	}
	if len(name)+1+len(zone) > 253 {
		return errors.New("must have, with its zone, at most 253 characters")
	}
	return checkName(full)
}

// absolute is the full name of a record set.
func absolute(name, zone string) string {
	if name == "@" {
		return canonical(zone)
	}
	return canonical(name + "." + zone)
}
