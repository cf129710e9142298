package oci

import "strings"

// The limits of names. The specification sets the tag's; a repository name is
// bounded because clients keep it, with the host, in 255 bytes.
const (
	MaxRepo = 255
	MaxTag  = 128
)

// ParseRepo accepts path components of lower-case letters and digits, joined
// inside by one dot, one or two underscores or any number of dashes, and
// between by single slashes (distribution-spec, Pulling manifests, <name>).
func ParseRepo(s string) (Repo, error) {
	if len(s) > MaxRepo {
		return Repo{}, ErrNameInvalid.Detail("the repository name is %d bytes long, the limit is %d", len(s), MaxRepo)
	}
	for part := range strings.SplitSeq(s, "/") {
		if !component(part) {
			return Repo{}, ErrNameInvalid.Detail("%q is not a repository name: %q is not lower-case letters and digits joined by ., _, __ or dashes", clip(s), clip(part))
		}
	}
	return Repo{s}, nil
}

// component reports whether s is [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*.
func component(s string) bool {
	if s == "" || !lowerOrDigit(s[0]) || !lowerOrDigit(s[len(s)-1]) {
		return false
	}
	for i := 0; i < len(s); {
		if lowerOrDigit(s[i]) {
			i++
			continue
		}
		n := joiner(s[i:])
		if n == 0 || !lowerOrDigit(s[i+n]) { // s does not end in a joiner, so there is a byte behind it
			return false
		}
		i += n
	}
	return true
}

// joiner returns how many bytes at the beginning of s hold two runs of
// letters and digits together; 0 is none.
func joiner(s string) int {
	switch {
	case s[0] == '.':
		return 1
	case strings.HasPrefix(s, "__"):
		return 2
	case s[0] == '_':
		return 1
	}
	return len(s) - len(strings.TrimLeft(s, "-"))
}

func lowerOrDigit(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// ParseTag accepts a letter, digit or underscore and up to 127 more of these,
// dots and dashes (distribution-spec, Pulling manifests, <reference>).
func ParseTag(s string) (Tag, error) {
	if len(s) > MaxTag {
		return Tag{}, ErrTagInvalid.Detail("the tag is %d bytes long, the limit is %d", len(s), MaxTag)
	}
	if s == "" || s[0] == '.' || s[0] == '-' {
		return Tag{}, ErrTagInvalid.Detail("%q is not a tag: it begins with a letter, a digit or an underscore", s)
	}
	for i := range len(s) {
		if c := s[i]; !lowerOrDigit(c) && !('A' <= c && c <= 'Z') && c != '_' && c != '.' && c != '-' {
			return Tag{}, ErrTagInvalid.Detail("%q is not a tag: only letters, digits, underscores, dots and dashes are allowed", s)
		}
	}
	return Tag{s}, nil
}

// ParseReference accepts a digest where there is a colon, which no tag has,
// and a tag otherwise.
func ParseReference(s string) (Reference, error) {
	if strings.Contains(s, ":") {
		d, err := ParseDigest(s)
		return Reference{Digest: d}, err
	}
	t, err := ParseTag(s)
	return Reference{Tag: t}, err
}
