package oci

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"cove.example/cove/fault"
)

// The grammar as the specification prints it.
var (
	repoGrammar = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagGrammar  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

var names = []string{
	"", "a", "a/b", "library/hello-world", "a.b", "a_b", "a__b", "a___b", "a-b", "a-----b", "a..b", "a.-b", "a_-b",
	"-a", "a-", "a_", ".a", "a.", "/a", "a/", "a//b", "a/./b", "../a", "A", "a/B", "ä", "a b", "a%2fb", "a\x00", "a\n",
	"a/-b", "a/b_", "0", "0.0.0", "1__2--3.4/5", strings.Repeat("a", 255), strings.Repeat("a", 256),
}

func TestParseRepo(t *testing.T) {
	for _, s := range names {
		checkRepo(t, s)
	}
}

func FuzzParseRepo(f *testing.F) {
	for _, s := range names {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkRepo(t, s) })
}

func checkRepo(t *testing.T, s string) {
	t.Helper()
	r, err := ParseRepo(s)
	want := repoGrammar.MatchString(s) && len(s) <= MaxRepo
	switch {
	case (err == nil) != want:
		t.Errorf("ParseRepo(%q) = %v, the grammar says %v", s, err, want)
	case err == nil && r.String() != s:
		t.Errorf("ParseRepo(%q) prints as %q", s, r)
	case err != nil && (!errors.Is(err, ErrNameInvalid) || !fault.Is(err, fault.Invalid) || r != Repo{}):
		t.Errorf("ParseRepo(%q) = %q, %v, which is not ErrNameInvalid", s, r, err)
	}
}

var references = []string{
	"", "latest", "1.0", "_x", ".x", "-x", "x-", "X.Y_Z-0", "a b", "a/b", "ä", "a\x00", strings.Repeat("t", 128), strings.Repeat("t", 129),
	"sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("0", 63), "sha512:" + strings.Repeat("a", 128), "sha256:" + strings.Repeat("A", 64), "md5:00", ":", "a:b",
}

func TestParseReference(t *testing.T) {
	for _, s := range references {
		checkReference(t, s)
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range references {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkReference(t, s) })
}

func checkReference(t *testing.T, s string) {
	t.Helper()
	r, err := ParseReference(s)
	if err == nil {
		if r.String() != s || r.Digest.IsZero() == (r.Tag == Tag{}) {
			t.Errorf("ParseReference(%q) = %+v", s, r)
		}
		if r.Digest.IsZero() && !tagGrammar.MatchString(s) {
			t.Errorf("ParseReference(%q) is a tag against the grammar", s)
		}
		return
	}
	if r != (Reference{}) {
		t.Errorf("ParseReference(%q) failed with a value: %+v", s, r)
	}
	if !errors.Is(err, ErrTagInvalid) && !errors.Is(err, ErrDigestInvalid) {
		t.Errorf("ParseReference(%q) = %v, which is neither ErrTagInvalid nor ErrDigestInvalid", s, err)
	}
	if tagGrammar.MatchString(s) {
		t.Errorf("ParseReference(%q) = %v, but the grammar allows it", s, err)
	}
}

func TestErrorsQuoteNoMoreThanAScreen(t *testing.T) {
	long := strings.Repeat("!", 1<<20)
	for _, err := range []error{second(ParseRepo(long)), second(ParseReference(long)), second(ParseReference(long + ":"))} {
		if _, public := fault.Of(err); len(public) > 1000 {
			t.Errorf("a name of 1 MiB gives a message of %d bytes", len(public))
		}
	}
}

func second[T any](_ T, err error) error { return err }
