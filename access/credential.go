package access

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// maxAuthority bounds an Authorization header: a token has at most 8 KiB, and
// Basic adds a third.
const maxAuthority = 12 << 10

// zeroUser is the user name that says that the password is a token.
const zeroUser = "00000000-0000-0000-0000-000000000000"

// credential is an Authorization header, read.
type credential struct {
	method   Method
	user     string
	password string // or the token
}

// parseAuthorization reads an Authorization header. An empty one is no
// credential; false is one that cannot be read, which is never taken for none:
// a stale or mistyped credential must not turn into an anonymous caller.
func parseAuthorization(h string) (credential, bool) {
	if h == "" {
		return credential{method: ByNothing}, true
	}
	scheme, rest, _ := strings.Cut(h, " ")
	switch {
	case len(h) > maxAuthority:
		return credential{}, false
	case strings.EqualFold(scheme, "Bearer"):
		c := credential{method: ByToken, password: rest}
		return c, rest != "" && !strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r > '~' })
	case strings.EqualFold(scheme, "Basic"):
		text, err := base64.StdEncoding.DecodeString(rest)
		user, password, ok := strings.Cut(string(text), ":")
		if err != nil || !ok || !utf8.Valid(text) || strings.ContainsRune(string(text), 0) {
			return credential{method: ByPassword}, false
		}
		return credential{method: ByPassword, user: user, password: password}, true
	}
	return credential{}, false
}
